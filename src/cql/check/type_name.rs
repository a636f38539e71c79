//! Types as written to types.

use super::Checker;
use crate::cql::ast::{Path, TypeKind, TypeSpecifier};
use crate::cql::model::Model;
use crate::cql::types::{SYSTEM_TYPES, Type};
use crate::diagnostic::nearest;

impl Checker<'_> {
    /// The type that is written; `Any` after an error.
    pub(super) fn type_of(&mut self, specifier: &TypeSpecifier) -> Type {
        match &specifier.kind {
            TypeKind::Named(path) => self.named_type(path),
            TypeKind::List(element) => Type::list(self.type_of(element)),
            TypeKind::Interval(point) => Type::interval(self.type_of(point)),
            TypeKind::Tuple(elements) => Type::tuple(elements.iter().map(|(name, ty)| (name.text.clone(), self.type_of(ty))).collect()),
            TypeKind::Choice(types) => {
                let types: Vec<Type> = types.iter().map(|ty| self.type_of(ty)).collect();
                Type::choice(types)
            }
        }
    }

    /// An unqualified name is a class of the model in use before it is a system type, as the reference translator has it.
    pub(super) fn named_type(&mut self, path: &Path) -> Type {
        let found = match path.parts.as_slice() {
            [qualifier, rest @ ..] if !rest.is_empty() => {
                let rest: Vec<&str> = rest.iter().map(|part| &*part.text).collect();
                self.qualified_type(&qualifier.text, &rest.join(".")).or_else(|| self.model_class(&path.text()))
            }
            // Some authors quote a qualified name as a whole: "QICore.observation-bp".
            [whole] => self.model_class(&whole.text).or_else(|| Type::system(&whole.text)).or_else(|| {
                let (qualifier, rest) = whole.text.split_once('.')?;
                self.qualified_type(qualifier, rest)
            }),
            _ => None,
        };
        found.unwrap_or_else(|| {
            let wanted = path.text();
            let classes: Vec<&str> = self.models.iter().flat_map(|(_, model)| model.class_names()).collect();
            let system = SYSTEM_TYPES.iter().map(|(name, _)| *name);
            let (qualifier, bare) = wanted.rsplit_once('.').map_or(("", wanted.as_str()), |(qualifier, bare)| (qualifier, bare));
            let dot = if qualifier.is_empty() { "" } else { "." };
            let help = nearest(bare, classes.into_iter().chain(system)).map(|near| format!("did you mean `{qualifier}{dot}{near}`?"));
            self.error_with_help(path.at, format!("no type `{wanted}`"), help);
            Type::Any
        })
    }

    fn qualified_type(&self, qualifier: &str, name: &str) -> Option<Type> {
        if qualifier == "System" {
            return Type::system(name);
        }
        let (_, model) = self.models.iter().find(|(local, _)| &**local == qualifier)?;
        class_or_alias(model, name)
    }

    pub(super) fn model_class(&self, name: &str) -> Option<Type> {
        self.models.iter().find_map(|(_, model)| class_or_alias(model, name))
    }
}

fn class_or_alias(model: &Model, name: &str) -> Option<Type> {
    let qualified = format!("{}.{name}", model.name);
    model.class(&qualified).map(|class| Type::Class(class.name.clone())).or_else(|| model.alias(&qualified).cloned())
}
