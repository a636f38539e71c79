//! Dates and times: construction, components, durations, calendar comparison.

use super::{Call, Fault, Nulls, Operator, Signature, Timing, T, INTERVAL};
use crate::cql::value::Value;

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
        ["years between @2012-12-31 and @2013-01-01 = 0", "months between @2012-01-31 and @2012-03-01 = 1", "(days between @2012-01 and @2012-01-05 > 5) = false"]
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

fn component(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn date(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn date_from(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn date_time(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn difference_between(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn duration_between(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn now(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn offset_from(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn same_as(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn same_or_after(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn same_or_before(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn time(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn time_from(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn time_of_day(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn today(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
