//! Exact decimal arithmetic; what does not fit is null.

use super::{Call, Fault, Nulls, Operator, Signature, Timing};
use crate::cql::value::Value;

/// Chapter 16 Arithmetic of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "16 Arithmetic";
    "Abs" Plain Propagate abs { (Integer) -> Integer, (Long) -> Long, (Decimal) -> Decimal, (Quantity) -> Quantity } ["Abs(-1) = 1", "Abs(-1.5 'g') = 1.5 'g'", "Abs(minimum Integer) is null"]
    "Add" Plain Propagate add { (Integer, Integer) -> Integer, (Long, Long) -> Long, (Decimal, Decimal) -> Decimal, (Quantity, Quantity) -> Quantity,
        (Date, Quantity) -> Date, (DateTime, Quantity) -> DateTime, (Time, Quantity) -> Time }
        ["1 + 1 = 2", "1 'g' + 1 'kg' = 1001 'g'", "(1 'g' + 1 'm') is null", "@2012-01-31 + 1 month = @2012-02-29"]
    "Ceiling" Plain Propagate ceiling { (Decimal) -> Integer } ["Ceiling(1.1) = 2", "Ceiling(-1.1) = -1"]
    "Divide" Plain Propagate divide { (Decimal, Decimal) -> Decimal, (Quantity, Decimal) -> Quantity, (Quantity, Quantity) -> Quantity }
        ["1 / 2 = 0.5", "(1 / 0) is null", "10 'g' / 2 = 5 'g'", "10 'g' / 2 'g' = 5"]
    "Exp" Plain Propagate exp { (Decimal) -> Decimal } ["Exp(0) = 1.0"]
    "Floor" Plain Propagate floor { (Decimal) -> Integer } ["Floor(1.9) = 1", "Floor(-1.1) = -2"]
    "HighBoundary" Plain Handled high_boundary { (Decimal, Integer) -> Decimal, (Date, Integer) -> Date, (DateTime, Integer) -> DateTime, (Time, Integer) -> Time }
        ["HighBoundary(1.587, 8) = 1.58799999", "HighBoundary(@2014, 6) = @2014-12"]
    "LowBoundary" Plain Handled low_boundary { (Decimal, Integer) -> Decimal, (Date, Integer) -> Date, (DateTime, Integer) -> DateTime, (Time, Integer) -> Time }
        ["LowBoundary(1.587, 8) = 1.58700000", "LowBoundary(@2014, 6) = @2014-01"]
    "Ln" Plain Propagate ln { (Decimal) -> Decimal } ["Ln(1) = 0.0", "Ln(0) is null"]
    "Log" Plain Propagate log { (Decimal, Decimal) -> Decimal } ["Log(16, 2) = 4.0", "Log(1, 1) is null"]
    "MaxValue" Plain Propagate max_value { (String) -> Any } ["maximum Integer = 2147483647"]
    "MinValue" Plain Propagate min_value { (String) -> Any } ["minimum Integer = -2147483648"]
    "Modulo" Plain Propagate modulo { (Integer, Integer) -> Integer, (Long, Long) -> Long, (Decimal, Decimal) -> Decimal, (Quantity, Quantity) -> Quantity } ["5 mod 3 = 2", "-5 mod 3 = -2", "(1 mod 0) is null"]
    "Multiply" Plain Propagate multiply { (Integer, Integer) -> Integer, (Long, Long) -> Long, (Decimal, Decimal) -> Decimal,
        (Decimal, Quantity) -> Quantity, (Quantity, Decimal) -> Quantity, (Quantity, Quantity) -> Quantity }
        ["2 * 3 = 6", "2 'cm' * 3 'cm' = 6 'cm2'", "(2147483647 * 2) is null"]
    "Negate" Plain Propagate negate { (Integer) -> Integer, (Long) -> Long, (Decimal) -> Decimal, (Quantity) -> Quantity } ["-(1) = 0 - 1"]
    "Precision" Plain Propagate precision { (Decimal) -> Integer, (Date) -> Integer, (DateTime) -> Integer, (Time) -> Integer }
        ["Precision(1.58700) = 5", "Precision(@2014) = 4", "Precision(@T10:30) = 4"]
    "Predecessor" Plain Propagate predecessor { (Integer) -> Integer, (Long) -> Long, (Decimal) -> Decimal, (Quantity) -> Quantity, (Date) -> Date, (DateTime) -> DateTime, (Time) -> Time }
        ["predecessor of 2 = 1", "predecessor of @2012-03-01 = @2012-02-29"]
    "Power" Plain Propagate power { (Integer, Integer) -> Integer, (Long, Long) -> Long, (Decimal, Decimal) -> Decimal } ["2 ^ 3 = 8", "2.5 ^ 2.0 = 6.25"]
    "Round" Plain Handled round { (Decimal) -> Decimal, (Decimal, Integer) -> Decimal } ["Round(1.5) = 2", "Round(-1.5) = -1", "Round(3.14159, 3) = 3.142"]
    "Subtract" Plain Propagate subtract { (Integer, Integer) -> Integer, (Long, Long) -> Long, (Decimal, Decimal) -> Decimal, (Quantity, Quantity) -> Quantity,
        (Date, Quantity) -> Date, (DateTime, Quantity) -> DateTime, (Time, Quantity) -> Time }
        ["3 - 1 = 2", "@2012-03-31 - 1 month = @2012-02-29"]
    "Successor" Plain Propagate successor { (Integer) -> Integer, (Long) -> Long, (Decimal) -> Decimal, (Quantity) -> Quantity, (Date) -> Date, (DateTime) -> DateTime, (Time) -> Time }
        ["successor of 1 = 2", "successor of 1.0 = 1.00000001", "successor of @2012-02-29 = @2012-03-01"]
    "Truncate" Plain Propagate truncate { (Decimal) -> Integer } ["Truncate(-1.9) = -1"]
    "TruncatedDivide" Plain Propagate truncated_divide { (Integer, Integer) -> Integer, (Long, Long) -> Long, (Decimal, Decimal) -> Decimal, (Quantity, Quantity) -> Quantity }
        ["7 div 2 = 3", "(7 div 0) is null"]
    }
};

fn abs(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn add(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn ceiling(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn divide(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn exp(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn floor(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn high_boundary(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn ln(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn log(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn low_boundary(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn max_value(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn min_value(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn modulo(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn multiply(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn negate(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn power(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn precision(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn predecessor(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn round(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn subtract(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn successor(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn truncate(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn truncated_divide(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
