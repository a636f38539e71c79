//! Receipts: signed by the registry's own key, so that a site can prove what was accepted.

use std::io::Write as _;
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};

use super::RegistryError;
use super::store::{self, RegistryStore};
use crate::diagnostic::counted;
use crate::feed::{RECEIPT_TYPE, ReceiptClaims, sha256_hex};

/// File of the key in the registry's data directory (PKCS #8, DER, readable by its owner only).
const KEY_FILE: &str = "receipt-key.p8";

/// The registry's signing key (ECDSA, P-384, SHA-384).
pub struct ReceiptKey {
    key: EncodingKey,
    public: JwkSet,
    id: String,
}

impl ReceiptKey {
    /// Reads the key from the data directory. It is made there for the first start; later only where `anew` says so, for a
    /// receipt that sites hold can be believed as long as its key is known.
    pub fn open(data: &Path, store: &RegistryStore, anew: bool, now: Timestamp) -> Result<Self, RegistryError> {
        let path = data.join(KEY_FILE);
        let (known, receipts) = store.read(|transaction| Ok::<_, RegistryError>((store::receipt_keys(transaction)?, store::receipts(transaction)?)))?;
        let refused = |what: &str| {
            let restore = "copy the key back from where you keep it; if it is lost, `watershed registry serve --new-receipt-key` goes on with another one";
            RegistryError::Configuration(format!("`{}` {what} with which the registry signed the receipts of {}: {restore}", path.display(), counted(receipts, "feed")))
        };
        if !path.exists() {
            if receipts > 0 && !anew {
                return Err(refused("is missing, the key"));
            }
            write_new(data, &path)?;
        }
        let (key, public, id) = read(&path)?;
        let is_new = known.iter().all(|(known, _)| *known != id);
        let is_other = is_new && !known.is_empty();
        if is_other && receipts > 0 && !anew {
            return Err(refused("is not the key"));
        }
        if is_new {
            let jwk = serde_json::to_string(&public).unwrap_or_default();
            store.write(|transaction| Ok::<_, RegistryError>(store::add_receipt_key(transaction, &id, &jwk, is_other, now)?))?;
        }
        let earlier = known.iter().filter(|(known, _)| *known != id).filter_map(|(_, jwk)| serde_json::from_str(jwk).ok());
        let public = JwkSet { keys: std::iter::once(public).chain(earlier).collect() };
        Ok(Self { key, public, id })
    }

    /// The public keys, as a JWK Set: that of this key first, then those that signed before.
    pub fn jwks(&self) -> &JwkSet {
        &self.public
    }

    /// The receipt, as a compact JWS. `None` only if the key cannot sign, which opening it has ruled out.
    pub fn sign(&self, claims: &ReceiptClaims) -> Option<String> {
        let mut header = Header::new(Algorithm::ES384);
        header.typ = Some(RECEIPT_TYPE.to_owned());
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.key).ok()
    }
}

/// Every public key by which a receipt can be verified here: those that signed, and the one in the data directory.
pub fn public_keys(data: &Path, known: &[(String, String)]) -> JwkSet {
    let own = read(&data.join(KEY_FILE)).ok().map(|(_, public, _)| public);
    JwkSet { keys: own.into_iter().chain(known.iter().filter_map(|(_, jwk)| serde_json::from_str(jwk).ok())).collect() }
}

/// What a receipt says, if one of the keys signed it.
pub fn verify(receipt: &str, keys: &JwkSet) -> Result<ReceiptClaims, &'static str> {
    let kid = jsonwebtoken::decode_header(receipt).ok().and_then(|header| header.kid).ok_or("is none")?;
    let key = keys.find(&kid).ok_or("was signed with a key that is not known here")?;
    let key = DecodingKey::from_jwk(key).map_err(|_| "was signed with a key that cannot be used")?;
    let mut validation = Validation::new(Algorithm::ES384);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode(receipt, &key, &validation)
        .map(|data| data.claims)
        .map_err(|_| "does not have the signature of its key")
}

/// The key in a file, its public half and its name.
fn read(path: &Path) -> Result<(EncodingKey, Jwk, String), RegistryError> {
    let der = std::fs::read(path)?;
    let unusable = |error: &dyn std::fmt::Display| RegistryError::Configuration(format!("`{}` is not an ECDSA P-384 key in PKCS #8: {error}", path.display()));
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der).map_err(|error| unusable(&error))?;
    let key = EncodingKey::from_ec_der(&der);
    let mut public = Jwk::from_encoding_key(&key, Algorithm::ES384).map_err(|error| unusable(&error))?;
    let id: String = sha256_hex(&serde_json::to_vec(&public.algorithm).unwrap_or_default()).chars().take(16).collect();
    public.common.key_id = Some(id.clone());
    public.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok((key, public, id))
}

/// Written aside, synced and renamed, so that a crash leaves the whole key or none.
fn write_new(data: &Path, path: &Path) -> Result<(), RegistryError> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new())
        .map_err(|_| RegistryError::Configuration("a receipt key cannot be generated".into()))?;
    let aside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&aside)?;
    file.write_all(der.as_ref())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    std::fs::File::open(data)?.sync_all()?;
    Ok(())
}
