//! Pulling: from the sandbox hospitals by export and by search, and from a small server that misbehaves on purpose.

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use watershed::http::{Clock, SystemClock};
use watershed::sandbox::server::{Client, Options as Serving, Running, start};
use watershed::sandbox::{Fault, Hospital, Profile};
use watershed::smart::assertion::{Algorithm, SigningKey};
use watershed::snapshot::{Key, Snapshot};
use watershed::source::{Mode, Need, Options, PullOutcome, Silent, Source, SourceError, plan, pull};
use watershed::store::{Store, quarantine};

/// A place to pull into.
struct Site {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    key: Key,
}

impl Site {
    fn new() -> Site {
        Site { folder: tempfile::tempdir().unwrap(), store: Arc::new(Store::open_in_memory().unwrap()), key: Key::generate().unwrap() }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::open(self.folder.path(), Arc::clone(&self.store), self.key.clone(), 4).unwrap()
    }

    fn held(&self) -> Vec<quarantine::Item> {
        self.store.with(|connection| quarantine::list(connection, Some(quarantine::State::Held))).unwrap()
    }
}

fn quick(url: &str, mode: Mode) -> Options {
    let mut options = Options { url: url.to_owned(), mode, ..Options::default() };
    options.tuning.retry_first_ms = 2;
    options.tuning.retry_attempts = 4;
    options.tuning.poll_first_ms = 20;
    options
}

async fn pull_once(site: &Site, options: &Options, key: Option<&SigningKey>, types: &[&str], clock: Arc<dyn Clock>) -> Result<PullOutcome, SourceError> {
    let needs: Vec<Need> = types.iter().map(|name| Need::all(name)).collect();
    let names: BTreeSet<String> = types.iter().map(|name| (*name).to_owned()).collect();
    let source = Source::connect(options, key, &names, Arc::clone(&clock)).await?;
    let plan = plan(&needs, &source.capability, options);
    pull(&source, &plan, &site.snapshot(), clock.as_ref(), &Silent).await
}

const SANDBOX_TYPES: &[&str] = &["Patient", "Encounter", "Condition", "Observation", "Procedure", "DeviceUseStatement", "Device", "Location"];

async fn hospital(name: &str, key: &SigningKey, serving: Serving) -> (Hospital, Running) {
    let hospital = Hospital::generate(Profile::named(name).unwrap(), 7, 60, "2026-02-01".parse().unwrap(), 6);
    let jwks = serde_json::to_value(key.public_jwks()).unwrap();
    let serving = Serving { clients: vec![Client::reader("site", jwks)], export_delay: Duration::from_millis(50), ..serving };
    let running = start(hospital.clone(), serving).await.unwrap();
    (hospital, running)
}

fn with_client(url: &str, mode: Mode) -> Options {
    Options { client_id: "site".to_owned(), ..quick(url, mode) }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

#[tokio::test]
async fn a_sandbox_hospital_gives_the_same_snapshot_by_export_and_by_search_and_a_second_pull_is_empty() {
    let key = SigningKey::generate(Algorithm::Es384).unwrap();
    let (hospital, running) = hospital("lakeside", &key, Serving::default()).await;
    let mut digests = Vec::new();
    for mode in [Mode::Bulk, Mode::Search] {
        let site = Site::new();
        let options = with_client(&running.base_url, mode);
        let first = pull_once(&site, &options, Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert!(first.complete, "{mode:?}: {:?}, quarantined {}", first.gaps, first.quarantined);
        assert!(first.full && first.new_versions > 500, "{mode:?}: {} new", first.new_versions);
        let digest = site.snapshot().digest().unwrap();

        let second = pull_once(&site, &options, Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert_eq!((second.new_versions, second.removed, second.full, second.complete), (0, 0, false, true), "{mode:?}");
        assert_eq!(site.snapshot().digest().unwrap(), digest);
        digests.push(digest);

        hospital.amend(11 + digests.len() as u64);
        let third = pull_once(&site, &options, Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert!(third.new_versions > 0 && third.new_versions < first.new_versions / 2, "{mode:?}: {}", third.new_versions);
        // What vanished without a word (an orphaned Device; any deletion, by search) is found by the next full pull.
        let mut full = options.clone();
        full.tuning.full_every_days = 0;
        let fourth = pull_once(&site, &full, Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert!(fourth.full && fourth.new_versions == 0, "{mode:?}: {}", fourth.new_versions);
        let fresh = Site::new();
        pull_once(&fresh, &options, Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert_eq!(site.snapshot().counts().unwrap(), fresh.snapshot().counts().unwrap(), "{mode:?}");
        assert_eq!(site.snapshot().digest().unwrap(), fresh.snapshot().digest().unwrap(), "{mode:?}");
        let again = Site::new();
        let other = if mode == Mode::Bulk { Mode::Search } else { Mode::Bulk };
        pull_once(&again, &with_client(&running.base_url, other), Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert_eq!(again.snapshot().counts().unwrap(), fresh.snapshot().counts().unwrap(), "export and search");
        assert_eq!(again.snapshot().digest().unwrap(), fresh.snapshot().digest().unwrap(), "export and search");
    }
}

#[tokio::test]
async fn sixty_malformed_resources_and_cut_lines_are_held_and_the_rest_arrives() {
    let key = SigningKey::generate(Algorithm::Rs384).unwrap();
    for (mode, name) in [(Mode::Search, "hillcrest"), (Mode::Bulk, "lakeside")] {
        let malformed = Fault::Malformed { resource_type: "Observation".to_owned(), count: 60 };
        let truncated = Fault::Truncated { resource_type: "Condition".to_owned(), lines: 3 };
        let serving = Serving { faults: vec![malformed, truncated], ..Serving::default() };
        let (_, running) = hospital(name, &key, serving).await;
        let site = Site::new();
        let outcome = pull_once(&site, &with_client(&running.base_url, mode), Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert!(!outcome.complete);
        let cut = if mode == Mode::Bulk { 3 } else { 0 };
        assert_eq!(outcome.quarantined, 60 + cut, "{mode:?}");
        assert_eq!(site.held().len() as u64, outcome.quarantined);
        assert!(outcome.received["Observation"] > 100);
        let shown = format!("{:?}", site.held());
        assert!(!shown.contains("resourceType\":"), "{shown:.200}");
        let again = pull_once(&site, &with_client(&running.base_url, mode), Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert_eq!((again.quarantined, again.new_versions), (60 + cut, 0), "the same lines are held once");
        // Decided, they are what the server has, and left out.
        let discard = |id| site.store.with(|connection| quarantine::decide(connection, id, quarantine::State::Discarded)).unwrap();
        site.held().iter().for_each(|item| discard(item.id));
        let decided = pull_once(&site, &with_client(&running.base_url, mode), Some(&key), SANDBOX_TYPES, clock()).await.unwrap();
        assert_eq!((decided.quarantined, decided.full), (0, true), "{mode:?}");
        // The manifest of the export does not count the lines that were added to its files.
        assert!(decided.complete == (mode == Mode::Search) && decided.gaps.iter().all(|gap| gap.reason.contains("the manifest announced")), "{mode:?}: {:?}", decided.gaps);
    }
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_the_paging_is_renewed() {
    let key = SigningKey::generate(Algorithm::Es384).unwrap();
    let busy = Fault::Slow { path: "/Observation".to_owned(), delay: Duration::from_millis(150) };
    let serving = Serving { token_life: Duration::from_secs(1), page_max: 20, faults: vec![busy], ..Serving::default() };
    let (_, running) = hospital("hillcrest", &key, serving).await;
    let outcome = pull_once(&Site::new(), &with_client(&running.base_url, Mode::Search), Some(&key), SANDBOX_TYPES, clock()).await;
    let outcome = outcome.unwrap();
    assert!(outcome.complete, "{:?}", outcome.gaps);
}

/// What the small server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quirk {
    None,
    Busy,
    Loop,
    SamePage,
    RelativeNext,
    NextElsewhere,
    RedirectElsewhere,
    TotalTooLarge,
    LeavesTwoOut,
    OutcomeWithError,
    OutcomeWithWarning,
    Html,
    TruncatedGzip,
    StaleExport,
    ExportLostOnce,
}

struct Small {
    quirk: Quirk,
    requests: AtomicUsize,
    stop_at: AtomicUsize,
    reached: tokio::sync::Notify,
    kicked: AtomicUsize,
    authorizations_elsewhere: Mutex<Vec<bool>>,
    base: Mutex<String>,
    elsewhere: Mutex<String>,
}

const PATIENTS: usize = 5;
const PAGE: usize = 2;

fn resources(resource_type: &str) -> Vec<serde_json::Value> {
    let meta = serde_json::json!({"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"});
    (0..PATIENTS)
        .map(|number| match resource_type {
            "Patient" => serde_json::json!({"resourceType": "Patient", "id": format!("p{number}"), "meta": meta}),
            _ => serde_json::json!({"resourceType": "Observation", "id": format!("o{number}"), "meta": meta,
                "subject": {"reference": format!("Patient/p{number}")}, "valueQuantity": {"value": number}}),
        })
        .collect()
}

fn json(status: u16, value: serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", "application/fhir+json".parse().unwrap());
    response
}

impl Small {
    async fn start(quirk: Quirk) -> Arc<Small> {
        let small = Arc::new(Small {
            quirk,
            requests: AtomicUsize::new(0),
            stop_at: AtomicUsize::new(usize::MAX),
            reached: tokio::sync::Notify::new(),
            kicked: AtomicUsize::new(0),
            authorizations_elsewhere: Mutex::new(Vec::new()),
            base: Mutex::new(String::new()),
            elsewhere: Mutex::new(String::new()),
        });
        for elsewhere in [false, true] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            *(if elsewhere { &small.elsewhere } else { &small.base }).lock().unwrap() = address;
            let state = Arc::clone(&small);
            let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
                let state = Arc::clone(&state);
                async move {
                    if elsewhere {
                        state.answer_elsewhere(&uri, &headers)
                    } else {
                        state.count().await;
                        state.answer(&uri)
                    }
                }
            });
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        small
    }

    fn url(&self) -> String {
        format!("{}/fhir", self.base.lock().unwrap())
    }

    /// Counts a request; the one at which the client is to die never gets its answer.
    async fn count(&self) {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if number >= self.stop_at.load(Ordering::SeqCst) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn answer_elsewhere(&self, uri: &Uri, headers: &HeaderMap) -> Response<Body> {
        self.authorizations_elsewhere.lock().unwrap().push(headers.contains_key("authorization"));
        self.search(uri)
    }

    fn answer(&self, uri: &Uri) -> Response<Body> {
        let path = uri.path().strip_prefix("/fhir/").unwrap_or(uri.path());
        let number = self.requests.load(Ordering::SeqCst);
        match path {
            "metadata" => self.metadata(),
            ".well-known/smart-configuration" => json(200, serde_json::json!({"token_endpoint": format!("{}/token", self.base.lock().unwrap())})),
            "/token" => json(200, serde_json::json!({"access_token": "secret", "token_type": "Bearer", "expires_in": 300})),
            "Patient/$export" => self.kick_off(),
            "status" => self.status(),
            "file/Patient" | "file/Observation" => self.file(path.trim_start_matches("file/")),
            _ if self.quirk == Quirk::Busy && number.is_multiple_of(2) => {
                let mut response = json(if number.is_multiple_of(4) { 429 } else { 503 }, serde_json::json!({}));
                response.headers_mut().insert("retry-after", "0".parse().unwrap());
                response
            }
            _ => self.search(uri),
        }
    }

    fn metadata(&self) -> Response<Body> {
        json(
            200,
            serde_json::json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"mode": "server",
            "searchParam": [{"name": "_lastUpdated"}],
            "resource": [{"type": "Patient", "operation": [{"name": "export"}]}, {"type": "Observation"}]}]}),
        )
    }

    fn kick_off(&self) -> Response<Body> {
        self.kicked.fetch_add(1, Ordering::SeqCst);
        let mut response = json(202, serde_json::json!({}));
        response.headers_mut().insert("content-location", format!("{}/status", self.url()).parse().unwrap());
        response
    }

    fn status(&self) -> Response<Body> {
        if self.quirk == Quirk::ExportLostOnce && self.kicked.load(Ordering::SeqCst) == 1 {
            return json(404, serde_json::json!({}));
        }
        let time = if self.quirk == Quirk::StaleExport { "2020-01-01T00:00:00Z".to_owned() } else { Timestamp::now().to_string() };
        let file = |name: &str| serde_json::json!({"type": name, "url": format!("{}/file/{name}", self.url()), "count": PATIENTS});
        json(
            200,
            serde_json::json!({"transactionTime": time, "requiresAccessToken": "true",
            "output": [file("Patient"), file("Observation")], "error": []}),
        )
    }

    fn file(&self, name: &str) -> Response<Body> {
        use std::io::Write as _;
        let text: String = resources(name).iter().map(|resource| format!("{resource}\n")).collect();
        if self.quirk != Quirk::TruncatedGzip {
            return Response::new(Body::from(text));
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        let mut bytes = encoder.finish().unwrap();
        bytes.truncate(bytes.len() - 10);
        let mut response = Response::new(Body::from(bytes));
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        response
    }

    fn search(&self, uri: &Uri) -> Response<Body> {
        let resource_type = uri.path().trim_start_matches("/fhir/").to_owned();
        let is_count = uri.query().unwrap_or_default().contains("_summary=count");
        if is_count && self.quirk == Quirk::LeavesTwoOut {
            return json(200, serde_json::json!({"resourceType": "Bundle", "type": "searchset", "total": PATIENTS}));
        }
        let from: usize = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .find(|(name, _)| name == "_page")
            .map_or(0, |(_, value)| value.parse().unwrap());
        let all = resources(&resource_type);
        if self.quirk == Quirk::Html && resource_type == "Observation" {
            return Response::new(Body::from("<html>Please sign in</html>"));
        }
        if self.quirk == Quirk::RedirectElsewhere && !uri.query().unwrap_or_default().contains("_moved") {
            let mut response = json(307, serde_json::json!({}));
            let to = format!("{}{}&_moved=1", self.elsewhere.lock().unwrap(), uri.path_and_query().unwrap());
            response.headers_mut().insert("location", to.parse().unwrap());
            return response;
        }
        let left_out = if self.quirk == Quirk::LeavesTwoOut { 2 } else { 0 };
        let mut entries: Vec<serde_json::Value> = all
            .iter()
            .skip(left_out)
            .skip(from)
            .take(PAGE)
            .map(|resource| serde_json::json!({"resource": resource, "search": {"mode": "match"}}))
            .collect();
        let severity = match self.quirk {
            Quirk::OutcomeWithError => Some("error"),
            Quirk::OutcomeWithWarning => Some("warning"),
            _ => None,
        };
        if let Some(severity) = severity {
            entries.push(serde_json::json!({"search": {"mode": "outcome"}, "resource":
                {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": "processing"}]}}));
        }
        let mut links = Vec::new();
        if from + PAGE < all.len() - left_out || matches!(self.quirk, Quirk::Loop | Quirk::SamePage) {
            let (base, next) = (self.url(), (from + PAGE) % 6);
            let url = match self.quirk {
                Quirk::RelativeNext => format!("{resource_type}?_page={next}"),
                Quirk::NextElsewhere => format!("{}/fhir/{resource_type}?_page={next}", self.elsewhere.lock().unwrap()),
                Quirk::Loop => format!("{base}/{resource_type}?_page={next}"),
                Quirk::SamePage => format!("{base}/{resource_type}?_page=0&salt={}", self.requests.load(Ordering::SeqCst)),
                _ => format!("{base}/{resource_type}?_page={next}&opaque=a+b%2Bc%7C%C3%A9"),
            };
            links.push(serde_json::json!({"relation": "next", "url": url}));
        }
        let total = if self.quirk == Quirk::TotalTooLarge { PATIENTS + 3 } else { PATIENTS };
        let mut page = serde_json::json!({"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries});
        if self.quirk != Quirk::LeavesTwoOut {
            page["total"] = total.into();
        }
        json(200, page)
    }
}

const SMALL_TYPES: &[&str] = &["Patient", "Observation"];

async fn clean_digest(mode: Mode) -> String {
    let small = Small::start(Quirk::None).await;
    let site = Site::new();
    let outcome = pull_once(&site, &quick(&small.url(), mode), None, SMALL_TYPES, clock()).await.unwrap();
    assert!(outcome.complete, "{:?}", outcome.gaps);
    assert_eq!(outcome.new_versions, 2 * PATIENTS as u64);
    site.snapshot().digest().unwrap()
}

#[tokio::test]
async fn quirks_of_paging_end_in_the_same_data_or_in_a_named_gap() {
    let clean = clean_digest(Mode::Search).await;
    let cases = [
        (Quirk::Busy, None),
        (Quirk::RelativeNext, None),
        (Quirk::OutcomeWithWarning, None),
        (Quirk::RedirectElsewhere, None),
        (Quirk::Loop, Some("repeats a page")),
        (Quirk::SamePage, Some("repeats a page")),
        (Quirk::NextElsewhere, Some("another origin")),
        (Quirk::TotalTooLarge, Some("announced 8 and sent 5")),
        (Quirk::LeavesTwoOut, Some("3 came where the server itself counts 5")),
        (Quirk::OutcomeWithError, Some("reports an error (processing)")),
        (Quirk::Html, Some("not a Bundle")),
    ];
    for (quirk, expected) in cases {
        let small = Small::start(quirk).await;
        let site = Site::new();
        let key = SigningKey::generate(Algorithm::Es384).unwrap();
        let outcome = pull_once(&site, &with_client(&small.url(), Mode::Search), Some(&key), SMALL_TYPES, clock()).await.unwrap();
        assert_eq!(outcome.complete, expected.is_none(), "{quirk:?}: {:?}", outcome.gaps);
        match expected {
            None => assert_eq!(site.snapshot().digest().unwrap(), clean, "{quirk:?}"),
            Some(reason) => {
                assert!(outcome.gaps.iter().all(|gap| gap.reason.contains(reason)), "{quirk:?}: {:?}", outcome.gaps);
            }
        }
        let requests = small.requests.load(Ordering::SeqCst);
        assert!(requests < 60, "{quirk:?}: {requests} requests");
        assert!(small.authorizations_elsewhere.lock().unwrap().iter().all(|seen| !seen), "{quirk:?}: the token went elsewhere");
        assert_eq!(quirk == Quirk::RedirectElsewhere, !small.authorizations_elsewhere.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn quirks_of_export_end_in_the_same_data_or_in_a_named_gap() {
    let clean = clean_digest(Mode::Bulk).await;
    assert_eq!(clean, clean_digest(Mode::Search).await);
    for (quirk, expected) in [(Quirk::ExportLostOnce, None), (Quirk::TruncatedGzip, Some("compression"))] {
        let small = Small::start(quirk).await;
        let site = Site::new();
        let outcome = pull_once(&site, &quick(&small.url(), Mode::Bulk), None, SMALL_TYPES, clock()).await;
        match (outcome, expected) {
            (Ok(outcome), None) => {
                assert!(outcome.complete, "{quirk:?}: {:?}", outcome.gaps);
                assert_eq!(site.snapshot().digest().unwrap(), clean);
            }
            (Ok(outcome), Some(reason)) => {
                assert!(!outcome.complete && outcome.gaps.iter().all(|gap| gap.reason.contains(reason)), "{:?}", outcome.gaps);
            }
            (Err(error), Some(reason)) => assert!(error.to_string().contains(reason), "{quirk:?}: {error}"),
            (Err(error), None) => panic!("{quirk:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_export_of_a_copy_that_is_behind_is_taken_and_the_same_again_is_not() {
    let small = Small::start(Quirk::StaleExport).await;
    let (site, options) = (Site::new(), quick(&small.url(), Mode::Bulk));
    let outcome = pull_once(&site, &options, None, SMALL_TYPES, clock()).await.unwrap();
    assert!(outcome.complete, "{:?}", outcome.gaps);
    let told: Vec<&str> = outcome.notes.iter().map(|note| note.reason.as_str()).collect();
    assert!(told.iter().any(|reason| reason.starts_with("the export holds what was there at 2020-01-01T00:00:00Z, ")), "{told:?}");
    let again = pull_once(&site, &options, None, SMALL_TYPES, clock()).await.unwrap_err().to_string();
    assert!(again.contains("the server answered with an older export"), "{again}");
}

#[tokio::test]
async fn a_pull_killed_at_any_request_goes_on_and_ends_with_the_same_snapshot() {
    for mode in [Mode::Search, Mode::Bulk] {
        let clean = clean_digest(mode).await;
        let whole = {
            let small = Small::start(Quirk::None).await;
            pull_once(&Site::new(), &quick(&small.url(), mode), None, SMALL_TYPES, clock()).await.unwrap();
            small.requests.load(Ordering::SeqCst)
        };
        for stop_at in 1..=whole {
            let small = Small::start(Quirk::None).await;
            small.stop_at.store(stop_at, Ordering::SeqCst);
            let site = Site::new();
            let options = quick(&small.url(), mode);
            tokio::select! {
                outcome = pull_once(&site, &options, None, SMALL_TYPES, clock()) => {
                    // The last request may be the one that releases the export: its answer is not needed.
                    panic!("{mode:?} {stop_at}: {outcome:?}");
                }
                () = small.reached.notified() => {}
            }
            small.stop_at.store(usize::MAX, Ordering::SeqCst);
            let before = small.requests.load(Ordering::SeqCst);
            let outcome = pull_once(&site, &options, None, SMALL_TYPES, clock()).await.unwrap();
            assert!(outcome.complete, "{mode:?} {stop_at}: {:?}", outcome.gaps);
            assert_eq!(site.snapshot().digest().unwrap(), clean, "{mode:?} killed at {stop_at}");
            let repeated = small.requests.load(Ordering::SeqCst) - before;
            assert!(repeated <= whole + 3, "{mode:?} {stop_at}: {repeated} requests after {before}");
        }
    }
}

#[tokio::test]
async fn what_vanishes_is_removed_by_a_full_pull_and_half_of_everything_is_not() {
    struct Later;
    impl Clock for Later {
        fn now(&self) -> Timestamp {
            Timestamp::now().checked_add(jiff::SignedDuration::from_hours(24 * 30)).unwrap()
        }
    }
    let small = Small::start(Quirk::None).await;
    let site = Site::new();
    let options = quick(&small.url(), Mode::Search);
    pull_once(&site, &options, None, SMALL_TYPES, clock()).await.unwrap();
    let later = pull_once(&site, &options, None, SMALL_TYPES, Arc::new(Later)).await.unwrap();
    assert_eq!((later.full, later.new_versions, later.removed), (true, 0, 0));
}
