//! Progressive pulling: what decides about nobody's place in an initial population is asked for last, and only of those who may
//! be in one, where that takes fewer requests.
//!
//! Who was asked for whole is *covered*: changes suffice from then on. Who comes to be in an initial population later is asked
//! for whole; what is stored of others stays.

use super::{Task, absent, cut, run_tasks, tasks_in, tasks_of};
use crate::fhir::merged::Links;
use crate::snapshot::{open_bytes, seal_bytes};
use crate::source::SourceError;
use crate::source::forecast::count_one;
use crate::source::ledger::{self, Covered, Unit};
use crate::source::plan::Query;
use crate::source::pull::{Pull, foreseeable};
use std::collections::{BTreeMap, BTreeSet};

/// Name under which the patients of whom a type was read are sealed.
const SEAL: &str = "covered";

/// Of whom a type was asked for.
#[derive(Clone, Debug, Default)]
pub(in crate::source) struct Asked {
    /// In this pull, whole.
    pub whole: BTreeSet<String>,
    /// Of whom everything is there when this pull has ended well.
    pub covered: BTreeSet<String>,
}

/// Reads the later queries, all of which are there for one type each.
pub(super) async fn run(pull: &mut Pull<'_>, queries: &[&Query], members: Option<&BTreeSet<String>>) -> Result<(), SourceError> {
    super::hydrate(pull).await?;
    // What they bring may decide who is in an initial population.
    crate::source::import::bring(pull)?;
    let (chosen, patients) = choose(pull, members).await?;
    tracing::info!(pull = pull.id.0, patients, chosen = chosen.len(), "patients who may be in an initial population");
    let mut types: BTreeMap<&str, Vec<&Query>> = BTreeMap::new();
    for query in queries {
        types.entry(&query.resource_type).or_default().push(query);
    }
    for (resource_type, queries) in types {
        let covered = covered(pull, resource_type)?;
        let asked = match (members, pull.since_of(resource_type)) {
            (Some(_), since) => {
                let known = if since.is_some() { covered.unwrap_or_else(|| chosen.clone()) } else { BTreeSet::new() };
                let known = &known - &absent::before(pull)?.unwrap_or_default();
                Some(Asked { whole: chosen.difference(&known).cloned().collect(), covered: chosen.clone() })
            }
            (None, None) => is_cheaper(pull, &queries, patients, chosen.len() as u64)
                .await?
                .then(|| Asked { whole: chosen.clone(), covered: chosen.clone() }),
            (None, Some(_)) => covered.map(|covered| Asked { whole: chosen.difference(&covered).cloned().collect(), covered: covered.union(&chosen).cloned().collect() }),
        };
        ask(pull, resource_type, &queries, asked, members.is_some()).await?;
    }
    Ok(())
}

/// Asks for these types of those who came to be in an initial population by what no change brought, and was found missing since.
pub(in crate::source) async fn of_newcomers(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let mut is_any = false;
    if !pull.later.is_empty() {
        let files: Vec<String> = ledger::read_again(pull.snapshot.store(), pull.id)?.into_iter().collect();
        pull.snapshot.staged(pull.id, &files, |_, _| {
            is_any = true;
            Ok(())
        })?;
    }
    if !is_any {
        return Ok(());
    }
    super::hydrate(pull).await?;
    let (chosen, _) = choose(pull, pull.members.as_ref()).await?;
    for (resource_type, asked) in pull.later.clone() {
        let new: BTreeSet<String> = chosen.difference(&asked.covered).cloned().collect();
        let own = pull.plan.queries.iter().filter(|query| query.resource_type == resource_type && query.later.is_some());
        let queries: Vec<Query> = own.map(by_patient).collect();
        let tasks = queries.iter().flat_map(|query| tasks_of(pull, query, Some(&new), &BTreeSet::new())).collect();
        run_tasks(pull, "search", tasks, Some(&new)).await?;
        pull.later.insert(resource_type, Asked { whole: &asked.whole | &new, covered: &asked.covered | &new });
    }
    Ok(())
}

/// The same query, of named patients.
fn by_patient(query: &Query) -> Query {
    Query { by_patient: query.later.clone(), ..query.clone() }
}

/// Asks for a type: of everybody, or of these patients. Changes are asked for as usual, and taken of who is covered.
async fn ask(pull: &mut Pull<'_>, resource_type: &str, queries: &[&Query], asked: Option<Asked>, is_group: bool) -> Result<(), SourceError> {
    let by_patient: Vec<Query> = queries.iter().map(|query| by_patient(query)).collect();
    let mut tasks: Vec<Task<'_>> = Vec::new();
    match &asked {
        Some(asked) => {
            let known: BTreeSet<String> = asked.covered.difference(&asked.whole).cloned().collect();
            let patients = if is_group { &asked.covered } else { &asked.whole };
            let (lists, _) = cut::kept(pull, resource_type, patients, &known)?;
            tasks.extend(by_patient.iter().flat_map(|query| tasks_in(query, Some(&lists))));
            if !is_group && pull.since_of(resource_type).is_some() {
                tasks.extend(queries.iter().flat_map(|query| tasks_of(pull, query, None, &known)));
            }
        }
        None => tasks.extend(queries.iter().flat_map(|query| tasks_of(pull, query, None, &BTreeSet::new()))),
    }
    if tasks.is_empty() {
        // It has a cursor nevertheless.
        let units = ledger::units(pull.snapshot.store(), pull.id)?;
        let server_time = units.iter().filter_map(|unit| unit.server_time).min();
        let query = format!("{resource_type} of nobody");
        pull.record(&Unit { name: format!("query {query}"), resource_type: resource_type.to_owned(), query, server_time, ..Unit::default() })?;
    }
    run_tasks(pull, "search", tasks, asked.as_ref().map(|asked| &asked.covered)).await?;
    pull.later.extend(asked.map(|asked| (resource_type.to_owned(), asked)));
    Ok(())
}

/// The patients who may be in an initial population, by what is stored and came; and how many there are in all.
async fn choose(pull: &Pull<'_>, members: Option<&BTreeSet<String>>) -> Result<(BTreeSet<String>, u64), SourceError> {
    let Some(chooser) = pull.chooser else { return Ok((BTreeSet::new(), 0)) };
    let (files, reconcile) = foreseeable(pull)?;
    let foreseen = pull.snapshot.foresee(pull.id, &files, &reconcile)?;
    let shared = foreseen.shared()?;
    let (mut chosen, mut all, mut links) = (BTreeSet::new(), BTreeSet::new(), Links::default());
    for partition in pull.snapshot.partitions() {
        let patients = foreseen.patients(partition)?;
        chosen.extend(chooser.may_count(&patients, &shared));
        for patient in patients {
            for line in &patient.lines {
                links.take(line);
            }
            all.insert(patient.patient_id);
        }
        tokio::task::yield_now().await;
    }
    // Who was merged into somebody may be in an initial population with that one's data, which lie elsewhere.
    chosen.extend(links.everybody().filter(|patient| all.contains(*patient)).map(str::to_owned));
    if let Some(members) = members {
        chosen.retain(|patient| members.contains(patient));
    }
    Ok((chosen, all.len() as u64))
}

/// Whether it takes fewer requests to ask for a type of some patients than of all; no, if the server does not say how many
/// resources there are.
async fn is_cheaper(pull: &Pull<'_>, queries: &[&Query], patients: u64, chosen: u64) -> Result<bool, SourceError> {
    let options = &pull.source.options;
    let (mut of_all, mut of_some) = (0, 0);
    for query in queries {
        let Some(total) = total(pull, query).await? else { return Ok(false) };
        let (all, some) = requests(total, patients, chosen, u64::from(options.page_size.max(1)), options.tuning.patients_per_query as u64);
        (of_all, of_some) = (of_all + all, of_some + some);
    }
    Ok(of_some < of_all)
}

/// How many resources a query finds, asked once in a pull: a night that goes on decides as the one before.
async fn total(pull: &Pull<'_>, query: &Query) -> Result<Option<u64>, SourceError> {
    let store = pull.snapshot.store();
    let (name, about) = (format!("count before {}", query.name), format!("{}, before it is asked for", query.name));
    if !pull.done.contains(&name) {
        let total = count_one(pull.source, &query.resource_type, &query.parameters, &pull.plan.everywhere).await?;
        pull.record(&ledger::count_unit(&name, &query.resource_type, &about, total))?;
    }
    Ok(ledger::counted(store, pull.id)?.get(&about).copied())
}

/// Requests for so many resources of all patients, and of some of them who have their share: a page of a query of several
/// patients is seldom full.
fn requests(resources: u64, patients: u64, chosen: u64, page_size: u64, patients_per_query: u64) -> (u64, u64) {
    let share = resources.saturating_mul(chosen) / patients.max(1);
    (resources.div_ceil(page_size).max(1), chosen.div_ceil(patients_per_query.clamp(1, 200)) + share / page_size)
}

/// The patients of whom everything of a type is there; `None`: all.
fn covered(pull: &Pull<'_>, resource_type: &str) -> Result<Option<BTreeSet<String>>, SourceError> {
    let sealed = ledger::covered(pull.snapshot.store(), &pull.source.name(), resource_type, &pull.plan.digest())?;
    let Some(sealed) = sealed else { return Ok(None) };
    // What cannot be read covers nobody: everything is asked for.
    let text = open_bytes(pull.snapshot.key(), SEAL, &sealed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(Some(text.unwrap_or_default().lines().map(str::to_owned).collect()))
}

/// What the ledger keeps of who is covered, by type; `None`: all are.
pub(in crate::source) fn to_keep(pull: &Pull<'_>, sound: &BTreeSet<String>) -> Result<Covered, SourceError> {
    // Who was asked for changes only, of everybody, knows no more of anybody.
    if pull.chooser.is_none() && pull.since.is_some() {
        return Ok(Vec::new());
    }
    let later = pull.plan.queries.iter().filter(|query| query.later.is_some() && sound.contains(&query.resource_type));
    let types: BTreeSet<&String> = later.map(|query| &query.resource_type).collect();
    let keep = |name: &String| match pull.later.get(name) {
        None => Ok((name.clone(), None)),
        Some(asked) => {
            let text = asked.covered.difference(pull.habits.left()).map(String::as_str).collect::<Vec<_>>().join("\n");
            let sealed = seal_bytes(pull.snapshot.key(), SEAL, text.as_bytes());
            sealed
                .map(|sealed| (name.clone(), Some(sealed)))
                .map_err(|_| SourceError::Options("the patients asked for could not be sealed".to_owned()))
        }
    };
    types.into_iter().map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_some_patients_and_of_all() {
        // Resources, patients, chosen; pages of 200, 25 patients a query.
        for (resources, patients, chosen, expected) in [
            (2_000_000, 100_000, 10_000, (10_000, 1_400)),
            (2_000_000, 100_000, 60_000, (10_000, 8_400)),
            (20_000, 100_000, 10_000, (100, 410)),
            (400, 20, 0, (2, 0)),
            (0, 0, 0, (1, 0)),
        ] {
            assert_eq!(requests(resources, patients, chosen, 200, 25), expected, "{resources} of {patients}, {chosen} chosen");
        }
    }
}
