//! The FHIR server of a simulated hospital: REST, search, SMART Backend Services.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::access::{Access, Grant};
use super::capability;
use super::chart::Version;
use super::draft::KeyValue;
use super::export::{Call, Exports, Level, read_parameters_resource};
use super::fault::Fault;
use super::paging::{BadLink, Pages, Results};
use super::population::Hospital;
use super::quirk::{Quirks, Scenario, Scene};
use super::reply::{FHIR_JSON, Reply, form, http_date, outcome};
use super::request::{Incoming, Seen};
use super::search::{Query, type_search};
use crate::listen::{self, Certificate, ListenError};
use crate::smart::assertion::Jwks;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request's path and query.
const URL_BYTES_MAX: usize = 32 * 1024;
/// Clients whose rate is watched.
const RATES_MAX: usize = 10_000;
/// Requests that are remembered.
const SEEN_MAX: usize = 50_000;
/// Path of the FHIR base.
pub(super) const BASE_PATH: &str = "/fhir";

/// A backend service that is registered with the hospital.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its client id.
    pub id: String,
    /// Its public keys, as a JWK Set.
    pub jwks: serde_json::Value,
    /// The scopes it may be granted, in the syntax of SMART v1 (`system/Patient.read`) or v2
    /// (`system/Patient.rs`).
    pub scopes: Vec<String>,
}

impl Client {
    /// A client that may read everything.
    pub fn reader(id: impl Into<String>, jwks: serde_json::Value) -> Client {
        Client { id: id.into(), jwks, scopes: vec!["system/*.rs".to_owned()] }
    }
}

/// How a hospital serves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Registered backend services.
    pub clients: Vec<Client>,
    /// Life of an access token (300 s).
    pub token_life: Duration,
    /// Resources on a page when `_count` is absent (50).
    pub page_default: u32,
    /// Most resources on a page, whatever `_count` says (250).
    pub page_max: u32,
    /// Life of a paging link (300 s).
    pub page_life: Duration,
    /// How long an export takes before its manifest is ready (0.3 s).
    pub export_delay: Duration,
    /// Life of finished export files (3600 s).
    pub export_life: Duration,
    /// Exports a client may have at once, running or not yet deleted (4).
    pub export_jobs_max: usize,
    /// Resources in one export file (5,000).
    pub export_file_resources: usize,
    /// Version of the Bulk Data guide that it follows, 1 to 4 (3).
    pub export_version: u8,
    /// Whose data can be exported: of the `system`, of every `patient`, of a `group` (all three).
    pub export_levels: &'static [&'static str],
    /// Files in one part of a manifest; each part is ready later than the one before it (all in one).
    pub manifest_files: usize,
    /// How far its time is ahead of this machine's, in milliseconds. Tests move it to let time pass.
    pub ahead: Arc<AtomicU64>,
    /// Requests a second and client before 429 (none).
    pub rate_limit: Option<u32>,
    /// Faults that are injected.
    pub faults: Vec<Fault>,
    /// Habits of real servers that this one takes on.
    pub quirks: Vec<&'static Scenario>,
    /// Origin that clients see, if it is not the listener's address, without a trailing slash.
    pub public_origin: Option<String>,
    /// What HTTPS is served with; none: plain HTTP.
    pub tls: Option<Certificate>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            clients: Vec::new(),
            token_life: Duration::from_secs(300),
            page_default: 50,
            page_max: 250,
            page_life: Duration::from_secs(300),
            export_delay: Duration::from_millis(300),
            export_life: Duration::from_secs(3600),
            export_jobs_max: 4,
            export_file_resources: 5_000,
            export_version: 3,
            export_levels: &["system", "patient", "group"],
            manifest_files: usize::MAX,
            ahead: Arc::default(),
            rate_limit: None,
            faults: Vec::new(),
            quirks: Vec::new(),
            public_origin: None,
            tls: None,
        }
    }
}

/// Why a hospital cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The keys of a client are not a JWK Set.
    #[error("the keys of client `{client}` are not a JWK Set: {reason}")]
    Jwks {
        /// The client's id.
        client: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The certificate or the network refused.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The network refused.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves the hospital until `shutdown` completes. The FHIR base is `{origin}/fhir`, the token
/// endpoint `{origin}/token`. What it keeps at a second origin, such as an object store, is at another port of the same address.
///
/// # Errors
/// [`ServeError`] if a client's keys or the certificate are unreadable or the listener fails.
pub async fn serve(hospital: Hospital, options: Options, listener: tokio::net::TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let origin = options.public_origin.clone().unwrap_or(format!("{scheme}://{}", listener.local_addr()?));
    let tls = options.tls.clone();
    let second = tokio::net::TcpListener::bind((listener.local_addr()?.ip(), 0)).await?;
    let server = Arc::new(Server::new(hospital, options, &origin, &format!("{scheme}://{}", second.local_addr()?))?);
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(listen::serve(router(&server, Door::Second), second.into_std()?, tls.clone(), async move { drop(stopped.await) }));
    Ok(listen::serve(router(&server, Door::Main), listener.into_std()?, tls, shutdown).await?)
}

/// A hospital served by [`start`]; it stops when this is dropped.
pub struct Running {
    /// `http://127.0.0.1:PORT/fhir`.
    pub base_url: String,
    /// The second origin, `http://127.0.0.1:PORT`.
    pub elsewhere_url: String,
    server: Arc<Server>,
    /// Dropping them ends the server.
    _stop: [tokio::sync::oneshot::Sender<()>; 2],
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl Running {
    /// The requests so far, oldest first, those at the second origin included.
    pub fn requests(&self) -> Vec<Seen> {
        self.server.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests so far.
    pub fn request_count(&self) -> usize {
        self.server.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Registers other public keys for a client, as a client's own key set does when it changes.
    pub fn replace_keys(&self, client: &str, jwks: Jwks) {
        self.server.access.replace_keys(client, jwks);
    }

    /// Every current resource as this server writes it: (type, id, JSON), sorted by type and id.
    pub fn resources(&self) -> Vec<(String, String, String)> {
        let mut resources = self.server.hospital.resources();
        for (_, _, json) in &mut resources {
            *json = self.server.quirks.written(json);
        }
        resources
    }
}

/// Serves the hospital on a free loopback port, in a task of its own, and what it keeps at a second origin, such as an
/// object store, on another.
///
/// # Errors
/// [`ServeError`] as for [`serve`]; a hospital served this way has no TLS and no other public origin.
pub async fn start(hospital: Hospital, options: Options) -> Result<Running, ServeError> {
    let (main, second) = (tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?, tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?);
    let origin = format!("http://{}", main.local_addr()?);
    let elsewhere_url = format!("http://{}", second.local_addr()?);
    let server = Arc::new(Server::new(hospital, options, &origin, &elsewhere_url)?);
    let stop = [(main, Door::Main), (second, Door::Second)].map(|(listener, door)| {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let router = router(&server, door);
        tokio::spawn(async move {
            let ended = axum::serve(listener, router).with_graceful_shutdown(async move { drop(stopped.await) }).await;
            if let Err(error) = ended {
                tracing::error!(%error, "sandbox server ended");
            }
        });
        stop
    });
    Ok(Running { base_url: format!("{origin}{BASE_PATH}"), elsewhere_url, server, _stop: stop })
}

fn router(server: &Arc<Server>, door: Door) -> Router {
    Router::new().fallback(handle).with_state((Arc::clone(server), door))
}

/// Everything behind the router.
struct Server {
    hospital: Hospital,
    options: Options,
    access: Access,
    pages: Pages,
    exports: Exports,
    quirks: Quirks,
    seen: Mutex<Vec<Seen>>,
    /// Requests of each client in the current second.
    rates: Mutex<HashMap<String, (i64, u32)>>,
    base: String,
    token_url: String,
    started: Timestamp,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Main,
    /// The second origin, whose addresses are presigned: it serves without a token, and refuses one.
    Second,
}

async fn handle(State((server, door)): State<(Arc<Server>, Door)>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.uri.path_and_query().is_some_and(|url| url.as_str().len() > URL_BYTES_MAX) {
        return Reply::outcome(StatusCode::URI_TOO_LONG, "too-long", "the URL is too long; search by POST").into_response();
    }
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return Reply::outcome(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "the body is too long").into_response();
    };
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().map(str::to_owned));
    let reply = server.attend(&Incoming { method: parts.method, path, query, headers: parts.headers, body: body.to_vec(), is_elsewhere: door == Door::Second });
    tokio::time::sleep(reply.delay).await;
    reply.into_response()
}

impl Server {
    fn new(hospital: Hospital, options: Options, origin: &str, elsewhere: &str) -> Result<Server, ServeError> {
        let token_url = format!("{origin}/token");
        let base = format!("{origin}{BASE_PATH}");
        let scene = Scene {
            origin: origin.to_owned(),
            base: base.clone(),
            elsewhere: elsewhere.to_owned(),
            hospital: hospital.clone(),
            ahead: Arc::clone(&options.ahead),
        };
        Ok(Server {
            access: Access::new(&options.clients, token_url.clone(), options.token_life)?,
            pages: Pages::new(),
            exports: Exports::new(),
            quirks: Quirks::new(&options.quirks, &options.faults, scene),
            seen: Mutex::default(),
            rates: Mutex::default(),
            base,
            token_url,
            started: Timestamp::now(),
            hospital,
            options,
        })
    }

    /// The honest answer, with the quirks before and after it.
    fn attend(&self, sent: &Incoming) -> Reply {
        let skew = self.quirks.skew();
        let now = self.quirks.scene().now().saturating_add(skew).unwrap_or(self.started);
        let mut request = sent.clone();
        let mut reply = match self.quirks.before(&mut request) {
            Some(reply) => reply,
            None => {
                let mut reply = if request.is_elsewhere { self.answer_presigned(&request, now) } else { self.answer(&request, now) };
                self.quirks.after(sent, &mut reply);
                reply
            }
        };
        if reply.value(header::DATE).is_none() {
            reply.set(header::DATE, http_date(now));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < SEEN_MAX {
            seen.push(Seen::of(sent, reply.status.as_u16()));
        }
        reply
    }

    /// An object store: the address is the permission, and a second one is refused.
    fn answer_presigned(&self, incoming: &Incoming, now: Timestamp) -> Reply {
        let Some(client) = self.options.clients.first().filter(|_| !incoming.headers.contains_key(header::AUTHORIZATION)) else {
            return Reply::outcome(StatusCode::BAD_REQUEST, "security", "only one authorization mechanism is allowed");
        };
        let path = incoming.path.strip_prefix(BASE_PATH).unwrap_or(&incoming.path);
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        self.answer_granted(incoming, &segments, &Grant::presigned(&client.id, now), now)
    }

    /// Answers a request: what is open to everybody first, then what needs a token.
    fn answer(&self, incoming: &Incoming, now: Timestamp) -> Reply {
        let method = &incoming.method;
        let reading = *method == Method::GET || *method == Method::HEAD;
        if incoming.path == "/token" {
            return match *method {
                Method::POST => self.access.token(&incoming.headers, &incoming.body, now),
                _ => not_allowed("POST"),
            };
        }
        let Some(path) = incoming.path.strip_prefix(BASE_PATH).filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
            return Reply::outcome(StatusCode::NOT_FOUND, "not-found", &format!("the FHIR base is {BASE_PATH}"));
        };
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        match segments.as_slice() {
            ["metadata"] if reading => return self.metadata(),
            [".well-known", "smart-configuration"] if reading => {
                let configuration = capability::smart_configuration(&self.base, &self.token_url);
                return Reply::json(StatusCode::OK, "application/json", configuration.to_string());
            }
            ["metadata"] | [".well-known", ..] => return not_allowed("GET"),
            _ => {}
        }
        let Some(grant) = self.access.bearer(&incoming.headers, now) else {
            return Reply::outcome(StatusCode::UNAUTHORIZED, "login", "a valid access token is needed").with(header::WWW_AUTHENTICATE, "Bearer");
        };
        if self.too_fast(&grant.client, now) {
            return Reply::outcome(StatusCode::TOO_MANY_REQUESTS, "throttled", "too many requests").with(header::RETRY_AFTER, "1");
        }
        self.answer_granted(incoming, &segments, &grant, now)
    }

    fn answer_granted(&self, incoming: &Incoming, segments: &[&str], grant: &Grant, now: Timestamp) -> Reply {
        let reading = incoming.method == Method::GET || incoming.method == Method::HEAD;
        if let Some(level) = export_level(segments) {
            return self.export(incoming, &level, grant, now);
        }
        let job = |id: &str| -> Reply {
            let call = self.call(incoming, grant, now, form(incoming.query.as_deref().unwrap_or("").as_bytes()));
            match incoming.method {
                Method::GET => self.exports.status(id, &self.options, &call),
                Method::DELETE => self.exports.delete(id, &call),
                _ => not_allowed("GET, DELETE"),
            }
        };
        match segments {
            ["export-status", id] => job(id),
            ["export-file", id, number] if reading => self.exports.file(id, number, &self.call(incoming, grant, now, Vec::new())),
            [kind] if reading => {
                if let Some(refused) = not_acceptable(&incoming.headers) {
                    return refused;
                }
                let parameters = form(incoming.query.as_deref().unwrap_or("").as_bytes());
                match parameters.as_slice() {
                    [(name, token)] if name == "_page" => self.page(kind, token, grant, now),
                    _ => self.search(kind, &parameters, incoming, grant, now),
                }
            }
            [kind, "_search"] if incoming.method == Method::POST => self.search_by_post(kind, incoming, grant, now),
            [kind, id] if reading => self.read(kind, id, incoming, grant),
            [_] | [_, _] if type_search(segments.first().unwrap_or(&"")).is_some() => {
                let allowed = if segments.get(1) == Some(&"_search") { "POST" } else { "GET" };
                not_allowed(allowed)
            }
            _ => Reply::outcome(StatusCode::NOT_FOUND, "not-supported", "there is no such interaction here"),
        }
    }

    fn metadata(&self) -> Reply {
        let date = self.started.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string();
        let exports = if self.hospital.profile().bulk { self.options.export_levels } else { &[] };
        let version = self.options.export_version;
        let statement = capability::statement(self.hospital.profile().title, (version, exports), &self.base, &self.token_url, &date);
        Reply::json(StatusCode::OK, FHIR_JSON, statement.to_string())
    }

    fn too_fast(&self, client: &str, now: Timestamp) -> bool {
        let Some(limit) = self.options.rate_limit else { return false };
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= RATES_MAX {
            rates.clear();
        }
        let rate = rates.entry(client.to_owned()).or_default();
        if rate.0 != now.as_second() {
            *rate = (now.as_second(), 0);
        }
        rate.1 += 1;
        rate.1 > limit
    }

    fn call<'a>(&'a self, incoming: &'a Incoming, grant: &'a Grant, now: Timestamp, parameters: Vec<(String, String)>) -> Call<'a> {
        let path = incoming.path.strip_prefix(BASE_PATH).unwrap_or("");
        let query = incoming.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        Call { grant, headers: &incoming.headers, url: format!("{}{path}{query}", self.base), parameters, base: &self.base, now }
    }

    fn export(&self, incoming: &Incoming, level: &Level, grant: &Grant, now: Timestamp) -> Reply {
        if !self.hospital.profile().bulk {
            return Reply::outcome(StatusCode::NOT_FOUND, "not-supported", "this server has no Bulk Data export");
        }
        if !self.options.export_levels.contains(&level.name()) {
            return Reply::outcome(StatusCode::NOT_FOUND, "not-supported", &format!("there is no export of a {} here", level.name()));
        }
        let parameters = match incoming.method {
            Method::GET if self.options.export_version >= 4 => return not_allowed("POST"),
            Method::POST if self.options.export_version == 1 => return not_allowed("GET"),
            Method::GET => form(incoming.query.as_deref().unwrap_or("").as_bytes()),
            Method::POST => match read_parameters_resource(&incoming.body) {
                Some(parameters) => parameters,
                None => return Reply::outcome(StatusCode::BAD_REQUEST, "structure", "the body must be a Parameters resource"),
            },
            _ => return not_allowed("GET, POST"),
        };
        let call = self.call(incoming, grant, now, parameters);
        self.exports.kick_off(&mut self.hospital.write(), &self.options, level, &call)
    }

    fn search_by_post(&self, kind: &str, incoming: &Incoming, grant: &Grant, now: Timestamp) -> Reply {
        let content_type = incoming.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if !content_type.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
            let text = "a search by POST has a body of application/x-www-form-urlencoded";
            return Reply::outcome(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-supported", text);
        }
        let mut parameters = form(incoming.query.as_deref().unwrap_or("").as_bytes());
        parameters.extend(form(&incoming.body));
        self.search(kind, &parameters, incoming, grant, now)
    }

    fn search(&self, kind: &str, parameters: &[(String, String)], incoming: &Incoming, grant: &Grant, now: Timestamp) -> Reply {
        let Some(search) = type_search(kind) else { return unknown_type(kind) };
        if !grant.may_search(kind) {
            return forbidden(kind);
        }
        let lenient = incoming
            .headers
            .get_all("prefer")
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.contains("handling=lenient")));
        let state = self.hospital.read();
        let query = match Query::parse(search, parameters, lenient, &state.calendar) {
            Ok(query) => query,
            Err(refusal) => return Reply::outcome(StatusCode::BAD_REQUEST, refusal.code, &refusal.text),
        };
        let mut matches: Vec<Arc<Version>> = match (query.ids(), &query.patient) {
            (Some(ids), _) => ids.into_iter().filter_map(|id| state.chart.get(search.kind, id)).filter(|one| query.matches(one)).cloned().collect(),
            (None, Some(patient)) => state.chart.of_patient(search.kind, patient).filter(|one| query.matches(one)).cloned().collect(),
            (None, None) => state.chart.all(search.kind).filter(|one| query.matches(one)).cloned().collect(),
        };
        drop(state);
        if query.by_time {
            matches.sort_by_key(|version| version.updated);
        }
        let page = if self.quirks.page_themselves() { u32::MAX } else { query.count.unwrap_or(self.options.page_default).min(self.options.page_max) };
        let results = Arc::new(Results {
            client: grant.client.clone(),
            kind: search.kind,
            matches,
            page: usize::try_from(page).unwrap_or(1),
            expires: now.checked_add(self.options.page_life).unwrap_or(now),
            query,
        });
        let id = (results.page > 0 && results.matches.len() > results.page).then(|| self.pages.keep(Arc::clone(&results)));
        self.bundle(&results, id, 0, grant, now)
    }

    fn page(&self, kind: &str, token: &str, grant: &Grant, now: Timestamp) -> Reply {
        match self.pages.open(token, &grant.client, now) {
            Ok((id, results, offset)) if results.kind == kind && grant.may_search(kind) => self.bundle(&results, Some(id), offset, grant, now),
            Ok(_) | Err(BadLink::Forged) => Reply::outcome(StatusCode::BAD_REQUEST, "value", "this is not a link of this server"),
            Err(BadLink::Expired) => Reply::outcome(StatusCode::GONE, "expired", "the page has expired; search again"),
        }
    }

    /// One page as a searchset.
    fn bundle(&self, results: &Results, id: Option<[u8; 16]>, offset: usize, grant: &Grant, now: Timestamp) -> Reply {
        let query = &results.query;
        let mut text = format!("{{\"resourceType\":\"Bundle\",\"id\":\"{}\",\"meta\":{{\"lastUpdated\":\"{now}\"}},\"type\":\"searchset\"", uuid::Uuid::new_v4(),);
        if query.total || query.only_count {
            text.push_str(&format!(",\"total\":{}", results.matches.len()));
        }
        text.push_str(&format!(",\"link\":[{{\"relation\":\"self\",\"url\":{}}}", quoted(&self.self_link(results))));
        let end = offset.saturating_add(results.page).min(results.matches.len());
        if let Some(id) = id.filter(|_| end < results.matches.len()) {
            let next = format!("{}/{}?_page={}", self.base, results.kind, self.pages.token(id, end));
            text.push_str(&format!(",{{\"relation\":\"next\",\"url\":{}}}", quoted(&next)));
        }
        text.push(']');
        let shown = if query.only_count { &[] } else { results.matches.get(offset..end).unwrap_or(&[]) };
        let entries = self.entries(results, shown, grant);
        if !entries.is_empty() {
            text.push_str(",\"entry\":[");
            text.push_str(&entries.join(","));
            text.push(']');
        }
        text.push('}');
        Reply::json(StatusCode::OK, FHIR_JSON, text)
    }

    fn entries(&self, results: &Results, shown: &[Arc<Version>], grant: &Grant) -> Vec<String> {
        let entry = |url: &str, resource: &str, mode: &str| format!("{{\"fullUrl\":{},\"resource\":{resource},\"search\":{{\"mode\":\"{mode}\"}}}}", quoted(url));
        let show = |version: &Arc<Version>, mode: &str| {
            let content = version.content.as_ref()?;
            Some(entry(&format!("{}/{}/{}", self.base, version.kind, version.id), &content.json, mode))
        };
        let mut entries: Vec<String> = shown.iter().filter_map(|version| show(version, "match")).collect();
        let included = self.included(results, shown, grant);
        entries.extend(included.iter().filter_map(|version| show(version, "include")));
        if !results.query.ignored.is_empty() {
            let ignored = outcome("warning", "not-supported", &format!("ignored: {}", results.query.ignored.join(", ")));
            entries.push(format!("{{\"resource\":{ignored},\"search\":{{\"mode\":\"outcome\"}}}}"));
        }
        entries
    }

    /// What `_include` brings to a page, each once, only of types the token may read.
    fn included(&self, results: &Results, shown: &[Arc<Version>], grant: &Grant) -> Vec<Arc<Version>> {
        if results.query.includes.is_empty() {
            return Vec::new();
        }
        let state = self.hospital.read();
        let mut found: Vec<Arc<Version>> = Vec::new();
        let keys = shown.iter().filter_map(|version| version.content.as_ref()).flat_map(|content| &content.keys);
        for key in keys.filter(|key| results.query.includes.contains(key.name)) {
            let KeyValue::Reference(target) = &key.value else { continue };
            let Some((kind, id)) = target.split_once('/') else { continue };
            let known = shown.iter().chain(&found).any(|version| version.kind == kind && *version.id == *id);
            if !known && grant.may_read(kind) {
                found.extend(state.chart.get(kind, id).cloned());
            }
        }
        found
    }

    /// What was understood, as a URL.
    fn self_link(&self, results: &Results) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in results.query.understood.iter().filter(|(name, _)| name != "_count") {
            query.append_pair(name, value);
        }
        query.append_pair("_count", &results.page.to_string());
        format!("{}/{}?{}", self.base, results.kind, query.finish())
    }

    fn read(&self, kind: &str, id: &str, incoming: &Incoming, grant: &Grant) -> Reply {
        if type_search(kind).is_none() {
            return unknown_type(kind);
        }
        if let Some(refused) = not_acceptable(&incoming.headers) {
            return refused;
        }
        if !grant.may_read(kind) {
            return forbidden(kind);
        }
        let state = self.hospital.read();
        let Some(version) = state.chart.get(kind, id) else {
            return Reply::outcome(StatusCode::NOT_FOUND, "not-found", "there is no such resource");
        };
        let tag = format!("W/\"{}\"", version.number);
        let Some(content) = &version.content else {
            return Reply::outcome(StatusCode::GONE, "deleted", "the resource was deleted").with(header::ETAG, tag);
        };
        if incoming.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(tag.as_str()) {
            return Reply::empty(StatusCode::NOT_MODIFIED).with(header::ETAG, tag);
        }
        Reply::json(StatusCode::OK, FHIR_JSON, content.json.clone())
            .with(header::ETAG, tag)
            .with(header::LAST_MODIFIED, http_date(version.updated))
    }
}

/// Whether a path is an export's kick-off, and whose.
fn export_level(segments: &[&str]) -> Option<Level> {
    match segments {
        ["$export"] => Some(Level::System),
        ["Patient", "$export"] => Some(Level::Patient),
        ["Group", id, "$export"] => Some(Level::Group((*id).to_owned())),
        _ => None,
    }
}

/// A refusal for clients that want something else than JSON.
fn not_acceptable(headers: &HeaderMap) -> Option<Reply> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?.to_ascii_lowercase();
    let fine = accept.is_empty() || ["json", "*/*", "application/*"].iter().any(|part| accept.contains(part));
    (!fine).then(|| Reply::outcome(StatusCode::NOT_ACCEPTABLE, "not-supported", "this server speaks application/fhir+json"))
}

fn not_allowed(methods: &'static str) -> Reply {
    Reply::outcome(StatusCode::METHOD_NOT_ALLOWED, "not-supported", &format!("allowed here: {methods}")).with(header::ALLOW, methods)
}

fn unknown_type(kind: &str) -> Reply {
    let shown: String = kind.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    Reply::outcome(StatusCode::NOT_FOUND, "not-supported", &format!("type `{shown}` is not served here"))
}

fn forbidden(kind: &str) -> Reply {
    Reply::outcome(StatusCode::FORBIDDEN, "forbidden", &format!("the token's scopes do not allow {kind}"))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
