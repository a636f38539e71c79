//! Faults: what goes wrong on purpose, at chosen places or by chance from a seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{StatusCode, header};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::dice::Dice;
use super::quirk::access::Shut;
use super::quirk::{Quirk, Scene};
use super::reply::{Delivery, Reply, http_date};
use super::request::{Endpoint, Incoming};

/// Faults in a row at one endpoint, at most, when they come by chance.
const CHANCE_ROW_MAX: u32 = 2;
/// Requests in a thousand that are answered with a status or a reset.
const REFUSED_PERMILLE: i64 = 80;
/// Answers in a thousand that come late or break off.
const SPOILED_PERMILLE: i64 = 40;
/// Longest stall, in milliseconds.
const STALL_MS_MAX: i64 = 300;
/// Seconds that the clock is off, at most.
const SKEW_SECONDS_MAX: i64 = 30;

/// Resources that no reader may take in, one form after the other.
const MALFORMED: [&str; 10] = [
    r#"{"resourceType":"TYPE","status":"final"}"#,
    r#"{"resourceType":"TYPE","id":"../../etc/passwd"}"#,
    r#"{"resourceType":"TYPE","id":42}"#,
    r#"{"resourceType":"TYPE","id":"an-id-that-is-much-longer-than-the-sixty-four-characters-FHIR-allows-for-ids"}"#,
    r#"{"resourceType":7,"id":"malformed-5"}"#,
    r#"{"id":"malformed-6","status":"final"}"#,
    r#""a string""#,
    r#"[]"#,
    r#"{}"#,
    r#"null"#,
];

/// Something that goes wrong on purpose.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The first page of a search for the type, and the first export file of it, carry this many
    /// malformed resources beside the real ones. Of searches by patient, those for one and the same
    /// patient carry them.
    Malformed {
        /// Resource type whose answers are spoiled.
        resource_type: String,
        /// How many malformed resources.
        count: u32,
    },
    /// The last lines of the first export file of the type are cut in the middle.
    Truncated {
        /// Resource type whose file is spoiled.
        resource_type: String,
        /// How many lines are cut.
        lines: u32,
    },
    /// The first `times` requests whose path contains `path` are answered with `status`.
    Status {
        /// Part of the path, for example `/Observation` or `/token`; with a blank at its end, the end of the path.
        path: String,
        /// HTTP status, for example 503.
        status: u16,
        /// Seconds in `Retry-After`, if any.
        retry_after: Option<u32>,
        /// How many requests fail.
        times: u32,
    },
    /// Every request whose path contains `path` is answered after `delay`.
    Slow {
        /// Part of the path.
        path: String,
        /// How long an answer takes.
        delay: Duration,
    },
    /// This client may not read a type while the fault is on: what is asked for of it is refused (403), and an export leaves it
    /// out and says so in its messages.
    Shut {
        /// Resource type.
        resource_type: String,
        /// Whether it is on.
        is_on: Arc<AtomicBool>,
    },
    /// Everything that can go wrong between two good servers, at every endpoint, by chance: statuses with and without
    /// `Retry-After`, connections reset before or within an answer, stalls, a clock that is off. One request in eight
    /// meets something, and at most two in a row at an endpoint. The same requests in the same order meet the same.
    Chance {
        /// Whence the chances come.
        seed: u64,
    },
}

impl Fault {
    /// What the server does.
    pub(super) fn quirk(&self) -> Box<dyn Quirk> {
        match self.clone() {
            Fault::Malformed { resource_type, count } => Box::new(Malformed { kind: resource_type, count, patient: Mutex::default(), first: FirstFiles::default() }),
            Fault::Truncated { resource_type, lines } => Box::new(Truncated { kind: resource_type, lines, first: FirstFiles::default() }),
            Fault::Status { path, status, retry_after, times } => Box::new(Refused { path, status, retry_after, left: AtomicU32::new(times) }),
            Fault::Slow { path, delay } => Box::new(Slow { path, delay }),
            Fault::Shut { resource_type, is_on } => Box::new(Shut { kind: resource_type, is_on }),
            Fault::Chance { seed } => Box::new(Chance { seed, met: Mutex::default() }),
        }
    }
}

/// Which file of an export was asked for first.
#[derive(Default)]
struct FirstFiles {
    /// By the export's address.
    paths: Mutex<HashMap<String, String>>,
}

impl FirstFiles {
    /// Whether an answer is the first file of resources of `kind` in its export.
    fn has(&self, sent: &Incoming, reply: &Reply, kind: &str) -> bool {
        let first_line = reply.body().split(|byte| *byte == b'\n').next().unwrap_or_default();
        let resource: Option<Value> = serde_json::from_slice(first_line).ok().filter(|_| sent.endpoint() == Endpoint::File && reply.status == StatusCode::OK);
        if resource.is_none_or(|resource| resource.get("resourceType").and_then(Value::as_str) != Some(kind)) {
            return false;
        }
        let export = sent.path.rsplit_once('/').map_or("", |(export, _)| export).to_owned();
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        *paths.entry(export).or_insert_with(|| sent.path.clone()) == sent.path
    }
}

struct Malformed {
    kind: String,
    count: u32,
    /// The first patient that was asked for.
    patient: Mutex<Option<String>>,
    first: FirstFiles,
}

impl Quirk for Malformed {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let forms = MALFORMED.iter().cycle().take(usize::try_from(self.count).unwrap_or(0)).map(|form| form.replace("TYPE", &self.kind));
        if self.first.has(sent, reply, &self.kind) {
            let mut text: Vec<u8> = forms.flat_map(|form| form.into_bytes().into_iter().chain([b'\n'])).collect();
            text.extend_from_slice(reply.body());
            reply.set_body(text);
        } else if sent.endpoint() == Endpoint::Search && sent.kind() == Some(&self.kind) && reply.is_searchset() && self.is_marked(sent) {
            let entry = |form: String| json!({"fullUrl": format!("{}/{}/malformed", scene.base, self.kind), "resource": serde_json::from_str::<Value>(&form).ok(), "search": {"mode": "match"}});
            reply.edit(|page| match page.get_mut("entry").and_then(Value::as_array_mut) {
                Some(entries) => entries.extend(forms.map(entry)),
                None => page["entry"] = forms.map(entry).collect(),
            });
        }
    }
}

impl Malformed {
    fn is_marked(&self, sent: &Incoming) -> bool {
        let Some(patient) = sent.parameter("patient").or_else(|| sent.parameter("subject")) else { return true };
        let mut marked = self.patient.lock().unwrap_or_else(PoisonError::into_inner);
        *marked.get_or_insert_with(|| patient.clone()) == patient
    }
}

struct Truncated {
    kind: String,
    lines: u32,
    first: FirstFiles,
}

impl Quirk for Truncated {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if !self.first.has(sent, reply, &self.kind) {
            return;
        }
        let text = String::from_utf8_lossy(reply.body()).into_owned();
        let whole = text.lines().count().saturating_sub(usize::try_from(self.lines).unwrap_or(0));
        let cut = |(index, line): (usize, &str)| line.get(..if index < whole { line.len() } else { line.len() / 2 }).unwrap_or("{").to_owned() + "\n";
        reply.set_body(text.lines().enumerate().map(cut).collect::<String>());
    }
}

struct Refused {
    path: String,
    status: u16,
    retry_after: Option<u32>,
    left: AtomicU32,
}

impl Quirk for Refused {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if !format!("{} ", request.path).contains(&self.path) {
            return None;
        }
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()?;
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = Reply::outcome(status, "transient", "injected fault");
        if let Some(seconds) = self.retry_after {
            reply.set(header::RETRY_AFTER, seconds.to_string());
        }
        Some(reply)
    }
}

struct Slow {
    path: String,
    delay: Duration,
}

impl Quirk for Slow {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.path.contains(&self.path) {
            reply.delay = self.delay;
        }
    }
}

/// What an endpoint has met so far.
#[derive(Default)]
struct Met {
    requests: u64,
    row: u32,
}

struct Chance {
    seed: u64,
    /// By endpoint; `true` for answers.
    met: Mutex<BTreeMap<(Endpoint, bool), Met>>,
}

impl Chance {
    /// Dice for the next request (or answer) of an endpoint, if something is to happen to it.
    fn strike(&self, endpoint: Endpoint, is_answer: bool, permille: i64) -> Option<Dice> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let met = met.entry((endpoint, is_answer)).or_default();
        met.requests += 1;
        let mut dice = Dice::new(self.seed, &format!("{endpoint:?} {is_answer}"), met.requests);
        let strikes = met.row < CHANCE_ROW_MAX && dice.chance_permille(permille);
        met.row = if strikes { met.row + 1 } else { 0 };
        strikes.then_some(dice)
    }
}

impl Quirk for Chance {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        let mut dice = self.strike(request.endpoint(), false, REFUSED_PERMILLE)?;
        let status = dice.pick(&[429, 500, 502, 503, 504, 0]);
        let mut reply = Reply::outcome(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), "transient", "injected fault");
        if status == 0 {
            reply.delivery = Delivery::Reset;
        }
        match dice.weighted(&[(2, 0), (2, 1), (1, 2), (1, 3)]) {
            0 => {}
            1 => reply.set(header::RETRY_AFTER, "0"),
            2 => reply.set(header::RETRY_AFTER, "1"),
            _ => reply.set(header::RETRY_AFTER, http_date(scene.now())),
        }
        Some(reply)
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        let Some(mut dice) = self.strike(sent.endpoint(), true, SPOILED_PERMILLE) else { return };
        if dice.chance(50) {
            reply.delay = Duration::from_millis(dice.between(1, STALL_MS_MAX).unsigned_abs());
        } else {
            let length = i64::try_from(reply.body().len()).unwrap_or(i64::MAX);
            reply.delivery = Delivery::Cut(usize::try_from(dice.between(1, length - 1)).unwrap_or(1));
        }
    }

    fn skew(&self) -> SignedDuration {
        SignedDuration::from_secs(Dice::new(self.seed, "clock", 0).between(-SKEW_SECONDS_MAX, SKEW_SECONDS_MAX))
    }
}
