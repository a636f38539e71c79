//! What other tools have dropped into a folder: which files hold data, which are not whole yet, and names for them that tell
//! nothing of a patient.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::nights::night;
use super::walk::{Block, Walk};
use super::{BUFFER, FolderError, Kind, fault, kind};
use crate::store::{hex, sha256_hex};

/// What tools write for themselves beside the data.
pub(super) const LOG: &str = "log.ndjson";
/// What a Bulk Data client may keep of an export: which files there are, and what is in them.
const MANIFEST: &str = "manifest.json";
/// Files that pack others: nobody can tell that it is no data.
const PACKED: [&str; 7] = [".zip", ".7z", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2"];
/// Endings of files that are being written.
pub(in crate::source) const UNFINISHED: [&str; 4] = [".tmp", ".part", ".filepart", ".crdownload"];
/// What a file of UTF-16 begins with.
pub(in crate::source) const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// Endings of what tells of the file beside it, and is no data.
const BESIDE: [&str; 8] = [".asc", ".crc", ".md5", ".sha1", ".sha256", ".sha512", ".sig", ".sum"];
/// Begins the names under which macOS keeps what it knows of a file beside it.
const APPLE_DOUBLE: &str = "._";
/// Endings of data.
const DATA: [&str; 3] = [".ndjson", ".jsonl", ".json"];
/// Words of a name that are no patient's, beside the names of types.
const WORDS: [&str; 13] = ["manifest", "ndjson", "jsonl", "json", "gz", "zst", "tmp", "part", "filepart", "crdownload", "output", "deleted", "error"];
/// Digits of a number in a name that only counts files, or is part of a date; longer ones may be a patient's.
const COUNTER_DIGITS_MAX: usize = 4;
/// Characters of a digest that are enough to tell files apart for people, and for the ledger.
const SHOWN_CHARS: usize = 8;
const KEY_CHARS: usize = 32;

/// Whether a file can be read, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds data.
    Data,
    /// It says what data there should be.
    Manifest,
    /// It is being written.
    Unfinished,
    /// Data with something done to them that is not known here.
    UnknownEnding,
    /// It cannot be followed, file or folder.
    Blocked(Block),
}

/// A file as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Where it is; not for people, as it may name a patient.
    pub path: PathBuf,
    /// Its name below the folder where that is a plain one, else a digest of it.
    pub name: String,
    /// The type that its name names.
    pub resource_type: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// Whether it can be read.
    pub state: State,
    /// Its name as the ledger has it.
    pub(super) key: String,
    /// The night that its path names.
    pub(super) night: Option<String>,
    modified: Option<SystemTime>,
}

impl Dropped {
    fn find(folder: &Path, path: PathBuf, types: &BTreeSet<String>) -> Option<Dropped> {
        let state = state(&path)?;
        // What vanishes meanwhile is noticed at the end; what is no file, a pipe for example, cannot be read twice.
        let found = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Dropped { bytes: found.len(), modified: found.modified().ok(), ..Dropped::named(folder, path, state, types) })
    }

    fn named(folder: &Path, path: PathBuf, state: State, types: &BTreeSet<String>) -> Dropped {
        let relative = path.strip_prefix(folder).unwrap_or(&path);
        let digest = sha256_hex(relative.as_os_str().as_encoded_bytes());
        let (name, resource_type) = shown(relative, types, digest.get(..SHOWN_CHARS).unwrap_or_default());
        let key = digest.get(..KEY_CHARS).unwrap_or_default().to_owned();
        Dropped { name, resource_type, bytes: 0, state, key, night: night(relative), modified: None, path }
    }

    /// Whether it is read, for these types: of lines the name is believed, documents are mixed.
    pub fn is_read(&self, types: &BTreeSet<String>) -> bool {
        kind(&self.path) == Some(Kind::Document) || self.resource_type.as_ref().is_none_or(|name| types.contains(name))
    }

    /// Whether it is no longer what was found.
    pub(super) fn has_changed(&self) -> bool {
        std::fs::metadata(&self.path).map_or(true, |now| now.len() != self.bytes || now.modified().ok() != self.modified)
    }

    /// Whether it is one document: a Bundle or a resource.
    pub(super) fn is_document(&self) -> bool {
        kind(&self.path) == Some(Kind::Document)
    }

    /// SHA-256 of its bytes.
    pub(super) fn digest(&self) -> std::io::Result<String> {
        let mut file = std::fs::File::open(&self.path)?;
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hex(context.finish().as_ref())),
                Ok(length) => context.update(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a folder holds.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Files of data, and what may hold some and cannot be followed; sorted by name.
    pub files: Vec<Dropped>,
    /// Links that lead back to where they lie.
    pub(super) loops: Vec<Dropped>,
    /// How many others there are.
    pub passed_over: u64,
}

impl Listing {
    /// Files that a later look found changed, gone or new.
    pub(super) fn changes<'a>(&'a self, later: &'a Listing) -> impl Iterator<Item = &'a Dropped> {
        let changed = self.files.iter().filter(move |file| later.at(&file.path) != Some(*file));
        changed.chain(later.files.iter().filter(move |file| self.at(&file.path).is_none()))
    }

    fn at(&self, path: &Path) -> Option<&Dropped> {
        let at = self.files.binary_search_by(|file| file.path.as_path().cmp(path)).ok()?;
        self.files.get(at)
    }
}

/// Looks what is in a folder. Folders whose name begins with a dot are left alone: they hold copies of old files.
pub fn look(folder: &Path) -> Result<Listing, FolderError> {
    if !folder.is_dir() {
        return Err(fault(folder, if folder.exists() { "it is no folder" } else { "it does not exist" }));
    }
    let is_wanted = |path: &Path, is_folder: bool| !is_folder || path == folder || !is_hidden(path);
    let walk = Walk::below(folder, &is_wanted).map_err(|error| {
        let is_top = error.path == folder.display().to_string();
        // A name below it may be a patient's.
        fault(folder, if is_top { error.reason } else { format!("something below it: {}", error.reason) })
    })?;
    let types = types();
    let found = (walk.files.len() + walk.blocked.len()) as u64;
    let blocked = walk.blocked.into_iter().filter(|(path, _)| may_be_data(path));
    let (loops, blocked): (Vec<Dropped>, Vec<Dropped>) = blocked
        .map(|(path, block)| Dropped::named(folder, path, State::Blocked(block), &types))
        .partition(|found| found.state == State::Blocked(Block::Loop));
    let mut files: Vec<Dropped> = walk.files.into_iter().filter_map(|path| Dropped::find(folder, path, &types)).chain(blocked).collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    if files.iter().all(|file| file.state == State::Manifest) {
        return Err(fault(folder, format!("it holds no data ({found} other files); files of {} are read, compressed by .gz or .zst or not", DATA.join(", "))));
    }
    Ok(Listing { passed_over: found - files.len() as u64, files, loops })
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether what cannot be followed may be data, or a folder of them.
fn may_be_data(path: &Path) -> bool {
    !is_hidden(path) && (path.extension().is_none() || path.is_dir() || state(path).is_some())
}

/// Whether a file tells of the one beside it, as a checksum does.
pub(super) fn is_beside(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    BESIDE.iter().any(|ending| name.ends_with(ending)) || (name.starts_with(APPLE_DOUBLE) && kind(path).is_some())
}

/// What a name tells; nothing for files that are no data.
fn state(path: &Path) -> Option<State> {
    if is_beside(path) {
        return None;
    }
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let has_data = DATA.iter().any(|ending| name.contains(ending));
    if UNFINISHED.iter().any(|ending| name.ends_with(ending)) || (name.starts_with('.') && has_data) {
        return Some(State::Unfinished);
    }
    if name == LOG || name.starts_with('.') {
        return None;
    }
    if name == MANIFEST {
        return Some(State::Manifest);
    }
    match kind(path) {
        Some(_) => Some(State::Data),
        None => (has_data || PACKED.iter().any(|ending| name.ends_with(ending))).then_some(State::UnknownEnding),
    }
}

/// The parts of a name.
pub(super) fn pieces(name: &str) -> impl Iterator<Item = &str> {
    name.split(['.', '-', '_']).filter(|piece| !piece.is_empty())
}

/// Whether a part of a name counts files, or is part of a date.
pub(super) fn is_counter(piece: &str) -> bool {
    piece.len() <= COUNTER_DIGITS_MAX && piece.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether nothing in a name can be a patient's.
pub(super) fn is_plain(name: &str, types: &BTreeSet<String>) -> bool {
    pieces(name).all(|piece| types.contains(piece) || WORDS.contains(&piece) || is_counter(piece))
}

/// The types that names may name.
pub(super) fn types() -> BTreeSet<String> {
    crate::cql::model::Models::default().fhir().retrievable_names().map(str::to_owned).collect()
}

/// Of a file of data that cannot be read: why, and the type that its name names.
pub(super) fn unread(path: &Path) -> Option<(&'static str, Option<String>)> {
    let why = match state(path).filter(|_| kind(path).is_none())? {
        State::Data | State::Manifest | State::Blocked(_) => return None,
        State::Unfinished => "it is being written, or was left unfinished: bring it to its end, or remove it",
        State::UnknownEnding => "it is packed as nothing here can unpack it: unpack it, or pack it as .gz or .zst",
    };
    Some((why, shown(Path::new(path.file_name()?), &types(), "").1))
}

/// A name for people, and the type that it names. A name with anything but types, endings and counters in it may be a
/// patient's, and its digest is shown.
fn shown(relative: &Path, types: &BTreeSet<String>, digest: &str) -> (String, Option<String>) {
    let parts: Option<Vec<&str>> = relative.components().map(|part| if let Component::Normal(name) = part { name.to_str() } else { None }).collect();
    let parts = parts.unwrap_or_default();
    let named: BTreeSet<String> = parts
        .last()
        .into_iter()
        .flat_map(|name| pieces(name))
        .filter(|piece| types.contains(*piece))
        .map(str::to_owned)
        .collect();
    // These hold others.
    let resource_type = named.first().filter(|name| named.len() == 1 && !matches!(name.as_str(), "Bundle" | "Parameters")).cloned();
    let name = match &resource_type {
        _ if (!named.is_empty() || parts.last() == Some(&MANIFEST)) && parts.iter().all(|part| is_plain(part, types)) => parts.join("/"),
        Some(resource_type) => format!("file #{digest} ({resource_type})"),
        None => format!("file #{digest}"),
    };
    (name, resource_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_that_cannot_be_a_patients() {
        let types: BTreeSet<String> = ["Patient", "Observation", "Bundle"].map(str::to_owned).into();
        let cases = [
            ("Observation.ndjson", "Observation.ndjson", Some("Observation")),
            ("2026-03-02/1.Patient.000.ndjson.gz", "2026-03-02/1.Patient.000.ndjson.gz", Some("Patient")),
            ("Bundle.json", "Bundle.json", None),
            ("Patient.4711815.ndjson", "file #abc (Patient)", Some("Patient")),
            ("Observation-of-Smith.ndjson", "file #abc (Observation)", Some("Observation")),
            ("Smith/Patient.ndjson", "file #abc (Patient)", Some("Patient")),
            ("0001.json", "file #abc", None),
            (".Observation.ndjson.Xa7Yb1", "file #abc (Observation)", Some("Observation")),
        ];
        for (path, name, resource_type) in cases {
            assert_eq!(shown(Path::new(path), &types, "abc"), (name.to_owned(), resource_type.map(str::to_owned)), "{path}");
        }
    }

    #[test]
    fn what_a_name_tells_of_a_file() {
        let cases = [
            ("Observation.ndjson", Some(State::Data)),
            ("Observation.NDJSON.gz", Some(State::Data)),
            ("a.json.zst", Some(State::Data)),
            ("Observation.ndjson.part", Some(State::Unfinished)),
            ("x.tmp", Some(State::Unfinished)),
            (".Observation.ndjson.Xa7Yb1", Some(State::Unfinished)),
            ("Observation.ndjson.bz2", Some(State::UnknownEnding)),
            ("Encounter.000.zip", Some(State::UnknownEnding)),
            ("log.ndjson", None),
            ("manifest.json", Some(State::Manifest)),
            (".metadata", None),
            ("README.txt", None),
            ("Encounter.ndjson.sha256", None),
            ("Encounter.ndjson.gz.md5", None),
            ("._Encounter.ndjson", None),
            ("Thumbs.db", None),
            ("_SUCCESS", None),
        ];
        for (name, expected) in cases {
            assert_eq!(state(Path::new(name)), expected, "{name}");
        }
    }
}
