//! A cohort that a list of the site's own names.

use super::bench::Bench;
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
        std::fs::write(self.folder.path().join("clinic.txt"), lines.join("\n") + "\n" + further).unwrap();
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

    // What cannot be read ends the night, and lets go of nobody.
    std::fs::write(site.folder.path().join("clinic.txt"), "# all of them\n").unwrap();
    let Err(SourceError::Options(error)) = site.bench.try_pull(Mode::Auto).await else { panic!("it went on") };
    assert_eq!(error, "`clinic.txt` names no patient: one a line is expected");
}
