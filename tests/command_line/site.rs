//! The commands at a hospital: `check`, `pull --dry-run`, and what a night leaves to be shown, decided and sent.

use std::process::Stdio;

use serde_json::Value;
use watershed::sandbox::Fault;
use watershed::store::Store;

use super::{Said, command, say, sound_site, spoil};
use crate::bed::{Bed, Wanted, output};

/// What is left out or written otherwise than most do is read all the same, and `check` says how.
#[test]
fn check_says_which_zone_is_assumed_and_how_six_fields_of_cron_are_read() {
    let folder = sound_site();
    let told = |said: &Said| {
        let findings = said.json()["findings"].as_array().unwrap().clone();
        let messages = findings.iter().map(|found| found["message"].as_str().unwrap().to_owned());
        messages.filter(|message| message.contains("time_zone") || message.contains("fields")).collect::<Vec<_>>()
    };
    let check = || say(folder.path(), &["check", "--offline", "--format", "json"]);
    assert_eq!((check().code, told(&check())), (0, Vec::<String>::new()));
    spoil(&folder.path().join("site.toml"), "time_zone = \"America/New_York\"\n", "");
    let said = check();
    assert_eq!((said.code, told(&said)), (0, vec!["`site.time_zone` is not written: days, months and nights are meant in UTC".to_owned()]));
    spoil(&folder.path().join("site.toml"), "[registry]", "[schedule]\ncron = \"0 30 1 * * *\"\n[registry]");
    let said = check();
    assert_eq!((said.code, told(&said)[1].as_str()), (1, "`0 30 1 * * *` has six fields: the first is seconds, the next minutes"));
}

#[test]
fn check_finds_every_mistake_of_configuration_mapping_measures_and_cases_at_once() {
    let folder = sound_site();
    let at = |path: &str| folder.path().join(path);
    let sound = say(folder.path(), &["check", "--offline", "--format", "json"]);
    assert_eq!((sound.code, sound.err.as_str()), (0, ""), "{}", sound.out);
    // Of what the mapping knows for measures that this site does not have.
    assert_eq!(sound.json()["findings"].as_array().unwrap().iter().map(|found| found["severity"].as_str().unwrap()).collect::<Vec<_>>(), ["note", "note"]);
    assert_eq!(sound.json()["measures"].as_array().map(Vec::len), Some(2));

    let site = at("site.toml");
    for (from, to) in [
        ("id = \"lakeside\"", "id = 5"),
        ("America/New_York", "America/New_Yorc"),
        ("key_file = \"ehr-key.pem\"", "key_file = \"ehr-key.pem\"\npage_sise = 100\nrequests_at_once = 0"),
        ("http://127.0.0.1:9/fhir", "ehr.example.org/fhir"),
        ("months = 2", "months = \"two\"\n[schedule]\ncron = \"nightly\""),
        ("http://127.0.0.1:9\"", "http://registry.example.org\""),
        ("registry-key.pem", "mappings/sites/harbor.yaml"),
    ] {
        spoil(&site, from, to);
    }
    spoil(&at("mappings/measures/ibd/remission/measure.yaml"), "define: Numerator", "define: Numertor");
    spoil(&at("mappings/measures/ibd/remission/ibd-remission.cql"), "exists", "exist");
    spoil(&at("mappings/measures/hac/clabsi/cases/04-infection.yaml"), "denominator-observation:", "denominator-observatoin:");
    spoil(&at("mappings/sites/harbor.yaml"), "elements: [Device.type]", "elements: [Devise.type]");
    spoil(&at("mappings/sites/harbor.yaml"), "raceEthnicity: us-core-omb-1997", "raceEthnicity: us-core");
    let said = say(folder.path(), &["check", "--format", "json"]);
    assert_eq!(said.code, 3, "{}", said.out);
    let place = |found: &Value| format!("{}:{}:{} {}", found["at"]["file"].as_str().unwrap(), found["at"]["line"], found["at"]["column"], found["message"].as_str().unwrap());
    let mut lines: Vec<String> = said.json()["findings"].as_array().unwrap().iter().map(place).collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n").replace(&folder.path().display().to_string(), "FOLDER"), @"
    mappings/measures/hac/clabsi/cases/04-infection.yaml:20:58 the measure has no population `denominator-observatoin`
    mappings/measures/ibd/remission/ibd-remission.cql:37:3 no function `exist`
    mappings/sites/harbor.yaml:34:16 FHIR R4 has no resource type `Devise`
    mappings/sites/harbor.yaml:9:16 no race and ethnicity policy is named `us-core`
    site.toml:10:20 `source.requests_at_once` is 0
    site.toml:17:10 `measures.months` must be a whole number, found string
    site.toml:19:8 `nightly` is no cron expression: invalid pattern: pattern must have between 5 and 7 fields
    site.toml:22:7 `registry.url` is plain HTTP to another host
    site.toml:24:12 `mappings/sites/harbor.yaml` is not a usable private key: expected RSA (at least 2048 bits) or EC P-384, as PEM (PKCS#8 or PKCS#1) or as a private JWK
    site.toml:2:6 `site.id` must be text in quotes, found integer
    site.toml:3:13 no time zone is named `America/New_Yorc`
    site.toml:6:7 `ehr.example.org/fhir` is no address: relative URL without a base
    site.toml:9:1 unknown key `source.page_sise`
    ");
    let people = say(folder.path(), &["check"]);
    assert_eq!(people.code, 3);
    for found in said.json()["findings"].as_array().unwrap() {
        // The renderer wraps long messages.
        let start: String = found["message"].as_str().unwrap().chars().take(40).collect();
        assert!(people.out.contains(&start), "{start} is missing in\n{}", people.out);
    }
}

/// What a mapping leads to is held against what the measures ask for; a file beside it is called what it is.
#[test]
fn check_says_which_rules_of_a_mapping_lead_nowhere() {
    let folder = sound_site();
    let harbor = folder.path().join("mappings/sites/harbor.yaml");
    let found = || {
        let said = say(folder.path(), &["check", "--offline", "--format", "json"]);
        let line =
            |found: &Value| format!("{}:{} {}; {}", found["at"]["line"], found["severity"].as_str().unwrap(), found["message"].as_str().unwrap(), found["help"].as_str().unwrap());
        (said.code, said.json()["findings"].as_array().unwrap().iter().map(line).filter(|line| !line.contains(":note ")).collect::<Vec<_>>())
    };
    let sound = std::fs::read_to_string(&harbor).unwrap();
    assert_eq!(found(), (0, vec![]));
    spoil(&harbor, "\"1\": quiescent", "\"1\": quiesent");
    spoil(&harbor, "to: http://snomed.info/sct", "to: snomed");
    assert_eq!(
        found(),
        (
            1,
            vec![
                "21:warning no measure asks for `quiesent` of `http://watershed.example/fhir/CodeSystem/ibd`; did you mean `quiescent`?".to_owned(),
                "25:warning `snomed` is not how FHIR names this code system, and codes under two names are never equal; did you mean `http://snomed.info/sct`?".to_owned()
            ]
        )
    );
    let lines = "map:\n      CVC: {code: \"52124006\", display: Central venous catheter}\n      PICC: {code: \"52124006\", display: Central venous catheter}\n      PORT: {code: \"52124006\", display: Central venous catheter}";
    std::fs::write(&harbor, sound.replace(lines, "csv: lines.csv")).unwrap();
    let table = folder.path().join("mappings/sites/lines.csv");
    std::fs::create_dir(&table).unwrap();
    let told = |what: &str| {
        let said = say(folder.path(), &["check", "--offline"]);
        assert!(said.code == 3 && said.out.contains(what), "{what}\n{}", said.out);
    };
    told("`mappings/sites/lines.csv` is a folder, expected a file");
    std::fs::remove_dir(&table).unwrap();
    told("file `lines.csv` cannot be read");
    std::fs::write(&table, [0xff, 0xfe, b'l', 0]).unwrap();
    told("`mappings/sites/lines.csv` is UTF-16, expected UTF-8");
    std::fs::write(&harbor, [0xff, 0xfe, b'l', 0]).unwrap();
    told("`mappings/sites/harbor.yaml` is UTF-16, expected UTF-8");
}

#[test]
fn check_has_words_for_values_that_cannot_be() {
    let folder = sound_site();
    let with = |variables: &[(&str, &str)]| Said::of(command(folder.path(), &["check", "--offline"]).envs(variables.iter().copied()).output().unwrap());
    let site = folder.path().join("site.toml");
    let sound = std::fs::read_to_string(&site).unwrap();
    for (spoilt, parts) in [
        (
            &[
                ("[source]", "[source]\nmode = \"serch\"\ntype_filter = \"comma\"\ngroup = \"Group/g1\""),
                ("months = 2", "months = -2"),
                ("\"lakeside\"", "\"Lake Side\""),
                ("[mapping]", "[schedule]\ncron = \"0 1 30 2 *\"\n[mapping]"),
                ("time_zone", "data = \"site.toml/data\"\ntime_zone"),
            ][..],
            &[
                "site.toml:7:8",
                "`source.mode` is `serch`",
                "it is one of `auto`, `bulk`, `search`; did you mean `search`?",
                "`source.type_filter` is `comma`",
                "it is one of `off`, `encoded`, `escaped`",
                "`measures.months` is -2",
                "a whole number, not a negative one",
                "`Lake Side` is no site name",
                "lower-case letters, digits and hyphens",
                "`Group/g1` is no id of a Group",
                "write the id alone: `g1`",
                "`0 1 30 2 *` never comes",
                "`site.toml/data` cannot be written",
                "it is a file",
                "name a directory that its user may write",
            ][..],
        ),
        (&[("time_zone", "data = \"/proc/none/data\"\ntime_zone")], &["`/proc/none/data` cannot be written: `/proc`: "]),
    ] {
        std::fs::write(&site, &sound).unwrap();
        spoilt.iter().for_each(|(from, to)| spoil(&site, from, to));
        let said = with(&[]);
        for part in parts {
            assert!(said.code == 3 && said.out.contains(part), "`{part}` is missing in\n{}{}", said.out, said.err);
        }
    }
    std::fs::write(&site, &sound).unwrap();
    let said = with(&[("WATERSHED__SITE__TIME_ZONE", "America/New_Yorc"), ("WATERSHED__MEASURES__MONTHS", "many"), ("WATERSHED__SOURCE__MODE", "bulck")]);
    for part in [
        "no time zone is named `America/New_Yorc`",
        "environment variable WATERSHED__SITE__TIME_ZONE",
        "`measures.months` must be a whole number, found text",
        "environment variable WATERSHED__MEASURES__MONTHS",
        "did you mean `bulk`?",
        "environment variable WATERSHED__SOURCE__MODE",
    ] {
        assert!(said.code == 3 && said.out.contains(part), "`{part}` is missing in\n{}{}", said.out, said.err);
    }
    assert!(!said.out.contains("site.toml:"), "{}", said.out);
    let files = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'));
    assert_eq!(files.collect::<Vec<_>>(), Vec::<String>::new(), "looking leaves nothing behind");
}

/// How long it is waited, for what, and until when is said before anybody wonders.
#[test]
fn a_night_that_waits_for_the_ehr_says_so() {
    use std::io::{BufRead, BufReader};
    let folder = sound_site();
    let mut child = command(folder.path(), &["run", "--once"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    for part in ["http://127.0.0.1:9: the connection is refused: nothing listens there: no good answer yet, trying again in ", " s, and until 20", " at most"] {
        assert!(line.contains(part), "`{part}` is missing in {line}");
    }
}

#[test]
fn peers_that_are_down_exit_with_4_and_every_reason() {
    let folder = sound_site();
    let said = say(folder.path(), &["check"]);
    insta::assert_snapshot!(said.shown(folder.path()), @"
    exit 4
    --- stdout
    note: no measure of this site asks for what `http://harbor.example/fhir/CodeSystem/flowsheet` leads to, as
    │ `labor-onset` of `http://watershed.example/fhir/CodeSystem/perinatal`
        ╭─[mappings/sites/harbor.yaml:52:9]
     51 │   - system: http://harbor.example/fhir/CodeSystem/flowsheet
     52 │     to: http://watershed.example/fhir/CodeSystem/perinatal
        ·         ──────────────────────────────────────────────────
     53 │     elements: [Observation.code]
        ╰────
    help: as where a mapping is shared by sites with other measures; else look at the system

    note: no measure of this site asks for what `http://harbor.example/fhir/CodeSystem/lab` leads to, as `11884-4` of
    │ `http://loinc.org`
        ╭─[mappings/sites/harbor.yaml:59:9]
     58 │   - system: http://harbor.example/fhir/CodeSystem/lab
     59 │     to: http://loinc.org
        ·         ────────────────
     60 │     elements: [Observation.code]
        ╰────
    help: as where a mapping is shared by sites with other measures; else look at the system

    2 notes
    lakeside: configuration is sound
      mapping harbor|1.0.0
      measure http://watershed.example/fhir/Measure/ibd-remission|1.0.0
      measure http://watershed.example/fhir/Measure/hac-clabsi|1.0.0
    EHR: cannot be used
      http://127.0.0.1:9: the connection is refused: nothing listens there (after 2 attempts)
    registry: cannot be used
      http://127.0.0.1:9: the connection is refused: nothing listens there (after 3 attempts)
    --- stderr
    error: cannot be used: EHR, registry
    ");
    let said = say(folder.path(), &["check", "--format", "json"]);
    assert_eq!(said.code, 4);
    let peers = said.json()["peers"].clone();
    assert_eq!((&peers[0]["ok"], &peers[1]["ok"]), (&Value::Bool(false), &Value::Bool(false)));
}

#[test]
fn before_the_first_night_the_state_is_empty_and_that_is_fine() {
    let folder = sound_site();
    for (arguments, expected) in [
        (&["status"][..], "lakeside: no night yet; `watershed run --once` runs one\n"),
        (&["quarantine", "list"], "nothing is held\n"),
        (&["quarantine", "list", "--format", "json"], ""),
        (&["outbox", "list"], "no feed yet; a night makes one\n"),
        (&["outbox", "list", "--format", "json"], "{\"feeds\":[]}\n"),
        (&["deliver"], "0 delivered, 0 confirmed unchanged, 0 waiting, 0 rejected\n"),
        (&["deliver", "--format", "json"], "{\"delivered\":0,\"confirmed\":0,\"restored\":0,\"waiting\":0,\"confirming\":0,\"rejected\":0,\"contradicted\":0}\n"),
    ] {
        let said = say(folder.path(), arguments);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, expected, ""), "{arguments:?}");
    }
    for (arguments, part) in [
        (&["quarantine", "show", "7"][..], "nothing in quarantine has number 7"),
        (&["quarantine", "discard", "7"], "nothing in quarantine has number 7"),
        (&["outbox", "show", "abc"], "no feed begins with `abc`"),
        (&["outbox", "retry", "abc"], "no feed begins with `abc`"),
    ] {
        let said = say(folder.path(), arguments);
        assert!(said.code == 2 && said.err.contains(part) && said.out.is_empty(), "{arguments:?}: {} {}", said.code, said.err);
    }
    assert!(!folder.path().join("data").exists(), "looking makes nothing");
    // As where the account may not write: root may write anything but this.
    std::fs::create_dir_all(folder.path().join("data/state.sqlite")).unwrap();
    let said = say(folder.path(), &["status"]);
    let expected = "data/state.sqlite cannot be opened to be read and written (unable to open database file";
    assert!(said.code == 4 && said.err.contains(expected) && said.err.contains("let the account that runs this write the folder"), "{} {}", said.code, said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_what_a_pull_would_ask_and_cost() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 24, quirks: vec!["r_03"], ..Wanted::default() }).await;
    let run = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = bed.command(arguments);
        command.envs(variables.iter().copied());
        Said::of(output(command).await)
    };
    let said = run(&["pull", "--dry-run"], &[]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    for part in [
        "no data were asked for",
        "scopes to ask for: system/Condition.rs system/",
        "not known",
        "6          0          _summary=count of Patient, Condition, ",
        "4          0          whether lists of values, and searches by POST, are heeded",
        "at least 15 requests, 0.0 MB",
        "what changed meanwhile of Condition, ",
        "asked for by --count",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let patients = |said: &Said| said.json()["forecast"]["steps"].as_array().unwrap().iter().find(|step| step["asked"] == "Patient").unwrap().clone();
    let counted = run(&["pull", "--dry-run", "--count", "--format", "json"], &[]).await;
    assert_eq!((counted.code, &patients(&counted)["resources"], counted.json()["forecast"]["most"].is_null()), (0, &24.into(), true), "{}", counted.out);
    assert_eq!(run(&["pull", "--count"], &[]).await.code, 2, "a pull counts what it brings");
    // A proxy that the environment names is none for this machine.
    let pulled = run(&["pull"], &[("http_proxy", "http://127.0.0.1:9"), ("HTTP_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "")]).await;
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    // The next one asks for changes, unless it is time to read everything again.
    let after = run(&["pull", "--dry-run", "--format", "json"], &[]).await;
    let steps = |said: &Said| said.json()["forecast"]["steps"].as_array().unwrap().clone();
    let changed = |said: &Said| steps(said).into_iter().find(|step| step["asked"].as_str().unwrap().starts_with("Patient, changed since 20")).unwrap();
    assert_eq!((&changed(&after)["resources"], &changed(&after)["requests"]), (&serde_json::Value::Null, &1.into()), "{}", after.out);
    assert!(after.json()["forecast"]["lastSeconds"].is_u64() && after.json()["forecast"]["most"].is_null(), "{}", after.out);
    let counted = run(&["pull", "--dry-run", "--count", "--format", "json"], &[]).await;
    let forecast = &counted.json()["forecast"];
    assert_eq!((&changed(&counted)["resources"], &changed(&counted)["requests"]), (&0.into(), &1.into()), "{}", counted.out);
    assert!(forecast["least"]["requests"].as_u64() <= forecast["most"]["requests"].as_u64(), "{}", counted.out);
    let export = run(&["pull", "--dry-run", "--count", "--format", "json"], &[("WATERSHED__SOURCE__MODE", "bulk")]).await;
    let step = &export.json()["forecast"]["steps"][0];
    assert!(step["asked"].as_str().unwrap().starts_with("Patient/$export?_type=Condition,") && step["resources"].as_u64() > Some(24), "{step}");
    assert!(export.json()["forecast"]["most"].is_null(), "how many files there will be is the server's own matter");
    let down = run(&["pull", "--dry-run"], &[("WATERSHED__SOURCE__URL", "http://127.0.0.1:9/fhir")]).await;
    assert_eq!(down.code, 4, "{}", down.err);

    // What a check finds is used, as long as it is the same server in the same version.
    let expected = "Encounter is read in full each time: `watershed check` found `_lastUpdated` ignored, and said so";
    assert!(after.json()["notes"].as_array().is_some_and(Vec::is_empty), "{}", after.out);
    run(&["check"], &[]).await;
    let file = bed.folder.path().join("data/capability.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let digest = text.split("\"digest of the software's name\"").nth(1).unwrap().split("\"detail\": \"").nth(1).unwrap();
    for (from, to, is_used) in
        [("{", "{", true), ("\"server\": \"http://", "\"server\": \"https://", false), (&digest[..12], "000000000000", false), ("\"facts\"", "\"fakts\"", false)]
    {
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let said = run(&["pull", "--dry-run", "--format", "json"], &[]).await;
        let notes = said.json()["notes"].as_array().unwrap().clone();
        assert_eq!(notes.iter().any(|note| note.as_str() == Some(expected)), is_used, "{to}: {}", said.out);
        assert_eq!(said.err.contains("what the last check found is not used"), to.contains("fakts"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_of_which_there_has_never_been_any_is_told_with_who_reads_it() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 24, ..Wanted::default() }).await;
    bed.hospital.vanish("DeviceUseStatement", usize::MAX);
    let told = "there has never been any; read by `hac-clabsi`";
    let night = Said::of(output(bed.command(&["run", "--once"])).await);
    assert!(night.code == 0 && night.err.contains(told), "{} {}", night.out, night.err);
    let [status, check] = [Said::of(output(bed.command(&["status"])).await), Said::of(output(bed.command(&["check"])).await)];
    for (said, part) in [(status, format!("{told}; EHR team: say whether")), (check, format!("in the last night: DeviceUseStatement: {told}; EHR team: say whether"))] {
        assert!(said.out.contains(&part) || said.err.contains(&part), "{part}: {} {}", said.out, said.err);
    }
}

/// Of three token requests the server refuses two, without a word: who was granted one before asks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_a_check_was_granted_makes_a_refusal_a_passing_one() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 12, quirks: vec!["q_01"], ..Wanted::default() }).await;
    let run = async |arguments: &[&str]| Said::of(output(bed.command(arguments)).await);
    let said = run(&["check"]).await;
    assert!(said.out.contains("token granted: "), "{}{}", said.out, said.err);
    let said = run(&["pull"]).await;
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    std::fs::remove_dir_all(bed.folder.path().join("data")).unwrap();
    let said = run(&["pull"]).await;
    assert!(said.code == 5 && said.err.contains("with `status 400` without a word why"), "a stranger is told what it was told: {}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_pull_that_takes_several_nights_is_under_way() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 24, ..Wanted::default() }).await;
    let mut pull = bed.command(&["pull"]);
    pull.env("WATERSHED__SOURCE__REQUESTS_PER_NIGHT", "50").env("WATERSHED__SOURCE__PAGE_SIZE", "5");
    let said = Said::of(output(pull).await);
    assert_eq!(said.code, 4, "{}", said.err);
    let status = Said::of(output(bed.command(&["status"])).await).out;
    assert!(status.starts_with("lakeside: the first pull is under way\n") && !status.contains("no night yet"), "{status}");
    assert!(status.contains("a pull that began 20") && status.contains("is not finished and goes on: "), "{status}");
}

/// Nights a day apart, each too short for what has changed since the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_night_that_is_to_read_what_changed_while_a_pull_lasted_says_so() {
    let bed = Bed::make(Wanted { mode: "search", group: "all", limit: u64::MAX, patients: 24, ..Wanted::default() }).await;
    let state = bed.folder.path().join("data/state.sqlite");
    let night = async |requests: &str| {
        let mut night = bed.night();
        night.env("WATERSHED__SOURCE__REQUESTS_PER_NIGHT", requests).env("WATERSHED__SOURCE__PAGE_SIZE", "10");
        let said = Said::of(output(night).await);
        let store = Store::open(&state).unwrap();
        store
            .with(|connection| Ok(connection.execute("UPDATE pull SET started_at = '2026-01-02T03:04:05Z' WHERE state = 'open'", [])?))
            .unwrap();
        said
    };
    let mut said = night("40").await;
    for _ in 0..20 {
        if said.code != 4 {
            break;
        }
        said = night("40").await;
    }
    let told = "what has changed since 2026-01-02 03:04 UTC is still to be read: `source.requests_per_night` allows 40 requests";
    assert!(said.code == 1 && said.err.contains(told) && said.out.contains("data partial (1 gap, 0 in quarantine)"), "{} {}", said.out, said.err);
    let [status, known] = [Said::of(output(bed.command(&["status"])).await), Said::of(output(bed.command(&["known"])).await)];
    assert!(status.out.contains("UTC (changes) is not finished and goes on: ") && status.out.contains("partial (1 gap, 0 in quarantine)"), "{}", status.out);
    assert_eq!(known.code, 1, "{}", known.err);
    let said = night("0").await;
    let told = "this pull reads what changed while pull 2 (changes) lasted, from 2026-01-02 03:04 UTC on; that one brought ";
    assert!(said.code == 0 && said.err.contains(told), "{} {}", said.out, said.err);
    let status = Said::of(output(bed.command(&["status"])).await).out;
    assert!(status.contains(told) && status.contains("complete, with notes"), "{status}");
}

/// What is wrong with the list of patients is found before the first night, and ends none after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_patients_that_is_gone_makes_nights_partial() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 24, ..Wanted::default() }).await;
    let site = std::fs::read_to_string(bed.folder.path().join("site.toml")).unwrap();
    std::fs::write(bed.folder.path().join("site.toml"), site.replace("group = \"\"", "patients_file = \"clinic.txt\"")).unwrap();
    let gone = "`clinic.txt`, the list of patients, cannot be read: No such file or directory";
    let said = Said::of(output(bed.night()).await);
    assert!(said.code == 3 && said.err.contains(gone) && said.err.contains("paths are relative to the configuration file"), "{} {}", said.code, said.err);
    let list = bed.folder.path().join("clinic.txt");
    std::fs::write(&list, bed.hospital.patients()[..9].join("\n")).unwrap();
    let said = Said::of(output(bed.night()).await);
    assert!(said.code == 0 && said.out.contains("9 patients"), "{} {}", said.out, said.err);
    std::fs::remove_file(&list).unwrap();
    let said = Said::of(output(bed.night()).await);
    assert!(said.code == 1 && said.err.contains(gone) && said.out.contains("9 patients, data partial (1 gap, 0 in quarantine)"), "{} {}", said.out, said.err);
    let [status, known, check] = [&["status"][..], &["known"], &["check"]].map(|arguments| bed.command(arguments));
    let status = Said::of(output(status).await).out;
    assert!(status.contains(gone) && status.contains("site engineer: correct the list (`source.patients_file`), or have it written again"), "{status}");
    assert_eq!(Said::of(output(known).await).code, 1);
    let check = Said::of(output(check).await);
    assert!(check.code == 3 && check.out.contains(gone), "{} {} {}", check.code, check.out, check.err);
}

/// It is tried again, and nobody has to be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_endpoint_that_fails_for_now_is_unreachable() {
    let busy = Fault::Status { path: "/token".to_owned(), status: 503, retry_after: Some(0), times: u32::MAX };
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 12, faults: vec![busy], ..Wanted::default() }).await;
    let said = Said::of(output(bed.command(&["check"])).await);
    assert!(said.code == 4 && said.out.contains("no access token: the token endpoint answers 503"), "{} {}{}", said.code, said.out, said.err);
}

/// What no check looks at: a night finds it, and the next plan and check know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_night_finds_of_the_server_is_in_the_next_plan_and_check() {
    let bed = Bed::make(Wanted { mode: "bulk", group: "all", limit: u64::MAX, patients: 12, quirks: vec!["q_82"], ..Wanted::default() }).await;
    let run = async |arguments: &[&str]| Said::of(output(bed.command(arguments)).await);
    run(&["check"]).await;
    assert_eq!(run(&["pull"]).await.code, 0);
    let cost = |said: &Said| said.json()["forecast"]["steps"][0]["resources"].as_u64();
    let plan = run(&["pull", "--dry-run", "--format", "json"]).await;
    assert_eq!(cost(&plan), None, "how much has changed is not known: {}", plan.out);
    let said = run(&["pull"]).await;
    let told = "the export was asked for what has changed, and brought everything of ";
    assert!(said.code == 0 && said.out.contains(told), "{}{}", said.out, said.err);
    let status = run(&["status"]).await.out;
    assert!(status.contains(told) && status.contains("EHR team: nothing is missing; let exports heed `_since`"), "{status}");
    // A check finds the rest anew, and forgets nothing of it.
    for _ in 0..2 {
        let check = run(&["check"]).await.out;
        assert!(check.contains("EHR team: server: a night found that an export of changes brings everything"), "{check}");
        let plan = run(&["pull", "--dry-run", "--format", "json"]).await;
        assert!(cost(&plan) > Some(200) && plan.out.contains("exports do not heed `_since`, as an earlier night found"), "{}", plan.out);
    }
}

/// The second deletion is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_stays_at_the_ehr_is_told_until_one_is_deleted() {
    let bed = Bed::make(Wanted { mode: "bulk", limit: u64::MAX, patients: 12, quirks: vec!["q_42"], ..Wanted::default() }).await;
    let run = async |arguments: &[&str]| Said::of(output(bed.command(arguments)).await);
    let told = "the server does not delete 1 finished export (status 405): the files, with patients' data, stay there";
    assert!(!run(&["pull"]).await.out.contains("does not delete"));
    let said = run(&["pull"]).await;
    assert!(said.code == 0 && said.out.contains(told) && said.err.contains("let this client delete its exports"), "{}{}", said.out, said.err);
    for command in [&["status"][..], &["check", "--offline"]] {
        let said = run(command).await.out.replace("\n│ ", " ");
        assert!(said.contains(told) && said.contains("EHR team: let this client delete its exports"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_keeps_what_the_server_does_and_says_who_must_do_what() {
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 24, quirks: vec!["q_15", "q_24"], ..Wanted::default() }).await;
    let run = async |arguments: &[&str]| Said::of(output(bed.command(arguments)).await);
    let file = bed.folder.path().join("data/capability.json");
    assert_eq!(run(&["check", "--offline"]).await.code, 0);
    assert!(!file.exists(), "nobody was asked");
    let said = run(&["check", "--format", "json"]).await;
    let capability = said.json()["peers"][0]["capability"].clone();
    assert_eq!((said.code, &capability["changes"], &capability["error"]), (1, &Value::Array(Vec::new()), &Value::Null), "{}", said.err);
    let findings = capability["findings"].as_array().unwrap();
    assert!(
        findings
            .iter()
            .any(|finding| finding["who"] == "ehr-team" && finding["says"].as_str().unwrap().contains("has no link to the next one")),
        "{findings:?}"
    );
    let bytes = std::fs::read(&file).unwrap();
    let kept: Value = serde_json::from_slice(&bytes).unwrap();
    assert!(kept["since"].is_string() && kept["facts"] == capability["facts"], "{kept}");

    let people = run(&["check"]).await;
    assert_eq!(people.code, 1);
    for part in ["what the server does", "EHR team: Observation: the first page has no link", "kept for review in "] {
        assert!(people.out.contains(part), "`{part}` is missing in\n{}", people.out);
    }
    assert!(std::fs::read(&file).unwrap() == bytes, "the same facts, the same bytes");

    let asked = async |group: &str| {
        let mut command = bed.command(&["check"]);
        command.env("WATERSHED__SOURCE__GROUP", group);
        Said::of(output(command).await)
    };
    let said = asked("all").await;
    assert!(said.code == 1 && said.out.contains("Group/all is there"), "{}", said.out);
    let said = asked("oll").await;
    assert!(said.code == 3 && said.out.contains("there is no Group/oll (status 404)") && said.out.contains("`source.group` is the id of a Group there"), "{}", said.out);

    // It was otherwise when it was last looked at.
    let text = String::from_utf8(bytes).unwrap();
    std::fs::write(&file, text.replacen("\"detail\": \"4.0.1\"", "\"detail\": \"4.0.0\"", 1)).unwrap();
    let changed = run(&["check"]).await;
    assert!(changed.out.contains("changed since the last check: server, FHIR version: 4.0.1; it was: 4.0.0"), "{}", changed.out);
    assert!(!run(&["check"]).await.out.contains("changed since"), "it is told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_night_leaves_is_shown_decided_and_sent_by_commands() {
    let faults = vec![Fault::Malformed { resource_type: "Observation".into(), count: 3 }];
    let bed = Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 24, faults, ..Wanted::default() }).await;
    let run = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = bed.command(arguments);
        command.envs(variables.iter().copied());
        Said::of(output(command).await)
    };
    let night = ["run", "--once", "--as-of", crate::bed::AS_OF, "--format", "json"];
    let nowhere = ("WATERSHED__REGISTRY__URL", "http://127.0.0.1:9");

    // The registry is down: the feed waits, the exit code says so, and nothing is lost.
    let said = run(&night, &[nowhere]).await;
    assert_eq!((said.code, &said.json()["waiting"], &said.json()["complete"]), (4, &1.into(), &false.into()), "{}", said.err);
    assert!(said.err.contains("error: the feed is not delivered yet: http://127.0.0.1:9: the connection is refused"), "{}", said.err);
    assert!(said.err.contains("  help: waiting: not accepted yet; `watershed deliver` or the next night sends it"), "{}", said.err);
    let feed = said.json()["feed"].as_str().unwrap().to_owned();
    let listed = run(&["outbox", "list", "--format", "json"], &[]).await;
    let row = &listed.json()["feeds"][0];
    assert_eq!((listed.code, &row["state"], &row["attempts"], &row["feed"]), (0, &"waiting".into(), &1.into(), &feed.as_str().into()));
    assert!(row["reasons"][0].as_str().unwrap().contains("the connection is refused: nothing listens there"), "{row}");
    assert_eq!(run(&["deliver"], &[nowhere]).await.code, 4, "still down");

    // A client that the registry does not know is rejected, not unreachable.
    let said = run(&["check", "--format", "json"], &[("WATERSHED__REGISTRY__CLIENT_ID", "nobody"), ("WATERSHED__SOURCE__CLIENT_ID", "nobody")]).await;
    assert_eq!(said.code, 5, "{}{}", said.out, said.err);
    for peer in said.json()["peers"].as_array().unwrap() {
        assert!(peer["error"].as_str().unwrap().contains("no access token") || peer["error"].as_str().unwrap().contains("no token"), "{peer}");
    }
    assert_eq!(run(&["pull"], &[("WATERSHED__SOURCE__CLIENT_ID", "nobody")]).await.code, 5);
    let said = run(&["deliver"], &[("WATERSHED__REGISTRY__CLIENT_ID", "nobody")]).await;
    assert!(said.code == 5 && said.err.contains("refused client `nobody`"), "the registry may learn of it later: {} {}", said.code, said.err);
    let remains = run(&["status", "--format", "json"], &[]).await.json()["nights"][0]["reason"].clone();
    assert_eq!(remains, "the registry has not taken the feed yet; it waits in the outbox and is sent again");

    // Up again: sent at once, though its next attempt was due later.
    let said = run(&["deliver", "--format", "json"], &[]).await;
    assert_eq!((said.code, &said.json()["delivered"], &said.json()["waiting"]), (0, &1.into(), &0.into()), "{}", said.err);
    assert_eq!(bed.registry().feeds, 1);
    let shown = run(&["outbox", "show", &feed[..6]], &[]).await;
    assert_eq!((shown.code, &shown.json()["state"], shown.json()["manifest"]["reports"].as_array().map(Vec::len)), (0, &"delivered".into(), Some(12)));
    assert_eq!(run(&["outbox", "retry", &feed], &[]).await.code, 2, "a delivered feed is not sent again");

    // The refused lines: shown without their content, revealed on request, and decided.
    let listed = run(&["quarantine", "list", "--format", "json"], &[]).await;
    let ids: Vec<i64> = listed.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap()).collect();
    assert_eq!((listed.code, ids.len()), (1, 3), "{}", listed.out);
    let first = ids[0].to_string();
    let hidden = run(&["quarantine", "show", &first, "--format", "json"], &[]).await;
    assert_eq!((hidden.code, hidden.json().get("line")), (0, None));
    let revealed = run(&["quarantine", "show", &first, "--reveal", "--format", "json"], &[]).await;
    assert!(revealed.json()["line"].as_str().is_some_and(|line| line.contains("Observation")), "{}", revealed.out);
    let said = run(&["quarantine", "retry", &ids[1].to_string(), "--format", "json"], &[]).await;
    assert_eq!((said.code, &said.json()["state"]), (0, &"retry".into()));
    let said = run(&["quarantine", "discard", "--all", "--reason", "no such reason"], &[]).await;
    assert!(said.code == 2 && said.err.contains("nothing is held for the reason `no such reason`\n  help: these are: `no id, or"), "{}", said.err);
    let said = run(&["quarantine", "discard", "1", "90-99"], &[]).await;
    assert!(said.code == 2 && said.err.contains("nothing in quarantine has number 90-99"), "{}", said.err);
    let said = run(&["quarantine", "discard", "9-1"], &[]).await;
    assert!(said.code == 2 && said.err.contains("expected a number of the list, or a span as 5-900"), "{}", said.err);
    let then = "the next pull leaves them out, and what is stored of them goes";
    assert_eq!(run(&["quarantine", "discard", &first], &[]).await.out, format!("discarded: 1 line ({first}); {then}\n"));
    let rest = format!("{}-{}", ids[1], ids[2]);
    let said = run(&["quarantine", "discard", &first, &format!("{}-900", ids[1])], &[]).await;
    assert_eq!((said.code, said.out), (0, format!("discarded: 2 lines ({rest}); {then}\ndiscarded already: 1 line ({first})\n")));
    assert_eq!(run(&["quarantine", "list"], &[]).await.out, "nothing is held\n");

    let status = run(&["status", "--format", "json"], &[]).await;
    let said = status.json();
    let ledger = &said["ledger"];
    let row = ledger["rows"].as_array().unwrap().iter().find(|row| row["query"] == "Observation").unwrap();
    assert_eq!((&ledger["complete"], &ledger["full"], &row["status"], &row["gap"]["who"]), (&false.into(), &true.into(), &"partial".into(), &"nobody".into()), "{ledger}");
    assert_eq!(
        (status.code, &said["site"], &said["nights"][0]["complete"], &said["nights"][0]["quarantined"], &said["quarantined"]),
        (0, &"lakeside".into(), &false.into(), &3.into(), &0.into())
    );
    assert_eq!(said["nights"][0]["reason"], Value::Null, "what was left undone is done");
    let people = run(&["status"], &[]).await;
    assert!(people.code == 0 && people.out.contains("partial (0 gaps, 3 in quarantine)"), "{}", people.out);
    assert!(people.out.contains("ledger of the last pull (everything, begun 2") && people.out.contains("nobody yet: all are decided"), "{}", people.out);
}
