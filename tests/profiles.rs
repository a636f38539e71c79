//! Whole pulls from servers of every kind: with faults by chance, killed on the way, and counted.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use watershed::sandbox::server::Options as Serving;
use watershed::sandbox::{Fault, Profile, Scenario, quirk::SERVERS};
use watershed::source::duty::Code;
use watershed::source::forecast::{Forecast, Known};
use watershed::source::probe::{Fact, Found, SERVER, SINCE};
use watershed::source::since::next_since;
use watershed::source::{Mode, SourceError, TypeFilter, ledger, plan};

use crate::bench::{Bench, Difference, Pulled, untimed};
use crate::figures;

const SEEDS: u64 = 20;
const SEEDS_USUAL: u64 = 3;
const PATIENTS: u32 = 8;
/// Nights that an export of twenty days is waited for, and another one that takes its place.
const NIGHTS_WAITED_MAX: u32 = 50;
const AT_ONCE: usize = 2;
/// Nights that are killed, and how often each is at most.
const NIGHTS: u64 = 20;
const NIGHTS_USUAL: u64 = 4;
const KILLS: u64 = 12;

/// The one or the other, as the run is.
fn all_or(all: u64, usual: u64) -> u64 {
    if crate::all() { all } else { usual }
}

fn faulty(seed: u64) -> Serving {
    // An export that takes weeks is kept for weeks.
    Serving { faults: vec![Fault::Chance { seed }], export_file_resources: 40, export_life: Duration::from_secs(60 * 86_400), ..Serving::default() }
}

/// A site at a server of a kind, configured as that kind wants it.
async fn site(server: &str, seed: u64) -> Bench {
    site_of("lakeside", server, faulty(seed)).await
}

/// The same of a hospital.
async fn site_of(hospital: &str, server: &str, serving: Serving) -> Bench {
    let quirks: Vec<&str> = Scenario::of_server(server).unwrap().iter().map(|scenario| scenario.name).collect();
    let mut bench = Bench::at(hospital, PATIENTS, &quirks, serving).await.swift();
    match server {
        "epic" => {
            bench.options.headers.insert("Epic-Client-ID".to_owned(), "11111111-2222".to_owned());
            bench.options.group = "all".to_owned();
            // A client in operation: the first refusal ever is final.
            bench.options.tuning.accepted_before = true;
            // An export that takes twenty days is asked for four times a night.
            bench.options.tuning.export_wait_minutes = 60;
            bench.narrowed(TypeFilter::Escaped)
        }
        "oracle" => bench.narrowed(TypeFilter::Encoded),
        "athena" => {
            bench.options.search_parameters.insert("ah-practice".to_owned(), "Organization/a-1.Practice-195900".to_owned());
            bench
        }
        "hapi" => {
            bench.options.group = "all".to_owned();
            bench
        }
        _ => bench,
    }
}

/// Pulls, night after night while the server is still working on an export.
async fn pull_in_nights(bench: &Bench, mode: Mode) -> Result<Pulled, SourceError> {
    for _ in 0..NIGHTS_WAITED_MAX {
        match bench.try_pull(mode).await {
            Err(SourceError::Unfinished { .. }) => bench.pass(Duration::from_secs(23 * 3600)),
            ended => return ended,
        }
    }
    bench.try_pull(mode).await
}

/// Whether a gap is of what the server lets nobody know: if it holds Observations of a category that it refuses to search.
fn cannot_tell(server: &str, mode: Mode, text: &str) -> bool {
    server == "epic" && mode == Mode::Search && text.starts_with("nothing is missing: Observation: ") && text.contains("category")
}

/// What a pull came to.
struct End {
    server: &'static str,
    mode: Mode,
    is_complete: bool,
    /// Requests that were refused.
    struck: usize,
    complaints: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_every_kind_end_in_the_truth_or_name_exactly_what_is_missing() {
    let began = Instant::now();
    let nights = SERVERS
        .iter()
        .flat_map(|(server, _)| (1..=all_or(SEEDS, SEEDS_USUAL)).flat_map(move |seed| [Mode::Search, Mode::Bulk].map(move |mode| (*server, seed, mode))));
    let ends: Vec<End> = futures_util::stream::iter(nights)
        .map(|(server, seed, mode)| async move {
            let named = |text: String| format!("{server}, seed {seed}, {mode:?}: {text}");
            match pull_in_nights(&site(server, seed).await, mode).await {
                Ok(pulled) => {
                    let struck = pulled.requests.iter().filter(|seen| seen.status >= 400).count();
                    let unfounded = pulled.unfounded().into_iter().filter(|text| !cannot_tell(server, mode, text));
                    let complaints = pulled.unnamed().into_iter().chain(unfounded).map(named).collect();
                    End { server, mode, is_complete: pulled.outcome.complete, struck, complaints }
                }
                Err(error) => End { server, mode, is_complete: false, struck: 0, complaints: vec![named(error.to_string())] },
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut table: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for end in &ends {
        let row = table.entry(format!("{} by {:?}", end.server, end.mode).to_lowercase()).or_default();
        row.0 += 1;
        row.1 += u32::from(end.is_complete);
    }
    let complaints: Vec<&String> = ends.iter().flat_map(|end| &end.complaints).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let struck: usize = ends.iter().map(|end| end.struck).sum();
    let told: Vec<String> = table.iter().map(|(name, (all, complete))| format!("{name} {complete} of {all}")).collect();
    figures::say(&format!("pulls that ended complete, the others name what is missing: {}; {struck} refused requests, {:.0} s", told.join(", "), began.elapsed().as_secs_f32()));
    assert!(table.values().all(|(all, _)| u64::from(*all) == all_or(SEEDS, SEEDS_USUAL)));
    assert!(struck > 5 * ends.len(), "{struck} refused requests in {} pulls", ends.len());
    // Nothing stands in the way of the truth there but faults that pass.
    assert!(ends.iter().all(|end| end.is_complete || !["athena", "strict"].contains(&end.server)), "{told:?}");
}

/// Each kind of server at one hospital, and each hospital with one kind of server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_without_a_word_is_found_or_named_at_servers_of_every_kind_and_at_each_hospital() {
    let kinds = SERVERS.iter().map(|(server, _)| ("lakeside", *server));
    let hospitals = Profile::all().iter().map(|profile| (profile.name, "strict")).filter(|(name, _)| *name != "lakeside");
    let sites = kinds.chain(hospitals).flat_map(|(hospital, server)| [Mode::Search, Mode::Auto].map(|mode| (hospital, server, mode)));
    let ends: Vec<(String, Vec<Difference>, bool)> = futures_util::stream::iter(sites)
        .map(|(hospital, server, mode)| async move {
            let serving = Serving { export_file_resources: 40, export_life: Duration::from_secs(60 * 86_400), ..Serving::default() };
            let bench = site_of(hospital, server, serving).await;
            pull_in_nights(&bench, mode).await.unwrap();
            [("Encounter", 2), ("Observation", 1)].into_iter().for_each(|(name, count)| bench.hospital.vanish(name, count));
            bench.hospital.slip_in("Condition", 1, "2025-12-01T12:00:00Z".parse().unwrap());
            let mut night = pull_in_nights(&bench, mode).await.unwrap();
            if night.differences.iter().any(|difference| !is_told(&night, difference)) {
                // An export that is an old one cannot be told from a new one at once.
                night = pull_in_nights(&bench, mode).await.unwrap();
            }
            let untold: Vec<Difference> = night.differences.iter().filter(|difference| !is_told(&night, difference)).cloned().collect();
            (format!("{hospital}, {server}, {mode:?}"), untold, night.differences.is_empty())
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let untold: Vec<_> = ends.iter().filter(|(_, untold, _)| !untold.is_empty()).collect();
    assert!(untold.is_empty(), "{untold:#?}");
    let right = ends.iter().filter(|(.., is_right)| *is_right).count();
    figures::say(&format!("of {} sites {right} were right after the next night, and the others told what was not", ends.len()));
    assert!(right * 3 >= ends.len() * 2, "{ends:#?}");
}

/// Whether it is named, or of a type of which it is said that the server does not count it, or that lines of it are in quarantine:
/// so many may be missing of what it counts.
fn is_told(night: &Pulled, difference: &Difference) -> bool {
    let uncounted = night.outcome.notes.iter().any(|note| note.code == Code::Uncounted && note.resource_type == difference.resource_type);
    let held = night.held.iter().any(|item| item.resource_type.as_ref().is_none_or(|name| *name == difference.resource_type));
    uncounted || held || night.names(difference)
}

/// From 1 to `most`, by chance.
fn chance(most: u64, seed: (u64, u64)) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    hasher.finish() % most.max(1) + 1
}

/// The process stays here: the pull is dropped where it waits, and goes on from a state that is opened anew. `tests/crash.rs`
/// kills real processes.
#[tokio::test]
async fn a_pull_with_faults_that_is_killed_again_and_again_ends_in_the_same_snapshot() {
    let began = Instant::now();
    let (mut kills, mut connecting) = (0, 0);
    let nights = all_or(NIGHTS, NIGHTS_USUAL);
    for night in 1..=nights {
        let mode = if night % 2 == 0 { Mode::Bulk } else { Mode::Search };
        let bench = async || {
            let mut bench = Bench::of(PATIENTS, &[], faulty(night)).await.swift().on_disk();
            (bench.options.page_size, bench.options.tuning.pages_per_place) = (15, 2);
            bench
        };
        let (wakes, calm) = bench().await.pull_for(mode, u64::MAX).await;
        let calm = calm.unwrap();
        calm.is_the_truth();
        let mut bench = bench().await;
        let mut killed = 0;
        let pulled = loop {
            let wakes = if killed < KILLS { chance(wakes / 4, (night, killed)) } else { u64::MAX };
            let (_, pulled) = bench.pull_for(mode, wakes).await;
            match pulled {
                Some(pulled) => break pulled,
                None => killed += 1,
            }
            connecting += u64::from(bench.snapshot().counts().unwrap().is_empty());
            bench.reopen();
        };
        pulled.is_the_truth();
        assert_eq!(pulled.digest, calm.digest, "night {night}, {mode:?}, killed {killed} times");
        kills += killed;
    }
    figures::say(&format!("{kills} kills at random points of {nights} pulls with faults, each ended in the same snapshot; {:.0} s", began.elapsed().as_secs_f32()));
    assert!(kills >= nights * 10 && connecting > 0, "{kills} kills");
}

/// How many requests a night was foreseen to take, at least and at most, and how many it took, beside those that find out what the
/// server can do and get a token.
struct Foreseen {
    least: u64,
    most: u64,
    taken: u64,
    told: String,
}

impl Foreseen {
    /// What is wrong with it: a request in ten more, or fewer, was sent.
    fn complaint(&self, what: &str) -> Option<String> {
        let Foreseen { least, most, taken, told } = self;
        let said = format!("{what}: {least} to {most} requests were foreseen, {taken} were sent");
        figures::say(&said);
        let is_true = taken * 10 <= most * 11 && *taken >= least * 9 / 10;
        (!is_true).then(|| format!("{said}\n{told}"))
    }
}

/// Foresees a night, and lets it be.
async fn foreseen(bench: &Bench, mode: Mode) -> Foreseen {
    let options = watershed::source::Options { mode, ..bench.options.clone() };
    let source = bench.connect().await.unwrap();
    let mut capability = source.capability.clone();
    capability.learn(&bench.facts);
    let plan = plan(&bench.needs, &capability, &options);
    let since = next_since(&source, &plan, &bench.snapshot(), bench.clock.as_ref()).unwrap();
    let exports_whole = plan.export.is_some() && capability.exports_whole;
    let known = Known { since, exports_whole, ..ledger::last_brought(&bench.store, &source.name()).unwrap() };
    let forecast = Forecast::new(&plan, &known, &options);
    let pulled = bench.pull(mode).await;
    assert!(pulled.outcome.complete, "{mode:?}: {:?}", pulled.outcome.gaps);
    assert_eq!(pulled.outcome.full, known.since.is_none(), "{mode:?}");
    let before = ["/metadata", "/.well-known/", "/token"].map(|part| pulled.count(part)).iter().sum::<usize>();
    let asked: Vec<String> = pulled
        .requests
        .iter()
        .map(|seen| format!("{} {}", seen.target, seen.body.chars().take(90).collect::<String>()))
        .collect();
    let most = forecast.steps.iter().filter_map(|step| step.requests).sum();
    let told = format!("{:#?}\n{:#?}", forecast.steps, asked);
    Foreseen { least: forecast.least.requests, most, taken: (pulled.requests.len() - before) as u64, told }
}

#[tokio::test]
async fn a_night_without_faults_takes_no_more_requests_than_were_foreseen() {
    for (mode, is_by_code, whole) in
        [(Mode::Search, false, None), (Mode::Search, false, Some("Encounter")), (Mode::Bulk, false, None), (Mode::Search, true, None), (Mode::Bulk, true, None)]
    {
        let mut bench = Bench::new(&[]).await;
        bench.facts = whole.map(untimed).into_iter().collect();
        if is_by_code {
            bench = bench.narrowed(TypeFilter::Encoded);
        }
        bench.pull(mode).await.is_the_truth();
        for (full_every_days, night) in [(0, "everything"), (7, "changes")] {
            bench.options.tuning.full_every_days = full_every_days;
            let foreseen = foreseen(&bench, mode).await;
            assert_eq!(foreseen.least, foreseen.most, "{mode:?}, {night}");
            assert_eq!(foreseen.complaint(&format!("{mode:?}, {night}")), None);
        }
    }
}

#[tokio::test]
async fn a_night_of_a_group_takes_no_more_requests_than_were_foreseen() {
    let mut wrong = Vec::new();
    let of_group = [
        (Mode::Search, &[][..], false, false),
        (Mode::Search, &[], true, false),
        (Mode::Search, &[], false, true),
        (Mode::Search, &[], true, true),
        (Mode::Bulk, &[], false, false),
        (Mode::Bulk, &["q_82"], false, false),
        (Mode::Bulk, &[], false, true),
    ];
    let by_search = [(Mode::Search, &[][..], false, false), (Mode::Search, &[], true, false), (Mode::Search, &[], false, true)];
    let nights = of_group.map(|night| ("", night)).into_iter().chain(by_search.map(|night| ("Patient?gender=female,male", night)));
    for (search, (mode, quirks, is_progressive, is_by_code)) in nights {
        let mut bench = Bench::new(quirks).await;
        if is_by_code {
            bench = bench.narrowed(TypeFilter::Encoded);
        }
        (bench.options.group, bench.options.tuning.patients_per_query) = (if search.is_empty() { "all".to_owned() } else { String::new() }, 6);
        bench.options.patients_search = search.to_owned();
        bench
            .needs
            .iter_mut()
            .for_each(|need| need.is_later = is_progressive && ["Observation", "Procedure"].contains(&need.resource_type.as_str()));
        // One in three.
        bench.chooser = Some(|patient| patient.patient_id.bytes().map(usize::from).sum::<usize>() % 3 == 0);
        bench.pull(mode).await;
        if !quirks.is_empty() {
            // As a night notes.
            let (about, what) = (SERVER.to_owned(), SINCE.to_owned());
            bench.facts = vec![Fact { about, what, declared: None, found: Found::Ignored, detail: String::new() }];
        }
        for (full_every_days, night) in [(0, "everything"), (7, "changes")] {
            bench.options.tuning.full_every_days = full_every_days;
            let foreseen = foreseen(&bench, mode).await;
            let whom = if search.is_empty() { "a Group" } else { search };
            let what = format!("{mode:?} of {whom}, {quirks:?}, {}, by code: {is_by_code}, {night}", if is_progressive { "progressive" } else { "of all" });
            wrong.extend(foreseen.complaint(&what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
