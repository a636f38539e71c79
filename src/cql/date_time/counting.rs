//! How much time lies between two dates, date-times or times: whole periods, or boundaries crossed.

use jiff::tz::TimeZone;

use super::{COMPONENTS, Date, DateTime, MILLISECONDS_PER_DAY, Precision, Time};
use super::{milliseconds_of, values_of};

/// A count that is exact, or lies somewhere between two (both included) because of unknown components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The least it can be.
    pub low: i64,
    /// The most it can be.
    pub high: i64,
}

/// Whole periods between two readings of one clock. A month is complete when day and time of day are
/// reached again, never earlier: from 29 February a year is complete on 1 March.
fn whole_periods(start: &[i32; COMPONENTS], end: &[i32; COMPONENTS], unit: Precision) -> i64 {
    if let Some(length) = unit.milliseconds() {
        return (milliseconds_of(end) - milliseconds_of(start)) / length;
    }
    if start > end {
        return -whole_periods(end, start, unit);
    }
    let ([from_year, from_month, from_rest @ ..], [to_year, to_month, to_rest @ ..]) = (start, end);
    let months = i64::from(to_year - from_year) * 12 + i64::from(to_month - from_month);
    let complete = months - i64::from(to_rest < from_rest);
    if unit == Precision::Year { complete / 12 } else { complete }
}

/// Boundaries of `unit` crossed between two readings.
fn boundaries(start: &[i32; COMPONENTS], end: &[i32; COMPONENTS], unit: Precision) -> i64 {
    let year = |values: &[i32; COMPONENTS]| i64::from(values[0]);
    let month = |values: &[i32; COMPONENTS]| year(values) * 12 + i64::from(values[1]);
    let cut = |values: &[i32; COMPONENTS], length: i64| milliseconds_of(values).div_euclid(length);
    // Weeks begin on Sunday; 1970-01-04 was one.
    let week = |values: &[i32; COMPONENTS]| (cut(values, MILLISECONDS_PER_DAY) - 3).div_euclid(7);
    match (unit, unit.milliseconds()) {
        (Precision::Year, _) => year(end) - year(start),
        (Precision::Month, _) => month(end) - month(start),
        (Precision::Week, _) => week(end) - week(start),
        (_, Some(length)) => cut(end, length) - cut(start, length),
        (_, None) => 0,
    }
}

/// How many whole periods lie between two values, or how many boundaries are crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Complete periods: `years between`.
    Duration,
    /// Boundaries: `difference in years between`.
    Difference,
}

/// The earliest and the latest reading of a value with unknown components.
type Range = ([i32; COMPONENTS], [i32; COMPONENTS]);

fn count(counting: Counting, start: Range, end: Range, unit: Precision) -> Span {
    let one = match counting {
        Counting::Duration => whole_periods,
        Counting::Difference => boundaries,
    };
    Span { low: one(&start.1, &end.0, unit), high: one(&start.0, &end.1, unit) }
}

/// Whether a time of day says all that the unit asks for: what is finer then counts as zero (5.6 "Determining Difference
/// and Duration"). Seconds and milliseconds are one number there.
fn is_told(time: &Time, unit: Precision) -> bool {
    time.precision() >= unit.min(Precision::Second)
}

/// Counts between dates; `None` for units finer than a day.
pub fn between_dates(counting: Counting, start: &Date, end: &Date, unit: Precision) -> Option<Span> {
    let range = |date: &Date| (date.low().components().values, date.high().components().values);
    (unit <= Precision::Day).then(|| count(counting, range(start), range(end), unit))
}

/// Counts between times of day; `None` for units coarser than an hour.
pub fn between_times(counting: Counting, start: &Time, end: &Time, unit: Precision) -> Option<Span> {
    let latest = |time: &Time| if is_told(time, unit) { time.low() } else { time.high() };
    let range = |time: &Time| (time.low().components().values, latest(time).components().values);
    (unit >= Precision::Hour).then(|| count(counting, range(start), range(end), unit))
}

/// Counts between points in time: boundaries of years to days as they are written, whatever the offsets, whole ones of them on
/// the zone's calendar, hours and finer as time that has truly passed, whatever clocks did. A point without any time of day can be any moment of its days.
pub fn between_date_times(counting: Counting, start: &DateTime, end: &DateTime, unit: Precision, zone: &TimeZone) -> Span {
    let base = i64::from(start.offset_in(zone)) * 60_000;
    let clock = |point: &DateTime| match counting {
        _ if unit > Precision::Day => values_of(point.epoch_milliseconds(zone) + base),
        Counting::Difference => point.components().values,
        Counting::Duration => point.local(zone).values,
    };
    let is_told = |point: &DateTime| point.time().is_some_and(|time| is_told(&time, unit));
    let latest = |point: &DateTime| if is_told(point) { point.low() } else { point.high() };
    let range = |point: &DateTime| (clock(&point.low()), clock(&latest(point)));
    count(counting, range(start), range(end), unit)
}
