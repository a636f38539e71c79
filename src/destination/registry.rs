//! The adapter's side of the feed protocol: send a claimed feed to a Watershed registry, verify its receipt.

use crate::outbox::{Claim, Outcome};

/// Sends one claimed feed and says what became of it. Safe to repeat at any point: the registry answers a
/// repeated feed with the receipt it gave first.
pub async fn deliver(_registry: &Registry, _claim: &Claim, _part: &(dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync)) -> Outcome {
    todo!()
}

/// A registry as one site sees it.
pub struct Registry {
    /// Where it is, without a trailing slash.
    pub base: url::Url,
}
