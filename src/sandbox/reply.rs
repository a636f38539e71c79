//! Answers of the server, and the small print of HTTP.

use std::io::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// Media type of FHIR JSON.
pub(super) const FHIR_JSON: &str = "application/fhir+json; charset=utf-8";

/// By then the beginning of an answer that will break off is on its way.
const FLUSHED_AFTER: Duration = Duration::from_millis(30);

/// How much of an answer reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    /// The connection is reset before the first byte.
    Reset,
    /// The connection is reset after so many bytes of the body.
    Cut(usize),
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
    /// Whether the body is compressed on its way out.
    compressed: bool,
    /// How long the client waits for it.
    pub(super) delay: Duration,
    pub(super) delivery: Delivery,
}

impl Reply {
    /// An answer with a body.
    pub(super) fn json(status: StatusCode, media_type: &'static str, body: impl Into<Vec<u8>>) -> Reply {
        Reply { body: body.into(), ..Reply::empty(status) }.with(header::CONTENT_TYPE, media_type)
    }

    /// An answer without a body.
    pub(super) fn empty(status: StatusCode) -> Reply {
        Reply { status, headers: Vec::new(), body: Vec::new(), compressed: false, delay: Duration::ZERO, delivery: Delivery::Whole }
    }

    /// An OperationOutcome with one issue.
    pub(super) fn outcome(status: StatusCode, code: &str, text: &str) -> Reply {
        Reply::json(status, FHIR_JSON, outcome("error", code, text))
    }

    /// The same answer with one more header.
    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    /// Gives a header one value.
    pub(super) fn set(&mut self, name: HeaderName, value: impl Into<String>) {
        self.headers.retain(|(own, _)| *own != name);
        self.headers.push((name, value.into()));
    }

    /// Compresses the body on its way out.
    pub(super) fn gzip(mut self) -> Reply {
        self.compressed = true;
        self
    }

    /// The value of a header.
    pub(super) fn value(&self, name: HeaderName) -> Option<&str> {
        self.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    /// Takes a header away.
    pub(super) fn remove(&mut self, name: HeaderName) {
        self.headers.retain(|(own, _)| *own != name);
    }

    /// Sends the body as it is.
    pub(super) fn uncompressed(&mut self) {
        self.compressed = false;
    }

    /// The body, before compression.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Replaces the body.
    pub(super) fn set_body(&mut self, body: impl Into<Vec<u8>>) {
        self.body = body.into();
    }

    /// Whether the body is NDJSON.
    pub(super) fn is_ndjson(&self) -> bool {
        self.headers.iter().any(|(name, value)| *name == header::CONTENT_TYPE && value.contains("ndjson"))
    }

    /// Whether this is a page of a search.
    pub(super) fn is_searchset(&self) -> bool {
        self.status == StatusCode::OK && self.body.starts_with(br#"{"resourceType":"Bundle""#)
    }

    /// Changes a JSON body; nothing happens to any other.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        if let Ok(mut value) = serde_json::from_slice::<Value>(&self.body) {
            change(&mut value);
            self.body = value.to_string().into_bytes();
        }
    }

    /// Changes each resource that the answer carries: read by id, in a searchset, in an export file.
    pub(super) fn edit_resources(&mut self, change: impl Fn(&mut Value)) {
        if self.status != StatusCode::OK {
            return;
        }
        if self.is_ndjson() {
            let text = String::from_utf8_lossy(&self.body);
            self.body = text.lines().flat_map(|line| [edited(line, &change), "\n".to_owned()]).collect::<String>().into_bytes();
            return;
        }
        if !self.is_searchset() {
            return self.edit(|body| {
                if body.get("id").is_some() {
                    change(body);
                }
            });
        }
        self.edit(|page| {
            let entries = page.get_mut("entry").and_then(Value::as_array_mut);
            entries.into_iter().flatten().filter_map(|entry| entry.get_mut("resource")).for_each(change);
        });
    }

    /// Leaves out resources of a searchset or of an export file.
    pub(super) fn retain_resources(&mut self, mut stays: impl FnMut(&Value) -> bool) {
        if self.is_ndjson() {
            let text = String::from_utf8_lossy(&self.body);
            self.body = text
                .lines()
                .filter(|line| serde_json::from_str(line).is_ok_and(|resource| stays(&resource)))
                .flat_map(|line| [line, "\n"])
                .collect::<String>()
                .into_bytes();
        } else if self.is_searchset() {
            self.edit(|page| {
                if let Some(entries) = page.get_mut("entry").and_then(Value::as_array_mut) {
                    entries.retain(|entry| entry.get("resource").is_none_or(&mut stays));
                }
            });
        }
    }

    /// As axum sends it.
    pub(super) fn into_response(mut self) -> Response<Body> {
        if self.compressed {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            if let Ok(compressed) = encoder.write_all(&self.body).and_then(|()| encoder.finish()) {
                self.body = compressed;
                self.headers.push((header::CONTENT_ENCODING, "gzip".to_owned()));
            }
        }
        if self.delivery != Delivery::Whole {
            self.set(header::CONTENT_LENGTH, self.body.len().max(1).to_string());
        }
        let mut response = Response::new(match self.delivery {
            Delivery::Whole => Body::from(self.body),
            Delivery::Reset => broken(Vec::new(), Duration::ZERO),
            Delivery::Cut(bytes) => {
                self.body.truncate(bytes);
                broken(self.body, FLUSHED_AFTER)
            }
        });
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// A body that ends in an error, upon which the connection is closed. An error that comes at once comes before anything
/// was sent.
fn broken(beginning: Vec<u8>, after: Duration) -> Body {
    let end = async move {
        tokio::time::sleep(after).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    };
    let beginning = futures_util::stream::iter((!beginning.is_empty()).then_some(Ok(beginning)));
    Body::from_stream(beginning.chain(futures_util::stream::once(end)))
}

fn edited(line: &str, change: &impl Fn(&mut Value)) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(mut resource) => {
            change(&mut resource);
            resource.to_string()
        }
        Err(_) => line.to_owned(),
    }
}

/// An OperationOutcome as JSON.
pub(super) fn outcome(severity: &str, code: &str, text: &str) -> String {
    let issue = json!({"severity": severity, "code": code, "diagnostics": text});
    json!({"resourceType": "OperationOutcome", "issue": [issue]}).to_string()
}

/// An instant as HTTP writes it.
pub(super) fn http_date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Parameters of a query or a form, decoded, in order.
pub(super) fn form(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// Random bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("INVARIANT: the operating system gives random bytes");
    bytes
}
