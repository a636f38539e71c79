//! Queries and retrieves.

use std::sync::Arc;

use super::definition::{Reader, Role, Variable};
use super::document::{items, text_of};
use super::json::Json;
use crate::cql::context::OTHERS_DATA;
use crate::cql::typed::{Aggregate, CodeFilter, Comparator, DateFilter, Expression, Kind, Let, Query, Relationship, Repeat, Retrieve, Return, Sort, SortKey, Source};
use crate::cql::types::Type;

/// Types that the results of a `Repeat` may have, one after the other.
const REPEATED_TYPES_MAX: usize = 8;

impl<'a> Reader<'a> {
    /// `[Class: path in codes]`. A profile selects by what it fixes, never by `meta.profile`.
    pub(super) fn retrieve(&mut self, node: &'a Json) -> Expression {
        let ty = self.named_type(text_of(node, "dataType").unwrap_or_default());
        let Type::Class(class) = &ty else {
            // What is no type has been reported.
            return if ty == Type::Any { self.null(ty) } else { self.refused(&format!("a retrieve of `{ty}`, which is no resource")) };
        };
        let profile = text_of(node, "templateId").unwrap_or_default();
        let fixed = self.models.fixed_by(profile);
        let code = match node.get("codes") {
            Some(codes) => self.code_filter(class, node, codes),
            None => None,
        };
        let date = match node.get("dateRange") {
            Some(range) => self.date_filter(class, node, range),
            None => None,
        };
        if let Some(context) = node.get("context").filter(|context| !context.is_empty()) {
            self.at_node(context, |reader| reader.fault(&format!("`Retrieve` with `context` asks for the data of somebody else: {OTHERS_DATA}")));
        }
        let resource_type = class.rsplit('.').next().unwrap_or_default().into();
        let retrieve = Retrieve { class: class.clone(), resource_type, fixed, code, date };
        self.made(Kind::Retrieve(Box::new(retrieve)), Type::list(ty))
    }

    fn code_filter(&mut self, class: &str, node: &'a Json, codes: &'a Json) -> Option<CodeFilter> {
        let comparator = match text_of(node, "codeComparator") {
            None | Some("in") => Comparator::In,
            // Some codes contain the one, or are equivalent to it: for a single code both mean that it is among them.
            Some("~" | "contains") => Comparator::Equivalent,
            Some("=") => Comparator::Equal,
            Some(other) => {
                self.fault(&format!("code comparator `{other}` of a retrieve is not supported"));
                return None;
            }
        };
        let codes = self.codes(codes);
        let Some(path) = text_of(node, "codeProperty") else {
            self.fault("a retrieve with `codes` and without `codeProperty`");
            return None;
        };
        Some(CodeFilter { path: self.element_path(class, path)?, comparator, codes, through_reference: false })
    }

    /// The codes; of one code made a list, the code.
    fn codes(&mut self, node: &'a Json) -> Expression {
        let single = text_of(node, "type") == Some("ToList");
        let inner = node.get("operand").filter(|_| single).map(|inner| self.expression(inner));
        let codes = match inner {
            Some(inner) if matches!(inner.ty, Type::Code | Type::Concept) => inner,
            _ => self.expression(node),
        };
        let item = codes.ty.element().unwrap_or(&codes.ty);
        if !matches!(item, Type::ValueSet | Type::CodeSystem | Type::Code | Type::Concept | Type::String | Type::Any) {
            return self.refused(&format!("a retrieve compares with a value set, a code or codes, but this is `{}`", codes.ty));
        }
        codes
    }

    fn date_filter(&mut self, class: &str, node: &'a Json, range: &'a Json) -> Option<DateFilter> {
        let range = self.expression(range);
        match text_of(node, "dateProperty") {
            Some(path) => Some(DateFilter { path: self.element_path(class, path)?, range }),
            None => {
                self.fault("a retrieve with `dateRange` and without `dateProperty`");
                None
            }
        }
    }

    /// A query with its clauses; its variables leave scope with it.
    pub(super) fn query(&mut self, node: &'a Json) -> Expression {
        let depth = self.frame.variables.len();
        let typed = self.query_in_scope(node);
        self.frame.variables.truncate(depth);
        typed
    }

    fn query_in_scope(&mut self, node: &'a Json) -> Expression {
        let mut singular = true;
        let mut sources = Vec::new();
        let mut rows: Vec<Type> = Vec::new();
        for source in items(node, "source") {
            let (typed, row, list) = self.source(source);
            singular &= !list;
            rows.push(row);
            sources.push(typed);
        }
        if sources.is_empty() {
            return self.refused("a query without `source`");
        }
        let lets = items(node, "let").iter().map(|variable| self.let_clause(variable)).collect();
        let relationships = items(node, "relationship").iter().map(|relationship| self.relationship(relationship)).collect();
        let condition = node.get("where").map(|condition| self.expression(condition)).map(|condition| self.as_truth(condition));
        let aggregate = node.get("aggregate").map(|aggregate| self.aggregate(aggregate));
        let returning = match node.get("return") {
            Some(returning) => {
                let distinct = returning.get("distinct").and_then(Json::as_bool).unwrap_or(true);
                Some(Return { expression: self.part(returning, "expression"), distinct })
            }
            None if sources.len() > 1 && aggregate.is_none() => Some(Return { expression: self.row_tuple(&sources, &rows), distinct: false }),
            None => None,
        };
        let element = returning.as_ref().map_or_else(|| rows.first().cloned().unwrap_or(Type::Any), |row| row.expression.ty.clone());
        let sort = node.get("sort").map(|sort| self.sort(items(sort, "by"), &element));
        let ty = match &aggregate {
            Some(aggregate) => aggregate.expression.ty.clone(),
            None if singular => element,
            None => Type::list(element),
        };
        self.made(Kind::Query(Box::new(Query { sources, lets, relationships, condition, returning, aggregate, sort, singular })), ty)
    }

    /// The source, the type of one row of it, whether it is a list.
    fn source(&mut self, node: &'a Json) -> (Source, Type, bool) {
        let expression = self.part(node, "expression");
        self.row_of(expression, text_of(node, "alias").unwrap_or("$this"))
    }

    fn row_of(&mut self, expression: Expression, alias: &str) -> (Source, Type, bool) {
        let expression = match expression.ty {
            Type::ValueSet => self.operation("ExpandValueSet", vec![expression], None),
            _ => expression,
        };
        let list = expression.ty.is_list();
        let row = expression.ty.element().cloned().unwrap_or_else(|| expression.ty.clone());
        let slot = self.bind(alias, Role::Alias, row.clone());
        (Source::new(slot, alias.into(), expression), row, list)
    }

    fn let_clause(&mut self, node: &'a Json) -> Let {
        let expression = self.part(node, "expression");
        let name = text_of(node, "identifier").unwrap_or_default();
        Let { slot: self.bind(name, Role::Let, expression.ty.clone()), name: name.into(), expression }
    }

    fn relationship(&mut self, node: &'a Json) -> Relationship {
        let depth = self.frame.variables.len();
        let (source, _, _) = self.source(node);
        let such_that = self.part(node, "suchThat");
        let such_that = self.as_truth(such_that);
        self.frame.variables.truncate(depth);
        let without = match text_of(node, "type") {
            Some("With") => false,
            Some("Without") => true,
            other => {
                self.fault(&format!("relationship `{}` of a query is not supported", other.unwrap_or("without type")));
                false
            }
        };
        Relationship { without, source, such_that }
    }

    /// The accumulator has the type of its start, or what its next value has in common with it.
    fn aggregate(&mut self, node: &'a Json) -> Aggregate {
        let starting = match node.get("starting") {
            Some(starting) => self.expression(starting),
            None => self.null(Type::Any),
        };
        let name = text_of(node, "identifier").unwrap_or_default();
        let slot = self.bind(name, Role::Let, starting.ty.clone());
        let (found, slots) = (self.diagnostics.len(), self.frame.slots);
        let mut expression = self.part(node, "expression");
        let ty = self.joined(&starting.ty, &expression.ty);
        if ty != starting.ty {
            self.diagnostics.truncate(found);
            self.frame.slots = slots;
            if let Some(variable) = self.frame.variables.iter_mut().rev().find(|variable| variable.slot == slot) {
                variable.ty = ty;
            }
            expression = self.part(node, "expression");
        }
        Aggregate { slot, starting, expression, distinct: node.get("distinct").and_then(Json::as_bool).unwrap_or(false) }
    }

    fn sort(&mut self, by: &'a [Json], element: &Type) -> Sort {
        let slot = self.slot();
        let row = Variable { name: "$this".into(), role: Role::Alias, slot, ty: element.clone(), index: None };
        let this = self.made(Kind::Slot(slot), element.clone());
        let outer = self.frame.row.replace(row.clone());
        self.frame.variables.push(row);
        let mut keys = Vec::new();
        for item in by {
            let key = match text_of(item, "type") {
                Some("ByDirection") => this.clone(),
                Some("ByColumn") => {
                    let path = text_of(item, "path").unwrap_or_default();
                    path.split('.').fold(this.clone(), |source, name| self.property(source, name))
                }
                Some("ByExpression") => self.part(item, "expression"),
                other => self.refused(&format!("sort key `{}` is not supported", other.unwrap_or("without type"))),
            };
            let descending = match text_of(item, "direction") {
                Some("asc" | "ascending") | None => false,
                Some("desc" | "descending") => true,
                Some(other) => {
                    self.fault(&format!("sort direction `{other}` is not known"));
                    false
                }
            };
            keys.push(SortKey { expression: self.unwrapped(key), descending });
        }
        self.frame.variables.pop();
        self.frame.row = outer;
        Sort { slot, keys }
    }

    /// `Repeat`: what its element expression makes of the items, and of those results. What these are is known when it makes
    /// nothing of them that is of another type.
    pub(super) fn repeat(&mut self, node: &'a Json) -> Expression {
        let item = |ty: &Type| ty.element().unwrap_or(ty).clone();
        let source = self.part(node, "source");
        let scope: Arc<str> = text_of(node, "scope").unwrap_or("$this").into();
        let mut all = item(&source.ty);
        for _ in 0..REPEATED_TYPES_MAX {
            let (depth, found, slots) = (self.frame.variables.len(), self.diagnostics.len(), self.frame.slots);
            let slot = self.bind(&scope, Role::Alias, all.clone());
            let element = self.part(node, "element");
            let index = self.frame.variables.get(depth).and_then(|variable| variable.index);
            self.frame.variables.truncate(depth);
            let result = item(&element.ty);
            let joined = self.joined(&all, &result);
            if joined == all || self.diagnostics.len() > found {
                let source = Source { index, ..Source::new(slot, scope, source) };
                return self.made(Kind::Repeat(Box::new(Repeat { source, element })), Type::list(result));
            }
            self.frame.slots = slots;
            all = joined;
        }
        self.refused("`Repeat` makes values of ever new types")
    }

    /// The list forms that mean a query: `Filter`, `ForEach`, `Sort`.
    pub(super) fn list_form(&mut self, name: &str, node: &'a Json) -> Expression {
        let depth = self.frame.variables.len();
        let source = self.part(node, "source");
        let scope: Arc<str> = text_of(node, "scope").unwrap_or("$this").into();
        let (source, row, list) = self.row_of(source, &scope);
        let mut query = Query {
            sources: vec![source],
            lets: Vec::new(),
            relationships: Vec::new(),
            condition: None,
            returning: None,
            aggregate: None,
            sort: None,
            singular: !list,
        };
        let mut element = row;
        match name {
            "Filter" => {
                let condition = self.part(node, "condition");
                query.condition = Some(self.as_truth(condition));
            }
            "ForEach" => {
                let expression = self.part(node, "element");
                element = expression.ty.clone();
                query.returning = Some(Return { expression, distinct: false });
            }
            _ => query.sort = Some(self.sort(items(node, "by"), &element)),
        }
        query.sources[0].index = self.frame.variables.get(depth).and_then(|variable| variable.index);
        self.frame.variables.truncate(depth);
        let ty = if list { Type::list(element) } else { element };
        self.made(Kind::Query(Box::new(query)), ty)
    }

    /// What several sources without `return` mean: a tuple of the aliases.
    fn row_tuple(&self, sources: &[Source], rows: &[Type]) -> Expression {
        let slots = sources.iter().zip(rows);
        let elements: Vec<_> = slots.map(|(source, ty)| (source.name.clone(), self.made(Kind::Slot(source.slot), ty.clone()))).collect();
        let ty = Type::tuple(elements.iter().map(|(name, element)| (name.clone(), element.ty.clone())).collect());
        self.made(Kind::Tuple(elements), ty)
    }
}
