//! Comparisons that are well formed and yet can never be true, or are unknown where nobody expects it.
//!
//! CQL converts a number to a quantity, a date to a time and a code to text without a word; what comes of it is null in
//! every run, which counts as not met. Published libraries have such comparisons, so each is a warning.

mod code;
#[cfg(test)]
mod tests;
mod time;
mod unit;
mod words;

use super::typed::{Define, Expression, Form, Function, Kind, Library, LibraryId, Tree};
use super::types::Type;
use crate::diagnostic::{Diagnostic, Location};

/// Longest text of an expression that is quoted whole, in characters.
const QUOTED_MAX: usize = 60;
/// How many names are followed to what they stand for.
const NAMES_MAX: usize = 8;

/// What is to be said of the comparisons of all libraries, each once.
pub(super) fn warnings(tree: &Tree) -> Vec<Diagnostic> {
    let defines = tree.defines.iter().map(|Define { library, name, body, .. }| (*library, &**name, body));
    let functions = tree.functions.iter().filter_map(|Function { library, name, body, .. }| Some((*library, &**name, body.as_ref()?)));
    let mut found = Vec::new();
    for (home, within, body) in defines.chain(functions) {
        let scope = Scope { tree, home, within };
        let mut open = vec![body];
        while let Some(expression) = open.pop() {
            for warning in [unit::warning(&scope, expression), code::warning(&scope, expression), time::warning(&scope, expression)] {
                // One text becomes several expressions where a choice is decided by its alternatives.
                found.extend(warning.filter(|warning| !found.contains(warning)));
            }
            open.extend(expression.children());
        }
    }
    found
}

/// Where an expression stands.
struct Scope<'t> {
    tree: &'t Tree,
    home: LibraryId,
    /// The definition.
    within: &'t str,
}

impl<'t> Scope<'t> {
    fn at(&self, expression: &Expression) -> Option<Location> {
        self.tree.location(self.home, expression.at)
    }

    fn warning(&self, expression: &Expression, message: String, help: String) -> Diagnostic {
        // Nobody finds a node of ELM by its place.
        let place = self.elm().map_or_else(String::new, |library| format!(" (library {}, `{}`)", library.name, self.within));
        let warning = Diagnostic::warning(message + &place).help(help);
        Diagnostic { at: self.at(expression), ..warning }
    }

    /// The library, where it is ELM.
    fn elm(&self) -> Option<&'t Library> {
        self.tree.libraries.get(self.home.index()).filter(|library| library.form == Form::Elm)
    }

    /// What the author wrote there, on one line; the beginning of what is long.
    fn written(&self, expression: &Expression) -> String {
        let text = match self.elm() {
            Some(_) => words::of(self.tree, expression),
            None => self.at(expression).map(|at| at.text().split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default(),
        };
        match text.char_indices().nth(QUOTED_MAX) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }

    /// What a name or a cast stands for.
    fn meant<'e>(&self, expression: &'e Expression) -> &'e Expression
    where
        't: 'e,
    {
        let mut meant = expression;
        for _ in 0..NAMES_MAX {
            meant = match &meant.kind {
                Kind::Define(id) => match self.tree.defines.get(id.index()) {
                    Some(define) => &define.body,
                    None => return meant,
                },
                Kind::As { operand, .. } => operand,
                _ => return meant,
            };
        }
        meant
    }
}

/// Whether it is one alternative of a choice: that one does not fit, or not well, says nothing of the others.
fn is_alternative(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::As { operand, .. } => matches!(operand.ty, Type::Choice(_)) || is_alternative(operand),
        Kind::Call { operands, .. } => matches!(operands.as_slice(), [one] if is_alternative(one)),
        _ => false,
    }
}

/// The name of an operator of the tables and its operands, where there are two.
fn binary(expression: &Expression) -> Option<(&'static str, &Expression, &Expression)> {
    match &expression.kind {
        Kind::Operator { operator, operands, .. } => match operands.as_slice() {
            [left, right] => Some((operator.name, left, right)),
            _ => None,
        },
        _ => None,
    }
}
