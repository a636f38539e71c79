//! What changes at an EHR between two nights and is announced by nobody: the next night is right, or says what it lacks.

use super::bench::{Bench, Pulled};
use jiff::SignedDuration;
use watershed::sandbox::Fault;
use watershed::sandbox::server::Options as Serving;
use watershed::source::account;
use watershed::source::duty::Code;
use watershed::source::{Mode, TypeFilter};

const MODES: [Mode; 2] = [Mode::Search, Mode::Bulk];

/// A night of changes after which everything is as the hospital has it.
async fn is_right_the_next_night(bench: &Bench, mode: Mode) -> Pulled {
    let night = bench.pull(mode).await;
    assert!(!night.outcome.full, "{mode:?}: everything was read");
    night.is_the_truth();
    night
}

#[tokio::test]
async fn q_77_what_vanishes_between_nights_is_let_go_the_next_night() {
    for (mode, group, is_later) in [(Mode::Search, "", false), (Mode::Search, "", true), (Mode::Search, "all", false), (Mode::Bulk, "", false), (Mode::Bulk, "all", false)] {
        let mut bench = Bench::new(&[]).await;
        bench.options.group = group.to_owned();
        bench.chooser = Some(|_| true);
        bench.options.page_size = if is_later { 5 } else { 50 };
        bench.needs.iter_mut().for_each(|need| need.is_later = is_later && need.resource_type == "Observation");
        bench.pull(mode).await.is_the_truth();
        bench.hospital.vanish("Encounter", 3);
        bench.hospital.vanish("Observation", 1);
        let night = is_right_the_next_night(&bench, mode).await;
        assert_eq!(night.outcome.removed, 4, "{mode:?} `{group}`");
        assert!(night.outcome.notes.iter().all(|note| note.code == Code::Vanished), "{:?}", night.outcome.notes);
        let quiet = is_right_the_next_night(&bench, mode).await;
        assert_eq!((quiet.outcome.removed, quiet.outcome.notes), (0, Vec::new()), "{mode:?} `{group}`");
    }
}

#[tokio::test]
async fn q_77_of_many_only_the_times_are_read_in_which_the_numbers_differ() {
    for mode in MODES {
        let mut bench = Bench::of(40, &[], Serving::default()).await;
        bench.options.page_size = 5;
        let first = bench.pull(mode).await;
        let pages = first.outcome.received["Observation"].div_ceil(5);
        bench.hospital.vanish("Observation", 2);
        let night = is_right_the_next_night(&bench, mode).await;
        let asked = night.count("/fhir/Observation") as u64;
        assert!(night.outcome.removed == 2 && asked * 2 < pages, "{mode:?}: {asked} requests, and all are {pages} pages");
    }
}

#[tokio::test]
async fn q_77_a_connection_that_breaks_leaves_nothing_uncounted() {
    let bench = Bench::new(&["q_55"]).await.swift();
    bench.pull(Mode::Search).await.is_the_truth();
    bench.hospital.vanish("Encounter", 1);
    let night = is_right_the_next_night(&bench, Mode::Search).await;
    assert!(night.outcome.notes.iter().all(|note| note.code == Code::Vanished), "{:?}", night.outcome.notes);
}

#[tokio::test]
async fn q_77_a_night_that_is_killed_while_it_counts_ends_as_one_that_is_not() {
    let site = async || {
        let mut bench = Bench::of(40, &[], Serving::default()).await.swift().on_disk();
        bench.options.page_size = 5;
        bench.pull(Mode::Search).await.is_the_truth();
        [("Encounter", 1), ("Observation", 2)].into_iter().for_each(|(name, count)| bench.hospital.vanish(name, count));
        bench
    };
    let (wakes, calm) = site().await.pull_for(Mode::Search, u64::MAX).await;
    let mut bench = site().await;
    let (killed, pulled) = bench.pull_killed(Mode::Search, wakes, 4).await;
    assert!(killed >= 3 && !pulled.outcome.full, "killed {killed} times");
    pulled.is_the_truth();
    assert_eq!(pulled.digest, calm.unwrap().digest);
}

#[tokio::test]
async fn q_78_a_number_that_is_wrong_is_the_servers_own_and_later_ones_are_held_against_it() {
    let bench = Bench::new(&["q_78"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    assert_eq!(is_right_the_next_night(&bench, Mode::Search).await.begun("Condition"), 1, "it is not read again");
    // What vanishes changes it all the same, once.
    bench.hospital.vanish("Condition", 10);
    assert!(is_right_the_next_night(&bench, Mode::Search).await.begun("Condition") > 1);
    assert_eq!(is_right_the_next_night(&bench, Mode::Search).await.begun("Condition"), 1, "it is not read again");
}

#[tokio::test]
async fn q_77_data_that_get_new_ids_are_not_counted_twice() {
    for mode in MODES {
        let bench = Bench::new(&[]).await;
        let first = bench.pull(mode).await;
        first.is_the_truth();
        bench.hospital.load_anew(bench.clock.now());
        let night = bench.pull(mode).await;
        assert!(!night.outcome.full && night.outcome.complete, "{mode:?}: {:?}", night.outcome.gaps);
        // Places that only places refer to are let go when everything is read.
        assert!(night.differences.iter().all(|difference| difference.resource_type == "Location"), "{mode:?}: {:?}", night.differences);
        assert!(night.outcome.removed * 10 > first.outcome.new_versions * 9, "{mode:?}: {} removed", night.outcome.removed);
    }
}

#[tokio::test]
async fn q_77_what_cannot_be_counted_is_said_and_new_ids_of_everything_are_doubted() {
    let types = ["Condition", "DeviceUseStatement", "Encounter", "Observation", "Procedure"];
    let refused = types.map(|name| Fault::Status { path: format!("/fhir/{name}"), status: 404, retry_after: None, times: u32::MAX });
    let bench = Bench::serving(&[], Serving { faults: refused.into(), ..Serving::default() }).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    let quiet = is_right_the_next_night(&bench, Mode::Bulk).await;
    let told = quiet
        .outcome
        .notes
        .iter()
        .filter(|note| note.code == Code::Uncounted && note.reason.contains("until everything is read again, on 20"));
    assert_eq!(told.map(|note| note.resource_type.as_str()).collect::<Vec<_>>(), types);

    bench.hospital.load_anew(bench.clock.now());
    let night = bench.pull(Mode::Bulk).await;
    assert!(!night.outcome.full && !night.outcome.complete, "{:?}", night.outcome);
    assert!(night.outcome.gaps.iter().any(|gap| gap.resource_type == "Encounter" && gap.code == Code::Missed), "{:?}", night.outcome.gaps);
    let next = bench.pull(Mode::Bulk).await;
    assert!(next.outcome.full);
    next.is_the_truth();
}

#[tokio::test]
async fn q_77_what_is_recoded_away_from_a_query_is_let_go() {
    for (mode, spelling) in [(Mode::Search, TypeFilter::Off), (Mode::Bulk, TypeFilter::Encoded)] {
        let bench = Bench::new(&[]).await.narrowed(spelling);
        bench.pull(mode).await.is_the_truth();
        bench.hospital.recode("Observation", 2, "1988-5", "another", bench.clock.now());
        let night = is_right_the_next_night(&bench, mode).await;
        assert_eq!(night.outcome.removed, 2, "{mode:?}");
    }
}

#[tokio::test]
async fn q_77_a_clock_that_was_ahead_and_is_right_again_hides_no_change() {
    for mode in MODES {
        let bench = Bench::new(&["q_77"]).await;
        for seed in [11, 12] {
            bench.hospital.amend_at(seed, bench.clock.now() + SignedDuration::from_hours(48));
            bench.pull(mode).await.is_the_truth();
        }
        // It is put right, and the next changes are dated before those.
        bench.hospital.set_clock(bench.clock.now());
        bench.hospital.amend_at(13, bench.clock.now());
        is_right_the_next_night(&bench, mode).await;
    }
}

#[tokio::test]
async fn q_77_what_a_wrong_clock_promised_is_read_again() {
    // By our own clock it was to come, or by the server's.
    for (hours, is_full) in [(48, true), (-1, false)] {
        let bench = Bench::new(&["q_77"]).await;
        bench.pull(Mode::Search).await.is_the_truth();
        let promised = bench.clock.now() + SignedDuration::from_hours(hours);
        bench.store.with(|connection| Ok(connection.execute("UPDATE cursor SET value = ?1", [promised.to_string()])?)).unwrap();
        let night = bench.pull(Mode::Search).await;
        assert_eq!((night.outcome.full, night.outcome.complete), (is_full, is_full), "{hours} hours: {:?}", night.outcome.gaps);
        if !is_full {
            assert!(night.outcome.gaps.iter().any(|gap| gap.code == Code::Clock), "{:?}", night.outcome.gaps);
            let next = bench.pull(Mode::Search).await;
            assert!(next.outcome.full);
            next.is_the_truth();
        }
    }
}

#[tokio::test]
async fn q_77_after_a_loss_that_is_doubted_everything_is_read_until_a_person_has_looked() {
    let mut bench = Bench::serving(&[], Serving::default()).await;
    bench.options.tuning.full_every_days = 0;
    bench.pull(Mode::Search).await.is_the_truth();
    let observations = bench.snapshot().counts().unwrap()["Observation"];
    bench.hospital.vanish("Observation", observations as usize * 3 / 4);
    assert!(bench.pull(Mode::Search).await.has_gap("what is stored is kept until a steward has looked"));
    bench.options.tuning.full_every_days = 7;
    for _ in 0..2 {
        let next = bench.pull(Mode::Search).await;
        assert!(next.outcome.full && next.outcome.gaps.iter().any(|gap| gap.code == Code::Loss), "{:?}", next.outcome);
        assert!(!bench.store.with(|connection| account::last(connection)).unwrap().unwrap().complete);
    }
    bench.options.tuning.accepts_loss = true;
    bench.pull(Mode::Search).await.is_the_truth();
    bench.options.tuning.accepts_loss = false;
    is_right_the_next_night(&bench, Mode::Search).await;
}

#[tokio::test]
async fn q_77_as_many_missed_as_vanished_are_found_within_a_week() {
    for (mode, group) in [(Mode::Search, ""), (Mode::Bulk, ""), (Mode::Search, "all")] {
        let mut bench = Bench::new(&[]).await;
        bench.options.group = group.to_owned();
        bench.pull(mode).await.is_the_truth();
        bench.hospital.vanish("Observation", 2);
        bench.hospital.slip_in("Observation", 2, "2026-01-25T12:00:00Z".parse().unwrap());
        let mut nights = 0;
        loop {
            nights += 1;
            let night = bench.pull(mode).await;
            assert!(nights < 7 && !night.outcome.full && night.outcome.complete, "{mode:?} `{group}`, night {nights}: {:?}", night.outcome.gaps);
            if night.outcome.removed > 0 {
                night.is_the_truth();
                break;
            }
        }
        let quiet = is_right_the_next_night(&bench, mode).await;
        assert_eq!((quiet.outcome.removed, quiet.outcome.new_versions), (0, 0), "{mode:?} `{group}`");
    }
}

#[tokio::test]
async fn q_77_new_ids_of_old_times_are_found_the_next_night() {
    for mode in MODES {
        let bench = Bench::new(&[]).await;
        bench.pull(mode).await.is_the_truth();
        bench.hospital.rename("Observation");
        let night = is_right_the_next_night(&bench, mode).await;
        assert!(night.outcome.removed > 50 && night.outcome.removed == night.outcome.new_versions, "{mode:?}: {}", night.outcome.removed);
    }
}

#[tokio::test]
async fn q_79_samples_that_are_not_counted_as_they_are_sent_are_not_asked_for_any_more() {
    for mode in MODES {
        let bench = Bench::new(&["q_79"]).await;
        bench.pull(mode).await.is_the_truth();
        // Times in the one night, ids in the other.
        for _ in 0..2 {
            is_right_the_next_night(&bench, mode).await;
        }
        let told = |night: &Pulled| {
            let notes = night.outcome.notes.iter().filter(|note| note.code == Code::Unsampled && note.resource_type == "Observation");
            notes.map(|note| note.reason.clone()).collect::<Vec<_>>()
        };
        for _ in 0..2 {
            let night = is_right_the_next_night(&bench, mode).await;
            assert_eq!((night.begun("Observation"), night.outcome.removed), (2, 0), "{mode:?}: it is asked for changes, or whether there are any, and for some by their ids");
            let words = "its number is right, and no samples of it can be looked at by times of change: as many missed as vanished, or new ids of old ones, may go unnoticed until everything is read again, on 20";
            assert!(matches!(told(&night).as_slice(), [one] if one.starts_with(words)), "{:?}", night.outcome.notes);
        }
    }
}

#[tokio::test]
async fn q_77_what_a_restored_backup_says_wins_whatever_its_age() {
    for mode in MODES {
        let bench = Bench::new(&[]).await;
        bench.pull(mode).await.is_the_truth();
        let backup = bench.hospital.back_up();
        bench.hospital.amend_at(3, bench.clock.now());
        bench.hospital.recode("Observation", 9, "1988-5", "another", bench.clock.now());
        bench.pull(mode).await.is_the_truth();
        bench.hospital.restore(&backup);
        let night = is_right_the_next_night(&bench, mode).await;
        assert!(night.outcome.new_versions > 9, "{mode:?}: {}", night.outcome.new_versions);
        let quiet = is_right_the_next_night(&bench, mode).await;
        assert_eq!((quiet.outcome.removed, quiet.outcome.new_versions), (0, 0), "{mode:?}");
        // Samples are still looked at.
        bench.hospital.rename("Observation");
        is_right_the_next_night(&bench, mode).await;
    }
}

/// Each night's export brings everything, and is not asked for again by search.
#[tokio::test]
async fn q_82_what_an_export_of_everything_says_wins_whatever_its_age() {
    for group in ["", "all"] {
        let mut bench = Bench::new(&["q_82"]).await;
        (bench.options.group, bench.options.page_size) = (group.to_owned(), 5);
        bench.pull(Mode::Bulk).await.is_the_truth();
        for turn in 1..=3 {
            let backup = bench.hospital.back_up();
            bench.hospital.amend_at(turn, bench.clock.now());
            bench.hospital.recode("Observation", 9, "1988-5", "another", bench.clock.now());
            is_right_the_next_night(&bench, Mode::Bulk).await;
            bench.hospital.restore(&backup);
            let night = is_right_the_next_night(&bench, Mode::Bulk).await;
            assert!(night.outcome.new_versions > 9, "`{group}`, {turn}: {}", night.outcome.new_versions);
        }
    }
}

/// Two are at the time of change that they had, and all numbers are right: of all, and of what changed before anything.
#[tokio::test]
async fn q_77_a_restored_backup_that_changes_no_number_is_found_the_same_night_whichever_that_is() {
    for (mode, nights) in [(Mode::Search, 1), (Mode::Search, 2), (Mode::Bulk, 1), (Mode::Bulk, 2)] {
        let bench = Bench::new(&[]).await;
        let hours_ago = |hours| bench.clock.now() - SignedDuration::from_hours(hours);
        let before = bench.hospital.back_up();
        bench.hospital.slip_in("Observation", 2, hours_ago(3));
        bench.pull(mode).await.is_the_truth();
        let backup = bench.hospital.back_up();
        bench.hospital.restore(&before);
        bench.hospital.slip_in("Observation", 2, hours_ago(1));
        for _ in 0..nights {
            is_right_the_next_night(&bench, mode).await;
        }
        bench.hospital.restore(&backup);
        let night = is_right_the_next_night(&bench, mode).await;
        assert_eq!(night.outcome.new_versions, 2, "{mode:?}, after {nights}");
        let quiet = is_right_the_next_night(&bench, mode).await;
        assert_eq!((quiet.outcome.removed, quiet.outcome.new_versions, quiet.begun("Observation")), (0, 0, 2), "{mode:?}, after {nights}");
    }
}

#[tokio::test]
async fn q_77_what_changes_and_is_no_newer_for_it_is_found_among_some() {
    for mode in MODES {
        let bench = Bench::new(&[]).await;
        bench.pull(mode).await.is_the_truth();
        bench.hospital.recode_unseen("Observation", 9, "1988-5", "another");
        let night = is_right_the_next_night(&bench, mode).await;
        assert_eq!(night.outcome.new_versions, 9, "{mode:?}");
    }
}

#[tokio::test]
async fn q_77_of_a_group_of_more_than_one_question_takes_some_are_read_by_their_ids_too() {
    let mut bench = Bench::of(510, &[], Serving::default()).await;
    (bench.options.group, bench.options.page_size) = ("all".to_owned(), 500);
    bench.needs.retain(|need| ["Patient", "Observation"].contains(&need.resource_type.as_str()));
    bench.pull(Mode::Search).await.is_the_truth();
    let quiet = is_right_the_next_night(&bench, Mode::Search).await;
    assert_eq!((quiet.count("/Observation?_id="), quiet.outcome.notes.len()), (1, 0), "one question more");
    bench.hospital.recode_unseen("Observation", 100_000, "1988-5", "another");
    // One in twenty is otherwise, and others are read each night.
    for nights in 1.. {
        let night = bench.pull(Mode::Search).await;
        assert!(nights < 7 && !night.outcome.full, "it is not found");
        if night.outcome.new_versions > 0 {
            night.is_the_truth();
            break;
        }
    }
}

#[tokio::test]
async fn q_77_a_server_that_changes_without_a_word_each_night_is_not_wholly_read_each_night() {
    let mut bench = Bench::new(&[]).await;
    (bench.options.group, bench.options.page_size) = ("all".to_owned(), 5);
    bench.pull(Mode::Search).await.is_the_truth();
    for _ in 0..2 {
        bench.hospital.vanish("Observation", 1);
        assert_eq!(is_right_the_next_night(&bench, Mode::Search).await.outcome.removed, 1);
    }
    // What is little is read as often as it takes.
    for (name, is_let_go) in [("Observation", false), ("Procedure", true)] {
        bench.hospital.vanish(name, 1);
        let night = bench.pull(Mode::Search).await;
        assert_eq!((night.outcome.full, night.outcome.removed == 1), (false, is_let_go), "{name}");
        let gaps: Vec<(&str, Code)> = night.outcome.gaps.iter().map(|gap| (gap.resource_type.as_str(), gap.code)).collect();
        assert_eq!(gaps, [("Observation", Code::Restless)]);
        assert!(night.has_gap("it was wholly read again 2 times since everything was, and is not until everything is read again, on 20"), "{:?}", night.outcome.gaps);
        // Changes, numbers, and whether a list of patients is heeded.
        assert!(night.count("/fhir/Observation") < 9, "{} requests", night.count("/fhir/Observation"));
    }
    bench.options.tuning.full_every_days = 0;
    bench.pull(Mode::Search).await.is_the_truth();
}

#[tokio::test]
async fn q_46_a_group_whose_members_may_not_be_read_is_told_of() {
    let refused = Fault::Status { path: "/Group/all ".to_owned(), status: 403, retry_after: None, times: u32::MAX };
    let mut bench = Bench::serving(&[], Serving { faults: vec![refused], ..Serving::default() }).await;
    bench.options.group = "all".to_owned();
    for _ in 0..2 {
        let night = bench.pull(Mode::Bulk).await;
        night.is_the_truth();
        let told: Vec<&str> = night.outcome.notes.iter().filter(|note| note.code == Code::Unlisted).map(|note| note.reason.as_str()).collect();
        assert!(matches!(told.as_slice(), [one] if one.contains("(status 403): whether all its members came cannot be told") && one.contains("again, on 20")), "{told:?}");
        assert_eq!(night.count("_summary=count"), 0);
    }
}

#[tokio::test]
async fn q_77_what_is_only_referred_to_is_looked_at_again() {
    for mode in MODES {
        let bench = Bench::new(&[]).await;
        bench.pull(mode).await.is_the_truth();
        bench.hospital.vanish("Device", 1);
        bench.hospital.relabel("Location", 2, bench.clock.now());
        let night = is_right_the_next_night(&bench, mode).await;
        assert_eq!((night.outcome.removed, night.outcome.new_versions), (1, 2), "{mode:?}");
        assert!(night.outcome.notes.iter().all(|note| note.code == Code::Vanished && note.resource_type == "Device"), "{:?}", night.outcome.notes);
        let quiet = is_right_the_next_night(&bench, mode).await;
        assert_eq!((quiet.outcome.removed, quiet.outcome.new_versions, quiet.outcome.notes), (0, 0, Vec::new()), "{mode:?}");
    }
}
