//! Three-valued logic.

use super::{Call, Fault, Nulls, Operator, Signature, Timing};
use crate::cql::value::Value;

/// Chapter 13 Logical of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "13 Logical";
    "And" Plain Handled and { (Boolean, Boolean) -> Boolean } ["(false and null) = false", "(true and null) is null"]
    "Or" Plain Handled or { (Boolean, Boolean) -> Boolean } ["true or null", "(false or null) is null"]
    "Xor" Plain Propagate xor { (Boolean, Boolean) -> Boolean } ["true xor false", "(true xor null) is null"]
    "Implies" Plain Handled implies { (Boolean, Boolean) -> Boolean } ["false implies null", "(true implies null) is null", "null implies true"]
    "Not" Plain Propagate not { (Boolean) -> Boolean } ["not false", "(not null) is null"]
    }
};

fn and(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn implies(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn not(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn or(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn xor(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
