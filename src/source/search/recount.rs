//! After a night of changes: what the server counts of each type, beside what is known then. A deletion that nobody announces, a row
//! that becomes visible late, a code that is not asked for any more and data that got new ids are in no change. Where the numbers
//! differ, the times of change in which they do are read again, and what does not come is gone. After a reading of everything the same is
//! done of what changed while it was read.

use super::ask::try_post;
use super::census::{self, PATIENTS_PER_COUNT, VANISHED_MAX, once};
use super::deleted::Named;
use super::lists;
use super::part::{Span, instant};
use super::refer::hash_of;
use super::sample::{self, Urn, lot};
use super::{Task, run_tasks, tasks_of};
use crate::diagnostic::counted;
use crate::snapshot::Header;
use crate::source::SourceError;
use crate::source::account::VOLUME_MIN;
use crate::source::bulk;
use crate::source::duty::{Code, Why};
use crate::source::identified;
use crate::source::intake::tombstone;
use crate::source::ledger::{self, Recorded, Unit};
use crate::source::plan::Query;
use crate::source::pull::{Pull, foreseeable};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Resources of which one request asks by their ids.
pub(super) const IDS_PER_QUERY: usize = 50;
/// Codes of a type that are counted each by itself.
const CODES_MAX: usize = 12;
/// Times that the whole of a type is read again before everything is.
const WHOLE_MAX: u64 = 2;
/// Stretches of time in which a larger one is counted after it changed while it was read.
const STRETCHES: usize = 32;
/// Pages of a type that may be read as often as it takes.
const PAGES_LITTLE: u64 = 10;

/// A type that is counted, of everybody or of some patients at a time.
pub(super) struct Subject {
    pub resource_type: String,
    pub queries: Vec<Query>,
    /// Of whom it was asked for; `None`: of all.
    whom: Option<BTreeSet<String>>,
    /// When its reading began: what is entered later is the next night's. `None` where the server cannot be asked so.
    pub until: Option<Timestamp>,
    /// The number of this pull since everything was read.
    pub night: u64,
    /// Patients of whom one question asks.
    at_once: usize,
}

/// What is known of a type.
pub(super) struct Known {
    /// Of each batch of patients how many changed before the reading began.
    until: Vec<u64>,
    /// And in all.
    pub all: Vec<u64>,
    /// What samples are drawn from.
    pub urn: Urn,
}

impl Known {
    fn none(batches: usize, urn: Urn) -> Known {
        Known { until: vec![0; batches], all: vec![0; batches], urn }
    }

    /// How many changed before the reading began.
    pub fn sum(&self) -> u64 {
        self.until.iter().sum()
    }
}

/// How many the server counts, by several queries at least and at most.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub least: u64,
    pub most: u64,
}

/// Where what differs is looked for.
#[derive(Clone, Copy)]
pub(super) enum Places {
    /// In the times of change of which the numbers differ.
    Differing,
    /// The same, where these differ before an instant and since, and are right together.
    Around(Timestamp),
    /// In so many stretches of time, each counted by itself: as many may lack as are too many.
    Stretches(usize),
    /// Everywhere.
    Everywhere,
}

impl Number {
    /// Whether these can be so many, of which some are refused here and not stored.
    fn agrees(self, known: u64, refused: u64) -> bool {
        self.least <= known.saturating_add(refused) && known <= self.most
    }
}

impl Subject {
    /// The patients in an order of this night: who is counted together with whom changes, so that what is missed of one does not hide
    /// for long what vanished of another.
    fn patients(&self) -> Vec<&String> {
        let mut patients: Vec<&String> = self.whom.iter().flatten().collect();
        patients.sort_by_cached_key(|id| lot(self.night, id));
        patients
    }

    pub fn batches(&self) -> Vec<Option<Vec<String>>> {
        if self.whom.is_none() {
            return vec![None];
        }
        self.patients().chunks(self.at_once).map(|some| Some(some.iter().map(|id| (*id).clone()).collect())).collect()
    }

    /// The batch of each patient, where there are batches.
    fn places(&self) -> HashMap<&str, usize> {
        self.patients().into_iter().enumerate().map(|(number, id)| (id.as_str(), number / self.at_once)).collect()
    }

    /// The same, asked for by ids.
    pub fn by_id(&self) -> Subject {
        let by_id = |query: &Query| Query { by_patient: Some("_id".to_owned()), incremental: false, ..query.clone() };
        let queries = self.queries.iter().map(by_id).collect();
        Subject { resource_type: self.resource_type.clone(), queries, whom: None, until: None, ..*self }
    }

    /// The times before the reading began.
    pub fn span(&self) -> Span {
        Span { from: None, until: self.until }
    }

    /// The times since.
    fn after(&self) -> Span {
        Span { from: self.until, until: None }
    }

    /// How many the server counts; each round asks anew. `None` if it does not say.
    pub async fn number(&self, pull: &Pull<'_>, batch: Option<&[String]>, span: Span, round: &str) -> Result<Option<Number>, SourceError> {
        let mut number = Number { least: 0, most: 0 };
        for query in &self.queries {
            let from = span.from.map(|from| format!("ge{}", instant(from)));
            let more: Vec<(&str, &str)> = from.iter().map(|from| ("_lastUpdated", from.as_str())).collect();
            let asked = format!("{round} {query:?} {batch:?} {span:?}");
            let counted = once(pull, &self.resource_type, &asked, census::ask(pull, query, batch, span.until, &more)).await?;
            let Some(counted) = counted else { return Ok(None) };
            number = Number { least: number.least.max(counted), most: number.most.saturating_add(counted) };
        }
        Ok(Some(number))
    }
}

/// Counts what changes were asked of, and reads again what differs.
pub(in crate::source) async fn take(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    look_at_clock(pull)?;
    let subjects = subjects(pull)?;
    try_post(pull, subjects.iter().flat_map(|subject| subject.whom.iter().flatten())).await?;
    let mut uncounted = Vec::new();
    let known = known(pull, &subjects)?;
    for (mut subject, mut known) in subjects.into_iter().zip(known) {
        let Some(some) = known.all.iter().position(|known| *known > 0) else { continue };
        let patients = subject.batches().into_iter().nth(some).flatten();
        subject.queries = by_code(pull, subject.queries, patients.as_deref()).await?;
        let mut found = differing(pull, &subject, &known, "first").await?;
        if let Some(at_once) = heeded(pull, &subject, found.as_deref().unwrap_or_default()).await? {
            subject.at_once = at_once;
            known = known_of(pull, &subject)?;
            found = differing(pull, &subject, &known, "first").await?;
        }
        if found.as_ref().is_some_and(|batches| !batches.is_empty()) && let_go_by_export(pull, &subject).await? {
            known = known_of(pull, &subject)?;
            found = differing(pull, &subject, &known, "export").await?;
        }
        match found {
            None => uncounted.push((subject, known)),
            Some(batches) if batches.is_empty() => sample::look(pull, &subject, &known).await?,
            Some(batches) => again(pull, &subject, &batches, Places::Differing).await?,
        }
    }
    uncounted.into_iter().try_for_each(|(subject, known)| tell_uncounted(pull, &subject, &known))
}

/// After a reading of everything by search: what changed meanwhile stood on pages that were read already, or on none. Where as many are
/// there unchanged as its first page announced, nothing did; else what has changed since is read too, and, as a page by number lacks what
/// moved to the one before it, all of a type of few pages, or the times of change of which the numbers differ.
pub(in crate::source) async fn settle(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    if pull.plan.export.is_some() {
        return Ok(());
    }
    // What came meanwhile may be named as deleted.
    pull.habits.named = Named::default();
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    // Of what was refused in part nothing is let go, and it would be refused again.
    let is_refused = |name: &str| units.iter().any(|unit| unit.resource_type == name && unit.quarantined + unit.discarded > 0);
    let is_settled = |subject: &Subject| subject.until.is_some() && subject.whom.is_none() && !is_refused(&subject.resource_type);
    for mut subject in subjects(pull)?.into_iter().filter(is_settled) {
        subject.queries = by_code(pull, subject.queries, None).await?;
        let Some(announced) = announced(pull, &subject).await? else {
            let changed = subject.number(pull, None, subject.after(), "settle").await?;
            if changed.is_some_and(|number| number.most > 0) {
                read(pull, &subject, &[], subject.after()).await?;
            }
            continue;
        };
        let unchanged = subject.number(pull, None, subject.span(), "settle").await?;
        if unchanged.is_none_or(|number| number.agrees(announced, 0)) {
            continue;
        }
        let is_little = announced <= u64::from(pull.source.options.page_size).saturating_mul(PAGES_LITTLE);
        let is_one = subject.queries.len() == 1;
        match (is_little, is_one) {
            (true, _) => again(pull, &subject, &[0], Places::Everywhere).await?,
            (false, true) => again(pull, &subject, &[0], Places::Stretches(STRETCHES)).await?,
            (false, false) => read(pull, &subject, &[], subject.after()).await?,
        }
    }
    Ok(())
}

/// How many of a type the first pages of all its queries said that there are.
async fn announced(pull: &Pull<'_>, subject: &Subject) -> Result<Option<u64>, SourceError> {
    let name = subject.resource_type.as_str();
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    // Of a reading that was recorded in pieces the last one has the number.
    let of_query = |query: &Query| {
        let told: Vec<u64> = units
            .iter()
            .filter(|unit| unit.resource_type == name && unit.query == query.name)
            .filter_map(|unit| unit.expected)
            .collect();
        (!told.is_empty()).then(|| told.iter().sum::<u64>())
    };
    let sum = async { Ok(subject.queries.iter().map(of_query).sum()) };
    // As it was before anything was read again.
    let about = format!("announced {name}");
    census::kept(pull, name, (&format!("count {about}"), &about), sum).await
}

/// Of how many patients the server can be asked at once, where that turns out to be fewer than it was.
async fn heeded(pull: &Pull<'_>, subject: &Subject, differing: &[usize]) -> Result<Option<usize>, SourceError> {
    let batch = differing.first().and_then(|place| subject.batches().get(*place).cloned().flatten());
    let (Some(batch), Some(query)) = (batch, subject.queries.iter().find(|query| query.by_patient.is_some())) else { return Ok(None) };
    let at_once = lists::heeded(pull, query, &batch).await?;
    Ok((at_once < batch.len()).then_some(at_once))
}

/// Changes from an instant that is still to come by the server's clock were asked for in vain, and may have been in earlier nights.
fn look_at_clock(pull: &Pull<'_>) -> Result<(), SourceError> {
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    let latest = units.iter().filter_map(|unit| unit.server_time).max();
    let (Some(since), Some(now)) = (pull.since, latest.filter(|now| pull.since.is_some_and(|since| *now < since))) else { return Ok(()) };
    let reason = format!("changes were asked for from {} on, and by the server's clock it is {}", instant(since), instant(now));
    let why = Some(Why::new(Code::Clock, reason));
    pull.record(&Unit { name: "clock".to_owned(), resource_type: "*".to_owned(), query: "clock".to_owned(), gap: why, ..Unit::default() })
}

/// What can be counted: not what is known not to be all, nor what has no ids of its own.
fn subjects(pull: &Pull<'_>) -> Result<Vec<Subject>, SourceError> {
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    let standing = ledger::standing(pull.snapshot.store(), &pull.source.name(), &pull.plan.digest(), &[Code::Counted])?;
    let mut by_type: BTreeMap<String, Vec<Query>> = BTreeMap::new();
    for query in census::questions(pull.plan, &pull.source.capability) {
        by_type.entry(query.resource_type.clone()).or_default().push(query);
    }
    by_type.retain(|name, queries| {
        let is_whole = !units.iter().any(|unit| unit.gap.is_some() && (unit.resource_type == *name || unit.resource_type == "*"));
        let is_taken = |query: &Query| query.by_patient.as_ref().is_none_or(|parameter| pull.source.capability.declares(name, parameter) != Some(false));
        let is_known = !standing.iter().any(|one| one.resource_type == *name && !one.is_accepted);
        // What is read whole each night is counted as where everything is.
        let is_timed = !pull.plan.is_untimed(name);
        is_timed && is_whole && is_known && queries.iter().all(is_taken) && !pull.source.options.unstable_ids.contains(name)
    });
    let night = ledger::pulls_since_full(pull.snapshot.store(), &pull.source.name(), &pull.plan.digest())? + 1;
    Ok(by_type
        .into_iter()
        .filter_map(|(resource_type, queries)| subject(pull, &units, resource_type, queries, night))
        .collect())
}

/// A question for each code of a query where the server heeds no list of them, and they are few. What has several of the codes is
/// counted with each. Lists are tried of these patients, some of whom have something.
async fn by_code(pull: &Pull<'_>, queries: Vec<Query>, patients: Option<&[String]>) -> Result<Vec<Query>, SourceError> {
    let mut found = Vec::new();
    let at_once = pull.source.options.tuning.patients_per_query;
    for query in queries {
        if let Some(some) = patients.filter(|_| query.list_of_codes().is_some()) {
            lists::try_out(pull, &query, some.get(..at_once).unwrap_or(some)).await?;
        }
        match super::codes_to_ask_singly(pull, &query, patients).await?.filter(|codes| codes.len() <= CODES_MAX) {
            Some(codes) => found.extend(codes.iter().enumerate().map(|(number, code)| super::of_code(&query, number, code))),
            None => found.push(query),
        }
    }
    Ok(found)
}

fn subject(pull: &Pull<'_>, units: &[Recorded], resource_type: String, queries: Vec<Query>, night: u64) -> Option<Subject> {
    let later = pull.later.get(&resource_type).map(|asked| asked.covered.clone());
    let by_time = pull.source.capability.declares(&resource_type, "_lastUpdated") == Some(true);
    let is_later = later.is_some();
    let queries: Vec<Query> = queries
        .into_iter()
        .map(|query| Query { by_patient: if is_later { query.later.clone() } else { query.by_patient.clone() }, incremental: by_time, ..query })
        .collect();
    let is_of_some = queries.iter().any(|query| query.by_patient.is_some());
    let whom = later.or_else(|| pull.members.clone()).filter(|_| is_of_some);
    // Whose it is to be is not known.
    if is_of_some && whom.is_none() {
        return None;
    }
    let began = began(units, &resource_type).filter(|_| by_time);
    let until = began.and_then(|began| Timestamp::from_millisecond(began.as_millisecond()).ok());
    let by = queries.iter().find_map(|query| query.by_patient.as_ref());
    let at_once = pull.habits.lists.at_once(&resource_type, by, PATIENTS_PER_COUNT);
    Some(Subject { resource_type, queries, whom, until, night, at_once })
}

/// Calls `each` for what will be known of some types after this pull: its subject, its batch and its header.
fn each_known(pull: &Pull<'_>, subjects: &[Subject], mut each: impl FnMut(usize, usize, &Header)) -> Result<(), SourceError> {
    let (files, reconcile) = foreseeable(pull)?;
    let foreseen = pull.snapshot.foresee(pull.id, &files, &reconcile)?;
    let types: HashMap<&str, usize> = subjects.iter().enumerate().map(|(number, subject)| (subject.resource_type.as_str(), number)).collect();
    let places: Vec<HashMap<&str, usize>> = subjects.iter().map(Subject::places).collect();
    foreseen.each_header(|header| {
        let Some(number) = types.get(header.resource_type.as_str()).copied().filter(|_| header.import.is_empty()) else { return };
        let is_of_all = subjects.get(number).is_some_and(|subject| subject.whom.is_none());
        let batch = if is_of_all { Some(0) } else { places.get(number).and_then(|places| places.get(header.patient.as_str()).copied()) };
        if let Some(batch) = batch {
            each(number, batch, header);
        }
    })?;
    Ok(())
}

fn known(pull: &Pull<'_>, subjects: &[Subject]) -> Result<Vec<Known>, SourceError> {
    let overlap = SignedDuration::from_mins(i64::from(pull.source.options.overlap_minutes));
    let asked = |subject: &Subject| pull.since_of(&subject.resource_type)?.checked_add(overlap).ok();
    let mut known: Vec<Known> = subjects.iter().map(|subject| Known::none(subject.batches().len(), Urn::after(asked(subject)))).collect();
    each_known(pull, subjects, |number, batch, header| {
        let (Some(known), Some(subject)) = (known.get_mut(number), subjects.get(number)) else { return };
        let is_before = subject.span().holds(header.updated);
        known.urn.take(subject.night, header, is_before);
        known.all.get_mut(batch).into_iter().for_each(|all| *all += 1);
        known.until.get_mut(batch).into_iter().for_each(|until| *until += u64::from(is_before));
    })?;
    Ok(known)
}

pub(super) fn known_of(pull: &Pull<'_>, subject: &Subject) -> Result<Known, SourceError> {
    let known = known(pull, std::slice::from_ref(subject))?;
    Ok(known.into_iter().next().unwrap_or_else(|| Known::none(0, Urn::default())))
}

/// The batches of which the server counts others than are known; `None` if it does not count.
async fn differing(pull: &Pull<'_>, subject: &Subject, known: &Known, round: &str) -> Result<Option<Vec<usize>>, SourceError> {
    let store = pull.snapshot.store();
    let batches = subject.batches();
    let mut numbers = Vec::new();
    for batch in &batches {
        let Some(number) = subject.number(pull, batch.as_deref(), subject.span(), round).await? else { return Ok(None) };
        numbers.push(number);
    }
    let theirs: u64 = numbers.iter().map(|number| number.least).sum();
    let kept = ledger::kept_difference(store, &pull.source.name(), &pull.plan.digest(), &kept_name(&subject.resource_type))?.filter(|kept| *kept != 0);
    if kept == Some(difference(theirs, known.sum())) {
        return Ok(Some(Vec::new()));
    }
    let refused = ledger::not_taken(store, &subject.resource_type)?;
    let mut differing = Vec::new();
    for (place, (number, batch)) in numbers.iter().zip(&batches).enumerate() {
        let own = |of: &Vec<u64>| of.get(place).copied().unwrap_or_default();
        let (before, all) = (own(&known.until), own(&known.all));
        let is_right = number.agrees(before, refused);
        if is_right && before == all {
            continue;
        }
        // By what changes meanwhile the number of what was there falls, and that of all there is does not.
        let of_all = if subject.until.is_some() { subject.number(pull, batch.as_deref(), Span::ALL, round).await? } else { None };
        let is_less = of_all.is_some_and(|number| number.most < all);
        if is_less || !is_right && !of_all.is_some_and(|number| number.agrees(all, refused)) {
            differing.push(place);
        }
    }
    if differing.is_empty() && kept.is_some() {
        keep(pull, subject, known.sum(), known)?;
    }
    Ok(Some(differing))
}

fn difference(theirs: u64, ours: u64) -> i64 {
    i64::try_from(i128::from(theirs) - i128::from(ours)).unwrap_or(i64::MAX)
}

/// Keeps the difference between the numbers, against which later ones are held.
fn keep(pull: &Pull<'_>, subject: &Subject, theirs: u64, known: &Known) -> Result<(), SourceError> {
    let name = kept_name(&subject.resource_type);
    pull.record(&Unit { received: known.sum(), ..ledger::count_unit(&name, &subject.resource_type, "what is kept", Some(theirs)) })
}

/// Name of the difference between the numbers that a reading of everything left.
pub(super) fn kept_name(resource_type: &str) -> String {
    format!("count kept {resource_type}")
}

/// Reads again what differs, and lets go what is not there any more.
pub(super) async fn again(pull: &mut Pull<'_>, subject: &Subject, differing: &[usize], places: Places) -> Result<(), SourceError> {
    tracing::info!(pull = pull.id.0, resource_type = %subject.resource_type, "the server counts others than are known: it is read again where that is so");
    if subject.until.is_some() {
        // What has changed since is no difference.
        read(pull, subject, differing, subject.after()).await?;
    }
    let mut spans = spans(pull, subject, places).await?;
    if spans == [Span::ALL] && !may_read_whole(pull, subject)? {
        return Ok(());
    }
    for span in &spans {
        read(pull, subject, differing, *span).await?;
    }
    if has_gap(pull, &subject.resource_type)? {
        return Ok(());
    }
    let is_whole = spans == [Span::ALL];
    spans.extend((subject.until.is_some() && !is_whole).then(|| subject.after()));
    let mut gone = missed(pull, subject, differing, &spans)?;
    if !is_whole && !gone.is_empty() {
        // What changed meanwhile is at another time, and there.
        read_by_id(pull, subject, &gone).await?;
        gone = missed(pull, subject, differing, &spans)?;
    }
    let_go(pull, subject, "again gone", &gone)?;
    if has_gap(pull, &subject.resource_type)? { Ok(()) } else { judge(pull, subject).await }
}

/// When the reading of a type began, by the server's clock.
pub(super) fn began(units: &[Recorded], resource_type: &str) -> Option<Timestamp> {
    units.iter().filter(|unit| unit.resource_type == resource_type).filter_map(|unit| unit.server_time).min()
}

/// Whether the whole of a type is read again: a large one only so often between two readings of everything, however much a server
/// changes without a word. Else a gap says so.
fn may_read_whole(pull: &Pull<'_>, subject: &Subject) -> Result<bool, SourceError> {
    let (store, name, digest) = (pull.snapshot.store(), pull.source.name(), pull.plan.digest());
    let (resource_type, unit) = (subject.resource_type.as_str(), format!("count whole {}", subject.resource_type));
    let stored = pull.snapshot.counts()?.get(resource_type).copied().unwrap_or_default();
    if stored <= u64::from(pull.source.options.page_size).saturating_mul(PAGES_LITTLE) {
        return Ok(true);
    }
    let before = ledger::since_full(store, &name, &digest, &unit)?;
    if before < WHOLE_MAX {
        pull.record(&ledger::count_unit(&unit, resource_type, "what is wholly read again", Some(1)))?;
        return Ok(true);
    }
    let reason = format!(
        "the server counts others than are known, after changes without a word; it was wholly read again {} since everything was, and is not until everything is read again{}",
        if before == 1 { "once".to_owned() } else { format!("{before} times") },
        next_full(pull)?
    );
    // It is asked for from where it was, when its turn comes.
    let server_time = began(&ledger::units(store, pull.id)?, resource_type);
    pull.record(&Unit { server_time, ..lacking(resource_type, Code::Restless, reason) })?;
    Ok(false)
}

/// When everything will be read again, in words.
pub(in crate::source) fn next_full(pull: &Pull<'_>) -> Result<String, SourceError> {
    let (name, digest) = (pull.source.name(), pull.plan.digest());
    let last = match pull.since {
        Some(_) => pull.snapshot.store().with(|connection| ledger::last_full(connection, &name, &digest))?,
        None => Some(pull.begun),
    };
    let days = SignedDuration::from_hours(24 * i64::from(pull.source.options.tuning.full_every_days));
    let next = last.and_then(|last| last.checked_add(days).ok());
    Ok(next.map_or_else(String::new, |next| format!(", on {}", next.strftime("%Y-%m-%d"))))
}

pub(super) fn has_gap(pull: &Pull<'_>, resource_type: &str) -> Result<bool, SourceError> {
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    Ok(units.iter().any(|unit| unit.gap.is_some() && unit.resource_type == resource_type))
}

/// Where the numbers differ: nowhere any more, at some times of change, or as far as can be told anywhere.
async fn spans(pull: &Pull<'_>, subject: &Subject, places: Places) -> Result<Vec<Span>, SourceError> {
    let (None, Some(_), [_]) = (&subject.whom, subject.until, subject.queries.as_slice()) else { return Ok(vec![Span::ALL]) };
    let mut first = match places {
        Places::Differing | Places::Stretches(_) => None,
        Places::Around(at) => Some(subject.span().split(at)),
        Places::Everywhere => return Ok(vec![Span::ALL]),
    };
    let mut times: Vec<i64> = Vec::new();
    each_known(pull, std::slice::from_ref(subject), |_, _, header| times.extend(header.updated.filter(|_| subject.span().holds(header.updated))))?;
    times.sort_unstable();
    let Some(whole) = subject.number(pull, None, subject.span(), "again").await? else { return Ok(vec![Span::ALL]) };
    let page = u64::from(pull.source.options.page_size.max(1));
    // As many questions as half of the pages that they may spare.
    let mut left = whole.most.max(times.len() as u64) / page / 2;
    let (mut waiting, mut found) = (vec![(subject.span(), whole.most)], Vec::new());
    if let Places::Stretches(count) = places {
        waiting.clear();
        let stretches = subject.span().stretches(&times, count);
        // Where all was loaded at about one time, numbers by times tell nothing.
        if stretches.len() * 4 < count {
            return Ok(vec![Span::ALL]);
        }
        for span in stretches {
            let Some(number) = subject.number(pull, None, span, "again").await? else { return Ok(Vec::new()) };
            waiting.push((span, number.most));
        }
    }
    while let Some((span, theirs)) = waiting.pop() {
        let (own, parts) = (span.of(&times), first.take());
        if own.len() as u64 == theirs && parts.is_none() {
            continue;
        }
        if theirs.max(own.len() as u64) <= page && span != subject.span() {
            found.push(span);
            continue;
        }
        let Some([older, newer]) = parts.or_else(|| span.halves(own)).filter(|_| left > 0) else { return Ok(vec![Span::ALL]) };
        left -= 1;
        match subject.number(pull, None, older, "again").await? {
            Some(number) if number.most <= theirs => waiting.extend([(newer, theirs - number.most), (older, number.most)]),
            _ => return Ok(vec![Span::ALL]),
        }
    }
    Ok(found)
}

/// Reads what lies in a span, of the patients of these batches.
async fn read(pull: &mut Pull<'_>, subject: &Subject, differing: &[usize], span: Span) -> Result<(), SourceError> {
    let batches = subject.batches();
    let patients: BTreeSet<String> = differing.iter().filter_map(|place| batches.get(*place)?.clone()).flatten().collect();
    let members = subject.whom.as_ref().map(|_| &patients);
    let tasks = subject.queries.iter().flat_map(|query| tasks_of(pull, query, members, &BTreeSet::new()));
    let tasks: Vec<Task<'_>> = tasks.map(|task| Task { name: format!("again {} {span}", task.name), since: false, span, ..task }).collect();
    run_tasks(pull, "search", tasks, members).await
}

/// Asks whether these are still what the queries find.
async fn read_by_id(pull: &mut Pull<'_>, subject: &Subject, ids: &BTreeSet<String>) -> Result<(), SourceError> {
    let Subject { queries, .. } = subject.by_id();
    let ids: Vec<String> = ids.iter().cloned().collect();
    let task =
        |query, some: &[String]| Task { query, name: super::named("again by id", query, some), patients: Some(some.to_vec()), since: false, category: None, span: Span::ALL };
    let tasks = queries.iter().flat_map(|query| ids.chunks(IDS_PER_QUERY).map(move |some| task(query, some))).collect();
    run_tasks(pull, "search", tasks, None).await
}

/// What an export of everything did not bring is asked for by its ids, and let go if it is not there. Whether there was any.
async fn let_go_by_export(pull: &mut Pull<'_>, subject: &Subject) -> Result<bool, SourceError> {
    let name = subject.resource_type.as_str();
    if !pull.whole.contains(name) || !pull.plan.by_id.contains(name) {
        return Ok(false);
    }
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    let files: Vec<String> = bulk::files_of_whole(pull, &units).collect();
    if files.is_empty() {
        return Ok(false);
    }
    let came = came_in(pull, &files, name)?;
    let mut absent = BTreeSet::new();
    each_known(pull, std::slice::from_ref(subject), |_, _, header| {
        if !came.contains(&hash_of(&header.resource_type, &header.id)) {
            absent.insert(header.id.clone());
        }
    })?;
    if absent.is_empty() || absent.len() > VANISHED_MAX {
        return Ok(false);
    }
    read_by_id(pull, subject, &absent).await?;
    if has_gap(pull, name)? {
        return Ok(false);
    }
    let there = came_again(pull, name)?;
    absent.retain(|id| !there.contains(&hash_of(name, id)));
    let_go(pull, subject, "again gone by the export", &absent)?;
    Ok(true)
}

/// What came of a type where it was read again: what came before that may be gone.
pub(super) fn came_again(pull: &Pull<'_>, resource_type: &str) -> Result<HashSet<u64>, SourceError> {
    // What names its patient by an identifier came too.
    identified::resolve(pull)?;
    let files: Vec<String> = ledger::read_again(pull.snapshot.store(), pull.id)?.into_iter().collect();
    came_in(pull, &files, resource_type)
}

/// What of a type is in staged files.
fn came_in(pull: &Pull<'_>, files: &[String], resource_type: &str) -> Result<HashSet<u64>, SourceError> {
    let mut came: HashSet<u64> = HashSet::new();
    pull.snapshot.staged(pull.id, files, |header, _| {
        if header.resource_type == resource_type && !header.removed {
            came.insert(hash_of(&header.resource_type, &header.id));
        }
        Ok(())
    })?;
    Ok(came)
}

/// What is known, and did not come where it was read again.
fn missed(pull: &Pull<'_>, subject: &Subject, differing: &[usize], spans: &[Span]) -> Result<BTreeSet<String>, SourceError> {
    let came = came_again(pull, &subject.resource_type)?;
    let mut missed = BTreeSet::new();
    each_known(pull, std::slice::from_ref(subject), |_, batch, header| {
        let is_read = differing.contains(&batch) && spans.iter().any(|span| span.holds(header.updated));
        if is_read && !came.contains(&hash_of(&header.resource_type, &header.id)) {
            missed.insert(header.id.clone());
        }
    })?;
    Ok(missed)
}

/// Lets go what is not there any more, unless that is most of what is stored.
fn let_go(pull: &mut Pull<'_>, subject: &Subject, unit: &str, gone: &BTreeSet<String>) -> Result<(), SourceError> {
    if gone.is_empty() {
        return Ok(());
    }
    let (resource_type, store) = (subject.resource_type.clone(), pull.snapshot.store());
    let stored = match &subject.whom {
        Some(whom) => pull.snapshot.count_of(&resource_type, whom)?,
        None => pull.snapshot.counts()?.get(&resource_type).copied().unwrap_or_default(),
    };
    let stay = known_of(pull, subject)?.all.iter().sum::<u64>().saturating_sub(gone.len() as u64);
    let server_time = began(&ledger::units(store, pull.id)?, &resource_type);
    let unit = Unit { name: format!("{unit} {resource_type}"), query: "what vanished".to_owned(), resource_type, server_time, ..Unit::default() };
    if stored >= VOLUME_MIN && stay.saturating_mul(2) < stored {
        let reason = format!("{stay} are there where {stored} are stored; these are kept until a steward has looked; if they are gone, `watershed pull --accept-loss`");
        return pull.record(&Unit { gap: Some(Why::new(Code::Loss, reason)), ..unit });
    }
    remove(pull, unit, gone)
}

/// Lets go what is not there any more, in a unit that says so.
pub(super) fn remove(pull: &Pull<'_>, unit: Unit, gone: &BTreeSet<String>) -> Result<(), SourceError> {
    let note = Why::new(Code::Vanished, format!("{} let go that the server does not have any more, and no deletion was named", counted(gone.len() as u64, "resource")));
    let resource_type = unit.resource_type.clone();
    let mut receiving = pull.receive(Unit { note: Some(note), ..unit }, None)?;
    for id in gone {
        receiving.take_removal(&tombstone(&resource_type, id))?;
    }
    let unit = receiving.finish(None)?;
    pull.record(&unit)
}

/// Holds what is known now against the server's number. A number that is wrong after everything was read is the server's own, and is
/// held against in later nights; more than is known may be missing.
async fn judge(pull: &Pull<'_>, subject: &Subject) -> Result<(), SourceError> {
    let known = known_of(pull, subject)?;
    if differing(pull, subject, &known, "last").await?.is_none_or(|batches| batches.is_empty()) {
        return Ok(());
    }
    let mut theirs = 0;
    for batch in subject.batches() {
        theirs += subject.number(pull, batch.as_deref(), subject.span(), "last").await?.map_or(0, |number| number.least);
    }
    let resource_type = subject.resource_type.as_str();
    if theirs > known.sum() {
        let is_confirmed = match subject.queries.as_slice() {
            [query] if !pull.later.contains_key(resource_type) => census::confirm(pull, query, subject.until, known.sum(), theirs).await?.is_some(),
            _ => true,
        };
        if is_confirmed {
            let reason = format!("{} are known where the server counts {theirs}, and reading it again brought no more", known.sum());
            return pull.record(&lacking(resource_type, Code::Missed, reason));
        }
    }
    tracing::warn!(pull = pull.id.0, resource_type, theirs, known = known.sum(), "the server counts others than it sends; later numbers are held against that");
    keep(pull, subject, theirs, &known)
}

fn lacking(resource_type: &str, code: Code, reason: String) -> Unit {
    let resource_type = resource_type.to_owned();
    Unit {
        name: format!("again lacking {resource_type}"),
        query: "count".to_owned(),
        resource_type,
        gap: Some(Why::new(code, reason)),
        ..Unit::default()
    }
}

/// Says of what is not counted that deletions may be overlooked, and until when. So many new ones that they may be the old ones under
/// other ids are not believed.
fn tell_uncounted(pull: &Pull<'_>, subject: &Subject, known: &Known) -> Result<(), SourceError> {
    let name = subject.resource_type.as_str();
    let stored = pull.snapshot.counts()?.get(name).copied().unwrap_or_default();
    let new = known.all.iter().sum::<u64>().saturating_sub(stored);
    if stored >= VOLUME_MIN && subject.whom.is_none() && new.saturating_mul(2) > stored {
        let reason = format!("{new} are new beside {stored}: if the server's data have got new ids, the old ones are counted too until everything is read");
        return pull.record(&lacking(name, Code::Missed, reason));
    }
    let has_list = subject.queries.iter().any(|query| query.list_of_codes().is_some());
    let is_singly = has_list && pull.habits.lists.is_singly(name, "code");
    let why = if is_singly { "the server heeds no list of codes, and these are too many to count each" } else { "the server does not count it" };
    let reason = format!("{why}: what vanishes from it without a word is stored until everything is read again{}", next_full(pull)?);
    tell(pull, subject, "uncounted", Why::new(Code::Uncounted, reason))
}

/// Notes what is to be known of a type that is not wrong. Changes of it are asked for from where they were.
pub(super) fn tell(pull: &Pull<'_>, subject: &Subject, what: &str, why: Why) -> Result<(), SourceError> {
    let name = subject.resource_type.as_str();
    let server_time = began(&ledger::units(pull.snapshot.store(), pull.id)?, name);
    pull.record(&Unit {
        name: format!("again {what} {name}"),
        resource_type: name.to_owned(),
        query: "count".to_owned(),
        server_time,
        note: Some(why),
        ..Unit::default()
    })
}
