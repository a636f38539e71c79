//! Clinical Quality Language: text in, a typed and planned program out, evaluated over one patient's record.

pub mod ast;
pub mod check;
pub mod date_time;
pub mod evaluate;
pub mod interval;
pub mod lexer;
pub mod model;
pub mod operators;
pub mod parser;
pub mod plan;
pub mod typed;
pub mod types;
pub mod value;

pub use evaluate::{Environment, EvaluationError, Reason, ReasonKind, Session};
pub use plan::{Codes, Program, Requirement};
pub use typed::{DefineId, FunctionId};
