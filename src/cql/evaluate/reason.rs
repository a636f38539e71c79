//! Why a criterion is unknown: the leaves that were null, with their place in the text.

use super::{Outcome, Session};
use crate::cql::typed::{Comparator, DefineId, Expression, Kind, LibraryId, Query};
use crate::cql::value::Value;
use crate::diagnostic::Location;

/// Most reasons reported for one define.
pub const REASONS_MAX: usize = 16;
/// Deepest descent through defines and operands while looking for reasons.
const DESCENT_MAX: usize = 64;

/// What kind of gap made a value unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReasonKind {
    /// No resource answered a retrieve.
    NothingFound,
    /// An element is absent.
    NotDocumented,
    /// A comparison or calculation has no answer: partial dates, units that do not convert.
    CannotTell,
    /// A parameter has no value.
    NoParameter,
}

/// One leaf of an unknown value.
#[derive(Debug, Clone)]
pub struct Reason {
    /// Its kind.
    pub kind: ReasonKind,
    /// In words, naming types, elements and value sets; never a patient's value.
    pub text: String,
    /// The define that has the leaf.
    pub define: String,
    /// Where it stands.
    pub at: Option<Location>,
}

impl<'a> Session<'a> {
    /// A Boolean define as true, false or unknown (`None`: its CQL value is null), with the reasons of an unknown.
    pub fn truth_of(&mut self, define: DefineId) -> Result<(Option<bool>, Vec<Reason>), super::EvaluationError> {
        let value = self.evaluate(define)?;
        if !value.is_null() {
            return Ok((value.truth(), Vec::new()));
        }
        Ok((None, self.reasons(define)))
    }

    /// Why a define is null.
    pub fn reasons(&mut self, define: DefineId) -> Vec<Reason> {
        let mut reasons = Vec::new();
        self.reasons_of_define(define, &mut reasons, 0);
        reasons
    }

    fn reasons_of_define(&mut self, define: DefineId, reasons: &mut Vec<Reason>, depth: usize) {
        let Some(row) = self.program.tree().defines.get(define.index()) else { return };
        let outer = (self.library, self.within);
        self.library = row.library;
        self.within = Some(&row.name);
        self.descend(&row.body, row.slots, reasons, depth);
        (self.library, self.within) = outer;
    }

    /// The value of an expression outside of any query, evaluated again: only unknowns pay for their reasons.
    fn again(&mut self, expression: &'a Expression, slots: u32) -> Outcome {
        let mut frame = vec![Value::Null; slots as usize];
        self.expression(expression, &mut frame)
    }

    fn descend(&mut self, expression: &'a Expression, slots: u32, reasons: &mut Vec<Reason>, depth: usize) {
        if depth > DESCENT_MAX || reasons.len() >= REASONS_MAX || !matches!(self.again(expression, slots), Ok(Value::Null)) {
            return;
        }
        let before = reasons.len();
        let children: Vec<&'a Expression> = match &expression.kind {
            Kind::Define(define) => {
                self.reasons_of_define(*define, reasons, depth + 1);
                return;
            }
            Kind::And(pair) | Kind::Or(pair) | Kind::Implies(pair) => pair.iter().collect(),
            Kind::Operator { operands, .. } | Kind::Call { operands, .. } | Kind::Coalesce(operands) => operands.iter().collect(),
            Kind::If(parts) => parts.iter().collect(),
            Kind::Case { items, otherwise, .. } => items.iter().map(|(_, then)| then).chain([&**otherwise]).collect(),
            Kind::As { operand, .. } => vec![operand],
            Kind::Property { source, .. } => vec![source],
            Kind::Interval(parts) => vec![&parts.low, &parts.high],
            Kind::Parameter(_) => return self.note(reasons, ReasonKind::NoParameter, expression, "the parameter has no value".to_owned()),
            _ => Vec::new(),
        };
        for child in children {
            self.descend(child, slots, reasons, depth + 1);
        }
        if reasons.len() > before {
            return;
        }
        if let Kind::Property { source, element } = &expression.kind
            && !matches!(self.again(source, slots), Ok(Value::Null))
        {
            return self.note(reasons, ReasonKind::NotDocumented, expression, format!("`{}` is not documented", element.name));
        }
        if let Kind::As { operand, target, .. } = &expression.kind
            && !matches!(self.again(operand, slots), Ok(Value::Null))
        {
            return self.note(reasons, ReasonKind::NotDocumented, expression, format!("what is documented is no `{target}`"));
        }
        let mut sources = Vec::new();
        self.empty_sources(expression, self.library, &mut sources, 0);
        for text in sources {
            self.note(reasons, ReasonKind::NothingFound, expression, text);
        }
        if reasons.len() > before {
            return;
        }
        match &expression.kind {
            Kind::Property { element, .. } => {
                self.note(reasons, ReasonKind::NotDocumented, expression, format!("`{}` is not documented", element.name));
            }
            Kind::Operator { operator, .. } => {
                self.note(reasons, ReasonKind::CannotTell, expression, format!("`{}` cannot be told from what is known", operator.name));
            }
            Kind::Literal(_) => {}
            _ => self.note(reasons, ReasonKind::NotDocumented, expression, "no value is documented".to_owned()),
        }
    }

    fn note(&self, reasons: &mut Vec<Reason>, kind: ReasonKind, expression: &Expression, text: String) {
        let reason = Reason { kind, text, define: self.within.unwrap_or_default().to_owned(), at: self.program.tree().location(self.library, expression.at) };
        if reasons.len() < REASONS_MAX && !reasons.iter().any(|own| own.text == reason.text && own.at == reason.at) {
            reasons.push(reason);
        }
    }

    /// Names the retrieves and defines below that found nothing.
    fn empty_sources(&mut self, expression: &'a Expression, library: LibraryId, found: &mut Vec<String>, depth: usize) {
        if depth > DESCENT_MAX {
            return;
        }
        match &expression.kind {
            Kind::Retrieve(retrieve) if self.context.record.resources(&retrieve.resource_type).is_empty() => {
                found.push(format!("no {} at all", retrieve.resource_type));
            }
            Kind::Retrieve(retrieve) => {
                let mut frame = Vec::new();
                if let Ok(Value::List(items)) = self.retrieve(expression, retrieve, &mut frame)
                    && items.is_empty()
                {
                    let of = retrieve.code.as_ref().map(|filter| self.codes_in_words(&filter.codes, filter.comparator));
                    found.push(format!("no {}{}", retrieve.resource_type, of.unwrap_or_default()));
                }
            }
            Kind::Define(define) => {
                let empty = match self.evaluate(*define) {
                    Ok(Value::List(items)) => items.is_empty(),
                    Ok(value) => value.is_null(),
                    Err(_) => false,
                };
                if empty && let Some(row) = self.program.tree().defines.get(define.index()) {
                    found.push(format!("nothing in `{}`", row.name));
                }
            }
            Kind::Query(query) => self.empty_query(query, library, found, depth),
            Kind::Operator { operands, .. } => {
                for operand in operands {
                    self.empty_sources(operand, library, found, depth + 1);
                }
            }
            Kind::As { operand, .. } => self.empty_sources(operand, library, found, depth + 1),
            Kind::Property { source, .. } => self.empty_sources(source, library, found, depth + 1),
            _ => {}
        }
    }

    fn empty_query(&mut self, query: &'a Query, library: LibraryId, found: &mut Vec<String>, depth: usize) {
        let before = found.len();
        for source in &query.sources {
            self.empty_sources(&source.expression, library, found, depth + 1);
        }
        if found.len() == before {
            found.extend(query.sources.iter().map(|source| format!("no `{}` meets the conditions of the query", source.name)));
        }
    }

    fn codes_in_words(&self, codes: &Expression, comparator: Comparator) -> String {
        let tree = self.program.tree();
        let word = if comparator == Comparator::In { "in" } else { "with code" };
        let name = match &codes.kind {
            Kind::ValueSet(id) => tree.value_sets.get(id.index()).map(|row| row.name.clone()),
            Kind::Code(id) => tree.codes.get(id.index()).map(|row| row.name.clone()),
            Kind::Concept(id) => tree.concepts.get(id.index()).map(|row| row.name.clone()),
            Kind::Operator { operands, .. } | Kind::List(operands) => {
                return operands.first().map_or(String::new(), |first| self.codes_in_words(first, comparator));
            }
            _ => None,
        };
        name.map_or(" of the codes asked for".to_owned(), |name| format!(" {word} `{name}`"))
    }
}
