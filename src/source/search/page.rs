//! One page of a search as it came: a Bundle, its entries and links, the server's complaints.

use crate::fhir::compartment::reference_target;
use crate::fhir::entries::Entries;
use crate::http::Response;
use crate::source::duty::{Code, Why};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use url::Url;

/// Longest code of an issue that is shown.
const CODE_BYTES_MAX: usize = 40;

/// Codes of issues (FHIR's `issue-type`) that say that something was left out.
const LEFT_OUT: [&str; 4] = ["incomplete", "throttled", "timeout", "too-costly"];

/// Codes that say that something was left out because this client may not see it.
const HIDDEN: [&str; 3] = ["forbidden", "security", "suppressed"];

/// A page.
#[derive(Deserialize)]
pub(in crate::source) struct Bundle {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
    meta: Option<serde_json::Value>,
    total: Option<serde_json::Value>,
    #[serde(default)]
    link: Option<Vec<Option<Link>>>,
    #[serde(default)]
    entry: Option<Vec<Option<Entry>>>,
}

#[derive(Deserialize)]
struct Link {
    relation: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "fullUrl")]
    full_url: Option<String>,
    resource: Option<Box<RawValue>>,
    search: Option<Mode>,
    request: Option<Change>,
    response: Option<Answer>,
}

/// What an entry says came of a request.
#[derive(Deserialize)]
struct Answer {
    status: Option<String>,
    #[serde(rename = "lastModified")]
    last_modified: Option<serde_json::Value>,
}

/// What an entry says was done to a resource.
#[derive(Deserialize)]
struct Change {
    method: Option<String>,
    url: Option<String>,
}

impl Entry {
    /// Type and id of a resource that the entry says is deleted.
    fn deleted(&self) -> Option<(&str, &str)> {
        let change = self.request.as_ref().filter(|change| change.method.as_deref() == Some("DELETE"))?;
        let (resource_type, id) = reference_target(change.url.as_deref()?)?;
        Some((resource_type?, id))
    }

    /// When it came to be as it is.
    fn modified(&self) -> Option<i64> {
        time(self.response.as_ref()?.last_modified.as_ref()?)
    }

    /// The status of a request that failed.
    fn failed(&self) -> Option<&str> {
        self.response.as_ref()?.status.as_deref().filter(|status| status.starts_with(['4', '5']))
    }
}

#[derive(Deserialize)]
struct Mode {
    mode: Option<String>,
}

#[derive(Deserialize, Default)]
struct Head {
    #[serde(rename = "resourceType", default)]
    resource_type: Option<serde_json::Value>,
    #[serde(default)]
    id: Option<serde_json::Value>,
    #[serde(default)]
    meta: Option<serde_json::Value>,
}

impl Head {
    fn of(json: &str) -> Head {
        serde_json::from_str(json).unwrap_or_default()
    }

    fn text(&self, element: fn(&Head) -> &Option<serde_json::Value>) -> Option<String> {
        Some(element(self).as_ref()?.as_str()?.to_owned())
    }
}

/// A resource's id.
pub(super) fn id_of(json: &str) -> Option<String> {
    Head::of(json).text(|head| &head.id)
}

/// A resource's id, and its time of change in microseconds since 1970.
pub(in crate::source) fn id_and_time(json: &str) -> (Option<String>, Option<i64>) {
    let head = Head::of(json);
    (head.text(|head| &head.id), head.meta.as_ref().and_then(updated))
}

/// The time in a `meta`.
fn updated(meta: &serde_json::Value) -> Option<i64> {
    time(meta.get("lastUpdated")?)
}

/// In microseconds since 1970.
fn time(text: &serde_json::Value) -> Option<i64> {
    Some(text.as_str()?.parse::<Timestamp>().ok()?.as_microsecond())
}

/// What an entry is.
pub(in crate::source) enum Item<'a> {
    /// What was searched for.
    Match(&'a str),
    /// What came along, with its type.
    Include(&'a str, String),
    /// What the server has to say.
    Outcome(&'a str),
    /// Type and id of what is gone, and when it went, in microseconds since 1970; a history has no resource then.
    Deleted(&'a str, &'a str, Option<i64>),
    /// The status of a request that failed, in place of a resource.
    Failed(&'a str),
    /// Nothing.
    Empty,
}

impl Bundle {
    /// Reads a page; `None` if the body is no Bundle.
    pub fn read(body: &[u8]) -> Option<Bundle> {
        serde_json::from_slice::<Bundle>(body).ok().filter(|bundle| bundle.resource_type == "Bundle")
    }

    /// Whether it tells what became of resources, the newest first.
    pub fn is_history(&self) -> bool {
        self.kind.as_ref().and_then(serde_json::Value::as_str) == Some("history")
    }

    /// Until when deletions go that are not dated: those of an export are those until the time of its Bundle.
    fn deleted_until(&self) -> Option<i64> {
        self.meta.as_ref().filter(|_| !self.is_history()).and_then(updated)
    }

    /// How many match, if the server says so in a number.
    pub fn total(&self) -> Option<u64> {
        self.total.as_ref().and_then(serde_json::Value::as_u64)
    }

    /// The address of a link.
    pub fn link(&self, relation: &str) -> Option<&str> {
        let link = self.link.iter().flatten().flatten().find(|link| link.relation.as_deref() == Some(relation));
        link.and_then(|link| link.url.as_deref()).filter(|address| !address.is_empty())
    }

    /// The entries of a search for a type. An entry that does not say what it is is told by its type.
    pub fn items<'a>(&'a self, searched: &'a str) -> impl Iterator<Item = Item<'a>> {
        self.entry.iter().flatten().map(move |entry| {
            let json = entry.as_ref().and_then(|entry| entry.resource.as_ref()).map(|json| json.get());
            let Some(json) = json.filter(|json| *json != "null") else {
                let entry = entry.as_ref();
                let failed = || entry.and_then(Entry::failed).map_or(Item::Empty, Item::Failed);
                let modified = || entry.and_then(Entry::modified).or_else(|| self.deleted_until());
                return entry.and_then(Entry::deleted).map_or_else(failed, |(resource_type, id)| Item::Deleted(resource_type, id, modified()));
            };
            let mode = entry.as_ref().and_then(|entry| entry.search.as_ref()?.mode.as_deref());
            let named = Head::of(json).text(|head| &head.resource_type).unwrap_or_default();
            match (mode, named.as_str()) {
                (Some("outcome"), _) | (_, "OperationOutcome") => Item::Outcome(json),
                (Some("include"), _) => Item::Include(json, named),
                (None, name) if !name.is_empty() && name != searched => Item::Include(json, named),
                _ => Item::Match(json),
            }
        })
    }

    /// Of each entry whether it is what was searched for, as far as it says so.
    pub fn matches(&self) -> impl Iterator<Item = bool> + '_ {
        let mode = |entry: &Option<Entry>| entry.as_ref().and_then(|entry| entry.search.as_ref()?.mode.as_deref()) != Some("include");
        self.entry.iter().flatten().map(mode)
    }

    /// What this page's references call its entries by.
    pub fn entries(&self) -> Entries {
        let entries = self.entry.iter().flatten().flatten();
        Entries::of(entries.filter_map(|entry| Some((Cow::Borrowed(entry.full_url.as_deref()?), entry.resource.as_ref()?.get()))))
    }

    /// The parameters that were sent and that the server's account of what it did leaves out; none if it gives none.
    pub fn ignored<'a>(&self, base: &Url, sent: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        let Some(done) = self.link("self").and_then(|address| base.join(address).ok()) else { return BTreeSet::new() };
        let done: BTreeSet<String> = done.query_pairs().map(|(name, _)| plain(&name).to_owned()).collect();
        sent.map(plain).filter(|name| *name != "_count" && !done.contains(*name)).map(str::to_owned).collect()
    }
}

/// What a search for a number only found; `None` if the answer is none, or a page of resources in its place.
pub(in crate::source) fn counted(answer: &Response) -> Option<u64> {
    let bundle = Bundle::read(&answer.body).filter(|bundle| answer.is_success() && bundle.entry.iter().all(Vec::is_empty))?;
    bundle.total()
}

/// A parameter's name without its modifier.
fn plain(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The code of an OperationOutcome's first issue; its free text may hold anything and is left out.
pub(in crate::source) fn issue_code(body: &[u8]) -> Option<String> {
    let outcome: serde_json::Value = serde_json::from_slice(body).ok()?;
    code_of(outcome.get("issue")?.get(0)?).map(str::to_owned)
}

/// The code of an issue, if it is one.
pub(in crate::source) fn code_of(issue: &serde_json::Value) -> Option<&str> {
    let code = issue.get("code")?.as_str()?;
    let is_code = code.len() < CODE_BYTES_MAX && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    is_code.then_some(code)
}

/// The same in brackets, for messages.
pub(in crate::source) fn issue_shown(body: &[u8]) -> String {
    issue_code(body).map(|code| format!(" ({code})")).unwrap_or_default()
}

/// An error or fatal issue makes the page incomplete, and so does one, however severe, that says that something was left out;
/// other warnings and information do not.
pub(crate) fn worst_issue(json: &str) -> Option<Why> {
    let outcome: serde_json::Value = serde_json::from_str(json).ok()?;
    let is_error = |issue: &&serde_json::Value| matches!(issue.get("severity").and_then(|severity| severity.as_str()), Some("error" | "fatal"));
    let is_one_of = |codes: &'static [&str]| move |issue: &&serde_json::Value| code_of(issue).is_some_and(|code| codes.contains(&code));
    let words = |says: &str, issue| format!("{says}{}", code_of(issue).map(|code| format!(" ({code})")).unwrap_or_default());
    let error = issues(&outcome).find(is_error).map(|issue| words("the server reports an error", issue));
    let less = || issues(&outcome).find(is_one_of(&LEFT_OUT)).map(|issue| words("the server reports that not all may have come", issue));
    let hidden = || {
        issues(&outcome)
            .find(is_one_of(&HIDDEN))
            .map(|issue| words("the server leaves out what this client may not see", issue))
    };
    error
        .or_else(less)
        .map(|text| Why::new(Code::Reported, text))
        .or_else(|| hidden().map(|text| Why::new(Code::Hidden, text)))
}

/// The one of these types that this client may not read, if that is all that an outcome complains of.
pub(in crate::source) fn forbidden_type<'a>(json: &str, types: &'a BTreeSet<String>) -> Option<&'a String> {
    let outcome: serde_json::Value = serde_json::from_str(json).ok()?;
    let is_error = |issue: &&serde_json::Value| matches!(issue.get("severity").and_then(|severity| severity.as_str()), Some("error" | "fatal"));
    let named: Option<BTreeSet<&String>> = issues(&outcome)
        .filter(is_error)
        .map(|issue| code_of(issue).filter(|code| *code == "forbidden").and_then(|_| type_of_issue(issue, types)))
        .collect();
    named.filter(|named| named.len() == 1)?.pop_first()
}

/// The type that an issue is about: the only one that it points to, or else that its words name.
fn type_of_issue<'a>(issue: &serde_json::Value, types: &'a BTreeSet<String>) -> Option<&'a String> {
    let texts = |value: Option<&serde_json::Value>| match value {
        Some(serde_json::Value::Array(texts)) => texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect::<Vec<String>>(),
        Some(serde_json::Value::String(text)) => vec![text.clone()],
        _ => Vec::new(),
    };
    let named = |texts: &[String]| {
        let words: BTreeSet<&str> = texts.iter().flat_map(|text| text.split(|letter: char| !letter.is_ascii_alphanumeric())).collect();
        let mut named = types.iter().filter(|name| words.contains(name.as_str()));
        named.next().filter(|_| named.next().is_none())
    };
    let places = ["expression", "location"].map(|name| texts(issue.get(name))).concat();
    named(&places).or_else(|| named(&[texts(issue.get("diagnostics")), texts(issue.pointer("/details/text"))].concat()))
}

/// Whether the server warns that what its pages hold has shifted under us, as LinuxForHealth does.
pub(super) fn has_shifted(json: &str) -> bool {
    let Ok(outcome) = serde_json::from_str::<serde_json::Value>(json) else { return false };
    issues(&outcome).any(|issue| {
        let texts = [issue.get("diagnostics"), issue.get("details").and_then(|details| details.get("text"))];
        texts.into_iter().flatten().filter_map(|text| text.as_str()).any(|text| text.to_lowercase().contains("have shifted"))
    })
}

fn issues(outcome: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    outcome.get("issue").and_then(|issues| issues.as_array()).into_iter().flatten()
}
