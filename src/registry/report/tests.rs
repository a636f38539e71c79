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
        units: Default::default(),
        parts: Default::default(),
        sums: Default::default(),
        definitions: Default::default(),
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

/// The reading of a report with one group.
fn judge(report: &Value) -> Result<Reading, Vec<String>> {
    judge_all(report).map(|mut readings| readings.pop().unwrap())
}

fn judge_all(report: &Value) -> Result<Vec<Reading>, Vec<String>> {
    let now = "2026-02-03T00:00:00Z".parse().unwrap();
    read(&serde_json::to_vec(report).unwrap(), &entry(), &site(), &[card(Unit::Percent)], now)
}

#[test]
fn of_several_groups_each_has_its_name_its_direction_and_its_numbers() {
    let mut several = report();
    let only = several["group"][0].clone();
    let named = |id: Option<&str>, code: Option<Value>, improvement: Option<&str>| {
        let mut group = only.clone();
        let notation = |code| json!([{ "url": "http://x/extension-groupImprovementNotation", "valueCodeableConcept": { "coding": [{ "code": code }] } }]);
        for (name, value) in [("id", id.map(Value::from)), ("code", code), ("extension", improvement.map(notation))] {
            value.into_iter().for_each(|value| group[name] = value);
        }
        group
    };
    several["group"] = json!([
        named(Some("g1"), Some(json!({ "coding": [{ "code": "c1" }], "text": "First" })), None),
        named(None, Some(json!({ "coding": [{ "code": "c2", "display": "Second" }] })), Some("decrease")),
        named(Some("g3"), None, Some("increase")),
        named(None, Some(json!({ "text": "Fourth" })), Some("sideways")),
    ]);
    let mut reasons = Vec::new();
    let groups: Vec<Group> = readings(&several, &mut reasons, Some(&card(Unit::Percent))).into_iter().map(|reading| reading.group).collect();
    let group = |key: &str, label: &str, higher_is_better| Group { key: key.into(), label: label.into(), higher_is_better };
    let expected = [group("g1", "First", None), group("c2", "Second", Some(false)), group("g3", "g3", Some(true)), group("Fourth", "Fourth", None)];
    assert_eq!((groups.as_slice(), reasons.len()), (expected.as_slice(), 0), "{reasons:?}");
    several["group"] = Value::Array(vec![only; GROUPS_MAX + 1]);
    readings(&several, &mut reasons, None);
    assert_eq!(reasons, ["65 groups, expected 1 to 64"]);
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
    assert_eq!(pair(&group, None, &mut reasons, Kind::Ratio), (Some(Decimal::from(2)), Some(Decimal::from(310))));
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
    assert_eq!(beyond, ["the score of the composite is 7, expected between 0 and 1 (composite-between-0-and-1) at `/group/0`"]);
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
    let doubt = Doubt { count: 3, of: Some(12), low: Some(Decimal::new(55, 2)), high: Some(Decimal::new(8, 1)), ends: None, numerators: None };
    assert_eq!(judged(told(3, 12, 0.55, 0.8)).unwrap().doubt, Some(doubt));
    let summable = |least: u64, most: u64| {
        let mut told = told(3, 12, 0.55, 0.8);
        let parts = told[1]["extension"].as_array_mut().unwrap();
        parts.extend([("least", least), ("most", most)].map(|(name, number)| json!({ "url": name, "valueInteger": number })));
        judged(told).map(|reading| reading.doubt.unwrap().numerators)
    };
    assert_eq!(summable(6, 10), Ok(Some((6, 10))));
    assert_eq!(summable(6, 13).unwrap_err(), ["6 to 13 in the numerator, of 12, cannot be"]);
    let ended = |low: (u64, u64), high: (u64, u64)| {
        let mut told = told(3, 12, 0.55, 0.8);
        let side = |name: &str, count: u64| json!({ "url": name, "valueInteger": count });
        let end = |name: &str, (numerator, denominator)| json!({ "url": name, "extension": [side("numerator", numerator), side("denominator", denominator)] });
        told[1]["extension"].as_array_mut().unwrap().extend([end("low-parts", low), end("high-parts", high)]);
        judged(told).map(|reading| reading.doubt.unwrap().ends)
    };
    assert_eq!(ended((6, 12), (8, 10)), Ok(Some([(6, 12), (8, 10)])));
    assert_eq!(ended((6, 12), (8, 13)).unwrap_err(), ["8 of 13 at a bound of the score, of 12 in all, cannot be"]);
    assert_eq!(ended((7, 6), (8, 10)).unwrap_err(), ["7 of 6 at a bound of the score, of 12 in all, cannot be"]);
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
        ("/group", json!([]), "0 groups, expected 1 to 64"),
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

fn defined(period: Option<Span>) -> MeasureCard {
    let parameters = [("Active Window Months".to_owned(), "13".to_owned())].into();
    let stratifiers = [("race".to_owned(), false), ("sex".to_owned(), true)].into();
    MeasureCard { definitions: [("1.0.0".to_owned(), Defined { period, parameters, stratifiers, ..Defined::default() })].into(), ..card(Unit::Percent) }
}

#[test]
fn a_report_is_of_a_whole_period_of_the_measures_length_that_is_over() {
    let now = "2026-02-03T00:00:00Z".parse().unwrap();
    let judged = |start: &str, end: &str, span: Option<Span>| {
        let (mut report, mut entry) = (report(), entry());
        report["period"] = json!({ "start": start, "end": end });
        (entry.key.period_start, entry.key.period_end) = (start.into(), end.into());
        read(&serde_json::to_vec(&report).unwrap(), &entry, &site(), &[defined(span)], now)
            .map(drop)
            .map_err(|reasons| reasons.join("; "))
    };
    let month = Some(Span::Month);
    for (start, end, span) in [
        ("2026-01-01", "2026-01-31", month),
        ("2026-01-01", "2026-01-31", None),
        ("2025-10-01", "2025-12-31", Some(Span::Quarter)),
        ("2025-01-01", "2025-12-31", Some(Span::Year)),
        ("2025-01-01", "2025-12-31", None),
    ] {
        assert_eq!(judged(start, end, span), Ok(()), "{start}");
    }
    for (start, end, span, reason) in [
        ("2025-05-03", "2025-05-03", month, "the period is 2025-05-03 to 2025-05-03, expected a calendar month"),
        ("2025-05-01", "2025-05-07", None, "expected a calendar month, quarter or year"),
        ("2025-04-01", "2025-05-31", month, "expected a calendar month"),
        ("2025-02-01", "2025-04-30", Some(Span::Quarter), "expected a calendar quarter"),
        ("2025-01-01", "2025-12-31", month, "expected a calendar month"),
        ("1900-05-01", "1900-05-31", month, "more than 50 years ago"),
        ("2026-02-01", "2026-02-28", month, "the period ends on 2026-02-28 and is not over"),
    ] {
        let found = judged(start, end, span).unwrap_err();
        assert!(found.contains(reason), "{start}: {found}");
    }
}

/// The reasons against a report that was changed, held against the definition.
fn against(change: impl Fn(&mut Value)) -> String {
    let mut report = report();
    change(&mut report);
    let now = "2026-02-03T00:00:00Z".parse().unwrap();
    let read = read(&serde_json::to_vec(&report).unwrap(), &entry(), &site(), &[defined(Some(Span::Month))], now);
    read.map_or_else(|reasons| reasons.join("; "), |_| String::new())
}

#[test]
fn a_measure_that_was_changed_needs_a_version_of_its_own() {
    let stated = |name: &str, value: &str| {
        let parts = [("name", name), ("value", value)].map(|(url, text)| json!({ "url": url, "valueString": text }));
        against(|report| {
            report["extension"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "url": "http://w/StructureDefinition/parameter", "extension": parts }))
        })
    };
    let window = "Active Window Months";
    assert_eq!(stated(window, "13"), "");
    assert_eq!(stated("Days", "7"), "parameter `Days` is `7`, version 1.0.0 leaves it as its CQL has it: what is measured otherwise needs a version of its own");
    assert_eq!(stated(window, "2"), "parameter `Active Window Months` is `2`, version 1.0.0 has `13`: what is measured otherwise needs a version of its own");
}

fn stratum(name: &str, numerator: i64, denominator: i64) -> Value {
    json!({ "value": { "text": name }, "population": [population("denominator", denominator), population("numerator", numerator)] })
}

#[test]
fn strata_are_parts_of_their_group_and_each_is_there_once() {
    let stratified = |id: &str, strata: Value| against(|report| report["group"][0]["stratifier"] = json!([{ "id": id, "code": [{ "text": id }], "stratum": strata }]));
    assert_eq!(stratified("sex", json!([stratum("f", 4, 6), stratum("m", 3, 4)])), "");
    assert_eq!(
        stratified("sex", json!([stratum("f", 4, 90)])),
        "stratum `f` of `sex` has 90 in `denominator`, the whole group only 12; stratum `f` of `sex` has 90 in the denominator, the whole group only 10; the strata of `sex` have together 90 in the denominator, the whole group only 10"
    );
    assert_eq!(stratified("sex", json!([stratum("f", 4, 6), stratum("f", 3, 4)])), "stratum `f` of `sex` is there twice");
    let coded = |system: &str| {
        let coding = json!([{ "system": system, "code": "f" }]);
        json!({ "value": { "coding": coding, "text": format!("f ({system})") }, "population": [population("denominator", 5), population("numerator", 3)] })
    };
    assert_eq!(stratified("sex", json!([coded("http://a"), coded("http://b")])), "", "the same letters of two systems");
    assert_eq!(stratified("sex", json!([coded("http://a"), coded("http://a")])), "stratum `f (http://a)` of `sex` is there twice");
    assert_eq!(stratified("sex", json!([stratum("f", 4, 6), stratum("m", 3, 6)])), "the strata of `sex` have together 12 in the denominator, the whole group only 10");
    assert_eq!(stratified("race", json!([stratum("a", 4, 6), stratum("b", 3, 6)])), "", "one may have several");
    assert_eq!(stratified("postcode", json!([stratum("1", 4, 6)])), "the measure has no stratifier `postcode`; it has race, sex");
    // A mean of some may be more than that of all.
    let mean =
        json!({ "population": [{ "code": { "coding": [{ "code": "measure-observation" }] }, "extension": [{ "url": "http://x/cqfm-aggregateMethod", "valueCode": "average" }] }] });
    assert!(!adds_up(&mean) && adds_up(&report()["group"][0]));
}

#[test]
fn a_stratifier_of_several_components_is_named_by_them_and_so_are_its_strata() {
    let component = |name: &str, value: &str| json!({ "code": { "text": name }, "value": { "text": value } });
    let of = |language: &str, sex: &str| json!({ "component": [component("language", language), component("sex", sex)], "population": [population("denominator", 5), population("numerator", 3)] });
    let mut report = report();
    report["group"][0]["stratifier"] = json!([{ "id": "language-sex", "stratum": [of("en", "f"), of("en", "m")] }]);
    let strata = judge(&report).unwrap().strata;
    let names: Vec<(&str, &str)> = strata.iter().map(|stratum| (stratum.stratifier.as_str(), stratum.stratum.as_str())).collect();
    assert_eq!(names, [("language and sex", "language: en, sex: f"), ("language and sex", "language: en, sex: m")]);
}

#[test]
fn numbers_that_contradict_each_other_or_cannot_be_are_refused() {
    let parts = |numerator: Value, denominator: Value| json!([{ "url": "http://w/score-parts", "extension": [{ "url": "numerator", "valueDecimal": numerator }, { "url": "denominator", "valueDecimal": denominator }] }]);
    let stated = |numerator: i64, of: i64| {
        against(|report| {
            report["group"][0]["extension"] = parts(json!(7), json!(10));
            report["group"][0]["population"] =
                json!([population("initial-population", of), population("denominator", of), population("denominator-exclusion", 2), population("numerator", numerator)]);
        })
    };
    assert_eq!(stated(7, 12), "");
    assert_eq!(stated(9, 12), "", "members of the exclusion may be in both");
    assert_eq!(stated(12, 12), "the score's numerator is 7, but population `numerator` has 12, and 2 are taken off at most");
    assert!(stated(7, 500).contains("the score's denominator is 10, but population `denominator` has 500"));
    let huge = against(|report| {
        report["group"][0]["population"][1]["count"] = serde_json::from_str("1000000000000000000000000000000").unwrap();
        report["group"][0]["extension"] = parts(json!(7), serde_json::from_str("1000000000000000000000000000000").unwrap());
    });
    assert!(huge.contains("population `denominator` has count 1") && huge.contains("a side of the score is 1"), "{huge}");
    assert_eq!(against(|report| report["date"] = json!("2099-01-01T00:00:00Z")), "`date` is 2099-01-01, in the future: look at the clock of the machine that made the report");
}

#[test]
fn the_score_of_a_continuous_variable_is_a_number() {
    let mut report = report();
    report["extension"][0]["valueCodeableConcept"]["coding"][0]["code"] = "continuous-variable".into();
    report["group"][0] = json!({ "population": [population("measure-population", 12)], "measureScore": { "value": 13.008_333 } });
    let now = "2026-02-03T00:00:00Z".parse().unwrap();
    let bytes = serde_json::to_vec(&report).unwrap();
    let judged = |unit: Unit| read(&bytes, &entry(), &site(), &[card(unit)], now);
    let reading = judged(Unit::Number).unwrap().pop().unwrap();
    assert_eq!((reading.numerator, reading.denominator, reading.score), (None, None, Some(Decimal::new(13_008_333, 6))));
    assert_eq!(judged(Unit::Percent).unwrap_err(), ["the scoring is `continuous-variable`, that of the accepted measure is not"]);
    report["extension"][0]["valueCodeableConcept"]["coding"][0]["code"] = "proportion".into();
    let bytes = serde_json::to_vec(&report).unwrap();
    let wrong = read(&bytes, &entry(), &site(), &[card(Unit::Number)], now).unwrap_err();
    assert!(wrong.contains(&"the scoring is `proportion`, that of the accepted measure is `continuous-variable`".to_owned()), "{wrong:?}");
}

#[test]
fn a_version_has_one_logic_and_its_value_sets_one_content() {
    let now = "2026-02-03T00:00:00Z".parse().unwrap();
    let judged = |kind: &str, stated: &str, accepted: &str| {
        let part = |url: &str, kind: &str, value: &str| json!({ "url": url, kind: value });
        let lineage = |stated: &str| {
            let parts = [part("kind", "valueCode", kind), part("name", "valueString", "http://v/ibd"), part("version", "valueString", stated)];
            json!({ "url": "http://w/lineage", "extension": parts })
        };
        let mut report = report();
        let extensions = report.as_object_mut().unwrap().entry("extension").or_insert_with(|| json!([]));
        extensions.as_array_mut().unwrap().extend(stated.split(' ').map(lineage));
        let mut card = defined(Some(Span::Month));
        let known: Vec<String> = accepted.split_whitespace().map(str::to_owned).collect();
        for defined in card.definitions.values_mut() {
            match kind {
                "logic" => defined.logic.clone_from(&known),
                _ => defined.value_sets.extend(known.iter().cloned().map(|codes| ("http://v/ibd".to_owned(), codes))),
            }
        }
        read(&serde_json::to_vec(&report).unwrap(), &entry(), &site(), &[card], now)
            .map(drop)
            .map_err(|reasons| reasons.join("; "))
    };
    let [one, other] = ["cql+numbers:11112222333344445555", "cql+numbers:22222222333344445555"];
    assert_eq!(judged("logic", one, one), Ok(()));
    assert_eq!(judged("logic", one, ""), Ok(()), "only the definition is known here");
    assert_eq!(judged("logic", "elm+numbers:11112222333344445555", other), Ok(()), "two forms may be of one logic: it is taken, and stands alone");
    assert_eq!(judged("logic", &format!("{one} meaning:1"), &format!("{other} meaning:1")), Ok(()), "another text for the same");
    assert_eq!(judged("logic", "cql+groups:11112222333344445555", other), Ok(()), "an older adapter");
    assert_eq!(judged("logic", "cql:11112222333344445555", other), Ok(()), "an older adapter");
    let refused = "same version, other logic: CQL and definition are `cql+numbers:111122223333…`, those of version 1.0.0 are `cql+numbers:222222223333…` here: \
                   bring the measure's folder up to date; what is computed otherwise needs a version of its own";
    assert_eq!(judged("logic", one, other), Err(refused.to_owned()));
    let refused = "same version, other logic: its definition is `numbers:111122223333…`, that of version 1.0.0 is `numbers:222222223333…` here: \
                   bring the measure's folder up to date; what is computed otherwise needs a version of its own";
    assert_eq!(judged("logic", &one[4..], &other[4..]), Err(refused.to_owned()), "counted elsewhere");
    assert_eq!(judged("value-set", "1111", "1111"), Ok(()));
    assert_eq!(judged("value-set", "1111", ""), Ok(()), "the value set is not here");
    let refused = "same version, other codes: value set `http://v/ibd` is not the one that version 1.0.0 has here: bring the `value-sets` folders up to date; \
                   what is counted by other codes needs a version of its own";
    assert_eq!(judged("value-set", "1111", "2222"), Err(refused.to_owned()));
}
