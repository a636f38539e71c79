//! What came beside what the server itself counts: nothing is called complete because nobody looked.

use super::bench::{Bench, Pulled, TYPES};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use watershed::diagnostic::SourceFile;
use watershed::sandbox::Scenario;
use watershed::sandbox::server::Options as Serving;
use watershed::source::account::{self, Account};
use watershed::source::duty::{Code, Who};
use watershed::source::{Gap, Mode, Need, TypeFilter, import};

const MODES: [Mode; 2] = [Mode::Search, Mode::Bulk];

fn account(bench: &Bench) -> Account {
    bench.store.with(|connection| account::last(connection)).unwrap().unwrap()
}

fn codes(gaps: &[Gap]) -> Vec<(&str, Code)> {
    gaps.iter().map(|gap| (gap.resource_type.as_str(), gap.code)).collect()
}

#[tokio::test]
async fn what_an_export_leaves_out_without_a_word_is_a_gap_by_the_servers_own_count() {
    // A number by `_summary=count`, or where that brings a page, by `_total=accurate`.
    for quirks in [&["q_46"][..], &["q_46", "q_30"]] {
        let bench = Bench::new(quirks).await.swift();
        let pulled = bench.pull(Mode::Bulk).await;
        assert!(pulled.differing().len() > 3 && !pulled.outcome.complete);
        pulled.is_the_truth_or_says_what_is_not();
        assert!(pulled.outcome.gaps.iter().all(|gap| gap.code == Code::Counted), "{:?}", pulled.outcome.gaps);
        let patients = bench.running.resources().iter().filter(|(resource_type, ..)| resource_type == "Patient").count();
        assert!(pulled.has_gap(&format!("came where the server itself counts {patients}")), "{:?}", pulled.outcome.gaps);
        let due = account(&bench).rows.into_iter().find(|row| row.resource_type == "Patient").and_then(|row| row.gap);
        assert!(
            due.as_ref()
                .is_some_and(|due| due.who == Who::EhrTeam && due.code == Code::Counted && due.what.contains("the server counts")),
            "{due:?}"
        );
        // Changes cannot tell, so it stands.
        let again = bench.pull(Mode::Bulk).await;
        assert!(!again.outcome.full && again.count("_summary=") == 0);
        assert_eq!(codes(&again.outcome.gaps), codes(&pulled.outcome.gaps));
    }
    // A vendor's server with all its quirks, and no Group to tell.
    let quirks: Vec<&str> = Scenario::of_server("hapi").unwrap().iter().map(|scenario| scenario.name).collect();
    let pulled = Bench::new(&quirks).await.swift().pull(Mode::Bulk).await;
    assert!(!pulled.differences.is_empty());
    pulled.is_the_truth_or_says_what_is_not();
}

/// Each type, but what is only referred to; and so many samples of it.
fn each_is_counted_once(pulled: &Pulled, samples: [usize; 2]) {
    let counts: Vec<&str> = pulled.requests.iter().filter(|seen| seen.target.contains("_summary=count")).map(|seen| seen.target.as_str()).collect();
    assert_eq!(counts.iter().collect::<BTreeSet<_>>().len(), counts.len(), "{counts:?}");
    let times = |target: &&&str| target.contains("_lastUpdated=lt2026-0") || target.contains("_lastUpdated=lt2025");
    // What is looked at by its id in its turn comes on pages of fifty.
    let by_id = pulled.requests.iter().filter(|seen| seen.target.contains("_id=") && !seen.target.contains("_count=50")).count();
    let by_time = counts.iter().filter(times).count();
    // What changed while everything was read by search is asked for at its end.
    let meanwhile = counts.iter().filter(|target| target.contains("_lastUpdated=ge")).count();
    assert!([0, TYPES.len() - 2].contains(&meanwhile), "{counts:#?}");
    assert_eq!(([by_id, by_time], counts.len() - by_time - meanwhile), (samples, TYPES.len() - 2), "{counts:#?}");
}

#[tokio::test]
async fn each_type_is_counted_once_in_a_pull_and_the_ledger_shows_it() {
    for mode in MODES {
        let bench = Bench::new(&[]).await;
        let pulled = bench.pull(mode).await;
        pulled.is_the_truth();
        each_is_counted_once(&pulled, [0, 0]);
        let rows = account(&bench).rows;
        let of_type = |name: &str| rows.iter().filter(|row| row.resource_type == name).map(|row| (row.expected, row.received)).collect::<Vec<_>>();
        let observations = pulled.outcome.received["Observation"];
        assert_eq!(of_type("Observation"), [(Some(observations), observations)], "{mode:?}");
        // And so after a night of changes, with some ids of each - patients' do not stand in an address - and times of those of which
        // these are not all.
        let again = bench.pull(mode).await;
        assert!(!again.outcome.full, "{mode:?}");
        let many = bench.snapshot().counts().unwrap().into_iter().filter(|(name, count)| *count > 25 && name != "Location").count();
        each_is_counted_once(&again, [TYPES.len() - 3, many]);
    }
}

#[tokio::test]
async fn what_is_entered_while_everything_is_read_is_not_missing() {
    let bench = Bench::serving(&[], Serving { export_file_resources: 60, ..Serving::default() }).await.swift();
    bench.pull_until(Mode::Bulk, |seen| seen.target.contains("/export-file/")).await;
    for seed in 1..4 {
        bench.pass(std::time::Duration::from_secs(60));
        bench.hospital.amend_at(seed, bench.clock.now());
    }
    let pulled = bench.pull(Mode::Bulk).await;
    assert!(pulled.outcome.complete && pulled.count("_lastUpdated=lt") > 4, "{:?}", pulled.outcome.gaps);
}

#[tokio::test]
async fn members_of_a_group_who_do_not_come_are_a_gap() {
    for mode in MODES {
        let mut bench = Bench::new(&[]).await;
        bench.options.group = "ibd".to_owned();
        let mut members = bench.hospital.members("ibd").unwrap();
        members.push("nobody-by-that-name".to_owned());
        bench.hospital.regroup("ibd", &members, bench.clock.now());
        let pulled = bench.pull(mode).await;
        assert_eq!(codes(&pulled.outcome.gaps), [("Patient", Code::Members)], "{:?}", pulled.outcome.gaps);
        assert!(pulled.has_gap(&format!("1 of the {} members of the Group did not come", members.len())), "{:?}", pulled.outcome.gaps);
        assert!(pulled.requests.iter().any(|seen| seen.method == "POST" && seen.body.contains("_summary=count")), "counted of the members, not in an address");
        assert_eq!(pulled.count("nobody-by-that-name"), 0);
    }
}

#[tokio::test]
async fn no_patient_at_all_is_a_gap_until_a_person_says_that_it_is_so() {
    for mode in MODES {
        let mut bench = Bench::of(0, &[], Serving::default()).await;
        let pulled = bench.pull(mode).await;
        assert_eq!(codes(&pulled.outcome.gaps), [("Patient", Code::NoPatients)], "{mode:?}: {:?}", pulled.outcome.gaps);
        assert!(pulled.has_gap("no patient came at all") && !pulled.outcome.complete);
        bench.options.tuning.accepts_loss = true;
        let accepted = bench.pull(mode).await;
        assert!(accepted.outcome.complete && codes(&accepted.outcome.notes) == [("Patient", Code::NoPatients)], "{:?}", accepted.outcome);
        bench.options.tuning.accepts_loss = false;
        bench.options.tuning.full_every_days = 0;
        let later = bench.pull(mode).await;
        assert!(later.outcome.full && later.outcome.complete && later.outcome.notes.len() == 1, "{:?}", later.outcome);
    }
}

/// By search, by exports that are narrowed and by exports of everything.
#[tokio::test]
async fn where_nothing_has_a_code_that_is_asked_for_it_is_asked_whether_the_mapping_is_missing() {
    for (mode, spelling) in [(Mode::Search, TypeFilter::Off), (Mode::Bulk, TypeFilter::Encoded), (Mode::Bulk, TypeFilter::Off)] {
        let mut bench = Bench::new(&[]).await;
        bench.options.type_filter = spelling;
        bench.needs.retain(|need| need.resource_type != "Observation");
        bench
            .needs
            .push(Need { resource_type: "Observation".to_owned(), codes: ["urn:local|nothing-of-the-kind".to_owned()].into(), ..Need::all("Observation") });
        let there = bench.running.resources().iter().filter(|(resource_type, ..)| resource_type == "Observation").count();
        let pulled = bench.pull(mode).await;
        assert_eq!(codes(&pulled.outcome.gaps), [("Observation", Code::Uncoded)], "{mode:?} {spelling:?}: {:?}", pulled.outcome.gaps);
        assert!(pulled.has_gap(&format!("none of the {there} has a code that the measures ask for")), "{:?}", pulled.outcome.gaps);
        let rows = account(&bench).rows;
        let due = rows.iter().find_map(|row| row.gap.clone()).unwrap();
        assert!(due.who == Who::SiteEngineer && due.what.contains("site mapping"), "{due:?}");
        bench.options.tuning.accepts_loss = true;
        let accepted = bench.pull(mode).await;
        assert!(accepted.outcome.complete && codes(&accepted.outcome.notes) == [("Observation", Code::Uncoded)], "{:?}", accepted.outcome);
        bench.options.tuning.accepts_loss = false;
        let later = bench.pull(mode).await;
        assert!(!later.outcome.full && later.outcome.complete && later.outcome.notes.len() == 1, "it stands: {:?}", later.outcome);
        assert!(account(&bench).rows.iter().any(|row| row.status == "complete" && row.note.is_some()));
    }
    // The same of codes at other elements, of types that come by reference, and of what is asked for last.
    for (name, is_later) in [("Encounter", false), ("Encounter", true), ("Location", false)] {
        for mode in MODES {
            let mut bench = Bench::new(&[]).await;
            let there = bench.running.resources().iter().filter(|(resource_type, ..)| resource_type == name).count();
            if there < 20 {
                continue;
            }
            bench.chooser = Some(|_| true);
            bench.needs.retain(|need| need.resource_type != name);
            bench.needs.push(Need { elsewhere: ["urn:local|nothing-of-the-kind".to_owned()].into(), is_later, ..Need::all(name) });
            let pulled = bench.pull(mode).await;
            assert_eq!(codes(&pulled.outcome.gaps), [(name, Code::Uncoded)], "{mode:?}: {:?}", pulled.outcome.gaps);
        }
    }
    // An import that cannot be read may have them, which is the one thing to see to.
    let mut bench = Bench::new(&[]).await;
    let text = "name: lab\nfile: lab.csv\ncolumns: {P: patient}\nkey: P\nresource: {resourceType: Observation, status: final, subject: '{P}'}\n";
    let folder = tempfile::tempdir().unwrap();
    bench.options.tuning.imports = import::parse(&SourceFile::new("lab.yaml", text), folder.path(), &TimeZone::UTC, None).0.into_iter().collect();
    bench.needs.retain(|need| need.resource_type != "Observation");
    bench
        .needs
        .push(Need { resource_type: "Observation".to_owned(), codes: ["urn:local|nothing-of-the-kind".to_owned()].into(), ..Need::all("Observation") });
    let unread = bench.pull(Mode::Search).await;
    assert_eq!(codes(&unread.outcome.gaps), [("Observation", Code::Import)], "{:?}", unread.outcome.gaps);
    // Where one is found, the measures have something to look at.
    let narrowed = Bench::new(&[]).await.narrowed(TypeFilter::Off);
    assert!(narrowed.pull(Mode::Bulk).await.outcome.complete);
}

#[tokio::test]
async fn a_type_that_the_configuration_narrows_is_partial_until_a_person_accepts_it() {
    for group in ["", "all"] {
        let mut bench = Bench::new(&[]).await;
        bench.options.group = group.to_owned();
        bench.options.parameters.insert("Observation".to_owned(), vec!["date=ge2026-01-01".to_owned()]);
        let plan = watershed::source::plan(&bench.needs, &bench.connect().await.unwrap().capability, &watershed::source::Options { mode: Mode::Search, ..bench.options.clone() });
        assert!(plan.notes.iter().any(|note| note.starts_with("`source.parameters` narrows Observation to `date=ge2026-01-01`")), "{:?}", plan.notes);
        let pulled = bench.pull(Mode::Search).await;
        assert_eq!(codes(&pulled.outcome.gaps), [("Observation", Code::Narrowed)], "{:?}", pulled.outcome.gaps);
        let there = bench.running.resources().iter().filter(|(resource_type, ..)| resource_type == "Observation").count();
        assert!(pulled.has_gap(&format!("of the {there} that the server counts: `source.parameters` asks for `date=ge2026-01-01` only")), "{:?}", pulled.outcome.gaps);
        let due = account(&bench).rows.iter().find_map(|row| row.gap.clone()).unwrap();
        assert!(due.who == Who::SiteEngineer && due.what.contains("`watershed pull --accept-loss`"), "{due:?}");
        // Changes cannot tell, so it stands.
        assert_eq!(codes(&bench.pull(Mode::Search).await.outcome.gaps), [("Observation", Code::Narrowed)]);
        bench.options.tuning.accepts_loss = true;
        let accepted = bench.pull(Mode::Search).await;
        assert!(accepted.outcome.complete && codes(&accepted.outcome.notes) == [("Observation", Code::Narrowed)], "{:?}", accepted.outcome);
        bench.options.tuning.accepts_loss = false;
        assert!(bench.pull(Mode::Search).await.outcome.complete, "it stands");
    }
    // What leaves nothing out needs nobody, and what the server demands is the configuration's word.
    let mut bench = Bench::new(&[]).await;
    bench.options.parameters.insert("Observation".to_owned(), vec!["date=ge1950-01-01".to_owned()]);
    bench.options.parameters.insert("Encounter".to_owned(), vec!["_sort=_id".to_owned()]);
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.outcome.complete && pulled.outcome.notes.is_empty(), "{:?}", pulled.outcome);
}

#[tokio::test]
async fn what_there_has_never_been_any_of_is_told_each_night_until_some_comes() {
    for mode in MODES {
        let mut bench = Bench::new(&[]).await;
        let all = bench.hospital.back_up();
        bench.hospital.vanish("Procedure", usize::MAX);
        for is_full in [true, false] {
            let night = bench.pull(mode).await;
            night.is_the_truth();
            let notes: Vec<(&str, &str)> = night.outcome.notes.iter().map(|note| (note.resource_type.as_str(), note.reason.as_str())).collect();
            assert_eq!((night.outcome.full, notes), (is_full, vec![("Procedure", "there has never been any")]), "{mode:?}");
        }
        let due = account(&bench)
            .rows
            .into_iter()
            .find(|row| row.resource_type == "Procedure" && row.note.is_some())
            .and_then(|row| row.note);
        assert!(due.as_ref().is_some_and(|due| (due.who, due.code) == (Who::EhrTeam, Code::Empty)), "{due:?}");
        bench.hospital.restore(&all);
        bench.options.tuning.full_every_days = 0;
        let night = bench.pull(mode).await;
        night.is_the_truth();
        assert_eq!(night.outcome.notes, Vec::new(), "{mode:?}");
    }
}
