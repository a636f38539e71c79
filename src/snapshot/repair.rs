//! Damage: files that are gone, cut or changed, or sealed with a key that is lost. What is damaged is marked in the catalog and never
//! reported from; a pull of everything stands in for it. No file is removed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, params};

use super::{Key, PullId, Snapshot, SnapshotError};
use crate::store::{Store, StoreError};

/// Bytes read at once of a file that is verified.
const BUFFER_BYTES: usize = 256 << 10;
/// The system's number of an input or output error: the disk cannot read what it holds.
const IO_ERROR: i32 = 5;

/// A segment of the catalog: its two files and their digests.
struct Listed {
    pull: i64,
    partition: String,
    number: u32,
    bytes: u64,
    sha256: String,
    index_sha256: String,
}

/// Whether anything was ever stored: then its key must be the one it was sealed with.
pub fn is_in_use(store: &Store) -> Result<bool, StoreError> {
    store.with(|connection| Ok(connection.query_row("SELECT EXISTS (SELECT 1 FROM segment)", [], |row| row.get(0))?))
}

/// Begins the snapshot again under a key, which may be a new one: nothing that is stored is read any more, and the next pull reads
/// everything. Gives how many segments that concerns; their files stay where they are.
pub fn begin_anew(store: &Store, key: &Key) -> Result<u64, StoreError> {
    store.transaction(|transaction| {
        let segments = transaction.execute("UPDATE segment SET damaged = 1 WHERE replaced_by IS NULL", [])?;
        transaction.execute("UPDATE pull SET state = 'abandoned' WHERE state = 'open'", [])?;
        transaction.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('snapshot_key', ?1)", [key.id()])?;
        Ok(segments as u64)
    })
}

/// Whether a failure to read means that the file is not what was written: no other right or setting would help.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) || error.raw_os_error() == Some(IO_ERROR)
}

/// Segments that cannot be read and are not replaced yet.
pub(super) fn damaged(connection: &Connection) -> Result<u64, StoreError> {
    Ok(connection
        .query_row("SELECT count(*) FROM segment WHERE damaged = 1 AND replaced_by IS NULL", [], |row| row.get::<_, i64>(0))?
        .unsigned_abs())
}

/// A pull of everything is committed: it stands in for what is damaged.
pub(super) fn replace(transaction: &Transaction<'_>, pull: PullId) -> Result<(), StoreError> {
    transaction.execute("UPDATE segment SET replaced_by = ?1 WHERE damaged = 1 AND replaced_by IS NULL", [pull.0])?;
    Ok(())
}

impl Snapshot {
    /// Looks whether the files of the catalog are there, and as long as they were written; if one is not, reads all of them and
    /// compares their digests, so that all damage is mended at once. Gives the number of segments that cannot be used.
    pub fn look_over(&self) -> Result<u64, SnapshotError> {
        let listed = self.store.with(|connection| listed(connection))?;
        for segment in &listed {
            if !self.is_there(segment) {
                self.mark(segment.pull, &segment.partition, segment.number)?;
            }
        }
        let known = self.store.with(|connection| damaged(connection))?;
        if known == 0 {
            return Ok(0);
        }
        for segment in self.store.with(|connection| self::listed(connection))? {
            if !self.is_sound(&segment)? {
                self.mark(segment.pull, &segment.partition, segment.number)?;
            }
        }
        Ok(self.store.with(|connection| damaged(connection))?)
    }

    fn files<'a>(&self, segment: &'a Listed) -> [(PathBuf, &'a str); 2] {
        let path = |kind: &str| self.segment_path(segment.pull, &segment.partition, segment.number, kind);
        [(path("ndjson"), &segment.sha256), (path("index"), &segment.index_sha256)]
    }

    fn is_there(&self, segment: &Listed) -> bool {
        let [(data, _), (index, _)] = self.files(segment);
        let length = |path: &Path| std::fs::metadata(path).map(|found| found.len());
        let is_gone = |found: &io::Result<u64>| found.as_ref().is_err_and(is_damage);
        let (data, index) = (length(&data), length(&index));
        !is_gone(&data) && !is_gone(&index) && data.is_ok_and(|length| length == segment.bytes)
    }

    fn is_sound(&self, segment: &Listed) -> Result<bool, SnapshotError> {
        for (path, expected) in self.files(segment) {
            match digest(&path) {
                Ok(found) if found == *expected => {}
                Ok(_) => return Ok(false),
                Err(error) if is_damage(&error) => return Ok(false),
                Err(error) => return Err(SnapshotError::File { path, error }),
            }
        }
        Ok(true)
    }

    fn mark(&self, pull: i64, partition: &str, number: u32) -> Result<(), StoreError> {
        self.store.with(|connection| {
            connection.execute("UPDATE segment SET damaged = 1 WHERE pull_id = ?1 AND partition = ?2 AND number = ?3", params![pull, partition, number])?;
            Ok(())
        })
    }

    /// What a failure to read a segment's file means; damage is remembered, so that the next pull mends it.
    pub(super) fn unreadable(&self, (pull, partition, number): (i64, &str, u32), path: &Path, error: io::Error) -> SnapshotError {
        if !is_damage(&error) {
            return SnapshotError::File { path: path.to_owned(), error };
        }
        match self.mark(pull, partition, number) {
            Ok(()) => SnapshotError::Damaged { path: path.to_owned(), reason: error.to_string() },
            Err(error) => error.into(),
        }
    }

    /// The same of a staged file: its unit is forgotten, so that the next pull fetches it again.
    pub(super) fn unstaged(&self, pull: PullId, name: &str, error: io::Error) -> SnapshotError {
        let path = self.staging(pull).join(name);
        if !is_damage(&error) {
            return SnapshotError::File { path, error };
        }
        let forgotten = self
            .store
            .with(|connection| Ok(connection.execute("DELETE FROM unit WHERE pull_id = ?1 AND file = ?2", params![pull.0, name])?));
        match forgotten {
            Ok(_) => SnapshotError::Damaged { path, reason: error.to_string() },
            Err(error) => error.into(),
        }
    }
}

/// Segments that are read, and of which nothing bad is known.
fn listed(connection: &Connection) -> Result<Vec<Listed>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT pull_id, partition, number, bytes, sha256, index_sha256 FROM segment JOIN pull ON pull.id = pull_id
         WHERE state = 'committed' AND damaged = 0 AND replaced_by IS NULL ORDER BY pull_id, partition, number",
    )?;
    let rows = statement.query_map([], |row| {
        let bytes = row.get::<_, i64>(3)?.unsigned_abs();
        Ok(Listed { pull: row.get(0)?, partition: row.get(1)?, number: row.get(2)?, bytes, sha256: row.get(4)?, index_sha256: row.get(5)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(crate::store::hex(context.finish().as_ref()));
        }
        context.update(buffer.get(..read).unwrap_or_default());
    }
}
