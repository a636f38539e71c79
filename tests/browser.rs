//! The pages in a real browser: no console errors, charts and their tables present, no sideways scrolling on a phone.
//!
//! Needs `/usr/bin/chromium`; says so and passes where it is absent. Set WATERSHED_SCREENSHOTS to a directory to
//! keep the pictures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use watershed::feed::ReportKey;
use watershed::outbox::{self, Report};
use watershed::registry::{MeasureCard, Unit};
use watershed::store::Store;

use crate::registry::{Adapter, Network, append, body, draft, key, measure_report, proportion, send};

const CHROMIUM: &str = "/usr/bin/chromium";

fn remission() -> MeasureCard {
    MeasureCard {
        title: "Children with IBD in remission".into(),
        plain_language: "Of the children and teenagers with inflammatory bowel disease who are seen at the clinic, how many have a quiet disease: \
                         no signs that it is active at their latest visit. Computed each month from the hospital's own records."
            .into(),
        ..proportion()
    }
}

fn elective() -> MeasureCard {
    MeasureCard {
        id: "early-elective-delivery".into(),
        url: "http://n.example/Measure/early-elective-delivery".into(),
        title: "Early elective deliveries".into(),
        plain_language: "Of the babies born at 37 or 38 weeks, how many were born then without a medical reason. Babies who can wait are better off waiting.".into(),
        higher_is_better: Some(false),
        ..proportion()
    }
}

fn infections() -> MeasureCard {
    MeasureCard {
        id: "clabsi".into(),
        url: "http://n.example/Measure/clabsi".into(),
        versions: vec!["1.0.0".into()],
        title: "Central line infections".into(),
        plain_language: "Infections of the blood that came in through a central line, for every 1,000 days that a child had such a line. Each one can be prevented.".into(),
        higher_is_better: Some(false),
        unit: Unit::Rate { per: 1000, of: "central line days".into() },
        units: Default::default(),
        parts: Default::default(),
        sums: Default::default(),
        definitions: Default::default(),
    }
}

/// A measure of two rates.
fn follow_up() -> MeasureCard {
    MeasureCard {
        id: "follow-up".into(),
        url: "http://n.example/Measure/follow-up".into(),
        title: "Follow-up after a stay".into(),
        plain_language: "Of the children who were sent home, how many were seen again soon: within 7 days, and within 30.".into(),
        ..proportion()
    }
}

fn follow_up_report(site: &str, key: &ReportKey, within: [u32; 2], stays: u32) -> Vec<u8> {
    let group = |days: u32, numerator: u32| {
        let counts = [("initial-population", stays), ("denominator", stays), ("numerator", numerator)].map(|(code, count)| population(code, count.into()));
        let stratum = |name: &str, of: u32| json!({ "value": { "text": name }, "population": [population("denominator", (stays / of).into()), population("numerator", (numerator / of).into())] });
        json!({
            "id": format!("within-{days}"), "code": { "text": format!("Seen within {days} days") },
            "population": counts, "measureScore": { "value": f64::from(numerator) / f64::from(stays) },
            "stratifier": [{ "code": [{ "text": "payer" }], "stratum": [stratum("public", 2), stratum("private", 3)] }]
        })
    };
    measure_report(site, key, "increase", "proportion", json!([group(7, within[0]), group(30, within[1])]))
}

fn population(code: &str, count: u64) -> Value {
    json!({ "code": { "coding": [{ "code": code }] }, "count": count })
}

fn observed(side: &str, value: u64) -> Value {
    json!({
        "extension": [
            { "url": "http://hl7.org/fhir/StructureDefinition/cqf-criteriaReference", "valueString": side },
            { "url": "http://hl7.org/fhir/StructureDefinition/measurereport-countQuantity", "valueQuantity": { "value": value } }
        ],
        "code": { "coding": [{ "code": "measure-observation" }] }
    })
}

fn clabsi_report(site: &str, key: &ReportKey, events: u64, days: u64) -> Vec<u8> {
    let part = |share: u64| {
        let (events, days) = (events * share / 100, days * share / 100);
        json!([population("denominator", days / 9), population("numerator", events), observed("denominator", days), observed("numerator", events)])
    };
    let stratum = |name: &str, share: u64| json!({ "value": { "text": name }, "population": part(share) });
    let group = json!({
        "population": part(100),
        "measureScore": { "value": events as f64 / days as f64 * 1000.0 },
        "stratifier": [
            { "code": [{ "text": "race" }], "stratum": [stratum("Asian", 6), stratum("Black or African American", 34), stratum("White", 50), stratum("unknown", 10)] },
            { "code": [{ "text": "ethnicity" }], "stratum": [stratum("Hispanic or Latino", 20), stratum("Not Hispanic or Latino", 75), stratum("unknown", 5)] }
        ]
    });
    measure_report(site, key, "decrease", "ratio", group)
}

/// 24 months of one site, with a level that changes and one month of partial data.
fn reports(site: &str, seed: u32) -> Vec<Report> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut random = move |below: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % below
    };
    let mut reports = Vec::new();
    for month in 1..=24 {
        let complete = !(seed == 2 && month == 20);
        let key = key(month);
        let patients = 80 + random(40);
        let level = if seed == 1 && month > 15 { 78 } else { 64 };
        reports.push(Report { body: body(site, &key, patients * (level + random(9)) / 100, patients), key: key.clone(), complete });
        let elective = ReportKey { measure: "http://n.example/Measure/early-elective-delivery".into(), ..key.clone() };
        let births = 20 + random(12);
        let early = if seed == 3 { births * month / 60 } else { births * (24 - month) / 80 + random(3) };
        reports.push(Report { body: elective_report(site, &elective, early, births, if seed == 2 && month > 12 { births / 4 } else { 0 }), key: elective, complete });
        let follow_up = ReportKey { measure: "http://n.example/Measure/follow-up".into(), ..key.clone() };
        let (soon, later) = (10 + random(8) + month / 3, 24 + random(8));
        reports.push(Report { body: follow_up_report(site, &follow_up, [soon, later], 40), key: follow_up, complete });
        let clabsi = ReportKey { measure: "http://n.example/Measure/clabsi".into(), ..key };
        let days = 900 + u64::from(random(700));
        reports.push(Report { body: clabsi_report(site, &clabsi, u64::from(random(5)), days), key: clabsi, complete });
    }
    reports
}

/// `open` is of how many more the records cannot tell.
fn elective_report(site: &str, key: &ReportKey, numerator: u32, denominator: u32, open: u32) -> Vec<u8> {
    let of = denominator + open;
    let bound = |numerator: u32| f64::from(numerator) / f64::from(of);
    let counts = [("initial-population", denominator), ("denominator", denominator), ("numerator", numerator)];
    let group = json!({
        "extension": [
            { "url": "http://w/cannot-tell", "extension": [{ "url": "count", "valueInteger": open }, { "url": "of", "valueInteger": of }] },
            { "url": "http://w/score-bounds", "extension": [{ "url": "low", "valueDecimal": bound(numerator) }, { "url": "high", "valueDecimal": bound(numerator + open) }] }
        ],
        "population": counts.map(|(code, count)| population(code, count.into())),
        "measureScore": { "value": f64::from(numerator) / f64::from(denominator) }
    });
    measure_report(site, key, "decrease", "proportion", group)
}

async fn night(network: &Network, adapter: &Adapter, reports: Vec<Report>) {
    let store = Store::open_in_memory().unwrap();
    store.with(|connection| Ok(outbox::open_epoch(connection).unwrap())).unwrap();
    append(&store, &draft(&adapter.name, reports), network.now());
    let done = send(network, adapter, &store).await;
    if done.delivered != 1 && adapter.name != "valley" {
        panic!("{:?}", store.with(|connection| Ok(outbox::list(connection).unwrap())).unwrap());
    }
}

/// A registry filled through the real protocol: one site fine, one partial, one late, one rejected, one silent.
async fn demo() -> Network {
    let network = Network::start(vec![remission(), infections(), elective(), follow_up()]).await;
    let lake = network.join("lake", "Lakeside Children's Hospital").await;
    night(&network, &lake, reports("lake", 3)).await;
    network.clock.fetch_add(3 * 86_400, Ordering::SeqCst);
    for (name, organization, seed) in [("harbor", "Harbor Children's", 1), ("prairie", "Prairie University Hospital", 2)] {
        let adapter = network.join(name, organization).await;
        night(&network, &adapter, reports(name, seed)).await;
    }
    let valley = network.join("valley", "Valley Medical Center").await;
    let bad = Report { body: body("valley", &key(1), 150, 100), key: key(1), complete: true };
    night(&network, &valley, vec![bad]).await;
    network.join("ridge", "Ridge Community Hospital").await;
    network.clock.fetch_add(2 * 3600, Ordering::SeqCst);
    network
}

struct Browser {
    profile: tempfile::TempDir,
}

impl Browser {
    fn run(&self, arguments: &[&str]) -> (String, String) {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let output = Command::new(CHROMIUM)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr", &profile])
            .args(arguments)
            .output()
            .unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The page after the browser has read it; fails on anything in its console.
    fn dom(&self, url: &str) -> String {
        let (dom, log) = self.run(&["--dump-dom", url]);
        let complaints: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE") || line.contains("Content Security Policy")).collect();
        assert!(complaints.is_empty(), "{url}: {complaints:?}");
        dom
    }

    fn screenshot(&self, url: &str, file: &Path, size: &str, further: &[&str]) {
        let (file, size) = (format!("--screenshot={}", file.display()), format!("--window-size={size}"));
        self.run(&[&[file.as_str(), size.as_str()], further, &[url]].concat());
    }

    /// Width of the page's content in a window of the given width, with what a table hides beyond its edge. The pages forbid frames and scripts, so a
    /// page of our own, with the browser's own guard off, lays their text out in a frame.
    fn content_width(&self, base: &str, path: &str, width: u32) -> u32 {
        let probe = self.profile.path().join("probe.html");
        let text = format!(
            "<body><iframe id=f style='width:{width}px;height:800px;border:0'></iframe><script>(async () => {{
             const [page, style] = await Promise.all(['{path}', '/style.css'].map(p => fetch('{base}' + p).then(r => r.text())));
             const d = document.getElementById('f').contentDocument; d.open();
             d.write(page.replace(/<link[^>]*>/g, '') + '<style>' + style + '</style>'); d.close();
             d.querySelectorAll('details').forEach(e => e.open = true);
             const cut = [...d.querySelectorAll('.scroll')].map(e => {width} + e.scrollWidth - e.clientWidth);
             document.title = 'width ' + Math.max(d.documentElement.scrollWidth, ...cut); }})()</script>"
        );
        std::fs::write(&probe, text).unwrap();
        let url = format!("file://{}", probe.display());
        let (dom, log) = self.run(&["--disable-web-security", "--virtual-time-budget=10000", "--dump-dom", &url]);
        let after = dom.split("<title>width ").nth(1).unwrap_or_else(|| panic!("no width measured: {log}"));
        after.split('<').next().unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_in_chromium() {
    if !Path::new(CHROMIUM).exists() {
        crate::figures::say(&format!("skipped: {CHROMIUM} absent"));
        return;
    }
    let network = demo().await;
    let browser = Browser { profile: tempfile::tempdir().unwrap() };
    let base = network.base();
    let pages = [
        ("board", "/"),
        ("remission", "/measures/remission"),
        ("clabsi", "/measures/clabsi"),
        ("elective", "/measures/early-elective-delivery"),
        ("follow-up", "/measures/follow-up"),
        ("site", "/measures/remission/sites/harbor"),
        ("site-of-groups", "/measures/follow-up/sites/harbor"),
        ("revisions", "/measures/remission/sites/harbor/2025-12-01"),
    ];
    tokio::task::spawn_blocking(move || {
        let board = browser.dom(&format!("{base}/"));
        for word in ["Lakeside Children's Hospital", "Late", "Partial", "Rejected", "Nothing yet", "is greater than denominator", "3 days ago", "2 hours ago"] {
            assert!(board.contains(word), "the board lacks `{word}`: {board}");
        }
        for (name, path, hollow, shifts) in [("remission", "/measures/remission", 1, true), ("clabsi", "/measures/clabsi", 1, false)] {
            let page = browser.dom(&format!("{base}{path}"));
            assert_eq!(page.matches("<svg class=\"chart\"").count(), 3, "{name}");
            assert_eq!(page.matches("<circle").count(), 3 * 24, "{name}");
            assert_eq!(page.matches("class=\"partial\" cx").count(), hollow, "{name}");
            assert_eq!(page.matches("<polyline class=\"run\"").count(), 3, "{name}");
            assert_eq!(page.matches("<th scope=\"row\" role=\"rowheader\">Jan 2024</th>").count(), 3, "{name}: the tables hold every month");
            assert_eq!(page.contains("shift ↑"), shifts, "{name}");
            assert!(page.contains("Dec 2025: "), "{name}: points have titles");
        }
        let elective = browser.dom(&format!("{base}/measures/early-elective-delivery"));
        assert_eq!(elective.matches("cannot be told: ").count(), 12 * 2 + 1, "a line and a dot for each month, and the latest: {elective}");
        assert_eq!(elective.matches("<th scope=\"col\" role=\"columnheader\" class=\"number\">Cannot be told</th>").count(), 1);
        let follow_up = browser.dom(&format!("{base}/measures/follow-up"));
        assert_eq!(follow_up.matches("<svg class=\"chart\"").count(), 2 * 3, "each group of each site: {follow_up}");
        let clabsi = browser.dom(&format!("{base}/measures/clabsi"));
        assert!(clabsi.contains("By race") && clabsi.contains("Black or African American") && clabsi.contains("unknown"));
        let keep = std::env::var_os("WATERSHED_SCREENSHOTS").map(PathBuf::from);
        let directory = keep.unwrap_or_else(|| browser.profile.path().to_owned());
        for (name, path) in pages {
            for window in [390, 1440] {
                let width = browser.content_width(&base, path, window);
                assert!(width <= window, "{path} is {width} pixels wide in a window of {window}");
            }
            let url = format!("{base}{path}");
            let file = directory.join(format!("{name}-desktop.png"));
            browser.screenshot(&url, &file, "1280,1400", &[]);
            assert!(std::fs::metadata(&file).unwrap().len() > 10_000, "{name}: a picture");
            if std::env::var_os("WATERSHED_SCREENSHOTS").is_some() {
                browser.screenshot(&url, &directory.join(format!("{name}-phone.png")), "390,1700", &[]);
                browser.screenshot(&url, &directory.join(format!("{name}-dark.png")), "1280,1400", &["--blink-settings=preferredColorScheme=0"]);
            }
        }
    })
    .await
    .unwrap();
}
