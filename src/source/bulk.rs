//! Bulk Data export: kick-off remembered before and after, patient polling, verified files, released when all is durable.

mod files;
mod manifest;
mod members;
mod order;
mod telling;
mod whole;

use super::duty::{Code, Why};
use super::ledger::{self, Unit};
use super::plan::Export;
use super::pull::{Pull, note};
use super::search::{issue_code, issue_shown};
use super::{Gap, Mode, SourceError};
use crate::diagnostic::counted;
use crate::http::{HttpError, Origin, Request, Response, passes, retry_after};
use crate::smart::client::below;
use crate::store::StoreError;
use files::fetch_files;
use jiff::{SignedDuration, Timestamp};
use manifest::{Manifest, Pace, Page, Word};
use order::{Form, Order};
use reqwest::Method;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use telling::Teller;
use url::Url;

pub(super) use members::check as check_members;
pub(super) use whole::{files_of_whole, whole, whole_of_all};

/// An export may take weeks on some EHRs; after this another one is begun.
const EXPORT_DAYS_MAX: i64 = 30;
/// Exports begun for the same in one pull, when the server loses them or answers with old ones.
const EXPORTS_MAX: u32 = 3;
/// Parts of a manifest.
const PARTS_MAX: usize = 10_000;
/// Longest address of a kick-off with filters; a longer one may fail at a proxy, and is sent without them.
const ADDRESS_MAX: usize = 2_000;
/// First wait when the server allows no further export now.
const BUSY_WAIT_FIRST: Duration = Duration::from_secs(15);
/// Longest wait between attempts to begin an export.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// An export as remembered.
#[derive(Clone, Debug)]
struct Job {
    id: i64,
    status_url: String,
    /// Where its status may be instead: some servers mean another base of relative addresses.
    otherwise: Option<Url>,
    kicked_off_at: Timestamp,
    manifest: Option<Manifest>,
    /// It was begun in an earlier run of this pull.
    is_old: bool,
    /// Nothing was left out of what it asks for because an earlier one was lost.
    is_first: bool,
}

/// Why an export could not be had.
enum Trouble {
    /// The server no longer knows the export or its files, or means an older one.
    Lost(&'static str),
    Gap(Why),
    /// It is not ready, and not given up.
    Unfinished(String),
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
            error if error.ends_all() => Trouble::Fatal(error.into()),
            other => Trouble::Gap(other.into()),
        }
    }
}

/// What is exported for a pull, by a name that stays when the pull is resumed.
struct Wanted<'a> {
    name: String,
    path: &'a str,
    types: &'a BTreeSet<String>,
    since: Option<Timestamp>,
    patients: &'a [String],
    codes: &'a BTreeMap<String, BTreeSet<String>>,
}

impl Pull<'_> {
    /// The export, of the types that may be read.
    pub(super) fn export(&self) -> Option<Export> {
        let mut export = self.plan.export.clone()?;
        export.types.retain(|name| !self.source.withheld.contains_key(name));
        export.codes.retain(|name, _| !self.source.withheld.contains_key(name));
        Some(export)
    }
}

/// Runs the export of a pull, or continues it.
pub(super) async fn run(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let Some(export) = pull.export() else { return Ok(()) };
    for name in pull.plan.export.iter().flat_map(|export| &export.types) {
        if let Some(why) = pull.source.withheld.get(name) {
            record_gap(pull, [name], why)?;
        }
    }
    let wanted = Wanted { name: export.path.clone(), path: &export.path, types: &export.types, since: pull.since, patients: &[], codes: &export.codes };
    match fetch(pull, &wanted).await? {
        None => Ok(()),
        // Who does not answer at all does not answer searches either.
        Some(reason) if pull.plan.instead.is_some() && reason.code != Code::Unreachable => Err(SourceError::NoExport(reason)),
        Some(reason) if pull.source.options.mode == Mode::Bulk => {
            record_gap(pull, &export.types, &reason.put(|reason| format!("{reason}; `source.mode = \"bulk\"` allows no search in its place, `\"auto\"` does")))
        }
        Some(reason) => record_gap(pull, &export.types, &reason),
    }
}

/// Fetches an export whole. Gives the reason why not, if it cannot be had.
async fn fetch(pull: &mut Pull<'_>, wanted: &Wanted<'_>) -> Result<Option<Why>, SourceError> {
    let mut why = "";
    for _ in 0..EXPORTS_MAX {
        match attempt(pull, wanted).await {
            Ok(()) => return Ok(None),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Unfinished(reason)) => return Err(SourceError::Unfinished { reason }),
            Err(Trouble::Gap(reason)) => {
                lose(pull, wanted, false)?;
                return Ok(Some(reason));
            }
            Err(Trouble::Lost(reason)) => {
                tracing::warn!(pull = pull.id.0, reason, "the export is begun anew");
                lose(pull, wanted, true)?;
                pull.done = ledger::done(pull.snapshot.store(), pull.id)?;
                why = reason;
            }
        }
    }
    Ok(Some(Why::new(Code::Export, format!("{EXPORTS_MAX} times in a row {why}"))))
}

fn record_gap<'a>(pull: &Pull<'_>, types: impl IntoIterator<Item = &'a String>, reason: &Why) -> Result<(), SourceError> {
    for name in types {
        pull.record(&Unit { name: format!("export {name}"), resource_type: name.clone(), query: "export".to_owned(), gap: Some(reason.clone()), ..Unit::default() })?;
    }
    Ok(())
}

async fn attempt(pull: &mut Pull<'_>, wanted: &Wanted<'_>) -> Result<(), Trouble> {
    let mut job = match load_job(pull, wanted)? {
        Some(job) => job,
        None => kick_off(pull, wanted).await?,
    };
    let manifest = match job.manifest.take() {
        Some(manifest) => manifest,
        None => {
            let manifest = poll(pull, &mut job).await.map_err(|trouble| match trouble {
                Trouble::Gap(_) if job.is_first && !wanted.codes.is_empty() => Trouble::Lost("an export by `_typeFilter` failed"),
                trouble => trouble,
            })?;
            if let Some(behind) = manifest.behind(job.kicked_off_at) {
                // Some servers answer a repeated request with an old export; others export a copy that is hours behind.
                if is_known(pull, &job, &manifest)? {
                    return Err(Trouble::Lost("the server answered with an older export"));
                }
                tell_behind(pull, &manifest, behind)?;
            }
            keep_manifest(pull, &job, &manifest)?;
            manifest
        }
    };
    let manifest = fetch_files(pull, &mut job, manifest).await?;
    account_for_absent_types(pull, wanted, &manifest)
}

/// The export that is under way for this, if there is one.
fn load_job(pull: &Pull<'_>, wanted: &Wanted<'_>) -> Result<Option<Job>, StoreError> {
    pull.snapshot.store().with(|connection| {
        let is_first = lost_before(connection, pull, wanted)? == 0;
        let row = connection
            .query_row(
                "SELECT id, status_url, kicked_off_at, manifest FROM bulk_job
                 WHERE pull_id = ?1 AND request = ?2 AND state IN ('running', 'complete') ORDER BY id DESC LIMIT 1",
                params![pull.id.0, wanted.name],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, String>(2)?, row.get::<_, Option<String>>(3)?)),
            )
            .optional()?;
        let Some((id, Some(status_url), at, manifest)) = row else { return Ok(None) };
        let kicked_off_at = at.parse().map_err(|_| StoreError::Corrupt("time of an export's kick-off".to_owned()))?;
        let manifest = manifest.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Some(Job { id, status_url, otherwise: None, kicked_off_at, manifest, is_old: true, is_first }))
    })
}

/// Whether an earlier pull had this export, or another one of the same time.
fn is_known(pull: &Pull<'_>, job: &Job, manifest: &Manifest) -> Result<bool, StoreError> {
    pull.snapshot.store().with(|connection| {
        let sql = "SELECT EXISTS (SELECT 1 FROM bulk_job JOIN pull ON pull.id = pull_id
           WHERE source = ?1 AND pull_id <> ?2 AND (status_url = ?3 OR transaction_time = ?4))";
        Ok(connection.query_row(sql, params![pull.source.name(), pull.id.0, job.status_url, manifest.transaction_time], |row| row.get(0))?)
    })
}

fn tell_behind(pull: &Pull<'_>, manifest: &Manifest, behind: SignedDuration) -> Result<(), SourceError> {
    let (hours, minutes) = (behind.as_hours(), behind.as_mins());
    let long = if hours < 2 { counted(minutes, "minute") } else { counted(hours, "hour") };
    let reason = format!("the export holds what was there at {}, {long} before it was asked for: what was entered since comes with a later one", manifest.transaction_time);
    let note = Some(Why::new(Code::Behind, reason));
    pull.record(&Unit { name: "export behind".to_owned(), resource_type: "*".to_owned(), query: "export".to_owned(), note, ..Unit::default() })
}

fn keep_manifest(pull: &Pull<'_>, job: &Job, manifest: &Manifest) -> Result<(), Trouble> {
    let text = serde_json::to_string(manifest).map_err(|_| broken("the manifest cannot be kept".to_owned()))?;
    pull.snapshot.store().with(|connection| {
        connection.execute("UPDATE bulk_job SET state = 'complete', manifest = ?2, transaction_time = ?3 WHERE id = ?1", params![job.id, text, manifest.transaction_time])?;
        Ok(())
    })?;
    Ok(())
}

/// Gives an export up, so that it is not gone on with; with its files, where another one takes its place.
fn lose(pull: &Pull<'_>, wanted: &Wanted<'_>, with_files: bool) -> Result<(), SourceError> {
    let jobs: Vec<i64> = pull.snapshot.store().with(|connection| {
        let mut statement =
            connection.prepare("UPDATE bulk_job SET state = 'lost' WHERE pull_id = ?1 AND request = ?2 AND state IN ('intent', 'running', 'complete') RETURNING id")?;
        let ids = statement.query_map(params![pull.id.0, wanted.name], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(ids)
    })?;
    for id in jobs.into_iter().filter(|_| with_files) {
        ledger::forget(pull.snapshot.store(), pull.id, &format!("file {id} "))?;
    }
    Ok(())
}

/// Begins an export. The intent is on disk first: after a kill between the server's answer and ours, it is begun again;
/// at worst an orphan is left, and a server that allows one export refuses another (429) until the orphan is over.
async fn kick_off(pull: &Pull<'_>, wanted: &Wanted<'_>) -> Result<Job, Trouble> {
    let now = pull.clock.now();
    let (id, before) = pull.snapshot.store().with(|connection| {
        let before = lost_before(connection, pull, wanted)?;
        connection.execute("INSERT INTO bulk_job (pull_id, request, state, kicked_off_at) VALUES (?1, ?2, 'intent', ?3)", params![pull.id.0, wanted.name, now.to_string()])?;
        Ok((connection.last_insert_rowid(), before))
    })?;
    // In the words of no other pull.
    let variant = if before == 0 { 0 } else { usize::try_from(pull.id.0.saturating_mul(i64::from(EXPORTS_MAX)).saturating_add(before)).unwrap_or(0) };
    // What was lost may have been lost by its filters.
    let filters: Vec<String> = wanted
        .codes
        .iter()
        .filter(|_| before == 0)
        .map(|(name, codes)| order::filter(name, codes, pull.source.options.type_filter))
        .collect();
    let order = Order { types: wanted.types, since: wanted.since, patients: wanted.patients, filters: &filters, variant };
    let answer = accepted(pull, wanted.path, &order).await?;
    let (status_url, otherwise) = status_address(pull, &answer)?;
    let kicked_off_at = answer.date().unwrap_or(now);
    pull.snapshot.store().with(|connection| {
        connection
            .execute("UPDATE bulk_job SET state = 'running', status_url = ?2, kicked_off_at = ?3 WHERE id = ?1", params![id, status_url.as_str(), kicked_off_at.to_string()])?;
        Ok(())
    })?;
    Ok(Job { id, status_url: status_url.into(), otherwise, kicked_off_at, manifest: None, is_old: false, is_first: before == 0 })
}

/// How many exports for the same were lost in this pull.
fn lost_before(connection: &Connection, pull: &Pull<'_>, wanted: &Wanted<'_>) -> Result<i64, StoreError> {
    let lost = "SELECT count(*) FROM bulk_job WHERE pull_id = ?1 AND request = ?2 AND state = 'lost'";
    Ok(connection.query_row(lost, params![pull.id.0, wanted.name], |row| row.get(0))?)
}

/// Asks for an export in one form after the other until the server accepts one; waits while it is busy.
async fn accepted(pull: &Pull<'_>, path: &str, order: &Order<'_>) -> Result<Response, Trouble> {
    let address = below(&pull.source.base, path)?;
    let by_post = pull.source.capability.export_by_post || !order.patients.is_empty();
    let mut form = if by_post { Form::Parameters } else { Form::Query };
    let mut asks = order.asks().into_iter();
    let mut ask = asks.next();
    let (mut failures, mut busy) = (0, BUSY_WAIT_FIRST);
    // What the server has against it, it says to the first form; to the last one, that this lacks something.
    let mut first: Option<Trouble> = None;
    while let Some(asked) = ask {
        let request = order.request(address.clone(), form, asked);
        if asked.filters && request.url.as_str().len() > ADDRESS_MAX {
            ask = asks.find(|ask| !ask.filters);
            continue;
        }
        let answer = match pull.source.client.send(request).await {
            Ok(answer) => answer,
            Err(HttpError::Unreachable { .. }) if failures + 1 < pull.source.attempts() => {
                failures += 1;
                let wait = pull.source.wait(failures);
                pull.source.say_waiting("the export cannot be begun, no answer", failures, wait, pull.clock.now());
                pull.clock.sleep(wait).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let wanted_wait = answer.header("retry-after").and_then(|value| retry_after(value, pull.clock.now()));
        match answer.status {
            202 => return Ok(answer),
            429 => {
                let text = "the server allows no further export now (status 429): one of an earlier night may still be there, which ends by itself or is deleted by the EHR's administrator";
                patience(pull, wanted_wait.unwrap_or(busy).max(busy), text).await?;
                busy = busy.saturating_mul(2).min(BUSY_WAIT_MAX);
            }
            status if passes(status) && failures + 1 < pull.source.attempts() => {
                failures += 1;
                let wait = pull.source.wait(failures);
                pull.source.say_waiting(&format!("the export cannot be begun, status {status}"), failures, wait, pull.clock.now());
                pull.clock.sleep(wanted_wait.map_or(wait, |wanted| wanted.min(BUSY_WAIT_MAX).max(wait))).await;
            }
            405 if form == Form::Query => form = Form::Parameters,
            500..=599 if asked.filters => {
                failures = 0;
                ask = asks.find(|ask| !ask.filters);
            }
            400 | 406 | 412 | 414 | 415 | 422 | 501 => {
                if !asked.filters {
                    first.get_or_insert_with(|| refused(&answer, path));
                }
                ask = asks.next();
            }
            _ => return Err(first.unwrap_or_else(|| refused(&answer, path))),
        }
    }
    Err(first.unwrap_or_else(|| Trouble::Gap(Why::new(Code::Refused, format!("the server refused the export `{path}` in every form")))))
}

/// What is wrong with an export as such.
fn broken(reason: String) -> Trouble {
    Trouble::Gap(Why::new(Code::Export, reason))
}

/// Of a status with which an export is refused, or fails.
fn export_code(status: u16) -> Code {
    match Code::of_status(status) {
        Code::Forbidden => Code::ExportForbidden,
        Code::Answer => Code::Export,
        code => code,
    }
}

fn refused(answer: &Response, path: &str) -> Trouble {
    let origin = Origin::of(&answer.url).map(|origin| origin.to_string()).unwrap_or_default();
    let hint = match answer.status {
        403 => "; some servers export only to a client that may read every type (`source.scopes = [\"system/*.rs\"]`)",
        404 => "; is the base address right, and does the group exist there",
        _ => "",
    };
    // The path may hold the group's id, which is configured; the body may hold anything.
    Trouble::Gap(Why::new(export_code(answer.status), format!("{origin} refused the export `{path}` with status {}{}{hint}", answer.status, issue_shown(&answer.body))))
}

/// How long this pull waits for what is not ready.
fn end_of_patience(pull: &Pull<'_>) -> Timestamp {
    pull.begun + SignedDuration::from_mins(i64::from(pull.source.options.tuning.export_wait_minutes))
}

/// Waits, unless this pull has waited long enough.
async fn patience(pull: &Pull<'_>, wait: Duration, what: &str) -> Result<(), Trouble> {
    let left = Duration::try_from(end_of_patience(pull).duration_since(pull.clock.now())).unwrap_or_default();
    if wait > left {
        return Err(Trouble::Unfinished(what.to_owned()));
    }
    pull.clock.sleep(wait).await;
    Ok(())
}

/// Where the status is to be asked for, and where else it may be: relative addresses are relative to the kick-off (RFC 9110
/// section 8.7), but some servers mean the FHIR base.
fn status_address(pull: &Pull<'_>, answer: &Response) -> Result<(Url, Option<Url>), Trouble> {
    let location = answer.header("content-location").or_else(|| answer.header("location"));
    let address = location.and_then(|location| answer.url.join(location).ok());
    let (Some(location), Some(address)) = (location, address) else {
        return Err(broken("the export was accepted without a Content-Location".to_owned()));
    };
    if !pull.source.is_own(&address) {
        let origin = Origin::of(&address).map_or_else(|| "an address that is not http".to_owned(), |origin| origin.to_string());
        return Err(Trouble::Gap(Why::new(Code::TokenOrigin, format!("the export's status is at {origin}; if that is the EHR's, add it to `source.token_origins`"))));
    }
    let otherwise = below(&pull.source.base, location).ok().filter(|other| *other != address && pull.source.is_own(other));
    Ok((address, otherwise))
}

async fn poll(pull: &Pull<'_>, job: &mut Job) -> Result<Manifest, Trouble> {
    let mut address = Url::parse(&job.status_url).map_err(|_| Trouble::Lost("the address of the export's status could not be read"))?;
    let mut manifest = Manifest::default();
    let mut parts = BTreeSet::new();
    let mut pace = Pace::new(Duration::from_millis(pull.source.options.tuning.poll_first_ms.max(1)));
    let mut failures = 0;
    let mut teller = Teller::new(pull.source.name(), end_of_patience(pull));
    pull.progress.stage("export", None);
    loop {
        let answer = match pull.source.client.send(Request::new(Method::GET, address.clone()).header("accept", "application/json").once()).await {
            Ok(answer) => Some(answer),
            Err(HttpError::Unreachable { .. } | HttpError::Encoding { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let word = answer
            .as_ref()
            .map_or(Word::Unclear, |answer| Word::read(answer.status, answer.header("x-export-status"), issue_code(&answer.body).as_deref()));
        let part = answer.as_ref().and_then(|answer| part(pull, answer, &word));
        if word != Word::Unclear {
            failures = 0;
        }
        let asked = answer.as_ref().and_then(|answer| answer.header("retry-after"));
        match (word, part) {
            (_, Some(part)) => {
                let Page { manifest: page, next } = part.map_err(broken)?;
                manifest.add(page).map_err(broken)?;
                let Some(next) = next else { return Ok(manifest) };
                if !parts.insert(next.to_string()) || parts.len() > PARTS_MAX || next.as_str() == job.status_url {
                    return Err(broken("the manifest's parts lead in a circle".to_owned()));
                }
                if !pull.source.is_own(&next) {
                    return Err(Trouble::Gap(Why::new(Code::TokenOrigin, "the manifest's next part is at another origin, where our token must not go")));
                }
                address = next;
            }
            (Word::NotYet | Word::TooFast, _) if pull.clock.now().duration_since(job.kicked_off_at) > SignedDuration::from_hours(24 * EXPORT_DAYS_MAX) => {
                cancel(pull, &job.status_url).await;
                return Err(Trouble::Lost("an export was not ready within 30 days"));
            }
            (word @ (Word::NotYet | Word::TooFast), _) => {
                let wait = pace.next(asked, word == Word::TooFast, pull.clock.now());
                teller.waits(answer.as_ref().and_then(|answer| answer.header("x-progress")), job.kicked_off_at, job.is_old, pull.clock.now());
                patience(pull, wait, &format!("the server is still working on the export of {}", job.kicked_off_at)).await?;
            }
            (Word::Unclear, _) => {
                failures += 1;
                let status = answer.as_ref().map_or_else(|| "no answer".to_owned(), |answer| format!("status {}", answer.status));
                if failures >= pull.source.attempts() && job.is_old {
                    return Err(Trouble::Lost("the state of an export could not be had"));
                } else if failures >= pull.source.attempts() {
                    return Err(Trouble::Unfinished(format!("the state of the export could not be had ({status}, {failures} times)")));
                }
                let wait = pull.source.wait(failures).max(pace.next(asked, false, pull.clock.now()));
                pull.source.say_waiting(&format!("the state of the export cannot be had, {status}"), failures, wait, pull.clock.now());
                pull.clock.sleep(wait).await;
            }
            (Word::Lost, _) => match job.otherwise.take() {
                Some(otherwise) if parts.is_empty() => {
                    remember_address(pull, job, &otherwise)?;
                    address = otherwise;
                }
                _ => return Err(Trouble::Lost("the server lost the export")),
            },
            (Word::Ready | Word::Failed, _) => return Err(failed(answer.as_ref())),
        }
    }
}

/// The part of the manifest that an answer carries: the whole of one that is ready, and of one that is not only what
/// already has a further part, since it then stays as it is.
fn part(pull: &Pull<'_>, answer: &Response, word: &Word) -> Option<Result<Page, String>> {
    match word {
        Word::Ready => Some(Page::read(&answer.body, &answer.url, &pull.source.base)),
        Word::NotYet => Page::read(&answer.body, &answer.url, &pull.source.base).ok().filter(|page| page.next.is_some()).map(Ok),
        _ => None,
    }
}

fn failed(answer: Option<&Response>) -> Trouble {
    let Some(answer) = answer else { return broken("the export failed".to_owned()) };
    let origin = Origin::of(&answer.url).map(|origin| origin.to_string()).unwrap_or_default();
    let own = answer
        .header("x-export-status")
        .and_then(|own| own.get(..3))
        .filter(|own| own.bytes().all(|byte| byte.is_ascii_digit()));
    let status = own.map_or_else(|| answer.status.to_string(), str::to_owned);
    let hint = if status == "403" { "; some servers export only to a client that may read every type (`source.scopes = [\"system/*.rs\"]`)" } else { "" };
    let code = status.parse().map_or(Code::Export, export_code);
    Trouble::Gap(Why::new(code, format!("{origin}: the export failed with status {status}{}{hint}", issue_shown(&answer.body))))
}

fn remember_address(pull: &Pull<'_>, job: &mut Job, address: &Url) -> Result<(), StoreError> {
    job.status_url = address.to_string();
    pull.snapshot.store().with(|connection| {
        connection.execute("UPDATE bulk_job SET status_url = ?2 WHERE id = ?1", params![job.id, address.as_str()])?;
        Ok(())
    })
}

/// A type that was asked for and has no file has no resources; it gets a unit, so that it has a cursor and a ledger row.
fn account_for_absent_types(pull: &Pull<'_>, wanted: &Wanted<'_>, manifest: &Manifest) -> Result<(), Trouble> {
    if !wanted.patients.is_empty() {
        return Ok(());
    }
    for name in wanted.types {
        let present = manifest.files.iter().any(|file| file.kind == manifest::Kind::Output && file.resource_type == *name);
        if !present {
            pull.record(&Unit {
                name: format!("file none {name}"),
                resource_type: name.clone(),
                query: "export".to_owned(),
                expected: Some(0),
                server_time: manifest.time(),
                ..Unit::default()
            })?;
        }
    }
    Ok(())
}

/// Tells the server that exports of pulls that are over may be deleted. What it does not delete is not asked again, and told: patients' data stay
/// there.
pub(super) async fn release_finished(pull: &Pull<'_>, notes: &mut Vec<Gap>) -> Result<(), SourceError> {
    let store = pull.snapshot.store();
    let jobs: Vec<(i64, String)> = store.with(|connection| {
        let mut statement = connection.prepare(
            "SELECT bulk_job.id, status_url FROM bulk_job JOIN pull ON pull.id = pull_id
             WHERE bulk_job.state IN ('running', 'complete') AND pull.state <> 'open' AND status_url IS NOT NULL AND source = ?1",
        )?;
        let rows = statement.query_map([pull.source.name()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<_>, _>>()?;
        Ok(rows)
    })?;
    let mut kept: BTreeMap<u16, u64> = BTreeMap::new();
    for (id, status_url) in jobs {
        let Some(refusal) = cancel(pull, &status_url).await else { continue };
        store.with(|connection| {
            connection.execute("UPDATE bulk_job SET state = 'released' WHERE id = ?1", [id])?;
            Ok(())
        })?;
        if let Err(status) = refusal {
            *kept.entry(status).or_default() += 1;
        }
    }
    for (status, exports) in kept {
        let why = Why::new(
            Code::Undeletable,
            format!("the server does not delete {} (status {status}): the files, with patients' data, stay there", counted(exports, "finished export")),
        );
        let query = format!("deletion of exports, status {status}");
        note(pull, notes, "*", &query, why)?;
        ledger::enter_late(store, pull.id, &query)?;
    }
    Ok(())
}

/// Deletes an export at the server, or gives the status with which it is not; `None` when that is to be tried again.
async fn cancel(pull: &Pull<'_>, status_url: &str) -> Option<Result<(), u16>> {
    let Ok(address) = Url::parse(status_url) else { return Some(Ok(())) };
    let refusal = match pull.source.client.send(Request::new(Method::DELETE, address).once()).await {
        Ok(answer) if answer.is_success() || matches!(answer.status, 404 | 410) => return Some(Ok(())),
        Ok(answer) => answer.status,
        Err(HttpError::Unauthorized { .. }) => 401,
        Err(error) => {
            tracing::warn!(%error, "the export could not be deleted at the server");
            return None;
        }
    };
    tracing::warn!(status = refusal, due = Code::Undeletable.duty().1, "the server does not delete an export that is over: its files stay there");
    Some(Err(refusal))
}
