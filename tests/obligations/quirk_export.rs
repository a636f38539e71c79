//! Quirks of the life of an export.

use std::collections::BTreeSet;
use std::time::Duration;

use watershed::sandbox::Fault;
use watershed::sandbox::server::Options as Serving;
use watershed::source::duty::Code;
use watershed::source::{Mode, SourceError, TypeFilter, ledger};
use watershed::store::quarantine;

use super::bench::{Bench, Pulled, What};
use super::quirk_search::of_group;

async fn swift(quirks: &[&str]) -> Bench {
    Bench::new(quirks).await.swift()
}

/// Statuses of the kick-offs.
fn kick_offs(pulled: &Pulled) -> Vec<u16> {
    pulled.requests.iter().filter(|seen| seen.target.contains("$export")).map(|seen| seen.status).collect()
}

fn polls(pulled: &Pulled) -> Vec<u16> {
    pulled
        .requests
        .iter()
        .filter(|seen| seen.target.contains("/export-status/") && seen.method == "GET")
        .map(|seen| seen.status)
        .collect()
}

#[tokio::test]
async fn q_35_an_export_whose_address_was_lost_in_a_crash_is_waited_out_and_begun_anew() {
    // The answer is lost on its way, or the adapter is killed before it comes.
    for is_killed in [false, true] {
        let bench = swift(&["q_35"]).await;
        if is_killed {
            bench.pull_until(Mode::Bulk, |seen| seen.target.contains("$export")).await;
        }
        let pulled = bench.pull(Mode::Bulk).await;
        let expected: &[u16] = if is_killed { &[429, 429, 429, 202] } else { &[202, 429, 429, 429, 202] };
        assert_eq!(kick_offs(&pulled), expected, "killed: {is_killed}");
        assert!(bench.passed() >= Duration::from_secs(1800), "the server's waits are kept: {:?}", bench.passed());
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn q_36_an_old_export_served_as_new_is_refused_and_a_sudden_loss_is_held_back() {
    let mut bench = Bench::serving(&["q_36"], Serving { export_life: Duration::from_secs(864_000), export_jobs_max: 20, ..Serving::default() })
        .await
        .swift();
    bench.options.tuning.full_every_days = 0;
    bench.pull(Mode::Bulk).await.is_the_truth();
    bench.pass(Duration::from_secs(3600));
    bench.hospital.amend_at(3, bench.clock.now());
    let second = bench.pull(Mode::Bulk).await;
    assert_eq!((kick_offs(&second).len(), second.outcome.full), (2, true), "the old one, and another that is asked for in other words");
    second.is_the_truth();
    // An export of empty files, then one without any: search tells that this is not so.
    for _ in 0..2 {
        bench.pass(Duration::from_secs(3600));
        bench.hospital.amend_at(4, bench.clock.now());
        let pulled = bench.pull(Mode::Bulk).await;
        assert!(pulled.count("/Observation?") > 0);
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn q_36_nothing_is_removed_when_a_server_suddenly_shows_nothing_and_search_is_refused() {
    let refuse = |path: &str| Fault::Status { path: format!("/fhir/{path}"), status: 403, retry_after: None, times: u32::MAX };
    let faults = ["Observation", "Encounter", "Condition", "Procedure", "DeviceUseStatement"].map(refuse).into();
    let mut bench = Bench::serving(&["q_36"], Serving { faults, export_life: Duration::from_secs(864_000), export_jobs_max: 20, ..Serving::default() })
        .await
        .swift();
    bench.options.tuning.full_every_days = 0;
    let mut digest = String::new();
    for _ in 0..2 {
        let pulled = bench.pull(Mode::Bulk).await;
        pulled.is_the_truth();
        digest = pulled.digest;
        bench.pass(Duration::from_secs(3600));
    }
    for _ in 0..2 {
        let pulled = bench.pull(Mode::Bulk).await;
        assert!(!pulled.outcome.complete && pulled.has_gap("ask the EHR's administrator whether this client may read it"), "{:?}", pulled.outcome.gaps);
        assert_eq!((pulled.digest, pulled.outcome.removed), (digest.clone(), 0));
        bench.pass(Duration::from_secs(3600));
    }
}

#[tokio::test]
async fn q_37_a_wait_of_hours_is_cut_when_polling_and_honoured_when_refused() {
    let bench = swift(&["q_37"]).await;
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(polls(&pulled).iter().take(4).copied().collect::<Vec<_>>(), [202, 202, 202, 429]);
    let (least, most) = (Duration::from_secs(3 * 900 + 7200), Duration::from_secs(3 * 900 + 7200 + 1800));
    assert!((least..most).contains(&bench.passed()), "a quarter of an hour each, then two hours: {:?}", bench.passed());
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_38_an_export_may_take_weeks_and_meanwhile_the_last_good_data_serve() {
    let bench = Bench::serving(&["q_38"], Serving { export_life: Duration::from_secs(60 * 86_400), ..Serving::default() }).await.swift();
    let first = bench.pull(Mode::Bulk).await;
    first.is_the_truth();
    bench.hospital.amend_at(3, bench.clock.now());
    let mut nights = 0;
    let pulled = loop {
        bench.pass(Duration::from_secs(16 * 3600));
        match bench.try_pull(Mode::Bulk).await {
            Ok(pulled) => break pulled,
            Err(error) => {
                assert!(matches!(error, SourceError::Unfinished { .. }), "{error}");
                assert!(error.to_string().starts_with("the server is still working on the export of 20"), "{error}");
                assert_eq!(bench.snapshot().digest().unwrap(), first.digest, "what there was is there");
            }
        }
        nights += 1;
        assert!(nights < 25);
    };
    assert!((18..=21).contains(&nights), "{nights} nights");
    assert!(kick_offs(&pulled).is_empty(), "it is the export of the first of these nights");
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_39_polls_come_no_faster_than_the_server_allows() {
    let bench = Bench::serving(&["q_39"], Serving { export_delay: Duration::from_secs(60), ..Serving::default() }).await.swift();
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(polls(&pulled).iter().filter(|status| **status == 429).count() <= 1, "told once: {:?}", polls(&pulled));
    assert_eq!(kick_offs(&pulled).len(), 1);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_40_an_export_that_expired_is_begun_anew() {
    let bench = Bench::serving(&["q_40"], Serving { export_life: Duration::from_secs(86_400), ..Serving::default() }).await.swift();
    bench.pull_until(Mode::Bulk, |seen| seen.target.contains("/export-file/")).await;
    bench.pass(Duration::from_secs(3 * 3600));
    bench.hospital.amend_at(3, bench.clock.now());
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(pulled.requests.iter().any(|seen| seen.status == 410), "the files are gone");
    assert_eq!(kick_offs(&pulled).len(), 1);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_42_deletion_of_an_export_may_be_answered_with_anything() {
    let bench = Bench::serving(&["q_42"], Serving { export_jobs_max: 20, ..Serving::default() }).await.swift();
    let (mut answers, mut told) = (Vec::new(), Vec::new());
    for night in 0..7 {
        bench.pass(Duration::from_secs(60));
        bench.hospital.amend_at(night, bench.clock.now());
        let pulled = bench.pull(Mode::Bulk).await;
        answers.extend(pulled.requests.iter().filter(|seen| seen.method == "DELETE").map(|seen| seen.status));
        told.extend(pulled.outcome.notes.iter().filter(|note| note.code == Code::Undeletable).map(|note| note.reason.clone()));
        let kept = |unit: &ledger::Recorded| unit.note.as_ref().is_some_and(|why| why.code == Code::Undeletable);
        let units = ledger::units(&bench.store, pulled.outcome.pull_id).unwrap();
        assert_eq!(units.iter().filter(|unit| kept(unit)).count(), usize::from([1, 2, 3].contains(&night)), "night {night}: the ledger tells it");
        pulled.is_the_truth();
    }
    assert_eq!(answers, [404, 405, 500, 501, 200, 204, 202], "each once");
    let stays = |status: u16| format!("the server does not delete 1 finished export (status {status}): the files, with patients' data, stay there");
    assert_eq!(told, [405, 500, 501].map(stays), "patients' data that stay at the EHR are told of");
}

#[tokio::test]
async fn q_43_the_list_of_errors_may_be_absent_empty_or_have_its_later_name() {
    let bench = swift(&["q_43"]).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    bench.pull(Mode::Bulk).await.is_the_truth();
    let third = bench.pull(Mode::Bulk).await;
    assert!(!third.outcome.complete && third.has_gap("the server reports an error (processing)"), "{:?}", third.outcome.gaps);
}

/// A site that reads everything each night, but of Observation two codes only.
async fn narrowed(quirks: &[&str], spelling: TypeFilter) -> Bench {
    let mut bench = swift(quirks).await.narrowed(spelling);
    bench.options.tuning.full_every_days = 0;
    bench
}

#[tokio::test]
async fn q_44_filters_are_written_as_the_server_reads_them_and_make_no_difference_to_what_is_stored() {
    let mut digests = BTreeSet::new();
    for (spelling, comma) in [(TypeFilter::Encoded, "%252C"), (TypeFilter::Escaped, "%5C%2C")] {
        let bench = narrowed(&["q_44"], spelling).await;
        let all = bench.running.resources().iter().filter(|(resource_type, ..)| resource_type == "Observation").count() as u64;
        let wanted = (&[202][..], true);
        // Heeded; ignored; refused twice and then not sent; begun, failed, and begun without.
        for (statuses, is_heeded) in [wanted, (&[202], false), (&[400, 400, 202], false), (&[202, 202], false)] {
            let pulled = bench.pull(Mode::Bulk).await;
            pulled.is_the_truth();
            assert_eq!(kick_offs(&pulled), statuses, "{spelling:?}");
            assert_eq!(pulled.outcome.received["Observation"] == all, !is_heeded, "{spelling:?}: {} of {all}", pulled.outcome.received["Observation"]);
            let first = pulled.requests.iter().find(|seen| seen.target.contains("$export")).unwrap();
            assert_eq!(first.target.matches("_type=").count(), 1);
            assert!(first.target.contains("_typeFilter=Observation%3Fcode%3D") && first.target.contains(comma), "{}", first.target);
            digests.insert(pulled.digest);
            bench.pass(Duration::from_secs(3600));
        }
    }
    // A server that reads the comma otherwise finds nothing, and is asked by search; and a search finds the same.
    let misread = narrowed(&[], TypeFilter::Escaped).await.pull(Mode::Bulk).await;
    misread.is_the_truth();
    assert!(misread.begun("Observation") > 0);
    let searched = narrowed(&[], TypeFilter::Off).await.pull(Mode::Search).await;
    searched.is_the_truth();
    digests.extend([misread.digest, searched.digest]);
    assert_eq!(digests.len(), 1, "every way ends in the same snapshot");
}

#[tokio::test]
async fn filters_that_are_switched_on_are_no_sudden_loss_and_too_long_ones_are_not_sent() {
    let mut bench = narrowed(&[], TypeFilter::Off).await;
    let everything = bench.pull(Mode::Bulk).await;
    assert!(everything.outcome.complete && everything.outcome.new_versions > 0);
    bench.options.type_filter = TypeFilter::Encoded;
    let pulled = bench.pull(Mode::Bulk).await;
    pulled.is_the_truth();
    assert!(pulled.outcome.removed * 2 > everything.outcome.received["Observation"], "{}", pulled.outcome.removed);
    bench
        .needs
        .last_mut()
        .unwrap()
        .codes
        .extend((0..30).map(|number| format!("http://nobody.example/{}|{number}", "x".repeat(60))));
    let pulled = bench.pull(Mode::Bulk).await;
    pulled.is_the_truth();
    assert_eq!((pulled.count("$export"), pulled.count("_typeFilter")), (1, 0));
}

#[tokio::test]
async fn q_45_what_an_export_leaves_out_is_read_by_reference_each_once() {
    let mut bench = swift(&["q_45"]).await;
    bench.options.requests_at_once = 1;
    let pulled = bench.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled), [202], "it is not asked for what it refuses");
    let mut asked: Vec<String> = Vec::new();
    for seen in pulled.requests.iter().filter(|seen| seen.target.contains("_id=")) {
        let query = seen.target.split_once('?').unwrap().1;
        let ids = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "_id").unwrap().1.into_owned();
        asked.extend(ids.split(',').map(|id| format!("{} {id}", seen.target.split('?').next().unwrap())));
    }
    let distinct: BTreeSet<&String> = asked.iter().collect();
    assert!(asked.len() > 4 && distinct.len() == asked.len(), "{asked:?}");
    for name in ["Location", "Device", "Encounter"] {
        assert!(asked.iter().any(|one| one.starts_with(&format!("/fhir/{name} "))), "{name}: {asked:?}");
    }
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_46_a_group_export_that_drops_updates_or_everything_is_noticed_by_its_members() {
    let mut bench = swift(&["q_46"]).await;
    bench.options.group = "all".to_owned();
    let first = bench.pull(Mode::Bulk).await;
    assert!(first.begun("Patient") > 0, "members who did not come are asked for");
    first.is_the_truth();
    bench.pass(Duration::from_secs(3600));
    bench.hospital.amend_at(3, bench.clock.now());
    let second = bench.pull(Mode::Bulk).await;
    assert!(!second.outcome.full && second.outcome.new_versions > 0, "{:?}", second.outcome);
    assert!(second.begun("Observation") > 0 && second.outcome.received["Patient"] > 0, "some changes came, and those of the others are asked for");
    let unseen: Vec<_> = second.differences.iter().filter(|difference| difference.what != What::Extra).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[tokio::test]
async fn q_46_what_a_search_for_members_brings_of_others_is_not_stored() {
    // Searches of Condition do not heed `patient`.
    let bench = of_group(&["q_46", "r_03"], Serving::default()).await.swift();
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(pulled.begun("Condition") > 0, "members who did not come are asked for");
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_46_where_search_is_refused_too_the_loss_is_named_and_the_cursor_waits() {
    let refuse = |path: &str| Fault::Status { path: format!("/fhir/{path}"), status: 403, retry_after: None, times: u32::MAX };
    let faults = vec![refuse("Observation"), refuse("Encounter"), refuse("Condition"), refuse("Procedure"), refuse("DeviceUseStatement")];
    let mut bench = Bench::serving(&["q_46"], Serving { faults, ..Serving::default() }).await.swift();
    bench.options.group = "all".to_owned();
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(!pulled.differences.is_empty() && pulled.has_gap("of members left out"), "{:?}", pulled.outcome.gaps);
    pulled.is_the_truth_or_says_what_is_not();
}

#[tokio::test]
async fn q_82_an_export_of_changes_that_brings_everything_is_told_of() {
    for group in ["", "ibd"] {
        for (quirks, is_told) in [(["q_82"].as_slice(), true), (&[], false)] {
            let mut bench = if group.is_empty() { Bench::new(quirks).await } else { of_group(quirks, Serving::default()).await };
            bench.options.group = group.to_owned();
            // Some have no device and had no operation.
            assert!(bench.pull(Mode::Bulk).await.outcome.notes.iter().all(|note| note.code == Code::Empty), "everything was asked for");
            bench.hospital.amend(3);
            let night = bench.pull(Mode::Bulk).await;
            assert!(!night.outcome.full);
            night.is_the_truth();
            let told: Vec<&str> = night.outcome.notes.iter().filter(|note| note.code == Code::Unheeded).map(|note| note.reason.as_str()).collect();
            let expected = "the export was asked for what has changed, and brought everything of ";
            assert_eq!(told.len() == 1 && told[0].starts_with(expected) && told[0].contains("Observation, Patient"), is_told, "`{group}`: {told:?}");
        }
    }
}

#[tokio::test]
async fn q_47_copies_within_and_across_files_count_once_the_newest_of_them() {
    let bench = swift(&["q_47"]).await;
    let pulled = bench.pull(Mode::Bulk).await;
    let resources = bench.running.resources().iter().filter(|(resource_type, ..)| resource_type == "Observation").count() as u64;
    assert_eq!(pulled.outcome.received["Observation"], 6 * resources);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_48_blank_lines_are_nothing() {
    let pulled = swift(&["q_48"]).await.pull(Mode::Bulk).await;
    assert!(pulled.held.is_empty());
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_49_a_line_that_cannot_be_read_is_held_with_its_place_and_the_data_are_partial() {
    let pulled = swift(&["q_49"]).await.pull(Mode::Bulk).await;
    assert!(pulled.held.len() > 5 && !pulled.outcome.complete);
    for item in &pulled.held {
        assert!(item.source.starts_with("export file ") && item.entry % 10 == 5, "{item:?}");
        assert_eq!(item.reason, "not one JSON object in UTF-8");
    }
    assert_eq!(pulled.differences.len(), pulled.held.len(), "one resource each");
    assert!(!format!("{:?}", pulled.held).contains("canary"));
    pulled.is_the_truth_or_says_what_is_not();
}

#[tokio::test]
async fn q_49_what_vanished_while_lines_waited_goes_once_they_are_discarded() {
    let bench = swift(&["q_49"]).await;
    bench.pull(Mode::Bulk).await;
    bench.hospital.vanish("Observation", 5);
    let waiting = bench.pull(Mode::Bulk).await;
    assert!(!waiting.outcome.complete && waiting.outcome.removed == 0, "{:?}", waiting.outcome);
    let discard = |item: &quarantine::Item| bench.store.with(|connection| quarantine::decide(connection, item.id, quarantine::State::Discarded)).unwrap();
    waiting.held.iter().for_each(discard);
    let decided = bench.pull(Mode::Bulk).await;
    assert!(decided.outcome.complete && decided.outcome.full && decided.held.is_empty(), "{:?}", decided.outcome);
    assert!(
        !decided.differences.is_empty() && decided.differences.iter().all(|one| one.what == What::Missing),
        "what was discarded, and nothing else: {:?}",
        decided.differences
    );
}

#[tokio::test]
async fn q_50_a_file_that_breaks_off_or_is_short_is_fetched_again() {
    let pulled = Bench::new(&["q_50"]).await.pull(Mode::Bulk).await;
    let files: BTreeSet<&str> = pulled.requests.iter().map(|seen| seen.target.as_str()).filter(|target| target.contains("/export-file/")).collect();
    assert!(files.len() > 5);
    assert_eq!(pulled.count("/export-file/"), 4 * files.len(), "three times spoiled, once whole");
    pulled.is_the_truth();
}

#[tokio::test]
async fn files_of_which_none_is_to_be_had_are_searched_for_or_the_way_to_that_is_said() {
    for status in [403, 409] {
        let refused = Fault::Status { path: "/export-file/".to_owned(), status, retry_after: None, times: u32::MAX };
        let bench = Bench::serving(&[], Serving { faults: vec![refused], ..Serving::default() }).await.swift();
        let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("refused a file with status {status}")) && error.contains("`source.mode = \"bulk\"` allows no search in its place, `\"auto\"` does"),
            "{error}"
        );
        let pulled = bench.pull(Mode::Auto).await;
        pulled.is_the_truth();
        assert!(pulled.begun("Observation") > 0);
    }
}

#[tokio::test]
async fn q_51_a_file_half_written_in_a_crash_is_not_seen_by_anybody() {
    // The last file never comes to its end before the kill.
    let slow = Fault::Slow { path: "/export-file/".to_owned(), delay: Duration::from_millis(40) };
    let mut bench = Bench::serving(&[], Serving { faults: vec![slow], export_file_resources: 60, ..Serving::default() }).await.swift();
    bench.options.requests_at_once = 1;
    let fetched = std::cell::Cell::new(0);
    bench
        .pull_until(Mode::Bulk, |seen| {
            fetched.set(fetched.get() + usize::from(seen.target.contains("/export-file/")));
            fetched.get() > 40
        })
        .await;
    let staged = bench.files_in("staging");
    assert!(!staged.is_empty(), "something was under way");
    assert_eq!((bench.snapshot().latest().unwrap(), bench.snapshot().counts().unwrap().len()), (None, 0), "nobody sees any of it");
    for path in staged {
        let mut half = std::fs::read(&path).unwrap();
        half.truncate(half.len() / 2);
        if !bench.is_done(&path) {
            std::fs::write(&path, half).unwrap();
        }
    }
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(kick_offs(&pulled).is_empty());
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_52_a_count_that_differs_makes_the_export_partial_and_unasked_types_are_set_aside() {
    let pulled = swift(&["q_52"]).await.pull(Mode::Bulk).await;
    assert_eq!(pulled.differences, [], "everything is there");
    assert!(pulled.held.is_empty());
    let types: BTreeSet<&str> = pulled.outcome.gaps.iter().map(|gap| gap.resource_type.as_str()).collect();
    assert_eq!(types, ["Condition", "Procedure"].into(), "{:?}", pulled.outcome.gaps);
    assert!(pulled.outcome.gaps.iter().all(|gap| gap.reason.contains("the manifest announced")));
    assert_eq!(pulled.count("provenance"), 0, "what nobody asked for is not even fetched");
}

#[tokio::test]
async fn q_53_two_hundred_thousand_deletions_stream_through() {
    let bench = swift(&["q_53"]).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    bench.pass(Duration::from_secs(3600));
    bench.hospital.amend_at(3, bench.clock.now());
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(pulled.count("churn") == 1 && pulled.outcome.removed > 0 && pulled.outcome.removed < 100, "{:?}", pulled.outcome);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_54_failures_for_minutes_are_sat_out_and_then_the_data_are_partial() {
    let bench = swift(&["q_54"]).await;
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(pulled.requests.len() < 120, "with growing waits: {} requests", pulled.requests.len());
    pulled.is_the_truth();
    let (before, digest) = (bench.passed(), pulled.digest);
    bench.hospital.amend_at(3, bench.clock.now());
    let error = bench.try_pull(Mode::Bulk).await;
    let reason = match error {
        Ok(pulled) => {
            pulled.is_the_truth_or_says_what_is_not();
            format!("{:?}", pulled.outcome.gaps)
        }
        Err(error) => error.to_string(),
    };
    assert!(reason.contains("refused a file with status 50"), "{reason}");
    assert!(bench.passed() - before >= Duration::from_secs(15 * 60), "a quarter of an hour at least");
    assert_eq!(bench.snapshot().digest().unwrap(), digest);
}

#[tokio::test]
async fn q_55_a_connection_dropped_before_the_answer_is_tried_again() {
    let pulled = swift(&["q_55"]).await.pull(Mode::Bulk).await;
    assert_eq!(kick_offs(&pulled), [202, 202], "the first one's fate is unknown");
    pulled.is_the_truth();
    swift(&["q_55"]).await.pull(Mode::Search).await.is_the_truth();
}

#[tokio::test]
async fn q_56_a_plain_404_is_shown_with_its_status_and_origin_and_without_its_body() {
    let bench = swift(&["q_56"]).await;
    let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
    let origin = bench.running.base_url.strip_suffix("/fhir").unwrap();
    assert!(error.contains(&format!("{origin} refused the export `Patient/$export` with status 404")), "{error}");
    assert!(!error.contains("canary") && !error.contains("Jane"), "{error}");
}

#[tokio::test]
async fn q_57_the_status_address_may_be_relative_and_is_elsewhere_only_if_allowed() {
    let mut bench = Bench::serving(&["q_57"], Serving { export_jobs_max: 20, ..Serving::default() }).await.swift();
    for turn in 1..=4 {
        let pulled = bench.pull(Mode::Bulk).await;
        assert_eq!(kick_offs(&pulled), [202], "{turn}");
        pulled.is_the_truth();
    }
    let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
    assert!(error.contains("the export's status is at http://127.0.0.1:") && error.contains("`source.token_origins`"), "{error}");
    assert!(!bench.running.requests().iter().any(|seen| seen.elsewhere), "nothing was asked there");
    bench.options.token_origins = vec![bench.running.elsewhere_url.clone()];
    let error = bench.try_pull(Mode::Bulk).await.unwrap_err().to_string();
    let there: Vec<bool> = bench.running.requests().iter().filter(|seen| seen.elsewhere).map(|seen| seen.authorized).collect();
    assert!(!there.is_empty() && there.iter().all(|authorized| *authorized), "it is asked there, with the token ({error})");
}
