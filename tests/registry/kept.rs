//! What a registry keeps, and of whom how much: proofs that nothing was changed, keys that are not lost silently, quotas, and
//! addresses whose every parameter counts.

use std::net::TcpListener;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use serde_json::{Value, json};
use watershed::destination::registry::verify_receipt;
use watershed::feed::Withdrawal;
use watershed::registry::quota::Quota;
use watershed::registry::{self, Options, verify::verify};
use watershed::smart::assertion::Jwks;

use super::serving::options;
use super::{Feed, Network, deliver, key, proportion, sha256_hex};

/// Lets through what the triggers hold.
fn tampered(network: &Network, change: &str) -> Vec<String> {
    let path = network.data.path().join("registry.sqlite");
    let copy = tempfile::tempdir().unwrap();
    let raw = Connection::open(&path).unwrap();
    raw.execute("VACUUM INTO ?1", [copy.path().join("registry.sqlite").to_str().unwrap()]).unwrap();
    std::fs::copy(network.data.path().join("receipt-key.p8"), copy.path().join("receipt-key.p8")).unwrap();
    let raw = Connection::open(copy.path().join("registry.sqlite")).unwrap();
    let triggers: Vec<String> = raw
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    triggers.iter().for_each(|name| raw.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    raw.pragma_update(None, "foreign_keys", false).unwrap();
    raw.execute_batch(change).unwrap();
    drop(raw);
    let found = verify(copy.path(), &[proportion()]).unwrap();
    assert_eq!((found.feeds, found.more), (if change.contains("DELETE FROM feed ") { 1 } else { 2 }, 0));
    found.differences
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_changed_after_it_was_received_is_named() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let first = Feed::first("north", &[60, 70]);
    deliver(&network, &north, &first).await.receipt();
    let mut second = Feed::after("north", Some(&first), &[61]);
    second.manifest.withdrawals = vec![Withdrawal { key: key(2), replaces: sha256_hex(&first.bodies[1]), reason: "counted twice".into() }];
    deliver(&network, &north, &second).await.receipt();
    let sound = verify(network.data.path(), &[proportion()]).unwrap();
    assert_eq!((sound.audit, sound.feeds, sound.reports, sound.differences), (Ok(3), 2, 3, vec![]));

    let (one, two, part) = (&first.id()[..12], &second.id()[..12], &sha256_hex(&second.bodies[0])[..12]);
    let january = "http://n.example/Measure/remission|1.0.0 2024-01-01/2024-01-31";
    let shown = format!("feed `{two}` of `north`: revision 2 of `{january}` shows other numbers than its report");
    for (change, expected) in [
        (
            "UPDATE part SET body = CAST(replace(CAST(body AS TEXT), '0.61', '0.91') AS BLOB)",
            vec![format!("report `{part}` of `north`: its bytes have the digest `"), shown.clone()],
        ),
        ("UPDATE reading SET numerator = '91' WHERE numerator = '61'", vec![shown.clone()]),
        (
            "UPDATE revision SET complete = 0 WHERE number = 1 AND period_start = '2024-01-01'",
            vec![format!("feed `{one}` of `north`: revision 1 of `{january}` is not what its manifest says")],
        ),
        (
            "UPDATE feed SET manifest = CAST(replace(CAST(manifest AS TEXT), '\"gaps\":0', '\"gaps\":9') AS BLOB) WHERE rowid = 1",
            vec![format!("feed `{one}` of `north`: its manifest has the digest `"), format!("feed `{one}` of `north`: its receipt is of feed `{one}`")],
        ),
        ("UPDATE feed SET receipt = receipt || 'A' WHERE rowid = 2", vec![format!("feed `{two}` of `north`: its receipt does not have the signature of its key")]),
        (
            "UPDATE current SET revision = 1 WHERE period_start = '2024-01-01'",
            vec!["what is shown of `http://n.example/Measure/remission` 2024-01-01/2024-01-31 of `north` is not the newest revision".to_owned()],
        ),
        ("UPDATE site SET organization = 'Southern'", vec!["site `north`: its organization is `Southern`, and the audit chain tells of `North`".to_owned()]),
        ("UPDATE site SET client_id = 'mine'", vec!["site `north`: its client identifier is `mine`, and the audit chain tells of `client-north`".to_owned()]),
        (
            "INSERT INTO site (name, organization, client_id, jwks, added_at) VALUES ('mine', 'Mine', 'mine', '{}', 0)",
            vec!["site `mine`: the audit chain does not tell of it".to_owned()],
        ),
        (
            "DELETE FROM feed WHERE rowid = 2",
            vec![
                format!("revision 2 of `{january}` of `north` is of no committed feed"),
                format!("revision 2 of `{}` of `north` is of no committed feed", january.replace("01-01/2024-01-31", "02-01/2024-02-29")),
                "the last feed of `north` is not here".to_owned(),
                format!("feed `{two}` of `north`: the audit chain tells of its commit, and it is not here"),
            ],
        ),
    ] {
        let found = tampered(&network, change);
        assert_eq!(found.len(), expected.len(), "{change}: {found:#?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.starts_with(expected.as_str()), "{change}: {found}, expected {expected}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_receipt_key_is_not_replaced_in_silence() {
    let mut network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    let feed = Feed::first("north", &[60]);
    let receipt = deliver(&network, &north, &feed).await.receipt();
    let (sender, served) = network.stop.take().unwrap();
    sender.send(()).unwrap();
    served.await.unwrap();
    let key = network.data.path().join("receipt-key.p8");
    let open = async |new_receipt_key: bool| {
        let options = Options { new_receipt_key, ..options(network.data.path()) };
        registry::Server::open(options, TcpListener::bind("127.0.0.1:0").unwrap())
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let restore = "with which the registry signed the receipts of 1 feed: copy the key back from where you keep it; if it is lost, `watershed registry serve --new-receipt-key` goes on with another one";
    assert_eq!(open(false).await, Err(format!("`{}` is missing, the key {restore}", key.display())));
    assert!(!key.exists());
    std::fs::write(&key, &kept).unwrap();
    assert_eq!(open(false).await, Ok(()));
    // Another registry's key in its place.
    let other = tempfile::tempdir().unwrap();
    drop(registry::Server::open(options(other.path()), TcpListener::bind("127.0.0.1:0").unwrap()).await.unwrap());
    std::fs::copy(other.path().join("receipt-key.p8"), &key).unwrap();
    assert_eq!(open(false).await, Err(format!("`{}` is not the key {restore}", key.display())));
    // It is lost: another one takes its place, on record, and what the first one signed can still be verified.
    std::fs::remove_file(&key).unwrap();
    assert_eq!(open(true).await, Ok(()));
    network.serve().await;
    let keys: Jwks = serde_json::from_str(&network.get("/.well-known/jwks.json").await.text).unwrap();
    assert_eq!(keys.keys.len(), 2);
    assert!(verify_receipt(&receipt, &keys, "north", &feed.id(), &feed.bytes(), &feed.manifest).is_ok());
    let found = verify(network.data.path(), &[proportion()]).unwrap();
    assert_eq!((found.audit, found.differences), (Ok(3), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_site_may_send_so_much_a_day() {
    let mut network = Network::start(vec![proportion()]).await;
    let first = Feed::first("north", &[60]);
    let bytes = (first.bytes().len() + first.bodies[0].len()) as u64;
    network.quota = Quota { feeds: 3, bytes: 3 * bytes };
    network.restart().await;
    let (mut north, south) = (network.join("north", "North").await, network.join("south", "South").await);
    // More than a day's quota at once can never be taken.
    let big = Feed::first("north", &[1, 2, 3, 4, 5, 6, 7, 8]);
    let (status, reason) = network.announce(&north, &big.bytes()).await.refusal();
    assert!(status == 413 && reason.contains(&format!("of one site at most {} are kept within 24 hours", 3 * bytes)), "{status} {reason}");
    deliver(&network, &north, &first).await.receipt();
    let second = Feed::after("north", Some(&first), &[61]);
    deliver(&network, &north, &second).await.receipt();
    // What was sent already counts: what is announced anew is more than is left.
    let third = Feed::after("north", Some(&second), &[61, 62]);
    let (status, reason) = network.announce(&north, &third.bytes()).await.refusal();
    assert!(status == 429 && reason.starts_with("`north` has sent ") && reason.contains(&format!("at most {} are kept", 3 * bytes)), "{status} {reason}");
    // To repeat what is here brings nothing, whatever has been sent; another site has a quota of its own.
    assert_eq!(network.announce(&north, &second.bytes()).await.status, 200);
    assert_eq!(network.announce(&south, &Feed::first("south", &[60]).bytes()).await.status, 201);
    // As many feeds as may be, of any size.
    for again in 2..=3 {
        let mut feed = Feed::first("south", &[60]);
        feed.manifest.attempt = again;
        assert_eq!(network.announce(&south, &feed.bytes()).await.status, 201);
    }
    let mut fourth = Feed::first("south", &[60]);
    fourth.manifest.attempt = 4;
    let (status, reason) = network.announce(&south, &fourth.bytes()).await.refusal();
    let expected = "`south` has announced 3 feeds within 24 hours, as many as it may: the next one is taken after 2026-09-22 14:13 UTC.";
    assert!(status == 429 && reason.starts_with(expected), "{status} {reason}");
    // A day later all is open again.
    network.clock.fetch_add(86_401, Ordering::SeqCst);
    network.log_in(&mut north).await;
    assert_eq!(network.announce(&north, &third.bytes()).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_parameter_is_passed_over() {
    let network = Network::start(vec![proportion()]).await;
    let north = network.join("north", "North").await;
    deliver(&network, &north, &Feed::first("north", &[60])).await.receipt();
    for (path, reason) in [
        ("/v1/measures/remission/series?sit=north", "`sit` is no parameter here; did you mean `site`?"),
        ("/v1/measures/remission/series?site=nort", "`nort` is no site here; did you mean `north`?"),
        ("/v1/measures/remission/series?format=xml", "`xml` is no format here; there is `csv`, `json`"),
        ("/v1/measures/remission/series?group=kept", "`kept` is no group of this measure here; there is none"),
        ("/v1/measures/remission/series?site=north&site=south", "the parameter `site` is there twice, and once is enough"),
        ("/v1/sites?late=true", "`late` is no parameter here; there is none"),
    ] {
        assert_eq!(network.get(path).await.refusal(), (400, reason.to_owned()), "{path}");
    }
    // A page tells all groups; as of when, it may be asked.
    for (path, there) in [("/?sort=site", "none"), ("/measures/remission?group=kept", "`on`"), ("/measures/remission/sites/north?x", "`on`")] {
        let page = network.get(path).await;
        assert!(page.status == 400 && page.text.contains(&format!(" is no parameter here; there is {there}")), "{path}: {}", page.text);
    }
    let refused = network.ask(reqwest::Method::GET, "/v1/feeds?site=south", Some(&north), &[], vec![]).await;
    assert_eq!(refused.refusal().0, 400);
    assert_eq!(network.get("/v1/measures/remission/series?site=north&format=json").await.json()["points"][0]["numerator"], json!("60"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_known_on_a_day_is_what_had_come_by_then() {
    let network = Network::start(vec![proportion()]).await;
    let mut north = network.join("north", "North").await;
    let first = Feed::first("north", &[60]);
    deliver(&network, &north, &first).await.receipt();
    let then = network.now();
    network.clock.fetch_add(2 * 86_400, Ordering::SeqCst);
    network.log_in(&mut north).await;
    deliver(&network, &north, &Feed::after("north", Some(&first), &[61, 70])).await.receipt();

    let numbers = |series: &Value| {
        series["points"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| (point["numerator"].clone(), point["revision"].clone()))
            .collect::<Vec<_>>()
    };
    let now = network.get("/v1/measures/remission/series").await.json();
    assert_eq!((numbers(&now), now.get("asKnownOn")), (vec![(json!("61"), json!(2)), (json!("70"), json!(1))], None));
    let day = then.strftime("%Y-%m-%d").to_string();
    for (on, shown) in [(day.clone(), format!("{day}T23:59:59.999999999Z")), (then.to_string(), then.to_string())] {
        let series = network.get(&format!("/v1/measures/remission/series?on={on}")).await.json();
        assert_eq!((numbers(&series), &series["asKnownOn"]), (vec![(json!("60"), json!(1))], &json!(shown)), "{on}");
        let csv = network.get(&format!("/v1/measures/remission/series?site=north&format=csv&on={on}")).await.text;
        assert!(csv.lines().count() == 2 && csv.contains("north,remission,1.0.0,2024-01-01,2024-01-31,60,100,60,true,1,"), "{csv}");
        for page in ["/measures/remission", "/measures/remission/sites/north"] {
            let (then, now) = (network.get(&format!("{page}?on={on}")).await.text, network.get(page).await.text);
            assert!(then.contains(&format!("As known on {shown}</strong>")) && then.contains("60 of 100") && !then.contains("70 of 100"), "{then}");
            assert!(!now.contains("As known on") && now.contains("70 of 100"), "{now}");
        }
    }
    let page = network.get(&format!("/measures/remission?on={then}")).await.text;
    let end = then.to_string().replace(':', "%3A");
    assert!(page.contains(&format!("/measures/remission/sites/north?on={end}")) && page.contains(&format!("series?on={end}&#38;format=csv")), "{page}");

    let early = format!("nothing is known of that day: the first report of this measure came at {then}");
    for (on, reason) in [
        ("2020-02-01", early.as_str()),
        ("2999-01-01", "`on=2999-01-01` has not come yet"),
        ("soon", "`on=soon` is no day and no instant; write it as 2026-01-02, which ends in UTC, or 2026-01-02T01:30:00Z"),
    ] {
        assert_eq!(network.get(&format!("/v1/measures/remission/series?on={on}")).await.refusal(), (400, reason.to_owned()), "{on}");
        let page = network.get(&format!("/measures/remission?on={on}")).await;
        assert_eq!(page.status, 400, "{}", page.text);
    }
}

/// As a server that starts and a command that adds its first site.
#[test]
fn who_opens_a_new_registry_at_once_with_others_waits_for_them() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let opened: Vec<_> = (0..6).map(|_| scope.spawn(|| watershed::registry::open_store(folder.path()).map(drop))).collect();
            opened.into_iter().for_each(|opened| opened.join().unwrap().unwrap());
        });
    }
}
