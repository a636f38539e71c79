//! What others refer to, and what can be had by its id only.

use super::{Task, named, read_members, recount, run_tasks};
use crate::fhir::compartment::{is_id, reference_target};
use crate::fhir::shared::string_value;
use crate::smart::client::below;
use crate::snapshot::Header;
use crate::source::SourceError;
use crate::source::account::VOLUME_MIN;
use crate::source::duty::{Code, Why};
use crate::source::intake::tombstone;
use crate::source::ledger::{self, Unit};
use crate::source::plan::Query;
use crate::source::pull::{Pull, foreseeable};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash as _, Hasher as _};

/// References followed to resources of no patient.
const REFERENCES_MAX: usize = 1_000_000;
/// Resources that came and refer to what is wanted, of which it is told whether they are new: about 100 MB.
const REFERRING_MAX: usize = 5_000_000;
/// Times that what came by reference is looked through for further references: a room is part of a ward, of a house, of a site.
const ROUNDS_MAX: u32 = 8;
/// Ids in one `_id` query: addresses must stay below 2 kB.
const IDS_PER_QUERY: usize = 25;
/// Resources of a type that one night looks at again.
const LOOKED_AT: usize = 100;

/// Fetches what something staged refers to: resources of no patient, of types that cannot be searched, and those of patients
/// that an export left out.
pub(crate) async fn hydrate(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let types: BTreeSet<String> = pull.habits.types(|types| types.unsearchable.union(&pull.plan.referenced).cloned().collect());
    // What is set aside as it arrives is not missing.
    let is_whole = |name: &&String| !pull.plan.is_narrowed(name);
    let mut exported: BTreeSet<String> = pull.export().into_iter().flat_map(|export| export.types).filter(|name| is_whole(&name)).collect();
    // Whose they may be, where not everybody is pulled.
    let mut members = None;
    if !exported.is_empty() {
        match read_members(pull).await {
            Ok(patients) => members = patients,
            Err(SourceError::Nothing { .. }) => exported.clear(),
            Err(error) => return Err(error),
        }
    }
    let queries: Vec<Query> = types.union(&exported).map(|name| reference_query(name)).collect();
    let mut asked = BTreeSet::new();
    for round in 1..=ROUNDS_MAX {
        // What was asked for and did not come is not there.
        let wanted = wanted_references(pull, &types)?.into_iter().chain(left_out(pull, &exported)?);
        let wanted = newly_wanted(pull, wanted.filter(|one| !asked.contains(one)).collect())?;
        asked.extend(wanted.iter().cloned());
        let mut tasks = Vec::new();
        for query in &queries {
            let ids: Vec<String> = wanted.iter().filter(|(resource_type, _)| *resource_type == query.resource_type).map(|(_, id)| id.clone()).collect();
            for chunk in ids.chunks(IDS_PER_QUERY) {
                tasks.push(Task { query, name: named("refer", query, chunk), patients: Some(chunk.to_vec()), since: false, category: None, span: super::Span::ALL });
            }
        }
        tasks.retain(|task| !pull.done.contains(&task.name));
        if tasks.is_empty() {
            return Ok(());
        }
        run_tasks(pull, if round == 1 { "references" } else { "further references" }, tasks, members.as_ref()).await?;
    }
    Ok(())
}

/// Resources of patients that an export names in what it holds, and neither holds nor held before: some servers leave out
/// what is only reached from another resource. Most that is named is held, so that only hashes of the names are kept.
fn left_out(pull: &Pull<'_>, exported: &BTreeSet<String>) -> Result<BTreeSet<(String, String)>, SourceError> {
    if exported.is_empty() {
        return Ok(BTreeSet::new());
    }
    let files = staged_files(pull)?;
    let target = |reference: Cow<'_, str>| match reference_target(&reference) {
        // Whoever is no member of the group has no business here.
        Some((Some(resource_type), id)) if resource_type != "Patient" && exported.contains(resource_type) => Some((resource_type.to_owned(), id.to_owned())),
        _ => None,
    };
    let mut named: HashSet<u64> = HashSet::new();
    pull.snapshot.staged(pull.id, &files, |_, json| {
        let hashes = references(json).filter_map(target).map(|(resource_type, id)| hash_of(&resource_type, &id));
        named.extend(hashes.take(REFERENCES_MAX.saturating_sub(named.len())));
        Ok(())
    })?;
    pull.snapshot.staged(pull.id, &files, |header, _| {
        named.remove(&hash_of(&header.resource_type, &header.id));
        Ok(())
    })?;
    if pull.since.is_some() && !named.is_empty() {
        pull.snapshot.each_stored(|resource_type, id| {
            named.remove(&hash_of(resource_type, id));
        })?;
    }
    let mut wanted = BTreeSet::new();
    if !named.is_empty() {
        pull.snapshot.staged(pull.id, &files, |_, json| {
            wanted.extend(references(json).filter_map(target).filter(|(resource_type, id)| named.contains(&hash_of(resource_type, id))));
            Ok(())
        })?;
    }
    Ok(wanted)
}

/// Without what an earlier pull asked for: in a night of changes that is what only those refer to that are stored as they came, if it was
/// not there then, or is looked at again in its turn. Of types that had a gap it is not known.
fn newly_wanted(pull: &Pull<'_>, mut wanted: BTreeSet<(String, String)>) -> Result<BTreeSet<(String, String)>, SourceError> {
    let with_gaps = ledger::with_gaps(pull.snapshot.store(), &pull.source.name(), &pull.plan.digest())?;
    if pull.since.is_none() || wanted.is_empty() || with_gaps.contains("*") {
        return Ok(wanted);
    }
    let asked = wanted.iter().filter(|(resource_type, _)| !with_gaps.contains(resource_type));
    let mut asked: HashSet<u64> = asked.map(|(resource_type, id)| hash_of(resource_type, id)).collect();
    let has_turn = |resource_type: &str| with_gaps.is_empty() && pull.plan.referenced.contains(resource_type) && pull.plan.by_id.contains(resource_type);
    let (files, content) = (staged_files(pull)?, |header: &Header| header.hash.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk)));
    let version = |header: &Header| hash_of(&header.resource_type, &header.id) ^ content(header);
    let target = |reference: Cow<'_, str>| reference_target(&reference).and_then(|(resource_type, id)| Some(hash_of(resource_type?, id)));
    // What refers to them, and is not stored so.
    let mut referring: HashSet<u64> = HashSet::new();
    pull.snapshot.staged(pull.id, &files, |header, json| {
        if referring.len() <= REFERRING_MAX && references(json).filter_map(target).any(|target| asked.contains(&target)) {
            referring.insert(version(header));
        }
        Ok(())
    })?;
    if referring.len() > REFERRING_MAX {
        return Ok(wanted);
    }
    pull.snapshot.each_header(|header| {
        referring.remove(&version(header));
        if !has_turn(&header.resource_type) {
            asked.remove(&hash_of(&header.resource_type, &header.id));
        }
    })?;
    pull.snapshot.staged(pull.id, &files, |header, json| {
        if referring.contains(&version(header)) {
            references(json).filter_map(target).for_each(|target| {
                asked.remove(&target);
            });
        }
        Ok(())
    })?;
    wanted.retain(|(resource_type, id)| !asked.contains(&hash_of(resource_type, id)));
    Ok(wanted)
}

fn staged_files(pull: &Pull<'_>) -> Result<Vec<String>, SourceError> {
    Ok(ledger::units(pull.snapshot.store(), pull.id)?.into_iter().filter_map(|unit| unit.file).collect())
}

/// Questions by which one night looks again at a type of which so many are stored.
pub(in crate::source) fn turn_of(stored: u64) -> u64 {
    stored.min(LOOKED_AT as u64).div_ceil(IDS_PER_QUERY as u64)
}

/// Looks again, in turn, at what is stored because something refers to it: what changes or vanishes of it is in no change that is
/// asked for, and nobody counts it.
pub(in crate::source) async fn look_again(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let types: BTreeSet<&String> = pull.plan.referenced.intersection(&pull.plan.by_id).collect();
    // What lacks something may be of a server that fails.
    if ledger::units(pull.snapshot.store(), pull.id)?.iter().any(|unit| unit.gap.is_some()) {
        return Ok(());
    }
    let mut stored: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (files, reconcile) = foreseeable(pull)?;
    pull.snapshot.foresee(pull.id, &files, &reconcile)?.each_header(|header| {
        if header.import.is_empty() && types.contains(&header.resource_type) {
            stored.entry(header.resource_type.clone()).or_default().insert(header.id.clone());
        }
    })?;
    let night = ledger::pulls_since_full(pull.snapshot.store(), &pull.source.name(), &pull.plan.digest())?;
    for (resource_type, ids) in stored {
        let ids: Vec<String> = ids.into_iter().collect();
        let turn = night as usize % ids.len().div_ceil(LOOKED_AT).max(1);
        let ids = ids.chunks(LOOKED_AT).nth(turn).unwrap_or_default();
        let query = Query { name: format!("{resource_type} looked at again"), ..reference_query(&resource_type) };
        let task = |some: &[String]| Task { query: &query, name: named("look", &query, some), patients: Some(some.to_vec()), since: false, category: None, span: super::Span::ALL };
        run_tasks(pull, "references", ids.chunks(IDS_PER_QUERY).map(task).collect(), None).await?;
        if recount::has_gap(pull, &resource_type)? {
            continue;
        }
        let came = recount::came_again(pull, &resource_type)?;
        let gone: BTreeSet<String> = ids.iter().filter(|id| !came.contains(&hash_of(&resource_type, id))).cloned().collect();
        let_go(pull, &resource_type, &gone, ids.len())?;
    }
    Ok(())
}

/// Lets go what is not there any more, unless that is most of what was looked at.
fn let_go(pull: &Pull<'_>, resource_type: &str, gone: &BTreeSet<String>, looked_at: usize) -> Result<(), SourceError> {
    if gone.is_empty() {
        return Ok(());
    }
    let unit = Unit { name: format!("look gone {resource_type}"), resource_type: resource_type.to_owned(), query: "what vanished".to_owned(), ..Unit::default() };
    if looked_at as u64 >= VOLUME_MIN && gone.len() * 2 > looked_at {
        let reason = format!("of {looked_at} that were looked at again {} are not there; all are kept until everything is read", gone.len());
        return pull.record(&Unit { gap: Some(Why::new(Code::Missed, reason)), ..unit });
    }
    recount::remove(pull, unit, gone)
}

pub(super) fn hash_of(resource_type: &str, id: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (resource_type, id).hash(&mut hasher);
    hasher.finish()
}

/// Reads a task's resources one by one: what is deleted goes, what is not there is not there. Of a group's patients one
/// that is not there is a gap.
pub(super) async fn read_each(pull: &Pull<'_>, task: &Task<'_>, members: Option<&BTreeSet<String>>) -> Result<Unit, SourceError> {
    let resource_type = &task.query.resource_type;
    let mut receiving = pull.receive(task.unit(), members)?;
    receiving.unit.server_time = Some(pull.clock.now());
    let (mut absent, mut gap) = (0, None);
    // `.` and `..` are ids by FHIR's rules, and something else in an address.
    let ids = task.patients.iter().flatten().filter(|id| is_id(id) && id.bytes().any(|byte| byte != b'.'));
    for (number, id) in (1..).zip(ids) {
        let answer = pull.source.client.get(below(&pull.source.base, &format!("{resource_type}/{id}"))?, super::ask::FHIR_JSON).await?;
        match answer.status {
            200..=299 => drop(receiving.take(&answer.body, number)?),
            404 => absent += 1,
            410 => receiving.take_removal(&tombstone(resource_type, id))?,
            status => {
                gap = Some(Why::new(Code::of_status(status), format!("the server answered {status} to reading one by its id")));
                if matches!(status, 401 | 403) {
                    break;
                }
            }
        }
    }
    if resource_type == "Patient" && members.is_some() && absent > 0 {
        let (code, whom) = pull.plan.absent();
        gap = gap.or_else(|| Some(Why::new(code, format!("{absent} of the {whom} are not there"))));
    }
    receiving.finish(gap)
}

fn reference_query(resource_type: &str) -> Query {
    Query {
        name: format!("{resource_type} referred to"),
        resource_type: resource_type.to_owned(),
        parameters: Vec::new(),
        by_patient: Some("_id".to_owned()),
        incremental: false,
        one_by_one: false,
        later: None,
    }
}

/// References in what was staged to these types, without those already staged.
pub(in crate::source) fn wanted_references(pull: &Pull<'_>, types: &BTreeSet<String>) -> Result<BTreeSet<(String, String)>, SourceError> {
    let files = staged_files(pull)?;
    let mut wanted = BTreeSet::new();
    let mut have = BTreeSet::new();
    pull.snapshot.staged(pull.id, &files, |header, json| {
        if types.contains(&header.resource_type) {
            have.insert((header.resource_type.clone(), header.id.clone()));
        }
        for reference in references(json) {
            if let Some((Some(resource_type), id)) = reference_target(&reference)
                && types.contains(resource_type)
                && wanted.len() < REFERENCES_MAX
            {
                wanted.insert((resource_type.to_owned(), id.to_owned()));
            }
        }
        Ok(())
    })?;
    Ok(wanted.difference(&have).cloned().collect())
}

/// The values of all `reference` elements, found by their text.
fn references(json: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    const MARK: &[u8] = br#""reference""#;
    memchr::memmem::find_iter(json, MARK).filter_map(move |at| string_value(json.get(at + MARK.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_73_references_are_found_however_json_writes_them() {
        let line = br#"{"subject":{"reference":"Patient/p"},"device":{"reference":"Device\/d1"},"location":[{"location":{"reference" : "Location\u002fward"}}]}"#;
        assert_eq!(references(line).collect::<Vec<_>>(), ["Patient/p", "Device/d1", "Location/ward"]);
    }
}
