//! What a probe finds of servers that behave, and of servers that do not.

use super::bench::Bench;
use watershed::sandbox::server::Options as Serving;
use watershed::source::Mode;
use watershed::source::probe::{Fact, Finding, Found, REQUESTS_MAX, SERVER, findings, probe};

async fn probed(bench: &Bench) -> (Vec<Fact>, Vec<Finding>) {
    let source = bench.connect().await.unwrap();
    let plan = watershed::source::plan(&bench.needs, &source.capability, &source.options);
    let facts = probe(&source, &plan).await;
    let findings = findings(&facts, &source.options);
    (facts, findings)
}

fn found<'a>(facts: &'a [Fact], about: &str, what: &str) -> (Option<bool>, Found, &'a str) {
    let fact = facts.iter().find(|fact| fact.about == about && fact.what == what);
    fact.map(|fact| (fact.declared, fact.found, fact.detail.as_str()))
        .unwrap_or_else(|| panic!("nothing of {about} {what} in {facts:#?}"))
}

fn says(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}: {}: {}", finding.who, finding.about, finding.says)).collect()
}

#[tokio::test]
async fn an_honest_server_does_what_it_declares_and_is_asked_little() {
    let bench = Bench::serving(&[], Serving { page_max: 10, ..Serving::default() }).await;
    let before = bench.running.request_count();
    let (facts, findings) = probed(&bench).await;
    assert_eq!(says(&findings), Vec::<String>::new());
    let works = (None, Found::Works, "");
    for what in ["search by POST", "_total=accurate"] {
        assert_eq!(found(&facts, SERVER, what), works, "{what}");
    }
    assert_eq!(found(&facts, SERVER, "a parameter that does not exist").1, Found::Refused);
    assert_eq!(found(&facts, SERVER, "page size"), (None, Found::Is, "10, where 50 are asked for"));
    assert_eq!(found(&facts, SERVER, "FHIR version"), (None, Found::Is, "4.0.1"));
    assert!(found(&facts, SERVER, "scopes granted").2.contains("system/Observation.rs"));
    for (about, what) in [("Observation", "code"), ("Observation", "patient"), ("Observation", "_lastUpdated"), ("Patient", "_lastUpdated")] {
        assert_eq!(found(&facts, about, what), (Some(true), Found::Works, ""), "{about} {what}");
    }
    for what in ["paging", "_summary=count"] {
        assert_eq!(found(&facts, "Encounter", what), works, "{what}");
    }
    for level in ["system export", "patient export"] {
        assert_eq!(found(&facts, SERVER, level), (Some(true), Found::Works, ""), "{level}");
    }
    let requests = bench.running.requests().split_off(before);
    assert!(requests.len() < 60 && requests.len() < REQUESTS_MAX, "{} requests", requests.len());
    assert!(requests.iter().all(|seen| seen.status != 202), "no export was begun");
    let patients: Vec<String> = bench.hospital.resources().into_iter().filter(|(name, _, _)| name == "Patient").map(|(_, id, _)| id).collect();
    let text = serde_json::to_string(&facts).unwrap();
    assert!(patients.iter().all(|id| !text.contains(id.as_str()) && requests.iter().all(|seen| !seen.target.contains(id.as_str()))), "no patient is named");
}

#[tokio::test]
async fn what_is_ignored_is_told_from_what_is_ignored_and_said() {
    // Each type ignores one parameter, and its own link leaves it out.
    let (facts, findings) = probed(&Bench::new(&["r_03"]).await).await;
    for (about, what) in [("Observation", "code"), ("Condition", "patient"), ("Encounter", "_lastUpdated")] {
        assert_eq!(found(&facts, about, what), (Some(true), Found::IgnoredAndSaid, ""), "{about} {what}");
    }
    assert_eq!(found(&facts, "Observation", "_lastUpdated").1, Found::Works);
    assert_eq!(
        says(&findings),
        ["EHR team: Encounter: asked for changes, the server answers with everything; every night costs it as much as the first until it honours `_lastUpdated`"]
    );

    // `date` is said to be used, and ignored.
    let mut bench = Bench::new(&["q_15"]).await;
    bench.options.mode = Mode::Search;
    bench.options.parameters.insert("Observation".to_owned(), vec!["date=ge2020-01-01".to_owned()]);
    let (facts, findings) = probed(&bench).await;
    assert_eq!(found(&facts, "Observation", "date"), (Some(true), Found::Ignored, ""));
    let said = says(&findings);
    assert!(said.len() == 1 && said[0].starts_with("EHR team: Observation: `date` is ignored without a word"), "{said:?}");
    assert!(facts.iter().all(|fact| !fact.what.contains("export")), "a site that searches leaves exports alone");
}

#[tokio::test]
async fn paging_counts_and_searches_that_fail_are_found() {
    for (quirk, about, what, expected, detail) in [
        ("q_24", "Observation", "paging", Found::Wrong, "the first page has no link to the next one"),
        ("q_18", "Observation", "paging", Found::Wrong, "next page is at another origin"),
        ("q_26", "Observation", "paging", Found::Wrong, "the next page is the first one again"),
        ("q_30", "Observation", "_summary=count", Found::Wrong, "it brings no number"),
        ("q_12", "Observation", "search", Found::Refused, "status 400 (required)"),
        ("q_13", "Patient", "search", Found::Refused, "status 400 (required)"),
        ("q_60", "Encounter", "_lastUpdated", Found::Refused, "status 400"),
        ("q_05", "Condition", "search", Found::Refused, "status 403"),
    ] {
        let (facts, findings) = probed(&Bench::new(&[quirk]).await).await;
        let (_, verdict, words) = found(&facts, about, what);
        assert!(verdict == expected && words.contains(detail), "{quirk}: {verdict:?} {words}");
        // A number that does not come, and what is not declared, are no fault.
        let is_harmless = matches!(quirk, "q_30" | "q_60");
        assert_eq!(findings.iter().any(|finding| finding.about == about), !is_harmless, "{quirk}: {findings:?}");
    }
}

#[tokio::test]
async fn of_a_group_it_is_looked_at_what_a_search_of_a_patient_brings() {
    for (quirk, about, expected, advice) in [
        ("q_12", "Observation", (Found::Works, "of a patient and by category"), None),
        (
            "q_14",
            "Encounter",
            (Found::Refused, "of a patient too: status 400 (required)"),
            Some("EHR team: Encounter: searches are refused, of a patient too: status 400 (required): let this client search it of a patient, or say which parameters it wants"),
        ),
    ] {
        let mut bench = Bench::new(&[quirk]).await;
        (bench.options.mode, bench.options.group) = (Mode::Search, "ibd".to_owned());
        let (facts, findings) = probed(&bench).await;
        let (_, verdict, detail) = found(&facts, about, "search");
        assert_eq!((verdict, detail), expected, "{quirk}");
        let said: Vec<String> = says(&findings).into_iter().filter(|said| said.contains(about)).collect();
        assert_eq!(said.len(), usize::from(advice.is_some()), "{said:?}");
        assert!(said.iter().all(|said| said.starts_with(advice.unwrap_or_default())), "{said:?}");
        let members = bench.hospital.members("ibd").unwrap();
        assert!(bench.running.requests().iter().all(|seen| members.iter().all(|id| !seen.target.contains(id.as_str()))), "a patient stands in an address");
    }
}

#[tokio::test]
async fn exports_that_are_not_there_or_begin_nevertheless_are_found_and_ended() {
    let serving = Serving { export_levels: &["patient"], ..Serving::default() };
    let (facts, findings) = probed(&Bench::serving(&[], serving).await).await;
    assert_eq!((found(&facts, SERVER, "patient export").1, found(&facts, SERVER, "system export").1), (Found::Works, Found::Absent));
    assert_eq!(says(&findings), Vec::<String>::new(), "what is not declared need not be there");

    let (facts, findings) = probed(&Bench::new(&["q_56"]).await).await;
    assert_eq!(found(&facts, SERVER, "patient export"), (Some(true), Found::Absent, "status 404"));
    assert!(
        says(&findings)
            .iter()
            .any(|said| said.starts_with("EHR team: server: the patient export is declared, and not to be had")),
        "{findings:?}"
    );
    assert!(says(&findings).iter().any(|said| said.contains("until then nights search instead")), "{findings:?}");
    let mut pinned = Bench::new(&["q_56"]).await;
    pinned.options.mode = Mode::Bulk;
    let said = says(&probed(&pinned).await.1);
    assert!(said.iter().any(|said| said.contains("`source.mode = \"bulk\"` allows no search in its place")), "{said:?}");
}

#[tokio::test]
async fn a_server_with_many_faults_is_told_about_nothing_that_was_not_seen() {
    let bench = Bench::with_faults(&[], 3).await;
    let (facts, findings) = probed(&bench).await;
    assert_eq!(says(&findings), Vec::<String>::new());
    assert!(facts.iter().all(|fact| !matches!(fact.found, Found::Ignored | Found::Wrong | Found::Absent)), "{facts:#?}");
}

#[tokio::test]
async fn what_a_check_found_not_to_work_is_not_relied_upon() {
    let mut bench = Bench::new(&["r_03"]).await;
    (bench.options.mode, bench.options.group, bench.options.tuning.patients_per_query) = (Mode::Search, "all".to_owned(), 5);
    bench.facts = probed(&bench).await.0;
    let pulled = bench.pull(Mode::Search).await;
    pulled.is_the_truth();
    let members = bench.hospital.members("all").unwrap().len();
    assert_eq!((pulled.begun("Patient"), pulled.count("/fhir/Patient/")), (0, members), "patients are read by their ids");
    let conditions: Vec<_> = pulled.requests.iter().filter(|seen| seen.target.contains("/Condition")).collect();
    assert!(!conditions.is_empty() && conditions.iter().all(|seen| !seen.body.contains("patient=")), "{conditions:#?}");
    let night = bench.pull(Mode::Search).await;
    let of_encounters = night.requests.iter().filter(|seen| seen.target.contains("/Encounter"));
    assert!(of_encounters.into_iter().all(|seen| !seen.target.contains("_lastUpdated") && !seen.body.contains("_lastUpdated")));
    // Who ignores `_lastUpdated` gives no changes of that type.
    let stored = bench.snapshot().counts().unwrap();
    assert_eq!((night.outcome.full, night.outcome.received["Encounter"]), (false, stored["Encounter"]));
    assert!(night.outcome.received["Observation"] < stored["Observation"], "{:?}", night.outcome.received);
    night.is_the_truth();
}
