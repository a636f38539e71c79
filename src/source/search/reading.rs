//! Reading a query to its end, whatever its pages do. What is cut, shifts or breaks is read again, or in parts; what stays
//! doubtful is a gap with its reason.

use super::ask::{Ask, parameters};
use super::page::{self, Bundle, Item};
use super::part::Part;
use super::{Refusal, Task};
use crate::http::{HttpError, Origin, Response};
use crate::source::duty::{Code, Why};
use crate::source::filter::Filter;
use crate::source::intake::{Reason, tombstone};
use crate::source::ledger::Unit;
use crate::source::pull::{Pull, Receiving};
use crate::source::{Source, SourceError};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use url::Url;

/// Pages of one query.
const PAGES_MAX: usize = 100_000;
/// Times a query is begun again when its paging breaks.
const RESTARTS_MAX: u32 = 2;
/// Parts of one query.
const PARTS_MAX: u32 = 20_000;
/// Parts in a row that fail before the server is left in peace: one bad resource in a second of many years takes about forty.
const FAILURES_MAX: u32 = 64;
/// Readings of a query whose pages shift.
const PASSES_MAX: u32 = 4;
/// Resources of one reading that are remembered to notice repeated ones: about 20 MB.
const REMEMBERED_MAX: usize = 1_000_000;
/// A result of exactly so many, or a multiple, may have been cut: the server is asked how many there are.
const ROUND: u64 = 50;
/// The same, so likely cut that it is not believed when the server does not say how many there are and parts cannot be read.
const VERY_ROUND: u64 = 1_000;
/// Reasons of parts that are shown.
const REASONS_MAX: usize = 5;

/// A query as it was read.
pub(super) struct Read {
    /// What to record.
    pub unit: Unit,
    /// Why the server would not search at all.
    pub refused: Option<Refusal>,
}

/// Why a part could not be read to its end.
enum Trouble {
    /// The paging broke: begin again.
    Again(Why),
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

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Trouble {
        Trouble::Fatal(error)
    }
}

impl From<HttpError> for Trouble {
    fn from(error: HttpError) -> Trouble {
        match error {
            HttpError::Token(_) | HttpError::Unauthorized { .. } | HttpError::NotNow(_) => Trouble::Fatal(error.into()),
            HttpError::TooLarge { .. } => Trouble::Divide(error.into()),
            other => Trouble::Gap(other.into()),
        }
    }
}

/// Which resources came, without keeping them.
#[derive(Default)]
struct Tally {
    seen: HashSet<u64>,
    distinct: u64,
    repeated: u64,
    /// Equal for the same resources in any order.
    digest: u64,
}

impl Tally {
    fn note(&mut self, resource_type: &str, id: &str, hash: &[u8; 32]) {
        let key = crate::store::sha256_hex(format!("{resource_type}/{id}").as_bytes());
        let key = u64::from_str_radix(key.get(..16).unwrap_or_default(), 16).unwrap_or_default();
        if self.seen.len() < REMEMBERED_MAX && !self.seen.insert(key) {
            self.repeated += 1;
            return;
        }
        self.distinct += 1;
        let content = hash.iter().take(8).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        self.digest ^= key.rotate_left(17) ^ content;
    }
}

/// What is remembered while the pages of one part are read.
#[derive(Default)]
struct Walk {
    addresses: BTreeSet<String>,
    contents: BTreeSet<String>,
    tally: Tally,
    /// Matches, copies included: on the present page, and the most on any.
    on_page: u64,
    most: u64,
    total: Option<u64>,
    ignored: BTreeSet<String>,
    complaint: Option<Why>,
    shifted: bool,
    /// The first page was asked for by POST.
    posted: bool,
}

/// How a part is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Pages are followed.
    Whole,
    /// One page must do.
    OnePage,
}

/// Reads a task to its end.
pub(super) async fn read(pull: &Pull<'_>, task: &Task<'_>, members: Option<&BTreeSet<String>>) -> Result<Read, SourceError> {
    let from = pull.since.filter(|_| task.since && task.query.incremental);
    let whole = Part { patients: task.patients.clone(), from, until: None, by_time: task.query.incremental };
    let (mut restarts, mut short) = (0, false);
    loop {
        let mut reading = Reading::new(pull, task, members)?;
        match reading.part(&whole, Manner::Whole).await {
            Ok(()) => return reading.finish(None, None),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Gap(reason)) => return reading.finish(Some(reason), None),
            Err(Trouble::Refused(refusal)) => return reading.finish(Some(refusal.reason.clone()), Some(refusal)),
            Err(Trouble::Short(reason)) if short => return reading.finish(Some(reason), None),
            Err(Trouble::Short(_)) => short = true,
            Err(Trouble::Again(reason)) if restarts == RESTARTS_MAX => return reading.finish(Some(reason), None),
            Err(Trouble::Again(_)) => restarts += 1,
            Err(Trouble::Divide(reason)) if whole.halves(None, pull.clock.now()).is_none() => return reading.finish(Some(reason), None),
            Err(Trouble::Divide(reason)) => return in_parts(reading, &whole, reason, false).await,
            Err(Trouble::Doubt(came)) if whole.halves(None, pull.clock.now()).is_none() => return reading.finish(cut_at(came), None),
            Err(Trouble::Doubt(came)) => {
                let reason = Why::new(Code::Cut, format!("exactly {came} came, and the server does not say how many there are"));
                return in_parts(reading, &whole, reason, false).await;
            }
            Err(Trouble::Shifted(reason)) => return in_parts(reading, &whole, reason, true).await,
        }
        pull.clock.sleep(pull.source.wait(restarts.max(1))).await;
    }
}

/// Reads a query in parts, because reading it at once met `reason`. Where pages shifted, two readings must agree.
async fn in_parts(first: Reading<'_>, whole: &Part, reason: Why, shifted: bool) -> Result<Read, SourceError> {
    let (pull, task, members) = (first.pull, first.task, first.members);
    tracing::info!(pull = pull.id.0, query = %task.query.name, %reason, "read in parts");
    let (announced, mut digest, mut times) = (first.receiving.unit.expected, first.all.digest, first.times);
    // Its staged file is written anew.
    drop(first);
    let mut pass = 1;
    loop {
        let mut reading = Reading::new(pull, task, members)?;
        reading.times = times;
        let mut reasons = reading.parts(whole, shifted).await?;
        reading.receiving.unit.expected = announced;
        let agrees = !shifted || digest == reading.all.digest;
        if announced.is_some_and(|announced| reading.all.distinct < announced) {
            reasons.push(reason.clone().put(|reason| format!("{reason}; in parts {} came", reading.all.distinct)));
        } else if !agrees && pass == PASSES_MAX {
            reasons.push(reason.clone().put(|reason| format!("{reason}; no two of {PASSES_MAX} further readings agree")));
        }
        if !reasons.is_empty() || agrees {
            return reading.finish(joined(&reasons), None);
        }
        (digest, times, pass) = (reading.all.digest, reading.times, pass + 1);
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
    entries: u64,
    /// Whether failures are sat out.
    patient: bool,
}

impl<'a> Reading<'a> {
    fn new(pull: &'a Pull<'a>, task: &'a Task<'a>, members: Option<&'a BTreeSet<String>>) -> Result<Reading<'a>, SourceError> {
        let unit = task.unit();
        let filter = Filter::of(
            task.query
                .parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .chain(task.category.map(|category| ("category", category))),
        );
        Ok(Reading { pull, task, members, receiving: pull.receive(unit, members)?, filter, all: Tally::default(), times: None, entries: 0, patient: true })
    }

    fn finish(self, gap: Option<Why>, refused: Option<Refusal>) -> Result<Read, SourceError> {
        Ok(Read { unit: self.receiving.finish(gap)?, refused })
    }

    /// Reads the parts of a query, dividing further what is still in trouble. Gives the reasons of those that stay so.
    async fn parts(&mut self, whole: &Part, shifted: bool) -> Result<Vec<Why>, SourceError> {
        let now = self.pull.clock.now();
        let mut waiting = vec![(whole.clone(), false)];
        if let Some([older, newer]) = whole.halves(self.times, now) {
            waiting = vec![(newer, false), (older, false)];
        }
        let (mut reasons, mut parts, mut failures) = (Vec::new(), 0, 0);
        // The older first: what changes meanwhile moves to a part that is still to come.
        while let Some((part, patient)) = waiting.pop() {
            parts += 1;
            if parts > PARTS_MAX || failures > FAILURES_MAX {
                reasons.push(Why::new(Code::Failing, format!("given up after {parts} parts")));
                break;
            }
            let halves = part.halves(self.times, now);
            // What fails is divided at once; the smallest part that fails gets every chance.
            self.patient = patient || halves.is_none();
            let manner = if shifted && halves.is_some() { Manner::OnePage } else { Manner::Whole };
            let trouble = match self.part(&part, manner).await {
                Ok(()) => {
                    failures = 0;
                    continue;
                }
                Err(trouble) => trouble,
            };
            failures += 1;
            match (trouble, halves) {
                (Trouble::Fatal(error), _) => return Err(error),
                // Two readings of everything decide.
                (Trouble::Shifted(_), None) => {}
                (Trouble::Doubt(came), None) => reasons.extend(cut_at(came)),
                (Trouble::Again(_) | Trouble::Divide(_) | Trouble::Doubt(_) | Trouble::Shifted(_), Some([older, newer])) => waiting.extend([(newer, false), (older, false)]),
                (Trouble::Gap(_), _) if !self.patient => waiting.push((part, true)),
                (Trouble::Refused(Refusal { reason, .. }) | Trouble::Gap(reason) | Trouble::Short(reason) | Trouble::Again(reason) | Trouble::Divide(reason), _) => {
                    let shown = part.to_string();
                    reasons.push(if shown.is_empty() { reason } else { reason.put(|reason| format!("{shown}: {reason}")) });
                }
            }
        }
        Ok(reasons)
    }

    /// Reads one part, page by page.
    async fn part(&mut self, part: &Part, manner: Manner) -> Result<(), Trouble> {
        let (first, answer) = self.first_page(part).await?;
        let mut walk = Walk { posted: first.form.is_some(), ..Walk::default() };
        walk.addresses.insert(first.digest());
        let mut bundle = read_page(&answer)?;
        let sent = parameters(self.task, part);
        walk.total = bundle.total();
        walk.ignored = bundle.ignored(&answer.url, sent.iter().map(|(name, _)| name.as_str()));
        if !walk.ignored.is_empty() && self.pull.habits.types(|types| types.ignoring.insert(self.task.query.name.clone())) {
            tracing::warn!(query = %self.task.query.name, ignored = ?walk.ignored, "the server ignored parameters; applied here where that is possible");
        }
        let unit = &mut self.receiving.unit;
        unit.server_time = unit.server_time.or_else(|| Some(answer.date().unwrap_or_else(|| self.pull.clock.now())));
        unit.expected = unit.expected.or(walk.total);
        self.take_page(&bundle, part, &mut walk)?;
        let mut next = next_page(self.pull, &answer.url, &bundle)?;
        if next.is_some() && manner == Manner::OnePage {
            return Err(Trouble::Divide(Why::new(Code::Paging, "more than one page")));
        }
        while let Some(ask) = next {
            if !walk.addresses.insert(ask.digest()) {
                return Err(Trouble::Gap(Why::new(Code::Paging, "the server's paging leads in a circle")));
            }
            if walk.addresses.len() > PAGES_MAX {
                return Err(Trouble::Gap(Why::new(Code::Paging, format!("more than {PAGES_MAX} pages"))));
            }
            let answer = self.further_page(&ask, &first).await?;
            bundle = read_page(&answer)?;
            self.take_page(&bundle, part, &mut walk)?;
            next = next_page(self.pull, &answer.url, &bundle)?;
        }
        self.judge(part, walk).await
    }

    /// The first page, asked for as this server takes it.
    async fn first_page(&self, part: &Part) -> Result<(Ask, Response), Trouble> {
        let habits = &self.pull.habits;
        let mut parameters = parameters(self.task, part);
        parameters.push(("_count".to_owned(), self.page_size().to_string()));
        let ask = |by_post| Ask::first(self.pull, &parameters, &self.task.query.resource_type, by_post);
        let may_post = !habits.no_post.load(Ordering::Relaxed);
        let (mut by_post, mut post_refused) = (may_post && (self.task.names_patients() || ask(false)?.is_long()), false);
        let mut strict = !habits.lenient.load(Ordering::Relaxed);
        loop {
            let ask = ask(by_post)?;
            if !by_post && ask.is_long() {
                return Err(Trouble::Divide(Why::new(Code::Refused, "the search's address is too long")));
            }
            let answer = ask.send(self.pull, strict, self.patient).await?;
            match answer.status {
                200..=299 => {
                    habits.no_post.fetch_or(post_refused, Ordering::Relaxed);
                    habits.lenient.fetch_or(!strict, Ordering::Relaxed);
                    return Ok((ask, answer));
                }
                403 | 404 | 405 | 415 | 501 if by_post => (by_post, post_refused) = (false, true),
                414 | 431 if !by_post && may_post && !post_refused => by_post = true,
                400 | 422 if strict && page::issue_code(&answer.body).as_deref() != Some("required") => strict = false,
                _ => return Err(refused(&answer)),
            }
        }
    }

    /// A further page by its link; by POST where the first one came so or the link is too long.
    async fn further_page(&self, ask: &Ask, first: &Ask) -> Result<Response, Trouble> {
        let mut answer = ask.send(self.pull, false, self.patient).await?;
        if ask.is_long() && matches!(answer.status, 400 | 404 | 414 | 431) {
            answer = ask.posted().send(self.pull, false, self.patient).await?;
        }
        if let (Some(form), 400 | 404 | 405) = (&first.form, answer.status) {
            answer = Ask { url: ask.url.clone(), form: Some(form.clone()) }.send(self.pull, false, self.patient).await?;
            // Begun again, the search is sent in its address.
            self.pull.habits.no_post.fetch_or(!answer.is_success(), Ordering::Relaxed);
        }
        match answer.status {
            200..=299 => Ok(answer),
            414 | 431 => Err(Trouble::Divide(answered(&answer))),
            401 | 403 => Err(Trouble::Gap(answered(&answer))),
            // An expired page: 404, 410 and some servers' 400 or 500.
            _ => Err(Trouble::Again(answered(&answer))),
        }
    }

    fn page_size(&self) -> u32 {
        self.pull.source.options.page_size.max(1)
    }

    /// Takes a page's entries.
    fn take_page(&mut self, bundle: &Bundle, part: &Part, walk: &mut Walk) -> Result<(), Trouble> {
        let aliases = bundle.aliases();
        let mut content: Vec<u8> = Vec::new();
        walk.on_page = 0;
        for item in bundle.items(&self.task.query.resource_type) {
            self.entries += 1;
            match item {
                Item::Empty => {
                    walk.on_page += 1;
                    [&mut walk.tally, &mut self.all].into_iter().for_each(|tally| tally.distinct += 1);
                    self.receiving.unit.received += 1;
                    self.receiving.refuse(Reason::NoResource, None, b"", 0, self.entries)?;
                }
                Item::Deleted(resource_type, id) => self.receiving.take_removal(&tombstone(resource_type, id))?,
                Item::Outcome(json) => {
                    walk.shifted |= page::has_shifted(json);
                    walk.complaint = walk.complaint.take().or_else(|| page::worst_issue(json));
                }
                Item::Include(json, named) => {
                    if self.pull.plan.types.contains(&named) {
                        self.receiving.take_of(json.as_bytes(), self.entries, &aliases)?;
                    }
                }
                Item::Match(json) => {
                    walk.on_page += 1;
                    content.extend(self.take_match(json, part, walk, &aliases)?.into_iter().flatten());
                }
            }
        }
        walk.most = walk.most.max(walk.on_page);
        if content.is_empty() || walk.contents.insert(crate::store::sha256_hex(&content)) {
            return Ok(());
        }
        let reason = Why::new(Code::Paging, "the server repeats a page");
        // A server may take a further page that was posted for the search itself.
        Err(if walk.posted && !self.pull.habits.no_post.swap(true, Ordering::Relaxed) { Trouble::Again(reason) } else { Trouble::Gap(reason) })
    }

    /// Takes a match, unless it is not what was asked for. Gives its hash.
    fn take_match(&mut self, json: &str, part: &Part, walk: &mut Walk, aliases: &BTreeMap<String, String>) -> Result<Option<[u8; 32]>, Trouble> {
        let asked = part.patients.as_ref().filter(|_| self.task.is_by_id());
        let is_other = asked.is_some_and(|ids| page::id_of(json).is_some_and(|id| !ids.contains(&id)));
        if is_other || !self.filter.keeps(json.as_bytes(), &walk.ignored) {
            let id = page::id_of(json).unwrap_or_default();
            [&mut walk.tally, &mut self.all].into_iter().for_each(|tally| tally.note(&self.task.query.resource_type, &id, &[0; 32]));
            return Ok(None);
        }
        let Some(taken) = self.receiving.take_of(json.as_bytes(), self.entries, aliases)? else {
            // What is refused may have no name by which it could be known again.
            [&mut walk.tally, &mut self.all].into_iter().for_each(|tally| tally.distinct += 1);
            return Ok(None);
        };
        [&mut walk.tally, &mut self.all].into_iter().for_each(|tally| tally.note(&taken.resource_type, &taken.id, &taken.hash));
        if let Some(updated) = taken.updated.and_then(|at| Timestamp::from_microsecond(at).ok()) {
            let (first, last) = self.times.unwrap_or((updated, updated));
            self.times = Some((first.min(updated), last.max(updated)));
        }
        Ok(Some(taken.hash))
    }

    /// Whether what came may be all. A total is a reason for alarm, and so is an end that looks like a cut; the server is
    /// asked for a count only then, in a request of its own: counting with the search breaks the paging of some.
    async fn judge(&self, part: &Part, walk: Walk) -> Result<(), Trouble> {
        if let Some(complaint) = walk.complaint {
            return Err(Trouble::Gap(complaint));
        }
        if walk.shifted {
            return Err(Trouble::Shifted(Why::new(Code::Paging, "the server says that its pages have shifted")));
        }
        if walk.tally.repeated > 0 && walk.addresses.len() > 1 {
            return Err(Trouble::Shifted(Why::new(Code::Paging, format!("the server's pages repeat {} entries", walk.tally.repeated))));
        }
        let came = walk.tally.distinct;
        let ends_full = walk.on_page > 0 && (walk.on_page >= u64::from(self.page_size()) || (walk.addresses.len() > 1 && walk.on_page >= walk.most));
        let looks_cut = came > 0 && (ends_full || came.is_multiple_of(ROUND));
        let announced = |total: u64| Why::new(Code::Announced, format!("the server announced {total} and sent {came}"));
        match walk.total {
            Some(total) if came < total && looks_cut => Err(Trouble::Divide(announced(total))),
            Some(total) if came < total => Err(Trouble::Short(announced(total))),
            None if looks_cut => match self.count(part).await? {
                Some(total) if came < total => Err(Trouble::Divide(Why::new(Code::Announced, format!("the server has {total} and sent {came}")))),
                None => Err(Trouble::Doubt(came)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// How many match, by a request that asks for nothing else; `None` if the server does not say.
    async fn count(&self, part: &Part) -> Result<Option<u64>, Trouble> {
        let mut parameters = parameters(self.task, part);
        parameters.push(("_summary".to_owned(), "count".to_owned()));
        let by_post = self.task.names_patients() && !self.pull.habits.no_post.load(Ordering::Relaxed);
        let ask = Ask::first(self.pull, &parameters, &self.task.query.resource_type, by_post)?;
        match ask.send(self.pull, false, false).await.map_err(Trouble::from) {
            Ok(answer) => Ok(page::counted(&answer)),
            Err(Trouble::Fatal(error)) => Err(Trouble::Fatal(error)),
            Err(_) => Ok(None),
        }
    }
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

/// The reason of a gap where a very round number came that nothing explains.
fn cut_at(came: u64) -> Option<Why> {
    let reason = format!("exactly {came} came, as when a server cuts a result; it does not say how many there are, and cannot be asked in parts");
    came.is_multiple_of(VERY_ROUND).then(|| Why::new(Code::Cut, reason))
}

fn answered(answer: &Response) -> Why {
    Why::new(Code::of_status(answer.status), format!("the server answered {}{}", answer.status, page::issue_shown(&answer.body)))
}

fn read_page(answer: &Response) -> Result<Bundle, Trouble> {
    Bundle::read(&answer.body).ok_or_else(|| Trouble::Again(Why::new(Code::Answer, format!("the answer is not a Bundle{}", page::issue_shown(&answer.body)))))
}

fn next_page(pull: &Pull<'_>, from: &Url, bundle: &Bundle) -> Result<Option<Ask>, Trouble> {
    let next = next_address(pull.source, from, bundle).map_err(Trouble::Gap)?;
    Ok(next.map(|url| Ask { url, form: None }))
}

/// The address of the next page. It is the server's to make; ours is only to see whose it is.
pub(in crate::source) fn next_address(source: &Source, from: &Url, bundle: &Bundle) -> Result<Option<Url>, Why> {
    let Some(address) = bundle.link("next") else { return Ok(None) };
    let Ok(mut url) = from.join(address) else {
        return Err(Why::new(Code::Paging, "the server's link to the next page is not an address"));
    };
    let (home, away) = (Origin::of(&source.base), Origin::of(&url));
    if home != away {
        let known = source.options.internal_origins.iter().filter_map(|written| Origin::of(&Url::parse(written).ok()?));
        let shown = away.as_ref().map_or_else(|| "an address that is not http".to_owned(), ToString::to_string);
        if !known.map(Some).any(|own| own == away) || !move_to(&mut url, &source.base) {
            let reason = format!(
                "the server's next page is at another origin, {shown}, where our token must not go; if that is the same server behind its proxy, name it in `source.internal_origins`"
            );
            return Err(Why::new(Code::InternalOrigin, reason));
        }
    }
    Ok(Some(url))
}

/// Gives an address the scheme, host and port of another; path and query stay as they are.
fn move_to(url: &mut Url, home: &Url) -> bool {
    url.set_scheme(home.scheme()).is_ok() && url.set_host(home.host_str()).is_ok() && url.set_port(home.port()).is_ok()
}
