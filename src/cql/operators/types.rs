//! Conversions and the parts of a value.

use super::{Call, Fault, Nulls, Operator, Signature, Timing, T, LIST};
use crate::cql::value::Value;

/// Chapter 22 Types of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "22 Types";
    "ToBoolean" Plain Propagate to_boolean { (String) -> Boolean, (Integer) -> Boolean, (Long) -> Boolean, (Decimal) -> Boolean, (Boolean) -> Boolean } ["ToBoolean('y')"]
    "ToInteger" Plain Propagate to_integer { (String) -> Integer, (Boolean) -> Integer, (Long) -> Integer, (Integer) -> Integer } ["ToInteger('-12') = -12", "ToInteger('x') is null"]
    "ToLong" Plain Propagate to_long { (String) -> Long, (Boolean) -> Long, (Integer) -> Long, (Long) -> Long } ["ToLong('12') = 12L"]
    "ToDecimal" Plain Propagate to_decimal { (String) -> Decimal, (Boolean) -> Decimal, (Integer) -> Decimal, (Long) -> Decimal, (Decimal) -> Decimal } ["ToDecimal('1.50') = 1.5"]
    "ToString" Plain Propagate to_string { (Boolean) -> String, (Integer) -> String, (Long) -> String, (Decimal) -> String, (Quantity) -> String, (Ratio) -> String, (Date) -> String, (DateTime) -> String, (Time) -> String, (String) -> String } ["ToString(1.50) = '1.50'", "ToString(5 'mg') = '5 \\'mg\\''"]
    "ToDate" Plain Propagate to_date { (DateTime) -> Date, (String) -> Date, (Date) -> Date } ["ToDate('2012-02-29') = @2012-02-29", "ToDate('2012-02-30') is null"]
    "ToDateTime" Plain Propagate to_date_time { (Date) -> DateTime, (String) -> DateTime, (DateTime) -> DateTime } ["ToDateTime(@2012-02-29) ~ @2012-02-29T"]
    "ToTime" Plain Propagate to_time { (DateTime) -> Time, (String) -> Time, (Time) -> Time } ["ToTime('T10:30') = @T10:30"]
    "ToQuantity" Plain Propagate to_quantity { (Integer) -> Quantity, (Long) -> Quantity, (Decimal) -> Quantity, (Ratio) -> Quantity, (String) -> Quantity, (Quantity) -> Quantity } ["ToQuantity('5.5 \\'cm\\'') = 5.5 'cm'"]
    "ToRatio" Plain Propagate to_ratio { (String) -> Ratio, (Ratio) -> Ratio } ["ToRatio('1:128') = 1:128"]
    "ConvertsToBoolean" Plain Propagate converts_to_boolean { (Any) -> Boolean } []
    "ConvertsToInteger" Plain Propagate converts_to_integer { (Any) -> Boolean } []
    "ConvertsToLong" Plain Propagate converts_to_long { (Any) -> Boolean } []
    "ConvertsToDecimal" Plain Propagate converts_to_decimal { (Any) -> Boolean } []
    "ConvertsToString" Plain Propagate converts_to_string { (Any) -> Boolean } []
    "ConvertsToDate" Plain Propagate converts_to_date { (Any) -> Boolean } []
    "ConvertsToDateTime" Plain Propagate converts_to_date_time { (Any) -> Boolean } []
    "ConvertsToTime" Plain Propagate converts_to_time { (Any) -> Boolean } []
    "ConvertsToQuantity" Plain Propagate converts_to_quantity { (Any) -> Boolean } []
    "ConvertsToRatio" Plain Propagate converts_to_ratio { (Any) -> Boolean } []
    "ToConcept" Plain Propagate to_concept { (Code) -> Concept, (List(&Code)) -> Concept } ["ToConcept(Code { code: 'a' }) ~ Code { code: 'a' }"]
    "ToList" Plain Handled to_list { (T) -> LIST } []
    "ToChars" Plain Propagate to_chars { (String) -> List(&String) } ["ToChars('ab') = {'a', 'b'}"]
    "CanConvertQuantity" Plain Propagate can_convert_quantity { (Quantity, String) -> Boolean } ["CanConvertQuantity(1 'g', 'kg')", "not CanConvertQuantity(1 'g', 'm')"]
    "ConvertQuantity" Plain Propagate convert_quantity { (Quantity, String) -> Quantity } ["ConvertQuantity(1 'kg', 'g') = 1000 'g'", "ConvertQuantity(1 'g', 'm') is null"]
    "Children" Plain Propagate children { (Any) -> List(&Any) } []
    "Descendents" Plain Propagate descendents { (Any) -> List(&Any) } []
    }
};

fn can_convert_quantity(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn children(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn convert_quantity(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_boolean(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_date(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_date_time(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_decimal(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_integer(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_long(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_quantity(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_ratio(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_string(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn converts_to_time(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn descendents(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_boolean(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_chars(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_concept(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_date(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_date_time(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_decimal(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_integer(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_list(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_long(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_quantity(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_ratio(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_string(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn to_time(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
