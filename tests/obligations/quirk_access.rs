//! Quirks of authentication and discovery: Q-01 to Q-11.

use super::bench::{Bench, OffBy, Pulled, TYPES, What};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use watershed::http::HttpError;
use watershed::sandbox::Fault;
use watershed::sandbox::request::Seen;
use watershed::sandbox::server::{Client, Options as Serving};
use watershed::source::duty::{Code, Who};
use watershed::source::{Mode, SourceError, ledger, plan, probe};

/// Answers to token requests, oldest first.
fn token_answers(pulled: &Pulled) -> Vec<u16> {
    pulled.requests.iter().filter(|seen| seen.target == "/token").map(|seen| seen.status).collect()
}

/// A hospital that knows the site, and under another name as a client that may not read these types.
async fn with_narrow_client(withheld: &[&str]) -> Bench {
    let mut bench = Bench::new(&[]).await;
    let jwks = serde_json::to_value(bench.key.public_jwks()).unwrap();
    let granted = TYPES.iter().filter(|name| !withheld.contains(name)).map(|name| format!("system/{name}.rs"));
    let narrow = Client { id: "narrow".to_owned(), jwks: jwks.clone(), scopes: granted.collect() };
    let other = Bench::serving(&[], Serving { clients: vec![Client::reader("site", jwks), narrow], ..Serving::default() }).await;
    (bench.running, bench.hospital) = (other.running, other.hospital);
    bench.options.url = bench.running.base_url.clone();
    bench
}

/// Whether any data were asked for.
fn data_were_asked_for(bench: &Bench) -> bool {
    bench.running.requests().iter().any(|seen| TYPES.iter().any(|name| seen.target.contains(&format!("/{name}"))))
}

#[tokio::test]
async fn q_01_a_bare_400_is_tried_again_where_tokens_were_granted_before() {
    for mode in [Mode::Search, Mode::Bulk] {
        let pulled = Bench::new(&["q_01", "q_02"]).await.pull(mode).await;
        let answers = token_answers(&pulled);
        assert!(answers.starts_with(&[200, 400, 400, 200]), "{mode:?}: {answers:?}");
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn q_01_the_first_refusal_is_final_unless_an_earlier_night_was_accepted() {
    let refusing = |times| Serving { faults: vec![Fault::Status { path: "/token".to_owned(), status: 400, retry_after: None, times }], ..Serving::default() };
    let bench = Bench::serving(&[], refusing(1)).await;
    let error = bench.try_pull(Mode::Search).await.unwrap_err();
    assert!(matches!(error, SourceError::Http(HttpError::Token(_))) && error.to_string().contains("is its public key"), "{error}");
    assert_eq!(bench.running.requests().iter().filter(|seen| seen.target == "/token").count(), 1);
    assert!(!ledger::has_pulled(&bench.store, &bench.options.url).unwrap());
    bench.pull(Mode::Search).await.is_the_truth();
    assert!(ledger::has_pulled(&bench.store, &bench.options.url).unwrap());
    let mut bench = Bench::serving(&[], refusing(3)).await;
    bench.options.tuning.accepted_before = true;
    bench.pull(Mode::Search).await.is_the_truth();
}

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
async fn q_02_a_second_refusal_of_the_same_request_is_an_error_of_access() {
    for (mode, path) in [(Mode::Search, "/Condition"), (Mode::Bulk, "/export-status"), (Mode::Bulk, "/export-file")] {
        let fault = Fault::Status { path: path.to_owned(), status: 401, retry_after: None, times: u32::MAX };
        let mut bench = Bench::serving(&[], Serving { faults: vec![fault], ..Serving::default() }).await;
        bench.options.requests_at_once = 1;
        let error = bench.try_pull(mode).await.unwrap_err();
        assert!(matches!(error, SourceError::Http(HttpError::Unauthorized { .. })), "{path}: {error}");
        assert!(error.to_string().contains("is the client enabled for this API there"), "{error}");
        let asked = bench.running.requests().iter().filter(|seen| seen.target.contains(path) && seen.authorized).count();
        assert_eq!(asked, 2, "{path}: once, and once more with a new token");
    }
}

#[tokio::test]
async fn q_03_the_other_syntax_of_scopes_is_tried_once_and_remembered() {
    let mut bench = Bench::new(&["q_03", "q_02"]).await;
    bench.options.tuning.full_every_days = 0;
    for form in ["refused", "granted without the types"] {
        let pulled = bench.pull(Mode::Search).await;
        let asked: Vec<&str> = pulled
            .requests
            .iter()
            .filter(|seen| seen.target == "/token")
            .map(|seen| if seen.body.contains(".rs") { "v2" } else { "v1" })
            .collect();
        assert!(asked.len() > 2 && asked[0] == "v2" && asked[1..].iter().all(|syntax| *syntax == "v1"), "{form}: {asked:?}");
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn q_04_scopes_that_are_dropped_without_a_word_are_named_before_any_data_is_asked_for() {
    let mut bench = Bench::new(&["q_04"]).await;
    bench.options.scopes = vec!["system/*.read".to_owned()];
    let error = bench.try_pull(Mode::Search).await.unwrap_err();
    assert!(matches!(&error, SourceError::Scopes { types } if types.len() == TYPES.len()), "{error}");
    assert!(!data_were_asked_for(&bench));
    // Not told which to ask for, it finds those that are granted.
    bench.options.scopes.clear();
    bench.pull(Mode::Search).await.is_the_truth();
}

#[tokio::test]
async fn q_04_each_type_that_is_not_granted_is_a_gap_of_its_own_and_the_others_are_pulled() {
    for mode in [Mode::Search, Mode::Bulk] {
        let mut bench = with_narrow_client(&["Condition", "Procedure"]).await;
        bench.options.client_id = "narrow".to_owned();
        for is_full in [true, false] {
            let pulled = bench.pull(mode).await;
            assert_eq!(pulled.outcome.full, is_full, "{mode:?}: what is not granted is no reason to read the rest again");
            assert_eq!((pulled.gaps(), pulled.differing()), (["Condition", "Procedure"].into(), ["Condition", "Procedure"].into()), "{mode:?}");
            let gap = &pulled.outcome.gaps[0];
            assert!(gap.code == Code::Ungranted && gap.reason.contains("was asked for `system/Condition.rs` (or `.read`) and granted `system/Device.rs "), "{gap:?}");
            assert!(pulled.requests.iter().all(|seen| !seen.target.contains("Condition") && seen.status < 400), "it is not asked for");
        }
        bench.options.client_id = "site".to_owned();
        bench.pull(mode).await.is_the_truth();
        // Withdrawn again: it is no loss, and what is stored stays.
        bench.options.client_id = "narrow".to_owned();
        bench.options.tuning.full_every_days = 0;
        let pulled = bench.pull(mode).await;
        assert_eq!((pulled.outcome.full, pulled.gaps(), pulled.differing()), (true, ["Condition", "Procedure"].into(), [].into()), "{mode:?}");
        let kept_all = bench
            .store
            .with(|connection| Ok(connection.query_row("SELECT kept_all FROM pull ORDER BY id DESC LIMIT 1", [], |row| row.get::<_, bool>(0))?));
        assert!(!kept_all.unwrap(), "{mode:?}: the others are as they are at the hospital");
    }
}

#[tokio::test]
async fn q_04_without_a_right_to_patients_nothing_is_asked_for() {
    for mode in [Mode::Search, Mode::Bulk] {
        let mut bench = with_narrow_client(&["Patient", "Procedure"]).await;
        bench.options.client_id = "narrow".to_owned();
        let error = bench.try_pull(mode).await.unwrap_err();
        assert!(error.to_string().contains("no right to read Patient, Procedure; ask the EHR's administrator"), "{error}");
        assert!(!data_were_asked_for(&bench), "{mode:?}");
    }
}

#[tokio::test]
async fn q_04_a_type_for_which_the_configuration_asks_no_right_is_the_site_engineers() {
    let mut bench = Bench::new(&[]).await;
    bench.options.scopes = TYPES.iter().filter(|name| **name != "Procedure").map(|name| format!("system/{name}.rs")).collect();
    let pulled = bench.pull(Mode::Search).await;
    let [gap] = pulled.outcome.gaps.as_slice() else { panic!("{:?}", pulled.outcome.gaps) };
    assert_eq!((gap.resource_type.as_str(), gap.code, gap.code.duty().0), ("Procedure", Code::Unasked, Who::SiteEngineer));
    assert_eq!(of_procedures(&bench).await, (Who::SiteEngineer, "`source.scopes` asks for no right to read it, and none was granted".to_owned()));
    let mut bench = with_narrow_client(&["Procedure"]).await;
    bench.options.client_id = "narrow".to_owned();
    let (who, says) = of_procedures(&bench).await;
    assert!(who == Who::EhrTeam && says.contains("let this client read and search it, scope `system/Procedure.rs`"), "{says}");
}

/// What a check says is to be done about Procedure.
async fn of_procedures(bench: &Bench) -> (Who, String) {
    let source = bench.connect().await.unwrap();
    let facts = probe::probe(&source, &plan(&bench.needs, &source.capability, &bench.options)).await;
    let findings = probe::findings(&facts, &bench.options);
    let finding = findings.into_iter().find(|finding| finding.about == "Procedure").unwrap();
    (finding.who, finding.says)
}

#[tokio::test]
async fn q_05_types_that_were_not_asked_for_are_set_aside_and_the_one_that_was_is_missing() {
    let mut bench = Bench::new(&["q_05"]).await;
    bench.options.scopes = vec!["system/*.rs".to_owned()];
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(pulled.differences.iter().all(|one| one.resource_type == "Condition" && one.what == What::Missing));
    assert!(pulled.differences.len() > 5);
    let gaps: Vec<&str> = pulled.outcome.gaps.iter().map(|gap| gap.resource_type.as_str()).collect();
    assert!(gaps.contains(&"Condition") && pulled.has_gap("ask the EHR's administrator"), "{:?}", pulled.outcome.gaps);
    assert!(pulled.held.iter().all(|item| item.resource_type.as_deref() == Some("Practitioner")), "{:?}", pulled.held.first());
    assert!(bench.lines().iter().all(|line| !line.contains(r#""resourceType":"Practitioner""#)));
    assert!(!pulled.outcome.complete);
}

#[tokio::test]
async fn q_06_a_clock_one_second_off_breaks_nothing_and_one_far_off_is_reported() {
    let bench = Bench::new(&["q_06"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    assert_eq!(bench.connect().await.unwrap().clocks_apart, None);
    let mut off = Bench::new(&[]).await;
    off.clock = Arc::new(OffBy(-45));
    let said = off.connect().await.unwrap().clocks_apart.unwrap();
    assert!(said.contains("this computer's clock is 45 s behind the server's") || said.contains("44 s"), "{said}");
}

#[tokio::test]
async fn q_07_a_header_that_the_vendor_wants_goes_to_that_vendor_only() {
    for mode in [Mode::Search, Mode::Bulk] {
        let mut bench = Bench::new(&["q_07", "q_10"]).await;
        let error = bench.try_pull(mode).await.unwrap_err();
        assert!(matches!(error, SourceError::NotFhir { status: 400, .. }), "without it nothing is to be had: {error}");
        let said = error.to_string();
        assert!(said.contains("status 400 (\"the client id is missing\")") && said.contains("`source.headers`"), "{said}");
        bench.options.headers.insert("Epic-Client-ID".to_owned(), "4711".to_owned());
        let pulled = bench.pull(mode).await;
        pulled.is_the_truth();
        let told: Vec<bool> = pulled.requests.iter().filter(|seen| seen.elsewhere).map(|seen| seen.header("epic-client-id").is_some()).collect();
        assert!(told.iter().all(|told| !told) && (mode == Mode::Search || told.len() > 5), "{told:?}");
    }
}

#[tokio::test]
async fn q_08_a_parameter_that_the_vendor_wants_is_on_every_search_and_on_further_pages_only_if_their_link_has_it() {
    let mut bench = Bench::new(&["q_08"]).await;
    let refused = bench.try_pull(Mode::Search).await.unwrap_err();
    assert!(matches!(refused, SourceError::Nothing { .. }), "{refused}");
    bench.options.search_parameters.insert("ah-practice".to_owned(), "Organization/a-1.Practice-195900".to_owned());
    let pulled = bench.pull(Mode::Search).await;
    let named = |seen: &&Seen| [&seen.target, &seen.body].iter().any(|text| text.contains("ah-practice=Organization%2Fa-1.Practice-195900"));
    assert!(pulled.requests.iter().filter(named).count() > 5 && pulled.count("_page=") > 3);
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_09_discovery_with_nothing_but_a_token_endpoint_is_enough_and_so_is_none() {
    let bench = Bench::new(&["q_09"]).await;
    for form in ["nothing else", "the rest wrong", "a web page", "none"] {
        let pulled = bench.try_pull(Mode::Search).await.unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(pulled.count("/token"), 1, "{form}");
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn q_10_a_redirect_to_a_file_store_is_followed_without_the_token() {
    let pulled = Bench::new(&["q_10"]).await.pull(Mode::Bulk).await;
    assert!(pulled.requests.iter().filter(|seen| seen.elsewhere && seen.status == 200).count() > 5);
    assert!(!pulled.token_went_elsewhere());
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_11_presigned_addresses_get_no_token_whatever_the_manifest_says() {
    let pulled = Bench::new(&["q_11"]).await.pull(Mode::Bulk).await;
    assert!(!pulled.token_went_elsewhere());
    let of = |part: &str| -> Vec<(bool, u16)> { pulled.requests.iter().filter(|seen| seen.target.contains(part)).map(|seen| (seen.authorized, seen.status)).collect() };
    let (store, signed, unknown) = (of("X-Amz-Signature="), of("sig="), of("ticket="));
    assert!(!store.is_empty() && store.iter().all(|seen| *seen == (false, 200)), "{store:?}");
    assert!(!signed.is_empty() && signed.iter().all(|seen| *seen == (false, 200)), "{signed:?}");
    // Not known for a signature: with the token as the manifest says, then once without, at the EHR itself.
    let times = |answer: (bool, u16)| unknown.iter().filter(|seen| **seen == answer).count();
    assert!(times((true, 400)) > 0 && times((true, 400)) == times((false, 200)) && times((true, 400)) * 2 == unknown.len(), "{unknown:?}");
    pulled.is_the_truth();
}

#[tokio::test]
async fn q_86_none_of_what_others_refer_to_is_a_gap_until_it_is_accepted() {
    let mut bench = Bench::new(&["q_86"]).await;
    for (accepts_loss, is_complete) in [(false, false), (false, false), (true, true), (false, true)] {
        bench.options.tuning.accepts_loss = accepts_loss;
        let night = bench.pull(Mode::Search).await;
        let is_told = night.outcome.gaps.iter().any(|gap| gap.resource_type == "Location" && gap.reason.starts_with("none of the "));
        assert_eq!((night.outcome.complete, is_told), (is_complete, !is_complete), "{:?}", night.outcome.gaps);
    }
}

/// The token says that it may be read.
#[tokio::test]
async fn a_type_that_is_refused_is_a_gap_of_its_own_and_is_whole_again_when_it_is_granted() {
    for mode in [Mode::Search, Mode::Bulk] {
        let is_on = Arc::new(AtomicBool::new(false));
        let shut = Fault::Shut { resource_type: "Condition".to_owned(), is_on: Arc::clone(&is_on) };
        let mut bench = Bench::of(40, &[], Serving { faults: vec![shut], ..Serving::default() }).await;
        bench.pull(mode).await.is_the_truth();
        let stored = bench.snapshot().counts().unwrap()["Condition"];
        is_on.store(true, Ordering::SeqCst);
        // Changes, and everything.
        for (night, full_every_days) in [(1, 7), (2, 0), (3, 7)] {
            bench.options.tuning.full_every_days = full_every_days;
            bench.hospital.amend_at(night, bench.clock.now());
            let pulled = bench.pull(mode).await;
            let gaps: Vec<(&str, Code)> = pulled.outcome.gaps.iter().map(|gap| (gap.resource_type.as_str(), gap.code)).collect();
            assert_eq!(gaps, [("Condition", Code::Forbidden)], "{mode:?}, night {night}: {:?}", pulled.outcome.gaps);
            assert!(pulled.has_gap(if mode == Mode::Search { "the server answered 403" } else { "this client may not read it (forbidden)" }), "{:?}", pulled.outcome.gaps);
            assert_eq!((bench.snapshot().counts().unwrap()["Condition"], pulled.outcome.full), (stored, night == 2), "{mode:?}, night {night}");
            assert!(pulled.differing().iter().all(|name| *name == "Condition"), "{mode:?}, night {night}: {:?}", pulled.differing());
            let missing = bench.store.with(|connection| watershed::store::runs::missing_from(connection, pulled.outcome.pull_id.0)).unwrap();
            assert_eq!(missing.gaps, [("Condition".to_owned(), 1)].into(), "{mode:?}, night {night}");
        }
        is_on.store(false, Ordering::SeqCst);
        let granted = bench.pull(mode).await;
        assert!(!granted.outcome.full, "{mode:?}");
        granted.is_the_truth();
    }
}
