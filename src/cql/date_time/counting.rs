//! How much time lies between two dates, date-times or times: whole periods, or boundaries crossed.

use jiff::tz::TimeZone;

use super::{COMPONENTS, Components, Date, DateTime, MILLISECONDS_PER_DAY, Precision, Time};
use super::{days_in_month, milliseconds_of, values_of};

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

/// The readings between which a value's clock can stand. With `unit`, what is unknown and finer than
/// the unit (and than a day) does not count; without it, every unknown component does.
fn readings(components: &Components, unit: Option<Precision>) -> Range {
    let (mut low, mut high) = (components.values, components.values);
    let end = unit.map_or(COMPONENTS, |unit| unit.index().max(Precision::Day.index()) + 1);
    let first = [1, 1, 1, 0, 0, 0, 0];
    for at in components.count..COMPONENTS {
        let last = match at {
            1 => 12,
            2 => days_in_month(high[0], high[1]),
            3 => 23,
            4 | 5 => 59,
            _ => 999,
        };
        low[at] = first[at];
        high[at] = if at < end { last } else { first[at] };
    }
    (low, high)
}

/// A point without any time of day can be any moment of its day; one with a time is taken at its word.
fn readings_of_point(components: &Components, unit: Precision) -> Range {
    readings(components, (components.count > Precision::Day.index() + 1).then_some(unit))
}

/// Counts between dates; `None` for units finer than a day.
pub fn between_dates(counting: Counting, start: &Date, end: &Date, unit: Precision) -> Option<Span> {
    let range = |date: &Date| readings(&date.components(), Some(unit));
    (unit <= Precision::Day).then(|| count(counting, range(start), range(end), unit))
}

/// Counts between times of day; `None` for units coarser than an hour.
pub fn between_times(counting: Counting, start: &Time, end: &Time, unit: Precision) -> Option<Span> {
    let range = |time: &Time| readings(&time.components(), Some(unit));
    (unit >= Precision::Hour).then(|| count(counting, range(start), range(end), unit))
}

/// Counts between points in time: years to days on the zone's calendar, hours and finer as time that
/// has truly passed, whatever clocks did.
pub fn between_date_times(counting: Counting, start: &DateTime, end: &DateTime, unit: Precision, zone: &TimeZone) -> Span {
    if unit <= Precision::Day {
        let range = |point: &DateTime| readings_of_point(&point.local(zone), unit);
        return count(counting, range(start), range(end), unit);
    }
    let base = start.offset_in(zone);
    let range = |point: &DateTime| -> Range {
        let (low, high) = readings_of_point(&point.components(), unit);
        let by = (i64::from(base) - i64::from(point.offset_in(zone))) * 60_000;
        let moved = |values: &[i32; COMPONENTS]| values_of(milliseconds_of(values) + by);
        (moved(&low), moved(&high))
    };
    count(counting, range(start), range(end), unit)
}
