//! What a measure found in one patient and period, and the sums over many, merged in any order.

use std::collections::{BTreeMap, BTreeSet};

use super::calculate::UNKNOWN;
use super::definition::Stratifier;
use super::population::{Member, Membership, Tallies};
use crate::cql::evaluate::doubt::Doubt;
use crate::diagnostic;
use crate::fhir::record::Place;

/// One measure over one patient and one period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatientResult {
    /// One per group of the measure.
    pub groups: Vec<GroupResult>,
    /// The value of each supplemental datum; `None` when nothing is known.
    pub supplements: Vec<Option<String>>,
    /// Codes of the errors that the measure's libraries raised by `Message`, and went on.
    pub messages: BTreeSet<String>,
    /// Where values stand that the measure asked for and that are none of their type.
    pub unreadable: BTreeSet<Place>,
    /// Values that the measure asked for and that could not be used as they stand.
    pub doubts: BTreeSet<Doubt>,
}

/// One group over one patient and one period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupResult {
    /// One per population of the group, in the measure's order.
    pub memberships: Vec<Membership>,
    /// Per stratifier: stratum (one text per component) to the members in it; `None` is all of them.
    pub strata: Vec<Strata>,
}

/// The strata of one stratifier with the members in each; `None` is all of them.
pub type Strata = BTreeMap<Stratum, Option<BTreeSet<Member>>>;

/// A stratum: one value for a plain stratifier, one per component otherwise.
pub type Stratum = Vec<Label>;

/// A value that divides.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// What is shown of it.
    pub text: String,
    /// Of a code its system: the same letters mean something else in another one.
    pub system: Option<String>,
}

impl From<&str> for Label {
    fn from(text: &str) -> Label {
        Label { text: text.to_owned(), system: None }
    }
}

/// What people call a stratum, in whatever system.
pub fn name_of(stratum: &[Label]) -> String {
    stratum.iter().map(|label| label.text.as_str()).collect::<Vec<_>>().join(" / ")
}

impl PatientResult {
    /// Whether the patient counts in any population of any group, or may.
    pub fn is_counted(&self) -> bool {
        !self.groups.iter().all(GroupResult::is_empty)
    }

    /// Whether the patient is in any population of any group.
    pub fn is_in_population(&self) -> bool {
        self.groups.iter().any(|group| group.memberships.iter().any(|one| !one.members.is_empty()))
    }
}

impl GroupResult {
    /// Whether the patient counts in any population.
    pub fn is_empty(&self) -> bool {
        self.memberships.iter().all(|membership| membership.members.is_empty() && membership.unknown.is_empty())
    }

    /// The strata of each stratifier in which a member counts, or may, with those that are in them.
    pub fn strata(&self) -> impl Iterator<Item = impl Iterator<Item = (&Stratum, Option<&BTreeSet<Member>>)>> {
        let everyone = || self.memberships.iter().flat_map(|one| one.members.iter().chain(one.unknown.keys()));
        let is_touched = move |inside: Option<&BTreeSet<Member>>| everyone().any(|member| inside.is_none_or(|inside| inside.contains(member)));
        self.strata
            .iter()
            .map(move |strata| strata.iter().map(|(name, inside)| (name, inside.as_ref())).filter(move |(_, inside)| is_touched(*inside)))
    }
}

impl Stratifier {
    /// Strata that its logic gives and `strata` does not name, and one that `strata` names and nobody is in, where there are both:
    /// one is probably written for the other.
    pub fn misnamed<'a>(&'a self, given: &'a BTreeSet<String>) -> Option<(Vec<&'a str>, &'a str)> {
        let is_named = |name: &&String| self.strata.contains_key(*name) || name.split(" / ").all(|part| part == UNKNOWN);
        let strangers: Vec<&str> = given.iter().filter(|name| !is_named(name)).map(String::as_str).collect();
        let absent = || self.strata.keys().filter(|name| !given.contains(*name)).map(String::as_str);
        let near = diagnostic::nearest(strangers.first()?, absent());
        near.or_else(|| absent().next()).map(|absent| (strangers, absent))
    }
}

/// Sums of one measure and period over a part of the patients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// One per group.
    pub groups: Vec<GroupPartial>,
    /// Per supplemental datum: value to the number of patients in an initial population.
    pub supplements: Vec<BTreeMap<String, u64>>,
    /// Patients evaluated.
    pub patients: u64,
    /// Patients whose evaluation failed, by the reason; they are in no population.
    pub faults: BTreeMap<String, u64>,
    /// Patients about whom the libraries raised an error by `Message`, by its code; they are counted nevertheless.
    pub messages: BTreeMap<String, u64>,
    /// Patients of whom a value that the measure asked for is none of its type, by element; they are counted as if it were absent.
    pub unreadable: BTreeMap<String, u64>,
    /// Patients of whom a value that the measure asked for could not be used as it stands.
    pub doubts: BTreeMap<Doubt, u64>,
}

/// Sums of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPartial {
    /// Everyone.
    pub all: Tallies,
    /// Per stratifier: stratum to its sums.
    pub strata: Vec<BTreeMap<Stratum, Tallies>>,
}

impl Partial {
    /// Adds one patient.
    pub fn add(&mut self, result: &PatientResult) {
        self.patients += 1;
        self.fit(result.groups.len(), result.supplements.len());
        for (own, found) in self.groups.iter_mut().zip(&result.groups) {
            own.add(found);
        }
        for code in &result.messages {
            *self.messages.entry(code.clone()).or_default() += 1;
        }
        let elements: BTreeSet<&str> = result.unreadable.iter().map(|place| place.element.as_str()).collect();
        for element in elements {
            *self.unreadable.entry(element.to_owned()).or_default() += 1;
        }
        for doubt in &result.doubts {
            *self.doubts.entry(doubt.clone()).or_default() += 1;
        }
        let is_in_population = result.is_in_population();
        for (own, value) in self.supplements.iter_mut().zip(&result.supplements) {
            if is_in_population {
                *own.entry(value.clone().unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
            }
        }
    }

    /// Adds one patient whose evaluation failed; `reason` holds nothing of the patient.
    pub fn add_fault(&mut self, reason: &str) {
        self.patients += 1;
        *self.faults.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds the sums of another part of the patients.
    pub fn merge(&mut self, other: &Partial) {
        self.fit(other.groups.len(), other.supplements.len());
        for (own, theirs) in self.groups.iter_mut().zip(&other.groups) {
            own.merge(theirs);
        }
        for (own, theirs) in self.supplements.iter_mut().zip(&other.supplements) {
            for (value, count) in theirs {
                *own.entry(value.clone()).or_default() += count;
            }
        }
        self.patients += other.patients;
        for (code, count) in &other.messages {
            *self.messages.entry(code.clone()).or_default() += count;
        }
        for (element, patients) in &other.unreadable {
            *self.unreadable.entry(element.clone()).or_default() += patients;
        }
        for (doubt, patients) in &other.doubts {
            *self.doubts.entry(doubt.clone()).or_default() += patients;
        }
        for (reason, count) in &other.faults {
            *self.faults.entry(reason.clone()).or_default() += count;
        }
    }

    fn fit(&mut self, groups: usize, supplements: usize) {
        if self.groups.len() < groups {
            self.groups.resize(groups, GroupPartial::default());
        }
        if self.supplements.len() < supplements {
            self.supplements.resize(supplements, BTreeMap::new());
        }
    }
}

impl GroupPartial {
    fn add(&mut self, found: &GroupResult) {
        let slots = found.memberships.len();
        self.fit(slots, found.strata.len());
        self.all.add(&found.memberships, None);
        for (own, strata) in self.strata.iter_mut().zip(found.strata()) {
            for (stratum, members) in strata {
                let tallies = own.entry(stratum.clone()).or_insert_with(|| Tallies::new(slots));
                tallies.add(&found.memberships, members);
            }
        }
    }

    fn merge(&mut self, other: &GroupPartial) {
        self.fit(other.all.slots.len(), other.strata.len());
        self.all.merge(&other.all);
        for (own, theirs) in self.strata.iter_mut().zip(&other.strata) {
            for (stratum, tallies) in theirs {
                own.entry(stratum.clone()).or_default().merge(tallies);
            }
        }
    }

    fn fit(&mut self, slots: usize, stratifiers: usize) {
        if self.all.slots.len() < slots {
            self.all.slots.resize_with(slots, Default::default);
        }
        if self.strata.len() < stratifiers {
            self.strata.resize(stratifiers, BTreeMap::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patient(stratum: &str, members: &[&str], sex: Option<&str>) -> PatientResult {
        let members: BTreeSet<Member> = members.iter().map(|&key| key.to_owned()).collect();
        let membership = Membership { scored: members.clone(), members, ..Membership::default() };
        let strata = vec![BTreeMap::from([(vec![Label::from(stratum)], None)])];
        PatientResult { groups: vec![GroupResult { memberships: vec![membership], strata }], supplements: vec![sex.map(str::to_owned)], ..PatientResult::default() }
    }

    #[test]
    fn parts_merge_in_any_order_and_empty_ones_change_nothing() {
        let patients = [patient("a", &["1", "2"], Some("f")), patient("b", &["1"], None), patient("a", &[], Some("m"))];
        let mut whole = Partial::default();
        let mut parts = Vec::new();
        for one in &patients {
            whole.add(one);
            let mut part = Partial::default();
            part.add(one);
            parts.push(part);
        }
        let mut failed = Partial::default();
        failed.add_fault("too deep");
        whole.add_fault("too deep");
        parts.push(failed);
        parts.push(Partial::default());
        for turn in 0..parts.len() {
            parts.rotate_left(turn);
            let mut merged = Partial::default();
            parts.iter().for_each(|part| merged.merge(part));
            assert_eq!(merged, whole);
        }
        assert_eq!((whole.patients, whole.groups[0].all.slots[0].count), (4, 3));
        assert_eq!(whole.supplements, [BTreeMap::from([("f".to_owned(), 1), ("unknown".to_owned(), 1)])]);
        let strata: Vec<_> = whole.groups[0].strata[0].iter().map(|(name, sums)| (name[0].text.as_str(), sums.slots[0].count)).collect();
        assert_eq!(strata, [("a", 2), ("b", 1)]);
    }
}
