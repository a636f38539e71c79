//! Nights against FHIR servers that are not ours equal an evaluation of the same data on disk: the first, one after nothing
//! changed, and one after something did; of everybody, and of whom a search finds.
//!
//! sekmet-fhir (PyPI) has Bulk Data and asks for real assertions; Medplum (npm) asks for nothing, pages without links, and keeps
//! quiet about what it does not understand. `.ci/run` installs both and sets `WATERSHED_INTEROP_SEKMET` and
//! `WATERSHED_INTEROP_MEDPLUM`; without them the tests are skipped aloud.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use watershed::fhir::compartment::patient_of;
use watershed::smart::assertion::{SigningKey, sign_client_assertion};
use watershed::{outbox, store::Store};

/// Resources of one transaction.
const BATCH: usize = 250;
/// Half-second looks at a server that is starting.
const LOOKS_MAX: u32 = 240;
/// Resources that are withdrawn between two nights.
const CHANGED: usize = 5;
const MEASURES: [&str; 3] = ["ibd/remission", "hac/clabsi", "perinatal/early-elective-delivery"];

/// A cohort by a search, as `site.toml` has it.
const WOMEN: &str = "patients_search = \"Patient?gender=female\"\n";

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watershed(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_watershed")).args(arguments).current_dir(folder).output().unwrap()
}

#[track_caller]
fn must(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn spawn(program: &str, arguments: &[&str], folder: &Path) -> Server {
    let log = std::fs::File::create(folder.join("server.log")).unwrap();
    Server(
        Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

async fn answers(url: &str) {
    for _ in 0..LOOKS_MAX {
        if reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{url} does not answer");
}

/// The EHR: strict SMART Backend Services over SQLite, empty.
fn start_sekmet(sekmet: &str, folder: &Path, port: u16) -> Server {
    let public = Command::new("openssl")
        .args(["pkey", "-in", "ehr-key.pem", "-pubout", "-out", "ehr-key.pub"])
        .current_dir(folder)
        .output()
        .unwrap();
    must(&public);
    let settings = format!(
        "base_url: http://127.0.0.1:{port}/fhir\nhost: 127.0.0.1\nport: {port}\ndata_dir: ./sekmet-data\nlog_inbound: false\n\
         simulator: {{enabled: false, delay_seconds: 0.2}}\nvalidation: {{inbound: \"off\"}}\nserver_auth:\n  types: [smart]\n  token_lifetime: 300\n  \
         enforce_scopes: true\n  smart_clients:\n    - client_id: etl\n      public_key_path: ./ehr-key.pub\n      \
         scopes: \"system/*.rs system/*.cruds system/*.read system/*.write\"\n"
    );
    std::fs::write(folder.join("settings.yaml"), settings).unwrap();
    spawn(sekmet, &["serve", "-c", "settings.yaml"], folder)
}

/// Medplum's router over its repository in memory, empty.
fn start_medplum(packages: &str, folder: &Path, port: u16) -> Server {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/medplum/serve.mjs");
    let log = std::fs::File::create(folder.join("server.log")).unwrap();
    let mut node = Command::new("node");
    node.arg(script)
        .arg(port.to_string())
        .env("WATERSHED_INTEROP_MEDPLUM", packages)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    Server(node.spawn().unwrap())
}

/// A server that is not ours, by where it is installed.
enum Ehr {
    Sekmet(String),
    Medplum(String),
}

impl Ehr {
    fn start(&self, folder: &Path, port: u16) -> Server {
        match self {
            Ehr::Sekmet(program) => start_sekmet(program, folder, port),
            Ehr::Medplum(packages) => start_medplum(packages, folder, port),
        }
    }

    /// How the site reaches it.
    fn settings(&self, mode: &str) -> &'static str {
        match self {
            // It exports only to a client that may read every type.
            Ehr::Sekmet(_) if mode == "bulk" => "client_id = \"etl\"\nkey_file = \"ehr-key.pem\"\nscopes = [\"system/*.rs\"]\n",
            Ehr::Sekmet(_) => "client_id = \"etl\"\nkey_file = \"ehr-key.pem\"\n",
            Ehr::Medplum(_) => "",
        }
    }

    /// Puts resources into it, in one transaction.
    async fn put(&self, base: &str, key: &SigningKey, resources: &[Value]) {
        let client = reqwest::Client::new();
        let mut request = client.post(base);
        if let Ehr::Sekmet(_) = self {
            request = request.bearer_auth(token(&client, base, key).await);
        }
        let url = |resource: &Value| format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        let entries: Vec<Value> = resources
            .iter()
            .map(|resource| json!({ "resource": resource, "request": { "method": "PUT", "url": url(resource) } }))
            .collect();
        let bundle = json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries });
        let answer = request.json(&bundle).send().await.unwrap();
        assert!(answer.status().is_success(), "loading: {} {}", answer.status(), answer.text().await.unwrap());
    }
}

async fn token(client: &reqwest::Client, base: &str, key: &SigningKey) -> String {
    let configuration: Value = client.get(format!("{base}/.well-known/smart-configuration")).send().await.unwrap().json().await.unwrap();
    let endpoint = configuration["token_endpoint"].as_str().unwrap();
    let now = jiff::Timestamp::now();
    let assertion = sign_client_assertion(key, "etl", endpoint, now, &format!("load-{}", now.as_nanosecond())).unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "system/*.cruds"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
    ];
    let token: Value = client.post(endpoint).form(&form).send().await.unwrap().json().await.unwrap();
    token["access_token"].as_str().expect("a token").to_owned()
}

/// Every resource of the folder.
fn resources(folder: &Path) -> Vec<Value> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "ndjson"));
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()).collect()
}

/// Withdraws the first assessments that say *quiescent*, on disk; what was changed.
fn withdraw(folder: &Path) -> Vec<Value> {
    let file = folder.join("Observation.ndjson");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut changed = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut resource: Value = serde_json::from_str(line).unwrap();
        if changed.len() < CHANGED && line.contains("quiescent") {
            resource["status"] = "entered-in-error".into();
            changed.push(resource.clone());
        }
        lines.push(resource.to_string());
    }
    std::fs::write(file, lines.join("\n")).unwrap();
    assert_eq!(changed.len(), CHANGED);
    changed
}

/// A registry and a site, laid out as an engineer would.
fn lay_out(folder: &Path, url: &str, ehr: &Ehr, registry_port: u16, mode: &str, whom: &str) -> Server {
    let mappings = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
    let measures = MEASURES.map(|measure| format!("\"{}\"", mappings.join(measure).display())).join(", ");
    std::fs::write(folder.join("registry.toml"), format!("listen = \"127.0.0.1:{registry_port}\"\ndata = \"registry-data\"\nmeasures = [{measures}]\n")).unwrap();
    let settings = ehr.settings(mode);
    let site = format!(
        "[site]\nid = \"lakeside\"\ntime_zone = \"America/New_York\"\ndata = \"site-data\"\n\
         [source]\nurl = \"{url}\"\nmode = \"{mode}\"\n{settings}{whom}\
         [measures]\nfolders = [{measures}]\nmonths = 24\n\
         [registry]\nurl = \"http://127.0.0.1:{registry_port}\"\nclient_id = \"watershed-lakeside\"\nkey_file = \"registry-key.pem\"\n"
    );
    std::fs::write(folder.join("site.toml"), site).unwrap();
    let public = must(&watershed(folder, &["key", "new", "registry-key.pem"]));
    std::fs::write(folder.join("registry-jwks.json"), public).unwrap();
    must(&watershed(folder, &["registry", "site", "add", "lakeside", "--client-id", "watershed-lakeside", "--jwks", "registry-jwks.json", "--organization", "Lakeside"]));
    spawn(env!("CARGO_BIN_EXE_watershed"), &["registry", "serve"], folder)
}

/// What two reports must have in common: the numbers, and what they are of.
fn numbers(report: &Value) -> ((String, String), Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ((text(&report["measure"]), text(&report["period"]["start"])), report["group"].clone())
}

fn delivered(folder: &Path) -> BTreeMap<(String, String), Value> {
    let store = Store::open(&folder.join("site-data/state.sqlite")).unwrap();
    store
        .with(|connection| {
            let feeds = outbox::list(connection).unwrap();
            let manifest = outbox::manifest_of(connection, &feeds.first().expect("a feed").feed).unwrap();
            let part = |entry: &watershed::feed::Entry| outbox::part(connection, &entry.sha256).unwrap().expect("a part");
            Ok(manifest.reports.iter().map(|entry| numbers(&serde_json::from_slice(&part(entry)).unwrap())).collect())
        })
        .unwrap()
}

fn evaluated(folder: &Path, periods: &[String]) -> BTreeMap<(String, String), Value> {
    let mappings = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
    let mut arguments = vec!["evaluate".to_owned(), "--data".into(), "data".into(), "--timezone".into(), "America/New_York".into()];
    for measure in MEASURES {
        arguments.extend(["--measure".to_owned(), mappings.join(measure).display().to_string()]);
    }
    for period in periods {
        arguments.extend(["--period".to_owned(), period.clone()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = must(&watershed(folder, &arguments));
    text.lines().map(|line| numbers(&serde_json::from_str(line).unwrap())).collect()
}

/// Leaves on disk what is of the women among the patients, or of nobody.
fn keep_women(folder: &Path) {
    let women: BTreeSet<String> = resources(folder)
        .iter()
        .filter(|resource| resource["resourceType"] == "Patient" && resource["gender"] == "female")
        .map(|patient| patient["id"].as_str().unwrap().to_owned())
        .collect();
    let files: BTreeSet<String> = resources(folder).iter().map(|resource| resource["resourceType"].as_str().unwrap().to_owned()).collect();
    for name in files {
        let file = folder.join(format!("{name}.ndjson"));
        let text = std::fs::read_to_string(&file).unwrap();
        let is_kept = |line: &&str| patient_of(&name, line.as_bytes()).is_none_or(|patient| women.contains(&patient));
        std::fs::write(file, text.lines().filter(is_kept).collect::<Vec<_>>().join("\n")).unwrap();
    }
}

async fn nights_equal_evaluations(ehr: &Ehr, name: &str, mode: &str, whom: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    must(&watershed(folder, &["key", "new", "ehr-key.pem", "--algorithm", "RS384"]));
    must(&watershed(folder, &["sandbox", "generate", "--patients", "60", "--seed", "7", "--out", "data"]));
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/fhir");
    let _ehr = ehr.start(folder, port);
    answers(&format!("{url}/metadata")).await;
    let key = SigningKey::from_text(&std::fs::read_to_string(folder.join("ehr-key.pem")).unwrap()).unwrap();
    let loaded = resources(&folder.join("data"));
    for batch in loaded.chunks(BATCH) {
        ehr.put(&url, &key, batch).await;
    }
    if !whom.is_empty() {
        keep_women(&folder.join("data"));
    }
    let registry_port = free_port();
    let _registry = lay_out(folder, &url, ehr, registry_port, mode, whom);
    answers(&format!("http://127.0.0.1:{registry_port}/v1/sites")).await;

    let first = must(&watershed(folder, &["run", "--once"]));
    let delivered_first = delivered(folder);
    let months: BTreeSet<String> = delivered_first.keys().map(|(_, start)| start.get(..7).unwrap().to_owned()).collect();
    let months: Vec<String> = months.into_iter().collect();
    assert_eq!((months.len(), delivered_first.len()), (24, 72), "24 months of 3 measures: {first}");
    assert_eq!(delivered_first, evaluated(folder, &months), "{name} by {mode}: the night's reports against the same data on disk");

    must(&watershed(folder, &["run", "--once"]));
    assert_eq!(feeds(folder), 1, "{name} by {mode}: an unchanged second night sends no second feed");

    ehr.put(&url, &key, &withdraw(&folder.join("data"))).await;
    must(&watershed(folder, &["run", "--once"]));
    let delivered_last = delivered(folder);
    assert_ne!(delivered_last, delivered_first, "{name} by {mode}: what was withdrawn moves numbers");
    assert_eq!(delivered_last, evaluated(folder, &months), "{name} by {mode}: the night after a withdrawal");
    let loaded = loaded.len();
    let of_whom = if whom.is_empty() { "of everybody" } else { "of whom a search finds" };
    crate::figures::say(&format!("interoperability: {name} by {mode} {of_whom}, {loaded} resources: a first, an unchanged and a changed night equal an evaluation on disk"));
}

fn feeds(folder: &Path) -> usize {
    let store = Store::open(&folder.join("site-data/state.sqlite")).unwrap();
    store.with(|connection| Ok(outbox::list(connection).unwrap().len())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nights_against_sekmet_equal_evaluations_on_disk() {
    let Ok(sekmet) = std::env::var("WATERSHED_INTEROP_SEKMET") else {
        crate::figures::say("skipped: WATERSHED_INTEROP_SEKMET is not set, so there is no sekmet-fhir to run against");
        return;
    };
    for (mode, whom) in [("search", ""), ("bulk", ""), ("search", WOMEN)] {
        nights_equal_evaluations(&Ehr::Sekmet(sekmet.clone()), "sekmet-fhir", mode, whom).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nights_against_medplum_equal_evaluations_on_disk() {
    let Ok(packages) = std::env::var("WATERSHED_INTEROP_MEDPLUM") else {
        crate::figures::say("skipped: WATERSHED_INTEROP_MEDPLUM is not set (a folder with npm's @medplum/fhir-router, core, definitions)");
        return;
    };
    for whom in ["", WOMEN] {
        nights_equal_evaluations(&Ehr::Medplum(packages.clone()), "Medplum", "search", whom).await;
    }
}
