//! Who may read what: scopes, and the token endpoint of SMART Backend Services.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::json;

use super::reply::{Reply, form, random};
use super::server::{Client, ServeError};
use crate::smart::assertion::{Jwks, verify_client_assertion};

/// Tokens that live at once; a client that asks for more is told to slow down.
const TOKENS_MAX: usize = 10_000;
/// Assertions remembered against replay.
const USED_MAX: usize = 100_000;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The right to read and search one type, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// Resource type or `*`.
    kind: String,
    read: bool,
    search: bool,
}

impl Scope {
    /// Reads `system/Patient.read` (v1) or `system/Patient.rs` (v2). Nothing for a scope that gives
    /// no reading, belongs to another context, or has its letters out of order.
    fn parse(text: &str) -> Option<Scope> {
        let (kind, rights) = text.strip_prefix("system/")?.split_once('.')?;
        if kind != "*" && (kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_alphabetic())) {
            return None;
        }
        let (read, search) = match rights {
            "read" | "*" => (true, true),
            letters => {
                let mut rest = "cruds".chars();
                let ordered = !letters.is_empty() && letters.chars().all(|letter| rest.any(|next| next == letter));
                (ordered && letters.contains('r'), ordered && letters.contains('s'))
            }
        };
        (read || search).then(|| Scope { kind: kind.to_owned(), read, search })
    }

    /// What both allow.
    fn both(&self, other: &Scope) -> Option<Scope> {
        let kind = match (self.kind.as_str(), other.kind.as_str()) {
            ("*", kind) | (kind, "*") => kind,
            (one, another) if one == another => one,
            _ => return None,
        };
        let (read, search) = (self.read && other.read, self.search && other.search);
        (read || search).then(|| Scope { kind: kind.to_owned(), read, search })
    }

    /// In the syntax of the scope that was asked for.
    fn text(&self, asked: &str) -> String {
        let rights = match (asked.ends_with(".read") || asked.ends_with(".*"), self.read, self.search) {
            (true, true, true) => "read",
            (_, true, true) => "rs",
            (_, true, false) => "r",
            _ => "s",
        };
        format!("system/{}.{rights}", self.kind)
    }
}

/// What a token allows.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    /// The client it was given to.
    pub(super) client: String,
    scopes: Vec<Scope>,
    expires: Timestamp,
}

impl Grant {
    /// What a presigned address allows: to read on behalf of the client it was made for.
    pub(super) fn presigned(client: &str, now: Timestamp) -> Grant {
        Grant { client: client.to_owned(), scopes: Scope::parse("system/*.rs").into_iter().collect(), expires: now }
    }

    /// Whether resources of the type may be read by id.
    pub(super) fn may_read(&self, kind: &str) -> bool {
        self.scopes.iter().any(|scope| scope.read && (scope.kind == "*" || scope.kind == kind))
    }

    /// Whether the type may be searched (and exported).
    pub(super) fn may_search(&self, kind: &str) -> bool {
        self.scopes.iter().any(|scope| scope.search && (scope.kind == "*" || scope.kind == kind))
    }
}

/// A client with its keys and scopes read.
struct Registered {
    jwks: Jwks,
    scopes: Vec<Scope>,
}

/// The authorization server.
pub(super) struct Access {
    clients: RwLock<BTreeMap<String, Registered>>,
    token_url: String,
    life: Duration,
    tokens: Mutex<HashMap<String, Grant>>,
    used: Mutex<HashMap<(String, String), Timestamp>>,
}

/// Parameters that a token request may have.
const TOKEN_PARAMETERS: [&str; 4] = ["grant_type", "scope", "client_assertion_type", "client_assertion"];

impl Access {
    pub(super) fn new(clients: &[Client], token_url: String, life: Duration) -> Result<Access, ServeError> {
        let mut registered = BTreeMap::new();
        for client in clients {
            let jwks = serde_json::from_value(client.jwks.clone()).map_err(|error| ServeError::Jwks { client: client.id.clone(), reason: error.to_string() })?;
            let scopes = client.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect();
            registered.insert(client.id.clone(), Registered { jwks, scopes });
        }
        Ok(Access { clients: RwLock::new(registered), token_url, life, tokens: Mutex::default(), used: Mutex::default() })
    }

    /// Gives a client other keys.
    pub(super) fn replace_keys(&self, client: &str, jwks: Jwks) {
        if let Some(client) = self.clients.write().unwrap_or_else(PoisonError::into_inner).get_mut(client) {
            client.jwks = jwks;
        }
    }

    /// Answers a token request.
    pub(super) fn token(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Reply {
        match self.grant(headers, body, now) {
            Ok(reply) => reply,
            Err((status, error, description)) => {
                let body = json!({"error": error, "error_description": description});
                Reply::json(status, "application/json", body.to_string()).with(header::CACHE_CONTROL, "no-store")
            }
        }
    }

    fn grant(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Reply, (StatusCode, &'static str, String)> {
        let bad = |error, text: &str| (StatusCode::BAD_REQUEST, error, text.to_owned());
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if !content_type.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
            return Err(bad("invalid_request", "the body must be application/x-www-form-urlencoded"));
        }
        let parameters = form(body);
        let mut values: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in &parameters {
            if TOKEN_PARAMETERS.contains(&name.as_str()) && values.insert(name, value).is_some() {
                return Err(bad("invalid_request", &format!("`{name}` is there twice")));
            }
        }
        let value = |name: &'static str| {
            values
                .get(name)
                .copied()
                .filter(|value| !value.is_empty())
                .ok_or_else(|| bad("invalid_request", &format!("`{name}` is missing")))
        };
        if value("grant_type")? != "client_credentials" {
            return Err(bad("unsupported_grant_type", "`grant_type` must be client_credentials"));
        }
        if value("client_assertion_type")? != ASSERTION_TYPE {
            return Err(bad("invalid_request", "`client_assertion_type` must be jwt-bearer"));
        }
        let client = self.authenticate(value("client_assertion")?, now)?;
        let asked = value("scope")?;
        let (scopes, granted) = self.allowed(&client, asked);
        if scopes.is_empty() {
            return Err(bad("invalid_scope", "none of the scopes is registered for the client"));
        }
        let token = URL_SAFE_NO_PAD.encode(random::<32>());
        let expires = now.checked_add(self.life).unwrap_or(now);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, grant| grant.expires > now);
        if tokens.len() >= TOKENS_MAX {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "too many tokens".to_owned()));
        }
        tokens.insert(token.clone(), Grant { client, scopes, expires });
        let body = json!({
            "access_token": token,
            "token_type": "bearer",
            "expires_in": self.life.as_secs(),
            "scope": granted.join(" "),
        });
        let reply = Reply::json(StatusCode::OK, "application/json", body.to_string());
        Ok(reply.with(header::CACHE_CONTROL, "no-store").with(header::PRAGMA, "no-cache"))
    }

    /// The client that signed the assertion; an assertion is good for one request only.
    fn authenticate(&self, assertion: &str, now: Timestamp) -> Result<String, (StatusCode, &'static str, String)> {
        let refuse = |text: String| (StatusCode::UNAUTHORIZED, "invalid_client", text);
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let keys = |client: &str| clients.get(client).map(|registered| registered.jwks.clone());
        let verified = verify_client_assertion(assertion, std::slice::from_ref(&self.token_url), now, keys).map_err(|error| refuse(error.to_string()))?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // Kept a little longer than the assertion, for clocks that differ.
        used.retain(|_, expires| expires.duration_until(now) < jiff::SignedDuration::from_mins(5));
        if used.len() >= USED_MAX {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "too many assertions".to_owned()));
        }
        if used.insert((verified.client_id.clone(), verified.jti), verified.expires).is_some() {
            return Err(refuse("claim `jti` was used before".to_owned()));
        }
        Ok(verified.client_id)
    }

    /// The part of the scopes asked for that is registered, and how it is said.
    fn allowed(&self, client: &str, asked: &str) -> (Vec<Scope>, Vec<String>) {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let registered = clients.get(client).map_or(&[] as &[Scope], |client| client.scopes.as_slice());
        let (mut scopes, mut texts) = (Vec::new(), Vec::new());
        for text in asked.split_ascii_whitespace() {
            let Some(scope) = Scope::parse(text) else { continue };
            for both in registered.iter().filter_map(|own| own.both(&scope)) {
                let text = both.text(text);
                if !texts.contains(&text) {
                    texts.push(text);
                    scopes.push(both);
                }
            }
        }
        (scopes, texts)
    }

    /// The grant behind a request's bearer token.
    pub(super) fn bearer(&self, headers: &HeaderMap, now: Timestamp) -> Option<Grant> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token.trim()).filter(|grant| grant.expires > now).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_both_versions_are_read() {
        for (text, expected) in [
            ("system/Patient.read", Some((true, true))),
            ("system/*.*", Some((true, true))),
            ("system/Patient.rs", Some((true, true))),
            ("system/Patient.r", Some((true, false))),
            ("system/Patient.cruds", Some((true, true))),
            ("system/Patient.sr", None),
            ("system/Patient.write", None),
            ("system/Patient.c", None),
            ("user/Patient.rs", None),
            ("system/Pat/ient.rs", None),
            ("system/Patient.rs?category=x", None),
            ("openid", None),
        ] {
            assert_eq!(Scope::parse(text).map(|scope| (scope.read, scope.search)), expected, "{text}");
        }
    }

    #[test]
    fn only_what_is_registered_is_granted() {
        let client = Client { id: "c".into(), jwks: json!({"keys": []}), scopes: vec!["system/Patient.rs".into(), "system/Observation.r".into()] };
        let access = Access::new(&[client], "http://127.0.0.1/token".into(), Duration::from_secs(5)).unwrap();
        for (asked, granted) in [
            ("system/*.read", "system/Patient.read system/Observation.r"),
            ("system/*.rs", "system/Patient.rs system/Observation.r"),
            ("system/Patient.read system/Patient.read", "system/Patient.read"),
            ("system/Condition.rs", ""),
        ] {
            assert_eq!(access.allowed("c", asked).1.join(" "), granted, "{asked}");
        }
        assert!(access.allowed("d", "system/*.rs").0.is_empty());
    }
}
