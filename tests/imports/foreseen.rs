//! What is said of an import before it is pulled: rows that no measure would count, and what a pull would change.

use std::collections::BTreeMap;

use serde_json::Value;
use watershed::source::import;

use super::{EXAMPLE, LAB, ROWS, Ward, output, site};

/// What is written, what is written instead, and what is said of that; nothing where nothing is wrong.
const UNCOUNTED: [(&str, &str, &str); 10] = [
    ("", "", ""),
    (
        "CLABSI: clabsi",
        "CLABSI: clabsy",
        "warning: column `Determination`: no measure asks for `clabsy` of `http://watershed.example/fhir/CodeSystem/hac` (tables/clabsi.yaml:19:15)",
    ),
    (
        "code: clabsi-determination",
        "code: clabsi-determinatoin",
        "warning: no measure asks for `clabsi-determinatoin` of `http://watershed.example/fhir/CodeSystem/hac` (tables/clabsi.yaml:32:70)",
    ),
    (
        "system: http://watershed.example/fhir/CodeSystem/hac\n",
        "system: http://watershed.example/fhir/CodeSystem/hak\n",
        "warning: column `Determination`: no measure asks for codes of `http://watershed.example/fhir/CodeSystem/hak`",
    ),
    (
        "status: final",
        "status: preliminary",
        "warning: `status` is `preliminary`, and wherever it is looked at hac-clabsi asks for `final` (tables/clabsi.yaml:29:11)",
    ),
    (
        "effectiveDateTime",
        "issued",
        "warning: rows do not say when they were: hac-clabsi asks by `effectiveDateTime`, `effectiveInstant`, `effectivePeriod`, `effectiveTiming` (tables/clabsi.yaml:28:3)",
    ),
    ("effectiveDateTime: \"{Infection onset}\"", "effectivePeriod: {start: \"{Infection onset}\"}", ""),
    // A table may hold more than is asked for.
    (
        "  code:\n    coding:\n      - {system: http://watershed.example/fhir/CodeSystem/hac, code: clabsi-determination}\n",
        "  code: \"{Reviewed by}\"\n",
        "note: column `Reviewed by`: no measure asks for `ventilator` at `code` (tables/clabsi.yaml:23:140)",
    ),
    // Of what they do not look at nothing is said.
    ("  performer:", "  interpretation: [{coding: [{system: s, code: H}]}]\n  performer:", ""),
    (
        "      CLABSI: clabsi\n      MBI-LCBI: mbi-lcbi\n      Secondary: not-clabsi\n      Not a CLABSI: not-clabsi\n",
        "      CLABSI: pending\n",
        "warning: column `Determination`: no measure asks for `pending` at `valueCodeableConcept`",
    ),
];

#[tokio::test]
async fn rows_that_no_measure_would_count_are_told_where_they_are_declared() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path());
    for (written, instead, expected) in UNCOUNTED {
        assert!(EXAMPLE.contains(written), "{written}");
        let of_column = "{type: code, system: http://watershed.example/fhir/CodeSystem/hac, optional: true, map: {CLABSI: clabsi-determination, VAP: ventilator}}";
        let column = if instead.contains("{Reviewed by}") { of_column } else { "{type: text, optional: true}" };
        let example = EXAMPLE.replacen(written, instead, usize::from(!written.is_empty())).replace("{type: text, optional: true}", column);
        let example = if column == of_column { example.replace("  performer:\n    - display: \"{Reviewed by}\"\n", "") } else { example };
        std::fs::write(folder.path().join("tables/clabsi.yaml"), example).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"));
        command.args(["check", "--offline", "--format", "json"]).current_dir(folder.path());
        let said: Value = serde_json::from_slice(&output(command).await.stdout).unwrap();
        let of_import = |finding: &&Value| finding["at"]["file"].as_str().is_some_and(|file| file.ends_with("clabsi.yaml"));
        let line = |one: &Value| {
            format!(
                "{}: {} ({}:{}:{})",
                one["severity"].as_str().unwrap(),
                one["message"].as_str().unwrap(),
                one["at"]["file"].as_str().unwrap(),
                one["at"]["line"],
                one["at"]["column"]
            )
        };
        let found: Vec<String> = said["findings"].as_array().unwrap().iter().filter(of_import).map(line).collect();
        match expected {
            "" => assert_eq!(found, [""; 0], "{instead}"),
            expected => assert!(found.len() == 1 && found[0].contains(expected), "{instead}: {found:?}\n{said}"),
        }
    }
}

#[tokio::test]
async fn what_an_import_would_change_is_what_a_pull_changes() {
    let mut ward = Ward::new();
    ward.pull().await;
    // As many rows, under other keys: nothing of it is taken.
    ward.write("lab.csv", ROWS.replace("2026-01", "2025-11"));
    let foreseen = ward.difference();
    assert!(foreseen.gap.is_some() && foreseen.is_left && foreseen.kept == 3, "{foreseen:?}");
    let outcome = ward.pull().await;
    assert_eq!((foreseen.new.count + foreseen.changed.count, foreseen.gone), (outcome.new_versions, outcome.removed));
    // A table that breaks off: what stands before is taken, and nothing goes.
    ward.write("lab.csv", "MRN,day,value,remark\n0010,2026-01-01,9,\n0010,2026-01-02,2,\"a, \"\"b\"\"\"\n0020,2026-01-01,3");
    let foreseen = ward.difference();
    let outcome = ward.pull().await;
    assert_eq!((foreseen.new.count + foreseen.changed.count, foreseen.gone), (outcome.new_versions, outcome.removed), "{foreseen:?}");
    assert!(foreseen.gap.is_some() && !foreseen.is_left && foreseen.kept == 1, "{foreseen:?}");
    // So it is of one whose file has another name now.
    std::fs::rename(ward.path("lab.csv"), ward.path("labs.csv")).unwrap();
    let foreseen = ward.difference();
    assert_eq!((foreseen.gone, foreseen.kept), (0, 3));
    assert!(foreseen.gap.unwrap().starts_with("there is no file `lab.csv`"));
    assert_eq!(ward.pull().await.removed, 0);
    // Under another name its rows are others, and the former ones go.
    ward.write("lab.csv", ROWS);
    ward.declare(&[&LAB.replace("name: lab", "name: labs")]);
    let forsaken = import::forsaken(&ward.options.tuning.imports, &ward.snapshot()).unwrap();
    assert_eq!((ward.difference().new.count, forsaken), (3, BTreeMap::from([("lab".to_owned(), 3)])));
    assert_eq!(ward.pull().await.removed, 3);
    // Of a type that no measure needs nothing is stored, and what was goes.
    let foreseen = import::difference(&ward.options.tuning.imports[0], &ward.snapshot(), &["Patient".to_owned()].into(), false).unwrap();
    assert_eq!((foreseen.is_left, foreseen.gone, foreseen.new.count), (true, 3, 0));
}
