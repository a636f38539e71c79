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
