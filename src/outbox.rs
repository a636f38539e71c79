//! Finished feeds on their way: appended, claimed, settled, retried, dead-lettered.
//!
//! A *feed* is everything a site says to one destination at once: final reports, named by the digest of
//! their bytes. [`append`] writes it in the caller's transaction, so its identity is on disk before the first
//! byte is sent. Every function here takes the connection or transaction it works in; nothing here opens one.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

pub mod manifest;
pub use manifest::{Cause, Completeness, Entry, Manifest, ReportKey, Withdrawal, sha256_hex};

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
    /// Epoch of the process that appended the feed.
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
        after: std::time::Duration,
    },
    /// Never to be accepted as it is.
    Dead {
        /// Every reason the destination gave.
        reasons: Vec<String>,
    },
}

/// Where a feed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for its first or next attempt.
    Pending,
    /// Accepted, with its receipt.
    Delivered,
    /// Rejected for good; a person must look.
    Dead,
    /// Never sent: rebuilt upon another predecessor after the one it named was rejected.
    Rebuilt,
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
    /// When it will be tried next, if it waits.
    pub next_attempt: Option<Timestamp>,
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
    /// No such feed.
    #[error("no feed `{0}` in the outbox")]
    Unknown(String),
    /// What was stored cannot be read.
    #[error("outbox row is damaged: {0}")]
    Damaged(String),
}

/// Raises the epoch: once at the start of every process that appends. A copy of this database restored
/// elsewhere has a lower one, and a destination that has seen the higher refuses it.
pub fn open_epoch(_connection: &mut Connection) -> Result<u64, OutboxError> {
    todo!()
}

/// Appends the night's feed in the caller's transaction, under the epoch of the last [`open_epoch`].
pub fn append(_transaction: &Transaction<'_>, _draft: &Draft, _now: Timestamp) -> Result<Appended, OutboxError> {
    todo!()
}

/// Leases the next due feed of any (site, destination); feeds of one such pair go strictly in order.
pub fn claim(_connection: &mut Connection, _now: Timestamp, _lease: std::time::Duration) -> Result<Option<Claim>, OutboxError> {
    todo!()
}

/// The bytes of one report of the feed, by digest.
pub fn part(_connection: &Connection, _sha256: &str) -> Result<Option<Vec<u8>>, OutboxError> {
    todo!()
}

/// Records what became of a claim.
pub fn settle(_connection: &mut Connection, _claim: &Claim, _outcome: &Outcome, _now: Timestamp) -> Result<(), OutboxError> {
    todo!()
}

/// Number of feeds that still wait.
pub fn pending(_connection: &Connection) -> Result<u64, OutboxError> {
    todo!()
}

/// Every feed, newest first.
pub fn list(_connection: &Connection) -> Result<Vec<Listed>, OutboxError> {
    todo!()
}

/// Makes a waiting feed due now, or a dead one a new attempt under a new identity.
pub fn retry(_connection: &mut Connection, _feed: &str, _now: Timestamp) -> Result<String, OutboxError> {
    todo!()
}
