//! What operators are told: where a feed stands, alike by every command; which measures a registry accepts; how a wait goes on.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tempfile::TempDir;
use watershed::feed::{Completeness, ReportKey};
use watershed::outbox::{self, Cause, Draft, Outcome, Report, State};
use watershed::pipeline::DESTINATION;
use watershed::store::Store;

use crate::bed::{Bed, Wanted, output};
use crate::command_line::{Said, say, sound_site};

/// Leaves in the site's state what nights with these numerators left, each with what became of its sending.
fn leave(site: &TempDir, nights: &[(u32, &[Outcome])]) {
    std::fs::create_dir_all(site.path().join("data")).unwrap();
    let store = Store::open(&site.path().join("data/state.sqlite")).unwrap();
    store.with(|connection| Ok(outbox::open_epoch(connection).unwrap())).unwrap();
    let mut now = Timestamp::now() - 24.hours();
    for (numerator, outcomes) in nights {
        let key = ReportKey {
            measure: "http://watershed.example/fhir/Measure/ibd-remission".into(),
            version: "1.0.0".into(),
            period_start: "2026-01-01".into(),
            period_end: "2026-01-31".into(),
        };
        let report = Report { key, body: format!("{{\"numerator\":{numerator}}}").into_bytes(), complete: true };
        let draft = Draft {
            destination: DESTINATION.into(),
            site: "lakeside".into(),
            reports: vec![report],
            withdrawals: Vec::new(),
            cause: Cause::Data,
            completeness: Completeness { complete: true, gaps: 0, quarantined: 0 },
        };
        store.transaction(|transaction| Ok(outbox::append(transaction, &draft, now).unwrap())).unwrap();
        for outcome in *outcomes {
            now += 1.hour();
            store
                .with(|connection| {
                    let claim = outbox::claim(connection, now, Duration::from_secs(60)).unwrap().unwrap();
                    outbox::settle(connection, &claim, outcome, now).unwrap();
                    Ok(())
                })
                .unwrap();
        }
    }
}

/// What is left, as `deliver` counts it.
fn counted(state: State) -> Value {
    let mut all = json!({ "delivered": 0, "confirmed": 0, "restored": 0, "waiting": 0, "confirming": 0, "rejected": 0, "contradicted": 0 });
    if state.is_to_be_sent() || state.needs_a_person() {
        all[state.word()] = 1.into();
    }
    all
}

#[test]
fn every_command_says_the_same_of_a_feed() {
    let lost = Outcome::Retry { reason: "the answer was lost".into(), after: Duration::from_secs(60), refused: false };
    let taken = Outcome::Delivered { receipt: "r".into() };
    let dead = Outcome::Dead { reasons: vec!["unknown measure".into()] };
    let (lost, taken, dead) = (&[lost][..], &[taken][..], &[dead][..]);
    // What the nights left, where the newest feed stands, the exit codes of `outbox list`, `status`, `deliver` and `outbox retry`.
    type Row<'a> = (&'a [(u32, &'a [Outcome])], State, [i32; 4]);
    let table: [Row<'_>; 7] = [
        (&[(5, lost)], State::Waiting, [0, 0, 4, 0]),
        (&[(5, taken)], State::Delivered, [0, 0, 0, 2]),
        (&[(5, taken), (5, lost)], State::Confirming, [0, 0, 4, 0]),
        (&[(5, taken), (5, dead)], State::Contradicted, [1, 1, 5, 0]),
        (&[(5, dead)], State::Rejected, [1, 1, 5, 0]),
        (&[(5, dead), (5, dead)], State::Rejected, [1, 1, 5, 0]),
        (&[(5, taken), (6, dead), (5, taken)], State::Superseded, [0, 0, 0, 2]),
    ];
    for (nights, state, [list, status, deliver, retry]) in table {
        let site = sound_site();
        leave(&site, nights);
        let path = site.path();
        let row = format!("{nights:?}");
        let listed = say(path, &["outbox", "list", "--format", "json"]);
        let newest = listed.json()["feeds"][0].clone();
        assert_eq!((listed.code, &newest["state"]), (list, &state.word().into()), "{row}");
        let in_words = say(path, &["outbox", "list"]).out;
        assert_eq!(in_words.contains(&format!("\n{}: {}", state.word(), state.meaning())), state != State::Delivered, "{row}: {in_words}");

        let told = say(path, &["status", "--format", "json"]);
        let is_shown = state.is_to_be_sent() || state.needs_a_person();
        let shown: Vec<Value> = told.json()["outbox"].as_array().unwrap().iter().map(|feed| json!([feed["state"], feed["feed"]])).collect();
        let expected = if is_shown { vec![json!([state.word(), newest["feed"]])] } else { Vec::new() };
        assert_eq!((told.code, shown), (status, expected), "{row}");
        let in_words = say(path, &["status"]).out;
        assert_eq!(in_words.contains(state.meaning()), is_shown, "{row}: {in_words}");

        let sent = say(path, &["deliver", "--format", "json"]);
        assert_eq!((sent.code, sent.json()), (deliver, counted(state)), "{row}: {}", sent.err);
        if is_shown {
            assert!(sent.err.contains(&format!("help: {}: {}", state.word(), state.meaning())), "{row}: {}", sent.err);
        }

        let again = say(path, &["outbox", "retry", newest["feed"].as_str().unwrap()]);
        assert_eq!(again.code, retry, "{row}: {}", again.err);
        if retry == 2 {
            assert!(again.err.contains(&format!("is {}: {}", state.word(), state.meaning())), "{row}: {}", again.err);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_tells_which_measures_the_registry_would_reject_before_a_feed_does() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 6, ..Wanted::default() }).await;
    let poorer = bed.poorer_registry().await;
    for (registry, rejected) in [(bed.registry_url.clone(), &[][..]), (poorer, &["hac-clabsi", "perinatal-early-elective-delivery"])] {
        let mut command = bed.command(&["check", "--format", "json"]);
        command.env("WATERSHED__REGISTRY__URL", registry);
        let said = Said::of(output(command).await);
        let peers = said.json()["peers"].clone();
        let due = peers.as_array().unwrap().iter().find(|peer| peer["peer"] == "registry").unwrap()["due"].as_array().unwrap().clone();
        assert_eq!(due.len(), rejected.len(), "{due:?}");
        for (due, id) in due.iter().zip(rejected) {
            let expected = format!("measure `http://watershed.example/fhir/Measure/{id}|1.0.0` is not accepted by the registry");
            assert!(
                due.as_str().unwrap().starts_with(&expected) && due.as_str().unwrap().contains("it accepts `http://watershed.example/fhir/Measure/ibd-remission|1.0.0`"),
                "{due}"
            );
        }
        assert!(rejected.is_empty() || said.code == 1, "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_an_export_says_how_far_it_is_and_until_when_it_is_waited_for() {
    let bed = Bed::make(Wanted { mode: "bulk", slow_export: true, limit: u64::MAX, patients: 6, ..Wanted::default() }).await;
    let said = Said::of(output(bed.night()).await);
    assert_eq!(said.code, 0, "{}", said.err);
    for part in [
        "/fhir: the export was accepted, and the server is at work, ",
        " % done by what it says; it is waited for until 2",
        " at most, and then left to go on there: a night reports of the last data, and the next pull takes it",
    ] {
        assert!(said.err.contains(part), "`{part}` is missing in {}", said.err);
    }
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}
