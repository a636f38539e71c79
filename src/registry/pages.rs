//! Pages for people: the arrival board, a page per measure, per site, per report. Rendered here, no script.

use std::collections::BTreeSet;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;

use super::knocks::Knock;
use super::query::{Known, Unread, known_on};
use super::report::{Reading, day};
use super::series::{self, Arrival, Point, Revision, Series};
use super::store::Site;
use super::{MeasureCard, Registry, Span, Unit};
use crate::diagnostic::counted;
use chart::{Chart, encode};
use strata::Strata;

mod chart;
mod label;
mod strata;

/// Reasons shown of one refusal.
const REASONS_SHOWN: usize = 5;

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/", get(board))
        .route("/measures/{id}", get(measure))
        .route("/measures/{id}/sites/{site}", get(site))
        .route("/measures/{id}/sites/{site}/{period}", get(revisions))
        .route("/style.css", get(style))
        .route("/favicon.svg", get(icon))
        .route("/favicon.ico", get(icon))
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, include_str!("templates/style.css")).into_response()
}

async fn icon() -> Response {
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "public, max-age=86400")];
    (headers, include_str!("templates/icon.svg")).into_response()
}

fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    network: &'a str,
    title: &'a str,
    text: &'a str,
}

pub(super) fn message(registry: &Registry, status: StatusCode, title: &str, text: &str) -> Response {
    page(status, &Message { network: &registry.options.network, title, text })
}

/// Any address that is not there.
pub(super) async fn not_found(State(registry): State<Registry>) -> Response {
    message(&registry, StatusCode::NOT_FOUND, "Not found", "There is nothing at this address.")
}

fn unavailable(registry: &Registry, error: &rusqlite::Error) -> Response {
    super::feeds::log_failure(error);
    message(registry, StatusCode::SERVICE_UNAVAILABLE, "Try again", "The registry cannot answer right now.")
}

/// How a site stands on the board.
struct Place {
    site: String,
    organization: String,
    mark: &'static str,
    state: &'static str,
    word: String,
    when: String,
    stamp: String,
    confirmed: Option<String>,
    begun: Option<String>,
    data: String,
    reports: String,
    reasons: Vec<String>,
    more: usize,
    /// What its latest numbers are beyond, and in how many more measures they are.
    looks: Vec<String>,
    looks_more: usize,
}

/// One measure on the board.
struct Offer {
    link: String,
    title: String,
    text: String,
    direction: &'static str,
    latest: String,
}

#[derive(Template)]
#[template(path = "board.html")]
struct Board<'a> {
    network: &'a str,
    places: Vec<Place>,
    arrived: usize,
    late: usize,
    refused: usize,
    new: usize,
    late_after: String,
    offers: Vec<Offer>,
    strangers: Vec<Stranger>,
    now: String,
}

/// A client that was not let in.
struct Stranger {
    client: String,
    key: String,
    times: String,
    last: String,
    reason: String,
    action: String,
}

fn stranger(knock: &Knock, now: Timestamp) -> Stranger {
    let Knock { client, key, site, count, last, .. } = knock;
    let client = site.as_ref().map_or_else(|| client.clone(), |site| format!("{client} (site {site})"));
    Stranger { client, key: key.clone(), times: counted(*count, "time"), last: age(*last, now), reason: knock.reason(), action: knock.action() }
}

async fn board(State(registry): State<Registry>) -> Response {
    let (now, held) = (registry.now(), registry.clone());
    let read = registry.store.reading(move |connection| {
        let arrivals = series::arrivals(connection, now, held.options.late_after_hours)?;
        let all = held.options.measures.iter().map(|card| series::series(connection, card, None, None)).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, rusqlite::Error>((arrivals, all))
    });
    let (arrivals, all) = match read.await {
        Ok(read) => read,
        Err(error) => return unavailable(&registry, &error),
    };
    let cards = &registry.options.measures;
    let mut places: Vec<Place> = arrivals.iter().map(|arrival| place(arrival, cards, looks(&arrival.site, cards, &all), now)).collect();
    let count = |state: &str| places.iter().filter(|place| place.state == state).count();
    let (late, refused, new) = (count("late") + count("never"), count("refused"), count("new"));
    let arrived = count("arrived") + count("partial");
    places.sort_by_key(|place| ["refused", "late", "never", "new", "partial", "arrived"].iter().position(|state| *state == place.state));
    let offers = registry.options.measures.iter().zip(&all).map(|(card, all)| offer(card, all)).collect();
    let options = &registry.options;
    let late_after = counted(options.late_after_hours, "hour");
    let strangers = registry.knocks.list().iter().map(|knock| stranger(knock, now)).collect();
    page(StatusCode::OK, &Board { strangers, network: &options.network, places, arrived, late, refused, new, late_after, offers, now: stamp(now) })
}

/// What a person should look at in the newest period that a site has of each measure.
fn looks(site: &Site, cards: &[MeasureCard], all: &[Vec<Series>]) -> Vec<String> {
    let mut said = Vec::new();
    for (card, all) in cards.iter().zip(all) {
        for group in by_group(card, all) {
            let own = group.series.iter().filter(|series| series.site == site.name).filter_map(|series| series.points.last());
            let name = if group.label.is_empty() { card.title.clone() } else { format!("{}: {}", card.title, group.label) };
            said.extend(
                own.filter(|point| !point.remarks.is_empty())
                    .map(|point| format!("{name}, {}: {}", chart::period_name(point), point.remarks.join("; "))),
            );
        }
    }
    said
}

fn place(arrival: &Arrival, cards: &[MeasureCard], mut looks: Vec<String>, now: Timestamp) -> Place {
    let (mark, state, word) = match (&arrival.refused, &arrival.last) {
        (Some(_), _) => ("✕", "refused", "Rejected"),
        (None, None) if arrival.late => ("–", "never", "Nothing yet"),
        (None, None) => ("–", "new", "Nothing yet"),
        (None, Some(_)) if arrival.late => ("!", "late", "Late"),
        (None, Some(last)) if !last.complete || !arrival.stopped.is_empty() => ("◐", "partial", "Partial"),
        (None, Some(_)) => ("✓", "arrived", "Complete"),
    };
    let last = arrival.last.as_ref();
    let confirmed = match (arrival.site.heard, last) {
        (Some(heard), Some(last)) if heard > last.committed => Some(age(heard, now)),
        _ => None,
    };
    let data = last.map_or_else(String::new, |last| {
        let mut data = match (last.complete, last.gaps, last.quarantined) {
            (true, _, 0) => "complete".to_owned(),
            (true, _, aside) => format!("complete; {} set aside", counted(aside, "line")),
            (false, 0, 0) => "some reports are partial".to_owned(),
            (false, gaps, aside) => format!("partial: {}, {} set aside", counted(gaps, "gap"), counted(aside, "line")),
        };
        match last.doubtful {
            0 => {}
            1 => data.push_str("; 1 report cannot tell of everybody"),
            doubtful => data.push_str(&format!("; {doubtful} reports cannot tell of everybody")),
        }
        let title = |url: &String| cards.iter().find(|card| card.url == *url).map_or_else(|| url.clone(), |card| card.title.clone());
        if !arrival.stopped.is_empty() {
            data.push_str(&format!("; no longer sent: {}", arrival.stopped.iter().map(title).collect::<Vec<_>>().join(", ")));
        }
        data
    });
    let all = arrival.refused.as_ref().map(|(_, reasons)| reasons.as_slice()).unwrap_or_default();
    Place {
        site: arrival.site.name.clone(),
        organization: arrival.site.organization.clone(),
        mark,
        state,
        word: word.to_owned(),
        when: last.map_or_else(|| "never".to_owned(), |last| age(last.committed, now)),
        stamp: last.map_or_else(String::new, |last| stamp(last.committed)),
        confirmed,
        begun: arrival.begun.map(|at| age(at, now)),
        data,
        reports: last.map_or_else(String::new, |last| last.reports.to_string()),
        reasons: all.iter().take(REASONS_SHOWN).cloned().collect(),
        more: all.len().saturating_sub(REASONS_SHOWN),
        looks_more: looks.len().saturating_sub(REASONS_SHOWN),
        looks: looks.drain(..looks.len().min(REASONS_SHOWN)).collect(),
    }
}

fn direction(card: &MeasureCard) -> &'static str {
    match card.higher_is_better {
        _ if card.unit == Unit::Count => "a count, which is neither better nor worse",
        Some(true) => "higher is better",
        Some(false) => "lower is better",
        None => "which direction is better is not told",
    }
}

/// One group of a measure: how it is shown, and what each site reported of it.
struct Grouped<'a> {
    /// The measure's, in the direction of the group.
    card: MeasureCard,
    /// Empty where the measure has one group.
    label: String,
    series: Vec<&'a Series>,
}

/// The series by group, in the order in which they were reported.
fn by_group<'a>(card: &MeasureCard, all: &'a [Series]) -> Vec<Grouped<'a>> {
    let mut keys: Vec<&str> = Vec::new();
    for series in all.iter().filter(|series| !series.points.is_empty()) {
        if !keys.contains(&series.group.key.as_str()) {
            keys.push(&series.group.key);
        }
    }
    let is_one = keys.len() == 1;
    let grouped = |key: &str| {
        let series: Vec<&Series> = all.iter().filter(|series| series.group.key == key).collect();
        let group = series.first().map(|series| series.group.clone()).unwrap_or_default();
        let label = match (is_one, key) {
            (true, "") => String::new(),
            // Reported so before the measure had several.
            (false, "") => "As one group".to_owned(),
            _ => group.label,
        };
        let unit = card.unit_of(key);
        let higher_is_better = group.higher_is_better.or(card.higher_is_better).filter(|_| unit != Unit::Count);
        let sums = card.sums.contains(key).then(String::new).into_iter().collect();
        Grouped { card: MeasureCard { higher_is_better, unit, sums, ..card.clone() }, label, series }
    };
    let mut groups: Vec<Grouped<'a>> = keys.iter().map(|key| grouped(key)).collect();
    let labels: Vec<String> = groups.iter().map(|group| group.label.clone()).collect();
    // Two groups that people call the same are told apart by their keys.
    for (group, key) in groups.iter_mut().zip(keys).filter(|(group, _)| labels.iter().filter(|label| **label == group.label).count() > 1) {
        group.label = format!("{} ({key})", group.label);
    }
    groups
}

fn offer(card: &MeasureCard, all: &[Series]) -> Offer {
    let groups = by_group(card, all);
    let of_group = |group: &Grouped<'_>| {
        let latest = latest(&group.card, &group.series);
        if group.label.is_empty() { latest } else { format!("{}: {latest}", group.label) }
    };
    let latest = if groups.is_empty() { "no reports yet".to_owned() } else { groups.iter().map(of_group).collect::<Vec<_>>().join("; ") };
    let text = card.plain_language.split_inclusive(['.', '!', '?']).next().unwrap_or_default().trim().to_owned();
    Offer { link: format!("/measures/{}", encode(&card.id)), title: card.title.clone(), text, direction: direction(card), latest }
}

/// The newest month of a group over all sites, in words.
fn latest(card: &MeasureCard, all: &[&Series]) -> String {
    let newest = all.iter().filter_map(|series| series.points.last()).max_by(|a, b| a.period_start.cmp(&b.period_start));
    let Some(newest) = newest else { return "no reports yet".to_owned() };
    let of_month = |series: &&Series| series.points.iter().rfind(|point| point.period_start.get(..10) == newest.period_start.get(..10)).cloned();
    let of_month: Vec<Option<Point>> = all.iter().map(of_month).collect();
    let Counting { counting, unknown, rest } = counting(card, &of_month);
    // A minority's number is not the network's.
    let is_known = !counting.is_empty() && counting.len() * 2 >= all.len();
    let mut sum = newest.nothing_of();
    counting.iter().chain(unknown.iter().filter(|_| !is_known)).for_each(|point| sum.add(point));
    let said: Vec<String> = rest.into_iter().chain(chart::doubt_text(card, &sum)).collect();
    let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) };
    let sites = match counting.len() {
        whole if whole == all.len() => counted(whole, "site"),
        some => format!("{some} of {}", counted(all.len(), "site")),
    };
    // Scores that are no fractions have no sum; they lie between two.
    let mut values: Vec<f64> = counting.iter().filter_map(|point| point.value(&card.unit)).collect();
    values.sort_by(f64::total_cmp);
    let text = |value: f64| chart::value_text(card, value);
    let month = chart::period_name(newest);
    let value = match (sum.value(&card.unit), values.first(), values.last()) {
        (_, None, _) if unknown.is_empty() => return format!("no score in {month}{said}"),
        (_, None, _) => return format!("not known in {month}{said}"),
        _ if !is_known => return format!("not known in {month}, {sites}{said}"),
        (Some(value), ..) => text(value),
        (None, Some(low), Some(high)) if low < high => format!("{} to {}", text(*low), text(*high)),
        (None, Some(value), _) => text(*value),
    };
    let counts = chart::counts(card, &sum).map_or_else(String::new, |counts| format!(" ({counts})"));
    format!("{value}{counts} in {month}, {sites}{said}")
}

/// What the sites have of one month.
struct Counting<'a> {
    /// What can be added up: complete, with a number, and of versions that can be compared with the newest of these.
    counting: Vec<&'a Point>,
    /// Of which more than half cannot be told.
    unknown: Vec<&'a Point>,
    /// Why the rest does not count: `2 partial, 1 on version 1.0.0, 1 not in`.
    rest: Option<String>,
}

fn counting<'a>(card: &MeasureCard, of_month: &'a [Option<Point>]) -> Counting<'a> {
    let has_value = |point: &&Point| point.value(&card.unit).is_some();
    let there = || of_month.iter().flatten();
    let whole: Vec<&Point> = there().filter(|point| point.complete).filter(has_value).collect();
    let newest = card.newest(whole.iter().copied());
    let (counting, others): (Vec<&Point>, Vec<&Point>) = whole.into_iter().partition(|point| newest.is_some_and(|newest| card.is_comparable(point, newest)));
    let unknown: Vec<&Point> = there().filter(|point| point.is_unknown()).collect();
    let partial = there().filter(|point| !point.complete).filter(has_value).count();
    let empty = there().filter(|point| !has_value(point)).count() - unknown.len();
    let mut said = vec![(partial, "partial".to_owned()), (unknown.len(), "not known".to_owned()), (empty, "without a number".to_owned())];
    let versions: BTreeSet<String> = others.iter().map(|point| point.version_text()).collect();
    said.extend(
        versions
            .iter()
            .map(|version| (others.iter().filter(|point| point.version_text() == *version).count(), format!("on version {version}"))),
    );
    said.push((of_month.len() - there().count(), "not in".to_owned()));
    let said: Vec<String> = said.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    Counting { counting, unknown, rest: (!said.is_empty()).then(|| said.join(", ")) }
}

/// `2026-03-04 02:15 UTC`.
fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `3 hours ago`.
fn age(at: Timestamp, now: Timestamp) -> String {
    let minutes = (now.as_second() - at.as_second()) / 60;
    let (number, unit) = match minutes {
        ..=1 => return "just now".to_owned(),
        2..=119 => (minutes, "minutes"),
        120..=2879 => (minutes / 60, "hours"),
        _ => (minutes / 1440, "days"),
    };
    format!("{number} {unit} ago")
}

#[derive(Template)]
#[template(path = "measure.html")]
struct MeasurePage<'a> {
    network: &'a str,
    card: &'a MeasureCard,
    direction: &'static str,
    unit: String,
    sections: Vec<Section>,
    has_remarks: bool,
    series: String,
    csv: String,
    on: Option<String>,
}

/// What a page shows of one group of a measure.
struct Section {
    /// Empty where the measure has one group.
    label: String,
    direction: &'static str,
    charts: Vec<Chart>,
    strata: Vec<Strata>,
    /// What the strata are of.
    pooled: String,
}

/// One section for each group, with the charts of the sites that are shown; all of them on one scale.
fn sections(card: &MeasureCard, all: &[Series], name: impl Fn(&str) -> Option<String>) -> Vec<Section> {
    let section = |(place, group): (usize, Grouped<'_>)| {
        let scale = chart::scale(group.series.iter().map(|series| &series.points), &group.card);
        let shown: Vec<(&Series, String)> = group.series.iter().filter_map(|series| Some((*series, name(&series.site)?))).collect();
        let newest_of_all = card.newest(group.series.iter().filter_map(|series| series.points.last()));
        let drawn = |(series, name): &(&Series, String)| {
            let (id, heading) = match group.label.as_str() {
                "" => (series.site.clone(), name.clone()),
                label => (format!("{}-{}", series.site, place + 1), format!("{name}: {label}")),
            };
            let mut chart = Chart { id, ..chart::chart(&group.card, &series.site, heading, &series.points, scale) };
            if let Some(last) = series
                .points
                .last()
                .filter(|last| newest_of_all.is_some_and(|newest| (&newest.version, &newest.made_of) != (&last.version, &last.made_of)))
            {
                chart.latest.push_str(&format!("; version {}", last.version_text()));
            }
            chart
        };
        let charts = shown.iter().map(drawn).collect();
        let (strata, pooled) = strata::tables(&group.card, &shown.iter().map(|(series, _)| *series).collect::<Vec<_>>());
        Section { label: group.label, direction: direction(&group.card), charts, strata, pooled }
    };
    by_group(card, all).into_iter().enumerate().map(section).filter(|section| !section.charts.is_empty()).collect()
}

fn unit_text(unit: &Unit) -> String {
    match unit {
        Unit::Percent => "in percent".to_owned(),
        Unit::Number => "as a number".to_owned(),
        Unit::Count => "as a count".to_owned(),
        Unit::Rate { of, .. } if of.is_empty() => "as a ratio".to_owned(),
        Unit::Rate { per, of } if *per == 1 => format!("per {of}"),
        Unit::Rate { per, of } => format!("per {} {of}", chart::count_text(Some((*per).into()))),
    }
}

/// The same with the length of the periods that were reported last, where a published measure does not hold a site to one.
fn as_reported(card: &MeasureCard, all: &[Series]) -> MeasureCard {
    let mut card = card.clone();
    let newest = all.iter().filter_map(|series| series.points.last()).max_by(|a, b| a.period_end.cmp(&b.period_end));
    let span = newest.and_then(|point| Span::of(day(&point.period_start)?, day(&point.period_end)?));
    card.definitions.values_mut().for_each(|defined| defined.period = defined.period.or(span));
    card
}

fn card<'a>(registry: &'a Registry, id: &str) -> Option<&'a MeasureCard> {
    registry.options.measures.iter().find(|card| card.id == id)
}

/// As of when a page is asked for.
#[derive(Deserialize)]
struct Asked {
    on: Option<String>,
}

fn unread_page(registry: &Registry, unread: Unread) -> Response {
    match unread {
        Unread::Database(error) => unavailable(registry, &error),
        Unread::Asked(text) => message(registry, StatusCode::BAD_REQUEST, "Not understood", &text),
    }
}

/// The end of addresses that lead on from a page as known then: `?on=2026-01-31T23:59:59Z`.
fn leading_on(on: Option<Timestamp>, sections: &mut [Section]) -> String {
    let end = on.map_or_else(String::new, |on| format!("?on={}", encode(&on.to_string())));
    sections.iter_mut().flat_map(|section| &mut section.charts).for_each(|chart| chart.link.push_str(&end));
    end
}

async fn measure(State(registry): State<Registry>, Path(id): Path<String>, Query(asked): Query<Asked>) -> Response {
    let Some(card) = card(&registry, &id) else { return not_found(State(registry)).await };
    let Known { on, series: all, sites } = match known_on(&registry, card, asked.on.as_deref()).await {
        Ok(known) => known,
        Err(unread) => return unread_page(&registry, unread),
    };
    let card = &as_reported(card, &all);
    let name = |site: &str| Some(organization(&sites, site));
    let mut sections = sections(card, &all, name);
    let series = format!("/v1/measures/{}/series{}", encode(&card.id), leading_on(on, &mut sections));
    let csv = format!("{series}{}format=csv", if on.is_some() { '&' } else { '?' });
    let has_remarks = sections.iter().flat_map(|section| &section.charts).any(|chart| !chart.remarks.is_empty());
    page(
        StatusCode::OK,
        &MeasurePage {
            network: &registry.options.network,
            card,
            direction: direction(card),
            unit: unit_text(&card.unit),
            sections,
            has_remarks,
            series,
            csv,
            on: on.map(|on| on.to_string()),
        },
    )
}

/// What people call a site; two of one name are told apart.
fn organization(sites: &[Site], site: &str) -> String {
    let Some(known) = sites.iter().find(|known| known.name == site) else { return site.to_owned() };
    let namesakes = sites.iter().filter(|other| other.organization == known.organization).count();
    if namesakes > 1 { format!("{} ({site})", known.organization) } else { known.organization.clone() }
}

#[derive(Template)]
#[template(path = "site.html")]
struct SitePage<'a> {
    network: &'a str,
    card: &'a MeasureCard,
    back: String,
    direction: &'static str,
    unit: String,
    organization: String,
    sections: Vec<Section>,
    csv: String,
    on: Option<String>,
}

async fn site(State(registry): State<Registry>, Path((id, site)): Path<(String, String)>, Query(asked): Query<Asked>) -> Response {
    let Some(card) = card(&registry, &id) else { return not_found(State(registry)).await };
    let Known { on, series: all, sites } = match known_on(&registry, card, asked.on.as_deref()).await {
        Ok(known) => known,
        Err(unread) => return unread_page(&registry, unread),
    };
    if sites.iter().all(|known| known.name != site) {
        return not_found(State(registry)).await;
    }
    let card = &as_reported(card, &all);
    let organization = organization(&sites, &site);
    let mut sections = sections(card, &all, |name| (name == site).then(|| organization.clone()));
    if sections.is_empty() {
        return not_found(State(registry)).await;
    }
    let end = leading_on(on, &mut sections);
    let csv = format!("/v1/measures/{}/series?site={}&format=csv{}", encode(&card.id), encode(&site), end.replace('?', "&"));
    let back = format!("/measures/{}{end}", encode(&card.id));
    let (direction, unit) = (direction(card), unit_text(&card.unit));
    page(StatusCode::OK, &SitePage { network: &registry.options.network, card, back, direction, unit, organization, sections, csv, on: on.map(|on| on.to_string()) })
}

/// One revision in the history.
struct RevisionRow {
    number: u64,
    committed: String,
    counts: String,
    cause: String,
    data: &'static str,
    version: String,
    digest: String,
    replaces: String,
    feed: String,
}

#[derive(Template)]
#[template(path = "revisions.html")]
struct RevisionsPage<'a> {
    network: &'a str,
    card: &'a MeasureCard,
    site: String,
    back: String,
    period: String,
    rows: Vec<RevisionRow>,
}

async fn revisions(State(registry): State<Registry>, Path((id, site, period)): Path<(String, String, String)>) -> Response {
    let Some(card) = card(&registry, &id) else { return not_found(State(registry)).await };
    let (asked_site, url, asked_period) = (site.clone(), card.url.clone(), period.clone());
    let read = registry.store.reading(move |connection| series::revisions(connection, &asked_site, &url, &asked_period)).await;
    match read {
        Err(error) => unavailable(&registry, &error),
        Ok(found) if found.is_empty() => not_found(State(registry)).await,
        Ok(found) => {
            let rows = found.iter().map(|revision| revision_row(card, revision)).collect();
            let back = format!("/measures/{}/sites/{}", encode(&card.id), encode(&site));
            let period = found.first().map_or(period.clone(), |revision| chart::name_of(&period, &revision.period_end));
            page(StatusCode::OK, &RevisionsPage { network: &registry.options.network, card, site, back, period, rows })
        }
    }
}

fn revision_row(card: &MeasureCard, revision: &Revision) -> RevisionRow {
    let short = |digest: &Option<String>| digest.as_deref().map_or_else(|| "–".to_owned(), |digest| digest.chars().take(12).collect());
    let counts = match revision.readings.as_slice() {
        [] => reading_text(card, &Reading::default()),
        readings => readings.iter().map(|reading| reading_text(card, reading)).collect::<Vec<_>>().join("; "),
    };
    RevisionRow {
        number: revision.number,
        committed: stamp(revision.committed),
        counts,
        cause: cause_text(revision.cause.as_deref(), revision.reason.as_deref()),
        data: if revision.complete { "complete" } else { "partial" },
        version: revision.version.clone(),
        digest: short(&revision.sha256),
        replaces: short(&revision.replaces),
        feed: revision.feed.chars().take(12).collect(),
    }
}

/// Why a revision is there.
fn cause_text(cause: Option<&str>, withdrawn: Option<&str>) -> String {
    match (cause, withdrawn) {
        (_, Some(reason)) => format!("withdrawn: {reason}"),
        (Some("correction"), None) => "several things changed, or corrected by hand".to_owned(),
        (Some("engine"), None) => "Watershed changed".to_owned(),
        (Some(one), None) => format!("{one} changed"),
        (None, None) => "first report".to_owned(),
    }
}

/// `7 / 10`, with the group's name where there are several, and with what cannot be told.
fn reading_text(card: &MeasureCard, reading: &Reading) -> String {
    let counts = match (reading.numerator, reading.score) {
        (count, _) if card.unit_of(&reading.group.key) == Unit::Count => chart::count_text(count),
        (None, Some(score)) => {
            let of = reading.observed.map_or_else(String::new, |observed| format!(" ({})", chart::observed_text(&observed)));
            format!("score {}{of}", score.normalize())
        }
        _ => format!("{} / {}", chart::count_text(reading.numerator), chart::count_text(reading.denominator)),
    };
    let label = if reading.group.label.is_empty() { String::new() } else { format!("{}: ", reading.group.label) };
    let doubt = reading.doubt.as_ref().map_or_else(String::new, |doubt| format!(" ({})", chart::words_of(card, doubt)));
    format!("{label}{counts}{doubt}")
}

#[cfg(test)]
mod tests {
    use super::cause_text;

    #[test]
    fn the_cause_of_a_revision_is_a_sentence() {
        let table = [
            (None, None, "first report"),
            (Some("data"), None, "data changed"),
            (Some("engine"), None, "Watershed changed"),
            (Some("correction"), None, "several things changed, or corrected by hand"),
            (None, Some("sent by mistake"), "withdrawn: sent by mistake"),
        ];
        for (cause, withdrawn, expected) in table {
            assert_eq!(cause_text(cause, withdrawn), expected);
        }
    }
}
