//! What the clauses of a library came to while it was evaluated: the basis of clause coverage.
//!
//! A clause is an expression of the text that decides something: one of type Boolean, or a list. A truth that never held, or
//! never failed, and a list that never had an item, may as well say anything: no test patient would tell.

use std::collections::BTreeMap;

use super::Session;
use crate::cql::Program;
use crate::cql::typed::{Expression, Form, Kind, LibraryId};
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::diagnostic::Span;

/// Deepest expression that is looked into.
const DEPTH_MAX: usize = 500;

/// What one clause came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// True, or a list with items.
    pub held: bool,
    /// False or null, or a list without items.
    pub failed: bool,
}

/// What clauses came to, by library and place.
#[derive(Clone, Debug, Default)]
pub struct Observed(BTreeMap<(LibraryId, Span), Seen>);

impl Observed {
    /// Adds what another evaluation saw.
    pub fn merge(&mut self, other: &Observed) {
        for (clause, seen) in &other.0 {
            let own = self.0.entry(*clause).or_default();
            own.held |= seen.held;
            own.failed |= seen.failed;
        }
    }

    /// What a clause came to.
    pub fn seen(&self, library: LibraryId, at: Span) -> Seen {
        self.0.get(&(library, at)).copied().unwrap_or_default()
    }
}

impl<'a> Session<'a> {
    /// The same session, that notes what each clause comes to.
    pub fn observing(self) -> Self {
        Session { observed: Some(Box::default()), ..self }
    }

    /// What was noted.
    pub fn observed(&self) -> &Observed {
        static NOTHING: Observed = Observed(BTreeMap::new());
        self.observed.as_deref().unwrap_or(&NOTHING)
    }

    /// Apart, so that evaluation without an observer pays one test.
    #[inline(never)]
    pub(super) fn note_clause(&mut self, expression: &Expression, value: &Value) {
        let held = match value {
            Value::Boolean(truth) => *truth,
            Value::List(items) => !items.is_empty(),
            Value::Null => false,
            _ => return,
        };
        let clause = (self.library, expression.at);
        if let Some(observed) = &mut self.observed {
            let seen = observed.0.entry(clause).or_default();
            seen.held |= held;
            seen.failed |= !held;
        }
    }
}

/// One clause of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The definition or function that it is part of.
    pub within: String,
    /// Where it stands.
    pub at: Span,
    /// A list: tested once it has held an item. A truth is tested when it has come out both ways.
    pub is_list: bool,
}

/// The clauses of a library's text, by place, each once: of definitions that the program needs and of functions. ELM has
/// none: what stands there is no text of an author.
pub fn clauses(program: &Program, library: LibraryId) -> Vec<Clause> {
    let tree = program.tree();
    if tree.libraries.get(library.index()).is_some_and(|library| library.form == Form::Elm) {
        return Vec::new();
    }
    // The `Patient` that a context implies is nobody's text.
    let defines = program.defines_of(library).filter(|define| &*define.name != "Patient").map(|define| (&define.name, Some(&define.body)));
    let functions = tree
        .functions
        .iter()
        .filter(|function| function.library == library)
        .map(|function| (&function.name, function.body.as_ref()));
    let mut found = BTreeMap::new();
    for (name, body) in defines.chain(functions) {
        if let Some(body) = body {
            let mut places = Vec::new();
            collect(body, false, 0, &mut places);
            for (at, is_list) in places {
                found.entry(at).or_insert_with(|| Clause { within: name.to_string(), at, is_list });
            }
        }
    }
    found.into_values().collect()
}

/// `streamed`: the operand of an operator that takes its rows one by one, so that no list ever comes to be.
fn collect(expression: &Expression, streamed: bool, depth: usize, places: &mut Vec<(Span, bool)>) {
    let decides = matches!(expression.ty, Type::Boolean | Type::List(_))
        && !matches!(expression.kind, Kind::Literal(_) | Kind::Slot(_) | Kind::ValueSet(_) | Kind::Parameter(_) | Kind::List(_));
    if decides && !streamed {
        places.push((expression.at, expression.ty.is_list()));
    }
    if depth < DEPTH_MAX {
        let streams = matches!(&expression.kind, Kind::Operator { operator, .. } if ["Exists", "First", "Count"].contains(&operator.name));
        for child in expression.children() {
            collect(child, streams && matches!(child.kind, Kind::Query(_)), depth + 1, places);
        }
    }
}
