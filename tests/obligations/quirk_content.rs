//! Quirks of content.

use super::bench::{Bench, What};
use watershed::source::Mode;

#[tokio::test]
async fn q_71_a_resource_with_an_unknown_modifier_is_left_out_and_counted_and_other_vendor_content_is_not() {
    for mode in [Mode::Search, Mode::Bulk] {
        let bench = Bench::new(&["q_71"]).await;
        let pulled = bench.pull(mode).await;
        let marked = bench.running.resources().iter().filter(|(_, _, json)| json.contains("modifierExtension")).count();
        assert!(marked > 3);
        assert_eq!((pulled.held.len(), pulled.outcome.quarantined), (marked, marked as u64), "{mode:?}");
        assert!(pulled.held.iter().all(|item| item.reason == "a modifier that is not known here"), "{:?}", pulled.held.first());
        assert_eq!(pulled.differences.len(), marked);
        assert!(pulled.differences.iter().all(|one| one.what == What::Missing && one.resource_type == "Observation"));
        pulled.is_the_truth_or_says_what_is_not();
        assert!(!format!("{:?}", pulled.held).contains("Canary"));
    }
}
