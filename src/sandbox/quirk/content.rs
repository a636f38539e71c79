//! Quirks of content.

use serde_json::{Value, json};

use super::{Quirk, Scenario};

pub(super) static SCENARIOS: &[Scenario] = &[Scenario {
    name: "q_71",
    says: "resources carry the vendor's own codes, displays and extensions with patients' names in them, and some observations a modifier that nobody knows",
    make: || Box::new(VendorContent),
}];

///
struct VendorContent;

impl Quirk for VendorContent {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(vendor_content)
    }
}

fn vendor_content(resource: &mut Value) {
    let is_observation = resource.get("resourceType").and_then(Value::as_str) == Some("Observation");
    // By its id, so that a resource is always written alike.
    let marked = is_observation && resource.get("id").and_then(Value::as_str).is_some_and(|id| id.bytes().map(u64::from).sum::<u64>() % 16 == 0);
    if let Some(codings) = resource.pointer_mut("/code/coding").and_then(Value::as_array_mut) {
        codings.push(json!({"system": "urn:oid:1.2.840.114350.1.13.0.1.7.2.696580", "code": "CANARY-CODE", "display": "Canary Patient, born 1 Jan"}));
    }
    let Some(members) = resource.as_object_mut() else { return };
    members.insert("extension".to_owned(), json!([{"url": "https://vendor.example/note", "valueString": "seen by Canary Nurse"}]));
    if marked {
        members.insert("modifierExtension".to_owned(), json!([{"url": "https://vendor.example/refuted", "valueBoolean": true}]));
    }
}
