//! What changes while a pull of some patients lasts several nights: it is read at once when that has ended, as far as the night allows.

use super::duty::{Code, Why};
use super::ledger::{Opened, Unit};
use super::{Gap, Plan, PullOutcome};
use crate::snapshot::PullId;
use crate::store::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

/// What this is called in ledgers.
const AFTER: &str = "after a pull of several nights";

/// A pull that was begun so long before it was gone on with is another night's: nights are a day apart, and who kills or stops one goes on
/// with it sooner. What changes while a single run lasts is the next night's.
const ANOTHER_NIGHT: SignedDuration = SignedDuration::from_hours(6);

/// When a pull that goes on at an instant was begun, if that was in an earlier night.
pub(super) fn earlier(opened: &Opened, now: Timestamp) -> Option<Timestamp> {
    (opened.resumed && now.duration_since(opened.begun) >= ANOTHER_NIGHT).then_some(opened.begun)
}

/// Whether a plan's pull leaves out what changes while it lasts: one of everybody reads that as it ends, and an export is of one instant.
pub(super) fn is_due(plan: &Plan) -> bool {
    !plan.cohort.is_everybody() && plan.export.is_none() && !plan.of_files
}

/// What is to be known, in the ledger of the pull of what has changed, of the one that ended before it.
pub(super) fn note(first: &PullOutcome, begun: Timestamp) -> Unit {
    let what = if first.full { "everything" } else { "changes" };
    let told = format!(
        "this pull reads what changed while pull {} ({what}) lasted, from {} on; that one brought {} new or changed, {} gone",
        first.pull_id.0,
        minute(begun),
        first.new_versions,
        first.removed
    );
    let (name, note) = (AFTER.to_owned(), Some(Why::new(Code::Followed, told)));
    Unit { query: name.clone(), name, resource_type: "*".to_owned(), note, ..Unit::default() }
}

/// What a pull and the one of what changed meanwhile brought together. What is missing is what the second one says.
pub(super) fn joined(first: PullOutcome, second: PullOutcome) -> PullOutcome {
    let (mut received, mut notes) = (first.received, second.notes);
    second.received.into_iter().for_each(|(name, count)| *received.entry(name).or_default() += count);
    // Of what there has never been the second one speaks too, if there still is none.
    let is_told = |note: &Gap| note.code == Code::Empty || notes.iter().any(|told| (&told.resource_type, told.code) == (&note.resource_type, note.code));
    let further: Vec<Gap> = first.notes.into_iter().filter(|note| !is_told(note)).collect();
    notes.extend(further);
    PullOutcome {
        notes,
        received,
        new_versions: first.new_versions + second.new_versions,
        removed: first.removed + second.removed,
        replaced: first.replaced + second.replaced,
        full: first.full || second.full,
        // What was found out where everything was read, the second one did not know when it began.
        lists: if first.full && !second.full { first.lists } else { second.lists },
        ..second
    }
}

/// What a pull brought where what changed meanwhile is not read yet: that is missing, and its ledger says so too.
pub(super) fn unread(store: &Store, first: PullOutcome, begun: Timestamp, why: &str) -> Result<PullOutcome, StoreError> {
    let why = Why::new(Code::Ongoing, format!("what has changed since {} is still to be read: {why}", minute(begun)));
    enter(store, first.pull_id, &why)?;
    let told = Gap { resource_type: "*".to_owned(), patient: None, reason: why.text, code: why.code };
    Ok(PullOutcome { complete: false, gaps: [first.gaps, vec![told]].concat(), ..first })
}

/// Enters it after the pull was closed.
fn enter(store: &Store, pull: PullId, why: &Why) -> Result<(), StoreError> {
    store.transaction(|transaction| {
        transaction.execute(
            "INSERT OR REPLACE INTO ledger (pull_id, resource_type, query, status, received, reason, code) VALUES (?1, '*', ?2, 'partial', 0, ?3, ?4)",
            params![pull.0, AFTER, why.text, why.code.word()],
        )?;
        transaction.execute("UPDATE pull SET complete = 0 WHERE id = ?1", [pull.0])?;
        Ok(())
    })
}

fn minute(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%Y-%m-%d %H:%M UTC")
}
