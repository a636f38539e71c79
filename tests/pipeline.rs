//! Whole nights by the real binary: repeated, and with bad data.

use std::path::Path;
use std::sync::Arc;

use watershed::config::setup;
use watershed::pipeline::Asked;
use watershed::sandbox::Fault;
use watershed::source::{Silent, SystemClock};
use watershed::store::runs::State;

use crate::bed::{AS_OF, Bed, Wanted, output};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_night_twice_changes_nothing_at_the_registry() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let first = bed.registry();
    assert_eq!((first.feeds, first.current.len()), (1, 12), "4 months of 3 measures");
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let second = bed.registry();
    assert_eq!((second.feeds, second.revisions, &second.current), (first.feeds, first.revisions, &first.current));
    assert_eq!(bed.outbox().len(), 1, "an unchanged night makes no feed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_malformed_resources_and_cut_lines_are_kept_apart_and_the_night_is_partial() {
    for mode in ["search", "bulk"] {
        let faults = vec![Fault::Malformed { resource_type: "Observation".into(), count: 60 }, Fault::Truncated { resource_type: "Encounter".into(), lines: 5 }];
        let bed = Bed::make(Wanted { mode, limit: u64::MAX, patients: 40, faults, ..Wanted::default() }).await;
        let (code, said) = bed.run().await;
        assert_eq!(code, 1, "{mode}: a night with findings: {said}");
        let held = bed.registry();
        assert_eq!((held.feeds, held.current.len()), (1, 12), "{mode}: the rest of the night completes: {said}");
        let points: serde_json::Value = reqwest::get(format!("{}/v1/measures/ibd-remission/series?format=json", bed.registry_url))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let complete: Vec<_> = points["points"].as_array().unwrap().iter().map(|point| point["complete"].as_bool().unwrap()).collect();
        assert_eq!(complete, [false; 4], "{mode}: labelled partial");
        let listed = output(bed.command(&["quarantine", "list", "--format", "json"])).await;
        let listed = String::from_utf8(listed.stdout).unwrap();
        let expected = if mode == "bulk" { 65 } else { 60 };
        let count = listed.matches("\"sha256\"").count();
        assert!(count >= expected, "{mode}: {count} of {expected} are in quarantine: {listed}");
    }
}

/// What does not come of a type changes no number of a measure that does not read it, nor of what is composed of such; it does where
/// nobody knows of what type it is, or who there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_makes_partial_what_reads_its_type() {
    let own = ["hac-clabsi", "ibd-remission", "perinatal-early-elective-delivery", "whole-child"];
    let composite = Some(crate::composite::WHOLE.replace("METHOD", "opportunity"));
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 40, composite, ..Wanted::default() }).await;
    let at = |name: &str| bed.folder.path().join("drop").join(name);
    let partial = async || -> (Vec<String>, serde_json::Value) {
        let mut found = Vec::new();
        for id in own {
            let series = reqwest::get(format!("{}/v1/measures/{id}/series", bed.registry_url))
                .await
                .unwrap()
                .json::<serde_json::Value>()
                .await
                .unwrap();
            let complete: Vec<bool> = series["points"].as_array().unwrap().iter().map(|point| point["complete"].as_bool().unwrap()).collect();
            assert!(complete.len() == 4 && complete.iter().all(|one| *one == complete[0]), "{id}: {complete:?}");
            found.extend((!complete[0]).then(|| id.to_owned()));
        }
        let status = output(bed.command(&["status", "--format", "json"])).await;
        (found, serde_json::from_slice(&status.stdout).unwrap())
    };
    let cut = |name: &str| std::fs::write(at(name), "{\"resourceType\"").unwrap();
    for (part, expected, gaps) in [
        ("DeviceUseStatement.9.ndjson.part", &own[..1], serde_json::json!({ "DeviceUseStatement": 1 })),
        ("Patient.9.ndjson.part", &own, serde_json::json!({ "Patient": 1 })),
        ("9.ndjson.part", &own, serde_json::json!({ "*": 1 })),
    ] {
        cut(part);
        let (code, said) = bed.run().await;
        let (found, status) = partial().await;
        assert_eq!((code, &*found, &status["nights"][0]["gaps"]), (1, &expected.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()[..], &gaps), "{part}: {said}");
        let told: Vec<&str> = status["partial"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["measure"].as_str().unwrap().rsplit('/').next().unwrap())
            .collect();
        assert_eq!(told, found, "{part}: {status}");
        std::fs::remove_file(at(part)).unwrap();
    }
    // So does a line that cannot be read, also in a file of several types.
    let uses = std::fs::read_to_string(at("DeviceUseStatement.ndjson")).unwrap();
    let bad = "{\"resourceType\":\"DeviceUseStatement\",\"id\":\"bad\",\"status\":\"active\"}\n";
    for (file, text) in [("DeviceUseStatement.ndjson", format!("{uses}{bad}")), ("all.ndjson", format!("{uses}{bad}{}", std::fs::read_to_string(at("Device.ndjson")).unwrap()))] {
        std::fs::write(at(file), text).unwrap();
        let (code, said) = bed.run().await;
        assert_eq!((code, &*partial().await.0), (1, &own[..1].iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()[..]), "{file}: {said}");
        std::fs::write(at("DeviceUseStatement.ndjson"), "").unwrap();
    }
}

/// Who is named and did not come is a gap wherever gaps are counted: for the site and for its network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn site_and_network_count_the_same_gaps() {
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let patients = bed.folder.path().join("drop/Patient.ndjson");
    let lines = std::fs::read_to_string(&patients).unwrap();
    std::fs::write(&patients, lines.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let (code, said) = bed.run().await;
    assert!(code == 1 && said.contains("data partial (1 gap, 0 in quarantine)"), "{said}");
    let status = String::from_utf8(output(bed.command(&["status"])).await.stdout).unwrap();
    let known = String::from_utf8(output(bed.command(&["known"])).await.stderr).unwrap();
    assert!(status.contains("partial (1 gap, 0 in quarantine)") && known.contains("data partial (1 gap, 0 in quarantine)"), "{status}{known}");
    assert!(status.contains("partial reports of the latest night: hac-clabsi (4 of 4), ibd-remission (4 of 4), perinatal-early-elective-delivery (4 of 4)\n"), "{status}");
    let board = reqwest::get(&bed.registry_url).await.unwrap().text().await.unwrap();
    assert!(board.contains("partial: 1 gap, 0 lines set aside"), "{board}");
}

/// A site whose key the registry does not know is told so by its own exit codes, and the network by its board.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_registered_is_told_at_both_ends() {
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 20, ..Wanted::default() }).await;
    let file = bed.folder.path().join("registry-key.pem");
    let registered = std::fs::read(&file).unwrap();
    let other = crate::bed::key(bed.folder.path(), "registry-key.pem");
    let (code, said) = bed.run().await;
    assert_eq!(code, 5, "{said}");
    let status = output(bed.command(&["status"])).await;
    let said = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(1), "{said}");
    assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains("does not let this site in"), "{said}");
    let not_let_in = async || {
        let sites: serde_json::Value = reqwest::get(format!("{}/v1/sites", bed.registry_url)).await.unwrap().json().await.unwrap();
        sites["notLetIn"].as_array().unwrap().iter().map(|one| (one["site"].clone(), one["key"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(not_let_in().await, [("lakeside".into(), other.kid().into())]);
    std::fs::write(&file, registered).unwrap();
    assert_eq!(output(bed.command(&["deliver"])).await.status.code(), Some(0));
    assert_eq!((output(bed.command(&["status"])).await.status.code(), not_let_in().await), (Some(0), vec![]));
}

/// The zone that a `site.toml` names.
fn bed_zone(site: &str) -> String {
    let (_, rest) = site.split_once("time_zone = \"").unwrap_or_else(|| panic!("{site}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// Its rules are in every report; what they change under one version is told, and sent with its cause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_that_changes_under_its_version_is_told() {
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 20, ..Wanted::default() }).await;
    let at = |name: &str| bed.folder.path().join(name);
    let write = |version: &str, code: &str| {
        let rule = format!("{{system: http://local, to: http://snomed.info/sct, elements: [Encounter.type], map: {{A: \"{code}\"}}}}");
        std::fs::write(at("mapping.yaml"), format!("name: ours\nversion: {version}\ncodes:\n  - {rule}\n")).unwrap();
    };
    let site = std::fs::read_to_string(at("site.toml")).unwrap();
    std::fs::write(at("site.toml"), format!("{site}[mapping]\nfile = \"mapping.yaml\"\n")).unwrap();
    let check = async || {
        let said = output(bed.command(&["check", "--offline"])).await;
        (said.status.code().unwrap(), String::from_utf8(said.stdout).unwrap())
    };
    let told = "the rules of the mapping `ours|1.0.0` are not those of the last night";
    write("1.0.0", "394584008");
    let (code, said) = bed.run().await;
    assert_eq!((code, check().await.0), (0, 0), "{said}");
    let idle = "in the last night: the mapping's rule of `http://local` at `Encounter.type` matched nothing in the data";
    assert!(check().await.1.contains(idle), "{}", check().await.1);
    let status = output(bed.command(&["status", "--format", "json"])).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["unmapped"][0]["problem"], &status["unmapped"][0]["patients"]), (&"idle-rule".into(), &0.into()), "it comes first");
    let known = output(bed.command(&["known", "--format", "json"])).await;
    assert!(String::from_utf8_lossy(&known.stdout).contains("mapping-rules"));
    write("1.0.0", "394582007");
    let (code, said) = check().await;
    assert!(code == 1 && said.contains(told), "{said}");
    write("1.0.1", "394582007");
    assert!(!check().await.1.contains(told));
    write("1.0.0", "394582007");
    let (_, said) = bed.run().await;
    let of_night = format!("{told}, under the same version: numbers change by it");
    assert!(said.contains(&of_night), "{said}");
    let status = async || String::from_utf8(output(bed.command(&["status"])).await.stdout).unwrap();
    assert!(status().await.contains(&of_night), "{}", status().await);
    let store = watershed::registry::open_store(&at("registry")).unwrap();
    let causes: Vec<Option<String>> = store
        .read(|transaction| {
            let mut statement = transaction.prepare("SELECT DISTINCT cause FROM revision WHERE number > 1")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
        .map_err(|error: watershed::registry::RegistryError| error)
        .unwrap();
    assert_eq!(causes, [Some("mapping".to_owned())]);
    assert_eq!(check().await.0, 0, "the last night had these rules");
    std::fs::write(at("site.toml"), site).unwrap();
    let gone = "no mapping is configured, and the last night had `ours|1.0.0`";
    assert!(check().await.1.contains(gone), "{}", check().await.1);
    let (_, said) = bed.run().await;
    assert!(said.contains(gone) && status().await.contains(gone), "{said}");
    let (_, said) = bed.run().await;
    assert!(!said.contains(gone) && !status().await.contains(gone), "it is told once: {said}");
}

/// A month that is older than a night's months keeps the number that it was counted with: series and status say so, and one night of its own
/// counts it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_that_was_counted_by_other_rules_is_marked_and_can_be_counted_again() {
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 20, ..Wanted::default() }).await;
    let at = |name: &str| bed.folder.path().join(name);
    let site = std::fs::read_to_string(at("site.toml")).unwrap();
    std::fs::write(at("site.toml"), format!("{site}[mapping]\nfile = \"mapping.yaml\"\n")).unwrap();
    let night = async |version: &str, code: &str, as_of: &str| {
        let rule = format!("{{system: http://local, to: http://snomed.info/sct, elements: [Encounter.type], map: {{A: \"{code}\"}}}}");
        std::fs::write(at("mapping.yaml"), format!("name: ours\nversion: {version}\ncodes:\n  - {rule}\n")).unwrap();
        let said = output(bed.command(&["run", "--once", "--as-of", as_of])).await;
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    };
    let read = async |path: &str| reqwest::get(format!("{}{path}", bed.registry_url)).await.unwrap().text().await.unwrap();
    let marked = async || -> Vec<(String, serde_json::Value)> {
        let series: serde_json::Value = serde_json::from_str(&read("/v1/measures/ibd-remission/series").await).unwrap();
        let point = |point: &serde_json::Value| (point["periodStart"].as_str().unwrap()[..7].to_owned(), point["otherThanNewest"].clone());
        series["points"].as_array().unwrap().iter().map(point).collect()
    };
    let (other, same) = (serde_json::json!(["mapping"]), serde_json::Value::Null);
    let months = |marks: [&serde_json::Value; 5]| -> Vec<(String, serde_json::Value)> {
        let names = ["2025-11", "2025-12", "2026-01", "2026-02", "2026-03"];
        names.into_iter().zip(marks).map(|(name, mark)| (name.to_owned(), mark.clone())).collect()
    };
    let command = "watershed run --once --as-of 2026-03-01T12:00:00Z";

    night("1.0.0", "394584008", AS_OF).await;
    night("1.0.1", "394582007", "2026-04-02T06:30:00Z").await;
    assert_eq!(marked().await, months([&other, &same, &same, &same, &same]), "November was left as it was");
    let csv = read("/v1/measures/ibd-remission/series?format=csv").await;
    assert!(
        csv.lines().next().unwrap().ends_with(",other_than_newest") && csv.lines().nth(1).unwrap().ends_with(",mapping") && csv.lines().nth(2).unwrap().ends_with(','),
        "{csv}"
    );
    let page = read("/measures/ibd-remission/sites/lakeside").await;
    assert!(page.contains("Nov 2025 was counted by other rules than the newest (mapping): a difference may be one of counting."), "{page}");
    assert_eq!(page.matches("other mapping</span>").count(), 1, "{page}");
    let status = String::from_utf8(output(bed.command(&["status"])).await.stdout).unwrap();
    assert!(status.contains("  ibd-remission, 2025-11-01 to 2025-11-30: 1 report (other mapping)\n") && status.contains(command), "{status}");

    night("1.0.1", "394582007", command.rsplit(' ').next().unwrap()).await;
    assert_eq!(marked().await, months([&same; 5]), "counted again, and no month before it");
    assert!(!read("/measures/ibd-remission/sites/lakeside").await.contains("counted by other rules"));
    let status = String::from_utf8(output(bed.command(&["status"])).await.stdout).unwrap();
    assert!(!status.contains("counted otherwise"), "{status}");
    let store = watershed::registry::open_store(&at("registry")).unwrap();
    let causes: Vec<(String, String)> = store
        .read(|transaction| {
            let mut statement = transaction.prepare("SELECT DISTINCT period_start, cause FROM revision WHERE number > 1 ORDER BY 1")?;
            Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
        })
        .map_err(|error: watershed::registry::RegistryError| error)
        .unwrap();
    let expected = ["2025-11-01", "2025-12-01", "2026-01-01", "2026-02-01"].map(|month| (month.to_owned(), "mapping".to_owned()));
    assert_eq!(causes, expected, "also where the rules had changed some nights before");
}

/// Days in another zone are other days.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_zone_is_told_and_what_it_changes_is_sent_with_its_cause() {
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 20, ..Wanted::default() }).await;
    assert_eq!(bed.run().await.0, 0);
    let path = bed.folder.path().join("site.toml");
    let site = std::fs::read_to_string(&path).unwrap();
    let zone = bed_zone(&site);
    std::fs::write(&path, site.replace(&format!("time_zone = \"{zone}\""), "time_zone = \"Pacific/Auckland\"")).unwrap();
    let told = format!("`site.time_zone` is Pacific/Auckland, in the last night it was {zone}");
    for command in [&["status"][..], &["check", "--offline"]] {
        let said = output(bed.command(command)).await;
        assert!(String::from_utf8_lossy(&said.stdout).contains(&told), "{}", String::from_utf8_lossy(&said.stdout));
    }
    let (_, said) = bed.run().await;
    assert!(said.contains(&told), "{said}");
    let store = watershed::registry::open_store(&bed.folder.path().join("registry")).unwrap();
    let newest = "SELECT cause FROM revision ORDER BY id DESC LIMIT 1";
    let cause = store.read(|transaction| Ok::<Option<String>, watershed::registry::RegistryError>(transaction.query_row(newest, [], |row| row.get(0))?));
    assert_eq!(cause.unwrap(), Some("zone".to_owned()));
}

/// The limits are those of the measure's author: its report goes out, and run and status say what was found and what was expected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_measure_calls_implausible_is_sent_and_shown() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let (ours, file) = (bed.folder.path().join("mappings"), bed.folder.path().join("site.toml"));
    let theirs = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings");
    assert!(std::process::Command::new("cp").arg("-r").args([&theirs, &ours]).status().unwrap().success());
    let measure = ours.join("measures/ibd/remission/measure.yaml");
    let limits = std::fs::read_to_string(&measure).unwrap().replace("denominator-min: 1\n", "denominator-min: 100000\n");
    std::fs::write(&measure, limits).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&theirs.display().to_string(), &ours.display().to_string())).unwrap();
    let (code, said) = bed.run().await;
    assert_eq!((code, bed.registry().current.len()), (0, 12), "all are sent: {said}");
    let status = output(bed.command(&["status"])).await;
    let status = String::from_utf8(status.stdout).unwrap();
    let known = output(bed.command(&["known", "--format", "json"])).await;
    assert_eq!(known.status.code(), Some(0), "nothing is partial for it");
    let known = String::from_utf8(known.stderr).unwrap();
    for (place, said) in [("run", &said), ("status", &status), ("known", &known)] {
        assert!(said.contains("ibd-remission") && said.matches("at least 100000 is expected").count() >= 4, "{place}: {said}");
    }
    assert!(said.contains("look at ibd-remission, 2026-02-01 to 2026-02-28: the denominator is"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_38_a_night_goes_on_with_the_last_good_data_and_is_called_partial() {
    let bed = Bed::make(Wanted { mode: "bulk", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let first = bed.registry();
    {
        let (site, _) = watershed::config::load_site(&bed.folder.path().join("site.toml"));
        let site = site.unwrap();
        let mut checked = setup::read(&site).0.unwrap();
        checked.source.tuning.export_wait_minutes = 0;
        let adapter = setup::open(&site, checked, Arc::new(SystemClock)).unwrap();
        let (_asker, stop) = tokio::sync::watch::channel(false);
        let asked = Asked { now: AS_OF.parse().unwrap(), scheduled: None };
        let night = adapter.night(&asked, &stop, &Silent).await.unwrap();
        assert_eq!((night.run.state, night.run.complete, night.run.patients), (State::Finished, Some(false), 40), "{:?}", night.run);
        assert_eq!(night.run.gaps, [("*".to_owned(), 1)].into());
    }
    let second = bed.registry();
    assert_eq!((second.feeds, second.current.len()), (2, first.current.len()), "the same numbers, called partial");
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let third = bed.registry();
    assert_eq!(third.current, first.current, "the export of the second night is gone on with");
}

/// The numbers of the past from the snapshot alone: those of each night byte for byte, as often as they are asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_on_a_day_gives_the_reports_of_its_night() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let before = jiff::Timestamp::now().to_string();
    let mut nights = Vec::new();
    for seed in [1, 2] {
        let (code, said) = bed.run().await;
        assert_eq!(code, 0, "{said}");
        nights.push((bed.registry().current, jiff::Timestamp::now().to_string()));
        bed.hospital.amend(seed);
    }
    assert_ne!(nights[0].0, nights[1].0, "what was amended moves numbers");
    for (expected, on) in &nights {
        let known = output(bed.command(&["known", "--on", on, "--format", "json"])).await;
        assert_eq!(known.status.code(), Some(0), "{}", String::from_utf8_lossy(&known.stderr));
        let reports = known.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let digests: std::collections::BTreeSet<String> = reports.map(watershed::store::sha256_hex).collect();
        let sent = expected.iter().map(|(_, _, digest)| digest.clone()).collect();
        assert_eq!((digests.len(), &digests), (12, &sent), "as known on {on}");
        let said = String::from_utf8(known.stderr).unwrap();
        let told = said.split_once("which ended at ").and_then(|(_, rest)| rest.split_once(": ")).unwrap().0.to_owned();
        assert!(output(bed.command(&["known", "--on", &told, "--format", "json"])).await.stdout == known.stdout, "the instant that is told is that night's");
    }
    let month = output(bed.command(&["known", "--period", "2026-01", "--format", "json"])).await;
    assert_eq!(month.stdout.iter().filter(|byte| **byte == b'\n').count(), 3, "one report a measure");
    let early = output(bed.command(&["known", "--on", &before])).await;
    let said = String::from_utf8_lossy(&early.stderr);
    assert!(early.status.code() == Some(3) && said.contains("nothing is known of that day: the first pull ended at"), "{said}");
    for coming in [&["known", "--on", "2999-01-01"][..], &["known", "--period", "2999-01"], &["run", "--once", "--as-of", "2999-01-01T00:00:00Z"]] {
        assert_eq!(output(bed.command(coming)).await.status.code(), Some(2), "{coming:?}");
    }
    assert_eq!(bed.outbox().len(), 2, "nothing was sent");
}

/// A measure of years is reported for the years that are over within a night's months, not by month.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_measure_of_years_is_reported_by_year() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    assert_eq!(bed.run().await.0, 0);
    let mappings = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings");
    let (own, yearly) = (mappings.join("measures/ibd/remission"), bed.folder.path().join("yearly"));
    for (from, to) in [(mappings.join("libraries"), "libraries"), (mappings.join("value-sets"), "value-sets")] {
        let to = yearly.join(to);
        std::fs::create_dir_all(&to).unwrap();
        std::fs::read_dir(from).unwrap().map(Result::unwrap).for_each(|file| {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        });
    }
    let definition = std::fs::read_to_string(own.join("measure.yaml")).unwrap();
    assert!(definition.contains("period: month\n"));
    std::fs::write(yearly.join("measure.yaml"), definition.replace("period: month\n", "period: year\n")).unwrap();
    std::fs::copy(own.join("ibd-remission.cql"), yearly.join("ibd-remission.cql")).unwrap();
    let site = bed.folder.path().join("site.toml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, text.replace(&own.display().to_string(), &yearly.display().to_string())).unwrap();
    let known = output(bed.command(&["known", "--format", "json"])).await;
    let said = String::from_utf8_lossy(&known.stderr);
    let reports = known.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let of_ibd = reports
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap())
        .filter(|report| report["measure"].as_str().unwrap().contains("ibd"));
    let periods: Vec<(String, String)> = of_ibd
        .map(|report| ["start", "end"].map(|end| report["period"][end].as_str().unwrap()[..10].to_owned()).into())
        .collect();
    assert_eq!(periods, [("2025-01-01".to_owned(), "2025-12-31".to_owned())], "{said}");
}

/// A measure that joined later has no data of that night, and is not called complete over what it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_night_did_not_measure_is_partial_as_known_then() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let site = bed.folder.path().join("site.toml");
    let all = std::fs::read_to_string(&site).unwrap();
    let folders = all.lines().find(|line| line.starts_with("folders")).unwrap();
    let first = folders.split_once(',').unwrap().0;
    std::fs::write(&site, all.replace(folders, &format!("{first}]"))).unwrap();
    assert_eq!(bed.run().await.0, 0);
    assert_eq!(output(bed.command(&["known"])).await.status.code(), Some(0));
    std::fs::write(&site, &all).unwrap();
    let known = output(bed.command(&["known"])).await;
    let said = String::from_utf8_lossy(&known.stderr);
    assert!(known.status.code() == Some(1) && said.matches("was not among the measures of that night").count() == 2 && said.contains("data partial (2 gaps"), "{said}");
}

/// Composites go the whole way: computed of the same night's patients, sent, drawn; each group of a measure a series of its own. The
/// registry's page says the score where there is nothing to count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_group_of_a_composite_is_a_series_beside_those_it_is_made_of() {
    let (head, components) = crate::composite::WHOLE.split_once("composite-scoring: METHOD\nimprovement: increase\n").unwrap();
    let components = components.replace("\n", "\n    ");
    let group = |method: &str| format!("  - id: {method}\n    text: By {method}\n    composite-scoring: {method}\n    {}\n", components.trim_end());
    let composite = Some(format!("{head}improvement: increase\ngroups:\n{}{}", group("opportunity"), group("weighted")));
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, composite, ..Wanted::default() }).await;
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(bed.registry().current.len(), 16, "4 months of 4 measures");
    let read = async |path: &str| reqwest::get(format!("{}{path}", bed.registry_url)).await.unwrap().text().await.unwrap();
    let points = async |id: &str| -> Vec<serde_json::Value> {
        let series: serde_json::Value = serde_json::from_str(&read(&format!("/v1/measures/{id}")).await).unwrap();
        series["points"].as_array().unwrap().clone()
    };
    let (remission, early) = (points("ibd-remission/series").await, points("perinatal-early-elective-delivery/series").await);
    let (opportunity, weighted) = (points("whole-child/series?group=opportunity").await, points("whole-child/series?group=weighted").await);
    assert_eq!((opportunity.len(), weighted.len()), (4, 4));
    let number = |point: &serde_json::Value, name: &str| point[name].as_str().map(|text| text.parse::<f64>().unwrap());
    for ((whole, remission), early) in opportunity.iter().zip(&remission).zip(&early) {
        // A mother with two deliveries in a month is one case.
        let fulfilled = number(remission, "numerator").unwrap() + number(early, "denominator").unwrap() - number(early, "numerator").unwrap();
        let cases = number(remission, "denominator").unwrap() + number(early, "denominator").unwrap();
        assert_eq!((number(whole, "numerator"), number(whole, "denominator")), (Some(fulfilled), Some(cases)));
    }
    for ((whole, remission), early) in weighted.iter().zip(&remission).zip(&early) {
        // Of a month without deliveries remission alone has a score, and the whole has none.
        let expected = early["value"].as_f64().map(|early| (remission["value"].as_f64().unwrap() + 100.0 - early) / 2.0);
        let is_near = |(found, expected): (f64, f64)| (found - expected).abs() < 1e-6;
        assert!(whole["value"].as_f64().zip(expected).map_or(whole["value"].is_null() && expected.is_none(), is_near), "{whole} instead of {expected:?}");
        assert_eq!((&whole["numerator"], &whole["denominator"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    }
    let page = read("/measures/whole-child").await;
    assert!(page.matches("Run chart of ").count() == 2 && page.contains("<h2>By weighted</h2>"), "{page}");
}
