//! Composite measures through the command line: as a publication has them, and as a steward writes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use watershed::cql::value::DateTime;
use watershed::fhir::record::{Record, Shape};
use watershed::measure::{Choices, Period, Setting};
use watershed::terminology::units::Units;
use watershed::validate;

const MEASURES: &str = "http://c.example/Measure";
const GUIDE: &str = "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition";

/// An observation's text says what it is about: `a` is meant for the patient, `a-done` was done, `a-not` excludes. Of `c` each
/// encounter is counted, and done where its priority says so.
const CQL: &str = "\
library Care version '1.0.0'
using FHIR version '4.0.1'
parameter \"Measurement Period\" Interval<DateTime>
context Patient
define \"Everyone\": true
define \"A\": exists ([Observation] O where O.code.text.value = 'a')
define \"A Done\": exists ([Observation] O where O.code.text.value = 'a-done')
define \"A Not\": exists ([Observation] O where O.code.text.value = 'a-not')
define \"B\": exists ([Observation] O where O.code.text.value = 'b')
define \"B Done\": exists ([Observation] O where O.code.text.value = 'b-done')
define \"Visits\": [Encounter] E where E.status.value = 'finished'
define \"Visits Done\": \"Visits\" E where E.priority.text.value = 'done'
define \"Sex\": Patient.gender.value
define \"Days\": 3
";

fn concept(code: &str) -> Value {
    json!({ "coding": [{ "code": code }] })
}

fn extension(name: &str, value: (&str, Value)) -> Value {
    let mut extension = json!({ "url": format!("{GUIDE}/{name}") });
    extension[value.0] = value.1;
    extension
}

fn group(id: &str, basis: &str, populations: &[(&str, &str)]) -> Value {
    let population = |(code, define): &(&str, &str)| json!({ "code": concept(code), "criteria": { "language": "text/cql", "expression": define } });
    json!({
        "id": id,
        "extension": [extension("cqfm-populationBasis", ("valueCode", basis.into())), extension("cqfm-scoring", ("valueCodeableConcept", concept("proportion")))],
        "population": populations.iter().map(population).collect::<Vec<_>>(),
    })
}

fn measure(id: &str, more: Value) -> Value {
    let mut measure = json!({ "resourceType": "Measure", "id": id, "url": format!("{MEASURES}/{id}"), "version": "1.0.0", "status": "active",
        "title": id, "improvementNotation": concept("increase") });
    measure.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    measure
}

/// `single`, `double` with the groups `b` and, of events, `c`; a component is (measure, group, weight).
fn components(all: &[(&str, Option<&str>, f64)], method: &str) -> Vec<Value> {
    let component = |(measure, group, weight): &(&str, Option<&str>, f64)| {
        let group = group.map(|group| extension("cqfm-groupId", ("valueString", group.into())));
        let weight = (method == "weighted").then(|| extension("cqfm-weight", ("valueDecimal", (*weight).into())));
        let extensions: Vec<Value> = group.into_iter().chain(weight).collect();
        json!({ "type": "composed-of", "resource": format!("{MEASURES}/{measure}|1.0.0"), "extension": extensions })
    };
    all.iter().map(component).collect()
}

const OF_BOTH: [(&str, Option<&str>, f64); 3] = [("single", None, 2.0), ("double", Some("b"), 1.0), ("double", Some("c"), 1.0)];
pub(crate) const METHODS: [&str; 4] = ["opportunity", "all-or-nothing", "linear", "weighted"];

pub(crate) fn composite(method: &str) -> Value {
    measure(method, json!({ "scoring": concept("composite"), "compositeScoring": concept(method), "relatedArtifact": components(&OF_BOTH, method) }))
}

pub(crate) fn bundle(measures: &[Value]) -> Value {
    let library = json!({ "resourceType": "Library", "id": "Care", "url": "http://c.example/Library/Care", "name": "Care", "version": "1.0.0", "status": "active",
        "content": [{ "contentType": "text/cql", "data": base64::engine::general_purpose::STANDARD.encode(CQL) }] });
    let library_of = json!(["http://c.example/Library/Care|1.0.0"]);
    let single = measure(
        "single",
        json!({ "library": library_of, "supplementalData": [{ "id": "sex", "criteria": { "expression": "Sex" } }], "group": [group("a", "boolean",
        &[("initial-population", "Everyone"), ("denominator", "A"), ("denominator-exclusion", "A Not"), ("numerator", "A Done")])] }),
    );
    let double = measure(
        "double",
        json!({ "library": library_of, "group": [
        group("b", "boolean", &[("initial-population", "Everyone"), ("denominator", "B"), ("numerator", "B Done")]),
        group("c", "Encounter", &[("initial-population", "Visits"), ("denominator", "Visits"), ("numerator", "Visits Done")]),
    ] }),
    );
    let entries = [library, single, double].into_iter().chain(measures.iter().cloned()).map(|resource| json!({ "resource": resource }));
    json!({ "resourceType": "Bundle", "type": "collection", "entry": entries.collect::<Vec<_>>() })
}

/// What the observations of each patient say, and whether each visit was done.
const PATIENTS: [(&str, &[&str], &[bool]); 6] = [
    ("p1", &["a", "a-done", "b", "b-done"], &[false, false]),
    ("p2", &["a", "b", "b-done"], &[]),
    ("p3", &["a", "a-not", "a-done", "b"], &[false]),
    ("p4", &["a", "a-done"], &[]),
    ("p5", &[], &[]),
    ("p6", &[], &[true, false]),
];

fn patients() -> String {
    let mut lines = String::new();
    for (patient, texts, visits) in PATIENTS {
        let subject = json!({ "reference": format!("Patient/{patient}") });
        lines.push_str(&format!("{}\n", json!({ "resourceType": "Patient", "id": patient, "gender": if patient < "p3" { "female" } else { "male" } })));
        for (at, text) in texts.iter().enumerate() {
            lines.push_str(&format!(
                "{}\n",
                json!({ "resourceType": "Observation", "id": format!("{patient}-o{at}"), "subject": subject, "status": "final", "code": { "text": text } })
            ));
        }
        for (at, done) in visits.iter().enumerate() {
            let priority = json!({ "text": if *done { "done" } else { "open" } });
            lines.push_str(&format!(
                "{}\n",
                json!({ "resourceType": "Encounter", "id": format!("{patient}-e{at}"), "subject": subject, "status": "finished", "priority": priority })
            ));
        }
    }
    lines
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn say(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A folder with the Bundle and the patients.
struct Published {
    _folder: tempfile::TempDir,
    bundle: PathBuf,
    data: PathBuf,
}

impl Published {
    fn new(measures: &[Value]) -> Published {
        let folder = tempfile::tempdir().unwrap();
        let (bundle_file, data) = (folder.path().join("bundle.json"), folder.path().join("patients.ndjson"));
        std::fs::write(&bundle_file, bundle(measures).to_string()).unwrap();
        std::fs::write(&data, patients()).unwrap();
        Published { _folder: folder, bundle: bundle_file, data }
    }

    fn evaluate(&self, more: &[&str]) -> Said {
        let mut arguments = vec!["evaluate", "--measure", self.bundle.to_str().unwrap(), "--data", self.data.to_str().unwrap(), "--period", "2026"];
        arguments.extend(more);
        say(&arguments)
    }

    /// The reports, each passed by the check that a report must pass to be sent.
    fn reports(&self, more: &[&str]) -> Vec<Value> {
        let said = self.evaluate(more);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        let reports: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for report in &reports {
            assert_eq!(validate::check(report), [], "{report}");
        }
        reports
    }
}

fn of<'a>(reports: &'a [Value], id: &str) -> Vec<&'a Value> {
    reports.iter().filter(|report| report["measure"] == format!("{MEASURES}/{id}|1.0.0")).collect()
}

/// `denominator 5, numerator 3 = 0.6`.
fn numbers(group: &Value) -> String {
    let count = |population: &Value| format!("{} {}", population["code"]["coding"][0]["code"].as_str().unwrap(), population.get("count").map_or("-".to_owned(), Value::to_string));
    let counts: Vec<String> = group["population"].as_array().into_iter().flatten().map(count).collect();
    format!("{} = {}", counts.join(", "), group["measureScore"]["value"])
}

/// Of p1 to p6 component a holds for 1 and 4, fails for 2 and excludes 3; b holds for 1 and 2 and fails for 3; of c the visits
/// of 1 and 3 fail, one of the two of 6 holds: enough for the patient, not for the score of c itself.
#[test]
fn a_published_composite_is_scored_by_each_method() {
    let published = Published::new(&METHODS.map(composite));
    let reports = published.reports(&[]);
    assert_eq!(reports.len(), 6);
    let found = METHODS.map(|method| numbers(&of(&reports, method)[0]["group"][0]));
    let expected = [
        // p1 2 of 3, p2 1 of 2, p3 0 of 2, p4 1 of 1, p6 1 of 1
        "initial-population 15, denominator 10, denominator-exclusion 1, numerator 5 = 0.555555555556",
        // p4 and p6 of p1, p2, p4 and p6
        "initial-population 6, denominator 5, denominator-exclusion 1, numerator 2 = 0.5",
        // (2/3 + 1/2 + 0 + 1 + 1) / 5
        "initial-population 6, measure-population 5, measure-observation - = 0.633333333333",
        // (2 * 2/3 + 2/3 + 1/5) / 4
        " = 0.55",
    ];
    assert_eq!(found, expected);
    let weighted = &of(&reports, "weighted")[0]["group"][0];
    insta::assert_snapshot!(serde_json::to_string_pretty(&weighted["extension"]).unwrap());
    // Supplemental data of the components are the composite's too.
    let sexes: Vec<String> = METHODS.iter().flat_map(|method| of(&reports, method)).map(|report| report["extension"].to_string()).collect();
    assert!(sexes.iter().all(|text| text.contains(r#"{"url":"value","valueString":"female"},{"url":"count","valueInteger":2}"#)), "{sexes:?}");
}

#[test]
fn patients_have_reports_of_their_own_and_lists() {
    let published = Published::new(&METHODS.map(composite));
    let reports = published.reports(&["--report", "individual"]);
    let scores = METHODS.map(|method| {
        of(&reports, method)
            .iter()
            .map(|report| report["group"][0]["measureScore"]["value"].to_string())
            .collect::<Vec<_>>()
            .join(" ")
    });
    let expected = [
        "0.666666666667 0.5 0 1 null 1",
        "0 0 null 1 null 1",
        "0.666666666667 0.5 0 1 null 1",
        "0.75 null null null null null", // p1's a, b and visits by weight; nobody else is meant by all three
    ];
    assert_eq!(scores, expected);
    let lists = published.reports(&["--report", "subject-list"]);
    let list = of(&lists, "all-or-nothing")[0];
    let members = |at: usize| {
        list["contained"][at]["entry"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["item"]["reference"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((members(2), members(3)), (vec!["Patient/p3"], vec!["Patient/p4", "Patient/p6"]), "excluded, and in the numerator");
}

#[test]
fn threads_change_nothing() {
    let published = Published::new(&METHODS.map(composite));
    for report in ["summary", "subject-list", "individual"] {
        let run = |threads| published.evaluate(&["--report", report, "--threads", threads]).out;
        assert!(run("1").len() > 2_000);
        assert_eq!(run("1"), run("4"), "{report}");
    }
}

/// A measure with a composite of its own groups: groups that differ in scoring say so themselves.
/// A night gives each measure the periods of its own: months to what a composite of years is made of.
#[test]
fn what_it_is_made_of_is_evaluated_over_the_periods_of_the_composite() {
    let published = Published::new(&[composite("opportunity")]);
    let (loaded, found) = watershed::config::measures::load(std::slice::from_ref(&published.bundle), &[], &Choices::default());
    let loaded = loaded.unwrap_or_else(|| panic!("{found:?}"));
    let now = DateTime::from_timestamp("2026-11-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC);
    let setting = Setting { now, zone: TimeZone::UTC, value_sets: loaded.value_sets.clone(), units: Units::new().into() };
    let periods = |texts: &[&str]| texts.iter().map(|text| Period::parse(text).unwrap()).collect::<Vec<_>>();
    let over = |id: &str, texts: &[&str]| loaded.measures.iter().find(|measure| measure.definition.id.value == id).unwrap().over(&periods(texts), &setting);
    let lines = patients();
    let (record, bad) = Record::read(&Shape::everything(), lines.lines().filter(|line| line.contains("p1")).map(str::as_bytes));
    assert_eq!(bad, []);
    let alone = over("opportunity", &["2025", "2026"]).evaluate(&record);
    for beside in [&["2026-01"][..], &["2025-12", "2026-01"], &["2025", "2026"]] {
        let all = watershed::measure::evaluate(&[over("single", beside), over("opportunity", &["2025", "2026"])], &record);
        assert_eq!(format!("{:?}", all[1]), format!("{alone:?}"), "{beside:?}");
    }
}

#[test]
fn a_composite_group_beside_the_groups_it_is_made_of() {
    let own = |id: &str| {
        extension(
            "cqfm-component",
            (
                "valueRelatedArtifact",
                json!({ "type": "composed-of", "resource": format!("{MEASURES}/mixed|1.0.0"),
        "extension": [extension("cqfm-groupId", ("valueString", id.into()))] }),
            ),
        )
    };
    let scoring = |code: &str, method: &str| {
        [extension("cqfm-scoring", ("valueCodeableConcept", concept(code))), extension("cqfm-compositeScoring", ("valueCodeableConcept", concept(method)))]
    };
    let extensions: Vec<Value> = scoring("composite", "all-or-nothing").into_iter().chain(["first", "second"].map(own)).collect();
    let mixed = measure(
        "mixed",
        json!({ "library": ["http://c.example/Library/Care|1.0.0"], "group": [
        { "id": "both", "extension": extensions },
        group("first", "boolean", &[("initial-population", "Everyone"), ("denominator", "A"), ("numerator", "A Done")]),
        group("second", "boolean", &[("initial-population", "Everyone"), ("denominator", "B"), ("numerator", "B Done")]),
    ] }),
    );
    let published = Published::new(&[mixed]);
    let reports = published.reports(&[]);
    let report = of(&reports, "mixed")[0];
    let found: Vec<String> = report["group"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| format!("{}: {}", group["id"].as_str().unwrap(), numbers(group)))
        .collect();
    let expected = [
        "both: initial-population 6, denominator 4, numerator 2 = 0.5", // p1 and p4 of p1 to p4
        "first: initial-population 6, denominator 4, numerator 3 = 0.75",
        "second: initial-population 6, denominator 3, numerator 2 = 0.666666666667",
    ];
    assert_eq!(found, expected);
    assert!(report.get("improvementNotation").is_none(), "it stands on the groups");
}

#[test]
fn what_is_wrong_with_a_published_composite_is_said_with_what_to_do() {
    let refused = |method: Option<&str>, of: &[(&str, Option<&str>, f64)]| {
        let mut measure = measure("whole", json!({ "scoring": concept("composite"), "relatedArtifact": components(of, "") }));
        method.into_iter().for_each(|method| measure["compositeScoring"] = concept(method));
        let published = Published::new(&[measure]);
        let said = published.evaluate(&[]);
        assert_eq!((said.code, said.out.as_str()), (Some(3), ""), "{}", said.err);
        said.err
            .lines()
            .filter(|line| line.starts_with("error") || line.starts_with("help") || line.starts_with('│'))
            .collect::<Vec<_>>()
            .join("\n")
            .replace("\n│", "")
    };
    let cases = [
        (Some("linear"), vec![("single", None, 1.0), ("doubel", Some("b"), 1.0)]),
        (Some("linear"), vec![("single", None, 1.0), ("double", None, 1.0)]),
        (Some("linear"), vec![("single", None, 1.0), ("double", Some("d"), 1.0)]),
        (Some("linear"), vec![("single", None, 1.0), ("whole", None, 1.0)]),
        (Some("linear"), vec![("single", None, 1.0)]),
        (Some("average"), OF_BOTH.to_vec()),
        (None, OF_BOTH.to_vec()),
    ];
    insta::assert_snapshot!(cases.map(|(method, of)| refused(method, &of)).join("\n\n"));
}

/// A ratio of days observed: 3 of everybody in whom `b` was done by 3 of everybody.
fn observed() -> Value {
    let mut ratio = group("days", "boolean", &[("initial-population", "Everyone"), ("denominator", "Everyone"), ("numerator", "B Done")]);
    ratio["extension"][1] = extension("cqfm-scoring", ("valueCodeableConcept", concept("ratio")));
    for of in ["denominator", "numerator"] {
        let extensions = [extension("cqfm-criteriaReference", ("valueString", of.into())), extension("cqfm-aggregateMethod", ("valueCode", "sum".into()))];
        let observation = json!({ "id": format!("{of}-days"), "code": concept("measure-observation"), "extension": extensions, "criteria": { "expression": "Days" } });
        ratio["population"].as_array_mut().unwrap().push(observation);
    }
    for (population, id) in ratio["population"].as_array_mut().unwrap().iter_mut().zip(["initial-population", "denominator", "numerator"]) {
        population["id"] = id.into();
    }
    measure("observed", json!({ "library": ["http://c.example/Library/Care|1.0.0"], "group": [ratio] }))
}

#[test]
fn a_composite_is_made_of_scores_that_mean_something_together() {
    let all = [("single", None, 1.0), ("observed", None, 1.0)];
    for (method, expected) in [
        ("weighted", "`http://c.example/Measure/observed` is a ratio, and `http://c.example/Measure/single` is a proportion: an average of their scores means nothing"),
        (
            "all-or-nothing",
            "`http://c.example/Measure/observed` is a ratio of what is observed of its members: who is in its numerator, as `all-or-nothing` asks, has fulfilled nothing",
        ),
        ("opportunity", "is a ratio of what is observed of its members"),
        ("linear", "is a ratio of what is observed of its members"),
    ] {
        let whole = measure("whole", json!({ "scoring": concept("composite"), "compositeScoring": concept(method), "relatedArtifact": components(&all, method) }));
        let published = Published::new(&[observed(), whole]);
        let said = say(&["measure", "check", published.bundle.to_str().unwrap()]);
        assert_eq!((said.code, said.out.replace("\n│ ", " ").contains(expected)), (Some(1), true), "{method}: {}{}", said.out, said.err);
    }
    let published = Published::new(&[observed()]);
    assert_eq!(
        numbers(&of(&published.reports(&[]), "observed")[0]["group"][0]),
        "initial-population 6, denominator 6, numerator 2, measure-observation -, measure-observation - = 0.333333333333"
    );
}

/// The network's own measures, composed by a steward.
pub(crate) const WHOLE: &str = "\
id: whole-child
url: http://watershed.example/fhir/Measure/whole-child
version: 1.0.0
status: draft
title: Everything for the child
description: Whether all that was meant for a child was done.
steward: The network
scoring: composite
composite-scoring: METHOD
improvement: increase
components:
  - measure: ibd-remission
  - {measure: perinatal-early-elective-delivery, version: 1.0.0}
";

/// A girl with Crohn's disease that is quiet, and no delivery.
const CASE: &str = "\
title: A quiet disease and no delivery
zone: America/New_York
resources:
  - {resourceType: Patient, birthDate: '2012-05-01', gender: female}
  - {resourceType: Condition, code: {coding: [{system: 'http://hl7.org/fhir/sid/icd-10-cm', code: K50.90}]}, onsetDateTime: '2022-02-01'}
  - {resourceType: Encounter, id: v1, status: finished, class: {system: 'http://terminology.hl7.org/CodeSystem/v3-ActCode', code: AMB}, serviceType: {coding: [{system: 'http://snomed.info/sct', code: '394584008'}]}, period: {start: '2025-06-15T10:00:00-04:00', end: '2025-06-15T10:40:00-04:00'}}
  - {resourceType: Observation, encounter: {reference: Encounter/v1}, status: final, code: {coding: [{system: 'http://watershed.example/fhir/CodeSystem/ibd', code: pga}]}, effectiveDateTime: '2025-06-15T10:20:00-04:00', valueCodeableConcept: {coding: [{system: 'http://watershed.example/fhir/CodeSystem/ibd', code: quiescent}]}}
expect:
  - period: '2025-06'
    EXPECTED
";

pub(crate) const COMPONENTS: [&str; 2] = ["mappings/measures/ibd/remission", "mappings/measures/perinatal/early-elective-delivery"];

/// The folder of the composite.
fn folder(method: &str, expected: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole-child");
    std::fs::create_dir_all(path.join("cases")).unwrap();
    std::fs::write(path.join("measure.yaml"), WHOLE.replace("METHOD", method)).unwrap();
    std::fs::write(path.join("cases/quiet.yaml"), CASE.replace("EXPECTED", expected)).unwrap();
    (folder, path)
}

fn with_components<'a>(words: &[&'a str], path: &'a Path) -> Vec<&'a str> {
    words.iter().copied().chain([path.to_str().unwrap()]).chain(COMPONENTS).collect()
}

#[test]
fn the_test_patients_of_a_composite_expect_what_it_comes_to() {
    for (method, expected) in [
        ("opportunity", "populations: {initial-population: 1, denominator: 1, numerator: 1}\n    score: 1"),
        ("all-or-nothing", "populations: {initial-population: 1, denominator: 1, numerator: 1}"),
        ("linear", "populations: {initial-population: 1, measure-population: 1}\n    score: 1.0"),
    ] {
        let (_held, path) = folder(method, expected);
        let said = say(&with_components(&["measure", "check"], &path));
        assert_eq!((said.code, said.out.lines().last()), (Some(0), Some("3 measures are well formed")), "{}", said.err);
        let said = say(&with_components(&["measure", "test", "--format", "json"], &path));
        assert_eq!(said.code, Some(0), "{method}: {}{}", said.out, said.err);
        let told: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(told[0]["cases"].as_array().map(Vec::len), Some(1));
    }
    // She is not meant by the one component, so the weighted average of both is not known.
    let (_held, path) = folder("weighted", "score: 0.25");
    let said = say(&with_components(&["measure", "test"], &path));
    let row = said
        .out
        .lines()
        .find(|line| line.contains("FAILED"))
        .unwrap()
        .split_whitespace()
        .rev()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!((said.code, row.as_str()), (Some(1), "none 0.25 score"));
    let said = say(&["measure", "test", path.to_str().unwrap()]);
    assert_eq!((said.code, said.err.contains("there is no measure `ibd-remission`")), (Some(3), true), "{}", said.err);
}

#[test]
fn a_composite_is_explained_by_its_components_and_has_no_clauses() {
    let (_held, path) = folder("all-or-nothing", "populations: {initial-population: 1, denominator: 1, numerator: 1}");
    let said = say(&with_components(&["measure", "coverage"], &path));
    assert_eq!(said.out.lines().next(), Some("Everything for the child: no clauses of its own, over 1 test patient"), "{}", said.err);
    let data = path.join("child.ndjson");
    std::fs::write(&data, crate::explain::CHILD).unwrap();
    let mut arguments = with_components(&["measure", "explain"], &path);
    arguments.extend(["--data", data.to_str().unwrap(), "--patient", "p1", "--period", "2025-06", "--timezone", "America/New_York", "--population", "numerator"]);
    let said = say(&arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!(said.out.split("\nIBD in remission").next().unwrap());
}
