//! Quirks of search beside its paging: required parameters, filters, what stands in the answers: Q-12 to Q-34, Q-87.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::reply::{Reply, outcome};
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "r_03",
        says: "each type ignores one parameter, and its self link leaves it out: Observation `code`, Condition `patient`, Encounter `_lastUpdated`, Patient and Location `_id`",
        make: || Box::new(IgnoredAndSaid),
    },
    Scenario {
        name: "r_05",
        says: "outcomes stand among the entries: an error instead of a Condition, nothing but an error for Procedure, a warning beside Observations",
        make: || Box::new(Outcomes),
    },
    Scenario {
        name: "r_11",
        says: "what is included stands on a page twice, or not at all; the oncology unit never does",
        make: || Box::new(LooseIncludes::default()),
    },
    Scenario {
        name: "r_12",
        says: "times in searches are read in one form only: `2026-01-02T03:04:05Z`, with milliseconds or an offset at most",
        make: || Box::new(StrictTimes),
    },
    Scenario {
        name: "r_15",
        says: "Observations have no version, Encounters one that is no number, Conditions no `meta` at all",
        make: || Box::new(Unversioned),
    },
    Scenario {
        name: "r_16",
        says: "searches for changes name the first Condition that was ever read, and one that never was, as deleted, as a history does: without a resource",
        make: || Box::new(HistoryEntries::default()),
    },
    Scenario {
        name: "r_17",
        says: "references are spelled in many ways: absolute, with a version, by `urn:uuid:`, contained, logical, by display only",
        make: || Box::new(Spellings),
    },
    Scenario { name: "r_18", says: "decimals end in zeros, primitives have extensions, lists of primitives have nulls", make: || Box::new(OddJson) },
    Scenario { name: "r_19", says: "ids differ in case only, are `..`, or are no ids at all", make: || Box::new(OddIds) },
    Scenario {
        name: "q_12",
        says: "Observation is searched by category only, and the categories `procedure`, `therapy` and `activity` are refused",
        make: || Box::new(NeedsCategory),
    },
    Scenario { name: "q_13", says: "patients cannot be searched for, only read by id", make: || Box::new(Unsearchable("Patient")) },
    Scenario { name: "q_14", says: "encounters cannot be searched for, only read by id", make: || Box::new(Unsearchable("Encounter")) },
    Scenario { name: "q_15", says: "`date` and `-timing-boundsPeriod` are accepted, said to be used, and ignored", make: || Box::new(IgnoredDates) },
    Scenario { name: "q_87", says: "times of change are refused beside a category or a code", make: || Box::new(TimesAlone) },
    Scenario { name: "q_16", says: "`_include` and `_revinclude` are ignored", make: || Box::new(NoIncludes) },
    Scenario { name: "q_33", says: "procedures have another id in each answer", make: || Box::new(FreshIds::default()) },
    Scenario {
        name: "q_34",
        says: "the first search of Condition brings a login page with status 200, and Encounter nothing but an OperationOutcome with status 200",
        make: || Box::new(FalseSuccess::default()),
    },
];

/// The entries of a page; an empty list where there are none.
fn edit_entries(reply: &mut Reply, change: impl FnOnce(&mut Vec<Value>)) {
    if reply.is_searchset() {
        reply.edit(|page| {
            let mut entries = page.get_mut("entry").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            change(&mut entries);
            if !entries.is_empty() {
                page["entry"] = entries.into();
            }
        });
    }
}

/// R-03.
struct IgnoredAndSaid;

impl Quirk for IgnoredAndSaid {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let ignored = match request.kind()? {
            "Observation" => "code",
            "Condition" => "patient",
            "Encounter" => "_lastUpdated",
            "Patient" | "Location" => "_id",
            _ => return None,
        };
        while request.take(ignored).is_some() {}
        None
    }
}

/// R-05.
struct Outcomes;

impl Quirk for Outcomes {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.endpoint() != Endpoint::Search {
            return;
        }
        let kind = sent.kind().unwrap_or_default().to_owned();
        let said = |severity: &str| outcome(severity, "processing", "words of the server").parse::<Value>().unwrap_or_default();
        edit_entries(reply, |entries| match kind.as_str() {
            "Condition" if !entries.is_empty() => entries[0] = json!({"resource": said("error")}),
            "Procedure" => *entries = vec![json!({"resource": said("fatal"), "search": {"mode": "outcome"}})],
            "Observation" => entries.insert(0, json!({"resource": said("warning"), "search": {"mode": "outcome"}})),
            "Encounter" => entries.push(json!({"resource": said("information")})),
            _ => {}
        });
    }
}

/// R-11.
#[derive(Default)]
struct LooseIncludes {
    pages: AtomicU64,
}

impl Quirk for LooseIncludes {
    fn after(&self, _sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        edit_entries(reply, |entries| {
            let is_include = |entry: &Value| entry.pointer("/search/mode").and_then(Value::as_str) == Some("include");
            // Every other one of these pages, whatever others are asked for between them.
            if entries.iter().any(is_include) && self.pages.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                entries.retain(|entry| !is_include(entry) || entry.pointer("/resource/id").and_then(Value::as_str) != Some("unit-oncology"));
                let again: Vec<Value> = entries.iter().filter(|entry| is_include(entry)).cloned().collect();
                entries.extend(again);
            } else {
                entries.retain(|entry| !is_include(entry));
            }
        });
    }
}

/// R-12.
struct StrictTimes;

impl Quirk for StrictTimes {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let value = request.parameter("_lastUpdated")?;
        let text = value.strip_prefix("ge").or_else(|| value.strip_prefix("lt"))?;
        let (time, rest) = text.split_at_checked(19).unwrap_or((text, ""));
        let is_time = time.parse::<jiff::civil::DateTime>().is_ok() && time.contains('T');
        let rest = rest.strip_prefix('.').map_or(Some(rest), |rest| rest.get(3..));
        let is_zone = rest.is_some_and(|zone| zone == "Z" || (zone.len() == 6 && zone.starts_with(['+', '-'])));
        (!(is_time && is_zone)).then(|| Reply::outcome(StatusCode::BAD_REQUEST, "value", "`_lastUpdated` is no instant"))
    }
}

/// R-15.
struct Unversioned;

impl Quirk for Unversioned {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            let kind = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default().to_owned();
            let Some(resource) = resource.as_object_mut() else { return };
            let meta = resource.get_mut("meta").and_then(Value::as_object_mut);
            match (kind.as_str(), meta) {
                ("Condition", _) => drop(resource.shift_remove("meta")),
                ("Observation", Some(meta)) => drop(meta.shift_remove("versionId")),
                ("Encounter", Some(meta)) => meta["versionId"] = "W/\"a\"".into(),
                _ => {}
            }
        })
    }
}

/// R-16.
#[derive(Default)]
struct HistoryEntries {
    first: Mutex<Option<String>>,
}

impl Quirk for HistoryEntries {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if sent.kind() != Some("Condition") || sent.endpoint() != Endpoint::Search {
            return;
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |id: &str| json!({"fullUrl": format!("{}/Condition/{id}", scene.base), "request": {"method": "DELETE", "url": format!("Condition/{id}")}});
        edit_entries(reply, |entries| {
            let own = entries.first().and_then(|entry| entry.pointer("/resource/id")?.as_str()).map(str::to_owned);
            match (sent.parameter("_lastUpdated"), &*first) {
                (Some(_), Some(id)) => entries.extend([gone(id), gone("never-was")]),
                _ => *first = own,
            }
        });
    }
}

/// R-17.
struct Spellings;

impl Spellings {
    /// The patients' aliases: an id of 36 characters made of the real one.
    fn alias(id: &str) -> String {
        let digits: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("{:0<8}-0000-4000-8000-{:0>12}", digits.get(..8).unwrap_or("0"), id.bytes().fold(0u64, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_000_007))
    }
}

impl Quirk for Spellings {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            let kind = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default().to_owned();
            let id = resource.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let spelled = |target: &str| match id.bytes().map(u64::from).sum::<u64>() % 4 {
                0 => target.to_owned(),
                1 => format!("https://ehr.example.org/fhir/{target}"),
                2 => format!("{target}/_history/7"),
                _ => format!("https://ehr.example.org/fhir/{target}/_history/7"),
            };
            if let Some(target) = resource.pointer("/subject/reference").and_then(Value::as_str).map(str::to_owned) {
                resource["subject"]["reference"] = spelled(&target).into();
            }
            if let Some(target) = resource.pointer("/location/0/location/reference").and_then(Value::as_str).map(str::to_owned) {
                resource["location"][0]["location"]["reference"] = spelled(&target).into();
            }
            if kind == "Observation" && resource.get("encounter").is_some() {
                resource["encounter"] = match id.len() % 3 {
                    0 => json!({"reference": "#visit"}),
                    1 => json!({"identifier": {"system": "urn:visits", "value": "1"}}),
                    _ => json!({"display": "a visit"}),
                };
            }
        })
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.kind() != Some("DeviceUseStatement") {
            return;
        }
        edit_entries(reply, |entries| {
            // An older version of the patient.
            let patient = |id: &str| json!({"resourceType": "Patient", "id": id, "meta": {"versionId": "0", "lastUpdated": "2000-01-01T00:00:00Z"}});
            let mut patients = Vec::new();
            for entry in entries.iter_mut() {
                let target = entry.pointer("/resource/subject/reference").and_then(Value::as_str).unwrap_or_default();
                let Some(id) = target.split('/').skip_while(|part| *part != "Patient").nth(1).map(str::to_owned) else { continue };
                let alias = format!("urn:uuid:{}", Self::alias(&id));
                entry["resource"]["subject"]["reference"] = alias.clone().into();
                patients.push(json!({"fullUrl": alias, "resource": patient(&id), "search": {"mode": "include"}}));
            }
            entries.extend(patients);
        });
    }
}

/// R-18.
struct OddJson;

impl Quirk for OddJson {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            if resource.get("resourceType").and_then(Value::as_str) != Some("Procedure") {
                return;
            }
            let odd = r#"{"extension":[{"url":"urn:x:decimal","valueDecimal":1.00},{"url":"urn:x:large","valueDecimal":12345678901234567890.10}],
                "_status":{"id":"s"},"x-list":["a",null],"_x-list":[null,{"id":"b"}]}"#;
            let odd = serde_json::from_str::<serde_json::Map<String, Value>>(odd).unwrap_or_default();
            let Some(resource) = resource.as_object_mut() else { return };
            resource.extend(odd);
            // Its type comes last.
            if let Some(kind) = resource.shift_remove("resourceType") {
                resource.insert("resourceType".to_owned(), kind);
            }
        })
    }
}

/// R-19.
struct OddIds;

impl Quirk for OddIds {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.kind() != Some("Condition") || sent.endpoint() != Endpoint::Search {
            return;
        }
        edit_entries(reply, |entries| {
            let Some(example) = entries.first().cloned() else { return };
            for id in ["twin", "TWIN", "..", "%2e%2e", "a/../../b", "'; DROP TABLE unit; --"] {
                let mut entry = example.clone();
                entry["resource"]["id"] = id.into();
                entries.push(entry);
            }
        });
    }
}

/// Q-12.
struct NeedsCategory;

impl Quirk for NeedsCategory {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Search || request.kind() != Some("Observation") {
            return None;
        }
        match request.parameter("category").as_deref() {
            None => Some(Reply::outcome(StatusCode::BAD_REQUEST, "required", "either code or category is required")),
            Some("procedure" | "therapy" | "activity") => Some(Reply::outcome(StatusCode::BAD_REQUEST, "value", "the category is not supported")),
            Some(_) => None,
        }
    }
}

/// Q-13 and Q-14.
struct Unsearchable(&'static str);

impl Quirk for Unsearchable {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let refused = request.endpoint() == Endpoint::Search && request.kind() == Some(self.0);
        refused.then(|| Reply::outcome(StatusCode::BAD_REQUEST, "required", "this search is not supported"))
    }
}

/// Q-15.
struct IgnoredDates;

/// Q-87.
struct TimesAlone;

impl Quirk for TimesAlone {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let has = |name: &str| request.parameter(name).is_some();
        let is_refused = request.endpoint() == Endpoint::Search && has("_lastUpdated") && (has("category") || has("code"));
        is_refused.then(|| Reply::outcome(StatusCode::BAD_REQUEST, "invalid", "this combination of parameters is not supported"))
    }
}

impl Quirk for IgnoredDates {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        for name in ["date", "-timing-boundsPeriod"] {
            while request.take(name).is_some() {}
        }
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        let Some(date) = sent.parameter("date").filter(|_| reply.is_searchset()) else { return };
        reply.edit(|page| {
            let own = page.pointer("/link/0/url").and_then(Value::as_str).unwrap_or_default().to_owned();
            page["link"][0]["url"] = format!("{own}&date={date}").into();
        });
    }
}

/// Q-16.
struct NoIncludes;

impl Quirk for NoIncludes {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        for name in ["_include", "_revinclude"] {
            while request.take(name).is_some() {}
        }
        None
    }
}

/// Q-33.
#[derive(Default)]
struct FreshIds {
    made: AtomicU64,
}

impl Quirk for FreshIds {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.kind() != Some("Procedure") {
            return;
        }
        edit_entries(reply, |entries| {
            for entry in entries {
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                entry["resource"]["id"] = format!("made-{number}").into();
                entry["resource"]["meta"] = json!({"versionId": number.to_string(), "lastUpdated": jiff::Timestamp::now().to_string()});
            }
        });
    }
}

/// Q-34.
#[derive(Default)]
struct FalseSuccess {
    conditions: AtomicU64,
}

impl Quirk for FalseSuccess {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Search {
            return None;
        }
        match request.kind()? {
            "Encounter" => Some(Reply::outcome(StatusCode::OK, "processing", "something is wrong here")),
            "Condition" if self.conditions.fetch_add(1, Ordering::Relaxed) == 0 => Some(Reply::json(StatusCode::OK, "text/html", "<html><body>Please log in</body></html>")),
            _ => None,
        }
    }
}
