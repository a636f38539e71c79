//! Quirks of change, deletion and identity.

use serde_json::Value;

use super::super::reply::Reply;
use super::super::request::Incoming;
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[Scenario {
    name: "q_61",
    says: "every resource was last updated at the same instant of 2020, and searches by it know no other",
    make: || Box::new(ConstantTime),
}];

///
struct ConstantTime;

impl Quirk for ConstantTime {
    /// Nothing is later than any instant that a client would ask for.
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.take("_lastUpdated").is_some() {
            request.add("_lastUpdated", "lt1900-01-01");
        }
        if request.take("_since").is_some() {
            request.add("_since", "9999-01-01T00:00:00Z");
        }
        None
    }

    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            if let Some(updated) = resource.pointer_mut("/meta/lastUpdated") {
                *updated = "2020-01-01T00:00:00Z".into();
            }
        })
    }
}
