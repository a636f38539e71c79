//! What is known and what is not.

use super::{Call, Fault, LIST, Nulls, Operator, Signature, T, Timing};
use crate::cql::value::Value;

/// Chapter 14 Nullological of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "14 Nullological";
    "IsNull" Plain Handled is_null { (Any) -> Boolean } ["null is null", "not (1 is null)"]
    "IsTrue" Plain Handled is_true { (Boolean) -> Boolean } ["true is true", "not (null is true)"]
    "IsFalse" Plain Handled is_false { (Boolean) -> Boolean } ["false is false", "not (null is false)"]
    "Coalesce" Plain Handled coalesce { (LIST) -> T, (T, T) -> T, (T, T, T) -> T, (T, T, T, T) -> T, (T, T, T, T, T) -> T }
        ["Coalesce(null, 2, 3) = 2", "Coalesce({null, 5}) = 5"]
    }
};

fn is_null(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(call.operand(0).is_null().into())
}

fn is_true(call: &Call<'_>) -> Result<Value, Fault> {
    Ok((call.operand(0).truth() == Some(true)).into())
}

fn is_false(call: &Call<'_>) -> Result<Value, Fault> {
    Ok((call.operand(0).truth() == Some(false)).into())
}

fn coalesce(call: &Call<'_>) -> Result<Value, Fault> {
    let among = match call.operands {
        [Value::List(items)] => items.as_slice(),
        operands => operands,
    };
    Ok(among.iter().find(|value| !value.is_null()).cloned().unwrap_or_default())
}
