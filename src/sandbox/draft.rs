//! Writing one resource: its JSON and, from the same calls, what searches look at.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::Date;

use super::moment::{Calendar, Moment, add_days};

/// A code with its system and display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coding {
    pub(super) system: &'static str,
    pub(super) code: &'static str,
    pub(super) display: &'static str,
}

/// Shorthand for tables of codes.
pub(super) const fn coding(system: &'static str, code: &'static str, display: &'static str) -> Coding {
    Coding { system, code, display }
}

/// A decimal as FHIR writes it: `Decimal(385, 1)` is 38.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal(pub(super) i64, pub(super) u32);

impl Decimal {
    fn text(self) -> String {
        let Decimal(units, places) = self;
        if places == 0 {
            return units.to_string();
        }
        let scale = 10_i64.pow(places.min(9));
        let sign = if units < 0 { "-" } else { "" };
        let width = usize::try_from(places).unwrap_or(1);
        format!("{sign}{}.{:0width$}", units.abs() / scale, units.abs() % scale)
    }
}

/// A point in time as written: a whole day, or a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// To the day.
    Day(Date),
    /// To the second.
    Moment(Moment),
}

impl When {
    /// The local day.
    pub(super) fn date(self) -> Date {
        match self {
            When::Day(date) => date,
            When::Moment(moment) => moment.date(),
        }
    }

    fn text(self) -> String {
        match self {
            When::Day(date) => date.to_string(),
            When::Moment(moment) => moment.text(),
        }
    }

    /// First second, and the second after the last.
    fn seconds(self, calendar: &Calendar) -> (i64, i64) {
        match self {
            When::Day(date) => {
                let next = calendar.moment(add_days(date, 1), 0);
                (calendar.moment(date, 0).at.as_second(), next.at.as_second())
            }
            When::Moment(moment) => (moment.at.as_second(), moment.at.as_second() + 1),
        }
    }
}

/// What a search parameter can match in one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SearchKey {
    /// The parameter's name in FHIR R4.
    pub(super) name: &'static str,
    /// The value it sees.
    pub(super) value: KeyValue,
}

/// One searchable value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyValue {
    /// A code; `system` is empty where the element has none.
    Token { system: Cow<'static, str>, code: Cow<'static, str> },
    /// A reference, as `Type/id`.
    Reference(String),
    /// Seconds since 1970: from, and the one after the last. Open ends are the extremes.
    Span(i64, i64),
    /// Text, lower case.
    Text(String),
}

/// A JSON object or list being written.
pub(super) struct Json {
    out: String,
    /// Whether a comma is due before the next member.
    comma: bool,
}

impl Json {
    fn key(&mut self, key: &str) {
        if self.comma {
            self.out.push(',');
        }
        self.comma = true;
        if !key.is_empty() {
            self.out.push('"');
            self.out.push_str(key);
            self.out.push_str("\":");
        }
    }

    /// A string. The empty key writes an element of a list, here and below.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        quote(&mut self.out, value);
    }

    /// A number.
    pub(super) fn decimal(&mut self, key: &str, value: Decimal) {
        self.key(key);
        self.out.push_str(&value.text());
    }

    /// true or false.
    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.push_str(if value { "true" } else { "false" });
    }

    /// An object.
    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Json)) {
        self.nested(key, '{', '}', fill);
    }

    /// A list.
    pub(super) fn list(&mut self, key: &str, fill: impl FnOnce(&mut Json)) {
        self.nested(key, '[', ']', fill);
    }

    fn nested(&mut self, key: &str, open: char, close: char, fill: impl FnOnce(&mut Json)) {
        self.key(key);
        self.out.push(open);
        self.comma = false;
        fill(self);
        self.out.push(close);
        self.comma = true;
    }

    /// A Coding.
    pub(super) fn coding(&mut self, key: &str, coding: Coding) {
        self.object(key, |json| {
            json.text("system", coding.system);
            json.text("code", coding.code);
            if !coding.display.is_empty() {
                json.text("display", coding.display);
            }
        });
    }

    /// A CodeableConcept; the text is left out if empty.
    pub(super) fn concept(&mut self, key: &str, codings: &[Coding], text: &str) {
        self.object(key, |json| {
            if !codings.is_empty() {
                json.list("coding", |json| codings.iter().for_each(|coding| json.coding("", *coding)));
            }
            if !text.is_empty() {
                json.text("text", text);
            }
        });
    }

    /// A Reference to `Type/id`.
    pub(super) fn reference(&mut self, key: &str, target: &str) {
        self.object(key, |json| json.text("reference", target));
    }

    /// A Quantity in UCUM.
    pub(super) fn quantity(&mut self, key: &str, value: Decimal, unit: &str, code: &str) {
        self.object(key, |json| {
            json.decimal("value", value);
            json.text("unit", unit);
            json.text("system", super::dialect::system::UCUM);
            json.text("code", code);
        });
    }

    /// A Period.
    pub(super) fn period(&mut self, key: &str, start: When, end: Option<When>) {
        self.object(key, |json| {
            json.text("start", &start.text());
            if let Some(end) = end {
                json.text("end", &end.text());
            }
        });
    }
}

/// Writes a JSON string.
fn quote(out: &mut String, value: &str) {
    out.push('"');
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// A resource being written.
pub(super) struct Draft {
    /// Resource type.
    pub(super) kind: &'static str,
    /// Logical id.
    pub(super) id: String,
    /// The patient in whose compartment it is.
    pub(super) patient: Option<String>,
    /// When it was entered.
    pub(super) recorded: Timestamp,
    profile: &'static str,
    json: Json,
    keys: Vec<SearchKey>,
}

impl Draft {
    /// Starts a resource. `profile` is the last part of its US Core profile's URL, or empty.
    pub(super) fn new(kind: &'static str, id: impl Into<String>, profile: &'static str, recorded: Timestamp) -> Draft {
        Draft {
            kind,
            id: id.into(),
            patient: None,
            recorded,
            profile,
            json: Json { out: String::with_capacity(640), comma: true },
            keys: Vec::with_capacity(8),
        }
    }

    /// The JSON after `meta`.
    pub(super) fn body(&self) -> &str {
        &self.json.out
    }

    /// The resource with its `meta`, and its search keys.
    pub(super) fn finish(self, version: u32, updated: Timestamp) -> (String, Vec<SearchKey>) {
        let profile = if self.profile.is_empty() { String::new() } else { format!(",\"profile\":[\"http://hl7.org/fhir/us/core/StructureDefinition/{}\"]", self.profile) };
        let json = format!(
            "{{\"resourceType\":\"{}\",\"id\":\"{}\",\"meta\":{{\"versionId\":\"{version}\",\"lastUpdated\":\"{updated}\"{profile}}}{}}}",
            self.kind, self.id, self.json.out,
        );
        (json, self.keys)
    }

    /// The writer, for elements no search looks at.
    pub(super) fn json(&mut self) -> &mut Json {
        &mut self.json
    }

    fn remember(&mut self, name: &'static str, value: KeyValue) {
        if !name.is_empty() {
            self.keys.push(SearchKey { name, value });
        }
    }

    /// Adds a searchable token that is written by other means.
    pub(super) fn token_key(&mut self, name: &'static str, system: impl Into<Cow<'static, str>>, code: impl Into<Cow<'static, str>>) {
        self.remember(name, KeyValue::Token { system: system.into(), code: code.into() });
    }

    /// Adds searchable text that is written by other means.
    pub(super) fn text_key(&mut self, name: &'static str, text: &str) {
        self.remember(name, KeyValue::Text(text.to_lowercase()));
    }

    /// A `code` element. The empty parameter name makes an element unsearchable, here and below.
    pub(super) fn code(&mut self, element: &str, parameter: &'static str, code: &'static str) {
        self.json.text(element, code);
        if !parameter.is_empty() {
            self.token_key(parameter, "", code);
        }
    }

    /// A Coding element.
    pub(super) fn coding(&mut self, element: &str, parameter: &'static str, coding: Coding) {
        self.json.coding(element, coding);
        if !parameter.is_empty() {
            self.token_key(parameter, coding.system, coding.code);
        }
    }

    /// A CodeableConcept element.
    pub(super) fn concept(&mut self, element: &str, parameter: &'static str, codings: &[Coding], text: &str) {
        self.json.concept(element, codings, text);
        self.concept_keys(parameter, codings);
    }

    /// A list of one CodeableConcept.
    pub(super) fn concepts(&mut self, element: &str, parameter: &'static str, codings: &[Coding]) {
        self.json.list(element, |json| json.concept("", codings, ""));
        self.concept_keys(parameter, codings);
    }

    fn concept_keys(&mut self, parameter: &'static str, codings: &[Coding]) {
        if !parameter.is_empty() {
            for coding in codings {
                self.token_key(parameter, coding.system, coding.code);
            }
        }
    }

    /// A Reference element to `Type/id`.
    pub(super) fn reference(&mut self, element: &str, parameter: &'static str, target: &str) {
        self.json.reference(element, target);
        self.reference_key(parameter, target);
    }

    /// Adds a searchable reference that is written by other means.
    pub(super) fn reference_key(&mut self, parameter: &'static str, target: &str) {
        self.remember(parameter, KeyValue::Reference(target.to_owned()));
    }

    /// The reference to the patient, which also says whose compartment this is.
    pub(super) fn subject(&mut self, element: &str, patient: &str) {
        self.patient = Some(patient.to_owned());
        self.reference(element, "patient", &format!("Patient/{patient}"));
    }

    /// A date or dateTime element.
    pub(super) fn when(&mut self, element: &str, parameter: &'static str, when: When, calendar: &Calendar) {
        self.json.text(element, &when.text());
        if !parameter.is_empty() {
            let (from, to) = when.seconds(calendar);
            self.remember(parameter, KeyValue::Span(from, to));
        }
    }

    /// A dateTime element.
    pub(super) fn moment(&mut self, element: &str, parameter: &'static str, moment: Moment) {
        self.json.text(element, &moment.text());
        let second = moment.at.as_second();
        self.remember(parameter, KeyValue::Span(second, second + 1));
    }

    /// A Period element.
    pub(super) fn period(&mut self, element: &str, parameter: &'static str, start: When, end: Option<When>, calendar: &Calendar) {
        self.json.period(element, start, end);
        if !parameter.is_empty() {
            let from = start.seconds(calendar).0;
            let to = end.map_or(i64::MAX, |end| end.seconds(calendar).1);
            self.remember(parameter, KeyValue::Span(from, to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_places() {
        for (decimal, text) in [(Decimal(385, 1), "38.5"), (Decimal(40, 1), "4.0"), (Decimal(7, 0), "7"), (Decimal(5, 2), "0.05"), (Decimal(-15, 1), "-1.5")] {
            assert_eq!(decimal.text(), text);
        }
    }

    #[test]
    fn a_resource_is_written_with_its_meta() {
        let recorded: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        let mut draft = Draft::new("Observation", "o1", "us-core-observation-lab", recorded);
        draft.code("status", "status", "final");
        draft.concepts("category", "category", &[coding("s", "laboratory", "")]);
        draft.concept("code", "code", &[coding("l", "1988-5", "a \"b\"")], "CRP");
        draft.subject("subject", "p1");
        draft.json().quantity("valueQuantity", Decimal(85, 1), "mg/L", "mg/L");
        let (json, keys) = draft.finish(2, recorded);
        assert_eq!(
            json,
            concat!(
                r#"{"resourceType":"Observation","id":"o1","meta":{"versionId":"2","lastUpdated":"2026-07-01T12:00:00Z","#,
                r#""profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"]},"status":"final","#,
                r#""category":[{"coding":[{"system":"s","code":"laboratory"}]}],"#,
                r#""code":{"coding":[{"system":"l","code":"1988-5","display":"a \"b\""}],"text":"CRP"},"#,
                r#""subject":{"reference":"Patient/p1"},"#,
                r#""valueQuantity":{"value":8.5,"unit":"mg/L","system":"http://unitsofmeasure.org","code":"mg/L"}}"#,
            )
        );
        assert!(keys.contains(&SearchKey { name: "patient", value: KeyValue::Reference("Patient/p1".to_owned()) }));
        assert_eq!(keys.len(), 4);
    }
}
