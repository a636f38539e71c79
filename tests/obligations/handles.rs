//! Servers that forget the links to further pages of long lists.

use super::bench::{Bench, Pulled};
use super::quirk_search::of_group;
use std::collections::BTreeSet;
use watershed::sandbox::server::Options as Serving;
use watershed::source::Mode;
use watershed::source::duty::Code;
use watershed::source::probe::{Fact, Found, LINKS, SERVER, findings};

/// A site whose lists are long: some hundred pages of Observation.
fn with_long_lists(mut bench: Bench) -> Bench {
    (bench.options.page_size, bench.options.requests_at_once) = (2, 1);
    bench
}

/// Types of which it is told that links were forgotten.
fn told(pulled: &Pulled) -> usize {
    pulled.outcome.notes.iter().filter(|note| note.code == Code::Forgotten).count()
}

/// Resources that came, each once.
fn received(pulled: &Pulled) -> Vec<(&str, u64)> {
    pulled.outcome.received.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (name.as_str(), *count)).collect()
}

#[tokio::test]
async fn q_80_forgotten_links_lose_nothing_count_nothing_twice_and_cost_little() {
    // Numbers prove what came; where there are none, a stretch is read again.
    for (quirks, most) in [(vec!["q_80"], 150), (vec!["q_80", "q_30"], 200)] {
        let calm = with_long_lists(Bench::new(&quirks[1..]).await).pull(Mode::Search).await;
        calm.is_the_truth();
        let pulled = with_long_lists(Bench::new(&quirks).await).pull(Mode::Search).await;
        pulled.is_the_truth();
        assert_eq!((received(&pulled), told(&pulled)), (received(&calm), 1), "{quirks:?}");
        let (requests, without) = (pulled.requests.len(), calm.requests.len());
        assert!(requests * 100 < without * most, "{quirks:?}: {requests} requests, and {without} without");
    }
}

/// No time of change divides what was loaded at one instant: what has a patient is asked for by patient.
#[tokio::test]
async fn q_80_what_is_all_of_one_instant_is_read_by_patient() {
    let bench = Bench::new(&["q_80"]).await;
    let types = ["Patient", "Encounter", "Condition", "Observation", "Procedure", "DeviceUseStatement"];
    for name in types {
        let ids = bench.hospital.resources().into_iter().filter(|(own, ..)| own == name).map(|(_, id, _)| id).collect();
        bench.hospital.touch(name, &ids, "2026-02-01T12:00:00Z".parse().unwrap());
    }
    let mut bench = with_long_lists(bench);
    bench.options.page_size = 4;
    for night in 1..=2 {
        let pulled = bench.pull(Mode::Search).await;
        pulled.is_the_truth();
        let by_patient = |body: &str| body.starts_with("patient=") && !body.contains("_summary=");
        let lists = pulled.requests.iter().filter(|seen| seen.target == "/fhir/Observation/_search" && by_patient(&seen.body)).count();
        assert!(lists > 1, "night {night}: {lists} lists of patients");
    }
}

/// A pull in the middle of which charts are amended, and the one after it.
async fn amended_meanwhile(quirks: &[&str]) -> [Pulled; 2] {
    let site = async || with_long_lists(Bench::new(quirks).await.swift());
    let (wakes, _) = site().await.pull_for(Mode::Search, u64::MAX).await;
    let bench = site().await;
    let mut pulling = Box::pin(bench.pull_for(Mode::Search, u64::MAX));
    let mut woken = 0;
    let (_, pulled) = std::future::poll_fn(|context| {
        woken += 1;
        if woken == wakes / 2 {
            bench.hospital.amend_at(3, bench.clock.now());
        }
        pulling.as_mut().poll(context)
    })
    .await;
    drop(pulling);
    [pulled.unwrap(), bench.pull(Mode::Search).await]
}

#[tokio::test]
async fn q_80_what_is_entered_meanwhile_is_no_reason_to_read_all_again() {
    let [calm, calm_next] = amended_meanwhile(&[]).await;
    let [pulled, next] = amended_meanwhile(&["q_80"]).await;
    assert!(pulled.outcome.complete, "{:?}", pulled.outcome.gaps);
    // What vanished after it had come is found the next night, however small its type is.
    calm_next.is_the_truth();
    next.is_the_truth();
    assert!(pulled.requests.len() * 100 < calm.requests.len() * 140, "{} requests, and {} where nothing is forgotten", pulled.requests.len(), calm.requests.len());
}

#[tokio::test]
async fn q_80_a_night_that_is_killed_while_it_goes_on_ends_as_one_that_is_not() {
    let site = async |quirks: &[&str]| {
        let mut bench = with_long_lists(Bench::new(quirks).await.swift().on_disk());
        bench.options.tuning.pages_per_place = 3;
        bench
    };
    for quirks in [["q_80"].as_slice(), &["q_80", "q_30"]] {
        let (wakes, calm) = site(quirks).await.pull_for(Mode::Search, u64::MAX).await;
        let mut bench = site(quirks).await;
        let (killed, pulled) = bench.pull_killed(Mode::Search, wakes, 3).await;
        assert!(killed >= 2, "killed {killed} times");
        pulled.is_the_truth();
        assert_eq!(pulled.digest, calm.unwrap().digest, "{quirks:?}");
    }
}

#[tokio::test]
async fn q_80_a_night_with_few_requests_goes_on_in_the_next_from_where_links_are_forgotten_too() {
    let mut bench = with_long_lists(Bench::new(&["q_80"]).await);
    bench.options.requests_per_night = 60;
    let mut nights = 0;
    let pulled = loop {
        nights += 1;
        assert!(nights < 12, "it does not come to its end");
        if let Ok(pulled) = bench.try_pull(Mode::Search).await {
            break pulled;
        }
    };
    assert!(nights > 3, "{nights} nights");
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_80_of_a_group_no_patient_stands_in_an_address_for_a_forgotten_link() {
    for quirks in [["q_80"].as_slice(), &["q_80", "q_30"]] {
        let bench = with_long_lists(of_group(quirks, Serving::default()).await);
        let pulled = bench.pull(Mode::Search).await;
        pulled.is_the_truth();
        let named: BTreeSet<&str> = pulled.requests.iter().filter(|seen| seen.target.contains("patient=")).map(|seen| seen.target.as_str()).collect();
        assert_eq!((told(&pulled), named), (1, BTreeSet::new()), "{quirks:?}");
    }
}

#[tokio::test]
async fn q_81_where_nothing_comes_in_order_lists_are_read_in_parts_that_are_short_enough() {
    let site = async |quirks: &[&str]| {
        let mut bench = Bench::of(60, quirks, Serving::default()).await;
        (bench.options.page_size, bench.options.requests_at_once) = (5, 1);
        bench
    };
    let (calm, pulled) = (site(&[]).await.pull(Mode::Search).await, site(&["q_80", "q_81"]).await.pull(Mode::Search).await);
    pulled.is_the_truth();
    assert_eq!((received(&pulled), told(&pulled)), (received(&calm), 1));
    let (requests, without) = (pulled.requests.len(), calm.requests.len());
    assert!(requests * 10 < without * 22, "{requests} requests, and {without} without");
}

#[tokio::test]
async fn q_81_where_nothing_is_asked_by_times_larger_pages_are_asked_for() {
    let mut bench = with_long_lists(Bench::new(&["q_60", "q_80"]).await);
    bench.options.requests_at_once = 1;
    let pulled = bench.pull(Mode::Search).await;
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_80_a_server_that_is_known_for_it_is_asked_in_order_from_the_first_page_on() {
    let mut bench = with_long_lists(Bench::new(&["q_80"]).await);
    bench.facts = vec![Fact { about: SERVER.to_owned(), what: LINKS.to_owned(), declared: None, found: Found::Wrong, detail: String::new() }];
    let pulled = bench.pull(Mode::Search).await;
    pulled.is_the_truth();
    let begun = pulled.requests.iter().filter(|seen| seen.target.contains("&_count=") || seen.target.contains("?_count="));
    let sorted: BTreeSet<bool> = begun.filter(|seen| !seen.target.contains("_id=")).map(|seen| seen.target.contains("_sort=_lastUpdated")).collect();
    assert_eq!(sorted, [true].into());
    let says: Vec<String> = findings(&bench.facts, &bench.options).into_iter().map(|finding| format!("{}: {}", finding.who, finding.says)).collect();
    assert!(says.len() == 1 && says[0].starts_with("EHR team: a night found that links to further pages of long lists are forgotten"), "{says:?}");
}
