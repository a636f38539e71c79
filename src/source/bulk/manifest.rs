//! What a server says of an export: its status, and the manifest of its files, read with distrust. Pure.

use crate::http::retry_after;
use crate::smart::client::below;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// Files of an export.
const FILES_MAX: usize = 1_000_000;
/// How much older than the kick-off an export of today may claim to be: the clocks differ.
const CLOCKS_MINUTES: i64 = 10;
/// Longest wait between polls that an answer may ask for.
const POLL_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest wait that a server may ask for which is asked too often.
const COURTESY_WAIT_MAX: Duration = Duration::from_secs(6 * 3600);
/// Longest wait between polls when the server asks for none.
const POLL_UNASKED_MAX: Duration = Duration::from_secs(30);
/// Issue types of the family `transient` (http://hl7.org/fhir/issue-type): the question failed, not the export.
const TRANSIENT: [&str; 7] = ["transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"];

/// A completed export, all manifest pages together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub transaction_time: String,
    pub files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct File {
    pub kind: Kind,
    /// The type it is said to hold; `*` when that is no type's name.
    pub resource_type: String,
    pub url: String,
    /// Where it is if a relative address is meant from the server's base, and not from the manifest's own, as RFC 3986 has it.
    #[serde(default)]
    pub from_base: Option<String>,
    pub count: Option<u64>,
    /// The manifest wants the token for it.
    pub token: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Output,
    Deleted,
    Error,
}

/// One page of a manifest.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    pub manifest: Manifest,
    pub next: Option<Url>,
}

impl Page {
    /// Reads a page; addresses are relative to its own. What may be absent may be absent, and what is not known is passed
    /// over; but a list that cannot be read is refused, because what it names would be missing without a word.
    pub fn read(body: &[u8], at: &Url, base: &Url) -> Result<Page, String> {
        let page: Value = serde_json::from_slice(body).map_err(|_| "the manifest is not JSON".to_owned())?;
        let Some(page) = page.as_object() else { return Err("the manifest is not a JSON object".to_owned()) };
        let time = page.get("transactionTime").and_then(Value::as_str);
        let time = time.ok_or("the manifest has no transactionTime")?;
        time.parse::<Timestamp>().map_err(|_| "the manifest's transactionTime is not an instant")?;
        let list = |name: &str| match page.get(name) {
            None | Some(Value::Null) => Ok(&[][..]),
            Some(Value::Array(items)) => Ok(items.as_slice()),
            Some(_) => Err(format!("the manifest's `{name}` is not a list")),
        };
        if page.get("output").is_none_or(Value::is_null) {
            return Err("the manifest has no list of files (`output`)".to_owned());
        }
        let token = match page.get("requiresAccessToken") {
            Some(Value::Bool(requires)) => *requires,
            Some(Value::String(requires)) => !requires.trim().eq_ignore_ascii_case("false"),
            _ => true,
        };
        let mut manifest = Manifest { transaction_time: time.to_owned(), files: Vec::new() };
        for (name, kind) in [("output", Kind::Output), ("deleted", Kind::Deleted), ("error", Kind::Error), ("outcome", Kind::Error)] {
            for item in list(name)? {
                manifest
                    .files
                    .push(File::read(item, kind, token, [at, base]).ok_or_else(|| format!("the manifest names a file without an address in `{name}`"))?);
            }
        }
        if manifest.files.len() > FILES_MAX {
            return Err(format!("the manifest names more than {FILES_MAX} files"));
        }
        let next = list("link")?.iter().find(|link| link.get("relation").and_then(Value::as_str) == Some("next"));
        let next = next.map(|link| {
            link.get("url")
                .and_then(Value::as_str)
                .and_then(|url| at.join(url).ok())
                .ok_or("the manifest has a next part without an address")
        });
        Ok(Page { manifest, next: next.transpose()? })
    }
}

impl File {
    fn read(item: &Value, kind: Kind, token: bool, [at, base]: [&Url; 2]) -> Option<File> {
        let written = item.get("url").and_then(Value::as_str).filter(|url| !url.trim().is_empty())?;
        let name = item.get("type").and_then(Value::as_str).unwrap_or_default();
        let is_name = !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let count = item.get("count").and_then(|count| count.as_u64().or_else(|| count.as_str()?.trim().parse().ok()));
        let url: String = at.join(written).ok()?.into();
        let from_base = below(base, written.trim()).ok().map(String::from).filter(|other| Url::parse(written).is_err() && *other != url);
        Some(File { kind, resource_type: if is_name { name } else { "*" }.to_owned(), url, from_base, count, token })
    }
}

impl Manifest {
    /// Adds a further page; the earliest time of all is the export's.
    pub fn add(&mut self, page: Manifest) -> Result<(), String> {
        let time = |manifest: &Manifest| manifest.transaction_time.parse::<Timestamp>().ok();
        if self.transaction_time.is_empty() || time(&page) < time(self) {
            self.transaction_time = page.transaction_time;
        }
        self.files.extend(page.files);
        if self.files.len() > FILES_MAX { Err(format!("the manifest names more than {FILES_MAX} files")) } else { Ok(()) }
    }

    pub fn time(&self) -> Option<Timestamp> {
        self.transaction_time.parse().ok()
    }

    /// How long before it was asked for the data were so, where that is more than clocks differ.
    pub fn behind(&self, kicked_off_at: Timestamp) -> Option<SignedDuration> {
        let behind = kicked_off_at.duration_since(self.time()?);
        (behind > SignedDuration::from_mins(CLOCKS_MINUTES)).then_some(behind)
    }

    /// Takes over fresh addresses for the same files. False when they are not the same.
    pub fn refresh(&mut self, fresh: &Manifest) -> bool {
        let same = |(old, new): (&File, &File)| (old.kind, &old.resource_type, old.count) == (new.kind, &new.resource_type, new.count);
        let is_same = self.transaction_time == fresh.transaction_time && self.files.len() == fresh.files.len() && self.files.iter().zip(&fresh.files).all(same);
        if is_same {
            self.files.clone_from(&fresh.files);
        }
        is_same
    }
}

/// What an answer to a poll says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A manifest.
    Ready,
    NotYet,
    /// Asked too often.
    TooFast,
    /// The question failed; the export may be fine.
    Unclear,
    /// There is no such export.
    Lost,
    Failed,
}

impl Word {
    /// Reads a status, and the export's own status where the server tells it apart (`X-Export-Status`).
    pub fn read(status: u16, own: Option<&str>, code: Option<&str>) -> Word {
        let own = own.and_then(|own| own.trim().get(..3)?.parse::<u16>().ok()).filter(|_| status == 200);
        match own.unwrap_or(status) {
            200 => Word::Ready,
            202 => Word::NotYet,
            404 | 410 => Word::Lost,
            400.. if own.is_some() => Word::Failed,
            429 => Word::TooFast,
            408 | 425 => Word::Unclear,
            400..500 if code.is_some_and(|code| TRANSIENT.contains(&code)) => Word::Unclear,
            500.. if code.is_none_or(|code| TRANSIENT.contains(&code)) => Word::Unclear,
            _ => Word::Failed,
        }
    }
}

/// When to ask again.
#[derive(Debug)]
pub(super) struct Pace {
    wait: Duration,
    /// The server wants no shorter waits.
    least: Duration,
}

impl Pace {
    pub fn new(first: Duration) -> Pace {
        Pace { wait: first, least: Duration::ZERO }
    }

    /// The wait before the next poll. Hours that a server asks for are cut; those that it asks for when it was asked too
    /// often are kept, and nobody asks it that often again.
    pub fn next(&mut self, asked: Option<&str>, is_too_fast: bool, now: Timestamp) -> Duration {
        let asked = asked.and_then(|value| retry_after(value, now));
        let wait = self.wait.max(self.least);
        self.wait = self.wait.saturating_mul(2).min(POLL_UNASKED_MAX);
        let Some(asked) = asked else {
            if is_too_fast {
                self.least = wait.saturating_mul(2).min(POLL_WAIT_MAX);
            }
            return wait.max(self.least);
        };
        if is_too_fast {
            self.least = asked.min(POLL_WAIT_MAX).max(self.least);
        }
        asked.min(if is_too_fast { COURTESY_WAIT_MAX } else { POLL_WAIT_MAX }).max(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> Result<Page, String> {
        Page::read(page.as_bytes(), &"https://ehr.example/fhir/status/7".parse().unwrap(), &"https://ehr.example/fhir".parse().unwrap())
    }

    #[test]
    fn b_09_a_manifest_is_read_whatever_is_absent_or_extra_and_refused_with_what_is_wrong() {
        let whole = r#"{"transactionTime":"2026-01-02T03:04:05Z","request":"x","requiresAccessToken":false,"output":[{"type":"Patient","url":"https://f.example/1","count":3}],"error":[]}"#;
        let page = read(whole).unwrap();
        let file = File {
            kind: Kind::Output,
            resource_type: "Patient".to_owned(),
            url: "https://f.example/1".to_owned(),
            from_base: None,
            count: Some(3),
            token: false,
        };
        assert_eq!(page, Page { manifest: Manifest { transaction_time: "2026-01-02T03:04:05Z".to_owned(), files: vec![file] }, next: None });
        let with = |members: &str| format!(r#"{{"transactionTime":"2026-01-02T03:04:05Z","output":[{{"type":"Patient","url":"1"}}]{members}}}"#);
        // What is absent, null, extra or written as text where nothing is lost by it.
        for members in [
            "",
            r#","deleted":null,"error":null,"outcome":null,"link":null,"request":7,"outputOrganizedBy":{},"manifestType":"x""#,
            r#","extension":{"https://x.example":true}"#,
            r#","extension":[{"url":"https://x.example","valueBoolean":true}]"#,
            r#","link":[{"relation":"self","url":"x"},"next",7]"#,
        ] {
            let page = read(&with(members)).unwrap();
            assert_eq!((page.manifest.files.len(), page.next), (1, None), "{members}");
            let file = &page.manifest.files[0];
            let addresses = (file.url.as_str(), file.from_base.as_deref());
            assert_eq!(addresses, ("https://ehr.example/fhir/status/1", Some("https://ehr.example/fhir/1")), "{members}");
            assert_eq!((file.count, file.token), (None, true), "{members}");
        }
        for (value, token) in [("true", true), ("false", false), (r#""true""#, true), (r#""False""#, false), ("0", true), ("{}", true)] {
            assert_eq!(read(&with(&format!(r#","requiresAccessToken":{value}"#))).unwrap().manifest.files[0].token, token, "{value}");
        }
        for (file, expected) in [
            (r#"{"url":"1"}"#, ("*", None)),
            (r#"{"url":"1","type":"../etc"}"#, ("*", None)),
            (r#"{"url":"1","type":7,"count":"12"}"#, ("*", Some(12))),
            (r#"{"url":"1","type":"Patient","count":-1}"#, ("Patient", None)),
            (r#"{"url":"1","type":"Patient","count":[]}"#, ("Patient", None)),
        ] {
            let page = read(&format!(r#"{{"transactionTime":"2026-01-02T03:04:05Z","output":[{file}]}}"#)).unwrap();
            let read = &page.manifest.files[0];
            assert_eq!((read.resource_type.as_str(), read.count), expected, "{file}");
        }
        let lists =
            read(&with(r#","deleted":[{"type":"Bundle","url":"d"}],"error":[{"url":"e"}],"outcome":[{"url":"o"}],"link":[{"relation":"next","url":"../status/8"}]"#)).unwrap();
        assert_eq!(lists.manifest.files.iter().map(|file| file.kind).collect::<Vec<_>>(), [Kind::Output, Kind::Deleted, Kind::Error, Kind::Error]);
        assert_eq!(lists.next.unwrap().as_str(), "https://ehr.example/fhir/status/8");
        for (page, wrong) in [
            ("<html>", "the manifest is not JSON"),
            ("[]", "the manifest is not a JSON object"),
            (r#"{"output":[]}"#, "the manifest has no transactionTime"),
            (r#"{"transactionTime":7,"output":[]}"#, "the manifest has no transactionTime"),
            (r#"{"transactionTime":"2026-01-02","output":[]}"#, "the manifest's transactionTime is not an instant"),
            (r#"{"transactionTime":"2026-01-02T03:04:05Z"}"#, "the manifest has no list of files (`output`)"),
            (r#"{"transactionTime":"2026-01-02T03:04:05Z","output":null}"#, "the manifest has no list of files (`output`)"),
            (r#"{"transactionTime":"2026-01-02T03:04:05Z","output":{}}"#, "the manifest's `output` is not a list"),
            (&with(r#","deleted":{}"#), "the manifest's `deleted` is not a list"),
            (&with(r#","error":"x""#), "the manifest's `error` is not a list"),
            (&with(r#","outcome":[{}]"#), "the manifest names a file without an address in `outcome`"),
            (&with(r#","deleted":[{"url":7}]"#), "the manifest names a file without an address in `deleted`"),
            (&with(r#","link":"x""#), "the manifest's `link` is not a list"),
            (&with(r#","link":[{"relation":"next"}]"#), "the manifest has a next part without an address"),
        ] {
            assert_eq!(read(page).err().as_deref(), Some(wrong), "{page}");
        }
    }

    #[test]
    fn what_an_answer_to_a_poll_says() {
        for (status, own, code, expected) in [
            (200, None, None, Word::Ready),
            (202, None, None, Word::NotYet),
            (404, None, None, Word::Lost),
            (410, None, Some("expired"), Word::Lost),
            (429, None, Some("throttled"), Word::TooFast),
            (500, None, Some("transient"), Word::Unclear),
            (500, None, Some("processing"), Word::Failed),
            (500, None, None, Word::Unclear),
            (503, None, None, Word::Unclear),
            (400, None, Some("timeout"), Word::Unclear),
            (400, None, Some("invalid"), Word::Failed),
            (400, None, None, Word::Failed),
            (403, None, None, Word::Failed),
            (200, Some("202 Accepted"), None, Word::NotYet),
            (200, Some("200"), None, Word::Ready),
            (200, Some("500 Internal Server Error"), Some("transient"), Word::Failed),
            (200, Some("429"), None, Word::Failed),
            (200, Some("404"), None, Word::Lost),
            (200, Some("soon"), None, Word::Ready),
            // Only an answer that is fine itself speaks of the export.
            (503, Some("200"), None, Word::Unclear),
        ] {
            assert_eq!(Word::read(status, own, code), expected, "{status} {own:?} {code:?}");
        }
    }

    #[test]
    fn b_06_polling_backs_off_and_heeds_retry_after_as_seconds_or_date_within_sense() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let seconds = |pace: &mut Pace, asked: Option<&str>, is_too_fast| pace.next(asked, is_too_fast, now).as_secs();
        let mut unasked = Pace::new(Duration::from_secs(1));
        let waits: Vec<u64> = (0..8).map(|_| seconds(&mut unasked, None, false)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        for (asked, expected) in [
            ("120", 120),
            ("Mon, 23 Nov 2026 10:01:30 GMT", 90),
            ("Mon, 23 Nov 2026 09:00:00 GMT", 1),
            ("-5", 1),
            ("soon", 1),
            ("", 1),
            ("0", 1),
            ("18000", 900),
            ("99999999999999999999", 900),
        ] {
            assert_eq!(seconds(&mut Pace::new(Duration::from_secs(1)), Some(asked), false), expected, "{asked}");
        }
        // Asked too often: in full, and from then on never as often again.
        let mut pace = Pace::new(Duration::from_secs(1));
        assert_eq!(seconds(&mut pace, Some("7200"), true), 7200);
        assert_eq!(seconds(&mut pace, None, false), 900);
        let mut pace = Pace::new(Duration::from_secs(1));
        assert_eq!((seconds(&mut pace, Some("10"), true), seconds(&mut pace, None, false), seconds(&mut pace, None, true)), (10, 10, 20));
    }
}
