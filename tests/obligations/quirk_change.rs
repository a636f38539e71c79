//! Quirks of change, deletion and identity.

use super::bench::Bench;
use watershed::source::Mode;

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
