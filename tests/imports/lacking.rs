//! Whom the rows mean, and what a table lacks: rows that nobody is known of, that are gone, or cut.

use super::{EXAMPLE, LAB, ROWS, Ward, output, site};

const MISSPELT: &str = "no Patient has an identifier of";

fn person(id: &str, numbers: &[&str], replaced_by: &str) -> String {
    let numbers: Vec<String> = numbers.iter().map(|number| format!(r#"{{"system":"http://h/mrn","value":"{number}"}}"#)).collect();
    let link = format!(r#","link":[{{"other":{{"reference":"Patient/{replaced_by}"}},"type":"replaced-by"}}]"#);
    let link = if replaced_by.is_empty() { "" } else { link.as_str() };
    format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"identifier\":[{}]{link}}}\n", numbers.join(","))
}

/// How many of a patient's lines are of the table.
fn rows_of(ward: &Ward, patient: &str) -> usize {
    ward.lines_of(patient).iter().filter(|line| line["meta"]["tag"][0]["code"] == "lab").count()
}

#[tokio::test]
async fn a_row_of_who_was_merged_into_another_is_that_ones() {
    for others in ["hold", "ignore"] {
        let ward = Ward::new().with(&[&LAB.replace("http://h/mrn}", &format!("http://h/mrn, others: {others}}}"))]);
        assert!(ward.pull().await.complete);
        let rest = person("p2", &["0020"], "") + &person("p3", &["0030"], "");
        ward.write("drop/Patient.ndjson", person("p1", &["0010"], "p2") + &rest);
        let merged = ward.pull().await;
        // As they were: what is written of the one counts as the other's.
        assert_eq!((merged.complete, merged.removed, ward.difference().ignored, ward.stored()), (true, 0, 0, (3, 3)), "{others}: {:?}", ward.held());
        assert_eq!((rows_of(&ward, "p1"), rows_of(&ward, "p2")), (2, 1), "{others}");
        // Both have the number: it is one person, and who stands for her is meant.
        ward.write("drop/Patient.ndjson", person("p1", &["0010"], "p2") + &person("p2", &["0020", "0010"], "") + &person("p3", &["0030"], ""));
        let both = ward.pull().await;
        assert_eq!((both.complete, ward.stored(), rows_of(&ward, "p2")), (true, (3, 3), 3), "{others}: {:?}", ward.held());
    }
    // The encounter of the one is the other's.
    let ward = Ward::new().with(&[&LAB.replace("remark: {type: text,", "remark: {type: encounter,")]);
    ward.write("lab.csv", "MRN,day,value,remark\n0010,2026-01-01,1.50,e2\n");
    assert!(!ward.pull().await.complete);
    assert_eq!(ward.held(), [(2, "its encounter is another patient's".to_owned())]);
    ward.write("drop/Patient.ndjson", person("p1", &["0010"], "p2") + &person("p2", &["0020"], "") + &person("p3", &["0030"], ""));
    assert_eq!((ward.pull().await.complete, ward.stored()), (true, (3, 1)), "{:?}", ward.held());
}

#[tokio::test]
async fn rows_of_which_nobody_is_known_are_a_gap_that_names_what_is_near() {
    let rows = |mrn: &str, count: u32| {
        std::iter::once("MRN,day,value,remark\n".to_owned())
            .chain((1..=count).map(|n| format!("{mrn},2026-01-0{n},{n},\n")))
            .collect::<String>()
    };
    for others in ["hold", "ignore"] {
        for (system, mrn, count, expected) in [
            ("http://h/MRN", "0010", 3, "3 rows of those who are not known here: no Patient has an identifier of `http://h/MRN`; did you mean `http://h/mrn`?"),
            ("urn:oid:1.2.3", "0010", 1, "1 row of those who are not known here: no Patient has an identifier of `urn:oid:1.2.3`; theirs are of `http://h/mrn`"),
            ("http://h/mrn", "10", 3, "3 rows of those who are not known here: are their identifiers written as in the EHR (leading zeros, a prefix)"),
            ("http://h/mrn", "99", 2, ""),
        ] {
            let ward = Ward::new().with(&[&LAB.replace("http://h/mrn}", &format!("{system}, others: {others}}}"))]);
            ward.write("lab.csv", rows(mrn, count));
            let found = ward.pull().await;
            let foreseen = ward.difference().gap;
            if expected.is_empty() {
                assert_eq!((found.complete, found.gaps.len(), foreseen), (others == "ignore", 0, None), "{system} {mrn} {others}");
                continue;
            }
            let expected = format!("none of its rows is taken, {expected}");
            assert!(found.gaps.len() == 1 && found.gaps[0].reason.starts_with(&format!("import lab: {expected}")), "{others}: {:?}", found.gaps);
            assert!(foreseen.as_ref().is_some_and(|gap| gap.starts_with(&expected)), "{foreseen:?}");
            // A person may say that it is so.
            let accepted = ward.bring(true).unwrap();
            assert_eq!(accepted.gaps, [], "{others}");
        }
    }
}

#[tokio::test]
async fn what_was_discarded_and_never_stored_makes_up_for_nothing_that_is_gone() {
    let row = |mrn: &str, day: u32, value: &str| format!("{mrn},2026-01-{day:02},{value},\n");
    let table = |rows: &[String]| "MRN,day,value,remark\n".to_owned() + &rows.concat();
    let own: Vec<String> = (1..=10).map(|day| row("0010", day, "1")).collect();
    let of_others: Vec<String> = (1..=4).map(|day| row("0099", day, "1")).collect();
    let ward = Ward::new();
    ward.write("lab.csv", table(&own));
    assert!(ward.pull().await.complete);
    ward.write("lab.csv", table(&[&own[..], &of_others].concat()));
    assert_eq!(ward.pull().await.quarantined, 4);
    ward.discard_all();
    assert!(ward.pull().await.complete && ward.stored() == (3, 10));
    ward.write("lab.csv", table(&[&own[..6], &of_others].concat()));
    let gone = ward.pull().await;
    let expected = "6 rows are in it (beside 4 that were discarded) where 10 are stored";
    assert!(gone.gaps.len() == 1 && gone.gaps[0].reason.contains(expected) && ward.stored() == (3, 10), "{:?}", gone.gaps);
    // Of rows that are stored a person has decided that they go.
    let wrong: Vec<String> = (7..=10).map(|day| row("0010", day, "high")).collect();
    ward.write("lab.csv", table(&[&own[..6], &of_others, &wrong].concat()));
    assert_eq!(ward.pull().await.quarantined, 4);
    ward.discard_all();
    let decided = ward.pull().await;
    assert_eq!((decided.complete, decided.removed, ward.stored()), (true, 4, (3, 6)), "{:?}", decided.gaps);
}

#[tokio::test]
async fn a_table_that_had_its_last_end_of_line_and_has_it_no_more_was_cut() {
    let ward = Ward::new();
    let whole = "MRN,day,remark,value\n0010,2026-01-01,,1.50\n0020,2026-01-01,,12.75";
    let value = |ward: &Ward| {
        let of_table = |line: &serde_json::Value| line["meta"]["tag"][0]["code"] == "lab";
        ward.lines_of("p2").into_iter().find(of_table).unwrap()["valueQuantity"]["value"].to_string()
    };
    // Some write none.
    ward.write("lab.csv", whole);
    assert!(ward.pull().await.complete && value(&ward) == "12.75");
    ward.write("lab.csv", whole.replace("12.75", "12.7"));
    assert!(ward.pull().await.complete && value(&ward) == "12.7");
    ward.write("lab.csv", format!("{whole}\r\n"));
    assert!(ward.pull().await.complete && value(&ward) == "12.75");
    for cut in [whole.replace("12.75", "1"), whole.to_owned()] {
        ward.write("lab.csv", cut);
        let foreseen = ward.difference();
        let found = ward.pull().await;
        let expected = "`lab.csv`: it is cut short: its last row has no end of line, which it had before";
        assert!(found.gaps.len() == 1 && found.gaps[0].reason.contains(expected), "{:?}", found.gaps);
        assert!(foreseen.gap.unwrap().contains(expected) && foreseen.changed.count == 0);
        assert_eq!((found.removed, found.new_versions, value(&ward)), (0, 0, "12.75".to_owned()));
    }
    // Whoever says that it is whole is believed, then and later.
    assert!(ward.bring(true).unwrap().complete);
    assert!(ward.pull().await.complete);
}

#[tokio::test]
async fn check_a_dry_run_a_pull_and_the_status_say_whom_nobody_knows_and_what_goes() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path());
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let say = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"));
        command.args(arguments).current_dir(folder.path());
        let output = output(command).await;
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = say(&["pull"]).await;
    assert_eq!(code, 0, "{said}");
    write("tables/clabsi.yaml", &EXAMPLE.replace("http://hospital.example/mrn}", "http://hospital.example/MRN, others: ignore}"));
    for command in [&["check"][..], &["import", "--dry-run"]] {
        let (code, said) = say(command).await;
        assert!(code != 0 && said.contains(MISSPELT), "{command:?} {code} {said}");
    }
    // The same rows by two names.
    write("tables/clabsi.yaml", EXAMPLE);
    write("tables/again.yaml", &EXAMPLE.replace("name: clabsi\n", "name: again\n"));
    let text = std::fs::read_to_string(folder.path().join("site.toml")).unwrap();
    write("site.toml", &text.replace("files = [\"tables/clabsi.yaml\"]", "files = [\"tables/clabsi.yaml\", \"tables/again.yaml\"]"));
    let twice = "import `again` reads a file that `clabsi` (tables/clabsi.yaml:28:3) reads, into the same `Observation`";
    for command in [&["check", "--offline"][..], &["import", "--dry-run"]] {
        let (code, said) = say(command).await;
        assert!(code == 1 && said.contains(twice), "{command:?} {code} {said}");
    }
    // None is declared any more.
    write("site.toml", &text.replace("files = [\"tables/clabsi.yaml\"]", ""));
    let (code, said) = say(&["check", "--offline"]).await;
    assert!(code == 1 && said.contains("no file of `imports.files` declares `clabsi` any more: the next pull removes 2 stored rows"), "{code} {said}");
    let gone = "2 rows of `clabsi`, which no file of `imports.files` declares any more, removed";
    let (code, said) = say(&["pull"]).await;
    assert!(code == 0 && said.contains(&format!("note: Observation ({gone})")), "{code} {said}");
    let (_, said) = say(&["status", "--format", "json"]).await;
    assert!(said.contains(gone), "{said}");
    let (_, said) = say(&["check", "--offline"]).await;
    assert!(!said.contains("declares"), "{said}");
}

#[tokio::test]
async fn an_import_that_is_declared_no_more_is_noted_when_its_rows_go() {
    let mut ward = Ward::new();
    ward.write("lab.csv", ROWS);
    assert_eq!(ward.pull().await.notes, []);
    ward.declare(&[]);
    let noted: Vec<String> = ward.pull().await.notes.into_iter().map(|note| note.reason).collect();
    assert_eq!(noted, ["3 rows of `lab`, which no file of `imports.files` declares any more, removed"]);
    assert_eq!(ward.pull().await.notes, []);
}
