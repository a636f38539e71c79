//! Site and registry configuration: defaults, file, environment.
//!
//! Each room owns its `Options`; this file only composes them, resolves paths (relative to the configuration file)
//! and finds every problem before anything starts. Secrets are never keys here, only the files that hold them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, SourceFile, nearest};
use crate::fhir::compartment::is_id;
use crate::measure::definition::Interval;
use crate::source::Mode;
use foreign::{Expected, foreign};

pub mod doubtful;
pub mod foreign;
pub mod layers;
pub mod measures;
pub mod setup;
pub use layers::Places;

/// The example of a site's configuration: every key with its default.
pub const SITE_EXAMPLE: &str = include_str!("../config/site.example.toml");
/// The example of a registry's configuration: every key with its default.
pub const REGISTRY_EXAMPLE: &str = include_str!("../config/registry.example.toml");
/// Resources a page may have.
pub const PAGE_SIZE_MAX: u32 = 10_000;
/// Requests to one EHR at once.
pub const REQUESTS_MAX: u32 = 64;
/// Parameters of a search that are the adapter's own.
const OWN_PARAMETERS: [&str; 7] = ["_count", "_elements", "_lastUpdated", "_since", "_summary", "_total", "_type"];
/// Months a night may report.
pub const MONTHS_MAX: u32 = 240;
/// Threads a night may evaluate on.
pub const THREADS_MAX: u32 = 1024;

/// What an adapter at a hospital needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Site {
    /// Who and where.
    pub site: Identity,
    /// The EHR.
    pub source: crate::source::Options,
    /// The site's mapping.
    pub mapping: Mapping,
    /// What the EHR keeps outside FHIR.
    pub imports: Imports,
    /// What is measured.
    pub measures: Measures,
    /// When.
    pub schedule: Schedule,
    /// Where the feeds go.
    pub registry: Destination,
}

/// Who and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// The site's name, as registered with the network.
    pub id: String,
    /// Name for people, in the reports' `reporter`.
    pub title: String,
    /// IANA zone in which its days and months are meant.
    pub time_zone: String,
    /// Directory of its state and snapshot.
    pub data: String,
}

impl Default for Identity {
    fn default() -> Self {
        Identity { id: String::new(), title: String::new(), time_zone: "UTC".to_owned(), data: "data".to_owned() }
    }
}

/// The site's mapping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// The mapping file; empty when the hospital writes standard codes.
    pub file: String,
}

/// What the EHR keeps outside FHIR.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Imports {
    /// Files that each declare a table: its columns, and the resource that a row becomes.
    pub files: Vec<String>,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measures {
    /// Measure folders, each with its `measure.yaml`.
    pub folders: Vec<String>,
    /// Folders or files of value sets beside those of the measures.
    pub value_sets: Vec<String>,
    /// How many complete months are reported each night.
    pub months: u32,
    /// Of published measures, by their ids, how long their periods are, where that is not their `effectivePeriod`.
    pub periods: BTreeMap<String, Interval>,
    /// Threads that evaluate; 0: one per core.
    pub threads: u32,
}

impl Default for Measures {
    fn default() -> Self {
        Measures { folders: Vec::new(), value_sets: Vec::new(), months: 24, periods: BTreeMap::new(), threads: 0 }
    }
}

/// When the nights are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Cron expression in the site's zone: minute, hour, day, month, weekday.
    pub cron: String,
    /// Whether a night missed while the daemon was down is run, once, when it starts.
    pub catch_up: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule { cron: "30 1 * * *".to_owned(), catch_up: true }
    }
}

/// Where the feeds go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Destination {
    /// Address of the Watershed registry.
    pub url: String,
    /// The client id under which the site is registered there.
    pub client_id: String,
    /// File with the private key (PEM or JWK) whose public half is registered there.
    pub key_file: String,
    /// File with further certificates to trust (PEM); empty: those of the system.
    pub ca_file: String,
    /// Whether plain HTTP to another host than this one is intended.
    pub allow_plain_http: bool,
}

/// What a registry needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Directory of its database and signing key.
    pub data: String,
    /// Address and port to listen on.
    pub listen: String,
    /// The address that sites use; empty: made of `listen`.
    pub public_url: String,
    /// Name of the network, for the pages.
    pub network: String,
    /// What the network accepts: measure folders, or Measures as they are published.
    pub measures: Vec<String>,
    /// Certificate chain (PEM); empty: plain HTTP.
    pub tls_certificate_file: String,
    /// Its private key (PEM).
    pub tls_key_file: String,
    /// A reverse proxy in front terminates TLS, so plain HTTP beyond loopback is intended.
    pub behind_proxy: bool,
    /// A site is late when its last feed is older than this many hours.
    pub late_after_hours: u32,
    /// File of the token that whoever reads pages and series needs; empty: everybody may read them.
    pub reader_token_file: String,
    /// Feeds that one site may announce within 24 hours.
    pub feeds_per_day: u32,
    /// Megabytes of new reports that are kept of one site within 24 hours.
    pub megabytes_per_day: u32,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            data: "registry-data".to_owned(),
            listen: "127.0.0.1:8080".to_owned(),
            public_url: String::new(),
            network: "Learning Health Network".to_owned(),
            measures: Vec::new(),
            tls_certificate_file: String::new(),
            tls_key_file: String::new(),
            behind_proxy: false,
            late_after_hours: 36,
            reader_token_file: String::new(),
            feeds_per_day: 100,
            megabytes_per_day: 1024,
        }
    }
}

/// A configuration with where it came from.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The values.
    pub value: T,
    /// Where each key was written.
    pub places: Places,
    /// The directory that relative paths start from.
    pub base: PathBuf,
}

impl<T> Loaded<T> {
    /// A path as written, from the configuration's own directory.
    pub fn path(&self, written: &str) -> PathBuf {
        self.base.join(written)
    }
}

/// Reads a site's configuration. `None` only if there are errors.
pub fn load_site(path: &Path) -> (Option<Loaded<Site>>, Vec<Diagnostic>) {
    sound(inspect_site(path))
}

/// Reads a site's configuration as far as it can be read, so that what it names can be checked beside its errors.
pub fn inspect_site(path: &Path) -> (Option<Loaded<Site>>, Vec<Diagnostic>) {
    load(path, "config/site.example.toml", check_site)
}

/// Reads a registry's configuration. `None` only if there are errors.
pub fn load_registry(path: &Path) -> (Option<Loaded<Registry>>, Vec<Diagnostic>) {
    sound(load(path, "config/registry.example.toml", check_registry))
}

fn sound<T>((loaded, findings): (Option<T>, Vec<Diagnostic>)) -> (Option<T>, Vec<Diagnostic>) {
    (loaded.filter(|_| !crate::diagnostic::has_errors(&findings)), findings)
}

fn load<T>(path: &Path, example: &str, check: fn(&Loaded<T>) -> Vec<Diagnostic>) -> (Option<Loaded<T>>, Vec<Diagnostic>)
where
    T: Serialize + serde::de::DeserializeOwned + Default,
{
    let source = match read(path, example) {
        Ok(source) => source,
        Err(finding) => return (None, vec![finding]),
    };
    let environment: BTreeMap<String, String> = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let (found, mut findings) = layers::lay::<T>(Some(&source), &environment);
    let base = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let Some((value, places)) = found else { return (None, findings) };
    let loaded = Loaded { value, places, base };
    // A key of which something was said already has its default here, of which nothing is to be said.
    let news = check(&loaded).into_iter().filter(|new| new.at.is_none() || findings.iter().all(|old| old.at != new.at));
    let news: Vec<Diagnostic> = news.collect();
    findings.extend(news);
    (Some(loaded), findings)
}

fn read(path: &Path, example: &str) -> Result<Arc<SourceFile>, Diagnostic> {
    let shown = path.display().to_string();
    let missing = |error: std::io::Error| {
        Diagnostic::error(format!("cannot read configuration `{shown}`: {error}")).help(format!("start from a copy of {example}, or name yours with `--config`"))
    };
    let size = std::fs::metadata(path).map_err(missing)?.len();
    if size > layers::FILE_BYTES_MAX {
        return Err(Diagnostic::error(format!("configuration `{shown}` has {size} bytes, at most {} are read", layers::FILE_BYTES_MAX)));
    }
    let text = std::fs::read_to_string(path).map_err(missing)?;
    match foreign(&shown, text.as_bytes(), Expected::Keys) {
        Some(finding) => Err(finding),
        None => Ok(SourceFile::new(shown, text)),
    }
}

/// What the types cannot say; each finding at its key.
fn check_site(loaded: &Loaded<Site>) -> Vec<Diagnostic> {
    let Site { site, source, mapping, imports, measures, schedule, registry } = &loaded.value;
    let mut check = Checker { loaded_base: &loaded.base, places: &loaded.places, findings: Vec::new() };
    check.required("site.id", &site.id, "the name under which the network knows this hospital");
    if !site.id.is_empty() && !crate::feed::is_site_name(&site.id) {
        check.error("site.id", format!("`{}` is no site name", site.id), "1 to 63 lower-case letters, digits and hyphens, as the network registered it");
    }
    if jiff::tz::TimeZone::get(&site.time_zone).is_err() {
        check.error("site.time_zone", format!("no time zone is named `{}`", site.time_zone), "write an IANA name, for example `America/New_York`");
    }
    check.whence(source);
    check.address("source.url", &source.url, source.allow_plain_http);
    check.address("source.token_url", &source.token_url, source.allow_plain_http);
    source.token_origins.iter().for_each(|origin| check.address("source.token_origins", origin, source.allow_plain_http));
    check.exists("source.key_file", &source.key_file);
    check.exists("source.snapshot_key_file", &source.snapshot_key_file);
    check.exists("source.ca_file", &source.ca_file);
    check.certificate(("source.client_certificate_file", &source.client_certificate_file), ("source.client_certificate_key_file", &source.client_certificate_key_file));
    if !source.client_id.is_empty() && source.key_file.is_empty() {
        check.error("source.key_file", "`source.key_file` is empty".to_owned(), "a client id needs the private key that proves it");
    }
    for (name, _) in source.headers.iter().filter(|(name, value)| !crate::http::may_be_set(name, value)) {
        check.error(
            "source.headers",
            format!("`{name}` is no header to set here"),
            "headers are for what a vendor wants to know, for example `Epic-Client-ID`; access is given by `client_id` and `key_file`",
        );
    }
    for (key, number, most) in [("source.page_size", source.page_size, PAGE_SIZE_MAX), ("source.requests_at_once", source.requests_at_once, REQUESTS_MAX)] {
        if !(1..=most).contains(&number) {
            check.error(key, format!("`{key}` is {number}"), &format!("between 1 and {most}"));
        }
    }
    check.off_hours("source.off_hours", &source.off_hours);
    check.resource_types(&[("source.parameters", source.parameters.keys().collect()), ("source.unstable_ids", source.unstable_ids.iter().collect())]);
    check.searches(&source.parameters, &source.search_parameters);
    for written in &source.internal_origins {
        if url::Url::parse(written).ok().and_then(|url| crate::http::Origin::of(&url)).is_none() {
            check.error("source.internal_origins", format!("`{written}` is no origin"), "scheme, host and port: `http://fhir-internal:8080`");
        }
    }
    check.exists("mapping.file", &mapping.file);
    for file in &imports.files {
        check.exists("imports.files", file);
    }
    if measures.folders.is_empty() {
        check.error("measures.folders", "no measure is named".to_owned(), "name at least one measure folder");
    }
    for folder in measures.folders.iter() {
        check.exists("measures.folders", folder);
    }
    for path in measures.value_sets.iter() {
        check.exists("measures.value_sets", path);
    }
    if !(1..=MONTHS_MAX).contains(&measures.months) {
        check.error("measures.months", format!("`measures.months` is {}", measures.months), &format!("between 1 and {MONTHS_MAX}"));
    }
    if measures.threads > THREADS_MAX {
        check.error("measures.threads", format!("`measures.threads` is {}", measures.threads), &format!("at most {THREADS_MAX}; 0 takes one per core"));
    }
    check.cron("schedule.cron", &schedule.cron);
    check.required("registry.url", &registry.url, "the address of the network's registry");
    check.address("registry.url", &registry.url, registry.allow_plain_http);
    check.required("registry.client_id", &registry.client_id, "the client id given when the site was registered");
    check.required("registry.key_file", &registry.key_file, "the private key whose public half the registry has");
    check.exists("registry.key_file", &registry.key_file);
    check.exists("registry.ca_file", &registry.ca_file);
    check.findings
}

fn check_registry(loaded: &Loaded<Registry>) -> Vec<Diagnostic> {
    let registry = &loaded.value;
    let mut check = Checker { loaded_base: &loaded.base, places: &loaded.places, findings: Vec::new() };
    if registry.listen.parse::<std::net::SocketAddr>().is_err() {
        check.error("listen", format!("`{}` is no address to listen on", registry.listen), "write address and port, for example `127.0.0.1:8080`");
    }
    check.public_url(registry);
    if registry.measures.is_empty() {
        check.error("measures", "no measure is named".to_owned(), "name the folders of the measures that the network accepts");
    }
    for folder in &registry.measures {
        check.exists("measures", folder);
    }
    check.certificate(("tls_certificate_file", &registry.tls_certificate_file), ("tls_key_file", &registry.tls_key_file));
    check.exists("reader_token_file", &registry.reader_token_file);
    if registry.late_after_hours == 0 {
        check.error("late_after_hours", "`late_after_hours` is 0".to_owned(), "36 allows for a night that starts late");
    }
    for (key, value) in [("feeds_per_day", registry.feeds_per_day), ("megabytes_per_day", registry.megabytes_per_day)] {
        if value == 0 {
            check.error(key, format!("`{key}` is 0: nobody could send anything"), "leave it out for the default");
        }
    }
    check.findings
}

/// Collects findings about keys.
struct Checker<'a> {
    loaded_base: &'a Path,
    places: &'a Places,
    findings: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn error(&mut self, key: &str, message: String, help: &str) {
        self.findings.push(self.places.error(key, message).help(help));
    }

    fn required(&mut self, key: &str, value: &str, what: &str) {
        if value.trim().is_empty() {
            self.error(key, format!("`{key}` is required"), what);
        }
    }

    fn exists(&mut self, key: &str, written: &str) {
        let path = self.loaded_base.join(written);
        if !written.is_empty() && !path.exists() {
            self.error(key, format!("`{written}` does not exist"), &format!("looked for {}; paths are relative to the configuration file", path.display()));
        }
    }

    /// A certificate and its key: both, or neither.
    fn certificate(&mut self, certificate: (&str, &str), private_key: (&str, &str)) {
        for ((key, file), (_, other)) in [(certificate, private_key), (private_key, certificate)] {
            self.exists(key, file);
            if file.is_empty() && !other.is_empty() {
                self.error(key, format!("`{key}` is empty"), "TLS needs the certificate and its key");
            }
        }
    }

    /// One source, of which the options can be followed.
    fn whence(&mut self, source: &crate::source::Options) {
        self.exists("source.folder", &source.folder);
        self.group("source.group", &source.group);
        self.patients(source);
        match (source.url.is_empty(), source.folder.is_empty()) {
            (_, true) => self.required("source.url", &source.url, "the base address of the EHR's FHIR server; or `source.folder`, where other tools drop the data as files"),
            (false, false) => self.error("source.folder", "`source.url` and `source.folder` are both set".to_owned(), "data come from one of them: leave the other one empty"),
            (true, false) if !source.group.is_empty() => {
                self.error(
                    "source.group",
                    "`source.group` is set beside `source.folder`".to_owned(),
                    "all patients in the files are taken: let what writes them choose the patients",
                );
            }
            (true, false) => {}
        }
    }

    fn off_hours(&mut self, key: &str, written: &str) {
        let read = crate::source::OffHours::parse(written, jiff::tz::TimeZone::UTC);
        if let (Err(error), false) = (read, written.is_empty()) {
            self.error(key, error, "from when until when the EHR may be asked, in the site's zone: `20:00-06:00`");
        }
    }

    /// A list of patients, or a search for them, in the place of a Group.
    fn patients(&mut self, source: &crate::source::Options) {
        if source.patients_file.is_empty() && !source.patients_system.is_empty() {
            self.error(
                "source.patients_system",
                "`source.patients_system` is set, and `source.patients_file` is not".to_owned(),
                "name the file whose lines are identifiers of this system",
            );
        }
        if !source.patients_search.is_empty()
            && let Err(help) = crate::source::cohort::searches(&source.patients_search)
        {
            self.error("source.patients_search", format!("`{}` is no search for patients", source.patients_search), &help);
        }
        if !source.patients_search.is_empty() && source.parameters.contains_key("Patient") {
            self.error("source.parameters", "`source.parameters` has Patient, beside `source.patients_search`".to_owned(), "write these parameters into `source.patients_search`");
        }
        for (key, written) in [("source.patients_file", &source.patients_file), ("source.patients_search", &source.patients_search)] {
            let mut beside = |is_set: bool, other: &str, help: &str| {
                if is_set && !written.is_empty() {
                    self.error(key, format!("`{key}` is set beside {other}"), help);
                }
            };
            beside(!source.group.is_empty(), "`source.group`", "patients come from one of them: leave the other one empty");
            beside(!source.folder.is_empty(), "`source.folder`", "all patients in the files are taken: let what writes them choose the patients");
            beside(source.mode == Mode::Bulk, "`mode = \"bulk\"`", "these patients are asked for by search: leave `mode` out, or have the EHR team make a Group of them");
            beside(key == "source.patients_search" && !source.patients_file.is_empty(), "`source.patients_file`", "patients come from one of them: leave the other one empty");
        }
    }

    /// The id of a Group, as it stands behind `Group/`.
    fn group(&mut self, key: &str, written: &str) {
        let id = written.rsplit('/').next().unwrap_or_default();
        if !written.is_empty() && !is_id(written) {
            let help = if is_id(id) { format!("write the id alone: `{id}`") } else { "letters, digits, `-` and `.`, at most 64, as the EHR team gave it".to_owned() };
            self.error(key, format!("`{written}` is no id of a Group"), &help);
        }
    }

    fn cron(&mut self, key: &str, written: &str) {
        let example = "minute, hour, day, month, weekday: `30 1 * * *` is every night at half past one";
        match crate::pipeline::schedule::Schedule::parse(written, jiff::tz::TimeZone::UTC) {
            Err(error) => self.error(key, format!("`{written}` is no cron expression: {}", error.to_lowercase().trim_end_matches('.')), example),
            Ok(schedule) if schedule.next(jiff::Timestamp::now()).is_none() => self.error(key, format!("`{written}` never comes: no day is like that"), example),
            Ok(_) => {}
        }
    }

    /// Names of FHIR's resource types.
    fn resource_types(&mut self, keys: &[(&str, Vec<&String>)]) {
        let models = crate::cql::model::Models::default();
        let known: Vec<&str> = models.fhir().retrievable_names().collect();
        for (key, written) in keys.iter().flat_map(|(key, names)| names.iter().map(move |name| (key, name))) {
            if !known.contains(&written.as_str()) {
                let help = nearest(written, known.iter().copied()).map_or_else(|| "a type's name, for example `Observation`".to_owned(), |name| format!("did you mean `{name}`?"));
                self.error(key, format!("`{written}` is no resource type of FHIR R4"), &help);
            }
        }
    }

    /// What is added to searches may neither leave out a type nor narrow what is asked for: nobody would notice.
    fn searches(&mut self, of_types: &BTreeMap<String, Vec<String>>, of_all: &BTreeMap<String, String>) {
        for name in of_types.iter().filter(|(_, searches)| searches.is_empty()).map(|(name, _)| name) {
            self.error(
                "source.parameters",
                format!("`{name}` has no search: nothing of it would be asked for"),
                "leave the type out, or write a search, for example \"category=laboratory\"",
            );
        }
        let written = of_types.values().flatten().flat_map(|search| search.split('&'));
        for search in written
            .clone()
            .filter(|search| !search.split_once('=').is_some_and(|(name, value)| !name.is_empty() && !value.is_empty()))
        {
            self.error("source.parameters", format!("`{search}` is no parameter with a value"), "write name and value, for example \"category=laboratory\"");
        }
        let names = written.filter_map(|search| search.split_once('=')).map(|(name, _)| ("source.parameters", name));
        for (key, name) in names.chain(of_all.keys().map(|name| ("source.search_parameters", name.as_str()))) {
            if OWN_PARAMETERS.contains(&name) {
                self.error(
                    key,
                    format!("`{name}` is set by the adapter itself"),
                    "name only what this server demands beside it; less than everything would come, and be reported as all",
                );
            }
        }
    }

    /// Sites prove who they are to exactly this address, and send to what lies directly below it.
    fn public_url(&mut self, registry: &Registry) {
        let (key, written) = ("public_url", &registry.public_url);
        let is_tls = !registry.tls_certificate_file.is_empty() || registry.behind_proxy;
        let every = registry.listen.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
        if written.is_empty() {
            if registry.behind_proxy || is_tls && every {
                let whose = if registry.behind_proxy { "a proxy" } else { "every address" };
                let message = format!("`{key}` is empty, and `listen` with {whose} does not say what sites call this registry");
                self.error(key, message, "write the address that sites use, for example `https://registry.example.org`");
            }
            return;
        }
        self.address(key, written, true);
        let Ok(url) = url::Url::parse(written) else { return };
        let origin = url.origin().ascii_serialization();
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        match url.scheme() {
            "http" if is_tls => {
                self.error(key, format!("`{key}` is plain HTTP, but the registry is reached by TLS"), "begin it with https://: sites prove who they are to exactly this address")
            }
            "http" | "https" if !is_bare => {
                self.error(key, format!("`{key}` is more than an address: `{written}`"), &format!("write scheme and host alone: `{origin}`; the registry's pages lie at its root"))
            }
            _ => {}
        }
    }

    fn address(&mut self, key: &str, written: &str, plain: bool) {
        if written.is_empty() {
            return;
        }
        match url::Url::parse(written) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => self.error(key, format!("`{key}` must begin with https://"), "the protocol is HTTP"),
            Ok(url) if url.scheme() == "http" && !plain && !is_loopback(&url) => {
                self.error(key, format!("`{key}` is plain HTTP to another host"), "use https://, or set `allow_plain_http = true` if that network is private");
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.error(key, format!("`{key}` carries a user name or password"), "leave it out: access is given by `client_id` and `key_file`");
            }
            Ok(url) if key.ends_with(".url") && (url.query().is_some() || url.fragment().is_some()) => {
                self.error(key, format!("`{key}` has a part after `?` or `#`"), "end it with the path; `search_parameters` are added to searches");
            }
            Ok(_) => {}
            Err(error) => self.error(key, format!("`{written}` is no address: {error}"), "write it whole, for example `https://registry.example.org`"),
        }
    }
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of the example with its value, as the code's default has it.
    fn assert_example<T: Serialize + serde::de::DeserializeOwned + Default>(text: &str) {
        let read = config::Config::builder().add_source(config::File::from_str(text, config::FileFormat::Toml));
        let read: serde_json::Value = read.build().unwrap().try_deserialize().unwrap();
        let default = serde_json::to_value(T::default()).unwrap();
        assert_eq!(sorted(&read), sorted(&default), "the example and the defaults in the code differ");
        for (index, line) in text.lines().enumerate() {
            assert!(
                line.is_empty() || line.starts_with(['#', '[']) || text.lines().nth(index.saturating_sub(1)).is_some_and(|above| above.starts_with('#')),
                "line {}: `{line}` has no comment above it",
                index + 1
            );
        }
    }

    fn sorted(value: &serde_json::Value) -> String {
        fn walk(value: &serde_json::Value, path: &str, lines: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(members) if !members.is_empty() => members.iter().for_each(|(name, inner)| walk(inner, &format!("{path}.{name}"), lines)),
                other => lines.push(format!("{path} = {other}")),
            }
        }
        let mut lines = Vec::new();
        walk(value, "", &mut lines);
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn the_site_example_holds_every_key_with_its_default() {
        assert_example::<Site>(SITE_EXAMPLE);
    }

    #[test]
    fn the_registry_example_holds_every_key_with_its_default() {
        assert_example::<Registry>(REGISTRY_EXAMPLE);
    }

    #[test]
    fn headers_are_for_what_a_vendor_wants_to_know_and_never_for_access() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        let headers = "Epic-Client-ID = '4711'\nAuthorization = 'Basic abc'\n'two words' = 'x'\nX-Practice = \"a\\nb\"\n";
        std::fs::write(&path, format!("[source]\n[source.headers]\n{headers}[source.search_parameters]\nah-practice = 'Organization/1'\n")).unwrap();
        let (_, findings) = load_site(&path);
        let report = crate::diagnostic::render_human(&findings, false);
        for name in ["Authorization", "two words", "X-Practice"] {
            assert!(report.contains(&format!("`{name}` is no header to set here")), "`{name}` is missing in\n{report}");
        }
        assert!(!report.contains("Epic-Client-ID` is") && !report.contains("ah-practice"), "{report}");
    }

    #[test]
    fn a_wrong_site_is_told_everything_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        std::fs::write(
            &path,
            "[site]\ntime_zone = 'Europe/Pari'\n[source]\nurl = 'https://ehr.example.org/fhir?x=1'\ntoken_url = 'https://me:secret@ehr.example.org'\ninternal_origins = ['fhir-internal']\nunstable_ids = ['Devise']\noff_hours = '8pm-6am'\n\
             [source.parameters]\nObservations = ['category=laboratory']\nCondition = []\nProcedure = ['category', '_lastUpdated=gt2030']\n\
             [source.search_parameters]\n_count = '5'\n[measures]\nfolders = ['nowhere']\nmonths = 0\n[schedule]\ncron = 'nightly'\n[registry]\nurl = 'http://registry.example.org'\n",
        )
        .unwrap();
        let (loaded, findings) = load_site(&path);
        assert!(loaded.is_none());
        let report = crate::diagnostic::render_human(&findings, false);
        for expected in [
            "`site.id` is required",
            "`source.url` has a part after `?` or `#`",
            "`source.token_url` carries a user name or password",
            "no time zone is named `Europe/Pari`",
            "`nowhere` does not exist",
            "`fhir-internal` is no origin",
            "`Devise` is no resource type of FHIR R4",
            "did you mean `Observation`?",
            "`8pm-6am` is no span of a day",
            "`Condition` has no search",
            "`category` is no parameter with a value",
            "`_lastUpdated` is set by the adapter itself",
            "`_count` is set by the adapter itself",
            "`measures.months` is 0",
            "`nightly` is no cron expression",
            "plain HTTP to another host",
            "`registry.client_id` is required",
        ] {
            assert!(report.contains(expected), "`{expected}` is missing in\n{report}");
        }
    }
}
