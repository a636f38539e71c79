//! Serving HTTP, or HTTPS with a certificate, until asked to stop; running requests are finished first.

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::tls_rustls::RustlsConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};

/// How long running requests may take once it is asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may wait with its first request.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(30);

/// What HTTPS is served with: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate chain.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority of whose certificates every client must show one; none: clients need none.
    pub client_authority: Option<PathBuf>,
}

impl Certificate {
    /// One that asks nobody who they are.
    pub fn new(chain: PathBuf, key: PathBuf) -> Certificate {
        Certificate { chain, key, client_authority: None }
    }
}

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
pub async fn load(served: &Certificate) -> Result<RustlsConfig, ListenError> {
    let loaded = match &served.client_authority {
        None => RustlsConfig::from_pem_file(&served.chain, &served.key).await.map_err(|error| error.to_string()),
        Some(authority) => asking_clients(served, authority),
    };
    loaded.map_err(|reason| ListenError::Certificate { certificate: served.chain.clone(), key: served.key.clone(), reason })
}

/// Serves those only who show a certificate of an authority.
fn asking_clients(served: &Certificate, authority: &Path) -> Result<RustlsConfig, String> {
    let of = |path: &Path, error: &dyn std::fmt::Display| format!("`{}`: {error}", path.display());
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        read.map_err(|error| of(path, &error))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(authority)? {
        roots.add(root).map_err(|error| of(authority, &error))?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|error| of(authority, &error))?;
    let key = PrivateKeyDer::from_pem_file(&served.key).map_err(|error| of(&served.key, &error))?;
    let built = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(certificates(&served.chain)?, key);
    let mut config = built.map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
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
        Some(certificate) => {
            let config = load(&certificate).await?;
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
