//! The network's end of the wire: clients, tokens, feeds, revisions, receipts, pages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{OpenOptions, TryLockError};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::{get, post};
use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::feed::sha256_hex;
use crate::listen::{self, Certificate, ListenError};
use crate::lock::Lock;
use crate::validate::{self, Guards, Weight};
use logic::Likeness;
use quota::Quota;
use receipt::ReceiptKey;
use series::Point;
use store::RegistryStore;

pub mod api;
pub mod auth;
pub mod feeds;
mod knocks;
mod logic;
pub mod pages;
pub mod protocol;
mod query;
pub mod quota;
mod receipt;
mod report;
mod reread;
pub mod series;
mod standing;
pub mod store;
mod strict_json;
pub mod verify;

/// File of the database in the data directory.
const DATABASE_FILE: &str = "registry.sqlite";
/// File that the one serving process holds locked.
const LOCK_FILE: &str = "registry.sqlite.lock";
/// How often uncommitted feeds are looked over.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

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
    /// What HTTPS is served with; none: plain HTTP, for loopback or behind a proxy.
    pub tls: Option<Certificate>,
    /// A reverse proxy in front terminates TLS, so plain HTTP beyond loopback is intended.
    pub behind_proxy: bool,
    /// A site is late when its last feed or confirmation is older than this many hours.
    pub late_after_hours: u32,
    /// What whoever reads pages and series must know; none: everybody may read them.
    pub reader_token: Option<String>,
    /// How much one site may send in a day.
    pub quota: Quota,
    /// Whether another key may sign receipts from now on, because the one before is lost.
    pub new_receipt_key: bool,
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
    /// Of several groups, by their ids, how the scores of those are shown that are of another kind.
    pub units: BTreeMap<String, Unit>,
    /// Groups whose numerator is a sum of amounts, no count, by their ids; the only one by no name.
    pub sums: BTreeSet<String>,
    /// Of a composite the measures that it is made of, as far as they are accepted here.
    pub parts: Vec<MeasureCard>,
    /// By version, what a report is held against; a version without is accepted for its name alone.
    pub definitions: BTreeMap<String, Defined>,
}

impl MeasureCard {
    /// What a period of its newest version is called.
    pub fn span(&self) -> &'static str {
        let newest = self.versions.last().and_then(|version| self.definitions.get(version));
        match newest.and_then(|defined| defined.period) {
            Some(Span::Year) => "year",
            Some(Span::Quarter) => "quarter",
            _ => "month",
        }
    }

    /// Whether values of two versions can stand in one series: one of them says so of the other.
    fn has_comparable(&self, one: &str, other: &str) -> bool {
        let says = |version: &str, of: &str| self.definitions.get(version).is_some_and(|defined| defined.comparable.contains(of));
        one == other || says(one, other) || says(other, one)
    }

    /// Whether what is stated of the logic of a version can neither be shown to be that of the accepted definition nor refused for it.
    pub fn stands_alone(&self, version: &str, logic: &[String]) -> bool {
        self.definitions.get(version).is_some_and(|defined| logic::compare(logic, &defined.logic) == Likeness::Untold)
    }

    /// Whether two values were computed by the same logic, as far as anybody says: in one version with the same parts by that which they
    /// state, otherwise each by that of its own version.
    fn has_same_logic(&self, one: &Point, other: &Point) -> bool {
        if (&one.version, &one.made_of) != (&other.version, &other.made_of) {
            return !one.stands_alone && !other.stands_alone;
        }
        one.stands_alone == other.stands_alone && matches!(logic::compare(&one.logic, &other.logic), Likeness::Same | Likeness::NotSaid)
    }

    /// Whether two values can stand in one series, or be added: their versions can, of a composite those of all that it is made of, and
    /// their logic is not known to be another.
    pub fn is_comparable(&self, one: &Point, other: &Point) -> bool {
        let part = |url: &str| std::iter::once(self).chain(&self.parts).find(|part| part.url == url);
        let same = |own: &str| {
            let (url, version) = own.split_once('|').unwrap_or((own, ""));
            let mut others = other.made_of.iter().filter_map(|other| other.split_once('|')).filter(|(other, _)| *other == url);
            others.all(|(_, other)| part(url).map_or(version == other, |card| card.has_comparable(version, other)))
        };
        self.has_comparable(&one.version, &other.version) && one.made_of.iter().all(|own| same(own)) && self.has_same_logic(one, other)
    }

    /// The goal of a version, in the unit that is shown.
    pub fn goal_of(&self, version: &str) -> Option<f64> {
        let goal = self.definitions.get(version)?.goal?.to_f64()?;
        Some(if self.unit == Unit::Percent { goal * 100.0 } else { goal })
    }

    /// Whether a value of its newest version counts patients of more than its own period, so that no rule over runs is applied.
    pub fn looks_back(&self) -> bool {
        let newest = self.versions.last().and_then(|version| self.definitions.get(version));
        newest.is_some_and(|defined| defined.lookback_months.is_some())
    }

    /// The one of the newest version: that is accepted last; of a composite of the newest parts. What stands alone is it only among its like.
    pub fn newest<'a>(&self, points: impl Iterator<Item = &'a Point>) -> Option<&'a Point> {
        let age = |card: &MeasureCard, version: &str| card.versions.iter().position(|known| known == version);
        let of_part = |part: &MeasureCard, point: &Point| {
            let versions = point.made_of.iter().filter_map(|own| own.split_once('|'));
            versions.filter(|(url, _)| *url == part.url).map(|(_, version)| age(part, version)).max()
        };
        points.max_by_key(|point| (!point.stands_alone, age(self, &point.version), self.parts.iter().map(|part| of_part(part, point)).collect::<Vec<_>>()))
    }

    /// What the newest version says of its groups.
    pub fn groups(&self) -> &[GroupCard] {
        let newest = self.versions.last().and_then(|version| self.definitions.get(version));
        newest.map_or(&[], |defined| &defined.groups)
    }

    /// How the score of a group is shown.
    pub fn unit_of(&self, group: &str) -> Unit {
        self.units.get(group).unwrap_or(&self.unit).clone()
    }
}

/// What the accepted definition of a version says, as far as a report tells it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defined {
    /// The length of its periods; none: a calendar month, quarter or year.
    pub period: Option<Span>,
    /// The network's choices: name and value of each parameter, as reports state them.
    pub parameters: BTreeMap<String, String>,
    /// What its groups are stratified by, as reports name it, and whether everyone has at most one of the strata.
    pub stratifiers: BTreeMap<String, bool>,
    /// Digests of its logic, of its text and of what it means; none where it is not known here.
    pub logic: Vec<String>,
    /// Its groups.
    pub groups: Vec<GroupCard>,
    /// Of a composite the measures that it is made of, by id or address, and their versions where it names these.
    pub parts: BTreeSet<(String, Option<String>)>,
    /// Of those of its value sets that are known here, the digest of their codes.
    pub value_sets: BTreeMap<String, String>,
    /// Other versions whose values can be compared with those of this one.
    pub comparable: BTreeSet<String>,
    /// Months of the patients whom one value counts, where neighbours share most of them.
    pub lookback_months: Option<u32>,
    /// A score to reach, as reports have it.
    pub goal: Option<Decimal>,
    /// What is believable of a site's numbers.
    pub guards: Guards,
}

/// What the accepted definition says of one of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCard {
    /// Its id; empty of the only one.
    pub key: String,
    /// For people; empty of the only one.
    pub label: String,
    /// Whether a higher value is better (`Some(true)`), worse, or neither.
    pub higher_is_better: Option<bool>,
    /// How its score is shown.
    pub unit: Unit,
    /// Whether it counts patients, who may be there in other periods too, and no events.
    pub counts_patients: bool,
}

/// The length of a reporting period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Span {
    Month,
    Quarter,
    Year,
}

impl Span {
    /// Of a period that is one of the calendar.
    pub fn of(first: Date, last: Date) -> Option<Span> {
        if first.day() != 1 || last != last.last_of_month() {
            return None;
        }
        let months = (i32::from(last.year()) - i32::from(first.year())) * 12 + i32::from(last.month()) - i32::from(first.month()) + 1;
        match (months, first.month()) {
            (1, _) => Some(Span::Month),
            (3, 1 | 4 | 7 | 10) => Some(Span::Quarter),
            (12, 1) => Some(Span::Year),
            _ => None,
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Span::Month => "a calendar month",
            Span::Quarter => "a calendar quarter",
            Span::Year => "a calendar year",
        }
    }
}

/// How a score is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A proportion, shown in percent.
    Percent,
    /// A score that is no fraction of anything, as that of a continuous variable: shown as it was reported.
    Number,
    /// How many there are, of a cohort: a score of its own kind, without a denominator.
    Count,
    /// A ratio times a factor, e.g. 1000 and `central line days`; 1 and nothing where the measure states no rate.
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
    /// Another process serves the same data.
    #[error("{path} is locked: another `watershed registry serve` works on this data directory; stop it, or choose another `data`")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Files or sockets refused.
    #[error("registry: {0}")]
    Io(#[from] std::io::Error),
    /// The database refused.
    #[error("registry database: {0}")]
    Database(#[from] rusqlite::Error),
}

/// A registry that answers requests.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

pub(crate) struct Inner {
    options: Options,
    store: RegistryStore,
    key: ReceiptKey,
    client_keys: auth::ClientKeys,
    knocks: knocks::Knocks,
}

impl std::ops::Deref for Registry {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        (self.options.clock)()
    }
}

/// Opens the registry's database in its data directory, creating both when missing.
pub fn open_store(data: &Path) -> Result<RegistryStore, RegistryError> {
    std::fs::create_dir_all(data)?;
    #[cfg(unix)]
    std::fs::set_permissions(data, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    RegistryStore::open(&data.join(DATABASE_FILE))
}

/// A registry with everything open that it needs: nothing but the network can fail from here on.
pub struct Server {
    registry: Registry,
    listener: TcpListener,
    _lock: Lock,
}

impl Server {
    /// Opens the data directory, which no other process may serve, and checks what is to be served with it.
    ///
    /// Plain HTTP is served on loopback only, unless a proxy in front is declared. Errors name the option at fault.
    pub async fn open(mut options: Options, listener: TcpListener) -> Result<Server, RegistryError> {
        let address = listener.local_addr()?;
        if options.tls.is_none() && !options.behind_proxy && !address.ip().is_loopback() {
            return Err(RegistryError::Configuration(format!("`{address}` is not loopback: give a certificate and key, or declare `behind_proxy` if a proxy in front speaks TLS")));
        }
        options.public_url = options.public_url.trim_end_matches('/').to_owned();
        let store = open_store(&options.data)?;
        let lock = lock(&options.data)?;
        let key = ReceiptKey::open(&options.data, &store, options.new_receipt_key, (options.clock)())?;
        if let Some(certificate) = &options.tls {
            listen::load(certificate).await.map_err(unserved)?;
        }
        let registry = Registry(Arc::new(Inner { store, key, client_keys: auth::ClientKeys::new()?, knocks: knocks::Knocks::default(), options }));
        Ok(Server { registry, listener, _lock: lock })
    }

    /// Serves until `shutdown` resolves; running requests are finished first.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), RegistryError> {
        let (expirer, tls) = (self.registry.clone(), self.registry.options.tls.clone());
        let expire = tokio::spawn(async move {
            loop {
                let now = expirer.now();
                if let Err(error) = expirer.store.writing(move |transaction| protocol::expire(transaction, now)).await {
                    tracing::error!(%error, "registry database");
                }
                tokio::time::sleep(EXPIRE_EVERY).await;
            }
        });
        let served = listen::serve(routes(self.registry), self.listener, tls, shutdown).await;
        expire.abort();
        served.map_err(unserved)
    }
}

/// Opens and serves.
pub async fn serve(options: Options, listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), RegistryError> {
    Server::open(options, listener).await?.run(shutdown).await
}

fn unserved(error: ListenError) -> RegistryError {
    match error {
        ListenError::Io(error) => RegistryError::Io(error),
        certificate => RegistryError::Configuration(certificate.to_string()),
    }
}

fn lock(data: &Path) -> Result<Lock, RegistryError> {
    let path = data.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    match Lock::take(file) {
        Ok(lock) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(RegistryError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(RegistryError::Io(error)),
    }
}

fn routes(registry: Registry) -> Router {
    let plain = Router::new()
        .route("/v1/feeds", get(feeds::standing))
        .route("/v1/feeds/{feed}", get(feeds::show).put(feeds::announce).layer(DefaultBodyLimit::max(protocol::MANIFEST_BYTES_MAX)))
        .route("/v1/feeds/{feed}/parts/{sha256}", get(feeds::part).put(feeds::receive).layer(DefaultBodyLimit::max(protocol::PART_BYTES_MAX)))
        .route("/v1/feeds/{feed}/commit", post(feeds::commit).layer(DefaultBodyLimit::max(0)))
        .merge(api::routes().merge(pages::routes()).route_layer(axum::middleware::from_fn_with_state(registry.clone(), auth::reader)))
        .route_layer(axum::middleware::from_fn_with_state(registry.clone(), query::known));
    Router::new()
        .route("/.well-known/smart-configuration", get(auth::configuration))
        .route("/.well-known/jwks.json", get(auth::jwks))
        .route("/token", post(auth::token).layer(DefaultBodyLimit::max(auth::TOKEN_BODY_BYTES_MAX)))
        .merge(plain)
        .fallback(pages::not_found)
        .layer(DefaultBodyLimit::max(0))
        .layer(axum::middleware::map_response(secured))
        .with_state(registry)
}

/// Headers of every answer: nothing from elsewhere, no script, no frame, no guessing of types.
async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Official invariants of a MeasureReport that the report breaks.
fn invariants(report: &serde_json::Value) -> Vec<String> {
    let blocking = validate::check(report).into_iter().filter(|finding| finding.weight == Weight::Block);
    let place = |at: &str| if at.is_empty() { String::new() } else { format!(" at `{at}`") };
    blocking.map(|finding| format!("{} ({}){}", finding.message, finding.rule, place(&finding.at))).collect()
}
