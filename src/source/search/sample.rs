//! Where the number of a type is right, as many may have vanished as were missed, all may have got new ids, or something may have
//! changed and its time of change not. So a sample is looked at too: what changed before an instant is counted, and some ids are read,
//! others each night until everything is read again.

use super::census;
use super::page::Item;
use super::part::Span;
use super::recount::{self, Known, Places, Subject};
use crate::snapshot::Header;
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::intake::judge;
use crate::source::ledger;
use crate::source::plan::{Plan, Query};
use crate::source::pull::Pull;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher as _};

/// Ids that are drawn for one sample. Of a type of no more, the sample is all of it.
pub(in crate::source) const IDS: usize = 25;
/// Beside these, what changed last before this night's changes: a server that goes back to a backup has none of it, or an older form.
const NEWEST: usize = 3;
/// A sample of so many of which all is otherwise is written otherwise.
const REWRITTEN_MIN: usize = 10;
const HOUR: i64 = 3_600_000_000;
const BY_IDS: &str = "ids";
const BY_TIMES: &str = "times of change";

/// What samples of a type are drawn from: what is known of it, in one pass.
#[derive(Default)]
pub(super) struct Urn {
    /// How many changed in each hour since 1970, of those that changed before the reading began.
    hours: BTreeMap<i64, u64>,
    /// What is least by this night's lot, each with its time of change and its hash.
    drawn: BTreeMap<(u64, String), (Option<i64>, [u8; 32])>,
    /// What changed last until `asked`, by its time of change, each with its hash.
    newest: BTreeMap<(i64, String), [u8; 32]>,
    /// Until when changes were asked for in earlier nights.
    asked: Option<i64>,
    /// Of everything: equal where all of it is the same.
    digest: u64,
}

impl Urn {
    /// An empty one, where changes were asked for until an instant in earlier nights.
    pub fn after(asked: Option<Timestamp>) -> Urn {
        Urn { asked: asked.map(Timestamp::as_microsecond), ..Urn::default() }
    }

    /// Notes a resource; `is_before`: it changed before the reading began.
    pub fn take(&mut self, night: u64, header: &Header, is_before: bool) {
        let Header { id, updated, hash, .. } = header;
        if let Some(updated) = updated.filter(|_| is_before) {
            *self.hours.entry(updated.div_euclid(HOUR)).or_default() += 1;
        }
        self.digest ^= hash_of(&(id, hash));
        if let Some(updated) = updated.filter(|updated| Some(*updated) <= self.asked) {
            self.newest.insert((updated, id.clone()), *hash);
            if self.newest.len() > NEWEST {
                self.newest.pop_first();
            }
        }
        let lot = lot(night, id);
        if self.drawn.len() < IDS || self.drawn.last_key_value().is_some_and(|((most, _), _)| lot < *most) {
            self.drawn.insert((lot, id.clone()), (*updated, *hash));
            if self.drawn.len() > IDS {
                self.drawn.pop_last();
            }
        }
    }

    /// This night's ids, each with its time of change and its hash.
    fn sample(&self) -> BTreeMap<&String, (Option<i64>, [u8; 32])> {
        let newest = self.newest.iter().map(|((updated, id), hash)| (id, (Some(*updated), *hash)));
        self.drawn.iter().map(|((_, id), known)| (id, *known)).chain(newest).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.sample().into_keys().cloned().collect()
    }

    /// How many changed before an instant.
    fn before(&self, at: Timestamp) -> u64 {
        self.hours.range(..at.as_microsecond().div_euclid(HOUR)).map(|(_, count)| count).sum()
    }

    /// An instant before which some changed, and some since: every other night when everything was last read, for what was missed
    /// is mostly younger than that and what vanished mostly older; else the middle of the times, the quarters, the eighths.
    fn instant(&self, night: u64, last_full: Option<Timestamp>) -> Option<Timestamp> {
        let all: u64 = self.hours.values().sum();
        let is_between = |at: &Timestamp| (1..all).contains(&self.before(*at));
        let at_hour = |hour: i64| Timestamp::from_microsecond(hour.saturating_mul(HOUR)).ok();
        let full = last_full.and_then(|last| at_hour(last.as_microsecond().div_euclid(HOUR))).filter(is_between);
        if night % 2 == 1 && full.is_some() {
            return full;
        }
        let number = if full.is_some() { night / 2 } else { night };
        // 1, 2, 3, 4, … by their binary digits behind the point, the last one first: a half, a quarter, three quarters, an eighth, …
        let wanted = u64::try_from((u128::from(number.reverse_bits()) * u128::from(all)) >> 64).unwrap_or_default();
        let mut before = 0;
        let hours = self.hours.iter().filter_map(|(hour, count)| {
            let earlier = before;
            before += count;
            (earlier > 0).then(|| (earlier.abs_diff(wanted), *hour))
        });
        hours.min().and_then(|(_, hour)| at_hour(hour))
    }
}

/// What decides whether an id is in the sample of a night.
pub(super) fn lot(night: u64, id: &str) -> u64 {
    hash_of(&(night, id))
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// One sample.
#[derive(Clone, Copy)]
enum Sample {
    /// What changed before an instant.
    Before(Timestamp),
    /// Some ids.
    Ids,
}

impl Sample {
    /// Name of the unit that says that this server does not count such samples as it sends them.
    fn name(self, resource_type: &str) -> String {
        format!("count unlike {} {resource_type}", if matches!(self, Sample::Ids) { "ids" } else { "times" })
    }

    /// By what it is counted, in words.
    fn words(self) -> &'static str {
        if matches!(self, Sample::Ids) { BY_IDS } else { BY_TIMES }
    }

    /// Where what differs is to be looked for.
    fn places(self) -> Places {
        match self {
            Sample::Before(at) => Places::Around(at),
            Sample::Ids => Places::Everywhere,
        }
    }

    /// Whether the server has of it what is known, as far as it can be asked.
    async fn agrees(self, pull: &Pull<'_>, subject: &Subject, known: &Known, round: &str) -> Result<bool, SourceError> {
        let batch = subject.batches().into_iter().next().flatten();
        match self {
            Sample::Ids => {
                if let Some(found) = read(pull, subject, known).await? {
                    return Ok(found.missing == 0 && found.changed == 0);
                }
                let ids = known.urn.ids();
                let theirs = subject.by_id().number(pull, Some(&ids), Span::ALL, round).await?;
                Ok(theirs.is_none_or(|theirs| theirs.most >= ids.len() as u64))
            }
            Sample::Before(at) => {
                let span = Span { from: None, until: Some(at) };
                let (Some(theirs), Some(all)) = (subject.number(pull, batch.as_deref(), span, round).await?, subject.number(pull, batch.as_deref(), subject.span(), round).await?)
                else {
                    return Ok(true);
                };
                // What changes meanwhile is not of before any more.
                let meanwhile = known.sum().saturating_sub(all.least);
                let refused = ledger::not_taken(pull.snapshot.store(), &subject.resource_type)?;
                let own = known.urn.before(at);
                Ok(theirs.least <= own.saturating_add(refused) && own <= theirs.most.saturating_add(meanwhile))
            }
        }
    }
}

/// What a sample read by its ids is beside what is known.
struct Found {
    missing: usize,
    /// Otherwise, and no newer than the reading.
    changed: usize,
}

impl Found {
    /// Whether all of a sample is otherwise, as where a server writes in each answer, or in searches, what it does not elsewhere.
    fn is_rewritten(&self, known: &Known) -> bool {
        self.changed >= REWRITTEN_MIN && self.changed == known.urn.sample().len()
    }
}

/// Reads this night's ids; `None` if they cannot be had so. What changes without a new time of change is in no other question.
async fn read(pull: &Pull<'_>, subject: &Subject, known: &Known) -> Result<Option<Found>, SourceError> {
    let (resource_type, mut came) = (&subject.resource_type, BTreeMap::new());
    for query in &subject.by_id().queries {
        let Some(page) = census::page_of(pull, query, &known.urn.ids()).await? else { return Ok(None) };
        let entries = page.entries();
        for json in page.items(resource_type).filter_map(|item| if let Item::Match(json) = item { Some(json) } else { None }) {
            let taken = judge(&entries.resolve(json.as_bytes()), &pull.plan.types).map(|taken| taken.header);
            came.extend(taken.ok().map(|Header { id, updated, hash, .. }| (id, (updated, hash))));
        }
    }
    let mut found = Found { missing: 0, changed: 0 };
    for (id, (updated, hash)) in known.urn.sample() {
        match came.get(id) {
            None => found.missing += 1,
            Some((now, same)) if *same == hash || *now > updated && !(subject.until.is_some() && subject.span().holds(*now)) => {}
            Some(_) => found.changed += 1,
        }
    }
    Ok(Some(found))
}

/// Whether samples are looked at of a type of so many: by ids; and, asked of all patients at once or of so few as one question takes, by
/// times of change.
pub(in crate::source) fn of_type(plan: &Plan, resource_type: &str, resources: u64) -> [bool; 2] {
    let is_any = resources > 0;
    [is_any && plan.by_id.contains(resource_type), is_any && resources > IDS as u64 && plan.by_time.contains(resource_type)]
}

/// Counts this night's samples of a type whose number is right, and reads again where they differ.
pub(super) async fn look(pull: &mut Pull<'_>, subject: &Subject, known: &Known) -> Result<(), SourceError> {
    let (store, name, digest) = (pull.snapshot.store(), pull.source.name(), pull.plan.digest());
    let kept = |name: &str, store| ledger::kept_difference(store, &pull.source.name(), &digest, name);
    let batches: Vec<usize> = (0..subject.batches().len()).collect();
    // A number that is the server's own is none to draw from.
    if kept(&recount::kept_name(&subject.resource_type), store)?.is_some_and(|kept| kept != 0) {
        return Ok(());
    }
    let resources = known.all.iter().sum();
    let [by_id, by_time] = of_type(pull.plan, &subject.resource_type, resources);
    // Of more patients than one question takes, each night counts others together.
    let is_one_question = batches.len() == 1;
    let mut off: Vec<&str> = Vec::new();
    off.extend((!by_id).then_some(BY_IDS));
    off.extend((is_one_question && resources > IDS as u64 && (!by_time || subject.until.is_none())).then_some(BY_TIMES));
    let last_full = store.with(|connection| ledger::last_full(connection, &name, &digest))?;
    let instant = known.urn.instant(subject.night, last_full).filter(|_| is_one_question && by_time && subject.until.is_some());
    for sample in [instant.map(Sample::Before), by_id.then_some(Sample::Ids)].into_iter().flatten() {
        let unlike = sample.name(&subject.resource_type);
        if kept(&unlike, pull.snapshot.store())?.is_some() {
            off.push(sample.words());
            continue;
        }
        if sample.agrees(pull, subject, known, "first").await? {
            continue;
        }
        if is_ignored(pull, subject, sample).await? {
            off.push(sample.words());
            continue;
        }
        let is_rewritten = matches!(sample, Sample::Ids) && read(pull, subject, known).await?.is_some_and(|found| found.is_rewritten(known));
        recount::again(pull, subject, &batches, sample.places()).await?;
        let now = recount::known_of(pull, subject)?;
        // What was read again and is otherwise shows that the sample is right to differ.
        let is_unlike = now.urn.digest == known.urn.digest && !recount::has_gap(pull, &subject.resource_type)? && !sample.agrees(pull, subject, &now, "last").await?;
        if is_unlike || is_rewritten {
            let resource_type = subject.resource_type.as_str();
            tracing::warn!(pull = pull.id.0, resource_type, "the server counts or writes some of it otherwise than it sends it: that is not asked any more");
            pull.record(&ledger::count_unit(&unlike, resource_type, "what is not counted as it is sent", Some(1)))?;
            off.push(sample.words());
        }
        break;
    }
    tell_unsampled(pull, subject, &off)
}

/// Says of a type whose number is right, and of which no samples can be counted, what may be overlooked and until when.
fn tell_unsampled(pull: &Pull<'_>, subject: &Subject, off: &[&str]) -> Result<(), SourceError> {
    if off.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "its number is right, and no samples of it can be looked at by {}: as many missed as vanished, or new ids of old ones, may go unnoticed until everything is read again{}",
        off.join(" and "),
        recount::next_full(pull)?
    );
    recount::tell(pull, subject, "unsampled", Why::new(Code::Unsampled, reason))
}

/// Whether a count heeds the question by times of change.
async fn is_ignored(pull: &Pull<'_>, subject: &Subject, sample: Sample) -> Result<bool, SourceError> {
    let queries: &[Query] = if matches!(sample, Sample::Ids) { &[] } else { &subject.queries };
    for query in queries {
        if census::ignores(pull, query, "_lastUpdated").await? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn header(id: &str) -> Header {
        let (id, resource_type, patient) = (id.to_owned(), String::new(), String::new());
        Header { id, resource_type, patient, version: None, updated: None, hash: [0; 32], removed: false, import: String::new() }
    }

    fn urn(hours: &[(i64, u64)]) -> Urn {
        Urn { hours: hours.iter().copied().collect(), ..Urn::default() }
    }

    #[test]
    fn each_night_has_another_instant_and_every_other_one_the_last_reading_of_everything() {
        let hundred = urn(&(0..100).map(|hour| (hour, 1)).collect::<Vec<_>>());
        let hours = |urn: &Urn, last_full: i64| {
            let full = Timestamp::from_second(last_full * 3600 + 7).ok();
            let hour = |night| urn.instant(night, full).map_or(-1, |at| at.as_second() / 3600);
            (1..=6).map(hour).collect::<Vec<i64>>()
        };
        assert_eq!(hours(&hundred, 90), [90, 50, 90, 25, 90, 75]);
        assert_eq!(hours(&hundred, 1000), [50, 25, 75, 12, 62, 37], "nothing has changed since");
        // Most in one hour, and all.
        assert_eq!(hours(&urn(&[(3, 1), (4, 98), (9, 1)]), 1000), [4, 4, 9, 4, 9, 4]);
        assert_eq!(hours(&urn(&[(3, 100)]), 1000), [-1; 6]);
    }

    #[test]
    fn each_night_has_other_ids_and_few_are_all() {
        let drawn = |night: u64, count: usize| {
            let mut urn = Urn::default();
            (0..count).for_each(|number| urn.take(night, &header(&format!("id-{number}")), false));
            urn.ids().into_iter().collect::<BTreeSet<String>>()
        };
        assert_eq!([drawn(1, 7).len(), drawn(1, 1000).len()], [7, IDS]);
        assert_eq!(drawn(1, 1000), drawn(1, 1000));
        assert!(drawn(1, 1000).intersection(&drawn(2, 1000)).count() < 5);
    }

    #[test]
    fn what_changed_last_before_this_nights_changes_is_in_every_sample() {
        for night in 1..9 {
            let mut urn = Urn::after(Timestamp::from_microsecond(900).ok());
            (0..1000).for_each(|number| urn.take(night, &Header { updated: Some(number), ..header(&format!("id-{number}")) }, false));
            let sample = urn.ids();
            assert!([898, 899, 900].iter().all(|number| sample.contains(&format!("id-{number}"))), "night {night}: {sample:?}");
            assert!((IDS..=IDS + NEWEST).contains(&sample.len()), "night {night}");
        }
    }
}
