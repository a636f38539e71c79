//! Equality, equivalence and order.

use super::{Call, Fault, Nulls, Operator, Signature, Timing, T};
use crate::cql::value::Value;

/// Chapter 12 Comparison of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "12 Comparison";
    "Equal" Plain Propagate equal_to { (T, T) -> Boolean }
        ["1 = 1.0", "({1, null} = {1, null}) is null", "(@2012 = @2012-01) is null", "(1 'cm' = 1 'g') is null"]
    "NotEqual" Plain Propagate not_equal_to { (T, T) -> Boolean } ["1 != 2"]
    "Equivalent" Plain Handled equivalent_to { (Concept, Code) -> Boolean, (Code, Concept) -> Boolean, (T, T) -> Boolean }
        ["null ~ null", "'ABC' ~ 'abc'", "{1, null} ~ {1, null}", "not (@2012 ~ @2012-01)"]
    "NotEquivalent" Plain Handled not_equivalent_to { (Concept, Code) -> Boolean, (Code, Concept) -> Boolean, (T, T) -> Boolean } ["1 !~ 2"]
    "Less" Plain Propagate less {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["1 < 2", "(@2012 < @2012-01) is null", "not (1 'cm' < 1 'cm')", "(1 'cm' < 1 'g') is null"]
    "LessOrEqual" Plain Propagate less_or_equal {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["1 'cm' <= 10 'mm'", "@T10:00 <= @T10:00"]
    "Greater" Plain Propagate greater {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["2.0 > 1", "'b' > 'a'"]
    "GreaterOrEqual" Plain Propagate greater_or_equal {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["1 'm' >= 100 'cm'"]
    }
};

fn equal_to(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn equivalent_to(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn greater(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn greater_or_equal(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn less(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn less_or_equal(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn not_equal_to(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn not_equivalent_to(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
