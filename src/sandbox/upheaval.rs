//! What befalls a hospital's server between two nights without a word: data that vanish, new ids for everything, codes that change,
//! a clock that is set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use super::chart::Version;
use super::population::Hospital;

/// All there was.
pub struct Backup(Vec<Arc<Version>>);

impl Hospital {
    /// Some resources of a type are gone, as if they had never been: no deletion is to be seen.
    pub fn vanish(&self, resource_type: &str, count: usize) {
        let left = AtomicUsize::new(count);
        self.write().chart.replace(|version| {
            let is_there = version.kind == resource_type && version.content.is_some();
            let goes = is_there && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            (!goes).then(|| Arc::clone(version))
        });
    }

    /// These resources of a type are gone, as if they had never been.
    pub fn withdraw(&self, resource_type: &str, ids: &BTreeSet<String>) {
        let goes = |version: &Version| version.kind == resource_type && ids.contains(&*version.id);
        self.write().chart.replace(|version| (!goes(version)).then(|| Arc::clone(version)));
    }

    /// These resources of a type are changed, in nothing but their time.
    pub fn touch(&self, resource_type: &str, ids: &BTreeSet<String>, now: Timestamp) {
        self.write().chart.replace(|version| {
            let is_it = version.kind == resource_type && ids.contains(&*version.id);
            Some(if is_it { Arc::new(version.renamed(str::to_owned, &version.id, now)) } else { Arc::clone(version) })
        });
    }

    /// More resources of a type are there, copies of some, that were last updated at an instant long ago.
    pub fn slip_in(&self, resource_type: &str, count: usize, at: Timestamp) {
        let mut state = self.write();
        let all: Vec<Arc<Version>> = state.chart.all(resource_type).filter(|version| version.content.is_some()).take(count).cloned().collect();
        all.iter().for_each(|version| state.chart.add(version.renamed(str::to_owned, &format!("late-{}", version.id), at)));
    }

    /// Every resource of a type, to which nothing refers, has a new id, and is no newer for it.
    pub fn rename(&self, resource_type: &str) {
        self.write().chart.replace(|version| match version.kind == resource_type {
            true => Some(Arc::new(version.renamed(str::to_owned, &format!("new-{}", version.id), version.updated))),
            false => Some(Arc::clone(version)),
        });
    }

    /// Everything is loaded into another server: the same data, each under a new id.
    pub fn load_anew(&self, now: Timestamp) {
        let mut state = self.write();
        let kinds: Vec<&str> = state.chart.kinds().collect();
        // In JSON a reference begins after a quotation mark, as a search parameter with its type.
        let rename = |text: &str| {
            kinds.iter().fold(text.to_owned(), |text, kind| {
                let written = text.replace(&format!("\"{kind}/"), &format!("\"{kind}/new-"));
                written.strip_prefix(&format!("{kind}/")).map_or(written.clone(), |id| format!("{kind}/new-{id}"))
            })
        };
        state.chart.replace(|version| Some(Arc::new(version.renamed(rename, &format!("new-{}", version.id), now))));
        for (_, _, members) in &mut state.groups {
            members.iter_mut().for_each(|member| member.insert_str(0, "new-"));
        }
    }

    /// Some resources of a type that have a code get another one.
    pub fn recode(&self, resource_type: &str, count: usize, code: &str, other: &'static str, now: Timestamp) {
        let left = AtomicUsize::new(count);
        let mut state = self.write();
        state.chart.settle(now);
        state.chart.replace(|version| {
            let recoded = version.recoded(code, other, now).filter(|_| version.kind == resource_type);
            let recoded = recoded.filter(|_| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok());
            Some(recoded.map_or_else(|| Arc::clone(version), Arc::new))
        });
    }

    /// Some resources of a type get another name, in a version that takes the place of the first one.
    pub fn relabel(&self, resource_type: &str, count: usize, now: Timestamp) {
        let left = AtomicUsize::new(count);
        self.write().chart.replace(|version| {
            let is_it = version.kind == resource_type && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            let another = || version.renamed(|text| text.replace("\"name\":\"", "\"name\":\"New "), &version.id, now);
            Some(if is_it { Arc::new(another()) } else { Arc::clone(version) })
        });
    }

    /// Everything as it is now, for [`Hospital::restore`].
    pub fn back_up(&self) -> Backup {
        let state = self.write();
        let kinds: Vec<&str> = state.chart.kinds().collect();
        Backup(kinds.into_iter().flat_map(|kind| state.chart.all(kind)).cloned().collect())
    }

    /// Everything is again as it was: what changed since is forgotten.
    pub fn restore(&self, backup: &Backup) {
        let mut state = self.write();
        state.chart.replace(|_| None);
        let Backup(versions) = backup;
        versions.iter().for_each(|version| state.chart.shelve(Arc::clone(version)));
    }

    /// Some resources of a type get another code, and are no newer for it.
    pub fn recode_unseen(&self, resource_type: &str, count: usize, code: &str, other: &'static str) {
        let left = AtomicUsize::new(count);
        self.write().chart.replace(|version| {
            let recoded = version.recoded(code, other, version.updated).filter(|_| version.kind == resource_type);
            let recoded = recoded.filter(|_| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok());
            Some(recoded.map_or_else(|| Arc::clone(version), Arc::new))
        });
    }

    /// The server's clock is set: what is entered from now on is dated by it, be that before what was entered.
    pub fn set_clock(&self, now: Timestamp) {
        self.write().chart.set_clock(now);
    }
}
