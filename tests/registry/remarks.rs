//! What a measure calls plausible is held against what sites sent, here as there: a remark stands beside the number.

use serde_json::{Value, json};
use watershed::registry::{Defined, MeasureCard};
use watershed::validate::Guards;

use super::numbers::{cells, minutes, month};
use super::{Feed, Network, body, deliver, key, proportion};

/// With what version 1.0.0 calls plausible.
fn guarded(card: MeasureCard, guards: Guards) -> MeasureCard {
    let defined = Defined { guards, stratifiers: [("sex".to_owned(), true)].into(), ..Defined::default() };
    MeasureCard { definitions: [("1.0.0".to_owned(), defined)].into(), ..card }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_not_plausible_is_marked_wherever_it_is_shown() {
    let guards = Guards { denominator_change_percent: Some(30), score_min: Some("0.5".parse().unwrap()), ..Guards::default() };
    let network = Network::start(vec![guarded(proportion(), guards)]).await;
    let north = network.join("north", "North").await;
    let bodies: Vec<Vec<u8>> = (1..)
        .zip([(60, 100), (40, 100), (60, 100), (30, 40)])
        .map(|(month, (some, all))| body("north", &key(month), some, all))
        .collect();
    deliver(&network, &north, &Feed::first("north", &[1; 4]).with(bodies)).await.receipt();

    let jump = "the denominator 40 is -60 % off the median of earlier periods, 100; at most 30 % is expected";
    let low = "the score is 0.4, at least 0.5 is expected";
    let remarks: Vec<Value> = network.points().await.iter().map(|point| point["remarks"].clone()).collect();
    assert_eq!(json!(remarks), json!([[], [low], [], [jump]]));

    let board = network.get("/").await.text;
    let look = format!("<strong>To look at in the latest numbers of North</strong><ul><li>Remission, Apr 2024: {jump}</li></ul>");
    assert!(board.contains(&look), "{look} in {board}");
    for path in ["/measures/remission", "/measures/remission/sites/north"] {
        let page = network.get(path).await.text;
        assert_eq!((page.matches("class=\"mark\"").count(), page.contains("An exclamation mark means")), (2, path.ends_with("remission")), "one for each dot: {page}");
        for words in [format!("Look at Apr 2024: {jump}."), format!("revision 1. Look at this: {jump}</title>"), ">To look at</th>".to_owned()] {
            assert!(page.contains(&words), "{words} in {page}");
        }
        assert_eq!((cells(&page, "Apr 2024")[4], cells(&page, "Feb 2024")[4], cells(&page, "Jan 2024")[4]), (jump, low, ""), "{page}");
    }
}

/// Nothing is said where nothing is beyond, or another version counts otherwise; of a mean its observations are the denominator.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_plausible_is_said_by_the_version_of_the_measure() {
    let guards = Guards { denominator_min: Some(10), score_max: Some(14.into()), ..Guards::default() };
    let network = Network::start(vec![guarded(minutes(), guards)]).await;
    let north = network.join("north", "North").await;
    let bodies = vec![month("north", 1, [13.0, 13.0], 14, 12), month("north", 2, [14.5, 13.0], 14, 9)];
    deliver(&network, &north, &Feed::first("north", &[1; 2]).with(bodies)).await.receipt();
    let remarks: Vec<Value> = network.points().await.iter().map(|point| point["remarks"].clone()).collect();
    assert_eq!(json!(remarks), json!([[], ["the denominator is 9, at least 10 is expected", "the score is 14.5, at most 14 is expected"]]));

    let plain = Network::start(vec![proportion()]).await;
    let north = plain.join("north", "North").await;
    deliver(&plain, &north, &Feed::first("north", &[1, 99])).await.receipt();
    let page = plain.get("/measures/remission").await.text + &plain.get("/").await.text;
    assert!(!page.contains("ook at") && !page.contains("class=\"mark\""), "{page}");

    let own = watershed::cli::registry::card(std::path::Path::new("mappings/measures/ibd/remission")).unwrap();
    let expected = Guards { denominator_min: Some(1), denominator_change_percent: Some(30), cannot_tell_percent: Some(50), ..Guards::default() };
    assert_eq!(own.definitions.into_values().next().unwrap().guards, expected);
}
