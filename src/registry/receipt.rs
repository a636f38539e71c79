//! Receipts: signed by the registry's own key, so that a site can prove what was accepted.

use std::io::Write as _;
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::RegistryError;
use crate::feed::{RECEIPT_TYPE, ReceiptClaims, sha256_hex};

/// File of the key in the registry's data directory (PKCS #8, DER, readable by its owner only).
const KEY_FILE: &str = "receipt-key.p8";

/// The registry's signing key (ECDSA, P-384, SHA-384).
pub struct ReceiptKey {
    key: EncodingKey,
    public: Jwk,
    id: String,
}

impl ReceiptKey {
    /// Reads the key from the data directory, or makes one there.
    pub fn open(data: &Path) -> Result<Self, RegistryError> {
        let path = data.join(KEY_FILE);
        if !path.exists() {
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new())
                .map_err(|_| RegistryError::Configuration("a receipt key cannot be generated".into()))?;
            write_secret(data, &path, der.as_ref())?;
        }
        let der = std::fs::read(&path)?;
        let unusable = |error: &dyn std::fmt::Display| RegistryError::Configuration(format!("`{}` is not an ECDSA P-384 key in PKCS #8: {error}", path.display()));
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der).map_err(|error| unusable(&error))?;
        let key = EncodingKey::from_ec_der(&der);
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES384).map_err(|error| unusable(&error))?;
        let id: String = sha256_hex(&serde_json::to_vec(&public.algorithm).unwrap_or_default()).chars().take(16).collect();
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, public, id })
    }

    /// The public key, as a JWK Set.
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.public.clone()] }
    }

    /// The receipt, as a compact JWS. `None` only if the key cannot sign, which opening it has ruled out.
    pub fn sign(&self, claims: &ReceiptClaims) -> Option<String> {
        let mut header = Header::new(Algorithm::ES384);
        header.typ = Some(RECEIPT_TYPE.to_owned());
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.key).ok()
    }
}

/// Written aside, synced and renamed, so that a crash leaves the whole key or none.
fn write_secret(data: &Path, path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    let aside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    std::fs::File::open(data)?.sync_all()?;
    Ok(())
}
