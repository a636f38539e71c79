//! The one table of what is tried again, and how long to wait.

use super::HttpError;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Failed attempts at one request before the log warns of it: one or two happen every night.
const SILENT_ATTEMPTS: u32 = 3;
/// Longest wait that nobody wonders about.
pub(super) const SILENT_WAIT: Duration = Duration::from_secs(60);
/// Longest wait a 5xx answer may ask for.
pub const ASKED_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest wait a 429 answer may ask for; it is honoured in full up to here, because it is a courtesy.
const ASKED_WAIT_429_MAX: Duration = Duration::from_secs(6 * 3600);

/// How failed attempts are repeated: jitter between half of a doubling ceiling and all of it.
#[derive(Clone)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Ceiling of the first wait.
    pub first: Duration,
    /// Ceiling of every wait.
    pub cap: Duration,
    /// A number in 0..1 for each wait; passed in so that tests decide.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("attempts", &self.attempts).field("first", &self.first).finish_non_exhaustive()
    }
}

impl Default for Retry {
    /// Thirteen attempts with ceilings 1 s, 2 s … 8 min: sixteen minutes at least, since servers are restarted at night.
    fn default() -> Retry {
        Retry { attempts: 13, first: Duration::from_secs(1), cap: Duration::from_secs(480), jitter: Arc::new(random_fraction) }
    }
}

/// A number in 0..1 from the system's generator; one half, should that ever fail.
fn random_fraction() -> f64 {
    let mut bytes = [0u8; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

impl Retry {
    fn ceiling(&self, attempt: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1))).min(self.cap)
    }

    /// Tells whoever watches that it is waited, for what, and until when at most.
    pub fn say_waiting(&self, reason: &str, attempt: u32, wait: Duration, now: Timestamp) {
        let later: Duration = (attempt + 1..self.attempts).map(|later| self.ceiling(later)).sum();
        let until = now.saturating_add(wait.saturating_add(later)).unwrap_or(now).strftime("%Y-%m-%dT%H:%M:%SZ");
        let seconds = wait.as_secs_f32();
        if attempt >= SILENT_ATTEMPTS || wait > SILENT_WAIT {
            tracing::warn!("{reason}: no good answer yet, trying again in {seconds:.0} s, and until {until} at most");
        } else {
            tracing::debug!("{reason}: no good answer yet, trying again in {seconds:.1} s, and until {until} at most");
        }
    }

    /// The wait after attempt number `attempt` (1-based); a wait that the peer asked for comes first.
    pub fn delay(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let ceiling = self.ceiling(attempt);
        let jitter = (self.jitter)().clamp(0.0, 1.0);
        match asked {
            // Jitter on top, so that many clients told the same second do not all come at once.
            Some(asked) => asked.saturating_add(self.first.mul_f64(jitter)),
            None => ceiling.mul_f64(0.5 + jitter / 2.0),
        }
    }
}

/// What an answer says about trying again.
#[derive(Clone, Debug)]
pub(super) struct Signal {
    pub status: u16,
    pub retry_after: Option<String>,
}

impl Signal {
    /// The wait that is asked for, within sense.
    fn asked(&self, now: Timestamp) -> Option<Duration> {
        let most = if self.status == 429 { ASKED_WAIT_429_MAX } else { ASKED_WAIT_MAX };
        Some(retry_after(self.retry_after.as_deref()?, now)?.min(most))
    }

    /// The wait that is asked of everybody: who is sent too much (RFC 6585 section 4) or is not available (RFC 9110 section 15.6.4)
    /// speaks of itself, not of one request.
    pub(super) fn asked_of_all(&self, now: Timestamp) -> Option<Duration> {
        self.asked(now).filter(|_| matches!(self.status, 429 | 503))
    }
}

/// The row of the table that an outcome falls in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Final,
    Again { after: Option<Duration> },
}

/// Whether a status other than 429 may pass by itself.
pub fn passes(status: u16) -> bool {
    matches!(status, 408 | 425 | 500 | 502 | 503 | 504 | 520..=529)
}

/// Reliability reference, section 5.6: 408, 425, 429, 500, 502, 503, 504, 52x and broken connections are tried again;
/// every other status is the caller's to judge. What may have had an effect is repeated only if it is idempotent.
pub(super) fn classify(outcome: Result<Signal, &HttpError>, idempotent: bool, now: Timestamp) -> Class {
    match outcome {
        Ok(signal) if signal.status == 429 || passes(signal.status) && idempotent => Class::Again { after: signal.asked(now) },
        Ok(_) => Class::Final,
        Err(HttpError::Unreachable { is_lasting: false, .. } | HttpError::Encoding { .. }) if idempotent => Class::Again { after: None },
        Err(_) => Class::Final,
    }
}

/// Reads `Retry-After`: seconds or an HTTP-date (RFC 9110 section 10.2.3). `None` for anything else; a past date is zero.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::from_secs(at.as_second().saturating_sub(now.as_second()).max(0) as u64))
}
