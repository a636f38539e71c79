//! The rules of the house, read from its own sources: who may use whom, what the pure rooms may not do, and the habits
//! that keep every file readable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which rooms a room may use. `*` is every room. This is the table of `src/ARCHITECTURE.md`.
const LAW: &[(&str, &[&str])] = &[
    ("diagnostic", &[]),
    ("fhir", &["diagnostic"]),
    ("terminology", &["diagnostic", "fhir"]),
    ("cql", &["diagnostic", "fhir", "terminology"]),
    ("mapping", &["diagnostic", "fhir", "terminology", "cql"]),
    ("measure", &["diagnostic", "fhir", "terminology", "cql", "mapping"]),
    ("statistics", &[]),
    ("validate", &["diagnostic", "fhir"]),
    ("feed", &[]),
    ("http", &["diagnostic"]),
    ("listen", &[]),
    ("lock", &[]),
    ("smart", &["http", "listen"]),
    ("source", &["diagnostic", "fhir", "terminology", "cql", "http", "smart", "snapshot", "store"]),
    ("snapshot", &["fhir", "store"]),
    ("store", &["lock"]),
    ("outbox", &["store", "fhir", "feed"]),
    ("destination", &["store", "fhir", "outbox", "feed", "http", "smart"]),
    ("registry", &["diagnostic", "fhir", "validate", "statistics", "listen", "lock", "smart", "feed"]),
    ("sandbox", &["fhir", "listen", "smart"]),
    (
        "pipeline",
        &[
            "diagnostic",
            "fhir",
            "terminology",
            "cql",
            "mapping",
            "measure",
            "statistics",
            "validate",
            "feed",
            "http",
            "smart",
            "source",
            "snapshot",
            "store",
            "outbox",
            "destination",
        ],
    ),
    ("config", &["*"]),
    ("cli", &["*"]),
    ("main", &["cli"]),
    ("lib", &["*"]),
];

/// Rooms without effects: the same input gives the same output, always.
const PURE: &[&str] = &["diagnostic", "fhir", "terminology", "cql", "mapping", "measure", "statistics", "validate"];

/// What a pure room does not say.
const EFFECTS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "tokio",
    "async fn",
    ".await",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "println!",
    "eprintln!",
    "tracing::",
    "rand::",
];

/// Words that no source file outside tests contains.
const BANNED: &[&str] = &["todo!(", "dbg!(", "unimplemented!(", ".unwrap()", "FIXME", "TODO", "XXX"];

/// Names that say nothing about what a file holds.
const BANNED_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "service", "misc", "mod"];

/// Lines of a function, from its signature to its brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file, tests apart.
const FILE_LINES_MAX: usize = 800;

/// Functions that are longer, with their length: they may shrink, and none may join them.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];
/// Files that are longer, with their length: they may shrink, and none may join them.
const LONG_FILES: &[(&str, usize)] = &[];

struct Source {
    /// Relative to `src/`.
    path: String,
    text: String,
    /// The text without its test module, comments kept.
    code: String,
    is_test: bool,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Line number and text of every line of code, comments and test modules apart.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let mut paths = Vec::new();
    files_below(&folder, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        Source { code: without_tests(&text), text, is_test, path }
    };
    paths.into_iter().map(read).collect()
}

/// The text up to its inline test module, which stands last.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{')) {
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

fn assert_none(breaches: Vec<String>, rule: &str) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

/// Room names after each `crate::` of a line, `crate::{a, b}` included.
fn rooms_used(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(group.split(',').map(word)),
            None => rooms.push(word(rest)),
        }
    }
    rooms.retain(|room| LAW.iter().any(|(name, _)| name == room));
    rooms
}

#[test]
fn rooms_use_only_what_the_law_allows() {
    let law: BTreeMap<&str, &[&str]> = LAW.iter().copied().collect();
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        let Some(allowed) = law.get(source.room()) else {
            breaches.push(format!("src/{}: room `{}` is not in the law; add it to the table in tests/tidy.rs and to src/ARCHITECTURE.md", source.path, source.room()));
            continue;
        };
        for (number, line) in source.lines() {
            for room in rooms_used(line)
                .iter()
                .filter(|room| *room != source.room() && !allowed.contains(&"*") && !allowed.contains(&room.as_str()))
            {
                breaches.push(format!("src/{}:{number}: `{}` may not use `{room}`", source.path, source.room()));
            }
        }
    }
    assert_none(breaches, "the import law");
}

#[test]
fn pure_rooms_have_no_effects() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test && PURE.contains(&source.room())) {
        for (number, line) in source.lines() {
            for effect in EFFECTS.iter().filter(|effect| line.contains(**effect)) {
                breaches.push(format!("src/{}:{number}: `{effect}` in a pure room", source.path));
            }
        }
    }
    assert_none(breaches, "the purity law");
}

#[test]
fn every_file_says_what_it_is() {
    let untitled = sources().into_iter().filter(|source| !source.text.starts_with("//! ") && !source.text.starts_with("#![doc"));
    assert_none(untitled.map(|source| format!("src/{}", source.path)).collect(), "every file starts with a `//!` line");
}

#[test]
fn the_map_names_every_file_and_no_other() {
    let map = std::fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    let sources = sources();
    let absent = sources
        .iter()
        .filter(|source| !source.is_test && source.path != "lib.rs" && !map.contains(&format!("`{}`", source.path)));
    assert_none(absent.map(|source| format!("src/{}", source.path)).collect(), "src/ARCHITECTURE.md names every source file as `path.rs`");
    let named = map.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs") && !word.contains(' ') && !word.contains('*'));
    let gone = named.filter(|word| !sources.iter().any(|source| source.path == *word) && !root().join(word).exists());
    assert_none(gone.map(str::to_owned).collect(), "files that src/ARCHITECTURE.md names exist");
}

#[test]
fn nothing_is_left_for_later_and_nothing_unwraps() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        for (number, line) in source.lines() {
            for word in BANNED.iter().filter(|word| line.contains(**word)) {
                breaches.push(format!("src/{}:{number}: `{word}`", source.path));
            }
        }
        let stem = Path::new(&source.path).file_stem().unwrap().to_str().unwrap();
        if BANNED_NAMES.contains(&stem) {
            breaches.push(format!("src/{}: the name says nothing", source.path));
        }
    }
    assert_none(breaches, "banned words and names");
}

/// Name and length of every function, by indentation: rustfmt closes a function where it began.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = line.split("fn ").nth(1).filter(|_| !line.trim_start().starts_with("//") && is_signature(line)) else { continue };
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let close = format!("{}}}", " ".repeat(indent));
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        if let Some(length) = lines[start..].iter().position(|line| *line == close) {
            found.push((name, length + 1));
        }
    }
    found
}

fn is_signature(line: &str) -> bool {
    let words = line.trim_start().split(' ').take_while(|word| *word != "fn");
    words.into_iter().all(|word| word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(&word)) && line.contains("fn ")
}

#[test]
fn functions_and_files_stay_short() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        for (name, length) in functions(source) {
            let listed = LONG_FUNCTIONS
                .iter()
                .find(|(path, function, _)| *path == source.path && *function == name)
                .map(|(_, _, length)| *length);
            if length > listed.unwrap_or(FUNCTION_LINES_MAX) {
                breaches.push(format!("src/{}: `{name}` has {length} lines", source.path));
            }
        }
        let length = source.code.lines().count();
        let listed = LONG_FILES.iter().find(|(path, _)| *path == source.path).map(|(_, length)| *length);
        if length > listed.unwrap_or(FILE_LINES_MAX) {
            breaches.push(format!("src/{}: {length} lines", source.path));
        }
    }
    assert_none(breaches, "functions of 70 lines, files of 800");
}

#[test]
fn long_ones_that_became_short_leave_the_list() {
    let sources = sources();
    let stale = LONG_FUNCTIONS.iter().filter(|(path, name, _)| {
        let source = sources.iter().find(|source| source.path == *path);
        !source.is_some_and(|source| functions(source).iter().any(|(function, length)| function == name && *length > FUNCTION_LINES_MAX))
    });
    assert_none(stale.map(|(path, name, _)| format!("src/{path}: `{name}`")).collect(), "the list of long functions names only such");
    let stale = LONG_FILES
        .iter()
        .filter(|(path, _)| !sources.iter().any(|source| source.path == *path && source.code.lines().count() > FILE_LINES_MAX));
    assert_none(stale.map(|(path, _)| (*path).to_owned()).collect(), "the list of long files names only such");
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut within = false;
    let mut breaches = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            within = line.ends_with("dependencies]");
        } else if within && !line.is_empty() && !line.starts_with('#') && line.split_once(" # ").is_none_or(|(_, reason)| reason.len() <= 5) {
            breaches.push(format!("Cargo.toml:{}: {line}", index + 1));
        }
    }
    assert_none(breaches, "every dependency says on its line what it is for");
}

#[test]
fn every_topic_of_the_tests_is_mounted() {
    const BINARIES: [&str; 2] = ["main", "yardsticks"];
    let roots = BINARIES.map(|name| std::fs::read_to_string(root().join(format!("tests/{name}.rs"))).unwrap());
    let mut breaches = Vec::new();
    for entry in std::fs::read_dir(root().join("tests")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if let Some(topic) = name.strip_suffix(".rs").filter(|topic| !BINARIES.contains(topic))
            && !roots.iter().any(|text| text.contains(&format!("mod {topic};")))
        {
            breaches.push(format!("tests/{name}"));
        }
    }
    assert_none(breaches, "tests/main.rs or tests/yardsticks.rs mounts every topic");
}

#[test]
fn the_rules_see_what_they_should() {
    assert_eq!(rooms_used("use crate::{cql, fhir::record};"), ["cql", "fhir"]);
    assert_eq!(rooms_used("let x = crate::store::Store::open(a);"), ["store"]);
    assert!(is_signature("    pub(crate) async fn a() {") && !is_signature("    let f = fn () {"));
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb\n"), "a\n");
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests;\nb\n"), "a\n#[cfg(test)]\nmod tests;\nb\n");
}
