//! The file of what a server does: reviewed by people, compared with by the next check.

use super::{AT_ONCE, FHIR_VERSION, Fact, Found, LINKS, SCOPES_GRANTED, SERVER, SINCE, SOFTWARE, Source, identity};
use crate::source::duty::Code;
use crate::source::{Gap, PullOutcome};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What was found when; the same facts make the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Base address of the server.
    pub server: String,
    /// When a check first found it so.
    pub since: String,
    /// What it declares and does.
    pub facts: Vec<Fact>,
}

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct KeptError {
    /// The file.
    pub path: PathBuf,
    /// What the system says, or what is wrong with it.
    pub reason: String,
}

/// Compares with what the file says and writes it anew if that changed. Gives what is kept now, and what changed since.
/// What cannot be told this time stays as it was.
pub fn keep(path: &Path, server: &str, facts: Vec<Fact>, now: Timestamp) -> Result<(Kept, Vec<String>), KeptError> {
    let Some(before) = read(path)?.filter(|before| before.server == server) else {
        let kept = Kept { server: server.to_owned(), since: now.to_string(), facts };
        write(path, &kept)?;
        return Ok((kept, Vec::new()));
    };
    let same = |fact: &Fact, other: &Fact| fact.about == other.about && fact.what == other.what;
    let earlier = |fact: &Fact| before.facts.iter().find(|other| same(fact, other));
    // What nights found stands while it is the same version.
    let is_same_version = facts.iter().filter(|fact| is_identity(fact)).all(|fact| before.facts.contains(fact));
    let of_nights = before.facts.iter().filter(|fact| is_same_version && is_of_nights(fact)).cloned();
    let facts: Vec<Fact> = facts
        .into_iter()
        .map(|fact| earlier(&fact).filter(|_| fact.found == Found::Untold).cloned().unwrap_or(fact))
        .chain(of_nights)
        .collect();
    if facts == before.facts {
        return Ok((before, Vec::new()));
    }
    let changed = |fact: &Fact| earlier(fact).filter(|other| *other != fact && other.found != Found::Untold).map(|other| change(other, fact));
    let changes = facts.iter().filter_map(changed).collect();
    let kept = Kept { server: server.to_owned(), since: now.to_string(), facts };
    write(path, &kept)?;
    Ok((kept, changes))
}

/// What an earlier check found out about this server, if it was this server and the same version of it.
pub fn kept_of(path: &Path, source: &Source) -> Result<Vec<Fact>, KeptError> {
    let now = identity(&source.capability);
    let is_same = |kept: &Kept| kept.server == source.name() && now.iter().all(|fact| kept.facts.contains(fact));
    Ok(read(path)?.filter(is_same).map(|kept| kept.facts).unwrap_or_default())
}

/// Keeps what a pull found out about its server, which no check looks at; nothing, where the file is of another version of it. One that
/// reads everything finds out about lists anew, and so does a check.
pub fn learn(path: &Path, source: &Source, outcome: &PullOutcome, now: Timestamp) -> Result<(), KeptError> {
    let found = outcome.notes.iter().filter_map(of_night).chain(outcome.lists.iter().cloned());
    let identity = identity(&source.capability);
    let new = || Kept { server: source.name(), since: now.to_string(), facts: identity.to_vec() };
    let before = read(path)?.filter(|before| before.server == source.name()).unwrap_or_else(new);
    if !identity.iter().all(|fact| before.facts.contains(fact)) {
        return Ok(());
    }
    let mut kept = before.clone();
    kept.facts.retain(|fact| !outcome.full || !fact.what.ends_with(AT_ONCE));
    for fact in found {
        match kept.facts.iter_mut().find(|other| other.about == fact.about && other.what == fact.what) {
            Some(other) => *other = fact,
            None => kept.facts.push(fact),
        }
    }
    if kept.facts == before.facts { Ok(()) } else { write(path, &Kept { since: now.to_string(), ..kept }) }
}

/// What a note of a pull says of the server.
fn of_night(note: &Gap) -> Option<Fact> {
    let (what, found) = match note.code {
        Code::Forgotten => (LINKS, Found::Wrong),
        Code::Unheeded => (SINCE, Found::Ignored),
        _ => return None,
    };
    Some(Fact { about: SERVER.to_owned(), what: what.to_owned(), declared: None, found, detail: "found by a night".to_owned() })
}

fn is_of_nights(fact: &Fact) -> bool {
    fact.about == SERVER && [LINKS, SINCE].contains(&fact.what.as_str())
}

/// Whether an earlier check of this server was granted a token: then a refusal may be a passing mood.
pub fn was_granted(path: &Path, server: &str) -> bool {
    let kept = read(path).ok().flatten().filter(|kept| kept.server == server.trim_end_matches('/'));
    kept.is_some_and(|kept| kept.facts.iter().any(|fact| fact.what == SCOPES_GRANTED))
}

/// Whether it says which version of which software the server is.
fn is_identity(fact: &Fact) -> bool {
    fact.about == SERVER && [FHIR_VERSION, SOFTWARE].contains(&fact.what.as_str())
}

fn change(before: &Fact, now: &Fact) -> String {
    let is_declared_alike = before.declared == now.declared;
    let shown = |fact: &Fact| format!("{fact}{}", if is_declared_alike { "" } else { declared(fact.declared) });
    format!("{}, {}: {}; it was: {}", now.about, now.what, shown(now), shown(before))
}

fn declared(declared: Option<bool>) -> &'static str {
    match declared {
        Some(true) => " (declared)",
        Some(false) => " (not declared)",
        None => "",
    }
}

fn read(path: &Path) -> Result<Option<Kept>, KeptError> {
    let wrong = |reason: String| KeptError { path: path.to_owned(), reason };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
        Ok(file) if file.len() > FILE_BYTES_MAX => return Err(wrong(format!("{} bytes, at most {FILE_BYTES_MAX} are read", file.len()))),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| wrong(format!("it is not what an earlier check wrote ({error}); remove it, and the next check writes it anew")))
}

/// Whole or not at all: aside first, then in its place.
fn write(path: &Path, kept: &Kept) -> Result<(), KeptError> {
    let wrong = |error: std::io::Error| KeptError { path: path.to_owned(), reason: error.to_string() };
    let mut text = serde_json::to_string_pretty(kept).map_err(|error| wrong(error.into()))?;
    text.push('\n');
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = std::fs::File::create(&aside).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    std::fs::rename(&aside, path).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(what: &str, declared: Option<bool>, found: Found, detail: &str) -> Fact {
        Fact { about: "Patient".to_owned(), what: what.to_owned(), declared, found, detail: detail.to_owned() }
    }

    #[test]
    fn the_same_facts_leave_the_file_alone_and_a_change_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capability.json");
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let facts = || vec![fact("code", Some(true), Found::Works, ""), fact("paging", None, Found::Works, "")];
        let keep_at = |facts: Vec<Fact>, day: &str| keep(&path, "https://ehr.example/fhir", facts, at(day)).unwrap();
        let (kept, changes) = keep_at(facts(), "2026-01-02T00:00:00Z");
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((kept.since.as_str(), changes.len()), ("2026-01-02T00:00:00Z", 0));

        let (kept, changes) = keep_at(facts(), "2026-02-02T00:00:00Z");
        assert_eq!((kept.since.as_str(), changes.len(), std::fs::read(&path).unwrap() == bytes), ("2026-01-02T00:00:00Z", 0, true));

        // What cannot be told is no change, and forgets nothing.
        let untold = vec![fact("code", Some(true), Found::Untold, "no answer"), facts().remove(1)];
        let (kept, changes) = keep_at(untold, "2026-03-02T00:00:00Z");
        assert_eq!((kept.facts, changes.len(), std::fs::read(&path).unwrap() == bytes), (facts(), 0, true));

        let changed = vec![fact("code", Some(false), Found::Ignored, ""), fact("paging", None, Found::Wrong, "the next page is the first one again")];
        let (kept, changes) = keep_at(changed.clone(), "2026-04-02T00:00:00Z");
        assert_eq!(kept.since, "2026-04-02T00:00:00Z");
        assert_eq!(
            changes,
            ["Patient, code: ignored without a word (not declared); it was: works (declared)", "Patient, paging: wrong: the next page is the first one again; it was: works"]
        );
        assert_eq!(keep_at(changed.clone(), "2026-05-02T00:00:00Z").1, Vec::<String>::new(), "it is told once");

        let (kept, changes) = keep(&path, "https://other.example/fhir", changed, at("2026-06-02T00:00:00Z")).unwrap();
        assert_eq!((kept.server.as_str(), changes.len()), ("https://other.example/fhir", 0), "another server is not compared");
    }

    #[test]
    fn a_file_that_is_something_else_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capability.json");
        std::fs::write(&path, "{}").unwrap();
        let error = keep(&path, "https://ehr.example/fhir", Vec::new(), Timestamp::UNIX_EPOCH).unwrap_err().to_string();
        assert!(error.contains("it is not what an earlier check wrote") && error.contains("remove it"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
    }
}
