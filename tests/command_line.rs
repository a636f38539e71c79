//! The command line is a contract: help, exit codes, stdout for data and stderr for talk, `--format json`, and messages
//! for the person who can act. The real binary, as scripts and people run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use serde_json::Value;
use tempfile::TempDir;
use watershed::cli::Arguments;

mod measures;
mod site;

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

/// A file of patients or a key in the place of another one is told by what it is, and nothing of it is shown, wherever it is named.
#[test]
fn of_a_file_that_is_named_in_the_place_of_another_nothing_is_shown() {
    let folder = scratch();
    let key = say(folder.path(), &["key", "new", "key.pem", "--algorithm", "ES384"]);
    assert_eq!(key.code, 0);
    let files = [
        ("table.csv", "Mayer;4711\nMayer;4712\n"),
        ("latin.csv", "Mayer\u{fc};4711\n"),
        ("Patient.ndjson", "{\"resourceType\":\"Patient\",\"id\":\"4711\",\"name\":[{\"family\":\"Mayer\"}]\n"),
        ("Patient.json", "{\n  \"resourceType\": \"Patient\",\n  \"name\": [{\"family\": \"Mayer\"}],\n}\n"),
        ("key.pem", ""),
    ];
    for (name, text) in files.iter().filter(|(_, text)| !text.is_empty()) {
        let bytes: Vec<u8> = if *name == "latin.csv" { text.chars().map(|letter| letter as u8).collect() } else { text.as_bytes().to_vec() };
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let lines = std::fs::read_to_string(folder.path().join("key.pem")).unwrap();
    let secret = lines.lines().nth(1).unwrap().get(..12).unwrap();
    let places = ["[imports]\nfiles = [\"FILE\"]\n", "[mapping]\nfile = \"FILE\"\n", "[measures]\nfolders = [\"FILE\"]\n", "[measures]\nvalue_sets = [\"FILE\"]\n"];
    for (name, _) in files {
        let mut said: Vec<String> = Vec::new();
        let all = |arguments: &[&str]| {
            let said = say(folder.path(), arguments);
            said.out + &said.err
        };
        for place in places {
            std::fs::write(folder.path().join("site.toml"), format!("[site]\nid = \"ours\"\n{}", place.replace("FILE", name))).unwrap();
            said.push(all(&["check", "--offline"]));
        }
        said.push(all(&["check", "--offline", "--config", name]));
        said.push(all(&["measure", "check", name]));
        said.push(all(&["cql", "check", name]));
        for said in said {
            assert!(!said.contains("Mayer") && !said.contains("4711") && !said.contains(secret) && !said.is_empty(), "{name}: {said}");
        }
    }
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
