//! A cohort by a search of the site's own: the patients whom it finds are read as any type is, each night whole. A search of which the server
//! does not heed a part would find others too: it is tried first, and where that shows, not read, which is a gap.

use super::ask::{Ask, answered};
use super::by_patient::came;
use super::census::{WAYS, once};
use super::page::{Bundle, Item, issue_code};
use super::{run_tasks, tasks_in};
use crate::source::SourceError;
use crate::source::cohort::{Parameters, Trial, trials};
use crate::source::duty::{Code, Why};
use crate::source::ledger;
use crate::source::pull::Pull;

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

/// Why it may be that the server does not heed what the search says; what it does with one alternative it need not with another.
async fn doubt(pull: &Pull<'_>) -> Result<Option<Why>, SourceError> {
    for search in pull.plan.cohort.searches() {
        for (name, trial) in trials(&search) {
            let (code, told) = match tell(pull, &search, &trial).await? {
                Heeded::Yes => continue,
                Heeded::No => (Code::Unsought, format!("the server does not heed `{name}` of `source.patients_search`, so that others would be taken too")),
                Heeded::Untold => (Code::Unsought, format!("whether the server heeds `{name}` of `source.patients_search` cannot be told: it says no numbers")),
                Heeded::Unanswered => {
                    (Code::Failing, format!("whether the server heeds `{name}` of `source.patients_search` is not known: a search that finds nobody is not answered"))
                }
            };
            return Ok(Some(Why::new(code, told)));
        }
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

async fn tell(pull: &Pull<'_>, search: &Parameters, trial: &Trial) -> Result<Heeded, SourceError> {
    if let Trial::Nobody(asked) = trial {
        match page(pull, asked).await? {
            None => return Ok(Heeded::Unanswered),
            Some(NOBODY) => return Ok(Heeded::Yes),
            // What takes no wrong value heeds a right one.
            Some(REFUSED) => return Ok(if page(pull, search).await?.is_some_and(|own| own != REFUSED) { Heeded::Yes } else { Heeded::Unanswered }),
            Some(_) => {}
        }
    }
    // Counted before and after, so that who comes or goes meanwhile makes no difference.
    let before = number(pull, search, "before").await?;
    let more = number(pull, trial.asked(), "of the trial").await?;
    let after = number(pull, search, "after").await?;
    Ok(match (before, more, after) {
        (Some(before), Some(more), Some(after)) if before < more && after < more => Heeded::Yes,
        // Of somebody who was seen 0 is no number.
        (_, Some(0), _) => Heeded::Untold,
        (Some(_), Some(_), Some(_)) => Heeded::No,
        _ => Heeded::Untold,
    })
}

/// How many patients the server counts by a search, asked once in a pull.
async fn number(pull: &Pull<'_>, search: &Parameters, when: &str) -> Result<Option<u64>, SourceError> {
    once(pull, "Patient", &format!("how many {search:?} finds, {when}"), count(pull, search)).await
}

/// The number is the same whether the server says or not that it passed over a parameter.
async fn count(pull: &Pull<'_>, search: &Parameters) -> Result<Option<u64>, SourceError> {
    for way in WAYS {
        let parameters: Parameters = search.iter().cloned().chain(way.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).collect();
        let Some(answer) = answered(Ask::first(pull, &parameters, "Patient", false)?.send(pull, false, true).await)? else { return Ok(None) };
        let page = Bundle::read(&answer.body).filter(|page| answer.is_success() && (way.len() > 1 || !is_somebody(page)));
        if let Some(total) = page.and_then(|page| page.total()) {
            return Ok(Some(total));
        }
    }
    Ok(None)
}

fn is_somebody(page: &Bundle) -> bool {
    page.items("Patient").any(|item| matches!(item, Item::Match(_)))
}

/// What the first page of a search holds: [`NOBODY`], [`SOMEBODY`], or [`REFUSED`]; `None` where it is not answered. Asked once in a pull.
async fn page(pull: &Pull<'_>, search: &Parameters) -> Result<Option<u64>, SourceError> {
    once(pull, "Patient", &format!("whom {search:?} finds"), ask(pull, search)).await
}

const NOBODY: u64 = 0;
const SOMEBODY: u64 = 1;
/// By a status that says so, or a body that is no page.
const REFUSED: u64 = 2;

async fn ask(pull: &Pull<'_>, search: &Parameters) -> Result<Option<u64>, SourceError> {
    let parameters: Parameters = search.iter().cloned().chain([("_count".to_owned(), "1".to_owned())]).collect();
    let Some(answer) = answered(Ask::first(pull, &parameters, "Patient", false)?.send(pull, false, true).await)? else { return Ok(None) };
    let page = Bundle::read(&answer.body).filter(|_| answer.is_success());
    Ok(match (answer.status, page) {
        // An empty page with a link to the next one is no end.
        (_, Some(page)) => Some(if is_somebody(&page) || page.link("next").is_some() { SOMEBODY } else { NOBODY }),
        (401 | 408 | 425 | 429, None) => None,
        (400..=499 | 501, None) => Some(REFUSED),
        (200..=299, None) if issue_code(&answer.body).is_some() => Some(REFUSED),
        _ => None,
    })
}
