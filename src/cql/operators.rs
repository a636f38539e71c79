//! The operator table: names, specification sections, signatures, functions, worked examples.
//!
//! One row per operator by its ELM name, one file per chapter of the CQL specification's reference
//! (<https://cql.hl7.org/09-b-cqlreference.html>). The checker resolves overloads against the
//! signatures, the evaluator calls `call`. Forms that need not evaluate every operand (And, Or,
//! Implies, If, Case, Coalesce, Query …) are evaluated by `evaluate` with the functions exposed here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::tz::TimeZone;

use super::types::Type;
use super::value::{DateTime, Precision, Value};
use crate::fhir::record::Record;
use crate::terminology::ValueSets;
use crate::terminology::units::Units;

/// Writes a chapter's table: name, precision, nulls, function, overloads, examples.
macro_rules! rows {
    ($section:literal; $( $name:literal $precision:ident $nulls:ident $call:path
        { $( ($($operand:expr),*) -> $result:expr ),* $(,)? } [ $($example:literal),* $(,)? ] )*) => {
        &[ $( Operator {
            name: $name,
            section: $section,
            signatures: &[ $( Signature { operands: &[$($operand),*], result: $result } ),* ],
            takes_precision: Timing::$precision.takes_precision(),
            nulls: Nulls::$nulls,
            call: $call,
            examples: &[ $($example),* ],
        } ),* ]
    };
}

pub mod aggregate;
pub mod arithmetic;
pub mod clinical;
pub mod comparison;
pub mod date_time;
pub mod interval;
pub mod list;
pub mod logical;
pub mod nullological;
pub mod string;
pub mod types;

/// The shape of an operand or a result. Equal variables in one signature stand for the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pattern {
    Any,
    Boolean,
    Integer,
    Long,
    Decimal,
    String,
    Date,
    DateTime,
    Time,
    Quantity,
    Ratio,
    Code,
    Concept,
    Vocabulary,
    ValueSet,
    CodeSystem,
    List(&'static Pattern),
    Interval(&'static Pattern),
    Variable(char),
}

const T: Pattern = Pattern::Variable('T');
const LIST: Pattern = Pattern::List(&T);
const INTERVAL: Pattern = Pattern::Interval(&T);
const INTERVALS: Pattern = Pattern::List(&INTERVAL);

/// Whether a row takes a precision; only for the tables' readability.
enum Timing {
    Plain,
    Precise,
}

impl Timing {
    const fn takes_precision(self) -> bool {
        matches!(self, Timing::Precise)
    }
}

/// One overload: operand patterns by position and the pattern of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Operands in the order of the CQL function or the infix operator.
    pub operands: &'static [Pattern],
    /// The result.
    pub result: Pattern,
}

/// What a null operand does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// Any null operand makes the result null; `call` is not reached (the evaluator or `Operator::apply` sees to it).
    Propagate,
    /// The function sees nulls and decides.
    Handled,
}

/// A row of the table.
#[derive(Debug)]
pub struct Operator {
    /// The ELM node's name, as `SameOrBefore`.
    pub name: &'static str,
    /// The section of the specification's reference that defines it.
    pub section: &'static str,
    /// Overloads, most specific first.
    pub signatures: &'static [Signature],
    /// Whether it takes `precision of` (`day of`, `in months`).
    pub takes_precision: bool,
    /// What a null operand does.
    pub nulls: Nulls,
    /// The function.
    pub call: fn(&Call<'_>) -> Result<Value, Fault>,
    /// CQL expressions that must be true.
    pub examples: &'static [&'static str],
}

/// One application of an operator.
pub struct Call<'a> {
    /// Operands in the order of the signature.
    pub operands: &'a [Value],
    /// The precision, when the text gave one.
    pub precision: Option<Precision>,
    /// What the evaluation knows about the world.
    pub context: &'a Context<'a>,
}

/// What an operator may know: nothing else reaches it.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The evaluation's time stamp, the same for the whole run.
    pub now: &'a DateTime,
    /// The evaluation's zone: offset of what has none.
    pub zone: &'a TimeZone,
    /// Units of measure.
    pub units: &'a Units,
    /// Expanded value sets.
    pub value_sets: &'a ValueSets,
    /// The patient's record, to look into `Value::Node`.
    pub record: &'a Record,
}

/// Why an operator has no result: an error of the run, by the specification's words. Its message never holds a patient's value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What went wrong.
    pub message: String,
}

impl Fault {
    /// A fault with this message.
    pub fn new(message: impl Into<String>) -> Fault {
        Fault { message: message.into() }
    }
}

impl Operator {
    /// Applies the operator, with null propagation.
    pub fn apply(&self, call: &Call<'_>) -> Result<Value, Fault> {
        if self.nulls == Nulls::Propagate && call.operands.iter().any(Value::is_null) {
            return Ok(Value::Null);
        }
        (self.call)(call)
    }
}

impl Call<'_> {
    /// The operand at a position; null when the call has fewer (optional operands).
    pub fn operand(&self, index: usize) -> &Value {
        static NULL: Value = Value::Null;
        self.operands.get(index).unwrap_or(&NULL)
    }
}

static CHAPTERS: &[&[Operator]] = &[
    logical::OPERATORS,
    types::OPERATORS,
    nullological::OPERATORS,
    comparison::OPERATORS,
    arithmetic::OPERATORS,
    string::OPERATORS,
    date_time::OPERATORS,
    interval::OPERATORS,
    list::OPERATORS,
    aggregate::OPERATORS,
    clinical::OPERATORS,
];

static BY_NAME: LazyLock<BTreeMap<&'static str, &'static Operator>> = LazyLock::new(|| operators().map(|operator| (operator.name, operator)).collect());

/// The row of that ELM name.
pub fn operator(name: &str) -> Option<&'static Operator> {
    BY_NAME.get(name).copied()
}

/// The row of that ELM name for operands of these types: where the specification treats the null of one type otherwise
/// than that of another, types decide, because a null at run time has none; and an interval of numbers is no count of which
/// only the bounds are known, though both are one at run time.
pub fn typed(name: &str, operands: &[Type]) -> Option<&'static Operator> {
    match (name, operands) {
        ("Length", [Type::List(_)]) => Some(&list::LENGTH),
        ("Equal", [left, right]) if is_number(left) && is_number(right) => Some(&comparison::EQUAL_NUMBERS),
        ("NotEqual", [left, right]) if is_number(left) && is_number(right) => Some(&comparison::UNEQUAL_NUMBERS),
        _ => operator(name),
    }
}

fn is_number(ty: &Type) -> bool {
    matches!(ty, Type::Integer | Type::Long | Type::Decimal)
}

/// All rows, by chapter.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    CHAPTERS.iter().flat_map(|chapter| chapter.iter())
}

#[cfg(test)]
mod tests;
