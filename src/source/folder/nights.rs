//! Files of several nights side by side: where each night brings everything, what is missing from the newest still counts.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::path::Path;

use jiff::civil::Date;
use rustc_hash::FxBuildHasher;

use crate::fhir::compartment::in_compartment;
use crate::source::account::VOLUME_MIN;

/// Ids of a type and a night that are remembered: of more, those with the smallest hashes.
const SAMPLE: usize = 4_096;
/// Digits of a date: year, month and day.
const DATE_DIGITS: usize = 8;

/// The ids that the files of each night bring, of types of patients. What is of none may well come with every increment.
#[derive(Default)]
pub(super) struct Nights {
    types: BTreeMap<String, BTreeMap<String, BTreeSet<u64>>>,
}

impl Nights {
    /// An id of a type, in a file of a night.
    pub fn meet(&mut self, night: &str, resource_type: &str, id: &str) {
        if !in_compartment(resource_type) {
            return;
        }
        let nights = self.types.entry(resource_type.to_owned()).or_default();
        let sample = nights.entry(night.to_owned()).or_default();
        sample.insert(FxBuildHasher.hash_one(id));
        if sample.len() > SAMPLE {
            sample.pop_last();
        }
    }

    /// The types of which a night brings again nearly all that the one before it has brought, and of how many nights there are files.
    pub fn repeated(&self) -> impl Iterator<Item = (&str, usize)> {
        let is_repeated = |nights: &BTreeMap<String, BTreeSet<u64>>| nights.values().zip(nights.values().skip(1)).any(|(one, next)| is_again(one, next));
        self.types.iter().filter(move |(_, nights)| is_repeated(nights)).map(|(name, nights)| (name.as_str(), nights.len()))
    }
}

/// Whether nearly all ids of one night are among those of the next. Samples tell of what lies below the end of both.
fn is_again(one: &BTreeSet<u64>, next: &BTreeSet<u64>) -> bool {
    let end = |sample: &BTreeSet<u64>| sample.last().filter(|_| sample.len() == SAMPLE).copied().unwrap_or(u64::MAX);
    let (mut all, mut again) = (0, 0);
    for id in one.range(..=end(one).min(end(next))) {
        all += 1;
        again += u64::from(next.contains(id));
    }
    all >= VOLUME_MIN && again * 10 >= all * 9
}

/// The night that a path names in a folder or in the file's name, if it does: `20261128`.
pub(super) fn night(path: &Path) -> Option<String> {
    path.components().find_map(|part| date(part.as_os_str().to_str()?))
}

fn date(name: &str) -> Option<String> {
    let runs: Vec<&str> = name.split(|letter: char| !letter.is_ascii_digit()).filter(|run| !run.is_empty()).collect();
    (0..runs.len()).find_map(|first| {
        let digits: String = runs.iter().skip(first).flat_map(|run| run.chars()).take(DATE_DIGITS).collect();
        let (year, month, day) = (digits.get(..4)?.parse().ok()?, digits.get(4..6)?.parse().ok()?, digits.get(6..DATE_DIGITS)?.parse().ok()?);
        ((2000..2100).contains(&year) && Date::new(year, month, day).is_ok()).then_some(digits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nights_that_paths_name() {
        let named = ["2026-11-28/Patient.ndjson", "dump_20261128T0200/x.json", "Patient.2026-11-28.ndjson", "1.Patient.20261128.001.ndjson"];
        assert!(named.iter().all(|path| night(Path::new(path)).as_deref() == Some("20261128")));
        let others = ["Patient.ndjson", "Patient.000.ndjson", "1960-11-28/Patient.ndjson", "2026-13-01/Patient.ndjson", "20261/128.ndjson"];
        assert!(others.iter().all(|path| night(Path::new(path)).is_none()));
    }

    #[test]
    fn what_comes_again_is_told_however_much_it_is() {
        let repeated = |ranges: &[std::ops::Range<u32>]| {
            let mut nights = Nights::default();
            for (night, ids) in (20261101..).zip(ranges) {
                ids.clone().for_each(|id| nights.meet(&format!("{night}"), "Observation", &format!("o{id}")));
            }
            nights.repeated().map(|(name, nights)| (name.to_owned(), nights)).collect::<Vec<_>>()
        };
        let told = |nights| vec![("Observation".to_owned(), nights)];
        assert_eq!(repeated(&[0..100, 3..110]), told(2), "few are gone, some are new");
        assert_eq!(repeated(&[0..30_000, 0..0, 500..30_500]), told(2), "one without any is none");
        assert_eq!(repeated(&[0..30_000, 500..30_500, 0..7]), told(3));
        assert_eq!(repeated(&[0..30_000, 15_000..45_000]), Vec::new());
        assert_eq!(repeated(&[0..100, 100..120, 120..125]), Vec::new(), "increments");
        assert_eq!(repeated(&[0..19, 0..19]), Vec::new(), "too few to tell");
    }
}
