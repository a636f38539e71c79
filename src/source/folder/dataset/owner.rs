//! Whose a resource is of which several patients have a version: the patient's whom the newest names.
//!
//! Versions of one patient meet in that patient's record, which takes the newest. Where a newer one names another patient, none of
//! the records knows of the other; so what is kept is looked through for an id that two patients have. Most have only one, which
//! a bit for each resource tells. Where nothing says which version is the newest, ids are not of one server, and what two
//! patients have under one id are two resources.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::fhir::merged::Merged;
use crate::fhir::record::glance::{Key, Kinds};
use crate::fhir::record::{Shape, State, state};

use super::{Asked, LastElement, Part, named};

/// Bits for each resource that is kept, at least.
const BITS_EACH: usize = 16;
/// Fewest bits, as a power of two.
const BITS_LOG_MIN: u32 = 12;

/// Whom a resource names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    key: Key,
    /// The patient's id as a number; 0 of what names none.
    patient: u64,
}

impl Claim {
    pub(super) fn new(key: Key, patient: Option<&str>) -> Claim {
        Claim { key, patient: patient.map_or(0, |patient| FxBuildHasher.hash_one(patient)) }
    }
}

/// What is to be read again.
#[derive(Debug, Default)]
pub(in crate::source::folder) struct Wanted {
    /// What was kept and also passed over: the versions that were passed over.
    pub versions: FxHashSet<Key>,
    /// What several patients have: the versions of patients who are not of the share.
    pub contested: FxHashSet<Key>,
    /// Who has an identifier.
    pub asked: Asked,
}

impl Wanted {
    /// Of what was kept; `passed_over` is `None` where it was too much to be remembered, and may be anything then.
    pub fn of<'p>(parts: impl Iterator<Item = &'p Part> + Clone, passed_over: Option<Vec<Vec<Key>>>) -> Wanted {
        let claims = parts.flat_map(|part| &part.claims);
        let mut met = Bits::new(claims.clone().count());
        let again: FxHashSet<Key> = claims.clone().map(|claim| claim.key).filter(|key| met.put(*key)).collect();
        let passed_over: Option<FxHashSet<Key>> = passed_over.map(|keys| keys.into_iter().flatten().filter(|key| met.has(*key)).collect());
        let mut patients = FxHashMap::default();
        let mut wanted = Wanted::default();
        for Claim { key, patient } in claims {
            if passed_over.as_ref().is_none_or(|keys| keys.contains(key)) {
                wanted.versions.insert(*key);
            }
            if again.contains(key) && patients.entry(*key).or_insert(patient) != &patient {
                wanted.contested.insert(*key);
            }
        }
        wanted
    }

    pub fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.contested.is_empty()
    }
}

/// A bit for each key: says of most keys that were not put that they were not, in little memory that lies close together.
struct Bits {
    words: Vec<u64>,
    log: u32,
}

impl Bits {
    fn new(keys: usize) -> Bits {
        let log = (keys * BITS_EACH).next_power_of_two().ilog2().max(BITS_LOG_MIN);
        Bits { words: vec![0; 1 << (log - u64::BITS.ilog2())], log }
    }

    fn place(&self, key: Key) -> (usize, u64) {
        let bit = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - self.log);
        ((bit / u64::from(u64::BITS)) as usize, 1 << (bit % u64::from(u64::BITS)))
    }

    fn has(&self, key: Key) -> bool {
        let (word, bit) = self.place(key);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Puts a key; whether it may have been there before.
    fn put(&mut self, key: Key) -> bool {
        let (word, bit) = self.place(key);
        let Some(word) = self.words.get_mut(word) else { return true };
        let was_there = *word & bit != 0;
        *word |= bit;
        was_there
    }
}

/// Part and row.
type Place = (usize, usize);

/// A line of a resource that several patients may have.
struct Version {
    place: Place,
    patient: Option<String>,
    state: State,
}

/// How many, by type.
type Counts = BTreeMap<String, u64>;

/// Takes what is older from all patients but whom the newest version names. Returns how many resources were moved so, and of how
/// many it cannot be told, because patients have versions as new as each other.
pub(super) fn settle(parts: &mut [Part], contested: &FxHashSet<Key>, merged: &Merged) -> (Counts, Counts) {
    let (mut moved, mut unclear) = (Counts::new(), Counts::new());
    if contested.is_empty() {
        return (moved, unclear);
    }
    let mut older: BTreeSet<Place> = BTreeSet::new();
    for ((resource_type, _), versions) in versions(parts, contested, merged) {
        let newest = versions.iter().map(|version| &version.state).max();
        let owners: BTreeSet<&Option<String>> = versions.iter().filter(|version| Some(&version.state) == newest).map(|version| &version.patient).collect();
        let behind: Vec<Place> = versions.iter().filter(|version| !owners.contains(&version.patient)).map(|version| version.place).collect();
        if owners.len() > 1 {
            *unclear.entry(resource_type).or_default() += 1;
        } else if !behind.is_empty() {
            *moved.entry(resource_type).or_default() += 1;
        }
        older.extend(behind);
    }
    for (index, part) in parts.iter_mut().enumerate() {
        let mut rows = 0..;
        part.rows.retain(|_| rows.next().is_some_and(|row| !older.contains(&(index, row))));
    }
    (moved, unclear)
}

/// The lines that can be read of what is contested, by type and id. (One that cannot is left to whoever reads the record.)
fn versions(parts: &[Part], contested: &FxHashSet<Key>, merged: &Merged) -> BTreeMap<(String, String), Vec<Version>> {
    let mut found: BTreeMap<(String, String), Vec<Version>> = BTreeMap::new();
    let shape = Shape::default();
    let (mut kinds, mut element): (Kinds<'_>, LastElement) = (Kinds::new(&shape), None);
    for (index, part) in parts.iter().enumerate() {
        for (number, row) in part.rows.iter().enumerate() {
            let line = part.line(row).unwrap_or_default();
            let Ok(kind) = kinds.of(line) else { continue };
            let Some(id) = kind.id(line).filter(|id| contested.contains(&kind.key_of(id.as_bytes()))) else { continue };
            let Some(state) = state(line) else { continue };
            let patient = named(&mut element, &kind.name, line).map(|patient| merged.survivor(&patient).to_owned());
            found
                .entry((kind.name.to_string(), id.into_owned()))
                .or_default()
                .push(Version { place: (index, number), patient, state });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::record::{Keep, Record};
    use crate::source::folder::{files, passes};

    /// Enough that they come in several shares where memory is short, and that what is passed over is too much to be remembered then.
    fn filler() -> String {
        let line = |n: u32| {
            format!(
                "{{\"resourceType\":\"Patient\",\"id\":\"q{n}\"}}\n{{\"resourceType\":\"Observation\",\"id\":\"f{n}\",\"code\":{{\"text\":\"other\"}},\"subject\":{{\"reference\":\"Patient/q{n}\"}}}}\n"
            )
        };
        (0..100).map(line).collect()
    }

    /// `Type/id patient version code`, with `-` for none; a word further for what else stands in it.
    fn line(text: &str) -> String {
        let mut words = text.split(' ').map(|word| Some(word).filter(|word| *word != "-"));
        let (resource_type, id) = words.next().flatten().unwrap().split_once('/').unwrap();
        let mut line = format!(r#"{{"resourceType":"{resource_type}","id":"{id}""#);
        let element = if resource_type == "Device" { "patient" } else { "subject" };
        let (patient, version, code) = (words.next().flatten(), words.next().flatten(), words.next().flatten());
        line += &version.map_or_else(String::new, |version| format!(r#","meta":{{"versionId":"{version}"}}"#));
        line += &patient.map_or_else(String::new, |patient| format!(r#","{element}":{{"reference":"Patient/{patient}"}}"#));
        line += &code.map_or_else(String::new, |code| format!(r#","code":{{"text":"{code}"}}"#));
        line += words.next().flatten().unwrap_or_default();
        line + "}"
    }

    /// Of Observations those with the code "wanted", or all.
    fn shape(is_sifted: bool) -> Shape {
        let kept = ["Patient", "Observation", "Procedure", "Device"].map(|name| (name.to_owned(), Keep::All));
        let mut shape = Shape { types: kept.into(), ..Shape::default() };
        if is_sifted {
            shape.sift("Observation", ["wanted".to_owned()].into());
        }
        shape
    }

    /// What the records of all but the filler say: `patient Type/id@version`, sorted; then what is told; and how many passes it took.
    fn records(lines: &[String], shape: &Shape, memory: u64, threads: usize, is_one_file: bool) -> (String, usize) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: String, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        match is_one_file {
            true => write("all.ndjson".to_owned(), &(lines.join("\n") + "\n" + &filler())),
            false => {
                lines.iter().enumerate().for_each(|(at, line)| write(format!("{at}.ndjson"), line));
                write("filler.ndjson".to_owned(), &filler());
            }
        }
        let (mut found, mut told, mut count) = (BTreeSet::new(), None, 0);
        for data in passes(&files(&[folder.path().to_owned()]).unwrap(), shape, memory, threads) {
            let data = data.unwrap();
            count += 1;
            let own = (data.moved.clone(), data.unclear.clone());
            assert_eq!(told.get_or_insert_with(|| own.clone()), &own, "each pass tells of everything");
            for patient in data.patients().filter(|patient| !patient.id.starts_with('q')) {
                assert!(patient.lines().count() > 0, "{}", patient.id);
                let (record, _) = Record::read(shape, patient.lines());
                for resource_type in ["Observation", "Procedure", "Device"] {
                    for resource in record.resources(resource_type) {
                        let version = record.get(*resource, "meta").and_then(|meta| record.text(record.get(meta, "versionId")?)).unwrap_or_default();
                        let row = format!("{} {resource_type}/{}@{version}", patient.id, record.resource_id(*resource).unwrap());
                        assert!(found.insert(row), "in one pass only");
                    }
                }
            }
        }
        let rows: Vec<String> = found.into_iter().collect();
        let (moved, unclear) = told.unwrap();
        let sum = |counts: Counts| counts.values().sum::<u64>();
        (format!("{}; moved {}, unclear {}", rows.join(", "), sum(moved), sum(unclear)), count)
    }

    #[test]
    fn the_newest_version_says_whose_a_resource_is_whatever_is_sifted_and_in_whatever_order_it_is_read() {
        let contained = r#","contained":[{"resourceType":"Observation","id":"o","subject":{"reference":"Patient/p2"}}]"#;
        let with_contained = format!("Observation/c p2 2 wanted {contained}");
        let merged = r#"Patient/p3 - - - ,"link":[{"other":{"reference":"Patient/p1"},"type":"replaced-by"}]"#;
        // What is kept; what is if only what is wanted is kept, where that differs.
        let cases: [(&str, &[&str], &str, Option<&str>); 15] = [
            ("one patient", &["Observation/o p1 1 wanted", "Observation/o p1 2 wanted"], "p1 Observation/o@2; moved 0, unclear 0", None),
            ("another patient", &["Observation/o p1 1 wanted", "Observation/o p2 2 wanted"], "p2 Observation/o@2; moved 1, unclear 0", None),
            ("the newer is sifted away", &["Observation/o p1 1 wanted", "Observation/o p2 2 other"], "p2 Observation/o@2; moved 1, unclear 0", Some("; moved 1, unclear 0")),
            ("the older is", &["Observation/o p1 1 other", "Observation/o p2 2 wanted"], "p2 Observation/o@2; moved 1, unclear 0", None),
            ("both are", &["Observation/o p1 1 other", "Observation/o p2 2 other"], "p2 Observation/o@2; moved 1, unclear 0", Some("; moved 0, unclear 0")),
            ("there and back", &["Observation/o p1 1 wanted", "Observation/o p2 2 wanted", "Observation/o p1 10 wanted"], "p1 Observation/o@10; moved 1, unclear 0", None),
            (
                "the newest of the other is sifted away",
                &["Observation/o p1 1 wanted", "Observation/o p2 2 wanted", "Observation/o p2 3 other"],
                "p2 Observation/o@3; moved 1, unclear 0",
                None,
            ),
            ("another type", &["Observation/o p1 1 wanted", "Procedure/o p2 2 wanted"], "p1 Observation/o@1, p2 Procedure/o@2; moved 0, unclear 0", None),
            ("a contained one", &["Observation/o p1 1 wanted", &with_contained], "p1 Observation/o@1, p2 Observation/c@2; moved 0, unclear 0", None),
            ("neither is the newer", &["Observation/o p1 - wanted", "Observation/o p2 - wanted"], "p1 Observation/o@, p2 Observation/o@; moved 0, unclear 1", None),
            (
                "neither of the newest is",
                &["Observation/o p1 1 wanted", "Observation/o p2 2 wanted", "Observation/o p4 2 wanted"],
                "p2 Observation/o@2, p4 Observation/o@2; moved 0, unclear 1",
                None,
            ),
            ("one person", &["Observation/o p3 1 wanted", "Observation/o p1 2 wanted", merged], "p1 Observation/o@2; moved 0, unclear 0", None),
            ("nobody's any more", &["Device/o p1 1", "Device/o - 2"], "; moved 1, unclear 0", None),
            ("whole types", &["Device/o p1 1", "Device/o p2 2", "Procedure/o p1 1"], "p1 Procedure/o@1, p2 Device/o@2; moved 1, unclear 0", None),
            ("the newer cannot be read", &["Observation/o p1 1 wanted", r#"Observation/o p2 2 wanted ,"value":oops"#], "p1 Observation/o@1; moved 0, unclear 0", None),
        ];
        let people = ["Patient/p1", "Patient/p2", "Patient/p4"].map(line);
        for (name, texts, all, sifted) in cases {
            let mut lines: Vec<String> = people.iter().cloned().chain(texts.iter().map(|text| line(text))).collect();
            for turn in 0..2 {
                lines.reverse();
                for (memory, threads, is_one_file) in [(u64::MAX, 1, false), (u64::MAX, 3, true), (6_000, 3, false)] {
                    let found = |is_sifted: bool| records(&lines, &shape(is_sifted), memory, threads, is_one_file);
                    let ((whole, passes), (part, _)) = (found(false), found(true));
                    assert_eq!(passes > 1, memory == 6_000, "{passes}");
                    assert_eq!((whole.as_str(), part.as_str()), (all, sifted.unwrap_or(all)), "{name}: {turn} {memory} {threads} {is_one_file}");
                }
            }
        }
    }
}
