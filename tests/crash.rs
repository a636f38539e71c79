//! The adapter's real process, killed with SIGKILL at points spread over its whole night, ends with the same feed, once.

mod pull;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use watershed::sandbox::Fault;

use crate::bed::{Bed, Held, Wanted, output};

/// Points on the wires, half of them in nights by search, half by export.
const WIRE_POINTS: u64 = 56;
const WIRE_POINTS_USUAL: u64 = 8;
/// Points on the wires in nights whose EHR fails by chance, half of them by search, half by export: such nights wait in real
/// time. Further points of such pulls, without a process, are in `profiles.rs`.
const FAULTY_POINTS: u64 = 30;
const FAULTY_POINTS_USUAL: u64 = 4;
/// One line of the log in so many is a point, usually; each of them if all are wanted.
const LINES_USUAL: usize = 5;
/// Starts after the kill within which the night must end.
const STARTS_MAX: u32 = 3;
/// Nights under way at once.
const AT_ONCE: usize = 4;
const PATIENTS: u32 = 24;

#[derive(Clone, Copy, Debug)]
enum Point {
    /// After so many bytes on the wires to the EHR and the registry.
    Bytes(u64),
    /// When the process has written so many lines of its log.
    Line(usize),
}

fn wanted(mode: &'static str, limit: u64) -> Wanted {
    Wanted { mode, limit, patients: PATIENTS, ..Wanted::default() }
}

/// A night that nobody disturbs: what it leaves, its bytes on the wires, its lines of log.
async fn calm(mode: &'static str) -> (Held, String, u64, usize) {
    let bed = Bed::make(wanted(mode, u64::MAX)).await;
    let mut night = bed.night();
    night.env("WATERSHED_LOG", "info");
    let output = output(night).await;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    let feeds = bed.outbox();
    assert_eq!(feeds.len(), 1);
    (bed.registry(), feeds[0].feed.clone(), bed.meter.bytes(), log.lines().count())
}

/// Kills the first start at the point; whether it was still running.
async fn kill_at(bed: &Bed, point: Point) -> bool {
    let mut child = bed.night().env("WATERSHED_LOG", "info").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (log, written) = (child.stderr.take().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&written);
    std::thread::spawn(move || {
        BufReader::new(log).lines().for_each(|_| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
    });
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let is_reached = match point {
            Point::Bytes(_) => bed.meter.is_reached(),
            Point::Line(wanted) => written.load(Ordering::Relaxed) >= wanted,
        };
        if is_reached {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn survives(mode: &'static str, point: Point, faults: Vec<Fault>, expected: (Held, String)) -> bool {
    let limit = if let Point::Bytes(limit) = point { limit } else { u64::MAX };
    let bed = Bed::make(Wanted { faults, ..wanted(mode, limit) }).await;
    let killed = kill_at(&bed, point).await;
    let mut said = String::new();
    for _ in 0..STARTS_MAX {
        let (code, text) = bed.run().await;
        said = text;
        if code == 0 {
            let feeds = bed.outbox();
            assert_eq!(feeds.iter().map(|feed| feed.feed.as_str()).collect::<Vec<_>>(), [expected.1.as_str()], "{mode} {point:?}: the same feed, once");
            let held = bed.registry();
            assert_eq!((held.feeds, held.revisions, &held.current), (1, expected.0.revisions, &expected.0.current), "{mode} {point:?}: the registry holds it once");
            return killed;
        }
    }
    panic!("{mode} {point:?}: not ended after {STARTS_MAX} more starts: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_next_start_ends_with_the_same_feed() {
    let (wires, faulty, every) = match crate::all() {
        true => (WIRE_POINTS, FAULTY_POINTS, 1),
        false => (WIRE_POINTS_USUAL, FAULTY_POINTS_USUAL, LINES_USUAL),
    };
    let mut nights = Vec::new();
    for mode in ["search", "bulk"] {
        let (held, feed, bytes, lines) = calm(mode).await;
        assert_eq!(held.feeds, 1);
        let expected = (held, feed);
        let on_wire = |number: u64, points: u64| Point::Bytes((2 * number + 1) * bytes / (2 * points));
        let (points, faulty) = (wires / 2, faulty / 2);
        nights.extend((0..points).map(|number| (mode, on_wire(number, points), Vec::new(), expected.clone())));
        nights.extend((1..=lines).step_by(every).map(|line| (mode, Point::Line(line), Vec::new(), expected.clone())));
        nights.extend((0..faulty).map(|number| (mode, on_wire(number, faulty), vec![Fault::Chance { seed: number + 1 }], expected.clone())));
    }
    let all = nights.len();
    let killed: Vec<bool> = futures_util::stream::iter(nights)
        .map(|(mode, point, faults, expected)| survives(mode, point, faults, expected))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let killed = killed.into_iter().filter(|killed| *killed).count();
    crate::figures::say(&format!("{all} nights, {faulty} of them with faults, {killed} killed while running, all ended with the same feed, once"));
    // Those at the last lines of the log may be over before they are killed.
    assert!(2 * killed >= all && (killed >= 50 || !crate::all()), "only {killed} of {all} were killed while running");
}
