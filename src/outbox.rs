//! Finished feeds on their way: appended, claimed, settled, retried, dead-lettered.
//!
//! A *feed* is everything a site says to one destination at once: final reports, named by the digest of
//! their bytes. [`append`] writes it in the caller's transaction, so its identity is on disk before the first
//! byte is sent. Every function here takes the connection or transaction it works in; nothing here opens one.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

mod adopt;
mod state;

use crate::feed::feed_id;
pub use crate::feed::{Cause, Completeness, CountedBy, Entry, Manifest, PROTOCOL, ReportKey, Withdrawal, sha256_hex};
pub use adopt::{Compared, adopt, compare};
use state::STATE;
pub use state::{Remaining, State};

/// Reports and withdrawals one feed may name.
pub const REPORTS_MAX: usize = 10_000;
/// Bytes of one report.
pub const REPORT_BYTES_MAX: usize = 10 << 20;
/// Times the same content may be sent anew after rejections.
const ATTEMPTS_OF_CONTENT_MAX: u32 = 1_000;
/// First wait after a failed attempt; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(30);
/// Longest wait between attempts: an outage of weeks ends within the hour.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);

/// One finished report, as it will be sent.
#[derive(Clone)]
pub struct Report {
    /// What it is about.
    pub key: ReportKey,
    /// The MeasureReport, UTF-8 JSON; these bytes are what the digest names.
    pub body: Vec<u8>,
    /// Whether every patient and resource it needs was received.
    pub complete: bool,
}

/// What one night wants to say to one destination.
#[derive(Clone)]
pub struct Draft {
    /// Name of the destination in the configuration.
    pub destination: String,
    /// The site's name, as registered.
    pub site: String,
    /// Every report of the night, changed or not; one per key.
    pub reports: Vec<Report>,
    /// Reports sent earlier that must no longer count.
    pub withdrawals: Vec<Withdrawal>,
    /// Why numbers that differ from the last feed differ.
    pub cause: Cause,
    /// What the night received and what it missed.
    pub completeness: Completeness,
}

/// What became of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// A new feed waits for delivery.
    New {
        /// 32 hexadecimal digits.
        feed: String,
    },
    /// The destination already has, or will get, exactly this; it will only be told that the site is alive.
    Unchanged {
        /// The feed that already says so.
        feed: String,
    },
}

/// A feed leased for sending.
#[derive(Clone)]
pub struct Claim {
    /// Row in the outbox.
    pub sequence: i64,
    /// 32 hexadecimal digits; also the idempotency key.
    pub feed: String,
    /// The site's name.
    pub site: String,
    /// Name of the destination in the configuration.
    pub destination: String,
    /// Epoch of the process that appended the feed; of a confirmation, of the one that is at work.
    pub epoch: u64,
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// How often it was tried before this claim.
    pub attempts: u32,
    /// Delivered before; repeated so that the destination knows the night changed nothing.
    pub confirming: bool,
    /// Which lease this is; a settlement under another lease is refused.
    pub lease: String,
}

/// What became of a claimed feed.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Accepted; the receipt was verified by the caller.
    Delivered {
        /// The receipt as received (a compact JWS for a Watershed registry).
        receipt: String,
    },
    /// Not accepted now; to be tried again.
    Retry {
        /// For the person who reads `outbox list`.
        reason: String,
        /// Wait at least this long, from now.
        after: Duration,
        /// The destination answered and would not have us (an unknown client, a key that is not registered).
        refused: bool,
    },
    /// Never to be accepted as it is.
    Dead {
        /// Every reason the destination gave.
        reasons: Vec<String>,
    },
}

/// One line of `outbox list`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Row in the outbox; order of appending.
    pub sequence: i64,
    /// 32 hexadecimal digits.
    pub feed: String,
    /// The site's name.
    pub site: String,
    /// Name of the destination.
    pub destination: String,
    /// Where it stands.
    pub state: State,
    /// How often it was tried.
    pub attempts: u32,
    /// When it will be tried next, if something of it is to be sent.
    pub next_attempt: Option<Timestamp>,
    /// Whether the destination answered the last attempt and would not have us: until that is mended there, it waits in vain.
    pub refused: bool,
    /// Why the last attempt failed, one reason a line.
    pub reason: Option<String>,
    /// When it was appended.
    pub created: Timestamp,
    /// When it was delivered or given up.
    pub settled: Option<Timestamp>,
    /// Number of reports it names.
    pub reports: u64,
    /// The receipt, once delivered.
    pub receipt: Option<String>,
}

/// Why the outbox could not do it.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The database refused.
    #[error("outbox database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A draft that cannot be sent.
    #[error("feed cannot be appended: {0}")]
    Draft(String),
    /// The row is not, or no longer, the caller's.
    #[error("feed `{0}` is no longer leased by this process")]
    LeaseLost(String),
    /// A feed of which nothing is to be sent.
    #[error("feed `{feed}` is {}: {}{}", state.word(), state.meaning(), passed_by(later.as_ref()))]
    AtRest {
        /// The feed.
        feed: String,
        /// Where it stands.
        state: State,
        /// What stands in its place, if anything, and where that stands.
        later: Option<(String, State)>,
    },
    /// No such feed.
    #[error("no feed `{0}` in the outbox")]
    Unknown(String),
    /// What was stored cannot be read.
    #[error("outbox row is damaged: {0}")]
    Damaged(String),
}

fn passed_by(later: Option<&(String, State)>) -> String {
    later.map_or_else(String::new, |(feed, state)| format!(": feed `{feed}`, which is {}", state.word()))
}

/// Wait before the next attempt: doubling from half a minute to an hour, times a random part in `[0.5, 1]`
/// given by the caller as `jitter` in `[0, 1)`, so that sites do not return in step.
pub fn backoff(attempts: u32, jitter: f64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1u32.checked_shl(attempts.min(20)).unwrap_or(u32::MAX));
    doubled.min(BACKOFF_MAX).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Raises the epoch: once at the start of every process that appends. A copy of this database restored
/// elsewhere has a lower one, and a destination that has seen the higher refuses it.
///
/// Leases that a process left when it was killed end here: the caller holds the database alone.
pub fn open_epoch(connection: &mut Connection) -> Result<u64, OutboxError> {
    release_leases(connection)?;
    let epoch: i64 = connection.query_row("UPDATE outbox_epoch SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch", [], |row| row.get(0))?;
    Ok(epoch.unsigned_abs())
}

/// Ends the leases of processes that no longer run; for a caller that holds the database alone.
pub fn release_leases(connection: &Connection) -> Result<(), OutboxError> {
    connection.execute("UPDATE outbox_feed SET lease = NULL, lease_until = NULL WHERE lease IS NOT NULL", [])?;
    Ok(())
}

/// Appends the night's feed in the caller's transaction, under the epoch of the last [`open_epoch`].
///
/// A report whose numbers equal the ones already fed for its key keeps the bytes that were fed then (its date
/// included), so a night in which nothing changed appends nothing, and a changed report names the digest of
/// the one it follows. Errors name the key that cannot be sent; nothing is written then.
pub fn append(transaction: &Transaction<'_>, draft: &Draft, now: Timestamp) -> Result<Appended, OutboxError> {
    check(draft)?;
    let epoch: i64 = transaction.query_row("SELECT epoch FROM outbox_epoch WHERE id = 1", [], |row| row.get(0))?;
    append_under(transaction, draft, epoch, now)
}

fn check(draft: &Draft) -> Result<(), OutboxError> {
    let mut seen = BTreeSet::new();
    if draft.reports.len().saturating_add(draft.withdrawals.len()) > REPORTS_MAX {
        return Err(OutboxError::Draft(format!("{} reports, at most {REPORTS_MAX} fit one feed", draft.reports.len())));
    }
    let withdrawn = draft.withdrawals.iter().map(|withdrawal| &withdrawal.key);
    for key in draft.reports.iter().map(|report| &report.key).chain(withdrawn) {
        if !seen.insert((&key.measure, &key.period_start, &key.period_end)) {
            return Err(OutboxError::Draft(format!("`{key}` occurs twice")));
        }
    }
    for report in &draft.reports {
        if report.body.len() > REPORT_BYTES_MAX {
            return Err(OutboxError::Draft(format!("`{}` has {} bytes, at most {REPORT_BYTES_MAX} can be sent", report.key, report.body.len())));
        }
    }
    Ok(())
}

/// The newest feed of the pair that was neither rejected nor rebuilt.
struct Head {
    sequence: i64,
    feed: String,
    manifest: Manifest,
    manifest_sha256: String,
}

fn head(connection: &Connection, destination: &str, site: &str) -> Result<Option<Head>, OutboxError> {
    let found = connection
        .query_row(
            "SELECT sequence, feed, manifest, manifest_sha256 FROM outbox_feed
             WHERE destination = ?1 AND site = ?2 AND state IN ('pending', 'delivered') AND is_history = 0 ORDER BY sequence DESC LIMIT 1",
            params![destination, site],
            |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?, row.get(3)?)),
        )
        .optional()?;
    found
        .map(|(sequence, feed, manifest, manifest_sha256)| {
            let manifest = read_manifest(&manifest)?;
            Ok(Head { sequence, feed, manifest, manifest_sha256 })
        })
        .transpose()
}

fn read_manifest(bytes: &[u8]) -> Result<Manifest, OutboxError> {
    serde_json::from_slice(bytes).map_err(|error| OutboxError::Damaged(format!("manifest: {error}")))
}

/// What the chain of living feeds says of one key.
struct Fed {
    version: String,
    sha256: Option<String>,
    substance: Option<String>,
    complete: bool,
}

fn fed(connection: &Connection, draft: &Draft, key: &ReportKey) -> Result<Option<Fed>, OutboxError> {
    let found = connection
        .prepare_cached(
            "SELECT r.version, r.sha256, p.substance, r.complete
             FROM outbox_report r JOIN outbox_feed f USING (sequence) LEFT JOIN outbox_part p ON p.sha256 = r.sha256
             WHERE r.measure = ?1 AND r.period_start = ?2 AND r.period_end = ?3
               AND f.destination = ?4 AND f.site = ?5 AND f.state IN ('pending', 'delivered') AND f.is_history = 0
             ORDER BY r.sequence DESC LIMIT 1",
        )?
        .query_row(params![key.measure, key.period_start, key.period_end, draft.destination, draft.site], |row| {
            Ok(Fed { version: row.get(0)?, sha256: row.get(1)?, substance: row.get(2)?, complete: row.get(3)? })
        })
        .optional()?;
    Ok(found)
}

/// Digest of a report without its own date, which says when the numbers were computed and not what they are.
fn substance(body: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(serde_json::Value::Object(mut report)) => {
            report.shift_remove("date");
            sha256_hex(&serde_json::to_vec(&report).unwrap_or_default())
        }
        _ => sha256_hex(body),
    }
}

/// An entry and, when it is new or changed, that it is.
fn entry(transaction: &Transaction<'_>, draft: &Draft, report: &Report) -> Result<(Entry, bool), OutboxError> {
    let substance = substance(&report.body);
    let before = fed(transaction, draft, &report.key)?;
    if let Some(Fed { version, sha256: Some(sha256), substance: Some(old), complete }) = &before
        && (version, old, *complete) == (&report.key.version, &substance, report.complete)
    {
        let bytes: i64 = transaction.query_row("SELECT length(body) FROM outbox_part WHERE sha256 = ?1", [sha256], |row| row.get(0))?;
        let (sha256, replaces) = (sha256.clone(), Some(sha256.clone()));
        return Ok((Entry { key: report.key.clone(), sha256, bytes: bytes.unsigned_abs(), complete: *complete, replaces, cause: None }, false));
    }
    let sha256 = sha256_hex(&report.body);
    transaction
        .prepare_cached("INSERT INTO outbox_part (sha256, substance, body) VALUES (?1, ?2, ?3) ON CONFLICT (sha256) DO NOTHING")?
        .execute(params![sha256, substance, report.body])?;
    let replaces = before.and_then(|before| before.sha256);
    let cause = replaces.as_deref().map(|before| cause(transaction, draft, before, &report.body)).transpose()?;
    let bytes = u64::try_from(report.body.len()).unwrap_or(u64::MAX);
    Ok((Entry { key: report.key.clone(), sha256, bytes, complete: report.complete, replaces, cause }, true))
}

/// Why a report differs from the one before: of a month that was left as it was when the rules changed, what has changed since then is
/// more than since the last night.
fn cause(transaction: &Transaction<'_>, draft: &Draft, before: &str, body: &[u8]) -> Result<Cause, OutboxError> {
    let counted_by = |body: &[u8]| serde_json::from_slice(body).map(|report| CountedBy::of(&report)).unwrap_or_default();
    let Some(before) = part(transaction, before)?.filter(|_| draft.cause == Cause::Data) else { return Ok(draft.cause) };
    Ok(match *counted_by(&before).other_than(&counted_by(body), true) {
        [] => Cause::Data,
        ["mapping"] => Cause::Mapping,
        ["logic"] => Cause::Measure,
        ["value sets"] => Cause::Terminology,
        _ => Cause::Correction,
    })
}

/// The newest report of each measure and period that was or is to be sent, by measure and period.
pub fn standing(connection: &Connection) -> Result<Vec<(ReportKey, CountedBy)>, OutboxError> {
    let mut statement = connection.prepare(
        "SELECT r.measure, r.version, r.period_start, r.period_end, p.body, max(r.sequence) FROM outbox_report r JOIN outbox_feed f USING (sequence)
         LEFT JOIN outbox_part p ON p.sha256 = r.sha256 WHERE f.state IN ('pending', 'delivered') AND f.is_history = 0
         GROUP BY r.measure, r.period_start, r.period_end ORDER BY r.measure, r.period_start, r.period_end",
    )?;
    let rows = statement.query_map([], |row| {
        let key = ReportKey { measure: row.get(0)?, version: row.get(1)?, period_start: row.get(2)?, period_end: row.get(3)? };
        Ok((key, row.get::<_, Option<Vec<u8>>>(4)?))
    })?;
    let rows: Vec<(ReportKey, Option<Vec<u8>>)> = rows.collect::<Result<_, _>>()?;
    // What was withdrawn, or adopted without its bytes, says nothing.
    let read = |body: Vec<u8>| Some(CountedBy::of(&serde_json::from_slice(&body).ok()?));
    Ok(rows.into_iter().filter_map(|(key, body)| Some((key, read(body?)?))).collect())
}

fn append_under(transaction: &Transaction<'_>, draft: &Draft, epoch: i64, now: Timestamp) -> Result<Appended, OutboxError> {
    let head = head(transaction, &draft.destination, &draft.site)?;
    let mut reports = Vec::with_capacity(draft.reports.len());
    let mut changed = BTreeSet::new();
    for report in &draft.reports {
        let (entry, is_changed) = entry(transaction, draft, report)?;
        if is_changed {
            changed.insert(entry.key.clone());
        }
        reports.push(entry);
    }
    let mut withdrawals = Vec::new();
    for withdrawal in &draft.withdrawals {
        if let Some(Fed { sha256: Some(replaces), .. }) = fed(transaction, draft, &withdrawal.key)? {
            withdrawals.push(Withdrawal { replaces, ..withdrawal.clone() });
        }
    }
    if let Some(head) = &head
        && changed.is_empty()
        && withdrawals.is_empty()
        && head.manifest.completeness == draft.completeness
    {
        transaction.execute(
            "UPDATE outbox_feed SET confirm_due = 1, attempts = 0, next_attempt_at = ?2 WHERE sequence = ?1 AND state = 'delivered'",
            params![head.sequence, now.as_millisecond()],
        )?;
        // What was rejected after it is passed by this night, which no row of its own tells of.
        let passed = "UPDATE outbox_feed SET is_history = 1 WHERE destination = ?1 AND site = ?2 AND state = 'dead'";
        transaction.execute(passed, params![draft.destination, draft.site])?;
        return Ok(Appended::Unchanged { feed: head.feed.clone() });
    }
    reports.sort_by(|a, b| a.key.cmp(&b.key));
    withdrawals.sort_by(|a, b| a.key.cmp(&b.key));
    let mut manifest = Manifest {
        protocol: PROTOCOL.to_owned(),
        site: draft.site.clone(),
        supersedes: head.map(|head| head.manifest_sha256),
        attempt: 1,
        completeness: draft.completeness.clone(),
        reports,
        withdrawals,
    };
    let bytes = unused_identity(transaction, &draft.destination, &mut manifest)?;
    insert(transaction, draft, &manifest, &bytes, &changed, epoch, now)
}

/// Raises `attempt` until the manifest names a feed that this outbox never tried.
fn unused_identity(transaction: &Transaction<'_>, destination: &str, manifest: &mut Manifest) -> Result<Vec<u8>, OutboxError> {
    while manifest.attempt < ATTEMPTS_OF_CONTENT_MAX {
        let bytes = manifest.bytes();
        let query = "SELECT 1 FROM outbox_feed WHERE destination = ?1 AND feed = ?2";
        if transaction.query_row(query, params![destination, feed_id(&bytes)], |_| Ok(())).optional()?.is_none() {
            return Ok(bytes);
        }
        manifest.attempt += 1;
    }
    Err(OutboxError::Draft(format!("the same content was rejected {ATTEMPTS_OF_CONTENT_MAX} times")))
}

fn insert(
    transaction: &Transaction<'_>,
    draft: &Draft,
    manifest: &Manifest,
    bytes: &[u8],
    changed: &BTreeSet<ReportKey>,
    epoch: i64,
    now: Timestamp,
) -> Result<Appended, OutboxError> {
    let feed = feed_id(bytes);
    settle_confirmations(transaction, &draft.destination, &draft.site)?;
    transaction.execute(
        "INSERT INTO outbox_feed (feed, destination, site, epoch, manifest, manifest_sha256, reports, state, next_attempt_at, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending', ?8, ?8)",
        params![feed, draft.destination, draft.site, epoch, bytes, sha256_hex(bytes), i64::try_from(manifest.reports.len()).unwrap_or(i64::MAX), now.as_millisecond()],
    )?;
    let sequence = transaction.last_insert_rowid();
    let mut statement =
        transaction.prepare_cached("INSERT INTO outbox_report (sequence, measure, period_start, period_end, version, sha256, complete) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for entry in manifest.reports.iter().filter(|entry| changed.contains(&entry.key)) {
        let key = &entry.key;
        statement.execute(params![sequence, key.measure, key.period_start, key.period_end, key.version, entry.sha256, entry.complete])?;
    }
    for Withdrawal { key, .. } in &manifest.withdrawals {
        statement.execute(params![sequence, key.measure, key.period_start, key.period_end, key.version, None::<String>, true])?;
    }
    Ok(Appended::New { feed })
}

/// A later feed says more than the confirmation of an earlier one, and than what became of it.
fn settle_confirmations(transaction: &Transaction<'_>, destination: &str, site: &str) -> Result<(), OutboxError> {
    transaction.execute(
        "UPDATE outbox_feed SET confirm_due = 0, reason = CASE state WHEN 'delivered' THEN NULL ELSE reason END WHERE destination = ?1 AND site = ?2",
        params![destination, site],
    )?;
    Ok(())
}

/// Leases the next due feed of any (site, destination); feeds of one such pair go strictly in order, so a
/// later one waits while an earlier one is retried. `None`: nothing is due.
pub fn claim(connection: &mut Connection, now: Timestamp, lease: Duration) -> Result<Option<Claim>, OutboxError> {
    let until = now.as_millisecond().saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
    let token = uuid::Uuid::new_v4().simple().to_string();
    let claimed = connection
        .query_row(
            "UPDATE outbox_feed SET lease = ?2, lease_until = ?3
             WHERE sequence = (
                 SELECT f.sequence FROM outbox_feed f
                 WHERE (f.state = 'pending' OR (f.state = 'delivered' AND f.confirm_due = 1))
                   AND f.next_attempt_at <= ?1 AND (f.lease_until IS NULL OR f.lease_until <= ?1)
                   AND NOT EXISTS (SELECT 1 FROM outbox_feed e WHERE e.destination = f.destination AND e.site = f.site
                                   AND e.state = 'pending' AND (e.sequence < f.sequence OR f.state = 'delivered'))
                 ORDER BY f.next_attempt_at, f.sequence LIMIT 1)
             RETURNING sequence, feed, site, destination,
               CASE state WHEN 'delivered' THEN (SELECT epoch FROM outbox_epoch WHERE id = 1) ELSE epoch END, manifest, attempts, state = 'delivered'",
            params![now.as_millisecond(), token, until],
            |row| {
                Ok(Claim {
                    sequence: row.get(0)?,
                    feed: row.get(1)?,
                    site: row.get(2)?,
                    destination: row.get(3)?,
                    epoch: row.get::<_, i64>(4)?.unsigned_abs(),
                    manifest: row.get(5)?,
                    attempts: row.get(6)?,
                    confirming: row.get(7)?,
                    lease: token.clone(),
                })
            },
        )
        .optional()?;
    Ok(claimed)
}

/// The bytes of one report of the feed, by digest.
pub fn part(connection: &Connection, sha256: &str) -> Result<Option<Vec<u8>>, OutboxError> {
    Ok(connection.query_row("SELECT body FROM outbox_part WHERE sha256 = ?1", [sha256], |row| row.get(0)).optional()?)
}

/// Records what became of a claim. When a feed is rejected for good, the feeds that waited behind it are
/// rebuilt upon the last one that was not, in the same transaction. Fails with [`OutboxError::LeaseLost`]
/// when another process took the feed over meanwhile; nothing is written then.
pub fn settle(connection: &mut Connection, claim: &Claim, outcome: &Outcome, now: Timestamp) -> Result<(), OutboxError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let at = now.as_millisecond();
    let key = params![claim.sequence, claim.lease];
    let owned = "SELECT 1 FROM outbox_feed WHERE sequence = ?1 AND lease = ?2 AND (state = 'pending' OR state = 'delivered')";
    if transaction.query_row(owned, key, |_| Ok(())).optional()?.is_none() {
        return Err(OutboxError::LeaseLost(claim.feed.clone()));
    }
    match outcome {
        Outcome::Delivered { receipt } => {
            transaction.execute(
                "UPDATE outbox_feed SET state = 'delivered', receipt = coalesce(receipt, ?2), settled_at = coalesce(settled_at, ?3),
                 attempts = attempts + 1, confirm_due = 0, refused = 0, lease = NULL, lease_until = NULL, reason = NULL WHERE sequence = ?1",
                params![claim.sequence, receipt, at],
            )?;
        }
        Outcome::Retry { reason, after, refused } => {
            let next = at.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
            transaction.execute(
                "UPDATE outbox_feed SET attempts = attempts + 1, next_attempt_at = ?2, reason = CASE WHEN state = 'pending' OR confirm_due = 1 THEN ?3 END,
                 refused = ?4, lease = NULL, lease_until = NULL WHERE sequence = ?1",
                params![claim.sequence, next, reason, refused],
            )?;
        }
        Outcome::Dead { reasons } => {
            // A feed that was accepted once stays delivered, whatever its repetition is answered.
            transaction.execute(
                "UPDATE outbox_feed SET state = CASE state WHEN 'pending' THEN 'dead' ELSE state END, settled_at = coalesce(settled_at, ?2),
                 attempts = attempts + 1, reason = CASE WHEN state = 'pending' OR confirm_due = 1 THEN ?3 END, confirm_due = 0, lease = NULL, lease_until = NULL WHERE sequence = ?1",
                params![claim.sequence, at, reasons.join("\n")],
            )?;
            if !claim.confirming {
                rebuild_successors(&transaction, claim, now)?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The feeds behind a rejected one name it as their predecessor and were never sent: each is appended anew.
fn rebuild_successors(transaction: &Transaction<'_>, rejected: &Claim, now: Timestamp) -> Result<(), OutboxError> {
    let waiting: Vec<(i64, i64, Vec<u8>)> = transaction
        .prepare(
            "SELECT sequence, epoch, manifest FROM outbox_feed
             WHERE destination = ?1 AND site = ?2 AND state = 'pending' AND sequence > ?3 ORDER BY sequence",
        )?
        .query_map(params![rejected.destination, rejected.site, rejected.sequence], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    transaction.execute(
        "UPDATE outbox_feed SET state = 'rebuilt', settled_at = ?4, reason = 'rebuilt: the feed before it was rejected'
         WHERE destination = ?1 AND site = ?2 AND state = 'pending' AND sequence > ?3",
        params![rejected.destination, rejected.site, rejected.sequence, now.as_millisecond()],
    )?;
    for (_, epoch, manifest) in waiting {
        let draft = draft_of(transaction, &rejected.destination, &read_manifest(&manifest)?)?;
        append_under(transaction, &draft, epoch, now)?;
    }
    Ok(())
}

/// The draft that a stored manifest was made of.
fn draft_of(connection: &Connection, destination: &str, manifest: &Manifest) -> Result<Draft, OutboxError> {
    let mut reports = Vec::with_capacity(manifest.reports.len());
    for entry in &manifest.reports {
        let body = part(connection, &entry.sha256)?.ok_or_else(|| OutboxError::Damaged(format!("report `{}` is missing", entry.key)))?;
        reports.push(Report { key: entry.key.clone(), body, complete: entry.complete });
    }
    Ok(Draft {
        destination: destination.to_owned(),
        site: manifest.site.clone(),
        reports,
        withdrawals: manifest.withdrawals.clone(),
        cause: manifest.reports.iter().find_map(|entry| entry.cause).unwrap_or(Cause::Correction),
        completeness: manifest.completeness.clone(),
    })
}

/// Every feed, newest first.
pub fn list(connection: &Connection) -> Result<Vec<Listed>, OutboxError> {
    let mut statement = connection.prepare(&format!(
        "SELECT sequence, feed, site, destination, {STATE}, attempts, next_attempt_at, reason, created_at, settled_at, reports, receipt, refused
         FROM outbox_feed f ORDER BY sequence DESC"
    ))?;
    let rows = statement.query_map([], listed)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let time = |millisecond: i64| Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::UNIX_EPOCH);
    let state = State::of(&row.get::<_, String>(4)?);
    Ok(Listed {
        sequence: row.get(0)?,
        feed: row.get(1)?,
        site: row.get(2)?,
        destination: row.get(3)?,
        state,
        attempts: row.get(5)?,
        next_attempt: state.is_to_be_sent().then_some(time(row.get(6)?)),
        reason: row.get(7)?,
        created: time(row.get(8)?),
        settled: row.get::<_, Option<i64>>(9)?.map(time),
        reports: row.get::<_, i64>(10)?.unsigned_abs(),
        receipt: row.get(11)?,
        refused: state.is_to_be_sent() && row.get(12)?,
    })
}

/// How many feeds are still to be sent or to be looked at.
pub fn remaining(connection: &Connection) -> Result<Remaining, OutboxError> {
    let mut statement = connection.prepare(&format!("SELECT {STATE} FROM outbox_feed f"))?;
    let states = statement.query_map([], |row| Ok(State::of(&row.get::<_, String>(0)?)))?;
    Ok(Remaining::of(states.collect::<Result<Vec<_>, _>>()?))
}

/// The manifest of a feed, for `outbox show`.
pub fn manifest_of(connection: &Connection, feed: &str) -> Result<Manifest, OutboxError> {
    let bytes: Option<Vec<u8>> = connection
        .query_row("SELECT manifest FROM outbox_feed WHERE feed = ?1 ORDER BY sequence DESC LIMIT 1", [feed], |row| row.get(0))
        .optional()?;
    read_manifest(&bytes.ok_or_else(|| OutboxError::Unknown(feed.to_owned()))?)
}

/// Makes everything that waits due now: a person asks for it, or a night brings newer numbers.
pub fn make_due(connection: &Connection, now: Timestamp) -> Result<(), OutboxError> {
    connection.execute(
        "UPDATE outbox_feed SET next_attempt_at = ?1 WHERE next_attempt_at > ?1 AND (state = 'pending' OR (state = 'delivered' AND confirm_due = 1))",
        [now.as_millisecond()],
    )?;
    Ok(())
}

/// Sends a feed that is not at rest: what waits or is contradicted is due now, under its own identity; what was rejected is appended
/// anew, under another. Returns the feed that will be sent. What a later feed or night has passed stays as it is: its numbers are older.
pub fn retry(connection: &mut Connection, feed: &str, now: Timestamp) -> Result<String, OutboxError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: Option<(i64, String, String, Vec<u8>)> = transaction
        .query_row(&format!("SELECT sequence, {STATE}, destination, manifest FROM outbox_feed f WHERE feed = ?1 ORDER BY sequence DESC LIMIT 1"), [feed], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((sequence, state, destination, manifest)) = found else { return Err(OutboxError::Unknown(feed.to_owned())) };
    let sent = match State::of(&state) {
        State::Waiting | State::Confirming | State::Contradicted => {
            transaction.execute("UPDATE outbox_feed SET next_attempt_at = ?2, confirm_due = (state = 'delivered') WHERE sequence = ?1", params![sequence, now.as_millisecond()])?;
            feed.to_owned()
        }
        State::Rejected => {
            let draft = draft_of(&transaction, &destination, &read_manifest(&manifest)?)?;
            match append(&transaction, &draft, now)? {
                Appended::New { feed } | Appended::Unchanged { feed } => feed,
            }
        }
        state @ (State::Delivered | State::Superseded | State::Rebuilt) => {
            let passed = if state == State::Delivered { None } else { later(&transaction, sequence)? };
            return Err(OutboxError::AtRest { feed: feed.to_owned(), state, later: passed });
        }
    };
    transaction.commit()?;
    Ok(sent)
}

/// The newest feed that stands in the place of one that is passed, and where it stands.
fn later(connection: &Connection, sequence: i64) -> Result<Option<(String, State)>, OutboxError> {
    let found = connection
        .query_row(
            &format!(
                "SELECT f.feed, {STATE} FROM outbox_feed f JOIN outbox_feed p ON p.destination = f.destination AND p.site = f.site
                 WHERE p.sequence = ?1 AND f.state <> 'rebuilt' AND f.sequence <> p.sequence AND (f.sequence > p.sequence OR f.state = 'delivered')
                 ORDER BY f.sequence DESC LIMIT 1"
            ),
            [sequence],
            |row| Ok((row.get(0)?, State::of(&row.get::<_, String>(1)?))),
        )
        .optional()?;
    Ok(found)
}

#[cfg(test)]
mod tests;
