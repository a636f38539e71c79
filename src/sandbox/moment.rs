//! Instants as a hospital writes them: with the local time and its offset.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

/// One instant, ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    /// The instant.
    pub(super) at: Timestamp,
    local: DateTime,
    offset: Offset,
}

impl Moment {
    /// The local date.
    pub(super) fn date(&self) -> Date {
        self.local.date()
    }

    /// As FHIR dateTime to the second, with offset: `2026-03-08T09:30:00-05:00`.
    pub(super) fn text(&self) -> String {
        let (date, time) = (self.local.date(), self.local.time());
        let minutes = self.offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        let minutes = minutes.abs();
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{sign}{:02}:{:02}",
            date.year(),
            date.month(),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            minutes / 60,
            minutes % 60,
        )
    }
}

/// The hospital's clock and calendar.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    zone: TimeZone,
    /// Data exist up to the start of this day.
    pub(super) as_of: Date,
    /// Complete months of truth before `as_of`.
    pub(super) months: u32,
}

impl Calendar {
    pub(super) fn new(zone: TimeZone, as_of: Date, months: u32) -> Calendar {
        Calendar { zone, as_of, months }
    }

    /// The local time `minute` minutes after midnight of a day; in the gap of daylight saving, the
    /// time after it.
    pub(super) fn moment(&self, date: Date, minute: i64) -> Moment {
        let minute = i8::try_from(minute.rem_euclid(60)).ok().zip(i8::try_from(minute.div_euclid(60).clamp(0, 23)).ok());
        let (minute, hour) = minute.unwrap_or((0, 0));
        self.settle(date.at(hour, minute, 0, 0))
    }

    /// `minutes` later than a moment (earlier, if negative).
    pub(super) fn later(&self, from: Moment, minutes: i64) -> Moment {
        let at = from.at.checked_add(Span::new().minutes(minutes)).unwrap_or(from.at);
        let offset = self.zone.to_offset(at);
        Moment { at, local: offset.to_datetime(at), offset }
    }

    fn settle(&self, local: DateTime) -> Moment {
        match self.zone.to_timestamp(local) {
            Ok(at) => {
                let offset = self.zone.to_offset(at);
                Moment { at, local: offset.to_datetime(at), offset }
            }
            // Beyond the calendar's ends, where no patient lives.
            Err(_) => Moment { at: Timestamp::UNIX_EPOCH, local, offset: Offset::UTC },
        }
    }

    /// The instant at which the data end.
    pub(super) fn end(&self) -> Moment {
        self.moment(self.as_of, 0)
    }

    /// First days of the complete months of truth, oldest first.
    pub(super) fn truth_months(&self) -> Vec<Date> {
        let current = self.as_of.first_of_month();
        (1..=i32::try_from(self.months).unwrap_or(0)).rev().map(|back| add_months(current, -back)).collect()
    }

    /// First day of the oldest month of truth.
    pub(super) fn start(&self) -> Date {
        add_months(self.as_of.first_of_month(), -i32::try_from(self.months).unwrap_or(0))
    }
}

/// The day `days` later (earlier, if negative).
pub(super) fn add_days(date: Date, days: i64) -> Date {
    date.saturating_add(Span::new().days(days.clamp(-200_000, 200_000)))
}

/// The same day `months` later, or the last day of that month.
pub(super) fn add_months(date: Date, months: i32) -> Date {
    date.saturating_add(Span::new().months(months.clamp(-12_000, 12_000)))
}

/// Days from one date to another.
pub(super) fn days_between(from: Date, to: Date) -> i64 {
    from.until(to).map(|span| i64::from(span.get_days())).unwrap_or(0)
}

/// Completed years of age on a day.
pub(super) fn age_on(birth: Date, day: Date) -> i64 {
    let years = i64::from(day.year()) - i64::from(birth.year());
    if (day.month(), day.day()) < (birth.month(), birth.day()) { years - 1 } else { years }
}

/// Moves a Saturday or Sunday to the Monday after it.
pub(super) fn weekday(date: Date) -> Date {
    match date.weekday() {
        jiff::civil::Weekday::Saturday => add_days(date, 2),
        jiff::civil::Weekday::Sunday => add_days(date, 1),
        _ => date,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn calendar() -> Calendar {
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        Calendar::new(zone, date(2026, 7, 15), 3)
    }

    #[test]
    fn moments_are_written_with_the_offset_of_their_season() {
        let calendar = calendar();
        let winter = calendar.moment(date(2026, 1, 5), 9 * 60 + 30);
        assert_eq!(winter.text(), "2026-01-05T09:30:00-05:00");
        let summer = calendar.moment(date(2026, 7, 5), 23 * 60 + 59);
        assert_eq!(summer.text(), "2026-07-05T23:59:00-04:00");
        // 02:30 does not exist on that day.
        assert_eq!(calendar.moment(date(2026, 3, 8), 150).text(), "2026-03-08T03:30:00-04:00");
        assert_eq!(calendar.later(summer, 2).text(), "2026-07-06T00:01:00-04:00");
        assert!(winter < summer);
    }

    #[test]
    fn months_of_truth_are_complete_ones() {
        assert_eq!(calendar().truth_months(), [date(2026, 4, 1), date(2026, 5, 1), date(2026, 6, 1)]);
        assert_eq!(calendar().start(), date(2026, 4, 1));
    }

    #[test]
    fn ages_turn_on_the_birthday() {
        assert_eq!(age_on(date(2005, 6, 30), date(2026, 6, 30)), 21);
        assert_eq!(age_on(date(2005, 7, 1), date(2026, 6, 30)), 20);
        assert_eq!(days_between(date(2026, 2, 27), date(2026, 3, 2)), 3);
        assert_eq!(weekday(date(2026, 7, 18)), date(2026, 7, 20));
    }
}
