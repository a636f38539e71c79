//! Bulk Data export: kick-off, status, manifest, files, deletion.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::Grant;
use super::chart::Version;
use super::population::State;
use super::reply::{Reply, form, http_date, outcome, random};
use super::search::{Query, Refusal, TYPES, read_span, type_search};
use super::server::Options;

/// Types outside of patients' records that come along for understanding them.
const SUPPORTING: [&str; 3] = ["Location", "Organization", "Practitioner"];
/// Jobs of all clients together.
const JOBS_MAX: usize = 256;
/// Deletions in one transaction Bundle of a `deleted` file.
const DELETIONS_PER_LINE: usize = 200;

/// Whose data are exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    System,
    Patient,
    Group(String),
}

impl Level {
    /// `system`, `patient` or `group`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Level::System => "system",
            Level::Patient => "patient",
            Level::Group(_) => "group",
        }
    }
}

/// A kick-off that has been understood.
#[derive(Debug, Default)]
struct Wanted {
    types: Option<BTreeSet<&'static str>>,
    since: Option<Timestamp>,
    /// These patients only.
    patients: Option<BTreeSet<String>>,
    filters: BTreeMap<&'static str, Vec<Query>>,
    /// Notes for the `error` file, after lenient handling.
    notes: Vec<String>,
}

/// One file of NDJSON.
enum Lines {
    Resources(Vec<Arc<Version>>),
    Text(String),
}

struct File {
    kind: &'static str,
    count: usize,
    lines: Lines,
}

struct Job {
    client: String,
    request: String,
    transaction: Timestamp,
    started: Timestamp,
    ready: Timestamp,
    expires: Timestamp,
    /// Output files, then the deletions, then the errors, each with its list in the manifest.
    files: Vec<(&'static str, File)>,
}

/// All exports.
pub(super) struct Exports {
    jobs: Mutex<HashMap<String, Job>>,
}

/// What an export request brings along.
pub(super) struct Call<'a> {
    pub(super) grant: &'a Grant,
    pub(super) headers: &'a HeaderMap,
    /// Full URL of the request.
    pub(super) url: String,
    /// Parameters, from the query or from a Parameters resource.
    pub(super) parameters: Vec<(String, String)>,
    pub(super) base: &'a str,
    pub(super) now: Timestamp,
}

impl Exports {
    pub(super) fn new() -> Exports {
        Exports { jobs: Mutex::default() }
    }

    /// Starts an export.
    pub(super) fn kick_off(&self, state: &mut State, options: &Options, level: &Level, call: &Call) -> Reply {
        match self.start(state, options, level, call) {
            Ok(reply) | Err(reply) => reply,
        }
    }

    fn start(&self, state: &mut State, options: &Options, level: &Level, call: &Call) -> Result<Reply, Reply> {
        let prefer = call.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
        if !prefer.contains("respond-async") {
            return Err(Reply::outcome(StatusCode::BAD_REQUEST, "required", "an export needs the header `Prefer: respond-async`"));
        }
        let wanted = read_parameters(state, options.export_version, call, prefer.contains("handling=lenient"))?;
        let members = members(state, level, wanted.patients.as_ref())?;
        let types = allowed_types(&wanted, level, call.grant)?;
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|_, job| job.expires > call.now || job.client != call.grant.client);
        let own = jobs.values().filter(|job| job.client == call.grant.client).count();
        if own >= options.export_jobs_max || jobs.len() >= JOBS_MAX {
            let text = format!("at most {} exports at once; delete a finished one, or wait", options.export_jobs_max);
            return Err(Reply::outcome(StatusCode::TOO_MANY_REQUESTS, "throttled", &text).with(header::RETRY_AFTER, "1"));
        }
        // Everything entered so far is in; everything entered from now on is later.
        let transaction = state.chart.settle(call.now);
        let files = collect(state, options, &wanted, &types, members.as_ref());
        let job = Job {
            client: call.grant.client.clone(),
            request: call.url.clone(),
            transaction,
            started: call.now,
            ready: call.now.checked_add(options.export_delay).unwrap_or(call.now),
            expires: call.now.checked_add(options.export_life).unwrap_or(call.now),
            files,
        };
        let id = URL_SAFE_NO_PAD.encode(random::<16>());
        let location = format!("{}/export-status/{id}", call.base);
        jobs.insert(id, job);
        Ok(Reply::empty(StatusCode::ACCEPTED).with(header::CONTENT_LOCATION, location))
    }

    /// The state of an export, or its manifest.
    pub(super) fn status(&self, id: &str, options: &Options, call: &Call) -> Reply {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(job) = jobs.get(id).filter(|job| job.client == call.grant.client) else {
            return Reply::outcome(StatusCode::NOT_FOUND, "not-found", "there is no such export (any more)");
        };
        if job.expires <= call.now {
            return Reply::outcome(StatusCode::GONE, "expired", "the export's files have expired; start another");
        }
        let part: usize = call.parameters.iter().find(|(name, _)| name == "part").and_then(|(_, part)| part.parse().ok()).unwrap_or(0);
        let parts = job.files.len().div_ceil(options.manifest_files.max(1)).max(1);
        // Each part is ready later than the one before it.
        let ready = |part: usize| {
            let later = options.export_delay.saturating_mul(u32::try_from(part).unwrap_or(u32::MAX));
            job.ready.checked_add(later).is_ok_and(|ready| ready <= call.now)
        };
        if !ready(part) {
            let whole = job.started.duration_until(job.ready).as_millis().max(1);
            let done = job.started.duration_until(call.now).as_millis().clamp(0, whole);
            let left = call.now.duration_until(job.ready).as_secs().max(0) + 1;
            return Reply::empty(StatusCode::ACCEPTED)
                .with(header::HeaderName::from_static("x-progress"), format!("{} % of {} files", done * 100 / whole, job.files.len()))
                .with(header::RETRY_AFTER, left.to_string());
        }
        let next = (part + 1 < parts && ready(part + 1)).then(|| format!("{}/export-status/{id}?part={}", call.base, part + 1));
        let status = if ready(parts - 1) { StatusCode::OK } else { StatusCode::ACCEPTED };
        let manifest = job.manifest(id, call.base, options, part, next);
        Reply::json(status, "application/json", manifest.to_string())
            .with(header::EXPIRES, http_date(job.expires))
            .with(header::CACHE_CONTROL, "no-store")
    }

    /// Cancels an export, or throws its files away.
    pub(super) fn delete(&self, id: &str, call: &Call) -> Reply {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match jobs.get(id) {
            Some(job) if job.client == call.grant.client => {
                jobs.remove(id);
                Reply::empty(StatusCode::ACCEPTED)
            }
            _ => Reply::outcome(StatusCode::NOT_FOUND, "not-found", "there is no such export (any more)"),
        }
    }

    /// One file.
    pub(super) fn file(&self, id: &str, number: &str, call: &Call) -> Reply {
        let missing = || Reply::outcome(StatusCode::NOT_FOUND, "not-found", "there is no such file (any more)");
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(job) = jobs.get(id).filter(|job| job.client == call.grant.client && job.ready <= call.now) else { return missing() };
        if job.expires <= call.now {
            return Reply::outcome(StatusCode::GONE, "expired", "the file has expired; start another export");
        }
        let number: Option<usize> = number.strip_suffix(".ndjson").and_then(|number| number.parse().ok());
        let Some((_, file)) = number.and_then(|number| job.files.get(number)) else { return missing() };
        if SUPPORTING.contains(&file.kind) && !call.grant.may_search(file.kind) {
            return Reply::outcome(StatusCode::FORBIDDEN, "forbidden", "the token's scopes do not allow this type");
        }
        let reply = Reply::json(StatusCode::OK, "application/fhir+ndjson", file.text());
        let reply = reply.with(header::EXPIRES, http_date(job.expires));
        let accepts = call.headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
        if accepts.split(',').any(|one| one.trim().starts_with("gzip")) { reply.gzip() } else { reply }
    }
}

impl Job {
    /// A part of the manifest, as the version of the guide has it.
    fn manifest(&self, id: &str, base: &str, options: &Options, part: usize, next: Option<String>) -> Value {
        let list = |name: &str| -> Vec<Value> {
            let here = self.files.iter().enumerate().skip(part.saturating_mul(options.manifest_files)).take(options.manifest_files);
            let files = here.filter(|(_, (list, _))| *list == name);
            files
                .map(|(number, (_, file))| json!({"type": file.kind, "url": format!("{base}/export-file/{id}/{number}.ndjson"), "count": file.count}))
                .collect()
        };
        let messages = if options.export_version >= 4 { "outcome" } else { "error" };
        let mut manifest = json!({
            "transactionTime": self.transaction.to_string(),
            "requiresAccessToken": true,
            "output": list("output"),
            messages: list("error"),
        });
        if options.export_version < 4 {
            manifest["request"] = self.request.as_str().into();
        }
        if options.export_version > 1 {
            manifest["deleted"] = list("deleted").into();
        }
        if let Some(next) = next {
            manifest["link"] = json!([{"relation": "next", "url": next}]);
        }
        manifest
    }
}

impl File {
    fn text(&self) -> String {
        match &self.lines {
            Lines::Text(text) => text.clone(),
            Lines::Resources(versions) => versions.iter().filter_map(|version| version.content.as_ref()).flat_map(|content| [&content.json, "\n"]).collect(),
        }
    }
}

/// Reads the parameters of a kick-off.
fn read_parameters(state: &State, version: u8, call: &Call, lenient: bool) -> Result<Wanted, Reply> {
    let refuse = |refusal: Refusal| Reply::outcome(StatusCode::BAD_REQUEST, refusal.code, &refusal.text);
    let mut wanted = Wanted::default();
    for (name, value) in &call.parameters {
        match name.as_str() {
            "_outputFormat" => {
                if !["application/fhir+ndjson", "application/ndjson", "ndjson"].contains(&value.as_str()) {
                    return Err(refuse(Refusal::new("not-supported", format!("`_outputFormat` {value} is not supported; it is ndjson"))));
                }
            }
            "_since" => {
                let instant = value.contains('T').then(|| read_span(value, &state.calendar)).flatten();
                let (since, _) = instant.ok_or_else(|| refuse(Refusal::new("value", "`_since` must be an instant")))?;
                wanted.since = Some(since);
            }
            "_type" if version >= 4 && value.contains(',') => return Err(refuse(Refusal::new("value", "`_type` is repeated in version 4, not a list"))),
            "patient" if version >= 2 => {
                let id = value
                    .strip_prefix("Patient/")
                    .ok_or_else(|| refuse(Refusal::new("value", "`patient` must be a reference to a Patient")))?;
                wanted.patients.get_or_insert_default().insert(id.to_owned());
            }
            "_type" => {
                for kind in value.split(',') {
                    match type_search(kind.trim()) {
                        Some(search) => {
                            wanted.types.get_or_insert_default().insert(search.kind);
                        }
                        None if lenient => wanted.notes.push(format!("type {kind} is not exported here")),
                        None => return Err(refuse(Refusal::new("not-supported", format!("type `{kind}` is not exported here")))),
                    }
                }
            }
            "_typeFilter" => {
                for filter in split_filters(value) {
                    let (search, query) = read_filter(state, filter).map_err(refuse)?;
                    wanted.filters.entry(search).or_default().push(query);
                }
            }
            _ if lenient => wanted.notes.push(format!("parameter {name} was ignored")),
            _ => return Err(refuse(Refusal::new("not-supported", format!("`{name}` is not a parameter of an export here")))),
        }
    }
    Ok(wanted)
}

/// Splits `Type?query,Type?query` at the commas before a type.
fn split_filters(value: &str) -> Vec<&str> {
    let mut starts = vec![0];
    for (comma, _) in value.match_indices(',') {
        let rest = value.get(comma + 1..).unwrap_or("");
        let name: usize = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if name > 0 && rest.starts_with(|first: char| first.is_ascii_uppercase()) && rest.as_bytes().get(name) == Some(&b'?') {
            starts.push(comma + 1);
        }
    }
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([value.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| value.get(*start..end)).collect()
}

fn read_filter(state: &State, filter: &str) -> Result<(&'static str, Query), Refusal> {
    let (kind, query) = filter
        .split_once('?')
        .ok_or_else(|| Refusal::new("value", "`_typeFilter` is made of searches such as `Observation?code=…`"))?;
    let search = type_search(kind).ok_or_else(|| Refusal::new("not-supported", format!("type `{kind}` is not exported here")))?;
    let parameters = form(query.as_bytes());
    if let Some((name, _)) = parameters.iter().find(|(name, _)| ["_count", "_include", "_total", "_summary"].contains(&name.as_str())) {
        return Err(Refusal::new("not-supported", format!("`{name}` has no place in `_typeFilter`")));
    }
    Ok((search.kind, Query::parse(search, &parameters, false, &state.calendar)?))
}

/// The patients that are meant; nothing if all are.
fn members(state: &State, level: &Level, patients: Option<&BTreeSet<String>>) -> Result<Option<BTreeSet<String>>, Reply> {
    let Level::Group(id) = level else { return Ok(patients.cloned()) };
    let group = state.groups.iter().find(|(own, _, _)| own == id);
    let (_, _, members) = group.ok_or_else(|| Reply::outcome(StatusCode::NOT_FOUND, "not-found", "there is no such Group"))?;
    let members: BTreeSet<String> = members.iter().cloned().collect();
    match patients {
        None => Ok(Some(members)),
        Some(patients) if patients.is_subset(&members) => Ok(Some(patients.clone())),
        Some(_) => Err(Reply::outcome(StatusCode::BAD_REQUEST, "not-found", "not all of these patients are members of the group")),
    }
}

/// The types to export: those asked for, or all that the token and the level allow.
fn allowed_types(wanted: &Wanted, level: &Level, grant: &Grant) -> Result<Vec<&'static str>, Reply> {
    let forbidden = |kind: &str| Reply::outcome(StatusCode::FORBIDDEN, "forbidden", &format!("the token's scopes do not allow {kind}"));
    let every = TYPES.iter().map(|search| search.kind).filter(|kind| *level == Level::System || *kind != "Group");
    match &wanted.types {
        Some(types) => match types.iter().find(|kind| !grant.may_search(kind)) {
            Some(kind) => Err(forbidden(kind)),
            None => Ok(types.iter().copied().collect()),
        },
        None => {
            let types: Vec<&str> = every.filter(|kind| grant.may_search(kind)).collect();
            if types.is_empty() { Err(forbidden("any type")) } else { Ok(types) }
        }
    }
}

/// The files of an export.
fn collect(state: &State, options: &Options, wanted: &Wanted, types: &[&'static str], members: Option<&BTreeSet<String>>) -> Vec<(&'static str, File)> {
    let mut files = Vec::new();
    let mut deletions = Vec::new();
    for kind in types.iter().copied() {
        let filters = wanted.filters.get(kind);
        let mut found = Vec::new();
        for version in state.chart.all(kind) {
            let inside = match (members, &version.patient) {
                (Some(members), Some(patient)) => members.contains(&**patient),
                _ => true,
            };
            if !inside || wanted.since.is_some_and(|since| version.updated <= since) {
                continue;
            }
            if version.content.is_none() {
                if wanted.since.is_some() {
                    deletions.push(format!("{kind}/{}", version.id));
                }
            } else if filters.is_none_or(|filters| filters.iter().any(|query| query.matches(version))) {
                found.push(Arc::clone(version));
            }
        }
        for part in found.chunks(options.export_file_resources.max(1)) {
            files.push(("output", File { kind, count: part.len(), lines: Lines::Resources(part.to_vec()) }));
        }
    }
    if !deletions.is_empty() {
        files.push(("deleted", deletion_file(&deletions)));
    }
    if !wanted.notes.is_empty() {
        let text: String = wanted.notes.iter().map(|note| outcome("warning", "not-supported", note) + "\n").collect();
        files.push(("error", File { kind: "OperationOutcome", count: wanted.notes.len(), lines: Lines::Text(text) }));
    }
    files
}

fn deletion_file(deletions: &[String]) -> File {
    let bundle = |part: &[String]| {
        let entries: Vec<Value> = part.iter().map(|url| json!({"request": {"method": "DELETE", "url": url}})).collect();
        json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string() + "\n"
    };
    let lines: Vec<String> = deletions.chunks(DELETIONS_PER_LINE).map(bundle).collect();
    File { kind: "Bundle", count: lines.len(), lines: Lines::Text(lines.concat()) }
}

/// Parameters of a kick-off by POST, from a Parameters resource.
pub(super) fn read_parameters_resource(body: &[u8]) -> Option<Vec<(String, String)>> {
    let resource: Value = serde_json::from_slice(body).ok()?;
    if resource.get("resourceType")?.as_str()? != "Parameters" {
        return None;
    }
    let Some(list) = resource.get("parameter") else { return Some(Vec::new()) };
    let read = |parameter: &Value| {
        let name = parameter.get("name")?.as_str()?.to_owned();
        let members = parameter.as_object()?;
        let value = members.iter().find(|(key, _)| key.starts_with("value"))?.1;
        let value = value.get("reference").unwrap_or(value);
        Some((name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    };
    list.as_array()?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_split_before_types_only() {
        assert_eq!(split_filters("Observation?code=a,b"), ["Observation?code=a,b"]);
        assert_eq!(split_filters("Observation?code=a,Condition?code=b,c"), ["Observation?code=a", "Condition?code=b,c"]);
        assert_eq!(split_filters(""), [""]);
    }

    #[test]
    fn parameters_resources_are_read() {
        let body = br#"{"resourceType":"Parameters","parameter":[{"name":"_type","valueString":"Patient"},{"name":"_since","valueInstant":"2026-01-01T00:00:00Z"}]}"#;
        let read = read_parameters_resource(body).unwrap();
        assert_eq!(read, [("_type".to_owned(), "Patient".to_owned()), ("_since".to_owned(), "2026-01-01T00:00:00Z".to_owned())]);
        assert_eq!(read_parameters_resource(b"{}"), None);
        assert_eq!(read_parameters_resource(b"nonsense"), None);
    }
}
