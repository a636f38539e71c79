//! Who may do what at a registry: tenants that know nothing of each other, assertions that are beyond doubt.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use watershed::feed::sha256_hex;
use watershed::registry::store::Keys;
use watershed::smart::assertion::{Algorithm, SigningKey, sign_client_assertion};

use super::{Adapter, Feed, Network, ask_token, deliver, proportion};

#[tokio::test(flavor = "multi_thread")]
async fn tenants_cannot_tell_that_the_other_exists() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let south = network.join("south", "South").await;
    let (open, done) = (Feed::first("north", &[61]), Feed::first("north", &[60]));
    deliver(&network, &north, &done).await.receipt();
    let open = Feed::after("north", Some(&done), &[open.manifest.attempt]);
    assert_eq!(network.announce(&north, &open.bytes()).await.status, 201);
    let nothing = "0".repeat(32);
    for (method, tail, body) in [
        (Method::GET, String::new(), vec![]),
        (Method::POST, "/commit".to_owned(), vec![]),
        (Method::PUT, format!("/parts/{}", sha256_hex(&open.bodies[0])), open.bodies[0].clone()),
    ] {
        let headers = [("watershed-epoch", "1".to_owned())];
        let ask = |feed: String| network.ask(method.clone(), Box::leak(format!("/v1/feeds/{feed}{tail}").into_boxed_str()), Some(&south), &headers, body.clone());
        let absent = ask(nothing.clone()).await;
        assert_eq!(absent.status, 404);
        for feed in [open.id(), done.id()] {
            let found = ask(feed).await;
            assert_eq!((found.status, &found.text), (absent.status, &absent.text));
        }
    }
    // Announcing the other's manifest is refused by what it says, the same whether the other has it or not.
    for feed in [&open, &done, &Feed::first("north", &[33])] {
        let (status, reason) = network.announce(&south, &feed.bytes()).await.refusal();
        assert_eq!(status, 422);
        assert!(reason.contains("the token belongs to another"), "{reason}");
    }
    // The same bytes in both tenants are two reports.
    assert_eq!(network.ask(Method::GET, &format!("/v1/feeds/{}", done.id()), Some(&north), &[], vec![]).await.status, 200);
    for bad in ["", "x", &"y".repeat(5000)] {
        let stranger = Adapter { name: "none".into(), key: SigningKey::generate(Algorithm::Es384).unwrap(), epoch: 1, token: bad.to_owned() };
        assert_eq!(network.announce(&stranger, &done.bytes()).await.status, 401);
    }
    network.clock.fetch_add(301, Ordering::SeqCst);
    assert_eq!(network.announce(&north, &done.bytes()).await.refusal().0, 401, "a token ends after five minutes");
}

/// Who knocks with what is not registered is told nothing, and stands on the board until it is let in: its names and its key's, no secret.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_stands_on_the_board() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let (lost, stranger) = (SigningKey::generate(Algorithm::Es384).unwrap(), SigningKey::generate(Algorithm::Es384).unwrap());
    assert!(!network.get("/").await.text.contains("Not let in"));
    let knock = async |key: &SigningKey, client: &str, jti: &str| {
        let signed = sign_client_assertion(key, client, &format!("{}/token", network.base()), network.now(), jti).unwrap();
        ask_token(&network.http, &network.base(), &signed).await
    };
    for (key, client) in [(&lost, "client-north"), (&lost, "client-north"), (&stranger, "<i>Jane</i>"), (&stranger, "east-client")] {
        let (status, said) = knock(key, client, &format!("{client}{}", Timestamp::now())).await;
        assert_eq!((status, &said["error_description"]), (401, &"the client assertion was not accepted".into()));
    }
    let told: Value = serde_json::from_str(&network.get("/v1/sites").await.text).unwrap();
    let mut told: Vec<[Value; 4]> = told["notLetIn"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| ["site", "key", "count", "reason"].map(|name| one[name].clone()))
        .collect();
    told.sort_by_key(|one| one[0].is_null());
    let unknown = |key: &SigningKey| [Value::Null, key.kid().into(), 1.into(), "no site is registered under this client identifier".into()];
    assert_eq!(told, [["north".into(), lost.kid().into(), 2.into(), "this key is not registered for the site".into()], unknown(&stranger), unknown(&stranger)]);
    let board = network.get("/").await.text;
    for said in [
        "<th scope=\"row\" role=\"rowheader\">client-north (site north)</th>",
        "2 times, last just now",
        "`watershed registry site keys north --jwks FILE` with what it sends",
        "`watershed registry site add NAME --client-id east-client --jwks FILE`",
    ] {
        assert!(board.contains(said), "{said} in {board}");
    }
    assert!(!board.contains("Jane"), "{board}");
    assert_eq!(knock(&north.key, "client-north", "let in").await.0, 200);
    let board = network.get("/").await.text;
    assert!(!board.contains("site north") && board.contains("east-client"), "{board}");
}

/// Rotation without a gap: the set holds both keys for a while; a lost key opens nothing from the moment it is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_site_are_replaced_while_the_registry_serves() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let store = watershed::registry::open_store(network.data.path()).unwrap();
    let next = SigningKey::generate(Algorithm::Es384).unwrap();
    let set = |keys: &[&SigningKey]| Keys::Set(json!({ "keys": keys.iter().map(|key| json!(key.public_jwk())).collect::<Vec<_>>() }).to_string());
    let granted = async |key: &SigningKey| {
        let assertion = sign_client_assertion(key, "client-north", &format!("{}/token", network.base()), network.now(), &uuid::Uuid::new_v4().to_string()).unwrap();
        ask_token(&network.http, &network.base(), &assertion).await.0 == 200
    };
    assert_eq!((granted(&north.key).await, granted(&next).await), (true, false));
    store.replace_keys("north", &set(&[&north.key, &next]), network.now()).unwrap();
    assert_eq!((granted(&north.key).await, granted(&next).await), (true, true));
    store.replace_keys("north", &set(&[&next]), network.now()).unwrap();
    assert_eq!((granted(&north.key).await, granted(&next).await), (false, true));
    assert_eq!(network.announce(&north, &Feed::first("north", &[60]).bytes()).await.status, 401, "its tokens end with it");
    let unknown = store.replace_keys("nort", &set(&[&next]), network.now()).unwrap_err().to_string();
    assert_eq!(unknown, "no site `nort` is registered; did you mean `north`?");
    assert_eq!(store.verify_audit().unwrap(), Ok(3), "each is on record");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_needs_the_token_where_the_network_has_one() {
    let mut network = Network::start(vec![proportion()]).await;
    network.reader_token = Some("0123456789abcdef".to_owned());
    network.restart().await;
    let mut north = network.join("north", "North").await;
    network.log_in(&mut north).await;
    deliver(&network, &north, &Feed::first("north", &[60])).await.receipt();
    for path in ["/", "/measures/remission", "/v1/sites", "/v1/measures/remission/series?format=csv"] {
        let get = || network.http.get(format!("{}{path}", network.base()));
        let refused = get().send().await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.headers()["www-authenticate"].to_str().unwrap()), (401, "Basic realm=\"registry\", charset=\"UTF-8\""), "{path}");
        for (asked, expected) in [
            (get().bearer_auth("0123456789abcdef"), 200),
            (get().basic_auth("anybody", Some("0123456789abcdef")), 200),
            (get().basic_auth("0123456789abcdef", None::<&str>), 401),
            (get().bearer_auth("0123456789abcdeg"), 401),
            (get().bearer_auth(&north.token), 401),
            (get().header("authorization", "Basic ???"), 401),
        ] {
            assert_eq!(asked.send().await.unwrap().status(), expected, "{path}");
        }
    }
    assert_eq!(network.get("/.well-known/smart-configuration").await.status, 200, "sites find their way in");
}

#[tokio::test(flavor = "multi_thread")]
async fn assertions_that_are_not_beyond_doubt_get_no_token() {
    let mut network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let (stranger, base, http) = (SigningKey::generate(Algorithm::Es384).unwrap(), network.base(), network.http.clone());
    let (now, audience) = (network.now(), format!("{}/token", network.base()));
    let sign = |key: &SigningKey, client: &str, audience: &str, at: Timestamp| sign_client_assertion(key, client, audience, at, &uuid::Uuid::new_v4().to_string()).unwrap();
    let later = |seconds: i64| now + jiff::SignedDuration::from_secs(seconds);
    let good = sign(&north.key, "client-north", &audience, now);
    let part = |index: usize| good.split('.').nth(index).unwrap().to_owned();
    let encode = |value: Value| {
        use base64::Engine as _;
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let none = encode(json!({ "alg": "none", "typ": "JWT", "kid": north.key.kid() }));
    let hs = encode(json!({ "alg": "HS256", "typ": "JWT", "kid": north.key.kid() }));
    let embedded = encode(json!({ "alg": "ES384", "typ": "JWT", "kid": stranger.kid(), "jwk": stranger.public_jwk() }));
    let elsewhere = encode(json!({ "alg": "ES384", "typ": "JWT", "kid": north.key.kid(), "jku": "https://evil.example/jwks" }));
    let claims = |exp: Value| encode(json!({ "iss": "client-north", "sub": "client-north", "aud": audience, "exp": exp, "jti": "j" }));
    let vectors: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("not a token", "abc".into()),
        ("another's key", sign(&stranger, "client-north", &audience, now)),
        ("unknown client", sign(&north.key, "client-nobody", &audience, now)),
        ("another audience", sign(&north.key, "client-north", "https://other.example/token", now)),
        ("expired", sign(&north.key, "client-north", &audience, later(-3600))),
        ("from the future", sign(&north.key, "client-north", &audience, later(3600))),
        ("alg none", format!("{none}.{}.", part(1))),
        ("alg none with a signature", format!("{none}.{}.{}", part(1), part(2))),
        ("HS256 with the public key", format!("{hs}.{}.{}", part(1), part(2))),
        ("embedded key", format!("{embedded}.{}.{}", part(1), part(2))),
        ("key elsewhere", format!("{elsewhere}.{}.{}", part(1), part(2))),
        ("no signature", format!("{}.{}.", part(0), part(1))),
        ("zero signature", format!("{}.{}.{}", part(0), part(1), "A".repeat(128))),
        ("other claims", format!("{}.{}.{}", part(0), claims(json!(now.as_second() + 200)), part(2))),
        ("expiry as text", format!("{}.{}.{}", part(0), claims(json!("9999999999")), part(2))),
        ("trailing part", format!("{good}.x")),
        ("trailing bytes", format!("{good} ")),
        ("huge", format!("{}.{}.{}", part(0), "A".repeat(9000), part(2))),
    ];
    for (name, assertion) in &vectors {
        let (status, body) = ask_token(&http, &base, assertion).await;
        assert!(status == 401 || status == 400, "{name}: {status}");
        assert_eq!(body["error"], "invalid_client", "{name}: {body}");
        assert_eq!(body["error_description"], "the client assertion was not accepted", "{name} tells more than others");
    }
    // Used once, never again: not even by the process after this one.
    assert_eq!(ask_token(&http, &base, &good).await.0, 200);
    assert_eq!(ask_token(&http, &base, &good).await.0, 401);
    network.restart().await;
    assert_eq!(ask_token(&network.http, &base, &good).await.0, 401);
    // Requests that are not of the form.
    let fresh = || sign(&north.key, "client-north", &audience, now);
    for (form, error) in [
        (vec![("grant_type", "authorization_code".to_owned())], "unsupported_grant_type"),
        (vec![("grant_type", "client_credentials".to_owned())], "invalid_request"),
        (vec![("grant_type", "client_credentials".to_owned()), ("grant_type", "client_credentials".to_owned())], "invalid_request"),
        (
            vec![
                ("grant_type", "client_credentials".to_owned()),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
                ("client_assertion", fresh()),
                ("scope", "system/*.*".to_owned()),
            ],
            "invalid_scope",
        ),
    ] {
        let response = network.http.post(format!("{base}/token")).form(&form).send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.json::<Value>().await.unwrap()["error"], error);
    }
    let json = network.http.post(format!("{base}/token")).json(&json!({})).send().await.unwrap();
    assert_eq!(json.json::<Value>().await.unwrap()["error"], "invalid_request");
}
