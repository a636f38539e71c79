//! What charts and the board say of months that do not count: missing, empty, partial, of another version.

use serde_json::json;
use watershed::feed::{Completeness, Entry, Manifest, PROTOCOL, sha256_hex};
use watershed::registry::{Defined, MeasureCard, Unit};

use super::{Feed, Network, deliver, key, measure_report, proportion};

/// One month: its number, the version of the measure, whether all data came, and how many of how many.
type Month = (u32, &'static str, bool, u32, u32);

/// Complete months of version 1.0.0, out of 100 each; `-` is one that is missing, `~` before a number one that is partial.
fn months(text: &str) -> Vec<Month> {
    let month = |(index, word): (usize, &str)| {
        let numerator = word.trim_start_matches('~').parse().ok()?;
        Some((index as u32 + 1, "1.0.0", !word.starts_with('~'), numerator, 100))
    };
    text.split(' ').enumerate().filter_map(month).collect()
}

fn feed(site: &str, months: &[Month]) -> Feed {
    let mut reports: Vec<(Entry, Vec<u8>)> = months.iter().map(|month| report(site, *month)).collect();
    reports.sort_by(|a, b| a.0.key.cmp(&b.0.key));
    let (reports, bodies) = reports.into_iter().unzip();
    let completeness = Completeness { complete: true, gaps: 0, quarantined: 0 };
    let manifest = Manifest { protocol: PROTOCOL.into(), site: site.into(), supersedes: None, attempt: 1, completeness, reports, withdrawals: vec![] };
    Feed { manifest, bodies }
}

fn report(site: &str, (month, version, complete, numerator, denominator): Month) -> (Entry, Vec<u8>) {
    let key = watershed::feed::ReportKey { version: version.into(), ..key(month) };
    let population = |code: &str, count: u32| json!({ "code": { "coding": [{ "code": code }] }, "count": count });
    let populations = json!([population("initial-population", denominator), population("denominator", denominator), population("numerator", numerator)]);
    let stratum = json!({ "value": { "text": "female" }, "population": populations });
    let mut group = json!({ "population": populations, "stratifier": [{ "code": [{ "text": "sex" }], "stratum": [stratum] }] });
    if denominator > 0 {
        group["measureScore"] = json!({ "value": f64::from(numerator) / f64::from(denominator) });
    }
    let body = measure_report(site, &key, "increase", "proportion", group);
    (Entry { key, sha256: sha256_hex(&body), bytes: body.len() as u64, complete, replaces: None, cause: None }, body)
}

/// The measure, of which version 1.1.0 says that it can be compared with 1.0.0.
fn comparable() -> MeasureCard {
    let defined = Defined { comparable: ["1.0.0".to_owned()].into(), stratifiers: [("sex".to_owned(), true)].into(), ..Defined::default() };
    MeasureCard { definitions: [("1.1.0".to_owned(), defined)].into(), ..proportion() }
}

/// The page of a site that sent these months.
async fn page(card: MeasureCard, months: &[Month]) -> String {
    let network = Network::start(vec![card]).await;
    let north = network.join("north", "North").await;
    deliver(&network, &north, &feed("north", months)).await.receipt();
    network.get("/measures/remission/sites/north").await.text
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_told_the_page_says_what_is_missing() {
    let needed = "Too little to tell a signal from chance: 10 months in a row with all their data and off the median are needed, ";
    for (text, expected) in [
        ("60 61 60 61", format!("{needed}4 are here.")),
        ("60", format!("{needed}0 are here.")),
        ("~60 ~61 ~60 ~61 ~60 ~61 ~60 ~61 ~60 ~61 ~60 ~61", format!("{needed}0 are here; 12 are partial.")),
        ("60 62 61 63 60 62 - - 61 ~61 63 60 62 61", format!("{needed}5 are here; 1 is partial, 2 are missing.")),
        (
            "0 1 0 0 2 0 0 1 0 1 0 0",
            "Nothing can be told: half of the months or more have the same value, 0.0\u{202f}%, and the others lie on one side of it. Longer periods may tell more.".to_owned(),
        ),
        ("60 62 61 63 60 63 62 60 61 63 60 62", "No signal: the variation is what chance gives.".to_owned()),
    ] {
        let page = page(proportion(), &months(text)).await;
        // The median is one of ten or more.
        let whole = text.split(' ').filter(|word| !word.starts_with(['~', '-'])).count();
        let without = format!(" No median is drawn: it is one of 10 months or more with all their data, not of {whole}.");
        let expected = expected + if whole < 10 { &without } else { "" };
        assert_eq!(page.contains("<line class=\"median\""), whole >= 10, "{text}: {page}");
        assert!(page.contains(&format!("<p class=\"signal none\">{expected}</p>")), "{text}: {page}");
        assert!(!page.contains("NaN"), "{text}: {page}");
        assert_eq!(page.matches("No signal").count(), usize::from(expected.starts_with("No signal")), "{text}: {page}");
        assert_eq!(page.contains(", no signal of special cause."), expected.starts_with("No signal"), "{text}: {page}");
    }
    let empty = page(proportion(), &[(1, "1.0.0", true, 0, 0), (2, "1.0.0", true, 0, 0)]).await;
    assert!(empty.contains(&format!("{needed}0 are here; 2 have no value. No median is drawn:")), "{empty}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_does_not_count_breaks_a_row() {
    let [whole, missing, partial] = ["80", "-", "~80"].map(|middle| format!("60 70 61 71 60 70 80 81 80 {middle} 81 80 81 60"));
    let shift = "months in a row above the median, the better side, Jul 2024 to Jan 2025.";
    for (text, shifts, lines) in [(whole, 1, 1), (missing, 0, 2), (partial, 0, 1)] {
        let page = page(proportion(), &months(&text)).await;
        assert_eq!(page.matches(shift).count(), shifts, "{text}: {page}");
        assert_eq!(page.matches("<polyline").count(), lines, "{text}: {page}");
    }
    // A missing month has its place on the axis.
    let page = page(proportion(), &months("60 61 - - 60 61")).await;
    assert!(page.contains(">Jan 2024</text>") || page.contains(">Feb 2024</text>"), "{page}");
    let across: Vec<&str> = page.split("cx=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(across, ["80.8", "138.5", "311.5", "369.2"], "steps of 57.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_begins_a_chart_of_its_own_unless_it_says_that_it_can_be_compared() {
    let version = |month: u32| if month <= 7 { "1.0.0" } else { "1.1.0" };
    let months: Vec<Month> = (1..=14).map(|month| (month, version(month), true, [60, 80][usize::from(month > 7)] + month % 2, 100)).collect();
    let apart = page(proportion(), &months).await;
    assert!(apart.contains("Version 1.1.0 of the measure from Aug 2024 on: its values are not compared with those of version 1.0.0."), "{apart}");
    assert!(apart.contains("10 months in a row of version 1.1.0 with all their data"), "{apart}");
    assert!(!apart.contains("Shift: "), "{apart}");
    assert!(apart.contains("text-anchor=\"start\">version 1.1.0</text>"), "after the line: {apart}");
    // Seven months each are too few for a median.
    assert_eq!(["<line class=\"median\"", "<polyline", ">version 1.1.0</text>"].map(|part| apart.matches(part).count()), [0, 2, 1], "{apart}");

    let together = page(comparable(), &months).await;
    assert!(together.contains("Version 1.1.0 of the measure from Aug 2024 on: it says that it can be compared with version 1.0.0."), "{together}");
    assert!(together.contains("Shift: 7 months in a row above the median"), "{together}");
    assert_eq!(["<line class=\"median\"", "<polyline", ">version 1.1.0</text>"].map(|part| together.matches(part).count()), [1, 1, 1], "{together}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_adds_up_what_counts_and_says_the_rest() {
    let network = Network::start(vec![proportion()]).await;
    let board = async |expected: &str| {
        let board = network.get("/").await.text;
        assert!(board.contains(&format!("<strong>{expected}</strong>")), "{expected} in {board}");
    };
    for (name, february, expected) in [
        ("partial", Some((2, "1.0.0", false, 10, 100)), "no score in Feb 2024 (1 partial)"),
        ("east", Some((2, "1.0.0", true, 60, 100)), "60.0\u{202f}% (60 of 100) in Feb 2024, 1 of 2 sites (1 partial)"),
        ("empty", Some((2, "1.0.0", true, 0, 0)), "not known in Feb 2024, 1 of 3 sites (1 partial, 1 without a number)"),
        ("west", Some((2, "1.0.0", true, 40, 100)), "50.0\u{202f}% (100 of 200) in Feb 2024, 2 of 4 sites (1 partial, 1 without a number)"),
        ("late", None, "not known in Feb 2024, 2 of 5 sites (1 partial, 1 without a number, 1 not in)"),
    ] {
        let site = network.join(name, name).await;
        let months: Vec<Month> = [(1, "1.0.0", true, 50, 100)].into_iter().chain(february).collect();
        deliver(&network, &site, &feed(name, &months)).await.receipt();
        board(expected).await;
    }
}

/// Neighbours share patients, so a shift of six proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn where_values_look_back_over_months_no_rule_over_runs_is_applied() {
    let defined = Defined { lookback_months: Some(13), stratifiers: [("sex".to_owned(), true)].into(), ..Defined::default() };
    let looks_back = MeasureCard { definitions: ["1.0.0", "1.1.0"].map(|version| (version.to_owned(), defined.clone())).into(), ..proportion() };
    for (card, is_applied) in [(proportion(), true), (looks_back, false)] {
        let network = Network::start(vec![card]).await;
        let north = network.join("north", "North").await;
        deliver(&network, &north, &feed("north", &months("20 21 19 20 22 21 40 41 43 42 44 43"))).await.receipt();
        let page = network.get("/measures/remission").await.text;
        for (words, is_said) in [("Shift: 6 months in a row", is_applied), ("unlikely by chance", is_applied), ("Each value counts patients of 13 months", !is_applied)] {
            assert_eq!(page.contains(words), is_said, "{words}: {page}");
        }
    }
    let own = watershed::cli::registry::card(std::path::Path::new("mappings/measures/ibd/remission")).unwrap();
    assert_eq!(own.definitions.into_values().next().unwrap().lookback_months, Some(13));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_is_a_line_with_words_and_within_the_chart() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string("mappings/measures/ibd/remission/measure.yaml").unwrap();
    std::fs::write(folder.path().join("measure.yaml"), text.replace("  type: run", "  type: run\n  goal: 0.85")).unwrap();
    let defined = watershed::cli::registry::card(folder.path()).unwrap();
    assert_eq!(defined.goal_of("1.0.0"), Some(85.0));
    let goal = defined.definitions.into_values().next().unwrap().goal;
    let defined = Defined { goal, stratifiers: [("sex".to_owned(), true)].into(), ..Defined::default() };
    let card = |versions: &[&str]| MeasureCard { definitions: versions.iter().map(|version| (version.to_string(), defined.clone())).collect(), ..proportion() };
    let with = page(card(&["1.0.0"]), &months("20 30 20 30 20 30 20 30 20 30")).await;
    let line = with
        .split_once("<line class=\"goal\"")
        .map(|(_, rest)| rest.split_once("/>").unwrap().0)
        .unwrap_or_else(|| panic!("{with}"));
    assert_eq!(line, " x1=\"52\" x2=\"398\" y1=\"77.5\" y2=\"77.5\"");
    assert!(with.contains("y=\"77.5\" dy=\"-3\">goal</text><text class=\"goal\" x=\"402\" y=\"77.5\" dy=\"13\">85.0\u{202f}%</text>"), "{with}");
    assert!(with.contains("median 25.0\u{202f}%, goal 85.0\u{202f}%,"), "in the words for who does not see it: {with}");
    assert!(!page(proportion(), &months("20 30 20 30")).await.contains("goal"));
    // Each value is held against the goal of its own version.
    let versions: Vec<Month> = (1..=4).map(|month| (month, if month < 3 { "1.0.0" } else { "1.1.0" }, true, 30, 100)).collect();
    for (with_goal, lines, words) in [(&["1.1.0"][..], vec![" x1=\"225\" x2=\"398\""], true), (&["1.0.0"], vec![" x1=\"52\" x2=\"225\""], false)] {
        let page = page(card(with_goal), &versions).await;
        let drawn: Vec<&str> = page.split("<line class=\"goal\"").skip(1).map(|rest| rest.split_once(" y1").unwrap().0).collect();
        assert_eq!((drawn, page.contains(", goal 85.0")), (lines, words), "{with_goal:?}: {page}");
    }
}

/// The numerator, denominator and value of the only stratum on a page.
fn stratum(page: &str) -> Vec<&str> {
    let (_, row) = page.split_once("role=\"rowheader\">female</th>").unwrap_or_else(|| panic!("{page}"));
    row.split("</td>").take(3).filter_map(|cell| cell.rsplit('>').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_on_versions_that_cannot_be_compared_are_not_added_up() {
    let left_out = "<p>Feb 2024, 1 of 2 sites, of version 1.1.0: what was reported of 1.0.0 cannot be compared with it. Records";
    for (card, offer, strata, says_so) in [
        (proportion(), "40.0\u{202f}% (40 of 100) in Feb 2024, 1 of 2 sites (1 on version 1.0.0)", ["40", "100", "40.0\u{202f}%"], true),
        (comparable(), "50.0\u{202f}% (100 of 200) in Feb 2024, 2 sites", ["160", "300", "53.3\u{202f}%"], false),
    ] {
        let network = Network::start(vec![card]).await;
        for (name, months) in [("east", &[(2, "1.0.0", true, 60, 100)][..]), ("west", &[(1, "1.0.0", true, 60, 100), (2, "1.1.0", true, 40, 100)])] {
            let site = network.join(name, name).await;
            deliver(&network, &site, &feed(name, months)).await.receipt();
        }
        let board = network.get("/").await.text;
        assert!(board.contains(&format!("<strong>{offer}</strong>")), "{offer} in {board}");
        let measure = network.get("/measures/remission").await.text;
        assert_eq!(stratum(&measure), strata, "{measure}");
        assert_eq!(measure.contains(left_out), says_so, "{measure}");
        assert_eq!(measure.contains("<p>Jan 2024 to Feb 2024 together, 2 sites. Records"), !says_so, "{measure}");
        for latest in ["60.0\u{202f}% in Feb 2024 (60 of 100); version 1.0.0</p>", "40.0\u{202f}% in Feb 2024 (40 of 100)</p>"] {
            assert!(measure.contains(latest), "{latest} in {measure}");
        }
        let east = network.get("/measures/remission/sites/east").await.text;
        assert_eq!(stratum(&east), ["60", "100", "60.0\u{202f}%"], "a site's own: {east}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ratio_of_amounts_has_no_interval_of_counts() {
    let rate = MeasureCard { unit: Unit::Rate { per: 1000, of: "days".into() }, ..proportion() };
    let amounts = MeasureCard { sums: [String::new()].into(), ..rate.clone() };
    for (card, interval) in [(rate, Some("12.22 – 30.89")), (amounts, None)] {
        let network = Network::start(vec![card]).await;
        let site = network.join("east", "East").await;
        let population = |code: &str, count: u32| json!({ "code": { "coding": [{ "code": code }] }, "count": count });
        let group = json!({ "population": [population("denominator", 1000), population("numerator", 20)], "measureScore": { "value": 0.02 } });
        let feed = Feed::first("east", &[1]).with(vec![measure_report("east", &key(1), "increase", "ratio", group)]);
        deliver(&network, &site, &feed).await.receipt();
        let page = network.get("/measures/remission/sites/east").await.text;
        let shown = page.split_once("data-label=\"95 % interval\">").map(|(_, rest)| rest.split_once('<').unwrap().0);
        assert!(shown == interval && page.contains(">20.00</td>"), "{interval:?} in {page}");
    }
}

/// The same child is in thirteen months of remission: months are not added up as if it were thirteen children, and the interval is that of
/// those who are there.
#[tokio::test(flavor = "multi_thread")]
async fn strata_count_nobody_twice() {
    let defined = Defined { lookback_months: Some(13), stratifiers: [("sex".to_owned(), true)].into(), ..Defined::default() };
    let looks_back = MeasureCard { definitions: [("1.0.0".to_owned(), defined)].into(), ..proportion() };
    let shared = "Each value counts patients of 13 months, and neighbours share most of them: so only the latest month is shown.";
    for (card, of_all, of_east, all, east) in [
        (
            looks_back,
            ["110", "200", "55.0\u{202f}%", "48.1 – 61.7\u{202f}%"],
            ["60", "100", "60.0\u{202f}%", "50.2 – 69.1\u{202f}%"],
            format!("<p>Feb 2024, 2 of 3 sites, without 1 of partial data. {shared} Records"),
            format!("<p>Feb 2024. {shared}</p>"),
        ),
        (
            proportion(),
            ["200", "500", "40.0\u{202f}%", "35.8 – 44.4\u{202f}%"],
            ["90", "200", "45.0\u{202f}%", "38.3 – 51.9\u{202f}%"],
            "<p>Jan 2024 to Feb 2024 together, 3 sites, without 2 of partial data. Records".to_owned(),
            "<p>Jan 2024 to Feb 2024 together, without 1 of partial data.</p>".to_owned(),
        ),
    ] {
        let network = Network::start(vec![card]).await;
        for (name, text) in [("east", "30 60 ~90"), ("south", "40 ~70"), ("west", "20 50")] {
            let site = network.join(name, name).await;
            deliver(&network, &site, &feed(name, &months(text))).await.receipt();
        }
        for (path, strata, words) in [("/measures/remission", of_all, all), ("/measures/remission/sites/east", of_east, east)] {
            let page = network.get(path).await.text;
            assert_eq!(super::numbers::cells(&page, "female")[..4], strata, "{page}");
            assert!(page.contains(&words), "{words} in {page}");
        }
    }
}
