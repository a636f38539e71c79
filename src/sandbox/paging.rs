//! Pages of a search: the result is fixed when the search runs, and links to its pages are signed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::chart::Version;
use super::reply::random;
use super::search::Query;

/// Results kept for later pages; the oldest goes first.
const RESULTS_MAX: usize = 1_024;
const ID_BYTES: usize = 16;
const MAC_BYTES: usize = 16;

/// The result of one search.
pub(super) struct Results {
    /// The client that searched.
    pub(super) client: String,
    /// Type that was searched.
    pub(super) kind: &'static str,
    /// Matches, as they stood when the search ran.
    pub(super) matches: Vec<Arc<Version>>,
    /// Resources on a page.
    pub(super) page: usize,
    /// What was asked.
    pub(super) query: Query,
    /// Until when its links work.
    pub(super) expires: Timestamp,
}

/// Why a page link does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadLink {
    /// It was not made here, or was changed.
    Forged,
    /// Its result is no longer kept.
    Expired,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<[u8; ID_BYTES], Arc<Results>>,
    order: VecDeque<[u8; ID_BYTES]>,
}

/// Results that have more pages.
pub(super) struct Pages {
    key: hmac::Key,
    kept: Mutex<Kept>,
}

impl Pages {
    pub(super) fn new() -> Pages {
        Pages { key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()), kept: Mutex::default() }
    }

    /// Keeps a result for its later pages.
    pub(super) fn keep(&self, results: Arc<Results>) -> [u8; ID_BYTES] {
        let id = random::<ID_BYTES>();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.order.push_back(id);
        kept.by_id.insert(id, results);
        while kept.order.len() > RESULTS_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_id.remove(&oldest);
            }
        }
        id
    }

    /// The link token to the page that starts at `offset`.
    pub(super) fn token(&self, id: [u8; ID_BYTES], offset: usize) -> String {
        let mut bytes = id.to_vec();
        bytes.extend(u64::try_from(offset).unwrap_or(u64::MAX).to_be_bytes());
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend(tag.as_ref().iter().take(MAC_BYTES));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The result and offset behind a token.
    pub(super) fn open(&self, token: &str, client: &str, now: Timestamp) -> Result<([u8; ID_BYTES], Arc<Results>, usize), BadLink> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadLink::Forged)?;
        let (signed, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(BadLink::Forged)?;
        let tag = hmac::sign(&self.key, signed);
        let genuine = tag.as_ref().get(..MAC_BYTES).is_some_and(|own| aws_lc_rs::constant_time::verify_slices_are_equal(own, mac).is_ok());
        let (id, offset) = signed.split_first_chunk::<ID_BYTES>().ok_or(BadLink::Forged)?;
        let offset = <[u8; 8]>::try_from(offset).map_err(|_| BadLink::Forged)?;
        if !genuine {
            return Err(BadLink::Forged);
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let results = kept.by_id.get(id).filter(|results| results.expires > now).ok_or(BadLink::Expired)?;
        if results.client != client {
            return Err(BadLink::Forged);
        }
        Ok((*id, Arc::clone(results), usize::try_from(u64::from_be_bytes(offset)).unwrap_or(usize::MAX)))
    }
}
