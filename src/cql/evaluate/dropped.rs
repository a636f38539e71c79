//! Rows that a query dropped because a condition was null: which, and what is not known of them. And those that did not meet one: which one.
//!
//! To CQL a condition that is null fails, so an empty query looks the same whether its rows did not meet the conditions or
//! nobody knows whether they do. Whoever explains asks for the difference; evaluation itself takes no note of it.

use super::Session;
use super::query::{Rows, set};
use super::reason::{DESCENT_MAX, Reason, Scope};
use crate::cql::typed::{DefineId, Expression, Kind, LibraryId, Query, Relationship, Source};
use crate::cql::value::Value;

/// A row that a query dropped though it may meet the conditions.
#[derive(Debug)]
pub struct Row {
    /// What it is made of: one value for each source.
    pub values: Vec<Value>,
    /// What is not known.
    pub reasons: Vec<Reason>,
}

/// A condition that a row did not meet.
#[derive(Debug)]
pub struct Failure<'a> {
    /// Where it stands.
    pub library: LibraryId,
    /// The condition; of a relationship what is asked of the related row.
    pub expression: &'a Expression,
    /// What it came to.
    pub value: Value,
    /// The relationship that it is of.
    pub of: Option<&'a Relationship>,
    /// What it is made of.
    pub parts: Vec<Failure<'a>>,
}

/// The rows that were dropped.
#[derive(Debug, Default)]
pub struct Dropped<'a> {
    /// The first of them.
    pub rows: Vec<Row>,
    /// How many there are.
    pub count: usize,
    /// The first of those that did not meet a condition, each with what it is made of, and how many there are.
    pub failed: Vec<(Vec<Value>, Vec<Failure<'a>>)>,
    /// How many there are of these.
    pub failed_count: usize,
    rows_max: usize,
    failed_max: usize,
}

impl<'a> Session<'a> {
    /// The rows that a query, or the query that a function is, dropped: at most so many of each sort, and how many.
    /// The part is one of the define's body that stands outside its queries.
    pub fn dropped(&mut self, define: DefineId, part: &'a Expression, rows_max: usize) -> Dropped<'a> {
        let mut found = Dropped { rows_max, failed_max: rows_max, ..Dropped::default() };
        self.in_define(define, |session, _, scope| session.dropped_of(part, scope, &mut found, 0));
        found
    }

    fn dropped_of(&mut self, expression: &'a Expression, scope: &mut Scope<'a>, found: &mut Dropped<'a>, depth: usize) {
        match &expression.kind {
            _ if depth > DESCENT_MAX => {}
            Kind::Query(query) => self.dropped_by(query, scope, found, depth),
            Kind::Call { function, operands } => {
                self.in_call(*function, operands, scope, |session, body, scope| session.dropped_of(body, scope, found, depth + 1));
            }
            Kind::As { operand, .. } => self.dropped_of(operand, scope, found, depth + 1),
            _ => {}
        }
    }

    fn dropped_by(&mut self, query: &'a Query, scope: &mut Scope<'a>, found: &mut Dropped<'a>, depth: usize) {
        let sources: Vec<Rows> = query.sources.iter().map(|source| self.source_rows(source, scope)).collect();
        let lets = scope.lets.len();
        scope.lets.extend(&query.lets);
        self.each_row(query, &sources, &mut Vec::new(), scope, found, depth);
        scope.lets.truncate(lets);
    }

    fn source_rows(&mut self, source: &'a Source, scope: &mut Scope<'a>) -> Rows {
        Rows::of(self.expression(&source.expression, &mut scope.frame).unwrap_or_default(), &source.expression.ty)
    }

    fn each_row(&mut self, query: &'a Query, sources: &[Rows], row: &mut Vec<Value>, scope: &mut Scope<'a>, found: &mut Dropped<'a>, depth: usize) {
        let Some((source, rows)) = query.sources.get(row.len()).zip(sources.get(row.len())) else {
            let mut reasons = Vec::new();
            match self.meets(query, scope, &mut reasons, depth) {
                Some(true) => {}
                Some(false) => {
                    found.failed_count += 1;
                    if found.failed.len() < found.failed_max {
                        found.failed.push((row.clone(), self.failures(query, scope, depth)));
                    }
                }
                None => {
                    found.count += 1;
                    if found.rows.len() < found.rows_max {
                        found.rows.push(Row { values: row.clone(), reasons });
                    }
                }
            }
            return;
        };
        let mut position = 0;
        while let Some(value) = rows.get(position) {
            if let Some(index) = source.index {
                set(&mut scope.frame, index, Value::Integer(i32::try_from(position).unwrap_or(i32::MAX)));
            }
            set(&mut scope.frame, source.slot, value.clone());
            row.push(value);
            self.each_row(query, sources, row, scope, found, depth);
            row.pop();
            position += 1;
        }
    }

    /// Whether the row in the frame meets the conditions of a query; `None` if that is not known, with the reasons.
    fn meets(&mut self, query: &'a Query, scope: &mut Scope<'a>, reasons: &mut Vec<Reason>, depth: usize) -> Option<bool> {
        for variable in &query.lets {
            let value = self.expression(&variable.expression, &mut scope.frame).unwrap_or_default();
            set(&mut scope.frame, variable.slot, value);
        }
        let mut all = Some(true);
        for relationship in &query.relationships {
            let related = self.related(relationship, scope, reasons, depth);
            // A row is kept that may be `without`.
            all = both(all, if relationship.without { Some(related != Some(true)) } else { related });
        }
        match &query.condition {
            Some(condition) if all != Some(false) => both(all, self.known(condition, scope, reasons, depth + 1)),
            _ => all,
        }
    }

    /// Which conditions of a query the row in the frame does not meet: relationships first, as they are asked.
    fn failures(&mut self, query: &'a Query, scope: &mut Scope<'a>, depth: usize) -> Vec<Failure<'a>> {
        let mut found = Vec::new();
        for relationship in &query.relationships {
            let is_related = self.related(relationship, scope, &mut Vec::new(), depth) == Some(true);
            if is_related == relationship.without {
                let (Session { library, .. }, value) = (&*self, Value::Boolean(is_related));
                found.push(Failure { library: *library, expression: &relationship.such_that, value, of: Some(relationship), parts: Vec::new() });
            }
        }
        if let Some(condition) = query.condition.as_ref().filter(|_| found.is_empty()) {
            self.false_parts(condition, scope, &mut found);
        }
        found
    }

    /// Of a condition the parts that are false.
    fn false_parts(&mut self, condition: &'a Expression, scope: &mut Scope<'a>, found: &mut Vec<Failure<'a>>) {
        if let Kind::And(pair) = &condition.kind {
            pair.iter().for_each(|part| self.false_parts(part, scope, found));
            return;
        }
        let Some(failure) = self.failure(condition, scope).filter(|failure| failure.value.truth() == Some(false)) else { return };
        let parts = match &condition.kind {
            Kind::Operator { operands, .. } => operands.iter().filter_map(|operand| self.failure(operand, scope)).collect(),
            Kind::Call { function, operands } => {
                let body = self.in_call(*function, operands, scope, |session, body, scope| session.failure(body, scope));
                body.flatten().into_iter().collect()
            }
            _ => Vec::new(),
        };
        found.push(Failure { parts, ..failure });
    }

    /// An expression and what it comes to, if that can be had.
    fn failure(&mut self, expression: &'a Expression, scope: &mut Scope<'a>) -> Option<Failure<'a>> {
        let value = self.expression(expression, &mut scope.frame).ok()?;
        let Session { library, .. } = self;
        Some(Failure { library: *library, expression, value, of: None, parts: Vec::new() })
    }

    fn related(&mut self, relationship: &'a Relationship, scope: &mut Scope<'a>, reasons: &mut Vec<Reason>, depth: usize) -> Option<bool> {
        let source = &relationship.source;
        let rows = self.source_rows(source, scope);
        if rows.get(0).is_none() {
            return self.known(&source.expression, scope, reasons, depth + 1);
        }
        let (mut position, mut any) = (0, Some(false));
        while let Some(value) = rows.get(position).filter(|_| any != Some(true)) {
            set(&mut scope.frame, source.slot, value);
            any = either(any, self.known(&relationship.such_that, scope, reasons, depth + 1));
            position += 1;
        }
        any
    }

    /// Whether a truth holds or a list has items, where what was dropped for being null is taken as not known. What ends in an error is
    /// taken as it is: the evaluation did without it.
    fn known(&mut self, expression: &'a Expression, scope: &mut Scope<'a>, reasons: &mut Vec<Reason>, depth: usize) -> Option<bool> {
        let before = reasons.len();
        let known = match self.expression(expression, &mut scope.frame) {
            _ if depth > DESCENT_MAX => Some(false),
            Ok(Value::Null) => {
                self.descend(expression, scope, reasons, depth);
                None
            }
            Ok(Value::Boolean(false)) => self.known_of_none(expression, scope, reasons, depth),
            Ok(Value::List(items)) if items.is_empty() => self.known_of_none(expression, scope, reasons, depth),
            found => Some(found.is_ok()),
        };
        if known.is_some() {
            reasons.truncate(before);
        }
        known
    }

    /// The same of what is false or empty.
    fn known_of_none(&mut self, expression: &'a Expression, scope: &mut Scope<'a>, reasons: &mut Vec<Reason>, depth: usize) -> Option<bool> {
        match &expression.kind {
            Kind::And(pair) => {
                let left = self.known(&pair[0], scope, reasons, depth + 1);
                if left == Some(false) { left } else { both(left, self.known(&pair[1], scope, reasons, depth + 1)) }
            }
            Kind::Or(pair) => self.any_known(&**pair, scope, reasons, depth),
            Kind::Operator { operator, operands, .. } if ["Exists", "Union", "Flatten", "Distinct"].contains(&operator.name) => self.any_known(operands, scope, reasons, depth),
            Kind::As { operand, .. } => self.known(operand, scope, reasons, depth + 1),
            Kind::Define(define) => self.in_define(*define, |session, body, scope| session.known(body, scope, reasons, depth + 1))?,
            Kind::Call { function, operands } => self.in_call(*function, operands, scope, |session, body, scope| session.known(body, scope, reasons, depth + 1))?,
            Kind::Query(query) => {
                let mut found = Dropped { rows_max: 1, ..Dropped::default() };
                self.dropped_by(query, scope, &mut found, depth + 1);
                reasons.extend(found.rows.into_iter().flat_map(|row| row.reasons));
                (found.count == 0).then_some(false)
            }
            _ => Some(false),
        }
    }

    fn any_known(&mut self, operands: &'a [Expression], scope: &mut Scope<'a>, reasons: &mut Vec<Reason>, depth: usize) -> Option<bool> {
        // Each is asked, for its reasons.
        let mut any = Some(false);
        for operand in operands {
            any = either(any, self.known(operand, scope, reasons, depth + 1));
        }
        any
    }
}

fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn either(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    both(left.map(|truth| !truth), right.map(|truth| !truth)).map(|neither| !neither)
}
