//! One dropped file, read piece by piece: its resources, and those in its Bundles, one after the other.

use std::collections::BTreeMap;
use std::io::{BufRead, ErrorKind, Read as _};

use super::listing::Dropped;
use super::whole::{Page, refusal};
use super::{DOCUMENT_BYTES_MAX, UTF_16, open, opening, packing};
use crate::fhir::compartment::Head;
use crate::fhir::ndjson::{Event, Pushed};
use crate::source::duty::{Code, Why};
use crate::source::search::{Bundle, Item, id_and_time, worst_issue};

/// Largest expansion of a compressed file; FHIR's lines are much alike.
const INFLATION_MAX: u64 = 1_000;
/// Bytes that may come out of a compressed file whatever went in.
const INFLATION_FREE_BYTES: u64 = 1 << 20;
/// Deepest nesting of Bundles: several questions may be asked at once.
const BUNDLES_DEPTH_MAX: usize = 4;

/// What a file holds.
pub(super) enum Met<'a> {
    /// A resource.
    Resource { json: &'a [u8], number: u64 },
    /// A line that is too long.
    TooLong { number: u64, length: u64, start: &'a [u8] },
    /// A Bundle that cannot be read.
    Unreadable { json: &'a [u8], number: u64 },
    /// An entry of a Bundle with nothing in it.
    Empty { number: u64 },
    /// Type and id of what is gone, and when it went, in microseconds since 1970.
    Gone { resource_type: &'a str, id: &'a str, at: Option<i64> },
    /// What made the file says that something is missing.
    Complaint(Why),
    /// The end of a Bundle, which may be a page of a search, with the types in it.
    Page { page: Page, types: Vec<String>, number: u64 },
    /// A document that does not say of which type it is.
    Untyped { json: &'a [u8] },
}

/// Why a file is not read on.
pub(super) enum Broken<E> {
    /// It is not whole, and why.
    Cut(Why),
    /// Whoever takes what it holds cannot go on.
    Taker(E),
}

/// A file that is being read.
pub(super) struct Reading<'f> {
    file: &'f Dropped,
    is_compressed: bool,
    input: Box<dyn BufRead + Send>,
    lines: Pushed,
    plain: u64,
}

impl Reading<'_> {
    /// Opens it.
    pub fn open(file: &Dropped) -> Result<Reading<'_>, Why> {
        let is_compressed = packing(&file.path).is_some();
        if file.bytes == 0 && is_compressed {
            return Err(Why::new(Code::CutShort, "it is cut short: nothing is in it, not even an end"));
        }
        let input = open(&file.path).map_err(|error| Why::new(Code::Unreadable, format!("it cannot be read: {}", error.reason)))?;
        Ok(Reading { file, is_compressed, input, lines: Pushed::default(), plain: 0 })
    }

    /// Reads a piece of it; false when that was the last.
    pub fn step<E>(&mut self, mut each: impl FnMut(Met<'_>) -> Result<(), E>) -> Result<bool, Broken<E>> {
        if self.file.is_document() {
            return self.document(&mut each).map(|()| false);
        }
        let length = {
            let piece = match self.input.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
                Err(error) => return Err(Broken::Cut(cut(self.is_compressed, &error))),
            };
            if self.plain == 0 {
                encoded(piece).map_err(Broken::Cut)?;
            }
            self.lines.push(piece, |event| line(event, &mut each))?;
            piece.len()
        };
        self.input.consume(length);
        self.plain += length as u64;
        if self.is_compressed && self.plain > self.file.bytes.saturating_mul(INFLATION_MAX).max(INFLATION_FREE_BYTES) {
            return Err(Broken::Cut(Why::new(Code::Unreadable, "its compression inflates too far")));
        }
        if length > 0 {
            return Ok(true);
        }
        std::mem::take(&mut self.lines).finish(|event| match event {
            Event::Text { bytes, .. } if !is_json(bytes) => Err(Broken::Cut(Why::new(Code::CutShort, "it is cut short: it ends in the middle of a line"))),
            event => line(event, &mut each),
        })?;
        Ok(false)
    }

    fn document<E>(&mut self, each: &mut impl FnMut(Met<'_>) -> Result<(), E>) -> Result<(), Broken<E>> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        if read.map_err(|error| Broken::Cut(cut(self.is_compressed, &error)))? as u64 > DOCUMENT_BYTES_MAX {
            return Err(Broken::Cut(Why::new(Code::Unreadable, "it is larger than 2 GiB; have it written as NDJSON")));
        }
        encoded(&bytes).map_err(Broken::Cut)?;
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii();
        if !is_json(text) {
            return Err(Broken::Cut(Why::new(Code::CutShort, "it is cut short, or no JSON")));
        }
        if let Some(why) = opening(text) {
            return Err(Broken::Cut(Why::new(Code::Unreadable, why)));
        }
        match Head::read(text) {
            Some(head) if head.resource_type.is_none() => each(Met::Untyped { json: text }),
            _ => resource(text, None, each),
        }
        .map_err(Broken::Taker)
    }
}

/// Why a file that begins so is not read: JSON is UTF-8.
fn encoded(start: &[u8]) -> Result<(), Why> {
    let is_utf_16 = UTF_16.iter().any(|mark| start.starts_with(mark));
    if is_utf_16 { Err(Why::new(Code::Unreadable, "it is UTF-16; have it written in UTF-8")) } else { Ok(()) }
}

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

fn cut(is_compressed: bool, error: &std::io::Error) -> Why {
    match error.kind() {
        ErrorKind::UnexpectedEof if is_compressed => Why::new(Code::CutShort, "it is cut short: its compression has no end"),
        _ if is_compressed => Why::new(Code::CutShort, "it is cut short or damaged: its compression is broken"),
        _ => Why::new(Code::Unreadable, format!("it cannot be read: {error}")),
    }
}

fn line<E>(event: Event<'_>, each: &mut impl FnMut(Met<'_>) -> Result<(), E>) -> Result<(), Broken<E>> {
    match event {
        Event::Text { number, bytes } => match opening(bytes).filter(|_| number == 1) {
            Some(why) => return Err(Broken::Cut(Why::new(Code::Unreadable, why))),
            None => resource(bytes, Some(number), each),
        },
        Event::TooLong { number, length, start } => each(Met::TooLong { number, length, start }),
    }
    .map_err(Broken::Taker)
}

/// What a history has told so far, the newest first: when a resource was there last, by type and id, and when it went.
#[derive(Default)]
struct History {
    there: BTreeMap<(String, String), Option<i64>>,
    gone: BTreeMap<(String, String), Option<i64>>,
}

impl History {
    /// Whether what an entry says holds: not where a newer one says the opposite, unless times of both tell which is the newer.
    fn holds(&mut self, named: (String, String), is_there: bool, at: Option<i64>) -> bool {
        let (own, opposite) = if is_there { (&mut self.there, &self.gone) } else { (&mut self.gone, &self.there) };
        let holds = opposite.get(&named).is_none_or(|newer| newer.is_some() && at.is_some());
        own.entry(named).or_insert(at);
        holds
    }
}

fn is_of(json: &[u8], name: &str) -> bool {
    memchr::memmem::find(json, name.as_bytes()).is_some() && Head::read(json).and_then(|head| Head::text(head.resource_type)).as_deref() == Some(name)
}

/// A resource, or what a Bundle holds; counted by its line, or by the entry where the Bundle is all of the file.
fn resource<E>(json: &[u8], line: Option<u64>, each: &mut impl FnMut(Met<'_>) -> Result<(), E>) -> Result<(), E> {
    let number = line.unwrap_or(1);
    if is_of(json, "OperationOutcome") {
        let worst = std::str::from_utf8(json).ok().and_then(worst_issue);
        return worst.map_or(Ok(()), |worst| each(Met::Complaint(worst)));
    }
    if is_of(json, "Bundle") { bundle(json, line, 0, each) } else { each(Met::Resource { json, number }) }
}

fn bundle<E>(json: &[u8], line: Option<u64>, depth: usize, each: &mut impl FnMut(Met<'_>) -> Result<(), E>) -> Result<(), E> {
    let Some(read) = Bundle::read(json).filter(|_| depth < BUNDLES_DEPTH_MAX) else { return each(Met::Unreadable { json, number: line.unwrap_or(1) }) };
    let entries = read.entries();
    let link = |relation| read.link(relation).map(str::to_owned);
    let mut page = Page { own: link("self"), next: link("next"), total: read.total(), matches: 0 };
    let (mut types, mut history): (Vec<String>, History) = (Vec::new(), History::default());
    for (entry, (item, is_match)) in (1..).zip(read.items("").zip(read.matches())) {
        let number = line.unwrap_or(entry);
        let resolved;
        each(match item {
            Item::Match(json) | Item::Include(json, _) if is_of(json.as_bytes(), "Bundle") => {
                bundle(json.as_bytes(), Some(number), depth + 1, each)?;
                continue;
            }
            Item::Match(json) | Item::Include(json, _) => {
                page.matches += u64::from(is_match);
                let named = Head::read(json.as_bytes()).and_then(|head| Head::text(head.resource_type));
                let (id, at) = if read.is_history() { id_and_time(json) } else { (None, None) };
                if let (Some(named), Some(id)) = (&named, id)
                    && !history.holds((named.clone(), id), true, at)
                {
                    continue;
                }
                types.extend(named.filter(|name| !types.contains(name)));
                resolved = entries.resolve(json.as_bytes());
                Met::Resource { json: &resolved, number }
            }
            Item::Deleted(resource_type, id, at) => {
                page.matches += 1;
                if read.is_history() && !history.holds((resource_type.to_owned(), id.to_owned()), false, at) {
                    continue;
                }
                Met::Gone { resource_type, id, at }
            }
            Item::Failed(status) => match refusal(status).filter(|refusal| refusal.is_gap) {
                Some(refusal) => Met::Complaint(Why::new(Code::Reported, refusal.words)),
                None => continue,
            },
            Item::Empty => Met::Empty { number },
            Item::Outcome(json) => match worst_issue(json) {
                Some(worst) => Met::Complaint(worst),
                None => continue,
            },
        })?;
    }
    each(Met::Page { page, types, number: line.unwrap_or(0) })
}
