//! Parameters of addresses: none is silently passed over, for who wrote it believes that it counts.

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::feeds::refuse;
use super::protocol::Refusal;
use super::series::{self, Series};
use super::store::{self, Site};
use super::{MeasureCard, Registry, pages};
use crate::diagnostic::nearest;
use crate::feed;

/// The addresses with parameters, and these.
const SERIES: [&str; 4] = ["site", "group", "format", "on"];
const PARAMETERS: [(&str, &[&str]); 3] = [("/v1/measures/{id}/series", &SERIES), ("/measures/{id}", &["on"]), ("/measures/{id}/sites/{site}", &["on"])];
/// Characters of a name that are shown again.
const NAME_CHARS_MAX: usize = 100;

/// Refuses a request with a parameter that its address does not have, or has twice.
pub(super) async fn known(State(registry): State<Registry>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let names: &[&str] = PARAMETERS.iter().find(|(own, _)| path == Some(*own)).map_or(&[][..], |(_, names)| *names);
    let is_api = request.uri().path().starts_with("/v1/");
    match request.uri().query().and_then(|query| wrong(query, names)) {
        None => next.run(request).await,
        Some(text) if is_api => refuse(&Refusal::new(400, "invalid", text).into()),
        Some(text) => pages::message(&registry, StatusCode::BAD_REQUEST, "Not understood", &text),
    }
}

/// What is wrong with a query, in a sentence.
fn wrong(query: &str, names: &[&str]) -> Option<String> {
    let mut seen: Vec<String> = Vec::new();
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        if !names.contains(&&*name) {
            return Some(unknown("parameter", &name, names));
        }
        if seen.iter().any(|other| *other == name) {
            return Some(format!("the parameter `{name}` is there twice, and once is enough"));
        }
        seen.push(name.into_owned());
    }
    None
}

/// Series of a measure, as known now or as of when it was asked for, and the sites that there are.
pub(super) struct Known {
    pub on: Option<Timestamp>,
    pub series: Vec<Series>,
    pub sites: Vec<Site>,
}

/// Why there are none.
pub(super) enum Unread {
    Database(rusqlite::Error),
    /// What was asked for cannot be had.
    Asked(String),
}

/// Reads the series of a measure as they were known at the end of a day (in UTC) or at an instant; as they are, where none is named.
pub(super) async fn known_on(registry: &Registry, card: &MeasureCard, on: Option<&str>) -> Result<Known, Unread> {
    let on = on.map(|text| instant(text, registry.now())).transpose().map_err(Unread::Asked)?;
    let card = card.clone();
    let read = registry.store.reading(move |connection| {
        let since = if on.is_some() { series::known_since(connection, &card)? } else { None };
        Ok::<_, rusqlite::Error>((series::series(connection, &card, None, on)?, store::sites(connection)?, since))
    });
    let (series, sites, since) = read.await.map_err(Unread::Database)?;
    match since.filter(|since| on.is_some_and(|on| on < *since)) {
        Some(since) => Err(Unread::Asked(format!("nothing is known of that day: the first report of this measure came at {since}"))),
        None => Ok(Known { on, series, sites }),
    }
}

fn instant(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let shown: String = text.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect();
    match feed::instant(text, &TimeZone::UTC) {
        None => Err(format!("`on={shown}` is no day and no instant; write it as 2026-01-02, which ends in UTC, or 2026-01-02T01:30:00Z")),
        Some(at) if at > now => Err(format!("`on={shown}` has not come yet")),
        Some(at) => Ok(at),
    }
}

/// `there is no parameter `sit`; did you mean `site`?`
pub(super) fn unknown(what: &str, found: &str, names: &[&str]) -> String {
    let shown: String = found.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect();
    let help = match (nearest(found, names.iter().copied()), names) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "there is none".to_owned(),
        (None, names) => format!("there is {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    format!("`{shown}` is no {what} here; {help}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_nobody_reads_is_named_with_the_nearest_one() {
        for (query, expected) in [
            ("", None),
            ("site=a&format=csv", None),
            ("site=a&sit=b", Some("`sit` is no parameter here; did you mean `site`?")),
            ("since=2026", Some("`since` is no parameter here; there is `site`, `group`, `format`, `on`")),
            ("site=a&site=a", Some("the parameter `site` is there twice, and once is enough")),
        ] {
            assert_eq!(wrong(query, &SERIES).as_deref(), expected, "{query}");
        }
        assert_eq!(wrong("x", &[]).as_deref(), Some("`x` is no parameter here; there is none"));
    }
}
