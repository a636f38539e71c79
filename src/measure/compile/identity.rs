//! Whether a value may hold what is one person's own - a day of birth or of death, a place smaller than a state, a name, what a record is
//! known by - in whatever form: a text that is made of it says as much, and so does a number. Or a text that somebody wrote freely.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::calculate::Binding;
use crate::cql::Program;
use crate::cql::date_time::Precision;
use crate::cql::typed::{DefineId, Expression, FunctionId, Kind, Query, Slot};
use crate::cql::types::Type;
use crate::fhir::compartment::in_compartment;

/// The elements that hold it (45 CFR 164.514(b)(2)), by class: of an address all but state and country.
const OWN: [(&str, &str); 10] = [
    ("Patient", "birthDate"),
    ("Patient", "deceased"),
    ("Patient", "name"),
    ("Patient", "telecom"),
    ("Patient", "contact"),
    ("Address", "city"),
    ("Address", "district"),
    ("Address", "postalCode"),
    ("Address", "period"),
    ("Narrative", "div"),
];
/// What refers to no person but to a ward, a hospital, a drug.
const OF_NOBODY: [&str; 4] = ["location", "serviceProvider", "managingOrganization", "medication"];
/// What counts whole units of time between two days, or since one.
const LENGTHS: [&str; 4] = ["CalculateAge", "CalculateAgeAt", "DurationBetween", "DifferenceBetween"];
/// Types of what is written freely.
const TEXTS: [&str; 2] = ["FHIR.string", "FHIR.markdown"];

/// What is in a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    /// The first element that is one person's own.
    pub own: Option<String>,
    /// The first element in which anybody may have written anything.
    pub text: Option<String>,
    /// What is only in an element of a tuple.
    elements: BTreeMap<Arc<str>, Content>,
}

impl Content {
    fn and(mut self, other: Content) -> Content {
        self.own = self.own.or(other.own);
        self.text = self.text.or(other.text);
        for (name, content) in other.elements {
            let known = self.elements.remove(&name).unwrap_or_default();
            self.elements.insert(name, known.and(content));
        }
        self
    }

    fn element(mut self, name: &str) -> Content {
        let element = self.elements.remove(name).unwrap_or_default();
        Content { elements: BTreeMap::new(), ..self }.and(element)
    }

    /// With what is in its elements.
    fn whole(self) -> Content {
        let own = Content { elements: BTreeMap::new(), ..self };
        self.elements.into_values().map(Content::whole).fold(own, Content::and)
    }
}

/// What is in the values of a definition.
pub(super) fn content(program: &Program, binding: Binding) -> Content {
    let mut search = Search { program, defines: BTreeMap::new(), calls: BTreeMap::new() };
    let found = match binding {
        Binding::Define(define) => search.define(define),
        Binding::Function(function) => search.call(function, Vec::new()),
    };
    found.whole()
}

/// What is in a variable.
type Slots = BTreeMap<Slot, Content>;

struct Search<'a> {
    program: &'a Program,
    defines: BTreeMap<DefineId, Content>,
    calls: BTreeMap<(FunctionId, Vec<Content>), Content>,
}

impl<'a> Search<'a> {
    fn define(&mut self, id: DefineId) -> Content {
        if let Some(known) = self.defines.get(&id) {
            return known.clone();
        }
        let Some(define) = self.program.tree().defines.get(id.index()) else { return Content::default() };
        self.defines.insert(id, Content::default());
        let found = self.value(&define.body, &mut Slots::new());
        self.defines.insert(id, found.clone());
        found
    }

    fn call(&mut self, function: FunctionId, operands: Vec<Content>) -> Content {
        let Some(body) = self.program.tree().functions.get(function.index()).and_then(|row| row.body.as_ref()) else {
            return operands.into_iter().fold(Content::default(), Content::and);
        };
        let mut slots = (0u32..).map(Slot).zip(operands.iter().cloned()).collect();
        let call = (function, operands);
        if let Some(known) = self.calls.get(&call) {
            return known.clone();
        }
        // What calls itself adds nothing to what it hands on otherwise.
        self.calls.insert(call.clone(), Content::default());
        let found = self.value(body, &mut slots);
        self.calls.insert(call, found.clone());
        found
    }

    fn all<'e>(&mut self, parts: impl IntoIterator<Item = &'e Expression>, slots: &mut Slots) -> Content {
        parts.into_iter().fold(Content::default(), |found, part| found.and(self.value(part, slots)))
    }

    /// What only decides between values is not in them.
    fn value(&mut self, expression: &Expression, slots: &mut Slots) -> Content {
        match &expression.kind {
            _ if expression.ty == Type::Boolean => Content::default(),
            Kind::Slot(slot) => slots.get(slot).cloned().unwrap_or_default(),
            Kind::Define(define) => self.define(*define),
            Kind::Call { function, operands } => {
                let operands: Vec<_> = operands.iter().map(|operand| self.value(operand, slots)).collect();
                self.call(*function, operands)
            }
            Kind::Property { source, element } => {
                let told = self.told(source, &element.name, &expression.ty);
                told.and(self.value(source, slots).element(&element.name))
            }
            Kind::As { operand, target, .. } => {
                let found = self.value(operand, slots);
                Content { text: found.text.filter(|_| may_be_text(target)), ..found }
            }
            Kind::Operator { operator, operands, precision } => {
                // A year, and an age of so many years or months, is many people's.
                let is_coarse = match operator.name {
                    "DateTimeComponentFrom" => *precision == Some(Precision::Year),
                    name => LENGTHS.contains(&name) && matches!(precision, Some(Precision::Year | Precision::Month)),
                };
                if is_coarse || operator.name == "Count" {
                    return Content::default();
                }
                // A day as text is one still.
                let is_day = operator.name == "ToString" && operands.iter().any(|operand| matches!(operand.ty, Type::Date | Type::DateTime));
                let day = Content { own: is_day.then(|| "ToString(day)".to_owned()), ..Content::default() };
                self.all(operands, slots).and(day)
            }
            Kind::If(parts) => self.all(&parts[1..], slots),
            Kind::Case { items, otherwise, .. } => self.all(items.iter().map(|(_, then)| then).chain([&**otherwise]), slots),
            Kind::Tuple(elements) | Kind::Instance { elements, .. } => {
                let elements = elements.iter().map(|(name, element)| (name.clone(), self.value(element, slots))).collect();
                Content { elements, ..Content::default() }
            }
            Kind::Retrieve(_) => Content::default(),
            Kind::Query(query) => self.query(query, slots),
            _ => self.all(expression.children(), slots),
        }
    }

    /// What an element of a class is by itself.
    fn told(&self, source: &Expression, element: &str, ty: &Type) -> Content {
        let Type::Class(class) = &source.ty else { return Content::default() };
        let instance = self.program.class_id(class).and_then(|id| self.program.class_name(id)).unwrap_or(class);
        let of = instance.rsplit('.').next().unwrap_or(instance);
        let is_own = match element {
            "id" | "identifier" if in_compartment(of) => true,
            "reference" | "identifier" | "display" if of == "Reference" => !is_of_nobody(source),
            _ => OWN.contains(&(of, element)),
        };
        let is_text = (of, element) == ("Annotation", "text") || element == "value" && matches!(ty, Type::Choice(_)) && may_be_text(ty);
        let shown = |is_it: bool| is_it.then(|| format!("{of}.{element}"));
        Content { own: shown(is_own), text: shown(is_text), ..Content::default() }
    }

    fn query(&mut self, query: &Query, slots: &mut Slots) -> Content {
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
                slots.insert(aggregate.slot, found.clone());
                found.and(self.value(&aggregate.expression, slots))
            }
            (None, None) => query.sources.iter().filter_map(|source| slots.get(&source.slot).cloned()).fold(Content::default(), Content::and),
        }
    }
}

fn is_of_nobody(reference: &Expression) -> bool {
    match &reference.kind {
        Kind::As { operand, .. } => is_of_nobody(operand),
        Kind::Property { element, .. } => OF_NOBODY.contains(&&*element.name),
        _ => false,
    }
}

fn may_be_text(ty: &Type) -> bool {
    match ty {
        Type::Class(class) => TEXTS.contains(&&**class),
        Type::Choice(types) => types.iter().any(may_be_text),
        ty => *ty == Type::String,
    }
}
