//! UCUM units: validity, conversion, comparability; and CQL's calendar words.
//!
//! `second` to `week` are the same as UCUM's `s` to `wk`. `year` and `month` are periods of a calendar,
//! `a` and `mo` fixed lengths: equality between them is unknown, equivalence holds (a year is then
//! 12 months or 365 days, a month 30 days). Units that cannot be compared give `None`, never an answer.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use octofhir_ucum::{Number, UnitAnalysis};
use rust_decimal::{Decimal, RoundingStrategy};

/// The longest unit that is looked at; anything longer is no unit.
const UNIT_BYTES_MAX: usize = 256;
/// The longest text that is shown as a unit.
const SHOWN_MAX: usize = 24;
/// CQL's decimals have at most eight digits after the point.
const SCALE_MAX: u32 = 8;
/// Digits of a converted value that can be trusted, of the 28 that are computed.
const SIGNIFICANT_DIGITS: u32 = 24;
/// Units of amounts of substance, and of their rate.
const AMOUNTS: [&str; 5] = ["mol", "eq", "osm", "kat", "U"];
/// The largest power that a product of units is written with.
const EXPONENT_MAX: i32 = 99;

/// Units of measure: UCUM and the calendar words of CQL.
#[derive(Clone, Copy, Debug, Default)]
pub struct Units {}

/// The UCUM code for a CQL calendar word of fixed length; anything else is returned as it is.
/// `years` and `months` become `year` and `month`.
fn canonical(unit: &str) -> &str {
    match unit {
        "" => "1",
        "years" => "year",
        "months" => "month",
        "week" | "weeks" => "wk",
        "day" | "days" => "d",
        "hour" | "hours" => "h",
        "minute" | "minutes" => "min",
        "second" | "seconds" => "s",
        "millisecond" | "milliseconds" => "ms",
        other => other,
    }
}

/// What is shown in the place of a unit that may hold anything.
pub const NO_UNIT: &str = "a text that is no unit";

/// A unit as it is shown where no patient's value may stand: what is no unit may hold anything.
pub fn shown_unit(unit: &str) -> String {
    let is_value = unit.starts_with(|first: char| first.is_ascii_digit()) && !Units::new().is_valid(unit);
    let is_shown = unit.chars().count() <= SHOWN_MAX && !unit.contains(char::is_whitespace) && !is_value;
    if is_shown { unit.to_owned() } else { NO_UNIT.to_owned() }
}

/// How many units of amount stand above and below the line of a unit; an equivalent and an osmole are moles of something.
fn amounts(unit: &str) -> [usize; 2] {
    let mut found = [0, 0];
    // What stands in braces is a remark.
    let mut rest = String::new();
    let mut depth = 0_usize;
    for letter in unit.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ if depth == 0 => rest.push(letter),
            _ => {}
        }
    }
    let terms = rest
        .split('/')
        .enumerate()
        .flat_map(|(place, part)| part.split('.').enumerate().map(move |(inner, term)| (place > 0 && inner == 0, term)));
    for (is_below, term) in terms {
        let atom = term.trim_matches(|sign: char| sign.is_ascii_digit() || matches!(sign, '(' | ')' | '-' | '+'));
        if AMOUNTS.iter().any(|amount| atom.ends_with(amount)) {
            found[usize::from(is_below)] += 1;
        }
    }
    found
}

fn is_calendar(unit: &str) -> bool {
    matches!(unit, "year" | "month")
}

fn analyse(unit: &str) -> Option<UnitAnalysis> {
    if unit.len() > UNIT_BYTES_MAX {
        return None;
    }
    octofhir_ucum::analyse(unit).ok()
}

fn commensurable(left: &UnitAnalysis, right: &UnitAnalysis) -> bool {
    left.dimension == right.dimension && left.arbitrary == right.arbitrary
}

/// Whether a value in the unit is a straight line of the base unit (all but logarithms and slopes).
fn is_linear(unit: &UnitAnalysis) -> bool {
    unit.special.is_none() || !unit.offset.is_zero()
}

fn number(value: Decimal) -> Option<Number> {
    Number::parse(&value.to_string())
}

fn decimal(number: Number) -> Option<Decimal> {
    let (digits, exponent) = number.to_integer_and_exponent();
    if exponent >= 0 {
        let scale = 10_i128.checked_pow(u32::try_from(exponent).ok()?)?;
        return Decimal::try_from_i128_with_scale(digits.checked_mul(scale)?, 0).ok();
    }
    let places = exponent.unsigned_abs();
    if places <= 28 {
        return Decimal::try_from_i128_with_scale(digits, places).ok();
    }
    // Rounded, half away from zero, at the last place a decimal has.
    let cut = 10_i128.checked_pow(places - 28);
    let rounded = |cut: i128| (digits + digits.signum() * (cut / 2)) / cut;
    Decimal::try_from_i128_with_scale(cut.map_or(0, rounded), 28).ok()
}

/// Where a quantity stands among all: by what it measures, then by how much.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    /// In months.
    Calendar(Decimal),
    /// Dimension, arbitrary atoms, the value in base units.
    Linear([i8; 7], Vec<(&'static str, i32)>, Number),
    /// What only compares with its like: its unit.
    Other(String, Decimal),
}

impl SortKey {
    fn of(value: Decimal, unit: &str) -> SortKey {
        if is_calendar(unit) {
            let months = Decimal::from(if unit == "year" { 12 } else { 1 });
            return SortKey::Calendar(value.checked_mul(months).unwrap_or(value));
        }
        let linear = analyse(unit).filter(is_linear).and_then(|own| Some((base_value(value, &own)?, own)));
        linear.map_or_else(|| SortKey::Other(unit.to_owned(), value), |(base, own)| SortKey::Linear(own.dimension.0, own.arbitrary, base))
    }
}

/// The value in base units of a linear unit.
fn base_value(value: Decimal, unit: &UnitAnalysis) -> Option<Number> {
    number(value)?.checked_mul(unit.factor)?.checked_mul(unit.scale)?.checked_add(unit.offset)
}

impl Units {
    /// The units of UCUM's tables.
    pub fn new() -> Units {
        Units {}
    }

    /// Whether it is a CQL calendar word or a valid UCUM unit.
    pub fn is_valid(&self, unit: &str) -> bool {
        let unit = canonical(unit);
        is_calendar(unit) || self.is_ucum(unit)
    }

    /// Whether it is a valid UCUM unit.
    pub fn is_ucum(&self, unit: &str) -> bool {
        unit.len() <= UNIT_BYTES_MAX && octofhir_ucum::validate(unit).is_ok()
    }

    /// Whether values in the two units can be compared for order and equality.
    pub fn comparable(&self, left: &str, right: &str) -> bool {
        let (left, right) = (canonical(left), canonical(right));
        if left == right {
            return true;
        }
        if is_calendar(left) || is_calendar(right) {
            return is_calendar(left) && is_calendar(right);
        }
        let pair = analyse(left).zip(analyse(right));
        pair.is_some_and(|(left, right)| commensurable(&left, &right))
    }

    /// Whether units that can be compared measure the same: UCUM counts a mole as a number, so that `mmol/mol` is a per mille, and what is
    /// told in amounts of substance may be of another scale than what is told in none.
    pub fn of_one_scale(&self, left: &str, right: &str) -> bool {
        amounts(left) == amounts(right)
    }

    /// The value in another unit, exact where the units are; `None` when there is no conversion.
    ///
    /// ```
    /// use rust_decimal::Decimal;
    /// use watershed::terminology::units::Units;
    ///
    /// let units = Units::new();
    /// assert_eq!(units.convert(Decimal::from(273), "d", "wk"), Some(Decimal::from(39)));
    /// assert_eq!(units.convert(Decimal::from(1), "mg", "mm"), None);
    /// ```
    pub fn convert(&self, value: Decimal, from: &str, to: &str) -> Option<Decimal> {
        let (from, to) = (canonical(from), canonical(to));
        if from == to {
            return Some(value);
        }
        match (from, to) {
            ("year", "month") => return value.checked_mul(Decimal::from(12)),
            ("month", "year") => return value.checked_div(Decimal::from(12)),
            _ if is_calendar(from) || is_calendar(to) => return None,
            _ => {}
        }
        let (source, target) = (analyse(from)?, analyse(to)?);
        if !commensurable(&source, &target) {
            return None;
        }
        if is_linear(&source) && is_linear(&target) {
            let base = base_value(value, &source)?.checked_sub(target.offset)?;
            let converted = decimal(base.checked_div(target.factor.checked_mul(target.scale)?)?)?;
            // Factors such as 5/9 are rounded at their last digits; what they make is not.
            return converted.round_sf(SIGNIFICANT_DIGITS);
        }
        // A unit on a logarithm or a tangent: floats, to CQL's scale.
        let approximate: f64 = value.to_string().parse().ok()?;
        let converted = octofhir_ucum::convert(approximate, from, to).ok()?;
        let converted = Decimal::try_from(converted).ok()?;
        Some(converted.round_dp_with_strategy(SCALE_MAX, RoundingStrategy::MidpointAwayFromZero).normalize())
    }

    /// The order of two quantities; `None` when their units cannot be compared.
    pub fn compare(&self, left: (Decimal, &str), right: (Decimal, &str)) -> Option<Ordering> {
        let (left_unit, right_unit) = (canonical(left.1), canonical(right.1));
        if left_unit == right_unit {
            return Some(left.0.cmp(&right.0));
        }
        if is_calendar(left_unit) && is_calendar(right_unit) {
            let months = |(value, _): (Decimal, &str), unit: &str| value.checked_mul(Decimal::from(if unit == "year" { 12 } else { 1 }));
            return Some(months(left, left_unit)?.cmp(&months(right, right_unit)?));
        }
        if is_calendar(left_unit) || is_calendar(right_unit) {
            return None;
        }
        let (own, other) = (analyse(left_unit)?, analyse(right_unit)?);
        if !commensurable(&own, &other) {
            return None;
        }
        if !is_linear(&own) || !is_linear(&other) {
            return Some(left.0.cmp(&self.convert(right.0, right_unit, left_unit)?));
        }
        let base = base_value(left.0, &own)?;
        let gap = base.checked_sub(base_value(right.0, &other)?)?;
        let noise = base.abs().checked_mul(Number::power_of_ten(-(SIGNIFICANT_DIGITS as i32)))?;
        let is_noise = gap.abs().checked_sub(noise)?.is_negative();
        Some(match (gap.is_zero() || is_noise, gap.is_negative()) {
            (true, _) => Ordering::Equal,
            (_, true) => Ordering::Less,
            _ => Ordering::Greater,
        })
    }

    /// An order of all quantities, for sorting: those that compare by their values, of others those of one dimension together.
    pub fn sort_order(&self, left: (Decimal, &str), right: (Decimal, &str)) -> Ordering {
        let (left_unit, right_unit) = (canonical(left.1), canonical(right.1));
        if left_unit == right_unit {
            return left.0.cmp(&right.0);
        }
        SortKey::of(left.0, left_unit).cmp(&SortKey::of(right.0, right_unit))
    }

    /// The value of `right` in the unit of `left` as equivalence sees it: calendar years and months
    /// meet fixed lengths here. `None` when they are not equivalent in kind.
    pub fn convert_loosely(&self, value: Decimal, from: &str, to: &str) -> Option<Decimal> {
        let (from, to) = (canonical(from), canonical(to));
        let by = |factor: i64| value.checked_mul(Decimal::from(factor));
        match (from, to) {
            ("year", "a") | ("a", "year") | ("month", "mo") | ("mo", "month") => Some(value),
            ("year", "mo") | ("a", "month") => by(12),
            ("month", "a") | ("mo", "year") => value.checked_div(Decimal::from(12)),
            ("year" | "month", "year" | "month") => self.convert(value, from, to),
            ("year", _) => self.convert(by(365)?, "d", to),
            ("month", _) => self.convert(by(30)?, "d", to),
            (_, "year") => self.convert(value, from, "d")?.checked_div(Decimal::from(365)),
            (_, "month") => self.convert(value, from, "d")?.checked_div(Decimal::from(30)),
            _ => self.convert(value, from, to),
        }
    }

    /// The unit of a product, `cm2` for `cm` times `cm`; `None` when units cannot be multiplied.
    pub fn product(&self, left: &str, right: &str) -> Option<String> {
        self.combine(left, right, 1)
    }

    /// The unit of a quotient, `1` for equal units; `None` when units cannot be divided.
    pub fn quotient(&self, left: &str, right: &str) -> Option<String> {
        self.combine(left, right, -1)
    }

    fn combine(&self, left: &str, right: &str, sign: i32) -> Option<String> {
        let (left, right) = (canonical(left), canonical(right));
        if right == "1" {
            return Some(left.to_owned());
        }
        let mut powers: BTreeMap<String, i32> = BTreeMap::new();
        let simple = add_powers(&mut powers, left, 1).and_then(|()| add_powers(&mut powers, right, sign));
        let text = match simple {
            Some(()) => write_powers(&powers),
            None if sign > 0 => octofhir_ucum::unit_multiply(left, right).ok()?.expression,
            None => octofhir_ucum::unit_divide(left, right).ok()?.expression,
        };
        (text == "1" || is_calendar(&text) || octofhir_ucum::validate(&text).is_ok()).then_some(text)
    }
}

/// Adds the powers of a unit without parentheses, annotations or numbers; `None` for any other.
fn add_powers(powers: &mut BTreeMap<String, i32>, unit: &str, sign: i32) -> Option<()> {
    if unit == "1" {
        return Some(());
    }
    if unit.len() > UNIT_BYTES_MAX || unit.contains(['(', ')', '{', '*', '^']) {
        return None;
    }
    for (start, part) in split_terms(unit) {
        let direction = if start == '/' { -sign } else { sign };
        let bracketed = part.ends_with(']');
        let symbol = if bracketed { part } else { part.trim_end_matches(|c: char| c.is_ascii_digit()) };
        let tail = part.get(symbol.len()..)?;
        let (symbol, negative) = match symbol.strip_suffix(['-', '+']) {
            Some(shorter) if !bracketed => (shorter, symbol.ends_with('-')),
            _ => (symbol, false),
        };
        let exponent: i32 = if tail.is_empty() { 1 } else { tail.parse().ok()? };
        if symbol.is_empty() || exponent > EXPONENT_MAX {
            return None;
        }
        let signed = if negative { -exponent } else { exponent };
        *powers.entry(symbol.to_owned()).or_insert(0) += direction * signed;
    }
    Some(())
}

/// The terms of a unit with the operator before each (`.` for the first).
fn split_terms(unit: &str) -> Vec<(char, &str)> {
    let mut terms = Vec::new();
    let (mut operator, mut rest) = match unit.strip_prefix('/') {
        Some(rest) => ('/', rest),
        None => ('.', unit),
    };
    // Dots and solidi inside brackets belong to the symbol.
    let mut depth = 0_u32;
    let mut start = 0;
    let whole = rest;
    for (at, character) in whole.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '.' | '/' if depth == 0 => {
                terms.push((operator, whole.get(start..at).unwrap_or("")));
                operator = character;
                start = at + 1;
                rest = whole.get(start..).unwrap_or("");
            }
            _ => {}
        }
    }
    terms.push((operator, rest));
    terms
}

fn write_powers(powers: &BTreeMap<String, i32>) -> String {
    let one = |(symbol, power): (&String, i32)| {
        if power == 1 { symbol.clone() } else { format!("{symbol}{power}") }
    };
    let above: Vec<String> = powers.iter().filter(|(_, power)| **power > 0).map(|(s, p)| one((s, *p))).collect();
    let below: Vec<String> = powers.iter().filter(|(_, power)| **power < 0).map(|(s, p)| one((s, -*p))).collect();
    match (above.is_empty(), below.is_empty()) {
        (true, true) => "1".to_owned(),
        (false, true) => above.join("."),
        (true, false) => format!("/{}", below.join("/")),
        (false, false) => format!("{}/{}", above.join("."), below.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_convert_and_may_be_of_another_scale() {
        for (left, right, expected) in [
            ("mmol/mol", "%", false),
            ("mmol/mol{Hb}", "%", false),
            ("mmol/mol", "1", false),
            ("mmol/L", "10*3/L", false),
            ("mg/g", "%", true),
            ("mg/g{creat}", "ug/mg", true),
            ("mmol/mol", "umol/mmol", true),
            ("meq/L", "mmol/L", true),
            ("mg/dL", "g/L", true),
            ("%", "1", true),
        ] {
            assert!(Units::new().comparable(left, right), "{left} {right}");
            assert_eq!(Units::new().of_one_scale(left, right), expected, "{left} {right}");
        }
    }

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn conversions_are_exact_or_absent() {
        let units = Units::new();
        let cases = [
            ("1", "kg", "g", Some("1000")),
            ("1", "[in_i]", "cm", Some("2.54")),
            ("37", "Cel", "[degF]", Some("98.6")),
            ("36", "hours", "d", Some("1.5")),
            ("2", "years", "months", Some("24")),
            ("1", "year", "d", None),
            ("1", "g", "m", None),
            ("1", "[IU]", "1", None),
            ("1", "[IU]/mL", "[IU]/L", Some("1000")),
            ("1", "nonsense", "g", None),
            ("7", "[pH]", "mol/L", Some("0.0000001")),
        ];
        for (value, from, to, expected) in cases {
            let found = units.convert(d(value), from, to).map(|value| value.normalize());
            assert_eq!(found, expected.map(d), "{value} {from} to {to}");
        }
    }

    #[test]
    fn products_and_quotients_of_units() {
        let units = Units::new();
        assert_eq!(units.product("cm", "cm").as_deref(), Some("cm2"));
        assert_eq!(units.quotient("g/cm3", "g/cm3").as_deref(), Some("1"));
        assert_eq!(units.product("mg/mL", "mL").as_deref(), Some("mg"));
        assert_eq!(units.quotient("mm[Hg]", "s").as_deref(), Some("mm[Hg]/s"));
        assert_eq!(units.quotient("1", "s").as_deref(), Some("/s"));
        assert_eq!(units.product("Cel", "s"), None);
    }

    #[test]
    fn comparison_of_calendar_and_fixed_time() {
        let units = Units::new();
        assert_eq!(units.compare((d("1"), "year"), (d("12"), "months")), Some(Ordering::Equal));
        assert_eq!(units.compare((d("1"), "year"), (d("1"), "a")), None);
        assert_eq!(units.compare((d("1"), "week"), (d("7"), "d")), Some(Ordering::Equal));
        assert_eq!(units.compare((d("1"), "m"), (d("10"), "cm")), Some(Ordering::Greater));
        assert_eq!(units.compare((d("37"), "Cel"), (d("98.6"), "[degF]")), Some(Ordering::Equal));
        assert_eq!(units.convert_loosely(d("1"), "year", "days"), Some(d("365")));
    }
}
