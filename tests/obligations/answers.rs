//! Servers whose answers can be believed, and are wrong: each is a small one with one flaw. A pull has everything nevertheless, or
//! says what it lacks.

use super::bench::untimed;
use super::small::{Heard, Said, Small, json, said};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use watershed::http::SystemClock;
use watershed::snapshot::{Key, Snapshot};
use watershed::source::duty::Code;
use watershed::source::probe::{AT_ONCE, Fact, Found, SERVER, findings, keep, kept_of, learn, probe};
use watershed::source::{Mode, Need, Options, PullOutcome, Silent, Source, SourceError, plan, pull_for};
use watershed::store::Store;

/// What a server does otherwise than it should.
#[derive(Clone, Copy, Default)]
struct Flaw {
    /// Values of a list that are heeded: 0 all, 1 none of a list.
    heeded: usize,
    /// Patients are known by `Patient/` and their id only.
    typed: bool,
    /// The body of a search by POST is dropped: nothing is found.
    posts_nothing: bool,
    /// Result, total and count end here.
    cut: usize,
    /// A warning of this code stands beside the data, of which a third is left out.
    warns: &'static str,
    /// A time of change finds nothing.
    no_times: bool,
    /// The total is too high, but on the last page.
    estimates: bool,
    /// A note of one resource is in Latin-1.
    latin: bool,
    /// A larger page is refused.
    page_max: usize,
    /// Everything begins with a byte order mark.
    marked: bool,
    /// A search must name a patient.
    of_patients: bool,
    /// Links are those of the server behind its proxy.
    inner: bool,
    /// Further observations of one patient.
    more: usize,
    /// The body of a search by POST is dropped: everything is found.
    posts_all: bool,
    /// Observations that are gone.
    gone: usize,
    /// An observation of the last patient was amended.
    amended: bool,
    /// Patients who are not in the Group, of the last ones.
    away: usize,
    /// Where files of an export are, below the base.
    files: &'static str,
    /// A list of ids is refused.
    refuses_lists: bool,
    /// A search by one parameter beside the patient is refused.
    one_at_a_time: bool,
    /// A longer list takes too long, but where it is only counted.
    slow_above: usize,
    /// Exports are refused: today's was made, and one must name types.
    exports: bool,
    /// The first of the Group's members are named by an identifier alone.
    by_identifier: usize,
    /// And these, before them, by nothing that anybody has.
    unnamed: usize,
    /// All patients from this one on have one identifier; 0: each has another one.
    alike: usize,
    /// Groups of which the Group consists.
    groups: usize,
    /// Encounters of this patient may not be searched for.
    forbidden: &'static str,
    /// The location to which encounters refer is not there.
    no_ward: bool,
    /// An encounter was amended.
    moved: bool,
    /// It does not say whose it is.
    orphan: bool,
    /// The latter observation of each patient names him by an identifier of this system.
    by_system: &'static str,
    /// It declares no parameter of a search.
    declares_none: bool,
    /// Of a list the first value is heeded, and no other.
    first_only: bool,
    /// Few patients have anything, of the second half of a list the first ones nothing.
    sparse: bool,
    /// A number alone is refused.
    no_summary: bool,
    /// No answer has a number.
    uncounted: bool,
    /// A search by ids is refused.
    no_ids: bool,
    /// The other one of these is refused.
    method: &'static str,
    /// So many members, of the last ones, were members until last year.
    ended: usize,
}

const PATIENTS: usize = 30;
const HIDDEN: [&str; 3] = ["suppressed", "security", "forbidden"];

/// Each patient with an encounter at the one location and two observations of different codes.
fn truth(flaw: Flaw) -> Vec<Value> {
    let mut all = vec![json!({"resourceType": "Location", "id": "ward"})];
    for number in 0..PATIENTS {
        let subject = json!({"reference": format!("Patient/p{number}")});
        let observation = |code: &str| json!({"resourceType": "Observation", "id": format!("{code}{number}"), "status": "final", "subject": subject, "code": {"coding": [{"system": "urn:x", "code": code}]}});
        let identifier = if flaw.alike > 0 { number.min(flaw.alike) } else { number };
        all.push(json!({"resourceType": "Patient", "id": format!("p{number}"), "identifier": [{"system": "urn:mrn", "value": format!("m{identifier}")}]}));
        all.push(
            json!({"resourceType": "Encounter", "id": format!("e{number}"), "status": "finished", "subject": subject, "location": [{"location": {"reference": "Location/ward"}}]}),
        );
        let mut latter = observation("b");
        if !flaw.by_system.is_empty() {
            latter["subject"] = json!({"identifier": {"system": flaw.by_system, "value": format!("m{number}")}});
        }
        all.extend([observation("a"), latter]);
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
    all.retain(|resource| !flaw.no_ward || resource["id"] != "ward");
    all.retain(|resource| (0..flaw.gone).all(|number| resource["id"] != format!("b{number}")));
    all
}

fn answer(flaw: Flaw, heard: &Heard, origin: &str) -> Said {
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
fn member(flaw: Flaw, number: usize) -> Value {
    match number {
        _ if number >= PATIENTS - flaw.ended => json!({"entity": {"reference": format!("Patient/p{number}")}, "period": {"end": "2025-12-31"}}),
        _ if number < flaw.unnamed => json!({"entity": {"type": "Patient", "display": "somebody"}}),
        _ if number < flaw.unnamed + flaw.by_identifier => json!({"entity": {"identifier": {"system": "urn:mrn", "value": format!("m{number}")}}}),
        _ => json!({"entity": {"reference": format!("Patient/p{number}")}}),
    }
}

fn search(flaw: Flaw, name: &str, query: &str, origin: &str) -> Said {
    let asked: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
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
        return json(json!({"resourceType": "Bundle", "type": "searchset", "total": total}));
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
    let mut bundle = json!({"resourceType": "Bundle", "type": "searchset", "total": if flaw.estimates && !is_last { total + 7 } else { total }, "entry": page});
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
fn has(flaw: Flaw, resource: &Value, parameter: &str, value: &str) -> bool {
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

struct Site {
    server: Small,
    /// What the server does from now on.
    flaw: Arc<Mutex<Flaw>>,
    options: Options,
    needs: Vec<Need>,
    folder: tempfile::TempDir,
    store: Arc<Store>,
    key: Key,
}

impl Site {
    async fn of(flaw: Flaw, group: &str) -> Site {
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

    async fn connect(&self) -> Source {
        let types: BTreeSet<String> = self.needs.iter().map(|need| need.resource_type.clone()).collect();
        Source::connect(&self.options, None, &types, Arc::new(SystemClock)).await.unwrap()
    }

    async fn check(&self) -> Vec<Fact> {
        let source = self.connect().await;
        probe(&source, &plan(&self.needs, &source.capability, &self.options)).await
    }

    fn becomes(&self, change: impl FnOnce(&mut Flaw)) {
        change(&mut self.flaw.lock().unwrap());
    }

    /// Measures ask for these codes of Observation.
    fn asks_for_codes(&mut self, codes: &[String]) {
        let observations = self.needs.iter_mut().find(|need| need.resource_type == "Observation").unwrap();
        observations.codes = codes.iter().map(|code| format!("urn:x|{code}")).collect();
    }

    /// The latest version of an observation that is stored.
    fn version(&self, id: &str) -> Option<String> {
        let snapshot = Snapshot::open(self.folder.path(), Arc::clone(&self.store), self.key.clone(), 4).unwrap();
        let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap());
        let mut resources = patients.flat_map(|patient| patient.lines).map(|line| serde_json::from_slice::<Value>(&line).unwrap());
        let own = resources.rfind(|resource| resource["id"] == id)?;
        Some(own["meta"]["versionId"].as_str()?.to_owned())
    }

    /// What a pull came to, and how many there are of each type then.
    async fn pull(&self, facts: &[Fact]) -> (PullOutcome, BTreeMap<String, u64>) {
        self.try_pull(facts).await.unwrap()
    }

    async fn try_pull(&self, facts: &[Fact]) -> Result<(PullOutcome, BTreeMap<String, u64>), SourceError> {
        let mut source = self.connect().await;
        source.capability.learn(facts);
        let plan = plan(&self.needs, &source.capability, &self.options);
        let snapshot = Snapshot::open(self.folder.path(), Arc::clone(&self.store), self.key.clone(), 4).unwrap();
        let outcome = pull_for(None, &source, &plan, &snapshot, &SystemClock, &Silent).await?;
        Ok((outcome, snapshot.counts().unwrap()))
    }
}

fn found(facts: &[Fact], about: &str, what: &str) -> Found {
    facts
        .iter()
        .find(|fact| fact.about == about && fact.what == what)
        .unwrap_or_else(|| panic!("nothing of {about} {what} in {facts:#?}"))
        .found
}

fn all() -> BTreeMap<String, u64> {
    of(PATIENTS)
}

/// How many there are of each type of so many patients.
fn of(patients: usize) -> BTreeMap<String, u64> {
    let patients = patients as u64;
    [("Encounter", patients), ("Location", 1), ("Observation", 2 * patients), ("Patient", patients)]
        .map(|(name, number)| (name.to_owned(), number))
        .into()
}

/// The same of what a server has.
fn counts_of(flaw: Flaw) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for resource in truth(flaw) {
        *counts.entry(resource["resourceType"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn reasons(outcome: &PullOutcome) -> String {
    outcome.gaps.iter().map(|gap| format!("{}: {}\n", gap.resource_type, gap.reason)).collect()
}

#[tokio::test]
async fn lists_that_are_taken_literally_cut_or_want_the_type_are_found_out_and_nothing_is_lost() {
    let flaws = [
        Flaw::default(),
        Flaw { heeded: 1, ..Flaw::default() },
        Flaw { heeded: 10, ..Flaw::default() },
        Flaw { typed: true, ..Flaw::default() },
        Flaw { heeded: 1, typed: true, ..Flaw::default() },
    ];
    for (number, flaw) in flaws.into_iter().enumerate() {
        for group in ["g", ""] {
            let mut site = Site::of(flaw, group).await;
            site.needs
                .iter_mut()
                .filter(|need| need.resource_type == "Observation")
                .for_each(|need| need.codes = ["urn:x|a", "urn:x|b"].map(str::to_owned).into());
            for facts in [Vec::new(), site.check().await] {
                let asked = site.server.heard().len();
                let (outcome, counts) = site.pull(&facts).await;
                assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{number} `{group}`");
                assert!(flaw.heeded > 0 || flaw.typed || site.server.heard().len() - asked < 40, "an honest server is asked {} times", site.server.heard().len() - asked);
                // The next one begins anew.
                site.store = Arc::new(Store::open_in_memory().unwrap());
                site.folder = tempfile::tempdir().unwrap();
            }
            assert!(
                site.server
                    .heard()
                    .iter()
                    .all(|heard| heard.target.contains("_offset=") || !heard.target.contains("patient=p") && !heard.target.contains("patient=P") && !heard.target.contains("_id=p")),
                "a patient stands in an address"
            );
        }
    }
}

/// Of few patients there is anything, so that the numbers of shorter lists agree with those of longer ones.
#[tokio::test]
async fn lists_of_which_the_first_values_alone_are_heeded_are_found_out_whoever_has_anything() {
    let first = Flaw { first_only: true, sparse: true, ..Flaw::default() };
    let ten = Flaw { heeded: 10, sparse: true, ..Flaw::default() };
    let flaws = [
        first,
        Flaw { method: "GET", ..first },
        Flaw { uncounted: true, ..first },
        Flaw { no_ids: true, uncounted: true, ..ten },
        Flaw { no_ids: true, ..ten },
        Flaw { sparse: true, ..Flaw::default() },
    ];
    for (number, flaw) in flaws.into_iter().enumerate() {
        for is_checked in [false, true] {
            let site = Site::of(flaw, "g").await;
            let facts = if is_checked { site.check().await } else { Vec::new() };
            for night in [1, 2] {
                let (outcome, counts) = site.pull(&facts).await;
                assert_eq!((reasons(&outcome).as_str(), counts), ("", counts_of(flaw)), "{number} {is_checked} {night}");
            }
        }
    }
}

#[tokio::test]
async fn lists_of_codes_of_which_the_first_alone_is_heeded_are_found_out_whichever_is_anywhere() {
    for codes in [&["a", "aa", "b"][..], &["0", "a", "b", "c", "d", "e"]] {
        let mut site = Site::of(Flaw { first_only: true, ..Flaw::default() }, "").await;
        site.asks_for_codes(&codes.iter().map(|code| (*code).to_owned()).collect::<Vec<_>>());
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{codes:?}");
    }
}

#[tokio::test]
async fn a_check_looks_at_lists_by_get_where_searches_by_post_are_refused() {
    let site = Site::of(Flaw { first_only: true, method: "GET", ..Flaw::default() }, "g").await;
    assert_eq!(found(&site.check().await, "Observation", "code list"), Found::Wrong);
}

#[tokio::test]
async fn a_server_that_searches_by_post_only_is_read() {
    for group in ["", "g"] {
        let site = Site::of(Flaw { method: "POST", ..Flaw::default() }, group).await;
        assert_eq!(found(&site.check().await, "Encounter", "search"), Found::Works);
        for gone in [0, 2] {
            site.becomes(|flaw| flaw.gone = gone);
            let (outcome, counts) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), counts["Observation"], outcome.removed), ("", (2 * PATIENTS - gone) as u64, gone as u64), "`{group}`");
        }
        // A link is got first.
        let is_first = |heard: &&Heard| heard.method == "GET" && heard.target.contains("_count=40") && !heard.target.contains("_offset=");
        let refused = site.server.heard().iter().filter(is_first).count();
        assert!(refused <= 8, "it is remembered: asked {refused} times");
    }
}

/// Whose data are taken stands in addresses then, as in every search.
#[tokio::test]
async fn a_total_is_taken_where_a_number_alone_is_refused_and_so_are_searches_by_post() {
    let site = Site::of(Flaw { method: "GET", no_summary: true, ..Flaw::default() }, "g").await;
    for gone in [0, 2] {
        site.becomes(|flaw| flaw.gone = gone);
        let (outcome, _) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), outcome.removed), ("", gone as u64));
        let told: Vec<&str> = outcome.notes.iter().map(|note| note.reason.as_str()).filter(|reason| reason.contains("does not count")).collect();
        assert_eq!(told, [""; 0]);
    }
}

#[tokio::test]
async fn who_was_a_member_until_a_day_that_is_past_is_let_go() {
    let site = Site::of(Flaw::default(), "g").await;
    for (ended, removed) in [(0, 0), (5, 20), (5, 0)] {
        site.becomes(|flaw| flaw.ended = ended);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts, outcome.removed), ("", of(PATIENTS - ended), removed));
    }
}

#[tokio::test]
async fn the_night_after_knows_of_lists_too() {
    for heeded in [1, 10, 27] {
        let site = Site::of(Flaw { heeded, ..Flaw::default() }, "g").await;
        site.pull(&[]).await;
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.full, outcome.removed, reasons(&outcome).as_str(), counts), (false, 0, "", all()), "{heeded}");
    }
}

/// Until everything is read or a check looks, longer lists are not sent; then a server that has become better is asked as any other.
#[tokio::test]
async fn what_a_night_found_of_lists_the_next_ones_know_until_everything_is_read() {
    let flaws = [(1, Flaw { refuses_lists: true, ..Flaw::default() }), (10, Flaw { heeded: 10, ..Flaw::default() }), (5, Flaw { slow_above: 5, ..Flaw::default() })];
    for (most, flaw) in flaws {
        let mut site = Site::of(flaw, "g").await;
        let (file, now) = (site.folder.path().join("capability.json"), jiff::Timestamp::UNIX_EPOCH);
        let mut requests = Vec::new();
        for full in [true, false, false, true, false] {
            // A month later the server takes any list.
            site.becomes(|flaw| {
                if full && !requests.is_empty() {
                    *flaw = Flaw::default()
                }
            });
            site.options.tuning.full_every_days = if full { 0 } else { 7 };
            let source = site.connect().await;
            let asked = site.server.heard().len();
            let (outcome, counts) = site.pull(&kept_of(&file, &source).unwrap()).await;
            assert_eq!((outcome.full, reasons(&outcome).as_str(), counts), (full, "", all()), "{most}");
            learn(&file, &source, &outcome, now).unwrap();
            let heard = site.server.heard().split_off(asked);
            let patients = |one: &Heard| one.field("patient").or_else(|| one.field("_id")).map_or(0, |list| list.split(',').count());
            requests.push((heard.len(), heard.iter().any(|one| patients(one) > most)));
        }
        let is_long: Vec<bool> = requests.iter().map(|(_, is_long)| *is_long).collect();
        assert_eq!(is_long, [true, false, false, true, true], "{most}: {requests:?}");
        assert!(requests[4].0 < requests[1].0, "{most}: {requests:?}");
    }
    // A check, which looks at lists itself.
    let site = Site::of(Flaw { refuses_lists: true, ..Flaw::default() }, "g").await;
    let (file, source) = (site.folder.path().join("capability.json"), site.connect().await);
    let (outcome, _) = site.pull(&[]).await;
    learn(&file, &source, &outcome, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let of_lists = || {
        kept_of(&file, &source)
            .unwrap()
            .iter()
            .filter(|fact| fact.what.ends_with(AT_ONCE))
            .map(|fact| format!("{} {}", fact.about, fact.what))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_lists(), ["Encounter patient values at once", "Observation patient values at once", "Patient _id values at once"]);
    site.becomes(|flaw| *flaw = Flaw::default());
    keep(&file, &source.name(), site.check().await, jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(of_lists(), Vec::<String>::new());
}

/// Where everything comes again each night, what refers to nothing does too.
#[tokio::test]
async fn what_was_not_there_is_asked_for_again_when_what_refers_to_it_changes_or_everything_is_read() {
    for group in ["g", ""] {
        let mut site = Site::of(Flaw { files: "../files/", no_ward: true, ..Flaw::default() }, group).await;
        site.options.mode = Mode::Bulk;
        let mut asked = Vec::new();
        for (full_every_days, is_moved) in [(7, false), (7, false), (7, true), (7, true), (0, true)] {
            site.options.tuning.full_every_days = full_every_days;
            site.becomes(|flaw| flaw.moved = is_moved);
            let before = site.server.count("/Location");
            let (outcome, counts) = site.pull(&[]).await;
            assert!(outcome.complete && outcome.received["Encounter"] >= PATIENTS as u64 && !counts.contains_key("Location"), "{}", reasons(&outcome));
            asked.push((outcome.full, site.server.count("/Location") - before));
        }
        let expected = [(true, true), (false, false), (false, true), (false, false), (true, true)];
        assert_eq!(asked.iter().map(|(full, asked)| (*full, *asked > 0)).collect::<Vec<_>>(), expected, "`{group}`: {asked:?}");
    }
}

#[tokio::test]
async fn a_check_finds_lists_that_are_not_heeded_and_names_nobody_in_an_address() {
    let site = Site::of(Flaw { heeded: 10, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    for (about, what) in [("Patient", "_id list"), ("Observation", "patient list"), ("Observation", "code list"), ("Encounter", "patient list")] {
        assert_eq!(found(&facts, about, what), Found::Wrong, "{about} {what}");
    }
    assert!(
        findings(&facts, &site.options)
            .iter()
            .any(|one| one.about == "Encounter" && one.says.starts_with("a list of values of `patient` is not heeded"))
    );
    let honest = Site::of(Flaw::default(), "g").await.check().await;
    assert_eq!((found(&honest, "Patient", "_id list"), found(&honest, "Observation", "patient list")), (Found::Works, Found::Works));
}

#[tokio::test]
async fn a_search_by_post_that_is_answered_with_nothing_is_not_believed() {
    let site = Site::of(Flaw { posts_nothing: true, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    assert_eq!(found(&facts, SERVER, "search by POST"), Found::Wrong);
    assert!(findings(&facts, &site.options).iter().any(|one| one.says.starts_with("searches by POST do not work")));
    for facts in [&facts[..], &[]] {
        let site = Site::of(Flaw { posts_nothing: true, ..Flaw::default() }, "g").await;
        let (outcome, counts) = site.pull(facts).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    }
}

#[tokio::test]
async fn a_result_that_is_cut_with_its_number_at_a_very_round_one_is_read_in_parts() {
    let mut site = Site::of(Flaw { cut: 1_000, more: 1_300, ..Flaw::default() }, "").await;
    site.options.page_size = 500;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts["Observation"]), ("", 1_360));
}

#[tokio::test]
async fn a_warning_that_not_all_may_have_come_is_a_gap() {
    for warns in ["incomplete", "timeout", "throttled", "too-costly"] {
        let (outcome, _) = Site::of(Flaw { warns, ..Flaw::default() }, "").await.pull(&[]).await;
        assert!(reasons(&outcome).contains(&format!("Observation: the server reports that not all may have come ({warns})")), "{}", reasons(&outcome));
    }
}

#[tokio::test]
async fn what_was_missing_of_one_type_is_all_asked_for_in_the_next_night() {
    let site = Site::of(Flaw { warns: "throttled", ..Flaw::default() }, "").await;
    let (first, counts) = site.pull(&[]).await;
    assert!(first.full && counts["Observation"] < all()["Observation"]);
    site.becomes(|flaw| flaw.warns = "");
    let (next, counts) = site.pull(&[]).await;
    assert_eq!((next.full, reasons(&next).as_str(), counts), (false, "", all()));
    let (quiet, _) = site.pull(&[]).await;
    assert!(!quiet.full && quiet.complete && quiet.received["Observation"] < all()["Observation"], "{:?}", quiet.received);
}

#[tokio::test]
async fn what_this_client_may_not_see_is_a_gap_until_a_person_accepts_it() {
    for warns in HIDDEN {
        let mut site = Site::of(Flaw { warns, ..Flaw::default() }, "").await;
        let (outcome, counts) = site.pull(&[]).await;
        let expected = format!("Observation: Observation: the server leaves out what this client may not see ({warns})");
        assert!(!outcome.complete && reasons(&outcome).contains(&expected), "{}", reasons(&outcome));
        assert_eq!(counts, all());
        // All of it is asked for again, and what has changed of the others.
        let (again, _) = site.pull(&[]).await;
        assert_eq!((again.full, reasons(&again), again.received["Observation"]), (false, reasons(&outcome), counts["Observation"]), "{warns}");
        assert!(again.received["Encounter"] < counts["Encounter"], "{warns}: {:?}", again.received);
        for accepts_loss in [true, false] {
            site.options.tuning.accepts_loss = accepts_loss;
            let (outcome, _) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), outcome.full), ("", accepts_loss), "{warns}");
        }
    }
}

/// A night in which something else is wrong with the type cannot tell; one that reads all of it can.
#[tokio::test]
async fn what_a_person_accepted_is_forgotten_only_when_it_is_so_no_more() {
    for (warns, parameters) in [("suppressed", &[][..]), ("", &["code=urn:x|a"])] {
        let mut site = Site::of(Flaw { warns, ..Flaw::default() }, "").await;
        let narrowed = parameters.first().map(|_| ("Observation".to_owned(), parameters.iter().map(|one| (*one).to_owned()).collect()));
        site.options.parameters.extend(narrowed);
        site.options.tuning.full_every_days = 0;
        site.options.tuning.accepts_loss = true;
        assert_eq!(reasons(&site.pull(&[]).await.0), "", "{warns}");
        site.options.tuning.accepts_loss = false;
        site.becomes(|flaw| flaw.warns = "throttled");
        for _ in 0..2 {
            let (bad, _) = site.pull(&[]).await;
            assert!(bad.full && reasons(&bad).contains("(throttled)") && bad.gaps.len() == 1, "{}", reasons(&bad));
        }
        site.becomes(|flaw| flaw.warns = warns);
        let (healed, _) = site.pull(&[]).await;
        assert_eq!((healed.full, reasons(&healed).as_str()), (true, ""), "{warns}");
    }
    let mut site = Site::of(Flaw { warns: "suppressed", ..Flaw::default() }, "").await;
    site.options.tuning.full_every_days = 0;
    for (accepts_loss, warns, expected) in [(true, "suppressed", true), (false, "", true), (false, "suppressed", false)] {
        site.options.tuning.accepts_loss = accepts_loss;
        site.becomes(|flaw| flaw.warns = warns);
        assert_eq!(site.pull(&[]).await.0.complete, expected, "{accepts_loss} `{warns}`");
    }
}

#[tokio::test]
async fn a_patient_who_may_not_be_asked_for_is_the_only_one_who_is_missed() {
    // Where each is asked for alone, and where only the last one is.
    for (refuses_lists, forbidden, at_once) in [(true, "p0", 25), (false, "p9", 29)] {
        let mut site = Site::of(Flaw { refuses_lists, forbidden, ..Flaw::default() }, "g").await;
        site.options.tuning.patients_per_query = at_once;
        for _ in 0..2 {
            let (outcome, counts) = site.pull(&[]).await;
            let expected = BTreeMap::from([("Encounter".to_owned(), PATIENTS as u64 - 1)]);
            assert_eq!(counts, all().into_iter().chain(expected).collect(), "{forbidden}: {}", reasons(&outcome));
            assert!(outcome.gaps.len() == 1 && reasons(&outcome).contains("the server answered 403 (forbidden)"), "{}", reasons(&outcome));
        }
    }
}

#[tokio::test]
async fn of_whom_the_group_does_not_name_nothing_is_stored_whatever_its_export_brings() {
    let mut site = Site::of(Flaw { files: "../files/", away: 5, ..Flaw::default() }, "g").await;
    site.options.mode = Mode::Bulk;
    for full_every_days in [7, 7, 7, 0, 7] {
        site.options.tuning.full_every_days = full_every_days;
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", of(PATIENTS - 5)));
        let told = outcome
            .notes
            .iter()
            .filter(|note| note.reason.starts_with("the export brought 5 patients whom the Group does not name"));
        assert_eq!(told.count(), 1, "{:?}", outcome.notes);
    }
    site.becomes(|flaw| flaw.away = 0);
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((outcome.full, reasons(&outcome).as_str(), counts), (false, "", all()));
    site.becomes(|flaw| flaw.away = 5);
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((outcome.full, reasons(&outcome).as_str(), counts, outcome.removed), (false, "", of(PATIENTS - 5), 20));
}

#[tokio::test]
async fn members_who_are_named_by_an_identifier_are_those_who_have_it() {
    // Where lists are heeded, and where they are not.
    for (mode, heeded) in [(Mode::Search, 0), (Mode::Search, 1), (Mode::Bulk, 0)] {
        let mut site = Site::of(Flaw { by_identifier: 10, files: "../files/", heeded, ..Flaw::default() }, "g").await;
        site.options.mode = mode;
        for _ in 0..2 {
            let (outcome, counts) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{mode:?} {heeded}");
        }
        assert_eq!(site.server.count("identifier="), 0, "no identifier stands in an address");
    }
}

#[tokio::test]
async fn members_whose_names_lead_nowhere_are_told_and_meanwhile_nobody_is_let_go() {
    type Case = (fn(&mut Flaw), &'static str);
    let cases: [Case; 3] = [
        (|flaw| flaw.unnamed = 2, "2 members of the Group are named in a way that cannot be followed"),
        // Three patients have one identifier, of which the Group names the first.
        (|flaw| (flaw.alike, flaw.by_identifier) = (27, 28), "1 member of the Group is named in a way that cannot be followed"),
        (|flaw| flaw.groups = 1_001, "2 Groups within the Group were not read"),
    ];
    for (change, expected) in cases {
        let site = Site::of(Flaw::default(), "g").await;
        site.pull(&[]).await;
        site.becomes(change);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.gaps.len(), outcome.removed, counts), (1, 0, all()), "{}", reasons(&outcome));
        assert!(reasons(&outcome).starts_with(&format!("Patient: {expected}")), "{}", reasons(&outcome));
        site.becomes(|flaw| *flaw = Flaw::default());
        let (healed, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&healed).as_str(), counts), ("", all()), "{expected}");
    }
}

#[tokio::test]
async fn a_list_that_is_refused_is_asked_for_singly() {
    let site = Site::of(Flaw { refuses_lists: true, ..Flaw::default() }, "g").await;
    for full in [true, false] {
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts, outcome.full), ("", all(), full));
    }
}

#[tokio::test]
async fn a_code_that_is_refused_beside_a_patient_is_looked_for_here() {
    // Be lists of patients taken or not.
    for refuses_lists in [false, true] {
        let mut site = Site::of(Flaw { one_at_a_time: true, refuses_lists, ..Flaw::default() }, "g").await;
        let observations = site.needs.iter_mut().filter(|need| need.resource_type == "Observation");
        observations.for_each(|need| need.codes = ["urn:x|a".to_owned()].into());
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts["Observation"]), ("", PATIENTS as u64));
        let both = site
            .server
            .heard()
            .iter()
            .filter(|heard| heard.body.contains("patient=") && heard.body.contains("code=") && heard.body.contains("_count=40"))
            .count();
        assert!(both <= 4, "it is remembered: asked {both} times");
    }
}

#[tokio::test]
async fn a_list_that_takes_too_long_is_halved_at_once_and_the_next_one_is_no_longer() {
    let site = Site::of(Flaw { slow_above: 5, ..Flaw::default() }, "g").await;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    let long =
        |heard: &&Heard| heard.target.starts_with("/Encounter/") && !heard.body.contains("_summary=") && heard.field("patient").is_some_and(|list| list.split(',').count() > 5);
    let asked = site.server.heard().iter().filter(long).count();
    assert!(asked <= 12, "{asked} times");
}

#[tokio::test]
async fn a_check_begins_no_export_and_a_pull_says_what_the_server_has_against_it() {
    let mut site = Site::of(Flaw { exports: true, ..Flaw::default() }, "").await;
    site.options.mode = Mode::Bulk;
    site.check().await;
    let asked: Vec<Heard> = site.server.heard().into_iter().filter(|heard| heard.target.contains("$export")).collect();
    assert!(!asked.is_empty());
    for heard in asked {
        assert!(heard.prefer.is_empty() && heard.target.contains("_since=watershed-probe") && !heard.target.contains("_type="), "{heard:?}");
    }
    let error = site.try_pull(&[]).await.unwrap_err().to_string();
    assert!(error.contains("with status 400 (business-rule)"), "{error}");
}

#[tokio::test]
async fn q_88_of_what_is_read_whole_each_night_the_present_answer_stands_and_what_was_refused_is_repaired() {
    let site = Site::of(Flaw::default(), "").await;
    let facts = [untimed("Encounter")];
    // An older version comes after a newer one, as after a backup was restored.
    type Night = (fn(&mut Flaw), &'static str, u64);
    let nights: [Night; 4] = [(|flaw| flaw.moved = true, "2", 0), (|flaw| flaw.moved = false, "1", 0), (|flaw| flaw.orphan = true, "1", 1), (|flaw| flaw.orphan = false, "1", 0)];
    for (number, (change, version, held)) in nights.into_iter().enumerate() {
        site.becomes(change);
        let (night, counts) = site.pull(&facts).await;
        let found = (night.full, reasons(&night), counts, site.version("e3"), night.quarantined, night.complete);
        assert_eq!(found, (number == 0, String::new(), all(), Some(version.to_owned()), held, held == 0), "night {number}");
    }
}

#[tokio::test]
async fn times_of_change_that_find_nothing_are_not_relied_upon() {
    let site = Site::of(Flaw { no_times: true, ..Flaw::default() }, "").await;
    let facts = site.check().await;
    assert_eq!(found(&facts, "Observation", "_lastUpdated"), Found::Wrong);
    site.pull(&facts).await;
    let (night, counts) = site.pull(&facts).await;
    assert_eq!((night.full, counts), (true, all()), "everything is read each night");
}

#[tokio::test]
async fn a_total_that_is_an_estimate_until_the_last_page_is_believed_there() {
    let mut site = Site::of(Flaw { estimates: true, ..Flaw::default() }, "").await;
    site.options.page_size = 7;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    assert_eq!(site.server.count("/Observation?_count="), 1 + 60_usize.div_ceil(7) - 1, "it is read once");
}

#[tokio::test]
async fn one_bad_byte_loses_one_resource() {
    let mut site = Site::of(Flaw { latin: true, ..Flaw::default() }, "").await;
    site.options.page_size = 20;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!(counts["Observation"], 2 * PATIENTS as u64 - 1);
    assert!(reasons(&outcome).contains("not in UTF-8") && outcome.gaps.len() == 1, "{}", reasons(&outcome));
}

#[tokio::test]
async fn a_page_that_is_too_large_for_the_server_is_halved() {
    let mut site = Site::of(Flaw { page_max: 12, ..Flaw::default() }, "").await;
    site.options.page_size = 50;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    assert!(site.server.heard().iter().filter(|heard| heard.target.contains("_count=50")).count() <= 3);
    let said = findings(&site.check().await, &site.options);
    assert!(said.iter().any(|one| one.says.contains("lower `source.page_size`")), "{said:?}");
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_an_answer() {
    let (outcome, counts) = Site::of(Flaw { marked: true, ..Flaw::default() }, "").await.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
}

#[tokio::test]
async fn who_must_be_asked_of_patients_is_not_said_to_want_a_category() {
    let site = Site::of(Flaw { of_patients: true, ..Flaw::default() }, "").await;
    let said = findings(&site.check().await, &site.options);
    assert!(said.iter().any(|one| one.about == "Observation" && one.says.contains("name a Group in `source.group`")), "{said:?}");
    let site = Site::of(Flaw { of_patients: true, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    assert_eq!(found(&facts, "Observation", "search"), Found::Works);
    assert!(findings(&facts, &site.options).iter().all(|one| !one.says.contains("source.parameters")));
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
}

#[tokio::test]
async fn the_path_of_a_server_behind_its_proxy_is_mapped_too() {
    let mut site = Site::of(Flaw { inner: true, ..Flaw::default() }, "").await;
    site.options.url = format!("{}/outer", site.server.origin);
    site.options.page_size = 20;
    site.options.internal_origins = vec!["http://inner:8080/deep/fhir".to_owned()];
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
}

#[tokio::test]
async fn where_lists_of_codes_are_not_heeded_few_are_counted_each_and_of_many_it_is_said() {
    let few = ["a", "b"].map(str::to_owned).to_vec();
    let many = few.iter().cloned().chain((0..12).map(|number| format!("0-{number}"))).collect::<Vec<_>>();
    for (codes, is_counted) in [(few, true), (many, false)] {
        let mut site = Site::of(Flaw { heeded: 1, ..Flaw::default() }, "").await;
        site.asks_for_codes(&codes);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
        site.becomes(|flaw| flaw.gone = 2);
        let (night, counts) = site.pull(&[]).await;
        // Nor does it heed a list of ids, by which samples are counted.
        let told: Vec<&str> = night.notes.iter().filter(|note| note.code != Code::Unsampled).map(|note| note.reason.as_str()).collect();
        assert_eq!((night.full, night.removed, reasons(&night).as_str()), (false, if is_counted { 2 } else { 0 }, ""), "{told:?}");
        assert_eq!(counts["Observation"], 2 * PATIENTS as u64 - night.removed);
        let words = if is_counted { "2 resources let go" } else { "the server heeds no list of codes, and these are too many to count each: what vanishes" };
        assert!(matches!(told.as_slice(), [one] if one.starts_with(words) && one.contains("again, on 20") != is_counted), "{told:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_on_the_way_is_noticed_in_the_first_night_and_in_every_other() {
    let site = Site::of(Flaw { posts_all: true, ..Flaw::default() }, "g").await;
    assert_eq!(found(&site.check().await, SERVER, "search by POST"), Found::Wrong);
    for night in [1, 2] {
        let before = site.server.heard().len();
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.full, reasons(&outcome).as_str(), counts), (night == 1, "", all()));
        assert_eq!(site.server.heard().iter().skip(before).filter(|heard| heard.method == "POST").count(), 2, "night {night}: the number that shows it, and one page");
    }
    // A proxy may begin to in any night.
    for change in [|flaw: &mut Flaw| flaw.posts_all = true, |flaw: &mut Flaw| flaw.posts_nothing = true] {
        let site = Site::of(Flaw::default(), "g").await;
        site.pull(&[]).await;
        site.becomes(change);
        site.becomes(|flaw| flaw.amended = true);
        let (night, counts) = site.pull(&[]).await;
        assert_eq!((night.full, reasons(&night).as_str(), counts, site.version("b29").as_deref()), (false, "", all(), Some("2")));
    }
}

/// A Group that names some of its members in some nights only: what was written of them meanwhile is not missed.
#[tokio::test]
async fn members_who_are_away_for_a_night_come_back_whole() {
    // So many are away that it is believed, and so many that it is not.
    for away in [5, 20] {
        for change in [|_: &mut Flaw| {}, |flaw: &mut Flaw| flaw.posts_all = true, |flaw: &mut Flaw| flaw.posts_nothing = true] {
            let site = Site::of(Flaw::default(), "g").await;
            site.becomes(change);
            site.pull(&[]).await;
            site.becomes(|flaw| (flaw.away, flaw.amended) = (away, true));
            let (night, _) = site.pull(&[]).await;
            assert_eq!((night.complete, site.version("b29").as_deref()), if away == 5 { (true, None) } else { (false, Some("1")) }, "{}", reasons(&night));
            site.becomes(|flaw| flaw.away = 0);
            let (night, counts) = site.pull(&[]).await;
            assert_eq!((reasons(&night).as_str(), counts, site.version("b29").as_deref()), ("", all(), Some("2")), "{away}");
        }
    }
}

#[tokio::test]
async fn a_list_that_is_too_long_for_a_count_is_counted_in_shorter_ones() {
    // A search names 25 patients, and a count all of them.
    let site = Site::of(Flaw { heeded: 27, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    let fact = facts.iter().find(|fact| fact.about == "Observation" && fact.what == "patient list").unwrap();
    assert_eq!((fact.found, fact.detail.as_str()), (Found::Works, "with 25 values, and not with 500"));
    for gone in [0, 1, 2] {
        site.becomes(|flaw| flaw.gone = gone);
        let (night, counts) = site.pull(&[]).await;
        assert_eq!((night.full, night.removed, reasons(&night).as_str()), (gone == 0, u64::from(gone > 0), ""), "{gone}");
        assert_eq!(counts["Observation"], (2 * PATIENTS - gone) as u64);
        assert!(night.notes.iter().all(|note| note.reason.starts_with("1 resource let go")), "{:?}", night.notes);
    }
}

#[tokio::test]
async fn relative_addresses_of_files_count_from_the_manifest_and_where_nothing_is_there_from_the_base() {
    for (files, lost) in [("../files/", 0), ("/outer/files/", 0), ("files/", 1)] {
        let mut site = Site::of(Flaw { files, ..Flaw::default() }, "").await;
        site.options.url = format!("{}/outer", site.server.origin);
        (site.options.mode, site.options.requests_at_once) = (Mode::Bulk, 1);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{files}");
        assert_eq!(site.server.count("/jobs/files/"), lost, "{files}: it is remembered");
    }
}

#[tokio::test]
async fn what_names_its_patient_by_an_identifier_is_there_when_its_type_is_read_again() {
    for group in ["g", ""] {
        let site = Site::of(Flaw { by_system: "urn:mrn", ..Flaw::default() }, group).await;
        assert_eq!(site.pull(&[]).await.1, all());
        site.becomes(|flaw| flaw.gone = 1);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.full, reasons(&outcome).as_str(), outcome.removed, counts["Observation"]), (false, "", 1, 59), "`{group}`");
    }
}

#[tokio::test]
async fn what_names_somebody_outside_the_group_by_an_identifier_is_left_out_and_what_names_nobody_known_is_held() {
    for (by_system, held, observations) in [("urn:mrn", 0, 50), ("urn:other", 30, 25)] {
        let site = Site::of(Flaw { by_system, declares_none: true, away: 5, ..Flaw::default() }, "g").await;
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), outcome.quarantined, outcome.complete, counts["Observation"]), ("", held, held == 0, observations), "{by_system}");
    }
}
