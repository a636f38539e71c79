//! Where the reading of a query stands: kept on disk with what came so far, so that a query that is larger than a night goes on
//! in the next one.

use super::ask::Ask;
use super::course::Course;
use super::deleted::Kept;
use super::part::Part;
use super::reading::Walk;
use super::tally::Tally;
use crate::snapshot::{open_bytes, seal_bytes};
use crate::source::SourceError;
use crate::source::duty::Why;
use crate::source::ledger::{self, Unit};
use crate::source::pull::Pull;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use url::Url;

/// Name under which a place is sealed: a link may name patients.
const SEAL: &str = "place";

/// Where a reading stands when a piece of it is durable.
#[derive(Serialize, Deserialize)]
pub(super) struct Place {
    /// The staged file of the piece.
    pub file: String,
    /// Parts that are still to be read, the next one last; those that failed are tried again.
    pub waiting: Vec<PartRow>,
    /// The query was divided.
    pub in_parts: bool,
    /// Parts begun.
    pub parts: u32,
    /// Two readings must agree.
    pub shift: Option<Shift>,
    pub tries: Tries,
    /// What is left of the part that was under way.
    pub left: Option<Left>,
    pub all: Sums,
    /// First and last time of change that came, in microseconds.
    pub times: Option<(i64, i64)>,
    pub entries: u64,
    pub kept: Kept,
    pub hidden: Option<Why>,
    pub expected: Option<u64>,
    /// The server's clock when the query began, in microseconds.
    pub server_time: Option<i64>,
}

/// How often a query was begun again, and whether for less than was announced.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tries {
    pub restarts: u32,
    pub short: bool,
}

/// A reading of what shifts while it is read: it must agree with the one before.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Shift {
    /// What the reading before came to.
    pub digest: u64,
    /// How many readings there were.
    pub pass: u32,
    pub why: Why,
}

/// The rest of a part, and what is remembered of its pages.
#[derive(Serialize, Deserialize)]
pub(super) struct Left {
    /// The link to the next page and the form to post there; none: all pages are there.
    pub next: Option<(String, Option<String>)>,
    /// Number of the part.
    pub part: u32,
    /// The first piece that holds nothing of another part.
    pub since: usize,
    /// Pages that came since the piece before.
    pub addresses: Vec<u64>,
    pub contents: Vec<u64>,
    pub tally: Sums,
    pub on_page: u64,
    pub most: u64,
    pub total: Option<u64>,
    pub ignored: BTreeSet<String>,
    pub complaint: Option<Why>,
    pub shifted: bool,
    pub posted: bool,
    pub is_followed: bool,
    pub course: Course,
}

/// A tally without what it has seen: that is in the staged files.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Sums {
    pub distinct: u64,
    pub repeated: u64,
    pub digest: u64,
}

/// A part as it is kept; times in microseconds.
#[derive(Serialize, Deserialize)]
pub(super) struct PartRow {
    patients: Option<Vec<String>>,
    from: Option<i64>,
    until: Option<i64>,
    by_time: bool,
}

impl PartRow {
    pub fn of(part: &Part) -> PartRow {
        let micros = |at: Option<Timestamp>| at.map(Timestamp::as_microsecond);
        PartRow { patients: part.patients.clone(), from: micros(part.from), until: micros(part.until), by_time: part.by_time }
    }

    pub fn part(self) -> Part {
        let at = |micros: Option<i64>| micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        Part { patients: self.patients, from: at(self.from), until: at(self.until), by_time: self.by_time }
    }
}

/// Digests of pages, and which of them are not on disk yet.
#[derive(Default)]
pub(super) struct Pages {
    seen: BTreeSet<u64>,
    fresh: Vec<u64>,
}

impl Pages {
    /// Whether it was not there yet.
    pub fn insert(&mut self, digest: u64) -> bool {
        let is_new = self.seen.insert(digest);
        self.fresh.extend(is_new.then_some(digest));
        is_new
    }

    pub fn contains(&self, digest: u64) -> bool {
        self.seen.contains(&digest)
    }

    pub fn len(&self) -> usize {
        self.seen.len()
    }
}

impl Left {
    /// What is left of a walk; what it has seen since the last time counts as on disk from now on.
    pub fn of(walk: &mut Walk, next: Option<&Ask>) -> Left {
        Left {
            next: next.map(|ask| (ask.url.to_string(), ask.form.clone())),
            part: walk.part,
            since: walk.since,
            addresses: std::mem::take(&mut walk.addresses.fresh),
            contents: std::mem::take(&mut walk.contents.fresh),
            tally: walk.tally.sums(),
            on_page: walk.on_page,
            most: walk.most,
            total: walk.total,
            ignored: walk.ignored.clone(),
            complaint: walk.complaint.clone(),
            shifted: walk.shifted,
            posted: walk.posted,
            is_followed: walk.is_followed,
            course: walk.course.clone(),
        }
    }
}

/// Records a piece of a query as a unit of its own, with the place where the query goes on.
pub(super) fn keep(pull: &Pull<'_>, query: &str, number: usize, piece: &Unit, place: &Place) -> Result<(), SourceError> {
    let wrong = |_| SourceError::Options("the place in a query could not be sealed".to_owned());
    let text = serde_json::to_vec(place).map_err(|error| wrong(error.into()))?;
    let sealed = seal_bytes(pull.snapshot.key(), SEAL, &text).map_err(wrong)?;
    tracing::debug!(pull = pull.id.0, query = %piece.query, number, "a piece of a query is durable");
    Ok(ledger::keep_place(pull.snapshot.store(), pull.id, piece, query, number, &sealed)?)
}

/// The places of a query, in their order; none if one of them cannot be read, as those of another version of this program.
pub(super) fn kept(pull: &Pull<'_>, query: &str) -> Result<Vec<Place>, SourceError> {
    let sealed = ledger::places(pull.snapshot.store(), pull.id, query)?;
    let open = |sealed: &Vec<u8>| serde_json::from_slice(&open_bytes(pull.snapshot.key(), SEAL, sealed).ok()?).ok();
    Ok(sealed.iter().map(open).collect::<Option<Vec<Place>>>().unwrap_or_default())
}

/// Takes up what the last of some places left of a part, if that can be read.
pub(super) fn taken_up(places: &[Place], tally: impl Fn(usize, Sums) -> Result<Tally, SourceError>) -> Result<Option<(Walk, Option<Ask>)>, SourceError> {
    let Some(left) = places.last().and_then(|place| place.left.as_ref()) else { return Ok(None) };
    let next = match &left.next {
        None => None,
        Some((address, form)) => match Url::parse(address) {
            Ok(url) => Some(Ask { url, form: form.clone() }),
            Err(_) => return Ok(None),
        },
    };
    let of_part = || places.iter().filter_map(|place| place.left.as_ref()).filter(|other| other.part == left.part);
    let pages = |digests: fn(&Left) -> &Vec<u64>| Pages { seen: of_part().flat_map(digests).copied().collect(), fresh: Vec::new() };
    let walk = Walk {
        part: left.part,
        since: left.since,
        addresses: pages(|left| &left.addresses),
        contents: pages(|left| &left.contents),
        tally: tally(left.since, left.tally)?,
        on_page: left.on_page,
        most: left.most,
        total: left.total,
        ignored: left.ignored.clone(),
        posted: left.posted,
        is_followed: left.is_followed,
        course: left.course.clone(),
        complaint: left.complaint.clone(),
        shifted: left.shifted,
    };
    Ok(Some((walk, next)))
}
