//! Parameters of addresses: none is silently passed over, for who wrote it believes that it counts.

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::Registry;
use super::feeds::refuse;
use super::pages;
use super::protocol::Refusal;
use crate::diagnostic::nearest;

/// The one address with parameters, and these.
const SERIES: (&str, [&str; 3]) = ("/v1/measures/{id}/series", ["site", "group", "format"]);
/// Characters of a name that are shown again.
const NAME_CHARS_MAX: usize = 100;

/// Refuses a request with a parameter that its address does not have, or has twice.
pub(super) async fn known(State(registry): State<Registry>, request: Request, next: Next) -> Response {
    let is_series = request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str() == SERIES.0);
    let names: &[&str] = if is_series { &SERIES.1 } else { &[] };
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
            ("since=2026", Some("`since` is no parameter here; there is `site`, `group`, `format`")),
            ("site=a&site=a", Some("the parameter `site` is there twice, and once is enough")),
        ] {
            assert_eq!(wrong(query, &SERIES.1).as_deref(), expected, "{query}");
        }
        assert_eq!(wrong("x", &[]).as_deref(), Some("`x` is no parameter here; there is none"));
    }
}
