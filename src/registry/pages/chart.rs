//! A run chart as SVG geometry: numbers in, coordinates and words out. The templates draw it.

use jiff::civil::Date;

use crate::diagnostic::counted;
use crate::registry::report::Doubt;
use crate::registry::report::day;
use crate::registry::series::Point;
use crate::registry::{MeasureCard, Span, Unit};
use crate::statistics::rate::{poisson_rate, wilson};
use crate::statistics::run_chart::{RunChart, Side, Signal, run_chart};
use rust_decimal::prelude::ToPrimitive;

/// Size of the drawing, in its own units; the page scales it.
pub const WIDTH: f64 = 460.0;
/// See [`WIDTH`].
pub const HEIGHT: f64 = 290.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 62.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 34.0;
/// Confidence of the intervals shown.
const CONFIDENCE: f64 = 0.95;
/// Lines of the value axis, about.
const TICKS: f64 = 4.0;

/// Everything the template needs to draw one site's chart and its table.
pub struct Chart {
    /// Part of element identifiers: `north`.
    pub id: String,
    /// What the values are, over their column.
    pub column: &'static str,
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
    /// The centre line: y, label.
    pub median: Option<(f64, String)>,
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
    /// Rows of the table, newest first.
    pub rows: Vec<Row>,
    /// Words of the last point.
    pub latest: String,
    /// Where values could lie for all that cannot be told: x, top, bottom, words.
    pub ranges: Vec<(f64, f64, f64, String)>,
    /// In how many periods something cannot be told, in a sentence.
    pub doubt: Option<String>,
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
fn range_text(card: &MeasureCard, (low, high): (f64, f64)) -> String {
    match card.unit {
        Unit::Percent => format!("{low:.1} – {high:.1}\u{202f}%"),
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

/// One point of the chart.
pub struct Dot {
    /// Across.
    pub x: f64,
    /// Down.
    pub y: f64,
    /// Drawn hollow.
    pub partial: bool,
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
    /// Numerator.
    pub numerator: String,
    /// Denominator.
    pub denominator: String,
    /// Value.
    pub value: String,
    /// Its interval.
    pub interval: String,
    /// What cannot be told.
    pub doubt: Told,
    /// `complete` or `partial`.
    pub data: &'static str,
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

/// The axis for all of these.
pub fn scale<'a>(series: impl Iterator<Item = &'a Vec<Point>>, unit: &Unit) -> Scale {
    let shown = |point: &Point| point.value(unit).into_iter().chain(point.bounds(unit).into_iter().flat_map(|(low, high)| [low, high]));
    let values: Vec<f64> = series.flatten().flat_map(shown).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().fold(most, f64::min);
    let most = if most > 0.0 { most } else { 1.0 };
    let from = if least > most / 2.0 { (least - (most - least) / 2.0).max(0.0) } else { 0.0 };
    let raw = ((most - from) / TICKS).max(most / 1000.0);
    let magnitude = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|nice| nice * magnitude)
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(10.0 * magnitude);
    let (bottom, top) = ((from / step).floor() * step, (most / step).ceil() * step);
    Scale { bottom, top: if *unit == Unit::Percent && most <= 100.0 { top.min(100.0) } else { top }, step }
}

/// Lays out one site's chart.
pub fn chart(card: &MeasureCard, site: &str, heading: String, points: &[Point], scale: Scale) -> Chart {
    let values: Vec<Option<f64>> = points.iter().map(|point| point.value(&card.unit)).collect();
    let run = run_chart(&values);
    let place = Place { count: points.len(), scale };
    let names: Vec<String> = points.iter().map(period_name).collect();
    let signals = run.signals.iter().filter_map(|signal| said(card, signal, &names)).chain(said_of_series(&run.signals)).collect();
    Chart {
        id: site.to_owned(),
        column: column(&card.unit),
        heading,
        link: format!("/measures/{}/sites/{}", encode(&card.id), encode(site)),
        summary: summary(card, &names, &values, &run),
        ticks: ticks(card, &place),
        months: months(points, &place),
        median: run.median.map(|median| (place.y(median), value_text(card, median))),
        lines: lines(&values, &place),
        dots: dots(card, points, &names, &values, &place),
        bands: run.signals.iter().filter_map(|signal| shift(card, signal, &place)).collect(),
        bars: run.signals.iter().filter_map(|signal| trend(card, signal, &place)).collect(),
        signals,
        rows: rows(card, site, points, &names).into_iter().rev().collect(),
        latest: latest(card, points, &names),
        ranges: ranges(card, points, &names, &place),
        doubt: doubtful_periods(points),
    }
}

fn ranges(card: &MeasureCard, points: &[Point], names: &[String], place: &Place) -> Vec<(f64, f64, f64, String)> {
    let range = |(index, (point, name)): (usize, (&Point, &String))| {
        let (low, high) = point.bounds(&card.unit)?;
        Some((place.x(index), place.y(high), place.y(low), format!("{name}: {}", doubt_text(card, point)?)))
    };
    points.iter().zip(names).enumerate().filter_map(range).collect()
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
        Unit::Rate { .. } => "Rate",
        Unit::Number => "Value",
    }
}

/// A value with its unit.
pub fn value_text(card: &MeasureCard, value: f64) -> String {
    match card.unit {
        Unit::Percent => format!("{value:.1}\u{202f}%"),
        Unit::Rate { .. } | Unit::Number => format!("{value:.2}"),
    }
}

fn news(card: &MeasureCard, side: Side) -> &'static str {
    match card.higher_is_better {
        Some(higher) if higher == (side == Side::Up) => "good",
        Some(_) => "bad",
        None => "neutral",
    }
}

fn said(card: &MeasureCard, signal: &Signal, names: &[String]) -> Option<Said> {
    let name = |index: usize| names.get(index).cloned().unwrap_or_default();
    let span = |points: &std::ops::Range<usize>| format!("{} to {}", name(points.start), name(points.end.saturating_sub(1)));
    let news_of = |side: &Side| news(card, *side);
    let (news, text) = match signal {
        Signal::Shift { side, points, count } => {
            let verdict = match news_of(side) {
                "good" => ", the better side",
                "bad" => ", the worse side",
                _ => "",
            };
            let place = if *side == Side::Up { "above" } else { "below" };
            (news_of(side), format!("Shift: {count} months in a row {place} the median{verdict}, {}.", span(points)))
        }
        Signal::Trend { side, points, count } => {
            let verdict = match news_of(side) {
                "good" => " for the better",
                "bad" => " for the worse",
                _ => "",
            };
            let way = if *side == Side::Up { "rising" } else { "falling" };
            (news_of(side), format!("Trend: {count} values in a row {way}{verdict}, {}.", span(points)))
        }
        _ => return None,
    };
    Some(Said { news, text })
}

/// The rules over the whole series in one sentence, each with its name.
fn said_of_series(signals: &[Signal]) -> Option<Said> {
    let words: Vec<String> = signals
        .iter()
        .filter_map(|signal| match signal {
            Signal::TooFewRuns { runs, expected_min } => Some(format!("{} about the median where chance gives {expected_min} or more (exact rule)", counted(*runs, "run"))),
            Signal::TooManyRuns { runs, expected_max } => Some(format!("{runs} runs about the median where chance gives {expected_max} or fewer (exact rule)")),
            Signal::LongestRun { length, expected_max } => Some(format!("a run of {length} where chance gives {expected_max} or fewer (Anhøj)")),
            Signal::FewCrossings { crossings, expected_min } => Some(format!("{} where chance gives {expected_min} or more (Anhøj)", counted(*crossings, "crossing"))),
            _ => None,
        })
        .collect();
    (!words.is_empty()).then(|| Said { news: "neutral", text: format!("Over all months: {}.", words.join("; ")) })
}

fn shift(card: &MeasureCard, signal: &Signal, place: &Place) -> Option<Band> {
    let Signal::Shift { side, points, .. } = signal else { return None };
    Some(band(card, "shift", *side, points, place))
}

fn trend(card: &MeasureCard, signal: &Signal, place: &Place) -> Option<Band> {
    let Signal::Trend { side, points, .. } = signal else { return None };
    Some(band(card, "trend", *side, points, place))
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
fn months(points: &[Point], place: &Place) -> Vec<(f64, String)> {
    let every = points.len().div_ceil(4).max(1);
    let last = points.len().saturating_sub(1);
    let name = |point: &Point| {
        let of_start = || day(&point.period_start).map_or_else(|| point.period_start.clone(), month_name);
        calendar_name(&point.period_start, &point.period_end).unwrap_or_else(of_start)
    };
    let label = |(index, point): (usize, &Point)| (last.saturating_sub(index) % every == 0).then(|| (place.x(index), name(point)));
    points.iter().enumerate().filter_map(label).collect()
}

fn lines(values: &[Option<f64>], place: &Place) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (index, value) in values.iter().enumerate() {
        match (value, lines.last_mut()) {
            (Some(value), Some(line)) => line.push_str(&format!("{},{} ", place.x(index), place.y(*value))),
            _ => lines.push(String::new()),
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
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

/// `34 of 47`, or `2 in 310 line days`; none for a score that is no fraction.
fn counts(card: &MeasureCard, point: &Point) -> Option<String> {
    let (above, below) = (count_text(Some(point.numerator?)), count_text(point.denominator));
    Some(match &card.unit {
        Unit::Percent | Unit::Number => format!("{above} of {below}"),
        Unit::Rate { of, .. } => format!("{above} in {below} {of}"),
    })
}

fn dots(card: &MeasureCard, points: &[Point], names: &[String], values: &[Option<f64>], place: &Place) -> Vec<Dot> {
    let dot = |(index, ((point, name), value)): (usize, ((&Point, &String), &Option<f64>))| {
        let value = (*value)?;
        let partial = if point.complete { "" } else { ", partial data" };
        let counts = counts(card, point).map_or_else(String::new, |counts| format!("{counts}, "));
        let doubt = doubt_text(card, point).map_or_else(String::new, |doubt| format!(", {doubt}"));
        let title = format!("{name}: {counts}{}{doubt}{partial}, revision {}", value_text(card, value), point.revision);
        Some(Dot { x: place.x(index), y: place.y(value), partial: !point.complete, title })
    };
    points.iter().zip(names).zip(values).enumerate().filter_map(dot).collect()
}

fn interval(card: &MeasureCard, point: &Point) -> Option<(f64, f64)> {
    let (above, below) = (point.numerator?.to_u64()?, point.denominator?);
    let (interval, factor) = match card.unit {
        Unit::Percent => (wilson(above, below.to_u64()?, CONFIDENCE)?, 100.0),
        Unit::Number => return None,
        Unit::Rate { per, .. } => (poisson_rate(above, below.to_f64()?, f64::from(per), CONFIDENCE)?, 1.0),
    };
    Some((interval.low * factor, interval.high * factor))
}

/// `62.8 – 84.2 %`.
pub fn interval_text(card: &MeasureCard, point: &Point) -> String {
    interval(card, point).map_or_else(|| "–".to_owned(), |interval| range_text(card, interval))
}

fn rows(card: &MeasureCard, site: &str, points: &[Point], names: &[String]) -> Vec<Row> {
    let row = |(point, name): (&Point, &String)| Row {
        period: name.clone(),
        numerator: count_text(point.numerator),
        denominator: count_text(point.denominator),
        value: point.value(&card.unit).map_or_else(|| "–".to_owned(), |value| value_text(card, value)),
        interval: interval_text(card, point),
        doubt: Told::of(card, point),
        data: if point.complete { "complete" } else { "partial" },
        revision: point.revision,
        history: format!("/measures/{}/sites/{}/{}", encode(&card.id), encode(site), encode(&point.period_start)),
    };
    points.iter().zip(names).map(row).collect()
}

fn latest(card: &MeasureCard, points: &[Point], names: &[String]) -> String {
    let found = points.iter().zip(names).rev().find_map(|(point, name)| point.value(&card.unit).map(|value| (point, name, value)));
    let Some((point, name, value)) = found else { return "no value yet".to_owned() };
    let counts = counts(card, point).map_or_else(String::new, |counts| format!(" ({counts})"));
    let doubt = doubt_text(card, point).map_or_else(String::new, |doubt| format!("; {doubt}"));
    format!("{} in {name}{counts}{doubt}", value_text(card, value))
}

fn summary(card: &MeasureCard, names: &[String], values: &[Option<f64>], run: &RunChart) -> String {
    let with_value = values.iter().filter(|value| value.is_some()).count();
    let (Some(median), Some(first), Some(last)) = (run.median, names.first(), names.last()) else {
        return "No reports with a denominator yet.".to_owned();
    };
    let signals = match run.signals.len() {
        0 => "no signal of special cause".to_owned(),
        1 => "one signal of special cause".to_owned(),
        count => format!("{count} signals of special cause"),
    };
    format!("Run chart of {}, {first} to {last}, median {}, {signals}.", counted(with_value, "value"), value_text(card, median))
}
