//! deqm-0 to deqm-9: what both generations of the DEQM guide demand of every MeasureReport.

use rust_decimal::Decimal;
use serde_json::Value;

use super::{Finding, block, decimal, items, population_code, scoring, url_ends};

/// Adds every invariant that the report breaks.
pub(super) fn check(report: &Value, found: &mut Vec<Finding>) {
    let mut broken = |rule, at: &str, message: String| found.push(block(rule, at, message));
    let measure = report.get("measure").and_then(Value::as_str).unwrap_or_default();
    if measure.split_once('|').is_none_or(|(url, version)| url.is_empty() || version.is_empty()) {
        broken("deqm-0", "/measure", format!("the canonical `{measure}` has no version"));
    }
    dates(report, &mut broken);
    scorings(report, &mut broken);
    for (index, group) in items(report, "group").iter().enumerate() {
        let at = format!("/group/{index}");
        one_group(report, group, &at, &mut broken);
        for (place, stratifier) in items(group, "stratifier").iter().enumerate() {
            let at = format!("{at}/stratifier/{place}");
            let components = items(stratifier, "stratum").iter().any(|stratum| !items(stratum, "component").is_empty());
            let own = !items(stratifier, "code").is_empty();
            if own && components || !own && !components && !items(stratifier, "stratum").is_empty() {
                broken("deqm-7", &at, "a stratifier has either its own code or components with codes".to_owned());
            }
            for (number, stratum) in items(stratifier, "stratum").iter().enumerate() {
                let at = format!("{at}/stratum/{number}");
                counts("deqm-9", stratum, &at, &mut broken);
                score(report, group, stratum, &at, &mut broken);
            }
        }
    }
}

type Broken<'a> = dyn FnMut(&'static str, &str, String) + 'a;

fn dates(report: &Value, broken: &mut Broken<'_>) {
    let text = |pointer: &str| report.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    for pointer in ["/date", "/period/start", "/period/end"] {
        let found = text(pointer);
        let day: Result<jiff::civil::Date, _> = found.get(..10).unwrap_or_default().parse();
        let rest = found.get(10..).unwrap_or_default();
        if day.is_err() || !(rest.is_empty() || rest.starts_with('T')) {
            broken("deqm-1", pointer, format!("`{found}` is no date of at least day precision"));
        }
    }
    if text("/period/start").get(..10) > text("/period/end").get(..10) {
        broken("per-1", "/period", "the period ends before it starts".to_owned());
    }
}

fn has_scoring(value: &Value) -> bool {
    items(value, "extension").iter().any(|one| url_ends(one, "measureScoring") || url_ends(one, "/cqf-scoring"))
}

fn scorings(report: &Value, broken: &mut Broken<'_>) {
    let groups = items(report, "group");
    let with = groups.iter().filter(|group| has_scoring(group)).count();
    let root = has_scoring(report);
    if root == (with > 0) || (!root && with != groups.len()) {
        broken("deqm-3", "", format!("scoring is given {} and on {with} of {} groups", if root { "at the root" } else { "not at the root" }, groups.len()));
    }
    let needs = |code: Option<&str>| matches!(code, Some("proportion" | "ratio" | "continuous-variable"));
    let notation = report.get("improvementNotation").is_some();
    if root && needs(scoring(report, report)) && !notation {
        broken("deqm-2", "/improvementNotation", "missing".to_owned());
    }
    for (index, group) in groups.iter().enumerate() {
        let own = items(group, "extension").iter().any(|one| url_ends(one, "mprovementNotation"));
        if has_scoring(group) && needs(scoring(group, group)) && !own && !notation {
            broken("deqm-4", &format!("/group/{index}"), "the group has a scoring but no improvement notation".to_owned());
        }
    }
}

fn one_group(report: &Value, group: &Value, at: &str, broken: &mut Broken<'_>) {
    if items(group, "population").is_empty() && scoring(report, group) != Some("composite") {
        broken("deqm-5", at, "a group without populations".to_owned());
    }
    counts("deqm-8", group, at, broken);
    score(report, group, group, at, broken);
}

fn counts(rule: &'static str, group: &Value, at: &str, broken: &mut Broken<'_>) {
    for (index, population) in items(group, "population").iter().enumerate() {
        let quantity = items(population, "extension").iter().any(|one| url_ends(one, "ountQuantity"));
        if population.get("count").is_some() == quantity {
            let name = population_code(population).unwrap_or("population");
            let message = if quantity { format!("`{name}` has both count and countQuantity") } else { format!("`{name}` has neither count nor countQuantity") };
            broken(rule, &format!("{at}/population/{index}"), message);
        }
    }
}

fn score(report: &Value, group: &Value, holder: &Value, at: &str, broken: &mut Broken<'_>) {
    let Some(value) = holder.pointer("/measureScore/value").and_then(decimal) else { return };
    if scoring(report, group) == Some("proportion") && !(Decimal::ZERO..=Decimal::ONE).contains(&value) {
        broken("deqm-6", &format!("{at}/measureScore"), format!("the score {value} of a proportion is not between 0 and 1"));
    }
}
