//! Whether a value may hold what is one person's own - a name, a place smaller than a state, what a record is known by, the day of a birth or
//! of anything else - in whatever form: a text that is made of it says as much, and so does a number. Or a text that somebody wrote freely,
//! or a number that may be another one for everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::calculate::Binding;
use crate::cql::Program;
use crate::cql::date_time::Precision;
use crate::cql::typed::{DefineId, Expression, FunctionId, Kind, Query, Slot};
use crate::cql::types::Type;
use crate::fhir::compartment::in_compartment;

/// The elements that hold it (45 CFR 164.514(b)(2)), by class: of an address all but state and country.
const OWN: [(&str, &str); 8] = [
    ("Patient", "name"),
    ("Patient", "telecom"),
    ("Patient", "contact"),
    ("Address", "city"),
    ("Address", "district"),
    ("Address", "postalCode"),
    ("Address", "period"),
    ("Narrative", "div"),
];
/// What is one person's own of elements that hold more than that: who asks whether it is one fixed text asks for that person.
const TELLING: [(&str, &str); 6] =
    [("Identifier", "value"), ("HumanName", "family"), ("HumanName", "given"), ("HumanName", "text"), ("ContactPoint", "value"), ("Address", "line")];
/// Classes that hold days and times.
const DAYS: [&str; 4] = ["FHIR.date", "FHIR.dateTime", "FHIR.instant", "FHIR.Period"];
/// Classes that hold numbers.
const AMOUNTS: [&str; 13] = [
    "FHIR.decimal",
    "FHIR.integer",
    "FHIR.positiveInt",
    "FHIR.unsignedInt",
    "FHIR.Quantity",
    "FHIR.SimpleQuantity",
    "FHIR.Age",
    "FHIR.Duration",
    "FHIR.Distance",
    "FHIR.Count",
    "FHIR.Money",
    "FHIR.Range",
    "FHIR.time",
];
/// What refers to no person but to a ward, a hospital, a drug.
const OF_NOBODY: [&str; 4] = ["location", "serviceProvider", "managingOrganization", "medication"];
/// What counts whole units of time since a birth.
const AGES: [&str; 2] = ["CalculateAge", "CalculateAgeAt"];
/// What counts units of time between two days.
const LENGTHS: [&str; 2] = ["DurationBetween", "DifferenceBetween"];
/// What is equal to one thing only.
const EQUALITIES: [&str; 3] = ["Equal", "Equivalent", "SameAs"];
/// What hands on what it was given, or one of it, in another form.
const FORMS: [&str; 11] = ["ToString", "ToDate", "ToDateTime", "DateFrom", "Start", "End", "First", "Last", "SingletonFrom", "Lower", "Upper"];
/// Definitions that lead to others, of which is told what they compare.
const NAMES_MAX: usize = 20;
/// Types of what is written freely.
const TEXTS: [&str; 2] = ["FHIR.string", "FHIR.markdown"];

/// What is in a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    /// The first element that is one person's own.
    pub own: Option<String>,
    /// The first element in which anybody may have written anything.
    pub text: Option<String>,
    /// The first element that is a day on which something was.
    pub day: Option<String>,
    /// The first element that may be another number, day or text for everybody.
    pub varying: Option<String>,
    /// What is only in an element of a tuple.
    elements: BTreeMap<Arc<str>, Content>,
}

impl Content {
    fn and(mut self, other: Content) -> Content {
        self.own = self.own.or(other.own);
        self.text = self.text.or(other.text);
        self.day = self.day.or(other.day);
        self.varying = self.varying.or(other.varying);
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
    // Of a tuple a report shows no day, and what a race is called stands beside its code.
    let alone = found.text.clone().or_else(|| found.day.clone());
    let whole = found.whole();
    let varying = whole.varying.clone().or(alone);
    Content { varying, ..whole }
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

    /// What only decides between values is not in them, unless it singles one out.
    fn value(&mut self, expression: &Expression, slots: &mut Slots) -> Content {
        match &expression.kind {
            Kind::Slot(slot) => slots.get(slot).cloned().unwrap_or_default(),
            Kind::Define(define) => self.define(*define),
            Kind::Call { function, operands } => {
                let operands: Vec<_> = operands.iter().map(|operand| self.value(operand, slots)).collect();
                self.call(*function, operands)
            }
            _ if expression.ty == Type::Boolean => self.truth(expression, slots),
            Kind::Property { source, element } => {
                let found = self.value(source, slots).element(&element.name);
                let told = self.told(source, &element.name, &expression.ty);
                // The code of a quantity is many people's, its value is not.
                let varying = found.varying.filter(|_| !matches!(source.ty, Type::Class(_)) || told.varying.is_some());
                Content { varying, ..found }.and(told)
            }
            Kind::As { operand, target, .. } => {
                let found = self.value(operand, slots);
                Content {
                    text: found.text.filter(|_| may_be_text(target)),
                    day: found.day.filter(|_| may_be_day(target)),
                    varying: found.varying.filter(|_| may_vary(target)),
                    ..found
                }
            }
            Kind::Operator { operator, operands, precision } => self.operator(operator.name, operands, *precision, slots),
            Kind::If(parts) => self.all(parts.iter(), slots),
            Kind::Case { comparand: None, .. } => self.all(expression.children(), slots),
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

    fn operator(&mut self, name: &str, operands: &[Expression], precision: Option<Precision>, slots: &mut Slots) -> Content {
        use Precision::{Day, Month, Week, Year};
        // A year, and an age of so many years or months, is many people's; an hour is no day.
        let is_coarse = match name {
            "DateTimeComponentFrom" => !matches!(precision, Some(Month | Week | Day)),
            "Count" => true,
            name if AGES.contains(&name) => matches!(precision, Some(Year | Month)),
            name => LENGTHS.contains(&name) && precision == Some(Year),
        };
        if is_coarse {
            return Content::default();
        }
        let each: Vec<Content> = operands.iter().map(|operand| self.value(operand, slots)).collect();
        // Between two days that are somebody's lies a time, and neither of them can be told from it.
        let is_length = (AGES.contains(&name) || LENGTHS.contains(&name)) && each.len() > 1 && each.iter().all(|one| one.day.is_some());
        let found = each.into_iter().fold(Content::default(), Content::and);
        match is_length || name == "TimeFrom" {
            true => Content { varying: found.varying.or(found.day), day: None, ..found },
            false => found,
        }
    }

    /// Of what is true or false: what it is true of one value of only.
    fn truth(&mut self, expression: &Expression, slots: &mut Slots) -> Content {
        match &expression.kind {
            Kind::Operator { operator, operands, precision } => match (operator.name, operands.as_slice()) {
                (name, [one, other]) if EQUALITIES.contains(&name) && *precision != Some(Precision::Year) => self.singled(one, other),
                ("In", [one, Expression { kind: Kind::List(items), .. }]) if items.len() == 1 => self.singled(one, &items[0]),
                ("In", [_, Expression { kind: Kind::List(_), .. }]) => Content::default(),
                ("In", [one, other]) => self.singled(one, other),
                ("Exists", [Expression { kind: Kind::Query(query), .. }]) => self.all(&query.condition, slots),
                _ => self.all(operands.iter().filter(|operand| operand.ty == Type::Boolean), slots),
            },
            _ => self.all(expression.children().into_iter().filter(|part| part.ty == Type::Boolean), slots),
        }
    }

    /// What is one person's own, or a day, where it is compared with something that is the same for everybody.
    fn singled(&self, one: &Expression, other: &Expression) -> Content {
        let own = [(one, other), (other, one)]
            .into_iter()
            .find_map(|(asked, fixed)| is_fixed(fixed).then(|| self.own(asked, 0)).flatten());
        Content { own, ..Content::default() }
    }

    /// The element of one person that is asked for by itself, in whatever form.
    fn own(&self, expression: &Expression, names: usize) -> Option<String> {
        let tree = self.program.tree();
        match &expression.kind {
            Kind::As { operand, target, .. } if may_be_text(target) || may_be_day(target) => self.own(operand, names),
            Kind::Property { source, element } if element.alternatives.iter().any(|row| row.field.is_empty()) => self.own(source, names),
            Kind::Property { source, element } => {
                let found = self.told(source, &element.name, &expression.ty);
                // Of a choice nobody can say that it is the day.
                let day = found.day.filter(|_| !matches!(expression.ty, Type::Choice(_)));
                let of = self.class_of(source).filter(|of| TELLING.contains(&(*of, &*element.name)));
                found.own.or(day).or_else(|| of.map(|of| format!("{of}.{}", element.name)))
            }
            Kind::Operator { operator, operands, .. } if FORMS.contains(&operator.name) => self.own(operands.first()?, names),
            // Conversions of the model, by whatever library.
            Kind::Call { function, operands } if tree.functions.get(function.index())?.name.starts_with("To") => self.own(operands.first()?, names),
            Kind::Query(query) => self.own(&query.returning.as_ref()?.expression, names),
            Kind::Define(define) if names < NAMES_MAX => self.own(&tree.defines.get(define.index())?.body, names + 1),
            _ => None,
        }
    }

    /// The class of which instances are, without its model.
    fn class_of<'e>(&'e self, source: &'e Expression) -> Option<&'e str> {
        let Type::Class(class) = &source.ty else { return None };
        let instance = self.program.class_id(class).and_then(|id| self.program.class_name(id)).unwrap_or(class);
        Some(instance.rsplit('.').next().unwrap_or(instance))
    }

    /// What an element of a class is by itself.
    fn told(&self, source: &Expression, element: &str, ty: &Type) -> Content {
        let Some(of) = self.class_of(source) else { return Content::default() };
        let is_own = match element {
            "id" | "identifier" if in_compartment(of) => true,
            "reference" | "identifier" | "display" if of == "Reference" => !is_of_nobody(source),
            _ => OWN.contains(&(of, element)),
        };
        let is_text = (of, element) == ("Annotation", "text") || element == "value" && matches!(ty, Type::Choice(_)) && may_be_text(ty);
        let shown = |is_it: bool| is_it.then(|| format!("{of}.{element}"));
        Content { own: shown(is_own), text: shown(is_text), day: shown(may_be_day(ty)), varying: shown(may_vary(ty)), ..Content::default() }
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

/// Whether a value may hold a day on which something was.
fn may_be_day(ty: &Type) -> bool {
    match ty {
        Type::Date | Type::DateTime | Type::Any => true,
        Type::List(inner) | Type::Interval(inner) => may_be_day(inner),
        Type::Choice(types) => types.iter().any(may_be_day),
        Type::Class(class) => DAYS.contains(&&**class),
        _ => false,
    }
}

/// Whether a value is a number, which may be another one for everybody.
fn may_vary(ty: &Type) -> bool {
    match ty {
        Type::Integer | Type::Long | Type::Decimal | Type::Quantity | Type::Ratio | Type::Time | Type::Any => true,
        Type::List(inner) | Type::Interval(inner) => may_vary(inner),
        Type::Choice(types) => types.iter().any(may_vary),
        Type::Class(class) => AMOUNTS.contains(&&**class),
        _ => false,
    }
}

/// Whether an expression is made of nothing but what stands in the text.
fn is_fixed(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::Literal(value) => !value.is_null(),
        Kind::Operator { .. } | Kind::Call { .. } | Kind::As { .. } | Kind::List(_) => {
            let parts = expression.children();
            !parts.is_empty() && parts.into_iter().all(is_fixed)
        }
        _ => false,
    }
}
