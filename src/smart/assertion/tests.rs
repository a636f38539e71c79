//! The verifier's negative vectors (threat T-08) and the keys' round trips.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

const AUDIENCE: &str = "https://as.example/token";

struct Keys {
    rsa: SigningKey,
    ec: SigningKey,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys { rsa: SigningKey::generate(Algorithm::Rs384).unwrap(), ec: SigningKey::generate(Algorithm::Es384).unwrap() });

fn now() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

fn registered(iss: &str) -> Option<Jwks> {
    (iss == "site-a").then(|| Jwks { keys: vec![KEYS.rsa.public_jwk(), KEYS.ec.public_jwk()] })
}

fn verify(jwt: &str) -> Result<VerifiedAssertion, AssertionError> {
    verify_client_assertion(jwt, &[AUDIENCE.to_owned()], now(), registered)
}

/// Signs any header and claims, as an attacker who holds the EC key could.
fn forge(header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), KEYS.ec.encoding(), jsonwebtoken::Algorithm::ES384).unwrap();
    format!("{message}.{signature}")
}

fn header() -> Value {
    json!({"alg": "ES384", "kid": KEYS.ec.kid(), "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": "site-a", "sub": "site-a", "aud": AUDIENCE, "exp": now().as_second() + 240, "jti": "j1"})
}

fn with(mut value: Value, name: &str, new: Value) -> Value {
    match new {
        Value::Null => {
            value.as_object_mut().unwrap().remove(name);
        }
        new => value[name] = new,
    }
    value
}

#[test]
fn both_algorithms_sign_and_verify() {
    for key in [&KEYS.rsa, &KEYS.ec] {
        let jwt = sign_client_assertion(key, "site-a", AUDIENCE, now(), "j1").unwrap();
        let verified = verify(&jwt).unwrap();
        assert_eq!((verified.client_id.as_str(), verified.jti.as_str()), ("site-a", "j1"));
        assert_eq!(verified.expires.as_second(), now().as_second() + LIFETIME_SECONDS);
    }
}

#[test]
fn keys_survive_pem_and_jwk() {
    for key in [&KEYS.rsa, &KEYS.ec] {
        let again = SigningKey::from_text(key.to_pem()).unwrap();
        assert_eq!((again.kid(), again.algorithm()), (key.kid(), key.algorithm()));
    }
    // A throw-away private JWK set made by another tool.
    let text = include_str!("sample-rsa.jwk.json");
    let key = SigningKey::from_text(text).unwrap();
    assert_eq!(key.kid(), "sample-rsa");
    let jwt = sign_client_assertion(&key, "site-a", AUDIENCE, now(), "j1").unwrap();
    verify_client_assertion(&jwt, &[AUDIENCE.to_owned()], now(), |_| Some(key.public_jwks())).unwrap();
    assert!(!format!("{key:?}").contains(key.to_pem().lines().nth(1).unwrap()));
}

#[test]
fn wrong_keys_are_not_read() {
    for text in ["", "{}", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", r#"{"kty":"oct","k":"AA","d":"AA"}"#] {
        assert!(SigningKey::from_text(text).is_err(), "{text}");
    }
}

#[test]
fn forged_headers_are_refused() {
    let public = serde_json::to_value(KEYS.ec.public_jwk()).unwrap();
    let vectors = [
        with(header(), "alg", json!("none")),
        with(header(), "alg", json!("NONE")),
        with(header(), "alg", json!("HS256")),
        with(header(), "alg", json!("HS384")),
        with(header(), "alg", json!("ES256")),
        with(header(), "alg", json!("RS256")),
        with(header(), "alg", json!("RS384")),
        with(header(), "alg", json!("es384")),
        with(header(), "alg", Value::Null),
        with(header(), "alg", json!(["ES384"])),
        with(header(), "typ", Value::Null),
        with(header(), "typ", json!("at+jwt")),
        with(header(), "kid", Value::Null),
        with(header(), "kid", json!("")),
        with(header(), "kid", json!("../../etc/passwd")),
        with(header(), "kid", json!("' OR 1=1 --")),
        with(header(), "kid", json!(KEYS.rsa.kid())),
        with(header(), "kid", json!(7)),
        with(header(), "kid", json!("k".repeat(5000))),
        with(header(), "jku", json!("https://evil.example/jwks")),
        with(header(), "jwk", public),
        with(header(), "x5u", json!("https://evil.example/c")),
        with(header(), "x5c", json!(["AA"])),
        with(header(), "crit", json!(["exp"])),
        with(header(), "b64", json!(false)),
    ];
    for vector in vectors {
        assert!(verify(&forge(&vector, &claims())).is_err(), "{vector}");
    }
    assert!(verify(&forge(&header(), &claims())).is_ok());
}

#[test]
fn forged_claims_are_refused() {
    let second = now().as_second();
    let vectors = [
        ("iss", json!("site-b")),
        ("iss", Value::Null),
        ("iss", json!("")),
        ("iss", json!(["site-a"])),
        ("iss", json!("s".repeat(300))),
        ("iss", json!("site-a\n")),
        ("sub", json!("site-b")),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("aud", json!("https://evil.example/token")),
        ("aud", Value::Null),
        ("aud", json!([])),
        ("aud", json!([AUDIENCE, "https://evil.example/token"])),
        ("aud", json!({"a": AUDIENCE})),
        ("aud", json!(format!("{AUDIENCE}/"))),
        ("aud", json!(7)),
        ("exp", Value::Null),
        ("exp", json!((second + 240).to_string())),
        ("exp", json!(second)),
        ("exp", json!(second - 1)),
        ("exp", json!(second + 361)),
        ("exp", json!(second as f64 + 1.5)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(-1)),
        ("exp", json!([second + 240])),
        ("jti", Value::Null),
        ("jti", json!("")),
        ("jti", json!(1)),
        ("jti", json!("j".repeat(300))),
        ("jti", json!("\u{0}")),
        ("iat", json!(second + 61)),
        ("iat", json!("now")),
        ("nbf", json!(second + 61)),
        ("nbf", json!("0")),
    ];
    for (name, value) in vectors {
        let forged = with(claims(), name, value.clone());
        assert!(verify(&forge(&header(), &forged)).is_err(), "{name}: {value}");
    }
    assert!(verify(&forge(&header(), &with(claims(), "aud", json!([AUDIENCE])))).is_ok());
    assert!(verify(&forge(&header(), &with(claims(), "exp", json!(second + 360)))).is_ok());
}

#[test]
fn malformed_tokens_are_refused() {
    let good = forge(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let repeated = format!(r#"{{"iss":"site-b","iss":"site-a","sub":"site-a","aud":"{AUDIENCE}","exp":{},"jti":"j"}}"#, now().as_second() + 60);
    let zero = URL_SAFE_NO_PAD.encode([0u8; 96]);
    let vectors = [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.x"),
        format!("{good}="),
        format!("{good} "),
        format!(" {good}"),
        format!("{}.{}.{zero}", parts[0], parts[1]),
        format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(repeated), parts[2]),
        format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode("[]"), parts[2]),
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("null"), parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][1..]),
        "a".repeat(ASSERTION_BYTES_MAX + 1),
    ];
    for vector in vectors {
        assert!(verify(&vector).is_err(), "{vector:.60}");
    }
}

#[test]
fn exactly_one_key_must_fit() {
    let jwt = forge(&header(), &claims());
    let audiences = [AUDIENCE.to_owned()];
    let twice = || Jwks { keys: vec![KEYS.ec.public_jwk(), KEYS.ec.public_jwk()] };
    assert_eq!(verify_client_assertion(&jwt, &audiences, now(), |_| Some(twice())), Err(AssertionError::Key(2)));
    assert_eq!(verify_client_assertion(&jwt, &audiences, now(), |_| Some(Jwks::default())), Err(AssertionError::Key(0)));
    let other = SigningKey::generate(Algorithm::Es384).unwrap();
    let mut impostor = other.public_jwk();
    impostor.common.key_id = Some(KEYS.ec.kid().to_owned());
    let keys = Jwks { keys: vec![impostor] };
    assert_eq!(verify_client_assertion(&jwt, &audiences, now(), |_| Some(keys.clone())), Err(AssertionError::Signature));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_changed_byte_is_accepted(at in any::<prop::sample::Index>(), byte in 0x20u8..0x7f) {
        static GOOD: LazyLock<String> = LazyLock::new(|| forge(&header(), &claims()));
        let mut bytes = GOOD.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(verify(&String::from_utf8(bytes).unwrap()).is_err());
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,300}", a in "[A-Za-z0-9_-]{0,60}", b in "[A-Za-z0-9_-]{0,60}") {
        prop_assert!(verify(&text).is_err());
        let dotted = format!("{a}.{b}.{a}");
        prop_assert!(verify(&dotted).is_err());
    }
}
