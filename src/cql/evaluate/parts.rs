//! The parts of values: `Children`, `Descendents`, and FHIRPath's `repeat`.

use std::collections::VecDeque;

use super::query::set;
use super::{Frame, ITEMS_MAX, Outcome, Session};
use crate::cql::operators::operator;
use crate::cql::operators::types::{items, parts_of};
use crate::cql::typed::{Expression, Repeat};
use crate::cql::value::{ClassId, Value};
use crate::fhir::record::NodeId;

impl<'a> Session<'a> {
    /// The parts of a value, one level down or all below it; of a list, those of its items.
    pub(super) fn parts(&mut self, expression: &'a Expression, whole: Value, all: bool) -> Outcome {
        if whole.is_null() {
            return Ok(Value::Null);
        }
        let mut found: Vec<Value> = Vec::new();
        let mut pending: Vec<Value> = Vec::new();
        for item in items(whole) {
            pending.extend(self.direct_parts(expression, &item)?);
        }
        pending.reverse();
        while let Some(part) = pending.pop() {
            self.count_step(expression)?;
            if found.len() >= ITEMS_MAX {
                return Err(self.fault_at(expression, format!("a list of more than {ITEMS_MAX} items")));
            }
            if all {
                pending.extend(self.direct_parts(expression, &part)?.into_iter().rev());
            }
            found.push(part);
        }
        Ok(Value::list(found))
    }

    fn direct_parts(&self, expression: &Expression, value: &Value) -> Outcome<Vec<Value>> {
        match value {
            Value::Node(node, class) => self.node_parts(expression, *node, *class),
            other => Ok(parts_of(other)),
        }
    }

    /// The elements that the model gives the class, in its order.
    fn node_parts(&self, expression: &Expression, node: NodeId, class: ClassId) -> Outcome<Vec<Value>> {
        let tree = self.program.tree();
        let (Some(model), Some(class)) = (&tree.model, self.program.class_name(class)) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in model.element_names(class) {
            if let Some((element, _)) = model.resolve(class, name) {
                found.extend(items(self.node_property(expression, node, &element)?));
            }
        }
        Ok(found)
    }

    /// What the element expression makes of the items, and of what it has made of them, until nothing new comes.
    pub(super) fn repeat(&mut self, expression: &'a Expression, repeat: &'a Repeat, frame: &mut Frame) -> Outcome {
        let first = self.expression(&repeat.source.expression, frame)?;
        if first.is_null() {
            return Ok(Value::Null);
        }
        let mut pending: VecDeque<Value> = items(first).into();
        let mut found: Vec<Value> = Vec::new();
        let mut number = 0_i32;
        while let Some(item) = pending.pop_front() {
            set(frame, repeat.source.slot, item);
            if let Some(index) = repeat.source.index {
                set(frame, index, Value::Integer(number));
            }
            number = number.saturating_add(1);
            for value in items(self.expression(&repeat.element, frame)?) {
                if self.is_among(expression, &value, &found)? {
                    continue;
                }
                found.push(value.clone());
                pending.push_back(value);
            }
        }
        Ok(Value::list(found))
    }

    /// Whether a value equals one of those found before. Each comparison is a step: with very many there is an end.
    fn is_among(&mut self, expression: &'a Expression, value: &Value, found: &[Value]) -> Outcome<bool> {
        let Some(equal) = operator("Equal") else { return Ok(false) };
        for own in found {
            self.count_step(expression)?;
            let same = self.apply(equal, &[own.clone(), value.clone()], None);
            if same.map_err(|fault| self.fault_at(expression, fault.message))?.truth() == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
