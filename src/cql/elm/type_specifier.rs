//! Type specifiers of ELM to types.

use std::sync::Arc;

use super::definition::Reader;
use super::document::{items, text_of};
use super::json::Json;
use crate::cql::types::{SYSTEM_TYPES, Type};
use crate::diagnostic::nearest;

/// The namespace of the system types.
pub(super) const SYSTEM: &str = "urn:hl7-org:elm-types:r1";

impl<'a> Reader<'a> {
    /// The type under `{name}TypeSpecifier`, or named by `{name}Type`.
    pub(super) fn type_of(&mut self, node: &'a Json, specifier: &str, name: &str) -> Option<Type> {
        match (node.get(specifier), text_of(node, name)) {
            (Some(specifier), _) => Some(self.specified(specifier)),
            (None, Some(name)) => Some(self.named_type(name)),
            (None, None) => None,
        }
    }

    /// The type that a specifier describes; `Any` after an error.
    pub(super) fn specified(&mut self, specifier: &'a Json) -> Type {
        self.at_node(specifier, |reader| reader.type_at(specifier))
    }

    fn type_at(&mut self, specifier: &'a Json) -> Type {
        let part = |reader: &mut Self, name: &str| match specifier.get(name) {
            Some(inner) => reader.specified(inner),
            None => {
                reader.fault(&format!("type specifier without `{name}`"));
                Type::Any
            }
        };
        match text_of(specifier, "type") {
            Some("NamedTypeSpecifier") => self.named_type(text_of(specifier, "name").unwrap_or_default()),
            Some("ListTypeSpecifier") => Type::list(part(self, "elementType")),
            Some("IntervalTypeSpecifier") => Type::interval(part(self, "pointType")),
            Some("TupleTypeSpecifier") => self.tuple_type(specifier),
            // Some translators write an array as the `type` of a choice.
            Some("ChoiceTypeSpecifier") | None if specifier.get("choice").is_some() => {
                let types: Vec<Type> = items(specifier, "choice").iter().map(|ty| self.specified(ty)).collect();
                Type::choice(types)
            }
            found => {
                self.fault(&format!("type specifier `{}` is not known", found.unwrap_or("without type")));
                Type::Any
            }
        }
    }

    fn tuple_type(&mut self, specifier: &'a Json) -> Type {
        let elements = items(specifier, "element").iter().map(|element| {
            let name: Arc<str> = text_of(element, "name").unwrap_or_default().into();
            let ty = element.get("elementType").or(element.get("type")).map_or(Type::Any, |ty| self.specified(ty));
            (name, ty)
        });
        let elements = elements.collect();
        Type::tuple(elements)
    }

    /// The type of a qualified name: `{http://hl7.org/fhir}Observation`.
    pub(super) fn named_type(&mut self, name: &str) -> Type {
        let (namespace, local) = name.strip_prefix('{').and_then(|rest| rest.split_once('}')).unwrap_or((SYSTEM, name));
        let found = if namespace == SYSTEM { Type::system(local) } else { self.class_named(namespace, local) };
        found.unwrap_or_else(|| {
            let classes: Vec<&str> = self.fhir.retrievable_names().collect();
            let near = nearest(local, classes.into_iter().chain(SYSTEM_TYPES.iter().map(|(name, _)| *name)));
            self.fault(&format!("no type `{name}`{}", near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()));
            Type::Any
        })
    }

    /// A class of FHIR. What a translator took from a derived model and wrote with FHIR's namespace is the class of data
    /// behind it: an extension, mostly.
    fn class_named(&self, namespace: &str, local: &str) -> Option<Type> {
        if namespace != &*self.fhir.url {
            return None;
        }
        if let Some(class) = self.fhir.class(&format!("{}.{local}", self.fhir.name)) {
            return Some(Type::Class(class.name.clone()));
        }
        ["QICore", "USCore"].iter().find_map(|model| {
            let model = self.models.get(model, None)?;
            let name = format!("{}.{local}", model.name);
            if let Some(system) = model.alias(&name) {
                return Some(system.clone());
            }
            let class = model.class(&name)?;
            let behind = model.instance_class(&class.name, &self.fhir);
            self.fhir.class(&behind).map(|class| Type::Class(class.name.clone()))
        })
    }
}
