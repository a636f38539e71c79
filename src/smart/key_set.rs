//! Public keys at an address: a JWK Set of key files, read anew for each answer, so that a key can be put beside another
//! and the old one taken away while servers ask.

use super::assertion::{Jwks, SigningKey};
use crate::listen::{self, Certificate, ListenError};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the set stands below the origin.
pub const PATH: &str = "/.well-known/jwks.json";
/// How long a server may believe the set, in seconds: as long as it takes for a new key to be known everywhere.
pub const FRESH_SECONDS: u32 = 300;
/// The public halves of the keys in these files, each key once.
pub fn of_files(files: &[PathBuf]) -> Result<Jwks, String> {
    let mut set = Jwks::default();
    for file in files {
        let key = read(file)?;
        if set.keys.iter().all(|known| known.common.key_id.as_deref() != Some(key.kid())) {
            set.keys.push(key.public_jwk());
        }
    }
    Ok(set)
}

fn read(file: &Path) -> Result<SigningKey, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    SigningKey::from_text(&text).map_err(|error| format!("`{}`: {error}", file.display()))
}

/// Serves the set until `shutdown` completes.
pub async fn serve(files: Vec<PathBuf>, listener: TcpListener, tls: Option<Certificate>, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ListenError> {
    listen::serve(Router::new().route(PATH, get(answer)).with_state(Arc::new(files)), listener, tls, shutdown).await
}

async fn answer(State(files): State<Arc<Vec<PathBuf>>>) -> Response {
    match of_files(&files) {
        Ok(set) => ([(header::CACHE_CONTROL, format!("public, max-age={FRESH_SECONDS}"))], Json(set)).into_response(),
        // What a server has kept of an earlier answer is better than half a set.
        Err(error) => {
            tracing::error!(%error, "the keys cannot be published");
            (StatusCode::SERVICE_UNAVAILABLE, [(header::CACHE_CONTROL, "no-store")]).into_response()
        }
    }
}
