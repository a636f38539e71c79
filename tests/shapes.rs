//! Measures of every shape that `check` calls sound: the report of each passes our own validation, and would not wait night after night.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use watershed::config::measures;
use watershed::measure::Choices;
use watershed::validate;

const LOGIC: &str = "library Shapes version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
     parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"All\": true\ndefine \"Girls\": Patient.gender = 'female'\n\
     define \"Stays\": [Encounter]\ndefine \"Long\": [Encounter] E where E.length > 24 'h'\ndefine \"Sex\": Patient.gender\ndefine \"Age\": AgeInYears()\n\
     define \"Hours\": Max([Encounter] E return E.length.value.value)\ndefine function \"Hours Of\"(stay Encounter): stay.length.value\n\
     define function \"Kind\"(stay Encounter): stay.class\n";
const DATA: &str = r#"{"resourceType":"Patient","id":"p","gender":"female","birthDate":"2011-01-01"}
{"resourceType":"Patient","id":"q","gender":"male","birthDate":"2011-01-01"}
{"resourceType":"Encounter","id":"e","subject":{"reference":"Patient/p"},"class":{"code":"IMP"},"length":{"value":73.5,"unit":"h","system":"http://unitsofmeasure.org","code":"h"}}
{"resourceType":"Encounter","id":"f","subject":{"reference":"Patient/q"},"class":{"code":"AMB"},"length":{"value":4,"unit":"h","system":"http://unitsofmeasure.org","code":"h"}}
"#;
/// Name and what stands in `measure.yaml` of how it is scored; whether events are counted.
const SCORINGS: [(&str, &str, bool); 8] = [
    (
        "proportion",
        "scoring: proportion\nimprovement: increase\npopulations:\n- {code: initial-population, define: All}\n- {code: denominator, define: All}\n- {code: numerator, define: Girls}\n",
        false,
    ),
    (
        "rate",
        "scoring: ratio\nimprovement: increase\nrate: {multiplier: 1000, unit: 'per 1,000 stays'}\nbasis: Encounter\npopulations:\n- {code: initial-population, define: Stays}\n- {code: denominator, define: Stays}\n- {code: numerator, define: Long}\n",
        true,
    ),
    (
        "observed",
        "scoring: ratio\nimprovement: increase\nbasis: Encounter\npopulations:\n- {code: initial-population, define: Stays}\n- {code: denominator, define: Stays}\n- {code: numerator, define: Long}\n\
     - {code: measure-observation, id: d, of: denominator, aggregate: sum, define: Hours Of}\n- {code: measure-observation, id: n, of: numerator, aggregate: sum, define: Hours Of}\n",
        true,
    ),
    (
        "median",
        "scoring: continuous-variable\nimprovement: increase\nbasis: Encounter\npopulations:\n- {code: initial-population, define: Stays}\n- {code: measure-population, define: Stays}\n\
     - {code: measure-observation, of: measure-population, aggregate: median, define: Hours Of}\n",
        true,
    ),
    ("cohort", "scoring: cohort\nimprovement: increase\npopulations:\n- {code: initial-population, define: Girls}\n", false),
    (
        "all",
        "scoring: composite\ncomposite-scoring: all-or-nothing\nimprovement: increase\ncomponents:\n- {measure: proportion-plain}\n- {measure: proportion-text}\n",
        false,
    ),
    (
        "linear",
        "scoring: composite\ncomposite-scoring: linear\nimprovement: decrease\ncomponents:\n- {measure: proportion-plain}\n- {measure: proportion-text}\n",
        false,
    ),
    (
        "weighted",
        "scoring: composite\ncomposite-scoring: weighted\nimprovement: increase\ncomponents:\n- {measure: proportion-plain, weight: 2}\n- {measure: proportion-text, weight: 1}\n",
        false,
    ),
];
/// Name and what stands there of strata and of supplemental data; whether it needs events.
const STRATA: [(&str, &str, bool); 9] = [
    ("plain", "", false),
    ("value", "stratifiers:\n- {id: by, define: Sex, strata: {female: girls}, policy: one}\n", false),
    ("text", "stratifiers:\n- {id: by, text: By sex, define: Sex}\nsupplemental-data:\n- {id: sex, define: Sex, text: Sex}\n- {id: age, define: Age}\n", false),
    ("parts", "stratifiers:\n- {id: by, components: [{id: sex, define: Sex}, {id: age, define: Age}]}\n", false),
    ("texts", "stratifiers:\n- {id: by, text: By both, components: [{id: sex, define: Sex, text: Sex, strata: {male: boys}}, {id: age, define: Age}]}\n", false),
    ("two", "stratifiers:\n- {id: by, text: By one, components: [{id: sex, define: Sex}]}\n- {id: age, define: Age}\n", false),
    (
        "number",
        "stratifiers:\n- {id: by, define: Hours}\n- {id: sex, define: Sex}\nsupplemental-data:\n- {id: hours, define: Hours}\n- {id: sex, define: Sex}\n",
        false,
    ),
    ("events", "stratifiers:\n- {id: by, define: Kind}\n- {id: long, kind: criteria, define: Long, text: Long stays}\n", true),
    ("mixed", "stratifiers:\n- {id: by, text: By kind, components: [{id: kind, define: Kind}, {id: sex, define: Sex}, {id: hours, define: Hours}]}\n", true),
];

/// The folders of all of them.
fn laid(folder: &Path) -> Vec<String> {
    std::fs::write(folder.join("all.ndjson"), DATA).unwrap();
    let mut all = Vec::new();
    for (scoring, scored, of_events) in SCORINGS {
        for (strata, divided, _) in STRATA.iter().filter(|(_, _, needs_events)| of_events || !needs_events) {
            let id = format!("{scoring}-{strata}");
            let head = format!("id: {id}\nurl: http://watershed.example/fhir/Measure/{id}\nversion: 1.0.0\nstatus: draft\ntitle: {id}\ndescription: {id}\nsteward: A test\n");
            std::fs::create_dir(folder.join(&id)).unwrap();
            std::fs::write(folder.join(&id).join("measure.yaml"), head + scored + divided).unwrap();
            std::fs::write(folder.join(&id).join("shapes.cql"), LOGIC).unwrap();
            all.push(id);
        }
    }
    all
}

fn texts(list: &Value, pointer: &str) -> Vec<String> {
    list.as_array()
        .map_or(Vec::new(), |all| all.iter().map(|one| one.pointer(pointer).map_or("-".to_owned(), |text| text.as_str().unwrap().to_owned())).collect())
}

#[test]
fn what_check_calls_sound_makes_reports_that_may_leave() {
    let folder = tempfile::tempdir().unwrap();
    let ids = laid(folder.path());
    let paths: Vec<_> = ids.iter().map(|id| folder.path().join(id)).collect();
    let (loaded, found) = measures::load(&paths, &[], &Choices::default());
    let loaded = loaded.unwrap_or_else(|| panic!("{}", watershed::diagnostic::render_human(&found, false)));
    let named: Vec<&str> = ids.iter().flat_map(|id| ["--measure", id]).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    let output = command
        .current_dir(folder.path())
        .arg("evaluate")
        .args(named)
        .args(["--data", "all.ndjson", "--period", "2026-02"])
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(out.lines().count(), ids.len(), "{}", String::from_utf8_lossy(&output.stderr));
    for (line, measure) in out.lines().zip(&loaded.measures) {
        let mut report: Value = serde_json::from_str(line).unwrap();
        let id = measure.definition.id.value.as_str();
        assert!(report["measure"].as_str().unwrap().contains(id), "{id}");
        assert!(!validate::blocks(&validate::check(&report)), "{id}: {:?}", validate::check(&report));
        let (supplements, stratifiers) = measure.varying();
        let told: Vec<String> = validate::leave_out(&mut report, &supplements, &stratifiers).into_iter().map(|one| one.message).collect();
        assert!(!validate::blocks(&validate::check(&report)), "{id}: {:?}", validate::check(&report));
        let divided = &report["group"][0]["stratifier"];
        let kept: Vec<bool> = divided.as_array().map_or(Vec::new(), |all| all.iter().map(|one| one.get("stratum").is_some()).collect());
        let (codes, left) = (texts(divided, "/code/0/text"), told.iter().map(|one| one.split('`').nth(1).unwrap()).collect::<Vec<_>>());
        let strata = id.rsplit('-').next().unwrap();
        let (codes_expected, kept_expected, left_expected): (&[&str], &[bool], &[&str]) = match strata {
            "plain" => (&[], &[], &[]),
            "value" => (&["by"], &[true], &[]),
            "text" => (&["By sex"], &[true], &[]),
            "parts" | "texts" => (&["-"], &[true], &[]),
            "two" => (&["-", "age"], &[true, true], &[]),
            "number" => (&["by", "sex"], &[false, true], &["by", "hours"]),
            "events" => (&["by", "Long stays"], &[true, true], &[]),
            _ => (&["-"], &[false], &["by"]),
        };
        assert_eq!(
            (codes.as_slice(), kept.as_slice(), left.as_slice()),
            (codes_expected.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>().as_slice(), kept_expected, left_expected),
            "{id}"
        );
    }
}
