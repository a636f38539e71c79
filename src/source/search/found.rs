//! A cohort by a search of the site's own: the patients whom it finds are read as any type is, each night whole. A search that the server
//! does not heed would find everybody: it is not read, and that is a gap.

use super::ask::found;
use super::by_patient::came;
use super::census::{once, send};
use super::{run_tasks, tasks_in};
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::ledger;
use crate::source::probe::{impossible, unturned};
use crate::source::pull::Pull;
use std::collections::BTreeSet;

/// Reads the patients whom the search finds, and keeps who they are, and why these may not be all: then those who are stored are among them.
pub(super) async fn run(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let plan = pull.plan;
    let tasks: Vec<_> = plan.queries.iter().filter(|query| plan.finds_patients(query)).flat_map(|query| tasks_in(query, None)).collect();
    match ignored(pull).await? {
        None => run_tasks(pull, "search", tasks, None).await?,
        Some(parameter) => {
            let why = Why::new(Code::Unsought, format!("the server does not heed `{parameter}` of `source.patients_search`, so that it would find everybody"));
            tasks.iter().take(1).try_for_each(|task| pull.record(&pull.receive(task.unit(), None)?.finish(Some(why.clone()))?))?;
        }
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

/// A parameter of the search that makes no difference.
async fn ignored(pull: &Pull<'_>) -> Result<Option<String>, SourceError> {
    let parameters: BTreeSet<(String, String)> = pull.plan.cohort.searches().into_iter().flatten().collect();
    for (name, value) in parameters {
        if is_ignored(pull, &name, &value).await? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether somebody is found by a value that nobody has, and by the value that is meant not fewer than everybody: what takes no wrong value
/// may find everybody by one.
async fn is_ignored(pull: &Pull<'_>, name: &str, value: &str) -> Result<bool, SourceError> {
    let nobody = (unturned(name), impossible("Patient", "_id").unwrap_or_default());
    if once(pull, "Patient", &format!("whether {nobody:?} finds anybody"), found(pull, Some(nobody), false))
        .await?
        .is_none_or(|number| number == 0)
    {
        return Ok(false);
    }
    let number = async |by: &[(String, String)]| once(pull, "Patient", &format!("how many {by:?} finds"), send(pull, "Patient", by, false)).await;
    let own = number(&[(name.to_owned(), value.to_owned())]).await?;
    Ok(own.zip(number(&[]).await?).is_none_or(|(own, all)| own >= all))
}
