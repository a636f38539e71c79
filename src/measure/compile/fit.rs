//! What fits what a measure asks of its CQL: the overload that takes what is counted, observations that are numbers, values that
//! can be shown.

use super::super::definition::{self, Text};
use super::{Binding, Linker, published};
use crate::cql::Only;
use crate::cql::typed::FunctionId;
use crate::cql::types::Type;
use crate::diagnostic::{self, Diagnostic, Location, Span};
use crate::fhir::record::{Keep, Shape};

/// Classes whose data hold a number or a value to show, beside the primitive ones and the quantities.
const AMOUNTS: [&str; 2] = ["FHIR.Money", "FHIR.Element"];
const SHOWN: [&str; 5] = ["FHIR.Coding", "FHIR.CodeableConcept", "FHIR.Period", "FHIR.Money", "FHIR.Element"];

/// Elements that are one person's own. What of an address is read is told by its lines, because an area is shared by many.
const IDENTIFYING: [&str; 16] = [
    "Patient.id",
    "Patient.identifier",
    "Patient.name",
    "Patient.telecom",
    "Patient.photo",
    "Patient.contact",
    "Patient.address.line",
    "Patient.address.text",
    "RelatedPerson.identifier",
    "RelatedPerson.name",
    "RelatedPerson.telecom",
    "RelatedPerson.photo",
    "RelatedPerson.address.line",
    "RelatedPerson.address.text",
    "Coverage.subscriberId",
    "Coverage.identifier",
];
/// Days of which the year alone may be told.
const DAYS: [&str; 2] = ["Patient.birthDate", "Patient.deceasedDateTime"];

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
        let finding = if !self.can_be_shown(&ty) {
            let message = format!("`{}` gives {ty}, which no report can show: expected a code, a text, a number, a date or Boolean", name.value);
            Diagnostic::error(message).help("let it give an element of that, as its `code` or `status`")
        } else if let Some(element) = self.tells_who(binding, &ty) {
            let message = format!("`{}` gives {ty} and reads `{element}`: a report would tell who the patients are", name.value);
            Diagnostic::error(message).help("divide by what many patients share, as a code, an age group or a Boolean")
        } else {
            return Some(binding);
        };
        self.found.push(finding.at(self.place(name)));
        None
    }

    /// The element by which what is shown would identify people (45 CFR 164.514(b)(2)), if there is one: what is made of a name
    /// may be the name. A count, and whether there is one, is nobody's.
    fn tells_who(&self, binding: Binding, ty: &Type) -> Option<&'static str> {
        if matches!(ty, Type::Boolean | Type::Integer | Type::Long | Type::Decimal) {
            return None;
        }
        let shape = match binding {
            Binding::Define(define) => self.program.shape_of(Only { defines: &[define], functions: &[] }),
            Binding::Function(function) => self.program.shape_of(Only { defines: &[], functions: &[function] }),
        };
        let is_day = matches!(ty, Type::Date | Type::DateTime) || matches!(ty, Type::Class(class) if matches!(self.primitive(class), Some(Type::Date | Type::DateTime)));
        let days = DAYS.iter().filter(|_| is_day);
        IDENTIFYING.iter().chain(days).find(|element| reads(&shape, element)).copied()
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

    /// Where the definition names it: in JSON the first place where it stands as a text.
    fn place(&self, name: &Text) -> Location {
        if published::is_published(self.source) {
            return Location::new(self.source, Span::default()).first(&format!("\"{}\"", name.value));
        }
        diagnostic::yaml::locate(self.source, name)
    }
}

/// Whether a shape asks for an element by its name; of what is read as a whole nothing is told.
fn reads(shape: &Shape, element: &str) -> bool {
    let mut names = element.split('.');
    let mut keep = names.next().and_then(|resource_type| shape.types.get(resource_type));
    let is_named = matches!(keep, Some(Keep::Fields(_)));
    for name in names {
        keep = keep.and_then(|keep| keep.field(name));
    }
    is_named && keep.is_some()
}
