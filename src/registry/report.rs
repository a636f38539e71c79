//! Reads a received MeasureReport: is it what the manifest says, may it be kept, and what are its numbers?
//!
//! Official invariants are `crate::validate`'s; here is what only the receiver can know: site, key, period,
//! accepted versions, and that nothing of a patient came along.

use std::str::FromStr;

use jiff::{Timestamp, civil::Date};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::store::Site;
use super::{MeasureCard, Unit, strict_json};
use crate::feed::Entry;

/// Largest count that is believed.
const COUNT_MAX: i64 = 1_000_000_000;
/// Strata of one report.
const STRATA_MAX: usize = 1_000;
/// Characters of a stratum's name that are kept.
const NAME_CHARS_MAX: usize = 100;

/// The numbers of one report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What the score counts above the line, exclusions taken off; none where the score is no fraction.
    pub numerator: Option<Decimal>,
    /// What the score counts below the line, exclusions and exceptions taken off.
    pub denominator: Option<Decimal>,
    /// The score as reported.
    pub score: Option<Decimal>,
    /// What of it cannot be told.
    pub doubt: Option<Doubt>,
    /// The same for each stratum.
    pub strata: Vec<Stratum>,
}

/// One stratum of a report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stratum {
    /// What the measure is stratified by.
    pub stratifier: String,
    /// Which stratum.
    pub stratum: String,
    /// As in [`Reading`].
    #[serde(with = "decimal_text")]
    pub numerator: Option<Decimal>,
    /// As in [`Reading`].
    #[serde(with = "decimal_text")]
    pub denominator: Option<Decimal>,
    /// As in [`Reading`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
}

/// Members for whom the hospital's records cannot tell whether they are in some population, and what that could do to the score.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Doubt {
    /// How many, each once; never zero.
    pub count: u64,
    /// Of so many whom the score is or may be of; none where its sides count different things.
    pub of: Option<u64>,
    /// The score if all that is open went against it; none where that has no bound.
    #[serde(with = "decimal_text")]
    pub low: Option<Decimal>,
    /// The score if all that is open went for it.
    #[serde(with = "decimal_text")]
    pub high: Option<Decimal>,
    /// The least and the most members of the numerator, of so many: wider than the bounds, which cannot be added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerators: Option<(u64, u64)>,
}

/// Decimals as text, so that no digit is lost.
mod decimal_text {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
        number.map(|number| number.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

/// Reads and checks one report against its manifest entry; the errors are every reason to refuse it.
pub fn read(bytes: &[u8], entry: &Entry, site: &Site, cards: &[MeasureCard], now: Timestamp) -> Result<Reading, Vec<String>> {
    let report = strict_json::read(bytes).map_err(|error| vec![format!("not JSON: {error}")])?;
    let mut reasons = Vec::new();
    same(&mut reasons, &report, "/resourceType", "MeasureReport");
    same(&mut reasons, &report, "/type", "summary");
    same(&mut reasons, &report, "/status", "complete");
    same(&mut reasons, &report, "/measure", &format!("{}|{}", entry.key.measure, entry.key.version));
    same(&mut reasons, &report, "/period/start", &entry.key.period_start);
    same(&mut reasons, &report, "/period/end", &entry.key.period_end);
    period(&mut reasons, entry, now);
    reporter(&mut reasons, &report, site);
    for element in ["subject", "evaluatedResource", "contained", "text", "modifierExtension"] {
        if report.get(element).is_some() {
            reasons.push(format!("`{element}` is not accepted in a summary: it can hold patient data"));
        }
    }
    let card = cards.iter().find(|card| card.url == entry.key.measure);
    match card {
        None => reasons.push(unknown_measure(&entry.key.measure, cards)),
        Some(card) if !card.versions.contains(&entry.key.version) => {
            reasons.push(format!("version `{}` is not accepted; accepted: {}", shown(&entry.key.version), card.versions.join(", ")));
        }
        Some(_) => {}
    }
    reasons.extend(super::invariants(&report));
    let reading = reading(&report, &mut reasons, card.is_some_and(|card| card.unit == Unit::Percent));
    if reasons.is_empty() { Ok(reading) } else { Err(reasons) }
}

fn same(reasons: &mut Vec<String>, report: &Value, pointer: &str, expected: &str) {
    let found = report.pointer(pointer).and_then(Value::as_str);
    if found != Some(expected) {
        let name = pointer.trim_start_matches('/').replace('/', ".");
        reasons.push(format!("`{name}` is `{}`, expected `{}`", shown(found.unwrap_or("missing")), shown(expected)));
    }
}

fn shown(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect()
}

fn unknown_measure(url: &str, cards: &[MeasureCard]) -> String {
    let accepted: Vec<&str> = cards.iter().map(|card| card.url.as_str()).collect();
    format!("measure `{}` is not accepted here; accepted: {}", shown(url), accepted.join(", "))
}

/// First ten characters of a FHIR date or dateTime as a day.
pub(super) fn day(text: &str) -> Option<Date> {
    Date::from_str(text.get(..10)?).ok()
}

fn period(reasons: &mut Vec<String>, entry: &Entry, now: Timestamp) {
    let (start, end) = (day(&entry.key.period_start), day(&entry.key.period_end));
    let (Some(start), Some(end)) = (start, end) else {
        reasons.push("the period must have a start and an end of at least day precision".into());
        return;
    };
    if end < start {
        reasons.push(format!("the period ends on {end}, before it starts on {start}"));
    }
    // A day ahead, for sites east of here.
    let tomorrow = now.to_zoned(jiff::tz::TimeZone::UTC).date().saturating_add(jiff::Span::new().days(1));
    if start > tomorrow {
        reasons.push(format!("the period starts on {start}, in the future"));
    }
}

/// The reporter, where it names an organization by identifier or reference, must be the token's site.
fn reporter(reasons: &mut Vec<String>, report: &Value, site: &Site) {
    let Some(reporter) = report.get("reporter") else {
        reasons.push("`reporter` is missing".into());
        return;
    };
    let identifier = reporter.pointer("/identifier/value").and_then(Value::as_str);
    let reference = reporter.get("reference").and_then(Value::as_str).map(|reference| reference.rsplit('/').next().unwrap_or(reference));
    for name in [identifier, reference].into_iter().flatten() {
        if name != site.name && name != site.organization {
            reasons.push(format!("`reporter` is `{}`, but the token belongs to `{}`", shown(name), site.name));
        }
    }
}

fn reading(report: &Value, reasons: &mut Vec<String>, is_proportion: bool) -> Reading {
    let groups = items(report, "group");
    let [group] = groups else {
        reasons.push(format!("{} groups, expected one", groups.len()));
        return Reading::default();
    };
    let score = group.pointer("/measureScore/value").and_then(decimal);
    let (numerator, denominator) = pair(group, score, reasons, is_proportion);
    let mut strata = Vec::new();
    for stratifier in items(group, "stratifier") {
        let name = first_text(items(stratifier, "code").first().unwrap_or(&Value::Null));
        for stratum in items(stratifier, "stratum") {
            if strata.len() >= STRATA_MAX {
                reasons.push(format!("more than {STRATA_MAX} strata"));
                return Reading::default();
            }
            let score = stratum.pointer("/measureScore/value").and_then(decimal);
            let (numerator, denominator) = pair(stratum, score, reasons, is_proportion);
            let value = stratum.get("value").map(first_text).unwrap_or_default();
            let doubt = doubt(stratum, reasons);
            strata.push(Stratum { stratifier: name.clone(), stratum: value, numerator, denominator, doubt });
        }
    }
    Reading { numerator, denominator, score, doubt: doubt(group, reasons), strata }
}

/// What a group or stratum says that it cannot tell (our own adapters do).
fn doubt(group: &Value, reasons: &mut Vec<String>) -> Option<Doubt> {
    let told = extension(group, "cannot-tell")?;
    let whole = |name| extension(&told, name)?.get("valueInteger")?.as_u64().filter(|count| *count <= COUNT_MAX.unsigned_abs());
    let bounds = extension(group, "score-bounds").unwrap_or_default();
    let bound = |name| decimal(extension(&bounds, name)?.get("valueDecimal")?);
    let sum = |name| extension(&bounds, name)?.get("valueInteger")?.as_u64();
    let doubt = Doubt { count: whole("count")?, of: whole("of"), low: bound("low"), high: bound("high"), numerators: sum("least").zip(sum("most")) };
    if let (Some((least, most)), Some(of)) = (doubt.numerators, doubt.of)
        && (least > most || most > of)
    {
        reasons.push(format!("{least} to {most} in the numerator, of {of}, cannot be"));
    }
    if doubt.of.is_some_and(|of| of < doubt.count) {
        reasons.push(format!("{} cannot be told, of {}", doubt.count, doubt.of.unwrap_or_default()));
    }
    if doubt.low > doubt.high || [doubt.low, doubt.high].into_iter().flatten().any(|bound| !(Decimal::ZERO..=Decimal::ONE).contains(&bound)) {
        reasons.push(format!("the bounds {} to {} are none of a proportion", doubt.low.unwrap_or_default(), doubt.high.unwrap_or_default()));
    }
    (doubt.count > 0).then_some(doubt)
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The name of a CodeableConcept: text, else display, else code.
fn first_text(concept: &Value) -> String {
    let coding = concept.pointer("/coding/0");
    let of_coding = |name| coding.and_then(|coding| coding.get(name));
    let text = concept.get("text").or_else(|| of_coding("display")).or_else(|| of_coding("code")).and_then(Value::as_str);
    text.unwrap_or_default().chars().take(NAME_CHARS_MAX).filter(|c| !c.is_control()).collect()
}

fn decimal(value: &Value) -> Option<Decimal> {
    let text = value.as_number()?.to_string();
    Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text)).ok()
}

/// Numerator and denominator of a group or stratum as the score uses them.
fn pair(group: &Value, score: Option<Decimal>, reasons: &mut Vec<String>, is_proportion: bool) -> (Option<Decimal>, Option<Decimal>) {
    let populations = items(group, "population");
    for population in populations {
        let count = population.get("count").and_then(decimal).unwrap_or_default();
        if count < Decimal::ZERO || count > Decimal::from(COUNT_MAX) || !count.fract().is_zero() {
            reasons.push(format!("population `{}` has count {count}, which cannot be", code_of(population)));
        }
    }
    let count = |code: &str| {
        populations
            .iter()
            .find(|population| code_of(population) == code)
            .and_then(|population| decimal(population.get("count")?))
    };
    let minus = |from: Option<Decimal>, codes: &[&str]| from.map(|from| codes.iter().filter_map(|code| count(code)).fold(from, |sum, count| sum - count));
    let observed = |side: &str, place: usize| score_part(group, side).or_else(|| observation(populations, side, place));
    let stated = score_part(group, "numerator").is_some();
    let denominator = observed("denominator", 1).or_else(|| minus(count("denominator"), &["denominator-exclusion", "denominator-exception"]));
    let mut numerator = observed("numerator", 0).or_else(|| minus(count("numerator"), &["numerator-exclusion"]));
    if is_proportion && let (Some(above), Some(below), Some(score)) = (numerator, denominator, score) {
        // Counts are reported before exclusions are taken off; members of both show in the score alone.
        let scored = (score * below).round();
        if stated && scored != above && !below.is_zero() {
            reasons.push(format!("score {score} is not numerator {above} by denominator {below}"));
        } else if !below.is_zero() {
            numerator = Some(scored);
        }
        if scored > below || numerator > denominator {
            reasons.push(format!("numerator {} is greater than denominator {below}", scored.max(above)));
        }
    }
    if is_proportion && numerator.is_none() && score.is_some_and(|score| !(Decimal::ZERO..=Decimal::ONE).contains(&score)) {
        reasons.push(format!("score {} is not between 0 and 1, as what is shown in percent has to be", score.unwrap_or_default()));
    }
    if [numerator, denominator].into_iter().flatten().any(|number| number < Decimal::ZERO) {
        reasons.push("exclusions are more than the population they are taken from".into());
    }
    (numerator, denominator)
}

fn code_of(population: &Value) -> String {
    population.pointer("/code/coding/0/code").and_then(Value::as_str).map(shown).unwrap_or_default()
}

/// Numerator or denominator as the score uses them, where the report states them (our own adapters do).
fn score_part(group: &Value, side: &str) -> Option<Decimal> {
    decimal(extension(&extension(group, "score-parts")?, side)?.get("valueDecimal")?)
}

/// The extension of a name, whatever stands before it in its address.
fn extension(value: &Value, name: &str) -> Option<Value> {
    let is_named = |extension: &&Value| extension.get("url").and_then(Value::as_str).is_some_and(|url| url.rsplit('/').next() == Some(name));
    items(value, "extension").iter().find(is_named).cloned()
}

/// The aggregate of the observations of one side of a ratio; sides are named by reference or, without, by order.
fn observation(populations: &[Value], side: &str, place: usize) -> Option<Decimal> {
    let observations: Vec<&Value> = populations.iter().filter(|population| code_of(population) == "measure-observation").collect();
    let extensions = |population: &'_ Value| items(population, "extension").to_vec();
    let refers = |population: &Value| {
        extensions(population).iter().find_map(|extension| {
            let url = extension.get("url")?.as_str()?;
            url.ends_with("criteriaReference").then(|| extension.get("valueString")?.as_str().map(str::to_owned)).flatten()
        })
    };
    let named = observations
        .iter()
        .find(|population| refers(population).is_some_and(|name| name == side || name.starts_with(&format!("{side}-"))));
    let unnamed = observations.get(place).filter(|population| refers(population).is_none());
    let population = *named.or(unnamed)?;
    let quantity = extensions(population)
        .iter()
        .find_map(|extension| decimal(extension.pointer("/valueQuantity/value").or_else(|| extension.get("valueDecimal"))?));
    quantity.or_else(|| decimal(population.get("count")?))
}

#[cfg(test)]
mod tests;
