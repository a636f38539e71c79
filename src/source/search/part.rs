//! A part of a query: some of its patients and a span of times of change. What is too much at once is halved.

use jiff::{SignedDuration, Timestamp};
use std::fmt;

/// Before it nothing was written to a FHIR server, in seconds since 1970 (the year 2000).
const EARLIEST: i64 = 946_684_800;

/// A span of times of change, open where it has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Changed at this instant or later.
    pub from: Option<Timestamp>,
    /// Changed before this instant.
    pub until: Option<Timestamp>,
}

impl Span {
    /// Every time, and none.
    pub const ALL: Span = Span { from: None, until: None };

    /// Whether a time of change, in microseconds since 1970, lies in it.
    pub fn holds(self, updated: Option<i64>) -> bool {
        let Some(at) = updated else { return self == Span::ALL };
        self.from.is_none_or(|from| from.as_microsecond() <= at) && self.until.is_none_or(|until| at < until.as_microsecond())
    }

    /// Those of some sorted times that lie in it.
    pub fn of(self, times: &[i64]) -> &[i64] {
        let place = |end: Option<Timestamp>, otherwise| end.map_or(otherwise, |end| times.partition_point(|at| *at < end.as_microsecond()));
        times.get(place(self.from, 0)..place(self.until, times.len())).unwrap_or_default()
    }

    /// The older and the newer half of these times, which lie in it; `None` if they are of one second.
    pub fn halves(self, times: &[i64]) -> Option<[Span; 2]> {
        let at = |micros: &i64| Timestamp::from_second(micros.div_euclid(1_000_000)).ok();
        let middle = at(times.get(times.len() / 2)?)?;
        let first = at(times.first()?)?;
        let middle = if middle > first { middle } else { times.iter().filter_map(at).find(|at| *at > first)? };
        Some(self.split(middle))
    }

    /// So many spans, or fewer, of about as many of these times each, which lie in it: one after the other, each from a whole second.
    pub fn stretches(self, times: &[i64], count: usize) -> Vec<Span> {
        let at = |number: usize| Timestamp::from_second(times.get(number * times.len() / count.max(1))?.div_euclid(1_000_000)).ok();
        let mut ends: Vec<Timestamp> = (1..count).filter_map(at).collect();
        ends.dedup();
        ends.retain(|end| self.from.is_none_or(|from| from < *end) && self.until.is_none_or(|until| *end < until));
        let [froms, untils] = [std::iter::once(self.from), std::iter::once(self.until)];
        let froms = froms.chain(ends.iter().copied().map(Some));
        froms.zip(ends.iter().copied().map(Some).chain(untils)).map(|(from, until)| Span { from, until }).collect()
    }

    /// Before an instant, and since.
    pub fn split(self, at: Timestamp) -> [Span; 2] {
        [Span { until: Some(at), ..self }, Span { from: Some(at), ..self }]
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: Option<Timestamp>| end.map(instant).unwrap_or_default();
        write!(f, "{}..{}", end(self.from), end(self.until))
    }
}

/// A part of a query, or the whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The patients asked for; `None`: the query names none.
    pub patients: Option<Vec<String>>,
    /// Changed at this instant or later.
    pub from: Option<Timestamp>,
    /// Changed before this instant.
    pub until: Option<Timestamp>,
    /// Whether the server takes times of change.
    pub by_time: bool,
}

impl Part {
    /// Two parts that together hold what this one does, the older first; `None` when it cannot be halved. `seen` are the
    /// first and last times of change that came so far: where they leave something to halve, they spare many empty parts.
    pub fn halves(&self, seen: Option<(Timestamp, Timestamp)>, now: Timestamp) -> Option<[Part; 2]> {
        if let Some(patients) = self.patients.as_ref().filter(|patients| patients.len() > 1) {
            let (first, rest) = patients.split_at(patients.len() / 2);
            return Some([first, rest].map(|half| Part { patients: Some(half.to_vec()), ..self.clone() }));
        }
        if !self.by_time {
            return None;
        }
        let whole = (EARLIEST, now.saturating_add(SignedDuration::from_hours(24)).map_or(i64::MAX, Timestamp::as_second));
        let near = seen.map(|(first, last)| (first.as_second(), last.as_second().saturating_add(1)));
        let middle = near.and_then(|near| self.middle(near)).or_else(|| self.middle(whole))?;
        Some([Part { until: Some(middle), ..self.clone() }, Part { from: Some(middle), ..self.clone() }])
    }

    /// The whole second in the middle of this part, whose open ends are taken to be `ends`.
    fn middle(&self, ends: (i64, i64)) -> Option<Timestamp> {
        let from = self.from.map_or(ends.0, Timestamp::as_second);
        let until = self.until.map_or(ends.1, Timestamp::as_second);
        let half = until.checked_sub(from)? / 2;
        (half > 0).then(|| Timestamp::from_second(from + half).ok())?
    }
}

/// For people, without a patient's name.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(patients) = &self.patients {
            write!(f, "{} {}", patients.len(), if patients.len() == 1 { "patient" } else { "patients" })?;
        }
        let comma = if self.patients.is_some() { ", " } else { "" };
        match (self.from, self.until) {
            (None, None) => Ok(()),
            (Some(from), None) => write!(f, "{comma}changed since {}", instant(from)),
            (None, Some(until)) => write!(f, "{comma}changed before {}", instant(until)),
            (Some(from), Some(until)) => write!(f, "{comma}changed between {} and {}", instant(from), instant(until)),
        }
    }
}

/// An instant as every server reads it: whole milliseconds in UTC, with no `+` that an address would turn into a space.
pub(in crate::source) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn part(patients: Option<&[&str]>, from: Option<&str>, until: Option<&str>) -> Part {
        Part { patients: patients.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()), from: from.map(at), until: until.map(at), by_time: true }
    }

    #[test]
    fn a_span_holds_its_first_instant_and_is_halved_at_a_whole_second() {
        let stretches = |times: &[i64], count| Span::ALL.stretches(times, count).iter().map(|span| span.of(times).len()).collect::<Vec<_>>();
        let even: Vec<i64> = (0..9).map(|second| second * 1_000_000).collect();
        assert_eq!((stretches(&even, 3), stretches(&[7; 9], 3), stretches(&[], 3)), (vec![3, 3, 3], vec![0, 9], vec![0]));
        let seconds = |times: &[i64]| times.iter().map(|second| second * 1_000_000 + 250_000).collect::<Vec<i64>>();
        let second = |span: Span| span.until.map_or(0, Timestamp::as_second);
        let times = seconds(&[10, 20, 30, 40]);
        let [older, newer] = Span::ALL.halves(&times).unwrap();
        assert_eq!((second(older), older.of(&times).len(), newer.of(&times).len()), (30, 2, 2));
        let [oldest, _] = older.halves(older.of(&times)).unwrap();
        assert_eq!((oldest.to_string().as_str(), oldest.of(&times)), ("..1970-01-01T00:00:20.000Z", &times[..1]));
        // Most of one second, and all of it.
        assert_eq!(Span::ALL.halves(&seconds(&[10, 10, 10, 40])).map(|[older, _]| second(older)), Some(40));
        assert_eq!(Span::ALL.halves(&seconds(&[10, 10])), None);
        assert_eq!([newer.holds(Some(30_000_000)), older.holds(Some(30_000_000)), newer.holds(None), Span::ALL.holds(None)], [true, false, false, true]);
    }

    #[test]
    fn patients_are_halved_first_then_time() {
        let now = at("2026-01-01T00:00:00Z");
        let shown = |part: &Part, seen| part.halves(seen, now).map(|halves| halves.map(|half| half.to_string()));
        let three = part(Some(&["a", "b", "c"]), None, None);
        assert_eq!(shown(&three, None), Some(["1 patient".to_owned(), "2 patients".to_owned()]));
        let one = part(Some(&["a"]), None, None);
        assert_eq!(
            shown(&one, Some((at("2025-01-01T00:00:00Z"), at("2025-01-01T00:00:09Z")))),
            Some(["1 patient, changed before 2025-01-01T00:00:05.000Z".to_owned(), "1 patient, changed since 2025-01-01T00:00:05.000Z".to_owned()])
        );
        assert_eq!(shown(&Part { by_time: false, ..one }, None), None);
    }

    #[test]
    fn open_ends_reach_beyond_what_was_seen() {
        let now = at("2026-01-01T00:00:00Z");
        let seen = Some((at("2025-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z")));
        let [older, newer] = part(None, None, None).halves(seen, now).unwrap();
        assert_eq!((older.from, newer.until), (None, None));
        assert!(older.until == newer.from && older.until.unwrap() < at("2025-01-01T00:00:00Z"), "{older}");
        let second = part(None, Some("2025-01-01T00:00:00Z"), Some("2025-01-01T00:00:01Z"));
        assert_eq!(second.halves(seen, now), None, "a second is not halved");
    }

    #[test]
    fn r_12_times_in_searches_are_whole_milliseconds_in_utc() {
        for (time, expected) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
            ("2026-01-02T03:04:05.999999999Z", "2026-01-02T03:04:05.999Z"),
            ("2026-01-02T03:04:05.120+05:30", "2026-01-01T21:34:05.120Z"),
        ] {
            assert_eq!(instant(at(time)), expected);
        }
    }
}
