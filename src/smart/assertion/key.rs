//! A private signing key: generated, or read from PEM (PKCS#8, PKCS#1) or a private JWK.

use super::{Algorithm, Jwk, Jwks};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, KeyOperations, PublicKeyUse, ThumbprintHash};
use serde::Deserialize;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Largest key text that is read, in bytes.
const KEY_BYTES_MAX: usize = 64 * 1024;

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not a key of a supported kind.
    #[error("not a usable private key: expected {expected}")]
    Unreadable {
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The crypto library refused to generate.
    #[error("the key could not be generated")]
    Generate,
}

const EXPECTED: &str = "RSA (at least 2048 bits) or EC P-384, as PEM (PKCS#8 or PKCS#1) or as a private JWK";

/// A private key that signs client assertions. Its Debug form shows nothing secret.
#[derive(Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    encoding: EncodingKey,
    public: Jwk,
    kid: String,
    pem: String,
    file: Option<Arc<Path>>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct PrivateJwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl SigningKey {
    /// A new key: RSA of 3072 bits, or EC P-384.
    pub fn generate(algorithm: Algorithm) -> Result<SigningKey, KeyError> {
        let pkcs8 = match algorithm {
            Algorithm::Rs384 => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa3072).map_err(|_| KeyError::Generate)?;
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
                der.as_ref().to_vec()
            }
            Algorithm::Es384 => EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)
                .and_then(|pair| pair.to_pkcs8v1())
                .map_err(|_| KeyError::Generate)?
                .as_ref()
                .to_vec(),
        };
        SigningKey::from_pem(&pem_text("PRIVATE KEY", &pkcs8))
    }

    /// Reads a key in PEM: PKCS#8 (RSA or EC P-384) or PKCS#1 (RSA). Its `kid` is the RFC 7638 thumbprint.
    pub fn from_pem(pem: &str) -> Result<SigningKey, KeyError> {
        if pem.len() > KEY_BYTES_MAX {
            return Err(KeyError::Unreadable { expected: EXPECTED });
        }
        if let Ok(encoding) = EncodingKey::from_rsa_pem(pem.as_bytes()) {
            return SigningKey::build(Algorithm::Rs384, encoding, pem.to_owned(), None);
        }
        let encoding = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| KeyError::Unreadable { expected: EXPECTED })?;
        SigningKey::build(Algorithm::Es384, encoding, pem.to_owned(), None)
    }

    /// Reads a private JWK, or the first private key of a JWK set.
    pub fn from_jwk(text: &str) -> Result<SigningKey, KeyError> {
        let unreadable = || KeyError::Unreadable { expected: EXPECTED };
        if text.len() > KEY_BYTES_MAX {
            return Err(unreadable());
        }
        let value: serde_json::Value = serde_json::from_str(text).map_err(|_| unreadable())?;
        let keys = match value.get("keys").and_then(|keys| keys.as_array()) {
            Some(keys) => keys.clone(),
            None => vec![value],
        };
        let private = keys.into_iter().find(|key| key.get("d").is_some()).ok_or_else(unreadable)?;
        let jwk: PrivateJwk = serde_json::from_value(private).map_err(|_| unreadable())?;
        match jwk.kty.as_str() {
            "RSA" => SigningKey::from_rsa_jwk(&jwk),
            "EC" if jwk.crv.as_deref() == Some("P-384") => SigningKey::from_ec_jwk(&jwk),
            _ => Err(unreadable()),
        }
    }

    /// Reads PEM or JWK, whichever the text is.
    pub fn from_text(text: &str) -> Result<SigningKey, KeyError> {
        if text.trim_start().starts_with('{') { SigningKey::from_jwk(text) } else { SigningKey::from_pem(text) }
    }

    fn from_rsa_jwk(jwk: &PrivateJwk) -> Result<SigningKey, KeyError> {
        let members = [&jwk.n, &jwk.e, &jwk.d, &jwk.p, &jwk.q, &jwk.dp, &jwk.dq, &jwk.qi];
        let mut body = vec![0x02, 0x01, 0x00];
        for member in members {
            der_integer(&mut body, &decode(member)?);
        }
        let mut der = vec![0x30];
        der_length(&mut der, body.len());
        der.extend_from_slice(&body);
        let pem = pem_text("RSA PRIVATE KEY", &der);
        SigningKey::build(Algorithm::Rs384, EncodingKey::from_rsa_der(&der), pem, jwk.kid.clone())
    }

    fn from_ec_jwk(jwk: &PrivateJwk) -> Result<SigningKey, KeyError> {
        let unreadable = |_| KeyError::Unreadable { expected: EXPECTED };
        let mut public = vec![0x04];
        public.extend(decode(&jwk.x)?);
        public.extend(decode(&jwk.y)?);
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P384_SHA384_FIXED_SIGNING, &decode(&jwk.d)?, &public).map_err(unreadable)?;
        debug_assert_eq!(pair.public_key().as_ref(), public.as_slice());
        let der = pair.to_pkcs8v1().map_err(|_| KeyError::Unreadable { expected: EXPECTED })?;
        let pem = pem_text("PRIVATE KEY", der.as_ref());
        SigningKey::build(Algorithm::Es384, EncodingKey::from_ec_der(der.as_ref()), pem, jwk.kid.clone())
    }

    fn build(algorithm: Algorithm, encoding: EncodingKey, pem: String, kid: Option<String>) -> Result<SigningKey, KeyError> {
        let unreadable = |_| KeyError::Unreadable { expected: EXPECTED };
        let mut public = Jwk::from_encoding_key(&encoding, algorithm.jwt()).map_err(unreadable)?;
        let strong = match &public.algorithm {
            AlgorithmParameters::RSA(rsa) => URL_SAFE_NO_PAD.decode(&rsa.n).is_ok_and(|n| n.len() >= super::RSA_MODULUS_BYTES_MIN),
            _ => true,
        };
        if !strong {
            return Err(KeyError::Unreadable { expected: EXPECTED });
        }
        let kid = match kid {
            Some(kid) if !kid.is_empty() => kid,
            _ => public.thumbprint(ThumbprintHash::SHA256).map_err(unreadable)?,
        };
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_operations = Some(vec![KeyOperations::Verify]);
        Ok(SigningKey { algorithm, encoding, public, kid, pem, file: None })
    }

    /// The same key, known to be kept in a file.
    pub fn kept_in(self, file: &Path) -> SigningKey {
        SigningKey { file: Some(file.into()), ..self }
    }

    /// The key that its file holds now, so that a key can be replaced while a job runs. This one, if it is kept in no
    /// file or what is there cannot be read.
    pub fn current(&self) -> SigningKey {
        let Some(file) = &self.file else { return self.clone() };
        let mut text = String::new();
        let read = std::fs::File::open(file).and_then(|open| open.take(KEY_BYTES_MAX as u64 + 1).read_to_string(&mut text));
        match read.ok().and_then(|_| SigningKey::from_text(&text).ok()) {
            Some(key) if key.kid == self.kid => self.clone(),
            Some(key) => key.kept_in(file),
            None => {
                tracing::warn!(kid = self.kid, "the key's file cannot be read any more; the key is used as it was");
                self.clone()
            }
        }
    }

    /// The key's identifier, as registered.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm this key signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public half, to be registered with the authorization server.
    pub fn public_jwk(&self) -> Jwk {
        self.public.clone()
    }

    /// The public half as a key set.
    pub fn public_jwks(&self) -> Jwks {
        Jwks { keys: vec![self.public.clone()] }
    }

    /// The private key as PEM, to be written to a file of mode 0600 and nowhere else.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

fn decode(member: &Option<String>) -> Result<Vec<u8>, KeyError> {
    member
        .as_ref()
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .filter(|bytes| !bytes.is_empty())
        .ok_or(KeyError::Unreadable { expected: EXPECTED })
}

fn der_length(out: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let bytes = length.to_be_bytes();
    let significant: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    out.push(0x80 | significant.len() as u8);
    out.extend(significant);
}

fn der_integer(out: &mut Vec<u8>, magnitude: &[u8]) {
    let mut digits: Vec<u8> = magnitude.iter().copied().skip_while(|byte| *byte == 0).collect();
    // A leading one bit would read as a negative number.
    if digits.first().is_none_or(|first| first & 0x80 != 0) {
        digits.insert(0, 0);
    }
    out.push(0x02);
    der_length(out, digits.len());
    out.extend(digits);
}

fn pem_text(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
