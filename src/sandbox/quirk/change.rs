//! Quirks of change, deletion and identity.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde_json::{Value, json};

use super::super::reply::{Reply, form, http_date};
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "q_58",
        says: "of the changes every other one is not to be seen yet by the first search or export after it",
        make: || Box::new(LateRows::new(2)),
    },
    Scenario { name: "q_59", says: "each later version of a resource was last updated at an earlier time", make: || Box::new(BackwardTime) },
    Scenario {
        name: "q_60",
        says: "resources have no time of change, searches by it are refused, and exports by it bring nothing that was changed",
        make: || Box::new(NoTimes),
    },
    Scenario {
        name: "q_61",
        says: "every resource was last updated at the same instant of 2020, and searches by it know no other",
        make: || Box::new(ConstantTime),
    },
    Scenario {
        name: "q_62",
        says: "answers come from a copy that shows a change late, by a clock that is an hour ahead, and some times of change are far in the future",
        make: || Box::new(StaleCopy(LateRows::new(1))),
    },
    Scenario { name: "q_63", says: "searches for changes name deleted resources too, in entries without a resource", make: || Box::new(DeletedEntries) },
    Scenario {
        name: "q_65",
        says: "a group names each patient three times, written differently, and searches give each patient twice",
        make: || Box::new(TwiceListed),
    },
    Scenario {
        name: "q_77",
        says: "its clock is that of its newest entry: the time of every search is, be it ahead or long ago",
        make: || Box::new(EntryClock),
    },
    Scenario { name: "q_78", says: "counts are estimates: of Conditions a tenth fewer than there are", make: || Box::new(Estimates) },
    Scenario {
        name: "q_79",
        says: "by times of change it counts those of its index, which are five days later than those it writes, and of ids it counts the first only",
        make: || Box::new(OwnIndex),
    },
];

fn is_type(resource: &Value, name: &str) -> bool {
    resource.get("resourceType").and_then(Value::as_str) == Some(name)
}

fn updated(resource: &Value) -> Option<Timestamp> {
    resource.pointer("/meta/lastUpdated")?.as_str()?.parse().ok()
}

///
struct LateRows {
    /// What was entered before is seen by all.
    started: Timestamp,
    /// One in so many is late.
    one_in: u64,
    /// Each late version, with the answer that it was left out of first: a page, or all files of an export.
    left_out: Mutex<BTreeMap<String, String>>,
    answers: AtomicU64,
}

impl LateRows {
    fn new(one_in: u64) -> LateRows {
        LateRows { started: Timestamp::now(), one_in, left_out: Mutex::default(), answers: AtomicU64::new(0) }
    }

    fn is_seen(&self, resource: &Value, answer: &str) -> bool {
        let is_new = updated(resource).is_some_and(|at| at > self.started && at.duration_since(self.started) < SignedDuration::from_hours(24));
        if !is_new || !super::content::is_marked(resource, self.one_in) {
            return true;
        }
        let text = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let version = format!("{}/{}/{}", text("/resourceType"), text("/id"), text("/meta/versionId"));
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.entry(version).or_insert_with(|| answer.to_owned()) != answer
    }
}

impl Quirk for LateRows {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        match sent.endpoint() {
            Endpoint::Search | Endpoint::Page => {
                let answer = format!("page {}", self.answers.fetch_add(1, Ordering::SeqCst));
                reply.retain_resources(|resource| self.is_seen(resource, &answer));
            }
            Endpoint::File => reply.retain_resources(|resource| self.is_seen(resource, sent.path.rsplit_once('/').map_or("", |(export, _)| export))),
            // It counts what it shows.
            Endpoint::Status => reply.edit(|manifest| {
                let files = manifest.get_mut("output").and_then(Value::as_array_mut).into_iter().flatten();
                files.filter_map(Value::as_object_mut).for_each(|file| drop(file.remove("count")));
            }),
            _ => {}
        }
    }
}

///
struct BackwardTime;

impl Quirk for BackwardTime {
    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            let version: i64 = resource.pointer("/meta/versionId").and_then(Value::as_str).and_then(|version| version.parse().ok()).unwrap_or(1);
            let at = Timestamp::UNIX_EPOCH.checked_sub((24 * version).hours());
            if let (2.., Some(updated), Ok(at)) = (version, resource.pointer_mut("/meta/lastUpdated"), at) {
                *updated = at.to_string().into();
            }
        })
    }
}

///
struct NoTimes;

impl Quirk for NoTimes {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() == Endpoint::Search && request.parameter("_lastUpdated").is_some() {
            return Some(Reply::outcome(StatusCode::BAD_REQUEST, "not-supported", "searches by time of change are not supported"));
        }
        if request.take("_since").is_some() {
            request.add("_since", "9999-01-01T00:00:00Z");
        }
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.endpoint() == Endpoint::Metadata {
            let text = String::from_utf8_lossy(reply.body()).replace("\"_lastUpdated\"", "\"_unknown\"");
            reply.set_body(text);
        }
    }

    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            if let Some(meta) = resource.get_mut("meta").and_then(Value::as_object_mut) {
                meta.remove("lastUpdated");
                meta.remove("versionId");
            }
        })
    }
}

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

///
struct StaleCopy(LateRows);

impl StaleCopy {
    /// What its clock says.
    fn clock() -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(1.hour()).unwrap_or(now)
    }
}

impl Quirk for StaleCopy {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        self.0.after(sent, reply, scene);
        if matches!(sent.endpoint(), Endpoint::Search | Endpoint::Page) {
            reply.set(header::DATE, http_date(Self::clock()));
        }
        if sent.endpoint() == Endpoint::Status && reply.status == StatusCode::OK {
            reply.edit(|manifest| manifest["transactionTime"] = json!(Self::clock().to_string()));
        }
    }

    fn writing(&self) -> Option<fn(&mut Value)> {
        Some(|resource| {
            let marked = super::content::is_marked(resource, 16);
            if let (true, Some(updated)) = (marked, resource.pointer_mut("/meta/lastUpdated")) {
                *updated = "2062-01-01T00:00:00Z".into();
            }
        })
    }
}

///
struct EntryClock;

impl Quirk for EntryClock {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if matches!(sent.endpoint(), Endpoint::Search | Endpoint::Page) {
            reply.set(header::DATE, http_date(scene.hospital.read().chart.newest()));
        }
    }
}

///
struct Estimates;

impl Quirk for Estimates {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.kind() == Some("Condition") && sent.parameter("_summary").is_some() {
            reply.edit(|page| {
                let total = page.get("total").and_then(Value::as_u64).unwrap_or_default();
                page["total"] = (total - total.div_ceil(10)).into();
            });
        }
    }
}

///
struct OwnIndex;

impl Quirk for OwnIndex {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.parameter("_summary").as_deref() != Some("count") {
            return None;
        }
        let earlier = |at: &str| Some(at.parse::<Timestamp>().ok()?.checked_sub(SignedDuration::from_hours(120)).ok()?.to_string());
        let moved = |value: &str| value.split_at_checked(2).and_then(|(prefix, at)| Some(format!("{prefix}{}", earlier(at)?)));
        let counted = form(request.query.as_deref().unwrap_or_default().as_bytes()).into_iter().map(|(name, value)| match name.as_str() {
            "_lastUpdated" => (name, moved(&value).unwrap_or(value)),
            "_id" => (name, value.split(',').next().unwrap_or_default().to_owned()),
            _ => (name, value),
        });
        request.query = Some(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(counted).finish());
        None
    }
}

///
struct DeletedEntries;

impl Quirk for DeletedEntries {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let Some(kind) = sent
            .kind()
            .filter(|_| sent.endpoint() == Endpoint::Search && sent.parameter("_lastUpdated").is_some() && reply.is_searchset())
        else {
            return;
        };
        let state = scene.hospital.read();
        let gone = state.chart.all(kind).filter(|version| version.content.is_none());
        let entry = |(number, id): (usize, &str)| {
            let mut entry =
                json!({"fullUrl": format!("{}/{kind}/{id}", scene.base), "request": {"method": "DELETE", "url": format!("{kind}/{id}")}, "response": {"status": "410"}});
            if number.is_multiple_of(2) {
                entry["resource"] = Value::Null;
            }
            entry
        };
        let entries: Vec<Value> = gone.enumerate().map(|(number, version)| entry((number, &version.id))).collect();
        reply.edit(|page| match page.get_mut("entry").and_then(Value::as_array_mut) {
            Some(own) => own.extend(entries),
            None => page["entry"] = entries.into(),
        });
    }
}

///
struct TwiceListed;

impl Quirk for TwiceListed {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if reply.is_searchset() {
            reply.edit(|page| {
                let Some(entries) = page.get_mut("entry").and_then(Value::as_array_mut) else { return };
                let again: Vec<Value> = entries
                    .iter()
                    .filter(|entry| entry.get("resource").is_some_and(|resource| is_type(resource, "Patient")))
                    .cloned()
                    .collect();
                entries.extend(again);
            });
        } else if sent.endpoint() == Endpoint::Read {
            reply.edit(|resource| {
                if !is_type(resource, "Group") {
                    return;
                }
                let Some(members) = resource.get_mut("member").and_then(Value::as_array_mut) else { return };
                let names: Vec<String> = members.iter().filter_map(|member| member.pointer("/entity/reference")?.as_str().map(str::to_owned)).collect();
                let other = |reference: String| json!({"entity": {"reference": reference}});
                members.extend(names.iter().map(|name| other(format!("{}/{name}", scene.base))));
                members.extend(names.iter().map(|name| other(format!("{name}/_history/1"))));
            });
        }
    }
}
