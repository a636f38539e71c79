//! Files on disk: NDJSON, Bundles, folders of either, compressed or not; grouped by patient, or dropped for a site's pulls.
//!
//! What cannot be read is set aside with its file, line and reason, and never stops the rest. A file that cannot be
//! opened at all does: a missing file is no gap in the data but a mistake in the command. Large files are read in blocks on
//! several threads; of lines without any code that is asked for only the type and the id are looked at. A file with one Patient
//! in which nobody else is named is that patient's record: what names nobody in it is the patient's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustc_hash::FxHashSet;

use crate::fhir::ndjson::{Line, Lines};
use crate::fhir::record::Shape;
use crate::fhir::record::glance::Key;
use crate::source::import::known::{Ask, Known};

mod dataset;
mod listing;
mod nights;
mod pulling;
mod resources;
mod series;
mod walk;
mod whole;

use dataset::{Asked, Part, Scan, Wanted};
pub use dataset::{Bad, Dataset, Patient, Share};
use listing::LOG;
pub use listing::{Dropped, Listing, State, look};
pub(in crate::source) use listing::{UNFINISHED, UTF_16};
pub(super) use pulling::{Dump, run};
pub use pulling::{Survey, survey};
pub use walk::Block;
use walk::Walk;
use whole::ANY_TYPE;
pub use whole::{Gap, Signs};

/// Largest single JSON document (a Bundle), decompressed.
const DOCUMENT_BYTES_MAX: u64 = 2 << 30;
/// Most shares that data are cut into; beyond it one may need more memory than was asked for.
const SHARES_MAX: u64 = 4_096;
/// What one thread reads at a time of a file that is not compressed, in bytes.
const BLOCK: u64 = 8 << 20;
/// Bytes of a file that are in memory at a time.
const BUFFER: usize = 1 << 18;

/// What a file is that has something else in the place of a first line.
const LIST: &str = "it is a JSON list: have each resource written as a line of NDJSON, or as an entry of a Bundle";
const SEVERAL_LINES: &str = "its first line is not a whole resource: have each written in one line, or name the file `.json` where it is one document";

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

/// The files that paths name or hold, sorted within each path.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = Vec::new();
    for path in paths {
        let is_log = |found: &Path| found.file_name().is_some_and(|name| name == LOG);
        files.extend(list(path, &|found, is_folder| is_folder || found == path || (kind(found).is_some() && !listing::is_beside(found) && !is_log(found)))?);
    }
    if files.is_empty() {
        let path = paths.first().map(PathBuf::as_path).unwrap_or(Path::new("."));
        let of_xml = if xml(paths) > 0 { "; FHIR XML is not read: have JSON written" } else { "" };
        return Err(fault(path, format!("it holds no .ndjson or .json file, compressed by .gz or .zst or not{of_xml}")));
    }
    Ok(files)
}

/// What lies in the folders that paths name and is not read though it holds data: of types that a shape wants, or of who knows which.
pub fn unread(paths: &[PathBuf], shape: &Shape) -> Result<Vec<Gap>, FolderError> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(list(path, &|found, is_folder| is_folder || (found != path && listing::unread(found).is_some()))?);
    }
    let gap = |file: &PathBuf| {
        let (why, named) = listing::unread(file)?;
        let resource_type = named.unwrap_or_else(|| ANY_TYPE.to_owned());
        let told = Bad { file: file.display().to_string(), line: 0, reason: why.into() };
        (resource_type == ANY_TYPE || shape.of(&resource_type).is_some()).then_some(Gap { told, resource_type })
    };
    Ok(files.iter().filter_map(gap).collect())
}

/// How many files of XML the paths name or hold: FHIR XML is not read.
pub fn xml(paths: &[PathBuf]) -> u64 {
    let is_xml = |found: &Path| uncompressed(found).is_some_and(|name| name.ends_with(".xml"));
    // What cannot be listed is said by whoever reads it.
    let found = |path: &PathBuf| Walk::below(path, &|file, is_folder| is_folder || is_xml(file)).map_or(0, |walk| walk.files.len() as u64);
    paths.iter().map(found).sum()
}

/// All patients at once, however much memory they take.
pub fn read(files: &[PathBuf], shape: &Shape, threads: usize) -> Result<Dataset, FolderError> {
    let passes = Passes { files, shape, memory: u64::MAX, threads, left: Vec::new() };
    passes.pass(Share::all()).map(|(data, _)| data)
}

/// The data in as many passes as `memory`, in bytes, asks for, each with a share of the patients. What is found does not
/// depend on the number of threads, nor does the sum of the passes on the memory.
pub fn passes<'a>(files: &'a [PathBuf], shape: &'a Shape, memory: u64, threads: usize) -> Passes<'a> {
    // Lines, their records and the results of a share lie side by side.
    Passes { files, shape, memory: memory / 2, threads, left: vec![Share::all()] }
}

/// See [`passes`].
pub struct Passes<'a> {
    files: &'a [PathBuf],
    shape: &'a Shape,
    memory: u64,
    threads: usize,
    left: Vec<Share>,
}

impl Iterator for Passes<'_> {
    type Item = Result<Dataset, FolderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let share = self.left.pop()?;
        match self.pass(share.clone()) {
            Ok((data, read)) => {
                // What did not fit: the shares of the same size that the share read was cut from.
                let steps = 0..read.count / share.count;
                let others = steps.map(|step| Share { index: share.index + step * share.count, ..read.clone() });
                self.left.extend(others.filter(|other| *other != read).collect::<Vec<_>>().into_iter().rev());
                Some(Ok(data))
            }
            Err(error) => {
                self.left.clear();
                Some(Err(error))
            }
        }
    }
}

/// A run of lines that one thread reads.
#[derive(Clone, Copy)]
struct Task<'f> {
    file: &'f Path,
    /// Lines that begin in these bytes; the whole file when it is compressed or no NDJSON.
    bytes: Option<(u64, u64)>,
}

/// What the threads have read so far.
struct Gathered {
    share: Share,
    parts: BTreeMap<usize, Part>,
    size: u64,
    /// Of each part; `None` when there were too many to keep.
    passed_over: Option<Vec<Vec<Key>>>,
    passed_over_size: usize,
    /// By which identifiers patients are named of whom is not known who they are.
    asked: BTreeSet<Ask>,
    faults: BTreeMap<usize, FolderError>,
}

impl Passes<'_> {
    /// Reads a share, or so much of it as fits: the share that was read is returned too.
    fn pass(&self, share: Share) -> Result<(Dataset, Share), FolderError> {
        let tasks = self.tasks()?;
        let mut gathered = self.run(&tasks, share, None)?;
        let merged = dataset::merged(gathered.parts.values());
        // Who was merged into somebody may have fallen into another share.
        let mut is_read_again = *gathered.share.merged != merged && gathered.share.count > 1;
        gathered.share.merged = merged.into();
        if !gathered.asked.is_empty() {
            gathered.share.known = self.known(&tasks, &gathered.share, &gathered.parts, gathered.asked)?;
            is_read_again = true;
        }
        if is_read_again {
            gathered.parts.clear();
            gathered = self.run(&tasks, gathered.share, None)?;
        }
        let (mut share, mut parts) = (gathered.share, gathered.parts);
        let contested = self.add_versions(&tasks, &mut share, gathered.passed_over, &mut parts)?;
        let data = Dataset::join(parts.into_values().collect(), &share, &contested);
        match data.bad.first() {
            Some(bad) if data.resources == 0 => {
                let reason = format!("no line of it is a FHIR resource (line {}: {}); NDJSON or JSON of FHIR R4 is expected", bad.line, bad.reason);
                Err(fault(Path::new(&bad.file), reason))
            }
            _ => Ok((data, share)),
        }
    }

    /// Reads the Patients again, for who has the identifiers that were met.
    fn known(&self, tasks: &[Task<'_>], share: &Share, parts: &BTreeMap<usize, Part>, mut asked: BTreeSet<Ask>) -> Result<Arc<Known>, FolderError> {
        asked.extend(share.known.asked().iter().cloned());
        let has_people = |index: &usize| parts.get(index).is_some_and(Part::has_people);
        let tasks: Vec<Task<'_>> = (0..).zip(tasks).filter(|(index, _)| has_people(index)).map(|(_, task)| *task).collect();
        let wanted = Wanted { asked: Asked::new(asked, parts.values()), ..Wanted::default() };
        let found = self.run(&tasks, share.clone(), Some(&wanted))?;
        Ok(dataset::known(wanted.asked, Arc::clone(&share.merged), found.parts.into_values()))
    }

    /// Reads what else there is of what was kept: versions that were passed over, and, where several patients have a resource, what
    /// those of other shares have of it. Returns which these are.
    fn add_versions(&self, tasks: &[Task<'_>], share: &mut Share, passed_over: Option<Vec<Vec<Key>>>, parts: &mut BTreeMap<usize, Part>) -> Result<FxHashSet<Key>, FolderError> {
        let mut wanted = Wanted::of(parts.values(), passed_over);
        let mut contested = wanted.contested.clone();
        loop {
            if share.count == 1 {
                wanted.contested.clear();
            }
            if wanted.is_empty() {
                return Ok(contested);
            }
            let mut others = self.run(tasks, share.clone(), Some(&wanted))?;
            if !others.asked.is_empty() {
                share.known = self.known(tasks, share, parts, others.asked)?;
                others = self.run(tasks, share.clone(), Some(&wanted))?;
            }
            let after = parts.last_key_value().map_or(0, |(last, _)| last + 1);
            parts.extend(others.parts.into_iter().map(|(index, part)| (after + index, part)));
            let found = Wanted::of(parts.values(), Some(Vec::new())).contested;
            wanted = Wanted { contested: found.difference(&contested).copied().collect(), ..Wanted::default() };
            contested = found;
        }
    }

    fn tasks(&self) -> Result<Vec<Task<'_>>, FolderError> {
        let mut tasks = Vec::new();
        for file in self.files {
            if kind(file) == Some(Kind::Document) || packing(file).is_some() {
                tasks.push(Task { file, bytes: None });
                continue;
            }
            let length = std::fs::metadata(file).map_err(|error| fault(file, error))?.len();
            let starts = (0..length.div_ceil(BLOCK).max(1)).map(|block| block * BLOCK);
            tasks.extend(starts.map(|start| Task { file, bytes: Some((start, (start + BLOCK).min(length))) }));
        }
        Ok(tasks)
    }

    fn run(&self, tasks: &[Task<'_>], share: Share, wanted: Option<&Wanted>) -> Result<Gathered, FolderError> {
        let next = AtomicUsize::new(0);
        let gathered =
            Mutex::new(Gathered { share, parts: BTreeMap::new(), size: 0, passed_over: Some(Vec::new()), passed_over_size: 0, asked: BTreeSet::new(), faults: BTreeMap::new() });
        let lock = || gathered.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = tasks.get(index) else { return };
                let share = lock().share.clone();
                let part = task.read(Scan::new(task.file.display().to_string(), task.bytes.map(|(start, end)| end - start), self.shape, share.clone(), wanted));
                // The little that is read again is kept whatever it takes: by then the share is settled.
                lock().add(index, part, &share, if wanted.is_some() { u64::MAX } else { self.memory });
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.clamp(1, tasks.len().max(1))).map(|_| scope.spawn(work)).collect();
            workers.into_iter().for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        });
        let mut gathered = gathered.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        match gathered.faults.pop_first() {
            Some((_, fault)) => Err(fault),
            None => Ok(gathered),
        }
    }
}

impl Gathered {
    /// Takes what a task has read; where it does not fit `memory`, half of the patients are left for another pass.
    fn add(&mut self, index: usize, part: Result<Part, FolderError>, share: &Share, memory: u64) {
        let mut part = match part {
            Ok(part) => part,
            Err(fault) => {
                self.faults.insert(index, fault);
                return;
            }
        };
        if let Some(keys) = &mut self.passed_over {
            self.passed_over_size += size_of_val(&*part.passed_over);
            keys.push(std::mem::take(&mut part.passed_over));
            if self.passed_over_size as u64 > memory / 4 {
                self.passed_over = None;
            }
        }
        self.asked.extend(std::mem::take(&mut part.asked));
        if *share != self.share {
            part.prune(&self.share);
        }
        self.size += part.size();
        self.parts.insert(index, part);
        while self.size > memory && self.share.count < SHARES_MAX {
            self.share.count *= 2;
            self.parts.values_mut().for_each(|part| part.prune(&self.share));
            self.size = self.parts.values().map(Part::size).sum();
        }
    }
}

impl Task<'_> {
    fn read(&self, mut scan: Scan<'_>) -> Result<Part, FolderError> {
        if kind(self.file) == Some(Kind::Document) {
            let mut bytes = Vec::new();
            let read = open(self.file)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fault(self.file, error))?;
            if read as u64 > DOCUMENT_BYTES_MAX {
                return Err(fault(self.file, "it is larger than 2 GiB; write it as NDJSON"));
            }
            scan.take_document(&bytes);
            return Ok(scan.finish(0));
        }
        let lines = match self.bytes {
            Some(bytes) => self.block(bytes).map(|(input, length)| self.lines(Lines::new(input).beginning_before(length), &mut scan)),
            None => Ok(self.lines(Lines::new(open(self.file)?), &mut scan)),
        };
        let met = lines.and_then(|met| met).map_err(|error| fault(self.file, error))?;
        Ok(scan.finish(met))
    }

    /// The file from the first line that begins at `start` or later, and how many bytes of it begin before `end`.
    fn block(&self, (start, end): (u64, u64)) -> std::io::Result<(BufReader<File>, u64)> {
        let mut input = BufReader::with_capacity(BUFFER, File::open(self.file)?);
        let mut at = start;
        if start > 0 {
            input.seek(SeekFrom::Start(start - 1))?;
            at = start - 1 + input.skip_until(b'\n')? as u64;
        }
        Ok((input, end.saturating_sub(at)))
    }

    /// Every line to the scan; how many lines there were.
    fn lines(&self, mut lines: Lines<impl BufRead>, scan: &mut Scan<'_>) -> std::io::Result<u64> {
        while let Some(line) = lines.next_line()? {
            match line {
                Line::Text { number, bytes, terminated, at, ahead } => scan.take(bytes, number, Some((at, ahead)), terminated),
                Line::TooLong { number, .. } => scan.set_aside(number, "the line is longer than 16 MiB"),
            }
        }
        Ok(lines.met())
    }
}

/// What a file holds, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Document,
}

/// A file's name in small letters, without what says that it is compressed.
fn uncompressed(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    Some(name.trim_end_matches(".gz").trim_end_matches(".zst").to_owned())
}

fn kind(path: &Path) -> Option<Kind> {
    let name = uncompressed(path)?;
    if name.ends_with(".ndjson") || name.ends_with(".jsonl") { Some(Kind::Lines) } else { name.ends_with(".json").then_some(Kind::Document) }
}

/// The files below a path that are wanted, in folders that are (`true`). What cannot be followed is a mistake in the command.
fn list(path: &Path, is_wanted: &dyn Fn(&Path, bool) -> bool) -> Result<Vec<PathBuf>, FolderError> {
    let walk = Walk::below(path, is_wanted)?;
    match walk.blocked.iter().find(|(_, block)| *block != Block::Loop) {
        Some((path, block)) => Err(fault(path, block.text())),
        None => Ok(walk.files),
    }
}

/// How a file is compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
}

/// By its name or, where that says nothing, by the bytes that it begins with.
fn packing(path: &Path) -> Option<Packing> {
    match path.extension().and_then(|end| end.to_str()) {
        Some("gz") => return Some(Packing::Gzip),
        Some("zst") => return Some(Packing::Zstd),
        _ => {}
    }
    // What is read from a pipe is gone.
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mut start = [0; 4];
    File::open(path).ok()?.read_exact(&mut start).ok()?;
    match start {
        [0x1f, 0x8b, ..] => Some(Packing::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(Packing::Zstd),
        _ => None,
    }
}

/// The file, decompressed.
pub fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, FolderError> {
    let file = File::open(path).map_err(|error| fault(path, error))?;
    match packing(path) {
        Some(Packing::Gzip) => Ok(Box::new(BufReader::with_capacity(BUFFER, flate2::read::MultiGzDecoder::new(file)))),
        Some(Packing::Zstd) => {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(|error| fault(path, error))?;
            Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
        }
        None => Ok(Box::new(BufReader::with_capacity(BUFFER, file))),
    }
}

/// What a first line says that is no resource: a list, or a document that goes on over the next lines.
fn opening(line: &[u8]) -> Option<&'static str> {
    match line {
        [b'[', ..] => Some(LIST),
        b"{" => Some(SEVERAL_LINES),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PATIENT: &str = r#"{"resourceType":"Patient","id":"p1"}"#;
    const VISIT: &str = r#"{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}"#;
    const PLACE: &str = r#"{"resourceType":"Location","id":"l1"}"#;

    fn read_all(paths: &[PathBuf], shape: &Shape) -> Result<Dataset, FolderError> {
        read(&files(paths)?, shape, 2)
    }

    fn of_patient<'d>(data: &'d Dataset, patient: &str) -> Vec<&'d str> {
        let patient = data.patient(patient).into_iter();
        patient.flat_map(Patient::lines).map(|line| std::str::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn what_does_not_fit_the_memory_comes_in_shares_and_every_patient_once() {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..100).map(|n| PATIENT.replace("p1", &format!("p{n}")) + "\n").collect();
        std::fs::write(folder.path().join("x.ndjson"), &lines).unwrap();
        let files = files(&[folder.path().to_owned()]).unwrap();
        let mut seen = Vec::new();
        for part in passes(&files, &Shape::everything(), 4_000, 1) {
            let part = part.unwrap();
            assert!(part.patients().count() < 60, "{}", part.patients().count());
            seen.extend(part.patients().map(|patient| patient.id.to_owned()).collect::<Vec<_>>());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn a_large_file_is_read_in_blocks_each_line_once_and_bad_ones_by_their_number() {
        let filler = "x".repeat(20_000);
        let line = |n: usize| if n == 700 { format!("{{broken {filler}") } else { format!(r#"{{"resourceType":"Patient","id":"p{n}","language":"{filler}"}}"#) };
        let text: String = (1..=1_000).map(|n| line(n) + "\n").collect();
        assert!(text.len() as u64 > 2 * BLOCK);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Patient.ndjson");
        std::fs::write(&file, &text).unwrap();
        for threads in [1, 3] {
            let data = read(std::slice::from_ref(&file), &Shape::default(), threads).unwrap();
            assert_eq!((data.resources, data.patients().count()), (999, 999));
            assert_eq!(data.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [700]);
            assert_eq!(of_patient(&data, "p999"), [line(999)]);
        }
    }

    #[test]
    fn of_lines_without_a_code_that_is_asked_for_only_other_versions_of_kept_ones_are_kept() {
        let line = |id: &str, version: u32, code: &str| {
            format!(
                r#"{{"resourceType":"Observation","id":"{id}","meta":{{"lastUpdated":"2026-01-0{version}T00:00:00Z"}},"code":{{"coding":[{{"code":"{code}"}}]}},"subject":{{"reference":"Patient/p1"}}}}"#
            )
        };
        let lines = [line("o1", 1, "wanted"), line("o2", 1, "other"), line("o1", 2, "other"), line("o3", 1, "other")];
        let mut shape = Shape::default();
        shape.types.insert("Observation".to_owned(), crate::fhir::record::Keep::All);
        shape.sift("Observation", ["wanted".to_owned()].into());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Observation.ndjson");
        std::fs::write(&file, lines.join("\n")).unwrap();
        let data = read(&[file], &shape, 2).unwrap();
        assert_eq!((of_patient(&data, "p1"), data.resources), (vec![lines[0].as_str(), &lines[2]], 4));
    }

    #[test]
    fn a_last_line_that_is_cut_short_is_set_aside_though_nothing_in_it_matters() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.ndjson");
        std::fs::write(&file, format!("{PATIENT}\n{}", r#"{"resourceType":"Observation","id":"o1","code":{"coding":[{"system":"s"}"#)).unwrap();
        let data = read(&[file], &Shape::default(), 1).unwrap();
        assert_eq!(data.bad.iter().map(|bad| (bad.line, &*bad.reason)).collect::<Vec<_>>(), [(2, "this is not one JSON object")]);
    }

    #[test]
    fn every_form_gives_the_same_patients() {
        let lines = format!("\u{feff}{PATIENT}\r\n\n{VISIT}\n{PLACE}");
        let bundle = format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{PATIENT}}},{{"resource":{VISIT}}},{{}},{{"resource":{PLACE}}}]}}"#);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(lines.as_bytes()).unwrap();
        let (gz, zst) = (gz.finish().unwrap(), zstd::encode_all(lines.as_bytes(), 1).unwrap());
        let called = bundle.replacen("{\"resource\"", "{\"fullUrl\":\"urn:uuid:a\",\"resource\"", 1).replace("Patient/p1", "urn:uuid:a");
        let forms = [
            ("a.ndjson", lines.clone().into_bytes()),
            ("a.json", bundle.into_bytes()),
            ("b.json", called.into_bytes()),
            ("a.ndjson.gz", gz.clone()),
            ("a.ndjson.zst", zst.clone()),
            ("b.ndjson", gz),
            ("c.ndjson", zst),
        ];
        for (name, bytes) in forms {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("sub")).unwrap();
            std::fs::write(folder.path().join("sub").join(name), bytes).unwrap();
            std::fs::write(folder.path().join("notes.txt"), "not data").unwrap();
            let data = read_all(&[folder.path().to_owned()], &Shape::everything()).unwrap();
            assert_eq!(of_patient(&data, "p1"), [PATIENT, VISIT, PLACE], "{name}");
            assert_eq!((data.shared().count(), data.bad_count, data.resources), (1, 0, 3), "{name}");
        }
    }

    #[test]
    fn bad_lines_are_set_aside_with_their_place_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.ndjson");
        let orphan = r#"{"resourceType":"Encounter","id":"e2"}"#;
        let other = PATIENT.replace("p1", "p2");
        std::fs::write(&file, format!("{PATIENT}\n{{\"resourceType\":\"Enc\n[]\n{{}}\n{{\"resourceType\":\"Patient\"}}\n{orphan}\n{VISIT}\n{other}\n")).unwrap();
        let data = read_all(&[file], &Shape::everything()).unwrap();
        let found: Vec<_> = data.bad.iter().map(|bad| (bad.line, &*bad.reason)).collect();
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
        assert_eq!(of_patient(&data, "p1").len(), 2);
    }

    #[test]
    fn a_file_with_one_patient_is_the_record_of_that_patient() {
        let read_one = |name: &str, resources: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let entries: Vec<String> = resources.iter().map(|resource| format!(r#"{{"resource":{resource}}}"#)).collect();
            let bundle = format!(r#"{{"resourceType":"Bundle","entry":[{}]}}"#, entries.join(","));
            std::fs::write(folder.path().join(name), if name == "b.json" { bundle } else { resources.join("\n") + "\n" }).unwrap();
            let data = read_all(&[folder.path().to_owned()], &Shape::everything()).unwrap();
            let counts: Vec<(String, usize)> = data.patients().map(|patient| (patient.id.to_owned(), patient.lines().count())).collect();
            (counts, data.shared().count(), data.bad_count)
        };
        let of = |id: &str, count: usize| (id.to_owned(), count);
        let orphan = r#"{"resourceType":"Encounter","id":"e2"}"#;
        let message = r#"{"resourceType":"Communication","id":"c1"}"#;
        let other = PATIENT.replace("p1", "p2");
        let of_other = VISIT.replace("p1", "p2");
        let of_place = r#"{"resourceType":"Observation","id":"o1","subject":{"reference":"Location/l1"}}"#;
        for name in ["b.json", "b.ndjson"] {
            assert_eq!(read_one(name, &[orphan, PATIENT, message, PLACE]), (vec![of("p1", 4)], 1, 0), "the place may be others' too");
            assert_eq!(read_one(name, &[orphan, PATIENT, PATIENT]), (vec![of("p1", 3)], 0, 0), "the same patient twice is one");
            assert_eq!(read_one(name, &[orphan, message, PATIENT, &other]), (vec![of("p1", 1), of("p2", 1)], 1, 1), "of which of two?");
            assert_eq!(read_one(name, &[orphan, VISIT]), (vec![of("p1", 1)], 0, 1), "no Patient resource");
            assert_eq!(read_one(name, &[PATIENT, &of_other, of_place]), (vec![of("p1", 1), of("p2", 1)], 0, 1), "what names somebody else stays theirs");
        }
    }

    #[test]
    fn types_of_no_use_are_counted_and_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.ndjson"), format!("{PATIENT}\n{VISIT}\n")).unwrap();
        let data = read_all(&[folder.path().to_owned()], &Shape::default()).unwrap();
        assert_eq!((of_patient(&data, "p1"), data.resources), (vec![PATIENT], 2));
    }

    #[test]
    fn a_missing_path_or_an_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let none = read_all(&[folder.path().join("nowhere")], &Shape::everything()).unwrap_err().to_string();
        assert!(none.contains("does not exist"), "{none}");
        let empty = read_all(&[folder.path().to_owned()], &Shape::everything()).unwrap_err().to_string();
        assert!(empty.contains("holds no .ndjson"), "{empty}");
        let table = folder.path().join("table.csv");
        std::fs::write(&table, "id,born\n1,2020\n").unwrap();
        let table = read_all(&[table], &Shape::everything()).unwrap_err().to_string();
        assert!(table.contains("no line of it is a FHIR resource (line 1: this is not one JSON object)"), "{table}");
        for (name, text, expected) in
            [("a.ndjson", format!("[{PATIENT}]"), "(line 1: it is a JSON list"), ("b.ndjson", format!("{{\n{}", &PATIENT[1..]), "(line 1: its first line is not a whole resource")]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
            let told = read_all(&[folder.path().join(name)], &Shape::everything()).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
    }
}
