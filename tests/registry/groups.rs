//! Measures with several groups, each a series of its own; and what a registry holds from before it knew of them.

use serde_json::{Value, json};

use super::{Feed, Network, body, deliver, key, measure_report, proportion};

/// One group of a report: its id, what people call it, and its counts of 100.
fn group(id: &str, text: &str, numerator: u32) -> Value {
    let population =
        |code: &str, count: u32| json!({ "code": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-population", "code": code }] }, "count": count });
    let populations = json!([population("initial-population", 100), population("denominator", 100), population("numerator", numerator)]);
    let stratum = json!({ "value": { "text": "female" }, "population": populations });
    json!({
        "id": id, "code": { "text": text }, "population": populations, "measureScore": { "value": f64::from(numerator) / 100.0 },
        "stratifier": [{ "code": [{ "text": "sex" }], "stratum": [stratum] }]
    })
}

fn report(site: &str, month: u32, begun: u32, kept: u32) -> Vec<u8> {
    measure_report(site, &key(month), "increase", "proportion", json!([group("begun", "Treatment begun", begun), group("kept", "Treatment kept", kept)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn several_groups_are_several_series_wherever_they_are_shown() {
    let network = Network::start(vec![proportion()]).await;
    let (north, south) = (network.join("north", "Northern").await, network.join("south", "Southern").await);
    let first = Feed::first("north", &[1, 1]).with(vec![report("north", 1, 60, 30), report("north", 2, 70, 40)]);
    deliver(&network, &north, &first).await.receipt();
    deliver(&network, &south, &Feed::first("south", &[1]).with(vec![report("south", 1, 50, 20)])).await.receipt();

    let points: Vec<Value> = network
        .points()
        .await
        .iter()
        .map(|point| json!([point["site"], point["group"], point["periodStart"], point["value"]]))
        .collect();
    let expected = json!([
        ["north", "begun", "2024-01-01", 60.0],
        ["north", "begun", "2024-02-01", 70.0],
        ["north", "kept", "2024-01-01", 30.0],
        ["north", "kept", "2024-02-01", 40.0],
        ["south", "begun", "2024-01-01", 50.0],
        ["south", "kept", "2024-01-01", 20.0]
    ]);
    assert_eq!(json!(points), expected);
    let csv = network.get("/v1/measures/remission/series?site=north&group=kept&format=csv").await.text;
    let rows: Vec<&str> = csv.lines().collect();
    assert!(rows.len() == 3 && rows[0].ends_with(",cannot_tell_of,group,group_label"), "{csv}");
    assert!(rows[1].starts_with("north,remission,1.0.0,2024-01-01,2024-01-31,30,100,30,") && rows[1].ends_with(",kept,Treatment kept"), "{csv}");

    let board = network.get("/").await.text;
    assert!(
        board.contains(
            "Treatment begun: 70.0\u{202f}% (70 of 100) in Feb 2024, 1 of 2 sites (1 not in); Treatment kept: 40.0\u{202f}% (40 of 100) in Feb 2024, 1 of 2 sites (1 not in)"
        ),
        "{board}"
    );
    let measure = network.get("/measures/remission").await.text;
    for part in ["<h2>Treatment begun</h2>", "<h2>Treatment kept</h2>", "Northern: Treatment begun", "Southern: Treatment kept", "id=\"heading-north-1\"", "id=\"heading-south-2\""]
    {
        assert!(measure.contains(part), "{part} in {measure}");
    }
    // Each group's strata are summed for themselves: 60 + 70 + 50, and 30 + 40 + 20, of 300.
    assert!(measure.contains("data-label=\"Numerator\">180</td>") && measure.contains("data-label=\"Numerator\">90</td>"), "{measure}");
    let site = network.get("/measures/remission/sites/north").await.text;
    assert!(site.contains("<h1>Northern</h1>") && site.contains("Numbers: Treatment kept") && !site.contains("Southern"), "{site}");

    // A correction of one group is a revision of the report; the other group's numbers stay.
    let second = Feed::after("north", Some(&first), &[1, 1]);
    let bodies = vec![report("north", 1, 60, 31), report("north", 2, 70, 40)];
    let mut second = second.with(bodies.clone());
    second.manifest.reports[1].cause = None;
    deliver(&network, &north, &second).await.receipt();
    let history = network.get("/measures/remission/sites/north/2024-01-01").await.text;
    for part in ["Treatment begun: 60 / 100; Treatment kept: 31 / 100", "Treatment begun: 60 / 100; Treatment kept: 30 / 100"] {
        assert!(history.contains(part), "{part} in {history}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_group_needs_no_name_and_several_are_told_from_each_other() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    for (groups, reason) in [
        (json!([group("a", "A", 1), { "population": group("b", "B", 1)["population"], "measureScore": { "value": 0.01 } }]), "group 2 of 2 has neither `id` nor `code`"),
        (json!([group("a", "A", 1), group("a", "B", 2)]), "group 2 is named `a`, as one before it is"),
        (json!([group("a", "A", 1), group("b", "B", 101)]), "group `b`: numerator 101 is greater than denominator 100"),
    ] {
        let feed = Feed::first("north", &[1]).with(vec![measure_report("north", &key(1), "increase", "proportion", groups)]);
        let (status, text) = deliver(&network, &north, &feed).await.refusal();
        assert!(status == 422 && text.contains(reason), "{reason}: {text}");
    }
    // Named or not, the only group is the series.
    let named = measure_report("north", &key(1), "increase", "proportion", group("a", "A", 60));
    deliver(&network, &north, &Feed::first("north", &[1, 1]).with(vec![named, body("north", &key(2), 70, 100)]))
        .await
        .receipt();
    let csv = network.get("/v1/measures/remission/series?format=csv").await.text;
    let at = network.now();
    assert_eq!(
        csv,
        format!(
            "site,measure,version,period_start,period_end,numerator,denominator,value,complete,revision,committed_at,low,high,cannot_tell,cannot_tell_of\r\n\
             north,remission,1.0.0,2024-01-01,2024-01-31,60,100,60,true,1,{at},,,0,\r\nnorth,remission,1.0.0,2024-02-01,2024-02-29,70,100,70,true,1,{at},,,0,\r\n"
        )
    );
    assert!(network.points().await[0].get("group").is_none());
    let measure = network.get("/measures/remission").await.text;
    assert!(measure.contains("id=\"heading-north\"") && !measure.contains("North: A"), "{measure}");
}

/// A database as the registry wrote it before it knew of groups, with everything that this one holds.
fn as_before_groups(path: &std::path::Path) {
    let old = path.with_extension("old");
    let connection = rusqlite::Connection::open(&old).unwrap();
    for schema in [include_str!("../../src/registry/schema/001_registry.sql"), include_str!("../../src/registry/schema/002_doubt.sql")] {
        connection.execute_batch(schema).unwrap();
    }
    connection.execute_batch(&format!("ATTACH '{}' AS new; PRAGMA foreign_keys = OFF;", path.display())).unwrap();
    let tables: Vec<String> = {
        let mut named = connection.prepare("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").unwrap();
        named.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for table in tables {
        let rows = match table.as_str() {
            "revision" => "SELECT r.id, r.site, r.measure, r.period_start, r.period_end, r.number, r.version, r.sha256, r.replaces, r.cause, r.reason, r.complete, r.feed,
                 r.committed_at, g.numerator, g.denominator, g.score, coalesce(g.strata, '[]'), g.doubt FROM new.revision r LEFT JOIN new.reading g ON g.revision = r.id"
                .to_owned(),
            table => format!("SELECT * FROM new.{table}"),
        };
        connection.execute(&format!("INSERT INTO main.{table} {rows}"), []).unwrap();
    }
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    for end in ["sqlite-wal", "sqlite-shm"] {
        let _ = std::fs::remove_file(path.with_extension(end));
    }
    std::fs::rename(old, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_before_groups_were_known_is_all_there_after_the_migration() {
    let mut network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let first = Feed::first("north", &[60, 70]);
    deliver(&network, &north, &first).await.receipt();
    let stratified = measure_report("north", &key(1), "increase", "proportion", group("a", "A", 61));
    let mut second = Feed::after("north", Some(&first), &[61]).with(vec![stratified]);
    second.manifest.withdrawals = vec![watershed::feed::Withdrawal { key: key(2), replaces: first.manifest.reports[1].sha256.clone(), reason: "counted twice".into() }];
    deliver(&network, &north, &second).await.receipt();
    let shown = async |network: &Network| {
        let mut shown = String::new();
        for page in ["/", "/v1/measures/remission/series?format=csv", "/measures/remission", "/measures/remission/sites/north", "/measures/remission/sites/north/2024-01-01"] {
            shown.push_str(&network.get(page).await.text);
        }
        // The server has opened its database by now.
        shown + &network.dump()
    };
    let before = shown(&network).await;
    let (sender, served) = network.stop.take().unwrap();
    sender.send(()).unwrap();
    network.http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    served.await.unwrap();
    as_before_groups(&network.data.path().join("registry.sqlite"));
    network.serve().await;
    assert_eq!(shown(&network).await, before);
    // And it goes on from there.
    deliver(&network, &north, &Feed::after("north", Some(&second), &[62])).await.receipt();
    assert_eq!(network.points().await[0]["revision"], 3);
}

/// Two hospitals, or two rates, of one name: whoever reads the page knows which is which.
#[tokio::test(flavor = "multi_thread")]
async fn no_title_is_there_twice() {
    let network = Network::start(vec![proportion()]).await;
    for name in ["east", "west"] {
        let site = network.join(name, "General Hospital").await;
        let groups = json!([group("begun", "Treatment", 60), group("kept", "Treatment", 30)]);
        let feed = Feed::first(name, &[1]).with(vec![measure_report(name, &key(1), "increase", "proportion", groups)]);
        deliver(&network, &site, &feed).await.receipt();
    }
    for (path, charts) in [("/measures/remission", 4), ("/measures/remission/sites/east", 2)] {
        let page = network.get(path).await.text;
        let titles: Vec<&str> = page.split("<title id=").skip(1).filter_map(|rest| rest.split(['>', '<']).nth(1)).collect();
        assert_eq!(titles.iter().collect::<std::collections::BTreeSet<_>>().len(), charts, "{titles:?}");
        assert_eq!(titles[0], "General Hospital (east): Treatment (begun): Remission");
        let strata: Vec<&str> = page
            .split("<caption")
            .skip(1)
            .filter(|rest| rest.contains(" by sex"))
            .filter_map(|rest| rest.split(['>', '<']).nth(1))
            .collect();
        assert_eq!(strata, ["begun", "kept"].map(|key| format!("Remission, Treatment ({key}), by sex, Jan 2024")));
    }
}
