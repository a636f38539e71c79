//! What looks alike and is not: the same letters in another code system, the same version with logic that cannot be compared, the same
//! patients in another period, groups of one measure that are shown otherwise.

use serde_json::{Value, json};
use watershed::registry::{Defined, GroupCard, MeasureCard, Unit};

use super::numbers::cells;
use super::{Feed, Network, deliver, key, measure_report, proportion};

/// Of so many so many, by one stratum with this value.
fn group(numerator: u32, denominator: u32, value: &Value) -> Value {
    let population = |code: &str, count: u32| json!({ "code": { "coding": [{ "code": code }] }, "count": count });
    let mut stratum = json!({
        "population": [population("initial-population", denominator), population("denominator", denominator), population("numerator", numerator)],
        "measureScore": { "value": f64::from(numerator) / f64::from(denominator) }
    });
    let mut group = stratum.clone();
    stratum["value"] = value.clone();
    group["stratifier"] = json!([{ "code": [{ "text": "class" }], "stratum": [stratum] }]);
    group
}

/// The same with what the report states of its logic.
fn computed(site: &str, month: u32, logic: &[&str], group: Value) -> Vec<u8> {
    let mut report: Value = serde_json::from_slice(&measure_report(site, &key(month), "increase", "proportion", group)).unwrap();
    let lineage = logic.iter().map(|digest| {
        let parts = json!([{ "url": "kind", "valueCode": "logic" }, { "url": "name", "valueString": "remission" }, { "url": "version", "valueString": digest }]);
        json!({ "url": "http://watershed.example/fhir/StructureDefinition/lineage", "extension": parts })
    });
    report["extension"].as_array_mut().unwrap().extend(lineage);
    serde_json::to_vec(&report).unwrap()
}

fn female() -> Value {
    json!({ "text": "female" })
}

fn card(defined: Defined) -> MeasureCard {
    let stratifiers = [("class".to_owned(), true)].into();
    MeasureCard { definitions: [("1.0.0".to_owned(), Defined { stratifiers, ..defined })].into(), ..proportion() }
}

async fn send(network: &Network, name: &str, bodies: Vec<Vec<u8>>) {
    let site = network.join(name, name).await;
    let answer = deliver(network, &site, &Feed::first(name, &vec![1; bodies.len()]).with(bodies)).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text);
}

/// `AMB` of HL7 is not `AMB` of a hospital. Where a code is of one system only, nobody needs to read which; an older adapter wrote it into the
/// text where its own report had both, and did not tell it otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_added_up_with_its_own_system_only() {
    let of = |system: &str| json!({ "coding": [{ "system": system, "code": "AMB", "display": "AMB" }], "text": "AMB" });
    let told = json!({ "coding": [{ "system": "http://hl7", "code": "AMB", "display": "AMB" }], "text": "AMB (http://hl7)" });
    let without = json!({ "coding": [{ "code": "AMB", "display": "AMB" }], "text": "AMB" });
    for (west, rows) in [
        (of("http://hl7"), &[("AMB", "9", "30")][..]),
        (told, &[("AMB", "9", "30")]),
        (of("urn:local"), &[("AMB (http://hl7)", "4", "10"), ("AMB (urn:local)", "5", "20")]),
        (without, &[("AMB (http://hl7)", "4", "10"), ("AMB (system not told)", "5", "20")]),
    ] {
        let network = Network::start(vec![card(Defined::default())]).await;
        send(&network, "east", vec![computed("east", 1, &[], group(4, 10, &of("http://hl7")))]).await;
        send(&network, "west", vec![computed("west", 1, &[], group(5, 20, &west))]).await;
        let page = network.get("/measures/remission").await.text;
        for (name, numerator, denominator) in rows {
            assert_eq!(cells(&page, name)[..2], [*numerator, *denominator], "{west}: {page}");
        }
        assert_eq!(page.matches("rowheader\">AMB").count(), rows.len(), "{page}");
        let own = network.get("/measures/remission/sites/west").await.text;
        assert_eq!(cells(&own, "AMB")[..2], ["5", "20"], "nothing to tell it from: {own}");
    }
}

/// ELM that is seen to mean the same as the network's CQL is added up with it. Of other ELM nobody can say: it is taken, stands alone, and says
/// who can change that.
#[tokio::test(flavor = "multi_thread")]
async fn logic_that_cannot_be_compared_is_not_added_up() {
    let (cql, same, other) = (["cql+numbers:1", "meaning:1"], ["elm+numbers:2", "meaning:1"], ["elm+numbers:3", "meaning:3"]);
    let alone = "it was computed from ELM, which is not seen to mean the same as the CQL of version 1.0.0 here, and is added up with no other: \
                 let the hospital load the measure in the form that the network has";
    let both = ("45.0\u{202f}% (90 of 200) in Jan 2024, 2 sites", ["90", "200"]);
    let one = |version: &str| (format!("40.0\u{202f}% (40 of 100) in Jan 2024, 1 of 2 sites (1 on version {version})"), ["40", "100"]);
    let known = || Defined { logic: cql.map(str::to_owned).to_vec(), ..Defined::default() };
    let both = || (both.0.to_owned(), both.1);
    for (what, defined, logic, (offer, strata), remark) in [
        ("the same text", known(), &cql[..], both(), None),
        ("seen to mean the same", known(), &same, both(), None),
        ("an older adapter", known(), &["cql+groups:7"], both(), None),
        ("nothing said", known(), &[], both(), None),
        ("not seen to mean the same", known(), &other, one("1.0.0 as ELM"), Some(alone)),
        ("the network has the definition only", Defined::default(), &other, one("1.0.0 by other logic"), None),
        ("and the same text", Defined::default(), &cql, both(), None),
    ] {
        let network = Network::start(vec![card(defined)]).await;
        // The last one is as new, and is preferred only where nobody knows what the network computes.
        let [first, last] = if remark.is_some() { [(&cql[..], 40), (logic, 50)] } else { [(logic, 50), (&cql[..], 40)] };
        for (name, (logic, numerator)) in [("east", first), ("west", last)] {
            send(&network, name, vec![computed(name, 1, logic, group(numerator, 100, &female()))]).await;
        }
        let board = network.get("/").await.text;
        assert!(board.contains(&format!("<strong>{offer}</strong>")), "{what}: {offer} in {board}");
        let page = network.get("/measures/remission").await.text;
        assert_eq!(cells(&page, "female")[..2], strata, "{what}: {page}");
        let remarks: Vec<Value> = network.points().await.iter().map(|point| json!([point["standsAlone"], point["remarks"]])).collect();
        let own = remark.map_or(json!([false, []]), |remark| json!([true, [remark]]));
        assert!(remarks.contains(&own) && remarks.contains(&json!([false, []])), "{what}: {remarks:?}");
        let csv = network.get("/v1/measures/remission/series?format=csv").await.text;
        assert_eq!(csv.lines().filter(|row| row.ends_with(",true")).count(), usize::from(remark.is_some()), "{what}: {csv}");
        assert_eq!(page.contains(alone), remark.is_some(), "{what}: {page}");
    }
}

/// Who is there in one month is there in the next: two months of patients are not twice as many. Of events they are.
#[tokio::test(flavor = "multi_thread")]
async fn months_of_patients_have_no_sum() {
    let said = "<p>Feb 2024. Patients of one month may be those of another, so two have no sum: only the latest month is shown. Records";
    for (counts_patients, strata, words) in [(true, ["50", "100"], said), (false, ["90", "200"], "<p>Jan 2024 to Feb 2024 together. Records")] {
        let group_card = GroupCard { key: String::new(), label: String::new(), higher_is_better: Some(true), unit: Unit::Percent, counts_patients };
        let network = Network::start(vec![MeasureCard { versions: vec!["1.0.0".into()], ..card(Defined { groups: vec![group_card], ..Defined::default() }) }]).await;
        send(&network, "east", [(1, 40), (2, 50)].map(|(month, numerator)| computed("east", month, &[], group(numerator, 100, &female()))).into()).await;
        let page = network.get("/measures/remission").await.text;
        assert_eq!(cells(&page, "female")[..2], strata, "{page}");
        assert!(page.contains(words), "{words} in {page}");
    }
}

/// A measure of which one group is a share and better when higher, and the other a count of days.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_differ_are_told_of_one_by_one() {
    let of = |key: &str, label: &str, higher_is_better: bool, unit: Unit| GroupCard {
        key: key.into(),
        label: label.into(),
        higher_is_better: Some(higher_is_better),
        unit,
        counts_patients: false,
    };
    let groups = vec![of("share", "Treated", true, Unit::Percent), of("days", "Days waited", false, Unit::Number)];
    let units = [("days".to_owned(), Unit::Number)].into();
    let network = Network::start(vec![MeasureCard { versions: vec!["1.0.0".into()], units, ..card(Defined { groups, ..Defined::default() }) }]).await;
    let measure = network.get("/v1/measures").await.json()["measures"][0].clone();
    let expected = json!([
        { "group": "share", "groupLabel": "Treated", "higherIsBetter": true, "unit": { "kind": "percent" } },
        { "group": "days", "groupLabel": "Days waited", "higherIsBetter": false, "unit": { "kind": "number" } }
    ]);
    assert_eq!([&measure["groups"], &measure["higherIsBetter"], &measure["unit"]], [&expected, &Value::Null, &Value::Null]);
    for (path, words) in
        [("/", "Treated: higher is better; Days waited: lower is better"), ("/measures/remission", "shown Treated: in percent; Days waited: as a number, by month")]
    {
        let page = network.get(path).await.text;
        assert!(page.contains(words), "{words} in {page}");
    }
}
