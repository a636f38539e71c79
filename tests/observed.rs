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
        let unit = if observed == "stay.length" { r#","unit":"h","system":"http://unitsofmeasure.org","code":"h""# } else { "" };
        assert!(out.contains(&format!(r#""measureScore":{{"value":6.5{unit}}}"#)), "{observed}: {out}");
    }
}

#[test]
fn a_null_observation_is_not_counted() {
    for (lengths, population, of, median) in [(&["4", "null", "9"][..], 3, 2, Some(6.5)), (&["null"], 1, 0, None)] {
        let folder = laid(lengths);
        let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
        let (report, said) = out.split_once('\n').unwrap();
        let report: Value = serde_json::from_str(report).unwrap_or_else(|fault| panic!("{fault}: {out}"));
        let nothing = format!(
            "note: `stay`, 2026-02-01 to 2026-02-28: 1 of {population} in `measure-population` gave no observation (`Hours` is null) and are not in the score; \
             `watershed measure explain` shows which they are\n"
        );
        assert_eq!(said, nothing);
        let (_, explained) = watershed(folder.path(), &["measure", "explain", "stay", "--data", "all.ndjson", "--period", "2026-02", "--patient", "p"]);
        let expected =
            if median.is_some() { "\"Hours\" = Encounter/e0 gave 4, Encounter/e2 gave 9, Encounter/e1 gave nothing\n" } else { "\"Hours\" = Encounter/e0 gave nothing\n" };
        assert!((explained + "\n").contains(expected), "{expected}");
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

/// Of one kind in several units there is one number; what is of another kind is no part of it, and the report is not whole.
#[test]
fn observations_with_units_are_aggregated_in_one() {
    let folder = laid(&[]);
    let logic = LOGIC.replace("stay.length.value", "stay.length");
    let definition = MEASURE.replace("median", "average") + "stratifiers:\n  - {id: where, define: Where}\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), definition).unwrap();
    std::fs::write(folder.path().join("stay/stay.cql"), logic + "define function \"Where\"(stay Encounter): stay.class.code\n").unwrap();
    let evaluate = |lengths: &[(&str, &str, &str)]| {
        let stay = |(at, (value, unit, class)): (usize, &(&str, &str, &str))| {
            format!(
                r#"{{"resourceType":"Encounter","id":"e{at}","subject":{{"reference":"Patient/p"}},"class":{{"code":"{class}"}},"length":{{"value":{value},"code":"{unit}"}}}}"#
            )
        };
        let lines: Vec<String> = lengths.iter().enumerate().map(stay).chain([r#"{"resourceType":"Patient","id":"p"}"#.to_owned()]).collect();
        std::fs::write(folder.path().join("all.ndjson"), lines.join("\n") + "\n").unwrap();
        watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"])
    };
    let (code, out) = evaluate(&[("1", "h", "A"), ("3", "h", "A"), ("120", "min", "B")]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|fault| panic!("{fault}: {out}"));
    let group = &report["group"][0];
    let strata: Vec<String> = group["stratifier"][0]["stratum"].as_array().unwrap().iter().map(|one| one["measureScore"].to_string()).collect();
    let two_hours = r#"{"value":2,"unit":"h","system":"http://unitsofmeasure.org","code":"h"}"#;
    assert_eq!((code, group["measureScore"].to_string().as_str(), strata), (0, two_hours, vec![two_hours.to_owned(); 2]), "{out}");
    assert_eq!(named(&group["population"][2]["extension"], "countQuantity")["valueQuantity"].to_string(), two_hours, "{out}");
    let (code, out) = evaluate(&[("1", "h", "A"), ("3", "h", "A"), ("120", "mg", "A")]);
    assert!(code == 1 && out.contains(&format!(r#""measureScore":{two_hours}"#)), "{code} {out}");
    assert!(out.contains("warning: 1 observation of `Hours` left out"), "{out}");
    assert!(
        out.contains(r#""valueCode":"partial""#)
            && out.contains(r#"{"url":"incommensurable","extension":[{"url":"define","valueString":"Hours"},{"url":"observations","valueInteger":1}]}"#),
        "{out}"
    );
}

/// Exit code and words of `measure check`, the logic or the definition changed.
fn checked(logic: &str, definition: &str) -> (i32, String) {
    let folder = laid(&[]);
    std::fs::write(folder.path().join("stay/stay.cql"), logic).unwrap();
    std::fs::write(folder.path().join("stay/measure.yaml"), definition).unwrap();
    watershed(folder.path(), &["measure", "check", "stay"])
}

const HOURS: &str = "(stay Encounter): stay.length.value";

#[test]
fn of_overloads_the_one_is_called_that_takes_what_is_counted() {
    let folder = laid(&["4", "9"]);
    let by_class = MEASURE.to_owned() + "stratifiers:\n  - {id: kind, define: Kind}\n";
    let kinds = "define function \"Kind\"(one Procedure): 'procedure'\ndefine function \"Kind\"(one Resource): 'any'\ndefine function \"Kind\"(one Encounter): 'stay'\n";
    let others = "define function \"Hours\"(one Procedure): 1\ndefine function \"Hours\"(one Encounter, times Integer): 2\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), &by_class).unwrap();
    std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.replace("define function", &format!("{others}{kinds}define function"))).unwrap();
    let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
    assert!(code == 0 && out.contains(r#""measureScore":{"value":6.5}"#) && out.contains(r#"[{"code":"stay","display":"stay"}]"#), "{out}");
    // One that takes any resource takes a stay.
    std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.replace(HOURS, "(one Resource): 3")).unwrap();
    std::fs::write(folder.path().join("stay/measure.yaml"), MEASURE).unwrap();
    let (_, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
    assert!(out.contains(r#""measureScore":{"value":3}"#), "{out}");
    let strata = |logic: &str| checked(&(LOGIC.to_owned() + logic), &by_class);
    let (code, out) = strata("define function \"Kind\"(one Procedure): one.status\ndefine function \"Kinds\"(one Encounter): one.status\n");
    let said = "`Kind` is a function of FHIR.Procedure: expected a function of FHIR.Encounter, in a measure that counts `Encounter`";
    let words = out.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(code == 1 && words.contains(said) && out.contains("measure.yaml:21:24") && out.contains("did you mean `Kinds`?"), "{code} {out}");
}

#[test]
fn an_observation_that_is_no_number_or_of_nothing_in_particular_is_refused_where_it_is_named() {
    for (result, ty) in [
        ("'long'", "String"),
        ("true", "Boolean"),
        ("start of stay.period", "DateTime"),
        ("{1, 2}", "List<Integer>"),
        ("Interval[1, 2]", "Interval<Integer>"),
        ("stay.class", "FHIR.Coding"),
    ] {
        let (code, out) = checked(&LOGIC.replace("stay.length.value", result), MEASURE);
        assert!(code == 1 && out.contains(&format!("`Hours` gives {ty}: what is observed is a number")) && out.contains("measure.yaml:19:13"), "{code} {out}");
    }
    for result in ["1", "9000000000L", "1.5", "5 'h'", "null", "stay.length", "if true then 1 else 5 'h'", "(if true then 1 else 'none') as Choice<Integer, String>"] {
        let (code, out) = checked(&LOGIC.replace("stay.length.value", result), MEASURE);
        assert!(code == 0, "{result}: {out}");
    }
    let (code, out) = checked(LOGIC, &MEASURE.replace("define: Hours", "define: Stays"));
    let words = out.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(code == 1 && words.contains("`Stays` is a definition, the same for every Encounter: expected a function of one"), "{out}");
}

#[test]
fn a_case_expects_the_strata_that_a_report_has() {
    let folder = laid(&[]);
    let definition = MEASURE.to_owned() + "stratifiers:\n  - {id: short, define: Short, kind: criteria}\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), definition).unwrap();
    std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.to_owned() + "define \"Short\": [Encounter] E where E.length.value.value < 5\n").unwrap();
    let test = |length: &str, strata: &str| {
        let populations = format!("{{initial-population: 1, measure-population: 1, measure-observation: {length}}}");
        let stay = format!("{{resourceType: Encounter, length: {{value: {length}, unit: h}}}}");
        let text = format!(
            "title: One\nresources:\n  - {{resourceType: Patient}}\n  - {stay}\nexpect:\n  - period: \"2026-02\"\n    populations: {populations}\n    strata: {{short: {strata}}}\n"
        );
        std::fs::write(folder.path().join("stay/cases/01-one.yaml"), text).unwrap();
        watershed(folder.path(), &["measure", "test", "stay"])
    };
    for (length, strata, passes) in [("4", "[\"true\"]", true), ("9", "[]", true), ("9", "[\"true\"]", false), ("4", "[]", false)] {
        let (code, out) = test(length, strata);
        assert_eq!(code == 0, passes, "{length} {strata}: {out}");
    }
}

/// By the code, as the System's type is; never by where it lies in memory.
#[test]
fn what_divides_and_describes_is_shown_as_its_code() {
    let folder = laid(&["4"]);
    let definition = MEASURE.to_owned() + "stratifiers:\n  - {id: kind, define: Kind}\nsupplemental-data:\n  - {id: spoken, define: Spoken}\n  - {id: both, define: Both}\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), &definition).unwrap();
    let logic = "define \"Spoken\": First(Patient.communication C return C.language)\ndefine \"Both\": Tuple { spoken: \"Spoken\", lived: Interval[2020, null] }\n\
                 define function \"Kind\"(stay Encounter): stay.class\n";
    std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.to_owned() + logic).unwrap();
    let patient = r#"{"resourceType":"Patient","id":"p","communication":[{"language":{"coding":[{"system":"urn:ietf:bcp:47","code":"es"}]}}]}"#;
    let stay = r#"{"resourceType":"Encounter","id":"e","subject":{"reference":"Patient/p"},"class":{"code":"AMB"},"length":{"value":4}}"#;
    std::fs::write(folder.path().join("all.ndjson"), format!("{patient}\n{stay}\n")).unwrap();
    let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|fault| panic!("{fault}: {out}"));
    assert_eq!((code, &report["group"][0]["stratifier"][0]["stratum"][0]["value"]["text"]), (0, &"AMB".into()), "{out}");
    for value in [r#""valueString":"es""#, r#""valueString":"lived=[2020,];spoken=es""#] {
        assert!(out.contains(value), "{value}: {out}");
    }
    for (kind, ty) in [("stay.location", "List<FHIR.Encounter.Location>"), ("stay", "FHIR.Encounter"), ("stay.subject", "FHIR.Reference")] {
        let (code, out) = checked(&(LOGIC.to_owned() + &logic.replace("stay.class", kind)), &definition);
        assert!(code == 1 && out.contains(&format!("`Kind` gives {ty}")) && out.contains("measure.yaml:21:24"), "{code} {out}");
    }
}

/// The same letters in two systems are two strata; a code that says that it is not known is known no more than none.
#[test]
fn codes_of_two_systems_are_two_strata() {
    let folder = laid(&[]);
    std::fs::write(folder.path().join("stay/measure.yaml"), MEASURE.to_owned() + "stratifiers:\n  - {id: status, define: Status}\n").unwrap();
    std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.to_owned() + "define \"Status\": Patient.maritalStatus\n").unwrap();
    let strata = |systems: &[(&str, &str)]| {
        let line = |(at, (system, code)): (usize, &(&str, &str))| {
            let status = format!(r#"{{"resourceType":"Patient","id":"p{at}","maritalStatus":{{"coding":[{{"system":"http://{system}","code":"{code}"}}]}}}}"#);
            format!("{status}\n{{\"resourceType\":\"Encounter\",\"id\":\"e{at}\",\"subject\":{{\"reference\":\"Patient/p{at}\"}},\"length\":{{\"value\":4}}}}\n")
        };
        std::fs::write(folder.path().join("all.ndjson"), systems.iter().enumerate().map(line).collect::<String>()).unwrap();
        let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
        let report: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap_or_else(|fault| panic!("{code} {fault}: {out}"));
        let strata = report["group"][0]["stratifier"][0]["stratum"].as_array().unwrap();
        strata.iter().map(|one| format!("{} {}", one["value"]["text"], one["population"][0]["count"])).collect::<Vec<_>>()
    };
    assert_eq!(strata(&[("v3", "M"), ("v3", "M"), ("v3", "S")]), [r#""M" 2"#, r#""S" 1"#]);
    assert_eq!(strata(&[("v3", "M"), ("clinic", "M"), ("v3", "M")]), [r#""M (http://clinic)" 1"#, r#""M (http://v3)" 2"#]);
    assert_eq!(strata(&[("v3", "unknown"), ("clinic", "unknown")]), [r#""unknown" 2"#]);
}

/// So that no report leaves with it where no reading of the logic could tell.
#[test]
fn the_patients_own_id_is_told_as_the_reference_that_it_is() {
    let folder = laid(&["4"]);
    let definition = MEASURE.to_owned() + "stratifiers:\n  - {id: by, define: By}\nsupplemental-data:\n  - {id: told, define: By}\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), definition).unwrap();
    std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.to_owned() + "define \"By\": First(Patient.maritalStatus.coding).display.value\n").unwrap();
    for (id, shown) in [("p-1", "Patient/p-1"), ("1234567", "Patient/1234567"), ("42", "42")] {
        let patient = format!(r#"{{"resourceType":"Patient","id":"{id}","maritalStatus":{{"coding":[{{"display":"{id}"}}]}}}}"#);
        let stay = format!(r#"{{"resourceType":"Encounter","id":"e","subject":{{"reference":"Patient/{id}"}},"length":{{"value":4}}}}"#);
        std::fs::write(folder.path().join("all.ndjson"), format!("{patient}\n{stay}\n")).unwrap();
        let (_, out) = watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", "all.ndjson", "--period", "2026-02"]);
        for written in [format!(r#""text":"{shown}""#), format!(r#""valueString":"{shown}""#)] {
            assert!(out.contains(&written), "{written}: {out}");
        }
    }
}

/// A report leaves the hospital with the values of its strata and of its supplemental data.
#[test]
fn what_divides_and_describes_names_nobody() {
    let definition = MEASURE.to_owned() + "stratifiers:\n  - {id: kind, define: Kind}\nsupplemental-data:\n  - {id: told, define: Told}\n";
    let logic = |kind: &str, told: &str| LOGIC.to_owned() + &format!("define function \"Kind\"(stay Encounter): {kind}\ndefine \"Told\": {told}\n");
    for (told, element) in [
        ("First(Patient.name).family.value", "Patient.name"),
        ("'for ' + First(First(Patient.name).given).value", "Patient.name"),
        ("Patient.id", "Patient.id"),
        ("First(Patient.address).line", "Patient.address.line"),
        ("Patient.birthDate", "Patient.birthDate"),
        ("ToString(Patient.birthDate.value)", "Patient.birthDate"),
        ("if AgeInYears() < 18 then ToString(Patient.birthDate) else 'adult'", "Patient.birthDate"),
        ("Combine(({Patient.birthDate}) D return ToString(D.value), ' ')", "Patient.birthDate"),
        ("(month from Patient.birthDate) * 100 + (day from Patient.birthDate)", "Patient.birthDate"),
        ("AgeInDaysAt(start of \"Measurement Period\")", "Patient.birthDate"),
        ("ToString(date from (Patient.deceased as FHIR.dateTime))", "Patient.deceased"),
        ("First([Coverage]).subscriberId", "Coverage.subscriberId"),
        // Of where somebody lives all that is smaller than a state.
        ("First(Patient.address).postalCode", "Address.postalCode"),
        ("Substring(First(Patient.address).postalCode.value, 0, 3)", "Address.postalCode"),
        ("ToInteger(First(Patient.address).postalCode.value)", "Address.postalCode"),
        ("First(Patient.address).city", "Address.city"),
        ("First(Patient.address).district.value", "Address.district"),
        ("First(Patient.address).period", "Address.period"),
        ("ToInteger(First(Patient.identifier).value.value)", "Patient.identifier"),
        // Of when something was, all but the year.
        ("First([Encounter]).period", "Encounter.period"),
        ("start of First([Encounter] E return E.period)", "Encounter.period"),
        ("ToString(date from start of First([Encounter] E return E.period))", "Encounter.period"),
        ("start of \"Measurement Period\"", "the day of an event"),
        // As a number too.
        ("First([Encounter] E let s: start of E.period return (year from s) * 10000 + (month from s) * 100 + (day from s))", "Encounter.period"),
        ("month from start of First([Encounter] E return E.period)", "Encounter.period"),
        ("day from First([Encounter]).period.\"end\".value", "Encounter.period"),
        ("difference in days between @2026-01-01 and date from start of First([Encounter] E return E.period)", "Encounter.period"),
        ("hours between @2026-01-01T00:00:00 and start of First([Encounter] E return E.period)", "Encounter.period"),
        ("months between @2026-01-01 and date from start of First([Encounter] E return E.period)", "Encounter.period"),
        ("days between Today() and (First([Observation]).effective as FHIR.dateTime).value", "Observation.effective"),
        ("Max([Encounter] E return days between start of \"Measurement Period\" and start of E.period)", "Encounter.period"),
        // And who has one value.
        ("First(Patient.address).postalCode = '45229'", "Address.postalCode"),
        ("not (First(Patient.address).city.value ~ 'Oxford') and AgeInYears() > 3", "Address.city"),
        ("if First(Patient.address).postalCode = '45229' then 'near' else 'far'", "Address.postalCode"),
        ("exists (Patient.address A where A.postalCode.value in { '45229' })", "Address.postalCode"),
        ("Patient.id = 'a-19'", "Patient.id"),
        ("exists (Patient.identifier I where I.value = '0019')", "Identifier.value"),
        ("Patient.birthDate = @2012-05-01", "Patient.birthDate"),
        ("start of First([Encounter] E return E.period) same day as @2026-02-03", "Encounter.period"),
        ("Patient.deceased", "Patient.deceased"),
        ("First([Observation]).effective", "Observation.effective"),
        ("First([Device]).serialNumber", "Device.serialNumber"),
    ] {
        let (code, out) = checked(&logic("stay.class", told), &definition);
        let out = out.replace("\n│ ", " ");
        let element = if element.contains('.') || element.contains('(') { format!("`{element}`") } else { element.to_owned() };
        assert!(code == 1 && out.contains(&format!("reads {element}: a report would tell who")) && out.contains("measure.yaml:23:24"), "{told}: {out}");
    }
    for (kind, element, would) in [
        ("First(Patient.name).text + stay.status", "Patient.name", "would"),
        // What a record, or its patient, is known by.
        ("First(stay.identifier).value", "Encounter.identifier", "would"),
        ("'stay ' + stay.id", "Encounter.id", "would"),
        ("stay.subject.reference", "Reference.reference", "would"),
        ("stay.subject.display.value", "Reference.display", "would"),
        ("stay.subject.identifier.value", "Reference.identifier", "would"),
        ("First([Observation] O let s: O.subject return s.reference.value)", "Reference.reference", "would"),
        ("First([Observation] O return Tuple { s: O.subject }).s.reference.value", "Reference.reference", "would"),
        ("First([Device]).patient.reference", "Reference.reference", "would"),
        ("First(Patient.link.other.reference.value)", "Reference.reference", "would"),
        ("First(Patient.link).other.identifier.value", "Reference.identifier", "would"),
        ("First([Procedure] P return Tuple { a: P.id.value }).a", "Procedure.id", "would"),
        ("Combine([Encounter] E return E.id.value)", "Encounter.id", "would"),
        ("stay.text.\"div\".value", "Narrative.div", "would"),
        ("First([Device]).lotNumber", "Device.lotNumber", "would"),
        ("stay.text.status", "Encounter.text", "may"),
        // What anybody may have written.
        ("First(First([Observation]).note).text", "Annotation.text`, a free text", "may"),
        ("First([Observation] O return O.value as FHIR.string)", "Observation.value`, a free text", "may"),
        ("First(Patient.extension E where E.url = 'mothersMaidenName' return (E.value as FHIR.string).value)", "Extension.value`, a free text", "may"),
        ("First(First(First([QuestionnaireResponse]).item).answer).value as FHIR.string", "Answer.value`, a free text", "may"),
    ] {
        let (code, out) = checked(&logic(kind, "1"), &definition);
        let close = if element.contains('`') { "" } else { "`" };
        let told = format!("reads `{element}{close}: a report {would} tell who the patients are");
        assert!(code == i32::from(would == "would") && out.contains("`Kind` gives") && out.contains(&told) && out.contains("measure.yaml:21:24"), "{kind}: {code} {out}");
    }
    for shared in [
        "exists Patient.telecom",
        "AgeInYears()",
        "if AgeInYears() < 18 then 'child' else 'adult'",
        "First(Patient.address).state",
        "First(Patient.address).country",
        "if First(Patient.address).postalCode.value in { '02115', '02116' } then 'near' else 'far'",
        "year from start of First([Encounter] E return E.period)",
        "year from Patient.birthDate",
        "ToString(AgeInMonths())",
        "exists ([Encounter] E where E.period starts after Patient.birthDate)",
        "First(First([Encounter]).location).location.display",
        "(First([MedicationRequest]).medication as FHIR.Reference).display",
        "First([Encounter] E return Tuple { id: E.id, kind: E.class }).kind",
        "First([Observation] O return O.value as FHIR.CodeableConcept)",
        "First([Observation] O return O.value) as FHIR.CodeableConcept",
        // How long something took, or who was how old, is no day.
        "First([Encounter] E return hours between start of E.period and end of E.period)",
        "First([Encounter] E return duration in days of E.period)",
        "First([Encounter] E return AgeInDaysAt(date from start of E.period))",
        "First([Encounter] E return hour from start of E.period)",
        "exists (Patient.identifier I where I.system = 'http://hospital.example/mrn')",
        "exists ([Encounter] E where E.id = Patient.id)",
        "First(Patient.extension E where E.url = 'sex' return E.value) as FHIR.code = 'M'",
        "ToString(AgeInYears()) = '4'",
        "Patient.deceased as FHIR.boolean = true",
        "start of First([Encounter] E return E.period) after @2026-02-03",
        "start of First([Encounter] E return E.period) same year as @2026-02-03",
    ] {
        let (code, out) = checked(&logic("stay.class", shared), &definition);
        assert_eq!(code, 0, "{shared}: {out}");
        assert!(!out.contains("would tell") && !out.contains("free text"), "{shared}: {out}");
    }
    // A number of its own for nearly everybody is said before it is missing from a report.
    for (told, element) in [
        ("First([Encounter]).length", Some("Encounter.length")),
        ("First([Encounter] E return days between start of E.period and end of E.period)", Some("Encounter.period")),
        ("Max([Observation] O return (O.value as FHIR.Quantity).value)", Some("Observation.value")),
        ("if First([Encounter]).length > 24 'h' then 'long' else 'short'", None),
        ("First([Observation] O return (O.value as FHIR.Quantity).code)", None),
        ("First([Observation] O return O.value as FHIR.CodeableConcept)", None),
        ("Count([Encounter])", None),
        ("AgeInYears()", None),
        ("year from Patient.birthDate", None),
        ("Patient.gender", None),
    ] {
        let (code, out) = checked(&logic("stay.class", told), &definition);
        let said = element.is_some_and(|element| out.contains(&format!("reads `{element}`: it is left out of each report")));
        assert_eq!((code, said, out.contains("left out")), (0, element.is_some(), element.is_some()), "{told}: {out}");
    }
}

#[test]
fn what_is_missing_is_said_with_what_it_may_be() {
    let (code, out) = checked(LOGIC, &MEASURE.replace("improvement: decrease\n", ""));
    assert!(code == 1 && out.contains("the field `improvement` is missing") && out.contains("`improvement: increase` or `improvement: decrease`"), "{code} {out}");
    let (code, out) = checked(LOGIC, &MEASURE.replace("  - code: measure-population\n    define: Stays\n", ""));
    assert!(code == 1 && out.contains("needs the population `measure-population`") && out.contains("measure.yaml:11:1"), "{code} {out}");
}

#[test]
fn slips_in_ids_are_told_where_they_are() {
    let populations = MEASURE
        .split_once("populations:\n")
        .unwrap()
        .1
        .replace("  - code", "      - code")
        .replace("    define", "        define");
    let populations = populations.replace("\n    of", "\n        of").replace("\n    aggregate", "\n        aggregate");
    let head = MEASURE.split_once("populations:\n").unwrap().0;
    let (code, out) = checked(LOGIC, &format!("{head}groups:\n  - id: one\n    populations:\n{populations}  - populations:\n{populations}"));
    let second = 14 + populations.lines().count();
    assert!(code == 1 && out.contains("the field `id` is missing") && out.contains(&format!("measure.yaml:{second}:5")), "{second} {out}");

    let folder = laid(&[]);
    std::fs::write(
        folder.path().join("stay/measure.yaml"),
        MEASURE
            .replace("code: measure-population\n", "code: measure-population\n    id: mp\n")
            .replace("of: measure-population", "of: mp"),
    )
    .unwrap();
    let case = "title: None\nresources:\n  - {resourceType: Patient}\nexpect:\n  - period: \"2026-02\"\n    populations: {measure-population: 0}\n";
    std::fs::write(folder.path().join("stay/cases/01-none.yaml"), case).unwrap();
    let (_, out) = watershed(folder.path(), &["measure", "test", "stay"]);
    assert!(out.contains("did you mean `mp`?"), "{out}");
}

#[test]
fn what_was_observed_is_explained_by_code_and_by_id() {
    let folder = laid(&["4", "9"]);
    std::fs::write(folder.path().join("stay/measure.yaml"), MEASURE.replace("    of: measure-population", "    id: hours\n    of: measure-population")).unwrap();
    for name in ["hours", "measure-observation"] {
        let (code, out) = watershed(folder.path(), &["measure", "explain", "stay", "--data", "all.ndjson", "--patient", "p", "--period", "2026-02", "--population", name]);
        assert!(code == 0 && out.contains("measure-observation (group-1): in, 2 times") && out.contains("\"Hours\" = Encounter/e0 gave 4, Encounter/e1 gave 9"), "{out}");
    }
}

#[test]
fn two_observations_of_a_group_are_explained_by_their_ids() {
    let folder = laid(&["4"]);
    let ratio = MEASURE.split_once("scoring").unwrap().0.to_owned()
        + "scoring: ratio\nbasis: Encounter\nimprovement: decrease\npopulations:\n- {code: initial-population, define: Stays}\n- {code: denominator, define: Stays}\n\
           - {code: numerator, define: Stays}\n- {code: measure-observation, id: expected, of: denominator, aggregate: sum, define: Hours}\n\
           - {code: measure-observation, id: seen, of: numerator, aggregate: sum, define: Hours}\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), ratio).unwrap();
    let (_, out) = watershed(folder.path(), &["measure", "explain", "stay", "--data", "all.ndjson", "--patient", "p", "--period", "2026-02"]);
    let headings: Vec<&str> = out.lines().filter(|line| line.contains("(group-1)")).collect();
    assert_eq!(headings[2..], ["numerator (group-1): in", "measure-observation `expected` (group-1): in", "measure-observation `seen` (group-1): in"], "{out}");
}

/// Why an event is in a population or not, down to what it was held against.
#[test]
fn of_events_it_is_explained_which_were_left_out_and_by_what() {
    let folder = laid(&["4", "9"]);
    let proportion = MEASURE.split_once("scoring").unwrap().0.to_owned()
        + "scoring: proportion\nbasis: Encounter\nimprovement: decrease\npopulations:\n- {code: initial-population, define: Index}\n- {code: denominator, define: Noted}\n\
           - {code: numerator, define: Returned}\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), proportion).unwrap();
    let logic = "define \"Index\": \"Stays\" E where E.length > 5 'h'\ndefine function \"Back\"(stay Encounter): stay.length > 12 'h'\n\
         define \"Returned\": \"Index\" E where \"Back\"(E)\ndefine \"Noted\": \"Index\" E with [Observation] O such that O.status = 'final'\n";
    std::fs::write(folder.path().join("stay/stay.cql"), LOGIC.to_owned() + logic).unwrap();
    let (code, out) = watershed(folder.path(), &["measure", "explain", "stay", "--data", "all.ndjson", "--patient", "p", "--period", "2026-02"]);
    let lines: Vec<&str> = out.lines().map(|line| line.split("   Stay:").next().unwrap()).filter(|line| !line.is_empty()).collect();
    let expected = [
        "initial-population (group-1): in",
        "  ✓ \"Index\" = 1: Encounter/e1",
        "    ✓ \"Stays\" = 2: Encounter/e0, Encounter/e1",
        "    ✗ Encounter/e0 = left out",
        "      ✗ E.length > 5 'h' = false",
        "        · E.length = 4 'hour'",
        "denominator (group-1): not in",
        "  ✗ \"Noted\" = none",
        "    ✓ \"Index\" (above) = 1: Encounter/e1",
        "    ✗ Encounter/e1 = left out",
        "      ✗ with [Observation] O such that O.status = 'final' = none",
        "numerator (group-1): not in",
        "  ✗ \"Returned\" = none",
        "    ✓ \"Index\" (above) = 1: Encounter/e1",
        "    ✗ Encounter/e1 = left out",
        "      ✗ \"Back\"(E) = false",
        "        ✗ stay.length > 12 'h' = false",
    ];
    assert_eq!((code, &lines[1..]), (0, &expected[..]), "{out}");
}

/// What `evaluate` says on stderr of one stay in January, and of so many a month later: all of 4 hours.
#[test]
fn what_is_not_plausible_is_said_with_its_period_and_what_was_expected() {
    let folder = laid(&["4", "9"]);
    let limits = "plausibility:\n  denominator-min: 3\n  score-min: 7\n  score-max: 50\n";
    std::fs::write(folder.path().join("stay/measure.yaml"), MEASURE.to_owned() + limits).unwrap();
    let evaluate = |data: &str| watershed(folder.path(), &["evaluate", "--measure", "stay", "--data", data, "--period", "2026-02", "--out", "reports"]);
    let (code, said) = evaluate("all.ndjson");
    let expected = "warning: `stay`, 2026-02-01 to 2026-02-28: the denominator is 2, at least 3 is expected; see whether data of this period arrived from all units, and whether codes are mapped\n\
         warning: `stay`, 2026-02-01 to 2026-02-28: the score is 6.5, at least 7 is expected; look into the records of some patients (`watershed measure explain`; at a site with `--config site.toml`)\n";
    assert_eq!((code, said.as_str()), (0, expected));
    std::fs::write(folder.path().join("stay/measure.yaml"), MEASURE.to_owned() + &limits.replace("3", "2").replace("7", "6")).unwrap();
    assert_eq!(evaluate("all.ndjson"), (0, String::new()));
}
