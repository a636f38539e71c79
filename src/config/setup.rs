//! From a checked configuration to a [`Setup`]: measures, value sets, mapping and keys are read and checked as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::foreign::{Expected, foreign};
use super::{Loaded, Site, measures};
use crate::destination::registry::Registry;
use crate::diagnostic::{Diagnostic, Severity, SourceFile, has_errors, nearest};
use crate::feed::sha256_hex;
use crate::http::{Clock, Identity, Origin, Settings};
use crate::mapping::Mapping;
use crate::measure::definition::Population;
use crate::measure::population::PopulationCode;
use crate::measure::{Choices, Measure, published};
use crate::pipeline::{Adapter, Lineage, NightError, RULES, SNAPSHOT_FOLDER, STATE_FILE, Setup, needs};
use crate::smart::assertion::SigningKey;
use crate::snapshot::{self, Key, Snapshot, is_in_use};
use crate::source::import::{self, Counted, Import, Member};
use crate::source::patients::List;
use crate::store::Store;
use crate::terminology::ValueSets;

/// Bytes of one file that a person wrote: a measure, a library, a mapping, a key.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Attempts at one request to the registry: the outbox keeps the feed and comes back.
const REGISTRY_ATTEMPTS: u32 = 3;
/// File of the snapshot's key, unless one is named.
const SNAPSHOT_KEY_FILE: &str = "snapshot.key";

/// The site's data directory.
pub fn data_folder(site: &Loaded<Site>) -> PathBuf {
    site.path(&site.value.site.data)
}

/// Makes the site's data directory, if it is not there, for its owner's eyes only.
pub fn make_data_folder(site: &Loaded<Site>) -> std::io::Result<()> {
    create_private_folder(&data_folder(site))
}

/// The site's state database.
pub fn state_file(site: &Loaded<Site>) -> PathBuf {
    data_folder(site).join(STATE_FILE)
}

/// The file of the snapshot's key.
pub fn snapshot_key_file(site: &Loaded<Site>) -> PathBuf {
    match site.value.source.snapshot_key_file.as_str() {
        "" => data_folder(site).join(SNAPSHOT_KEY_FILE),
        written => site.path(written),
    }
}

/// Reads and checks everything a night needs. `None` only if there are errors.
pub fn read(site: &Loaded<Site>) -> (Option<Setup>, Vec<Diagnostic>) {
    let mut reader = Reader { findings: Vec::new() };
    let measures = reader.measures(site);
    reader.setup(site, measures)
}

/// The same for a person who asks whether all is well: the measures' test patients are checked too.
pub fn check(site: &Loaded<Site>) -> (Option<Setup>, Vec<Diagnostic>) {
    let mut reader = Reader { findings: Vec::new() };
    let measures = reader.measures(site);
    reader.cases(site);
    reader.data(site);
    let (setup, mut findings) = reader.setup(site, measures);
    findings.extend(setup.iter().flat_map(|setup| setup.mapping.unasked(&needs::asked(&setup.measures, &setup.value_sets))));
    (setup, findings)
}

/// Digest of the codes of all value sets, whatever files they came from.
fn terminology_digest(value_sets: &ValueSets, measures: &[Measure]) -> String {
    let mut text = String::new();
    let own = measures.iter().filter_map(Measure::own_sets);
    for set in std::iter::once(value_sets).chain(own).flat_map(ValueSets::iter) {
        text.push_str(&format!("{}|{}\n", set.url, set.version.as_deref().unwrap_or_default()));
        for member in set.members() {
            text.push_str(&format!("{} {}\n", member.system, member.code));
        }
    }
    sha256_hex(text.as_bytes())
}

/// Why the state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of the data directory.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The snapshot's key is not there, and something was sealed with it.
    #[error("{} is missing, the key of the snapshot, without which nothing of it can be read: restore it from a copy; if it is lost, `watershed pull --anew` makes a new one, reads everything again, and removes nothing", path.display())]
    KeyLost {
        /// Where it should be.
        path: PathBuf,
    },
    /// The snapshot's key cannot be used.
    #[error("{}: {error}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        error: std::io::Error,
    },
    /// A key or an address of the configuration.
    #[error("{0}")]
    Settings(String),
    /// The state itself.
    #[error(transparent)]
    State(#[from] crate::pipeline::NightError),
}

/// Opens the site's state and sets up its way to the registry.
pub fn open(site: &Loaded<Site>, setup: Setup, clock: Arc<dyn Clock>) -> Result<Adapter, OpenError> {
    let data = data_folder(site);
    make_data_folder(site).map_err(|error| OpenError::File { path: data.clone(), error })?;
    let path = snapshot_key_file(site);
    // Another key in its place would hide the loss.
    if !path.exists() && state_file(site).exists() && is_in_use(&state(site)?).map_err(NightError::Store)? {
        return Err(OpenError::KeyLost { path });
    }
    let key = snapshot_key(site)?;
    let registry = registry(site, &clock).map_err(OpenError::Settings)?;
    Ok(Adapter::open(setup, &data, key, registry, clock)?)
}

/// The snapshot as it stands, beside a process that may be at work on it; `None` before the first pull.
pub fn snapshot_beside(site: &Loaded<Site>, store: Store) -> Result<Option<Snapshot>, OpenError> {
    let path = snapshot_key_file(site);
    if !path.exists() {
        return Err(OpenError::KeyLost { path });
    }
    let key = snapshot_key(site)?;
    Ok(Snapshot::beside(&data_folder(site).join(SNAPSHOT_FOLDER), Arc::new(store), key).map_err(NightError::Snapshot)?)
}

/// Begins the snapshot again, with the key that is there, or a new one. Gives how many segments are read no more.
pub fn begin_anew(site: &Loaded<Site>) -> Result<u64, OpenError> {
    make_data_folder(site).map_err(|error| OpenError::File { path: data_folder(site), error })?;
    let store = state(site)?;
    Ok(snapshot::begin_anew(&store, &snapshot_key(site)?).map_err(NightError::Store)?)
}

fn state(site: &Loaded<Site>) -> Result<Store, OpenError> {
    Ok(Store::open(&state_file(site)).map_err(NightError::Store)?)
}

fn snapshot_key(site: &Loaded<Site>) -> Result<Key, OpenError> {
    let path = snapshot_key_file(site);
    Key::load_or_generate(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::PermissionDenied => OpenError::Key { path, error },
        _ => OpenError::File { path, error },
    })
}

/// The way to the network's registry: its token goes to its origin only.
pub fn registry(site: &Loaded<Site>, clock: &Arc<dyn Clock>) -> Result<Registry, String> {
    let options = &site.value.registry;
    let base: url::Url = options.url.parse().map_err(|error| format!("`registry.url`: {error}"))?;
    let origin = Origin::of(&base).ok_or("`registry.url` is not http")?;
    let mut settings = Settings {
        plain_http: options.allow_plain_http,
        trusted_origins: [origin].into(),
        root_certificates: authority(site, &options.ca_file)?.into_iter().map(String::into_bytes).collect(),
        ..Settings::default()
    };
    settings.retry.attempts = REGISTRY_ATTEMPTS;
    let path = site.path(&options.key_file);
    let text = read_text(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let key = SigningKey::from_text(&text).map_err(|error| format!("{}: {error}", path.display()))?.kept_in(&path);
    Registry::connect(base, options.client_id.clone(), key, &settings, Arc::clone(clock)).map_err(|error| error.to_string())
}

/// The certificates of a network's own authority, if a file of them is named.
fn authority(site: &Loaded<Site>, written: &str) -> Result<Option<String>, String> {
    if written.is_empty() {
        return Ok(None);
    }
    let path = site.path(written);
    let text = read_text(&path).map_err(|error| format!("cannot read `{}`: {error}", measures::shown(&path)))?;
    let is_pem = text.contains("-----BEGIN CERTIFICATE-----");
    is_pem.then_some(Some(text)).ok_or_else(|| format!("`{}` holds no certificate in PEM form", measures::shown(&path)))
}

fn create_private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > TEXT_BYTES_MAX {
        return Err(format!("{size} bytes, at most {TEXT_BYTES_MAX} are read"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// A file that a person wrote, in words where it is none.
fn text(path: &Path, expected: Expected) -> Result<String, Diagnostic> {
    let shown = measures::shown(path);
    let fault = |error: String| Diagnostic::error(format!("cannot read `{shown}`: {error}"));
    let found = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if found.is_dir() {
        return Err(Diagnostic::error(format!("`{shown}` is a folder, expected a file")));
    }
    if found.len() > TEXT_BYTES_MAX {
        return Err(fault(format!("{} bytes, at most {TEXT_BYTES_MAX} are read", found.len())));
    }
    let bytes = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    match foreign(&shown, &bytes, expected) {
        Some(finding) => Err(finding),
        None => crate::diagnostic::utf8(&shown, bytes),
    }
}

/// The same with its name; what is wrong with it as a whole is said of the key that names it.
fn source_file(path: &Path, key: &str, site: &Loaded<Site>) -> Result<Arc<SourceFile>, Diagnostic> {
    let text = text(path, Expected::Keys).map_err(|fault| match (&fault.at, fault.help) {
        (Some(_), help) => Diagnostic { help, ..fault },
        (None, help) => Diagnostic { help, ..site.places.error(key, fault.message) },
    })?;
    Ok(SourceFile::new(measures::shown(path), text))
}

/// What a table of the numbers of a measure that is counted elsewhere must fit.
fn counted(measure: &Measure) -> Counted {
    let definition = &measure.definition;
    let group = measure.groups.first();
    let member =
        |population: &Population| Member { id: population.id().to_owned(), code: population.code.code(), is_observed: population.code == PopulationCode::MeasureObservation };
    Counted {
        id: definition.id.value.clone(),
        url: definition.url.value.clone(),
        months: definition.period.months(),
        members: group.iter().flat_map(|group| &group.populations).map(member).collect(),
        within: group.map(|group| group.shape(definition.scoring).within()).unwrap_or_default(),
    }
}

/// Collects what is wrong in all files.
struct Reader {
    findings: Vec<Diagnostic>,
}

impl Reader {
    /// Mapping and keys beside the measures; `None` only if anything is wrong.
    fn setup(mut self, site: &Loaded<Site>, loaded: measures::Loaded) -> (Option<Setup>, Vec<Diagnostic>) {
        let measures::Loaded { measures, value_sets } = loaded;
        let (mapping, mapping_digest) = self.mapping(site);
        let zone = TimeZone::get(&site.value.site.time_zone).unwrap_or(TimeZone::UTC);
        let source_key = self.key("source.key_file", &site.value.source.key_file, site);
        self.key("registry.key_file", &site.value.registry.key_file, site);
        let mut source = self.source(site);
        source.tuning.imports = self.imports(site, &zone, &measures);
        self.authority("registry.ca_file", &site.value.registry.ca_file, site);
        if has_errors(&self.findings) {
            return (None, self.findings);
        }
        // What a table's texts mean is said by its declaration as by a mapping.
        let declared = source.tuning.imports.iter().map(|import| import.digest.as_str());
        let declared = match source.tuning.imports.as_slice() {
            [] => None,
            _ => Some(sha256_hex(declared.collect::<Vec<_>>().join("\n").as_bytes())),
        };
        let lineage = Lineage {
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            mapping: Lineage::of_mapping(&mapping.label(), &mapping_digest, declared.as_deref()),
            measures: measures.iter().map(|measure| (measure.definition.canonical(), measure.digest.clone())).collect(),
            terminology: terminology_digest(&value_sets, &measures),
            zone: site.value.site.time_zone.clone(),
        };
        let threads = match site.value.measures.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads as usize,
        };
        let setup = Setup {
            site: site.value.site.id.clone(),
            title: Some(site.value.site.title.clone()).filter(|title| !title.is_empty()),
            zone,
            zone_name: site.value.site.time_zone.clone(),
            months: site.value.measures.months,
            threads,
            measures,
            value_sets,
            mapping,
            source,
            source_key,
            lineage,
        };
        (Some(setup), self.findings)
    }

    /// The test patients beside the measures that could be compiled; each by itself, so that a wrong one hides no other.
    fn cases(&mut self, site: &Loaded<Site>) {
        let value_sets: Vec<PathBuf> = site.value.measures.value_sets.iter().map(|path| site.path(path)).filter(|path| path.exists()).collect();
        let paths: Vec<PathBuf> = site.value.measures.folders.iter().map(|folder| site.path(folder)).collect();
        let (folders, _) = measures::open_all(&paths);
        let value_sets = measures::read_value_sets(&value_sets).unwrap_or_default();
        for folder in &folders {
            let (Some(loaded), _) = measures::compile(&measures::together(folder, &folders), &value_sets, &Choices::default()) else { continue };
            let cases = loaded.measures.iter().take(1).flat_map(|measure| measures::cases(folder, measure).1);
            self.findings.extend(cases.filter(|finding| finding.severity != Severity::Note));
        }
    }

    /// Whether the state can be kept where it should be: a file is made there, or where its folder would be made, and removed.
    fn data(&mut self, site: &Loaded<Site>) {
        let folder = data_folder(site);
        let Some(there) = folder.ancestors().find(|path| path.exists()) else { return };
        let trial = there.join(format!(".watershed-{}", std::process::id()));
        let written = match there.is_dir() {
            true => std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&trial)
                .and_then(|_| std::fs::remove_file(&trial))
                .map_err(|error| error.to_string()),
            false => Err("it is a file".to_owned()),
        };
        if let Err(error) = written {
            let message = format!("`{}` cannot be written: `{}`: {error}", site.value.site.data, there.display());
            self.findings.push(
                site.places
                    .error("site.data", message)
                    .help("the adapter keeps its state and the snapshot there: name a directory that its user may write"),
            );
        }
    }

    /// Measures with their value sets, each measure once.
    fn measures(&mut self, site: &Loaded<Site>) -> measures::Loaded {
        // What does not exist was said of the configuration already.
        let paths = |written: &[String]| written.iter().map(|path| site.path(path)).filter(|path| path.exists()).collect::<Vec<_>>();
        let options = &site.value.measures;
        let (loaded, findings) = measures::load(&paths(&options.folders), &paths(&options.value_sets), &Choices::default());
        self.findings.extend(findings);
        let mut loaded = loaded.unwrap_or_default();
        self.periods(&paths(&options.folders), &mut loaded, site);
        for (index, measure) in loaded.measures.iter().enumerate() {
            let url = &measure.definition.url.value;
            if loaded.measures.iter().take(index).any(|earlier| earlier.definition.url.value == *url) {
                let finding = site.places.error("measures.folders", format!("measure `{url}` is named twice"));
                self.findings.push(finding.help("one night reports one version of a measure"));
            }
        }
        loaded
    }

    /// How long the periods of published measures are: as the site says, else as they say by their `effectivePeriod`, else months.
    fn periods(&mut self, paths: &[PathBuf], loaded: &mut measures::Loaded, site: &Loaded<Site>) {
        let said = &site.value.measures.periods;
        let (folders, _) = measures::open_all(paths);
        let is_published = |folder: &measures::Folder| published::is_published(&folder.files.definition);
        for (folder, measure) in folders.iter().zip(&mut loaded.measures).filter(|(folder, _)| is_published(folder)) {
            let id = measure.definition.id.value.clone();
            let own = published::interval(&folder.files.definition);
            let why = match (said.get(&id), &own) {
                (Some(_), _) => "as `measures.periods` says",
                (None, Ok(Some(_))) => "as its `effectivePeriod` says",
                (None, Ok(None)) => "as it has no `effectivePeriod`",
                (None, Err(message)) => {
                    self.findings.push(site.places.error("measures.folders", message.clone()).help(published::SAY_PERIODS));
                    continue;
                }
            };
            measure.definition.period = said.get(&id).copied().or(own.ok().flatten()).unwrap_or_default();
            self.findings
                .push(Diagnostic::note(format!("measure `{id}` is reported by the {}, {why}", measure.definition.period.word())));
        }
        let published: Vec<&str> = loaded
            .measures
            .iter()
            .zip(&folders)
            .filter(|(_, folder)| is_published(folder))
            .map(|(measure, _)| measure.definition.id.value.as_str())
            .collect();
        for id in said.keys().filter(|id| !loaded.measures.is_empty() && !published.contains(&id.as_str())) {
            let finding = site.places.error("measures.periods", format!("no published measure here has the id `{id}`"));
            self.findings.push(match nearest(id, published.iter().copied()) {
                Some(near) => finding.help(format!("did you mean `{near}`?")),
                None => finding.help("a `measure.yaml` says its `period` itself"),
            });
        }
    }

    fn mapping(&mut self, site: &Loaded<Site>) -> (Mapping, String) {
        let written = &site.value.mapping.file;
        let path = site.path(written);
        if written.is_empty() || !path.exists() {
            return (Mapping::none(), String::new());
        }
        let source = match source_file(&path, "mapping.file", site) {
            Ok(source) => source,
            Err(fault) => {
                self.findings.push(fault);
                return (Mapping::none(), String::new());
            }
        };
        let beside = path.parent().unwrap_or(Path::new("."));
        let named = Mapping::files_named(&source).into_iter().filter(|name| beside.join(name).exists());
        let files: BTreeMap<String, Result<String, Diagnostic>> = named.map(|name| (name.clone(), text(&beside.join(&name), Expected::Table))).collect();
        let (mapping, findings) = Mapping::parse(&source, &files);
        self.findings.extend(findings);
        let mapping = mapping.unwrap_or_else(Mapping::none);
        let digest = format!("{RULES}{}", sha256_hex(mapping.content().as_bytes()));
        (mapping, digest)
    }

    /// The imports, each by a name of its own.
    fn imports(&mut self, site: &Loaded<Site>, zone: &TimeZone, measures: &[Measure]) -> Vec<Import> {
        let mut imports: Vec<Import> = Vec::new();
        let elsewhere: Vec<Counted> = measures.iter().filter(|measure| measure.definition.is_counted_elsewhere()).map(counted).collect();
        // Where measures are wrong, which is said, it is not known what there should be.
        let are_known = !(measures.is_empty() && has_errors(&self.findings));
        for path in site.value.imports.files.iter().map(|written| site.path(written)).filter(|path| path.exists()) {
            let source = match source_file(&path, "imports.files", site) {
                Ok(source) => source,
                Err(fault) => {
                    self.findings.push(fault);
                    continue;
                }
            };
            let (import, findings) = import::parse(&source, path.parent().unwrap_or(Path::new(".")), zone, are_known.then_some(&elsewhere));
            self.findings.extend(findings);
            let Some(import) = import else { continue };
            let is_same = |other: &&Import| import.series.is_some() && other.series == import.series;
            if imports.iter().any(|other| other.name == import.name) {
                let finding = site.places.error("imports.files", format!("two imports are named `{}`", import.name));
                self.findings.push(finding.help("rows are told apart by their import's name: give each one its own"));
            } else if let Some(other) = imports.iter().find(is_same) {
                let message = format!("`{}` and `{}` both have the numbers of one measure", other.name, import.name);
                let help = "one import has all its periods, of as many files as there are: `file: clabsi-*.csv`";
                self.findings.push(Diagnostic::error(message).at(import.at.clone()).help(help));
            } else {
                imports.push(import);
            }
        }
        // Of declarations that are wrong it is not known of what they are.
        let has_numbers = |measure: &&Counted| has_errors(&self.findings) || imports.iter().any(|import| import.series.as_ref() == Some(measure));
        let without: Vec<&Counted> = elsewhere.iter().filter(|measure| !has_numbers(measure)).collect();
        for measure in without {
            let finding = site.places.error("imports.files", format!("`{}` is counted elsewhere, and no import brings its numbers", measure.id));
            let help = "declare the table that has them, by `series:` as in `mappings/imports/nhsn-clabsi.yaml`; until then it has no reports";
            self.findings.push(Diagnostic { severity: Severity::Warning, ..finding.help(help) });
        }
        imports
    }

    /// The EHR's options, with the certificates that they name.
    fn source(&mut self, site: &Loaded<Site>) -> crate::source::Options {
        let mut source = site.value.source.clone();
        source.tuning.root_certificates.extend(self.authority("source.ca_file", &source.ca_file, site));
        source.tuning.identity = self.identity(&source, site);
        source.tuning.patients = self.list(&source, site);
        // What is wrong with them was said of the configuration already.
        let zone = TimeZone::get(&site.value.site.time_zone).unwrap_or(TimeZone::UTC);
        source.tuning.folder = Some(&source.folder).filter(|written| !written.is_empty()).map(|written| site.path(written));
        // Files may be read at any time.
        source.tuning.off_hours = crate::source::OffHours::parse(&source.off_hours, zone).ok().filter(|_| source.folder.is_empty());
        source
    }

    /// The list of patients. That it cannot be read is no error where something is stored: nights go on with the last one.
    fn list(&mut self, source: &crate::source::Options, site: &Loaded<Site>) -> Option<List> {
        let list = List { path: site.path(&source.patients_file), system: source.patients_system.clone() };
        if source.patients_file.is_empty() {
            return None;
        }
        if let Err(error) = list.read() {
            let finding = site.places.error("source.patients_file", error);
            let is_stored = Store::open_beside(&state_file(site)).ok().flatten().is_some_and(|store| is_in_use(&store).unwrap_or(false));
            self.findings.push(match is_stored {
                true => Diagnostic { severity: Severity::Warning, ..finding.help("meanwhile nights go on with the patients whom it named before, and are partial") },
                false if !list.path.exists() => finding.help(format!("looked for {}; paths are relative to the configuration file", list.path.display())),
                false => finding,
            });
        }
        Some(list)
    }

    /// The certificate that is shown to the EHR, once it can be shown.
    fn identity(&mut self, source: &crate::source::Options, site: &Loaded<Site>) -> Option<Identity> {
        let identity = Identity { certificate: site.path(&source.client_certificate_file), key: site.path(&source.client_certificate_key_file) };
        if source.client_certificate_file.is_empty() || ![&identity.certificate, &identity.key].iter().all(|path| path.is_file()) {
            return None; // said of the configuration already
        }
        match identity.read() {
            Ok(_) => Some(identity),
            Err(error) => {
                self.findings.push(site.places.error("source.client_certificate_file", error));
                None
            }
        }
    }

    fn authority(&mut self, key: &str, written: &str, site: &Loaded<Site>) -> Option<String> {
        if !site.path(written).exists() {
            return None; // said of the configuration already
        }
        authority(site, written).unwrap_or_else(|error| {
            self.findings.push(site.places.error(key, error));
            None
        })
    }

    fn key(&mut self, key: &str, written: &str, site: &Loaded<Site>) -> Option<SigningKey> {
        let path = site.path(written);
        if written.is_empty() || !path.exists() {
            return None; // said of the configuration already, if it must be there
        }
        let text = read_text(&path).map_err(|error| format!("cannot read key `{}`: {error}", measures::shown(&path)));
        match text.and_then(|text| SigningKey::from_text(&text).map_err(|error| format!("`{}` is {error}", measures::shown(&path)))) {
            Ok(key) => Some(key.kept_in(&path)),
            Err(error) => {
                self.findings.push(site.places.error(key, error).help("`watershed key new` makes one"));
                None
            }
        }
    }
}
