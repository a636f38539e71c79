//! Quirks of search.

use super::bench::Bench;
use watershed::source::Mode;

#[tokio::test]
async fn q_17_relative_next_links_are_followed() {
    let pulled = Bench::new(&["q_17"]).await.pull(Mode::Search).await;
    assert!(pulled.count("_page=") > 3);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_26_paging_that_leads_back_to_its_beginning_ends_in_a_gap_after_few_requests() {
    let pulled = Bench::new(&["q_26"]).await.pull(Mode::Search).await;
    assert!(pulled.has_gap("the server repeats a page"), "{:?}", pulled.outcome.gaps);
    assert!(pulled.requests.len() < 60, "{} requests", pulled.requests.len());
    pulled.is_the_truth_or_says_what_is_not();
}

#[tokio::test]
async fn q_27_empty_pages_with_a_next_one_are_passed_over() {
    let pulled = Bench::new(&["q_27"]).await.pull(Mode::Search).await;
    assert!(pulled.count("_second=1") > 3);
    pulled.is_the_truth();
}
