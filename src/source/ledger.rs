//! The catalog's side of a pull: opened or resumed, units done, gaps, cursors, completeness.

use super::duty::{Code, Why};
use super::forecast::Known;
use crate::snapshot::PullId;
use crate::store::quarantine::{self, Refused};
use crate::store::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};

/// What became of a unit: one query for some patients, or one exported file.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// Unique in the pull.
    pub name: String,
    /// The type it was asked for.
    pub resource_type: String,
    /// The query or file it belongs to, for the ledger.
    pub query: String,
    /// How many the server said there are.
    pub expected: Option<u64>,
    /// Resources received, copies included.
    pub received: u64,
    /// Of these, how many have no `meta.lastUpdated`.
    pub undated: u64,
    /// The server's clock when it began.
    pub server_time: Option<Timestamp>,
    /// Its staged file and that file's SHA-256.
    pub staged: Option<(String, String)>,
    /// What was refused.
    pub refused: Vec<Refused>,
    /// Refused beyond the number that is kept.
    pub refused_uncounted: u64,
    /// Refused, and discarded by a person before.
    pub discarded: u64,
    /// The staged file of what names its patient by an identifier.
    pub identified: Option<String>,
    /// Why it is incomplete, if it is.
    pub gap: Option<Why>,
    /// What is to be known of it though it is complete.
    pub note: Option<Why>,
    /// It is a table whose last row had its end of line.
    pub ended: bool,
}

/// An open pull.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its number.
    pub id: PullId,
    /// Everything is read.
    pub full: bool,
    /// It was begun before and is continued.
    pub resumed: bool,
    /// When it was begun.
    pub begun: Timestamp,
}

/// Continues the open pull of this source and plan, or opens one; an open pull of another plan is abandoned.
pub fn open(store: &Store, source: &str, plan: &str, full: bool, now: Timestamp) -> Result<Opened, StoreError> {
    store.transaction(|transaction| {
        let sql = "SELECT id, plan, full, started_at FROM pull WHERE source = ?1 AND state = 'open'";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let open: Option<(i64, String, bool, String)> = transaction.query_row(sql, [source], read).optional()?;
        if let Some((id, known, was_full, begun)) = open {
            if known == plan && (was_full || !full) {
                // What failed is asked for again, but for searches where something came and the reason is one that lasts: they would take what the rest needs.
                let lasting = Code::LASTING.map(Code::word).join("', '");
                let failed = format!(
                    "SELECT name FROM unit WHERE pull_id = ?1 AND state = 'gap' AND NOT (name LIKE 'query %' AND coalesce(code, '') IN ('{lasting}')
                       AND EXISTS (SELECT 1 FROM unit WHERE pull_id = ?1 AND state = 'done' AND received > 0))"
                );
                let again = format!("DELETE FROM unit WHERE pull_id = ?1 AND (name IN ({failed}) OR name IN (SELECT name || ?2 FROM ({failed})))");
                transaction.execute(&again, params![id, BY_IDENTIFIER])?;
                return Ok(Opened { id: PullId(id), full: was_full, resumed: true, begun: begun.parse().unwrap_or(now) });
            }
            transaction.execute("UPDATE pull SET state = 'abandoned' WHERE id = ?1", [id])?;
        }
        transaction.execute("INSERT INTO pull (source, state, full, plan, started_at) VALUES (?1, 'open', ?2, ?3, ?4)", params![source, full, plan, now.to_string()])?;
        Ok(Opened { id: PullId(transaction.last_insert_rowid()), full, resumed: false, begun: now })
    })
}

/// Whether a pull of this source and plan is open.
pub fn is_open(store: &Store, source: &str, plan: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pull WHERE source = ?1 AND plan = ?2 AND state = 'open')";
    store.with(|connection| Ok(connection.query_row(sql, [source, plan], |row| row.get(0))?))
}

/// Whether a pull of changes of this source and plan is open.
pub fn is_open_for_changes(store: &Store, source: &str, plan: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pull WHERE source = ?1 AND plan = ?2 AND state = 'open' AND full = 0)";
    store.with(|connection| Ok(connection.query_row(sql, [source, plan], |row| row.get(0))?))
}

/// Records units with their refusals, in one transaction; they will not be fetched again in this pull.
pub fn record(store: &Store, pull: PullId, units: &[Unit]) -> Result<(), StoreError> {
    store.transaction(|transaction| {
        for unit in units {
            insert(transaction, pull, unit)?;
            transaction.execute("DELETE FROM place WHERE pull_id = ?1 AND unit = ?2", params![pull.0, unit.name])?;
        }
        Ok(())
    })
}

/// The last pull of all, if it was one of this source and plan to which nothing was missing, and the names of its units.
pub fn last_complete(store: &Store, source: &str, plan: &str) -> Result<Option<(PullId, BTreeSet<String>)>, StoreError> {
    let last = store.with(|connection| {
        let sql = "SELECT id, source = ?1 AND plan = ?2 AND complete = 1 FROM pull WHERE state = 'committed' ORDER BY id DESC LIMIT 1";
        let last: Option<(i64, Option<bool>)> = connection.query_row(sql, [source, plan], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(last.filter(|(_, is_it)| *is_it == Some(true)).map(|(id, _)| PullId(id)))
    })?;
    last.map(|id| Ok((id, done(store, id)?))).transpose()
}

/// Names the unit of a pull that found the files as they were: it brought what the last one did.
pub const UNCHANGED: &str = "unchanged files";

/// A file as a pull read it.
pub struct File {
    /// What its name was stored as.
    pub key: String,
    /// A type that is in it.
    pub resource_type: String,
    /// What it is called.
    pub query: String,
    /// How many of the type came.
    pub received: u64,
}

/// The files that a pull read by type, and those that it missed.
pub fn files_of(store: &Store, pull: PullId) -> Result<Vec<File>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT name, resource_type, query, received FROM unit WHERE pull_id = ?1 AND (name LIKE 'file %' OR name LIKE 'gone %') AND resource_type <> '*' ORDER BY name",
        )?;
        let rows = statement.query_map([pull.0], |row| {
            let key = row.get::<_, String>(0)?.split(' ').nth(1).unwrap_or_default().to_owned();
            Ok(File { key, resource_type: row.get(1)?, query: row.get(2)?, received: row.get::<_, i64>(3)?.unsigned_abs() })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
}

/// The same of the last pull, if it was one of this source and plan.
pub fn files_before(store: &Store, source: &str, plan: &str) -> Result<Vec<File>, StoreError> {
    let last = last(store)?.filter(|(_, of, by)| of == source && by == plan);
    last.map_or_else(|| Ok(Vec::new()), |(id, _, _)| files_of(store, id))
}

/// Gives a pull the source's units of an earlier one, of which nothing has changed, without what they staged.
pub fn repeat(connection: &Connection, earlier: PullId, pull: PullId) -> Result<(), StoreError> {
    let columns = "name, resource_type, query, state, reason, code, expected, received, quarantined, discarded, undated, server_time";
    let sql = format!("INSERT OR REPLACE INTO unit (pull_id, {columns}) SELECT ?2, {columns} FROM unit WHERE pull_id = ?1 AND name NOT LIKE 'import %' AND name <> ?3");
    connection.execute(&sql, params![earlier.0, pull.0, UNCHANGED])?;
    Ok(())
}

/// The last pull that came to its end, with its source and the digest of its plan.
pub fn last(store: &Store) -> Result<Option<(PullId, String, String)>, StoreError> {
    store.with(|connection| {
        let sql = "SELECT id, source, plan FROM pull WHERE state = 'committed' ORDER BY id DESC LIMIT 1";
        Ok(connection.query_row(sql, [], |row| Ok((PullId(row.get(0)?), row.get(1)?, row.get(2)?))).optional()?)
    })
}

/// The plan of the pull of a source that is open.
pub fn open_plan(store: &Store, source: &str) -> Result<Option<String>, StoreError> {
    store.with(|connection| {
        Ok(connection
            .query_row("SELECT plan FROM pull WHERE source = ?1 AND state = 'open'", [source], |row| row.get(0))
            .optional()?)
    })
}

/// Makes a pull one of an earlier one's plan: its source's units are that one's.
pub fn stand_on(transaction: &Transaction<'_>, earlier: PullId, pull: PullId) -> Result<(), StoreError> {
    repeat(transaction, earlier, pull)?;
    transaction.execute("UPDATE pull SET (plan, kept_all) = (SELECT plan, kept_all FROM pull WHERE id = ?1) WHERE id = ?2", [earlier.0, pull.0])?;
    Ok(())
}

/// Whether anything is missing from a pull: what was in quarantine when it was read was kept as it was stored, though a person may
/// have decided since.
pub fn lacks_something(connection: &Connection, pull: PullId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM unit WHERE pull_id = ?1 AND (state = 'gap' OR quarantined > 0))";
    Ok(connection.query_row(sql, [pull.0], |row| row.get(0))?)
}

/// Records a piece of a unit that is still to come, and where the rest of it is to be had.
pub fn keep_place(store: &Store, pull: PullId, piece: &Unit, unit: &str, number: usize, sealed: &[u8]) -> Result<(), StoreError> {
    store.transaction(|transaction| {
        insert(transaction, pull, piece)?;
        transaction.execute("INSERT INTO place (pull_id, unit, number, sealed) VALUES (?1, ?2, ?3, ?4)", params![pull.0, unit, number as i64, sealed])?;
        Ok(())
    })
}

/// Keeps the sealed lists of patients who are asked for together, where a pull finds them again.
pub fn keep_lists(store: &Store, pull: PullId, about: &str, sealed: &[Vec<u8>]) -> Result<(), StoreError> {
    store.transaction(|transaction| {
        transaction.execute("DELETE FROM place WHERE pull_id = ?1 AND unit = ?2", params![pull.0, about])?;
        for (number, sealed) in sealed.iter().enumerate() {
            transaction.execute("INSERT INTO place (pull_id, unit, number, sealed) VALUES (?1, ?2, ?3, ?4)", params![pull.0, about, number as i64, sealed])?;
        }
        Ok(())
    })
}

/// Adds to what is kept, sealed, under a name of a pull.
pub fn keep_more(store: &Store, pull: PullId, about: &str, sealed: &[u8]) -> Result<(), StoreError> {
    store.with(|connection| {
        let next = "INSERT INTO place (pull_id, unit, number, sealed) SELECT ?1, ?2, coalesce(max(number) + 1, 0), ?3 FROM place WHERE pull_id = ?1 AND unit = ?2";
        connection.execute(next, params![pull.0, about, sealed])?;
        Ok(())
    })
}

/// Where the pieces of a unit end, in their order; or what else was kept under a name, as lists of patients.
pub fn places(store: &Store, pull: PullId, unit: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare("SELECT sealed FROM place WHERE pull_id = ?1 AND unit = ?2 ORDER BY number")?;
        let places = statement.query_map(params![pull.0, unit], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(places)
    })
}

/// Forgets the pieces of a unit, whose names begin with `prefix`: it is begun anew.
pub fn forget_pieces(store: &Store, pull: PullId, unit: &str, prefix: &str) -> Result<(), StoreError> {
    store.transaction(|transaction| {
        transaction.execute("DELETE FROM unit WHERE pull_id = ?1 AND name >= ?2 AND name < ?2 || char(1114111)", params![pull.0, prefix])?;
        transaction.execute("DELETE FROM place WHERE pull_id = ?1 AND unit = ?2", params![pull.0, unit])?;
        Ok(())
    })
}

fn insert(transaction: &Transaction<'_>, pull: PullId, unit: &Unit) -> Result<(), StoreError> {
    for refused in &unit.refused {
        quarantine::add(transaction, pull.0, refused)?;
    }
    transaction.execute("DELETE FROM unit WHERE pull_id = ?1 AND name = ?2 || ?3", params![pull.0, unit.name, BY_IDENTIFIER])?;
    let (file, sha256) = unit.staged.clone().unzip();
    let why = unit.gap.as_ref().or(unit.note.as_ref());
    transaction.execute(
        "INSERT OR REPLACE INTO unit (pull_id, name, resource_type, query, state, reason, expected, received,
           quarantined, undated, server_time, file, sha256, code, discarded, identified, ended)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        params![
            pull.0,
            unit.name,
            unit.resource_type,
            unit.query,
            if unit.gap.is_some() { "gap" } else { "done" },
            why.map(|why| &why.text),
            unit.expected.map(|count| count as i64),
            unit.received as i64,
            unit.refused.len() as i64 + unit.refused_uncounted as i64,
            unit.undated as i64,
            unit.server_time.map(|at| at.to_string()),
            file,
            sha256,
            why.map(|why| why.code.word()),
            unit.discarded as i64,
            unit.identified,
            unit.ended
        ],
    )?;
    Ok(())
}

/// Names of the units that are done.
pub fn done(store: &Store, pull: PullId) -> Result<BTreeSet<String>, StoreError> {
    names(store, pull, "done")
}

/// Units that lack something, and are not asked for again in a pull that goes on.
pub fn lacked(store: &Store, pull: PullId) -> Result<BTreeSet<String>, StoreError> {
    names(store, pull, "gap")
}

fn names(store: &Store, pull: PullId, state: &str) -> Result<BTreeSet<String>, StoreError> {
    let sql = "SELECT name FROM unit WHERE pull_id = ?1 AND state = ?2";
    store.with(|connection| Ok(connection.prepare(sql)?.query_map(params![pull.0, state], |row| row.get(0))?.collect::<Result<_, _>>()?))
}

/// How many resources came in these units, and in the pieces of which they are made.
pub fn received(store: &Store, pull: PullId, names: &BTreeSet<String>) -> Result<u64, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare("SELECT name, received FROM unit WHERE pull_id = ?1 AND name LIKE 'query %'")?;
        let rows = statement.query_map([pull.0], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
        let is_of = |name: &str| names.contains(name.split_once(", piece ").map_or(name, |(whole, _)| whole));
        let mut sum = 0;
        for row in rows {
            let (name, received) = row?;
            sum += if is_of(&name) { received } else { 0 };
        }
        Ok(sum)
    })
}

/// Ends the name of a unit that holds what of another one names its patient by an identifier.
pub const BY_IDENTIFIER: &str = " by identifier";

/// Name, type, query, time and file of each unit of which something names its patient by an identifier, and was not looked at yet.
pub fn identified(store: &Store, pull: PullId) -> Result<Vec<(Unit, String)>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT name, resource_type, query, server_time, identified FROM unit WHERE pull_id = ?1 AND identified IS NOT NULL
               AND name || ?2 NOT IN (SELECT name FROM unit WHERE pull_id = ?1) ORDER BY name",
        )?;
        let rows = statement.query_map(params![pull.0, BY_IDENTIFIER], |row| {
            let server_time = row.get::<_, Option<String>>(3)?.and_then(|text| text.parse().ok());
            Ok((Unit { name: row.get(0)?, resource_type: row.get(1)?, query: row.get(2)?, server_time, ..Unit::default() }, row.get(4)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
}

/// Forgets units whose name begins with `prefix`, and where their pieces end: what an export's server lost, or what is asked for anew.
pub fn forget(store: &Store, pull: PullId, prefix: &str) -> Result<(), StoreError> {
    store.transaction(|transaction| {
        transaction.execute("DELETE FROM unit WHERE pull_id = ?1 AND substr(name, 1, length(?2)) = ?2", params![pull.0, prefix])?;
        transaction.execute("DELETE FROM place WHERE pull_id = ?1 AND substr(unit, 1, length(?2)) = ?2", params![pull.0, prefix])?;
        Ok(())
    })
}

/// A unit as recorded.
pub struct Recorded {
    /// The type it was asked for.
    pub resource_type: String,
    /// The query or file.
    pub query: String,
    /// Why it is incomplete, if it is.
    pub gap: Option<Why>,
    /// What is to be known of it though it is complete.
    pub note: Option<Why>,
    /// What the server announced.
    pub expected: Option<u64>,
    /// Resources received.
    pub received: u64,
    /// Resources refused, of which nobody has decided.
    pub quarantined: u64,
    /// Resources refused that were discarded before.
    pub discarded: u64,
    /// Resources without a time.
    pub undated: u64,
    /// The server's clock.
    pub server_time: Option<Timestamp>,
    /// The staged file.
    pub file: Option<String>,
}

/// All units of a pull's source but the server's counts, by name.
pub fn units(store: &Store, pull: PullId) -> Result<Vec<Recorded>, StoreError> {
    recorded(store, pull, "name NOT LIKE 'count %' AND name NOT LIKE 'import %'")
}

/// Why nothing came of any unit whose name begins with `prefix`; `None` if something did, or there is no such unit.
pub fn none_came(store: &Store, pull: PullId, prefix: &str) -> Result<Option<Why>, StoreError> {
    let units = recorded(store, pull, &format!("substr(name, 1, length('{prefix}')) = '{prefix}'"))?;
    let is_none = units.iter().all(|unit| unit.gap.is_some() && unit.received == 0);
    Ok(units.into_iter().next().filter(|_| is_none).and_then(|unit| unit.gap))
}

/// The staged files of what a pull read again because it was doubted, or looked at again in its turn.
pub fn read_again(store: &Store, pull: PullId) -> Result<BTreeSet<String>, StoreError> {
    let units = recorded(store, pull, "(name LIKE 'again %' OR name LIKE 'look %')")?;
    Ok(units.into_iter().filter_map(|unit| unit.file).collect())
}

/// The type of an import when it was last read, by its unit's name.
pub fn type_of(store: &Store, name: &str) -> Result<Option<String>, StoreError> {
    store.with(|connection| {
        let sql = "SELECT resource_type FROM unit WHERE name = ?1 ORDER BY pull_id DESC LIMIT 1";
        Ok(connection.query_row(sql, [name], |row| row.get(0)).optional()?)
    })
}

/// Whether a table's last row had its end of line when it was last read whole, by its unit's name.
pub fn had_ended(store: &Store, name: &str) -> Result<bool, StoreError> {
    store.with(|connection| {
        let sql = "SELECT ended FROM unit JOIN pull ON id = pull_id WHERE name = ?1 AND unit.state = 'done' AND pull.state = 'committed' ORDER BY pull_id DESC LIMIT 1";
        Ok(connection.query_row(sql, [name], |row| row.get(0)).optional()?.unwrap_or(false))
    })
}

/// The units of a pull's imports.
pub fn imported(store: &Store, pull: PullId) -> Result<Vec<Recorded>, StoreError> {
    recorded(store, pull, "name LIKE 'import %'")
}

fn recorded(store: &Store, pull: PullId, which: &str) -> Result<Vec<Recorded>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(&format!(
            "SELECT resource_type, query, reason, expected, received, quarantined, undated, server_time, file, code, state = 'gap', discarded
             FROM unit WHERE pull_id = ?1 AND {which} ORDER BY name",
        ))?;
        let count = |value: i64| value.max(0) as u64;
        let rows = statement
            .query_map([pull.0], |row| {
                let code = Code::read(row.get::<_, Option<String>>(9)?.as_deref());
                let why = row.get::<_, Option<String>>(2)?.map(|text| Why { code, text });
                let (gap, note) = if row.get(10)? { (why, None) } else { (None, why) };
                Ok(Recorded {
                    resource_type: row.get(0)?,
                    query: row.get(1)?,
                    gap,
                    note,
                    expected: row.get::<_, Option<i64>>(3)?.map(count),
                    received: count(row.get(4)?),
                    quarantined: count(row.get(5)?),
                    discarded: count(row.get(11)?),
                    undated: count(row.get(6)?),
                    server_time: row.get::<_, Option<String>>(7)?.and_then(|text| text.parse().ok()),
                    file: row.get(8)?,
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        Ok(rows)
    })
}

/// The unit of a question of how many the server counts of what a query finds; its name begins with `count `.
pub fn count_unit(name: &str, resource_type: &str, query: &str, counted: Option<u64>) -> Unit {
    Unit { name: name.to_owned(), resource_type: resource_type.to_owned(), query: format!("count of {query}"), expected: counted, ..Unit::default() }
}

/// What was answered to a question, if it was asked in this pull.
pub fn answer(store: &Store, pull: PullId, name: &str) -> Result<Option<Option<u64>>, StoreError> {
    store.with(|connection| {
        let sql = "SELECT expected FROM unit WHERE pull_id = ?1 AND name = ?2";
        let answer: Option<Option<i64>> = connection.query_row(sql, params![pull.0, name], |row| row.get(0)).optional()?;
        Ok(answer.map(|count| count.map(i64::unsigned_abs)))
    })
}

/// How many the server counts of each query, where it said so to every question about it.
pub fn counted(store: &Store, pull: PullId) -> Result<BTreeMap<String, u64>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT substr(query, length('count of ') + 1), sum(expected) FROM unit
             WHERE pull_id = ?1 AND name LIKE 'count %' GROUP BY query HAVING count(*) = count(expected)",
        )?;
        let counts = statement
            .query_map([pull.0], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
            .collect::<Result<_, _>>()?;
        Ok(counts)
    })
}

/// By how much the server's number of a type was above what is known, where it stayed so after everything was read.
pub fn kept_difference(store: &Store, source: &str, plan: &str, name: &str) -> Result<Option<i64>, StoreError> {
    store.with(|connection| {
        let sql = "SELECT expected - received FROM unit JOIN pull ON pull.id = pull_id
           WHERE name = ?1 AND source = ?2 AND plan = ?3 AND expected IS NOT NULL ORDER BY pull_id DESC LIMIT 1";
        Ok(connection.query_row(sql, [name, source, plan], |row| row.get(0)).optional()?)
    })
}

/// How many resources of a type came and are not stored, for something is wrong with them.
pub fn not_taken(store: &Store, resource_type: &str) -> Result<u64, StoreError> {
    store.with(|connection| {
        let sql = "SELECT count(*) FROM quarantine WHERE state <> 'released' AND (resource_type = ?1 OR resource_type IS NULL)";
        Ok(connection.query_row(sql, [resource_type], |row| row.get::<_, i64>(0))?.unsigned_abs())
    })
}

/// What a reading of everything found beside what its queries brought.
pub struct Standing {
    /// The type.
    pub resource_type: String,
    /// Why it is not all, or what is to be known of it.
    pub why: Why,
    /// A person has said that it is as it should be.
    pub is_accepted: bool,
}

/// What the last reading of everything found of these kinds. It stands until the next one: a reading of changes cannot tell.
pub fn standing(store: &Store, source: &str, plan: &str, codes: &[Code]) -> Result<Vec<Standing>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT resource_type, status, reason, code FROM ledger WHERE reason IS NOT NULL AND pull_id =
               (SELECT max(id) FROM pull WHERE source = ?1 AND plan = ?2 AND full = 1 AND state = 'committed') ORDER BY resource_type, query",
        )?;
        let rows = statement.query_map([source, plan], |row| {
            let code = Code::read(row.get::<_, Option<String>>(3)?.as_deref());
            Ok(Standing { resource_type: row.get(0)?, why: Why { code, text: row.get(2)? }, is_accepted: row.get::<_, String>(1)? == "complete" })
        })?;
        let rows: Vec<Standing> = rows.collect::<Result<_, _>>()?;
        Ok(rows.into_iter().filter(|row| codes.contains(&row.why.code)).collect())
    })
}

/// Types of which a person has accepted that something is as it is, and what. That stands until everything was read of the type and it was so
/// no more: a night in which something else was wrong cannot tell.
pub fn accepted(store: &Store, source: &str, plan: &str) -> Result<BTreeSet<(String, Code)>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT pull_id, resource_type, unit.code, max(unit.state = 'done'), max(unit.state = 'gap' OR unit.quarantined > 0)
             FROM unit JOIN pull ON pull.id = pull_id WHERE source = ?1 AND plan = ?2 AND full = 1 AND pull.state = 'committed'
             GROUP BY pull_id, resource_type, unit.code",
        )?;
        let rows = statement.query_map([source, plan], |row| {
            let code: Option<String> = row.get(2)?;
            Ok((row.get::<_, i64>(0)?, Found { resource_type: row.get(1)?, code: code.map(|code| Code::read(Some(&code))), is_done: row.get(3)?, is_broken: row.get(4)? }))
        })?;
        let mut pulls: BTreeMap<i64, Vec<Found>> = BTreeMap::new();
        for row in rows {
            let (pull, found) = row?;
            pulls.entry(pull).or_default().push(found);
        }
        let mut accepted = BTreeSet::new();
        for found in pulls.values() {
            let is_broken = |name: &str| found.iter().any(|one| one.is_broken && (one.resource_type == name || one.resource_type == "*"));
            accepted.retain(|(name, _): &(String, Code)| is_broken(name));
            for one in found {
                let Some(code) = one.code.filter(|code| code.is_acceptable()) else { continue };
                let named = (one.resource_type.clone(), code);
                if one.is_done {
                    accepted.insert(named)
                } else {
                    accepted.remove(&named)
                };
            }
        }
        Ok(accepted)
    })
}

/// What a pull found of a type.
struct Found {
    resource_type: String,
    code: Option<Code>,
    /// A unit of it is done.
    is_done: bool,
    /// A unit of it has a gap, or something in quarantine.
    is_broken: bool,
}

/// Whether the last pull of this source and plan lacks something for one of these reasons.
pub fn last_lacks(store: &Store, source: &str, plan: &str, codes: &[Code]) -> Result<bool, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT code FROM unit WHERE state = 'gap' AND pull_id =
               (SELECT max(id) FROM pull WHERE source = ?1 AND plan = ?2 AND state = 'committed')",
        )?;
        let lacking: Vec<Option<String>> = statement.query_map([source, plan], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(lacking.iter().any(|code| codes.contains(&Code::read(code.as_deref()))))
    })
}

/// Types of which the last pull of this source and plan has a gap.
pub fn with_gaps(store: &Store, source: &str, plan: &str) -> Result<BTreeSet<String>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT DISTINCT resource_type FROM unit WHERE state = 'gap' AND pull_id =
               (SELECT max(id) FROM pull WHERE source = ?1 AND plan = ?2 AND state = 'committed')",
        )?;
        Ok(statement.query_map([source, plan], |row| row.get(0))?.collect::<Result<_, _>>()?)
    })
}

/// Types of which the last pull of this source and plan lacks something, but those that lack it for one of these reasons, or have something
/// in quarantine.
pub fn lacking(store: &Store, source: &str, plan: &str, but: &[Code]) -> Result<BTreeSet<String>, StoreError> {
    store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT resource_type, code, quarantined > 0 FROM unit WHERE (state = 'gap' OR quarantined > 0) AND name NOT LIKE 'import %' AND pull_id =
               (SELECT max(id) FROM pull WHERE source = ?1 AND plan = ?2 AND state = 'committed')",
        )?;
        let rows = statement.query_map([source, plan], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?)))?;
        let (mut lacking, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        for row in rows {
            let (resource_type, code, is_quarantined): (String, Option<String>, bool) = row?;
            let is_left_out = is_quarantined || but.contains(&Code::read(code.as_deref()));
            let types = if is_left_out { &mut left_out } else { &mut lacking };
            types.insert(resource_type);
        }
        Ok(&lacking - &left_out)
    })
}

/// Whether a line was decided about of which no pull has read everything since: it is to be judged again, or what is stored of it is to
/// go, or of what it was to be taken for.
pub fn is_decided_since(store: &Store, source: &str, plan: &str) -> Result<bool, StoreError> {
    store.with(|connection| {
        let sql = "SELECT EXISTS (SELECT 1 FROM quarantine AS line WHERE state IN ('discarded', 'retry') AND source NOT LIKE 'import %' AND NOT EXISTS
           (SELECT 1 FROM pull WHERE id > last_pull AND pull.source = ?1 AND plan = ?2 AND full = 1 AND pull.state = 'committed' AND NOT EXISTS
             (SELECT 1 FROM unit WHERE pull_id = id AND unit.state = 'gap' AND (line.resource_type IS NULL OR unit.resource_type IN (line.resource_type, '*')))))";
        Ok(connection.query_row(sql, [source, plan], |row| row.get(0))?)
    })
}

/// Where an incremental pull of these types may start: the earliest of their cursors, when each has one under this
/// plan. `None`: everything must be read.
pub fn cursor(store: &Store, source: &str, plan: &str, types: &BTreeSet<String>) -> Result<Option<Timestamp>, StoreError> {
    store.with(|connection| {
        let mut earliest: Option<Timestamp> = None;
        for name in types {
            let value: Option<String> = connection
                .query_row("SELECT value FROM cursor WHERE source = ?1 AND resource_type = ?2 AND plan = ?3", params![source, name, plan], |row| row.get(0))
                .optional()?;
            let Some(value) = value.and_then(|text| text.parse::<Timestamp>().ok()) else { return Ok(None) };
            earliest = Some(earliest.map_or(value, |known| known.min(value)));
        }
        Ok(earliest)
    })
}

/// The sealed names of the patients of whom everything of a type was read under this plan; `None`: all.
pub fn covered(store: &Store, source: &str, resource_type: &str, plan: &str) -> Result<Option<Vec<u8>>, StoreError> {
    store.with(|connection| {
        let sql = "SELECT sealed FROM covered WHERE source = ?1 AND resource_type = ?2 AND plan = ?3";
        Ok(connection.query_row(sql, [source, resource_type, plan], |row| row.get(0)).optional()?)
    })
}

/// Stands in the place of a type where it is kept whom the site's list names.
pub const ROLL: &str = "list of patients";
/// And where it is kept who is named and did not come.
pub const ABSENT: &str = "absent patients";

/// Whom the site's list named when a pull last read it, sealed, whatever was asked for.
pub fn roll(store: &Store, source: &str) -> Result<Option<Vec<u8>>, StoreError> {
    store.with(|connection| {
        let sql = "SELECT sealed FROM covered WHERE source = ?1 AND resource_type = ?2";
        Ok(connection.query_row(sql, [source, ROLL], |row| row.get(0)).optional()?)
    })
}

/// Whether data came from a server before, whatever was asked for.
pub fn has_pulled(store: &Store, source: &str) -> Result<bool, StoreError> {
    store.with(|connection| {
        let found: i64 = connection.query_row("SELECT count(*) FROM pull WHERE source = rtrim(?1, '/') AND state = 'committed'", [source], |row| row.get(0))?;
        Ok(found > 0)
    })
}

/// When everything was last read in full under this plan: when that began or, where it lasted several nights, a day before it ended, or
/// it would be due again as it ends.
pub fn last_full(connection: &Connection, source: &str, plan: &str) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT started_at, finished_at FROM pull WHERE source = ?1 AND plan = ?2 AND full = 1 AND state = 'committed' ORDER BY id DESC LIMIT 1";
    let last: Option<(String, Option<String>)> = connection.query_row(sql, [source, plan], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let instant = |text: String| text.parse::<Timestamp>().ok();
    Ok(last.and_then(|(began, ended)| {
        let last_day = ended.and_then(instant).and_then(|ended| ended.checked_sub(SignedDuration::from_hours(24)).ok());
        instant(began).max(last_day)
    }))
}

/// How many pulls of changes ended since everything was last read in full under this plan.
pub fn pulls_since_full(store: &Store, source: &str, plan: &str) -> Result<u64, StoreError> {
    store.with(|connection| {
        let sql = "SELECT count(*) FROM pull WHERE source = ?1 AND plan = ?2 AND state = 'committed'
           AND id > (SELECT coalesce(max(id), 0) FROM pull WHERE source = ?1 AND plan = ?2 AND full = 1 AND state = 'committed')";
        Ok(connection.query_row(sql, [source, plan], |row| row.get::<_, i64>(0))?.unsigned_abs())
    })
}

/// How many pulls that ended since then have a unit of this name.
pub fn since_full(store: &Store, source: &str, plan: &str, unit: &str) -> Result<u64, StoreError> {
    store.with(|connection| {
        let sql = "SELECT count(*) FROM unit JOIN pull ON id = pull_id WHERE name = ?3 AND source = ?1 AND plan = ?2 AND pull.state = 'committed'
           AND id > (SELECT coalesce(max(id), 0) FROM pull WHERE source = ?1 AND plan = ?2 AND full = 1 AND state = 'committed')";
        Ok(connection.query_row(sql, [source, plan, unit], |row| row.get::<_, i64>(0))?.unsigned_abs())
    })
}

/// What the last committed pull of everything brought and took, by type, and how long it lasted.
pub fn last_brought(store: &Store, source: &str) -> Result<Known, StoreError> {
    store.with(|connection| {
        let last: Option<(i64, String, Option<String>)> = connection
            .query_row("SELECT id, started_at, finished_at FROM pull WHERE source = ?1 AND full = 1 AND state = 'committed' ORDER BY id DESC LIMIT 1", [source], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((id, began, ended)) = last else { return Ok(Known::default()) };
        // Of a search of patients the name ends with their digest.
        let mut statement = connection.prepare(
            "SELECT resource_type, sum(received), sum(name LIKE 'file %' OR name LIKE 'refer %'), sum(name LIKE 'query % ________________' AND state = 'done'),
               sum(name LIKE 'count %' AND name NOT LIKE 'count announced %' AND name NOT LIKE 'count kept %'), sum(query LIKE 'count of list %')
               FROM unit WHERE pull_id = ?1 AND name NOT LIKE 'import %' GROUP BY resource_type",
        )?;
        let number = |row: &rusqlite::Row<'_>, place: usize| row.get::<_, i64>(place).map(i64::unsigned_abs);
        let rows = statement.query_map([id], |row| Ok((row.get::<_, String>(0)?, [number(row, 1)?, number(row, 2)?, number(row, 3)?, number(row, 4)?, number(row, 5)?])))?;
        let mut known = Known { last: began.parse().ok().zip(ended.and_then(|ended| ended.parse().ok())), questions: Some(0), trials: Some(0), ..Known::default() };
        for row in rows {
            let (resource_type, [received, requests, searches, questions, trials]) = row?;
            known.resources.insert(resource_type.clone(), received);
            known.requests.insert(resource_type.clone(), requests);
            known.questions = known.questions.map(|sum| sum + questions);
            known.trials = known.trials.map(|sum| sum + trials);
            known.searches.extend((searches > 0).then_some((resource_type, searches)));
        }
        Ok(known)
    })
}

/// By type the patients of whom everything of it was read, sealed; `None`: all.
pub type Covered = Vec<(String, Option<Vec<u8>>)>;

/// What the end of a pull writes beside the segments.
pub struct Closing<'a> {
    /// The pull.
    pub pull: PullId,
    /// Its source.
    pub source: &'a str,
    /// Its plan's digest.
    pub plan: &'a str,
    /// Of whom types were read that are asked for last, `None`: of all; and whom the site's list names.
    pub covered: Covered,
    /// New cursors.
    pub cursors: BTreeMap<String, Timestamp>,
    /// Types whose cursor no longer holds.
    pub without_cursor: BTreeSet<String>,
    /// No gap.
    pub complete: bool,
    /// Nothing of any type was let go of, for so much less of one came than before.
    pub kept_all: bool,
    /// Everything was read.
    pub full: bool,
    /// Types that were read whole, be everything or not.
    pub whole: BTreeSet<String>,
    /// Now.
    pub now: Timestamp,
}

/// Writes cursors, completeness ledger and the pull's end. Gives the number held in quarantine.
pub fn close(transaction: &Transaction<'_>, closing: &Closing<'_>) -> Result<u64, StoreError> {
    let id = closing.pull.0;
    transaction.execute(
        "INSERT INTO ledger (pull_id, resource_type, query, status, expected, received, reason, code)
         SELECT pull_id, resource_type, query,
           CASE WHEN sum(state = 'gap') = 0 AND sum(quarantined) = 0 THEN 'complete'
                WHEN sum(state = 'done') = 0 AND sum(received) = 0 THEN 'failed' ELSE 'partial' END,
           coalesce(sum(expected), (SELECT CASE count(*) WHEN count(expected) THEN sum(expected) END FROM unit AS asked
             WHERE pull_id = ?1 AND name LIKE 'count %' AND asked.query = 'count of ' || unit.query)),
           sum(received), min(reason), code
         FROM unit WHERE pull_id = ?1 AND name NOT LIKE 'count %' GROUP BY resource_type, query",
        [id],
    )?;
    for name in &closing.without_cursor {
        transaction.execute("DELETE FROM cursor WHERE source = ?1 AND resource_type = ?2", params![closing.source, name])?;
    }
    for (name, sealed) in &closing.covered {
        transaction.execute("DELETE FROM covered WHERE source = ?1 AND resource_type = ?2", params![closing.source, name])?;
        if let Some(sealed) = sealed {
            transaction.execute("INSERT INTO covered (source, resource_type, plan, sealed) VALUES (?1, ?2, ?3, ?4)", params![closing.source, name, closing.plan, sealed])?;
        }
    }
    for (name, at) in &closing.cursors {
        transaction.execute(
            "INSERT OR REPLACE INTO cursor (source, resource_type, value, plan, pull_id) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![closing.source, name, at.to_string(), closing.plan, id],
        )?;
    }
    // What was refused earlier and did not come again in that form, though its query was answered, is repaired or gone.
    let answered = "UPDATE quarantine SET state = 'released' WHERE state IN ('held', 'retry') AND last_pull < ?1
       AND source NOT IN (SELECT query FROM unit WHERE pull_id = ?1 AND state = 'gap')";
    if closing.full {
        transaction.execute(answered, [id])?;
    }
    for name in &closing.whole {
        let of_type = "AND source IN (SELECT query FROM unit WHERE pull_id = ?1 AND resource_type = ?2)";
        transaction.execute(&format!("{answered} {of_type}"), params![id, name])?;
    }
    // An import is read whole by every pull.
    transaction.execute(&format!("{answered} AND source LIKE 'import %'"), [id])?;
    transaction.execute("DELETE FROM place WHERE pull_id IN (SELECT id FROM pull WHERE state <> 'open')", [])?;
    let held = held(transaction)?;
    transaction.execute(
        "UPDATE pull SET finished_at = ?2, complete = ?3, quarantined = ?4, kept_all = max(kept_all, ?5) WHERE id = ?1",
        params![id, closing.now.to_string(), closing.complete && held == 0, held as i64, closing.kept_all],
    )?;
    Ok(held)
}

/// Enters what a query came to after its pull was closed; nothing where it is open.
pub fn enter_late(store: &Store, pull: PullId, query: &str) -> Result<(), StoreError> {
    store.with(|connection| {
        connection.execute(
            "INSERT OR REPLACE INTO ledger (pull_id, resource_type, query, status, expected, received, reason, code)
             SELECT pull_id, resource_type, query, 'complete', expected, received, reason, code
             FROM unit JOIN pull ON pull.id = pull_id WHERE pull_id = ?1 AND query = ?2 AND pull.state = 'committed'",
            params![pull.0, query],
        )?;
        Ok(())
    })
}

fn held(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM quarantine WHERE state IN ('held', 'retry')";
    Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
}
