//! The ways to a peer: through the proxy that the environment names or past it, and to the peer's own origins with the certificate that
//! says who asks.

use super::{HttpError, Settings};
use std::path::{Path, PathBuf};

/// Where the certificate stands by which a client shows who it is, and its private key (PEM files): mutual TLS (RFC 8446 section 4.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Identity {
    /// Reads both files, as they are now. Errors name files, and nothing of what they hold.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(&self) -> Result<reqwest::Identity, String> {
        let text = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()));
        let (chain, private) = (text(&self.certificate)?, text(&self.key)?);
        let pem = format!("{chain}\n{private}\n");
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (certificate, key) = (name(&self.certificate), name(&self.key));
        if !pem.contains("-----BEGIN CERTIFICATE-----") || reqwest::Certificate::from_pem_bundle(chain.as_bytes()).is_err() {
            return Err(format!("`{certificate}` holds no certificate in PEM form, or not all of it"));
        }
        if pem.contains("ENCRYPTED") {
            return Err(format!("the key in `{key}` is encrypted, expected one without a passphrase, in a file that only this program's user can read"));
        }
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).map_err(|_| format!("`{key}` holds no private key in PEM form"))?;
        let trial = reqwest::Client::builder().tls_certs_only([]).identity(identity.clone()).build();
        trial
            .map(|_| identity)
            .map_err(|_| format!("the private key in `{key}` is not that of the certificate in `{certificate}`"))
    }
}

/// The ways to those who may, or may not, know who asks.
pub(super) struct Way {
    far: reqwest::Client,
    /// For this machine itself: no proxy sees what is meant for it.
    here: reqwest::Client,
}

impl Way {
    /// To the peer's own origins, and to all others.
    pub(super) fn build(settings: &Settings) -> Result<(Way, Way), HttpError> {
        let identity = settings.identity.as_ref().map(Identity::read).transpose().map_err(HttpError::Settings)?;
        Ok((Way::showing(settings, identity)?, Way::showing(settings, None)?))
    }

    fn showing(settings: &Settings, identity: Option<reqwest::Identity>) -> Result<Way, HttpError> {
        let mut own = Vec::new();
        for pem in &settings.root_certificates {
            own.extend(reqwest::Certificate::from_pem_bundle(pem).map_err(|_| HttpError::Settings("a root certificate is not PEM".to_owned()))?);
        }
        let builder = |is_here: bool| {
            let builder = reqwest::Client::builder();
            let builder = if is_here { builder.no_proxy() } else { builder };
            let builder = identity.iter().fold(builder, |builder, identity| builder.identity(identity.clone()));
            builder
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_gzip()
                .no_zstd()
                .connect_timeout(settings.connect_timeout)
                .read_timeout(settings.read_timeout)
                .user_agent(concat!("watershed/", env!("CARGO_PKG_VERSION")))
        };
        let build = |is_here| {
            let beside_the_systems = if own.is_empty() { builder(is_here) } else { builder(is_here).tls_certs_merge(own.clone()) };
            // A system without any certificates (a bare container) trusts our own, and nobody else.
            let built = beside_the_systems.build().or_else(|_| builder(is_here).tls_certs_only(own.clone()).build());
            built.map_err(|_| HttpError::Settings("TLS could not be set up".to_owned()))
        };
        Ok(Way { far: build(false)?, here: build(true)? })
    }

    pub(super) fn to(&self, is_here: bool) -> &reqwest::Client {
        if is_here { &self.here } else { &self.far }
    }
}
