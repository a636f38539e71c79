//! The command line is a contract: help, exit codes, stdout for data and stderr for talk, `--format json`, and messages
//! for the person who can act. The real binary, as scripts and people run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use serde_json::Value;
use tempfile::TempDir;
use watershed::cli::Arguments;
use watershed::sandbox::Fault;

use crate::bed::{Bed, Wanted, output};

/// What a process said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: std::process::Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// Exit code, stdout and stderr as one text to compare, without the folder's own name.
    fn shown(&self, folder: &Path) -> String {
        format!("exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.out, self.err).replace(&folder.display().to_string(), "FOLDER")
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WATERSHED_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn say(folder: &Path, arguments: &[&str]) -> Said {
    Said::of(command(folder, arguments).output().unwrap())
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The project's measures, value sets and mappings, to be spoilt.
pub(crate) fn copy_mappings(folder: &Path) {
    copy(&project("mappings"), &folder.join("mappings"));
}

/// A folder with all below it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { assert!(std::fs::copy(entry.path(), to).is_ok()) }
    }
}

pub(crate) fn spoil(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "`{from}` is not in {}", path.display());
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// A site whose files are sound and whose peers are nowhere.
pub(crate) fn sound_site() -> TempDir {
    let folder = scratch();
    copy_mappings(folder.path());
    for key in ["ehr-key.pem", "registry-key.pem"] {
        assert_eq!(say(folder.path(), &["key", "new", key]).code, 0);
    }
    let site = "[site]\nid = \"lakeside\"\ntime_zone = \"America/New_York\"\n\n\
                [source]\nurl = \"http://127.0.0.1:9/fhir\"\nclient_id = \"etl\"\nkey_file = \"ehr-key.pem\"\n\n\
                [mapping]\nfile = \"mappings/sites/harbor.yaml\"\n\n\
                [measures]\nfolders = [\"mappings/measures/ibd/remission\", \"mappings/measures/hac/clabsi\"]\nmonths = 2\n\n\
                [registry]\nurl = \"http://127.0.0.1:9\"\nclient_id = \"lakeside\"\nkey_file = \"registry-key.pem\"\n";
    std::fs::write(folder.path().join("site.toml"), site).unwrap();
    folder
}

/// Every command with its path: `registry site add`.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        all.push(path.to_vec());
        for inner in command.get_subcommands() {
            walk(inner, &[path, &[inner.get_name().to_owned()]].concat(), all);
        }
    }
    let mut all = Vec::new();
    walk(&Arguments::command(), &[], &mut all);
    all
}

#[test]
fn every_command_explains_itself() {
    let folder = scratch();
    let all = commands();
    assert!(all.len() > 25, "{all:?}");
    for path in all {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let said = say(folder.path(), &words);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{path:?}");
        let about = said.out.lines().next().unwrap_or_default();
        assert!(!about.is_empty() && !about.starts_with("Usage"), "{path:?} does not say what it is for: {about}");
        assert!(said.out.contains("Options of every command:"), "{path:?}");
        let mut command = &mut Arguments::command();
        for word in &path {
            command = command.find_subcommand_mut(word).unwrap();
        }
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path:?}: `{}` does not say what it is", argument.get_id());
        }
    }
}

#[test]
fn the_front_page_names_every_command_and_exit_code() {
    let said = say(scratch().path(), &["--help"]);
    insta::assert_snapshot!(said.out, @"
    Carry a hospital's FHIR data, as agreed quality measures, into a Learning Health Network

    Usage: watershed [OPTIONS] <COMMAND>

    Commands:
      demo        Run simulated hospitals, their adapters and a registry for one night, and compare with
                  the truth
      check       Report every problem of configuration, mapping and measures, then ask the EHR and the
                  registry
      run         Run a night at the scheduled times, or one night now
      pull        Bring the snapshot up to date, without evaluating or delivering
      import      Bring in tables of what the EHR keeps outside FHIR, or see what would change
      deliver     Send what waits in the outbox
      status      Show the last nights, what waits and what needs a person
      quarantine  Lines and resources that were refused
      outbox      Feeds on their way
      key         Make a private key, show or serve the public half of one
      evaluate    Measures over data on disk
      known       A site's measures over what was known on a day, from its snapshot
      measure     The steward's bench: check and test measures
      cql         The bare language: check a library, evaluate its defines
      registry    The network's end: serve a registry, register its sites, verify its audit chain
      sandbox     A simulated hospital EHR with synthetic patients and known truth
      help        Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Options of every command:
          --format <FORMAT>      How a command reports on stdout: human or json [default: human]
          --log <FILTER>         What is logged, for example `info` or `watershed::source=debug` [env:
                                 WATERSHED_LOG] [default: warn,daemon=info]
          --log-format <FORMAT>  How the log is written on stderr: human or json [env:
                                 WATERSHED_LOG_FORMAT] [default: human]

    Exit codes: 0 fine, 1 findings or mismatches, 2 usage, 3 configuration, 4 unreachable,
    5 rejected by the peer, 70 a bug. stdout is data, stderr is talk.
    ");
    let version = say(scratch().path(), &["--version"]);
    assert_eq!((version.code, version.out), (0, format!("watershed {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_names_the_nearest_right_one() {
    let folder = scratch();
    for (arguments, part) in [
        (&["chek"][..], "a similar subcommand exists: 'check'"),
        (&["run", "--onse"], "a similar argument exists: '--once'"),
        (&["run", "--as-of", "2026-01-01T00:00:00Z"], "--once"),
        (&["run", "--once", "--as-of", "yesterday"], "invalid value 'yesterday'"),
        (&["status", "--format", "xml"], "[possible values: human, json]"),
        (&["--log", "a=b=c", "status"], "`--log a=b=c` is not a filter"),
        (&["quarantine"], "Usage: watershed quarantine"),
        (&["key", "new", "k.pem", "--algorithm", "ES256"], "[possible values: ES384, RS384]"),
        (&["demo", "--sites", "0"], "0 is not in 1..=12"),
        (&["sandbox", "generate", "--out", "data", "--profile", "lakesid"], "did you mean `lakeside`?"),
        (&["sandbox", "serve", "--quirk", "q_177"], "did you mean `q_17`?"),
        (&["sandbox", "serve", "--server", "epik"], "did you mean `epic`?"),
        (&["sandbox", "serve", "--server", "meditech"], "there are epic, oracle, athena, hapi, strict"),
        (&["cql", "run", "nowhere.cql", "--timezone", "Mars"], "cannot read `nowhere.cql`"),
        (&["measure", "test", "x", "--timezone", "Mars/Base"], "no time zone is named `Mars/Base`"),
        (&["registry", "site", "add", "n", "--client-id", "c", "--organization", "O", "--jwks", "http://example.org/keys"], "must be an https address"),
    ] {
        let said = say(folder.path(), arguments);
        let expected = if said.err.contains("cannot read") { 3 } else { 2 };
        assert!(said.code == expected && said.err.contains(part) && said.out.is_empty(), "{arguments:?}: {} {}", said.code, said.err);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a mistake leaves nothing behind");
}

#[test]
fn without_a_configuration_every_site_command_says_where_to_start() {
    let folder = scratch();
    for arguments in [&["run"][..], &["run", "--once"], &["pull"], &["deliver"], &["status"], &["quarantine", "list"], &["outbox", "list"]] {
        let said = say(folder.path(), arguments);
        assert_eq!((said.code, said.out.as_str()), (3, ""), "{arguments:?}");
        assert_eq!(
            said.err,
            "error: cannot read configuration `site.toml`: No such file or directory (os error 2)\n\
             help: start from a copy of config/site.example.toml, or name yours with `--config`\n\n1 error\n",
            "{arguments:?}"
        );
    }
    let said = say(folder.path(), &["registry", "serve"]);
    assert!(said.code == 3 && said.err.contains("config/registry.example.toml"), "{}", said.err);
    let said = Said::of(command(folder.path(), &["outbox", "list"]).env("WATERSHED_CONFIG", "elsewhere.toml").output().unwrap());
    assert!(said.code == 3 && said.err.contains("`elsewhere.toml`"), "{}", said.err);
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
    note: no measure of this site asks for what `http://harbor.example/fhir/CodeSystem/flowsheet` leads to, as `labor-
    │ onset` of `http://watershed.example/fhir/CodeSystem/perinatal`
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
}

#[test]
fn a_key_is_private_shown_by_its_public_half_and_never_overwritten() {
    let folder = scratch();
    for algorithm in ["ES384", "RS384"] {
        let name = format!("{algorithm}.pem");
        let made = say(folder.path(), &["key", "new", &name, "--algorithm", algorithm]);
        assert_eq!((made.code, made.err.as_str()), (0, ""));
        assert_eq!(made.json()["keys"][0]["alg"], algorithm);
        assert!(made.json()["keys"][0].get("d").is_none(), "the private half is never printed");
        let shown = say(folder.path(), &["key", "public", &name, "--format", "json"]);
        assert_eq!((shown.code, shown.json()), (0, made.json()));
        assert_eq!(shown.out.lines().count(), 1);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.path().join(&name)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    for arguments in [&["key", "public", "ES384.pem"][..], &["sandbox", "quirks"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let said = command(folder.path(), arguments).stdout(full).output().unwrap();
        let told = String::from_utf8(said.stderr).unwrap();
        assert!(said.status.code() == Some(4) && told.contains("error: stdout: No space left on device"), "{arguments:?}: {told}");
    }
    let both = say(folder.path(), &["key", "public", "ES384.pem", "RS384.pem", "ES384.pem"]);
    assert_eq!((both.code, both.json()["keys"].as_array().unwrap().len()), (0, 2), "two while one takes the place of the other, each once");
    std::fs::write(folder.path().join("bad.pem"), "no key").unwrap();
    for (arguments, code, part) in [
        (&["key", "serve", "ES384.pem", "--listen", "0.0.0.0:0"][..], 2, "keys that anyone could replace on the way prove nothing"),
        (&["key", "serve", "ES384.pem", "nowhere.pem"], 3, "cannot read `nowhere.pem`"),
        (&["key", "new", "ES384.pem"], 2, "a key is never overwritten"),
        (&["key", "new", "no/where.pem"], 2, "cannot make `no/where.pem`"),
        (&["key", "public", "nowhere.pem"], 3, "cannot read `nowhere.pem`"),
        (&["key", "public", "bad.pem"], 3, "expected RSA (at least 2048 bits) or EC P-384"),
        (&["sandbox", "serve", "--client-jwks", "ES384.pem"], 3, "`watershed key public ES384.pem` prints it"),
    ] {
        let said = say(folder.path(), arguments);
        assert!(said.code == code && said.err.contains(part) && said.out.is_empty(), "{arguments:?}: {} {}", said.code, said.err);
    }
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
        "at least 6 requests, 0.0 MB",
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
    for id in &ids {
        assert_eq!(run(&["quarantine", "discard", &id.to_string()], &[]).await.code, 0);
    }
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
    assert!(people.code == 0 && people.out.contains("partial: 0 gaps, 3 quarantined"), "{}", people.out);
    assert!(people.out.contains("ledger of the last pull (everything, begun 2") && people.out.contains("nobody yet: all are decided"), "{}", people.out);
}

#[test]
fn generated_data_are_evaluated_and_what_is_no_data_is_refused() {
    let folder = scratch();
    let generate = ["sandbox", "generate", "--out", "data", "--patients", "30", "--months", "2", "--as-of", "2026-03-01"];
    let made = say(folder.path(), &[&generate[..], &["--format", "json"]].concat());
    assert_eq!((made.code, made.err.as_str(), &made.json()["resources"]["Patient"]), (0, "", &30.into()));
    let again = say(folder.path(), &generate);
    assert_eq!((again.code, again.err.as_str()), (2, "error: `data` is not empty\n  help: name a new folder\n"));

    let measure = project("mappings/measures/ibd/remission").display().to_string();
    let evaluate = |data: &str, more: &[&str]| {
        say(folder.path(), &[&["evaluate", "--measure", &measure, "--data", data, "--period", "2026-02", "--timezone", "America/Chicago"], more].concat())
    };
    let said = evaluate("data", &[]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "a generated folder holds nothing but data");
    let truth: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("data.truth.json")).unwrap()).unwrap();
    let row = truth["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["measure_id"] == "ibd-remission" && row["month"] == "2026-02-01")
        .unwrap();
    let parts = said.json()["group"][0]["extension"][0]["extension"].clone();
    assert_eq!((&parts[0]["valueDecimal"], &parts[1]["valueDecimal"]), (&row["numerator"], &row["denominator"]));
    let to_files = evaluate("data", &["--out", "reports"]);
    assert_eq!((to_files.code, to_files.out.as_str(), std::fs::read_dir(folder.path().join("reports")).unwrap().count()), (0, "", 1));
    // The same again replaces its own; what is of another evaluation is not mixed in without a word.
    assert_eq!(evaluate("data", &["--out", "reports"]).err, "");
    let mixed = evaluate("data", &["--out", "reports", "--report", "individual"]);
    let said =
        "warning: `reports` holds 1 other JSON file that this evaluation did not write, beside its 30 reports: they are of another one; name a new folder to keep them apart\n";
    assert_eq!((mixed.code, mixed.err.as_str()), (0, said));
    for name in ["data/a.xml", "data/b.XML.gz"] {
        std::fs::write(folder.path().join(name), "<Bundle xmlns=\"http://hl7.org/fhir\"/>").unwrap();
    }
    let said = evaluate("data", &[]);
    assert_eq!((said.code, said.err.as_str()), (0, "warning: 2 XML files passed over: FHIR XML is not read; have JSON written\n"));

    std::fs::create_dir(folder.path().join("empty")).unwrap();
    std::fs::create_dir(folder.path().join("of-xml")).unwrap();
    std::fs::write(folder.path().join("of-xml/patient.xml"), "<Patient/>").unwrap();
    std::fs::write(folder.path().join("table.csv"), "id,born\np1,2020-01-01\n").unwrap();
    for (data, part) in [
        ("nowhere", "`nowhere` cannot be read: it does not exist"),
        ("empty", "`empty` cannot be read: it holds no .ndjson or .json file, compressed by .gz or .zst or not\n"),
        ("of-xml", "`of-xml` cannot be read: it holds no .ndjson or .json file, compressed by .gz or .zst or not; FHIR XML is not read: have JSON written\n"),
        ("table.csv", "`table.csv` cannot be read: no line of it is a FHIR resource (line 1: this is not one JSON object)"),
    ] {
        let said = evaluate(data, &[]);
        assert!(said.code == 3 && said.err.contains(part) && said.out.is_empty(), "{data}: {} {}", said.code, said.err);
    }
}

#[test]
fn a_record_is_what_the_patient_refers_to_and_a_fault_within_is_told_by_line() {
    let folder = scratch();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("seen")).unwrap();
    write(
        "seen/measure.yaml",
        "id: seen\nurl: http://watershed.example/fhir/Measure/seen\nversion: 1.0.0\nstatus: draft\ntitle: Seen\ndescription: Seen at one place\nsteward: A test\n\
         scoring: cohort\nimprovement: increase\npopulations:\n  - code: initial-population\n    define: Initial Population\n",
    );
    write(
        "seen/seen.cql",
        "library Seen version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
         parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Initial Population\": exists [Encounter] and Count([Location]) = 1\n",
    );
    let lines = [
        r#"{"resourceType":"Patient","id":"p1"}"#,
        r#"{"resourceType":"Patient","id":"p2"}"#,
        r#"{"resourceType":"Location","id":"near"}"#,
        r#"{"resourceType":"Location","id":"far"}"#,
        r#"{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"},"location":[{"location":{"reference":"Location/near"}}]}"#,
        r#"{"resourceType":"Encounter","id":"e2","subject":{"reference":"Patient/p2"},"location" [{"location":{"reference":"Location/near"}}]}"#,
    ];
    write("all.ndjson", &(lines.join("\n") + "\n"));
    let said = say(folder.path(), &["evaluate", "--measure", "seen", "--data", "all.ndjson", "--period", "2026-02"]);
    assert_eq!(said.json().pointer("/group/0/population/0/count"), Some(&Value::from(1)), "{}", said.shown(folder.path()));
    assert!(said.err.contains("warning: all.ndjson:6: invalid JSON at byte 86") && said.err.contains("set aside"), "{}", said.err);
}

#[test]
fn measures_are_checked_and_tested() {
    let folder = sound_site();
    let said = say(folder.path(), &["measure", "check", "mappings/measures"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("3 measures are well formed") && said.out.contains("the network has yet to confirm"), "{}", said.out);
    let said = say(folder.path(), &["measure", "test", "mappings/measures/ibd/remission"]);
    assert!(said.code == 0 && said.out.contains("cases pass"), "{}{}", said.out, said.err);
    spoil(&folder.path().join("mappings/measures/ibd/remission/ibd-remission.cql"), "exists", "exist");
    for words in [&["measure", "check", "mappings/measures/ibd/remission"][..], &["measure", "test", "mappings/measures/ibd/remission"]] {
        let said = say(folder.path(), words);
        assert!(matches!(said.code, 1 | 3), "{words:?}: {}", said.code);
        assert!(format!("{}{}", said.out, said.err).contains("ibd-remission.cql:"), "{words:?}: {}{}", said.out, said.err);
    }
    std::fs::remove_dir_all(folder.path().join("mappings/measures/hac/clabsi/cases")).unwrap();
    let none = "no test patients, so nothing is known of it: write the first one as `cases/01-NAME.yaml`";
    let said = say(folder.path(), &["measure", "test", "mappings/measures/hac/clabsi"]);
    assert!(said.code == 1 && said.out.contains(none) && !said.out.contains("pass"), "{}{}", said.out, said.err);
    let said = say(folder.path(), &["measure", "test", "mappings/measures/hac/clabsi", "--format", "json"]);
    assert_eq!((said.code, said.json()[0]["cases"].as_array().map(Vec::len)), (1, Some(0)));
    let said = say(folder.path(), &["measure", "check", "mappings/measures/hac/clabsi"]);
    assert!(said.code == 0 && said.out.contains("note: `hac-clabsi` has no test patients"), "{}{}", said.out, said.err);
    let said = say(folder.path(), &["measure", "check", "nowhere", "mappings/measures/ibd/remission", "elsewhere"]);
    for part in ["at or below `nowhere`", "ibd-remission.cql:", "at or below `elsewhere`"] {
        assert!(said.code == 1 && said.out.contains(part), "{part}: {} {}{}", said.code, said.out, said.err);
    }
    let said = say(folder.path(), &["measure", "check", "nowhere"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (3, "", "error: there is no `measure.yaml` at or below `nowhere`\nhelp: name a measure folder\n\n1 error\n"));
}

#[test]
fn cql_takes_value_sets_from_files_folders_and_bundles() {
    let folder = scratch();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let header = "library Sets version '1.0.0'\nvalueset \"A\": 'http://x/a'\nvalueset \"B\": 'http://x/b'\ncodesystem \"S\": 'http://x/s'\n";
    write("sets.cql", &format!("{header}define \"Is In\": Code 'one' from \"S\" in \"A\" and Code 'two' from \"S\" in \"B\"\n"));
    std::fs::create_dir_all(folder.path().join("sets/more")).unwrap();
    write("sets/a.yaml", "url: http://x/a\ncodes:\n  - {system: http://x/s, code: one}\n");
    let b = r#"{"resourceType":"ValueSet","url":"http://x/b","expansion":{"contains":[{"system":"http://x/s","code":"two"}]}}"#;
    write("sets/more/b.json", b);
    write("bundle.json", &format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{b}}}]}}"#));
    for sets in [&["sets"][..], &["sets/a.yaml", "sets/more"], &["sets/a.yaml", "bundle.json"]] {
        let given: Vec<&str> = sets.iter().flat_map(|path| ["--valuesets", path]).collect();
        let said = say(folder.path(), &[&["cql", "run", "sets.cql"], &given[..]].concat());
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "Is In: true\n", ""), "{sets:?}");
    }
    let said = say(folder.path(), &["cql", "run", "sets.cql", "--valuesets", "nowhere"]);
    assert!(said.code == 3 && said.err.contains("nowhere"), "{}", said.err);
}

#[test]
fn cql_is_checked_and_run() {
    let folder = scratch();
    std::fs::write(folder.path().join("good.cql"), "library Good\nparameter Limit Integer\ndefine \"The Sum\": 1 + 1.50\ndefine Twice: Limit * 2\n").unwrap();
    std::fs::write(folder.path().join("bad.cql"), "library Bad\ndefine X: Foo\ndefine Y: 1 + 'a'\n").unwrap();
    let said = say(folder.path(), &["cql", "check", "good.cql"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "1 file is well formed\n", ""));
    let said = say(folder.path(), &["cql", "run", "good.cql", "--parameter", "Limit=21"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "The Sum: 2.50\nTwice: 42\n", ""));
    let said = say(folder.path(), &["cql", "run", "good.cql", "--parameter", "Limit=21", "--define", "Twice", "--format", "json"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "{\"Twice\":42}\n", ""));
    for (given, told) in [
        ("Limt=21", "nothing here has a parameter `Limt`\n  help: did you mean `Limit`?\n"),
        ("Limit='21'", "`--parameter Limit='21'`: this is `String`, but the parameter `Limit` is declared as `Integer`\n"),
        ("Good.Limit=1.5", "`--parameter Good.Limit=1.5`: this is `Decimal`, but the parameter `Good.Limit` is declared as `Integer`\n"),
        ("Limit=1 define More: 2", "`--parameter Limit=1 define More: 2` is not one CQL expression\n"),
        ("Limit", "`--parameter Limit` has no `=`\n  help: write `--parameter 'Age Limit Years=21'`\n"),
    ] {
        let said = say(folder.path(), &["cql", "run", "good.cql", "--parameter", given]);
        assert_eq!((said.code, said.out.as_str(), said.err), (2, "", format!("error: {told}")), "{given}");
    }
    let said = say(folder.path(), &["cql", "run", "good.cql", "--define", "Twise"]);
    assert_eq!((said.code, said.err.as_str()), (2, "error: `good.cql` has no define `Twise`\n  help: did you mean `Twice`?\n"));

    let said = say(folder.path(), &["cql", "check", "bad.cql", "--format", "json"]);
    assert_eq!((said.code, said.err.as_str()), (1, ""));
    let places: Vec<String> = said
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|found| format!("{}:{}:{}", found["at"]["file"].as_str().unwrap(), found["at"]["line"], found["at"]["column"]))
        .collect();
    assert_eq!(places, ["bad.cql:2:11", "bad.cql:3:11"]);
    for format in ["human", "json"] {
        let said = say(folder.path(), &["cql", "run", "bad.cql", "--format", format]);
        assert_eq!((said.code, said.out.as_str()), (3, ""), "stdout is kept for values");
        assert!(said.err.contains("nothing here is named `Foo`"), "{}", said.err);
        assert!(format == "human" || serde_json::from_str::<Value>(&said.err).is_ok(), "{}", said.err);
    }
}

#[test]
fn what_fails_takes_no_value_from_the_rest() {
    let folder = scratch();
    let text = "library Some\ndefine function Only(list List<Integer>): singleton from list\ndefine One: 1\ndefine Two: Only({1, 2})\ndefine Three: Two + 1\ndefine Bad: Matches('abc', '[a-')\n";
    std::fs::write(folder.path().join("some.cql"), text).unwrap();
    let said = say(folder.path(), &["cql", "run", "some.cql"]);
    assert_eq!((said.code, said.out.as_str()), (1, "One: 1\n"));
    for part in [
        "some.cql:2:43",
        "while evaluating `Only`, reached from `Two`; `Three` without a value because of it",
        "some.cql:6:13",
        "no regular expression: unclosed character class",
        "2 errors",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let said = say(folder.path(), &["cql", "run", "some.cql", "--format", "json"]);
    assert_eq!((said.code, said.json()), (1, serde_json::json!({ "One": 1 })));
    let found: Value = serde_json::from_str(&said.err).unwrap();
    let places: Vec<String> = found.as_array().unwrap().iter().map(|one| format!("{}:{}", one["at"]["line"], one["at"]["column"])).collect();
    assert_eq!(places, ["2:43", "6:13"]);
    let said = say(folder.path(), &["cql", "run", "some.cql", "--define", "Three"]);
    assert!(said.code == 1 && said.out.is_empty() && said.err.contains("while evaluating `Only`, reached from `Two`, `Three`\n"), "{}{}", said.out, said.err);
}

#[test]
fn a_registry_registers_lists_and_verifies() {
    let folder = sound_site();
    let measures = "measures = [\"mappings/measures/ibd/remission\"]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("registry.toml"), measures).unwrap();
    std::fs::write(folder.path().join("keys.json"), say(folder.path(), &["key", "public", "registry-key.pem"]).out).unwrap();
    let add = |name: &str, client: &str, jwks: &str, organization: &str| {
        say(folder.path(), &["registry", "site", "add", name, "--client-id", client, "--jwks", jwks, "--organization", organization])
    };
    let said = add("lakeside", "watershed-lakeside", "keys.json", "Lakeside");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "site `lakeside` may now send feeds as client `watershed-lakeside`\n", ""));
    for (said, code, part) in [
        (add("lakeside", "other", "keys.json", "Lakeside"), 2, "site `lakeside` is registered already"),
        (add("Lake Side", "other", "keys.json", "Lakeside"), 2, "lower-case letters, digits and hyphens"),
        (add("harbor", "", "keys.json", "Harbor"), 2, "the client identifier of site `harbor`"),
        (add("harbor", "harbor", "keys.json", " "), 2, "the organization of site `harbor`"),
        (add("harbor", "harbor", "registry-key.pem", "Harbor"), 3, "`watershed key public registry-key.pem` prints it"),
        (add("harbor", "harbor", "nowhere.json", "Harbor"), 3, "cannot read `nowhere.json`"),
        (add("harbor", "harbor", "site.toml", "Harbor"), 3, "`site.toml` is not a JWK Set"),
    ] {
        assert!(said.code == code && said.err.contains(part) && said.out.is_empty(), "{part}: {} {}", said.code, said.err);
    }
    let listed = say(folder.path(), &["registry", "site", "list", "--format", "json"]);
    assert_eq!((listed.code, listed.json()["sites"].as_array().map(Vec::len), &listed.json()["sites"][0]["clientId"]), (0, Some(1), &"watershed-lakeside".into()));
    let verified = say(folder.path(), &["registry", "verify"]);
    assert_eq!((verified.code, verified.out.as_str()), (0, "1 audit record, unbroken\n0 feeds and 0 reports, as they were received\n"));
    let verified = say(folder.path(), &["registry", "verify", "--format", "json"]);
    assert_eq!(verified.out, "{\"unbroken\":true,\"records\":1,\"breaksAt\":null,\"feeds\":0,\"reports\":0,\"differences\":[],\"moreDifferences\":0}\n");

    for (from, to, part) in [
        ("127.0.0.1:0", "0.0.0.0:0", "is not loopback"),
        ("0.0.0.0:0", "somewhere", "`somewhere` is no address to listen on"),
        ("somewhere", "127.0.0.1:0", ""),
        ("remission", "remision", "`mappings/measures/ibd/remision` does not exist"),
        ("ibd/remision", "ibd", "measure.yaml"),
        ("mappings/measures/ibd", "mappings/measures/ibd/remission", ""),
        ("listen =", "public_url = \"https://n.example/lhn\"\nlisten =", "write scheme and host alone: `https://n.example`"),
        ("https://n.example/lhn", "n.example", "`n.example` is no address"),
        ("\"n.example\"", "\"n.example:8080\"", "`public_url` must begin with https://"),
        ("\"n.example:8080\"", "\"http://n.example\"\nbehind_proxy = true", "`public_url` is plain HTTP, but the registry is reached by TLS"),
        ("public_url = \"http://n.example\"\n", "", "`public_url` is empty, and `listen` with a proxy does not say what sites call this registry"),
        ("behind_proxy = true\n", "feeds_per_day = 0\n", "`feeds_per_day` is 0: nobody could send anything"),
        ("feeds_per_day = 0\n", "", ""),
        ("listen", "lisen", "did you mean `listen`?"),
    ] {
        spoil(&folder.path().join("registry.toml"), from, to);
        if !part.is_empty() {
            let said = say(folder.path(), &["registry", "serve"]);
            assert!(said.code == 3 && said.err.contains(part) && said.out.is_empty(), "{part}: {} {}{}", said.code, said.out, said.err);
        }
    }
    spoil(&folder.path().join("registry.toml"), "lisen", "tls_certificate_file = \"keys.json\"\ntls_key_file = \"registry-key.pem\"\nlisten");
    let said = say(folder.path(), &["registry", "serve"]);
    assert!(said.code == 3 && said.err.contains("certificate `") && said.out.is_empty(), "no address is told that is not served: {}{}", said.out, said.err);
}

#[test]
fn a_demo_whose_registry_cannot_start_says_so_at_once() {
    let folder = scratch();
    std::fs::create_dir_all(folder.path().join("made/registry/data")).unwrap();
    std::fs::write(folder.path().join("made/registry/data/receipt-key.p8"), "no key").unwrap();
    let said = say(folder.path(), &["demo", "--once", "--sites", "1", "--patients", "5", "--months", "1", "--data", "made"]);
    assert!(said.code == 4 && said.err.contains("the demo's registry cannot start: ") && said.err.contains("is not an ECDSA P-384 key"), "{}{}", said.out, said.err);
}
