//! What a search names as deleted: let go of only where the server, asked for it by its id, does not have it either.

use super::ask::FHIR_JSON;
use super::census::once;
use super::page::{Bundle, Item, id_of};
use super::refer::hash_of;
use crate::diagnostic::counted;
use crate::fhir::compartment::is_id;
use crate::smart::client::below;
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::ledger;
use crate::source::pull::Pull;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Resources that one pull asks for because a search names them as deleted.
const ASKED_MAX: usize = 1_000;

/// What is known in a pull of what searches name as deleted.
#[derive(Default)]
pub(super) struct Named {
    asked: AtomicUsize,
    /// Hashes of the names of all that is stored, or came before the first was named.
    stored: OnceLock<HashSet<u64>>,
}

/// What a page names as deleted.
#[derive(Default)]
pub(super) struct Deletions {
    /// What is gone.
    pub gone: BTreeSet<(String, String)>,
    pub kept: Kept,
}

/// How much of what a reading named as deleted stays.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The server has it.
    served: u64,
    /// It cannot be told.
    untold: u64,
}

impl Kept {
    pub fn add(&mut self, other: Kept) {
        (self.served, self.untold) = (self.served + other.served, self.untold + other.untold);
    }

    /// What makes the reading incomplete.
    pub fn gap(self) -> Option<Why> {
        let reason =
            format!("{} named as deleted, and whether the server still has it could not be asked; it is kept until everything is read again", counted(self.untold, "resource"));
        (self.untold > 0).then(|| Why::new(Code::Conflict, reason))
    }

    /// What is to be known of it.
    pub fn note(self) -> Option<Why> {
        let reason = format!("the search names {} as deleted that the server still has; it is kept", counted(self.served, "resource"));
        (self.served > 0).then(|| Why::new(Code::Undeleted, reason))
    }
}

impl Named {
    fn is_stored(&self, pull: &Pull<'_>, resource_type: &str, id: &str) -> Result<bool, SourceError> {
        if self.stored.get().is_none() {
            let mut stored = HashSet::new();
            pull.snapshot.each_stored(|resource_type, id| {
                stored.insert(hash_of(resource_type, id));
            })?;
            let files: Vec<String> = ledger::units(pull.snapshot.store(), pull.id)?.into_iter().filter_map(|unit| unit.file).collect();
            pull.snapshot.staged(pull.id, &files, |header, _| {
                stored.insert(hash_of(&header.resource_type, &header.id));
                Ok(())
            })?;
            self.stored.get_or_init(|| stored);
        }
        Ok(self.stored.get().is_some_and(|stored| stored.contains(&hash_of(resource_type, id))))
    }
}

/// Asks for what a page names as deleted.
pub(super) async fn look(pull: &Pull<'_>, page: &Bundle, searched: &str) -> Result<Deletions, SourceError> {
    let mut found = Deletions::default();
    for item in page.items(searched) {
        let Item::Deleted(resource_type, id, _) = item else { continue };
        match is_served(pull, resource_type, id).await? {
            Some(false) => {
                found.gone.insert((resource_type.to_owned(), id.to_owned()));
            }
            Some(true) => found.kept.served += 1,
            None => found.kept.untold += 1,
        }
    }
    Ok(found)
}

/// Whether the server has what it names as deleted. What is not stored need not be asked for.
async fn is_served(pull: &Pull<'_>, resource_type: &str, id: &str) -> Result<Option<bool>, SourceError> {
    let named = &pull.habits.named;
    // `.` and `..` are ids by FHIR's rules, and something else in an address.
    let is_name = is_id(id) && id.bytes().any(|byte| byte != b'.');
    if !is_name || !pull.plan.types.contains(resource_type) || !named.is_stored(pull, resource_type, id)? {
        return Ok(Some(false));
    }
    let asked = format!("deleted {resource_type}/{id}");
    let served = once(pull, resource_type, &asked, async { if named.asked.fetch_add(1, Ordering::Relaxed) < ASKED_MAX { ask(pull, resource_type, id).await } else { Ok(None) } });
    // What has just been read whole was there.
    Ok(served.await?.map(|served| served > 0).or_else(|| pull.reads_whole(resource_type).then_some(true)))
}

/// 1 if the server has it, 0 if it does not.
async fn ask(pull: &Pull<'_>, resource_type: &str, id: &str) -> Result<Option<u64>, SourceError> {
    let is_it = |body: &[u8]| std::str::from_utf8(body).ok().and_then(id_of).is_some_and(|own| own == id);
    match pull.source.client.get(below(&pull.source.base, &format!("{resource_type}/{id}"))?, FHIR_JSON).await {
        Err(error) if error.ends_all() => Err(error.into()),
        Err(_) => Ok(None),
        Ok(answer) if matches!(answer.status, 404 | 410) => Ok(Some(0)),
        Ok(answer) => Ok((answer.is_success() && is_it(&answer.body)).then_some(1)),
    }
}
