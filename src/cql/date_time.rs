//! Dates and times with precision, offsets and uncertainty.
//!
//! A `Date`, `DateTime` or `Time` knows how precisely it was given. Comparing two that are equal as
//! far as the coarser one goes has no answer: `None`. A `DateTime` without offset is read at the
//! evaluation zone's offset for that local time.

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
