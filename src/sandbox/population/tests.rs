//! Tests of generated hospitals.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use jiff::civil::date;
use serde_json::Value;

use super::super::truth::{EARLY_ELECTIVE_DELIVERY, HAC_CLABSI, IBD_REMISSION, TruthRow};
use super::*;

fn hospital(name: &str, patients: u32) -> Hospital {
    Hospital::generate(Profile::named(name).unwrap(), 42, patients, date(2026, 7, 15), 24)
}

fn digest_of(hospital: &Hospital) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for (_, _, json) in hospital.resources() {
        context.update(json.as_bytes());
        context.update(b"\n");
    }
    context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a hospital are pinned: a change of the generator shows here, and is then meant.
#[test]
fn same_seed_same_bytes() {
    let digests: Vec<String> = Profile::all().iter().map(|profile| digest_of(&hospital(profile.name, 40))).collect();
    assert_eq!(digests, ["909ea38d05ae9a6e", "565b40ed2da547fe", "16a44a88f241331c"]);
    assert_eq!(digest_of(&hospital("harbor", 40)), digests[2]);
    let other = Hospital::generate(Profile::named("harbor").unwrap(), 43, 40, date(2026, 7, 15), 24);
    assert_ne!(digest_of(&other), digests[2]);
}

fn parsed(hospital: &Hospital) -> BTreeMap<String, Value> {
    let resources = hospital.resources();
    let parsed: BTreeMap<String, Value> = resources.iter().map(|(kind, id, json)| (format!("{kind}/{id}"), serde_json::from_str(json).unwrap())).collect();
    assert_eq!(parsed.len(), resources.len(), "an id is used twice");
    parsed
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("reference").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn no_reference_dangles_and_none_leaves_its_patient() {
    for profile in Profile::all() {
        let resources = parsed(&hospital(profile.name, 80));
        for (name, resource) in &resources {
            let mut found = Vec::new();
            references(resource, &mut found);
            for reference in found {
                assert!(resources.contains_key(reference), "{name} refers to {reference}");
            }
        }
    }
}

/// Elements that R4 or the US Core profile requires, and no empty ones anywhere.
#[test]
fn required_elements_are_there() {
    let required: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("Condition", &["category", "code", "subject", "recordedDate"] as &[&str]),
        ("Coverage", &["status", "subscriberId", "beneficiary", "relationship", "payor"]),
        ("Device", &["status", "type", "patient"]),
        ("DeviceUseStatement", &["status", "subject", "device", "timingPeriod"]),
        ("Encounter", &["status", "class", "type", "subject", "period"]),
        ("Group", &["type", "actual", "member"]),
        ("Location", &["status", "name", "managingOrganization"]),
        ("MedicationRequest", &["status", "intent", "medicationCodeableConcept", "subject", "authoredOn", "requester"]),
        ("Observation", &["status", "category", "code", "subject", "effectiveDateTime"]),
        ("Organization", &["active", "name"]),
        ("Patient", &["identifier", "name", "gender", "birthDate"]),
        ("Practitioner", &["identifier", "name"]),
        ("Procedure", &["status", "code", "subject"]),
    ]);
    let id = regex::Regex::new(r"^[A-Za-z0-9\-.]{1,64}$").unwrap();
    for profile in Profile::all() {
        let resources = parsed(&hospital(profile.name, 80));
        let kinds: BTreeSet<&str> = resources.keys().filter_map(|name| name.split('/').next()).collect();
        assert_eq!(kinds, required.keys().copied().collect());
        for (name, resource) in &resources {
            let kind = resource["resourceType"].as_str().unwrap();
            for element in required[kind] {
                assert!(resource.get(*element).is_some(), "{name} has no {element}");
            }
            assert!(id.is_match(resource["id"].as_str().unwrap()));
            assert_eq!(resource["meta"]["versionId"], "1");
            let updated: Timestamp = resource["meta"]["lastUpdated"].as_str().unwrap().parse().unwrap();
            assert!(updated <= "2026-07-15T12:00:00Z".parse().unwrap(), "{name} comes from the future");
            assert!(!has_empty(resource), "{name} has an empty element");
        }
    }
}

fn has_empty(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty() || members.values().any(has_empty),
        Value::Array(items) => items.is_empty() || items.iter().any(has_empty),
        Value::String(text) => text.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

fn total(rows: &[TruthRow], measure: &str) -> (u64, u64, BTreeMap<String, u64>) {
    let mut sums = (0, 0, BTreeMap::new());
    for row in rows.iter().filter(|row| row.measure_id == measure) {
        sums.0 += row.numerator;
        sums.1 += row.denominator;
        for (population, count) in &row.populations {
            *sums.2.entry(population.clone()).or_default() += count;
        }
    }
    sums
}

#[test]
fn the_truth_is_plausible() {
    for profile in Profile::all() {
        let truth = hospital(profile.name, 500).truth();
        assert_eq!(truth.rows.len(), 3 * 24);
        let (numerator, denominator, populations) = total(&truth.rows, IBD_REMISSION);
        let percent = 100 * numerator / denominator;
        assert!((35..=85).contains(&percent), "{} remission {percent} %", profile.name);
        assert!(populations["denominator-exclusion"] > 0);
        let (infections, days, _) = total(&truth.rows, HAC_CLABSI);
        let rate = 1000 * infections / days;
        assert!((2..=40).contains(&rate), "{} {rate} infections per 1,000 line days ({infections} / {days})", profile.name);
        let (elective, early, populations) = total(&truth.rows, EARLY_ELECTIVE_DELIVERY);
        let percent = 100 * elective / early;
        assert!((5..=60).contains(&percent), "{} early elective {percent} %", profile.name);
        assert!(populations["denominator-exclusion"] > 0);
        assert!(populations["initial-population"] > populations["denominator"]);
        for row in &truth.rows {
            for stratifier in ["race", "ethnicity"] {
                let parts = row.strata.iter().filter(|part| part.stratifier == stratifier);
                let sum = parts.fold((0, 0), |sum, part| (sum.0 + part.numerator, sum.1 + part.denominator));
                assert!(row.measure_id != HAC_CLABSI || sum == (row.numerator, row.denominator));
            }
        }
        let strata: BTreeSet<&str> = truth.rows.iter().flat_map(|row| &row.strata).map(|part| part.stratum.as_str()).collect();
        for stratum in ["unknown", "multiracial", "2106-3", "2054-5", "2135-2", "2186-5"] {
            assert!(strata.contains(stratum), "{} has no stratum {stratum}", profile.name);
        }
    }
}

#[test]
fn amendments_change_the_truth_and_nothing_else() {
    let now: Timestamp = "2026-07-16T03:00:00Z".parse().unwrap();
    for profile in Profile::all() {
        let amended = hospital(profile.name, 120);
        let before = amended.truth();
        let versions: BTreeMap<String, Value> = parsed(&amended);
        let after = amended.amend_at(5, now);
        assert_ne!(before, after);
        let again = parsed(&amended);
        let mut counts = (0, 0, 0);
        for (name, resource) in &again {
            match versions.get(name) {
                None => counts.0 += 1,
                Some(old) if old != resource => {
                    counts.1 += 1;
                    assert_eq!(resource["meta"]["versionId"], "2", "{name}");
                    assert_eq!(resource["meta"]["lastUpdated"], "2026-07-16T03:00:00Z");
                }
                Some(_) => {}
            }
        }
        counts.2 = versions.keys().filter(|name| !again.contains_key(*name)).count();
        assert!(counts.0 > 0 && counts.1 > 0 && counts.2 > 0, "new, changed, deleted: {counts:?}");
        assert!(counts.0 + counts.1 + counts.2 < 60, "new, changed, deleted: {counts:?}");
        let other = hospital(profile.name, 120);
        assert_eq!(other.amend_at(5, now), after);
        assert_eq!(digest_of(&other), digest_of(&amended));
    }
}
