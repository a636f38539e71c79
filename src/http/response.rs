//! Answers: read whole within limits, or handed out in chunks.

use super::retry::Signal;
use super::{HttpError, TIMED_OUT, origin_text, transport};
use reqwest::header::HeaderMap;
use std::io::Read as _;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

/// Largest expansion of a compressed body; FHIR JSON stays below 60.
const INFLATION_MAX: u64 = 200;
/// Bodies up to this size, in bytes, may expand freely: ratios of tiny bodies mean nothing.
const INFLATION_FREE_BYTES: u64 = 1 << 20;
/// Characters shown of what a server says about its refusal.
const SAID_CHARS_MAX: usize = 200;
/// From this length on a word that a server says may be a secret.
const SECRET_CHARS_MIN: usize = 20;

/// What some servers put before a text, and JSON must not have (RFC 8259 section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An answer whose body is held in memory.
#[derive(Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// The address that answered, after redirects; relative links resolve against it.
    pub url: Url,
    headers: HeaderMap,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Response {
    /// A header's value, if it is readable text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// True for 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The server's clock at this answer (`Date`), if it sent one.
    pub fn date(&self) -> Option<jiff::Timestamp> {
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(self.header("date")?).ok()
    }

    /// What the server says of its refusal, in brackets and on one line, or nothing: of an OperationOutcome, an answer of OAuth, or a
    /// plain text; short, and without anything that may be a secret. For answers only to requests that are about no patient.
    pub fn said(&self) -> String {
        let json: serde_json::Value = self.json().unwrap_or_default();
        let issue = json.pointer("/issue/0");
        let text = |value: Option<&serde_json::Value>| value.and_then(serde_json::Value::as_str).map(redacted).filter(|text| !text.is_empty());
        let plain = || {
            let is_plain = self.header("content-type").is_some_and(|kind| kind.starts_with("text/plain"));
            std::str::from_utf8(&self.body).ok().filter(|_| is_plain).map(redacted).filter(|text| !text.is_empty())
        };
        let said = text(json.get("error_description"))
            .or_else(|| text(issue.and_then(|issue| issue.pointer("/details/text"))))
            .or_else(|| text(issue.and_then(|issue| issue.get("diagnostics"))))
            .or_else(|| text(json.get("message")))
            .or_else(plain);
        said.map(|said| format!(" (\"{said}\")")).unwrap_or_default()
    }

    pub(super) fn signal(&self) -> Signal {
        Signal { status: self.status, retry_after: self.header("retry-after").map(str::to_owned) }
    }
}

/// Another's words as part of one line for people: so many characters at most, and none that moves a cursor, turns the writing or is not
/// seen.
pub fn one_line(text: &str, most: usize) -> String {
    let shown = |letter: char| if is_unseen(letter) { ' ' } else { letter };
    let text: String = text.chars().take(most).map(shown).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Controls, marks of direction, signs without width, and what no text has (Unicode's `Cc`, and of `Cf`, `Zl`, `Zp` and `Co` what is known to mislead).
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}')
        || matches!(letter, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{10ffff}')
}

/// A server's words as one line of a message: printable characters, short, and without anything that may be a secret.
fn redacted(text: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_graphic() && !matches!(letter, '"' | '\\') { letter } else { ' ' };
    let text: String = text.chars().take(SAID_CHARS_MAX).map(plain).collect();
    let shown = |word: &str| if word.len() >= SECRET_CHARS_MIN && !is_scope(word) { "…".to_owned() } else { word.to_owned() };
    text.split_ascii_whitespace().map(shown).collect::<Vec<_>>().join(" ")
}

/// Letters of the longest name of a resource type, and more.
const TYPE_CHARS_MAX: usize = 40;
/// The rights that a scope may name by a letter.
const RIGHTS: &[u8] = b"cruds";

/// Whether a word is the name of a SMART scope, `system/Observation.rs`, in whatever marks: no secret is.
fn is_scope(word: &str) -> bool {
    let word = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric() && letter != '*');
    let named = ["system/", "user/", "patient/"].into_iter().find_map(|context| word.strip_prefix(context));
    let Some((kind, rights)) = named.and_then(|name| name.split_once('.')) else { return false };
    let is_kind = kind == "*" || kind.len() <= TYPE_CHARS_MAX && kind.bytes().all(|letter| letter.is_ascii_alphabetic());
    is_kind && (matches!(rights, "read" | "write" | "*") || rights.len() <= RIGHTS.len() && rights.bytes().all(|right| RIGHTS.contains(&right)))
}

/// After so many seconds a body must have come at so many bytes a second: one that trickles would take years.
const PATIENCE_SECONDS: u64 = 120;
const BYTES_PER_SECOND_MIN: u64 = 100;

fn is_too_slow(received: u64, seconds: u64) -> bool {
    seconds >= PATIENCE_SECONDS && received < seconds.saturating_mul(BYTES_PER_SECOND_MIN)
}

/// An answer whose body has not been read.
pub struct Download {
    began: Instant,
    answer: reqwest::Response,
    url: Url,
    limit: u64,
    received: u64,
    _permit: OwnedSemaphorePermit,
}

impl Download {
    pub(super) fn new(answer: reqwest::Response, url: Url, limit: u64, permit: OwnedSemaphorePermit) -> Download {
        Download { began: Instant::now(), answer, url, limit, received: 0, _permit: permit }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.answer.status().as_u16()
    }

    /// A header's value, if it is readable text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers().get(name)?.to_str().ok()
    }

    /// True when the chunks are gzip and not yet decompressed.
    pub fn is_gzip(&self) -> bool {
        self.header("content-encoding").is_some_and(|value| value.trim().eq_ignore_ascii_case("gzip"))
    }

    /// The next chunk as transferred; `None` at the proper end. A body shorter than announced is an error.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, HttpError> {
        let chunk = self.answer.chunk().await.map_err(|error| transport(&origin_text(&self.url), &error, None))?;
        if let Some(chunk) = &chunk {
            self.received = self.received.saturating_add(chunk.len() as u64);
            if self.received > self.limit {
                return Err(HttpError::TooLarge { origin: origin_text(&self.url), limit: self.limit });
            }
            if is_too_slow(self.received, self.began.elapsed().as_secs()) {
                let reason = format!("{TIMED_OUT}: it sends fewer than {BYTES_PER_SECOND_MIN} bytes a second");
                return Err(HttpError::Unreachable { origin: origin_text(&self.url), reason, attempts: 1, is_lasting: false });
            }
        }
        Ok(chunk)
    }

    /// Reads the rest into memory, within `limit` bytes.
    pub async fn read(mut self, limit: u64) -> Result<Response, HttpError> {
        let origin = origin_text(&self.url);
        self.limit = limit;
        let encoding = self.header("content-encoding").map(|value| value.trim().to_ascii_lowercase());
        let mut raw = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            raw.extend_from_slice(chunk.as_ref());
        }
        let body = match encoding.as_deref() {
            None | Some("" | "identity") => raw,
            Some("gzip" | "x-gzip") if raw.is_empty() => raw,
            Some("gzip" | "x-gzip") => inflate(&raw, limit, &origin)?,
            Some(_) => return Err(HttpError::Encoding { origin }),
        };
        let body = if body.starts_with(BYTE_ORDER_MARK) { body.get(BYTE_ORDER_MARK.len()..).unwrap_or_default().to_vec() } else { body };
        Ok(Response { status: self.status(), body, headers: self.answer.headers().clone(), url: self.url })
    }

    pub(super) fn origin(&self) -> String {
        origin_text(&self.url)
    }

    pub(super) fn signal(&self) -> Signal {
        Signal { status: self.status(), retry_after: self.header("retry-after").map(str::to_owned) }
    }
}

fn inflate(raw: &[u8], limit: u64, origin: &str) -> Result<Vec<u8>, HttpError> {
    let ceiling = limit.min((raw.len() as u64).saturating_mul(INFLATION_MAX).max(INFLATION_FREE_BYTES));
    let mut body = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(raw).take(ceiling.saturating_add(1)).read_to_end(&mut body);
    match read {
        Ok(_) if body.len() as u64 <= ceiling => Ok(body),
        _ => Err(HttpError::Encoding { origin: origin.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_trickles_is_given_up() {
        let cases = [(0, 119, false), (119, 120, true), (12_000, 120, false), (12_000, 121, true), (u64::MAX, u64::MAX, false)];
        for (received, seconds, expected) in cases {
            assert_eq!(is_too_slow(received, seconds), expected, "{received} in {seconds}");
        }
    }

    #[test]
    fn servers_words_are_shown_without_secrets_and_on_one_line() {
        let cases = [
            ("Client is not active", "Client is not active"),
            ("assertion eyJhbGciOiJFUzM4NCJ9.eyJpc3MiOiJzaXRlIn0.c2ln expired", "assertion … expired"),
            ("not allowed: 'system/DeviceUseStatement.rs', system/Observation.read.", "not allowed: 'system/DeviceUseStatement.rs', system/Observation.read."),
            ("system/eyJhbGciOiJFUzM4NCJ9.c2ln patient/Jane-Doe-of-1970.rs", "… …"),
            ("two\nlines\t\u{1b}[31mand \"colour\"", "two lines [31mand colour"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(redacted(text), expected);
        }
        assert!(redacted(&"word ".repeat(1000)).len() <= SAID_CHARS_MAX);
    }

    #[test]
    fn what_a_server_says_is_found_where_it_stands() {
        let cases = [
            ("application/json", r#"{"error":"invalid_client","error_description":"not active"}"#, r#" ("not active")"#),
            (
                "application/fhir+json",
                r#"{"resourceType":"OperationOutcome","issue":[{"code":"required","details":{"text":"the client id is missing"}}]}"#,
                r#" ("the client id is missing")"#,
            ),
            ("application/fhir+json", r#"{"issue":[{"diagnostics":"no such path"}]}"#, r#" ("no such path")"#),
            ("application/json", r#"{"message":"Forbidden"}"#, r#" ("Forbidden")"#),
            ("text/plain; charset=utf-8", "unsupported media type", r#" ("unsupported media type")"#),
            ("text/html", "<h1>Bad Request</h1>", ""),
            ("application/json", r#"{"issue":7}"#, ""),
        ];
        for (kind, body, expected) in cases {
            let headers = HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, kind.parse().unwrap())]);
            let response = Response { status: 400, body: body.into(), url: "https://ehr.example/token".parse().unwrap(), headers };
            assert_eq!(response.said(), expected, "{body}");
        }
    }

    #[test]
    fn words_of_others_are_one_line_in_which_nothing_is_hidden() {
        for (text, expected) in [
            ("HAPI FHIR 6.10.1", "HAPI FHIR 6.10.1"),
            ("H\u{f4}pital \u{2013} \u{201c}FHIR\u{201d}", "H\u{f4}pital \u{2013} \u{201c}FHIR\u{201d}"),
            ("red\u{1b}[31m\u{1b}]0;title\u{7} \u{9b}2J", "red [31m ]0;title 2J"),
            ("one\r\ntwo\u{2028}three\tfour", "one two three four"),
            ("abc\u{202e}txt.exe\u{200b}\u{e0041}", "abc txt.exe"),
            ("", ""),
        ] {
            assert_eq!(one_line(text, 100), expected, "{text:?}");
        }
        assert_eq!(one_line(&"\u{df}".repeat(500), 100).chars().count(), 100);
    }
}
