//! Values that tell who the members are: who divides by a number of a record or a day of birth, or describes by it or by a text that holds
//! one, lets a summary tell who the patients are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Finding, Owner, Weight, items, url_ends};
use crate::fhir::compartment::{ID_BYTES_MAX, in_compartment};

/// So many values of a set that is known are told apart without asking how many members each has: sexes, age groups, payers, wards.
const VALUES_MAX: usize = 20;

/// The value of those of whom nothing is known.
const UNKNOWN: &str = "\"unknown\"";

/// What the extensions of supplemental data end in, and the rule of them.
const SUPPLEMENT: &str = "/supplemental-data";
const SUPPLEMENTS: &str = "supplemental-data-name-nobody";
/// The rule of strata.
const STRATA: &str = "strata-name-nobody";

/// How many members each value has.
type Members = BTreeMap<String, u64>;

/// Adds a finding for each stratifier, component of one or supplemental datum of a summary that has a record of a patient as a value,
/// or most of whose many values are of one member.
pub(super) fn check(report: &Value, found: &mut Vec<Finding>) {
    if report.get("type").and_then(Value::as_str) != Some("summary") {
        return;
    }
    let mut judge = |rule, at: String, members: &Members| found.extend(told(members, false).map(|message| finding(rule, at, message)));
    for (index, group) in items(report, "group").iter().enumerate() {
        for (place, stratifier) in items(group, "stratifier").iter().enumerate() {
            let at = format!("/group/{index}/stratifier/{place}");
            of_stratifier(stratifier).values().for_each(|members| judge(STRATA, at.clone(), members));
        }
    }
    for (first, members) in of_supplements(report).values() {
        judge(SUPPLEMENTS, format!("/extension/{first}"), members);
    }
}

/// Takes out of a report the supplemental data and the strata that tell who the members are, so that its numbers need not wait: which and
/// why, to be told. Of these supplemental data, by id, and stratifiers, by group and place, the values may be others for everybody, so that
/// one of a single member tells of that one.
pub fn leave_out(report: &mut Value, supplements: &[&str], stratifiers: &[(usize, usize)]) -> Vec<Finding> {
    if report.get("type").and_then(Value::as_str) != Some("summary") {
        return Vec::new();
    }
    let mut left_out = Vec::new();
    for (at, group) in report.get_mut("group").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        for (place, stratifier) in group.get_mut("stratifier").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            let is_varying = stratifiers.contains(&(at, place));
            let Some(why) = of_stratifier(stratifier).values().find_map(|members| told(members, is_varying)) else { continue };
            let id = written(stratifier.get("id"));
            stratifier.as_object_mut().and_then(|stratifier| stratifier.remove("stratum"));
            left_out.push(left(STRATA, "stratifier", &id, &why));
        }
    }
    left_out.extend(leave_out_supplements(report, supplements));
    left_out
}

fn leave_out_supplements(report: &mut Value, varying: &[&str]) -> Vec<Finding> {
    let is_varying = |id: &str| varying.contains(&id.trim_matches('"'));
    let each = of_supplements(report).into_iter();
    let telling: BTreeMap<String, String> = each.filter_map(|(id, (_, members))| told(&members, is_varying(&id)).map(|why| (id, why))).collect();
    if let Some(extensions) = report.get_mut("extension").and_then(Value::as_array_mut) {
        extensions.retain(|extension| !url_ends(extension, SUPPLEMENT) || !telling.contains_key(&written(part(extension, "id", "valueString"))));
    }
    telling.iter().map(|(id, why)| left(SUPPLEMENTS, "supplemental datum", id, why)).collect()
}

fn left(rule: &'static str, what: &str, id: &str, why: &str) -> Finding {
    let message = format!("the {what} `{}` is left out of the report: {why}", id.trim_matches('"'));
    Finding { weight: Weight::Warn, ..finding(rule, String::new(), message) }
}

fn finding(rule: &'static str, at: String, message: String) -> Finding {
    let action = "divide and describe by what many patients share, as a code or an age group";
    Finding { weight: Weight::Block, rule, at, message, owner: Owner::Author, action }
}

/// What is wrong with these values. A reference to a record of a patient tells who it is however few there are, and so does a value of
/// one member where everybody may have another one.
fn told(members: &Members, is_varying: bool) -> Option<String> {
    let references = members.keys().filter(|value| value.split(['"', ',', ';', '=']).any(is_record)).count();
    let alone = members.iter().filter(|(value, count)| **count <= 1 && !(is_varying && value.contains(UNKNOWN))).count();
    let is_telling = if is_varying { alone > 0 } else { members.len() > VALUES_MAX && alone * 2 > members.len() };
    let found = match references {
        0 if is_telling => format!("{alone} are of one member each"),
        0 => return None,
        some => format!("{some} are records of patients"),
    };
    Some(format!("of {} values {found}: such values tell who the members are", members.len()))
}

/// Whether a text is `Type/id`, at any server, of something that belongs to a patient.
fn is_record(text: &str) -> bool {
    let text = text.split("/_history/").next().unwrap_or(text);
    let mut parts = text.rsplit('/');
    let (id, of) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    in_compartment(of) && (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

fn written(value: Option<&Value>) -> String {
    value.map(Value::to_string).unwrap_or_default()
}

/// The values of a stratifier by component; one without components is its only one.
fn of_stratifier(stratifier: &Value) -> BTreeMap<String, Members> {
    let mut members: BTreeMap<String, Members> = BTreeMap::new();
    for stratum in items(stratifier, "stratum") {
        let counts = items(stratum, "population").iter().filter_map(|population| population.get("count")?.as_u64());
        let size = counts.max().unwrap_or_default();
        let mut add = |component: String, value: String| {
            let known = members.entry(component).or_default().entry(value).or_default();
            *known = known.saturating_add(size);
        };
        match items(stratum, "component") {
            [] => add(String::new(), written(stratum.get("value"))),
            components => components.iter().for_each(|one| add(written(one.get("code")), written(one.get("value")))),
        }
    }
    members
}

/// The values of each supplemental datum, and where the first of them stands.
fn of_supplements(report: &Value) -> BTreeMap<String, (usize, Members)> {
    let mut members: BTreeMap<String, (usize, Members)> = BTreeMap::new();
    for (index, extension) in items(report, "extension").iter().enumerate().filter(|(_, one)| url_ends(one, SUPPLEMENT)) {
        let count = part(extension, "count", "valueInteger").and_then(Value::as_u64).unwrap_or_default();
        let (_, values) = members.entry(written(part(extension, "id", "valueString"))).or_insert_with(|| (index, Members::new()));
        let size = values.entry(written(part(extension, "value", "valueString"))).or_default();
        *size = size.saturating_add(count);
    }
    members
}

/// A part of an extension that has several.
fn part<'v>(extension: &'v Value, name: &str, field: &str) -> Option<&'v Value> {
    items(extension, "extension").iter().find(|one| url_ends(one, name))?.get(field)
}
