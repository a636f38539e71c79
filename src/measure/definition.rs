//! `measure.yaml`: the FHIR Measure in a form that a person writes.
//!
//! [`parse`] turns the text into a [`Definition`] and says everything that is wrong with it at once, with
//! line and column. Whether the CQL definitions it names exist is checked by [`super::compile`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use super::Period;
use super::composite::{Composite, CompositeScoring};
use super::population::{Aggregate, GroupShape, PopulationCode, Scoring, Slot};
use crate::diagnostic::yaml::{self, locate};
use crate::diagnostic::{self, Diagnostic, Location, SourceFile, Span};

mod elsewhere;
pub(in crate::measure) mod parts;

use parts::{check_groups, unique};

/// A text of the file with its place in it.
pub type Text = Spanned<String>;

/// What kind of member is counted: the patient, or a type of event as `Encounter`.
pub const PATIENT: &str = "Patient";

/// `measure.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Definition {
    /// FHIR id, unique in the network: letters, digits, `-` and `.`, at most 40.
    pub id: Text,
    /// Canonical URL, without version.
    pub url: Text,
    /// Semantic version, as `1.0.0`.
    pub version: Text,
    /// Versions before it whose values can stand in one series with its own: what changed moves no number.
    #[serde(default)]
    pub comparable_with: Vec<String>,
    /// Draft, active or retired.
    pub status: Status,
    /// One line for people.
    pub title: String,
    /// What is counted, in plain language: a family should understand it.
    pub description: String,
    /// Who answers for the meaning of the measure.
    pub steward: String,
    /// Where the definition comes from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Proportion, ratio, continuous variable, cohort or composite.
    pub scoring: Scoring,
    /// Whether its numbers are made here, of patients' records, or come from another system that has counted already.
    #[serde(default)]
    pub counted: Counted,
    /// `Patient`, or the type of the events counted.
    #[serde(default = "patient")]
    pub basis: Text,
    /// Which direction is better.
    pub improvement: Improvement,
    /// The length of a reporting period.
    #[serde(default)]
    pub period: Interval,
    /// File name of the CQL beside this file; may be left out when there is exactly one.
    #[serde(default)]
    pub library: Option<Text>,
    /// Multiplier and unit of a ratio's score.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// The network's choices, by the name of the CQL parameter.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Populations of the only group.
    #[serde(default)]
    pub populations: Vec<Population>,
    /// Stratifiers of the only group.
    #[serde(default)]
    pub stratifiers: Vec<Stratifier>,
    /// How the components of the only group become one score.
    #[serde(default)]
    pub composite_scoring: Option<CompositeScoring>,
    /// What the only group is made of.
    #[serde(default)]
    pub components: Vec<ComponentMeasure>,
    /// Several groups, instead of `populations`, `stratifiers` and `components`.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Further facts counted over the initial population.
    #[serde(default)]
    pub supplemental_data: Vec<Supplement>,
    /// Limits beyond which a report is looked at before it is believed.
    #[serde(default)]
    pub plausibility: Plausibility,
    /// How the series is drawn.
    #[serde(default)]
    pub chart: Option<Chart>,
    /// Of published criteria the texts that may be expressions of CQL in the place of a name, and whether they can be nothing else.
    #[serde(skip)]
    pub expressions: BTreeMap<String, bool>,
}

fn patient() -> Text {
    unwritten(PATIENT)
}

fn nothing() -> Text {
    unwritten("")
}

/// A text that is not in the file, but stands for something left out.
pub(super) fn unwritten(text: &str) -> Text {
    Spanned::new(text.to_owned(), serde_saphyr::Location::UNKNOWN, serde_saphyr::Location::UNKNOWN)
}

/// Stage of life of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Status {
    Draft,
    Active,
    Retired,
}

/// Where the numbers of a measure are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Here, of patients' records, by CQL.
    #[default]
    Here,
    /// By another system: they come as a table with a row for each period.
    Elsewhere,
}

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Improvement {
    Increase,
    Decrease,
    /// A published Measure need not say it.
    #[serde(skip)]
    NotTold,
}

impl Improvement {
    /// The code in `http://terminology.hl7.org/CodeSystem/measure-improvement-notation`; of what is not told the one of FHIR's
    /// data-absent-reason.
    pub fn code(self) -> &'static str {
        match self {
            Improvement::Increase => "increase",
            Improvement::Decrease => "decrease",
            Improvement::NotTold => "unknown",
        }
    }
}

/// The length of a reporting period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Interval {
    #[default]
    Month,
    Quarter,
    Year,
}

impl Interval {
    /// Of a month, quarter or year of the calendar.
    pub fn of(first: Date, last: Date) -> Option<Interval> {
        let is_whole = first.day() == 1 && last == last.last_of_month();
        let months = (i32::from(last.year()) - i32::from(first.year())) * 12 + i32::from(last.month()) - i32::from(first.month()) + 1;
        match (months, first.month()) {
            (1, _) if is_whole => Some(Interval::Month),
            (3, 1 | 4 | 7 | 10) if is_whole => Some(Interval::Quarter),
            (12, 1) if is_whole => Some(Interval::Year),
            _ => None,
        }
    }

    /// Its length in months.
    pub fn months(self) -> i8 {
        match self {
            Interval::Month => 1,
            Interval::Quarter => 3,
            Interval::Year => 12,
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Interval::Month => "month",
            Interval::Quarter => "quarter",
            Interval::Year => "year",
        }
    }

    /// The periods of the calendar and of this length that hold one of some months and are over when the last of them is, oldest first.
    ///
    /// ```
    /// use watershed::measure::{Period, definition::Interval};
    ///
    /// let months = Period::complete_months("2026-05-02".parse()?, 24);
    /// let of = |length: Interval| length.periods(&months).iter().map(Period::to_string).collect::<Vec<_>>();
    /// assert_eq!(of(Interval::Year), ["2024-01-01/2024-12-31", "2025-01-01/2025-12-31"]);
    /// assert_eq!(of(Interval::Quarter).last().unwrap(), "2026-01-01/2026-03-31");
    /// assert_eq!(of(Interval::Month).len(), 24);
    /// # Ok::<(), jiff::Error>(())
    /// ```
    pub fn periods(self, months: &[Period]) -> Vec<Period> {
        let length = self.months();
        let around = |month: &Period| {
            let into = (month.start.month() - 1) % length;
            let start = month.start.first_of_month().checked_sub(into.months()).ok()?;
            let last = start.checked_add((length - 1).months()).ok()?;
            Period::new(start, last.last_of_month())
        };
        let over = months.iter().map(|month| month.end).max();
        let found: BTreeSet<Period> = months.iter().filter_map(around).filter(|period| Some(period.end) <= over).collect();
        found.into_iter().collect()
    }
}

/// Multiplier of a ratio's score, as `1000` per `1,000 central line days`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rate {
    /// What numerator divided by denominator is multiplied by.
    pub multiplier: u32,
    /// Unit of the score for people, as `per 1,000 central line days`: the multiplier and what the denominator counts, in words.
    pub unit: Text,
}

impl Rate {
    /// The number of its unit, and what the denominator counts: `1,000` and `central line days`. Both are empty where the unit is
    /// written otherwise.
    pub fn words(&self) -> (&str, &str) {
        let words = self.unit.value.trim().strip_prefix("per ").unwrap_or_default().trim_start();
        let of = words.trim_start_matches(|c: char| c.is_ascii_digit() || c == ',');
        (words.strip_suffix(of).unwrap_or_default(), of.trim())
    }
}

/// One choice that the network, not the standard, makes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Parameter {
    /// The value, in place of the default of the CQL.
    pub value: Spanned<Literal>,
    /// What it means.
    pub text: String,
    /// Whether the network has yet to confirm it.
    #[serde(default)]
    pub confirm: bool,
    /// Where the value comes from.
    #[serde(default)]
    pub source: Option<String>,
}

/// The value of a parameter as YAML writes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected `true`, `false`, a number or a text")]
pub enum Literal {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a point, or any text: read by the type of the CQL parameter.
    Decimal(f64),
    /// Text.
    Text(String),
}

impl Literal {
    /// The value as text, as it would be given on the command line.
    pub fn text(&self) -> String {
        match self {
            Literal::Boolean(value) => value.to_string(),
            Literal::Integer(value) => value.to_string(),
            Literal::Decimal(value) => value.to_string(),
            Literal::Text(value) => value.clone(),
        }
    }
}

/// One group of populations with a score of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Id, unique in the measure.
    pub id: Text,
    /// For people.
    #[serde(default)]
    pub text: Option<String>,
    /// Its scoring, where it is not that of the measure.
    #[serde(default)]
    pub scoring: Option<Scoring>,
    /// What it counts, where it is not what the measure counts.
    #[serde(default)]
    pub basis: Option<Text>,
    /// Which direction is better, where it is not that of the measure.
    #[serde(default)]
    pub improvement: Option<Improvement>,
    /// Its populations, in the order in which reports give them.
    #[serde(default)]
    pub populations: Vec<Population>,
    /// Its stratifiers.
    #[serde(default)]
    pub stratifiers: Vec<Stratifier>,
    /// How its components become one score.
    #[serde(default)]
    pub composite_scoring: Option<CompositeScoring>,
    /// What a composite is made of, as it is written.
    #[serde(default)]
    pub components: Vec<ComponentMeasure>,
    /// The same, once the components are found.
    #[serde(skip)]
    pub composite: Option<Composite>,
}

/// One component of a composite: a group of a measure that is loaded together with it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ComponentMeasure {
    /// Id or canonical URL of the measure.
    pub measure: Text,
    /// Its version; the newest that is loaded when left out.
    #[serde(default)]
    pub version: Option<Text>,
    /// Its group; may be left out when there is exactly one.
    #[serde(default)]
    pub group: Option<Text>,
    /// How much its score counts in a weighted composite; 1 when left out.
    #[serde(default)]
    pub weight: Option<f64>,
}

/// One population and the CQL definition that decides it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Population {
    /// Which population.
    pub code: PopulationCode,
    /// Id, unique in the group; the code when left out.
    #[serde(default)]
    pub id: Option<Text>,
    /// Name of the CQL definition: Boolean for patients, a list for events; for an observation a function of one event. Empty where the
    /// population is counted elsewhere.
    #[serde(default = "nothing")]
    pub define: Text,
    /// For people.
    #[serde(default)]
    pub text: Option<String>,
    /// Id of the population this one depends on: which initial population, or what is observed.
    #[serde(default)]
    pub of: Option<Text>,
    /// How observations become one number.
    #[serde(default)]
    pub aggregate: Option<Aggregate>,
    /// Definitions that say for whom the record cannot tell, and why.
    #[serde(default)]
    pub cannot_tell: Vec<CannotTell>,
}

/// When the record cannot tell whether someone belongs to a population.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CannotTell {
    /// Name of the CQL definition, of the same type as the population's.
    pub define: Text,
    /// Why.
    pub reason: Reason,
    /// What is missing, for people.
    pub text: String,
}

/// Why the record cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nobody wrote it down.
    NotDocumented,
    /// It is written in a code that no mapping translates.
    UnmappedCode,
    /// It is there, but too long ago.
    OutsideLookback,
    /// A number without a unit, or in one that cannot be converted.
    WrongUnit,
    /// A date that is not precise enough.
    PartialDate,
}

/// Reason of a criterion that looked at a value that could not be used: its unit does not compare, or it has a comparator.
pub const NOT_COUNTED: &str = "value-not-counted";

/// Reason of a criterion that gave null and said no more.
pub const UNDETERMINED: &str = "undetermined";

impl Reason {
    /// The code used in reports.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NotDocumented => "not-documented",
            Reason::UnmappedCode => "unmapped-code",
            Reason::OutsideLookback => "outside-lookback",
            Reason::WrongUnit => "wrong-unit",
            Reason::PartialDate => "partial-date",
        }
    }
}

/// How members are divided into strata.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stratifier {
    /// Id, unique in the group.
    pub id: Text,
    /// For people.
    #[serde(default)]
    pub text: Option<String>,
    /// CQL definition (of the patient) or function of one event that gives the stratum, or, for
    /// criteria, the members in it.
    #[serde(default)]
    pub define: Option<Text>,
    /// A value each member has, or members that meet a criterion.
    #[serde(default)]
    pub kind: StratifierKind,
    /// Several values together name a stratum, instead of `define`.
    #[serde(default)]
    pub components: Vec<Component>,
    /// Name and version of the policy by which a patient comes into a stratum.
    #[serde(default)]
    pub policy: Option<String>,
    /// Names of known strata for people.
    #[serde(default)]
    pub strata: BTreeMap<String, String>,
}

/// What a stratifier's definition gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum StratifierKind {
    #[default]
    Value,
    Criteria,
    /// As the definition's type says: a list of the basis is a criterion, anything else a value.
    ByType,
}

/// One part of a stratum's name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Component {
    /// Id, unique in the stratifier.
    pub id: Text,
    /// CQL definition or function of one event.
    pub define: Text,
    /// For people.
    #[serde(default)]
    pub text: Option<String>,
    /// Names of its known values for people.
    #[serde(default)]
    pub strata: BTreeMap<String, String>,
}

/// A fact counted over the initial population.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Supplement {
    /// Id, unique in the measure.
    pub id: Text,
    /// CQL definition.
    pub define: Text,
    /// For people.
    #[serde(default)]
    pub text: Option<String>,
}

/// Limits beyond which a report is looked at before it is believed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plausibility {
    /// Smallest denominator that is believable for one site and period.
    #[serde(default)]
    pub denominator_min: Option<u64>,
    /// Largest change of the denominator against the median of earlier periods, in percent, where it is more than chance gives.
    #[serde(default)]
    pub denominator_change_percent: Option<u32>,
    /// Lowest believable score, multiplier applied.
    #[serde(default)]
    pub score_min: Option<f64>,
    /// Highest believable score, multiplier applied.
    #[serde(default)]
    pub score_max: Option<f64>,
    /// Largest believable share of members for whom the record cannot tell, in percent.
    #[serde(default)]
    pub cannot_tell_percent: Option<u32>,
}

/// How the series is drawn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Chart {
    /// A run chart, with the rules for these.
    #[serde(rename = "type")]
    pub kind: ChartKind,
    /// A goal to draw: a score as reports have it, multiplier applied; of a proportion between 0 and 1.
    #[serde(default)]
    pub goal: Option<f64>,
    /// Months of the patients whom one value counts, where these are more than its own period: neighbours share most of them, and what
    /// tells signals from chance takes values for independent.
    #[serde(default)]
    pub lookback_months: Option<u32>,
}

/// Types of charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ChartKind {
    Run,
}

impl Definition {
    /// Canonical URL with version.
    pub fn canonical(&self) -> String {
        format!("{}|{}", self.url.value, self.version.value)
    }

    /// What a group counts: `Patient`, or the type of the events.
    pub fn basis_of<'a>(&'a self, group: &'a Group) -> &'a str {
        group.basis.as_ref().map_or(&self.basis.value, |basis| &basis.value)
    }

    /// The scoring of a group: its own, else the measure's.
    pub fn scoring_of(&self, group: &Group) -> Scoring {
        group.scoring.unwrap_or(self.scoring)
    }

    /// Which direction is better for a group: its own, else the measure's.
    pub fn improvement_of(&self, group: &Group) -> Improvement {
        group.improvement.unwrap_or(self.improvement)
    }

    /// Whether a group of it is made of other groups.
    pub fn is_composite(&self) -> bool {
        self.all_groups().iter().any(|group| self.scoring_of(group) == Scoring::Composite)
    }

    /// Whether another system counts it.
    pub fn is_counted_elsewhere(&self) -> bool {
        self.counted == Counted::Elsewhere
    }

    /// Whether it names definitions of a CQL of its own: a composite may do without.
    pub fn has_logic(&self) -> bool {
        let of_group = |group: &Group| self.scoring_of(group) != Scoring::Composite && !self.is_counted_elsewhere() || !group.stratifiers.is_empty();
        self.library.is_some() || !self.supplemental_data.is_empty() || self.all_groups().iter().any(of_group)
    }

    /// The groups, whether written as `groups` or as the only one.
    pub fn all_groups(&self) -> Vec<Group> {
        if !self.groups.is_empty() {
            return self.groups.clone();
        }
        vec![Group {
            id: unwritten("group-1"),
            text: None,
            scoring: None,
            basis: None,
            improvement: None,
            populations: self.populations.clone(),
            stratifiers: self.stratifiers.clone(),
            composite_scoring: self.composite_scoring,
            components: self.components.clone(),
            composite: None,
        }]
    }
}

impl Population {
    /// Its id: the one given, else its code.
    pub fn id(&self) -> &str {
        self.id.as_ref().map_or(self.code.code(), |id| &id.value)
    }
}

impl Group {
    /// What the algebra needs of the group; `scoring` is the measure's.
    pub fn shape(&self, scoring: Scoring) -> GroupShape {
        let scoring = self.scoring.unwrap_or(scoring);
        let place = |id: &str| self.populations.iter().position(|population| population.id() == id);
        let slot = |population: &Population| Slot { code: population.code, of: population.of.as_ref().and_then(|of| place(&of.value)), aggregate: population.aggregate };
        GroupShape { scoring, slots: self.populations.iter().map(slot).collect(), composite: self.composite.clone() }
    }
}

/// Reads a `measure.yaml`; `None` when it cannot be used.
pub fn parse(source: &Arc<SourceFile>) -> (Option<Definition>, Vec<Diagnostic>) {
    let definition: Definition = match yaml::read(source) {
        Ok(definition) => definition,
        // What is missing names no values.
        Err(fault) if fault.help.is_none() && fault.message == "the field `improvement` is missing" => {
            return (None, vec![fault.help("say which direction is better: `improvement: increase` or `improvement: decrease`")]);
        }
        Err(fault) => return (None, vec![fault]),
    };
    let mut found = Vec::new();
    check_head(source, &definition, &mut found);
    check_groups(source, &definition, &mut found);
    if definition.is_counted_elsewhere() {
        elsewhere::check(source, &definition, &mut found);
    }
    let usable = !diagnostic::has_errors(&found);
    (usable.then_some(definition), found)
}

fn check_head(source: &Arc<SourceFile>, definition: &Definition, found: &mut Vec<Diagnostic>) {
    let id = &definition.id;
    let fits = !id.value.is_empty() && id.value.len() <= 40 && id.value.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    if !fits {
        found.push(
            Diagnostic::error(format!("`{}` is not an id", id.value))
                .at(locate(source, id))
                .help("use 1 to 40 letters, digits, `-` or `.`"),
        );
    }
    let url = &definition.url;
    if !(url.value.starts_with("http://") || url.value.starts_with("https://") || url.value.starts_with("urn:")) || url.value.contains('|') {
        found.push(
            Diagnostic::error(format!("`{}` is not a canonical URL", url.value))
                .at(locate(source, url))
                .help("begin with `http://`, `https://` or `urn:` and leave the version to `version`"),
        );
    }
    let version = &definition.version;
    let parts: Vec<&str> = version.value.split('.').collect();
    if parts.len() != 3 || parts.iter().any(|part| part.is_empty() || !part.chars().all(|c| c.is_ascii_digit())) {
        found.push(
            Diagnostic::error(format!("`{}` is not a version", version.value))
                .at(locate(source, version))
                .help("write three numbers, as `'1.0.0'`"),
        );
    }
    if definition.rate.is_some() && definition.scoring != Scoring::Ratio {
        found.push(
            Diagnostic::error("only a ratio has a `rate`: the score of a proportion lies between 0 and 1")
                .at(key(source, "rate"))
                .help("remove `rate`, or change `scoring` to `ratio`"),
        );
    }
    if definition.rate.as_ref().is_some_and(|rate| rate.multiplier == 0) {
        let finding = Diagnostic::error("a `multiplier` of 0 makes every rate 0").at(key(source, "rate").first("multiplier"));
        found.push(finding.help("write what the score is per, as `multiplier: 1000` and `unit: per 1,000 central line days`; 1 where nothing is multiplied"));
    }
    check_rate(source, definition, found);
    check_limits(source, definition, found);
    let mut data = BTreeMap::new();
    for datum in &definition.supplemental_data {
        unique(source, "supplemental data", &datum.id, &mut data, found);
    }
}

/// A rate whose words say another number than is multiplied by.
fn check_rate(source: &Arc<SourceFile>, definition: &Definition, found: &mut Vec<Diagnostic>) {
    let Some(rate) = definition.rate.as_ref().filter(|rate| rate.multiplier > 0) else { return };
    let (number, of) = rate.words();
    let is_number = if number.is_empty() { rate.multiplier == 1 } else { number.replace(',', "") == rate.multiplier.to_string() };
    if of.is_empty() || !is_number {
        let finding = Diagnostic::error(format!("`{}` does not say in words what a multiplier of {} means", rate.unit.value, rate.multiplier));
        let help = format!("write `per`, the multiplier, and what the denominator counts, as `per {} central line days`: it is shown beside the score", grouped(rate.multiplier));
        found.push(finding.at(locate(source, &rate.unit)).help(help));
    }
}

/// A number as people write it: `1,000`.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let places = digits.len();
    let comma = |at: usize| if at > 0 && (places - at).is_multiple_of(3) { "," } else { "" };
    digits.char_indices().map(|(at, digit)| format!("{}{digit}", comma(at))).collect()
}

/// Limits and goals that no report could be held to.
fn check_limits(source: &Arc<SourceFile>, definition: &Definition, found: &mut Vec<Diagnostic>) {
    let Plausibility { score_min, score_max, .. } = definition.plausibility;
    if let (Some(least), Some(most)) = (score_min, score_max)
        && least > most
    {
        let message = format!("no score is at least {least} and at most {most}");
        found.push(
            Diagnostic::error(message)
                .at(key(source, "plausibility").first("score-min"))
                .help("`score-min` is the lower of the two"),
        );
    }
    let Some(goal) = definition.chart.as_ref().and_then(|chart| chart.goal) else { return };
    let place = key(source, "chart").first("goal");
    if definition.scoring == Scoring::Proportion && !(0.0..=1.0).contains(&goal) {
        let message = format!("the score of a proportion lies between 0 and 1, and the goal is {goal}");
        found.push(Diagnostic::error(message).at(place).help(format!("of {goal} % write `goal: {}`", goal / 100.0)));
    } else if definition.groups.len() > 1 {
        found.push(
            Diagnostic::error("a measure of several groups has no one `goal`")
                .at(place)
                .help("remove it, or make each group a measure of its own"),
        );
    }
}

/// A key of the file's own level.
pub fn key(source: &Arc<SourceFile>, name: &str) -> Location {
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        if line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':')) {
            break;
        }
        start += line.len();
    }
    Location::new(source, Span::new(start as u32, (start + name.len()) as u32))
}

/// The scoring for people.
pub fn word(scoring: Scoring) -> &'static str {
    match scoring {
        Scoring::Proportion => "proportion",
        Scoring::Ratio => "ratio",
        Scoring::ContinuousVariable => "continuous variable",
        Scoring::Cohort => "cohort",
        Scoring::Composite => "composite",
    }
}

#[cfg(test)]
mod tests;
