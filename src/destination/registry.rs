//! The adapter's side of the feed protocol: send a claimed feed to a Watershed registry, verify its receipt.
//!
//! Safe to repeat at any point: the registry answers a repeated feed with the receipt it gave first. What the registry holds of
//! the site can be asked for, for an outbox that does not know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::feed::{Current, EPOCH_HEADER, Manifest, RECEIPT_TYPE, ReceiptClaims, SCOPE, Standing, feed_id, sha256_hex};
use crate::http::{Authorizer, Boxed, Client, Clock, HttpError, Origin, Request, Response, Settings, one_line};
use crate::outbox::{self, Claim, OutboxError, Outcome, Remaining};
use crate::smart::assertion::{Jwks, SigningKey};
use crate::smart::client::{Audience, TokenClient, TokenSettings, discover};
use crate::store::{Store, StoreError};

/// How long a process may hold a feed before another may take it over; longer than all its attempts.
const LEASE: Duration = Duration::from_secs(3600);
/// Reasons kept of one rejection.
const REASONS_MAX: usize = 200;
/// Characters of each that are kept.
const REASON_CHARS_MAX: usize = 2_000;
/// Feeds sent in one call of [`deliver_due`].
const FEEDS_MAX: usize = 1_000;
/// What to do where the registry holds something else than this outbox believes.
const ADOPT: &str = "`watershed outbox adopt` shows what the registry holds, and lets this site go on from there";

/// A registry as one site sees it.
pub struct Registry {
    /// Where it is.
    pub base: Url,
    /// A client whose tokens go to that origin.
    pub client: Client,
}

impl Registry {
    /// A registry whose tokens are got as SMART Backend Services has it: discovery, then the token endpoint it
    /// names, which must be at the registry's own origin.
    pub fn connect(base: Url, client_id: String, key: SigningKey, settings: &Settings, clock: Arc<dyn Clock>) -> Result<Registry, HttpError> {
        let origin = Origin::of(&base).ok_or_else(|| HttpError::Settings("the registry's address has no host".to_owned()))?;
        let plain = Client::new(settings.clone())?;
        let tokens = Tokens { plain, base: base.clone(), client_id, key, settings: settings.clone(), clock: clock.clone(), found: tokio::sync::OnceCell::new() };
        let client = Client::new(settings.clone())?.with_clock(clock).with_tokens(Arc::new(tokens), [origin]);
        Ok(Registry { base, client })
    }
}

/// Tokens by discovery at the first use, so that a registry that is down costs a wait and not the start.
struct Tokens {
    plain: Client,
    base: Url,
    client_id: String,
    key: SigningKey,
    settings: Settings,
    clock: Arc<dyn Clock>,
    found: tokio::sync::OnceCell<TokenClient>,
}

impl Tokens {
    async fn find(&self) -> Result<TokenClient, HttpError> {
        let missing = || HttpError::Settings("the registry does not say where its tokens are".to_owned());
        let configuration = discover(&self.plain, &self.base).await?.ok_or_else(missing)?;
        let endpoint = configuration.token_endpoint.ok_or_else(missing)?;
        if Origin::of(&endpoint) != Origin::of(&self.base) {
            return Err(HttpError::Settings("the registry names a token endpoint at another origin".to_owned()));
        }
        let (client_id, key) = (self.client_id.clone(), self.key.clone());
        let (audience, scopes, needs) = (Audience::Endpoint, vec![SCOPE.to_owned()], BTreeSet::new());
        let settings = TokenSettings { endpoint, audience, client_id, key, scopes, needs, accepted_before: false };
        Ok(TokenClient::new(Client::new(self.settings.clone())?, settings, self.clock.clone()))
    }
}

impl Authorizer for Tokens {
    fn token(&self) -> Boxed<'_, Result<String, HttpError>> {
        Box::pin(async { self.found.get_or_try_init(|| self.find()).await?.fetch().await })
    }

    fn rejected(&self, token: &str) {
        if let Some(found) = self.found.get() {
            found.rejected(token);
        }
    }
}

/// Gives a report's bytes by digest.
pub type Parts<'a> = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'a;

/// Sends one claimed feed and says what became of it, and whether the registry had it already.
async fn deliver(registry: &Registry, claim: &Claim, part: &Parts<'_>, jitter: f64) -> (Outcome, bool) {
    let outcome = match send(registry, claim, part).await {
        Ok((receipt, was_there)) => return (Outcome::Delivered { receipt }, was_there),
        Err(Failed::Dead(reasons)) => Outcome::Dead { reasons: contradicted(claim, reasons) },
        Err(Failed::Again(reason)) => Outcome::Retry { reason, after: outbox::backoff(claim.attempts, jitter), refused: false },
        Err(Failed::Refused(reason)) => Outcome::Retry { reason, after: outbox::backoff(claim.attempts, jitter), refused: true },
    };
    (outcome, false)
}

/// The reasons of a refusal; where the feed was accepted before, with what that means.
fn contradicted(claim: &Claim, mut reasons: Vec<String>) -> Vec<String> {
    if claim.confirming && !reasons.iter().any(|reason| reason.contains(ADOPT)) {
        reasons.push(format!("it accepted this feed before, and does not hold it any more; {ADOPT}"));
    }
    reasons
}

/// What one round of delivery did, and what it left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Feeds accepted now.
    pub delivered: u64,
    /// Unchanged nights the registry was told of.
    pub confirmed: u64,
    /// Feeds that it had taken once and no longer knew, and took again.
    pub restored: u64,
    /// How often the registry answered and would not have us; what it refused waits.
    pub refused: u64,
    /// What is left to be sent or looked at, of this round and of earlier ones.
    pub remaining: Remaining,
}

/// Why a round of delivery stopped.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The state database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The outbox refused.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Delivers every feed that is due, in order, until none is left. Only one process may call this for a
/// database at a time (the store's lock sees to it).
pub async fn deliver_due(registry: &Registry, store: &Store, now: &(dyn Fn() -> Timestamp + Send + Sync)) -> Result<Delivered, DeliverError> {
    let mut done = Delivered::default();
    for _ in 0..FEEDS_MAX {
        let Some(claim) = store.with(|connection| Ok(outbox::claim(connection, now(), LEASE)))?? else { break };
        let part = |digest: &str| store.with(|connection| Ok(outbox::part(connection, digest))).ok()?.ok()?;
        let (outcome, was_there) = deliver(registry, &claim, &part, random_fraction()).await;
        match (&outcome, claim.confirming) {
            (Outcome::Delivered { .. }, true) if was_there => done.confirmed += 1,
            (Outcome::Delivered { .. }, true) => done.restored += 1,
            (Outcome::Delivered { .. }, false) => done.delivered += 1,
            (Outcome::Retry { refused, .. }, _) => done.refused += u64::from(*refused),
            (Outcome::Dead { reasons }, _) => {
                tracing::warn!(feed = claim.feed, reason = reasons.first(), "the registry rejected a feed");
            }
        }
        store.with(|connection| Ok(outbox::settle(connection, &claim, &outcome, now())))??;
    }
    done.remaining = store.with(|connection| Ok(outbox::remaining(connection)))??;
    Ok(done)
}

fn random_fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

enum Failed {
    Again(String),
    Refused(String),
    Dead(Vec<String>),
}

/// What the registry says of a feed.
#[derive(Deserialize)]
struct Answer {
    state: String,
    #[serde(default)]
    missing: Vec<String>,
    receipt: Option<String>,
    /// Whether a committed feed is the last one.
    current: Option<bool>,
}

/// Why the registry did not say what it holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It did not answer, or not so that it could be believed.
    #[error("{0}")]
    Unreachable(String),
    /// It answered and refused.
    #[error("{0}")]
    Rejected(String),
}

impl From<Failed> for AskError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Again(reason) => AskError::Unreachable(reason),
            Failed::Refused(reason) => AskError::Rejected(reason),
            Failed::Dead(reasons) => AskError::Rejected(reasons.join("; ")),
        }
    }
}

/// Asks what the registry holds of this site; the receipt of its last feed is verified.
pub async fn standing(registry: &Registry) -> Result<Standing, AskError> {
    let request = Request::new(Method::GET, address(registry, &["v1", "feeds"])?);
    let answer = registry.client.send(request).await.map_err(refused)?;
    if matches!(answer.status, 404 | 405) {
        return Err(AskError::Rejected(format!(
            "the registry does not tell what it holds (status {}): it is older than this program; ask the network to bring it up to date",
            answer.status
        )));
    }
    let standing: Standing = accept(answer)?.json().ok_or_else(|| AskError::Unreachable("the registry's answer cannot be read".into()))?;
    if let Some(head) = &standing.head {
        let bytes = head.manifest.bytes();
        let verified = match feed_id(&bytes) == head.feed {
            true => verify_receipt(&head.receipt, &keys(registry).await?, &standing.site, &head.feed, &bytes, &head.manifest).map(drop),
            false => Err("it is not named by its digest".to_owned()),
        };
        verified.map_err(|reason| AskError::Unreachable(format!("the feed that the registry says it holds is not believed: {reason}")))?;
    }
    Ok(standing)
}

/// The current reports that are not at hand already, by digest, as the registry holds them.
pub async fn current_reports(registry: &Registry, current: &[Current], is_at_hand: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>, AskError> {
    let mut bodies = BTreeMap::new();
    for report in current.iter().filter(|report| !is_at_hand(&report.sha256)) {
        let path = address(registry, &["v1", "feeds", &report.feed, "parts", &report.sha256])?;
        let answer = ask(registry, Request::new(Method::GET, path)).await?;
        if sha256_hex(&answer.body) != report.sha256 {
            return Err(AskError::Unreachable(format!("the registry's report `{}` is not the one that its digest names", report.key)));
        }
        bodies.insert(report.sha256.clone(), answer.body);
    }
    Ok(bodies)
}

async fn keys(registry: &Registry) -> Result<Jwks, Failed> {
    let keys = Request::new(Method::GET, address(registry, &[".well-known", "jwks.json"])?).without_token();
    ask(registry, keys).await?.json().ok_or_else(|| Failed::Again("the registry's keys cannot be read".into()))
}

/// The receipt, and whether the feed had been taken before.
async fn send(registry: &Registry, claim: &Claim, part: &Parts<'_>) -> Result<(String, bool), Failed> {
    let manifest: Manifest = serde_json::from_slice(&claim.manifest).map_err(|_| Failed::Dead(vec!["the stored manifest is damaged".into()]))?;
    let announce = request(registry, claim, Method::PUT, &[])?.body("application/json", claim.manifest.clone());
    let answer = read(&ask(registry, announce).await?)?;
    // It was taken once, and others since: the outbox that knows of those is another one.
    if answer.current == Some(false) {
        return Err(Failed::Dead(vec![format!("the registry has taken a later feed of this site than this one; {ADOPT}")]));
    }
    let was_there = answer.state == "committed";
    let receipt = match answer.receipt {
        Some(receipt) if was_there => receipt,
        _ => {
            for digest in &answer.missing {
                // Only what the manifest names is ever sent, whatever the registry asks for.
                let named = manifest.reports.iter().any(|entry| &entry.sha256 == digest);
                let body = part(digest)
                    .filter(|_| named)
                    .ok_or_else(|| Failed::Dead(vec!["the registry asks for a report that is not in the feed".into()]))?;
                let put = request(registry, claim, Method::PUT, &["parts", digest])?.body("application/fhir+json", body);
                ask(registry, put).await?;
            }
            let commit = request(registry, claim, Method::POST, &["commit"])?.repeatable();
            read(&ask(registry, commit).await?)?
                .receipt
                .ok_or_else(|| Failed::Again("the registry's answer has no receipt".into()))?
        }
    };
    let keys = keys(registry).await?;
    verify_receipt(&receipt, &keys, &claim.site, &claim.feed, &claim.manifest, &manifest).map_err(|reason| Failed::Again(format!("receipt refused: {reason}")))?;
    Ok((receipt, was_there))
}

fn address(registry: &Registry, segments: &[&str]) -> Result<Url, Failed> {
    let mut url = registry.base.clone();
    url.path_segments_mut()
        .map_err(|()| Failed::Dead(vec!["the registry's address cannot have a path".into()]))?
        .pop_if_empty()
        .extend(segments);
    Ok(url)
}

fn request(registry: &Registry, claim: &Claim, method: Method, tail: &[&str]) -> Result<Request, Failed> {
    let segments: Vec<&str> = ["v1", "feeds", &claim.feed].into_iter().chain(tail.iter().copied()).collect();
    let request = Request::new(method, address(registry, &segments)?);
    Ok(request.header("idempotency-key", &claim.feed).header(EPOCH_HEADER, &claim.epoch.to_string()))
}

fn read(response: &Response) -> Result<Answer, Failed> {
    response.json().ok_or_else(|| Failed::Again("the registry's answer cannot be read".into()))
}

async fn ask(registry: &Registry, request: Request) -> Result<Response, Failed> {
    accept(registry.client.send(request).await.map_err(refused)?)
}

fn refused(error: HttpError) -> Failed {
    if error.is_refusal() { Failed::Refused(error.to_string()) } else { Failed::Again(error.to_string()) }
}

/// The one table of what an answer means for the feed.
fn accept(response: Response) -> Result<Response, Failed> {
    let reasons = || reasons(&response);
    match response.status {
        200..=299 => Ok(response),
        // Parts that are missing, or a feed that expired meanwhile: announcing it anew heals both.
        404 => Err(Failed::Again("the registry does not know the feed (any more)".into())),
        422 if is_incomplete(&response) => Err(Failed::Again(reasons().join("; "))),
        // Another adapter sends for the site, or this one's data directory is new or an old copy.
        409 | 412 => Err(Failed::Dead(vec![format!("{}; {ADOPT}", reasons().join("; "))])),
        400 | 403 | 405 | 410 | 413 | 415 | 422 => Err(Failed::Dead(reasons())),
        status => Err(Failed::Again(format!("the registry answered {status}: {}", reasons().join("; ")))),
    }
}

fn issues(response: &Response) -> Vec<Value> {
    let outcome: Value = response.json().unwrap_or_default();
    outcome.get("issue").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn is_incomplete(response: &Response) -> bool {
    let issues = issues(response);
    !issues.is_empty() && issues.iter().all(|issue| issue.get("code").and_then(Value::as_str) == Some("incomplete"))
}

fn reasons(response: &Response) -> Vec<String> {
    let text = |issue: &Value| issue.pointer("/details/text").and_then(Value::as_str).map(|text| one_line(text, REASON_CHARS_MAX));
    let found: Vec<String> = issues(response).iter().filter_map(text).take(REASONS_MAX).collect();
    if found.is_empty() { vec![format!("status {} without a reason", response.status)] } else { found }
}

/// Verifies a receipt: the registry's signature, and that it speaks of exactly this feed.
pub fn verify_receipt(receipt: &str, keys: &Jwks, site: &str, feed: &str, manifest_bytes: &[u8], manifest: &Manifest) -> Result<ReceiptClaims, String> {
    let header = jsonwebtoken::decode_header(receipt).map_err(|_| "not a JWS")?;
    if header.typ.as_deref() != Some(RECEIPT_TYPE) || header.alg != Algorithm::ES384 {
        return Err("not a receipt signed with ES384".into());
    }
    let kid = header.kid.ok_or("its key is not named")?;
    let mut named = keys.keys.iter().filter(|key| key.common.key_id.as_deref() == Some(kid.as_str()));
    let (Some(key), None) = (named.next(), named.next()) else { return Err("its key is not among the registry's keys".into()) };
    let key = DecodingKey::from_jwk(key).map_err(|_| "the registry's key cannot be used")?;
    let mut validation = Validation::new(Algorithm::ES384);
    validation.required_spec_claims.clear();
    validation.validate_exp = false; // a receipt is true for ever
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<ReceiptClaims>(receipt, &key, &validation).map_err(|_| "the signature does not verify")?.claims;
    if claims.sub != site || claims.feed != feed || claims.manifest_sha256 != sha256_hex(manifest_bytes) {
        return Err("it speaks of another feed".into());
    }
    let promised = |key: &crate::feed::ReportKey, digest: Option<&str>| claims.reports.iter().any(|entry| &entry.key == key && entry.sha256.as_deref() == digest);
    let all_reports = manifest.reports.iter().all(|entry| promised(&entry.key, Some(&entry.sha256)));
    let all_withdrawals = manifest.withdrawals.iter().all(|withdrawal| promised(&withdrawal.key, None));
    if !(all_reports && all_withdrawals) {
        return Err("it does not name every report of the feed".into());
    }
    Ok(claims)
}
