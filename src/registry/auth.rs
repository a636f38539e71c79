//! Who is asking: client registration by JWKS, SMART Backend Services tokens, and the tenant of a request.
//!
//! A site is known by its token alone. Tokens are opaque, live five minutes and are stored as digests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::feeds::refuse;
use super::knocks::Why;
use super::protocol::{Problem, Refusal};
use super::store::{self, Site};
use super::{Registry, sha256_hex};
pub use crate::feed::SCOPE;
use crate::smart::assertion::{Jwks, verify_client_assertion};

/// Bytes of a token request.
pub const TOKEN_BODY_BYTES_MAX: usize = 16 << 10;
/// Bytes of a published JWK Set.
const JWKS_BYTES_MAX: usize = 64 << 10;
/// How long a published JWK Set is believed without asking again.
const JWKS_FRESH: Duration = Duration::from_secs(300);
/// How long a client's host may take to answer.
const JWKS_WAIT: Duration = Duration::from_secs(10);
/// Clients whose published keys are kept.
const JWKS_KEPT_MAX: usize = 1_000;
/// Life of a token, the most SMART recommends.
const TOKEN_SECONDS: i64 = 300;
/// Bytes of randomness of a token.
const TOKEN_BYTES: usize = 32;

/// `/.well-known/smart-configuration`.
pub(super) async fn configuration(State(registry): State<Registry>) -> Json<Value> {
    let base = &registry.options.public_url;
    Json(json!({
        "issuer": base,
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/.well-known/jwks.json"),
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": [SCOPE],
        "capabilities": ["client-confidential-asymmetric", "permission-v2"],
    }))
}

/// `/.well-known/jwks.json`: the keys that receipts are signed with.
pub(super) async fn jwks(State(registry): State<Registry>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(registry.key.jwks().clone())).into_response()
}

/// An answer of RFC 6749, section 5.2.
struct OAuthError(StatusCode, &'static str, String);

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        (self.0, no_store(), Json(json!({ "error": self.1, "error_description": self.2 }))).into_response()
    }
}

fn no_store() -> [(header::HeaderName, &'static str); 2] {
    [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")]
}

fn invalid_request(text: impl Into<String>) -> OAuthError {
    OAuthError(StatusCode::BAD_REQUEST, "invalid_request", text.into())
}

/// Why a client was not believed goes to the log; the client, known or not, is told this.
fn invalid_client() -> OAuthError {
    OAuthError(StatusCode::UNAUTHORIZED, "invalid_client", "the client assertion was not accepted".into())
}

/// `POST /token`.
pub(super) async fn token(State(registry): State<Registry>, headers: HeaderMap, body: Bytes) -> Response {
    match grant(&registry, &headers, &body).await {
        Ok(token) => (no_store(), Json(token)).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn grant(registry: &Registry, headers: &HeaderMap, body: &[u8]) -> Result<Value, OAuthError> {
    let form = form(headers, body)?;
    let field = |name: &str| form.get(name).map(String::as_str).ok_or_else(|| invalid_request(format!("`{name}` is missing")));
    if field("grant_type")? != "client_credentials" {
        return Err(OAuthError(StatusCode::BAD_REQUEST, "unsupported_grant_type", "only `client_credentials` is granted".into()));
    }
    if field("client_assertion_type")? != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
        return Err(invalid_request("`client_assertion_type` must be `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`"));
    }
    let site = client(registry, field("client_assertion")?).await?;
    let scopes: Vec<&str> = field("scope")?.split_ascii_whitespace().collect();
    if scopes.is_empty() || scopes.iter().any(|scope| *scope != SCOPE) {
        return Err(OAuthError(StatusCode::BAD_REQUEST, "invalid_scope", format!("the scope granted here is `{SCOPE}`")));
    }
    let mut random = [0_u8; TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| unavailable())?;
    let token = BASE64_URL_SAFE_NO_PAD.encode(random);
    let (digest, now) = (sha256_hex(token.as_bytes()), registry.now());
    let expires = now.saturating_add(SignedDuration::from_secs(TOKEN_SECONDS)).map_err(|_| unavailable())?;
    let stored = registry.store.writing(move |transaction| {
        store::add_token(transaction, &digest, site.id, SCOPE, expires, now)?;
        Ok::<_, rusqlite::Error>(())
    });
    stored.await.map_err(|error| out_of_order(&error))?;
    Ok(json!({ "access_token": token, "token_type": "bearer", "expires_in": TOKEN_SECONDS, "scope": SCOPE }))
}

/// Where the database refuses.
fn out_of_order(error: &rusqlite::Error) -> OAuthError {
    super::feeds::log_failure(error);
    unavailable()
}

fn unavailable() -> OAuthError {
    OAuthError(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "try again".into())
}

fn form(headers: &HeaderMap, body: &[u8]) -> Result<BTreeMap<String, String>, OAuthError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
        return Err(invalid_request("the request must be `application/x-www-form-urlencoded`"));
    }
    let mut form = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        if form.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(invalid_request("a parameter occurs twice"));
        }
    }
    Ok(form)
}

/// The site whose assertion this is, verified against its registered keys, and never seen before. Who is refused is told no more than that;
/// the board and the log say why.
async fn client(registry: &Registry, assertion: &str) -> Result<Site, OAuthError> {
    let claims = part_of(assertion, 1).ok_or_else(invalid_client)?;
    let issuer = text_of(&claims, "iss").ok_or_else(invalid_client)?;
    let asked = issuer.clone();
    let site = registry
        .store
        .reading(move |connection| store::site_of_client(connection, &asked))
        .await
        .map_err(|error| out_of_order(&error))?;
    let now = registry.now();
    let refuse = |why: Why| {
        let key = part_of(assertion, 0).and_then(|header| text_of(&header, "kid"));
        registry.knocks.note(&issuer, key.as_deref(), site.as_ref().map(|site| site.name.as_str()), why, now);
        invalid_client()
    };
    let site = site.as_ref().ok_or_else(|| refuse(Why::Client))?;
    let keys = registry.client_keys.of(site).await.ok_or_else(|| refuse(Why::Unpublished))?;
    let audiences = [format!("{}/token", registry.options.public_url)];
    let verified = verify_client_assertion(assertion, &audiences, now, |issuer| (issuer == site.client_id).then(|| keys.clone()))
        .inspect_err(|reason| tracing::warn!(site = site.name, %reason, "client assertion refused"))
        .map_err(|reason| refuse(Why::Assertion(reason)))?;
    let (client, jti, expires) = (verified.client_id, verified.jti, verified.expires);
    let fresh = registry.store.writing(move |transaction| store::use_assertion(transaction, &client, &jti, expires, now));
    if !fresh.await.map_err(|error: rusqlite::Error| out_of_order(&error))? {
        tracing::warn!(site = site.name, "client assertion refused: used before");
        return Err(refuse(Why::Replayed));
    }
    registry.knocks.forget(&issuer);
    Ok(site.clone())
}

/// A part of an assertion as it claims to be; nothing is believed yet.
fn part_of(assertion: &str, part: usize) -> Option<Value> {
    if assertion.len() > TOKEN_BODY_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(assertion.split('.').nth(part)?).ok()?).ok()
}

fn text_of(part: &Value, name: &str) -> Option<String> {
    Some(part.get(name)?.as_str()?.to_owned())
}

/// Keys that clients publish, kept for a while.
pub(super) struct ClientKeys {
    client: reqwest::Client,
    /// By address.
    kept: Mutex<BTreeMap<String, (Instant, Jwks)>>,
}

impl ClientKeys {
    pub(super) fn new() -> Result<Self, super::RegistryError> {
        let builder = || reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(JWKS_WAIT);
        // A system without any certificates (a bare container) can still serve sites that gave their keys as a file.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let client = client.map_err(|error| super::RegistryError::Configuration(format!("no HTTP client: {error}")))?;
        Ok(Self { client, kept: Mutex::default() })
    }

    /// The keys of a site, from its registration or from where it publishes them.
    async fn of(&self, site: &Site) -> Option<Jwks> {
        if let Some(jwks) = &site.jwks {
            return serde_json::from_str(jwks).ok();
        }
        let address = site.jwks_url.as_deref()?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        if let Some((at, keys)) = kept.filter(|(at, _)| at.elapsed() < JWKS_FRESH) {
            let _ = at;
            return Some(keys);
        }
        let fetched = self.fetch(address).await;
        let keys = fetched
            .inspect_err(|reason| tracing::warn!(site.id = site.name, "the keys of this site cannot be had from {address}, so it is not let in: {reason}"))
            .ok()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= JWKS_KEPT_MAX {
            kept.clear();
        }
        kept.insert(address.to_owned(), (Instant::now(), keys.clone()));
        Some(keys)
    }

    async fn fetch(&self, address: &str) -> Result<Jwks, String> {
        let said = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.client.get(address).send().await.and_then(reqwest::Response::error_for_status).map_err(said)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(said)? {
            if body.len() + chunk.len() > JWKS_BYTES_MAX {
                return Err(format!("there are more than {JWKS_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| format!("it is no JWK Set: {error}"))
    }
}

/// Lets those read who know the readers' token, where the network has one: programs bear it, people give it as the password to any
/// name, for which their browser asks them.
pub(super) async fn reader(State(registry): State<Registry>, request: Request, next: Next) -> Response {
    let Some(expected) = &registry.options.reader_token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| given_token(value.to_str().ok()?));
    // Digests, so that the time it takes tells nothing of the token.
    let [given, expected] = [given.as_deref().unwrap_or_default(), expected].map(|token| sha256_hex(token.as_bytes()));
    if aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), expected.as_bytes()).is_ok() {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"registry\", charset=\"UTF-8\""), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::UNAUTHORIZED, challenge, "the readers' token of this network is needed").into_response()
}

/// A bearer token, or the password of Basic authentication (RFC 7617).
fn given_token(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(rest.trim()).ok()).flatten()?;
    String::from_utf8(pair).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

/// The site whose token came with the request.
pub(super) struct Tenant(pub Site);

impl FromRequestParts<Registry> for Tenant {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, registry: &Registry) -> Result<Self, Response> {
        let unauthorized = || {
            let refusal = Refusal::new(401, "login", "a valid bearer token is needed");
            let mut response = refuse(&Problem::Refused(refusal));
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        };
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(unauthorized)?;
        let (scheme, token) = value.split_once(' ').ok_or_else(unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > 256 {
            return Err(unauthorized());
        }
        let (digest, now) = (sha256_hex(token.trim().as_bytes()), registry.now());
        let site = registry.store.reading(move |connection| store::site_of_token(connection, &digest, now)).await;
        site.map_err(|error| refuse(&Problem::Database(error)))?.map(Tenant).ok_or_else(unauthorized)
    }
}
