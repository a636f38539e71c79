//! A test bed: one simulated hospital, one registry, one site's files for the real binary, and a meter on each wire.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::civil::date;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use watershed::outbox::{self, Listed};
use watershed::registry::store::{Keys, NewSite};
use watershed::registry::{self, MeasureCard, Options, Unit};
use watershed::sandbox::{self, Client, Fault, Hospital, Profile};
use watershed::smart::assertion::{Algorithm, SigningKey};
use watershed::store::Store;

/// The night's "now", so that every night of every test is the same night.
pub const AS_OF: &str = "2026-03-02T06:30:00Z";
/// Months of the tests' nights; few, so that fifty nights are quick.
pub const MONTHS: u32 = 4;

/// Counts bytes on the wires.
pub struct Meter {
    bytes: AtomicU64,
    limit: u64,
}

impl Meter {
    fn add(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Whether as many bytes have passed as were asked for.
    pub fn is_reached(&self) -> bool {
        self.bytes() >= self.limit
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Everything of one night; servers end with the test's runtime.
pub struct Bed {
    pub folder: TempDir,
    pub meter: Arc<Meter>,
    pub registry_url: String,
    pub hospital: Hospital,
}

/// How a bed differs from the ordinary one.
#[derive(Clone, Default)]
pub struct Wanted {
    pub mode: &'static str,
    /// Bytes on the wires after which the meter tells.
    pub limit: u64,
    pub patients: u32,
    /// Other patients.
    pub seed: u64,
    pub faults: Vec<Fault>,
    /// Quirks of the hospital's server.
    pub quirks: Vec<&'static str>,
    /// Whether an export takes so long that it is not ready when it is first asked after.
    pub slow_export: bool,
    /// The Group whose patients are taken; empty: everybody.
    pub group: &'static str,
    /// The hospital's data are dropped into a folder, `drop`, in the place of its server.
    pub of_files: bool,
    /// A further measure, composed of the network's own; the text of its `measure.yaml`, of id `whole-child`.
    pub composite: Option<String>,
    /// A further measure, `nhsn-clabsi`, which another system counts, and its table, `nhsn.csv` with these rows.
    pub series: Option<&'static str>,
}

impl Bed {
    pub async fn make(wanted: Wanted) -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let meter = Arc::new(Meter { bytes: AtomicU64::new(0), limit: wanted.limit });
        let ehr_key = key(path, "ehr-key.pem");
        let registry_key = key(path, "registry-key.pem");
        let (hospital, ehr) = start_hospital(&wanted, &ehr_key, &meter).await;
        let more = wanted.series.map(|_| watershed::cli::registry::card(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SERIES)).unwrap());
        let registry_url = start_registry(&path.join("registry"), &registry_key, usize::MAX, more, &meter).await;
        let mappings = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
        let mut folders: Vec<PathBuf> = MEASURES.iter().map(|(folder, ..)| mappings.join(folder)).collect();
        if let Some(text) = &wanted.composite {
            std::fs::create_dir(path.join("composite")).unwrap();
            std::fs::write(path.join("composite/measure.yaml"), text).unwrap();
            folders.insert(0, path.join("composite"));
        }
        let mut imports = "";
        if let Some(rows) = wanted.series {
            folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(SERIES));
            let declared = include_str!("../mappings/imports/nhsn-clabsi.yaml").replace("file: nhsn-clabsi.csv", "file: nhsn.csv");
            std::fs::write(path.join("nhsn.yaml"), declared).unwrap();
            std::fs::write(path.join("nhsn.csv"), rows).unwrap();
            imports = "[imports]\nfiles = [\"nhsn.yaml\"]\n";
        }
        let folders = folders.iter().map(|folder| format!("\"{}\"", folder.display())).collect::<Vec<_>>().join(", ");
        let source = if wanted.of_files {
            drop_files(&hospital, &path.join("drop"));
            "folder = \"drop\"".to_owned()
        } else {
            format!("url = \"http://{ehr}/fhir\"\nclient_id = \"etl\"\nkey_file = \"ehr-key.pem\"\nmode = \"{}\"\npage_size = 100\ngroup = \"{}\"", wanted.mode, wanted.group)
        };
        let site = format!(
            "[site]\nid = \"lakeside\"\ntime_zone = \"America/New_York\"\ndata = \"data\"\n\
             [source]\n{source}\n{imports}\
             [measures]\nfolders = [{folders}]\nmonths = {MONTHS}\nthreads = 1\n\
             [registry]\nurl = \"{registry_url}\"\nclient_id = \"lakeside-etl\"\nkey_file = \"registry-key.pem\"\n"
        );
        std::fs::write(path.join("site.toml"), site).unwrap();
        Bed { folder, meter, registry_url, hospital }
    }

    /// The adapter's process for one night.
    pub fn night(&self) -> Command {
        self.command(&["run", "--once", "--as-of", AS_OF])
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Another registry, which knows the site but only the first of its measures.
    pub async fn poorer_registry(&self) -> String {
        let key = SigningKey::from_text(&std::fs::read_to_string(self.folder.path().join("registry-key.pem")).unwrap()).unwrap();
        start_registry(&self.folder.path().join("poorer-registry"), &key, 1, None, &self.meter).await
    }

    /// Runs a night to its end: exit code, stdout and stderr.
    pub async fn run(&self) -> (i32, String) {
        let output = output(self.night()).await;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }

    /// What the adapter's outbox holds.
    pub fn outbox(&self) -> Vec<Listed> {
        let store = Store::open(&self.folder.path().join("data/state.sqlite")).unwrap();
        store.with(|connection| Ok(outbox::list(connection).unwrap())).unwrap()
    }

    /// What the registry holds: committed feeds, current reports by (measure, period, digest), audit records.
    pub fn registry(&self) -> Held {
        let store = registry::open_store(&self.folder.path().join("registry")).unwrap();
        let audit = store.verify_audit().unwrap().expect("an unbroken audit chain");
        let held: Result<Held, registry::RegistryError> = store.read(|transaction| {
            let feeds = transaction.query_row("SELECT count(*) FROM feed WHERE state = 'committed'", [], |row| row.get(0))?;
            let revisions = transaction.query_row("SELECT count(*) FROM revision", [], |row| row.get(0))?;
            let mut statement = transaction.prepare("SELECT r.measure, r.period_start, r.sha256 FROM current c JOIN revision r ON r.id = c.revision ORDER BY 1, 2")?;
            let current = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<_, _>>()?;
            Ok(Held { feeds, revisions, current, audit })
        });
        held.unwrap()
    }
}

/// Writes a hospital as `sandbox generate` does: a file for each type.
fn drop_files(hospital: &Hospital, folder: &Path) {
    let mut files: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    for (resource_type, _, json) in hospital.resources() {
        *files.entry(resource_type).or_default() += &(json + "\n");
    }
    std::fs::create_dir_all(folder).unwrap();
    for (resource_type, lines) in files {
        std::fs::write(folder.join(format!("{resource_type}.ndjson")), lines).unwrap();
    }
}

/// Runs a process to its end, beside the servers of the test.
pub async fn output(mut command: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a registry holds of the one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub feeds: i64,
    pub revisions: i64,
    pub current: Vec<(String, String, String)>,
    pub audit: u64,
}

pub const MEASURES: [(&str, &str, bool); 3] =
    [("ibd/remission", "ibd-remission", true), ("hac/clabsi", "hac-clabsi", false), ("perinatal/early-elective-delivery", "perinatal-early-elective-delivery", false)];

/// The folder of the measure that another system counts.
const SERIES: &str = "mappings/series/nhsn-clabsi";

/// A private key in a file, as a site has one.
pub fn key(folder: &Path, name: &str) -> SigningKey {
    let key = SigningKey::generate(Algorithm::Es384).unwrap();
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, key.to_pem()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    key
}

async fn start_hospital(wanted: &Wanted, key: &SigningKey, meter: &Arc<Meter>) -> (Hospital, SocketAddr) {
    let hospital = Hospital::generate(Profile::named("lakeside").unwrap(), 11 + wanted.seed, wanted.patients, date(2026, 3, 2), MONTHS);
    let front = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = front.local_addr().unwrap();
    let options = sandbox::Options {
        clients: vec![Client::reader("etl", serde_json::to_value(key.public_jwks()).unwrap())],
        public_origin: Some(format!("http://{address}")),
        export_delay: std::time::Duration::from_millis(if wanted.slow_export { 3_000 } else { 50 }),
        faults: wanted.faults.clone(),
        quirks: wanted.quirks.iter().map(|name| sandbox::Scenario::named(name).unwrap()).collect(),
        ..sandbox::Options::default()
    };
    let back = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    relay(front, back.local_addr().unwrap(), meter);
    tokio::spawn(sandbox::serve(hospital.clone(), options, back, std::future::pending()));
    (hospital, address)
}

/// With the first of the network's measures, at most so many.
async fn start_registry(data: &Path, key: &SigningKey, measures: usize, more: Option<MeasureCard>, meter: &Arc<Meter>) -> String {
    let data = data.to_owned();
    let keys = Keys::Set(serde_json::to_string(&key.public_jwks()).unwrap());
    let site = NewSite { name: "lakeside".into(), organization: "Lakeside".into(), client_id: "lakeside-etl".into(), keys };
    registry::open_store(&data).unwrap().add_site(&site, jiff::Timestamp::now()).unwrap();
    let (front, back) = (TcpListener::bind(("127.0.0.1", 0)).unwrap(), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let public_url = format!("http://{}", front.local_addr().unwrap());
    let card = |(_, id, higher): &(&str, &str, bool)| MeasureCard {
        id: (*id).into(),
        url: format!("http://watershed.example/fhir/Measure/{id}"),
        versions: vec!["1.0.0".into()],
        title: (*id).into(),
        plain_language: (*id).into(),
        higher_is_better: Some(*higher),
        unit: Unit::Percent,
        units: Default::default(),
        parts: Default::default(),
        sums: Default::default(),
        definitions: Default::default(),
    };
    let options = Options {
        data,
        public_url: public_url.clone(),
        network: "Test".into(),
        measures: MEASURES.iter().chain(&[("", "whole-child", true)]).take(measures).map(card).chain(more).collect(),
        tls: None,
        behind_proxy: false,
        late_after_hours: 36,
        reader_token: None,
        quota: Default::default(),
        new_receipt_key: false,
        clock: Arc::new(jiff::Timestamp::now),
    };
    relay(front, back.local_addr().unwrap(), meter);
    tokio::spawn(registry::serve(options, back, std::future::pending()));
    public_url
}

/// Passes bytes on in both directions and counts them.
fn relay(front: TcpListener, back: SocketAddr, meter: &Arc<Meter>) {
    front.set_nonblocking(true).unwrap();
    let front = tokio::net::TcpListener::from_std(front).unwrap();
    let meter = Arc::clone(meter);
    tokio::spawn(async move {
        while let Ok((near, _)) = front.accept().await {
            let Ok(far) = tokio::net::TcpStream::connect(back).await else { continue };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_in, far_out, Arc::clone(&meter)));
            tokio::spawn(pass(far_in, near_out, Arc::clone(&meter)));
        }
    });
}

async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, meter: Arc<Meter>) {
    let mut buffer = vec![0; 4096];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        meter.add(count);
    }
    let _ = to.shutdown().await;
}
