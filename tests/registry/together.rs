//! What is added up over sites and months, and what is not: composites of other parts, what a minority knows, what may be nobody.

use serde_json::{Value, json};
use watershed::registry::{Defined, MeasureCard, Unit};

use super::{Feed, Network, deliver, key, measure_report, proportion};

fn extension(name: &str, parts: &[Value]) -> Value {
    json!({ "url": format!("http://watershed.example/fhir/StructureDefinition/{name}"), "extension": parts })
}

fn integer(name: &str, value: u64) -> Value {
    json!({ "url": name, "valueInteger": value })
}

fn counts(numerator: u64, denominator: u64) -> Value {
    let population = |code: &str, count: u64| json!({ "code": { "coding": [{ "code": code }] }, "count": count });
    json!([population("initial-population", denominator), population("denominator", denominator), population("numerator", numerator)])
}

/// A group or stratum of so many of so many.
fn some(numerator: u64, denominator: u64, extensions: &[Value]) -> Value {
    let mut group = json!({ "population": counts(numerator, denominator), "extension": extensions });
    if denominator > 0 {
        group["measureScore"] = json!({ "value": numerator as f64 / denominator as f64 });
    }
    group
}

/// Of so many it cannot be told, and numerator and denominator at either bound.
fn told(count: u64, of: u64, ends: [(u64, u64); 2]) -> Vec<Value> {
    let share = |(numerator, denominator): (u64, u64), alone: f64| if denominator == 0 { alone } else { numerator as f64 / denominator as f64 };
    let bound = |name: &str, value: f64| json!({ "url": name, "valueDecimal": value });
    let end = |name: &str, (numerator, denominator): (u64, u64)| json!({ "url": name, "extension": [integer("numerator", numerator), integer("denominator", denominator)] });
    let bounds = [bound("low", share(ends[0], 1.0)), bound("high", share(ends[1], 0.0)), end("low-parts", ends[0]), end("high-parts", ends[1])];
    vec![extension("cannot-tell", &[integer("count", count), integer("of", of)]), extension("score-bounds", &bounds)]
}

async fn send(network: &Network, name: &str, scoring: &str, months: &[Value]) {
    let site = network.join(name, name).await;
    let bodies: Vec<Vec<u8>> = (1..).zip(months).map(|(month, group)| measure_report(name, &key(month), "increase", scoring, group.clone())).collect();
    let feed = Feed::first(name, &vec![1; months.len()]).with(bodies);
    let answer = deliver(network, &site, &feed).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text);
}

/// The composite says nothing of versions; each report says what it was made of, and the part of which that cannot be compared is not
/// added up in its own board either.
#[tokio::test(flavor = "multi_thread")]
async fn composites_of_parts_that_cannot_be_compared_are_not_added_up() {
    let part = |comparable: &[&str]| {
        let defined = Defined { comparable: comparable.iter().map(|version| (*version).to_owned()).collect(), ..Defined::default() };
        MeasureCard { id: "sickle".into(), url: "http://n.example/Measure/sickle".into(), definitions: [("1.1.0".to_owned(), defined)].into(), ..proportion() }
    };
    for (comparable, offer, turn) in [
        (
            &[][..],
            "40.0\u{202f}% (40 of 100) in Feb 2024, 1 of 2 sites (1 on version 1.0.0 (of sickle 1.0.0))",
            "its values are not compared with those of version 1.0.0 (of sickle 1.0.0)",
        ),
        (&["1.0.0"], "50.0\u{202f}% (100 of 200) in Feb 2024, 2 sites", "it says that it can be compared with version 1.0.0 (of sickle 1.0.0)"),
    ] {
        let network = Network::start(vec![MeasureCard { parts: vec![part(comparable)], ..proportion() }]).await;
        let of = |version: &str, numerator| {
            let component = json!({ "url": "component", "extension": [{ "url": "measure", "valueString": format!("http://n.example/Measure/sickle|{version}") }] });
            some(numerator, 100, &[extension("composite", &[json!({ "url": "method", "valueCode": "opportunity" }), component])])
        };
        send(&network, "east", "composite", &[of("1.0.0", 50), of("1.0.0", 60)]).await;
        send(&network, "west", "composite", &[of("1.0.0", 50), of("1.1.0", 40)]).await;
        let board = network.get("/").await.text;
        assert!(board.contains(&format!("<strong>{offer}</strong>")), "{offer} in {board}");
        let made_of = "http://n.example/Measure/sickle|1.1.0";
        assert_eq!(network.points().await[3]["madeOf"], json!([made_of]));
        let csv = network.get("/v1/measures/remission/series?format=csv").await.text;
        assert!(csv.lines().next().unwrap().ends_with(",cannot_tell_of,made_of") && csv.lines().nth(4).unwrap().ends_with(&format!(",{made_of}")), "{csv}");
        let west = network.get("/measures/remission/sites/west").await.text;
        assert!(west.contains(&format!("Version 1.0.0 (of sickle 1.1.0) of the measure from Feb 2024 on: {turn}.")), "{west}");
    }
}

/// One site of three knows: 4 of 4. Of the other two 3 and 9 cannot be told, so the network is anywhere from 4 of 16 to 13 of 13.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_minority_of_sites_knows_is_no_number_of_the_network() {
    let network = Network::start(vec![proportion()]).await;
    send(&network, "east", "proportion", &[some(4, 4, &[])]).await;
    // Three who may be in the denominator, and never in the numerator.
    send(&network, "north", "proportion", &[some(0, 0, &told(3, 3, [(0, 3), (0, 0)]))]).await;
    send(&network, "west", "proportion", &[some(0, 9, &told(9, 9, [(0, 9), (9, 9)]))]).await;
    let board = network.get("/").await.text;
    let offer = "not known in Jan 2024, 1 of 3 sites (2 not known; 12 of 16 cannot be told: 25.0 – 100.0\u{202f}%)";
    assert!(board.contains(&format!("<strong>{offer}</strong>")) && board.contains("late after 36 hours without a word"), "{board}");
    let north = network.get("/measures/remission/sites/north").await.text;
    assert!(north.contains("not known in Jan 2024; 3 of 3 cannot be told: 0.0 – 0.0\u{202f}%"), "{north}");
}

/// A month in which one of one is fulfilled, beside one in which twenty of twenty cannot be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_stratum_of_which_more_than_half_cannot_be_told_is_not_known() {
    let network = Network::start(vec![proportion()]).await;
    let stratified = |mut stratum: Value| {
        let mut group = stratum.clone();
        stratum["value"] = json!({ "text": "female" });
        group["stratifier"] = json!([{ "code": [{ "text": "sex" }], "stratum": [stratum] }]);
        group
    };
    let months = [stratified(some(1, 1, &[])), stratified(some(0, 20, &told(20, 20, [(0, 20), (0, 0)])))];
    send(&network, "north", "proportion", &months).await;
    let page = network.get("/measures/remission").await.text;
    assert_eq!(super::numbers::cells(&page, "female")[..6], ["1", "21", "not known", "–", "20 of 21", "4.8 – 100.0\u{202f}%"], "{page}");
}

/// The network holds no site to the length of a published measure's periods: the page goes by what was reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_names_the_periods_that_were_reported() {
    let mut card = proportion();
    card.definitions = [("1.0.0", None), ("1.1.0", None)]
        .map(|(version, period)| (version.to_owned(), Defined { period, ..Defined::default() }))
        .into();
    let network = Network::start(vec![card]).await;
    let site = network.join("north", "north").await;
    let year = watershed::feed::ReportKey { period_start: "2024-01-01".into(), period_end: "2024-12-31".into(), ..key(1) };
    let mut feed = Feed::first("north", &[1]).with(vec![measure_report("north", &year, "increase", "proportion", some(3, 4, &[]))]);
    feed.manifest.reports[0].key = year;
    assert_eq!(deliver(&network, &site, &feed).await.status, 200);
    for path in ["/measures/remission", "/measures/remission/sites/north"] {
        let page = network.get(path).await.text;
        assert!(page.contains("shown in percent, by year") && page.contains("75.0\u{202f}% in 2024"), "{page}");
    }
}

/// Observed by expected: no share of anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_ratio_without_a_rate_is_shown_as_one() {
    let card = MeasureCard { unit: Unit::Rate { per: 1, of: String::new() }, higher_is_better: None, ..proportion() };
    let network = Network::start(vec![card]).await;
    send(&network, "north", "ratio", &[some(21, 59, &[])]).await;
    let page = network.get("/measures/remission").await.text;
    for words in ["0.356 in Jan 2024 (21 by 59)", "shown as a ratio", ">Ratio</th>", "which direction is better is not told"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert!(!page.contains("better</strong>") && !page.contains("35.6"), "{page}");
    assert_eq!(network.get("/v1/measures").await.json()["measures"][0]["unit"], json!({ "kind": "ratio" }));
}
