//! Laws: what the specification says of operators, over generated operands; and that what is said of a partial date holds
//! however the date is completed.

use std::sync::LazyLock;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use watershed::cql::date_time::days_in_month;
use watershed::cql::types::Type;

use super::form::{self, FORMS, Form, Part};

/// `section: expression that is true`, a line.
pub(super) static LAWS: LazyLock<Vec<(&'static str, Form)>> = LazyLock::new(|| {
    let law = |(_, text)| (text, Form { result: Type::Boolean, parts: form::parts(text) });
    form::rows(include_str!("laws.txt")).map(law).collect()
});

/// Forms that ask where dates or times lie, all gaps of one type.
///
/// Not among them: `~` and `ConvertsTo…`, for which a partial date is another value; `meets`, which takes the next month for
/// what follows a month; and what moves a date by a quantity, which is cut to what is known of the date.
pub(super) static RELATIONS: LazyLock<Vec<&Form>> = LazyLock::new(|| {
    let excepted = |c: char| c == '~' || c.is_ascii_digit();
    let is_relation = |form: &&Form| {
        let words: String = form.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None }).collect();
        let placed = gaps(form).iter().all(|ty| form::letter(ty.point().unwrap_or(ty)).is_some_and(|letter| "CDOPT".contains(letter)));
        let asks = form.result == Type::Boolean || form.result == Type::Integer && form.parts.iter().any(|part| matches!(part, Part::Precision(_)));
        asks && placed && !gaps(form).is_empty() && !words.contains(excepted) && !["quivalent", "eets", "ConvertsTo"].iter().any(|word| words.contains(word))
    };
    FORMS.iter().filter(is_relation).collect()
});

/// Whether a form counts whole periods.
fn counts_periods(form: &Form) -> bool {
    let says = |part: &Part, word: &str| matches!(part, Part::Text(text) if text.contains(word));
    form.parts.iter().any(|part| matches!(part, Part::Precision("s"))) && !form.parts.iter().any(|part| says(part, "difference"))
}

fn gaps(form: &Form) -> Vec<&Type> {
    form.parts.iter().filter_map(|part| if let Part::Gap(_, ty) = part { Some(ty) } else { None }).collect()
}

/// A date or time: its parts from the coarsest, as many as are known, and what stands behind them.
#[derive(Clone)]
struct Point {
    parts: Vec<u32>,
    offset: &'static str,
}

/// A point, or the bounds of a closed interval.
type Operand = Vec<Point>;

/// A question about a partial date or time, and the same with the date completed in several ways.
pub(super) struct Question {
    pub(super) partial: String,
    pub(super) complete: Vec<String>,
}

/// The parts of each type: the least, and the greatest but for days.
const PARTS: [(u32, u32); 7] = [(2011, 2013), (1, 12), (1, 28), (0, 23), (0, 59), (0, 59), (0, 999)];

/// Where the parts of a time of day begin.
const CLOCK: usize = 3;

/// So many ways to complete a date are tried.
const COMPLETIONS: usize = 4;

/// A question of this form.
pub(super) fn question(random: &mut ChaCha8Rng, form: &Form) -> Question {
    let letters: String = gaps(form).iter().flat_map(|ty| form::variables(ty)).collect();
    let types: &[Type] = if letters.contains('D') { &[Type::Date, Type::DateTime] } else { &[Type::Date, Type::DateTime, Type::Time] };
    let ty = types.choose(random).expect("a type");
    let parts = match ty {
        Type::Date => 0..3,
        Type::DateTime => 0..7,
        _ => 3..7,
    };
    let words = ["year", "month", "day", "hour", "minute", "second", "millisecond"];
    let whole: Vec<Operand> = gaps(form).iter().map(|gap| operand(random, &parts, gap.point().is_some())).collect();
    let at = random.random_range(0..whole.len());
    let bound = random.random_range(0..whole[at].len());
    // Seconds and milliseconds are one number in comparisons, so a point is cut before them.
    let known = random.random_range(1..parts.len().min(if parts.end == 7 { parts.len() - 1 } else { parts.len() }));
    let unknown = parts.start + known;
    // A time of day that is known to the unit is taken at its word: `hours between @T06 and @T07:00:00` is 1.
    let units = if counts_periods(form) && unknown > CLOCK { unknown..parts.end } else { parts.clone() };
    let precision = words[random.random_range(units)];
    let with = |completed: Option<Point>| {
        let mut operands = whole.clone();
        let point = &mut operands[at][bound];
        point.parts.truncate(known);
        if let Some(completed) = completed {
            *point = completed;
        }
        if unknown <= CLOCK {
            // No offset can be written where there is no time of day: it is that of the evaluation, also of the other bound.
            operands[at].iter_mut().for_each(|point| point.offset = "");
        }
        operands
    };
    let partial = with(None);
    let completions = (0..COMPLETIONS).map(|_| with(Some(completed(random, &partial[at][bound], &parts))));
    let completions: Vec<Vec<Operand>> = completions
        .filter(|operands| operands.iter().all(|operand| operand.len() == 1 || operand[0].parts <= operand[1].parts))
        .collect();
    Question {
        partial: written(form, ty, precision, &partial),
        complete: completions.iter().map(|operands| written(form, ty, precision, operands)).collect(),
    }
}

fn operand(random: &mut ChaCha8Rng, parts: &std::ops::Range<usize>, is_interval: bool) -> Operand {
    let offset = *["", "", "Z", "+14:00", "-05:00"].choose(random).expect("one");
    let offset = if parts.len() == 7 { offset } else { "" };
    let mut points: Operand = (0..=usize::from(is_interval)).map(|_| completed(random, &Point { parts: Vec::new(), offset }, parts)).collect();
    points.sort_by(|left, right| left.parts.cmp(&right.parts));
    points
}

/// The point with every part known: the least, the greatest or any.
fn completed(random: &mut ChaCha8Rng, point: &Point, parts: &std::ops::Range<usize>) -> Point {
    let mut point = point.clone();
    for at in parts.clone().skip(point.parts.len()) {
        let (least, mut greatest) = PARTS[at];
        if at == 2 {
            greatest = days_in_month(point.parts[0].cast_signed(), point.parts[1].cast_signed()).cast_unsigned();
        }
        point.parts.push(match random.random_range(0..4) {
            0 => least,
            1 => greatest,
            _ => random.random_range(least..=greatest),
        });
    }
    point
}

/// The form with these operands.
fn written(form: &Form, ty: &Type, precision: &str, operands: &[Operand]) -> String {
    let mut operands = operands.iter();
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Precision(plural) => format!("{precision}{plural}"),
        Part::Name(_) => ty.to_string(),
        Part::Gap(..) => match operands.next().map(Vec::as_slice) {
            Some([low, high]) => format!("Interval[{}, {}]", point_text(low, ty), point_text(high, ty)),
            Some([point]) => point_text(point, ty),
            _ => String::new(),
        },
    };
    form.parts.iter().map(part).collect()
}

fn point_text(point: &Point, ty: &Type) -> String {
    let clock = |parts: &[u32]| -> String {
        let separators = ["", ":", ":", "."];
        parts
            .iter()
            .zip(separators)
            .map(|(part, before)| if before == "." { format!(".{part:03}") } else { format!("{before}{part:02}") })
            .collect()
    };
    if *ty == Type::Time {
        return format!("@T{}", clock(&point.parts));
    }
    let days: Vec<String> = point.parts.iter().take(3).map(|part| format!("{part:02}")).collect();
    let rest = point.parts.get(3..).unwrap_or_default();
    let offset = if rest.is_empty() { "" } else { point.offset };
    match ty {
        Type::Date => format!("@{}", days.join("-")),
        _ => format!("@{}T{}{offset}", days.join("-"), clock(rest)),
    }
}
