//! ELM JSON that we write: it means the same when it is read again, and when another engine runs it. Reading what others wrote is `published`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use watershed::config::measures;
use watershed::cql::typed::LibraryId;
use watershed::cql::{Libraries, Models, Program, Session, compile, elm, show};
use watershed::diagnostic::{SourceFile, render_human};
use watershed::fhir::record::{Record, Shape};
use watershed::measure::definition;
use watershed::measure::logic::Fingerprint;
use watershed::measure::report::Facts;
use watershed::measure::{self, Choices, Measure, Period, Setting};
use watershed::terminology::ValueSets;

use crate::cql_suite;

/// The code system of a Measure's populations.
const POPULATIONS: &str = "http://terminology.hl7.org/CodeSystem/measure-population";
/// Cases in which cql-execution, the engine inside fqm-execution, goes another way than CQL, whatever ELM it is given.
const OTHER_WAY: [(&str, &str); 1] =
    [("Two assessments of one visit, the later one counts; a preliminary one never", "equal DateTimes are no tie in its sort, so that the next key is not looked at")];
/// So many expressions of HL7's suite are compared; fewer means that the comparison has stopped.
const COMPARED_MIN: usize = 1_700;

/// What a program's define is, or why it is nothing.
fn outcome(program: &Program, record: &Record) -> Result<String, String> {
    let environment = cql_suite::environment();
    let mut session = Session::new(program, &environment, record);
    let define = program.define("T", "Expression").ok_or("no such define")?;
    session.evaluate(define).map(|value| show::json(&value, record).to_string()).map_err(|fault| fault.to_string())
}

/// The first library of a program as an ELM document.
fn written(program: &Program) -> Arc<SourceFile> {
    let (json, found) = elm::write(program.tree(), program.roots()[0]);
    assert!(found.is_empty(), "{}", render_human(&found, false));
    SourceFile::new("written.json", json.to_string())
}

/// The program read again from the ELM of all its libraries.
pub(crate) fn round_trip(program: &Program) -> Result<Program, String> {
    let tree = program.tree();
    let mut documents = Vec::new();
    for (index, library) in (0u32..).zip(&tree.libraries) {
        let (json, found) = elm::write(tree, LibraryId(index));
        if !found.is_empty() {
            return Err(render_human(&found, false));
        }
        documents.push(SourceFile::new(format!("{}.json", library.name), json.to_string()));
    }
    let root = documents.remove(program.roots()[0].index());
    let (again, found) = elm::compile(&root, &documents, &Models::default());
    again.ok_or_else(|| render_human(&found, false))
}

/// Every expression of HL7's suite means the same after CQL was written as ELM and read again.
#[test]
fn what_is_written_is_read_as_the_same() {
    let Some(folder) = crate::shared::yardstick("cql-tests") else { return };
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    let mut faults = Vec::new();
    let mut compared = 0;
    for case in cql_suite::cases(&folder) {
        let text = format!("library T version '1'\ndefine \"Expression\":\n{}\n", case.expression);
        let (program, _) = compile(&[SourceFile::new("t.cql", text)], &Libraries::default(), &Models::default());
        let Some(program) = program else { continue };
        compared += 1;
        let document = written(&program);
        let (again, found) = elm::compile(&document, &[], &Models::default());
        let (wanted, read) = match &again {
            Some(again) => (outcome(&program, &record), outcome(again, &record)),
            None => (Ok(String::new()), Err(render_human(&found, false))),
        };
        if wanted != read {
            faults.push(format!("{}: {} is {wanted:?}, read from ELM {read:?}\n{}", case.name, case.expression, document.text));
        }
    }
    crate::figures::say(&format!("{} of {compared} expressions mean the same after a round trip", compared - faults.len()));
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
    assert!(compared >= COMPARED_MIN, "{compared} expressions compared");
}

/// A measure of ours as the Bundle that other engines read: Measure, a Library of ELM each, the value sets.
fn bundle(measure: &Measure, value_sets: &ValueSets) -> Value {
    let program = measure.program();
    let tree = program.tree();
    let mut entries = Vec::new();
    let url = |name: &str| format!("http://watershed.example/fhir/Library/{name}");
    for (index, library) in (0u32..).zip(&tree.libraries) {
        let (json, found) = elm::write(tree, LibraryId(index));
        assert!(found.is_empty(), "{}", render_human(&found, false));
        let data = base64::engine::general_purpose::STANDARD.encode(json.to_string());
        entries.push(
            json!({ "resourceType": "Library", "id": &*library.name, "name": &*library.name, "url": url(&library.name), "version": library.version.as_deref(), "status": "active",
            "type": { "coding": [{ "code": "logic-library" }] }, "content": [{ "contentType": "application/elm+json", "data": data }] }),
        );
    }
    let root = &tree.libraries[program.roots()[0].index()].name;
    let populations: Vec<Value> = measure.groups[0]
        .populations
        .iter()
        .filter(|population| population.code.code() != "measure-observation")
        .map(|population| json!({ "id": population.id(), "code": { "coding": [{ "system": POPULATIONS, "code": population.code.code() }] }, "criteria": { "language": "text/cql-identifier", "expression": population.define.value } }))
        .collect();
    let basis = if measure.definition.basis.value == definition::PATIENT { "boolean" } else { &measure.definition.basis.value };
    let basis = json!([{ "url": "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-populationBasis", "valueCode": basis }]);
    let scoring = json!({ "coding": [{ "code": definition::word(measure.definition.scoring) }] });
    entries.insert(
        0,
        json!({ "resourceType": "Measure", "id": measure.definition.id.value, "url": measure.definition.url.value, "status": "active", "extension": basis,
        "library": [url(root)], "scoring": scoring, "group": [{ "id": "group-1", "population": populations }] }),
    );
    for (number, set) in (1..).zip(value_sets.iter()) {
        let contains: Vec<Value> = set.members().map(|member| json!({ "system": &**member.system, "code": &**member.code })).collect();
        let expansion = json!({ "timestamp": "2026-01-01", "contains": contains });
        entries.push(json!({ "resourceType": "ValueSet", "id": format!("set-{number}"), "url": &*set.url, "status": "active", "expansion": expansion }));
    }
    let entries: Vec<Value> = entries.into_iter().map(|resource| json!({ "resource": resource })).collect();
    json!({ "resourceType": "Bundle", "type": "collection", "entry": entries })
}

/// Members of each population of a patient in a period, observations left out.
fn ours(measure: &Measure, setting: &Setting, period: Period, lines: &[Vec<u8>]) -> BTreeMap<String, u64> {
    let (record, _) = Record::read(measure.program().shape(), lines.iter().map(Vec::as_slice));
    let result = measure.over(&[period], setting).evaluate(&record).remove(0).expect("an evaluation without fault");
    let facts = Facts::default();
    let reporter = measure.reporter(period, &facts);
    let report = reporter.individual("case", &result);
    let populations = report["group"][0]["population"].as_array().expect("populations").iter();
    let counts = populations.map(|population| (population["code"]["coding"][0]["code"].as_str().unwrap().to_owned(), population["count"].as_u64().unwrap_or(0)));
    counts.filter(|(code, _)| !code.ends_with("observation")).collect()
}

/// A Bundle whose libraries have no CQL text is run from their ELM without being asked to.
#[test]
fn a_measure_that_has_elm_alone_gives_the_same_populations() {
    let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
    let mut compared = 0;
    for path in measures::find(&packs).unwrap() {
        let cases = measures::read(&path).unwrap().cases;
        let (loaded, _) = measures::load(&[path], &[], &Choices::default());
        let loaded = loaded.expect("a measure");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bundle.json");
        std::fs::write(&file, bundle(&loaded.measures[0], &loaded.value_sets).to_string()).unwrap();
        let (from_elm, found) = measures::load(&[file], &[], &Choices::default());
        let from_elm = from_elm.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
        let meaning = |of: &Measure| Fingerprint::new(&loaded.measures[0].definition, of.program(), &ValueSets::new()).logic.pop();
        let [own, read] = [&loaded, &from_elm].map(|loaded| meaning(&loaded.measures[0]));
        assert!(own == read && own.is_some_and(|digest| digest.starts_with("meaning:")), "{}", loaded.measures[0].definition.id.value);
        let setting = |loaded| measures::setting(loaded, &TimeZone::get("America/New_York").unwrap(), "2026-11-24T00:00:00Z".parse().unwrap());
        for source in &cases {
            let case = measure::case::parse(source, &loaded.measures[0]).0.expect("a case");
            for expectation in case.expectations.iter().filter(|_| case.parameters.is_empty()) {
                let counts = [&loaded, &from_elm].map(|loaded| ours(&loaded.measures[0], &setting(loaded), expectation.period, &case.lines));
                assert_eq!(counts[0], counts[1], "{}", case.title);
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

/// The ELM of our measures gives the same populations in fqm-execution. `.ci/run` installs it and sets
/// `WATERSHED_INTEROP_FQM` to its folder; without it the test is skipped aloud.
#[test]
fn what_is_written_runs_on_another_engine() {
    let Ok(fqm) = std::env::var("WATERSHED_INTEROP_FQM") else {
        crate::figures::say("skipped: WATERSHED_INTEROP_FQM is not set (a folder with npm's fqm-execution 1.8.6)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
    let (mut jobs, mut wanted) = (Vec::new(), Vec::new());
    for path in measures::find(&packs).unwrap() {
        let files = measures::read(&path).unwrap();
        let (loaded, found) = measures::load(&[path], &[], &Choices::default());
        let loaded = loaded.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
        let measure = &loaded.measures[0];
        let setting = measures::setting(&loaded, &TimeZone::UTC, "2026-11-24T00:00:00Z".parse().unwrap());
        for source in &files.cases {
            let case = measure::case::parse(source, measure).0.expect("a case");
            if !case.parameters.is_empty() {
                continue;
            }
            let entries: Vec<Value> = case.lines.iter().map(|line| json!({ "resource": serde_json::from_slice::<Value>(line).unwrap() })).collect();
            let patient = json!({ "resourceType": "Bundle", "type": "collection", "entry": entries });
            for expectation in &case.expectations {
                let period = expectation.period;
                let text = json!([period.start.to_string(), period.end.to_string()]);
                jobs.push(json!({ "bundle": bundle(measure, &loaded.value_sets), "start": text[0], "end": text[1], "patients": { "case": patient } }));
                wanted.push((case.title.clone(), format!("{} {text}", measure.definition.id.value), ours(measure, &setting, period, &case.lines)));
            }
        }
    }
    let file = folder.path().join("jobs.json");
    std::fs::write(&file, serde_json::to_vec(&jobs).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fqm/run.mjs");
    let run = std::process::Command::new("node").arg(script).arg(&file).env("WATERSHED_INTEROP_FQM", fqm).output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    let results: Vec<Value> = text.lines().filter_map(|line| line.strip_prefix("RESULT ")).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), wanted.len(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut faults = Vec::new();
    for ((title, name, ours), theirs) in wanted.iter().zip(&results) {
        let theirs = &theirs["case"];
        // An engine without an episode lists no population.
        let same = theirs["fault"].is_null() && ours.iter().all(|(code, count)| theirs[code].as_u64().unwrap_or(0) == *count);
        let known = OTHER_WAY.iter().any(|(other, _)| other == title);
        if same == known {
            faults.push(format!("{title}, {name}{}: {ours:?}, fqm-execution {theirs}", if known { ", listed as different" } else { "" }));
        }
    }
    println!(
        "{} of {} cases of our measures are the same in fqm-execution; listed as its own way: {}",
        wanted.len() - faults.len() - OTHER_WAY.len(),
        wanted.len(),
        OTHER_WAY.len()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
