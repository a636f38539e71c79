//! The HTTP client of every peer: who may see a token, limits, redirects and retries, each decided in one place.

mod breaker;
mod courtesy;
mod response;
mod retry;
#[cfg(test)]
mod tests;
mod way;
mod width;

use breaker::{Breaker, LeftAlone};
use jiff::Timestamp;
use reqwest::Method;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use url::{Host, Url};
use way::Way;
use width::Width;

pub use courtesy::Courtesy;
pub use response::{Download, Response, one_line};
pub use retry::{ASKED_WAIT_MAX, Retry, passes, retry_after};
pub use way::Identity;

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 5;
/// Depth of an error's causes that is looked at.
const CAUSES_MAX: usize = 16;
/// Longest URL sent, in bytes.
const URL_BYTES_MAX: usize = 64 * 1024;
/// The variables by which an environment names a proxy.
const PROXY_VARIABLES: [&str; 6] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"];

/// Headers that are this client's, or HTTP's, own.
const OWN_HEADERS: [&str; 14] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "prefer",
    "proxy-authorization",
    "transfer-encoding",
    "user-agent",
];

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Waits.
    fn sleep(&self, time: Duration) -> Boxed<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// The computer's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Scheme, host and port of a URL; default ports are made explicit, so `https://a` equals `https://a:443`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an http or https URL; `None` for any other.
    ///
    /// ```
    /// use watershed::http::Origin;
    ///
    /// let origin = |text: &str| Origin::of(&text.parse().unwrap());
    /// assert_eq!(origin("https://ehr.example.org/fhir"), origin("https://EHR.example.org:443/token"));
    /// assert_ne!(origin("https://ehr.example.org"), origin("http://ehr.example.org"));
    /// ```
    pub fn of(url: &Url) -> Option<Origin> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = url.host_str()?.trim_end_matches('.').to_ascii_lowercase();
        Some(Origin { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default()? })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// Why a request brought no answer. The texts name origins only, never paths, queries or bodies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The URL is not one that may be contacted.
    #[error("will not contact {origin}: {reason}")]
    Refused {
        /// The origin, or what stands in its place.
        origin: String,
        /// The rule.
        reason: &'static str,
    },
    /// No answer, or a broken one, after all attempts.
    #[error("{origin}: {reason} (after {attempts} attempts)")]
    Unreachable {
        /// The peer.
        origin: String,
        /// The kind of failure.
        reason: String,
        /// Attempts made.
        attempts: u32,
        /// No other attempt will do better: a certificate is not trusted.
        is_lasting: bool,
    },
    /// A body above its limit.
    #[error("{origin}: body is larger than {limit} bytes")]
    TooLarge {
        /// The peer.
        origin: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The body's compression is broken or inflates beyond reason.
    #[error("{origin}: compressed body is broken or inflates too far")]
    Encoding {
        /// The peer.
        origin: String,
    },
    /// Too many redirects, or one that leads nowhere.
    #[error("{origin}: redirect cannot be followed: {reason}")]
    Redirect {
        /// The peer.
        origin: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The peer refused a token, and the fresh one that was shown in its place.
    #[error("{origin}: refuses the tokens that its authorization server grants us (401 twice); is the client enabled for this API there")]
    Unauthorized {
        /// The peer.
        origin: String,
    },
    /// No token could be had.
    #[error("no access token: {0}")]
    Token(String),
    /// The token endpoint has refused nobody: it answers that it fails, or is asked too often, and a later request may get a token.
    #[error("no access token: {0}")]
    NoTokenNow(String),
    /// The requests that a night may take are spent; the next night goes on.
    #[error("{0}")]
    NotNow(String),
    /// The client's own settings are wrong.
    #[error("HTTP client: {0}")]
    Settings(String),
}

/// A boxed future, for the traits below.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Gives access tokens; implemented by `smart::client::TokenClient`.
pub trait Authorizer: Send + Sync {
    /// A token that is good now.
    fn token(&self) -> Boxed<'_, Result<String, HttpError>>;
    /// Says that a peer answered 401 to this token.
    fn rejected(&self, token: &str);
}

/// Settings of a client.
#[derive(Clone)]
pub struct Settings {
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence while reading.
    pub read_timeout: Duration,
    /// Largest body held in memory, in bytes, before and after decompression.
    pub body_bytes_max: u64,
    /// Largest download, in bytes as transferred.
    pub download_bytes_max: u64,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Allow `http://` beyond loopback. Off by default.
    pub plain_http: bool,
    /// Further root certificates, PEM.
    pub root_certificates: Vec<Vec<u8>>,
    /// The certificate by which this client shows who it is, to the peer's own origins only.
    pub identity: Option<Identity>,
    /// Headers for the peer's own origins only (some EHRs want a client id).
    pub headers: Vec<(String, String)>,
    /// When and how often to try again.
    pub retry: Retry,
    /// What the server is spared; clients that share it count together.
    pub courtesy: Arc<Courtesy>,
    /// Origins that may be contacted though their address is private or link-local.
    pub trusted_origins: BTreeSet<Origin>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(120),
            body_bytes_max: 64 << 20,
            download_bytes_max: 256 << 30,
            concurrency: 4,
            plain_http: false,
            root_certificates: Vec::new(),
            identity: None,
            headers: Vec::new(),
            retry: Retry::default(),
            courtesy: Arc::default(),
            trusted_origins: BTreeSet::new(),
        }
    }
}

/// Whether a request may carry the token, if its origin may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Yes, at the token origins.
    Allowed,
    /// No, wherever it goes (`requiresAccessToken` false, presigned addresses, the token request itself).
    Never,
}

/// One request. Build it with [`Request::new`].
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The absolute address, sent byte for byte.
    pub url: Url,
    /// Headers beside those the client adds.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// Whether it may carry the token.
    pub token: Token,
    /// Whether it may be sent again after an attempt whose fate is unknown.
    pub idempotent: bool,
    /// Most attempts, where these are fewer than the client's.
    pub attempts_max: u32,
}

impl Request {
    /// A request that may carry the token; POST and PATCH count as not repeatable.
    pub fn new(method: Method, url: Url) -> Request {
        let idempotent = method != Method::POST && method != Method::PATCH;
        Request { method, url, headers: Vec::new(), body: None, token: Token::Allowed, idempotent, attempts_max: u32::MAX }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body and its content type.
    pub fn body(self, content_type: &str, body: Vec<u8>) -> Request {
        let mut request = self.header("content-type", content_type);
        request.body = Some(body);
        request
    }

    /// Never carries the token.
    pub fn without_token(mut self) -> Request {
        self.token = Token::Never;
        self
    }

    /// May be repeated although its method is POST (a search by POST, a commit by key).
    pub fn repeatable(mut self) -> Request {
        self.idempotent = true;
        self
    }

    /// Is tried so often at most, however patient the client is.
    pub fn at_most(mut self, attempts: u32) -> Request {
        self.attempts_max = attempts;
        self
    }

    /// Is tried once only.
    pub fn once(self) -> Request {
        self.at_most(1)
    }
}

/// A client for one peer: its token goes to `token_origins` and nowhere else.
pub struct Client {
    /// To the peer's own origins.
    own: Way,
    others: Way,
    /// The variable of the environment that names a proxy, if one does.
    proxy: Option<&'static str>,
    settings: Settings,
    authorizer: Option<Arc<dyn Authorizer>>,
    token_origins: BTreeSet<Origin>,
    width: Width,
    breaker: Breaker,
    requests: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("token_origins", &self.token_origins).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that never sends a token.
    pub fn new(settings: Settings) -> Result<Client, HttpError> {
        let (own, others) = Way::build(&settings)?;
        Ok(Client {
            own,
            others,
            proxy: PROXY_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())),
            width: Width::new(settings.concurrency.max(1)),
            settings,
            authorizer: None,
            token_origins: BTreeSet::new(),
            breaker: Breaker::default(),
            requests: AtomicU64::new(0),
            clock: Arc::new(SystemClock),
        })
    }

    /// Gives the client a source of tokens and the origins that may see them.
    pub fn with_tokens(mut self, authorizer: Arc<dyn Authorizer>, origins: impl IntoIterator<Item = Origin>) -> Client {
        self.authorizer = Some(authorizer);
        self.token_origins = origins.into_iter().collect();
        self
    }

    /// Replaces the clock that `Retry-After` dates are compared with.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Client {
        self.clock = clock;
        self
    }

    /// How failed attempts are repeated.
    pub fn retry(&self) -> &Retry {
        &self.settings.retry
    }

    /// Requests sent so far, repeats included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// GET with the given `Accept`.
    pub async fn get(&self, url: Url, accept: &str) -> Result<Response, HttpError> {
        self.send(Request::new(Method::GET, url).header("accept", accept)).await
    }

    /// POST that is not repeated when its fate is unknown.
    pub async fn post(&self, url: Url, content_type: &str, body: Vec<u8>) -> Result<Response, HttpError> {
        self.send(Request::new(Method::POST, url).body(content_type, body)).await
    }

    /// PUT.
    pub async fn put(&self, url: Url, content_type: &str, body: Vec<u8>) -> Result<Response, HttpError> {
        self.send(Request::new(Method::PUT, url).body(content_type, body)).await
    }

    /// DELETE.
    pub async fn delete(&self, url: Url) -> Result<Response, HttpError> {
        self.send(Request::new(Method::DELETE, url)).await
    }

    /// Sends a request and reads the whole answer, repeating by the retry table. Any final status is an `Ok`.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let turn = self.breaker.enter(&*self.clock).await.map_err(|left| left_alone(&request.url, &left))?;
            let outcome = match self.follow(&request).await {
                Ok(answer) => answer.read(self.settings.body_bytes_max).await,
                Err(error) => Err(error),
            };
            self.note(outcome.as_ref().map(|answer| answer.status));
            drop(turn);
            match self.wait_before_retry(&request, attempt, outcome.as_ref().map(Response::signal)).await {
                true => {}
                false => return outcome.map_err(|error| error.after(attempt)),
            }
        }
    }

    /// Sends a request and hands the body out in chunks. Attempts are repeated until the headers have come;
    /// a body that breaks off is the caller's to start again.
    pub async fn download(&self, request: Request) -> Result<Download, HttpError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let turn = self.breaker.enter(&*self.clock).await.map_err(|left| left_alone(&request.url, &left))?;
            let outcome = self.follow(&request).await;
            self.note(outcome.as_ref().map(Download::status));
            drop(turn);
            match self.wait_before_retry(&request, attempt, outcome.as_ref().map(Download::signal)).await {
                true => {}
                false => return outcome.map_err(|error| error.after(attempt)),
            }
        }
    }

    /// What an attempt says of the server: whether it is overloaded, and whether it is there at all. Being told to slow down
    /// (429) says nothing of the latter.
    fn note(&self, outcome: Result<u16, &HttpError>) {
        let (is_overloaded, failed) = match outcome {
            Ok(429) => (true, None),
            Ok(status) => (matches!(status, 502..=504), Some(retry::passes(status))),
            // Attempts at a token were counted where they were made.
            Err(HttpError::Unreachable { attempts: 2.., .. }) => return,
            Err(error) => (matches!(error, HttpError::Unreachable { .. }), matches!(error, HttpError::Unreachable { .. } | HttpError::Encoding { .. }).then_some(true)),
        };
        self.width.note(is_overloaded);
        self.breaker.note(failed, self.clock.now());
    }

    async fn wait_before_retry(&self, request: &Request, attempt: u32, outcome: Result<retry::Signal, &HttpError>) -> bool {
        // Attempts at a token were repeated already; to repeat the request would multiply them.
        if matches!(outcome, Err(HttpError::Unreachable { attempts: 2.., .. })) {
            return false;
        }
        let reason = match &outcome {
            Ok(signal) => format!("{}: status {}", origin_text(&request.url), signal.status),
            Err(error) => error.cause(),
        };
        let class = retry::classify(outcome, request.idempotent, self.clock.now());
        let retry::Class::Again { after } = class else { return false };
        if attempt >= request.attempts_max.min(self.settings.retry.attempts) || self.breaker.is_open() || !self.settings.courtesy.may_repeat() {
            return false;
        }
        let delay = self.settings.retry.delay(attempt, after);
        self.settings.retry.say_waiting(&reason, attempt, delay, self.clock.now());
        self.clock.sleep(delay).await;
        true
    }

    /// One attempt: redirects by hand, and one replay with a fresh token after a 401.
    async fn follow(&self, request: &Request) -> Result<Download, HttpError> {
        let (answer, used) = self.hops(request).await?;
        let (Some(token), Some(authorizer), 401) = (used, &self.authorizer, answer.status()) else {
            return Ok(answer);
        };
        drop(answer);
        authorizer.rejected(&token);
        let (answer, used) = self.hops(request).await?;
        match (answer.status(), used) {
            (401, Some(_)) => Err(HttpError::Unauthorized { origin: answer.origin() }),
            _ => Ok(answer),
        }
    }

    async fn hops(&self, request: &Request) -> Result<(Download, Option<String>), HttpError> {
        let mut request = request.clone();
        for _ in 0..=REDIRECTS_MAX {
            let (answer, token) = self.exchange(&request).await?;
            if !matches!(answer.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok((answer, token));
            }
            let Some(target) = answer.header("location") else { return Ok((answer, token)) };
            let origin = answer.origin();
            let refuse = |reason| HttpError::Redirect { origin: origin.clone(), reason };
            let target = request.url.join(target).map_err(|_| refuse("its target is not a URL"))?;
            let away = Origin::of(&target) != Origin::of(&request.url);
            if request.url.scheme() == "https" && target.scheme() != "https" {
                return Err(refuse("it leaves https"));
            }
            match answer.status() {
                303 => (request.method, request.body) = (Method::GET, None),
                _ if request.body.is_some() && away => return Err(refuse("it would carry the body to another origin")),
                _ => {}
            }
            request.url = target;
        }
        Err(HttpError::Redirect { origin: origin_text(&request.url), reason: "there are too many" })
    }

    async fn exchange(&self, request: &Request) -> Result<(Download, Option<String>), HttpError> {
        self.check_address(&request.url)?;
        let goes_to = |origins: &BTreeSet<Origin>| Origin::of(&request.url).is_some_and(|origin| origins.contains(&origin));
        let home = goes_to(&self.token_origins);
        // The one place that decides whether a request carries the token.
        let token = match (&self.authorizer, home, request.token) {
            (Some(authorizer), true, Token::Allowed) => Some(authorizer.token().await?),
            _ => None,
        };
        self.settings.courtesy.admit(&*self.clock).await?;
        let permit = self.enter(&request.url).await?;
        let (is_here, is_own) = (is_loopback(&request.url), home || goes_to(&self.settings.trusted_origins));
        let way = if is_own { &self.own } else { &self.others };
        let mut builder = way.to(is_here).request(request.method.clone(), request.url.clone());
        if is_own {
            builder = self.settings.headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        }
        builder = request.headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        if request.method == Method::GET {
            builder = builder.header("accept-encoding", "gzip");
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        if let Some(token) = &token {
            builder = builder.bearer_auth(token);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let origin = origin_text(&request.url);
        let proxy = self.proxy.filter(|_| !is_here);
        let answer = builder.send().await.map_err(|error| transport(&origin, &error, proxy))?;
        let answer = Download::new(answer, request.url.clone(), self.settings.download_bytes_max, permit);
        self.heed(&request.url, &answer.signal());
        if answer.status() == 206 {
            let reason = "a part of the answer (206) came, where nobody asked for a part".to_owned();
            return Err(HttpError::Unreachable { origin, reason, attempts: 1, is_lasting: false });
        }
        Ok((answer, token))
    }

    /// Waits for a place among the requests under way, and for the end of what its origin asked of everybody meanwhile.
    async fn enter(&self, url: &Url) -> Result<OwnedSemaphorePermit, HttpError> {
        let held = || Origin::of(url).and_then(|origin| self.settings.courtesy.held(&origin, self.clock.now()));
        loop {
            if let Some(wait) = held() {
                self.clock.sleep(wait).await;
            }
            let permit = self.width.enter().await.ok_or_else(|| HttpError::Settings("client is closed".to_owned()))?;
            if held().is_none() {
                return Ok(permit);
            }
        }
    }

    /// Holds every request to an origin that asks to be left alone for a while.
    fn heed(&self, url: &Url, signal: &retry::Signal) {
        let now = self.clock.now();
        let (Some(origin), Some(wait)) = (Origin::of(url), signal.asked_of_all(now)) else { return };
        let Ok(until) = now.checked_add(wait) else { return };
        let text = origin.to_string();
        if self.settings.courtesy.hold(origin, until) && wait > retry::SILENT_WAIT {
            tracing::warn!("{text}: status {}, asks to be left alone: nothing is sent there before {}", signal.status, until.strftime("%Y-%m-%dT%H:%M:%SZ"));
        }
    }

    /// Refuses addresses that no configured peer should name: other schemes, credentials in the URL, plain http
    /// beyond loopback, and link-local or private addresses that are not one of the peer's own.
    fn check_address(&self, url: &Url) -> Result<(), HttpError> {
        let refuse = |reason| Err(HttpError::Refused { origin: origin_text(url), reason });
        let Some(origin) = Origin::of(url) else { return refuse("only http and https are spoken") };
        if url.as_str().len() > URL_BYTES_MAX {
            return refuse("the address is longer than 64 kB");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("the address carries credentials");
        }
        let own = self.token_origins.contains(&origin) || self.settings.trusted_origins.contains(&origin);
        let loopback = is_loopback(url);
        if url.scheme() == "http" && !loopback && !self.settings.plain_http {
            return refuse("plain http is allowed to loopback only, unless `plain_http` is set");
        }
        if loopback && !own && !self.any_own_loopback() {
            return refuse("a loopback address was named by a peer that is elsewhere");
        }
        if !own && is_private(url) {
            return refuse("a private address was named that is not configured");
        }
        Ok(())
    }

    fn any_own_loopback(&self) -> bool {
        let mut own = self.token_origins.iter().chain(&self.settings.trusted_origins).peekable();
        own.peek().is_none() || own.any(|origin| matches!(origin.host.as_str(), "127.0.0.1" | "localhost" | "[::1]"))
    }
}

/// Whether a header may be added by a configuration: it is one, and none that this client or HTTP itself gives a meaning to.
pub fn may_be_set(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_header = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok() && reqwest::header::HeaderValue::from_str(value).is_ok();
    is_header && !OWN_HEADERS.contains(&lower.as_str())
}

fn left_alone(url: &Url, after: &LeftAlone) -> HttpError {
    let reason = "nothing but failures for a quarter of an hour and more; it is left alone but for a probe every ten minutes".to_owned();
    HttpError::Unreachable { origin: origin_text(url), reason, attempts: after.0, is_lasting: false }
}

fn origin_text(url: &Url) -> String {
    Origin::of(url).map_or_else(|| "an address that is not http".to_owned(), |origin| origin.to_string())
}

/// True for `localhost` and the loopback addresses.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
        None => false,
    }
}

fn is_private(url: &Url) -> bool {
    let v4 = |address: std::net::Ipv4Addr| address.is_private() || address.is_link_local() || address.is_unspecified() || address.is_broadcast();
    match url.host() {
        Some(Host::Ipv4(address)) => v4(address),
        Some(Host::Ipv6(address)) => address.is_unspecified() || address.is_unique_local() || address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(v4),
        _ => false,
    }
}

/// The kind of a failure where no answer came in time.
const TIMED_OUT: &str = "timed out";

fn transport(origin: &str, error: &reqwest::Error, proxy: Option<&str>) -> HttpError {
    // reqwest's own text may hold the address with its query, so only the kind is kept.
    let (reason, is_lasting) = if error.is_timeout() {
        (TIMED_OUT, false)
    } else if let Some(reason) = refused_handshake(error) {
        (reason, true)
    } else if error.is_connect() {
        connection_fault(error)
    } else if error.is_body() || error.is_decode() {
        ("the answer broke off", false)
    } else if causes(error).any(|cause| cause.to_string().contains("invalid HTTP version")) {
        ("what answers there speaks no HTTP; `https` may be meant", false)
    } else if origin.starts_with("https:") {
        // Over HTTP/2 what the server says of a certificate is lost more often than not.
        (
            "the connection broke off without an answer, as by a server that asks for a client certificate or does not accept ours (`source.client_certificate_file`)",
            false,
        )
    } else {
        ("the connection failed", false)
    };
    let through = proxy
        .filter(|_| error.is_connect())
        .map(|name| format!("; the environment names a proxy (`{name}`), which may be at fault"));
    HttpError::Unreachable { origin: origin.to_owned(), reason: format!("{reason}{}", through.unwrap_or_default()), attempts: 1, is_lasting }
}

/// An error and what caused it.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source()).take(CAUSES_MAX)
}

/// Why the two cannot agree on TLS, where the peer says so or shows it: alerts (RFC 8446 section 6) by their names in rustls.
fn refused_handshake(error: &reqwest::Error) -> Option<&'static str> {
    let said = causes(error)
        .map(ToString::to_string)
        .find(|text| text.contains("fatal alert: ") || text.contains("peer is incompatible"))?;
    let is_one_of = |alerts: &[&str]| alerts.iter().any(|alert| said.contains(alert));
    if is_one_of(&["CertificateRequired"]) {
        return Some("it asks for a client certificate (`source.client_certificate_file`; shown to the origins of `url`, `token_url` and `token_origins`)");
    }
    if is_one_of(&["CertificateExpired"]) {
        return Some("it says that our client certificate has expired, or is not valid yet (`source.client_certificate_file`)");
    }
    if is_one_of(&["UnknownCA", "BadCertificate", "CertificateUnknown", "CertificateRevoked", "UnsupportedCertificate", "AccessDenied", "DecryptError"]) {
        return Some("it does not accept our client certificate (`source.client_certificate_file`); has the EHR team registered it, or its authority");
    }
    if is_one_of(&["ProtocolVersion", "Tls12", "Tls13"]) {
        return Some("it speaks an old TLS only, and 1.2 or later is asked for: let its administrator enable that");
    }
    is_one_of(&["HandshakeFailure"])
        .then_some("it breaks off the TLS handshake: it may ask for a client certificate (`source.client_certificate_file`), or have no cipher that is safe")
}

/// Which of the things that go wrong before the first byte it was, and whether it goes wrong each time.
fn connection_fault(error: &reqwest::Error) -> (&'static str, bool) {
    for cause in causes(error) {
        let text = cause.to_string();
        if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return ("the connection is refused: nothing listens there", false);
        }
        if text.contains("certificate expired") || text.contains("Expired") {
            return ("its TLS certificate has expired", true);
        }
        if text.contains("not valid for name") || text.contains("NotValidForName") {
            return ("its TLS certificate is another host's", true);
        }
        if text.contains("certificate") {
            return ("its TLS certificate is not trusted (`ca_file` names an authority beside the system's)", true);
        }
        if text.contains("dns error") || text.contains("failed to lookup address") {
            return ("the host's name is not known", false);
        }
    }
    ("cannot connect (not reachable, or no TLS there)", false)
}

impl HttpError {
    /// Whether the peer would not have us: trying again does not help.
    pub fn is_refusal(&self) -> bool {
        matches!(self, HttpError::Token(_) | HttpError::Unauthorized { .. })
    }

    /// Whether every other request of this pull would end alike: its budget is used up, or there is no token.
    pub(crate) fn ends_all(&self) -> bool {
        self.is_refusal() || matches!(self, HttpError::NoTokenNow(_) | HttpError::NotNow(_))
    }

    /// What happened, without how often it was tried.
    pub(crate) fn cause(&self) -> String {
        match self {
            HttpError::Unreachable { origin, reason, .. } => format!("{origin}: {reason}"),
            other => other.to_string(),
        }
    }

    /// Whether an answer was waited for in vain.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, HttpError::Unreachable { reason, .. } if reason.starts_with(TIMED_OUT))
    }

    /// The same after so many attempts.
    pub(crate) fn after(self, made: u32) -> HttpError {
        match self {
            HttpError::Unreachable { origin, reason, attempts, is_lasting } => HttpError::Unreachable { origin, reason, attempts: attempts.max(made), is_lasting },
            other => other,
        }
    }
}
