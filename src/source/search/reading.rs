//! Reading a query to its end, whatever its pages do. What is cut, shifts or breaks is read again, or in parts; what stays
//! doubtful is a gap with its reason.

mod links;
mod number;

use super::ask::{self, Ask, next_address, parameters};
use super::course::Course;
use super::deleted::{self, Deletions, Kept};
use super::page::{self, Bundle, Item};
use super::part::{Part, Span};
use super::place::{self, Left, Pages, PartRow, Place, Shift, Tries};
use super::tally::{Tally, short};
use super::{Refusal, Task};
use crate::http::{HttpError, Response, passes};
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::filter::Filter;
use crate::source::intake::{Reason, tombstone};
use crate::source::ledger::{self, Unit};
use crate::source::pull::{Pull, Receiving, Taken};
use jiff::Timestamp;
use number::cut_at;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use url::Url;

/// Pages of one query.
const PAGES_MAX: usize = 100_000;
/// Times a query is begun again when its paging breaks.
const RESTARTS_MAX: u32 = 2;
/// Attempts at a list of values that takes too long.
const LIST_ATTEMPTS_MAX: u32 = 2;
/// Resources that one page is asked for at most, where all of a search must come on it.
const WIDE_PAGE_MAX: u32 = 10_000;
/// Parts of one query.
const PARTS_MAX: u32 = 20_000;
/// Parts in a row that fail before the server is left in peace: one bad resource in a second of many years takes about forty. Of ids that
/// are refused two are enough: they are read one by one instead.
const FAILURES_MAX: u32 = 64;
/// Readings of a query whose pages shift.
const PASSES_MAX: u32 = 4;
/// One in so many may be deleted while a query is read a second time.
const DRIFT: u64 = 100;
/// Reasons of parts that are shown.
const REASONS_MAX: usize = 5;

/// A query as it was read.
pub(super) struct Read {
    /// What to record.
    pub unit: Unit,
    /// Why the server would not search at all.
    pub refused: Option<Refusal>,
    /// Ids that were asked for at whatever time of change, and did not come.
    pub missing: Vec<String>,
}

/// Why a part could not be read to its end.
enum Trouble {
    /// The paging broke: begin again.
    Again(Why),
    /// A link to a further page is forgotten, and what is after it cannot be gone on with.
    Lost(Why),
    /// Less came than was announced: once more.
    Short(Why),
    /// Smaller parts may do.
    Divide(Why),
    /// So many came that they may have been cut, and the server does not say: parts will show.
    Doubt(u64),
    /// The pages changed while they were read: two readings must agree.
    Shifted(Why),
    /// The server does not search so.
    Refused(Refusal),
    /// It will not get better.
    Gap(Why),
    Fatal(SourceError),
}

impl Trouble {
    /// Whether no further request may be made tonight.
    fn is_for_tonight(&self) -> bool {
        matches!(self, Trouble::Fatal(SourceError::Unfinished { .. }))
    }
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Trouble {
        Trouble::Fatal(error)
    }
}

impl From<HttpError> for Trouble {
    fn from(error: HttpError) -> Trouble {
        match error {
            error if error.ends_all() => Trouble::Fatal(error.into()),
            HttpError::TooLarge { .. } => Trouble::Divide(error.into()),
            other => Trouble::Gap(other.into()),
        }
    }
}

/// What is remembered while the pages of one part are read.
#[derive(Default)]
pub(super) struct Walk {
    /// Number of the part.
    pub part: u32,
    /// The first durable piece that holds nothing of another part.
    pub since: usize,
    pub addresses: Pages,
    pub contents: Pages,
    pub tally: Tally,
    /// Matches, copies included: on the present page, and the most on any.
    pub on_page: u64,
    pub most: u64,
    pub total: Option<u64>,
    pub ignored: BTreeSet<String>,
    pub complaint: Option<Why>,
    pub shifted: bool,
    /// The first page was asked for by POST.
    pub posted: bool,
    /// A link was followed by GET.
    pub is_followed: bool,
    /// How far it has come by times of change.
    pub course: Course,
}

/// How a part is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Pages are followed.
    Whole,
    /// One page must do.
    OnePage,
}

/// Reads a task to its end, from where an earlier night left it.
pub(super) async fn read(pull: &Pull<'_>, task: &Task<'_>, members: Option<&BTreeSet<String>>) -> Result<Read, SourceError> {
    let from = task.span.from.or_else(|| pull.since_of(&task.query.resource_type).filter(|_| task.since && task.query.incremental));
    let whole = Part { patients: task.patients.clone(), from, until: task.span.until, by_time: task.query.incremental };
    let mut left = Reading::left(pull, task, members)?;
    let mut tries = Tries::default();
    loop {
        let mut reading = match left.take() {
            Some(reading) if reading.in_parts => return in_parts(reading, &whole, Why::new(Code::Failing, "it takes longer than a night"), false).await,
            Some(reading) => reading,
            None => Reading { tries, ..Reading::anew(pull, task, members)? },
        };
        tries = reading.tries;
        let is_divisible = |reading: &Reading<'_>| reading.halves(&whole).is_some();
        let is_sorted = reading.is_sorted(&whole);
        match reading.part(&whole, Manner::Whole).await {
            Ok(()) => return reading.finish(None, None),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Gap(reason)) => return reading.finish(Some(reason), None),
            Err(Trouble::Refused(refusal)) => return reading.finish(Some(refusal.reason.clone()), Some(refusal)),
            Err(Trouble::Short(_)) if tries.short && reading.is_counted(&whole).await? => return reading.finish(None, None),
            Err(Trouble::Short(reason)) if tries.short => return reading.finish(Some(reason), None),
            Err(Trouble::Short(_)) => tries.short = true,
            // What took longer than a night, and cannot be gone on with, would take longer than a night again.
            Err(Trouble::Again(reason) | Trouble::Lost(reason)) if reading.is_taken_up && is_divisible(&reading) => {
                return in_parts(reading, &whole, reason, false).await;
            }
            // In the order of times it would have been gone on with.
            Err(Trouble::Lost(reason)) if reading.lost_after > 0 && is_sorted == reading.is_sorted(&whole) && is_divisible(&reading) => {
                return in_parts(reading, &whole, reason, false).await;
            }
            Err(Trouble::Again(reason) | Trouble::Lost(reason)) if tries.restarts == RESTARTS_MAX => return reading.finish(Some(reason), None),
            Err(Trouble::Again(_) | Trouble::Lost(_)) => tries.restarts += 1,
            Err(Trouble::Divide(reason)) if !is_divisible(&reading) => return reading.finish(Some(reason), None),
            Err(Trouble::Divide(reason)) => return in_parts(reading, &whole, reason, false).await,
            Err(Trouble::Doubt(came)) if !is_divisible(&reading) => return reading.finish(cut_at(came), None),
            Err(Trouble::Doubt(came)) => {
                let reason = Why::new(Code::Cut, format!("exactly {came} came, and no number shows that this is all"));
                return in_parts(reading, &whole, reason, false).await;
            }
            Err(Trouble::Shifted(reason)) => return in_parts(reading, &whole, reason, true).await,
        }
        let wait = pull.source.wait(tries.restarts.max(1));
        pull.source.say_waiting("a search did not come whole", tries.restarts.max(1), wait, pull.clock.now());
        pull.clock.sleep(wait).await;
    }
}

/// Reads a query in parts, because reading it at once met `reason`. Where pages shifted, two readings must agree.
async fn in_parts(first: Reading<'_>, whole: &Part, reason: Why, shifted: bool) -> Result<Read, SourceError> {
    tracing::info!(pull = first.pull.id.0, query = %first.task.query.name, %reason, "read in parts");
    let at_once = if first.in_parts { 0 } else { first.all.distinct };
    let mut reading = if first.in_parts {
        first
    } else {
        let shift = shifted.then(|| Shift { digest: first.all.digest, pass: 1, why: reason.clone() });
        first.divided(whole, shift)?
    };
    loop {
        let mut reasons = reading.parts().await?;
        let announced = reading.announced;
        reading.receiving.unit.expected = announced;
        let shift = reading.shift.clone();
        let agrees = shift.as_ref().is_none_or(|shift| shift.digest == reading.all.digest);
        // But for what was deleted meanwhile.
        let is_less = announced.map_or_else(|| at_once.saturating_sub(reading.all.distinct).saturating_mul(DRIFT) > at_once, |announced| reading.all.distinct < announced);
        if is_less {
            reasons.push(reason.clone().put(|reason| format!("{reason}; in parts {} came", reading.all.distinct)));
        } else if let Some(Shift { why, .. }) = shift.as_ref().filter(|shift| !agrees && shift.pass == PASSES_MAX) {
            reasons.push(why.clone().put(|reason| format!("{reason}; no two of {PASSES_MAX} further readings agree")));
        }
        if agrees && reasons.iter().any(|reason| reason.code == Code::Announced) && reading.is_counted(whole).await? {
            reasons.retain(|reason| reason.code != Code::Announced);
        }
        if !reasons.is_empty() || agrees {
            reading.note_longest(whole, &reason);
            return reading.finish(joined(&reasons), None);
        }
        let next = shift.map(|shift| Shift { digest: reading.all.digest, pass: shift.pass + 1, ..shift });
        reading = reading.divided(whole, next)?;
    }
}

/// Several reasons as one; whose turn it is, the first one says.
fn joined(reasons: &[Why]) -> Option<Why> {
    let shown: Vec<&str> = reasons.iter().take(REASONS_MAX).map(|reason| reason.text.as_str()).collect();
    let more = reasons.len().saturating_sub(REASONS_MAX);
    let text = if more == 0 { shown.join("; ") } else { format!("{}; and {more} more", shown.join("; ")) };
    Some(Why::new(reasons.first()?.code, text))
}

/// One reading of a task, at once or in parts.
struct Reading<'a> {
    pull: &'a Pull<'a>,
    task: &'a Task<'a>,
    members: Option<&'a BTreeSet<String>>,
    receiving: Receiving<'a>,
    filter: Filter,
    all: Tally,
    /// First and last time of change that came.
    times: Option<(Timestamp, Timestamp)>,
    /// Times of change that came, the first of many.
    came_at: Vec<i64>,
    entries: u64,
    /// Whether failures are sat out.
    patient: bool,
    in_parts: bool,
    /// Two readings must agree.
    shift: Option<Shift>,
    tries: Tries,
    /// How many the server announced before the query was divided.
    announced: Option<u64>,
    /// Parts to be read, the next one last, each with whether its failures are sat out; those that failed; how many were begun.
    waiting: Vec<(Part, bool)>,
    failed: Vec<Part>,
    parts: u32,
    /// Patients of the longest list among the parts that were read.
    longest: usize,
    /// Pages that came before a link was forgotten; 0: none was, or links are not followed at all.
    lost_after: u32,
    /// What an earlier night left of a part, and whether nothing of it was read since.
    left: Option<(Walk, Option<Ask>)>,
    is_taken_up: bool,
    /// What was named as deleted and stays.
    kept: Kept,
    /// What this client may not see was left out: a gap where there is no other.
    hidden: Option<Why>,
    /// Resources asked for on a page, when it is to hold all.
    wide_page: Option<u32>,
    /// Durable pieces, and pages that came since the last one.
    pieces: usize,
    pages: u32,
}

impl<'a> Reading<'a> {
    fn new(pull: &'a Pull<'a>, task: &'a Task<'a>, members: Option<&'a BTreeSet<String>>, pieces: usize) -> Result<Reading<'a>, SourceError> {
        let filter = Filter::of(
            task.query
                .parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .chain(task.category.map(|category| ("category", category))),
        );
        Ok(Reading {
            pull,
            task,
            members,
            receiving: pull.receive(Unit { name: piece_name(task, pieces), ..task.unit() }, members)?,
            filter,
            all: Tally::default(),
            times: None,
            came_at: Vec::new(),
            entries: 0,
            patient: true,
            in_parts: false,
            shift: None,
            tries: Tries::default(),
            announced: None,
            waiting: Vec::new(),
            failed: Vec::new(),
            parts: 0,
            longest: 0,
            lost_after: 0,
            left: None,
            is_taken_up: false,
            kept: Kept::default(),
            hidden: None,
            wide_page: None,
            pieces,
            pages: 0,
        })
    }

    /// From the beginning; what came before is forgotten.
    fn anew(pull: &'a Pull<'a>, task: &'a Task<'a>, members: Option<&'a BTreeSet<String>>) -> Result<Reading<'a>, SourceError> {
        ledger::forget_pieces(pull.snapshot.store(), pull.id, &task.name, &piece_prefix(task))?;
        Reading::new(pull, task, members, 0)
    }

    /// From the beginning, in parts.
    fn divided(self, whole: &Part, shift: Option<Shift>) -> Result<Reading<'a>, SourceError> {
        let halves = self.halves(whole);
        let Reading { pull, task, members, times, came_at, lost_after, .. } = self;
        let announced = if self.in_parts { self.announced } else { self.receiving.unit.expected };
        // Its staged file is written anew.
        drop(self.receiving);
        let waiting = match halves {
            Some([older, newer]) => vec![(newer, false), (older, false)],
            None => vec![(whole.clone(), false)],
        };
        Ok(Reading { times, came_at, waiting, shift, announced, lost_after, in_parts: true, ..Reading::anew(pull, task, members)? })
    }

    /// From where an earlier night left it, if it did.
    fn left(pull: &'a Pull<'a>, task: &'a Task<'a>, members: Option<&'a BTreeSet<String>>) -> Result<Option<Reading<'a>>, SourceError> {
        let mut places = place::kept(pull, &task.name)?;
        let files: Vec<String> = places.iter().map(|place| place.file.clone()).collect();
        let left = place::taken_up(&places, |since, sums| Tally::restored(pull, sums, files.get(since..).unwrap_or_default()))?;
        let Some(place) = places.pop().filter(|place| place.in_parts || left.is_some()) else { return Ok(None) };
        let at = |micros: Option<i64>| micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        let mut reading = Reading {
            all: Tally::restored(pull, place.all, &files)?,
            times: place.times.and_then(|(first, last)| at(Some(first)).zip(at(Some(last)))),
            entries: place.entries,
            in_parts: place.in_parts,
            shift: place.shift,
            tries: place.tries,
            announced: place.expected,
            waiting: place.waiting.into_iter().map(|row| (row.part(), true)).collect(),
            parts: place.parts,
            is_taken_up: left.is_some(),
            kept: place.kept,
            hidden: place.hidden,
            left,
            ..Reading::new(pull, task, members, files.len())?
        };
        (reading.receiving.unit.expected, reading.receiving.unit.server_time) = (place.expected, at(place.server_time));
        Ok(Some(reading))
    }

    /// Makes durable what came so far, with the place where the reading goes on: in this part, or where it begins; and which
    /// one it is of readings that must agree.
    fn keep(&mut self, part: &Part, left: Option<(&mut Walk, Option<&Ask>)>) -> Result<(), SourceError> {
        let is_again = self.shift.is_some() || self.tries != Tries::default();
        if self.pages == 0 && (self.pieces > 0 || !is_again) {
            return Ok(());
        }
        let Unit { expected, server_time, .. } = self.receiving.unit;
        let next = Unit { name: piece_name(self.task, self.pieces + 1), expected, server_time, ..self.task.unit() };
        let piece = std::mem::replace(&mut self.receiving, self.pull.receive(next, self.members)?);
        let piece = Unit { expected: None, ..piece.finish(None)? };
        let to_come = self.failed.iter().chain(self.waiting.iter().map(|(part, _)| part)).chain([part]);
        let place = Place {
            file: piece.staged.as_ref().map(|(file, _)| file.clone()).unwrap_or_default(),
            waiting: to_come.map(PartRow::of).collect(),
            in_parts: self.in_parts,
            shift: self.shift.clone(),
            tries: self.tries,
            parts: self.parts,
            left: left.map(|(walk, next)| Left::of(walk, next)),
            all: self.all.sums(),
            times: self.times.map(|(first, last)| (first.as_microsecond(), last.as_microsecond())),
            entries: self.entries,
            kept: self.kept,
            hidden: self.hidden.clone(),
            expected: if self.in_parts { self.announced } else { expected },
            server_time: server_time.map(Timestamp::as_microsecond),
        };
        place::keep(self.pull, &self.task.name, self.pieces, &piece, &place)?;
        (self.pieces, self.pages) = (self.pieces + 1, 0);
        Ok(())
    }

    fn finish(mut self, gap: Option<Why>, refused: Option<Refusal>) -> Result<Read, SourceError> {
        self.receiving.unit.name.clone_from(&self.task.name);
        self.receiving.unit.note = self.kept.note();
        let missing = if gap.is_none() { self.missing() } else { Vec::new() };
        Ok(Read { unit: self.receiving.finish(gap.or_else(|| self.kept.gap()).or(self.hidden))?, refused, missing })
    }

    fn missing(&self) -> Vec<String> {
        let Task { query, patients, since, span, .. } = self.task;
        let is_of_all_times = *span == Span::ALL && !(*since && query.incremental && self.pull.since_of(&query.resource_type).is_some());
        let asked = patients.iter().flatten().filter(|_| self.task.is_by_id() && is_of_all_times && query.parameters.is_empty());
        asked.filter(|id| !self.all.has_seen(&query.resource_type, id)).cloned().collect()
    }

    /// Reads the parts that wait, dividing further what is still in trouble. Gives the reasons of those that stay so.
    async fn parts(&mut self) -> Result<Vec<Why>, SourceError> {
        let (mut reasons, mut failures) = (Vec::new(), 0);
        // The older first: what changes meanwhile moves to a part that is still to come.
        while let Some((part, patient)) = self.waiting.pop() {
            self.parts += 1;
            if self.parts > PARTS_MAX || failures > FAILURES_MAX {
                reasons.push(Why::new(Code::Failing, format!("given up after {} parts", self.parts)));
                break;
            }
            let halves = self.halves(&part);
            // What fails is divided at once; the smallest part that fails gets every chance.
            self.patient = patient || halves.is_none();
            let manner = if self.shift.is_some() && halves.is_some() { Manner::OnePage } else { Manner::Whole };
            let trouble = match self.part(&part, manner).await {
                Ok(()) => {
                    failures = 0;
                    self.longest = self.longest.max(part.patients.as_ref().map_or(0, Vec::len));
                    continue;
                }
                Err(trouble) => trouble,
            };
            failures += if matches!(&trouble, Trouble::Refused(refusal) if self.task.is_by_id() && refusal.status != 403) { FAILURES_MAX } else { 1 };
            match (trouble, halves) {
                (Trouble::Fatal(error), _) => return Err(error),
                // Two readings of everything decide.
                (Trouble::Shifted(_), None) => {}
                (Trouble::Doubt(came), None) => reasons.extend(cut_at(came)),
                (Trouble::Again(_) | Trouble::Lost(_) | Trouble::Divide(_) | Trouble::Doubt(_) | Trouble::Shifted(_), Some([older, newer])) => {
                    self.waiting.extend([(newer, false), (older, false)])
                }
                (Trouble::Gap(_), _) if !self.patient => self.waiting.push((part, true)),
                (
                    Trouble::Refused(Refusal { reason, .. })
                    | Trouble::Gap(reason)
                    | Trouble::Short(reason)
                    | Trouble::Again(reason)
                    | Trouble::Lost(reason)
                    | Trouble::Divide(reason),
                    _,
                ) => {
                    let shown = part.to_string();
                    reasons.push(if shown.is_empty() { reason } else { reason.put(|reason| format!("{shown}: {reason}")) });
                    self.failed.push(part);
                }
            }
        }
        Ok(reasons)
    }

    /// Reads one part, page by page, or the rest of it. When no further request may be made tonight, its place is kept.
    async fn part(&mut self, part: &Part, manner: Manner) -> Result<(), Trouble> {
        let (mut walk, mut next) = match self.left.take() {
            Some(left) => left,
            None => match self.first(part, manner).await {
                Err(trouble) if trouble.is_for_tonight() => {
                    self.keep(part, None)?;
                    return Err(trouble);
                }
                begun => begun?,
            },
        };
        let mut read = self.further(part, &mut walk, &mut next).await;
        if read.is_ok() {
            read = self.judge(part, &walk).await;
        }
        if let (Err(Trouble::Divide(_)), Some(size)) = (&read, self.size_for_all(&walk)) {
            self.wide_page = Some(size);
            read = Box::pin(self.part(part, manner)).await;
            self.wide_page = None;
            return read;
        }
        if read.as_ref().is_err_and(Trouble::is_for_tonight) {
            self.keep(part, Some((&mut walk, next.as_ref())))?;
        }
        read
    }

    /// The size of a page that would hold all, where the server announces more than it sends and gives no link to it: some
    /// take a page's size and have no paging.
    fn size_for_all(&self, walk: &Walk) -> Option<u32> {
        let is_alone = self.wide_page.is_none() && walk.addresses.len() == 1;
        walk.total
            .filter(|total| is_alone && *total > u64::from(self.page_size()))
            .and_then(|total| u32::try_from(total).ok())
            .filter(|size| *size <= WIDE_PAGE_MAX)
    }

    /// Remembers how long a list may be, where a longer one took too long.
    fn note_longest(&self, whole: &Part, reason: &Why) {
        let Task { query, .. } = self.task;
        let asked = whole.patients.as_ref().map_or(0, Vec::len);
        let is_slow = matches!(reason.code, Code::Failing | Code::Unreachable);
        if let Some(parameter) = query.by_patient.as_ref().filter(|_| is_slow && (1..asked).contains(&self.longest)) {
            self.pull.habits.lists.note_longest(&query.resource_type, parameter, self.longest);
        }
    }

    /// Takes the first page of a part.
    async fn first(&mut self, part: &Part, manner: Manner) -> Result<(Walk, Option<Ask>), Trouble> {
        if self.halves(part).is_some() && self.is_too_long(part).await? {
            return Err(Trouble::Divide(Why::new(Code::Paging, "more pages than links are kept for")));
        }
        let (first, answer) = self.first_page(part).await?;
        let since = self.pieces + usize::from(self.pages > 0);
        let mut walk = Walk { part: self.parts, since, posted: first.form.is_some(), ..Walk::default() };
        walk.addresses.insert(short(&first.digest()));
        let bundle = read_page(&answer)?;
        let deletions = deleted::look(self.pull, &bundle, &self.task.query.resource_type).await?;
        let sent = parameters(self.pull, self.task, part);
        walk.total = bundle.total();
        walk.ignored = bundle.ignored(&answer.url, sent.iter().map(|(name, _)| name.as_str()));
        if !walk.ignored.is_empty() && self.pull.habits.types(|types| types.ignoring.insert(self.task.query.name.clone())) {
            tracing::warn!(query = %self.task.query.name, ignored = ?walk.ignored, "the server ignored parameters; applied here where that is possible");
        }
        walk.ignored.extend(ask::is_without_code(self.pull, self.task).then(|| "code".to_owned()));
        let unit = &mut self.receiving.unit;
        unit.server_time = unit.server_time.or_else(|| Some(answer.date().unwrap_or_else(|| self.pull.clock.now())));
        unit.expected = unit.expected.or(walk.total);
        self.take_page(&bundle, &deletions, part, &mut walk)?;
        let next = next_page(self.pull, &answer.url, &bundle)?;
        if next.is_some() && manner == Manner::OnePage {
            return Err(Trouble::Divide(Why::new(Code::Paging, "more than one page")));
        }
        Ok((walk, next))
    }

    /// The search for a part.
    fn ask(&self, part: &Part, by_post: bool) -> Result<Ask, HttpError> {
        let mut parameters = parameters(self.pull, self.task, part);
        parameters.push(("_count".to_owned(), self.page_size().to_string()));
        parameters.extend(self.is_sorted(part).then(|| (links::SORT.0.to_owned(), links::SORT.1.to_owned())));
        Ask::first(self.pull, &parameters, &self.task.query.resource_type, by_post)
    }

    /// The first page, asked for as this server takes it.
    async fn first_page(&self, part: &Part) -> Result<(Ask, Response), Trouble> {
        let habits = &self.pull.habits;
        let most = habits.lists.at_once(&self.task.query.resource_type, self.task.query.by_patient.as_ref(), usize::MAX);
        if part.patients.as_ref().is_some_and(|some| some.len() > most) {
            return Err(Trouble::Divide(Why::new(Code::Answer, "the server does not heed lists of so many values, or takes too long for them")));
        }
        let may_post = !habits.no_post.load(Ordering::Relaxed);
        let (mut by_post, mut post_refused) = (may_post && (self.task.names_patients() || self.ask(part, false)?.is_long()), false);
        let mut strict = !habits.lenient.load(Ordering::Relaxed);
        loop {
            let ask = self.ask(part, by_post)?;
            if !by_post && ask.is_long() {
                return Err(Trouble::Divide(Why::new(Code::Refused, "the search's address is too long")));
            }
            let has_code = !ask::is_without_code(self.pull, self.task);
            let answer = self.send(&ask, part, strict).await?;
            match answer.status {
                200..=299 => {
                    habits.no_post.fetch_or(post_refused, Ordering::Relaxed);
                    habits.lenient.fetch_or(!strict, Ordering::Relaxed);
                    return Ok((ask, answer));
                }
                403 | 404 | 405 | 415 | 501 if by_post => (by_post, post_refused) = (false, true),
                414 | 431 if !by_post && may_post && !post_refused => by_post = true,
                400 | 422 if names_count(&answer) && self.wide_page.is_none() && self.page_size() > 1 => {
                    let half = self.page_size() / 2;
                    tracing::warn!(page_size = half, "the server refuses larger pages: lower `source.page_size`");
                    habits.page_max.store(half, Ordering::Relaxed);
                }
                400 | 422 if self.is_sorted(part) => habits.unsorted.store(true, Ordering::Relaxed),
                400 | 422 if strict && page::issue_code(&answer.body).as_deref() != Some("required") => strict = false,
                400 | 422 if has_code && self.leaves_out_code(&answer) => {}
                _ => return Err(refused(&answer)),
            }
        }
    }

    /// Whether a search by code of some patients, which is refused, is from now on made without the code.
    fn leaves_out_code(&self, answer: &Response) -> bool {
        let Task { query, patients, .. } = self.task;
        let is_of_both = patients.is_some() && query.parameters.iter().any(|(name, _)| name == "code");
        let leaves_out = is_of_both && page::issue_code(&answer.body).as_deref() != Some("required");
        if leaves_out {
            self.pull.habits.types(|types| types.without_code.insert(query.resource_type.clone()));
        }
        leaves_out
    }

    /// Sends a search. One of a list that takes too long is divided rather than waited for.
    async fn send(&self, ask: &Ask, part: &Part, strict: bool) -> Result<Response, Trouble> {
        let is_list = part.patients.as_ref().is_some_and(|some| some.len() > 1);
        if !(self.patient && is_list) {
            return Ok(ask.send(self.pull, strict, self.patient).await?);
        }
        match ask.send_at_most(self.pull, strict, LIST_ATTEMPTS_MAX).await {
            Ok(answer) if answer.status == 504 || !passes(answer.status) => Ok(answer),
            Err(error) if error.is_timeout() => Err(Trouble::Divide(error.into())),
            _ => Ok(ask.send(self.pull, strict, true).await?),
        }
    }

    fn page_size(&self) -> u32 {
        let most = self.pull.habits.page_max.load(Ordering::Relaxed);
        let usual = self
            .pull
            .source
            .options
            .page_size
            .max(1)
            .saturating_mul(self.larger())
            .min(WIDE_PAGE_MAX.max(self.pull.source.options.page_size));
        self.wide_page.unwrap_or(if most == 0 { usual } else { usual.min(most) })
    }

    /// Takes a page's entries.
    fn take_page(&mut self, bundle: &Bundle, deletions: &Deletions, part: &Part, walk: &mut Walk) -> Result<(), Trouble> {
        let entries = bundle.entries();
        let mut content: Vec<u8> = Vec::new();
        walk.on_page = 0;
        walk.course.page();
        self.pages += 1;
        self.kept.add(deletions.kept);
        for item in bundle.items(&self.task.query.resource_type) {
            self.entries += 1;
            match item {
                Item::Empty | Item::Failed(_) => {
                    walk.on_page += 1;
                    walk.course.came_unnamed();
                    [&mut walk.tally, &mut self.all].into_iter().for_each(|tally| tally.distinct += 1);
                    self.receiving.unit.received += 1;
                    self.receiving.refuse(Reason::NoResource, None, b"", 0, self.entries)?;
                }
                Item::Deleted(..) => {}
                Item::Outcome(json) => {
                    walk.shifted |= page::has_shifted(json);
                    match page::worst_issue(json) {
                        Some(why) if why.code == Code::Hidden => self.hidden = Some(why),
                        worst => walk.complaint = walk.complaint.take().or(worst),
                    }
                }
                Item::Include(json, named) => {
                    if self.pull.plan.types.contains(&named) {
                        self.receiving.take(&entries.resolve(json.as_bytes()), self.entries)?;
                    }
                }
                Item::Match(json) => {
                    walk.on_page += 1;
                    content.extend(self.take_match(json, &entries.resolve(json.as_bytes()), part, walk)?.into_iter().flatten());
                }
            }
        }
        for (resource_type, id) in &deletions.gone {
            self.receiving.take_removal(&tombstone(resource_type, id))?;
        }
        walk.most = walk.most.max(walk.on_page);
        if content.is_empty() || walk.contents.insert(short(&crate::store::sha256_hex(&content))) {
            return Ok(());
        }
        let reason = Why::new(Code::Paging, "the server repeats a page");
        // A server may take a further page that was posted for the search itself, and an old link for its first page.
        Err(if self.is_taken_up || walk.posted && !self.pull.habits.no_post.swap(true, Ordering::Relaxed) { Trouble::Again(reason) } else { Trouble::Gap(reason) })
    }

    /// Takes a match, with what its references mean, unless it is not what was asked for. Gives its hash.
    fn take_match(&mut self, json: &str, line: &[u8], part: &Part, walk: &mut Walk) -> Result<Option<[u8; 32]>, Trouble> {
        let asked = part.patients.as_ref().filter(|_| self.task.is_by_id());
        let is_other = asked.is_some_and(|ids| page::id_of(json).is_some_and(|id| !ids.contains(&id)));
        if is_other || !self.filter.keeps(line, &walk.ignored) {
            let (id, updated) = page::id_and_time(json);
            let left_out = Taken { resource_type: self.task.query.resource_type.clone(), id: id.unwrap_or_default(), hash: [0; 32], updated };
            self.note(walk, &left_out);
            return Ok(None);
        }
        let Some(taken) = self.receiving.take(line, self.entries)? else {
            // What is refused may have no name by which it could be known again.
            walk.course.came_unnamed();
            [&mut walk.tally, &mut self.all].into_iter().for_each(|tally| tally.distinct += 1);
            return Ok(None);
        };
        // What is read again, in parts or after a link was forgotten, came once.
        let is_copy = self.in_parts && self.all.has_seen(&taken.resource_type, &taken.id);
        let is_new = self.note(walk, &taken);
        self.receiving.unit.received = self.receiving.unit.received.saturating_sub(u64::from(is_copy || !is_new));
        if !is_new {
            return Ok(None);
        }
        if let Some(updated) = taken.updated.and_then(|at| Timestamp::from_microsecond(at).ok()) {
            let (first, last) = self.times.unwrap_or((updated, updated));
            self.times = Some((first.min(updated), last.max(updated)));
            self.came_at.extend(taken.updated.filter(|_| self.came_at.len() < links::TIMES_MAX));
        }
        Ok(Some(taken.hash))
    }

    /// Notes a match, unless it is known since a link was forgotten and some came again. Whether it is new.
    fn note(&mut self, walk: &mut Walk, taken: &Taken) -> bool {
        let is_known = walk.course.came(taken.updated, walk.tally.has_seen(&taken.resource_type, &taken.id));
        if !is_known {
            [&mut walk.tally, &mut self.all].into_iter().for_each(|tally| tally.note(&taken.resource_type, &taken.id, &taken.hash));
        }
        !is_known
    }
}

/// The name of a piece of a task that is durable by itself.
fn piece_name(task: &Task<'_>, number: usize) -> String {
    format!("{}{number}", piece_prefix(task))
}

/// With what the names of all pieces begin; no task's own name does.
fn piece_prefix(task: &Task<'_>) -> String {
    format!("{}, piece ", task.name)
}

/// Whether a refusal is about the size of a page.
fn names_count(answer: &Response) -> bool {
    memchr::memmem::find(&answer.body, b"_count").is_some()
}

/// What a refusal of a first page means for the search.
fn refused(answer: &Response) -> Trouble {
    let reason = answered(answer);
    match answer.status {
        // Too much at once, or one resource on which the server stumbles.
        413 | 414 | 431 | 500 | 504 | 507 => Trouble::Divide(reason),
        status @ (400 | 402..=428 | 430..=499 | 501) => {
            let needs_category = page::issue_code(&answer.body).as_deref() == Some("required");
            Trouble::Refused(Refusal { status, reason, needs_category })
        }
        _ => Trouble::Gap(reason),
    }
}

fn answered(answer: &Response) -> Why {
    Why::new(Code::of_status(answer.status), format!("the server answered {}{}", answer.status, page::issue_shown(&answer.body)))
}

fn read_page(answer: &Response) -> Result<Bundle, Trouble> {
    let is_damaged = |body: &[u8]| std::str::from_utf8(body).is_err() && serde_json::from_str::<serde::de::IgnoredAny>(&String::from_utf8_lossy(body)).is_ok();
    if is_damaged(&answer.body) {
        return Err(Trouble::Divide(Why::new(Code::Answer, "a resource on the page is not in UTF-8")));
    }
    Bundle::read(&answer.body).ok_or_else(|| Trouble::Again(Why::new(Code::Answer, format!("the answer is not a Bundle{}", page::issue_shown(&answer.body)))))
}

fn next_page(pull: &Pull<'_>, from: &Url, bundle: &Bundle) -> Result<Option<Ask>, Trouble> {
    let next = next_address(pull.source, from, bundle).map_err(Trouble::Gap)?;
    Ok(next.map(|url| Ask { url, form: None }))
}
