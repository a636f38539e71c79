//! The files of an import: which there are, whether they are whole, and their rows one after the other.

use super::{Import, row};
use crate::diagnostic::nearest;
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::folder::{UNFINISHED, UTF_16};
use aws_lc_rs::digest::Context;
use csv::ByteRecord;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of one row; a longer one has a quotation mark without its end.
const ROW_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once of a file whose digest is taken.
const BUFFER_BYTES: usize = 128 << 10;
/// Files of one import.
const FILES_MAX: usize = 10_000;
const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";
/// What most letters with a mark become where their UTF-8 is taken for Latin-1.
const MOJIBAKE: char = 'Ã';
const CUT: &str = "it is cut short: its last row has no end of line, which it had before, and may lack the end of its last cell; have it written anew, or, if it is \
                   whole, `watershed import --accept-loss`";

/// One file.
pub(super) struct Table {
    path: PathBuf,
    /// What it is called for people, of whom its name may tell nothing.
    pub shown: String,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// A file that was read to its end.
pub(super) struct Whole {
    /// SHA-256 of all that was read.
    pub sha256: String,
    /// Its last row had its end of line.
    pub is_ended: bool,
}

/// A row as it stands in a file.
pub(super) struct Line<'a> {
    /// From 1, the heading included.
    pub number: u64,
    /// The cells of the declared columns without surrounding space; or why they cannot be told.
    pub cells: Result<Vec<&'a str>, String>,
    /// All its cells.
    pub raw: Vec<u8>,
}

/// Why a file is not read to its end.
pub(super) enum Stop {
    /// It is not whole, or not as declared.
    Gap(Why),
    /// Whoever takes its rows cannot go on.
    Taker(SourceError),
}

fn gap(text: impl Into<String>) -> Why {
    Why::new(Code::Import, text)
}

/// The files of an import in order of their names, and why these are not all or none.
pub(super) fn find(import: &Import) -> (Vec<Table>, Option<Why>) {
    let missing = || gap(format!("there is no file `{}`", import.file));
    let (Some(folder), Some(name)) = (import.path.parent(), import.path.file_name().and_then(|name| name.to_str())) else { return (Vec::new(), Some(missing())) };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), Some(missing())),
        Err(error) => return (Vec::new(), Some(gap(format!("the folder of `{}` cannot be read: {error}", import.file)))),
    };
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let is_unfinished = names.iter().any(|found| finished(found).is_some_and(|whole| matches(name, whole)));
    let mut found: Vec<&String> = names.iter().filter(|found| matches(name, found) && finished(found).is_none()).collect();
    found.sort();
    let count = found.len();
    let tables: Vec<Table> = found
        .iter()
        .enumerate()
        .filter_map(|(number, found)| Table::open(folder, found, shown(import, number, count)))
        .collect();
    let why = match tables.len() {
        _ if is_unfinished => Some(gap(format!("a file of `{}` is being written, by its name", import.file))),
        0 => Some(missing()),
        count if count > FILES_MAX => Some(gap(format!("{count} files are as `{}`, at most {FILES_MAX} are read", import.file))),
        _ => None,
    };
    (if tables.len() > FILES_MAX { Vec::new() } else { tables }, why)
}

/// Whether a file is read by both.
pub(super) fn share_a_file(one: &Import, other: &Import) -> bool {
    let files = |import: &Import| find(import).0.iter().filter_map(|table| table.path.canonicalize().ok()).collect::<BTreeSet<_>>();
    one.path == other.path || !files(one).is_disjoint(&files(other))
}

fn shown(import: &Import, number: usize, count: usize) -> String {
    // What stands for a `*` may be a patient's.
    if import.file.contains('*') { format!("file {} of {count} as `{}`", number + 1, import.file) } else { format!("`{}`", import.file) }
}

/// The name that a file will have when it is whole, where it is being written.
fn finished(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    let ending = UNFINISHED.iter().find(|ending| lower.ends_with(**ending));
    match (ending, name.strip_prefix('.')) {
        (Some(ending), _) => name.get(..name.len() - ending.len()).map(|whole| whole.strip_prefix('.').unwrap_or(whole)),
        // As rsync does: `.clabsi.csv.X7ab`.
        (None, Some(hidden)) => Some(hidden.rsplit_once('.').map_or(hidden, |(whole, last)| if last.eq_ignore_ascii_case("csv") { hidden } else { whole })),
        (None, None) => None,
    }
}

/// Whether a name is as a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    (0..=name.len()).filter_map(|at| name.get(at..)).any(|tail| matches(rest, tail))
}

impl Table {
    fn open(folder: &Path, name: &str, shown: String) -> Option<Table> {
        let path = folder.join(name);
        let found = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Table { path, shown, bytes: found.len(), modified: found.modified().ok() })
    }

    fn has_changed(&self) -> bool {
        std::fs::metadata(&self.path).map_or(true, |now| now.len() != self.bytes || now.modified().ok() != self.modified)
    }

    /// Why it cannot be used, with its name.
    fn stop(&self, text: impl AsRef<str>) -> Stop {
        Stop::Gap(gap(format!("{}: {}", self.shown, text.as_ref())))
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let (mut context, mut buffer) = (row::begin(), vec![0; BUFFER_BYTES]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(row::finish(context)),
                Ok(count) => context.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands over row by row. A last row without its end of line is none where such files were `ended`: a part of its last cell may be a
    /// value too.
    pub fn read(&self, import: &Import, ended: bool, each: &mut dyn FnMut(Line<'_>) -> Result<(), SourceError>) -> Result<Whole, Stop> {
        let cannot = |error: &io::Error| match error.kind() {
            io::ErrorKind::FileTooLarge => self.stop("a row is longer than 1 MiB, as where a quotation mark has no end"),
            _ => self.stop(format!("it cannot be read: {error}")),
        };
        let tap = Tap::open(&self.path, import.delimiter).map_err(|error| cannot(&error))?;
        let mut reader = csv::ReaderBuilder::new().delimiter(import.delimiter).flexible(true).has_headers(false).from_reader(tap);
        let mut record = ByteRecord::new();
        let mut heading: Option<Heading> = None;
        let mut is_short = false;
        loop {
            reader.get_mut().left = ROW_BYTES_MAX;
            match reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let text = error.to_string();
                    return Err(if let csv::ErrorKind::Io(error) = error.into_kind() { cannot(&error) } else { self.stop(text) });
                }
            }
            let end = reader.position().byte();
            let tap = reader.get_mut();
            let last_line = tap.line_of(end);
            if let Some(fault) = tap.quotes.fault(last_line) {
                return Err(self.stop(fault));
            }
            let Some(heading) = &heading else {
                heading = Some(Heading::read(&record, import).map_err(|text| self.stop(text))?);
                continue;
            };
            if record.iter().all(|cell| cell.trim_ascii().is_empty()) {
                continue;
            }
            is_short = record.len() < heading.count;
            if ended && !reader.get_ref().is_ended() {
                break;
            }
            let number = last_line.saturating_sub(inner_lines(&record));
            each(Line { number, cells: heading.cells(&record, import), raw: raw(&record, import.delimiter) }).map_err(Stop::Taker)?;
        }
        let tap = reader.into_inner();
        match heading {
            None => Err(self.stop("it is empty: it has not even a heading")),
            Some(_) if self.has_changed() => Err(self.stop("it is being written: it changed while it was read")),
            Some(_) if is_short && !tap.is_ended() => Err(self.stop("it is cut short: it ends in the middle of a row")),
            Some(_) if ended && !tap.is_ended() => Err(self.stop(CUT)),
            Some(_) => Ok(Whole { is_ended: tap.is_ended(), sha256: row::finish(tap.context) }),
        }
    }
}

/// Line ends within cells.
fn inner_lines(record: &ByteRecord) -> u64 {
    memchr::memchr_iter(b'\n', record.as_slice()).count() as u64
}

fn raw(record: &ByteRecord, delimiter: u8) -> Vec<u8> {
    record.iter().collect::<Vec<_>>().join(&delimiter)
}

/// Where the declared columns stand.
struct Heading {
    count: usize,
    places: Vec<usize>,
}

impl Heading {
    /// What is wrong with it tells nothing of what it holds, which may be a patient's where there is none.
    fn read(record: &ByteRecord, import: &Import) -> Result<Heading, String> {
        let first = record.get(0).unwrap_or_default();
        if UTF_16.iter().any(|mark| first.starts_with(mark)) || first.contains(&0) {
            return Err("it is UTF-16; have it saved as CSV in UTF-8".to_owned());
        }
        if record.iter().any(|cell| std::str::from_utf8(cell).is_err()) {
            return Err("its heading is not UTF-8, but Latin-1 or another encoding; have it saved as CSV in UTF-8".to_owned());
        }
        let names: Vec<&str> = record
            .iter()
            .map(|cell| std::str::from_utf8(cell.strip_prefix(UTF_8_MARK).unwrap_or(cell)).unwrap_or_default().trim())
            .collect();
        let mut places = Vec::new();
        let mut wrong = Vec::new();
        for column in &import.columns {
            let name = column.name.trim();
            let mut at = names.iter().enumerate().filter(|(_, found)| **found == name).map(|(at, _)| at);
            match (at.next(), at.next()) {
                (Some(at), None) => places.push(at),
                (Some(_), Some(_)) => wrong.push(format!("has `{name}` twice")),
                (None, _) => {
                    let near = nearest(name, names.iter().copied()).map_or("", |_| " (another is near it: was it renamed?)");
                    wrong.push(format!("has no column `{name}`{near}"));
                }
            }
        }
        if wrong.is_empty() { Ok(Heading { count: names.len(), places }) } else { Err(format!("its heading {}{}", wrong.join(", "), hint(&names, import))) }
    }

    fn cells<'a>(&self, record: &'a ByteRecord, import: &Import) -> Result<Vec<&'a str>, String> {
        if record.len() != self.count {
            return Err(format!("{} cells where the heading has {}", record.len(), self.count));
        }
        let cell = |(at, column): (&usize, &super::Column)| {
            let text = std::str::from_utf8(record.get(*at).unwrap_or_default());
            text.map(str::trim).map_err(|_| format!("column `{}`: not UTF-8, as which the table should be saved", column.name))
        };
        self.places.iter().zip(&import.columns).map(cell).collect()
    }
}

/// Another delimiter than the declared one is seen in a heading of one column; letters that were taken for those of another encoding
/// are seen in what became of them.
fn hint(names: &[&str], import: &Import) -> &'static str {
    let other = |delimiter: char| delimiter as u32 != u32::from(import.delimiter) && names.iter().any(|name| name.contains(delimiter));
    match names.len() {
        1 if other(';') => "; its cells are parted by `;`: `delimiter: \";\"`",
        1 if other('\t') => "; its cells are parted by tabs: `delimiter: \"\\t\"`",
        1 if other(',') => "; its cells are parted by `,`: leave `delimiter` out",
        _ if names.iter().any(|name| name.contains(MOJIBAKE)) => "; its letters seem to have been taken for Latin-1 on the way: have it saved as CSV in UTF-8",
        _ => "",
    }
}

/// A file with its digest, and a bound on what is read for one row.
struct Tap {
    file: File,
    context: Context,
    left: usize,
    last: u8,
    read: u64,
    /// Line ends before a row that was asked for, and where those are that come after it: a reader of CSV passes over empty lines
    /// and does not count alike what `\n` and `\r\n` end.
    passed: u64,
    ahead: VecDeque<u64>,
    quotes: Quotes,
}

impl Tap {
    fn open(path: &Path, delimiter: u8) -> io::Result<Tap> {
        let quotes = Quotes::new(delimiter);
        Ok(Tap { file: File::open(path)?, context: row::begin(), left: ROW_BYTES_MAX, last: b'\n', read: 0, passed: 0, ahead: VecDeque::new(), quotes })
    }

    /// Not at the end of a file within a row.
    fn is_ended(&self) -> bool {
        !self.quotes.is_at_end || matches!(self.last, b'\n' | b'\r')
    }

    /// The line in which a row ends, of which this is the first byte after its own end of line.
    fn line_of(&mut self, end: u64) -> u64 {
        while self.ahead.front().is_some_and(|at| at + 1 < end) {
            self.ahead.pop_front();
            self.passed += 1;
        }
        self.passed + 1
    }
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left);
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Err(io::ErrorKind::FileTooLarge.into()) };
        let count = self.file.read(buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        self.quotes.follow(read);
        self.context.update(read);
        self.left -= count;
        self.ahead.extend(memchr::memchr_iter(b'\n', read).map(|at| self.read + at as u64));
        self.read += count as u64;
        self.last = read.last().copied().unwrap_or(self.last);
        Ok(count)
    }
}

/// Where a table's quotation marks open and close. One without its end takes all rows after it into a cell, and a reader of CSV
/// does not say so.
struct Quotes {
    delimiter: u8,
    state: Quote,
    line: u64,
    /// Where the last one opened, and whether a line ended since.
    opened: u64,
    is_over_lines: bool,
    /// Where one opened after whose end text goes on, lines later, and where that is.
    broken: Option<(u64, u64)>,
    is_at_end: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Quote {
    /// At the beginning of a cell.
    Before,
    /// In a cell without.
    Outside,
    Inside,
    /// After one within a cell, which is its end or the first half of two.
    After,
}

impl Quotes {
    fn new(delimiter: u8) -> Quotes {
        Quotes { delimiter, state: Quote::Before, line: 1, opened: 0, is_over_lines: false, broken: None, is_at_end: false }
    }

    /// Goes on with what was read; nothing is the end of the file.
    fn follow(&mut self, read: &[u8]) {
        self.is_at_end = read.is_empty();
        for byte in read {
            self.state = match (self.state, byte) {
                (Quote::Before, b'"') => {
                    (self.opened, self.is_over_lines) = (self.line, false);
                    Quote::Inside
                }
                (Quote::After, b'"') => Quote::Inside,
                (Quote::Inside, b'"') => Quote::After,
                (Quote::Inside, byte) => {
                    self.is_over_lines |= matches!(byte, b'\n' | b'\r');
                    Quote::Inside
                }
                (_, b'\n' | b'\r') => Quote::Before,
                (_, byte) if *byte == self.delimiter => Quote::Before,
                (Quote::After, b' ') => Quote::After,
                (Quote::After, _) if self.is_over_lines => {
                    self.broken.get_or_insert((self.opened, self.line));
                    Quote::Outside
                }
                (Quote::Before, b'\xef' | b'\xbb' | b'\xbf') if self.line == 1 => Quote::Before,
                _ => Quote::Outside,
            };
            self.line += u64::from(*byte == b'\n');
        }
    }

    /// Why a row that ends in this line is not to be believed.
    fn fault(&self, line: u64) -> Option<String> {
        let help = "close it; a quotation mark within a cell is written twice";
        match self.broken {
            Some((opened, ends)) if opened <= line => Some(format!("a quotation mark opens in line {opened}, and after the next one, in line {ends}, text goes on: {help}")),
            None if self.is_at_end && self.state == Quote::Inside && self.opened <= line => {
                Some(format!("a quotation mark opens in line {} and is never closed, which takes all rows after it into one cell: {help}", self.opened))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_names_of_files_that_are_being_written() {
        for (pattern, name, expected) in [
            ("a.csv", "a.csv", true),
            ("a.csv", "b.csv", false),
            ("a-*.csv", "a-2026-01.csv", true),
            ("a-*.csv", "a-.csv", true),
            ("a-*.csv", "a-1.csv.part", false),
            ("*-a-*.csv", "x-a-a-y.csv", true),
            ("*", "ü", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        for (name, expected) in
            [("a.csv", None), ("a.csv.part", Some("a.csv")), ("a.csv.TMP", Some("a.csv")), (".a.csv", Some("a.csv")), (".a.csv.X7ab", Some("a.csv")), (".a.csv.tmp", Some("a.csv"))]
        {
            assert_eq!(finished(name), expected, "{name}");
        }
    }
}
