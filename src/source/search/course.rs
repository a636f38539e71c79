//! How far the reading of a part has come in the order of times of change: where it can go on when the server has forgotten the
//! link to the next page. Pure.
//!
//! A part is read in stretches, at first one. When a link is forgotten, all that changed before the last second that came is there, if it
//! came in order: by the server's number of it that is proven, else the stretch until there is read again, to its end.

use super::part::Part;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Links may be forgotten so often, and once more for each [`PAGES_PER_LOSS`] pages that came.
const LOSSES_MIN: u32 = 4;
const PAGES_PER_LOSS: u32 = 4;
/// Pages that come before a link is forgotten. Where it is always the first link, paging is broken.
const PAGES_MIN: u32 = 3;

/// The course of a walk; times are whole seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Course {
    /// Where the present stretch begins, if not where the part does.
    from: Option<i64>,
    /// Where it ends and the next ones do, the nearest last, each with how many of that second came.
    ends: Vec<(i64, u64)>,
    /// Its first page is still to come.
    is_due: bool,
    /// The last second that came in it, how many came of that, and how many of earlier ones.
    second: Option<i64>,
    at: u64,
    before: u64,
    /// How many must come again in it, because they came before a link was forgotten, and how many did.
    owed: u64,
    again: u64,
    /// The latest second that came before a link was forgotten: what came until then may come again.
    reached: Option<i64>,
    /// Something came in another order, or without a time.
    is_unordered: bool,
    /// Pages that came, and links that were forgotten.
    pages: u32,
    losses: u32,
}

/// A stretch of which all may have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// It.
    pub part: Part,
    /// How many came of it, where that proves something.
    pub came: Option<u64>,
}

impl Course {
    /// Notes that a page came.
    pub fn page(&mut self) {
        self.pages = self.pages.saturating_add(1);
        self.is_due = false;
    }

    /// Notes what came, by its time of change in microseconds. Whether it came before a link was forgotten, and is counted.
    pub fn came(&mut self, updated: Option<i64>, is_seen: bool) -> bool {
        let Some(second) = updated.map(|micros| micros.div_euclid(1_000_000)) else {
            self.is_unordered = true;
            return false;
        };
        let is_known = is_seen && Some(second) <= self.reached;
        self.is_unordered |= Some(second) < self.second || is_seen && !is_known;
        self.again = self.again.saturating_add(u64::from(is_known));
        if is_known && !self.is_again() {
            return true;
        }
        if Some(second) > self.second {
            self.before = self.before.saturating_add(self.at);
            (self.second, self.at) = (Some(second), 0);
        }
        self.at = self.at.saturating_add(1);
        is_known
    }

    /// Notes what came and cannot be told again.
    pub fn came_unnamed(&mut self) {
        self.is_unordered = true;
    }

    /// How many pages come before a link is forgotten, by what was seen of it; 0: links are not followed at all.
    pub fn life(&self) -> u32 {
        if self.is_deep() { self.pages.div_ceil(self.losses.saturating_add(1)) } else { 0 }
    }

    /// Whether so many pages came that links are followed at all.
    fn is_deep(&self) -> bool {
        self.pages >= PAGES_MIN
    }

    /// What of a part can have come when a link is forgotten; `None` where it cannot be gone on with.
    pub fn stretch_before_loss(&self, part: &Part) -> Option<Stretch> {
        let is_bounded = self.losses < LOSSES_MIN.saturating_add(self.pages / PAGES_PER_LOSS);
        let second = self.second.filter(|_| part.by_time && !self.is_unordered && !self.is_due && self.is_deep() && is_bounded)?;
        let begins = self.from.or(part.from.map(Timestamp::as_second));
        let until = Timestamp::from_second(second).ok().filter(|_| self.before > 0 && begins.is_none_or(|begins| begins < second))?;
        let came = Some(self.before).filter(|_| !self.is_again());
        Some(Stretch { part: Part { until: Some(until), ..self.present(part) }, came })
    }

    /// Goes on from the last second that came, where all before it has; else the stretch until there is read again, and then what is
    /// after it.
    pub fn go_on(&mut self, is_whole: bool) {
        let Some(second) = self.second else { return };
        self.losses = self.losses.saturating_add(1);
        self.reached = self.reached.max(Some(second));
        if is_whole {
            self.begin(second, self.at);
        } else {
            self.ends.push((second, self.at));
            (self.owed, self.again) = (self.before, 0);
            (self.second, self.at, self.before, self.is_due) = (None, 0, 0, true);
        }
    }

    /// The next stretch begins, when the present one is at its end. Whether what came before came again, but for what may have changed
    /// meanwhile: else the server does not find by times of change what has these.
    pub fn end(&mut self) -> bool {
        let is_sound = self.again.saturating_mul(2) >= self.owed;
        if let Some((second, at)) = self.ends.pop() {
            self.begin(second, at);
        }
        is_sound
    }

    /// The stretch of a part that is still to be begun.
    pub fn due(&self, part: &Part) -> Option<Part> {
        self.is_due.then(|| self.present(part))
    }

    fn begin(&mut self, second: i64, at: u64) {
        (self.owed, self.again) = (at, 0);
        (self.from, self.second, self.at, self.before, self.is_due) = (Some(second), Some(second), at, 0, true);
    }

    fn present(&self, part: &Part) -> Part {
        let at = |second: i64| Timestamp::from_second(second).ok();
        let until = self.ends.last().and_then(|(second, _)| at(*second));
        Part { from: self.from.and_then(at).or(part.from), until: until.or(part.until), ..part.clone() }
    }

    /// Whether the present stretch came before, or some of it.
    fn is_again(&self) -> bool {
        !self.ends.is_empty() || self.reached.is_some() && self.from < self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Part {
        Part { patients: None, from: None, until: None, by_time: true }
    }

    /// What comes at these seconds, on pages of two.
    fn read(course: &mut Course, seconds: &[i64], is_seen: bool) -> Vec<bool> {
        seconds
            .chunks(2)
            .flat_map(|page| {
                course.page();
                page.iter().map(|second| course.came(Some(second * 1_000_000 + 7), is_seen)).collect::<Vec<_>>()
            })
            .collect()
    }

    fn shown(part: &Part) -> [Option<i64>; 2] {
        [part.from, part.until].map(|at| at.map(Timestamp::as_second))
    }

    #[test]
    fn what_is_proven_is_not_read_again_and_ties_are_counted_once() {
        let mut course = Course::default();
        read(&mut course, &[10, 20, 30, 40, 50, 50], false);
        let stretch = course.stretch_before_loss(&whole()).unwrap();
        assert_eq!((shown(&stretch.part), stretch.came), ([None, Some(50)], Some(4)));
        course.go_on(true);
        assert_eq!(course.due(&whole()).map(|part| shown(&part)), Some([Some(50), None]));
        // Both of that second come again, and one more of it.
        assert_eq!(read(&mut course, &[50, 50], true), [true, true]);
        assert!(course.clone().end());
        assert_eq!(course.due(&whole()), None);
        read(&mut course, &[50, 60], false);
        let stretch = course.stretch_before_loss(&whole()).unwrap();
        assert_eq!((shown(&stretch.part), stretch.came), ([Some(50), Some(60)], Some(3)));
    }

    #[test]
    fn what_is_not_proven_is_read_again_to_its_end_and_then_what_is_after_it() {
        let mut course = Course::default();
        read(&mut course, &[10, 20, 30, 40, 50, 60], false);
        course.go_on(false);
        assert_eq!(course.due(&whole()).map(|part| shown(&part)), Some([None, Some(60)]));
        assert_eq!(read(&mut course, &[10, 20], true), [true, true]);
        assert!(!course.clone().end(), "three are still to come again");
        // Forgotten again: no number proves what came before.
        let stretch = course.stretch_before_loss(&whole()).unwrap();
        assert_eq!((shown(&stretch.part), stretch.came), ([None, Some(20)], None));
        course.go_on(false);
        assert!(!course.clone().end(), "10 is to come again");
        for expected in [[None, Some(20)], [Some(20), Some(60)], [Some(60), None]] {
            assert_eq!(course.due(&whole()).map(|part| shown(&part)), Some(expected));
            course.page();
            course.end();
        }
        assert_eq!(course.due(&whole()), None);
    }

    #[test]
    fn nothing_is_gone_on_with_that_came_in_no_order_or_not_at_all() {
        let after = |seconds: &[i64]| {
            let mut course = Course::default();
            read(&mut course, seconds, false);
            course.stretch_before_loss(&whole()).is_some()
        };
        assert_eq!([after(&[1, 2, 3, 4, 5, 6]), after(&[1, 2, 3, 4, 6, 5]), after(&[1, 2, 3, 4])], [true, false, false], "and where paging is broken");
        assert!(!after(&[]));
        let mut course = Course::default();
        read(&mut course, &[1, 2, 3, 4, 5], false);
        assert!(course.stretch_before_loss(&Part { by_time: false, ..whole() }).is_none());
        assert!(!course.came(None, false) && course.stretch_before_loss(&whole()).is_none(), "one without a time");
        // All of one second.
        let mut course = Course::default();
        read(&mut course, &[7; 8], false);
        assert!(course.stretch_before_loss(&whole()).is_none(), "it would not come further");
    }
}
