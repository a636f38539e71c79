//! What is observed of members: the null observation is left out of the score and of how many it is of, in reports as in cases.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const MEASURE: &str = "id: stay\nurl: http://watershed.example/fhir/Measure/stay\nversion: 1.0.0\nstatus: draft\ntitle: Stay\ndescription: Stay\nsteward: A test\n\
     scoring: continuous-variable\nbasis: Encounter\nimprovement: decrease\npopulations:\n  - code: initial-population\n    define: Stays\n  - code: measure-population\n    \
     define: Stays\n  - code: measure-observation\n    of: measure-population\n    aggregate: median\n    define: Hours\n";
const LOGIC: &str = "library Stay version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
     parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Stays\": [Encounter]\n\
     define function \"Hours\"(stay Encounter): stay.length.value\n";

/// One patient, with a stay for each length; `null` for one of which nothing is known.
fn laid(lengths: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("stay/cases")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("stay/measure.yaml", MEASURE);
    write("stay/stay.cql", LOGIC);
    let length = |length: &&str| if *length == "null" { String::new() } else { format!(r#","length":{{"value":{length},"unit":"h"}}"#) };
    let stay = |(at, known): (usize, &&str)| format!(r#"{{"resourceType":"Encounter","id":"e{at}","subject":{{"reference":"Patient/p"}}{}}}"#, length(known));
    let lines: Vec<String> = lengths.iter().enumerate().map(stay).chain([r#"{"resourceType":"Patient","id":"p"}"#.to_owned()]).collect();
    write("all.ndjson", &(lines.join("\n") + "\n"));
    folder
}

fn watershed(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout) + &text(output.stderr))
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    list.as_array().unwrap().iter().find(|one| one["url"].as_str().unwrap().ends_with(name)).unwrap()
}

/// A quantity, its value as FHIR has it, and as CQL does.
#[test]
fn an_observation_may_be_an_element_as_it_stands() {
    let folder = laid(&["4", "9"]);
    for observed in ["stay.length", "stay.length.value", "stay.length.value.value", "(stay.length as FHIR.Quantity).value + 0"] {
        std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.replace("stay.length.value", observed)).unwrap();
        let (_, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
        assert!(out.contains(r#""measureScore":{"value":6.5}"#), "{observed}: {out}");
    }
}

#[test]
fn a_null_observation_is_not_counted() {
    for (lengths, population, of, median) in [(&["4", "null", "9"][..], 3, 2, Some(6.5)), (&["null"], 1, 0, None)] {
        let folder = laid(lengths);
        let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|fault| panic!("{fault}: {out}"));
        let group = &report["group"][0];
        assert_eq!((code, &group["population"][1]["count"]), (0, &population.into()), "{out}");
        assert_eq!(named(&group["extension"], "score-parts")["extension"][0]["valueDecimal"], of, "{out}");
        assert_eq!(group["measureScore"]["value"].as_f64(), median, "{out}");
        let quantity = &named(&group["population"][2]["extension"], "countQuantity")["valueQuantity"];
        assert_eq!(quantity["value"].as_f64(), median, "{quantity}");
        assert_eq!(quantity["extension"][0]["valueCode"].as_str(), if median.is_none() { Some("not-applicable") } else { None }, "{quantity}");
    }
}

#[test]
fn a_case_expects_what_the_observations_come_to_by_their_aggregate() {
    let folder = laid(&[]);
    let test = |lengths: &[&str], expected: &str| {
        let stays: String = lengths
            .iter()
            .map(|length| format!("  - {{resourceType: Encounter, length: {{value: {length}, unit: h}}}}\n"))
            .collect();
        let text = format!("title: Stays\nresources:\n  - {{resourceType: Patient}}\n{stays}expect:\n  - period: \"2026-02\"\n    populations: {expected}\n");
        std::fs::write(folder.path().join("stay/cases/01-stays.yaml"), text).unwrap();
        watershed(folder.path(), &["measure", "test", "stay"])
    };
    let (three, none) = (&["2", "7.25", "30"], &[]);
    let with = |observed: &str| format!("{{initial-population: 3, measure-population: 3, measure-observation: {observed}}}");
    assert!(test(three, &with("7.25")).1.contains("1 of 1 case pass"), "{}", test(three, &with("7.25")).1);
    assert!(test(three, &with("7.3")).1.contains("1 of 1 case pass"), "as many digits as are written");
    let (code, sum) = test(three, &with("39"));
    assert!(code == 1 && sum.contains("measure-observation") && sum.contains("7.25"), "no sum: {sum}");
    assert!(test(none, "{}").1.contains("1 of 1 case pass"), "{}", test(none, "{}").1);
    let (code, wrong) = test(three, "{initial-population: 2.5}");
    assert!(code == 3 && wrong.contains("expected a count that is not negative") && wrong.contains("found `2.5`"), "{wrong}");
}
