//! Whose a resource is that names its patient by an identifier or not at all: as a site's night has it.
//!
//! Who has an identifier is known when all Patients were looked at. So where one is met of which it is not known, its line is left,
//! the Patients are asked, and everything is read again. Data without such lines are read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::fhir::compartment::{Head, Naming, is_id, patient_required};
use crate::fhir::merged::Merged;
use crate::fhir::modifier;
use crate::fhir::record::{State, glance, state};
use crate::source::identified::whose;
use crate::source::import::known::{Ask, Known, answered};
use crate::source::intake::{Reason, unnamed};

use super::{Found, NO_PATIENT, NOBODY, Orphan, Part, Scan, Whom, hash};

/// What Patients are asked.
#[derive(Debug, Default)]
pub(in crate::source::folder) struct Asked {
    asks: BTreeSet<Ask>,
    /// Hashes of the ids of Patients of whom there are several versions: the newest counts, also where it has no such identifier.
    again: FxHashSet<u64>,
}

/// A version of a Patient, and which questions it answers.
#[derive(Debug)]
pub(super) struct Bearer {
    id: String,
    state: State,
    asks: Vec<Ask>,
}

impl Asked {
    /// By the Patients that were met.
    pub fn new<'p>(asks: BTreeSet<Ask>, parts: impl Iterator<Item = &'p Part>) -> Asked {
        let mut met = FxHashSet::default();
        let again = parts.flat_map(|part| &part.people).copied().filter(|person| !met.insert(*person)).collect();
        Asked { asks, again }
    }
}

/// Who has what was asked for, by the newest version of each Patient.
pub(in crate::source::folder) fn known(asked: Asked, merged: Arc<Merged>, parts: impl Iterator<Item = Part>) -> Arc<Known> {
    let mut newest: BTreeMap<String, (State, Vec<Ask>)> = BTreeMap::new();
    for Bearer { id, state, asks } in parts.flat_map(|part| part.bearers) {
        let (latest, own) = newest.entry(id).or_insert_with(|| (state.clone(), Vec::new()));
        if state > *latest {
            (*latest, *own) = (state, asks);
        } else if state == *latest {
            own.extend(asks.into_iter().filter(|ask| !own.contains(ask)).collect::<Vec<_>>());
        }
    }
    Known::patients(asked.asks, newest.into_iter().map(|(id, (_, asks))| (id, asks)).collect(), merged).into()
}

impl Part {
    /// Whether a Patient is in it.
    pub(in crate::source::folder) fn has_people(&self) -> bool {
        !self.people.is_empty()
    }
}

impl Scan<'_> {
    /// Notes a Patient who has an identifier that is asked for, or of whom another version may.
    pub(super) fn ask_who(&mut self, line: &[u8], asked: &Asked) {
        let Some(id) = glance::id(line).filter(|id| !asked.asks.is_empty() && is_id(id) && !modifier::turns_round(line)) else { return };
        let asks = answered(&asked.asks, ("Patient", &id), line);
        if asks.is_empty() && !asked.again.contains(&hash(&id)) {
            return;
        }
        self.part.bearers.extend(state(line).map(|state| Bearer { id: id.into_owned(), state, asks }));
    }

    /// Keeps what names nobody by `Patient/id`.
    pub(super) fn keep_unnamed(&mut self, resource_type: &str, head: &Head<'_>, found: Found<'_>) {
        let Found { line, number, whom, .. } = found;
        let orphan = match head.naming(resource_type) {
            Naming::Identifier(system, value) => {
                let (ask, known) = (Ask::patient(system, value), self.share.known.clone());
                if !known.asked().contains(&ask) {
                    self.part.asked.insert(ask);
                    return;
                }
                match whose(&known, &ask, resource_type, line) {
                    Ok(Some((patient, line))) => {
                        self.part.named.meet(patient);
                        return self.keep_for(patient, Found { line: &line, ..found });
                    }
                    Ok(None) => Orphan::No,
                    Err(reason) => return self.set_aside(number, reason.text()),
                }
            }
            _ if head.names_nobody(resource_type) && patient_required(resource_type) => Orphan::Required,
            _ if head.names_nobody(resource_type) => Orphan::Optional,
            naming if patient_required(resource_type) => {
                let reason = unnamed(&naming).filter(|reason| *reason != Reason::NoPatient);
                return self.set_aside(number, reason.map_or(NO_PATIENT, Reason::text));
            }
            _ => Orphan::No,
        };
        self.part.claims.extend(found.claim(None));
        // What is nobody's is kept with every share.
        if whom != Whom::Others {
            self.part.push(NOBODY, orphan, line, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::record::{Keep, Record, Shape};
    use crate::source::folder::{files, passes};

    /// `Patient/id version identifier`, with `-` for none, or `Observation/id version of-identifier`, with the code that is asked for or
    /// what stands in its place.
    fn line(text: &str) -> String {
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        let [name, version, mrn, rest @ ..] = words.as_slice() else { panic!("{text}") };
        let (resource_type, id) = name.split_once('/').unwrap();
        let identifier = format!(r#"{{"system":"urn:mrn","value":"{mrn}"}}"#);
        let element = match (resource_type, *mrn) {
            (_, "-") => String::new(),
            ("Patient", _) => format!(r#","identifier":[{identifier}]"#),
            ("Device", _) => format!(r#","patient":{{"identifier":{identifier}}}"#),
            _ => format!(r#","subject":{{"identifier":{identifier}}}"#),
        };
        let rest = match rest {
            [] if resource_type == "Observation" => r#","code":{"text":"wanted"}"#.to_owned(),
            rest => rest.concat(),
        };
        format!(r#"{{"resourceType":"{resource_type}","id":"{id}","meta":{{"versionId":"{version}"}}{element}{rest}}}"#)
    }

    /// Patients enough that they come in several passes where memory is short, each with an observation by identifier.
    fn filler() -> Vec<String> {
        (0..100).flat_map(|n| [line(&format!("Observation/f{n} 1 f{n}")), line(&format!("Patient/q{n} 1 f{n}"))]).collect()
    }

    /// Whose each resource is that is not the filler's, what is nobody's, how much was set aside, in how many passes.
    fn read(lines: &[String], memory: u64, threads: usize, is_one_file: bool) -> (String, usize) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: String, lines: &[String]| std::fs::write(folder.path().join(name), lines.concat()).unwrap();
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        match is_one_file {
            true => write("all.ndjson".to_owned(), &lines),
            false => lines.chunks(7).enumerate().for_each(|(at, lines)| write(format!("{at}.ndjson"), lines)),
        }
        let kept = ["Patient", "Observation", "Device"].map(|name| (name.to_owned(), Keep::All));
        let mut shape = Shape { types: kept.into(), ..Shape::default() };
        shape.sift("Observation", ["wanted".to_owned()].into());
        let (mut found, mut of_filler, mut rest, mut count) = (BTreeSet::new(), 0, None, 0);
        for data in passes(&files(&[folder.path().to_owned()]).unwrap(), &shape, memory, threads) {
            let data = data.unwrap();
            count += 1;
            let own = (data.shared().count(), data.bad_count);
            assert_eq!(rest.get_or_insert(own), &own, "each pass tells of everything");
            for patient in data.patients() {
                let (record, _) = Record::read(&shape, patient.lines());
                if patient.id.starts_with('q') {
                    of_filler += record.resources("Observation").len();
                    continue;
                }
                for resource in record.resources("Observation").iter().chain(record.resources("Device")) {
                    assert!(found.insert(format!("{} {}", patient.id, record.resource_id(*resource).unwrap())), "in one pass only");
                }
            }
        }
        assert_eq!(of_filler, 100);
        let (shared, bad) = rest.unwrap();
        (format!("{}; nobody's {shared}, set aside {bad}", found.into_iter().collect::<Vec<_>>().join(", ")), count)
    }

    #[test]
    fn exactly_one_patient_has_it_whatever_the_order_the_memory_and_the_threads() {
        let cases: [(&str, &[&str], &str); 10] = [
            ("one", &["Patient/p1 1 a", "Observation/o 1 a"], "p1 o; nobody's 0, set aside 0"),
            ("none", &["Patient/p1 1 a", "Observation/o 1 b"], "; nobody's 0, set aside 1"),
            ("several", &["Patient/p1 1 a", "Patient/p2 1 a", "Observation/o 1 a"], "; nobody's 0, set aside 1"),
            ("can do without", &["Patient/p1 1 a", "Device/d 1 b", "Device/e 1 a"], "p1 e; nobody's 1, set aside 0"),
            ("it went to another", &["Patient/p1 1 a", "Patient/p1 2 b", "Patient/p2 1 a", "Observation/o 1 a"], "p2 o; nobody's 0, set aside 0"),
            ("he has it no more", &["Patient/p1 1 a", "Patient/p1 2 -", "Observation/o 1 a"], "; nobody's 0, set aside 1"),
            (
                "he was replaced",
                &[r#"Patient/p1 1 a ,"link":[{"other":{"reference":"Patient/p2"},"type":"replaced-by"}]"#, "Patient/p2 1 a", "Observation/o 1 a"],
                "p2 o; nobody's 0, set aside 0",
            ),
            (
                "who was replaced alone has it",
                &[r#"Patient/p1 1 a ,"link":[{"other":{"reference":"Patient/p2"},"type":"replaced-by"}]"#, "Patient/p2 1 b", "Observation/o 1 a"],
                "p2 o; nobody's 0, set aside 0",
            ),
            (
                "a newer version is another's, and not what is asked for",
                &["Patient/p1 1 a", "Patient/p2 1 b", "Observation/o 1 a", r#"Observation/o 2 b ,"code":{"text":"other"}"#],
                "; nobody's 0, set aside 0",
            ),
            ("a newer version is another's", &["Patient/p1 1 a", "Patient/p2 1 b", "Observation/o 1 a", "Observation/o 2 b"], "p2 o; nobody's 0, set aside 0"),
        ];
        for (name, texts, expected) in cases {
            let mut lines: Vec<String> = filler().into_iter().chain(texts.iter().map(|text| line(text))).collect();
            for turn in 0..2 {
                lines.reverse();
                for (memory, threads, is_one_file) in [(u64::MAX, 1, true), (u64::MAX, 3, false), (20_000, 3, false)] {
                    let (found, passes) = read(&lines, memory, threads, is_one_file);
                    assert_eq!(found, expected, "{name}: {turn} {memory} {threads} {is_one_file}");
                    assert_eq!(passes > 1, memory == 20_000, "{passes}");
                }
            }
        }
    }
}
