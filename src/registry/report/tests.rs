//! What a received report must be, and what is read from it.

use serde_json::json;

use super::*;
use crate::feed::ReportKey;

fn entry() -> Entry {
    let key = ReportKey { measure: "http://n.example/Measure/m".into(), version: "1.0.0".into(), period_start: "2026-01-01".into(), period_end: "2026-01-31".into() };
    Entry { key, sha256: "0".repeat(64), bytes: 1, complete: true, replaces: None, cause: None }
}

fn site() -> Site {
    Site {
        id: 1,
        name: "north".into(),
        organization: "Northern".into(),
        client_id: "c".into(),
        jwks: None,
        jwks_url: None,
        epoch: 0,
        head: None,
        heard: None,
        added: Timestamp::UNIX_EPOCH,
    }
}

fn card(unit: Unit) -> MeasureCard {
    MeasureCard {
        id: "m".into(),
        url: "http://n.example/Measure/m".into(),
        versions: vec!["1.0.0".into()],
        title: "M".into(),
        plain_language: String::new(),
        higher_is_better: Some(true),
        unit,
    }
}

fn population(code: &str, count: i64) -> Value {
    json!({ "code": { "coding": [{ "code": code }] }, "count": count })
}

fn report() -> Value {
    json!({
        "resourceType": "MeasureReport", "status": "complete", "type": "summary", "measure": "http://n.example/Measure/m|1.0.0",
        "date": "2026-02-03T00:00:00Z",
        "extension": [{
            "url": "http://hl7.org/fhir/us/davinci-deqm/StructureDefinition/extension-measureScoring",
            "valueCodeableConcept": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-scoring", "code": "proportion" }] }
        }],
        "period": { "start": "2026-01-01", "end": "2026-01-31" }, "reporter": { "identifier": { "value": "north" } },
        "improvementNotation": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-improvement-notation", "code": "increase" }] },
        "group": [{
            "population": [
                population("initial-population", 12), population("denominator", 12), population("denominator-exclusion", 2), population("numerator", 7)
            ],
            "measureScore": { "value": 0.7 }
        }]
    })
}

fn judge(report: &Value) -> Result<Reading, Vec<String>> {
    let now = "2026-02-03T00:00:00Z".parse().unwrap();
    let mut reasons = Vec::new();
    let bytes = serde_json::to_vec(report).unwrap();
    let read = read(&bytes, &entry(), &site(), &[card(Unit::Percent)], now);
    if let Err(found) = &read {
        reasons.extend(found.clone());
    }
    read
}

#[test]
fn exclusions_are_taken_off_and_members_excluded_from_the_numerator_show_in_the_score() {
    let reading = judge(&report()).unwrap();
    assert_eq!((reading.numerator, reading.denominator), (Some(Decimal::from(7)), Some(Decimal::from(10))));
    let mut both = report();
    both["group"][0]["population"][3] = population("numerator", 9);
    assert_eq!(judge(&both).unwrap().numerator, Some(Decimal::from(7)));
}

#[test]
fn observations_make_the_pair_of_a_ratio() {
    let observed = |side: &str, value: i64| {
        json!({
            "code": { "coding": [{ "code": "measure-observation" }] }, "count": 3,
            "extension": [{ "url": "http://x/cqf-criteriaReference", "valueString": side }, { "url": "http://x/value", "valueQuantity": { "value": value } }]
        })
    };
    let group = json!({ "population": [population("denominator", 5), population("numerator", 1), observed("denominator", 310), observed("numerator", 2)] });
    let mut reasons = Vec::new();
    assert_eq!(pair(&group, None, &mut reasons, false), (Some(Decimal::from(2)), Some(Decimal::from(310))));
    assert!(reasons.is_empty());
}

#[test]
fn stated_parts_come_first_and_must_agree_with_the_score() {
    let part = |name: &str, value: i64| json!({ "url": name, "valueDecimal": value });
    let mut stated = report();
    stated["group"][0]["extension"] = json!([{ "url": "http://w/score-parts", "extension": [part("numerator", 7), part("denominator", 10)] }]);
    assert_eq!(judge(&stated).unwrap().denominator, Some(Decimal::from(10)));
    stated["group"][0]["extension"][0]["extension"][0] = part("numerator", 9);
    assert_eq!(judge(&stated).unwrap_err().last().unwrap(), "score 0.7 is not numerator 9 by denominator 10");
}

#[test]
fn a_score_that_is_no_fraction_has_no_numerator() {
    let scored = |scoring: &str, group: Value| {
        let mut report = report();
        report["extension"][0]["valueCodeableConcept"]["coding"][0]["code"] = scoring.into();
        report["group"][0] = group;
        judge(&report)
    };
    let weighted = scored("composite", json!({ "measureScore": { "value": 0.7 } })).unwrap();
    assert_eq!((weighted.numerator, weighted.denominator, weighted.score), (None, None, Some(Decimal::new(7, 1))));
    let beyond = scored("composite", json!({ "measureScore": { "value": 7 } })).unwrap_err();
    assert_eq!(beyond, ["score 7 is not between 0 and 1, as what is shown in percent has to be"]);
}

fn told(count: u64, of: u64, low: f64, high: f64) -> Value {
    json!([
        { "url": "http://w/cannot-tell", "extension": [{ "url": "count", "valueInteger": count }, { "url": "of", "valueInteger": of }] },
        { "url": "http://w/score-bounds", "extension": [{ "url": "low", "valueDecimal": low }, { "url": "high", "valueDecimal": high }] }
    ])
}

#[test]
fn what_cannot_be_told_is_read_with_its_bounds_and_must_be_possible() {
    let judged = |extension: Value| {
        let mut report = report();
        report["group"][0]["extension"] = extension;
        judge(&report)
    };
    assert_eq!(judged(json!([])).unwrap().doubt, None);
    let doubt = Doubt { count: 3, of: Some(12), low: Some(Decimal::new(55, 2)), high: Some(Decimal::new(8, 1)), numerators: None };
    assert_eq!(judged(told(3, 12, 0.55, 0.8)).unwrap().doubt, Some(doubt));
    let summable = |least: u64, most: u64| {
        let mut told = told(3, 12, 0.55, 0.8);
        let parts = told[1]["extension"].as_array_mut().unwrap();
        parts.extend([("least", least), ("most", most)].map(|(name, number)| json!({ "url": name, "valueInteger": number })));
        judged(told).map(|reading| reading.doubt.unwrap().numerators)
    };
    assert_eq!(summable(6, 10), Ok(Some((6, 10))));
    assert_eq!(summable(6, 13).unwrap_err(), ["6 to 13 in the numerator, of 12, cannot be"]);
    assert_eq!(judged(told(0, 12, 0.7, 0.7)).unwrap().doubt, None, "bounds alone are no doubt");
    assert_eq!(judged(told(13, 12, 0.5, 0.8)).unwrap_err(), ["13 cannot be told, of 12"]);
    assert_eq!(judged(told(3, 12, 0.8, 0.5)).unwrap_err(), ["the bounds 0.8 to 0.5 are none of a proportion"]);
    assert_eq!(judged(told(3, 12, 0.8, 1.5)).unwrap_err(), ["the bounds 0.8 to 1.5 are none of a proportion"]);
    let mut stratified = report();
    let population = stratified["group"][0]["population"].clone();
    stratified["group"][0]["stratifier"] =
        json!([{ "code": [{ "text": "sex" }], "stratum": [{ "value": { "text": "f" }, "population": population, "extension": told(3, 12, 0.55, 0.8) }] }]);
    assert_eq!(judge(&stratified).unwrap().strata[0].doubt.as_ref().map(|doubt| doubt.count), Some(3));
}

#[test]
fn every_reason_is_given() {
    let cases: &[(&str, Value, &str)] = &[
        ("/resourceType", json!("Patient"), "`resourceType` is `Patient`, expected `MeasureReport`"),
        ("/type", json!("individual"), "`type` is `individual`, expected `summary`"),
        ("/measure", json!("http://n.example/Measure/m|2.0.0"), "`measure` is"),
        ("/period/start", json!("2026-01-02"), "`period.start` is `2026-01-02`"),
        ("/reporter", json!({ "identifier": { "value": "south" } }), "`reporter` is `south`, but the token belongs to `north`"),
        ("/reporter", json!({ "reference": "Organization/south" }), "`reporter` is `south`"),
        ("/subject", json!({ "reference": "Patient/1" }), "`subject` is not accepted"),
        ("/evaluatedResource", json!([]), "`evaluatedResource` is not accepted"),
        ("/group/0/population/1/count", json!(-5), "has count -5, which cannot be"),
        ("/group/0/population/1/count", json!(1.5), "has count 1.5"),
        ("/group/0/population/2/count", json!(50), "exclusions are more than"),
        ("/group/0/measureScore/value", json!(1.7), "is greater than denominator"),
        ("/group", json!([]), "0 groups"),
    ];
    for (pointer, value, reason) in cases {
        let mut bad = report();
        match bad.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => drop(bad.as_object_mut().unwrap().insert(pointer[1..].into(), value.clone())),
        }
        let reasons = judge(&bad).unwrap_err();
        assert!(reasons.iter().any(|found| found.contains(reason)), "{pointer}: {reasons:?}");
    }
    let twice = br#"{"resourceType":"MeasureReport","resourceType":"Patient"}"#;
    let now = "2026-02-03T00:00:00Z".parse().unwrap();
    assert!(read(twice, &entry(), &site(), &[], now).unwrap_err()[0].contains("occurs twice"));
    let future = "2025-01-01T00:00:00Z".parse().unwrap();
    let bytes = serde_json::to_vec(&report()).unwrap();
    assert!(
        read(&bytes, &entry(), &site(), &[card(Unit::Percent)], future)
            .unwrap_err()
            .iter()
            .any(|reason| reason.contains("in the future"))
    );
    assert!(read(&bytes, &entry(), &site(), &[], now).unwrap_err().iter().any(|reason| reason.contains("is not accepted here")));
}
