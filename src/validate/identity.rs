//! Values of strata that are nearly one for each member: who divides by a number of a record or a day of birth, or by a text that holds
//! one, lets a summary tell who the patients are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Finding, Owner, Weight, items};

/// So many values of a stratifier are told apart without asking how many members each has: sexes, age groups, payers, wards.
const VALUES_MAX: usize = 20;

/// Adds a finding for each stratifier, or component of one, of a summary most of whose many values are of one member.
pub(super) fn check(report: &Value, found: &mut Vec<Finding>) {
    if report.get("type").and_then(Value::as_str) != Some("summary") {
        return;
    }
    for (index, group) in items(report, "group").iter().enumerate() {
        for (place, stratifier) in items(group, "stratifier").iter().enumerate() {
            for members in members(stratifier).values() {
                let alone = members.values().filter(|count| **count <= 1).count();
                if members.len() > VALUES_MAX && alone * 2 > members.len() {
                    found.push(Finding {
                        weight: Weight::Block,
                        rule: "strata-name-nobody",
                        at: format!("/group/{index}/stratifier/{place}"),
                        message: format!("of {} values {alone} are of one member each: such values tell who the members are", members.len()),
                        owner: Owner::Author,
                        action: "divide by what many patients share, as a code or an age group",
                    });
                }
            }
        }
    }
}

/// How many members each value has, by component; a stratifier without components is its only one.
fn members(stratifier: &Value) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut members: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let written = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default();
    for stratum in items(stratifier, "stratum") {
        let counts = items(stratum, "population").iter().filter_map(|population| population.get("count")?.as_u64());
        let size = counts.max().unwrap_or_default();
        let mut add = |component: String, value: String| *members.entry(component).or_default().entry(value).or_default() += size;
        match items(stratum, "component") {
            [] => add(String::new(), written(stratum.get("value"))),
            components => components.iter().for_each(|one| add(written(one.get("code")), written(one.get("value")))),
        }
    }
    members
}
