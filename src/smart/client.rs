//! Access tokens by SMART Backend Services: discovery, one token reused and refreshed in time, one refresh at a time.

use super::assertion::{SigningKey, sign_client_assertion};
use crate::http::{Authorizer, Boxed, Client, Clock, HttpError, Request, Response};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

/// Life assumed of a token whose server does not say, in seconds: SMART recommends no more.
const LIFETIME_SECONDS_ASSUMED: i64 = 300;
/// Longest life believed, in seconds.
const LIFETIME_SECONDS_MAX: i64 = 24 * 3600;
/// Attempts at the token endpoint, each with an assertion of its own.
const ATTEMPTS_MAX: u32 = 5;
/// Attempts after a refusal by a server that has accepted this client before (some refuse at random).
const ATTEMPTS_REFUSED_MAX: u32 = 3;
/// First wait between attempts.
const WAIT_FIRST: Duration = Duration::from_millis(500);

/// `/.well-known/smart-configuration`, as far as it is used. Only the token endpoint is trusted to be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmartConfiguration {
    /// Where tokens are had, absolute.
    pub token_endpoint: Option<Url>,
    /// Scopes are written `system/X.rs` (`permission-v2`).
    pub scopes_v2: bool,
    /// Scopes are written `system/X.read` (`permission-v1`).
    pub scopes_v1: bool,
}

#[derive(Deserialize)]
struct Document {
    token_endpoint: Option<String>,
    capabilities: Option<serde_json::Value>,
}

/// Reads the server's SMART configuration below the FHIR base; `None` when it has none that can be read.
pub async fn discover(client: &Client, base: &Url) -> Result<Option<SmartConfiguration>, HttpError> {
    let address = below(base, ".well-known/smart-configuration")?;
    let answer = client.send(Request::new(Method::GET, address).header("accept", "application/json").without_token()).await?;
    if !answer.is_success() {
        return Ok(None);
    }
    let Some(document) = answer.json::<Document>() else { return Ok(None) };
    let names: Vec<String> = document
        .capabilities
        .and_then(|value| value.as_array().cloned())
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let endpoint = document.token_endpoint.as_deref().and_then(|text| slashed(base).join(text).ok());
    Ok(Some(SmartConfiguration {
        token_endpoint: endpoint,
        scopes_v2: names.iter().any(|name| name == "permission-v2"),
        scopes_v1: names.iter().any(|name| name == "permission-v1"),
    }))
}

/// `base` with a final slash, so that relative addresses resolve below it.
pub fn slashed(base: &Url) -> Url {
    let mut base = base.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    base
}

/// An address below the FHIR base.
pub fn below(base: &Url, path: &str) -> Result<Url, HttpError> {
    slashed(base).join(path).map_err(|_| HttpError::Settings(format!("`{path}` does not make an address")))
}

/// What a token client needs to know.
pub struct TokenSettings {
    /// The token endpoint; also the assertion's audience.
    pub endpoint: Url,
    /// The client's registered name.
    pub client_id: String,
    /// Its key.
    pub key: SigningKey,
    /// What to ask for: the preferred writing of the scopes first, then another one to fall back to once.
    pub scopes: Vec<String>,
}

struct Held {
    token: String,
    refresh_at: Timestamp,
}

#[derive(Default)]
struct Progress {
    succeeded: bool,
    writing: usize,
}

/// Gets and keeps one access token. Share it: any number of users cause one request per token's life.
pub struct TokenClient {
    http: Client,
    settings: TokenSettings,
    clock: Arc<dyn Clock>,
    held: Mutex<Option<Held>>,
    granted: Mutex<Option<String>>,
    single_flight: tokio::sync::Mutex<Progress>,
}

impl std::fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenClient").field("client_id", &self.settings.client_id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<String>,
}

enum Failure {
    Again(HttpError),
    Refused { code: String },
    Final(HttpError),
}

impl TokenClient {
    /// A token client that speaks through `http`, which must be one without tokens of its own.
    pub fn new(http: Client, settings: TokenSettings, clock: Arc<dyn Clock>) -> TokenClient {
        TokenClient { http, settings, clock, held: Mutex::new(None), granted: Mutex::new(None), single_flight: tokio::sync::Mutex::new(Progress::default()) }
    }

    /// The scopes of the last token, as the server wrote them; `None` before the first token or when it did not say.
    pub fn granted(&self) -> Option<String> {
        self.granted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Which of the resource types the granted scopes do not let us read. Empty when the server does not say.
    pub fn not_granted(&self, types: &BTreeSet<String>) -> Vec<String> {
        let Some(granted) = self.granted() else { return Vec::new() };
        types.iter().filter(|name| !granted.split_whitespace().any(|scope| grants_read(scope, name))).cloned().collect()
    }

    fn current(&self) -> Option<String> {
        let held = self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        held.as_ref().filter(|held| self.clock.now() < held.refresh_at).map(|held| held.token.clone())
    }

    /// A token that is good now.
    pub async fn fetch(&self) -> Result<String, HttpError> {
        if let Some(token) = self.current() {
            return Ok(token);
        }
        let mut progress = self.single_flight.lock().await;
        if let Some(token) = self.current() {
            return Ok(token);
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.request(progress.writing).await {
                Ok(token) => {
                    progress.succeeded = true;
                    return Ok(token);
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Refused { code } if code == "invalid_scope" && progress.writing + 1 < self.settings.scopes.len() => {
                    progress.writing += 1;
                    attempt = 0;
                }
                Failure::Refused { .. } if progress.succeeded && attempt < ATTEMPTS_REFUSED_MAX => self.pause(attempt).await,
                Failure::Refused { code } => return Err(HttpError::Token(self.refusal(&code))),
                Failure::Again(_) if attempt < ATTEMPTS_MAX => self.pause(attempt).await,
                Failure::Again(error) | Failure::Final(error) => return Err(error),
            }
        }
    }

    async fn pause(&self, attempt: u32) {
        tokio::time::sleep(WAIT_FIRST.saturating_mul(2u32.saturating_pow(attempt - 1))).await;
    }

    fn refusal(&self, code: &str) -> String {
        format!(
            "the authorization server refused client `{}` with `{code}`; is its public key (kid `{}`) registered there, and is the clock right",
            self.settings.client_id,
            self.settings.key.kid()
        )
    }

    async fn request(&self, writing: usize) -> Result<String, Failure> {
        let endpoint = &self.settings.endpoint;
        let jti = uuid::Uuid::new_v4().to_string();
        let now = self.clock.now();
        let assertion = sign_client_assertion(&self.settings.key, &self.settings.client_id, endpoint.as_str(), now, &jti)
            .map_err(|error| Failure::Final(HttpError::Token(error.to_string())))?;
        let scope = self.settings.scopes.get(writing).map(String::as_str).unwrap_or_default();
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("scope", scope)
            .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .append_pair("client_assertion", &assertion)
            .finish();
        let request = Request::new(Method::POST, endpoint.clone())
            .header("accept", "application/json")
            .body("application/x-www-form-urlencoded", form.into_bytes())
            .without_token()
            .once();
        let answer = self.http.send(request).await.map_err(|error| match error {
            HttpError::Unreachable { .. } => Failure::Again(error),
            other => Failure::Final(other),
        })?;
        self.accept(&answer, now)
    }

    fn accept(&self, answer: &Response, now: Timestamp) -> Result<String, Failure> {
        let wrong = |text: &str| Failure::Final(HttpError::Token(text.to_owned()));
        match answer.status {
            200..=299 => {}
            408 | 425 | 429 | 500..=599 => {
                return Err(Failure::Again(HttpError::Token(format!("the token endpoint answers {}", answer.status))));
            }
            status => {
                let named = answer.json::<Refusal>().and_then(|refusal| refusal.error);
                // Only the registered error codes' alphabet, so that nothing else of the body reaches a log.
                let code = named.filter(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
                return Err(Failure::Refused { code: code.unwrap_or_else(|| format!("status {status}")) });
            }
        }
        let granted: Granted = answer.json().ok_or_else(|| wrong("the token endpoint's answer is not the JSON of RFC 6749"))?;
        if granted.access_token.is_empty() || !granted.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("the token endpoint gave no usable token"));
        }
        if granted.token_type.is_some_and(|name| !name.eq_ignore_ascii_case("bearer")) {
            return Err(wrong("the token endpoint gave a token that is not a bearer token"));
        }
        let seconds = lifetime(granted.expires_in.as_ref());
        let margin = (seconds / 10).max(30).min(seconds / 2);
        let refresh_at = Timestamp::from_second(now.as_second() + seconds - margin).unwrap_or(now);
        *self.granted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = granted.scope;
        let held = Held { token: granted.access_token.clone(), refresh_at };
        *self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(held);
        Ok(granted.access_token)
    }
}

impl Authorizer for TokenClient {
    fn token(&self) -> Boxed<'_, Result<String, HttpError>> {
        Box::pin(self.fetch())
    }

    fn rejected(&self, token: &str) {
        let mut held = self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if held.as_ref().is_some_and(|held| held.token == token) {
            *held = None;
        }
    }
}

/// Seconds a token lives: a number, or a number as text; anything else is taken as SMART's recommended limit.
fn lifetime(value: Option<&serde_json::Value>) -> i64 {
    let seconds = match value {
        Some(serde_json::Value::Number(number)) => number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)),
        Some(serde_json::Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    seconds.filter(|seconds| *seconds > 0).unwrap_or(LIFETIME_SECONDS_ASSUMED).min(LIFETIME_SECONDS_MAX)
}

/// Whether a granted system scope lets us read and search a type: `system/X.read`, `.rs`, `.cruds`, `.*`, and `*` for X.
fn grants_read(scope: &str, resource_type: &str) -> bool {
    let Some((name, rights)) = scope.strip_prefix("system/").and_then(|rest| rest.split_once('.')) else { return false };
    if rights.contains('?') {
        return false;
    }
    let reads = rights == "read" || rights == "*" || (rights.contains('r') && rights.contains('s') && !rights.contains('w'));
    (name == "*" || name == resource_type) && reads
}

/// The scopes for reading `types`, in the writing the server prefers first and the other one second.
pub fn scopes_for(types: &BTreeSet<String>, configuration: &SmartConfiguration) -> Vec<String> {
    let write = |right: &str| types.iter().map(|name| format!("system/{name}.{right}")).collect::<Vec<_>>().join(" ");
    if configuration.scopes_v1 && !configuration.scopes_v2 { vec![write("read"), write("rs")] } else { vec![write("rs"), write("read")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_let_us_read() {
        let cases = [
            ("system/Observation.read", true),
            ("system/Observation.rs", true),
            ("system/*.read", true),
            ("system/*.cruds", true),
            ("system/Observation.*", true),
            ("system/Observation.write", false),
            ("system/Observation.r", false),
            ("system/Patient.rs", false),
            ("user/Observation.rs", false),
            ("system/Observation.rs?category=laboratory", false),
            ("openid", false),
        ];
        for (scope, expected) in cases {
            assert_eq!(grants_read(scope, "Observation"), expected, "{scope}");
        }
    }

    #[test]
    fn lifetimes_as_servers_write_them() {
        use serde_json::json;
        let cases = [
            (json!(300), 300),
            (json!("300"), 300),
            (json!(299.7), 299),
            (json!(0), 300),
            (json!(-5), 300),
            (json!(null), 300),
            (json!("soon"), 300),
            (json!(99_999_999_999_i64), LIFETIME_SECONDS_MAX),
        ];
        for (value, expected) in cases {
            assert_eq!(lifetime(Some(&value)), expected, "{value}");
        }
    }
}
