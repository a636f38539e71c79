//! JSON Schemas, DEQM invariants and plausibility over reports, before anything is sent.
//!
//! [`check`] is what a report must pass to leave: the project's schema, the guide's invariants (deqm-0 to deqm-9, both
//! published generations) and arithmetic that cannot be wrong. [`plausible`] compares with the measure's guards and with
//! earlier periods. Each finding says who should do what; one that blocks holds the report.

use std::sync::LazyLock;

use rust_decimal::Decimal;
use serde_json::Value;

mod identity;
mod invariant;
#[cfg(test)]
mod tests;

pub use identity::leave_out;

/// The schema of a report, as `schemas/measure-report.schema.json` has it.
pub const REPORT_SCHEMA: &str = include_str!("../schemas/measure-report.schema.json");
/// Most findings of one report; more say nothing new.
pub const FINDINGS_MAX: usize = 200;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The report must not be sent.
    Block,
    /// The report may be sent; someone should look.
    Warn,
    /// Good to know.
    Info,
}

impl Weight {
    /// For people and logs.
    pub fn word(self) -> &'static str {
        match self {
            Weight::Block => "block",
            Weight::Warn => "warn",
            Weight::Info => "info",
        }
    }
}

/// Who can act on a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The hospital's integration engineer.
    Engineer,
    /// The data steward of the hospital.
    Steward,
    /// The author of the measure.
    Author,
    /// The developers of this program.
    Developer,
}

impl Owner {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Owner::Engineer => "integration engineer",
            Owner::Steward => "data steward",
            Owner::Author => "measure author",
            Owner::Developer => "developer",
        }
    }
}

/// One thing that a report was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// Name of the rule: `schema`, `deqm-6`, `numerator-within-denominator`, ….
    pub rule: &'static str,
    /// Where in the report, as a JSON pointer; empty for the whole.
    pub at: String,
    /// What was found and what was expected; counts only, nothing of a patient.
    pub message: String,
    /// Who can act.
    pub owner: Owner,
    /// What to do.
    pub action: &'static str,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.at.is_empty() { String::new() } else { format!(" at `{}`", self.at) };
        write!(f, "{} ({}): {}{place}; {}: {}", self.weight.word(), self.rule, self.message, self.owner.word(), self.action)
    }
}

/// Whether any of the findings holds the report back.
pub fn blocks(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.weight == Weight::Block)
}

static SCHEMA: LazyLock<Option<jsonschema::Validator>> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(REPORT_SCHEMA).ok()?;
    jsonschema::validator_for(&schema).ok()
});

/// Schema, invariants and arithmetic of one MeasureReport; the heaviest findings first.
pub fn check(report: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    schema(report, &mut found);
    invariant::check(report, &mut found);
    arithmetic(report, &mut found);
    identity::check(report, &mut found);
    found.sort_by(|a, b| (a.weight, a.rule, &a.at).cmp(&(b.weight, b.rule, &b.at)));
    found.truncate(FINDINGS_MAX);
    found
}

fn schema(report: &Value, found: &mut Vec<Finding>) {
    let Some(validator) = SCHEMA.as_ref() else {
        found.push(block("schema", "", "the schema of reports cannot be read".to_owned()));
        return;
    };
    for error in validator.iter_errors(report).take(FINDINGS_MAX) {
        let at = error.instance_path().to_string();
        // The masked form names no value of the report.
        found.push(block("schema", &at, error.masked().to_string()));
    }
}

fn block(rule: &'static str, at: &str, message: String) -> Finding {
    Finding {
        weight: Weight::Block,
        rule,
        at: at.to_owned(),
        message,
        owner: Owner::Developer,
        action: "report this as a defect; the report is held until it is mended",
    }
}

/// Numerator and denominator of a group or stratum, as the report says them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// As the score uses it: exclusions taken off, observations aggregated.
    pub numerator: Option<Decimal>,
    /// The same.
    pub denominator: Option<Decimal>,
    /// The score, multiplier applied.
    pub score: Option<Decimal>,
    /// Members for whom the record could not tell whether they are in some population; each once, where the report says so.
    pub cannot_tell: u64,
}

/// Reads numerator, denominator and score of a group or stratum.
pub fn parts(group: &Value) -> Parts {
    let extension = items(group, "extension").iter().find(|one| url_ends(one, "/score-parts"));
    let side = |name: &str| {
        let parts = items(extension?, "extension");
        decimal(parts.iter().find(|part| part.get("url").and_then(Value::as_str) == Some(name))?.get("valueDecimal")?)
    };
    let told = |of: &Value| {
        let told = items(of, "extension").iter().find(|one| url_ends(one, "/cannot-tell"))?;
        let count = |part: &&Value| part.get("url").and_then(Value::as_str) == Some("count");
        items(told, "extension").iter().find(count)?.get("valueInteger")?.as_u64()
    };
    let cannot_tell = told(group).unwrap_or_else(|| items(group, "population").iter().filter_map(told).sum());
    Parts { numerator: side("numerator"), denominator: side("denominator"), score: group.pointer("/measureScore/value").and_then(decimal), cannot_tell }
}

fn arithmetic(report: &Value, found: &mut Vec<Finding>) {
    for (index, group) in items(report, "group").iter().enumerate() {
        let proportion = scoring(report, group) == Some("proportion");
        let at = format!("/group/{index}");
        let whole = parts(group);
        within(&whole, proportion, &at, found);
        let is_composite = scoring(report, group) == Some("composite");
        weighted(group, is_composite, &at, found);
        nested(group, &at, found);
        for (place, stratifier) in items(group, "stratifier").iter().enumerate() {
            let mut sums = [Decimal::ZERO; 2];
            for (number, stratum) in items(stratifier, "stratum").iter().enumerate() {
                let own = parts(stratum);
                let at = format!("{at}/stratifier/{place}/stratum/{number}");
                within(&own, proportion, &at, found);
                weighted(stratum, is_composite, &at, found);
                nested(stratum, &at, found);
                sums[0] += own.numerator.unwrap_or_default();
                sums[1] += own.denominator.unwrap_or_default();
            }
            let whole = [whole.numerator.unwrap_or_default(), whole.denominator.unwrap_or_default()];
            if proportion_or_ratio(report, group) && sums != whole && !items(stratifier, "stratum").is_empty() {
                found.push(Finding {
                    weight: Weight::Warn,
                    rule: "strata-sum-to-total",
                    at: format!("{at}/stratifier/{place}"),
                    message: format!("the strata sum to {} of {}, the group has {} of {}", sums[0], sums[1], whole[0], whole[1]),
                    owner: Owner::Author,
                    action: "give everyone exactly one stratum, or name the policy under which strata overlap",
                });
            }
        }
    }
}

fn proportion_or_ratio(report: &Value, group: &Value) -> bool {
    matches!(scoring(report, group), Some("proportion" | "ratio"))
}

fn within(own: &Parts, proportion: bool, at: &str, found: &mut Vec<Finding>) {
    let (Some(numerator), Some(denominator)) = (own.numerator, own.denominator) else { return };
    if proportion && numerator > denominator {
        found.push(block("numerator-within-denominator", at, format!("the numerator {numerator} is greater than the denominator {denominator}")));
    }
    if numerator.is_sign_negative() || denominator.is_sign_negative() {
        found.push(block("no-negative-count", at, format!("numerator {numerator}, denominator {denominator}")));
    }
}

/// A composite's score is shown in percent, so it lies between 0 and 1; a weighted one that does not is made of scores that do not. (A
/// stratum does not name them.)
fn weighted(group: &Value, is_composite: bool, at: &str, found: &mut Vec<Finding>) {
    let beyond = |score: &Decimal| !(Decimal::ZERO..=Decimal::ONE).contains(score);
    let Some(score) = parts(group).score.filter(|score| is_composite && beyond(score)) else { return };
    let made_of = items(group, "extension")
        .iter()
        .find(|one| url_ends(one, "/composite"))
        .map_or(&[][..], |composite| items(composite, "extension"));
    let own = |component: &Value| {
        let part = |name: &str| items(component, "extension").iter().find(|part| url_ends(part, name));
        let score = decimal(part("score")?.get("valueDecimal")?).filter(beyond)?;
        Some(format!("`{}` has {}", part("measure")?.get("valueString")?.as_str()?, score.normalize()))
    };
    let components = made_of.iter().filter_map(own).collect::<Vec<_>>().join(", ");
    let why = if components.is_empty() { String::new() } else { format!(": {components}") };
    found.push(Finding {
        owner: Owner::Author,
        action: "make the composite of proportions only; the report is held until then, those of other measures are sent",
        ..block("composite-between-0-and-1", at, format!("the score of the composite is {}, expected between 0 and 1{why}", score.normalize()))
    });
}

/// No population may be larger than the one it is taken from.
fn nested(group: &Value, at: &str, found: &mut Vec<Finding>) {
    let count = |code: &str| {
        let mut same = items(group, "population").iter().filter(|population| population_code(population) == Some(code));
        let first = same.next()?.get("count")?.as_u64();
        // Two initial populations of a ratio: nothing follows from one of them.
        if same.next().is_some() { None } else { first }
    };
    for (inner, outer) in [
        ("denominator", "initial-population"),
        ("measure-population", "initial-population"),
        ("denominator-exclusion", "denominator"),
        ("denominator-exception", "denominator"),
        ("numerator-exclusion", "numerator"),
        ("measure-population-exclusion", "measure-population"),
    ] {
        if let (Some(few), Some(many)) = (count(inner), count(outer))
            && few > many
        {
            found.push(block("population-within-its-parent", at, format!("`{inner}` has {few}, `{outer}` only {many}")));
        }
    }
}

/// What is believable of a measure's reports; percentages are whole numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// Smallest believable denominator.
    pub denominator_min: Option<u64>,
    /// Largest change against the median of earlier denominators, in percent, where it is more than chance gives.
    pub denominator_change_percent: Option<u32>,
    /// Lowest believable score, multiplier applied.
    pub score_min: Option<Decimal>,
    /// Highest believable score, multiplier applied.
    pub score_max: Option<Decimal>,
    /// Largest believable share for whom the record cannot tell, in percent of the denominator.
    pub cannot_tell_percent: Option<u32>,
}

/// Decimal places of a score in words.
const SCORE_DIGITS: u32 = 4;
/// Earlier denominators fewer than this say nothing about a change.
const EARLIER_MIN: usize = 3;

/// Compares a report with the measure's guards and with its reports of earlier periods. A guard that is not set says nothing.
pub fn plausible(report: &Value, guards: &Guards, earlier: &[&Value]) -> Vec<Finding> {
    let of_group = |(index, group): (usize, &Value)| {
        let before = earlier.iter().filter_map(|report| parts(items(report, "group").get(index)?).denominator).collect();
        let found = believable(&parts(group), guards, before);
        found.into_iter().map(move |finding| Finding { at: format!("/group/{index}"), ..finding })
    };
    items(report, "group").iter().enumerate().flat_map(of_group).collect()
}

/// The same of the numbers of one group, beside its denominators of earlier periods.
pub fn believable(own: &Parts, guards: &Guards, earlier: Vec<Decimal>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |rule, message: String, action| {
        found.push(Finding { weight: Weight::Warn, rule, at: String::new(), message, owner: Owner::Steward, action });
    };
    if let (Some(denominator), Some(least)) = (own.denominator, guards.denominator_min)
        && denominator < Decimal::from(least)
    {
        let message = format!("the denominator is {denominator}, at least {least} is expected");
        warn("denominator-small", message, "see whether data of this period arrived from all units, and whether codes are mapped");
    }
    if let (Some(denominator), Some(limit)) = (own.denominator, guards.denominator_change_percent)
        && let Some(median) = median(earlier).filter(|median| !median.is_zero())
    {
        let difference = denominator.saturating_sub(median);
        let percent = difference.checked_div(median).and_then(|change| change.checked_mul(Decimal::ONE_HUNDRED));
        // Of few, a percentage says nothing: three standard deviations of a count are what chance gives.
        let chance = median.checked_div(difference.abs()).and_then(|chance| chance.checked_mul(Decimal::from(9)));
        if let Some(change) = percent.filter(|change| change.abs() > Decimal::from(limit))
            && chance.is_some_and(|chance| difference.abs() > chance)
        {
            warn(
                "denominator-jumps",
                format!("the denominator {denominator} is {:+} % off the median of earlier periods, {median}; at most {limit} % is expected", change.round()),
                "compare the number of encounters with the period before; a unit or a code may have changed",
            );
        }
    }
    if let Some(score) = own.score {
        let low = guards.score_min.filter(|least| score < *least).map(|least| format!("at least {least}"));
        let high = guards.score_max.filter(|most| score > *most).map(|most| format!("at most {most}"));
        if let Some(expected) = low.or(high) {
            warn(
                "score-beyond-guard",
                format!("the score is {}, {expected} is expected", score.round_dp(SCORE_DIGITS).normalize()),
                "look into the records of some patients (`watershed measure explain`; at a site with `--config site.toml`)",
            );
        }
    }
    if let Some(limit) = guards.cannot_tell_percent {
        let denominator = own.denominator.unwrap_or_default();
        let share = Decimal::from(own.cannot_tell) * Decimal::ONE_HUNDRED / denominator.max(Decimal::ONE);
        if share > Decimal::from(limit) {
            warn(
                "too-much-unknown",
                format!("for {} the record cannot tell, and the denominator is {denominator}; at most {limit} % of it is expected", own.cannot_tell),
                "see the reasons in the report, then map codes or talk to the clinic",
            );
        }
    }
    found
}

fn median(mut sorted: Vec<Decimal>) -> Option<Decimal> {
    if sorted.len() < EARLIER_MIN {
        return None;
    }
    sorted.sort();
    let (low, high) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
    Some(low + high.saturating_sub(*low) / Decimal::TWO)
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn url_ends(extension: &Value, end: &str) -> bool {
    extension.get("url").and_then(Value::as_str).is_some_and(|url| url.ends_with(end))
}

fn decimal(value: &Value) -> Option<Decimal> {
    let text = value.as_number()?.to_string();
    text.parse().or_else(|_| Decimal::from_scientific(&text)).ok()
}

fn population_code(population: &Value) -> Option<&str> {
    population.pointer("/code/coding/0/code").and_then(Value::as_str)
}

/// The scoring of a group: its own, else the report's.
pub fn scoring<'a>(report: &'a Value, group: &'a Value) -> Option<&'a str> {
    let own = |value: &'a Value| {
        let extension = items(value, "extension").iter().find(|one| url_ends(one, "measureScoring") || url_ends(one, "/cqf-scoring"))?;
        extension.pointer("/valueCodeableConcept/coding/0/code").and_then(Value::as_str)
    };
    own(group).or_else(|| own(report))
}
