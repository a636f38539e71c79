//! SMART Backend Services: S-01 to S-14.

use super::bench::{Bench, OffBy};
use super::small::{Heard, Said, Small, json, said};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use watershed::http::{Client, Clock, HttpError, Request, Settings, SystemClock};
use watershed::sandbox::Fault;
use watershed::sandbox::server::Options as Serving;
use watershed::smart::assertion::{Algorithm, Jwks, SigningKey, sign_client_assertion, verify_client_assertion};
use watershed::smart::client::{Audience, SmartConfiguration, TokenClient, TokenSettings, discover, scopes_for};
use watershed::smart::key_set;
use watershed::source::{Mode, Options, Source, SourceError};

/// Looks at what a hospital has heard, 20 ms apart.
const LOOKS_MAX: usize = 3_000;

/// A clock that tests set.
struct SetClock(AtomicI64);

impl SetClock {
    fn new() -> Arc<SetClock> {
        Arc::new(SetClock(AtomicI64::new(1_800_000_000)))
    }

    fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::Es384).unwrap()
}

fn types(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A token client of an authorization server.
fn tokens(server: &Small, scopes: &[&str], clock: Arc<dyn Clock>) -> TokenClient {
    let mut settings = Settings::default();
    (settings.retry.first, settings.retry.attempts) = (Duration::from_millis(2), 3);
    let settings_of_tokens = TokenSettings {
        endpoint: format!("{}/token", server.origin).parse().unwrap(),
        audience: Audience::Endpoint,
        client_id: "site".to_owned(),
        key: key(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        needs: types(&["Patient", "Condition"]),
        accepted_before: false,
    };
    TokenClient::new(Client::new(settings).unwrap(), settings_of_tokens, clock)
}

/// What a form asks for, and the parts of its assertion.
fn assertion(form: &str) -> (Value, Value) {
    let jwt = url::form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "client_assertion").unwrap().1.into_owned();
    let part = |number: usize| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(number).unwrap()).unwrap()).unwrap();
    (part(0), part(1))
}

#[tokio::test]
async fn s_01_discovery_stands_below_the_base_and_relative_addresses_count_from_it() {
    let (named, paths) = ([("token", "BASE/token"), ("/auth/token", "/auth/token"), ("../token?a=b", "UP/token?a=b")], ["", "/fhir", "/a/b/r4"]);
    for path in paths {
        for (written, expected) in named {
            let server = Small::start(move |heard, _| {
                let is_it = heard.target == format!("{path}/.well-known/smart-configuration");
                // The body is JSON whatever its type is said to be.
                if is_it { said(200, "text/html", &json!({"token_endpoint": written}).to_string()) } else { said(404, "text/html", "") }
            })
            .await;
            let up = path.rsplit_once('/').map_or("", |(up, _)| up);
            let expected = format!("{}{}", server.origin, expected.replace("BASE", path).replace("UP", up));
            for base in [format!("{}{path}", server.origin), format!("{}{path}/", server.origin)] {
                let found = discover(&Client::new(Settings::default()).unwrap(), &base.parse().unwrap()).await.unwrap().unwrap();
                assert_eq!(found.token_endpoint.unwrap().as_str(), expected, "{base} {written}");
            }
        }
    }
    let page = Small::start(|_, _| said(200, "application/json", "<html>sign in</html>")).await;
    let found = discover(&Client::new(Settings::default()).unwrap(), &page.origin.parse().unwrap()).await;
    assert_eq!(found, Ok(None), "a web page is no discovery");
}

/// A server with discovery, `/metadata` and three token endpoints.
async fn three_endpoints(discovery: Option<Value>, metadata_names_one: bool) -> Small {
    Small::start(move |heard, origin| match heard.target.as_str() {
        "/.well-known/smart-configuration" => discovery.clone().map_or_else(|| said(404, "text/plain", ""), json),
        "/metadata" => {
            let uris = json!([{"url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                "extension": [{"url": "token", "valueUri": format!("{origin}/metadata-token")}]}]);
            let security = if metadata_names_one { json!({"extension": uris}) } else { json!({}) };
            json(json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"security": security}]}))
        }
        _ => json(json!({"access_token": "t", "token_type": "bearer", "expires_in": 300})),
    })
    .await
}

#[tokio::test]
async fn s_02_of_discovery_only_the_token_endpoint_is_needed_and_two_others_may_stand_in() {
    let poor = json!({"token_endpoint": "discovered-token"});
    let without = json!({"authorization_endpoint": "https://as.example/authorize", "capabilities": ["client-public"]});
    for (discovery, by_metadata, configured, expected) in [
        (Some(poor.clone()), false, false, Some("/discovered-token")),
        (Some(poor.clone()), true, false, Some("/discovered-token")),
        (Some(without.clone()), true, false, Some("/metadata-token")),
        (None, true, false, Some("/metadata-token")),
        (Some(without), false, true, Some("/configured-token")),
        // What a person wrote stands above what a server says.
        (Some(poor), true, true, Some("/configured-token")),
        (None, false, false, None),
    ] {
        let server = three_endpoints(discovery.clone(), by_metadata).await;
        let token_url = if configured { format!("{}/configured-token", server.origin) } else { String::new() };
        let options = Options { url: server.origin.clone(), client_id: "site".to_owned(), token_url, ..Options::default() };
        let connected = Source::connect(&options, Some(&key()), &types(&["Patient"]), Arc::new(SystemClock)).await;
        let asked: Vec<String> = server.heard().into_iter().filter(|one| one.method == "POST").map(|one| one.target).collect();
        match expected {
            Some(endpoint) => assert_eq!((asked, connected.is_ok()), (vec![endpoint.to_owned()], true), "{discovery:?} {by_metadata} {configured}"),
            None => {
                let error = connected.unwrap_err();
                assert!(matches!(error, SourceError::Options(_)) && error.to_string().contains("set `source.token_url`"), "{error}");
            }
        }
    }
}

/// A chain for `host`, signed by `authority` or by itself.
fn certificate(host: &str, years: (i32, i32), authority: Option<&Issuer<'_, KeyPair>>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(vec![host.to_owned()]).unwrap();
    (wanted.not_before, wanted.not_after) = (rcgen::date_time_ymd(years.0, 1, 1), rcgen::date_time_ymd(years.1, 1, 1));
    let made = match authority {
        Some(authority) => wanted.signed_by(&key, authority).unwrap(),
        None => wanted.self_signed(&key).unwrap(),
    };
    (made.pem(), key.serialize_pem())
}

/// Serves `{}` over TLS.
async fn serve_tls((certificate, key): (String, String)) -> String {
    let config = axum_server::tls_rustls::RustlsConfig::from_pem(certificate.into_bytes(), key.into_bytes()).await.unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(async || axum::Json(json!({})));
    tokio::spawn(axum_server::from_tcp_rustls(listener, config).unwrap().serve(router.into_make_service()));
    format!("https://127.0.0.1:{}/", address.port())
}

/// The client's hello, and what it said to the answer.
type OldHandshake = std::thread::JoinHandle<(Vec<u8>, Vec<u8>)>;

/// A server that speaks an old version of TLS only: it answers the client's hello with that version, and gives the
/// hello and what the client says to this.
fn old_tls(version: u8) -> (String, OldHandshake) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = vec![0; 5];
        stream.read_exact(&mut hello).unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
        stream.read_exact(&mut rest).unwrap();
        hello.extend(rest);
        // ServerHello: version, 32 bytes of chance, no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
        let mut body = vec![2, 0, 0, 38, 3, version];
        body.extend([7; 32]);
        body.extend([0, 0, 0x2f, 0]);
        stream.write_all(&[&[22, 3, version, 0, 42][..], &body].concat()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        (hello, answer)
    });
    (address, heard)
}

/// The versions that a ClientHello offers (RFC 8446 section 4.2.1).
fn offered(hello: &[u8]) -> Vec<[u8; 2]> {
    let at = |from: usize| usize::from(u16::from_be_bytes([hello[from], hello[from + 1]]));
    let mut place = 5 + 4 + 2 + 32;
    place += 1 + usize::from(hello[place]);
    place += 2 + at(place);
    place += 1 + usize::from(hello[place]);
    place += 2;
    while place < hello.len() {
        let (kind, length) = (at(place), at(place + 2));
        if kind == 43 {
            return hello[place + 5..place + 4 + length].chunks(2).map(|pair| [pair[0], pair[1]]).collect();
        }
        place += 4 + length;
    }
    Vec::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_03_old_tls_and_certificates_that_prove_nothing_are_refused() {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority_key).unwrap().pem();
    let authority = Issuer::new(params, authority_key);
    let mut settings = Settings { root_certificates: vec![root.into_bytes()], ..Settings::default() };
    (settings.retry.attempts, settings.retry.first) = (2, Duration::from_millis(1));
    let client = Client::new(settings).unwrap();
    for (served, reason) in [
        (certificate("127.0.0.1", (2020, 2120), Some(&authority)), None),
        (certificate("127.0.0.1", (2020, 2021), Some(&authority)), Some("its TLS certificate has expired")),
        (certificate("ehr.example.org", (2020, 2120), Some(&authority)), Some("its TLS certificate is another host's")),
        (certificate("127.0.0.1", (2020, 2120), None), Some("its TLS certificate is not trusted")),
    ] {
        let address = serve_tls(served).await;
        let answer = client.get(address.parse().unwrap(), "application/json").await;
        match (answer, reason) {
            (Ok(answer), None) => assert_eq!(answer.status, 200),
            // No other attempt would do better.
            (Err(error @ HttpError::Unreachable { attempts: 1, .. }), Some(reason)) => assert!(error.to_string().contains(reason), "{error}"),
            (other, _) => panic!("{other:?}, expected {reason:?}"),
        }
    }
    for version in [1, 2] {
        let (address, heard) = old_tls(version);
        let once = Request::new(reqwest::Method::GET, address.parse().unwrap()).once();
        let error = client.send(once).await.unwrap_err();
        assert!(error.to_string().contains("it speaks an old TLS only"), "{error}");
        let (hello, answer) = heard.join().unwrap();
        assert_eq!(offered(&hello), [[3, 4], [3, 3]], "TLS 1.3 and 1.2, nothing older");
        assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)), "a fatal alert and nothing more: {answer:?}");
    }
    let plain = Options { url: "http://ehr.example.org/fhir".to_owned(), ..Options::default() };
    let error = Source::connect(&plain, None, &types(&[]), Arc::new(SystemClock)).await.unwrap_err();
    assert!(error.to_string().contains("is plain http to another host"), "{error}");
    let named = three_endpoints(Some(json!({"token_endpoint": "http://as.example.org/token"})), false).await;
    let options = Options { url: named.origin.clone(), client_id: "site".to_owned(), ..Options::default() };
    let error = Source::connect(&options, Some(&key()), &types(&[]), Arc::new(SystemClock)).await.unwrap_err();
    assert!(error.to_string().contains("plain http is allowed to loopback only"), "{error}");
}

#[test]
fn s_04_the_header_of_an_assertion_names_algorithm_key_and_type_and_nothing_else() {
    for (algorithm, name) in [(Algorithm::Es384, "ES384"), (Algorithm::Rs384, "RS384")] {
        let key = SigningKey::generate(algorithm).unwrap();
        let jwt = sign_client_assertion(&key, "site", "https://as.example/token", Timestamp::UNIX_EPOCH, "j").unwrap();
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!(header, json!({"typ": "JWT", "alg": name, "kid": key.kid()}));
    }
}

#[tokio::test]
async fn s_05_the_audience_is_the_one_that_the_site_was_told_where_nobody_else_gets_the_assertion() {
    let elsewhere = "https://as.example.org/realm";
    // What is configured, with `token_url` or without; the audience and the type that come of it, or what is said.
    for (written, is_configured, issuer, expected) in [
        ("", false, None, Ok(("ORIGIN/token", "JWT"))),
        ("issuer", false, Some("ORIGIN/realm"), Ok(("ORIGIN/realm", "client-authentication+jwt"))),
        ("ORIGIN/realm", false, None, Ok(("ORIGIN/realm", "JWT"))),
        ("urn:hospital:as", true, None, Ok(("urn:hospital:as", "JWT"))),
        ("issuer", true, Some(elsewhere), Ok((elsewhere, "client-authentication+jwt"))),
        ("issuer", false, None, Err("the server's SMART configuration names none")),
        ("issuer", false, Some(elsewhere), Err("write it as `source.token_url`")),
        (elsewhere, false, None, Err("the server names a token endpoint elsewhere")),
    ] {
        let server = Small::start(move |heard, origin| match heard.target.as_str() {
            "/.well-known/smart-configuration" => {
                let issuer = issuer.map(|issuer| issuer.replace("ORIGIN", origin));
                json(json!({"token_endpoint": format!("{origin}/token"), "issuer": issuer}))
            }
            "/metadata" => json(json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"})),
            _ => json(json!({"access_token": "t", "token_type": "bearer", "expires_in": 300, "scope": "system/*.rs"})),
        })
        .await;
        let options = Options {
            url: server.origin.clone(),
            client_id: "site".to_owned(),
            assertion_audience: written.replace("ORIGIN", &server.origin),
            token_url: if is_configured { format!("{}/token", server.origin) } else { String::new() },
            ..Options::default()
        };
        let connected = Source::connect(&options, Some(&key()), &types(&["Patient"]), Arc::new(SystemClock)).await;
        match expected {
            Ok((audience, typ)) => {
                connected.unwrap();
                let form = server.heard().into_iter().find(|heard| heard.target == "/token").unwrap().body;
                let (header, claims) = assertion(&form);
                assert_eq!((claims["aud"].as_str(), header["typ"].as_str()), (Some(audience.replace("ORIGIN", &server.origin).as_str()), Some(typ)), "{written}");
            }
            Err(words) => {
                assert!(connected.as_ref().is_err_and(|error| error.to_string().contains(words)), "{written}: {connected:?}");
                assert!(!server.heard().iter().any(|heard| heard.target == "/token"), "no assertion is sent");
            }
        }
    }
}

#[tokio::test]
async fn s_05_the_claims_are_those_of_smart_and_survive_clocks_that_differ() {
    let bench = Bench::new(&[]).await;
    for seconds in [0, 1, -1, 60, -60] {
        let mut bench = Bench::new(&[]).await;
        bench.clock = Arc::new(OffBy(seconds));
        bench.connect().await.unwrap_or_else(|error| panic!("{seconds} s: {error}"));
        let form = bench.running.requests().into_iter().find(|seen| seen.target == "/token").unwrap().body;
        let (_, claims) = assertion(&form);
        let (expires, jti) = (claims["exp"].as_i64().unwrap(), claims["jti"].as_str().unwrap().to_owned());
        let endpoint = bench.running.base_url.replace("/fhir", "/token");
        assert_eq!(claims, json!({"iss": "site", "sub": "site", "aud": endpoint, "exp": expires, "jti": jti}), "no `nbf`, no `iat`");
        let ahead = expires - bench.clock.now().as_second();
        assert!((1..=300).contains(&ahead), "{ahead} s to live");
    }
    for (seconds, words) in [(600, "is 600 s ahead of the server's"), (-600, "is 600 s behind the server's")] {
        let clock = Arc::new(OffBy(seconds));
        let far = Source::connect(&bench.options, Some(&bench.key), &types(&["Patient"]), clock).await.unwrap_err().to_string();
        let near = words.replace("600", "599");
        assert!((far.contains(words) || far.contains(&near)) && far.contains("set this one right"), "{far}");
    }
}

#[test]
fn s_06_both_algorithms_both_ways_and_signatures_of_two_numbers_side_by_side() {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA384, RsaPublicKeyComponents, UnparsedPublicKey};
    // Made by another library: what it signed is accepted here, but for a signature in DER.
    let vectors: Value = serde_json::from_str(include_str!("assertions.json")).unwrap();
    let jwks: Jwks = serde_json::from_value(vectors["jwks"].clone()).unwrap();
    let (audience, now) = (["https://as.example/token".to_owned()], Timestamp::from_second(1_800_000_000).unwrap());
    let verify = |name: &str| verify_client_assertion(vectors[name].as_str().unwrap(), &audience, now, |_| Some(jwks.clone())).map(|verified| verified.client_id);
    assert_eq!((verify("rs384"), verify("es384")), (Ok("site".to_owned()), Ok("site".to_owned())));
    assert!(verify("es384_der").is_err());
    // What is signed here is accepted by the primitives of the crypto library, for which r and s stand side by side.
    let signed = |key: &SigningKey| {
        let jwt = sign_client_assertion(key, "site", &audience[0], now, "j").unwrap();
        let (message, signature) = jwt.rsplit_once('.').unwrap();
        (message.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap())
    };
    let member = |jwk: &Value, name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let (ec, rsa) = (key(), SigningKey::generate(Algorithm::Rs384).unwrap());
    let (message, signature) = signed(&ec);
    let jwk = serde_json::to_value(ec.public_jwk()).unwrap();
    let point = [vec![4], member(&jwk, "x"), member(&jwk, "y")].concat();
    assert_eq!(signature.len(), 96);
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message.as_bytes(), &signature).unwrap();
    let (message, signature) = signed(&rsa);
    let jwk = serde_json::to_value(rsa.public_jwk()).unwrap();
    let public = RsaPublicKeyComponents { n: member(&jwk, "n"), e: member(&jwk, "e") };
    public.verify(&RSA_PKCS1_2048_8192_SHA384, message.as_bytes(), &signature).unwrap();
}

#[tokio::test]
async fn s_07_each_attempt_has_an_assertion_of_its_own() {
    let busy = Fault::Status { path: "/token".to_owned(), status: 503, retry_after: Some(0), times: 2 };
    let mut benches = vec![Bench::serving(&[], Serving { faults: vec![busy], ..Serving::default() }).await];
    for seed in [3, 5] {
        // Resets and answers that break off, beside statuses; and tokens that wear out.
        benches.push(Bench::with_faults(&["q_02"], seed).await);
    }
    let mut repeated = 0;
    for bench in benches {
        let pulled = bench.pull(Mode::Search).await;
        pulled.is_the_truth_or_says_what_is_not();
        let forms: Vec<&str> = pulled.requests.iter().filter(|seen| seen.target == "/token").map(|seen| seen.body.as_str()).collect();
        let names: BTreeSet<String> = forms.iter().map(|form| assertion(form).1["jti"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names.len(), forms.len(), "an assertion was sent twice");
        repeated += pulled.requests.iter().filter(|seen| seen.target == "/token" && seen.status != 200).count();
    }
    assert!(repeated >= 3, "{repeated} attempts were repeated");
}

#[tokio::test]
async fn a_token_endpoint_that_fails_for_now_has_refused_nobody() {
    for status in [429, 503] {
        let busy = Fault::Status { path: "/token".to_owned(), status, retry_after: Some(0), times: u32::MAX };
        let bench = Bench::serving(&[], Serving { faults: vec![busy], ..Serving::default() }).await;
        let SourceError::Http(error) = bench.try_pull(Mode::Search).await.unwrap_err() else { panic!() };
        assert_eq!((error.to_string(), error.is_refusal()), (format!("no access token: the token endpoint answers {status}"), false));
    }
}

#[tokio::test]
async fn a_moody_authorization_server_that_is_also_out_of_reach_at_times_gives_a_token_in_the_end() {
    let moods = Mutex::new([200, 400, 400, 503, 400, 400, 503, 400, 400, 200].into_iter());
    let server = Small::start(move |_, _| match moods.lock().unwrap().next().unwrap() {
        200 => json(json!({"access_token": "t", "token_type": "bearer", "expires_in": 60})),
        status => said(status, "text/plain", ""),
    })
    .await;
    let clock = SetClock::new();
    let client = tokens(&server, &["system/Patient.rs"], Arc::clone(&clock) as Arc<dyn Clock>);
    client.fetch().await.unwrap();
    clock.advance(60);
    assert_eq!(client.fetch().await.unwrap(), "t", "six refusals, at most two in a row, and two outages");
}

#[tokio::test]
async fn s_08_the_token_request_is_a_form_with_scope_grant_assertion_and_nothing_else() {
    let bench = Bench::new(&[]).await;
    bench.connect().await.unwrap();
    let requests = bench.running.requests();
    let asked: Vec<_> = requests.iter().filter(|seen| seen.target.starts_with("/token")).collect();
    let [one] = asked.as_slice() else { panic!("{} token requests", asked.len()) };
    assert_eq!((one.method.as_str(), one.target.as_str(), one.header("content-type")), ("POST", "/token", Some("application/x-www-form-urlencoded")));
    assert!(!one.authorized);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(one.body.as_bytes()).into_owned().collect();
    let names: Vec<&str> = form.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["grant_type", "scope", "client_assertion_type", "client_assertion"]);
    assert_eq!((form[0].1.as_str(), form[2].1.as_str()), ("client_credentials", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
    let scopes: Vec<&str> = form[1].1.split(' ').collect();
    assert!(scopes.contains(&"system/Patient.rs") && scopes.contains(&"system/Observation.rs"), "{scopes:?}");
    assert!(form[3].1.split('.').count() == 3);
}

#[tokio::test]
async fn s_09_the_token_answer_is_read_with_tolerance_and_its_scopes_are_compared() {
    let answer = |more: Value| {
        let mut all = json!({"access_token": "t", "token_type": "bearer", "expires_in": 300});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        all
    };
    // What the answer says, and the second from which another token is asked for.
    for (more, until) in [
        (json!({}), 270),
        (json!({"expires_in": null}), 270),
        (json!({"expires_in": "300"}), 270),
        (json!({"expires_in": 0}), 270),
        (json!({"expires_in": 3600}), 3240),
        (json!({"expires_in": 10_i64.pow(15)}), 24 * 3600 * 9 / 10),
        (json!({"token_type": "Bearer"}), 270),
        (json!({"token_type": null, "scope": null}), 270),
        (json!({"scope": ["system/Patient.rs", "system/Condition.rs"], "id_token": 7, "patient": {}}), 270),
    ] {
        let body = answer(more.clone());
        let server = Small::start(move |_, _| json(body.clone())).await;
        let clock = SetClock::new();
        let client = tokens(&server, &["system/*.rs"], Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(client.fetch().await.as_deref(), Ok("t"), "{more}");
        assert_eq!(client.not_granted(), Vec::<String>::new(), "{more}");
        clock.advance(until - 1);
        client.fetch().await.unwrap();
        assert_eq!(server.count("/token"), 1, "{more}");
        clock.advance(1);
        client.fetch().await.unwrap();
        assert_eq!(server.count("/token"), 2, "{more}");
    }
    for (body, words) in [
        (answer(json!({"token_type": "mac"})).to_string(), "not a bearer token"),
        (answer(json!({"access_token": ""})).to_string(), "no usable token"),
        (answer(json!({"access_token": "two\nlines"})).to_string(), "no usable token"),
        (json!({"token_type": "bearer"}).to_string(), "not the JSON of RFC 6749"),
        ("<html>sign in</html>".to_owned(), "not the JSON of RFC 6749"),
    ] {
        let shown = body.clone();
        let server = Small::start(move |_, _| said(200, "application/json", &body)).await;
        let error = tokens(&server, &["system/*.rs"], SetClock::new()).fetch().await.unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("two\nlines"), "{shown}: {error}");
    }
    for (granted, missing) in [
        ("system/Patient.rs system/Condition.rs", &[][..]),
        ("system/*.read", &[]),
        ("system/Patient.rs", &["Condition"]),
        ("system/Patient.rs system/Condition.r launch", &["Condition"]),
        ("", &["Condition", "Patient"]),
    ] {
        let server = Small::start(move |_, _| json(json!({"access_token": "t", "scope": granted}))).await;
        let client = tokens(&server, &["system/*.rs"], SetClock::new());
        client.fetch().await.unwrap();
        assert_eq!(client.not_granted(), missing, "{granted}");
    }
}

#[tokio::test]
async fn s_10_one_token_serves_until_shortly_before_its_end_and_one_refresh_runs_at_a_time() {
    let server = Small::start(|_, _| json(json!({"access_token": "t", "expires_in": 300, "refresh_token": "r"}))).await;
    let clock = SetClock::new();
    let client = Arc::new(tokens(&server, &["system/*.rs"], Arc::clone(&clock) as Arc<dyn Clock>));
    for lifetimes in 1..=3 {
        let workers = (0..8).map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.fetch().await.unwrap() })
        });
        futures_util::future::join_all(workers).await;
        assert_eq!(server.count("/token"), lifetimes, "eight workers ask at once");
        clock.advance(269);
        client.fetch().await.unwrap();
        assert_eq!(server.count("/token"), lifetimes);
        clock.advance(1);
    }
    assert!(server.heard().iter().all(|one| one.field("grant_type").as_deref() == Some("client_credentials")), "a refresh token is no use");
    let mut bench = Bench::new(&[]).await;
    bench.options.requests_at_once = 8;
    assert_eq!(bench.pull(Mode::Search).await.count("/token"), 1);
    for (mode, path) in [(Mode::Search, "/Observation"), (Mode::Bulk, "/export-status"), (Mode::Bulk, "/export-file")] {
        let busy = Fault::Slow { path: path.to_owned(), delay: Duration::from_millis(300) };
        let serving = Serving {
            token_life: Duration::from_secs(1),
            page_max: 20,
            export_file_resources: 20,
            export_delay: Duration::from_secs(2),
            faults: vec![busy],
            ..Serving::default()
        };
        let pulled = Bench::serving(&[], serving).await.pull(mode).await;
        assert!(pulled.count("/token") > 1, "{path}: {} tokens", pulled.count("/token"));
        pulled.is_the_truth();
    }
}

#[tokio::test]
async fn s_11_scopes_are_written_as_the_server_says_or_the_other_way_once() {
    let announcements = [&["permission-v1"][..], &["permission-v2"], &["permission-v1", "permission-v2"], &[]];
    for announced in announcements {
        for (works, refuses) in [("read", true), ("read", false), ("rs", true), ("rs", false)] {
            let server = Small::start(move |heard, _| {
                let scope = heard.field("scope").unwrap();
                let fits = scope.split(' ').all(|scope| scope.ends_with(&format!(".{works}")));
                match (fits, refuses) {
                    (true, _) => json(json!({"access_token": "t", "scope": scope})),
                    (false, true) => said(400, "application/json", r#"{"error":"invalid_scope"}"#),
                    (false, false) => json(json!({"access_token": "nothing", "scope": ""})),
                }
            })
            .await;
            let says = |name: &str| announced.contains(&name);
            let configuration = SmartConfiguration { token_endpoint: None, issuer: None, scopes_v1: says("permission-v1"), scopes_v2: says("permission-v2") };
            let scopes = scopes_for(&types(&["Patient", "Condition"]), &configuration);
            let preferred = if announced == ["permission-v1"] { "read" } else { "rs" };
            assert!(scopes[0].split(' ').all(|scope| scope.ends_with(&format!(".{preferred}"))), "{announced:?}: {scopes:?}");
            let clock = SetClock::new();
            let client = tokens(&server, &scopes.iter().map(String::as_str).collect::<Vec<_>>(), Arc::clone(&clock) as Arc<dyn Clock>);
            assert_eq!(client.fetch().await.as_deref(), Ok("t"), "{announced:?} {works} {refuses}");
            let first = if preferred == works { 1 } else { 2 };
            assert_eq!(server.count("/token"), first, "{announced:?} {works} {refuses}");
            clock.advance(3600);
            client.fetch().await.unwrap();
            assert_eq!(server.count("/token"), first + 1, "what works is remembered");
        }
    }
}

#[tokio::test]
async fn s_11_of_two_answers_the_one_that_is_known_to_grant_more_counts() {
    // What is granted of `.rs` and of `.read`, if the server says so, and what the token that is kept does not let us read.
    for (first, second, kept, missing) in [
        (Some("system/Patient.rs"), None, "rs", &["Condition"][..]),
        (Some("system/Patient.rs"), Some("system/Condition.read"), "rs", &["Condition"]),
        (Some("system/Patient.rs"), Some("system/*.read"), "read", &[]),
        (Some("launch"), None, "read", &[]),
        (None, Some("system/*.read"), "rs", &[]),
    ] {
        let server = Small::start(move |heard, _| {
            let (token, scope) = if heard.field("scope").unwrap().contains(".rs") { ("rs", first) } else { ("read", second) };
            json(json!({"access_token": token, "scope": scope}))
        })
        .await;
        let client = tokens(&server, &["system/Patient.rs system/Condition.rs", "system/Patient.read system/Condition.read"], SetClock::new());
        assert_eq!(client.fetch().await.as_deref(), Ok(kept), "{first:?} {second:?}");
        assert_eq!(client.not_granted(), missing, "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn s_11_refused_scopes_are_named_and_the_key_is_not_doubted() {
    let asked = "system/Patient.rs system/DeviceUseStatement.rs";
    let described = r#"{"error":"invalid_scope","error_description":"requested scope is not allowed: 'system/DeviceUseStatement.rs'"}"#;
    let listed = r#"{"error":"invalid_scope","scope":"system/DeviceUseStatement.rs eyJhbGciOiJFUzM4NCJ9.secret"}"#;
    for (body, words) in [
        (
            described,
            "with `invalid_scope` (\"requested scope is not allowed: 'system/DeviceUseStatement.rs'\"): `system/Patient.rs system/DeviceUseStatement.rs`; let the EHR team",
        ),
        (listed, "with `invalid_scope`: `system/DeviceUseStatement.rs`; let the EHR team allow it each of them, or name in `source.scopes` those"),
    ] {
        let server = Small::start(move |_, _| said(400, "application/json", body)).await;
        let error = tokens(&server, &[asked], SetClock::new()).fetch().await.unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("key") && !error.contains("eyJ"), "{error}");
    }
}

#[tokio::test]
async fn the_group_whose_patients_are_taken_is_among_the_scopes() {
    let asked = async |group: &str, version: &'static str| {
        let server = Small::start(move |heard, origin| match heard.target.as_str() {
            "/metadata" => json(json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"})),
            "/token" => json(json!({"access_token": "t", "token_type": "bearer", "scope": heard.field("scope").unwrap()})),
            _ => json(json!({"token_endpoint": format!("{origin}/token"), "capabilities": [version]})),
        })
        .await;
        let options = Options { url: server.origin.clone(), client_id: "site".to_owned(), group: group.to_owned(), ..Options::default() };
        let source = Source::connect(&options, Some(&key()), &types(&["Condition"]), Arc::new(SystemClock)).await.unwrap();
        let sent = server.heard().iter().find_map(|heard| heard.field("scope")).unwrap();
        assert_eq!(source.scopes(&types(&["Condition", "Patient"])), sent, "what is shown is what is asked for");
        sent
    };
    assert_eq!(asked("g", "permission-v2").await, "system/Condition.rs system/Group.rs system/Patient.rs");
    assert_eq!(asked("g", "permission-v1").await, "system/Condition.read system/Group.read system/Patient.read");
    assert_eq!(asked("", "permission-v2").await, "system/Condition.rs system/Patient.rs");
}

/// Where a hostile server leads its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trap {
    NextPage,
    Reference,
    Attachment,
    Redirect,
    StatusOfExport,
    File,
    NextManifest,
}

/// An EHR that leads elsewhere.
fn trapped(trap: Trap, elsewhere: String) -> impl Fn(&Heard, &str) -> Said + Send + Sync + 'static {
    move |heard, origin| {
        let at = |there: bool| if there { elsewhere.as_str() } else { origin };
        let patient = json!({"resourceType": "Patient", "id": "p", "meta": {"lastUpdated": "2026-01-01T00:00:00Z"},
            "photo": [{"contentType": "image/png", "url": format!("{}/photo", at(trap == Trap::Attachment))}]});
        let encounter = json!({"resourceType": "Encounter", "id": "e", "subject": {"reference": "Patient/p"},
            "location": [{"location": {"reference": format!("{}/Location/l", at(trap == Trap::Reference))}}]});
        let path = heard.target.split('?').next().unwrap_or_default().trim_end_matches("/_search");
        match path {
            "/metadata" => json(json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1",
                "rest": [{"resource": [{"type": "Patient", "operation": [{"name": "export"}]}]}]})),
            "/.well-known/smart-configuration" => json(json!({"token_endpoint": format!("{origin}/token")})),
            "/token" => json(json!({"access_token": "secret", "token_type": "bearer", "expires_in": 300})),
            "/Patient/$export" => Said { headers: vec![("content-location", format!("{}/status", at(trap == Trap::StatusOfExport)))], ..said(202, "text/plain", "") },
            "/status" => {
                let next = (trap == Trap::NextManifest).then(|| json!([{"relation": "next", "url": format!("{elsewhere}/manifest-2")}]));
                json(json!({"transactionTime": "2999-01-01T00:00:00Z", "requiresAccessToken": true, "link": next,
                    "output": [{"type": "Patient", "url": format!("{}/file", at(trap == Trap::File))}]}))
            }
            "/file" => said(200, "application/fhir+ndjson", &format!("{patient}\n")),
            "/Encounter" if trap == Trap::Redirect => Said { headers: vec![("location", format!("{elsewhere}/Encounter"))], ..said(307, "text/plain", "") },
            "/Patient" | "/Encounter" => {
                let next = (trap == Trap::NextPage).then(|| json!([{"relation": "next", "url": format!("{elsewhere}/next")}]));
                let resource = if path == "/Patient" { patient } else { encounter };
                json(json!({"resourceType": "Bundle", "type": "searchset", "link": next, "entry": [{"resource": resource}]}))
            }
            _ => json(json!({"resourceType": "Bundle", "type": "searchset"})),
        }
    }
}

#[tokio::test]
async fn s_12_the_token_goes_to_no_other_server_whatever_leads_there() {
    let traps = [Trap::NextPage, Trap::Reference, Trap::Attachment, Trap::Redirect, Trap::StatusOfExport, Trap::File, Trap::NextManifest];
    let mut visits = 0;
    for trap in traps {
        for mode in [Mode::Search, Mode::Bulk] {
            let elsewhere = Small::start(|_, _| json(json!({"resourceType": "Bundle", "type": "searchset"}))).await;
            let home = Small::start(trapped(trap, elsewhere.origin.clone())).await;
            let mut bench = Bench::new(&[]).await;
            bench.options.url = home.origin.clone();
            bench.options.tuning.retry_attempts = 2;
            let _ = bench.try_pull(mode).await;
            assert!(home.heard().iter().any(|one| one.authorized), "{trap:?} {mode:?}");
            let shown: Vec<Heard> = elsewhere.heard().into_iter().filter(|one| one.authorized).collect();
            assert!(shown.is_empty(), "{trap:?} {mode:?}: {shown:?}");
            visits += elsewhere.heard().len();
        }
    }
    assert!(visits >= 3, "{visits} requests were led elsewhere");
}

/// Waits until a token was asked for with this key.
async fn signed_with(bench: &Bench, kid: &str) {
    let is_so = || bench.running.requests().iter().any(|seen| seen.target == "/token" && assertion(&seen.body).0["kid"] == kid);
    for _ in 0..LOOKS_MAX {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no token is asked for with key {kid}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_13_two_keys_are_published_at_once_so_that_one_is_replaced_in_a_running_job() {
    let folder = tempfile::tempdir().unwrap();
    let (used, coming) = (folder.path().join("key.pem"), folder.path().join("next.pem"));
    let (old, new) = (key(), SigningKey::generate(Algorithm::Rs384).unwrap());
    std::fs::write(&used, old.to_pem()).unwrap();
    std::fs::write(&coming, new.to_pem()).unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}{}", listener.local_addr().unwrap(), key_set::PATH);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let published = tokio::spawn(key_set::serve(vec![used.clone(), coming], listener, None, async move { drop(stopped.await) }));
    let read = async || {
        let answer = reqwest::get(&address).await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "public, max-age=300");
        let text = answer.text().await.unwrap();
        assert!(!text.contains("\"d\":") && !text.contains("PRIVATE"), "{text}");
        serde_json::from_str::<Jwks>(&text).unwrap()
    };
    let names = |set: &Jwks| set.keys.iter().map(|key| key.common.key_id.clone().unwrap()).collect::<Vec<_>>();
    let both = read().await;
    assert_eq!(names(&both), [old.kid(), new.kid()]);

    let busy = Fault::Slow { path: "/Observation".to_owned(), delay: Duration::from_millis(250) };
    let serving = Serving { token_life: Duration::from_secs(1), page_max: 20, faults: vec![busy], ..Serving::default() };
    let mut bench = Bench::serving(&[], serving).await;
    bench.key = old.clone().kept_in(&used);
    bench.running.replace_keys("site", both);
    let rotation = async {
        signed_with(&bench, old.kid()).await;
        std::fs::write(&used, new.to_pem()).unwrap();
        signed_with(&bench, new.kid()).await;
        let only_new = read().await;
        assert_eq!(names(&only_new), [new.kid()], "what stands in both files is one key");
        bench.running.replace_keys("site", only_new);
    };
    let (pulled, ()) = tokio::join!(bench.pull(Mode::Search), rotation);
    let refused: Vec<u16> = pulled
        .requests
        .iter()
        .filter(|seen| seen.target == "/token")
        .map(|seen| seen.status)
        .filter(|status| *status != 200)
        .collect();
    assert_eq!(refused, Vec::<u16>::new());
    pulled.is_the_truth();
    drop(stop);
    published.await.unwrap().unwrap();
}

#[tokio::test]
async fn s_14_an_oauth_error_is_shown_by_its_code_and_nothing_secret_of_it() {
    let last_form = Arc::new(Mutex::new(String::new()));
    let echoed = |form: &str| url::form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "client_assertion").unwrap().1.into_owned();
    for (status, body, shown, hidden) in [
        (401, json!({"error": "invalid_client", "error_description": "key not found"}).to_string(), "`invalid_client` (\"key not found\")", ""),
        (400, json!({"error": "invalid_grant", "error_description": "bad ASSERTION"}).to_string(), "`invalid_grant` (\"bad …\")", ""),
        (400, json!({"error": "unauthorized_client\nforged line"}).to_string(), "`status 400`", "forged"),
        (400, "<html>Request by Jane Doe</html>".to_owned(), "`status 400`", "Jane"),
        (403, String::new(), "`status 403`", ""),
    ] {
        let (kept, answer) = (Arc::clone(&last_form), body.clone());
        let server = Small::start(move |heard, _| {
            heard.body.clone_into(&mut kept.lock().unwrap());
            said(status, "application/json", &answer.replace("ASSERTION", &echoed(&heard.body)))
        })
        .await;
        let error = tokens(&server, &["system/*.rs"], Arc::new(SystemClock)).fetch().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, HttpError::Token(_)) && text.contains(shown), "{body}: {text}");
        assert!(text.contains("client `site`") && text.contains("public key"), "says what to look at: {text}");
        let assertion = echoed(&last_form.lock().unwrap());
        assert!(!text.contains(&assertion) && !text.contains(assertion.split('.').nth(1).unwrap()) && !text.contains('\n'), "{text}");
        assert!(hidden.is_empty() || !text.contains(hidden), "{text}");
        assert_eq!(server.count("/token"), 1, "a first refusal is final");
    }
}
