//! Late data and corrections: the plans change, the records are written again, the truth follows.

use jiff::{Timestamp, ToSpan};

use super::delivery::Mother;
use super::dice::Dice;
use super::ibd::{Activity, IbdPatient};
use super::inpatient::{InpatientPatient, Outcome};
use super::moment::{Calendar, add_days};
use super::population::{Plan, State};

/// Patients tried for one kind of change before it is given up.
const TRIES_MAX: u32 = 400;
/// Patients changed by each kind of change, per thousand plans, and at least one.
const CHANGED_PERMILLE: usize = 8;

/// The kinds of change.
#[derive(Debug, Clone, Copy)]
enum Change {
    AssessmentCorrected,
    AssessmentDeleted,
    VisitDocumentedLate,
    LineRemovalDocumented,
    DeterminationRevised,
    LineDeleted,
    DueDateCorrected,
}

const CHANGES: [Change; 7] = [
    Change::AssessmentCorrected,
    Change::AssessmentDeleted,
    Change::VisitDocumentedLate,
    Change::LineRemovalDocumented,
    Change::DeterminationRevised,
    Change::LineDeleted,
    Change::DueDateCorrected,
];

/// Applies every kind of change to some patients. The changes are entered at `now`, or just after
/// the newest entry there is.
pub(super) fn amend(state: &mut State, seed: u64, now: Timestamp) {
    let newest = state.chart.newest();
    let after = newest.checked_add(1.millisecond()).unwrap_or(newest);
    // Whole milliseconds, never before `now`.
    let whole = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
    let now = if whole < now { whole.checked_add(1.millisecond()).unwrap_or(now) } else { whole };
    let at = now.max(after);
    let each = (state.plans.len() * CHANGED_PERMILLE / 1000).max(1);
    let mut dice = Dice::new(seed, state.profile.name, 9_000_000);
    let last = i64::try_from(state.plans.len()).unwrap_or(0) - 1;
    for change in CHANGES {
        let mut changed = 0;
        for _ in 0..TRIES_MAX {
            let index = usize::try_from(dice.between(0, last)).unwrap_or(0);
            let Some(plan) = state.plans.get_mut(index) else { return };
            if apply(change, plan, &mut dice, &state.calendar) {
                state.rewrite(index, at);
                changed += 1;
            }
            if changed >= each {
                break;
            }
        }
    }
}

/// Merges one patient's record into another's: what referred to the one refers to the other, the one says so and is inactive, the
/// other says what it replaces, and groups name the other only.
pub(super) fn merge(state: &mut State, survivor: &str, merged: &str, now: Timestamp) {
    let at = now.max(state.chart.newest().checked_add(1.millisecond()).unwrap_or(now));
    let (old, new) = (format!("Patient/{merged}"), format!("Patient/{survivor}"));
    for (kind, id) in state.chart.present_of(merged) {
        if kind != "Patient" {
            state
                .chart
                .revise(kind, &id, survivor, at, |text| if text == old { new.clone() } else { text.replace(&format!("{old}\""), &format!("{new}\"")) });
        }
    }
    let linked = |text: &str, other: &str, kind: &str| {
        let link = format!(",\"link\":[{{\"other\":{{\"reference\":\"{other}\"}},\"type\":\"{kind}\"}}]}}");
        text.strip_suffix('}').map_or_else(|| text.to_owned(), |open| format!("{open}{link}"))
    };
    state
        .chart
        .revise("Patient", merged, merged, at, |text| linked(&text.replace("\"active\":true", "\"active\":false"), &new, "replaced-by"));
    state.chart.revise("Patient", survivor, survivor, at, |text| linked(text, &old, "replaces"));
    for (_, _, members) in &mut state.groups {
        members.retain(|member| member != merged);
    }
    state.rewrite_groups(at);
}

/// Applies a change to one plan, if it is of the kind that can have it.
fn apply(change: Change, plan: &mut Plan, dice: &mut Dice, calendar: &Calendar) -> bool {
    match (change, plan) {
        (Change::AssessmentCorrected, Plan::Ibd(patient)) => correct_assessment(patient),
        (Change::AssessmentDeleted, Plan::Ibd(patient)) => delete_assessment(patient),
        (Change::VisitDocumentedLate, Plan::Ibd(patient)) => {
            let months = calendar.truth_months();
            let Some(month) = months.last() else { return false };
            let activity = dice.pick(&[Activity::Quiescent, Activity::Moderate]);
            patient.add_late_visit(dice, calendar, *month, activity)
        }
        (Change::LineRemovalDocumented, Plan::Inpatient(patient)) => document_removal(patient, dice, calendar),
        (Change::DeterminationRevised, Plan::Inpatient(patient)) => revise_determination(patient),
        (Change::LineDeleted, Plan::Inpatient(patient)) => delete_line(patient),
        (Change::DueDateCorrected, Plan::Mother(mother)) => correct_due_date(mother, dice, calendar),
        _ => false,
    }
}

/// The latest assessment turns from remission to activity, or back.
fn correct_assessment(patient: &mut IbdPatient) -> bool {
    let visit = patient.visits.iter_mut().rev().find(|visit| visit.counts() && visit.activity().is_some());
    let Some(assessment) = visit.and_then(|visit| visit.assessments.iter_mut().rev().find(|one| one.counts())) else {
        return false;
    };
    assessment.activity = match assessment.activity {
        Activity::Quiescent => Activity::Moderate,
        _ => Activity::Quiescent,
    };
    assessment.status = "amended";
    true
}

/// The latest assessment was on the wrong patient and goes.
fn delete_assessment(patient: &mut IbdPatient) -> bool {
    let visit = patient.visits.iter_mut().rev().find(|visit| visit.counts() && visit.activity().is_some());
    visit.is_some_and(|visit| visit.assessments.pop().is_some())
}

/// A line that seemed to stay for ever was taken out long ago.
fn document_removal(patient: &mut InpatientPatient, dice: &mut Dice, calendar: &Calendar) -> bool {
    let Some(line) = patient.lines.iter_mut().find(|line| line.counts() && line.end.is_none()) else { return false };
    line.remove_on(add_days(line.placed_on(), dice.between(1, 5)), calendar);
    true
}

/// A determination is turned round.
fn revise_determination(patient: &mut InpatientPatient) -> bool {
    let Some(review) = patient.reviews.iter_mut().find(|review| review.status == "final") else { return false };
    review.outcome = match review.outcome {
        Outcome::Clabsi => Outcome::NotClabsi,
        Outcome::NotClabsi | Outcome::MucosalBarrier => Outcome::Clabsi,
    };
    true
}

/// A line was never there.
fn delete_line(patient: &mut InpatientPatient) -> bool {
    match patient.lines.last() {
        Some(line) if line.counts() => patient.lines.pop().is_some(),
        _ => false,
    }
}

/// The due date moves by one to two weeks.
fn correct_due_date(mother: &mut Mother, dice: &mut Dice, calendar: &Calendar) -> bool {
    let reported = |birth: &super::delivery::Birth| birth.delivery.date() >= calendar.start();
    let birth = mother.births.iter_mut().find(|birth| reported(birth) && !birth.due_dates.is_empty());
    let Some((_, due)) = birth.and_then(|birth| birth.due_dates.last_mut()) else { return false };
    let days = dice.between(7, 14);
    *due = add_days(*due, if dice.chance(50) { days } else { -days });
    true
}
