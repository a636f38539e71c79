//! A site whose data are files that other tools drop: whole nights, and what files can be.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

use watershed::http::SystemClock;
use watershed::snapshot::{Key, Snapshot};
use watershed::source::{Need, Options, PullOutcome, Silent, Source, SourceError, plan, pull};
use watershed::store::{Store, quarantine};

use crate::bed::{Bed, Wanted, output};

mod dropped;
mod judged;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_night_of_files_gives_the_bytes_of_a_night_by_search_and_the_next_one_sends_nothing() {
    let wanted = Wanted { mode: "search", limit: u64::MAX, patients: 40, ..Wanted::default() };
    let (by_search, of_files) = (Bed::make(wanted.clone()).await, Bed::make(Wanted { of_files: true, ..wanted }).await);
    let (code, said) = by_search.run().await;
    assert_eq!(code, 0, "{said}");
    for night in 1..=2 {
        let (code, said) = of_files.run().await;
        assert_eq!(code, 0, "night {night}: {said}");
        assert_eq!(of_files.registry().current, by_search.registry().current, "night {night}");
        assert_eq!((of_files.registry().feeds, of_files.outbox().len()), (1, 1), "night {night}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_the_dry_run_say_what_is_in_the_folder() {
    let bed = Bed::make(Wanted { limit: u64::MAX, patients: 40, of_files: true, ..Wanted::default() }).await;
    let drop = bed.folder.path().join("drop");
    let say = async |arguments: &[&str]| {
        let output = output(bed.command(arguments)).await;
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    std::fs::write(drop.join("Claim.ndjson"), "{}\n").unwrap();
    let (code, said) = say(&["check"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("folder: is there") && said.contains("        40 Patient"), "{said}");
    let (code, said) = say(&["pull", "--dry-run"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Observation.ndjson") && said.contains("nothing was read") && !said.contains("Claim"), "{said}");
    std::fs::rename(drop.join("Encounter.ndjson"), drop.join("Encounter.ndjson.part")).unwrap();
    std::fs::remove_file(drop.join("Condition.ndjson")).unwrap();
    let (code, said) = say(&["check"]).await;
    assert_eq!(code, 1, "{said}");
    for expected in ["Encounter.ndjson.part: it is being written", "Condition: no file holds any; if there is none, an empty file `Condition.ndjson` says so"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let (code, said) = say(&["run", "--once", "--as-of", crate::bed::AS_OF]).await;
    assert_eq!(code, 1, "partial: {said}");
    let (_, said) = say(&["status"]).await;
    assert!(said.contains("Encounter.ndjson.part") && said.contains("site engineer"), "{said}");
    std::fs::remove_dir_all(&drop).unwrap();
    std::fs::create_dir(&drop).unwrap();
    let (code, said) = say(&["pull"]).await;
    assert!(code > 1 && said.contains("it holds no data"), "{code} {said}");
    std::fs::remove_dir_all(&drop).unwrap();
    let (code, said) = say(&["pull"]).await;
    assert!(code > 1 && said.contains("`drop` does not exist"), "{code} {said}");
}

/// A hospital that writes a space where FHIR has a T, or a capital: every command says so, and no report of it is called complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dates_that_cannot_be_read_are_told_by_every_command_and_reports_are_partial() {
    let bed = Bed::make(Wanted { limit: u64::MAX, patients: 10, of_files: true, ..Wanted::default() }).await;
    let file = bed.folder.path().join("drop/Encounter.ndjson");
    let text = std::fs::read_to_string(&file).unwrap();
    let spaced: String = text
        .split_inclusive("\"start\":\"")
        .map(|part| if part.as_bytes().get(10) == Some(&b'T') { part.replacen('T', " ", 1) } else { part.to_owned() })
        .collect();
    assert_ne!(spaced, text);
    std::fs::write(&file, spaced).unwrap();
    let say = async |arguments: &[&str]| {
        let output = output(bed.command(arguments)).await;
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    for command in [&["pull"][..], &["run", "--once", "--as-of", crate::bed::AS_OF]] {
        let (code, said) = say(command).await;
        assert!(
            code == 1 && said.contains("`Encounter.period.start` of 10 patients cannot be read: what it says is not known, and reports that ask for it are partial"),
            "{command:?}: {said}"
        );
    }
    let (_, said) = say(&["status"]).await;
    assert!(said.contains("unreadable-value") && said.contains("Encounter.period.start") && said.contains("of patients who may be in an initial population"), "{said}");
    let (code, said) = say(&["known"]).await;
    assert!(code == 1 && ["partial", "initial-population", "unreadable-value", "1 of 1 finding"].iter().all(|part| said.contains(part)), "{said}");
    assert_eq!(said.matches("1 of 1 finding").count(), 1, "once: {said}");

    let other = text.replace("\"status\":\"finished\"", "\"status\":\"Finished\"");
    assert_ne!(other, text);
    std::fs::write(&file, other).unwrap();
    let (code, said) = say(&["pull"]).await;
    assert!(code == 1 && said.contains("`Encounter.status` of 10 patients cannot be read (it is no code of FHIR's; `finished` is near)"), "{said}");
}

/// A number that neither a unit rule nor a measure can read is one finding, by its observation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_unit_rule_cannot_read_is_told_once() {
    let bed = Bed::make(Wanted { limit: u64::MAX, patients: 40, of_files: true, ..Wanted::default() }).await;
    let at = |name: &str| bed.folder.path().join(name);
    let text = std::fs::read_to_string(at("drop/Observation.ndjson")).unwrap();
    let spoilt = |line: &str| match line.split_once("\"value\":").filter(|_| line.contains("\"11884-4\"") && line.contains("\"code\":\"d\"")) {
        Some((before, after)) => format!("{before}\"value\":\"n/a\"{}\n", after.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == '.')),
        None => format!("{line}\n"),
    };
    let other: String = text.lines().map(spoilt).collect();
    assert!(other.contains("\"n/a\""), "there are estimates in days");
    std::fs::write(at("drop/Observation.ndjson"), other).unwrap();
    let rule = "{observation: {system: http://loinc.org, code: 11884-4}, from: d, to: wk}";
    std::fs::write(at("mapping.yaml"), format!("name: ours\nversion: 1.0.0\nunits:\n  - {rule}\n")).unwrap();
    let site = std::fs::read_to_string(at("site.toml")).unwrap();
    std::fs::write(at("site.toml"), format!("{site}[mapping]\nfile = \"mapping.yaml\"\n")).unwrap();
    bed.run().await;
    let status = output(bed.command(&["status"])).await;
    let told = String::from_utf8(status.stdout).unwrap();
    assert!(told.matches("unreadable-value").count() == 1 && told.contains("11884-4"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_source() {
    let bed = Bed::make(Wanted { limit: u64::MAX, patients: 1, of_files: true, ..Wanted::default() }).await;
    let path = bed.folder.path().join("site.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let wrong = [
        ("folder = \"drop\"\nurl = \"https://ehr.example.org\"", "`source.url` and `source.folder` are both set"),
        ("folder = \"drop\"\ngroup = \"g1\"", "`source.group` is set beside `source.folder`"),
        ("", "`source.url` is required"),
        ("folder = \"drop\"\noff_hours = \"8\"", "`8` is no span of a day"),
    ];
    for (source, expected) in wrong {
        std::fs::write(&path, text.replace("folder = \"drop\"", source)).unwrap();
        let said = output(bed.command(&["check", "--offline"])).await;
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// A folder of files, and a place to pull them into.
struct Yard {
    drop: tempfile::TempDir,
    data: tempfile::TempDir,
    store: Arc<Store>,
    key: Key,
}

impl Yard {
    /// Three patients with a visit and an observation each, at one location.
    fn new() -> Yard {
        let yard = Yard {
            drop: tempfile::tempdir().unwrap(),
            data: tempfile::tempdir().unwrap(),
            store: Arc::new(Store::open_in_memory().unwrap()),
            key: Key::generate().unwrap(),
        };
        for (name, lines) in whole() {
            yard.write(name, lines);
        }
        yard
    }

    fn path(&self, name: &str) -> PathBuf {
        self.drop.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), content).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::open(self.data.path(), Arc::clone(&self.store), self.key.clone(), 4).unwrap()
    }

    async fn try_pull(&self, options: Options) -> Result<PullOutcome, SourceError> {
        self.try_pull_of(&["Encounter", "Observation", "Location"].map(Need::all), options).await
    }

    async fn try_pull_of(&self, needs: &[Need], mut options: Options) -> Result<PullOutcome, SourceError> {
        options.tuning.folder = Some(self.drop.path().to_owned());
        let source = Source::connect(&options, None, &Default::default(), Arc::new(SystemClock)).await?;
        let plan = plan(needs, &source.capability, &options);
        pull(&source, &plan, &self.snapshot(), &SystemClock, &Silent).await
    }

    async fn pull(&self) -> PullOutcome {
        self.try_pull(Options::default()).await.unwrap()
    }

    /// A steward looks at all that is held and wants none of it.
    fn discard_all(&self) {
        let discard = |connection: &mut rusqlite::Connection| {
            let held = quarantine::list(connection, Some(quarantine::State::Held))?;
            held.iter().try_for_each(|item| quarantine::decide(connection, item.id, quarantine::State::Discarded))
        };
        self.store.with(discard).unwrap();
    }

    fn digest(&self) -> String {
        self.snapshot().digest().unwrap()
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.snapshot().counts().unwrap()
    }
}

fn patients() -> String {
    (1..=3).map(|n| format!("{{\"resourceType\":\"Patient\",\"id\":\"p{n}\"}}\n")).collect()
}

fn visits() -> String {
    let visit = |n| format!(r#"{{"resourceType":"Encounter","id":"e{n}","subject":{{"reference":"Patient/p{n}"}},"location":[{{"location":{{"reference":"Location/l1"}}}}]}}"#);
    (1..=3).map(|n| visit(n) + "\n").collect()
}

fn observations() -> String {
    let observation = |n| format!(r#"{{"resourceType":"Observation","id":"o{n}","subject":{{"reference":"Patient/p{n}"}},"valueInteger":{n}}}"#);
    (1..=3).map(|n| observation(n) + "\n").collect()
}

const LOCATION: &str = "{\"resourceType\":\"Location\",\"id\":\"l1\"}\n";

fn whole() -> [(&'static str, String); 4] {
    [("Patient.ndjson", patients()), ("Encounter.ndjson", visits()), ("Observation.ndjson", observations()), ("Location.ndjson", LOCATION.to_owned())]
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).unwrap()
}

fn bundle(lines: &str) -> String {
    let entries: Vec<String> = lines.lines().map(|line| format!("{{\"resource\": {line}}}")).collect();
    format!("{{\n \"resourceType\": \"Bundle\", \"type\": \"collection\",\n \"entry\": [{}]\n}}\n", entries.join(",\n"))
}

fn cut(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 7);
    bytes
}

#[tokio::test]
async fn it_does_not_matter_how_the_files_are_cut_wrapped_and_compressed() {
    let plain = Yard::new();
    let outcome = plain.pull().await;
    assert!(outcome.complete && outcome.full, "{:?}", outcome.gaps);
    assert_eq!(
        outcome.received,
        [("Encounter", 3), ("Location", 1), ("Observation", 3), ("Patient", 3)]
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    );
    let first_two = patients().lines().take(2).collect::<Vec<_>>().join("\n");
    let third = patients().lines().skip(2).collect::<String>();
    let everything = whole().map(|(_, lines)| lines).concat();
    type Files<'a> = Vec<(&'a str, Vec<u8>)>;
    let forms: [(&str, Files<'_>); 4] = [
        (
            "compressed",
            vec![
                ("Patient.ndjson.gz", gzip(&patients())),
                ("Encounter.ndjson.zst", zstd(&visits())),
                ("Observation.ndjson.gz", [gzip(&observations()[..40]), gzip(&observations()[40..])].concat()),
                ("Location.jsonl", LOCATION.into()),
            ],
        ),
        (
            "in folders, in parts, without a last line's end",
            vec![
                ("2026-03-02/Patient.000.ndjson", first_two.into()),
                ("2026-03-02/Patient.001.ndjson", third.into()),
                ("a/Encounter.ndjson", format!("\u{feff}{}", visits().replace('\n', "\r\n\r\n")).into()),
                ("b/Observation.ndjson", observations().into()),
                ("Location.json", LOCATION.into()),
            ],
        ),
        ("one Bundle", vec![("Bundle.json", bundle(&everything).into())]),
        (
            "Bundles in a line, and beside other tools' files",
            vec![
                ("all.ndjson.gz", gzip(&bundle(&everything).replace('\n', " "))),
                ("log.ndjson", b"{\"eventId\":\"kickoff\"}\n".into()),
                ("manifest.json", b"{}".into()),
                ("README.txt", b"x".into()),
                (".snapshot/Patient.ndjson", b"{".into()),
            ],
        ),
    ];
    for (form, files) in forms {
        let yard = Yard::new();
        whole().iter().for_each(|(name, _)| yard.remove(name));
        files.iter().for_each(|(name, content)| yard.write(name, content));
        let found = yard.pull().await;
        assert!(found.complete, "{form}: {:?}, {} in quarantine", found.gaps, found.quarantined);
        assert_eq!((yard.digest(), yard.counts()), (plain.digest(), plain.counts()), "{form}");
        let received: BTreeMap<String, u64> = found.received.into_iter().filter(|(name, _)| name != "*").collect();
        assert_eq!(received, outcome.received, "{form}");
        let second = yard.pull().await;
        assert!(!second.full && second.complete && second.new_versions + second.removed == 0, "{form}: {second:?}");
    }
}

#[tokio::test]
async fn what_changed_is_read_again_and_what_is_gone_goes() {
    let yard = Yard::new();
    yard.pull().await;
    let digest = yard.digest();
    for _ in 0..2 {
        let same = yard.pull().await;
        assert_eq!((same.full, same.complete, same.new_versions, same.removed), (false, true, 0, 0));
    }
    yard.write("Observation.ndjson", observations().replace("\"valueInteger\":2", "\"valueInteger\":7"));
    let changed = yard.pull().await;
    assert_eq!((changed.full, changed.complete, changed.new_versions, changed.removed), (true, true, 1, 0));
    assert_ne!(yard.digest(), digest);
    yard.write("Observation.ndjson", observations().lines().take(2).collect::<Vec<_>>().join("\n"));
    let fewer = yard.pull().await;
    assert_eq!((fewer.complete, fewer.new_versions, fewer.removed), (true, 1, 1));
    // A missing file may be a tool's mistake, an empty one is a word.
    yard.remove("Observation.ndjson");
    let missing = yard.pull().await;
    assert_eq!((missing.complete, missing.removed), (false, 0));
    assert!(missing.gaps[0].reason.contains("an empty file `Observation.ndjson` says so"), "{:?}", missing.gaps);
    assert_eq!(yard.counts()["Observation"], 2);
    yard.write("Observation.ndjson", "");
    let none = yard.pull().await;
    assert_eq!((none.complete, none.removed), (true, 2), "{:?}", none.gaps);
    yard.remove("Location.ndjson");
    let unknown = yard.pull().await;
    assert_eq!((unknown.complete, unknown.gaps.len(), unknown.gaps[0].resource_type.as_str()), (false, 1, "Location"), "visits refer to one");
    let moved = yard.pull().await;
    assert!(moved.full, "what is not complete is read again");
    yard.write("Encounter.ndjson", visits().replace("Location/l1", "Organization/l1"));
    assert!(yard.pull().await.complete, "nothing refers to a Location");
    assert_eq!(yard.counts().get("Location"), None);
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_a_gap_and_nothing_of_its_type_is_let_go() {
    let text = observations();
    // Its first two lines and a half.
    let half = &text[..text.len() - 30];
    type Files<'a> = Vec<(&'a str, Vec<u8>)>;
    let utf_16 = |text: &str| -> Vec<u8> { std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect() };
    let cases: Vec<(&str, Files<'_>, &str, &str)> = vec![
        ("UTF-16", vec![("Observation.ndjson", utf_16(&text))], "Observation", "it is UTF-16; have it written in UTF-8"),
        ("UTF-16 Bundle", vec![("Observation.json", utf_16(&bundle(&text)))], "Observation", "it is UTF-16; have it written in UTF-8"),
        ("cut", vec![("Observation.ndjson", half.into())], "Observation", "it ends in the middle of a line"),
        ("cut gzip", vec![("Observation.ndjson.gz", cut(gzip(&text)))], "Observation", "its compression has no end"),
        ("cut zstd", vec![("Observation.ndjson.zst", cut(zstd(&text)))], "Observation", "its compression has no end"),
        ("no gzip", vec![("Observation.ndjson.gz", text.clone().into())], "Observation", "its compression is broken"),
        ("empty gzip", vec![("Observation.ndjson.gz", Vec::new())], "Observation", "cut short"),
        ("cut Bundle", vec![("Observation.json", bundle(&text)[..200].into())], "Observation", "cut short, or no JSON"),
        (
            "half, and beside it what is written",
            vec![("Observation.000.ndjson", text[..90].into()), (".Observation.001.ndjson.X7ab", "{".into())],
            "Observation",
            "being written",
        ),
        ("part", vec![("Observation.ndjson.filepart", text.clone().into())], "Observation", "being written"),
        ("nameless", vec![("observations.tmp", text.clone().into())], "*", "being written"),
        ("ending", vec![("Observation.000.ndjson.bz2", text.clone().into())], "Observation", "its ending is not known"),
        (
            "complaint",
            vec![(
                "Observation.ndjson",
                format!("{}\n{}", text.lines().next().unwrap(), r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"exception"}]}"#).into(),
            )],
            "Observation",
            "reports an error (exception)",
        ),
    ];
    for (case, files, resource_type, reason) in cases {
        let yard = Yard::new();
        yard.pull().await;
        let digest = yard.digest();
        yard.remove("Observation.ndjson");
        files.iter().for_each(|(name, content)| yard.write(name, content));
        let found = yard.pull().await;
        assert!(!found.complete && found.removed == 0, "{case}: {found:?}");
        assert!(found.gaps.iter().any(|gap| gap.resource_type == resource_type && gap.reason.contains(reason)), "{case}: {:?}", found.gaps);
        assert_eq!((yard.digest(), found.quarantined), (digest.clone(), 0), "{case}");
        files.iter().for_each(|(name, _)| yard.remove(name));
        yard.write("Observation.ndjson", &text);
        let repaired = yard.pull().await;
        assert!(repaired.complete && yard.digest() == digest, "{case}: {:?}", repaired.gaps);
    }
}

#[tokio::test]
async fn a_bundle_says_what_is_deleted_and_calls_patients_by_aliases() {
    let yard = Yard::new();
    yard.pull().await;
    yard.write("Observation.ndjson", observations().lines().take(2).collect::<Vec<_>>().join("\n"));
    let transaction = r#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"request":{"method":"DELETE","url":"Observation/o3"}},
        {"fullUrl":"urn:uuid:6f0d3f0e-0001-4c57-9d2a-0c5b0e3a0001","resource":{"resourceType":"Patient","id":"p9"}},
        {"resource":{"resourceType":"Observation","id":"o9","subject":{"reference":"urn:uuid:6f0d3f0e-0001-4c57-9d2a-0c5b0e3a0001"}}}]}"#;
    yard.write("changes/0001.json", transaction);
    let found = yard.pull().await;
    assert_eq!((found.complete, found.new_versions, found.removed), (true, 2, 1), "{:?}", found.gaps);
    let snapshot = yard.snapshot();
    let of_patient = snapshot.patients(snapshot.partition_of("p9"), None).unwrap();
    assert!(of_patient.iter().any(|patient| patient.patient_id == "p9" && patient.lines.len() == 2));
}

/// As Synthea writes a patient: a transaction whose entries are called by `urn:uuid:`, in references too.
fn called_by_urn(lines: &str) -> String {
    let urn = |name: &str| format!("urn:uuid:{:0<8}-0000-4000-8000-000000000000", name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    let entry = |line: &str| {
        let id = line.split_once("\"id\":\"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
        format!(r#"{{"fullUrl":"{}","resource":{line},"request":{{"method":"POST"}}}}"#, urn(id))
    };
    let mut entries: Vec<String> = lines.lines().map(entry).collect();
    for (target, id) in [("Patient/p1", "p1"), ("Patient/p2", "p2"), ("Patient/p3", "p3"), ("Location/l1", "l1")] {
        entries.iter_mut().for_each(|entry| *entry = entry.replace(target, &urn(id)));
    }
    format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(","))
}

#[tokio::test]
async fn what_a_bundle_calls_its_entries_by_is_stored_as_what_it_means() {
    let plain = Yard::new();
    assert!(plain.pull().await.complete);
    let text = called_by_urn(&whole().map(|(_, lines)| lines).concat());
    assert!(!text.contains("Patient/p1") && !text.contains("Location/l1"), "{text}");
    for (name, content) in [("one.json", text.clone()), ("two.ndjson", text)] {
        let yard = Yard::new();
        whole().iter().for_each(|(name, _)| yard.remove(name));
        yard.write(name, content);
        let found = yard.pull().await;
        assert!(found.complete, "{name}: {:?}", found.gaps);
        assert_eq!((yard.digest(), yard.counts()), (plain.digest(), plain.counts()), "{name}");
    }
}

/// A rule of the mapping is lost, and no file has changed.
#[tokio::test]
async fn whether_anything_has_a_code_that_is_asked_for_is_another_question_when_others_are_asked_for() {
    let yard = Yard::new();
    let line =
        |n: u32| format!(r#"{{"resourceType":"Observation","id":"m{n}","code":{{"coding":[{{"system":"http://local","code":"lda"}}]}},"subject":{{"reference":"Patient/p1"}}}}"#);
    yard.write("Observation.ndjson", (0..40).map(|n| line(n) + "\n").collect::<String>());
    let of = |codes: &[&str]| {
        let tokens: std::collections::BTreeSet<String> = codes.iter().map(|code| (*code).to_owned()).collect();
        [Need { codes: tokens.clone(), elsewhere: tokens, ..Need::all("Observation") }]
    };
    let (with, without) = (of(&["http://loinc.org|1", "http://local|lda"]), of(&["http://loinc.org|1"]));
    let pull = async |needs: &[Need]| yard.try_pull_of(needs, Options::default()).await.unwrap();
    let (first, same) = (pull(&with).await, pull(&with).await);
    assert_eq!((first.complete, same.complete, same.full), (true, true, false), "{:?}", first.gaps);
    for night in 1..=2 {
        let lost = pull(&without).await;
        let reason = lost.gaps.first().map(|gap| gap.reason.as_str());
        assert_eq!((lost.complete, lost.removed, reason), (false, 0, Some("none of the 40 has a code that the measures ask for")), "night {night}");
    }
    let again = pull(&with).await;
    assert!(again.complete && !pull(&with).await.full, "{:?}", again.gaps);
}

#[tokio::test]
async fn a_sudden_loss_is_not_believed_until_a_person_does() {
    let yard = Yard::new();
    let many: String = (0..60)
        .map(|n| format!("{{\"resourceType\":\"Observation\",\"id\":\"m{n}\",\"subject\":{{\"reference\":\"Patient/p1\"}}}}\n"))
        .collect();
    yard.write("Observation.ndjson", many);
    assert!(yard.pull().await.complete);
    yard.write("Observation.ndjson", observations());
    let lost = yard.pull().await;
    assert!(!lost.complete && lost.removed == 0 && lost.gaps[0].reason.contains("--accept-loss"), "{:?}", lost.gaps);
    let mut options = Options::default();
    options.tuning.accepts_loss = true;
    assert_eq!(yard.try_pull(options).await.unwrap().removed, 60);
    let known = yard.pull().await;
    assert!(known.complete && !known.full);
    let mut weekly = Options::default();
    weekly.tuning.full_every_days = 0;
    assert!(yard.try_pull(weekly).await.unwrap().full, "now and then everything is read all the same");
}

/// Dropped at each place where it can be, and gone on with after a file has changed.
#[tokio::test]
async fn an_interrupted_reading_is_gone_on_with_as_the_files_are_then() {
    let expected = Yard::new();
    expected.write("Observation.ndjson", observations().replace("\"valueInteger\":2", "\"valueInteger\":7"));
    expected.pull().await;
    let mut interrupted = 0;
    for polls in 1..200 {
        let yard = Yard::new();
        let mut left = polls;
        let mut reading = std::pin::pin!(yard.pull());
        let done = std::future::poll_fn(|context| {
            left -= 1;
            match reading.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if left == 0 => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        if done.await {
            break;
        }
        interrupted += 1;
        yard.write("Observation.ndjson", observations().replace("\"valueInteger\":2", "\"valueInteger\":7"));
        let resumed = yard.pull().await;
        assert!(resumed.complete && resumed.full, "{polls}: {:?}", resumed.gaps);
        assert_eq!(
            (yard.digest(), resumed.received),
            (
                expected.digest(),
                [("Encounter", 3), ("Location", 1), ("Observation", 3), ("Patient", 3)]
                    .map(|(name, count)| (name.to_owned(), count))
                    .into()
            ),
            "{polls}"
        );
    }
    assert!(interrupted >= 6, "{interrupted} places");
}

#[tokio::test]
async fn a_file_that_is_written_while_it_is_read_is_a_gap() {
    let yard = Yard::new();
    let mut grown = false;
    let mut reading = std::pin::pin!(yard.pull());
    let mut polls = 0;
    let outcome = std::future::poll_fn(|context| {
        polls += 1;
        if polls == 3 {
            // Whole lines, so that only its time and size tell.
            append(&yard.path("Patient.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"p4\"}\n");
            std::fs::write(yard.path("Observation.1.ndjson"), "").unwrap();
            grown = true;
        }
        reading.as_mut().poll(context)
    })
    .await;
    assert!(grown && !outcome.complete);
    let types: Vec<&str> = outcome.gaps.iter().map(|gap| gap.resource_type.as_str()).collect();
    assert_eq!(types, ["Observation", "Patient"], "{:?}", outcome.gaps);
    assert!(outcome.gaps.iter().all(|gap| gap.reason.contains("it changed while the folder was read")), "{:?}", outcome.gaps);
    assert!(yard.pull().await.complete);
    assert_eq!(yard.counts()["Patient"], 4);
}

fn append(path: &Path, text: &str) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A page of a search for observations, as it was saved.
fn page(own: u32, next: Option<u32>, total: u64, lines: &str) -> String {
    let link = |relation: &str, page: u32| format!(r#"{{"relation":"{relation}","url":"http://ehr.example.org/Observation?page={page}"}}"#);
    let links = [Some(link("self", own)), next.map(|next| link("next", next))].into_iter().flatten().collect::<Vec<_>>().join(",");
    let entries: Vec<String> = lines.lines().map(|line| format!("{{\"resource\":{line}}}")).collect();
    format!(r#"{{"resourceType":"Bundle","type":"searchset","total":{total},"link":[{links}],"entry":[{}]}}"#, entries.join(","))
}

/// The gap and what is due, of a pull of these files in the place of all observations, after one of all of them.
async fn in_place(files: &[(&str, String)]) -> (bool, Vec<(String, String)>) {
    let yard = Yard::new();
    yard.pull().await;
    yard.remove("Observation.ndjson");
    files.iter().for_each(|(name, content)| yard.write(name, content));
    let found = yard.pull().await;
    assert_eq!(found.complete, found.gaps.is_empty() && found.quarantined == 0);
    assert!(found.complete || found.removed == 0, "{files:?}");
    (found.complete, found.gaps.iter().map(|gap| (gap.resource_type.clone(), gap.reason.clone())).collect())
}

#[tokio::test]
async fn what_files_announce_and_is_not_there_is_a_gap() {
    let lines = observations();
    let (two, third) = (lines.lines().take(2).collect::<Vec<_>>().join("\n"), lines.lines().last().unwrap().to_owned());
    let manifest = |count: u64, more: &str| {
        let output =
            format!(r#"{{"type":"Observation","url":"http://e.org/f/1.Observation.ndjson","count":{count}}},{{"type":"Claim","url":"http://e.org/f/2.Claim.ndjson","count":9}}"#);
        format!(r#"{{"transactionTime":"2026-03-01T00:00:00Z","output":[{output}]{more}}}"#)
    };
    let nested = format!(r#"{{"resourceType":"Bundle","type":"batch-response","entry":[{{"resource":{}}}]}}"#, page(1, None, 3, &lines));
    let files = |files: &[(&'static str, &str)]| files.iter().map(|(name, content)| (*name, (*content).to_owned())).collect::<Vec<_>>();
    let whole = [
        files(&[("1.json", &page(1, Some(2), 3, &two)), ("2.json", &page(2, None, 3, &third))]),
        files(&[("all.ndjson", &format!("{}\n{}\n", page(2, None, 3, &third), page(1, Some(2), 3, &two)))]),
        // Saved twice; and called otherwise in the link than in the page.
        files(&[("1.json", &page(1, Some(2), 3, &two)), ("2.json", &page(2, None, 3, &third)), ("3.json", &page(1, Some(2), 3, &two))]),
        files(&[("1.json", &page(1, Some(7), 3, &two)), ("2.json", &page(2, None, 3, &third))]),
        files(&[("1.json", &nested)]),
        files(&[("1.json", &nested.replace(r#""entry":[{"resource":{"resourceType":"Bundle""#, r#""entry":[{"response":{"status":"404"}},{"resource":{"resourceType":"Bundle""#))]),
        files(&[("manifest.json", &manifest(3, r#","error":[]"#)), ("1.Observation.ndjson", &lines)]),
        files(&[("manifest.json", &manifest(3, "")), ("Observation.000.ndjson", &lines)]),
        files(&[("manifest.json", "{}"), ("Observation.000.ndjson", &lines)]),
        files(&[("Observation.001.ndjson", &lines), ("Observation.002.ndjson", "")]),
        files(&[("2.Observation.ndjson", &two), ("5.Observation.ndjson", &third), ("1.Claim.ndjson", "")]),
        files(&[("Observation.2026-03-02.ndjson", &two), ("Observation.2026-03-05.ndjson", &third)]),
    ];
    for files in whole {
        let (complete, gaps) = in_place(&files).await;
        assert!(complete, "{files:?}: {gaps:?}");
    }
    let next = "a page of a search that has a next one, which is not among the files";
    let failed = format!(r#"{{"resourceType":"Bundle","entry":[{{"resource":{third}}},{{"response":{{"status":"403 Forbidden"}}}}]}}"#);
    let partial = [
        (files(&[("1.json", &page(1, Some(2), 3, &two))]), "Observation", next),
        (files(&[("1.json", &page(1, None, 3, &two))]), "Observation", "a search that found 3, of which 2 are here"),
        (files(&[("1.json", &page(1, None, 3, ""))]), "Observation", "a search that found 3, of which 0 are here"),
        (files(&[("all.ndjson", &page(1, Some(2), 9, &two)), ("2.json", &page(2, None, 9, &third))]), "Observation", "found 9, of which 3 are here"),
        // Two searches of which each has one page of two.
        (files(&[("1.json", &page(1, Some(2), 3, &two)), ("2.json", &page(3, Some(4), 3, &third))]), "Observation", next),
        (files(&[("1.json", &nested.replace("\"total\":3", "\"total\":4"))]), "Observation", "found 4, of which 3 are here"),
        (files(&[("1.json", &failed)]), "*", "an entry says 403: what was asked for did not come"),
        (
            files(&[("manifest.json", &manifest(3, "")), ("Observation.000.ndjson", &two)]),
            "Observation",
            "manifest.json: the manifest announces 3 of Observation, and its files hold 2",
        ),
        (
            files(&[("out/manifest.json", &manifest(3, "")), ("Observation.000.ndjson", &lines)]),
            "Observation",
            "the manifest names 1 file of Observation, of which 1 is not here: `1.Observation.ndjson`",
        ),
        (
            files(&[("manifest.json", &manifest(3, r#","error":[{"url":"http://e.org/e/1.ndjson"}]"#)), ("Observation.000.ndjson", &lines)]),
            "*",
            "the export has 1 file of errors that is not here",
        ),
        (
            files(&[("Observation.1.ndjson", &two), ("Observation.2.ndjson", &third), ("Observation.4.ndjson", "")]),
            "Observation",
            "Observation.1.ndjson: of its series, 1 to 4, number 3 is not here",
        ),
    ];
    for (files, resource_type, reason) in partial {
        let (complete, gaps) = in_place(&files).await;
        assert!(!complete && gaps.iter().any(|(name, why)| name == resource_type && why.contains(reason)), "{reason}: {files:?}: {gaps:?}");
    }
}

#[tokio::test]
async fn a_file_that_was_there_the_last_time_is_missed_until_a_person_says_that_it_is_gone() {
    let yard = Yard::new();
    let lines = observations();
    yard.write("Observation.ndjson", lines.lines().take(2).collect::<Vec<_>>().join("\n"));
    yard.write("ward/Observation.ndjson", lines.lines().last().unwrap());
    assert!(yard.pull().await.complete);
    yard.remove("ward/Observation.ndjson");
    // Not only once: what is partial today is no custom tomorrow.
    for night in 1..=2 {
        let lost = yard.pull().await;
        assert_eq!((lost.complete, lost.removed, lost.gaps.len()), (false, 0, 1), "night {night}: {:?}", lost.gaps);
        let reason = &lost.gaps[0].reason;
        assert!(reason.starts_with("file #") && reason.contains("an earlier pull read it, and it is gone: 2 of Observation came where 3 are stored"), "{reason}");
    }
    let mut options = Options::default();
    options.tuning.accepts_loss = true;
    assert_eq!(yard.try_pull(options).await.unwrap().removed, 1);
    assert!(yard.pull().await.complete);
    // Others in its place may be fewer.
    yard.remove("Observation.ndjson");
    yard.write("Observation.b.ndjson", lines.lines().next().unwrap());
    let renewed = yard.pull().await;
    assert_eq!((renewed.complete, renewed.removed), (true, 1), "{:?}", renewed.gaps);
}

#[tokio::test]
async fn a_night_without_a_change_is_a_night_and_a_smaller_folder_becomes_the_usual_one() {
    let yard = Yard::new();
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("{{\"resourceType\":\"Observation\",\"id\":\"m{n}\",\"subject\":{{\"reference\":\"Patient/p1\"}}}}\n"))
            .collect::<String>()
    };
    yard.write("Observation.ndjson", many(100));
    for night in 1..=3 {
        let same = yard.pull().await;
        assert_eq!((same.complete, same.full), (true, night == 1), "night {night}");
    }
    yard.write("Observation.ndjson", many(70));
    let mut nights = 0;
    loop {
        nights += 1;
        let found = yard.pull().await;
        if found.complete {
            assert_eq!(found.removed, 30);
            break;
        }
        assert!(nights < 7 && found.removed == 0 && found.gaps[0].reason.contains("70 came where 100 usually do"), "{nights}: {:?}", found.gaps);
    }
    assert_eq!(nights, 4, "as many as there were of the old kind, and none of them unsaid");
    assert!(!yard.pull().await.full);
}

#[tokio::test]
async fn two_contents_of_one_id_are_told_and_which_counts_does_not_depend_on_the_order_of_files() {
    let one = observations().lines().next().unwrap().to_owned();
    let other = one.replace("\"valueInteger\":1", "\"valueInteger\":9");
    let with = |line: &str, meta: &str| line.replacen('{', &format!("{{\"meta\":{{{meta}}},"), 1);
    let outcome = async |first: &str, second: &str| {
        let yard = Yard::new();
        let others = observations().lines().skip(1).collect::<Vec<_>>().join("\n");
        yard.write("Observation.ndjson", others);
        yard.write("Observation.a.ndjson", first);
        yard.write("Observation.b.ndjson", second);
        let found = yard.pull().await;
        let snapshot = yard.snapshot();
        let of_patient = snapshot.patients(snapshot.partition_of("p1"), None).unwrap();
        let lines: Vec<String> = of_patient
            .iter()
            .filter(|patient| patient.patient_id == "p1")
            .flat_map(|patient| patient.lines.iter().map(|line| String::from_utf8(line.clone()).unwrap()))
            .collect();
        let kept = lines.iter().find(|line| line.contains("\"o1\"")).cloned().unwrap_or_default();
        (found.complete, found.gaps.iter().map(|gap| format!("{}: {}", gap.resource_type, gap.reason)).collect::<Vec<_>>(), kept)
    };
    let told = vec!["Observation: 1 came in several forms, of which nothing says which is the newest: one was taken".to_owned()];
    let (ab, ba) = (outcome(&one, &other).await, outcome(&other, &one).await);
    assert_eq!((ab.0, &ab.1, &ab), (false, &told, &ba));
    // Whatever version their numbers say, not the order of their letters.
    let (ninth, tenth) = (with(&other, "\"versionId\":\"9\""), with(&one, "\"versionId\":\"10\""));
    for found in [outcome(&ninth, &tenth).await, outcome(&tenth, &ninth).await] {
        assert_eq!((found.0, found.2.contains("\"valueInteger\":1")), (true, true), "{:?}", found.1);
    }
    // Other words about it are no other content; another patient is.
    assert!(outcome(&one, &with(&one, "\"source\":\"x\"")).await.0);
    assert!(!outcome(&one, &one.replace("Patient/p1", "Patient/p2")).await.0);
}
