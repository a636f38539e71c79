//! A cohort by a search of the site's own: the patients whom it finds are read as any type is, each night whole. A search that the server
//! does not heed would find everybody: it is not read, and that is a gap.

use super::ask::{Ask, answered};
use super::by_patient::came;
use super::census::once;
use super::page::{Bundle, Item};
use super::{run_tasks, tasks_in};
use crate::source::SourceError;
use crate::source::cohort::{Parameters, trial};
use crate::source::duty::{Code, Why};
use crate::source::ledger;
use crate::source::pull::Pull;

/// Stands for a number that is not said, of somebody.
const SOME: u64 = 1 << 40;
/// Stands for a search that is refused.
const REFUSED: u64 = 1 << 41;
/// Stands for one that is said not to be there.
const ABSENT: u64 = 1 << 42;

/// Reads the patients whom the search finds, and keeps who they are, and why these may not be all: then those who are stored are among them.
pub(super) async fn run(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let plan = pull.plan;
    let tasks: Vec<_> = plan.queries.iter().filter(|query| plan.finds_patients(query)).flat_map(|query| tasks_in(query, None)).collect();
    match doubt(pull).await? {
        None => run_tasks(pull, "search", tasks, None).await?,
        Some(why) => tasks.iter().take(1).try_for_each(|task| pull.record(&pull.receive(task.unit(), None)?.finish(Some(why.clone()))?))?,
    }
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    let mut found = came(pull, &units)?;
    let own = units.iter().filter(|unit| unit.resource_type == "Patient");
    let refused = |quarantined: u64| (quarantined > 0).then(|| Why::new(Code::Quarantined, "some of what it finds was refused"));
    if let Some(why) = own.filter_map(|unit| unit.gap.clone().or_else(|| refused(unit.quarantined))).next() {
        found.extend(pull.snapshot.patient_ids()?);
        let why = why.put(|reason| format!("whom `source.patients_search` finds is not known whole ({reason}); meanwhile nobody is let go"));
        pull.habits.unnamed.get_or_init(|| why);
    }
    pull.habits.members.get_or_init(|| found);
    Ok(())
}

/// Why it may be that the server does not heed what the search says. Alternatives differ in values only, which makes no difference.
async fn doubt(pull: &Pull<'_>) -> Result<Option<Why>, SourceError> {
    let Some(search) = pull.plan.cohort.searches().into_iter().next() else { return Ok(None) };
    for (place, (name, _)) in search.iter().enumerate() {
        let told = match tell(pull, &search, place).await? {
            Heeded::Yes => continue,
            Heeded::No => format!("the server does not heed `{name}` of `source.patients_search`, so that others would be taken too"),
            Heeded::Untold => format!("whether the server heeds `{name}` of `source.patients_search` cannot be told: it says no numbers"),
            Heeded::Unanswered => {
                let told = format!("whether the server heeds `{name}` of `source.patients_search` is not known: it does not answer");
                return Ok(Some(Why::new(Code::Failing, told)));
            }
        };
        return Ok(Some(Why::new(Code::Unsought, told)));
    }
    Ok(None)
}

/// Whether a parameter makes a difference.
enum Heeded {
    Yes,
    No,
    Untold,
    Unanswered,
}

async fn tell(pull: &Pull<'_>, search: &Parameters, place: usize) -> Result<Heeded, SourceError> {
    let Some(trial) = trial(search, place) else { return Ok(Heeded::Yes) };
    let other = match number(pull, trial.asked()).await? {
        None => return Ok(Heeded::Unanswered),
        // What takes no wrong value heeds a right one.
        Some(0 | REFUSED) => return Ok(Heeded::Yes),
        Some(other) => other,
    };
    let Some(own) = number(pull, search).await?.filter(|own| *own < ABSENT) else { return Ok(Heeded::Unanswered) };
    // As of an organization that nobody knows.
    if other == ABSENT {
        return Ok(Heeded::Yes);
    }
    let without = match trial.without() {
        None => None,
        Some(without) => number(pull, without).await?,
    };
    let exact = |number: u64| (number < SOME).then_some(number);
    Ok(match trial.told(exact(own), exact(other), without.and_then(exact)) {
        None => Heeded::Untold,
        Some(false) => Heeded::No,
        Some(true) => Heeded::Yes,
    })
}

/// How many patients a search finds, asked once in a pull; [`SOME`], [`REFUSED`], [`ABSENT`], or `None` if it is not answered.
async fn number(pull: &Pull<'_>, search: &Parameters) -> Result<Option<u64>, SourceError> {
    once(pull, "Patient", &format!("who is found by {search:?}"), ask(pull, search)).await
}

/// How many a page says there are, or shows. An outcome that says what was ignored may stand beside the number.
fn told_by(page: &Bundle, is_count: bool) -> Option<u64> {
    let is_somebody = page.items("Patient").any(|item| matches!(item, Item::Match(_)));
    match (is_count, is_somebody) {
        (true, true) => None,
        (true, false) => page.total(),
        (false, true) => Some(page.total().filter(|total| *total > 0).unwrap_or(SOME)),
        (false, false) => Some(0),
    }
}

async fn ask(pull: &Pull<'_>, search: &Parameters) -> Result<Option<u64>, SourceError> {
    let mut told = None;
    for (name, value) in [("_summary", "count"), ("_count", "1")] {
        let parameters: Parameters = search.iter().cloned().chain([(name.to_owned(), value.to_owned())]).collect();
        let Some(answer) = answered(Ask::first(pull, &parameters, "Patient", false)?.send(pull, false, true).await)? else { return Ok(None) };
        told = match answer.status {
            400 | 422 | 501 => Some(REFUSED),
            404 | 410 => Some(ABSENT),
            _ if !answer.is_success() => None,
            _ => Bundle::read(&answer.body).and_then(|page| told_by(&page, name == "_summary")),
        };
        if told.is_some_and(|told| told < REFUSED) {
            break;
        }
    }
    Ok(told)
}
