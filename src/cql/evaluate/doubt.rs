//! Values that are documented and cannot be used: of a unit that does not compare, with a comparator, a number written as a text.

use std::collections::BTreeSet;

use super::reason::DESCENT_MAX;
use super::{Frame, Session};
use crate::cql::operators::Operator;
use crate::cql::typed::{Expression, Kind};
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::fhir::record::{Keep, NodeId};
use crate::terminology::systems;
use crate::terminology::units::shown_unit;

/// The system of UCUM's units.
const UCUM: &str = "http://unitsofmeasure.org";
/// Operators that are null for quantities of different kinds.
const COMPARING: [&str; 10] = ["Equal", "NotEqual", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "In", "ProperIn", "Contains", "ProperContains"];

/// Elements of a choice that hold what is documented in the place of a quantity.
const OTHER_TYPES: [&str; 3] = ["valueString", "valueInteger", "valueCodeableConcept"];

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DoubtKind {
    /// It has a comparator, as `> 600 mg/dL`: how large it is is not known.
    Comparator,
    /// Its unit cannot be compared with the one that it was compared with, or is none.
    UnlikeUnit,
    /// Its unit converts to the one that it was compared with, and may be of another scale; or it has none.
    OtherScale,
    /// It is of another type than a quantity, with which it was compared.
    OtherType,
}

impl DoubtKind {
    /// Its name in reports and lists.
    pub fn word(self) -> &'static str {
        match self {
            DoubtKind::Comparator => "comparator",
            DoubtKind::UnlikeUnit => "unlike-unit",
            DoubtKind::OtherScale => "other-scale",
            DoubtKind::OtherType => "other-type",
        }
    }
}

/// A kind of value that was asked for and could not be used as it stands. Names codes and units, never values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// What is wrong.
    pub kind: DoubtKind,
    /// The element, `Observation.valueQuantity`; of what was computed, the place in the CQL.
    pub element: String,
    /// System of the code of the observation, or of its component.
    pub system: String,
    /// The code.
    pub code: String,
    /// The unit that stands there.
    pub found: String,
    /// The unit that it was compared with.
    pub expected: String,
}

/// The same while it is noted: a node is cheaper than its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Noted {
    kind: DoubtKind,
    of: Result<NodeId, String>,
    found: String,
    expected: String,
}

impl<'a> Session<'a> {
    /// What was asked for and could not be used as it stands.
    pub fn doubts(&self) -> BTreeSet<Doubt> {
        let named = |noted: &Noted| {
            let Noted { kind, of, found, expected } = noted.clone();
            let (element, (system, code)) = match of {
                Ok(node) => (self.context.record.place(node).map(|place| place.element).unwrap_or_default(), self.code_of(node)),
                Err(place) => (place, Default::default()),
            };
            Doubt { kind, element, system, code, found, expected }
        };
        self.doubts.borrow().iter().map(named).collect()
    }

    /// How often what was evaluated so far met a value that could not be used: where it grows, what was evaluated could have come out
    /// otherwise. Where something else decides alone, it does not.
    pub fn doubtful(&self) -> u64 {
        self.doubtful.get()
    }

    /// One more, where it is so.
    pub(super) fn count_doubt(&self, is_one: bool) {
        self.doubtful.set(self.doubtful.get() + u64::from(is_one));
    }

    /// Quantities of different units were compared, or what is none with one: notes what cannot be compared, and what converts and may
    /// mean something else. Apart, because it is rare.
    #[inline(never)]
    pub(super) fn note_units(&mut self, operator: &Operator, operands: [&'a Expression; 2], (values, is_null): (&[Value; 2], bool), frame: &mut Frame) {
        if self.observed.is_some() || !COMPARING.contains(&operator.name) {
            return;
        }
        let (left, right) = match (unit(&values[0]), unit(&values[1]), operands) {
            (Some(left), Some(right), _) => (left, right),
            (None, Some(expected), [operand, _]) | (Some(expected), None, [_, operand]) => return self.note_type(operand, expected, frame),
            (None, None, _) => return,
        };
        if is_null && self.context.units.comparable(left, right) {
            return;
        }
        // What has no unit is read as a pure number.
        let [bare_left, bare_right] = [(left, operands[0]), (right, operands[1])].map(|(unit, operand)| unit == "1" && self.is_bare(operand, frame));
        if !is_null && !bare_left && !bare_right && self.context.units.of_one_scale(left, right) {
            return;
        }
        let found = |unit: &str, is_bare: bool| if is_bare { String::new() } else { shown_unit(unit) };
        let (of, found, expected) = match operands.map(|operand| self.origin(operand, frame, 0)) {
            [None, Some(node)] => (Ok(node), found(right, bare_right), left),
            [Some(node), _] => (Ok(node), found(left, bare_left), right),
            [None, None] => {
                let place = operands.first().and_then(|operand| self.place(operand));
                (Err(place.map(|(library, line)| format!("{library}:{line}")).unwrap_or_default()), found(left, false), right)
            }
        };
        let kind = if is_null { DoubtKind::UnlikeUnit } else { DoubtKind::OtherScale };
        self.count_doubt(is_null);
        self.doubts.borrow_mut().insert(Noted { kind, of, found, expected: shown_unit(expected) });
    }

    /// Whether it is made of a quantity of the record that has no unit.
    fn is_bare(&mut self, operand: &'a Expression, frame: &mut Frame) -> bool {
        let record = self.context.record;
        let has_none = |node| ["code", "unit"].iter().all(|name| record.get(node, name).is_none());
        self.origin(operand, frame, 0).is_some_and(has_none)
    }

    /// Whether the program reads what stands at an element as what it is too: its codes, or its text or number.
    fn is_read_otherwise(&self, element: &str) -> bool {
        let (resource_type, path) = element.split_once('.').unwrap_or((element, ""));
        let kept = self.program.shape().of(resource_type).and_then(|whole| path.split('.').try_fold(whole, |keep, name| keep.field(name)));
        kept.is_some_and(|kept| *kept == Keep::All || kept.field("coding").is_some())
    }

    /// A value that is there and is no quantity.
    fn note_type(&mut self, operand: &'a Expression, expected: &str, frame: &mut Frame) {
        if !is_cast(operand) {
            return;
        }
        let Some(node) = self.origin(operand, frame, 0) else { return };
        let element = self.context.record.place(node).map(|place| place.element).unwrap_or_default();
        if OTHER_TYPES.iter().any(|name| element.ends_with(name)) && !self.is_read_otherwise(&element) {
            self.doubts
                .borrow_mut()
                .insert(Noted { kind: DoubtKind::OtherType, of: Ok(node), found: String::new(), expected: shown_unit(expected) });
            self.count_doubt(true);
        }
    }

    /// The units of two quantities, or of a quantity and an interval of them, that cannot be compared.
    pub(super) fn unlike_units(&self, values: &[Value; 2]) -> Option<(String, String)> {
        let [left, right] = [unit(&values[0])?, unit(&values[1])?];
        (!self.context.units.comparable(left, right)).then(|| (shown_unit(left), shown_unit(right)))
    }

    /// An error was raised about what is in the frame: notes quantities that have a comparator, or a unit of no table.
    pub(super) fn note_raised(&self, frame: &Frame) {
        let record = self.context.record;
        let text = |node: NodeId, name: &str| record.get(node, name).and_then(|field| record.text(field));
        for node in frame.iter().filter_map(|value| if let Value::Node(node, _) = value { Some(*node) } else { None }) {
            let (kind, found) = match (text(node, "comparator"), text(node, "system")) {
                (Some(_), _) => (DoubtKind::Comparator, String::new()),
                (None, Some(system)) if system != UCUM && record.get(node, "value").is_some() => {
                    (DoubtKind::UnlikeUnit, shown_unit(text(node, "code").or_else(|| text(node, "unit")).unwrap_or_default()))
                }
                _ => continue,
            };
            self.doubts.borrow_mut().insert(Noted { kind, of: Ok(node), found, expected: String::new() });
        }
    }

    /// A quantity in the frame that has a comparator.
    pub(super) fn with_comparator(&self, frame: &Frame) -> Option<NodeId> {
        let record = self.context.record;
        let nodes = frame.iter().filter_map(|value| if let Value::Node(node, _) = value { Some(*node) } else { None });
        nodes.into_iter().find(|node| record.get(*node, "comparator").is_some())
    }

    /// The element of the record that a quantity was made of.
    fn origin(&mut self, expression: &'a Expression, frame: &mut Frame, depth: usize) -> Option<NodeId> {
        if depth > DESCENT_MAX {
            return None;
        }
        if let Value::Node(node, _) = self.expression(expression, frame).ok()? {
            return Some(node);
        }
        match &expression.kind {
            Kind::Call { operands, .. } | Kind::Operator { operands, .. } => match operands.as_slice() {
                [one] => self.origin(one, frame, depth + 1),
                _ => None,
            },
            Kind::As { operand, .. } => self.origin(operand, frame, depth + 1),
            Kind::Define(define) => self.in_define(*define, |session, body, scope| session.origin(body, &mut scope.frame, depth + 1))?,
            _ => None,
        }
    }

    /// The code of the observation, or of the component, that a node is part of: a well-known one, if it has one.
    fn code_of(&self, node: NodeId) -> (String, String) {
        let record = self.context.record;
        let text = |coding: NodeId, name: &str| record.get(coding, name).and_then(|field| record.text(field)).unwrap_or_default().to_owned();
        let code = record.resource_of(node).and_then(|resource| {
            let components = record.get(resource, "component").map(|list| record.items(list).collect::<Vec<_>>()).unwrap_or_default();
            let is_within = |component: &NodeId| record.fields(*component).any(|field| field == node || record.fields(field).any(|inner| inner == node));
            record.get(components.into_iter().find(is_within).unwrap_or(resource), "code")
        });
        let Some(codings) = code.and_then(|code| record.get(code, "coding")) else { return Default::default() };
        let codings: Vec<(String, String)> = record.items(codings).map(|coding| (text(coding, "system"), text(coding, "code"))).collect();
        let known = codings.iter().find(|(system, _)| systems::is_known(system));
        known.or_else(|| codings.first()).cloned().unwrap_or_default()
    }
}

/// Whether one of several types is taken, and then no more than converted.
fn is_cast(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::As { operand, .. } => matches!(operand.ty, Type::Choice(_)) || is_cast(operand),
        Kind::Call { operands, .. } | Kind::Operator { operands, .. } => matches!(operands.as_slice(), [one] if is_cast(one)),
        _ => false,
    }
}

/// Whether two quantities, or a quantity and an interval of them, are written in different units.
pub(super) fn may_differ(values: &[Value; 2]) -> bool {
    matches!((unit(&values[0]), unit(&values[1])), (Some(left), Some(right)) if left != right)
}

/// The unit of a quantity, of an interval that of a bound.
fn unit(value: &Value) -> Option<&str> {
    match value {
        Value::Quantity(quantity) => Some(&quantity.unit),
        Value::Interval(interval) => match (&interval.low, &interval.high) {
            (Value::Quantity(quantity), _) | (_, Value::Quantity(quantity)) => Some(&quantity.unit),
            _ => None,
        },
        _ => None,
    }
}
