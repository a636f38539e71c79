//! Tables beside the EHR: what a declaration may say, what becomes of rows, and that neither reading takes from the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use watershed::diagnostic::{Diagnostic, SourceFile};
use watershed::http::SystemClock;
use watershed::smart::assertion::{Algorithm, SigningKey};
use watershed::snapshot::{Key, PatientLines, Snapshot};
use watershed::source::import::{self, Difference, Import, Place, Sort};
use watershed::source::{Mode, Need, Options, PullOutcome, Silent, Source, SourceError, ledger, plan, pull};
use watershed::store::{Store, quarantine};

use crate::bed::output;
use crate::obligations::bench::Bench;

mod foreseen;
mod lacking;
pub(crate) mod series;

const ZONE: &str = "America/New_York";
const EXAMPLE: &str = include_str!("../mappings/imports/clabsi.yaml");

fn declare(text: &str, folder: &Path) -> (Option<Import>, Vec<Diagnostic>) {
    import::parse(&SourceFile::new("clabsi.yaml", text), folder, &TimeZone::get(ZONE).unwrap(), None)
}

fn told(text: &str) -> Vec<String> {
    let (import, findings) = declare(text, Path::new("."));
    assert!(import.is_none() || findings.iter().all(|finding| !finding.is_error()));
    let one = |finding: &Diagnostic| format!("{finding}; {}", finding.help.as_deref().unwrap_or_default());
    findings.iter().map(one).collect()
}

#[test]
fn every_mistake_of_a_declaration_is_told_at_once_where_it_is() {
    let text = r#"name: CLABSI list
fil: clabsi.csv
columns:
  MRN: {type: pacient, sistem: http://h/mrn}
  CSN: {type: encounter, sistem: http://h/csn}
  onset: {type: date, format: "%m/%d"}
  dose: {type: quantity, unit: milligrams}
  result: {type: code, map: {Yes: clabsi}}
  days: {typ: integer}
  note: text
key: [MRN, onsett]
resource:
  resourceType: Observation
  id: "{MRN}"
  subject: "{MRN}"
  status: "{note}"
  codes: {text: x}
  effectiveDateTime: "{onset} {nota}"
  valueQuantity: "{note}"
  category: {text: lab}
"#;
    let found = told(text);
    let expected = [
        "error: an import has no key `fil` (clabsi.yaml:2:1); did you mean `file`?",
        "error: `CLABSI list` is no name of an import (clabsi.yaml:1:7); 1 to 32 lower-case letters, digits and hyphens",
        "error: the key `file` is missing (clabsi.yaml:1:1)",
        "error: no type of columns is named `pacient` (clabsi.yaml:4:15); did you mean `patient`?",
        "error: a column of type `patient` has no key `sistem` (clabsi.yaml:4:24); did you mean `system`?",
        "error: a column of type `encounter` has no key `sistem` (clabsi.yaml:5:26); did you mean `system`?",
        "error: `%m/%d` is no form of a date",
        "error: `milligrams` is no UCUM unit (clabsi.yaml:7:32)",
        "error: code `clabsi` has no system (clabsi.yaml:8:30)",
        "error: the column `days` has no key `typ` (clabsi.yaml:9:10); did you mean `type`?",
        "error: the column `days` has no type (clabsi.yaml:9:3)",
        "error: there is no column `onsett` (clabsi.yaml:11:12); did you mean `onset`?",
        "error: `id` is not for the template (clabsi.yaml:14:3)",
        "error: `Observation` has no element `codes` (clabsi.yaml:17:3); did you mean `code`?",
        "error: there is no column `nota` (clabsi.yaml:18:32); did you mean `note`?",
        "error: `valueQuantity` is Quantity, and `{note}` is text (clabsi.yaml:19:19); columns that fit here are `quantity`",
        "error: `category` is one value, expected a list (clabsi.yaml:20:13)",
    ];
    for expected in expected {
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected}\n{}", found.join("\n"));
    }
}

#[test]
fn what_a_declaration_lacks_is_told() {
    let whole = "name: a\nfile: a.csv\ncolumns: {P: patient, D: date}\nkey: [P, D]\nresource: {resourceType: Condition, subject: '{P}', onsetDateTime: '{D}'}\n";
    assert_eq!(told(whole), [""; 0]);
    for delimiter in ["\"\\t\"", "';'", "'|'"] {
        assert_eq!(told(&format!("{whole}delimiter: {delimiter}\n")), [""; 0], "{delimiter}");
    }
    let cases = [
        ("", "", "an import is nothing, expected keys with values"),
        ("name: a\n", "", "the key `name` is missing"),
        ("Condition", "Patient", "a row cannot become a `Patient`"),
        ("Condition", "Location", "a row cannot become a `Location`"),
        ("Condition", "Conditon", "FHIR R4 has no resource type `Conditon`"),
        ("subject: '{P}', ", "", "the `Condition` does not say whose it is"),
        ("P: patient", "P: text", "`subject` is Reference, and `{P}` is text"),
        ("P: patient", "P: {type: patient, optional: true}", "the column `P` is a patient, and optional"),
        ("key: [P, D]", "key: []", "`key` names no column"),
        ("key: [P, D]", "key: [P, P]", "`P` is named twice"),
        ("'{D}'", "'{D'", "a `{` without its `}`"),
        ("'{D}'", "[x]", "`onsetDateTime` is a list, expected one value"),
        ("onsetDateTime", "recordedDate: 7, onsetDateTime", "`recordedDate` is a number, expected dateTime"),
        ("'{D}'", "'{D}', onsetString: x", "`onsetString` stands beside `onsetDateTime`, and `onset[x]` is one value"),
        ("Condition, subject", "Conditon, subjekt", "`Condition` has no element `subjekt`"),
        ("D: date", "D: {type: dat, format: '%d.%m'}", "`%d.%m` is no form of a date: it does not tell one day from another"),
        ("a.csv", "x*/a.csv", "`x*/a.csv` names no file"),
        ("file: a.csv", "file: a.csv\ndelimiter: tab", "`tab` is no delimiter"),
        ("D: date", "D: date, E: date", "warning: the column `E` is used neither in the key nor in the resource"),
        ("D: date", "D: date, D: date", "the key `D` is given twice"),
    ];
    for (written, instead, expected) in cases {
        let text = if written.is_empty() { String::new() } else { whole.replacen(written, instead, 1) };
        let found = told(&text);
        assert!(found.iter().any(|one| one.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn the_example_fits_its_schema() {
    let schema: Value = serde_json::from_str(include_str!("../schemas/import.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for text in [EXAMPLE, series::EXAMPLE] {
        let example: Value = serde_saphyr::from_str(text).unwrap();
        let faults: Vec<String> = schema.iter_errors(&example).map(|fault| fault.to_string()).collect();
        assert_eq!(faults, [""; 0]);
    }
    let mut wrong: Value = serde_saphyr::from_str(EXAMPLE).unwrap();
    wrong["columns"]["MRN"]["sistem"] = json!("x");
    assert!(!schema.is_valid(&wrong));
}

#[tokio::test]
async fn codes_that_fhir_does_not_have_are_refused_in_the_declaration_and_in_rows() {
    let declared = LAB
        .replace("status: final", "status: Final")
        .replace("type: text, optional: true", "type: code, system: s, map: {f: final, a: amend}");
    let found = told(&declared);
    assert_eq!(found[0], "error: `status`: `Final` is none of FHIR's codes for it (clabsi.yaml:11:11); did you mean `final`?");
    let found = told(&declared.replace("status: Final", "status: \"{remark}\""));
    assert_eq!(found[0], "error: `status`: `amend`, to which the column `remark` leads, is none of FHIR's codes for it (clabsi.yaml:11:12); did you mean `amended`?");
    let found = told(&LAB.replace("  status: final\n", ""));
    let expected =
        "error: `Observation` has no `status`, which FHIR demands of it, and by which most measures ask (clabsi.yaml:11:3); write one of `registered`, `preliminary`, `final`,";
    assert!(found[0].starts_with(expected), "{found:?}");
    let mut ward = Ward::new();
    ward.declare(&[&LAB.replace("status: final", "status: \"{remark}\"")]);
    ward.write("lab.csv", "MRN,day,value,remark\n0010,2026-01-01,1,final\n0010,2026-01-02,2,FINAL\n0020,2026-01-01,3,x\n");
    assert!(!ward.pull().await.complete);
    let mut held = ward.held();
    held.sort();
    let expected = [(3, "column `remark`: none of FHIR's codes for its element: `final` is near"), (4, "column `remark`: none of FHIR's codes for its element")];
    assert_eq!(held, expected.map(|(line, reason)| (line, reason.to_owned())));
}

/// A folder of files in the place of an EHR, tables beside it, and a place to pull them into.
struct Ward {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    key: Key,
    options: Options,
}

const LAB: &str = r#"name: lab
file: lab.csv
columns:
  MRN: {type: patient, system: http://h/mrn}
  day: date
  value: {type: quantity, unit: mg/dL}
  remark: {type: text, optional: true}
key: [MRN, day]
resource:
  resourceType: Observation
  status: final
  subject: "{MRN}"
  effectiveDateTime: "{day}"
  valueQuantity: "{value}"
  note: [{text: "{remark}"}]
"#;
const ROWS: &str = "MRN,day,value,remark\n0010,2026-01-01,1.50,\n0010,2026-01-02,2,\"a, \"\"b\"\"\"\n0020,2026-01-01,3,x\n";

impl Ward {
    /// Three patients with a visit and an observation each, and three rows of a table.
    fn new() -> Ward {
        let ward = Ward {
            folder: tempfile::tempdir().unwrap(),
            store: Arc::new(Store::open_in_memory().unwrap()),
            key: Key::generate().unwrap(),
            options: Options::default(),
        };
        ward.patients(3);
        let of = |resource_type: &str, short: &str| {
            let one = |n| format!(r#"{{"resourceType":"{resource_type}","id":"{short}{n}","subject":{{"reference":"Patient/p{n}"}}}}"#);
            (1..=3).map(|n| one(n) + "\n").collect::<String>()
        };
        ward.write("drop/Encounter.ndjson", of("Encounter", "e"));
        ward.write("drop/Observation.ndjson", of("Observation", "o"));
        ward.write("lab.csv", ROWS);
        ward.with(&[LAB])
    }

    fn patients(&self, count: u32) {
        let patient = |n| format!(r#"{{"resourceType":"Patient","id":"p{n}","identifier":[{{"system":"http://h/mrn","value":"00{n}0"}}]}}"#);
        self.write("drop/Patient.ndjson", (1..=count).map(|n| patient(n) + "\n").collect::<String>());
    }

    fn with(mut self, declared: &[&str]) -> Ward {
        self.declare(declared);
        self
    }

    fn declare(&mut self, declared: &[&str]) {
        let import = |text: &&str| {
            let (import, findings) = declare(text, self.folder.path());
            import.unwrap_or_else(|| panic!("{findings:?}"))
        };
        self.options.tuning.imports = declared.iter().map(import).collect();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), content).unwrap();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::open(&self.path("data"), Arc::clone(&self.store), self.key.clone(), 4).unwrap()
    }

    async fn pull(&self) -> PullOutcome {
        let mut options = self.options.clone();
        options.tuning.folder = Some(self.path("drop"));
        let source = Source::connect(&options, None, &Default::default(), Arc::new(SystemClock)).await.unwrap();
        let plan = plan(&["Encounter", "Observation"].map(Need::all), &source.capability, &options);
        pull(&source, &plan, &self.snapshot(), &SystemClock, &Silent).await.unwrap()
    }

    /// Without asking the source.
    fn bring(&self, accepts_loss: bool) -> Result<PullOutcome, SourceError> {
        let types = ["Patient", "Encounter", "Observation"].map(str::to_owned).into();
        import::bring_alone(&self.options.tuning.imports, &types, &self.snapshot(), &SystemClock, accepts_loss)
    }

    fn difference(&self) -> Difference {
        let types = ["Patient", "Encounter", "Observation"].map(str::to_owned).into();
        import::difference(&self.options.tuning.imports[0], &self.snapshot(), &types, false).unwrap()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.snapshot().counts().unwrap().into_iter().collect()
    }

    /// How many of the source's observations and of the import's rows are stored.
    fn stored(&self) -> (u64, u64) {
        let counts: BTreeMap<String, u64> = self.counts().into_iter().collect();
        (counts.get("Observation").copied().unwrap_or(0), counts.get("import lab").copied().unwrap_or(0))
    }

    fn lines_of(&self, patient: &str) -> Vec<Value> {
        let snapshot = self.snapshot();
        let of_patient = snapshot.patients(snapshot.partition_of(patient), None).unwrap().into_iter().find(|found| found.patient_id == patient);
        of_patient.unwrap().lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn discard_all(&self) {
        let discard = |connection: &mut rusqlite::Connection| {
            let held = quarantine::list(connection, Some(quarantine::State::Held))?;
            held.iter().try_for_each(|item| quarantine::decide(connection, item.id, quarantine::State::Discarded))
        };
        self.store.with(discard).unwrap();
    }

    fn held(&self) -> Vec<(u64, String)> {
        let held = self.store.with(|connection| quarantine::list(connection, Some(quarantine::State::Held))).unwrap();
        held.into_iter().map(|item| (item.entry, item.reason)).collect()
    }
}

#[tokio::test]
async fn a_row_becomes_its_patients_resource_with_where_it_comes_from_and_no_value_in_its_id() {
    let ward = Ward::new();
    let outcome = ward.pull().await;
    assert!(outcome.complete && outcome.full, "{:?} {:?}", outcome.gaps, ward.held());
    assert_eq!(outcome.received["Observation"], 6);
    let imported = |line: &Value| line["meta"]["tag"][0]["code"] == "lab";
    let mut rows: Vec<Value> = ward.lines_of("p1").into_iter().filter(imported).collect();
    rows.sort_by_key(|row| row["effectiveDateTime"].to_string());
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ROWS.as_bytes());
    let sha256: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let id = rows[1]["id"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), id.contains("0010")), (40, false));
    let expected = format!(
        r#"{{"resourceType":"Observation","id":"{id}","meta":{{"source":"urn:watershed:import:lab:{sha256}","tag":[{{"system":"urn:watershed:import","code":"lab"}}]}},"status":"final","subject":{{"reference":"Patient/p1"}},"effectiveDateTime":"2026-01-02","valueQuantity":{{"value":2,"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"mg/dL"}},"note":[{{"text":"a, \"b\""}}]}}"#
    );
    assert_eq!((rows.len(), rows[1].to_string()), (2, expected));
    assert_eq!((rows[0]["valueQuantity"]["value"].to_string(), rows[0].get("note")), ("1.50".to_owned(), None), "what hangs on an empty cell is left out");
}

#[tokio::test]
async fn the_table_is_the_whole_truth_of_its_import_and_of_nothing_else() {
    let mut ward = Ward::new();
    ward.pull().await;
    let digest = ward.snapshot().digest().unwrap();
    // The source is as it was; a row changes, one goes, one comes.
    ward.write("lab.csv", "MRN,day,value,remark\n0010,2026-01-01,9,\n0020,2026-01-01,3,x\n0030,2026-01-05,4,\n");
    let difference = ward.difference();
    let at = |line| Sort { count: 1, places: vec![Place { file: 1, line }] };
    assert_eq!((&difference.changed, &difference.new, difference.gone, difference.rows), (&at(2), &at(4), 1, 3), "{difference:?}");
    let changed = ward.pull().await;
    assert_eq!((changed.complete, changed.full, changed.new_versions, changed.removed), (true, false, 2, 1));
    assert_eq!(ward.difference(), Difference { rows: 3, ..Difference::default() });
    ward.write("lab.csv", ROWS);
    ward.pull().await;
    assert_eq!(ward.snapshot().digest().unwrap(), digest, "whatever file brought a row, it is the same");
    // The source changes and is read in full.
    ward.write("drop/Observation.ndjson", "{\"resourceType\":\"Observation\",\"id\":\"o9\",\"subject\":{\"reference\":\"Patient/p1\"}}\n");
    let full = ward.pull().await;
    assert_eq!((full.complete, full.full, full.removed, ward.stored()), (true, true, 3, (1, 3)), "{:?}", full.gaps);
    // A patient goes, and the rows with her.
    ward.patients(1);
    ward.write("drop/Encounter.ndjson", "");
    ward.write("drop/Observation.ndjson", "");
    let gone = ward.pull().await;
    assert_eq!((gone.complete, ward.stored(), ward.held()), (false, (0, 2), vec![(4, "column `MRN`: no patient with this identifier is known here".to_owned())]));
    // An import that is declared no more takes its rows with it.
    ward.declare(&[]);
    ward.pull().await;
    assert_eq!((ward.stored(), ward.held()), ((0, 0), vec![]));
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_held_with_its_place_and_the_others_go_on() {
    let ward = Ward::new();
    ward.pull().await;
    ward.write(
        "lab.csv",
        "MRN,day,value,remark\n0010,2026-01-01,high,\n0010,01/02/2026,2,\n\n0099,2026-01-01,3,x\n0020,2026-01-01,3,x\n0030,2026-01-01,3\n0030,2026-01-01,\n0030,,1,\n0020,2026-01-01,3,x\n0020,2026-01-01,5,x\n,,,\n0030,2026-01-09,1,\n",
    );
    let outcome = ward.pull().await;
    let mut held = ward.held();
    held.sort();
    // As other programs write it, with a cell of two lines.
    let text = std::fs::read_to_string(ward.path("lab.csv")).unwrap();
    ward.write("lab.csv", format!("\u{feff}{}", text.replace(",high,", ",high,\"a\nb\"").replace('\n', "\r\n")));
    let elsewhere: Vec<u64> = ward.difference().refused.values().flat_map(|sort| &sort.places).map(|place| place.line).collect();
    assert_eq!(elsewhere.iter().sum::<u64>(), 2 + 4 + 8 + 9 + 10 + 12, "{elsewhere:?}");
    ward.write("lab.csv", text);
    let expected = [
        (2, "column `value`: no number as 12.5"),
        (3, "column `day`: no date as 2026-03-05"),
        (5, "column `MRN`: no patient with this identifier is known here"),
        (7, "3 cells where the heading has 4"),
        (8, "3 cells where the heading has 4"),
        (9, "column `day` is empty"),
        (11, "its key is that of an earlier row, which says something else"),
    ];
    assert_eq!(held, expected.map(|(line, reason)| (line, reason.to_owned())));
    assert_eq!((outcome.complete, outcome.removed, outcome.new_versions, ward.stored()), (false, 0, 1, (3, 4)), "of what cannot be told nothing is let go");
    let difference = ward.difference();
    assert_eq!((difference.refused.len(), difference.unknown.len(), difference.rows), (5, 1, 10));
    // Only its key is readable: its row stays, others that are gone go.
    ward.write("lab.csv", "MRN,day,value,remark\n0010,2026-01-01,high,\n0020,2026-01-01,3,x\n0030,2026-01-09,1,\n");
    let outcome = ward.pull().await;
    assert_eq!((outcome.complete, outcome.removed, ward.stored(), ward.held().len()), (false, 1, (3, 3), 1));
    ward.write("lab.csv", ROWS);
    let outcome = ward.pull().await;
    assert_eq!((outcome.complete, ward.held()), (true, vec![]), "{:?}", outcome.gaps);
}

#[tokio::test]
async fn a_table_that_is_not_whole_is_a_gap_and_nothing_is_let_go() {
    let many: String = std::iter::once("MRN,day,value,remark\n".to_owned())
        .chain((1..=28).map(|day| format!("0010,2026-01-{day:02},1,\n")))
        .collect();
    let text = many.as_str();
    let few: String = text.lines().take(10).map(|line| format!("{line}\n")).collect();
    type Files = Vec<(&'static str, Vec<u8>)>;
    let utf_16: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Files, &str)> = vec![
        ("missing", vec![], "there is no file `lab.csv`"),
        ("empty", vec![("lab.csv", Vec::new())], "`lab.csv`: it is empty: it has not even a heading"),
        ("no rows", vec![("lab.csv", "MRN,day,value,remark\n".into())], "0 rows are in it where 28 are stored"),
        ("few", vec![("lab.csv", few.clone().into())], "9 rows are in it where 28 are stored"),
        ("written", vec![("lab.csv", text.into()), ("lab.csv.part", "MRN".into())], "is being written, by its name"),
        ("hidden", vec![("lab.csv", text.into()), (".lab.csv.X7ab", "MRN".into())], "is being written, by its name"),
        ("cut", vec![("lab.csv", text[..text.len() - 8].into())], "`lab.csv`: it is cut short: it ends in the middle of a row"),
        ("heading", vec![("lab.csv", text.replace("day", "Day").into())], "has no column `day`"),
        ("twice", vec![("lab.csv", text.replace("remark", "MRN").into())], "has `MRN` twice, has no column `remark`"),
        ("other delimiter", vec![("lab.csv", text.replace(',', ";").into())], "`delimiter: \";\"`"),
        ("no heading", vec![("lab.csv", "Smith,2026-01-01,1,\n".into())], "its heading has no column `MRN`"),
        ("UTF-16", vec![("lab.csv", utf_16)], "it is UTF-16"),
        ("Latin-1", vec![("lab.csv", [&b"MRN,day,value,Gr\xf6\xdfe"[..], &text.as_bytes()[20..]].concat())], "its heading is not UTF-8, but Latin-1"),
        ("UTF-8 twice", vec![("lab.csv", text.replace("remark", "GrÃ¶Ã\u{9f}e").into())], "its letters seem to have been taken for Latin-1"),
        ("renamed", vec![("lab.csv", text.replace("remark", "remarks").into())], "its heading has no column `remark` (another is near it: was it renamed?)"),
        ("open quotation", vec![("lab.csv", format!("{few}0010,2026-01-20,1,\"{}\n", "x".repeat(1 << 21)).into())], "a row is longer than 1 MiB"),
        ("a quotation mark without end", vec![("lab.csv", text.replace("-26,1,", "-26,1,\"x").into())], "a quotation mark opens in line 27 and is never closed"),
        (
            "the same before another",
            vec![("lab.csv", text.replace("-20,1,", "-20,1,\"x").replace("-22,1,", "-22,1,\"y\"").into())],
            "a quotation mark opens in line 21, and after the next one, in line 23, text goes on",
        ),
    ];
    for (case, files, reason) in cases {
        let ward = Ward::new();
        ward.write("lab.csv", text);
        let whole = ward.pull().await;
        assert!(whole.complete && ward.stored() == (3, 28), "{case}: {:?}", whole.gaps);
        let digest = ward.snapshot().digest().unwrap();
        std::fs::remove_file(ward.path("lab.csv")).unwrap();
        files.iter().for_each(|(name, content)| ward.write(name, content));
        let found = ward.pull().await;
        assert!(found.gaps.iter().any(|gap| gap.resource_type == "Observation" && gap.reason.contains(reason)), "{case}: {:?}", found.gaps);
        assert!(!found.complete && found.removed == 0 && !format!("{:?}", found.gaps).contains("Smith"), "{case}: {found:?}");
        assert_eq!(ward.snapshot().digest().unwrap(), digest, "{case}");
        files.iter().for_each(|(name, _)| std::fs::remove_file(ward.path(name)).unwrap());
        ward.write("lab.csv", format!("\u{feff}{}", text.replace('\n', "\r\n")));
        let repaired = ward.pull().await;
        assert!(repaired.complete && ward.snapshot().digest().unwrap() == digest, "{case}: {:?} {:?}", repaired.gaps, ward.held());
    }
    let ward = Ward::new();
    ward.write("lab.csv", text);
    ward.pull().await;
    ward.write("lab.csv", few);
    assert_eq!((ward.bring(false).unwrap().removed, ward.difference().gone), (0, 0));
    let accepted = ward.bring(true).unwrap();
    assert_eq!((accepted.complete, accepted.removed, ward.stored()), (true, 19, (3, 9)));
    // Two rows may go from a table of any size; more than that, and more than a fifth, needs a person.
    for (rows, is_believed, left) in [(7, true, 7), (4, false, 7), (6, true, 6)] {
        ward.write("lab.csv", text.lines().take(1 + rows).map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!((ward.bring(false).unwrap().complete, ward.stored()), (is_believed, (3, left)), "{rows} rows");
    }
}

#[tokio::test]
async fn a_row_that_was_discarded_is_left_out_and_so_is_what_it_said_before() {
    for (written, instead) in [("1.50", "high"), ("0010,2026-01-01", "0010,1.1.26")] {
        let ward = Ward::new();
        ward.pull().await;
        ward.write("lab.csv", ROWS.replace(written, instead));
        let held = ward.pull().await;
        assert_eq!((held.complete, held.quarantined, held.removed, ward.stored()), (false, 1, 0, (3, 3)), "{instead}");
        ward.discard_all();
        assert_eq!((ward.difference().gone, ward.difference().refused.len()), (1, 0), "{instead}");
        let decided = ward.pull().await;
        assert_eq!((decided.complete, decided.quarantined, decided.removed, ward.stored()), (true, 0, 1, (3, 2)), "{instead}");
        let lines: Vec<String> = ROWS.replace(written, instead).lines().map(|line| format!("{line}\n")).collect();
        ward.write("lab.csv", format!("{}{}{}{}", lines[0], lines[3], lines[2], lines[1]));
        let elsewhere = ward.bring(false).unwrap();
        assert_eq!((elsewhere.complete, elsewhere.new_versions, ward.stored()), (true, 0, (3, 2)), "{instead}");
        ward.write("lab.csv", ROWS);
        assert_eq!((ward.bring(false).unwrap().complete, ward.stored()), (true, (3, 3)), "{instead}");
    }
}

/// As a spreadsheet does that saves numbers without their zeros, or dates in another form: as many rows, and none that is known.
#[tokio::test]
async fn rows_whose_keys_are_written_otherwise_are_not_taken_for_others() {
    let table = |mrn: &str, day: &dyn Fn(u32) -> String| {
        let rows = (1..=5).map(|n| format!("{mrn},{},{n},\n", day(n)));
        std::iter::once("MRN,day,value,remark\n".to_owned()).chain(rows).collect::<String>()
    };
    let timed = |n: u32| format!("2026-01-0{n} 10:00");
    let dated = |n: u32| format!("2026-01-0{n}");
    let one_is_wrong = |n: u32| if n == 3 { "3.1.26".to_owned() } else { dated(n) };
    let lacks = "5 rows are in it, and of the 5 that are stored it lacks";
    let whole = table("0010", &timed);
    for (case, changed, expected, held, after) in [
        ("zeros", table("10", &timed), format!("{lacks} 5"), 5, 0),
        ("dates", table("0010", &dated), format!("{lacks} 5"), 0, 5),
        ("dates, and one that cannot be read", table("0010", &one_is_wrong), format!("{lacks} 4"), 1, 5),
    ] {
        let ward = Ward::new().with(&[&LAB.replace("day: date", "day: dateTime")]);
        ward.write("lab.csv", &whole);
        assert!(ward.pull().await.complete);
        ward.write("lab.csv", changed);
        assert_eq!(ward.difference().gone, 0, "{case}");
        let found = ward.pull().await;
        assert!(found.gaps.iter().any(|gap| gap.reason.contains(&expected) && gap.reason.contains("--accept-loss")), "{case}: {:?}", found.gaps);
        assert_eq!((found.complete, found.removed, found.new_versions, ward.held().len(), ward.stored()), (false, 0, 0, held, (3, 5)), "{case}");
        // Repaired as it was, nothing has happened; as it is now, a person says so.
        ward.write("lab.csv", &whole);
        assert!(ward.bring(false).unwrap().complete && ward.stored() == (3, 5), "{case}");
        ward.write("lab.csv", if after == 0 { table("10", &timed) } else { table("0010", &dated) });
        assert!(!ward.bring(false).unwrap().complete && ward.stored() == (3, 5), "{case}");
        let accepted = ward.bring(true).unwrap();
        assert_eq!((accepted.complete, accepted.removed, ward.stored().1), (after > 0, 5, after), "{case}");
    }
}

#[tokio::test]
async fn who_is_not_known_waits_or_is_counted() {
    let mut ward = Ward::new();
    ward.write("lab.csv", ROWS.to_owned() + "0040,2026-01-01,3,x\n");
    let held = ward.pull().await;
    assert_eq!((held.complete, held.quarantined, ward.stored()), (false, 1, (3, 3)));
    ward.patients(4);
    let known = ward.pull().await;
    assert_eq!((known.complete, known.quarantined, ward.stored()), (true, 0, (3, 4)));
    ward.patients(3);
    ward.declare(&[&LAB.replace("http://h/mrn}", "http://h/mrn, others: ignore}")]);
    let ignored = ward.pull().await;
    assert_eq!((ignored.complete, ward.stored(), ward.difference().ignored), (true, (3, 3), 1));
    // Two patients with one identifier: neither is guessed.
    let twins = ["p1", "p2"].map(|id| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"identifier\":[{{\"system\":\"http://h/mrn\",\"value\":\"0010\"}}]}}\n"));
    ward.write("drop/Patient.ndjson", twins.concat());
    let twins = ward.pull().await;
    assert!(!twins.complete && ward.held().contains(&(2, "column `MRN`: several have this identifier".to_owned())), "{:?}", ward.held());
}

#[tokio::test]
async fn tables_of_several_files_name_patients_and_encounters_by_id() {
    let declared = "name: stays\nfile: t/stay-*.csv\ndelimiter: ';'\ncolumns:\n  P: patient\n  E: {type: encounter, optional: true}\n  n: integer\n  yes: boolean\nkey: n\nresource:\n  resourceType: Observation\n  status: final\n  subject: '{P}'\n  encounter: '{E}'\n  code: {text: 'no {n} of {P}'}\n  valueBoolean: '{yes}'\n";
    let ward = Ward::new().with(&[declared]);
    ward.write("t/stay-1.csv", "n;yes;P;E\n1;yes;p1;e1\n2;no;p1;\n");
    ward.write("t/stay-2.csv", "P;E;n;yes\np2;e2;3;1\np2;e1;4;1\np2;e9;5;1\n");
    let outcome = ward.pull().await;
    let reasons = [(3, "file 2: its encounter is another patient's"), (4, "file 2: column `E`: no encounter with this id is known here")];
    assert_eq!((outcome.complete, ward.held()), (false, reasons.map(|(line, reason)| (line, reason.to_owned())).to_vec()));
    let rows: Vec<Value> = ward.lines_of("p1").into_iter().filter(|line| line["meta"]["tag"][0]["code"] == "stays").collect();
    let shown: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {} {}", row["code"]["text"], row["encounter"]["reference"], row["valueBoolean"]))
        .collect();
    assert!(shown.contains(&r#""no 1 of p1" "Encounter/e1" true"#.to_owned()) && shown.contains(&r#""no 2 of p1" null false"#.to_owned()), "{shown:?}");
    let difference = import::difference(&ward.options.tuning.imports[0], &ward.snapshot(), &["Patient", "Encounter", "Observation"].map(str::to_owned).into(), false).unwrap();
    assert_eq!(difference.refused.values().next().unwrap().places, [Place { file: 2, line: 3 }]);
}

#[tokio::test]
async fn imports_alone_leave_what_the_last_pull_said_as_it_is() {
    let mut ward = Ward::new();
    ward.declare(&[]);
    assert!(ward.bring(false).unwrap_err().to_string().contains("nothing has been pulled yet"));
    std::fs::remove_file(ward.path("drop/Encounter.ndjson")).unwrap();
    let partial = ward.pull().await;
    assert!(!partial.complete && partial.gaps.len() == 1);
    ward.declare(&[LAB]);
    let brought = ward.bring(false).unwrap();
    assert_eq!((brought.complete, brought.gaps.len(), brought.new_versions, ward.stored()), (false, 0, 3, (3, 3)), "encounters are lacking still");
    let known = ward.store.with(|connection| watershed::store::runs::known_at(connection, jiff::Timestamp::now())).unwrap().unwrap();
    assert_eq!((known.complete, known.gaps), (Some(false), BTreeMap::from([("Encounter".to_owned(), 1)])));
    let of_e = "{\"resourceType\":\"Encounter\",\"id\":\"e1\",\"subject\":{\"reference\":\"Patient/p1\"}}\n";
    ward.write("drop/Encounter.ndjson", of_e);
    assert!(ward.pull().await.complete);
    ward.write("lab.csv", ROWS.replace("1.50", "7"));
    let alone = ward.bring(false).unwrap();
    assert_eq!((alone.complete, alone.new_versions), (true, 1));
    let same = ward.pull().await;
    assert_eq!((same.complete, same.full, same.new_versions), (true, false, 0), "the files are those of the pull before");
    // Killed before its end, it is no pull of anything: the next one reads all that it should.
    let (_, source, _) = ledger::last(&ward.store).unwrap().unwrap();
    ledger::open(&ward.store, &source, "imports", false, jiff::Timestamp::now()).unwrap();
    ward.write("drop/Encounter.ndjson", of_e.replace("e1", "e2"));
    let next = ward.pull().await;
    assert_eq!((next.complete, next.new_versions, next.removed), (true, 1, 1));
    // A pull that is under way is not disturbed.
    let (_, source, plan) = ledger::last(&ward.store).unwrap().unwrap();
    ledger::open(&ward.store, &source, &plan, true, jiff::Timestamp::now()).unwrap();
    assert!(ward.bring(false).unwrap_err().to_string().contains("a pull is not finished"));
}

#[tokio::test]
async fn beside_a_server_neither_reading_takes_from_the_other() {
    for mode in [Mode::Search, Mode::Bulk] {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(&[]).await;
        bench.options.tuning.imports = vec![
            declare(
                "name: lab\nfile: lab.csv\ncolumns: {P: patient, n: integer}\nkey: [P, n]\nresource: {resourceType: Observation, status: final, subject: '{P}', valueInteger: '{n}'}\n",
                folder.path(),
            )
            .0
            .unwrap(),
        ];
        let patients: Vec<String> = bench.running.resources().into_iter().filter(|(name, ..)| name == "Patient").map(|(_, id, _)| id).collect();
        let table = |count: usize| {
            std::iter::once("P,n\n".to_owned())
                .chain((0..count).map(|n| format!("{},{n}\n", patients[n % patients.len()])))
                .collect::<String>()
        };
        let counts = |bench: &Bench| {
            let counts = bench.snapshot().counts().unwrap();
            (counts["Observation"], counts["import lab"])
        };
        std::fs::write(folder.path().join("lab.csv"), table(400)).unwrap();
        let first = bench.pull(mode).await;
        assert!(first.outcome.complete && first.outcome.full, "{mode:?} {:?}", first.outcome.gaps);
        let (observations, _) = counts(&bench);
        assert_eq!(counts(&bench), (observations, 400), "{mode:?}");
        // Changes only, and a row less.
        std::fs::write(folder.path().join("lab.csv"), table(399)).unwrap();
        let changes = bench.pull(mode).await.outcome;
        assert_eq!((changes.complete, changes.full, changes.removed, counts(&bench)), (true, false, 1, (observations, 399)), "{mode:?} {:?}", changes.gaps);
        bench.options.tuning.full_every_days = 0;
        let full = bench.pull(mode).await.outcome;
        assert_eq!((full.complete, full.full, full.removed, full.new_versions, counts(&bench)), (true, true, 0, 0, (observations, 399)), "{mode:?} {:?}", full.gaps);
        std::fs::remove_file(folder.path().join("lab.csv")).unwrap();
        let missing = bench.pull(mode).await.outcome;
        assert_eq!((missing.complete, missing.removed, missing.gaps.len(), counts(&bench)), (false, 0, 1, (observations, 399)), "{mode:?} {:?}", missing.gaps);
    }
}

fn has_a_row(patient: &PatientLines) -> bool {
    patient.lines.iter().any(|line| String::from_utf8_lossy(line).contains("of a table"))
}

/// Rows of a table decide who is in an initial population: they are there before anybody is asked for the rest.
#[tokio::test]
async fn what_is_asked_for_last_knows_of_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&[]).await;
    let text = "name: lab\nfile: lab.csv\ncolumns: {P: patient, n: integer}\nkey: [P, n]\nresource: {resourceType: Condition, subject: '{P}', code: {text: 'of a table {n}'}}\n";
    bench.options.tuning.imports = vec![declare(text, folder.path()).0.unwrap()];
    (bench.options.page_size, bench.options.tuning.patients_per_query) = (10, 5);
    bench.needs.iter_mut().for_each(|need| need.is_later = need.resource_type == "Observation");
    bench.chooser = Some(has_a_row);
    let observed = |bench: &Bench| -> BTreeMap<String, u64> {
        let mut observed = BTreeMap::new();
        for (name, _, json) in bench.running.resources() {
            let resource: Value = serde_json::from_str(&json).unwrap();
            let patient = resource["subject"]["reference"].as_str().unwrap_or_default().trim_start_matches("Patient/").to_owned();
            *observed.entry(patient).or_default() += u64::from(name == "Observation");
        }
        observed
    };
    let (patient, count) = observed(&bench).into_iter().filter(|(patient, _)| !patient.is_empty()).max_by_key(|(_, count)| *count).unwrap();
    std::fs::write(folder.path().join("lab.csv"), format!("P,n\n{patient},1\n")).unwrap();
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.outcome.complete, "{:?}", pulled.outcome.gaps);
    assert_eq!(bench.snapshot().counts().unwrap()["Observation"], count);
}

#[test]
fn mutated_tables_are_read_or_told_of_and_every_row_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let declared = declare(EXAMPLE, folder.path()).0.unwrap();
    let seeds = [include_str!("../mappings/imports/clabsi.csv").repeat(3), ROWS.to_owned()];
    let mut random = crate::fuzz::random(21);
    let mut rows = 0;
    for _ in 0..crate::fuzz::cases(150) {
        std::fs::write(folder.path().join("clabsi.csv"), crate::fuzz::mutated(&mut random, &seeds, 3)).unwrap();
        let found = import::survey(&declared).unwrap();
        let told = found.new.count + found.refused.values().map(|sort| sort.count).sum::<u64>();
        assert!(told <= found.rows && (found.rows > 0 || found.gap.is_some() || told == 0), "{found:?}");
        rows += found.rows;
    }
    assert!(rows > 100, "{rows} rows of all mutants");
}

/// A site of files with the measure of central-line infections and the example of an import.
fn site(folder: &Path) {
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    };
    let key = SigningKey::generate(Algorithm::Es384).unwrap();
    write("key.pem", key.to_pem());
    std::fs::set_permissions(folder.join("key.pem"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let measures = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/hac/clabsi");
    let site = format!(
        "[site]\nid = \"lakeside\"\ntime_zone = \"{ZONE}\"\n[source]\nfolder = \"drop\"\n[imports]\nfiles = [\"tables/clabsi.yaml\"]\n[measures]\nfolders = [\"{}\"]\nmonths = 1\n\
         [registry]\nurl = \"http://127.0.0.1:9\"\nclient_id = \"lakeside\"\nkey_file = \"key.pem\"\n",
        measures.display()
    );
    write("site.toml", &site);
    write("tables/clabsi.yaml", EXAMPLE);
    write("tables/clabsi.csv", include_str!("../mappings/imports/clabsi.csv"));
    let system = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
    write(
        "drop/Patient.ndjson",
        "{\"resourceType\":\"Patient\",\"id\":\"p1\",\"birthDate\":\"2020-01-01\",\"identifier\":[{\"system\":\"http://hospital.example/mrn\",\"value\":\"100001\"}]}\n",
    );
    write(
        "drop/Encounter.ndjson",
        &format!(
            "{{\"resourceType\":\"Encounter\",\"id\":\"e1\",\"status\":\"finished\",\"class\":{{\"system\":\"{system}\",\"code\":\"IMP\"}},\"subject\":{{\"reference\":\"Patient/p1\"}},\"period\":{{\"start\":\"2026-01-05T08:00:00-05:00\",\"end\":\"2026-01-12T15:00:00-05:00\"}}}}\n"
        ),
    );
    write(
        "drop/Device.ndjson",
        "{\"resourceType\":\"Device\",\"id\":\"d1\",\"patient\":{\"reference\":\"Patient/p1\"},\"type\":{\"coding\":[{\"system\":\"http://snomed.info/sct\",\"code\":\"52124006\"}]}}\n",
    );
    write(
        "drop/DeviceUseStatement.ndjson",
        "{\"resourceType\":\"DeviceUseStatement\",\"id\":\"u1\",\"status\":\"completed\",\"subject\":{\"reference\":\"Patient/p1\"},\"device\":{\"reference\":\"Device/d1\"},\"timingPeriod\":{\"start\":\"2026-01-06\",\"end\":\"2026-01-12\"}}\n",
    );
    write("drop/Observation.ndjson", "");
}

#[tokio::test]
async fn the_example_counts_an_adjudicated_infection_and_the_commands_say_what_they_see() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path());
    let say = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"));
        command.args(arguments).current_dir(folder.path());
        let output = output(command).await;
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, _, error) = say(&["import", "--dry-run"]).await;
    assert!(code == 3 && error.contains("nothing has been pulled yet"), "{code} {error}");
    let (_, said, _) = say(&["pull", "--dry-run"]).await;
    assert!(said.contains("imports are read after it: clabsi"), "{said}");
    let (code, said, error) = say(&["pull"]).await;
    assert_eq!(code, 0, "{said}{error}");
    // Lines of a central line, and infections.
    let counts = async || {
        let (_, said, error) = say(&["known", "--period", "2026-01", "--format", "json"]).await;
        let report: Value = serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("{said}{error}"));
        let populations = report["group"][0]["population"].as_array().unwrap().clone();
        let count = |id: &str| populations.iter().find(|one| one["code"]["coding"][0]["code"] == id).unwrap()["count"].as_u64().unwrap();
        (count("denominator"), count("numerator"))
    };
    assert_eq!(counts().await, (1, 1));
    std::fs::write(folder.path().join("tables/clabsi.csv"), "MRN,Encounter,Infection onset,Determination,Reviewed by\n100001,e1,01/09/2026 12:00,not a clabsi,B.\n100001,e1,01/11/2026 08:30,Pending,\n100002,e1,01/11/2026 08:30,CLABSI,\n").unwrap();
    let (code, said, error) = say(&["import", "--dry-run"]).await;
    let expected = "clabsi (clabsi.csv): 3 rows of Observation, which hac-clabsi asks for\n  new: 0\n  changed: 1 (line 2)\n  gone: 0\n  refused: 1 (line 3): column `Determination`: none of the texts that its `map` names\n  held: 1 (line 4): column `MRN`: no patient with this identifier is known here\n";
    assert_eq!((code, said.as_str()), (1, expected), "{error}");
    let (_, said, _) = say(&["import", "--dry-run", "--format", "json"]).await;
    let found: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&found[0]["measures"], &found[0]["changed"]), (&json!(["hac-clabsi"]), &json!({"count": 1, "places": [{"file": 1, "line": 2}]})));
    assert_eq!(counts().await, (1, 1), "nothing was stored");
    let (code, said, error) = say(&["import"]).await;
    assert!(code == 1 && said.contains("(imports): 3 rows read, 1 new or changed, 0 gone, 2 in quarantine"), "{code} {said}{error}");
    assert_eq!(counts().await, (1, 0));
    let (_, said, _) = say(&["status"]).await;
    assert!(said.contains("import clabsi") && said.contains("partial"), "{said}");
    let of_another_name = EXAMPLE.replace("status: final", "status: preliminary").replace("name: clabsi\n", "name: infections\n");
    std::fs::write(folder.path().join("tables/clabsi.yaml"), of_another_name).unwrap();
    let (code, said, error) = say(&["import", "--dry-run"]).await;
    let told = "infections (clabsi.csv): 3 rows of Observation, which hac-clabsi asks for\n  warning: `status` is `preliminary`, and wherever it is looked at hac-clabsi asks for `final` (tables/clabsi.yaml:29:11); no row is counted";
    let gone = "clabsi: no file of `imports.files` declares it any more\n  gone: 2\n";
    assert!(code == 1 && said.contains(told) && said.ends_with(gone), "{code} {said}{error}");
    std::fs::write(folder.path().join("tables/clabsi.yaml"), EXAMPLE.replace("code: clabsi-determination", "code: clabsi-review")).unwrap();
    let (_, said, _) = say(&["import", "--dry-run"]).await;
    let nobody = "no measure asks for `http://watershed.example/fhir/CodeSystem/hac|clabsi-review`: of Observation hac-clabsi asks for other codes";
    assert!(said.contains(&format!("clabsi (clabsi.csv): 3 rows; {nobody}\n")), "{said}");
    let (code, said, _) = say(&["check"]).await;
    assert!(code > 0 && said.contains("imports: is there") && said.contains(&format!("clabsi: {nobody}")), "{said}");
    let (code, said, _) = say(&["check", "--offline"]).await;
    assert!(code == 1 && said.contains("warning: import `clabsi`: no measure asks for `http://watershed.example/fhir/CodeSystem/hac|clabsi-review`"), "{code} {said}");
    std::fs::write(folder.path().join("tables/clabsi.yaml"), EXAMPLE).unwrap();
    let (code, said, _) = say(&["check"]).await;
    assert!(code > 0 && said.contains("imports: is there") && said.contains("clabsi: rows that do not fit, 1 (line 3): column `Determination`"), "{said}");
    std::fs::write(folder.path().join("tables/clabsi.yaml"), EXAMPLE.replace("valueCodeableConcept", "valueCodableConcept")).unwrap();
    let (code, said, _) = say(&["check", "--offline"]).await;
    assert!(code == 3 && said.contains("did you mean `valueCodeableConcept`?") && said.contains("clabsi.yaml:36:3"), "{said}");
}
