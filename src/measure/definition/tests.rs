//! Right and wrong `measure.yaml` files.

use super::*;
use crate::diagnostic::render_human;

const GOOD: &str = "\
id: a
url: http://watershed.example/fhir/Measure/a
version: 1.0.0
status: draft
title: A
description: Counts something.
steward: Someone
scoring: proportion
improvement: increase
populations:
  - code: initial-population
    define: Initial Population
  - code: denominator
    define: Denominator
  - code: numerator
    define: Numerator
";

fn findings(text: &str) -> String {
    let (_, found) = parse(&SourceFile::new("measure.yaml", text));
    render_human(&found, false)
}

#[test]
fn a_small_measure_is_enough() {
    let (definition, found) = parse(&SourceFile::new("measure.yaml", GOOD));
    assert!(found.is_empty(), "{}", render_human(&found, false));
    let definition = definition.expect("usable");
    assert_eq!(definition.canonical(), "http://watershed.example/fhir/Measure/a|1.0.0");
    assert_eq!(definition.basis.value, PATIENT);
    let shape = definition.all_groups()[0].shape(definition.scoring);
    assert_eq!(shape.slots.len(), 3);
}

#[test]
fn faults_have_their_place_and_a_way_out() {
    for (from, to, expected) in [
        ("title: A", "titel: A", &["measure.yaml:5", "titel", "did you mean `title`?"][..]),
        ("1.0.0", "'1.0'", &["measure.yaml:3:11", "`1.0` is not a version"]),
        ("id: a", "id: a b", &["measure.yaml:1:5", "`a b` is not an id"]),
        ("http://watershed.example/fhir/Measure/a", "Measure/a", &["measure.yaml:2:6", "not a canonical URL"]),
        ("scoring: proportion", "scoring: proportoin", &["measure.yaml:8", "proportion"]),
        (
            "scoring: proportion",
            "scoring: ratio\nrate: {multiplier: 0, unit: per 0 visits}",
            &["measure.yaml:9:", "a `multiplier` of 0 makes every rate 0", "write what the score is per"],
        ),
        (
            "scoring: proportion",
            "scoring: ratio\nrate: {multiplier: -1000, unit: per 1000 visits}",
            &["measure.yaml:9:", "expected a whole number that is not negative, found `-1000`"],
        ),
        ("scoring: proportion", "scoring: proportion\nrate: {multiplier: 10, unit: per 10 visits}", &["only a ratio has a `rate`"]),
        (
            "scoring: proportion",
            "scoring: ratio\nrate: {multiplier: 1000, unit: \"/1000\"}",
            &["does not say in words what a multiplier of 1000 means", "as `per 1,000 central line days`"],
        ),
        ("scoring: proportion", "scoring: ratio\nrate: {multiplier: 1000, unit: \"per 100 visits\"}", &["`per 100 visits` does not say"]),
        ("  - code: denominator\n    define: Denominator\n", "", &["needs the population `denominator`"]),
        ("code: numerator", "code: measure-population", &["has no population `measure-population`", "needs the population `numerator`"]),
        ("code: denominator\n", "code: denominator\n    id: numerator\n", &["two populations have the id `numerator`", "the first one"]),
        ("    define: Numerator", "    define: Numerator\n    of: denominater", &["no population has the id `denominater`", "did you mean `denominator`?"]),
        ("    define: Numerator", "    define: Numerator\n    of: denominator", &["`numerator` cannot be of `denominator`"]),
        ("    define: Numerator", "    define: Numerator\n    aggregate: sum", &["only an observation has an `aggregate`"]),
        ("populations:", "groups:\n  - {id: g, populations: []}\npopulations:", &["both `groups` and `populations`"]),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let found = findings(&text);
        for part in expected {
            assert!(found.contains(part), "{to}: no `{part}` in\n{found}");
        }
    }
}

#[test]
fn what_is_counted_elsewhere_says_nothing_of_how() {
    let elsewhere = "counted: elsewhere\nimprovement: increase\npopulations:\n  - code: denominator\n  - code: numerator\n";
    let good = format!("{}{elsewhere}", &GOOD[..GOOD.find("improvement").unwrap()]);
    assert_eq!(findings(&good), "", "who reports a count seldom says of whom");
    for (from, to, expected) in [
        ("  - code: numerator", "  - code: numerator\n    define: N", &["measure.yaml:14:13", "`numerator` is decided by `N`"][..]),
        ("counted: elsewhere\n", "", &["measure.yaml:11:5", "the population `denominator` has no `define`", "needs the population `initial-population`"]),
        ("counted: elsewhere", "counted: elsewere", &["measure.yaml:9", "elsewere"]),
        ("  - code: numerator\n", "", &["needs the population `numerator`", "`- code: numerator`"]),
        ("  - code: numerator", "  - code: measure-population", &["measure.yaml:13:5", "has no population `measure-population`"]),
        ("scoring: proportion", "scoring: composite", &["measure.yaml:8:1", "a composite is computed of its components"]),
        ("counted: elsewhere", "counted: elsewhere\nbasis: Patient", &["measure.yaml:10:1", "`basis` says how a measure is computed"]),
        ("counted: elsewhere", "counted: elsewhere\nlibrary: a.cql", &["measure.yaml:10:1", "`library` says how", "remove `counted: elsewhere`"]),
        ("counted: elsewhere", "counted: elsewhere\nstratifiers: [{id: sex, define: Sex}]", &["measure.yaml:10:1", "`stratifiers` says how"]),
        ("counted: elsewhere", "counted: elsewhere\nsupplemental-data: [{id: sex, define: Sex}]", &["measure.yaml:10:1", "`supplemental-data` says how"]),
        ("counted: elsewhere", "counted: elsewhere\nparameters: {A: {value: 1, text: A}}", &["measure.yaml:10:1", "`parameters` says how"]),
        ("populations:", "plausibility: {cannot-tell-percent: 5}\npopulations:", &["measure.yaml:11:16", "nobody is told who cannot be counted"]),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let found = findings(&text);
        for part in expected {
            assert!(found.contains(part), "{to}: no `{part}` in\n{found}");
        }
    }
    let observed = "  - code: measure-population\n  - {code: measure-observation, of: measure-population, aggregate: AGGREGATE}\n";
    let average = good.replace("proportion", "continuous-variable").replace("  - code: denominator\n  - code: numerator\n", observed);
    assert_eq!(findings(&average.replace("AGGREGATE", "median")), "");
    assert!(findings(&average.replace("AGGREGATE", "sum")).contains("has no observation that adds up"));
}

#[test]
fn an_observation_says_what_it_observes_and_how() {
    let ratio = GOOD.replace("proportion", "ratio") + "  - code: measure-observation\n    define: Days\n";
    let found = findings(&ratio);
    assert!(found.contains("needs `of`") && found.contains("needs `aggregate`"), "{found}");
    assert_eq!(findings(&(ratio + "    of: denominator\n    aggregate: sum\n")), "");
}

#[test]
fn two_initial_populations_are_told_apart() {
    let two = GOOD.replace("proportion", "ratio") + "  - code: initial-population\n    id: other\n    define: Other\n";
    let found = findings(&two);
    assert!(found.contains("`denominator` must say which one it is `of`"), "{found}");
    let told = two
        .replace("define: Denominator", "define: Denominator\n    of: initial-population")
        .replace("define: Numerator", "define: Numerator\n    of: other");
    assert_eq!(findings(&told), "");
}
