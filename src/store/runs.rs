//! Nights: each a row that only moves forward, so that a killed one is found and finished, with its own "now".

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use super::{StoreError, quarantine};

/// Stands for every type, among what is missing: it may be of any.
pub const ANY_TYPE: &str = "*";
/// Runs listed at most.
pub const LISTED_MAX: u32 = 1000;

/// How far a night came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Fetching from the EHR.
    Pulling,
    /// The snapshot is committed; reports are being made.
    Evaluating,
    /// The feed is in the outbox.
    Delivering,
    /// Over.
    Finished,
    /// Given up, with its reason.
    Failed,
}

impl State {
    /// As stored.
    pub fn word(self) -> &'static str {
        match self {
            State::Pulling => "pulling",
            State::Evaluating => "evaluating",
            State::Delivering => "delivering",
            State::Finished => "finished",
            State::Failed => "failed",
        }
    }

    fn read(word: &str) -> Result<State, StoreError> {
        [State::Pulling, State::Evaluating, State::Delivering, State::Finished, State::Failed]
            .into_iter()
            .find(|state| state.word() == word)
            .ok_or_else(|| StoreError::Corrupt(format!("run state `{word}`")))
    }

    /// Whether a night may go from this state to the next. Finished and failed ones never move again; one whose data are damaged
    /// is evaluated anew when they have been read again.
    pub fn may_become(self, next: State) -> bool {
        use State::{Delivering, Evaluating, Failed, Finished, Pulling};
        matches!((self, next), (Pulling | Evaluating, Evaluating) | (Evaluating, Delivering | Finished) | (Delivering, Finished) | (Pulling | Evaluating | Delivering, Failed))
    }
}

/// One night.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Row.
    pub id: i64,
    /// The scheduled instant it answers; none when a person asked for it.
    pub scheduled_at: Option<Timestamp>,
    /// Its "now", fixed at its first start.
    pub started_at: Timestamp,
    /// The periods it reports, `START/END`, fixed at its first start.
    pub periods: Vec<String>,
    /// How far it came.
    pub state: State,
    /// The pull whose snapshot it evaluates.
    pub pull_id: Option<i64>,
    /// Whether everything asked for arrived.
    pub complete: Option<bool>,
    /// What could not be had, by resource type.
    pub gaps: BTreeMap<String, u64>,
    /// Lines and resources set aside, by resource type.
    pub aside: BTreeMap<String, u64>,
    /// Patients who did not come, as the evaluation found.
    pub absent: u64,
    /// Patients evaluated.
    pub patients: u64,
    /// Versions and digests of what the numbers depend on, JSON.
    pub lineage: Option<String>,
    /// The feed that carries its reports.
    pub feed: Option<String>,
    /// Why it failed, or what remains to be done.
    pub reason: Option<String>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

impl Run {
    /// A look at the data of a pull that is no night and leaves no row.
    pub fn over(pull: i64, now: Timestamp, periods: Vec<String>) -> Run {
        Run {
            id: 0,
            scheduled_at: None,
            started_at: now,
            periods,
            state: State::Evaluating,
            pull_id: Some(pull),
            complete: None,
            gaps: BTreeMap::new(),
            aside: BTreeMap::new(),
            absent: 0,
            patients: 0,
            lineage: None,
            feed: None,
            reason: None,
            finished_at: None,
        }
    }

    /// Whether everything and everybody came; `None` while it is not known.
    pub fn is_complete(&self) -> Option<bool> {
        self.complete.map(|complete| complete && self.absent == 0)
    }

    /// What could not be had, by resource type, patients who did not come among it: what the registry is told.
    pub fn all_gaps(&self) -> BTreeMap<String, u64> {
        let mut gaps = self.gaps.clone();
        if self.absent > 0 {
            *gaps.entry("Patient".to_owned()).or_default() += self.absent;
        }
        gaps
    }

    /// How much that is.
    pub fn gap_count(&self) -> u64 {
        self.all_gaps().values().sum()
    }

    /// Lines and resources set aside, of all types.
    pub fn quarantined(&self) -> u64 {
        self.aside.values().sum()
    }
}

/// What was found of one report: why it is held, or what a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportFindings {
    /// Canonical URL of the measure.
    pub measure: String,
    /// Its version.
    pub version: String,
    /// `period.start` of the report.
    pub period_start: String,
    /// `period.end` of the report.
    pub period_end: String,
    /// One finding a line.
    pub findings: String,
}

/// A code or unit that the mapping does not know, or a value that is none of its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unmapped {
    /// What it is: `unmapped-code`, `unmapped-answer`, `disagreeing-answer`, `disagreeing-code`, `unexpected-unit`, `unlike-unit`,
    /// `other-scale`, `other-type`, `comparator`, `unexpected-value`, `unreadable-value`, `unknown-system`, `near-codes`, `without-status`,
    /// `idle-rule`, `idle-entry`, `idle-entries`, `absent-replacement`, `absent-patient`.
    pub problem: String,
    /// The element.
    pub element: String,
    /// The local system.
    pub system: String,
    /// The local code.
    pub code: String,
    /// The unit, code or system that stands there, if it is told.
    pub found: String,
    /// What should stand there, or probably is meant.
    pub expected: String,
    /// Patients that have it.
    pub patients: u64,
}

/// Stands in the place of codes that may be anything.
pub const NOT_SHOWN: &str = "not shown: no code, or of one patient only";
/// What [`Unmapped::problem`] says of a value that is none of its type.
const UNREADABLE: &str = "unreadable-value";
/// And of Patients whose replacement did not come, and of those who did not come themselves.
const ABSENT: [&str; 2] = ["absent-replacement", "absent-patient"];

impl Unmapped {
    /// Whether no mapping could help: a value that is none of its type, a Patient that did not come.
    pub fn is_of_the_data(&self) -> bool {
        self.problem == UNREADABLE || self.is_absent()
    }

    /// Whether it is a code that the mapping does not translate, and shown.
    pub fn is_unmapped_code(&self) -> bool {
        self.problem == "unmapped-code" && !self.code.contains(NOT_SHOWN)
    }

    /// The code of FHIR's that is near to one that FHIR does not have; a code with a system is that of an observation.
    pub fn meant(&self) -> Option<&str> {
        Some(self.code.as_str()).filter(|code| !code.is_empty() && self.system.is_empty())
    }

    /// The code for people: in quotes where its ends cannot be seen.
    pub fn shown_code(&self) -> String {
        if self.code.trim() == self.code { self.code.clone() } else { format!("{:?}", self.code) }
    }

    /// Whether it is of Patients who did not come.
    pub fn is_absent(&self) -> bool {
        ABSENT.contains(&&*self.problem)
    }
}

const COLUMNS: &str = "id, scheduled_at, started_at, periods, state, pull_id, complete, gaps, aside, patients, lineage, feed, reason, finished_at, \
    (SELECT coalesce(sum(found.patients), 0) FROM run_unmapped AS found WHERE run_id = id AND problem IN ('absent-replacement', 'absent-patient'))";

fn read(row: &Row<'_>) -> Result<Run, StoreError> {
    let instant = |text: String| text.parse::<Timestamp>().map_err(|_| StoreError::Corrupt(format!("instant `{text}` of a run")));
    let scheduled: Option<String> = row.get(1)?;
    let finished: Option<String> = row.get(13)?;
    let by_type = |index: usize| {
        let text: String = row.get(index)?;
        serde_json::from_str(&text).map_err(|error| StoreError::Corrupt(format!("what was missing from a run: {error}")))
    };
    let periods: String = row.get(3)?;
    let count = |index: usize| row.get::<_, i64>(index).map(i64::unsigned_abs);
    Ok(Run {
        id: row.get(0)?,
        scheduled_at: scheduled.map(instant).transpose()?,
        started_at: instant(row.get(2)?)?,
        periods: serde_json::from_str(&periods).map_err(|error| StoreError::Corrupt(format!("periods of a run: {error}")))?,
        state: State::read(&row.get::<_, String>(4)?)?,
        pull_id: row.get(5)?,
        complete: row.get(6)?,
        gaps: by_type(7)?,
        aside: by_type(8)?,
        absent: count(14)?,
        patients: count(9)?,
        lineage: row.get(10)?,
        feed: row.get(11)?,
        reason: row.get(12)?,
        finished_at: finished.map(instant).transpose()?,
    })
}

fn select(connection: &Connection, rest: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<Vec<Run>, StoreError> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM run {rest}"))?;
    let mut rows = statement.query(parameters)?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        runs.push(read(row)?);
    }
    Ok(runs)
}

/// The night that was begun and is not over: there is at most one.
pub fn open(connection: &Connection) -> Result<Option<Run>, StoreError> {
    Ok(select(connection, "WHERE state NOT IN ('finished', 'failed')", &[])?.into_iter().next())
}

/// The latest nights, newest first.
pub fn list(connection: &Connection, limit: u32) -> Result<Vec<Run>, StoreError> {
    select(connection, "ORDER BY id DESC LIMIT ?1", &[&limit.min(LISTED_MAX)])
}

/// The latest night before `id` of which the registry has refused nothing: what replaces its numbers differs from these for a cause.
pub fn sent_before(connection: &Connection, id: i64) -> Result<Option<Run>, StoreError> {
    let refused = "SELECT 1 FROM outbox_feed f WHERE f.feed = run.feed AND f.state IN ('dead', 'rebuilt')";
    let rest = format!("WHERE id < ?1 AND lineage IS NOT NULL AND NOT EXISTS ({refused}) ORDER BY id DESC LIMIT 1");
    Ok(select(connection, &rest, &[&id])?.into_iter().next())
}

/// The latest finished night before `id` that evaluated something: what its rules are compared with.
pub fn evaluated_before(connection: &Connection, id: i64) -> Result<Option<Run>, StoreError> {
    Ok(select(connection, "WHERE id < ?1 AND lineage IS NOT NULL ORDER BY id DESC LIMIT 1", &[&id])?.into_iter().next())
}

/// The latest scheduled instant that a night answered, finished or not.
pub fn last_scheduled(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let text: Option<String> = connection.query_row("SELECT max(scheduled_at) FROM run", [], |row| row.get(0))?;
    text.map(|text| text.parse().map_err(|_| StoreError::Corrupt(format!("scheduled instant `{text}`")))).transpose()
}

/// Begins a night; its "now" and its periods are on disk before anything else happens. Fails if one is open.
pub fn begin(transaction: &Transaction<'_>, scheduled: Option<Timestamp>, now: Timestamp, periods: &[String]) -> Result<Run, StoreError> {
    let periods = serde_json::to_string(periods).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    transaction.execute(
        "INSERT INTO run (scheduled_at, started_at, periods, state) VALUES (?1, ?2, ?3, 'pulling')",
        params![scheduled.map(|instant| instant.to_string()), now.to_string(), periods],
    )?;
    get(transaction, transaction.last_insert_rowid())?.ok_or_else(|| StoreError::Corrupt("a run that was just begun is gone".to_owned()))
}

/// The night of that row.
pub fn get(connection: &Connection, id: i64) -> Result<Option<Run>, StoreError> {
    Ok(select(connection, "WHERE id = ?1", &[&id])?.into_iter().next())
}

/// What was known at an instant: the night that evaluated the last pull that had ended by then; where no night did, the pull
/// alone, as a night at its end would have, without periods. `None` when no pull had ended.
pub fn known_at(connection: &Connection, at: Timestamp) -> Result<Option<Run>, StoreError> {
    let mut statement = connection.prepare("SELECT id, finished_at, complete, quarantined FROM pull WHERE state = 'committed' ORDER BY id DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, finished): (i64, String) = (row.get(0)?, row.get(1)?);
        let finished: Timestamp = finished.parse().map_err(|_| StoreError::Corrupt(format!("instant `{finished}` of a pull")))?;
        if finished > at {
            continue;
        }
        let night = select(connection, "WHERE pull_id = ?1 AND state <> 'failed' ORDER BY id LIMIT 1", &[&id])?.into_iter().next();
        let alone = Run {
            complete: row.get(2)?,
            gaps: gaps_of_pull(connection, id)?,
            aside: of_any_type(row.get::<_, i64>(3)?.unsigned_abs()),
            ..Run::over(id, finished, Vec::new())
        };
        return Ok(Some(night.unwrap_or(alone)));
    }
    Ok(None)
}

/// What lies beside a pull in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// When it ended.
    pub ended: Timestamp,
    /// When the one after it began, if there is one.
    pub next: Option<Timestamp>,
    /// When the registry took the last feed between them that no night here made: it was adopted, in the place of lost nights.
    pub lost: Option<Timestamp>,
}

/// What lies beside a pull; `None` where it has not ended.
pub fn beside(connection: &Connection, pull: i64) -> Result<Option<Beside>, StoreError> {
    let instant = |text: String| text.parse::<Timestamp>().map_err(|_| StoreError::Corrupt(format!("instant `{text}` of a pull")));
    let ended: Option<Option<String>> = connection.query_row("SELECT finished_at FROM pull WHERE id = ?1", [pull], |row| row.get(0)).optional()?;
    let Some(ended) = ended.flatten().map(instant).transpose()? else { return Ok(None) };
    let after = "SELECT started_at FROM pull WHERE id > ?1 AND state <> 'abandoned' ORDER BY id LIMIT 1";
    let next = connection.query_row(after, [pull], |row| row.get(0)).optional()?.map(instant).transpose()?;
    let unmade = "SELECT max(settled_at) FROM outbox_feed f WHERE state = 'delivered' AND settled_at > ?1 AND settled_at < ?2
        AND NOT EXISTS (SELECT 1 FROM run WHERE run.feed = f.feed AND run.pull_id <= ?3)";
    let until = next.map_or(i64::MAX, Timestamp::as_millisecond);
    let lost: Option<i64> = connection.query_row(unmade, [ended.as_millisecond(), until, pull], |row| row.get(0))?;
    Ok(Some(Beside { ended, next, lost: lost.and_then(|at| Timestamp::from_millisecond(at).ok()) }))
}

/// When the first pull ended, if one did.
pub fn known_since(connection: &Connection) -> Result<Option<String>, StoreError> {
    Ok(connection.query_row("SELECT min(finished_at) FROM pull WHERE state = 'committed'", [], |row| row.get(0))?)
}

/// The resource types of which anything was asked for in a pull or before it.
pub fn types_asked_by(connection: &Connection, pull: i64) -> Result<BTreeSet<String>, StoreError> {
    let mut statement = connection.prepare("SELECT DISTINCT resource_type FROM unit WHERE pull_id <= ?1 AND name NOT LIKE 'import %'")?;
    let rows = statement.query_map([pull], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn of_any_type(count: u64) -> BTreeMap<String, u64> {
    if count == 0 { BTreeMap::new() } else { BTreeMap::from([(ANY_TYPE.to_owned(), count)]) }
}

/// Where nothing was let go of, what is gone may still be there, of whatever type.
fn gaps_of_pull(connection: &Connection, pull: i64) -> Result<BTreeMap<String, u64>, StoreError> {
    let distinct = "SELECT DISTINCT resource_type, query, reason FROM unit WHERE pull_id = ?1 AND state = 'gap'";
    let mut statement = connection.prepare(&format!("SELECT resource_type, count(*) FROM ({distinct}) GROUP BY resource_type"))?;
    let rows = statement.query_map([pull], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    let gaps: BTreeMap<String, u64> = rows.collect::<Result<_, _>>()?;
    let kept_all: bool = connection.query_row("SELECT kept_all FROM pull WHERE id = ?1", [pull], |row| row.get(0))?;
    Ok(if kept_all { of_any_type(gaps.values().sum::<u64>().max(1)) } else { gaps })
}

/// What is missing from a pull: what did not come, and what waits in quarantine. Of a type of which something was refused and nothing
/// waits - it was not kept, is of another type than was asked for, or was decided while it was read - that is a gap; so it is of a file of
/// several types of which not all lines that were refused wait.
pub fn missing_from(connection: &Connection, pull: i64) -> Result<Missing, StoreError> {
    let (mut gaps, aside) = (gaps_of_pull(connection, pull)?, quarantine::waiting(connection)?);
    let waiting = "SELECT count(*) FROM quarantine WHERE source = unit.query AND quarantine.state IN ('held', 'retry')";
    let mut statement = connection
        .prepare(&format!("SELECT DISTINCT resource_type FROM unit WHERE pull_id = ?1 AND quarantined > 0 AND (resource_type <> '{ANY_TYPE}' OR quarantined > ({waiting}))"))?;
    for name in statement.query_map([pull], |row| row.get::<_, String>(0))? {
        let name = name?;
        if ![&name, ANY_TYPE].iter().any(|name| gaps.contains_key(*name) || aside.contains_key(*name)) {
            gaps.insert(name, 1);
        }
    }
    Ok(Missing { gaps, aside })
}

fn advance(transaction: &Transaction<'_>, id: i64, next: State) -> Result<(), StoreError> {
    let word: Option<String> = transaction.query_row("SELECT state FROM run WHERE id = ?1", [id], |row| row.get(0)).optional()?;
    let state = State::read(&word.unwrap_or_default())?;
    if !state.may_become(next) {
        return Err(StoreError::Corrupt(format!("a run that is {} cannot become {}", state.word(), next.word())));
    }
    transaction.execute("UPDATE run SET state = ?2 WHERE id = ?1", params![id, next.word()])?;
    Ok(())
}

/// What is missing from a pull, by resource type; `*` is of any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// What could not be had.
    pub gaps: BTreeMap<String, u64>,
    /// What was set aside.
    pub aside: BTreeMap<String, u64>,
}

/// The pull is committed; what is missing from it decides how the reports of the night are labelled.
pub fn pulled(transaction: &Transaction<'_>, id: i64, pull_id: i64, complete: bool, missing: &Missing) -> Result<(), StoreError> {
    let json = |by_type: &BTreeMap<String, u64>| serde_json::to_string(by_type).unwrap_or_default();
    advance(transaction, id, State::Evaluating)?;
    transaction
        .execute("UPDATE run SET pull_id = ?2, complete = ?3, gaps = ?4, aside = ?5 WHERE id = ?1", params![id, pull_id, complete, json(&missing.gaps), json(&missing.aside)])?;
    Ok(())
}

/// What an evaluation leaves behind beside its feed.
#[derive(Clone, Debug, Default)]
pub struct Evaluated {
    /// Patients evaluated.
    pub patients: u64,
    /// Versions and digests, JSON.
    pub lineage: String,
    /// The feed, if there was anything to send.
    pub feed: Option<String>,
    /// Reports that wait for a person.
    pub held: Vec<ReportFindings>,
    /// What a person should look at in those that are sent.
    pub remarks: Vec<ReportFindings>,
    /// What the mapping does not know.
    pub unmapped: Vec<Unmapped>,
}

/// The reports are made; called in the transaction that appends the feed to the outbox.
pub fn evaluated(transaction: &Transaction<'_>, id: i64, evaluated: &Evaluated) -> Result<(), StoreError> {
    advance(transaction, id, State::Delivering)?;
    transaction.execute("UPDATE run SET patients = ?2, lineage = ?3, feed = ?4 WHERE id = ?1", params![id, count(evaluated.patients), evaluated.lineage, evaluated.feed])?;
    for (table, reports) in [("run_held", &evaluated.held), ("run_remark", &evaluated.remarks)] {
        let mut insert = transaction.prepare_cached(&format!("INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6)"))?;
        for found in reports {
            insert.execute(params![id, found.measure, found.version, found.period_start, found.period_end, found.findings])?;
        }
    }
    let mut insert = transaction.prepare_cached("INSERT INTO run_unmapped VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for Unmapped { problem, element, system, code, found, expected, patients } in &evaluated.unmapped {
        insert.execute(params![id, problem, element, system, code, found, expected, count(*patients)])?;
    }
    Ok(())
}

/// The night is over; `reason` says what remains to be done, if anything does.
pub fn finish(transaction: &Transaction<'_>, id: i64, reason: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    advance(transaction, id, State::Finished)?;
    close(transaction, id, reason, now)
}

/// The night is given up; the next one starts anew.
pub fn fail(transaction: &Transaction<'_>, id: i64, reason: &str, now: Timestamp) -> Result<(), StoreError> {
    advance(transaction, id, State::Failed)?;
    close(transaction, id, Some(reason), now)
}

fn close(transaction: &Transaction<'_>, id: i64, reason: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    transaction.execute("UPDATE run SET reason = ?2, finished_at = ?3 WHERE id = ?1", params![id, reason, now.to_string()])?;
    Ok(())
}

/// The reports that a night held back.
pub fn held(connection: &Connection, id: i64) -> Result<Vec<ReportFindings>, StoreError> {
    of_reports(connection, "run_held", id)
}

/// Those that it sent and that a person should look at.
pub fn remarks(connection: &Connection, id: i64) -> Result<Vec<ReportFindings>, StoreError> {
    of_reports(connection, "run_remark", id)
}

fn of_reports(connection: &Connection, table: &str, id: i64) -> Result<Vec<ReportFindings>, StoreError> {
    let select = format!("SELECT measure, version, period_start, period_end, findings FROM {table} WHERE run_id = ?1 ORDER BY measure, period_start");
    let mut statement = connection.prepare(&select)?;
    let rows = statement
        .query_map([id], |row| Ok(ReportFindings { measure: row.get(0)?, version: row.get(1)?, period_start: row.get(2)?, period_end: row.get(3)?, findings: row.get(4)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What a night could not translate, by how many patients it would unlock; what may cost all that a rule is for comes first.
pub fn unmapped(connection: &Connection, id: i64) -> Result<Vec<Unmapped>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT problem, element, system, code, found, expected, patients FROM run_unmapped WHERE run_id = ?1 \
         ORDER BY CASE problem WHEN 'idle-rule' THEN 0 WHEN 'unknown-system' THEN 1 WHEN 'near-codes' THEN 1 ELSE 2 END, patients DESC, element, code, found, expected",
    )?;
    let rows = statement.query_map([id], |row| {
        let patients = row.get::<_, i64>(6)?.unsigned_abs();
        Ok(Unmapped { problem: row.get(0)?, element: row.get(1)?, system: row.get(2)?, code: row.get(3)?, found: row.get(4)?, expected: row.get(5)?, patients })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Counts are far below 2^63.
fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn instant(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn spans() -> Vec<String> {
        vec!["2026-01-01/2026-01-31".into()]
    }

    #[test]
    fn a_night_keeps_its_now_and_only_one_is_open() {
        let store = Store::open_in_memory().unwrap();
        let now = instant("2026-03-01T06:30:00Z");
        let run = store.transaction(|tx| begin(tx, Some(now), now, &spans())).unwrap();
        assert!(store.transaction(|tx| begin(tx, None, instant("2026-03-02T06:30:00Z"), &spans())).is_err());
        let found = store.with(|connection| open(connection)).unwrap().unwrap();
        assert_eq!((found.id, found.started_at, found.periods, found.state), (run.id, now, spans(), State::Pulling));
        assert_eq!(store.with(|connection| last_scheduled(connection)).unwrap(), Some(now));
    }

    #[test]
    fn a_night_whose_feed_was_refused_is_none_that_the_next_replaces() {
        let store = Store::open_in_memory().unwrap();
        let night = |feed: &str, state: &str| {
            let run = store.transaction(|tx| begin(tx, None, instant("2026-03-01T06:30:00Z"), &spans())).unwrap();
            store
                .transaction(|tx| {
                    let of_feed = "INSERT INTO outbox_feed (feed, destination, site, epoch, manifest, manifest_sha256, reports, state, next_attempt_at, created_at)
                                   VALUES (?1, 'network', 's', 0, x'', ?1, 1, ?2, 0, 0)";
                    tx.execute(of_feed, params![feed, state])?;
                    tx.execute("UPDATE run SET lineage = '{}', feed = ?2, state = 'finished' WHERE id = ?1", params![run.id, feed])?;
                    Ok::<_, StoreError>(run.id)
                })
                .unwrap()
        };
        let nights = [night("a", "delivered"), night("b", "dead"), night("c", "rebuilt"), night("d", "pending")];
        let before = |id: i64, of: fn(&Connection, i64) -> Result<Option<Run>, StoreError>| store.with(|connection| of(connection, id)).unwrap().map(|run| run.id);
        assert_eq!(nights.map(|id| before(id, sent_before)), [None, Some(nights[0]), Some(nights[0]), Some(nights[0])]);
        assert_eq!(before(i64::MAX, sent_before), Some(nights[3]), "what waits is sent");
        assert_eq!(before(nights[2], evaluated_before), Some(nights[1]));
    }

    #[test]
    fn states_only_move_forward_and_the_last_ones_never() {
        let states = [State::Pulling, State::Evaluating, State::Delivering, State::Finished, State::Failed];
        let allowed: Vec<String> = states
            .iter()
            .flat_map(|from| states.iter().filter(|to| from.may_become(**to)).map(move |to| format!("{} {}", from.word(), to.word())))
            .collect();
        assert_eq!(
            allowed,
            [
                "pulling evaluating",
                "pulling failed",
                "evaluating evaluating",
                "evaluating delivering",
                "evaluating finished",
                "evaluating failed",
                "delivering finished",
                "delivering failed"
            ]
        );
        let store = Store::open_in_memory().unwrap();
        let now = instant("2026-03-01T06:30:00Z");
        let run = store.transaction(|tx| begin(tx, None, now, &spans())).unwrap();
        assert!(store.transaction(|tx| finish(tx, run.id, None, now)).is_err());
        store.transaction(|tx| fail(tx, run.id, "EHR unreachable", now)).unwrap();
        assert!(store.transaction(|tx| fail(tx, run.id, "again", now)).is_err());
        assert_eq!(store.with(|connection| get(connection, run.id)).unwrap().unwrap().reason.as_deref(), Some("EHR unreachable"));
    }
}
