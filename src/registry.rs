//! The network's end of the wire: clients, tokens, feeds, revisions, receipts, pages.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

pub mod auth;
pub mod feeds;
pub mod pages;
pub mod store;

/// Where the registry reads the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a registry needs to start.
#[derive(Clone)]
pub struct Options {
    /// Directory of its database and signing key; created when missing.
    pub data: PathBuf,
    /// The address that sites use, e.g. `https://registry.example.org`; audience of their assertions and issuer of receipts.
    pub public_url: String,
    /// Name of the network, for the pages.
    pub network: String,
    /// Measures the network accepts.
    pub measures: Vec<MeasureCard>,
    /// Certificate chain and private key (PEM files); none: plain HTTP, for loopback or behind a proxy.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A reverse proxy in front terminates TLS, so plain HTTP beyond loopback is intended.
    pub behind_proxy: bool,
    /// A site is late when its last feed or confirmation is older than this many hours.
    pub late_after_hours: u32,
    /// Where the time is read.
    pub clock: Clock,
}

/// What the registry knows of a measure it accepts: enough to check, draw and explain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasureCard {
    /// Short id, as in the address of its page: `ibd-remission`.
    pub id: String,
    /// Canonical URL without version.
    pub url: String,
    /// The versions accepted; the last one is the newest.
    pub versions: Vec<String>,
    /// Title.
    pub title: String,
    /// What it means and how it is computed, for a family to read.
    pub plain_language: String,
    /// Whether a higher value is better (`Some(true)`), worse, or neither.
    pub higher_is_better: Option<bool>,
    /// How the score is shown.
    pub unit: Unit,
}

/// How a score is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A proportion, shown in percent.
    Percent,
    /// A ratio times a factor, e.g. 1000 and `central line days`.
    Rate {
        /// The factor.
        per: u32,
        /// What the denominator counts.
        of: String,
    },
}

/// Why the registry could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The configuration cannot be served.
    #[error("{0}")]
    Configuration(String),
    /// Files or sockets refused.
    #[error("registry: {0}")]
    Io(#[from] std::io::Error),
    /// The database refused.
    #[error("registry database: {0}")]
    Database(#[from] rusqlite::Error),
}

/// Serves until `shutdown` resolves; running requests are finished first.
pub async fn serve(_options: Options, _listener: TcpListener, _shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), RegistryError> {
    todo!()
}
