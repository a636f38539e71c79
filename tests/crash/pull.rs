//! A pull's real process, killed with SIGKILL at random points of pulls with faults, again and again: each pull ends in the same
//! snapshot. The points are counted in requests and in writes to files, and lie where a seed says.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::civil::date;
use tempfile::TempDir;
use watershed::sandbox::server::{Options as Serving, Running, start};
use watershed::sandbox::{Client, Fault, Hospital, Profile};
use watershed::store::Store;

use crate::bed;

/// Kills when all are asked for, and usually.
const KILLS: u64 = 200;
const KILLS_USUAL: u64 = 10;
/// Kills of one pull, at most.
const KILLS_PER_PULL: u64 = 12;
/// Pulls under way at once.
const AT_ONCE: usize = 4;
const PATIENTS: u32 = 16;

/// When a start is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// When the hospital has seen so many requests of it.
    Requests(u64),
    /// When it has written so many times.
    Writes(u64),
    Never,
}

/// A hospital, and the files of a site that pulls from it.
struct Site {
    folder: TempDir,
    running: Running,
}

/// What a pull came to that nobody disturbed.
#[derive(Clone)]
struct Calm {
    digest: String,
    requests: u64,
    writes: u64,
    units: u64,
}

impl Site {
    async fn new(mode: &str, faults: Vec<Fault>) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (ehr_key, _) = (bed::key(path, "ehr-key.pem"), bed::key(path, "registry-key.pem"));
        let hospital = Hospital::generate(Profile::named("lakeside").unwrap(), 11, PATIENTS, date(2026, 3, 2), 3);
        let clients = vec![Client::reader("etl", serde_json::to_value(ehr_key.public_jwks()).unwrap())];
        let serving = Serving { clients, faults, export_delay: Duration::from_millis(20), export_file_resources: 30, ..Serving::default() };
        let running = start(hospital, serving).await.unwrap();
        let measure = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/ibd/remission");
        let site = format!(
            "[site]\nid = \"lakeside\"\ntime_zone = \"America/New_York\"\ndata = \"data\"\n\
             [source]\nurl = \"{}\"\nclient_id = \"etl\"\nkey_file = \"ehr-key.pem\"\nmode = \"{mode}\"\npage_size = 30\n\
             [measures]\nfolders = [\"{}\"]\nmonths = 1\nthreads = 1\n\
             [registry]\nurl = \"http://127.0.0.1:9\"\nclient_id = \"lakeside-etl\"\nkey_file = \"registry-key.pem\"\n",
            running.base_url,
            measure.display()
        );
        std::fs::write(path.join("site.toml"), site).unwrap();
        Site { folder, running }
    }

    fn requests(&self) -> u64 {
        self.running.request_count() as u64
    }

    /// Starts a pull and kills it at the point. How it ended, if it did before; and how often it had written.
    fn pull(&self, point: Point) -> (Option<ExitStatus>, u64) {
        let before = self.requests();
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        command.args(["pull"]).current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(File::create(self.folder.path().join("log")).unwrap()).spawn().unwrap();
        let io = format!("/proc/{}/io", child.id());
        let mut written = 0;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (Some(status), written);
            }
            written = writes(&io).unwrap_or(written);
            let is_reached = match point {
                Point::Requests(count) => self.requests() - before >= count,
                Point::Writes(count) => written >= count,
                Point::Never => false,
            };
            if is_reached {
                child.kill().unwrap();
                child.wait().unwrap();
                return (None, written);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Units done and digests of what is committed, in a copy: nobody but the next start repairs what a killed one left.
    fn left(&self) -> (u64, Vec<String>) {
        let copy = tempfile::tempdir().unwrap();
        for name in ["state.sqlite", "state.sqlite-wal"] {
            drop(std::fs::copy(self.folder.path().join("data").join(name), copy.path().join(name)));
        }
        let store = Store::open(&copy.path().join("state.sqlite")).unwrap();
        let read = store.with(|connection| {
            let units = connection.query_row("SELECT count(*) FROM unit WHERE state = 'done'", [], |row| row.get::<_, i64>(0))?;
            let mut statement = connection.prepare("SELECT digest FROM pull WHERE state = 'committed'")?;
            let digests = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok((units as u64, digests))
        });
        read.unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// How often a process has written to anything.
fn writes(io: &str) -> Option<u64> {
    let text = std::fs::read_to_string(io).ok()?;
    text.lines().find_map(|line| line.strip_prefix("syscw: "))?.trim().parse().ok()
}

async fn calm(mode: &'static str) -> Calm {
    let site = Site::new(mode, Vec::new()).await;
    tokio::task::spawn_blocking(move || {
        let (status, writes) = site.pull(Point::Never);
        assert!(status.unwrap().success(), "{}", site.log());
        let (units, mut digests) = site.left();
        Calm { digest: digests.pop().unwrap(), requests: site.requests(), writes, units }
    })
    .await
    .unwrap()
}

/// From 1 to `most`, by chance.
fn chance(most: u64, seed: (u64, u64)) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    hasher.finish() % most.max(1) + 1
}

/// A pull with faults, killed until it ends. Where it was killed: how many of its units were done, in thirds; 3: all of them.
fn killed_again_and_again(site: &Site, seed: u64, calm: &Calm) -> Vec<u64> {
    let mut places = Vec::new();
    loop {
        let number = places.len() as u64;
        // Every start says who it is, and asks what the server can do, in three requests.
        let point = match number {
            KILLS_PER_PULL.. => Point::Never,
            _ if seed.is_multiple_of(4) || seed % 4 == 1 => Point::Requests(3 + chance(calm.requests / 3, (seed, number))),
            _ => Point::Writes(chance(calm.writes / 2, (seed, number))),
        };
        match site.pull(point) {
            (Some(status), _) => {
                assert!(status.success(), "seed {seed}, killed {number} times: {status}: {}", site.log());
                // One that was killed when it had committed is followed by one of changes, of which there are none.
                let digests = site.left().1;
                assert!(!digests.is_empty() && digests.iter().all(|digest| *digest == calm.digest), "seed {seed}, killed {number} times: {digests:?}");
                return places;
            }
            (None, _) => places.push((site.left().0 * 3 / calm.units.max(1)).min(3)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_with_faults_that_is_killed_with_sigkill_ends_in_the_same_snapshot() {
    let began = Instant::now();
    let wanted = if crate::all() { KILLS } else { KILLS_USUAL };
    let calm = [calm("search").await, calm("bulk").await];
    let (next, kills) = (&AtomicU64::new(1), &AtomicU64::new(0));
    let worker = async || {
        let mut places: BTreeMap<u64, u64> = BTreeMap::new();
        while kills.load(Ordering::Relaxed) < wanted {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_bulk = seed.is_multiple_of(2);
            let site = Arc::new(Site::new(if is_bulk { "bulk" } else { "search" }, vec![Fault::Chance { seed }]).await);
            let calm = calm[usize::from(is_bulk)].clone();
            let killed = tokio::task::spawn_blocking(move || killed_again_and_again(&site, seed, &calm)).await.unwrap();
            kills.fetch_add(killed.len() as u64, Ordering::Relaxed);
            killed.into_iter().for_each(|place| *places.entry(place).or_default() += 1);
        }
        places
    };
    let workers = (0..AT_ONCE).map(|_| worker());
    let places = futures_util::future::join_all(workers).await;
    let at = |third: u64| places.iter().filter_map(|places| places.get(&third)).sum::<u64>();
    let (kills, pulls, took) = (kills.load(Ordering::Relaxed), next.load(Ordering::Relaxed) - 1, began.elapsed().as_secs_f32());
    let places = [at(0), at(1), at(2), at(3)];
    crate::figures::say(&format!(
        "{kills} processes killed with SIGKILL in {pulls} pulls with faults (seeds 1 to {pulls}), when less than one third, two thirds, all and all of the units were done: \
         {places:?}; each pull ended in the same snapshot; {took:.0} s"
    ));
    assert!(kills >= wanted && (wanted < KILLS || places.iter().all(|count| *count >= kills / 50)), "{kills}: {places:?}");
}
