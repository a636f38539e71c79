//! Values of parameters as people write them beside a library: by the type that the parameter is declared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::date_time::{Date, DateTime};
use super::typed::{Expression, Kind};
use super::types::Type;
use super::value::{Quantity, Value};
use super::{Environment, Libraries, Models, Session, compile};
use crate::diagnostic::SourceFile;
use crate::fhir::record::{Record, Shape};
use crate::terminology::ValueSets;
use crate::terminology::units::Units;

/// The value of that type: a plain one as YAML and command lines have it, any other as CQL. `None` for what is none.
pub fn value(text: &str, ty: &Type) -> Option<Value> {
    match ty {
        Type::Boolean => text.parse().ok().map(Value::Boolean),
        Type::Integer => text.parse().ok().map(Value::Integer),
        Type::Long => text.parse().ok().map(Value::Long),
        Type::Decimal => text.parse().ok().map(Value::Decimal),
        Type::String => Some(Value::string(text)),
        Type::Date => Date::parse(text).map(Value::Date),
        Type::DateTime => DateTime::parse_fhir(text).map(Value::DateTime),
        Type::Quantity => quantity(text),
        _ => constant(text, ty),
    }
}

/// A number and its unit. A number alone is none: nobody would see that it is compared with no quantity that has a unit.
fn quantity(text: &str) -> Option<Value> {
    let (number, unit) = text.split_once(' ')?;
    let unit = unit.trim().trim_matches('\'');
    let value = number.parse().ok().filter(|_| Units::new().is_valid(unit))?;
    Some(Value::Quantity(Arc::new(Quantity { value, unit: Arc::from(unit) })))
}

/// An expression that says the same of every patient at any time.
fn constant(text: &str, ty: &Type) -> Option<Value> {
    let source = SourceFile::new("parameter", format!("library P\ndefine function \"Value\"() returns {ty}:\n{text}\n"));
    let (program, _) = compile(&[source], &Libraries::default(), &Models::default());
    let program = program.filter(|program| program.functions("P").len() == 1 && program.defines("P").is_empty())?;
    program.tree().functions.first()?.body.as_ref().filter(|body| is_constant(body))?;
    let now = DateTime::from_timestamp(jiff::Timestamp::UNIX_EPOCH, &TimeZone::UTC);
    let environment = Environment { parameters: BTreeMap::new(), now, zone: TimeZone::UTC, value_sets: Arc::new(ValueSets::new()), units: Arc::new(Units::new()) };
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    let value = Session::new(&program, &environment, &record).call(program.functions("P").first()?.0, Vec::new());
    value.ok().filter(|value| !value.is_null())
}

fn is_constant(expression: &Expression) -> bool {
    let is_of_the_run = matches!(&expression.kind, Kind::Operator { operator, .. } if ["Now", "Today", "TimeOfDay"].contains(&operator.name));
    !is_of_the_run && expression.children().into_iter().all(is_constant)
}

/// How a value of the type is written.
pub fn help(ty: &Type) -> String {
    let example = match ty {
        Type::Boolean => "`true` or `false`".to_owned(),
        Type::Integer | Type::Long => "`21`".to_owned(),
        Type::Decimal => "`0.5`".to_owned(),
        Type::String => "a text".to_owned(),
        Type::Date => "`2025-01-31`".to_owned(),
        Type::DateTime => "`2025-01-31T10:30:00.0`".to_owned(),
        Type::Quantity => "`13 'mo'`, or `13 '1'` for what has no unit".to_owned(),
        Type::Class(name) => return format!("no value of `{name}` can be given: declare the parameter with a type of CQL's own, as `System.Quantity`"),
        ty => match literals(ty) {
            Some(literals) => format!("`{literals}`"),
            None => format!("an expression that gives {ty}"),
        },
    };
    format!("write it as in CQL: {example}")
}

/// Such a value in CQL.
fn literals(ty: &Type) -> Option<String> {
    Some(match ty {
        Type::Interval(point) => {
            let [low, high] = two(point)?;
            format!("Interval[{low}, {high}]")
        }
        Type::List(item) => {
            let [one, other] = two(item)?;
            format!("{{ {one}, {other} }}")
        }
        ty => two(ty)?[0].to_owned(),
    })
}

fn two(ty: &Type) -> Option<[&'static str; 2]> {
    Some(match ty {
        Type::Integer => ["18", "64"],
        Type::Long => ["18L", "64L"],
        Type::Decimal => ["0.5", "1.5"],
        Type::String => ["'a'", "'b'"],
        Type::Date => ["@2025-01-01", "@2025-12-31"],
        Type::DateTime => ["@2025-01-01T00:00:00.000", "@2025-12-31T23:59:59.999"],
        Type::Time => ["@T08:30", "@T17:00"],
        Type::Quantity => ["5 'mg'", "10 'mg'"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::show;

    #[test]
    fn values_are_read_by_the_declared_type() {
        let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
        let interval = |point| Type::Interval(Arc::new(point));
        for (text, ty, expected) in [
            ("21", Type::Integer, Some("21")),
            ("13 'mo'", Type::Quantity, Some("13 'mo'")),
            ("13 mo", Type::Quantity, Some("13 'mo'")),
            ("13 months", Type::Quantity, Some("13 'months'")),
            ("13 '1'", Type::Quantity, Some("13 '1'")),
            ("13", Type::Quantity, None),
            ("13 'pounds'", Type::Quantity, None),
            ("@T08:30", Type::Time, Some("@T08:30")),
            ("Interval[18, 64]", interval(Type::Integer), Some("Interval[18, 64]")),
            ("Interval[18, 64]", interval(Type::Decimal), Some("Interval[18.0, 64.0]")),
            ("Interval[18, 1]", interval(Type::Integer), None),
            ("Interval[18, 64] define \"More\": 1", interval(Type::Integer), None),
            ("Interval[Today(), @2099-01-01]", interval(Type::Date), None),
            ("18", interval(Type::Integer), None),
            ("{ 'a', 'b' }", Type::List(Arc::new(Type::String)), Some("{'a', 'b'}")),
            ("1", Type::class("FHIR.Quantity"), None),
        ] {
            let found = value(text, &ty).map(|value| show::text(&value, &record));
            assert_eq!(found.as_deref(), expected, "{text} as {ty}");
        }
    }

    #[test]
    fn every_example_is_a_value_of_its_type() {
        for point in [Type::Integer, Type::Long, Type::Decimal, Type::Date, Type::DateTime, Type::Time, Type::Quantity] {
            for ty in [Type::Interval(Arc::new(point.clone())), Type::List(Arc::new(point))] {
                assert!(value(&literals(&ty).unwrap(), &ty).is_some(), "{ty}");
            }
        }
    }
}
