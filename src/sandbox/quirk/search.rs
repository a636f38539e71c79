//! Quirks of search: required parameters, filters, paging.

use serde_json::{Value, json};

use super::super::reply::Reply;
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario { name: "q_17", says: "links to further pages are relative: to the host, to the base or to the page", make: || Box::new(RelativeNext) },
    Scenario {
        name: "q_26",
        says: "the link to the next page leads to the first page again, at an address that is new each time",
        make: || Box::new(SamePageAgain),
    },
    Scenario { name: "q_27", says: "each further page comes empty first, with a link to the same page with its entries", make: || Box::new(EmptyPages) },
];

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
