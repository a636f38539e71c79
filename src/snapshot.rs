//! Immutable, checksummed, encrypted segments by patient partition, and their catalog.
//!
//! A pull first *stages* whole units (a query's pages, an exported file), each durable by itself; then [`Snapshot::prepare`]
//! sorts them by partition, keeps what is new, and writes segments; [`Snapshot::publish`] enters them in the catalog in one
//! transaction. Readers see pulls that are in the catalog, so a killed pull is invisible until it is finished.

mod commit;
mod people;
mod repair;
mod seal;
mod segment;
#[cfg(test)]
mod tests;

use crate::store::{Store, StoreError};
use rusqlite::OptionalExtension;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use commit::{Foreseen, Prepared, Reconcile, Rows};
pub use people::People;
pub use repair::{begin_anew, is_in_use};
pub use seal::{Key, is_open_to_others, open_bytes, seal_bytes};
pub use segment::Header;
use segment::{LineReader, LineWriter, sync_folder};

/// Partitions of a new snapshot. Each is held in memory while it is written or evaluated: of a hundred thousand patients some
/// hundred megabytes.
pub const PARTITIONS: u16 = 32;
/// Most partitions allowed: each is an open file while a pull is sorted.
pub const PARTITIONS_MAX: u16 = 256;

/// Number of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PullId(pub i64);

/// A share of the patients, by a stable hash of their ids; or the resources of no patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Partition {
    /// Patients whose hash falls here.
    Patients(u16),
    /// Resources of no patient (Location, Organization …).
    Common,
}

impl Partition {
    /// Its name in the catalog and on disk.
    pub fn name(self) -> String {
        match self {
            Partition::Patients(number) => format!("p{number:03}"),
            Partition::Common => "common".to_owned(),
        }
    }
}

/// Why a snapshot cannot be read or written. No text holds a patient's value.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The catalog.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("snapshot file {path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is not what was written: gone, cut, changed, or the disk cannot read it.
    #[error("snapshot file {} is damaged or missing ({reason}): no number is made of it, and nothing that is whole is lost; reading everything again replaces it", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The key is not the one the snapshot was made with.
    #[error(
        "the snapshot was sealed with key `{expected}`, the key file holds `{found}`: restore the right one; if it is lost, `watershed pull --anew` begins the snapshot again under this one, reads everything, and removes nothing"
    )]
    WrongKey {
        /// Id of the right key.
        expected: String,
        /// Id of the key given.
        found: String,
    },
}

/// Stored resources by type and id, each with its patient.
type LiveLines = BTreeMap<(String, String), (String, Vec<u8>)>;

/// One patient's stored resources, as JSON lines ordered by type and id.
#[derive(Clone)]
pub struct PatientLines {
    /// Bare id of the patient.
    pub patient_id: String,
    /// Each resource, JSON without white space.
    pub lines: Vec<Vec<u8>>,
}

impl std::fmt::Debug for PatientLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PatientLines").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

/// A resource on its way in: what is known of it, and its JSON without white space (empty for a tombstone).
#[derive(Clone)]
pub struct Incoming {
    /// What is known of it.
    pub header: Header,
    /// The resource.
    pub json: Vec<u8>,
}

/// The stored data of one site.
pub struct Snapshot {
    root: PathBuf,
    store: Arc<Store>,
    key: Key,
    partitions: u16,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A unit being staged; nothing of it counts until [`Stage::finish`] and the unit's row.
pub struct Stage {
    writer: LineWriter,
    folder: PathBuf,
    name: String,
}

impl Stage {
    /// Adds a resource or tombstone.
    pub fn push(&mut self, incoming: &Incoming) -> Result<(), SnapshotError> {
        let written = self
            .writer
            .header(&incoming.header)
            .and_then(|()| self.writer.line(if incoming.header.removed { b"{}" } else { &incoming.json }));
        written.map_err(|error| SnapshotError::File { path: self.folder.clone(), error })
    }

    /// Makes the unit durable; gives its file's name and SHA-256.
    pub fn finish(self) -> Result<(String, String), SnapshotError> {
        let folder = self.folder;
        let finished = self.writer.finish().and_then(|done| sync_folder(&folder).map(|()| done));
        let (sha256, _) = finished.map_err(|error| SnapshotError::File { path: folder, error })?;
        Ok((self.name, sha256))
    }
}

impl Snapshot {
    /// Opens the snapshot in folder `root`, with the catalog in `store`, or starts one of so many partitions; cleans what a killed
    /// pull left. One that was started with another number keeps it.
    pub fn open(root: &Path, store: Arc<Store>, key: Key, partitions: u16) -> Result<Snapshot, SnapshotError> {
        let partitions = partitions.clamp(1, PARTITIONS_MAX);
        create_folder(root)?;
        let sealed_with = remember(&store, "snapshot_key", &key.id())?;
        if sealed_with != key.id() {
            if is_in_use(&store)? {
                return Err(SnapshotError::WrongKey { expected: sealed_with, found: key.id() });
            }
            begin_anew(&store, &key)?;
        }
        let kept = remember(&store, "snapshot_partitions", &partitions.to_string())?;
        let partitions = partitions_in(&kept)?;
        let snapshot = Snapshot { root: root.to_owned(), store, key, partitions };
        snapshot.clean()?;
        Ok(snapshot)
    }

    /// Opens the snapshot to look at, beside a process that may be at work on it; `None` while nothing is in it.
    pub fn beside(root: &Path, store: Arc<Store>, key: Key) -> Result<Option<Snapshot>, SnapshotError> {
        let known = |name: &str| store.with(|connection| Ok(connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, String>(0)).optional()?));
        let (Some(sealed_with), Some(partitions)) = (known("snapshot_key")?, known("snapshot_partitions")?) else { return Ok(None) };
        if sealed_with != key.id() {
            return Err(SnapshotError::WrongKey { expected: sealed_with, found: key.id() });
        }
        let partitions = partitions_in(&partitions)?;
        Ok(Some(Snapshot { root: root.to_owned(), store, key, partitions }))
    }

    /// The catalog's database.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The key, for sealing what is refused.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The patients' partitions, all of them, with or without data.
    pub fn partitions(&self) -> Vec<Partition> {
        (0..self.partitions).map(Partition::Patients).collect()
    }

    /// Where a patient's resources are: a stable hash of the bare id.
    pub fn partition_of(&self, patient: &str) -> Partition {
        if patient.is_empty() {
            return Partition::Common;
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, patient.as_bytes());
        let first = digest.as_ref().iter().take(8).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        Partition::Patients((first % u64::from(self.partitions)) as u16)
    }

    /// The patients of a partition with their resources, in order of id, as of a pull (the latest, when none is named).
    /// Patients appear also when only their other resources were received.
    pub fn patients(&self, partition: Partition, as_of: Option<PullId>) -> Result<Vec<PatientLines>, SnapshotError> {
        let mut patients: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for ((_, _), (patient, line)) in self.live(partition, as_of, &|_| true)? {
            patients.entry(patient).or_default().push(line);
        }
        Ok(patients.into_iter().map(|(patient_id, lines)| PatientLines { patient_id, lines }).collect())
    }

    /// The resources of no patient, in order of type and id, as of a pull (the latest, when none is named).
    pub fn shared(&self, as_of: Option<PullId>) -> Result<Vec<Vec<u8>>, SnapshotError> {
        Ok(self.live(Partition::Common, as_of, &|_| true)?.into_values().map(|(_, line)| line).collect())
    }

    /// The digest of everything stored as of the latest pull: equal for equal content, however it came.
    pub fn digest(&self) -> Result<String, SnapshotError> {
        Ok(self.store.with(|connection| commit::digest_of(connection, i64::MAX))?)
    }

    /// The latest pull in the catalog.
    pub fn latest(&self) -> Result<Option<PullId>, SnapshotError> {
        Ok(self.store.with(|connection| {
            let id: Option<i64> = connection.query_row("SELECT max(id) FROM pull WHERE state = 'committed'", [], |row| row.get(0))?;
            Ok(id.map(PullId))
        })?)
    }

    /// How many resources of each type are stored as of the latest pull; the rows of an import apart, as `import NAME`.
    pub fn counts(&self) -> Result<BTreeMap<String, u64>, SnapshotError> {
        Ok(self.store.with(|connection| commit::counts(connection))?)
    }

    /// The bare ids of all patients that have a Patient resource.
    pub fn patient_ids(&self) -> Result<Vec<String>, SnapshotError> {
        let mut ids = Vec::new();
        for partition in self.partitions() {
            let headers = self.live_headers(partition)?;
            ids.extend(headers.into_keys().filter(|(resource_type, _)| resource_type == "Patient").map(|(_, id)| id));
        }
        Ok(ids)
    }

    /// How many of the source's resources of a type are stored of these patients.
    pub fn count_of(&self, resource_type: &str, patients: &BTreeSet<String>) -> Result<u64, SnapshotError> {
        let mut count = 0;
        for partition in self.partitions() {
            let headers = self.live_headers(partition)?;
            count += headers
                .values()
                .filter(|header| header.import.is_empty() && header.resource_type == resource_type && patients.contains(&header.patient))
                .count() as u64;
        }
        Ok(count)
    }

    /// Calls `each` for the type and id of every stored resource.
    pub fn each_stored(&self, mut each: impl FnMut(&str, &str)) -> Result<(), SnapshotError> {
        for partition in self.partitions().into_iter().chain([Partition::Common]) {
            self.live_headers(partition)?.keys().for_each(|(resource_type, id)| each(resource_type, id));
        }
        Ok(())
    }

    /// Calls `each` for the header of every stored resource.
    pub fn each_header(&self, mut each: impl FnMut(&Header)) -> Result<(), SnapshotError> {
        for partition in self.partitions().into_iter().chain([Partition::Common]) {
            self.live_headers(partition)?.values().for_each(&mut each);
        }
        Ok(())
    }

    /// Calls `each` for every stored resource of some types of patients: its type, id, patient and JSON.
    pub fn each_of(&self, types: &BTreeSet<String>, mut each: impl FnMut(&str, &str, &str, &[u8])) -> Result<(), SnapshotError> {
        for partition in self.partitions() {
            for ((resource_type, id), (patient, line)) in self.live_lines(partition, &|name| types.contains(name))? {
                each(&resource_type, &id, &patient, &line);
            }
        }
        Ok(())
    }

    /// What is stored of an import, by id: whose it is, and the digest of its content.
    pub fn rows_of(&self, import: &str) -> Result<BTreeMap<String, (String, [u8; 32])>, SnapshotError> {
        let mut rows = BTreeMap::new();
        for partition in self.partitions().into_iter().chain([Partition::Common]) {
            let headers = self.live_headers(partition)?.into_values().filter(|header| header.import == import);
            rows.extend(headers.map(|header| (header.id, (header.patient, header.hash))));
        }
        Ok(rows)
    }

    /// Starts staging a unit of an open pull.
    pub fn stage(&self, pull: PullId, unit: &str) -> Result<Stage, SnapshotError> {
        let folder = self.staging(pull);
        create_folder(&folder)?;
        let name = unit_file(unit);
        let path = folder.join(&name);
        let writer = LineWriter::create(&path, &self.key, &stage_name(pull, &name)).map_err(|error| SnapshotError::File { path, error })?;
        Ok(Stage { writer, folder, name })
    }

    /// Calls `each` for every resource staged so far in the named files.
    pub fn staged(&self, pull: PullId, files: &[String], mut each: impl FnMut(&Header, &[u8]) -> Result<(), SnapshotError>) -> Result<(), SnapshotError> {
        for name in files {
            let path = self.staging(pull).join(name);
            let wrong = |error| self.unstaged(pull, name, error);
            let mut reader = LineReader::open(&path, &self.key, &stage_name(pull, name)).map_err(wrong)?;
            while let Some(header) = reader.header().map_err(wrong)? {
                let line = reader.line().map_err(wrong)?.ok_or_else(|| wrong(io::ErrorKind::UnexpectedEof.into()))?;
                each(&header, line)?;
            }
        }
        Ok(())
    }

    /// Where downloads of an open pull are kept until they are staged.
    pub fn downloads(&self, pull: PullId) -> Result<PathBuf, SnapshotError> {
        let folder = self.staging(pull).join("downloads");
        create_folder(&folder)?;
        Ok(folder)
    }

    /// Forgets what a pull staged; for a pull that is abandoned, or finished.
    pub fn discard_staging(&self, pull: PullId) -> Result<(), SnapshotError> {
        remove_folder(&self.staging(pull))
    }

    fn staging(&self, pull: PullId) -> PathBuf {
        self.root.join("staging").join(pull.0.to_string())
    }

    fn segment_path(&self, pull: i64, partition: &str, number: u32, kind: &str) -> PathBuf {
        self.root.join(pull.to_string()).join(partition).join(format!("{number:03}.{kind}.zst"))
    }

    /// The segments that make up a partition as of a pull, and whether each is known to be damaged. What a later pull stands in
    /// for is still what an earlier one had.
    fn segments(&self, partition: Partition, as_of: Option<PullId>) -> Result<Vec<(i64, u32, bool)>, SnapshotError> {
        Ok(self.store.with(|connection| {
            let mut statement = connection.prepare(
                "SELECT pull_id, number, damaged FROM segment JOIN pull ON pull.id = pull_id
                 WHERE partition = ?1 AND pull_id <= ?2 AND (replaced_by IS NULL OR replaced_by > ?2) AND state = 'committed' ORDER BY pull_id, number",
            )?;
            let upto = as_of.map_or(i64::MAX, |pull| pull.0);
            let rows = statement
                .query_map(rusqlite::params![partition.name(), upto], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(rows)
        })?)
    }

    fn open_segment(&self, pull: i64, partition: Partition, number: u32, kind: &str) -> Result<LineReader, SnapshotError> {
        let path = self.segment_path(pull, &partition.name(), number, kind);
        LineReader::open(&path, &self.key, &segment_name(pull, &partition.name(), number, kind)).map_err(|error| self.unreadable((pull, &partition.name(), number), &path, error))
    }

    fn live(&self, partition: Partition, as_of: Option<PullId>, is_wanted: &dyn Fn(&str) -> bool) -> Result<LiveLines, SnapshotError> {
        let segments = self.segments(partition, as_of)?;
        match segments.iter().find(|(.., is_damaged)| *is_damaged) {
            Some((pull, number, _)) => {
                let path = self.segment_path(*pull, &partition.name(), *number, "ndjson");
                Err(SnapshotError::Damaged { path, reason: "as was found before".to_owned() })
            }
            None => self.lines_of(partition, segments, is_wanted),
        }
    }

    /// What is stored, for a pull to go on from, as [`Snapshot::live_headers`] has it.
    fn live_lines(&self, partition: Partition, is_wanted: &dyn Fn(&str) -> bool) -> Result<LiveLines, SnapshotError> {
        let segments = self.segments(partition, None)?.into_iter().filter(|(.., is_damaged)| !is_damaged);
        self.lines_of(partition, segments, is_wanted)
    }

    fn lines_of(&self, partition: Partition, segments: impl IntoIterator<Item = (i64, u32, bool)>, is_wanted: &dyn Fn(&str) -> bool) -> Result<LiveLines, SnapshotError> {
        let mut live = BTreeMap::new();
        for (pull, number, _) in segments {
            let path = self.segment_path(pull, &partition.name(), number, "ndjson");
            let (name, index_path) = (partition.name(), self.segment_path(pull, &partition.name(), number, "index"));
            let wrong = |error| self.unreadable((pull, &name, number), &path, error);
            let mut index = self.open_segment(pull, partition, number, "index")?;
            let mut data = self.open_segment(pull, partition, number, "ndjson")?;
            while let Some(header) = index.header().map_err(|error| self.unreadable((pull, &name, number), &index_path, error))? {
                let key = (header.resource_type, header.id);
                if header.removed {
                    live.remove(&key);
                    continue;
                }
                let line = data.line().map_err(wrong)?.ok_or_else(|| wrong(io::ErrorKind::UnexpectedEof.into()))?;
                if is_wanted(&key.0) {
                    live.insert(key, (header.patient, line.to_vec()));
                }
            }
        }
        Ok(live)
    }

    /// What is stored, for a pull to go on from. A pull of everything stands in for what is known to be damaged.
    fn live_headers(&self, partition: Partition) -> Result<BTreeMap<(String, String), Header>, SnapshotError> {
        let mut live = BTreeMap::new();
        for (pull, number, _) in self.segments(partition, None)?.into_iter().filter(|(.., is_damaged)| !is_damaged) {
            let (path, name) = (self.segment_path(pull, &partition.name(), number, "index"), partition.name());
            let wrong = |error| self.unreadable((pull, &name, number), &path, error);
            let mut index = self.open_segment(pull, partition, number, "index")?;
            while let Some(header) = index.header().map_err(wrong)? {
                let key = (header.resource_type.clone(), header.id.clone());
                if header.removed {
                    live.remove(&key);
                } else {
                    live.insert(key, header);
                }
            }
        }
        Ok(live)
    }

    /// Removes segments that no catalog row names, and staging of pulls that are not open.
    fn clean(&self) -> Result<(), SnapshotError> {
        let (committed, open): (Vec<i64>, Vec<i64>) = self.store.with(|connection| {
            let ids = |state: &str| -> Result<Vec<i64>, StoreError> {
                let mut statement = connection.prepare("SELECT id FROM pull WHERE state = ?1")?;
                let ids = statement.query_map([state], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
                Ok(ids)
            };
            Ok((ids("committed")?, ids("open")?))
        })?;
        for (path, number) in numbered_folders(&self.root)? {
            if !committed.contains(&number) {
                remove_folder(&path)?;
            }
        }
        for (path, number) in numbered_folders(&self.root.join("staging"))? {
            if !open.contains(&number) {
                remove_folder(&path)?;
            }
        }
        Ok(())
    }
}

fn stage_name(pull: PullId, file: &str) -> String {
    format!("stage {} {file}", pull.0)
}

fn segment_name(pull: i64, partition: &str, number: u32, kind: &str) -> String {
    format!("segment {pull} {partition} {number} {kind}")
}

/// File name of a unit: a digest, because a server's words never become paths.
fn unit_file(unit: &str) -> String {
    let mut name = crate::store::sha256_hex(unit.as_bytes());
    name.truncate(32);
    name.push_str(".stage");
    name
}

fn remember(store: &Store, name: &str, value: &str) -> Result<String, StoreError> {
    store.transaction(|transaction| {
        transaction.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?1, ?2)", [name, value])?;
        Ok(transaction.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))?)
    })
}

fn partitions_in(kept: &str) -> Result<u16, StoreError> {
    kept.parse().map_err(|_| StoreError::Corrupt(format!("{kept} partitions of the snapshot")))
}

fn create_folder(path: &Path) -> Result<(), SnapshotError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| SnapshotError::File { path: path.to_owned(), error })
}

fn remove_folder(path: &Path) -> Result<(), SnapshotError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SnapshotError::File { path: path.to_owned(), error }),
        _ => Ok(()),
    }
}

fn numbered_folders(path: &Path) -> Result<Vec<(PathBuf, i64)>, SnapshotError> {
    let wrong = |error| SnapshotError::File { path: path.to_owned(), error };
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(wrong)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(wrong)?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((entry.path(), number));
        }
    }
    Ok(found)
}
