//! Search, page by page: the server's links are opaque, its totals doubted, its loops noticed.

use super::SourceError;
use super::intake::Reason;
use super::ledger::Unit;
use super::plan::Query;
use super::pull::{Pull, Receiving};
use crate::fhir::compartment::{is_id, reference_target, search_parameters};
use crate::http::{HttpError, Origin, Response};
use crate::smart::client::below;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash as _, Hasher as _};
use url::Url;

/// Pages of one query.
const PAGES_MAX: usize = 100_000;
/// Times a query is begun again when its paging breaks.
const RESTARTS_MAX: u32 = 2;
/// Groups within each other.
const GROUPS_MAX: usize = 1000;
/// Patients taken from a Group.
const MEMBERS_MAX: usize = 5_000_000;
/// References followed to resources of no patient.
const REFERENCES_MAX: usize = 1_000_000;
/// Times that what came by reference is looked through for further references: a room is part of a ward, of a house, of a site.
const ROUNDS_MAX: u32 = 8;
/// Ids in one `_id` query: addresses must stay below 2 kB.
const IDS_PER_QUERY: usize = 25;

const FHIR_JSON: &str = "application/fhir+json";

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "resourceType")]
    resource_type: String,
    total: Option<serde_json::Value>,
    #[serde(default)]
    link: Option<Vec<Link>>,
    #[serde(default)]
    entry: Option<Vec<Option<Entry>>>,
}

#[derive(Deserialize)]
struct Link {
    relation: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    resource: Option<Box<RawValue>>,
    search: Option<Mode>,
}

#[derive(Deserialize)]
struct Mode {
    mode: Option<String>,
}

#[derive(Deserialize)]
struct TypeOnly {
    #[serde(rename = "resourceType")]
    resource_type: Option<String>,
}

/// Why a query could not be read to its end.
enum Broken {
    /// The paging failed: begin again.
    Restart(String),
    /// It will not get better.
    Gap(String),
    Fatal(SourceError),
}

impl From<SourceError> for Broken {
    fn from(error: SourceError) -> Broken {
        Broken::Fatal(error)
    }
}

impl From<HttpError> for Broken {
    fn from(error: HttpError) -> Broken {
        match error {
            HttpError::Token(_) => Broken::Fatal(error.into()),
            other => Broken::Gap(other.to_string()),
        }
    }
}

/// A unit to fetch.
struct Task<'a> {
    query: &'a Query,
    name: String,
    patients: Option<Vec<String>>,
    since: bool,
}

/// Runs the plan's queries.
pub(super) async fn run(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let members = match pull.plan.group.as_str() {
        "" => None,
        group => Some(read_group(pull, group).await?),
    };
    let known: BTreeSet<String> = match (&members, pull.since) {
        (Some(_), Some(_)) => pull.snapshot.patient_ids()?.into_iter().collect(),
        _ => BTreeSet::new(),
    };
    let mut tasks = Vec::new();
    for query in &pull.plan.queries {
        tasks.extend(tasks_of(pull, query, members.as_ref(), &known));
    }
    tasks.retain(|task| !pull.done.contains(&task.name));
    pull.progress.stage("search", Some(tasks.len() as u64));
    let shared: &Pull<'_> = pull;
    let width = shared.source.options.requests_at_once.clamp(1, 32) as usize;
    let mut running = futures_util::stream::iter(tasks).map(|task| fetch(shared, task, members.as_ref())).buffer_unordered(width);
    while let Some(unit) = running.next().await {
        shared.record(&unit?)?;
    }
    Ok(())
}

/// Asks by search for the types that an export did not mention: some servers export only the types they declare, and
/// are silent about the rest. A server that answers no such search is believed.
pub(super) async fn beside_export(pull: &Pull<'_>) -> Result<(), SourceError> {
    let Some(export) = &pull.plan.export else { return Ok(()) };
    let units = super::ledger::units(pull.snapshot.store(), pull.id)?;
    let silent = |name: &&String| {
        let mut own = units.iter().filter(|unit| unit.resource_type == **name).peekable();
        own.peek().is_some() && own.all(|unit| unit.expected.unwrap_or(0) == 0 && unit.received == 0 && unit.gap.is_none())
    };
    let absent: Vec<&String> = export.types.iter().filter(silent).collect();
    let members = match pull.plan.group.as_str() {
        _ if absent.is_empty() => return Ok(()),
        "" => None,
        group => match read_group(pull, group).await {
            Err(SourceError::Nothing { .. }) => return Ok(()),
            members => Some(members?),
        },
    };
    for resource_type in absent {
        let query = Query {
            name: format!("{resource_type} beside the export"),
            resource_type: resource_type.clone(),
            parameters: Vec::new(),
            by_patient: None,
            incremental: pull.source.capability.declares(resource_type, "_lastUpdated") == Some(true),
        };
        let name = format!("query {}", query.name);
        if pull.done.contains(&name) {
            continue;
        }
        let unit = fetch(pull, Task { query: &query, name, patients: None, since: true }, members.as_ref()).await?;
        match &unit.gap {
            Some(reason) => tracing::info!(pull = pull.id.0, resource_type, %reason, "not in the export, and not to be searched"),
            None if unit.received > 0 => {
                tracing::warn!(pull = pull.id.0, resource_type, received = unit.received, "the export left this type out");
                pull.record(&unit)?;
            }
            None => {}
        }
    }
    Ok(())
}

fn tasks_of<'a>(pull: &Pull<'_>, query: &'a Query, members: Option<&BTreeSet<String>>, known: &BTreeSet<String>) -> Vec<Task<'a>> {
    let (Some(members), Some(_)) = (members, &query.by_patient) else {
        return vec![Task { query, name: format!("query {}", query.name), patients: None, since: true }];
    };
    // A patient who is new here needs the whole history, whenever it was written.
    let (old, new): (Vec<String>, Vec<String>) = members.iter().cloned().partition(|id| known.contains(id));
    let mut tasks = Vec::new();
    for (patients, since) in [(old, true), (new, false)] {
        for chunk in patients.chunks(pull.source.options.tuning.patients_per_query.clamp(1, 200)) {
            let digest = crate::store::sha256_hex(chunk.join(",").as_bytes());
            let name = format!("query {} {}", query.name, digest.get(..16).unwrap_or_default());
            tasks.push(Task { query, name, patients: Some(chunk.to_vec()), since });
        }
    }
    tasks
}

/// The members of a group, and of the groups that are its members.
pub(super) async fn read_group(pull: &Pull<'_>, group: &str) -> Result<BTreeSet<String>, SourceError> {
    if !is_id(group) {
        return Err(SourceError::Options("`source.group` is not an id by FHIR's rules".to_owned()));
    }
    let mut waiting = vec![group.to_owned()];
    let mut seen = BTreeSet::new();
    let mut members = BTreeSet::new();
    while let Some(group) = waiting.pop() {
        if seen.len() < GROUPS_MAX && seen.insert(group.clone()) {
            let (patients, groups) = read_members(pull, &group).await?;
            members.extend(patients);
            waiting.extend(groups);
        }
    }
    Ok(members)
}

/// The patients and groups that are named as a group's members.
async fn read_members(pull: &Pull<'_>, group: &str) -> Result<(Vec<String>, Vec<String>), SourceError> {
    let answer = pull.source.client.get(below(&pull.source.base, &format!("Group/{group}"))?, FHIR_JSON).await?;
    let body = answer.json::<serde_json::Value>().filter(|_| answer.is_success());
    let body = body.filter(|body| body.get("resourceType").and_then(|name| name.as_str()) == Some("Group"));
    let Some(body) = body else {
        return Err(SourceError::Nothing { reason: format!("the configured Group cannot be read (status {})", answer.status) });
    };
    let members = body.get("member").and_then(|members| members.as_array()).map(Vec::as_slice).unwrap_or_default();
    let active = members
        .iter()
        .take(MEMBERS_MAX)
        .filter(|member| member.get("inactive").and_then(serde_json::Value::as_bool) != Some(true));
    let (mut patients, mut groups) = (Vec::new(), Vec::new());
    for member in active {
        match member.get("entity").and_then(|entity| reference_target(entity.get("reference")?.as_str()?)) {
            Some((Some("Patient"), id)) => patients.push(id.to_owned()),
            Some((Some("Group"), id)) if is_id(id) => groups.push(id.to_owned()),
            _ => {}
        }
    }
    Ok((patients, groups))
}

/// Asks by search for these types of some patients: all there is, or what has changed. For what an export left out.
pub(super) async fn of_patients(pull: &mut Pull<'_>, what: &str, types: &BTreeSet<String>, patients: &BTreeSet<String>, since: bool) -> Result<(), SourceError> {
    let query = |resource_type: &String| Query {
        name: format!("{resource_type} {what}"),
        resource_type: resource_type.clone(),
        parameters: Vec::new(),
        by_patient: search_parameters(resource_type).first().map(|parameter| (*parameter).to_owned()),
        incremental: since && pull.source.capability.declares(resource_type, "_lastUpdated") == Some(true),
    };
    let queries: Vec<Query> = types.iter().map(query).collect();
    let known = if since { patients.clone() } else { BTreeSet::new() };
    for query in &queries {
        for task in tasks_of(pull, query, Some(patients), &known) {
            if task.patients.as_ref().is_some_and(|patients| !patients.is_empty()) && !pull.done.contains(&task.name) {
                let unit = fetch(pull, task, None).await?;
                pull.record(&unit)?;
            }
        }
    }
    pull.done = super::ledger::done(pull.snapshot.store(), pull.id)?;
    Ok(())
}

fn first_address(pull: &Pull<'_>, task: &Task<'_>) -> Result<Url, SourceError> {
    let mut address = below(&pull.source.base, &task.query.resource_type)?;
    {
        let mut pairs = address.query_pairs_mut();
        for (name, value) in &task.query.parameters {
            pairs.append_pair(name, value);
        }
        if let (Some(parameter), Some(patients)) = (&task.query.by_patient, &task.patients) {
            pairs.append_pair(parameter, &patients.join(","));
        }
        if let (Some(since), true, true) = (pull.since, task.since, task.query.incremental) {
            pairs.append_pair("_lastUpdated", &format!("ge{since}"));
        }
        pairs.append_pair("_count", &pull.source.options.page_size.max(1).to_string());
    }
    Ok(address)
}

async fn fetch(pull: &Pull<'_>, task: Task<'_>, members: Option<&BTreeSet<String>>) -> Result<Unit, SourceError> {
    let address = first_address(pull, &task)?;
    let unit = Unit { name: task.name.clone(), resource_type: task.query.resource_type.clone(), query: task.query.name.clone(), ..Unit::default() };
    fetch_pages(pull, unit, address, members, task.query.resource_type == "Patient").await
}

/// Reads a query to its end, beginning again when the paging breaks.
async fn fetch_pages(pull: &Pull<'_>, unit: Unit, address: Url, members: Option<&BTreeSet<String>>, mode_patient: bool) -> Result<Unit, SourceError> {
    let mut restarts = 0;
    loop {
        let mut receiving = pull.receive(unit.clone(), if mode_patient { None } else { members })?;
        let reason = match pages(pull, &mut receiving, address.clone()).await {
            Ok(()) => return receiving.finish(None),
            Err(Broken::Fatal(error)) => return Err(error),
            Err(Broken::Gap(reason)) => return receiving.finish(Some(reason)),
            Err(Broken::Restart(reason)) => reason,
        };
        if restarts == RESTARTS_MAX {
            return receiving.finish(Some(reason));
        }
        restarts += 1;
        tokio::time::sleep(pull.source.wait(restarts)).await;
    }
}

async fn pages(pull: &Pull<'_>, receiving: &mut Receiving<'_>, first: Url) -> Result<(), Broken> {
    let home = Origin::of(&pull.source.base);
    let mut seen_addresses = BTreeSet::new();
    let mut seen_pages = BTreeSet::new();
    let mut next = Some(first);
    let mut entries: u64 = 0;
    let mut complaint = None;
    while let Some(address) = next.take() {
        if !seen_addresses.insert(crate::store::sha256_hex(address.as_str().as_bytes())) {
            return Err(Broken::Gap("the server's paging leads in a circle".to_owned()));
        }
        if seen_addresses.len() > PAGES_MAX {
            return Err(Broken::Gap(format!("more than {PAGES_MAX} pages")));
        }
        if Origin::of(&address) != home {
            return Err(Broken::Gap("the server's next page is at another origin, where our token must not go".to_owned()));
        }
        let answer = pull.source.client.get(address, FHIR_JSON).await?;
        let bundle = read_page(&answer, seen_addresses.len() == 1)?;
        if seen_addresses.len() == 1 {
            receiving.unit.server_time = Some(answer.date().unwrap_or_else(|| pull.clock.now()));
            receiving.unit.expected = bundle.total.as_ref().and_then(serde_json::Value::as_u64);
        }
        let (page, worst) = take_page(receiving, &bundle, &mut entries)?;
        complaint = complaint.or(worst);
        if !page.is_empty() && !seen_pages.insert(crate::store::sha256_hex(&page)) {
            return Err(Broken::Gap("the server repeats a page".to_owned()));
        }
        next = next_address(&answer, &bundle)?;
    }
    if let Some(complaint) = complaint {
        return Err(Broken::Gap(complaint));
    }
    match receiving.unit.expected {
        Some(total) if receiving.unit.received < total => Err(Broken::Restart(format!("the server announced {total} and sent {}", receiving.unit.received))),
        _ => Ok(()),
    }
}

fn read_page(answer: &Response, first: bool) -> Result<Bundle, Broken> {
    let status = answer.status;
    if !answer.is_success() {
        let reason = format!("the server answered {status}{}", issue_code(&answer.body));
        // An expired page: 404, 410 and some servers' 400 or 500. The first page is the query itself.
        return Err(if first || matches!(status, 401 | 403) { Broken::Gap(reason) } else { Broken::Restart(reason) });
    }
    match serde_json::from_slice::<Bundle>(&answer.body) {
        Ok(bundle) if bundle.resource_type == "Bundle" => Ok(bundle),
        _ => Err(Broken::Restart(format!("the answer is not a Bundle{}", issue_code(&answer.body)))),
    }
}

/// The code of an OperationOutcome's first issue; its free text may hold anything and is left out.
pub(super) fn issue_code(body: &[u8]) -> String {
    let code = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|outcome| Some(outcome.get("issue")?.get(0)?.get("code")?.as_str()?.to_owned()));
    match code {
        Some(code) if code.len() < 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') => {
            format!(" ({code})")
        }
        _ => String::new(),
    }
}

/// Takes a page's entries. Gives the hashes of what it held, to notice a repeated page, and the server's complaint.
fn take_page(receiving: &mut Receiving<'_>, bundle: &Bundle, entries: &mut u64) -> Result<(Vec<u8>, Option<String>), Broken> {
    let mut hashes = Vec::new();
    let mut complaint = None;
    for entry in bundle.entry.iter().flatten() {
        *entries += 1;
        let resource = entry.as_ref().and_then(|entry| entry.resource.as_ref()).map(|json| json.get());
        let Some(json) = resource.filter(|json| *json != "null") else {
            receiving.unit.received += 1;
            receiving.refuse(Reason::NoResource, None, b"", 0, *entries)?;
            continue;
        };
        let mode = entry.as_ref().and_then(|entry| entry.search.as_ref()?.mode.as_deref());
        let outcome = mode == Some("outcome") || serde_json::from_str::<TypeOnly>(json).is_ok_and(|head| head.resource_type.as_deref() == Some("OperationOutcome"));
        if outcome {
            complaint = complaint.or_else(|| worst_issue(json));
        } else if let Some(hash) = receiving.take(json.as_bytes(), *entries)? {
            hashes.extend_from_slice(&hash);
        }
    }
    Ok((hashes, complaint))
}

/// An error or fatal issue makes the page incomplete; warnings and information do not.
pub(super) fn worst_issue(json: &str) -> Option<String> {
    let outcome: serde_json::Value = serde_json::from_str(json).ok()?;
    let bad = outcome
        .get("issue")?
        .as_array()?
        .iter()
        .any(|issue| matches!(issue.get("severity").and_then(|severity| severity.as_str()), Some("error" | "fatal")));
    bad.then(|| format!("the server reports an error{}", issue_code(json.as_bytes())))
}

fn next_address(answer: &Response, bundle: &Bundle) -> Result<Option<Url>, Broken> {
    let next = bundle.link.iter().flatten().find(|link| link.relation.as_deref() == Some("next"));
    let Some(address) = next.and_then(|link| link.url.as_deref()).filter(|address| !address.is_empty()) else {
        return Ok(None);
    };
    match answer.url.join(address) {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(Broken::Gap("the server's link to the next page is not an address".to_owned())),
    }
}

/// Fetches what something staged refers to: resources of no patient, and those of patients that an export left out.
pub(super) async fn hydrate(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let mut exported = pull.plan.export.as_ref().map(|export| export.types.clone()).unwrap_or_default();
    // Whose they may be, where not everybody is pulled.
    let mut members = None;
    if !pull.plan.group.is_empty() && !exported.is_empty() {
        match read_group(pull, &pull.plan.group).await {
            Ok(patients) => members = Some(patients),
            Err(SourceError::Nothing { .. }) => exported.clear(),
            Err(error) => return Err(error),
        }
    }
    let queries: Vec<Query> = pull.plan.referenced.iter().chain(&exported).map(|name| reference_query(name)).collect();
    let mut asked = BTreeSet::new();
    for round in 1..=ROUNDS_MAX {
        // What was asked for and did not come is not there.
        let wanted: BTreeSet<(String, String)> = wanted_references(pull)?.into_iter().chain(left_out(pull, &exported)?).filter(|one| !asked.contains(one)).collect();
        asked.extend(wanted.iter().cloned());
        let mut tasks = Vec::new();
        for query in &queries {
            let ids: Vec<String> = wanted.iter().filter(|(resource_type, _)| *resource_type == query.resource_type).map(|(_, id)| id.clone()).collect();
            for chunk in ids.chunks(IDS_PER_QUERY) {
                let digest = crate::store::sha256_hex(chunk.join(",").as_bytes());
                let name = format!("refer {} {}", query.name, digest.get(..16).unwrap_or_default());
                tasks.push(Task { query, name, patients: Some(chunk.to_vec()), since: false });
            }
        }
        tasks.retain(|task| !pull.done.contains(&task.name));
        if tasks.is_empty() {
            return Ok(());
        }
        pull.progress.stage(if round == 1 { "references" } else { "further references" }, Some(tasks.len() as u64));
        let mut fetched = Vec::new();
        {
            let shared: &Pull<'_> = pull;
            let width = shared.source.options.requests_at_once.clamp(1, 32) as usize;
            let mut running = futures_util::stream::iter(tasks).map(|task| fetch(shared, task, members.as_ref())).buffer_unordered(width);
            while let Some(unit) = running.next().await {
                let unit = unit?;
                shared.record(&unit)?;
                fetched.push(unit.name);
            }
        }
        pull.done.extend(fetched);
    }
    Ok(())
}

/// Resources of patients that an export names in what it holds, and neither holds nor held before: some servers leave out
/// what is only reached from another resource. Most that is named is held, so that only hashes of the names are kept.
fn left_out(pull: &Pull<'_>, exported: &BTreeSet<String>) -> Result<BTreeSet<(String, String)>, SourceError> {
    if exported.is_empty() {
        return Ok(BTreeSet::new());
    }
    let files: Vec<String> = super::ledger::units(pull.snapshot.store(), pull.id)?.into_iter().filter_map(|unit| unit.file).collect();
    let target = |reference: &str| match reference_target(reference) {
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

fn hash_of(resource_type: &str, id: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (resource_type, id).hash(&mut hasher);
    hasher.finish()
}

fn reference_query(resource_type: &str) -> Query {
    Query {
        name: format!("{resource_type} referred to"),
        resource_type: resource_type.to_owned(),
        parameters: Vec::new(),
        by_patient: Some("_id".to_owned()),
        incremental: false,
    }
}

/// References in what was staged to types that are fetched on reference, without those already staged.
fn wanted_references(pull: &Pull<'_>) -> Result<BTreeSet<(String, String)>, SourceError> {
    let files: Vec<String> = super::ledger::units(pull.snapshot.store(), pull.id)?.into_iter().filter_map(|unit| unit.file).collect();
    let mut wanted = BTreeSet::new();
    let mut have = BTreeSet::new();
    pull.snapshot.staged(pull.id, &files, |header, json| {
        if pull.plan.referenced.contains(&header.resource_type) {
            have.insert((header.resource_type.clone(), header.id.clone()));
        }
        for reference in references(json) {
            if let Some((Some(resource_type), id)) = reference_target(reference)
                && pull.plan.referenced.contains(resource_type)
                && wanted.len() < REFERENCES_MAX
            {
                wanted.insert((resource_type.to_owned(), id.to_owned()));
            }
        }
        Ok(())
    })?;
    Ok(wanted.difference(&have).cloned().collect())
}

/// The values of all `reference` elements, found by their text; the JSON is one of ours, without white space.
fn references(json: &[u8]) -> impl Iterator<Item = &str> {
    const MARK: &[u8] = br#""reference":""#;
    memchr::memmem::find_iter(json, MARK).filter_map(move |at| {
        let rest = json.get(at + MARK.len()..)?;
        let end = memchr::memchr(b'"', rest)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    })
}
