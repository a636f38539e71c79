//! Serving HTTP, or HTTPS with a certificate, until asked to stop; running requests are finished first.

use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum_server::tls_rustls::RustlsConfig;

/// How long running requests may take once it is asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may wait with its first request.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(30);

/// A certificate chain and its private key, both PEM files.
pub type Certificate = (PathBuf, PathBuf);

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The certificate cannot be served with the key.
    #[error("certificate `{}` with key `{}`: {reason}", certificate.display(), key.display())]
    Certificate {
        /// Its file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// The network refused.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads a certificate and its key.
///
/// # Errors
/// [`ListenError::Certificate`] if they cannot be used.
pub async fn load((certificate, key): &Certificate) -> Result<RustlsConfig, ListenError> {
    let loaded = RustlsConfig::from_pem_file(certificate, key).await;
    loaded.map_err(|error| ListenError::Certificate { certificate: certificate.clone(), key: key.clone(), reason: error.to_string() })
}

/// Serves until `shutdown` completes.
///
/// # Errors
/// [`ListenError`] if the certificate cannot be used or the listener fails.
pub async fn serve(router: Router, listener: TcpListener, tls: Option<Certificate>, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ListenError> {
    listener.set_nonblocking(true)?;
    let handle = axum_server::Handle::new();
    let stopper = handle.clone();
    let stop = tokio::spawn(async move {
        shutdown.await;
        stopper.graceful_shutdown(Some(STOP_WAIT));
    });
    let service = router.into_make_service();
    let served = match tls {
        Some((certificate, key)) => {
            let config = load(&(certificate, key)).await?;
            axum_server::from_tcp_rustls(listener, config)?
                .first_request_timeout(FIRST_REQUEST_WAIT)
                .handle(handle)
                .serve(service)
                .await
        }
        None => axum_server::from_tcp(listener)?.first_request_timeout(FIRST_REQUEST_WAIT).handle(handle).serve(service).await,
    };
    stop.abort();
    Ok(served?)
}
