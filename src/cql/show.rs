//! Values for people and programs: as CQL text, as JSON.

use serde_json::{Map, Value as Json, json};

use super::value::{Code, Quantity, Value, Vocabulary};
use crate::fhir::record::{NodeId, NodeKind, Record};

/// Deepest nesting that is shown.
const NESTING_MAX: usize = 64;

/// A value as JSON: numbers exact, dates and times as ISO text, model elements as FHIR JSON, what CQL structures as objects
/// of its element names. Nothing is nested deeper than 64: what is deeper is null.
pub fn json(value: &Value, record: &Record) -> Json {
    json_at(value, record, 0)
}

fn json_at(value: &Value, record: &Record, nesting: usize) -> Json {
    if nesting > NESTING_MAX {
        return Json::Null;
    }
    let inner = |value: &Value| json_at(value, record, nesting + 1);
    match value {
        Value::Null => Json::Null,
        Value::Boolean(truth) => Json::Bool(*truth),
        Value::Integer(number) => json!(number),
        Value::Long(number) => json!(number),
        Value::Decimal(number) => number_of(&number.to_string()),
        Value::String(text) => Json::String(text.to_string()),
        Value::Date(date) => Json::String(date.to_string()),
        Value::DateTime(date_time) => Json::String(date_time.to_string()),
        Value::Time(time) => Json::String(time.to_string()),
        Value::Quantity(quantity) => quantity_json(quantity),
        Value::Ratio(ratio) => json!({ "numerator": quantity_json(&ratio.numerator), "denominator": quantity_json(&ratio.denominator) }),
        Value::Code(code) => code_json(code),
        Value::Concept(concept) => {
            let mut object = Map::new();
            object.insert("codes".into(), concept.codes.iter().map(code_json).collect());
            insert_text(&mut object, "display", concept.display.as_deref());
            Json::Object(object)
        }
        Value::CodeSystem(vocabulary) | Value::ValueSet(vocabulary) => vocabulary_json(vocabulary),
        Value::Interval(interval) => json!({
            "low": inner(&interval.low), "lowClosed": interval.low_closed,
            "high": inner(&interval.high), "highClosed": interval.high_closed,
        }),
        Value::List(items) => items.iter().map(inner).collect(),
        Value::Tuple(tuple) => tuple.elements.iter().map(|(name, value)| (name.to_string(), inner(value))).collect(),
        Value::Instance(instance) => instance.elements.iter().map(|(name, value)| (name.to_string(), inner(value))).collect(),
        Value::Node(node, _) => node_json(*node, record, nesting),
    }
}

/// The digits as they are; text that is no number stays text.
fn number_of(digits: &str) -> Json {
    serde_json::from_str(digits).unwrap_or_else(|_| Json::String(digits.to_owned()))
}

fn quantity_json(quantity: &Quantity) -> Json {
    json!({ "value": number_of(&quantity.value.to_string()), "unit": &*quantity.unit })
}

fn code_json(code: &Code) -> Json {
    let mut object = Map::new();
    object.insert("code".into(), Json::String(code.code.to_string()));
    insert_text(&mut object, "system", code.system.as_deref());
    insert_text(&mut object, "version", code.version.as_deref());
    insert_text(&mut object, "display", code.display.as_deref());
    Json::Object(object)
}

fn vocabulary_json(vocabulary: &Vocabulary) -> Json {
    let mut object = Map::new();
    object.insert("id".into(), Json::String(vocabulary.id.to_string()));
    insert_text(&mut object, "version", vocabulary.version.as_deref());
    insert_text(&mut object, "name", vocabulary.name.as_deref());
    Json::Object(object)
}

fn insert_text(object: &mut Map<String, Json>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        object.insert(name.into(), Json::String(text.into()));
    }
}

fn node_json(node: NodeId, record: &Record, nesting: usize) -> Json {
    if nesting > NESTING_MAX {
        return Json::Null;
    }
    match record.kind(node) {
        NodeKind::Object => {
            let field = |field: NodeId| Some((record.name(field)?.to_owned(), node_json(field, record, nesting + 1)));
            record.fields(node).filter_map(field).collect()
        }
        NodeKind::Array => record.items(node).map(|item| node_json(item, record, nesting + 1)).collect(),
        NodeKind::Boolean => record.boolean(node).into(),
        NodeKind::Number => record.literal(node).map_or(Json::Null, number_of),
        NodeKind::Text => record.text(node).into(),
        NodeKind::Null => Json::Null,
    }
}

/// A value as CQL text, on one line; model elements as FHIR JSON.
pub fn text(value: &Value, record: &Record) -> String {
    text_at(value, record, 0)
}

fn text_at(value: &Value, record: &Record, nesting: usize) -> String {
    if nesting > NESTING_MAX {
        return "…".to_owned();
    }
    let inner = |value: &Value| text_at(value, record, nesting + 1);
    let elements = |elements: &[(std::sync::Arc<str>, Value)]| elements.iter().map(|(name, value)| format!("{name}: {}", inner(value))).collect::<Vec<_>>().join(", ");
    match value {
        Value::Null => "null".to_owned(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Long(number) => format!("{number}L"),
        Value::Decimal(number) if number.scale() == 0 => format!("{number}.0"),
        Value::Decimal(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Date(date) => format!("@{date}"),
        Value::DateTime(date_time) => {
            let text = date_time.to_string();
            if text.contains('T') { format!("@{text}") } else { format!("@{text}T") }
        }
        Value::Time(time) => format!("@T{}", time.to_string().trim_start_matches('T')),
        Value::Quantity(quantity) => quantity_text(quantity),
        Value::Ratio(ratio) => format!("{}:{}", quantity_text(&ratio.numerator), quantity_text(&ratio.denominator)),
        Value::Code(code) => code_text(code),
        Value::Concept(concept) => format!("Concept {{ {} }}", concept.codes.iter().map(code_text).collect::<Vec<_>>().join(", ")),
        Value::CodeSystem(vocabulary) => format!("CodeSystem {{ id: {} }}", quoted(&vocabulary.id)),
        Value::ValueSet(vocabulary) => format!("ValueSet {{ id: {} }}", quoted(&vocabulary.id)),
        Value::Interval(interval) => {
            let (open, close) = (if interval.low_closed { '[' } else { '(' }, if interval.high_closed { ']' } else { ')' });
            format!("Interval{open}{}, {}{close}", inner(&interval.low), inner(&interval.high))
        }
        Value::List(items) => format!("{{{}}}", items.iter().map(inner).collect::<Vec<_>>().join(", ")),
        Value::Tuple(tuple) => format!("Tuple {{ {} }}", elements(&tuple.elements)),
        Value::Instance(instance) => format!("{} {{ {} }}", instance.class, elements(&instance.elements)),
        Value::Node(node, _) => node_json(*node, record, nesting).to_string(),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

/// A name as CQL text, whatever is in it.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn quantity_text(quantity: &Quantity) -> String {
    format!("{} {}", quantity.value, quoted(&quantity.unit))
}

fn code_text(code: &Code) -> String {
    match &code.system {
        Some(system) => format!("Code {{ code: {}, system: {} }}", quoted(&code.code), quoted(system)),
        None => format!("Code {{ code: {} }}", quoted(&code.code)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cql::value::{Date, DateTime};
    use crate::fhir::record::Shape;

    #[test]
    fn values_show_as_the_cql_that_makes_them() {
        let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
        let decimal = |text: &str| text.parse().expect("a decimal");
        let table = [
            (Value::Null, "null", "null"),
            (Value::Integer(3), "3", "3"),
            (Value::Long(3), "3L", "3"),
            (Value::Decimal(decimal("1.50")), "1.50", "1.50"),
            (Value::string("it's"), "'it\\'s'", "\"it's\""),
            (Value::Date(Date::parse("2012-02").expect("a date")), "@2012-02", "\"2012-02\""),
            (Value::DateTime(DateTime::parse_cql("@2012T").expect("a date and time")), "@2012T", "\"2012\""),
            (Value::quantity(decimal("5"), "mg"), "5 'mg'", r#"{"value":5,"unit":"mg"}"#),
            (Value::list(vec![Value::Boolean(true), Value::Null]), "{true, null}", "[true,null]"),
            (Value::tuple(vec![(Arc::from("a"), Value::Integer(1))]), "Tuple { a: 1 }", r#"{"a":1}"#),
        ];
        for (value, expected, as_json) in table {
            assert_eq!(text(&value, &record), expected);
            assert_eq!(json(&value, &record).to_string(), as_json, "{expected}");
        }
    }
}
