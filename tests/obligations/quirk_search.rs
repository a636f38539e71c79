//! Quirks of search.

use super::bench::{Bench, What};
use serde_json::Value;
use std::collections::BTreeSet;
use watershed::http::Origin;
use watershed::sandbox::server::Options as Serving;
use watershed::source::Mode;

/// The id of a resource's patient.
pub fn patient_of(resource: &Value) -> Option<&str> {
    match resource["resourceType"].as_str() {
        Some("Patient") => resource["id"].as_str(),
        _ => resource.pointer("/subject/reference").or(resource.pointer("/patient/reference"))?.as_str()?.strip_prefix("Patient/"),
    }
}

/// A hospital with a quirk, and a site that asks for the group `ibd`.
pub async fn of_group(quirks: &[&str], serving: Serving) -> Bench {
    let mut bench = Bench::serving(quirks, serving).await;
    bench.options.group = "ibd".to_owned();
    bench.keeps = |resource| patient_of(resource).is_none_or(|id| id.starts_with("ibd-"));
    bench
}

fn only(resource_type: &str) -> BTreeSet<&str> {
    [resource_type].into()
}

#[tokio::test]
async fn q_12_searches_that_need_a_category_are_made_by_category() {
    let mut bench = Bench::new(&["q_12"]).await;
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!(pulled.differing(), BTreeSet::new(), "every category that the hospital has was asked for");
    for refused in ["procedure", "therapy", "activity"] {
        assert!(pulled.has_gap(&format!("Observation of category {refused}: the server answered 400 (value)")), "{:?}", pulled.outcome.gaps);
    }
    assert!(pulled.has_gap("name this hospital's categories in `source.parameters`"), "what has another category is not known to have come");
    let categories = ["laboratory", "vital-signs", "survey", "exam"].map(|category| format!("category={category}"));
    bench.options.parameters.insert("Observation".to_owned(), categories.to_vec());
    bench.pull(Mode::Search).await.is_the_truth();
}

#[tokio::test]
async fn q_13_patients_who_cannot_be_searched_for_are_read_by_id() {
    let bench = of_group(&["q_13"], Serving::default()).await;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.count("/Patient/ibd-") > 3);
    pulled.is_the_truth();
    let pulled = Bench::new(&["q_13"]).await.pull(Mode::Search).await;
    assert!(pulled.has_gap("Patient: the server answered 400 (required)"), "{:?}", pulled.outcome.gaps);
    assert!(pulled.differences.is_empty() && pulled.count("/Patient/") == 20, "whoever is referred to was read");
}

#[tokio::test]
async fn q_14_a_type_that_cannot_be_searched_is_fetched_when_referred_to_and_a_named_gap() {
    let bench = Bench::new(&["q_14"]).await;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.has_gap("Encounter: the server answered 400 (required)"), "{:?}", pulled.outcome.gaps);
    assert_eq!((pulled.gaps(), pulled.differing()), (only("Encounter"), only("Encounter")));
    let referred: BTreeSet<String> = bench
        .running
        .resources()
        .iter()
        .filter_map(|(_, _, json)| {
            serde_json::from_str::<Value>(json)
                .unwrap()
                .pointer("/encounter/reference")?
                .as_str()?
                .strip_prefix("Encounter/")
                .map(str::to_owned)
        })
        .collect();
    let missing: BTreeSet<String> = pulled.differences.iter().map(|difference| difference.id.clone()).collect();
    assert!(referred.len() > 20 && referred.is_disjoint(&missing), "an encounter that something refers to is missing");
}

#[tokio::test]
async fn q_15_a_filter_that_the_server_ignores_is_applied_here() {
    let mut bench = Bench::new(&["q_15"]).await;
    bench.options.parameters.insert("Observation".to_owned(), vec!["date=ge2026-01-01".to_owned()]);
    bench.keeps = |resource| resource["resourceType"] != "Observation" || resource["effectiveDateTime"].as_str().unwrap() >= "2025-12-31";
    // A person says that these are enough.
    bench.options.tuning.accepts_loss = true;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.outcome.received["Observation"] < 100, "{:?}", pulled.outcome.received);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_16_an_include_that_the_server_ignores_is_replaced_by_a_query() {
    let mut bench = Bench::new(&["q_16"]).await;
    bench.options.parameters.insert("Encounter".to_owned(), vec!["_include=Encounter:location".to_owned()]);
    bench.options.parameters.insert("Patient".to_owned(), vec!["_revinclude=Condition:patient".to_owned()]);
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.count("_include=") > 0 && pulled.count("_revinclude=") > 0);
    assert!(pulled.count("/Location?_id=") > 0 && pulled.begun("Condition") == 1);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_17_relative_next_links_are_followed() {
    let pulled = Bench::new(&["q_17"]).await.pull(Mode::Search).await;
    assert!(pulled.count("_page=") > 3);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_18_a_link_to_another_origin_is_not_followed_unless_it_is_the_servers_own_name() {
    let mut bench = Bench::new(&["q_18"]).await;
    let pulled = bench.pull(Mode::Search).await;
    assert!(!pulled.requests.iter().any(|seen| seen.elsewhere), "another origin was asked");
    pulled.is_the_truth_or_says_what_is_not();
    let reason = &pulled.outcome.gaps.iter().find(|gap| gap.resource_type == "Observation").unwrap().reason;
    let (_, rest) = reason.split_once("at another origin, ").unwrap();
    let (origin, help) = rest.split_once(", ").unwrap();
    assert!(help.ends_with("name it in `source.internal_origins`"), "{help}");
    bench.options.internal_origins = vec!["http://fhir-internal:8080".to_owned(), origin.to_owned()];
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.count("_page=") > 3 && !pulled.requests.iter().any(|seen| seen.elsewhere));
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_19_a_port_written_twice_is_a_gap_with_a_name_and_a_default_port_is_no_other_origin() {
    let pulled = Bench::new(&["q_19"]).await.pull(Mode::Search).await;
    assert!(pulled.has_gap("Observation: the server's link to the next page is not an address"), "{:?}", pulled.outcome.gaps);
    pulled.is_the_truth_or_says_what_is_not();
    let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
    assert_eq!(origin("https://ehr.example.org/fhir?page=2"), origin("https://ehr.example.org:443/fhir"));
    assert_ne!(origin("https://ehr.example.org/fhir"), origin("https://ehr.example.org:8443/fhir"), "a port that is dropped is another one");
}

#[tokio::test]
async fn q_20_an_address_that_is_too_long_becomes_a_search_by_post() {
    let mut bench = Bench::new(&["q_20"]).await;
    let many: Vec<String> = (0..300).map(|number| format!("none-{number}")).collect();
    bench
        .options
        .parameters
        .insert("Observation".to_owned(), vec![format!("category=laboratory,vital-signs,survey,exam,{}", many.join(","))]);
    let pulled = bench.pull(Mode::Search).await;
    let posted = |part: &str| {
        pulled
            .requests
            .iter()
            .filter(|seen| seen.method == "POST" && seen.target.ends_with("/_search") && seen.body.contains(part) && !seen.body.contains("_summary="))
            .count()
    };
    assert_eq!(posted("none-299"), 1, "the search whose address would be too long");
    assert!(posted("_state=") > 3, "pages whose address is too long");
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_21_a_next_page_that_is_refused_by_get_is_asked_for_by_post() {
    let mut bench = of_group(&["q_21"], Serving::default()).await;
    (bench.options.page_size, bench.options.requests_at_once) = (10, 1);
    let pulled = bench.pull(Mode::Search).await;
    let pages = |method: &str, resource_type: &str, status: u16| {
        let start = format!("/fhir/{resource_type}/_search?_page=");
        pulled
            .requests
            .iter()
            .filter(|seen| seen.method == method && seen.target.starts_with(&start) && seen.status == status)
            .count()
    };
    assert!(pages("GET", "Encounter", 404) > 0 && pages("POST", "Encounter", 200) > 0);
    assert_eq!((pages("GET", "Observation", 404), pages("POST", "Observation", 404)), (1, 1), "each is tried once");
    assert!(pulled.requests.iter().any(|seen| seen.method == "GET" && seen.target.starts_with("/fhir/Observation?patient=")), "begun again by GET");
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_22_a_result_cut_at_a_round_number_is_noticed_and_asked_for_in_parts() {
    let pulled = Bench::new(&["q_22"]).await.pull(Mode::Search).await;
    assert!(pulled.count("/Observation?_summary=count") == 1 && pulled.count("/Observation?_lastUpdated=") > 1);
    pulled.is_the_truth();
    // The same where the server does not count.
    let pulled = Bench::new(&["q_22", "q_30"]).await.pull(Mode::Search).await;
    assert!(pulled.count("/Observation?_lastUpdated=") > 1);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_23_fewer_than_announced_is_partial_after_one_more_reading() {
    let pulled = Bench::new(&["q_23"]).await.pull(Mode::Search).await;
    assert!(pulled.has_gap("Observation: the server announced 242 and sent 237"), "{:?}", pulled.outcome.gaps);
    assert_eq!(pulled.begun("Observation"), 2);
    pulled.is_the_truth_or_says_what_is_not();
}

#[tokio::test]
async fn q_24_a_link_that_vanishes_is_noticed_like_a_cut_result() {
    let pulled = Bench::new(&["q_24"]).await.pull(Mode::Search).await;
    // What was announced is asked for on one page, which this server takes.
    assert!(pulled.begun("Observation") == 2 && pulled.count("_page=") == 0, "{:?}", pulled.requests);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_25_pages_that_repeat_and_skip_entries_are_read_in_windows_until_two_readings_agree() {
    let pulled = Bench::new(&["q_25"]).await.pull(Mode::Search).await;
    assert!(pulled.count("/Observation?_lastUpdated=") > 10);
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

#[tokio::test]
async fn q_28_a_forgotten_continuation_begins_its_query_again_twice_at_most() {
    let mut bench = Bench::new(&["q_28"]).await;
    bench.options.page_size = 10;
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!(["Encounter", "Condition", "Patient", "Observation"].map(|name| pulled.begun(name)), [2, 2, 3, 3]);
    assert!(pulled.has_gap("Observation: the server answered 404 (expired)"), "{:?}", pulled.outcome.gaps);
    assert_eq!((pulled.gaps(), pulled.differing()), (only("Observation"), only("Observation")));
}

#[tokio::test]
async fn q_29_the_page_size_stays_the_same_within_a_query() {
    let mut bench = Bench::new(&["q_29"]).await;
    bench.options.page_size = 10;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.count("_state=10") > 20);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_30_a_summary_or_history_that_loses_its_paging_is_not_relied_upon() {
    let mut bench = Bench::new(&["q_30"]).await;
    bench.options.page_size = 20;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.count("/Patient?_summary=count") == 1 && pulled.count("_history") == 0, "a full last page made the client ask");
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_31_a_servers_word_that_pages_have_shifted_leads_to_reading_again() {
    let pulled = Bench::new(&["q_31"]).await.pull(Mode::Search).await;
    assert!(pulled.begun("Observation") > 2);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_32_one_resource_that_breaks_its_page_is_closed_in_and_the_rest_arrives() {
    let pulled = Bench::new(&["q_32"]).await.pull(Mode::Search).await;
    assert!(pulled.has_gap("Observation: changed between ") && pulled.has_gap("the server answered 500 (exception)"), "{:?}", pulled.outcome.gaps);
    assert_eq!((pulled.gaps(), pulled.differing()), (only("Observation"), only("Observation")));
    assert!(pulled.differences.len() < 12 && pulled.differences.iter().all(|difference| difference.what == What::Missing), "{:?}", pulled.differences);
}

#[tokio::test]
async fn q_33_ids_that_are_new_with_each_request_do_not_make_new_resources() {
    let mut bench = Bench::new(&["q_33"]).await;
    bench.options.tuning.full_every_days = 0;
    bench.pull(Mode::Search).await;
    let naive = bench.pull(Mode::Search).await.outcome;
    assert_eq!((naive.new_versions, naive.removed), (3, 3), "without the setting every night has other procedures");
    bench.options.unstable_ids = ["Procedure".to_owned()].into();
    bench.pull(Mode::Search).await;
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!((pulled.outcome.new_versions, pulled.outcome.removed, pulled.outcome.complete), (0, 0, true));
    assert_eq!(bench.snapshot().counts().unwrap()["Procedure"], 3);
}

#[tokio::test]
async fn q_34_an_error_or_a_login_page_with_status_200_is_not_an_empty_result() {
    let pulled = Bench::new(&["q_34"]).await.pull(Mode::Search).await;
    assert!(pulled.has_gap("Encounter: the answer is not a Bundle (processing)"), "{:?}", pulled.outcome.gaps);
    assert_eq!((pulled.gaps(), pulled.differing()), (only("Encounter"), only("Encounter")));
    assert_eq!(pulled.begun("Condition"), 2);
}

#[tokio::test]
async fn q_87_where_times_of_change_are_refused_beside_other_parameters_all_is_asked_for() {
    let mut bench = Bench::new(&["q_87"]).await;
    bench
        .options
        .parameters
        .insert("Observation".to_owned(), vec!["category=laboratory,vital-signs,survey,exam".to_owned()]);
    bench.pull(Mode::Search).await.is_the_truth();
    bench.hospital.slip_in("Observation", 2, jiff::Timestamp::now());
    let night = bench.pull(Mode::Search).await;
    assert!(!night.outcome.full && night.outcome.complete, "{:?}", night.outcome.gaps);
    night.is_the_truth();
    assert!(
        night
            .outcome
            .notes
            .iter()
            .any(|note| note.resource_type == "Observation" && note.reason.starts_with("the server does not count it")),
        "{:?}",
        night.outcome.notes
    );
}
