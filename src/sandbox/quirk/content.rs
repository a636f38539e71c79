//! Quirks of content.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::{HeaderName, StatusCode, header};
use serde_json::{Value, json};

use super::super::reply::{Reply, outcome};
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

/// What no log may hold: as a patient's name, and as what a server says of one, with a line that it would like to see there.
const CANARY: &str = "Canaryname";
const FORGED: &str = "Canaryname was here\n2026-01-01T00:00:00Z ERROR forged: Canaryname\u{1b}[2J";

/// Names of types that would harm as paths.
const HOSTILE_TYPES: [&str; 5] = ["../../../etc/passwd", "/etc/passwd", "CON", "nul\u{0}byte", "..\\..\\x"];

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "q_68",
        says: "numbers are written with exponents and zeros at their end, and a few in export files as .5, which is no JSON",
        make: || Box::new(OddNumbers),
    },
    Scenario { name: "q_69", says: "times have no zone, and dates have one", make: || Box::new(NoZones) },
    Scenario { name: "q_70", says: "observations contain a device of their own, each under the same name", make: || Box::new(Contained) },
    Scenario {
        name: "q_71",
        says: "resources carry the vendor's own codes, displays and extensions with patients' names in them, and some observations a modifier that nobody knows",
        make: || Box::new(VendorContent),
    },
    Scenario { name: "q_73", says: "lists are null or hold nulls, in pages and in resources, and pages without entries have none", make: || Box::new(Nulls) },
    Scenario {
        name: "q_74",
        says: "errors, headers and unreadable resources quote a patient's name and try to write lines of their own into a log",
        make: || Box::new(TellTale::default()),
    },
    Scenario { name: "q_75", says: "an export's files are said to be of types that would harm as paths", make: || Box::new(HostileNames) },
];

/// Whether a resource is one of some, by its id, so that a resource is always written alike.
pub(super) fn is_marked(resource: &Value, one_in: u64) -> bool {
    resource
        .get("id")
        .and_then(Value::as_str)
        .is_some_and(|id| id.bytes().map(u64::from).sum::<u64>().is_multiple_of(one_in))
}

fn is_observation(resource: &Value) -> bool {
    resource.get("resourceType").and_then(Value::as_str) == Some("Observation")
}

///
struct OddNumbers;

impl Quirk for OddNumbers {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            let as_greater = is_marked(resource, 2);
            let Some(value) = resource.pointer_mut("/valueQuantity/value") else { return };
            let plain = value.to_string();
            let digits: String = plain.chars().filter(char::is_ascii_digit).collect();
            let (first, rest) = digits.split_at(digits.len().min(1));
            let shown = match plain.find('.') {
                // 38.5 as 3.850E+1 or as 385.00E-1, 120 as 120.0
                Some(point) if as_greater && first != "0" => format!("{first}.{rest}0E+{}", point - 1),
                Some(point) => format!("{}.00E-{}", digits.trim_start_matches('0'), digits.len() - point),
                None => format!("{plain}.0"),
            };
            if let Ok(number) = serde_json::from_str(&shown) {
                *value = number;
            }
        })
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.endpoint() != Endpoint::File {
            return;
        }
        let text = String::from_utf8_lossy(reply.body()).into_owned();
        let spoilt = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(resource) if is_marked(&resource, 40) && resource.pointer("/valueQuantity/value").is_some() => {
                let value = resource.pointer("/valueQuantity/value").map(Value::to_string).unwrap_or_default();
                line.replacen(&format!("\"value\":{value}"), "\"value\":.5", 1)
            }
            _ => line.to_owned(),
        };
        reply.set_body(text.lines().flat_map(|line| [spoilt(line), "\n".to_owned()]).collect::<String>());
    }
}

///
struct NoZones;

impl Quirk for NoZones {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            let Some(members) = resource.as_object_mut() else { return };
            for (name, value) in members.iter_mut().filter(|(name, _)| *name != "meta") {
                if name == "birthDate" {
                    if let Some(date) = value.as_str().map(|date| format!("{date}Z")) {
                        *value = date.into();
                    }
                } else {
                    drop_zones(value);
                }
            }
        })
    }
}

/// Takes the offset from every time; the sandbox writes local times with theirs.
fn drop_zones(value: &mut Value) {
    match value {
        Value::String(text) => {
            let is_time = text.len() >= 22 && text.as_bytes().get(10) == Some(&b'T') && text.get(..4).is_some_and(|year| year.parse::<u16>().is_ok());
            let offset = text.get(11..).and_then(|time| time.find(['+', '-', 'Z'])).filter(|_| is_time);
            if let Some(offset) = offset {
                text.truncate(11 + offset);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(drop_zones),
        Value::Object(members) => members.values_mut().for_each(drop_zones),
        _ => {}
    }
}

///
struct Contained;

impl Quirk for Contained {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            if !is_observation(resource) {
                return;
            }
            let serial = resource.get("id").cloned().unwrap_or_default();
            let Some(members) = resource.as_object_mut() else { return };
            members.insert("contained".to_owned(), json!([{"resourceType": "Device", "id": "m1", "serialNumber": serial}]));
            members.insert("device".to_owned(), json!({"reference": "#m1"}));
        })
    }
}

///
struct VendorContent;

impl Quirk for VendorContent {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(vendor_content)
    }
}

fn vendor_content(resource: &mut Value) {
    let marked = is_observation(resource) && is_marked(resource, 16);
    if let Some(codings) = resource.pointer_mut("/code/coding").and_then(Value::as_array_mut) {
        codings.push(json!({"system": "urn:oid:1.2.840.114350.1.13.0.1.7.2.696580", "code": "CANARY-CODE", "display": "Canary Patient, born 1 Jan"}));
    }
    let Some(members) = resource.as_object_mut() else { return };
    members.insert("extension".to_owned(), json!([{"url": "https://vendor.example/note", "valueString": "seen by Canary Nurse"}]));
    if marked {
        members.insert("modifierExtension".to_owned(), json!([{"url": "https://vendor.example/refuted", "valueBoolean": true}]));
    }
}

///
struct Nulls;

impl Quirk for Nulls {
    fn after(&self, _sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if !reply.is_searchset() {
            return;
        }
        reply.edit(|page| {
            match page.get_mut("link").and_then(Value::as_array_mut) {
                Some(links) if links.len() > 1 => links.insert(0, Value::Null),
                _ => page["link"] = Value::Null,
            }
            if page.get("entry").is_none() {
                page["entry"] = Value::Null;
            }
            page["total"] = Value::Null;
            let entries = page.get_mut("entry").and_then(Value::as_array_mut).into_iter().flatten();
            for (number, entry) in entries.enumerate() {
                if number.is_multiple_of(2) {
                    entry["search"] = Value::Null;
                }
                entry["fullUrl"] = Value::Null;
            }
        });
    }

    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            let Some(members) = resource.as_object_mut() else { return };
            for name in ["text", "contained", "language", "implicitRules"] {
                members.entry(name).or_insert(Value::Null);
            }
            for name in ["identifier", "note", "category", "performer", "telecom", "address"] {
                match members.get_mut(name) {
                    Some(Value::Array(items)) => items.push(Value::Null),
                    Some(_) => {}
                    None => drop(members.insert(name.to_owned(), json!([null]))),
                }
            }
            if let Some(given) = resource.pointer_mut("/name/0/given").and_then(Value::as_array_mut) {
                given.push(Value::Null);
            }
        })
    }
}

///
#[derive(Default)]
struct TellTale {
    requests: AtomicU32,
}

impl Quirk for TellTale {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let turn = self.requests.fetch_add(1, Ordering::SeqCst);
        match request.endpoint() {
            Endpoint::Search if request.kind() == Some("Procedure") => {
                Some(Reply::json(StatusCode::UNPROCESSABLE_ENTITY, "application/fhir+json", outcome("error", FORGED, FORGED)))
            }
            Endpoint::Search | Endpoint::Status | Endpoint::File if turn % 5 == 4 => {
                Some(Reply::json(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", FORGED).with(HeaderName::from_static("x-error"), CANARY))
            }
            _ => None,
        }
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        match sent.endpoint() {
            Endpoint::Metadata => reply.edit(|statement| statement["software"] = json!({"name": FORGED, "version": FORGED})),
            Endpoint::Status if reply.status == StatusCode::ACCEPTED => reply.set(HeaderName::from_static("x-progress"), CANARY),
            Endpoint::Search if sent.kind() == Some("Observation") => reply.edit(|page| {
                if let Some(entries) = page.get_mut("entry").and_then(Value::as_array_mut) {
                    entries.push(json!({"resource": {"resourceType": "Observation", "valueString": FORGED}, "search": {"mode": "match"}}));
                    entries.push(json!({"resource": serde_json::from_str::<Value>(&outcome("warning", FORGED, FORGED)).ok(), "search": {"mode": "outcome"}}));
                }
            }),
            _ => {}
        }
        reply.set(header::SERVER, CANARY);
    }

    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            if let Some(family) = resource.pointer_mut("/name/0/family") {
                *family = CANARY.into();
            }
        })
    }
}

///
struct HostileNames;

impl Quirk for HostileNames {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.endpoint() != Endpoint::Status || reply.status != StatusCode::OK {
            return;
        }
        reply.edit(|manifest| {
            let Some(files) = manifest.get_mut("output").and_then(Value::as_array_mut) else { return };
            let long = "T".repeat(300);
            let names = HOSTILE_TYPES.iter().copied().chain([long.as_str()]);
            // The same files once more, under names that nobody should follow.
            let again: Vec<Value> = files.iter().zip(names).map(|(file, name)| json!({"type": name, "url": file.get("url")})).collect();
            files.extend(again);
        });
    }
}
