//! What goes wrong on purpose.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{StatusCode, header};

use super::reply::Reply;
use super::server::Fault;

/// Resources that no reader may take in, one form after the other.
const MALFORMED: [&str; 10] = [
    r#"{"resourceType":"TYPE","status":"final"}"#,
    r#"{"resourceType":"TYPE","id":"../../etc/passwd"}"#,
    r#"{"resourceType":"TYPE","id":42}"#,
    r#"{"resourceType":"TYPE","id":"an-id-that-is-much-longer-than-the-sixty-four-characters-FHIR-allows-for-ids"}"#,
    r#"{"resourceType":7,"id":"malformed-5"}"#,
    r#"{"id":"malformed-6","status":"final"}"#,
    r#""a string""#,
    r#"[]"#,
    r#"{}"#,
    r#"null"#,
];

/// Faults and how often they struck.
pub(super) struct Faults {
    faults: Vec<Fault>,
    /// By place in `faults`.
    struck: Mutex<HashMap<usize, u32>>,
    /// The patient whose searches carry malformed resources: the first one asked for.
    marked: Mutex<HashMap<String, String>>,
}

impl Faults {
    pub(super) fn new(faults: Vec<Fault>) -> Faults {
        Faults { faults, struck: Mutex::default(), marked: Mutex::default() }
    }

    /// How long this request must wait.
    pub(super) fn delay(&self, path: &str) -> Option<Duration> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Slow { path: part, delay } if path.contains(part.as_str()) => Some(*delay),
            _ => None,
        })
    }

    /// The failure that this request meets.
    pub(super) fn failure(&self, path: &str) -> Option<Reply> {
        let mut struck = self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, fault) in self.faults.iter().enumerate() {
            let Fault::Status { path: part, status, retry_after, times } = fault else { continue };
            let count = struck.entry(index).or_default();
            if *count >= *times || !path.contains(part.as_str()) {
                continue;
            }
            *count += 1;
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let reply = Reply::outcome(status, "transient", "injected fault");
            return Some(match retry_after {
                Some(seconds) => reply.with(header::RETRY_AFTER, seconds.to_string()),
                None => reply,
            });
        }
        None
    }

    /// Malformed resources on the first page of a search of the type, or in its first export file.
    /// Of searches by patient, those for one and the same patient carry them.
    pub(super) fn malformed(&self, kind: &str, patient: Option<&str>) -> Vec<String> {
        let count = self.faults.iter().find_map(|fault| match fault {
            Fault::Malformed { resource_type, count } if resource_type == kind => Some(*count),
            _ => None,
        });
        let Some(count) = count else { return Vec::new() };
        if let Some(patient) = patient {
            let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
            if marked.entry(kind.to_owned()).or_insert_with(|| patient.to_owned()) != patient {
                return Vec::new();
            }
        }
        MALFORMED.iter().cycle().take(usize::try_from(count).unwrap_or(0)).map(|form| form.replace("TYPE", kind)).collect()
    }

    /// How many lines at the end of the type's first export file are cut.
    pub(super) fn truncated(&self, kind: &str) -> usize {
        let lines = self.faults.iter().find_map(|fault| match fault {
            Fault::Truncated { resource_type, lines } if resource_type == kind => Some(*lines),
            _ => None,
        });
        usize::try_from(lines.unwrap_or(0)).unwrap_or(0)
    }
}
