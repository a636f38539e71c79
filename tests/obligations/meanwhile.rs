//! What happens at a hospital while its data are read is in that night's numbers, or the ledger names it.

use super::bench::{Bench, Pulled, TYPES, untimed};
use std::time::Duration;
use watershed::source::duty::Code;
use watershed::source::{Gap, Mode, SourceError, account};

#[tokio::test]
async fn q_83_what_is_edited_while_everything_is_read_is_in_that_nights_numbers() {
    let bench = Bench::new(&["q_83"]).await;
    let first = bench.pull(Mode::Search).await;
    assert!(first.outcome.complete, "{:?}", first.outcome.gaps);
    first.is_the_truth();
    bench.pull(Mode::Search).await.is_the_truth();
}

#[tokio::test]
async fn q_84_what_is_on_neither_of_two_pages_is_found_the_same_night() {
    // Of few pages all is read again, of many the times in which the numbers differ.
    for page_size in [50, 5] {
        let mut bench = Bench::new(&["q_84"]).await;
        bench.options.page_size = page_size;
        let first = bench.pull(Mode::Search).await;
        assert!(first.outcome.complete, "{:?}", first.outcome.gaps);
        first.is_the_truth();
        bench.pull(Mode::Search).await.is_the_truth();
    }
}

#[tokio::test]
async fn q_85_what_came_as_a_change_and_is_gone_before_it_is_counted_is_not_kept() {
    let bench = Bench::new(&["q_85"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    bench.hospital.relabel("Encounter", 3, jiff::Timestamp::now());
    let night = bench.pull(Mode::Search).await;
    assert!(night.outcome.complete && !night.outcome.full, "{:?}", night.outcome.gaps);
    night.is_the_truth();
    bench.pull(Mode::Search).await.is_the_truth();
}

/// A Group in nights a day apart, of so many requests, each of which changes something: records are corrected and deleted, one joins and
/// another leaves.
struct Nights {
    bench: Bench,
    everybody: Vec<String>,
    night: usize,
}

impl Nights {
    async fn of(requests: u64, is_progressive: bool) -> Nights {
        let mut bench = Bench::new(&[]).await.swift().on_disk();
        let mut everybody = bench.hospital.patients();
        everybody.sort();
        bench.options.group = "all".to_owned();
        (bench.options.page_size, bench.options.requests_per_night, bench.options.tuning.patients_per_query) = (50, requests, 2);
        let is_later = |name: &str| is_progressive && ["Observation", "Procedure"].contains(&name);
        bench.needs.iter_mut().for_each(|need| need.is_later = is_later(&need.resource_type));
        bench.chooser = Some(|_| true);
        let nights = Nights { bench, everybody, night: 0 };
        nights.regroup();
        nights
    }

    fn regroup(&self) {
        let away = self.night % self.everybody.len();
        let members: Vec<String> = self.everybody.iter().enumerate().filter(|(number, _)| *number != away).map(|(_, id)| id.clone()).collect();
        self.bench.hospital.regroup("all", &members, self.bench.clock.now());
    }

    /// A night, after which a day goes by. Nothing where it does not come to the end of a pull.
    async fn pull(&mut self, is_calm: bool) -> Option<Pulled> {
        let pulled = match self.bench.try_pull(Mode::Search).await {
            Ok(pulled) => Some(pulled),
            Err(SourceError::Unfinished { .. }) => None,
            Err(error) => panic!("night {}: {error}", self.night),
        };
        self.night += 1;
        self.bench.pass(Duration::from_secs(86_400));
        if !is_calm {
            self.bench.hospital.amend_at(self.night as u64, self.bench.clock.now());
            self.regroup();
        }
        pulled
    }
}

fn has(told: &[Gap], code: Code) -> bool {
    told.iter().any(|told| told.code == code)
}

#[tokio::test]
async fn what_changes_in_a_group_while_a_pull_lasts_several_nights_is_in_the_last_ones_numbers() {
    for spent in 1..20 {
        let mut nights = Nights::of(40, spent % 2 == 0).await;
        let mut is_over = false;
        for _ in 0..spent {
            is_over |= nights.pull(false).await.is_some();
        }
        if is_over {
            assert!(spent > 3, "{spent} nights");
            return;
        }
        nights.bench.options.requests_per_night = 0;
        let last = nights.bench.pull(Mode::Search).await;
        last.is_the_truth();
        // Both are told: that everything came, and what followed.
        assert!(last.outcome.full && has(&last.outcome.notes, Code::Followed) && last.outcome.received["Patient"] > 19, "{spent} nights: {:?}", last.outcome);
        let account = nights.bench.store.with(|connection| account::last(connection)).unwrap().unwrap();
        let told: Vec<&str> = account.rows.iter().filter_map(|row| row.note.as_ref()).map(|note| note.reason.as_str()).collect();
        assert!(account.complete && !account.full && told.iter().any(|told| told.contains("this pull reads what changed while pull 1 (everything) lasted, from 20")), "{told:?}");
        // The night after it is one of its own.
        let calm = nights.bench.pull(Mode::Search).await;
        calm.is_the_truth();
        assert!(!calm.outcome.full && !has(&calm.outcome.notes, Code::Followed));
    }
    panic!("it does not end");
}

#[tokio::test]
async fn nights_too_short_for_what_changes_meanwhile_say_so_and_get_on() {
    let mut nights = Nights::of(60, false).await;
    nights.bench.options.tuning.full_every_days = 365;
    let mut ended = Vec::new();
    for _ in 0..12 {
        ended.extend(nights.pull(false).await);
    }
    // What is behind is missing.
    let told: Vec<(bool, bool, bool)> = ended
        .iter()
        .map(|night| (night.outcome.full, has(&night.outcome.gaps, Code::Ongoing), has(&night.outcome.notes, Code::Ongoing)))
        .collect();
    assert!(told.contains(&(true, true, false)) && told.contains(&(false, true, false)), "{told:?}");
    assert!(ended.iter().all(|night| night.outcome.complete != has(&night.outcome.gaps, Code::Ongoing)), "{told:?}");
    let gap = ended.iter().flat_map(|night| &night.outcome.gaps).find(|gap| gap.code == Code::Ongoing).unwrap();
    assert!(
        gap.reason.starts_with("what has changed since 20") && gap.reason.contains(" is still to be read: `source.requests_per_night` allows 60 requests"),
        "{}",
        gap.reason
    );
    let account = nights.bench.store.with(|connection| account::last(connection)).unwrap().unwrap();
    assert!(!account.complete && account.rows.iter().any(|row| format!("{row:?}").contains("is still to be read")), "its ledger says so: {:?}", account.rows);
    nights.bench.options.requests_per_night = 0;
    nights.pull(true).await.unwrap().is_the_truth();
}

#[tokio::test]
async fn so_is_what_changes_meanwhile_of_the_patients_whom_a_search_finds() {
    let mut nights = Nights::of(40, false).await;
    (nights.bench.options.group, nights.bench.options.patients_search) = (String::new(), "Patient?gender=male,female".to_owned());
    nights.bench.listed = Some(nights.everybody.clone());
    assert!(nights.pull(false).await.is_none() && nights.pull(false).await.is_none());
    nights.bench.options.requests_per_night = 0;
    let last = nights.bench.pull(Mode::Search).await;
    last.is_the_truth();
    assert!(last.outcome.full && has(&last.outcome.notes, Code::Followed), "{:?}", last.outcome);
}

/// Everything is due to be read again a week after it was: not a week after that was begun.
#[tokio::test]
async fn a_reading_of_everything_that_took_longer_than_a_week_is_not_due_again_as_it_ends() {
    let mut nights = Nights::of(60, false).await;
    assert!(nights.pull(false).await.is_none());
    nights.bench.pass(Duration::from_secs(9 * 86_400));
    nights.bench.options.requests_per_night = 0;
    for (is_full, days) in [(true, 5), (false, 2), (true, 0)] {
        let night = nights.bench.pull(Mode::Search).await;
        night.is_the_truth();
        assert_eq!((night.outcome.full, has(&night.outcome.notes, Code::Ongoing)), (is_full, false), "{days}");
        nights.bench.pass(Duration::from_secs(days * 86_400));
    }
}

#[tokio::test]
async fn what_times_of_change_do_not_tell_is_not_read_a_second_time_in_one_night() {
    let mut nights = Nights::of(60, false).await;
    nights.bench.facts = TYPES.iter().map(|name| untimed(name)).collect();
    assert!(nights.pull(true).await.is_none());
    nights.bench.options.requests_per_night = 0;
    let last = nights.bench.pull(Mode::Search).await;
    assert!(!last.outcome.complete && last.outcome.full && has(&last.outcome.gaps, Code::Ongoing), "{:?}", last.outcome);
    assert_eq!(nights.bench.store.with(|connection| account::last(connection)).unwrap().unwrap().pull, 1);
}
