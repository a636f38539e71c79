//! What a record makes of lines: good, shaped, mutated, in any order.

use proptest::prelude::*;

use super::*;

const OBSERVATION: &str = r#"{"resourceType":"Observation","id":"o1","status":"final","_status":{"extension":[{"url":"u","valueCode":"x"}]},"code":{"coding":[{"system":"http://loinc.org","code":"4548-4"}],"text":"A1c"},"valueQuantity":{"value":7.50,"unit":"%"},"subject":{"reference":"Patient/p1"}}"#;
const PATIENT: &str = r#"{"id":"p1","resourceType":"Patient","name":[{"given":["A",null],"_given":[null,{"id":"g"}]}],"deceasedBoolean":false}"#;

fn read(shape: &Shape, lines: &[&str]) -> (Record, Vec<BadLine>) {
    Record::read(shape, lines.iter().map(|line| line.as_bytes()))
}

fn path(record: &Record, from: NodeId, path: &str) -> Option<NodeId> {
    path.split('.').try_fold(from, |node, name| record.get(node, name).and_then(|node| record.items(node).next()))
}

#[test]
fn reads_scalars_arrays_and_companions() {
    let (record, bad) = read(&Shape::everything(), &[OBSERVATION, PATIENT, ""]);
    assert_eq!(bad, []);
    assert_eq!(record.patient_id(), Some("p1"));
    let observation = record.resources("Observation")[0];
    let value = path(&record, observation, "valueQuantity.value").unwrap();
    assert_eq!(record.number(value).unwrap().to_string(), "7.50");
    assert_eq!(path(&record, observation, "code.coding.code").and_then(|node| record.text(node)), Some("4548-4"));
    assert_eq!(path(&record, observation, "status.extension.valueCode").and_then(|node| record.text(node)), Some("x"));
    let patient = record.resources("Patient")[0];
    let given = path(&record, patient, "name").and_then(|name| record.get(name, "given")).unwrap();
    let second = record.items(given).nth(1).unwrap();
    assert_eq!(record.kind(second), NodeKind::Null);
    assert_eq!(path(&record, second, "id").and_then(|node| record.text(node)), Some("g"));
    assert_eq!(record.resolve(observation, "http://x/fhir/Patient/p1/_history/3"), Some(patient));
}

#[test]
fn keeps_only_the_shape() {
    let mut shape = Shape::default();
    let quantity = Keep::Fields([("value", Keep::default())].into());
    shape.types.insert("Observation".to_owned(), Keep::Fields([("valueQuantity", quantity)].into()));
    let (record, bad) = read(&shape, &[OBSERVATION, PATIENT]);
    assert_eq!(bad, []);
    assert!(record.resources("Patient").is_empty());
    let observation = record.resources("Observation")[0];
    assert_eq!(record.resource_id(observation), Some("o1"));
    assert!(record.get(observation, "code").is_none());
    let quantity = record.get(observation, "valueQuantity").unwrap();
    assert!(record.get(quantity, "value").is_some() && record.get(quantity, "unit").is_none());
}

#[test]
fn reports_bad_lines_and_keeps_the_rest() {
    let deep = format!(r#"{{"resourceType":"Basic","a":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let lines = [PATIENT, "{", "[]", r#"{"id":"x"}"#, r#"{"resourceType":7}"#, r#"{"resourceType":"Patient","id":"#, &deep, "nonsense"];
    let (record, bad) = read(&Shape::everything(), &lines);
    assert_eq!(bad.iter().map(|line| line.index).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(record.resources("Patient").len(), 1);
    assert!(bad[5].reason.contains("deeper than 64"), "{}", bad[5].reason);
}

#[test]
fn one_type_and_id_counts_once_and_the_newest_wins() {
    let old = r#"{"resourceType":"Patient","id":"p","meta":{"lastUpdated":"2024-01-01T00:00:00Z"},"gender":"male"}"#;
    let new = r#"{"resourceType":"Patient","id":"p","meta":{"lastUpdated":"2025-01-01T00:00:00Z"},"gender":"female"}"#;
    for lines in [[old, new, old], [new, old, old], [old, old, new]] {
        let (record, _) = read(&Shape::everything(), &lines);
        let patients = record.resources("Patient");
        assert_eq!(patients.len(), 1);
        assert_eq!(path(&record, patients[0], "gender").and_then(|node| record.text(node)), Some("female"));
        assert_eq!(record.resource("Patient", "p"), Some(patients[0]));
    }
}

#[test]
fn a_line_without_id_counts_once() {
    let line = r#"{"resourceType":"Observation","status":"final"}"#;
    let (record, bad) = read(&Shape::everything(), &[line, r#"{"resourceType":"Observation","status":"amended"}"#, line]);
    assert_eq!((bad, record.resources("Observation").len()), (vec![], 2));
}

#[test]
fn mapping_adds_codings_and_keeps_what_was_there() {
    let (mut record, _) = read(&Shape::everything(), &[OBSERVATION]);
    let observation = record.resources("Observation")[0];
    let code = record.get(observation, "code").unwrap();
    record.append_coding(code, "http://s", "c", Some("d"));
    let codings = record.get(code, "coding").unwrap();
    let codes: Vec<_> = record.items(codings).filter_map(|coding| record.get(coding, "code")).filter_map(|node| record.text(node)).collect();
    assert_eq!(codes, ["4548-4", "c"]);
    let category = record.object_or_new(observation, "category");
    record.append_coding(category, "http://s", "k", None);
    assert_eq!(path(&record, observation, "category.coding.code").and_then(|node| record.text(node)), Some("k"));
    let added = record.add_resource(br#"{"resourceType":"Observation","id":"a0"}"#).unwrap();
    assert_eq!(record.resources("Observation"), [added, observation]);
    assert!(!format!("{record:?}").contains("4548"));
}

proptest! {
    #[test]
    fn mutated_lines_never_panic(at in 0usize..OBSERVATION.len(), byte: u8, cut in 0usize..OBSERVATION.len()) {
        let mut line = OBSERVATION.as_bytes().to_vec();
        line[at] = byte;
        let short = line[..cut].to_vec();
        let (record, bad) = Record::read(&Shape::everything(), [line.as_slice(), &short, PATIENT.as_bytes()].into_iter());
        prop_assert!(bad.len() <= 2);
        for resource_type in record.resource_types() {
            for root in record.resources(resource_type) {
                for field in record.fields(*root) {
                    let _ = (record.number(field), record.text(field), record.items(field).count());
                }
            }
        }
    }
}

#[test]
fn a_sieve_passes_over_lines_but_never_over_a_newer_version() {
    let observation = |id: &str, code: &str, updated: &str| {
        format!(r#"{{"resourceType":"Observation","id":"{id}","meta":{{"lastUpdated":"{updated}"}},"code":{{"coding":[{{"code":"{code}"}}]}}}}"#)
    };
    let mut shape = Shape::default();
    shape.types.insert("Observation".to_owned(), Keep::All);
    shape.sift("Observation", ["crp".to_owned()].into());
    let old = observation("o1", "crp", "2025-01-01");
    let corrected = observation("o1", "esr", "2025-02-01");
    let other = observation("o2", "esr", "2025-02-01");
    let codes = |lines: &[&str]| {
        let (record, bad) = read(&shape, lines);
        assert_eq!(bad, []);
        let code = |node: &NodeId| path(&record, *node, "code.coding.code").and_then(|node| record.text(node)).unwrap().to_owned();
        record.resources("Observation").iter().map(code).collect::<Vec<_>>()
    };
    assert_eq!(codes(&[&old, &other]), ["crp"]);
    assert_eq!(codes(&[&corrected, &old, &other]), ["esr"], "what was corrected is no longer a C-reactive protein");
    let elsewhere = corrected.replace(r#""id":"o1","#, "").replace("{\"resourceType\"", "{\"id\":\"o1\",\"resourceType\"");
    assert_eq!(codes(&[&elsewhere, &old]), ["esr"]);
}

#[test]
fn the_newest_version_is_the_later_instant_however_it_is_written() {
    for (old, new) in [("2026-05-01T15:20:00Z", "2026-05-01T11:30:00-05:00"), ("2026-05-01T15:20:00Z", "2026-05-01T15:20:00.250Z"), ("2026-05-01", "2026-05-01T00:00:00Z")] {
        let line = |updated: &str, status: &str| format!(r#"{{"resourceType":"Observation","id":"o1","meta":{{"lastUpdated":"{updated}"}},"status":"{status}"}}"#);
        let lines = [line(new, "final"), line(old, "preliminary")];
        for order in [[0_usize, 1], [1, 0]] {
            let (record, bad) = Record::read(&Shape::everything(), order.iter().map(|at| lines[*at].as_bytes()));
            let status = |node| record.get(node, "status").and_then(|status| record.text(status));
            assert_eq!((record.resources("Observation").iter().map(|node| status(*node)).collect::<Vec<_>>(), bad), (vec![Some("final")], Vec::new()), "{new}");
        }
    }
}

#[test]
fn the_newest_version_counts_even_when_only_the_profile_of_meta_is_kept() {
    let line = |updated: &str, status: &str| format!(r#"{{"resourceType":"Observation","id":"o1","meta":{{"profile":["p"],"lastUpdated":"{updated}"}},"status":"{status}"}}"#);
    let profile = Keep::Fields([("profile", Keep::All)].into());
    let shape = Shape { types: [("Observation".to_owned(), Keep::Fields([("meta", profile), ("status", Keep::All)].into()))].into(), ..Shape::default() };
    let (record, _) = read(&shape, &[&line("2025-02-01", "amended"), &line("2025-01-01", "final")]);
    let [only] = record.resources("Observation") else { panic!("one Observation") };
    assert_eq!(path(&record, *only, "status").and_then(|node| record.text(node)), Some("amended"));
}

#[test]
fn a_node_has_a_place_and_patients_who_share_an_id_are_told_by_their_line() {
    let lines = [r#"{"resourceType":"Patient","id":"p","name":[{"given":["a","b"]},{"period":{"start":"?"}}]}"#, r#"{"resourceType":"Encounter","id":"e","period":{"end":"?"}}"#];
    let (record, _) = read(&Shape::everything(), &lines);
    let place = |resource_type: &str, way: &[&str]| {
        let last = |node: NodeId, name: &&str| record.get(record.items(node).last().unwrap(), name);
        record
            .place(way.iter().try_fold(record.resources(resource_type)[0], last).unwrap())
            .map(|place| (place.line, place.element))
    };
    assert_eq!(place("Encounter", &["period", "end"]), Some((1, "Encounter.period.end".to_owned())));
    assert_eq!(place("Patient", &["name", "period", "start"]), Some((0, "Patient.name.period.start".to_owned())));
    assert_eq!(place("Patient", &[]), Some((0, "Patient".to_owned())));

    let patient = |born: &str, day: &str, more: &str| format!(r#"{{"resourceType":"Patient","id":"p","birthDate":"{born}","meta":{{"lastUpdated":"2026-01-{day}"}}{more}}}"#);
    let cases = [
        (patient("2012-01-01", "01", ""), patient("2012-01-01", "02", r#","active":true"#), None),
        (patient("2012-01-01", "01", ""), patient("2012-01-01", "01", "").replace(':', ": "), None),
        (patient("2012-01-01", "02", ""), patient("2013-01-01", "01", ""), Some(1)),
        (patient("2012-01-01", "01", ""), patient("2012-01-01", "01", r#","active":true"#), Some(1)),
    ];
    for (one, other, aside) in cases {
        let (record, bad) = read(&Shape::everything(), &[&one, &other]);
        assert_eq!((bad.first().map(|bad| bad.index), record.resources("Patient").len()), (aside, 1), "{one} {other}");
    }
}

proptest! {
    /// However long they are, and wherever they differ.
    #[test]
    fn names_are_the_same_where_their_bytes_are(one in "[ab\u{e9}]{0,20}", other in "[ab\u{e9}]{0,20}", at in 0usize..20) {
        let differs: String = one.chars().enumerate().map(|(place, letter)| if place == at { 'c' } else { letter }).collect();
        for name in [&one, &other, &differs] {
            prop_assert_eq!(is_same(&one, name), one == *name, "{} {}", one, name);
        }
    }
}
