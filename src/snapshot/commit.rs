//! From staged units to segments: newest version wins, unchanged content is not written again, the vanished get tombstones.

use super::segment::{Header, LineReader, LineWriter, sync_folder};
use super::{Partition, PatientLines, PullId, Snapshot, SnapshotError, create_folder, remove_folder, repair, segment_name, stage_name};
use crate::fhir::record::content;
use crate::store::StoreError;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

/// JSON bytes after which a new segment is begun.
const SEGMENT_BYTES: u64 = 256 << 20;
/// Keys of one pull remembered across partitions, to notice a resource that moved to another patient. Above it (a
/// first or full pull of a large hospital) the reconciliation of full types does the same. About 100 MB.
const MOVED_KEYS_MAX: usize = 500_000;

type ResourceKey = (String, String);

/// Type and id as half of their SHA-256. Of a large hospital hundreds of thousands are held at once, so they have one short size.
type Mark = [u8; 16];

fn mark(resource_type: &str, id: &str) -> Mark {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{resource_type}/{id}").as_bytes());
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// What is known of the rows of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Not all came, or it is not believed that these are all: what is stored stays.
    InDoubt,
    /// All came: what is stored and neither came nor is named here is gone.
    Whole(BTreeSet<String>),
}

/// What the pull knows about completeness when it prepares its segments.
#[derive(Clone, Debug, Default)]
pub struct Reconcile {
    /// Types that were read in full without a gap: stored resources of theirs that did not come again are gone.
    pub full_types: BTreeSet<String>,
    /// The same of types that were read in full of some patients only.
    pub full_of: BTreeMap<String, BTreeSet<String>>,
    /// The server's present answer stands even if its version looks older than the stored one.
    pub present_wins: bool,
    /// Staged files of what was read again because it was doubted: it stands too, whatever its age.
    pub present_in: BTreeSet<String>,
    /// The patients there are; what is stored of anybody else is gone. `None`: everybody stays.
    pub members: Option<BTreeSet<String>>,
    /// Times of change after this instant are not believed.
    pub until: Option<Timestamp>,
    /// The imports there are, by name; rows of any other one are gone. `None`: all rows stay.
    pub imports: Option<BTreeMap<String, Rows>>,
}

struct SegmentRow {
    partition: String,
    number: u32,
    records: u64,
    bytes: u64,
    sha256: String,
    index_sha256: String,
}

struct PartitionRow {
    partition: String,
    digest: String,
    counts: String,
}

/// Segments on disk that wait for their catalog rows.
pub struct Prepared {
    pull: PullId,
    segments: Vec<SegmentRow>,
    states: Vec<PartitionRow>,
    /// Resources that are new or changed.
    pub new_versions: u64,
    /// Resources that are gone.
    pub removed: u64,
    /// The newest time of change that came and is believed.
    pub newest: Option<Timestamp>,
    /// Resources that came and were said to be deleted in the same pull, and not which was later, by type.
    pub conflicts: BTreeMap<String, u64>,
    /// Resources that came with several contents, none of them newer than the others, by type.
    pub ambiguous: BTreeMap<String, u64>,
    /// Damaged segments that this pull stands in for.
    pub replaced: u64,
    /// Different resources that came of the source, by type.
    pub present: BTreeMap<String, u64>,
    /// Of [`Reconcile::members`] those whose Patient neither came nor is said to be deleted.
    pub absent: u64,
    /// Patients of whom something came, and who are none of [`Reconcile::members`]: nothing of them is stored.
    pub strangers: u64,
}

#[derive(Clone, PartialEq, Eq)]
struct Rank {
    version: Option<u64>,
    updated: Option<i64>,
    hash: [u8; 32],
}

impl Rank {
    fn of(header: &Header) -> Rank {
        Rank { version: header.version, updated: header.updated, hash: header.hash }
    }

    /// Version number first, then time, as far as both have them (a later version may carry an earlier time).
    fn age(&self, other: &Rank) -> Ordering {
        let version = match (self.version, other.version) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => Ordering::Equal,
        };
        version.then_with(|| match (self.updated, other.updated) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => Ordering::Equal,
        })
    }

    /// Whether it is another copy, and neither version nor time says which is the newer.
    fn is_as_new_as(&self, other: &Rank) -> bool {
        self.hash != other.hash && (self.version, self.updated) == (other.version, other.updated)
    }

    /// The order among copies of one pull: a total one, so that the order of arrival decides nothing.
    fn within_pull(&self, other: &Rank) -> Ordering {
        (self.version, self.updated, self.hash).cmp(&(other.version, other.updated, other.hash))
    }
}

impl Reconcile {
    /// Whether a stored resource that did not come is gone for that.
    fn is_missed(&self, header: &Header) -> bool {
        if !header.import.is_empty() {
            return self.imports.as_ref().is_some_and(|imports| match imports.get(&header.import) {
                None => true,
                Some(Rows::InDoubt) => false,
                Some(Rows::Whole(beside)) => !beside.contains(&header.id),
            });
        }
        let full = |patients: &BTreeSet<String>| patients.contains(&header.patient);
        self.full_types.contains(&header.resource_type) || self.full_of.get(&header.resource_type).is_some_and(full)
    }

    /// Nothing of any import is let go.
    pub fn keep_imports(&mut self) {
        self.imports.iter_mut().flat_map(BTreeMap::values_mut).for_each(|rows| *rows = Rows::InDoubt);
    }

    fn is_of_member(&self, header: &Header) -> bool {
        header.patient.is_empty() || self.members.as_ref().is_none_or(|members| members.contains(&header.patient))
    }
}

/// What a pull will leave of the patients, if nothing further comes.
pub struct Foreseen<'a> {
    snapshot: &'a Snapshot,
    pull: PullId,
    reconcile: &'a Reconcile,
    sorted: Sorted,
}

impl Foreseen<'_> {
    /// The patients of a partition with their resources, in order of id.
    pub fn patients(&self, partition: Partition) -> Result<Vec<PatientLines>, SnapshotError> {
        let mut patients: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (patient, line) in self.lines(partition)?.into_values() {
            patients.entry(patient).or_default().push(line);
        }
        Ok(patients.into_iter().map(|(patient_id, lines)| PatientLines { patient_id, lines }).collect())
    }

    /// The resources of no patient.
    pub fn shared(&self) -> Result<Vec<Vec<u8>>, SnapshotError> {
        Ok(self.lines(Partition::Common)?.into_values().map(|(_, line)| line).collect())
    }

    /// Calls `each` for the header of every resource.
    pub fn each_header(&self, mut each: impl FnMut(&Header)) -> Result<(), SnapshotError> {
        for partition in self.snapshot.partitions().into_iter().chain([Partition::Common]) {
            let mut headers = self.snapshot.live_headers(partition)?;
            let change = self.snapshot.change(partition, &self.sorted, self.reconcile, self.pull, &headers)?;
            for gone in change.gone {
                headers.remove(&(gone.resource_type, gone.id));
            }
            if let Some(mut reader) = self.snapshot.sorted_reader(partition, &self.sorted, self.pull)? {
                let mut ordinal = 0;
                while let Some((header, _)) = reader.next()? {
                    if change.written.contains(&ordinal) {
                        headers.insert((header.resource_type.clone(), header.id.clone()), header);
                    }
                    ordinal += 1;
                }
            }
            headers.values().for_each(&mut each);
        }
        Ok(())
    }

    fn lines(&self, partition: Partition) -> Result<BTreeMap<ResourceKey, (String, Vec<u8>)>, SnapshotError> {
        let headers = self.snapshot.live_headers(partition)?;
        let change = self.snapshot.change(partition, &self.sorted, self.reconcile, self.pull, &headers)?;
        let mut lines = self.snapshot.live_lines(partition, &|_| true)?;
        for header in change.gone {
            lines.remove(&(header.resource_type, header.id));
        }
        let Some(mut reader) = self.snapshot.sorted_reader(partition, &self.sorted, self.pull)? else { return Ok(lines) };
        let mut ordinal = 0;
        while let Some((header, line)) = reader.next()? {
            if change.written.contains(&ordinal) {
                lines.insert((header.resource_type, header.id), (header.patient, line));
            }
            ordinal += 1;
        }
        Ok(lines)
    }
}

/// What a pull changes in a partition.
struct Change {
    /// Places in the sorted file of what is new or changed.
    written: BTreeSet<u64>,
    gone: Vec<Header>,
    /// What came and was said to be deleted, and not which was later, by type.
    conflicts: BTreeMap<String, u64>,
    /// What came with several contents, none of them newer than the others, by type.
    ambiguous: BTreeMap<String, u64>,
    /// Different resources that came of the source, by type, and how many of them are Patients among [`Reconcile::members`].
    present: BTreeMap<String, u64>,
    members: u64,
    /// Patients of whom something came, and who are no members.
    strangers: u64,
}

/// Whether what came was said to be deleted as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deleted {
    No,
    /// And it came again.
    Before,
    Later,
    /// Nothing says when.
    Sometime,
}

impl Deleted {
    /// By when it was said to be deleted, if it was, and from when it is.
    fn of(removal: Option<&Option<i64>>, updated: Option<i64>) -> Deleted {
        match (removal, updated) {
            (None, _) => Deleted::No,
            (Some(Some(at)), Some(updated)) if *at < updated => Deleted::Before,
            (Some(Some(at)), Some(updated)) if *at > updated => Deleted::Later,
            _ => Deleted::Sometime,
        }
    }
}

/// The newest copy of a resource among those that came.
struct Winner {
    /// Its place in the sorted file.
    ordinal: u64,
    rank: Rank,
    /// Its type, by its place among those of the partition.
    resource_type: usize,
    is_import: bool,
    /// Whether it was said to be deleted as well.
    deleted: Deleted,
    /// A Patient of [`Reconcile::members`].
    is_member: bool,
    /// Of nobody, or of somebody of whom something may be stored.
    is_kept: bool,
    /// What is stored is the same, or newer.
    is_known: bool,
    /// Another copy is as new and says something else.
    is_matched: bool,
}

/// The newest copies of what came for a partition.
#[derive(Default)]
struct Winners {
    newest: FxHashMap<Mark, Winner>,
    types: Vec<String>,
    /// Patients of the source who are no members.
    strangers: FxHashSet<String>,
}

impl Winners {
    fn type_of(&mut self, name: &str) -> usize {
        self.types.iter().position(|known| known == name).unwrap_or_else(|| {
            self.types.push(name.to_owned());
            self.types.len() - 1
        })
    }

    /// Numbers by type of those for which something holds.
    fn count(&self, holds: impl Fn(&Winner) -> bool) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for winner in self.newest.values().filter(|winner| holds(winner)) {
            *counts.entry(winner.resource_type).or_default() += 1;
        }
        counts.into_iter().filter_map(|(number, count)| Some((self.types.get(number)?.clone(), count))).collect()
    }
}

struct Sorted {
    files: BTreeMap<Partition, PathBuf>,
    /// What was said to be deleted, and when at the latest, in microseconds.
    removals: BTreeMap<ResourceKey, Option<i64>>,
    places: Option<FxHashMap<Mark, (Partition, Rank)>>,
    /// What came of patients in different partitions, none of them newer than the other.
    split: FxHashSet<Mark>,
    /// What came in [`Reconcile::present_in`].
    present: FxHashSet<Mark>,
    /// In microseconds.
    newest: Option<i64>,
}

impl Snapshot {
    /// Writes the segments of a pull from its staged files. Repeating it after a kill gives the same segments.
    pub fn prepare(&self, pull: PullId, files: &[String], reconcile: &Reconcile) -> Result<Prepared, SnapshotError> {
        remove_folder(&self.root.join(pull.0.to_string()))?;
        let sorted = self.sort(pull, files, reconcile)?;
        let newest = sorted.newest.and_then(|at| Timestamp::from_microsecond(at).ok());
        let absent = reconcile.members.as_ref().map_or(0, BTreeSet::len) as u64;
        let mut prepared = Prepared {
            pull,
            segments: Vec::new(),
            states: Vec::new(),
            new_versions: 0,
            removed: 0,
            newest,
            conflicts: BTreeMap::new(),
            ambiguous: BTreeMap::new(),
            replaced: 0,
            present: BTreeMap::new(),
            absent,
            strangers: 0,
        };
        prepared.replaced = self.store.with(|connection| repair::damaged(connection))?;
        let mut partitions = self.partitions();
        partitions.push(Partition::Common);
        for partition in partitions {
            self.prepare_partition(partition, &sorted, reconcile, &mut prepared)?;
        }
        remove_folder(&self.sorting(pull))?;
        let is_deleted = |patient: &&String| sorted.removals.contains_key(&("Patient".to_owned(), (*patient).clone()));
        prepared.absent = prepared.absent.saturating_sub(reconcile.members.iter().flatten().filter(is_deleted).count() as u64);
        Ok(prepared)
    }

    /// What a pull will leave of the patients, if nothing comes beside what is staged in these files.
    pub fn foresee<'a>(&'a self, pull: PullId, files: &[String], reconcile: &'a Reconcile) -> Result<Foreseen<'a>, SnapshotError> {
        Ok(Foreseen { snapshot: self, pull, reconcile, sorted: self.sort(pull, files, reconcile)? })
    }

    /// Enters prepared segments in the catalog, in the caller's transaction, and marks the pull committed.
    pub fn publish(&self, transaction: &Transaction<'_>, prepared: &Prepared) -> Result<(), StoreError> {
        for row in &prepared.segments {
            transaction.execute(
                "INSERT INTO segment (pull_id, partition, number, records, bytes, sha256, index_sha256)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![prepared.pull.0, row.partition, row.number, row.records as i64, row.bytes as i64, row.sha256, row.index_sha256],
            )?;
        }
        for row in &prepared.states {
            transaction.execute(
                "INSERT INTO partition_state (pull_id, partition, digest, counts) VALUES (?1, ?2, ?3, ?4)",
                params![prepared.pull.0, row.partition, row.digest, row.counts],
            )?;
        }
        transaction.execute(
            "UPDATE pull SET state = 'committed', new_versions = ?2, removed = ?3 WHERE id = ?1 AND state = 'open'",
            params![prepared.pull.0, prepared.new_versions as i64, prepared.removed as i64],
        )?;
        if prepared.replaced > 0 {
            repair::replace(transaction, prepared.pull)?;
        }
        let digest = digest_of(transaction, prepared.pull.0)?;
        transaction.execute("UPDATE pull SET digest = ?2 WHERE id = ?1", params![prepared.pull.0, digest])?;
        Ok(())
    }

    fn sorting(&self, pull: PullId) -> PathBuf {
        self.staging(pull).join("sorted")
    }

    /// Spreads the staged resources over one file per partition.
    fn sort(&self, pull: PullId, files: &[String], reconcile: &Reconcile) -> Result<Sorted, SnapshotError> {
        let folder = self.sorting(pull);
        remove_folder(&folder)?;
        create_folder(&folder)?;
        let wrong = |error| SnapshotError::File { path: folder.clone(), error };
        let mut writers: BTreeMap<Partition, (LineWriter, PathBuf)> = BTreeMap::new();
        let mut sorted = Sorted {
            files: BTreeMap::new(),
            removals: BTreeMap::new(),
            places: Some(FxHashMap::default()),
            split: FxHashSet::default(),
            present: FxHashSet::default(),
            newest: None,
        };
        let until = reconcile.until.map_or(i64::MAX, Timestamp::as_microsecond);
        let mut files = files.to_vec();
        files.sort();
        let present: Vec<String> = files.iter().filter(|file| reconcile.present_in.contains(*file)).cloned().collect();
        // What was read again and is not there any more came before that.
        let mut vanished: FxHashSet<Mark> = FxHashSet::default();
        self.staged(pull, &present, |header, _| {
            let known = if header.removed { &mut vanished } else { &mut sorted.present };
            known.insert(mark(&header.resource_type, &header.id));
            Ok(())
        })?;
        vanished.retain(|mark| !sorted.present.contains(mark));
        self.staged(pull, &files, |header, json| {
            if header.removed {
                let at = sorted.removals.entry((header.resource_type.clone(), header.id.clone())).or_default();
                *at = header.updated.max(*at);
                return Ok(());
            }
            if !vanished.is_empty() && vanished.contains(&mark(&header.resource_type, &header.id)) {
                return Ok(());
            }
            sorted.newest = sorted.newest.max(header.updated.filter(|at| *at <= until));
            let partition = self.partition_of(&header.patient);
            sorted.note_place(header, partition);
            let (writer, _) = match writers.entry(partition) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(place) => {
                    let path = folder.join(partition.name());
                    let writer = LineWriter::create(&path, &self.key, &stage_name(pull, &partition.name())).map_err(wrong)?;
                    place.insert((writer, path))
                }
            };
            writer.header(header).and_then(|()| writer.line(json)).map_err(wrong)?;
            Ok(())
        })?;
        for (partition, (writer, path)) in writers {
            writer.finish().map_err(wrong)?;
            sorted.files.insert(partition, path);
        }
        Ok(sorted)
    }

    fn prepare_partition(&self, partition: Partition, sorted: &Sorted, reconcile: &Reconcile, prepared: &mut Prepared) -> Result<(), SnapshotError> {
        let live = self.live_headers(partition)?;
        let Change { written, gone, conflicts, ambiguous, present, members, strangers } = self.change(partition, sorted, reconcile, prepared.pull, &live)?;
        for (resource_type, count) in conflicts {
            *prepared.conflicts.entry(resource_type).or_default() += count;
        }
        for (resource_type, count) in ambiguous {
            *prepared.ambiguous.entry(resource_type).or_default() += count;
        }
        for (resource_type, count) in present {
            *prepared.present.entry(resource_type).or_default() += count;
        }
        prepared.absent = prepared.absent.saturating_sub(members);
        prepared.strangers += strangers;
        if written.is_empty() && gone.is_empty() && prepared.replaced == 0 {
            return Ok(());
        }
        let mut held: Held = live.into_values().map(|header| held(&header)).collect();
        if !written.is_empty() || !gone.is_empty() {
            prepared.new_versions += written.len() as u64;
            prepared.removed += gone.len() as u64;
            for header in &gone {
                held.remove(&*held_key(header));
            }
            self.write_segments(partition, sorted, &written, &gone, prepared, &mut held)?;
        }
        prepared.states.push(state_of(partition, &held));
        Ok(())
    }

    /// What becomes of a partition whose stored resources are `live`.
    fn change(&self, partition: Partition, sorted: &Sorted, reconcile: &Reconcile, pull: PullId, live: &BTreeMap<ResourceKey, Header>) -> Result<Change, SnapshotError> {
        let mut winners = self.winners(partition, sorted, reconcile, pull)?;
        self.compare_matches(partition, sorted, pull, &mut winners)?;
        let mut gone = Vec::new();
        for (key, header) in live {
            let mark = mark(&key.0, &key.1);
            let came = winners.newest.get_mut(&mark);
            let stays = came.is_some();
            let mut elsewhere = sorted.place(&mark).is_some_and(|place| place != partition);
            if let Some(winner) = came {
                winner.is_known = !supersedes(&winner.rank, header, reconcile.present_wins || sorted.present.contains(&mark));
                elsewhere |= !winner.is_known && !winner.is_kept;
            }
            if elsewhere || !reconcile.is_of_member(header) || (!stays && (sorted.removals.contains_key(key) || reconcile.is_missed(header))) {
                gone.push(Header { removed: true, ..header.clone() });
            }
        }
        winners.newest.retain(|_, winner| winner.is_kept);
        Ok(Change {
            written: winners.newest.values().filter(|winner| !winner.is_known).map(|winner| winner.ordinal).collect(),
            gone,
            conflicts: winners.count(|winner| winner.deleted == Deleted::Sometime),
            ambiguous: winners.count(|winner| winner.is_matched),
            present: winners.count(|winner| !winner.is_import),
            members: winners.count(|winner| winner.is_member).into_values().sum(),
            strangers: winners.strangers.len() as u64,
        })
    }

    /// For each key of a partition's sorted file its newest copy.
    fn winners(&self, partition: Partition, sorted: &Sorted, reconcile: &Reconcile, pull: PullId) -> Result<Winners, SnapshotError> {
        let mut winners = Winners::default();
        let Some(mut reader) = self.sorted_reader(partition, sorted, pull)? else { return Ok(winners) };
        let mut ordinal = 0;
        while let Some((header, _)) = reader.next()? {
            let (mark, rank) = (mark(&header.resource_type, &header.id), Rank::of(&header));
            let moved_on = sorted.place(&mark).is_some_and(|place| place != partition);
            match winners.newest.get_mut(&mark) {
                _ if moved_on => {}
                Some(best) if rank.within_pull(&best.rank) != Ordering::Greater => best.is_matched |= rank.is_as_new_as(&best.rank),
                best => {
                    let is_matched = best.is_some_and(|best| rank.is_as_new_as(&best.rank));
                    let resource_type = winners.type_of(&header.resource_type);
                    let is_import = !header.import.is_empty();
                    let is_patient = header.resource_type == "Patient";
                    let is_member = is_patient && reconcile.members.as_ref().is_some_and(|members| members.contains(&header.id));
                    let is_kept = reconcile.is_of_member(&header);
                    if !is_kept && !is_import {
                        winners.strangers.insert(header.patient);
                    }
                    let removal = if sorted.removals.is_empty() { None } else { sorted.removals.get(&(header.resource_type, header.id)) };
                    let deleted = Deleted::of(removal, rank.updated);
                    let is_member = is_member && deleted == Deleted::No;
                    winners
                        .newest
                        .insert(mark, Winner { ordinal, rank, resource_type, is_import, deleted, is_member, is_kept, is_known: false, is_matched });
                }
            }
            ordinal += 1;
        }
        winners.newest.retain(|_, winner| winner.deleted != Deleted::Later);
        Ok(winners)
    }

    /// Which copies that are as new as their winners say something else, in whatever form: which of them counts is decided by their
    /// bytes, always in the same way, and says nothing of the patient.
    fn compare_matches(&self, partition: Partition, sorted: &Sorted, pull: PullId, winners: &mut Winners) -> Result<(), SnapshotError> {
        let newest = &mut winners.newest;
        let mut first: FxHashMap<Mark, Option<serde_json::Value>> = FxHashMap::default();
        let mut differ: FxHashSet<Mark> = sorted.split.iter().filter(|mark| newest.contains_key(*mark)).copied().collect();
        let has_matches = newest.values().any(|winner| winner.is_matched && !winner.is_import);
        let reader = if has_matches { self.sorted_reader(partition, sorted, pull)? } else { None };
        if let Some(mut reader) = reader {
            while let Some((header, json)) = reader.next()? {
                let (mark, rank) = (mark(&header.resource_type, &header.id), Rank::of(&header));
                let Some(winner) = newest.get(&mark).filter(|winner| winner.is_matched && !winner.is_import) else { continue };
                if rank.hash != winner.rank.hash && !rank.is_as_new_as(&winner.rank) {
                    continue;
                }
                let content = content(&json);
                if *first.entry(mark).or_insert_with(|| content.clone()) != content {
                    differ.insert(mark);
                }
            }
        }
        newest.iter_mut().for_each(|(mark, winner)| winner.is_matched = differ.contains(mark));
        Ok(())
    }

    fn sorted_reader(&self, partition: Partition, sorted: &Sorted, pull: PullId) -> Result<Option<SortedReader>, SnapshotError> {
        let Some(path) = sorted.files.get(&partition) else { return Ok(None) };
        let reader = LineReader::open(path, &self.key, &stage_name(pull, &partition.name())).map_err(|error| SnapshotError::File { path: path.clone(), error })?;
        Ok(Some(SortedReader { reader, path: path.clone() }))
    }

    /// Writes what is new or changed, which is `held` then.
    fn write_segments(
        &self,
        partition: Partition,
        sorted: &Sorted,
        ordinals: &BTreeSet<u64>,
        gone: &[Header],
        prepared: &mut Prepared,
        held: &mut Held,
    ) -> Result<(), SnapshotError> {
        let pull = prepared.pull;
        let mut open = OpenSegment::start(self, pull, partition, 0)?;
        for header in gone {
            open.push(header, None)?;
        }
        if let Some(mut reader) = self.sorted_reader(partition, sorted, pull)? {
            let mut ordinal = 0;
            while let Some((header, json)) = reader.next()? {
                if ordinals.contains(&ordinal) {
                    if open.json_bytes > SEGMENT_BYTES {
                        let number = open.number + 1;
                        prepared.segments.push(open.finish()?);
                        open = OpenSegment::start(self, pull, partition, number)?;
                    }
                    open.push(&header, Some(&json))?;
                    held.extend([self::held(&header)]);
                }
                ordinal += 1;
            }
        }
        let folder = open.folder.clone();
        prepared.segments.push(open.finish()?);
        for folder in [folder.as_path(), self.root.join(pull.0.to_string()).as_path(), self.root.as_path()] {
            sync_folder(folder).map_err(|error| SnapshotError::File { path: folder.to_owned(), error })?;
        }
        Ok(())
    }
}

impl Sorted {
    fn note_place(&mut self, header: &Header, partition: Partition) {
        let Some(places) = &mut self.places else { return };
        let (mark, rank) = (mark(&header.resource_type, &header.id), Rank::of(header));
        let known = places.get(&mark);
        match known {
            Some((at, best)) if *at != partition && rank.is_as_new_as(best) => drop(self.split.insert(mark)),
            Some((_, best)) if !rank.is_as_new_as(best) && rank.hash != best.hash && rank.within_pull(best) == Ordering::Greater => drop(self.split.remove(&mark)),
            _ => {}
        }
        match known {
            Some((_, best)) if rank.within_pull(best) != Ordering::Greater => {}
            _ => {
                places.insert(mark, (partition, rank));
            }
        }
        if places.len() > MOVED_KEYS_MAX {
            self.places = None;
        }
    }

    fn place(&self, mark: &Mark) -> Option<Partition> {
        Some(self.places.as_ref()?.get(mark)?.0)
    }
}

/// Whether a received copy replaces the stored one.
fn supersedes(new: &Rank, old: &Header, present_wins: bool) -> bool {
    let old = Rank::of(old);
    new.hash != old.hash && (present_wins || new.age(&old) != Ordering::Less)
}

struct SortedReader {
    reader: LineReader,
    path: PathBuf,
}

impl SortedReader {
    fn next(&mut self) -> Result<Option<(Header, Vec<u8>)>, SnapshotError> {
        let wrong = |error| SnapshotError::File { path: self.path.clone(), error };
        let Some(header) = self.reader.header().map_err(wrong)? else { return Ok(None) };
        let json = self.reader.line().map_err(wrong)?.ok_or_else(|| wrong(io::ErrorKind::UnexpectedEof.into()))?;
        Ok(Some((header, json.to_vec())))
    }
}

struct OpenSegment {
    data: LineWriter,
    index: LineWriter,
    folder: PathBuf,
    partition: String,
    number: u32,
    records: u64,
    json_bytes: u64,
}

impl OpenSegment {
    fn start(snapshot: &Snapshot, pull: PullId, partition: Partition, number: u32) -> Result<OpenSegment, SnapshotError> {
        let partition = partition.name();
        let folder = snapshot.root.join(pull.0.to_string()).join(&partition);
        create_folder(&folder)?;
        let create = |kind: &str| {
            let path = snapshot.segment_path(pull.0, &partition, number, kind);
            LineWriter::create(&path, &snapshot.key, &segment_name(pull.0, &partition, number, kind)).map_err(|error| SnapshotError::File { path, error })
        };
        Ok(OpenSegment { data: create("ndjson")?, index: create("index")?, folder, partition, number, records: 0, json_bytes: 0 })
    }

    fn push(&mut self, header: &Header, json: Option<&[u8]>) -> Result<(), SnapshotError> {
        let wrong = |error| SnapshotError::File { path: self.folder.clone(), error };
        self.index.header(header).map_err(wrong)?;
        if let Some(json) = json {
            self.data.line(json).map_err(wrong)?;
            self.json_bytes += json.len() as u64;
        }
        self.records += 1;
        Ok(())
    }

    fn finish(self) -> Result<SegmentRow, SnapshotError> {
        let folder = self.folder;
        let wrong = |error| SnapshotError::File { path: folder.clone(), error };
        let (sha256, bytes) = self.data.finish().map_err(wrong)?;
        let (index_sha256, _) = self.index.finish().map_err(wrong)?;
        Ok(SegmentRow { partition: self.partition, number: self.number, records: self.records, bytes, sha256, index_sha256 })
    }
}

/// What a partition's digest is made of: by `Type/id` the hash and the import. No letter of a type comes before `/`, so the
/// order is that of type and id.
type Held = BTreeMap<Box<str>, ([u8; 32], Box<str>)>;

fn held_key(header: &Header) -> Box<str> {
    format!("{}/{}", header.resource_type, header.id).into()
}

fn held(header: &Header) -> (Box<str>, ([u8; 32], Box<str>)) {
    (held_key(header), (header.hash, header.import.as_str().into()))
}

fn state_of(partition: Partition, held: &Held) -> PartitionRow {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (key, (hash, import)) in held {
        context.update(key.as_bytes());
        context.update(b"\n");
        context.update(hash);
        let counted_as = match &**import {
            "" => key.split_once('/').map_or(&**key, |(resource_type, _)| resource_type).to_owned(),
            import => format!("import {import}"),
        };
        *counts.entry(counted_as).or_default() += 1;
    }
    let digest = crate::store::hex(context.finish().as_ref());
    let counts = serde_json::to_string(&counts).unwrap_or_else(|_| "{}".to_owned());
    PartitionRow { partition: partition.name(), digest, counts }
}

/// The digest of all partitions as of a pull.
pub(super) fn digest_of(connection: &Connection, upto: i64) -> Result<String, StoreError> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for (partition, digest, counts) in states(connection, upto)? {
        if counts != "{}" {
            context.update(format!("{partition} {digest}\n").as_bytes());
        }
    }
    Ok(crate::store::hex(context.finish().as_ref()))
}

/// Numbers of stored resources by type, as of the latest pull.
pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut total: BTreeMap<String, u64> = BTreeMap::new();
    for (partition, _, counts) in states(connection, i64::MAX)? {
        let counts: BTreeMap<String, u64> = serde_json::from_str(&counts).map_err(|_| StoreError::Corrupt(format!("counts of partition `{partition}`")))?;
        for (resource_type, count) in counts {
            *total.entry(resource_type).or_default() += count;
        }
    }
    Ok(total)
}

fn states(connection: &Connection, upto: i64) -> Result<Vec<(String, String, String)>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT partition, digest, counts, max(pull_id) FROM partition_state WHERE pull_id <= ?1
         GROUP BY partition ORDER BY partition",
    )?;
    let rows = statement.query_map([upto], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<Vec<_>, _>>()?;
    Ok(rows)
}
