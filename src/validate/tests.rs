//! Reports with one fault each.

use serde_json::json;

use super::*;

fn population(code: &str, count: u64) -> Value {
    json!({ "id": code, "code": { "coding": [{ "code": code }] }, "count": count })
}

fn score_parts(numerator: i64, denominator: i64) -> Value {
    json!([{ "url": "http://watershed.example/fhir/StructureDefinition/score-parts", "extension": [
        { "url": "numerator", "valueDecimal": numerator }, { "url": "denominator", "valueDecimal": denominator } ] }])
}

fn good() -> Value {
    json!({
        "resourceType": "MeasureReport",
        "extension": [{ "url": "http://hl7.org/fhir/us/davinci-deqm/StructureDefinition/extension-measureScoring",
            "valueCodeableConcept": { "coding": [{ "code": "proportion" }] } }],
        "status": "complete", "type": "summary", "measure": "http://n.example/Measure/m|1.0.0", "date": "2026-02-01T02:00:00Z",
        "reporter": { "reference": "Organization/north" }, "period": { "start": "2026-01-01", "end": "2026-01-31" },
        "improvementNotation": { "coding": [{ "code": "increase" }] },
        "group": [{
            "extension": score_parts(3, 4),
            "population": [population("initial-population", 5), population("denominator", 5), population("denominator-exclusion", 1), population("numerator", 3)],
            "measureScore": { "value": 0.75 },
            "stratifier": [{ "code": [{ "text": "Race" }], "stratum": [
                { "extension": score_parts(3, 4), "value": { "text": "a" }, "population": [population("denominator", 5)] } ] }]
        }]
    })
}

#[test]
fn a_good_report_passes() {
    assert_eq!(check(&good()), []);
    assert_eq!(plausible(&good(), &Guards::default(), &[]), []);
}

#[test]
fn values_that_are_nearly_one_for_each_member_are_no_strata() {
    let of = |values: usize, alone: usize, with_sex: bool| {
        let mut report = good();
        let stratum = |at: usize| {
            let (size, value) = (if at < alone { 1 } else { 9 }, json!({ "text": format!("value {at}") }));
            let populations = json!([population("denominator", size)]);
            match with_sex {
                true => {
                    json!({ "component": [{ "code": { "text": "unit" }, "value": value }, { "code": { "text": "sex" }, "value": { "text": at % 2 } }], "population": populations })
                }
                false => json!({ "value": value, "population": populations }),
            }
        };
        report["group"][0]["stratifier"][0]["stratum"] = (0..values).map(stratum).collect();
        let mut found = Vec::new();
        report["type"] = json!("summary");
        identity::check(&report, &mut found);
        found.into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    let told = |values, alone| vec![format!("of {values} values {alone} are of one member each: such values tell who the members are")];
    assert_eq!(of(30, 16, false), told(30, 16));
    assert_eq!(of(30, 16, true), told(30, 16));
    for (values, alone) in [(30, 15), (20, 20), (0, 0)] {
        assert_eq!(of(values, alone, false), Vec::<String>::new(), "{values} {alone}");
    }
}

/// What of a report's strata and of its supplemental data tells who the members are.
fn telling(strata: &[Value], supplements: &[(&str, u64)]) -> Vec<String> {
    let mut report = good();
    report["type"] = json!("summary");
    report["group"][0]["stratifier"][0]["id"] = "by".into();
    report["group"][0]["stratifier"][0]["stratum"] = strata.iter().map(|value| json!({ "value": value, "population": [population("denominator", 9)] })).collect();
    let supplement = |(value, count): &(&str, u64)| {
        json!({ "url": "http://watershed.example/fhir/StructureDefinition/supplemental-data", "extension": [
            { "url": "id", "valueString": "maiden" }, { "url": "value", "valueString": value }, { "url": "count", "valueInteger": count } ] })
    };
    report["extension"].as_array_mut().unwrap().extend(supplements.iter().map(supplement));
    let (mut sent, before) = (report.clone(), report["extension"].as_array().unwrap().len());
    let left_out: Vec<String> = leave_out(&mut sent, &[], &[]).into_iter().map(|finding| finding.message).collect();
    assert!(check(&sent).iter().all(|finding| !finding.rule.ends_with("name-nobody")), "what tells is taken out");
    let is_gone = left_out.iter().any(|told| told.starts_with("the supplemental datum `maiden` is left out of the report: of "));
    assert_eq!(sent["extension"].as_array().unwrap().len(), before - if is_gone { supplements.len() } else { 0 });
    assert_eq!(sent["group"][0]["stratifier"][0].get("stratum").is_none(), left_out.iter().any(|told| told.starts_with("the stratifier `by` is left out")));
    let found = check(&report).into_iter().filter(|finding| finding.rule.ends_with("name-nobody"));
    found.map(|finding| format!("{} {} {}", finding.rule, finding.at, finding.message)).collect()
}

/// They leave with the report as its strata do.
#[test]
fn supplemental_data_that_are_nearly_one_for_each_member_hold_a_report() {
    let names: Vec<String> = (0..30).map(|at| format!("name {at}")).collect();
    let of = |alone: usize| {
        let supplements: Vec<(&str, u64)> = names.iter().enumerate().map(|(at, name)| (name.as_str(), if at < alone { 1 } else { 9 })).collect();
        telling(&[], &supplements)
    };
    assert_eq!(of(16), ["supplemental-data-name-nobody /extension/1 of 30 values 16 are of one member each: such values tell who the members are"]);
    assert_eq!(of(15), Vec::<String>::new());
}

/// Such as a number, where everybody may have another one: the length of the only stay of a month is that stay's.
#[test]
fn a_value_of_one_member_is_left_out_however_few_there_are_where_everybody_may_have_another() {
    let sent = |values: &[(&str, u64)], varies: bool| {
        let mut report = good();
        report["type"] = json!("summary");
        let stratum = |(value, count): &(&str, u64)| json!({ "value": { "text": value }, "population": [population("denominator", *count)] });
        let strata: Vec<Value> = values.iter().map(stratum).collect();
        report["group"][0]["stratifier"] = json!([{ "id": "sex", "stratum": strata }, { "id": "by", "stratum": strata }]);
        let supplement = |id: &str, value: &str, count: u64| {
            json!({ "url": "http://x/supplemental-data", "extension": [
            { "url": "id", "valueString": id }, { "url": "value", "valueString": value }, { "url": "count", "valueInteger": count } ] })
        };
        let each = values.iter().flat_map(|(value, count)| ["sex", "hours"].map(|id| supplement(id, value, *count)));
        report["extension"].as_array_mut().unwrap().extend(each);
        let (supplements, stratifiers): (&[&str], &[(usize, usize)]) = if varies { (&["hours"], &[(0, 1)]) } else { (&[], &[]) };
        let told: Vec<String> = leave_out(&mut report, supplements, stratifiers).into_iter().map(|one| one.message).collect();
        let kept = |place: usize| report["group"][0]["stratifier"][place]["stratum"].as_array().map_or(0, Vec::len);
        (report["extension"].as_array().unwrap().len() - 1, kept(0), kept(1), told)
    };
    let told = |all: usize, alone: usize| {
        let of = |what: &str| format!("the {what} is left out of the report: of {all} values {alone} are of one member each: such values tell who the members are");
        vec![of("stratifier `by`"), of("supplemental datum `hours`")]
    };
    assert_eq!(sent(&[("73.5", 1)], true), (1, 1, 0, told(1, 1)));
    assert_eq!(sent(&[("73.5", 1), ("24", 9), ("48", 7)], true), (3, 3, 0, told(3, 1)));
    assert_eq!(sent(&[("24", 9), ("48", 2), ("unknown", 1)], true), (6, 3, 3, vec![]));
    assert_eq!(sent(&[("female", 1), ("male", 1)], false), (4, 2, 2, vec![]), "of a set that is known");
}

/// However few there are.
#[test]
fn a_record_of_a_patient_as_a_value_holds_a_report() {
    let records = ["Patient/p1", "http://ehr.example/fhir/Encounter/e.2/_history/3", "Observation/a-1,Observation/a-2", "code=a;stay=Encounter/3"];
    for value in records {
        let told = |rule: &str| vec![format!("{rule} of 1 values 1 are records of patients: such values tell who the members are")];
        let stratum = json!({ "coding": [{ "code": value, "display": value }], "text": value });
        assert_eq!(telling(&[stratum], &[]), told("strata-name-nobody /group/0/stratifier/0"), "{value}");
        assert_eq!(telling(&[], &[(value, 9)]), told("supplemental-data-name-nobody /extension/1"), "{value}");
    }
    for value in ["Location/7b", "Patient/", "n/a", "Patient/Family or friend", "http://ehr.example/fhir", "3/4"] {
        assert_eq!(telling(&[json!({ "text": value })], &[(value, 1)]), Vec::<String>::new(), "{value}");
    }
}

#[test]
fn each_fault_is_found_by_its_rule() {
    for (pointer, value, rule) in [
        ("/measure", json!("http://n.example/Measure/m"), "deqm-0"),
        ("/date", json!("2026-02"), "schema"),
        ("/period/start", json!("2026-01-xx"), "deqm-1"),
        ("/period/end", json!("2025-01-31"), "per-1"),
        ("/improvementNotation", Value::Null, "deqm-2"),
        ("/extension", Value::Null, "deqm-3"),
        ("/group/0/population", json!([]), "deqm-5"),
        ("/group/0/measureScore/value", json!(1.2), "deqm-6"),
        ("/group/0/stratifier/0/code", Value::Null, "deqm-7"),
        ("/group/0/population/3/count", Value::Null, "deqm-8"),
        ("/group/0/stratifier/0/stratum/0/population/0/count", Value::Null, "deqm-9"),
        ("/group/0/extension", score_parts(5, 4), "numerator-within-denominator"),
        ("/group/0/stratifier/0/stratum/0/extension", score_parts(2, 4), "strata-sum-to-total"),
        ("/group/0/population/2/count", json!(6), "population-within-its-parent"),
        ("/status", json!("done"), "schema"),
        ("/reporter", Value::Null, "schema"),
        ("/group/0/population/0/count", json!(-1), "schema"),
        ("/group/0/population/0/surprise", json!("Ann"), "schema"),
        ("/subject", json!({ "reference": "Patient/1" }), "schema"),
    ] {
        let mut report = good();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let holder = report.pointer_mut(parent).unwrap();
        match (holder, value) {
            (Value::Object(object), Value::Null) => drop(object.remove(name)),
            (Value::Object(object), value) => drop(object.insert(name.to_owned(), value)),
            (Value::Array(array), value) => array[name.parse::<usize>().unwrap()] = value,
            _ => unreachable!(),
        }
        let found = check(&report);
        assert!(found.iter().any(|finding| finding.rule == rule), "{pointer}: {found:#?}");
        assert_eq!(blocks(&found), rule != "strata-sum-to-total", "{pointer}: {found:#?}");
        assert!(found.iter().all(|finding| !finding.to_string().contains("Ann")), "no value of the report: {found:?}");
    }
}

/// What cannot be shown in percent is held where it is made, and names what made it so.
#[test]
fn a_composite_beyond_1_is_held_and_names_its_component() {
    let of = |score: f64, of_rates: f64| {
        let mut report = good();
        report["extension"][0]["valueCodeableConcept"]["coding"][0]["code"] = "composite".into();
        let component = |name: &str, score: f64| json!({ "url": "component", "extension": [{ "url": "measure", "valueString": name }, { "url": "score", "valueDecimal": score }] });
        let made_of = json!([component("http://n.example/Measure/share|1.0.0", 0.5), component("http://n.example/Measure/rate|1.0.0", of_rates)]);
        report["group"] =
            json!([{ "extension": [{ "url": "http://watershed.example/fhir/StructureDefinition/composite", "extension": made_of }], "measureScore": { "value": score } }]);
        check(&report).into_iter().map(|finding| (finding.weight, finding.message)).collect::<Vec<_>>()
    };
    assert_eq!(of(0.75, 1.0), []);
    let message = "the score of the composite is 2.3, expected between 0 and 1: `http://n.example/Measure/rate|1.0.0` has 4.1";
    assert_eq!(of(2.3, 4.1), [(Weight::Block, message.to_owned())]);
}

#[test]
fn a_scoring_on_root_and_groups_is_one_too_many() {
    let mut report = good();
    let scoring = report["extension"][0].clone();
    report["group"][0]["extension"].as_array_mut().unwrap().push(scoring);
    assert!(check(&report).iter().any(|finding| finding.rule == "deqm-3"));
}

#[test]
fn guards_warn_and_name_who_should_look() {
    let guards = Guards {
        denominator_min: Some(10),
        denominator_change_percent: Some(30),
        score_min: Some(Decimal::new(8, 1)),
        score_max: None,
        cannot_tell_percent: Some(10),
    };
    let mut report = good();
    report["group"][0]["population"][3]["extension"] = json!([{ "url": "http://watershed.example/fhir/StructureDefinition/cannot-tell",
        "extension": [{ "url": "count", "valueInteger": 1 }] }]);
    let earlier = [20, 21, 22].map(|denominator| json!({ "group": [{ "extension": score_parts(10, denominator) }] }));
    let earlier: Vec<&Value> = earlier.iter().collect();
    let rules: Vec<_> = plausible(&report, &guards, &earlier).into_iter().map(|finding| (finding.rule, finding.weight)).collect();
    let expected = ["denominator-small", "denominator-jumps", "score-beyond-guard", "too-much-unknown"].map(|rule| (rule, Weight::Warn));
    assert_eq!(rules, expected);
    assert_eq!(plausible(&report, &guards, &[])[1].message, "the score is 0.75, at least 0.8 is expected");
    let mut of_both = report.clone();
    of_both["group"][0]["population"][1]["extension"] = report["group"][0]["population"][3]["extension"].clone();
    assert!(plausible(&of_both, &guards, &[])[2].message.starts_with("for 2 the record cannot tell"));
    let once =
        json!({ "url": "http://watershed.example/fhir/StructureDefinition/cannot-tell", "extension": [{ "url": "count", "valueInteger": 1 }, { "url": "of", "valueInteger": 5 }] });
    of_both["group"][0]["extension"].as_array_mut().unwrap().push(once);
    assert!(plausible(&of_both, &guards, &[])[2].message.starts_with("for 1 the record cannot tell"), "each member once");
    report["group"][0]["extension"] = score_parts(0, 0);
    let text = plausible(&report, &guards, &earlier).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("the denominator is 0, at least 10 is expected at `/group/0`; data steward: see whether data of this period arrived"), "{text}");
    assert!(text.contains("the denominator 0 is -100 % off the median of earlier periods, 21; at most 30 % is expected"), "{text}");
    let few = [3, 4, 4].map(|denominator| json!({ "group": [{ "extension": score_parts(1, denominator) }] }));
    let jumps = |found: Vec<Finding>| found.iter().any(|finding| finding.rule == "denominator-jumps");
    assert!(!jumps(plausible(&report, &guards, &few.iter().collect::<Vec<_>>())), "none after four is chance");
    assert_eq!(plausible(&report, &Guards::default(), &earlier), [], "no limit is written");
    // What anybody may send ends nothing.
    let least = Decimal::new(1, 28);
    for (own, before) in [(Decimal::MAX, least), (least, Decimal::MAX), (Decimal::MAX, Decimal::MIN), (Decimal::ZERO, Decimal::ZERO)] {
        believable(&Parts { denominator: Some(own), ..Parts::default() }, &guards, vec![before; 3]);
    }
}
