//! Members of a Group and patients of whom others speak, however they are named.

use super::bench::Bench;
use super::flawed::{Flaw, PATIENTS, Site, all, of, reasons};
use std::collections::BTreeMap;
use watershed::source::{Mode, SourceError};

#[tokio::test]
async fn who_was_a_member_until_a_day_that_is_past_is_let_go() {
    let site = Site::of(Flaw::default(), "g").await;
    for (ended, removed) in [(0, 0), (5, 20), (5, 0)] {
        site.becomes(|flaw| flaw.ended = ended);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts, outcome.removed), ("", of(PATIENTS - ended), removed));
    }
}

#[tokio::test]
async fn a_patient_who_may_not_be_asked_for_is_the_only_one_who_is_missed() {
    // Where each is asked for alone, and where only the last one is.
    for (refuses_lists, forbidden, at_once) in [(true, "p0", 25), (false, "p9", 29)] {
        let mut site = Site::of(Flaw { refuses_lists, forbidden, ..Flaw::default() }, "g").await;
        site.options.tuning.patients_per_query = at_once;
        for _ in 0..2 {
            let (outcome, counts) = site.pull(&[]).await;
            let expected = BTreeMap::from([("Encounter".to_owned(), PATIENTS as u64 - 1)]);
            assert_eq!(counts, all().into_iter().chain(expected).collect(), "{forbidden}: {}", reasons(&outcome));
            assert!(outcome.gaps.len() == 1 && reasons(&outcome).contains("the server answered 403 (forbidden)"), "{}", reasons(&outcome));
        }
    }
}

#[tokio::test]
async fn of_whom_the_group_does_not_name_nothing_is_stored_whatever_its_export_brings() {
    let mut site = Site::of(Flaw { files: "../files/", away: 5, ..Flaw::default() }, "g").await;
    site.options.mode = Mode::Bulk;
    for full_every_days in [7, 7, 7, 0, 7] {
        site.options.tuning.full_every_days = full_every_days;
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", of(PATIENTS - 5)));
        let told = outcome
            .notes
            .iter()
            .filter(|note| note.reason.starts_with("the export brought 5 patients whom the Group does not name"));
        assert_eq!(told.count(), 1, "{:?}", outcome.notes);
    }
    site.becomes(|flaw| flaw.away = 0);
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((outcome.full, reasons(&outcome).as_str(), counts), (false, "", all()));
    site.becomes(|flaw| flaw.away = 5);
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((outcome.full, reasons(&outcome).as_str(), counts, outcome.removed), (false, "", of(PATIENTS - 5), 20));
}

#[tokio::test]
async fn members_who_are_named_by_an_identifier_are_those_who_have_it() {
    // Where lists are heeded, and where they are not.
    for (mode, heeded) in [(Mode::Search, 0), (Mode::Search, 1), (Mode::Bulk, 0)] {
        let mut site = Site::of(Flaw { by_identifier: 10, files: "../files/", heeded, ..Flaw::default() }, "g").await;
        site.options.mode = mode;
        for _ in 0..2 {
            let (outcome, counts) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{mode:?} {heeded}");
        }
        assert_eq!(site.server.count("identifier="), 0, "no identifier stands in an address");
    }
}

#[tokio::test]
async fn members_whose_names_lead_nowhere_are_told_and_meanwhile_nobody_is_let_go() {
    type Case = (fn(&mut Flaw), &'static str);
    let cases: [Case; 3] = [
        (|flaw| flaw.unnamed = 2, "2 members of the Group are named in a way that cannot be followed"),
        // Three patients have one identifier, of which the Group names the first.
        (|flaw| (flaw.alike, flaw.by_identifier) = (27, 28), "1 member of the Group is named in a way that cannot be followed"),
        (|flaw| flaw.groups = 1_001, "2 Groups within the Group were not read"),
    ];
    for (change, expected) in cases {
        let site = Site::of(Flaw::default(), "g").await;
        site.pull(&[]).await;
        site.becomes(change);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.gaps.len(), outcome.removed, counts), (1, 0, all()), "{}", reasons(&outcome));
        assert!(reasons(&outcome).starts_with(&format!("Patient: {expected}")), "{}", reasons(&outcome));
        site.becomes(|flaw| *flaw = Flaw::default());
        let (healed, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&healed).as_str(), counts), ("", all()), "{expected}");
    }
}

/// A Group that names some of its members in some nights only: what was written of them meanwhile is not missed.
#[tokio::test]
async fn members_who_are_away_for_a_night_come_back_whole() {
    // So many are away that it is believed, and so many that it is not.
    for away in [5, 20] {
        for change in [|_: &mut Flaw| {}, |flaw: &mut Flaw| flaw.posts_all = true, |flaw: &mut Flaw| flaw.posts_nothing = true] {
            let site = Site::of(Flaw::default(), "g").await;
            site.becomes(change);
            site.pull(&[]).await;
            site.becomes(|flaw| (flaw.away, flaw.amended) = (away, true));
            let (night, _) = site.pull(&[]).await;
            assert_eq!((night.complete, site.version("b29").as_deref()), if away == 5 { (true, None) } else { (false, Some("1")) }, "{}", reasons(&night));
            site.becomes(|flaw| flaw.away = 0);
            let (night, counts) = site.pull(&[]).await;
            assert_eq!((reasons(&night).as_str(), counts, site.version("b29").as_deref()), ("", all(), Some("2")), "{away}");
        }
    }
}

#[tokio::test]
async fn what_names_its_patient_by_an_identifier_is_there_when_its_type_is_read_again() {
    for group in ["g", ""] {
        let site = Site::of(Flaw { by_system: "urn:mrn", ..Flaw::default() }, group).await;
        assert_eq!(site.pull(&[]).await.1, all());
        site.becomes(|flaw| flaw.gone = 1);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.full, reasons(&outcome).as_str(), outcome.removed, counts["Observation"]), (false, "", 1, 59), "`{group}`");
    }
}

#[tokio::test]
async fn what_names_somebody_outside_the_group_by_an_identifier_is_left_out_and_what_names_nobody_known_is_held() {
    for (by_system, held, observations) in [("urn:mrn", 0, 50), ("urn:other", 30, 25)] {
        let site = Site::of(Flaw { by_system, declares_none: true, away: 5, ..Flaw::default() }, "g").await;
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), outcome.quarantined, outcome.complete, counts["Observation"]), ("", held, held == 0, observations), "{by_system}");
    }
}

/// What stays broken is asked for once in a pull: else it takes what the rest needs, night after night.
#[tokio::test]
async fn a_pull_of_a_server_that_loses_links_comes_to_its_end_with_a_budget() {
    let mut bench = Bench::of(40, &["q_28", "q_81"], Default::default()).await.swift();
    (bench.options.group, bench.options.page_size, bench.options.tuning.patients_per_query) = ("all".to_owned(), 8, 4);
    let alone = bench.pull(Mode::Search).await;
    assert!(!alone.outcome.complete && alone.requests.len() > 100, "{}: {:?}", alone.requests.len(), alone.outcome.gaps);
    let mut bench = Bench::of(40, &["q_28", "q_81"], Default::default()).await.swift();
    (bench.options.group, bench.options.page_size, bench.options.tuning.patients_per_query) = ("all".to_owned(), 8, 4);
    (bench.options.requests_per_night, bench.options.requests_at_once) = (40, 1);
    let nights = alone.requests.len().div_ceil(20) + 2;
    for night in 1..=nights {
        match bench.try_pull(Mode::Search).await {
            Err(SourceError::Unfinished { .. }) => assert!(night < nights, "it is not over after {nights} nights, where one takes {} requests", alone.requests.len()),
            Err(error) => panic!("{error}"),
            Ok(ended) => return assert_eq!(ended.unnamed(), Vec::<String>::new(), "{:?}", ended.outcome.gaps),
        }
        bench.pass(std::time::Duration::from_secs(86_400));
    }
}
