//! What is said while an export is waited for, which may take hours: that the server has it, how far it is, and until when.

use super::super::TALK;
use jiff::{SignedDuration, Timestamp};

/// Characters of a server's own words that are looked at.
const PROGRESS_CHARS_MAX: usize = 200;
/// Largest number in it that is believed to count something.
const COUNT_MAX: u64 = 1_000_000_000;
/// What has changed is said no sooner than so long after what was said before.
const CHANGE_MINUTES: i64 = 1;
/// What has not changed is said again after so long.
const SAME_MINUTES: i64 = 15;

/// Says how a wait goes on, often enough that nobody wonders and seldom enough that a log stays short.
pub(super) struct Teller {
    server: String,
    until: Timestamp,
    last: Option<(Timestamp, Option<String>)>,
}

impl Teller {
    /// For an export of a server that is waited for until an instant.
    pub fn new(server: String, until: Timestamp) -> Teller {
        Teller { server, until, last: None }
    }

    /// The server is still at work; `said` is its `X-Progress`.
    pub fn waits(&mut self, said: Option<&str>, begun: Timestamp, is_old: bool, now: Timestamp) {
        let progress = said.and_then(progress);
        if !self.is_due(&progress, now) {
            return;
        }
        let far = progress.as_deref().map_or_else(String::new, |progress| format!(", {progress} done by what it says"));
        let (server, minutes) = (&self.server, now.duration_since(begun).as_mins().max(0));
        if self.last.is_some() {
            tracing::info!(target: TALK, "{server}: the export is not ready after {minutes} min{far}");
        } else {
            let what = if is_old { "the export of an earlier night is still under way" } else { "the export was accepted, and the server is at work" };
            let until = self.until.strftime("%Y-%m-%dT%H:%M:%SZ");
            tracing::info!(
                target: TALK,
                "{server}: {what}{far}; it is waited for until {until} at most, and then left to go on there: a night reports of the last data, and the next pull takes it"
            );
        }
        self.last = Some((now, progress));
    }

    fn is_due(&self, progress: &Option<String>, now: Timestamp) -> bool {
        let Some((at, last)) = &self.last else { return true };
        let least = if progress == last { SAME_MINUTES } else { CHANGE_MINUTES };
        now.duration_since(*at) >= SignedDuration::from_mins(least)
    }
}

/// How far an export is, from a header that may say anything, patients' names too: a percentage, or so many of so many. Nothing
/// else of it is shown (Bulk Data Access 2.0.0, section 2.5.4: "a text description of the status").
fn progress(said: &str) -> Option<String> {
    let words: Vec<&str> = said.get(..said.char_indices().nth(PROGRESS_CHARS_MAX).map_or(said.len(), |(at, _)| at))?.split_whitespace().collect();
    let bare = |word: &str| word.trim_matches(['(', ')', '[', ']', ',', ';', ':', '.']).to_owned();
    let number = |word: &str| bare(word).parse::<u64>().ok().filter(|number| *number <= COUNT_MAX);
    let percent = |text: &str| {
        bare(text)
            .parse::<f64>()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(|percent| format!("{} %", percent.floor()))
    };
    let attached = words.iter().find_map(|word| percent(bare(word).strip_suffix('%')?));
    let apart = || words.windows(2).find_map(|pair| matches!(pair, [_, sign] if bare(sign) == "%").then(|| percent(pair.first()?))?);
    let counted = || {
        words.windows(3).find_map(|three| match three {
            [done, of, all] if of.eq_ignore_ascii_case("of") => number(done).zip(number(all)).filter(|(done, all)| done <= all).map(|(done, all)| format!("{done} of {all}")),
            _ => None,
        })
    };
    attached.or_else(apart).or_else(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_server_says_only_how_far_it_is_is_shown() {
        for (said, expected) in [
            ("40 % of 7 files", Some("40 %")),
            ("0%", Some("0 %")),
            ("99.9% complete", Some("99 %")),
            ("Processed 10 of 50 patients (20%).", Some("20 %")),
            ("Searching, 12 of 345 resources", Some("12 of 345")),
            ("in-progress", None),
            ("Canaryname", None),
            ("Canary Name 120 %", None),
            ("9 of 3", None),
            ("MRN-12 of 99", None),
            ("123456789012 of 999999999999", None),
            ("1980-01-02%", None),
            ("%", None),
            ("", None),
        ] {
            assert_eq!(progress(said).as_deref(), expected, "{said}");
        }
        assert_eq!(progress(&format!("{} 40%", "x ".repeat(200))), None);
        assert_eq!(progress(&"ß".repeat(500)), None);
    }

    #[test]
    fn what_changes_is_said_by_the_minute_and_what_does_not_four_times_an_hour() {
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + minute * 60).unwrap();
        let mut teller = Teller::new("https://ehr.example/fhir".to_owned(), at(480));
        let said: Vec<i64> = (0..120)
            .filter(|minute| {
                // One percent in ten minutes for an hour; then it stands still.
                let progress = format!("{} %", (minute / 10).min(6));
                let is_due = teller.is_due(&Some(progress.clone()), at(*minute));
                teller.waits(Some(&progress), at(0), false, at(*minute));
                is_due
            })
            .collect();
        assert_eq!(said, [0, 10, 20, 30, 40, 50, 60, 75, 90, 105]);
    }
}
