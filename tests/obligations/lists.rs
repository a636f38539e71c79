//! Lists of values that servers take literally, cut, refuse or take too long for: what they leave out is asked for all the same.

use super::flawed::{Flaw, PATIENTS, Site, all, counts_of, found, reasons};
use super::small::Heard;
use std::sync::Arc;
use watershed::source::duty::Code;
use watershed::source::probe::{AT_ONCE, Found, findings, keep, kept_of, learn};
use watershed::source::{Mode, SourceError, TypeFilter};
use watershed::store::Store;

#[tokio::test]
async fn lists_that_are_taken_literally_cut_or_want_the_type_are_found_out_and_nothing_is_lost() {
    let flaws = [
        Flaw::default(),
        Flaw { heeded: 1, ..Flaw::default() },
        Flaw { heeded: 10, ..Flaw::default() },
        Flaw { typed: true, ..Flaw::default() },
        Flaw { heeded: 1, typed: true, ..Flaw::default() },
    ];
    for (number, flaw) in flaws.into_iter().enumerate() {
        for group in ["g", ""] {
            let mut site = Site::of(flaw, group).await;
            site.needs
                .iter_mut()
                .filter(|need| need.resource_type == "Observation")
                .for_each(|need| need.codes = ["urn:x|a", "urn:x|b"].map(str::to_owned).into());
            for facts in [Vec::new(), site.check().await] {
                let asked = site.server.heard().len();
                let (outcome, counts) = site.pull(&facts).await;
                assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{number} `{group}`");
                assert!(flaw.heeded > 0 || flaw.typed || site.server.heard().len() - asked < 40, "an honest server is asked {} times", site.server.heard().len() - asked);
                // The next one begins anew.
                site.store = Arc::new(Store::open_in_memory().unwrap());
                site.folder = tempfile::tempdir().unwrap();
            }
            assert!(
                site.server
                    .heard()
                    .iter()
                    .all(|heard| heard.target.contains("_offset=") || !heard.target.contains("patient=p") && !heard.target.contains("patient=P") && !heard.target.contains("_id=p")),
                "a patient stands in an address"
            );
        }
    }
}

/// Of few patients there is anything, so that the numbers of shorter lists agree with those of longer ones.
#[tokio::test]
async fn lists_of_which_the_first_values_alone_are_heeded_are_found_out_whoever_has_anything() {
    let first = Flaw { first_only: true, sparse: true, ..Flaw::default() };
    let ten = Flaw { heeded: 10, sparse: true, ..Flaw::default() };
    let flaws = [
        first,
        Flaw { method: "GET", ..first },
        Flaw { uncounted: true, ..first },
        Flaw { no_ids: true, uncounted: true, ..ten },
        Flaw { no_ids: true, ..ten },
        Flaw { sparse: true, ..Flaw::default() },
    ];
    for (number, flaw) in flaws.into_iter().enumerate() {
        for is_checked in [false, true] {
            let site = Site::of(flaw, "g").await;
            let facts = if is_checked { site.check().await } else { Vec::new() };
            for night in [1, 2] {
                let (outcome, counts) = site.pull(&facts).await;
                assert_eq!((reasons(&outcome).as_str(), counts), ("", counts_of(flaw)), "{number} {is_checked} {night}");
            }
        }
    }
}

#[tokio::test]
async fn lists_of_codes_of_which_the_first_alone_is_heeded_are_found_out_whichever_is_anywhere() {
    for codes in [&["a", "aa", "b"][..], &["0", "a", "b", "c", "d", "e"]] {
        let mut site = Site::of(Flaw { first_only: true, ..Flaw::default() }, "").await;
        site.asks_for_codes(&codes.iter().map(|code| (*code).to_owned()).collect::<Vec<_>>());
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{codes:?}");
    }
}

/// One patient alone, who is on the last of several lists, has a code that is asked for; the others have another, or nothing of the type.
#[tokio::test]
async fn lists_of_codes_are_tried_of_members_alone_and_found_out_when_one_of_them_has_anything() {
    let asked = Flaw { of_patients: true, files: "../files/", ..Flaw::default() };
    let flaws = [asked, Flaw { first_only: true, ..asked }, Flaw { heeded: 1, ..asked }];
    for (others, mode) in [("-", Mode::Search), ("c", Mode::Search), ("c", Mode::Bulk)] {
        for (number, flaw) in flaws.into_iter().enumerate() {
            let mut site = Site::of(Flaw { others, ..flaw }, "g").await;
            (site.options.mode, site.options.type_filter, site.options.tuning.patients_per_query) = (mode, TypeFilter::Encoded, 5);
            site.asks_for_codes(&["a", "b", "d", "e"].map(str::to_owned));
            for night in [1, 2] {
                let (outcome, counts) = site.pull(&[]).await;
                assert_eq!((reasons(&outcome).as_str(), counts["Observation"]), ("", 2), "{mode:?} `{others}` {number} {night}");
            }
            let heard = site.server.heard();
            let is_search = |one: &&Heard| ["/Observation", "/Encounter", "/Patient"].iter().any(|name| one.target.starts_with(name)) && !one.target.contains("$export");
            // Resources are named in an address, and pages by their links.
            let names_somebody =
                |one: &&Heard| ["patient", "_id"].iter().any(|name| one.field(name).is_some()) || ["_id=", "_offset="].iter().any(|part| one.target.contains(part));
            let of_nobody: Vec<&Heard> = heard.iter().filter(is_search).filter(|one| !names_somebody(one)).collect();
            assert!(of_nobody.is_empty(), "{mode:?} `{others}` {number}: {of_nobody:#?}");
            // One of each of the six lists, and two of the one that has something.
            let is_trial = |one: &&Heard| one.target.starts_with("/Observation/") && one.body.contains("code=") && one.body.ends_with("_count=1");
            let trials = heard.iter().filter(is_trial).count();
            assert!(number > 0 || trials <= 2 * 7, "{mode:?} `{others}`: an honest server is asked {trials} times in two nights");
        }
    }
}

#[tokio::test]
async fn a_trial_of_codes_that_ends_with_the_night_goes_on_in_the_next_one() {
    for others in ["-", "c"] {
        let mut site = Site::of(Flaw { others, of_patients: true, ..Flaw::default() }, "g").await;
        (site.options.requests_per_night, site.options.requests_at_once, site.options.tuning.patients_per_query) = (4, 1, 5);
        site.asks_for_codes(&["a", "b", "d", "e"].map(str::to_owned));
        let mut nights = 0;
        let (outcome, counts) = loop {
            nights += 1;
            match site.try_pull(&[]).await {
                Ok(pulled) => break pulled,
                Err(SourceError::Unfinished { .. }) => assert!(nights < 120, "each night gets further"),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!((reasons(&outcome).as_str(), counts["Observation"]), ("", 2), "`{others}`");
    }
}

#[tokio::test]
async fn ids_that_come_to_be_refused_are_read_one_by_one_in_the_same_night_whatever_was_known_of_lists() {
    for flaw in [Flaw::default(), Flaw { heeded: 1, ..Flaw::default() }, Flaw { heeded: 10, ..Flaw::default() }] {
        let site = Site::of(flaw, "g").await;
        let (file, now) = (site.folder.path().join("capability.json"), jiff::Timestamp::UNIX_EPOCH);
        for no_ids in [false, true] {
            site.becomes(|flaw| flaw.no_ids = no_ids);
            let source = site.connect().await;
            let asked = site.server.heard().len();
            let (outcome, counts) = site.pull(&kept_of(&file, &source).unwrap()).await;
            assert_eq!((outcome.full, reasons(&outcome).as_str(), counts), (!no_ids, "", all()), "{}", flaw.heeded);
            learn(&file, &source, &outcome, now).unwrap();
            let refused = site.server.heard()[asked..]
                .iter()
                .filter(|one| one.target.starts_with("/Patient") && one.field("_id").is_some())
                .count();
            assert!(!no_ids || refused <= 20, "{}: asked {refused} times", flaw.heeded);
        }
    }
}

#[tokio::test]
async fn a_check_looks_at_lists_by_get_where_searches_by_post_are_refused() {
    let site = Site::of(Flaw { first_only: true, method: "GET", ..Flaw::default() }, "g").await;
    assert_eq!(found(&site.check().await, "Observation", "code list"), Found::Wrong);
}

#[tokio::test]
async fn the_night_after_knows_of_lists_too() {
    for heeded in [1, 10, 27] {
        let site = Site::of(Flaw { heeded, ..Flaw::default() }, "g").await;
        site.pull(&[]).await;
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.full, outcome.removed, reasons(&outcome).as_str(), counts), (false, 0, "", all()), "{heeded}");
    }
}

/// Until everything is read or a check looks, longer lists are not sent; then a server that has become better is asked as any other.
#[tokio::test]
async fn what_a_night_found_of_lists_the_next_ones_know_until_everything_is_read() {
    let flaws = [(1, Flaw { refuses_lists: true, ..Flaw::default() }), (10, Flaw { heeded: 10, ..Flaw::default() }), (5, Flaw { slow_above: 5, ..Flaw::default() })];
    for (most, flaw) in flaws {
        let mut site = Site::of(flaw, "g").await;
        let (file, now) = (site.folder.path().join("capability.json"), jiff::Timestamp::UNIX_EPOCH);
        let mut requests = Vec::new();
        for full in [true, false, false, true, false] {
            // A month later the server takes any list.
            site.becomes(|flaw| {
                if full && !requests.is_empty() {
                    *flaw = Flaw::default()
                }
            });
            site.options.tuning.full_every_days = if full { 0 } else { 7 };
            let source = site.connect().await;
            let asked = site.server.heard().len();
            let (outcome, counts) = site.pull(&kept_of(&file, &source).unwrap()).await;
            assert_eq!((outcome.full, reasons(&outcome).as_str(), counts), (full, "", all()), "{most}");
            learn(&file, &source, &outcome, now).unwrap();
            let heard = site.server.heard().split_off(asked);
            let patients = |one: &Heard| one.field("patient").or_else(|| one.field("_id")).map_or(0, |list| list.split(',').count());
            requests.push((heard.len(), heard.iter().any(|one| patients(one) > most)));
        }
        let is_long: Vec<bool> = requests.iter().map(|(_, is_long)| *is_long).collect();
        assert_eq!(is_long, [true, false, false, true, true], "{most}: {requests:?}");
        assert!(requests[4].0 < requests[1].0, "{most}: {requests:?}");
    }
    // A check, which looks at lists itself.
    let site = Site::of(Flaw { refuses_lists: true, ..Flaw::default() }, "g").await;
    let (file, source) = (site.folder.path().join("capability.json"), site.connect().await);
    let (outcome, _) = site.pull(&[]).await;
    learn(&file, &source, &outcome, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let of_lists = || {
        kept_of(&file, &source)
            .unwrap()
            .iter()
            .filter(|fact| fact.what.ends_with(AT_ONCE))
            .map(|fact| format!("{} {}", fact.about, fact.what))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_lists(), ["Encounter patient values at once", "Observation patient values at once", "Patient _id values at once"]);
    site.becomes(|flaw| *flaw = Flaw::default());
    keep(&file, &source.name(), site.check().await, jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(of_lists(), Vec::<String>::new());
}

#[tokio::test]
async fn a_check_finds_lists_that_are_not_heeded_and_names_nobody_in_an_address() {
    let site = Site::of(Flaw { heeded: 10, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    for (about, what) in [("Patient", "_id list"), ("Observation", "patient list"), ("Observation", "code list"), ("Encounter", "patient list")] {
        assert_eq!(found(&facts, about, what), Found::Wrong, "{about} {what}");
    }
    assert!(
        findings(&facts, &site.options)
            .iter()
            .any(|one| one.about == "Encounter" && one.says.starts_with("a list of values of `patient` is not heeded"))
    );
    let honest = Site::of(Flaw::default(), "g").await.check().await;
    assert_eq!((found(&honest, "Patient", "_id list"), found(&honest, "Observation", "patient list")), (Found::Works, Found::Works));
}

#[tokio::test]
async fn a_list_that_is_refused_is_asked_for_singly() {
    let site = Site::of(Flaw { refuses_lists: true, ..Flaw::default() }, "g").await;
    for full in [true, false] {
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts, outcome.full), ("", all(), full));
    }
}

#[tokio::test]
async fn a_list_that_takes_too_long_is_halved_at_once_and_the_next_one_is_no_longer() {
    let site = Site::of(Flaw { slow_above: 5, ..Flaw::default() }, "g").await;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    let long =
        |heard: &&Heard| heard.target.starts_with("/Encounter/") && !heard.body.contains("_summary=") && heard.field("patient").is_some_and(|list| list.split(',').count() > 5);
    let asked = site.server.heard().iter().filter(long).count();
    assert!(asked <= 12, "{asked} times");
}

#[tokio::test]
async fn where_lists_of_codes_are_not_heeded_few_are_counted_each_and_of_many_it_is_said() {
    let few = ["a", "b"].map(str::to_owned).to_vec();
    let many = few.iter().cloned().chain((0..12).map(|number| format!("0-{number}"))).collect::<Vec<_>>();
    for (codes, is_counted) in [(few, true), (many, false)] {
        let mut site = Site::of(Flaw { heeded: 1, ..Flaw::default() }, "").await;
        site.asks_for_codes(&codes);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
        site.becomes(|flaw| flaw.gone = 2);
        let (night, counts) = site.pull(&[]).await;
        // Nor does it heed a list of ids, by which samples are counted.
        let told: Vec<&str> = night.notes.iter().filter(|note| note.code != Code::Unsampled).map(|note| note.reason.as_str()).collect();
        assert_eq!((night.full, night.removed, reasons(&night).as_str()), (false, if is_counted { 2 } else { 0 }, ""), "{told:?}");
        assert_eq!(counts["Observation"], 2 * PATIENTS as u64 - night.removed);
        let words = if is_counted { "2 resources let go" } else { "the server heeds no list of codes, and these are too many to count each: what vanishes" };
        assert!(matches!(told.as_slice(), [one] if one.starts_with(words) && one.contains("again, on 20") != is_counted), "{told:?}");
    }
}

#[tokio::test]
async fn a_list_that_is_too_long_for_a_count_is_counted_in_shorter_ones() {
    // A search names 25 patients, and a count all of them.
    let site = Site::of(Flaw { heeded: 27, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    let fact = facts.iter().find(|fact| fact.about == "Observation" && fact.what == "patient list").unwrap();
    assert_eq!((fact.found, fact.detail.as_str()), (Found::Works, "with 25 values, and not with 500"));
    for gone in [0, 1, 2] {
        site.becomes(|flaw| flaw.gone = gone);
        let (night, counts) = site.pull(&[]).await;
        assert_eq!((night.full, night.removed, reasons(&night).as_str()), (gone == 0, u64::from(gone > 0), ""), "{gone}");
        assert_eq!(counts["Observation"], (2 * PATIENTS - gone) as u64);
        assert!(night.notes.iter().all(|note| note.reason.starts_with("1 resource let go")), "{:?}", night.notes);
    }
}
