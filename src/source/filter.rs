//! What a search asked for, looked for in what came: some servers ignore a parameter without a word. Pure.
//!
//! A resource is left out only if it certainly does not match; one that says nothing stays.

use jiff::civil::Date;
use jiff::{Span, ToSpan as _};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Where the values of token parameters stand.
const TOKENS: &[(&str, &[&str])] = &[
    ("category", &["category"]),
    ("class", &["class"]),
    ("clinical-status", &["clinicalStatus"]),
    ("code", &["code", "medicationCodeableConcept", "vaccineCode"]),
    ("intent", &["intent"]),
    ("status", &["status"]),
    ("type", &["type"]),
    ("verification-status", &["verificationStatus"]),
];

/// Where the values of date parameters stand.
const DATES: &[(&str, &[&str])] = &[
    ("authoredon", &["authoredOn"]),
    (
        "date",
        &["effectiveDateTime", "effectivePeriod", "effectiveInstant", "performedDateTime", "performedPeriod", "occurrenceDateTime", "occurrencePeriod", "period", "date"],
    ),
    ("onset-date", &["onsetDateTime", "onsetPeriod"]),
    ("recorded-date", &["recordedDate"]),
];

/// What is read of a resource to find its codes; what is written otherwise than FHIR has it stays.
#[derive(Deserialize)]
struct Coded<'a> {
    #[serde(borrow)]
    code: Option<Concept<'a>>,
}

#[derive(Deserialize)]
struct Concept<'a> {
    #[serde(borrow)]
    coding: Option<Vec<Option<Coding<'a>>>>,
}

#[derive(Deserialize)]
struct Coding<'a> {
    #[serde(borrow)]
    system: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
}

/// Whether one of these codes (`system|code`) is a resource's `code`, as a search by them finds it.
pub(super) fn has_code(json: &[u8], codes: &BTreeSet<String>) -> bool {
    tokens(json).is_none_or(|tokens| tokens.iter().any(|token| codes.contains(token)))
}

/// The codings (`system|code`) of a resource's `code`; `None` where it is written otherwise than FHIR has it.
pub(super) fn tokens(json: &[u8]) -> Option<Vec<String>> {
    let resource = serde_json::from_slice::<Coded<'_>>(json).ok()?;
    let codings = resource.code.and_then(|code| code.coding).unwrap_or_default();
    let token = |coding: &Coding<'_>| format!("{}|{}", coding.system.as_deref().unwrap_or_default(), coding.code.as_deref().unwrap_or_default());
    Some(codings.iter().flatten().map(token).collect())
}

/// Whether one of these codes stands anywhere in a resource, or its code may stand in another one that it refers to.
pub(super) fn may_have_code(json: &[u8], codes: &BTreeSet<String>) -> bool {
    let Ok(resource) = serde_json::from_slice::<Value>(json) else { return true };
    let plain: BTreeSet<&str> = codes.iter().filter_map(|token| token.rsplit('|').next()).collect();
    let mut content = resource.as_object().into_iter().flatten().filter(|(name, _)| *name != "id" && *name != "meta");
    content.any(|(name, value)| name == "medicationReference" || mentions(value, codes, &plain))
}

/// A code with its system, or one that has none beside it; `plain` are the codes without their systems.
fn mentions(value: &Value, codes: &BTreeSet<String>, plain: &BTreeSet<&str>) -> bool {
    match value {
        Value::String(text) => plain.contains(text.as_str()),
        Value::Array(items) => items.iter().any(|item| mentions(item, codes, plain)),
        Value::Object(members) => match (members.get("system").and_then(Value::as_str), members.get("code").and_then(Value::as_str)) {
            (Some(system), Some(code)) => codes.contains(&format!("{system}|{code}")),
            _ => members.values().any(|member| mentions(member, codes, plain)),
        },
        _ => false,
    }
}

/// The parameters of a search that can be applied here.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    tests: Vec<Test>,
}

#[derive(Clone, Debug)]
struct Test {
    parameter: String,
    elements: &'static [&'static str],
    /// Any of them.
    wanted: Vec<Wanted>,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// In small letters; empty: any code.
    Code(String),
    /// First and last day, where there is one.
    Days(Option<Date>, Option<Date>),
}

impl Filter {
    /// The filter of a search's parameters; those with a modifier, and those that are not known here, are none.
    pub fn of<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Filter {
        let tests = parameters.filter_map(|(name, value)| {
            let find = |table: &'static [(&'static str, &'static [&'static str])]| table.iter().find(|(own, _)| *own == name).map(|(_, elements)| *elements);
            let values = value.split(',');
            let (elements, wanted) = match (find(TOKENS), find(DATES)) {
                (Some(elements), _) => (elements, values.map(|value| Some(Wanted::Code(value.rsplit('|').next()?.to_lowercase()))).collect::<Option<_>>()?),
                (_, Some(elements)) => (elements, values.map(days_wanted).collect::<Option<_>>()?),
                _ => return None,
            };
            Some(Test { parameter: name.to_owned(), elements, wanted })
        });
        Filter { tests: tests.collect() }
    }

    /// Whether a resource may match. Codes are looked at only if the server `ignored` their parameter: it may know more
    /// of codes than stands in the resource. Of time it cannot.
    pub fn keeps(&self, json: &[u8], ignored: &BTreeSet<String>) -> bool {
        let mut tests = self.tests.iter().filter(|test| ignored.contains(&test.parameter) || test.is_of_time()).peekable();
        if tests.peek().is_none() {
            return true;
        }
        let Ok(resource) = serde_json::from_slice::<Value>(json) else { return true };
        tests.all(|test| test.keeps(&resource))
    }
}

impl Test {
    fn is_of_time(&self) -> bool {
        self.wanted.iter().all(|wanted| matches!(wanted, Wanted::Days(..)))
    }

    fn keeps(&self, resource: &Value) -> bool {
        let Some(value) = self.elements.iter().find_map(|element| resource.get(element)) else { return true };
        let mut codes = Vec::new();
        collect_codes(value, &mut codes);
        self.wanted.iter().any(|wanted| match wanted {
            Wanted::Code(code) => code.is_empty() || codes.is_empty() || codes.contains(code),
            Wanted::Days(from, until) => {
                let Some((first, last)) = days_of(value) else { return true };
                from.is_none_or(|from| last.is_none_or(|last| last >= from)) && until.is_none_or(|until| first.is_none_or(|first| first <= until))
            }
        })
    }
}

/// Codes of a code, a Coding, a CodeableConcept, or a list of them.
fn collect_codes(value: &Value, codes: &mut Vec<String>) {
    match value {
        Value::String(code) => codes.push(code.to_lowercase()),
        Value::Array(items) => items.iter().for_each(|item| collect_codes(item, codes)),
        Value::Object(_) => ["coding", "code"].iter().filter_map(|name| value.get(name)).for_each(|inner| collect_codes(inner, codes)),
        _ => {}
    }
}

/// The days that a parameter's value allows, with a day to spare on either side for time zones; `None` if it is not
/// understood.
fn days_wanted(value: &str) -> Option<Wanted> {
    let (prefix, text) = match value.get(..2) {
        Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_lowercase()) => (prefix, value.get(2..)?),
        _ => ("eq", value),
    };
    let (first, last) = days(text)?;
    let (from, until) = (first.checked_sub(1.day()).ok()?, last.checked_add(1.day()).ok()?);
    match prefix {
        "eq" => Some(Wanted::Days(Some(from), Some(until))),
        "ge" | "gt" | "sa" => Some(Wanted::Days(Some(from), None)),
        "le" | "lt" | "eb" => Some(Wanted::Days(None, Some(until))),
        _ => None,
    }
}

/// First and last day of a dateTime or a Period, as far as they are there; `None` if it is neither.
fn days_of(value: &Value) -> Option<(Option<Date>, Option<Date>)> {
    match value {
        Value::String(text) => days(text).map(|(first, last)| (Some(first), Some(last))),
        Value::Object(period) => {
            let end = |name: &str| period.get(name).and_then(Value::as_str).map(days);
            let (start, end) = (end("start"), end("end"));
            (start != Some(None) && end != Some(None)).then(|| (start.flatten().map(|(first, _)| first), end.flatten().map(|(_, last)| last)))
        }
        _ => None,
    }
}

/// The days that a FHIR date or dateTime covers, as they are written.
pub(super) fn days(text: &str) -> Option<(Date, Date)> {
    let whole = |first: Date, span: Span| Some((first, first.checked_add(span).ok()?.yesterday().ok()?));
    match text.len() {
        4 => whole(Date::new(text.parse().ok()?, 1, 1).ok()?, 1.year()),
        7 => whole(format!("{text}-01").parse().ok()?, 1.month()),
        _ => text.get(..10)?.parse().ok().map(|day| (day, day)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_at_any_element_and_one_in_another_resource_may_be_it() {
        let codes = ["http://snomed.info/sct|52124006".to_owned(), "http://hl7.org/fhir/status|active".to_owned()].into();
        for (json, expected) in [
            (r#"{"type":{"coding":[{"system":"http://snomed.info/sct","code":"52124006"}]}}"#, true),
            (r#"{"type":[{"coding":[{"system":"urn:local","code":"52124006"}]}],"class":{"code":"AMB"}}"#, false),
            (r#"{"class":{"system":"http://snomed.info/sct","code":"52124006"}}"#, true),
            (r#"{"type":{"coding":[{"code":"52124006"}]}}"#, true),
            (r#"{"status":"active"}"#, true),
            (r#"{"id":"active","status":"done"}"#, false),
            (r#"{"medicationReference":{"reference":"Medication/1"}}"#, true),
            (r#"{"type":{"text":"a line"}}"#, false),
        ] {
            assert_eq!(may_have_code(json.as_bytes(), &codes), expected, "{json}");
        }
    }

    #[test]
    fn what_certainly_does_not_match_is_left_out() {
        let cases = [
            ("code", "http://loinc.org|1751-7", r#"{"code":{"coding":[{"system":"urn:x","code":"9"},{"code":"1751-7"}]}}"#, true),
            ("code", "http://loinc.org|1751-7,http://loinc.org|2", r#"{"code":{"coding":[{"code":"3"}]}}"#, false),
            ("code", "http://loinc.org|1751-7", r#"{"code":{"text":"albumin"}}"#, true),
            ("code", "http://loinc.org|", r#"{"code":{"coding":[{"code":"3"}]}}"#, true),
            ("code", "2", r#"{"medicationCodeableConcept":{"coding":[{"code":"3"}]}}"#, false),
            ("category", "laboratory", r#"{"category":[{"coding":[{"code":"Laboratory"}]}]}"#, true),
            ("category", "laboratory", r#"{"category":[{"coding":[{"code":"exam"}]}]}"#, false),
            ("status", "final", r#"{"status":"preliminary"}"#, false),
            ("code:in", "http://x", r#"{"code":{"coding":[{"code":"3"}]}}"#, true),
            ("date", "ge2026-01-01", r#"{"effectiveDateTime":"2025-06-01"}"#, false),
            ("date", "ge2026-01-01", r#"{"effectiveDateTime":"2025-12-31T23:00:00-05:00"}"#, true),
            ("date", "ge2026-01-01", r#"{"period":{"start":"2020-01-01"}}"#, true),
            ("date", "ge2026-01-01", r#"{"period":{"start":"2020-01-01","end":"2025"}}"#, true),
            ("date", "ge2026-01-01", r#"{"period":{"start":"2020-01-01","end":"2025-12"}}"#, true),
            ("date", "ge2026-01-02", r#"{"period":{"start":"2020-01-01","end":"2025-12"}}"#, false),
            ("date", "lt2026-01-01", r#"{"performedDateTime":"2026-01-03"}"#, false),
            ("date", "2026-01", r#"{"performedDateTime":"2026-02-02"}"#, false),
            ("date", "ne2026-01", r#"{"performedDateTime":"2026-01-02"}"#, true),
            ("date", "ge2026-01-01", r#"{"effectiveDateTime":"then"}"#, true),
            ("date", "ge2026-01-01", r#"{"id":"undated"}"#, true),
            ("device", "d", r#"{"device":{"reference":"Device/e"}}"#, true),
        ];
        for (name, value, json, expected) in cases {
            let filter = Filter::of([(name, value)].into_iter());
            assert_eq!(filter.keeps(json.as_bytes(), &[name.to_owned()].into()), expected, "{name}={value} {json}");
        }
    }

    #[test]
    fn a_code_is_found_with_its_system_only() {
        let codes = ["http://loinc.org|1", "|2"].map(str::to_owned).into();
        let cases = [
            (r#"{"code":{"coding":[{"system":"urn:x","code":"9"},{"code":"1","system":"http://loinc.org"}]}}"#, true),
            (r#"{"code":{"coding":[{"system":"urn:x","code":"1"}]}}"#, false),
            (r#"{"code":{"coding":[null,{"code":"2"}]}}"#, true),
            (r#"{"code":{"coding":[{"code":"1"}]}}"#, false),
            (r#"{"code":{"text":"albumin"}}"#, false),
            (r#"{"id":"uncoded"}"#, false),
            (r#"{"code":"1"}"#, true),
        ];
        cases.iter().for_each(|(json, expected)| assert_eq!(has_code(json.as_bytes(), &codes), *expected, "{json}"));
    }

    #[test]
    fn codes_are_the_servers_matter_unless_it_ignored_them() {
        let filter = Filter::of([("code", "1")].into_iter());
        assert!(filter.keeps(br#"{"code":{"coding":[{"code":"3"}]}}"#, &BTreeSet::new()));
    }
}
