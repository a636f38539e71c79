//! Conversions and the parts of a value.

use super::{Call, Fault, LIST, Nulls, Operator, Signature, T, Timing};
use std::sync::Arc;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::arithmetic::{at_each_end, bounded, quotient_of};
use super::comparison::decimal;
use crate::cql::value::{Code, Concept, Date, DateTime, Precision, Quantity, Ratio, Time, Value};

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
    "Children" Plain Propagate parts { (Any) -> List(&Any) } []
    "Descendents" Plain Propagate parts { (Any) -> List(&Any) } []
    }
};

/// Longest text that can be a number or quantity; anything longer is refused unread.
const TEXT_BYTES_MAX: usize = 256;

/// Reads a decimal as CQL and FHIR write it: a sign, digits, a point with digits. No exponent, no
/// white space; `None` for anything else or out of CQL's range.
pub fn parse_decimal(text: &str) -> Option<Decimal> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > TEXT_BYTES_MAX || !numeric(whole) || !fraction.is_none_or(numeric) {
        return None;
    }
    let value: Decimal = text.strip_prefix('+').unwrap_or(text).parse().ok()?;
    bounded(value)
}

/// Reads a quantity: a decimal, then nothing, a unit in single quotes, or a calendar word.
pub fn parse_quantity(text: &str) -> Option<Quantity> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, unit) = (text.get(..end)?, text.get(end..)?.trim());
    let value = parse_decimal(number)?;
    let unit = match unit.strip_prefix('\'') {
        Some(rest) => rest.strip_suffix('\'').filter(|unit| !unit.is_empty() && !unit.contains('\''))?,
        None if unit.is_empty() => "1",
        None if unit.len() > 2 && Precision::of_unit(unit).is_some() => unit,
        None => return None,
    };
    Some(Quantity { value, unit: Arc::from(unit) })
}

/// Reads a ratio: two quantities with a colon between.
pub fn parse_ratio(text: &str) -> Option<Ratio> {
    // A colon may stand inside a quoted unit; the one that counts leaves two quantities.
    text.match_indices(':').find_map(|(at, _)| {
        let numerator = parse_quantity(text.get(..at)?)?;
        let denominator = parse_quantity(text.get(at + 1..)?)?;
        Some(Ratio { numerator, denominator })
    })
}

/// A quantity as CQL writes it.
pub fn quantity_text(quantity: &Quantity) -> String {
    let unit = &*quantity.unit;
    if unit.len() > 2 && unit != "min" && Precision::of_unit(unit).is_some() {
        return format!("{} {unit}", quantity.value);
    }
    format!("{} '{unit}'", quantity.value)
}

/// A scalar as `ToString` writes it; `None` for lists, tuples, codes and the record.
pub fn text_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::Decimal(value) if value.scale() == 0 => format!("{value}.0"),
        Value::Decimal(value) => value.to_string(),
        Value::String(text) => text.to_string(),
        Value::Date(date) => date.to_string(),
        Value::DateTime(point) => point.to_string(),
        Value::Time(time) => time.to_string(),
        Value::Quantity(quantity) => quantity_text(quantity),
        Value::Ratio(ratio) => format!("{}:{}", quantity_text(&ratio.numerator), quantity_text(&ratio.denominator)),
        _ => return None,
    })
}

fn boolean_of(value: &Value) -> Option<Value> {
    let truth = match value {
        Value::Boolean(truth) => *truth,
        Value::String(text) => match text.to_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => true,
            "false" | "f" | "no" | "n" | "0" => false,
            _ => return None,
        },
        other => match decimal(other)? {
            one if one == Decimal::ONE => true,
            zero if zero.is_zero() => false,
            _ => return None,
        },
    };
    Some(Value::Boolean(truth))
}

fn whole_text(text: &str) -> Option<i64> {
    let value = if text.contains('.') { return None } else { parse_decimal(text)? };
    value.to_i64()
}

fn long(value: &Value) -> Option<i64> {
    match value {
        Value::Boolean(truth) => Some(i64::from(*truth)),
        Value::Integer(value) => Some(i64::from(*value)),
        Value::Long(value) => Some(*value),
        Value::String(text) => whole_text(text),
        _ => None,
    }
}

fn integer_of(value: &Value) -> Option<Value> {
    i32::try_from(long(value)?).ok().map(Value::Integer)
}

fn long_of(value: &Value) -> Option<Value> {
    long(value).map(Value::Long)
}

fn decimal_of(value: &Value) -> Option<Value> {
    match value {
        Value::Boolean(truth) => Some(Value::Decimal(Decimal::new(i64::from(*truth) * 10, 1))),
        Value::String(text) => parse_decimal(text).map(Value::Decimal),
        other => decimal(other).map(Value::Decimal),
    }
}

fn string_of(value: &Value) -> Option<Value> {
    text_of(value).map(|text| Value::string(&text))
}

fn date_of(value: &Value) -> Option<Value> {
    match value {
        Value::Date(date) => Some(Value::Date(*date)),
        Value::DateTime(point) => Some(Value::Date(point.date())),
        Value::String(text) => {
            let date = Date::parse(text).or_else(|| DateTime::parse_cql(text).map(|point| point.date()));
            date.map(Value::Date)
        }
        _ => None,
    }
}

fn date_time_of(value: &Value) -> Option<Value> {
    match value {
        Value::Date(date) => DateTime::new(*date, None, None).map(Value::DateTime),
        Value::DateTime(point) => Some(Value::DateTime(*point)),
        Value::String(text) if !text.starts_with('@') => DateTime::parse_cql(text).map(Value::DateTime),
        _ => None,
    }
}

/// A time with an offset, which is not kept.
fn time_with_offset(text: &str) -> Option<Time> {
    if let Some(time) = text.strip_suffix('Z') {
        return Time::parse(time);
    }
    let at = text.rfind(['+', '-'])?;
    let (time, offset) = text.split_at(at);
    let shape = offset.len() == 6 && Time::parse(offset.get(1..)?).is_some();
    if shape { Time::parse(time) } else { None }
}

fn time_of(value: &Value) -> Option<Value> {
    match value {
        Value::Time(time) => Some(Value::Time(*time)),
        Value::DateTime(point) => point.time().map(Value::Time),
        Value::String(text) => Time::parse(text).or_else(|| time_with_offset(text)).map(Value::Time),
        _ => None,
    }
}

fn quantity_of(value: &Value, call: &Call<'_>) -> Option<Value> {
    match value {
        Value::Quantity(_) => Some(value.clone()),
        Value::String(text) => parse_quantity(text).map(|quantity| Value::Quantity(Arc::new(quantity))),
        Value::Ratio(ratio) => {
            let part = |quantity: &Quantity| Value::Quantity(Arc::new(quantity.clone()));
            let quotient = quotient_of(&part(&ratio.numerator), &part(&ratio.denominator), call.context);
            (!quotient.is_null()).then_some(quotient)
        }
        other => decimal(other).map(|value| Value::quantity(value, "1")),
    }
}

fn ratio_of(value: &Value) -> Option<Value> {
    match value {
        Value::Ratio(_) => Some(value.clone()),
        Value::String(text) => parse_ratio(text).map(|ratio| Value::Ratio(Arc::new(ratio))),
        _ => None,
    }
}

fn to_boolean(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(boolean_of(call.operand(0)).unwrap_or_default())
}

fn converts_to_boolean(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(boolean_of(call.operand(0)).is_some().into())
}

fn to_integer(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(integer_of(call.operand(0)).unwrap_or_default())
}

fn converts_to_integer(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(integer_of(call.operand(0)).is_some().into())
}

fn to_long(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(at_each_end(call.operand(0), long_of).unwrap_or_default())
}

fn converts_to_long(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(long_of(call.operand(0)).is_some().into())
}

fn to_decimal(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(at_each_end(call.operand(0), decimal_of).unwrap_or_default())
}

fn converts_to_decimal(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(decimal_of(call.operand(0)).is_some().into())
}

fn to_string(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(string_of(call.operand(0)).unwrap_or_default())
}

fn converts_to_string(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(string_of(call.operand(0)).is_some().into())
}

fn to_date(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(date_of(call.operand(0)).unwrap_or_default())
}

fn converts_to_date(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(date_of(call.operand(0)).is_some().into())
}

fn to_date_time(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(date_time_of(call.operand(0)).unwrap_or_default())
}

fn converts_to_date_time(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(date_time_of(call.operand(0)).is_some().into())
}

fn to_time(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(time_of(call.operand(0)).unwrap_or_default())
}

fn converts_to_time(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(time_of(call.operand(0)).is_some().into())
}

fn to_quantity(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(quantity_of(call.operand(0), call).unwrap_or_default())
}

fn converts_to_quantity(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(quantity_of(call.operand(0), call).is_some().into())
}

fn to_ratio(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(ratio_of(call.operand(0)).unwrap_or_default())
}

fn converts_to_ratio(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(ratio_of(call.operand(0)).is_some().into())
}

fn to_concept(call: &Call<'_>) -> Result<Value, Fault> {
    let concept = |codes: Vec<Code>, display: Option<Arc<str>>| Value::Concept(Arc::new(Concept { codes, display }));
    Ok(match call.operand(0) {
        Value::Code(code) => concept(vec![(**code).clone()], code.display.clone()),
        Value::Concept(concept) => Value::Concept(concept.clone()),
        Value::List(items) => {
            let codes = items.iter().filter_map(|item| match item {
                Value::Code(code) => Some((**code).clone()),
                _ => None,
            });
            concept(codes.collect(), None)
        }
        _ => Value::Null,
    })
}

fn to_list(call: &Call<'_>) -> Result<Value, Fault> {
    let value = call.operand(0);
    Ok(Value::list(if value.is_null() { Vec::new() } else { vec![value.clone()] }))
}

fn to_chars(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::String(text) = call.operand(0) else { return Ok(Value::Null) };
    Ok(Value::list(text.chars().map(|one| Value::string(&one.to_string())).collect()))
}

fn converted(call: &Call<'_>) -> Option<Value> {
    let (Value::Quantity(quantity), Value::String(unit)) = (call.operand(0), call.operand(1)) else { return None };
    let value = call.context.units.convert(quantity.value, &quantity.unit, unit)?;
    Some(Value::quantity(bounded(value)?.normalize(), unit))
}

fn can_convert_quantity(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(converted(call).is_some().into())
}

fn convert_quantity(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(converted(call).unwrap_or_default())
}

/// The parts of a value that is no element of a record, one level down: list-valued ones item by item, nulls left out
/// (CQL, "Children": <https://cql.hl7.org/04-logicalspecification.html#children>).
pub(in crate::cql) fn parts_of(value: &Value) -> Vec<Value> {
    let text = |text: &Option<Arc<str>>| text.clone().map_or(Value::Null, Value::String);
    let code = |code: &Code| Value::Code(Arc::new(code.clone()));
    let quantity = |quantity: &Quantity| Value::Quantity(Arc::new(quantity.clone()));
    let parts = match value {
        Value::Tuple(tuple) => tuple.elements.iter().map(|(_, value)| value.clone()).collect(),
        Value::Instance(instance) => instance.elements.iter().map(|(_, value)| value.clone()).collect(),
        Value::Quantity(own) => vec![Value::Decimal(own.value), Value::String(own.unit.clone())],
        Value::Ratio(own) => vec![quantity(&own.numerator), quantity(&own.denominator)],
        Value::Code(own) => vec![Value::String(own.code.clone()), text(&own.system), text(&own.version), text(&own.display)],
        Value::Concept(own) => own.codes.iter().map(code).chain(std::iter::once(text(&own.display))).collect(),
        Value::Interval(own) => vec![own.low.clone(), own.high.clone()],
        _ => Vec::new(),
    };
    parts.into_iter().flat_map(items).collect()
}

/// The items of a list, or the one value; nulls left out.
pub(in crate::cql) fn items(value: Value) -> Vec<Value> {
    let mut items = match value {
        Value::List(items) => Arc::unwrap_or_clone(items),
        one => vec![one],
    };
    items.retain(|item| !item.is_null());
    items
}

/// The evaluator lists the parts itself, because of elements of a record it alone knows the class.
fn parts(call: &Call<'_>) -> Result<Value, Fault> {
    Err(Fault::new(format!("the parts of a {} are not known without its model", call.operand(0).type_name())))
}
