//! What changes while a pull of some patients lasts several nights: it is read at once when that has ended, as far as the night allows.

use super::duty::{Code, Why};
use super::ledger::{Opened, Unit};
use super::{Gap, Plan, PullOutcome, SourceError};
use jiff::{SignedDuration, Timestamp};

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
    let (name, note) = ("after a pull of several nights".to_owned(), Some(Why::new(Code::Followed, told)));
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
        full: first.full,
        // What was found out where everything was read, the second one did not know when it began.
        lists: if first.full { first.lists } else { second.lists },
        ..second
    }
}

/// What a pull brought where what changed meanwhile could not be read to its end. After one of everything, whose first night may be long
/// past, that is missing until it is read. After one of changes it is no more than a note: a site that allows less than a night's changes
/// need is as far behind each night, and reports that were never complete would say less.
pub(super) fn unread(first: PullOutcome, begun: Timestamp, error: &SourceError) -> PullOutcome {
    let told = ongoing(begun, &error.to_string());
    match first.full {
        true => PullOutcome { complete: false, gaps: [first.gaps, vec![told]].concat(), ..first },
        false => PullOutcome { notes: [first.notes, vec![told]].concat(), ..first },
    }
}

/// What a pull brought where times of change tell nothing, or everything is due to be read again: that is not done twice in a night.
pub(super) fn put_off(first: PullOutcome, begun: Timestamp) -> PullOutcome {
    PullOutcome { notes: [first.notes, vec![ongoing(begun, "the next pull reads it")]].concat(), ..first }
}

fn ongoing(begun: Timestamp, why: &str) -> Gap {
    let reason = format!("what has changed since {} is still to be read: {why}", minute(begun));
    Gap { resource_type: "*".to_owned(), patient: None, reason, code: Code::Ongoing }
}

fn minute(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%Y-%m-%d %H:%M UTC")
}
