//! A server of a few lines, for answers that no scenario of the sandbox gives. It remembers what it heard.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::Response;
use std::sync::{Arc, Mutex};

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Heard {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorized: bool,
    /// The header.
    pub prefer: String,
    pub body: String,
}

impl Heard {
    /// A parameter of a form.
    pub fn field(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.body.as_bytes()).find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
    }
}

/// An answer.
pub struct Said {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// JSON with status 200.
pub fn json(value: serde_json::Value) -> Said {
    said(200, "application/json", &value.to_string())
}

pub fn said(status: u16, content_type: &str, body: &str) -> Said {
    Said { status, headers: vec![("content-type", content_type.to_owned())], body: body.as_bytes().to_vec() }
}

/// A running server; it ends with the test's runtime.
pub struct Small {
    pub origin: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Small {
    /// Answers every request by `answer`, which is also told the server's origin.
    pub async fn start(answer: impl Fn(&Heard, &str) -> Said + Send + Sync + 'static) -> Small {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (shared, log, own) = (Arc::new(answer), Arc::clone(&heard), origin.clone());
        let handle = move |request: Request| {
            let (answer, log, own) = (Arc::clone(&shared), Arc::clone(&log), own.clone());
            async move {
                let (parts, body) = request.into_parts();
                let one = Heard {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    authorized: parts.headers.contains_key("authorization"),
                    prefer: parts.headers.get("prefer").map_or_else(String::new, |value| value.to_str().unwrap().to_owned()),
                    body: String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap(),
                };
                log.lock().unwrap().push(one.clone());
                let said = answer(&one, &own);
                let mut response = Response::builder().status(said.status);
                for (name, value) in said.headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(said.body)).unwrap()
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
        Small { origin, heard }
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Requests whose path and query hold these words.
    pub fn count(&self, part: &str) -> usize {
        self.heard().iter().filter(|one| one.target.contains(part)).count()
    }
}
