//! Access tokens by SMART Backend Services: discovery, one token reused and refreshed in time, one refresh at a time.

use super::assertion::{AssertionError, SigningKey, sign_client_assertion, sign_for_issuer};
use crate::http::{ASKED_WAIT_MAX, Authorizer, Boxed, Client, Clock, HttpError, Request, Response, passes, retry_after};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// Life assumed of a token whose server does not say, in seconds: SMART recommends no more.
const LIFETIME_SECONDS_ASSUMED: i64 = 300;
/// Longest life believed, in seconds.
const LIFETIME_SECONDS_MAX: i64 = 24 * 3600;
/// Refusals in a row by a server that has accepted this client before (some refuse at random).
const REFUSALS_MAX: u32 = 4;
/// How far two clocks may be apart before a person is told, in seconds.
const CLOCKS_APART_SECONDS: i64 = 30;

/// `/.well-known/smart-configuration`, as far as it is used. Only the token endpoint is trusted to be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmartConfiguration {
    /// Where tokens are had, absolute.
    pub token_endpoint: Option<Url>,
    /// By what the authorization server knows itself.
    pub issuer: Option<String>,
    /// Scopes are written `system/X.rs` (`permission-v2`).
    pub scopes_v2: bool,
    /// Scopes are written `system/X.read` (`permission-v1`).
    pub scopes_v1: bool,
}

#[derive(Deserialize)]
struct Document {
    token_endpoint: Option<String>,
    issuer: Option<Value>,
    capabilities: Option<Value>,
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
        issuer: document.issuer.and_then(|issuer| Some(issuer.as_str()?.to_owned())),
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

/// Whom an assertion is for: authorization servers differ about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// The token endpoint's address (SMART App Launch, client-confidential-asymmetric).
    #[default]
    Endpoint,
    /// The server's issuer identifier, and the assertion's type says so.
    Issuer(String),
    /// What the server's administrator says.
    Named(String),
}

/// What a token client needs to know.
pub struct TokenSettings {
    /// The token endpoint.
    pub endpoint: Url,
    /// Whom the assertions are for.
    pub audience: Audience,
    /// The client's registered name.
    pub client_id: String,
    /// Its key.
    pub key: SigningKey,
    /// What to ask for: the preferred writing of the scopes first, then another one to fall back to once.
    pub scopes: Vec<String>,
    /// Resource types that a token must let us read; a token that falls short of them makes us try the other writing.
    pub needs: BTreeSet<String>,
    /// Whether the server is known to have accepted this client: then a refusal may be a passing one.
    pub accepted_before: bool,
}

struct Held {
    token: String,
    refresh_at: Timestamp,
}

struct Progress {
    /// A token was granted before.
    accepted: bool,
    /// Both writings of the scopes were compared, or the first one did.
    settled: bool,
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

/// A token endpoint's answer, RFC 6749 section 5.1.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
    scope: Option<Value>,
}

/// RFC 6749 section 5.2.
#[derive(Default, Deserialize)]
struct Refusal {
    error: Option<String>,
    /// Not in the RFC: the scopes that are refused.
    scope: Option<String>,
}

struct Granted {
    token: String,
    refresh_at: Timestamp,
    /// As the server wrote them; `None`: as asked for.
    scopes: Option<String>,
}

enum Failure {
    /// It may pass; after the wait that the server asked for.
    Again {
        error: HttpError,
        after: Option<Duration>,
    },
    Refused {
        code: String,
        /// All that a person is told.
        text: String,
    },
    Final(HttpError),
}

impl TokenClient {
    /// A token client that speaks through `http`, which must be one without tokens of its own.
    pub fn new(http: Client, settings: TokenSettings, clock: Arc<dyn Clock>) -> TokenClient {
        let progress = Progress { accepted: settings.accepted_before, settled: false, writing: 0 };
        TokenClient { http, settings, clock, held: Mutex::new(None), granted: Mutex::new(None), single_flight: tokio::sync::Mutex::new(progress) }
    }

    /// The scopes of the last token, as the server wrote them; `None` before the first token or when it did not say.
    pub fn granted(&self) -> Option<String> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The needed resource types that the last token does not let us read. Empty when the server does not say.
    pub fn not_granted(&self) -> Vec<String> {
        not_granted(self.granted().as_deref(), &self.settings.needs)
    }

    fn current(&self) -> Option<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
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
        let granted = self.obtain(&mut progress).await.map_err(|failure| match failure {
            Failure::Again { error, .. } | Failure::Final(error) => error,
            Failure::Refused { text, .. } => HttpError::Token(text),
        })?;
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = granted.scopes;
        let held = Held { token: granted.token.clone(), refresh_at: granted.refresh_at };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(granted.token)
    }

    /// A token by the writing of the scopes that serves; which one that is, is found out once.
    async fn obtain(&self, progress: &mut Progress) -> Result<Granted, Failure> {
        let first = self.attempts(progress).await;
        let (worth, is_unnamed) = (self.worth(&first), matches!(&first, Ok(Granted { scopes: None, .. })));
        if progress.settled || is_unnamed || worth.is_none_or(|worth| worth > self.settings.needs.len()) || self.settings.scopes.len() < 2 {
            progress.settled |= first.is_ok();
            return first;
        }
        let preferred = progress.writing;
        progress.writing = (preferred + 1) % self.settings.scopes.len();
        let second = self.attempts(progress).await;
        if self.worth(&second) > worth {
            progress.settled = second.is_ok();
            return second;
        }
        progress.writing = preferred;
        progress.settled = first.is_ok();
        first
    }

    /// What an answer is worth beside one to the other writing: nothing if it refuses the scopes, something if it gives a token, more with each
    /// needed type that it is known to grant; `None` if it is no answer.
    fn worth(&self, answer: &Result<Granted, Failure>) -> Option<usize> {
        let needs = &self.settings.needs;
        match answer {
            Ok(Granted { scopes: Some(scopes), .. }) => Some(1 + needs.len() - not_granted(Some(scopes), needs).len()),
            // That all is granted need not be so: what others name counts more, unless it is nothing.
            Ok(_) => Some(2),
            Err(Failure::Refused { code, .. }) if code == "invalid_scope" => Some(0),
            Err(_) => None,
        }
    }

    /// Tries until a token is had. Outages and refusals are counted apart: a server that refuses at random may be out of
    /// reach at times, too, and neither is a sign of the other.
    async fn attempts(&self, progress: &mut Progress) -> Result<Granted, Failure> {
        let attempts = self.http.retry().attempts;
        let (mut outages, mut refusals) = (0, 0);
        loop {
            let failure = match self.request(progress.writing).await {
                Ok(granted) => {
                    progress.accepted = true;
                    return Ok(granted);
                }
                Err(failure) => failure,
            };
            let (failed, after) = match &failure {
                Failure::Refused { code, .. } if code == "invalid_scope" && !progress.settled => return Err(failure),
                Failure::Refused { .. } => {
                    refusals += 1;
                    (refusals, None)
                }
                Failure::Again { after, .. } => {
                    (outages, refusals) = (outages + 1, 0);
                    (outages, *after)
                }
                Failure::Final(_) => return Err(failure),
            };
            let wait = self.http.retry().delay(failed, after);
            let reason = match failure {
                Failure::Refused { text, .. } if progress.accepted && refusals < REFUSALS_MAX.min(attempts) => text,
                Failure::Again { error, .. } if outages < attempts => error.cause(),
                Failure::Again { error, after } => return Err(Failure::Again { error: error.after(outages), after }),
                other => return Err(other),
            };
            self.http.retry().say_waiting(&reason, failed, wait, self.clock.now());
            self.clock.sleep(wait).await;
        }
    }

    async fn request(&self, writing: usize) -> Result<Granted, Failure> {
        let endpoint = &self.settings.endpoint;
        let now = self.clock.now();
        // Read anew, so that a key can be replaced while a job runs.
        let key = self.settings.key.current();
        let assertion = fresh_assertion(&key, &self.settings, now).map_err(|error| Failure::Final(HttpError::Token(error.to_string())))?;
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
            HttpError::Unreachable { .. } => Failure::Again { error, after: None },
            other => Failure::Final(other),
        })?;
        match answer.status {
            200..=299 => self.accept(&answer, now),
            status if status == 429 || passes(status) => {
                let after = answer.header("retry-after").and_then(|value| retry_after(value, now)).map(|wait| wait.min(ASKED_WAIT_MAX));
                Err(Failure::Again { error: HttpError::NoTokenNow(format!("the token endpoint answers {}", answer.status)), after })
            }
            _ => Err(self.refused(&answer, &key, scope, now)),
        }
    }

    /// What a refusal says to the person who can act on it, and nothing secret.
    fn refused(&self, answer: &Response, key: &SigningKey, asked: &str, now: Timestamp) -> Failure {
        let refusal = answer.json::<Refusal>().unwrap_or_default();
        let is_silent = refusal.error.is_none();
        // Only the registered error codes' alphabet, so that nothing else of the body reaches a log.
        let code = refusal.error.filter(|code| code.len() < 64 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        let code = code.unwrap_or_else(|| format!("status {}", answer.status));
        let said = match answer.said() {
            nothing if nothing.is_empty() && is_silent => " without a word why (some servers do so at random: try again)".to_owned(),
            said => said,
        };
        let (client, kid) = (&self.settings.client_id, key.kid());
        if code == "invalid_scope" {
            // Who the client is was accepted.
            let is_named = |scope: &&str| refusal.scope.iter().any(|named| named.split(' ').any(|named| named == *scope));
            let named: Vec<&str> = asked.split(' ').filter(is_named).collect();
            let refused = if named.is_empty() { asked.to_owned() } else { named.join(" ") };
            let text = format!(
                "the authorization server knows client `{client}` and refused scopes that it asked for with `{code}`{said}: `{refused}`; let the EHR team allow it each of them, or name in `source.scopes` those that it is allowed"
            );
            return Failure::Refused { code, text };
        }
        let clock = match answer.date().and_then(|theirs| apart(theirs, now)) {
            Some(apart) => format!("; {apart}, which makes assertions invalid: set this one right"),
            None => ", and is the client enabled for it".to_owned(),
        };
        let text = format!("the authorization server refused client `{client}` with `{code}`{said}; is its public key (kid `{kid}`) registered there{clock}");
        Failure::Refused { code, text }
    }

    fn accept(&self, answer: &Response, now: Timestamp) -> Result<Granted, Failure> {
        let wrong = |text: &str| Failure::Final(HttpError::Token(text.to_owned()));
        let granted: Answer = answer.json().ok_or_else(|| wrong("the token endpoint's answer is not the JSON of RFC 6749"))?;
        if granted.access_token.is_empty() || !granted.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("the token endpoint gave no usable token"));
        }
        if granted.token_type.is_some_and(|name| !name.eq_ignore_ascii_case("bearer")) {
            return Err(wrong("the token endpoint gave a token that is not a bearer token"));
        }
        let seconds = lifetime(granted.expires_in.as_ref());
        let margin = (seconds / 10).max(30).min(seconds / 2);
        let refresh_at = Timestamp::from_second(now.as_second() + seconds - margin).unwrap_or(now);
        let scopes = match granted.scope {
            Some(Value::String(text)) => Some(text),
            Some(Value::Array(list)) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
            _ => None,
        };
        Ok(Granted { token: granted.access_token, refresh_at, scopes })
    }
}

impl Authorizer for TokenClient {
    fn token(&self) -> Boxed<'_, Result<String, HttpError>> {
        Box::pin(self.fetch())
    }

    fn rejected(&self, token: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| held.token == token) {
            *held = None;
        }
    }
}

/// An assertion for one attempt; its `jti` is random, and so never seen before.
fn fresh_assertion(key: &SigningKey, settings: &TokenSettings, now: Timestamp) -> Result<String, AssertionError> {
    let (client, jti) = (&settings.client_id, uuid::Uuid::new_v4().to_string());
    match &settings.audience {
        Audience::Endpoint => sign_client_assertion(key, client, settings.endpoint.as_str(), now, &jti),
        Audience::Issuer(issuer) => sign_for_issuer(key, client, issuer, now, &jti),
        Audience::Named(audience) => sign_client_assertion(key, client, audience, now, &jti),
    }
}

/// How far a server's clock and ours are apart, in words, if that is far enough to harm.
pub fn apart(theirs: Timestamp, ours: Timestamp) -> Option<String> {
    let ahead = theirs.as_second() - ours.as_second();
    let word = if ahead > 0 { "behind" } else { "ahead of" };
    (ahead.abs() > CLOCKS_APART_SECONDS).then(|| format!("this computer's clock is {} s {word} the server's", ahead.abs()))
}

/// Seconds a token lives: a number, or a number as text; anything else is taken as SMART's recommended limit.
fn lifetime(value: Option<&Value>) -> i64 {
    let seconds = match value {
        Some(Value::Number(number)) => number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    seconds.filter(|seconds| *seconds > 0).unwrap_or(LIFETIME_SECONDS_ASSUMED).min(LIFETIME_SECONDS_MAX)
}

/// The types that granted scopes do not let us read; none when the server did not say what it granted.
fn not_granted(granted: Option<&str>, needs: &BTreeSet<String>) -> Vec<String> {
    let Some(granted) = granted else { return Vec::new() };
    needs.iter().filter(|name| !granted.split_whitespace().any(|scope| grants_read(scope, name))).cloned().collect()
}

/// Whether a granted system scope lets us read and search a type: `system/X.read`, `.rs`, `.cruds`, `.*`, and `*` for X.
pub fn grants_read(scope: &str, resource_type: &str) -> bool {
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
    fn s_05_no_two_assertions_have_the_same_name() {
        use base64::Engine as _;
        let key = SigningKey::generate(crate::smart::assertion::Algorithm::Es384).unwrap();
        let settings = TokenSettings {
            endpoint: "https://as.example/token".parse().unwrap(),
            audience: Audience::Endpoint,
            client_id: "site".to_owned(),
            key: key.clone(),
            scopes: Vec::new(),
            needs: BTreeSet::new(),
            accepted_before: false,
        };
        let mut names = BTreeSet::new();
        for _ in 0..10_000 {
            let jwt = fresh_assertion(&key, &settings, Timestamp::UNIX_EPOCH).unwrap();
            let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
            names.insert(serde_json::from_slice::<Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned());
        }
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() >= 32));
    }

    #[test]
    fn clocks_a_little_apart_are_nothing_to_talk_of() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        assert_eq!((apart(at(30), at(0)), apart(at(0), at(30))), (None, None));
        assert_eq!(apart(at(45), at(0)).unwrap(), "this computer's clock is 45 s behind the server's");
        assert_eq!(apart(at(0), at(600)).unwrap(), "this computer's clock is 600 s ahead of the server's");
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
