//! Where a server forgets links and what it has is of one time of change, as after everything was loaded at once, no list of all patients
//! can be gone on with: the same is asked for of some patients at a time.

use super::{Task, run_tasks, tasks_of};
use crate::fhir::compartment::patient_required;
use crate::source::SourceError;
use crate::source::duty::Code;
use crate::source::ledger::{self, Recorded, Unit};
use crate::source::plan::Query;
use crate::source::pull::Pull;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Pages that a list of some patients has on an average: fewer than links are forgotten after.
const PAGES_PER_LIST: u64 = 2;
/// Times that lists are asked for whose links are forgotten all the same.
const ROUNDS_MAX: usize = 3;

/// Asks again, of some patients at a time, for what lost its links.
pub(super) async fn run(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    if pull.members.is_some() || !pull.habits.forgets_links.load(Ordering::Relaxed) {
        return Ok(());
    }
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    // Whose it may be is known where all patients came.
    if units.iter().any(|unit| unit.resource_type == "Patient" && unit.gap.is_some()) {
        return Ok(());
    }
    let (known, patients) = patients(pull, &units)?;
    for query in &pull.plan.queries {
        let Some(lost) = units.iter().find(|unit| is_lost(unit, query)) else { continue };
        let parameter = pull.source.capability.patient_parameter(&query.resource_type).filter(|parameter| *parameter != "_id");
        let declared = parameter.filter(|parameter| pull.source.capability.declares(&query.resource_type, parameter) == Some(true));
        if let (Some(parameter), None) = (declared, &query.by_patient) {
            let query = Query { by_patient: Some(parameter.to_owned()), ..query.clone() };
            read(pull, &query, lost, &known, &patients).await?;
        }
    }
    Ok(())
}

/// Whether a unit is what a query of all patients left when its links were forgotten.
fn is_lost(unit: &Recorded, query: &Query) -> bool {
    let is_of_links = |code| matches!(code, Code::Refused | Code::Failing | Code::Paging);
    unit.resource_type == query.resource_type && unit.query == query.name && unit.gap.as_ref().is_some_and(|why| is_of_links(why.code))
}

/// The patients who are stored, and they and those who came.
pub(super) fn patients(pull: &Pull<'_>, units: &[Recorded]) -> Result<(BTreeSet<String>, BTreeSet<String>), SourceError> {
    let known: BTreeSet<String> = pull.snapshot.patient_ids()?.into_iter().collect();
    let all = came(pull, units)?.union(&known).cloned().collect();
    Ok((known, all))
}

/// The patients who came.
pub(super) fn came(pull: &Pull<'_>, units: &[Recorded]) -> Result<BTreeSet<String>, SourceError> {
    let own = units.iter().filter(|unit| unit.resource_type == "Patient");
    let files: Vec<String> = own.filter_map(|unit| unit.file.clone()).collect();
    let mut came = BTreeSet::new();
    pull.snapshot.staged(pull.id, &files, |header, _| {
        if header.resource_type == "Patient" && !header.removed && !came.contains(&header.id) {
            came.insert(header.id.clone());
        }
        Ok(())
    })?;
    Ok(came)
}

/// How many patients to ask for at once.
fn at_once(pull: &Pull<'_>, lost: &Recorded, patients: u64) -> usize {
    let options = &pull.source.options;
    let usual = options.tuning.patients_per_query.clamp(1, 200);
    let few = |announced: u64| (u64::from(options.page_size) * PAGES_PER_LIST * patients / announced.max(1)).max(1);
    lost.expected.map_or(usual, |announced| usual.min(usize::try_from(few(announced)).unwrap_or(usual)))
}

/// Reads a query by patient. It stands for what was lost if as many came as the server announced; where it announced nothing, if there is
/// nothing of the type that is of no patient.
async fn read(pull: &mut Pull<'_>, query: &Query, lost: &Recorded, known: &BTreeSet<String>, patients: &BTreeSet<String>) -> Result<(), SourceError> {
    let nobody = BTreeSet::new();
    let known = if pull.since_of(&query.resource_type).is_some() { known } else { &nobody };
    let all: Vec<String> = patients.iter().cloned().collect();
    let lists = all
        .chunks(at_once(pull, lost, all.len() as u64))
        .map(|some| tasks_of(pull, query, Some(&some.iter().cloned().collect()), known));
    let tasks: Vec<Task<'_>> = lists.flatten().collect();
    let names: BTreeSet<String> = tasks.iter().map(|task| task.name.clone()).collect();
    tracing::info!(pull = pull.id.0, query = %query.name, "links are forgotten, and all is of one time of change: it is asked for by patient");
    for _ in 0..ROUNDS_MAX {
        run_tasks(pull, "search", tasks.clone(), None).await?;
        if names.is_subset(&pull.done) {
            break;
        }
    }
    let came = ledger::received(pull.snapshot.store(), pull.id, &names)?;
    let is_all = lost.expected.map_or(patient_required(&query.resource_type), |announced| came >= announced);
    if !names.is_subset(&pull.done) || !is_all {
        return Ok(());
    }
    let unit = Unit {
        name: format!("query {}", query.name),
        resource_type: query.resource_type.clone(),
        query: query.name.clone(),
        expected: lost.expected,
        server_time: lost.server_time,
        ..Unit::default()
    };
    pull.record(&pull.receive(unit, None)?.finish(None)?)
}
