//! What a definition in the context Unfiltered may not do: data are one patient's, and it asks for everybody's.
//!
//! In that context a retrieve finds the data of all patients, and a definition of the context Patient is the list of its
//! results over all of them (CQL, "Context", <https://cql.hl7.org/02-authorsguide.html#context>). Neither can be told from
//! one patient's record, so both are errors; a constant is none.

use std::collections::BTreeSet;

use super::typed::{Define, DefineId, EvaluationContext, Expression, FunctionId, Kind, LibraryId, Tree};
use crate::diagnostic::Diagnostic;

/// Why a retrieve in a related context (CQL, "Related Context Retrieves") cannot be.
pub(super) const OTHERS_DATA: &str = "what is evaluated is one patient's record, which holds nobody else's";

/// The faults of what the roots reach.
pub(super) fn faults(tree: &Tree, roots: &[LibraryId]) -> Vec<Diagnostic> {
    let mut walk = Walk { tree, seen: BTreeSet::new(), found: Vec::new() };
    for (index, define) in (0u32..).zip(&tree.defines) {
        if roots.contains(&define.library) {
            walk.define(DefineId(index));
        }
    }
    walk.found
}

struct Walk<'t> {
    tree: &'t Tree,
    seen: BTreeSet<DefineId>,
    found: Vec<Diagnostic>,
}

impl<'t> Walk<'t> {
    fn define(&mut self, id: DefineId) {
        let tree = self.tree;
        if let Some(define) = tree.defines.get(id.index()).filter(|_| self.seen.insert(id)) {
            self.expression(&define.body, define, define.library, &mut BTreeSet::new());
        }
    }

    /// Looks at what is evaluated in the context of `owner`: its own text, in `library`, and that of the functions it calls.
    fn expression(&mut self, expression: &'t Expression, owner: &'t Define, library: LibraryId, called: &mut BTreeSet<FunctionId>) {
        let tree = self.tree;
        let unfiltered = owner.context == EvaluationContext::Unfiltered;
        match &expression.kind {
            Kind::Retrieve(_) if unfiltered => self.report("a retrieve finds the data of all patients", expression, owner, library),
            Kind::Define(id) => {
                let define = tree.defines.get(id.index()).filter(|define| unfiltered && define.context == EvaluationContext::Patient);
                if let Some(define) = define {
                    let what = format!("`{}`, of the context Patient, is a list of its results over all patients", define.name);
                    self.report(&what, expression, owner, library);
                }
                self.define(*id);
            }
            Kind::Call { function, .. } if called.insert(*function) => {
                if let Some(function) = tree.functions.get(function.index())
                    && let Some(body) = &function.body
                {
                    self.expression(body, owner, function.library, called);
                }
            }
            _ => {}
        }
        for child in expression.children() {
            self.expression(child, owner, library, called);
        }
    }

    fn report(&mut self, what: &str, expression: &Expression, owner: &Define, library: LibraryId) {
        let context = self.written_context(owner);
        let message = format!("`{}` is in the context {context}, where {what}; what is evaluated is one patient's data", owner.name);
        let fault = Diagnostic::error(message).help("write `context Patient` above it");
        let at = self.tree.location(library, expression.at);
        self.found.push(match at {
            Some(at) => fault.at(at),
            None => fault,
        });
    }

    /// The context as it is written: `Population` is what CQL called Unfiltered before 1.4.
    fn written_context(&self, Define { library, at, .. }: &Define) -> &'static str {
        let last = |word: &str| {
            let at = self.tree.location(*library, *at)?.last_before(word);
            (at.text() == word).then_some(at.span.start)
        };
        if last("context Population") > last("context Unfiltered") { "Population" } else { "Unfiltered" }
    }
}
