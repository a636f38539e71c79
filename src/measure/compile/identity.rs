//! Whether a value may hold what is one person's own - a day of birth or of death, a place smaller than a state, a name - in whatever
//! form: a text that is made of it says as much, and so does a number.

use std::collections::BTreeMap;

use super::super::calculate::Binding;
use crate::cql::Program;
use crate::cql::date_time::Precision;
use crate::cql::typed::{DefineId, Expression, FunctionId, Kind, Query, Slot};
use crate::cql::types::Type;

/// The elements that hold it (45 CFR 164.514(b)(2)), by class: of an address all but state and country.
const OWN: [(&str, &str, &str); 10] = [
    ("Patient", "birthDate", "Patient.birthDate"),
    ("Patient", "deceased", "Patient.deceased"),
    ("Patient", "identifier", "Patient.identifier"),
    ("Patient", "name", "Patient.name"),
    ("Patient", "telecom", "Patient.telecom"),
    ("Patient", "contact", "Patient.contact"),
    ("Address", "city", "Address.city"),
    ("Address", "district", "Address.district"),
    ("Address", "postalCode", "Address.postalCode"),
    ("Address", "period", "Address.period"),
];
/// What counts whole units of time between two days, or since one.
const LENGTHS: [&str; 4] = ["CalculateAge", "CalculateAgeAt", "DurationBetween", "DifferenceBetween"];

/// The element of which something is in a value.
type Element = Option<&'static str>;

/// The first such element that a value may hold.
pub(super) fn told_by(program: &Program, binding: Binding) -> Element {
    let mut search = Search { program, defines: BTreeMap::new(), calls: BTreeMap::new() };
    match binding {
        Binding::Define(define) => search.define(define),
        Binding::Function(function) => search.call(function, Vec::new()),
    }
}

/// What is in a variable.
type Slots = BTreeMap<Slot, Element>;

struct Search<'a> {
    program: &'a Program,
    defines: BTreeMap<DefineId, Element>,
    calls: BTreeMap<(FunctionId, Vec<Element>), Element>,
}

impl<'a> Search<'a> {
    fn define(&mut self, id: DefineId) -> Element {
        if let Some(known) = self.defines.get(&id) {
            return *known;
        }
        self.defines.insert(id, None);
        let found = self.value(&self.program.tree().defines.get(id.index())?.body, &mut Slots::new());
        self.defines.insert(id, found);
        found
    }

    fn call(&mut self, function: FunctionId, operands: Vec<Element>) -> Element {
        let Some(body) = self.program.tree().functions.get(function.index()).and_then(|row| row.body.as_ref()) else {
            return operands.into_iter().flatten().next();
        };
        let mut slots = (0u32..).map(Slot).zip(operands.iter().copied()).collect();
        let call = (function, operands);
        if let Some(known) = self.calls.get(&call) {
            return *known;
        }
        // What calls itself adds nothing to what it hands on otherwise.
        self.calls.insert(call.clone(), None);
        let found = self.value(body, &mut slots);
        self.calls.insert(call, found);
        found
    }

    fn any<'e>(&mut self, parts: impl IntoIterator<Item = &'e Expression>, slots: &mut Slots) -> Element {
        parts.into_iter().find_map(|part| self.value(part, slots))
    }

    /// What only decides between values is not in them.
    fn value(&mut self, expression: &Expression, slots: &mut Slots) -> Element {
        match &expression.kind {
            _ if expression.ty == Type::Boolean => None,
            Kind::Slot(slot) => slots.get(slot).copied().flatten(),
            Kind::Define(define) => self.define(*define),
            Kind::Call { function, operands } => {
                let operands: Vec<_> = operands.iter().map(|operand| self.value(operand, slots)).collect();
                self.call(*function, operands)
            }
            Kind::Property { source, element } => self.own(source, &element.name).or_else(|| self.value(source, slots)),
            Kind::Operator { operator, operands, precision } => {
                // A year, and an age of so many years or months, is many people's.
                let is_coarse = match operator.name {
                    "DateTimeComponentFrom" => *precision == Some(Precision::Year),
                    name => LENGTHS.contains(&name) && matches!(precision, Some(Precision::Year | Precision::Month)),
                };
                // A day as text is one still.
                let is_day = || operator.name == "ToString" && operands.iter().any(|operand| matches!(operand.ty, Type::Date | Type::DateTime));
                if is_coarse || operator.name == "Count" { None } else { self.any(operands, slots).or_else(|| is_day().then_some("ToString(day)")) }
            }
            Kind::If(parts) => self.any(&parts[1..], slots),
            Kind::Case { items, otherwise, .. } => self.any(items.iter().map(|(_, then)| then).chain([&**otherwise]), slots),
            Kind::Retrieve(_) => None,
            Kind::Query(query) => self.query(query, slots),
            _ => self.any(expression.children(), slots),
        }
    }

    fn own(&self, source: &Expression, element: &str) -> Element {
        let Type::Class(class) = &source.ty else { return None };
        let instance = self.program.class_id(class).and_then(|id| self.program.class_name(id)).unwrap_or(class);
        let of = instance.rsplit('.').next();
        OWN.into_iter().find(|(class, own, _)| Some(*class) == of && *own == element).map(|(.., shown)| shown)
    }

    fn query(&mut self, query: &Query, slots: &mut Slots) -> Element {
        for source in &query.sources {
            let found = self.value(&source.expression, slots);
            slots.insert(source.slot, found);
        }
        for one in &query.lets {
            let found = self.value(&one.expression, slots);
            slots.insert(one.slot, found);
        }
        match (&query.returning, &query.aggregate) {
            (Some(returning), _) => self.value(&returning.expression, slots),
            (None, Some(aggregate)) => {
                let found = self.value(&aggregate.starting, slots);
                slots.insert(aggregate.slot, found);
                found.or_else(|| self.value(&aggregate.expression, slots))
            }
            (None, None) => query.sources.iter().find_map(|source| slots.get(&source.slot).copied().flatten()),
        }
    }
}
