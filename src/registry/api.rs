//! Reads for programs: sites, measures, series as JSON or CSV.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::feeds::refuse;
use super::knocks::Knock;
use super::protocol::{Problem, Refusal, not_found};
use super::query::{Known, Unread, known_on, unknown};
use super::series::{self, Point, Series};
use super::store::Site;
use super::{MeasureCard, Registry, Unit};

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/v1/sites", get(sites))
        .route("/v1/measures", get(measures))
        .route("/v1/measures/{id}/series", get(series_of))
}

async fn sites(State(registry): State<Registry>) -> Response {
    let (now, hours) = (registry.now(), registry.options.late_after_hours);
    let read = registry.store.reading(move |connection| series::arrivals(connection, now, hours)).await;
    match read {
        Err(error) => refuse(&Problem::Database(error)),
        Ok(arrivals) => {
            let site = |arrival: &series::Arrival| {
                let last = arrival.last.as_ref().map(|last| {
                    json!({ "committedAt": last.committed.to_string(), "complete": last.complete, "gaps": last.gaps, "quarantined": last.quarantined, "reports": last.reports, "reportsThatCannotTell": last.doubtful })
                });
                let refused = arrival.refused.as_ref().map(|(at, reasons)| json!({ "at": at.to_string(), "reasons": reasons }));
                json!({
                    "name": arrival.site.name, "organization": arrival.site.organization, "late": arrival.late,
                    "heardAt": arrival.site.heard.map(|at| at.to_string()), "lastFeed": last, "refused": refused,
                    "begunAt": arrival.begun.map(|at| at.to_string()), "measuresNoLongerSent": arrival.stopped,
                })
            };
            let stranger = |knock: &Knock| {
                json!({
                    "clientId": knock.client, "key": knock.key, "site": knock.site, "count": knock.count, "lastAt": knock.last.to_string(),
                    "reason": knock.reason(), "action": knock.action(),
                })
            };
            let strangers: Vec<Value> = registry.knocks.list().iter().map(stranger).collect();
            Json(json!({ "sites": arrivals.iter().map(site).collect::<Vec<_>>(), "notLetIn": strangers })).into_response()
        }
    }
}

async fn measures(State(registry): State<Registry>) -> Json<Value> {
    let measure = |card: &MeasureCard| {
        let unit = match &card.unit {
            Unit::Percent => json!({ "kind": "percent" }),
            Unit::Number => json!({ "kind": "number" }),
            Unit::Count => json!({ "kind": "count" }),
            Unit::Rate { of, .. } if of.is_empty() => json!({ "kind": "ratio" }),
            Unit::Rate { per, of } => json!({ "kind": "rate", "per": per, "of": of }),
        };
        json!({
            "id": card.id, "url": card.url, "versions": card.versions, "title": card.title, "plainLanguage": card.plain_language,
            "higherIsBetter": card.higher_is_better, "unit": unit,
        })
    };
    Json(json!({ "measures": registry.options.measures.iter().map(measure).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
struct Wanted {
    site: Option<String>,
    /// Of several groups this one.
    group: Option<String>,
    format: Option<String>,
    /// As known then: a day, as it ended in UTC, or an instant.
    on: Option<String>,
}

async fn series_of(State(registry): State<Registry>, Path(id): Path<String>, Query(wanted): Query<Wanted>, headers: HeaderMap) -> Response {
    let Some(card) = registry.options.measures.iter().find(|card| card.id == id).cloned() else { return refuse(&not_found().into()) };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let is_csv = wanted.format.as_deref().map_or(accept.starts_with("text/csv"), |format| format == "csv");
    let Known { on, series: all, sites } = match known_on(&registry, &card, wanted.on.as_deref()).await {
        Ok(known) => known,
        Err(Unread::Database(error)) => return refuse(&Problem::Database(error)),
        Err(Unread::Asked(text)) => return refuse(&Refusal::new(400, "invalid", text).into()),
    };
    if let Some(text) = unheard_of(&wanted, &all, &sites) {
        return refuse(&Refusal::new(400, "invalid", text).into());
    }
    let is_wanted = |series: &Series| {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&wanted.site, &series.site) && is(&wanted.group, &series.group.key)
    };
    let all: Vec<Series> = all.into_iter().filter(is_wanted).collect();
    let rows = all.iter().flat_map(|series| series.points.iter().map(move |point| (series, point)));
    if is_csv {
        let headers = [(header::CONTENT_TYPE, "text/csv; charset=utf-8"), (header::CONTENT_DISPOSITION, "attachment; filename=\"series.csv\"")];
        return (headers, csv(&card, &all)).into_response();
    }
    let point = |(series, point): (&Series, &Point)| {
        let unit = card.unit_of(&series.group.key);
        let (doubt, bounds) = (point.doubt.as_ref(), point.bounds(&unit));
        let mut told = json!({
            "site": series.site, "periodStart": point.period_start, "periodEnd": point.period_end, "version": point.version,
            "numerator": point.numerator.map(|n| n.normalize().to_string()), "denominator": point.denominator.map(|n| n.normalize().to_string()),
            "value": point.value(&unit), "low": bounds.map(|(low, _)| low), "high": bounds.map(|(_, high)| high),
            "cannotTell": doubt.map_or(0, |doubt| doubt.count), "cannotTellOf": doubt.and_then(|doubt| doubt.of), "complete": point.complete, "revision": point.revision, "committedAt": point.committed.to_string(),
            "remarks": point.remarks,
        });
        if let Some(observed) = point.observed {
            (told["members"], told["observed"]) = (observed.members.into(), observed.counted.into());
        }
        if !point.made_of.is_empty() {
            told["madeOf"] = point.made_of.iter().map(String::as_str).collect();
        }
        if !point.other.is_empty() {
            told["otherThanNewest"] = point.other.iter().copied().collect();
        }
        // The only group of a measure needs no name.
        if !series.group.key.is_empty() {
            told["group"] = series.group.key.as_str().into();
            told["groupLabel"] = series.group.label.as_str().into();
        }
        told
    };
    let mut told = json!({ "measure": card.url, "points": rows.map(point).collect::<Vec<_>>() });
    if let Some(on) = on {
        told["asKnownOn"] = on.to_string().into();
    }
    Json(told).into_response()
}

/// What is asked for and cannot be had: nothing at all would look as if nothing had been reported.
fn unheard_of(wanted: &Wanted, all: &[Series], sites: &[Site]) -> Option<String> {
    let sites: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    let mut groups: Vec<&str> = all.iter().map(|series| series.group.key.as_str()).filter(|key| !key.is_empty()).collect();
    groups.sort_unstable();
    groups.dedup();
    let wrong = |what: &str, found: &Option<String>, names: &[&str]| {
        let found = found.as_deref().filter(|found| !found.is_empty() && !names.contains(found))?;
        Some(unknown(what, found, names))
    };
    let of_group = || if all.is_empty() { None } else { wrong("group of this measure", &wanted.group, &groups) };
    wrong("format", &wanted.format, &["csv", "json"]).or_else(|| wrong("site", &wanted.site, &sites)).or_else(of_group)
}

/// One row for each point. At its end stands of whom it is, where a score of the measure is no fraction; which of several groups;
/// what a composite is made of; and what it was counted by that is another than of the newest point of the series.
fn csv(card: &MeasureCard, all: &[Series]) -> String {
    let has_numbers = std::iter::once(&card.unit).chain(card.units.values()).any(|unit| *unit == Unit::Number);
    let has_groups = all.iter().any(|series| !series.group.key.is_empty());
    let mut text = String::from("site,measure,version,period_start,period_end,numerator,denominator,value,complete,revision,committed_at,low,high,cannot_tell,cannot_tell_of");
    text.push_str(if has_numbers { ",members,observed" } else { "" });
    let has_parts = all.iter().flat_map(|series| &series.points).any(|point| !point.made_of.is_empty());
    text.push_str(if has_groups { ",group,group_label" } else { "" });
    text.push_str(if has_parts { ",made_of" } else { "" });
    let has_others = all.iter().flat_map(|series| &series.points).any(|point| !point.other.is_empty());
    text.push_str(if has_others { ",other_than_newest\r\n" } else { "\r\n" });
    for (series, point) in all.iter().flat_map(|series| series.points.iter().map(move |point| (series, point))) {
        let number = |number: Option<rust_decimal::Decimal>| number.map_or_else(String::new, |number| number.normalize().to_string());
        let unit = card.unit_of(&series.group.key);
        let (doubt, bounds) = (point.doubt.as_ref(), point.bounds(&unit));
        let shown = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let cells = [
            cell(&series.site),
            cell(&card.id),
            cell(&point.version),
            cell(&point.period_start),
            cell(&point.period_end),
            number(point.numerator),
            number(point.denominator),
            shown(point.value(&unit)),
            point.complete.to_string(),
            point.revision.to_string(),
            point.committed.to_string(),
            shown(bounds.map(|(low, _)| low)),
            shown(bounds.map(|(_, high)| high)),
            doubt.map_or(0, |doubt| doubt.count).to_string(),
            doubt.and_then(|doubt| doubt.of).map_or_else(String::new, |of| of.to_string()),
        ];
        text.push_str(&cells.join(","));
        if has_numbers {
            let [members, counted] = [point.observed.map(|observed| observed.members), point.observed.and_then(|observed| observed.counted)];
            [members, counted]
                .iter()
                .for_each(|count| text.push_str(&format!(",{}", count.map_or_else(String::new, |count| count.to_string()))));
        }
        if has_groups {
            text.push_str(&format!(",{},{}", cell(&series.group.key), cell(&series.group.label)));
        }
        if has_parts {
            text.push_str(&format!(",{}", cell(&point.made_of.iter().map(String::as_str).collect::<Vec<_>>().join(" "))));
        }
        if has_others {
            text.push_str(&format!(",{}", cell(&point.other.join(" and "))));
        }
        text.push_str("\r\n");
    }
    text
}

/// One text cell: quoted where needed, and never a formula when a spreadsheet opens it.
fn cell(text: &str) -> String {
    let risky = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let text = if risky { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r', '\'']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn no_cell_becomes_a_formula() {
        for (text, expected) in [
            ("north", "north"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("-2+3", "\"'-2+3\""),
            ("\t=1", "\"'\t=1\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
