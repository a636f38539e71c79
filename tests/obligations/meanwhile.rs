//! What happens at a hospital while its data are read is in that night's numbers, or the ledger names it.

use super::bench::Bench;
use watershed::source::Mode;

#[tokio::test]
async fn q_83_what_is_edited_while_everything_is_read_is_in_that_nights_numbers() {
    let bench = Bench::new(&["q_83"]).await;
    let first = bench.pull(Mode::Search).await;
    assert!(first.outcome.complete, "{:?}", first.outcome.gaps);
    first.is_the_truth();
    bench.pull(Mode::Search).await.is_the_truth();
}

#[tokio::test]
async fn q_84_what_is_on_neither_of_two_pages_is_found_the_same_night() {
    // Of few pages all is read again, of many the times in which the numbers differ.
    for page_size in [50, 5] {
        let mut bench = Bench::new(&["q_84"]).await;
        bench.options.page_size = page_size;
        let first = bench.pull(Mode::Search).await;
        assert!(first.outcome.complete, "{:?}", first.outcome.gaps);
        first.is_the_truth();
        bench.pull(Mode::Search).await.is_the_truth();
    }
}

#[tokio::test]
async fn q_85_what_came_as_a_change_and_is_gone_before_it_is_counted_is_not_kept() {
    let bench = Bench::new(&["q_85"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    bench.hospital.relabel("Encounter", 3, jiff::Timestamp::now());
    let night = bench.pull(Mode::Search).await;
    assert!(night.outcome.complete && !night.outcome.full, "{:?}", night.outcome.gaps);
    night.is_the_truth();
    bench.pull(Mode::Search).await.is_the_truth();
}
