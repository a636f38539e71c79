//! Quirks of paging, and what the specification leaves to servers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::dice::Dice;
use super::super::reply::{Reply, outcome};
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario { name: "r_01", says: "links carry a state of eight thousand characters that must come back byte for byte", make: || Box::new(OpaqueState) },
    Scenario { name: "r_06", says: "totals are estimates: too large, too small, negative or text", make: || Box::new(LooseTotals) },
    Scenario {
        name: "r_08",
        says: "pages are made anew with each request, and while a search is read for the first time an entry comes or goes in front",
        make: || Box::new(Moving::default()),
    },
    Scenario { name: "q_17", says: "links to further pages are relative: to the host, to the base or to the page", make: || Box::new(RelativeNext) },
    Scenario { name: "q_18", says: "links to further pages name the server's origin behind its proxy", make: || Box::new(InternalOrigin) },
    Scenario { name: "q_19", says: "links to further pages have the port twice", make: || Box::new(PortTwice) },
    Scenario {
        name: "q_20",
        says: "links to further pages are longer than 2 kB, and a proxy refuses such addresses with 414, or 404 for pages",
        make: || Box::new(LongLinks),
    },
    Scenario { name: "q_21", says: "after a search by POST the next page is refused by GET; for Observation by POST too", make: || Box::new(PostOnly) },
    Scenario { name: "q_22", says: "a search ends without a word after a hundred resources", make: || Box::new(Capped) },
    Scenario { name: "q_23", says: "a search announces more than it shows, and another few are absent each time", make: || Box::new(Lossy::default()) },
    Scenario { name: "q_24", says: "the first page has no link to the next one, though it announces more", make: || Box::new(LostLink) },
    Scenario { name: "q_25", says: "pages are made anew with each request, in another order each time", make: || Box::new(Unsorted::default()) },
    Scenario {
        name: "q_26",
        says: "the link to the next page leads to the first page again, at an address that is new each time",
        make: || Box::new(SamePageAgain),
    },
    Scenario { name: "q_27", says: "each further page comes empty first, with a link to the same page with its entries", make: || Box::new(EmptyPages) },
    Scenario {
        name: "q_28",
        says: "links to further pages are forgotten: for Encounter once (500), for Condition once (400), for Patient twice (410), for Observation always (404)",
        make: || Box::new(Forgetful::default()),
    },
    Scenario { name: "q_29", says: "a link is bound to the page size that the search began with, and names it", make: || Box::new(BoundToSize) },
    Scenario { name: "q_30", says: "`_summary=count` brings a page of resources, without a total and without a link", make: || Box::new(SummaryLost) },
    Scenario {
        name: "q_31",
        says: "the first reading of Observation lacks an entry on its second page, which warns that pages have shifted",
        make: || Box::new(Shifted::default()),
    },
    Scenario {
        name: "q_80",
        says: "each 25th link to a further page that is followed is not known any more (404 and 410 in turn), as where results are kept for so long only",
        make: || Box::new(LostHandles::default()),
    },
    Scenario { name: "q_81", says: "`_sort` is taken, and results are in the order of their ids", make: || Box::new(IgnoredSort) },
    Scenario { name: "q_32", says: "one Observation cannot be written: every page that would hold it is an error", make: || Box::new(Poison::default()) },
];

/// The parameter in which links of these quirks keep what they need.
const STATE: &str = "_state";
/// The same for pages by offset.
const OFFSET: &str = "_offset";
/// Where a capped search ends.
const CAP: usize = 100;
/// Longest address that the proxy of Q-20 lets through.
const ADDRESS_BYTES_MAX: usize = 2_048;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The entries of a page.
fn entries_of(page: &mut Value) -> Option<&mut Vec<Value>> {
    page.get_mut("entry")?.as_array_mut()
}

/// Changes the address of the `next` link, if there is one.
fn change_next(reply: &mut Reply, change: impl FnOnce(&str) -> String) {
    if reply.is_searchset() {
        reply.edit(|page| {
            if let Some(next) = next_of(page) {
                *next = change(next.as_str().unwrap_or("")).into();
            }
        });
    }
}

fn remove_next(page: &mut Value) {
    if let Some(links) = page.get_mut("link").and_then(Value::as_array_mut) {
        links.retain(|link| link.get("relation").and_then(Value::as_str) != Some("next"));
    }
}

/// Cuts one page out of a whole result, as servers do that keep none: from `_offset`, moved by `shift`, as many as asked.
fn cut_page(sent: &Incoming, reply: &mut Reply, scene: &Scene, shift: isize, arrange: impl FnOnce(&mut Vec<Value>)) {
    if !reply.is_searchset() {
        return;
    }
    let number = |name| sent.parameter(name).and_then(|text| text.parse::<usize>().ok());
    let (offset, count) = (number(OFFSET).unwrap_or(0), number("_count").unwrap_or(50).max(1));
    let mut further = sent.by_get();
    further.take(OFFSET);
    further.add(OFFSET, &(offset + count).to_string());
    reply.edit(|page| {
        let Some(mut entries) = entries_of(page).map(std::mem::take) else { return };
        arrange(&mut entries);
        let start = offset.saturating_add_signed(shift).min(entries.len());
        let end = start.saturating_add(count).min(entries.len());
        let more = end < entries.len();
        page["entry"] = entries.drain(start..end).collect();
        if let Some(links) = page.get_mut("link").and_then(Value::as_array_mut).filter(|_| more) {
            links.push(json!({"relation": "next", "url": format!("{}{}", scene.origin, further.target())}));
        }
    });
}

/// Whether this is a search's first page, by GET or by POST.
fn begins(sent: &Incoming) -> bool {
    sent.endpoint() == Endpoint::Search && sent.parameter(OFFSET).is_none()
}

///
struct OpaqueState;

impl OpaqueState {
    /// As it stands in a link, and as it comes back: what is not ASCII as HTTP must have it, and nothing else otherwise.
    fn states() -> [String; 2] {
        let state = format!("a+b%2Bc==d|e%7Cf%c3%a9:/?~\u{fc}{}", "x".repeat(8_000));
        [state.clone(), state.replace('\u{fc}', "%C3%BC")]
    }
}

impl Quirk for OpaqueState {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Page {
            return None;
        }
        let parts = request.query.as_deref().unwrap_or("").split('&');
        let state = parts.filter_map(|part| part.strip_prefix("_state=")).collect::<Vec<_>>().join("&");
        request.take(STATE);
        (state != Self::states()[1]).then(|| Reply::outcome(StatusCode::BAD_REQUEST, "value", "this is not a link of this server"))
    }

    fn after(&self, _sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        change_next(reply, |next| format!("{next}&{STATE}={}", Self::states()[0]));
    }
}

///
struct LooseTotals;

impl Quirk for LooseTotals {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        let total = match sent.kind() {
            Some("Patient") => json!(-3),
            Some("Encounter") => json!("many"),
            Some("Condition") => json!(1),
            Some("Observation") => json!(5_000),
            _ => return,
        };
        if reply.is_searchset() {
            reply.edit(|page| page["total"] = total);
        }
    }
}

///
#[derive(Default)]
struct Moving {
    /// How often the search of a type was begun.
    begun: Mutex<HashMap<String, u32>>,
}

impl Quirk for Moving {
    fn pages(&self) -> bool {
        true
    }

    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if begins(request) {
            *locked(&self.begun).entry(request.kind().unwrap_or_default().to_owned()).or_default() += 1;
        }
        request.take(OFFSET);
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let kind = sent.kind().unwrap_or_default();
        let is_first = locked(&self.begun).get(kind) == Some(&1) && !begins(sent);
        let shift = match kind {
            "Observation" if is_first => -1,
            "Encounter" if is_first => 1,
            _ => 0,
        };
        if begins(sent) && reply.is_searchset() {
            reply.edit(|page| page["total"] = entries_of(page).map_or(0, |entries| entries.len()).into());
        }
        cut_page(sent, reply, scene, shift, |_| {});
    }
}

/// The address of a page's `next` link.
fn next_of(page: &mut Value) -> Option<&mut Value> {
    let links = page.get_mut("link")?.as_array_mut()?;
    links.iter_mut().find(|link| link.get("relation").and_then(Value::as_str) == Some("next"))?.get_mut("url")
}

///
struct RelativeNext;

impl Quirk for RelativeNext {
    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if !reply.is_searchset() {
            return;
        }
        reply.edit(|page| {
            let Some(next) = next_of(page) else { return };
            let absolute = next.as_str().unwrap_or("").to_owned();
            let from = |start: &str| absolute.strip_prefix(start).unwrap_or(&absolute).to_owned();
            *next = match (sent.endpoint(), sent.target().len() % 2) {
                (Endpoint::Search, 0) => from(&scene.origin),
                (Endpoint::Search, _) => from(&format!("{}/", scene.base)),
                _ => from(&format!("{}{}", scene.origin, sent.path)),
            }
            .into();
        });
    }
}

///
struct InternalOrigin;

impl Quirk for InternalOrigin {
    fn after(&self, _sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        change_next(reply, |next| next.replacen(&scene.origin, &scene.elsewhere, 1));
    }
}

///
struct PortTwice;

impl Quirk for PortTwice {
    fn after(&self, _sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let port = scene.origin.rsplit(':').next().unwrap_or("443");
        change_next(reply, |next| next.replacen(&scene.origin, &format!("{}:{port}", scene.origin), 1));
    }
}

///
struct LongLinks;

impl Quirk for LongLinks {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.method == Method::GET && request.target().len() > ADDRESS_BYTES_MAX {
            let status = if request.endpoint() == Endpoint::Page { StatusCode::NOT_FOUND } else { StatusCode::URI_TOO_LONG };
            return Some(Reply::empty(status));
        }
        request.take(STATE);
        if request.parameter("_page").is_some() {
            *request = request.by_get();
        }
        None
    }

    fn after(&self, _sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        change_next(reply, |next| format!("{next}&{STATE}={}", "s".repeat(ADDRESS_BYTES_MAX)));
    }
}

///
struct PostOnly;

impl Quirk for PostOnly {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if !request.path.ends_with("/_search") || request.parameter("_page").is_none() {
            return None;
        }
        if request.method == Method::GET || request.kind() == Some("Observation") {
            return Some(Reply::outcome(StatusCode::NOT_FOUND, "not-found", "there is no such resource"));
        }
        let page = request.parameter("_page").unwrap_or_default();
        *request = request.by_get();
        request.query = None;
        request.add("_page", &page);
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.path.ends_with("/_search") {
            change_next(reply, |next| next.replacen('?', "/_search?", 1));
        }
    }
}

///
struct Capped;

impl Quirk for Capped {
    fn pages(&self) -> bool {
        true
    }

    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        request.take(OFFSET);
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        cut_page(sent, reply, scene, 0, |entries| entries.truncate(CAP));
    }
}

///
#[derive(Default)]
struct Lossy {
    searches: AtomicU64,
}

impl Quirk for Lossy {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if begins(request) && request.parameter("_summary").is_none() {
            request.add("_total", "accurate");
            self.searches.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    fn after(&self, _sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        let round = self.searches.load(Ordering::Relaxed);
        if reply.is_searchset() {
            reply.edit(|page| {
                let Some(entries) = entries_of(page).filter(|entries| entries.len() > 20) else { return };
                entries.remove(usize::try_from(round).unwrap_or(0) % 20);
            });
        }
    }
}

///
struct LostLink;

impl Quirk for LostLink {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if begins(request) {
            request.add("_total", "accurate");
        }
        None
    }

    fn after(&self, _sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if reply.is_searchset() {
            reply.edit(remove_next);
        }
    }
}

///
#[derive(Default)]
struct Unsorted {
    requests: AtomicU64,
}

impl Quirk for Unsorted {
    fn pages(&self) -> bool {
        true
    }

    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        request.take(OFFSET);
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        let mut dice = Dice::new(25, "order", self.requests.fetch_add(1, Ordering::Relaxed));
        cut_page(sent, reply, scene, 0, |entries| {
            for last in (1..entries.len()).rev() {
                let other = dice.between(0, i64::try_from(last).unwrap_or(0));
                entries.swap(last, usize::try_from(other).unwrap_or(0));
            }
        });
    }
}

///
struct SamePageAgain;

impl SamePageAgain {
    const COUNTER: &'static str = "_offset";
}

impl Quirk for SamePageAgain {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        request.take(Self::COUNTER);
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if !reply.is_searchset() {
            return;
        }
        let mut again = sent.clone();
        let times: u64 = again.take(Self::COUNTER).and_then(|times| times.parse().ok()).unwrap_or(0);
        again.add(Self::COUNTER, &(times + 1).to_string());
        reply.edit(|page| {
            if let Some(next) = next_of(page) {
                *next = format!("{}{}", scene.origin, again.target()).into();
            }
        });
    }
}

///
struct EmptyPages;

impl EmptyPages {
    const SECOND: &'static str = "_second";
}

impl Quirk for EmptyPages {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        request.take(Self::SECOND);
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, scene: &Scene) {
        if sent.endpoint() != Endpoint::Page || sent.parameter(Self::SECOND).is_some() || !reply.is_searchset() {
            return;
        }
        let mut filled = sent.clone();
        filled.add(Self::SECOND, "1");
        reply.edit(|page| {
            let next = json!({"relation": "next", "url": format!("{}{}", scene.origin, filled.target())});
            if let Some(page) = page.as_object_mut() {
                page.remove("entry");
                page.insert("link".to_owned(), json!([next]));
            }
        });
    }
}

///
#[derive(Default)]
struct Forgetful {
    /// How often the search of a type was begun.
    begun: Mutex<HashMap<String, u32>>,
}

impl Quirk for Forgetful {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        let kind = request.kind().unwrap_or_default().to_owned();
        let mut begun = locked(&self.begun);
        if begins(request) {
            *begun.entry(kind.clone()).or_default() += 1;
        }
        if request.endpoint() != Endpoint::Page {
            return None;
        }
        let (times, status) = match kind.as_str() {
            "Encounter" => (1, StatusCode::INTERNAL_SERVER_ERROR),
            "Condition" => (1, StatusCode::BAD_REQUEST),
            "Patient" => (2, StatusCode::GONE),
            "Observation" => (u32::MAX, StatusCode::NOT_FOUND),
            _ => (0, StatusCode::OK),
        };
        let forgotten = begun.get(&kind).is_some_and(|begun| *begun <= times);
        forgotten.then(|| Reply::outcome(status, "expired", "the search has expired"))
    }
}

///
struct BoundToSize;

impl Quirk for BoundToSize {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Page {
            return None;
        }
        let sizes = request.query.as_deref().unwrap_or("").split('&').filter(|part| part.starts_with("_count=")).count();
        let (size, bound) = (request.take("_count"), request.take(STATE));
        let fits = sizes == 1 && size == bound;
        (!fits).then(|| Reply::outcome(StatusCode::BAD_REQUEST, "value", "the page size of a search cannot change"))
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        let size = sent.parameter("_count").unwrap_or_default();
        change_next(reply, |next| format!("{next}&_count={size}&{STATE}={size}"));
    }
}

///
struct SummaryLost;

impl Quirk for SummaryLost {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        request.take("_summary");
        None
    }

    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.parameter("_summary").is_some() && reply.is_searchset() {
            reply.edit(remove_next);
        }
    }
}

///
#[derive(Default)]
struct Shifted {
    pages: AtomicU64,
}

impl Quirk for Shifted {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        let is_second = sent.endpoint() == Endpoint::Page && sent.kind() == Some("Observation") && reply.is_searchset();
        if !is_second || self.pages.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        let warning: Value = outcome("warning", "conflict", "Pages have shifted; check pages for changed results.").parse().unwrap_or_default();
        reply.edit(|page| {
            if let Some(entries) = entries_of(page) {
                entries.pop();
                entries.push(json!({"resource": warning, "search": {"mode": "outcome"}}));
            }
        });
    }
}

///
#[derive(Default)]
struct Poison {
    /// The resource that cannot be written.
    id: Mutex<Option<String>>,
}

impl Quirk for Poison {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.kind() != Some("Observation") || !reply.is_searchset() {
            return;
        }
        let mut poison = locked(&self.id);
        let mut bad = false;
        reply.edit(|page| {
            let ids = entries_of(page).into_iter().flatten().filter_map(|entry| entry.get("resource")?.get("id")?.as_str());
            let ids: Vec<&str> = ids.collect();
            let own = poison.get_or_insert_with(|| ids.get(3).copied().unwrap_or_default().to_owned());
            bad = ids.contains(&own.as_str());
        });
        if bad {
            *reply = Reply::outcome(StatusCode::INTERNAL_SERVER_ERROR, "exception", "Extension.url must not be null");
        }
    }
}

///
#[derive(Default)]
struct LostHandles {
    followed: AtomicU64,
}

impl LostHandles {
    const LIFE: u64 = 25;
}

impl Quirk for LostHandles {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if request.endpoint() != Endpoint::Page {
            return None;
        }
        let followed = self.followed.fetch_add(1, Ordering::Relaxed) + 1;
        let status = if (followed / Self::LIFE).is_multiple_of(2) { StatusCode::NOT_FOUND } else { StatusCode::GONE };
        followed
            .is_multiple_of(Self::LIFE)
            .then(|| Reply::outcome(status, "not-found", "the search does not exist and may have expired"))
    }
}

///
struct IgnoredSort;

impl Quirk for IgnoredSort {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        request.take("_sort");
        None
    }
}
