//! Tests of the sandbox server: token endpoint, search, paging, export, faults; after the assertions of Inferno's
//! SMART Backend Services and Bulk Data server suites, so that a client tested here meets an honest server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::date;
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};
use watershed::sandbox::{Client, Fault, Hospital, Options, Profile, Running, start};
use watershed::smart::assertion::{Algorithm, SigningKey, sign_client_assertion};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A served hospital and a client that is registered with it.
struct Bench {
    hospital: Hospital,
    running: Running,
    key: SigningKey,
    http: reqwest::Client,
}

impl Bench {
    async fn new(profile: &str, patients: u32, change: impl FnOnce(&mut Options)) -> Bench {
        let hospital = Hospital::generate(Profile::named(profile).unwrap(), 11, patients, date(2026, 7, 15), 24);
        let key = SigningKey::generate(Algorithm::Es384).unwrap();
        let jwks = json!({"keys": [key.public_jwk()]});
        let mut options = Options {
            clients: vec![Client::reader("reader", jwks.clone()), Client { id: "narrow".into(), jwks, scopes: vec!["system/Patient.rs".into(), "system/Condition.r".into()] }],
            export_delay: Duration::from_millis(30),
            ..Options::default()
        };
        change(&mut options);
        let running = start(hospital.clone(), options).await.unwrap();
        Bench { hospital, running, key, http: reqwest::Client::builder().no_gzip().build().unwrap() }
    }

    fn origin(&self) -> &str {
        self.running.base_url.trim_end_matches("/fhir")
    }

    fn token_url(&self) -> String {
        format!("{}/token", self.origin())
    }

    fn assertion(&self, client: &str, audience: &str, jti: &str) -> String {
        sign_client_assertion(&self.key, client, audience, Timestamp::now(), jti).unwrap()
    }

    async fn ask_token(&self, parameters: &[(&str, &str)]) -> (StatusCode, Value) {
        let response = self.http.post(self.token_url()).form(parameters).send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        (response.status(), response.json().await.unwrap())
    }

    async fn token(&self, client: &str, scope: &str) -> String {
        let assertion = self.assertion(client, &self.token_url(), &uuid::Uuid::new_v4().to_string());
        let (status, body) = self.ask_token(&good(&assertion, scope)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn get(&self, token: &str, path: &str) -> (StatusCode, Value) {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.running.base_url) };
        let response = self.http.get(url).bearer_auth(token).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn kick_off(&self, token: &str, path: &str) -> reqwest::Response {
        let url = format!("{}{path}", self.running.base_url);
        let request = self.http.get(url).bearer_auth(token).header("prefer", "respond-async");
        request.header("accept", "application/fhir+json").send().await.unwrap()
    }

    /// Runs an export to its manifest; gives the status URL too.
    async fn export(&self, token: &str, path: &str) -> (String, Value) {
        let response = self.kick_off(token, path).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let status_url = response.headers()["content-location"].to_str().unwrap().to_owned();
        for _ in 0..200 {
            let response = self.http.get(&status_url).bearer_auth(token).header("accept", "application/json").send().await.unwrap();
            match response.status() {
                StatusCode::ACCEPTED => {
                    assert!(response.headers()["x-progress"].len() < 100);
                    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                status => {
                    assert_eq!(status, StatusCode::OK);
                    assert_eq!(response.headers()["content-type"], "application/json");
                    assert!(response.headers().contains_key("expires"));
                    return (status_url, response.json().await.unwrap());
                }
            }
        }
        panic!("the export did not end");
    }

    async fn lines(&self, token: &str, file: &Value) -> Vec<String> {
        let response = self.http.get(file["url"].as_str().unwrap()).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/fhir+ndjson");
        response.text().await.unwrap().lines().map(str::to_owned).collect()
    }
}

fn good<'a>(assertion: &'a str, scope: &'a str) -> [(&'a str, &'a str); 4] {
    [("grant_type", "client_credentials"), ("scope", scope), ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)]
}

fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .map(|entry| format!("{}/{}", entry["resource"]["resourceType"].as_str().unwrap(), entry["resource"]["id"].as_str().unwrap()))
        .collect()
}

fn next_link(bundle: &Value) -> Option<String> {
    let link = bundle["link"].as_array()?.iter().find(|link| link["relation"] == "next")?;
    link["url"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn discovery_tells_the_truth() {
    let bulk = Bench::new("lakeside", 10, |_| {}).await;
    let plain = Bench::new("hillcrest", 10, |_| {}).await;
    for bench in [&bulk, &plain] {
        let statement: Value = bench.http.get(format!("{}/metadata", bench.running.base_url)).send().await.unwrap().json().await.unwrap();
        assert_eq!(statement["resourceType"], "CapabilityStatement");
        assert_eq!(statement["fhirVersion"], "4.0.1");
        let configuration: Value = bench
            .http
            .get(format!("{}/.well-known/smart-configuration", bench.running.base_url))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(configuration["token_endpoint"], bench.token_url());
        assert_eq!(configuration["token_endpoint_auth_signing_alg_values_supported"], json!(["RS384", "ES384"]));
        let exports = statement.to_string().contains("group-export");
        let token = bench.token("reader", "system/*.rs").await;
        let kicked = bench.kick_off(&token, "/Group/all/$export").await.status();
        assert_eq!(exports, kicked == StatusCode::ACCEPTED);
        // Every parameter it names is understood, on every type it names.
        for resource in statement["rest"][0]["resource"].as_array().unwrap() {
            for parameter in resource["searchParam"].as_array().unwrap() {
                let value = match parameter["type"].as_str().unwrap() {
                    "date" => "ge2026-01-01",
                    _ => "x",
                };
                let path = format!("/{}?{}={value}", resource["type"].as_str().unwrap(), parameter["name"].as_str().unwrap());
                assert_eq!(bench.get(&token, &path).await.0, StatusCode::OK, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_are_given_for_good_assertions_only() {
    let bench = Bench::new("hillcrest", 5, |_| {}).await;
    let url = bench.token_url();
    let assertion = bench.assertion("reader", &url, "one");
    let (status, body) = bench.ask_token(&good(&assertion, "system/*.read")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&body["token_type"], &body["expires_in"], &body["scope"]), (&json!("bearer"), &json!(300), &json!("system/*.read")));
    // The same assertion again; the same jti in a new assertion.
    for replayed in [assertion, bench.assertion("reader", &url, "one")] {
        let (status, body) = bench.ask_token(&good(&replayed, "system/*.rs")).await;
        assert_eq!((status, &body["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")), "{body}");
    }
    let stranger = SigningKey::generate(Algorithm::Es384).unwrap();
    let rsa = SigningKey::generate(Algorithm::Rs384).unwrap();
    let now = Timestamp::now();
    let sign = |key: &SigningKey, client: &str, audience: &str, at: Timestamp| sign_client_assertion(key, client, audience, at, &uuid::Uuid::new_v4().to_string()).unwrap();
    let hour = SignedDuration::from_hours(1);
    for (why, assertion) in [
        ("audience", sign(&bench.key, "reader", &bench.running.base_url, now)),
        ("expired", sign(&bench.key, "reader", &url, now - hour)),
        ("expires too late", sign(&bench.key, "reader", &url, now + hour)),
        ("client", sign(&bench.key, "nobody", &url, now)),
        ("key", sign(&stranger, "reader", &url, now)),
        ("algorithm", sign(&rsa, "reader", &url, now)),
        ("nonsense", "a.b.c".to_owned()),
    ] {
        let (status, body) = bench.ask_token(&good(&assertion, "system/*.rs")).await;
        assert_eq!((status, &body["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")), "{why}: {body}");
    }
    let fresh = || sign(&bench.key, "reader", &url, now);
    for (index, value, error) in [
        (0, "authorization_code", "unsupported_grant_type"),
        (0, "", "invalid_request"),
        (1, "", "invalid_request"),
        (1, "user/Patient.rs", "invalid_scope"),
        (2, "jwt", "invalid_request"),
        (3, "", "invalid_request"),
    ] {
        let assertion = fresh();
        let mut parameters = good(&assertion, "system/*.rs");
        parameters[index].1 = value;
        let (status, body) = bench.ask_token(&parameters).await;
        assert_eq!((status, body["error"].as_str().unwrap()), (StatusCode::BAD_REQUEST, error), "{value}");
    }
    let assertion = fresh();
    let twice: Vec<(&str, &str)> = good(&assertion, "system/*.rs").into_iter().chain([("scope", "system/*.rs")]).collect();
    assert_eq!(bench.ask_token(&twice).await.1["error"], "invalid_request");
}

#[tokio::test]
async fn an_rsa_key_works_too_and_tokens_end() {
    let rsa = SigningKey::generate(Algorithm::Rs384).unwrap();
    let jwks = json!({"keys": [rsa.public_jwk()]});
    let bench = Bench::new("hillcrest", 5, |options| {
        options.clients.push(Client::reader("rsa", jwks));
        options.token_life = Duration::ZERO;
    })
    .await;
    let assertion = sign_client_assertion(&rsa, "rsa", &bench.token_url(), Timestamp::now(), "x").unwrap();
    let (_, body) = bench.ask_token(&good(&assertion, "system/*.rs")).await;
    assert_eq!(body["expires_in"], 0);
    let token = body["access_token"].as_str().unwrap();
    let (status, body) = bench.get(token, "/Patient").await;
    assert_eq!((status, &body["resourceType"]), (StatusCode::UNAUTHORIZED, &json!("OperationOutcome")));
    assert_eq!(bench.get("", "/Patient").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.get("guess", "/Patient").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn scopes_are_enforced_by_type_and_right() {
    let bench = Bench::new("lakeside", 10, |_| {}).await;
    let token = bench.token("narrow", "system/*.rs").await;
    assert_eq!(bench.get(&token, "/Patient").await.0, StatusCode::OK);
    assert_eq!(bench.get(&token, "/Patient/ibd-0001").await.0, StatusCode::OK);
    assert_eq!(bench.get(&token, "/Condition/ibd-0001-diagnosis").await.0, StatusCode::OK);
    for path in ["/Condition", "/Observation", "/Observation/x", "/Encounter?patient=ibd-0001"] {
        let (status, body) = bench.get(&token, path).await;
        assert_eq!((status, &body["issue"][0]["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{path}");
    }
    assert_eq!(bench.kick_off(&token, "/Patient/$export?_type=Patient,Observation").await.status(), StatusCode::FORBIDDEN);
    let (_, manifest) = bench.export(&token, "/Patient/$export").await;
    let kinds: BTreeSet<&str> = manifest["output"].as_array().unwrap().iter().map(|file| file["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["Patient"]));
}

#[tokio::test]
async fn search_is_strict() {
    let bench = Bench::new("hillcrest", 20, |_| {}).await;
    let token = bench.token("reader", "system/*.rs").await;
    for (path, status) in [
        ("/Observation?colour=blue", 400),
        ("/Observation?code:in=http://x", 400),
        ("/Observation?patient.name=x", 400),
        ("/Observation?date=soon", 400),
        ("/Observation?_sort=date", 400),
        ("/Observation?_count=-1", 400),
        ("/Observation?_page=forged", 400),
        ("/Observation?_page=AAAA&code=x", 400),
        ("/Practitioner?name=x", 400),
        ("/Immunization", 404),
        ("/Observation/nothing", 404),
        ("/Observation/a/b/c", 404),
        ("/$everything", 404),
    ] {
        let (found, body) = bench.get(&token, path).await;
        assert_eq!((found.as_u16(), &body["resourceType"]), (status, &json!("OperationOutcome")), "{path}");
    }
    let url = format!("{}/Observation", bench.running.base_url);
    let lenient = bench.http.get(format!("{url}?colour=blue&_count=1")).bearer_auth(&token).header("prefer", "handling=lenient");
    let bundle: Value = lenient.send().await.unwrap().json().await.unwrap();
    assert_eq!(bundle["entry"][1]["search"]["mode"], "outcome");
    assert!(!bundle["link"][0]["url"].as_str().unwrap().contains("colour"));
    let xml = bench.http.get(&url).bearer_auth(&token).header("accept", "application/fhir+xml").send().await.unwrap();
    assert_eq!(xml.status(), StatusCode::NOT_ACCEPTABLE);
    let created = bench.http.post(&url).bearer_auth(&token).body("{}").send().await.unwrap();
    assert_eq!(created.status(), StatusCode::METHOD_NOT_ALLOWED);
    let deleted = bench.http.delete(format!("{url}/x")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn searches_find_what_the_records_hold() {
    let bench = Bench::new("hillcrest", 60, |options| options.page_max = 100_000).await;
    let token = bench.token("reader", "system/*.rs").await;
    let resources: Vec<Value> = bench.hospital.resources().iter().map(|(_, _, json)| serde_json::from_str(json).unwrap()).collect();
    let expect = |keep: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
        let kept = resources.iter().filter(|resource| keep(resource));
        kept.map(|resource| format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap()))
            .collect()
    };
    let is = |resource: &Value, kind: &str| resource["resourceType"] == kind;
    let of = |resource: &Value, patient: &str| resource["subject"]["reference"] == format!("Patient/{patient}");
    let patient = bench.hospital.patients()[2].clone();
    let cases: Vec<(String, BTreeSet<String>)> = vec![
        (format!("/Observation?patient={patient}"), expect(&|one| is(one, "Observation") && of(one, &patient))),
        (format!("/Observation?subject=Patient/{patient}"), expect(&|one| is(one, "Observation") && of(one, &patient))),
        (
            "/Observation?code=http://watershed.example/fhir/CodeSystem/ibd|pga&status=final,amended".to_owned(),
            expect(&|one| one["code"]["coding"][0]["code"] == "pga" && (one["status"] == "final" || one["status"] == "amended")),
        ),
        ("/Observation?category=laboratory".to_owned(), expect(&|one| is(one, "Observation") && one["category"][0]["coding"][0]["code"] == "laboratory")),
        (
            "/Encounter?class=IMP&status=finished&date=ge2026-01-01".to_owned(),
            expect(&|one| {
                is(one, "Encounter") && one["class"]["code"] == "IMP" && one["status"] == "finished" && one["period"]["end"].as_str().is_some_and(|end| end >= "2026-01-01")
            }),
        ),
        ("/Patient?gender=female".to_owned(), expect(&|one| is(one, "Patient") && one["gender"] == "female")),
        ("/Patient?birthdate=lt2010-01-01".to_owned(), expect(&|one| is(one, "Patient") && one["birthDate"].as_str().unwrap() < "2010")),
        ("/Device?type=52124006".to_owned(), expect(&|one| is(one, "Device") && one["type"]["coding"][0]["code"] == "52124006")),
        ("/Location?partof=building-main".to_owned(), expect(&|one| is(one, "Location") && one["partOf"]["reference"] == "Location/building-main")),
        (format!("/Patient?_id={patient},nobody"), BTreeSet::from([format!("Patient/{patient}")])),
        ("/Condition?_lastUpdated=ge2026-03-01T00:00:00Z".to_owned(), expect(&|one| is(one, "Condition") && one["meta"]["lastUpdated"].as_str().unwrap() >= "2026-03-01")),
        ("/Condition?_lastUpdated=gt2030-01-01".to_owned(), BTreeSet::new()),
    ];
    for (path, expected) in cases {
        let (status, bundle) = bench.get(&token, &format!("{path}&_count=100000")).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(ids(&bundle).into_iter().collect::<BTreeSet<_>>(), expected, "{path}");
        assert!(bundle.get("total").is_none());
    }
    // By POST, with a total, and with what a use of a device refers to.
    let url = format!("{}/DeviceUseStatement/_search", bench.running.base_url);
    let form = [("_include", "DeviceUseStatement:device"), ("_total", "accurate"), ("_count", "5")];
    let bundle: Value = bench.http.post(url).bearer_auth(&token).form(&form).send().await.unwrap().json().await.unwrap();
    let uses = expect(&|one| is(one, "DeviceUseStatement")).len();
    assert_eq!(bundle["total"], uses);
    let modes: Vec<&str> = bundle["entry"].as_array().unwrap().iter().map(|entry| entry["search"]["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["match", "match", "match", "match", "match", "include", "include", "include", "include", "include"]);
    let (_, count) = bench.get(&token, "/DeviceUseStatement?_summary=count").await;
    assert_eq!((count["total"].as_u64().unwrap(), count.get("entry")), (uses as u64, None));
}

#[tokio::test]
async fn pages_are_complete_and_stable_while_the_data_change() {
    let bench = Bench::new("hillcrest", 40, |_| {}).await;
    let token = bench.token("reader", "system/*.rs").await;
    let before: Vec<String> = bench
        .hospital
        .resources()
        .into_iter()
        .filter(|one| one.0 == "Observation")
        .map(|one| format!("{}/{}", one.0, one.1))
        .collect();
    let (_, mut bundle) = bench.get(&token, "/Observation?_count=37").await;
    let mut found = ids(&bundle);
    let mut pages = 1;
    let first_next = next_link(&bundle).unwrap();
    while let Some(next) = next_link(&bundle) {
        bench.hospital.amend(pages);
        let (status, page) = bench.get(&token, &next).await;
        assert_eq!(status, StatusCode::OK);
        bundle = page;
        found.extend(ids(&bundle));
        pages += 1;
    }
    assert_eq!(pages, before.len().div_ceil(37) as u64);
    let unique: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(unique.len(), found.len(), "a resource came twice");
    assert_eq!(unique, before.into_iter().collect());
    // Another client, a changed token.
    let other = bench.token("narrow", "system/*.rs").await;
    assert_ne!(bench.get(&other, &first_next).await.0, StatusCode::OK);
    let mut changed = first_next.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'Q' } else { 'A' });
    assert_eq!(bench.get(&token, &changed).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_too_old_no_longer_works() {
    let bench = Bench::new("lakeside", 40, |options| {
        options.page_life = Duration::ZERO;
        options.export_life = Duration::ZERO;
        options.export_delay = Duration::ZERO;
    })
    .await;
    let token = bench.token("reader", "system/*.rs").await;
    let (_, bundle) = bench.get(&token, "/Observation").await;
    assert_eq!(bench.get(&token, &next_link(&bundle).unwrap()).await.0, StatusCode::GONE);
    let kicked = bench.kick_off(&token, "/Patient/$export").await;
    let status_url = kicked.headers()["content-location"].to_str().unwrap().to_owned();
    assert_eq!(bench.get(&token, &status_url).await.0, StatusCode::GONE);
    let file = status_url.replace("export-status", "export-file") + "/0.ndjson";
    assert_eq!(bench.get(&token, &file).await.0, StatusCode::GONE);
}

#[tokio::test]
async fn reads_have_versions_and_deletions_are_gone() {
    let bench = Bench::new("lakeside", 60, |_| {}).await;
    let token = bench.token("reader", "system/*.rs").await;
    let snapshot = |hospital: &Hospital| -> BTreeMap<String, String> { hospital.resources().into_iter().map(|(kind, id, json)| (format!("{kind}/{id}"), json)).collect() };
    let before = snapshot(&bench.hospital);
    let since = Timestamp::now();
    bench.hospital.amend(3);
    let after = snapshot(&bench.hospital);
    let deleted: BTreeSet<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    let changed: BTreeSet<&String> = after.iter().filter(|(name, json)| before.get(*name) != Some(*json)).map(|one| one.0).collect();
    assert!(!deleted.is_empty() && !changed.is_empty());
    for name in &deleted {
        assert_eq!(bench.get(&token, &format!("/{name}")).await.0, StatusCode::GONE);
    }
    let some = changed.iter().find(|name| before.contains_key(**name)).unwrap();
    let url = format!("{}/{some}", bench.running.base_url);
    let response = bench.http.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(response.headers()["etag"], "W/\"2\"");
    let again = bench.http.get(&url).bearer_auth(&token).header("if-none-match", "W/\"2\"").send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    // The same seen by an incremental export and an incremental search.
    let (_, manifest) = bench.export(&token, &format!("/$export?_since={since}")).await;
    let mut exported = BTreeSet::new();
    for file in manifest["output"].as_array().unwrap() {
        for line in bench.lines(&token, file).await {
            let resource: Value = serde_json::from_str(&line).unwrap();
            exported.insert(format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap()));
        }
    }
    assert_eq!(exported.iter().collect::<BTreeSet<_>>(), changed);
    let mut gone = BTreeSet::new();
    for file in manifest["deleted"].as_array().unwrap() {
        for line in bench.lines(&token, file).await {
            let bundle: Value = serde_json::from_str(&line).unwrap();
            gone.extend(bundle["entry"].as_array().unwrap().iter().map(|entry| entry["request"]["url"].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(gone.iter().collect::<BTreeSet<_>>(), deleted);
}

#[tokio::test]
async fn an_export_runs_through_its_life() {
    let bench = Bench::new("lakeside", 60, |options| options.export_file_resources = 50).await;
    let token = bench.token("reader", "system/*.rs").await;
    let plain = bench.http.get(format!("{}/Group/all/$export", bench.running.base_url)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::BAD_REQUEST);
    let nobody = bench
        .http
        .get(format!("{}/Group/all/$export", bench.running.base_url))
        .header("prefer", "respond-async")
        .send()
        .await
        .unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    for (path, status) in [
        ("/Group/none/$export", 404),
        ("/Patient/$export?_type=Immunization", 400),
        ("/Patient/$export?_since=2026-01-01", 400),
        ("/Patient/$export?_elements=id", 400),
        ("/Patient/$export?_outputFormat=text/csv", 400),
        ("/Patient/$export?_typeFilter=Observation%3Fcolour%3Dblue", 400),
    ] {
        assert_eq!(bench.kick_off(&token, path).await.status().as_u16(), status, "{path}");
    }
    let before = Timestamp::now();
    let (status_url, manifest) = bench.export(&token, "/Group/all/$export?_outputFormat=ndjson").await;
    let time: Timestamp = manifest["transactionTime"].as_str().unwrap().parse().unwrap();
    assert!(time.duration_until(before) < SignedDuration::from_secs(1));
    assert_eq!((&manifest["requiresAccessToken"], &manifest["error"], &manifest["deleted"]), (&json!(true), &json!([]), &json!([])));
    let mut found = BTreeSet::new();
    for file in manifest["output"].as_array().unwrap() {
        let lines = bench.lines(&token, file).await;
        assert_eq!(json!(lines.len()), file["count"]);
        for line in lines {
            let resource: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(resource["resourceType"], file["type"]);
            assert!(found.insert((resource["resourceType"].as_str().unwrap().to_owned(), resource["id"].as_str().unwrap().to_owned())));
        }
    }
    let all: BTreeSet<(String, String)> = bench.hospital.resources().into_iter().filter(|one| one.0 != "Group").map(|one| (one.0, one.1)).collect();
    assert_eq!(found, all);
    // Compressed on request; refused without a token; gone after deletion.
    let file = manifest["output"][0]["url"].as_str().unwrap();
    let packed = bench.http.get(file).bearer_auth(&token).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert_eq!(bench.http.get(file).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let delete = |url: String| bench.http.delete(url).bearer_auth(&token).send();
    assert_eq!(delete(status_url.clone()).await.unwrap().status(), StatusCode::ACCEPTED);
    let (status, body) = bench.get(&token, &status_url).await;
    assert_eq!((status, &body["resourceType"]), (StatusCode::NOT_FOUND, &json!("OperationOutcome")));
    assert_eq!(bench.get(&token, file).await.0, StatusCode::NOT_FOUND);
    assert_eq!(delete(status_url).await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn exports_filter_and_are_limited() {
    let bench = Bench::new("lakeside", 40, |options| {
        options.export_jobs_max = 2;
    })
    .await;
    let token = bench.token("reader", "system/*.rs").await;
    let path = "/Group/ibd/$export?_type=Observation,Patient&_typeFilter=Observation%3Fcode%3Dpga";
    let (status_url, manifest) = bench.export(&token, path).await;
    for file in manifest["output"].as_array().unwrap() {
        for line in bench.lines(&token, file).await {
            assert!(line.contains("\"code\":\"pga\"") || file["type"] == "Patient");
            assert!(line.contains("ibd-"), "{line}");
        }
    }
    assert_eq!(bench.kick_off(&token, path).await.status(), StatusCode::ACCEPTED);
    let third = bench.kick_off(&token, path).await;
    assert_eq!((third.status(), third.headers()["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    bench.http.delete(&status_url).bearer_auth(&token).send().await.unwrap();
    let body = json!({"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Patient"}]});
    let url = format!("{}/Patient/$export", bench.running.base_url);
    let posted = bench.http.post(url).bearer_auth(&token).header("prefer", "respond-async").body(body.to_string()).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn faults_strike_as_told() {
    let bench = Bench::new("lakeside", 30, |options| {
        options.faults = vec![
            Fault::Malformed { resource_type: "Observation".into(), count: 60 },
            Fault::Truncated { resource_type: "Condition".into(), lines: 3 },
            Fault::Status { path: "/Procedure".into(), status: 503, retry_after: Some(2), times: 1 },
        ];
        options.rate_limit = Some(1000);
    })
    .await;
    let token = bench.token("reader", "system/*.rs").await;
    let url = format!("{}/Procedure", bench.running.base_url);
    let response = bench.http.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!((response.status(), response.headers()["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert_eq!(bench.get(&token, "/Procedure").await.0, StatusCode::OK);
    let (_, bundle) = bench.get(&token, "/Observation?_count=10").await;
    assert_eq!(bundle["entry"].as_array().unwrap().len(), 70);
    let (_, later) = bench.get(&token, &next_link(&bundle).unwrap()).await;
    assert_eq!(later["entry"].as_array().unwrap().len(), 10);
    let mut struck = 0;
    for patient in bench.hospital.patients() {
        let (_, bundle) = bench.get(&token, &format!("/Observation?patient={patient}&_count=250")).await;
        struck += bundle["entry"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["fullUrl"].as_str().unwrap().ends_with("malformed"))
            .count();
    }
    assert_eq!(struck, 60);
    let (_, manifest) = bench.export(&token, "/$export?_type=Observation,Condition").await;
    for file in manifest["output"].as_array().unwrap() {
        let lines = bench.lines(&token, file).await;
        let whole = lines
            .iter()
            .filter(|line| {
                serde_json::from_str::<Value>(line).is_ok_and(|one| one["id"].as_str().is_some_and(|id| id.len() <= 64 && !id.contains('/')) && one["resourceType"] == file["type"])
            })
            .count();
        let count = usize::try_from(file["count"].as_u64().unwrap()).unwrap();
        match file["type"].as_str().unwrap() {
            "Observation" => assert_eq!((lines.len(), whole), (count + 60, count)),
            _ => assert_eq!((lines.len(), whole), (count, count - 3)),
        }
    }
}
