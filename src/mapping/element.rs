//! Elements with codes: whether FHIR has them, and how they hold their codes.

use std::fmt;
use std::sync::Arc;

use super::did_you_mean;
use crate::cql::Models;
use crate::cql::model::Model;
use crate::cql::types::Type;
use crate::diagnostic::nearest;

/// Segments of an element's path.
const SEGMENTS_MAX: usize = 8;
const CONCEPT: &str = "FHIR.CodeableConcept";
const CODING: &str = "FHIR.Coding";

/// A coded element: `Encounter.serviceType`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub resource_type: String,
    pub path: Vec<String>,
    pub holds: Holds,
}

/// How an element holds its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    /// A CodeableConcept: in its codings.
    Concept,
    /// A Coding, or several.
    Coding,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.resource_type, self.path.join("."))
    }
}

/// What is wrong with a path: which part of its text, and in words.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The bytes of the path that are wrong.
    pub part: (usize, usize),
    pub message: String,
    pub help: String,
}

impl Element {
    /// Reads a path; a rule about one that FHIR does not have would never apply.
    pub fn parse(written: &str) -> Result<Element, Wrong> {
        let mut segments = written.split('.');
        let resource_type = segments.next().unwrap_or_default();
        let path: Vec<&str> = segments.collect();
        let is_typed = resource_type.starts_with(|first: char| first.is_ascii_uppercase());
        let is_named = (1..=SEGMENTS_MAX).contains(&path.len()) && path.iter().all(|part| !part.is_empty() && part.chars().all(char::is_alphanumeric));
        let whole = (0, written.len());
        if !(is_typed && is_named) {
            let help = "write the resource type, a point and the element, for example `Encounter.serviceType`".to_owned();
            return Err(Wrong { part: whole, message: format!("`{written}` is no element"), help });
        }
        let models = Models::default();
        let fhir = models.fhir();
        let Some(class) = fhir.retrievable(resource_type) else {
            let near = nearest(resource_type, fhir.retrievable_names());
            let help = did_you_mean(near, "resource types are written as in `Encounter`");
            return Err(Wrong { part: (0, resource_type.len()), message: format!("FHIR R4 has no resource type `{resource_type}`"), help });
        };
        let holds = Walk { fhir, class: class.name.clone(), at: resource_type.len() }.followed_to_end(written)?;
        Ok(Element { resource_type: resource_type.to_owned(), path: path.into_iter().map(str::to_owned).collect(), holds })
    }
}

/// On the way along a path.
struct Walk<'a> {
    fhir: &'a Model,
    /// Of what the path leads to so far.
    class: Arc<str>,
    /// The bytes of the path so far.
    at: usize,
}

impl Walk<'_> {
    fn followed_to_end(mut self, written: &str) -> Result<Holds, Wrong> {
        while let Some(name) = written.get(self.at..).and_then(|rest| rest.strip_prefix('.')) {
            let name = name.split('.').next().unwrap_or_default();
            let so_far = written.get(..self.at).unwrap_or_default();
            // The codings of a CodeableConcept are its own affair: a code is added to them.
            if &*self.class == CONCEPT || &*self.class == CODING {
                return Err(self.wrong(written.len(), format!("`{written}` is within `{so_far}`, which is {}", short(&self.class)), format!("did you mean `{so_far}`?")));
            }
            let end = self.at + 1 + name.len();
            let fields = self.fhir.fields(&self.class);
            let Some((_, ty, _)) = fields.iter().find(|(field, ..)| **field == *name) else {
                let message = format!("`{}` has no element `{name}`", short(&self.class));
                let help = self.instead(so_far, name);
                return Err(self.wrong(end, message, help));
            };
            let class: Arc<str> = if let Type::Class(class) = ty { class.clone() } else { ty.to_string().into() };
            let holds = match &*class {
                CONCEPT => Some(Holds::Concept),
                CODING => Some(Holds::Coding),
                _ => None,
            };
            if end == written.len() {
                let message = || format!("`{written}` is {}, in which no code of a hospital stands", short(&class));
                return holds.ok_or_else(|| self.wrong(end, message(), self.instead(so_far, name)));
            }
            (self.class, self.at) = (class, end);
        }
        Err(self.wrong(written.len(), format!("`{written}` is no element"), String::new()))
    }

    fn wrong(&self, end: usize, message: String, help: String) -> Wrong {
        Wrong { part: (self.at + 1, end), message, help }
    }

    /// The nearest right path below what was walked so far: of a choice what of it has codes, else by the name, else all there are.
    fn instead(&self, so_far: &str, name: &str) -> String {
        let fields = self.fhir.fields(&self.class);
        let is_coded = |ty: &Type| matches!(ty, Type::Class(class) if [CONCEPT, CODING].contains(&&**class));
        let coded: Vec<&str> = fields.iter().filter(|(_, ty, _)| is_coded(ty)).map(|(field, ..)| &**field).collect();
        let choice = self.fhir.element_names(&self.class).find(|element| {
            let is_its_own = |field: &str| field == *element || field.strip_prefix(element).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()));
            is_its_own(name) && coded.iter().any(|field| is_its_own(field))
        });
        let of_choice = choice.and_then(|element| coded.iter().copied().find(|field| field.starts_with(element)));
        // What is no code leads on to one, as an extension does.
        let others = || fields.iter().map(|(field, ..)| &**field).filter(|field| !field.is_empty());
        let is_misspelt = others().all(|field| field != name);
        match of_choice.or_else(|| nearest(name, coded.iter().copied())).or_else(|| nearest(name, others()).filter(|_| is_misspelt)) {
            Some(near) => format!("did you mean `{so_far}.{near}`?"),
            None if coded.is_empty() => "the elements of a type are listed in FHIR R4".to_owned(),
            None => format!("codes stand in {}", coded.iter().map(|field| format!("`{so_far}.{field}`")).collect::<Vec<_>>().join(", ")),
        }
    }
}

fn short(class: &str) -> &str {
    class.strip_prefix("FHIR.").unwrap_or(class)
}
