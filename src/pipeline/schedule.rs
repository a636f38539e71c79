//! When a night begins, in the site's own zone.

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Span as Length, Timestamp, Zoned};

/// Instants looked at when a missed night is sought.
const LOOK_BACK_DAYS: i64 = 400;

/// A cron expression in a zone. Hours that a clock change skips or repeats begin one night, not none or two.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads the expression; the error says what is wrong with it.
    pub fn parse(expression: &str, zone: TimeZone) -> Result<Schedule, String> {
        let cron = expression.parse::<Cron>().map_err(|error| error.to_string())?;
        Ok(Schedule { cron, zone })
    }

    /// The first night after an instant.
    ///
    /// ```
    /// use watershed::pipeline::schedule::Schedule;
    ///
    /// let schedule = Schedule::parse("30 1 * * *", jiff::tz::TimeZone::get("America/New_York")?).unwrap();
    /// // On 2026-11-01 half past one happens twice there; the night begins at the first.
    /// assert_eq!(schedule.next("2026-11-01T04:00:00Z".parse()?), Some("2026-11-01T05:30:00Z".parse()?));
    /// assert_eq!(schedule.next("2026-11-01T05:30:00Z".parse()?), Some("2026-11-02T06:30:00Z".parse()?));
    /// # Ok::<(), jiff::Error>(())
    /// ```
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let from = after.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&from, false).ok().map(|at| at.timestamp())
    }

    /// The latest night at or before an instant, if it lies after `answered`: however many were missed, one is caught up.
    pub fn missed(&self, answered: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let from: Zoned = now.to_zoned(self.zone.clone());
        let latest = self.cron.find_previous_occurrence(&from, true).ok()?.timestamp();
        let horizon = now.checked_sub(Length::new().hours(LOOK_BACK_DAYS * 24)).ok()?;
        (latest > answered && latest > horizon).then_some(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn check_next(cron: &str, place: &str, after: &str, expected: &str) {
        let schedule = Schedule::parse(cron, zone(place)).unwrap();
        let next = schedule.next(after.parse().unwrap()).unwrap();
        assert_eq!(next.to_string(), expected, "{cron} in {place} after {after}");
    }

    #[test]
    fn nights_begin_in_the_sites_zone_once_per_night_across_clock_changes() {
        check_next("30 1 * * *", "America/New_York", "2026-01-10T00:00:00Z", "2026-01-10T06:30:00Z");
        check_next("30 1 * * *", "America/New_York", "2026-07-10T00:00:00Z", "2026-07-10T05:30:00Z");
        // 2026-03-08: 02:30 does not exist.
        check_next("30 2 * * *", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z");
        // 2026-11-01: 01:30 happens twice; the night begins at the first only.
        check_next("30 1 * * *", "America/New_York", "2026-11-01T04:00:00Z", "2026-11-01T05:30:00Z");
        check_next("30 1 * * *", "America/New_York", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z");
    }

    #[test]
    fn however_many_nights_were_missed_the_latest_is_caught_up() {
        let schedule = Schedule::parse("30 1 * * *", zone("UTC")).unwrap();
        let missed = |answered: &str, now: &str| schedule.missed(answered.parse().unwrap(), now.parse().unwrap()).map(|at| at.to_string());
        assert_eq!(missed("2026-01-01T01:30:00Z", "2026-01-05T12:00:00Z").as_deref(), Some("2026-01-05T01:30:00Z"));
        assert_eq!(missed("2026-01-05T01:30:00Z", "2026-01-05T12:00:00Z"), None);
        assert_eq!(missed("2026-01-05T01:30:00Z", "2026-01-06T01:30:00Z").as_deref(), Some("2026-01-06T01:30:00Z"));
    }
}
