//! Public keys at an address: a JWK Set of key files, read anew for each answer, so that a key can be put beside another
//! and the old one taken away while servers ask.

use super::assertion::{Jwks, SigningKey};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the set stands below the origin.
pub const PATH: &str = "/.well-known/jwks.json";
/// How long a server may believe the set, in seconds: as long as it takes for a new key to be known everywhere.
pub const FRESH_SECONDS: u32 = 300;
/// How long running requests may take once it is asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long a connection may wait with its first request.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(10);

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

/// Serves the set until `shutdown` completes; over TLS with a certificate chain and its key, both PEM.
pub async fn serve(files: Vec<PathBuf>, listener: TcpListener, tls: Option<(PathBuf, PathBuf)>, shutdown: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let service = Router::new().route(PATH, get(answer)).with_state(Arc::new(files)).into_make_service();
    let handle = axum_server::Handle::new();
    let stopper = handle.clone();
    let stop = tokio::spawn(async move {
        shutdown.await;
        stopper.graceful_shutdown(Some(STOP_WAIT));
    });
    let served = match tls {
        Some((certificate, key)) => {
            let config = axum_server::tls_rustls::RustlsConfig::from_pem_file(&certificate, &key).await?;
            axum_server::from_tcp_rustls(listener, config)?
                .first_request_timeout(FIRST_REQUEST_WAIT)
                .handle(handle)
                .serve(service)
                .await
        }
        None => axum_server::from_tcp(listener)?.first_request_timeout(FIRST_REQUEST_WAIT).handle(handle).serve(service).await,
    };
    stop.abort();
    served
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
