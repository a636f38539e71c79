//! SMART Backend Services client assertions: keys, signing, and strict verification (RFC 7523, SMART App Launch).

mod key;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, KeyOperations, PublicKeyUse};
use serde::{Deserialize, Serialize};

pub use jsonwebtoken::jwk::Jwk;
pub use key::{KeyError, SigningKey};

/// Longest assertion that is looked at, in bytes. Real ones are below 2 kB.
pub const ASSERTION_BYTES_MAX: usize = 8 * 1024;
/// Longest life SMART allows an assertion, in seconds.
pub const LIFETIME_SECONDS_MAX: i64 = 300;
/// Life of the assertions made here: a minute under the limit, for a peer whose clock is behind.
pub const LIFETIME_SECONDS: i64 = 240;
/// How far a peer's clock may be ahead, in seconds.
pub const CLOCK_SKEW_SECONDS: i64 = 60;
/// Longest `iss`, `jti`, `kid` accepted, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Smallest RSA modulus accepted, in bytes (2048 bits).
const RSA_MODULUS_BYTES_MIN: usize = 256;

/// The two signature algorithms SMART Backend Services asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// ECDSA on P-384 with SHA-384.
    #[serde(rename = "ES384")]
    Es384,
}

impl Algorithm {
    fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
            Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
        }
    }

    /// The name in a JWT header.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs384 => "RS384",
            Algorithm::Es384 => "ES384",
        }
    }
}

/// A JSON Web Key Set, as registered with an authorization server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys; several while one is being rotated.
    pub keys: Vec<Jwk>,
}

/// Why an assertion was refused. The text is safe to log: it holds nothing of the assertion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Longer than [`ASSERTION_BYTES_MAX`].
    #[error("assertion is longer than 8 kB")]
    TooLong,
    /// Not three base64url parts holding JSON objects with the required members.
    #[error("assertion is not a compact JWS with {0}")]
    Malformed(&'static str),
    /// A header member that must not be trusted or is not understood.
    #[error("assertion header carries `{0}`, which is not accepted")]
    Header(&'static str),
    /// `alg` is neither RS384 nor ES384.
    #[error("assertion algorithm is not RS384 or ES384")]
    Algorithm,
    /// `iss` is not a registered client.
    #[error("client is not registered")]
    UnknownClient,
    /// No key, or more than one, fits `kid` and `alg`.
    #[error("{0} registered keys fit the assertion's `kid` and `alg`, expected exactly one")]
    Key(usize),
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
    /// A claim is wrong.
    #[error("claim `{claim}` {reason}")]
    Claim {
        /// The claim's name.
        claim: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key could not sign.
    #[error("signing key cannot sign")]
    Sign,
}

/// What a verified assertion says. The caller must still refuse a repeated (`client_id`, `jti`), durably, until `expires`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedAssertion {
    /// `iss` and `sub`: the client.
    pub client_id: String,
    /// The one-time identifier.
    pub jti: String,
    /// `exp`.
    pub expires: Timestamp,
}

#[derive(Serialize)]
struct OwnClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    jti: &'a str,
}

#[derive(Deserialize)]
struct PeerHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
    jku: Option<serde_json::Value>,
    jwk: Option<serde_json::Value>,
    x5u: Option<serde_json::Value>,
    x5c: Option<serde_json::Value>,
    b64: Option<serde_json::Value>,
}

/// The `typ` of assertions whose audience is an issuer.
const FOR_ISSUERS: &str = "client-authentication+jwt";

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct PeerClaims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    jti: String,
    iat: Option<i64>,
    nbf: Option<i64>,
}

/// Signs a client assertion for one token request. `audience` is the token endpoint's URL; `jti` must never repeat.
///
/// No `nbf` and no `iat` are sent: a second of clock drift makes some servers refuse them.
pub fn sign_client_assertion(key: &SigningKey, client_id: &str, audience: &str, now: Timestamp, jti: &str) -> Result<String, AssertionError> {
    sign(key, "JWT", client_id, audience, now, jti)
}

/// The same for an authorization server that knows itself by its issuer identifier only, as the successor of RFC 7523 has it
/// (draft-ietf-oauth-rfc7523bis, section 4): the header says what the token is for.
pub fn sign_for_issuer(key: &SigningKey, client_id: &str, issuer: &str, now: Timestamp, jti: &str) -> Result<String, AssertionError> {
    sign(key, FOR_ISSUERS, client_id, issuer, now, jti)
}

fn sign(key: &SigningKey, typ: &str, client_id: &str, audience: &str, now: Timestamp, jti: &str) -> Result<String, AssertionError> {
    let mut header = jsonwebtoken::Header::new(key.algorithm().jwt());
    header.typ = Some(typ.to_owned());
    header.kid = Some(key.kid().to_owned());
    let claims = OwnClaims { iss: client_id, sub: client_id, aud: audience, exp: now.as_second().saturating_add(LIFETIME_SECONDS), jti };
    jsonwebtoken::encode(&header, &claims, key.encoding()).map_err(|_| AssertionError::Sign)
}

/// Verifies a client assertion at instant `now` against the accepted `audiences` and the keys registered for its issuer.
///
/// Keys come from `jwks_of` alone, never from the assertion; the algorithm must fit the key. The caller checks replay.
pub fn verify_client_assertion(jwt: &str, audiences: &[String], now: Timestamp, jwks_of: impl Fn(&str) -> Option<Jwks>) -> Result<VerifiedAssertion, AssertionError> {
    if jwt.len() > ASSERTION_BYTES_MAX {
        return Err(AssertionError::TooLong);
    }
    let (header, claims) = read_unverified(jwt)?;
    let algorithm = check_header(&header)?;
    let kid = header.kid.as_deref().ok_or(AssertionError::Malformed("a `kid`"))?;
    check_name("iss", &claims.iss)?;
    check_name("jti", &claims.jti)?;
    let registered = jwks_of(&claims.iss).ok_or(AssertionError::UnknownClient)?;
    let key = select_key(&registered, kid, algorithm)?;
    check_signature(jwt, key, algorithm)?;
    check_claims(&claims, audiences, now)?;
    let expires = Timestamp::from_second(claims.exp).map_err(|_| AssertionError::Claim { claim: "exp", reason: "is out of range" })?;
    Ok(VerifiedAssertion { client_id: claims.iss, jti: claims.jti, expires })
}

fn read_unverified(jwt: &str) -> Result<(PeerHeader, PeerClaims), AssertionError> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut parts = jwt.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(AssertionError::Malformed("three parts"));
    };
    if signature.is_empty() {
        return Err(AssertionError::Malformed("a signature"));
    }
    let header = engine.decode(header).map_err(|_| AssertionError::Malformed("a base64url header"))?;
    let claims = engine.decode(claims).map_err(|_| AssertionError::Malformed("base64url claims"))?;
    // A typed reading also refuses repeated members and an `exp` that is not a whole number.
    let header = serde_json::from_slice(&header).map_err(|_| AssertionError::Malformed("a readable header"))?;
    let claims = serde_json::from_slice(&claims).map_err(|_| AssertionError::Malformed("readable `iss`, `sub`, `aud`, `exp` and `jti`"))?;
    Ok((header, claims))
}

fn check_header(header: &PeerHeader) -> Result<Algorithm, AssertionError> {
    let untrusted = [("crit", &header.crit), ("jku", &header.jku), ("jwk", &header.jwk), ("x5u", &header.x5u), ("x5c", &header.x5c), ("b64", &header.b64)];
    if let Some((name, _)) = untrusted.iter().find(|(_, value)| value.is_some()) {
        return Err(AssertionError::Header(name));
    }
    match header.typ.as_deref() {
        Some(typ) if typ.eq_ignore_ascii_case("JWT") || typ == FOR_ISSUERS => {}
        _ => return Err(AssertionError::Malformed("`typ` `JWT`")),
    }
    match header.alg.as_str() {
        "RS384" => Ok(Algorithm::Rs384),
        "ES384" => Ok(Algorithm::Es384),
        _ => Err(AssertionError::Algorithm),
    }
}

fn check_name(claim: &'static str, value: &str) -> Result<(), AssertionError> {
    if value.is_empty() || value.len() > NAME_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(AssertionError::Claim { claim, reason: "is empty, too long or holds control characters" });
    }
    Ok(())
}

fn select_key<'a>(keys: &'a Jwks, kid: &str, algorithm: Algorithm) -> Result<&'a Jwk, AssertionError> {
    if kid.is_empty() || kid.len() > NAME_BYTES_MAX {
        return Err(AssertionError::Key(0));
    }
    let fitting: Vec<&Jwk> = keys.keys.iter().filter(|key| key.common.key_id.as_deref() == Some(kid) && key_fits(key, algorithm)).collect();
    match fitting.as_slice() {
        [key] => Ok(key),
        others => Err(AssertionError::Key(others.len())),
    }
}

fn key_fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use base64::Engine as _;
    let shape = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(rsa), Algorithm::Rs384) => base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(&rsa.n)
            .is_ok_and(|modulus| modulus.len() >= RSA_MODULUS_BYTES_MIN),
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::Es384) => ec.curve == EllipticCurve::P384,
        _ => false,
    };
    let declared = key
        .common
        .key_algorithm
        .is_none_or(|named| matches!((named, algorithm), (jsonwebtoken::jwk::KeyAlgorithm::RS384, Algorithm::Rs384) | (jsonwebtoken::jwk::KeyAlgorithm::ES384, Algorithm::Es384)));
    let purpose = key.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let operations = key.common.key_operations.as_ref().is_none_or(|allowed| allowed.contains(&KeyOperations::Verify));
    shape && declared && purpose && operations
}

fn check_signature(jwt: &str, key: &Jwk, algorithm: Algorithm) -> Result<(), AssertionError> {
    let key = jsonwebtoken::DecodingKey::from_jwk(key).map_err(|_| AssertionError::Signature)?;
    let (message, signature) = jwt.rsplit_once('.').ok_or(AssertionError::Malformed("three parts"))?;
    match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, algorithm.jwt()) {
        Ok(true) => Ok(()),
        _ => Err(AssertionError::Signature),
    }
}

fn check_claims(claims: &PeerClaims, audiences: &[String], now: Timestamp) -> Result<(), AssertionError> {
    let wrong = |claim, reason| Err(AssertionError::Claim { claim, reason });
    if claims.sub != claims.iss {
        return wrong("sub", "differs from `iss`");
    }
    // More than one audience would let another server replay the assertion here (CVE-2025-27370).
    let audience = match &claims.aud {
        Audience::One(audience) => audience,
        Audience::Many(list) => match list.as_slice() {
            [audience] => audience,
            _ => return wrong("aud", "must name exactly one audience"),
        },
    };
    if !audiences.contains(audience) {
        return wrong("aud", "is not this token endpoint");
    }
    let now = now.as_second();
    if claims.exp <= now {
        return wrong("exp", "has passed");
    }
    if claims.exp > now.saturating_add(LIFETIME_SECONDS_MAX + CLOCK_SKEW_SECONDS) {
        return wrong("exp", "is more than 5 minutes ahead");
    }
    if claims.iat.is_some_and(|iat| iat > now.saturating_add(CLOCK_SKEW_SECONDS)) {
        return wrong("iat", "is in the future");
    }
    if claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(CLOCK_SKEW_SECONDS)) {
        return wrong("nbf", "is in the future");
    }
    Ok(())
}
