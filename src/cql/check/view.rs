//! Elements of derived models: how QI-Core's and US Core's elements are made of FHIR data.
//!
//! A model description writes it as the model infos do: `%value` is the field of the same name, `%parent` the instance;
//! paths, filters (`extension[url='…']`) and functions of FHIRHelpers over them; `Type:target;Type:target` by case.

use super::Checker;
use super::name::each_row;
use crate::cql::ast;
use crate::cql::typed::{Element, Expression, Kind};
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::diagnostic::Span;

/// Library whose functions the model descriptions name.
const HELPERS: &str = "FHIRHelpers";
/// Deepest nesting of functions in a target.
const DEPTH_MAX: usize = 8;

/// Where a target starts.
struct View<'a> {
    parent: &'a Expression,
    field: Option<&'a (Element, Type)>,
    ty: &'a Type,
    at: Span,
}

/// One step of a path: an element, and what its items must have.
#[derive(Debug, PartialEq)]
struct Segment<'a> {
    name: &'a str,
    filters: Vec<(&'a str, &'a str)>,
}

impl Checker<'_> {
    /// The element that `target` describes, of type `ty`.
    pub(super) fn view(&mut self, parent: Expression, field: Option<(Element, Type)>, ty: &Type, target: &str, at: Span) -> Expression {
        let view = View { parent: &parent, field: field.as_ref(), ty, at };
        let mut found = match target.contains(';') {
            true => self.by_case(&view, target),
            false => self.target(&view, target, 0),
        };
        // What the functions return is wider than what the profile allows; null stands for the rest.
        if found.ty != *ty {
            found.ty = ty.clone();
        }
        found
    }

    /// `System.Concept:…;System.ValueSet:…`: the first that is there.
    fn by_case(&mut self, view: &View<'_>, target: &str) -> Expression {
        let mut items = Vec::new();
        for case in target.split(';') {
            let Some((name, target)) = case.split_once(':') else { continue };
            let ty = name.strip_prefix("System.").and_then(Type::system).unwrap_or(Type::Any);
            let value = self.target(view, target, 0);
            let test = Kind::Is { operand: Box::new(value.clone()), target: ty };
            items.push((Expression::new(test, Type::Boolean, view.at), value));
        }
        let otherwise = Box::new(Expression::null(view.ty.clone(), view.at));
        Expression::new(Kind::Case { comparand: None, items, otherwise }, view.ty.clone(), view.at)
    }

    fn target(&mut self, view: &View<'_>, target: &str, depth: usize) -> Expression {
        let call = target.strip_suffix(')').and_then(|text| text.split_once('(')).filter(|(name, _)| name.starts_with(HELPERS));
        match call {
            Some((name, inner)) if depth < DEPTH_MAX => {
                let operand = self.target(view, inner, depth + 1);
                self.helper_call(name.rsplit('.').next().unwrap_or(name), operand, view)
            }
            _ => self.target_path(view, target),
        }
    }

    fn helper_call(&mut self, name: &str, operand: Expression, view: &View<'_>) -> Expression {
        if operand.ty == Type::Any {
            return operand;
        }
        let library = self.includes.iter().filter_map(|(_, library)| *library).find(|library| {
            let name = &self.tree.libraries[library.index()].name;
            name.rsplit('.').next() == Some(HELPERS)
        });
        let Some(library) = library else {
            self.error_with_help(view.at, format!("this element needs {HELPERS}, which is not included"), Some(format!("add `include {HELPERS} version '…'` to the library")));
            return self.unknown(view.at);
        };
        let candidates = self.functions_in(library, name, false);
        let name = ast::Name { text: name.into(), at: view.at };
        if operand.ty.is_list() && self.fit(&candidates, std::slice::from_ref(&operand)).is_none() {
            let (slot, item) = (self.slot(), operand.ty.element().cloned().unwrap_or(Type::Any));
            let each = Expression::new(Kind::Slot(slot), item, view.at);
            let each = self.resolved(&name, &candidates, vec![each], view.at);
            let ty = Type::list(each.ty.clone());
            return Expression::new(Kind::Query(Box::new(each_row(operand, slot, None, each))), ty, view.at);
        }
        self.resolved(&name, &candidates, vec![operand], view.at)
    }

    /// `%value.value`, `%parent.extension[url='…'].value`.
    fn target_path(&mut self, view: &View<'_>, target: &str) -> Expression {
        let (root, segments) = match segments(target) {
            Some(found) => found,
            None => return self.no_view(view, target),
        };
        let mut value = match (root, view.field) {
            ("%value", Some((element, ty))) => {
                let kind = Kind::Property { source: Box::new(view.parent.clone()), element: element.clone() };
                Expression::new(kind, ty.clone(), view.at)
            }
            ("%parent", _) => match &view.parent.ty {
                Type::Class(class) => Expression { ty: Type::Class(self.conversions.instance_class(class)), ..view.parent.clone() },
                _ => view.parent.clone(),
            },
            _ => return self.no_view(view, target),
        };
        for segment in segments {
            value = self.target_element(value, segment.name.trim_end_matches("[x]"), view);
            if !segment.filters.is_empty() {
                value = self.filtered(value, &segment.filters, view);
            }
        }
        value
    }

    /// An element of the data. The System value of a choice is that of the alternatives that have the wanted type.
    fn target_element(&mut self, source: Expression, name: &str, view: &View<'_>) -> Expression {
        let wanted = view.ty.element().unwrap_or(view.ty);
        let is_system = !matches!(wanted, Type::Class(_) | Type::Choice(_));
        if let (Type::Choice(types), "value", true) = (&source.ty, name, is_system) {
            let fits = types.iter().filter(|ty| self.element_type(ty, name).as_ref() == Some(wanted)).cloned();
            let narrowed = Type::choice(fits);
            let kind = Kind::As { operand: Box::new(source), target: narrowed.clone(), strict: false };
            let Type::Choice(types) = &narrowed else {
                let source = Expression::new(kind, narrowed, view.at);
                return self.property(source, &ast::Name { text: name.into(), at: view.at }, view.at);
            };
            let first = types.first().cloned().unwrap_or(Type::Any);
            let one = Expression::new(kind, first, view.at);
            return self.property(one, &ast::Name { text: name.into(), at: view.at }, view.at);
        }
        self.property(source, &ast::Name { text: name.into(), at: view.at }, view.at)
    }

    /// The items that have every value; the one there is, where the element is no list.
    fn filtered(&mut self, list: Expression, filters: &[(&str, &str)], view: &View<'_>) -> Expression {
        let (slot, item) = (self.slot(), list.ty.element().cloned().unwrap_or_else(|| list.ty.clone()));
        let ty = Type::list(item.clone());
        let row = Expression::new(Kind::Slot(slot), item, view.at);
        let mut condition: Option<Expression> = None;
        for (path, wanted) in filters {
            let mut value = row.clone();
            for name in path.split('.') {
                value = self.property(value, &ast::Name { text: name.into(), at: view.at }, view.at);
            }
            let name = if value.ty.is_list() { "value" } else { "" };
            let value = if matches!(value.ty.element().unwrap_or(&value.ty), Type::Class(_)) || !name.is_empty() {
                self.property(value, &ast::Name { text: "value".into(), at: view.at }, view.at)
            } else {
                value
            };
            let literal = self.literal(Value::string(wanted), Type::String, view.at);
            let test = match value.ty.is_list() {
                true => self.operation("In", vec![literal, value], None, view.at),
                false => self.operation("Equal", vec![value, literal], None, view.at),
            };
            condition = Some(match condition {
                Some(before) => Expression::new(Kind::And(Box::new([before, test])), Type::Boolean, view.at),
                None => test,
            });
        }
        let query = each_row(list, slot, condition, row);
        let found = Expression::new(Kind::Query(Box::new(query)), ty, view.at);
        if view.ty.is_list() { found } else { self.operation("SingletonFrom", vec![found], None, view.at) }
    }

    fn no_view(&mut self, view: &View<'_>, target: &str) -> Expression {
        self.error(view.at, format!("the model describes this element as `{target}`, which is not understood"));
        self.unknown(view.at)
    }
}

/// A path as its root and segments; `None` when it is none.
fn segments(target: &str) -> Option<(&str, Vec<Segment<'_>>)> {
    let (root, mut rest) = target.split_once('.').unwrap_or((target, ""));
    let mut found = Vec::new();
    while !rest.is_empty() {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if let Some(after) = after.strip_prefix("[x]") {
            found.push(Segment { name, filters: Vec::new() });
            rest = after.strip_prefix('.').unwrap_or(after);
            continue;
        }
        let Some(inside) = after.strip_prefix('[') else {
            found.push(Segment { name, filters: Vec::new() });
            rest = after.strip_prefix('.').unwrap_or(after);
            continue;
        };
        let (filters, after) = inside.split_once(']')?;
        let filters = filters.split(',').map(|filter| {
            let (path, value) = filter.split_once('=')?;
            Some((path, value.trim_matches('\'')))
        });
        found.push(Segment { name, filters: filters.collect::<Option<Vec<_>>>()? });
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    Some((root, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let segment = |name, filters| Segment { name, filters };
        assert_eq!(segments("%value.value"), Some(("%value", vec![segment("value", vec![])])));
        assert_eq!(segments("%value"), Some(("%value", vec![])));
        assert_eq!(
            segments("%parent.code[x].extension[url='http://x.y/z'].value"),
            Some(("%parent", vec![segment("code", vec![]), segment("extension", vec![("url", "http://x.y/z")]), segment("value", vec![])]))
        );
        assert_eq!(
            segments("%parent.component[code.coding.system='s',code.coding.code='c']"),
            Some(("%parent", vec![segment("component", vec![("code.coding.system", "s"), ("code.coding.code", "c")])]))
        );
        assert_eq!(segments("%parent.a[b"), None);
    }
}
