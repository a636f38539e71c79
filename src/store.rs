//! The one SQLite state database: migrations, transactions, and the lock that keeps it to one process.

pub mod quarantine;
pub mod runs;

use crate::lock::Lock;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};
use std::fs::{OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The schema files, in order; a landed one is never edited, because its checksum is stored.
const MIGRATIONS: &[(&str, &str)] = &[
    ("001_snapshot", include_str!("store/schema/001_snapshot.sql")),
    ("002_outbox", include_str!("store/schema/002_outbox.sql")),
    ("003_runs", include_str!("store/schema/003_runs.sql")),
    ("004_place", include_str!("store/schema/004_place.sql")),
    ("005_recovery", include_str!("store/schema/005_recovery.sql")),
    ("006_covered", include_str!("store/schema/006_covered.sql")),
    ("007_reasons", include_str!("store/schema/007_reasons.sql")),
    ("008_remarks", include_str!("store/schema/008_remarks.sql")),
    ("009_discarded", include_str!("store/schema/009_discarded.sql")),
    ("010_identified", include_str!("store/schema/010_identified.sql")),
    ("011_units", include_str!("store/schema/011_units.sql")),
    ("012_aside", include_str!("store/schema/012_aside.sql")),
    ("013_refused", include_str!("store/schema/013_refused.sql")),
    ("014_ended", include_str!("store/schema/014_ended.sql")),
];

/// Why the state database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own failure.
    #[error("state database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file beside the database could not be opened or locked.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The database, or the files that SQLite keeps beside it, may not be written.
    #[error("{path} cannot be opened to be read and written ({error}): let the account that runs this write the folder and the files in it, or name another one in `site.data`")]
    Unwritable {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        error: rusqlite::Error,
    },
    /// Another process works on this data directory.
    #[error("{path} is locked: another watershed works on this data directory; stop it or choose another one")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error("state database has schema {found}, this version knows up to {known}; use the newer watershed or restore the older data")]
    Newer {
        /// Schema number in the file.
        found: i64,
        /// Highest number this program knows.
        known: i64,
    },
    /// The file was written by an earlier version, and only looked at.
    #[error("state database has schema {found}, this version reads {known}; start this version's `watershed run`, which brings it up to date")]
    Older {
        /// Schema number in the file.
        found: i64,
        /// The number this program reads.
        known: i64,
    },
    /// An applied schema file differs from the one in this program.
    #[error("schema file `{name}` differs from the one applied to this database; the data comes from a different build")]
    Checksum {
        /// Name of the schema file.
        name: String,
    },
    /// A stored value that the program would never have written.
    #[error("state database holds an impossible value: {0}")]
    Corrupt(String),
}

/// The state database. Cheap calls from several threads take turns.
pub struct Store {
    connection: Mutex<Connection>,
    _lock: Option<Lock>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens (or creates, mode 0600) the database and migrates it. Refuses when another process holds it.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let lock = lock_beside(path)?;
        create_private(path)?;
        let open = || {
            let mut connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            configure(&connection)?;
            migrate(&mut connection, MIGRATIONS)?;
            Ok(Store { connection: Mutex::new(connection), _lock: Some(lock) })
        };
        open().map_err(|error| at(path, error))
    }

    /// Opens an existing database beside a running process, for looking and for small changes by commands.
    /// Does not create and does not migrate; `None` while there is nothing in it yet.
    pub fn open_beside(path: &Path) -> Result<Option<Store>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let open = || {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            configure(&connection)?;
            let found = schema_number(&connection)?;
            Ok((connection, found))
        };
        let (connection, found) = open().map_err(|error| at(path, error))?;
        let known = MIGRATIONS.len() as i64;
        match found {
            0 => Ok(None),
            found if found > known => Err(StoreError::Newer { found, known }),
            found if found < known => Err(StoreError::Older { found, known }),
            _ => Ok(Some(Store { connection: Mutex::new(connection), _lock: None })),
        }
    }

    /// A database that lives as long as the value; for tests and for one-off evaluations.
    pub fn open_in_memory() -> Result<Store, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        configure(&connection)?;
        migrate(&mut connection, MIGRATIONS)?;
        Ok(Store { connection: Mutex::new(connection), _lock: None })
    }

    /// Runs `work` on the connection.
    pub fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // A panic in another thread rolled its transaction back, so the connection is still sound.
        let mut connection = self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        work(&mut connection)
    }

    /// Runs `work` in one immediate transaction: all of it, durable on return, or nothing.
    pub fn transaction<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }
}

fn lock_beside(path: &Path) -> Result<Lock, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let file = private_options().open(&path).map_err(|error| StoreError::File { path: path.clone(), error })?;
    match Lock::take(file) {
        Ok(lock) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(StoreError::File { path, error }),
    }
}

/// Where it was, if it is a matter of what may be written.
fn at(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Sqlite(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)) => {
            StoreError::Unwritable { path: path.to_owned(), error }
        }
        error => error,
    }
}

fn create_private(path: &Path) -> Result<(), StoreError> {
    private_options().open(path).map(drop).map_err(|error| StoreError::File { path: path.to_owned(), error })
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Settings every connection needs: patience, a sync at each commit (a power cut loses nothing acknowledged), foreign keys.
fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    Ok(())
}

/// Verifies the checksums of the schema files applied so far and applies the others, in one transaction:
/// who looks at the same moment sees the old schema or the new one.
fn migrate(connection: &mut Connection, migrations: &[(&str, &str)]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (found, known) = (schema_number(&transaction)?, migrations.len() as i64);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migration (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT",
    )?;
    for (index, (name, sql)) in migrations.iter().enumerate() {
        let number = index as i64 + 1;
        let sha256 = sha256_hex(sql.as_bytes());
        let applied: Option<String> = transaction.query_row("SELECT sha256 FROM schema_migration WHERE number = ?1", [number], |row| row.get(0)).optional()?;
        match applied {
            Some(applied) if applied == sha256 => {}
            Some(_) => return Err(StoreError::Checksum { name: (*name).to_owned() }),
            None => {
                transaction.execute_batch(sql)?;
                transaction.execute("INSERT INTO schema_migration (number, name, sha256) VALUES (?1, ?2, ?3)", rusqlite::params![number, name, sha256])?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// How many schema files have been applied; 0 for a file without any.
fn schema_number(connection: &Connection) -> Result<i64, StoreError> {
    if !connection.table_exists(None, "schema_migration")? {
        return Ok(0);
    }
    Ok(connection.query_row("SELECT coalesce(max(number), 0) FROM schema_migration", [], |row| row.get(0))?)
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_and_the_first_keeps_working() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let first = Store::open(&path).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
        assert!(Store::open_beside(&path).unwrap().is_some());
        drop(first);
        Store::open(&path).unwrap();
    }

    #[test]
    fn who_looks_beside_a_starting_process_sees_nothing_or_a_whole_schema() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        assert!(Store::open_beside(&path).unwrap().is_none(), "no file");
        std::fs::write(&path, "").unwrap();
        assert!(Store::open_beside(&path).unwrap().is_none(), "a file just created");
        let mut starting = Connection::open(&path).unwrap();
        migrate(&mut starting, &MIGRATIONS[..1]).unwrap();
        assert!(matches!(Store::open_beside(&path), Err(StoreError::Older { found: 1, .. })), "an earlier version's");
        drop(starting);
        std::fs::remove_file(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| while Store::open_beside(&path).unwrap().is_none() {});
            Store::open(&path).unwrap();
        });
    }

    #[test]
    fn migrations_run_once_are_verified_and_a_newer_schema_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        let one: &[(&str, &str)] = &[("001", "CREATE TABLE a (x INTEGER)")];
        let two: &[(&str, &str)] = &[one[0], ("002", "CREATE TABLE b (x INTEGER)")];
        migrate(&mut connection, one).unwrap();
        migrate(&mut connection, two).unwrap();
        migrate(&mut connection, two).unwrap();
        assert!(matches!(migrate(&mut connection, one), Err(StoreError::Newer { found: 2, known: 1 })));
        let edited: &[(&str, &str)] = &[("001", "CREATE TABLE a (y INTEGER)"), two[1]];
        assert!(matches!(migrate(&mut connection, edited), Err(StoreError::Checksum { name }) if name == "001"));
    }

    #[test]
    fn a_failed_migration_leaves_no_trace() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken: &[(&str, &str)] = &[("001", "CREATE TABLE a (x INTEGER); CREATE TABLE a (x INTEGER)")];
        assert!(migrate(&mut connection, broken).is_err());
        migrate(&mut connection, &[("001", "CREATE TABLE a (x INTEGER)")]).unwrap();
    }

    #[test]
    fn a_transaction_is_all_or_nothing() {
        let store = Store::open_in_memory().unwrap();
        let failed: Result<(), StoreError> = store.transaction(|transaction| {
            transaction.execute("INSERT INTO pull (source, state, full, plan, started_at) VALUES ('s','open',1,'p','t')", [])?;
            Err(StoreError::Corrupt("on purpose".to_owned()))
        });
        assert!(failed.is_err());
        let rows: i64 = store.with(|connection| Ok(connection.query_row("SELECT count(*) FROM pull", [], |row| row.get(0))?)).unwrap();
        assert_eq!(rows, 0);
    }

    #[cfg(unix)]
    #[test]
    fn the_database_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let _store = Store::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
