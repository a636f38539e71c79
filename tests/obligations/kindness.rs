//! What an EHR is spared, and what a night does when it may not go on; volumes beside earlier nights.

use super::bench::{Bench, Pulled, TYPES, What};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use watershed::http::{Boxed, Clock};
use watershed::sandbox::Fault;
use watershed::sandbox::server::Options as Serving;
use watershed::source::account::{self, Account};
use watershed::source::duty::Who;
use watershed::source::probe::{Fact, Found};
use watershed::source::{Mode, OffHours, SourceError};

#[tokio::test]
async fn requests_are_spread_as_the_site_was_told() {
    let mut bench = Bench::new(&[]).await.swift();
    bench.options.requests_per_minute = 30;
    let begun = bench.clock.now();
    let pulled = bench.pull(Mode::Search).await;
    let (took, least) = (bench.clock.now().duration_since(begun), SignedDuration::from_secs(2) * (pulled.requests.len() as i32 - 1));
    assert!(pulled.requests.len() > 15 && took >= least, "{} requests in {took:?}", pulled.requests.len());
    pulled.is_the_truth();
}

#[tokio::test]
async fn a_night_whose_requests_are_spent_goes_on_in_the_next_one() {
    let mut bench = Bench::new(&[]).await;
    bench.options.requests_per_night = 8;
    bench.options.page_size = 200;
    let mut nights = 0;
    let pulled = loop {
        nights += 1;
        let before = bench.running.request_count();
        let pulled = bench.try_pull(Mode::Search).await;
        assert!(bench.running.request_count() - before <= 8, "night {nights}");
        match pulled {
            Ok(pulled) => break pulled,
            Err(SourceError::Unfinished { reason }) => assert_eq!(reason, "`source.requests_per_night` allows 8 requests, and no more"),
            Err(error) => panic!("night {nights}: {error}"),
        }
        assert!(nights < 10, "each night gets further");
    };
    assert!(nights > 1);
    pulled.is_the_truth();
}

/// Pulls in nights of fourteen requests, so much time apart, until it is done. How many there were.
async fn in_nights(bench: &mut Bench, apart: Duration) -> (u32, Pulled) {
    (bench.options.page_size, bench.options.requests_per_night) = (10, 14);
    for night in 1..80 {
        match bench.try_pull(Mode::Search).await {
            Ok(pulled) => return (night, pulled),
            Err(SourceError::Unfinished { .. }) => bench.pass(apart),
            Err(error) => panic!("night {night}: {error}"),
        }
    }
    panic!("it does not end");
}

/// Searches of a type that were begun in all nights.
fn begun(bench: &Bench, resource_type: &str) -> usize {
    let requests = bench.running.requests();
    let is_trial = |body: &str| body.contains("_summary=") || body.ends_with("&_count=1");
    let is_first = |target: &str| ["_page=", "_summary="].iter().all(|part| !target.contains(part));
    requests
        .iter()
        .filter(|seen| seen.target.starts_with(&format!("/fhir/{resource_type}")) && is_first(&seen.target) && !is_trial(&seen.body))
        .count()
}

#[tokio::test]
async fn a_query_larger_than_a_night_goes_on_at_its_next_page() {
    let calm = Bench::new(&[]).await.pull(Mode::Search).await;
    for group in ["", "all"] {
        let mut bench = Bench::new(&[]).await;
        bench.options.group = group.to_owned();
        let (nights, pulled) = in_nights(&mut bench, Duration::ZERO).await;
        pulled.is_the_truth();
        assert_eq!(pulled.digest, calm.digest);
        assert!(nights > 3, "{nights} nights");
        for name in ["Observation", "Encounter", "Condition"] {
            assert_eq!(begun(&bench, name), 1, "{name}, group `{group}`, {nights} nights");
        }
        let received = bench.store.with(|connection| account::last(connection)).unwrap().unwrap();
        assert!(received.rows.iter().all(|row| row.expected.is_none_or(|expected| expected == row.received)), "{:#?}", received.rows);
    }
}

/// A Group that is asked for five patients at a time, the first ten of whom are not in it; in nights of thirty requests.
async fn of_a_group(is_progressive: bool, first: usize) -> (Bench, Vec<String>) {
    let mut bench = Bench::new(&[]).await.swift().on_disk();
    let mut everybody = bench.hospital.patients();
    everybody.sort();
    bench.options.group = "all".to_owned();
    (bench.options.page_size, bench.options.requests_per_night, bench.options.tuning.patients_per_query) = (6, 30, 5);
    bench
        .needs
        .iter_mut()
        .for_each(|need| need.is_later = is_progressive && ["Observation", "Procedure"].contains(&need.resource_type.as_str()));
    bench.chooser = Some(|_| true);
    bench.hospital.regroup("all", &everybody[first..], bench.clock.now());
    (bench, everybody)
}

/// Pulls night by night, before each of which but the first the Group's members change, until it is done. How many there were.
async fn while_it_changes(bench: &Bench, mut change: impl FnMut(usize)) -> (usize, Pulled) {
    for night in 1..40 {
        match bench.try_pull(Mode::Search).await {
            Ok(pulled) => return (night, pulled),
            Err(SourceError::Unfinished { .. }) => change(night),
            Err(error) => panic!("night {night}: {error}"),
        }
    }
    panic!("it does not end");
}

#[tokio::test]
async fn who_joins_while_a_pull_lasts_comes_whole_of_what_is_not_searched_by_patient() {
    let (mut bench, everybody) = of_a_group(false, 10).await;
    let fact = |what: &str| Fact { about: "Condition".to_owned(), what: what.to_owned(), declared: Some(true), found: Found::Refused, detail: String::new() };
    bench.facts = ["patient", "subject"].map(fact).into();
    let join = |night: usize| {
        if night == 1 {
            bench.hospital.regroup("all", &everybody[8..], bench.clock.now())
        }
    };
    let (nights, pulled) = while_it_changes(&bench, join).await;
    assert!(nights > 2 && pulled.requests.iter().all(|seen| !seen.target.contains("/Condition/_search")), "{nights} nights");
    pulled.is_the_truth();
}

#[tokio::test]
async fn who_joins_or_leaves_the_group_while_a_pull_lasts_does_not_make_it_begin_anew() {
    for is_progressive in [false, true] {
        // One more joins each night, or leaves.
        for (first, step) in [(10, -1), (0, 1)] {
            let (calm, _) = while_it_changes(&of_a_group(is_progressive, first).await.0, |_| {}).await;
            let (bench, everybody) = of_a_group(is_progressive, first).await;
            let from = |night: usize| usize::try_from((first as i64 + step * night as i64).max(0)).unwrap();
            let (nights, pulled) = while_it_changes(&bench, |night| bench.hospital.regroup("all", &everybody[from(night)..], bench.clock.now())).await;
            assert!(pulled.outcome.complete && pulled.outcome.notes.is_empty(), "{:?}", pulled.outcome);
            // Who joins when everything was read of the others is the next one's; who leaves is gone.
            assert!(pulled.differences.iter().all(|one| step < 0 && one.what == What::Missing), "{:?}", pulled.differences);
            while_it_changes(&bench, |_| {}).await.1.is_the_truth();
            assert!(calm > 2 && nights <= calm + 2, "progressive {is_progressive}, from {first}: {nights} nights instead of {calm}");
        }
        // Who left and came back is asked for anew; and what is killed is as what is interrupted.
        let unlimited = async || {
            let (mut bench, everybody) = of_a_group(is_progressive, 0).await;
            bench.options.requests_per_night = 0;
            (bench, everybody)
        };
        let (wakes, _) = unlimited().await.0.pull_for(Mode::Search, u64::MAX).await;
        let (mut bench, everybody) = unlimited().await;
        let mut ended = None;
        for turn in 0..8 {
            ended = bench.pull_for(Mode::Search, if turn < 7 { wakes * turn / 8 } else { u64::MAX }).await.1;
            if ended.is_some() {
                break;
            }
            bench.reopen();
            let members: Vec<String> = everybody.iter().enumerate().filter(|(number, _)| number % 7 != turn as usize % 3).map(|(_, id)| id.clone()).collect();
            bench.hospital.regroup("all", &members, bench.clock.now());
        }
        assert!(ended.unwrap().outcome.complete);
        bench.pull(Mode::Search).await.is_the_truth();
    }
}

#[tokio::test]
async fn a_query_larger_than_a_night_whose_links_work_no_longer_is_read_in_parts() {
    let calm = Bench::new(&[]).await.pull(Mode::Search).await;
    let mut bench = Bench::new(&[]).await.swift();
    let (nights, pulled) = in_nights(&mut bench, Duration::from_secs(86_400)).await;
    pulled.is_the_truth();
    assert_eq!(pulled.digest, calm.digest);
    let observations = begun(&bench, "Observation");
    assert!(observations > 2, "{observations} parts, {nights} nights");
}

#[tokio::test]
async fn a_query_larger_than_a_night_whose_pages_shift_ends_all_the_same() {
    let calm = Bench::new(&[]).await.pull(Mode::Search).await;
    for quirk in ["r_08", "q_31"] {
        let mut bench = Bench::new(&[quirk]).await;
        let (nights, pulled) = in_nights(&mut bench, Duration::ZERO).await;
        pulled.is_the_truth();
        assert_eq!(pulled.digest, calm.digest, "{quirk}");
        assert!(nights > 5, "{quirk}: {nights} nights");
    }
}

#[tokio::test]
async fn a_budget_that_no_night_can_do_with_is_refused_with_the_one_that_is_needed() {
    let mut bench = Bench::new(&[]).await;
    for (group, needed) in [("", 4), ("all", 5)] {
        bench.options.group = group.to_owned();
        bench.options.requests_per_night = needed - 1;
        let before = bench.running.request_count();
        let error = bench.try_pull(Mode::Search).await.unwrap_err();
        assert!(matches!(error, SourceError::Options(_)), "{error}");
        let said = error.to_string();
        assert!(said.starts_with(&format!("`source.requests_per_night` is {}", needed - 1)) && said.ends_with(&format!("set it to {needed} or more")), "{said}");
        assert_eq!(bench.running.request_count(), before, "nobody is asked");
        // The least that is taken is enough.
        (bench.options.requests_per_night, bench.options.page_size, bench.options.requests_at_once) = (needed, 1_000, 1);
        let mut nights = 0;
        let pulled = loop {
            nights += 1;
            match bench.try_pull(Mode::Search).await {
                Ok(pulled) => break pulled,
                Err(SourceError::Unfinished { .. }) => assert!(nights < 60, "each night gets further"),
                Err(error) => panic!("{error}"),
            }
        };
        pulled.is_the_truth();
    }
}

/// A clock that tests move: whoever waits, waits until it has been moved far enough.
struct ByHand(Arc<AtomicU64>);

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_millis(self.0.load(Ordering::SeqCst) as i64)
    }

    fn sleep(&self, time: Duration) -> Boxed<'_, ()> {
        let until = self.now() + SignedDuration::try_from(time).unwrap();
        Box::pin(async move {
            while self.now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }
}

#[tokio::test]
async fn a_pull_stops_at_the_end_of_the_off_hours_and_goes_on_in_the_next_ones() {
    let slow = Fault::Slow { path: "/Procedure".to_owned(), delay: Duration::from_secs(3) };
    let mut bench = Bench::serving(&[], Serving { faults: vec![slow], ..Serving::default() }).await;
    bench.clock = Arc::new(ByHand(Arc::clone(&bench.ahead)));
    bench.options.requests_at_once = 1;
    // From an hour ago until in two hours, whatever time it is here.
    let edge = |hours: i64| (Timestamp::now() + SignedDuration::from_hours(hours)).strftime("%H:%M").to_string();
    let hours = OffHours::parse(&format!("{}-{}", edge(-1), edge(2)), jiff::tz::TimeZone::UTC).unwrap();
    bench.options.tuning.off_hours = Some(hours.clone());

    let end = async {
        // The server has written it down and does not answer yet: nothing else is on its way.
        while !bench.running.requests().iter().any(|seen| seen.target.contains("/Procedure")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.pass(Duration::from_secs(3 * 3600));
    };
    let (pulled, ()) = tokio::join!(bench.try_pull(Mode::Search), end);
    let Err(SourceError::Unfinished { reason }) = pulled else { panic!("it went on") };
    assert_eq!(reason, format!("the off-hours {hours} are over"));
    let open = bench.store.with(|connection| account::open(connection)).unwrap().unwrap();
    assert!(open.done >= 3 && open.received > 20, "{open:?}");

    let before = bench.running.request_count();
    let Err(SourceError::Unfinished { reason }) = bench.try_pull(Mode::Search).await else { panic!("it began by day") };
    assert_eq!(reason, format!("the EHR is asked in the off-hours {hours} only"));
    let asked: Vec<String> = bench.running.requests().split_off(before).into_iter().map(|seen| seen.target).collect();
    assert!(!asked.iter().any(|target| TYPES.iter().any(|name| target.contains(&format!("/{name}")))), "no data by day: {asked:?}");

    bench.pass(Duration::from_secs(21 * 3600));
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!((pulled.begun("Patient"), pulled.begun("Procedure")), (0, 1), "what was done is not asked again");
    pulled.is_the_truth();
    assert_eq!(bench.store.with(|connection| account::open(connection)).unwrap(), None);
}

#[tokio::test]
async fn the_wait_that_one_query_is_told_is_everybodys() {
    let told = Fault::Status { path: "/Condition".to_owned(), status: 429, retry_after: Some(3000), times: 1 };
    let mut bench = Bench::serving(&[], Serving { faults: vec![told], ..Serving::default() }).await;
    bench.clock = Arc::new(ByHand(Arc::clone(&bench.ahead)));
    (bench.options.requests_at_once, bench.options.page_size) = (4, 5);
    let seen = || bench.running.requests().iter().map(|seen| seen.status).collect::<Vec<_>>();
    let wait = async {
        while !seen().contains(&429) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Time enough for whoever does not wait; nobody's clock moves.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let later = seen().iter().skip_while(|status| **status != 429).count() - 1;
        bench.pass(Duration::from_secs(3600));
        later
    };
    let (pulled, later) = tokio::join!(bench.pull(Mode::Search), wait);
    pulled.is_the_truth();
    assert!(later <= 3, "{later} requests to a server that asked for none; three were on their way");
}

#[tokio::test]
async fn a_server_that_only_fails_is_left_alone() {
    let down = |name: &&str| Fault::Status { path: format!("/{name}"), status: 503, retry_after: None, times: 1_000_000 };
    let bench = Bench::serving(&[], Serving { faults: TYPES.iter().map(down).collect(), ..Serving::default() }).await.swift();
    let error = bench.try_pull(Mode::Search).await.unwrap_err().to_string();
    assert!(error.contains("nothing could be read: ") && error.contains("503"), "{error}");
    let asked = bench.running.requests().iter().filter(|seen| seen.status == 503).count();
    // Seven types with thirteen attempts each are 91.
    assert!((20..75).contains(&asked), "{asked} requests to a server that is down");
    assert!(bench.passed() >= Duration::from_secs(15 * 60), "but it was given a quarter of an hour");
}

fn account(bench: &Bench) -> Account {
    bench.store.with(|connection| account::last(connection)).unwrap().unwrap()
}

#[tokio::test]
async fn a_volume_far_below_earlier_nights_makes_the_data_partial_until_it_is_accepted_or_usual() {
    let mut bench = Bench::new(&[]).await;
    bench.options.tuning.full_every_days = 0;
    for _ in 0..3 {
        bench.pull(Mode::Search).await.is_the_truth();
    }
    let before = account(&bench);
    assert!(before.complete && before.full && before.rows.iter().all(|row| row.status == "complete" && row.gap.is_none()), "{before:#?}");
    let volume = |account: &Account, name: &str| account.volumes.iter().find(|volume| volume.resource_type == name).cloned().unwrap();
    let observations = volume(&before, "Observation");
    assert_eq!((observations.median, observations.pulls), (Some(observations.received), 2));

    // The earlier nights had a third more.
    let more = "UPDATE ledger SET received = received * 4 / 3 WHERE resource_type = 'Observation'";
    bench.store.with(|connection| Ok(connection.execute(more, [])?)).unwrap();
    let mut accepting = 0;
    for night in 1..=4 {
        let pulled = bench.pull(Mode::Search).await;
        if pulled.outcome.complete {
            accepting = night;
            break;
        }
        assert!(pulled.has_gap("usually do; what is stored is kept until a steward has looked"), "{:?}", pulled.outcome.gaps);
        assert_eq!(pulled.gaps().into_iter().collect::<Vec<_>>(), ["Observation"]);
        // Nothing of any type was let go of, so that every measure waits for it.
        let missing = bench.store.with(|connection| watershed::store::runs::missing_from(connection, pulled.outcome.pull_id.0)).unwrap();
        assert_eq!(missing.gaps, [("*".to_owned(), 1)].into());
        let account = account(&bench);
        let due = account.rows.iter().find_map(|row| row.gap.clone()).unwrap();
        assert!(due.who == Who::SiteEngineer && due.what.contains("`watershed pull --accept-loss`"), "{due:?}");
        assert_eq!(volume(&account, "Observation").received, observations.received, "the gap itself brings none");
    }
    assert_eq!(accepting, 4, "three nights are doubted, then it is the custom");

    bench.store.with(|connection| Ok(connection.execute(more, [])?)).unwrap();
    assert!(!bench.pull(Mode::Search).await.outcome.complete);
    bench.options.tuning.accepts_loss = true;
    bench.pull(Mode::Search).await.is_the_truth();
}

#[tokio::test]
async fn members_who_leave_are_no_loss_and_what_is_missing_of_the_others_is() {
    let mut bench = Bench::new(&[]).await;
    bench.options.group = "all".to_owned();
    bench.options.tuning.full_every_days = 0;
    for _ in 0..4 {
        bench.pull(Mode::Search).await.is_the_truth();
    }
    let stored = bench.snapshot().counts().unwrap();
    let everybody = bench.hospital.patients();
    bench.hospital.regroup("all", &everybody[7..], bench.clock.now());
    for _ in 0..2 {
        bench.pull(Mode::Search).await.is_the_truth();
    }
    let left = bench.snapshot().counts().unwrap();
    assert!(["Patient", "Encounter", "Observation"].iter().all(|name| left[*name] * 5 < stored[*name] * 4), "{stored:?} {left:?}");
    let ids = |resource_type: &str| bench.lines().iter().filter(|line| line.contains(&format!("\"resourceType\":\"{resource_type}\""))).count();
    bench.hospital.vanish("Encounter", ids("Encounter"));
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.has_gap("came where") && pulled.gaps().contains("Encounter"), "{:?}", pulled.outcome.gaps);
    assert_eq!(pulled.outcome.removed, 0);
}

#[tokio::test]
async fn the_ledger_says_per_query_what_was_to_come_and_who_must_act() {
    let mut bench = Bench::new(&["q_12"]).await;
    bench.pull(Mode::Search).await;
    let ledger = account(&bench);
    assert!(!ledger.complete);
    let row = |query: &str| ledger.rows.iter().find(|row| row.query == query).unwrap_or_else(|| panic!("no row {query}: {ledger:#?}")).clone();
    let observations = row("Observation");
    let due = observations.gap.unwrap();
    assert!(due.who == Who::SiteEngineer && due.what.contains("`source.parameters`"), "{due:?}");
    let laboratory = row("Observation of category laboratory");
    assert_eq!((laboratory.status.as_str(), laboratory.gap), ("complete", None));
    assert_eq!(row("Observation of category therapy").gap.map(|due| due.who), Some(Who::EhrTeam));

    bench = Bench::serving(&[], Serving { export_file_resources: 10, ..Serving::default() }).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    let ledger = account(&bench);
    let exported = ledger.rows.iter().filter(|row| row.query == "export").count();
    assert!(exported >= 6 && ledger.rows.len() < 20, "many files are one row: {}", ledger.rows.len());
    assert!(ledger.rows.iter().filter(|row| row.query == "export").all(|row| row.expected == Some(row.received)), "{:#?}", ledger.rows);
}

#[tokio::test]
async fn what_is_missing_of_one_type_each_night_makes_no_other_be_read_again() {
    // Categories of Observation are refused.
    let bench = Bench::new(&["q_12"]).await;
    let first = bench.pull(Mode::Search).await;
    assert_eq!(first.gaps().into_iter().collect::<Vec<_>>(), ["Observation"]);
    let whole = |pulled: &Pulled, name: &str| {
        let is_of_some = |target: &str| ["_lastUpdated=", "_summary=", "_id=", "_page="].iter().any(|part| target.contains(part));
        let asked = pulled.requests.iter().filter(|seen| seen.target.starts_with(&format!("/fhir/{name}?")) && !is_of_some(&seen.target));
        asked.count() > 0
    };
    bench.hospital.vanish("Encounter", 1);
    bench.hospital.amend_at(3, bench.clock.now());
    for night in 1..=2 {
        let pulled = bench.pull(Mode::Search).await;
        assert_eq!((pulled.outcome.full, pulled.gaps()), (false, first.gaps()), "night {night}: {:?}", pulled.outcome.gaps);
        assert!(pulled.differing().iter().all(|name| *name == "Observation"), "night {night}: {:?}", pulled.differences);
        assert_eq!(pulled.outcome.removed > 0, night == 1, "night {night}: {:?}", pulled.outcome);
        // Where a number differs, a type of one page is read again.
        let read: Vec<&str> = TYPES.iter().copied().filter(|name| whole(&pulled, name)).collect();
        assert_eq!(read == ["Observation"], night == 2, "night {night}: {read:?}");
    }
}
