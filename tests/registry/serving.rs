//! A registry's process, and what it shows to whoever looks: one process a directory, no plain HTTP beyond this host, the board, the
//! pages.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde_json::{Value, json};
use watershed::registry::{self, Options};

use super::{Feed, Network, deliver, key, measure_report, proportion};

pub(super) fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        public_url: "https://registry.example".into(),
        network: "N".into(),
        measures: vec![],
        tls: None,
        behind_proxy: false,
        late_after_hours: 36,
        reader_token: None,
        quota: Default::default(),
        new_receipt_key: false,
        clock: Arc::new(Timestamp::now),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_a_data_directory() {
    let network = Network::start(vec![proportion()]).await;
    // It answers; and who serves and who registers sites work side by side.
    network.join("north", "North").await;
    let second = registry::Server::open(options(network.data.path()), TcpListener::bind("127.0.0.1:0").unwrap()).await;
    let error = second.err().unwrap().to_string();
    assert!(error.contains("registry.sqlite.lock is locked: another `watershed registry serve` works on this data directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_served_on_loopback_only() {
    let data = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let error = registry::serve(options(data.path()), listener, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("is not loopback") && error.contains("behind_proxy"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_has_just_joined_is_not_late_before_its_first_night_was_due() {
    let network = Network::start(vec![proportion()]).await;
    network.join("north", "North").await;
    let board = async || (network.get("/").await.text, network.get("/v1/sites").await.json()["sites"][0]["late"].clone());
    let (text, late) = board().await;
    assert!(text.contains("<strong>0 of 1</strong> site in · <strong>1</strong> new.") && text.contains("Nothing yet"), "{text}");
    assert_eq!(late, false);
    network.clock.fetch_add(37 * 3600, Ordering::SeqCst);
    let (text, late) = board().await;
    assert!(text.contains("<strong>0 of 1</strong> site in · <strong>1</strong> late.") && text.contains("Nothing yet"), "{text}");
    assert_eq!(late, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_no_script_and_escape_what_sites_say() {
    let payloads = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'; DROP TABLE site;--", "</title><svg onload=alert(1)>", "{{7*7}}"];
    let mut card = proportion();
    card.title = payloads.join(" ");
    card.plain_language = payloads.join(" ");
    let network = Network::start(vec![card]).await;
    for (index, payload) in payloads.iter().enumerate() {
        let name = format!("site-{index}");
        let adapter = network.join(&name, payload).await;
        deliver(&network, &adapter, &Feed::first(&name, &[60, 61, 62])).await.receipt();
    }
    let pages = ["/", "/measures/remission", "/measures/remission/sites/site-0", "/measures/remission/sites/site-1/2024-01-01", "/nowhere", "/measures/%3Cscript%3E"];
    for path in pages {
        let page = network.get(path).await;
        assert_eq!(page.headers["content-security-policy"].to_str().unwrap().split(';').next(), Some("default-src 'self'"));
        for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
            assert_eq!(page.headers[name], value);
        }
        for hostile in ["<script", "<img", "<svg onload", "style=\""] {
            assert!(!page.text.contains(hostile), "{path} holds {hostile}");
        }
        assert!(!page.text.contains(" 49 "), "{path} evaluates what it was given");
    }
    assert_eq!(network.get("/nowhere").await.status, 404);
    let csv = network.get("/v1/measures/remission/series?site=site-0&format=csv").await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(csv.text.lines().count(), 4);
    assert!(csv.text.lines().nth(1).unwrap().starts_with("site-0,remission,1.0.0,2024-01-01,2024-01-31,60,100,60,true,1,2026-"), "{}", csv.text);
    assert!(csv.text.lines().nth(1).unwrap().ends_with(",,,0,"), "nothing is open: {}", csv.text);
    assert_eq!(network.get("/v1/sites").await.json()["sites"].as_array().unwrap().len(), 5);
    assert_eq!(network.get("/v1/measures").await.json()["measures"][0]["id"], "remission");
    assert_eq!(network.get("/v1/measures/none/series").await.refusal().0, 404);
}

/// Nobody sees a bare score where the records of 23 of 23 do not say enough.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_stands_beside_every_number() {
    let network = Network::start(vec![proportion()]).await;
    for (name, numerator, open, low, high) in [("north", 0, 23, 0.0, 1.0), ("south", 50, 0, 0.5, 0.5)] {
        let site = network.join(name, name).await;
        let denominator = if open > 0 { 23 } else { 100 };
        let told = json!([
            { "url": "http://w/cannot-tell", "extension": [{ "url": "count", "valueInteger": open }, { "url": "of", "valueInteger": denominator }] },
            { "url": "http://w/score-bounds", "extension": [{ "url": "low", "valueDecimal": low }, { "url": "high", "valueDecimal": high }] }
        ]);
        let population =
            |code: &str, count: u32| json!({ "code": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-population", "code": code }] }, "count": count });
        let populations = json!([population("initial-population", denominator), population("denominator", denominator), population("numerator", numerator)]);
        let score = json!({ "value": f64::from(numerator) / f64::from(denominator) });
        let stratum = json!({ "value": { "text": "female" }, "population": populations, "extension": told });
        let group = json!({ "population": populations, "measureScore": score, "extension": told, "stratifier": [{ "code": [{ "text": "sex" }], "stratum": [stratum] }] });
        let feed = Feed::first(name, &[1]).with(vec![measure_report(name, &key(1), "increase", "proportion", group)]);
        assert_eq!(deliver(&network, &site, &feed).await.status, 200, "{name}");
    }
    let points: Vec<_> = network
        .points()
        .await
        .iter()
        .map(|point| ["value", "low", "high", "cannotTell", "cannotTellOf"].map(|name| point[name].clone()))
        .collect();
    assert_eq!(points, [[Value::Null, json!(0.0), json!(100.0), json!(23), json!(23)], [json!(50.0), Value::Null, Value::Null, json!(0), Value::Null]]);
    let csv = network.get("/v1/measures/remission/series?site=north&format=csv").await.text;
    assert!(csv.lines().next().unwrap().ends_with("committed_at,low,high,cannot_tell,cannot_tell_of") && csv.lines().nth(1).unwrap().ends_with(",0,100,23,23"), "{csv}");
    let board = network.get("/").await.text;
    for words in ["50.0\u{202f}% (50 of 100) in Jan 2024, 1 of 2 sites (1 not known)", "complete; 1 report cannot tell of everybody"] {
        assert!(board.contains(words), "{words} in {board}");
    }
    assert_eq!(network.get("/v1/sites").await.json()["sites"][0]["lastFeed"]["reportsThatCannotTell"], 1);
    let open = "23 of 23 cannot be told: 0.0 – 100.0\u{202f}%";
    let measure = network.get("/measures/remission").await.text;
    for words in [
        open,
        "data-label=\"Percent\">not known</td><td role=\"cell\" class=\"number quiet\" data-label=\"95 % interval\">–</td>",
        // 50 to 73 of 123.
        "data-label=\"Cannot be told\">23 of 23</td><td role=\"cell\" class=\"number\" data-label=\"If all were known\">0.0 – 100.0\u{202f}%</td>",
        "data-label=\"Cannot be told\">23 of 123</td><td role=\"cell\" class=\"number\" data-label=\"If all were known\">40.7 – 59.3\u{202f}%</td>",
    ] {
        assert!(measure.contains(words), "{words} in {measure}");
    }
    assert_eq!(measure.matches(">Cannot be told</th>").count(), 2, "no such column where nothing is open: {measure}");
    let site = network.get("/measures/remission/sites/north").await.text;
    assert!(site.contains(&format!("not known in Jan 2024; {open}.")) && site.contains("In 1 of 1 period the hospital’s records cannot tell of everybody"), "{site}");
    assert!(site.contains(&format!("<title>Jan 2024: {open}</title>")), "the chart's line: {site}");
    assert!(!site.contains("<circle"), "nobody knows where its dot would be: {site}");
    let history = network.get("/measures/remission/sites/north/2024-01-01").await.text;
    assert!(history.contains(&format!("0 / 23 ({open})")), "{history}");
}

/// A weighted composite has a score and nothing to count: the series is the score, and of two sites it lies between theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_score_that_is_no_fraction_is_shown_as_it_was_reported() {
    let network = Network::start(vec![proportion()]).await;
    for (name, score) in [("north", "0.61"), ("south", "0.745")] {
        let site = network.join(name, name).await;
        let group = json!({ "measureScore": { "value": score.parse::<f64>().unwrap() } });
        let feed = Feed::first(name, &[1]).with(vec![measure_report(name, &key(1), "increase", "composite", group)]);
        assert_eq!(deliver(&network, &site, &feed).await.status, 200, "{name}");
    }
    let points: Vec<_> = network.points().await.iter().map(|point| (point["numerator"].clone(), point["value"].clone())).collect();
    assert_eq!(points, [(Value::Null, json!(61.0)), (Value::Null, json!(74.5))]);
    let board = network.get("/").await.text;
    assert!(board.contains("61.0\u{202f}% to 74.5\u{202f}% in Jan 2024, 2 sites"), "{board}");
    let history = network.get("/measures/remission/sites/north/2024-01-01").await.text;
    assert!(history.contains("score 0.61"), "{history}");
    let north = network.get("/measures/remission/sites/north").await.text;
    assert!(north.contains("61.0\u{202f}% in Jan 2024") && !north.contains("– of –"), "{north}");
}

/// What is begun says nothing of how things stand: only what was committed or confirmed is a word of the site.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_begun_and_not_finished_is_no_word_of_the_site() {
    let network = Network::start(vec![proportion()]).await;
    let mut north = network.join("north", "North").await;
    let site = async || network.get("/v1/sites").await.json()["sites"][0].clone();
    let first = Feed::first("north", &[60]);
    deliver(&network, &north, &first).await.receipt();
    let heard = site().await["heardAt"].clone();
    network.clock.fetch_add(37 * 3600, Ordering::SeqCst);
    network.log_in(&mut north).await;
    let second = Feed::after("north", Some(&first), &[61]);
    assert_eq!(network.announce(&north, &second.bytes()).await.status, 201);
    let found = site().await;
    assert_eq!((&found["heardAt"], &found["late"], found["begunAt"].is_string()), (&heard, &json!(true), true));
    let board = network.get("/").await.text;
    assert!(board.contains("Late") && board.contains("begun just now, not finished") && !board.contains("confirmed"), "{board}");
    // The last feed repeated is a confirmation.
    assert_eq!(network.announce(&north, &first.bytes()).await.status, 200);
    assert_eq!(site().await["late"], false);
    network.part(&north, &second.id(), &second.bodies[0]).await;
    network.commit(&north, &second.id()).await.receipt();
    assert_eq!(site().await["begunAt"], Value::Null);
    // An older one repeated is none.
    network.clock.fetch_add(37 * 3600, Ordering::SeqCst);
    network.log_in(&mut north).await;
    network.commit(&north, &first.id()).await.receipt();
    assert_eq!(site().await["late"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_measure_that_a_site_stopped_sending_is_named_on_the_board() {
    let mut second = proportion();
    (second.id, second.url, second.title) = ("flare".into(), "http://n.example/Measure/flare".into(), "Flares".into());
    let network = Network::start(vec![proportion(), second]).await;
    let north = network.join("north", "North").await;
    let mut both = Feed::first("north", &[60, 61]);
    let flare = watershed::feed::ReportKey { measure: "http://n.example/Measure/flare".into(), ..key(1) };
    both.bodies.swap(0, 1);
    both.manifest.reports.swap(0, 1);
    both.manifest.reports[0].key = flare.clone();
    let bodies = vec![super::body("north", &flare, 60, 100), super::body("north", &key(1), 61, 100)];
    both.manifest.reports[1].key = key(1);
    let both = both.with(bodies);
    deliver(&network, &north, &both).await.receipt();
    let named = async || network.get("/v1/sites").await.json()["sites"][0]["measuresNoLongerSent"].clone();
    assert_eq!(named().await, json!([]));
    deliver(&network, &north, &Feed::after("north", Some(&both), &[62])).await.receipt();
    assert_eq!(named().await, json!(["http://n.example/Measure/flare"]));
    let board = network.get("/").await.text;
    assert!(board.contains("Partial") && board.contains("no longer sent: Flares"), "{board}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mean_of_minutes_is_shown_as_a_number() {
    let mut card = proportion();
    card.unit = registry::Unit::Number;
    let network = Network::start(vec![card]).await;
    let north = network.join("north", "North").await;
    let population = json!({ "code": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-population", "code": "measure-population" }] }, "count": 12 });
    let group = json!({ "population": [population], "measureScore": { "value": 13.008_333 } });
    let feed = Feed::first("north", &[1]).with(vec![measure_report("north", &key(1), "decrease", "continuous-variable", group)]);
    deliver(&network, &north, &feed).await.receipt();
    assert_eq!(network.points().await[0]["value"], 13.008_333);
    let page = network.get("/measures/remission").await.text;
    assert!(page.contains("shown as a number") && page.contains("13.01 in Jan 2024") && page.contains(">Value</th>") && !page.contains("13.01\u{202f}%"), "{page}");
}
