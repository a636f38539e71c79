//! What a column's cells are, and what FHIR makes of them. A reason why a cell does not fit tells nothing of what is in it.

use super::when::{Format, Span, day, instant};
use crate::diagnostic::Location;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Words for true and false, whatever their case.
const TRUE: [&str; 4] = ["true", "yes", "y", "1"];
const FALSE: [&str; 4] = ["false", "no", "n", "0"];
/// The largest count that a registry believes.
const COUNT_MAX: u32 = 1_000_000_000;

/// A column, as declared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
    /// Its cells may be empty.
    pub is_optional: bool,
}

/// What the cells of a column are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A patient, or an encounter, of the source.
    Whom(Whom),
    /// A day, in a form of strftime where one is named.
    Date(Option<Format>),
    /// A day or an instant; in the site's zone where it names no other.
    DateTime(Option<Format>),
    /// One of some texts, each with the coding that it means.
    Code(BTreeMap<String, Coding>),
    /// A number with this UCUM unit.
    Quantity(String),
    Integer,
    Decimal,
    Boolean,
    Text,
    /// A period of a measure.
    Period(Span),
    /// How many there are.
    Count,
    /// What was declared is wrong, which is said; there are no cells to read then.
    Untold,
}

/// Who or what is meant by a cell: by its id, or by an identifier of a system.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Whom {
    pub resource_type: &'static str,
    pub system: Option<String>,
    /// Rows of others than are known are counted and passed over.
    pub ignores_others: bool,
}

/// A code and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    pub system: String,
    pub code: String,
    pub display: Option<String>,
    /// Where it is written.
    pub at: Location,
}

impl Coding {
    fn to_json(&self) -> Value {
        let mut coding = json!({ "system": self.system, "code": self.code });
        if let (Some(display), Value::Object(members)) = (&self.display, &mut coding) {
            members.insert("display".to_owned(), Value::from(display.as_str()));
        }
        coding
    }
}

/// What a cell became.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    /// As a value of its own.
    pub json: Value,
    /// Within a text, and in a row's key.
    pub text: String,
    /// Of a code, what it means.
    pub coding: Option<Value>,
}

impl Cell {
    fn of(json: Value, text: impl Into<String>) -> Cell {
        Cell { json, text: text.into(), coding: None }
    }
}

/// A text as it is looked for in a list: without regard to case and surrounding space.
pub(super) fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}

impl Kind {
    /// Its name in a declaration.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Whom(whom) if whom.resource_type == "Encounter" => "encounter",
            Kind::Whom(_) => "patient",
            Kind::Date(_) => "date",
            Kind::DateTime(_) => "dateTime",
            Kind::Code(_) => "code",
            Kind::Quantity(_) => "quantity",
            Kind::Integer => "integer",
            Kind::Decimal => "decimal",
            Kind::Boolean => "boolean",
            Kind::Text => "text",
            Kind::Period(_) => "period",
            Kind::Count => "count",
            Kind::Untold => "of no type",
        }
    }

    /// Reads a cell that is not empty; who is meant by it is looked up elsewhere. Else what it is not.
    pub fn read(&self, text: &str, zone: &TimeZone) -> Result<Cell, String> {
        match self {
            Kind::Whom(_) | Kind::Text | Kind::Untold => Ok(Cell::of(Value::from(text), text)),
            Kind::Date(format) => {
                let date = day(text, format.as_ref(), zone)?;
                Ok(Cell::of(Value::from(date.to_string()), date.to_string()))
            }
            Kind::DateTime(format) => {
                let at = instant(text, format.as_ref(), zone)?;
                Ok(Cell::of(Value::from(at.as_str()), at))
            }
            Kind::Code(map) => {
                let coding = map.get(&folded(text)).ok_or("none of the texts that its `map` names")?;
                let concept = json!({ "coding": [coding.to_json()], "text": text });
                Ok(Cell { coding: Some(coding.to_json()), json: concept, text: coding.code.clone() })
            }
            Kind::Quantity(unit) => {
                let number = decimal(text).ok_or("no number as 12.5")?;
                Ok(Cell::of(json!({ "value": number, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit }), text))
            }
            Kind::Integer => {
                let number: i32 = text.parse().map_err(|_| "no whole number")?;
                Ok(Cell::of(Value::from(number), number.to_string()))
            }
            Kind::Decimal => {
                let number = decimal(text).ok_or("no number as 12.5")?;
                let shown = number.to_string();
                Ok(Cell::of(number, shown))
            }
            Kind::Period(span) => {
                let (start, end) = span.read(text)?;
                Ok(Cell::of(json!({ "start": start.to_string(), "end": end.to_string() }), start.to_string()))
            }
            Kind::Count => {
                let number = text.parse::<u32>().ok().filter(|number| *number <= COUNT_MAX).ok_or("no whole number as 12")?;
                Ok(Cell::of(Value::from(number), number.to_string()))
            }
            Kind::Boolean => {
                let word = folded(text);
                let is = |words: [&str; 4]| words.contains(&word.as_str());
                let value = if is(TRUE) { Some(true) } else { is(FALSE).then_some(false) };
                let value = value.ok_or("neither true nor false (or yes and no, 1 and 0)")?;
                Ok(Cell::of(Value::from(value), value.to_string()))
            }
        }
    }

    /// A cell of the kind, to try a template with.
    pub fn example(&self) -> Cell {
        match self {
            Kind::Whom(whom) => whom_is(whom.resource_type, "example"),
            Kind::Date(_) | Kind::DateTime(_) => Cell::of(Value::from("2026-01-01"), "2026-01-01"),
            Kind::Code(_) => Cell { coding: Some(json!({})), ..Cell::of(json!({}), "example") },
            Kind::Quantity(_) => Cell::of(json!({ "value": 1 }), "1"),
            Kind::Integer | Kind::Decimal | Kind::Count => Cell::of(Value::from(1), "1"),
            Kind::Boolean => Cell::of(Value::from(true), "true"),
            Kind::Text | Kind::Untold | Kind::Period(_) => Cell::of(Value::from("example"), "example"),
        }
    }
}

/// The reference to whom a cell means.
pub(super) fn whom_is(resource_type: &str, id: &str) -> Cell {
    Cell::of(json!({ "reference": format!("{resource_type}/{id}") }), id)
}

/// A number as written, its zeros kept.
fn decimal(text: &str) -> Option<Value> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    let number = Decimal::from_str_exact(text).ok().filter(|_| is_plain)?;
    serde_json::from_str(&number.to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{SourceFile, Span};

    fn read(kind: &Kind, text: &str) -> String {
        kind.read(text, &TimeZone::get("America/New_York").unwrap()).map_or_else(|reason| reason, |cell| cell.json.to_string())
    }

    #[test]
    fn what_cells_become() {
        let us = || Some(Format::new("%m/%d/%Y").unwrap());
        let us_time = || Some(Format::new("%m/%d/%Y %I:%M %p").unwrap());
        let map = [(
            "clabsi".to_owned(),
            Coding { system: "s".to_owned(), code: "c".to_owned(), display: Some("d".to_owned()), at: Location::new(&SourceFile::new("", ""), Span::new(0, 0)) },
        )]
        .into();
        let cases = [
            (Kind::Date(None), "2026-03-05", r#""2026-03-05""#),
            (Kind::Date(None), "2026-03-05 00:00:00", "no date as 2026-03-05"),
            (Kind::Date(None), "2026-02-29", "no date as 2026-03-05"),
            (Kind::Date(None), "0026-03-05", "no date as 2026-03-05"),
            (Kind::Date(us()), "3/5/2026", r#""2026-03-05""#),
            (Kind::Date(us()), "03/05/26", "no date as `%m/%d/%Y` has it"),
            (Kind::Date(us()), "2026-03-05", "no date as `%m/%d/%Y` has it"),
            (Kind::DateTime(None), "2026-03-05", r#""2026-03-05""#),
            (Kind::DateTime(None), "2026-03-05 14:30", r#""2026-03-05T14:30:00-05:00""#),
            (Kind::DateTime(None), "2026-07-05T14:30:15.250", r#""2026-07-05T14:30:15.250-04:00""#),
            (Kind::DateTime(None), "2026-03-05T14:30:00Z", r#""2026-03-05T09:30:00-05:00""#),
            (Kind::DateTime(None), "2026-11-01 01:30", r#""2026-11-01T01:30:00-04:00""#),
            (Kind::DateTime(None), "2026-03-08 02:30", "a time that the clocks left out when they were put forward"),
            (Kind::DateTime(None), "2026-02-01T05:30[Europe/Berlin]", r#""2026-01-31T23:30:00-05:00""#),
            (Kind::DateTime(None), "2026-03-29T02:30[Europe/Berlin]", "a time that the clocks left out when they were put forward"),
            (Kind::DateTime(None), "2026-02-01T05:30[Europe/Berlyn]", "no date or time as 2026-03-05 14:30"),
            (Kind::DateTime(None), "2026-02-01T05:30+02:00[Europe/Berlin]", "no date or time as 2026-03-05 14:30"),
            (Kind::DateTime(None), "yesterday at noon", "no date or time as 2026-03-05 14:30"),
            (Kind::DateTime(us_time()), "03/05/2026 02:30 PM", r#""2026-03-05T14:30:00-05:00""#),
            (Kind::DateTime(us()), "03/05/2026", r#""2026-03-05""#),
            (Kind::Code(map), " CLABSI ", r#"{"coding":[{"system":"s","code":"c","display":"d"}],"text":" CLABSI "}"#),
            (Kind::Code(BTreeMap::new()), "x", "none of the texts that its `map` names"),
            (Kind::Quantity("mg/dL".to_owned()), "007.50", r#"{"value":7.50,"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"mg/dL"}"#),
            (Kind::Quantity("mg/dL".to_owned()), "<5", "no number as 12.5"),
            (Kind::Decimal, "-1.50", "-1.50"),
            (Kind::Decimal, "1,5", "no number as 12.5"),
            (Kind::Decimal, "1e400", "no number as 12.5"),
            (Kind::Integer, "12", "12"),
            (Kind::Integer, "12.0", "no whole number"),
            (Kind::Boolean, "YES", "true"),
            (Kind::Boolean, "0", "false"),
            (Kind::Boolean, "maybe", "neither true nor false (or yes and no, 1 and 0)"),
            (Kind::Text, "a \"b\"", r#""a \"b\"""#),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(read(&kind, text), expected, "{kind:?} {text}");
        }
    }
}
