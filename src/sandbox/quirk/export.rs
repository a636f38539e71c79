//! Quirks of the life of an export.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use axum::http::{Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::reply::{Delivery, Reply};
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "q_35",
        says: "the answer to the first kick-off is late and gets lost, its export goes on, and another is refused (429) three times before it ends",
        make: || Box::new(Orphan::default()),
    },
    Scenario {
        name: "q_36",
        says: "an export is answered with the old one if it is asked for in the same words; the third one has empty files and the fourth none",
        make: || Box::new(OldExport::default()),
    },
    Scenario {
        name: "q_37",
        says: "the status of an export says to come back in five hours, and once (429) in two",
        make: || Box::new(HoursToWait::default()),
    },
    Scenario { name: "q_38", says: "every export but the first takes twenty days", make: || Box::new(Weeks::default()) },
    Scenario {
        name: "q_39",
        says: "a status that is asked for within ten seconds of the last time is refused (429), and the third time the export is gone",
        make: || Box::new(Impatient::default()),
    },
    Scenario { name: "q_40", says: "an export is gone (410) two hours after it was ready", make: || Box::new(ShortLived::default()) },
    Scenario {
        name: "q_41",
        says: "twenty thousand files of one resource each, and one request for a file in forty is refused (429 or 502)",
        make: || Box::new(TinyFiles::default()),
    },
    Scenario {
        name: "q_42",
        says: "the deletion of an export is answered with 404, 405, 500, 501, 200, 204 or not at all",
        make: || Box::new(OddDeletion::default()),
    },
    Scenario {
        name: "q_43",
        says: "the list of messages in the manifest is absent, empty, or called `outcome` and holds an error",
        make: || Box::new(MessageLists::default()),
    },
    Scenario {
        name: "q_45",
        says: "an export refuses types that are of no patient, and leaves out encounters that something else refers to",
        make: || Box::new(PatientsOnly::default()),
    },
    Scenario {
        name: "q_46",
        says: "a group has another group among its members and its export leaves that one's out, and of changes shows those of patients only who changed themselves",
        make: || Box::new(LeavesOut::default()),
    },
    Scenario { name: "q_47", says: "files hold each resource twice and an older version of it, and come twice themselves", make: || Box::new(Copies) },
    Scenario { name: "q_48", says: "files begin with blank lines and have others between", make: || Box::new(BlankLines) },
    Scenario { name: "q_49", says: "every tenth line of the files of observations breaks off or is no JSON", make: || Box::new(BadLines) },
    Scenario {
        name: "q_50",
        says: "each file arrives whole at its fourth download only: before, the connection breaks off, lines are missing, or the last line is cut",
        make: || Box::new(TruncatedDownloads::default()),
    },
    Scenario {
        name: "q_52",
        says: "the counts of the files of conditions and procedures are wrong, and a file of a type that was not asked for is among the others",
        make: || Box::new(WrongCounts),
    },
    Scenario { name: "q_53", says: "every later export says that two hundred thousand resources were deleted", make: || Box::new(Churn) },
    Scenario {
        name: "q_54",
        says: "files cannot be had (500, 503 or HTML) for twelve minutes, and from the second export on never",
        make: || Box::new(DownForMinutes::default()),
    },
    Scenario { name: "q_55", says: "every third connection is dropped before the answer", make: || Box::new(Dropped::default()) },
    Scenario { name: "q_56", says: "an export is answered with 404 and plain text", make: || Box::new(PlainNotFound) },
    Scenario {
        name: "q_57",
        says: "the address of an export's status is relative to the host, the base or the kick-off, in another header, or at another origin",
        make: || Box::new(StatusAddress::default()),
    },
];

/// What comes one after the other.
#[derive(Default)]
pub(super) struct Turn(Mutex<u32>);

impl Turn {
    /// 1, 2, 3 …
    pub(super) fn next(&self) -> u32 {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *turn += 1;
        *turn
    }

    /// What the last one was; 0 at first.
    pub(super) fn last(&self) -> u32 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a kick-off was accepted.
pub(super) fn is_begun(sent: &Incoming, reply: &Reply) -> bool {
    sent.endpoint() == Endpoint::KickOff && reply.status == StatusCode::ACCEPTED
}

/// Whether this is a file that is served.
pub(super) fn is_file(sent: &Incoming, reply: &Reply) -> bool {
    sent.endpoint() == Endpoint::File && reply.status == StatusCode::OK
}

/// Changes a manifest; nothing happens to any other answer.
pub(super) fn edit_manifest(sent: &Incoming, reply: &mut Reply, change: impl FnOnce(&mut Value)) {
    if sent.endpoint() == Endpoint::Status && sent.method == Method::GET && reply.status == StatusCode::OK {
        reply.edit(change);
    }
}

/// The files of one list of a manifest.
pub(super) fn files_of<'a>(manifest: &'a mut Value, list: &str) -> &'a mut Vec<Value> {
    if !manifest.get(list).is_some_and(Value::is_array) {
        manifest[list] = json!([]);
    }
    manifest.get_mut(list).and_then(Value::as_array_mut).expect("INVARIANT: it was just made")
}

/// Changes the lines of a file.
fn edit_lines(sent: &Incoming, reply: &mut Reply, change: impl FnMut((usize, &str)) -> Vec<String>) {
    if is_file(sent, reply) {
        let text = String::from_utf8_lossy(reply.body()).into_owned();
        reply.set_body(text.lines().enumerate().flat_map(change).map(|line| line + "\n").collect::<String>());
    }
}

fn busy(seconds: &str) -> Reply {
    Reply::outcome(StatusCode::TOO_MANY_REQUESTS, "throttled", "too many requests").with(header::RETRY_AFTER, seconds)
}

///
#[derive(Default)]
struct Orphan {
    turn: Turn,
}

impl Quirk for Orphan {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let refused = request.endpoint() == Endpoint::KickOff && matches!(self.turn.next(), 2..=4);
        refused.then(|| busy("600"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_begun(sent, reply) && self.turn.last() == 1 {
            reply.delay = std::time::Duration::from_millis(400);
            reply.delivery = Delivery::Reset;
        }
    }
}

///
#[derive(Default)]
struct OldExport {
    /// Addresses of the status, by the words of the kick-off.
    known: Mutex<HashMap<String, String>>,
}

impl OldExport {
    /// Which export it is that a path belongs to: 0, 1, 2 …
    fn number(&self, path: &str) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let id = path.rsplit('/').find(|part| known.values().any(|location| location.ends_with(part))).unwrap_or("");
        known.get(&format!("number {id}")).and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Quirk for OldExport {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match request.endpoint() {
            Endpoint::KickOff => Some(Reply::empty(StatusCode::ACCEPTED).with(header::CONTENT_LOCATION, known.get(&request.target())?)),
            Endpoint::Status if request.method == Method::DELETE => Some(Reply::empty(StatusCode::ACCEPTED)),
            _ => None,
        }
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_begun(sent, reply) {
            let location = reply.value(header::CONTENT_LOCATION).unwrap_or_default().to_owned();
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let number = known.len() / 2;
            known.insert(format!("number {}", location.rsplit('/').next().unwrap_or("")), number.to_string());
            known.insert(sent.target(), location);
            return;
        }
        match self.number(&sent.path) {
            2 if is_file(sent, reply) => reply.set_body(""),
            2 => edit_manifest(sent, reply, |manifest| {
                files_of(manifest, "output").iter_mut().filter_map(Value::as_object_mut).for_each(|file| drop(file.remove("count")));
            }),
            3 => edit_manifest(sent, reply, |manifest| files_of(manifest, "output").clear()),
            _ => {}
        }
    }
}

///
#[derive(Default)]
struct HoursToWait {
    turn: Turn,
}

impl Quirk for HoursToWait {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Status || request.method != Method::GET {
            return None;
        }
        match self.turn.next() {
            1..=3 => Some(Reply::empty(StatusCode::ACCEPTED).with(header::RETRY_AFTER, "18000")),
            4 => Some(busy("7200")),
            _ => None,
        }
    }
}

///
#[derive(Default)]
struct Weeks {
    begun: Mutex<Vec<Timestamp>>,
}

impl Quirk for Weeks {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let last = begun.last().filter(|_| begun.len() > 1)?;
        let is_asked = request.endpoint() == Endpoint::Status && request.method == Method::GET;
        let is_early = scene.now().duration_since(*last) < SignedDuration::from_hours(20 * 24);
        (is_asked && is_early).then(|| Reply::empty(StatusCode::ACCEPTED).with(header::RETRY_AFTER, "3600"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if is_begun(sent, reply) {
            self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(scene.now());
        }
    }
}

///
#[derive(Default)]
struct Impatient {
    /// By the status's address: when it was asked for, and how often too early.
    asked: Mutex<HashMap<String, (Timestamp, u32)>>,
}

impl Quirk for Impatient {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Status || request.method != Method::GET {
            return None;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !asked.contains_key(&request.path);
        let (last, early) = asked.entry(request.path.clone()).or_insert((scene.now(), 0));
        let is_early = !first && scene.now().duration_since(*last) < SignedDuration::from_secs(10);
        *last = scene.now();
        *early += u32::from(is_early);
        match *early {
            3.. => Some(Reply::outcome(StatusCode::NOT_FOUND, "not-found", "the export was abandoned: it was asked for too often")),
            _ if is_early => Some(busy("10")),
            _ => None,
        }
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.endpoint() == Endpoint::Status && reply.status == StatusCode::ACCEPTED {
            reply.remove(header::RETRY_AFTER);
        }
    }
}

///
#[derive(Default)]
struct ShortLived {
    /// When each export was ready, by its id.
    ready: Mutex<HashMap<String, Timestamp>>,
}

impl Quirk for ShortLived {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        if !matches!(request.endpoint(), Endpoint::Status | Endpoint::File) || request.method != Method::GET {
            return None;
        }
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let since = ready.iter().find(|(id, _)| request.path.contains(id.as_str()))?.1;
        let is_gone = scene.now().duration_since(*since) > SignedDuration::from_hours(2);
        is_gone.then(|| Reply::outcome(StatusCode::GONE, "expired", "the export has expired"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let id = sent.path.rsplit('/').next().unwrap_or("").to_owned();
        edit_manifest(sent, reply, |_| {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert_with(|| scene.now());
        });
    }
}

///
#[derive(Default)]
struct TinyFiles {
    turn: Turn,
}

impl TinyFiles {
    const FILES: usize = 20_000;
}

impl Quirk for TinyFiles {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::File {
            return None;
        }
        request.take("copy");
        match self.turn.next() % 80 {
            40 => Some(busy("0")),
            79 => Some(Reply::json(StatusCode::BAD_GATEWAY, "text/html", "<html>Bad gateway</html>")),
            _ => None,
        }
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        edit_manifest(sent, reply, |manifest| {
            let output = files_of(manifest, "output");
            let lines = output.iter().flat_map(|file| {
                let count = file.get("count").and_then(Value::as_u64).unwrap_or(0);
                (0..count).map(|line| (file.get("type").cloned(), format!("{}?line={line}", file.get("url").and_then(Value::as_str).unwrap_or(""))))
            });
            let lines: Vec<(Option<Value>, String)> = lines.collect();
            *output = lines
                .iter()
                .cycle()
                .take(Self::FILES)
                .enumerate()
                .map(|(copy, (kind, url))| json!({"type": kind, "url": format!("{url}&copy={copy}"), "count": 1}))
                .collect();
        });
        let wanted: Option<usize> = sent.parameter("line").and_then(|line| line.parse().ok());
        if is_file(sent, reply)
            && let Some(wanted) = wanted
        {
            let text = String::from_utf8_lossy(reply.body()).into_owned();
            reply.set_body(text.lines().nth(wanted).unwrap_or("").to_owned() + "\n");
            reply.uncompressed();
        }
    }
}

///
#[derive(Default)]
struct OddDeletion {
    turn: Turn,
}

impl Quirk for OddDeletion {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.method != Method::DELETE {
            return None;
        }
        Some(match self.turn.next() {
            1 => Reply::outcome(StatusCode::NOT_FOUND, "not-found", "there is no such export (any more)"),
            2 => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
            3 => Reply::json(StatusCode::INTERNAL_SERVER_ERROR, "text/html", "<html>Oops</html>"),
            4 => Reply::outcome(StatusCode::NOT_IMPLEMENTED, "not-supported", "no"),
            5 => Reply::json(StatusCode::OK, "text/plain", "deleted"),
            6 => Reply::empty(StatusCode::NO_CONTENT),
            _ => {
                let mut reply = Reply::empty(StatusCode::ACCEPTED);
                reply.delivery = Delivery::Reset;
                reply
            }
        })
    }
}

/// The address of a file that a quirk serves itself.
pub(super) fn own_file(scene: &Scene, name: &str) -> String {
    format!("{}/export-file/quirk/{name}.ndjson", scene.base)
}

/// Whether a file of that name is asked for.
pub(super) fn is_own_file(request: &Incoming, name: &str) -> bool {
    request.path.ends_with(&format!("/export-file/quirk/{name}.ndjson"))
}

pub(super) fn ndjson(text: String) -> Reply {
    Reply::json(StatusCode::OK, "application/fhir+ndjson", text)
}

///
#[derive(Default)]
struct MessageLists {
    turn: Turn,
}

impl Quirk for MessageLists {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        is_own_file(request, "messages").then(|| ndjson(super::super::reply::outcome("error", "processing", "one of them could not be exported") + "\n"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if is_begun(sent, reply) {
            self.turn.next();
        }
        let turn = self.turn.last();
        edit_manifest(sent, reply, |manifest| {
            let Some(members) = manifest.as_object_mut() else { return };
            members.remove("error");
            match turn {
                1 => {}
                2 => manifest["error"] = json!([]),
                _ => manifest["outcome"] = json!([{"type": "OperationOutcome", "url": own_file(scene, "messages")}]),
            }
        });
    }
}

///
#[derive(Default)]
struct PatientsOnly {
    /// Encounters to which something served refers.
    named: Mutex<BTreeSet<String>>,
}

impl PatientsOnly {
    const OTHERS: [&str; 4] = ["Location", "Organization", "Practitioner", "Device"];
}

impl Quirk for PatientsOnly {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let types = request.parameter("_type").filter(|_| request.endpoint() == Endpoint::KickOff)?;
        let refused = types.split(',').find(|name| Self::OTHERS.contains(name))?;
        Some(Reply::outcome(StatusCode::BAD_REQUEST, "processing", &format!("HAPI-0512: unknown resource type {refused} in this context")))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        // Encounters last, since by then it is known which are referred to.
        edit_manifest(sent, reply, |manifest| {
            let output = files_of(manifest, "output");
            output.iter_mut().filter_map(Value::as_object_mut).for_each(|file| drop(file.remove("count")));
            output.sort_by_key(|file| file.get("type").and_then(Value::as_str) == Some("Encounter"));
        });
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        edit_lines(sent, reply, |(_, line)| {
            let resource: Value = serde_json::from_str(line).unwrap_or_default();
            let text = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
            named.insert(text("/encounter/reference"));
            let is_left_out = text("/resourceType") == "Encounter" && named.contains(&format!("Encounter/{}", text("/id")));
            if is_left_out { Vec::new() } else { vec![line.to_owned()] }
        });
    }
}

///
#[derive(Default)]
struct LeavesOut {
    /// Members who are moved to the group within.
    moved: Mutex<BTreeSet<String>>,
    /// Whether changes are exported.
    changes: Mutex<bool>,
}

impl LeavesOut {
    const WITHIN: &'static str = "within";

    fn is_moved(patient: &str) -> bool {
        patient.bytes().map(u32::from).sum::<u32>().is_multiple_of(3)
    }

    /// The few whose own record is said to have changed.
    fn has_changed(patient: &str) -> bool {
        patient.bytes().map(u32::from).sum::<u32>() % 6 == 1
    }
}

/// The patient whom a line is about, among those that exports are about.
fn patient_of(resource: &Value) -> Option<&str> {
    if resource.get("resourceType")?.as_str()? == "Patient" {
        return resource.get("id")?.as_str();
    }
    let reference = ["subject", "patient"].iter().find_map(|name| resource.get(*name)?.get("reference")?.as_str());
    reference?.strip_prefix("Patient/")
}

impl Quirk for LeavesOut {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() == Endpoint::KickOff {
            *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = request.take("_since").is_some();
        }
        let is_within = request.endpoint() == Endpoint::Read && request.path.ends_with(&format!("/Group/{}", Self::WITHIN));
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let members: Vec<Value> = moved.iter().map(|patient| json!({"entity": {"reference": format!("Patient/{patient}")}})).collect();
        let group = json!({"resourceType": "Group", "id": Self::WITHIN, "type": "person", "actual": true, "member": members});
        is_within.then(|| Reply::json(StatusCode::OK, super::super::reply::FHIR_JSON, group.to_string()))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.endpoint() == Endpoint::Read && sent.kind() == Some("Group") && reply.status == StatusCode::OK {
            let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            reply.edit(|group| {
                let members = files_of(group, "member");
                members.retain(|member| {
                    let patient = member.pointer("/entity/reference").and_then(Value::as_str).and_then(|reference| reference.strip_prefix("Patient/"));
                    let goes = patient.filter(|patient| Self::is_moved(patient)).map(str::to_owned);
                    goes.is_none_or(|patient| !moved.insert(patient.clone()) && !moved.contains(&patient))
                });
                members.push(json!({"entity": {"reference": format!("Group/{}", Self::WITHIN)}}));
            });
        }
        edit_manifest(sent, reply, |manifest| files_of(manifest, "output").iter_mut().filter_map(Value::as_object_mut).for_each(|file| drop(file.remove("count"))));
        let changes = *self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        edit_lines(sent, reply, |(_, line)| {
            let resource: Value = serde_json::from_str(line).unwrap_or_default();
            let is_left_out = patient_of(&resource).is_some_and(|patient| Self::is_moved(patient) || changes && !Self::has_changed(patient));
            if is_left_out { Vec::new() } else { vec![line.to_owned()] }
        });
    }
}

///
struct Copies;

impl Quirk for Copies {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        request.take("again");
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        edit_manifest(sent, reply, |manifest| {
            let output = files_of(manifest, "output");
            output.iter_mut().for_each(|file| file["count"] = (3 * file.get("count").and_then(Value::as_u64).unwrap_or(0)).into());
            let again: Vec<Value> = output
                .iter()
                .cloned()
                .map(|mut file| {
                    file["url"] = format!("{}?again=1", file.get("url").and_then(Value::as_str).unwrap_or("")).into();
                    file
                })
                .collect();
            output.splice(0..0, again);
        });
        edit_lines(sent, reply, |(_, line)| {
            let mut older: Value = serde_json::from_str(line).unwrap_or_default();
            older["meta"] = json!({"versionId": "0", "lastUpdated": "2001-01-01T00:00:00Z"});
            older["language"] = "en".into();
            vec![line.to_owned(), older.to_string(), line.to_owned()]
        });
    }
}

///
struct BlankLines;

impl Quirk for BlankLines {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        edit_lines(sent, reply, |(number, line)| match number % 3 {
            0 => vec![String::new(), "  \t".to_owned(), line.to_owned()],
            _ => vec![line.to_owned(), String::new()],
        });
    }
}

///
struct BadLines;

impl Quirk for BadLines {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        edit_lines(sent, reply, |(number, line)| {
            let is_observation = line.contains("\"resourceType\":\"Observation\"");
            vec![match number % 10 {
                4 if is_observation && number % 20 == 4 => line.get(..line.len() / 2).unwrap_or("{").to_owned(),
                4 if is_observation => "Internal error: canary of a stack trace".to_owned(),
                _ => line.to_owned(),
            }]
        });
    }
}

///
#[derive(Default)]
struct TruncatedDownloads {
    /// Downloads of each file.
    downloads: Mutex<HashMap<String, u32>>,
}

impl Quirk for TruncatedDownloads {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if !is_file(sent, reply) {
            return;
        }
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let times = downloads.entry(sent.path.clone()).or_default();
        *times += 1;
        let body = reply.body();
        let last_line = body.strip_suffix(b"\n").and_then(|body| body.iter().rposition(|byte| *byte == b'\n')).map_or(0, |at| at + 1);
        match *times {
            1 => reply.delivery = Delivery::Cut(40),
            2 => reply.set_body(body.get(..last_line).unwrap_or_default().to_vec()),
            3 => reply.set_body(body.get(..last_line + (body.len() - last_line) / 2).unwrap_or_default().to_vec()),
            _ => {}
        }
    }
}

///
struct WrongCounts;

impl Quirk for WrongCounts {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        is_own_file(request, "provenance").then(|| ndjson(json!({"resourceType": "Provenance", "id": "unasked"}).to_string() + "\n"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        edit_manifest(sent, reply, |manifest| {
            let output = files_of(manifest, "output");
            for file in output.iter_mut() {
                let count = file.get("count").and_then(Value::as_u64).unwrap_or(0);
                match file.get("type").and_then(Value::as_str) {
                    Some("Condition") => file["count"] = (count + 1).into(),
                    Some("Procedure") => file["count"] = count.saturating_sub(1).into(),
                    _ => {}
                }
            }
            output.push(json!({"type": "Provenance", "url": own_file(scene, "provenance"), "count": 1}));
        });
    }
}

///
struct Churn;

impl Churn {
    const DELETED: usize = 200_000;
    const ON_A_LINE: usize = 50_000;
}

impl Quirk for Churn {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let line = |line: usize| {
            let entry = |number: usize| json!({"request": {"method": "DELETE", "url": format!("Observation/churned-{line}-{number}")}});
            json!({"resourceType": "Bundle", "type": "transaction", "entry": (0..Self::ON_A_LINE).map(entry).collect::<Vec<_>>()}).to_string() + "\n"
        };
        is_own_file(request, "churn").then(|| ndjson((0..Self::DELETED / Self::ON_A_LINE).map(line).collect()))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        edit_manifest(sent, reply, |manifest| {
            if manifest.get("request").and_then(Value::as_str).is_some_and(|request| request.contains("_since")) {
                files_of(manifest, "deleted").push(json!({"type": "Bundle", "url": own_file(scene, "churn"), "count": Self::DELETED / Self::ON_A_LINE}));
            }
        });
    }
}

///
#[derive(Default)]
struct DownForMinutes {
    exports: Turn,
    turn: Turn,
    since: Mutex<Option<Timestamp>>,
}

impl Quirk for DownForMinutes {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::File {
            return None;
        }
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| scene.now());
        let is_down = self.exports.last() > 1 || scene.now().duration_since(since) < SignedDuration::from_mins(12);
        is_down.then(|| match self.turn.next() % 3 {
            0 => Reply::outcome(StatusCode::INTERNAL_SERVER_ERROR, "exception", "try again"),
            1 => Reply::outcome(StatusCode::SERVICE_UNAVAILABLE, "transient", "restarting"),
            _ => Reply::json(StatusCode::BAD_GATEWAY, "text/html", "<html>Bad gateway</html>"),
        })
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_begun(sent, reply) {
            self.exports.next();
        }
    }
}

///
#[derive(Default)]
struct Dropped {
    turns: [Turn; 4],
}

impl Quirk for Dropped {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        let turn = match sent.endpoint() {
            Endpoint::KickOff => &self.turns[0],
            Endpoint::Status => &self.turns[1],
            Endpoint::File => &self.turns[2],
            Endpoint::Search | Endpoint::Page | Endpoint::Read => &self.turns[3],
            _ => return,
        };
        if turn.next() % 3 == 1 {
            reply.delivery = Delivery::Reset;
        }
    }
}

///
struct PlainNotFound;

impl Quirk for PlainNotFound {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        (request.endpoint() == Endpoint::KickOff).then(|| Reply::json(StatusCode::NOT_FOUND, "text/plain", "Resource not found: canary of Jane Doe"))
    }
}

///
#[derive(Default)]
struct StatusAddress {
    turn: Turn,
}

impl Quirk for StatusAddress {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if !is_begun(sent, reply) {
            return;
        }
        let location = reply.value(header::CONTENT_LOCATION).unwrap_or_default().to_owned();
        let id = location.rsplit('/').next().unwrap_or("").to_owned();
        match self.turn.next() {
            1 => reply.set(header::CONTENT_LOCATION, location.strip_prefix(&scene.origin).unwrap_or("")),
            2 => reply.set(header::CONTENT_LOCATION, format!("export-status/{id}")),
            3 => reply.set(header::CONTENT_LOCATION, format!("../export-status/{id}")),
            4 => {
                reply.remove(header::CONTENT_LOCATION);
                reply.set(header::LOCATION, location);
            }
            _ => reply.set(header::CONTENT_LOCATION, location.replacen(&scene.origin, &scene.elsewhere, 1)),
        }
    }
}
