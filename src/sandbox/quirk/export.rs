//! Quirks of the life of an export.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;

use super::super::reply::{Delivery, Reply};
use super::super::request::{Endpoint, Incoming};
use super::{Quirk, Scenario, Scene};

pub(super) static SCENARIOS: &[Scenario] = &[Scenario {
    name: "q_50",
    says: "each file arrives whole at its fourth download only: before, the connection breaks off, lines are missing, or the last line is cut",
    make: || Box::new(TruncatedDownloads::default()),
}];

///
#[derive(Default)]
struct TruncatedDownloads {
    /// Downloads of each file.
    downloads: Mutex<HashMap<String, u32>>,
}

impl Quirk for TruncatedDownloads {
    fn after(&self, sent: &Incoming, reply: &mut Reply, _scene: &Scene) {
        if sent.endpoint() != Endpoint::File || reply.status != StatusCode::OK {
            return;
        }
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let times = downloads.entry(sent.path.clone()).or_default();
        *times += 1;
        let body = reply.body();
        let last_line = body.strip_suffix(b"\n").and_then(|body| body.iter().rposition(|byte| *byte == b'\n')).map_or(0, |at| at + 1);
        match *times {
            1 => reply.delivery = Delivery::Cut(40),
            2 => reply.set_body(body.get(..last_line).unwrap_or_default().to_vec()),
            3 => reply.set_body(body.get(..last_line + (body.len() - last_line) / 2).unwrap_or_default().to_vec()),
            _ => {}
        }
    }
}
