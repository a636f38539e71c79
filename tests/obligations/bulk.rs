//! Bulk Data export: B-01 to B-22. Some are beside the code that they concern, in `src/source/bulk/`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use watershed::sandbox::Fault;
use watershed::sandbox::request::Seen;
use watershed::sandbox::server::Options as Serving;
use watershed::source::duty::{Code, Who};
use watershed::source::{Mode, SourceError, account};

use super::bench::{Bench, Pulled};

/// A pull that takes no time, by export.
async fn swift(quirks: &[&str], serving: Serving) -> Bench {
    Bench::serving(quirks, serving).await.swift()
}

fn is_kick_off(target: &str) -> bool {
    target.contains("$export")
}

fn kick_offs(pulled: &Pulled) -> Vec<(String, u16)> {
    pulled.requests.iter().filter(|seen| is_kick_off(&seen.target)).map(|seen| (seen.method.clone(), seen.status)).collect()
}

#[tokio::test]
async fn b_01_exports_of_system_patients_and_a_group_in_every_version() {
    let levels: [(&'static [&'static str], &str, &str); 3] =
        [(&["system"], "", "/fhir/$export"), (&["patient"], "", "/fhir/Patient/$export"), (&["group"], "ibd", "/fhir/Group/ibd/$export")];
    for version in 1..=4 {
        for (export_levels, group, path) in levels {
            let serving = Serving { export_version: version, export_levels, ..Serving::default() };
            let mut bench = swift(&[], serving).await;
            bench.options.group = group.to_owned();
            let pulled = bench.pull(Mode::Auto).await;
            let expected = if version == 4 { "POST" } else { "GET" };
            assert_eq!(kick_offs(&pulled), [(expected.to_owned(), 202)], "version {version}, {path}");
            assert!(pulled.requests.iter().filter(|seen| is_kick_off(&seen.target)).all(|seen| seen.target.starts_with(path)), "version {version}, {path}");
            assert!(pulled.count("/export-file/") > 2);
            pulled.is_the_truth();
        }
    }
}

#[tokio::test]
async fn b_01_a_server_of_version_4_that_does_not_say_so_is_asked_by_post_after_a_405() {
    let fault = Fault::Status { path: "/Patient/$export".to_owned(), status: 405, retry_after: None, times: 1 };
    let pulled = swift(&[], Serving { faults: vec![fault], ..Serving::default() }).await.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled), [("GET".to_owned(), 405), ("POST".to_owned(), 202)]);
    pulled.is_the_truth();
}

#[tokio::test]
async fn b_02_kick_off_prefers_an_asynchronous_answer_and_an_own_status_is_understood() {
    for quirks in [&[][..], &["b_02"]] {
        let pulled = swift(quirks, Serving::default()).await.pull(Mode::Bulk).await;
        let kick_off = pulled.requests.iter().find(|seen| is_kick_off(&seen.target)).unwrap();
        assert_eq!((kick_off.header("accept"), kick_off.header("prefer")), (Some("application/fhir+json"), Some("respond-async")));
        assert!(pulled.count("/export-status/") > 2, "{quirks:?}: asked until it was ready, and deleted");
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn b_03_parameters_that_a_server_refuses_or_ignores_change_nothing() {
    let bench = swift(&["b_03"], Serving::default()).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    for export in 1..13 {
        bench.pass(Duration::from_secs(3600));
        bench.hospital.amend_at(export, bench.clock.now());
        let pulled = bench.pull(Mode::Bulk).await;
        assert!(!pulled.outcome.full && pulled.held.is_empty(), "export {export}");
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn b_04_the_status_address_is_on_disk_before_the_first_poll() {
    let bench = swift(&[], Serving::default()).await;
    bench.pull_until(Mode::Bulk, |seen| seen.target.contains("/export-status/")).await;
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled), [], "the export is gone on with");
    pulled.is_the_truth();
}

#[tokio::test]
async fn b_05_a_kick_off_refused_as_one_too_many_waits_for_it_or_goes_on_with_its_own() {
    // Somebody else's export is running.
    let fault = Fault::Status { path: "$export".to_owned(), status: 429, retry_after: Some(1800), times: 3 };
    let bench = swift(&[], Serving { faults: vec![fault], ..Serving::default() }).await;
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled).iter().map(|(_, status)| *status).collect::<Vec<_>>(), [429, 429, 429, 202]);
    assert!(bench.passed() >= Duration::from_secs(3 * 1800), "the waits are kept: {:?}", bench.passed());
    pulled.is_the_truth();
    // Its own is running, of a plan that is no longer: it is deleted, and makes room.
    let mut bench = swift(&[], Serving { export_jobs_max: 1, ..Serving::default() }).await;
    bench.pull_until(Mode::Bulk, |seen| seen.target.contains("/export-status/")).await;
    bench.options.group = "ibd".to_owned();
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled), [("GET".to_owned(), 202)]);
    pulled.is_the_truth();
    // It never ends: the pull is not given up, and says who can end it.
    let fault = Fault::Status { path: "$export".to_owned(), status: 429, retry_after: None, times: u32::MAX };
    let bench = swift(&[], Serving { faults: vec![fault], ..Serving::default() }).await;
    let error = bench.try_pull(Mode::Bulk).await.unwrap_err();
    assert!(matches!(error, SourceError::Unfinished { .. }) && error.to_string().contains("administrator"), "{error}");
    let asked = bench.running.requests().iter().filter(|seen| is_kick_off(&seen.target)).count();
    assert!(asked < 40, "asked {asked} times in {:?}", bench.passed());
}

#[tokio::test]
async fn b_07_progress_is_free_text_from_a_stranger_and_harms_nothing() {
    let log = Log::begin();
    let pulled = swift(&["b_07"], Serving { export_delay: Duration::from_secs(60), ..Serving::default() }).await.pull(Mode::Bulk).await;
    assert!(pulled.count("/export-status/") > 4);
    pulled.is_the_truth();
    assert!(!log.text().contains("canary"), "{}", log.text());
}

#[tokio::test]
async fn b_08_a_poll_that_fails_for_now_is_not_an_export_that_failed() {
    let bench = swift(&["b_08"], Serving::default()).await;
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled).len(), 1, "the export is the same");
    pulled.is_the_truth();
    let digest = pulled.digest;
    let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
    assert!(error.contains("the export failed with status 500 (processing)") && !error.contains("canary"), "{error}");
    assert_eq!(bench.snapshot().digest().unwrap(), digest);
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled).len(), 1, "another one is begun");
    pulled.is_the_truth();
}

#[tokio::test]
async fn b_10_the_next_export_starts_from_the_transaction_time_and_not_from_anybodys_clock() {
    let bench = swift(&["b_10"], Serving::default()).await;
    let since = |pulled: &Pulled| {
        let kick_off = pulled.requests.iter().find(|seen| is_kick_off(&seen.target)).unwrap();
        let since = url::form_urlencoded::parse(kick_off.target.split_once('?').unwrap().1.as_bytes()).find(|(name, _)| name == "_since")?;
        Some(since.1.parse::<jiff::Timestamp>().unwrap())
    };
    let before = bench.clock.now();
    // A change just before the export's time, so that nothing speaks for an earlier one.
    let just_before = |bench: &Bench| bench.clock.now() - jiff::SignedDuration::from_secs(302);
    bench.hospital.amend_at(2, just_before(&bench));
    let first = bench.pull(Mode::Bulk).await;
    let begun = bench.clock.now();
    assert_eq!(since(&first), None);
    bench.pass(Duration::from_secs(3600));
    bench.hospital.amend_at(4, just_before(&bench));
    // What is later than the export's time is in its files all the same.
    bench.hospital.amend_at(3, bench.clock.now() - jiff::SignedDuration::from_secs(60));
    let second = bench.pull(Mode::Bulk).await;
    second.is_the_truth();
    let expected = |at: jiff::Timestamp| at - jiff::SignedDuration::from_mins(15);
    let asked = since(&second).unwrap();
    let changed = jiff::SignedDuration::from_secs(3);
    assert!(asked >= expected(before) - changed && asked <= expected(begun), "five minutes before, and ten of overlap: {asked}, begun {begun}");
    let third = bench.pull(Mode::Bulk).await;
    assert!(since(&third).unwrap() > asked && third.outcome.new_versions == 0, "{:?} {}", since(&third), third.outcome.new_versions);
    third.is_the_truth();
}

#[tokio::test]
async fn b_11_errors_in_an_exports_messages_make_it_partial_and_warnings_do_not() {
    let bench = swift(&["b_11"], Serving::default()).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    bench.pull(Mode::Bulk).await.is_the_truth();
    let cursor = |pulled: &Pulled| pulled.requests.iter().find(|seen| is_kick_off(&seen.target)).unwrap().target.clone();
    let third = bench.pull(Mode::Bulk).await;
    assert!(!third.outcome.complete && third.has_gap("the server reports an error (processing)"), "{:?}", third.outcome.gaps);
    bench.pass(Duration::from_secs(3600));
    let fourth = bench.pull(Mode::Bulk).await;
    assert!(!fourth.outcome.complete && fourth.outcome.gaps.len() == 1, "{:?}", fourth.outcome.gaps);
    assert!(!format!("{:?}", fourth.outcome.gaps).contains("canary"));
    assert_eq!(cursor(&third), cursor(&fourth), "the next one starts where this one did");
}

#[tokio::test]
async fn b_12_deletions_are_applied_and_what_is_both_delivered_and_deleted_is_a_conflict() {
    let bench = swift(&[], Serving::default()).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    bench.pass(Duration::from_secs(60));
    bench.hospital.amend_at(5, bench.clock.now());
    let second = bench.pull(Mode::Bulk).await;
    assert!(!second.outcome.full && second.outcome.removed > 0, "{:?}", second.outcome);
    second.is_the_truth();
    let mut bench = swift(&["b_12"], Serving::default()).await;
    bench.options.requests_at_once = 1;
    bench.pull(Mode::Bulk).await.is_the_truth();
    bench.pass(Duration::from_secs(60));
    bench.hospital.amend_at(5, bench.clock.now());
    let second = bench.pull(Mode::Bulk).await;
    assert!(!second.outcome.complete && second.has_gap("1 were sent and said to be deleted"), "{:?}", second.outcome.gaps);
    assert_eq!(second.differences, [], "what came is kept");
    bench.pass(Duration::from_secs(3600));
    bench.pull(Mode::Bulk).await.is_the_truth();
    // Deleted, it says; by its own number it is there, and so it is when that is read again.
    bench.pass(Duration::from_secs(3600));
    let fourth = bench.pull(Mode::Bulk).await;
    assert!(!fourth.outcome.complete && fourth.has_gap("1 were sent and said to be deleted"), "{:?}", fourth.outcome.gaps);
    assert_eq!((fourth.outcome.full, fourth.outcome.removed, &fourth.differences), (false, 0, &Vec::new()));
    bench.options.tuning.full_every_days = 0;
    let fifth = bench.pull(Mode::Bulk).await;
    assert_eq!(fifth.outcome.new_versions, 0);
    fifth.is_the_truth();
}

#[tokio::test]
async fn b_13_a_manifest_in_parts_is_read_to_its_last_part() {
    for version in [1, 3, 4] {
        let serving = || Serving { export_version: version, manifest_files: 3, export_file_resources: 60, ..Serving::default() };
        let pulled = swift(&[], serving()).await.pull(Mode::Bulk).await;
        assert!(pulled.count("?part=2") > 0, "version {version}: three parts at least");
        pulled.is_the_truth();
        let fault = Fault::Status { path: "/export-status/".to_owned(), status: 503, retry_after: None, times: 3 };
        swift(&[], Serving { faults: vec![fault], ..serving() }).await.pull(Mode::Bulk).await.is_the_truth();
        let bench = swift(&["b_13"], serving()).await;
        let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
        assert!(error.contains("the manifest's parts lead in a circle"), "{error}");
        assert!(bench.running.request_count() < 60);
    }
}

#[tokio::test]
async fn b_14_files_get_the_token_exactly_when_the_manifest_says_so_on_the_ehrs_own_origin_only() {
    let bench = swift(&["b_14"], Serving::default()).await;
    for turn in 1..=3 {
        let pulled = bench.pull(Mode::Bulk).await;
        pulled.is_the_truth();
        let files: Vec<(bool, bool)> = pulled
            .requests
            .iter()
            .filter(|seen| seen.target.contains("/export-file/"))
            .map(|seen| (seen.elsewhere, seen.authorized))
            .collect();
        assert!(!files.is_empty() || turn > 1);
        let expected = [(false, true), (false, false), (true, false)][turn - 1];
        assert!(files.iter().all(|file| *file == expected), "{turn}: {files:?}");
        bench.pass(Duration::from_secs(60));
        bench.hospital.amend_at(turn as u64, bench.clock.now());
    }
    let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
    assert!(error.contains("files were refused with status 401 by another origin, where our token must not go"), "{error}");
    assert!(!bench.running.requests().iter().any(|seen| seen.elsewhere && seen.authorized));
}

#[tokio::test]
async fn b_15_files_come_plain_or_compressed_whatever_their_label_says() {
    let pulled = swift(&["b_15"], Serving { export_file_resources: 60, ..Serving::default() }).await.pull(Mode::Bulk).await;
    let files = pulled.requests.iter().filter(|seen| seen.target.contains("/export-file/"));
    assert!(files.clone().count() >= 6 && files.clone().all(|seen| seen.header("accept-encoding") == Some("gzip")));
    pulled.is_the_truth();
}

#[tokio::test]
async fn b_16_when_files_expire_the_manifest_is_asked_for_fresh_addresses() {
    let pulled = swift(&["b_16"], Serving { export_file_resources: 60, ..Serving::default() }).await.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled).len(), 1, "the export is the same");
    let (fine, expired) = pulled
        .requests
        .iter()
        .filter(|seen| seen.target.contains("/export-file/"))
        .partition::<Vec<_>, _>(|seen| seen.status == 200);
    assert!(expired.iter().any(|seen| seen.status == 403) && expired.iter().any(|seen| seen.status == 404), "{expired:?}");
    let mut paths: Vec<&str> = fine.iter().map(|seen| seen.target.split('?').next().unwrap()).collect();
    let files = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), files, "nothing is fetched twice");
    pulled.is_the_truth();
}

#[tokio::test]
async fn b_17_an_export_is_deleted_after_everything_is_durable_here() {
    // Killed while it is being deleted: the data are there.
    let slow = Fault::Slow { path: "/export-status/".to_owned(), delay: Duration::from_millis(50) };
    let bench = swift(&[], Serving { faults: vec![slow], ..Serving::default() }).await;
    bench.pull_until(Mode::Bulk, |seen| seen.method == "DELETE").await;
    let digest = bench.snapshot().digest().unwrap();
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!((pulled.outcome.full, pulled.outcome.new_versions, pulled.digest.clone()), (false, 0, digest));
    let deleted: Vec<u16> = pulled.requests.iter().filter(|seen| seen.method == "DELETE").map(|seen| seen.status).collect();
    assert_eq!(deleted, [404, 202], "that of the killed pull again, which is fine, and the own one");
    pulled.is_the_truth();
    // Killed before: it is not deleted, and gone on with.
    let bench = swift(&[], Serving::default()).await;
    bench.pull_until(Mode::Bulk, |seen| seen.target.contains("/export-file/")).await;
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled), []);
    let order: Vec<bool> = pulled.requests.iter().filter(|seen| seen.target.contains("/export-")).map(|seen| seen.method == "DELETE").collect();
    assert_eq!(order.iter().position(|is_delete| *is_delete), Some(order.len() - 1), "it is the last request");
    pulled.is_the_truth();
}

#[tokio::test]
async fn b_18_a_new_member_of_the_group_brings_the_whole_history() {
    for version in [2, 1] {
        let mut bench = swift(&[], Serving { export_version: version, ..Serving::default() }).await;
        bench.options.group = "all".to_owned();
        let everybody = bench.hospital.members("all").unwrap();
        bench.hospital.regroup("all", &everybody[..8], bench.clock.now());
        bench.pull(Mode::Bulk).await.is_the_truth();
        bench.pass(Duration::from_secs(3600));
        bench.hospital.regroup("all", &everybody[..11], bench.clock.now());
        let pulled = bench.pull(Mode::Bulk).await;
        assert!(!pulled.outcome.full && pulled.outcome.new_versions > 20, "version {version}: {:?}", pulled.outcome);
        let posts = pulled
            .requests
            .iter()
            .filter(|seen| seen.method == "POST" && is_kick_off(&seen.target))
            .map(|seen| seen.status)
            .collect::<Vec<_>>();
        assert_eq!(posts, if version == 2 { [202] } else { [405] }, "by an export of these patients, or by search");
        pulled.is_the_truth();
        let next = bench.pull(Mode::Bulk).await;
        assert!(
            next.requests
                .iter()
                .all(|seen| seen.method != "POST" || seen.target == "/token" || seen.body.contains("_summary=count")),
            "once"
        );
        next.is_the_truth();
    }
}

#[tokio::test]
async fn b_19_attachments_at_absolute_addresses_are_kept_as_they_are_and_no_token_goes_there() {
    let bench = swift(&["b_19"], Serving::default()).await;
    let pulled = bench.pull(Mode::Bulk).await;
    let snapshot = bench.snapshot();
    let photographed = |address: &str| {
        let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap());
        patients
            .flat_map(|patient| patient.lines)
            .filter(|line| String::from_utf8_lossy(line).contains(&format!("{address}/photograph")))
            .count()
    };
    let patients = bench.hospital.patients().len();
    assert_eq!((photographed(&bench.running.base_url), photographed(&bench.running.elsewhere_url)), (patients, patients));
    // No measure looks at a picture: they are not fetched, so that nobody sees a token for them.
    assert_eq!(pulled.count("/photograph"), 0);
    assert!(!pulled.requests.iter().any(|seen| seen.elsewhere));
    assert!(pulled.outcome.complete);
}

#[tokio::test]
async fn b_20_types_outside_of_patients_records_are_fetched_when_something_refers_to_them() {
    let mut bench = swift(&["b_20"], Serving::default()).await;
    bench.options.scopes = vec!["system/*.rs".to_owned()];
    let pulled = bench.pull(Mode::Bulk).await;
    let kick_off = pulled.requests.iter().find(|seen| is_kick_off(&seen.target)).unwrap();
    assert!(!kick_off.target.contains("Location") && !kick_off.target.contains("Provenance"), "{}", kick_off.target);
    assert!(pulled.count("/Location") > 0 && pulled.outcome.received.get("Location").is_some_and(|count| *count > 0));
    assert!(pulled.held.is_empty(), "what was not asked for is set aside without a word");
    pulled.is_the_truth();
}

/// Kick-offs are refused, or fail again and again.
#[tokio::test]
async fn where_an_export_is_not_to_be_had_the_same_is_searched_for_in_the_same_night() {
    for (status, code, who) in [(403, Code::ExportForbidden, Who::EhrTeam), (500, Code::Failing, Who::Nobody)] {
        let refused = Fault::Status { path: "$export".to_owned(), status, retry_after: None, times: u32::MAX };
        let mut bench = swift(&[], Serving { faults: vec![refused], ..Serving::default() }).await;
        let pulled = bench.pull(Mode::Auto).await;
        pulled.is_the_truth();
        let notes: Vec<_> = pulled.outcome.notes.iter().map(|note| (note.resource_type.as_str(), note.code)).collect();
        assert_eq!(notes, [("*", code)], "{:?}", pulled.outcome.notes);
        assert!(pulled.outcome.notes[0].reason.ends_with("the same was searched for"), "{:?}", pulled.outcome.notes);
        let account = bench.store.with(|connection| account::last(connection)).unwrap().unwrap();
        assert_eq!(account.rows.iter().filter_map(|row| row.note.clone()).map(|due| due.who).collect::<Vec<_>>(), [who]);
        // The export is tried again each night, and changes are enough of what was searched for.
        bench.hospital.amend_at(3, bench.clock.now());
        let again = bench.pull(Mode::Auto).await;
        let told = again.outcome.notes.iter().filter(|note| note.code != Code::Vanished).count();
        assert!(!again.outcome.full && told == 1 && again.outcome.new_versions > 0, "{:?}", again.outcome);
        assert!(again.count("$export") > 0 && again.count("_lastUpdated=ge") > 4);
        // Who may not search keeps what he has, and is told which setting that is.
        bench.options.tuning.full_every_days = 0;
        let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
        assert!(error.contains("`source.mode = \"bulk\"` allows no search in its place, `\"auto\"` does"), "{error}");
    }
    // What an export would bring for it is forbidden: so it is without one.
    let pulled = swift(&["q_05"], Serving::default()).await.pull(Mode::Auto).await;
    assert!(pulled.gaps() == ["Condition"].into() && pulled.differing() == ["Condition"].into(), "{:?}", pulled.outcome.gaps);
}

#[tokio::test]
async fn searches_in_the_place_of_an_export_go_on_in_the_next_night() {
    let refused = Fault::Status { path: "$export".to_owned(), status: 403, retry_after: None, times: u32::MAX };
    let mut bench = Bench::serving(&[], Serving { faults: vec![refused], ..Serving::default() }).await;
    (bench.options.requests_per_night, bench.options.page_size) = (12, 30);
    let mut nights = 1;
    let pulled = loop {
        match bench.try_pull(Mode::Auto).await {
            Ok(pulled) => break pulled,
            Err(SourceError::Unfinished { .. }) => nights += 1,
            Err(error) => panic!("night {nights}: {error}"),
        }
        assert!(nights < 20, "each night gets further");
    };
    pulled.is_the_truth();
    let kick_offs = bench.running.requests().iter().filter(|seen| seen.target.contains("$export")).count();
    assert!(nights > 2 && kick_offs == 1 && pulled.outcome.notes.len() == 1, "{nights} nights, {kick_offs} kick-offs, {:?}", pulled.outcome.notes);
}

#[tokio::test]
async fn what_a_groups_export_has_nothing_of_is_searched_for_of_its_members_only() {
    let mut bench = swift(&[], Serving::default()).await;
    bench.options.group = "ibd".to_owned();
    for night in 0..2 {
        let pulled = bench.pull(Mode::Bulk).await;
        pulled.is_the_truth();
        // What is counted by its ids is of them.
        let of_everybody = |seen: &&Seen| super::bench::TYPES.iter().any(|name| seen.target.starts_with(&format!("/fhir/{name}?"))) && !seen.target.contains("?_id=");
        assert_eq!(pulled.requests.iter().filter(of_everybody).map(|seen| &seen.target).collect::<Vec<_>>(), Vec::<&String>::new());
        let asked = pulled
            .requests
            .iter()
            .filter(|seen| seen.target.starts_with("/fhir/DeviceUseStatement/_search") && seen.body.contains("patient="));
        assert!(asked.count() > 0, "night {night}");
    }
}

#[tokio::test]
async fn b_21_the_list_of_patients_in_a_kick_off_is_not_logged() {
    let log = Log::begin();
    let mut bench = swift(&[], Serving::default()).await;
    bench.options.group = "all".to_owned();
    let everybody = bench.hospital.members("all").unwrap();
    bench.hospital.regroup("all", &everybody[..8], bench.clock.now());
    bench.pull(Mode::Bulk).await;
    bench.hospital.regroup("all", &everybody[..11], bench.clock.now());
    let pulled = bench.pull(Mode::Bulk).await;
    let posted = pulled.requests.iter().find(|seen| seen.method == "POST" && is_kick_off(&seen.target)).unwrap();
    assert!(posted.body.contains(&format!("Patient/{}", everybody[9])));
    let text = log.text();
    assert!(text.contains("pull"), "something is logged");
    assert!(everybody.iter().all(|patient| !text.contains(patient.as_str())), "{text}");
}

#[tokio::test]
async fn b_22_ndjson_with_any_line_ends_blank_lines_a_byte_order_mark_or_no_last_line_end() {
    let pulled = swift(&["b_22"], Serving { export_file_resources: 60, ..Serving::default() }).await.pull(Mode::Bulk).await;
    assert!(pulled.count("/export-file/") > 8);
    pulled.is_the_truth();
}

/// Everything that is logged on this thread while it lives.
struct Log {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    fn begin() -> Log {
        let lines: Arc<Mutex<Vec<u8>>> = Arc::default();
        let to = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || Writer(Arc::clone(&to))).finish();
        Log { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lines.lock().unwrap()).into_owned()
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
