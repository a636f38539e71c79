//! The daemon, as its real process: nights by the schedule, missed ones caught up, one process at a time, a stop at any
//! moment without harm, a state that survives.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use watershed::sandbox::Fault;
use watershed::store::Store;

use crate::bed::{Bed, Wanted, output};

/// The longest that anything here may take; all of it takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A schedule that never comes due while a test runs: the 29th of February.
const NEVER: &str = "0 0 29 2 *";
/// Every second.
const ALWAYS: &str = "* * * * * *";

/// A daemon and its log; killed when the test ends before it.
struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    fn start(bed: &Bed, variables: &[(&str, &str)]) -> Daemon {
        let mut command = bed.command(&["run", "--log-format", "json"]);
        command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stderr, log) = (child.stderr.take().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Daemon { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the log has said it.
    async fn says(&mut self, part: &str) {
        let began = Instant::now();
        while !self.log().contains(part) {
            assert!(self.child.try_wait().unwrap().is_none(), "the daemon ended: {}", self.log());
            assert!(began.elapsed() < PATIENCE, "`{part}` is never said: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGTERM; the exit code.
    async fn stop(mut self) -> Option<i32> {
        let killed = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not stop: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wanted(faults: Vec<Fault>) -> Wanted {
    Wanted { mode: "search", limit: u64::MAX, patients: 24, faults, ..Wanted::default() }
}

/// The nights, the newest first, as `watershed status` tells them beside the daemon.
async fn nights(bed: &Bed) -> Vec<Value> {
    let said = output(bed.command(&["status", "--nights", "50", "--format", "json"])).await;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let status: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&said.stderr)));
    status["nights"].as_array().unwrap().clone()
}

async fn wait_for(bed: &Bed, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let nights = nights(bed).await;
        if is_so(&nights) {
            return nights;
        }
        assert!(began.elapsed() < PATIENCE, "never {what}: {nights:?}");
        tokio::time::sleep(LOOK).await;
    }
}

fn finished(nights: &[Value]) -> usize {
    nights.iter().filter(|night| night["state"] == "finished").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nights_wait_for_the_off_hours() {
    let bed = Bed::make(wanted(Vec::new())).await;
    let edge = |hours: i64| {
        (Timestamp::now() + jiff::SignedDuration::from_hours(hours))
            .in_tz("America/New_York")
            .unwrap()
            .strftime("%H:%M")
            .to_string()
    };
    let (later, now) = (format!("{}-{}", edge(3), edge(6)), format!("{}-{}", edge(-3), edge(3)));
    let always = ("WATERSHED__SCHEDULE__CRON", ALWAYS);
    let mut daemon = Daemon::start(&bed, &[always, ("WATERSHED__SOURCE__OFF_HOURS", &later)]);
    daemon.says("nights wait for the off-hours").await;
    assert_eq!(daemon.stop().await, Some(0));
    let mut pull = bed.command(&["pull"]);
    pull.env("WATERSHED__SOURCE__OFF_HOURS", &later);
    let said = output(pull).await;
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.code() == Some(4) && text.contains(&format!("the EHR is asked in the off-hours {later} (America/New_York) only")), "{text}");
    assert!(nights(&bed).await.is_empty(), "though one was due each second");

    let daemon = Daemon::start(&bed, &[always, ("WATERSHED__SOURCE__OFF_HOURS", &now)]);
    wait_for(&bed, "a night in the off-hours", |nights| finished(nights) >= 1).await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schedule_begins_nights_one_process_at_a_time_and_the_state_survives() {
    let bed = Bed::make(wanted(Vec::new())).await;
    let daemon = Daemon::start(&bed, &[("WATERSHED__SCHEDULE__CRON", ALWAYS)]);
    let first = wait_for(&bed, "two nights", |nights| finished(nights) >= 2).await;
    assert!(first.iter().all(|night| night["scheduledAt"].is_string()), "{first:?}");

    for arguments in [&["run", "--once"][..], &["run"], &["pull"], &["deliver"]] {
        let said = output(bed.command(arguments)).await;
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(4), "{arguments:?}: {text}");
        assert!(text.contains("another watershed works on this data directory") && text.contains("state.sqlite.lock"), "{arguments:?}: {text}");
    }
    assert_eq!(daemon.stop().await, Some(0));

    let before = nights(&bed).await;
    let daemon = Daemon::start(&bed, &[("WATERSHED__SCHEDULE__CRON", ALWAYS)]);
    let after = wait_for(&bed, "more nights", |nights| finished(nights) > before.len()).await;
    assert_eq!(daemon.stop().await, Some(0));
    let answered = |nights: &[Value]| nights.iter().map(|night| night["scheduledAt"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut instants = answered(&after);
    assert!(answered(&before).iter().all(|instant| instants.contains(instant)), "nothing is forgotten");
    let all = instants.len();
    instants.dedup();
    assert_eq!(instants.len(), all, "no instant is answered twice");
    assert_eq!((bed.registry().feeds, bed.outbox().len()), (1, 1), "nights that change nothing make no feed");
}

/// Makes the last night one of three days ago.
fn turn_back(bed: &Bed) {
    let then = Timestamp::now().checked_sub(72.hours()).unwrap().to_string();
    let store = Store::open(&bed.folder.path().join("data/state.sqlite")).unwrap();
    store.with(|connection| Ok(connection.execute("UPDATE run SET scheduled_at = ?1", [then])?)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_night_is_caught_up_once_unless_that_is_not_wanted() {
    let bed = Bed::make(wanted(Vec::new())).await;
    let daemon = Daemon::start(&bed, &[("WATERSHED__SCHEDULE__CRON", ALWAYS)]);
    wait_for(&bed, "a night", |nights| finished(nights) >= 1).await;
    assert_eq!(daemon.stop().await, Some(0));
    let before = {
        // The night under way when it was asked to stop is finished first, so that only the missed one remains.
        let said = output(bed.command(&["run", "--once"])).await;
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
        nights(&bed).await.len()
    };
    turn_back(&bed);
    let nightly = ("WATERSHED__SCHEDULE__CRON", "30 1 * * *");

    let mut daemon = Daemon::start(&bed, &[nightly, ("WATERSHED__SCHEDULE__CATCH_UP", "false")]);
    daemon.says("waits for the next night").await;
    assert_eq!(nights(&bed).await.len(), before, "what was missed is not caught up");
    assert_eq!(daemon.stop().await, Some(0));

    let mut daemon = Daemon::start(&bed, &[nightly]);
    daemon.says("waits for the next night").await;
    let after = nights(&bed).await;
    assert_eq!((after.len(), finished(&after)), (before + 1, before + 1), "three were missed, one is run: {after:?}");
    let answered: Timestamp = after[0]["scheduledAt"].as_str().unwrap().parse().unwrap();
    let local = answered.to_zoned(jiff::tz::TimeZone::get("America/New_York").unwrap());
    assert_eq!((local.hour(), local.minute()), (1, 30), "it answers the latest of them");
    assert!(answered <= Timestamp::now() && answered > Timestamp::now().checked_sub(25.hours()).unwrap());
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_it_waits_for_the_ehr_the_next_start_resumes_the_night() {
    // The first search of encounters is told to come back in an hour.
    let faults = vec![Fault::Status { path: "/Encounter".into(), status: 503, retry_after: Some(3600), times: 1 }];
    let bed = Bed::make(wanted(faults)).await;
    let mut daemon = Daemon::start(&bed, &[("WATERSHED__SCHEDULE__CRON", ALWAYS), ("WATERSHED_LOG", "info,watershed::http=debug")]);
    daemon.says("no good answer yet, trying again").await;
    assert_eq!(nights(&bed).await[0]["state"], "pulling");
    assert_eq!(daemon.stop().await, Some(0));
    let stopped = nights(&bed).await;
    assert_eq!((stopped.len(), &stopped[0]["state"]), (1, &"pulling".into()), "it stays open, and is not failed");
    assert_eq!((bed.registry().feeds, bed.outbox().len()), (0, 0));

    let mut daemon = Daemon::start(&bed, &[("WATERSHED__SCHEDULE__CRON", NEVER)]);
    daemon.says("waits for the next night").await;
    let resumed = nights(&bed).await;
    assert_eq!((resumed.len(), &resumed[0]["state"], &resumed[0]["id"]), (1, &"finished".into(), &stopped[0]["id"]));
    assert_eq!(resumed[0]["startedAt"], stopped[0]["startedAt"], "its now is the one it began with");
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!((bed.registry().feeds, bed.outbox().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_while_the_registry_does_not_answer_the_feed_is_sent_once_later() {
    let bed = Bed::make(wanted(Vec::new())).await;
    // Connections are taken by the system and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let daemon = Daemon::start(&bed, &[("WATERSHED__SCHEDULE__CRON", ALWAYS), ("WATERSHED__REGISTRY__URL", &address)]);
    wait_for(&bed, "delivering", |nights| nights.first().is_some_and(|night| night["state"] == "delivering")).await;
    assert_eq!(daemon.stop().await, Some(0), "it does not wait for the silent registry");
    assert_eq!(bed.registry().feeds, 0);

    let mut daemon = Daemon::start(&bed, &[("WATERSHED__SCHEDULE__CRON", NEVER)]);
    daemon.says("waits for the next night").await;
    assert_eq!(finished(&nights(&bed).await), 1);
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!((bed.registry().feeds, bed.outbox().len()), (1, 1));
}
