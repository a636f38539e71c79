//! The files of an export: downloaded, unwrapped, split into lines, counted, and begun again when they broke off.

use super::manifest::{File, Kind, Manifest, Page};
use super::{Job, Trouble, broken, keep_manifest};
use crate::fhir::compartment::reference_target;
use crate::fhir::ndjson::{Event, Pushed};
use crate::http::{Download, HttpError, Origin, Request, Token};
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::intake::{Reason, tombstone};
use crate::source::ledger::{self, Unit};
use crate::source::pull::{Pull, Receiving};
use crate::source::search::{forbidden_type, worst_issue};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;
use reqwest::Method;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use url::Url;

/// A file of no more resources is small,
const SMALL_RESOURCES_MAX: u64 = 20;
/// and so many of them, of one type, are kept together.
const SMALL_FILES_TOGETHER: usize = 100;
/// Times a file is begun again.
const FILE_ATTEMPTS_MAX: u32 = 5;
/// Largest expansion of a compressed file.
const INFLATION_MAX: u64 = 200;
/// Bytes that may come out of a compressed file whatever went in.
const INFLATION_FREE_BYTES: u64 = 1 << 20;
/// Compressions within each other that are taken off.
const WRAPS_MAX: u32 = 2;
/// Parameters by which object stores recognise their own signature.
const PRESIGNED: [&str; 4] = ["X-Amz-Signature", "X-Goog-Signature", "Signature", "sig"];
/// First bytes of gzip; no JSON begins with them.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What became of a file.
enum Fetched {
    /// One of its own, and one for each type that it says may not be read.
    Units(Vec<Unit>),
    /// Its address is good no longer.
    Expired(u16),
}

/// Fetches the files that are not yet there. When addresses expire, the manifest is asked for fresh ones.
pub(super) async fn fetch_files(pull: &mut Pull<'_>, job: &mut Job, mut manifest: Manifest) -> Result<Manifest, Trouble> {
    let mut left = usize::MAX;
    loop {
        let tasks = tasks(pull, job, &manifest);
        let before = std::mem::replace(&mut left, tasks.len());
        let expired = fetch_some(pull, &manifest, tasks).await?;
        pull.done = ledger::done(pull.snapshot.store(), pull.id)?;
        let Some(status) = expired else {
            let prefix = format!("file {} ", job.id);
            let Some(why) = ledger::none_came(pull.snapshot.store(), pull.id, &prefix)? else { return Ok(manifest) };
            // Not one of them is to be had: that is as if there were no export.
            ledger::forget(pull.snapshot.store(), pull.id, &prefix)?;
            return Err(Trouble::Gap(why));
        };
        match refresh(pull, job, &mut manifest).await? {
            true if left < before => keep_manifest(pull, job, &manifest)?,
            // Fresh addresses, or the same again, are no better than the first ones.
            _ if matches!(status, 404 | 410) => return Err(Trouble::Lost("the server lost the files of an export")),
            _ => {
                let reason = format!("files were refused with status {status} by another origin, where our token must not go");
                return Err(Trouble::Gap(Why::new(Code::TokenOrigin, reason)));
            }
        }
    }
}

/// Files that are fetched and kept as one unit: one, or many small ones, so that twenty thousand of these are not as many
/// files to write and to make durable.
struct Task<'a> {
    name: String,
    files: Vec<(usize, &'a File)>,
}

/// What is to be fetched, and is not yet there. The manifest alone decides what is fetched together.
fn tasks<'a>(pull: &Pull<'_>, job: &Job, manifest: &'a Manifest) -> Vec<Task<'a>> {
    // Files of types that nobody asked for are not looked at: Provenance, or whatever a server adds on its own.
    let is_wanted = |file: &File| file.kind != Kind::Output || file.resource_type == "*" || pull.plan.types.contains(&file.resource_type);
    let mut tasks: Vec<Task<'a>> = Vec::new();
    let mut open: Option<&str> = None;
    for (number, file) in manifest.files.iter().enumerate().filter(|(_, file)| is_wanted(file)) {
        let small = (file.kind == Kind::Output && file.count.is_some_and(|count| count <= SMALL_RESOURCES_MAX)).then_some(file.resource_type.as_str());
        match tasks.last_mut().filter(|task| small.is_some() && small == open && task.files.len() < SMALL_FILES_TOGETHER) {
            Some(task) => task.files.push((number, file)),
            None => tasks.push(Task { name: format!("file {} {number}", job.id), files: vec![(number, file)] }),
        }
        open = small;
    }
    tasks.retain(|task| !pull.done.contains(&task.name));
    tasks
}

/// Fetches files, some at once; begins no further one after the first whose address has expired, and gives its status.
async fn fetch_some(pull: &Pull<'_>, manifest: &Manifest, tasks: Vec<Task<'_>>) -> Result<Option<u16>, Trouble> {
    pull.progress.stage("download", Some(tasks.len() as u64));
    let width = pull.source.options.requests_at_once.clamp(1, 32) as usize;
    let has_expired = &AtomicBool::new(false);
    let mut running = futures_util::stream::iter(tasks)
        .map(|task| async move { if has_expired.load(Ordering::Relaxed) { Ok(None) } else { fetch_task(pull, manifest, &task).await.map(Some) } })
        .buffer_unordered(width);
    let mut expired = None;
    while let Some(fetched) = running.next().await {
        match fetched? {
            Some(Fetched::Units(units)) => pull.record_together(&units)?,
            Some(Fetched::Expired(status)) => {
                has_expired.store(true, Ordering::Relaxed);
                expired = Some(status);
            }
            None => {}
        }
    }
    Ok(expired)
}

/// Asks for the manifest again, with fresh addresses. False when it is not the same export.
async fn refresh(pull: &Pull<'_>, job: &Job, manifest: &mut Manifest) -> Result<bool, Trouble> {
    let mut next = Url::parse(&job.status_url).ok();
    let mut fresh = Manifest::default();
    let mut seen = BTreeSet::new();
    while let Some(address) = next.take().filter(|address| pull.source.is_own(address) && seen.insert(address.to_string())) {
        let answer = pull.source.client.get(address, "application/json").await?;
        match answer.status {
            200 => {}
            404 | 410 => return Err(Trouble::Lost("the server lost the files of an export")),
            _ => return Ok(false),
        }
        let Ok(page) = Page::read(&answer.body, &answer.url, &pull.source.base) else { return Ok(false) };
        fresh.add(page.manifest).map_err(broken)?;
        next = page.next;
    }
    Ok(manifest.refresh(&fresh))
}

/// Fetches the files of a task, from the first again when one of them broke off.
async fn fetch_task(pull: &Pull<'_>, manifest: &Manifest, task: &Task<'_>) -> Result<Fetched, Trouble> {
    let Some((first, file)) = task.files.first() else { return Err(broken("nothing to fetch".to_owned())) };
    let is_output = file.kind == Kind::Output;
    let unit = Unit {
        name: task.name.clone(),
        // A message may be about any type, and so may a deletion.
        resource_type: if is_output { file.resource_type.clone() } else { "*".to_owned() },
        expected: task.files.iter().map(|(_, file)| file.count).sum::<Option<u64>>().filter(|_| is_output),
        server_time: manifest.time(),
        ..Unit::default()
    };
    let query = match task.files.len() {
        1 => format!("export file {}", first + 1),
        many => format!("export files {} to {}", first + 1, first + many),
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut receiving = pull.receive(unit.clone(), None)?;
        let (mut gap, mut is_final, mut forbidden) = (None, true, BTreeSet::new());
        for (number, file) in &task.files {
            receiving.unit.query = format!("export file {}", number + 1);
            let (reason, ends) = match fetch_file(pull, file, &mut receiving, &mut forbidden).await {
                Ok(reason) => (reason, file.kind == Kind::Error),
                Err(Broken::Expired(status)) => return Ok(Fetched::Expired(status)),
                Err(Broken::Again(reason)) => (Some(reason), false),
                Err(Broken::Final(reason)) => (Some(reason), true),
                Err(Broken::Fatal(error)) => return Err(error.into()),
            };
            is_final &= ends || reason.is_none();
            gap = gap.or(reason);
        }
        if gap.is_none() || is_final || attempt >= FILE_ATTEMPTS_MAX {
            receiving.unit.query = query;
            let unit = receiving.finish(gap)?;
            return Ok(Fetched::Units(with_forbidden(unit, forbidden)));
        }
        let wait = pull.source.wait(attempt);
        pull.source.say_waiting("a file of the export did not come whole", attempt, wait, pull.clock.now());
        pull.clock.sleep(wait).await;
    }
}

/// A unit, and a gap for each type that this client may not read: the unit itself has the first, so that it is fetched again when
/// another night goes on.
fn with_forbidden(unit: Unit, types: BTreeSet<String>) -> Vec<Unit> {
    let why = Why::new(Code::Forbidden, "the export's messages say that this client may not read it (forbidden)");
    let gap = |resource_type: String| Unit { name: format!("{} {resource_type}", unit.name), query: unit.query.clone(), resource_type, gap: Some(why.clone()), ..Unit::default() };
    let mut gaps: Vec<Unit> = types.into_iter().map(gap).collect();
    match gaps.first_mut().filter(|_| unit.gap.is_none()) {
        Some(first) => *first = Unit { resource_type: first.resource_type.clone(), gap: Some(why.clone()), ..unit.clone() },
        None => gaps.push(unit.clone()),
    }
    gaps
}

/// Fetches one file. Gives the server's complaint, or what is wrong with the number of its resources.
async fn fetch_file(pull: &Pull<'_>, file: &File, receiving: &mut Receiving<'_>, forbidden: &mut BTreeSet<String>) -> Result<Option<Why>, Broken> {
    let before = receiving.unit.received;
    let (address, answer) = open_at(pull, file).await?;
    let Complaints { worst, of_types } = download(pull, &address, answer, file, receiving).await?;
    forbidden.extend(of_types);
    Ok(worst.or_else(|| miscounted(file, receiving.unit.received - before)))
}

fn miscounted(file: &File, received: u64) -> Option<Why> {
    let count = file.count.filter(|count| *count != received && file.kind == Kind::Output)?;
    Some(Why::new(Code::Announced, format!("the manifest announced {count} and the file holds {received}")))
}

/// Why a download did not come to its end.
enum Broken {
    /// The address is good no longer.
    Expired(u16),
    /// It broke off.
    Again(Why),
    Final(Why),
    Fatal(SourceError),
}

impl From<SourceError> for Broken {
    fn from(error: SourceError) -> Broken {
        Broken::Fatal(error)
    }
}

impl From<HttpError> for Broken {
    fn from(error: HttpError) -> Broken {
        match error {
            error if error.ends_all() => Broken::Fatal(error.into()),
            // What the client has tried again and again is not tried again and again.
            HttpError::Unreachable { attempts: 2.., .. } | HttpError::TooLarge { .. } | HttpError::Refused { .. } => Broken::Final(error.into()),
            other => Broken::Again(other.into()),
        }
    }
}

/// Asks for a file where it is, or, if nothing is there, where its relative address leads from the base; what helps is remembered.
async fn open_at(pull: &Pull<'_>, file: &File) -> Result<(Url, Download), Broken> {
    let address = Url::parse(&file.url).map_err(|_| Broken::Final(Why::new(Code::File, "a file has no address")))?;
    let other = file
        .from_base
        .as_deref()
        .and_then(|other| Url::parse(other).ok())
        .filter(|other| Origin::of(other) == Origin::of(&address));
    let Some(other) = other else { return Ok((address.clone(), open_file(pull, &address, file.token).await?)) };
    let from_base = pull.habits.files_from_base();
    let is_from_base = from_base.load(Ordering::Relaxed);
    let (first, second) = if is_from_base { (other, address) } else { (address, other) };
    let answer = open_file(pull, &first, file.token).await?;
    if answer.status() != 404 {
        return Ok((first, answer));
    }
    // It takes the place of a request until it is let go.
    drop(answer);
    let found = open_file(pull, &second, file.token).await?;
    if !(200..300).contains(&found.status()) {
        return Err(Broken::Expired(404));
    }
    from_base.store(!is_from_base, Ordering::Relaxed);
    Ok((second, found))
}

/// Asks for a file. A presigned address is its own permission, whatever the manifest says; where the EHR itself refuses the
/// one way, the other one is tried once.
async fn open_file(pull: &Pull<'_>, address: &Url, requires_token: bool) -> Result<Download, HttpError> {
    let request = |token| Request { token, ..Request::new(Method::GET, address.clone()).header("accept", "application/fhir+ndjson") };
    let (first, other) = if requires_token && !is_presigned(address) { (Token::Allowed, Token::Never) } else { (Token::Never, Token::Allowed) };
    let answer = pull.source.client.download(request(first)).await;
    let refused = match &answer {
        Ok(answer) => matches!(answer.status(), 400 | 401 | 403),
        Err(error) => matches!(error, HttpError::Unauthorized { .. }),
    };
    if !refused || !pull.source.is_own(address) {
        return answer;
    }
    let error = answer.err(); // an answer would hold one of the connections
    let second = pull.source.client.download(request(other)).await;
    match (second, error) {
        (Ok(answer), Some(error)) if answer.status() == 401 => Err(error),
        (second, _) => second,
    }
}

/// Whether an address carries a signature of an object store.
fn is_presigned(address: &Url) -> bool {
    address.query_pairs().any(|(name, _)| PRESIGNED.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// What a file of messages complains of.
#[derive(Default)]
struct Complaints {
    worst: Option<Why>,
    /// Types that this client may not read.
    of_types: BTreeSet<String>,
}

/// Streams one file into its stage. Gives the server's complaints, for a file of messages.
async fn download(pull: &Pull<'_>, address: &Url, mut answer: Download, file: &File, receiving: &mut Receiving<'_>) -> Result<Complaints, Broken> {
    let is_own = pull.source.is_own(address);
    match answer.status() {
        200..=299 => {}
        status @ (404 | 410) => return Err(Broken::Expired(status)),
        status @ (400 | 401 | 403) if !is_own => return Err(Broken::Expired(status)),
        status => {
            let origin = Origin::of(address).map(|origin| origin.to_string()).unwrap_or_default();
            return Err(Broken::Final(Why::new(Code::of_status(status), format!("{origin} refused a file with status {status}"))));
        }
    }
    let mut lines = Pushed::default();
    let mut complaints = Complaints::default();
    let mut wrapped = Wrapped::new(WRAPS_MAX);
    let (mut transferred, mut plain) = (0u64, 0u64);
    let broken = || Broken::Again(Why::new(Code::File, "a file's compression is broken or inflates too far"));
    while let Some(chunk) = answer.chunk().await? {
        // Small steps, so that a chunk that inflates a thousandfold is noticed before it fills the memory.
        for piece in chunk.as_ref().chunks(4096) {
            transferred += piece.len() as u64;
            let unwrapped = wrapped.push(piece).ok_or_else(broken)?;
            plain += unwrapped.len() as u64;
            if plain > transferred.saturating_mul(INFLATION_MAX).max(INFLATION_FREE_BYTES) {
                return Err(broken());
            }
            lines.push(&unwrapped, |event| take_line(receiving, file.kind, event, &mut complaints))?;
        }
    }
    let rest = wrapped.finish().ok_or_else(broken)?;
    lines.push(&rest, |event| take_line(receiving, file.kind, event, &mut complaints))?;
    lines.finish(|event| match event {
        Event::Text { bytes, .. } if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err() => {
            Err(Broken::Again(Why::new(Code::File, "a file ends in the middle of a line")))
        }
        event => Ok(take_line(receiving, file.kind, event, &mut complaints)?),
    })?;
    Ok(complaints)
}

/// Takes off what a file is wrapped in, whatever its headers say: gzip, also within gzip.
enum Wrapped {
    /// The first byte of what may be gzip.
    Unknown(Vec<u8>, u32),
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>, Box<Wrapped>),
}

impl Wrapped {
    fn new(wraps: u32) -> Wrapped {
        if wraps == 0 { Wrapped::Plain } else { Wrapped::Unknown(Vec::new(), wraps) }
    }

    /// Takes a piece; gives what came out of it, or nothing when it is broken.
    fn push<'a>(&mut self, piece: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self {
            Wrapped::Plain => Some(Cow::Borrowed(piece)),
            Wrapped::Gzip(decoder, inner) => {
                decoder.write_all(piece).ok()?;
                let plain = std::mem::take(decoder.get_mut());
                Some(Cow::Owned(inner.push(&plain)?.into_owned()))
            }
            Wrapped::Unknown(start, wraps) => {
                start.extend_from_slice(piece);
                if start.len() < GZIP.len() {
                    return Some(Cow::Borrowed(&[]));
                }
                let (start, wraps) = (std::mem::take(start), *wraps);
                *self = if start.starts_with(&GZIP) { Wrapped::Gzip(Box::new(MultiGzDecoder::new(Vec::new())), Box::new(Wrapped::new(wraps - 1))) } else { Wrapped::Plain };
                Some(Cow::Owned(self.push(&start)?.into_owned()))
            }
        }
    }

    /// The rest, at the end of the file.
    fn finish(self) -> Option<Vec<u8>> {
        match self {
            Wrapped::Plain => Some(Vec::new()),
            Wrapped::Unknown(start, _) => Some(start),
            Wrapped::Gzip(mut decoder, mut inner) => {
                decoder.try_finish().ok()?;
                let plain = std::mem::take(decoder.get_mut());
                let mut rest = inner.push(&plain)?.into_owned();
                rest.extend(inner.finish()?);
                Some(rest)
            }
        }
    }
}

fn take_line(receiving: &mut Receiving<'_>, kind: Kind, event: Event<'_>, complaints: &mut Complaints) -> Result<(), SourceError> {
    match (event, kind) {
        (Event::TooLong { number, length, start }, _) => {
            receiving.unit.received += 1;
            receiving.refuse(Reason::TooLong, None, start, length, number)
        }
        (Event::Text { number, bytes }, Kind::Output) => receiving.take(bytes, number).map(drop),
        (Event::Text { bytes, .. }, Kind::Error) => {
            let Complaints { worst: complaint, of_types } = complaints;
            let forbidden = std::str::from_utf8(bytes).ok().and_then(|text| forbidden_type(text, receiving.types()));
            if let Some(resource_type) = forbidden {
                of_types.insert(resource_type.clone());
                return Ok(());
            }
            let worst = match std::str::from_utf8(bytes).ok().filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()) {
                Some(text) => worst_issue(text),
                None => Some(Why::new(Code::File, "the server's messages cannot be read")),
            };
            // What a person may accept stands for nothing else.
            if complaint.as_ref().is_none_or(|earlier| earlier.code.is_acceptable()) {
                *complaint = worst.or(complaint.take());
            }
            Ok(())
        }
        (Event::Text { number, bytes }, Kind::Deleted) => take_deletions(receiving, bytes, number),
    }
}

/// A line of a `deleted` file, without what is not needed of it: it may hold a hundred thousand entries.
#[derive(Deserialize)]
struct Deletions<'a> {
    #[serde(borrow, default)]
    entry: Vec<Deletion<'a>>,
}

#[derive(Deserialize)]
struct Deletion<'a> {
    #[serde(borrow)]
    request: Option<DeletionRequest<'a>>,
}

#[derive(Deserialize)]
struct DeletionRequest<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
}

/// A line of a `deleted` file: a transaction Bundle with `DELETE Type/id` requests. What is no such thing is held.
fn take_deletions(receiving: &mut Receiving<'_>, bytes: &[u8], number: u64) -> Result<(), SourceError> {
    let Ok(bundle) = serde_json::from_slice::<Deletions<'_>>(bytes) else {
        return receiving.refuse(Reason::NotJson, None, bytes, bytes.len() as u64, number);
    };
    let mut is_understood = !bundle.entry.is_empty();
    for entry in &bundle.entry {
        let request = entry
            .request
            .as_ref()
            .filter(|request| request.method.as_deref().is_some_and(|method| method.eq_ignore_ascii_case("DELETE")));
        match request.and_then(|request| reference_target(request.url.as_deref()?)) {
            Some((Some(resource_type), id)) => receiving.take_removal(&tombstone(resource_type, id))?,
            _ => is_understood = false,
        }
    }
    if is_understood { Ok(()) } else { receiving.refuse(Reason::NotDeletion, None, bytes, bytes.len() as u64, number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unwrapped(bytes: &[u8], step: usize) -> Option<Vec<u8>> {
        let mut wrapped = Wrapped::new(WRAPS_MAX);
        let mut plain = Vec::new();
        for piece in bytes.chunks(step) {
            plain.extend_from_slice(&wrapped.push(piece)?);
        }
        plain.extend(wrapped.finish()?);
        Some(plain)
    }

    #[test]
    fn gzip_is_taken_off_whatever_it_is_called_and_however_it_arrives() {
        let text = b"{\"resourceType\":\"Patient\",\"id\":\"a\"}\n{\"resourceType\":\"Patient\",\"id\":\"b\"}\n".as_slice();
        for step in [1, 3, 4096] {
            for bytes in [text, b"", b"{", &gzip(text), &gzip(&gzip(text)), &[gzip(&text[..30]), gzip(&text[30..])].concat()] {
                let expected = if bytes.len() < 2 { bytes } else { text };
                assert_eq!(unwrapped(bytes, step).as_deref(), Some(expected), "{step}");
            }
            let whole = gzip(text);
            assert_eq!(unwrapped(&whole[..whole.len() - 5], step), None, "what broke off is not whole");
        }
    }
}
