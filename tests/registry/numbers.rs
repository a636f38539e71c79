//! Scores that are no fraction - a mean, a median: of how many each is, and of whom nothing was observed.

use serde_json::{Value, json};
use watershed::registry::{MeasureCard, Unit};

use super::{Feed, Network, deliver, key, measure_report, proportion};

pub(super) fn minutes() -> MeasureCard {
    MeasureCard { unit: Unit::Number, ..proportion() }
}

/// A median, of so many of all members; of two excluded from among them nobody speaks.
fn numbers(score: f64, members: u32, observed: u32) -> Value {
    let population = |code: &str, count: u32| json!({ "code": { "coding": [{ "code": code }] }, "count": count });
    let observation = json!({ "code": { "coding": [{ "code": "measure-observation" }] }, "extension": [
        { "url": "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-aggregateMethod", "valueCode": "median" },
        { "url": "http://hl7.org/fhir/StructureDefinition/measurereport-countQuantity", "valueQuantity": { "value": score } }
    ] });
    json!({
        "extension": [{ "url": "http://w/score-parts", "extension": [{ "url": "denominator", "valueDecimal": observed }] }],
        "population": [population("initial-population", members + 2), population("measure-population", members + 2), population("measure-population-exclusion", 2), observation],
        "measureScore": { "value": score }
    })
}

/// A month's report with its only stratum.
pub(super) fn month(site: &str, month: u32, [score, of_stratum]: [f64; 2], members: u32, observed: u32) -> Vec<u8> {
    let mut stratum = numbers(of_stratum, members / 2, observed / 2);
    stratum["value"] = json!({ "text": "female" });
    let mut group = numbers(score, members, observed);
    group["stratifier"] = json!([{ "code": [{ "text": "sex" }], "stratum": [stratum] }]);
    measure_report(site, &key(month), "decrease", "continuous-variable", group)
}

/// The cells of the row that begins with this header.
pub(super) fn cells<'p>(page: &'p str, header: &str) -> Vec<&'p str> {
    let (_, row) = page.split_once(&format!("role=\"rowheader\">{header}</th>")).unwrap_or_else(|| panic!("{header} in {page}"));
    let row = row.split_once("</tr>").unwrap().0;
    row.split("</td>").filter_map(|cell| cell.rsplit_once('>')).map(|(_, text)| text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_how_many_a_score_is_stands_wherever_it_is_shown() {
    let network = Network::start(vec![minutes()]).await;
    for (name, scores, members, observed) in [("north", [13.008_333, 12.5], 14, 12), ("south", [15.0, 16.0], 1300, 1300)] {
        let site = network.join(name, name).await;
        deliver(&network, &site, &Feed::first(name, &[1]).with(vec![month(name, 1, scores, members, observed)])).await.receipt();
    }
    let points: Vec<Value> = network
        .points()
        .await
        .iter()
        .map(|point| json!([point["value"], point["members"], point["observed"], point["denominator"]]))
        .collect();
    assert_eq!(json!(points), json!([[13.008_333, 14, 12, null], [15.0, 1300, 1300, null]]));
    let csv = network.get("/v1/measures/remission/series?site=north&format=csv").await.text;
    let rows: Vec<&str> = csv.lines().collect();
    assert!(rows[0].ends_with(",cannot_tell_of,members,observed") && rows[1].ends_with(",,,0,,14,12"), "{csv}");

    let north = network.get("/measures/remission/sites/north").await.text;
    for words in ["13.01 in Jan 2024 (12 of 14 observed)", ">Members</th>", ">Observed</th>", "<title>Jan 2024: 12 of 14 observed, 13.01, revision 1</title>"] {
        assert!(north.contains(words), "{words} in {north}");
    }
    assert_eq!(cells(&north, "Jan 2024")[..3], ["14", "12", "13.01"]);
    assert_eq!(cells(&north, "female")[..3], ["7", "6", "12.50"]);
    let south = network.get("/measures/remission/sites/south").await.text;
    assert!(south.contains("15.00 in Jan 2024 (1,300 observed)"), "{south}");
    // A median of two medians is none: they lie between.
    let all = network.get("/measures/remission").await.text;
    assert_eq!(cells(&all, "female")[..3], ["657", "656", "12.50 – 16.00"]);
    assert!(all.contains("<p>Jan 2024, 2 sites. Scores that are no fractions have no sum: so only the latest month is shown. Records"), "{all}");
    let history = network.get("/measures/remission/sites/north/2024-01-01").await.text;
    assert!(history.contains("score 13.008333 (12 of 14 observed)"), "{history}");
}

/// What was kept before is read again from the reports, which are kept too.
#[tokio::test(flavor = "multi_thread")]
async fn of_how_many_is_there_also_of_what_was_held_before() {
    let mut network = Network::start(vec![minutes()]).await;
    let north = network.join("north", "North").await;
    let first = Feed::first("north", &[1, 2]).with(vec![month("north", 1, [13.0, 12.5], 14, 12), month("north", 2, [14.0, 13.5], 16, 16)]);
    deliver(&network, &north, &first).await.receipt();
    let page = async |network: &Network| network.get("/measures/remission/sites/north").await.text + &network.dump();
    let before = page(&network).await;
    let (sender, served) = network.stop.take().unwrap();
    sender.send(()).unwrap();
    network.http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    served.await.unwrap();
    let raw = rusqlite::Connection::open(network.data.path().join("registry.sqlite")).unwrap();
    raw.execute_batch(
        "DROP TRIGGER reading_is_never_changed;
         UPDATE reading SET strata = (SELECT json_group_array(json_remove(value, '$.score', '$.observed')) FROM json_each(strata));
         ALTER TABLE reading DROP COLUMN observed;
         ALTER TABLE reading DROP COLUMN made_of;
         CREATE TRIGGER reading_is_never_changed BEFORE UPDATE ON reading BEGIN SELECT raise(ABORT, 'a reading is never changed'); END;
         PRAGMA user_version = 4;",
    )
    .unwrap();
    drop(raw);
    network.serve().await;
    assert_eq!(page(&network).await, before);
    let changed = rusqlite::Connection::open(network.data.path().join("registry.sqlite"))
        .unwrap()
        .execute("UPDATE reading SET score = '1'", []);
    assert!(changed.unwrap_err().to_string().contains("a reading is never changed"));
    let found = watershed::registry::verify::verify(network.data.path(), &[minutes()]).unwrap();
    assert_eq!((found.reports, found.differences), (2, vec![]));
}
