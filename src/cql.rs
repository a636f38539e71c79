//! Clinical Quality Language: text in, a typed and planned program out, evaluated over one patient's record.

pub mod ast;
pub mod check;
mod context;
pub mod date_time;
pub mod elm;
pub mod evaluate;
pub mod given;
pub mod interval;
pub mod lexer;
pub mod libraries;
pub mod model;
pub mod operators;
pub mod parser;
pub mod plan;
pub mod show;
mod trap;
pub mod typed;
pub mod types;
pub mod value;

pub use evaluate::{Environment, EvaluationError, Reason, ReasonKind, Session};
pub use plan::{Asking, Codes, Only, Program, Requirement};
pub use typed::{DefineId, FunctionId};

use std::sync::Arc;

pub use libraries::Libraries;
pub use model::Models;

use crate::diagnostic::{Diagnostic, SourceFile, has_errors};

/// Compiles libraries and everything they include into one program. `None` exactly if a diagnostic is an error.
///
/// ```
/// use std::{collections::BTreeMap, sync::Arc};
/// use watershed::cql::{Environment, Libraries, Models, Session, compile, show, value::DateTime};
/// use watershed::diagnostic::SourceFile;
/// use watershed::fhir::record::{Record, Shape};
///
/// let text = "library Visits\nusing FHIR version '4.0.1'\ncontext Patient\ndefine Finished: Count([Encounter] E where E.status.value = 'finished')";
/// let (program, findings) = compile(&[SourceFile::new("visits.cql", text)], &Libraries::default(), &Models::default());
/// let program = program.unwrap_or_else(|| panic!("{findings:?}"));
///
/// let lines = [
///     r#"{"resourceType":"Patient","id":"p"}"#,
///     r#"{"resourceType":"Encounter","id":"e","status":"finished","subject":{"reference":"Patient/p"}}"#,
/// ];
/// let (record, _) = Record::read(&Shape::everything(), lines.iter().map(|line| line.as_bytes()));
/// let zone = jiff::tz::TimeZone::UTC;
/// let now = DateTime::from_timestamp("2026-03-01T06:30:00Z".parse()?, &zone);
/// let environment = Environment { parameters: BTreeMap::new(), now, zone, value_sets: Arc::default(), units: Arc::default() };
/// let finished = program.define("Visits", "Finished").unwrap();
/// let value = Session::new(&program, &environment, &record).evaluate(finished)?;
/// assert_eq!(show::text(&value, &record), "1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compile(roots: &[Arc<SourceFile>], libraries: &Libraries, models: &Models) -> (Option<Program>, Vec<Diagnostic>) {
    let (tree, roots, diagnostics) = libraries::link(roots, libraries, models);
    let program = (!has_errors(&diagnostics)).then(|| Program::new(tree, roots));
    (program, diagnostics)
}
