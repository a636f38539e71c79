//! Requests as the server reads them, and what is remembered of each.

use axum::http::{HeaderMap, Method, header};

use super::reply::form;
use super::server::BASE_PATH;

/// A request, read.
#[derive(Clone)]
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether it came in at the second origin.
    pub(super) is_elsewhere: bool,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    Token,
    Discovery,
    Metadata,
    KickOff,
    /// The status of an export, or its deletion.
    Status,
    File,
    /// The first page of a search.
    Search,
    /// A later page.
    Page,
    Read,
    Other,
}

impl Incoming {
    /// What it is for.
    pub(super) fn endpoint(&self) -> Endpoint {
        match self.segments().as_slice() {
            ["token"] => Endpoint::Token,
            [.., "$export"] => Endpoint::KickOff,
            [".well-known", ..] => Endpoint::Discovery,
            ["metadata"] => Endpoint::Metadata,
            ["export-status", _] => Endpoint::Status,
            ["export-file", ..] => Endpoint::File,
            [_] if self.parameter("_page").is_some() => Endpoint::Page,
            [_] | [_, "_search"] => Endpoint::Search,
            [_, _] => Endpoint::Read,
            _ => Endpoint::Other,
        }
    }

    /// The resource type that is searched or read.
    pub(super) fn kind(&self) -> Option<&str> {
        let searching = matches!(self.endpoint(), Endpoint::Search | Endpoint::Page | Endpoint::Read);
        self.segments().first().copied().filter(|_| searching)
    }

    fn segments(&self) -> Vec<&str> {
        let path = self.path.strip_prefix(BASE_PATH).unwrap_or(&self.path);
        path.split('/').filter(|segment| !segment.is_empty()).collect()
    }

    /// The first value of a parameter, from the query or from a search's body.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let within = |text: &[u8]| form(text).into_iter().find(|(own, _)| own == name).map(|(_, value)| value);
        within(self.query.as_deref().unwrap_or("").as_bytes()).or_else(|| within(&self.body))
    }

    /// Takes a parameter out of the query, or out of a search's body, and gives its value; the others stay as they were
    /// written.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let value = self.parameter(name)?;
        let is_other = |part: &&str| form(part.as_bytes()).first().is_none_or(|(own, _)| own != name);
        let without = |text: &str| text.split('&').filter(is_other).collect::<Vec<_>>().join("&");
        self.query = self.query.take().map(|query| without(&query));
        self.body = without(&String::from_utf8_lossy(&self.body)).into_bytes();
        Some(value)
    }

    /// The same search by GET: what stands in its body goes into its address.
    pub(super) fn by_get(&self) -> Incoming {
        let mut request = Incoming { method: Method::GET, body: Vec::new(), ..self.clone() };
        request.path = self.path.trim_end_matches("/_search").to_owned();
        let parts = [self.query.clone().unwrap_or_default(), String::from_utf8_lossy(&self.body).into_owned()];
        request.query = Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&"));
        request
    }

    /// Adds a parameter to the query.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let query = self.query.take().filter(|query| !query.is_empty()).map(|query| query + "&").unwrap_or_default();
        let pair = url::form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
        self.query = Some(query + &pair);
    }

    /// Path and query.
    pub(super) fn target(&self) -> String {
        self.query.as_ref().map_or_else(|| self.path.clone(), |query| format!("{}?{query}", self.path))
    }

    /// The value of a header.
    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request as the server remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `POST` …
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Headers but `authorization`, in the order of their names.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
    /// Whether it carried an `Authorization` header.
    pub authorized: bool,
    /// Whether it came in at the second origin.
    pub elsewhere: bool,
    /// Status of the answer.
    pub status: u16,
}

impl Seen {
    pub(super) fn of(sent: &Incoming, status: u16) -> Seen {
        let shown = sent.headers.iter().filter(|(name, _)| **name != header::AUTHORIZATION);
        let mut headers: Vec<(String, String)> = shown.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
        headers.sort();
        Seen {
            method: sent.method.to_string(),
            target: sent.target(),
            headers,
            body: String::from_utf8_lossy(&sent.body).into_owned(),
            authorized: sent.headers.contains_key(header::AUTHORIZATION),
            elsewhere: sent.is_elsewhere,
            status,
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}
