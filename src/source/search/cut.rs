//! Which patients are asked for together. While a pull lasts several nights the lists stay as they were cut: who joins the Group
//! meanwhile is on a list of his own, who leaves it is on none, and what was read of the others need not be read again. When all that
//! they are asked for is there, what is counted of them stays true: who joins then is the next pull's.

use crate::snapshot::{open_bytes, seal_bytes};
use crate::source::SourceError;
use crate::source::ledger;
use crate::source::pull::Pull;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Name under which lists are sealed.
const SEAL: &str = "list of patients";
/// The lists of the Group's members.
pub(super) const MEMBERS: &str = "members";
/// Stands where all of them were read.
const READ: &str = "lists are read";

/// Patients who are asked for together.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct List {
    /// Ends the names of its units; no other list of the pull has or had it.
    pub name: String,
    pub patients: Vec<String>,
    /// Changes are asked for, where these suffice.
    pub since: bool,
}

/// Lists for one question, which nobody goes on with. A patient who is new here needs the whole history, whenever it was written.
pub(super) fn once(pull: &Pull<'_>, patients: &BTreeSet<String>, known: &BTreeSet<String>) -> Vec<List> {
    let (old, new): (Vec<String>, Vec<String>) = patients.iter().cloned().partition(|id| known.contains(id));
    let name = |patients: &[String]| digest(&patients.join(","));
    [(old, true), (new, false)].iter().flat_map(|(patients, since)| cut(pull, patients, *since, name)).collect()
}

fn cut(pull: &Pull<'_>, patients: &[String], since: bool, mut name: impl FnMut(&[String]) -> String) -> Vec<List> {
    let at_once = pull.source.options.tuning.patients_per_query.clamp(1, 200);
    patients.chunks(at_once).map(|some| List { name: name(some), patients: some.to_vec(), since }).collect()
}

/// The first of a text's SHA-256.
pub(super) fn digest(text: &str) -> String {
    crate::store::sha256_hex(text.as_bytes()).chars().take(16).collect()
}

/// Notes that everything was read of the members, who stay the same from now on.
pub(super) fn close(pull: &Pull<'_>) -> Result<(), SourceError> {
    Ok(ledger::keep_lists(pull.snapshot.store(), pull.id, READ, &[Vec::new()])?)
}

/// The members of whom everything was read before.
pub(super) fn closed(pull: &Pull<'_>) -> Result<Option<BTreeSet<String>>, SourceError> {
    let is_closed = !ledger::places(pull.snapshot.store(), pull.id, READ)?.is_empty();
    let members = if is_closed { asked(pull)? } else { BTreeSet::new() };
    Ok((!members.is_empty()).then_some(members))
}

/// The members of whom this pull asks so far.
pub(super) fn asked(pull: &Pull<'_>) -> Result<BTreeSet<String>, SourceError> {
    Ok(before(pull, MEMBERS)?.into_iter().flat_map(|list| list.patients).collect())
}

/// The lists of a question as they were. Those that cannot be read are cut anew.
fn before(pull: &Pull<'_>, about: &str) -> Result<Vec<List>, SourceError> {
    let read = |sealed: &Vec<u8>| open_bytes(pull.snapshot.key(), SEAL, sealed).ok().and_then(|text| serde_json::from_slice(&text).ok());
    Ok(ledger::places(pull.snapshot.store(), pull.id, &unit(about))?
        .iter()
        .map(read)
        .collect::<Option<_>>()
        .unwrap_or_default())
}

fn unit(about: &str) -> String {
    format!("lists {about}")
}

/// Who is named otherwise than before in a pull that is gone on with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Some are named no more.
    Left,
    /// Some were not named before.
    Joined,
}

/// The lists of a question that a pull goes on with, and whether others were named when it was begun.
pub(super) fn kept(pull: &Pull<'_>, about: &str, patients: &BTreeSet<String>, known: &BTreeSet<String>) -> Result<(Vec<List>, Change), SourceError> {
    let before = before(pull, about)?;
    let named: BTreeSet<&String> = before.iter().flat_map(|list| &list.patients).collect();
    let has_joined = patients.iter().any(|id| !named.contains(id));
    let mut lists = before.clone();
    for list in &mut lists {
        list.patients.retain(|id| patients.contains(id) && known.contains(id) == list.since);
    }
    let listed: BTreeSet<&String> = lists.iter().flat_map(|list| &list.patients).collect();
    let (old, new): (Vec<String>, Vec<String>) = patients.iter().filter(|id| !listed.contains(id)).cloned().partition(|id| known.contains(id));
    // Also what is empty stays, for its name: who left and came back is asked for anew.
    let mut number = before.len();
    let mut name = |patients: &[String]| {
        number += 1;
        digest(&format!("{number} {}", patients.join(",")))
    };
    lists.extend(
        [(old, true), (new, false)]
            .iter()
            .flat_map(|(patients, since)| cut(pull, patients, *since, &mut name))
            .collect::<Vec<List>>(),
    );
    let is_changed = lists != before;
    if is_changed {
        let seal = |list: &List| serde_json::to_vec(list).ok().and_then(|text| seal_bytes(pull.snapshot.key(), SEAL, &text).ok());
        let sealed: Option<Vec<Vec<u8>>> = lists.iter().map(seal).collect();
        ledger::keep_lists(pull.snapshot.store(), pull.id, &unit(about), &sealed.ok_or_else(|| SourceError::Options("the patients to ask for could not be sealed".to_owned()))?)?;
    }
    lists.retain(|list| !list.patients.is_empty());
    let change = match is_changed && !before.is_empty() {
        true if has_joined => Change::Joined,
        true => Change::Left,
        false => Change::None,
    };
    Ok((lists, change))
}
