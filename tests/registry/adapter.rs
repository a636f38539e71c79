//! The real adapter of a site against the registry: nights that change nothing, kills, a registry that is down.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use url::Url;
use watershed::destination::registry::{Delivered, Registry, deliver_due};
use watershed::feed::Completeness;
use watershed::http::{Clock, Retry, Settings};
use watershed::outbox::{self, Cause, Draft, Remaining, Report, State};
use watershed::smart::assertion::SigningKey;
use watershed::store::Store;

use crate::obligations::small::{Small, json, said};

use super::{Adapter, Feed, Network, body, key, proportion};

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
        self.peer_at(&self.base(), adapter)
    }

    /// A registry at another place.
    fn peer_at(&self, base: &str, adapter: &Adapter) -> Registry {
        let key = SigningKey::from_pem(adapter.key.to_pem()).unwrap();
        let settings = Settings { retry: Retry { attempts: 1, ..Retry::default() }, ..Settings::default() };
        let base = Url::parse(base).unwrap();
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
    assert_eq!(send(&network, &north, &store).await.remaining.rejected, 1);
    let listed = store.with(|connection| Ok(outbox::list(connection).unwrap())).unwrap();
    assert!(listed[0].reason.as_ref().unwrap().contains("is greater than denominator"), "{listed:?}");
    append(&store, &night("north", &[60, 71]), network.now());
    assert_eq!(send(&network, &north, &store).await.delivered, 1);
    assert_eq!(network.points().await[1]["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_the_registry_has_lost_is_sent_again_and_told_apart_from_a_night_without_change() {
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    for expected in [Delivered { delivered: 1, ..Delivered::default() }, Delivered { restored: 1, ..Delivered::default() }] {
        let network = Network::start(vec![proportion()]).await;
        let north = network.join("north", "North").await;
        append(&store, &night("north", &[60, 70]), network.now());
        assert_eq!(send(&network, &north, &store).await, expected);
        assert_eq!(network.points().await.len(), 2);
    }
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
    assert_eq!(deliver_due(&peer, &store, &move || now).await.unwrap().remaining.waiting, 1);
    assert_eq!(
        send(&network, &north, &store).await,
        Delivered { remaining: Remaining { waiting: 1, ..Remaining::default() }, ..Delivered::default() },
        "not due yet, and not forgotten"
    );
    append(&store, &night("north", &[61]), now);
    network.clock.fetch_add(60, Ordering::SeqCst);
    assert_eq!(send(&network, &north, &store).await.delivered, 2, "both nights, in order");
    assert_eq!(network.points().await[0]["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_fails_for_now_is_a_registry_that_is_down_and_no_refusal() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    append(&store, &night("north", &[60]), network.now());
    for (status, refused) in [(503, 0), (429, 0), (401, 1)] {
        let busy = Small::start(move |heard, origin| match heard.target.as_str() {
            "/token" => said(status, "application/json", "{}"),
            _ => json(serde_json::json!({"token_endpoint": format!("{origin}/token")})),
        })
        .await;
        let peer = network.peer_at(&busy.origin, &north);
        network.clock.fetch_add(3600, Ordering::SeqCst);
        let now = network.now();
        let done = deliver_due(&peer, &store, &move || now).await.unwrap();
        assert_eq!((done.refused, done.remaining.waiting), (refused, 1), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_was_accepted_and_is_refused_by_a_registry_that_lost_it_is_contradicted() {
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    append(&store, &night("north", &[60, 70]), network.now());
    send(&network, &north, &store).await;
    // It begins anew, and has not been told yet which measures it accepts.
    let network = Network::start(Vec::new()).await;
    let north = network.join("north", "North").await;
    append(&store, &night("north", &[60, 70]), network.now());
    let contradicted = Remaining { contradicted: 1, ..Remaining::default() };
    assert_eq!(send(&network, &north, &store).await, Delivered { remaining: contradicted, ..Delivered::default() });
    let listed = store.with(|connection| Ok(outbox::list(connection).unwrap())).unwrap();
    let reason = listed[0].reason.as_deref().unwrap();
    assert_eq!((listed.len(), listed[0].state), (1, State::Contradicted));
    assert!(reason.contains("is not accepted here") && reason.contains("it accepted this feed before, and does not hold it any more; `watershed outbox adopt`"), "{reason}");
    // It is said for as long as it is so, also where nothing is due.
    assert_eq!(send(&network, &north, &store).await.remaining, contradicted);
}
