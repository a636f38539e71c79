//! Quirks of authentication and discovery.

use super::bench::Bench;
use watershed::sandbox::Fault;
use watershed::sandbox::server::Options as Serving;
use watershed::source::Mode;

#[tokio::test]
async fn q_02_a_token_that_ends_in_the_middle_is_renewed_and_the_request_repeated() {
    for mode in [Mode::Search, Mode::Bulk] {
        let serving = Serving { export_file_resources: 20, ..Serving::default() };
        let pulled = Bench::serving(&["q_02"], serving).await.pull(mode).await;
        let refused = pulled.requests.iter().filter(|seen| seen.status == 401).count();
        assert!(refused > 0 && pulled.count("/token") > 1, "{mode:?}: {refused} refusals, {} tokens", pulled.count("/token"));
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn q_02_a_second_refusal_of_the_same_request_ends_it() {
    let fault = Fault::Status { path: "/Condition".to_owned(), status: 401, retry_after: None, times: u32::MAX };
    let pulled = Bench::serving(&[], Serving { faults: vec![fault], ..Serving::default() }).await.pull(Mode::Search).await;
    assert_eq!(pulled.count("/Condition"), 2, "once, and once more with a new token");
    assert!(pulled.has_gap("the server answered 401"), "{:?}", pulled.outcome.gaps);
    pulled.is_the_truth_or_says_what_is_not();
}

#[tokio::test]
async fn q_10_a_redirect_to_a_file_store_is_followed_without_the_token() {
    let pulled = Bench::new(&["q_10"]).await.pull(Mode::Bulk).await;
    assert!(pulled.requests.iter().filter(|seen| seen.elsewhere && seen.status == 200).count() > 5);
    assert!(!pulled.token_went_elsewhere());
    pulled.is_the_truth();
}
