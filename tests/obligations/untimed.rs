//! Types that are not searched by times of change, beside others that are: these are read whole each night, and only these.

use super::bench::{Bench, untimed};
use watershed::sandbox::server::Options as Serving;
use watershed::source::Mode;
use watershed::source::duty::Code;

/// A site where Encounter is such a type, after its first night.
async fn site(group: &str, quirks: &[&str]) -> Bench {
    let mut bench = Bench::serving(quirks, Serving::default()).await;
    bench.facts = vec![untimed("Encounter")];
    (bench.options.group, bench.options.page_size) = (group.to_owned(), 20);
    let first = bench.pull(Mode::Search).await;
    assert!(first.outcome.full);
    first.is_the_truth();
    bench
}

#[tokio::test]
async fn q_88_what_has_no_times_of_change_is_read_whole_each_night_and_nothing_else_is() {
    for group in ["", "all"] {
        // Where the server says that it ignores them, too.
        for quirks in [&[][..], &["r_03"]] {
            let bench = site(group, if group.is_empty() { quirks } else { &[] }).await;
            let stored = bench.snapshot().counts().unwrap();
            let quiet = bench.pull(Mode::Search).await;
            quiet.is_the_truth();
            assert_eq!((quiet.outcome.full, quiet.outcome.new_versions, quiet.outcome.removed, quiet.held.len()), (false, 0, 0, 0));
            let received = |name: &str| quiet.outcome.received.get(name).copied().unwrap_or_default();
            assert_eq!(received("Encounter"), stored["Encounter"], "`{group}`");
            assert!(["Condition", "Observation", "Patient"].iter().all(|name| received(name) < stored[*name] / 2), "`{group}`: {:?}", quiet.outcome.received);
            let notes: Vec<_> = quiet.outcome.notes.iter().filter(|note| note.resource_type == "Encounter").collect();
            assert!(notes.is_empty(), "nothing of it is overlooked: {notes:?}");

            // What changes, vanishes or slips in of it is in the next night's data; of the others it is found as ever.
            bench.hospital.amend_at(11, bench.clock.now());
            bench.hospital.vanish("Encounter", 3);
            bench.hospital.slip_in("Encounter", 2, "2025-12-01T12:00:00Z".parse().unwrap());
            bench.hospital.vanish("Observation", 1);
            let night = bench.pull(Mode::Search).await;
            assert!(!night.outcome.full && night.outcome.removed >= 4, "`{group}`: {:?}", night.outcome);
            let differing: Vec<_> = night.differences.iter().filter(|difference| difference.resource_type != "Device").collect();
            assert!(differing.is_empty() && night.outcome.complete, "`{group}`: {differing:?} {:?}", night.outcome.gaps);
        }
    }
}

#[tokio::test]
async fn q_88_a_sudden_loss_of_it_is_not_believed_and_the_next_night_reads_everything() {
    let bench = site("", &[]).await;
    let stored = bench.snapshot().counts().unwrap();
    bench.hospital.vanish("Encounter", stored["Encounter"] as usize * 2 / 3);
    let night = bench.pull(Mode::Search).await;
    let gaps: Vec<(&str, Code)> = night.outcome.gaps.iter().map(|gap| (gap.resource_type.as_str(), gap.code)).collect();
    assert_eq!((night.outcome.full, night.outcome.removed, gaps), (false, 0, vec![("Encounter", Code::Loss)]));
    assert!(bench.pull(Mode::Search).await.outcome.full);
}

#[tokio::test]
async fn q_88_where_no_patient_comes_at_all_none_is_let_go() {
    // Fewer than a volume is held against.
    let mut bench = Bench::of(6, &[], Serving::default()).await;
    bench.facts = vec![untimed("Patient")];
    bench.pull(Mode::Search).await.is_the_truth();
    bench.hospital.vanish("Patient", 6);
    let night = bench.pull(Mode::Search).await;
    assert_eq!((night.outcome.full, night.outcome.removed), (false, 0));
    assert!(night.outcome.gaps.iter().any(|gap| gap.code == Code::NoPatients), "{:?}", night.outcome.gaps);
}

#[tokio::test]
async fn q_88_a_night_that_is_killed_and_gone_on_with_lets_go_what_one_at_a_stretch_does() {
    let amended = async || {
        let mut bench = site("", &[]).await.on_disk();
        bench.pull(Mode::Search).await.is_the_truth();
        bench.options.page_size = 5;
        bench.hospital.amend_at(11, "2026-12-01T00:00:00Z".parse().unwrap());
        bench.hospital.vanish("Encounter", 3);
        bench
    };
    let (wakes, calm) = amended().await.pull_for(Mode::Search, u64::MAX).await;
    let calm = calm.unwrap();
    let mut bench = amended().await;
    let (killed, night) = bench.pull_killed(Mode::Search, wakes, 1).await;
    assert!(killed > 3 && !night.outcome.full && night.outcome.removed > 2, "killed {killed} times");
    assert_eq!((night.digest, night.outcome.complete), (calm.digest, true), "{:?}", night.outcome.gaps);
}

#[tokio::test]
async fn q_88_where_nothing_has_times_of_change_everything_is_read() {
    let mut bench = Bench::new(&[]).await;
    bench.facts = ["Patient", "Encounter", "Condition", "Observation", "Procedure", "DeviceUseStatement"].map(untimed).into();
    for _ in 0..2 {
        let night = bench.pull(Mode::Search).await;
        assert!(night.outcome.full);
        night.is_the_truth();
    }
}
