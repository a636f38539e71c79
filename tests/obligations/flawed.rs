//! Small servers of one flaw each, whose answers can be believed and are wrong; and a site that pulls from one.

use super::small::{Heard, Said, Small, json, said};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use watershed::http::SystemClock;
use watershed::snapshot::{Key, Snapshot};
use watershed::source::probe::{Fact, Found, probe};
use watershed::source::{Mode, Need, Options, PullOutcome, Silent, Source, SourceError, plan, pull_for};
use watershed::store::Store;

/// What a server does otherwise than it should.
#[derive(Clone, Copy, Default)]
pub(super) struct Flaw {
    /// Values of a list that are heeded: 0 all, 1 none of a list.
    pub(super) heeded: usize,
    /// Patients are known by `Patient/` and their id only.
    pub(super) typed: bool,
    /// The body of a search by POST is dropped: nothing is found.
    pub(super) posts_nothing: bool,
    /// Result, total and count end here.
    pub(super) cut: usize,
    /// A warning of this code stands beside the data, of which a third is left out.
    pub(super) warns: &'static str,
    /// A time of change finds nothing.
    pub(super) no_times: bool,
    /// The total is too high, but on the last page.
    pub(super) estimates: bool,
    /// The total is too high on each page, and a number alone is not.
    pub(super) overstates: bool,
    /// A note of one resource is in Latin-1.
    pub(super) latin: bool,
    /// A larger page is refused.
    pub(super) page_max: usize,
    /// Everything begins with a byte order mark.
    pub(super) marked: bool,
    /// A search must name a patient.
    pub(super) of_patients: bool,
    /// Links are those of the server behind its proxy.
    pub(super) inner: bool,
    /// Further observations of one patient.
    pub(super) more: usize,
    /// The body of a search by POST is dropped: everything is found.
    pub(super) posts_all: bool,
    /// Observations that are gone.
    pub(super) gone: usize,
    /// An observation of the last patient was amended.
    pub(super) amended: bool,
    /// Patients who are not in the Group, of the last ones.
    pub(super) away: usize,
    /// Where files of an export are, below the base.
    pub(super) files: &'static str,
    /// A list of ids is refused.
    pub(super) refuses_lists: bool,
    /// A search by one parameter beside the patient is refused.
    pub(super) one_at_a_time: bool,
    /// A longer list takes too long, but where it is only counted.
    pub(super) slow_above: usize,
    /// Exports are refused: today's was made, and one must name types.
    pub(super) exports: bool,
    /// The first of the Group's members are named by an identifier alone.
    pub(super) by_identifier: usize,
    /// And these, before them, by nothing that anybody has.
    pub(super) unnamed: usize,
    /// All patients from this one on have one identifier; 0: each has another one.
    pub(super) alike: usize,
    /// Groups of which the Group consists.
    pub(super) groups: usize,
    /// Encounters of this patient may not be searched for.
    pub(super) forbidden: &'static str,
    /// The location to which encounters refer is not there.
    pub(super) no_ward: bool,
    /// This patient is not there, though others speak of him.
    pub(super) hidden: &'static str,
    /// An encounter was amended.
    pub(super) moved: bool,
    /// It does not say whose it is.
    pub(super) orphan: bool,
    /// The latter observation of each patient names him by an identifier of this system.
    pub(super) by_system: &'static str,
    /// It declares no parameter of a search.
    pub(super) declares_none: bool,
    /// Of a list the first value is heeded, and no other.
    pub(super) first_only: bool,
    /// Few patients have anything, of the second half of a list the first ones nothing.
    pub(super) sparse: bool,
    /// A number alone is 0.
    pub(super) counts_nothing: bool,
    /// A number alone is refused.
    pub(super) no_summary: bool,
    /// No answer has a number.
    pub(super) uncounted: bool,
    /// A search by ids is refused.
    pub(super) no_ids: bool,
    /// The other one of these is refused.
    pub(super) method: &'static str,
    /// A search by organization, of which each has every tenth patient, is not heeded.
    pub(super) no_organizations: bool,
    /// Modifiers are not heeded.
    pub(super) no_modifiers: bool,
    /// Of several parameters the `first` or the `last` is heeded.
    pub(super) only: &'static str,
    /// What a search by an organization that is not there is answered with.
    pub(super) unknown: u16,
    /// So many members, of the last ones, were members until last year.
    pub(super) ended: usize,
    /// The code of all observations but those of the last patient by name; `-`: there are none.
    pub(super) others: &'static str,
}

pub(super) const PATIENTS: usize = 30;
/// The last patient by name.
pub(super) const LAST: usize = 9;
pub(super) const HIDDEN: [&str; 3] = ["suppressed", "security", "forbidden"];

/// Each patient with an encounter at the one location and two observations of different codes.
pub(super) fn truth(flaw: Flaw) -> Vec<Value> {
    let mut all = vec![json!({"resourceType": "Location", "id": "ward"})];
    for number in 0..PATIENTS {
        let subject = json!({"reference": format!("Patient/p{number}")});
        let observation = |code: &str| json!({"resourceType": "Observation", "id": format!("{code}{number}"), "status": "final", "subject": subject, "code": {"coding": [{"system": "urn:x", "code": code}]}});
        let identifier = if flaw.alike > 0 { number.min(flaw.alike) } else { number };
        all.push(json!({"resourceType": "Patient", "id": format!("p{number}"), "identifier": [{"system": "urn:mrn", "value": format!("m{identifier}")}]}));
        all.push(
            json!({"resourceType": "Encounter", "id": format!("e{number}"), "status": "finished", "subject": subject, "location": [{"location": {"reference": "Location/ward"}}]}),
        );
        let is_other = !flaw.others.is_empty() && number != LAST;
        if is_other && flaw.others == "-" {
            continue;
        }
        let mut former = observation("a");
        let mut latter = observation("b");
        if is_other {
            [&mut former, &mut latter].into_iter().for_each(|one| one["code"]["coding"][0]["code"] = json!(flaw.others));
        }
        if !flaw.by_system.is_empty() {
            latter["subject"] = json!({"identifier": {"system": flaw.by_system, "value": format!("m{number}")}});
        }
        all.extend([former, latter]);
    }
    all.extend((0..flaw.more).map(|number| json!({"resourceType": "Observation", "id": format!("m{number}"), "status": "final", "subject": {"reference": "Patient/p0"}})));
    for (second, resource) in all.iter_mut().enumerate() {
        resource["meta"] = json!({"versionId": "1", "lastUpdated": format!("2026-01-{:02}T10:00:{:02}.000Z", second / 60 + 1, second % 60)});
    }
    if let Some(last) = all.iter_mut().rev().find(|resource| flaw.amended && resource["id"] == "b29") {
        last["meta"] = json!({"versionId": "2", "lastUpdated": "2026-01-20T10:00:00.000Z"});
    }
    if let Some(moved) = all.iter_mut().find(|resource| flaw.moved && resource["id"] == "e3") {
        moved["meta"] = json!({"versionId": "2", "lastUpdated": "2026-01-20T10:00:00.000Z"});
    }
    if let Some(orphan) = all.iter_mut().find(|resource| flaw.orphan && resource["id"] == "e3") {
        orphan.as_object_mut().unwrap().remove("subject");
    }
    let few = ["Patient/p0", "Patient/p14", "Patient/p29", "Patient/p4"];
    all.retain(|resource| !flaw.sparse || resource["subject"]["reference"].as_str().is_none_or(|subject| few.contains(&subject)));
    all.retain(|resource| resource["resourceType"] != "Patient" || resource["id"] != flaw.hidden);
    all.retain(|resource| !flaw.no_ward || resource["id"] != "ward");
    all.retain(|resource| (0..flaw.gone).all(|number| resource["id"] != format!("b{number}")));
    all
}

pub(super) fn answer(flaw: Flaw, heard: &Heard, origin: &str) -> Said {
    let target = heard.target.strip_prefix("/outer").unwrap_or(&heard.target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut said = match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["metadata"] => {
            let one =
                |name: &str, own: &[&str]| json!({"type": name, "searchParam": own.iter().chain(&["_id", "_lastUpdated"]).map(|name| json!({"name": name})).collect::<Vec<_>>()});
            let mut types =
                json!([one("Patient", &["identifier"]), one("Location", &[]), one("Group", &[]), one("Encounter", &["patient"]), one("Observation", &["patient", "code"])]);
            if !flaw.files.is_empty() {
                types[2]["operation"] = json!([{"name": "export"}]);
            }
            if flaw.declares_none {
                types.as_array_mut().unwrap().iter_mut().for_each(|one| drop(one.as_object_mut().unwrap().remove("searchParam")));
            }
            let operations = if flaw.exports { json!([{"name": "export"}]) } else { json!([]) };
            json(json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"resource": types, "operation": operations}]}))
        }
        ["Group", "g"] => {
            let of_groups = (0..flaw.groups).map(|number| json!({"entity": {"reference": format!("Group/{number}")}}));
            let members: Vec<Value> = (0..PATIENTS - flaw.away).map(|number| member(flaw, number)).chain(of_groups).collect();
            json(json!({"resourceType": "Group", "id": "g", "member": members}))
        }
        ["Group", id] if flaw.groups > 0 => json(json!({"resourceType": "Group", "id": id})),
        ["$export"] | ["Patient", "$export"] if flaw.exports => {
            let code = if query.contains("_type=") { "business-rule" } else { "required" };
            said(400, "application/json", &json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code}]}).to_string())
        }
        [name] | [name, "_search"] if !flaw.method.is_empty() && flaw.method != heard.method && name.starts_with(char::is_uppercase) => said(405, "application/json", "{}"),
        [name, "_search"] => {
            if flaw.posts_nothing {
                json(json!({"resourceType": "Bundle", "type": "searchset", "total": 0}))
            } else {
                search(flaw, name, if flaw.posts_all { "" } else { &heard.body }, origin)
            }
        }
        [name] if name.starts_with(char::is_uppercase) => search(flaw, name, query, origin),
        ["Patient", "$export"] | ["Group", "g", "$export"] => Said { headers: vec![("content-location", format!("{origin}/outer/jobs/1"))], ..said(202, "application/json", "") },
        ["jobs", "1"] if heard.method == "GET" => {
            let files = ["Patient", "Encounter", "Observation"].map(|name| json!({"type": name, "url": format!("{}{name}", flaw.files)}));
            json(json!({"transactionTime": "2999-01-01T00:00:00Z", "requiresAccessToken": false, "output": files}))
        }
        ["files", name] => {
            let lines: String = truth(flaw)
                .iter()
                .filter(|resource| resource["resourceType"] == *name)
                .map(|resource| format!("{resource}\n"))
                .collect();
            said(200, "application/fhir+ndjson", &lines)
        }
        [name, id] => match truth(flaw).iter().find(|resource| resource["resourceType"] == *name && resource["id"] == *id) {
            Some(resource) => json(resource.clone()),
            None => said(404, "application/json", "{}"),
        },
        _ => said(404, "application/json", "{}"),
    };
    if flaw.marked {
        said.body.splice(0..0, *b"\xEF\xBB\xBF");
    }
    said
}

/// A member of the Group, however it is named.
pub(super) fn member(flaw: Flaw, number: usize) -> Value {
    match number {
        _ if number >= PATIENTS - flaw.ended => json!({"entity": {"reference": format!("Patient/p{number}")}, "period": {"end": "2025-12-31"}}),
        _ if number < flaw.unnamed => json!({"entity": {"type": "Patient", "display": "somebody"}}),
        _ if number < flaw.unnamed + flaw.by_identifier => json!({"entity": {"identifier": {"system": "urn:mrn", "value": format!("m{number}")}}}),
        _ => json!({"entity": {"reference": format!("Patient/p{number}")}}),
    }
}

pub(super) fn search(flaw: Flaw, name: &str, query: &str, origin: &str) -> Said {
    let mut asked: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let is_of_answers = |name: &str| ["_count", "_offset", "_summary", "_total", "_sort"].contains(&name);
    match asked.iter().filter(|(name, _)| !is_of_answers(name)).count() {
        2 if flaw.only == "first" => drop(asked.remove(1)),
        2 if flaw.only == "last" => drop(asked.remove(0)),
        _ => {}
    }
    let value = |own: &str| asked.iter().find(|(name, _)| name == own).map(|(_, value)| value.as_str());
    let number = |own: &str| value(own).and_then(|value| value.parse::<usize>().ok());
    let refuse = |code: &str, words: &str| {
        said(400, "application/json", &json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code, "diagnostics": words}]}).to_string())
    };
    if flaw.page_max > 0 && number("_count").is_some_and(|count| count > flaw.page_max) {
        return refuse("value", "_count is too large");
    }
    if flaw.of_patients && name != "Location" && value("patient").is_none() && value("_id").is_none() {
        return refuse("required", "a patient");
    }
    if name == "Encounter" && value("patient").is_some_and(|ids| ids.split(',').any(|id| id == flaw.forbidden)) && (!flaw.refuses_lists || value("patient") == Some(flaw.forbidden))
    {
        return said(403, "application/json", &json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "forbidden"}]}).to_string());
    }
    if flaw.unknown > 0 && query.contains("organization=") && query.contains("watershed-probe") {
        return said(flaw.unknown, "application/json", "{}");
    }
    let ids = value("patient").or_else(|| value("_id")).map_or(0, |ids| ids.split(',').count());
    if flaw.refuses_lists && ids > 1 {
        return refuse("value", "a single reference");
    }
    if flaw.no_ids && value("_id").is_some() || (flaw.no_summary || flaw.uncounted) && value("_summary").is_some() {
        return refuse("not-supported", "such a search");
    }
    if flaw.one_at_a_time && value("patient").is_some() && value("code").is_some() {
        return refuse("invalid", "this combination of parameters is not supported");
    }
    if flaw.slow_above > 0 && ids > flaw.slow_above && value("_summary").is_none() {
        return said(504, "text/html", "");
    }
    let mut found: Vec<Value> = truth(flaw)
        .into_iter()
        .filter(|resource| resource["resourceType"] == name && asked.iter().all(|(own, value)| has(flaw, resource, own, value)))
        .collect();
    if flaw.cut > 0 {
        found.truncate(flaw.cut);
    }
    let total = found.len();
    if value("_summary") == Some("count") {
        return json(json!({"resourceType": "Bundle", "type": "searchset", "total": if flaw.counts_nothing { 0 } else { total }}));
    }
    // Of what may not be seen there is no number either.
    if !flaw.warns.is_empty() && !HIDDEN.contains(&flaw.warns) && name == "Observation" {
        found.truncate(total * 2 / 3);
    }
    let (offset, count) = (number("_offset").unwrap_or(0), number("_count").unwrap_or(20));
    let page: Vec<Value> = found
        .iter()
        .skip(offset)
        .take(count)
        .map(|resource| json!({"resource": resource, "search": {"mode": "match"}}))
        .collect();
    let is_last = offset + count >= found.len();
    let mut bundle = json!({"resourceType": "Bundle", "type": "searchset", "total": if flaw.overstates || flaw.estimates && !is_last { total + 7 } else { total }, "entry": page});
    if flaw.uncounted {
        bundle.as_object_mut().unwrap().remove("total");
    }
    if !flaw.warns.is_empty() && name == "Observation" {
        bundle["total"] = json!(found.len());
        let outcome = json!({"resource": {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": flaw.warns}]}, "search": {"mode": "outcome"}});
        bundle["entry"].as_array_mut().unwrap().push(outcome);
    }
    if !is_last {
        let mut rest = url::form_urlencoded::Serializer::new(String::new());
        rest.extend_pairs(asked.iter().filter(|(name, _)| name != "_offset"))
            .append_pair("_offset", &(offset + count).to_string());
        let base = if flaw.inner { "http://inner:8080/deep/fhir" } else { origin };
        bundle["link"] = json!([{"relation": "next", "url": format!("{base}/{name}?{}", rest.finish())}]);
    }
    let mut said = json(bundle);
    if flaw.latin {
        let body = String::from_utf8(said.body).unwrap().replace("\"id\":\"a7\"", "\"id\":\"a7\",\"note\":[{\"text\":\"caf%\"}]");
        said.body = body.bytes().map(|byte| if byte == b'%' { 0xE9 } else { byte }).collect();
    }
    said
}

/// Whether a resource has what a parameter asks for.
pub(super) fn has(flaw: Flaw, resource: &Value, parameter: &str, value: &str) -> bool {
    let list: Vec<&str> = match (flaw.heeded, value.split(',').count()) {
        _ if flaw.first_only => value.split(',').take(1).collect(),
        (0, _) => value.split(',').collect(),
        (1, 2..) => vec![value],
        (heeded, _) => value.split(',').take(heeded).collect(),
    };
    let text = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let is_logical = |one: &str| !flaw.by_system.is_empty() && text("/subject/identifier/value").strip_prefix('m') == one.strip_prefix('p');
    match parameter {
        "_id" => list.contains(&text("/id")),
        "organization" | "organization:not" if flaw.no_organizations => true,
        "organization" => list.contains(&format!("Organization/{}", text("/id").chars().last().unwrap_or_default()).as_str()),
        "organization:not" => flaw.no_modifiers || !has(flaw, resource, "organization", value),
        "identifier" => list.contains(&format!("{}|{}", text("/identifier/0/system"), text("/identifier/0/value")).as_str()),
        "patient" => list
            .iter()
            .any(|one| text("/subject/reference") == if flaw.typed { (*one).to_owned() } else { format!("Patient/{one}") } || is_logical(one)),
        "code" => list.contains(&format!("urn:x|{}", text("/code/coding/0/code")).as_str()),
        "_lastUpdated" if flaw.no_times => false,
        "_lastUpdated" => match value.split_at(2) {
            ("ge", at) => text("/meta/lastUpdated") >= at,
            ("lt", at) => text("/meta/lastUpdated") < at,
            other => panic!("{other:?}"),
        },
        _ => true,
    }
}

pub(super) struct Site {
    pub(super) server: Small,
    /// What the server does from now on.
    pub(super) flaw: Arc<Mutex<Flaw>>,
    pub(super) options: Options,
    pub(super) needs: Vec<Need>,
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Arc<Store>,
    pub(super) key: Key,
}

impl Site {
    pub(super) async fn of(flaw: Flaw, group: &str) -> Site {
        let flaw = Arc::new(Mutex::new(flaw));
        let shared = Arc::clone(&flaw);
        let server = Small::start(move |heard, origin| answer(*shared.lock().unwrap(), heard, origin)).await;
        let mut options = Options { url: server.origin.clone(), mode: Mode::Search, group: group.to_owned(), page_size: 40, ..Options::default() };
        options.tuning.retry_first_ms = 1;
        let needs = ["Patient", "Encounter", "Observation", "Location"].map(Need::all).into();
        Site {
            server,
            flaw,
            options,
            needs,
            folder: tempfile::tempdir().unwrap(),
            store: Arc::new(Store::open_in_memory().unwrap()),
            key: Key::generate().unwrap(),
        }
    }

    pub(super) async fn connect(&self) -> Source {
        let types: BTreeSet<String> = self.needs.iter().map(|need| need.resource_type.clone()).collect();
        Source::connect(&self.options, None, &types, Arc::new(SystemClock)).await.unwrap()
    }

    pub(super) async fn check(&self) -> Vec<Fact> {
        let source = self.connect().await;
        probe(&source, &plan(&self.needs, &source.capability, &self.options)).await
    }

    pub(super) fn becomes(&self, change: impl FnOnce(&mut Flaw)) {
        change(&mut self.flaw.lock().unwrap());
    }

    /// Measures ask for these codes of Observation.
    pub(super) fn asks_for_codes(&mut self, codes: &[String]) {
        let observations = self.needs.iter_mut().find(|need| need.resource_type == "Observation").unwrap();
        observations.codes = codes.iter().map(|code| format!("urn:x|{code}")).collect();
    }

    /// The latest version of an observation that is stored.
    pub(super) fn version(&self, id: &str) -> Option<String> {
        let snapshot = Snapshot::open(self.folder.path(), Arc::clone(&self.store), self.key.clone(), 4).unwrap();
        let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap());
        let mut resources = patients.flat_map(|patient| patient.lines).map(|line| serde_json::from_slice::<Value>(&line).unwrap());
        let own = resources.rfind(|resource| resource["id"] == id)?;
        Some(own["meta"]["versionId"].as_str()?.to_owned())
    }

    /// What a pull came to, and how many there are of each type then.
    pub(super) async fn pull(&self, facts: &[Fact]) -> (PullOutcome, BTreeMap<String, u64>) {
        self.try_pull(facts).await.unwrap()
    }

    pub(super) async fn try_pull(&self, facts: &[Fact]) -> Result<(PullOutcome, BTreeMap<String, u64>), SourceError> {
        let mut source = self.connect().await;
        source.capability.learn(facts);
        let plan = plan(&self.needs, &source.capability, &self.options);
        let snapshot = Snapshot::open(self.folder.path(), Arc::clone(&self.store), self.key.clone(), 4).unwrap();
        let outcome = pull_for(None, &source, &plan, &snapshot, &SystemClock, &Silent).await?;
        Ok((outcome, snapshot.counts().unwrap()))
    }
}

pub(super) fn found(facts: &[Fact], about: &str, what: &str) -> Found {
    facts
        .iter()
        .find(|fact| fact.about == about && fact.what == what)
        .unwrap_or_else(|| panic!("nothing of {about} {what} in {facts:#?}"))
        .found
}

pub(super) fn all() -> BTreeMap<String, u64> {
    of(PATIENTS)
}

/// How many there are of each type of so many patients.
pub(super) fn of(patients: usize) -> BTreeMap<String, u64> {
    let patients = patients as u64;
    [("Encounter", patients), ("Location", 1), ("Observation", 2 * patients), ("Patient", patients)]
        .map(|(name, number)| (name.to_owned(), number))
        .into()
}

/// The same of what a server has.
pub(super) fn counts_of(flaw: Flaw) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for resource in truth(flaw) {
        *counts.entry(resource["resourceType"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

pub(super) fn reasons(outcome: &PullOutcome) -> String {
    outcome.gaps.iter().map(|gap| format!("{}: {}\n", gap.resource_type, gap.reason)).collect()
}
