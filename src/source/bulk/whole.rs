//! Exports of changes that bring everything, for a server does not heed `_since`: such a one says what is there now.

use crate::source::Gap;
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::ledger::{self, Recorded};
use crate::source::pull::{Pull, note};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Types of which an export of changes brought what it was to leave out, nine tenths of what is stored or more. What a group's export
/// brings of new members is no sign.
pub(in crate::source) fn whole(pull: &Pull<'_>) -> Result<BTreeSet<String>, SourceError> {
    let since = pull.since.filter(|_| pull.plan.export.is_some());
    let Some(since) = since.map(Timestamp::as_microsecond) else { return Ok(BTreeSet::new()) };
    let is_of_group = !pull.plan.cohort.is_everybody();
    let known: BTreeSet<String> = if is_of_group { pull.snapshot.patient_ids()?.into_iter().collect() } else { BTreeSet::new() };
    // What is asked for by search is asked for whole.
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    let files: Vec<String> = units.into_iter().filter(is_exported).filter_map(|unit| unit.file).collect();
    let mut older: BTreeMap<String, u64> = BTreeMap::new();
    pull.snapshot.staged(pull.id, &files, |header, _| {
        let is_new = is_of_group && !header.patient.is_empty() && !known.contains(&header.patient);
        if !header.removed && !is_new && header.updated.is_some_and(|updated| updated < since) {
            *older.entry(header.resource_type.clone()).or_default() += 1;
        }
        Ok(())
    })?;
    let is_most = |name: &String, stored: u64| older.get(name).is_some_and(|older| older.saturating_mul(10) >= stored.saturating_mul(9));
    Ok(pull.snapshot.counts()?.into_iter().filter(|(name, stored)| is_most(name, *stored)).map(|(name, _)| name).collect())
}

fn is_exported(unit: &Recorded) -> bool {
    unit.query.starts_with("export")
}

/// The staged files of such types, unless the export is of a copy that is behind.
pub(in crate::source) fn files_of_whole<'a>(pull: &'a Pull<'_>, units: &'a [Recorded]) -> impl Iterator<Item = String> + 'a {
    let is_behind = units.iter().any(|unit| unit.note.as_ref().is_some_and(|why| why.code == Code::Behind));
    let own = units.iter().filter(move |unit| !is_behind && is_exported(unit) && pull.whole.contains(&unit.resource_type));
    own.filter_map(|unit| unit.file.clone())
}

/// Says so of such types. Gives them where the export is of everybody: what is not among it is gone.
pub(in crate::source) fn whole_of_all(pull: &Pull<'_>, notes: &mut Vec<Gap>) -> Result<BTreeSet<String>, SourceError> {
    if !pull.whole.is_empty() {
        let names = pull.whole.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let why = Why::new(Code::Unheeded, format!("the export was asked for what has changed, and brought everything of {names}"));
        note(pull, notes, "*", "export of changes", why)?;
    }
    Ok(if pull.plan.cohort.is_everybody() { pull.whole.clone() } else { BTreeSet::new() })
}
