//! Data from an EHR: capability, query plan, search, Bulk Data, folders of files; and imports of what it keeps elsewhere.

pub mod account;
pub mod bulk;
pub mod capability;
pub mod cohort;
pub mod duty;
mod filter;
pub mod folder;
pub mod forecast;
mod identified;
pub mod import;
pub mod intake;
pub mod ledger;
pub mod off_hours;
pub mod patients;
pub mod plan;
pub mod probe;
pub mod pull;
pub mod search;
pub mod since;

use crate::http::{Client, Courtesy, HttpError, Identity, Origin, Settings, is_loopback};
use crate::smart::assertion::SigningKey;
use crate::smart::client::{Audience, SmartConfiguration, TokenClient, TokenSettings, apart, grants_read, scopes_for};
use crate::snapshot::{PatientLines, PullId, SnapshotError};
use crate::store::StoreError;
use capability::Capability;
use patients::List;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

pub use crate::http::{Clock, SystemClock};
pub use off_hours::OffHours;
pub use plan::{Need, Plan, plan};
pub use pull::{pull, pull_for};

/// How data is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Bulk Data where the server declares it; search elsewhere, and where an export is not to be had.
    #[default]
    Auto,
    /// Bulk Data export.
    Bulk,
    /// Search, page by page.
    Search,
}

/// How an export is told which codes of a type are wanted, `_typeFilter`: the guide does not say how a comma within a filter is
/// told from the comma between two, and servers read it differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TypeFilter {
    /// Whole types are exported.
    #[default]
    Off,
    /// `%2C`: HAPI, Kodjin, Epic.
    Encoded,
    /// `\,`: as Epic documents it.
    Escaped,
}

/// The `[source]` table of a site's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Base address of the EHR's FHIR R4 server; empty where the data are files.
    pub url: String,
    /// Folder into which other tools drop all data as files, in the place of a server.
    pub folder: String,
    /// How data is asked for.
    pub mode: Mode,
    /// Client id at the EHR's authorization server; empty: the server asks for none.
    pub client_id: String,
    /// File with the private key, PEM or JWK.
    pub key_file: String,
    /// Token endpoint, for a server without discovery; empty: discovered.
    pub token_url: String,
    /// Whom the assertions are for; empty: the token endpoint. `issuer`: the issuer that the server's SMART configuration names.
    pub assertion_audience: String,
    /// Scopes to ask for; empty: read and search of each needed type.
    pub scopes: Vec<String>,
    /// Headers that this EHR wants on every request (a client id, at some vendors); no other host sees them.
    pub headers: BTreeMap<String, String>,
    /// Parameters that this EHR wants on every search (a practice, at some vendors).
    pub search_parameters: BTreeMap<String, String>,
    /// How far before the last pull's data the next one starts, in minutes: rows become visible late on some servers.
    pub overlap_minutes: u32,
    /// Id of the Group whose patients are taken; empty: every patient.
    pub group: String,
    /// File of the site's own that names the patients whose data are taken, one a line, in the place of a Group.
    pub patients_file: String,
    /// System of the identifiers in `patients_file`; empty: it holds the ids of patients.
    pub patients_system: String,
    /// A search that finds the patients whose data are taken, in the place of a Group: `Patient?organization=Organization/7`.
    pub patients_search: String,
    /// What a type needs in a search on this server; each entry is a search of its own: `Observation` and
    /// `category=laboratory`.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// Whether the server honours `_typeFilter`, and how it reads a comma in it.
    pub type_filter: TypeFilter,
    /// By search, what decides about nobody's place in an initial population is asked for of those only who may be in one.
    pub progressive: bool,
    /// Origins by which the server calls itself in links, behind its proxy; with a path, that of its base there.
    pub internal_origins: Vec<String>,
    /// Types whose resources get a new id with every request; their content tells them apart.
    pub unstable_ids: BTreeSet<String>,
    /// Resources asked for on a page.
    pub page_size: u32,
    /// Requests under way at once.
    pub requests_at_once: u32,
    /// Requests a minute, evenly spread; 0: as fast as it answers.
    pub requests_per_minute: u32,
    /// Requests of one night's pull, after which it goes on in the next night; 0: any number.
    pub requests_per_night: u64,
    /// Hours in which the server may be asked, in the site's zone (`20:00-06:00`); empty: any.
    pub off_hours: String,
    /// File with the snapshot's key; empty: made in the data directory.
    pub snapshot_key_file: String,
    /// File with further certificates to trust (PEM); empty: those of the system.
    pub ca_file: String,
    /// File with the certificate by which this adapter shows who it is (PEM; mutual TLS); empty: the server asks for none.
    pub client_certificate_file: String,
    /// File with that certificate's private key (PEM).
    pub client_certificate_key_file: String,
    /// Plain HTTP to another host than this one is intended.
    pub allow_plain_http: bool,
    /// Further origins of the EHR that may see the token, such as its file server.
    pub token_origins: Vec<String>,
    /// Settings that most sites never touch.
    #[serde(skip)]
    pub tuning: Tuning,
}

/// Settings that most sites never touch.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Days after which everything is read again, to find what vanished without a word where the server does not count.
    pub full_every_days: u32,
    /// Patients in one query, where queries go by patient.
    pub patients_per_query: usize,
    /// Pages of a query after which what came of it is made durable, with the place where it goes on.
    pub pages_per_place: u32,
    /// Further root certificates, PEM text.
    pub root_certificates: Vec<String>,
    /// `client_certificate_file` and its key, from where their paths start; read at each connection, as they are renewed.
    pub identity: Option<Identity>,
    /// Ceiling of the first wait between attempts, in milliseconds.
    pub retry_first_ms: u64,
    /// Attempts for each request.
    pub retry_attempts: u32,
    /// Shortest wait between two polls of an export, in milliseconds.
    pub poll_first_ms: u64,
    /// Whether this server has given data to this client before: then a refused token may be a passing mood of its.
    pub accepted_before: bool,
    /// How long one pull waits for an export, in minutes; an export that takes longer is waited for by the next ones.
    pub export_wait_minutes: u32,
    /// `folder`, from where its path starts.
    pub folder: Option<PathBuf>,
    /// `patients_file`, from where its path starts; read by each pull.
    pub patients: Option<List>,
    /// `off_hours`, as they were read.
    pub off_hours: Option<OffHours>,
    /// Tables that are read beside the source, as they are declared.
    pub imports: Vec<import::Import>,
    /// A person has looked at a sudden loss, and it is true.
    pub accepts_loss: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            full_every_days: 7,
            patients_per_query: 25,
            pages_per_place: 20,
            root_certificates: Vec::new(),
            identity: None,
            retry_first_ms: 1000,
            retry_attempts: 13,
            poll_first_ms: 250,
            accepted_before: false,
            export_wait_minutes: 480,
            folder: None,
            patients: None,
            off_hours: None,
            imports: Vec::new(),
            accepts_loss: false,
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            url: String::new(),
            folder: String::new(),
            mode: Mode::Auto,
            client_id: String::new(),
            key_file: String::new(),
            token_url: String::new(),
            assertion_audience: String::new(),
            scopes: Vec::new(),
            headers: BTreeMap::new(),
            search_parameters: BTreeMap::new(),
            overlap_minutes: 10,
            group: String::new(),
            patients_file: String::new(),
            patients_system: String::new(),
            patients_search: String::new(),
            parameters: BTreeMap::new(),
            type_filter: TypeFilter::Off,
            progressive: true,
            internal_origins: Vec::new(),
            unstable_ids: BTreeSet::new(),
            page_size: 200,
            requests_at_once: 4,
            requests_per_minute: 0,
            requests_per_night: 0,
            off_hours: String::new(),
            snapshot_key_file: String::new(),
            ca_file: String::new(),
            client_certificate_file: String::new(),
            client_certificate_key_file: String::new(),
            allow_plain_http: false,
            token_origins: Vec::new(),
            tuning: Tuning::default(),
        }
    }
}

/// Why a pull could not be made at all. What one query or file did wrong is a [`Gap`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The configuration.
    #[error("{0}")]
    Options(String),
    /// The server cannot be reached or refuses us.
    #[error(transparent)]
    Http(HttpError),
    /// `/metadata` is no CapabilityStatement.
    #[error("the server's /metadata is not a CapabilityStatement (status {status}{said}); {}", asks_for(*status))]
    NotFhir {
        /// Status of the answer.
        status: u16,
        /// What the server says of it, in brackets.
        said: String,
    },
    /// The token's scopes let nothing be read, or no patient. Found before any data is asked for.
    #[error("the authorization server granted no right to read {}; ask the EHR's administrator for `system/<type>.rs` (or `.read`) of each", types.join(", "))]
    Scopes {
        /// Types that would be refused.
        types: Vec<String>,
    },
    /// Every query was refused or failed.
    #[error("nothing could be read: {reason}")]
    Nothing {
        /// The first failure.
        reason: String,
    },
    /// The export, in whose place the same may be searched for.
    #[error("{0}")]
    NoExport(duty::Why),
    /// The folder of files.
    #[error(transparent)]
    Folder(#[from] folder::FolderError),
    /// The server is not ready: the pull stays open, and the next one goes on with it.
    #[error("{reason}; it is waited for at the next pull")]
    Unfinished {
        /// What is waited for.
        reason: String,
    },
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to look at when the server does not say what it can do.
fn asks_for(status: u16) -> &'static str {
    match status {
        400 => "is the base address right, and does this EHR want a header of its own (`source.headers`) or a client certificate (`source.client_certificate_file`)",
        401 | 403 => "is the base address right, and does this EHR want a header of its own (`source.headers`)",
        _ => "is the base address right",
    }
}

impl From<HttpError> for SourceError {
    fn from(error: HttpError) -> SourceError {
        match error {
            HttpError::NotNow(reason) => SourceError::Unfinished { reason },
            other => SourceError::Http(other),
        }
    }
}

/// Something a report needs and did not get, or what is to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The type that is incomplete.
    pub resource_type: String,
    /// The patient, when the gap is one patient's; otherwise all may be touched.
    pub patient: Option<String>,
    /// Why, without patient values.
    pub reason: String,
    /// What kind of reason that is.
    pub code: duty::Code,
}

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct PullOutcome {
    /// Its number.
    pub pull_id: PullId,
    /// Everything that was asked for came, and nothing is held in quarantine.
    pub complete: bool,
    /// What did not come.
    pub gaps: Vec<Gap>,
    /// What a person should know of data that are complete: doubts that have been dispelled.
    pub notes: Vec<Gap>,
    /// Resources received by type, copies included.
    pub received: BTreeMap<String, u64>,
    /// Lines and resources held in quarantine.
    pub quarantined: u64,
    /// Resources that were new or changed.
    pub new_versions: u64,
    /// Resources that are gone.
    pub removed: u64,
    /// Damaged parts of the snapshot that were replaced by what was read.
    pub replaced: u64,
    /// Whether everything was read, or changes only.
    pub full: bool,
    /// How many values the server takes at once, where these are few.
    pub lists: Vec<probe::Fact>,
}

/// Who is told how a pull goes on.
pub trait Progress: Send + Sync {
    /// A stage begins, of so many steps if that is known.
    fn stage(&self, name: &str, steps: Option<u64>);
    /// Steps were made.
    fn advance(&self, steps: u64);
    /// Resources were received.
    fn received(&self, resources: u64);
}

/// Who knows which patients the measures may count.
pub trait Chooser: Send + Sync {
    /// Of these patients those who may be in an initial population: who cannot be told is one of them. `shared` are the resources
    /// of no patient.
    fn may_count(&self, patients: &[PatientLines], shared: &[Vec<u8>]) -> BTreeSet<String>;
}

/// Target of the log's lines that are shown without being asked for: what a night, or whoever waits for it, is doing.
pub const TALK: &str = "daemon";

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _name: &str, _steps: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn received(&self, _resources: u64) {}
}

/// A FHIR server we are connected to, or a folder of files in its place.
pub struct Source {
    /// The options it was connected with.
    pub options: Options,
    /// Base address.
    pub base: Url,
    /// Origins of the EHR, which may see the token.
    origins: BTreeSet<Origin>,
    /// The client; its token goes to the EHR's origins only.
    pub client: Client,
    /// What the server declares.
    pub capability: Capability,
    /// The token client, when the server asks for tokens.
    pub tokens: Option<Arc<TokenClient>>,
    /// Needed types that the token does not let us read, and why: each is a gap of its own.
    pub withheld: BTreeMap<String, duty::Why>,
    /// How far the server's clock and ours are apart, in words, if that is far enough to harm.
    pub clocks_apart: Option<String>,
    retry: crate::http::Retry,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("origin", &Origin::of(&self.base)).finish_non_exhaustive()
    }
}

impl Source {
    /// Reads `/metadata` and the SMART configuration and sets up tokens. `key` is the text of `key_file`; `types` are
    /// the resource types that will be read (scopes are asked for them, and checked before any data is).
    pub async fn connect(options: &Options, key: Option<&SigningKey>, types: &BTreeSet<String>, clock: Arc<dyn Clock>) -> Result<Source, SourceError> {
        if let Some(folder) = &options.tuning.folder {
            return Source::of_files(options, folder);
        }
        let base = parse_base(options)?;
        refuse_small_budget(options)?;
        let settings = settings(options, &base)?;
        let plain = Client::new(settings.clone())?.with_clock(Arc::clone(&clock));
        let capability = capability::probe(&plain, &base).await?;
        if !(capability.fhir_version.is_empty() || capability.fhir_version.starts_with("4.0")) {
            return Err(SourceError::Options(format!("the server speaks FHIR {}, expected R4 (4.0)", capability.fhir_version.escape_debug())));
        }
        let clocks_apart = capability.answered_at.and_then(|theirs| apart(theirs, clock.now()));
        if let Some(apart) = &clocks_apart {
            tracing::warn!("{apart}: set it right, or tokens may be refused");
        }
        let mut client = Client::new(settings.clone())?.with_clock(Arc::clone(&clock));
        let retry = settings.retry.clone();
        let (mut tokens, mut withheld) = (None, BTreeMap::new());
        // A plan always reads Patient, whether a measure asks for it or not.
        let types = &types.iter().cloned().chain(["Patient".to_owned()]).collect::<BTreeSet<String>>();
        if !options.client_id.is_empty() {
            let token_client = Arc::new(token_client(options, key, types, &capability, settings, clock)?);
            token_client.fetch().await?;
            let missing = token_client.not_granted();
            if missing.iter().any(|name| name == "Patient") || missing.len() == types.len() {
                return Err(SourceError::Scopes { types: missing });
            }
            let granted = token_client.granted().unwrap_or_default();
            withheld = missing.into_iter().map(|name| (name.clone(), why_withheld(options, &name, &granted))).collect();
            client = client.with_tokens(Arc::clone(&token_client) as Arc<dyn crate::http::Authorizer>, own_origins(options, &base)?);
            tokens = Some(token_client);
        }
        let origins = own_origins(options, &base)?;
        Ok(Source { options: options.clone(), base, origins, client, capability, tokens, withheld, clocks_apart, retry })
    }

    /// The scopes that this client asks for to read these types, as the server writes them.
    pub fn scopes(&self, types: &BTreeSet<String>) -> String {
        scopes(&self.options, types, &self.capability.smart.clone().unwrap_or_default()).swap_remove(0)
    }

    /// A folder of files, which is asked for nothing.
    fn of_files(options: &Options, folder: &Path) -> Result<Source, SourceError> {
        let named = std::path::absolute(folder).ok().and_then(|folder| Url::from_directory_path(folder).ok());
        let base = named.ok_or_else(|| SourceError::Options(format!("`source.folder`: `{}` is no path", folder.display())))?;
        let settings = Settings::default();
        let (client, retry) = (Client::new(settings.clone())?, settings.retry);
        Ok(Source {
            options: options.clone(),
            base,
            origins: BTreeSet::new(),
            client,
            capability: Capability::default(),
            tokens: None,
            withheld: BTreeMap::new(),
            clocks_apart: None,
            retry,
        })
    }

    /// Whether an address is at the EHR itself, at an origin that may see the token.
    pub(crate) fn is_own(&self, address: &Url) -> bool {
        Origin::of(address).is_some_and(|origin| self.origins.contains(&origin))
    }

    /// Attempts at something that is repeated as a whole.
    pub(crate) fn attempts(&self) -> u32 {
        self.retry.attempts
    }

    /// The wait before attempt number `attempt` + 1 of something that is repeated as a whole.
    pub(crate) fn wait(&self, attempt: u32) -> std::time::Duration {
        self.retry.delay(attempt, None)
    }

    /// Says that something is waited for, before attempt number `attempt` + 1.
    pub(crate) fn say_waiting(&self, what: &str, attempt: u32, wait: std::time::Duration, now: jiff::Timestamp) {
        self.retry.say_waiting(&format!("{}: {what}", self.name()), attempt, wait, now);
    }

    /// A name for this server in the state database: its base without a final slash.
    pub fn name(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }
}

fn parse_base(options: &Options) -> Result<Url, SourceError> {
    let wrong = |reason: &str| SourceError::Options(format!("`source.url` {reason}, expected for example `https://ehr.example.org/fhir`"));
    let base = Url::parse(&options.url).map_err(|_| wrong("is not an address"))?;
    if base.query().is_some() || base.fragment().is_some() || !base.username().is_empty() || base.password().is_some() {
        return Err(wrong("has a query, a fragment or credentials"));
    }
    match base.scheme() {
        "https" => Ok(base),
        "http" if is_loopback(&base) || options.allow_plain_http => Ok(base),
        "http" => Err(wrong("is plain http to another host (set `allow_plain_http` if that is intended)")),
        _ => Err(wrong("is neither https nor http")),
    }
}

/// Each night asks what the server can do, for a token and for the Group's members before it asks for data: a budget that leaves
/// nothing for these brings none, however many nights there are.
fn refuse_small_budget(options: &Options) -> Result<(), SourceError> {
    let given = options.requests_per_night;
    let before = 2 + u64::from(!options.client_id.is_empty()) + u64::from(!options.group.is_empty());
    if given == 0 || given > before {
        return Ok(());
    }
    let what = ["what the server can do", "how tokens are had"].into_iter();
    let what = what
        .chain((!options.client_id.is_empty()).then_some("a token"))
        .chain((!options.group.is_empty()).then_some("the Group's members"));
    let what = what.collect::<Vec<_>>().join(", ");
    Err(SourceError::Options(format!(
        "`source.requests_per_night` is {given}, and each night takes {before} before its first page ({what}), so that no pull would end: set it to {} or more",
        before + 1
    )))
}

/// The origin of the base, and those that the configuration adds.
fn own_origins(options: &Options, base: &Url) -> Result<BTreeSet<Origin>, SourceError> {
    let mut origins: BTreeSet<Origin> = Origin::of(base).into_iter().collect();
    for text in &options.token_origins {
        let origin = Url::parse(text).ok().and_then(|url| Origin::of(&url));
        origins
            .insert(origin.ok_or_else(|| SourceError::Options(format!("`source.token_origins`: `{text}` is not an address, expected for example `https://files.example.org`")))?);
    }
    Ok(origins)
}

fn settings(options: &Options, base: &Url) -> Result<Settings, SourceError> {
    let tuning = &options.tuning;
    let mut settings = Settings {
        concurrency: options.requests_at_once.clamp(1, 32) as usize,
        courtesy: Arc::new(Courtesy::new(options.requests_per_minute, options.requests_per_night)),
        plain_http: options.allow_plain_http,
        headers: options.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        root_certificates: tuning.root_certificates.iter().map(|pem| pem.clone().into_bytes()).collect(),
        identity: tuning.identity.clone(),
        trusted_origins: own_origins(options, base)?,
        ..Settings::default()
    };
    settings.retry.first = std::time::Duration::from_millis(tuning.retry_first_ms);
    settings.retry.attempts = tuning.retry_attempts.max(1);
    if !options.token_url.is_empty() {
        let endpoint = Url::parse(&options.token_url).map_err(|_| SourceError::Options("`source.token_url` is not an address".to_owned()))?;
        settings.trusted_origins.extend(Origin::of(&endpoint));
    }
    Ok(settings)
}

/// Why a type may not be read by what was granted: what was asked for, and what was not.
fn why_withheld(options: &Options, name: &str, granted: &str) -> duty::Why {
    let is_generated = options.scopes.is_empty();
    if !is_generated && !options.scopes.iter().flat_map(|scopes| scopes.split_ascii_whitespace()).any(|scope| grants_read(scope, name)) {
        return duty::Why::new(duty::Code::Unasked, "`source.scopes` asks for no right to read it, and none was granted");
    }
    let of_part = format!("system/{name}.");
    let is_in_part = granted.split_ascii_whitespace().any(|scope| scope.starts_with(&of_part));
    let but = if is_in_part { ", which lets this client read it in part at most" } else { "" };
    let asked = if is_generated { format!("`system/{name}.rs` (or `.read`)") } else { format!("`{}`", options.scopes.join(" ")) };
    let granted = probe::shown_scopes(granted);
    duty::Why::new(duty::Code::Ungranted, format!("the authorization server was asked for {asked} and granted `{granted}`{but}: it is not read"))
}

/// The scopes to ask for, in one writing or the other: the types that are read, and the Group whose patients are.
fn scopes(options: &Options, types: &BTreeSet<String>, configuration: &SmartConfiguration) -> Vec<String> {
    let group = (!options.group.is_empty()).then(|| "Group".to_owned());
    if options.scopes.is_empty() { scopes_for(&types.iter().cloned().chain(group).collect(), configuration) } else { vec![options.scopes.join(" ")] }
}

/// Whom assertions are for. One that names more than the endpoint which gets it could be used elsewhere by whoever made us send it
/// there (CVE-2025-27370): then the endpoint is at the audience's own origin, or configured.
fn audience(options: &Options, configuration: &SmartConfiguration, endpoint: &Url) -> Result<Audience, SourceError> {
    let written = options.assertion_audience.as_str();
    let audience = match written {
        "" => return Ok(Audience::Endpoint),
        "issuer" => {
            let missing = "`source.assertion_audience` is `issuer`, and the server's SMART configuration names none: write what it calls itself";
            Audience::Issuer(configuration.issuer.clone().ok_or_else(|| SourceError::Options(missing.to_owned()))?)
        }
        other => Audience::Named(other.to_owned()),
    };
    let (Audience::Issuer(text) | Audience::Named(text)) = &audience else { return Ok(audience) };
    let is_its_own = Url::parse(text).ok().and_then(|url| Origin::of(&url)).is_some_and(|origin| Some(origin) == Origin::of(endpoint));
    if is_its_own || !options.token_url.is_empty() {
        return Ok(audience);
    }
    let at = Origin::of(endpoint).map(|origin| origin.to_string()).unwrap_or_default();
    Err(SourceError::Options(format!(
        "`source.assertion_audience` is `{written}`, and the server names a token endpoint elsewhere ({at}), which could use our assertions at the audience: \
         if it is the EHR's own, write it as `source.token_url`"
    )))
}

fn token_client(
    options: &Options,
    key: Option<&SigningKey>,
    types: &BTreeSet<String>,
    capability: &Capability,
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> Result<TokenClient, SourceError> {
    let key = key.ok_or_else(|| SourceError::Options("`source.client_id` is set, so `source.key_file` must name the private key".to_owned()))?;
    let configuration = capability.smart.clone().unwrap_or_default();
    let endpoint = if options.token_url.is_empty() { configuration.token_endpoint.clone() } else { Url::parse(&options.token_url).ok() };
    let endpoint =
        endpoint.ok_or_else(|| SourceError::Options("the server names no token endpoint; set `source.token_url`, or clear `source.client_id` if it needs none".to_owned()))?;
    let audience = audience(options, &configuration, &endpoint)?;
    let scopes = scopes(options, types, &configuration);
    let http = Client::new(settings)?.with_clock(Arc::clone(&clock));
    let settings = TokenSettings {
        endpoint,
        audience,
        client_id: options.client_id.clone(),
        key: key.clone(),
        scopes,
        needs: types.clone(),
        accepted_before: options.tuning.accepted_before,
    };
    Ok(TokenClient::new(http, settings, clock))
}
