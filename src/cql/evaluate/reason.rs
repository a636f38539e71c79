//! Why a criterion is unknown: the leaves that were null, with their place in the text.

use super::{Frame, Session};
use crate::cql::typed::{Comparator, Define, DefineId, Element, Expression, Function, FunctionId, Kind, Let, LibraryId, Query};
use crate::cql::value::Value;
use crate::fhir::record::{NodeId, NodeKind};

/// Most reasons reported for one define.
pub const REASONS_MAX: usize = 16;
/// Deepest descent through defines and operands while looking for reasons.
pub(super) const DESCENT_MAX: usize = 64;

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
    /// The resource that does not say it.
    pub of: Option<NodeId>,
    /// Where it stands: library and line.
    pub at: Option<(String, usize)>,
}

/// What the expressions of a body see while they are looked into: its variables, and the `let`s around.
pub(super) struct Scope<'a> {
    pub(super) frame: Frame,
    pub(super) lets: Vec<&'a Let>,
}

impl Scope<'_> {
    pub(super) fn new(slots: u32) -> Self {
        Scope { frame: vec![Value::Null; slots as usize], lets: Vec::new() }
    }
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
        self.in_define(define, |session, body, scope| session.descend(body, scope, reasons, depth));
    }

    /// Looks into the body of a define.
    pub(super) fn in_define<T>(&mut self, define: DefineId, look: impl FnOnce(&mut Self, &'a Expression, &mut Scope<'a>) -> T) -> Option<T> {
        let Define { library, body, slots, .. } = self.program.tree().defines.get(define.index())?;
        Some(self.at_home(*library, |session| look(session, body, &mut Scope::new(*slots))))
    }

    /// Looks into the body of a function that is called with these operands.
    pub(super) fn in_call<T>(
        &mut self,
        function: FunctionId,
        operands: &'a [Expression],
        scope: &mut Scope<'a>,
        look: impl FnOnce(&mut Self, &'a Expression, &mut Scope<'a>) -> T,
    ) -> Option<T> {
        let Function { library, body, slots, .. } = self.program.tree().functions.get(function.index())?;
        let body = body.as_ref()?;
        let mut frame = self.values(operands, &mut scope.frame).ok()?;
        frame.resize((*slots as usize).max(frame.len()), Value::Null);
        Some(self.at_home(*library, |session| look(session, body, &mut Scope { frame, lets: Vec::new() })))
    }

    /// In the library that what is looked at belongs to.
    fn at_home<T>(&mut self, home: LibraryId, look: impl FnOnce(&mut Self) -> T) -> T {
        let place = |session: &mut Self, home| {
            let Session { library, .. } = session;
            std::mem::replace(library, home)
        };
        let outer = place(self, home);
        let found = look(self);
        place(self, outer);
        found
    }

    /// The leaves for which an expression is null, evaluated again: only unknowns pay for their reasons.
    pub(super) fn descend(&mut self, expression: &'a Expression, scope: &mut Scope<'a>, reasons: &mut Vec<Reason>, depth: usize) {
        if depth > DESCENT_MAX || reasons.len() >= REASONS_MAX || !self.expression(expression, &mut scope.frame).is_ok_and(|value| is_unknown(&value)) {
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
            Kind::Case { comparand, items, otherwise } => match items.iter().find(|(when, _)| comparand.is_none() && self.holds(when, scope)) {
                Some((_, then)) => vec![then],
                None => items.iter().map(|(_, then)| then).chain([&**otherwise]).collect(),
            },
            Kind::As { operand, .. } => vec![operand],
            Kind::Property { source, .. } => vec![source],
            Kind::Interval(parts) => vec![&parts.low, &parts.high],
            Kind::Slot(slot) => scope.lets.iter().filter(|one| one.slot == *slot).map(|one| &one.expression).collect(),
            Kind::Parameter(_) => return self.note(reasons, ReasonKind::NoParameter, expression, None, "the parameter has no value".to_owned()),
            _ => Vec::new(),
        };
        for child in children {
            self.descend(child, scope, reasons, depth + 1);
        }
        if let Kind::Call { function, operands } = &expression.kind
            && reasons.len() == before
        {
            self.in_call(*function, operands, scope, |session, body, scope| session.descend(body, scope, reasons, depth + 1));
            // The author looks where the function is called.
            let at = self.place(expression);
            reasons.iter_mut().skip(before).for_each(|reason| reason.at.clone_from(&at));
        }
        if reasons.len() == before {
            self.own_reason(expression, scope, reasons);
        }
    }

    fn holds(&mut self, condition: &'a Expression, scope: &mut Scope<'a>) -> bool {
        self.expression(condition, &mut scope.frame).is_ok_and(|value| value.truth() == Some(true))
    }

    /// Why an expression is null whose parts are not.
    fn own_reason(&mut self, expression: &'a Expression, scope: &mut Scope<'a>, reasons: &mut Vec<Reason>) {
        if let Kind::Property { source, element } = &expression.kind
            && let Ok(Value::Node(node, _)) = self.expression(source, &mut scope.frame)
        {
            return self.note(reasons, ReasonKind::NotDocumented, expression, Some(node), self.missing(node, element));
        }
        if let Kind::As { operand, target, .. } = &expression.kind
            && let Ok(Value::Node(node, _)) = self.expression(operand, &mut scope.frame)
        {
            return self.note(reasons, ReasonKind::NotDocumented, expression, Some(node), format!("`{}` is no `{target}`", self.path(node)));
        }
        if let (Kind::Message(_), Some(node)) = (&expression.kind, self.with_comparator(&scope.frame)) {
            let text = format!("`{}` has a comparator, as `>` or `<`: how large it is is not known", self.path(node));
            return self.note(reasons, ReasonKind::CannotTell, expression, Some(node), text);
        }
        let before = reasons.len();
        let mut sources = Vec::new();
        self.empty_sources(expression, self.library, &mut sources, 0);
        for text in sources {
            self.note(reasons, ReasonKind::NothingFound, expression, None, text);
        }
        if reasons.len() > before {
            return;
        }
        match &expression.kind {
            Kind::Property { element, .. } => {
                self.note(reasons, ReasonKind::NotDocumented, expression, None, format!("`{}` is not documented", element.name));
            }
            Kind::Operator { operator, operands, .. } => {
                let values: Vec<Value> = operands.iter().map(|operand| self.expression(operand, &mut scope.frame).unwrap_or_default()).collect();
                let unlike = <&[Value; 2]>::try_from(values.as_slice()).ok().and_then(|values| self.unlike_units(values));
                let why = unlike.map_or_else(
                    || format!("`{}` cannot be told from what is known", operator.name),
                    |(left, right)| format!("`{}` cannot be told: `{left}` cannot be compared with `{right}`", operator.name),
                );
                self.note(reasons, ReasonKind::CannotTell, expression, None, why);
            }
            Kind::Literal(_) => {}
            _ => self.note(reasons, ReasonKind::NotDocumented, expression, None, "no value is documented".to_owned()),
        }
    }

    /// What is not said of a node: an element that it has not, or its own value.
    fn missing(&self, node: NodeId, element: &Element) -> String {
        let is_own_value = element.alternatives.iter().all(|alternative| alternative.field.is_empty());
        match (is_own_value, self.context.record.kind(node)) {
            (true, NodeKind::Null) => format!("`{}` is not documented", self.path(node)),
            (true, _) => format!("`{}` cannot be read", self.path(node)),
            (false, _) => format!("`{}.{}` is not documented", self.path(node), element.name),
        }
    }

    /// The path of a node from its resource, as `Encounter.period`.
    fn path(&self, node: NodeId) -> String {
        self.context.record.place(node).map(|place| place.element).unwrap_or_default()
    }

    pub(super) fn place(&self, expression: &Expression) -> Option<(String, usize)> {
        let Session { program, library, .. } = self;
        let (name, tree) = (&program.tree().libraries.get(library.index())?.name, program.tree());
        Some((name.to_string(), tree.location(*library, expression.at)?.line()))
    }

    fn note(&self, reasons: &mut Vec<Reason>, kind: ReasonKind, expression: &Expression, of: Option<NodeId>, text: String) {
        let reason = Reason { kind, text, of: of.and_then(|node| self.context.record.resource_of(node)), at: self.place(expression) };
        if reasons.len() < REASONS_MAX && !reasons.iter().any(|own| own.text == reason.text && own.of == reason.of) {
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

/// Null, or an interval of which an end is: an open end without a value is not known.
fn is_unknown(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Interval(interval) => (interval.low.is_null() && !interval.low_closed) || (interval.high.is_null() && !interval.high_closed),
        _ => false,
    }
}
