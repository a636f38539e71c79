//! Tests of site mappings.

use super::*;
use crate::fhir::record::{Record, Shape};

fn check(text: &str) -> (Option<Mapping>, String) {
    let source = SourceFile::new("site.yaml", text);
    let files = BTreeMap::from([("lines.csv".to_owned(), "local,standard,display\nCVC,52124006,Central line\nPICC,52124006\n".to_owned())]);
    let (mapping, findings) = Mapping::parse(&source, &files);
    (mapping, diagnostic::render_human(&findings, false))
}

const EXAMPLE: &str = r#"
name: example
version: 1.2.3
raceEthnicity: us-core-omb-1997
codes:
  - system: http://local/department
    to: http://snomed.info/sct
    elements: [Encounter.serviceType]
    map: {GI: {code: "394584008", display: Gastroenterology}}
    ignore: [CARD]
  - system: http://local/lines
    to: http://snomed.info/sct
    elements: [Device.type]
    csv: lines.csv
    others: ignore
answers:
  - observation: {system: http://local/sde, code: PGA}
    to: http://standard/ibd
    map: {Inactive: quiescent, Mild: mild}
units:
  - observation: {system: http://local/lab, code: EGA}
    from: d
    to: wk
"#;

fn apply(resource: &str) -> (Record, Vec<Finding>) {
    let (mapping, report) = check(EXAMPLE);
    let mapping = mapping.unwrap_or_else(|| panic!("{report}"));
    let (mut record, bad) = Record::read(&Shape::everything(), [resource.as_bytes()].into_iter());
    assert!(bad.is_empty(), "{bad:?}");
    let findings = mapping.apply(&mut record);
    assert_eq!(mapping.apply(&mut record), findings, "applying twice changes nothing");
    (record, findings)
}

fn codes_at(record: &Record, resource_type: &str, element: &str) -> Vec<String> {
    let resource = record.resources(resource_type)[0];
    let concept = record.get(resource, element).unwrap();
    let codings = record.get(concept, "coding").unwrap();
    let text = |coding, name| record.get(coding, name).and_then(|node| record.text(node)).unwrap_or("").to_owned();
    record.items(codings).map(|coding| format!("{}#{}", text(coding, "system"), text(coding, "code"))).collect()
}

#[test]
fn a_local_code_gains_the_standard_one_and_stays() {
    let (record, findings) = apply(r#"{"resourceType":"Encounter","id":"e","serviceType":{"coding":[{"system":"http://local/department","code":"GI"}]}}"#);
    assert_eq!(codes_at(&record, "Encounter", "serviceType"), ["http://local/department#GI", "http://snomed.info/sct#394584008"]);
    assert_eq!(findings, []);
}

#[test]
fn an_unknown_code_is_a_finding_and_an_ignored_one_is_not() {
    let of = |code: &str| apply(&format!(r#"{{"resourceType":"Encounter","id":"e","serviceType":{{"coding":[{{"system":"http://local/department","code":"{code}"}}]}}}}"#)).1;
    let expected = Finding { problem: Problem::UnmappedCode, element: "Encounter.serviceType".into(), system: "http://local/department".into(), code: "DERM".into() };
    assert_eq!(of("DERM"), [expected]);
    assert_eq!(of("CARD"), []);
}

#[test]
fn codes_come_from_a_file_and_others_can_be_ignored() {
    let of = |code: &str| apply(&format!(r#"{{"resourceType":"Device","id":"d","type":{{"coding":[{{"system":"http://local/lines","code":"{code}"}}]}}}}"#));
    assert_eq!(codes_at(&of("PICC").0, "Device", "type").len(), 2);
    assert_eq!(of("PIV").1, []);
}

#[test]
fn a_text_answer_becomes_a_code_whatever_its_case_and_an_unknown_text_is_not_repeated() {
    let of = |text: &str| {
        apply(&format!(
            r#"{{"resourceType":"Observation","id":"o","code":{{"coding":[{{"system":"http://local/sde","code":"PGA"}}]}},"valueCodeableConcept":{{"text":"{text}"}}}}"#
        ))
    };
    assert_eq!(codes_at(&of(" inactive ").0, "Observation", "valueCodeableConcept"), ["http://standard/ibd#quiescent"]);
    let findings = of("Jane Doe feels fine").1;
    assert_eq!(findings.len(), 1);
    assert!(!format!("{findings:?}").contains("Jane"));
}

#[test]
fn days_become_exact_weeks_and_the_original_is_kept() {
    let of = |value: &str, unit: &str| {
        apply(&format!(
            r#"{{"resourceType":"Observation","id":"o","code":{{"coding":[{{"system":"http://local/lab","code":"EGA"}}]}},"valueQuantity":{{"value":{value},"unit":"days","system":"http://unitsofmeasure.org","code":"{unit}"}}}}"#
        ))
    };
    let (record, findings) = of("273", "d");
    let quantity = record.get(record.resources("Observation")[0], "valueQuantity").unwrap();
    let value = record.get(quantity, "value").and_then(|node| record.number(node)).unwrap();
    assert_eq!(value, rust_decimal::Decimal::from(39));
    assert_eq!(record.get(quantity, "code").and_then(|node| record.text(node)), Some("wk"));
    let original = record.get(quantity, "extension").and_then(|node| record.get(node, "valueQuantity")).unwrap();
    assert_eq!(record.get(original, "value").and_then(|node| record.number(node)), Some(rust_decimal::Decimal::from(273)));
    assert_eq!(findings, []);
    assert_eq!(of("9", "mo").1[0].problem, Problem::UnexpectedUnit);
}

#[test]
fn every_problem_of_a_mapping_is_reported_with_its_line() {
    let report = check("name: x\nversion: 1\nraceEthnicity: us-core-omb-1979\ncodes:\n  - system: http://local\n    elements: [serviceType, Encouter.class, Observation.valueCodeableConcept, Device.typ]\n    map: {A: \"1\"}\n    csv: none.csv\nunits:\n  - observation: {system: a, code: b}\n    from: days_of_rain\n    to: wk\n").1;
    for expected in [
        "no race and ethnicity policy is named `us-core-omb-1979`",
        "did you mean `us-core-omb-1997`?",
        "site.yaml:3:",
        "`serviceType` is no element",
        "FHIR R4 has no resource type `Encouter`",
        "did you mean `Encounter`?",
        "`Device` has no element `typ`",
        "did you mean `type`?",
        "code `1` has no system",
        "file `none.csv` cannot be read",
        "`days_of_rain` is no UCUM unit",
    ] {
        assert!(report.contains(expected), "`{expected}` is missing in\n{report}");
    }
}

#[test]
fn a_standard_system_by_another_name_and_a_code_with_blanks_are_told() {
    let (mapping, report) = check(&EXAMPLE.replacen("to: http://snomed.info/sct", "to: http://snomed.info/sct/", 1));
    assert!(mapping.is_some() && report.contains("did you mean `http://snomed.info/sct`?") && report.contains("1 warning"), "{report}");
    let (mapping, report) = check(&EXAMPLE.replacen("{code: \"394584008\"", "{system: http://snomed.info/sct/, code: \"394584008\"", 1));
    assert!(mapping.is_some() && report.contains("site.yaml:9:24") && report.contains("1 warning"), "{report}");
    let (mapping, report) = check("name: x\nversion: 1\ncodes:\n  - system: 2.16.840.1.113883.6.96\n    to: http://loinc.org\n    elements: [Device.type]\n    map: {A: \"1 \"}\n");
    assert!(mapping.is_none() && report.contains("the code `1 ` has blanks around it") && report.contains("site.yaml:7:14") && report.contains("1 error"), "{report}");
}

#[test]
fn an_unknown_key_names_its_line() {
    let report = check("name: x\nversion: \"1\"\ncode: []\n").1;
    assert!(report.contains("site.yaml:3:1") && report.contains("code"), "{report}");
}

#[test]
fn the_translations_widen_queries() {
    let mapping = check(EXAMPLE).0.unwrap();
    let of = |to: &str| mapping.translations().filter(|one| one.to_code == to).map(|one| one.code.to_owned()).collect::<Vec<_>>();
    assert_eq!(of("52124006"), ["CVC", "PICC"]);
    assert!(mapping.paths().contains(&("Device".to_owned(), vec!["type".to_owned()])));
}
