//! The FHIR server of a simulated hospital: REST, search, SMART Backend Services.

use std::future::Future;
use std::time::Duration;

use super::population::Hospital;

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

/// Something that goes wrong on purpose.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The first page of a search for the type, and the first export file of it, carry this many
    /// malformed resources beside the real ones.
    Malformed {
        /// Resource type whose answers are spoiled.
        resource_type: String,
        /// How many malformed resources.
        count: u32,
    },
    /// The last lines of the first export file of the type are cut in the middle.
    Truncated {
        /// Resource type whose file is spoiled.
        resource_type: String,
        /// How many lines are cut.
        lines: u32,
    },
    /// The first `times` requests whose path contains `path` are answered with `status`.
    Status {
        /// Part of the path, for example `/Observation` or `/token`.
        path: String,
        /// HTTP status, for example 503.
        status: u16,
        /// Seconds in `Retry-After`, if any.
        retry_after: Option<u32>,
        /// How many requests fail.
        times: u32,
    },
    /// Every request whose path contains `path` is answered after `delay`.
    Slow {
        /// Part of the path.
        path: String,
        /// How long an answer takes.
        delay: Duration,
    },
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
    /// Requests a second and client before 429 (none).
    pub rate_limit: Option<u32>,
    /// What goes wrong on purpose.
    pub faults: Vec<Fault>,
    /// Origin that clients see, if it is not the listener's address, without a trailing slash.
    pub public_origin: Option<String>,
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
            rate_limit: None,
            faults: Vec::new(),
            public_origin: None,
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
    /// The network refused.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves the hospital until `shutdown` completes. The FHIR base is `{origin}/fhir`, the token
/// endpoint `{origin}/token`.
///
/// # Errors
/// [`ServeError`] if a client's keys are unreadable or the listener fails.
pub async fn serve(
    _hospital: Hospital,
    _options: Options,
    _listener: tokio::net::TcpListener,
    _shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    todo!()
}

/// A hospital served by [`start`]; it stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// `http://127.0.0.1:PORT/fhir`.
    pub base_url: String,
    /// Dropping it ends the server.
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// Serves the hospital on a free loopback port, in a task of its own.
///
/// # Errors
/// [`ServeError`] as for [`serve`].
pub async fn start(_hospital: Hospital, _options: Options) -> Result<Running, ServeError> {
    todo!()
}
