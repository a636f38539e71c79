//! Dates and times with precision, offsets and uncertainty.
//!
//! A `Date`, `DateTime` or `Time` knows how precisely it was given. Comparing two that are equal as
//! far as the coarser one goes has no answer: `None`. A `DateTime` without offset is read at the
//! evaluation zone's offset for that local time; comparisons happen on the zone's calendar.

use std::cmp::Ordering;

use jiff::civil;
use jiff::tz::{Offset, TimeZone};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

mod counting;
mod display;

pub use counting::{Counting, Span, between_date_times, between_dates, between_times};

/// The last year a date can have; the first is 1.
pub const YEAR_MAX: i32 = 9999;
/// Longest text that can be a date or time; anything longer is refused unread.
const TEXT_BYTES_MAX: usize = 64;
/// UTC offsets lie within ±14 hours.
const OFFSET_MINUTES_MAX: i16 = 14 * 60;
const MILLISECONDS_PER_DAY: i64 = 86_400_000;
/// Components of a date-time, year to millisecond.
const COMPONENTS: usize = 7;

/// A component of a date or time, from coarse to fine. `Week` is a unit of duration only: no value
/// has that precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Precision {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

impl Precision {
    /// Position among the components year, month, day … millisecond (0 to 6); a week counts as a day.
    pub fn index(self) -> usize {
        match self {
            Precision::Year => 0,
            Precision::Month => 1,
            Precision::Week | Precision::Day => 2,
            Precision::Hour => 3,
            Precision::Minute => 4,
            Precision::Second => 5,
            Precision::Millisecond => 6,
        }
    }

    /// The precision that has `count` components of a date-time (1 to 7).
    fn of_count(count: usize) -> Precision {
        match count {
            0 | 1 => Precision::Year,
            2 => Precision::Month,
            3 => Precision::Day,
            4 => Precision::Hour,
            5 => Precision::Minute,
            6 => Precision::Second,
            _ => Precision::Millisecond,
        }
    }

    /// The precision named by a CQL calendar word (`day`, `days`) or by UCUM's time units (`a`, `mo`, `wk`, `d`, `h`, `min`, `s`, `ms`).
    pub fn of_unit(unit: &str) -> Option<Precision> {
        Some(match unit {
            "year" | "years" | "a" => Precision::Year,
            "month" | "months" | "mo" => Precision::Month,
            "week" | "weeks" | "wk" => Precision::Week,
            "day" | "days" | "d" => Precision::Day,
            "hour" | "hours" | "h" => Precision::Hour,
            "minute" | "minutes" | "min" => Precision::Minute,
            "second" | "seconds" | "s" => Precision::Second,
            "millisecond" | "milliseconds" | "ms" => Precision::Millisecond,
            _ => return None,
        })
    }

    /// The calendar word in the singular.
    pub fn word(self) -> &'static str {
        match self {
            Precision::Year => "year",
            Precision::Month => "month",
            Precision::Week => "week",
            Precision::Day => "day",
            Precision::Hour => "hour",
            Precision::Minute => "minute",
            Precision::Second => "second",
            Precision::Millisecond => "millisecond",
        }
    }

    /// Milliseconds in one; `None` for months and years, which have no fixed length.
    fn milliseconds(self) -> Option<i64> {
        Some(match self {
            Precision::Year | Precision::Month => return None,
            Precision::Week => 7 * MILLISECONDS_PER_DAY,
            Precision::Day => MILLISECONDS_PER_DAY,
            Precision::Hour => 3_600_000,
            Precision::Minute => 60_000,
            Precision::Second => 1000,
            Precision::Millisecond => 1,
        })
    }
}

/// A calendar date, years 0001 to 9999, of precision year, month or day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Date {
    year: u16,
    month: Option<u8>,
    day: Option<u8>,
}

/// A time of day of precision hour, minute, second or millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Time {
    hour: u8,
    minute: Option<u8>,
    second: Option<u8>,
    millisecond: Option<u16>,
}

/// A point in time: a date, as much of a time as is known, and the offset from UTC in minutes when given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DateTime {
    date: Date,
    time: Option<Time>,
    offset: Option<i16>,
}

/// The known components of a value, coarse to fine; `count` of them are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Components {
    values: [i32; COMPONENTS],
    first: usize,
    count: usize,
}

impl Components {
    /// The order at a precision (or as far as both go); `None` when it cannot be told.
    fn compare(&self, other: &Components, precision: Option<Precision>) -> Option<Ordering> {
        let end = precision.map_or(COMPONENTS, |precision| precision.index() + 1);
        let known = self.count.min(other.count).min(end);
        let pairs = self.values.iter().zip(other.values.iter()).take(known).skip(self.first);
        for (own, others) in pairs {
            match own.cmp(others) {
                Ordering::Equal => {}
                unequal => return Some(unequal),
            }
        }
        let enough = match precision {
            Some(_) => known == end,
            None => self.count == other.count,
        };
        enough.then_some(Ordering::Equal)
    }
}

/// The number of days in a month of the proleptic Gregorian calendar; 0 for a month that does not exist.
pub fn days_in_month(year: i32, month: i32) -> i32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    }
}

/// Days since 1970-01-01, by the usual era arithmetic.
fn days_from_civil(year: i32, month: i32, day: i32) -> i64 {
    let shifted = i64::from(year) - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let month_index = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_index + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of `days_from_civil`: (year, month, day).
fn civil_from_days(days: i64) -> (i64, i32, i32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as i32;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 } as i32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Milliseconds since 1970-01-01T00:00 of the same clock; absent components count as their first value.
fn milliseconds_of(values: &[i32; COMPONENTS]) -> i64 {
    let [year, month, day, hour, minute, second, millisecond] = *values;
    let days = days_from_civil(year, month, day);
    let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    days * MILLISECONDS_PER_DAY + seconds * 1000 + i64::from(millisecond)
}

/// The inverse of `milliseconds_of`; the year may lie outside 1 to 9999.
fn values_of(milliseconds: i64) -> [i32; COMPONENTS] {
    let (year, month, day) = civil_from_days(milliseconds.div_euclid(MILLISECONDS_PER_DAY));
    let rest = milliseconds.rem_euclid(MILLISECONDS_PER_DAY) as i32;
    let year = i32::try_from(year).unwrap_or(if year < 0 { i32::MIN } else { i32::MAX });
    [year, month, day, rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000]
}

/// Adds whole months, clamping the day to the month's end; `None` outside the years 1 to 9999.
fn add_months(values: &mut [i32; COMPONENTS], months: i64) -> Option<()> {
    let [year, month, day, ..] = values;
    let total = (i64::from(*year) * 12 + i64::from(*month) - 1).checked_add(months)?;
    let new_year = i32::try_from(total.div_euclid(12)).ok()?;
    if !(1..=YEAR_MAX).contains(&new_year) {
        return None;
    }
    *year = new_year;
    *month = total.rem_euclid(12) as i32 + 1;
    *day = (*day).min(days_in_month(*year, *month));
    Some(())
}

/// An amount in a unit, in the finest precision `count` components can carry: truncated, by 12 months
/// a year, 365 days a year, 30 days a month.
fn coarsen(amount: Decimal, unit: Precision, count: usize) -> Option<(i64, Precision)> {
    let finest = Precision::of_count(count);
    if unit.index() < count && unit != Precision::Week {
        let whole = if unit == Precision::Second { amount } else { amount.trunc() };
        return match unit {
            // A fraction of a second is meant; it is kept as milliseconds when there are any.
            Precision::Second if count == COMPONENTS => Some(((whole.checked_mul(Decimal::ONE_THOUSAND)?).trunc().to_i64()?, Precision::Millisecond)),
            _ => Some((whole.trunc().to_i64()?, unit)),
        };
    }
    if unit == Precision::Week && count >= 3 {
        return Some((amount.trunc().to_i64()?.checked_mul(7)?, Precision::Day));
    }
    let divisor = |length: i64| {
        let milliseconds = unit.milliseconds().map(|one| amount.checked_mul(Decimal::from(one)));
        milliseconds.flatten()?.checked_div(Decimal::from(length))?.trunc().to_i64()
    };
    let converted = match (finest, unit) {
        (Precision::Year, Precision::Month) => (amount / Decimal::from(12)).trunc().to_i64()?,
        (Precision::Year, _) => divisor(365 * MILLISECONDS_PER_DAY)?,
        (Precision::Month, _) => divisor(30 * MILLISECONDS_PER_DAY)?,
        _ => divisor(finest.milliseconds()?)?,
    };
    Some((converted, finest))
}

impl Date {
    /// The first date.
    pub const MIN: Date = Date { year: 1, month: Some(1), day: Some(1) };
    /// The last date.
    pub const MAX: Date = Date { year: 9999, month: Some(12), day: Some(31) };

    /// A date of the given precision; `None` if no such date exists (or a day is given without a month).
    pub fn new(year: i32, month: Option<i32>, day: Option<i32>) -> Option<Date> {
        if !(1..=YEAR_MAX).contains(&year) || (day.is_some() && month.is_none()) {
            return None;
        }
        if let Some(month) = month
            && !(1..=12).contains(&month)
        {
            return None;
        }
        if let (Some(month), Some(day)) = (month, day)
            && !(1..=days_in_month(year, month)).contains(&day)
        {
            return None;
        }
        let small = |value: Option<i32>| value.and_then(|value| u8::try_from(value).ok());
        Some(Date { year: u16::try_from(year).ok()?, month: small(month), day: small(day) })
    }

    /// The year.
    pub fn year(&self) -> i32 {
        i32::from(self.year)
    }

    /// The month, when known.
    pub fn month(&self) -> Option<i32> {
        self.month.map(i32::from)
    }

    /// The day of the month, when known.
    pub fn day(&self) -> Option<i32> {
        self.day.map(i32::from)
    }

    /// How precisely the date is known.
    pub fn precision(&self) -> Precision {
        match (self.month, self.day) {
            (None, _) => Precision::Year,
            (_, None) => Precision::Month,
            _ => Precision::Day,
        }
    }

    fn components(&self) -> Components {
        let values = [self.year(), self.month().unwrap_or(1), self.day().unwrap_or(1), 0, 0, 0, 0];
        Components { values, first: 0, count: self.precision().index() + 1 }
    }

    fn of_values(values: &[i32; COMPONENTS], precision: Precision) -> Option<Date> {
        let [year, month, day, ..] = *values;
        let has = |wanted: Precision| precision >= wanted;
        Date::new(year, has(Precision::Month).then_some(month), has(Precision::Day).then_some(day))
    }

    /// The order of two dates, at a precision if one is given; `None` when it cannot be told.
    pub fn compare(&self, other: &Date, precision: Option<Precision>) -> Option<Ordering> {
        self.components().compare(&other.components(), precision)
    }

    /// Adds calendar time; what is finer than the date's precision is converted and truncated.
    /// `None` outside the years 1 to 9999.
    pub fn add(&self, amount: Decimal, unit: Precision) -> Option<Date> {
        let values = shift(self.components(), amount, unit)?;
        Date::of_values(&values, self.precision())
    }

    /// The earliest full date it can be.
    pub fn low(&self) -> Date {
        Date { year: self.year, month: self.month.or(Some(1)), day: self.day.or(Some(1)) }
    }

    /// The latest full date it can be.
    pub fn high(&self) -> Date {
        let month = self.month.unwrap_or(12);
        let last = days_in_month(self.year(), i32::from(month));
        Date { year: self.year, month: Some(month), day: self.day.or(u8::try_from(last).ok()) }
    }

    /// Keeps at most this much precision.
    pub fn truncated(&self, precision: Precision) -> Date {
        let keep = |wanted: Precision| precision >= wanted;
        Date { year: self.year, month: self.month.filter(|_| keep(Precision::Month)), day: self.day.filter(|_| precision.index() >= 2) }
    }

    /// Reads a FHIR date or the date of a dateTime. Some servers write a zone behind a date, which FHIR does not allow and
    /// a day does not need.
    pub fn parse_fhir(text: &str) -> Option<Date> {
        let date = text.split('T').next().unwrap_or_default();
        let zoned = date.get(10..).is_some_and(|zone| split_offset(zone).is_some_and(|(rest, offset)| rest.is_empty() && offset.is_some()));
        Date::parse(if zoned { date.get(..10)? } else { date })
    }

    /// Reads `YYYY`, `YYYY-MM` or `YYYY-MM-DD`; anything else, or a date that does not exist, is `None`.
    pub fn parse(text: &str) -> Option<Date> {
        let bytes = text.as_bytes();
        let dashed = |at: usize| bytes.get(at) == Some(&b'-');
        let year = digits(bytes.get(0..4)?)?;
        match bytes.len() {
            4 => Date::new(year, None, None),
            7 if dashed(4) => Date::new(year, Some(digits(bytes.get(5..7)?)?), None),
            10 if dashed(4) && dashed(7) => Date::new(year, Some(digits(bytes.get(5..7)?)?), Some(digits(bytes.get(8..10)?)?)),
            _ => None,
        }
    }

    /// Days since 1970-01-01 of the earliest full date it can be.
    pub fn epoch_days(&self) -> i64 {
        let low = self.low();
        days_from_civil(low.year(), low.month().unwrap_or(1), low.day().unwrap_or(1))
    }
}

impl Time {
    /// Midnight.
    pub const MIN: Time = Time { hour: 0, minute: Some(0), second: Some(0), millisecond: Some(0) };
    /// The last millisecond of the day.
    pub const MAX: Time = Time { hour: 23, minute: Some(59), second: Some(59), millisecond: Some(999) };

    /// A time of the given precision; `None` if no such time exists or a component is missing in between.
    pub fn new(hour: i32, minute: Option<i32>, second: Option<i32>, millisecond: Option<i32>) -> Option<Time> {
        let gap = (minute.is_none() && second.is_some()) || (second.is_none() && millisecond.is_some());
        let within = |value: Option<i32>, limit: i32| value.is_none_or(|value| (0..limit).contains(&value));
        if gap || !within(Some(hour), 24) || !within(minute, 60) || !within(second, 60) || !within(millisecond, 1000) {
            return None;
        }
        let small = |value: Option<i32>| value.and_then(|value| u8::try_from(value).ok());
        Some(Time {
            hour: u8::try_from(hour).ok()?,
            minute: small(minute),
            second: small(second),
            millisecond: millisecond.and_then(|value| u16::try_from(value).ok()),
        })
    }

    /// The hour, 0 to 23.
    pub fn hour(&self) -> i32 {
        i32::from(self.hour)
    }

    /// The minute, when known.
    pub fn minute(&self) -> Option<i32> {
        self.minute.map(i32::from)
    }

    /// The second, when known.
    pub fn second(&self) -> Option<i32> {
        self.second.map(i32::from)
    }

    /// The millisecond, when known.
    pub fn millisecond(&self) -> Option<i32> {
        self.millisecond.map(i32::from)
    }

    /// How precisely the time is known.
    pub fn precision(&self) -> Precision {
        match (self.minute, self.second, self.millisecond) {
            (None, ..) => Precision::Hour,
            (_, None, _) => Precision::Minute,
            (.., None) => Precision::Second,
            _ => Precision::Millisecond,
        }
    }

    fn components(&self) -> Components {
        let or_zero = |value: Option<i32>| value.unwrap_or(0);
        let (minute, second) = (or_zero(self.minute()), or_zero(self.second()));
        let values = [1970, 1, 1, self.hour(), minute, second, or_zero(self.millisecond())];
        Components { values, first: 3, count: self.precision().index() + 1 }
    }

    fn of_values(values: &[i32; COMPONENTS], precision: Precision) -> Option<Time> {
        let [.., hour, minute, second, millisecond] = *values;
        let has = |wanted: Precision, value: i32| (precision >= wanted).then_some(value);
        Time::new(hour, has(Precision::Minute, minute), has(Precision::Second, second), has(Precision::Millisecond, millisecond))
    }

    /// The order of two times, at a precision if one is given; `None` when it cannot be told.
    pub fn compare(&self, other: &Time, precision: Option<Precision>) -> Option<Ordering> {
        self.components().compare(&other.components(), precision)
    }

    /// Adds a duration of at most days; the clock wraps at midnight. `None` for months and years.
    pub fn add(&self, amount: Decimal, unit: Precision) -> Option<Time> {
        unit.milliseconds()?;
        let values = shift(self.components(), amount, unit)?;
        Time::of_values(&values, self.precision())
    }

    /// The earliest full time it can be.
    pub fn low(&self) -> Time {
        Time { hour: self.hour, minute: self.minute.or(Some(0)), second: self.second.or(Some(0)), millisecond: self.millisecond.or(Some(0)) }
    }

    /// The latest full time it can be.
    pub fn high(&self) -> Time {
        Time { hour: self.hour, minute: self.minute.or(Some(59)), second: self.second.or(Some(59)), millisecond: self.millisecond.or(Some(999)) }
    }

    /// Keeps at most this much precision (an hour at least).
    pub fn truncated(&self, precision: Precision) -> Time {
        Time {
            hour: self.hour,
            minute: self.minute.filter(|_| precision >= Precision::Minute),
            second: self.second.filter(|_| precision >= Precision::Second),
            millisecond: self.millisecond.filter(|_| precision >= Precision::Millisecond),
        }
    }

    /// Reads `hh`, `hh:mm`, `hh:mm:ss` or `hh:mm:ss.fff` (more fraction digits are cut), with or without a leading `T`.
    pub fn parse(text: &str) -> Option<Time> {
        let text = text.strip_prefix('T').unwrap_or(text);
        let bytes = text.as_bytes();
        if bytes.len() > TEXT_BYTES_MAX {
            return None;
        }
        let colon = |at: usize| bytes.get(at) == Some(&b':');
        let two = |at: usize| digits(bytes.get(at..at + 2)?);
        let hour = two(0)?;
        match bytes.len() {
            2 => return Time::new(hour, None, None, None),
            5 if colon(2) => return Time::new(hour, Some(two(3)?), None, None),
            8.. if colon(2) && colon(5) => {}
            _ => return None,
        }
        let (minute, second) = (Some(two(3)?), Some(two(6)?));
        match bytes.get(8..)? {
            [] => Time::new(hour, minute, second, None),
            [b'.', fraction @ ..] if !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit) => {
                let mut millisecond = 0;
                for place in 0..3 {
                    let digit = fraction.get(place).map_or(0, |byte| i32::from(byte - b'0'));
                    millisecond = millisecond * 10 + digit;
                }
                Time::new(hour, minute, second, Some(millisecond))
            }
            _ => None,
        }
    }

    /// Milliseconds since midnight of the earliest full time it can be.
    pub fn milliseconds(&self) -> i64 {
        milliseconds_of(&self.components().values)
    }
}

/// Adds an amount of calendar time to components.
fn shift(components: Components, amount: Decimal, unit: Precision) -> Option<[i32; COMPONENTS]> {
    let (amount, unit) = coarsen(amount, unit, components.count)?;
    let mut values = components.values;
    match unit {
        Precision::Year => add_months(&mut values, amount.checked_mul(12)?)?,
        Precision::Month => add_months(&mut values, amount)?,
        _ => {
            let by = amount.checked_mul(unit.milliseconds()?)?;
            values = values_of(milliseconds_of(&values).checked_add(by)?);
        }
    }
    Some(values)
}

impl DateTime {
    /// The first point in time.
    pub const MIN: DateTime = DateTime { date: Date::MIN, time: Some(Time::MIN), offset: Some(0) };
    /// The last point in time.
    pub const MAX: DateTime = DateTime { date: Date::MAX, time: Some(Time::MAX), offset: Some(0) };

    /// A point in time; `None` when a time is given without a full date, or the offset (minutes) exceeds 14 hours.
    pub fn new(date: Date, time: Option<Time>, offset: Option<i16>) -> Option<DateTime> {
        let too_far = offset.is_some_and(|offset| offset.abs() > OFFSET_MINUTES_MAX);
        if too_far || (time.is_some() && date.day.is_none()) {
            return None;
        }
        Some(DateTime { date, time, offset })
    }

    /// The instant as seen on the zone's clock, to the millisecond.
    pub fn from_timestamp(timestamp: jiff::Timestamp, zone: &TimeZone) -> DateTime {
        let offset = zone.to_offset(timestamp);
        let minutes = offset.seconds() / 60;
        let values = values_of(timestamp.as_millisecond() + i64::from(minutes) * 60_000);
        DateTime::of_values(&values, Precision::Millisecond, i16::try_from(minutes).ok()).unwrap_or(DateTime::MAX)
    }

    /// What a server wrote in UTC, as the zone's clock shows it: UTC is how instants are exchanged, and says nothing of anybody's
    /// day. A time with another offset says its own day, and stays as it is.
    pub fn of_utc_in(self, zone: &TimeZone) -> DateTime {
        let precision = self.precision();
        if self.offset != Some(0) || precision < Precision::Hour {
            return self;
        }
        let there = jiff::Timestamp::from_millisecond(milliseconds_of(&self.components().values))
            .ok()
            .map(|instant| zone.to_offset(instant).seconds() / 60);
        let shown = there
            .filter(|minutes| *minutes != 0)
            .and_then(|minutes| DateTime::of_values(&self.local(zone).values, precision, i16::try_from(minutes).ok()));
        shown.unwrap_or(self)
    }

    /// The date part.
    pub fn date(&self) -> Date {
        self.date
    }

    /// The time part, as far as it is known.
    pub fn time(&self) -> Option<Time> {
        self.time
    }

    /// The offset from UTC in minutes, when it was given.
    pub fn offset(&self) -> Option<i16> {
        self.offset
    }

    /// The same with another offset (minutes); nothing is converted.
    pub fn with_offset(&self, offset: Option<i16>) -> DateTime {
        DateTime { offset, ..*self }
    }

    /// How precisely the point is known.
    pub fn precision(&self) -> Precision {
        self.time.map_or(self.date.precision(), |time| time.precision())
    }

    fn components(&self) -> Components {
        let mut components = self.date.components();
        if let Some(time) = self.time {
            let of_time = time.components();
            for (own, others) in components.values.iter_mut().zip(of_time.values).skip(3) {
                *own = others;
            }
            components.count = of_time.count;
        }
        components
    }

    fn of_values(values: &[i32; COMPONENTS], precision: Precision, offset: Option<i16>) -> Option<DateTime> {
        let date = Date::of_values(values, precision)?;
        let time = (precision >= Precision::Hour).then(|| Time::of_values(values, precision)).flatten();
        DateTime::new(date, time, offset)
    }

    /// Minutes from UTC: as given, else the zone's at that local time (a local time skipped or
    /// repeated by a clock change is read with the offset before the change).
    pub fn offset_in(&self, zone: &TimeZone) -> i16 {
        if let Some(offset) = self.offset {
            return offset;
        }
        let low = self.low();
        let time = low.time.unwrap_or(Time::MIN);
        let part = |value: Option<i32>| value.and_then(|value| i8::try_from(value).ok()).unwrap_or(0);
        let civil = civil::DateTime::new(
            i16::try_from(low.date.year()).unwrap_or(1),
            part(low.date.month()).max(1),
            part(low.date.day()).max(1),
            part(Some(time.hour())),
            part(time.minute()),
            part(time.second()),
            0,
        );
        let Ok(civil) = civil else { return 0 };
        let offset = match zone.to_ambiguous_timestamp(civil).offset() {
            jiff::tz::AmbiguousOffset::Unambiguous { offset } => offset,
            jiff::tz::AmbiguousOffset::Gap { before, .. } | jiff::tz::AmbiguousOffset::Fold { before, .. } => before,
        };
        i16::try_from(offset.seconds() / 60).unwrap_or(0)
    }

    /// The time of day on the zone's clock.
    pub fn local_time(&self, zone: &TimeZone) -> Option<Time> {
        self.time.and_then(|time| Time::of_values(&self.local(zone).values, time.precision()))
    }

    /// The components on the zone's clock.
    fn local(&self, zone: &TimeZone) -> Components {
        let mut components = self.components();
        let Some(offset) = self.offset else { return components };
        if components.count < 4 {
            return components;
        }
        let utc = milliseconds_of(&components.values) - i64::from(offset) * 60_000;
        let there = jiff::Timestamp::from_millisecond(utc).map_or(Offset::UTC, |instant| zone.to_offset(instant));
        let shift = i64::from(there.seconds() / 60) * 60_000;
        components.values = values_of(utc + shift);
        components
    }

    /// Milliseconds since 1970-01-01T00:00Z of the earliest point it can be.
    pub fn epoch_milliseconds(&self, zone: &TimeZone) -> i64 {
        milliseconds_of(&self.components().values) - i64::from(self.offset_in(zone)) * 60_000
    }

    /// The order of two points, at a precision if one is given: years to days as they are written, whatever the offsets,
    /// anything finer on the zone's clock (CQL, "Same As" and its kin). `None` when it cannot be told.
    pub fn compare(&self, other: &DateTime, precision: Option<Precision>, zone: &TimeZone) -> Option<Ordering> {
        if precision.is_some_and(|precision| precision <= Precision::Day) {
            return self.components().compare(&other.components(), precision);
        }
        let same = self.offset == other.offset;
        let coarse = precision == Some(Precision::Hour);
        if same && (self.offset.is_none() || !coarse) {
            return self.components().compare(&other.components(), precision);
        }
        if self.offset.is_some() != other.offset.is_some() && precision.is_none() {
            let full = |point: &DateTime| point.precision() == Precision::Millisecond;
            if full(self) && full(other) {
                return Some(self.epoch_milliseconds(zone).cmp(&other.epoch_milliseconds(zone)));
            }
        }
        self.local(zone).compare(&other.local(zone), precision)
    }

    /// Adds calendar time on the value's own clock; what is finer than its precision is converted and
    /// truncated. `None` outside the years 1 to 9999.
    pub fn add(&self, amount: Decimal, unit: Precision) -> Option<DateTime> {
        let values = shift(self.components(), amount, unit)?;
        DateTime::of_values(&values, self.precision(), self.offset)
    }

    /// The earliest full point it can be.
    pub fn low(&self) -> DateTime {
        let time = self.time.map_or(Time::MIN, |time| time.low());
        DateTime { date: self.date.low(), time: Some(time), offset: self.offset }
    }

    /// The latest full point it can be.
    pub fn high(&self) -> DateTime {
        let time = self.time.map_or(Time::MAX, |time| time.high());
        DateTime { date: self.date.high(), time: Some(time), offset: self.offset }
    }

    /// Keeps at most this much precision.
    pub fn truncated(&self, precision: Precision) -> DateTime {
        let time = self.time.filter(|_| precision >= Precision::Hour).map(|time| time.truncated(precision));
        DateTime { date: self.date.truncated(precision), time, offset: self.offset }
    }

    /// Reads what FHIR writes as date, dateTime or instant: `YYYY[-MM[-DD[Thh:mm[:ss[.f…]][Z|±hh:mm]]]]`.
    /// A leap second counts as the second before it. CQL compares seconds with their fraction as one decimal number, so
    /// seconds without a fraction are whole ones: they compare with the milliseconds of others.
    pub fn parse_fhir(text: &str) -> Option<DateTime> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let Some((date, rest)) = text.split_once('T') else {
            return DateTime::new(Date::parse_fhir(text)?, None, None);
        };
        let date = Date::parse(date).filter(|date| date.day.is_some())?;
        if rest.is_empty() {
            return None;
        }
        let (time, offset) = split_offset(rest)?;
        let time = Time::parse(time).or_else(|| leap_second(time))?;
        let whole = Time { millisecond: time.millisecond.or(time.second.map(|_| 0)), ..time };
        DateTime::new(date, Some(whole), offset)
    }

    /// Reads the text of a CQL literal, with or without `@`: as FHIR, and `2012T`, `2012-02T`, `2012-02-29T`, `2012-02-29T10`.
    pub fn parse_cql(text: &str) -> Option<DateTime> {
        let text = text.strip_prefix('@').unwrap_or(text);
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let Some((date, rest)) = text.split_once('T') else {
            return DateTime::new(Date::parse(text)?, None, None);
        };
        let date = Date::parse(date)?;
        if rest.is_empty() {
            return DateTime::new(date, None, None);
        }
        let (time, offset) = split_offset(rest)?;
        DateTime::new(date, Some(Time::parse(time)?), offset)
    }
}

/// `10:59:60` as `10:59:59`.
fn leap_second(time: &str) -> Option<Time> {
    let head = time.get(..6)?;
    let tail = time.get(6..)?.strip_prefix("60")?;
    Time::parse(&format!("{head}59{tail}"))
}

/// Splits `Z` or `±hh:mm` from the end of a time; the offset is in minutes.
fn split_offset(text: &str) -> Option<(&str, Option<i16>)> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some((time, Some(0)));
    }
    let Some(at) = text.find(['+', '-']) else { return Some((text, None)) };
    let (time, offset) = text.split_at(at);
    let bytes = offset.as_bytes();
    if bytes.len() != 6 || bytes.get(3) != Some(&b':') {
        return None;
    }
    let minutes = digits(bytes.get(4..6)?).filter(|minutes| *minutes < 60)?;
    let magnitude = digits(bytes.get(1..3)?)? * 60 + minutes;
    let signed = if offset.starts_with('-') { -magnitude } else { magnitude };
    let signed = i16::try_from(signed).ok().filter(|offset| offset.abs() <= OFFSET_MINUTES_MAX)?;
    Some((time, Some(signed)))
}

/// The number that ASCII digits write; `None` for anything else.
fn digits(bytes: &[u8]) -> Option<i32> {
    let mut number = 0_i32;
    for byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(i32::from(byte - b'0'))?;
    }
    (!bytes.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests;
