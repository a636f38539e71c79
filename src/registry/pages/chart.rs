//! A run chart as SVG geometry: numbers in, coordinates and words out. The templates draw it.

use jiff::civil::Date;

use super::label::{self, Label};
use crate::diagnostic::counted;
use crate::registry::report::{Doubt, Observed, day};
use crate::registry::series::Point;
use crate::registry::{MeasureCard, Span, Unit};
use crate::statistics::rate::{poisson_rate, wilson};
use crate::statistics::run_chart::{Rule, RunChart, Side, Signal, run_chart};
use rust_decimal::prelude::ToPrimitive;
use words::{counted_otherwise, latest, said, said_of_stretch, summary, verdict};

mod words;

/// Size of the drawing, in its own units; the page scales it.
pub const WIDTH: f64 = 460.0;
/// See [`WIDTH`].
pub const HEIGHT: f64 = 290.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 62.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 34.0;
/// Periods to look at that are named below a chart.
const REMARKS_SHOWN: usize = 2;
/// Confidence of the intervals shown.
const CONFIDENCE: f64 = 0.95;
/// Lines of the value axis, about.
const TICKS: f64 = 4.0;
/// Room that the label of a version takes, about.
const LABEL_WIDTH: f64 = 95.0;
/// Places that the axis leaves empty where periods are missing, at most.
const HOLE_PLACES_MAX: usize = 12;

/// Everything the template needs to draw one site's chart and its table.
pub struct Chart {
    /// Part of element identifiers: `north`.
    pub id: String,
    /// What the values are, over their column.
    pub column: &'static str,
    /// What they are made of.
    pub sides: Vec<&'static str>,
    /// Whether they have an interval.
    pub has_interval: bool,
    /// Heading.
    pub heading: String,
    /// Where the site's own page is.
    pub link: String,
    /// One sentence that says what the chart shows.
    pub summary: String,
    /// Horizontal lines: y, label.
    pub ticks: Vec<(f64, String)>,
    /// Labels below: x, text.
    pub months: Vec<(f64, String)>,
    /// The centre line of each phase.
    pub medians: Vec<Median>,
    /// The goal of each version that has one.
    pub goals: Vec<Goal>,
    /// What stands beside the newest median and goal.
    pub labels: Vec<Label>,
    /// Where another version of the measure begins.
    pub turns: Vec<Turn>,
    /// Points of the line, one list per unbroken stretch.
    pub lines: Vec<String>,
    /// The points.
    pub dots: Vec<Dot>,
    /// Shaded stretches: shifts.
    pub bands: Vec<Band>,
    /// Stretches marked by a bar above: trends.
    pub bars: Vec<Band>,
    /// Signals in words, with whether each is good news.
    pub signals: Vec<Said>,
    /// Where the newest phase has none: that there is none, or why nothing can be told.
    pub verdict: Option<String>,
    /// Rows of the table, newest first.
    pub rows: Vec<Row>,
    /// Words of the last point.
    pub latest: String,
    /// Where values could lie for all that cannot be told: x, top, bottom, words.
    pub ranges: Vec<(f64, f64, f64, String)>,
    /// In how many periods something cannot be told, in a sentence.
    pub doubt: Option<String>,
    /// Which periods were counted by something else than the newest one, in a sentence.
    pub counted_otherwise: Option<String>,
    /// Of the newest periods with a remark: its name and the remark.
    pub remarks: Vec<String>,
}

/// What a row of a table says of that which cannot be told; empty when nothing is open.
pub struct Told {
    /// `23 of 23`.
    pub count: String,
    /// Between which values the score lies if all were known.
    pub bounds: String,
}

impl Told {
    /// Of a point or a sum.
    pub fn of(card: &MeasureCard, point: &Point) -> Told {
        let doubt = point.doubt.as_ref();
        Told { count: doubt.map_or_else(String::new, count_of), bounds: doubt.and_then(|doubt| bounds_text(card, doubt)).unwrap_or_default() }
    }
}

/// `23 of 23`, or `2`.
fn count_of(doubt: &Doubt) -> String {
    let count = count_text(Some(doubt.count.into()));
    doubt.of.map_or(count.clone(), |of| format!("{count} of {}", count_text(Some(of.into()))))
}

fn bounds_text(card: &MeasureCard, doubt: &Doubt) -> Option<String> {
    doubt.bounds(&card.unit).map(|bounds| range_text(card, bounds))
}

/// `0.0 – 100.0 %`.
pub fn range_text(card: &MeasureCard, (low, high): (f64, f64)) -> String {
    match card.unit {
        Unit::Percent => format!("{low:.1} – {high:.1}\u{202f}%"),
        Unit::Count => format!("{} – {}", value_text(card, low), value_text(card, high)),
        Unit::Rate { .. } | Unit::Number => format!("{low:.2} – {high:.2}"),
    }
}

/// `23 of 23 cannot be told: 0.0 – 100.0 %`.
pub fn words_of(card: &MeasureCard, doubt: &Doubt) -> String {
    let bounds = bounds_text(card, doubt).map_or_else(String::new, |bounds| format!(": {bounds}"));
    format!("{} cannot be told{bounds}", count_of(doubt))
}

/// The same of a point; `None` where nothing is open.
pub fn doubt_text(card: &MeasureCard, point: &Point) -> Option<String> {
    point.doubt.as_ref().map(|doubt| words_of(card, doubt))
}

/// The centre line of a phase.
pub struct Median {
    /// From here,
    pub from: f64,
    /// to here across.
    pub to: f64,
    /// Down.
    pub y: f64,
}

/// A goal, over the periods that are held against it.
pub struct Goal {
    /// From here,
    pub from: f64,
    /// to here across.
    pub to: f64,
    /// Down.
    pub y: f64,
    /// What it is; the newest is named beside the chart.
    pub words: Option<Words>,
}

/// Words in a chart, across: after the place that they name, unless they would be cut there.
pub struct Words {
    /// Across.
    pub x: f64,
    /// Where they are anchored, by the name in SVG.
    pub anchor: &'static str,
    /// They themselves.
    pub text: String,
}

/// Where another version of the measure begins.
pub struct Turn {
    /// Across.
    pub x: f64,
    /// The version, with an arrow to it where they stand before the line.
    pub words: Words,
    /// From when on, and what that means.
    pub text: String,
}

/// One point of the chart.
pub struct Dot {
    /// Across.
    pub x: f64,
    /// Down.
    pub y: f64,
    /// Drawn hollow.
    pub partial: bool,
    /// Marked, as one to look at.
    pub marked: bool,
    /// Month, numerator, denominator, value.
    pub title: String,
}

/// One shaded stretch of a signal.
pub struct Band {
    /// Left edge.
    pub x: f64,
    /// Width.
    pub width: f64,
    /// Where its label is anchored.
    pub label_x: f64,
    /// Which way it is: `good`, `bad` or `neutral`.
    pub news: &'static str,
    /// Short label.
    pub label: String,
}

/// A signal in words.
pub struct Said {
    /// `good`, `bad` or `neutral`.
    pub news: &'static str,
    /// The sentence.
    pub text: String,
}

/// One row of the table twin.
pub struct Row {
    /// Month or period.
    pub period: String,
    /// What the value is made of.
    pub sides: [String; 2],
    /// Value.
    pub value: String,
    /// Its interval.
    pub interval: String,
    /// What cannot be told.
    pub doubt: Told,
    /// What a person should look at.
    pub remark: String,
    /// `complete` or `partial`.
    pub data: &'static str,
    /// What it was counted by that is another than of the newest: `other mapping`.
    pub other: String,
    /// Revision number.
    pub revision: u64,
    /// Where its history is.
    pub history: String,
}

/// The value axis that all charts of a page share. It starts at zero unless every value is far from it.
#[derive(Clone, Copy)]
pub struct Scale {
    bottom: f64,
    top: f64,
    step: f64,
}

/// The axis for all of these, and for their goals.
pub fn scale<'a>(series: impl Iterator<Item = &'a Vec<Point>>, card: &MeasureCard) -> Scale {
    let unit = &card.unit;
    let shown = |point: &Point| {
        let bounds = point.bounds(unit).into_iter().flat_map(|(low, high)| [low, high]);
        point.value(unit).into_iter().chain(bounds).chain(card.goal_of(&point.version)).collect::<Vec<_>>()
    };
    let values: Vec<f64> = series.flatten().flat_map(shown).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().fold(most, f64::min);
    let most = if most > 0.0 { most } else { 1.0 };
    let from = if least > most / 2.0 && least < most { (least - (most - least) / 2.0).max(0.0) } else { 0.0 };
    let raw = ((most - from) / TICKS).max(most / 1000.0).max(if *unit == Unit::Count { 1.0 } else { 0.0 });
    let magnitude = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|nice| nice * magnitude)
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(10.0 * magnitude);
    let (bottom, top) = ((from / step).floor() * step, (most / step).ceil() * step);
    Scale { bottom, top: if *unit == Unit::Percent && most <= 100.0 { top.min(100.0) } else { top }, step }
}

/// A reported period: where it stands on the axis, on which missing ones have a place too.
struct Slot<'a> {
    place: usize,
    /// So many periods before it are missing.
    missing: usize,
    point: &'a Point,
    name: String,
    value: Option<f64>,
}

fn slots<'a>(points: &'a [Point], unit: &Unit) -> Vec<Slot<'a>> {
    let mut slots: Vec<Slot<'a>> = Vec::with_capacity(points.len());
    for point in points {
        let (missing, next) = slots.last().map_or((0, 0), |last| (missing_between(last.point, point), last.place + 1));
        let place = next + missing.min(HOLE_PLACES_MAX);
        slots.push(Slot { place, missing, point, name: period_name(point), value: point.value(unit) });
    }
    slots
}

/// How many periods lie between two; one more than none where that cannot be told.
fn missing_between(before: &Point, after: &Point) -> usize {
    let (Some(end), Some(start), Some(last)) = (day(&before.period_end), day(&after.period_start), day(&after.period_end)) else { return 1 };
    if end.tomorrow().is_ok_and(|next| next == start) {
        return 0;
    }
    let month = |date: Date| i32::from(date.year()) * 12 + i32::from(date.month());
    let length = (month(last) - month(start) + 1).max(1);
    usize::try_from((month(start) - month(end) - 1) / length).unwrap_or_default().max(1)
}

/// Periods whose versions of the measure can be compared, and what the rules found in them.
struct Phase<'s, 'a> {
    slots: &'s [Slot<'a>],
    run: RunChart,
    /// Months of the patients whom one value counts, where these are more than its own period.
    lookback: Option<u32>,
}

fn phases<'s, 'a>(card: &MeasureCard, slots: &'s [Slot<'a>]) -> Vec<Phase<'s, 'a>> {
    let places = slots.last().map_or(0, |last| last.place + 1);
    let phase = |slots: &'s [Slot<'a>]| {
        let mut series = vec![None; places];
        for slot in slots.iter().filter(|slot| slot.point.complete) {
            if let Some(place) = series.get_mut(slot.place) {
                *place = slot.value;
            }
        }
        let mut run = run_chart(&series);
        let lookback = slots.first().and_then(|slot| card.definitions.get(&slot.point.version)?.lookback_months);
        if lookback.is_some() {
            run.signals.clear();
        }
        Phase { slots, run, lookback }
    };
    slots.chunk_by(|a, b| card.is_comparable(a.point, b.point)).map(phase).collect()
}

/// Lays out one site's chart.
pub fn chart(card: &MeasureCard, site: &str, heading: String, points: &[Point], scale: Scale) -> Chart {
    let slots = slots(points, &card.unit);
    let phases = phases(card, &slots);
    let place = Place { count: slots.last().map_or(0, |last| last.place + 1), scale };
    let signals: Vec<&Signal> = phases.iter().flat_map(|phase| &phase.run.signals).collect();
    let of_stretch = |signals: &[&Signal]| said_of_stretch(signals, &slots);
    Chart {
        id: site.to_owned(),
        column: column(&card.unit),
        sides: sides(&card.unit),
        has_interval: has_interval(card),
        heading,
        link: format!("/measures/{}/sites/{}", encode(&card.id), encode(site)),
        summary: summary(card, &slots, &phases),
        ticks: ticks(card, &place),
        months: months(&slots, &place),
        medians: phases.iter().filter_map(|phase| median(phase, &place)).collect(),
        labels: labels(card, phases.last(), &slots, &place),
        goals: slots.chunk_by(|a, b| goal_of(card, a) == goal_of(card, b)).filter_map(|slots| goal(card, slots, &place)).collect(),
        turns: turns(card, &slots, &place),
        lines: phases.iter().flat_map(|phase| lines(phase.slots, &place)).collect(),
        dots: dots(card, &slots, &place),
        bands: signals.iter().filter_map(|signal| shift(card, signal, &place)).collect(),
        bars: signals.iter().filter_map(|signal| trend(card, signal, &place)).collect(),
        signals: signals
            .iter()
            .filter_map(|signal| said(card, signal, &slots))
            .chain(signals.chunk_by(|a, b| a.points == b.points).filter_map(of_stretch))
            .collect(),
        verdict: phases.last().and_then(|phase| verdict(card, phase, phases.len() > 1)),
        rows: rows(card, site, &slots).into_iter().rev().collect(),
        latest: latest(card, &slots),
        ranges: ranges(card, &slots, &place),
        doubt: doubtful_periods(points),
        counted_otherwise: counted_otherwise(card, &slots),
        remarks: remarks(points),
    }
}

fn median(phase: &Phase<'_, '_>, place: &Place) -> Option<Median> {
    let (median, first, last) = (phase.run.median?, phase.slots.first()?, phase.slots.last()?);
    let (from, to) = place.across(first.place..last.place + 1);
    Some(Median { from, to, y: place.y(median) })
}

fn goal_of(card: &MeasureCard, slot: &Slot<'_>) -> Option<f64> {
    card.goal_of(&slot.point.version)
}

/// The goal of periods that have the same.
fn goal(card: &MeasureCard, slots: &[Slot<'_>], place: &Place) -> Option<Goal> {
    let (first, last) = (slots.first()?, slots.last()?);
    let goal = goal_of(card, first)?;
    let (from, to) = place.across(first.place..last.place + 1);
    let is_newest = last.place + 1 == place.count;
    let (x, anchor) = if to - LABEL_WIDTH < LEFT { (from + 4.0, "start") } else { (to - 4.0, "end") };
    let words = || Words { x: round(x), anchor, text: format!("goal {}", value_text(card, goal)) };
    Some(Goal { from, to, y: place.y(goal), words: (!is_newest).then(words) })
}

/// What stands beside the newest median and goal.
fn labels(card: &MeasureCard, phase: Option<&Phase<'_, '_>>, slots: &[Slot<'_>], place: &Place) -> Vec<Label> {
    let at = |value: f64| (place.y(value), value_text(card, value));
    label::beside(phase.and_then(|phase| phase.run.median).map(at), slots.last().and_then(|slot| goal_of(card, slot)).map(at))
}

/// Where another version begins, and whether what follows is compared with what was before.
fn turns(card: &MeasureCard, slots: &[Slot<'_>], place: &Place) -> Vec<Turn> {
    let turn = |pair: &[Slot<'_>]| {
        let [before, after] = pair else { return None };
        let (old, version) = (before.point.version_text(), after.point.version_text());
        let x = round(place.x(after.place) - place.step() / 2.0);
        let fits = x < WIDTH - LABEL_WIDTH;
        let verdict = if card.is_comparable(before.point, after.point) { "it says that it can be compared with" } else { "its values are not compared with those of" };
        let (words_x, anchor, arrow) = if fits { (x + 4.0, "start", "") } else { (x - 4.0, "end", " →") };
        (old != version).then(|| Turn {
            x,
            words: Words { x: round(words_x), anchor, text: format!("version {}{arrow}", after.point.version) },
            text: format!("Version {version} of the measure from {} on: {verdict} version {old}.", after.name),
        })
    };
    slots.windows(2).filter_map(turn).collect()
}

fn ranges(card: &MeasureCard, slots: &[Slot<'_>], place: &Place) -> Vec<(f64, f64, f64, String)> {
    let range = |slot: &Slot<'_>| {
        let (low, high) = slot.point.bounds(&card.unit)?;
        Some((place.x(slot.place), place.y(high), place.y(low), format!("{}: {}", slot.name, doubt_text(card, slot.point)?)))
    };
    slots.iter().filter_map(range).collect()
}

fn doubtful_periods(points: &[Point]) -> Option<String> {
    let doubtful: Vec<&Doubt> = points.iter().filter_map(|point| point.doubt.as_ref()).collect();
    let place = match (doubtful.len(), doubtful.iter().all(|doubt| doubt.low.is_some())) {
        (0, _) => return None,
        (_, true) => "; there the value lies somewhere on the vertical line, and a shift or trend is as uncertain",
        (_, false) => "",
    };
    Some(format!("In {} of {} the hospital’s records cannot tell of everybody{place}.", doubtful.len(), counted(points.len(), "period")))
}

/// `Oct 2026: the denominator is 2, at least 3 is expected`, of the newest periods first.
fn remarks(points: &[Point]) -> Vec<String> {
    let found = points.iter().rev().filter(|point| !point.remarks.is_empty());
    let mut said: Vec<String> = found.map(|point| format!("{}: {}", period_name(point), point.remarks.join("; "))).collect();
    let more = said.len().saturating_sub(REMARKS_SHOWN);
    said.truncate(REMARKS_SHOWN);
    said.extend((more > 0).then(|| format!("{} more in the table", counted(more, "period"))));
    said
}

struct Place {
    count: usize,
    scale: Scale,
}

impl Place {
    fn step(&self) -> f64 {
        (WIDTH - LEFT - RIGHT) / self.count.max(1) as f64
    }
    fn x(&self, index: usize) -> f64 {
        round(LEFT + self.step() * (index as f64 + 0.5))
    }
    /// Where a stretch begins and ends.
    fn across(&self, stretch: std::ops::Range<usize>) -> (f64, f64) {
        (round(LEFT + self.step() * stretch.start as f64), round(LEFT + self.step() * stretch.end as f64))
    }
    fn y(&self, value: f64) -> f64 {
        round(HEIGHT - BOTTOM - ((value - self.scale.bottom) / (self.scale.top - self.scale.bottom)).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM))
    }
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// A part of an address.
pub fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%2D", "-")
}

/// `Mar 2026`, `Q1 2026` or `2026` for a period of the calendar, else both days.
pub fn period_name(point: &Point) -> String {
    name_of(&point.period_start, &point.period_end)
}

/// See [`period_name`].
pub fn name_of(start: &str, end: &str) -> String {
    calendar_name(start, end).unwrap_or_else(|| format!("{} – {}", start.get(..10).unwrap_or(start), end.get(..10).unwrap_or(end)))
}

fn calendar_name(start: &str, end: &str) -> Option<String> {
    let first = day(start)?;
    Some(match Span::of(first, day(end)?)? {
        Span::Month => month_name(first),
        Span::Quarter => format!("Q{} {}", (first.month() + 2) / 3, first.year()),
        Span::Year => first.year().to_string(),
    })
}

fn month_name(first: Date) -> String {
    first.strftime("%b %Y").to_string()
}

/// What the values of a column are.
pub fn column(unit: &Unit) -> &'static str {
    match unit {
        Unit::Percent => "Percent",
        Unit::Rate { of, .. } if of.is_empty() => "Ratio",
        Unit::Rate { .. } => "Rate",
        Unit::Number => "Value",
        Unit::Count => "Count",
    }
}

/// What a score is made of: of a fraction both sides, of any other one whom it is of; a count is made of nothing else.
pub fn sides(unit: &Unit) -> Vec<&'static str> {
    match unit {
        Unit::Percent | Unit::Rate { .. } => vec!["Numerator", "Denominator"],
        Unit::Number => vec!["Members", "Observed"],
        Unit::Count => Vec::new(),
    }
}

/// The numbers below these.
pub fn sides_of(point: &Point) -> [String; 2] {
    match point.observed {
        Some(Observed { members, counted }) => [Some(members), counted].map(|count| count_text(count.map(Into::into))),
        None => [point.numerator, point.denominator].map(count_text),
    }
}

/// `12 of 14 observed`, or `14 observed`.
pub fn observed_text(observed: &Observed) -> String {
    let Observed { members, counted: found } = observed;
    let of = count_text(Some((*members).into()));
    match found {
        None => counted(*members, "member"),
        Some(all) if all == members => format!("{of} observed"),
        Some(some) => format!("{} of {of} observed", count_text(Some((*some).into()))),
    }
}

/// A value with its unit.
pub fn value_text(card: &MeasureCard, value: f64) -> String {
    match card.unit {
        Unit::Percent => format!("{value:.1}\u{202f}%"),
        Unit::Count => count_text(rust_decimal::Decimal::try_from(value).ok()),
        Unit::Rate { ref of, .. } if of.is_empty() => format!("{value:.3}"),
        Unit::Rate { .. } | Unit::Number => format!("{value:.2}"),
    }
}

/// The score of a point or a sum, or why there is none.
pub fn score_text(card: &MeasureCard, point: &Point) -> String {
    let none = if point.is_unknown() { "not known" } else { "–" };
    point.value(&card.unit).map_or_else(|| none.to_owned(), |value| value_text(card, value))
}

fn news(card: &MeasureCard, side: Side) -> &'static str {
    match card.higher_is_better {
        Some(higher) if higher == (side == Side::Up) => "good",
        Some(_) => "bad",
        None => "neutral",
    }
}

fn shift(card: &MeasureCard, signal: &Signal, place: &Place) -> Option<Band> {
    let Rule::Shift { side, .. } = signal.rule else { return None };
    Some(band(card, "shift", side, &signal.points, place))
}

fn trend(card: &MeasureCard, signal: &Signal, place: &Place) -> Option<Band> {
    let Rule::Trend { side, .. } = signal.rule else { return None };
    Some(band(card, "trend", side, &signal.points, place))
}

fn band(card: &MeasureCard, name: &str, side: Side, points: &std::ops::Range<usize>, place: &Place) -> Band {
    let arrow = if side == Side::Up { "↑" } else { "↓" };
    let x = round(LEFT + place.step() * points.start as f64);
    let width = round(place.step() * points.len() as f64);
    Band { x, width, label_x: round(x + width / 2.0), news: news(card, side), label: format!("{name} {arrow}") }
}

fn ticks(card: &MeasureCard, place: &Place) -> Vec<(f64, String)> {
    let Scale { bottom, top, step } = place.scale;
    let count = ((top - bottom) / step + 1e-9).floor().min(20.0) as usize;
    let digits = if step >= 1.0 && step.fract() == 0.0 {
        0
    } else if step * 10.0 % 1.0 == 0.0 {
        1
    } else {
        2
    };
    let unit = if card.unit == Unit::Percent { "\u{202f}%" } else { "" };
    let value = |index: usize| bottom + step * index as f64;
    (0..=count).map(|index| (place.y(value(index)), format!("{:.digits$}{unit}", value(index)))).collect()
}

/// About four labels; the year is written with every one.
fn months(slots: &[Slot<'_>], place: &Place) -> Vec<(f64, String)> {
    let every = place.count.div_ceil(4).max(1);
    let last = place.count.saturating_sub(1);
    let name = |point: &Point| {
        let of_start = || day(&point.period_start).map_or_else(|| point.period_start.clone(), month_name);
        calendar_name(&point.period_start, &point.period_end).unwrap_or_else(of_start)
    };
    let labelled = slots.iter().filter(|slot| last.saturating_sub(slot.place).is_multiple_of(every));
    labelled.map(|slot| (place.x(slot.place), name(slot.point))).collect()
}

/// One for each unbroken stretch.
fn lines(slots: &[Slot<'_>], place: &Place) -> Vec<String> {
    let stretches = slots.chunk_by(|a, b| a.place + 1 == b.place && a.value.is_some() && b.value.is_some());
    let at = |slot: &Slot<'_>| slot.value.map(|value| format!("{},{} ", place.x(slot.place), place.y(value)));
    let line = |stretch: &[Slot<'_>]| stretch.iter().filter_map(at).collect::<String>();
    stretches.map(line).filter(|line| !line.is_empty()).collect()
}

/// A number with thousands set apart, or a dash.
pub fn count_text(number: Option<rust_decimal::Decimal>) -> String {
    let Some(number) = number else { return "–".to_owned() };
    let text = number.normalize().to_string();
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

/// `34 of 47`, `2 in 310 line days`, `21 by 59.2` or `12 of 14 observed`; none for a score of nobody in particular, and for a count itself.
pub fn counts(card: &MeasureCard, point: &Point) -> Option<String> {
    if let Some(observed) = &point.observed {
        return Some(observed_text(observed));
    }
    let (above, below) = (count_text(Some(point.numerator?)), count_text(Some(point.denominator?)));
    Some(match &card.unit {
        Unit::Percent | Unit::Number | Unit::Count => format!("{above} of {below}"),
        Unit::Rate { of, .. } if of.is_empty() => format!("{above} by {below}"),
        Unit::Rate { of, .. } => format!("{above} in {below} {of}"),
    })
}

fn dots(card: &MeasureCard, slots: &[Slot<'_>], place: &Place) -> Vec<Dot> {
    let dot = |slot: &Slot<'_>| {
        let (value, point) = (slot.value?, slot.point);
        let partial = if point.complete { "" } else { ", partial data" };
        let counts = counts(card, point).map_or_else(String::new, |counts| format!("{counts}, "));
        let doubt = doubt_text(card, point).map_or_else(String::new, |doubt| format!(", {doubt}"));
        let title = format!("{}: {counts}{}{doubt}{partial}, revision {}", slot.name, value_text(card, value), point.revision);
        let remark = point.remarks.iter().map(|remark| format!(". Look at this: {remark}")).collect::<String>();
        Some(Dot { x: place.x(slot.place), y: place.y(value), partial: !point.complete, marked: !remark.is_empty(), title: title + &remark })
    };
    slots.iter().filter_map(dot).collect()
}

/// Whether scores have an interval. A sum of amounts varies by what each of them is, about which the report says nothing; so does a mean.
pub fn has_interval(card: &MeasureCard) -> bool {
    matches!(card.unit, Unit::Percent | Unit::Rate { .. }) && !card.sums.contains("")
}

fn interval(card: &MeasureCard, point: &Point) -> Option<(f64, f64)> {
    if point.is_unknown() || !has_interval(card) {
        return None;
    }
    let (above, below) = (point.numerator?.to_u64()?, point.denominator?);
    let (interval, factor) = match card.unit {
        Unit::Percent => (wilson(above, below.to_u64()?, CONFIDENCE)?, 100.0),
        Unit::Number | Unit::Count => return None,
        Unit::Rate { per, .. } => (poisson_rate(above, below.to_f64()?, f64::from(per), CONFIDENCE)?, 1.0),
    };
    Some((interval.low * factor, interval.high * factor))
}

/// `62.8 – 84.2 %`.
pub fn interval_text(card: &MeasureCard, point: &Point) -> String {
    interval(card, point).map_or_else(|| "–".to_owned(), |interval| range_text(card, interval))
}

fn rows(card: &MeasureCard, site: &str, slots: &[Slot<'_>]) -> Vec<Row> {
    let row = |Slot { point, name, .. }: &Slot<'_>| Row {
        period: name.clone(),
        sides: sides_of(point),
        value: score_text(card, point),
        interval: interval_text(card, point),
        doubt: Told::of(card, point),
        remark: point.remarks.join("; "),
        data: if point.complete { "complete" } else { "partial" },
        other: if point.other.is_empty() { String::new() } else { format!("other {}", point.other.join(", ")) },
        revision: point.revision,
        history: format!("/measures/{}/sites/{}/{}", encode(&card.id), encode(site), encode(&point.period_start)),
    };
    slots.iter().map(row).collect()
}
