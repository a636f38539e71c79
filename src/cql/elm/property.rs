//! Properties: which element of which type a path means.

use super::definition::{Reader, Role};
use super::document::text_of;
use super::json::Json;
use crate::cql::typed::{Element, Expression, Kind, Query, Return, Source};
use crate::cql::types::Type;
use crate::diagnostic::nearest;

impl<'a> Reader<'a> {
    /// `source.path`, `scope.path`; without either the path is of the innermost alias.
    pub(super) fn property_node(&mut self, node: &'a Json) -> Expression {
        let source = match (node.get("source"), text_of(node, "scope")) {
            (Some(source), _) => self.expression(source),
            (None, Some(scope)) => match self.variable(scope, &[Role::Alias, Role::Let]) {
                Some(variable) => variable,
                None => return self.refused(&format!("no alias `{scope}` here")),
            },
            (None, None) => match self.frame.variables.iter().rev().find(|variable| variable.role == Role::Alias) {
                Some(alias) => self.made(Kind::Slot(alias.slot), alias.ty.clone()),
                None => return self.refused("`Property` with neither `source` nor `scope`, outside of a query"),
            },
        };
        let path = text_of(node, "path").unwrap_or_default();
        path.split('.').fold(source, |source, name| self.indexed(source, name))
    }

    /// One step of a path: `name`, or `name[2]`.
    fn indexed(&mut self, source: Expression, step: &str) -> Expression {
        let Some((name, index)) = step.strip_suffix(']').and_then(|step| step.split_once('[')) else {
            return self.property(source, step);
        };
        let Ok(index) = index.parse::<i32>() else {
            return self.refused(&format!("`{step}` of a path is not supported"));
        };
        let list = self.property(source, name);
        let item = list.ty.element().cloned().unwrap_or(Type::Any);
        let index = self.made(Kind::Literal(crate::cql::value::Value::Integer(index)), Type::Integer);
        self.applied("Indexer", vec![list, index], item)
    }

    /// The type of an element of a type, if it has one of that name.
    pub(super) fn element_type(&self, ty: &Type, name: &str) -> Option<Type> {
        match ty {
            Type::Class(class) => self.fhir.resolve(class, name).map(|(_, ty)| ty),
            Type::Tuple(elements) => elements.iter().find(|(own, _)| &**own == name).map(|(_, ty)| ty.clone()),
            Type::Interval(point) => match name {
                "low" | "high" => Some((**point).clone()),
                "lowClosed" | "highClosed" => Some(Type::Boolean),
                _ => None,
            },
            Type::Choice(types) => {
                let found: Vec<Type> = types.iter().filter_map(|ty| self.element_type(ty, name)).collect();
                (!found.is_empty()).then(|| Type::choice(found))
            }
            Type::List(element) => self.element_type(element, name).map(|ty| if ty.is_list() { ty } else { Type::list(ty) }),
            system => system_element(system, name),
        }
    }

    /// `source.name` over a value.
    pub(super) fn property(&mut self, source: Expression, name: &str) -> Expression {
        match &source.ty {
            // Null, or what was wrong has been reported.
            Type::Any if matches!(&source.kind, Kind::Literal(value) if value.is_null()) => source,
            Type::Class(class) => match self.fhir.resolve(class, name) {
                Some((element, ty)) => self.made(Kind::Property { source: Box::new(source), element }, ty),
                None => self.no_element(&source.ty, name),
            },
            Type::List(_) => self.each_property(source, name),
            Type::Choice(types) => {
                let types = types.clone();
                self.choice_property(source, &types, name)
            }
            ty => match self.element_type(ty, name) {
                Some(ty) => {
                    let element = Element { name: name.into(), alternatives: Vec::new(), list: ty.is_list() };
                    self.made(Kind::Property { source: Box::new(source), element }, ty)
                }
                None => self.no_element(&source.ty, name),
            },
        }
    }

    fn no_element(&mut self, ty: &Type, name: &str) -> Expression {
        if *ty == Type::Any && self.is_incomplete() {
            return self.null(Type::Any);
        }
        let near = match ty {
            Type::Class(class) => nearest(name, self.fhir.element_names(class)),
            Type::Tuple(elements) => nearest(name, elements.iter().map(|(own, _)| &**own)),
            _ => None,
        };
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        self.refused(&format!("`{ty}` has no element `{name}`{near}"))
    }

    /// The element of each item, nulls left out, lists joined.
    fn each_property(&mut self, source: Expression, name: &str) -> Expression {
        let item = source.ty.element().cloned().unwrap_or(Type::Any);
        let slot = self.slot();
        let each = self.property(self.made(Kind::Slot(slot), item), name);
        let missing = self.applied("IsNull", vec![each.clone()], Type::Boolean);
        let present = self.applied("Not", vec![missing], Type::Boolean);
        let (ty, nested) = (each.ty.clone(), each.ty.is_list());
        let query = Query {
            sources: vec![Source::new(slot, "$this".into(), source)],
            lets: Vec::new(),
            relationships: Vec::new(),
            condition: Some(present),
            returning: Some(Return { expression: each, distinct: false }),
            aggregate: None,
            sort: None,
            singular: false,
        };
        let list = self.made(Kind::Query(Box::new(query)), Type::list(ty.clone()));
        if nested { self.applied("Flatten", vec![list], ty) } else { list }
    }

    /// The element of whichever alternative the value is.
    fn choice_property(&mut self, source: Expression, types: &[Type], name: &str) -> Expression {
        let having: Vec<Type> = types.iter().filter(|ty| self.element_type(ty, name).is_some()).cloned().collect();
        if having.is_empty() {
            return self.no_element(&source.ty, name);
        }
        let mut items = Vec::with_capacity(having.len());
        for ty in having {
            let test = Kind::Is { operand: Box::new(source.clone()), target: ty.clone() };
            let held = Kind::As { operand: Box::new(source.clone()), target: ty.clone(), strict: false };
            let value = self.property(self.made(held, ty), name);
            items.push((self.made(test, Type::Boolean), value));
        }
        let ty = Type::choice(items.iter().map(|(_, value)| value.ty.clone()));
        let otherwise = Box::new(self.null(ty.clone()));
        self.made(Kind::Case { comparand: None, items, otherwise }, ty)
    }

    /// A path from a class as its elements, for the filters of a retrieve.
    pub(super) fn element_path(&mut self, class: &str, path: &str) -> Option<Vec<Element>> {
        let mut types = vec![Type::class(class)];
        let mut elements = Vec::new();
        for name in path.split('.') {
            // Of a choice, what of its types have the element.
            let found: Vec<(Element, Type)> = types
                .iter()
                .filter_map(|ty| match ty {
                    Type::Class(class) => self.fhir.resolve(class, name),
                    _ => None,
                })
                .collect();
            let Some((mut element, _)) = found.first().cloned() else {
                self.no_element(&Type::choice(types), name);
                return None;
            };
            element.alternatives = found.iter().flat_map(|(element, _)| element.alternatives.iter().cloned()).collect();
            element.alternatives.dedup();
            types = found.into_iter().flat_map(|(_, ty)| alternatives(ty.element().unwrap_or(&ty))).collect();
            elements.push(element);
        }
        Some(elements)
    }
}

fn alternatives(ty: &Type) -> Vec<Type> {
    match ty {
        Type::Choice(types) => types.to_vec(),
        one => vec![one.clone()],
    }
}

/// Elements of the structured system types.
fn system_element(ty: &Type, name: &str) -> Option<Type> {
    Some(match (ty, name) {
        (Type::Quantity, "value") => Type::Decimal,
        (Type::Quantity, "unit") => Type::String,
        (Type::Ratio, "numerator" | "denominator") => Type::Quantity,
        (Type::Code, "code" | "system" | "version" | "display") => Type::String,
        (Type::Concept, "codes") => Type::list(Type::Code),
        (Type::Concept, "display") => Type::String,
        (Type::ValueSet | Type::CodeSystem | Type::Vocabulary, "id" | "version" | "name") => Type::String,
        _ => return None,
    })
}
