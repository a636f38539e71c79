//! Whole nights by the real binary: repeated, and with bad data.

use watershed::sandbox::Fault;

use crate::bed::{Bed, Wanted, output};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_night_twice_changes_nothing_at_the_registry() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 40, faults: Vec::new() }).await;
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let first = bed.registry();
    assert_eq!((first.feeds, first.current.len()), (1, 12), "4 months of 3 measures");
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let second = bed.registry();
    assert_eq!((second.feeds, second.revisions, &second.current), (first.feeds, first.revisions, &first.current));
    assert_eq!(bed.outbox().len(), 1, "an unchanged night makes no feed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_malformed_resources_and_cut_lines_are_kept_apart_and_the_night_is_partial() {
    for mode in ["search", "bulk"] {
        let faults = vec![Fault::Malformed { resource_type: "Observation".into(), count: 60 }, Fault::Truncated { resource_type: "Encounter".into(), lines: 5 }];
        let bed = Bed::make(Wanted { mode, limit: u64::MAX, patients: 40, faults }).await;
        let (code, said) = bed.run().await;
        assert_eq!(code, 1, "{mode}: a night with findings: {said}");
        let held = bed.registry();
        assert_eq!((held.feeds, held.current.len()), (1, 12), "{mode}: the rest of the night completes: {said}");
        let points: serde_json::Value = reqwest::get(format!("{}/v1/measures/ibd-remission/series?format=json", bed.registry_url))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let complete: Vec<_> = points["points"].as_array().unwrap().iter().map(|point| point["complete"].as_bool().unwrap()).collect();
        assert_eq!(complete, [false; 4], "{mode}: labelled partial");
        let listed = output(bed.command(&["quarantine", "list", "--format", "json"])).await;
        let listed = String::from_utf8(listed.stdout).unwrap();
        let expected = if mode == "bulk" { 65 } else { 60 };
        let count = listed.matches("\"sha256\"").count();
        assert!(count >= expected, "{mode}: {count} of {expected} are in quarantine: {listed}");
    }
}
