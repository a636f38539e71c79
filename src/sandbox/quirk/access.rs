//! Quirks of authentication and discovery.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::{StatusCode, header};

use super::super::reply::Reply;
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

/// Requests that a token is good for, under Q-02.
const TOKEN_USES: u32 = 7;

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "q_02",
        says: "a token is refused after seven requests, in the middle of paging, polling or downloading",
        make: || Box::new(WornTokens::default()),
    },
    Scenario { name: "q_10", says: "files are redirected to an object store that refuses requests with a token", make: || Box::new(ObjectStore) },
];

///
#[derive(Default)]
struct WornTokens {
    /// Uses of each token.
    uses: Mutex<HashMap<String, u32>>,
}

impl Quirk for WornTokens {
    fn before(&self, request: &mut Incoming, _scene: &Scene) -> Option<Reply> {
        if matches!(request.endpoint(), Endpoint::Token | Endpoint::Discovery | Endpoint::Metadata) {
            return None;
        }
        let token = request.header(header::AUTHORIZATION)?.to_owned();
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let used = uses.entry(token).or_default();
        *used += 1;
        (*used > TOKEN_USES).then(|| Reply::outcome(StatusCode::UNAUTHORIZED, "login", "the token has expired").with(header::WWW_AUTHENTICATE, "Bearer"))
    }
}

///
struct ObjectStore;

impl Quirk for ObjectStore {
    fn before(&self, request: &mut Incoming, scene: &Scene) -> Option<Reply> {
        let redirected = request.endpoint() == Endpoint::File && !request.is_elsewhere;
        redirected.then(|| Reply::empty(StatusCode::TEMPORARY_REDIRECT).with(header::LOCATION, format!("{}{}", scene.elsewhere, request.target())))
    }
}
