//! Who is named and did not come when he was last asked for: each night asks for all of him, until he comes or is named no more. Of a
//! reading of everything he may still be stored, so that what is stored does not tell.

use super::by_patient::{came, patients};
use super::roll::{opened, sealed};
use crate::source::SourceError;
use crate::source::ledger::{self, Covered, Recorded};
use crate::source::pull::Pull;
use std::collections::BTreeSet;

/// Those who did not come before; `None` where that is not known.
pub(super) fn before(pull: &Pull<'_>) -> Result<Option<BTreeSet<String>>, SourceError> {
    let kept = ledger::covered(pull.snapshot.store(), &pull.source.name(), ledger::ABSENT, &pull.plan.digest())?;
    Ok(kept.and_then(|sealed| opened(pull, &sealed)))
}

/// Whether this pull can tell who did not come; one of changes, of whom earlier ones said so.
pub(in crate::source) fn is_told(pull: &Pull<'_>, units: &[Recorded]) -> Result<bool, SourceError> {
    let is_asked = pull.members.is_some() && pull.plan.export.is_none() && !units.iter().any(|unit| unit.resource_type == "Patient" && unit.gap.is_some());
    Ok(is_asked && (pull.reads_whole("Patient") || before(pull)?.is_some()))
}

/// Of those who are named, who did not come and is not known to be there.
pub(super) fn now(pull: &Pull<'_>, units: &[Recorded]) -> Result<BTreeSet<String>, SourceError> {
    let came = came(pull, units)?;
    let there = match pull.reads_whole("Patient") {
        true => came,
        false => {
            let lost = &before(pull)?.unwrap_or_default() - &came;
            &patients(pull, units)?.1 - &lost
        }
    };
    let named = pull.members.iter().flatten().filter(|id| !pull.habits.left().contains(*id));
    Ok(named.filter(|id| !there.contains(*id)).cloned().collect())
}

/// What the ledger keeps of them.
pub(in crate::source) fn to_keep(pull: &Pull<'_>, units: &[Recorded]) -> Result<Covered, SourceError> {
    if !is_told(pull, units)? {
        return Ok(Vec::new());
    }
    Ok(vec![(ledger::ABSENT.to_owned(), Some(sealed(pull, &now(pull, units)?)?))])
}
