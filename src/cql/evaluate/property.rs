//! Elements of nodes, tuples, instances and the structured System types.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Outcome, Session};
use crate::cql::operators::comparison;
use crate::cql::plan::Vital;
use crate::cql::typed::{Alternative, Element, Expression};
use crate::cql::types::Type;
use crate::cql::value::{ClassId, Date, DateTime, Time, Value};
use crate::fhir::record::{NodeId, NodeKind};
use crate::fhir::required;

impl<'a> Session<'a> {
    pub(super) fn property(&self, expression: &Expression, source: &Value, element: &Element) -> Outcome {
        let name = &*element.name;
        let optional_text = |text: &Option<Arc<str>>| text.clone().map_or(Value::Null, Value::String);
        Ok(match (source, name) {
            (Value::Null, _) => Value::Null,
            (Value::Node(node, _), _) => return self.node_property(expression, *node, element),
            (Value::Tuple(tuple), _) => tuple.get(name).cloned().unwrap_or_default(),
            (Value::Instance(instance), _) => instance.get(name).cloned().unwrap_or_default(),
            (Value::List(items), _) => return self.list_property(expression, items, element),
            (Value::Quantity(quantity), "value") => Value::Decimal(quantity.value),
            (Value::Quantity(quantity), "unit") => Value::String(quantity.unit.clone()),
            (Value::Ratio(ratio), "numerator") => Value::Quantity(Arc::new(ratio.numerator.clone())),
            (Value::Ratio(ratio), "denominator") => Value::Quantity(Arc::new(ratio.denominator.clone())),
            (Value::Code(code), "code") => Value::String(code.code.clone()),
            (Value::Code(code), "system") => optional_text(&code.system),
            (Value::Code(code), "version") => optional_text(&code.version),
            (Value::Code(code), "display") => optional_text(&code.display),
            (Value::Concept(concept), "codes") => Value::list(concept.codes.iter().map(|code| Value::Code(Arc::new(code.clone()))).collect()),
            (Value::Concept(concept), "display") => optional_text(&concept.display),
            (Value::Interval(interval), "low") => interval.low.clone(),
            (Value::Interval(interval), "high") => interval.high.clone(),
            (Value::Interval(interval), "lowClosed") => Value::Boolean(interval.low_closed),
            (Value::Interval(interval), "highClosed") => Value::Boolean(interval.high_closed),
            (Value::ValueSet(set) | Value::CodeSystem(set), "id") => Value::String(set.id.clone()),
            (Value::ValueSet(set) | Value::CodeSystem(set), "version") => optional_text(&set.version),
            (Value::ValueSet(set) | Value::CodeSystem(set), "name") => optional_text(&set.name),
            // A primitive that is a System value already is its own value.
            (other, "value") => other.clone(),
            (other, _) => {
                let found = other.type_name();
                return Err(self.fault_at(expression, format!("a value of type `{found}` has no element `{name}`")));
            }
        })
    }

    /// The element of every item, in one list.
    fn list_property(&self, expression: &Expression, items: &[Value], element: &Element) -> Outcome {
        let mut all = Vec::new();
        for item in items {
            match self.property(expression, item, element)? {
                Value::Null => {}
                Value::List(inner) => all.extend(inner.iter().cloned()),
                value => all.push(value),
            }
        }
        Ok(Value::list(all))
    }

    pub(super) fn node_property(&self, expression: &Expression, node: NodeId, element: &Element) -> Outcome {
        let record = self.context.record;
        match element.alternatives.as_slice() {
            [] => {
                let message = format!("element `{}` is not resolved to a field of the model", element.name);
                Err(self.fault_at(expression, message))
            }
            [only] if only.field.is_empty() => Ok(self.primitive(node, &only.ty)),
            alternatives => {
                let found = alternatives.iter().find_map(|alternative| record.get(node, &alternative.field).map(|child| (child, alternative)));
                if found.is_none() {
                    // As later versions of FHIR write some of them.
                    element.choice().and_then(|name| record.get(node, name)).into_iter().for_each(|odd| self.note_unreadable(odd, None));
                }
                Ok(found.map_or(Value::Null, |(child, alternative)| self.child(child, alternative, element.list)))
            }
        }
    }

    /// A field's value: a list of its items, or the one item. One item alone is read either way; of several nobody knows which one
    /// is meant.
    fn child(&self, child: NodeId, alternative: &Alternative, list: bool) -> Value {
        let mut items = self.context.record.items(child).map(|item| self.node_value(item, &alternative.ty));
        if list {
            return Value::list(items.collect());
        }
        let first = items.next().unwrap_or_default();
        if items.next().is_some() {
            self.note_unreadable(child, None);
            return Value::Null;
        }
        first
    }

    /// A node as a value of its declared type; a resource as a value of its own type.
    pub(super) fn node_value(&self, node: NodeId, ty: &Type) -> Value {
        let record = self.context.record;
        if record.kind(node) == NodeKind::Null && record.get(node, "extension").is_none() {
            return Value::Null;
        }
        let Type::Class(class) = ty else { return self.primitive(node, ty) };
        let declared = self.program.class_id(class);
        let id = match declared.map(|id| self.program.vital(id)) {
            // What may be any resource is of its own class.
            None | Some(Vital::Nothing) => self.own_class(node, class).or(declared),
            Some(_) => declared,
        };
        match id {
            Some(class) if self.is_readable(node, self.program.vital(class)) => Value::Node(node, class),
            _ => Value::Null,
        }
    }

    /// The class of a resource by its type, in the model of a class.
    fn own_class(&self, node: NodeId, class: &str) -> Option<ClassId> {
        let resource_type = self.context.record.resource_type(node)?;
        self.program.class_id(&format!("{}.{resource_type}", class.split('.').next()?))
    }

    /// Whether an element can be believed: [`Vital`].
    fn is_readable(&self, node: NodeId, vital: &Vital) -> bool {
        let record = self.context.record;
        let kind = record.kind(node);
        let is_value = |node: NodeId, ty: &Type| record.kind(node) == NodeKind::Null || !self.primitive(node, ty).is_null();
        let (is_right, meant) = match vital {
            Vital::Nothing => return true,
            // Noted where it is read.
            Vital::Scalar(ty) => return is_value(node, ty),
            Vital::Text => (record.literal(node).is_some(), None),
            Vital::Code(codes) => match record.text(node) {
                Some(text) if codes.contains(&text) => return true,
                Some(text) => (false, required::meant(codes, text)),
                None => (false, None),
            },
            Vital::Fields => (kind == NodeKind::Object, None),
            Vital::Coding => (kind == NodeKind::Object && record.get(node, "coding").is_none(), None),
            Vital::Bounds(bounds, ty) if kind == NodeKind::Object => {
                let bound = |path: &[&str]| path.iter().try_fold(node, |node, name| record.get(node, name)).filter(|bound| record.kind(*bound) != NodeKind::Null);
                // Both are looked at, so that both are told.
                let values = bounds.map(|path| bound(path).map(|bound| self.primitive(bound, ty)));
                if values.iter().flatten().any(Value::is_null) {
                    return false;
                }
                (!self.is_inverted(&values), None)
            }
            Vital::Bounds(..) => (false, None),
        };
        // An element without a value may have extensions.
        let is_readable = is_right || kind == NodeKind::Null;
        if !is_readable {
            self.note_unreadable(node, meant);
        }
        is_readable
    }

    /// Whether a period ends before it begins, which FHIR forbids (`per-1`). Two numbers of a Range may be in different units.
    fn is_inverted(&self, bounds: &[Option<Value>; 2]) -> bool {
        match bounds {
            [Some(start @ Value::DateTime(_)), Some(end)] => comparison::order(start, end, None, &self.context) == Some(Ordering::Greater),
            _ => false,
        }
    }

    /// Notes that a value stands here that was asked for and means nothing, and what was probably meant.
    pub(super) fn note_unreadable(&self, node: NodeId, meant: Option<&'static str>) {
        self.unreadable.borrow_mut().insert(node, meant);
    }

    /// A JSON scalar as a System value; null, and noted, when it is no valid one. What is written in UTC is meant in the zone.
    pub(super) fn primitive(&self, node: NodeId, ty: &Type) -> Value {
        let value = self.scalar(node, ty);
        if value.is_null() && self.context.record.kind(node) != NodeKind::Null {
            self.note_unreadable(node, None);
        }
        value
    }

    /// What is written: FHIR has numbers and Booleans as JSON has them, not in texts.
    fn scalar(&self, node: NodeId, ty: &Type) -> Value {
        let record = self.context.record;
        let text = record.literal(node);
        let digits = || text.filter(|_| record.kind(node) == NodeKind::Number);
        let value = match ty {
            Type::Boolean => record.boolean(node).map(Value::Boolean),
            Type::Integer => digits().and_then(|text| text.parse().ok()).map(Value::Integer),
            Type::Long => digits().and_then(|text| text.parse().ok()).map(Value::Long),
            Type::Decimal => record.number(node).map(Value::Decimal),
            Type::Date => text.and_then(Date::parse_fhir).map(Value::Date),
            Type::DateTime => text.and_then(DateTime::parse_fhir).map(|at| Value::DateTime(at.of_utc_in(self.context.zone))),
            Type::Time => text.and_then(Time::parse).map(Value::Time),
            _ => text.map(|text| Value::String(self.texts.borrow_mut().shared(text))),
        };
        value.unwrap_or_default()
    }
}

/// Texts that were read last: systems, codes, units and statuses come again and again, and sharing one costs less than another copy.
#[derive(Default)]
pub(super) struct Texts([Option<Arc<str>>; Texts::ROOM]);

impl Texts {
    const ROOM: usize = 32;

    fn shared(&mut self, text: &str) -> Arc<str> {
        let bytes = text.as_bytes();
        let last = bytes.last().copied().map_or(0, usize::from);
        let Some(place) = self.0.get_mut((bytes.len() + last) % Texts::ROOM) else { return Arc::from(text) };
        match place {
            Some(known) if **known == *text => known.clone(),
            _ => place.insert(Arc::from(text)).clone(),
        }
    }
}
