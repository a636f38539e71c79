//! The retry table, addresses and delays.

use super::retry::{Class, Signal, classify};
use super::*;
use std::sync::atomic::AtomicI64;

/// A clock that jumps over every wait; milliseconds since the epoch.
#[derive(Default)]
pub(super) struct Jumping(AtomicI64);

impl Jumping {
    pub(super) fn millis(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.millis()).unwrap()
    }

    fn sleep(&self, time: Duration) -> Boxed<'_, ()> {
        self.set(self.millis() + time.as_millis() as i64);
        Box::pin(std::future::ready(()))
    }
}

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

#[test]
fn retry_after_in_every_form() {
    let cases = [
        ("120", Some(120)),
        (" 0 ", Some(0)),
        ("Mon, 23 Nov 2026 10:01:30 GMT", Some(90)),
        ("Mon, 23 Nov 2026 09:00:00 GMT", Some(0)),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("99999999999999999999999", Some(u64::MAX)),
    ];
    for (value, expected) in cases {
        assert_eq!(retry_after(value, now()), expected.map(Duration::from_secs), "{value}");
    }
}

#[test]
fn the_table_of_what_is_tried_again() {
    let signal = |status| Signal { status, retry_after: None };
    for status in 100..600 {
        let again = matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=529);
        let class = classify(Ok(signal(status)), true, now());
        assert_eq!(class != Class::Final, again, "{status}");
        let class = classify(Ok(signal(status)), false, now());
        assert_eq!(class != Class::Final, status == 429, "{status}, when its effect is unknown");
    }
    let asked = Signal { status: 503, retry_after: Some("36000".to_owned()) };
    assert_eq!(classify(Ok(asked), true, now()), Class::Again { after: Some(Duration::from_secs(900)) });
    let asked = Signal { status: 429, retry_after: Some("7200".to_owned()) };
    assert_eq!(classify(Ok(asked), true, now()), Class::Again { after: Some(Duration::from_secs(7200)) });
}

/// A server that answers its first request so, and all others `200`; what it is asked on one connection is one request.
async fn first_answered_by(head: &'static str) -> Url {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for head in std::iter::once(head).chain(std::iter::repeat("200 OK")) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        }
    });
    format!("http://{address}/fhir").parse().unwrap()
}

#[tokio::test]
async fn the_wait_that_a_server_asks_for_holds_every_request_to_it_and_none_to_another() {
    for (head, seconds) in [
        ("429 Too Many Requests\r\nretry-after: 8", 8),
        ("429 Too Many Requests\r\nretry-after: Thu, 01 Jan 1970 00:01:30 GMT", 90),
        ("429 Too Many Requests\r\nretry-after: 9999999", 6 * 3600),
        ("503 Service Unavailable\r\nretry-after: 9999999", 900),
        ("429 Too Many Requests", 0),
        ("500 Internal Server Error\r\nretry-after: 8", 0),
        ("200 OK\r\nretry-after: 8", 0),
    ] {
        let clock = Arc::new(Jumping::default());
        let client = Client::new(Settings::default()).unwrap().with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let (here, elsewhere) = (first_answered_by(head).await, first_answered_by("200 OK").await);
        let ask = async |url: &Url| client.send(Request::new(Method::GET, url.clone()).once()).await.unwrap().status;
        assert_eq!(ask(&here).await.to_string(), head[..3]);
        assert_eq!((ask(&elsewhere).await, clock.millis()), (200, 0), "{head}");
        assert_eq!((ask(&here).await, clock.millis()), (200, seconds * 1000), "{head}");
    }
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_no_answer() {
    let client = Client::new(Settings::default()).unwrap().with_clock(Arc::new(Jumping::default()));
    let url = first_answered_by("206 Partial Content\r\ncontent-range: bytes 0-0/9").await;
    let error = client.send(Request::new(Method::GET, url.clone()).once()).await.unwrap_err();
    assert!(error.to_string().ends_with("a part of the answer (206) came, where nobody asked for a part (after 1 attempts)"), "{error}");
    assert_eq!(client.get(url, "*/*").await.unwrap().status, 200);
}

#[test]
fn waits_double_up_to_their_ceiling() {
    let retry = Retry { jitter: Arc::new(|| 1.0), ..Retry::default() };
    let seconds: Vec<u64> = (1..=11).map(|attempt| retry.delay(attempt, None).as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 480, 480]);
    let least = Retry { jitter: Arc::new(|| 0.0), ..Retry::default() };
    assert_eq!(least.delay(9, None), Duration::from_secs(128));
    assert_eq!(least.delay(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    let in_all: Duration = (1..least.attempts).map(|attempt| least.delay(attempt, None)).sum();
    assert_eq!(in_all.as_secs(), 975, "a server that is away for a quarter of an hour is sat out");
}

#[test]
fn origins_and_what_may_be_contacted() {
    let origin = |text: &str| Origin::of(&Url::parse(text).unwrap());
    assert_eq!(origin("https://EHR.example/a"), origin("https://ehr.example.:443/b"));
    assert_ne!(origin("https://ehr.example/"), origin("http://ehr.example/"));
    assert_eq!(origin("file:///etc/passwd"), None);
    let settings = Settings { trusted_origins: origin("https://ehr.example/").into_iter().collect(), ..Settings::default() };
    let client = Client::new(settings).unwrap();
    for (address, allowed) in [
        ("https://ehr.example/fhir", true),
        ("https://files.example/x", true),
        ("http://ehr.example/fhir", false),
        ("https://user:pw@ehr.example/", false),
        ("https://169.254.169.254/latest/meta-data", false),
        ("https://10.0.0.1/", false),
        ("https://[fd00::1]/", false),
        ("https://[::ffff:169.254.169.254]/", false),
        ("https://2852039166/", false),
        ("https://0x7f.1/", false),
        ("https://localhost/", false),
        ("http://127.0.0.1:9/", false),
        ("file:///etc/passwd", false),
        ("javascript:alert(1)", false),
        ("ftp://ehr.example/", false),
    ] {
        assert_eq!(client.check_address(&Url::parse(address).unwrap()).is_ok(), allowed, "{address}");
    }
}
