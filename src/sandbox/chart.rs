//! The current version of every resource of a hospital, indexed by type, id and patient.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::draft::{Draft, KeyValue, SearchKey};

/// One version of a resource, or the mark that it was deleted.
pub(super) struct Version {
    /// Resource type.
    pub(super) kind: &'static str,
    /// Logical id.
    pub(super) id: Arc<str>,
    /// `meta.versionId`, from 1.
    pub(super) number: u32,
    /// `meta.lastUpdated`.
    pub(super) updated: Timestamp,
    /// Id of the patient in whose compartment it is.
    pub(super) patient: Option<Arc<str>>,
    /// Nothing, if it was deleted.
    pub(super) content: Option<Content>,
}

/// What a version says.
pub(super) struct Content {
    /// The resource as JSON, with `meta`.
    pub(super) json: String,
    /// What searches look at.
    pub(super) keys: Vec<SearchKey>,
    /// The part of `json` after `meta`, to see whether a rewrite changed anything.
    body: String,
}

/// Resources of one type.
#[derive(Default)]
struct Shelf {
    /// In order of first appearance, which is the order of searches.
    versions: Vec<Arc<Version>>,
    by_id: HashMap<Arc<str>, usize>,
    by_patient: HashMap<Arc<str>, Vec<usize>>,
}

impl Version {
    /// The same under other ids, by which `rename` refers to everything, as a first version of this instant.
    pub(super) fn renamed(&self, rename: impl Fn(&str) -> String, id: &str, at: Timestamp) -> Version {
        let content = self.content.as_ref().map(|content| {
            let own = format!("\"id\":\"{}\"", self.id);
            let meta = |number: u32, updated: Timestamp| format!("\"versionId\":\"{number}\",\"lastUpdated\":\"{updated}\"");
            let json = content.json.replacen(&own, &format!("\"id\":\"{id}\""), 1).replacen(&meta(self.number, self.updated), &meta(1, at), 1);
            let keys = content.keys.iter().map(|key| match &key.value {
                KeyValue::Reference(target) => SearchKey { value: KeyValue::Reference(rename(target)), ..key.clone() },
                _ => key.clone(),
            });
            Content { json: rename(&json), keys: keys.collect(), body: rename(&content.body) }
        });
        let patient = self.patient.as_ref().map(|patient| Arc::from(rename(&format!("Patient/{patient}")).trim_start_matches("Patient/")));
        Version { kind: self.kind, id: Arc::from(id), number: 1, updated: at, patient, content }
    }

    /// A next version with another code, if it has this one.
    pub(super) fn recoded(&self, code: &str, other: &'static str, at: Timestamp) -> Option<Version> {
        let content = self.content.as_ref()?;
        let is_it = |key: &&SearchKey| matches!(&key.value, KeyValue::Token { code: own, .. } if key.name == "code" && own == code);
        content.keys.iter().find(is_it)?;
        let written = |text: &str| text.replace(&format!("\"code\":\"{code}\""), &format!("\"code\":\"{other}\""));
        let meta = |number: u32, updated: Timestamp| format!("\"versionId\":\"{number}\",\"lastUpdated\":\"{updated}\"");
        let number = self.number + 1;
        let json = written(&content.json).replacen(&meta(self.number, self.updated), &meta(number, at), 1);
        let keys = content.keys.iter().map(|key| match &key.value {
            KeyValue::Token { system, code: own } if own == code => SearchKey { value: KeyValue::Token { system: system.clone(), code: other.into() }, ..key.clone() },
            _ => key.clone(),
        });
        let content = Content { json, keys: keys.collect(), body: written(&content.body) };
        Some(Version { kind: self.kind, id: Arc::clone(&self.id), number, updated: at, patient: self.patient.clone(), content: Some(content) })
    }
}

impl Shelf {
    fn add(&mut self, version: Arc<Version>) {
        let slot = self.versions.len();
        self.by_id.insert(Arc::clone(&version.id), slot);
        if let Some(patient) = &version.patient {
            self.by_patient.entry(Arc::clone(patient)).or_default().push(slot);
        }
        self.versions.push(version);
    }
}

/// All resources.
#[derive(Default)]
pub(super) struct Chart {
    shelves: BTreeMap<&'static str, Shelf>,
    newest: Timestamp,
}

impl Chart {
    /// The newest `lastUpdated` there is.
    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Draws a line at `now`: what is entered after this call is later than what it returns.
    pub(super) fn settle(&mut self, now: Timestamp) -> Timestamp {
        let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        self.newest = self.newest.max(now);
        self.newest
    }

    /// The clock was set: it is `now`, be that earlier than the newest entry.
    pub(super) fn set_clock(&mut self, now: Timestamp) {
        self.newest = now;
    }

    /// Puts something in the place of everything there is, or nothing; of what was there is no trace.
    pub(super) fn replace(&mut self, with: impl Fn(&Arc<Version>) -> Option<Arc<Version>>) {
        for shelf in std::mem::take(&mut self.shelves).into_values() {
            shelf.versions.iter().filter_map(&with).for_each(|version| self.shelves.entry(version.kind).or_default().add(version));
        }
    }

    /// Takes in a first version, dated as it is.
    pub(super) fn add(&mut self, version: Version) {
        self.shelve(Arc::new(version));
    }

    /// Takes in a version of what is not there.
    pub(super) fn shelve(&mut self, version: Arc<Version>) {
        self.shelves.entry(version.kind).or_default().add(version);
    }

    /// Takes in a resource: new, or a new version if it says something new. `at` is the time of the
    /// change; without it the draft's own recording time is taken (when a hospital is made).
    pub(super) fn put(&mut self, draft: Draft, at: Option<Timestamp>) {
        let shelf = self.shelves.entry(draft.kind).or_default();
        let id: Arc<str> = Arc::from(draft.id.as_str());
        let slot = shelf.by_id.get(&id).copied();
        let current = slot.and_then(|slot| shelf.versions.get(slot));
        if current.and_then(|version| version.content.as_ref()).is_some_and(|content| content.body == draft.body()) {
            return;
        }
        let number = current.map_or(1, |version| version.number + 1);
        let updated = at.unwrap_or(draft.recorded);
        self.newest = self.newest.max(updated);
        let patient: Option<Arc<str>> = draft.patient.as_deref().map(Arc::from);
        let kind = draft.kind;
        let body = draft.body().to_owned();
        let (json, keys) = draft.finish(number, updated);
        let version = Arc::new(Version { kind, id: Arc::clone(&id), number, updated, patient: patient.clone(), content: Some(Content { json, keys, body }) });
        match slot.and_then(|slot| shelf.versions.get_mut(slot)) {
            Some(place) => *place = version,
            None => shelf.add(version),
        }
    }

    /// Deletes a resource; nothing happens if it is not there.
    fn delete(&mut self, kind: &'static str, id: &str, at: Timestamp) {
        let Some(shelf) = self.shelves.get_mut(kind) else { return };
        let Some(place) = shelf.by_id.get(id).and_then(|slot| shelf.versions.get_mut(*slot)) else { return };
        if place.content.is_none() {
            return;
        }
        self.newest = self.newest.max(at);
        *place = Arc::new(Version { kind, id: Arc::clone(&place.id), number: place.number + 1, updated: at, patient: place.patient.clone(), content: None });
    }

    /// Makes a patient's record equal to `drafts`: new resources, new versions of the changed ones,
    /// deletion of those that are no longer written.
    pub(super) fn rewrite_patient(&mut self, patient: &str, drafts: Vec<Draft>, at: Timestamp) {
        let mut gone: Vec<(&'static str, Arc<str>)> = Vec::new();
        for (kind, shelf) in &self.shelves {
            for slot in shelf.by_patient.get(patient).into_iter().flatten() {
                let Some(version) = shelf.versions.get(*slot) else { continue };
                if !drafts.iter().any(|draft| draft.kind == *kind && draft.id == *version.id) {
                    gone.push((kind, Arc::clone(&version.id)));
                }
            }
        }
        for (kind, id) in gone {
            self.delete(kind, &id, at);
        }
        for draft in drafts {
            self.put(draft, Some(at));
        }
    }

    /// Gives a resource other words: a new version, of `patient` from now on.
    pub(super) fn revise(&mut self, kind: &str, id: &str, patient: &str, at: Timestamp, change: impl Fn(&str) -> String) {
        let Some(shelf) = self.shelves.get_mut(kind) else { return };
        let Some(slot) = shelf.by_id.get(id).copied() else { return };
        let Some(place) = shelf.versions.get_mut(slot) else { return };
        let Some(content) = &place.content else { return };
        let number = place.number + 1;
        let meta = |number: u32, updated: Timestamp| format!("\"versionId\":\"{number}\",\"lastUpdated\":\"{updated}\"");
        let json = change(&content.json.replacen(&meta(place.number, place.updated), &meta(number, at), 1));
        let body = change(&content.body);
        let keys = content.keys.iter().map(|key| match &key.value {
            KeyValue::Reference(target) => SearchKey { value: KeyValue::Reference(change(target)), ..key.clone() },
            _ => key.clone(),
        });
        let content = Content { json, keys: keys.collect(), body };
        self.newest = self.newest.max(at);
        *place = Arc::new(Version { kind: place.kind, id: Arc::clone(&place.id), number, updated: at, patient: Some(Arc::from(patient)), content: Some(content) });
        shelf.by_patient.values_mut().for_each(|slots| slots.retain(|own| *own != slot));
        shelf.by_patient.entry(Arc::from(patient)).or_default().push(slot);
    }

    /// Every resource of a patient that is there, as (type, id).
    pub(super) fn present_of(&self, patient: &str) -> Vec<(&'static str, Arc<str>)> {
        let of_kind = |kind| {
            self.of_patient(kind, patient)
                .filter(|version| version.content.is_some())
                .map(move |version| (kind, Arc::clone(&version.id)))
        };
        self.kinds().flat_map(of_kind).collect()
    }

    /// The current version of one resource, perhaps a deletion.
    pub(super) fn get(&self, kind: &str, id: &str) -> Option<&Arc<Version>> {
        let shelf = self.shelves.get(kind)?;
        shelf.by_id.get(id).and_then(|slot| shelf.versions.get(*slot))
    }

    /// Every current version of a type, deletions included, in a stable order.
    pub(super) fn all(&self, kind: &str) -> impl Iterator<Item = &Arc<Version>> {
        self.shelves.get(kind).into_iter().flat_map(|shelf| shelf.versions.iter())
    }

    /// The same for one patient.
    pub(super) fn of_patient<'a>(&'a self, kind: &str, patient: &str) -> impl Iterator<Item = &'a Arc<Version>> + use<'a> {
        let shelf = self.shelves.get(kind);
        let slots = shelf.and_then(|shelf| shelf.by_patient.get(patient));
        slots.into_iter().flatten().filter_map(move |slot| shelf.and_then(|shelf| shelf.versions.get(*slot)))
    }

    /// The types there are.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.shelves.keys().copied()
    }
}
