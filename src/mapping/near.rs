//! Codes of a site's data that no measure asks for, and that are nearly what one asks for: written otherwise, without their system, or
//! under another one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::{Asked, Finding, Problem, is_told, looks_like_code};
use crate::terminology::{spelling, systems};

/// Codes of one element that are named.
const SHOWN: usize = 3;
/// Codes of the data that are remembered; what comes after them is judged each time.
const JUDGED_MAX: usize = 200_000;

/// What codes of the data are held against.
pub(super) struct Near<'m> {
    asked: &'m Asked,
    /// What the spellings of a code have in common, its system and itself; sorted.
    codes: Vec<(String, &'m str, &'m str)>,
}

/// What is known of a code of the data.
#[derive(Clone, Copy)]
enum Verdict {
    /// It is asked for.
    Known,
    /// It is nearly the code at this place.
    Near(usize),
    Strange,
}

/// What was judged already, by system and code: most codes come again.
#[derive(Default)]
struct Judged {
    verdicts: FxHashMap<String, FxHashMap<String, Verdict>>,
    count: usize,
}

/// Where a code stands, and what it is near to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slip {
    place: usize,
    system: String,
    /// The place of the code that it is near to.
    meant: usize,
    code: String,
}

/// What was found of one patient.
pub(super) type OfPatient = BTreeSet<Slip>;

/// An element, the system that stands there, and the one that is meant.
type Kin = (usize, String, String);

/// What was seen of any number of patients.
#[derive(Default)]
pub(super) struct Slips {
    judged: Judged,
    /// Patients with each.
    slips: BTreeMap<Slip, u64>,
    /// Patients with any of them.
    patients: BTreeMap<Kin, u64>,
}

impl Slips {
    pub(super) fn merge(&mut self, other: Slips) {
        other.slips.into_iter().for_each(|(slip, patients)| *self.slips.entry(slip).or_default() += patients);
        other.patients.into_iter().for_each(|(kin, patients)| *self.patients.entry(kin).or_default() += patients);
    }

    /// Looks at the codings of one concept of a patient, whose element is known by its place. Whether it is asked for is the answer: then
    /// the codings beside that one may be what they like. Codes of systems that `is_translated` are the mapping's.
    pub(super) fn look(&mut self, near: &Near<'_>, own: &mut OfPatient, place: usize, codings: &[(&str, &str)], is_translated: impl Fn(&str) -> bool) -> bool {
        let judged = &mut self.judged;
        let verdict = |(system, code): &(&str, &str)| if is_translated(system) { Verdict::Known } else { judged.of(near, system, code) };
        let verdicts: Vec<Verdict> = codings.iter().map(verdict).collect();
        if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Known)) {
            return true;
        }
        for ((system, code), verdict) in codings.iter().zip(verdicts) {
            if let Verdict::Near(meant) = verdict {
                own.insert(Slip { place, system: (*system).to_owned(), meant, code: (*code).to_owned() });
            }
        }
        false
    }

    /// Adds those of one patient.
    pub(super) fn add(&mut self, near: &Near<'_>, slips: OfPatient) {
        let kins: BTreeSet<Kin> = slips.iter().map(|slip| near.kin(slip)).collect();
        kins.into_iter().for_each(|kin| *self.patients.entry(kin).or_default() += 1);
        slips.into_iter().for_each(|slip| *self.slips.entry(slip).or_default() += 1);
    }
}

impl Judged {
    fn of(&mut self, near: &Near<'_>, system: &str, code: &str) -> Verdict {
        if let Some(verdict) = self.verdicts.get(system).and_then(|codes| codes.get(code)) {
            return *verdict;
        }
        let verdict = near.judge(system, code);
        if self.count < JUDGED_MAX {
            self.count += 1;
            self.verdicts.entry(system.to_owned()).or_default().insert(code.to_owned(), verdict);
        }
        verdict
    }
}

impl<'m> Near<'m> {
    pub(super) fn new(asked: &'m Asked) -> Near<'m> {
        let mut codes: Vec<_> = asked.all().map(|(system, code)| (spelling::common(code), system, code)).collect();
        codes.sort_unstable();
        Near { asked, codes }
    }

    fn judge(&self, system: &str, code: &str) -> Verdict {
        if self.asked.knows(system, code) {
            return Verdict::Known;
        }
        if !looks_like_code(code) {
            return Verdict::Strange;
        }
        let common = spelling::common(code);
        let first = self.codes.partition_point(|(other, _, _)| *other < common);
        let alike = || self.codes.iter().enumerate().skip(first).take_while(|(_, (other, _, _))| *other == common);
        let of_system = alike().find(|(_, (_, own, other))| *own == system && spelling::alike(system, code, other));
        // Without a system it is taken at its word. Systems of FHIR's are known to have numbers that others have too.
        let is_telling = || spelling::is_telling(code) && (code.bytes().any(|byte| !byte.is_ascii_digit()) || !systems::is_known(system));
        let elsewhere = || alike().find(|(_, (_, _, other))| if system.is_empty() { *other == code && code.len() > 1 } else { is_telling() });
        of_system.or_else(elsewhere).map_or(Verdict::Strange, |(meant, _)| Verdict::Near(meant))
    }

    fn meant(&self, slip: &Slip) -> (&'m str, &'m str) {
        self.codes.get(slip.meant).map(|(_, system, code)| (*system, *code)).unwrap_or_default()
    }

    fn kin(&self, slip: &Slip) -> Kin {
        (slip.place, slip.system.clone(), self.meant(slip).0.to_owned())
    }

    /// What is to be told, with the number of patients: of an element and a system in one. The name of another system may be anything
    /// where one patient has it.
    pub(super) fn findings(&self, slips: &Slips, element: impl Fn(usize) -> String) -> Vec<(Finding, u64)> {
        let mut by_kin: BTreeMap<Kin, Vec<(&Slip, u64)>> = BTreeMap::new();
        slips.slips.iter().for_each(|(slip, patients)| by_kin.entry(self.kin(slip)).or_default().push((slip, *patients)));
        let finding = |(kin, mut slips_of): (Kin, Vec<(&Slip, u64)>)| {
            let patients = slips.patients.get(&kin).copied().unwrap_or_default();
            let (place, system, expected) = kin;
            slips_of.sort_by_key(|(slip, patients)| (Reverse(*patients), *slip));
            let shown = slips_of.iter().take(SHOWN).map(|(slip, _)| self.in_words(slip));
            let more = slips_of.len().saturating_sub(SHOWN);
            let found = shown.chain((more > 0).then(|| format!("{more} more"))).collect::<Vec<_>>().join(", ");
            let finding = Finding { element: element(place), system, found, expected, ..Finding::of(Problem::NearCodes) };
            (finding, patients)
        };
        let is_told = |(finding, patients): &(Finding, u64)| {
            let Finding { system, expected, .. } = finding;
            system == expected || system.is_empty() || is_told(system, *patients)
        };
        by_kin.into_iter().map(finding).filter(is_told).collect()
    }

    /// A spelling of a known code, and nothing else, is told.
    fn in_words(&self, slip: &Slip) -> String {
        let (_, code) = self.meant(slip);
        if code == slip.code { format!("`{code}`") } else { format!("`{}` for `{code}`", slip.code) }
    }
}
