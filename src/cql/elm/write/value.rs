//! Constants as the selectors of ELM.

use rust_decimal::Decimal;
use serde_json::{Value as Json, json};

use super::Writer;
use crate::cql::elm::type_specifier::SYSTEM;
use crate::cql::types::Type;
use crate::cql::value::{Code, Quantity, Value};
use crate::diagnostic::Span;

/// Minutes of an hour, for offsets.
const HOUR_MINUTES: i64 = 60;

fn literal(ty: &str, text: impl ToString) -> Json {
    json!({ "type": "Literal", "valueType": format!("{{{SYSTEM}}}{ty}"), "value": text.to_string() })
}

pub(super) fn text(text: &str) -> Json {
    literal("String", text)
}

pub(super) fn integer(number: i32) -> Json {
    literal("Integer", number)
}

/// A decimal as a JSON number.
fn number(value: &Decimal) -> Json {
    serde_json::from_str(&value.to_string()).unwrap_or_default()
}

fn quantity(quantity: &Quantity) -> Json {
    json!({ "type": "Quantity", "value": number(&quantity.value), "unit": &*quantity.unit })
}

/// A code as an instance: a selector would need the code system to be declared under a name.
fn code(code: &Code) -> Json {
    let parts = [("code", Some(&code.code)), ("system", code.system.as_ref()), ("version", code.version.as_ref()), ("display", code.display.as_ref())];
    let elements: Vec<Json> = parts.iter().filter_map(|(name, part)| Some(json!({ "name": name, "value": text((*part)?) }))).collect();
    json!({ "type": "Instance", "classType": format!("{{{SYSTEM}}}Code"), "element": elements })
}

/// A selector with those components that are known.
fn components(ty: &str, parts: &[(&str, Option<i32>)]) -> Json {
    let mut node = json!({ "type": ty });
    for (name, part) in parts {
        if let Some(part) = part {
            node[*name] = integer(*part);
        }
    }
    node
}

impl Writer<'_> {
    /// The null of a type.
    pub(super) fn null(&self, ty: &Type) -> Json {
        match ty {
            Type::Any => json!({ "type": "Null" }),
            ty => json!({ "type": "As", "operand": { "type": "Null" }, "asTypeSpecifier": self.specifier(ty) }),
        }
    }

    pub(super) fn value(&mut self, value: &Value, ty: &Type, at: Span) -> Json {
        match value {
            Value::Null => self.null(ty),
            Value::Boolean(truth) => literal("Boolean", truth),
            Value::Integer(number) => integer(*number),
            Value::Long(number) => literal("Long", number),
            Value::Decimal(number) => literal("Decimal", number),
            Value::String(own) => text(own),
            Value::Date(date) => components("Date", &[("year", Some(date.year())), ("month", date.month()), ("day", date.day())]),
            Value::Time(time) => components("Time", &[("hour", Some(time.hour())), ("minute", time.minute()), ("second", time.second()), ("millisecond", time.millisecond())]),
            Value::DateTime(point) => {
                let (date, time) = (point.date(), point.time());
                let part = |read: fn(&crate::cql::value::Time) -> Option<i32>| time.as_ref().and_then(read);
                let mut node = components(
                    "DateTime",
                    &[
                        ("year", Some(date.year())),
                        ("month", date.month()),
                        ("day", date.day()),
                        ("hour", part(|time| Some(time.hour()))),
                        ("minute", part(|time| time.minute())),
                        ("second", part(|time| time.second())),
                        ("millisecond", part(|time| time.millisecond())),
                    ],
                );
                if let Some(offset) = point.offset() {
                    node["timezoneOffset"] = literal("Decimal", Decimal::from(offset) / Decimal::from(HOUR_MINUTES));
                }
                node
            }
            Value::Quantity(own) => quantity(own),
            Value::Ratio(ratio) => json!({ "type": "Ratio", "numerator": quantity(&ratio.numerator), "denominator": quantity(&ratio.denominator) }),
            Value::Code(own) => code(own),
            Value::Concept(concept) => {
                let codes: Vec<Json> = concept.codes.iter().map(code).collect();
                let mut elements = vec![json!({ "name": "codes", "value": { "type": "List", "element": codes } })];
                elements.extend(concept.display.as_ref().map(|display| json!({ "name": "display", "value": text(display) })));
                json!({ "type": "Instance", "classType": format!("{{{SYSTEM}}}Concept"), "element": elements })
            }
            other => self.refused(&format!("a constant of type `{}`", other.type_name()), at),
        }
    }
}
