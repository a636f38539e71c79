//! Servers whose answers can be believed, and are wrong: each is a small one with one flaw. A pull has everything nevertheless, or
//! says what it lacks.

use super::bench::untimed;
use super::flawed::{Flaw, HIDDEN, PATIENTS, Site, all, found, reasons};
use super::small::Heard;
use watershed::source::Mode;
use watershed::source::probe::{Found, SERVER, findings};

#[tokio::test]
async fn a_server_that_searches_by_post_only_is_read() {
    for group in ["", "g"] {
        let site = Site::of(Flaw { method: "POST", ..Flaw::default() }, group).await;
        assert_eq!(found(&site.check().await, "Encounter", "search"), Found::Works);
        for gone in [0, 2] {
            site.becomes(|flaw| flaw.gone = gone);
            let (outcome, counts) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), counts["Observation"], outcome.removed), ("", (2 * PATIENTS - gone) as u64, gone as u64), "`{group}`");
        }
        // A link is got first.
        let is_first = |heard: &&Heard| heard.method == "GET" && heard.target.contains("_count=40") && !heard.target.contains("_offset=");
        let refused = site.server.heard().iter().filter(is_first).count();
        assert!(refused <= 8, "it is remembered: asked {refused} times");
    }
}

/// Whose data are taken stands in addresses then, as in every search.
#[tokio::test]
async fn a_total_is_taken_where_a_number_alone_is_refused_and_so_are_searches_by_post() {
    let site = Site::of(Flaw { method: "GET", no_summary: true, ..Flaw::default() }, "g").await;
    for gone in [0, 2] {
        site.becomes(|flaw| flaw.gone = gone);
        let (outcome, _) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), outcome.removed), ("", gone as u64));
        let told: Vec<&str> = outcome.notes.iter().map(|note| note.reason.as_str()).filter(|reason| reason.contains("does not count")).collect();
        assert_eq!(told, [""; 0]);
    }
}

/// Where everything comes again each night, what refers to nothing does too.
#[tokio::test]
async fn what_was_not_there_is_asked_for_again_when_what_refers_to_it_changes_or_everything_is_read() {
    for group in ["g", ""] {
        let mut site = Site::of(Flaw { files: "../files/", no_ward: true, ..Flaw::default() }, group).await;
        site.options.mode = Mode::Bulk;
        let mut asked = Vec::new();
        for (full_every_days, is_moved) in [(7, false), (7, false), (7, true), (7, true), (0, true)] {
            site.options.tuning.full_every_days = full_every_days;
            site.becomes(|flaw| flaw.moved = is_moved);
            let before = site.server.count("/Location");
            let (outcome, counts) = site.pull(&[]).await;
            assert!(outcome.complete && outcome.received["Encounter"] >= PATIENTS as u64 && !counts.contains_key("Location"), "{}", reasons(&outcome));
            asked.push((outcome.full, site.server.count("/Location") - before));
        }
        let expected = [(true, true), (false, false), (false, true), (false, false), (true, true)];
        assert_eq!(asked.iter().map(|(full, asked)| (*full, *asked > 0)).collect::<Vec<_>>(), expected, "`{group}`: {asked:?}");
    }
}

#[tokio::test]
async fn a_search_by_post_that_is_answered_with_nothing_is_not_believed() {
    let site = Site::of(Flaw { posts_nothing: true, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    assert_eq!(found(&facts, SERVER, "search by POST"), Found::Wrong);
    assert!(findings(&facts, &site.options).iter().any(|one| one.says.starts_with("searches by POST do not work")));
    for facts in [&facts[..], &[]] {
        let site = Site::of(Flaw { posts_nothing: true, ..Flaw::default() }, "g").await;
        let (outcome, counts) = site.pull(facts).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    }
}

#[tokio::test]
async fn a_result_that_is_cut_with_its_number_at_a_very_round_one_is_read_in_parts() {
    let mut site = Site::of(Flaw { cut: 1_000, more: 1_300, ..Flaw::default() }, "").await;
    site.options.page_size = 500;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts["Observation"]), ("", 1_360));
}

#[tokio::test]
async fn a_warning_that_not_all_may_have_come_is_a_gap() {
    for warns in ["incomplete", "timeout", "throttled", "too-costly"] {
        let (outcome, _) = Site::of(Flaw { warns, ..Flaw::default() }, "").await.pull(&[]).await;
        assert!(reasons(&outcome).contains(&format!("Observation: the server reports that not all may have come ({warns})")), "{}", reasons(&outcome));
    }
}

#[tokio::test]
async fn what_was_missing_of_one_type_is_all_asked_for_in_the_next_night() {
    let site = Site::of(Flaw { warns: "throttled", ..Flaw::default() }, "").await;
    let (first, counts) = site.pull(&[]).await;
    assert!(first.full && counts["Observation"] < all()["Observation"]);
    site.becomes(|flaw| flaw.warns = "");
    let (next, counts) = site.pull(&[]).await;
    assert_eq!((next.full, reasons(&next).as_str(), counts), (false, "", all()));
    let (quiet, _) = site.pull(&[]).await;
    assert!(!quiet.full && quiet.complete && quiet.received["Observation"] < all()["Observation"], "{:?}", quiet.received);
}

#[tokio::test]
async fn what_this_client_may_not_see_is_a_gap_until_a_person_accepts_it() {
    for warns in HIDDEN {
        let mut site = Site::of(Flaw { warns, ..Flaw::default() }, "").await;
        let (outcome, counts) = site.pull(&[]).await;
        let expected = format!("Observation: Observation: the server leaves out what this client may not see ({warns})");
        assert!(!outcome.complete && reasons(&outcome).contains(&expected), "{}", reasons(&outcome));
        assert_eq!(counts, all());
        // All of it is asked for again, and what has changed of the others.
        let (again, _) = site.pull(&[]).await;
        assert_eq!((again.full, reasons(&again), again.received["Observation"]), (false, reasons(&outcome), counts["Observation"]), "{warns}");
        assert!(again.received["Encounter"] < counts["Encounter"], "{warns}: {:?}", again.received);
        for accepts_loss in [true, false] {
            site.options.tuning.accepts_loss = accepts_loss;
            let (outcome, _) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), outcome.full), ("", accepts_loss), "{warns}");
        }
    }
}

/// A night in which something else is wrong with the type cannot tell; one that reads all of it can.
#[tokio::test]
async fn what_a_person_accepted_is_forgotten_only_when_it_is_so_no_more() {
    for (warns, parameters) in [("suppressed", &[][..]), ("", &["code=urn:x|a"])] {
        let mut site = Site::of(Flaw { warns, ..Flaw::default() }, "").await;
        let narrowed = parameters.first().map(|_| ("Observation".to_owned(), parameters.iter().map(|one| (*one).to_owned()).collect()));
        site.options.parameters.extend(narrowed);
        site.options.tuning.full_every_days = 0;
        site.options.tuning.accepts_loss = true;
        assert_eq!(reasons(&site.pull(&[]).await.0), "", "{warns}");
        site.options.tuning.accepts_loss = false;
        site.becomes(|flaw| flaw.warns = "throttled");
        for _ in 0..2 {
            let (bad, _) = site.pull(&[]).await;
            assert!(bad.full && reasons(&bad).contains("(throttled)") && bad.gaps.len() == 1, "{}", reasons(&bad));
        }
        site.becomes(|flaw| flaw.warns = warns);
        let (healed, _) = site.pull(&[]).await;
        assert_eq!((healed.full, reasons(&healed).as_str()), (true, ""), "{warns}");
    }
    let mut site = Site::of(Flaw { warns: "suppressed", ..Flaw::default() }, "").await;
    site.options.tuning.full_every_days = 0;
    for (accepts_loss, warns, expected) in [(true, "suppressed", true), (false, "", true), (false, "suppressed", false)] {
        site.options.tuning.accepts_loss = accepts_loss;
        site.becomes(|flaw| flaw.warns = warns);
        assert_eq!(site.pull(&[]).await.0.complete, expected, "{accepts_loss} `{warns}`");
    }
}

#[tokio::test]
async fn a_code_that_is_refused_beside_a_patient_is_looked_for_here() {
    // Be lists of patients taken or not, and codes several or one.
    for (refuses_lists, codes) in [(false, &["a"][..]), (true, &["a"]), (false, &["a", "d"])] {
        let mut site = Site::of(Flaw { one_at_a_time: true, refuses_lists, ..Flaw::default() }, "g").await;
        site.asks_for_codes(&codes.iter().map(|code| (*code).to_owned()).collect::<Vec<_>>());
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts["Observation"]), ("", PATIENTS as u64), "{codes:?}");
        let both = site
            .server
            .heard()
            .iter()
            .filter(|heard| heard.body.contains("patient=") && heard.body.contains("code=") && heard.body.contains("_count=40"))
            .count();
        assert!(both <= 4, "it is remembered: asked {both} times");
    }
}

#[tokio::test]
async fn a_check_begins_no_export_and_a_pull_says_what_the_server_has_against_it() {
    let mut site = Site::of(Flaw { exports: true, ..Flaw::default() }, "").await;
    site.options.mode = Mode::Bulk;
    site.check().await;
    let asked: Vec<Heard> = site.server.heard().into_iter().filter(|heard| heard.target.contains("$export")).collect();
    assert!(!asked.is_empty());
    for heard in asked {
        assert!(heard.prefer.is_empty() && heard.target.contains("_since=watershed-probe") && !heard.target.contains("_type="), "{heard:?}");
    }
    let error = site.try_pull(&[]).await.unwrap_err().to_string();
    assert!(error.contains("with status 400 (business-rule)"), "{error}");
}

#[tokio::test]
async fn q_88_of_what_is_read_whole_each_night_the_present_answer_stands_and_what_was_refused_is_repaired() {
    let site = Site::of(Flaw::default(), "").await;
    let facts = [untimed("Encounter")];
    // An older version comes after a newer one, as after a backup was restored.
    type Night = (fn(&mut Flaw), &'static str, u64);
    let nights: [Night; 4] = [(|flaw| flaw.moved = true, "2", 0), (|flaw| flaw.moved = false, "1", 0), (|flaw| flaw.orphan = true, "1", 1), (|flaw| flaw.orphan = false, "1", 0)];
    for (number, (change, version, held)) in nights.into_iter().enumerate() {
        site.becomes(change);
        let (night, counts) = site.pull(&facts).await;
        let found = (night.full, reasons(&night), counts, site.version("e3"), night.quarantined, night.complete);
        assert_eq!(found, (number == 0, String::new(), all(), Some(version.to_owned()), held, held == 0), "night {number}");
    }
}

#[tokio::test]
async fn times_of_change_that_find_nothing_are_not_relied_upon() {
    let site = Site::of(Flaw { no_times: true, ..Flaw::default() }, "").await;
    let facts = site.check().await;
    assert_eq!(found(&facts, "Observation", "_lastUpdated"), Found::Wrong);
    site.pull(&facts).await;
    let (night, counts) = site.pull(&facts).await;
    assert_eq!((night.full, counts), (true, all()), "everything is read each night");
}

#[tokio::test]
async fn a_total_that_is_an_estimate_until_the_last_page_is_believed_there() {
    let mut site = Site::of(Flaw { estimates: true, ..Flaw::default() }, "").await;
    site.options.page_size = 7;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    assert_eq!(site.server.count("/Observation?_count="), 1 + 60_usize.div_ceil(7) - 1, "it is read once");
}

#[tokio::test]
async fn a_total_that_is_too_high_is_held_against_a_number_that_is_asked_for_alone() {
    for page_size in [7, 10, 40] {
        for group in ["", "g"] {
            let mut site = Site::of(Flaw { overstates: true, ..Flaw::default() }, group).await;
            site.options.page_size = page_size;
            for gone in [0, 2] {
                site.becomes(|flaw| flaw.gone = gone);
                let (outcome, counts) = site.pull(&[]).await;
                assert_eq!((reasons(&outcome).as_str(), counts["Observation"]), ("", 60 - gone as u64), "pages of {page_size}, `{group}`");
            }
        }
    }
    // More is there than comes: both numbers say so.
    let mut site = Site::of(Flaw { overstates: true, warns: "processing", ..Flaw::default() }, "").await;
    site.options.page_size = 40;
    let (outcome, counts) = site.pull(&[]).await;
    assert!(counts["Observation"] == 40 && !outcome.complete, "{}", reasons(&outcome));
}

#[tokio::test]
async fn one_bad_byte_loses_one_resource() {
    let mut site = Site::of(Flaw { latin: true, ..Flaw::default() }, "").await;
    site.options.page_size = 20;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!(counts["Observation"], 2 * PATIENTS as u64 - 1);
    assert!(reasons(&outcome).contains("not in UTF-8") && outcome.gaps.len() == 1, "{}", reasons(&outcome));
}

#[tokio::test]
async fn a_page_that_is_too_large_for_the_server_is_halved() {
    let mut site = Site::of(Flaw { page_max: 12, ..Flaw::default() }, "").await;
    site.options.page_size = 50;
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
    assert!(site.server.heard().iter().filter(|heard| heard.target.contains("_count=50")).count() <= 3);
    let said = findings(&site.check().await, &site.options);
    assert!(said.iter().any(|one| one.says.contains("lower `source.page_size`")), "{said:?}");
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_an_answer() {
    let (outcome, counts) = Site::of(Flaw { marked: true, ..Flaw::default() }, "").await.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
}

#[tokio::test]
async fn who_must_be_asked_of_patients_is_not_said_to_want_a_category() {
    let site = Site::of(Flaw { of_patients: true, ..Flaw::default() }, "").await;
    let said = findings(&site.check().await, &site.options);
    assert!(said.iter().any(|one| one.about == "Observation" && one.says.contains("name a Group in `source.group`")), "{said:?}");
    let site = Site::of(Flaw { of_patients: true, ..Flaw::default() }, "g").await;
    let facts = site.check().await;
    assert_eq!(found(&facts, "Observation", "search"), Found::Works);
    assert!(findings(&facts, &site.options).iter().all(|one| !one.says.contains("source.parameters")));
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
}

#[tokio::test]
async fn the_path_of_a_server_behind_its_proxy_is_mapped_too() {
    let mut site = Site::of(Flaw { inner: true, ..Flaw::default() }, "").await;
    site.options.url = format!("{}/outer", site.server.origin);
    site.options.page_size = 20;
    site.options.internal_origins = vec!["http://inner:8080/deep/fhir".to_owned()];
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", all()));
}

#[tokio::test]
async fn a_body_that_is_dropped_on_the_way_is_noticed_in_the_first_night_and_in_every_other() {
    let site = Site::of(Flaw { posts_all: true, ..Flaw::default() }, "g").await;
    assert_eq!(found(&site.check().await, SERVER, "search by POST"), Found::Wrong);
    for night in [1, 2] {
        let before = site.server.heard().len();
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.full, reasons(&outcome).as_str(), counts), (night == 1, "", all()));
        assert_eq!(site.server.heard().iter().skip(before).filter(|heard| heard.method == "POST").count(), 2, "night {night}: the number that shows it, and one page");
    }
    // A proxy may begin to in any night.
    for change in [|flaw: &mut Flaw| flaw.posts_all = true, |flaw: &mut Flaw| flaw.posts_nothing = true] {
        let site = Site::of(Flaw::default(), "g").await;
        site.pull(&[]).await;
        site.becomes(change);
        site.becomes(|flaw| flaw.amended = true);
        let (night, counts) = site.pull(&[]).await;
        assert_eq!((night.full, reasons(&night).as_str(), counts, site.version("b29").as_deref()), (false, "", all(), Some("2")));
    }
}

#[tokio::test]
async fn relative_addresses_of_files_count_from_the_manifest_and_where_nothing_is_there_from_the_base() {
    for (files, lost) in [("../files/", 0), ("/outer/files/", 0), ("files/", 1)] {
        let mut site = Site::of(Flaw { files, ..Flaw::default() }, "").await;
        site.options.url = format!("{}/outer", site.server.origin);
        (site.options.mode, site.options.requests_at_once) = (Mode::Bulk, 1);
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts), ("", all()), "{files}");
        assert_eq!(site.server.count("/jobs/files/"), lost, "{files}: it is remembered");
    }
}
