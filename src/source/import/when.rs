//! Days and times as tables write them: by themselves, or in a form of strftime that loses nothing of what it has.

use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp, ToSpan as _, Zoned};
use std::str::FromStr as _;

/// Years that can be: `26` read as a year of four digits is none.
const YEARS: std::ops::RangeInclusive<i16> = 1800..=2200;
/// What a form is tried with: no two numbers of it are alike, and its hour is past noon.
const SAMPLE: DateTime = DateTime::constant(2026, 1, 31, 13, 45, 7, 0);
/// Words in a form that say that times are meant in UTC.
const UTC: [&str; 3] = ["Z", "UTC", "GMT"];
/// Names of what directives write, by the letters of those that write it alone.
const FIELDS: [(char, &str); 6] = [('Y', "the year"), ('m', "the month"), ('d', "the day"), ('H', "the hour"), ('M', "the minute"), ('S', "the second")];

const LEFT_OUT: &str = "a time that the clocks left out when they were put forward";

/// A form of strftime.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Format {
    text: String,
    /// A word in it says that times are meant in UTC, as the `Z` of `%H:%MZ`.
    is_utc: bool,
}

/// What a form has.
#[derive(Debug, PartialEq)]
enum When {
    Day(Date),
    /// A time that does not say in which zone.
    Local(DateTime),
    At(Zoned),
}

impl Format {
    /// A form in which no day or time loses anything; else why it cannot be used.
    pub fn new(text: &str) -> Result<Format, String> {
        let (directives, words) = parts(text);
        if let Some(zone) = words.iter().find(|word| is_zone(word)) {
            return Err(format!("the zone `{zone}` in it would be passed over; have the offset written, which is `%:z`, or `%z` without a colon"));
        }
        twice(&directives)?;
        let format = Format { text: text.to_owned(), is_utc: words.iter().any(|word| UTC.contains(&word.as_str())) };
        format.try_out()?;
        Ok(format)
    }

    /// Writes a time and reads it back: it is the same one, as far as it was written.
    fn try_out(&self) -> Result<(), String> {
        let own = if self.is_utc { TimeZone::UTC } else { TimeZone::fixed(Offset::constant(5)) };
        let sample = SAMPLE.to_zoned(own.clone()).map_err(|error| error.to_string())?;
        let written = strtime::format(&self.text, &sample).map_err(|error| error.to_string())?;
        let parts = BrokenDownTime::parse(&self.text, &written).map_err(|error| error.to_string())?;
        let cut = |has: Option<i8>, whole: i8| has.map_or(0, |_| whole);
        let expected = SAMPLE.date().at(SAMPLE.hour(), cut(parts.minute(), SAMPLE.minute()), cut(parts.second(), SAMPLE.second()), 0);
        let is_same = match self.read(&written).ok_or("it does not tell one day from another")? {
            When::Day(date) => date == SAMPLE.date(),
            When::Local(local) => local == expected,
            // Of seconds since 1970 nothing is cut.
            When::At(at) => [expected, SAMPLE].contains(&at.with_time_zone(own).datetime()),
        };
        let help = "`%I` goes with `%p`, and an offset with an hour";
        if is_same { Ok(()) } else { Err(format!("what is written so, as `{written}`, is read as another time: {help}")) }
    }

    fn read(&self, text: &str) -> Option<When> {
        let mut parts = BrokenDownTime::parse(&self.text, text).ok()?;
        if self.is_utc {
            parts.set_offset(Some(Offset::UTC));
        }
        if parts.offset().is_some() || parts.iana_time_zone().is_some() || parts.timestamp().is_some() {
            let at = parts.to_zoned().ok()?;
            // Of a zone alone, a time may be one that its clocks left out.
            let is_told = parts.offset().is_some() || parts.timestamp().is_some() || parts.to_datetime().is_ok_and(|local| local == at.datetime());
            return is_told.then_some(When::At(at));
        }
        let local = parts.to_datetime().ok()?;
        Some(if parts.hour().is_some() { When::Local(local) } else { When::Day(local.date()) })
    }
}

/// The letters of a form's directives, and the words between them.
fn parts(format: &str) -> (Vec<char>, Vec<String>) {
    let (mut directives, mut words) = (Vec::new(), vec![String::new()]);
    let mut rest = format.chars();
    while let Some(letter) = rest.next() {
        match (letter, words.last_mut()) {
            // What stands before the letter is how many digits it writes, and with what it fills them.
            ('%', _) => directives.extend(rest.by_ref().find(|letter| letter.is_ascii_alphabetic() || *letter == '%')),
            (letter, Some(word)) if letter.is_alphabetic() => {
                word.push(letter);
                continue;
            }
            _ => {}
        }
        words.push(String::new());
    }
    (directives, words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// Whether a word is an abbreviation of a zone, as `EST` and `CEST`.
fn is_zone(word: &str) -> bool {
    (3..=4).contains(&word.len()) && word.ends_with('T') && word.bytes().all(|byte| byte.is_ascii_uppercase()) && !UTC.contains(&word)
}

/// What stands in it twice is read twice, and the second time counts.
fn twice(directives: &[char]) -> Result<(), String> {
    let mut met: Vec<char> = Vec::new();
    for directive in directives {
        let own = directive.to_string();
        let written = match directive {
            'F' => "Ymd",
            'D' => "mdY",
            'T' => "HMS",
            'R' => "HM",
            'y' => "Y",
            'b' | 'B' | 'h' => "m",
            'e' => "d",
            'k' | 'I' | 'l' => "H",
            _ => own.as_str(),
        };
        for field in written.chars() {
            if let Some((_, name)) = FIELDS.iter().find(|(letter, _)| *letter == field && met.contains(letter)) {
                return Err(format!("`%{directive}` has {name} in it a second time; `%m` is the month, `%M` the minute"));
            }
            met.push(field);
        }
    }
    Ok(())
}

fn expected(what: &str, example: &str, format: Option<&Format>) -> String {
    format.map_or_else(|| format!("{what} as {example}"), |format| format!("{what} as `{}` has it", format.text))
}

/// A day; of an instant the one that it is in the site's zone.
pub(super) fn day(text: &str, format: Option<&Format>, site: &TimeZone) -> Result<Date, String> {
    let date = match format {
        Some(format) => format.read(text).map(|when| match when {
            When::Day(date) => date,
            When::Local(local) => local.date(),
            When::At(at) => at.with_time_zone(site.clone()).date(),
        }),
        // Anything longer would be cut without a word.
        None => Date::from_str(text).ok().filter(|_| text.len() == 10),
    };
    date.filter(|date| YEARS.contains(&date.year())).ok_or_else(|| expected("no date", "2026-03-05", format))
}

/// A period of the calendar as tables write it: its month, quarter or year, or its first day.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    /// How long it is: 1, 3 or 12.
    months: i8,
    /// A form of strftime.
    format: Option<String>,
}

impl Span {
    /// Of so many months, in a form in which one period is told from another.
    pub fn new(months: i8, format: Option<&str>) -> Result<Span, String> {
        let span = Span { months, format: format.map(str::to_owned) };
        let Some(format) = format else { return Ok(span) };
        let start = Date::constant(2026, 13 - months, 1);
        let written = strtime::format(format, start).map_err(|error| error.to_string())?;
        match span.read(&written) {
            Ok((read, _)) if read == start => Ok(span),
            _ => Err(format!("it does not tell one {} from another", span.word())),
        }
    }

    fn word(&self) -> &'static str {
        match self.months {
            1 => "month",
            3 => "quarter",
            _ => "year",
        }
    }

    /// Its first and its last day.
    pub fn read(&self, text: &str) -> Result<(Date, Date), String> {
        let example = match (&self.format, self.months) {
            (Some(format), _) => format!("`{format}` has it"),
            (None, 1) => "2026-03, or its first day".to_owned(),
            (None, 3) => "2026-Q1, or its first day".to_owned(),
            (None, _) => "2026, or its first day".to_owned(),
        };
        let wrong = || format!("no {} as {example}", self.word());
        let (start, named) = match &self.format {
            Some(format) => BrokenDownTime::parse(format, text).ok().and_then(|parts| named(parts.year()?, parts.month(), parts.day())),
            None => plain(text),
        }
        .ok_or_else(wrong)?;
        // A month is no quarter, though it begins with one.
        let is_one = named.is_none_or(|months| months == self.months) && start.day() == 1 && (start.month() - 1) % self.months == 0;
        let last = start.checked_add(i32::from(self.months).months()).and_then(|next| next.yesterday());
        last.ok().filter(|_| is_one && YEARS.contains(&start.year())).map(|last| (start, last)).ok_or_else(wrong)
    }
}

/// The first day of what is named, and how many months it has, where it is no day.
fn named(year: i16, month: Option<i8>, day: Option<i8>) -> Option<(Date, Option<i8>)> {
    let months = match (month, day) {
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some(1),
        (None, None) => Some(12),
        (None, Some(_)) => return None,
    };
    Some((Date::new(year, month.unwrap_or(1), day.unwrap_or(1)).ok()?, months))
}

/// `2026`, `2026-03`, `2026-03-01`, `2026-Q1`, `2026Q1` and `Q1 2026`.
fn plain(text: &str) -> Option<(Date, Option<i8>)> {
    let number = |text: &str| text.parse::<i8>().ok().filter(|_| text.len() == 2);
    if let Some((before, after)) = text.split_once(['Q', 'q']) {
        let (quarter, rest) = after.split_at_checked(1)?;
        let quarter = quarter.parse::<i8>().ok().filter(|quarter| (1..=4).contains(quarter))?;
        let year = format!("{before}{rest}");
        let year = year.trim_matches(['-', ' ', '/']);
        let year: i16 = year.parse().ok().filter(|_| year.len() == 4)?;
        return Some((Date::new(year, quarter * 3 - 2, 1).ok()?, Some(3)));
    }
    let parts: Vec<&str> = text.split('-').collect();
    let year: i16 = parts.first().filter(|year| year.len() == 4)?.parse().ok()?;
    match parts.as_slice() {
        [_] => named(year, None, None),
        [_, month] => named(year, Some(number(month)?), None),
        [_, month, day] => named(year, Some(number(month)?), Some(number(day)?)),
        _ => None,
    }
}

/// A day as it is written; an instant with the offset that the site's zone has then.
pub(super) fn instant(text: &str, format: Option<&Format>, site: &TimeZone) -> Result<String, String> {
    let wrong = || expected("no date or time", "2026-03-05 14:30", format);
    if let Some(format) = format {
        return match format.read(text).ok_or_else(wrong)? {
            When::Day(date) => YEARS.contains(&date.year()).then(|| date.to_string()).ok_or_else(wrong),
            When::Local(local) => of_zone(local, site),
            When::At(at) => shown(&at.with_time_zone(site.clone())),
        };
    }
    if text.len() <= 10 {
        return day(text, None, site).map(|date| date.to_string()).map_err(|_| wrong());
    }
    if let Some((local, _)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        // A zone by its name, with an offset or without.
        let at = Zoned::from_str(text).map_err(|_| wrong())?;
        let is_there = DateTime::from_str(local).map_or(true, |local| local == at.datetime());
        return if is_there { shown(&at.with_time_zone(site.clone())) } else { Err(LEFT_OUT.to_owned()) };
    }
    match (Timestamp::from_str(text), DateTime::from_str(text)) {
        (Ok(at), _) => shown(&at.to_zoned(site.clone())),
        (Err(_), Ok(local)) => of_zone(local, site),
        (Err(_), Err(_)) => Err(wrong()),
    }
}

/// A local time; of two that the clocks showed, the first.
fn of_zone(local: DateTime, zone: &TimeZone) -> Result<String, String> {
    let ambiguous = zone.to_ambiguous_zoned(local);
    if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
        return Err(LEFT_OUT.to_owned());
    }
    shown(&ambiguous.earlier().map_err(|_| "a time that cannot be".to_owned())?)
}

fn shown(at: &Zoned) -> Result<String, String> {
    let form = if at.subsec_nanosecond() == 0 { "%Y-%m-%dT%H:%M:%S%:z" } else { "%Y-%m-%dT%H:%M:%S%.3f%:z" };
    YEARS.contains(&at.year()).then(|| at.strftime(form).to_string()).ok_or_else(|| "a year that cannot be".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_as_what_they_say_and_are_none_of_another_length() {
        let read = |months: i8, format: Option<&str>, text: &str| {
            let span = Span::new(months, format).map_err(|fault| format!("refused: {fault}"));
            span.and_then(|span| span.read(text)).map_or_else(|reason| reason, |(start, end)| format!("{start} to {end}"))
        };
        let cases = [
            (1, None, "2024-02", "2024-02-01 to 2024-02-29"),
            (1, None, "2024-02-01", "2024-02-01 to 2024-02-29"),
            (1, None, "2024-02-02", "no month as 2026-03, or its first day"),
            (1, None, "2024", "no month as 2026-03, or its first day"),
            (1, None, "2024-Q1", "no month as 2026-03, or its first day"),
            (1, None, "2024-2", "no month as 2026-03, or its first day"),
            (1, None, "0024-02", "no month as 2026-03, or its first day"),
            (3, None, "2026-Q4", "2026-10-01 to 2026-12-31"),
            (3, None, "2026Q4", "2026-10-01 to 2026-12-31"),
            (3, None, "Q4 2026", "2026-10-01 to 2026-12-31"),
            (3, None, "2026-10-01", "2026-10-01 to 2026-12-31"),
            (3, None, "2026-10", "no quarter as 2026-Q1, or its first day"),
            (3, None, "2026-11-01", "no quarter as 2026-Q1, or its first day"),
            (3, None, "2026-Q5", "no quarter as 2026-Q1, or its first day"),
            (3, None, "Qä", "no quarter as 2026-Q1, or its first day"),
            (12, None, "2026", "2026-01-01 to 2026-12-31"),
            (12, None, "2026-07-01", "no year as 2026, or its first day"),
            (1, Some("%m/%Y"), "3/2026", "2026-03-01 to 2026-03-31"),
            (1, Some("%b-%y"), "Mar-26", "2026-03-01 to 2026-03-31"),
            (1, Some("%m/%d/%Y"), "03/02/2026", "no month as `%m/%d/%Y` has it"),
            (12, Some("FY%Y"), "FY2026", "2026-01-01 to 2026-12-31"),
            (1, Some("%Y"), "2026", "refused: it does not tell one month from another"),
            (3, Some("%m/%Y"), "03/2026", "refused: it does not tell one quarter from another"),
            (1, Some("%m"), "03", "refused: it does not tell one month from another"),
        ];
        for (months, format, text, expected) in cases {
            assert_eq!(read(months, format, text), expected, "{months} {format:?} {text}");
        }
    }

    #[test]
    fn forms_are_read_as_what_they_say() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let read = |format: &str, text: &str| match Format::new(format) {
            Ok(format) => instant(text, Some(&format), &zone).unwrap_or_else(|reason| reason),
            Err(fault) => format!("refused: {fault}"),
        };
        let cases = [
            ("%m/%d/%Y", "01/31/2026", "2026-01-31"),
            ("%d.%m.%Y", "31.01.2026", "2026-01-31"),
            ("%b %d, %Y", "Jan 31, 2026", "2026-01-31"),
            ("%Y-%m-%d %H:%M:%S", "2026-01-31 14:30:05", "2026-01-31T14:30:05-05:00"),
            ("%d.%m.%Y %H Uhr", "31.01.2026 14 Uhr", "2026-01-31T14:00:00-05:00"),
            ("%m/%d/%Y %I:%M %p", "01/31/2026 11:30 PM", "2026-01-31T23:30:00-05:00"),
            // What says that it is UTC is: it is the evening before.
            ("%Y-%m-%dT%H:%M:%SZ", "2026-02-01T04:30:00Z", "2026-01-31T23:30:00-05:00"),
            ("%d.%m.%Y %H:%M UTC", "01.02.2026 04:30 UTC", "2026-01-31T23:30:00-05:00"),
            ("%m/%d/%Y %H:%M %z", "02/01/2026 05:30 +0100", "2026-01-31T23:30:00-05:00"),
            ("%Y-%m-%d %H:%M %:z", "2026-02-01 05:30 +01:00", "2026-01-31T23:30:00-05:00"),
            ("%Y-%m-%d %H:%M %Q", "2026-02-01 05:30 Europe/Berlin", "2026-01-31T23:30:00-05:00"),
            ("%Y-%m-%d %H:%M %Q", "2026-03-29 02:30 Europe/Berlin", "no date or time as `%Y-%m-%d %H:%M %Q` has it"),
            ("%s", "1769920200", "2026-01-31T23:30:00-05:00"),
            ("%Y-%m-%d %H:%M", "2026-03-08 02:30", LEFT_OUT),
            ("%m/%d", "", "refused: it does not tell one day from another"),
            ("day", "", "refused: it does not tell one day from another"),
            ("%d.%m.%Y %H:%m", "", "refused: `%m` has the month in it a second time; `%m` is the month, `%M` the minute"),
            ("%F %H:%M:%M", "", "refused: `%M` has the minute in it a second time; `%m` is the month, `%M` the minute"),
            ("%m/%d/%Y %I:%M", "", "refused: what is written so, as `01/31/2026 01:45`, is read as another time: `%I` goes with `%p`, and an offset with an hour"),
            ("%Y-%m-%d %z", "", "refused: what is written so, as `2026-01-31 +0500`, is read as another time: `%I` goes with `%p`, and an offset with an hour"),
            ("%m/%d/%Y %H:%M EST", "", "refused: the zone `EST` in it would be passed over; have the offset written, which is `%:z`, or `%z` without a colon"),
            ("%d.%m.%Y :%M", "", "refused: it does not tell one day from another"),
        ];
        for (format, text, expected) in cases {
            assert_eq!(read(format, text), expected, "{format}");
        }
        for format in ["%Y", "%Q", "%d.%m.%Y %H:%M %Z", "%"] {
            assert!(Format::new(format).is_err(), "{format}");
        }
        let date = |format: &str, text: &str| day(text, Some(&Format::new(format).unwrap()), &zone).map(|date| date.to_string());
        assert_eq!(date("%Y-%m-%dT%H:%M:%SZ", "2026-02-01T04:30:00Z").unwrap(), "2026-01-31", "the day that it is here");
    }
}
