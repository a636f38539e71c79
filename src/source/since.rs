//! From when a pull asks for changes, and of which types it reads everything.

use super::duty::Code;
use super::pull::STANDING;
use super::{Plan, Source, SourceError, ledger};
use crate::http::Clock;
use crate::snapshot::Snapshot;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// What makes the next pull read everything: a night of changes would pass over what this one did not bring, and be called complete.
const UNTIL_FULL: [Code; 3] = [Code::Clock, Code::Loss, Code::Missed];

/// The instant from which changes suffice, or `None` when everything is to be read.
pub(super) fn incremental_start(source: &Source, plan: &Plan, snapshot: &Snapshot, clock: &dyn Clock) -> Result<Option<Timestamp>, SourceError> {
    let tuning = &source.options.tuning;
    // Whoever says that a loss is true wants everything read.
    if tuning.accepts_loss {
        return Ok(None);
    }
    let digest = plan.digest();
    let name = source.name();
    // An export may have been waited for since before it was due; everything is read after it.
    if is_full_due(source, plan, snapshot, clock)? && !ledger::is_open_for_changes(snapshot.store(), &name, &digest)? {
        return Ok(None);
    }
    changes_start(source, plan, snapshot, clock)
}

/// The same, though everything may be due.
pub(super) fn changes_start(source: &Source, plan: &Plan, snapshot: &Snapshot, clock: &dyn Clock) -> Result<Option<Timestamp>, SourceError> {
    Ok(from(source, cursor(source, plan, snapshot)?, clock.now()))
}

/// From when changes are asked for, where everything was read until a cursor.
fn from(source: &Source, cursor: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let overlap = SignedDuration::from_mins(i64::from(source.options.overlap_minutes));
    // What was asked from an instant that is still to come was asked in vain.
    cursor.filter(|cursor| *cursor <= now).and_then(|cursor| cursor.checked_sub(overlap).ok())
}

/// Types of which the last searches did not bring all, and from when changes of each are asked for; `None`: all of it is, as of those that
/// are not searched by times of change. What is missing of one type, night after night, is no reason to read the others again.
pub(super) fn behind(source: &Source, plan: &Plan, snapshot: &Snapshot, now: Timestamp) -> Result<BTreeMap<String, Option<Timestamp>>, SourceError> {
    if plan.export.is_some() {
        return Ok(BTreeMap::new());
    }
    let (store, name, digest) = (snapshot.store(), source.name(), plan.digest());
    let lacking = ledger::lacking(store, &name, &digest, &STANDING)?;
    let mut behind: BTreeMap<String, Option<Timestamp>> = plan.untimed().into_iter().map(|name| (name, None)).collect();
    if plan.types.difference(&plan.referenced).all(|name| lacking.contains(name) || behind.contains_key(name)) {
        return Ok(behind);
    }
    for lacking in lacking {
        let cursor = ledger::cursor(store, &name, &digest, &BTreeSet::from([lacking.clone()]))?;
        behind.entry(lacking).or_insert_with(|| from(source, cursor, now));
    }
    Ok(behind)
}

/// What is to be known of a pull of changes beforehand: what is not asked for from where the rest is.
pub fn told_behind(source: &Source, plan: &Plan, snapshot: &Snapshot, clock: &dyn Clock) -> Result<Vec<String>, SourceError> {
    let told = |(name, since): (String, Option<Timestamp>)| {
        let from = since.map_or_else(|| "whole".to_owned(), |since| format!("from {} on", since.strftime("%Y-%m-%dT%H:%M:%SZ")));
        format!("{name} is asked for {from}: the last pull did not bring all of it")
    };
    // The plan says which types are read whole each night.
    Ok(behind(source, plan, snapshot, clock.now())?.into_iter().filter(|(name, _)| !plan.is_untimed(name)).map(told).collect())
}

/// From when the next pull will ask for changes; `None`: it reads everything.
pub fn next_since(source: &Source, plan: &Plan, snapshot: &Snapshot, clock: &dyn Clock) -> Result<Option<Timestamp>, SourceError> {
    let (name, digest) = (source.name(), plan.digest());
    let store = snapshot.store();
    // One of everything that is open is gone on with.
    let is_of_everything = ledger::is_open(store, &name, &digest)? && !ledger::is_open_for_changes(store, &name, &digest)?;
    if is_of_everything { Ok(None) } else { incremental_start(source, plan, snapshot, clock) }
}

/// Whether it is time to read everything again, or the first time, or the last pull could not tell what it lacks.
pub(super) fn is_full_due(source: &Source, plan: &Plan, snapshot: &Snapshot, clock: &dyn Clock) -> Result<bool, SourceError> {
    let (store, name, digest) = (snapshot.store(), source.name(), plan.digest());
    let due = SignedDuration::from_hours(24 * i64::from(source.options.tuning.full_every_days));
    let last_full = store.with(|connection| ledger::last_full(connection, &name, &digest))?;
    let is_due = last_full.is_none_or(|last_full| clock.now().duration_since(last_full) >= due);
    Ok(is_due || ledger::last_lacks(store, &name, &digest, &UNTIL_FULL)? || ledger::is_decided_since(store, &name, &digest)?)
}

/// How far everything has been read, but what is behind; `None` if nothing else is asked for.
pub(super) fn cursor(source: &Source, plan: &Plan, snapshot: &Snapshot) -> Result<Option<Timestamp>, SourceError> {
    let behind = behind(source, plan, snapshot, Timestamp::MAX)?;
    let is_read = |name: &&String| !behind.contains_key(*name) && !source.withheld.contains_key(*name);
    let types: BTreeSet<String> = plan.types.difference(&plan.referenced).filter(is_read).cloned().collect();
    Ok(ledger::cursor(snapshot.store(), &source.name(), &plan.digest(), &types)?)
}
