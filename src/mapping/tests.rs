//! Tests of site mappings.

use super::*;
use crate::cql::{Codes, Requirement};
use crate::diagnostic;
use crate::fhir::record::{Record, Shape};

const LINES: &str = "local,standard,display\nCVC,52124006,\"Central line, tunnelled\"\nPICC,52124006\n";

fn check(text: &str) -> (Option<Mapping>, String) {
    let (mapping, findings) = parse(text, LINES);
    (mapping, diagnostic::render_human(&findings, false))
}

fn parse(text: &str, lines: &str) -> (Option<Mapping>, Vec<Diagnostic>) {
    Mapping::parse(&SourceFile::new("site.yaml", text), &BTreeMap::from([("lines.csv".to_owned(), Ok(lines.to_owned()))]))
}

/// Findings in a line each: severity, message, place; what to do.
fn told(findings: &[Diagnostic]) -> Vec<String> {
    findings.iter().map(|finding| format!("{finding}; {}", finding.help.as_deref().unwrap_or_default())).collect()
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
    let expected = Finding { element: "Encounter.serviceType".into(), system: "http://local/department".into(), code: "DERM".into(), ..Finding::of(Problem::UnmappedCode) };
    assert_eq!(of("DERM"), [expected]);
    assert_eq!(of("CARD"), []);
}

#[test]
fn codes_come_from_a_file_and_others_can_be_ignored() {
    let of = |code: &str| apply(&format!(r#"{{"resourceType":"Device","id":"d","type":{{"coding":[{{"system":"http://local/lines","code":"{code}"}}]}}}}"#));
    assert_eq!(codes_at(&of("PICC").0, "Device", "type").len(), 2);
    let mapping = check(EXAMPLE).0.unwrap();
    assert_eq!(mapping.codes[1].targets["CVC"].display.as_deref(), Some("Central line, tunnelled"));
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
        "did you mean `Device.type`?",
        "code `1` has no system",
        "file `none.csv` cannot be read",
        "`days_of_rain` is no UCUM unit, and there is no factor",
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
    assert!(mapping.is_none() && report.contains("the code `1 ` has blanks around it") && report.contains("site.yaml:7:15") && report.contains("1 error"), "{report}");
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

/// A mapping with one rule of codes.
fn codes_at_element(element: &str) -> String {
    format!("name: a\nversion: '1'\ncodes:\n  - {{system: http://l, to: http://s, elements: [{element}], map: {{A: b}}}}\n")
}

#[test]
fn a_path_is_checked_to_its_end_and_the_nearest_right_one_is_named() {
    for fine in ["Observation.code", "Observation.category", "Encounter.class", "Encounter.participant.type", "Patient.extension.extension.valueCoding", "Encounter.meta.tag"] {
        assert_eq!(told(&parse(&codes_at_element(fine), LINES).1), [""; 0], "{fine}");
    }
    for (wrong, expected) in [
        ("Observation.code.coding", "`Observation.code.coding` is within `Observation.code`, which is CodeableConcept (site.yaml:4:66); did you mean `Observation.code`?"),
        (
            "Observation.code.nonsense.x",
            "`Observation.code.nonsense.x` is within `Observation.code`, which is CodeableConcept (site.yaml:4:66); did you mean `Observation.code`?",
        ),
        ("Observation.value", "`Observation` has no element `value` (site.yaml:4:61); did you mean `Observation.valueCodeableConcept`?"),
        (
            "Observation.valueQuantity",
            "`Observation.valueQuantity` is Quantity, in which no code of a hospital stands (site.yaml:4:61); did you mean `Observation.valueCodeableConcept`?",
        ),
        ("Observation.codeFoo", "`Observation` has no element `codeFoo` (site.yaml:4:61); did you mean `Observation.code`?"),
        ("Device.status", "`Device.status` is FHIRDeviceStatus, in which no code of a hospital stands (site.yaml:4:56); did you mean `Device.statusReason`?"),
        (
            "Encounter.status",
            "`Encounter.status` is EncounterStatus, in which no code of a hospital stands (site.yaml:4:59); codes stand in `Encounter.class`, `Encounter.type`, `Encounter.serviceType`, `Encounter.priority`, `Encounter.reasonCode`",
        ),
        ("Encounter.participant.tipe", "`Encounter.Participant` has no element `tipe` (site.yaml:4:71); did you mean `Encounter.participant.type`?"),
    ] {
        assert_eq!(told(&parse(&codes_at_element(wrong), LINES).1), [format!("error: {expected}")], "{wrong}");
    }
}

#[test]
fn a_coding_is_translated_in_its_place_and_several_gain_one() {
    let rule = |element: &str| format!("  - {{system: http://l, to: http://s, elements: [{element}], map: {{A: b}}}}\n");
    let text = format!("name: a\nversion: '1'\ncodes:\n{}{}", rule("Encounter.class"), rule("Encounter.meta.tag"));
    let mapping = parse(&text, LINES).0.unwrap();
    let resource = r#"{"resourceType":"Encounter","id":"e","meta":{"tag":[{"system":"http://l","code":"A"}]},"class":{"system":"http://l","code":"A","display":"Ambulant"}}"#;
    let (mut record, _) = Record::read(&Shape::everything(), [resource.as_bytes()].into_iter());
    for _ in 0..2 {
        assert_eq!(mapping.apply(&mut record), []);
        let encounter = record.resources("Encounter")[0];
        let text = |node, name| record.get(node, name).and_then(|node| record.text(node)).unwrap_or_default().to_owned();
        let class = record.get(encounter, "class").unwrap();
        assert_eq!(["system", "code", "display"].map(|name| text(class, name)), ["http://s", "b", "b"]);
        let tags = record.get(record.get(encounter, "meta").unwrap(), "tag").unwrap();
        let tags: Vec<String> = record.items(tags).map(|tag| format!("{}#{}", text(tag, "system"), text(tag, "code"))).collect();
        assert_eq!(tags, ["http://l#A", "http://s#b"]);
    }
    let (mut record, _) = Record::read(&Shape::everything(), [resource.replace("\"A\",\"display", "\"B\",\"display").as_bytes()].into_iter());
    let found = mapping.apply(&mut record);
    assert_eq!((found.len(), found[0].problem, found[0].element.as_str(), found[0].code.as_str()), (1, Problem::UnmappedCode, "Encounter.class", "B"));
}

#[test]
fn what_no_measure_asks_for_is_told_with_what_was_meant() {
    let mut asked = Asked::default();
    [("http://loinc.org", "718-7"), ("http://loinc.org", "2345-7"), ("http://net/pga", "quiescent"), ("http://net/pga", "mild")]
        .iter()
        .for_each(|(system, code)| asked.insert(system, code));
    let of = |to: &str, map: &str| {
        let text = format!("name: a\nversion: '1'\ncodes:\n  - system: http://l\n    to: {to}\n    elements: [Observation.code]\n    map: {map}\n");
        let (mapping, findings) = parse(&text, LINES);
        [told(&findings), told(&mapping.unwrap().unasked(&asked))].concat()
    };
    let misspelt = |name: &str| {
        format!("warning: `{name}` is not how FHIR names this code system, and codes under two names are never equal (site.yaml:5:9); did you mean `http://loinc.org`?")
    };
    assert_eq!(of("http://loinc.org", "{HB: 718-7, X: 4544-3}"), [""; 0], "a mapping may know more than the measures of today");
    assert_eq!(of("http://loinc.com", "{HB: 718-7, GLU: 2345-7}"), [misspelt("http://loinc.com")]);
    assert_eq!(of("LOINC", "{HB: 718-7}"), [misspelt("LOINC")]);
    assert_eq!(of("http://net/pgb", "{1: mild}"), ["warning: no measure asks for codes of `http://net/pgb` (site.yaml:5:9); did you mean `http://net/pga`?"]);
    assert_eq!(of("http://loinc.org", "{HB: 718-8}"), ["warning: no measure asks for `718-8` of `http://loinc.org` (site.yaml:7:15); did you mean `718-7`?"]);
    assert_eq!(
        of("http://loinc.org", "{718-7: HB}"),
        ["warning: no measure asks for `HB` of `http://loinc.org` (site.yaml:7:18); it is `718-7` that they ask for: do local and standard code stand in each other's place?"]
    );
    assert_eq!(of("http://net/pga", "{1: quiescnt}"), ["warning: no measure asks for `quiescnt` of `http://net/pga` (site.yaml:7:14); did you mean `quiescent`?"]);
    let typo = "warning: no measure asks for `quiescient` of `http://net/pga` (site.yaml:6:64); did you mean `quiescent`?";
    let answers = "name: a\nversion: '1'\nanswers:\n  - observation: {system: http://l, code: X}\n    to: http://net/pga\n    map: {inaktiv: quiescent, völlig ruhig: quiescent, ruhend: quiescient}\n";
    let (mapping, findings) = parse(answers, LINES);
    assert_eq!([told(&findings), told(&mapping.unwrap().unasked(&asked))].concat(), [typo]);
    let idle = of("http://elsewhere/x", "{1: q}");
    assert!(
        idle.len() == 1 && idle[0].starts_with("note: no measure of this site asks for what `http://l` leads to, as `q` of `http://elsewhere/x` (site.yaml:5:9)"),
        "{idle:?}"
    );
}

#[test]
fn keys_that_are_patterns_or_numbers_are_told() {
    let of = |map: &str| told(&parse(&codes_at_element("Observation.code").replace("{A: b}", map), LINES).1);
    assert_eq!(of("{1: b, '01': b, 10: b}"), [""; 0]);
    assert_eq!(
        of("{'H.*': b}"),
        ["warning: `H.*` looks like a pattern, and codes are compared as they stand (site.yaml:4:75); write each code, or name a table of them as `csv:`"]
    );
    for key in ["01", "1.0"] {
        assert_eq!(of(&format!("{{{key}: b}}")), [format!("warning: `{key}` is a number to YAML, of which another may be written alike (site.yaml:4:74); quote it: `\"{key}\"`")]);
    }
    assert_eq!(of("{A: 12}"), ["error: expected a code, found `12` (site.yaml:4:77); quote it: `\"12\"`"]);
    assert_eq!(
        of("{A: http://loinc.org|718-7}")[0],
        "error: `http://loinc.org|718-7` is no code alone: its system stands in it (site.yaml:4:77); write `718-7`, and `http://loinc.org` as `to:` or `system:`"
    );
    assert!(of("{A: {cod: b}}")[0].starts_with("error: a code has no `cod` (site.yaml:4:78); did you mean `code`?"), "{:?}", of("{A: {cod: b}}"));
}

#[test]
fn a_table_is_read_as_csv_by_its_heading_and_its_faults_are_told() {
    let of = |table: &str| told(&parse(EXAMPLE, table).1);
    for fine in ["\u{feff}Local code,Standard code\nA,1\n", "display,standard,local\rA b,1,A\r", "local,standard\r\nA,1\r\n\r\nA,1\r\n"] {
        assert_eq!(of(fine), [""; 0], "{fine:?}");
    }
    for (table, expected) in [
        ("", "`lines.csv` holds no codes (lines.csv:1:1); the first line names the columns"),
        ("local,standard\n", "`lines.csv` holds no codes (lines.csv:1:1); the first line names the columns"),
        ("CVC,52124006\n", "the table has no heading with the columns `local` and `standard` (lines.csv:1:1); the first line names the columns"),
        ("local;standard\nCVC;52124006\n", "the cells of the table are not parted by commas (lines.csv:1:1); save it as CSV with commas"),
        ("local,standard\nCVC,1\nCVC,2\n", "`CVC` leads to `2` here, and to `1` at lines.csv:2 (lines.csv:3:1); a local code means one thing"),
        ("local,standard\n\nCVC,\n", "expected a local code and a standard code (lines.csv:3:1)"),
        ("local,standard\nCVC,1,Line, central\n", "4 cells where the heading has 2 (lines.csv:2:1); a cell with a comma in it goes in quotation marks"),
        ("local,standard\nCVC,\"1\nPICC,2\n", "a cell goes on over the end of its line: a quotation mark is not closed (lines.csv:2:1)"),
        ("local,standard\nCVC,http://snomed.info/sct|1\n", "`http://snomed.info/sct|1` is no code alone: its system stands in it (lines.csv:2:1); write `1`"),
    ] {
        let found = of(table);
        assert!(found.len() == 1 && found[0].starts_with(&format!("error: {expected}")), "{table:?}: {found:?}");
    }
    let unreadable = BTreeMap::from([("lines.csv".to_owned(), Err(diagnostic::utf8("lines.csv", b"local,standard\nM\xe4,1\n".to_vec()).unwrap_err()))]);
    let found = told(&Mapping::parse(&SourceFile::new("site.yaml", EXAMPLE), &unreadable).1);
    assert_eq!(found, ["error: a byte that is no UTF-8 (0xE4) stands here (lines.csv:2:2); save the file as UTF-8: it is Latin-1, Windows-1252 or the like"]);
}

#[test]
fn what_leads_to_two_things_is_refused() {
    let observation = "observation: {system: http://l, code: X}";
    let of = |rules: &str| told(&parse(&format!("name: a\nversion: '1'\n{rules}"), LINES).1);
    let codes = |map: &str| format!("  - {{system: http://l, to: http://s, elements: [Observation.code], map: {map}}}\n");
    let two = "what a hospital writes means one thing of a system: leave one of the two out";
    assert_eq!(of(&format!("codes:\n{}{}", codes("{A: b, C: d}"), codes("{A: c}"))), [format!("error: `A` leads to `c` here, and to `b` in line 4 (site.yaml:5:77); {two}")]);
    assert_eq!(of(&format!("codes:\n{}{}", codes("{A: b}"), codes("{A: {system: http://other, code: c}}"))), [""; 0], "two systems, two codes");
    let answers = |map: &str| format!("  - {{{observation}, to: http://s, map: {map}}}\n");
    assert_eq!(of(&format!("answers:\n{}", answers("{Inaktiv: q, inaktiv: m}"))), [format!("error: `inaktiv` leads to `m` here, and to `q` in line 4 (site.yaml:4:89); {two}")]);
    assert_eq!(
        of(&format!("answers:\n{}{}", answers("{Inaktiv: q}"), answers("{INAKTIV: m}"))),
        [format!("error: `inaktiv` leads to `m` here, and to `q` in line 4 (site.yaml:5:77); {two}")]
    );
    let units = |from: &str, to: &str| format!("  - {{{observation}, from: {from}, to: {to}}}\n");
    assert_eq!(of(&format!("units:\n{}{}", units("g/L", "g/dL"), units("mg/dL", "g/dL"))), [""; 0]);
    assert_eq!(
        of(&format!("units:\n{}{}", units("g/L", "g/dL"), units("mg/dL", "g/L"))),
        ["error: the unit of `X` becomes `g/L` here, and `g/dL` in an earlier rule (site.yaml:5:65); an observation is converted to one unit, from as many as it comes in"]
    );
    let by = |factor: &str| format!("  - {{{observation}, from: mmol/L, to: mg/dL, factor: {factor}}}\n");
    assert_eq!(of(&format!("units:\n{}{}", by("18.016"), by("18.016"))), [""; 0]);
    assert_eq!(
        of(&format!("units:\n{}{}", by("18.016"), by("10"))),
        ["error: `mmol/L` of `X` is converted by 10 here, and by 18.016 in an earlier rule (site.yaml:5:54); what a hospital writes means one thing: leave one of the two out"]
    );
}

#[test]
fn a_mass_becomes_an_amount_of_substance_by_a_factor() {
    let rule = |more: &str| format!("name: a\nversion: '1'\nunits:\n  - {{observation: {{system: http://l, code: GLU}}, from: mg/dL, to: mmol/L{more}}}\n");
    let found = told(&parse(&rule(""), LINES).1);
    assert!(
        found[0].starts_with("error: `mg/dL` cannot be converted to `mmol/L` (site.yaml:4:67); ") && found[0].contains("molar mass") && found[0].contains("write `factor:`"),
        "{found:?}"
    );
    assert_eq!(
        told(&parse(&rule(", factor: 0"), LINES).1),
        ["error: `factor` is not above 0 (site.yaml:4:67); write how many of the unit at `to` one of the unit at `from` is"]
    );
    let mapping = parse(&rule(", factor: 0.0555"), LINES).0.unwrap();
    let (mut record, _) =
        Record::read(&Shape::everything(), [observation("http://l", "GLU", r#""valueQuantity":{"value":150,"unit":"mg/dL","code":"mg/dL"}"#).as_bytes()].into_iter());
    assert_eq!(mapping.apply(&mut record), []);
    let quantity = record.get(record.resources("Observation")[0], "valueQuantity").unwrap();
    assert_eq!(record.get(quantity, "value").and_then(|node| record.number(node)), Some("8.325".parse().unwrap()));
}

fn observation(system: &str, code: &str, value: &str) -> String {
    format!(r#"{{"resourceType":"Observation","id":"o","code":{{"coding":[{{"system":"{system}","code":"{code}"}}]}},{value}}}"#)
}

const ANSWERS: &str = r#"
name: a
version: 1.0.0
codes:
  - {system: http://local/pga, to: http://standard/ibd, elements: [Observation.valueCodeableConcept], map: {"1": quiescent, "2": mild}}
answers:
  - {observation: {system: http://local/sde, code: PGA}, to: http://standard/ibd, map: {Inaktiv: quiescent, "1": quiescent}}
  - {observation: {system: http://local/sde, code: PGA}, to: http://standard/ibd, map: {Mild: mild}}
units:
  - {observation: {system: http://local/lab, code: HB}, from: g/L, to: g/dL}
  - {observation: {system: http://local/lab, code: HB}, from: mg/dL, to: g/dL}
"#;

/// The problems of an observation's value, with their elements, and its codings of the standard.
fn answered(code: &str, value: &str) -> (Vec<String>, Vec<String>) {
    let mapping = parse(ANSWERS, LINES).0.unwrap();
    let system = if code == "HB" { "http://local/lab" } else { "http://local/sde" };
    let (mut record, bad) = Record::read(&Shape::everything(), [observation(system, code, value).as_bytes()].into_iter());
    assert!(bad.is_empty());
    let findings = mapping.apply(&mut record);
    assert_eq!(mapping.apply(&mut record), findings, "applying twice changes nothing");
    let is_there = record.get(record.resources("Observation")[0], "valueCodeableConcept").is_some();
    let codes = if is_there { codes_at(&record, "Observation", "valueCodeableConcept") } else { Vec::new() };
    let standard = codes.into_iter().filter_map(|code| Some(code.strip_prefix("http://standard/ibd#")?.to_owned()));
    (findings.iter().map(|finding| format!("{:?} {}", finding.problem, finding.element)).collect(), standard.collect())
}

#[test]
fn answers_as_texts_and_numbers_are_understood_or_told() {
    let of = |value: &str| answered("PGA", value);
    let nothing: Vec<String> = Vec::new();
    assert_eq!(of(r#""valueString":" inaktiv ""#), (nothing.clone(), vec!["quiescent".to_owned()]));
    assert_eq!(of(r#""valueInteger":1"#), (nothing.clone(), vec!["quiescent".to_owned()]));
    assert_eq!(of(r#""valueCodeableConcept":{"text":"Mild"}"#), (nothing.clone(), vec!["mild".to_owned()]), "two rules are one");
    assert_eq!(of(r#""valueString":"etwas""#), (vec!["UnmappedAnswer Observation.valueString".to_owned()], nothing.clone()));
    assert_eq!(of(r#""valueInteger":7"#), (vec!["UnmappedAnswer Observation.valueInteger".to_owned()], nothing.clone()));
    let both = |code: &str, text: &str| of(&format!(r#""valueCodeableConcept":{{"coding":[{{"system":"http://local/pga","code":"{code}"}}],"text":"{text}"}}"#));
    assert_eq!(both("1", "etwas anderes"), (nothing.clone(), vec!["quiescent".to_owned()]), "understood by its code");
    assert_eq!(both("1", "Inaktiv"), (nothing.clone(), vec!["quiescent".to_owned()]));
    assert_eq!(both("2", "Inaktiv"), (vec!["DisagreeingAnswer Observation.valueCodeableConcept.text".to_owned()], vec!["mild".to_owned()]), "the code counts");
    assert_eq!(both("9", "Inaktiv"), (vec!["UnmappedCode Observation.valueCodeableConcept".to_owned()], vec!["quiescent".to_owned()]));
}

#[test]
fn a_lab_may_come_in_several_units_and_a_text_in_place_of_a_quantity_is_told() {
    let of = |value: &str| answered("HB", value).0;
    for (value, unit) in [("130", "g/L"), ("13000", "mg/dL"), ("13", "g/dL")] {
        assert_eq!(of(&format!(r#""valueQuantity":{{"value":{value},"code":"{unit}"}}"#)), [""; 0], "{unit}");
    }
    assert_eq!(of(r#""valueQuantity":{"value":8,"code":"mmol/L"}"#), ["UnexpectedUnit Observation.valueQuantity"]);
    assert_eq!(of(r#""valueString":"130 g/L""#), ["UnexpectedValue Observation.valueString"]);
}

#[test]
fn the_content_is_what_rules_say_and_not_how_they_are_written() {
    let of = |text: &str| parse(text, LINES).0.unwrap().content();
    let first = of(EXAMPLE);
    assert_eq!(
        first,
        of(&EXAMPLE
            .replace("name: example", "# Of ours.\nname: other")
            .replace("{Inactive: quiescent, Mild: mild}", "{Mild: mild, inactive: quiescent}"))
    );
    for (from, to) in [("mild}", "severe}"), ("to: wk", "to: mo"), ("[CARD]", "[]"), ("Encounter.serviceType", "Encounter.type"), ("others: ignore", "others: report")] {
        assert_ne!(first, of(&EXAMPLE.replace(from, to)), "{from}");
    }
}

const GLUCOSE: &str = r#"
name: a
version: 1.0.0
codes:
  - {system: http://l/lab, to: http://loinc.org, elements: [Observation.code, Observation.component.code], map: {GLU: 2345-7}}
  - {system: http://l/med, to: http://rx, elements: [Medication.code], map: {ASP: "1191"}}
units:
  - {observation: {system: http://l/lab, code: GLU}, from: mmol/L, to: mg/dL, factor: 18.016}
  - {observation: {system: http://l/lab, code: GLU}, from: MG/DL, to: mg/dL, factor: 1}
"#;

/// A resource as it is after the glucose mapping, and what was found: problem, element, code, what stands there, what should.
fn of_glucose(resource: &str) -> (Record, Vec<String>) {
    let (mapping, report) = check(GLUCOSE);
    let mapping = mapping.unwrap_or_else(|| panic!("{report}"));
    let (mut record, bad) = Record::read(&Shape::everything(), [resource.as_bytes()].into_iter());
    assert!(bad.is_empty());
    let findings = mapping.apply(&mut record);
    let shown = findings
        .iter()
        .map(|one| format!("{:?} {} {} {} {}", one.problem, one.element, one.code, one.found, one.expected))
        .collect();
    (record, shown)
}

#[test]
fn what_is_within_a_resource_is_translated_as_what_stands_alone() {
    let request = |code: &str| {
        format!(
            r##"{{"resourceType":"MedicationRequest","id":"r","contained":[{{"resourceType":"Medication","id":"m","code":{{"coding":[{{"system":"http://l/med","code":"{code}"}}]}}}}],"medicationReference":{{"reference":"#m"}}}}"##
        )
    };
    let (record, found) = of_glucose(&request("ASP"));
    let medication = record.resolve(record.resources("MedicationRequest")[0], "#m").unwrap();
    let codings = record.get(record.get(medication, "code").unwrap(), "coding").unwrap();
    assert_eq!((record.items(codings).count(), found), (2, vec![]));
    assert_eq!(of_glucose(&request("IBU")).1, ["UnmappedCode Medication.code IBU  "]);
}

#[test]
fn components_have_units_of_their_own() {
    let panel = |code: &str, quantity: &str| {
        format!(
            r#"{{"resourceType":"Observation","id":"o","code":{{"text":"panel"}},"component":[{{"code":{{"coding":[{{"system":"http://l/lab","code":"{code}"}}]}},"valueQuantity":{quantity}}}]}}"#
        )
    };
    let (record, found) = of_glucose(&panel("GLU", r#"{"value":10,"unit":"mmol/L"}"#));
    let component = record.items(record.get(record.resources("Observation")[0], "component").unwrap()).next().unwrap();
    let quantity = record.get(component, "valueQuantity").unwrap();
    assert_eq!(record.get(quantity, "value").and_then(|node| record.number(node)), Some("180.160".parse().unwrap()));
    assert_eq!(found, [""; 0]);
    assert_eq!(of_glucose(&panel("GLU", r#"{"value":10,"unit":"stone"}"#)).1, ["UnexpectedUnit Observation.component.valueQuantity GLU stone mg/dL"]);
    assert_eq!(of_glucose(&panel("K", r#"{"value":4,"unit":"mmol/L"}"#)).1, ["UnmappedCode Observation.component.code K  "]);
}

#[test]
fn a_standard_code_that_says_something_else_counts_and_no_rule_is_applied() {
    let of = |other: &str, value: &str| {
        let (record, found) = of_glucose(&format!(
            r#"{{"resourceType":"Observation","id":"o","code":{{"coding":[{{"system":"http://l/lab","code":"GLU"}},{{"system":"http://loinc.org","code":"{other}"}}]}},"valueQuantity":{{"value":{value},"code":"mmol/L"}}}}"#
        ));
        let quantity = record.get(record.resources("Observation")[0], "valueQuantity").unwrap();
        let unit = record.get(quantity, "code").and_then(|node| record.text(node)).unwrap().to_owned();
        (codes_at(&record, "Observation", "code").len(), unit, found)
    };
    assert_eq!(of("2951-2", "140"), (2, "mmol/L".to_owned(), vec!["DisagreeingCode Observation.code GLU 2951-2 2345-7".to_owned()]));
    assert_eq!(of("2345-7", "10"), (2, "mg/dL".to_owned(), vec![]));
    assert_eq!(of("2345-7", "\"10\""), (2, "mmol/L".to_owned(), vec!["UnreadableValue Observation.valueQuantity.value GLU  ".to_owned()]));
}

#[test]
fn a_unit_is_what_the_hospital_writes_and_need_be_none_of_ucum() {
    for (quantity, expected) in [
        (r#"{"value":120,"unit":"MG/DL"}"#, [""; 0].as_slice()),
        (r#"{"value":120,"code":"MG/DL","unit":"mg per dL"}"#, &[]),
        (r#"{"value":120,"code":"g","unit":"MG/DL"}"#, &[]),
        (r#"{"value":120,"unit":"120 mg per dL"}"#, &["UnexpectedUnit Observation.valueQuantity GLU a text that is no unit mg/dL"]),
    ] {
        assert_eq!(of_glucose(&observation("http://l/lab", "GLU", &format!("\"valueQuantity\":{quantity}"))).1, expected, "{quantity}");
    }
    let rule = |from: &str, more: &str| format!("name: a\nversion: '1'\nunits:\n  - {{observation: {{system: http://l, code: PLT}}, from: {from}, to: 10*3/uL{more}}}\n");
    let told = |from: &str, more: &str| told(&parse(&rule(from, more), LINES).1);
    assert_eq!(told("x10E3/uL", ", factor: 1"), [""; 0]);
    assert_eq!(
        told("x10E3/uL", ""),
        [
            "error: `x10E3/uL` is no UCUM unit, and there is no factor (site.yaml:4:56); what the hospital calls `x10E3/uL` no table tells: write `factor:`, how many `10*3/uL` one of it is; `factor: 1` where it is another spelling of `10*3/uL`"
        ]
    );
    assert!(told("K/uL", "")[0].starts_with("error: `K/uL` cannot be converted to `10*3/uL`"), "kelvin is no number");
}

/// What is told of a record: problem, element, system, code, what is near, and of how many patients.
fn watched(rules: &str, resources: &[&str]) -> Vec<String> {
    let mapping = parse(&format!("name: a\nversion: '1'\n{rules}"), LINES).0.unwrap();
    let mut asked = Asked::default();
    [("http://loinc.org", "2345-7"), ("http://net/pga", "quiescent")]
        .iter()
        .for_each(|(system, code)| asked.insert(system, code));
    let by_code = Requirement {
        resource_type: "Observation".to_owned(),
        code_path: Some("code".to_owned()),
        codes: Codes::Any,
        date_path: None,
        paths: BTreeSet::from(["status.value".to_owned()]),
    };
    let watch = Watch::new(&mapping, &asked, std::iter::once(&by_code));
    let mut seen = Seen::default();
    for resource in resources {
        let (record, _) = Record::read(&Shape::everything(), [resource.as_bytes()].into_iter());
        let mut one = Seen::default();
        watch.see(&record, &mut one);
        seen.merge(one);
    }
    let line = |(one, patients): &(Finding, u64)| {
        let found = if one.found.is_empty() { String::new() } else { format!(": {}", one.found) };
        format!("{:?} {} {} {} {} {patients}{found}", one.problem, one.element, one.system, one.code, one.expected)
    };
    watch.findings(&seen).iter().map(line).collect()
}

#[test]
fn a_rule_that_meets_nothing_and_a_system_by_another_name_are_told_with_what_is_near() {
    let coded = |system: &str, code: &str| observation(system, code, r#""status":"final""#);
    let codes = |system: &str| format!("codes:\n  - {{system: {system}, to: http://loinc.org, elements: [Observation.code], map: {{GLU: 2345-7}}}}\n");
    let local = coded("urn:oid:1.2.3.4.5", "GLU");
    assert_eq!(watched(&codes("urn:oid:1.2.3.4.5"), &[&local]), [""; 0]);
    assert_eq!(
        watched(&codes("1.2.3.4.5"), &[&local, &local]),
        ["UnknownSystem Observation.code urn:oid:1.2.3.4.5  1.2.3.4.5 2", "IdleRule Observation.code 1.2.3.4.5  urn:oid:1.2.3.4.5 0"]
    );
    // Of two rules one is right: what the other says is in the data, under a name that is near.
    let two = format!("{}units:\n  - {{observation: {{system: urn:oid:1.2.3.4.5, code: GLU}}, from: mmol/L, to: mg/dL, factor: 18.016}}\n", codes("1.2.3.4.5"));
    assert_eq!(watched(&two, &[&local, &coded("1.2.3.4.5", "GLU")]), ["UnknownSystem Observation.code urn:oid:1.2.3.4.5  1.2.3.4.5 1"]);
    // Without a mapping too: what a measure asks for, under other names.
    for name in ["http://loinc.org/", "urn:oid:2.16.840.1.113883.6.1", "2.16.840.1.113883.6.1", "urn:OID:2.16.840.1.113883.6.1"] {
        assert_eq!(watched("", &[&coded(name, "2345-7")]), [format!("UnknownSystem Observation.code {name}  http://loinc.org 1")]);
    }
    for other in ["http://loinc.org", "http://elsewhere/lab"] {
        assert_eq!(watched("", &[&coded(other, "2345-7")]), [""; 0], "{other}");
    }
    let answers = |code: &str| format!("answers:\n  - {{observation: {{system: http://l, code: {code}}}, to: http://net/pga, map: {{ruhend: quiescent}}}}\n");
    let pga = coded("http://l", "PGA");
    assert_eq!(watched(&answers("PGA"), &[&pga]), [""; 0]);
    assert_eq!(watched(&answers("PAG"), &[&pga]), ["IdleRule Observation.code http://l PAG PGA 0"]);
    assert_eq!(watched(&answers("XRAY"), &[&pga]), ["IdleRule Observation.code http://l XRAY  0"]);
    // What no measure asks for is no loss.
    assert_eq!(watched(&answers("PAG").replace("quiescent", "other"), &[&pga]), [""; 0]);
}

/// A code that a measure asks for is written otherwise, stands without its system, or under another one.
#[test]
fn codes_that_are_nearly_asked_for_are_told() {
    let coded = |system: &str, code: &str| observation(system, code, r#""status":"final""#);
    let table: [(&str, &str, &[&str]); 10] = [
        ("http://loinc.org", "23457", &["NearCodes Observation.code http://loinc.org  http://loinc.org 2: `23457` for `2345-7`"]),
        ("http://loinc.org", "2345-7 ", &["NearCodes Observation.code http://loinc.org  http://loinc.org 2: `2345-7 ` for `2345-7`"]),
        ("http://loinc.org", "\\u001b[2345-7", &[]),
        ("", "2345-7", &["NearCodes Observation.code   http://loinc.org 2: `2345-7`"]),
        ("", "23457", &[]),
        ("http://other", "2345-7", &["NearCodes Observation.code http://other  http://loinc.org 2: `2345-7`"]),
        ("Dr. Mayer", "2345-7", &[]),
        ("http://other", "quiescent", &[]),
        ("http://loinc.org", "2345-8", &[]),
        // That the system is another name is told, and enough.
        ("http://loinc.org/", "2345-7", &["UnknownSystem Observation.code http://loinc.org/  http://loinc.org 2"]),
    ];
    for (system, code, expected) in table {
        assert_eq!(watched("", &[&coded(system, code), &coded(system, code)]), expected, "{system}|{code}");
    }
    // Of one patient alone another system's name may be anything.
    assert_eq!(watched("", &[&coded("http://other", "2345-7")]), [""; 0]);
    // Beside the right code others may be what they like, and what is translated is known.
    let both =
        r#"{"resourceType":"Observation","id":"o","status":"final","code":{"coding":[{"system":"http://other","code":"2345-7"},{"system":"http://loinc.org","code":"2345-7"}]}}"#;
    assert_eq!(watched("", &[both, both]), [""; 0]);
    let rule = "codes:\n  - {system: http://other, to: http://loinc.org, elements: [Observation.code], map: {2345-7: 2345-7}}\n";
    assert_eq!(watched(rule, &[&coded("http://other", "2345-7"), &coded("http://other", "2345-7")]), [""; 0]);
}

#[test]
fn a_resource_that_is_asked_for_and_has_no_status_is_told() {
    let without = |code: &str| observation("http://loinc.org", code, r#""effectiveDateTime":"2026-01-01""#);
    assert_eq!(watched("", &[&without("2345-7")]), ["WithoutStatus Observation.status    1"]);
    assert_eq!(watched("", &[&without("718-7")]), [""; 0], "nobody asks for it");
}

/// Each entry of a table is judged: what is near to it in the data is told where several patients have it.
#[test]
fn entries_that_meet_nothing_are_told_beside_those_that_do() {
    let coded = |code: &str| observation("http://l", code, r#""status":"final""#);
    let rule = "codes:\n  - {system: http://l, to: http://loinc.org, elements: [Observation.code], map: {GLU: 2345-7, GLUC-B: 2345-7, GL: 2345-7, HB: 718-7}}\n";
    let (right, near) = (coded("GLU"), coded("GLUCB"));
    let rest = "IdleEntries Observation.code http://l   0: 1 of 4 entries met nothing in the data: `GL`; others met `GLU` of 2 patients";
    let two = "IdleEntries Observation.code http://l   0: 2 of 4 entries met nothing in the data: `GL`, `GLUC-B`; others met `GLU` of 1 patient";
    assert_eq!(watched(rule, &[&right, &right, &near, &near]), ["IdleEntry Observation.code http://l GLUC-B GLUCB 0", rest]);
    // What one patient has is that one's own, and what no measure asks for no loss.
    assert_eq!(watched(rule, &[&right, &near]), [two]);
    assert_eq!(watched(rule, &[&right, &coded("GL"), &coded("GLUC-B")]), [""; 0]);
    // Where another rule leads to an entry, the data need not have it.
    let steps = "codes:\n  - {system: http://l, to: http://m, elements: [Observation.code], map: {GLU: X}}\n  - {system: http://m, to: http://loinc.org, elements: [Observation.code], map: {X: 2345-7, Y: 2345-7}}\n";
    assert_eq!(
        watched(steps, &[&right, &observation("http://m", "Z", r#""status":"final""#)]),
        ["IdleEntries Observation.code http://m   0: 1 of 2 entries met nothing in the data: `Y`"]
    );
    // Of answers the texts of the table are told, and none of the data's.
    let answers = "answers:\n  - {observation: {system: http://l, code: PGA}, to: http://net/pga, map: {ruhend: quiescent, ruht: quiescent, aktiv: active}}\n";
    let said = |text: &str| observation("http://l", "PGA", &format!(r#""valueString":"{text}""#));
    assert_eq!(
        watched(answers, &[&said(" Ruhend"), &said("ruhig, sagt die Mutter")]),
        ["IdleEntries Observation.code http://l PGA  0: 1 of 3 entries met nothing in the data: `ruht`; others met `ruhend` of 1 patient"]
    );
}

#[test]
fn two_local_codes_of_one_answer_that_say_different_things_are_told() {
    let text = "name: a\nversion: '1'\ncodes:\n  - {system: http://l, to: http://net/pga, elements: [Observation.valueCodeableConcept, Condition.code], map: {A: quiescent, B: active, C: quiescent}}\n";
    let mapping = parse(text, LINES).0.unwrap();
    let found = |codes: [&str; 2], resource: &str| {
        let codings = codes.map(|code| format!(r#"{{"system":"http://l","code":"{code}"}}"#)).join(",");
        let text = resource.replace("CODES", &format!(r#"{{"coding":[{codings}]}}"#));
        let (mut record, _) = Record::read(&Shape::everything(), [text.as_bytes()].into_iter());
        mapping
            .apply(&mut record)
            .iter()
            .map(|one| format!("{:?} {} {} {} {}", one.problem, one.element, one.code, one.found, one.expected))
            .collect::<Vec<_>>()
    };
    let answer = r#"{"resourceType":"Observation","id":"o","valueCodeableConcept":CODES}"#;
    assert_eq!(found(["A", "B"], answer), ["DisagreeingAnswer Observation.valueCodeableConcept B quiescent active"]);
    assert_eq!(found(["A", "C"], answer), [""; 0]);
    assert_eq!(found(["A", "B"], r#"{"resourceType":"Condition","id":"c","code":CODES}"#), [""; 0], "somebody may have both");
}

#[test]
fn a_unit_that_converts_and_may_be_of_another_scale_is_told() {
    let rule = |more: &str| format!("name: a\nversion: '1'\nunits:\n  - {{observation: {{system: http://l, code: A1C}}, from: mmol/mol, to: '%'{more}}}\n");
    let told = |more: &str| told(&parse(&rule(more), LINES).1);
    assert!(told("").len() == 1 && told("")[0].starts_with("warning: `mmol/mol` converts to `%` by counting moles as numbers"), "{:?}", told(""));
    assert_eq!(told(", factor: 0.1"), [""; 0], "who writes it knows");
}
