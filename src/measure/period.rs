//! Reporting periods: whole calendar days in the site's zone.

use jiff::ToSpan;
use jiff::civil::Date;

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

    /// Reads `2026-01-01/2026-01-31`, `2026-01`, `2026`, or times of day after the dates, which are
    /// only accepted where they mean whole days.
    ///
    /// ```
    /// use watershed::measure::Period;
    ///
    /// assert_eq!(Period::parse("2026-02"), Period::parse("2026-02-01/2026-02-28"));
    /// assert!(Period::parse("2026-02-30/2026-03-01").unwrap_err().contains("the start is no day"));
    /// ```
    pub fn parse(text: &str) -> Result<Period, String> {
        let expected = "expected START/END as `2026-01-01/2026-01-31`, a month as `2026-01`, or a year as `2026`";
        let wrong = |what: &str| format!("`{text}` is not a period: {what}; {expected}");
        let Some((start, end)) = text.split_once('/') else {
            let filled = match text.len() {
                4 => Period::parse(&format!("{text}-01-01/{text}-12-31")).ok(),
                7 => format!("{text}-01").parse::<Date>().ok().map(Period::month_of),
                _ => None,
            };
            return filled.ok_or_else(|| wrong("no `/`"));
        };
        let start = day(start, "00:00:00").ok_or_else(|| wrong("the start is no day"))?;
        let end = day(end, "23:59:59").ok_or_else(|| wrong("the end is no day"))?;
        Period::new(start, end).ok_or_else(|| wrong("it ends before it starts"))
    }
}

/// A day, or a time of that day that is its very first or last second.
fn day(text: &str, only_time: &str) -> Option<Date> {
    let (date, time) = text.split_once('T').unwrap_or((text, only_time));
    time.starts_with(only_time).then(|| date.parse().ok()).flatten()
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
            ("2025-01-01T00:00:00/2025-12-31T23:59:59.999Z", Ok("2025-01-01/2025-12-31")),
            ("2026-01-31/2026-01-01", Err("ends before it starts")),
            ("2026-01-01T12:00/2026-01-31", Err("the start is no day")),
            ("january", Err("no `/`")),
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
    fn complete_months_end_before_today() {
        let months = Period::complete_months("2026-03-15".parse().unwrap(), 3);
        let shown: Vec<String> = months.iter().map(Period::to_string).collect();
        assert_eq!(shown, ["2025-12-01/2025-12-31", "2026-01-01/2026-01-31", "2026-02-01/2026-02-28"]);
        assert_eq!(Period::complete_months("2026-03-01".parse().unwrap(), 1)[0].end.to_string(), "2026-02-28");
    }
}
