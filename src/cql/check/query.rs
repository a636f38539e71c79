//! Retrieves and queries.

use std::sync::Arc;

use super::{Checker, Variable};
use crate::cql::ast;
use crate::cql::context::OTHERS_DATA;
use crate::cql::typed::{Aggregate, CodeFilter, Comparator, Expression, Kind, Let, Query, Relationship, Retrieve, Return, Sort, SortKey, Source};
use crate::cql::types::Type;
use crate::diagnostic::{Span, nearest};

/// Aggregates of a library that are checked again for a wider accumulator; in one another they double the work each time.
const RECHECKED_MAX: usize = 4096;

impl Checker<'_> {
    /// `[Class: path in codes]`
    pub(super) fn retrieve(&mut self, retrieve: &ast::Retrieve, at: Span) -> Expression {
        if let Some(context) = &retrieve.context {
            let message = format!("`[{} -> …]` asks for the data of somebody else: {OTHERS_DATA}", context.text());
            self.error(context.at, message);
        }
        let Some((class, resource_type, code_path)) = self.retrievable(&retrieve.class) else {
            return self.unknown(at);
        };
        let code = self.code_filter(retrieve, &class, code_path.as_deref());
        let ty = Type::list(Type::Class(class.clone()));
        let model = self.conversions.model_of(&class);
        let fixed = model.zip(self.conversions.fhir()).map_or_else(Vec::new, |(model, fhir)| model.fixed(&class, fhir));
        // As the reference translator has it: who writes the element asks for codes in it, and for nothing that stands in their place.
        let negated = retrieve.code_path.is_none() && self.may_name_a_value_set(&class, code_path.as_deref());
        let typed = Retrieve { class, resource_type, fixed, code, date: None };
        let whole = typed.of_whole_value_set().filter(|_| negated);
        let made = |one: Retrieve| Expression::new(Kind::Retrieve(Box::new(one)), ty.clone(), at);
        match whole.map(made) {
            Some(whole) => self.operation("Union", vec![made(typed), whole], None, at),
            None => made(typed),
        }
    }

    /// Whether the element by which a class is retrieved is codes or, instead of them, a value set.
    fn may_name_a_value_set(&self, class: &str, element: Option<&str>) -> bool {
        let ty = element.and_then(|element| self.element_type(&Type::class(class), element));
        matches!(ty, Some(Type::Choice(types)) if types.contains(&Type::ValueSet))
    }

    /// The class, its FHIR resource type, its code path.
    #[allow(clippy::type_complexity)]
    fn retrievable(&mut self, path: &ast::Path) -> Option<(std::sync::Arc<str>, std::sync::Arc<str>, Option<std::sync::Arc<str>>)> {
        let name = match path.parts.as_slice() {
            [qualifier, rest] if self.models.iter().any(|(local, _)| *local == qualifier.text) => rest.text.to_string(),
            _ => path.text(),
        };
        let found = self.models.iter().find_map(|(_, model)| {
            let class = model.retrievable(&name)?;
            let code_path = class.retrieve.as_ref().and_then(|retrieve| retrieve.code_path.clone());
            Some((class.name.clone(), self.conversions.resource_type(&class.name), code_path))
        });
        if found.is_none() {
            let names: Vec<&str> = self.models.iter().flat_map(|(_, model)| model.retrievable_names()).collect();
            let help = match nearest(&name, names.into_iter()) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if self.models.is_empty() => Some("say which model the library uses: `using FHIR version '4.0.1'`".to_owned()),
                None => None,
            };
            self.error_with_help(path.at, format!("no resource type `{name}` to retrieve"), help);
        }
        found
    }

    fn code_filter(&mut self, retrieve: &ast::Retrieve, class: &str, default: Option<&str>) -> Option<CodeFilter> {
        let codes = self.expression(retrieve.codes.as_ref()?);
        let path = match (&retrieve.code_path, default) {
            (Some(path), _) => self.element_path(class, path)?,
            (None, Some(default)) => {
                let parts = default.split('.').map(|part| ast::Name { text: part.into(), at: codes.at }).collect();
                self.element_path(class, &ast::Path { parts, at: codes.at })?
            }
            (None, None) => {
                let at = codes.at;
                let help = Some(format!("write the element, as in `[{class}: element in \"Codes\"]`"));
                self.error_with_help(at, format!("`{class}` has no element that is compared when none is written"), help);
                return None;
            }
        };
        let codes = self.retrieve_codes(codes);
        let comparator = match retrieve.comparator {
            Some("~" | "Equivalent") => Comparator::Equivalent,
            Some("=" | "Equal") => Comparator::Equal,
            Some(_) => Comparator::In,
            None if matches!(codes.ty, Type::Code | Type::Concept) => Comparator::Equivalent,
            None => Comparator::In,
        };
        let through_reference = retrieve.code_path.is_none();
        Some(CodeFilter { path, comparator, codes, through_reference })
    }

    /// Codes of a retrieve: terminology as it is, model types as the system's.
    fn retrieve_codes(&mut self, codes: Expression) -> Expression {
        if matches!(codes.ty, Type::ValueSet | Type::CodeSystem | Type::Code | Type::Concept | Type::Any) {
            return codes;
        }
        let wanted = [Type::Code, Type::Concept, Type::list(Type::Code), Type::list(Type::Concept)];
        let best = wanted.iter().filter_map(|ty| self.conversions.way(&codes.ty, ty)).min_by_key(|way| way.cost);
        match best {
            Some(way) => self.step(codes, &way.step),
            None => {
                let at = codes.at;
                let help = Some("compare other elements in a `where`".to_owned());
                self.error_with_help(at, format!("a retrieve compares with a value set, a code or codes, but this is `{}`", codes.ty), help);
                self.unknown(at)
            }
        }
    }

    fn element_path(&mut self, class: &str, path: &ast::Path) -> Option<Vec<crate::cql::typed::Element>> {
        let mut ty = Type::class(class);
        let mut elements = Vec::with_capacity(path.parts.len());
        for name in &path.parts {
            let item = ty.element().cloned().unwrap_or(ty);
            let Type::Class(own) = &item else {
                self.no_element(&item, name);
                return None;
            };
            let Some((element, next)) = self.conversions.field(own, &name.text) else {
                self.no_element(&item, name);
                return None;
            };
            elements.push(element);
            ty = next;
        }
        Some(elements)
    }

    /// A query with its clauses; its variables leave scope with it.
    pub(super) fn query(&mut self, query: &ast::Query, at: Span) -> Expression {
        let depth = self.frame.variables.len();
        let row = self.frame.row.take();
        let typed = self.query_in_scope(query, at);
        self.frame.variables.truncate(depth);
        self.frame.row = row;
        typed
    }

    fn query_in_scope(&mut self, query: &ast::Query, at: Span) -> Expression {
        // No source sees the alias of another: each stands for itself, and a row is one of every combination. `starting` is
        // there before any row.
        let names = query.sources.iter().map(|source| &source.alias).chain(query.lets.iter().map(|(name, _)| name));
        let names: Vec<_> = names.map(|name| name.text.clone()).collect();
        let outer = std::mem::replace(&mut self.frame.beside, names.clone());
        let expressions: Vec<Expression> = query.sources.iter().map(|source| self.source_expression(source)).collect();
        let starting = query.aggregate.as_ref().and_then(|aggregate| aggregate.starting.as_ref()).map(|starting| self.expression(starting));
        self.frame.beside = outer;
        let mut singular = true;
        let mut sources = Vec::with_capacity(query.sources.len());
        let mut rows: Vec<Type> = Vec::with_capacity(query.sources.len());
        for (source, expression) in query.sources.iter().zip(expressions) {
            let (typed, row, list) = self.source(source, expression);
            singular &= !list;
            rows.push(row);
            sources.push(typed);
        }
        let lets = query.lets.iter().map(|(name, expression)| self.let_clause(name, expression)).collect();
        let relationships = query.relationships.iter().map(|relationship| self.relationship(relationship)).collect();
        let condition = query.condition.as_ref().map(|condition| {
            let condition = self.expression(condition);
            self.converted(condition, &Type::Boolean, "the condition of `where`")
        });
        let returning = match &query.returning {
            Some((distinct, expression)) => Some(Return { expression: self.expression(expression), distinct: *distinct }),
            None if sources.len() > 1 && query.aggregate.is_none() => Some(Return { expression: row_tuple(&sources, &rows, at), distinct: false }),
            None => None,
        };
        let aggregate = query.aggregate.as_ref().map(|aggregate| self.aggregate(aggregate, starting));
        let element = returning.as_ref().map_or_else(|| rows.first().cloned().unwrap_or(Type::Any), |row| row.expression.ty.clone());
        let sort = query.sort.as_ref().map(|sort| self.sort(sort, &element, names, at));
        let ty = match &aggregate {
            Some(aggregate) => aggregate.expression.ty.clone(),
            None if singular => element,
            None => Type::list(element),
        };
        let typed = Query { sources, lets, relationships, condition, returning, aggregate, sort, singular };
        Expression::new(Kind::Query(Box::new(typed)), ty, at)
    }

    /// What a source ranges over; a value set as its codes.
    fn source_expression(&mut self, source: &ast::Source) -> Expression {
        let expression = self.expression(&source.expression);
        if expression.ty == Type::ValueSet { self.widened(expression, &Type::list(Type::Code)) } else { expression }
    }

    /// The source, the type of one row of it, whether it is a list.
    fn source(&mut self, source: &ast::Source, expression: Expression) -> (Source, Type, bool) {
        let list = expression.ty.is_list();
        let row = expression.ty.element().cloned().unwrap_or_else(|| expression.ty.clone());
        let slot = self.bind(&source.alias, row.clone());
        (Source::new(slot, source.alias.text.clone(), expression), row, list)
    }

    fn let_clause(&mut self, name: &ast::Name, expression: &ast::Expression) -> Let {
        let expression = self.expression(expression);
        let slot = self.bind(name, expression.ty.clone());
        Let { slot, name: name.text.clone(), expression }
    }

    fn relationship(&mut self, relationship: &ast::Relationship) -> Relationship {
        let depth = self.frame.variables.len();
        let expression = self.source_expression(&relationship.source);
        let (source, _, _) = self.source(&relationship.source, expression);
        let such_that = self.expression(&relationship.such_that);
        let such_that = self.converted(such_that, &Type::Boolean, "the condition of `such that`");
        self.frame.variables.truncate(depth);
        Relationship { without: relationship.without, source, such_that }
    }

    /// The accumulator has the type of its start, or the wider one that the next value needs.
    /// An aggregate that starts with this.
    pub(super) fn aggregate(&mut self, aggregate: &ast::Aggregate, starting: Option<Expression>) -> Aggregate {
        let starting = starting.unwrap_or_else(|| self.unknown(aggregate.name.at));
        let slot = self.bind(&aggregate.name, starting.ty.clone());
        let (found, slots) = (self.diagnostics.len(), self.frame.slots);
        let first = self.expression(&aggregate.expression);
        let ty = self.conversions.common(&starting.ty, &first.ty);
        let expression = if ty == starting.ty || self.rechecked >= RECHECKED_MAX {
            self.converted(first, &starting.ty, "the next value of an aggregate, among so many")
        } else {
            self.rechecked += 1;
            self.diagnostics.truncate(found);
            self.frame.slots = slots;
            if let Some(variable) = self.frame.variables.iter_mut().rev().find(|variable| variable.slot == slot) {
                variable.ty = ty.clone();
            }
            let again = self.expression(&aggregate.expression);
            self.widened(again, &ty)
        };
        let starting = if expression.ty == starting.ty { starting } else { self.widened(starting, &ty) };
        Aggregate { slot, starting, expression, distinct: aggregate.distinct }
    }

    /// A key sees the elements of what is sorted, and neither aliases nor lets of its query: these stand for no row any more
    /// (CQL, author's guide, "Sorting").
    fn sort(&mut self, sort: &ast::Sort, element: &Type, own: Vec<Arc<str>>, at: Span) -> Sort {
        let slot = self.slot();
        let row = Variable { name: "$this".into(), slot, ty: element.clone() };
        let this = Expression::new(Kind::Slot(slot), element.clone(), at);
        let keys = match sort {
            ast::Sort::Direction(descending) => vec![SortKey { expression: self.ordered(this), descending: *descending }],
            ast::Sort::By(keys) => {
                let others = self
                    .frame
                    .variables
                    .iter()
                    .filter(|other| !own.contains(&other.name) && self.element_type(element, &other.name).is_none());
                let seen = others.cloned().collect();
                let hidden = std::mem::replace(&mut self.frame.variables, seen);
                let outer = std::mem::replace(&mut self.frame.beside, own);
                self.frame.row = Some(row.clone());
                self.frame.variables.push(row);
                let keys = keys
                    .iter()
                    .map(|(key, descending)| {
                        let key = self.expression(key);
                        SortKey { expression: self.ordered(key), descending: *descending }
                    })
                    .collect();
                self.frame.variables = hidden;
                self.frame.beside = outer;
                self.frame.row = None;
                keys
            }
        };
        Sort { slot, keys }
    }

    /// A key as a type that has an order: model types as the system type they convert to.
    fn ordered(&mut self, key: Expression) -> Expression {
        let targets = [Type::DateTime, Type::Date, Type::Decimal, Type::Integer, Type::Quantity, Type::Time, Type::String];
        match &key.ty {
            Type::Class(_) | Type::Choice(_) => {
                let best = targets.iter().filter_map(|ty| self.conversions.way(&key.ty, ty)).min_by_key(|way| way.cost);
                match best {
                    Some(way) => self.step(key, &way.step),
                    None => {
                        let (at, ty) = (key.at, key.ty.clone());
                        self.error(at, format!("values of type `{ty}` have no order to sort by"));
                        key
                    }
                }
            }
            _ => key,
        }
    }
}

/// What several sources without `return` mean: a tuple of the aliases.
fn row_tuple(sources: &[Source], rows: &[Type], at: Span) -> Expression {
    let elements: Vec<_> = sources
        .iter()
        .zip(rows)
        .map(|(source, ty)| (source.name.clone(), Expression::new(Kind::Slot(source.slot), ty.clone(), at)))
        .collect();
    let ty = Type::tuple(elements.iter().map(|(name, element)| (name.clone(), element.ty.clone())).collect());
    Expression::new(Kind::Tuple(elements), ty, at)
}
