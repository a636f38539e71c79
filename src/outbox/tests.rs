//! The outbox's promises: order, leases, identity, unchanged nights, rebuilt successors.

use super::*;

const SCHEMA: &str = concat!(include_str!("../store/schema/002_outbox.sql"), include_str!("../store/schema/013_refused.sql"));
const HISTORY: &str = "ALTER TABLE outbox_feed ADD COLUMN is_history INTEGER NOT NULL DEFAULT 0";
const MINUTE: Duration = Duration::from_secs(60);

fn open() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection.execute_batch(HISTORY).unwrap();
    open_epoch(&mut connection).unwrap();
    connection
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

fn report(month: u8, numerator: u32, date: &str) -> Report {
    let key = ReportKey {
        measure: "http://example.org/Measure/m".into(),
        version: "1.0.0".into(),
        period_start: format!("2026-{month:02}-01"),
        period_end: format!("2026-{month:02}-28"),
    };
    Report { key, body: format!(r#"{{"date":"{date}","numerator":{numerator}}}"#).into_bytes(), complete: true }
}

fn draft(reports: Vec<Report>) -> Draft {
    let completeness = Completeness { complete: true, gaps: 0, quarantined: 0 };
    Draft { destination: "registry".into(), site: "north".into(), reports, withdrawals: vec![], cause: Cause::Data, completeness }
}

fn send(connection: &mut Connection, draft: &Draft, now: Timestamp) -> Appended {
    let transaction = connection.transaction().unwrap();
    let appended = append(&transaction, draft, now).unwrap();
    transaction.commit().unwrap();
    appended
}

fn deliver(connection: &mut Connection, now: Timestamp) -> Claim {
    let claimed = claim(connection, now, MINUTE).unwrap().unwrap();
    settle(connection, &claimed, &Outcome::Delivered { receipt: "r".into() }, now).unwrap();
    claimed
}

fn feed_of(appended: &Appended) -> String {
    match appended {
        Appended::New { feed } | Appended::Unchanged { feed } => feed.clone(),
    }
}

#[test]
fn the_same_night_twice_appends_nothing_and_asks_for_a_confirmation() {
    let mut c = open();
    let first = send(&mut c, &draft(vec![report(1, 5, "d1"), report(2, 6, "d1")]), at(0));
    assert!(matches!(first, Appended::New { .. }));
    deliver(&mut c, at(1));
    assert!(claim(&mut c, at(2), MINUTE).unwrap().is_none());
    // The next night computes the same numbers on another date, listed in another order.
    let second = send(&mut c, &draft(vec![report(2, 6, "d2"), report(1, 5, "d2")]), at(3));
    assert_eq!(second, Appended::Unchanged { feed: feed_of(&first) });
    let confirmation = deliver(&mut c, at(4));
    assert!(confirmation.confirming);
    assert_eq!(confirmation.feed, feed_of(&first));
    assert!(claim(&mut c, at(5), MINUTE).unwrap().is_none());
    assert_eq!(list(&c).unwrap().len(), 1);
}

#[test]
fn a_changed_report_names_the_one_it_follows_and_unchanged_ones_keep_their_bytes() {
    let mut c = open();
    send(&mut c, &draft(vec![report(1, 5, "d1"), report(2, 6, "d1")]), at(0));
    let first = deliver(&mut c, at(1)).feed;
    let first = manifest_of(&c, &first).unwrap();
    send(&mut c, &draft(vec![report(1, 5, "d2"), report(2, 7, "d2")]), at(2));
    let second = deliver(&mut c, at(3));
    let manifest = manifest_of(&c, &second.feed).unwrap();
    assert_eq!(manifest.supersedes.as_deref(), Some(sha256_hex(&first.bytes()).as_str()));
    assert_eq!(manifest.reports[0].replaces.as_ref(), Some(&manifest.reports[0].sha256));
    assert_eq!(manifest.reports[0].cause, None);
    assert_eq!(manifest.reports[1].replaces.as_ref(), Some(&first.reports[1].sha256));
    assert_eq!(manifest.reports[1].cause, Some(Cause::Data));
    assert_eq!(part(&c, &manifest.reports[0].sha256).unwrap().unwrap(), report(1, 5, "d1").body);
}

#[test]
fn the_identity_is_the_digest_of_the_manifest_and_is_stored_before_anything_is_sent() {
    let mut c = open();
    let appended = send(&mut c, &draft(vec![report(1, 5, "d1")]), at(0));
    let claimed = claim(&mut c, at(0), MINUTE).unwrap().unwrap();
    assert_eq!(claimed.feed, feed_of(&appended));
    assert_eq!(claimed.feed, sha256_hex(&claimed.manifest)[..32]);
    assert_eq!(read_manifest(&claimed.manifest).unwrap().bytes(), claimed.manifest);
    // The same night in another database has the same identity, whatever its epoch and time.
    let mut other = open();
    open_epoch(&mut other).unwrap();
    assert_eq!(send(&mut other, &draft(vec![report(1, 5, "d1")]), at(99)), appended);
}

#[test]
fn feeds_of_a_site_go_in_order_and_a_lease_that_ran_out_cannot_settle() {
    let mut c = open();
    let first = feed_of(&send(&mut c, &draft(vec![report(1, 5, "d")]), at(0)));
    let second = feed_of(&send(&mut c, &draft(vec![report(1, 6, "d")]), at(0)));
    let slow = claim(&mut c, at(0), MINUTE).unwrap().unwrap();
    assert_eq!(slow.feed, first);
    assert!(claim(&mut c, at(0), MINUTE).unwrap().is_none(), "the second waits for the first");
    let quick = claim(&mut c, at(2), MINUTE).unwrap().unwrap();
    assert_eq!(quick.feed, first, "the lease ran out");
    let outcome = Outcome::Delivered { receipt: "r".into() };
    assert!(matches!(settle(&mut c, &slow, &outcome, at(2)), Err(OutboxError::LeaseLost(_))));
    settle(&mut c, &quick, &outcome, at(2)).unwrap();
    assert!(matches!(settle(&mut c, &quick, &outcome, at(2)), Err(OutboxError::LeaseLost(_))));
    assert_eq!(deliver(&mut c, at(3)).feed, second);
}

#[test]
fn a_failed_attempt_waits_its_time_and_blocks_only_its_own_site() {
    let mut c = open();
    let first = feed_of(&send(&mut c, &draft(vec![report(1, 5, "d")]), at(0)));
    let claimed = claim(&mut c, at(0), MINUTE).unwrap().unwrap();
    settle(&mut c, &claimed, &Outcome::Retry { reason: "connection refused".into(), after: 10 * MINUTE, refused: false }, at(0)).unwrap();
    let south = Draft { site: "south".into(), ..draft(vec![report(1, 5, "d")]) };
    send(&mut c, &south, at(1));
    assert_eq!(deliver(&mut c, at(1)).site, "south");
    assert!(claim(&mut c, at(9), MINUTE).unwrap().is_none());
    let again = claim(&mut c, at(10), MINUTE).unwrap().unwrap();
    assert_eq!((again.feed, again.attempts), (first.clone(), 1));
    let row = list(&c).unwrap().into_iter().find(|row| row.feed == first).unwrap();
    assert_eq!((row.state, row.refused, row.reason.as_deref()), (State::Waiting, false, Some("connection refused")));
    assert_eq!(retry(&mut c, &first, at(2)).unwrap(), first);
}

#[test]
fn feeds_behind_a_rejected_one_are_rebuilt_upon_the_last_good_one() {
    let mut c = open();
    send(&mut c, &draft(vec![report(1, 5, "d")]), at(0));
    let good = deliver(&mut c, at(0));
    send(&mut c, &draft(vec![report(1, 6, "d")]), at(1));
    let waiting = feed_of(&send(&mut c, &draft(vec![report(1, 7, "d")]), at(2)));
    let bad = claim(&mut c, at(3), MINUTE).unwrap().unwrap();
    settle(&mut c, &bad, &Outcome::Dead { reasons: vec!["score above 1".into()] }, at(3)).unwrap();
    assert!(matches!(retry(&mut c, &bad.feed, at(3)), Err(OutboxError::AtRest { state: State::Superseded, .. })), "older numbers must not come back");
    let rebuilt = claim(&mut c, at(4), MINUTE).unwrap().unwrap();
    let manifest = read_manifest(&rebuilt.manifest).unwrap();
    assert_eq!(manifest.supersedes.unwrap(), sha256_hex(&good.manifest));
    assert_eq!(manifest.reports[0].replaces.as_deref(), Some(sha256_hex(&report(1, 5, "d").body).as_str()));
    let states: Vec<_> = list(&c).unwrap().into_iter().rev().map(|row| row.state).collect();
    assert_eq!(states, [State::Delivered, State::Superseded, State::Rebuilt, State::Waiting]);
    assert_ne!(rebuilt.feed, waiting);
}

#[test]
fn rejected_content_is_sent_again_only_under_a_new_identity() {
    let mut c = open();
    let night = draft(vec![report(1, 5, "d")]);
    let first = feed_of(&send(&mut c, &night, at(0)));
    let claimed = claim(&mut c, at(0), MINUTE).unwrap().unwrap();
    settle(&mut c, &claimed, &Outcome::Dead { reasons: vec!["unknown measure".into()] }, at(0)).unwrap();
    let again = retry(&mut c, &first, at(1)).unwrap();
    assert_ne!(again, first);
    assert_eq!(manifest_of(&c, &again).unwrap().attempt, 2);
    // The night itself, computed once more, finds the new attempt waiting.
    assert_eq!(send(&mut c, &night, at(2)), Appended::Unchanged { feed: again });
}

#[test]
fn a_withdrawal_names_what_it_withdraws_and_is_said_once() {
    let mut c = open();
    send(&mut c, &draft(vec![report(1, 5, "d")]), at(0));
    deliver(&mut c, at(0));
    let withdrawal = Withdrawal { key: report(1, 5, "d").key, replaces: String::new(), reason: "wrong unit".into() };
    let night = Draft { withdrawals: vec![withdrawal], ..draft(vec![]) };
    let feed = feed_of(&send(&mut c, &night, at(1)));
    assert_eq!(manifest_of(&c, &feed).unwrap().withdrawals[0].replaces, sha256_hex(&report(1, 5, "d").body));
    deliver(&mut c, at(1));
    assert_eq!(send(&mut c, &night, at(2)), Appended::Unchanged { feed });
    // Reported again, it is a new first report: there is nothing to replace.
    let back = feed_of(&send(&mut c, &draft(vec![report(1, 5, "e")]), at(3)));
    assert_eq!(manifest_of(&c, &back).unwrap().reports[0].replaces, None);
}

#[test]
fn drafts_that_cannot_be_sent_are_refused_whole() {
    let mut c = open();
    let transaction = c.transaction().unwrap();
    let twice = draft(vec![report(1, 5, "d"), report(1, 6, "d")]);
    let error = append(&transaction, &twice, at(0)).unwrap_err().to_string();
    assert_eq!(error, "feed cannot be appended: `http://example.org/Measure/m|1.0.0 2026-01-01/2026-01-28` occurs twice");
    drop(transaction);
    assert!(list(&c).unwrap().is_empty());
}

#[test]
fn waits_double_to_an_hour() {
    let seconds = |attempts| backoff(attempts, 1.0).as_secs();
    assert_eq!([0, 1, 2, 6, 7, 50].map(seconds), [30, 60, 120, 1920, 3600, 3600]);
    assert_eq!(backoff(0, 0.0), Duration::from_secs(15));
}

/// What a registry holds of `north` after another data directory sent these reports to it.
fn standing(reports: &[Report], epoch: u64) -> (crate::feed::Standing, std::collections::BTreeMap<String, Vec<u8>>) {
    let mut c = open();
    send(&mut c, &draft(reports.to_vec()), at(0));
    let delivered = deliver(&mut c, at(1));
    let manifest = read_manifest(&delivered.manifest).unwrap();
    let current = |entry: &Entry| crate::feed::Current { key: entry.key.clone(), sha256: entry.sha256.clone(), complete: entry.complete, feed: delivered.feed.clone() };
    let bodies = reports.iter().map(|report| (sha256_hex(&report.body), report.body.clone())).collect();
    let standing = crate::feed::Standing {
        site: "north".into(),
        epoch,
        heard_at: None,
        current: manifest.reports.iter().map(current).collect(),
        head: Some(crate::feed::Head { feed: delivered.feed.clone(), manifest, committed_at: at(1).to_string(), receipt: "r".into() }),
        accepts: None,
    };
    (standing, bodies)
}

#[test]
fn what_the_destination_holds_is_gone_on_from_and_equal_numbers_change_nothing() {
    let (standing, bodies) = standing(&[report(1, 5, "d1"), report(2, 6, "d1")], 7);
    let head = standing.head.clone().unwrap();
    // An old copy: its chain ends elsewhere, and a feed of old numbers waits.
    let mut c = open();
    send(&mut c, &draft(vec![report(1, 4, "d0")]), at(0));
    let old = deliver(&mut c, at(0)).feed;
    let stale = feed_of(&send(&mut c, &draft(vec![report(1, 3, "d0")]), at(0)));
    let compared = compare(&c, "registry", &standing).unwrap();
    assert_eq!((compared.agrees, compared.epoch, compared.waiting, compared.delivered.map(|(feed, _)| feed)), (false, 1, 1, Some(old)));
    let transaction = c.transaction().unwrap();
    adopt(&transaction, "registry", &standing, &bodies, at(1)).unwrap();
    transaction.commit().unwrap();
    assert!(compare(&c, "registry", &standing).unwrap().agrees);
    let row = list(&c).unwrap().into_iter().find(|row| row.feed == stale).unwrap();
    assert_eq!((row.state, row.reason.as_deref()), (State::Rebuilt, Some("not sent: the site goes on from what the registry holds; the next night sends its own numbers")));
    assert!(claim(&mut c, at(2), MINUTE).unwrap().is_none(), "nothing old is sent");

    // Equal numbers on another date are no new feed; the registry is told that nothing changed.
    assert_eq!(send(&mut c, &draft(vec![report(1, 5, "d2"), report(2, 6, "d2")]), at(3)), Appended::Unchanged { feed: head.feed.clone() });
    assert!(deliver(&mut c, at(3)).confirming);
    // Other numbers follow what the registry holds, each report the one that is current there.
    send(&mut c, &draft(vec![report(1, 5, "d3"), report(2, 9, "d3"), report(3, 1, "d3")]), at(4));
    let claimed = deliver(&mut c, at(4));
    assert_eq!(claimed.epoch, 8, "later than any that the registry saw");
    let manifest = read_manifest(&claimed.manifest).unwrap();
    assert_eq!(manifest.supersedes, Some(sha256_hex(&head.manifest.bytes())));
    let replaces: Vec<_> = manifest.reports.iter().map(|entry| entry.replaces.clone()).collect();
    assert_eq!(replaces, [Some(sha256_hex(&report(1, 5, "d1").body)), Some(sha256_hex(&report(2, 6, "d1").body)), None]);
    assert_eq!(manifest.reports[0].cause, None);
}

#[test]
fn a_destination_that_lost_what_was_delivered_is_begun_with_anew() {
    let nothing = crate::feed::Standing { site: "north".into(), epoch: 0, heard_at: None, head: None, current: vec![], accepts: None };
    let mut c = open();
    send(&mut c, &draft(vec![report(1, 5, "d")]), at(0));
    let first = deliver(&mut c, at(0)).feed;
    assert!(!compare(&c, "registry", &nothing).unwrap().agrees);
    let transaction = c.transaction().unwrap();
    adopt(&transaction, "registry", &nothing, &std::collections::BTreeMap::new(), at(1)).unwrap();
    transaction.commit().unwrap();
    send(&mut c, &draft(vec![report(1, 5, "d")]), at(2));
    let again = deliver(&mut c, at(2));
    let manifest = read_manifest(&again.manifest).unwrap();
    assert_eq!((manifest.supersedes, manifest.reports[0].replaces.clone(), manifest.attempt), (None, None, 2), "a new identity, for the same first feed");
    assert_ne!(again.feed, first);
}

#[test]
fn a_confirmation_that_is_refused_needs_a_person() {
    let mut c = open();
    send(&mut c, &draft(vec![report(1, 5, "d")]), at(0));
    deliver(&mut c, at(0));
    send(&mut c, &draft(vec![report(1, 5, "d2")]), at(1));
    let confirming = claim(&mut c, at(1), MINUTE).unwrap().unwrap();
    settle(&mut c, &confirming, &Outcome::Dead { reasons: vec!["a later feed is held".into()] }, at(1)).unwrap();
    assert_eq!(list(&c).unwrap()[0].state, State::Contradicted);
    send(&mut c, &draft(vec![report(1, 6, "d3")]), at(2));
    assert!(list(&c).unwrap().iter().all(|row| !row.state.needs_a_person()), "a later feed says more");
}

/// Ends the sending that is due, so.
fn end(c: &mut Connection, outcome: &Outcome, now: Timestamp) {
    let claimed = claim(c, now, MINUTE).unwrap().unwrap();
    settle(c, &claimed, outcome, now).unwrap();
}

/// What a feed goes through, where it then stands, and what sending it again does: `None`, nothing, which is refused.
#[test]
fn every_feed_is_in_one_state_and_what_can_be_sent_again_follows_from_it() {
    let lost = || Outcome::Retry { reason: "the answer was lost".into(), after: MINUTE, refused: false };
    let taken = || Outcome::Delivered { receipt: "r".into() };
    let dead = || Outcome::Dead { reasons: vec!["unknown measure".into()] };
    // A night of one report: its numerator, and what became of each sending that follows.
    type Night = (u32, Vec<Outcome>);
    type Row<'r> = (&'r str, Vec<Night>, &'r [State], Option<State>);
    let table: Vec<Row<'_>> = vec![
        ("never sent", vec![(5, vec![])], &[State::Waiting], Some(State::Waiting)),
        ("sent, and not heard to be taken", vec![(5, vec![lost()])], &[State::Waiting], Some(State::Waiting)),
        ("taken", vec![(5, vec![taken()])], &[State::Delivered], None),
        ("the word that nothing changed waits", vec![(5, vec![taken()]), (5, vec![])], &[State::Confirming], Some(State::Confirming)),
        ("it was said, and not heard to be taken", vec![(5, vec![taken()]), (5, vec![lost()])], &[State::Confirming], Some(State::Confirming)),
        ("it was taken", vec![(5, vec![taken()]), (5, vec![lost(), taken()])], &[State::Delivered], None),
        ("it was refused", vec![(5, vec![taken()]), (5, vec![dead()])], &[State::Contradicted], Some(State::Confirming)),
        ("it was refused, and the next night took it", vec![(5, vec![taken()]), (5, vec![dead()]), (5, vec![taken()])], &[State::Delivered], None),
        ("rejected", vec![(5, vec![dead()])], &[State::Rejected], Some(State::Waiting)),
        ("rejected twice", vec![(5, vec![dead()]), (5, vec![dead()])], &[State::Superseded, State::Rejected], Some(State::Waiting)),
        ("rejected, and later numbers taken", vec![(5, vec![dead()]), (6, vec![taken()])], &[State::Superseded, State::Delivered], None),
        ("later numbers rejected", vec![(5, vec![taken()]), (6, vec![dead()])], &[State::Delivered, State::Rejected], Some(State::Waiting)),
        (
            "and the night after found the numbers delivered before",
            vec![(5, vec![taken()]), (6, vec![dead()]), (5, vec![taken()])],
            &[State::Delivered, State::Superseded],
            None,
        ),
    ];
    for (what, nights, states, again) in table {
        let mut c = open();
        let mut minute = 0;
        for (numerator, outcomes) in nights {
            send(&mut c, &draft(vec![report(1, numerator, "d")]), at(minute));
            for outcome in outcomes {
                minute += 10;
                end(&mut c, &outcome, at(minute));
            }
            minute += 10;
        }
        let listed = list(&c).unwrap();
        assert_eq!(listed.iter().rev().map(|row| row.state).collect::<Vec<_>>(), states, "{what}");
        assert_eq!(remaining(&c).unwrap(), Remaining::of(states.iter().copied()), "{what}");
        let newest = &listed[0];
        assert_eq!(newest.next_attempt.is_some(), newest.state.is_to_be_sent(), "{what}");
        let sent = retry(&mut c, &newest.feed, at(minute));
        let state = |feed: &String| list(&c).unwrap().into_iter().find(|row| &row.feed == feed).unwrap().state;
        assert_eq!(sent.as_ref().ok().map(state), again, "{what}: {sent:?}");
        assert_eq!(claim(&mut c, at(minute), MINUTE).unwrap().map(|claim| claim.feed), sent.as_ref().ok().cloned(), "{what}: it is due now");
        if let Err(error) = sent {
            assert!(error.to_string().starts_with(&format!("feed `{}` is {}: ", newest.feed, newest.state.word())), "{what}: {error}");
        }
    }
}

#[test]
fn what_is_passed_names_what_stands_in_its_place() {
    let mut c = open();
    let first = feed_of(&send(&mut c, &draft(vec![report(1, 5, "d")]), at(0)));
    end(&mut c, &Outcome::Dead { reasons: vec!["unknown measure".into()] }, at(0));
    let second = retry(&mut c, &first, at(1)).unwrap();
    end(&mut c, &Outcome::Dead { reasons: vec!["unknown measure".into()] }, at(1));
    let error = retry(&mut c, &first, at(2)).unwrap_err().to_string();
    assert_eq!(error, format!("feed `{first}` is superseded: not accepted; what came later stands in its place: feed `{second}`, which is rejected"));
}
