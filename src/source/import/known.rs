//! Who is meant by the rows of tables: the patients and encounters of the source, by id or by identifier.

use super::cell::Whom;
use crate::diagnostic::nearest;
use crate::fhir::merged::{Links, Merged};
use crate::snapshot::{PullId, Snapshot, SnapshotError};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Systems of identifiers that are kept apart for each type, and that are shown.
const SYSTEMS_MAX: usize = 1_000;
const SYSTEMS_SHOWN: usize = 4;

/// A question of who is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::source) struct Ask {
    resource_type: &'static str,
    /// Of an identifier; none: an id is meant.
    system: Option<String>,
    value: String,
}

impl Ask {
    /// Who of the patients has this identifier.
    pub fn patient(system: String, value: String) -> Ask {
        Ask { resource_type: "Patient", system: Some(system), value }
    }

    pub(super) fn of(whom: &Whom, cell: &str) -> Ask {
        Ask { resource_type: whom.resource_type, system: whom.system.clone(), value: cell.to_owned() }
    }
}

/// Who is meant.
pub(in crate::source) enum Hit<'k> {
    None,
    /// An id, and whose it is, if that is known.
    One {
        id: &'k str,
        patient: Option<&'k str>,
    },
    Several,
}

/// What is there of the source, of those who are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::source) struct Known {
    asked: BTreeSet<Ask>,
    /// By type and id: whose it is, and the questions that it answers.
    there: BTreeMap<(&'static str, String), (String, Vec<Ask>)>,
    answers: BTreeMap<Ask, Vec<(String, String)>>,
    /// Every Patient, with whom it names in its place.
    people: BTreeMap<String, Links>,
    /// Who counts as whom: several records of one person are nobody else's.
    merged: Arc<Merged>,
    /// By type the systems of their identifiers; with the id where one alone has one of a system.
    systems: BTreeMap<&'static str, BTreeMap<String, Option<String>>>,
    /// Types that the source is not asked for: an id of theirs is believed.
    untold: BTreeSet<&'static str>,
    /// Nobody is looked up: everybody is known.
    anybody: bool,
}

/// What a pull has brought of the source so far.
pub(in crate::source) struct Fresh<'a> {
    pub pull: PullId,
    pub files: Vec<String>,
    /// Types of which everything came.
    pub whole: BTreeSet<String>,
    pub members: Option<&'a BTreeSet<String>>,
}

impl Known {
    /// Everybody, for a look at a table alone.
    pub fn anybody() -> Known {
        Known { anybody: true, ..Known::default() }
    }

    /// Looks for those who are asked for in what is stored, and in what a pull has brought.
    pub fn find(asked: BTreeSet<Ask>, snapshot: &Snapshot, types: &BTreeSet<String>, fresh: Option<&Fresh<'_>>) -> Result<Known, SnapshotError> {
        let wanted: BTreeSet<&'static str> = asked.iter().map(|ask| ask.resource_type).collect();
        let untold = wanted.iter().copied().filter(|name| !types.contains(*name)).collect();
        let mut known = Known { asked, untold, ..Known::default() };
        let is_stored = |name: &&&str| types.contains(**name) && fresh.is_none_or(|fresh| !fresh.whole.contains(**name));
        let stored: BTreeSet<String> = wanted.iter().filter(is_stored).map(|name| (*name).to_owned()).collect();
        if !stored.is_empty() {
            snapshot.each_of(&stored, |resource_type, id, patient, json| known.take((resource_type, id), patient, Some(json)))?;
        }
        if let Some(fresh) = fresh.filter(|_| !wanted.is_empty()) {
            snapshot.staged(fresh.pull, &fresh.files, |header, json| {
                known.take((&header.resource_type, &header.id), &header.patient, (!header.removed).then_some(json));
                Ok(())
            })?;
        }
        let is_member = |patient: &str| fresh.and_then(|fresh| fresh.members).is_none_or(|members| members.contains(patient));
        for ((_, id), (patient, asks)) in std::mem::take(&mut known.there) {
            if is_member(&patient) {
                known.answer(&id, &patient, asks);
            }
        }
        known.people.retain(|id, _| is_member(id));
        let mut links = Links::default();
        known.people.values().for_each(|own| links.merge(own.clone()));
        known.merged = Merged::follow(&links, |id| known.people.contains_key(id)).into();
        Ok(known)
    }

    /// Patients, each with the questions that it answers.
    pub fn patients(asked: BTreeSet<Ask>, people: BTreeMap<String, Vec<Ask>>, merged: Arc<Merged>) -> Known {
        let mut known = Known { asked, merged, ..Known::default() };
        people.into_iter().for_each(|(id, asks)| known.answer(&id, &id, asks));
        known
    }

    fn answer(&mut self, id: &str, patient: &str, asks: Vec<Ask>) {
        asks.into_iter().for_each(|ask| self.answers.entry(ask).or_default().push((id.to_owned(), patient.to_owned())));
    }

    /// What was looked for.
    pub fn asked(&self) -> &BTreeSet<Ask> {
        &self.asked
    }

    /// A resource, in the place of an earlier form of it; or none, when it is gone.
    fn take(&mut self, (resource_type, id): (&str, &str), patient: &str, json: Option<&[u8]>) {
        let Some(resource_type) = ["Patient", "Encounter"].into_iter().find(|name| *name == resource_type) else { return };
        let identifiers = json.map(identifiers).unwrap_or_default();
        let asks = if json.is_some() { answers(&self.asked, (resource_type, id), &identifiers) } else { Vec::new() };
        self.meet(resource_type, id, identifiers);
        if resource_type == "Patient" {
            self.people.remove(id);
            self.people.extend(json.map(|json| (id.to_owned(), Links::of(json))));
        }
        let key = (resource_type, id.to_owned());
        match asks.is_empty() {
            true => drop(self.there.remove(&key)),
            false => drop(self.there.insert(key, (patient.to_owned(), asks))),
        }
    }

    fn meet(&mut self, resource_type: &'static str, id: &str, identifiers: Vec<(String, String)>) {
        let systems = self.systems.entry(resource_type).or_default();
        for (system, _) in identifiers {
            let has_room = systems.len() < SYSTEMS_MAX;
            match systems.get_mut(&system) {
                Some(alone) if alone.as_deref() == Some(id) => {}
                Some(alone) => *alone = None,
                None if has_room => drop(systems.insert(system, Some(id.to_owned()))),
                None => {}
            }
        }
    }

    /// That nobody here has an identifier of the system by which a column names them, and which is near or there instead. What one alone
    /// has may say who it is, and is not shown.
    pub(super) fn strange(&self, whom: &Whom) -> Option<String> {
        let system = whom.system.as_deref().filter(|_| !self.anybody && !self.untold.contains(whom.resource_type))?;
        let met = self.systems.get(whom.resource_type)?;
        if met.contains_key(system) || met.len() == SYSTEMS_MAX {
            return None;
        }
        let shared: Vec<&str> = met.iter().filter(|(_, alone)| alone.is_none()).map(|(system, _)| system.as_str()).collect();
        let instead = match (nearest(system, shared.iter().copied()), shared.as_slice()) {
            (Some(near), _) => format!("; did you mean `{near}`?"),
            (None, []) => String::new(),
            (None, shared) => format!("; theirs are of `{}`", shared.iter().take(SYSTEMS_SHOWN).copied().collect::<Vec<_>>().join("`, `")),
        };
        Some(format!("no {} has an identifier of `{system}`{instead}", whom.resource_type))
    }

    /// Whether an identifier is of a system by which the patients are known, and nobody of them has it.
    pub fn is_strangers(&self, ask: &Ask) -> bool {
        let is_met = |system: &String| self.systems.get("Patient").is_some_and(|met| met.contains_key(system));
        matches!(self.hit(ask), Hit::None) && ask.system.as_ref().is_some_and(is_met)
    }

    /// Who is meant. Of several records of one person it is that of who stands for them; a record that was merged into another counts
    /// as that one's, and is meant by what it alone has.
    pub fn hit<'k>(&'k self, ask: &'k Ask) -> Hit<'k> {
        let is_believed = self.anybody || (self.untold.contains(ask.resource_type) && ask.system.is_none());
        let answers = self.answers.get(ask).map_or(&[][..], Vec::as_slice);
        let stands = |id: &'k str| if ask.resource_type == "Patient" { self.merged.survivor(id) } else { id };
        match answers {
            _ if is_believed => Hit::One { id: &ask.value, patient: None },
            [] => Hit::None,
            [(first, _), others @ ..] if others.iter().any(|(id, _)| stands(id) != stands(first)) => Hit::Several,
            [first, others @ ..] => {
                let (id, patient) = others.iter().find(|(id, _)| stands(id) == id).unwrap_or(first);
                Hit::One { id, patient: Some(self.merged.survivor(patient)) }
            }
        }
    }
}

/// Which questions a resource answers.
pub(in crate::source) fn answered(asked: &BTreeSet<Ask>, whose: (&'static str, &str), json: &[u8]) -> Vec<Ask> {
    answers(asked, whose, &identifiers(json))
}

fn answers(asked: &BTreeSet<Ask>, (resource_type, id): (&'static str, &str), identifiers: &[(String, String)]) -> Vec<Ask> {
    let by_id = Ask { resource_type, system: None, value: id.to_owned() };
    let by_identifier = identifiers.iter().cloned().map(|(system, value)| Ask { resource_type, system: Some(system), value });
    let answered: BTreeSet<Ask> = std::iter::once(by_id).chain(by_identifier).filter(|ask| asked.contains(ask)).collect();
    answered.into_iter().collect()
}

#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow, default)]
    identifier: Vec<Identifier<'a>>,
}

#[derive(Deserialize)]
struct Identifier<'a> {
    #[serde(borrow)]
    system: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
}

/// System and value of each identifier of a resource.
fn identifiers(json: &[u8]) -> Vec<(String, String)> {
    let read: Identified<'_> = serde_json::from_slice(json).unwrap_or(Identified { identifier: Vec::new() });
    let pair = |one: Identifier<'_>| Some((one.system?.into_owned(), one.value?.trim().to_owned()));
    read.identifier.into_iter().filter_map(pair).collect()
}
