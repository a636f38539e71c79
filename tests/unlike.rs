//! Values that are documented and were not used, or as something else - other units, comparators, codes by other names - from the data to what a person is told.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::bed::key;

const MEASURE: &str = "id: glucose\nurl: http://net.example/Measure/glucose\nversion: 1.0.0\nstatus: draft\ntitle: Glucose\ndescription: Those whose glucose was high\n\
    steward: net\nsources: [ours]\nscoring: proportion\nbasis: Patient\nimprovement: decrease\nperiod: month\nlibrary: glucose.cql\npopulations:\n  \
    - {code: initial-population, define: Everybody, text: Everybody}\n  - {code: denominator, define: Everybody, text: Everybody}\n  \
    - {code: numerator, define: High, text: High}\n";

const CQL: &str = "library Glucose version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
    codesystem \"LOINC\": 'http://loinc.org'\ncode \"Glucose\": '2345-7' from \"LOINC\"\nparameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\n\
    define \"Everybody\": true\n\
    define \"High\": exists ([Observation: \"Glucose\"] O where O.status.value = 'final' and (O.value as FHIR.Quantity) > 100 'mg/dL') or exists \"Parts\"\n\
    define \"Parts\": [Observation] P where exists (P.component C where FHIRHelpers.ToConcept(C.code) ~ \"Glucose\"\n\
    and (C.value as FHIR.Quantity) in Interval[100 'mg/dL', 1000 'mg/dL'])\n";

const MAPPING: &str = "name: ours\nversion: 1.0.0\ncodes:\n  - {system: http://ours/lab, to: http://loinc.org, elements: [Observation.code], map: {GLU: 2345-7}}\n";

/// Seven patients with one glucose each: local, in another unit, in none of UCUM, above what was measured, as a text, under another name,
/// without a unit.
const GLUCOSE: [(&str, &str, &str); 7] = [
    ("http://ours/lab|GLU", r#""value":120"#, r#""code":"mg/dL""#),
    ("http://loinc.org|2345-7", r#""value":7"#, r#""code":"mmol/L""#),
    ("http://loinc.org|2345-7", r#""value":120"#, r#""unit":"MG/DL""#),
    ("http://loinc.org|2345-7", r#""comparator":">","value":600"#, r#""code":"mg/dL""#),
    ("http://loinc.org|2345-7", r#""value":"120""#, r#""code":"mg/dL""#),
    ("http://loinc.org/|2345-7", r#""value":120"#, r#""code":"mg/dL""#),
    ("http://loinc.org|2345-7", r#""value":120"#, r#""system":"http://unitsofmeasure.org""#),
];

/// One more has it as a part of a panel.
const PANEL: &str = r#"{"resourceType":"Observation","id":"o7","status":"final","subject":{"reference":"Patient/p7"},"code":{"text":"Panel"},"component":[{"code":{"coding":[{"system":"http://loinc.org","code":"2345-7"}]},"valueQuantity":{"value":7,"unit":"mmol/L"}}]}"#;

/// A site with its data in files.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("measure/measure.yaml", MEASURE);
        write("measure/glucose.cql", CQL);
        write("ours.yaml", MAPPING);
        let patients = (0..=GLUCOSE.len()).map(|number| format!("{{\"resourceType\":\"Patient\",\"id\":\"p{number}\"}}\n"));
        write("drop/Patient.ndjson", &patients.collect::<String>());
        let observation = |(number, (code, value, unit)): (usize, &(&str, &str, &str))| {
            let (system, code) = code.split_once('|').unwrap();
            format!(
                "{{\"resourceType\":\"Observation\",\"id\":\"o{number}\",\"status\":\"final\",\"subject\":{{\"reference\":\"Patient/p{number}\"}},\
                 \"code\":{{\"coding\":[{{\"system\":\"{system}\",\"code\":\"{code}\"}}]}},\"valueQuantity\":{{{value},{unit}}}}}\n"
            )
        };
        write("drop/Observation.ndjson", &(GLUCOSE.iter().enumerate().map(observation).collect::<String>() + PANEL));
        key(folder.path(), "registry-key.pem");
        write(
            "site.toml",
            "[site]\nid = \"ours\"\ntime_zone = \"Europe/Berlin\"\ndata = \"data\"\n[source]\nfolder = \"drop\"\n[mapping]\nfile = \"ours.yaml\"\n[measures]\n\
             folders = [\"measure\"]\nmonths = 1\n[registry]\nurl = \"http://127.0.0.1:9\"\nclient_id = \"ours\"\nkey_file = \"registry-key.pem\"\n",
        );
        Site(folder)
    }

    fn path(&self) -> &Path {
        let Site(folder) = self;
        folder.path()
    }

    /// What a command writes to stdout, and to stderr.
    fn say(&self, arguments: &[&str]) -> (String, String) {
        let said = Command::new(env!("CARGO_BIN_EXE_watershed")).args(arguments).current_dir(self.path()).output().unwrap();
        (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap())
    }
}

const NOT_COUNTED: [&str; 5] = [
    "`Observation.valueQuantity` of `2345-7` of 1 patient has no unit, and is compared with `mg/dL`: its value was not used",
    "`Observation.component.valueQuantity` of `2345-7` of 1 patient has the unit `mmol/L`, which cannot be compared with `mg/dL`: its value was not used",
    "`Observation.valueQuantity` of `2345-7` of 1 patient has the unit `MG/DL`, which cannot be compared with `mg/dL`: its value was not used",
    "`Observation.valueQuantity` of `2345-7` of 1 patient has the unit `mmol/L`, which cannot be compared with `mg/dL`: its value was not used",
    "`Observation.valueQuantity` of `2345-7` of 1 patient has a comparator, as `>` or `<`: how large it is is not known, and its value was not used",
];

fn extension<'v>(value: &'v Value, end: &str) -> Vec<&'v Value> {
    let all = value["extension"].as_array().into_iter().flatten();
    all.filter(|one| one["url"].as_str().is_some_and(|url| url.ends_with(end))).collect()
}

#[test]
fn what_is_documented_and_not_counted_is_told_by_every_command_and_in_the_report() {
    let site = Site::new();
    let (pulled, _) = site.say(&["pull"]);
    let (known, said) = site.say(&["known", "--format", "json"]);
    let (_, evaluated) = site.say(&["evaluate", "--measure", "measure", "--data", "drop", "--period", "2026-01"]);
    for line in NOT_COUNTED {
        assert!(pulled.contains(line) && said.contains(line) && evaluated.contains(&format!("warning: {line}")), "{line}\n{pulled}\n{said}\n{evaluated}");
    }
    let stranger = "`Observation.code` of 1 patient has codes of `http://loinc.org/`, which no rule of codes and no measure names; `http://loinc.org` is near";
    assert!(pulled.contains(stranger) && said.contains(stranger) && evaluated.contains(&format!("warning: {stranger}")), "{pulled}\n{said}\n{evaluated}");
    let tells = |text: &str| text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == "600");
    assert!(!tells(&pulled) && !tells(&said), "no value is told: {pulled}\n{said}");
    let report: Value = serde_json::from_str(known.lines().next().unwrap()).unwrap();
    assert_eq!(report["group"][0]["population"][2]["count"], 1, "the local one");
    // Five of eight could be in the numerator, if what could not be used were known.
    let bounds = extension(&report["group"][0], "/score-bounds")[0]["extension"].to_string();
    assert!(bounds.contains(r#""url":"low","valueDecimal":0.125"#) && bounds.contains(r#""url":"high","valueDecimal":0.75"#), "{bounds}");
    let quality = extension(&report, "/data-quality")[0];
    let shown = |one: &&Value| {
        one["extension"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|part| part["valueCode"].as_str().or(part["valueString"].as_str()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let doubts: Vec<String> = extension(quality, "doubt").iter().map(shown).collect();
    assert_eq!(
        doubts,
        [
            "comparator Observation.valueQuantity http://loinc.org 2345-7",
            "unlike-unit Observation.component.valueQuantity http://loinc.org 2345-7 mmol/L mg/dL",
            "unlike-unit Observation.valueQuantity http://loinc.org 2345-7 mg/dL",
            "unlike-unit Observation.valueQuantity http://loinc.org 2345-7 MG/DL mg/dL",
            "unlike-unit Observation.valueQuantity http://loinc.org 2345-7 mmol/L mg/dL",
        ]
    );
}

/// Who has no value that is not high is counted where a value is missing, and was not measured where one cannot be used.
#[test]
fn who_is_counted_for_want_of_a_value_that_could_not_be_used_may_not_be() {
    let site = Site::new();
    std::fs::write(
        site.path().join("measure/glucose.cql"),
        CQL.replace("define \"High\": ", "define \"High\": not (\"Known\" or \"Nobody\")\ndefine \"Nobody\": \"Known\" and false\ndefine \"Known\": "),
    )
    .unwrap();
    let (report, _) = site.say(&["evaluate", "--measure", "measure", "--data", "drop", "--period", "2026-01"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let group = &report["group"][0];
    assert_eq!(group["population"][2]["count"], 8, "nothing of the local codes is translated here");
    let parts = |end: &str| extension(group, end)[0]["extension"].to_string();
    assert!(parts("/cannot-tell").contains(r#""url":"count","valueInteger":5"#), "{}", parts("/cannot-tell"));
    assert!(parts("/score-bounds").contains(r#""url":"low","valueDecimal":0.375"#), "{}", parts("/score-bounds"));
    assert!(parts("/score-bounds").contains(r#""url":"high","valueDecimal":1"#), "{}", parts("/score-bounds"));
}

/// Once for an element and a name, of those names only that may be meant; in one pass or, with more patients than fit, in several.
#[test]
fn systems_by_other_names_are_told_of_files() {
    let site = Site::new();
    let line = |number: usize, system: &str| {
        format!(
            "{{\"resourceType\":\"Patient\",\"id\":\"q{number}\"}}\n{{\"resourceType\":\"Observation\",\"id\":\"o{number}\",\"status\":\"final\",\"subject\":{{\"reference\":\"Patient/q{number}\"}},\
             \"code\":{{\"coding\":[{{\"system\":\"{system}\",\"code\":\"2345-7\"}}]}},\"note\":[{{\"text\":\"{}\"}}]}}\n",
            "x".repeat(8_000)
        )
    };
    let systems = ["LOINC", "urn:oid:2.16.840.1.113883.6.1", "http://ours/lab", "http://loinc.org"];
    let stranger = |name: &str, patients: usize| {
        format!(
            "warning: `Observation.code` of {patients} patients has codes of `{name}`, which no rule of codes and no measure names; `http://loinc.org` is near, and codes \
             under two names are never equal: have them written by that name, or translated by a site's mapping"
        )
    };
    let elsewhere = |patients: usize| {
        format!(
            "warning: `Observation.code` of {patients} patients has codes of `http://ours/lab`, `2345-7`, which measures ask for of `http://loinc.org`: they are counted \
             nowhere; have them written as their system does, or translated by a site's mapping"
        )
    };
    for (patients, memory) in [(8, "1GiB"), (1_600, "16MiB")] {
        std::fs::write(site.path().join("drop/Patient.ndjson"), (0..patients).zip(systems.iter().cycle()).map(|(number, system)| line(number, system)).collect::<String>())
            .unwrap();
        std::fs::write(site.path().join("drop/Observation.ndjson"), "").unwrap();
        let (_, said) = site.say(&["evaluate", "--measure", "measure", "--data", "drop/Patient.ndjson", "--period", "2026-01", "--memory", memory]);
        let expected = [stranger("LOINC", patients / 4), stranger("urn:oid:2.16.840.1.113883.6.1", patients / 4), elsewhere(patients / 4)];
        assert_eq!(said.lines().filter(|line| line.contains("codes of")).collect::<Vec<_>>(), expected, "{said}");
    }
}

#[test]
fn a_patient_of_the_snapshot_is_explained_as_the_mapping_has_it() {
    let site = Site::new();
    let explain = |patient: &str| site.say(&["measure", "explain", "--config", "site.toml", "--patient", patient, "--period", "2026-01"]);
    assert!(explain("p0").1.contains("there is no pull yet"), "{}", explain("p0").1);
    site.say(&["pull"]);
    assert!(explain("p0").0.contains("numerator (group-1): in"), "{}", explain("p0").0);
    assert!(explain("p1").0.contains("`Greater` cannot be told: `mmol/L` cannot be compared with `mg/dL`"), "{}", explain("p1").0);
    let (above, _) = explain("p3");
    assert!(
        above.contains("`Observation.valueQuantity` has a comparator, as `>` or `<`: how large it is is not known") && !above.contains("no value is documented"),
        "{above}"
    );
    assert!(explain("p9").1.contains("the snapshot holds nothing of that patient"), "{}", explain("p9").1);
}

#[test]
fn a_rule_that_meets_nothing_is_told_with_what_is_near() {
    let site = Site::new();
    std::fs::write(site.path().join("ours.yaml"), MAPPING.replace("http://ours/lab", "http://ours/labs")).unwrap();
    let (pulled, _) = site.say(&["pull"]);
    assert!(pulled.contains("the mapping's rule of `http://ours/labs` at `Observation.code` matched nothing in the data; `http://ours/lab` is there, and near"), "{pulled}");
}

/// What converts by UCUM's tables and may mean something else, and what is there as another type: told. What is of one kind: nothing.
const HEMOGLOBIN: [(&str, &str); 8] = [
    (
        r#""valueQuantity":{"value":53,"code":"mmol/mol"}"#,
        "`Observation.valueQuantity` of `4548-4` of 1 patient has the unit `mmol/mol`, which converts to `%` and may be of another scale, as hemoglobin A1c by IFCC and by NGSP: it was compared as converted; have it written in the unit that is asked for",
    ),
    (
        r#""valueQuantity":{"value":7.2}"#,
        "`Observation.valueQuantity` of `4548-4` of 1 patient has no unit, and was compared with `%` as a pure number, as 0.07 is 7 %: have its unit written, if it is another",
    ),
    (r#""valueString":"7.2 %""#, "`Observation.valueString` of `4548-4` of 1 patient stands where a quantity is compared with `%`: its value was not used"),
    (r#""valueInteger":7"#, "`Observation.valueInteger` of `4548-4` of 1 patient stands where a quantity is compared with `%`: its value was not used"),
    (r#""valueQuantity":{"value":72,"code":"g/kg"}"#, ""),
    (r#""valueQuantity":{"value":0.072,"code":"1"}"#, ""),
    (r#""valueQuantity":{"value":7.2,"unit":"%"}"#, ""),
    (r#""dataAbsentReason":{"text":"x"}"#, ""),
];

#[test]
fn what_compares_and_may_mean_something_else_is_told() {
    let site = Site::new();
    let rule = CQL.replace("2345-7", "4548-4").replace("100 'mg/dL', 1000 'mg/dL'", "9 '%', 20 '%'").replace("100 'mg/dL'", "9 '%'");
    std::fs::write(site.path().join("measure/glucose.cql"), &rule).unwrap();
    std::fs::write(site.path().join("drop/Patient.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"p1\"}\n").unwrap();
    let of = |value: &str| {
        format!(
            "{{\"resourceType\":\"Observation\",\"id\":\"o1\",\"status\":\"final\",\"subject\":{{\"reference\":\"Patient/p1\"}},\"code\":{{\"coding\":[{{\"system\":\"http://loinc.org\",\"code\":\"4548-4\"}}]}},{value}}}\n"
        )
    };
    for (value, expected) in HEMOGLOBIN {
        std::fs::write(site.path().join("drop/Observation.ndjson"), of(value)).unwrap();
        let (_, said) = site.say(&["evaluate", "--measure", "measure", "--data", "drop", "--period", "2026-01"]);
        let told: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("warning: `Observation.value")).collect();
        let expected: Vec<&str> = expected.strip_prefix("`Observation.value").into_iter().collect();
        assert_eq!(told, expected, "{value}: {said}");
    }
    // What the measure reads as a text too is no loss.
    let both = rule.replace("(O.value as FHIR.Quantity) > 9 '%'", "((O.value as FHIR.Quantity) > 9 '%' or (O.value as FHIR.string).value = 'high')");
    assert_ne!(both, rule);
    std::fs::write(site.path().join("measure/glucose.cql"), both).unwrap();
    std::fs::write(site.path().join("drop/Observation.ndjson"), of(r#""valueString":"low""#)).unwrap();
    let (_, said) = site.say(&["evaluate", "--measure", "measure", "--data", "drop", "--period", "2026-01"]);
    assert!(!said.contains("valueString"), "{said}");
}

/// What is kept as it came and is found not to be readable when it is evaluated makes reports partial, and is told.
#[test]
fn a_resource_that_no_reader_can_take_is_told() {
    let site = Site::new();
    let odd = PANEL.replace("\"text\":\"Panel\"", "\"text\":\"\\ud800\"");
    assert_ne!(odd, PANEL);
    std::fs::write(site.path().join("drop/Observation.ndjson"), odd).unwrap();
    let (pulled, _) = site.say(&["pull"]);
    assert!(pulled.contains("`Observation` of 1 patient cannot be read: what it says is not known, and reports that ask for it are partial"), "{pulled}");
}

const CROHN: &str = "library Glucose version '1.0.0'\nusing FHIR version '4.0.1'\n\
    codesystem \"ICD-10-CM\": 'http://hl7.org/fhir/sid/icd-10-cm'\ncodesystem \"LOINC\": 'http://loinc.org'\n\
    code \"Crohn\": 'K50.90' from \"ICD-10-CM\"\ncode \"Glucose\": '2345-7' from \"LOINC\"\ncontext Patient\n\
    define \"Everybody\": true\n\
    define \"High\": exists [Condition: \"Crohn\"] or exists ([Observation: \"Glucose\"] O where O.status.value = 'final')\n";

/// Codes as hospitals write them, of two patients each: the lines are read though the code that is asked for does not stand in them, and
/// whoever searches by codes says what is wrong as well.
#[test]
fn codes_that_are_nearly_asked_for_and_resources_without_status_are_told_by_every_command() {
    let site = Site::new();
    std::fs::write(site.path().join("measure/glucose.cql"), CROHN).unwrap();
    let icd = "http://hl7.org/fhir/sid/icd-10-cm";
    let codes = [(icd, "K5090"), ("http://hl7.org/fhir/sid/icd-10", "K50.90"), ("", "K50.90"), (icd, "K50.90"), (icd, "K50.9")];
    let condition = |(number, (system, code)): (usize, &(&str, &str))| {
        let system = if system.is_empty() { String::new() } else { format!("\"system\":\"{system}\",") };
        format!(
            "{{\"resourceType\":\"Condition\",\"id\":\"c{number}\",\"subject\":{{\"reference\":\"Patient/p{}\"}},\"code\":{{\"coding\":[{{{system}\"code\":\"{code}\"}}]}}}}\n",
            number / codes.len()
        )
    };
    std::fs::write(site.path().join("drop/Condition.ndjson"), codes.iter().chain(&codes).enumerate().map(condition).collect::<String>()).unwrap();
    let observations = (0..2).map(|number| {
        format!("{{\"resourceType\":\"Observation\",\"id\":\"o{number}\",\"subject\":{{\"reference\":\"Patient/p{number}\"}},\"code\":{{\"coding\":[{{\"system\":\"http://loinc.org\",\"code\":\"2345-7\"}}]}}}}\n")
    });
    std::fs::write(site.path().join("drop/Observation.ndjson"), observations.collect::<String>()).unwrap();
    let expected = [
        "`Condition.code` of 2 patients has codes without a system, `K50.90`, which measures ask for of `http://hl7.org/fhir/sid/icd-10-cm`: they are counted nowhere",
        "`Condition.code` of 2 patients has codes of `http://hl7.org/fhir/sid/icd-10`, `K50.90`, which measures ask for of `http://hl7.org/fhir/sid/icd-10-cm`",
        "`Condition.code` of 2 patients has codes of `http://hl7.org/fhir/sid/icd-10-cm` that are nearly what measures ask for, `K5090` for `K50.90`",
        "`Observation.status` of 2 patients is missing, which FHIR demands",
    ];
    let (_, evaluated) = site.say(&["evaluate", "--measure", "measure", "--data", "drop", "--period", "2026-01"]);
    let (pulled, _) = site.say(&["pull"]);
    let (_, known) = site.say(&["known", "--format", "json"]);
    for line in expected {
        assert!(known.contains(line), "{line}\n{known}");
        assert!(evaluated.contains(&format!("warning: {line}")) && pulled.contains(line), "{line}\n{evaluated}\n{pulled}");
    }
    assert_eq!(evaluated.matches("`Condition.code`").count(), 3, "{evaluated}");
}
