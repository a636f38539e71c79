//! Quirks of authentication and discovery.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::reply::{Reply, form};
use super::super::request::{Endpoint, Incoming};
use super::export::{edit_manifest, files_of, is_own_file, ndjson, own_file};
use super::{Quirk, Scenario, Scene};

/// Requests that a token is good for, under Q-02.
const TOKEN_USES: u32 = 7;
/// The type whose export is answered with another one, under Q-05, and the other one.
const OTHER_TYPE: (&str, &str) = ("Condition", "Practitioner");
/// The header wanted under Q-07.
const CLIENT_HEADER: &str = "epic-client-id";
/// The parameter wanted under Q-08.
const PRACTICE: &str = "ah-practice";

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "q_01",
        says: "of three token requests two are refused with a bare 400; the first one is not",
        make: || Box::new(MoodyTokens::default()),
    },
    Scenario {
        name: "q_02",
        says: "a token is refused after seven requests, in the middle of paging, polling or downloading",
        make: || Box::new(WornTokens::default()),
    },
    Scenario {
        name: "q_03",
        says: "scopes of SMART v2 are announced, and refused as invalid or granted without the types; those of v1 work",
        make: || Box::new(AnnouncedSyntax::default()),
    },
    Scenario { name: "q_04", says: "scopes of SMART v1 are announced, and dropped without a word; those of v2 work", make: || Box::new(DroppedSyntax) },
    Scenario {
        name: "q_05",
        says: "an export of Condition brings Practitioner instead, with status 200, and a search for Condition is forbidden",
        make: || Box::new(OtherType),
    },
    Scenario {
        name: "q_86",
        says: "of Locations, which this client may not see, it knows none: searches are empty, and each is 404",
        make: || Box::new(Unseen),
    },
    Scenario {
        name: "q_06",
        says: "the clock is one second behind, and an assertion from the future is refused without any tolerance",
        make: || Box::new(StrictClock),
    },
    Scenario { name: "q_07", says: "every request must have the header Epic-Client-ID", make: || Box::new(WantedHeader) },
    Scenario {
        name: "q_08",
        says: "every search must have the parameter ah-practice; links to further pages have none and must get none",
        make: || Box::new(WantedParameter),
    },
    Scenario {
        name: "q_09",
        says: "discovery has nothing but a token endpoint, is wrong about the rest, or is a web page; one after the other",
        make: || Box::new(PoorDiscovery::default()),
    },
    Scenario { name: "q_10", says: "files are redirected to an object store that refuses requests with a token", make: || Box::new(ObjectStore) },
    Scenario {
        name: "q_11",
        says: "addresses of files are presigned, here and elsewhere, refuse a token, and are said to require one, as text",
        make: || Box::new(PresignedFiles),
    },
];

/// The scopes that a token request asks for.
fn scopes(request: &Incoming) -> String {
    request.parameter("scope").unwrap_or_default()
}

/// Makes it ask for others.
fn ask_for(request: &mut Incoming, scopes: &str) {
    let mut written = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in form(&request.body) {
        written.append_pair(&name, if name == "scope" { scopes } else { &value });
    }
    request.body = written.finish().into_bytes();
}

/// Discovery announces these capabilities only.
fn announce(sent: &Incoming, reply: &mut Reply, capabilities: &[&str]) {
    if sent.endpoint() == Endpoint::Discovery {
        reply.edit(|document| document["capabilities"] = json!(capabilities));
    }
}

fn oauth_error(code: &str) -> Reply {
    Reply::json(StatusCode::BAD_REQUEST, "application/json", json!({"error": code}).to_string())
}

///
#[derive(Default)]
struct MoodyTokens {
    requests: AtomicU32,
}

impl Quirk for MoodyTokens {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let is_moody = request.endpoint() == Endpoint::Token && !self.requests.fetch_add(1, Ordering::SeqCst).is_multiple_of(3);
        is_moody.then(|| Reply::empty(StatusCode::BAD_REQUEST))
    }
}

///
#[derive(Default)]
struct WornTokens {
    /// Uses of each token.
    uses: Mutex<HashMap<String, u32>>,
}

impl Quirk for WornTokens {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if matches!(request.endpoint(), Endpoint::Token | Endpoint::Discovery | Endpoint::Metadata) {
            return None;
        }
        let token = request.header(header::AUTHORIZATION)?.to_owned();
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let used = uses.entry(token).or_default();
        *used += 1;
        (*used > TOKEN_USES).then(|| Reply::outcome(StatusCode::UNAUTHORIZED, "login", "the token has expired").with(header::WWW_AUTHENTICATE, "Bearer"))
    }
}

///
#[derive(Default)]
struct AnnouncedSyntax {
    asked: AtomicU32,
}

impl Quirk for AnnouncedSyntax {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Token || !scopes(request).contains(".rs") {
            return None;
        }
        if self.asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            return Some(oauth_error("invalid_scope"));
        }
        ask_for(request, "system/Group.rs");
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        announce(sent, reply, &["client-confidential-asymmetric", "permission-v2"]);
    }
}

///
struct DroppedSyntax;

impl Quirk for DroppedSyntax {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() == Endpoint::Token && scopes(request).contains(".read") {
            ask_for(request, "system/Group.rs");
        }
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        announce(sent, reply, &["client-confidential-asymmetric", "permission-v1"]);
        let drops = sent.endpoint() == Endpoint::Token && scopes(sent).contains(".read");
        if drops {
            reply.edit(|granted| granted["scope"] = json!("launch"));
        }
    }
}

///
struct OtherType;

impl Quirk for OtherType {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let (asked, other) = OTHER_TYPE;
        match request.endpoint() {
            Endpoint::KickOff => {
                let types = request.take("_type")?;
                request.add("_type", &types.split(',').map(|kind| if kind == asked { other } else { kind }).collect::<Vec<_>>().join(","));
                None
            }
            Endpoint::Search if request.kind() == Some(asked) => Some(Reply::outcome(StatusCode::FORBIDDEN, "forbidden", "out of scope")),
            _ => None,
        }
    }
}

///
struct Unseen;

impl Quirk for Unseen {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        match sent.endpoint() {
            Endpoint::Read if sent.kind() == Some("Location") => *reply = Reply::outcome(StatusCode::NOT_FOUND, "not-found", "no such resource"),
            Endpoint::Search | Endpoint::Page if sent.kind() == Some("Location") => reply.retain_resources(|_| false),
            _ => {}
        }
    }
}

///
struct StrictClock;

impl Quirk for StrictClock {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let assertion = request.parameter("client_assertion").filter(|_| request.endpoint() == Endpoint::Token)?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1)?).ok()?).ok()?;
        let now = Timestamp::now().saturating_add(self.skew()).ok()?.as_second();
        let from_the_future = ["nbf", "iat"].iter().any(|claim| claims.get(claim).and_then(Value::as_i64).is_some_and(|at| at > now));
        from_the_future.then(|| oauth_error("invalid_client"))
    }

    fn skew(&self) -> SignedDuration {
        SignedDuration::from_secs(-1)
    }
}

///
struct WantedHeader;

impl Quirk for WantedHeader {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let wanted = !request.is_elsewhere && request.endpoint() != Endpoint::Token;
        let missing = wanted && request.header(header::HeaderName::from_static(CLIENT_HEADER)).is_none();
        missing.then(|| Reply::outcome(StatusCode::BAD_REQUEST, "required", "the client id is missing"))
    }
}

///
struct WantedParameter;

impl Quirk for WantedParameter {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let has_it = request.take(PRACTICE).is_some();
        let is_wrong = match request.endpoint() {
            Endpoint::Search => !has_it,
            Endpoint::Page => has_it,
            _ => false,
        };
        is_wrong.then(|| Reply::outcome(StatusCode::BAD_REQUEST, "required", "a practice is needed, and only where it is needed"))
    }
}

///
#[derive(Default)]
struct PoorDiscovery {
    asked: AtomicU32,
}

impl Quirk for PoorDiscovery {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Discovery {
            return None;
        }
        let endpoint = format!("{}/token", scene.origin);
        Some(match self.asked.fetch_add(1, Ordering::SeqCst) % 4 {
            0 => Reply::json(StatusCode::OK, "text/plain", json!({"token_endpoint": endpoint}).to_string()),
            1 => {
                let document = json!({
                    "issuer": 7,
                    "token_endpoint": "../token",
                    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                    "grant_types_supported": "authorization_code",
                    "capabilities": "permission-v2",
                });
                Reply::json(StatusCode::OK, "application/json", document.to_string())
            }
            2 => Reply::json(StatusCode::OK, "text/html", "<!doctype html><title>Welcome</title>"),
            _ => Reply::empty(StatusCode::NOT_FOUND),
        })
    }
}

///
struct ObjectStore;

impl Quirk for ObjectStore {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        let redirected = request.endpoint() == Endpoint::File && !request.is_elsewhere;
        redirected.then(|| Reply::empty(StatusCode::TEMPORARY_REDIRECT).with(header::LOCATION, format!("{}{}", scene.elsewhere, request.target())))
    }
}

///
struct PresignedFiles;

impl PresignedFiles {
    /// The third is a signature that only this server knows.
    const SIGNED: [&str; 3] = ["X-Amz-Signature=9f2c", "sig=9f2c", "ticket=9f2c"];
}

impl Quirk for PresignedFiles {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::File || request.is_elsewhere {
            return None;
        }
        if request.query.is_none() || request.headers.contains_key(header::AUTHORIZATION) {
            return Some(Reply::outcome(StatusCode::BAD_REQUEST, "security", "only one authorization mechanism is allowed"));
        }
        request.is_elsewhere = true;
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if sent.endpoint() != Endpoint::Status || reply.status != StatusCode::OK {
            return;
        }
        reply.edit(|manifest| {
            manifest["requiresAccessToken"] = json!("True");
            let files = manifest.get_mut("output").and_then(Value::as_array_mut).into_iter().flatten();
            for (file, signed) in files.zip(Self::SIGNED.iter().cycle()) {
                let Some(url) = file.get("url").and_then(Value::as_str).map(|url| format!("{url}?{signed}")) else { continue };
                file["url"] = if signed.starts_with('X') { url.replace(&scene.origin, &scene.elsewhere) } else { url }.into();
            }
        });
    }
}

/// What this client may not read of a type, for a while: a fault.
pub(in crate::sandbox) struct Shut {
    pub kind: String,
    pub is_on: Arc<AtomicBool>,
}

impl Shut {
    /// Name of the file of messages that says so.
    fn messages(&self) -> String {
        format!("no-{}", self.kind)
    }
}

impl Quirk for Shut {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if is_own_file(request, &self.messages()) {
            let issue = json!({"severity": "error", "code": "forbidden", "expression": [self.kind], "diagnostics": "this client may not read it"});
            return Some(ndjson(json!({"resourceType": "OperationOutcome", "issue": [issue]}).to_string() + "\n"));
        }
        let is_it = self.is_on.load(Ordering::SeqCst) && request.kind() == Some(&self.kind);
        is_it.then(|| Reply::outcome(StatusCode::FORBIDDEN, "forbidden", "this client may not read it"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if self.is_on.load(Ordering::SeqCst) {
            edit_manifest(sent, reply, |manifest| {
                files_of(manifest, "output").retain(|file| file["type"] != *self.kind);
                files_of(manifest, "error").push(json!({"type": "OperationOutcome", "url": own_file(scene, &self.messages()), "count": 1}));
            });
        }
    }
}
