//! What shows at size only. Usually a hundred thousand resources of one patient are a tenth of them, and twenty thousand files
//! are left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use watershed::sandbox::server::Options as Serving;
use watershed::smart::assertion::{Algorithm, SigningKey};
use watershed::source::Mode;

use crate::bench::Bench;
use crate::small::{Heard, Said, Small, json, said};

/// The clock of the night.
const AS_OF: &str = "2026-03-02T06:30:00Z";

/// The largest memory that a process has had, in KiB, until it ends.
async fn peak_memory(mut command: std::process::Command) -> (u64, String) {
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let mut peak = 0;
    while !ended.is_finished() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak = peak.max(line.trim().trim_end_matches(" kB").parse().unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = ended.await.unwrap();
    (peak, format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_72_a_patient_with_a_hundred_thousand_resources_fits_into_memory() {
    let resources = if crate::all() { 100_000 } else { 10_000 };
    let server = Small::start(move |heard, origin| match heard.target.split('?').next().unwrap_or_default() {
        "/metadata" => json(json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1",
            "rest": [{"resource": [{"type": "Patient", "operation": [{"name": "export"}]}]}]})),
        "/Patient/$export" => Said { headers: vec![("content-location", format!("{origin}/status"))], ..said(202, "text/plain", "") },
        "/status" => json(json!({"transactionTime": "2999-01-01T00:00:00Z", "requiresAccessToken": false,
            "output": [{"type": "Patient", "url": format!("{origin}/patient")}, {"type": "Observation", "url": format!("{origin}/observations")}]})),
        "/patient" => said(200, "application/fhir+ndjson", r#"{"resourceType":"Patient","id":"p","birthDate":"2012-05-01"}"#),
        "/observations" => said(200, "application/fhir+ndjson", &assessments(resources)),
        // No stay is there, whether it is searched for or read.
        read if read.starts_with("/Encounter/e") => said(404, "application/fhir+json", r#"{"resourceType":"OperationOutcome"}"#),
        _ => json(json!({"resourceType": "Bundle", "type": "searchset"})),
    })
    .await;
    let (peak, said) = first_night(&server.origin, "mode = \"bulk\"").await;
    assert!(said.contains("\"patients\":1") && said.contains("\"complete\":true"), "{said}");
    assert!((10_000..512 * 1024).contains(&peak), "{} MiB", peak / 1024);
}

/// Observations of each patient.
const OBSERVATIONS: usize = 3;

/// A search of a server with so many patients.
fn searched(patients: usize, heard: &Heard, origin: &str) -> Said {
    let (path, query) = heard.target.split_once('?').unwrap_or((&heard.target, ""));
    let form = if heard.method == "POST" { &heard.body } else { query };
    let field = |own: &str| url::form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == own).map(|(_, value)| value.into_owned());
    let number = |own: &str| field(own).and_then(|value| value.parse::<usize>().ok());
    let name = path.trim_start_matches('/').trim_end_matches("/_search");
    let each = match name {
        "metadata" => {
            let types = ["Patient", "Encounter", "Observation", "Condition"].map(|name| json!({"type": name, "searchParam": [{"name": "_lastUpdated"}, {"name": "patient"}]}));
            return json(json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"resource": types}]}));
        }
        "Patient" | "Encounter" => 1,
        "Observation" => OBSERVATIONS,
        _ => 0,
    };
    let total = patients * each;
    if field("_summary").as_deref() == Some("count") {
        return json(json!({"resourceType": "Bundle", "type": "searchset", "total": total}));
    }
    let (offset, count) = (number("_offset").unwrap_or(0), number("_count").unwrap_or(100));
    let entries: Vec<String> = (offset..total.min(offset + count))
        .map(|place| format!("{{\"resource\":{}}}", resource(name, place / each, place % each)))
        .collect();
    let next = if offset + count < total { format!("{{\"relation\":\"next\",\"url\":\"{origin}{path}?_count={count}&_offset={}\"}}", offset + count) } else { String::new() };
    said(
        200,
        "application/fhir+json",
        &format!("{{\"resourceType\":\"Bundle\",\"type\":\"searchset\",\"total\":{total},\"link\":[{next}],\"entry\":[{}]}}", entries.join(",")),
    )
}

fn resource(name: &str, patient: usize, number: usize) -> String {
    let meta = format!(
        "\"id\":\"{}{patient}-{number}\",\"meta\":{{\"versionId\":\"1\",\"lastUpdated\":\"2026-01-{:02}T10:{:02}:{:02}.000Z\"}}",
        &name[..1].to_lowercase(),
        1 + patient % 28,
        patient / 28 % 60,
        number
    );
    let subject = format!("\"subject\":{{\"reference\":\"Patient/p{patient}-0\"}}");
    match name {
        "Patient" => format!("{{\"resourceType\":\"Patient\",{meta},\"birthDate\":\"2012-05-01\"}}"),
        "Encounter" => format!("{{\"resourceType\":\"Encounter\",{meta},\"status\":\"finished\",{subject},\"period\":{{\"start\":\"2026-02-01T10:00:00Z\"}}}}"),
        _ => format!(
            "{{\"resourceType\":\"Observation\",{meta},\"status\":\"final\",{subject},\"code\":{{\"coding\":[{{\"system\":\"http://watershed.example/fhir/CodeSystem/ibd\",\"code\":\"pga\"}}]}},\"effectiveDateTime\":\"2026-02-01T10:00:00Z\"}}"
        ),
    }
}

/// The first night of a site with a source like this, of the measure of remission: the most memory that it takes, in KiB, and what it says.
async fn first_night(url: &str, source: &str) -> (u64, String) {
    let folder = tempfile::tempdir().unwrap();
    let measure = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/ibd/remission").display().to_string();
    let site = format!(
        "[site]\nid = \"lakeside\"\n[source]\nurl = \"{url}\"\n{source}\n[measures]\nfolders = [\"{measure}\"]\nmonths = 4\n\
         [registry]\nurl = \"http://127.0.0.1:9\"\nclient_id = \"lakeside\"\nkey_file = \"key.pem\"\n"
    );
    std::fs::write(folder.path().join("site.toml"), site).unwrap();
    std::fs::write(folder.path().join("key.pem"), SigningKey::generate(Algorithm::Es384).unwrap().to_pem()).unwrap();
    let mut night = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"));
    night.args(["run", "--once", "--as-of", AS_OF, "--format", "json"]).current_dir(folder.path());
    peak_memory(night).await
}

/// The most memory of a first night by search of so many patients, in KiB.
async fn peak_by_search(patients: usize) -> u64 {
    let server = Small::start(move |heard, origin| searched(patients, heard, origin)).await;
    let (peak, said) = first_night(&server.origin, "mode = \"search\"\nprogressive = false").await;
    assert!(said.contains(&format!("\"patients\":{patients}")) && said.contains("\"complete\":true"), "{said}");
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_patients_fit_into_memory_by_search() {
    // No round numbers: of these a pull doubts that they are all.
    let patients = if crate::all() { 100_013 } else { 1_013 };
    let peak = peak_by_search(patients).await;
    crate::figures::say(&format!("memory of a first night by search: {} MiB with {patients} patients of {} resources each", peak / 1024, 2 + OBSERVATIONS));
    assert!((10_000..512 * 1024).contains(&peak), "{} MiB", peak / 1024);
}

/// The connections that a server has open, at most, until it is asked for.
struct MostOpen {
    stop: Arc<AtomicBool>,
    watch: std::thread::JoinHandle<usize>,
}

impl MostOpen {
    fn watch(port: u16) -> MostOpen {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = std::thread::spawn(move || {
            let mut most = 0;
            while !stopped.load(Ordering::SeqCst) {
                most = most.max(connections(port));
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        MostOpen { stop, watch }
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.watch.join().unwrap()
    }
}

/// Established connections to a port, as the system lists them (proc(5), `/proc/net/tcp`).
fn connections(port: u16) -> usize {
    let (local, established) = (format!(":{port:04X}"), "01");
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some(established)
    };
    text.lines().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_41_twenty_thousand_small_files_arrive_within_bounded_memory_and_connections() {
    if !crate::all() {
        return crate::figures::say("skipped: twenty thousand small files take a minute; `WATERSHED_ALL=1` has them");
    }
    let mut bench = Bench::serving(&["q_41"], Serving { export_file_resources: 1, ..Serving::default() }).await.swift();
    bench.options.requests_at_once = 5;
    let port = url::Url::parse(&bench.running.base_url).unwrap().port().unwrap();
    let open = MostOpen::watch(port);
    let pulled = bench.pull(Mode::Bulk).await;
    let most = open.stop();
    assert!((1..=10).contains(&most), "{most} connections at once, where five requests were to be");
    let files = pulled.requests.iter().filter(|seen| seen.target.contains("/export-file/"));
    assert_eq!(files.clone().filter(|seen| seen.status == 200).count(), 20_000);
    assert!(files.count() < 22_000, "a file that was refused is tried again, and no other");
    pulled.is_the_truth();
}

/// Assessments of one patient, one line each.
fn assessments(count: u64) -> String {
    let mut lines = String::new();
    for number in 0..count {
        let (month, day, hour) = (1 + number % 2, 1 + number % 28, number % 24);
        lines.push_str(&format!(
            "{{\"resourceType\":\"Observation\",\"id\":\"o{number}\",\"meta\":{{\"versionId\":\"1\",\"lastUpdated\":\"2026-02-28T10:00:00.{:03}Z\"}},\"status\":\"final\",\
             \"category\":[{{\"coding\":[{{\"system\":\"http://terminology.hl7.org/CodeSystem/observation-category\",\"code\":\"survey\"}}]}}],\
             \"code\":{{\"coding\":[{{\"system\":\"http://watershed.example/fhir/CodeSystem/ibd\",\"code\":\"pga\"}}]}},\"subject\":{{\"reference\":\"Patient/p\"}},\
             \"encounter\":{{\"reference\":\"Encounter/e{number}\"}},\"effectiveDateTime\":\"2026-{month:02}-{day:02}T{hour:02}:00:00-05:00\",\
             \"valueCodeableConcept\":{{\"coding\":[{{\"system\":\"http://watershed.example/fhir/CodeSystem/ibd\",\"code\":\"quiescent\"}}]}}}}\n",
            number % 1000
        ));
    }
    lines
}
