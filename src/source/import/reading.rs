//! An import read whole: each row judged, and all of them beside what is stored.

use super::known::{Ask, Known};
use super::row::Outcome;
use super::table::{Line, Stop, Table, find};
use super::{Import, UNITS};
use crate::diagnostic::counted;
use crate::snapshot::{Incoming, Rows, Snapshot};
use crate::source::account::is_fall;
use crate::source::duty::{Code, Why};
use crate::source::{SourceError, ledger};
use crate::store::{quarantine, sha256_hex};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of one import.
const ROWS_MAX: u64 = 1_000_000;
/// Places of rows that a difference names; further ones are counted.
const PLACES_MAX: usize = 1_000;
/// So many rows may go without a word, of a table of any size.
const ROWS_GONE_FREE: u64 = 2;
const TWICE: &str = "another row is of its period too, and says something else: neither is taken";
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

/// What is known beside a table.
pub(super) struct Beside<'k> {
    known: &'k Known,
    /// The SHA-256 of each row that a person has discarded.
    discarded: BTreeSet<String>,
    /// Its last row had its end of line when it was last read whole.
    ended: bool,
    /// However little is in it, it is believed.
    accepts_loss: bool,
}

impl<'k> Beside<'k> {
    pub fn of(import: &Import, known: &'k Known, snapshot: &Snapshot, accepts_loss: bool) -> Result<Beside<'k>, SourceError> {
        let discarded = snapshot.store().with(|connection| quarantine::discarded(connection, Some(&import.query())))?;
        let ended = !accepts_loss && ledger::had_ended(snapshot.store(), &import.query())?;
        Ok(Beside { known, discarded, ended, accepts_loss })
    }
}

/// What an import holds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rows with anything in them.
    pub rows: u64,
    /// Those of whom nobody is known and that are to be ignored.
    pub ignored: u64,
    /// Those of whom nobody is known, these included.
    strangers: u64,
    /// What each row says that fits, by id.
    came: BTreeMap<String, [u8; 32]>,
    /// Ids that several rows of a series have which say different things: nobody can tell which of them is right.
    contradicted: BTreeSet<String>,
    /// Ids of rows that do not fit.
    beside: BTreeSet<String>,
    /// Rows that do not fit, and that a person has discarded.
    pub discarded: u64,
    /// The ids of these, where their keys can be read.
    left_out: BTreeSet<String>,
    /// A file of it does not end in an end of line.
    pub is_open: bool,
    /// Rows of which not even the key can be read.
    unkeyed: u64,
    /// Why it is not whole.
    pub gap: Option<Why>,
}

impl Tally {
    /// A table in which suddenly much less is than what is stored, or other rows, is not believed: it is the whole truth of its import,
    /// and grows. Ids are those of stored rows. Whether it is so: nothing of the table is taken then, for rows whose keys are only
    /// written otherwise would be stored twice.
    fn doubt<'i>(&mut self, ids: impl Iterator<Item = &'i String>) -> bool {
        let (mut stored, mut missing, mut left_out) = (0_u64, 0_u64, 0_u64);
        for id in ids {
            stored += 1;
            if self.left_out.contains(id) {
                left_out += 1;
            } else {
                missing += u64::from(!self.came.contains_key(id) && !self.beside.contains(id));
            }
        }
        // So many may be rows whose key cannot be read.
        let gone = missing.saturating_sub(self.unkeyed);
        // What was discarded and never stored makes up for nothing.
        let others = self.discarded - left_out.min(self.discarded);
        let rows = self.rows - others;
        let in_it = if others == 0 { format!("{rows} rows are in it") } else { format!("{rows} rows are in it (beside {others} that were discarded)") };
        let found = if is_fall(stored, rows) && (stored.abs_diff(rows) > ROWS_GONE_FREE || rows == 0) {
            format!("{in_it} where {stored} are stored")
        } else if gone > 0 && (gone == stored || gone > ROWS_GONE_FREE && is_fall(stored, stored - gone)) {
            format!("{in_it}, and of the {stored} that are stored it lacks {gone}: others, or their keys are written otherwise (leading zeros, a date's form)")
        } else {
            return false;
        };
        let kept = "what is stored is kept until a person has looked; if they are gone, `watershed import --accept-loss`";
        self.gap.get_or_insert(Why::new(Code::ImportLoss, format!("{found}; {kept}")));
        true
    }

    /// Looks at all of it, of which rows with these ids are stored: whether nothing of it is taken. That nobody has an identifier of its
    /// system is a gap however few rows there are; else a few may all be of others.
    pub fn judge<'i>(&mut self, import: &Import, beside: &Beside<'_>, ids: impl Iterator<Item = &'i String>) -> bool {
        if beside.accepts_loss {
            return false;
        }
        let strangers = if self.came.is_empty() { self.strangers } else { 0 };
        let nobody = |why: &str| Why::new(Code::Import, format!("none of its rows is taken, {} of those who are not known here: {why}", counted(strangers, "row")));
        let strange = import.whoms().find_map(|whom| beside.known.strange(whom)).filter(|_| strangers > 0);
        self.gap = self.gap.take().or(strange.as_deref().map(nobody));
        let is_doubted = self.doubt(ids);
        if strangers > ROWS_GONE_FREE {
            self.gap
                .get_or_insert_with(|| nobody("are their identifiers written as in the EHR (leading zeros, a prefix), and is it the right table?"));
        }
        is_doubted
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
        if let Err(Stop::Taker(error)) = table.read(import, false, &mut each) {
            return Err(error);
        }
    }
    Ok(())
}

/// Reads all files of an import, but for the rows that were discarded.
pub(super) fn read(import: &Import, beside: &Beside<'_>, each: &mut dyn FnMut(Met<'_>, Place) -> Result<(), SourceError>) -> Result<Tally, SourceError> {
    let (tables, gap) = find(import);
    let contradicted = if import.series.is_some() { contradicted(import, beside, &tables) } else { BTreeSet::new() };
    let mut tally = Tally { gap, contradicted, ..Tally::default() };
    for (file, table) in (1..).zip(&tables) {
        match read_one(import, beside, (file, table), &mut tally, each) {
            Ok(()) => {}
            Err(Stop::Gap(why)) => drop(tally.gap.get_or_insert(why)),
            Err(Stop::Taker(error)) => return Err(error),
        }
    }
    Ok(tally)
}

/// The ids that several rows have which say different things.
fn contradicted(import: &Import, beside: &Beside<'_>, tables: &[Table]) -> BTreeSet<String> {
    let (mut met, mut found) = (BTreeMap::new(), BTreeSet::new());
    for table in tables {
        let mut each = |line: Line<'_>| {
            let cells = line.cells.as_ref().ok().filter(|_| !beside.discarded.contains(&sha256_hex(&line.raw)));
            let Some((cells, id)) = cells.and_then(|cells| Some((cells, import.id_of(cells)?))) else { return Ok(()) };
            // One that does not fit is another one too.
            let says = if let Outcome::Fits(incoming) = import.row(cells, beside.known, "") { Some(incoming.header.hash) } else { None };
            if *met.entry(id.clone()).or_insert(says) != says {
                found.insert(id);
            }
            Ok(())
        };
        // What is wrong with it is said when it is read for good.
        drop(table.read(import, beside.ended, &mut each));
    }
    found
}

fn read_one(
    import: &Import,
    beside: &Beside<'_>,
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
        if !beside.discarded.is_empty() && beside.discarded.contains(&sha256_hex(&line.raw)) {
            tally.discarded += 1;
            tally.left_out.extend(line.cells.as_ref().ok().and_then(|cells| import.id_of(cells)));
            return Ok(());
        }
        let place = Place { file, line: line.number };
        let outcome = match &line.cells {
            Ok(cells) => import.row(cells, beside.known, &sha256),
            Err(reason) => Outcome::Refused { id: None, reason: reason.clone() },
        };
        let (id, reason, is_unknown) = match outcome {
            Outcome::Fits(incoming) if tally.contradicted.contains(&incoming.header.id) => (Some(incoming.header.id), TWICE.to_owned(), false),
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
            Outcome::Unknown { reason } => {
                tally.strangers += 1;
                (None, reason, true)
            }
            Outcome::Ignored => {
                tally.strangers += 1;
                tally.ignored += 1;
                return Ok(());
            }
        };
        if !is_unknown {
            tally.unkeyed += u64::from(id.is_none());
            tally.beside.extend(id);
        }
        each(Met::Refused { reason, raw: &line.raw, is_unknown }, place)
    };
    let whole = table.read(import, beside.ended, &mut take)?;
    tally.is_open |= !whole.is_ended;
    if whole.sha256 != sha256 {
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
    let beside = Beside { known: &Known::anybody(), discarded: BTreeSet::new(), ended: false, accepts_loss: true };
    compare(import, &beside, &BTreeMap::new())
}

/// What bringing an import in would change. `types` are those that are stored.
pub fn difference(import: &Import, snapshot: &Snapshot, types: &BTreeSet<String>, accepts_loss: bool) -> Result<Difference, SourceError> {
    let mut asked = BTreeSet::new();
    asks(import, &mut asked)?;
    let known = Known::find(asked, snapshot, types, None)?;
    let stored = snapshot.rows_of(&import.name)?;
    let found = compare(import, &Beside::of(import, &known, snapshot, accepts_loss)?, &stored)?;
    // What is not stored is not read either, and what was stored of it goes.
    Ok(if import.is_needed(types) { found } else { Difference { rows: found.rows, gone: stored.len() as u64, is_left: true, ..Difference::default() } })
}

/// Imports of which rows are stored and that are declared no more, with how many these are: they go.
pub fn forsaken(imports: &[Import], snapshot: &Snapshot) -> Result<BTreeMap<String, u64>, SourceError> {
    let is_declared = |name: &str| imports.iter().any(|import| import.name == name);
    let counts = snapshot.counts()?.into_iter();
    let of_imports = counts.filter_map(|(name, rows)| Some((name.strip_prefix(UNITS)?.to_owned(), rows)));
    Ok(of_imports.filter(|(name, rows)| *rows > 0 && !is_declared(name)).collect())
}

fn compare(import: &Import, beside: &Beside<'_>, stored: &BTreeMap<String, (String, [u8; 32])>) -> Result<Difference, SourceError> {
    let mut found = Difference::default();
    let mut tally = read(import, beside, &mut |met, place| {
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
    if tally.judge(import, beside, stored.keys()) {
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
