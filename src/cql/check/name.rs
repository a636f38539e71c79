//! Names and members: what a name refers to, which element of which type a member is.

use std::sync::Arc;

use super::conversion::Member;
use super::{Checker, Declared, Progress};
use crate::cql::ast::{self, Kind as Written};
use crate::cql::typed::{DefineId, Element, Expression, Kind, LibraryId, Query, Return, Slot, Source};
use crate::cql::types::Type;
use crate::diagnostic::{Span, nearest};

/// After so many faults no nearest name is looked for.
const SUGGESTIONS_MAX: usize = 100;

impl Checker<'_> {
    /// A variable, an element of the row being sorted, or a declaration of this library.
    pub(super) fn bare_name(&mut self, name: &Arc<str>, at: Span) -> Expression {
        if let Some(variable) = self.frame.variables.iter().rev().find(|variable| variable.name == *name) {
            if &**name == "$index" {
                self.frame.indexes.insert(variable.slot);
            }
            return Expression::new(Kind::Slot(variable.slot), variable.ty.clone(), at);
        }
        if let Some(row) = self.frame.row.clone()
            && self.element_type(&row.ty, name).is_some()
        {
            let source = Expression::new(Kind::Slot(row.slot), row.ty, at);
            return self.property(source, &ast::Name { text: name.clone(), at }, at);
        }
        match self.names.get(name).copied() {
            Some(declared) => self.reference(declared, at),
            None => {
                self.unresolved(name, at);
                self.unknown(at)
            }
        }
    }

    fn unresolved(&mut self, name: &str, at: Span) {
        if self.broken.contains(name) {
            return;
        }
        // Past so many faults no suggestion is read, and each costs a look at every name.
        if self.diagnostics.len() > SUGGESTIONS_MAX {
            return self.error(at, format!("nothing here is named `{name}`"));
        }
        let variables: Vec<Arc<str>> = self.frame.variables.iter().map(|variable| variable.name.clone()).collect();
        let row: Vec<String> = self.frame.row.as_ref().map(|row| self.elements_of(&row.ty)).unwrap_or_default();
        let known = self.names.keys().chain(&variables).map(|known| &**known).chain(row.iter().map(String::as_str));
        let is_beside = self.frame.beside.iter().any(|alias| **alias == *name);
        let help = if is_beside && self.frame.row.is_some() {
            Some("a key of `sort by` sees only the elements of what is sorted: write `issued`, not `O.issued`, and return what else is to decide".to_owned())
        } else if is_beside {
            Some("sources and `starting` see no row of their query: put what depends on one into a `with`, a `let` or a query inside".to_owned())
        } else if name == "Patient" {
            Some("write `context Patient` before the first definition".to_owned())
        } else if self.included(name).is_some() {
            Some(format!("`{name}` is an included library: write `{name}.\"…\"`"))
        } else if let Some(alias) = self.alias_of(name) {
            Some(format!("the library `{name}` is called `{alias}` here: write `{alias}` in its place"))
        } else {
            let text = || (self.is_in_quotes(at) && !name.contains(' ')).then(|| format!("names stand in double quotes, text in single ones: `'{name}'`"));
            nearest(name, known).map(|near| format!("did you mean `\"{near}\"`?")).or_else(text)
        };
        self.error_with_help(at, format!("nothing here is named `{name}`"), help);
    }

    /// By what name a library is included that the text calls by its own.
    fn alias_of(&self, name: &str) -> Option<&str> {
        let mut includes = self.ast.includes.iter().filter(|include| include.name.last().is_some_and(|own| *own.text == *name));
        includes.find_map(|include| include.alias.as_ref()).map(|alias| &*alias.text)
    }

    fn is_in_quotes(&self, at: Span) -> bool {
        self.at(at).text().starts_with('"')
    }

    /// The expression that refers to a declaration.
    pub(super) fn reference(&mut self, declared: Declared, at: Span) -> Expression {
        match declared {
            Declared::Define(number) => {
                let ty = self.define_type(number, at);
                Expression::new(Kind::Define(number), ty, at)
            }
            Declared::Parameter(number) => {
                let ty = self.tree.parameters[number.index()].ty.clone();
                Expression::new(Kind::Parameter(number), ty, at)
            }
            Declared::CodeSystem(number) => Expression::new(Kind::CodeSystem(number), Type::CodeSystem, at),
            Declared::ValueSet(number) => Expression::new(Kind::ValueSet(number), Type::ValueSet, at),
            Declared::Code(number) => Expression::new(Kind::Code(number), Type::Code, at),
            Declared::Concept(number) => Expression::new(Kind::Concept(number), Type::Concept, at),
        }
    }

    /// A define's type; its body is checked first if it has not been.
    fn define_type(&mut self, number: DefineId, at: Span) -> Type {
        if let Some(position) = self.defines.iter().position(|(own, _)| *own == number) {
            self.define_body(position);
            if self.defines[position].1 == Progress::Running {
                let name = self.tree.defines[number.index()].name.clone();
                let way = self.running.iter().skip_while(|own| **own != number).chain([&number]);
                let way: Vec<String> = way.map(|own| format!("`{}`", self.tree.defines[own.index()].name)).collect();
                let help = (way.len() > 2).then(|| format!("each asks for the next: {}", way.join(", ")));
                self.error_with_help(at, format!("`{name}` is defined by way of itself"), help);
                return Type::Any;
            }
        }
        self.tree.defines[number.index()].body.ty.clone()
    }

    /// `source.name`, where the source may also be an included library.
    pub(super) fn member(&mut self, source: &ast::Expression, name: &ast::Name, at: Span) -> Expression {
        if let Some(library) = self.library_named(source) {
            return match library {
                Some(library) => self.library_member(library, name, at),
                None => self.unknown(at),
            };
        }
        let source = self.expression(source);
        self.property(source, name, at)
    }

    /// The included library that an expression names, unless a variable or declaration has that name.
    pub(super) fn library_named(&self, source: &ast::Expression) -> Option<Option<LibraryId>> {
        let Written::Name(name) = &source.kind else {
            return None;
        };
        let hidden = self.frame.variables.iter().any(|variable| variable.name == *name) || self.names.contains_key(name);
        if hidden { None } else { self.included(name) }
    }

    fn library_member(&mut self, library: LibraryId, name: &ast::Name, at: Span) -> Expression {
        match self.declared_in(library, &name.text) {
            Some(declared) => self.reference(declared, at),
            None => {
                let names = self.names_in(library);
                let help = nearest(&name.text, names.iter().map(|known| &**known)).map(|near| format!("did you mean `\"{near}\"`?"));
                let library = self.tree.libraries[library.index()].name.clone();
                self.error_with_help(name.at, format!("library `{library}` has nothing public named `{}`", name.text), help);
                self.unknown(at)
            }
        }
    }

    /// The type of an element of a type, if it has one of that name.
    pub(super) fn element_type(&self, ty: &Type, name: &str) -> Option<Type> {
        match ty {
            Type::Class(class) => self.conversions.member(class, name).map(|member| match member {
                Member::Field(_, ty) | Member::View { ty, .. } => ty,
            }),
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
            Type::List(element) => self.element_type(element, name).map(|ty| match ty {
                Type::List(inner) => Type::List(inner),
                single => Type::list(single),
            }),
            system => system_element(system, name),
        }
    }

    /// `source.name` over a value.
    pub(super) fn property(&mut self, source: Expression, name: &ast::Name, at: Span) -> Expression {
        match &source.ty {
            Type::Any => self.unknown(at),
            Type::Class(class) => match self.conversions.member(class, &name.text) {
                Some(Member::Field(element, ty)) => Expression::new(Kind::Property { source: Box::new(source), element }, ty, at),
                Some(Member::View { field, ty, target }) => self.view(source, field, &ty, &target, at),
                None => self.no_member(&source.ty.clone(), name, at),
            },
            Type::List(_) => self.each_property(source, name, at),
            Type::Choice(types) => {
                let types = types.clone();
                self.choice_property(source, &types, name, at)
            }
            ty => match self.element_type(ty, &name.text) {
                Some(ty) => {
                    let element = Element { name: name.text.clone(), alternatives: Vec::new(), list: ty.is_list() };
                    Expression::new(Kind::Property { source: Box::new(source), element }, ty, at)
                }
                None => self.no_member(&source.ty.clone(), name, at),
            },
        }
    }

    fn no_member(&mut self, ty: &Type, name: &ast::Name, at: Span) -> Expression {
        self.no_element(ty, name);
        self.unknown(at)
    }

    /// Reports that a type has no such element, with the nearest that it has.
    pub(super) fn no_element(&mut self, ty: &Type, name: &ast::Name) {
        let names = self.elements_of(ty);
        if names.iter().any(|own| **own == *name.text) {
            let help = Some("it is a slice: choose it by its code, as from `component`".to_owned());
            self.error_with_help(name.at, format!("the model names `{}` in `{ty}` without a place in the data", name.text), help);
            return;
        }
        let help = nearest(&name.text, names.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        self.error_with_help(name.at, format!("`{ty}` has no element `{}`", name.text), help);
    }

    /// The names of a type's elements, for suggestions.
    fn elements_of(&self, ty: &Type) -> Vec<String> {
        match ty {
            Type::Class(class) => {
                let model = self.conversions.model_of(class);
                model.map(|model| model.element_names(class).map(str::to_owned).collect()).unwrap_or_default()
            }
            Type::Tuple(elements) => elements.iter().map(|(name, _)| name.to_string()).collect(),
            _ => Vec::new(),
        }
    }

    /// A path through a list: the element of each item, nulls left out, lists joined (CQL, "Path Traversal").
    fn each_property(&mut self, source: Expression, name: &ast::Name, at: Span) -> Expression {
        let item = source.ty.element().cloned().unwrap_or(Type::Any);
        let slot = self.slot();
        let each = self.property(Expression::new(Kind::Slot(slot), item, source.at), name, at);
        if each.ty == Type::Any {
            return self.unknown(at);
        }
        let each = self.lists_alike(each);
        let present = self.operation("IsNull", vec![each.clone()], None, at);
        let present = self.operation("Not", vec![present], None, at);
        let ty = Type::list(each.ty.clone());
        let nested = each.ty.is_list();
        let query = each_row(source, slot, Some(present), each);
        let list = Expression::new(Kind::Query(Box::new(query)), ty, at);
        if nested { self.operation("Flatten", vec![list], None, at) } else { list }
    }

    /// Of alternatives of which some are lists all become lists, which can be joined.
    fn lists_alike(&mut self, each: Expression) -> Expression {
        let (Kind::Case { comparand: None, items, .. }, Type::Choice(types)) = (&each.kind, &each.ty) else { return each };
        if !types.iter().any(Type::is_list) {
            return each;
        }
        let ty = Type::list(Type::choice(types.iter().map(|ty| ty.element().unwrap_or(ty).clone())));
        let alike = items.iter().map(|(test, value)| {
            let is_list = value.ty.is_list();
            (test.clone(), if is_list { value.clone() } else { self.operation("ToList", vec![value.clone()], None, each.at) })
        });
        let items = alike.collect();
        Expression::new(Kind::Case { comparand: None, items, otherwise: Box::new(Expression::null(ty.clone(), each.at)) }, ty, each.at)
    }

    /// The element of whichever alternative the value is.
    fn choice_property(&mut self, source: Expression, types: &[Type], name: &ast::Name, at: Span) -> Expression {
        let having: Vec<Type> = types.iter().filter(|ty| self.element_type(ty, &name.text).is_some()).cloned().collect();
        if having.is_empty() {
            return self.no_member(&source.ty.clone(), name, at);
        }
        let mut items = Vec::with_capacity(having.len());
        for ty in having {
            let test = Kind::Is { operand: Box::new(source.clone()), target: ty.clone() };
            let held = Kind::As { operand: Box::new(source.clone()), target: ty.clone(), strict: false };
            let value = self.property(Expression::new(held, ty, at), name, at);
            items.push((Expression::new(test, Type::Boolean, at), value));
        }
        let ty = Type::choice(items.iter().map(|(_, value)| value.ty.clone()));
        let otherwise = Box::new(Expression::null(ty.clone(), at));
        Expression::new(Kind::Case { comparand: None, items, otherwise }, ty, at)
    }
}

pub(super) fn each_row(source: Expression, slot: Slot, condition: Option<Expression>, result: Expression) -> Query {
    Query {
        sources: vec![Source::new(slot, "$this".into(), source)],
        lets: Vec::new(),
        relationships: Vec::new(),
        condition,
        returning: Some(Return { expression: result, distinct: false }),
        aggregate: None,
        sort: None,
        singular: false,
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
