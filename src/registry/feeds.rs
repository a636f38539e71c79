//! The feed protocol over HTTP: each route a step of [`super::protocol`], in one transaction.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Registry;
use super::auth::Tenant;
use super::protocol::{self, Announcement, Commit, Problem, Refusal, Standing};
use super::standing as held;
use super::store::{self, Site};
use crate::feed::EPOCH_HEADER;

/// An OperationOutcome with its status; the database's own failure is 503 without detail.
pub(super) fn refuse(problem: &Problem) -> Response {
    let database = Refusal::new(503, "transient", "the registry cannot answer now; try again");
    let refusal = match problem {
        Problem::Refused(refusal) => refusal,
        Problem::Database(error) => {
            log_failure(error);
            &database
        }
    };
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/fhir+json"), (header::CACHE_CONTROL, "no-store")], refusal.outcome().to_string()).into_response()
}

/// Logs what the database refuses, and what is to be done where that is known.
pub(super) fn log_failure(error: &rusqlite::Error) {
    let is_full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
    let what = if is_full { "the disk is full: make room where `data` is; nothing that has a receipt is lost, and sites send again what was refused" } else { "" };
    tracing::error!(%error, what, "registry database");
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn epoch(headers: &HeaderMap) -> Option<u64> {
    text(headers, EPOCH_HEADER)?.parse().ok()
}

/// The site as it stands inside this transaction.
fn fresh(transaction: &rusqlite::Transaction<'_>, site: &Site) -> Result<Site, Problem> {
    store::site_of_client(transaction, &site.client_id)?.ok_or_else(|| protocol::not_found().into())
}

/// Keeps a refusal where the arrival board finds it, then answers with it.
async fn note(registry: &Registry, site: Site, feed: String, problem: Problem) -> Response {
    let response = refuse(&problem);
    if let Problem::Refused(refusal) = problem
        && refusal.status != 404
    {
        tracing::warn!(site = site.name, status = refusal.status, "feed refused");
        let now = registry.now();
        let noted = registry.store.writing(move |transaction| protocol::note_refusal(transaction, &site, &feed, &refusal, now)).await;
        if let Err(error) = noted {
            log_failure(&error);
        }
    }
    response
}

/// `PUT /v1/feeds/{id}`.
pub(super) async fn announce(State(registry): State<Registry>, Tenant(site): Tenant, Path(feed): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let (now, key, epoch) = (registry.now(), text(&headers, "idempotency-key").map(str::to_owned), epoch(&headers));
    let (asked, asker, quota) = (feed.clone(), site.clone(), registry.options.quota);
    let done = registry.store.writing(move |transaction| {
        let site = fresh(transaction, &asker)?;
        protocol::expire(transaction, now)?;
        let said = Announcement { feed: &asked, key: key.as_deref(), epoch, body: &body };
        let standing = protocol::announce(transaction, &site, &said, &quota, now)?;
        protocol::heard(transaction, &site, &asked, now)?;
        Ok::<_, Problem>(standing)
    });
    match done.await {
        Ok(Standing::Open { new, missing }) => {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            answer(status, json!({ "feed": feed, "state": "open", "missing": missing }))
        }
        Ok(Standing::Committed { receipt, is_current }) => answer(StatusCode::OK, json!({ "feed": feed, "state": "committed", "receipt": receipt, "current": is_current })),
        Err(problem) => note(&registry, site, feed, problem).await,
    }
}

/// `PUT /v1/feeds/{id}/parts/{sha256}`.
pub(super) async fn receive(State(registry): State<Registry>, Tenant(site): Tenant, Path((feed, sha256)): Path<(String, String)>, body: Bytes) -> Response {
    let (now, asked, asker) = (registry.now(), feed.clone(), site.clone());
    let done = registry.store.writing(move |transaction| protocol::receive(transaction, &asker, &asked, &sha256, &body, now)).await;
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => note(&registry, site, feed, problem).await,
    }
}

/// `POST /v1/feeds/{id}/commit`.
pub(super) async fn commit(State(registry): State<Registry>, Tenant(site): Tenant, Path(feed): Path<String>, headers: HeaderMap) -> Response {
    let (now, epoch) = (registry.now(), epoch(&headers));
    let (asked, asker, cards) = (feed.clone(), site.clone(), registry.clone());
    let examined = registry
        .store
        .reading(move |connection| protocol::examine(connection, &asker, &asked, &cards.options.measures, now))
        .await;
    let examined = match examined {
        Ok(examined) => examined,
        Err(problem) => return note(&registry, site, feed, problem).await,
    };
    let (asked, asker, held) = (feed.clone(), site.clone(), registry.clone());
    let done = registry.store.writing(move |transaction| {
        let site = fresh(transaction, &asker)?;
        let commit = Commit { feed: &asked, epoch, issuer: &held.options.public_url, key: &held.key };
        let done = protocol::commit(transaction, &site, &commit, examined, now)?;
        protocol::heard(transaction, &site, &asked, now)?;
        Ok::<_, Problem>(done)
    });
    match done.await {
        Ok(Ok(receipt)) => answer(StatusCode::OK, json!({ "feed": feed, "state": "committed", "receipt": receipt })),
        Ok(Err(refusal)) => note(&registry, site, feed, refusal.into()).await,
        Err(problem) => note(&registry, site, feed, problem).await,
    }
}

/// `GET /v1/feeds`: what is held of the asker, and what may be sent.
pub(super) async fn standing(State(registry): State<Registry>, Tenant(site): Tenant) -> Response {
    let cards = registry.clone();
    match registry.store.reading(move |connection| held::standing(connection, &site, &cards.options.measures)).await {
        Err(error) => refuse(&Problem::Database(error)),
        Ok(standing) => answer(StatusCode::OK, json!(standing)),
    }
}

/// `GET /v1/feeds/{id}/parts/{sha256}`: a report of a committed feed of the asker.
pub(super) async fn part(State(registry): State<Registry>, Tenant(site): Tenant, Path((feed, sha256)): Path<(String, String)>) -> Response {
    match registry.store.reading(move |connection| held::part(connection, site.id, &feed, &sha256)).await {
        Err(error) => refuse(&Problem::Database(error)),
        Ok(None) => refuse(&protocol::not_found().into()),
        Ok(Some(body)) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/fhir+json"), (header::CACHE_CONTROL, "no-store")], body).into_response(),
    }
}

/// `GET /v1/feeds/{id}`: the asker's own feeds only; anything else is the same 404.
pub(super) async fn show(State(registry): State<Registry>, Tenant(site): Tenant, Path(feed): Path<String>) -> Response {
    let asked = feed.clone();
    match registry.store.reading(move |connection| protocol::stored(connection, site.id, &asked)).await {
        Err(error) => refuse(&Problem::Database(error)),
        Ok(None) => refuse(&protocol::not_found().into()),
        Ok(Some(stored)) => {
            let manifest: Value = serde_json::from_slice(&stored.manifest).unwrap_or_default();
            let outcome: Value = stored.outcome.and_then(|outcome| serde_json::from_str(&outcome).ok()).unwrap_or_default();
            answer(StatusCode::OK, json!({ "feed": feed, "state": stored.state, "manifest": manifest, "receipt": stored.receipt, "outcome": outcome }))
        }
    }
}
