//! Three-valued logic.

use super::{Call, Fault, Nulls, Operator, Signature, Timing};
use crate::cql::interval::{both, either};
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

fn and(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(both(call.operand(0).truth(), call.operand(1).truth()).into())
}

fn or(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(either(call.operand(0).truth(), call.operand(1).truth()).into())
}

fn xor(call: &Call<'_>) -> Result<Value, Fault> {
    let pair = call.operand(0).truth().zip(call.operand(1).truth());
    Ok(pair.map(|(left, right)| left != right).into())
}

fn implies(call: &Call<'_>) -> Result<Value, Fault> {
    let negated = call.operand(0).truth().map(|truth| !truth);
    Ok(either(negated, call.operand(1).truth()).into())
}

fn not(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(call.operand(0).truth().map(|truth| !truth).into())
}
