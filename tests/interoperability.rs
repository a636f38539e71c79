//! A night against a FHIR server that is not ours, with real authentication, equals an evaluation of the same data on disk.
//!
//! The server is sekmet-fhir (PyPI). `.ci/run` installs it and sets `WATERSHED_INTEROP_SEKMET`; without it the test is skipped aloud.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use watershed::smart::assertion::{SigningKey, sign_client_assertion};
use watershed::{outbox, store::Store};

/// Resources of one transaction.
const BATCH: usize = 250;
/// Half-second looks at a server that is starting.
const LOOKS_MAX: u32 = 240;
const MEASURES: [&str; 3] = ["ibd/remission", "hac/clabsi", "perinatal/early-elective-delivery"];

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

/// Every resource of the folder, put into the EHR.
async fn load(base: &str, folder: &Path, key: &SigningKey) -> usize {
    let client = reqwest::Client::new();
    let configuration: Value = client.get(format!("{base}/.well-known/smart-configuration")).send().await.unwrap().json().await.unwrap();
    let endpoint = configuration["token_endpoint"].as_str().unwrap().to_owned();
    let mut entries = Vec::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "ndjson"))
        .collect();
    files.sort();
    for file in files {
        for line in std::fs::read_to_string(file).unwrap().lines().filter(|line| !line.is_empty()) {
            let resource: Value = serde_json::from_str(line).unwrap();
            let url = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
            entries.push(json!({ "resource": resource, "request": { "method": "PUT", "url": url } }));
        }
    }
    for (number, batch) in entries.chunks(BATCH).enumerate() {
        let assertion = sign_client_assertion(key, "etl", &endpoint, jiff::Timestamp::now(), &format!("load-{number}")).unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", "system/*.cruds"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        let token: Value = client.post(&endpoint).form(&form).send().await.unwrap().json().await.unwrap();
        let token = token["access_token"].as_str().expect("a token");
        let bundle = json!({ "resourceType": "Bundle", "type": "transaction", "entry": batch });
        let answer = client.post(base).bearer_auth(token).json(&bundle).send().await.unwrap();
        assert!(answer.status().is_success(), "loading: {} {}", answer.status(), answer.text().await.unwrap());
    }
    entries.len()
}

/// A registry and a site, laid out as an engineer would.
fn lay_out(folder: &Path, ehr: &str, registry_port: u16, mode: &str) -> Server {
    let mappings = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
    let measures = MEASURES.map(|measure| format!("\"{}\"", mappings.join(measure).display())).join(", ");
    std::fs::write(folder.join("registry.toml"), format!("listen = \"127.0.0.1:{registry_port}\"\ndata = \"registry-data\"\nmeasures = [{measures}]\n")).unwrap();
    // This server exports only to a client that may read every type.
    let scopes = if mode == "bulk" { "[\"system/*.rs\"]" } else { "[]" };
    let site = format!(
        "[site]\nid = \"lakeside\"\ntime_zone = \"America/New_York\"\ndata = \"site-data\"\n\
         [source]\nurl = \"{ehr}\"\nclient_id = \"etl\"\nkey_file = \"ehr-key.pem\"\nmode = \"{mode}\"\nscopes = {scopes}\n\
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
            let manifest = outbox::manifest_of(connection, &feeds.last().expect("a feed").feed).unwrap();
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

async fn night_equals_evaluation(sekmet: &str, mode: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    must(&watershed(folder, &["key", "new", "ehr-key.pem", "--algorithm", "RS384"]));
    must(&watershed(folder, &["sandbox", "generate", "--patients", "60", "--seed", "7", "--out", "data"]));
    let port = free_port();
    let ehr = format!("http://127.0.0.1:{port}/fhir");
    let _ehr = start_sekmet(sekmet, folder, port);
    answers(&format!("{ehr}/metadata")).await;
    let key = SigningKey::from_text(&std::fs::read_to_string(folder.join("ehr-key.pem")).unwrap()).unwrap();
    let loaded = load(&ehr, &folder.join("data"), &key).await;
    let registry_port = free_port();
    let _registry = lay_out(folder, &ehr, registry_port, mode);
    answers(&format!("http://127.0.0.1:{registry_port}/v1/sites")).await;

    let first = must(&watershed(folder, &["run", "--once"]));
    let delivered_first = delivered(folder);
    let periods: Vec<String> = {
        let mut starts: Vec<String> = delivered_first.keys().map(|(_, start)| start.get(..7).unwrap().to_owned()).collect();
        starts.sort();
        starts.dedup();
        starts
    };
    assert_eq!((periods.len(), delivered_first.len()), (24, 72), "24 months of 3 measures: {first}");
    assert_eq!(delivered_first, evaluated(folder, &periods), "{mode}: the night's reports against the same data on disk");

    must(&watershed(folder, &["run", "--once"]));
    let store = Store::open(&folder.join("site-data/state.sqlite")).unwrap();
    let feeds = store.with(|connection| Ok(outbox::list(connection).unwrap().len())).unwrap();
    assert_eq!(feeds, 1, "{mode}: an unchanged second night sends no second feed");
    crate::figures::say(&format!("interoperability: sekmet-fhir by {mode}, {loaded} resources, 72 reports equal; an unchanged night sends nothing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_night_against_another_server_equals_an_evaluation_on_disk() {
    let Ok(sekmet) = std::env::var("WATERSHED_INTEROP_SEKMET") else {
        crate::figures::say("skipped: WATERSHED_INTEROP_SEKMET is not set, so there is no other server to run against");
        return;
    };
    for mode in ["search", "bulk"] {
        night_equals_evaluation(&sekmet, mode).await;
    }
}
