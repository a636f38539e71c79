//! Files on disk: NDJSON, Bundles, folders of either, compressed or not, grouped by patient.
//!
//! What cannot be read is set aside with its file, line and reason, and never stops the rest. A file that cannot be
//! opened at all does: a missing file is no gap in the data but a mistake in the command.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fhir::compartment::{Head, in_compartment, is_id};
use crate::fhir::ndjson::{Line, Lines};

/// Deepest folder that is followed.
const DEPTH_MAX: usize = 8;
/// Most files of one data set.
const FILES_MAX: usize = 1_000_000;
/// Largest single JSON document (a Bundle), decompressed.
const DOCUMENT_BYTES_MAX: u64 = 2 << 30;
/// Most parts that data are cut into; beyond it a part may need more memory than was asked for.
const SHARES_MAX: u64 = 4_096;
/// How many bytes of JSON a compressed byte of clinical data usually stands for.
const COMPRESSION: u64 = 16;
/// Most bad lines that are kept with their place; all are counted.
const BAD_KEPT_MAX: usize = 10_000;

/// The resources of many patients, in memory.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Per patient id: their resources, one JSON object each, in the order of the files.
    pub patients: BTreeMap<String, Vec<Vec<u8>>>,
    /// Resources of no patient: Location, Organization, ….
    pub shared: Vec<Vec<u8>>,
    /// What could not be read; at most [`BAD_KEPT_MAX`].
    pub bad: Vec<Bad>,
    /// How many could not be read.
    pub bad_count: u64,
    /// Resources read, by type, those of no use to the measures included.
    pub read: BTreeMap<String, u64>,
    share: Share,
}

/// A line or resource that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The file.
    pub file: String,
    /// The line, or the entry of a Bundle, counted from 1.
    pub line: u64,
    /// Why; nothing of its content.
    pub reason: &'static str,
}

/// Why a data set cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be read: {reason}")]
pub struct FolderError {
    /// The file or folder.
    pub path: String,
    /// Why.
    pub reason: String,
}

fn fault(path: &Path, reason: impl std::fmt::Display) -> FolderError {
    FolderError { path: path.display().to_string(), reason: reason.to_string() }
}

/// Some of the patients: those whose id falls into part `index` of `count` by a hash of it. Data too large for the memory
/// are read once for each part, so that nothing of a patient is written to another disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: u64,
    /// How many parts there are.
    pub count: u64,
}

impl Share {
    /// All patients.
    pub const ALL: Share = Share { index: 0, count: 1 };

    /// The parts into which data of `bytes` are cut so that one fits `memory`, both in bytes.
    pub fn of(bytes: u64, memory: u64) -> impl Iterator<Item = Share> {
        // Lines, their records and the results of a part lie side by side.
        let count = bytes.div_ceil((memory / 2).max(1)).clamp(1, SHARES_MAX);
        (0..count).map(move |index| Share { index, count })
    }

    fn holds(self, patient: &str) -> bool {
        // FNV-1a: the same on every machine.
        let hash = patient.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.count <= 1 || hash % self.count == self.index
    }
}

/// The files that paths name or hold, sorted within each path.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = Vec::new();
    for path in paths {
        list(path, 0, true, &mut files)?;
    }
    if files.is_empty() {
        let path = paths.first().map(PathBuf::as_path).unwrap_or(Path::new("."));
        return Err(fault(path, "it holds no .ndjson or .json file, compressed by .gz or .zst or not"));
    }
    Ok(files)
}

/// About how many bytes of JSON the files hold; compressed ones by what clinical data usually shrink to.
pub fn size(files: &[PathBuf]) -> u64 {
    let of_one = |path: &PathBuf| {
        let bytes = std::fs::metadata(path).map_or(0, |data| data.len());
        let compressed = path.extension().is_some_and(|end| end == "gz" || end == "zst");
        if compressed { bytes.saturating_mul(COMPRESSION) } else { bytes }
    };
    files.iter().map(of_one).fold(0, u64::saturating_add)
}

/// Reads files on `threads` threads; of each resource type only if `wanted` says so, of the patients those of a share.
/// The result does not depend on the number of threads.
pub fn read(files: &[PathBuf], wanted: &(dyn Fn(&str) -> bool + Sync), share: Share, threads: usize) -> Result<Dataset, FolderError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index) else { return done };
            let mut data = Dataset { share, ..Dataset::default() };
            done.push((index, read_file(file, wanted, &mut data).map(|()| data)));
        }
    };
    let mut parts: Vec<(usize, Result<Dataset, FolderError>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, files.len().max(1))).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    parts.sort_by_key(|(index, _)| *index);
    let mut whole = Dataset { share, ..Dataset::default() };
    for (_, part) in parts {
        whole.append(part?);
    }
    match whole.bad.first() {
        Some(bad) if whole.read.is_empty() => {
            let path = PathBuf::from(&bad.file);
            Err(fault(&path, format!("no line of it is a FHIR resource (line {}: {}); NDJSON or JSON of FHIR R4 is expected", bad.line, bad.reason)))
        }
        _ => Ok(whole),
    }
}

/// What a file holds, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Document,
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    if name.ends_with(".ndjson") || name.ends_with(".jsonl") { Some(Kind::Lines) } else { name.ends_with(".json").then_some(Kind::Document) }
}

/// The readable files below a path, sorted, so that the order of the file system does not matter.
fn list(path: &Path, depth: usize, named: bool, files: &mut Vec<PathBuf>) -> Result<(), FolderError> {
    if path.is_dir() {
        if depth > DEPTH_MAX {
            return Err(fault(path, format!("folders are nested more than {DEPTH_MAX} deep")));
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|error| fault(path, error))? {
            entries.push(entry.map_err(|error| fault(path, error))?.path());
        }
        entries.sort();
        return entries.iter().try_for_each(|entry| list(entry, depth + 1, false, files));
    }
    if !path.exists() {
        return Err(fault(path, "it does not exist"));
    }
    if named || kind(path).is_some() {
        files.push(path.to_owned());
    }
    if files.len() > FILES_MAX {
        return Err(fault(path, format!("more than {FILES_MAX} files")));
    }
    Ok(())
}

/// The file, decompressed by its name.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>, FolderError> {
    let file = File::open(path).map_err(|error| fault(path, error))?;
    match path.extension().and_then(|end| end.to_str()) {
        Some("gz") => Ok(Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file)))),
        Some("zst") => {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(|error| fault(path, error))?;
            Ok(Box::new(BufReader::new(decoder)))
        }
        _ => Ok(Box::new(BufReader::with_capacity(1 << 18, file))),
    }
}

fn read_file(path: &Path, wanted: &dyn Fn(&str) -> bool, data: &mut Dataset) -> Result<(), FolderError> {
    let name = path.display().to_string();
    if kind(path) != Some(Kind::Document) {
        let mut lines = Lines::new(open(path)?);
        while let Some(line) = lines.next_line().map_err(|error| fault(path, error))? {
            match line {
                Line::Text { number, bytes, .. } => data.take(bytes, &name, number, wanted),
                Line::TooLong { number, .. } => data.set_aside(&name, number, "the line is longer than 16 MiB"),
            }
        }
        return Ok(());
    }
    let mut bytes = Vec::new();
    let read = open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fault(path, error))?;
    if read as u64 > DOCUMENT_BYTES_MAX {
        return Err(fault(path, "it is larger than 2 GiB; write it as NDJSON"));
    }
    data.take_document(&bytes, &name, wanted);
    Ok(())
}

#[derive(Deserialize)]
struct BundleText<'a> {
    #[serde(borrow, default)]
    entry: Vec<EntryText<'a>>,
}

#[derive(Deserialize)]
struct EntryText<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
}

impl Default for Dataset {
    fn default() -> Dataset {
        Dataset { patients: BTreeMap::new(), shared: Vec::new(), bad: Vec::new(), bad_count: 0, read: BTreeMap::new(), share: Share::ALL }
    }
}

impl Dataset {
    /// A Bundle's resources, or a single resource.
    pub fn take_document(&mut self, bytes: &[u8], name: &str, wanted: &dyn Fn(&str) -> bool) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let Some(head) = Head::read(bytes) else { return self.set_aside(name, 1, "this is not one JSON object") };
        if Head::text(head.resource_type).as_deref() != Some("Bundle") {
            return self.take(bytes, name, 1, wanted);
        }
        let bundle = std::str::from_utf8(bytes).ok().and_then(|text| serde_json::from_str::<BundleText<'_>>(text).ok());
        let Some(bundle) = bundle else { return self.set_aside(name, 1, "the Bundle cannot be read") };
        for (number, entry) in (1..).zip(&bundle.entry) {
            if let Some(resource) = entry.resource {
                self.take(resource.get().as_bytes(), name, number, wanted);
            }
        }
    }

    /// One resource.
    pub fn take(&mut self, bytes: &[u8], name: &str, number: u64, wanted: &dyn Fn(&str) -> bool) {
        let Some(head) = Head::read(bytes) else { return self.set_aside(name, number, "this is not one JSON object") };
        let Some(resource_type) = Head::text(head.resource_type) else { return self.set_aside(name, number, "no resourceType") };
        if Head::text(head.id).is_none_or(|id| !is_id(&id)) {
            return self.set_aside(name, number, "no id, or one that FHIR does not allow");
        }
        *self.read.entry(resource_type.clone()).or_default() += 1;
        if !wanted(&resource_type) && resource_type != "Patient" {
            return;
        }
        match head.patient(&resource_type) {
            Some(patient) if !self.share.holds(&patient) => {}
            Some(patient) => self.patients.entry(patient).or_default().push(bytes.to_vec()),
            None if in_compartment(&resource_type) && crate::fhir::compartment::patient_required(&resource_type) => {
                self.set_aside(name, number, "it names no patient");
            }
            None => self.shared.push(bytes.to_vec()),
        }
    }

    /// Adds what later files hold.
    fn append(&mut self, later: Dataset) {
        for (patient, lines) in later.patients {
            self.patients.entry(patient).or_default().extend(lines);
        }
        self.shared.extend(later.shared);
        self.bad_count += later.bad_count;
        let room = BAD_KEPT_MAX.saturating_sub(self.bad.len());
        self.bad.extend(later.bad.into_iter().take(room));
        for (kind, count) in later.read {
            *self.read.entry(kind).or_default() += count;
        }
    }

    fn set_aside(&mut self, file: &str, line: u64, reason: &'static str) {
        self.bad_count += 1;
        if self.bad.len() < BAD_KEPT_MAX {
            self.bad.push(Bad { file: file.to_owned(), line, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PATIENT: &str = r#"{"resourceType":"Patient","id":"p1"}"#;
    const VISIT: &str = r#"{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}"#;
    const PLACE: &str = r#"{"resourceType":"Location","id":"l1"}"#;

    fn everything(_: &str) -> bool {
        true
    }

    fn read_all(paths: &[PathBuf], wanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<Dataset, FolderError> {
        read(&files(paths)?, wanted, Share::ALL, 2)
    }

    #[test]
    fn shares_are_every_patient_once() {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..100).map(|n| PATIENT.replace("p1", &format!("p{n}")) + "\n").collect();
        std::fs::write(folder.path().join("x.ndjson"), &lines).unwrap();
        let files = files(&[folder.path().to_owned()]).unwrap();
        assert_eq!(size(&files), lines.len() as u64);
        let mut seen = Vec::new();
        for share in Share::of(lines.len() as u64, 2_000) {
            let part = read(&files, &everything, share, 1).unwrap();
            assert!(part.patients.len() < 60, "{}", part.patients.len());
            seen.extend(part.patients.into_keys());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn every_form_gives_the_same_patients() {
        let lines = format!("\u{feff}{PATIENT}\r\n\n{VISIT}\n{PLACE}");
        let bundle = format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{PATIENT}}},{{"resource":{VISIT}}},{{}},{{"resource":{PLACE}}}]}}"#);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(lines.as_bytes()).unwrap();
        let zst = zstd::encode_all(lines.as_bytes(), 1).unwrap();
        for (name, bytes) in [("a.ndjson", lines.clone().into_bytes()), ("a.json", bundle.into_bytes()), ("a.ndjson.gz", gz.finish().unwrap()), ("a.ndjson.zst", zst)] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("sub")).unwrap();
            std::fs::write(folder.path().join("sub").join(name), bytes).unwrap();
            std::fs::write(folder.path().join("notes.txt"), "not data").unwrap();
            let data = read_all(&[folder.path().to_owned()], &everything).unwrap();
            assert_eq!(data.patients["p1"], [PATIENT.as_bytes(), VISIT.as_bytes()], "{name}");
            assert_eq!((data.shared.len(), data.bad_count, data.read["Encounter"]), (1, 0, 1), "{name}");
        }
    }

    #[test]
    fn bad_lines_are_set_aside_with_their_place_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.ndjson");
        let orphan = r#"{"resourceType":"Encounter","id":"e2"}"#;
        std::fs::write(&file, format!("{PATIENT}\n{{\"resourceType\":\"Enc\n[]\n{{}}\n{{\"resourceType\":\"Patient\"}}\n{orphan}\n{VISIT}\n")).unwrap();
        let data = read_all(&[file], &everything).unwrap();
        let found: Vec<_> = data.bad.iter().map(|bad| (bad.line, bad.reason)).collect();
        assert_eq!(
            found,
            [
                (2, "this is not one JSON object"),
                (3, "this is not one JSON object"),
                (4, "no resourceType"),
                (5, "no id, or one that FHIR does not allow"),
                (6, "it names no patient"),
            ]
        );
        assert_eq!(data.patients["p1"].len(), 2);
    }

    #[test]
    fn types_of_no_use_are_counted_and_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.ndjson"), format!("{PATIENT}\n{VISIT}\n")).unwrap();
        let data = read_all(&[folder.path().to_owned()], &|kind| kind == "Observation").unwrap();
        assert_eq!((data.patients["p1"].len(), data.read["Encounter"]), (1, 1));
    }

    #[test]
    fn a_missing_path_or_an_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let none = read_all(&[folder.path().join("nowhere")], &everything).unwrap_err().to_string();
        assert!(none.contains("does not exist"), "{none}");
        let empty = read_all(&[folder.path().to_owned()], &everything).unwrap_err().to_string();
        assert!(empty.contains("holds no .ndjson"), "{empty}");
        let table = folder.path().join("table.csv");
        std::fs::write(&table, "id,born\n1,2020\n").unwrap();
        let table = read_all(&[table], &everything).unwrap_err().to_string();
        assert!(table.contains("no line of it is a FHIR resource (line 1: this is not one JSON object)"), "{table}");
    }
}
