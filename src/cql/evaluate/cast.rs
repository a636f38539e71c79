//! `as`, `cast` and `is`: run-time types against the model's classes and the System types.

use super::{Frame, Outcome, Session};
use crate::cql::typed::Expression;
use crate::cql::types::Type;
use crate::cql::value::Value;

impl<'a> Session<'a> {
    pub(super) fn cast(&mut self, expression: &Expression, operand: &'a Expression, target: &Type, strict: bool, frame: &mut Frame) -> Outcome {
        let value = self.expression(operand, frame)?;
        if value.is_null() || self.is_of(&value, target) {
            return Ok(value);
        }
        if strict {
            let found = self.type_of(&value);
            return Err(self.fault_at(expression, format!("cannot cast `{found}` to `{target}`")));
        }
        Ok(Value::Null)
    }

    /// The run-time type, for messages.
    fn type_of(&self, value: &Value) -> String {
        match value {
            Value::Node(_, class) => self.program.class_name(*class).unwrap_or("element of the record").to_owned(),
            Value::Instance(instance) => instance.class.to_string(),
            other => other.type_name().to_owned(),
        }
    }

    /// Whether a value that is not null is of a type or one of its subtypes.
    pub(super) fn is_of(&self, value: &Value, target: &Type) -> bool {
        match target {
            Type::Any => true,
            Type::Choice(types) => types.iter().any(|ty| self.is_of(value, ty)),
            Type::Class(class) => match value {
                Value::Node(_, own) => self.program.is_subclass(*own, class),
                Value::Instance(instance) => match self.program.class_id(&instance.class) {
                    Some(own) => self.program.is_subclass(own, class),
                    None => instance.class == *class,
                },
                _ => false,
            },
            Type::List(item) => match value {
                Value::List(items) => items.iter().all(|value| value.is_null() || self.is_of(value, item)),
                _ => false,
            },
            Type::Interval(point) => match value {
                Value::Interval(interval) => match interval.point {
                    Some(own) => super::select::point_of(point).is_none_or(|point| point == own),
                    None => [&interval.low, &interval.high].into_iter().all(|bound| bound.is_null() || self.is_of(bound, point)),
                },
                _ => false,
            },
            Type::Tuple(elements) => match value {
                Value::Tuple(tuple) => elements.iter().all(|(name, _)| tuple.get(name).is_some()),
                _ => false,
            },
            Type::Vocabulary => matches!(value, Value::ValueSet(_) | Value::CodeSystem(_)),
            _ => matches!(
                (target, value),
                (Type::Boolean, Value::Boolean(_))
                    | (Type::Integer, Value::Integer(_))
                    | (Type::Long, Value::Long(_))
                    | (Type::Decimal, Value::Decimal(_))
                    | (Type::String, Value::String(_))
                    | (Type::Date, Value::Date(_))
                    | (Type::DateTime, Value::DateTime(_))
                    | (Type::Time, Value::Time(_))
                    | (Type::Quantity, Value::Quantity(_))
                    | (Type::Ratio, Value::Ratio(_))
                    | (Type::Code, Value::Code(_))
                    | (Type::Concept, Value::Concept(_))
                    | (Type::CodeSystem, Value::CodeSystem(_))
                    | (Type::ValueSet, Value::ValueSet(_))
            ),
        }
    }
}
