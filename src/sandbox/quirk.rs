//! Quirks: what real servers do differently from what the specifications say, each a named scenario.
//!
//! A quirk stands before the honest server, after it, or changes how resources are written; the honest server knows of
//! none. Each scenario stands in the file of its section: `access`, `search`, `paging`, `export`, `change`, `content`; what
//! happens while data are read is in `meanwhile`, and what servers may do by the Bulk Data guide in `bulk`.

pub(super) mod access;
mod bulk;
mod change;
mod content;
mod export;
mod meanwhile;
mod paging;
mod search;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::fault::Fault;
use super::population::Hospital;
use super::reply::Reply;
use super::request::Incoming;

/// How a server departs from the honest one. A quirk that must remember something keeps it behind a lock of its own.
pub(super) trait Quirk: Send + Sync {
    /// Sees a request before the honest server does: may change it, or answer in the honest server's place.
    fn before(&self, _request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        None
    }

    /// Changes the honest answer to a request; the request is as the client sent it.
    fn after(&self, _sent: &Incoming, _reply: &mut Reply, _scene: &Scene) {}

    /// How it writes resources otherwise. A resource is written the same way in every answer, and in the truth.
    fn writing(&self) -> Option<fn(&mut Value)> {
        None
    }

    /// How far the server's clock is ahead.
    fn skew(&self) -> SignedDuration {
        SignedDuration::ZERO
    }

    /// Whether it makes the pages of a search itself: the honest server gives it the whole result.
    fn pages(&self) -> bool {
        false
    }
}

/// Where the server stands.
pub(super) struct Scene {
    /// Its origin, without a trailing slash.
    pub(super) origin: String,
    /// Its FHIR base.
    pub(super) base: String,
    /// A second origin that serves presigned addresses: the same paths, without a token.
    pub(super) elsewhere: String,
    /// Whose server it is.
    pub(super) hospital: Hospital,
    /// How far its time is ahead of the machine's, in milliseconds.
    pub(super) ahead: Arc<AtomicU64>,
}

impl Scene {
    /// The time there, but for the skew of its clock.
    pub(super) fn now(&self) -> Timestamp {
        let ahead = i64::try_from(self.ahead.load(Ordering::SeqCst)).unwrap_or(i64::MAX);
        Timestamp::now().saturating_add(SignedDuration::from_millis(ahead)).unwrap_or(Timestamp::MAX)
    }
}

/// A quirk by its name.
pub struct Scenario {
    /// Its row: `q_17` of the catalogue of quirks, `b_08` or `r_05` of the obligations.
    pub name: &'static str,
    /// What the server does.
    pub says: &'static str,
    make: fn() -> Box<dyn Quirk>,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Named servers: the quirks that each is known for, as far as one server can have them all.
pub const SERVERS: &[(&str, &[&str])] = &[
    ("epic", &["q_01", "q_02", "q_07", "q_12", "q_13", "q_38", "q_44", "q_53", "q_55", "q_60", "q_71"]),
    ("oracle", &["q_02", "q_03", "q_10", "q_15", "q_34", "q_37", "q_44", "q_47"]),
    ("athena", &["q_08", "q_17"]),
    ("hapi", &["q_25", "q_30", "q_42", "q_36", "q_40", "q_43", "q_45", "q_46", "q_48", "q_68"]),
    ("strict", &[]),
];

impl Scenario {
    /// Every scenario, by section.
    pub fn all() -> impl Iterator<Item = &'static Scenario> {
        [access::SCENARIOS, search::SCENARIOS, paging::SCENARIOS, export::SCENARIOS, change::SCENARIOS, content::SCENARIOS, bulk::SCENARIOS, meanwhile::SCENARIOS]
            .into_iter()
            .flatten()
    }

    /// The scenario of a name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        Scenario::all().find(|scenario| scenario.name == name)
    }

    /// The scenarios of a named server.
    pub fn of_server(name: &str) -> Option<Vec<&'static Scenario>> {
        let (_, quirks) = SERVERS.iter().find(|(own, _)| *own == name)?;
        Some(quirks.iter().filter_map(|quirk| Scenario::named(quirk)).collect())
    }
}

/// The quirks of one server.
pub(super) struct Quirks {
    all: Vec<Box<dyn Quirk>>,
    scene: Scene,
}

impl Quirks {
    pub(super) fn new(scenarios: &[&'static Scenario], faults: &[Fault], scene: Scene) -> Quirks {
        let quirks = scenarios.iter().map(|scenario| (scenario.make)());
        Quirks { all: quirks.chain(faults.iter().map(Fault::quirk)).collect(), scene }
    }

    /// Where the server stands.
    pub(super) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// The answer that a quirk gives in the honest server's place.
    pub(super) fn before(&self, request: &mut Incoming) -> Option<Reply> {
        self.all.iter().find_map(|quirk| quirk.before(request, &self.scene))
    }

    /// Changes the honest answer.
    pub(super) fn after(&self, sent: &Incoming, reply: &mut Reply) {
        if self.all.iter().any(|quirk| quirk.writing().is_some()) {
            reply.edit_resources(|resource| self.write(resource));
        }
        for quirk in &self.all {
            quirk.after(sent, reply, &self.scene);
        }
    }

    /// A resource as the server writes it.
    pub(super) fn written(&self, json: &str) -> String {
        let Ok(mut resource) = serde_json::from_str(json) else { return json.to_owned() };
        self.write(&mut resource);
        resource.to_string()
    }

    /// Whether one of them makes the pages of searches.
    pub(super) fn page_themselves(&self) -> bool {
        self.all.iter().any(|quirk| quirk.pages())
    }

    fn write(&self, resource: &mut Value) {
        self.all.iter().filter_map(|quirk| quirk.writing()).for_each(|write| write(resource));
    }

    /// How far the server's clock is ahead.
    pub(super) fn skew(&self) -> SignedDuration {
        self.all.iter().map(|quirk| quirk.skew()).fold(SignedDuration::ZERO, SignedDuration::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_found_by_name_and_servers_name_only_such() {
        for scenario in Scenario::all() {
            assert!(std::ptr::eq(Scenario::named(scenario.name).unwrap(), scenario), "{scenario:?} is named twice");
            let number = scenario.name.strip_prefix(['b', 'q', 'r']).and_then(|rest| rest.strip_prefix('_'));
            assert!(number.is_some_and(|number| number.len() == 2 && number.parse::<u8>().is_ok()), "{scenario:?}");
            assert!(!scenario.says.is_empty() && !scenario.says.ends_with('.'), "{scenario:?}");
        }
        for (server, quirks) in SERVERS {
            assert_eq!(Scenario::of_server(server).unwrap().len(), quirks.len(), "{server}");
        }
        assert!(Scenario::named("q_00").is_none() && Scenario::of_server("epik").is_none());
    }
}
