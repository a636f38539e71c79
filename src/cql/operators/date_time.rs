//! Dates and times: construction, components, durations, calendar comparison.

use super::{Call, Fault, INTERVAL, Nulls, Operator, Signature, T, Timing};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::Context;
use super::comparison::order;
use crate::cql::date_time::{Counting, Span, between_date_times, between_dates, between_times};
use crate::cql::interval::{Extent, Scale};
use crate::cql::value::{Date, DateTime, Interval, Precision, Time, Value};
use std::cmp::Ordering;
use std::sync::Arc;

/// Chapter 18 Date and Time of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "18 Date and Time";
    "Date" Plain Handled date { (Integer) -> Date, (Integer, Integer) -> Date, (Integer, Integer, Integer) -> Date } ["Date(2012, 2) = @2012-02"]
    "DateTime" Plain Handled date_time { (Integer) -> DateTime, (Integer, Integer) -> DateTime, (Integer, Integer, Integer) -> DateTime, (Integer, Integer, Integer, Integer) -> DateTime, (Integer, Integer, Integer, Integer, Integer) -> DateTime, (Integer, Integer, Integer, Integer, Integer, Integer) -> DateTime, (Integer, Integer, Integer, Integer, Integer, Integer, Integer) -> DateTime, (Integer, Integer, Integer, Integer, Integer, Integer, Integer, Decimal) -> DateTime }
        ["DateTime(2012, 2, 29) = @2012-02-29T"]
    "Time" Plain Handled time { (Integer) -> Time, (Integer, Integer) -> Time, (Integer, Integer, Integer) -> Time, (Integer, Integer, Integer, Integer) -> Time } ["Time(10, 30) = @T10:30"]
    "DateTimeComponentFrom" Precise Propagate component { (Date) -> Integer, (DateTime) -> Integer, (Time) -> Integer } ["year from @2012-02-29 = 2012", "(month from @2012) is null"]
    "DateFrom" Plain Propagate date_from { (DateTime) -> Date } ["date from @2012-02-29T10:00:00.0 = @2012-02-29"]
    "TimeFrom" Plain Propagate time_from { (DateTime) -> Time } ["time from @2012-02-29T10:30 = @T10:30"]
    "TimezoneOffsetFrom" Plain Propagate offset_from { (DateTime) -> Decimal } ["timezoneoffset from @2012-02-29T10:30:00.0-07:00 = -7.0"]
    "DifferenceBetween" Precise Propagate difference_between { (Date, Date) -> Integer, (DateTime, DateTime) -> Integer, (Time, Time) -> Integer }
        ["difference in years between @2012-12-31 and @2013-01-01 = 1", "difference in months between @2012-01 and @2012-03 = 2"]
    "DurationBetween" Precise Propagate duration_between { (Date, Date) -> Integer, (DateTime, DateTime) -> Integer, (Time, Time) -> Integer }
        ["years between @2012-12-31 and @2013-01-01 = 0", "months between @2012-01-31 and @2012-03-01 = 1", "(days between @2012-01 and @2012-01-05 > 5) = false", "(milliseconds between @2012T and @2013-06-01T00:00:00.000) is null"]
    "Now" Plain Propagate now { () -> DateTime } ["Now() = Now()"]
    "Today" Plain Propagate today { () -> Date } ["Today() = date from Now()"]
    "TimeOfDay" Plain Propagate time_of_day { () -> Time } ["TimeOfDay() = time from Now()"]
    "SameAs" Precise Propagate same_as { (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (INTERVAL, INTERVAL) -> Boolean } ["@2012-02-29T10:00 same day as @2012-02-29T11:00"]
    "SameOrBefore" Precise Propagate same_or_before { (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (INTERVAL, INTERVAL) -> Boolean, (T, INTERVAL) -> Boolean, (INTERVAL, T) -> Boolean }
        ["@2012-02 same month or before @2012-02", "Interval[1, 2] on or before Interval[2, 3]"]
    "SameOrAfter" Precise Propagate same_or_after { (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (INTERVAL, INTERVAL) -> Boolean, (T, INTERVAL) -> Boolean, (INTERVAL, T) -> Boolean }
        ["@2012-03-01 same day or after @2012-02-29"]
    }
};

/// The leading components that are not null, which must be whole numbers without a gap; `None` for a gap.
fn components(operands: &[Value]) -> Option<Vec<i32>> {
    let mut numbers = Vec::new();
    let mut ended = false;
    for operand in operands.iter().take(7) {
        match operand {
            Value::Integer(number) if !ended => numbers.push(*number),
            Value::Null => ended = true,
            _ => return None,
        }
    }
    Some(numbers)
}

fn gap() -> Fault {
    Fault::new("a date or time has a component after one that is null")
}

fn impossible(what: &str) -> Fault {
    Fault::new(format!("there is no such {what}: a component is out of range"))
}

fn date(call: &Call<'_>) -> Result<Value, Fault> {
    date_of(call.operands)
}

fn date_time(call: &Call<'_>) -> Result<Value, Fault> {
    date_time_of(call.operands)
}

fn time(call: &Call<'_>) -> Result<Value, Fault> {
    time_of(call.operands)
}

/// What the row of that name makes of components that are known before any patient is; `None` for other rows, and where
/// there is no such date or time.
pub(in crate::cql) fn selected(name: &str, components: &[Value]) -> Option<Value> {
    let select = match name {
        "Date" => date_of,
        "DateTime" => date_time_of,
        "Time" => time_of,
        _ => return None,
    };
    select(components).ok().filter(|value| !value.is_null())
}

fn date_of(operands: &[Value]) -> Result<Value, Fault> {
    let numbers = components(operands).ok_or_else(gap)?;
    let Some(year) = numbers.first() else { return Ok(Value::Null) };
    let date = Date::new(*year, numbers.get(1).copied(), numbers.get(2).copied());
    date.map(Value::Date).ok_or_else(|| impossible("date"))
}

fn date_time_of(operands: &[Value]) -> Result<Value, Fault> {
    let numbers = components(operands).ok_or_else(gap)?;
    let at = |index: usize| numbers.get(index).copied();
    let Some(year) = at(0) else { return Ok(Value::Null) };
    let date = Date::new(year, at(1), at(2)).ok_or_else(|| impossible("date"))?;
    let time = match at(3) {
        Some(hour) => Some(Time::new(hour, at(4), at(5), at(6)).ok_or_else(|| impossible("time"))?),
        None => None,
    };
    let offset = match operands.get(7) {
        Some(Value::Decimal(hours)) => minutes(*hours)?,
        Some(Value::Integer(hours)) => minutes(Decimal::from(*hours))?,
        _ => None,
    };
    DateTime::new(date, time, offset).map(Value::DateTime).ok_or_else(|| impossible("time zone offset"))
}

fn time_of(operands: &[Value]) -> Result<Value, Fault> {
    let numbers = components(operands).ok_or_else(gap)?;
    let at = |index: usize| numbers.get(index).copied();
    let Some(hour) = at(0) else { return Ok(Value::Null) };
    Time::new(hour, at(1), at(2), at(3)).map(Value::Time).ok_or_else(|| impossible("time"))
}

fn minutes(hours: Decimal) -> Result<Option<i16>, Fault> {
    let minutes = hours.checked_mul(Decimal::from(60)).and_then(|minutes| minutes.round().to_i16());
    minutes.map(Some).ok_or_else(|| impossible("time zone offset"))
}

fn component(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(precision) = call.precision else { return Ok(Value::Null) };
    let of_date = |date: &Date| match precision {
        Precision::Year => Some(date.year()),
        Precision::Month => date.month(),
        Precision::Day => date.day(),
        _ => None,
    };
    let of_time = |time: &Time| match precision {
        Precision::Hour => Some(time.hour()),
        Precision::Minute => time.minute(),
        Precision::Second => time.second(),
        Precision::Millisecond => time.millisecond(),
        _ => None,
    };
    let number = match call.operand(0) {
        Value::Date(date) => of_date(date),
        Value::Time(time) => of_time(time),
        Value::DateTime(point) if precision <= Precision::Day => of_date(&point.date()),
        Value::DateTime(point) => point.time().as_ref().and_then(of_time),
        _ => None,
    };
    Ok(number.map_or(Value::Null, Value::Integer))
}

fn date_from(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(match call.operand(0) {
        Value::DateTime(point) => Value::Date(point.date()),
        Value::Date(date) => Value::Date(*date),
        _ => Value::Null,
    })
}

fn time_from(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(match call.operand(0) {
        Value::DateTime(point) => point.local_time(call.context.zone).map_or(Value::Null, Value::Time),
        _ => Value::Null,
    })
}

fn offset_from(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::DateTime(point) = call.operand(0) else { return Ok(Value::Null) };
    if point.time().is_none() && point.offset().is_none() {
        return Ok(Value::Null);
    }
    let hours = Decimal::from(point.offset_in(call.context.zone)).checked_div(Decimal::from(60));
    Ok(hours.map_or(Value::Null, |hours| Value::Decimal(hours.round_dp(8))))
}

/// A count, or the interval of what it can be; null when an Integer does not hold that.
fn counted(span: Option<Span>) -> Value {
    let small = |count: i64| i32::try_from(count).ok().map(Value::Integer);
    let ends = span.and_then(|span| Some((small(span.low)?, small(span.high)?, span.low == span.high)));
    match ends {
        None => Value::Null,
        Some((count, _, true)) => count,
        Some((low, high, false)) => Value::Interval(Arc::new(Interval::closed(low, high))),
    }
}

/// Whole periods or crossed boundaries between two dates, date-times or times, in `unit`; null when
/// that cannot be asked, an interval when it is uncertain.
pub fn between(counting: Counting, start: &Value, end: &Value, unit: Precision, context: &Context<'_>) -> Value {
    let wide = |date: &Date| DateTime::new(*date, None, None);
    let span = match (start, end) {
        (Value::Date(start), Value::Date(end)) => between_dates(counting, start, end, unit),
        (Value::Time(start), Value::Time(end)) => between_times(counting, start, end, unit),
        (Value::DateTime(start), Value::DateTime(end)) => Some(between_date_times(counting, start, end, unit, context.zone)),
        (Value::Date(start), Value::DateTime(end)) => wide(start).map(|start| between_date_times(counting, &start, end, unit, context.zone)),
        (Value::DateTime(start), Value::Date(end)) => wide(end).map(|end| between_date_times(counting, start, &end, unit, context.zone)),
        _ => None,
    };
    counted(span)
}

fn difference_between(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(unit) = call.precision else { return Ok(Value::Null) };
    Ok(between(Counting::Difference, call.operand(0), call.operand(1), unit, call.context))
}

fn duration_between(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(unit) = call.precision else { return Ok(Value::Null) };
    Ok(between(Counting::Duration, call.operand(0), call.operand(1), unit, call.context))
}

fn now(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(Value::DateTime(*call.context.now))
}

fn today(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(Value::Date(call.context.now.date()))
}

fn time_of_day(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(call.context.now.time().map_or(Value::Null, Value::Time))
}

/// The first and the last point of a value: an interval's, or the value itself.
pub(super) fn ends_of(value: &Value) -> (Extent, Extent) {
    match value {
        Value::Interval(interval) => (interval.starts_at(), interval.ends_at()),
        point => (Extent::of(point), Extent::of(point)),
    }
}

/// Whether an operand is an interval without bounds and type, which says nothing.
pub(super) fn says_nothing(call: &Call<'_>) -> bool {
    call.operands.iter().any(|operand| matches!(operand, Value::Interval(interval) if interval.is_void()))
}

fn same_as(call: &Call<'_>) -> Result<Value, Fault> {
    let scale = Scale { precision: call.precision, context: call.context };
    let (left, right) = (call.operand(0), call.operand(1));
    Ok(match (left, right) {
        (Value::Interval(left), Value::Interval(right)) => left.same_as(right, scale).into(),
        _ => order(left, right, call.precision, call.context).map(|order| order == Ordering::Equal).into(),
    })
}

fn same_or_before(call: &Call<'_>) -> Result<Value, Fault> {
    let scale = Scale { precision: call.precision, context: call.context };
    if says_nothing(call) {
        return Ok(Value::Null);
    }
    let ((_, end), (start, _)) = (ends_of(call.operand(0)), ends_of(call.operand(1)));
    Ok(end.not_after(&start, scale).into())
}

fn same_or_after(call: &Call<'_>) -> Result<Value, Fault> {
    let scale = Scale { precision: call.precision, context: call.context };
    if says_nothing(call) {
        return Ok(Value::Null);
    }
    let ((start, _), (_, end)) = (ends_of(call.operand(0)), ends_of(call.operand(1)));
    Ok(end.not_after(&start, scale).into())
}
