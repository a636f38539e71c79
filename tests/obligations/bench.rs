//! The bench of these tests: a hospital with quirks, a site that pulls from it, and a checker that compares what arrived
//! with what the hospital holds.
//!
//! ```text
//! let bench = Bench::new(&["q_17"]).await;
//! let pulled = bench.pull(Mode::Search).await;
//! pulled.is_the_truth();
//! ```

use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use watershed::fhir::compartment::patient_of;
use watershed::http::{Boxed, Clock, SystemClock};
use watershed::sandbox::request::Seen;
use watershed::sandbox::server::{Client, Options as Serving, Running, start};
use watershed::sandbox::{Fault, Hospital, Profile, Scenario};
use watershed::smart::assertion::{Algorithm, SigningKey};
use watershed::snapshot::{Key, PatientLines, Snapshot, open_bytes};
use watershed::source::probe::{Fact, Found};
use watershed::source::pull::QUARANTINE_SEAL;
use watershed::source::{Chooser, Mode, Need, Options, Plan, PullOutcome, Silent, Source, SourceError, TypeFilter, plan, pull_for};
use watershed::store::{Store, quarantine};

/// The types that these pulls ask for. `Location` is of no patient: it comes when something refers to it.
pub const TYPES: &[&str] = &["Patient", "Encounter", "Condition", "Observation", "Procedure", "DeviceUseStatement", "Device", "Location"];
const PATIENTS: u32 = 20;
const MONTHS: u32 = 3;

/// A hospital and a site that pulls from it.
pub struct Bench {
    pub hospital: Hospital,
    pub running: Running,
    pub key: SigningKey,
    /// What the site is configured with; tests change it.
    pub options: Options,
    pub clock: Arc<dyn Clock>,
    /// What the site's measures need: all of [`TYPES`], unless a test says otherwise.
    pub needs: Vec<Need>,
    /// Whom the measures may count, for what is asked for last.
    pub chooser: Option<fn(&PatientLines) -> bool>,
    /// What a check found out about the hospital's server.
    pub facts: Vec<Fact>,
    /// Which of the hospital's resources the site asks for.
    pub keeps: fn(&serde_json::Value) -> bool,
    /// Whom the site's list names, where it has one.
    pub listed: Option<Vec<String>>,
    /// How far the time of the hospital is ahead, in milliseconds.
    pub ahead: Arc<AtomicU64>,
    folder: tempfile::TempDir,
    pub store: Arc<Store>,
    snapshot_key: Key,
}

impl Bench {
    /// A hospital with these quirks.
    pub async fn new(quirks: &[&str]) -> Bench {
        Bench::serving(quirks, Serving::default()).await
    }

    /// A hospital with these quirks and faults by chance.
    pub async fn with_faults(quirks: &[&str], seed: u64) -> Bench {
        Bench::serving(quirks, Serving { faults: vec![Fault::Chance { seed }], ..Serving::default() }).await
    }

    /// A hospital with these quirks that serves otherwise than by default.
    pub async fn serving(quirks: &[&str], serving: Serving) -> Bench {
        Bench::of(PATIENTS, quirks, serving).await
    }

    /// A hospital with so many patients.
    pub async fn of(patients: u32, quirks: &[&str], serving: Serving) -> Bench {
        Bench::at("lakeside", patients, quirks, serving).await
    }

    /// Another hospital.
    pub async fn at(profile: &str, patients: u32, quirks: &[&str], serving: Serving) -> Bench {
        let hospital = Hospital::generate(Profile::named(profile).unwrap(), 7, patients, "2026-02-01".parse().unwrap(), MONTHS);
        let key = SigningKey::generate(Algorithm::Es384).unwrap();
        let client = Client::reader("site", serde_json::to_value(key.public_jwks()).unwrap());
        let serving = Serving {
            clients: if serving.clients.is_empty() { vec![client] } else { serving.clients },
            quirks: quirks.iter().map(|name| Scenario::named(name).unwrap_or_else(|| panic!("no scenario {name}"))).collect(),
            export_delay: if serving.export_delay == Serving::default().export_delay { Duration::from_millis(50) } else { serving.export_delay },
            export_file_resources: serving.export_file_resources.min(200),
            ..serving
        };
        let ahead = Arc::clone(&serving.ahead);
        let running = start(hospital.clone(), serving).await.unwrap();
        let mut options = Options { url: running.base_url.clone(), client_id: "site".to_owned(), page_size: 50, ..Options::default() };
        options.tuning.retry_first_ms = 2;
        options.tuning.poll_first_ms = 20;
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open_in_memory().unwrap());
        Bench {
            hospital,
            running,
            key,
            options,
            clock: Arc::new(SystemClock),
            ahead,
            needs: TYPES.iter().map(|name| Need::all(name)).collect(),
            chooser: None,
            facts: Vec::new(),
            keeps: |_| true,
            listed: None,
            folder,
            store,
            snapshot_key: Key::generate().unwrap(),
        }
    }

    /// Waiting takes no time: it moves the clocks of the site and of the hospital.
    pub fn swift(mut self) -> Bench {
        self.clock = Arc::new(Swift(Arc::clone(&self.ahead)));
        self.options.tuning.retry_first_ms = 1000;
        self.options.tuning.poll_first_ms = 1000;
        self
    }

    /// The site's measures ask for two codes of Observation only.
    pub fn narrowed(mut self, spelling: TypeFilter) -> Bench {
        fn codings(resource: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
            let codings = resource["code"]["coding"].as_array().into_iter().flatten();
            codings.filter(|coding| coding["code"] == "pga" || coding["code"] == "1988-5")
        }
        fn is_asked_for(resource: &serde_json::Value) -> bool {
            resource["resourceType"] != "Observation" || codings(resource).next().is_some()
        }
        let truth: Vec<serde_json::Value> = self.running.resources().iter().map(|(_, _, json)| serde_json::from_str(json).unwrap()).collect();
        let observations = truth.iter().filter(|resource| resource["resourceType"] == "Observation");
        let tokens = observations
            .flat_map(codings)
            .map(|coding| format!("{}|{}", coding["system"].as_str().unwrap(), coding["code"].as_str().unwrap()));
        let codes = tokens.collect();
        self.needs.retain(|need| need.resource_type != "Observation");
        self.needs.push(Need { codes, ..Need::all("Observation") });
        self.keeps = is_asked_for;
        self.options.type_filter = spelling;
        self
    }

    /// The state is a file, as it is at a site.
    pub fn on_disk(mut self) -> Bench {
        self.reopen();
        self
    }

    /// What a new process does with the state that the last one left.
    pub fn reopen(&mut self) {
        self.store = Arc::new(Store::open_in_memory().unwrap());
        self.store = Arc::new(Store::open(&self.folder.path().join("state.sqlite")).unwrap());
    }

    /// Drives a pull until it has been woken so many times, then drops it where it waits. How often it was woken, and what it
    /// came to if it came to its end.
    pub async fn pull_for(&self, mode: Mode, wakes: u64) -> (u64, Option<Pulled>) {
        let mut pulling = Box::pin(self.pull(mode));
        let mut woken = 0;
        let pulled = std::future::poll_fn(|context| {
            if woken == wakes {
                return Poll::Ready(None);
            }
            woken += 1;
            pulling.as_mut().poll(context).map(Some)
        })
        .await;
        (woken, pulled)
    }

    /// A pull that is killed up to eight times, at moments that are spread over so many wakes from this twelfth of them on, and each time
    /// gone on with. How often it was killed, and what it came to.
    pub async fn pull_killed(&mut self, mode: Mode, wakes: u64, from: u64) -> (u64, Pulled) {
        let mut killed = 0;
        loop {
            match self.pull_for(mode, if killed < 8 { wakes * (killed + from) / 12 } else { u64::MAX }).await {
                (_, Some(pulled)) => return (killed, pulled),
                (_, None) => killed += 1,
            }
            self.reopen();
        }
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.ahead.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// The time that has passed beside the real one.
    pub fn passed(&self) -> Duration {
        Duration::from_millis(self.ahead.load(Ordering::SeqCst))
    }

    /// Pulls, and is killed when the hospital has seen a request for which this holds.
    pub async fn pull_until(&self, mode: Mode, seen: impl Fn(&Seen) -> bool) {
        let before = self.running.request_count();
        let is_reached = async {
            while !self.running.requests().iter().skip(before).any(&seen) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = is_reached => {}
            pulled = self.try_pull(mode) => panic!("it came to its end: {:?}", pulled.map(|pulled| pulled.outcome.gaps)),
        }
    }

    /// Pulls into the site's snapshot, which stays from pull to pull.
    pub async fn pull(&self, mode: Mode) -> Pulled {
        self.try_pull(mode).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Connects, without asking for data.
    pub async fn connect(&self) -> Result<Source, SourceError> {
        let types: BTreeSet<String> = TYPES.iter().map(|name| (*name).to_owned()).collect();
        Source::connect(&self.options, Some(&self.key), &types, Arc::clone(&self.clock)).await
    }

    /// The same, where it may be impossible.
    pub async fn try_pull(&self, mode: Mode) -> Result<Pulled, SourceError> {
        let before = self.running.request_count();
        let options = Options { mode, ..self.options.clone() };
        let types: BTreeSet<String> = TYPES.iter().map(|name| (*name).to_owned()).collect();
        let mut source = Source::connect(&options, Some(&self.key), &types, Arc::clone(&self.clock)).await?;
        source.capability.learn(&self.facts);
        let plan = plan(&self.needs, &source.capability, &options);
        let snapshot = self.snapshot();
        let chooser = self.chooser.map(Those);
        let chooser = chooser.as_ref().map(|those| those as &dyn Chooser);
        let outcome = pull_for(chooser, &source, &plan, &snapshot, self.clock.as_ref(), &Silent).await?;
        let held = self.store.with(|connection| quarantine::list(connection, Some(quarantine::State::Held))).unwrap();
        let refused = held.iter().map(|item| self.identity(item)).collect();
        let mut truth = self.running.resources();
        truth.retain(|(_, _, json)| (self.keeps)(&serde_json::from_str(json).unwrap()));
        if let Some(members) = self.listed.clone().or_else(|| self.hospital.members(&self.options.group)) {
            truth.retain(|(resource_type, _, json)| patient_of(resource_type, json.as_bytes()).is_none_or(|patient| members.contains(&patient)));
        }
        let differences = differences(&truth, &snapshot, &plan);
        let requests = self.running.requests().split_off(before);
        Ok(Pulled { outcome, digest: snapshot.digest().unwrap(), held, refused, differences, requests })
    }

    /// Type and id of the resource in a refused line, as far as they can be read.
    fn identity(&self, item: &quarantine::Item) -> Option<(String, String)> {
        let (_, sealed) = self.store.with(|connection| quarantine::get(connection, item.id)).unwrap().unwrap();
        let line = open_bytes(&self.snapshot_key, QUARANTINE_SEAL, &sealed).unwrap();
        let resource: serde_json::Value = serde_json::from_slice(&line).ok()?;
        Some((resource["resourceType"].as_str()?.to_owned(), resource["id"].as_str()?.to_owned()))
    }

    /// Every stored resource, byte for byte.
    pub fn lines(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap());
        let lines = patients.flat_map(|patient| patient.lines).chain(snapshot.shared(None).unwrap());
        lines.map(|line| String::from_utf8(line).unwrap()).collect()
    }

    /// The path of every file of the snapshot, below its folder.
    pub fn files(&self) -> Vec<String> {
        fn below(folder: &std::path::Path, root: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
                if entry.path().is_dir() {
                    below(&entry.path(), root, found);
                }
            }
        }
        let mut found = Vec::new();
        below(self.folder.path(), self.folder.path(), &mut found);
        found
    }

    /// The files below a folder of the snapshot.
    pub fn files_in(&self, folder: &str) -> Vec<PathBuf> {
        let mut waiting = vec![self.folder.path().join(folder)];
        let mut found = Vec::new();
        while let Some(path) = waiting.pop() {
            match std::fs::read_dir(&path) {
                Ok(entries) => waiting.extend(entries.map(|entry| entry.unwrap().path())),
                Err(_) => found.push(path),
            }
        }
        found
    }

    /// Whether a staged file belongs to a unit that is done.
    pub fn is_done(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        self.store
            .with(|connection| Ok(connection.query_row("SELECT count(*) FROM unit WHERE file = ?1", [&name], |row| row.get::<_, i64>(0))?))
            .unwrap()
            > 0
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::open(self.folder.path(), Arc::clone(&self.store), self.snapshot_key.clone(), 4).unwrap()
    }
}

/// What a check says of a type whose times of change are not heeded.
pub fn untimed(about: &str) -> Fact {
    Fact { about: about.to_owned(), what: "_lastUpdated".to_owned(), declared: Some(true), found: Found::Ignored, detail: String::new() }
}

/// Patients of whom something holds.
struct Those(fn(&PatientLines) -> bool);

impl Chooser for Those {
    fn may_count(&self, patients: &[PatientLines], _shared: &[Vec<u8>]) -> BTreeSet<String> {
        patients.iter().filter(|patient| (self.0)(patient)).map(|patient| patient.patient_id.clone()).collect()
    }
}

/// The computer's clock, off by some seconds.
pub struct OffBy(pub i64);

impl Clock for OffBy {
    fn now(&self) -> Timestamp {
        Timestamp::now().saturating_add(SignedDuration::from_secs(self.0)).unwrap()
    }
}

/// A clock that jumps over every wait.
struct Swift(Arc<AtomicU64>);

impl Clock for Swift {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_millis(self.0.load(Ordering::SeqCst) as i64)
    }

    fn sleep(&self, time: Duration) -> Boxed<'_, ()> {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
        Box::pin(tokio::time::sleep(Duration::from_millis(1)))
    }
}

/// What a pull did.
#[derive(Debug)]
pub struct Pulled {
    pub outcome: PullOutcome,
    /// Of the snapshot.
    pub digest: String,
    /// What is held in quarantine.
    pub held: Vec<quarantine::Item>,
    /// Type and id of each of them, where they can be read.
    pub refused: Vec<Option<(String, String)>>,
    /// Where the snapshot differs from the truth.
    pub differences: Vec<Difference>,
    /// The requests of this pull, those at the second origin included.
    pub requests: Vec<Seen>,
}

/// One resource that is not as the hospital has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub resource_type: String,
    pub id: String,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Missing,
    Extra,
    Changed,
}

impl Pulled {
    /// The checker: the snapshot is the truth, and is said to be.
    pub fn is_the_truth(&self) {
        assert_eq!(self.differences.iter().take(5).collect::<Vec<_>>(), Vec::<&Difference>::new(), "{} differences", self.differences.len());
        assert!(self.outcome.complete, "complete data are called partial: {:?}, {} in quarantine", self.outcome.gaps, self.held.len());
    }

    /// The checker: the snapshot is the truth, or every difference is named.
    pub fn is_the_truth_or_says_what_is_not(&self) {
        assert_eq!(self.unnamed(), Vec::<String>::new(), "gaps: {:?}", self.outcome.gaps);
    }

    /// What is not as the hospital has it and named by nothing: by no gap of its type, not by its own line in quarantine, nor
    /// by a line there of which nothing can be read.
    pub fn unnamed(&self) -> Vec<String> {
        let mut complaints: Vec<String> = self
            .differences
            .iter()
            .filter(|difference| !self.names(difference))
            .map(|difference| format!("not named: {difference:?}"))
            .collect();
        if complaints.len() <= self.refused.iter().filter(|identity| identity.is_none()).count() {
            complaints.clear();
        }
        if self.outcome.complete && !self.differences.is_empty() {
            complaints.push("partial data are called complete".to_owned());
        }
        complaints
    }

    /// What is named and not so: a line in quarantine of a resource that is as the hospital has it, a gap of a type of which
    /// nothing is missing.
    pub fn unfounded(&self) -> Vec<String> {
        let differs = |resource_type: &str, id: &str| self.differences.iter().any(|difference| difference.resource_type == resource_type && difference.id == id);
        let held = self.refused.iter().flatten().filter(|(resource_type, id)| !differs(resource_type, id));
        let differing = self.differing();
        let gaps = self.outcome.gaps.iter().filter(|gap| gap.resource_type != "*" && !differing.contains(gap.resource_type.as_str()));
        held.map(|resource| format!("held for nothing: {resource:?}"))
            .chain(gaps.map(|gap| format!("nothing is missing: {}: {}", gap.resource_type, gap.reason)))
            .collect()
    }

    /// Resources that are not as the hospital has them, but for deletions that are not known of yet.
    pub fn missing_or_changed(&self) -> Vec<&Difference> {
        self.differences.iter().filter(|difference| difference.what != What::Extra).collect()
    }

    /// Whether a gap or a line in quarantine names it.
    pub fn names(&self, difference: &Difference) -> bool {
        let resource_type = difference.resource_type.as_str();
        let gap = self.outcome.gaps.iter().any(|gap| gap.resource_type == resource_type || gap.resource_type == "*");
        gap || self.refused.contains(&Some((resource_type.to_owned(), difference.id.clone())))
    }

    /// Whether a gap's reason holds these words.
    pub fn has_gap(&self, words: &str) -> bool {
        self.outcome.gaps.iter().any(|gap| gap.reason.contains(words))
    }

    /// Requests whose path and query hold these words.
    pub fn count(&self, part: &str) -> usize {
        self.requests.iter().filter(|seen| seen.target.contains(part)).count()
    }

    /// Requests that begin a search of a type.
    pub fn begun(&self, resource_type: &str) -> usize {
        let starts = [format!("/fhir/{resource_type}?"), format!("/fhir/{resource_type}/_search")];
        let is_further = |target: &str| ["_page=", "_offset=", "_summary=", "_total="].iter().any(|part| target.contains(part));
        self.requests
            .iter()
            .filter(|seen| starts.iter().any(|start| seen.target.starts_with(start)) && !is_further(&seen.target) && !seen.body.contains("_summary="))
            .count()
    }

    /// Types of which something is absent, extra or changed.
    pub fn differing(&self) -> BTreeSet<&str> {
        self.differences.iter().map(|difference| difference.resource_type.as_str()).collect()
    }

    /// Types that are called incomplete.
    pub fn gaps(&self) -> BTreeSet<&str> {
        self.outcome.gaps.iter().map(|gap| gap.resource_type.as_str()).collect()
    }

    /// Whether a token was shown at the second origin.
    pub fn token_went_elsewhere(&self) -> bool {
        self.requests.iter().any(|seen| seen.elsewhere && seen.authorized)
    }
}

type Resources = BTreeMap<(String, String), String>;

/// Compares a snapshot with the truth. Types that are fetched when something refers to them count only if something does:
/// that one of them was deleted which nobody refers to any more is found by the next full pull.
fn differences(truth: &[(String, String, String)], snapshot: &Snapshot, plan: &Plan) -> Vec<Difference> {
    let compact = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
    let expected: Resources = truth
        .iter()
        .filter(|(resource_type, _, _)| plan.types.contains(resource_type))
        .map(|(resource_type, id, json)| ((resource_type.clone(), id.clone()), compact(json.as_bytes()).to_string()))
        .collect();
    let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap());
    let lines = patients.flat_map(|patient| patient.lines).chain(snapshot.shared(None).unwrap());
    let text = |value: &serde_json::Value, name: &str| value[name].as_str().unwrap().to_owned();
    let found: Resources = lines
        .map(|line| compact(&line))
        .map(|value| ((text(&value, "resourceType"), text(&value, "id")), value.to_string()))
        .collect();
    let is_needed = |resource_type: &str, id: &str| {
        let mark = format!("\"reference\":\"{resource_type}/{id}\"");
        !plan.referenced.contains(resource_type) || found.values().any(|json| json.contains(&mark))
    };
    let mut differences = Vec::new();
    let mut differ = |(resource_type, id): &(String, String), what| differences.push(Difference { resource_type: resource_type.clone(), id: id.clone(), what });
    for (name, json) in &expected {
        match found.get(name) {
            Some(own) if own == json => {}
            Some(_) => differ(name, What::Changed),
            None if is_needed(&name.0, &name.1) => differ(name, What::Missing),
            None => {}
        }
    }
    found
        .keys()
        .filter(|name| !expected.contains_key(*name) && is_needed(&name.0, &name.1))
        .for_each(|name| differ(name, What::Extra));
    differences
}

#[tokio::test]
async fn an_honest_hospital_gives_the_truth_and_the_checker_sees_what_differs() {
    let bench = Bench::new(&[]).await;
    let (by_search, by_export) = (bench.pull(Mode::Search).await, Bench::new(&[]).await.pull(Mode::Bulk).await);
    by_search.is_the_truth();
    by_export.is_the_truth();
    assert_eq!(by_search.digest, by_export.digest);
    let snapshot = bench.snapshot();
    let mut truth = bench.running.resources();
    let plan = Plan { types: TYPES.iter().map(|name| (*name).to_owned()).collect(), ..Plan::default() };
    truth.retain(|(resource_type, ..)| resource_type != "Device");
    let encounter = truth.iter_mut().find(|(resource_type, ..)| resource_type == "Encounter").unwrap();
    encounter.2 = encounter.2.replace("Encounter", "Encounter ");
    truth.push(("Patient".to_owned(), "nobody".to_owned(), "{}".to_owned()));
    let plan = Plan { referenced: ["Location".to_owned()].into(), ..plan };
    let seen: BTreeSet<(String, What)> = differences(&truth, &snapshot, &plan).into_iter().map(|one| (one.resource_type, one.what)).collect();
    let expected = [("Device", What::Extra), ("Encounter", What::Changed), ("Patient", What::Missing)];
    assert_eq!(seen, expected.map(|(resource_type, what)| (resource_type.to_owned(), what)).into());
}

#[tokio::test]
async fn faults_by_chance_end_in_the_truth_or_in_named_gaps() {
    let mut refused = 0;
    for (seed, mode) in [(1, Mode::Search), (2, Mode::Bulk), (3, Mode::Search), (4, Mode::Bulk)] {
        let bench = Bench::with_faults(&[], seed).await;
        let pulled = bench.try_pull(mode).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        refused += pulled.requests.iter().filter(|seen| seen.status >= 400).count();
        pulled.is_the_truth_or_says_what_is_not();
    }
    assert!(refused > 5, "{refused} requests were refused");
}
