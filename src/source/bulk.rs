//! Bulk Data export: kick-off remembered before and after, patient polling, verified files, released when all is durable.

use super::SourceError;
use super::intake::{Reason, tombstone};
use super::ledger::{self, Unit};
use super::plan::Export;
use super::pull::{Pull, Receiving};
use super::search::worst_issue;
use crate::fhir::compartment::reference_target;
use crate::fhir::ndjson::{Event, Pushed};
use crate::http::{Download, HttpError, Origin, Request, Response, Token, retry_after};
use crate::smart::client::below;
use crate::store::StoreError;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::time::Duration;
use url::Url;

/// Longest wait between polls that a 202 may ask for.
const POLL_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest wait between polls when the server asks for none.
const POLL_UNASKED_MAX: Duration = Duration::from_secs(30);
/// An export may take weeks on some EHRs; after this it is given up.
const EXPORT_DAYS_MAX: i64 = 30;
/// Exports begun for one pull when the server loses them.
const EXPORTS_MAX: u32 = 3;
/// Pages of a manifest.
const MANIFEST_PAGES_MAX: usize = 10_000;
/// Files of an export.
const FILES_MAX: usize = 1_000_000;
/// Times a file is begun again.
const FILE_ATTEMPTS_MAX: u32 = 5;
/// How much older than the kick-off an export may claim to be: the clocks differ.
const STALE_MINUTES: i64 = 10;
/// Largest expansion of a compressed file.
const INFLATION_MAX: u64 = 200;

/// Parameters by which object stores recognise their own signature.
const PRESIGNED: [&str; 4] = ["X-Amz-Signature", "X-Goog-Signature", "Signature", "sig"];

/// A completed export, all manifest pages together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Manifest {
    transaction_time: String,
    requires_token: bool,
    files: Vec<File>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct File {
    kind: Kind,
    resource_type: String,
    url: String,
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Output,
    Deleted,
    Error,
}

#[derive(Clone, Debug)]
struct Job {
    id: i64,
    state: String,
    status_url: Option<String>,
    kicked_off_at: Timestamp,
    manifest: Option<Manifest>,
}

enum Trouble {
    /// The server no longer knows the export or its files.
    Lost,
    Gap(String),
    Fatal(SourceError),
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Trouble {
        Trouble::Fatal(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Fatal(error.into())
    }
}

impl From<HttpError> for Trouble {
    fn from(error: HttpError) -> Trouble {
        match error {
            HttpError::Token(_) | HttpError::Unauthorized { .. } => Trouble::Fatal(error.into()),
            other => Trouble::Gap(other.to_string()),
        }
    }
}

/// Runs the export of a pull, or continues it.
pub(super) async fn run(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let Some(export) = pull.plan.export.clone() else { return Ok(()) };
    for _ in 0..EXPORTS_MAX {
        match attempt(pull, &export).await {
            Ok(()) => return Ok(()),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Gap(reason)) => return record_gap(pull, &export, &reason),
            Err(Trouble::Lost) => {
                lose(pull)?;
                pull.done = ledger::done(pull.snapshot.store(), pull.id)?;
            }
        }
    }
    record_gap(pull, &export, "the server lost the export again and again")
}

fn record_gap(pull: &Pull<'_>, export: &Export, reason: &str) -> Result<(), SourceError> {
    for name in &export.types {
        pull.record(&Unit { name: format!("export {name}"), resource_type: name.clone(), query: "export".to_owned(), gap: Some(reason.to_owned()), ..Unit::default() })?;
    }
    Ok(())
}

async fn attempt(pull: &mut Pull<'_>, export: &Export) -> Result<(), Trouble> {
    let mut job = match load_job(pull)? {
        Some(job) if matches!(job.state.as_str(), "running" | "complete") => job,
        _ => kick_off(pull, export).await?,
    };
    if job.manifest.is_none() {
        let manifest = poll(pull, &job).await?;
        check_fresh(&manifest, &job)?;
        let text = serde_json::to_string(&manifest).map_err(|_| Trouble::Gap("the manifest cannot be kept".to_owned()))?;
        pull.snapshot.store().with(|connection| {
            connection.execute("UPDATE bulk_job SET state = 'complete', manifest = ?2, transaction_time = ?3 WHERE id = ?1", params![job.id, text, manifest.transaction_time])?;
            Ok(())
        })?;
        job.manifest = Some(manifest);
    }
    let manifest = job.manifest.clone().unwrap_or_default();
    fetch_files(pull, &job, &manifest).await?;
    account_for_absent_types(pull, export, &manifest)
}

fn load_job(pull: &Pull<'_>) -> Result<Option<Job>, StoreError> {
    pull.snapshot.store().with(|connection| {
        let row = connection
            .query_row("SELECT id, state, status_url, kicked_off_at, manifest FROM bulk_job WHERE pull_id = ?1 ORDER BY id DESC LIMIT 1", [pull.id.0], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?, row.get::<_, String>(3)?, row.get::<_, Option<String>>(4)?))
            })
            .optional()?;
        let Some((id, state, status_url, at, manifest)) = row else { return Ok(None) };
        let kicked_off_at = at.parse().map_err(|_| StoreError::Corrupt("time of an export's kick-off".to_owned()))?;
        let manifest = manifest.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Some(Job { id, state, status_url, kicked_off_at, manifest }))
    })
}

fn lose(pull: &Pull<'_>) -> Result<(), SourceError> {
    pull.snapshot.store().with(|connection| {
        connection.execute("UPDATE bulk_job SET state = 'lost' WHERE pull_id = ?1 AND state IN ('intent', 'running', 'complete')", [pull.id.0])?;
        Ok(())
    })?;
    Ok(ledger::forget(pull.snapshot.store(), pull.id, "file ")?)
}

async fn kick_off(pull: &Pull<'_>, export: &Export) -> Result<Job, Trouble> {
    let mut address = below(&pull.source.base, &export.path)?;
    {
        let mut pairs = address.query_pairs_mut();
        pairs.append_pair("_outputFormat", "application/fhir+ndjson");
        pairs.append_pair("_type", &export.types.iter().cloned().collect::<Vec<_>>().join(","));
        if let Some(since) = pull.since {
            pairs.append_pair("_since", &since.to_string());
        }
    }
    let now = pull.clock.now();
    // The intent is on disk first: after a kill between the server's answer and ours, the orphan is known of.
    let id = pull.snapshot.store().with(|connection| {
        connection.execute("INSERT INTO bulk_job (pull_id, request, state, kicked_off_at) VALUES (?1, ?2, 'intent', ?3)", params![pull.id.0, export.path, now.to_string()])?;
        Ok(connection.last_insert_rowid())
    })?;
    // A kick-off whose fate is unknown is repeated: at worst an orphan is left, and a server that allows one export says
    // 429 until it is over, which is waited out.
    let request = Request::new(Method::GET, address).header("accept", "application/fhir+json").header("prefer", "respond-async");
    let answer = pull.source.client.send(request).await?;
    if answer.status != 202 {
        return Err(Trouble::Gap(format!("the export was refused with status {}", answer.status)));
    }
    let location = answer.header("content-location").or_else(|| answer.header("location"));
    let status_url = location.and_then(|location| answer.url.join(location).ok());
    let Some(status_url) = status_url else {
        return Err(Trouble::Gap("the export was accepted without a Content-Location".to_owned()));
    };
    let kicked_off_at = answer.date().unwrap_or(now);
    pull.snapshot.store().with(|connection| {
        connection
            .execute("UPDATE bulk_job SET state = 'running', status_url = ?2, kicked_off_at = ?3 WHERE id = ?1", params![id, status_url.as_str(), kicked_off_at.to_string()])?;
        Ok(())
    })?;
    Ok(Job { id, state: "running".to_owned(), status_url: Some(status_url.into()), kicked_off_at, manifest: None })
}

async fn poll(pull: &Pull<'_>, job: &Job) -> Result<Manifest, Trouble> {
    let mut address = job.status_url.as_deref().and_then(|text| Url::parse(text).ok()).ok_or(Trouble::Lost)?;
    let mut manifest = Manifest::default();
    let mut pages = std::collections::BTreeSet::new();
    let mut unasked = Duration::from_millis(pull.source.options.tuning.poll_first_ms.max(1));
    pull.progress.stage("export", None);
    loop {
        let answer = pull.source.client.get(address.clone(), "application/json").await?;
        match answer.status {
            202 => {
                let now = pull.clock.now();
                if now.duration_since(job.kicked_off_at) > SignedDuration::from_hours(24 * EXPORT_DAYS_MAX) {
                    return Err(Trouble::Gap(format!("the export is not ready after {EXPORT_DAYS_MAX} days")));
                }
                let asked = answer.header("retry-after").and_then(|value| retry_after(value, now));
                let wait = asked.map_or(unasked, |asked| asked.min(POLL_WAIT_MAX).max(unasked));
                unasked = unasked.saturating_mul(2).min(POLL_UNASKED_MAX);
                if answer.json::<serde_json::Value>().is_none_or(|body| body.get("output").is_none()) {
                    tokio::time::sleep(if asked.is_some() { wait } else { unasked / 2 }).await;
                } else {
                    // A partial manifest says what is ready; the whole one is waited for.
                    tokio::time::sleep(wait).await;
                }
            }
            200 => {
                let next = add_page(&mut manifest, &answer)?;
                let Some(next) = next else { return Ok(manifest) };
                if !pages.insert(next.to_string()) || pages.len() > MANIFEST_PAGES_MAX {
                    return Err(Trouble::Gap("the manifest's pages lead in a circle".to_owned()));
                }
                address = next;
            }
            404 | 410 => return Err(Trouble::Lost),
            403 => {
                let text = "the export failed with status 403: some servers export only to a client that may read every type (`source.scopes = [\"system/*.rs\"]`)";
                return Err(Trouble::Gap(text.to_owned()));
            }
            status => return Err(Trouble::Gap(format!("the export failed with status {status}"))),
        }
    }
}

/// Adds a manifest page; gives the address of the next one.
fn add_page(manifest: &mut Manifest, answer: &Response) -> Result<Option<Url>, Trouble> {
    use serde_json::Value;
    let wrong = |what: &str| Trouble::Gap(format!("the manifest {what}"));
    let page: Value = answer.json().ok_or_else(|| wrong("is not JSON"))?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    manifest.transaction_time = text(page.get("transactionTime")).ok_or_else(|| wrong("has no transactionTime"))?;
    manifest.requires_token = match page.get("requiresAccessToken") {
        Some(Value::Bool(requires)) => *requires,
        Some(Value::String(requires)) => requires.eq_ignore_ascii_case("true"),
        _ => true,
    };
    let lists = [("output", Kind::Output), ("deleted", Kind::Deleted), ("error", Kind::Error), ("outcome", Kind::Error)];
    for (name, kind) in lists {
        for file in page.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            let url = text(file.get("url")).and_then(|url| answer.url.join(&url).ok());
            let url = url.ok_or_else(|| wrong("names a file without an address"))?;
            let resource_type = text(file.get("type")).unwrap_or_default();
            let known = resource_type.bytes().all(|byte| byte.is_ascii_alphabetic()) && resource_type.len() <= 64;
            manifest.files.push(File {
                kind,
                resource_type: if known { resource_type } else { "*".to_owned() },
                url: url.into(),
                count: file.get("count").and_then(Value::as_u64),
            });
            if manifest.files.len() > FILES_MAX {
                return Err(wrong("names too many files"));
            }
        }
    }
    let links = page.get("link").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let next = links.iter().find(|link| link.get("relation").and_then(Value::as_str) == Some("next"));
    match next.and_then(|link| text(link.get("url"))) {
        None => Ok(None),
        Some(next) => answer.url.join(&next).map(Some).map_err(|_| wrong("has a next page without an address")),
    }
}

/// Some servers answer a repeated request with an old export; it is not taken for today's.
fn check_fresh(manifest: &Manifest, job: &Job) -> Result<(), Trouble> {
    let Ok(time) = manifest.transaction_time.parse::<Timestamp>() else {
        return Err(Trouble::Gap("the manifest's transactionTime is not an instant".to_owned()));
    };
    if job.kicked_off_at.duration_since(time) > SignedDuration::from_mins(STALE_MINUTES) {
        return Err(Trouble::Gap("the server answered with an older export".to_owned()));
    }
    Ok(())
}

async fn fetch_files(pull: &Pull<'_>, job: &Job, manifest: &Manifest) -> Result<(), Trouble> {
    let time = manifest.transaction_time.parse::<Timestamp>().ok();
    let tasks: Vec<(usize, &File, String)> = manifest
        .files
        .iter()
        .enumerate()
        .map(|(number, file)| (number, file, format!("file {} {number}", job.id)))
        .filter(|(_, _, name)| !pull.done.contains(name))
        .collect();
    pull.progress.stage("download", Some(tasks.len() as u64));
    let width = pull.source.options.requests_at_once.clamp(1, 32) as usize;
    let mut running = futures_util::stream::iter(tasks)
        .map(|(number, file, name)| async move {
            let unit = Unit {
                name,
                resource_type: if file.kind == Kind::Error { "*".to_owned() } else { file.resource_type.clone() },
                query: format!("export file {}", number + 1),
                expected: file.count,
                server_time: time,
                ..Unit::default()
            };
            fetch_file(pull, file, manifest.requires_token, unit).await
        })
        .buffer_unordered(width);
    while let Some(unit) = running.next().await {
        pull.record(&unit?)?;
    }
    Ok(())
}

/// A type that was asked for and has no file has no resources; it gets a unit, so that it has a cursor and a ledger row.
fn account_for_absent_types(pull: &Pull<'_>, export: &Export, manifest: &Manifest) -> Result<(), Trouble> {
    let time = manifest.transaction_time.parse::<Timestamp>().ok();
    for name in &export.types {
        let present = manifest.files.iter().any(|file| file.kind == Kind::Output && file.resource_type == *name);
        if !present {
            pull.record(&Unit {
                name: format!("file none {name}"),
                resource_type: name.clone(),
                query: "export".to_owned(),
                expected: Some(0),
                server_time: time,
                ..Unit::default()
            })?;
        }
    }
    Ok(())
}

async fn fetch_file(pull: &Pull<'_>, file: &File, requires_token: bool, unit: Unit) -> Result<Unit, Trouble> {
    let Ok(address) = Url::parse(&file.url) else { return Err(Trouble::Gap("a file has no address".to_owned())) };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut receiving = pull.receive(unit.clone(), None)?;
        let trouble = match download(pull, &address, requires_token, file.kind, &mut receiving).await {
            Ok(complaint) => {
                let received = receiving.unit.received;
                let short = file.count.filter(|count| *count > received && file.kind == Kind::Output);
                let gap = complaint.or_else(|| short.map(|count| format!("the manifest announced {count} and the file holds {received}")));
                if gap.is_none() || attempt >= FILE_ATTEMPTS_MAX || file.kind == Kind::Error {
                    return Ok(receiving.finish(gap)?);
                }
                None
            }
            Err(Trouble::Gap(reason)) => Some(reason),
            Err(other) => return Err(other),
        };
        if let Some(reason) = trouble
            && attempt >= FILE_ATTEMPTS_MAX
        {
            return Ok(receiving.finish(Some(reason))?);
        }
        tokio::time::sleep(pull.source.wait(attempt)).await;
    }
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
    if !refused || Origin::of(address) != Origin::of(&pull.source.base) {
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

/// Streams one file into its stage. Gives the server's complaint, for an error file.
async fn download(pull: &Pull<'_>, address: &Url, requires_token: bool, kind: Kind, receiving: &mut Receiving<'_>) -> Result<Option<String>, Trouble> {
    let mut answer = open_file(pull, address, requires_token).await?;
    match answer.status() {
        200..=299 => {}
        404 | 410 => return Err(Trouble::Lost),
        status => return Err(Trouble::Gap(format!("a file was refused with status {status}"))),
    }
    let mut decoder = answer.is_gzip().then(|| flate2::write::MultiGzDecoder::new(Vec::new()));
    let mut lines = Pushed::default();
    let mut complaint = None;
    let (mut transferred, mut inflated) = (0u64, 0u64);
    let broken = || Trouble::Gap("a file's compression is broken or inflates too far".to_owned());
    while let Some(chunk) = answer.chunk().await? {
        let chunk = chunk.as_ref();
        transferred += chunk.len() as u64;
        let Some(decoder) = &mut decoder else {
            lines.push(chunk, |event| take_line(receiving, kind, event, &mut complaint))?;
            continue;
        };
        // Small steps, so that a chunk that inflates a thousandfold is noticed before it fills the memory.
        for piece in chunk.chunks(4096) {
            decoder.write_all(piece).map_err(|_| broken())?;
            let plain = std::mem::take(decoder.get_mut());
            inflated += plain.len() as u64;
            if inflated > transferred.saturating_mul(INFLATION_MAX).max(1 << 20) {
                return Err(broken());
            }
            lines.push(&plain, |event| take_line(receiving, kind, event, &mut complaint))?;
        }
    }
    if let Some(mut decoder) = decoder {
        decoder.try_finish().map_err(|_| broken())?;
        let plain = std::mem::take(decoder.get_mut());
        lines.push(&plain, |event| take_line(receiving, kind, event, &mut complaint))?;
    }
    lines.finish(|event| match event {
        Event::Text { bytes, .. } if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err() => Err(Trouble::Gap("a file ends in the middle of a line".to_owned())),
        event => Ok(take_line(receiving, kind, event, &mut complaint)?),
    })?;
    Ok(complaint)
}

fn take_line(receiving: &mut Receiving<'_>, kind: Kind, event: Event<'_>, complaint: &mut Option<String>) -> Result<(), SourceError> {
    match (event, kind) {
        (Event::TooLong { number, length, start }, _) => {
            receiving.unit.received += 1;
            receiving.refuse(Reason::TooLong, None, start, length, number)
        }
        (Event::Text { number, bytes }, Kind::Output) => receiving.take(bytes, number).map(drop),
        (Event::Text { bytes, .. }, Kind::Error) => {
            let worst = std::str::from_utf8(bytes).ok().and_then(worst_issue);
            *complaint = complaint.take().or(worst);
            Ok(())
        }
        (Event::Text { number, bytes }, Kind::Deleted) => take_deletions(receiving, bytes, number),
    }
}

/// A line of a `deleted` file: a transaction Bundle with `DELETE Type/id` requests.
fn take_deletions(receiving: &mut Receiving<'_>, bytes: &[u8], number: u64) -> Result<(), SourceError> {
    let Ok(bundle) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return receiving.refuse(Reason::NotJson, None, bytes, bytes.len() as u64, number);
    };
    for entry in bundle.get("entry").and_then(|entries| entries.as_array()).map(Vec::as_slice).unwrap_or_default() {
        let request = entry.get("request");
        let text = |name: &str| request.and_then(|request| request.get(name)?.as_str());
        if text("method") != Some("DELETE") {
            continue;
        }
        if let Some((Some(resource_type), id)) = text("url").and_then(reference_target) {
            receiving.take_removal(&tombstone(resource_type, id))?;
        }
    }
    Ok(())
}

/// Tells the server that exports of finished pulls may be deleted. Their absence, or a server without DELETE, is fine.
pub(super) async fn release_finished(pull: &Pull<'_>) -> Result<(), SourceError> {
    let store = pull.snapshot.store();
    let jobs: Vec<(i64, String)> = store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT bulk_job.id, status_url FROM bulk_job JOIN pull ON pull.id = pull_id
             WHERE bulk_job.state = 'complete' AND pull.state <> 'open' AND status_url IS NOT NULL AND source = ?1",
        )?;
        let rows = statement.query_map([pull.source.name()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<_>, _>>()?;
        Ok(rows)
    })?;
    for (id, status_url) in jobs {
        if let Ok(address) = Url::parse(&status_url)
            && let Err(error) = pull.source.client.send(Request::new(Method::DELETE, address).once()).await
        {
            tracing::warn!(%error, "the export could not be deleted at the server");
            continue;
        }
        store.with(|connection| {
            connection.execute("UPDATE bulk_job SET state = 'released' WHERE id = ?1", [id])?;
            Ok(())
        })?;
    }
    Ok(())
}
