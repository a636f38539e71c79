//! Quirks of the life of an export.

use super::bench::Bench;
use watershed::source::Mode;

#[tokio::test]
async fn q_50_a_file_that_breaks_off_or_is_short_is_fetched_again() {
    let pulled = Bench::new(&["q_50"]).await.pull(Mode::Bulk).await;
    let files: std::collections::BTreeSet<&str> = pulled.requests.iter().map(|seen| seen.target.as_str()).filter(|target| target.contains("/export-file/")).collect();
    assert!(files.len() > 5);
    assert_eq!(pulled.count("/export-file/"), 4 * files.len(), "three times spoiled, once whole");
    pulled.is_the_truth();
}
