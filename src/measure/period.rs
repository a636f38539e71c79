//! Reporting periods: whole calendar days in the site's zone.

use jiff::Timestamp;
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Most periods that one evaluation takes.
pub const PERIODS_MAX: usize = 1_200;

/// From the start of the first day to the end of the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// First day.
    pub start: Date,
    /// Last day, included.
    pub end: Date,
}

impl Period {
    /// A period of whole days; `None` when it ends before it starts.
    pub fn new(start: Date, end: Date) -> Option<Period> {
        (start <= end).then_some(Period { start, end })
    }

    /// The calendar month that a day lies in.
    pub fn month_of(day: Date) -> Period {
        Period { start: day.first_of_month(), end: day.last_of_month() }
    }

    /// The last `count` months that were complete on `as_of`, oldest first; at most [`PERIODS_MAX`].
    pub fn complete_months(as_of: Date, count: usize) -> Vec<Period> {
        let mut months: Vec<Period> = Vec::new();
        let mut first = as_of.first_of_month();
        for _ in 0..count.min(PERIODS_MAX) {
            let Ok(last) = first.checked_sub(1.day()) else { break };
            months.push(Period::month_of(last));
            first = last.first_of_month();
        }
        months.reverse();
        months
    }

    /// Reads `2026-01-01/2026-01-31`, `2026-01`, `2026`, or times of day after the dates, which are only accepted where they mean
    /// whole days, and without an offset. The error says why it is none, and the nearest that is one.
    ///
    /// ```
    /// use watershed::measure::Period;
    ///
    /// assert_eq!(Period::parse("2026-02"), Period::parse("2026-02-01/2026-02-28"));
    /// let error = Period::parse("2026-01-31/2026-01-01").unwrap_err();
    /// assert_eq!(error, "`2026-01-31/2026-01-01` is not a period: it ends before it starts; did you mean `2026-01`?");
    /// ```
    pub fn parse(text: &str) -> Result<Period, String> {
        Period::read(text, None)
    }

    /// The same where the zone of the days is known: an instant with an offset is the time that it is there.
    ///
    /// ```
    /// use watershed::measure::Period;
    ///
    /// let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(-5));
    /// assert_eq!(Period::parse_in("2026-01-01T05:00:00Z/2026-02-01T04:59:59Z", &zone), Period::parse("2026-01"));
    /// ```
    pub fn parse_in(text: &str, zone: &TimeZone) -> Result<Period, String> {
        Period::read(text, Some(zone))
    }

    fn read(text: &str, zone: Option<&TimeZone>) -> Result<Period, String> {
        let read = match text.split_once('/') {
            Some((start, end)) => day(start, FIRST_SECOND, zone)
                .map_err(|why| format!("the start is no day{why}"))
                .and_then(|start| Ok((start, day(end, LAST_SECOND, zone).map_err(|why| format!("the end is no day{why}"))?)))
                .and_then(|(start, end)| Period::new(start, end).ok_or_else(|| "it ends before it starts".to_owned())),
            None => whole(text).ok_or_else(|| alone(text)),
        };
        read.map_err(|why| {
            let expected = "expected START/END as `2026-01-01/2026-01-31`, a month as `2026-01`, or a year as `2026`";
            let help = near(text).map_or_else(|| expected.to_owned(), |near| format!("did you mean `{near}`?"));
            format!("`{text}` is not a period: {why}; {help}")
        })
    }
}

const FIRST_SECOND: &str = "00:00:00";
const LAST_SECOND: &str = "23:59:59";

/// `2026` or `2026-01`.
fn whole(text: &str) -> Option<Period> {
    match text.len() {
        4 => Period::new(format!("{text}-01-01").parse().ok()?, format!("{text}-12-31").parse().ok()?),
        7 => format!("{text}-01").parse().ok().map(Period::month_of),
        _ => None,
    }
}

/// A day, or a time of that day that is its very first or last second; the error says why not, if more can be said.
fn day(text: &str, only_time: &str, zone: Option<&TimeZone>) -> Result<Date, String> {
    let (date, time) = text.split_once('T').unwrap_or((text, only_time));
    if time.contains(['Z', 'z', '+', '-']) {
        return day_of_instant(text, only_time, zone);
    }
    match date.parse::<Date>() {
        Ok(day) if time.starts_with(only_time) => Ok(day),
        Ok(_) => Err(format!(": `{time}` is not its {} second", if only_time == FIRST_SECOND { "first" } else { "last" })),
        Err(_) => Err(impossible(date).map(|why| format!(": {why}")).unwrap_or_default()),
    }
}

/// The day whose first or last second an instant is in the zone in which days are meant.
fn day_of_instant(text: &str, only_time: &str, zone: Option<&TimeZone>) -> Result<Date, String> {
    let instant: Timestamp = text.parse().map_err(|_| format!(": `{text}` is no time"))?;
    let Some(zone) = zone else { return Err(format!(": `{text}` has an offset, and days are those of the place")) };
    let local = instant.to_zoned(zone.clone());
    match local.time().strftime("%H:%M:%S").to_string() == only_time {
        true => Ok(local.date()),
        false => {
            let name = zone.iana_name().map(|name| format!(" in {name}")).unwrap_or_default();
            let which = if only_time == FIRST_SECOND { "first" } else { "last" };
            Err(format!(": `{text}` is {}{name}, not the {which} second of a day", local.strftime("%Y-%m-%d %H:%M:%S")))
        }
    }
}

/// Why a text without `/` is no period.
fn alone(text: &str) -> String {
    let quarter = text.split_once(['Q', 'q']).filter(|(year, _)| numbers(year).len() == 1);
    match quarter {
        Some((_, "1" | "2" | "3" | "4")) => "a quarter is written as its days".to_owned(),
        Some((_, number)) => format!("a year has the quarters 1 to 4, not {number}"),
        None if text.parse::<Date>().is_ok() => "a day is written as its start and end".to_owned(),
        None => impossible(text).unwrap_or_else(|| "no `/`".to_owned()),
    }
}

/// What is wrong with a year, month and day.
fn impossible(text: &str) -> Option<String> {
    match *numbers(text).as_slice() {
        [year, month, ..] if year > 31 && !(1..=12).contains(&month) => Some(format!("a year has the months 01 to 12, not {month:02}")),
        [year, month, day] if year > 31 => {
            let last = i16::try_from(year).ok().and_then(|year| Date::new(year, i8::try_from(month).ok()?, 1).ok())?.last_of_month();
            (day < 1 || day > i64::from(last.day())).then(|| format!("{} has the days 01 to {}, not {day:02}", last.strftime("%B %Y"), last.day()))
        }
        _ => None,
    }
}

/// The runs of digits.
fn numbers(text: &str) -> Vec<i64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|run| run.parse().ok()).collect()
}

/// The period that a text most likely means, as it is written here.
fn near(text: &str) -> Option<String> {
    let days = text.split('/').filter_map(|side| side.split('T').next());
    let (start, end) = match *days.flat_map(numbers).collect::<Vec<_>>().as_slice() {
        [year, quarter] if text.contains(['Q', 'q']) => {
            let last = quarter.clamp(1, 4) * 3;
            (date(year, last - 2, 1)?, date(year, last, 1)?.last_of_month())
        }
        [joined] if joined > 9_999 => {
            let month = Period::month_of(date(joined / 100, joined % 100, 1).filter(|_| joined <= 999_999)?);
            (month.start, month.end)
        }
        [from, to] if from > 999_999 => (date(from / 10_000, from / 100 % 100, from % 100)?, date(to / 10_000, to / 100 % 100, to % 100)?),
        [year, month] | [month, year] if year > 31 && month <= 31 => {
            let month = Period::month_of(date(year, month, 1)?);
            (month.start, month.end)
        }
        [year, month, day] => (date(year, month, day)?, date(year, month, day)?),
        [year, month, to_year, to_month] => (date(year, month, 1)?, date(to_year, to_month, 1)?.last_of_month()),
        [year, month, day, to_year, to_month, to_day, ..] => (date(year, month, day)?, date(to_year, to_month, to_day)?),
        _ => return None,
    };
    let period = Period::new(start.min(end), end.max(start))?;
    Some(if Period::month_of(start) == period { start.strftime("%Y-%m").to_string() } else { period.to_string() })
}

/// The day, or the nearest one that there is.
fn date(year: i64, month: i64, day: i64) -> Option<Date> {
    let first = Date::new(i16::try_from(year).ok().filter(|year| *year >= 1_000)?, i8::try_from(month.clamp(1, 12)).ok()?, 1).ok()?;
    Date::new(first.year(), first.month(), i8::try_from(day.clamp(1, i64::from(first.last_of_month().day()))).ok()?).ok()
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read() {
        for (text, expected) in [
            ("2026-01-01/2026-01-31", Ok("2026-01-01/2026-01-31")),
            ("2026-02", Ok("2026-02-01/2026-02-28")),
            ("2024", Ok("2024-01-01/2024-12-31")),
            ("2025-01-01T00:00:00/2025-12-31T23:59:59.999", Ok("2025-01-01/2025-12-31")),
            ("2025-01-01T00:00:00Z/2025-12-31", Err("`2025-01-01T00:00:00Z` has an offset, and days are those of the place; did you mean `2025-01-01/2025-12-31`?")),
            ("2026-01-31/2026-01-01", Err("it ends before it starts; did you mean `2026-01`?")),
            ("2026-01-01T12:00/2026-01-31", Err("the start is no day: `12:00` is not its first second; did you mean `2026-01`?")),
            ("2026-13", Err("a year has the months 01 to 12, not 13; did you mean `2026-12`?")),
            ("2026-00", Err("a year has the months 01 to 12, not 00; did you mean `2026-01`?")),
            ("2026-Q2", Err("a quarter is written as its days; did you mean `2026-04-01/2026-06-30`?")),
            ("2026-Q5", Err("a year has the quarters 1 to 4, not 5; did you mean `2026-10-01/2026-12-31`?")),
            ("2026-1", Err("no `/`; did you mean `2026-01`?")),
            ("1/2026", Err("the start is no day; did you mean `2026-01`?")),
            ("2026-02-30/2026-03-31", Err("the start is no day: February 2026 has the days 01 to 28, not 30; did you mean `2026-02-28/2026-03-31`?")),
            ("2026-01-15", Err("a day is written as its start and end; did you mean `2026-01-15/2026-01-15`?")),
            ("2026-01/2026-03", Err("the start is no day; did you mean `2026-01-01/2026-03-31`?")),
            ("20260101/20260131", Ok("2026-01-01/2026-01-31")),
            ("202601", Err("no `/`; did you mean `2026-01`?")),
            ("2026-01-01 2026-03-31", Err("no `/`; did you mean `2026-01-01/2026-03-31`?")),
            ("2026–02", Err("no `/`; did you mean `2026-02`?")),
            ("january", Err("no `/`; expected START/END")),
            ("99999-99", Err("expected START/END")),
            ("9999999999999999999999/", Err("the start is no day; expected START/END")),
            ("", Err("expected START/END")),
        ] {
            match (Period::parse(text), expected) {
                (Ok(period), Ok(expected)) => assert_eq!(period.to_string(), expected),
                (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn instants_are_days_of_the_zone_or_refused() {
        let read = |text: &str, zone: &str| Period::parse_in(text, &TimeZone::get(zone).unwrap()).map(|period| period.to_string());
        let (utc, offset) = ("2026-01-01T00:00:00Z/2026-01-31T23:59:59Z", "2026-01-01T00:00:00-05:00/2026-01-31T23:59:59.999-05:00");
        assert_eq!(read(utc, "UTC"), Ok("2026-01-01/2026-01-31".to_owned()));
        assert_eq!(read(offset, "America/New_York"), Ok("2026-01-01/2026-01-31".to_owned()));
        assert_eq!(read("2026-01", "America/New_York"), Ok("2026-01-01/2026-01-31".to_owned()));
        let why = "the start is no day: `2026-01-01T00:00:00Z` is 2025-12-31 19:00:00 in America/New_York, not the first second of a day; did you mean `2026-01`?";
        assert_eq!(read(utc, "America/New_York"), Err(format!("`{utc}` is not a period: {why}")));
    }

    #[test]
    fn complete_months_end_before_today() {
        let months = Period::complete_months("2026-03-15".parse().unwrap(), 3);
        let shown: Vec<String> = months.iter().map(Period::to_string).collect();
        assert_eq!(shown, ["2025-12-01/2025-12-31", "2026-01-01/2026-01-31", "2026-02-01/2026-02-28"]);
        assert_eq!(Period::complete_months("2026-03-01".parse().unwrap(), 1)[0].end.to_string(), "2026-02-28");
    }
}
