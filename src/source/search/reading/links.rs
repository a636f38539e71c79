//! Further pages by their links. Where the server has forgotten one, the reading goes on from where it is, if that can be proven, and
//! the server is known for it from then on.

use super::{Ask, Bundle, PAGES_MAX, Reading, Trouble, Walk, answered, deleted, next_page, read_page, short};
use crate::http::Response;
use crate::source::duty::{Code, Why};
use crate::source::ledger::Unit;
use crate::source::search::part::{Part, Span};
use std::sync::atomic::Ordering;

/// Pages are asked for so many times as large when a query is begun again.
const LARGER: u32 = 8;
/// Times of change that are kept, to divide what is too long for links by them.
pub(super) const TIMES_MAX: usize = 10_000;
/// How a search is asked to be sorted by a server that forgets links.
pub(super) const SORT: (&str, &str) = ("_sort", "_lastUpdated");

impl Reading<'_> {
    /// Takes the further pages of a part.
    pub(super) async fn further(&mut self, part: &Part, walk: &mut Walk, next: &mut Option<Ask>) -> Result<(), Trouble> {
        loop {
            let Some(ask) = next.as_ref() else {
                let Some(stretch) = walk.course.due(part) else { return Ok(()) };
                *next = self.begin(&stretch, part, walk).await?;
                if next.is_none() {
                    end(walk)?;
                }
                continue;
            };
            let digest = short(&ask.digest());
            if walk.addresses.contains(digest) {
                return Err(Trouble::Gap(Why::new(Code::Paging, "the server's paging leads in a circle")));
            }
            if walk.addresses.len() >= PAGES_MAX {
                return Err(Trouble::Gap(Why::new(Code::Paging, format!("more than {PAGES_MAX} pages"))));
            }
            let answer = match self.further_page(ask, part, walk).await {
                Err(Trouble::Lost(reason)) => {
                    self.go_on(part, walk, reason).await?;
                    *next = None;
                    continue;
                }
                answer => answer?,
            };
            let bundle = read_page(&answer)?;
            let deletions = deleted::look(self.pull, &bundle, &self.task.query.resource_type).await?;
            walk.addresses.insert(digest);
            self.take_page(&bundle, &deletions, part, walk)?;
            self.is_taken_up = false;
            *next = next_page(self.pull, &answer.url, &bundle)?;
            if next.is_none() {
                self.take_last_number(&bundle, walk);
                end(walk)?;
            }
            if next.is_some() && self.pages >= self.pull.source.options.tuning.pages_per_place.max(1) {
                self.keep(part, Some((walk, next.as_ref())))?;
            }
        }
    }

    /// A number is an estimate, until the last page has it.
    fn take_last_number(&mut self, bundle: &Bundle, walk: &mut Walk) {
        if walk.total.is_some() && bundle.total() == Some(walk.tally.distinct) {
            let unit = &mut self.receiving.unit;
            unit.expected = if unit.expected == walk.total { bundle.total() } else { unit.expected };
            walk.total = bundle.total();
        }
    }

    /// A further page by its link; by POST where the first one came so or the link is too long.
    async fn further_page(&self, ask: &Ask, part: &Part, walk: &mut Walk) -> Result<Response, Trouble> {
        let mut answer = ask.send(self.pull, false, self.patient).await?;
        walk.is_followed |= answer.is_success();
        if ask.is_long() && matches!(answer.status, 400 | 404 | 414 | 431) {
            answer = ask.posted().send(self.pull, false, self.patient).await?;
        }
        // Where links were followed by GET, one that is not is forgotten.
        if walk.posted && !walk.is_followed && matches!(answer.status, 400 | 404 | 405) {
            answer = Ask { url: ask.url.clone(), form: self.ask(part, true)?.form }.send(self.pull, false, self.patient).await?;
            // Begun again, the search is sent in its address.
            self.pull.habits.no_post.fetch_or(!answer.is_success(), Ordering::Relaxed);
        }
        match answer.status {
            200..=299 => Ok(answer),
            414 | 431 => Err(Trouble::Divide(answered(&answer))),
            401 | 403 => Err(Trouble::Gap(answered(&answer))),
            // An expired page: 404, 410 and some servers' 400 or 500.
            400 | 404 | 410 | 500 => Err(Trouble::Lost(answered(&answer))),
            _ => Err(Trouble::Again(answered(&answer))),
        }
    }

    /// Goes on after a page that cannot be had any more, or gives why not.
    pub(super) async fn go_on(&mut self, part: &Part, walk: &mut Walk, reason: Why) -> Result<(), Trouble> {
        // From one night to another links may be forgotten.
        self.lost_after = self.lost_after.max(walk.course.life());
        if !self.is_taken_up && walk.course.life() > 0 {
            self.note_forgotten(&reason)?;
        }
        let Some(stretch) = walk.course.stretch_before_loss(part).filter(|_| walk.tally.remembers_all()) else { return Err(Trouble::Lost(reason)) };
        let is_whole = match stretch.came {
            Some(came) => self.count(&stretch.part).await? == Some(came),
            None => false,
        };
        walk.course.go_on(is_whole);
        Ok(())
    }

    /// Takes the first page of a further stretch. Gives its next page.
    pub(super) async fn begin(&mut self, stretch: &Part, part: &Part, walk: &mut Walk) -> Result<Option<Ask>, Trouble> {
        let (ask, answer) = self.first_page(stretch).await?;
        let bundle = read_page(&answer)?;
        let deletions = deleted::look(self.pull, &bundle, &self.task.query.resource_type).await?;
        walk.addresses.insert(short(&ask.digest()));
        self.take_page(&bundle, &deletions, part, walk)?;
        self.is_taken_up = false;
        next_page(self.pull, &answer.url, &bundle)
    }

    /// Two parts that together hold what this one does: of as much each, by what came, where a part is to be short enough for links that
    /// are forgotten.
    pub(super) fn halves(&self, part: &Part) -> Option<[Part; 2]> {
        let usual = || part.halves(self.times, self.pull.clock.now());
        let is_of_times = part.by_time && part.patients.as_ref().is_none_or(|patients| patients.len() < 2);
        if self.lost_after == 0 || !is_of_times {
            return usual();
        }
        let span = Span { from: part.from, until: part.until };
        let mut times = self.came_at.clone();
        times.sort_unstable();
        let halves = span
            .halves(span.of(&times))
            .map(|halves| halves.map(|half| Part { from: half.from, until: half.until, ..part.clone() }));
        halves.or_else(usual)
    }

    /// Whether a part has more pages than links were kept for.
    pub(super) async fn is_too_long(&self, part: &Part) -> Result<bool, Trouble> {
        let most = u64::from(self.lost_after).saturating_mul(u64::from(self.page_size()));
        Ok(self.in_parts && most > 0 && self.count(part).await?.is_some_and(|count| count > most))
    }

    /// Whether a part is asked for in the order of times of change.
    pub(super) fn is_sorted(&self, part: &Part) -> bool {
        let has_own = self.task.query.parameters.iter().any(|(name, _)| name == SORT.0);
        let habits = &self.pull.habits;
        part.by_time && !has_own && habits.forgets_links.load(Ordering::Relaxed) && !habits.unsorted.load(Ordering::Relaxed)
    }

    /// How much larger pages are asked for: at once where it cannot be gone on with by times, else when that did not help.
    pub(super) fn larger(&self) -> u32 {
        let times = self.tries.restarts.saturating_sub(u32::from(self.task.query.incremental));
        if self.pull.habits.forgets_links.load(Ordering::Relaxed) { LARGER.saturating_pow(times) } else { 1 }
    }

    fn note_forgotten(&self, reason: &Why) -> Result<(), Trouble> {
        self.pull.habits.forgets_links.store(true, Ordering::Relaxed);
        let text = format!("links to further pages are forgotten ({reason}): lists are gone on with by times of change, which takes more requests");
        Ok(self.pull.record(&Unit {
            name: "forgotten links".to_owned(),
            resource_type: "*".to_owned(),
            query: "paging".to_owned(),
            note: Some(Why::new(Code::Forgotten, text)),
            ..Unit::default()
        })?)
    }
}

/// A stretch is at its end.
fn end(walk: &mut Walk) -> Result<(), Trouble> {
    let reason = || Why::new(Code::Paging, "a link is forgotten, and searches by times of change do not find what has come before");
    if walk.course.end() { Ok(()) } else { Err(Trouble::Lost(reason())) }
}
