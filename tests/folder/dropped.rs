//! What lies in a folder beside data, or in their place; what several nights drop side by side; and what files say is deleted.

use std::os::unix::fs::symlink;

use super::*;

fn reasons(found: &PullOutcome) -> Vec<(&str, &str)> {
    found.gaps.iter().map(|gap| (gap.resource_type.as_str(), gap.reason.as_str())).collect()
}

/// The rest is read and kept; what is blocked is told by a digest of its name, until it is gone.
#[tokio::test]
async fn what_cannot_be_followed_is_a_gap_and_the_rest_is_read() {
    let nested = ["Smith"; 10].join("/");
    type Case<'c> = (&'c str, &'c dyn Fn(&Yard), &'c str);
    let cases: [Case<'_>; 4] = [
        ("a link to nothing", &|yard| symlink("/gone/2026-11-29", yard.path("latest")).unwrap(), "it is a link to nothing that can be read"),
        ("one of a type", &|yard| symlink("/gone/x", yard.path("Encounter.1.ndjson")).unwrap(), "it is a link to nothing that can be read"),
        ("a link to itself", &|yard| symlink("smith", yard.path("smith")).unwrap(), "it is a link to nothing that can be read"),
        ("too deep", &|yard| std::fs::create_dir_all(yard.path(&nested)).unwrap(), "it lies more than 8 folders deep"),
    ];
    for (case, block, reason) in cases {
        let yard = Yard::new();
        assert!(yard.pull().await.complete);
        block(&yard);
        for night in 1..=2 {
            let found = yard.pull().await;
            let told = reasons(&found);
            assert!(!found.complete && found.removed == 0 && found.received["Patient"] == 3, "{case}, night {night}: {told:?}");
            assert!(told.len() == 1 && told[0].1.contains(reason) && !told[0].1.to_lowercase().contains("smith"), "{case}, night {night}: {told:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_data_is_passed_over() {
    let yard = Yard::new();
    for name in ["Encounter.ndjson.sha256", "Encounter.ndjson.md5", "._Encounter.ndjson", ".DS_Store", "Thumbs.db", "_SUCCESS", "lost+found/Patient.ndjson"] {
        yard.write(name, "x");
    }
    symlink("/gone", yard.path("README.txt")).unwrap();
    let first = yard.pull().await;
    assert!(first.complete && first.notes.is_empty(), "{:?} {:?}", first.gaps, first.notes);
    symlink(".", yard.path("latest")).unwrap();
    yard.write("Encounter.ndjson", visits() + "\n");
    for full in [true, false] {
        let found = yard.pull().await;
        let notes: Vec<&str> = found.notes.iter().map(|note| note.reason.as_str()).collect();
        assert_eq!((found.complete, found.full, notes.len()), (true, full, 1), "{:?} {notes:?}", found.gaps);
        assert!(notes[0].contains("it is a link to a folder in which it lies itself, and is passed over"), "{notes:?}");
    }
}

#[tokio::test]
async fn what_a_file_is_in_truth_is_told_or_read() {
    let plain = Yard::new();
    plain.pull().await;
    for (name, content) in [("Encounter.ndjson", gzip(&visits())), ("Encounter.ndjson", zstd(&visits())), ("Encounter.json", gzip(&bundle(&visits())))] {
        let yard = Yard::new();
        yard.remove("Encounter.ndjson");
        yard.write(name, content);
        let found = yard.pull().await;
        assert!(found.complete && yard.digest() == plain.digest(), "{name}: {:?}", found.gaps);
    }
    let list = format!("[{}]", visits().trim_end().replace('\n', ","));
    let one: serde_json::Value = serde_json::from_str(visits().lines().next().unwrap()).unwrap();
    let cases = [
        ("Encounter.ndjson", list.clone(), "it is a JSON list: have each resource written as a line of NDJSON"),
        ("Encounter.json", list, "it is a JSON list"),
        ("Encounter.ndjson", format!("{one:#}"), "its first line is not a whole resource: have each written in one line, or name the file `.json`"),
    ];
    for (name, content, reason) in cases {
        let yard = Yard::new();
        yard.remove("Encounter.ndjson");
        yard.write(name, content);
        let found = yard.pull().await;
        let told = reasons(&found);
        assert!(found.quarantined == 0 && told.iter().any(|(of, why)| *of == "Encounter" && why.contains(reason)), "{name}: {told:?}");
    }
}

fn many(ids: std::ops::Range<u32>) -> String {
    ids.map(|n| format!("{{\"resourceType\":\"Observation\",\"id\":\"m{n}\",\"subject\":{{\"reference\":\"Patient/p1\"}}}}\n"))
        .collect()
}

/// What is gone from the newest would be counted for ever.
#[tokio::test]
async fn nights_that_each_bring_everything_are_told_and_increments_are_not() {
    let dropped = async |names: [&str; 2], second: std::ops::Range<u32>| {
        let yard = Yard::new();
        yard.remove("Observation.ndjson");
        yard.write(names[0], many(0..60));
        yard.write(names[1], many(second));
        let types = ["Patient", "Encounter", "Observation", "Location"].map(str::to_owned).into();
        let survey = watershed::source::folder::survey(yard.drop.path(), &types, &Default::default()).unwrap();
        (yard.pull().await, survey.troubles)
    };
    for names in [["2026-11-28/Observation.ndjson", "2026-11-29/Observation.ndjson"], ["Observation.20261128.ndjson", "Observation.20261129.ndjson"]] {
        let (found, troubles) = dropped(names, 1..60).await;
        let told = reasons(&found);
        assert!(!found.complete && told.len() == 1 && told[0].0 == "Observation", "{told:?}");
        assert!(
            told[0]
                .1
                .contains("there are files of 2 nights, and of Observation one night brings nearly all again that the one before has"),
            "{told:?}"
        );
        let remedy = "keep one folder that is replaced each night, or let `source.folder` name the newest (`folder = \"drop/latest\"`)";
        assert!(troubles.len() == 1 && troubles[0].0 == "folder" && troubles[0].1.contains(remedy), "{troubles:?}");
        let (increments, troubles) = dropped(names, 60..75).await;
        assert!(increments.complete && troubles.is_empty(), "{:?} {troubles:?}", increments.gaps);
    }
    let (wards, troubles) = dropped(["ward-1/Observation.ndjson", "ward-2/Observation.ndjson"], 0..60).await;
    assert!(wards.complete && troubles.is_empty(), "no nights: {:?}", wards.gaps);
}

/// Which of the two came later is told by their times, in a history else by its order; what cannot be told is kept, and a gap until it can.
#[tokio::test]
async fn a_deletion_holds_where_it_came_later() {
    let line = |updated: &str| observations().lines().next().unwrap().replacen('{', &format!("{{\"meta\":{{{updated}}},"), 1);
    let dated = |day: u32| line(&format!("\"lastUpdated\":\"2026-11-{day:02}T12:00:00Z\""));
    let there = |line: &str| format!("{{\"resource\":{line},\"request\":{{\"method\":\"PUT\",\"url\":\"Observation/o1\"}}}}");
    let gone = |response: &str| format!("{{\"request\":{{\"method\":\"DELETE\",\"url\":\"Observation/o1\"}}{response}}}");
    let gone_on = |day: u32| gone(&format!(",\"response\":{{\"status\":\"204\",\"lastModified\":\"2026-11-{day:02}T12:00:00Z\"}}"));
    let bundle = |kind: &str, entries: &[String]| format!("{{\"resourceType\":\"Bundle\",\"type\":\"{kind}\",\"entry\":[{}]}}", entries.join(","));
    let export = bundle("transaction", &[gone("")]).replacen('{', "{\"meta\":{\"lastUpdated\":\"2026-11-20T12:00:00Z\"},", 1);
    let undated = line("\"source\":\"x\"");
    const UNTOLD: &str = "deletions: 1 are in files, and said to be deleted in files, and not which of it came later; they are kept";
    let cases: [(&str, String, Option<String>, bool, bool); 11] = [
        ("later", dated(1), Some(bundle("history", &[gone_on(20)])), false, true),
        ("earlier", dated(25), Some(bundle("history", &[gone_on(20)])), true, true),
        ("an export's, later", dated(1), Some(export.clone()), false, true),
        ("an export's, earlier", dated(25), Some(export), true, true),
        ("at the same time", dated(20), Some(bundle("history", &[gone_on(20)])), true, false),
        ("of one the time is not known", undated.clone(), Some(bundle("history", &[gone_on(20)])), true, false),
        ("of the other", dated(1), Some(bundle("transaction", &[gone("")])), true, false),
        ("a history, by its times", bundle("history", &[gone_on(20), there(&dated(1))]), None, false, true),
        ("by its order", bundle("history", &[gone(""), there(&undated)]), None, false, true),
        ("there again, by its times", bundle("history", &[there(&dated(25)), gone_on(20), there(&dated(1))]), None, true, true),
        ("by its order", bundle("history", &[there(&undated), gone(""), there(&line("\"source\":\"y\""))]), None, true, true),
    ];
    for (case, first, second, stays, is_told) in cases {
        let yard = Yard::new();
        assert!(yard.pull().await.complete);
        yard.write("Observation.ndjson", observations().lines().skip(1).collect::<Vec<_>>().join("\n"));
        yard.write("a.ndjson", first);
        second.into_iter().for_each(|text| yard.write("deleted/Bundle.ndjson", text));
        let found = yard.pull().await;
        let told = reasons(&found);
        assert_eq!((yard.counts()["Observation"], found.complete), (if stays { 3 } else { 2 }, is_told), "{case}: {told:?}");
        assert!(is_told || told == [("Observation", UNTOLD)] || told == [("Observation", UNTOLD.strip_prefix("deletions: ").unwrap())], "{case}: {told:?}");
    }
}
