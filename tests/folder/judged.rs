//! What is held of the lines of files, by whom they are named, and what becomes of it once a person has decided.

use watershed::source::{Options, PullOutcome};
use watershed::store::quarantine;

use super::{Yard, observations, patients};

#[tokio::test]
async fn lines_are_judged_as_those_of_an_export_and_nothing_names_a_patient() {
    let yard = Yard::new();
    yard.remove("Observation.ndjson");
    let bad = "{\"resourceType\":\"Observation\",\"id\":\"o9\"}\nno json of Smith\n";
    yard.write("Smith-471181.ndjson", observations() + bad);
    let found = yard.pull().await;
    assert_eq!((found.complete, found.quarantined, found.gaps.len()), (false, 2, 0));
    let held = yard.store.with(|connection| quarantine::list(connection, None)).unwrap();
    let told: Vec<(&str, u64)> = held.iter().map(|item| (item.reason.as_str(), item.entry)).collect();
    assert_eq!(told, [("no reference to a patient", 4), ("not one JSON object in UTF-8", 5)]);
    yard.write("Smith-471181.ndjson", "{\"resourceType\":\"Obs");
    let cut = yard.pull().await;
    let all: String = held.iter().map(|item| item.source.clone()).chain(cut.gaps.iter().map(|gap| gap.reason.clone())).collect();
    assert!(all.contains("file #") && !all.contains("Smith") && !all.contains("4711"), "{all}");
    assert_eq!(yard.counts()["Observation"], 3, "a file of no known type may hold any: nothing is let go");
}

#[tokio::test]
async fn a_type_that_fhir_does_not_have_is_held_by_the_one_that_is_near_if_one_is() {
    let yard = Yard::new();
    yard.pull().await;
    let [first, second, third] = ["\"Observation\"", "\"Observaton\"", "\"observation\""];
    let lines: Vec<String> = observations().lines().zip([first, second, third]).map(|(line, name)| line.replacen(first, name, 1) + "\n").collect();
    let other = "{\"resourceType\":\"ObservationDefinition\",\"id\":\"d1\"}\n{\"resourceType\":\"Transport\",\"id\":\"t1\"}\n{\"resourceType\":\"LabResult\",\"id\":\"l1\"}\n";
    yard.write("Observation.ndjson", lines.concat() + other);
    let found = yard.pull().await;
    assert_eq!((found.complete, found.quarantined, found.removed, yard.counts()["Observation"]), (false, 3, 0, 3));
    let held = yard.store.with(|connection| quarantine::list(connection, None)).unwrap();
    let told: Vec<_> = held.iter().map(|item| (item.reason.as_str(), item.resource_type.as_deref(), item.entry)).collect();
    let reason = "FHIR has no such resourceType, and this type's name is near";
    assert_eq!(told, [(reason, Some("Observation"), 2), (reason, Some("Observation"), 3), ("no resourceType, or none of FHIR's", None, 6)]);
}

/// R4, section 2.3.0.2. By the names of the files the patients come after what names them.
#[tokio::test]
async fn a_patient_who_is_named_by_an_identifier_is_found_where_exactly_one_has_it() {
    let yard = Yard::new();
    let patient = |n: u32, mrn: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"p{n}\",\"identifier\":[{{\"system\":\"http://h/mrn\",\"value\":\"{mrn}\"}}]}}\n");
    let named = |n: u32, subject: &str| format!("{{\"resourceType\":\"Observation\",\"id\":\"o{n}\",\"subject\":{subject},\"valueDecimal\":1.50}}\n");
    let subjects = [
        r#"{"type":"Patient","identifier":{"system":"http://h/mrn","value":"001"}}"#,
        r#"{"identifier":{"system":"http://h/mrn","value":"002"}}"#,
        r#"{"identifier":{"system":"http://h/mrn","value":"003"}}"#,
        r#"{"identifier":{"system":"http://h/other","value":"001"}}"#,
        r#"{"identifier":{"value":"001"}}"#,
        r##"{"reference":"#p"}"##,
        r#"{"reference":"Patient?identifier=http://h/mrn|001"}"#,
    ];
    yard.write("Observation.ndjson", (1..).zip(subjects).map(|(n, subject)| named(n, subject)).collect::<String>());
    yard.write("Patient.ndjson", patient(1, "001") + &patient(2, "002") + &patient(3, "002"));
    let found = yard.pull().await;
    assert_eq!((found.complete, found.quarantined, found.gaps.len(), yard.counts()["Observation"]), (false, 6, 0, 1));
    let held = yard.store.with(|connection| quarantine::list(connection, None)).unwrap();
    let mut told: Vec<(u64, &str)> = held.iter().map(|item| (item.entry, item.reason.split(':').next().unwrap())).collect();
    told.sort_unstable();
    let expected = [
        (2, "its patient is named by an identifier that several patients here have"),
        (3, "its patient is named by an identifier that no patient here has"),
        (4, "its patient is named by an identifier that no patient here has"),
        (5, "its patient is named by an identifier without a system or a value"),
        (6, "its patient is named by a contained resource, which bears no id"),
        (7, "its patient is named by a search (`Patient?…`)"),
    ];
    assert_eq!(told, expected);
    let snapshot = yard.snapshot();
    let of_patient = snapshot
        .patients(snapshot.partition_of("p1"), None)
        .unwrap()
        .into_iter()
        .find(|patient| patient.patient_id == "p1")
        .unwrap();
    let stored: Vec<&str> = of_patient.lines.iter().map(|line| std::str::from_utf8(line).unwrap()).filter(|line| line.contains("\"o1\"")).collect();
    let expected = r#"{"resourceType":"Observation","id":"o1","subject":{"type":"Patient","identifier":{"system":"http://h/mrn","value":"001"},"reference":"Patient/p1"},"valueDecimal":1.50}"#;
    assert_eq!(stored, [expected]);
    // Whose identifier it is may become known, and what is held still is no reason to let go of anything.
    yard.write("Patient.ndjson", patient(1, "001") + &patient(2, "002") + &patient(3, "003"));
    let known = yard.pull().await;
    assert_eq!((known.complete, known.quarantined, known.removed, yard.counts()["Observation"]), (false, 4, 0, 3));
    yard.discard_all();
    let decided = yard.pull().await;
    assert_eq!((decided.complete, decided.quarantined, decided.removed, yard.counts()["Observation"]), (true, 0, 0, 3));
}

/// Though its file is as it was; and what was discarded stays out though it could be taken.
#[tokio::test]
async fn what_is_to_be_judged_again_is_read_again_and_what_was_discarded_is_never_taken() {
    let yard = Yard::new();
    let decide = |state| {
        let decided = yard.store.with(|connection| {
            let held = quarantine::list(connection, Some(quarantine::State::Held))?;
            held.iter().try_for_each(|item| quarantine::decide(connection, item.id, state))
        });
        decided.unwrap();
    };
    yard.pull().await;
    yard.write("Observation.ndjson", observations() + "{\"resourceType\":\"Observation\",\"id\":\"o8\"}\n");
    assert_eq!(yard.pull().await.quarantined, 1);
    decide(quarantine::State::Retry);
    let again = yard.pull().await;
    let left = yard.store.with(|connection| quarantine::list(connection, Some(quarantine::State::Retry))).unwrap();
    assert_eq!((again.full, again.quarantined, left.len()), (true, 1, 0));
    let named = "{\"resourceType\":\"Observation\",\"id\":\"o9\",\"subject\":{\"identifier\":{\"system\":\"http://h/mrn\",\"value\":\"001\"}}}\n";
    yard.write("Observation.ndjson", observations() + named);
    assert_eq!(yard.pull().await.quarantined, 1);
    decide(quarantine::State::Discarded);
    let identified = r#""id":"p1","identifier":[{"system":"http://h/mrn","value":"001"}]"#;
    yard.write("Patient.ndjson", patients().replace(r#""id":"p1""#, identified));
    let decided = yard.pull().await;
    assert_eq!((decided.complete, yard.counts()["Observation"]), (true, 3));
    assert_eq!((yard.pull().await.complete, yard.counts()["Observation"]), (true, 3));
}

/// While a line waits it may be one of those that are in no file any more; once it is discarded, they are gone.
#[tokio::test]
async fn once_every_line_is_decided_what_is_in_no_file_goes() {
    let yard = Yard::new();
    let of = |numbers: std::ops::Range<u32>| {
        numbers
            .map(|n| format!("{{\"resourceType\":\"Observation\",\"id\":\"m{n}\",\"subject\":{{\"reference\":\"Patient/p1\"}}}}\n"))
            .collect::<String>()
    };
    let bad = "{\"resourceType\":\"Observation\",\"id\":\"bad\"}\n";
    let told = |found: &PullOutcome, yard: &Yard| (found.complete, found.quarantined, found.removed, yard.counts()["Observation"]);
    yard.write("Observation.ndjson", of(0..12) + bad);
    assert_eq!(told(&yard.pull().await, &yard), (false, 1, 0, 12));
    yard.write("Observation.ndjson", of(0..9) + bad);
    assert_eq!(told(&yard.pull().await, &yard), (false, 1, 0, 12));
    yard.discard_all();
    assert_eq!(told(&yard.pull().await, &yard), (true, 0, 3, 9));
    // It is decided wherever it stands.
    yard.remove("Observation.ndjson");
    yard.write("2026-10-16/Observation.ndjson", format!("{bad}{}{bad}", of(0..9)));
    assert_eq!(told(&yard.pull().await, &yard), (true, 0, 0, 9));
    // What a discarded line held is to be left out, in its earlier form too.
    yard.write("2026-10-16/Observation.ndjson", of(0..8) + bad + "{\"resourceType\":\"Observation\",\"id\":\"m8\"}\n");
    assert_eq!(told(&yard.pull().await, &yard), (false, 1, 0, 9));
    yard.discard_all();
    assert_eq!(told(&yard.pull().await, &yard), (true, 0, 1, 8));
    // A loss is no more believed for it.
    yard.write("2026-10-16/Observation.ndjson", of(0..40) + bad);
    assert_eq!(told(&yard.pull().await, &yard), (true, 0, 0, 40));
    yard.write("2026-10-16/Observation.ndjson", of(0..9) + bad);
    let lost = yard.pull().await;
    assert!(!lost.complete && lost.removed == 0 && lost.gaps[0].reason.starts_with("10 came where 40 are stored; what is stored is kept"), "{:?}", lost.gaps);
    let mut options = Options::default();
    options.tuning.accepts_loss = true;
    assert_eq!(told(&yard.try_pull(options).await.unwrap(), &yard), (true, 0, 31, 9));
}
