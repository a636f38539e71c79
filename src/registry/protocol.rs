//! The feed protocol as steps over one transaction: announce, receive, examine, commit, expire.
//!
//! Every step may be repeated; the answer to a repetition is the answer given first. Nothing of a feed can be
//! read before its commit, which is one transaction.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::{Value, json};

use super::quota::{self, Quota};
use super::report::{self, Reading};
use super::store::{self, Site};
use super::{MeasureCard, receipt::ReceiptKey, standing};
use crate::feed::{Entry, Manifest, PROTOCOL, ReceiptClaims, ReceiptEntry, ReportKey, feed_id, sha256_hex};

/// Bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Bytes of one report.
pub const PART_BYTES_MAX: usize = 10 << 20;
/// Bytes of all reports of a feed.
pub const FEED_BYTES_MAX: u64 = 256 << 20;
/// Reports and withdrawals of a feed.
pub const REPORTS_MAX: usize = 10_000;
/// Feeds of a site that wait for their commit.
pub const OPEN_FEEDS_MAX: i64 = 8;
/// Characters of any text in a manifest.
const TEXT_CHARS_MAX: usize = 512;
/// Issues one answer names; more are counted.
const ISSUES_MAX: usize = 200;
/// Refusals kept for each site.
const REFUSALS_KEPT: i64 = 100;
/// Days after which an uncommitted feed is forgotten.
const OPEN_DAYS_MAX: i64 = 7;

/// One reason, as an OperationOutcome issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// FHIR issue-type code.
    pub code: &'static str,
    /// For the person who can act.
    pub text: String,
}

/// Why a step was refused.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Every reason.
    pub issues: Vec<Issue>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, issues: vec![Issue { code, text: text.into() }] }
    }

    /// The reasons as a FHIR OperationOutcome.
    pub fn outcome(&self) -> Value {
        let shown = self
            .issues
            .iter()
            .take(ISSUES_MAX)
            .map(|issue| json!({ "severity": "error", "code": issue.code, "details": { "text": issue.text } }));
        let mut issues: Vec<Value> = shown.collect();
        if let Some(more) = self.issues.len().checked_sub(ISSUES_MAX).filter(|more| *more > 0) {
            issues.push(json!({ "severity": "information", "code": "informational", "details": { "text": format!("{more} more issues") } }));
        }
        json!({ "resourceType": "OperationOutcome", "issue": issues })
    }
}

/// A refusal, or the database's own failure.
#[derive(Debug)]
pub enum Problem {
    /// The peer's doing.
    Refused(Refusal),
    /// Ours.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Where a feed stands, in answer to its announcement.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// Announced; these digests are not here yet.
    Open {
        /// Announced just now.
        new: bool,
        /// Digests to send.
        missing: Vec<String>,
    },
    /// Committed, with this receipt.
    Committed {
        /// A compact JWS.
        receipt: String,
        /// No later feed of the site was committed.
        is_current: bool,
    },
}

/// A stored feed.
pub(super) struct Stored {
    pub manifest: Vec<u8>,
    pub state: String,
    pub receipt: Option<String>,
    pub outcome: Option<String>,
}

pub(super) fn stored(connection: &Connection, site: i64, feed: &str) -> rusqlite::Result<Option<Stored>> {
    connection
        .prepare_cached("SELECT manifest, state, receipt, outcome FROM feed WHERE site = ?1 AND feed = ?2")?
        .query_row(params![site, feed], |row| Ok(Stored { manifest: row.get(0)?, state: row.get(1)?, receipt: row.get(2)?, outcome: row.get(3)? }))
        .optional()
}

/// The answer to a rejected feed, whenever it is asked for.
fn rejection(outcome: Option<&str>) -> Refusal {
    let parsed = outcome.and_then(|outcome| serde_json::from_str::<Value>(outcome).ok()).unwrap_or_default();
    let issues = parsed.get("issue").and_then(Value::as_array).into_iter().flatten();
    let text = |issue: &Value| issue.pointer("/details/text").and_then(Value::as_str).unwrap_or_default().to_owned();
    Refusal { status: 422, issues: issues.map(|issue| Issue { code: "invalid", text: text(issue) }).collect() }
}

/// What a site says of a feed it announces.
pub struct Announcement<'a> {
    /// Identity, from the address.
    pub feed: &'a str,
    /// `Idempotency-Key` header.
    pub key: Option<&'a str>,
    /// Epoch header.
    pub epoch: Option<u64>,
    /// The manifest's bytes.
    pub body: &'a [u8],
}

/// Step 2: registers a manifest under its identity, or says where the feed of that identity stands.
pub fn announce(transaction: &Transaction<'_>, site: &Site, said: &Announcement<'_>, quota: &Quota, now: Timestamp) -> Result<Standing, Problem> {
    if said.key != Some(said.feed) {
        return Err(Refusal::new(400, "required", "header `Idempotency-Key` must be the feed's identifier").into());
    }
    let epoch = said
        .epoch
        .ok_or_else(|| Refusal::new(400, "required", format!("header `{}` must be a whole number", crate::feed::EPOCH_HEADER)))?;
    if let Some(stored) = stored(transaction, site.id, said.feed)? {
        if stored.manifest != said.body {
            return Err(Refusal::new(409, "conflict", format!("feed `{}` was announced with another manifest", said.feed)).into());
        }
        match (stored.state.as_str(), stored.receipt) {
            ("committed", Some(receipt)) => return committed(transaction, site, said.body, epoch, receipt),
            ("rejected", _) => return Err(rejection(stored.outcome.as_deref()).into()),
            ("open", _) => return Ok(Standing::Open { new: false, missing: missing(transaction, site.id, said.feed)? }),
            _ => {} // expired: announced anew, under the same rules
        }
    }
    let manifest = read_manifest(site, said)?;
    fence(transaction, site, epoch)?;
    follows(transaction, site, &manifest)?;
    let open: i64 = transaction.query_row("SELECT count(*) FROM feed WHERE site = ?1 AND state = 'open'", [site.id], |row| row.get(0))?;
    if open >= OPEN_FEEDS_MAX {
        return Err(Refusal::new(429, "throttled", format!("{open} feeds wait for their commit, at most {OPEN_FEEDS_MAX} may")).into());
    }
    transaction.execute(
        "INSERT INTO feed (site, feed, manifest, manifest_sha256, state, complete, gaps, quarantined, reports, received_at)
         VALUES (?1, ?2, ?3, ?4, 'open', ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (site, feed) DO UPDATE SET state = 'open', received_at = excluded.received_at, settled_at = NULL",
        params![
            site.id,
            said.feed,
            said.body,
            sha256_hex(said.body),
            manifest.completeness.complete && manifest.reports.iter().all(|entry| entry.complete),
            integer(manifest.completeness.gaps),
            integer(manifest.completeness.quarantined),
            integer(manifest.reports.len() as u64),
            now.as_millisecond()
        ],
    )?;
    let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO feed_part (site, feed, sha256, bytes) VALUES (?1, ?2, ?3, ?4)")?;
    for entry in &manifest.reports {
        insert.execute(params![site.id, said.feed, entry.sha256, integer(entry.bytes)])?;
    }
    quota::keep(transaction, site, said.feed, quota, now)?;
    Ok(Standing::Open { new: true, missing: missing(transaction, site.id, said.feed)? })
}

/// A repeated feed, with the receipt it got first. Where it is the site's last one, the site says that nothing changed, which
/// answers what was refused before.
fn committed(transaction: &Transaction<'_>, site: &Site, manifest: &[u8], epoch: u64, receipt: String) -> Result<Standing, Problem> {
    let is_current = site.head.as_deref() == Some(&sha256_hex(manifest));
    if is_current {
        // Who confirms is heard as who feeds is: from now on an older process is not.
        fence(transaction, site, epoch)?;
        transaction.execute("DELETE FROM refusal WHERE site = ?1", [site.id])?;
    }
    Ok(Standing::Committed { receipt, is_current })
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Refuses a process older than one that was seen: two adapters run, or one was restored from a backup.
fn fence(transaction: &Transaction<'_>, site: &Site, epoch: u64) -> Result<(), Problem> {
    if epoch < site.epoch {
        let text = format!(
            "epoch {epoch} is stale, {} was seen: another adapter sends for `{}`, or this one's data directory is new or was restored from a backup; {}",
            site.epoch,
            site.name,
            standing::in_words(transaction, site)?
        );
        return Err(Refusal::new(409, "conflict", text).into());
    }
    transaction.execute("UPDATE site SET epoch = ?2 WHERE id = ?1", params![site.id, integer(epoch)])?;
    Ok(())
}

/// Refuses a feed that does not follow the one committed last.
fn follows(transaction: &Transaction<'_>, site: &Site, manifest: &Manifest) -> Result<(), Problem> {
    if manifest.supersedes == site.head {
        return Ok(());
    }
    let is_here = |digest: &str| {
        let mut of_digest = transaction.prepare_cached("SELECT 1 FROM feed WHERE site = ?1 AND manifest_sha256 = ?2 AND state = 'committed'")?;
        of_digest.exists(params![site.id, digest])
    };
    let (follows, why) = match manifest.supersedes.as_deref() {
        None => ("none".to_owned(), "this one's data directory is new"),
        Some(digest) => {
            let why = if is_here(digest)? { "this one's data directory was restored from a backup" } else { "this registry was restored from a copy without that feed" };
            (format!("`{}`", digest.chars().take(12).collect::<String>()), why)
        }
    };
    let held = standing::in_words(transaction, site)?;
    let text = format!("the feed follows {follows}, which is not what is here: another adapter sends for `{}`, or {why}; {held}", site.name);
    Err(Refusal::new(412, "conflict", text).into())
}

fn missing(connection: &Connection, site: i64, feed: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT f.sha256 FROM feed_part f LEFT JOIN part p ON p.site = f.site AND p.sha256 = f.sha256
             WHERE f.site = ?1 AND f.feed = ?2 AND p.sha256 IS NULL ORDER BY f.sha256",
        )?
        .query_map(params![site, feed], |row| row.get(0))?
        .collect()
}

/// Reads a manifest as strictly as it can be: canonical bytes, one meaning, within bounds.
fn read_manifest(site: &Site, said: &Announcement<'_>) -> Result<Manifest, Refusal> {
    let invalid = |text: String| Refusal::new(422, "invalid", text);
    if feed_id(said.body) != said.feed {
        return Err(invalid("the feed's identifier must be the first 128 bits of the manifest's SHA-256, as 32 lower-case hexadecimal digits".into()));
    }
    let manifest: Manifest = serde_json::from_slice(said.body).map_err(|error| invalid(format!("manifest: {error}")))?;
    if manifest.bytes() != said.body {
        return Err(invalid("the manifest is not in canonical form (members in order, no white space, nothing twice)".into()));
    }
    let mut issues = Vec::new();
    let mut issue = |text: String| issues.push(Issue { code: "invalid", text });
    if manifest.protocol != PROTOCOL {
        issue(format!("protocol `{}` is not `{PROTOCOL}`", shown(&manifest.protocol)));
    }
    if manifest.site != site.name {
        issue(format!("the manifest names site `{}`, but the token belongs to another", shown(&manifest.site)));
    }
    if manifest.reports.len().saturating_add(manifest.withdrawals.len()) > REPORTS_MAX {
        issue(format!("{} reports, at most {REPORTS_MAX} fit one feed", manifest.reports.len()));
    }
    let total = manifest.reports.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
    if total > FEED_BYTES_MAX {
        issue(format!("the reports have {total} bytes, at most {FEED_BYTES_MAX} fit one feed"));
    }
    for entry in &manifest.reports {
        if entry.bytes == 0 || entry.bytes > PART_BYTES_MAX as u64 {
            issue(format!("`{}` has {} bytes, must have 1 to {PART_BYTES_MAX}", shown_key(&entry.key), entry.bytes));
        }
        if !is_digest(&entry.sha256) || !entry.replaces.as_deref().is_none_or(is_digest) {
            issue(format!("`{}`: a digest must be 64 lower-case hexadecimal digits", shown_key(&entry.key)));
        }
    }
    for withdrawal in &manifest.withdrawals {
        if !is_digest(&withdrawal.replaces) || withdrawal.reason.is_empty() || withdrawal.reason.chars().count() > TEXT_CHARS_MAX {
            issue(format!("withdrawal of `{}` must name a digest and a reason of at most {TEXT_CHARS_MAX} characters", shown_key(&withdrawal.key)));
        }
    }
    check_keys(&manifest, &mut issue);
    if issues.is_empty() { Ok(manifest) } else { Err(Refusal { status: 422, issues }) }
}

fn check_keys(manifest: &Manifest, issue: &mut impl FnMut(String)) {
    let reports: Vec<&ReportKey> = manifest.reports.iter().map(|entry| &entry.key).collect();
    let withdrawn: Vec<&ReportKey> = manifest.withdrawals.iter().map(|withdrawal| &withdrawal.key).collect();
    for list in [&reports, &withdrawn] {
        if !list.windows(2).all(|pair| matches!(pair, [a, b] if a < b)) {
            issue("reports and withdrawals must be sorted by key".into());
        }
    }
    let mut seen = BTreeMap::new();
    for key in reports.into_iter().chain(withdrawn) {
        let texts = [&key.measure, &key.version, &key.period_start, &key.period_end];
        if texts.iter().any(|text| text.is_empty() || text.chars().count() > TEXT_CHARS_MAX || text.chars().any(char::is_control)) {
            issue(format!("`{}`: measure, version and period must be plain text of 1 to {TEXT_CHARS_MAX} characters", shown_key(key)));
        }
        if seen.insert((&key.measure, &key.period_start, &key.period_end), ()).is_some() {
            issue(format!("`{}` occurs twice", shown_key(key)));
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Text of a peer in a message: no control characters, not endless.
fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

fn shown_key(key: &ReportKey) -> String {
    shown(&key.to_string())
}

/// Step 3: keeps one report of an announced feed, invisible until the commit.
pub fn receive(transaction: &Transaction<'_>, site: &Site, feed: &str, sha256: &str, body: &[u8], now: Timestamp) -> Result<(), Problem> {
    let expected: Option<i64> = transaction
        .query_row(
            "SELECT p.bytes FROM feed_part p JOIN feed f USING (site, feed) WHERE p.site = ?1 AND p.feed = ?2 AND p.sha256 = ?3 AND f.state <> 'expired'",
            params![site.id, feed, sha256],
            |row| row.get(0),
        )
        .optional()?;
    let Some(expected) = expected else { return Err(not_found().into()) };
    if i64::try_from(body.len()) != Ok(expected) || sha256_hex(body) != sha256 {
        return Err(Refusal::new(422, "invalid", format!("the {} bytes received are not the {expected} that digest `{}` names", body.len(), shown(sha256))).into());
    }
    transaction
        .execute("INSERT INTO part (site, sha256, body, received_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING", params![site.id, sha256, body, now.as_millisecond()])?;
    Ok(())
}

/// The same for everything that is not the asker's, whether it exists or not.
pub(super) fn not_found() -> Refusal {
    Refusal::new(404, "not-found", "not found")
}

/// An announced feed whose reports were read, before its commit.
pub enum Examined {
    /// Settled before; the answer is given again.
    Committed(String),
    /// Everything is here; these are the readings of new and changed reports, and every reason against them.
    Read {
        /// The manifest.
        manifest: Box<Manifest>,
        /// Readings by digest.
        readings: BTreeMap<String, Vec<Reading>>,
        /// Reasons to reject the feed; empty: valid.
        issues: Vec<Issue>,
    },
}

/// Step 4a: reads and checks everything, over a snapshot, so that the writer is not held meanwhile.
pub fn examine(connection: &Connection, site: &Site, feed: &str, cards: &[MeasureCard], now: Timestamp) -> Result<Examined, Problem> {
    let Some(stored) = stored(connection, site.id, feed)? else { return Err(not_found().into()) };
    match (stored.state.as_str(), stored.receipt) {
        ("committed", Some(receipt)) => return Ok(Examined::Committed(receipt)),
        ("rejected", _) => return Err(rejection(stored.outcome.as_deref()).into()),
        ("open", _) => {}
        _ => return Err(not_found().into()),
    }
    let missing = missing(connection, site.id, feed)?;
    if !missing.is_empty() {
        let issues = missing.iter().map(|digest| Issue { code: "incomplete", text: format!("report `{digest}` was not received") });
        return Err(Refusal { status: 422, issues: issues.collect() }.into());
    }
    let manifest: Manifest = serde_json::from_slice(&stored.manifest).map_err(|_| rusqlite::Error::InvalidQuery)?;
    let (mut readings, mut issues) = (BTreeMap::new(), Vec::new());
    let mut body = connection.prepare_cached("SELECT body FROM part WHERE site = ?1 AND sha256 = ?2")?;
    for entry in manifest.reports.iter().filter(|entry| is_changed(entry)) {
        let bytes: Vec<u8> = body.query_row(params![site.id, entry.sha256], |row| row.get(0))?;
        match report::read(&bytes, entry, site, cards, now) {
            Ok(found) => drop(readings.insert(entry.sha256.clone(), found)),
            Err(reasons) => issues.extend(reasons.into_iter().map(|reason| Issue { code: "invalid", text: format!("{}: {reason}", shown_key(&entry.key)) })),
        }
    }
    Ok(Examined::Read { manifest: Box::new(manifest), readings, issues })
}

fn is_changed(entry: &Entry) -> bool {
    entry.replaces.as_deref() != Some(entry.sha256.as_str())
}

/// What step 4 needs beside the feed.
pub struct Commit<'a> {
    /// The feed.
    pub feed: &'a str,
    /// Epoch header.
    pub epoch: Option<u64>,
    /// Issuer of receipts.
    pub issuer: &'a str,
    /// Signs them.
    pub key: &'a ReceiptKey,
}

/// Step 4b: in one transaction, every report of the feed becomes current, or nothing does.
pub fn commit(transaction: &Transaction<'_>, site: &Site, commit: &Commit<'_>, examined: Examined, now: Timestamp) -> Result<Result<String, Refusal>, Problem> {
    let (manifest, readings, mut issues) = match examined {
        Examined::Committed(receipt) => return Ok(Ok(receipt)),
        Examined::Read { manifest, readings, issues } => (manifest, readings, issues),
    };
    // Another request may have settled the feed, or another feed, since it was examined.
    match stored(transaction, site.id, commit.feed)? {
        Some(Stored { state, receipt: Some(receipt), .. }) if state == "committed" => return Ok(Ok(receipt)),
        Some(Stored { state, outcome, .. }) if state == "rejected" => return Ok(Err(rejection(outcome.as_deref()))),
        Some(Stored { state, .. }) if state == "open" => {}
        _ => return Err(not_found().into()),
    }
    let epoch = commit
        .epoch
        .ok_or_else(|| Refusal::new(400, "required", format!("header `{}` must be a whole number", crate::feed::EPOCH_HEADER)))?;
    fence(transaction, site, epoch)?;
    follows(transaction, site, &manifest)?;
    let before = currents(transaction, site, &manifest, &mut issues)?;
    if !issues.is_empty() {
        return Ok(Err(reject(transaction, site, commit.feed, issues, now)?));
    }
    let mut entries = Vec::new();
    for (entry, before) in manifest.reports.iter().zip(&before.0) {
        let revision = match before {
            Some(current) if !is_changed(entry) => current.number,
            _ => revise(transaction, site, commit.feed, &Revising::Report { entry, readings: readings.get(&entry.sha256).map_or(&[], Vec::as_slice) }, before.as_ref(), now)?,
        };
        entries.push(ReceiptEntry { key: entry.key.clone(), sha256: Some(entry.sha256.clone()), revision });
    }
    for (withdrawal, before) in manifest.withdrawals.iter().zip(&before.1) {
        let revising = Revising::Withdrawal { key: &withdrawal.key, replaces: &withdrawal.replaces, reason: &withdrawal.reason };
        let revision = revise(transaction, site, commit.feed, &revising, before.as_ref(), now)?;
        entries.push(ReceiptEntry { key: withdrawal.key.clone(), sha256: None, revision });
    }
    Ok(Ok(settle(transaction, site, commit, &manifest, entries, now)?))
}

/// What is current for one key.
struct Current {
    number: u64,
    sha256: Option<String>,
}

type Currents = (Vec<Option<Current>>, Vec<Option<Current>>);

/// The current revision of every key, with a reason for each that the manifest does not follow.
fn currents(transaction: &Transaction<'_>, site: &Site, manifest: &Manifest, issues: &mut Vec<Issue>) -> rusqlite::Result<Currents> {
    let mut select = transaction.prepare_cached(
        "SELECT r.number, r.sha256 FROM current c JOIN revision r ON r.id = c.revision
         WHERE c.measure = ?1 AND c.site = ?2 AND c.period_start = ?3 AND c.period_end = ?4",
    )?;
    let mut current = |key: &ReportKey, replaces: Option<&str>| -> rusqlite::Result<Option<Current>> {
        let found = select
            .query_row(params![key.measure, site.id, key.period_start, key.period_end], |row| Ok(Current { number: row.get::<_, i64>(0)?.unsigned_abs(), sha256: row.get(1)? }))
            .optional()?;
        if found.as_ref().and_then(|current| current.sha256.as_deref()) != replaces {
            issues.push(Issue { code: "conflict", text: format!("{}: the report it replaces is not the current one", shown_key(key)) });
        }
        Ok(found)
    };
    let reports = manifest.reports.iter().map(|entry| current(&entry.key, entry.replaces.as_deref())).collect::<Result<_, _>>()?;
    let withdrawals = manifest
        .withdrawals
        .iter()
        .map(|withdrawal| current(&withdrawal.key, Some(&withdrawal.replaces)))
        .collect::<Result<_, _>>()?;
    Ok((reports, withdrawals))
}

enum Revising<'a> {
    Report { entry: &'a Entry, readings: &'a [Reading] },
    Withdrawal { key: &'a ReportKey, replaces: &'a str, reason: &'a str },
}

/// Appends the next revision of a key and makes it current; returns its number.
fn revise(transaction: &Transaction<'_>, site: &Site, feed: &str, revising: &Revising<'_>, before: Option<&Current>, now: Timestamp) -> rusqlite::Result<u64> {
    let number = before.map_or(1, |current| current.number + 1);
    let (key, sha256, replaces, cause, reason, complete, readings) = match revising {
        Revising::Report { entry, readings } => {
            let cause = entry.cause.and_then(|cause| serde_json::to_value(cause).ok()).and_then(|cause| cause.as_str().map(str::to_owned));
            (&entry.key, Some(entry.sha256.as_str()), entry.replaces.as_deref(), cause, None, entry.complete, *readings)
        }
        Revising::Withdrawal { key, replaces, reason } => (*key, None, Some(*replaces), Some("withdrawal".to_owned()), Some(*reason), true, &[][..]),
    };
    transaction
        .prepare_cached(
            "INSERT INTO revision (site, measure, period_start, period_end, number, version, sha256, replaces, cause, reason, complete, feed, committed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            site.id,
            key.measure,
            key.period_start,
            key.period_end,
            integer(number),
            key.version,
            sha256,
            replaces,
            cause,
            reason,
            complete,
            feed,
            now.as_millisecond()
        ])?;
    let revision = transaction.last_insert_rowid();
    keep_readings(transaction, revision, readings)?;
    transaction
        .prepare_cached(
            "INSERT INTO current (site, measure, period_start, period_end, revision) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (measure, site, period_start, period_end) DO UPDATE SET revision = excluded.revision",
        )?
        .execute(params![site.id, key.measure, key.period_start, key.period_end, revision])?;
    Ok(number)
}

/// The numbers of a revision, group by group.
fn keep_readings(transaction: &Transaction<'_>, revision: i64, readings: &[Reading]) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO reading (revision, place, key, label, improvement, numerator, denominator, score, strata, doubt, observed, made_of, counted_by, logic)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let text = |number: Option<rust_decimal::Decimal>| number.map(|number| number.to_string());
    for (place, reading) in readings.iter().enumerate() {
        let improvement = reading.group.higher_is_better.map(|higher| if higher { "increase" } else { "decrease" });
        insert.execute(params![
            revision,
            integer(place as u64),
            reading.group.key,
            reading.group.label,
            improvement,
            text(reading.numerator),
            text(reading.denominator),
            text(reading.score),
            serde_json::to_string(&reading.strata).unwrap_or_default(),
            reading.doubt.as_ref().and_then(|doubt| serde_json::to_string(doubt).ok()),
            reading.observed.and_then(|observed| serde_json::to_string(&observed).ok()),
            (!reading.made_of.is_empty()).then(|| serde_json::to_string(&reading.made_of).unwrap_or_default()),
            serde_json::to_string(&reading.counted_by).ok(),
            (!reading.logic.is_empty()).then(|| serde_json::to_string(&reading.logic).unwrap_or_default())
        ])?;
    }
    Ok(())
}

/// Audit record, signed receipt, head of the site's chain: the last writes of a commit.
fn settle(transaction: &Transaction<'_>, site: &Site, commit: &Commit<'_>, manifest: &Manifest, reports: Vec<ReceiptEntry>, now: Timestamp) -> Result<String, Problem> {
    let manifest_sha256 = sha256_hex(&manifest.bytes());
    let detail = json!({
        "feed": commit.feed,
        "manifest": manifest_sha256,
        "supersedes": manifest.supersedes,
        "revisions": reports.iter().filter(|entry| manifest.reports.iter().all(|report| report.key != entry.key || is_changed(report))).count(),
    });
    let audit = store::append_audit(transaction, now, &site.name, "feed.commit", detail)?;
    let claims = ReceiptClaims {
        iss: commit.issuer.to_owned(),
        sub: site.name.clone(),
        feed: commit.feed.to_owned(),
        manifest_sha256: manifest_sha256.clone(),
        received_at: now.to_string(),
        reports,
        audit_sequence: audit.sequence,
        audit_hash: audit.hash,
    };
    let receipt = commit.key.sign(&claims).ok_or(rusqlite::Error::InvalidQuery)?;
    transaction.execute(
        "UPDATE feed SET state = 'committed', settled_at = ?3, receipt = ?4 WHERE site = ?1 AND feed = ?2",
        params![site.id, commit.feed, now.as_millisecond(), receipt],
    )?;
    transaction.execute("UPDATE site SET head = ?2 WHERE id = ?1", params![site.id, manifest_sha256])?;
    // What was refused before is answered; the audit chain keeps the rejections.
    transaction.execute("DELETE FROM refusal WHERE site = ?1", [site.id])?;
    Ok(receipt)
}

fn reject(transaction: &Transaction<'_>, site: &Site, feed: &str, issues: Vec<Issue>, now: Timestamp) -> Result<Refusal, Problem> {
    let refusal = Refusal { status: 422, issues };
    transaction.execute(
        "UPDATE feed SET state = 'rejected', settled_at = ?3, outcome = ?4 WHERE site = ?1 AND feed = ?2",
        params![site.id, feed, now.as_millisecond(), refusal.outcome().to_string()],
    )?;
    store::append_audit(transaction, now, &site.name, "feed.reject", json!({ "feed": feed, "issues": refusal.issues.len() }))?;
    Ok(refusal)
}

/// The site was heard of, if this feed is its last one: committed just now, or confirmed. What is begun says nothing of how things stand.
pub fn heard(transaction: &Transaction<'_>, site: &Site, feed: &str, now: Timestamp) -> rusqlite::Result<()> {
    let last = "UPDATE site SET heard_at = ?3 WHERE id = ?1 AND head = (SELECT manifest_sha256 FROM feed WHERE site = ?1 AND feed = ?2 AND state = 'committed')";
    transaction.execute(last, params![site.id, feed, now.as_millisecond()]).map(drop)
}

/// Keeps a refusal for the arrival board.
pub fn note_refusal(transaction: &Transaction<'_>, site: &Site, feed: &str, refusal: &Refusal, now: Timestamp) -> rusqlite::Result<()> {
    let reasons: Vec<&str> = refusal.issues.iter().take(ISSUES_MAX).map(|issue| issue.text.as_str()).collect();
    transaction.execute(
        "INSERT INTO refusal (site, feed, status, reasons, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![site.id, shown(feed), refusal.status, reasons.join("\n"), now.as_millisecond()],
    )?;
    transaction.execute("DELETE FROM refusal WHERE site = ?1 AND id NOT IN (SELECT id FROM refusal WHERE site = ?1 ORDER BY id DESC LIMIT ?2)", params![site.id, REFUSALS_KEPT])?;
    Ok(())
}

/// Forgets feeds that were announced seven days ago and never committed, and reports that nothing names.
/// Committed feeds and identities never expire.
pub fn expire(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let before = now.as_millisecond() - OPEN_DAYS_MAX * 86_400_000;
    transaction.execute("UPDATE feed SET state = 'expired', settled_at = ?2 WHERE state = 'open' AND received_at < ?1", params![before, now.as_millisecond()])?;
    transaction.execute(
        "DELETE FROM part WHERE received_at < ?1 AND NOT EXISTS (
             SELECT 1 FROM feed_part p JOIN feed f USING (site, feed)
             WHERE p.site = part.site AND p.sha256 = part.sha256 AND f.state IN ('open', 'committed'))",
        [before],
    )?;
    Ok(())
}
