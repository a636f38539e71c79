//! What fits what a measure asks of its CQL: the overload that takes what is counted, observations that are numbers, values that
//! can be shown.

use super::super::definition::{self, Text};
use super::identity::{self, Content};
use super::{Binding, Linker, published};
use crate::cql::Only;
use crate::cql::typed::{DefineId, FunctionId, Kind};
use crate::cql::types::Type;
use crate::diagnostic::{self, Diagnostic, Location};
use crate::fhir::compartment::in_compartment;
use crate::fhir::record::Keep;

/// Classes whose data hold a number or a value to show, beside the primitive ones and the quantities.
const AMOUNTS: [&str; 2] = ["FHIR.Money", "FHIR.Element"];
const SHOWN: [&str; 5] = ["FHIR.Coding", "FHIR.CodeableConcept", "FHIR.Period", "FHIR.Money", "FHIR.Element"];

/// Elements that are one person's own (45 CFR 164.514(b)(2)): whoever reads them for a value to show has hardly another use of them. What
/// is smaller than a state may also be read to tell areas apart, so of that it counts what comes into the value: [`identity`].
const IDENTIFYING: [(&str, &[&str]); 4] = [
    ("Patient", &["id", "identifier", "name", "telecom", "photo", "contact", "address.line", "address.text"]),
    (
        "RelatedPerson",
        &["identifier", "name", "telecom", "photo", "birthDate", "address.line", "address.text", "address.city", "address.district", "address.postalCode"],
    ),
    ("Coverage", &["subscriberId", "identifier"]),
    ("Device", &["identifier", "udiCarrier", "distinctIdentifier", "lotNumber", "serialNumber", "url"]),
];
/// Elements that are one event's own, or name its patient.
const OF_EVENTS: [&str; 9] =
    ["id", "identifier", "text", "subject.reference", "subject.display", "subject.identifier", "patient.reference", "patient.display", "patient.identifier"];

/// A day of which it cannot be told what it is of.
const DAY_OF_AN_EVENT: &str = "the day of an event";
/// Classes that hold days and times.
const DAYS: [&str; 4] = ["FHIR.date", "FHIR.dateTime", "FHIR.instant", "FHIR.Period"];

/// What a group counts.
pub(super) struct Counted<'a> {
    /// `Patient`, or the type of the events.
    pub basis: &'a str,
    /// The types that its populations give them.
    pub members: Vec<Type>,
}

impl Linker<'_> {
    /// The definition of that name, or of the functions of that name the one that takes what is counted.
    pub(super) fn define_or_function(&mut self, name: &Text, counted: &Counted<'_>) -> Option<Binding> {
        if let Some(define) = self.program.define(self.root, &name.value) {
            return Some(Binding::Define(define));
        }
        let functions = self.program.functions(self.root).into_iter();
        let overloads: Vec<FunctionId> = functions.filter(|(_, own)| *own == name.value).map(|(function, _)| function).collect();
        if overloads.is_empty() {
            self.unknown_name(name, true);
            return None;
        }
        let fits = overloads.iter().filter_map(|function| Some((self.fit(&self.program.operands(*function), counted)?, *function)));
        if let Some((_, function)) = fits.min() {
            return Some(Binding::Function(function));
        }
        let basis = counted.basis;
        let expected = usize::from(basis != definition::PATIENT);
        let operands: Vec<Vec<Type>> = overloads.iter().map(|function| self.program.operands(*function)).collect();
        let taken: Vec<String> = operands.iter().filter(|operands| operands.len() == expected).flatten().map(Type::to_string).collect();
        let message = match (taken.is_empty(), operands.first()) {
            (true, Some(first)) => format!("`{}` is a function of {}: expected a function of {expected}, in a measure that counts `{basis}`", name.value, first.len()),
            _ => format!("`{}` is a function of {}: expected a function of FHIR.{basis}, in a measure that counts `{basis}`", name.value, taken.join(" or ")),
        };
        let finding = Diagnostic::error(message).at(self.place(name));
        self.found.push(match self.near_function(&name.value, counted) {
            Some(near) => finding.help(format!("did you mean `{near}`?")),
            None => finding.help("change what the function takes, or the `basis` of the measure"),
        });
        None
    }

    /// How well operands take what is counted, best first; `None` where they take something else. There is no conversion: what is
    /// counted is handed on as it is.
    fn fit(&self, operands: &[Type], counted: &Counted<'_>) -> Option<u8> {
        match operands {
            [] => (counted.basis == definition::PATIENT).then_some(0),
            [operand] if counted.basis != definition::PATIENT => self.takes(operand, counted),
            _ => None,
        }
    }

    fn takes(&self, operand: &Type, counted: &Counted<'_>) -> Option<u8> {
        let event = || self.program.class_id(&format!("FHIR.{}", counted.basis));
        match operand {
            own if counted.members.contains(own) => Some(0),
            Type::Any => Some(3),
            own if self.is_of_basis(own, counted.basis) => Some(1),
            Type::Choice(types) => types.iter().any(|ty| self.takes(ty, counted).is_some()).then_some(2),
            Type::Class(class) => event().is_some_and(|event| self.program.is_subclass(event, class)).then_some(2),
            _ => None,
        }
    }

    /// The function with the nearest name of those that take what is counted.
    fn near_function(&self, name: &str, counted: &Counted<'_>) -> Option<&str> {
        let functions = self.program.functions(self.root).into_iter();
        let fit = functions.filter(|(function, _)| self.fit(&self.program.operands(*function), counted).is_some());
        diagnostic::nearest(name, fit.map(|(_, name)| name))
    }

    fn type_of(&self, binding: Binding) -> &Type {
        match binding {
            Binding::Define(define) => self.program.define_type(define),
            Binding::Function(function) => self.program.result(function),
        }
    }

    /// An observation: a number, and of events each its own.
    pub(super) fn observation(&mut self, name: &Text, counted: &Counted<'_>) -> Option<Binding> {
        let binding = self.define_or_function(name, counted)?;
        let (basis, ty) = (counted.basis, self.type_of(binding).clone());
        let finding = if matches!(binding, Binding::Define(_)) && basis != definition::PATIENT {
            let help = match self.near_function(&name.value, counted) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("make it a function: `define function \"{}\"(event FHIR.{basis}): …`", name.value),
            };
            let message = format!("`{}` is a definition, the same for every {basis}: expected a function of one, in a measure that counts `{basis}`", name.value);
            Diagnostic::error(message).help(help)
        } else if self.is_number(&ty) {
            return Some(binding);
        } else {
            Diagnostic::error(format!("`{}` gives {ty}: what is observed is a number, so Integer, Long, Decimal or Quantity is expected", name.value))
                .help("let it give the number of which the `aggregate` is made")
        };
        self.found.push(finding.at(self.place(name)));
        None
    }

    /// Whether a value may be a number, of the System's types or as it stands in the data.
    fn is_number(&self, ty: &Type) -> bool {
        match ty {
            Type::Integer | Type::Long | Type::Decimal | Type::Quantity | Type::Any => true,
            Type::Choice(types) => types.iter().any(|ty| self.is_number(ty)),
            Type::Class(class) => self.is_amount(class) || matches!(self.primitive(class), Some(Type::Integer | Type::Long | Type::Decimal)),
            _ => false,
        }
    }

    fn is_amount(&self, class: &str) -> bool {
        AMOUNTS.contains(&class) || self.program.class_id(class).is_some_and(|id| self.program.is_subclass(id, "FHIR.Quantity"))
    }

    fn primitive(&self, class: &str) -> Option<&Type> {
        let id = self.program.class_id(class)?;
        self.program.tree().classes.get(id.0 as usize)?.primitive.as_ref()
    }

    /// A value by which members are divided or counted has to be one that a report can show, and names nobody.
    pub(super) fn shown(&mut self, name: &Text, binding: Binding) -> Option<Binding> {
        let ty = self.type_of(binding).clone();
        if !self.can_be_shown(&ty) {
            let message = format!("`{}` gives {ty}, which no report can show: expected a code, a text, a number, a date or Boolean", name.value);
            self.found
                .push(Diagnostic::error(message).at(self.place(name)).help("let it give an element of that, as its `code` or `status`"));
            return None;
        }
        if matches!(binding, Binding::Define(define) if self.is_always_null(define)) {
            let finding = Diagnostic::warning(format!("`{}` is always null: everybody is `unknown` by it", name.value));
            self.found.push(finding.at(self.place(name)).help("let it give what is to be told apart"));
        }
        let content = identity::content(self.program, binding);
        if content.varying.is_some() {
            self.varying.insert(name.value.clone());
        }
        let Some((element, is_plain)) = self.tells_who(binding, &ty, &content) else {
            self.many_valued(name, &ty, &content);
            return Some(binding);
        };
        // An id may be there to find something by, and what is published is not the reader's to change.
        let is_error = is_plain && !published::is_published(self.source);
        let (finding, consequence) = if is_error { (Diagnostic::error as fn(String) -> Diagnostic, "would") } else { (Diagnostic::warning as fn(String) -> Diagnostic, "may") };
        let finding = finding(format!("`{}` gives {ty} and reads {element}: a report {consequence} tell who the patients are", name.value));
        self.found
            .push(finding.at(self.place(name)).help("divide by what many patients share, as a code, an age group or a Boolean"));
        (!is_error).then_some(binding)
    }

    /// A number of its own for nearly everybody is left out of reports again and again: better known before than after.
    fn many_valued(&mut self, name: &Text, ty: &Type, content: &Content) {
        let Some(element) = content.varying.as_ref().filter(|_| !published::is_published(self.source)) else { return };
        let message = format!("`{}` gives {ty} and reads `{element}`: it is left out of each report in which a value is of one member", name.value);
        let help = "make groups of it that many patients share, as `case when X < 24 then 'under 24' else '24 and more' end`";
        self.found.push(Diagnostic::warning(message).at(self.place(name)).help(help));
    }

    /// Whether a definition is nothing but null, under whatever names.
    fn is_always_null(&self, define: DefineId) -> bool {
        let mut body = self.program.tree().defines.get(define.index()).map(|define| &define.body);
        // No chain of names is longer than there are names.
        for _ in &self.program.tree().defines {
            body = match body.map(|body| &body.kind) {
                Some(Kind::Literal(value)) => return value.is_null(),
                Some(Kind::As { operand, .. }) => Some(operand),
                Some(Kind::Define(other)) => self.program.tree().defines.get(other.index()).map(|define| &define.body),
                _ => return false,
            };
        }
        false
    }

    /// The element by which what is shown could identify people (45 CFR 164.514(b)(2)), if there is one, and whether there is hardly
    /// another use of it: what is made of a name may be the name. A count, and whether there is one, is nobody's, unless it counts the days
    /// of a life.
    fn tells_who(&self, binding: Binding, ty: &Type, content: &Content) -> Option<(String, bool)> {
        // What may be a code as well is hardly ever a day.
        let day = content.day.as_ref().filter(|_| !may_be_code(ty));
        if let Some(element) = content.own.as_ref().or(day) {
            return Some((format!("`{element}`"), true));
        }
        if is_day(ty) {
            return Some((DAY_OF_AN_EVENT.to_owned(), true));
        }
        if matches!(ty, Type::Boolean | Type::Integer | Type::Long | Type::Decimal) {
            return None;
        }
        let shape = match binding {
            Binding::Define(define) => self.program.shape_of(Only { defines: &[define], functions: &[] }),
            Binding::Function(function) => self.program.shape_of(Only { defines: &[], functions: &[function] }),
        };
        let first = |keep: &Keep, elements: &[&'static str]| elements.iter().copied().find(|element| reads(keep, element));
        let plain = shape.types.iter().find_map(|(resource_type, keep)| {
            let (_, elements) = IDENTIFYING.iter().find(|(of, _)| of == resource_type)?;
            Some((format!("`{resource_type}.{}`", first(keep, elements)?), true))
        });
        let of_events = || {
            let mut own = shape.types.iter().filter(|(resource_type, _)| in_compartment(resource_type));
            own.find_map(|(resource_type, keep)| Some((format!("`{resource_type}.{}`", first(keep, &OF_EVENTS)?), false)))
        };
        let text = content.text.as_ref().map(|element| (format!("`{element}`, a free text"), false));
        plain.or(text).or_else(of_events)
    }

    fn can_be_shown(&self, ty: &Type) -> bool {
        match ty {
            Type::List(inner) | Type::Interval(inner) => self.can_be_shown(inner),
            Type::Choice(types) => types.iter().any(|ty| self.can_be_shown(ty)),
            Type::Tuple(elements) => elements.iter().any(|(_, ty)| self.can_be_shown(ty)),
            Type::Class(class) => SHOWN.contains(&&**class) || self.is_amount(class) || self.primitive(class).is_some(),
            Type::Ratio | Type::CodeSystem | Type::ValueSet | Type::Vocabulary => false,
            _ => true,
        }
    }

    pub(super) fn place(&self, name: &Text) -> Location {
        super::written_at(self.source, name)
    }
}

/// Whether a value may hold a day or a time: of what happened to somebody no more than the year is everybody's.
fn is_day(ty: &Type) -> bool {
    match ty {
        Type::Date | Type::DateTime => true,
        Type::List(inner) | Type::Interval(inner) => is_day(inner),
        Type::Choice(types) => types.iter().all(is_day),
        Type::Tuple(elements) => elements.iter().any(|(_, ty)| is_day(ty)),
        Type::Class(class) => DAYS.contains(&&**class),
        _ => false,
    }
}

/// Whether a value is one of several types of which one is a code.
fn may_be_code(ty: &Type) -> bool {
    let is_code = |ty: &Type| matches!(ty, Type::Code | Type::Concept) || matches!(ty, Type::Class(class) if ["FHIR.Coding", "FHIR.CodeableConcept"].contains(&&**class));
    match ty {
        Type::List(inner) => may_be_code(inner),
        Type::Choice(types) => types.iter().any(is_code),
        _ => false,
    }
}

/// Whether an element is asked for by its name; of what is read as a whole nothing is told.
fn reads(keep: &Keep, element: &str) -> bool {
    let is_named = matches!(keep, Keep::Fields(_));
    is_named && element.split('.').try_fold(keep, |keep, name| keep.field(name)).is_some()
}
