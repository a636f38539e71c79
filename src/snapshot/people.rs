//! Persons as of a pull: what is stored of Patients that were merged into others belongs to the record of these.

use std::collections::{BTreeMap, BTreeSet};

use super::{Partition, PatientLines, PullId, Snapshot, SnapshotError};
use crate::fhir::merged::{Links, Merged};

/// The type of which there is one for each person.
const PATIENT: &str = "Patient";

/// Everybody who is stored, as of a pull.
#[derive(Debug)]
pub struct People<'s> {
    snapshot: &'s Snapshot,
    as_of: Option<PullId>,
    merged: Merged,
    /// What is written of who was merged into somebody, by that one.
    moved: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Snapshot {
    /// Everybody, as of a pull (the latest, when none is named). Patients are read first, of all partitions: who was merged into whom
    /// stands in them, and the two may lie in different ones.
    pub fn people(&self, as_of: Option<PullId>) -> Result<People<'_>, SnapshotError> {
        let (mut links, mut here) = (Links::default(), BTreeSet::new());
        for partition in self.partitions() {
            for ((_, id), (_, line)) in self.live(partition, as_of, &|name| name == PATIENT)? {
                links.take(&line);
                here.insert(id);
            }
        }
        let merged = Merged::follow(&links, |id| here.contains(id));
        let mut people = People { snapshot: self, as_of, merged, moved: BTreeMap::new() };
        people.moved = people.read_moved()?;
        Ok(people)
    }
}

impl People<'_> {
    fn read_moved(&self) -> Result<BTreeMap<String, Vec<Vec<u8>>>, SnapshotError> {
        let ids: BTreeMap<&str, &str> = self.merged.moved().collect();
        let partitions: BTreeSet<Partition> = ids.keys().map(|id| self.snapshot.partition_of(id)).collect();
        let mut moved: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for partition in partitions {
            for ((_, _), (patient, line)) in self.snapshot.live(partition, self.as_of, &|name| name != PATIENT)? {
                if let Some(survivor) = ids.get(patient.as_str()) {
                    moved.entry((*survivor).to_owned()).or_default().push(line);
                }
            }
        }
        Ok(moved)
    }

    /// The persons whose Patient is in a partition, as [`Snapshot::patients`] has them, each with what is written of them under other
    /// ids too.
    pub fn of(&self, partition: Partition) -> Result<Vec<PatientLines>, SnapshotError> {
        let mut patients = self.snapshot.patients(partition, self.as_of)?;
        patients.retain(|patient| self.merged.survivor(&patient.patient_id) == patient.patient_id);
        for patient in &mut patients {
            patient.lines.extend(self.moved.get(&patient.patient_id).into_iter().flatten().cloned());
        }
        Ok(patients)
    }

    /// Who is one person with somebody, and what is stored of that one; `None` where there is nothing.
    pub fn one(&self, patient: &str) -> Result<Option<PatientLines>, SnapshotError> {
        let own = self.merged.survivor(patient);
        let people = self.of(self.snapshot.partition_of(own))?;
        Ok(people.into_iter().find(|one| one.patient_id == own))
    }

    /// How many Patients say that another took their place who is not stored: they stand for themselves, and data may be missing.
    pub fn unfollowed(&self) -> u64 {
        self.merged.unfollowed()
    }
}
