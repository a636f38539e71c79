//! Reads a received MeasureReport: is it what the manifest says, may it be kept, and what are its numbers?
//!
//! Official invariants are `crate::validate`'s; here is what only the receiver can know: site, key, period,
//! accepted versions, and that nothing of a patient came along.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::{Span as Days, Timestamp, civil::Date};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::logic::{Likeness, WITHOUT_CQL, compare, form_text};
use super::store::Site;
use super::{Defined, MeasureCard, Span, Unit, strict_json};
use crate::feed::{CountedBy, Entry};
use crate::validate::scoring;

/// Largest count that is believed.
const COUNT_MAX: i64 = 1_000_000_000;
/// Strata of one report.
const STRATA_MAX: usize = 1_000;
/// Characters of a stratum's name that are kept.
const NAME_CHARS_MAX: usize = 100;

/// Characters of an address that are kept.
const URL_CHARS_MAX: usize = 1_024;

/// Years since the end of a period that anybody still reports.
const PERIOD_YEARS_MAX: i16 = 50;

/// Digests of one logic that are kept.
const LOGIC_MAX: usize = 8;

/// Groups of one report.
const GROUPS_MAX: usize = 64;

/// Which of the groups of a measure it is, by which its series is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Its id, or its code; empty for the only one.
    pub key: String,
    /// For people; empty for the only one.
    pub label: String,
    /// Whether a higher value is better, where the group says so itself.
    pub higher_is_better: Option<bool>,
}

/// The numbers of one group of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Which group.
    pub group: Group,
    /// What the score counts above the line, exclusions taken off; of a cohort its count; none where the score is no fraction.
    pub numerator: Option<Decimal>,
    /// What the score counts below the line, exclusions and exceptions taken off.
    pub denominator: Option<Decimal>,
    /// The score as reported.
    pub score: Option<Decimal>,
    /// Of whom it is, where it is no fraction.
    pub observed: Option<Observed>,
    /// What of it cannot be told.
    pub doubt: Option<Doubt>,
    /// The same for each stratum.
    pub strata: Vec<Stratum>,
    /// Of a composite what it is made of, by canonical URL with version.
    pub made_of: BTreeSet<String>,
    /// By what it says that it was counted.
    pub counted_by: CountedBy,
    /// Digests of the logic that it was computed with, as the report says.
    pub logic: Vec<String>,
}

/// Of whom a score is that is no fraction, as a mean or a median of what was observed of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Observed {
    /// Members of the measure population, exclusions taken off.
    pub members: u64,
    /// Those of them of whom something was observed; none where the report does not say.
    pub counted: Option<u64>,
}

/// One stratum of a report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stratum {
    /// What the measure is stratified by.
    pub stratifier: String,
    /// Which stratum.
    pub stratum: String,
    /// Of each of its codes the system, empty where it has none; nothing where none has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub systems: Vec<String>,
    /// As in [`Reading`].
    #[serde(with = "decimal_text")]
    pub numerator: Option<Decimal>,
    /// As in [`Reading`].
    #[serde(with = "decimal_text")]
    pub denominator: Option<Decimal>,
    /// As in [`Reading`].
    #[serde(default, with = "decimal_text", skip_serializing_if = "Option::is_none")]
    pub score: Option<Decimal>,
    /// As in [`Reading`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// As in [`Reading`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
}

/// The name of a stratum with the systems of its codes, where it has any.
pub(in crate::registry) fn with_systems(stratum: &str, systems: &[String]) -> String {
    let told: Vec<&str> = systems.iter().map(String::as_str).filter(|system| !system.is_empty()).collect();
    if told.is_empty() { stratum.to_owned() } else { format!("{stratum} ({})", told.join(", ")) }
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
    /// Numerator and denominator at either bound, which can be added to those of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<[(u64, u64); 2]>,
    /// Of an older adapter the least and the most members of the numerator, of so many: wider than the bounds.
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
pub fn read(bytes: &[u8], entry: &Entry, site: &Site, cards: &[MeasureCard], now: Timestamp) -> Result<Vec<Reading>, Vec<String>> {
    let report = strict_json::read(bytes).map_err(|error| vec![format!("not JSON: {error}")])?;
    let mut reasons = Vec::new();
    same(&mut reasons, &report, "/resourceType", "MeasureReport");
    same(&mut reasons, &report, "/type", "summary");
    same(&mut reasons, &report, "/status", "complete");
    same(&mut reasons, &report, "/measure", &format!("{}|{}", entry.key.measure, entry.key.version));
    same(&mut reasons, &report, "/period/start", &entry.key.period_start);
    same(&mut reasons, &report, "/period/end", &entry.key.period_end);
    let card = cards.iter().find(|card| card.url == entry.key.measure);
    let defined = card.and_then(|card| card.definitions.get(&entry.key.version));
    period(&mut reasons, entry, defined.and_then(|defined| defined.period), now);
    made(&mut reasons, &report, now);
    reporter(&mut reasons, &report, site);
    for element in ["subject", "evaluatedResource", "contained", "text", "modifierExtension"] {
        if report.get(element).is_some() {
            reasons.push(format!("`{element}` is not accepted in a summary: it can hold patient data"));
        }
    }
    match card {
        None => reasons.push(unknown_measure(&entry.key.measure, cards)),
        Some(card) if !card.versions.contains(&entry.key.version) => {
            reasons.push(format!("version `{}` is not accepted; accepted: {}", shown(&entry.key.version), card.versions.join(", ")));
        }
        Some(_) => {}
    }
    reasons.extend(super::invariants(&report));
    if let Some(defined) = defined {
        parameters(&mut reasons, &report, &entry.key.version, defined);
        logic(&mut reasons, &report, &entry.key.version, defined);
        value_sets(&mut reasons, &report, &entry.key.version, defined);
        stratifiers(&mut reasons, &report, defined);
    }
    let readings = readings(&report, &mut reasons, card);
    agreement(&mut reasons, &report, &readings, defined);
    if reasons.is_empty() { Ok(readings) } else { Err(reasons) }
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

/// The day after the registry's, in UTC: for sites east of here it may be today.
fn tomorrow(now: Timestamp) -> Date {
    now.to_zoned(jiff::tz::TimeZone::UTC).date().saturating_add(Days::new().days(1))
}

/// A period of the calendar, of the measure's length, that is over.
fn period(reasons: &mut Vec<String>, entry: &Entry, expected: Option<Span>, now: Timestamp) {
    let (start, end) = (day(&entry.key.period_start), day(&entry.key.period_end));
    let (Some(start), Some(end)) = (start, end) else {
        reasons.push("the period must have a start and an end of at least day precision".into());
        return;
    };
    if end < start {
        reasons.push(format!("the period ends on {end}, before it starts on {start}"));
    }
    let tomorrow = tomorrow(now);
    if start > tomorrow {
        reasons.push(format!("the period starts on {start}, in the future"));
    } else if end >= tomorrow {
        reasons.push(format!("the period ends on {end} and is not over: its number would still change; report it when it is"));
    }
    if end.year() < tomorrow.year().saturating_sub(PERIOD_YEARS_MAX) {
        reasons.push(format!("the period ends on {end}, more than {PERIOD_YEARS_MAX} years ago"));
    }
    let found = Span::of(start, end);
    if end >= start && (found.is_none() || expected.is_some() && found != expected) {
        let expected = expected.map_or("a calendar month, quarter or year", Span::word);
        reasons.push(format!("the period is {start} to {end}, expected {expected}"));
    }
}

/// A report is made before it is sent.
fn made(reasons: &mut Vec<String>, report: &Value, now: Timestamp) {
    if let Some(date) = report.get("date").and_then(Value::as_str).and_then(day)
        && date > tomorrow(now)
    {
        reasons.push(format!("`date` is {date}, in the future: look at the clock of the machine that made the report"));
    }
}

/// The parameters that a report states are those of the accepted definition: with others it is another measure. One that the definition does
/// not list has the value that its CQL gives it, and is stated by whoever gave it another.
fn parameters(reasons: &mut Vec<String>, report: &Value, version: &str, defined: &Defined) {
    for stated in items(report, "extension").iter().filter(|one| is_named(one, "parameter")) {
        let text = |name| extension(stated, name).and_then(|part| part.get("valueString")?.as_str().map(str::to_owned)).unwrap_or_default();
        let (name, value) = (text("name"), text("value"));
        let expected = match defined.parameters.get(&name) {
            Some(expected) if *expected == value => continue,
            Some(expected) => format!("has `{expected}`"),
            None => "leaves it as its CQL has it".to_owned(),
        };
        let (name, value) = (shown(&name), shown(&value));
        reasons.push(format!("parameter `{name}` is `{value}`, version {version} {expected}: what is measured otherwise needs a version of its own"));
    }
}

/// What a report says it was made from: name and version of all that is of one kind.
fn lineage(report: &Value, kind: &str) -> Vec<(String, String)> {
    let part = |lineage: &Value, name: &str, kind: &str| extension(lineage, name)?.get(kind)?.as_str().map(str::to_owned);
    let of_kind = |one: &&Value| is_named(one, "lineage") && part(one, "kind", "valueCode").as_deref() == Some(kind);
    let named = |one: &Value| part(one, "name", "valueString").zip(part(one, "version", "valueString"));
    items(report, "extension").iter().filter(of_kind).filter_map(named).collect()
}

/// What a report says of the logic that it was computed with.
fn stated_logic(report: &Value) -> Vec<String> {
    let is_kept = |digest: &String| digest.len() <= URL_CHARS_MAX && !digest.contains(char::is_control);
    lineage(report, "logic").into_iter().map(|(_, digest)| digest).filter(is_kept).take(LOGIC_MAX).collect()
}

/// The logic that a report says it was computed with is that of the accepted version; an older adapter does not say or says less. What
/// cannot be told, as of CQL and ELM that look different, is taken and stands alone.
fn logic(reasons: &mut Vec<String>, report: &Value, version: &str, defined: &Defined) {
    let stated = stated_logic(report);
    if compare(&stated, &defined.logic) == Likeness::Other {
        let (what, are, those) = match form_text(&stated) {
            WITHOUT_CQL => ("its definition".to_owned(), "is", "that"),
            form => (format!("{form} and definition"), "are", "those"),
        };
        let [stated, accepted] = [&stated, &defined.logic].map(|logic| {
            let digest = logic.first().map_or("", String::as_str);
            shown(&digest.chars().take(digest.find(':').unwrap_or_default() + 13).collect::<String>())
        });
        reasons.push(format!(
            "same version, other logic: {what} {are} `{stated}…`, {those} of version {version} {are} `{accepted}…` here: bring the measure's folder up to date; \
             what is computed otherwise needs a version of its own"
        ));
    }
}

/// A value set that is known here too has the codes that it has here.
fn value_sets(reasons: &mut Vec<String>, report: &Value, version: &str, defined: &Defined) {
    let other = |(name, stated): &(String, String)| defined.value_sets.get(name).is_some_and(|accepted| accepted != stated);
    reasons.extend(lineage(report, "value-set").iter().filter(|one| other(one)).map(|(name, _)| {
        let name = shown(name);
        format!(
            "same version, other codes: value set `{name}` is not the one that version {version} has here: bring the `value-sets` folders up to date; \
             what is counted by other codes needs a version of its own"
        )
    }));
}

/// Only what the accepted definition is stratified by.
fn stratifiers(reasons: &mut Vec<String>, report: &Value, defined: &Defined) {
    for stratifier in items(report, "group").iter().flat_map(|group| items(group, "stratifier")) {
        if known(stratifier, defined).is_none() {
            let names: Vec<&str> = defined.stratifiers.keys().map(String::as_str).collect();
            let name = shown(&stratifier_name(stratifier));
            reasons.push(if names.is_empty() {
                format!("the group is stratified by `{name}`, but the measure has no stratifier")
            } else {
                format!("the measure has no stratifier `{name}`; it has {}", names.join(", "))
            });
        }
    }
}

/// Whether everyone has at most one stratum of a stratifier of the definition.
fn known(stratifier: &Value, defined: &Defined) -> Option<bool> {
    let id = stratifier.get("id").and_then(Value::as_str).unwrap_or_default();
    defined.stratifiers.get(id).or_else(|| defined.stratifiers.get(&stratifier_name(stratifier))).copied()
}

/// What people call a stratifier: its code, or the codes of its components.
fn stratifier_name(stratifier: &Value) -> String {
    let own = items(stratifier, "code").first().map(first_text).unwrap_or_default();
    if !own.is_empty() {
        return own;
    }
    let components = items(stratifier, "stratum").first().map_or(&[][..], |stratum| items(stratum, "component"));
    let names: Vec<String> = components.iter().filter_map(|component| component.get("code").map(first_text)).collect();
    match (names.is_empty(), stratifier.get("id").and_then(Value::as_str)) {
        (true, Some(id)) => id.chars().take(NAME_CHARS_MAX).filter(|c| !c.is_control()).collect(),
        _ => names.join(" and "),
    }
}

/// What people call a stratum: its value, or its components, each by name and value.
fn stratum_name(stratum: &Value) -> String {
    let component = |component: &Value| {
        let value = component.get("value").map(value_text)?;
        let name = component.get("code").map(first_text).filter(|name| !name.is_empty());
        Some(name.map_or_else(|| value.clone(), |name| format!("{name}: {value}")))
    };
    match stratum.get("value") {
        Some(value) => value_text(value),
        None => items(stratum, "component").iter().filter_map(component).collect::<Vec<_>>().join(", "),
    }
}

/// The text of a code without its system, which people see beside it where one report has the code of several.
fn value_text(concept: &Value) -> String {
    let text = concept.get("text").and_then(Value::as_str);
    let without = text.zip(system(concept)).and_then(|(text, system)| text.strip_suffix(&format!(" ({system})")));
    without.map_or_else(|| first_text(concept), plain)
}

fn system(concept: &Value) -> Option<&str> {
    concept.pointer("/coding/0/system").and_then(Value::as_str)
}

/// The system of each value of a stratum; nothing where none has one.
fn systems(stratum: &Value) -> Vec<String> {
    let components = items(stratum, "component").iter().filter_map(|component| component.get("value"));
    let plain = |system: &str| system.chars().take(URL_CHARS_MAX).filter(|c| !c.is_control()).collect();
    let all: Vec<String> = stratum.get("value").into_iter().chain(components).map(|value| system(value).map(plain).unwrap_or_default()).collect();
    if all.iter().all(String::is_empty) { Vec::new() } else { all }
}

/// No stratum is more than its group, none is there twice, and together they are no more than the group where nobody has two.
fn agreement(reasons: &mut Vec<String>, report: &Value, readings: &[Reading], defined: Option<&Defined>) {
    for (group, reading) in items(report, "group").iter().zip(readings) {
        let (of_group, adds_up) = (counts(group), adds_up(group));
        let (mut strata, mut names) = (reading.strata.iter(), BTreeSet::new());
        let beyond = |own: &[Decimal; 2]| {
            let sides = ["numerator", "denominator"].into_iter().zip(own.iter().zip([reading.numerator, reading.denominator]));
            let told =
                |(side, (own, whole)): (&str, (&Decimal, Option<Decimal>))| Some(format!("{own} in the {side}, the whole group only {}", whole.filter(|whole| own > whole)?));
            if adds_up { sides.filter_map(told).collect::<Vec<_>>() } else { Vec::new() }
        };
        for stratifier in items(group, "stratifier") {
            let name = shown(&stratifier_name(stratifier));
            if !names.insert(stratifier.get("id").and_then(Value::as_str).map_or_else(|| name.clone(), str::to_owned)) {
                reasons.push(format!("stratifier `{name}` is there twice"));
            }
            let (mut seen, mut sums) = (BTreeSet::new(), [Decimal::ZERO; 2]);
            for (stratum, read) in items(stratifier, "stratum").iter().zip(strata.by_ref()) {
                let label = format!("stratum `{}` of `{name}`", shown(&with_systems(&read.stratum, &read.systems)));
                if !seen.insert(identity(stratum)) {
                    reasons.push(format!("{label} is there twice"));
                }
                for (code, count) in counts(stratum) {
                    if let Some(most) = of_group.get(&code).filter(|most| count > **most) {
                        reasons.push(format!("{label} has {count} in `{code}`, the whole group only {most}"));
                    }
                }
                let own = [read.numerator, read.denominator].map(Option::unwrap_or_default);
                reasons.extend(beyond(&own).into_iter().map(|more| format!("{label} has {more}")));
                sums = [sums[0].saturating_add(own[0]), sums[1].saturating_add(own[1])];
            }
            // A policy says how one may have several.
            let is_disjoint = defined
                .and_then(|defined| known(stratifier, defined))
                .unwrap_or(extension(stratifier, "stratification-policy").is_none());
            if is_disjoint {
                reasons.extend(beyond(&sums).into_iter().map(|more| format!("the strata of `{name}` have together {more}")));
            }
        }
    }
}

/// By which a stratum is told from the others: its codes, each in its system, else its texts.
fn identity(stratum: &Value) -> Vec<String> {
    let own = |concept: &Value| {
        let part = |name: &str| concept.pointer(&format!("/coding/0/{name}")).and_then(Value::as_str);
        part("code").map_or_else(|| first_text(concept), |code| format!("{}|{code}", part("system").unwrap_or_default()))
    };
    let components = items(stratum, "component").iter().filter_map(|component| component.get("value"));
    stratum.get("value").into_iter().chain(components).map(own).collect()
}

/// Counts by population; two of one code are told apart by nothing, so neither is here.
fn counts(group: &Value) -> BTreeMap<String, Decimal> {
    let populations = items(group, "population");
    let is_alone = |code: &str| populations.iter().filter(|population| code_of(population) == code).count() == 1;
    let count = |population: &Value| Some((code_of(population), decimal(population.get("count")?)?));
    populations.iter().filter_map(count).filter(|(code, _)| is_alone(code)).collect()
}

/// Whether the sides of the score are sums over members: a mean of some can be more than that of all.
fn adds_up(group: &Value) -> bool {
    let method = |population: &Value| extension(population, "cqfm-aggregateMethod").and_then(|method| method.get("valueCode")?.as_str().map(str::to_owned));
    items(group, "population").iter().filter_map(method).all(|method| method == "sum" || method == "count")
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

/// Every group's numbers; of several, each must be told from the others.
pub(super) fn readings(report: &Value, reasons: &mut Vec<String>, card: Option<&MeasureCard>) -> Vec<Reading> {
    let groups = items(report, "group");
    if groups.is_empty() || groups.len() > GROUPS_MAX {
        reasons.push(format!("{} groups, expected 1 to {GROUPS_MAX}", groups.len()));
        return Vec::new();
    }
    let (is_only, counted_by, logic) = (groups.len() == 1, CountedBy::of(report), stated_logic(report));
    let mut readings: Vec<Reading> = Vec::with_capacity(groups.len());
    for (index, value) in groups.iter().enumerate() {
        let place = index + 1;
        let group = if is_only { Group::default() } else { named(value) };
        if !is_only && group.key.is_empty() {
            reasons.push(format!("group {place} of {} has neither `id` nor `code`, by which its series would be known", groups.len()));
        } else if readings.iter().any(|other| other.group.key == group.key) {
            reasons.push(format!("group {place} is named `{}`, as one before it is", shown(&group.key)));
        }
        let mut found = Vec::new();
        let kind = kind(report, value, &group, card, &mut found);
        let reading = Reading { logic: logic.clone(), ..reading(value, group, &mut found, kind) };
        let of_group = |reason: String| if is_only { reason } else { format!("group `{}`: {reason}", shown(&reading.group.key)) };
        reasons.extend(found.into_iter().map(of_group));
        readings.push(Reading { counted_by: counted_by.clone(), ..reading });
    }
    let strata: usize = readings.iter().map(|reading| reading.strata.len()).sum();
    if strata > STRATA_MAX {
        reasons.push(format!("more than {STRATA_MAX} strata"));
    }
    readings
}

/// What a score is, which says what its numbers may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Some of all: between 0 and 1.
    Proportion,
    /// Made of the scores of others: between 0 and 1.
    Composite,
    /// One number by another.
    Ratio,
    /// No fraction.
    Number,
    /// How many there are.
    Cohort,
}

/// By the accepted measure, else by the report; which must not contradict each other.
fn kind(report: &Value, value: &Value, group: &Group, card: Option<&MeasureCard>, reasons: &mut Vec<String>) -> Kind {
    let said = scoring(report, value).unwrap_or_default();
    let is_number = said == "continuous-variable";
    let unit = card.map(|card| card.unit_of(&group.key));
    if unit.as_ref().is_some_and(|unit| (*unit == Unit::Number) != is_number) {
        let expected = if is_number { "not" } else { "`continuous-variable`" };
        reasons.push(format!("the scoring is `{}`, that of the accepted measure is {expected}", shown(said)));
    }
    match (unit, said) {
        (_, "continuous-variable") => Kind::Number,
        (Some(Unit::Count), _) | (_, "cohort") => Kind::Cohort,
        (Some(Unit::Rate { .. }), _) | (_, "ratio") => Kind::Ratio,
        (_, "composite") => Kind::Composite,
        _ => Kind::Proportion,
    }
}

/// The name of one of several groups: its id, else its code. The label is its code's text, else its id.
fn named(group: &Value) -> Group {
    let (id, code) = (group.get("id").and_then(Value::as_str), group.get("code").unwrap_or(&Value::Null));
    let coded = code.pointer("/coding/0/code").or_else(|| code.get("text")).and_then(Value::as_str);
    let key = plain(id.or(coded).unwrap_or_default());
    let text = first_text(code);
    let improvement = extension(group, "extension-groupImprovementNotation").and_then(|notation| {
        let code = notation.pointer("/valueCodeableConcept/coding/0/code")?.as_str()?;
        ["increase", "decrease"].contains(&code).then_some(code == "increase")
    });
    Group { label: if text.is_empty() { key.clone() } else { text }, key, higher_is_better: improvement }
}

fn reading(value: &Value, group: Group, reasons: &mut Vec<String>, kind: Kind) -> Reading {
    let score = value.pointer("/measureScore/value").and_then(decimal);
    let (numerator, denominator) = pair(value, score, reasons, kind);
    let mut strata = Vec::new();
    for stratifier in items(value, "stratifier") {
        let name = stratifier_name(stratifier);
        for stratum in items(stratifier, "stratum") {
            if strata.len() >= STRATA_MAX {
                reasons.push(format!("more than {STRATA_MAX} strata"));
                return Reading::default();
            }
            let score = stratum.pointer("/measureScore/value").and_then(decimal);
            let (numerator, denominator) = pair(stratum, score, reasons, kind);
            let (observed, doubt) = (observed(stratum, kind), doubt(stratum, reasons));
            let (systems, name) = (systems(stratum), name.clone());
            strata.push(Stratum { stratifier: name, stratum: stratum_name(stratum), systems, numerator, denominator, score, observed, doubt });
        }
    }
    Reading {
        group,
        numerator,
        denominator,
        score,
        observed: observed(value, kind),
        doubt: doubt(value, reasons),
        strata,
        made_of: made_of(value),
        counted_by: CountedBy::default(),
        logic: Vec::new(),
    }
}

/// The measures of which a composite says that it is made (our own adapters do).
fn made_of(group: &Value) -> BTreeSet<String> {
    let composite = extension(group, "composite").unwrap_or_default();
    let components = items(&composite, "extension").iter().filter(|part| is_named(part, "component"));
    let plain = |url: &str| url.chars().take(URL_CHARS_MAX).filter(|c| !c.is_control()).collect();
    components.filter_map(|component| Some(plain(extension(component, "measure")?.get("valueString")?.as_str()?))).collect()
}

/// Of whom the score of a group or stratum is. Of whom nothing was observed, our own adapters say.
fn observed(group: &Value, kind: Kind) -> Option<Observed> {
    if kind != Kind::Number {
        return None;
    }
    let of_code = |code: &str| items(group, "population").iter().find(|population| code_of(population) == code);
    let count = |code: &str| of_code(code)?.get("count")?.as_u64();
    let scored = of_code("measure-population").and_then(|population| extension(population, "scored-count")?.get("valueInteger")?.as_u64());
    let scored = scored.filter(|scored| *scored <= COUNT_MAX.unsigned_abs());
    let left = || Some(count("measure-population")?.saturating_sub(count("measure-population-exclusion").unwrap_or_default()));
    Some(Observed { members: scored.or_else(left)?, counted: score_part(group, "denominator").and_then(|counted| counted.to_u64()) })
}

/// What a group or stratum says that it cannot tell (our own adapters do).
fn doubt(group: &Value, reasons: &mut Vec<String>) -> Option<Doubt> {
    let told = extension(group, "cannot-tell")?;
    let whole = |name| extension(&told, name)?.get("valueInteger")?.as_u64().filter(|count| *count <= COUNT_MAX.unsigned_abs());
    let bounds = extension(group, "score-bounds").unwrap_or_default();
    let bound = |name| decimal(extension(&bounds, name)?.get("valueDecimal")?);
    let sum = |name| extension(&bounds, name)?.get("valueInteger")?.as_u64();
    let end = |name| {
        let end = extension(&bounds, name)?;
        let side = |name| extension(&end, name)?.get("valueInteger")?.as_u64();
        side("numerator").zip(side("denominator"))
    };
    let (numerators, ends) = (sum("least").zip(sum("most")), end("low-parts").zip(end("high-parts")).map(|(low, high)| [low, high]));
    let doubt = Doubt { count: whole("count")?, of: whole("of"), low: bound("low"), high: bound("high"), ends, numerators };
    let of = doubt.of.unwrap_or(COUNT_MAX.unsigned_abs());
    if let Some((least, most)) = numerators.filter(|(least, most)| least > most || *most > of) {
        reasons.push(format!("{least} to {most} in the numerator, of {of}, cannot be"));
    }
    let is_possible = |(numerator, denominator): &(u64, u64)| numerator <= denominator && *denominator <= of;
    if let Some((numerator, denominator)) = ends.into_iter().flatten().find(|end| !is_possible(end)) {
        reasons.push(format!("{numerator} of {denominator} at a bound of the score, of {of} in all, cannot be"));
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
    plain(text.unwrap_or_default())
}

fn plain(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).filter(|c| !c.is_control()).collect()
}

fn decimal(value: &Value) -> Option<Decimal> {
    let text = value.as_number()?.to_string();
    Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text)).ok()
}

/// Numerator and denominator of a group or stratum as the score uses them.
fn pair(group: &Value, score: Option<Decimal>, reasons: &mut Vec<String>, kind: Kind) -> (Option<Decimal>, Option<Decimal>) {
    let populations = items(group, "population");
    possible(group, reasons);
    if kind == Kind::Number {
        return (None, None);
    }
    let count = |code: &str| {
        populations
            .iter()
            .find(|population| code_of(population) == code)
            .and_then(|population| decimal(population.get("count")?))
    };
    if kind == Kind::Cohort {
        return (count("initial-population"), None);
    }
    let minus = |from: Option<Decimal>, codes: &[&str]| from.map(|from| codes.iter().filter_map(|code| count(code)).fold(from, |sum, count| sum - count));
    let observed = |side: &str, place: usize| score_part(group, side).or_else(|| observation(populations, side, place));
    let stated = score_part(group, "numerator").is_some();
    if kind == Kind::Proportion && stated {
        of_populations(group, reasons);
    }
    let denominator = observed("denominator", 1).or_else(|| minus(count("denominator"), &["denominator-exclusion", "denominator-exception"]));
    let mut numerator = observed("numerator", 0).or_else(|| minus(count("numerator"), &["numerator-exclusion"]));
    if kind != Kind::Ratio
        && let (Some(above), Some(below), Some(score)) = (numerator, denominator, score)
    {
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
    if kind == Kind::Proportion && numerator.is_none() && score.is_some_and(|score| !(Decimal::ZERO..=Decimal::ONE).contains(&score)) {
        reasons.push(format!("score {} is not between 0 and 1, as what is shown in percent has to be", score.unwrap_or_default()));
    }
    if [numerator, denominator].into_iter().flatten().any(|number| number < Decimal::ZERO) {
        reasons.push("exclusions are more than the population they are taken from".into());
    }
    (numerator, denominator)
}

/// Every number can be: a count is whole, none is beyond belief.
fn possible(group: &Value, reasons: &mut Vec<String>) {
    let is_count = |count: &Value| decimal(count).is_some_and(|count| count >= Decimal::ZERO && count <= Decimal::from(COUNT_MAX) && count.fract().is_zero());
    for population in items(group, "population") {
        if let Some(count) = population.get("count").filter(|count| !is_count(count)) {
            reasons.push(format!("population `{}` has count {count}, which cannot be", code_of(population)));
        }
    }
    let parts = extension(group, "score-parts").unwrap_or_default();
    for part in items(&parts, "extension").iter().filter_map(|part| part.get("valueDecimal")) {
        if decimal(part).is_none_or(|part| part.abs() > Decimal::from(COUNT_MAX)) {
            reasons.push(format!("a side of the score is {part}, which cannot be"));
        }
    }
    if let Some(score) = group.pointer("/measureScore/value").filter(|score| decimal(score).is_none()) {
        reasons.push(format!("the score is {score}, which cannot be"));
    }
}

/// The stated sides of a proportion's score are its populations without their exclusions, however these overlap.
fn of_populations(group: &Value, reasons: &mut Vec<String>) {
    let counts = counts(group);
    let sum = |codes: &[&str]| codes.iter().filter_map(|code| counts.get(*code)).fold(Decimal::ZERO, |sum, count| sum.saturating_add(*count));
    let taken_off = [&["numerator-exclusion", "denominator-exclusion", "denominator-exception"][..], &["denominator-exclusion", "denominator-exception"][..]];
    for (side, taken_off) in ["numerator", "denominator"].into_iter().zip(taken_off) {
        let (Some(stated), Some(most)) = (score_part(group, side), counts.get(side)) else { continue };
        let least = *most - sum(taken_off);
        if stated < least || stated > *most {
            reasons.push(format!("the score's {side} is {stated}, but population `{side}` has {most}, and {} are taken off at most", sum(taken_off)));
        }
    }
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
    items(value, "extension").iter().find(|extension| is_named(extension, name)).cloned()
}

fn is_named(extension: &Value, name: &str) -> bool {
    extension.get("url").and_then(Value::as_str).is_some_and(|url| url.rsplit('/').next() == Some(name))
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
