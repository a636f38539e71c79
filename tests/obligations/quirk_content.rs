//! Quirks of content: Q-68 to Q-76.

use super::bench::{Bench, What};
use super::nights::{by_month, reports};
use crate::bed::{Bed, Wanted, output};
use serde_json::Value;
use watershed::fhir::record::{Record, Shape};
use watershed::source::Mode;

/// A night at a hospital with a quirk, on a machine in some zone: its numbers are the truth.
async fn counts_as_ever(quirk: &'static str, zone: &str) {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, quirks: vec![quirk], ..Wanted::default() }).await;
    let mut night = bed.night();
    night.env("TZ", zone);
    let night = output(night).await;
    let said = String::from_utf8_lossy(&night.stdout);
    assert!(night.status.success() && said.contains("40 patients, data complete"), "{quirk}: {said} {}", String::from_utf8_lossy(&night.stderr));
    assert_eq!(reports(&bed).await, by_month(&bed.hospital.truth()), "{quirk}");
}

#[tokio::test]
async fn q_68_decimals_keep_their_digits_and_what_is_no_number_is_held() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_68"]).await;
        let pulled = bench.pull(mode).await;
        let spoilt = pulled.differences.len();
        assert!((mode == Mode::Search) == (spoilt == 0), "{mode:?}: {spoilt}");
        assert!(pulled.differences.iter().all(|one| one.what == What::Missing && one.resource_type == "Observation"));
        assert_eq!(pulled.held.len(), spoilt, "{mode:?}");
        assert!(pulled.held.iter().all(|item| item.reason == "not one JSON object in UTF-8"), "{:?}", pulled.held.first());
        pulled.is_the_truth_or_says_what_is_not();
        let lines = bench.lines();
        for written in ["0e+1", "00e-1"] {
            let kept = lines.iter().filter(|line| line.contains(written)).count();
            let told = bench.running.resources().iter().filter(|(_, _, json)| json.contains(written)).count();
            assert!(told > 5 && told - kept <= spoilt, "{mode:?} {written}: {kept} of {told}");
        }
    }
}

#[test]
fn q_68_a_number_is_what_it_says_however_it_is_written() {
    let value = |text: &str| {
        let json = format!(r#"{{"resourceType":"Observation","id":"o","valueQuantity":{{"value":{text}}}}}"#);
        let (record, bad) = Record::read(&Shape::everything(), [json.as_bytes()].into_iter());
        assert_eq!(bad.len(), 0, "{text}");
        let quantity = record.get(record.resource("Observation", "o").unwrap(), "valueQuantity").unwrap();
        record.number(record.get(quantity, "value").unwrap()).unwrap()
    };
    let number = |text: &str| text.parse::<rust_decimal::Decimal>().unwrap();
    assert!(value("1.2E+2") == number("120") && value("385.00e-1") == number("38.5"));
    assert_eq!((value("1.00").to_string(), value("1.0").to_string()), ("1.00".to_owned(), "1.0".to_owned()), "the digits stay");
    assert!(value("1.00") == value("1.0") && value("0.1") + value("0.2") == value("0.30"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_68_measures_compare_numbers_by_their_value() {
    counts_as_ever("q_68", "UTC").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_69_times_without_a_zone_are_read_in_the_sites_zone_whatever_the_machines() {
    for zone in ["Asia/Tokyo", "Pacific/Honolulu"] {
        counts_as_ever("q_69", zone).await;
    }
}

#[tokio::test]
async fn q_70_a_contained_resource_is_found_from_its_container_only() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_70"]).await;
        let pulled = bench.pull(mode).await;
        pulled.is_the_truth();
        let asked: usize = ["/m1", "=m1", "%2Cm1"].iter().map(|part| pulled.count(part)).sum();
        assert_eq!(asked, 0, "it is nowhere else to be asked for");
        let snapshot = bench.snapshot();
        let mut looked_at = 0;
        for patient in snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap()) {
            let (record, _) = Record::read(&Shape::everything(), patient.lines.iter().map(Vec::as_slice));
            assert_eq!(record.resource("Device", "m1"), None, "it is no resource of its own");
            for observation in record.resources("Observation") {
                let device = record.resolve(*observation, "#m1").expect("found from its container");
                let serial = record.get(device, "serialNumber").and_then(|node| record.text(node));
                assert_eq!(serial, record.resource_id(*observation), "and from its own one");
                looked_at += 1;
            }
            for encounter in record.resources("Encounter") {
                assert_eq!(record.resolve(*encounter, "#m1"), None, "not from another resource");
            }
        }
        assert!(looked_at > 100, "{looked_at}");
    }
}

#[tokio::test]
async fn q_71_a_resource_with_an_unknown_modifier_is_left_out_and_counted_and_other_vendor_content_is_not() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_71"]).await;
        let pulled = bench.pull(mode).await;
        let marked = bench.running.resources().iter().filter(|(_, _, json)| json.contains("modifierExtension")).count();
        assert!(marked > 3);
        assert_eq!((pulled.held.len(), pulled.outcome.quarantined), (marked, marked as u64), "{mode:?}");
        assert!(pulled.held.iter().all(|item| item.reason == "a modifier that is not known here"), "{:?}", pulled.held.first());
        assert_eq!(pulled.differences.len(), marked);
        assert!(pulled.differences.iter().all(|one| one.what == What::Missing && one.resource_type == "Observation"));
        pulled.is_the_truth_or_says_what_is_not();
        assert!(!format!("{:?}", pulled.held).contains("Canary"));
    }
}

#[tokio::test]
async fn q_73_absent_fields_and_nulls_stop_no_pull() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_73"]).await;
        bench.pull(mode).await.is_the_truth();
        bench.hospital.amend(11);
        assert_eq!(bench.pull(mode).await.missing_or_changed(), Vec::<&super::bench::Difference>::new(), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_73_absent_fields_and_nulls_change_no_number() {
    counts_as_ever("q_73", "UTC").await;
}

/// The bytes of all files below a folder.
fn bytes_below(folder: &std::path::Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => all.extend(bytes_below(&path)),
            path => all.extend(std::fs::read(path).unwrap()),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_74_no_patients_value_is_in_a_log_nor_a_line_of_a_servers_making() {
    const CANARY: &str = "Canaryname";
    for mode in ["search", "bulk"] {
        let bed = Bed::make(Wanted { mode, limit: u64::MAX, patients: 30, quirks: vec!["q_74"], ..Wanted::default() }).await;
        let mut said = String::new();
        for arguments in [
            &["run", "--once", "--as-of", crate::bed::AS_OF, "--log", "debug"][..],
            &["check", "--log", "debug"],
            &["status"],
            &["quarantine", "list"],
            &["outbox", "list"],
            &["pull", "--log", "debug", "--log-format", "json"],
        ] {
            let heard = output(bed.command(arguments)).await;
            said.push_str(&String::from_utf8_lossy(&heard.stdout));
            said.push_str(&String::from_utf8_lossy(&heard.stderr));
        }
        assert!(said.contains("no good answer yet"), "{mode}: the errors were met: {said:.2000}");
        let of_the_software = |line: &&str| line.contains("speaks FHIR");
        let quoting: Vec<&str> = said.lines().filter(|line| line.contains(CANARY) && !of_the_software(line)).collect();
        assert_eq!(quoting, Vec::<&str>::new(), "{mode}");
        assert!(!said.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z ERROR forged")), "{mode}: a line that the server wrote");
        assert!(!said.contains("\u{1b}[2J"), "{mode}: the server controls the screen");
        for folder in ["data", "registry"] {
            let stored = bytes_below(&bed.folder.path().join(folder));
            assert!(memchr::memmem::find(&stored, CANARY.as_bytes()).is_none(), "{mode}: {folder} holds a patient's name in the clear");
        }
    }
}

#[tokio::test]
async fn q_75_a_servers_words_never_become_a_path() {
    let bench = Bench::new(&["q_75"]).await;
    let pulled = bench.pull(Mode::Bulk).await;
    pulled.is_the_truth();
    let files = bench.files();
    assert!(files.len() > 5, "{files:?}");
    for file in &files {
        assert!(file.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'/' | b'.' | b'-' | b'_')), "{file}");
        assert!(!["passwd", "..", "con", "nul", "ttt"].iter().any(|word| file.split('/').any(|part| part.starts_with(word))), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_76_what_could_not_be_delivered_stays_in_sight_and_is_sent_again_once() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 30, ..Wanted::default() }).await;
    let poorer = bed.poorer_registry().await;
    let run = async |arguments: &[&str], registry: Option<&str>| {
        let mut command = bed.command(arguments);
        command.envs(registry.map(|url| ("WATERSHED__REGISTRY__URL", url)));
        let heard = output(command).await;
        (heard.status.code(), String::from_utf8_lossy(&heard.stdout).into_owned(), String::from_utf8_lossy(&heard.stderr).into_owned())
    };
    let feeds = async || {
        serde_json::from_str::<Value>(&run(&["outbox", "list", "--format", "json"], None).await.1).unwrap()["feeds"]
            .as_array()
            .unwrap()
            .clone()
    };
    let (code, said, talk) = run(&["run", "--once", "--as-of", crate::bed::AS_OF], Some(&poorer)).await;
    assert_eq!(code, Some(5), "{said} {talk}");
    let [rejected] = feeds().await.try_into().unwrap();
    assert!(rejected["state"] == "rejected" && rejected["reasons"][0].as_str().is_some_and(|reason| reason.contains("hac-clabsi")), "{rejected}");
    // In sight wherever a person looks, and for as long as nobody decides.
    for _ in 0..2 {
        assert_eq!(run(&["outbox", "list"], None).await.0, Some(1));
        let (_, status, _) = run(&["status"], None).await;
        assert!(status.contains("rejected"), "{status}");
        assert_eq!(run(&["deliver"], None).await.0, Some(5));
    }
    assert_eq!(bed.registry().feeds, 0, "a rejected feed is not sent by itself");
    let feed = rejected["feed"].as_str().unwrap();
    assert_eq!(run(&["outbox", "retry", feed], None).await.0, Some(0));
    let (code, said, talk) = run(&["deliver"], None).await;
    assert_eq!(code, Some(0), "{said} {talk}");
    let held = bed.registry();
    assert_eq!((held.feeds, held.current.len()), (1, 12));
    // Once more, by hand and by the next night: nothing is doubled.
    assert_eq!(run(&["outbox", "retry", feed], None).await.0, Some(2));
    run(&["deliver"], None).await;
    assert_eq!(run(&["run", "--once", "--as-of", crate::bed::AS_OF], None).await.0, Some(0));
    let states: Vec<String> = feeds().await.iter().map(|feed| feed["state"].as_str().unwrap().to_owned()).collect();
    assert!(states.len() == 2 && states.contains(&"delivered".to_owned()) && states.contains(&"superseded".to_owned()), "{states:?}");
    let again = bed.registry();
    assert_eq!((again.feeds, again.revisions), (held.feeds, held.revisions));
    assert_eq!(reports(&bed).await, by_month(&bed.hospital.truth()));
}
