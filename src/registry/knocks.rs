//! Who was not let in: clients and keys that are not registered, counted for the board.
//!
//! In memory alone, since the registry began to serve, and no more than [`KNOCKS_MAX`] of them: who is not known makes nothing be written.
//! What they claim is shown where it looks like the name of a client or a key, else a digest of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::sha256_hex;
use crate::smart::assertion::AssertionError;

/// Clients and keys that are remembered; of more, those that came last.
const KNOCKS_MAX: usize = 50;
/// Characters of a name that is shown as it is.
const NAME_CHARS_MAX: usize = 80;
/// Characters of the digest of any other.
const DIGEST_CHARS: usize = 16;

/// Why somebody was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No site has this client identifier.
    Client,
    /// The site's published keys cannot be had.
    Unpublished,
    /// What it was signed with, or what it says, is not accepted.
    Assertion(AssertionError),
    /// It was used before.
    Replayed,
}

/// One client with one key.
#[derive(Clone, Debug)]
pub(super) struct Knock {
    /// The client identifier that it gave.
    pub client: String,
    /// The name of the key that it gave; our own adapters' is the key's thumbprint.
    pub key: String,
    /// The site of that client identifier.
    pub site: Option<String>,
    /// Why the last time.
    pub why: Why,
    /// How often.
    pub count: u64,
    /// When last.
    pub last: Timestamp,
}

impl Knock {
    /// What a person at the registry can do.
    pub fn action(&self) -> String {
        match (&self.site, &self.why) {
            (Some(site), Why::Assertion(AssertionError::Key(_) | AssertionError::Signature)) => {
                format!("if the site says that this key is its own: `watershed registry site keys {site} --jwks FILE` with what it sends; else somebody uses its name")
            }
            (Some(_), Why::Unpublished) => "the site's engineer must publish the keys again where they are registered".to_owned(),
            (Some(_), Why::Replayed) => "nothing, unless it goes on: then somebody repeats what the site sent".to_owned(),
            (Some(_), Why::Assertion(_)) => "the site's engineer must look at the clock of the adapter's machine and at `registry.url`".to_owned(),
            (None, _) | (_, Why::Client) => format!("if it is a site of this network: `watershed registry site add NAME --client-id {} --jwks FILE`; else nothing", self.client),
        }
    }

    /// Why, in words.
    pub fn reason(&self) -> String {
        match &self.why {
            Why::Client => "no site is registered under this client identifier".to_owned(),
            Why::Unpublished => "the site's keys cannot be had from where it publishes them".to_owned(),
            Why::Assertion(AssertionError::Key(_)) => "this key is not registered for the site".to_owned(),
            Why::Assertion(error) => error.to_string(),
            Why::Replayed => "the assertion was used before".to_owned(),
        }
    }
}

/// All of them, by client and key.
#[derive(Default)]
pub(super) struct Knocks(Mutex<BTreeMap<(String, String), Knock>>);

impl Knocks {
    /// Counts one who was not let in.
    pub fn note(&self, client: &str, key: Option<&str>, site: Option<&str>, why: Why, now: Timestamp) {
        let (client, key) = (named(client), key.map_or_else(|| "none".to_owned(), named));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.get(&(client.clone(), key.clone())).map_or(0, |knock| knock.count) + 1;
        let knock = Knock { client: client.clone(), key: key.clone(), site: site.map(str::to_owned), why, count, last: now };
        all.insert((client, key), knock);
        if all.len() > KNOCKS_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, knock)| knock.last).map(|(name, _)| name.clone())
        {
            all.remove(&oldest);
        }
    }

    /// Forgets what a client was refused for: it was let in.
    pub fn forget(&self, client: &str) {
        let client = named(client);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(own, _), _| *own != client);
    }

    /// Those of the last time first.
    pub fn list(&self) -> Vec<Knock> {
        let mut all: Vec<Knock> = self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| (&a.client, &a.key).cmp(&(&b.client, &b.key))));
        all
    }
}

/// A name as it is shown.
fn named(claimed: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    if !claimed.is_empty() && claimed.len() <= NAME_CHARS_MAX && claimed.chars().all(is_plain) {
        return claimed.to_owned();
    }
    format!("sha256:{}", sha256_hex(claimed.as_bytes()).get(..DIGEST_CHARS).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_knock_are_counted_within_bounds() {
        let (knocks, at) = (Knocks::default(), |second: i64| Timestamp::from_second(second).unwrap());
        for second in 0..200 {
            knocks.note(&format!("client-{second}"), Some("k"), None, Why::Client, at(second));
        }
        let found = knocks.list();
        assert_eq!((found.len(), found[0].client.as_str(), found[KNOCKS_MAX - 1].client.as_str()), (KNOCKS_MAX, "client-199", "client-150"));
        knocks.note("client-199", Some("k"), None, Why::Client, at(300));
        knocks.note("<b>Jane Doe</b>", None, None, Why::Client, at(301));
        let found = knocks.list();
        assert_eq!(found[0].client.len(), "sha256:".len() + DIGEST_CHARS, "{}", found[0].client);
        assert_eq!((found[0].key.as_str(), found[1].count, found.len()), ("none", 2, KNOCKS_MAX));
        knocks.forget("client-199");
        assert_eq!(knocks.list().len(), KNOCKS_MAX - 1);
    }
}
