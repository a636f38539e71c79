//! What happens at a hospital while its data are read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::reply::Reply;
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "q_83",
        says: "what is edited while a search is read stands before its first page then, and is on none that follows",
        make: || Box::new(Edited::default()),
    },
    Scenario {
        name: "q_84",
        says: "pages are by number, and once between two later ones an entry of the first goes and another comes: the total stays, and one entry is on neither",
        make: || Box::new(Replaced::default()),
    },
    Scenario {
        name: "q_85",
        says: "what has just been changed is deleted without a trace before it is counted",
        make: || Box::new(ChangedAndGone { started: Timestamp::now() }),
    },
];

/// What is read while something happens.
const KIND: &str = "Observation";
/// So many are edited.
const EDITED: usize = 3;

fn ids_of(page: &Value) -> Vec<String> {
    let entries = page.get("entry").and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.pointer("/resource/id")?.as_str()?.to_owned())).collect()
}

/// Takes entries off a page.
fn take_off(page: &mut Value, ids: &BTreeSet<String>) {
    let is_off = |entry: &Value| entry.pointer("/resource/id").and_then(Value::as_str).is_some_and(|id| ids.contains(id));
    page.get_mut("entry")
        .and_then(Value::as_array_mut)
        .into_iter()
        .for_each(|entries| entries.retain(|entry| !is_off(entry)));
}

///
#[derive(Default)]
struct Edited {
    pages: AtomicU64,
}

impl Quirk for Edited {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let is_later = sent.endpoint() == Endpoint::Page && sent.kind() == Some(KIND) && reply.is_searchset();
        if is_later && self.pages.fetch_add(1, Ordering::Relaxed) == 0 {
            reply.edit(|page| {
                let ids: BTreeSet<String> = ids_of(page).into_iter().take(EDITED).collect();
                scene.hospital.touch(KIND, &ids, scene.now());
                take_off(page, &ids);
            });
        }
    }
}

///
#[derive(Default)]
struct Replaced {
    /// An entry of the first page, until it is gone.
    first: Mutex<Option<String>>,
    /// Later pages that were read.
    pages: AtomicU64,
}

impl Quirk for Replaced {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let is_whole = sent.kind() == Some(KIND) && sent.parameter("_lastUpdated").is_none() && sent.parameter("_id").is_none();
        if !is_whole || !reply.is_searchset() || sent.parameter("_summary").is_some() {
            return;
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        reply.edit(|page| {
            page["total"] = scene.hospital.read().chart.all(KIND).filter(|version| version.content.is_some()).count().into();
            match sent.endpoint() {
                Endpoint::Page if self.pages.fetch_add(1, Ordering::Relaxed) == 1 => {
                    let gone = BTreeSet::from_iter(first.take());
                    scene.hospital.slip_in(KIND, 1, scene.now());
                    scene.hospital.withdraw(KIND, &gone);
                    // The page begins one entry later, and the new one stands at its end.
                    let new = scene
                        .hospital
                        .read()
                        .chart
                        .all(KIND)
                        .max_by_key(|version| version.updated)
                        .and_then(|version| version.content.as_ref()?.json.parse::<Value>().ok());
                    if let (Some(entries), Some(new)) = (page.get_mut("entry").and_then(Value::as_array_mut), new) {
                        entries.remove(0);
                        entries.push(json!({"resource": new, "search": {"mode": "match"}}));
                    }
                }
                Endpoint::Search => *first = ids_of(page).into_iter().next(),
                _ => {}
            }
        });
    }
}

///
struct ChangedAndGone {
    /// What was entered since is what has just been changed.
    started: Timestamp,
}

impl Quirk for ChangedAndGone {
    fn before(&self, sent: &mut Incoming, scene: &Scene) -> Option<Reply> {
        if sent.kind() == Some("Encounter") && sent.parameter("_summary").is_some() {
            let is_new = |at: Timestamp| at > self.started && at.duration_since(self.started) < SignedDuration::from_hours(24);
            let state = scene.hospital.read();
            let new = state.chart.all("Encounter").filter(|version| is_new(version.updated)).map(|version| version.id.to_string()).collect();
            drop(state);
            scene.hospital.withdraw("Encounter", &new);
        }
        None
    }
}
