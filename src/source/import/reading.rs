//! An import read whole: each row judged, and all of them beside what is stored.

use super::known::{Ask, Known};
use super::row::Outcome;
use super::table::{Line, Stop, Table, find};
use super::{Import, UNITS};
use crate::snapshot::{Incoming, Rows, Snapshot};
use crate::source::SourceError;
use crate::source::account::is_fall;
use crate::source::duty::{Code, Why};
use crate::store::{quarantine, sha256_hex};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of one import.
const ROWS_MAX: u64 = 1_000_000;
/// Places of rows that a difference names; further ones are counted.
const PLACES_MAX: usize = 1_000;
/// So many rows may go without a word, of a table of any size.
const ROWS_GONE_FREE: u64 = 2;
const TOO_MANY: &str = "it has more than 1,000,000 rows";

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which file of the import, from 1 in order of their names.
    pub file: usize,
    /// Its line there, the heading included.
    pub line: u64,
}

/// What is told of a row.
pub(super) enum Met<'a> {
    Fits(Box<Incoming>),
    /// Why it does not fit, or of whom it is is not known.
    Refused {
        reason: String,
        raw: &'a [u8],
        is_unknown: bool,
    },
}

/// What an import holds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rows with anything in them.
    pub rows: u64,
    /// Those of whom nobody is known and that are to be ignored.
    pub ignored: u64,
    /// What each row says that fits, by id.
    came: BTreeMap<String, [u8; 32]>,
    /// Ids of rows that do not fit.
    beside: BTreeSet<String>,
    /// Rows that do not fit, and that a person has discarded.
    pub discarded: u64,
    /// Rows of which not even the key can be read.
    unkeyed: u64,
    /// Why it is not whole.
    pub gap: Option<Why>,
}

impl Tally {
    /// A table in which suddenly much less is than what is stored, or other rows, is not believed: it is the whole truth of its import,
    /// and grows. Ids are those of stored rows. Whether it is so: nothing of the table is taken then, for rows whose keys are only
    /// written otherwise would be stored twice.
    pub fn doubt<'i>(&mut self, ids: impl Iterator<Item = &'i String>) -> bool {
        let (mut stored, mut missing) = (0_u64, 0_u64);
        for id in ids {
            stored += 1;
            missing += u64::from(!self.came.contains_key(id) && !self.beside.contains(id));
        }
        // So many may be rows that a person has discarded, or whose key cannot be read.
        let gone = missing.saturating_sub(self.discarded + self.unkeyed);
        let rows = self.rows;
        let found = if is_fall(stored, rows) && (stored.abs_diff(rows) > ROWS_GONE_FREE || rows == 0) {
            format!("{rows} rows are in it where {stored} are stored")
        } else if gone > 0 && (gone == stored || gone > ROWS_GONE_FREE && is_fall(stored, stored - gone)) {
            format!("{rows} rows are in it, and of the {stored} that are stored it lacks {gone}: others, or their keys are written otherwise (leading zeros, a date's form)")
        } else {
            return false;
        };
        let kept = "what is stored is kept until a person has looked; if they are gone, `watershed import --accept-loss`";
        self.gap.get_or_insert(Why::new(Code::ImportLoss, format!("{found}; {kept}")));
        true
    }

    /// What that means for what is stored.
    pub fn stored(self) -> Rows {
        if self.gap.is_some() || self.unkeyed > 0 { Rows::InDoubt } else { Rows::Whole(self.beside) }
    }
}

/// Who is meant by the rows of an import.
pub(super) fn asks(import: &Import, asked: &mut BTreeSet<Ask>) -> Result<(), SourceError> {
    for table in find(import).0 {
        let mut each = |line: Line<'_>| {
            asked.extend(line.cells.iter().flat_map(|cells| import.asks(cells)));
            Ok(())
        };
        // What is wrong with it is said when it is read for good.
        if let Err(Stop::Taker(error)) = table.read(import, &mut each) {
            return Err(error);
        }
    }
    Ok(())
}

/// The SHA-256 of each row of an import that a person has discarded.
pub(super) fn discarded(import: &Import, snapshot: &Snapshot) -> Result<BTreeSet<String>, SourceError> {
    Ok(snapshot.store().with(|connection| quarantine::discarded(connection, Some(&import.query())))?)
}

/// Reads all files of an import, but for the rows that were discarded.
pub(super) fn read(import: &Import, known: &Known, discarded: &BTreeSet<String>, each: &mut dyn FnMut(Met<'_>, Place) -> Result<(), SourceError>) -> Result<Tally, SourceError> {
    let (tables, gap) = find(import);
    let mut tally = Tally { gap, ..Tally::default() };
    for (file, table) in (1..).zip(&tables) {
        match read_one(import, (known, discarded), (file, table), &mut tally, each) {
            Ok(()) => {}
            Err(Stop::Gap(why)) => drop(tally.gap.get_or_insert(why)),
            Err(Stop::Taker(error)) => return Err(error),
        }
    }
    Ok(tally)
}

fn read_one(
    import: &Import,
    (known, discarded): (&Known, &BTreeSet<String>),
    (file, table): (usize, &Table),
    tally: &mut Tally,
    each: &mut dyn FnMut(Met<'_>, Place) -> Result<(), SourceError>,
) -> Result<(), Stop> {
    let unreadable = |error: std::io::Error| Stop::Gap(Why::new(Code::Import, format!("{}: it cannot be read: {error}", table.shown)));
    let sha256 = table.digest().map_err(unreadable)?;
    let mut take = |line: Line<'_>| {
        tally.rows += 1;
        if tally.rows > ROWS_MAX {
            tally.gap.get_or_insert(Why::new(Code::Import, TOO_MANY));
            return Ok(());
        }
        let place = Place { file, line: line.number };
        let outcome = match &line.cells {
            Ok(cells) => import.row(cells, known, &sha256),
            Err(reason) => Outcome::Refused { id: None, reason: reason.clone() },
        };
        let (id, reason, is_unknown) = match outcome {
            Outcome::Fits(incoming) => match tally.came.entry(incoming.header.id.clone()) {
                Entry::Vacant(free) => {
                    free.insert(incoming.header.hash);
                    return each(Met::Fits(incoming), place);
                }
                // The same twice is no contradiction.
                Entry::Occupied(earlier) if *earlier.get() == incoming.header.hash => return Ok(()),
                Entry::Occupied(_) => (Some(incoming.header.id), "its key is that of an earlier row, which says something else".to_owned(), false),
            },
            Outcome::Refused { id, reason } => (id, reason, false),
            Outcome::Unknown { reason } => (None, reason, true),
            Outcome::Ignored => {
                tally.ignored += 1;
                return Ok(());
            }
        };
        if discarded.contains(&sha256_hex(&line.raw)) {
            tally.discarded += 1;
            return Ok(());
        }
        if !is_unknown {
            tally.unkeyed += u64::from(id.is_none());
            tally.beside.extend(id);
        }
        each(Met::Refused { reason, raw: &line.raw, is_unknown }, place)
    };
    let read = table.read(import, &mut take)?;
    if read != sha256 {
        return Err(Stop::Gap(Why::new(Code::Import, format!("{}: it is being written: it changed while it was read", table.shown))));
    }
    Ok(())
}

/// Rows of one sort: how many, and where the first of them stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// How many.
    pub count: u64,
    /// Where, for the first thousand.
    pub places: Vec<Place>,
}

impl Sort {
    fn add(&mut self, place: Place) {
        self.count += 1;
        if self.places.len() < PLACES_MAX {
            self.places.push(place);
        }
    }
}

/// What an import would change of what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rows with anything in them.
    pub rows: u64,
    /// Rows that are not stored.
    pub new: Sort,
    /// Rows that are stored otherwise.
    pub changed: Sort,
    /// Stored rows that are in the table no more.
    pub gone: u64,
    /// Stored rows that are not in the table, or not taken from it, and stay all the same.
    pub kept: u64,
    /// Rows that do not fit, by reason.
    pub refused: BTreeMap<String, Sort>,
    /// Rows of those who are not known here, by reason.
    pub unknown: BTreeMap<String, Sort>,
    /// Rows of those who are not known here, where these are to be ignored.
    pub ignored: u64,
    /// Why it is not whole: then nothing is let go.
    pub gap: Option<String>,
    /// Nothing of it is taken: it is not believed, or no measure needs its type.
    pub is_left: bool,
}

/// What is in the tables of an import, whoever is meant.
pub fn survey(import: &Import) -> Result<Difference, SourceError> {
    compare(import, (&Known::anybody(), &BTreeSet::new()), &BTreeMap::new(), true)
}

/// What bringing an import in would change. `types` are those that are stored.
pub fn difference(import: &Import, snapshot: &Snapshot, types: &BTreeSet<String>, accepts_loss: bool) -> Result<Difference, SourceError> {
    let mut asked = BTreeSet::new();
    asks(import, &mut asked)?;
    let known = Known::find(asked, snapshot, types, None)?;
    let stored = snapshot.rows_of(&import.name)?;
    let found = compare(import, (&known, &discarded(import, snapshot)?), &stored, accepts_loss)?;
    // What is not stored is not read either, and what was stored of it goes.
    let is_needed = types.contains(&import.resource_type);
    Ok(if is_needed { found } else { Difference { rows: found.rows, gone: stored.len() as u64, is_left: true, ..Difference::default() } })
}

/// Imports of which rows are stored and that are declared no more, with how many these are: they go.
pub fn forsaken(imports: &[Import], snapshot: &Snapshot) -> Result<BTreeMap<String, u64>, SourceError> {
    let is_declared = |name: &str| imports.iter().any(|import| import.name == name);
    let counts = snapshot.counts()?.into_iter();
    let of_imports = counts.filter_map(|(name, rows)| Some((name.strip_prefix(UNITS)?.to_owned(), rows)));
    Ok(of_imports.filter(|(name, rows)| *rows > 0 && !is_declared(name)).collect())
}

fn compare(import: &Import, (known, discarded): (&Known, &BTreeSet<String>), stored: &BTreeMap<String, (String, [u8; 32])>, accepts_loss: bool) -> Result<Difference, SourceError> {
    let mut found = Difference::default();
    let mut tally = read(import, known, discarded, &mut |met, place| {
        match met {
            Met::Fits(incoming) => {
                let header = &incoming.header;
                match stored.get(&header.id) {
                    None => found.new.add(place),
                    Some((patient, hash)) if *patient != header.patient || *hash != header.hash => found.changed.add(place),
                    Some(_) => {}
                }
            }
            Met::Refused { reason, is_unknown: true, .. } => found.unknown.entry(reason).or_default().add(place),
            Met::Refused { reason, .. } => found.refused.entry(reason).or_default().add(place),
        }
        Ok(())
    })?;
    if !accepts_loss && tally.doubt(stored.keys()) {
        found = Difference { is_left: true, refused: found.refused, unknown: found.unknown, ..Difference::default() };
    }
    (found.rows, found.ignored) = (tally.rows, tally.ignored);
    found.gap = tally.gap.as_ref().map(|why| why.text.clone());
    let came = std::mem::take(&mut tally.came);
    match tally.stored() {
        Rows::Whole(beside) => found.gone = stored.keys().filter(|id| !came.contains_key(*id) && !beside.contains(*id)).count() as u64,
        Rows::InDoubt => found.kept = stored.keys().filter(|id| found.is_left || !came.contains_key(*id)).count() as u64,
    }
    Ok(found)
}
