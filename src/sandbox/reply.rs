//! Answers of the server, and the small print of HTTP.

use std::io::Write as _;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

/// Media type of FHIR JSON.
pub(super) const FHIR_JSON: &str = "application/fhir+json; charset=utf-8";

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// An answer with a body.
    pub(super) fn json(status: StatusCode, media_type: &'static str, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: vec![(header::CONTENT_TYPE, media_type.to_owned())], body: body.into() }
    }

    /// An answer without a body.
    pub(super) fn empty(status: StatusCode) -> Reply {
        Reply { status, headers: Vec::new(), body: Vec::new() }
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

    /// Compresses the body.
    pub(super) fn gzip(mut self) -> Reply {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let compressed = encoder.write_all(&self.body).and_then(|()| encoder.finish());
        if let Ok(compressed) = compressed {
            self.body = compressed;
            self.headers.push((header::CONTENT_ENCODING, "gzip".to_owned()));
        }
        self
    }

    /// As axum sends it.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
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
