//! Whether a group's export brought everything of its members, and what is done when it did not.
//!
//! Some servers leave out members, or the changes of members whose own record did not change, or the history of those who
//! are new. The group's list of members is the yardstick; what is missing is asked for.

use super::{Wanted, fetch};
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::ledger::{self, Unit};
use crate::source::pull::Pull;
use crate::source::search;
use std::collections::{BTreeMap, BTreeSet};

/// Members named in one kick-off.
const MEMBERS_PER_ORDER: usize = 500;

/// Who came with an export.
struct Arrived {
    /// Patients who came themselves.
    patients: BTreeSet<String>,
    /// Patients of whom anything else came.
    others: BTreeSet<String>,
}

/// Compares what came with the group's members, and fetches what did not.
pub(in crate::source) async fn check(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let Some(export) = pull.export() else { return Ok(()) };
    let members = match search::read_members(pull).await {
        Ok(None) => return Ok(()),
        Ok(Some(members)) => members,
        Err(SourceError::Nothing { reason }) => {
            let next = search::recount::next_full(pull)?;
            let reason = format!(
                "{reason}: whether all its members came cannot be told, nor is anything counted; what an export of changes leaves out shows when everything is read again{next}"
            );
            let note = Some(Why::new(Code::Unlisted, reason));
            return pull.record(&Unit { name: "members".to_owned(), resource_type: "*".to_owned(), query: "members of the Group".to_owned(), note, ..Unit::default() });
        }
        Err(error) => return Err(error),
    };
    pull.members = Some(members.clone());
    let arrived = arrived(pull)?;
    if pull.since.is_none() {
        let missing: BTreeSet<String> = members.difference(&arrived.patients).cloned().collect();
        return search::of_patients(pull, "of members left out", &export.types, &missing, false).await;
    }
    let known: BTreeSet<String> = pull.snapshot.patient_ids()?.into_iter().collect();
    let new: Vec<String> = members.difference(&known).cloned().collect();
    for some in new.chunks(MEMBERS_PER_ORDER) {
        history_of(pull, &export.path, &export.types, some).await?;
    }
    // Nobody's data without a change of the patient's own record: so it is on a quiet night, or always.
    if arrived.others.is_subset(&arrived.patients) {
        let old: BTreeSet<String> = members.intersection(&known).cloned().collect();
        // An export of everything left nobody out for that.
        let stored = if pull.whole.is_empty() { BTreeMap::new() } else { pull.snapshot.counts()? };
        let is_left = |name: &&String| pull.whole.is_empty() || !pull.whole.contains(*name) && stored.get(*name).is_some_and(|stored| *stored > 0);
        let types = export.types.iter().filter(is_left).cloned().collect();
        search::of_patients(pull, "of members, changed", &types, &old, true).await?;
    }
    Ok(())
}

/// A new member brings the whole history, by an export of these patients, or by search.
async fn history_of(pull: &mut Pull<'_>, path: &str, types: &BTreeSet<String>, members: &[String]) -> Result<(), SourceError> {
    let digest = crate::store::sha256_hex(members.join(",").as_bytes());
    let name = format!("{path} new members {}", digest.get(..16).unwrap_or_default());
    let wanted = Wanted { name, path, types, since: None, patients: members, codes: &BTreeMap::new() };
    let Some(reason) = fetch(pull, &wanted).await? else { return Ok(()) };
    tracing::info!(pull = pull.id.0, %reason, "new members are asked for by search");
    search::of_patients(pull, "of new members", types, &members.iter().cloned().collect(), false).await
}

fn arrived(pull: &Pull<'_>) -> Result<Arrived, SourceError> {
    let files: Vec<String> = ledger::units(pull.snapshot.store(), pull.id)?.into_iter().filter_map(|unit| unit.file).collect();
    let mut arrived = Arrived { patients: BTreeSet::new(), others: BTreeSet::new() };
    pull.snapshot.staged(pull.id, &files, |header, _| {
        let set = if header.resource_type == "Patient" { &mut arrived.patients } else { &mut arrived.others };
        if !header.patient.is_empty() && !header.removed && !set.contains(&header.patient) {
            set.insert(header.patient.clone());
        }
        Ok(())
    })?;
    Ok(arrived)
}
