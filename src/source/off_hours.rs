//! The hours of the night in which an EHR may be asked, in the site's own zone.

use super::SourceError;
use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use std::fmt;
use std::time::Duration;

/// From a time of day until another one, the next morning perhaps.
#[derive(Clone, Debug, PartialEq)]
pub struct OffHours {
    from: Time,
    until: Time,
    zone: TimeZone,
}

impl OffHours {
    /// Reads `20:00-06:00`; the error says what is wrong with it.
    ///
    /// ```
    /// use watershed::source::off_hours::OffHours;
    ///
    /// let hours = OffHours::parse("22:00-06:00", jiff::tz::TimeZone::get("America/New_York")?)?;
    /// assert_eq!(hours.left("2026-01-10T02:00:00Z".parse()?), None); // nine in the evening there
    /// assert_eq!(hours.left("2026-01-10T04:00:00Z".parse()?), Some(std::time::Duration::from_secs(7 * 3600)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(text: &str, zone: TimeZone) -> Result<OffHours, String> {
        let wrong = || format!("`{text}` is no span of a day");
        let time = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        };
        let (from, until) = text.split_once('-').ok_or_else(wrong)?;
        let (from, until) = (time(from).ok_or_else(wrong)?, time(until).ok_or_else(wrong)?);
        if from == until {
            return Err(format!("`{text}` has no length"));
        }
        Ok(OffHours { from, until, zone })
    }

    /// How long they last from an instant on; `None` if it is not among them. A clock change makes them longer or shorter, as
    /// it does the night.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let here = now.to_zoned(self.zone.clone());
        let (date, time) = (here.date(), here.time());
        let over_midnight = self.until < self.from;
        let ends = match over_midnight {
            false => (self.from..self.until).contains(&time).then_some(date)?,
            true if time >= self.from => date.tomorrow().ok()?,
            true => (time < self.until).then_some(date)?,
        };
        let end = ends.to_datetime(self.until).to_zoned(self.zone.clone()).ok()?;
        // In an hour that a clock change repeats, the end may lie behind the present: they are over.
        Duration::try_from(end.timestamp().duration_since(now)).ok().filter(|left| !left.is_zero())
    }
}

impl OffHours {
    /// The same for a pull, which is not finished when they are over.
    pub fn left_or_unfinished(&self, now: Timestamp) -> Result<Duration, SourceError> {
        self.left(now)
            .ok_or_else(|| SourceError::Unfinished { reason: format!("the EHR is asked in the off-hours {self} only") })
    }
}

impl fmt::Display for OffHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or("local time");
        write!(f, "{}-{} ({zone})", self.from.strftime("%H:%M"), self.until.strftime("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_follow_the_zone_and_its_clock_changes() {
        let minutes = |text: &str, now: &str| {
            let hours = OffHours::parse(text, TimeZone::get("America/New_York").unwrap()).unwrap();
            hours.left(now.parse().unwrap()).map(|left| left.as_secs() / 60)
        };
        // Winter there is five hours behind, summer four.
        assert_eq!(minutes("20:00-06:00", "2026-01-10T00:59:59Z"), None);
        assert_eq!(minutes("20:00-06:00", "2026-01-10T01:00:00Z"), Some(600));
        assert_eq!(minutes("20:00-06:00", "2026-01-10T10:59:00Z"), Some(1));
        assert_eq!(minutes("20:00-06:00", "2026-01-10T11:00:00Z"), None);
        assert_eq!(minutes("20:00-06:00", "2026-07-10T00:00:00Z"), Some(600));
        // 2026-03-08: two o'clock is three o'clock, and the night an hour shorter.
        assert_eq!(minutes("20:00-06:00", "2026-03-08T01:00:00Z"), Some(540));
        assert_eq!(minutes("01:00-03:00", "2026-03-08T06:30:00Z"), Some(30));
        assert_eq!(minutes("01:00-03:00", "2026-03-08T07:00:00Z"), None);
        // 2026-11-01: the hour from one to two comes twice.
        assert_eq!(minutes("20:00-06:00", "2026-11-01T00:00:00Z"), Some(660));
        assert_eq!(minutes("01:00-03:00", "2026-11-01T05:00:00Z"), Some(180));
        assert_eq!(minutes("01:00-03:00", "2026-11-01T06:00:00Z"), Some(120));
        assert_eq!(minutes("01:00-01:30", "2026-11-01T06:15:00Z"), None, "over the first time");
    }

    #[test]
    fn what_is_no_span_of_a_day_is_refused() {
        for text in ["", "20:00", "20-06", "25:00-06:00", "20:00-06:60", "06:00-06:00", "8pm-6am"] {
            assert!(OffHours::parse(text, TimeZone::UTC).is_err(), "{text}");
        }
        assert_eq!(OffHours::parse("6:00 - 7:05", TimeZone::UTC).unwrap().to_string(), "06:00-07:05 (UTC)");
    }
}
