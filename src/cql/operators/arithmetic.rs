//! Exact decimal arithmetic; what does not fit is null.

use super::{Call, Fault, Nulls, Operator, Signature, Timing};
use std::cmp::Ordering;
use std::sync::Arc;

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, MathematicalOps, RoundingStrategy};

use super::Context;
use super::comparison::{decimal, extremes};
use crate::cql::interval::Point;
use crate::cql::value::{Date, DateTime, Interval, Precision, Quantity, Time, Value};

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
    "Ln" Plain Propagate ln { (Decimal) -> Decimal } ["Ln(1) = 0.0", "Ln(-1) is null"]
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
    "Round" Plain Handled round { (Decimal) -> Decimal, (Decimal, Integer) -> Decimal } ["Round(1.5) = 2", "Round(-1.5) = -2", "Round(3.14159, 3) = 3.142"]
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

/// CQL's decimals have at most eight digits after the point.
const SCALE_MAX: u32 = 8;
/// The largest decimal, 20 digits before the point and 8 after: its coefficient.
const DECIMAL_MAX: i128 = 9_999_999_999_999_999_999_999_999_999;

/// The largest decimal of CQL.
pub fn decimal_max() -> Decimal {
    Decimal::from_i128_with_scale(DECIMAL_MAX, SCALE_MAX)
}

/// A decimal within CQL's range, rounded to eight places (half away from zero) when it has more;
/// `None` when it is too large.
pub fn bounded(value: Decimal) -> Option<Decimal> {
    let rounded = if value.scale() > SCALE_MAX { value.round_dp_with_strategy(SCALE_MAX, RoundingStrategy::MidpointAwayFromZero) } else { value };
    (rounded.abs() <= decimal_max()).then_some(rounded)
}

/// A float as a decimal of CQL; `None` when it is not finite or too large.
pub fn from_float(value: f64) -> Option<Decimal> {
    bounded(Decimal::try_from(value).ok()?).map(|value| value.normalize())
}

/// A decimal as the nearest float, for transcendental functions only.
pub fn to_float(value: Decimal) -> f64 {
    value.to_f64().unwrap_or(f64::NAN)
}

fn or_null<T>(result: Option<T>, make: impl FnOnce(T) -> Value) -> Result<Value, Fault> {
    Ok(result.map_or(Value::Null, make))
}

fn decimal_or_null(result: Option<Decimal>) -> Result<Value, Fault> {
    or_null(result.and_then(bounded), Value::Decimal)
}

fn quantity(value: Option<Decimal>, unit: &str) -> Option<Value> {
    Some(Value::quantity(bounded(value?)?, unit))
}

fn tick() -> Decimal {
    Decimal::new(1, SCALE_MAX)
}

/// The next value of an ordered type: one more, the next 10⁻⁸, the next unit of a date's own precision.
/// `None` past the end, and for types without steps.
pub fn successor_of(value: &Value) -> Option<Value> {
    step(value, Decimal::ONE)
}

/// The value before; `None` before the beginning, and for types without steps.
pub fn predecessor_of(value: &Value) -> Option<Value> {
    step(value, -Decimal::ONE)
}

fn step(value: &Value, by: Decimal) -> Option<Value> {
    let up = by.is_sign_positive();
    match value {
        Value::Integer(value) => if up { value.checked_add(1) } else { value.checked_sub(1) }.map(Value::Integer),
        Value::Long(value) => if up { value.checked_add(1) } else { value.checked_sub(1) }.map(Value::Long),
        Value::Interval(_) => at_each_end(value, |end| step(end, by)),
        Value::Decimal(value) => bounded(value.checked_add(by * tick())?).map(Value::Decimal),
        Value::Quantity(own) => quantity(own.value.checked_add(by * tick()), &own.unit),
        Value::Date(date) => date.add(by, date.precision()).map(Value::Date),
        Value::DateTime(point) => point.add(by, point.precision()).map(Value::DateTime),
        Value::Time(time) => {
            let edge = if up { Time::MAX } else { Time::MIN }.truncated(time.precision());
            if *time == edge { None } else { time.add(by, time.precision()).map(Value::Time) }
        }
        _ => None,
    }
}

/// The least value of a type; a quantity takes the unit of `like`.
pub fn minimum(point: Point, like: &Value) -> Option<Value> {
    Some(match point {
        Point::Integer => Value::Integer(i32::MIN),
        Point::Long => Value::Long(i64::MIN),
        Point::Decimal => Value::Decimal(-decimal_max()),
        Point::Date => Value::Date(Date::MIN),
        Point::DateTime => Value::DateTime(DateTime::MIN),
        Point::Time => Value::Time(Time::MIN),
        Point::Quantity => match like {
            Value::Quantity(like) => Value::quantity(-decimal_max(), &like.unit),
            _ => return None,
        },
        Point::Ratio | Point::String => return None,
    })
}

/// The greatest value of a type; a quantity takes the unit of `like`.
pub fn maximum(point: Point, like: &Value) -> Option<Value> {
    Some(match point {
        Point::Integer => Value::Integer(i32::MAX),
        Point::Long => Value::Long(i64::MAX),
        Point::Decimal => Value::Decimal(decimal_max()),
        Point::Date => Value::Date(Date::MAX),
        Point::DateTime => Value::DateTime(DateTime::MAX),
        Point::Time => Value::Time(Time::MAX),
        Point::Quantity => match like {
            Value::Quantity(like) => Value::quantity(decimal_max(), &like.unit),
            _ => return None,
        },
        Point::Ratio | Point::String => return None,
    })
}

/// The operation on two numbers of one kind; whole numbers stay whole, mixed ones become decimals.
struct Numeric {
    integer: fn(i32, i32) -> Option<i32>,
    long: fn(i64, i64) -> Option<i64>,
    decimal: fn(Decimal, Decimal) -> Option<Decimal>,
}

impl Numeric {
    fn apply(&self, left: &Value, right: &Value) -> Option<Value> {
        match (left, right) {
            (Value::Integer(left), Value::Integer(right)) => (self.integer)(*left, *right).map(Value::Integer),
            (Value::Long(left), Value::Long(right)) => (self.long)(*left, *right).map(Value::Long),
            (Value::Long(left), Value::Integer(right)) => (self.long)(*left, i64::from(*right)).map(Value::Long),
            (Value::Integer(left), Value::Long(right)) => (self.long)(i64::from(*left), *right).map(Value::Long),
            _ => bounded((self.decimal)(decimal(left)?, decimal(right)?)?).map(Value::Decimal),
        }
    }

    /// With uncertain counts, too: from the least to the greatest result.
    fn apply_uncertain(&self, left: &Value, right: &Value) -> Option<Value> {
        at_ends(left, right, |left, right| self.apply(left, right))
    }
}

/// Whether a value is a count of which only the bounds are known (CQL, "Uncertainty").
fn is_uncertain(value: &Value) -> bool {
    matches!(value, Value::Interval(_))
}

/// Some value from the least to the greatest of these numbers; the number itself where they are all one.
pub(super) fn between_ends(numbers: impl IntoIterator<Item = Value>) -> Option<Value> {
    let mut numbers = numbers.into_iter().map(|number| Some((decimal(&number)?, number))).collect::<Option<Vec<_>>>()?;
    numbers.sort_by_key(|(size, _)| *size);
    let ((least, low), (greatest, high)) = (numbers.first()?.clone(), numbers.last()?.clone());
    Some(if least == greatest { low } else { Value::Interval(Arc::new(Interval::closed(low, high))) })
}

/// What a function that keeps or turns the order of numbers makes of one; of an uncertain count, of both its ends.
pub(super) fn at_each_end(value: &Value, of: impl Fn(&Value) -> Option<Value>) -> Option<Value> {
    match value {
        Value::Interval(span) => between_ends([of(&span.low)?, of(&span.high)?]),
        other => of(other),
    }
}

/// The same of a function of two numbers whose extremes are at the ends of what these can be.
fn at_ends(left: &Value, right: &Value, of: impl Fn(&Value, &Value) -> Option<Value>) -> Option<Value> {
    if !is_uncertain(left) && !is_uncertain(right) {
        return of(left, right);
    }
    let ((low, high), (other_low, other_high)) = (extremes(left), extremes(right));
    between_ends([of(low, other_low)?, of(low, other_high)?, of(high, other_low)?, of(high, other_high)?])
}

/// Whether a divisor can be zero.
fn can_be_zero(value: &Value) -> bool {
    let (low, high) = extremes(value);
    decimal(low).is_none_or(|low| low <= Decimal::ZERO) && decimal(high).is_none_or(|high| high >= Decimal::ZERO)
}

const ADD: Numeric = Numeric { integer: i32::checked_add, long: i64::checked_add, decimal: Decimal::checked_add };
const SUBTRACT: Numeric = Numeric { integer: i32::checked_sub, long: i64::checked_sub, decimal: Decimal::checked_sub };
const MULTIPLY: Numeric = Numeric { integer: i32::checked_mul, long: i64::checked_mul, decimal: Decimal::checked_mul };
const MODULO: Numeric = Numeric { integer: i32::checked_rem, long: i64::checked_rem, decimal: Decimal::checked_rem };
const TRUNCATED_DIVIDE: Numeric = Numeric { integer: i32::checked_div, long: i64::checked_div, decimal: |left, right| left.checked_div(right).map(|quotient| quotient.trunc()) };

/// Two quantities in the finer of their units: (left, right, unit).
fn aligned<'v>(left: &'v Quantity, right: &'v Quantity, context: &Context<'_>) -> Option<(Decimal, Decimal, &'v str)> {
    if left.unit == right.unit {
        return Some((left.value, right.value, &left.unit));
    }
    let one = context.units.compare((Decimal::ONE, &left.unit), (Decimal::ONE, &right.unit))?;
    if one == Ordering::Greater {
        return Some((context.units.convert(left.value, &left.unit, &right.unit)?, right.value, &right.unit));
    }
    Some((left.value, context.units.convert(right.value, &right.unit, &left.unit)?, &left.unit))
}

/// A number as a quantity without unit.
fn as_quantity(value: &Value) -> Option<Arc<Quantity>> {
    match value {
        Value::Quantity(value) => Some(value.clone()),
        other => Some(Arc::new(Quantity { value: decimal(other)?, unit: Arc::from("1") })),
    }
}

fn on_aligned(call: &Call<'_>, operation: &Numeric) -> Option<Value> {
    let (left, right) = (call.operand(0), call.operand(1));
    if !matches!(left, Value::Quantity(_)) && !matches!(right, Value::Quantity(_)) {
        return operation.apply_uncertain(left, right);
    }
    let (left, right) = (as_quantity(left)?, as_quantity(right)?);
    let (one, other, unit) = aligned(&left, &right, call.context)?;
    quantity((operation.decimal)(one, other), unit)
}

fn moved(value: &Value, by: &Quantity, forward: bool) -> Option<Value> {
    let unit = Precision::of_unit(&by.unit)?;
    let amount = if forward { by.value } else { -by.value };
    match value {
        Value::Date(date) => date.add(amount, unit).map(Value::Date),
        Value::DateTime(point) => point.add(amount, unit).map(Value::DateTime),
        Value::Time(time) => time.add(amount, unit).map(Value::Time),
        _ => None,
    }
}

/// A date or time moved by a quantity of time; `None` for other units and outside the years 1 to 9999.
pub fn moved_by(value: &Value, by: &Quantity) -> Option<Value> {
    moved(value, by, true)
}

fn add(call: &Call<'_>) -> Result<Value, Fault> {
    let sum = match (call.operand(0), call.operand(1)) {
        (value @ (Value::Date(_) | Value::DateTime(_) | Value::Time(_)), Value::Quantity(by)) => moved(value, by, true),
        _ => on_aligned(call, &ADD),
    };
    Ok(sum.unwrap_or_default())
}

fn subtract(call: &Call<'_>) -> Result<Value, Fault> {
    let difference = match (call.operand(0), call.operand(1)) {
        (value @ (Value::Date(_) | Value::DateTime(_) | Value::Time(_)), Value::Quantity(by)) => moved(value, by, false),
        _ => on_aligned(call, &SUBTRACT),
    };
    Ok(difference.unwrap_or_default())
}

/// The sum of two values as `+` has it; null when it cannot be told.
pub fn sum_of(left: &Value, right: &Value, context: &Context<'_>) -> Value {
    let operands = [left.clone(), right.clone()];
    on_aligned(&Call { operands: &operands, precision: None, context }, &ADD).unwrap_or_default()
}

/// The difference of two values as `-` has it; null when it cannot be told.
pub fn difference_of(left: &Value, right: &Value, context: &Context<'_>) -> Value {
    let operands = [left.clone(), right.clone()];
    on_aligned(&Call { operands: &operands, precision: None, context }, &SUBTRACT).unwrap_or_default()
}

/// The product of two values as `*` has it; null when it cannot be told.
pub fn product_of(left: &Value, right: &Value, context: &Context<'_>) -> Value {
    let product = || {
        if !matches!(left, Value::Quantity(_)) && !matches!(right, Value::Quantity(_)) {
            return MULTIPLY.apply_uncertain(left, right);
        }
        let (left, right) = (as_quantity(left)?, as_quantity(right)?);
        let unit = match (&*left.unit, &*right.unit) {
            ("1", other) | (other, "1") => other.to_owned(),
            (left, right) => context.units.product(left, right)?,
        };
        quantity(left.value.checked_mul(right.value), &unit)
    };
    product().unwrap_or_default()
}

fn multiply(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(product_of(call.operand(0), call.operand(1), call.context))
}

/// The quotient of two values as `/` has it; null when it cannot be told.
pub fn quotient_of(left: &Value, right: &Value, context: &Context<'_>) -> Value {
    let quotient = || {
        if !matches!(left, Value::Quantity(_)) && !matches!(right, Value::Quantity(_)) {
            let divide = |left: &Value, right: &Value| bounded(decimal(left)?.checked_div(decimal(right)?)?).map(Value::Decimal);
            return if can_be_zero(right) { None } else { at_ends(left, right, divide) };
        }
        let (left, right) = (as_quantity(left)?, as_quantity(right)?);
        if &*right.unit == "1" {
            return quantity(left.value.checked_div(right.value), &left.unit);
        }
        if let Some(divisor) = context.units.convert(right.value, &right.unit, &left.unit) {
            return quantity(left.value.checked_div(divisor), "1");
        }
        let unit = context.units.quotient(&left.unit, &right.unit)?;
        quantity(left.value.checked_div(right.value), &unit)
    };
    quotient().unwrap_or_default()
}

fn divide(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(quotient_of(call.operand(0), call.operand(1), call.context))
}

fn modulo(call: &Call<'_>) -> Result<Value, Fault> {
    if call.operands.iter().any(is_uncertain) { undefined("mod") } else { Ok(on_aligned(call, &MODULO).unwrap_or_default()) }
}

/// An uncertain count is divided at both its ends, which keeps their order.
fn truncated_divide(call: &Call<'_>) -> Result<Value, Fault> {
    if is_uncertain(call.operand(1)) { undefined("div") } else { Ok(on_aligned(call, &TRUNCATED_DIVIDE).unwrap_or_default()) }
}

/// Not defined of uncertain counts ("Implementing Precision-Based Timing with Uncertainty"); HL7's suite wants it to fail.
fn undefined(written: &str) -> Result<Value, Fault> {
    Err(Fault::new(format!("`{written}` cannot divide with a count that is uncertain because of a partial date")))
}

fn abs(call: &Call<'_>) -> Result<Value, Fault> {
    let magnitude = |value: &Value| match value {
        Value::Integer(value) => value.checked_abs().map(Value::Integer),
        Value::Long(value) => value.checked_abs().map(Value::Long),
        Value::Quantity(value) => quantity(Some(value.value.abs()), &value.unit),
        other => decimal(other).map(|value| Value::Decimal(value.abs())),
    };
    let value = call.operand(0);
    let whole = at_each_end(value, magnitude);
    // Between a negative and a positive end lies zero.
    let spanned = match value {
        Value::Interval(span) if can_be_zero(value) => magnitude(&span.low).zip(magnitude(&span.high)).and_then(|(low, high)| between_ends([Value::Integer(0), low, high])),
        _ => whole,
    };
    Ok(spanned.unwrap_or_default())
}

fn negate(call: &Call<'_>) -> Result<Value, Fault> {
    let negative = |value: &Value| match value {
        Value::Integer(value) => value.checked_neg().map(Value::Integer),
        Value::Long(value) => value.checked_neg().map(Value::Long),
        Value::Quantity(value) => quantity(Some(-value.value), &value.unit),
        other => decimal(other).map(|value| Value::Decimal(-value)),
    };
    Ok(at_each_end(call.operand(0), negative).unwrap_or_default())
}

fn whole(call: &Call<'_>, round: fn(&Decimal) -> Decimal) -> Result<Value, Fault> {
    Ok(at_each_end(call.operand(0), |value| decimal(value).and_then(|value| round(&value).to_i32()).map(Value::Integer)).unwrap_or_default())
}

fn ceiling(call: &Call<'_>) -> Result<Value, Fault> {
    whole(call, Decimal::ceil)
}

fn floor(call: &Call<'_>) -> Result<Value, Fault> {
    whole(call, Decimal::floor)
}

fn truncate(call: &Call<'_>) -> Result<Value, Fault> {
    whole(call, Decimal::trunc)
}

fn round(call: &Call<'_>) -> Result<Value, Fault> {
    let places = match call.operand(1) {
        Value::Integer(places) => u32::try_from(*places).ok(),
        _ => Some(0),
    };
    let rounded = |value: &Value| {
        let value = decimal(value)?.round_dp_with_strategy(places?.min(28), RoundingStrategy::MidpointAwayFromZero);
        bounded(value).map(Value::Decimal)
    };
    Ok(at_each_end(call.operand(0), rounded).unwrap_or_default())
}

fn exp(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(power) = decimal(call.operand(0)) else { return Ok(Value::Null) };
    let result = from_float(to_float(power).exp());
    result.map(Value::Decimal).ok_or_else(|| Fault::new("the result of `Exp` is larger than any Decimal"))
}

fn ln(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(value) = decimal(call.operand(0)) else { return Ok(Value::Null) };
    if value.is_zero() {
        return Err(Fault::new("`Ln` of zero has no value"));
    }
    if value.is_sign_negative() {
        return Ok(Value::Null);
    }
    or_null(from_float(to_float(value).ln()), Value::Decimal)
}

fn log(call: &Call<'_>) -> Result<Value, Fault> {
    let pair = decimal(call.operand(0)).zip(decimal(call.operand(1)));
    let result = pair.filter(|(value, base)| *value > Decimal::ZERO && *base > Decimal::ZERO && *base != Decimal::ONE);
    or_null(result.and_then(|(value, base)| from_float(to_float(value).ln() / to_float(base).ln())), Value::Decimal)
}

fn power(call: &Call<'_>) -> Result<Value, Fault> {
    let (base, exponent) = (call.operand(0), call.operand(1));
    let whole = |value: &Value| match value {
        Value::Integer(value) => Some(i64::from(*value)),
        Value::Long(value) => Some(*value),
        _ => None,
    };
    if let (Some(number), Some(times)) = (whole(base), whole(exponent))
        && let Ok(times) = u32::try_from(times)
    {
        let result = number.checked_pow(times);
        return match base {
            Value::Integer(_) if matches!(exponent, Value::Integer(_)) => or_null(result.and_then(|result| i32::try_from(result).ok()), Value::Integer),
            _ => or_null(result, Value::Long),
        };
    }
    let Some((number, times)) = decimal(base).zip(decimal(exponent)) else { return Ok(Value::Null) };
    if times.fract().is_zero()
        && let Some(times) = times.to_i64()
    {
        return decimal_or_null(number.checked_powi(times));
    }
    or_null(from_float(to_float(number).powf(to_float(times))), Value::Decimal)
}

fn successor(call: &Call<'_>) -> Result<Value, Fault> {
    let value = call.operand(0);
    successor_of(value).ok_or_else(|| Fault::new(format!("the largest {} has no successor", value.type_name())))
}

fn predecessor(call: &Call<'_>) -> Result<Value, Fault> {
    let value = call.operand(0);
    predecessor_of(value).ok_or_else(|| Fault::new(format!("the smallest {} has no predecessor", value.type_name())))
}

fn extreme(call: &Call<'_>, of: fn(Point, &Value) -> Option<Value>) -> Result<Value, Fault> {
    let Value::String(name) = call.operand(0) else { return Ok(Value::Null) };
    let like = Value::quantity(Decimal::ZERO, "1");
    Point::named(name)
        .and_then(|point| of(point, &like))
        .ok_or_else(|| Fault::new(format!("`{name}` has no least and no greatest value")))
}

fn max_value(call: &Call<'_>) -> Result<Value, Fault> {
    extreme(call, maximum)
}

fn min_value(call: &Call<'_>) -> Result<Value, Fault> {
    extreme(call, minimum)
}

/// Digits of precision of a date-time by its components, year to millisecond.
const DATE_TIME_DIGITS: [i32; 7] = [4, 6, 8, 10, 12, 14, 17];
/// Digits of precision of a time of day, hour to millisecond.
const TIME_DIGITS: [i32; 4] = [2, 4, 6, 9];
/// The precision of each component of a date-time.
const COMPONENTS: [Precision; 7] = [Precision::Year, Precision::Month, Precision::Day, Precision::Hour, Precision::Minute, Precision::Second, Precision::Millisecond];

fn precision(call: &Call<'_>) -> Result<Value, Fault> {
    let digits = match call.operand(0) {
        Value::Decimal(value) => i32::try_from(value.scale()).ok(),
        Value::Date(date) => DATE_TIME_DIGITS.get(date.precision().index()).copied(),
        Value::DateTime(point) => DATE_TIME_DIGITS.get(point.precision().index()).copied(),
        Value::Time(time) => time.precision().index().checked_sub(3).and_then(|at| TIME_DIGITS.get(at).copied()),
        _ => None,
    };
    or_null(digits, Value::Integer)
}

fn decimal_boundary(value: Decimal, digits: Option<i32>, high: bool) -> Option<Value> {
    let places = u32::try_from(digits.unwrap_or(8)).ok().filter(|places| *places <= SCALE_MAX)?;
    let mut result = value;
    if high && places > value.scale() {
        let gap = Decimal::new(1, value.scale()).checked_sub(Decimal::new(1, places))?;
        result = if value.is_sign_negative() { value } else { value.checked_add(gap)? };
    }
    if !high && value.is_sign_negative() && places > value.scale() {
        result = value.checked_sub(Decimal::new(1, value.scale()).checked_sub(Decimal::new(1, places))?)?;
    }
    let mut result = result.round_dp_with_strategy(places, RoundingStrategy::ToZero);
    result.rescale(places);
    bounded(result).map(Value::Decimal)
}

fn boundary(call: &Call<'_>, high: bool) -> Result<Value, Fault> {
    let digits = match call.operand(1) {
        Value::Integer(digits) => Some(*digits),
        _ => None,
    };
    let unit = |table: &[i32], first: usize| {
        let Some(digits) = digits else { return Some(Precision::Millisecond) };
        let at = table.iter().position(|own| *own == digits)?;
        COMPONENTS.get(at + first).copied()
    };
    let value = match call.operand(0) {
        Value::Date(date) => unit(&DATE_TIME_DIGITS, 0).map(|unit| Value::Date(if high { date.high() } else { date.low() }.truncated(unit))),
        Value::DateTime(point) => unit(&DATE_TIME_DIGITS, 0).map(|unit| Value::DateTime(if high { point.high() } else { point.low() }.truncated(unit))),
        Value::Time(time) => unit(&TIME_DIGITS, 3).map(|unit| Value::Time(if high { time.high() } else { time.low() }.truncated(unit))),
        other => decimal(other).and_then(|value| decimal_boundary(value, digits, high)),
    };
    Ok(value.unwrap_or_default())
}

fn high_boundary(call: &Call<'_>) -> Result<Value, Fault> {
    boundary(call, true)
}

fn low_boundary(call: &Call<'_>) -> Result<Value, Fault> {
    boundary(call, false)
}
