//! What servers may do by the Bulk Data guide, and what they do beside it: B-02 to B-22, Q-44, Q-82.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderName, Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::reply::{Delivery, Reply, outcome};
use super::super::request::{Endpoint, Incoming};
use super::export::{Turn, edit_manifest, files_of, is_begun, is_file, is_own_file, ndjson, own_file};
use super::{Quirk, Scenario, Scene};

const STATUS_OF_EXPORT: HeaderName = HeaderName::from_static("x-export-status");
const PROGRESS: HeaderName = HeaderName::from_static("x-progress");

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario { name: "q_82", says: "exports take `_since`, and do not heed it", make: || Box::new(UnheededSince) },
    Scenario { name: "b_02", says: "the status of an export is told in a header of its own, and the answer's is 200", make: || Box::new(OwnStatus) },
    Scenario {
        name: "b_03",
        says: "of `_outputFormat`, `_since` and `_type` one after the other is refused (400), and then ignored, each by two exports",
        make: || Box::new(PickyParameters::default()),
    },
    Scenario {
        name: "b_07",
        says: "an export's progress is told in ten thousand characters, in none, or in such as no text has",
        make: || Box::new(OddProgress::default()),
    },
    Scenario {
        name: "b_08",
        says: "four questions for an export's status fail (500, 503, HTML, no answer); the second export itself fails",
        make: || Box::new(FailingPolls::default()),
    },
    Scenario { name: "b_10", says: "an export's time is five minutes before it was begun", make: || Box::new(EarlierTime) },
    Scenario {
        name: "b_11",
        says: "one export after the other has an information, a warning, an error and a fatal error to tell",
        make: || Box::new(Messages::default()),
    },
    Scenario {
        name: "b_12",
        says: "the second export says that a resource was deleted which it delivers, and the fourth that it was, which it was not",
        make: || Box::new(Conflict::default()),
    },
    Scenario { name: "b_13", says: "the last part of a manifest leads to its second part", make: || Box::new(CircularParts) },
    Scenario {
        name: "b_14",
        says: "files of one export after the other: at home and with the token, at home and without, elsewhere and without, elsewhere and with one",
        make: || Box::new(FileHosts::default()),
    },
    Scenario { name: "b_15", says: "files come plain, compressed, compressed twice, and each called otherwise", make: || Box::new(Encodings) },
    Scenario {
        name: "b_16",
        says: "the addresses of files are good for three downloads (then 403 or 404); the manifest gives fresh ones",
        make: || Box::new(ShortAddresses::default()),
    },
    Scenario { name: "b_19", says: "patients have photographs at absolute addresses, here and elsewhere", make: || Box::new(Photographs) },
    Scenario { name: "b_20", says: "an export brings Practitioner, Organization and Provenance unasked", make: || Box::new(Unasked) },
    Scenario { name: "b_22", says: "files have a byte order mark, CRLF, no last line end, or lines padded with blanks", make: || Box::new(LineForms) },
    Scenario {
        name: "q_44",
        says: "`_type` may stand once, and a comma within a filter of `_typeFilter` is `%2C` or `\\,`; the second kick-off with filters ignores them, the next two are refused (400), and the export of the fifth fails",
        make: || Box::new(PickyFilters::default()),
    },
];

fn is_poll(request: &Incoming) -> bool {
    request.endpoint() == Endpoint::Status && request.method == Method::GET
}

/// B-02.
struct OwnStatus;

impl Quirk for OwnStatus {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_begun(sent, reply) {
            reply.set(HeaderName::from_static("preference-applied"), "respond-async, separate-export-status");
        } else if is_poll(sent) {
            reply.set(STATUS_OF_EXPORT, reply.status.to_string());
            reply.status = StatusCode::OK;
        }
    }
}

/// B-03.
#[derive(Default)]
struct PickyParameters {
    exports: Turn,
}

impl Quirk for PickyParameters {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::KickOff {
            return None;
        }
        let exports = self.exports.last();
        let name = ["_outputFormat", "_since", "_type"].get(usize::try_from(exports / 4).unwrap_or(0))?;
        request.parameter(name)?;
        if exports % 4 < 2 {
            return Some(Reply::outcome(StatusCode::BAD_REQUEST, "not-supported", &format!("`{name}` is not supported")));
        }
        request.take(name);
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_begun(sent, reply) {
            self.exports.next();
        }
    }
}

///
#[derive(Default)]
struct PickyFilters {
    turn: Turn,
    /// The status of the export that fails, once it is known.
    failing: Mutex<Option<String>>,
}

impl PickyFilters {
    /// `_typeFilter` with every comma that is no separator encoded, as the honest server reads it.
    fn read(value: &str) -> Option<String> {
        let value = value.replace("\\,", "%2C");
        let is_search = |part: &str| part.split_once('?').is_some_and(|(kind, _)| kind.starts_with(|first: char| first.is_ascii_uppercase()));
        value.split(',').all(is_search).then_some(value)
    }
}

impl Quirk for PickyFilters {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let refuse = |status, text| Some(Reply::outcome(status, "invalid", text));
        if request.endpoint() == Endpoint::Status
            && self
                .failing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .is_some_and(|failing| request.path.ends_with(failing))
        {
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the export failed");
        }
        if request.endpoint() != Endpoint::KickOff || request.method != Method::GET {
            return None;
        }
        let query = request.query.clone().unwrap_or_default();
        if query.matches("_type=").count() > 1 {
            return refuse(StatusCode::BAD_REQUEST, "`_type` is there twice");
        }
        let Some(filters) = PickyFilters::read(&request.take("_typeFilter")?) else {
            return refuse(StatusCode::BAD_REQUEST, "`_typeFilter` is not a list of searches");
        };
        match self.turn.next() {
            2 => return None,
            3 | 4 => return refuse(StatusCode::BAD_REQUEST, "`_typeFilter` is not supported"),
            _ => request.add("_typeFilter", &filters),
        }
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_begun(sent, reply) && sent.parameter("_typeFilter").is_some() && self.turn.last() == 5 {
            let location = reply.value(header::CONTENT_LOCATION).unwrap_or_default();
            *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = location.rsplit('/').next().map(str::to_owned);
        }
    }
}

/// B-07.
#[derive(Default)]
struct OddProgress {
    turn: Turn,
}

impl Quirk for OddProgress {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_poll(sent) && reply.status == StatusCode::ACCEPTED {
            reply.remove(header::RETRY_AFTER);
            match self.turn.next() % 3 {
                0 => reply.remove(PROGRESS),
                1 => reply.set(PROGRESS, "canary 50 % ".repeat(850)),
                _ => reply.set(PROGRESS, "canary\t\u{e9}\u{9b}31m ../../etc <script>"),
            }
        }
    }
}

/// B-08.
#[derive(Default)]
struct FailingPolls {
    exports: Turn,
    turn: Turn,
}

impl Quirk for FailingPolls {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if !is_poll(request) {
            return None;
        }
        if self.exports.last() == 2 {
            return Some(Reply::outcome(StatusCode::INTERNAL_SERVER_ERROR, "processing", "canary: the export failed"));
        }
        match self.turn.next() {
            1 => Some(Reply::outcome(StatusCode::INTERNAL_SERVER_ERROR, "transient", "try again")),
            2 => Some(Reply::json(StatusCode::SERVICE_UNAVAILABLE, "text/html", "<html>Service unavailable</html>")),
            3 => Some(Reply::json(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "java.lang.NullPointerException")),
            4 => {
                let mut reply = Reply::empty(StatusCode::ACCEPTED);
                reply.delivery = Delivery::Reset;
                Some(reply)
            }
            _ => None,
        }
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if is_begun(sent, reply) {
            self.exports.next();
        }
    }
}

/// B-10.
struct EarlierTime;

impl Quirk for EarlierTime {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        edit_manifest(sent, reply, |manifest| {
            let time = manifest.get("transactionTime").and_then(Value::as_str).and_then(|time| time.parse::<Timestamp>().ok());
            let earlier = time.and_then(|time| time.checked_sub(SignedDuration::from_mins(5)).ok());
            manifest["transactionTime"] = earlier.map(|time| time.to_string()).into();
        });
    }
}

/// B-11.
#[derive(Default)]
struct Messages {
    exports: Turn,
}

impl Quirk for Messages {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let severity = ["information", "warning", "error", "fatal"]
            .get(usize::try_from(self.exports.last()).unwrap_or(0).saturating_sub(1))
            .unwrap_or(&"information");
        is_own_file(request, "messages").then(|| ndjson(outcome("information", "informational", "canary") + "\n" + &outcome(severity, "processing", "canary") + "\n"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if is_begun(sent, reply) {
            self.exports.next();
        }
        edit_manifest(sent, reply, |manifest| files_of(manifest, "error").push(json!({"type": "OperationOutcome", "url": own_file(scene, "messages"), "count": 2})));
    }
}

/// B-12.
#[derive(Default)]
struct Conflict {
    exports: Turn,
    /// A resource of the last file that was served.
    delivered: Mutex<String>,
    /// One of the first file that was, which no later export needs to deliver.
    old: Mutex<String>,
}

impl Quirk for Conflict {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let whose = if self.exports.last() == 4 { &self.old } else { &self.delivered };
        let entry = json!({"request": {"method": "DELETE", "url": *whose.lock().unwrap_or_else(PoisonError::into_inner)}});
        is_own_file(request, "conflict").then(|| ndjson(json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).to_string() + "\n"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if is_begun(sent, reply) {
            self.exports.next();
        }
        let first_line = reply.body().split(|byte| *byte == b'\n').next().unwrap_or_default();
        let resource: Option<Value> = serde_json::from_slice(first_line).ok().filter(|_| is_file(sent, reply));
        if let Some((kind, id)) = resource.as_ref().and_then(|resource| Some((resource.get("resourceType")?.as_str()?, resource.get("id")?.as_str()?))) {
            *self.delivered.lock().unwrap_or_else(PoisonError::into_inner) = format!("{kind}/{id}");
            let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
            if old.is_empty() {
                *old = format!("{kind}/{id}");
            }
        }
        if matches!(self.exports.last(), 2 | 4) {
            edit_manifest(sent, reply, |manifest| files_of(manifest, "deleted").push(json!({"type": "Bundle", "url": own_file(scene, "conflict"), "count": 1})));
        }
    }
}

/// B-13.
struct CircularParts;

impl Quirk for CircularParts {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        edit_manifest(sent, reply, |manifest| {
            if manifest.get("link").is_none() {
                manifest["link"] = json!([{"relation": "next", "url": format!("{}{}?part=1", scene.origin, sent.path)}]);
            }
        });
    }
}

/// B-14.
#[derive(Default)]
struct FileHosts {
    exports: Turn,
}

impl Quirk for FileHosts {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::File {
            return None;
        }
        let has_token = request.headers.contains_key(header::AUTHORIZATION);
        match self.exports.last() {
            2 if has_token => Some(Reply::outcome(StatusCode::BAD_REQUEST, "security", "no token is wanted here")),
            2 => {
                request.is_elsewhere = true;
                None
            }
            4 => Some(Reply::outcome(StatusCode::UNAUTHORIZED, "login", "a token is wanted here")),
            _ => None,
        }
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if is_begun(sent, reply) {
            self.exports.next();
        }
        let turn = self.exports.last();
        edit_manifest(sent, reply, |manifest| {
            manifest["requiresAccessToken"] = match turn {
                1 => true.into(),
                2 => "false".into(),
                3 => false.into(),
                _ => "true".into(),
            };
            for list in ["output", "deleted"].into_iter().filter(|_| turn > 2) {
                for file in files_of(manifest, list) {
                    file["url"] = file.get("url").and_then(Value::as_str).unwrap_or("").replacen(&scene.origin, &scene.elsewhere, 1).into();
                }
            }
        });
    }
}

/// B-15.
struct Encodings;

impl Quirk for Encodings {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if !is_file(sent, reply) {
            return;
        }
        let number: usize = sent.path.rsplit('/').next().and_then(|name| name.split('.').next()?.parse().ok()).unwrap_or(0);
        let plain = reply.body().to_vec();
        let (body, label) = match number % 6 {
            0 => (plain, None),
            1 => (gzip(&plain), Some("gzip")),
            2 => (gzip(&plain), None),
            3 => (plain, Some("gzip")),
            4 => (gzip(&gzip(&plain)), Some("gzip")),
            _ => (gzip(&plain), Some("identity")),
        };
        reply.uncompressed();
        reply.set_body(body);
        if let Some(label) = label {
            reply.set(header::CONTENT_ENCODING, label);
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// B-16.
#[derive(Default)]
struct ShortAddresses {
    manifests: Turn,
    /// Downloads by the addresses of each manifest.
    downloads: Mutex<HashMap<String, u32>>,
}

impl Quirk for ShortAddresses {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::File {
            return None;
        }
        let ticket = request.take("ticket")?;
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let times = downloads.entry(ticket).or_default();
        *times += 1;
        match (*times > 3, request.is_elsewhere) {
            (false, _) => None,
            (true, true) => Some(Reply::json(StatusCode::FORBIDDEN, "application/xml", "<Error>Request has expired</Error>")),
            (true, false) => Some(Reply::json(StatusCode::NOT_FOUND, "text/plain", "expired")),
        }
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        edit_manifest(sent, reply, |manifest| {
            let number = self.manifests.next();
            // Every other manifest names a file store.
            let origin = if number.is_multiple_of(2) { &scene.elsewhere } else { &scene.origin };
            for file in files_of(manifest, "output") {
                let url = file.get("url").and_then(Value::as_str).unwrap_or("").replacen(&scene.origin, origin, 1);
                file["url"] = format!("{url}?ticket={number}").into();
            }
        });
    }
}

/// B-19.
struct Photographs;

impl Quirk for Photographs {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if is_file(sent, reply) {
            reply.edit_resources(|resource| {
                if resource.get("resourceType").and_then(Value::as_str) == Some("Patient") {
                    resource["photo"] = json!([{"contentType": "image/png", "url": format!("{}/photograph", scene.base)}, {"url": format!("{}/photograph", scene.elsewhere)}]);
                }
            });
        }
    }
}

/// B-20.
struct Unasked;

impl Quirk for Unasked {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() == Endpoint::KickOff
            && let Some(types) = request.take("_type")
        {
            request.add("_type", &format!("{types},Practitioner,Organization"));
        }
        is_own_file(request, "unasked").then(|| {
            ndjson(
                (0..5)
                    .map(|number| json!({"resourceType": "Provenance", "id": format!("unasked-{number}")}).to_string() + "\n")
                    .collect(),
            )
        })
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        // One file is called what it is, the other is not.
        let file = |kind: &str| json!({"type": kind, "url": own_file(scene, "unasked"), "count": 5});
        edit_manifest(sent, reply, |manifest| files_of(manifest, "output").extend([file("Provenance"), file("Observation")]));
    }
}

/// B-22.
struct LineForms;

impl Quirk for LineForms {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if !is_file(sent, reply) {
            return;
        }
        let number: usize = sent.path.rsplit('/').next().and_then(|name| name.split('.').next()?.parse().ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(reply.body()).into_owned();
        reply.set_body(match number % 4 {
            0 => format!("\u{feff}{text}"),
            1 => text.replace('\n', "\r\n"),
            2 => text.trim_end().to_owned(),
            _ => text.lines().map(|line| format!(" \t{line}  \n\r\n")).collect(),
        });
    }
}

///
struct UnheededSince;

impl Quirk for UnheededSince {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() == Endpoint::KickOff {
            request.take("_since");
        }
        None
    }
}
