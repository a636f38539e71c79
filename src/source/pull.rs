//! A pull from beginning to end: opened or resumed, units fetched, segments prepared, everything entered at once.

use super::cohort::Cohort;
use super::duty::{Code, Why};
use super::filter::has_code;
use super::folder::{self, Dump};
use super::follow;
use super::identified;
use super::import;
use super::intake::{Reason, by_content, is_identified, judge};
use super::ledger::{self, Closing, Opened, Recorded, Unit};
use super::search::census::{self, Doubt};
use super::search::later::Asked;
use super::search::recount;
use super::since::{behind, changes_start, cursor, incremental_start, is_full_due};
use super::{Chooser, Gap, Plan, Progress, PullOutcome, Source, SourceError, account, bulk, search};
use crate::diagnostic::counted;
use crate::fhir::compartment::Head;
use crate::http::Clock;
use crate::snapshot::{Incoming, Key, Prepared, PullId, Reconcile, Rows, Snapshot, SnapshotError, Stage, seal_bytes};
use crate::store::quarantine::{self, Refused};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Refusals of one unit that are kept; further ones are counted.
const REFUSED_KEPT_MAX: usize = 10_000;
/// Bytes of a refused line that are kept.
const REFUSED_BYTES_MAX: usize = 256 * 1024;
/// So many resources of patients that all changed at one instant did not: the server writes one time for all.
const ONE_INSTANT_MIN: u64 = 20;

/// What a reading of everything finds and one of changes cannot: it stands until everything is read again.
pub(super) const STANDING: [Code; 7] = [Code::Counted, Code::Listed, Code::Members, Code::Narrowed, Code::NoPatients, Code::Uncoded, Code::Unseen];

/// Name under which a refused line is sealed.
pub const QUARANTINE_SEAL: &str = "quarantine";

/// What all parts of a pull share.
pub(super) struct Pull<'a> {
    pub source: &'a Source,
    pub plan: &'a Plan,
    pub snapshot: &'a Snapshot,
    pub clock: &'a dyn Clock,
    pub progress: &'a dyn Progress,
    pub id: PullId,
    /// When this run of it began.
    pub begun: Timestamp,
    /// Changes from here on are asked for; `None`: everything.
    pub since: Option<Timestamp>,
    /// Types that are behind the others, and from when changes of them are asked for.
    pub behind: BTreeMap<String, Option<Timestamp>>,
    /// Everything is read, and not the same as the last time.
    pub full: bool,
    /// Units done before and in this run.
    pub done: BTreeSet<String>,
    /// Types of which an export of changes brought everything.
    pub whole: BTreeSet<String>,
    /// The patients of the Group, where it was read.
    pub members: Option<BTreeSet<String>>,
    /// What was learnt of the server's search.
    pub habits: search::Habits,
    /// Who tells which patients matter, where that is asked.
    pub chooser: Option<&'a dyn Chooser>,
    /// Types that are asked for last, and were not asked for of everybody.
    pub later: BTreeMap<String, Asked>,
    /// Types of which a person has accepted that something is as it is, and what.
    pub accepted: BTreeSet<(String, Code)>,
    /// What the imports brought, once they are read.
    pub imported: Option<BTreeMap<String, Rows>>,
    /// The SHA-256 of each line that a person has discarded.
    pub discarded: BTreeSet<String>,
}

/// Pulls what the plan says into the snapshot. An interrupted pull of the same plan is continued: its finished units
/// are not fetched again. Dropping the future at any point is such an interruption.
pub async fn pull(source: &Source, plan: &Plan, snapshot: &Snapshot, clock: &dyn Clock, progress: &dyn Progress) -> Result<PullOutcome, SourceError> {
    pull_for(None, source, plan, snapshot, clock, progress).await
}

/// The same, where what is planned to be asked for last is asked for only of the patients who matter.
pub async fn pull_for(
    chooser: Option<&dyn Chooser>,
    source: &Source,
    plan: &Plan,
    snapshot: &Snapshot,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<PullOutcome, SourceError> {
    let job = Job { chooser, source, snapshot, clock, progress, follows: false };
    let Some(instead) = plan.instead.as_deref() else { return job.carry_out(plan, None).await };
    // Searches that an earlier night began and did not end are gone on with: the export is tried again when they are done.
    if ledger::is_open(snapshot.store(), &source.name(), &instead.digest())? {
        return job.carry_out(instead, None).await;
    }
    match job.carry_out(plan, None).await {
        Err(SourceError::NoExport(why)) => {
            tracing::warn!(reason = %why, due = why.code.duty().1, "no export is to be had: the same is searched for");
            let note = Some(why.put(|reason| format!("{reason}; the same was searched for")));
            let unit = Unit { name: "instead of the export".to_owned(), resource_type: "*".to_owned(), query: "export".to_owned(), note, ..Unit::default() };
            job.carry_out(instead, Some(unit)).await
        }
        ended => ended,
    }
}

/// What carries plans out.
#[derive(Clone, Copy)]
struct Job<'a> {
    chooser: Option<&'a dyn Chooser>,
    source: &'a Source,
    snapshot: &'a Snapshot,
    clock: &'a dyn Clock,
    progress: &'a dyn Progress,
    /// What changed while a pull lasted is read, whatever is due.
    follows: bool,
}

impl Job<'_> {
    /// Carries a plan out; where that took several nights, what has changed meanwhile is read once, as far as this night allows.
    async fn carry_out(self, plan: &Plan, note: Option<Unit>) -> Result<PullOutcome, SourceError> {
        let (first, begun) = Box::pin(self.run(plan, note)).await?;
        let Some(begun) = begun.filter(|_| follow::is_due(plan)) else { return Ok(first) };
        let store = self.snapshot.store();
        // That everything is due is the next night's.
        if changes_start(self.source, plan, self.snapshot, self.clock)?.is_none() || !first.complete && is_full_due(self.source, plan, self.snapshot, self.clock)? {
            return Ok(follow::unread(store, first, begun, "the next pull reads everything")?);
        }
        match Box::pin(Job { follows: true, ..self }.run(plan, Some(follow::note(&first, begun)))).await {
            Ok((second, _)) => Ok(follow::joined(first, second)),
            Err(error @ (SourceError::Snapshot(_) | SourceError::Store(_))) => Err(error),
            Err(error) => Ok(follow::unread(store, first, begun, &error.to_string())?),
        }
    }

    /// Carries a plan out, with what is to be known of how that came about; and when it was begun, if that was in an earlier night.
    async fn run(self, plan: &Plan, note: Option<Unit>) -> Result<(PullOutcome, Option<Timestamp>), SourceError> {
        let Job { chooser, source, snapshot, clock, progress, follows } = self;
        let (store, name, digest) = (snapshot.store(), source.name(), plan.digest());
        let damaged = snapshot.look_over()?;
        if damaged > 0 {
            tracing::warn!(segments = damaged, "some of the snapshot is damaged or missing: everything is read again, and no number is made before that is done");
        }
        let dump = match &source.options.tuning.folder {
            Some(folder) => Some(Dump::find(folder, plan, &source.options.tuning.imports).await?),
            None => None,
        };
        let start = if follows { changes_start } else { incremental_start };
        let cursor = if damaged > 0 { None } else { start(source, plan, snapshot, clock)? };
        // Files that are as they were when all of them were read need no reading.
        let known = match &dump {
            Some(dump) if damaged == 0 && !source.options.tuning.accepts_loss && !is_full_due(source, plan, snapshot, clock)? => dump.known(store, &name, &digest)?,
            _ => None,
        };
        let opened = ledger::open(store, &name, &digest, cursor.is_none() && known.is_none(), clock.now())?;
        tracing::info!(pull = opened.id.0, full = opened.full, resumed = opened.resumed, "pull");
        let mut pull = Pull {
            source,
            plan,
            snapshot,
            clock,
            progress,
            id: opened.id,
            begun: clock.now(),
            since: if opened.full { None } else { cursor },
            behind: behind(source, plan, snapshot, clock.now())?,
            full: opened.full,
            done: ledger::done(store, opened.id)?,
            whole: BTreeSet::new(),
            members: None,
            habits: search::Habits::of(source, store, &opened)?,
            chooser,
            later: BTreeMap::new(),
            accepted: ledger::accepted(store, &name, &digest)?,
            imported: None,
            discarded: store.with(|connection| quarantine::discarded(connection, None))?,
        };
        if let Some(note) = note {
            pull.record(&note)?;
        }
        match (&dump, &source.options.tuning.off_hours) {
            (Some(dump), _) => match known.filter(|_| !opened.full) {
                Some(earlier) => {
                    store.with(|connection| ledger::repeat(connection, earlier, pull.id))?;
                    pull.record(&Unit { name: ledger::UNCHANGED.to_owned(), resource_type: "*".to_owned(), query: ledger::UNCHANGED.to_owned(), ..Unit::default() })?;
                }
                None => folder::run(&pull, dump).await?,
            },
            (None, None) => fetch(&mut pull).await?,
            (None, Some(hours)) => {
                let left = hours.left_or_unfinished(clock.now())?;
                tokio::select! {
                    biased;
                    fetched = fetch(&mut pull) => fetched?,
                    () = clock.sleep(left) => return Err(SourceError::Unfinished { reason: format!("the off-hours {hours} are over") }),
                }
            }
        }
        identified::resolve(&pull)?;
        import::bring(&mut pull)?;
        let mut outcome = finish(&pull, &opened, &digest).await?;
        if plan.export.is_some() {
            bulk::release_finished(&pull, &mut outcome.notes).await?;
        }
        Ok((outcome, follow::earlier(&opened, pull.begun)))
    }
}

/// Fetches what is not there yet. It may be dropped at any time, and be gone on with. Each step is large, and none of them lies on the stack.
async fn fetch(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    bulk::release_finished(pull, &mut Vec::new()).await?;
    if pull.plan.export.is_some() {
        Box::pin(bulk::run(pull)).await?;
        pull.whole = bulk::whole(pull)?;
        Box::pin(search::beside_export(pull)).await?;
        Box::pin(bulk::check_members(pull)).await?;
    } else {
        Box::pin(search::run(pull)).await?;
    }
    identified::resolve(pull)?;
    if pull.since.is_some() { Box::pin(recount::take(pull)).await } else { Box::pin(recount::settle(pull)).await }?;
    Box::pin(search::later::of_newcomers(pull)).await?;
    Box::pin(search::hydrate(pull)).await?;
    Box::pin(census::take(pull)).await?;
    if pull.since.is_none() { Ok(()) } else { Box::pin(search::look_again(pull)).await }
}

async fn finish(pull: &Pull<'_>, opened: &Opened, digest: &str) -> Result<PullOutcome, SourceError> {
    let store = pull.snapshot.store();
    let (units, imported) = (ledger::units(store, pull.id)?, ledger::imported(store, pull.id)?);
    let mut gaps: Vec<Gap> = gaps_of(&units);
    if let (Some(first), true) = (gaps.first(), units.iter().filter(|unit| unit.note.is_none()).all(|unit| unit.gap.is_some() && unit.received == 0)) {
        return Err(SourceError::Nothing { reason: first.reason.clone() });
    }
    gaps.extend(gaps_of(&imported));
    let (mut sound, mut notes) = (sound_types(pull, &units), Vec::new());
    let mut full_types = full_types(pull, opened, &units, &sound, &mut notes)?;
    let asked = pull.later.iter().filter(|(name, _)| sound.contains(*name));
    let mut full_of: BTreeMap<String, BTreeSet<String>> = asked.map(|(name, asked)| (name.clone(), asked.whole.clone())).collect();
    let is_suspicious = refuse_sudden_loss(pull, &units, opened.full, &full_types, &full_of, &mut gaps)? | pull.habits.unnamed().is_some();
    if is_suspicious {
        full_types.clear();
        full_of.clear();
    }
    let members = believed_members(pull, &mut gaps)?;
    pull.progress.stage("store", None);
    let (until, present_in) = (units.iter().filter_map(|unit| unit.server_time).max(), present_in(pull, &units)?);
    let mut reconcile = Reconcile { full_types, full_of, present_wins: opened.full, present_in, members, until, imports: pull.imported.clone() };
    if is_suspicious {
        reconcile.keep_imports();
    }
    let (prepared, accepted) = prepare(pull, opened, &Came { units: &units, imported: &imported }, reconcile, &mut sound, &mut gaps).await?;
    notes.extend(accepted.into_iter().chain(notes_of(&units)).chain(notes_of(&imported)));
    let newest = prepared.newest.max(cursor(pull.source, pull.plan, pull.snapshot)?);
    let (cursors, mut without_cursor) = cursors(&units, &sound, newest, pull.clock.now());
    if prepared.replaced > 0 {
        // What a type lacks now lies before the cursor that it had.
        without_cursor.extend(pull.plan.types.iter().cloned());
    }
    let name = pull.source.name();
    // What was decided while it was read is left out by the next one.
    let complete = gaps.is_empty() && units.iter().chain(&imported).all(|unit| unit.quarantined == 0);
    let closing = Closing {
        pull: pull.id,
        source: &name,
        plan: digest,
        covered: [search::later::to_keep(pull, &sound)?, search::roll::to_keep(pull)?, search::absent::to_keep(pull, &units)?].concat(),
        cursors,
        without_cursor,
        complete,
        kept_all: is_suspicious,
        full: opened.full,
        whole: pull.plan.untimed(),
        now: pull.clock.now(),
    };
    // Data, cursor and ledger together or not at all.
    let quarantined = store.transaction(|transaction| {
        pull.snapshot.publish(transaction, &prepared)?;
        ledger::close(transaction, &closing)
    })?;
    pull.snapshot.discard_staging(pull.id)?;
    Ok(PullOutcome {
        pull_id: pull.id,
        complete: complete && quarantined == 0,
        gaps,
        notes,
        received: received_of(units.iter().chain(&imported)),
        quarantined,
        new_versions: prepared.new_versions,
        removed: prepared.removed,
        replaced: prepared.replaced,
        full: opened.full,
        lists: pull.habits.lists(),
    })
}

/// Types that were read in full of everybody.
fn full_types(pull: &Pull<'_>, opened: &Opened, units: &[Recorded], sound: &BTreeSet<String>, notes: &mut Vec<Gap>) -> Result<BTreeSet<String>, SourceError> {
    let mut full = if opened.full { sound.clone() } else { bulk::whole_of_all(pull, notes)?.union(&pull.plan.untimed()).cloned().collect() };
    full.retain(|name| sound.contains(name));
    // What was asked for of some patients only can be gone of these only.
    full.retain(|name| !pull.later.contains_key(name));
    // What this client may not read may refer to it.
    if units.iter().filter_map(|unit| unit.gap.as_ref()).any(is_forbidden) {
        full.retain(|name| !pull.plan.referenced.contains(name));
    }
    Ok(full)
}

/// Resources received by type, copies included.
fn received_of<'a>(units: impl Iterator<Item = &'a Recorded>) -> BTreeMap<String, u64> {
    let mut received = BTreeMap::new();
    units.for_each(|unit| *received.entry(unit.resource_type.clone()).or_default() += unit.received);
    received
}

/// What came of the source, and of the imports.
struct Came<'a> {
    units: &'a [Recorded],
    imported: &'a [Recorded],
}

/// Prepares what came for the snapshot; nothing is let go of a type that is in doubt. Gives also what a person has accepted.
async fn prepare(
    pull: &Pull<'_>,
    opened: &Opened,
    came: &Came<'_>,
    mut reconcile: Reconcile,
    sound: &mut BTreeSet<String>,
    gaps: &mut Vec<Gap>,
) -> Result<(Prepared, Vec<Gap>), SourceError> {
    let files: Vec<String> = came.units.iter().chain(came.imported).filter_map(|unit| unit.file.clone()).collect();
    let mut prepared = pull.snapshot.prepare(pull.id, &files, &reconcile)?;
    let (doubts, mut notes) = doubts(pull, opened, came, &prepared).await?;
    let is_in_doubt = !doubts.is_empty();
    for doubt in doubts {
        let is_of_all = doubt.why.code == Code::NoPatients;
        reconcile.full_types.retain(|name| !is_of_all && *name != doubt.resource_type);
        reconcile.full_of.retain(|name, _| !is_of_all && *name != doubt.resource_type);
        if is_of_all {
            reconcile.keep_imports();
        }
        // What is narrowed came whole, as far as it goes.
        if doubt.why.code.is_acceptable() && doubt.why.code != Code::Narrowed {
            sound.remove(&doubt.resource_type);
        }
        note_gap(pull, gaps, &doubt.resource_type, &doubt.why.code.word(), doubt.why)?;
    }
    reconcile.members.iter_mut().for_each(|members| members.retain(|id| !pull.habits.left().contains(id)));
    if is_in_doubt && prepared.removed > 0 || !pull.habits.left().is_empty() {
        prepared = pull.snapshot.prepare(pull.id, &files, &reconcile)?;
    }
    for (name, count) in &prepared.conflicts {
        let why = match pull.plan.of_files {
            true => Why::new(Code::Undated, format!("{count} are in files, and said to be deleted in files, and not which of it came later; they are kept")),
            false => Why::new(Code::Conflict, format!("{count} were sent and said to be deleted; they are kept until everything is read again")),
        };
        note_gap(pull, gaps, name, "deletions", why)?;
        sound.remove(name);
    }
    for (name, count) in &prepared.ambiguous {
        let each = if *count == 1 {
            "came in several forms, of which nothing says which is the newest: one was taken"
        } else {
            "came in several forms each, of which nothing says which is the newest: one of each was taken"
        };
        note_gap(pull, gaps, name, "copies", Why::new(Code::Copies, format!("{count} {each}")))?;
    }
    // Of a search they are those who left while it lasted.
    if prepared.strangers > 0 && (pull.plan.export.is_some() || pull.plan.of_files) {
        let reason = format!("the export brought {} whom the Group does not name: nothing of them is kept", counted(prepared.strangers, "patient"));
        note(pull, &mut notes, "Patient", "strangers", Why::new(Code::Strangers, reason))?;
    }
    census::tell_empty(pull, came.imported, &prepared, sound, &mut notes)?;
    Ok((prepared, notes))
}

/// The files that are staged so far, and what they mean for what is stored, before the types that are asked for last.
pub(super) fn foreseeable(pull: &Pull<'_>) -> Result<(Vec<String>, Reconcile), SourceError> {
    identified::resolve(pull)?;
    let (units, imported) = (ledger::units(pull.snapshot.store(), pull.id)?, ledger::imported(pull.snapshot.store(), pull.id)?);
    let files = units.iter().chain(&imported).filter_map(|unit| unit.file.clone()).collect();
    let is_later = |name: &String| pull.plan.queries.iter().any(|query| query.resource_type == *name && query.later.is_some());
    let mut full_types = whole_types(pull, &units);
    full_types.retain(|name| !is_later(name));
    let until = units.iter().filter_map(|unit| unit.server_time).max();
    let (members, imports) = (pull.members.clone(), pull.imported.clone());
    let present_in = present_in(pull, &units)?;
    Ok((files, Reconcile { full_types, full_of: BTreeMap::new(), present_wins: pull.since.is_none(), present_in, members, until, imports }))
}

/// Staged files of what stands, whatever its age: of what was read again because it was doubted, of what is read whole each night, and of
/// what an export of everything brought.
fn present_in(pull: &Pull<'_>, units: &[Recorded]) -> Result<BTreeSet<String>, SourceError> {
    let whole = units.iter().filter(|unit| pull.plan.is_untimed(&unit.resource_type)).filter_map(|unit| unit.file.clone());
    let mut files = ledger::read_again(pull.snapshot.store(), pull.id)?;
    files.extend(whole.chain(bulk::files_of_whole(pull, units)));
    Ok(files)
}

pub(super) fn gaps_of(units: &[Recorded]) -> Vec<Gap> {
    let found: BTreeSet<(String, String, Code)> = units
        .iter()
        .filter_map(|unit| {
            let why = unit.gap.as_ref()?;
            Some((unit.resource_type.clone(), format!("{}: {why}", unit.query), why.code))
        })
        .collect();
    found.into_iter().map(|(resource_type, reason, code)| Gap { resource_type, patient: None, reason, code }).collect()
}

/// What is to be known of what came whole, but for what a person accepted in an earlier pull, and rows of others in tables that may have them.
pub(super) fn notes_of(units: &[Recorded]) -> impl Iterator<Item = Gap> + '_ {
    let found: BTreeSet<(&str, &Why)> = units.iter().filter_map(|unit| Some((unit.resource_type.as_str(), unit.note.as_ref()?))).collect();
    let told = found.into_iter().filter(|(_, why)| !why.code.is_acceptable() && why.code != Code::Import);
    told.map(|(resource_type, why)| Gap { resource_type: resource_type.to_owned(), patient: None, reason: why.text.clone(), code: why.code })
}

/// Records a gap that is of no query's.
fn note_gap(pull: &Pull<'_>, gaps: &mut Vec<Gap>, resource_type: &str, query: &str, why: Why) -> Result<(), SourceError> {
    gaps.push(Gap { resource_type: resource_type.to_owned(), patient: None, reason: why.text.clone(), code: why.code });
    let name = format!("{query} {resource_type}");
    pull.record(&Unit { name, resource_type: resource_type.to_owned(), query: query.to_owned(), gap: Some(why), ..Unit::default() })
}

/// Records what is to be known of what came whole, and is of no query's.
pub(super) fn note(pull: &Pull<'_>, notes: &mut Vec<Gap>, resource_type: &str, query: &str, why: Why) -> Result<(), SourceError> {
    notes.push(Gap { resource_type: resource_type.to_owned(), patient: None, reason: why.text.clone(), code: why.code });
    let name = format!("{query} {resource_type}");
    pull.record(&Unit { name, resource_type: resource_type.to_owned(), query: query.to_owned(), note: Some(why), ..Unit::default() })
}

/// What came otherwise than it should have, and what of that a person has accepted. Of what was asked for changes only it is what the
/// last reading of everything found: it has not been looked at since.
async fn doubts(pull: &Pull<'_>, opened: &Opened, came: &Came<'_>, prepared: &Prepared) -> Result<(Vec<Doubt>, Vec<Gap>), SourceError> {
    let mut found = census::doubts(pull, came.units, came.imported, prepared).await?;
    if !opened.full {
        let standing = ledger::standing(pull.snapshot.store(), &pull.source.name(), &pull.plan.digest(), &STANDING)?;
        let is_named = |code: Code| matches!(code, Code::Listed | Code::Members);
        let is_told = search::absent::is_told(pull, came.units)?;
        let told: BTreeSet<(String, Code)> = found.iter().map(|one| (one.resource_type.clone(), one.why.code)).collect();
        let standing = standing
            .into_iter()
            .filter(|one| !(pull.reads_whole(&one.resource_type) || is_told && is_named(one.why.code) || told.contains(&(one.resource_type.clone(), one.why.code))));
        found.extend(standing.map(|one| Doubt { resource_type: one.resource_type, why: one.why, is_settled: false }));
    }
    let is_accepted = |doubt: &Doubt| {
        let before = pull.accepted.contains(&(doubt.resource_type.clone(), doubt.why.code));
        doubt.is_settled || doubt.why.code.is_acceptable() && (before || pull.source.options.tuning.accepts_loss)
    };
    let (accepted, doubts): (Vec<Doubt>, Vec<Doubt>) = found.into_iter().partition(is_accepted);
    let mut notes = Vec::new();
    for Doubt { resource_type, why, .. } in accepted {
        note(pull, &mut notes, &resource_type, &why.code.word(), why)?;
    }
    Ok((doubts, notes))
}

/// Types whose every unit came whole, with nothing refused.
pub(super) fn sound_types(pull: &Pull<'_>, units: &[Recorded]) -> BTreeSet<String> {
    let unsound = |unit: &&Recorded| unit.gap.is_some() || unit.quarantined > 0;
    let broken: BTreeSet<&str> = units.iter().filter(unsound).map(|unit| unit.resource_type.as_str()).collect();
    if broken.contains("*") {
        return BTreeSet::new();
    }
    pull.plan.types.iter().filter(|name| !broken.contains(name.as_str())).cloned().collect()
}

/// Those of them that are read whole in this pull.
pub(super) fn whole_types(pull: &Pull<'_>, units: &[Recorded]) -> BTreeSet<String> {
    sound_types(pull, units).into_iter().filter(|name| pull.reads_whole(name)).collect()
}

/// A server that suddenly shows less than half of what is stored of a type, or much less than in earlier nights, is not
/// believed: nothing is to be removed, of no type, and a gap says so, until a person has accepted the loss.
fn refuse_sudden_loss(
    pull: &Pull<'_>,
    units: &[Recorded],
    is_full: bool,
    full_types: &BTreeSet<String>,
    full_of: &BTreeMap<String, BTreeSet<String>>,
    gaps: &mut Vec<Gap>,
) -> Result<bool, SourceError> {
    if full_types.is_empty() && full_of.is_empty() || pull.source.options.tuning.accepts_loss {
        return Ok(false);
    }
    let mut received: BTreeMap<&str, u64> = BTreeMap::new();
    for unit in units {
        *received.entry(&unit.resource_type).or_default() += unit.received;
    }
    let came = |name: &str| received.get(name).copied().unwrap_or_default();
    let (name, plan) = (pull.source.name(), pull.plan.digest());
    let kind = account::Kind { source: &name, plan: &plan, full: true, before: pull.id.0 };
    // Of what was asked for changes only, less came than there is: few or many, as they come.
    let is_whole = |name: &str| is_full || full_types.contains(name) || full_of.contains_key(name) && pull.plan.is_untimed(name);
    let mut usual = pull.snapshot.store().with(|connection| account::usual(connection, &kind))?;
    let leavers = leavers(pull)?;
    let left = |name: &str| if leavers.is_empty() { Ok(0) } else { pull.snapshot.count_of(name, &leavers) };
    // Where fewer are named than usually came, what there is to come is what is stored of them.
    let is_fewer = pull.members.as_ref().zip(usual.get("Patient")).is_some_and(|(members, usual)| (members.len() as u64) < usual.median);
    usual.retain(|name, _| is_whole(name));
    // What this client may not read is not lost.
    let is_refused = |unit: &&Recorded| unit.gap.as_ref().is_some_and(is_forbidden);
    let forbidden: BTreeSet<&str> = units.iter().filter(is_refused).map(|unit| unit.resource_type.as_str()).collect();
    let of_all = |name: &str| pull.plan.types.contains(name) && !pull.later.contains_key(name) && !forbidden.contains(name);
    let mut stored: BTreeMap<String, u64> = pull.snapshot.counts()?.into_iter().filter(|(name, _)| of_all(name)).collect();
    let mut losses: BTreeMap<String, String> = BTreeMap::new();
    for (name, usual) in usual.iter().filter(|(name, usual)| of_all(name) && usual.is_fallen_to(came(name))) {
        let of_named = stored.get(name).copied().unwrap_or_default().saturating_sub(left(name)?);
        if !is_fewer || account::is_fall(of_named, came(name)) {
            losses.insert(name.clone(), format!("{} came where {} usually do", came(name), usual.median));
        }
    }
    // What is asked for by code for the first time is less than what is stored, and not for a loss.
    let is_new = pull.snapshot.store().with(|connection| ledger::last_full(connection, &name, &plan))?.is_none();
    let is_comparable = |name: &str| !(is_new && pull.plan.is_narrowed(name));
    for (name, patients) in full_of.iter().filter(|(name, _)| is_whole(name)) {
        stored.insert(name.clone(), pull.snapshot.count_of(name, patients)?);
    }
    let is_less = |name: &str, stored: u64| stored >= account::VOLUME_MIN && came(name).saturating_mul(2) < stored;
    for (name, stored) in stored.into_iter().filter(|(name, stored)| is_whole(name) && is_comparable(name) && is_less(name, *stored)) {
        let stored = if full_of.contains_key(&name) { stored } else { stored.saturating_sub(left(&name)?) };
        if is_less(&name, stored) {
            let reason = format!("{} came where {stored} are stored", came(&name));
            losses.insert(name, reason);
        }
    }
    let is_suspicious = !losses.is_empty();
    // What is not full has a gap already.
    for (resource_type, loss) in losses.into_iter().filter(|(name, _)| full_types.contains(name) || full_of.contains_key(name)) {
        note_loss(pull, gaps, &resource_type, &loss)?;
    }
    Ok(is_suspicious)
}

/// Whether something is missing because this client may not read it.
fn is_forbidden(why: &Why) -> bool {
    matches!(why.code, Code::Forbidden | Code::Ungranted | Code::Unasked)
}

fn note_loss(pull: &Pull<'_>, gaps: &mut Vec<Gap>, resource_type: &str, loss: &str) -> Result<(), SourceError> {
    let reason = format!("{loss}; what is stored is kept until a steward has looked; if they are gone, `watershed pull --accept-loss`");
    note_gap(pull, gaps, resource_type, "volume", Why::new(Code::Loss, reason))
}

/// What names the patients.
fn whom(cohort: &Cohort) -> &'static str {
    match cohort {
        Cohort::List => "the list of patients",
        Cohort::Search(_) => "`source.patients_search`",
        Cohort::Group(_) | Cohort::Everybody => "the Group",
    }
}

/// Of whom something is stored, and who are named no more: what is stored of them is no loss.
fn leavers(pull: &Pull<'_>) -> Result<BTreeSet<String>, SourceError> {
    let Some(members) = pull.members.as_ref().filter(|_| pull.habits.unnamed().is_none()) else { return Ok(BTreeSet::new()) };
    if suddenly_few(pull, members)?.is_some() {
        return Ok(BTreeSet::new());
    }
    Ok(pull.snapshot.patient_ids()?.into_iter().filter(|id| !members.contains(id)).collect())
}

/// How many patients are stored, where suddenly so few are named that this is not believed.
fn suddenly_few(pull: &Pull<'_>, members: &BTreeSet<String>) -> Result<Option<u64>, SourceError> {
    let stored = pull.snapshot.counts()?.get("Patient").copied().unwrap_or_default();
    let named = members.difference(pull.habits.left()).count() as u64;
    let is_few = stored >= account::VOLUME_MIN && named.saturating_mul(2) < stored;
    Ok((is_few && !pull.source.options.tuning.accepts_loss).then_some(stored))
}

/// The members of the Group, unless there are suddenly so few of them that nobody is removed for it, and a gap says so.
fn believed_members(pull: &Pull<'_>, gaps: &mut Vec<Gap>) -> Result<Option<BTreeSet<String>>, SourceError> {
    let Some(members) = &pull.members else { return Ok(None) };
    if let Some(why) = pull.habits.lost() {
        note_gap(pull, gaps, "Patient", "identifiers", why.clone())?;
    }
    if let Some(why) = pull.habits.unnamed() {
        note_gap(pull, gaps, "Patient", "members", why.clone())?;
        return Ok(None);
    }
    if let Some(stored) = suddenly_few(pull, members)? {
        let named = members.difference(pull.habits.left()).count();
        note_loss(pull, gaps, "Patient", &format!("{} names {named} where {stored} are stored", whom(&pull.plan.cohort)))?;
        return Ok(None);
    }
    Ok(Some(members.clone()))
}

/// New cursors for types that came whole (refused resources would otherwise never be asked for again), and the types
/// that can have none because the server does not date its resources. A cursor is never later than `newest`, the newest
/// change that any type has shown: what answers may be a copy that lags behind the clock on its wall. Nor is it later than our own
/// `now`: a clock that is ahead will be put right, and what changes then is dated before what it said.
fn cursors(units: &[Recorded], sound: &BTreeSet<String>, newest: Option<Timestamp>, now: Timestamp) -> (BTreeMap<String, Timestamp>, BTreeSet<String>) {
    let mut cursors: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut without: BTreeSet<String> = BTreeSet::new();
    for unit in units {
        match unit.server_time {
            _ if unit.undated > 0 => {
                without.insert(unit.resource_type.clone());
            }
            Some(at) => {
                let at = newest.map_or(at, |newest| at.min(newest)).min(now);
                let earliest = cursors.entry(unit.resource_type.clone()).or_insert(at);
                *earliest = at.min(*earliest);
            }
            None => {
                without.insert(unit.resource_type.clone());
            }
        }
    }
    cursors.retain(|name, _| sound.contains(name) && !without.contains(name));
    (cursors, without)
}

/// A unit while it is being received.
pub(super) struct Receiving<'a> {
    pull: &'a Pull<'a>,
    stage: Stage,
    /// What will be recorded.
    pub unit: Unit,
    only_patients: Option<&'a BTreeSet<String>>,
    /// What names its patient by an identifier.
    identified: Option<Stage>,
    /// The last time of change, and how many resources of patients in a row had it.
    instant: (Option<i64>, u64),
}

/// A resource that was taken.
pub(super) struct Taken {
    pub resource_type: String,
    pub id: String,
    pub hash: [u8; 32],
    /// `meta.lastUpdated`, in microseconds since 1970.
    pub updated: Option<i64>,
}

impl Pull<'_> {
    /// From when changes of a type are asked for; `None`: all of it is.
    pub fn since_of(&self, resource_type: &str) -> Option<Timestamp> {
        self.behind.get(resource_type).map_or(self.since, |own| self.since.and(*own))
    }

    /// Whether all of a type is read, and not what has changed of it.
    pub fn reads_whole(&self, resource_type: &str) -> bool {
        self.full || self.plan.is_untimed(resource_type)
    }

    /// Starts (or starts again) to receive a unit.
    pub fn receive<'a>(&'a self, unit: Unit, only_patients: Option<&'a BTreeSet<String>>) -> Result<Receiving<'a>, SourceError> {
        let stage = self.snapshot.stage(self.id, &unit.name)?;
        Ok(Receiving { pull: self, stage, unit, only_patients, identified: None, instant: (None, 0) })
    }

    /// Whether a person has discarded what a line says. Among changes what is no object may stand for any resource, which is stored as
    /// it was: only where everything is read is it known to be left out.
    fn is_discarded(&self, resource_type: &str, line: &[u8]) -> bool {
        let is_known = || self.discarded.contains(&crate::store::sha256_hex(line));
        !self.discarded.is_empty() && is_known() && (self.reads_whole(resource_type) || Head::read(line).is_some())
    }

    fn is_accepted(&self, unit: &Unit) -> bool {
        let is_by_person = self.source.options.tuning.accepts_loss || self.accepted.contains(&(unit.resource_type.clone(), Code::Hidden));
        is_by_person && unit.gap.as_ref().is_some_and(|why| why.code == Code::Hidden)
    }

    /// Records a unit.
    pub fn record(&self, unit: &Unit) -> Result<(), SourceError> {
        self.record_together(std::slice::from_ref(unit))
    }

    /// Records units that are one: all of them or none.
    pub fn record_together(&self, units: &[Unit]) -> Result<(), SourceError> {
        if units.iter().any(|unit| self.is_accepted(unit)) {
            let accepted = |unit: Unit| if self.is_accepted(&unit) { Unit { note: unit.gap, gap: None, ..unit } } else { unit };
            return self.record_together(&units.iter().cloned().map(accepted).collect::<Vec<Unit>>());
        }
        for (unit, reason) in units.iter().filter_map(|unit| Some((unit, unit.gap.as_ref()?))) {
            tracing::warn!(pull = self.id.0, query = %unit.query, %reason, "gap");
        }
        self.progress.advance(1);
        Ok(ledger::record(self.snapshot.store(), self.id, units)?)
    }
}

/// Keeps a refused line of a unit, encrypted: its bytes, as many as are kept; its length; its number.
pub(super) fn refuse(unit: &mut Unit, key: &Key, reason: String, resource_type: Option<String>, (line, bytes, entry): (&[u8], u64, u64)) -> Result<(), SourceError> {
    if unit.refused.len() >= REFUSED_KEPT_MAX {
        unit.refused_uncounted += 1;
        return Ok(());
    }
    let kept = line.get(..REFUSED_BYTES_MAX).unwrap_or(line);
    let sealed = seal_bytes(key, QUARANTINE_SEAL, kept).map_err(|_| SourceError::Options("a refused line could not be sealed".to_owned()))?;
    let (source, sha256) = (unit.query.clone(), crate::store::sha256_hex(line));
    unit.refused.push(Refused { reason, source, entry, resource_type, bytes, sha256, sealed });
    Ok(())
}

impl Receiving<'_> {
    /// Takes one resource as received, unless it is refused.
    pub fn take(&mut self, json: &[u8], entry: u64) -> Result<Option<Taken>, SourceError> {
        self.unit.received += 1;
        if self.pull.is_discarded(&self.unit.resource_type, json) {
            self.unit.discarded += 1;
            return Ok(None);
        }
        let mut incoming = match judge(json, &self.pull.plan.types) {
            Ok(incoming) => incoming,
            // Nobody asked for it, so that nothing is missing without it: an export may add Provenance, or ignore `_type`.
            Err((Reason::Unrequested, _)) => return Ok(None),
            Err((_, Some(resource_type))) if self.is_left_out(&resource_type, json) => return Ok(None),
            Err((reason, resource_type)) => {
                self.refuse(reason, resource_type, json, json.len() as u64, entry)?;
                return Ok(None);
            }
        };
        if self.is_left_out(&incoming.header.resource_type, &incoming.json) {
            return Ok(None);
        }
        if self.pull.source.options.unstable_ids.contains(&incoming.header.resource_type) {
            by_content(&mut incoming);
        }
        let header = &incoming.header;
        let outside = self.only_patients.is_some_and(|patients| !header.patient.is_empty() && !patients.contains(&header.patient));
        let taken = Taken { resource_type: header.resource_type.clone(), id: header.id.clone(), hash: header.hash, updated: header.updated };
        if is_identified(&incoming) {
            self.unit.undated += u64::from(header.updated.is_none());
            let stage = match &mut self.identified {
                Some(stage) => stage,
                none => none.insert(self.pull.snapshot.stage(self.pull.id, &format!("{} waiting", self.unit.name))?),
            };
            stage.push(&identified::waiting(incoming, entry))?;
        } else if !outside {
            self.unit.undated += u64::from(header.updated.is_none());
            self.note_instant(&incoming);
            self.stage.push(&incoming)?;
        }
        Ok(Some(taken))
    }

    /// Types that are asked for.
    pub fn types(&self) -> &BTreeSet<String> {
        &self.pull.plan.types
    }

    /// Whether the export asks for other codes of the type.
    fn is_left_out(&self, resource_type: &str, json: &[u8]) -> bool {
        let codes = self.pull.plan.export.as_ref().and_then(|export| export.codes.get(resource_type));
        codes.is_some_and(|codes| !has_code(json, codes))
    }

    fn note_instant(&mut self, incoming: &Incoming) {
        let (last, count) = self.instant;
        let same = last.is_none() || last == incoming.header.updated;
        match incoming.header.updated {
            Some(updated) if same && !incoming.header.patient.is_empty() => self.instant = (Some(updated), count.saturating_add(1)),
            Some(_) if incoming.header.patient.is_empty() => {}
            // Two times are enough to be believed.
            _ => self.instant = (Some(i64::MIN), 0),
        }
    }

    /// Takes what was received before, and judged.
    pub fn put(&mut self, mut incoming: Incoming) -> Result<(), SnapshotError> {
        if self.pull.source.options.unstable_ids.contains(&incoming.header.resource_type) {
            by_content(&mut incoming);
        }
        self.stage.push(&incoming)
    }

    /// Takes a tombstone.
    pub fn take_removal(&mut self, tombstone: &Incoming) -> Result<(), SourceError> {
        Ok(self.stage.push(tombstone)?)
    }

    /// Keeps a refused line, encrypted, unless it was discarded.
    pub fn refuse(&mut self, reason: Reason, resource_type: Option<String>, line: &[u8], length: u64, entry: u64) -> Result<(), SourceError> {
        if self.pull.is_discarded(&self.unit.resource_type, line) {
            self.unit.discarded += 1;
            return Ok(());
        }
        refuse(&mut self.unit, self.pull.snapshot.key(), reason.text().to_owned(), resource_type, (line, length, entry))
    }

    /// Makes the unit durable; with a gap, what did come is kept too.
    pub fn finish(mut self, gap: Option<Why>) -> Result<Unit, SourceError> {
        self.unit.staged = Some(self.stage.finish()?);
        self.unit.identified = self.identified.map(Stage::finish).transpose()?.map(|(file, _)| file);
        self.unit.gap = gap;
        // In a reading of changes one instant may be one transaction; in a full one it is no time of change.
        if self.pull.since_of(&self.unit.resource_type).is_none() && self.instant.1 >= ONE_INSTANT_MIN {
            self.unit.undated = self.unit.received;
        }
        self.pull.progress.received(self.unit.received);
        Ok(self.unit)
    }
}
