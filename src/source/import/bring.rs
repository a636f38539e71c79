//! Imports into the snapshot: at the end of a pull, or by themselves beside what the last pull brought.

use std::collections::{BTreeMap, BTreeSet};

use super::known::{Fresh, Known};
use super::reading::{Beside, Met, asks, forsaken, read};
use super::{Import, UNITS};
use crate::diagnostic::counted;
use crate::http::Clock;
use crate::snapshot::{PullId, Reconcile, Rows, Snapshot};
use crate::source::duty::{Code, Why};
use crate::source::ledger::{self, Closing, Unit};
use crate::source::pull::{Pull, gaps_of, notes_of, refuse, whole_types};
use crate::source::{PullOutcome, SourceError};

/// The plan of a pull that reads imports alone, until it has come to its end: no other pull goes on with it.
const ALONE: &str = "imports";

/// Where rows are brought to.
struct Ground<'a> {
    snapshot: &'a Snapshot,
    pull: PullId,
    /// Types that may be stored.
    types: &'a BTreeSet<String>,
    accepts_loss: bool,
}

/// Reads the imports into a pull, once what the source has is there; a second time does nothing.
pub(in crate::source) fn bring(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    if pull.imported.is_some() {
        return Ok(());
    }
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    let whole = whole_types(pull, &units);
    let fresh = Fresh { pull: pull.id, files: units.iter().filter_map(|unit| unit.file.clone()).collect(), whole, members: pull.members.as_ref() };
    let tuning = &pull.source.options.tuning;
    let ground = Ground { snapshot: pull.snapshot, pull: pull.id, types: &pull.plan.types, accepts_loss: tuning.accepts_loss };
    let imported = ground.bring(&tuning.imports, Some(&fresh))?;
    pull.imported = Some(imported);
    Ok(())
}

impl Ground<'_> {
    /// Stages and records every import of a type that is stored, anew if it was before.
    fn bring(&self, imports: &[Import], fresh: Option<&Fresh<'_>>) -> Result<BTreeMap<String, Rows>, SourceError> {
        ledger::forget(self.snapshot.store(), self.pull, UNITS)?;
        self.note_forsaken(imports)?;
        let wanted: Vec<&Import> = imports.iter().filter(|import| import.is_needed(self.types)).collect();
        let mut asked = BTreeSet::new();
        for import in &wanted {
            asks(import, &mut asked)?;
        }
        let known = Known::find(asked, self.snapshot, self.types, fresh)?;
        let counts = self.snapshot.counts()?;
        let of_import = |import: &Import| if counts.contains_key(&import.query()) { self.snapshot.rows_of(&import.name) } else { Ok(BTreeMap::new()) };
        wanted
            .into_iter()
            .map(|import| Ok((import.name.clone(), self.one(import, &known, of_import(import)?.keys())?)))
            .collect()
    }

    /// Records that rows go whose import is declared no more.
    fn note_forsaken(&self, imports: &[Import]) -> Result<(), SourceError> {
        let store = self.snapshot.store();
        for (name, rows) in forsaken(imports, self.snapshot)? {
            let query = format!("{UNITS}{name}");
            let resource_type = ledger::type_of(store, &query)?.unwrap_or_else(|| "*".to_owned());
            let note = format!("{} of `{name}`, which no file of `imports.files` declares any more, removed", counted(rows, "row"));
            let note = Some(Why::new(Code::ImportGone, note));
            ledger::record(store, self.pull, &[Unit { name: query.clone(), query, resource_type, note, ..Unit::default() }])?;
        }
        Ok(())
    }

    /// Reads one, of which rows with these ids are stored.
    fn one<'i>(&self, import: &Import, known: &Known, stored: impl Iterator<Item = &'i String>) -> Result<Rows, SourceError> {
        let (name, resource_type) = (import.query(), import.missing_as());
        let mut unit = Unit { query: name.clone(), name, resource_type, ..Unit::default() };
        let mut stage = self.snapshot.stage(self.pull, &unit.name)?;
        let beside = Beside::of(import, known, self.snapshot, self.accepts_loss)?;
        let mut tally = read(import, &beside, &mut |met, place| match met {
            Met::Fits(incoming) => Ok(stage.push(&incoming)?),
            Met::Refused { reason, raw, .. } => {
                let reason = if import.file.contains('*') { format!("file {}: {reason}", place.file) } else { reason };
                refuse(&mut unit, self.snapshot.key(), reason, Some(import.missing_as()), (raw, raw.len() as u64, place.line))
            }
        })?;
        let is_doubted = tally.judge(import, &beside, stored);
        (unit.received, unit.discarded, unit.ended) = (tally.rows, tally.discarded, !tally.is_open);
        unit.staged = Some(stage.finish()?).filter(|_| !is_doubted);
        unit.gap.clone_from(&tally.gap);
        if tally.ignored > 0 {
            unit.note = Some(Why::new(Code::Import, format!("{} of those who are not known here", counted(tally.ignored, "row"))));
        }
        if let Some(reason) = &unit.gap {
            tracing::warn!(pull = self.pull.0, query = %unit.query, %reason, "gap");
        }
        ledger::record(self.snapshot.store(), self.pull, &[unit])?;
        Ok(tally.stored())
    }
}

/// What is said before the first pull.
pub fn nothing_yet() -> SourceError {
    SourceError::Options("nothing has been pulled yet, so that no patient is known: `watershed pull` reads the imports too".to_owned())
}

/// Brings imports in without asking the source: what the last pull brought of it, and lacked, stands. `types` are those that the
/// measures need.
pub fn bring_alone(imports: &[Import], types: &BTreeSet<String>, snapshot: &Snapshot, clock: &dyn Clock, accepts_loss: bool) -> Result<PullOutcome, SourceError> {
    let store = snapshot.store();
    let cannot = |text: &str| Err(SourceError::Options(text.to_owned()));
    let Some((last, source, plan)) = ledger::last(store)? else { return Err(nothing_yet()) };
    if ledger::open_plan(store, &source)?.is_some_and(|plan| plan != ALONE) {
        return cannot("a pull is not finished: `watershed pull` goes on with it, and reads the imports at its end");
    }
    if snapshot.look_over()? > 0 {
        return cannot("some of the snapshot is damaged: `watershed pull` reads everything again, the imports too");
    }
    let opened = ledger::open(store, &source, ALONE, false, clock.now())?;
    let imported = Ground { snapshot, pull: opened.id, types, accepts_loss }.bring(imports, None)?;
    let units = ledger::imported(store, opened.id)?;
    let files: Vec<String> = units.iter().filter_map(|unit| unit.file.clone()).collect();
    let prepared = snapshot.prepare(opened.id, &files, &Reconcile { imports: Some(imported), ..Reconcile::default() })?;
    let (quarantined, complete) = store.transaction(|transaction| {
        ledger::stand_on(transaction, last, opened.id)?;
        snapshot.publish(transaction, &prepared)?;
        let complete = !ledger::lacks_something(transaction, opened.id)?;
        let closing = Closing {
            pull: opened.id,
            source: &source,
            plan: &plan,
            covered: Vec::new(),
            cursors: BTreeMap::new(),
            without_cursor: BTreeSet::new(),
            complete,
            // As the pull that it stands on.
            kept_all: false,
            full: false,
            whole: BTreeSet::new(),
            now: clock.now(),
        };
        Ok((ledger::close(transaction, &closing)?, complete))
    })?;
    snapshot.discard_staging(opened.id)?;
    let mut received: BTreeMap<String, u64> = BTreeMap::new();
    units.iter().for_each(|unit| *received.entry(unit.resource_type.clone()).or_default() += unit.received);
    Ok(PullOutcome {
        pull_id: opened.id,
        complete: complete && quarantined == 0,
        gaps: gaps_of(&units),
        notes: notes_of(&units).collect(),
        received,
        quarantined,
        new_versions: prepared.new_versions,
        removed: prepared.removed,
        replaced: 0,
        full: false,
        lists: Vec::new(),
    })
}
