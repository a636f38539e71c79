//! The registry's questions to its database, and SQLite's answers: one writer, many readers, WAL.
//!
//! A reader sees one snapshot for its whole request, so never half a feed. The questions are the seam at
//! which another database can stand.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::{Value, json};

use super::{RegistryError, reread};

/// Connections that answer reads.
const READERS: usize = 4;
/// How long a connection waits for another process's lock.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// The same for what SQLite itself does not wait for, each time.
const LOG_WAIT: Duration = Duration::from_millis(20);
/// The schema, step by step; `user_version` counts the steps that were taken. One that has landed is never edited.
const SCHEMA: [&str; 12] = [
    include_str!("schema/001_registry.sql"),
    include_str!("schema/002_doubt.sql"),
    include_str!("schema/003_groups.sql"),
    include_str!("schema/004_keys.sql"),
    include_str!("schema/005_observed.sql"),
    include_str!("schema/006_kept.sql"),
    include_str!("schema/007_made_of.sql"),
    include_str!("schema/008_kept.sql"),
    include_str!("schema/009_counts.sql"),
    include_str!("schema/010_kept.sql"),
    include_str!("schema/011_counted_by.sql"),
    include_str!("schema/012_kept.sql"),
];
/// After so many steps the readings of before are read again.
const READ_AGAIN_AFTER: usize = 11;
/// Previous hash of the first audit record.
const AUDIT_START: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Bytes of a name that people give.
const TEXT_BYTES_MAX: usize = 255;

/// The registry's database.
#[derive(Clone)]
pub struct RegistryStore {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    next: std::sync::atomic::AtomicUsize,
}

/// A registered site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Key in this database.
    pub id: i64,
    /// Short name, part of addresses.
    pub name: String,
    /// The organization as people know it.
    pub organization: String,
    /// Client identifier of its adapter.
    pub client_id: String,
    /// Its registered public keys (a JWK Set), unless it publishes them.
    pub jwks: Option<String>,
    /// Where it publishes them.
    pub jwks_url: Option<String>,
    /// Highest epoch seen.
    pub epoch: u64,
    /// Digest of the manifest committed last.
    pub head: Option<String>,
    /// When its last feed or confirmation came.
    pub heard: Option<Timestamp>,
    /// When it was registered.
    pub added: Timestamp,
}

/// A site to register.
#[derive(Clone, Debug)]
pub struct NewSite {
    /// Short name: lower-case letters, digits and hyphens.
    pub name: String,
    /// The organization as people know it.
    pub organization: String,
    /// Client identifier of its adapter.
    pub client_id: String,
    /// Its public keys.
    pub keys: Keys,
}

/// Where a client's public keys come from.
#[derive(Clone, Debug)]
pub enum Keys {
    /// A JWK Set given at registration.
    Set(String),
    /// An `https` address at which the client publishes its JWK Set.
    Url(String),
}

impl Keys {
    /// As they are stored.
    fn columns(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Keys::Set(set) => (Some(set), None),
            Keys::Url(url) => (None, Some(url)),
        }
    }
}

const SITE_COLUMNS: &str = "id, name, organization, client_id, jwks, jwks_url, epoch, head, heard_at, added_at";

/// Changes the journal of a new database to a log ahead of writing. Where two processes open it at once, SQLite does not wait for
/// the other one's change.
fn keep_a_log(connection: &Connection) -> rusqlite::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && waited < LOCK_WAIT => {
                std::thread::sleep(LOG_WAIT);
                waited += LOG_WAIT;
            }
            done => return done,
        }
    }
}

impl RegistryStore {
    /// Opens the database, creating it when missing. A newer schema than this program knows is refused.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let mut writer = Connection::open(path)?;
        writer.busy_timeout(LOCK_WAIT)?;
        keep_a_log(&writer)?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.pragma_update(None, "foreign_keys", true)?;
        migrate(&mut writer)?;
        let mut readers = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            reader.busy_timeout(LOCK_WAIT)?;
            readers.push(Mutex::new(reader));
        }
        Ok(Self { inner: Arc::new(Inner { writer: Mutex::new(writer), readers, next: Default::default() }) })
    }

    /// Runs `f` in one writing transaction, committed when it returns `Ok`.
    pub fn write<T, E: From<rusqlite::Error>>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut writer = lock(&self.inner.writer);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = f(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Runs `f` over one snapshot of the database.
    pub fn read<T, E: From<rusqlite::Error>>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let turn = self.inner.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % READERS;
        let mut reader = lock(self.inner.readers.get(turn).unwrap_or(&self.inner.writer));
        let transaction = reader.transaction()?;
        f(&transaction)
    }

    /// Like [`Self::write`], off the async threads.
    pub async fn writing<T: Send + 'static, E: From<rusqlite::Error> + Send + 'static>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.write(f)).await.unwrap_or_else(|_| Err(rusqlite::Error::InvalidQuery.into()))
    }

    /// Like [`Self::read`], off the async threads.
    pub async fn reading<T: Send + 'static, E: From<rusqlite::Error> + Send + 'static>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.read(f)).await.unwrap_or_else(|_| Err(rusqlite::Error::InvalidQuery.into()))
    }

    /// Registers a site; an existing name or client identifier is refused by its name.
    pub fn add_site(&self, site: &NewSite, now: Timestamp) -> Result<Site, RegistryError> {
        if !crate::feed::is_site_name(&site.name) {
            return Err(RegistryError::Configuration(format!("site name `{}` must be 1 to 63 lower-case letters, digits and hyphens, for it is part of addresses", site.name)));
        }
        for (what, text) in [("client identifier", &site.client_id), ("organization", &site.organization)] {
            if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
                return Err(RegistryError::Configuration(format!("the {what} of site `{}` must have 1 to {TEXT_BYTES_MAX} bytes", site.name)));
            }
        }
        self.write(|transaction| {
            let taken: Option<String> = transaction
                .query_row("SELECT name FROM site WHERE name = ?1 OR client_id = ?2", params![site.name, site.client_id], |row| row.get(0))
                .optional()?;
            if let Some(name) = taken {
                return Err(RegistryError::Configuration(format!("site `{name}` is registered already with this name or client identifier `{}`", site.client_id)));
            }
            let (jwks, url) = site.keys.columns();
            transaction.execute(
                "INSERT INTO site (name, organization, client_id, jwks, jwks_url, added_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![site.name, site.organization, site.client_id, jwks, url, now.as_millisecond()],
            )?;
            append_audit(transaction, now, "operator", "site.add", json!({ "site": site.name, "client": site.client_id, "organization": site.organization }))?;
            let query = format!("SELECT {SITE_COLUMNS} FROM site WHERE name = ?1");
            Ok(transaction.query_row(&query, [&site.name], site_row)?)
        })
    }

    /// Gives a site other public keys; what was granted to the ones before ends with them. While one key takes the place of the
    /// other, the set holds both.
    pub fn replace_keys(&self, name: &str, keys: &Keys, now: Timestamp) -> Result<Site, RegistryError> {
        self.write(|transaction| {
            let (jwks, url) = keys.columns();
            let changed = transaction.execute("UPDATE site SET jwks = ?2, jwks_url = ?3 WHERE name = ?1", params![name, jwks, url])?;
            if changed == 0 {
                let sites = sites(transaction)?;
                let near = crate::diagnostic::nearest(name, sites.iter().map(|site| site.name.as_str())).map(|near| format!("; did you mean `{near}`?"));
                return Err(RegistryError::Configuration(format!("no site `{name}` is registered{}", near.unwrap_or_default())));
            }
            transaction.execute("DELETE FROM token WHERE site = (SELECT id FROM site WHERE name = ?1)", [name])?;
            let site = transaction.query_row(&format!("SELECT {SITE_COLUMNS} FROM site WHERE name = ?1"), [name], site_row)?;
            append_audit(transaction, now, "operator", "site.keys", json!({ "site": name, "client": site.client_id, "organization": site.organization }))?;
            Ok(site)
        })
    }

    /// Every site, by name.
    pub fn sites(&self) -> Result<Vec<Site>, RegistryError> {
        self.read(|transaction| Ok(sites(transaction)?))
    }

    /// Verifies the whole audit chain; returns the number of records, or the first that does not fit.
    pub fn verify_audit(&self) -> Result<Result<u64, AuditBreak>, RegistryError> {
        self.read(|transaction| Ok(verify_audit(transaction)?))
    }
}

/// The first audit record that does not follow from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditBreak {
    /// Its sequence number, or the one that is missing.
    pub sequence: i64,
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A panic inside a transaction rolled it back: the connection itself is sound.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn migrate(writer: &mut Connection) -> Result<(), RegistryError> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = SCHEMA.len();
    let taken = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(steps) = SCHEMA.get(taken..) else {
        return Err(RegistryError::Configuration(format!("the registry's database has schema version {version}, this program knows {known}; use the newer program")));
    };
    for (step, taken) in steps.iter().zip(taken + 1..) {
        transaction.execute_batch(step)?;
        if taken == READ_AGAIN_AFTER {
            reread::read_again(&transaction)?;
        }
    }
    if !steps.is_empty() {
        transaction.pragma_update(None, "user_version", known as i64)?;
    }
    transaction.commit()?;
    Ok(())
}

fn site_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Site> {
    Ok(Site {
        id: row.get(0)?,
        name: row.get(1)?,
        organization: row.get(2)?,
        client_id: row.get(3)?,
        jwks: row.get(4)?,
        jwks_url: row.get(5)?,
        epoch: row.get::<_, i64>(6)?.unsigned_abs(),
        head: row.get(7)?,
        heard: row.get::<_, Option<i64>>(8)?.map(time),
        added: time(row.get(9)?),
    })
}

/// A stored time.
pub(super) fn time(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Every site, by name.
pub(super) fn sites(connection: &Connection) -> rusqlite::Result<Vec<Site>> {
    connection.prepare_cached(&format!("SELECT {SITE_COLUMNS} FROM site ORDER BY name"))?.query_map([], site_row)?.collect()
}

/// The site with this client identifier.
pub(super) fn site_of_client(connection: &Connection, client_id: &str) -> rusqlite::Result<Option<Site>> {
    connection
        .prepare_cached(&format!("SELECT {SITE_COLUMNS} FROM site WHERE client_id = ?1"))?
        .query_row([client_id], site_row)
        .optional()
}

/// The site a bearer token belongs to, while it is valid.
pub(super) fn site_of_token(connection: &Connection, token_sha256: &str, now: Timestamp) -> rusqlite::Result<Option<Site>> {
    let query = "SELECT s.id, s.name, s.organization, s.client_id, s.jwks, s.jwks_url, s.epoch, s.head, s.heard_at, s.added_at
                 FROM token t JOIN site s ON s.id = t.site WHERE t.sha256 = ?1 AND t.expires_at > ?2";
    connection.prepare_cached(query)?.query_row(params![token_sha256, now.as_millisecond()], site_row).optional()
}

/// Remembers an assertion; `false` when it was used before. Those long expired are forgotten.
pub(super) fn use_assertion(transaction: &Transaction<'_>, issuer: &str, jti: &str, expires: Timestamp, now: Timestamp) -> rusqlite::Result<bool> {
    // Kept an hour beyond expiry: longer than any clock skew that is tolerated.
    transaction.execute("DELETE FROM used_assertion WHERE expires_at < ?1", [now.as_millisecond() - 3_600_000])?;
    let inserted =
        transaction.execute("INSERT INTO used_assertion (issuer, jti, expires_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING", params![issuer, jti, expires.as_millisecond()])?;
    Ok(inserted == 1)
}

/// Stores a token by its digest and drops the expired ones.
pub(super) fn add_token(transaction: &Transaction<'_>, sha256: &str, site: i64, scope: &str, expires: Timestamp, now: Timestamp) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM token WHERE expires_at <= ?1", [now.as_millisecond()])?;
    transaction.execute("INSERT INTO token (sha256, site, scope, expires_at) VALUES (?1, ?2, ?3, ?4)", params![sha256, site, scope, expires.as_millisecond()])?;
    Ok(())
}

/// The public keys of receipts, as JWKs, the newest first.
pub(super) fn receipt_keys(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare_cached("SELECT id, jwk FROM receipt_key ORDER BY since DESC, id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// How many feeds have a receipt.
pub(super) fn receipts(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .query_row("SELECT count(*) FROM feed WHERE state = 'committed'", [], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
}

/// Remembers the public half of a key of receipts; that one takes the place of another is on record.
pub(super) fn add_receipt_key(transaction: &Transaction<'_>, id: &str, jwk: &str, is_other: bool, now: Timestamp) -> rusqlite::Result<()> {
    transaction.execute("INSERT INTO receipt_key (id, jwk, since) VALUES (?1, ?2, ?3)", params![id, jwk, now.as_millisecond()])?;
    if is_other {
        append_audit(transaction, now, "operator", "receipt.key", json!({ "key": id }))?;
    }
    Ok(())
}

/// Place in the audit chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Sequence number, from 1.
    pub sequence: i64,
    /// Hash of the record.
    pub hash: String,
}

/// Appends one audit record in the transaction of the act it records.
pub(super) fn append_audit(transaction: &Transaction<'_>, now: Timestamp, who: &str, what: &str, detail: Value) -> rusqlite::Result<AuditHead> {
    let last: Option<(i64, String)> = transaction
        .query_row("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (sequence, previous) = last.map_or((1, AUDIT_START.to_owned()), |(sequence, hash)| (sequence + 1, hash));
    let body = json!({ "sequence": sequence, "at": now.to_string(), "who": who, "what": what, "detail": detail }).to_string();
    let hash = audit_hash(&previous, &body);
    transaction.execute("INSERT INTO audit (sequence, body, previous, hash) VALUES (?1, ?2, ?3, ?4)", params![sequence, body, previous, hash])?;
    Ok(AuditHead { sequence, hash })
}

fn audit_hash(previous: &str, body: &str) -> String {
    super::sha256_hex(format!("{previous}\n{body}").as_bytes())
}

fn verify_audit(connection: &Connection) -> rusqlite::Result<Result<u64, AuditBreak>> {
    let mut statement = connection.prepare("SELECT sequence, body, previous, hash FROM audit ORDER BY sequence")?;
    let mut rows = statement.query([])?;
    let (mut expected, mut last) = (1_i64, AUDIT_START.to_owned());
    while let Some(row) = rows.next()? {
        let (sequence, body, previous, hash): (i64, String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let said = serde_json::from_str::<Value>(&body).ok().and_then(|body| body.get("sequence")?.as_i64());
        if sequence != expected || said != Some(sequence) || previous != last || audit_hash(&previous, &body) != hash {
            return Ok(Err(AuditBreak { sequence: expected }));
        }
        last = hash;
        expected += 1;
    }
    Ok(Ok((expected - 1).unsigned_abs()))
}
