//! Who the identifiers are by which a Group or the site's list names patients: kept with a pull, which asks for each once however many
//! nights it takes, and of the list from night to night.

use super::cut;
use crate::snapshot::{open_bytes, seal_bytes};
use crate::source::SourceError;
use crate::source::ledger::{self, Covered};
use crate::source::pull::Pull;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Name under which it is sealed.
const SEAL: &str = "who is named";
/// Names what a pull was told so far.
const ANSWERS: &str = "identifiers";

/// System and value.
pub(super) type Identifier = (String, String);
/// Of identifiers the one patient who has each; `None`: nobody, or several.
pub(super) type Answers = BTreeMap<Identifier, Option<String>>;

/// Whom the list names.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Roll {
    pub patients: BTreeSet<String>,
    /// Those of them whom it names by an identifier.
    identifiers: Vec<(Identifier, String)>,
}

impl Roll {
    pub fn of(patients: BTreeSet<String>, found: &BTreeMap<Identifier, String>) -> Roll {
        Roll { patients, identifiers: found.clone().into_iter().collect() }
    }

    /// Who each identifier was.
    pub fn identified(&self) -> BTreeMap<&Identifier, &String> {
        self.identifiers.iter().map(|(one, id)| (one, id)).collect()
    }
}

/// What this pull was told of identifiers. What cannot be read is asked for again.
pub(super) fn answers(pull: &Pull<'_>) -> Result<Answers, SourceError> {
    let kept = ledger::places(pull.snapshot.store(), pull.id, ANSWERS)?;
    Ok(kept.iter().filter_map(|sealed| opened::<Vec<(Identifier, Option<String>)>>(pull, sealed)).flatten().collect())
}

/// Keeps what this pull was told.
pub(super) fn keep(pull: &Pull<'_>, answers: &Answers) -> Result<(), SourceError> {
    if answers.is_empty() {
        return Ok(());
    }
    let sealed = sealed(pull, &answers.iter().collect::<Vec<_>>())?;
    Ok(ledger::keep_more(pull.snapshot.store(), pull.id, ANSWERS, &sealed)?)
}

/// Whom the list named when a pull that ended last read it.
pub(super) fn last(pull: &Pull<'_>) -> Result<Option<Roll>, SourceError> {
    Ok(ledger::roll(pull.snapshot.store(), &pull.source.name())?.and_then(|sealed| opened(pull, &sealed)))
}

/// The patients of the list as it was when it could last be read, in this pull or before it; `None` where nothing is stored of any.
pub(super) fn last_good(pull: &Pull<'_>) -> Result<Option<BTreeSet<String>>, SourceError> {
    let is_stored = pull.snapshot.counts()?.get("Patient").is_some_and(|stored| *stored > 0);
    let Some(roll) = last(pull)?.filter(|_| is_stored) else { return Ok(None) };
    let asked = cut::asked(pull)?;
    Ok(Some(if asked.is_empty() { roll.patients } else { asked }))
}

/// What the ledger keeps of whom the list names, where this run read it.
pub(in crate::source) fn to_keep(pull: &Pull<'_>) -> Result<Covered, SourceError> {
    let roll = pull.habits.roll.get().map(|roll| sealed(pull, roll)).transpose()?;
    Ok(roll.map(|sealed| (ledger::ROLL.to_owned(), Some(sealed))).into_iter().collect())
}

pub(super) fn sealed(pull: &Pull<'_>, what: &impl Serialize) -> Result<Vec<u8>, SourceError> {
    let sealed = serde_json::to_vec(what).ok().and_then(|text| seal_bytes(pull.snapshot.key(), SEAL, &text).ok());
    sealed.ok_or_else(|| SourceError::Options("who is named could not be sealed".to_owned()))
}

pub(super) fn opened<T: DeserializeOwned>(pull: &Pull<'_>, sealed: &[u8]) -> Option<T> {
    open_bytes(pull.snapshot.key(), SEAL, sealed).ok().and_then(|text| serde_json::from_slice(&text).ok())
}
