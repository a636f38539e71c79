//! Going on from what a destination holds, where this outbox does not know of it: the data directory is new, or was restored from
//! an old copy. Only a person asks for it: a stale copy must never win over the adapter that lives.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{OutboxError, sha256_hex};
use crate::feed::{Head, Standing};

/// Why a feed that waited is not sent.
const NOT_SENT: &str = "not sent: the site goes on from what the registry holds; the next night sends its own numbers";

/// How this outbox stands to what its destination holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The epoch of the process that opened this outbox last.
    pub epoch: u64,
    /// The feed delivered last, and when.
    pub delivered: Option<(String, Option<Timestamp>)>,
    /// Feeds that wait.
    pub waiting: u64,
    /// What the destination holds was sent from here, and a process that starts now is not older than the last one it saw.
    pub agrees: bool,
}

/// Compares, and changes nothing.
pub fn compare(connection: &Connection, destination: &str, standing: &Standing) -> Result<Compared, OutboxError> {
    let epoch: i64 = connection.query_row("SELECT epoch FROM outbox_epoch WHERE id = 1", [], |row| row.get(0))?;
    let pair = params![destination, standing.site];
    let delivered: Option<(String, Option<i64>)> = connection
        .query_row(
            "SELECT feed, settled_at FROM outbox_feed WHERE destination = ?1 AND site = ?2 AND state = 'delivered' AND is_history = 0 ORDER BY sequence DESC LIMIT 1",
            pair,
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let delivered = delivered.map(|(feed, at)| (feed, at.and_then(|at| Timestamp::from_millisecond(at).ok())));
    let mut waiting = connection.prepare("SELECT feed FROM outbox_feed WHERE destination = ?1 AND site = ?2 AND state = 'pending'")?;
    let waiting: Vec<String> = waiting.query_map(pair, |row| row.get(0))?.collect::<Result<_, _>>()?;
    let held = standing.head.as_ref().map(|head| &head.feed);
    // One that waits may have arrived, and its receipt been lost.
    let is_known = held == delivered.as_ref().map(|(feed, _)| feed) || held.is_some_and(|held| waiting.contains(held));
    let epoch = epoch.unsigned_abs();
    Ok(Compared { agrees: is_known && epoch >= standing.epoch, epoch, delivered, waiting: waiting.len() as u64 })
}

/// Goes on from what the destination holds, under a later epoch than any it has seen: the next feed follows that one. Feeds that
/// wait are not sent, because they may be as old as this outbox. `bodies` are the current reports by digest, so that a night of
/// equal numbers changes nothing.
pub fn adopt(transaction: &Transaction<'_>, destination: &str, standing: &Standing, bodies: &BTreeMap<String, Vec<u8>>, now: Timestamp) -> Result<(), OutboxError> {
    let site = &standing.site;
    transaction.execute(
        "UPDATE outbox_feed SET state = 'rebuilt', settled_at = ?3, reason = ?4, lease = NULL, lease_until = NULL
         WHERE destination = ?1 AND site = ?2 AND state = 'pending'",
        params![destination, site, now.as_millisecond(), NOT_SENT],
    )?;
    super::settle_confirmations(transaction, destination, site)?;
    transaction.execute("UPDATE outbox_feed SET is_history = 1 WHERE destination = ?1 AND site = ?2", params![destination, site])?;
    let seen = i64::try_from(standing.epoch).unwrap_or(i64::MAX);
    transaction.execute("UPDATE outbox_epoch SET epoch = max(epoch, ?1) + 1 WHERE id = 1", [seen])?;
    for (sha256, body) in bodies {
        transaction
            .execute("INSERT INTO outbox_part (sha256, substance, body) VALUES (?1, ?2, ?3) ON CONFLICT (sha256) DO NOTHING", params![sha256, super::substance(body), body])?;
    }
    match &standing.head {
        Some(head) => take(transaction, destination, standing, head),
        None => Ok(()),
    }
}

/// Enters the feed as if it had been delivered from here.
fn take(transaction: &Transaction<'_>, destination: &str, standing: &Standing, head: &Head) -> Result<(), OutboxError> {
    let known = "SELECT sequence FROM outbox_feed WHERE destination = ?1 AND feed = ?2";
    transaction.execute(&format!("DELETE FROM outbox_report WHERE sequence IN ({known})"), params![destination, head.feed])?;
    transaction.execute("DELETE FROM outbox_feed WHERE destination = ?1 AND feed = ?2", params![destination, head.feed])?;
    let bytes = head.manifest.bytes();
    let epoch: i64 = transaction.query_row("SELECT epoch FROM outbox_epoch WHERE id = 1", [], |row| row.get(0))?;
    let committed = head.committed_at.parse::<Timestamp>().unwrap_or_default().as_millisecond();
    transaction.execute(
        "INSERT INTO outbox_feed (feed, destination, site, epoch, manifest, manifest_sha256, reports, state, next_attempt_at, created_at, settled_at, receipt)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'delivered', ?8, ?8, ?8, ?9)",
        params![head.feed, destination, standing.site, epoch, bytes, sha256_hex(&bytes), i64::try_from(head.manifest.reports.len()).unwrap_or(i64::MAX), committed, head.receipt],
    )?;
    let sequence = transaction.last_insert_rowid();
    let mut insert =
        transaction.prepare_cached("INSERT INTO outbox_report (sequence, measure, period_start, period_end, version, sha256, complete) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for current in &standing.current {
        let key = &current.key;
        insert.execute(params![sequence, key.measure, key.period_start, key.period_end, key.version, current.sha256, current.complete])?;
    }
    Ok(())
}
