//! A cohort that a search of the site's own finds.

use super::bench::Bench;
use super::flawed::{Flaw, Site, found, of, reasons};
use std::collections::BTreeSet;
use watershed::source::Mode;
use watershed::source::duty::Code;
use watershed::source::plan;
use watershed::source::probe::{Found, findings, probe};

/// The patients of whom something holds.
fn those(bench: &Bench, holds: impl Fn(&serde_json::Value) -> bool) -> Vec<String> {
    let resources = bench.running.resources();
    let patients = resources.iter().filter(|(kind, _, json)| kind == "Patient" && holds(&serde_json::from_str(json).unwrap()));
    patients.map(|(_, id, _)| id.clone()).collect()
}

#[tokio::test]
async fn the_patients_whom_a_search_finds_are_pulled_and_nobody_else() {
    for (search, holds) in [
        ("Patient?gender=female", (|patient| patient["gender"] == "female") as fn(&serde_json::Value) -> bool),
        ("Patient?gender=female&birthdate=lt2005-01-01", |patient| patient["gender"] == "female" && patient["birthDate"].as_str().unwrap() < "2005"),
        ("Patient?gender=male,female", |_| true),
    ] {
        let mut bench = Bench::new(&[]).await;
        (bench.options.patients_search, bench.options.page_size) = (search.to_owned(), 3);
        let found = those(&bench, holds);
        assert!(found.len() > 3, "{search}: several pages");
        bench.listed = Some(found);
        let first = bench.pull(Mode::Auto).await;
        first.is_the_truth();
        assert!(!first.requests.iter().any(|seen| seen.target.contains("$export")), "{search}");
        bench.hospital.amend_at(3, bench.clock.now());
        let next = bench.pull(Mode::Auto).await;
        next.is_the_truth();
        assert!(!next.outcome.full, "{search}: the others are asked for changes");
        assert_eq!(bench.pull(Mode::Auto).await.outcome.new_versions, 0, "{search}");
    }
}

#[tokio::test]
async fn who_is_found_anew_comes_with_all_history_and_who_is_found_no_more_is_let_go() {
    let mut bench = Bench::new(&[]).await;
    let everybody = those(&bench, |_| true);
    let some = |from: usize, until: usize| everybody[from..until].iter().cloned().collect::<BTreeSet<String>>();
    let now = bench.clock.now();
    let long_ago = now - jiff::SignedDuration::from_hours(240);
    bench.hospital.touch("Patient", &some(0, 20), long_ago);
    bench.hospital.touch("Patient", &some(0, 9), now);
    bench.options.patients_search = format!("Patient?_lastUpdated=ge{}", (now - jiff::SignedDuration::from_hours(1)).strftime("%Y-%m-%dT%H:%M:%SZ"));
    bench.listed = Some(everybody[..9].to_vec());
    bench.pull(Mode::Auto).await.is_the_truth();
    bench.hospital.touch("Patient", &some(0, 2), long_ago);
    bench.hospital.touch("Patient", &some(9, 14), now);
    bench.listed = Some(everybody[2..14].to_vec());
    let next = bench.pull(Mode::Auto).await;
    next.is_the_truth();
    assert!(!next.outcome.full && next.outcome.removed > 0, "{:?}", next.outcome);
}

#[tokio::test]
async fn what_a_server_does_to_pages_leaves_nobody_out_without_a_word() {
    let quirks = ["r_06", "q_17", "q_20", "q_22", "q_23", "q_24", "q_25", "q_26", "q_27", "q_28", "q_29", "q_30", "q_80", "q_81", "r_03", "r_16", "q_13"];
    for quirk in quirks {
        let mut bench = Bench::of(if quirk == "q_22" { 230 } else { 30 }, &[quirk], Default::default()).await.swift();
        (bench.options.patients_search, bench.options.page_size) = ("Patient?gender=female".to_owned(), if quirk == "q_22" { 50 } else { 4 });
        bench.listed = Some(those(&bench, |patient| patient["gender"] == "female"));
        for night in ["first", "second"] {
            match bench.try_pull(Mode::Search).await {
                Ok(pulled) if pulled.has_gap("is not known whole") => assert!(!pulled.outcome.complete),
                Ok(pulled) => assert_eq!(pulled.unnamed(), Vec::<String>::new(), "{quirk}, {night} night: {:?}", pulled.outcome.gaps),
                Err(error) => assert_eq!(quirk, "q_13", "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_search_that_is_not_heeded_takes_nobody_and_lets_nobody_go() {
    let mut bench = Bench::new(&[]).await;
    bench.options.patients_search = "Patient?favourite=blue".to_owned();
    let error = bench.try_pull(Mode::Auto).await.err().map(|error| error.to_string()).unwrap_or_default();
    let told = "the server does not heed `favourite` of `source.patients_search`, so that others would be taken too";
    assert!(error.contains(told), "said so by the server's own link: {error}");

    // Without a word.
    let of_two = "Patient?organization=Organization/3,Organization/7";
    let mut site = Site::of(Flaw { first_only: true, ..Flaw::default() }, "").await;
    site.options.patients_search = "Patient?favourite=blue".to_owned();
    assert_eq!(found(&site.check().await, "Patient", "favourite"), Found::Ignored);
    assert!(
        findings(&site.check().await, &site.options)
            .iter()
            .any(|one| one.says.starts_with("`favourite` of `source.patients_search` is not heeded"))
    );
    let before = site.server.heard().len();
    let error = site.try_pull(&[]).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("does not heed `favourite`"), "{error}");
    assert!(!site.server.heard()[before..].iter().any(|heard| heard.target.contains("_count=40")), "nobody is read");
    site.options.patients_search = of_two.to_owned();
    assert_eq!(found(&site.check().await, "Patient", "organization"), Found::Works);
    for trouble in ["", "unheeded", "", "down", ""] {
        site.becomes(|flaw| (flaw.no_organizations, flaw.unknown) = (trouble == "unheeded" || trouble == "down", if trouble == "down" { 503 } else { 0 }));
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((outcome.removed, counts), (0, of(6)), "a list of which the server heeds the first value is not asked for");
        let told: Vec<Code> = outcome.gaps.iter().map(|gap| gap.code).collect();
        let expected = match trouble {
            "" => Vec::new(),
            "unheeded" => vec![Code::Unsought, Code::Unsought],
            _ => vec![Code::Failing, Code::Failing],
        };
        assert_eq!(told, expected, "{trouble}: {}", reasons(&outcome));
    }
}

/// Each search is tried as it is asked, with one of its parameters made one that finds nobody.
#[tokio::test]
async fn a_search_of_which_a_part_is_not_heeded_takes_nobody() {
    let both = "Patient?organization=Organization/3&_lastUpdated=lt2026-01-01T10:00:40.000Z";
    for (search, flaw, expected) in [
        (both, Flaw::default(), None),
        // Each alternative is tried, one that finds nobody too.
        ("Patient?organization=Organization/nobody,Organization/3&active=true", Flaw::default(), Some("`active`")),
        (both, Flaw { unknown: 404, ..Flaw::default() }, None),
        (both, Flaw { unknown: 422, ..Flaw::default() }, None),
        (both, Flaw { only: "first", ..Flaw::default() }, Some("`_lastUpdated`")),
        (both, Flaw { only: "last", ..Flaw::default() }, Some("`organization`")),
        ("Patient?organization:not=Organization/3", Flaw::default(), None),
        ("Patient?organization:not=Organization/3", Flaw { no_modifiers: true, ..Flaw::default() }, Some("`organization:not`")),
        ("Patient?organization:not=Organization/3", Flaw { no_organizations: true, ..Flaw::default() }, Some("`organization:not`")),
        ("Patient?active=true", Flaw { counts_nothing: true, ..Flaw::default() }, Some("`active`")),
        ("Patient?active=true", Flaw { uncounted: true, ..Flaw::default() }, Some("`active`")),
    ] {
        let mut site = Site::of(flaw, "").await;
        site.options.patients_search = search.to_owned();
        let checked = findings(&site.check().await, &site.options).iter().any(|one| one.says.contains("of `source.patients_search`"));
        match (expected, site.try_pull(&[]).await) {
            (None, Ok((outcome, counts))) => assert!(outcome.complete && counts["Patient"] < 30, "{search}: {} {counts:?}", reasons(&outcome)),
            (Some(part), Err(error)) => assert!(error.to_string().contains(part), "{search}: {error}"),
            (_, ended) => panic!("{search}: {:?}", ended.map(|(outcome, counts)| (reasons(&outcome), counts))),
        }
        assert_eq!(checked, expected.is_some(), "{search}: a check says the same");
    }
}

#[tokio::test]
async fn a_check_tells_what_of_the_search_the_server_does_not_take() {
    let mut bench = Bench::new(&[]).await;
    bench.options.patients_search = "Patient?gender:not=male&birthdate=ge1990-01-01&favourite=blue".to_owned();
    let source = bench.connect().await.unwrap();
    let facts = probe(&source, &plan(&bench.needs, &source.capability, &bench.options)).await;
    let of = |what: &str| found(&facts, "Patient", what);
    assert_eq!((of("birthdate"), of("favourite")), (Found::Works, Found::Refused), "what takes no wrong value takes a right one");
    let told: Vec<String> = findings(&facts, &bench.options).into_iter().filter(|one| one.about == "Patient").map(|one| one.says).collect();
    assert!(told.iter().any(|says| says.starts_with("`favourite` of `source.patients_search` is refused")), "{told:?}");
}
