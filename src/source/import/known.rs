//! Who is meant by the rows of tables: the patients and encounters of the source, by id or by identifier.

use super::cell::Whom;
use crate::fhir::compartment::is_replaced;
use crate::snapshot::{PullId, Snapshot, SnapshotError};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

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
        let members = fresh.and_then(|fresh| fresh.members);
        for ((_, id), (patient, asks)) in std::mem::take(&mut known.there) {
            if members.is_none_or(|members| members.contains(&patient)) {
                known.answer(&id, &patient, asks);
            }
        }
        Ok(known)
    }

    /// Patients, each with the questions that it answers.
    pub fn patients(asked: BTreeSet<Ask>, people: BTreeMap<String, Vec<Ask>>) -> Known {
        let mut known = Known { asked, ..Known::default() };
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
        let asks = json.map_or_else(Vec::new, |json| answered(&self.asked, (resource_type, id), json));
        let key = (resource_type, id.to_owned());
        match asks.is_empty() {
            true => drop(self.there.remove(&key)),
            false => drop(self.there.insert(key, (patient.to_owned(), asks))),
        }
    }

    /// Who is meant.
    pub fn hit<'k>(&'k self, ask: &'k Ask) -> Hit<'k> {
        let is_believed = self.anybody || (self.untold.contains(ask.resource_type) && ask.system.is_none());
        match self.answers.get(ask).map(Vec::as_slice) {
            _ if is_believed => Hit::One { id: &ask.value, patient: None },
            None | Some([]) => Hit::None,
            Some([(id, patient)]) => Hit::One { id, patient: Some(patient) },
            Some(_) => Hit::Several,
        }
    }
}

/// Which questions a resource answers; a Patient whom another one replaced answers none.
pub(in crate::source) fn answered(asked: &BTreeSet<Ask>, (resource_type, id): (&'static str, &str), json: &[u8]) -> Vec<Ask> {
    if resource_type == "Patient" && is_replaced(json) {
        return Vec::new();
    }
    let by_id = Ask { resource_type, system: None, value: id.to_owned() };
    let by_identifier = identifiers(json).into_iter().map(|(system, value)| Ask { resource_type, system: Some(system), value });
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
