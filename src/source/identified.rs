//! What names its patient by an identifier (R4's logical references): taken where exactly one patient who is known has it, and held
//! otherwise. Who is known is seen when all patients have come.

use std::collections::BTreeSet;

use super::SourceError;
use super::import::known::{Ask, Fresh, Hit, Known};
use super::intake::{Reason, judge, tombstone};
use super::ledger::{self, Unit};
use super::pull::{Pull, sound_types, whole_types};
use crate::fhir::compartment::{Head, Naming, patient_required, refer};
use crate::snapshot::{Header, Incoming};

/// A resource that waits, with its place in the unit where its id would stand.
pub(super) fn waiting(incoming: Incoming, entry: u64) -> Incoming {
    let mut header = tombstone(&incoming.header.resource_type, &entry.to_string()).header;
    header.removed = false;
    Incoming { header, json: incoming.json }
}

/// Finds the patients of all that waits and was not looked at before in this pull.
pub(super) fn resolve(pull: &Pull<'_>) -> Result<(), SourceError> {
    let store = pull.snapshot.store();
    let waiting = ledger::identified(store, pull.id)?;
    if waiting.is_empty() {
        return Ok(());
    }
    let mut asked = BTreeSet::new();
    let files: Vec<String> = waiting.iter().map(|(_, file)| file.clone()).collect();
    pull.snapshot.staged(pull.id, &files, |header, json| {
        asked.extend(ask(&header.resource_type, json));
        Ok(())
    })?;
    let units = ledger::units(store, pull.id)?;
    let whole = whole_types(pull, &units);
    let fresh = Fresh { pull: pull.id, files: units.iter().filter_map(|unit| unit.file.clone()).collect(), whole, members: pull.members.as_ref() };
    let known = Known::find(asked, pull.snapshot, &pull.plan.types, Some(&fresh))?;
    let is_everybody_known = sound_types(pull, &units).contains("Patient");
    for (unit, file) in waiting {
        resolve_unit(pull, &known, &unit, file, is_everybody_known && has_strangers(pull, &unit.resource_type))?;
    }
    Ok(())
}

/// Whether some patients are named, and a type is asked for of all nevertheless.
fn has_strangers(pull: &Pull<'_>, resource_type: &str) -> bool {
    let mut queries = pull.plan.queries.iter().filter(|query| query.resource_type == resource_type).peekable();
    pull.members.is_some() && queries.peek().is_some() && queries.all(|query| query.by_patient.is_none() && query.later.is_none())
}

fn ask(resource_type: &str, json: &[u8]) -> Option<Ask> {
    match Head::read(json)?.naming(resource_type) {
        Naming::Identifier(system, value) => Some(Ask::patient(system, value)),
        _ => None,
    }
}

/// Whose a resource is that asks for its patient so, and the resource with a reference to him; none where it can do without one.
pub(super) fn whose<'k>(known: &'k Known, ask: &'k Ask, resource_type: &str, json: &[u8]) -> Result<Option<(&'k str, Vec<u8>)>, Reason> {
    match known.hit(ask) {
        Hit::One { id, .. } => refer(json, id).map(|json| Some((id, json))).ok_or(Reason::Identifier),
        _ if !patient_required(resource_type) => Ok(None),
        Hit::None => Err(Reason::Identifier),
        Hit::Several => Err(Reason::SeveralIdentified),
    }
}

fn resolve_unit(pull: &Pull<'_>, known: &Known, unit: &Unit, file: String, has_strangers: bool) -> Result<(), SourceError> {
    let name = format!("{}{}", unit.name, ledger::BY_IDENTIFIER);
    let mut receiving = pull.receive(Unit { name, ..unit.clone() }, None)?;
    let mut held: Vec<(Header, Vec<u8>, Reason)> = Vec::new();
    pull.snapshot.staged(pull.id, &[file], |header, json| {
        let Some(ask) = ask(&header.resource_type, json) else { return Ok(()) };
        let found = whose(known, &ask, &header.resource_type, json).map(|found| found.map_or_else(|| json.to_vec(), |(_, json)| json));
        match found.and_then(|json| judge(&json, &pull.plan.types).map_err(|(reason, _)| reason)) {
            Ok(incoming) => receiving.put(incoming)?,
            // As who is named by an id, and is no member.
            Err(_) if has_strangers && known.is_strangers(&ask) => {}
            Err(reason) => held.push((header.clone(), json.to_vec(), reason)),
        }
        Ok(())
    })?;
    for (header, json, reason) in held {
        receiving.refuse(reason, Some(header.resource_type), &json, json.len() as u64, header.id.parse().unwrap_or_default())?;
    }
    pull.record(&receiving.finish(None)?)
}
