//! `watershed measure explain`: what a steward sees who asks why.

use std::process::Command;

/// One child with Crohn's disease, seen once, with mild disease.
pub(crate) const CHILD: &str = r#"{"resourceType":"Patient","id":"p1","birthDate":"2012-05-01","gender":"female"}
{"resourceType":"Condition","id":"c1","subject":{"reference":"Patient/p1"},"code":{"coding":[{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"K50.90"}]},"onsetDateTime":"2022-02-01"}
{"resourceType":"Encounter","id":"v1","subject":{"reference":"Patient/p1"},"status":"finished","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"AMB"},"serviceType":{"coding":[{"system":"http://snomed.info/sct","code":"394584008"}]},"period":{"start":"2025-06-15T10:00:00-04:00","end":"2025-06-15T10:40:00-04:00"}}
{"resourceType":"Observation","id":"o1","subject":{"reference":"Patient/p1"},"encounter":{"reference":"Encounter/v1"},"status":"final","code":{"coding":[{"system":"http://watershed.example/fhir/CodeSystem/ibd","code":"pga"}]},"effectiveDateTime":"2025-06-15T10:20:00-04:00","valueCodeableConcept":{"coding":[{"system":"http://watershed.example/fhir/CodeSystem/ibd","code":"mild"}]}}
"#;

fn explain(patient: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("child.ndjson");
    std::fs::write(&data, CHILD).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["measure", "explain", "mappings/measures/ibd/remission", "--patient", patient, "--period", "2025-06"]);
    command.args(["--timezone", "America/New_York", "--data"]).arg(data).args(more);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_patient_who_is_not_in_the_numerator_is_explained_down_to_the_visit() {
    let (code, found, _) = explain("p1", &["--population", "numerator"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(found);
}

#[test]
fn programs_get_the_same_as_json() {
    let (code, found, _) = explain("p1", &["--format", "json"]);
    assert_eq!(code, Some(0));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let verdicts: Vec<_> = found[0]["populations"].as_array().unwrap().iter().map(|one| format!("{} {}", one["code"], one["verdict"])).collect();
    assert_eq!(verdicts, ["\"initial-population\" \"true\"", "\"denominator\" \"true\"", "\"denominator-exclusion\" \"false\"", "\"numerator\" \"false\""]);
    assert!(found[0]["populations"][0]["proof"]["because"].as_array().is_some_and(|steps| !steps.is_empty()));
}

#[test]
fn an_unknown_patient_or_population_says_what_to_do() {
    let (code, _, said) = explain("p2", &[]);
    assert_eq!((code, said.contains("without `Patient/`")), (Some(2), true), "{said}");
    let (code, _, said) = explain("p1", &["--population", "nobody"]);
    assert_eq!((code, said.contains("leave out --population")), (Some(2), true), "{said}");
    let (code, _, said) = explain("p1", &["--population", "numertor"]);
    assert_eq!((code, said.contains("did you mean `numerator`?")), (Some(2), true), "{said}");
    let (code, found, _) = explain("p1", &["--measure", "ibd-remission"]);
    assert_eq!((code, found.starts_with("IBD in remission, 2025-06\n")), (Some(0), true), "{found}");
    let (code, _, said) = explain("p1", &["--measure", "remission"]);
    assert_eq!((code, said.contains("there are `ibd-remission`")), (Some(2), true), "{said}");
}

fn coverage(more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["measure", "coverage", "mappings/measures/ibd/remission"])
        .args(more)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn coverage_lists_the_clauses_that_no_test_patient_tells_apart() {
    let (code, found) = coverage(&[]);
    assert_eq!(code, Some(1), "a gap is a finding");
    let lines: Vec<String> = found.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[0], "IBD in remission: 63 of 65 clauses tested (96 %), over 14 test patients");
    assert_eq!(lines[2], "76 Colectomy Before Index Visit Colectomy.status.value = 'completed' false");
}

#[test]
fn coverage_over_data_says_what_one_child_cannot_test() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("child.ndjson");
    std::fs::write(&data, CHILD).unwrap();
    let (_, found) = coverage(&["--data", data.to_str().unwrap(), "--period", "2025-06", "--timezone", "America/New_York", "--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let gap = |text: &str| found[0]["gaps"].as_array().unwrap().iter().find(|gap| gap["text"] == text).map(|gap| gap["never"].clone());
    assert_eq!(found[0]["over"], "1 patient");
    assert_eq!(gap("\"Latest Assessment\".answer ~ \"Quiescent\""), Some("true".into()), "the child has mild disease");
    assert_eq!(gap("Colectomy.status.value = 'completed'"), Some("reached".into()), "and had no operation");
}

const HEAD: &str = "library Lab version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
     parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Everybody\": true\n";

/// What `explain` and `evaluate` say of a patient with these resources, of whom the numerator asks a definition of this CQL.
fn of_one(definitions: &str, resources: &[&str], numerator: &str, more: &[&str]) -> (String, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("lab")).unwrap();
    let population = |code: &str, define: &str| format!("  - code: {code}\n    define: {define}\n");
    let populations = population("initial-population", "Everybody") + &population("denominator", "Everybody") + &population("numerator", numerator);
    let head = "id: lab\nurl: http://watershed.example/fhir/Measure/lab\nversion: 1.0.0\nstatus: draft\ntitle: Lab\ndescription: Lab\nsteward: A test\n";
    write("lab/measure.yaml", &format!("{head}scoring: proportion\nimprovement: increase\npopulations:\n{populations}"));
    write("lab/lab.cql", &format!("{HEAD}{definitions}"));
    let of_patient = |resource: &&str| resource.replacen(',', r#","subject":{"reference":"Patient/p"},"#, 1);
    let lines: Vec<String> = std::iter::once(r#"{"resourceType":"Patient","id":"p"}"#.to_owned()).chain(resources.iter().map(of_patient)).collect();
    write("all.ndjson", &lines.join("\n"));
    let watershed = |arguments: &[&str]| {
        let all = [arguments, &["--data", "all.ndjson", "--period", "2026-02"]].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder.path()).args(all).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let report: serde_json::Value = serde_json::from_str(&watershed(&["evaluate", "--measure", "lab"])).unwrap();
    let explain = [&["measure", "explain", "lab", "--patient", "p", "--population", "numerator"], more].concat();
    (watershed(&explain), report["group"][0].clone())
}

/// What `explain` and `evaluate` say of a patient whose only lab value is below what can be measured.
fn of_a_comparator(numerator: &str) -> (String, serde_json::Value) {
    let definitions = "define \"Labs\": [Observation]\ndefine \"High\": \"Labs\" Lab where (Lab.value as FHIR.Quantity) > 3 'mg'\ndefine \"Any High\": exists \"High\"\n\
         define \"Told\": Coalesce(exists \"Labs\", (singleton from (flatten {\"Labs\", \"Labs\"})) is null)\ndefine \"Broken\": Message(1, exists \"Labs\", 'strange', 'Error', 'x') > 0\n";
    let lab =
        r#"{"resourceType":"Observation","id":"o","status":"final","valueQuantity":{"value":3,"comparator":"<","unit":"mg","system":"http://unitsofmeasure.org","code":"mg"}}"#;
    let (found, group) = of_one(definitions, &[lab], numerator, &[]);
    (found, group["population"][2]["count"].clone())
}

#[test]
fn what_ends_no_evaluation_ends_no_explanation() {
    let (found, count) = of_a_comparator("Any High");
    assert_eq!(count, 0);
    let code = "FHIRHelpers.ToQuantity.ComparatorQuantityNotSupported";
    assert!(found.contains("numerator (group-1): cannot tell\n") && found.matches(&format!("(`{code}` was raised)")).count() == 1, "where it was raised, once: {found}");
    let (found, count) = of_a_comparator("Broken");
    assert_eq!(count, 1);
    assert!(found.contains("numerator (group-1): in\n") && found.contains("(`strange` was raised)"), "{found}");
    let (found, count) = of_a_comparator("Told");
    assert_eq!(count, 1);
    assert!(found.contains("numerator (group-1): in\n") && found.contains("✓ exists \"Labs\""), "{found}");
    assert!(found.contains("is null = cannot tell: "), "what the evaluation did without is named: {found}");
}

/// Encounters of which nobody knows whether they are in the period, and one that is not.
const UNDATED: [&str; 8] = [
    r#"{"resourceType":"Encounter","id":"e1","status":"finished"}"#,
    r#"{"resourceType":"Encounter","id":"e2","status":"finished","period":{"end":"2026-02-20T10:00:00Z"}}"#,
    r#"{"resourceType":"Encounter","id":"e3","status":"finished","period":{"start":"2025-01-01T10:00:00Z","end":"2025-01-01T10:00:00Z"}}"#,
    r#"{"resourceType":"Encounter","id":"e4","period":{"start":"2025-01-01T10:00:00Z","end":"2025-01-01T10:00:00Z"}}"#,
    r#"{"resourceType":"Observation","id":"o1","status":"final"}"#,
    r#"{"resourceType":"Observation","id":"o2","status":"final","effectiveDateTime":"2026"}"#,
    r#"{"resourceType":"Observation","id":"o3","status":"final"}"#,
    r#"{"resourceType":"Condition","id":"c","code":{"text":"IBD"}}"#,
];

const QUERIES: &str = r#"
define "Where": exists ([Encounter] E where E.status.value = 'finished' and E.period during "Measurement Period")
define "With": exists ([Condition] C with [Encounter] E such that E.status.value = 'finished' and E.period during "Measurement Period")
define "Visits": [Encounter] E let at: start of E.period where at during "Measurement Period"
define "Nested": exists ([Condition] C where exists "Visits" and C.code is not null)
define function "In Period"(found List<FHIR.Observation>): found O where (O.effective as FHIR.dateTime) during "Measurement Period"
define "Called": exists "In Period"([Observation])
define "Many": exists (from [Encounter] E, [Observation] O where E.status.value = 'finished' and E.period during "Measurement Period" and O.status.value = 'final')
define "False": exists ([Encounter] E where E.status.value = 'planned' and E.period during "Measurement Period")
"#;

/// The lines of `explain` that say what was dropped.
fn dropped(numerator: &str) -> Vec<String> {
    let (found, group) = of_one(QUERIES, &UNDATED, numerator, &[]);
    assert_eq!(group["population"][2]["count"], 0, "the score is the standard's");
    found.lines().filter(|line| line.contains("dropped")).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn what_a_query_dropped_for_being_unknown_is_named_with_what_is_missing() {
    let period = "`Encounter.period` is not documented";
    let start = "`Encounter.period.start` is not documented";
    assert_eq!(dropped("Where"), [format!("? Encounter/e1 = dropped: {period}   Lab:8"), format!("? Encounter/e2 = dropped: {start}   Lab:8")]);
    assert_eq!(dropped("With"), [format!("? Condition/c = dropped: {period} in Encounter/e1, {start} in Encounter/e2   Lab:9")]);
    assert_eq!(dropped("Nested"), [format!("? Condition/c = dropped: {period} in Encounter/e1   Lab:10")]);
    assert_eq!(dropped("False"), Vec::<String>::new(), "of a row that fails in any case nothing is missing");
    assert_eq!(
        dropped("Called"),
        [
            "? Observation/o1 = dropped: `Observation.effective` is not documented   Lab:12",
            "? Observation/o2 = dropped: `In` cannot be told from what is known   Lab:12",
            "? Observation/o3 = dropped: `Observation.effective` is not documented   Lab:12",
        ]
    );
    let many = dropped("Many");
    assert_eq!(
        (many.len(), many[0].as_str(), many[5].as_str()),
        (6, format!("? Encounter/e1, Observation/o1 = dropped: {period}   Lab:14").as_str(), "? 1 more = dropped alike")
    );
}

#[test]
fn what_was_dropped_is_in_the_proof_for_programs_too() {
    let (found, _) = of_one(QUERIES, &UNDATED, "Where", &["--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let query = &found[0]["populations"][0]["proof"]["because"][0];
    assert_eq!((&query["value"], &query["verdict"]), (&"none".into(), &"false".into()), "{found:#}");
    let dropped = &query["because"][1];
    assert_eq!((&dropped["what"], &dropped["verdict"], &dropped["at"]["line"]), (&"Encounter/e1".into(), &"unknown".into(), &8.into()), "{found:#}");
    assert_eq!(dropped["value"], "dropped: `Encounter.period` is not documented");
}

#[test]
fn the_items_that_a_list_condition_counted_are_named() {
    let lab =
        |id: &str, code: &str| format!(r#"{{"resourceType":"Observation","id":"{id}","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}}}}"#);
    let ids: Vec<String> = (1..=3).map(|number| format!("{number}c1b2a3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d")).collect();
    let labs = [lab(&ids[0], "a"), lab(&ids[1], "a"), lab(&ids[2], "b")];
    let codes = "define \"A\": [Observation] O where exists (O.code.coding C where C.code.value = 'a')\ndefine \"B\": [Observation] O where exists (O.code.coding C where C.code.value = 'b')\n";
    let named = |ids: &[String]| ids.iter().map(|id| format!("Observation/{id}")).collect::<Vec<_>>().join(", ");
    for (condition, counted) in [
        ("exists (\"A\" union \"B\")", format!("\"A\" union \"B\" = 3: {}", named(&ids))),
        ("Count(\"A\" X return all X) >= 2", format!("\"A\" X return all X = 2: {}", named(&ids[..2]))),
        ("First(\"A\" X sort by id.value).status.value = 'final'", format!("First(\"A\" X sort by id.value) = {}", named(&ids[..1]))),
    ] {
        let all: Vec<&str> = labs.iter().map(String::as_str).collect();
        let (found, group) = of_one(&format!("{codes}define \"Asked\": {condition}\n"), &all, "Asked", &[]);
        assert_eq!(group["population"][2]["count"], 1, "{condition}");
        assert!(found.contains(&counted), "{counted}\n{found}");
    }
}
