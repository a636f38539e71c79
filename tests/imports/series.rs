//! Numbers that another system has counted: what a declaration may say, which rows fit, and what becomes of them night by night.

use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::Value;
use watershed::diagnostic::{Diagnostic, SourceFile};
use watershed::source::import::{self, Counted, Difference, Import, Member};

use crate::bed::{Bed, Wanted, key, output};

pub(crate) const EXAMPLE: &str = include_str!("../../mappings/imports/nhsn-clabsi.yaml");
const ROWS: &str = include_str!("../../mappings/imports/nhsn-clabsi.csv");

/// The example's measure, as a table of its numbers must fit it.
pub(crate) fn infections() -> Counted {
    let member = |code: &'static str| Member { id: code.to_owned(), code, is_observed: false };
    Counted {
        id: "nhsn-clabsi".to_owned(),
        url: "http://watershed.example/fhir/Measure/nhsn-clabsi".to_owned(),
        months: 1,
        members: vec![member("denominator"), member("numerator")],
        within: Vec::new(),
    }
}

fn declare(text: &str, folder: &Path, measure: Counted) -> (Option<Import>, Vec<Diagnostic>) {
    import::parse(&SourceFile::new("nhsn.yaml", text), folder, &TimeZone::UTC, Some(&[measure]))
}

#[test]
fn every_mistake_of_a_series_is_told_where_it_is() {
    let sound = "name: a\nfile: a.csv\nseries:\n  measure: nhsn-clabsi\n  period: Month\n  populations: {denominator: Days, numerator: CLABSI}\n";
    let told = |text: &str| {
        let (import, findings) = declare(text, Path::new("."), infections());
        assert_eq!(import.is_none(), !findings.is_empty(), "{findings:?}");
        findings.iter().map(|finding| format!("{finding}; {}", finding.help.as_deref().unwrap_or_default())).collect::<Vec<_>>()
    };
    assert_eq!(told(sound), [""; 0]);
    assert_eq!(told(EXAMPLE), [""; 0]);
    let cases = [
        (
            "measure: nhsn-clabsi",
            "measure: nhsn-clabsy",
            "error: no measure of this site that is counted elsewhere is named `nhsn-clabsy` (nhsn.yaml:4:12); did you mean `nhsn-clabsi`?",
        ),
        ("  measure: nhsn-clabsi\n", "", "error: the key `measure` is missing (nhsn.yaml:4:3); the id of a measure that says `counted: elsewhere`"),
        ("  period: Month\n", "", "error: the key `period` is missing (nhsn.yaml:4:3)"),
        ("  period: Month\n", "  perriod: Month\n", "error: `series` has no key `perriod` (nhsn.yaml:5:3); did you mean `period`?"),
        ("period: Month", "period: {column: Month, format: \"%Y\"}", "error: `%Y` is no form of a period: it does not tell one month from another (nhsn.yaml:5:36)"),
        ("numerator: CLABSI", "numerater: CLABSI", "error: `nhsn-clabsi` has no population `numerater` (nhsn.yaml:6:36); did you mean `numerator`?"),
        (", numerator: CLABSI", "", "error: the population `numerator` has no column (nhsn.yaml:6:16); name it: `numerator: …`"),
        (
            "numerator: CLABSI",
            "numerator: Days",
            "error: the column `Days` is that of `denominator` too (nhsn.yaml:6:47); name another one: each number has a column of its own",
        ),
        ("numerator: CLABSI", "numerator: Month", "error: the column `Month` is that of `period` too (nhsn.yaml:6:47)"),
        ("numerator: CLABSI", "numerator: 7", "error: `numerator` is a number, expected text (nhsn.yaml:6:47)"),
        ("series:", "key: Month\nseries:", "error: `key` stands beside `series` (nhsn.yaml:3:6); rows of a series are no patients'"),
        ("{denominator: Days, numerator: CLABSI}", "CLABSI", "error: `populations` is text, expected populations with columns (nhsn.yaml:6:16)"),
    ];
    for (written, instead, expected) in cases {
        assert!(sound.contains(written), "{written}");
        let found = told(&sound.replacen(written, instead, 1));
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected}: {found:#?}");
    }
    // Of many tables everybody who is looked at is counted.
    let member = |code: &'static str| Member { id: code.to_owned(), code, is_observed: false };
    let everybody = Counted { members: ["initial-population", "denominator", "numerator"].map(member).into(), ..infections() };
    let (import, findings) = declare(&sound.replace("{denominator: Days", "{initial-population: Days, denominator: Days"), Path::new("."), everybody);
    assert!(import.is_some() && findings.is_empty(), "{findings:?}");
    let (import, findings) = import::parse(&SourceFile::new("nhsn.yaml", sound), Path::new("."), &TimeZone::UTC, None);
    assert!(import.is_none() && findings.is_empty(), "what is wrong with the measures is said of them: {findings:?}");
}

#[test]
fn rows_that_do_not_fit_are_refused_and_a_table_that_is_not_whole_is_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let proportion = Counted { within: vec![(vec![1], 0)], ..infections() };
    let survey = |rows: &str| -> Difference {
        std::fs::write(folder.path().join("nhsn-clabsi.csv"), rows).unwrap();
        let (import, findings) = declare(EXAMPLE, folder.path(), proportion.clone());
        import::survey(&import.unwrap_or_else(|| panic!("{findings:?}"))).unwrap()
    };
    let told = |found: &Difference| {
        let lines = |sort: &import::Sort| sort.places.iter().map(|place| place.line).collect::<Vec<_>>();
        found.refused.iter().map(|(reason, sort)| format!("{:?} {reason}", lines(sort))).collect::<Vec<_>>()
    };
    let found = survey(ROWS);
    assert_eq!((found.rows, found.new.count, told(&found), found.gap), (4, 4, vec![], None));
    let head = "Month,Central line days,CLABSI\n";
    for (rows, expected) in [
        ("Nov 2025,4,5\n", &["[2] `numerator` is more than `denominator`"][..]),
        ("Nov 2025,412,-1\n", &["[2] column `CLABSI`: no whole number as 12"]),
        ("Nov 2025,412,1.5\n", &["[2] column `CLABSI`: no whole number as 12"]),
        ("Nov 2025,412,\n", &["[2] column `CLABSI` is empty"]),
        ("Nov 2025,4120000000,1\n", &["[2] column `Central line days`: no whole number as 12"]),
        ("2025-11,412,1\n", &["[2] column `Month`: no month as `%b %Y` has it"]),
        ("Nov 2025,412\n", &["[2] 2 cells where the heading has 3"]),
        // Nobody can tell which of the two is right; the same twice is no contradiction.
        ("Nov 2025,412,1\nDec 2025,3,0\nNov 2025,412,2\n", &["[2, 4] another row is of its period too, and says something else: neither is taken"]),
        (
            "Nov 2025,412,1\nNov 2025,412,x\n",
            &["[2] another row is of its period too, and says something else: neither is taken", "[3] column `CLABSI`: no whole number as 12"],
        ),
        ("Nov 2025,412,1\nNov 2025,412,01\n", &[]),
    ] {
        assert_eq!(told(&survey(&format!("{head}{rows}"))), expected, "{rows}");
    }
    let gap = |rows: &str| survey(rows).gap.unwrap_or_default();
    assert!(gap("").contains("it is empty"));
    assert!(gap("Month;Central line days;CLABSI\nNov 2025;1;1\n").contains("its cells are parted by `;`"));
    assert!(gap("Month,CLABSI\nNov 2025,1\n").contains("has no column `Central line days`"));
    std::fs::remove_file(folder.path().join("nhsn-clabsi.csv")).unwrap();
    let (import, _) = declare(EXAMPLE, folder.path(), infections());
    assert!(import::survey(&import.unwrap()).unwrap().gap.unwrap().contains("there is no file `nhsn-clabsi.csv`"));
}

/// What the registry shows of the series: period, numerator, denominator, whether its data are complete.
async fn points(bed: &Bed) -> Vec<String> {
    let series: Value = reqwest::get(format!("{}/v1/measures/nhsn-clabsi/series", bed.registry_url)).await.unwrap().json().await.unwrap();
    let point = |point: &Value| {
        let state = if point["complete"] == true { "complete" } else { "partial" };
        let text = |name: &str| point[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}/{} {state}", text("periodStart"), text("numerator"), text("denominator"))
    };
    series["points"].as_array().unwrap_or_else(|| panic!("{series}")).iter().map(point).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_becomes_a_chart_a_changed_row_a_revision_and_a_row_that_is_gone_is_withdrawn() {
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 20, series: Some(ROWS), ..Wanted::default() }).await;
    let write = |rows: &str| std::fs::write(bed.folder.path().join("nhsn.csv"), rows).unwrap();
    let (code, said) = bed.run().await;
    assert_eq!(code, 0, "{said}");
    let first = ["2025-11-01 1/412 complete", "2025-12-01 0/388 complete", "2026-01-01 2/431 complete", "2026-02-01 1/405 complete"];
    assert_eq!(points(&bed).await, first, "{said}");
    let revisions = bed.registry().revisions;
    let (code, said) = bed.run().await;
    assert_eq!((code, bed.registry().revisions), (0, revisions), "nothing has changed: {said}");
    // A row changes, one more is there of a month that is not reported.
    write(&ROWS.replace("Jan 2026,All,431,2", "Jan 2026,All,433,3").replace("Nov 2025", "Oct 2025,All,1,1\nNov 2025"));
    let (code, said) = bed.run().await;
    assert_eq!((code, bed.registry().revisions, &*points(&bed).await[2]), (0, revisions + 1, "2026-01-01 3/433 complete"), "{said}");
    let page = reqwest::get(format!("{}/measures/nhsn-clabsi", bed.registry_url)).await.unwrap().text().await.unwrap();
    assert!(page.contains("Central-line bloodstream infections as reported to NHSN") && page.contains("per 1,000 central line days"), "{page}");
    // A row does not fit: what is stored stands, and its measure alone is partial.
    write(&ROWS.replace("431,2", "433,x"));
    let (code, said) = bed.run().await;
    assert_eq!((code, &*points(&bed).await[2]), (1, "2026-01-01 3/433 partial"), "{said}");
    for other in ["ibd-remission", "hac-clabsi"] {
        let series: Value = reqwest::get(format!("{}/v1/measures/{other}/series", bed.registry_url)).await.unwrap().json().await.unwrap();
        assert!(series["points"].as_array().unwrap().iter().all(|point| point["complete"] == true), "{series}");
    }
    // The table is missing: nothing is let go.
    std::fs::remove_file(bed.folder.path().join("nhsn.csv")).unwrap();
    let (code, said) = bed.run().await;
    assert_eq!((code, points(&bed).await.len()), (1, 4), "{said}");
    // A row is gone.
    write(&ROWS.replace("Dec 2025,All,388,0\n", ""));
    let (code, said) = bed.run().await;
    let without = "look at nhsn-clabsi, 2025-12-01 to 2025-12-31: counted elsewhere, and no row of an import gives numbers of 1 month, of which there is no report: 2025-12";
    assert!(code == 0 && said.contains(without), "{code} {said}");
    assert_eq!(points(&bed).await, [first[0], first[2], first[3]]);
    let status = String::from_utf8(output(bed.command(&["status"])).await.stdout).unwrap();
    assert!(status.contains("no row of an import gives numbers of 1 month"), "{status}");
    // It comes again.
    write(ROWS);
    let (code, said) = bed.run().await;
    assert_eq!((code, points(&bed).await), (0, first.map(str::to_owned).to_vec()), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_gives_the_numbers_of_that_night_and_a_report_names_import_and_file() {
    let bed = Bed::make(Wanted { of_files: true, limit: u64::MAX, patients: 20, series: Some(ROWS), ..Wanted::default() }).await;
    let say = async |arguments: &[&str]| {
        let said = output(bed.command(arguments)).await;
        (said.status.code().unwrap(), String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap())
    };
    let (code, said, error) = say(&["check", "--offline"]).await;
    assert_eq!(code, 0, "{said}{error}");
    assert_eq!(say(&["pull"]).await.0, 0);
    let before = jiff::Timestamp::now().to_string();
    std::fs::write(bed.folder.path().join("nhsn.csv"), ROWS.replace("431,2", "433,3").replace("Feb 2026,All,405,1\n", "")).unwrap();
    let (code, said, error) = say(&["import", "--dry-run"]).await;
    let expected = "nhsn-clabsi (nhsn.csv): 3 rows, each of one period of nhsn-clabsi\n  new: 0\n  changed: 1 (line 4)\n  gone: 1\n";
    assert_eq!((code, said.as_str()), (0, expected), "{error}");
    let (code, said, error) = say(&["import"]).await;
    assert_eq!(code, 0, "{said}{error}");
    let known = async |on: &[&str]| {
        let (_, said, error) = say(&[&["known", "--format", "json", "--period", "2026-01", "--period", "2026-02"], on].concat()).await;
        let reports: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let own: Vec<Value> = reports
            .into_iter()
            .filter(|report| report["measure"] == "http://watershed.example/fhir/Measure/nhsn-clabsi|1.0.0")
            .collect();
        let score = |report: &Value| format!("{} {}", report["period"]["start"].as_str().unwrap(), report["group"][0]["measureScore"]["value"]);
        (own.iter().map(score).collect::<Vec<_>>(), own, error)
    };
    assert_eq!(known(&["--on", &before]).await.0, ["2026-01-01 4.640371229698", "2026-02-01 2.469135802469"]);
    let (scores, reports, error) = known(&[]).await;
    assert_eq!(scores, ["2026-01-01 6.928406466513"], "{error}");
    let populations: Vec<String> = reports[0]["group"][0]["population"]
        .as_array()
        .unwrap()
        .iter()
        .map(|population| format!("{} {}", population["code"]["coding"][0]["code"].as_str().unwrap(), population["count"]))
        .collect();
    assert_eq!(populations, ["denominator 433", "numerator 3"]);
    let lineage = |kind: &str| {
        let extensions = reports[0]["extension"].as_array().unwrap().iter();
        let of_kind = extensions.filter(|one| one["url"].as_str().unwrap().ends_with("/lineage") && one["extension"][0]["valueCode"] == kind);
        of_kind.map(|one| one["extension"][1]["valueString"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((lineage("import"), lineage("mapping")), (vec!["nhsn-clabsi".to_owned()], vec![]));
}

/// A site with three measures that others count, each of another scoring and by periods of another length.
fn others(folder: &Path) {
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    };
    let measure = |id: &str, scoring: &str, period: &str, populations: &str| {
        let head = format!("id: {id}\nurl: http://n.example/Measure/{id}\nversion: 1.0.0\nstatus: draft\ntitle: {id}\ndescription: Counted by others.\nsteward: X\n");
        write(&format!("{id}/measure.yaml"), &format!("{head}scoring: {scoring}\ncounted: elsewhere\nimprovement: decrease\nperiod: {period}\npopulations:\n{populations}"));
    };
    measure("absences", "proportion", "month", "  - code: initial-population\n  - code: denominator\n  - code: denominator-exclusion\n  - code: numerator\n");
    measure("wait", "continuous-variable", "quarter", "  - code: measure-population\n  - {code: measure-observation, of: measure-population, aggregate: median}\n");
    measure("births", "cohort", "year", "  - code: initial-population\n");
    let import = |name: &str, more: &str| write(&format!("{name}.yaml"), &format!("name: {name}\nfile: {name}.csv\n{more}"));
    let populations = "{initial-population: Enrolled, denominator: At risk, denominator-exclusion: Moved, numerator: Absent}";
    import("absences", &format!("delimiter: ';'\nseries: {{measure: absences, period: Month, populations: {populations}}}\n"));
    import("wait", "series: {measure: wait, period: Quarter, populations: {measure-population: Children, measure-observation: Median days}}\n");
    import("births", "series: {measure: 'http://n.example/Measure/births', period: {column: Year, format: FY%Y}, populations: {initial-population: Births}}\n");
    // As Excel writes it.
    write("absences.csv", "\u{feff}Month;Enrolled;At risk;Moved;Absent\r\n2025-03;100;90;10;20\r\n");
    write("wait.csv", "Quarter,Children,Median days\n2025-Q1,40,23.5\n2025-Q2,0,\n");
    write("births.csv", "Year,Births\nFY2025,12345\n");
    write("drop/Patient.ndjson", "{\"resourceType\":\"Patient\",\"id\":\"p1\"}\n");
    key(folder, "key.pem");
    write(
        "site.toml",
        "[site]\nid = \"lakeside\"\ntime_zone = \"America/New_York\"\n[source]\nfolder = \"drop\"\n[imports]\nfiles = [\"absences.yaml\", \"wait.yaml\", \"births.yaml\"]\n\
         [measures]\nfolders = [\"absences\", \"wait\", \"births\"]\n[registry]\nurl = \"http://127.0.0.1:9\"\nclient_id = \"lakeside\"\nkey_file = \"key.pem\"\n",
    );
}

#[tokio::test]
async fn every_scoring_and_length_of_periods_has_its_reports() {
    let folder = tempfile::tempdir().unwrap();
    others(folder.path());
    let say = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"));
        command.args(arguments).current_dir(folder.path());
        let said = output(command).await;
        (said.status.code().unwrap(), String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap())
    };
    let (code, said, error) = say(&["pull"]).await;
    assert_eq!(code, 0, "{said}{error}");
    let months: Vec<String> = (1..=12).flat_map(|month| ["--period".to_owned(), format!("2025-{month:02}")]).collect();
    let known: Vec<&str> = ["known", "--format", "json"].into_iter().chain(months.iter().map(String::as_str)).collect();
    let (code, said, error) = say(&known).await;
    let reports: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let one = |report: &Value| {
        let measure = report["measure"].as_str().unwrap().rsplit('/').next().unwrap();
        format!("{measure} {} {}", report["period"]["start"].as_str().unwrap(), report["group"][0]["measureScore"]["value"])
    };
    let expected = ["absences|1.0.0 2025-03-01 0.25", "wait|1.0.0 2025-01-01 23.5", "wait|1.0.0 2025-04-01 null", "births|1.0.0 2025-01-01 null"];
    assert_eq!((code, reports.iter().map(one).collect::<Vec<_>>()), (0, expected.map(str::to_owned).to_vec()), "{error}");
    assert_eq!(reports[3]["group"][0]["population"][0]["count"], 12345);
    let without = "of 11 months, of which there is no report: 2025-01 to 2025-02, 2025-04 to 2025-12\n";
    assert!(error.contains(without) && error.contains("0 failed their check"), "{error}");
    // A row that does not fit: what is stored stands, and is partial.
    std::fs::write(folder.path().join("births.csv"), "Year,Births\nFY2025,many\n").unwrap();
    let (code, said, error) = say(&["import"]).await;
    assert!(code == 1 && said.contains("1 in quarantine"), "{said}{error}");
    let (code, said, _) = say(&["known", "--period", "2025-12"]).await;
    assert!(code == 1 && said.lines().any(|line| line.contains("births|1.0.0") && line.contains("12345") && line.contains("partial")), "{said}");
    let again = folder.path().join("births.yaml");
    std::fs::write(
        &again,
        std::fs::read_to_string(&again)
            .unwrap()
            .replace("'http://n.example/Measure/births'", "wait")
            .replace("initial-population: Births", "measure-population: Births, measure-observation: Weight")
            .replace("FY%Y", "'%m/%d/%Y'"),
    )
    .unwrap();
    let (code, said, _) = say(&["check", "--offline"]).await;
    assert!(code == 3 && said.contains("`wait` and `births` both have the numbers of one measure"), "{code} {said}");
    let site = folder.path().join("site.toml");
    std::fs::write(&site, std::fs::read_to_string(&site).unwrap().replace(", \"births.yaml\"", "")).unwrap();
    let (code, said, _) = say(&["check", "--offline"]).await;
    assert!(code == 1 && said.contains("warning: `births` is counted elsewhere, and no import brings its numbers"), "{code} {said}");
}
