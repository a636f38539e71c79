//! A cohort that a list of the site's own names.

use super::bench::Bench;
use super::flawed::{self, Flaw, PATIENTS, all, of, reasons};
use std::path::{Path, PathBuf};
use watershed::source::duty::Code;
use watershed::source::patients::List;
use watershed::source::{Mode, SourceError};

const SYSTEM: &str = "http://hospital.example/mrn";

/// A hospital, its patients, and a list that does not name anybody yet.
struct Site {
    bench: Bench,
    everybody: Vec<String>,
    folder: tempfile::TempDir,
    system: &'static str,
}

impl Site {
    async fn new(system: &'static str) -> Site {
        let mut bench = Bench::new(&[]).await;
        let (everybody, folder) = (bench.hospital.members("all").unwrap(), tempfile::tempdir().unwrap());
        bench.options.tuning.patients = Some(List { path: folder.path().join("clinic.txt"), system: system.to_owned() });
        Site { bench, everybody, folder, system }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("clinic.txt")
    }

    /// Names these patients, and nobody else.
    fn list(&mut self, named: &[String], further: &str) {
        let record_number = |id: &String| {
            let patients = self.bench.running.resources();
            let (_, _, json) = patients.iter().find(|(kind, of, _)| kind == "Patient" && of == id).unwrap();
            let patient: serde_json::Value = serde_json::from_str(json).unwrap();
            patient["identifier"].as_array().unwrap().iter().find(|one| one["system"] == SYSTEM).unwrap()["value"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let lines: Vec<String> = named.iter().map(|id| if self.system.is_empty() { id.clone() } else { record_number(id) }).collect();
        std::fs::write(self.path(), lines.join("\n") + "\n" + further).unwrap();
        self.bench.listed = Some(named.to_vec());
    }
}

#[tokio::test]
async fn the_patients_of_a_list_are_pulled_and_nobody_else_and_who_leaves_it_is_let_go() {
    for system in ["", SYSTEM] {
        let mut site = Site::new(system).await;
        let everybody = site.everybody.clone();
        site.list(&everybody[..9], "");
        // Not by an export, though the server offers it.
        let first = site.bench.pull(Mode::Auto).await;
        first.is_the_truth();
        assert!(!first.requests.iter().any(|seen| seen.target.contains("$export")), "`{system}`");
        let is_named = |target: &str| ["patient=", "subject=", "identifier=", "Patient?_id="].iter().any(|part| target.contains(part));
        let named: Vec<&str> = first.requests.iter().map(|seen| seen.target.as_str()).filter(|target| is_named(target)).collect();
        assert_eq!(named, [""; 0], "patients stand in no address");

        site.list(&everybody[2..12], "");
        site.bench.hospital.amend_at(3, site.bench.clock.now());
        let next = site.bench.pull(Mode::Auto).await;
        next.is_the_truth();
        assert!(!next.outcome.full && next.outcome.removed > 0, "`{system}`: {:?}", next.outcome);
        assert_eq!(site.bench.pull(Mode::Auto).await.outcome.new_versions, 0, "`{system}`");
    }
}

#[tokio::test]
async fn who_is_named_and_not_there_is_a_gap_until_the_list_is_right() {
    let mut site = Site::new(SYSTEM).await;
    let some = site.everybody[..9].to_vec();
    site.list(&some, "nobody-has-this\n\n0");
    let pulled = site.bench.pull(Mode::Auto).await;
    assert!(pulled.differences.is_empty() && !pulled.outcome.complete, "{:?}", pulled.differences);
    let told: Vec<(Code, &str)> = pulled.outcome.gaps.iter().map(|gap| (gap.code, gap.reason.as_str())).collect();
    let expected = "by the identifiers of lines 10, 12 of the list a search does not find exactly one patient; meanwhile nobody is let go";
    assert_eq!(told, [(Code::Unfound, expected)]);
    site.list(&some, "");
    site.bench.pull(Mode::Auto).await.is_the_truth();

    let mut site = Site::new("").await;
    site.list(&some, "nobody-has-this\n");
    let pulled = site.bench.pull(Mode::Auto).await;
    assert!(pulled.differences.is_empty() && pulled.outcome.gaps.iter().any(|gap| gap.code == Code::Listed), "{:?}", pulled.outcome.gaps);

    // The same in a night of changes, of one who is new on the list.
    let mut site = Site::new("").await;
    site.list(&some, "");
    site.bench.pull(Mode::Auto).await.is_the_truth();
    site.list(&some, "nobody-has-this\n");
    let pulled = site.bench.pull(Mode::Auto).await;
    let told: Vec<(Code, &str)> = pulled.outcome.gaps.iter().map(|gap| (gap.code, gap.reason.as_str())).collect();
    assert_eq!((pulled.outcome.full, told.as_slice()), (false, &[(Code::Listed, "1 of the 10 patients of the list did not come")][..]));
    site.list(&some, "");
    site.bench.pull(Mode::Auto).await.is_the_truth();
}

const MEANWHILE: &str = "; meanwhile those are asked for whom the list named before, and nobody is let go";

/// Spoils a list.
type Spoil = fn(&Path);

/// Ways in which a list is spoilt, and what is told of it.
const SPOILT: [(Spoil, &str); 4] = [
    (|path| drop(std::fs::remove_file(path)), "`clinic.txt`, the list of patients, cannot be read: No such file or directory (os error 2)"),
    (|path| std::fs::write(path, "# all of them\n").unwrap(), "`clinic.txt` names no patient: one a line is expected"),
    (|path| std::fs::write(path, b"M\xFCller\n").unwrap(), "`clinic.txt`, the list of patients, cannot be read: it is no UTF-8; have it saved as UTF-8"),
    (
        |path| std::fs::write(path, "MRN;Name\n1;A\n2;B\n").unwrap(),
        "line 1 of `clinic.txt` looks like a heading: take it out, or let it begin with `#`; \
         lines 2, 3 of `clinic.txt` are not a patient's identifier alone, without quotes, commas or further columns",
    ),
];

#[tokio::test]
async fn a_list_that_cannot_be_read_counts_as_it_did_before() {
    let mut site = Site::new(SYSTEM).await;
    let (path, everybody) = (site.path(), site.everybody.clone());
    for (spoil, told) in SPOILT {
        spoil(&path);
        let Err(SourceError::Options(error)) = site.bench.try_pull(Mode::Auto).await else { panic!("nothing is stored, and it went on") };
        assert_eq!(error, told);
    }
    site.list(&everybody[..9], "");
    site.bench.pull(Mode::Auto).await.is_the_truth();
    for (seed, (spoil, told)) in SPOILT.into_iter().enumerate() {
        spoil(&path);
        site.bench.hospital.amend_at(seed as u64, site.bench.clock.now());
        let night = site.bench.pull(Mode::Auto).await;
        let gaps: Vec<(&str, Code, String)> = night.outcome.gaps.iter().map(|gap| (gap.resource_type.as_str(), gap.code, gap.reason.clone())).collect();
        assert_eq!(gaps, [("Patient", Code::WrongList, format!("{told}{MEANWHILE}"))]);
        assert!(!night.outcome.complete && !night.outcome.full && night.differences.is_empty(), "{:?}", night.differences);
    }
    site.list(&everybody[1..9], "");
    let night = site.bench.pull(Mode::Auto).await;
    night.is_the_truth();
    assert!(!night.outcome.full && night.outcome.removed > 0);
}

#[tokio::test]
async fn a_list_that_is_spoilt_while_a_pull_lasts_counts_as_that_pull_read_it() {
    let mut site = Site::new("").await;
    let everybody = site.everybody.clone();
    (site.bench.options.page_size, site.bench.options.tuning.patients_per_query) = (10, 5);
    site.list(&everybody[..9], "");
    site.bench.pull(Mode::Auto).await.is_the_truth();
    // Some leave and some come, of whom a part is read in the first night.
    site.list(&everybody[3..16], "");
    site.bench.options.requests_per_night = 30;
    assert!(matches!(site.bench.try_pull(Mode::Auto).await, Err(SourceError::Unfinished { .. })));
    std::fs::remove_file(site.path()).unwrap();
    site.bench.options.requests_per_night = 0;
    let night = site.bench.pull(Mode::Auto).await;
    assert!(night.has_gap(MEANWHILE) && night.missing_or_changed().is_empty(), "{:?} {:?}", night.outcome.gaps, night.missing_or_changed());
    site.list(&everybody[3..16], "");
    site.bench.pull(Mode::Auto).await.is_the_truth();
}

/// A site of a small server, whose list names patients by these numbers.
async fn small(flaw: Flaw, folder: &tempfile::TempDir, group: &str) -> flawed::Site {
    let mut site = flawed::Site::of(flaw, group).await;
    site.options.tuning.patients = group.is_empty().then(|| List { path: folder.path().join("clinic.txt"), system: "urn:mrn".to_owned() });
    site
}

fn name(folder: &tempfile::TempDir, numbers: impl Iterator<Item = usize>) {
    std::fs::write(folder.path().join("clinic.txt"), numbers.map(|number| format!("m{number}\n")).collect::<String>()).unwrap();
}

#[tokio::test]
async fn who_was_found_once_stays_and_others_leave() {
    let folder = tempfile::tempdir().unwrap();
    let site = small(Flaw::default(), &folder, "").await;
    name(&folder, 0..10);
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts), ("", of(10)));
    // Two have another identifier now, and the first one is taken off the list.
    site.becomes(|flaw| flaw.alike = 8);
    name(&folder, 1..10);
    let lost = "Patient: by the identifiers of lines 8, 9 of the list a search does not find exactly one patient any more; whom each named before stays\n";
    for removed in [4, 0] {
        let (outcome, counts) = site.pull(&[]).await;
        assert_eq!((reasons(&outcome).as_str(), counts, outcome.removed, outcome.complete), (lost, of(9), removed, false));
    }
    // Somebody who was never found may be anybody of those who are stored.
    name(&folder, (2..10).chain([99]));
    let (outcome, counts) = site.pull(&[]).await;
    let lost = lost.replace("8, 9", "7, 8");
    let unfound = "Patient: by the identifiers of line 9 of the list a search does not find exactly one patient; meanwhile nobody is let go\n";
    assert_eq!((reasons(&outcome), counts, outcome.removed), (lost + unfound, of(9), 0));
    site.becomes(|flaw| flaw.alike = 0);
    name(&folder, 2..10);
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), counts, outcome.removed), ("", of(8), 4));
}

#[tokio::test]
async fn identifiers_are_asked_for_once_however_many_nights_a_pull_takes() {
    let folder = tempfile::tempdir().unwrap();
    name(&folder, (0..PATIENTS).chain([99]));
    let unfound = "Patient: by the identifiers of line 31 of the list a search does not find exactly one patient; meanwhile nobody is let go\n";
    for (group, told, questions) in [("", unfound, PATIENTS + 1), ("g", "", PATIENTS)] {
        // No list of them is heeded.
        let mut site = small(Flaw { heeded: 1, by_identifier: PATIENTS, ..Flaw::default() }, &folder, group).await;
        site.options.requests_per_night = 20;
        let mut nights = 1;
        let (outcome, counts) = loop {
            match site.try_pull(&[]).await {
                Ok(pulled) => break pulled,
                Err(SourceError::Unfinished { .. }) => nights += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(nights < 40, "it does not end");
        };
        assert_eq!((reasons(&outcome).as_str(), counts), (told, all()), "`{group}`");
        let asked = site
            .server
            .heard()
            .into_iter()
            .filter_map(|heard| heard.field("identifier"))
            .filter(|asked| !asked.contains(','))
            .count();
        assert!(nights > 3 && asked == questions, "`{group}`: {asked} questions in {nights} nights");
    }
}

/// Of a server that does not count, so that a reading of changes alone tells nothing of who is gone.
#[tokio::test]
async fn who_did_not_come_when_everything_was_read_is_missing_until_he_comes_or_is_named_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let site = async |flaw: Flaw| {
        let mut site = small(flaw, &folder, "").await;
        site.options.tuning.patients.as_mut().unwrap().system = String::new();
        site
    };
    let list =
        |numbers: &mut dyn Iterator<Item = usize>| std::fs::write(folder.path().join("clinic.txt"), numbers.map(|number| format!("p{number}\n")).collect::<String>()).unwrap();
    let missing = "Patient: 1 of the 10 patients of the list did not come\n";
    for is_there_again in [true, false] {
        list(&mut (0..10));
        let mut site = site(Flaw { uncounted: true, ..Flaw::default() }).await;
        assert_eq!(reasons(&site.pull(&[]).await.0), "");
        site.becomes(|flaw| flaw.hidden = "p9");
        for (full_every_days, is_full) in [(0, true), (7, false), (7, false)] {
            site.options.tuning.full_every_days = full_every_days;
            let (outcome, _) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), outcome.full), (missing, is_full));
        }
        match is_there_again {
            true => site.becomes(|flaw| flaw.hidden = ""),
            false => list(&mut (0..9)),
        }
        for _ in 0..2 {
            let (outcome, counts) = site.pull(&[]).await;
            assert_eq!((reasons(&outcome).as_str(), outcome.full, counts), ("", false, of(if is_there_again { 10 } else { 9 })));
        }
    }
    // Who was never there, and is taken off.
    list(&mut (0..9).chain([99]));
    let site = site(Flaw::default()).await;
    assert_eq!(reasons(&site.pull(&[]).await.0), missing);
    list(&mut (0..9));
    let (outcome, counts) = site.pull(&[]).await;
    assert_eq!((reasons(&outcome).as_str(), outcome.full, counts), ("", false, of(9)));
}
