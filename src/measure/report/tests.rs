//! Reports of hand-made results.

use std::collections::BTreeSet;

use super::*;
use crate::diagnostic::SourceFile;
use crate::measure::definition;
use crate::measure::population::{Criteria, memberships};
use crate::measure::result::GroupResult;
use crate::validate;

const RATE: &str = "\
id: rate
url: http://watershed.example/fhir/Measure/rate
version: 2.1.0
status: active
title: Infections
description: Infections for each thousand days.
steward: Someone
scoring: ratio
basis: Encounter
improvement: decrease
rate: {multiplier: 1000, unit: 'per 1,000 days'}
populations:
  - {code: initial-population, define: IP}
  - {code: denominator, define: D}
  - {code: numerator, define: N}
  - {code: measure-observation, id: days, of: denominator, aggregate: sum, define: Days}
  - {code: measure-observation, id: events, of: numerator, aggregate: sum, define: Events}
stratifiers:
  - {id: race, define: Race, strata: {2106-3: White}}
  - {id: race-and-ward, components: [{id: race, define: Race, text: Race, strata: {2106-3: White}}, {id: ward, define: Ward}]}
supplemental-data:
  - {id: sex, define: Sex, text: Administrative sex}
  - {id: payer, define: Payer}
";

fn facts() -> Facts {
    Facts {
        reporter: "north".into(),
        date: "2026-02-01".into(),
        software: ("Watershed".into(), "0.1.0".into()),
        zone: "America/New_York".into(),
        lineage: vec![("mapping".into(), "harbor".into(), "1.0.0".into())],
        ..Facts::default()
    }
}

fn rated(definition: &Definition, groups: &[Group], race: &str, stay: &str, days: i64, events: i64) -> PatientResult {
    let shape = groups[0].shape(definition.scoring);
    let mut criteria = Criteria::none(5);
    let one = BTreeSet::from([stay.to_owned()]);
    criteria.holds[0] = one.clone();
    criteria.holds[1] = one.clone();
    criteria.observed[3].insert(stay.to_owned(), Decimal::from(days).into());
    if events > 0 {
        criteria.holds[2] = one;
        criteria.observed[4].insert(stay.to_owned(), Decimal::from(events).into());
    } else {
        criteria.unknown[2].insert(stay.to_owned(), "unmapped-code".into());
    }
    let strata = vec![BTreeMap::from([(vec![race.into()], None)]), BTreeMap::from([(vec![race.into(), "7b".into()], None)])];
    PatientResult {
        groups: vec![GroupResult { memberships: memberships(&shape, &criteria), strata }],
        supplements: vec![Some("female".into()), None],
        ..PatientResult::default()
    }
}

fn with_report(check: impl FnOnce(&Reporter<'_>, &[PatientResult])) {
    let (definition, _) = definition::parse(&SourceFile::new("measure.yaml", RATE));
    let definition = definition.unwrap();
    let groups = definition.all_groups();
    let results = [rated(&definition, &groups, "2106-3", "Encounter/secret-1", 1_500, 3), rated(&definition, &groups, "unknown", "Encounter/secret-2", 500, 0)];
    let parameters = BTreeMap::from([("Window".to_owned(), "13".to_owned())]);
    let period = Period::parse("2026-01").unwrap();
    let incomplete_sets = BTreeSet::new();
    let fingerprint = Fingerprint { logic: vec!["cql+numbers:0".into(), "meaning:1".into()], value_sets: [("http://v/lines".to_owned(), "1".to_owned())].into() };
    check(
        &Reporter {
            definition: &definition,
            groups: &groups,
            parameters: &parameters,
            period,
            incomplete_sets: &incomplete_sets,
            fingerprint: &fingerprint,
            facts: &facts(),
        },
        &results,
    );
}

#[test]
fn a_summary_has_the_rate_its_parts_and_nobody_in_it() {
    with_report(|reporter, results| {
        let mut partial = Partial::default();
        results.iter().for_each(|result| partial.add(result));
        let report = reporter.summary(&partial);
        assert_eq!(validate::check(&report), []);
        let group = &report["group"][0];
        assert_eq!(group["measureScore"], json!({ "value": 1.5, "unit": "per 1,000 days" }).clone());
        assert_eq!(group["population"][3]["extension"][2]["valueQuantity"], json!({ "value": 2000 }));
        assert!(group["population"][3].get("count").is_none());
        assert_eq!(group["population"][3]["extension"][1]["valueString"], "denominator");
        assert_eq!(group["population"][2]["extension"][0]["extension"][1]["extension"][0]["valueCode"], "unmapped-code");
        let open = json!({ "url": format!("{OWN}/cannot-tell"), "extension": [{ "url": "count", "valueInteger": 1 }] });
        assert_eq!(group["extension"][1], open, "of a ratio it is not said of how many");
        let strata = group["stratifier"][0]["stratum"].as_array().unwrap();
        assert_eq!((strata[0]["extension"].get(1), &strata[1]["extension"][1]), (None, &open), "of the second stay");
        assert_eq!(strata[0]["value"], json!({ "coding": [{ "code": "2106-3", "display": "White" }], "text": "White" }));
        assert_eq!(strata[0]["measureScore"]["value"], json!(2));
        assert_eq!(strata[1]["value"]["text"], "unknown");
        let named = |code: &str, display: &str| json!({ "coding": [{ "code": code, "display": display }], "text": display });
        let components = json!([{ "code": { "text": "Race" }, "value": named("2106-3", "White") }, { "code": { "text": "ward" }, "value": named("7b", "7b") }]);
        assert_eq!(group["stratifier"][1]["stratum"][0]["component"], components);
        assert_eq!(report["id"], "rate-north-20260101-20260131");
        assert_eq!(report["measure"], "http://watershed.example/fhir/Measure/rate|2.1.0");
        let text = report.to_string();
        assert!(!text.contains("secret") && !text.contains("Patient/"), "{text}");
    });
}

/// The same letters in two systems are two strata. Each has its system, for another hospital may have the letters in another one; people are told
/// it where a report has both.
#[test]
fn codes_of_two_systems_are_two_strata() {
    with_report(|reporter, results| {
        let values = |systems: &[Option<&str>]| {
            let mut partial = Partial::default();
            for system in systems {
                let mut result = results[0].clone();
                let label = Label { text: "2106-3".into(), system: system.map(str::to_owned) };
                result.groups[0].strata = vec![BTreeMap::from([(vec![label.clone()], None)]), BTreeMap::from([(vec![label, "7b".into()], None)])];
                partial.add(&result);
            }
            let report = reporter.summary(&partial);
            assert_eq!(validate::check(&report), []);
            let strata = report["group"][0]["stratifier"].as_array().unwrap().iter().map(|one| one["stratum"].as_array().unwrap());
            let [plain, of_components] = [0, 1].map(|at| strata.clone().nth(at).unwrap());
            let [own, race] = [plain.iter().map(|one| one["value"].clone()).collect::<Vec<_>>(), of_components.iter().map(|one| one["component"][0]["value"].clone()).collect()];
            assert_eq!(own, race);
            assert!(of_components.iter().all(|one| one["component"][1]["value"]["text"] == "7b"));
            own
        };
        let plain = json!({ "coding": [{ "code": "2106-3", "display": "White" }], "text": "White" });
        let alone = json!({ "coding": [{ "system": "http://a", "code": "2106-3", "display": "White" }], "text": "White" });
        let of = |system: &str| json!({ "coding": [{ "system": system, "code": "2106-3", "display": "White" }], "text": format!("White ({system})") });
        assert_eq!(values(&[Some("http://a"), Some("http://a")]), [alone]);
        assert_eq!(values(&[Some("http://b"), Some("http://a"), Some("http://b")]), [of("http://a"), of("http://b")]);
        assert_eq!(values(&[Some("http://a"), None]), [plain, of("http://a")]);
    });
}

#[test]
fn a_report_of_nobody_is_a_good_report_without_a_score() {
    with_report(|reporter, _| {
        let report = reporter.summary(&Partial::default());
        assert_eq!(validate::check(&report), []);
        assert!(report["group"][0].get("measureScore").is_none());
        assert_eq!(report["group"][0]["population"][0]["count"], 0);
    });
}

#[test]
fn an_incomplete_night_is_labelled() {
    with_report(|reporter, _| {
        let completeness = Completeness { gaps: BTreeMap::from([("Observation".into(), 2)]), quarantined: 60, absent: ["Encounter".into()].into() };
        let facts = Facts { completeness, ..facts() };
        let report = Reporter { facts: &facts, ..*reporter }.summary(&Partial::default());
        assert_eq!(validate::check(&report), []);
        let text = report.to_string();
        assert!(text.contains(r#""valueCode":"partial""#) && text.contains(r#""quarantined","valueInteger":60"#), "{text}");
        assert!(text.contains(r#"{"url":"absent","valueCode":"Encounter"}"#), "{text}");
        let only_absent = Facts { completeness: Completeness { absent: ["Encounter".into()].into(), ..Completeness::default() }, ..facts };
        assert!(Reporter { facts: &only_absent, ..*reporter }.is_complete(&Partial::default()), "there may have been none");
    });
}

#[test]
fn individual_and_subject_list_name_the_patients() {
    with_report(|reporter, results| {
        let individual = reporter.individual("p1", &results[0]);
        assert_eq!(validate::check(&individual), []);
        assert_eq!(individual["subject"]["reference"], "Patient/p1");
        assert_ne!(individual["id"], reporter.individual("p2", &results[0])["id"]);
        assert!(!individual["id"].as_str().unwrap().contains("p1"));
        let observation = |number: u8, name: &str| json!({ "resourceType": "Observation", "id": format!("supplement-{number}"), "status": "final", "code": { "text": name }, "subject": { "reference": "Patient/p1" } });
        let [mut sex, mut payer] = [observation(1, "Administrative sex"), observation(2, "payer")];
        sex["valueString"] = "female".into();
        payer["dataAbsentReason"] = json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown" }] });
        assert_eq!(individual["contained"], json!([sex, payer]));
        let reference = json!({ "extension": [{ "url": format!("{HL7}/cqf-criteriaReference"), "valueString": "sex" }], "reference": "#supplement-1" });
        let all: Vec<&Value> = individual["extension"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["url"] == format!("{HL7}/measurereport-supplementalData"))
            .collect();
        assert_eq!((all.len(), &all[0]["valueReference"]), (2, &reference));
        assert!(
            reporter
                .individual("p3", &PatientResult { supplements: vec![None, None], ..PatientResult::default() })
                .get("contained")
                .is_none(),
            "in no population"
        );
        let mut partial = Partial::default();
        results.iter().for_each(|result| partial.add(result));
        let subjects = BTreeMap::from([("p1".to_owned(), results[0].clone()), ("p2".to_owned(), results[1].clone())]);
        let list = reporter.subject_list(&partial, &subjects);
        assert_eq!(validate::check(&list), []);
        let size = |id: &str| {
            list["contained"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap()["entry"]
                .as_array()
                .map_or(0, Vec::len)
        };
        assert_eq!((size("group-1-population-1"), size("group-1-population-3")), (2, 1));
    });
}
