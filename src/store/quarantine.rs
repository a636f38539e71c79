//! Refused lines and resources: kept encrypted with their reason, never dropped, never fatal.

use super::StoreError;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::{BTreeMap, BTreeSet};

/// What a person decided about a refused line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for a decision; its type is reported partial.
    Held,
    /// To be judged again at the next pull.
    Retry,
    /// Accepted at a later judgement.
    Released,
    /// Declared worthless by a person: it counts no more, wherever it comes again.
    Discarded,
}

impl State {
    /// The name in the database and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Retry => "retry",
            State::Released => "released",
            State::Discarded => "discarded",
        }
    }

    fn from_name(name: &str) -> Result<State, StoreError> {
        match name {
            "held" => Ok(State::Held),
            "retry" => Ok(State::Retry),
            "released" => Ok(State::Released),
            "discarded" => Ok(State::Discarded),
            other => Err(StoreError::Corrupt(format!("quarantine state `{other}`"))),
        }
    }
}

/// A refused line as it goes in. `sealed` is ciphertext: the caller holds the key.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why, from a fixed list of phrases that hold no patient value.
    pub reason: String,
    /// Name of the query or exported file.
    pub source: String,
    /// 1-based line or entry number.
    pub entry: u64,
    /// The resource type, where it could be read.
    pub resource_type: Option<String>,
    /// Length of the line, in bytes.
    pub bytes: u64,
    /// SHA-256 of the line as received, hexadecimal.
    pub sha256: String,
    /// The encrypted line (its first part, when it is too long to keep).
    pub sealed: Vec<u8>,
}

/// A refused line as listed: everything but its content.
#[derive(Clone, Debug)]
pub struct Item {
    /// Number for the command line.
    pub id: i64,
    /// The pull that saw it first.
    pub first_pull: i64,
    /// The pull that saw it last.
    pub last_pull: i64,
    /// In how many pulls it was seen.
    pub seen: u64,
    /// What was decided.
    pub state: State,
    /// Why it was refused.
    pub reason: String,
    /// Name of the query or exported file.
    pub source: String,
    /// 1-based line or entry number.
    pub entry: u64,
    /// The resource type, where it could be read.
    pub resource_type: Option<String>,
    /// Length of the line, in bytes.
    pub bytes: u64,
    /// SHA-256 of the line as received, hexadecimal.
    pub sha256: String,
}

const COLUMNS: &str = "id, first_pull, last_pull, seen, state, reason, source, entry, resource_type, bytes, sha256";

fn item(row: &Row<'_>) -> Result<(Item, String), rusqlite::Error> {
    let state: String = row.get(4)?;
    let item = Item {
        id: row.get(0)?,
        first_pull: row.get(1)?,
        last_pull: row.get(2)?,
        seen: row.get::<_, i64>(3)?.max(0) as u64,
        state: State::Held,
        reason: row.get(5)?,
        source: row.get(6)?,
        entry: row.get::<_, i64>(7)?.max(0) as u64,
        resource_type: row.get(8)?,
        bytes: row.get::<_, i64>(9)?.max(0) as u64,
        sha256: row.get(10)?,
    };
    Ok((item, state))
}

fn with_state((item, state): (Item, String)) -> Result<Item, StoreError> {
    Ok(Item { state: State::from_name(&state)?, ..item })
}

/// Records a refused line for a pull. The same line at the same place for the same reason is one row, night after night.
pub fn add(connection: &Connection, pull: i64, refused: &Refused) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO quarantine (first_pull, last_pull, state, reason, source, entry, resource_type, bytes, sha256, sealed)
         VALUES (?1, ?1, 'held', ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (sha256, reason, source, entry) DO UPDATE SET
           seen = seen + (last_pull <> excluded.last_pull),
           last_pull = excluded.last_pull,
           state = CASE WHEN state = 'discarded' THEN 'discarded' ELSE 'held' END",
        params![
            pull,
            refused.reason,
            refused.source,
            i64::try_from(refused.entry).unwrap_or(i64::MAX),
            refused.resource_type,
            i64::try_from(refused.bytes).unwrap_or(i64::MAX),
            refused.sha256,
            refused.sealed
        ],
    )?;
    Ok(())
}

/// The refused lines, oldest first; of one state, when asked for.
pub fn list(connection: &Connection, state: Option<State>) -> Result<Vec<Item>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM quarantine WHERE ?1 IS NULL OR state = ?1 ORDER BY id");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([state.map(State::name)], item)?.collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().map(with_state).collect()
}

/// How many lines wait for a decision, by resource type; `*` where it could not be read.
pub fn waiting(connection: &Connection) -> Result<BTreeMap<String, u64>, StoreError> {
    let sql = "SELECT coalesce(resource_type, '*'), count(*) FROM quarantine WHERE state IN ('held', 'retry') GROUP BY 1";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One refused line with its ciphertext, or `None`.
pub fn get(connection: &Connection, id: i64) -> Result<Option<(Item, Vec<u8>)>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, sealed FROM quarantine WHERE id = ?1");
    let found = connection.query_row(&sql, [id], |row| Ok((item(row)?, row.get(11)?))).optional()?;
    found.map(|(item, sealed)| Ok((with_state(item)?, sealed))).transpose()
}

/// Records a decision about what a line says: wherever else the same bytes stand, they are decided with it. A row of an import
/// means something in that import only.
pub fn decide(connection: &Connection, id: i64, state: State) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE quarantine SET state = ?2 FROM (SELECT sha256 AS content, source AS place FROM quarantine WHERE id = ?1)
         WHERE sha256 = content AND state <> 'released' AND (source = place OR NOT (source LIKE 'import %' OR place LIKE 'import %'))",
        params![id, state.name()],
    )?;
    Ok(())
}

/// The SHA-256 of each line that was discarded: of those of an import, or of all that are of none.
pub fn discarded(connection: &Connection, import: Option<&str>) -> Result<BTreeSet<String>, StoreError> {
    let sql = "SELECT sha256 FROM quarantine WHERE state = 'discarded' AND coalesce(source = ?1, source NOT LIKE 'import %')";
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map([import], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(found)
}
