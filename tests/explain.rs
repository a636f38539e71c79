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

const LAB: &str = "library Lab version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
     parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Everybody\": true\n\
     define \"Labs\": [Observation]\ndefine \"High\": \"Labs\" Lab where (Lab.value as FHIR.Quantity) > 3 'mg'\ndefine \"Any High\": exists \"High\"\n\
     define \"Told\": Coalesce(exists \"Labs\", (singleton from (flatten {\"Labs\", \"Labs\"})) is null)\ndefine \"Broken\": Message(1, exists \"Labs\", 'strange', 'Error', 'x') > 0\n";

/// What `explain` and `evaluate` say of a patient whose only lab value is below what can be measured.
fn of_a_comparator(numerator: &str) -> (String, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("lab")).unwrap();
    let population = |code: &str, define: &str| format!("  - code: {code}\n    define: {define}\n");
    let populations = population("initial-population", "Everybody") + &population("denominator", "Everybody") + &population("numerator", numerator);
    let head = "id: lab\nurl: http://watershed.example/fhir/Measure/lab\nversion: 1.0.0\nstatus: draft\ntitle: Lab\ndescription: Lab\nsteward: A test\n";
    write("lab/measure.yaml", &format!("{head}scoring: proportion\nimprovement: increase\npopulations:\n{populations}"));
    write("lab/lab.cql", LAB);
    write(
        "all.ndjson",
        r#"{"resourceType":"Patient","id":"p"}
{"resourceType":"Observation","id":"o","subject":{"reference":"Patient/p"},"status":"final","valueQuantity":{"value":3,"comparator":"<","unit":"mg","system":"http://unitsofmeasure.org","code":"mg"}}
"#,
    );
    let watershed = |arguments: &[&str]| {
        let all = [arguments, &["--data", "all.ndjson", "--period", "2026-02"]].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder.path()).args(all).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let report: serde_json::Value = serde_json::from_str(&watershed(&["evaluate", "--measure", "lab"])).unwrap();
    (watershed(&["measure", "explain", "lab", "--patient", "p", "--population", "numerator"]), report["group"][0]["population"][2]["count"].clone())
}

#[test]
fn what_ends_no_evaluation_ends_no_explanation() {
    let (found, count) = of_a_comparator("Any High");
    assert_eq!(count, 0);
    let code = "FHIRHelpers.ToQuantity.ComparatorQuantityNotSupported";
    assert!(found.contains("numerator (group-1): not in\n") && found.matches(&format!("(`{code}` was raised)")).count() == 1, "where it was raised, once: {found}");
    let (found, count) = of_a_comparator("Broken");
    assert_eq!(count, 1);
    assert!(found.contains("numerator (group-1): in\n") && found.contains("(`strange` was raised)"), "{found}");
    let (found, count) = of_a_comparator("Told");
    assert_eq!(count, 1);
    assert!(found.contains("numerator (group-1): in\n") && found.contains("✓ exists \"Labs\""), "{found}");
    assert!(found.contains("is null = cannot tell: "), "what the evaluation did without is named: {found}");
}
