//! Quirks of change, deletion and identity.

use super::bench::{Bench, What};
use super::nights::{by_month, reports};
use crate::bed::{Bed, Wanted};
use watershed::sandbox::request::Seen;
use watershed::source::Mode;
use watershed::source::probe::{Fact, Found};

/// Corrects some Observations of a code: there are as many as before, so that nobody's number tells.
fn correct(bench: &Bench, code: &str, milliseconds: i64) {
    let at = bench.clock.now() + jiff::SignedDuration::from_millis(milliseconds);
    bench.hospital.recode("Observation", 12, code, "another", at);
}

/// Observations cannot be asked for by their ids.
fn without_ids() -> Vec<Fact> {
    let (about, what) = ("Observation".to_owned(), "_id".to_owned());
    vec![Fact { about, what, declared: Some(true), found: Found::Ignored, detail: String::new() }]
}

#[tokio::test]
async fn q_58_rows_that_become_visible_late_are_found_the_next_night() {
    // Without the overlap they would not be.
    for (mode, overlap) in [(Mode::Search, 10), (Mode::Bulk, 10), (Mode::Bulk, 0)] {
        // Where samples can be had, they are found the same night.
        let mut bench = Bench::new(&["q_58", "q_79"]).await;
        bench.facts = without_ids();
        bench.options.overlap_minutes = overlap;
        for _ in 0..3 {
            bench.pull(mode).await.is_the_truth();
        }
        // Of the first changes some are late, when all that is seen of the second ones is newer.
        correct(&bench, "1988-5", 1);
        correct(&bench, "pga", 20);
        let second = bench.pull(mode).await;
        assert!(!second.missing_or_changed().is_empty(), "{mode:?}: not everything is to be seen yet");
        let third = bench.pull(mode).await;
        assert!(!third.outcome.full);
        assert_eq!(third.missing_or_changed().is_empty(), overlap > 0, "{mode:?}, {overlap} minutes: {:?}", third.missing_or_changed());
    }
}

#[tokio::test]
async fn q_59_where_times_run_backwards_versions_decide_and_the_cursor_waits() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_59"]).await;
        let first = bench.pull(mode).await;
        first.is_the_truth();
        for seed in [11, 12, 13] {
            bench.hospital.amend(seed);
            let next = bench.pull(mode).await;
            assert!(!next.outcome.full && next.outcome.new_versions > 0, "{mode:?}");
            assert_eq!(next.missing_or_changed(), Vec::<&super::bench::Difference>::new(), "{mode:?}: an older version stands");
        }
    }
}

#[tokio::test]
async fn q_60_without_times_of_change_everything_is_read_again() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_60"]).await;
        let first = bench.pull(mode).await;
        first.is_the_truth();
        bench.hospital.amend(11);
        let second = bench.pull(mode).await;
        assert!(second.outcome.full && second.outcome.new_versions > 0 && second.outcome.new_versions < first.outcome.new_versions / 2, "{mode:?}");
        let by_time = second
            .requests
            .iter()
            .filter(|seen| ["_lastUpdated=", "_since="].iter().any(|name| seen.target.contains(name) || seen.body.contains(name)));
        assert_eq!(by_time.count(), 0, "{mode:?}: not asked for what the server cannot answer");
        second.is_the_truth();
    }
}

#[tokio::test]
async fn q_61_a_time_that_is_always_the_same_is_no_time_of_change() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_61"]).await;
        let first = bench.pull(mode).await;
        first.is_the_truth();
        let second = bench.pull(mode).await;
        assert_eq!((second.outcome.full, second.outcome.new_versions), (true, 0), "{mode:?}: read again, and nothing has changed");
        bench.hospital.amend(11);
        let third = bench.pull(mode).await;
        assert!(third.outcome.new_versions > 0 && third.outcome.new_versions < first.outcome.new_versions / 2, "{mode:?}: {}", third.outcome.new_versions);
        third.is_the_truth();
    }
}

#[tokio::test]
async fn q_62_neither_a_stale_copy_nor_data_from_the_future_move_the_cursor_past_the_truth() {
    for mode in [Mode::Search, Mode::Bulk] {
        // Where samples can be had, they are found the same night.
        let mut bench = Bench::new(&["q_62", "q_79"]).await;
        bench.facts = without_ids();
        for _ in 0..3 {
            bench.pull(mode).await.is_the_truth();
        }
        for code in ["1988-5", "pga"] {
            correct(&bench, code, 1);
            // The copy's clock says that it is an hour later, and the copy does not have the change yet.
            // Beside an export that is silent of a type a search may find it.
            let stale = bench.pull(mode).await;
            assert!(!stale.missing_or_changed().is_empty() || matches!(mode, Mode::Bulk), "{mode:?}");
            let next = bench.pull(mode).await;
            assert!(!next.outcome.full, "{mode:?} {:?}", next.outcome.gaps);
            assert_eq!(next.missing_or_changed(), Vec::<&super::bench::Difference>::new(), "{mode:?}");
        }
    }
}

#[tokio::test]
async fn q_63_deletions_announced_or_not_end_in_removal() {
    for (quirks, mode) in [(&[][..], Mode::Bulk), (&["q_63"], Mode::Search), (&[], Mode::Search)] {
        let mut bench = Bench::new(quirks).await;
        bench.pull(mode).await.is_the_truth();
        bench.hospital.amend(11);
        let second = bench.pull(mode).await;
        let is_clean = second.differences.iter().all(|difference| difference.resource_type == "Device");
        assert_eq!((is_clean, second.outcome.full), (true, false), "{quirks:?} {mode:?}: {:?}", second.differences);
        assert!(second.outcome.complete, "an entry without a resource is no harm: {:?}", second.held);
        // What is referred to no more is found when everything is read.
        bench.options.tuning.full_every_days = 0;
        let third = bench.pull(mode).await;
        assert!(third.outcome.full, "{quirks:?} {mode:?}");
        third.is_the_truth();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_63_a_deletion_restates_the_months_it_touches() {
    let bed = Bed::make(Wanted { mode: "bulk", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let (first, truth) = (bed.registry(), by_month(&bed.hospital.truth()));
    assert_eq!(reports(&bed).await, truth);
    bed.hospital.amend(11);
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let (second, restated) = (bed.registry(), by_month(&bed.hospital.truth()));
    assert_ne!(restated, truth, "the change matters");
    assert_eq!(reports(&bed).await, restated);
    assert!(second.feeds == 2 && second.revisions > first.revisions && second.current.len() == first.current.len());
}

#[tokio::test]
async fn q_64_members_who_join_or_leave_are_counted_from_that_night_and_merged_ones_once() {
    let mut bench = Bench::new(&[]).await;
    bench.options.group = "all".to_owned();
    let everybody = bench.hospital.patients();
    let (two, rest) = everybody.split_at(2);
    bench.hospital.regroup("all", rest, bench.clock.now());
    let stored = |bench: &Bench| bench.snapshot().patient_ids().unwrap().into_iter().collect::<std::collections::BTreeSet<String>>();
    bench.pull(Mode::Search).await;
    assert_eq!(stored(&bench), rest.iter().cloned().collect());
    // They join, with all that was ever written of them.
    bench.hospital.regroup("all", &everybody, bench.clock.now());
    let joined = bench.pull(Mode::Search).await;
    assert!(!joined.outcome.full);
    joined.is_the_truth();
    // They leave, and nothing of them stays.
    bench.hospital.regroup("all", rest, bench.clock.now());
    let left = bench.pull(Mode::Search).await;
    assert!(!left.outcome.full && left.outcome.complete && left.outcome.removed > 2);
    assert!(left.differences.iter().all(|difference| difference.what == What::Missing));
    assert!(bench.lines().iter().all(|line| two.iter().all(|id| !line.contains(&format!("Patient/{id}\"")))));
    // Two are found to be one person: the other's history is the survivor's now.
    let (survivor, merged) = (rest[0].clone(), rest[1].clone());
    let of = |bench: &Bench, id: &str| bench.lines().iter().filter(|line| line.contains(&format!("\"Patient/{id}\""))).count();
    let before = of(&bench, &survivor) + of(&bench, &merged);
    bench.hospital.merge(&survivor, &merged);
    let after = bench.pull(Mode::Search).await;
    assert!(!after.outcome.full && after.outcome.complete);
    // The two links are references too, of which the merged patient's own record is gone.
    assert_eq!((of(&bench, &survivor), stored(&bench).contains(&merged)), (before, false));
    // A Group that suddenly names few is not believed.
    bench.hospital.regroup("all", &rest[..3], bench.clock.now());
    let doubted = bench.pull(Mode::Search).await;
    assert!(doubted.has_gap("the Group names 3 members where") || stored(&bench).len() < 20, "{:?}", doubted.outcome.gaps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_64_a_merged_pair_is_one_person_in_every_report() {
    let bed = Bed::make(Wanted { mode: "bulk", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let (code, said) = bed.run().await;
    assert!(code == 0 && said.contains("40 patients"), "{said}");
    let patients = bed.hospital.patients();
    bed.hospital.merge(&patients[0], &patients[1]);
    let (code, said) = bed.run().await;
    assert!(code == 0 && said.contains("39 patients"), "{said}");
    assert_eq!(bed.registry().current.len(), 12, "restated, not added");
}

#[tokio::test]
async fn q_65_a_patient_listed_twice_is_asked_for_and_kept_once() {
    let mut bench = Bench::new(&["q_65"]).await;
    bench.options.group = "all".to_owned();
    let pulled = bench.pull(Mode::Search).await;
    pulled.is_the_truth();
    let of_conditions = |seen: &&Seen| seen.target.starts_with("/fhir/Condition") && !seen.target.contains("_page=");
    let asked = pulled.requests.iter().filter(of_conditions).map(|seen| format!("{} {}", seen.target, seen.body));
    // Trials of lists want one row.
    let asked: Vec<String> = asked.filter(|asked| !asked.contains("_summary=") && !asked.ends_with("_count=1")).collect();
    for patient in bench.hospital.patients() {
        assert_eq!(asked.iter().map(|target| target.matches(&patient).count()).sum::<usize>(), 1, "{patient}: {asked:?}");
    }
    assert_eq!(bench.snapshot().counts().unwrap()["Patient"], bench.hospital.patients().len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_65_a_patient_listed_twice_is_counted_once() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, quirks: vec!["q_65"], group: "all", ..Wanted::default() }).await;
    let (code, said) = bed.run().await;
    assert!(code == 0 && said.contains("40 patients, data complete"), "{said}");
    assert_eq!(reports(&bed).await, by_month(&bed.hospital.truth()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_66_events_that_come_twice_have_one_effect() {
    let bed = Bed::make(Wanted { mode: "bulk", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let once = bed.registry();
    // The same pull, the same night, the same delivery, and the night once more.
    for arguments in [&["pull"][..], &["run", "--once", "--as-of", crate::bed::AS_OF], &["deliver"], &["run", "--once", "--as-of", crate::bed::AS_OF]] {
        let said = crate::bed::output(bed.command(arguments)).await;
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    }
    let again = bed.registry();
    assert_eq!((again.feeds, again.revisions, &again.current), (once.feeds, once.revisions, &once.current));
    assert_eq!(bed.outbox().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q_67_a_site_that_sends_again_is_counted_once_in_every_total() {
    let bed = Bed::make(Wanted { mode: "bulk", limit: u64::MAX, patients: 40, ..Wanted::default() }).await;
    for seed in [11, 12, 13] {
        let (code, said) = bed.run().await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(reports(&bed).await, by_month(&bed.hospital.truth()));
        let held = bed.registry();
        let places: std::collections::BTreeSet<(&str, &str)> = held.current.iter().map(|(measure, month, _)| (measure.as_str(), month.as_str())).collect();
        assert_eq!((held.current.len(), places.len()), (12, 12), "one current revision of each measure and month");
        bed.hospital.amend(seed);
    }
    // The site loses its state and sends everything anew: as a new feed, it replaces what was there.
    std::fs::remove_dir_all(bed.folder.path().join("data")).unwrap();
    let before = bed.registry();
    let (code, said) = bed.run().await;
    assert_eq!(bed.registry().current.len(), before.current.len(), "{code} {said}");
}
