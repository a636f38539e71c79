//! Selectors: tuples, instances, lists, intervals.

use std::sync::Arc;

use super::{Frame, Outcome, Session};
use crate::cql::interval::{Interval, Point};
use crate::cql::operators::comparison;
use crate::cql::typed::{Expression, IntervalSelector, Kind};
use crate::cql::types::Type;
use crate::cql::value::{Code, Concept, Instance, Quantity, Ratio, Value, Vocabulary};

/// The point type of an interval's static type.
pub(super) fn point_of(ty: &Type) -> Option<Point> {
    Some(match ty {
        Type::Integer => Point::Integer,
        Type::Long => Point::Long,
        Type::Decimal => Point::Decimal,
        Type::Date => Point::Date,
        Type::DateTime => Point::DateTime,
        Type::Time => Point::Time,
        Type::Quantity => Point::Quantity,
        Type::Ratio => Point::Ratio,
        Type::String => Point::String,
        _ => return None,
    })
}

impl<'a> Session<'a> {
    pub(super) fn elements(&mut self, elements: &'a [(Arc<str>, Expression)], frame: &mut Frame) -> Outcome<Vec<(Arc<str>, Value)>> {
        elements.iter().map(|(name, expression)| Ok((name.clone(), self.expression(expression, frame)?))).collect()
    }

    /// An instance; of a System type its value.
    pub(super) fn instance(&mut self, expression: &Expression, class: &Arc<str>, elements: &'a [(Arc<str>, Expression)], frame: &mut Frame) -> Outcome {
        if expression.ty == Type::Quantity {
            return self.quantity(elements, frame);
        }
        let elements = self.elements(elements, frame)?;
        let instance = Instance { class: class.clone(), elements };
        let text = |name: &str| match instance.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        Ok(match expression.ty {
            Type::Ratio => match (instance.get("numerator"), instance.get("denominator")) {
                (Some(Value::Quantity(numerator)), Some(Value::Quantity(denominator))) => {
                    Value::Ratio(Arc::new(Ratio { numerator: (**numerator).clone(), denominator: (**denominator).clone() }))
                }
                _ => Value::Null,
            },
            Type::Code => {
                Value::Code(Arc::new(Code { code: text("code").unwrap_or_else(|| "".into()), system: text("system"), version: text("version"), display: text("display") }))
            }
            Type::Concept => {
                let codes = match instance.get("codes") {
                    Some(Value::List(codes)) => codes
                        .iter()
                        .filter_map(|code| match code {
                            Value::Code(code) => Some((**code).clone()),
                            _ => None,
                        })
                        .collect(),
                    Some(Value::Code(code)) => vec![(**code).clone()],
                    _ => Vec::new(),
                };
                Value::Concept(Arc::new(Concept { codes, display: text("display") }))
            }
            Type::ValueSet | Type::CodeSystem => {
                let reference = Arc::new(Vocabulary { id: text("id").unwrap_or_else(|| "".into()), version: text("version"), name: text("name") });
                if expression.ty == Type::ValueSet { Value::ValueSet(reference) } else { Value::CodeSystem(reference) }
            }
            _ => Value::Instance(Arc::new(instance)),
        })
    }

    /// The one of which there are many: every numeric result becomes one.
    fn quantity(&mut self, elements: &'a [(Arc<str>, Expression)], frame: &mut Frame) -> Outcome {
        let (mut number, mut unit) = (None, None);
        for (name, expression) in elements {
            match (&**name, self.expression(expression, frame)?) {
                ("value", value) => number = comparison::decimal(&value),
                ("unit", Value::String(text)) => unit = Some(text),
                _ => {}
            }
        }
        Ok(number.map_or(Value::Null, |value| Value::Quantity(Arc::new(Quantity { value, unit: unit.unwrap_or_else(|| "1".into()) }))))
    }

    pub(super) fn list(&mut self, items: &'a [Expression], frame: &mut Frame) -> Outcome {
        Ok(Value::list(self.values(items, frame)?))
    }

    /// Bounds between which there is nothing: written so, an error; from data, null, because one bad period must not stop a
    /// patient.
    pub(super) fn interval(&mut self, expression: &Expression, parts: &'a IntervalSelector, frame: &mut Frame) -> Outcome {
        let low = self.expression(&parts.low, frame)?;
        let low_closed = self.truth(&parts.low_closed, frame)?;
        let high = self.expression(&parts.high, frame)?;
        let high_closed = self.truth(&parts.high_closed, frame)?;
        // `Interval[null, null]` of no known point type has no bounds that it could reach. Where neither flag is known, it is made
        // of the parts of null: a conversion of null, which is null (CQL, "Implicit Conversions"). cql-execution makes an interval
        // without bounds of it, which by expected reports it is not: a request whose period is unknown is not active.
        // Nor does a period say anything of which neither end is known: a condition without onset and abatement, for example. Written with
        // two nulls of a type, it is all of the type (CQL, "Interval": the ends of the type's range); of data, the reference engine makes
        // null of it, and cql-execution nothing that a comparison could tell; by an expected report who has no other onset is not counted.
        let is_written = written_null(&parts.low) && written_null(&parts.high);
        let boundless = low.is_null() && high.is_null() && (expression.ty.point() == Some(&Type::Any) || !is_written);
        if boundless || (low_closed.is_none() && high_closed.is_none()) {
            return Ok(Value::Null);
        }
        let interval = Interval {
            low,
            low_closed: low_closed.unwrap_or(false),
            high,
            high_closed: high_closed.unwrap_or(false),
            point: expression.ty.point().and_then(point_of),
        };
        if interval.is_empty(&self.context) {
            let written = |expression: &Expression| matches!(&expression.kind, Kind::Literal(value) if !value.is_null());
            if written(&parts.low) && written(&parts.high) {
                return Err(self.fault_at(expression, "the interval is empty: no point lies between its bounds"));
            }
            return Ok(Value::Null);
        }
        Ok(Value::Interval(Arc::new(interval)))
    }
}

/// `null`, or `null as Integer`.
fn written_null(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::Literal(value) => value.is_null(),
        Kind::As { operand, .. } => written_null(operand),
        _ => false,
    }
}
