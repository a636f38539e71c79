//! The registry's promises: the whole feed protocol with every refusal, tenants, races, restarts, hostile peers.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;
use watershed::destination::registry::{Delivered, Registry, deliver_due, verify_receipt};
use watershed::feed::{Completeness, Entry, Manifest, PROTOCOL, ReportKey, Withdrawal, feed_id, sha256_hex};
use watershed::http::{Clock, Retry, Settings};
use watershed::outbox::{self, Cause, Draft, Report};
use watershed::registry::store::{AuditBreak, Keys, NewSite};
use watershed::registry::{self, MeasureCard, Options, Unit};
use watershed::smart::assertion::{Algorithm, Jwks, SigningKey, sign_client_assertion};
use watershed::store::Store;

const SCOPE: &str = registry::auth::SCOPE;
const START: i64 = 1_790_000_000; // 2026-09-21

/// A registry in a directory of its own, on a loopback port, with a clock that the test turns.
pub(crate) struct Network {
    pub(crate) data: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<AtomicI64>,
    cards: Vec<MeasureCard>,
    stop: Option<(tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
    http: reqwest::Client,
}

/// A site's adapter as the protocol sees it.
pub(crate) struct Adapter {
    pub(crate) name: String,
    key: SigningKey,
    epoch: u64,
    token: String,
}

pub(crate) fn proportion() -> MeasureCard {
    MeasureCard {
        id: "remission".into(),
        url: "http://n.example/Measure/remission".into(),
        versions: vec!["1.0.0".into(), "1.1.0".into()],
        title: "Remission".into(),
        plain_language: "How many of the children have a quiet disease.".into(),
        higher_is_better: Some(true),
        unit: Unit::Percent,
    }
}

impl Network {
    pub(crate) async fn start(cards: Vec<MeasureCard>) -> Network {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let (data, clock) = (tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(START)));
        let mut network = Network { data, address: ([127, 0, 0, 1], 0).into(), clock, cards, stop: None, http };
        network.serve().await;
        network
    }

    async fn serve(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.address = listener.local_addr().unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let clock = self.clock.clone();
        let options = Options {
            data: self.data.path().to_owned(),
            public_url: self.base(),
            network: "Test Network".into(),
            measures: self.cards.clone(),
            tls: None,
            behind_proxy: false,
            late_after_hours: 36,
            clock: Arc::new(move || Timestamp::from_second(clock.load(Ordering::SeqCst)).unwrap()),
        };
        let served = tokio::spawn(async move { registry::serve(options, listener, async move { drop(receiver.await) }).await.unwrap() });
        self.stop = Some((sender, served));
    }

    /// Stops the process and starts it anew over the same files, at the same address.
    async fn restart(&mut self) {
        let (sender, served) = self.stop.take().unwrap();
        sender.send(()).unwrap();
        self.http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        served.await.unwrap();
        self.serve().await;
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock.load(Ordering::SeqCst)).unwrap()
    }

    pub(crate) async fn join(&self, name: &str, organization: &str) -> Adapter {
        let key = SigningKey::generate(Algorithm::Es384).unwrap();
        let keys = Keys::Set(serde_json::to_string(&key.public_jwks()).unwrap());
        let site = NewSite { name: name.into(), organization: organization.into(), client_id: format!("client-{name}"), keys };
        registry::open_store(self.data.path()).unwrap().add_site(&site, self.now()).unwrap();
        let mut adapter = Adapter { name: name.into(), key, epoch: 1, token: String::new() };
        self.log_in(&mut adapter).await;
        adapter
    }

    async fn log_in(&self, adapter: &mut Adapter) {
        adapter.token = token(&self.http, &self.base(), &adapter.key, &adapter.name, self.now()).await;
    }

    async fn ask(&self, method: Method, path: &str, adapter: Option<&Adapter>, headers: &[(&str, String)], body: Vec<u8>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.base())).body(body);
        if let Some(adapter) = adapter {
            request = request.bearer_auth(&adapter.token);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    async fn announce(&self, adapter: &Adapter, manifest: &[u8]) -> Answer {
        let id = feed_id(manifest);
        let headers = [("idempotency-key", id.clone()), ("watershed-epoch", adapter.epoch.to_string())];
        self.ask(Method::PUT, &format!("/v1/feeds/{id}"), Some(adapter), &headers, manifest.to_vec()).await
    }

    async fn part(&self, adapter: &Adapter, feed: &str, body: &[u8]) -> Answer {
        let path = format!("/v1/feeds/{feed}/parts/{}", sha256_hex(body));
        self.ask(Method::PUT, &path, Some(adapter), &[], body.to_vec()).await
    }

    async fn commit(&self, adapter: &Adapter, feed: &str) -> Answer {
        let headers = [("watershed-epoch", adapter.epoch.to_string())];
        self.ask(Method::POST, &format!("/v1/feeds/{feed}/commit"), Some(adapter), &headers, vec![]).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None, &[], vec![]).await
    }

    async fn points(&self) -> Vec<Value> {
        self.get("/v1/measures/remission/series").await.json()["points"].as_array().unwrap().clone()
    }

    /// Everything durable but contact times and tokens, as text.
    fn dump(&self) -> String {
        let connection = rusqlite::Connection::open(self.data.path().join("registry.sqlite")).unwrap();
        let mut text = String::new();
        for query in [
            "SELECT site, feed, state, manifest_sha256, received_at, settled_at, receipt FROM feed ORDER BY site, feed",
            "SELECT * FROM revision ORDER BY id",
            "SELECT * FROM current ORDER BY site, measure, period_start",
            "SELECT * FROM audit ORDER BY sequence",
            "SELECT site, sha256 FROM part ORDER BY site, sha256",
            "SELECT name, head, epoch FROM site ORDER BY id",
        ] {
            let mut statement = connection.prepare(query).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    text.push_str(&format!("{:?}|", row.get_ref(column).unwrap()));
                }
                text.push('\n');
            }
        }
        text
    }
}

struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}: {}", self.status, self.text))
    }
    fn receipt(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["receipt"].as_str().unwrap_or_else(|| panic!("{}", self.text)).to_owned()
    }
    /// Status and every reason.
    fn refusal(&self) -> (u16, String) {
        let outcome = self.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{}", self.text);
        let reasons: Vec<_> = outcome["issue"].as_array().unwrap().iter().map(|issue| issue["details"]["text"].as_str().unwrap().to_owned()).collect();
        (self.status.as_u16(), reasons.join("\n"))
    }
}

async fn token(http: &reqwest::Client, base: &str, key: &SigningKey, name: &str, now: Timestamp) -> String {
    let jti = uuid::Uuid::new_v4().to_string();
    let assertion = sign_client_assertion(key, &format!("client-{name}"), &format!("{base}/token"), now, &jti).unwrap();
    let (status, body) = ask_token(http, base, &assertion).await;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

async fn ask_token(http: &reqwest::Client, base: &str, assertion: &str) -> (u16, Value) {
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", SCOPE),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ];
    let response = http.post(format!("{base}/token")).form(&form).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

pub(crate) fn key(month: u32) -> ReportKey {
    let (year, month) = (2024 + (month - 1) / 12, (month - 1) % 12 + 1);
    let last = jiff::civil::date(year as i16, month as i8, 1).last_of_month();
    ReportKey {
        measure: "http://n.example/Measure/remission".into(),
        version: "1.0.0".into(),
        period_start: format!("{year}-{month:02}-01"),
        period_end: last.to_string(),
    }
}

pub(crate) fn body(site: &str, key: &ReportKey, numerator: u32, denominator: u32) -> Vec<u8> {
    let population =
        |code: &str, count: u32| json!({ "code": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-population", "code": code }] }, "count": count });
    let group = json!({
        "population": [population("initial-population", denominator), population("denominator", denominator), population("numerator", numerator)],
        "measureScore": { "value": f64::from(numerator) / f64::from(denominator) }
    });
    measure_report(site, key, "increase", "proportion", group)
}

pub(crate) fn measure_report(site: &str, key: &ReportKey, improvement: &str, scoring: &str, group: Value) -> Vec<u8> {
    let report = json!({
        "resourceType": "MeasureReport",
        "status": "complete",
        "type": "summary",
        "extension": [{
            "url": "http://hl7.org/fhir/us/davinci-deqm/StructureDefinition/extension-measureScoring",
            "valueCodeableConcept": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-scoring", "code": scoring }] }
        }],
        "measure": format!("{}|{}", key.measure, key.version),
        "date": "2026-09-21T00:00:00Z",
        "reporter": { "identifier": { "value": site } },
        "period": { "start": key.period_start, "end": key.period_end },
        "improvementNotation": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/measure-improvement-notation", "code": improvement }] },
        "group": [group]
    });
    serde_json::to_vec(&report).unwrap()
}

/// A feed made by hand, so that tests can make it wrong.
#[derive(Clone)]
struct Feed {
    manifest: Manifest,
    bodies: Vec<Vec<u8>>,
}

impl Feed {
    fn first(site: &str, numerators: &[u32]) -> Feed {
        Feed::after(site, None, numerators)
    }

    fn after(site: &str, before: Option<&Feed>, numerators: &[u32]) -> Feed {
        let months = 1..=numerators.len() as u32;
        let bodies: Vec<_> = months.clone().zip(numerators).map(|(month, numerator)| body(site, &key(month), *numerator, 100)).collect();
        let entry = |(month, body): (u32, &Vec<u8>)| {
            let replaces = before
                .and_then(|before| before.manifest.reports.iter().find(|entry| entry.key == key(month)))
                .map(|entry| entry.sha256.clone());
            let sha256 = sha256_hex(body);
            let cause = replaces.as_ref().filter(|old| **old != sha256).map(|_| Cause::Data);
            Entry { key: key(month), sha256, bytes: body.len() as u64, complete: true, replaces, cause }
        };
        let manifest = Manifest {
            protocol: PROTOCOL.into(),
            site: site.into(),
            supersedes: before.map(|before| sha256_hex(&before.manifest.bytes())),
            attempt: 1,
            completeness: Completeness { complete: true, gaps: 0, quarantined: 0 },
            reports: months.zip(&bodies).map(entry).collect(),
            withdrawals: vec![],
        };
        Feed { manifest, bodies }
    }

    /// The same with other reports.
    fn with(mut self, bodies: Vec<Vec<u8>>) -> Feed {
        for (entry, body) in self.manifest.reports.iter_mut().zip(&bodies) {
            (entry.sha256, entry.bytes) = (sha256_hex(body), body.len() as u64);
        }
        Feed { bodies, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        self.manifest.bytes()
    }
    fn id(&self) -> String {
        feed_id(&self.bytes())
    }
}

async fn deliver(network: &Network, adapter: &Adapter, feed: &Feed) -> Answer {
    let announced = network.announce(adapter, &feed.bytes()).await;
    if announced.status != 200 && announced.status != 201 {
        return announced;
    }
    for body in &feed.bodies {
        assert_eq!(network.part(adapter, &feed.id(), body).await.status, 204);
    }
    network.commit(adapter, &feed.id()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_protocol_and_every_step_twice() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "Northern Children's").await;
    let feed = Feed::first("north", &[60, 70]);
    let first = network.announce(&north, &feed.bytes()).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.json()["missing"].as_array().unwrap().len(), 2);
    assert_eq!(network.announce(&north, &feed.bytes()).await.status, 200);

    let path = format!("/v1/feeds/{}/parts/{}", feed.id(), sha256_hex(&feed.bodies[0]));
    let torn = network.ask(Method::PUT, &path, Some(&north), &[], b"{}".to_vec()).await;
    assert_eq!(torn.refusal().0, 422);
    let unnamed = network.part(&north, &feed.id(), b"{\"other\":1}").await;
    assert_eq!(unnamed.refusal().0, 404);
    for _ in 0..2 {
        assert_eq!(network.part(&north, &feed.id(), &feed.bodies[0]).await.status, 204);
    }
    let early = network.commit(&north, &feed.id()).await;
    assert_eq!((early.refusal().0, early.json()["issue"][0]["code"].as_str()), (422, Some("incomplete")));
    assert!(network.points().await.is_empty(), "parts are invisible");
    assert_eq!(network.part(&north, &feed.id(), &feed.bodies[1]).await.status, 204);

    let receipt = network.commit(&north, &feed.id()).await.receipt();
    assert_eq!(network.commit(&north, &feed.id()).await.receipt(), receipt, "a lost receipt is given again");
    assert_eq!(network.announce(&north, &feed.bytes()).await.receipt(), receipt);
    let keys: Jwks = serde_json::from_str(&network.get("/.well-known/jwks.json").await.text).unwrap();
    let claims = verify_receipt(&receipt, &keys, "north", &feed.id(), &feed.bytes(), &feed.manifest).unwrap();
    assert_eq!(claims.reports.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(network.points().await.len(), 2);

    // Every byte of the receipt counts.
    for index in 0..receipt.len() {
        let mut forged = receipt.clone().into_bytes();
        forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        if forged != receipt
            && let Ok(found) = verify_receipt(&forged, &keys, "north", &feed.id(), &feed.bytes(), &feed.manifest)
        {
            // The last character of a base64 part may carry bits that mean nothing.
            assert_eq!(found, claims);
        }
    }
    let other = Feed::first("north", &[61, 70]);
    assert!(verify_receipt(&receipt, &keys, "north", &other.id(), &other.bytes(), &other.manifest).is_err());
    assert!(verify_receipt(&receipt, &Jwks::default(), "north", &feed.id(), &feed.bytes(), &feed.manifest).is_err());
    assert_eq!(registry::open_store(network.data.path()).unwrap().verify_audit().unwrap(), Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn corrections_and_withdrawals_are_revisions_and_nothing_superseded_comes_back() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let first = Feed::first("north", &[60, 70]);
    let old_receipt = deliver(&network, &north, &first).await.receipt();
    let second = Feed::after("north", Some(&first), &[60, 75]);
    // The unchanged part is here already: only the changed one is asked for.
    assert_eq!(network.announce(&north, &second.bytes()).await.json()["missing"], json!([sha256_hex(&second.bodies[1])]));
    deliver(&network, &north, &second).await.receipt();
    let numbers = |points: &[Value]| {
        points
            .iter()
            .map(|point| (point["numerator"].as_str().unwrap().to_owned(), point["revision"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&network.points().await), [("60".to_owned(), 1), ("75".to_owned(), 2)]);

    // The old feed, sent again, gets its old receipt and changes nothing.
    let before = network.dump();
    assert_eq!(deliver(&network, &north, &first).await.receipt(), old_receipt);
    assert_eq!(network.dump(), before);
    // A third that still follows the first is refused.
    let stale = Feed::after("north", Some(&first), &[60, 99]);
    assert_eq!(deliver(&network, &north, &stale).await.refusal().0, 412);
    // One that follows the right feed but names the wrong report is rejected for good.
    let mut crossed = Feed::after("north", Some(&second), &[60, 99]);
    crossed.manifest.reports[1].replaces = Some(sha256_hex(&first.bodies[1]));
    let (status, reason) = deliver(&network, &north, &crossed).await.refusal();
    assert_eq!(status, 422);
    assert!(reason.contains("the report it replaces is not the current one"), "{reason}");

    let mut third = Feed::after("north", Some(&second), &[]);
    third.manifest.withdrawals = vec![Withdrawal { key: key(2), replaces: sha256_hex(&second.bodies[1]), reason: "counted twice".into() }];
    deliver(&network, &north, &third).await.receipt();
    assert_eq!(numbers(&network.points().await), [("60".to_owned(), 1)]);
    let history = network.get("/measures/remission/sites/north/2024-02-01").await;
    assert_eq!(history.status, 200);
    for word in ["withdrawn: counted twice", "data changed", "first report", "75 / 100", "70 / 100"] {
        assert!(history.text.contains(word), "{word}");
    }
    assert_eq!(registry::open_store(network.data.path()).unwrap().verify_audit().unwrap(), Ok(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_says_why_and_leaves_nothing_visible() {
    let network = Network::start(vec![proportion()]).await;
    let mut north = network.join("north", "North").await;
    let feed = Feed::first("north", &[60]);
    let id = feed.id();
    let path = format!("/v1/feeds/{id}");
    let headers = |key: &str, epoch: &str| [("idempotency-key", key.to_owned()), ("watershed-epoch", epoch.to_owned())];

    let ask = |headers: Vec<(&'static str, String)>, body: Vec<u8>| network.ask(Method::PUT, &path, Some(&north), Box::leak(headers.into_boxed_slice()), body);
    assert_eq!(ask(vec![], feed.bytes()).await.refusal().0, 400);
    assert_eq!(ask(headers("other", "1").to_vec(), feed.bytes()).await.refusal().0, 400);
    assert_eq!(ask(headers(&id, "one").to_vec(), feed.bytes()).await.refusal().0, 400);
    assert_eq!(ask(headers(&id, "1").to_vec(), b"{}".to_vec()).await.refusal().0, 422);
    assert_eq!(ask(headers(&id, "1").to_vec(), vec![b' '; (4 << 20) + 1]).await.status, 413);
    assert_eq!(network.commit(&north, &id).await.refusal().0, 404);
    assert_eq!(network.ask(Method::PUT, &path, None, &[], feed.bytes()).await.refusal().0, 401);
    assert_eq!(network.ask(Method::DELETE, &path, Some(&north), &[], vec![]).await.status, 405);

    // The same identity cannot carry another body.
    deliver(&network, &north, &feed).await.receipt();
    let other = Feed::first("north", &[61]);
    let conflict = network.ask(Method::PUT, &path, Some(&north), &headers(&id, "1"), other.bytes()).await;
    assert_eq!(conflict.refusal().0, 409);
    // A process with an older epoch is fenced, at either step.
    north.epoch = 5;
    let second = Feed::after("north", Some(&feed), &[62]);
    assert_eq!(network.announce(&north, &second.bytes()).await.status, 201);
    network.part(&north, &second.id(), &second.bodies[0]).await;
    north.epoch = 4;
    assert_eq!(network.commit(&north, &second.id()).await.refusal().0, 409);
    let third = Feed::after("north", Some(&feed), &[63]);
    let (status, reason) = network.announce(&north, &third.bytes()).await.refusal();
    assert_eq!(status, 409);
    assert!(reason.contains("epoch 4 is stale, 5 was seen"), "{reason}");
    let held = format!("the registry holds feed `{}` of `north`, received 2026-09-21 14:13 UTC, with 1 report", &feed.id()[..12]);
    assert!(reason.ends_with(&held), "{reason}");
    north.epoch = 5;
    let (status, reason) = network.announce(&north, &Feed::first("north", &[64]).bytes()).await.refusal();
    assert!(status == 412 && reason.contains("the feed follows none") && reason.ends_with(&held), "{reason}");

    // Rejected at the commit: every reason at once, the same answer for ever, nothing visible.
    let mut bad = Feed::after("north", Some(&feed), &[10, 20]);
    bad.manifest.reports[1].key.measure = "http://n.example/Measure/unknown".into();
    bad.bodies[0] = body("north", &key(1), 150, 100);
    bad.bodies[1] = body("south", &bad.manifest.reports[1].key, 20, 100);
    for (entry, body) in bad.manifest.reports.iter_mut().zip(&bad.bodies) {
        (entry.sha256, entry.bytes) = (sha256_hex(body), body.len() as u64);
    }
    let rejected = deliver(&network, &north, &bad).await;
    let (status, reasons) = rejected.refusal();
    assert_eq!(status, 422);
    for reason in ["is greater than denominator 100", "measure `http://n.example/Measure/unknown` is not accepted here", "the token belongs to `north`"] {
        assert!(reasons.contains(reason), "{reason} in {reasons}");
    }
    assert_eq!(network.commit(&north, &bad.id()).await.refusal(), rejected.refusal());
    assert_eq!(network.announce(&north, &bad.bytes()).await.refusal(), rejected.refusal());
    assert_eq!(network.points().await.len(), 1);
    let board = network.get("/").await.text;
    assert!(board.contains("Rejected") && board.contains("is greater than denominator 100"), "{board}");
    deliver(&network, &north, &second).await.receipt();
    assert!(!network.get("/").await.text.contains("Rejected"), "a good feed clears the board");
    // So does the word that nothing changed since; but not that of somebody who does not know of the last feed.
    let stale = Feed::after("north", Some(&feed), &[65]);
    assert_eq!(network.announce(&north, &stale.bytes()).await.refusal().0, 412);
    assert!(network.get("/").await.text.contains("Rejected"));
    assert_eq!(network.announce(&north, &feed.bytes()).await.json()["current"], false);
    assert!(network.get("/").await.text.contains("Rejected"));
    assert_eq!(network.announce(&north, &second.bytes()).await.json()["current"], true);
    assert!(!network.get("/").await.text.contains("Rejected"), "the last feed was confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_told_what_is_held_of_it_and_nobody_else_is() {
    let network = Network::start(vec![proportion()]).await;
    let (mut north, south) = (network.join("north", "North").await, network.join("south", "South").await);
    let held = async |site: &Adapter| network.ask(Method::GET, "/v1/feeds", Some(site), &[], vec![]).await.json();
    assert_eq!(held(&north).await, json!({ "site": "north", "epoch": 0, "heardAt": null, "head": null, "current": [] }));
    north.epoch = 3;
    let first = Feed::first("north", &[60, 70]);
    deliver(&network, &north, &first).await.receipt();
    let mut second = Feed::after("north", Some(&first), &[61]);
    second.manifest.withdrawals = vec![Withdrawal { key: key(2), replaces: sha256_hex(&first.bodies[1]), reason: "counted twice".into() }];
    let receipt = deliver(&network, &north, &second).await.receipt();
    let told = held(&north).await;
    assert_eq!((&told["epoch"], &told["head"]["feed"], &told["head"]["receipt"]), (&json!(3), &json!(second.id()), &json!(receipt)));
    assert_eq!(told["head"]["manifest"], serde_json::to_value(&second.manifest).unwrap());
    assert_eq!(told["current"], json!([{ "key": key(1), "sha256": sha256_hex(&second.bodies[0]), "complete": true, "feed": second.id() }]), "what is withdrawn is not current");
    assert_eq!(held(&south).await["head"], Value::Null);
    assert_eq!(network.ask(Method::GET, "/v1/feeds", None, &[], vec![]).await.refusal().0, 401);

    let path = format!("/v1/feeds/{}/parts/{}", second.id(), sha256_hex(&second.bodies[0]));
    let part = network.ask(Method::GET, &path, Some(&north), &[], vec![]).await;
    assert_eq!((part.status.as_u16(), part.text.as_bytes()), (200, second.bodies[0].as_slice()));
    assert_eq!(network.ask(Method::GET, &path, Some(&south), &[], vec![]).await.refusal().0, 404);
    assert_eq!(network.ask(Method::GET, &path, None, &[], vec![]).await.refusal().0, 401);
    let open = Feed::after("north", Some(&second), &[62]);
    network.announce(&north, &open.bytes()).await;
    network.part(&north, &open.id(), &open.bodies[0]).await;
    let path = format!("/v1/feeds/{}/parts/{}", open.id(), sha256_hex(&open.bodies[0]));
    assert_eq!(network.ask(Method::GET, &path, Some(&north), &[], vec![]).await.refusal().0, 404, "what is not committed is not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_has_just_joined_is_not_late_before_its_first_night_was_due() {
    let network = Network::start(vec![proportion()]).await;
    network.join("north", "North").await;
    let board = async || (network.get("/").await.text, network.get("/v1/sites").await.json()["sites"][0]["late"].clone());
    let (text, late) = board().await;
    assert!(text.contains("<strong>0 of 1</strong> sites in · <strong>1</strong> new.") && text.contains("Nothing yet"), "{text}");
    assert_eq!(late, false);
    network.clock.fetch_add(37 * 3600, Ordering::SeqCst);
    let (text, late) = board().await;
    assert!(text.contains("<strong>0 of 1</strong> sites in · <strong>1</strong> late.") && text.contains("Nothing yet"), "{text}");
    assert_eq!(late, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_a_data_directory() {
    let network = Network::start(vec![proportion()]).await;
    // It answers; and who serves and who registers sites work side by side.
    network.join("north", "North").await;
    let options = Options {
        data: network.data.path().to_owned(),
        public_url: "http://127.0.0.1".into(),
        network: "N".into(),
        measures: vec![],
        tls: None,
        behind_proxy: false,
        late_after_hours: 36,
        clock: Arc::new(Timestamp::now),
    };
    let second = registry::Server::open(options, TcpListener::bind("127.0.0.1:0").unwrap()).await;
    let error = second.err().unwrap().to_string();
    assert!(error.contains("registry.sqlite.lock is locked: another `watershed registry serve` works on this data directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_manifests_are_refused() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let good = Feed::first("north", &[60, 70]);
    let text = String::from_utf8(good.bytes()).unwrap();
    let change = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = good.manifest.clone();
        change(&mut manifest);
        manifest.bytes()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (text.replace(",\"attempt\"", ", \"attempt\"").into_bytes(), "not in canonical form"),
        (text.replace("\"attempt\":1", "\"attempt\":1,\"attempt\":1").into_bytes(), "duplicate field"),
        (text.replace("\"attempt\":1", "\"attempt\":1,\"admin\":true").into_bytes(), "unknown field"),
        (text.replace("\"attempt\":1", "\"attempt\":-1").into_bytes(), "manifest:"),
        (text.replace("\"gaps\":0", "\"gaps\":1e308").into_bytes(), "manifest:"),
        (b"[".repeat(100_000), "manifest:"),
        (b"\xff\xfe".to_vec(), "manifest:"),
        (vec![], "manifest:"),
        (change(&|m| m.site = "south".into()), "the token belongs to another"),
        (change(&|m| m.site = "south\u{1b}[31m\n".into()), "south\\u{1b}[31m\\n"),
        (change(&|m| m.protocol = "watershed-feed/2".into()), "is not `watershed-feed/1`"),
        (change(&|m| m.reports.reverse()), "must be sorted"),
        (change(&|m| m.reports[1] = m.reports[0].clone()), "must be sorted"),
        (change(&|m| m.reports[1].key = ReportKey { version: "1.1.0".into(), ..m.reports[0].key.clone() }), "occurs twice"),
        (change(&|m| m.reports[0].sha256 = "../../etc/passwd".into()), "64 lower-case hexadecimal digits"),
        (change(&|m| m.reports[0].sha256 = "A".repeat(64)), "64 lower-case hexadecimal digits"),
        (change(&|m| m.reports[0].bytes = 0), "must have 1 to"),
        (change(&|m| m.reports[0].bytes = u64::MAX), "must have 1 to"),
        (change(&|m| m.reports[0].key.period_start = "x".repeat(600)), "1 to 512 characters"),
        (change(&|m| m.reports[0].key.version = String::new()), "1 to 512 characters"),
        (change(&|m| m.reports[0].key.version = "1\u{0}".into()), "must be plain text"),
        (change(&|m| m.withdrawals = vec![Withdrawal { key: key(9), replaces: "0".repeat(64), reason: String::new() }]), "must name a digest and a reason"),
        (change(&|m| m.withdrawals = vec![Withdrawal { key: key(1), replaces: "0".repeat(64), reason: "r".into() }]), "occurs twice"),
        (
            change(&|m| {
                m.reports = (1..=10_001)
                    .map(|n| Entry { key: ReportKey { version: format!("{n:05}"), ..key(1) }, ..m.reports[0].clone() })
                    .collect()
            }),
            "at most 10000",
        ),
    ];
    for (manifest, reason) in &cases {
        let (status, reasons) = network.announce(&north, manifest).await.refusal();
        assert_eq!(status, 422, "{reason}: {reasons}");
        assert!(reasons.contains(reason), "{reason}: {reasons}");
    }
    let big = change(&|m| {
        m.reports = (1..=40)
            .map(|n| Entry { key: ReportKey { period_start: format!("2024-01-{n:02}"), ..key(1) }, bytes: 10 << 20, ..m.reports[0].clone() })
            .collect()
    });
    assert!(network.announce(&north, &big).await.refusal().1.contains("fit one feed"));
    // Feeds that are announced and never finished are bounded, and forgotten after seven days.
    let mut north = north;
    for n in 1..=8 {
        assert_eq!(network.announce(&north, &Feed::first("north", &[n]).bytes()).await.status, 201);
    }
    assert_eq!(network.announce(&north, &Feed::first("north", &[9]).bytes()).await.refusal().0, 429);
    let first = Feed::first("north", &[1]);
    network.part(&north, &first.id(), &first.bodies[0]).await;
    network.clock.fetch_add(8 * 86_400, Ordering::SeqCst);
    network.log_in(&mut north).await;
    assert_eq!(network.announce(&north, &Feed::first("north", &[9]).bytes()).await.status, 201);
    assert_eq!(network.commit(&north, &first.id()).await.refusal().0, 404);
    assert!(!network.dump().contains(&sha256_hex(&first.bodies[0])), "its reports are forgotten too");
    deliver(&network, &north, &first).await.receipt();
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_commits_of_one_feed_have_one_effect() {
    let network = Arc::new(Network::start(vec![proportion()]).await);
    let north = Arc::new(network.join("north", "North").await);
    let feed = Feed::first("north", &[60, 61, 62]);
    network.announce(&north, &feed.bytes()).await;
    for body in &feed.bodies {
        network.part(&north, &feed.id(), body).await;
    }
    let commits = (0..32).map(|_| {
        let (network, north, id) = (network.clone(), north.clone(), feed.id());
        tokio::spawn(async move { network.commit(&north, &id).await.receipt() })
    });
    let mut receipts = BTreeSet::new();
    for commit in commits.collect::<Vec<_>>() {
        receipts.insert(commit.await.unwrap());
    }
    assert_eq!(receipts.len(), 1);
    // Two feeds that follow the same one: one wins, the other is told.
    let rivals = [Feed::after("north", Some(&feed), &[70, 61, 62]), Feed::after("north", Some(&feed), &[80, 61, 62])];
    for rival in &rivals {
        network.announce(&north, &rival.bytes()).await;
        for body in &rival.bodies {
            network.part(&north, &rival.id(), body).await;
        }
    }
    let (one, two) = (rivals[0].id(), rivals[1].id());
    let (one, two) = tokio::join!(network.commit(&north, &one), network.commit(&north, &two));
    let statuses = BTreeSet::from([one.status.as_u16(), two.status.as_u16()]);
    assert_eq!(statuses, BTreeSet::from([200, 412]));
    assert_eq!(network.points().await[0]["revision"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_half_a_feed() {
    let network = Arc::new(Network::start(vec![proportion()]).await);
    let north = network.join("north", "North").await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (network, done) = (network.clone(), done.clone());
            tokio::spawn(async move {
                let mut reads = 0;
                while !done.load(Ordering::SeqCst) {
                    let points = network.points().await;
                    let seen: BTreeSet<_> = points.iter().map(|point| point["numerator"].to_string()).collect();
                    assert!(seen.len() <= 1, "half a feed: {seen:?}");
                    assert!(points.is_empty() || points.len() == 12);
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let mut before: Option<Feed> = None;
    for generation in 1..=12 {
        let feed = Feed::after("north", before.as_ref(), &[generation; 12]);
        deliver(&network, &north, &feed).await.receipt();
        before = Some(feed);
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_any_two_steps_loses_nothing_and_doubles_nothing() {
    let mut network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let mut before: Option<Feed> = None;
    for restart_at in 0..5_u32 {
        let feed = Feed::after("north", before.as_ref(), &[restart_at + 1, restart_at + 2]);
        let mut receipts = BTreeSet::new();
        for step in 0..5 {
            match step {
                0 => assert!(network.announce(&north, &feed.bytes()).await.status.is_success()),
                1 | 2 => assert_eq!(network.part(&north, &feed.id(), &feed.bodies[step - 1]).await.status, 204),
                _ => drop(receipts.insert(network.commit(&north, &feed.id()).await.receipt())),
            }
            if step == restart_at as usize {
                network.restart().await;
            }
        }
        assert_eq!(receipts.len(), 1);
        before = Some(feed);
    }
    let points = network.points().await;
    assert_eq!(points.iter().map(|point| point["revision"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(registry::open_store(network.data.path()).unwrap().verify_audit().unwrap(), Ok(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_chain_that_was_touched_does_not_verify() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    deliver(&network, &north, &Feed::first("north", &[60])).await.receipt();
    let raw = rusqlite::Connection::open(network.data.path().join("registry.sqlite")).unwrap();
    assert!(raw.execute("UPDATE audit SET body = '{}'", []).is_err(), "a trigger guards it");
    assert!(raw.execute("DELETE FROM audit", []).is_err());
    assert!(raw.execute("DELETE FROM revision", []).is_err());
    raw.execute_batch("DROP TRIGGER audit_is_append_only; UPDATE audit SET body = replace(body, 'north', 'south') WHERE sequence = 2")
        .unwrap();
    assert_eq!(registry::open_store(network.data.path()).unwrap().verify_audit().unwrap(), Err(AuditBreak { sequence: 2 }));
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

/// The test's clock, for the adapter.
struct Turned(Arc<AtomicI64>);

impl Clock for Turned {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

impl Network {
    /// The registry as the real adapter of a site sees it.
    pub(crate) fn peer(&self, adapter: &Adapter) -> Registry {
        let key = SigningKey::from_pem(adapter.key.to_pem()).unwrap();
        let settings = Settings { retry: Retry { attempts: 1, ..Retry::default() }, ..Settings::default() };
        let base = Url::parse(&self.base()).unwrap();
        Registry::connect(base, format!("client-{}", adapter.name), key, &settings, Arc::new(Turned(self.clock.clone()))).unwrap()
    }
}

pub(crate) fn draft(site: &str, reports: Vec<Report>) -> Draft {
    let completeness = Completeness { complete: reports.iter().all(|report| report.complete), gaps: 0, quarantined: 0 };
    Draft { destination: "network".into(), site: site.into(), reports, withdrawals: vec![], cause: Cause::Data, completeness }
}

fn night(site: &str, numerators: &[u32]) -> Draft {
    let report = |(index, numerator): (usize, &u32)| {
        let key = key(index as u32 + 1);
        Report { body: body(site, &key, *numerator, 100), key, complete: true }
    };
    draft(site, numerators.iter().enumerate().map(report).collect())
}

pub(crate) fn append(store: &Store, draft: &Draft, now: Timestamp) -> String {
    let appended = store.transaction(|transaction| Ok(outbox::append(transaction, draft, now).unwrap())).unwrap();
    match appended {
        outbox::Appended::New { feed } | outbox::Appended::Unchanged { feed } => feed,
    }
}

pub(crate) async fn send(network: &Network, adapter: &Adapter, store: &Store) -> Delivered {
    let now = network.now();
    deliver_due(&network.peer(adapter), store, &move || now).await.unwrap()
}

fn open(path: &Path) -> Store {
    let store = Store::open(&path.join("state.sqlite")).unwrap();
    store.with(|connection| Ok(outbox::open_epoch(connection).unwrap())).unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_night_twice_changes_nothing_and_keeps_the_site_alive() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    append(&store, &night("north", &[60, 70]), network.now());
    assert_eq!(send(&network, &north, &store).await, Delivered { delivered: 1, ..Delivered::default() });
    let before = network.dump();
    network.clock.fetch_add(86_400, Ordering::SeqCst);
    append(&store, &night("north", &[60, 70]), network.now());
    assert_eq!(send(&network, &north, &store).await, Delivered { confirmed: 1, ..Delivered::default() });
    assert_eq!(network.dump(), before);
    assert!(network.get("/").await.text.contains("unchanged, confirmed just now"));
    network.clock.fetch_add(3 * 86_400, Ordering::SeqCst);
    assert!(network.get("/").await.text.contains("Late"));
    // A rejection: the feed is dead with its reasons, the next night follows the last good one.
    network.clock.fetch_sub(3 * 86_400, Ordering::SeqCst);
    append(&store, &night("north", &[60, 170]), network.now());
    assert_eq!(send(&network, &north, &store).await.dead, 1);
    let listed = store.with(|connection| Ok(outbox::list(connection).unwrap())).unwrap();
    assert!(listed[0].reason.as_ref().unwrap().contains("is greater than denominator"), "{listed:?}");
    append(&store, &night("north", &[60, 71]), network.now());
    assert_eq!(send(&network, &north, &store).await.delivered, 1);
    assert_eq!(network.points().await[1]["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_killed_after_any_step_ends_with_the_same_feed() {
    let network = Network::start(vec![proportion()]).await;
    for killed_after in 0..5 {
        let name = format!("site-{killed_after}");
        let adapter = network.join(&name, &name).await;
        let state = tempfile::tempdir().unwrap();
        let store = open(state.path());
        let id = append(&store, &night(&name, &[60, 70]), network.now());
        let feed = Feed::first(&name, &[60, 70]);
        assert_eq!(id, feed.id());
        // The steps it took before it was killed, with the feed leased and nothing settled.
        let now = network.now();
        store.with(|connection| Ok(outbox::claim(connection, now, Duration::from_secs(3600)).unwrap().unwrap())).unwrap();
        for step in 0..killed_after {
            match step {
                0 => assert_eq!(network.announce(&adapter, &feed.bytes()).await.status, 201),
                1 | 2 => assert_eq!(network.part(&adapter, &id, &feed.bodies[step - 1]).await.status, 204),
                _ => drop(network.commit(&adapter, &id).await.receipt()),
            }
        }
        drop(store);
        let store = open(state.path());
        append(&store, &night(&name, &[60, 70]), now);
        assert_eq!(send(&network, &adapter, &store).await, Delivered { delivered: 1, ..Delivered::default() });
        assert_eq!(store.with(|connection| Ok(outbox::list(connection).unwrap().len())).unwrap(), 1);
    }
    assert_eq!(network.points().await.len(), 10);
    assert!(network.points().await.iter().all(|point| point["revision"] == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_costs_a_wait_and_nothing_else() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    append(&store, &night("north", &[60]), network.now());
    let mut peer = network.peer(&north);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    peer.base = Url::parse(&format!("http://{closed}")).unwrap();
    let now = network.now();
    assert_eq!(deliver_due(&peer, &store, &move || now).await.unwrap().waiting, 1);
    assert_eq!(send(&network, &north, &store).await, Delivered { waiting: 1, ..Delivered::default() }, "not due yet, and not forgotten");
    append(&store, &night("north", &[61]), now);
    network.clock.fetch_add(60, Ordering::SeqCst);
    assert_eq!(send(&network, &north, &store).await.delivered, 2, "both nights, in order");
    assert_eq!(network.points().await[0]["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_no_script_and_escape_what_sites_say() {
    let payloads = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'; DROP TABLE site;--", "</title><svg onload=alert(1)>", "{{7*7}}"];
    let mut card = proportion();
    card.title = payloads.join(" ");
    card.plain_language = payloads.join(" ");
    let network = Network::start(vec![card]).await;
    for (index, payload) in payloads.iter().enumerate() {
        let name = format!("site-{index}");
        let adapter = network.join(&name, payload).await;
        deliver(&network, &adapter, &Feed::first(&name, &[60, 61, 62])).await.receipt();
    }
    let pages = ["/", "/measures/remission", "/measures/remission/sites/site-0", "/measures/remission/sites/site-1/2024-01-01", "/nowhere", "/measures/%3Cscript%3E"];
    for path in pages {
        let page = network.get(path).await;
        assert_eq!(page.headers["content-security-policy"].to_str().unwrap().split(';').next(), Some("default-src 'self'"));
        for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
            assert_eq!(page.headers[name], value);
        }
        for hostile in ["<script", "<img", "<svg onload", "style=\""] {
            assert!(!page.text.contains(hostile), "{path} holds {hostile}");
        }
        assert!(!page.text.contains(" 49 "), "{path} evaluates what it was given");
    }
    assert_eq!(network.get("/nowhere").await.status, 404);
    let csv = network.get("/v1/measures/remission/series?site=site-0&format=csv").await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(csv.text.lines().count(), 4);
    assert!(csv.text.lines().nth(1).unwrap().starts_with("site-0,remission,1.0.0,2024-01-01,2024-01-31,60,100,60,true,1,2026-"), "{}", csv.text);
    assert_eq!(network.get("/v1/sites").await.json()["sites"].as_array().unwrap().len(), 5);
    assert_eq!(network.get("/v1/measures").await.json()["measures"][0]["id"], "remission");
    assert_eq!(network.get("/v1/measures/none/series").await.refusal().0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_served_on_loopback_only() {
    let data = tempfile::tempdir().unwrap();
    let options = Options {
        data: data.path().to_owned(),
        public_url: "https://registry.example".into(),
        network: "N".into(),
        measures: vec![],
        tls: None,
        behind_proxy: false,
        late_after_hours: 36,
        clock: Arc::new(Timestamp::now),
    };
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let error = registry::serve(options, listener, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("is not loopback") && error.contains("behind_proxy"), "{error}");
}

/// A weighted composite has a score and nothing to count: the series is the score, and of two sites it lies between theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_score_that_is_no_fraction_is_shown_as_it_was_reported() {
    let network = Network::start(vec![proportion()]).await;
    for (name, score) in [("north", "0.61"), ("south", "0.745")] {
        let site = network.join(name, name).await;
        let group = json!({ "measureScore": { "value": score.parse::<f64>().unwrap() } });
        let feed = Feed::first(name, &[1]).with(vec![measure_report(name, &key(1), "increase", "composite", group)]);
        assert_eq!(deliver(&network, &site, &feed).await.status, 200, "{name}");
    }
    let points: Vec<_> = network.points().await.iter().map(|point| (point["numerator"].clone(), point["value"].clone())).collect();
    assert_eq!(points, [(Value::Null, json!(61.0)), (Value::Null, json!(74.5))]);
    let board = network.get("/").await.text;
    assert!(board.contains("61.0\u{202f}% to 74.5\u{202f}% in Jan 2024, 2 sites"), "{board}");
    let history = network.get("/measures/remission/sites/north/2024-01-01").await.text;
    assert!(history.contains("score 0.61"), "{history}");
    let north = network.get("/measures/remission/sites/north").await.text;
    assert!(north.contains("61.0\u{202f}% in Jan 2024") && !north.contains("– of –"), "{north}");
}
