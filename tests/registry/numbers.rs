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

/// A month's report of a cohort: how many there are, and of one stratum.
fn cohort(site: &str, month: u32, count: u32) -> Vec<u8> {
    let population = |count: u32| json!([{ "code": { "coding": [{ "code": "initial-population" }] }, "count": count }]);
    let stratum = json!({ "value": { "text": "female" }, "population": population(count / 2) });
    let group = json!({ "population": population(count), "stratifier": [{ "code": [{ "text": "sex" }], "stratum": [stratum] }] });
    measure_report(site, &key(month), "increase", "cohort", group)
}

fn counted() -> MeasureCard {
    MeasureCard { unit: Unit::Count, ..proportion() }
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

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_cohort_is_its_count() {
    let network = Network::start(vec![counted()]).await;
    for (name, counts) in [("north", [60, 66]), ("south", [1300, 1234])] {
        let site = network.join(name, name).await;
        let bodies = vec![cohort(name, 1, counts[0]), cohort(name, 2, counts[1])];
        deliver(&network, &site, &Feed::first(name, &[1, 1]).with(bodies)).await.receipt();
    }
    let points: Vec<Value> = network.points().await.iter().map(|point| json!([point["value"], point["denominator"]])).collect();
    assert_eq!(json!(points), json!([[60.0, null], [66.0, null], [1300.0, null], [1234.0, null]]));
    let csv = network.get("/v1/measures/remission/series?site=north&format=csv").await.text;
    assert!(csv.contains("north,remission,1.0.0,2024-02-01,2024-02-29,66,,66,true,1,"), "{csv}");

    let board = network.get("/").await.text;
    assert!(board.contains("<strong>1,300 in Feb 2024, 2 sites</strong>") && board.contains("a count, which is neither better nor worse"), "{board}");
    let south = network.get("/measures/remission/sites/south").await.text;
    for words in ["1,234 in Feb 2024", "<title>Feb 2024: 1,234, revision 1</title>", ">Count</th>", "shown as a count"] {
        assert!(south.contains(words), "{words} in {south}");
    }
    let all = network.get("/measures/remission").await.text;
    for page in [&south, &all] {
        let strange = ["Percent", "95 % interval", "Numerator", "Denominator", "no value yet", "\u{202f}%", "higher is better"]
            .into_iter()
            .find(|words| page.contains(words));
        assert_eq!(strange, None, "{page}");
    }
    assert_eq!(cells(&south, "Feb 2024")[..2], ["1,234", "complete"]);
    // Who is in two months is not two people.
    assert_eq!(cells(&all, "female"), ["650"]);
    assert!(all.contains("Counts of two months may be of the same, and have no sum: so only the latest month is shown."), "{all}");
    let history = network.get("/measures/remission/sites/south/2024-02-01").await.text;
    assert!(history.contains("data-label=\"Numbers\">1,234</td>"), "{history}");
}

/// What was kept before is read again from the reports, which are kept too.
#[tokio::test(flavor = "multi_thread")]
async fn of_how_many_is_there_also_of_what_was_held_before() {
    let medians = vec![month("north", 1, [13.0, 12.5], 14, 12), month("north", 2, [14.0, 13.5], 16, 16)];
    for (card, bodies) in [(minutes(), medians), (counted(), vec![cohort("north", 1, 60), cohort("north", 2, 66)])] {
        held_before(card, bodies).await;
    }
}

async fn held_before(card: MeasureCard, bodies: Vec<Vec<u8>>) {
    let mut network = Network::start(vec![card.clone()]).await;
    let north = network.join("north", "North").await;
    let first = Feed::first("north", &[1, 2]).with(bodies);
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
         UPDATE reading SET numerator = NULL, strata = (SELECT json_group_array(json_set(value, '$.numerator', NULL)) FROM json_each(strata)) WHERE denominator IS NULL;
         ALTER TABLE reading DROP COLUMN observed;
         ALTER TABLE reading DROP COLUMN made_of;
         ALTER TABLE reading DROP COLUMN counted_by;
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
    let found = watershed::registry::verify::verify(network.data.path(), &[card]).unwrap();
    assert_eq!((found.reports, found.differences), (2, vec![]));
}
