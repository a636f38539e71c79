//! Clinical Quality Language: text in, a typed and planned program out, evaluated over one patient's record.

pub mod ast;
pub mod check;
pub mod date_time;
pub mod evaluate;
pub mod interval;
pub mod lexer;
pub mod libraries;
pub mod model;
pub mod operators;
pub mod parser;
pub mod plan;
pub mod show;
pub mod typed;
pub mod types;
pub mod value;

pub use evaluate::{Environment, EvaluationError, Reason, ReasonKind, Session};
pub use plan::{Codes, Program, Requirement};
pub use typed::{DefineId, FunctionId};

use std::sync::Arc;

pub use libraries::Libraries;
pub use model::Models;

use crate::diagnostic::{Diagnostic, SourceFile, has_errors};

/// Compiles libraries and everything they include into one program. `None` exactly if a diagnostic is an error.
pub fn compile(roots: &[Arc<SourceFile>], libraries: &Libraries, models: &Models) -> (Option<Program>, Vec<Diagnostic>) {
    let (tree, roots, diagnostics) = libraries::link(roots, libraries, models);
    let program = (!has_errors(&diagnostics)).then(|| Program::new(tree, roots));
    (program, diagnostics)
}
