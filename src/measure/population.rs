//! The population algebra of the Quality Measure guide, over one patient, and its sums over many.
//!
//! Both bases are one here: a patient-based criterion is a set of at most one member, an event-based
//! one a set of events. Counts are reported the way published measures expect them: each population
//! holds the members of its criterion that its parent let through, *before* exclusions are taken off
//! (a patient with an exclusion is in the denominator and in the exclusion); the score subtracts.
//!
//! Proportion: `D = IP ∩ d`, `DENEX = D ∩ x`, `N = D ∖ DENEX ∩ n`, `NUMEX = N ∩ nx`,
//! `DENEXCEP = D ∖ DENEX ∖ N ∩ e`; score `|N ∖ NUMEX| / |D ∖ DENEX ∖ DENEXCEP|`.
//! Ratio: numerator and denominator each from its own initial population, independently.
//! Continuous variable: an aggregate of one observation per member of `MP ∖ MPEX`.
//! Composite: [`super::composite`].
//!
//! Beside the official answer (unknown is false) every population counts the members for which the
//! record cannot tell, by reason; and of a score that is a mean of its members it is told how low and how high it can be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::composite::{self, Composite, CompositeScoring};

mod given;
mod observations;

pub use observations::{Amount, Observations};

/// Digits after the point of a score that does not divide evenly.
const SCORE_DIGITS: u32 = 12;

/// What kind of number a measure ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// Members of the numerator among those of the denominator, 0 to 1.
    Proportion,
    /// Two numbers counted independently, often with a multiplier.
    Ratio,
    /// An aggregate of one observation per member.
    ContinuousVariable,
    /// A count of members and nothing else.
    Cohort,
    /// Made of groups of other measures, its components.
    Composite,
}

/// The populations a measure can have, in the guide's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum PopulationCode {
    InitialPopulation,
    Denominator,
    DenominatorExclusion,
    DenominatorException,
    Numerator,
    NumeratorExclusion,
    MeasurePopulation,
    MeasurePopulationExclusion,
    MeasureObservation,
}

impl Scoring {
    /// The code in `http://terminology.hl7.org/CodeSystem/measure-scoring`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Proportion => "proportion",
            Self::Ratio => "ratio",
            Self::ContinuousVariable => "continuous-variable",
            Self::Cohort => "cohort",
            Self::Composite => "composite",
        }
    }
}

impl PopulationCode {
    /// The code in `http://terminology.hl7.org/CodeSystem/measure-population`.
    pub fn code(self) -> &'static str {
        match self {
            Self::InitialPopulation => "initial-population",
            Self::Denominator => "denominator",
            Self::DenominatorExclusion => "denominator-exclusion",
            Self::DenominatorException => "denominator-exception",
            Self::Numerator => "numerator",
            Self::NumeratorExclusion => "numerator-exclusion",
            Self::MeasurePopulation => "measure-population",
            Self::MeasurePopulationExclusion => "measure-population-exclusion",
            Self::MeasureObservation => "measure-observation",
        }
    }

    /// The population of that code.
    pub fn of(code: &str) -> Option<PopulationCode> {
        let all = [
            Self::InitialPopulation,
            Self::Denominator,
            Self::DenominatorExclusion,
            Self::DenominatorException,
            Self::Numerator,
            Self::NumeratorExclusion,
            Self::MeasurePopulation,
            Self::MeasurePopulationExclusion,
            Self::MeasureObservation,
        ];
        all.into_iter().find(|one| one.code() == code)
    }

    /// The same for people.
    pub fn display(self) -> &'static str {
        match self {
            Self::InitialPopulation => "Initial Population",
            Self::Denominator => "Denominator",
            Self::DenominatorExclusion => "Denominator Exclusion",
            Self::DenominatorException => "Denominator Exception",
            Self::Numerator => "Numerator",
            Self::NumeratorExclusion => "Numerator Exclusion",
            Self::MeasurePopulation => "Measure Population",
            Self::MeasurePopulationExclusion => "Measure Population Exclusion",
            Self::MeasureObservation => "Measure Observation",
        }
    }
}

/// How the observations of many members become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Aggregate {
    Sum,
    Count,
    Average,
    Median,
    Minimum,
    Maximum,
}

impl Aggregate {
    /// The method of that code, in any case: publications write `Sum`.
    pub fn of(code: &str) -> Option<Aggregate> {
        let all = [Self::Sum, Self::Count, Self::Average, Self::Median, Self::Minimum, Self::Maximum];
        all.into_iter().find(|one| one.code().eq_ignore_ascii_case(code))
    }

    /// The code in `http://terminology.hl7.org/CodeSystem/measure-aggregate-method`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Average => "average",
            Self::Median => "median",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
        }
    }
}

/// One population of a group, as the algebra needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which population.
    pub code: PopulationCode,
    /// Index, within the group, of the population this one depends on: the initial population of a
    /// denominator, numerator or measure population; the observed population of an observation.
    pub of: Option<usize>,
    /// For observations: how they are aggregated.
    pub aggregate: Option<Aggregate>,
}

/// The shape of one group: its scoring and its populations in the measure's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupShape {
    /// The group's scoring.
    pub scoring: Scoring,
    /// Its populations.
    pub slots: Vec<Slot>,
    /// What a composite is made of.
    pub composite: Option<Composite>,
}

/// A member of a population within one patient: the patient (empty key) or an event's key.
pub type Member = String;

/// What the criteria of one group said about one patient, before any algebra. One entry per slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Members for which the criterion holds.
    pub holds: Vec<BTreeSet<Member>>,
    /// Members for which the record cannot tell, each with its reason.
    pub unknown: Vec<BTreeMap<Member, String>>,
    /// Of those for which the criterion holds, the ones for which it might not if a value could be used that cannot.
    pub doubtful: Vec<BTreeSet<Member>>,
    /// Observations of each member (only for observation slots); no entry when it gave null.
    pub observed: Vec<BTreeMap<Member, Amount>>,
}

impl Criteria {
    /// Nothing holds in any of `slots` populations.
    pub fn none(slots: usize) -> Criteria {
        Criteria {
            holds: vec![BTreeSet::new(); slots],
            unknown: vec![BTreeMap::new(); slots],
            doubtful: vec![BTreeSet::new(); slots],
            observed: vec![BTreeMap::new(); slots],
        }
    }
}

/// One patient's membership in one population after the algebra.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Members, before exclusions are taken off.
    pub members: BTreeSet<Member>,
    /// Members that count for the score.
    pub scored: BTreeSet<Member>,
    /// Candidates for which the record cannot tell, with the reason; never also members.
    pub unknown: BTreeMap<Member, String>,
    /// Observations of the scored members (observation slots only).
    pub observed: BTreeMap<Member, Amount>,
    /// What members come to in a score that has bounds, or may; beside the population that the score is of.
    pub outlooks: BTreeMap<Member, Outlook>,
}

/// What a member comes to in a score that is the mean of what its members come to, whatever turns out of what the record cannot
/// tell. In a proportion who is in the numerator comes to 1, who is in the denominator alone to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outlook {
    /// At least, if it counts.
    pub least: Decimal,
    /// At most, if it counts.
    pub most: Decimal,
    /// Whether it may not count at all.
    pub may_be_out: bool,
}

impl Outlook {
    /// Nothing is known but that it may count.
    pub const ANY: Outlook = Outlook { least: Decimal::ZERO, most: Decimal::ONE, may_be_out: true };

    /// It comes to this.
    pub fn certain(value: Decimal) -> Outlook {
        Outlook { least: value, most: value, may_be_out: false }
    }

    /// Whether something could turn out otherwise.
    pub fn is_open(self) -> bool {
        self.may_be_out || self.least != self.most
    }

    /// The same where fewer are better.
    #[must_use]
    pub fn turned(self) -> Outlook {
        Outlook { least: Decimal::ONE - self.most, most: Decimal::ONE - self.least, ..self }
    }

    /// Of one to whom one of these happens, each of which is 0, 1 or not to count; `None` where none counts.
    pub(super) fn of(outcomes: impl Iterator<Item = Option<bool>>) -> Option<Outlook> {
        let (mut found, mut may_be_out): (Option<(bool, bool)>, bool) = (None, false);
        for outcome in outcomes {
            match (outcome, found) {
                (None, _) => may_be_out = true,
                (Some(own), None) => found = Some((own, own)),
                (Some(own), Some((least, most))) => found = Some((least && own, most || own)),
            }
        }
        found.map(|(least, most)| Outlook { least: u8::from(least).into(), most: u8::from(most).into(), may_be_out })
    }
}

/// Applies the algebra to the raw criteria of one group and patient. One result per slot.
///
/// ```
/// use watershed::measure::population::{Criteria, GroupShape, PopulationCode, Scoring, Slot, Tallies, memberships, score};
///
/// let slot = |code, of| Slot { code, of, aggregate: None };
/// let shape = GroupShape {
///     scoring: Scoring::Proportion,
///     slots: vec![slot(PopulationCode::InitialPopulation, None), slot(PopulationCode::Denominator, Some(0)), slot(PopulationCode::Numerator, Some(0))],
///     composite: None,
/// };
/// let mut patient = Criteria::none(3);
/// for index in [0, 2] {
///     patient.holds[index].insert(String::new());
/// }
/// // In the numerator's criterion, but not in the denominator's: not in the numerator.
/// let found = memberships(&shape, &patient);
/// assert_eq!(found.iter().map(|one| one.members.len()).collect::<Vec<_>>(), [1, 0, 0]);
///
/// patient.holds[1].insert(String::new());
/// let mut sums = Tallies::new(3);
/// sums.add(&memberships(&shape, &patient), None);
/// assert_eq!(score(&shape, &sums).value, Some(1.into()));
/// ```
pub fn memberships(shape: &GroupShape, criteria: &Criteria) -> Vec<Membership> {
    let mut result = vec![Membership::default(); shape.slots.len()];
    let find = |code| shape.slots.iter().position(|slot| slot.code == code);
    use PopulationCode::{
        Denominator, DenominatorException, DenominatorExclusion, InitialPopulation, MeasurePopulation, MeasurePopulationExclusion, Numerator, NumeratorExclusion,
    };
    for (index, slot) in shape.slots.iter().enumerate() {
        if slot.code == InitialPopulation {
            admit(&mut result, criteria, index, None, &BTreeSet::new());
        }
    }
    let initial = find(InitialPopulation);
    let parent = |index: Option<usize>| index.and_then(|at| shape.slots.get(at)).and_then(|slot| slot.of).or(initial);
    let none = BTreeSet::new();
    let (denominator, numerator) = (find(Denominator), find(Numerator));
    let (exclusion, exception, numerator_exclusion) = (find(DenominatorExclusion), find(DenominatorException), find(NumeratorExclusion));
    if let Some(index) = denominator {
        admit(&mut result, criteria, index, parent(denominator), &none);
    }
    if let Some(index) = exclusion {
        admit(&mut result, criteria, index, denominator, &none);
    }
    let excluded = members_of(&result, exclusion);
    if let Some(index) = numerator {
        match shape.scoring {
            Scoring::Ratio => admit(&mut result, criteria, index, parent(numerator), &none),
            _ => admit(&mut result, criteria, index, denominator, &excluded),
        }
    }
    if let Some(index) = numerator_exclusion {
        admit(&mut result, criteria, index, numerator, &none);
    }
    if let Some(index) = exception {
        let mut closed = excluded.clone();
        closed.extend(members_of(&result, numerator));
        admit(&mut result, criteria, index, denominator, &closed);
    }
    if let Some(index) = find(MeasurePopulation) {
        admit(&mut result, criteria, index, parent(Some(index)), &none);
        if let Some(excluding) = find(MeasurePopulationExclusion) {
            admit(&mut result, criteria, excluding, Some(index), &none);
        }
    }
    for (base, removed) in [(denominator, vec![exclusion, exception]), (numerator, vec![numerator_exclusion]), (find(MeasurePopulation), vec![find(MeasurePopulationExclusion)])] {
        subtract(&mut result, base, &removed);
    }
    observe(shape, criteria, &mut result);
    if shape.scoring == Scoring::Proportion
        && let Some(own) = denominator.and_then(|at| result.get_mut(at))
    {
        own.outlooks = outlooks(criteria, [parent(denominator), denominator, exclusion, numerator, numerator_exclusion, exception]);
    }
    result
}

/// What each member of a proportion may come to: every way is tried in which what cannot be told may turn out. `slots` are the
/// initial population, the denominator, its exclusion, the numerator, its exclusion, and the exception.
fn outlooks(criteria: &Criteria, slots: [Option<usize>; 6]) -> BTreeMap<Member, Outlook> {
    let holds = |slot: Option<usize>, member: &Member| slot.and_then(|at| criteria.holds.get(at)).is_some_and(|holds| holds.contains(member));
    let is_unknown = |slot: Option<usize>, member: &Member| slot.and_then(|at| criteria.unknown.get(at)).is_some_and(|unknown| unknown.contains_key(member));
    let is_doubtful = |slot: Option<usize>, member: &Member| slot.and_then(|at| criteria.doubtful.get(at)).is_some_and(|doubtful| doubtful.contains(member));
    let initial = slots[0];
    let certain = initial.and_then(|at| criteria.holds.get(at)).into_iter().flatten();
    let members = certain.chain(initial.and_then(|at| criteria.unknown.get(at)).into_iter().flat_map(BTreeMap::keys));
    let outlook = |member: &Member| {
        let open = slots.map(|slot| if holds(slot, member) { is_doubtful(slot, member) } else { is_unknown(slot, member) });
        let known = std::array::from_fn::<bool, 6, _>(|at| holds(slots[at], member) && !open[at]);
        // Of most everything is known, and there is one way.
        if !open.contains(&true) {
            return outcome(known).map(|is_in| Outlook::certain(u8::from(is_in).into()));
        }
        let ways = (0..1_u32 << open.len()).filter(|way| open.iter().enumerate().all(|(slot, open)| *open || way >> slot & 1 == 0));
        Outlook::of(ways.map(|way| outcome(std::array::from_fn(|slot| known[slot] || way >> slot & 1 == 1))))
    };
    members.filter_map(|member| Some((member.clone(), outlook(member)?))).collect()
}

/// What someone comes to in a proportion by what holds of them: nothing, or whether they are in the numerator.
fn outcome([initial, denominator, exclusion, numerator, numerator_exclusion, exception]: [bool; 6]) -> Option<bool> {
    match (initial && denominator && !exclusion, numerator) {
        (false, _) => None,
        (true, true) => Some(!numerator_exclusion),
        (true, false) => (!exception).then_some(false),
    }
}

/// Members of slot `index`: those of the criterion that its parent has and `closed` has not.
fn admit(result: &mut [Membership], criteria: &Criteria, index: usize, parent: Option<usize>, closed: &BTreeSet<Member>) {
    let parent_members = parent.and_then(|at| result.get(at)).map(|parent| parent.members.clone());
    let open = |member: &Member| parent_members.as_ref().is_none_or(|members| members.contains(member)) && !closed.contains(member);
    let Some(own) = result.get_mut(index) else { return };
    if let Some(holds) = criteria.holds.get(index) {
        own.members = holds.iter().filter(|member| open(member)).cloned().collect();
    }
    if let Some(unknown) = criteria.unknown.get(index) {
        own.unknown = unknown
            .iter()
            .filter(|(member, _)| open(member) && !own.members.contains(*member))
            .map(|(member, reason)| (member.clone(), reason.clone()))
            .collect();
    }
    own.scored = own.members.clone();
}

fn members_of(result: &[Membership], index: Option<usize>) -> BTreeSet<Member> {
    index.and_then(|at| result.get(at)).map(|found| found.members.clone()).unwrap_or_default()
}

fn subtract(result: &mut [Membership], base: Option<usize>, removed: &[Option<usize>]) {
    let mut out = BTreeSet::new();
    for index in removed {
        out.extend(members_of(result, *index));
    }
    if let Some(own) = base.and_then(|at| result.get_mut(at)) {
        own.scored.retain(|member| !out.contains(member));
    }
}

fn observe(shape: &GroupShape, criteria: &Criteria, result: &mut [Membership]) {
    for (index, slot) in shape.slots.iter().enumerate() {
        if slot.code != PopulationCode::MeasureObservation {
            continue;
        }
        let scored = slot.of.and_then(|at| result.get(at)).map(|found| found.scored.clone()).unwrap_or_default();
        let (Some(own), Some(observed)) = (result.get_mut(index), criteria.observed.get(index)) else { continue };
        own.observed = observed
            .iter()
            .filter(|(member, _)| scored.contains(*member))
            .map(|(member, amount)| (member.clone(), amount.clone()))
            .collect();
        own.members = own.observed.keys().cloned().collect();
        own.scored = own.members.clone();
    }
}

/// `numerator / denominator` to 12 digits; `None` for a denominator of zero.
pub fn divide(numerator: Decimal, denominator: Decimal) -> Option<Decimal> {
    let quotient = numerator.checked_div(denominator)?;
    Some(quotient.round_dp(SCORE_DIGITS).normalize())
}

/// Sums of one population over patients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Members before exclusions are taken off: what a report counts.
    pub count: u64,
    /// Members that the score uses.
    pub scored: u64,
    /// Of these, those for which the record cannot tell something else: [`Tallies::open`].
    pub open: u64,
    /// Members for which the record cannot tell, by reason.
    pub unknown: BTreeMap<String, u64>,
    /// Observations, for observation slots.
    pub observations: Observations,
    /// How many members have each outlook, beside the population that the score is of.
    pub outlooks: BTreeMap<Outlook, u64>,
}

impl Tally {
    fn add(&mut self, membership: &Membership, within: Option<&BTreeSet<Member>>, open: &BTreeSet<&Member>) {
        let inside = |member: &Member| within.is_none_or(|stratum| stratum.contains(member));
        let size = |set: &BTreeSet<Member>| set.iter().filter(|member| inside(member)).count() as u64;
        self.count += size(&membership.members);
        self.scored += size(&membership.scored);
        self.open += membership.scored.iter().filter(|member| open.contains(member)).count() as u64;
        for (_, reason) in membership.unknown.iter().filter(|(member, _)| inside(member)) {
            *self.unknown.entry(reason.clone()).or_default() += 1;
        }
        for (_, amount) in membership.observed.iter().filter(|(member, _)| inside(member)) {
            self.observations.add(amount);
        }
        for (_, outlook) in membership.outlooks.iter().filter(|(member, _)| inside(member)) {
            *self.outlooks.entry(*outlook).or_default() += 1;
        }
    }

    fn merge(&mut self, other: &Tally) {
        self.count += other.count;
        self.scored += other.scored;
        self.open += other.open;
        for (reason, count) in &other.unknown {
            *self.unknown.entry(reason.clone()).or_default() += count;
        }
        self.observations.merge(&other.observations);
        for (outlook, members) in &other.outlooks {
            *self.outlooks.entry(*outlook).or_default() += members;
        }
    }

    /// Members for which the record cannot tell, whatever the reason.
    pub fn cannot_tell(&self) -> u64 {
        self.unknown.values().sum()
    }
}

/// Sums of all populations of a group or of one stratum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// One tally per slot.
    pub slots: Vec<Tally>,
    /// Members for which the record cannot tell whether they are in some population, or what they come to in the score; each once,
    /// however many these are.
    pub open: u64,
}

impl Tallies {
    /// Zero everywhere.
    pub fn new(slots: usize) -> Tallies {
        Tallies { slots: vec![Tally::default(); slots], ..Tallies::default() }
    }

    /// Adds one patient; only the members in `within` when given (a stratum).
    pub fn add(&mut self, memberships: &[Membership], within: Option<&BTreeSet<Member>>) {
        let inside = |member: &Member| within.is_none_or(|stratum| stratum.contains(member));
        let unknown = memberships.iter().flat_map(|membership| membership.unknown.keys());
        let mut open: BTreeSet<&Member> = unknown.filter(|member| inside(member)).collect();
        let outlooks = memberships.iter().flat_map(|membership| &membership.outlooks);
        open.extend(outlooks.filter(|(member, outlook)| outlook.is_open() && inside(member)).map(|(member, _)| member));
        self.open += open.len() as u64;
        for (tally, membership) in self.slots.iter_mut().zip(memberships) {
            tally.add(membership, within, &open);
        }
    }

    /// How many members have each outlook: one population has them, that the score is of.
    fn outlooks(&self) -> Cow<'_, BTreeMap<Outlook, u64>> {
        self.slots
            .iter()
            .map(|slot| &slot.outlooks)
            .find(|outlooks| !outlooks.is_empty())
            .map_or_else(Cow::default, Cow::Borrowed)
    }

    /// Those of a stratum, with what was observed in the unit of the whole group: numbers beside each other are of one unit.
    pub fn in_units_of<'t>(&'t self, whole: &Tallies) -> Cow<'t, Tallies> {
        if !whole.slots.iter().any(|slot| slot.observations.are_mixed()) {
            return Cow::Borrowed(self);
        }
        let mut own = self.clone();
        for (slot, whole) in own.slots.iter_mut().zip(&whole.slots) {
            slot.observations = slot.observations.in_unit_of(&whole.observations);
        }
        Cow::Owned(own)
    }

    /// Adds the sums of another part of the patients.
    pub fn merge(&mut self, other: &Tallies) {
        self.open += other.open;
        if self.slots.len() < other.slots.len() {
            self.slots.resize(other.slots.len(), Tally::default());
        }
        for (own, theirs) in self.slots.iter_mut().zip(&other.slots) {
            own.merge(theirs);
        }
    }
}

/// The two numbers a score is made of, and the score before any multiplier.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Score {
    /// Members of the numerator that count, or the aggregate of their observations; `None` where the score is no fraction.
    pub numerator: Option<Decimal>,
    /// Members of the denominator that count, or the aggregate of their observations; of a continuous variable how many were
    /// observed: as CQL's aggregates do, it leaves out whose observation is null; `None` where nothing of the kind is counted.
    pub denominator: Option<Decimal>,
    /// The score; `None` when the denominator is zero, nothing was observed, or for a cohort.
    pub value: Option<Decimal>,
}

impl Score {
    /// One number by another.
    pub(super) fn fraction(numerator: Decimal, denominator: Decimal) -> Score {
        Score { numerator: Some(numerator), denominator: Some(denominator), value: divide(numerator, denominator) }
    }

    /// The score by a multiplier, rounded once.
    pub fn scaled(&self, multiplier: u32) -> Option<Decimal> {
        match (self.numerator, self.denominator) {
            (Some(numerator), Some(denominator)) => divide(numerator.checked_mul(multiplier.into())?, denominator),
            _ => self.value?.checked_mul(multiplier.into()),
        }
    }
}

/// The score of a group or stratum. For a cohort `numerator` is the initial population.
pub fn score(shape: &GroupShape, tallies: &Tallies) -> Score {
    let tally = |code| shape.slots.iter().position(|slot| slot.code == code).and_then(|at| tallies.slots.get(at));
    let scored = |code| tally(code).map_or(Decimal::ZERO, |found| Decimal::from(found.scored));
    match shape.scoring {
        Scoring::Cohort => {
            let count = tally(PopulationCode::InitialPopulation).map_or(0, |found| found.count);
            Score { numerator: Some(Decimal::from(count)), ..Score::default() }
        }
        Scoring::ContinuousVariable => {
            let observed = observed(shape, tallies, PopulationCode::MeasurePopulation);
            let count = observed.map_or(0, |(observations, _)| observations.count());
            Score {
                denominator: Some(Decimal::from(count)),
                value: observed.and_then(|(observations, method)| observations.aggregate(method)),
                ..Score::default()
            }
        }
        Scoring::Proportion | Scoring::Ratio => {
            // What is observed of nobody has a sum, and no average: there is no number to go on with.
            let side = |code| match observed(shape, tallies, code) {
                Some((observations, method)) => observations.aggregate(method),
                None => Some(scored(code)),
            };
            let (numerator, denominator) = (side(PopulationCode::Numerator), side(PopulationCode::Denominator));
            Score { numerator, denominator, value: numerator.zip(denominator).and_then(|(numerator, denominator)| divide(numerator, denominator)) }
        }
        Scoring::Composite => composite::score(shape, tallies),
    }
}

/// The unit of the score: that of what a continuous variable observes, if it is a quantity and not their number that is given.
pub fn unit<'t>(shape: &GroupShape, tallies: &'t Tallies) -> Option<&'t str> {
    let (observations, method) = observed(shape, tallies, PopulationCode::MeasurePopulation).filter(|_| shape.scoring == Scoring::ContinuousVariable)?;
    observations.unit().filter(|_| method != Aggregate::Count).map(|unit| &**unit)
}

/// What was observed of the population `code`, and how it is aggregated; `None` where nothing is to be.
fn observed<'t>(shape: &GroupShape, tallies: &'t Tallies, code: PopulationCode) -> Option<(&'t Observations, Aggregate)> {
    shape.slots.iter().zip(&tallies.slots).find_map(|(slot, tally)| {
        let observed = shape.slots.get(slot.of?)?;
        (slot.code == PopulationCode::MeasureObservation && observed.code == code).then_some((&tally.observations, slot.aggregate?))
    })
}

/// How far the score could move if every unknown were known: the lowest and the highest value that it can have at all. For a
/// proportion and a composite; `None` where nobody is counted in any case, and for a ratio and a continuous variable: what is not
/// known of these may be any number.
pub fn bounds(shape: &GroupShape, tallies: &Tallies) -> Option<(Decimal, Decimal)> {
    let bound = |side| match &shape.composite {
        Some(composite) if composite.method == CompositeScoring::Weighted => composite::weighted_extreme(composite, tallies, side),
        None if shape.scoring != Scoring::Proportion => None,
        _ => extreme(&tallies.outlooks(), side),
    };
    let quotient = |side| bound(side).and_then(|(sum, count)| divide(sum, count));
    Some((quotient(Side::Lowest)?, quotient(Side::Highest)?))
}

/// Which end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The lower.
    Lowest,
    /// The upper.
    Highest,
}

/// Sum and count of the lowest or highest mean of members.
pub(super) fn extreme(outlooks: &BTreeMap<Outlook, u64>, side: Side) -> Option<(Decimal, Decimal)> {
    let value = |outlook: &Outlook| if side == Side::Lowest { outlook.least } else { outlook.most };
    extreme_mean(outlooks.iter().map(|(outlook, times)| (value(outlook), Decimal::from(*times), outlook.may_be_out)), side)
}

/// Sum and weight of the lowest or highest mean of values with their weights. Of those that may be out whichever moves it that way is
/// in: in their order, until the next would move it back. Where none counts in any case, one alone is the farthest.
pub(super) fn extreme_mean(values: impl Iterator<Item = (Decimal, Decimal, bool)>, side: Side) -> Option<(Decimal, Decimal)> {
    let (mut optional, certain): (Vec<_>, Vec<_>) = values.partition(|(.., may_be_out)| *may_be_out);
    let add = |(sum, weight): (Decimal, Decimal), (value, own): (Decimal, Decimal)| Some((sum.checked_add(value.checked_mul(own)?)?, weight.checked_add(own)?));
    let mut all = certain.into_iter().try_fold((Decimal::ZERO, Decimal::ZERO), |all, (value, weight, _)| add(all, (value, weight)))?;
    optional.sort_unstable();
    if side == Side::Highest {
        optional.reverse();
    }
    for (value, weight, _) in optional {
        let (sum, of) = all;
        if of.is_zero() {
            return Some((value, Decimal::ONE));
        }
        let level = value.checked_mul(of)?;
        let moves = if side == Side::Lowest { level < sum } else { level > sum };
        if !moves {
            break;
        }
        all = add(all, (value, weight))?;
    }
    (!all.1.is_zero()).then_some(all)
}

/// Of a proportion: numerator and denominator at its lowest and at its highest, of which those of others can be added to each. Who may
/// be out counts where it moves the score that way: at its lowest in the denominator alone, at its highest in both or in neither.
pub fn summable_bounds(shape: &GroupShape, tallies: &Tallies) -> Option<[(u64, u64); 2]> {
    let is_fraction = score(shape, tallies).numerator.is_some();
    bounds(shape, tallies).filter(|_| is_fraction)?;
    let outlooks = tallies.outlooks();
    let count = |counts: fn(&Outlook) -> bool| outlooks.iter().filter(|(outlook, _)| counts(outlook)).map(|(_, times)| times).sum::<u64>();
    let (always_in, never_in) = (count(|one| one.least == Decimal::ONE && !one.may_be_out), count(|one| one.most == Decimal::ZERO && !one.may_be_out));
    let (may_fail, may_fulfil) = (count(|one| one.least == Decimal::ZERO), count(|one| one.most == Decimal::ONE));
    Some([(always_in, always_in + may_fail), (may_fulfil, may_fulfil + never_in)])
}

/// Of how many members the score is, or may be: those that it counts, and those for which the record cannot tell. None for a
/// ratio, whose sides count different things, and where nothing of the kind is counted.
pub fn candidates(shape: &GroupShape, tallies: &Tallies) -> Option<u64> {
    let counted: &[PopulationCode] = match shape.scoring {
        Scoring::Ratio => &[],
        Scoring::Cohort => &[PopulationCode::InitialPopulation],
        // Of a continuous variable: who is observed.
        _ => &[PopulationCode::Denominator, PopulationCode::MeasureObservation],
    };
    let slot = shape.slots.iter().position(|slot| counted.contains(&slot.code))?;
    tallies.slots.get(slot).map(|tally| tally.scored - tally.open + tallies.open)
}

#[cfg(test)]
mod tests;
