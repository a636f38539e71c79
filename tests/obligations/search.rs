//! FHIR search and HTTP.

use super::bench::Bench;
use watershed::source::Mode;

#[tokio::test]
async fn r_02_relative_links_count_from_the_address_that_answered() {
    let pulled = Bench::new(&["q_17"]).await.pull(Mode::Search).await;
    assert!(pulled.count("_page=") > 0);
    assert!(pulled.requests.iter().all(|seen| seen.status != 404), "a link was resolved against something else");
    pulled.is_the_truth();
}
