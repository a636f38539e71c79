//! The completeness ledger as people read it: what each query should have brought, what came and why not, who must act, and
//! the volumes beside those of earlier nights.

use super::Tuning;
use super::duty::{Code, Who, Why};
use super::ledger::{UNCHANGED, last_full};
use crate::store::StoreError;
use jiff::SignedDuration;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use std::collections::BTreeMap;

/// Earlier pulls that a volume is compared with.
const NIGHTS_MAX: u32 = 7;
/// So many earlier pulls make a custom.
const NIGHTS_MIN: usize = 3;
/// A volume below this may fall as it likes: chance alone makes it.
pub const VOLUME_MIN: u64 = 20;
/// A type of which so many in a hundred fewer came than in the median of earlier nights has fallen.
const FALL_PERCENT: u64 = 20;

/// The ledger of one pull.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Its number.
    pub pull: i64,
    /// Whether everything was read, or changes only.
    pub full: bool,
    /// When it began.
    pub started_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// The day on which everything is read again, where changes were read only.
    pub next_full: Option<String>,
    /// Whether everything that was asked for came, and nothing is in quarantine.
    pub complete: bool,
    /// By type and query, the files of an export taken together.
    pub rows: Vec<Row>,
    /// By type.
    pub volumes: Vec<Volume>,
}

/// A pull that has not come to its end, and goes on when it is next its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// Its number.
    pub pull: i64,
    /// Whether it reads everything, or changes only.
    pub full: bool,
    /// When it began.
    pub started_at: String,
    /// Queries and files that are done.
    pub done: u64,
    /// Resources that they brought.
    pub received: u64,
}

/// The pull that is under way, or was interrupted.
pub fn open(connection: &Connection) -> Result<Option<Open>, StoreError> {
    let sql = "SELECT id, full, started_at, count(unit.name), coalesce(sum(unit.received), 0) FROM pull LEFT JOIN unit ON pull_id = id AND unit.state = 'done'
       WHERE pull.state = 'open' GROUP BY id ORDER BY id DESC LIMIT 1";
    let count = |number: i64| number.unsigned_abs();
    let read = |row: &rusqlite::Row<'_>| Ok(Open { pull: row.get(0)?, full: row.get(1)?, started_at: row.get(2)?, done: count(row.get(3)?), received: count(row.get(4)?) });
    Ok(connection.query_row(sql, [], read).optional()?)
}

/// What one query was to bring, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The type that was asked for; `*`: any.
    pub resource_type: String,
    /// The query, without patients.
    pub query: String,
    /// `complete`, `partial` or `failed`.
    pub status: String,
    /// How many the server announced, if it did.
    pub expected: Option<u64>,
    /// Resources received, copies included.
    pub received: u64,
    /// Why it is not complete, and who must do what.
    pub gap: Option<Due>,
    /// What is to be known of it though it is complete.
    pub note: Option<Due>,
}

/// A gap with what is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Due {
    /// What kind of reason it is.
    pub code: Code,
    /// Why data are missing.
    pub reason: String,
    /// Who must act.
    pub who: Who,
    /// What to do.
    pub what: String,
}

impl Due {
    fn of(why: Why) -> Due {
        let (who, what) = why.code.duty();
        Due { code: why.code, reason: why.text, who, what: what.to_owned() }
    }

    /// Of lines and resources that were refused, so many of which wait for a person.
    fn of_quarantine(held: i64) -> Due {
        match held {
            0 => Due {
                who: Who::Nobody,
                what: "all are decided: the next pull reads everything, and leaves out what was discarded".to_owned(),
                ..Due::of(Why::new(Code::Quarantined, "lines or resources of it were in quarantine"))
            },
            _ => Due::of(Why::new(Code::Quarantined, "lines or resources of it are in quarantine")),
        }
    }
}

/// A type's volume beside that of earlier nights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// The type.
    pub resource_type: String,
    /// Resources received, copies included.
    pub received: u64,
    /// The median of earlier pulls of the same kind and plan.
    pub median: Option<u64>,
    /// How many pulls that is the median of.
    pub pulls: usize,
}

/// The ledger of the last pull that came to its end.
pub fn last(connection: &Connection) -> Result<Option<Account>, StoreError> {
    let sql = "SELECT id, full, started_at, finished_at, complete, source, plan FROM pull WHERE state = 'committed' ORDER BY id DESC LIMIT 1";
    let last = connection
        .query_row(sql, [], |row| {
            let text = |at: usize| row.get::<_, String>(at);
            Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, text(2)?, row.get(3)?, row.get::<_, Option<bool>>(4)?, text(5)?, text(6)?))
        })
        .optional()?;
    let Some((pull, full, started_at, finished_at, complete, source, plan)) = last else { return Ok(None) };
    let rows = rows(connection, pull)?;
    let is_whole = full || rows.iter().any(|row| row.query == UNCHANGED);
    let usual = usual(connection, &Kind { source: &source, plan: &plan, full: is_whole, before: pull })?;
    let mut received: BTreeMap<&str, u64> = usual.keys().map(|name| (name.as_str(), 0)).collect();
    // What imports bring is no volume of the source's.
    for row in rows.iter().filter(|row| row.resource_type != "*" && !row.query.starts_with("import ")) {
        *received.entry(&row.resource_type).or_default() += row.received;
    }
    let volumes = received.iter().map(|(name, received)| {
        let usual = usual.get(*name);
        Volume { resource_type: (*name).to_owned(), received: *received, median: usual.map(|usual| usual.median), pulls: usual.map_or(0, |usual| usual.pulls) }
    });
    let next_full = if is_whole { None } else { next_full(connection, &source, &plan)? };
    Ok(Some(Account { pull, full, next_full, started_at, finished_at, complete: complete == Some(true), volumes: volumes.collect(), rows }))
}

fn next_full(connection: &Connection, source: &str, plan: &str) -> Result<Option<String>, StoreError> {
    let days = SignedDuration::from_hours(24 * i64::from(Tuning::default().full_every_days));
    let next = last_full(connection, source, plan)?.and_then(|last| last.checked_add(days).ok());
    Ok(next.map(|next| next.strftime("%Y-%m-%d").to_string()))
}

fn rows(connection: &Connection, pull: i64) -> Result<Vec<Row>, StoreError> {
    let sql = "SELECT resource_type, CASE WHEN query LIKE 'export file%' THEN 'export' ELSE query END AS asked,
         CASE count(*) WHEN sum(status = 'complete') THEN 'complete' WHEN sum(status = 'failed') THEN 'failed' ELSE 'partial' END,
         sum(expected), sum(received), min(reason), code
       FROM ledger WHERE pull_id = ?1 GROUP BY resource_type, asked ORDER BY resource_type, asked";
    let held: i64 = connection.query_row("SELECT count(*) FROM quarantine WHERE state = 'held'", [], |row| row.get(0))?;
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([pull], |row| {
        let (status, reason, code): (String, Option<String>, Option<String>) = (row.get(2)?, row.get(5)?, row.get(6)?);
        let due = reason.map(|text| Due::of(Why { code: Code::read(code.as_deref()), text }));
        let (gap, note) = if status == "complete" { (None, due) } else { (Some(due.unwrap_or_else(|| Due::of_quarantine(held))), None) };
        let count = |number: i64| number.unsigned_abs();
        Ok(Row {
            resource_type: row.get(0)?,
            query: row.get(1)?,
            status,
            expected: row.get::<_, Option<i64>>(3)?.map(count),
            received: count(row.get(4)?),
            gap,
            note,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Which earlier pulls can be compared with.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// The server.
    pub source: &'a str,
    /// The plan's digest.
    pub plan: &'a str,
    /// Pulls of everything, or of changes. One that found files as they were brought everything.
    pub full: bool,
    /// Those before this one.
    pub before: i64,
}

/// Whether one number is more than a fifth below another.
pub(super) fn is_fall(from: u64, to: u64) -> bool {
    u128::from(to) * 100 < u128::from(from) * u128::from(100 - FALL_PERCENT)
}

/// What earlier pulls brought of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual {
    /// The median.
    pub median: u64,
    /// Of so many pulls.
    pub pulls: usize,
}

impl Usual {
    /// Whether so few came that it needs an explanation: more than a fifth below the median of three earlier pulls or more.
    ///
    /// ```
    /// use watershed::source::account::Usual;
    ///
    /// let usual = Usual { median: 1000, pulls: 3 };
    /// assert!(usual.is_fallen_to(799) && !usual.is_fallen_to(800) && !usual.is_fallen_to(5000));
    /// assert!(!Usual { pulls: 2, ..usual }.is_fallen_to(0), "two nights are no custom");
    /// assert!(!Usual { median: 19, pulls: 7 }.is_fallen_to(0), "a handful comes and goes");
    /// ```
    pub fn is_fallen_to(&self, received: u64) -> bool {
        self.pulls >= NIGHTS_MIN && self.median >= VOLUME_MIN && is_fall(self.median, received)
    }
}

/// What the latest earlier pulls of the same kind brought, by type. A type that one of them was to bring and did not counts as
/// none; those that were partial count too, so that a new volume becomes the usual one within a few nights.
pub fn usual(connection: &Connection, kind: &Kind<'_>) -> Result<BTreeMap<String, Usual>, StoreError> {
    let Kind { source, plan, full, before } = kind;
    let sql = "SELECT pull_id, resource_type, sum(received) FROM ledger
       WHERE resource_type <> '*' AND query NOT LIKE 'import %' AND pull_id IN (SELECT id FROM pull WHERE source = ?1 AND plan = ?2 AND id < ?4 AND state = 'committed'
         AND (full = 1 OR EXISTS (SELECT 1 FROM unit WHERE pull_id = id AND name = ?6)) = ?3 ORDER BY id DESC LIMIT ?5) GROUP BY pull_id, resource_type";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params![source, plan, full, before, NIGHTS_MAX, UNCHANGED], |row| Ok((row.get::<_, String>(1)?, row.get::<_, i64>(2)?.unsigned_abs())))?;
    let mut volumes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in rows {
        let (name, received) = row?;
        volumes.entry(name).or_default().push(received);
    }
    Ok(volumes.into_iter().map(|(name, volumes)| (name, Usual { pulls: volumes.len(), median: median(volumes) })).collect())
}

/// The lower one of two middles.
fn median(mut volumes: Vec<u64>) -> u64 {
    volumes.sort_unstable();
    volumes.get(volumes.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!([median(vec![]), median(vec![3]), median(vec![9, 1]), median(vec![5, 9, 1]), median(vec![4, 3, 2, 1])], [0, 3, 1, 5, 2]);
    }
}
