//! The registry's promises: the whole feed protocol with every refusal, tenants, races, restarts, hostile peers.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use watershed::destination::registry::verify_receipt;
use watershed::feed::{Completeness, Entry, Manifest, PROTOCOL, ReportKey, Withdrawal, feed_id, sha256_hex};
use watershed::outbox::Cause;
use watershed::registry::quota::Quota;
use watershed::registry::store::{AuditBreak, Keys, NewSite};
use watershed::registry::{self, MeasureCard, Options, Unit};
use watershed::smart::assertion::{Algorithm, Jwks, SigningKey, sign_client_assertion};

mod access;
mod adapter;
mod charts;
mod groups;
mod kept;
mod likeness;
mod numbers;
mod remarks;
mod serving;
mod together;

pub(crate) use adapter::{append, draft, send};

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
    reader_token: Option<String>,
    quota: Quota,
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
        units: Default::default(),
        parts: Default::default(),
        sums: Default::default(),
        definitions: Default::default(),
    }
}

impl Network {
    pub(crate) async fn start(cards: Vec<MeasureCard>) -> Network {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let (data, clock) = (tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(START)));
        let mut network = Network { data, address: ([127, 0, 0, 1], 0).into(), clock, cards, stop: None, http, reader_token: None, quota: Quota::default() };
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
            reader_token: self.reader_token.clone(),
            quota: self.quota,
            new_receipt_key: false,
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
            "SELECT * FROM reading ORDER BY revision, place",
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
        "group": if group.is_array() { group } else { json!([group]) }
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
    assert_eq!(
        held(&north).await,
        json!({ "site": "north", "epoch": 0, "heardAt": null, "head": null, "current": [], "accepts": [{ "measure": proportion().url, "versions": proportion().versions }] })
    );
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
