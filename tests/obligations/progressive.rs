//! What decides about nobody's place in an initial population is asked for last, of those who may be in one: the numbers are the
//! same, the requests and the data fewer.

use super::bench::{Bench, Pulled, untimed};
use crate::bed::{AS_OF, Bed, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use watershed::config::setup;
use watershed::pipeline::Asked;
use watershed::snapshot::PatientLines;
use watershed::source::{Mode, Silent, SystemClock};

/// Types that are asked for last.
const LATER: [&str; 2] = ["Observation", "Procedure"];
/// Set, all seeds are run.
const ALL: &str = "WATERSHED_ALL";

fn is_of(line: &[u8], resource_type: &str) -> bool {
    std::str::from_utf8(line).unwrap().contains(&format!("\"resourceType\":\"{resource_type}\""))
}

/// Half of the patients, other ones when encounters change; and who has an encounter that came late.
fn may_count(patient: &PatientLines) -> bool {
    let encounters: Vec<&Vec<u8>> = patient.lines.iter().filter(|line| is_of(line, "Encounter")).collect();
    let is_late = |line: &&Vec<u8>| std::str::from_utf8(line).unwrap().contains("\"id\":\"late-");
    encounters.iter().any(is_late) || encounters.iter().map(|line| line.len()).sum::<usize>() % 2 == 0
}

async fn bench(group: &str, is_progressive: bool) -> Bench {
    bench_of(&[], group, is_progressive).await
}

async fn bench_of(quirks: &[&str], group: &str, is_progressive: bool) -> Bench {
    let mut bench = Bench::new(quirks).await;
    bench.options.group = group.to_owned();
    (bench.options.page_size, bench.options.tuning.patients_per_query, bench.options.tuning.pages_per_place) = (10, 5, 2);
    bench.needs.iter_mut().for_each(|need| need.is_later = is_progressive && LATER.contains(&need.resource_type.as_str()));
    bench.chooser = Some(may_count);
    bench
}

/// What is stored of the patients who matter, and all of the types that decide who does.
fn of_those_who_matter(bench: &Bench) -> Vec<String> {
    let snapshot = bench.snapshot();
    let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap());
    let lines = patients.flat_map(|patient| {
        let matters = may_count(&patient);
        let is_kept = move |line: &Vec<u8>| matters || !LATER.iter().any(|name| is_of(line, name));
        patient.lines.into_iter().filter(is_kept)
    });
    let mut lines: Vec<String> = lines.map(|line| String::from_utf8(line).unwrap()).collect();
    lines.sort();
    lines
}

fn who_matters(bench: &Bench) -> BTreeSet<String> {
    let snapshot = bench.snapshot();
    let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap());
    patients.filter(may_count).map(|patient| patient.patient_id).collect()
}

fn stored(bench: &Bench) -> u64 {
    let counts = bench.snapshot().counts().unwrap();
    LATER.iter().filter_map(|name| counts.get(*name)).sum()
}

/// On each page of Conditions one is missing, and is known to be.
#[tokio::test]
async fn what_is_never_whole_is_asked_for_again_of_those_who_matter_and_of_nobody_else() {
    let mut bench = bench_of(&["r_05"], "", false).await;
    (bench.options.page_size, bench.options.tuning.patients_per_query) = (5, 50);
    bench.needs.iter_mut().for_each(|need| need.is_later = need.resource_type == "Condition");
    let of_all = |pulled: &Pulled| {
        let is_other = |target: &str| ["_summary=", "_page="].iter().any(|part| target.contains(part));
        let asked = pulled.requests.iter().filter(|seen| seen.target.starts_with("/fhir/Condition?") && !is_other(&seen.target));
        asked.count()
    };
    let first = bench.pull(Mode::Search).await;
    assert!(first.gaps().contains("Condition") && of_all(&first) == 0, "{:?}", first.outcome.gaps);
    let next = bench.pull(Mode::Search).await;
    assert_eq!((next.outcome.full, next.gaps(), of_all(&next)), (false, first.gaps(), 0));
    assert_eq!(next.outcome.received["Condition"], first.outcome.received["Condition"]);
}

/// Four nights, before three of which the hospital's data change: the first, one of changes, one that reads everything, one of
/// changes again.
#[tokio::test]
async fn nights_bring_all_of_those_who_matter_and_fewer_of_the_others() {
    // Be what is asked for last searched by times of change, or read whole each night.
    for (group, whole) in [("", None), ("all", None), ("", Some("Observation")), ("all", Some("Observation"))] {
        let (mut plain, mut progressive) = (bench(group, false).await, bench(group, true).await);
        [&mut plain, &mut progressive].into_iter().for_each(|bench| bench.facts.extend(whole.map(untimed)));
        for (night, full_every_days) in [7, 7, 0, 7].into_iter().enumerate() {
            for bench in [&mut plain, &mut progressive] {
                if night > 0 {
                    bench.hospital.amend_at(night as u64, "2026-12-01T00:00:00Z".parse().unwrap());
                }
                bench.options.tuning.full_every_days = full_every_days;
            }
            let (all, some): (Pulled, Pulled) = (plain.pull(Mode::Search).await, progressive.pull(Mode::Search).await);
            assert!(all.outcome.complete && some.outcome.complete, "{:?} {:?}", all.outcome.gaps, some.outcome.gaps);
            assert_eq!((all.outcome.full, some.outcome.full), (full_every_days == 0 || night == 0, all.outcome.full));
            assert!(of_those_who_matter(&plain) == of_those_who_matter(&progressive), "group `{group}`, night {night}");
            assert!(stored(&progressive) < stored(&plain), "group `{group}`, night {night}");
            if night == 0 {
                assert!(some.requests.len() < all.requests.len(), "{} requests instead of {}", some.requests.len(), all.requests.len());
            }
        }
    }
}

/// Encounters that no change brings are found by their number, and change who matters.
#[tokio::test]
async fn who_comes_to_matter_by_what_was_missed_is_asked_for_whole_the_same_night() {
    for group in ["", "all"] {
        let (plain, some) = (bench(group, false).await, bench(group, true).await.swift().on_disk());
        for site in [&plain, &some] {
            site.pull(Mode::Search).await;
            site.hospital.slip_in("Encounter", 9, "2026-01-05T12:00:00Z".parse().unwrap());
        }
        let before = who_matters(&some);
        let (all, whole) = (plain.pull(Mode::Search).await, some.pull(Mode::Search).await);
        assert!(all.outcome.complete && whole.outcome.complete && !whole.outcome.full, "{:?} {:?}", all.outcome.gaps, whole.outcome.gaps);
        assert!(!who_matters(&some).is_subset(&before), "nobody comes to matter");
        assert!(of_those_who_matter(&plain) == of_those_who_matter(&some), "group `{group}`");
        let quiet = some.pull(Mode::Search).await;
        assert_eq!((quiet.outcome.complete, quiet.outcome.new_versions), (true, 0), "group `{group}`");
    }
}

#[tokio::test]
async fn a_pull_that_is_killed_while_it_looks_for_what_was_missed_asks_for_the_same() {
    let site = async || {
        let bench = bench("", true).await.swift().on_disk();
        bench.pull(Mode::Search).await;
        bench.hospital.slip_in("Encounter", 9, "2026-01-05T12:00:00Z".parse().unwrap());
        bench
    };
    let (wakes, calm) = site().await.pull_for(Mode::Search, u64::MAX).await;
    let mut bench = site().await;
    let (killed, pulled) = bench.pull_killed(Mode::Search, wakes, 4).await;
    assert!(killed >= 3 && !pulled.outcome.full && pulled.outcome.complete, "killed {killed} times");
    assert_eq!(pulled.digest, calm.unwrap().digest);
}

#[tokio::test]
async fn a_pull_that_is_killed_asks_the_same_patients_and_ends_in_the_same_snapshot() {
    let (wakes, calm) = bench("", true).await.swift().on_disk().pull_for(Mode::Search, u64::MAX).await;
    let calm = calm.unwrap();
    let mut site = bench("", true).await.swift().on_disk();
    let (killed, pulled) = site.pull_killed(Mode::Search, wakes, 3).await;
    assert!(killed >= 3, "killed {killed} times");
    assert_eq!((pulled.digest, pulled.outcome.complete), (calm.digest, true));
}

/// Nights of a site with the network's measures: what the registry holds after each, and how many Observations the site holds.
async fn nights(seed: u64, is_progressive: bool) -> (Vec<Vec<(String, String, String)>>, u64) {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 30, seed, ..Wanted::default() }).await;
    let mut held = Vec::new();
    let mut counts = BTreeMap::new();
    for (night, full_every_days) in [7, 7, 0].into_iter().enumerate() {
        if night > 0 {
            bed.hospital.amend_at(seed + night as u64, jiff::Timestamp::now());
        }
        let (site, _) = watershed::config::load_site(&bed.folder.path().join("site.toml"));
        let site = site.unwrap();
        let mut checked = setup::read(&site).0.unwrap();
        // The third one's initial population depends on Observations.
        checked.measures.retain(|measure| measure.definition.id.value != "perinatal-early-elective-delivery");
        (checked.months, checked.source.page_size) = (1, 5);
        (checked.source.progressive, checked.source.tuning.full_every_days) = (is_progressive, full_every_days);
        let adapter = setup::open(&site, checked, Arc::new(SystemClock)).unwrap();
        let (_asker, stop) = tokio::sync::watch::channel(false);
        let night = adapter.night(&Asked { now: AS_OF.parse().unwrap(), scheduled: None }, &stop, &Silent).await.unwrap();
        assert_eq!(night.run.complete, Some(true), "{:?}", night.run);
        counts = adapter.snapshot.counts().unwrap();
        drop(adapter);
        held.push(bed.registry().current);
    }
    (held, counts["Observation"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_networks_measures_find_the_same_to_the_byte() {
    let (mut all, mut some) = (0, 0);
    for seed in 0..if std::env::var_os(ALL).is_some() { 10 } else { 2 } {
        let ((plain, more), (progressive, fewer)) = (nights(seed, false).await, nights(seed, true).await);
        assert_eq!(plain, progressive, "seed {seed}");
        assert!(plain.windows(2).any(|nights| nights[0] != nights[1]), "the nights differ");
        (all, some) = (all + more, some + fewer);
    }
    crate::figures::say(&format!("progressive pulling: {some} Observations are enough where {all} were asked for"));
    assert!(some < all, "{some} of {all}");
}
