//! Composite scoring of the Quality Measure guide: groups of other measures, its components, become one score.
//!
//! hl7.fhir.us.cqfmeasures 5, "Composite Measures". Three methods go by the individual and combine what the populations of
//! the components came to for one patient, so that sums over patients merge as those of any other measure:
//!
//! - *Opportunity*: a proportion whose cases are the members of each component.
//! - *All or nothing*: a proportion; each population is the union of the components', but the numerator: those who are in the
//!   numerator of every component in whose denominator they are. So an exclusion from one component excludes from the whole.
//! - *Linear*: a continuous variable, the average of each one's share of fulfilled components.
//!
//! *Weighted* goes by the component: the average of the component scores by weight. Where a component has no score the guide says
//! nothing, and the composite has none either: an average of the others would be another composite's, and months of both stand beside
//! each other.
//!
//! A denominator is meant here without exclusions and exceptions, a numerator within it. A component whose improvement is
//! the other way is fulfilled by who is *not* in its numerator ("Improvement Notation"). Where the composite counts patients
//! and a component events, a patient is in a population of which there is an event ("Measure Basis").
//!
//! Score bounds: in opportunity a doubt about one component is a doubt about one case, in linear about one part of a share, in all
//! or nothing about one of the conditions. Of a component that counts other than the composite does, or is a ratio, a doubt is taken
//! as one about everything. A weighted score lies between those of its components' bounds, if it has one; there are none where
//! a component is in doubt that has none, a ratio or a continuous variable.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde::Deserialize;

use super::population::{self, Aggregate, Amount, Criteria, GroupShape, Member, Membership, Outlook, PopulationCode, Score, Scoring, Side, Tallies};

pub(super) mod resolve;

/// How component groups become one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompositeScoring {
    /// Cases fulfilled among all cases.
    Opportunity,
    /// Those who fulfil every component that is meant for them.
    AllOrNothing,
    /// The average share of fulfilled components.
    Linear,
    /// The average of the component scores, by weight.
    Weighted,
}

impl CompositeScoring {
    /// Every method.
    pub const ALL: [CompositeScoring; 4] = [Self::Opportunity, Self::AllOrNothing, Self::Linear, Self::Weighted];

    /// The code in `http://terminology.hl7.org/CodeSystem/composite-measure-scoring`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Opportunity => "opportunity",
            Self::AllOrNothing => "all-or-nothing",
            Self::Linear => "linear",
            Self::Weighted => "weighted",
        }
    }

    /// The method of that code.
    pub fn of(code: &str) -> Option<CompositeScoring> {
        Self::ALL.into_iter().find(|one| one.code() == code)
    }

    /// Whether a component may have this scoring. The guide also lets a continuous variable into a linear composite, but says
    /// no numerator for it.
    pub fn takes(self, scoring: Scoring) -> bool {
        match scoring {
            Scoring::Proportion | Scoring::Ratio => true,
            Scoring::ContinuousVariable => self == Self::Weighted,
            Scoring::Cohort | Scoring::Composite => false,
        }
    }
}

/// What a composite group is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composite {
    /// How.
    pub method: CompositeScoring,
    /// Of what.
    pub components: Vec<Component>,
}

/// One group of a measure as a part of a composite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Canonical URL, with version, of its measure.
    pub measure: String,
    /// Id of the group.
    pub group: String,
    /// The shape of the group.
    pub shape: GroupShape,
    /// How much its score counts beside the others'.
    pub weight: Decimal,
    /// What its score is multiplied by: 1, unless it is a ratio with a rate.
    pub multiplier: u32,
    /// Its improvement is the other way.
    pub reversed: bool,
    /// It counts events, the composite patients.
    pub exists: bool,
}

impl Composite {
    /// The populations of the composite in the guide's order; for an observation also what is observed, and how.
    pub fn populations(&self) -> Vec<(PopulationCode, Option<(PopulationCode, Aggregate)>)> {
        use PopulationCode::*;
        let have = |code| move |component: &Component| component.shape.slots.iter().any(|slot| slot.code == code);
        let mut codes = match self.method {
            CompositeScoring::Weighted => return Vec::new(),
            CompositeScoring::Linear => {
                let excluding = self.components.iter().all(have(DenominatorExclusion)).then_some(MeasurePopulationExclusion);
                return [InitialPopulation, MeasurePopulation]
                    .into_iter()
                    .chain(excluding)
                    .map(|code| (code, None))
                    .chain([(MeasureObservation, Some((MeasurePopulation, Aggregate::Average)))])
                    .collect();
            }
            CompositeScoring::Opportunity | CompositeScoring::AllOrNothing => {
                vec![InitialPopulation, Denominator, DenominatorExclusion, DenominatorException, Numerator, NumeratorExclusion]
            }
        };
        codes.retain(|code| self.components.iter().any(have(*code)));
        codes.into_iter().map(|code| (code, None)).collect()
    }
}

/// Where one member may stand in a component.
const FULFILLED: u8 = 1;
const FAILED: u8 = 2;
const EXCEPTED: u8 = 4;
const EXCLUDED: u8 = 8;

/// Where one patient, or the patient's events, stand in one component.
struct Standing<'a> {
    component: &'a Component,
    memberships: Vec<Membership>,
    /// In the denominator, and not excluded or excepted.
    eligible: BTreeSet<Member>,
    /// Of these, those in the numerator.
    fulfilled: BTreeSet<Member>,
    /// What each of them comes to, and who else may come to something.
    outlooks: BTreeMap<Member, Outlook>,
}

impl<'a> Standing<'a> {
    fn of(component: &'a Component, found: &[Membership]) -> Standing<'a> {
        let memberships = if component.exists { of_patient(&component.shape, found) } else { found.to_vec() };
        let mut standing = Standing { component, memberships, eligible: BTreeSet::new(), fulfilled: BTreeSet::new(), outlooks: BTreeMap::new() };
        standing.eligible = standing.all(PopulationCode::Denominator).scored;
        let numerator = standing.all(PopulationCode::Numerator).scored;
        standing.fulfilled = standing.eligible.iter().filter(|member| numerator.contains(*member) != component.reversed).cloned().collect();
        standing.outlooks = standing.outlooks(found);
        standing
    }

    fn outlooks(&self, found: &[Membership]) -> BTreeMap<Member, Outlook> {
        let turned = |outlook: Outlook| if self.component.reversed { outlook.turned() } else { outlook };
        if self.component.shape.scoring == Scoring::Proportion && !self.component.exists {
            let all = found.iter().flat_map(|membership| &membership.outlooks);
            return all.map(|(member, outlook)| (member.clone(), turned(*outlook))).collect();
        }
        let certain = |member: &Member| (member.clone(), Outlook::certain(u8::from(self.fulfilled.contains(member)).into()));
        let mut outlooks: BTreeMap<Member, Outlook> = self.eligible.iter().map(certain).collect();
        let open = found.iter().flat_map(|membership| membership.unknown.keys());
        outlooks.extend(open.map(|member| (if self.component.exists { Member::new() } else { member.clone() }, Outlook::ANY)));
        outlooks
    }

    /// Where a member may stand in the component: bits of which one is set, or none where nothing is asked of the member.
    fn stands(&self, member: &Member) -> Vec<u8> {
        let has = |code| self.component.shape.slots.iter().any(|slot| slot.code == code);
        let is_in = |code| self.all(code).members.contains(member);
        let (excludes, excepts) = (has(PopulationCode::DenominatorExclusion), has(PopulationCode::DenominatorException));
        let outlook = self.outlooks.get(member);
        let is_open = self.memberships.iter().any(|membership| membership.unknown.contains_key(member));
        let may_be_out = outlook.map_or(is_open, |outlook| outlook.may_be_out);
        let may_be = [
            (FULFILLED, outlook.is_some_and(|outlook| outlook.most == Decimal::ONE)),
            (FAILED, outlook.is_some_and(|outlook| outlook.least == Decimal::ZERO)),
            (0, may_be_out),
            (EXCLUDED, if may_be_out { excludes } else { outlook.is_none() && is_in(PopulationCode::DenominatorExclusion) }),
            (EXCEPTED, if may_be_out { excepts } else { outlook.is_none() && is_in(PopulationCode::DenominatorException) }),
        ];
        may_be.into_iter().filter(|(_, may)| *may).map(|(stand, _)| stand).collect()
    }

    /// A population; a ratio's two initial populations together.
    fn all(&self, code: PopulationCode) -> Membership {
        let mut all = Membership::default();
        for (_, own) in self.component.shape.slots.iter().zip(&self.memberships).filter(|(slot, _)| slot.code == code) {
            all.members.extend(own.members.iter().cloned());
            all.scored.extend(own.scored.iter().cloned());
            all.unknown.extend(own.unknown.iter().map(|(member, reason)| (member.clone(), reason.clone())));
        }
        all.unknown.retain(|member, _| !all.members.contains(member));
        all
    }

    /// The population as a case of an opportunity composite.
    fn cases(&self, code: PopulationCode) -> Membership {
        let mut all = self.all(code);
        match code {
            PopulationCode::Numerator => {
                let denominator = self.all(PopulationCode::Denominator).members;
                all.members.retain(|member| denominator.contains(member));
                if self.component.reversed {
                    all.members.clone_from(&self.fulfilled);
                }
                all.scored.clone_from(&self.fulfilled);
                all.unknown.retain(|member, _| !all.members.contains(member));
            }
            PopulationCode::NumeratorExclusion if self.component.reversed => all = Membership::default(),
            _ => {}
        }
        all
    }
}

/// Of how many members one patient has in a component's denominator how many fulfil it.
pub fn fulfilled(component: &Component, found: &[Membership]) -> (usize, usize) {
    let standing = Standing::of(component, found);
    (standing.fulfilled.len(), standing.eligible.len())
}

/// Whether a patient has an event in each population, and the algebra over that.
fn of_patient(shape: &GroupShape, events: &[Membership]) -> Vec<Membership> {
    let mut criteria = Criteria::none(shape.slots.len());
    for (index, found) in events.iter().enumerate() {
        let (Some(holds), Some(unknown)) = (criteria.holds.get_mut(index), criteria.unknown.get_mut(index)) else { continue };
        holds.extend((!found.members.is_empty()).then(Member::new));
        unknown.extend(found.unknown.values().next().map(|reason| (Member::new(), reason.clone())));
    }
    population::memberships(shape, &criteria)
}

/// One patient's memberships in a composite, from those in its components; none where the group is no composite.
pub fn memberships(shape: &GroupShape, components: &[&[Membership]]) -> Vec<Membership> {
    let Some(composite) = &shape.composite else { return Vec::new() };
    let stand = || composite.components.iter().zip(components).map(|(component, found)| Standing::of(component, found)).collect::<Vec<_>>();
    match composite.method {
        CompositeScoring::Weighted => components.concat(),
        CompositeScoring::Opportunity => opportunity(shape, &stand()),
        CompositeScoring::AllOrNothing => with_outlooks(shape, &stand(), PopulationCode::Denominator, wholes_to_come),
        CompositeScoring::Linear => with_outlooks(shape, &stand(), PopulationCode::MeasureObservation, shares_to_come),
    }
}

/// What the components say, and in the population that the score is of, between what each one's part of it lies.
fn with_outlooks(shape: &GroupShape, standings: &[Standing<'_>], of: PopulationCode, to_come: fn(&[Standing<'_>]) -> BTreeMap<Member, Outlook>) -> Vec<Membership> {
    let mut found = population::memberships(shape, &criteria(shape, standings));
    let scored = shape.slots.iter().position(|slot| slot.code == of);
    if let Some(own) = scored.and_then(|at| found.get_mut(at)) {
        own.outlooks = to_come(standings);
    }
    found
}

/// The cases of all components, each member named by its component.
fn opportunity(shape: &GroupShape, standings: &[Standing<'_>]) -> Vec<Membership> {
    let together = |code| {
        let mut all = Membership::default();
        for (index, standing) in standings.iter().enumerate() {
            let own = standing.cases(code);
            let case = |member: Member| format!("{index}:{member}");
            all.members.extend(own.members.into_iter().map(case));
            all.scored.extend(own.scored.into_iter().map(case));
            all.unknown.extend(own.unknown.into_iter().map(|(member, reason)| (case(member), reason)));
            if code == PopulationCode::Denominator {
                all.outlooks.extend(standing.outlooks.iter().map(|(member, outlook)| (case(member.clone()), *outlook)));
            }
        }
        all
    };
    shape.slots.iter().map(|slot| together(slot.code)).collect()
}

/// Members of a population of any component, and those of whom one cannot tell and none can.
fn union(standings: &[Standing<'_>], code: PopulationCode) -> (BTreeSet<Member>, BTreeMap<Member, String>) {
    let (mut members, mut unknown) = (BTreeSet::new(), BTreeMap::new());
    for own in standings.iter().map(|standing| standing.cases(code)) {
        members.extend(own.members);
        for (member, reason) in own.unknown {
            unknown.entry(member).or_insert(reason);
        }
    }
    unknown.retain(|member, _| !members.contains(member));
    (members, unknown)
}

/// What the components say about each population of an all-or-nothing or linear composite.
fn criteria(shape: &GroupShape, standings: &[Standing<'_>]) -> Criteria {
    let mut criteria = Criteria::none(shape.slots.len());
    let places = criteria.holds.iter_mut().zip(&mut criteria.unknown).zip(&mut criteria.observed);
    for (slot, ((holds, unknown), observed)) in shape.slots.iter().zip(places) {
        match slot.code {
            PopulationCode::Numerator => (*holds, *unknown) = everything(standings),
            PopulationCode::MeasurePopulation => (*holds, *unknown) = union(standings, PopulationCode::Denominator),
            PopulationCode::MeasurePopulationExclusion => *holds = excluded(standings),
            PopulationCode::MeasureObservation => *observed = shares(standings),
            code => (*holds, *unknown) = union(standings, code),
        }
    }
    criteria
}

/// Members in the numerator of every component in whose denominator they are, and those who may be.
fn everything(standings: &[Standing<'_>]) -> (BTreeSet<Member>, BTreeMap<Member, String>) {
    let (mut members, mut unknown) = (BTreeSet::new(), BTreeMap::new());
    let numerators: Vec<Membership> = standings.iter().map(|standing| standing.cases(PopulationCode::Numerator)).collect();
    for member in standings.iter().flat_map(|standing| &standing.eligible) {
        let asked = || standings.iter().zip(&numerators).filter(|(standing, _)| standing.eligible.contains(member));
        let open = || asked().filter(|(_, numerator)| !numerator.members.contains(member));
        if open().next().is_none() {
            members.insert(member.clone());
        } else if let Some(reasons) = open().map(|(_, numerator)| numerator.unknown.get(member)).collect::<Option<Vec<_>>>() {
            unknown.extend(reasons.first().map(|reason| (member.clone(), (*reason).clone())));
        }
    }
    (members, unknown)
}

/// Members that every component excludes.
fn excluded(standings: &[Standing<'_>]) -> BTreeSet<Member> {
    let each = standings.iter().map(|standing| standing.all(PopulationCode::DenominatorExclusion).members);
    each.reduce(|all, own| all.intersection(&own).cloned().collect()).unwrap_or_default()
}

/// Fulfilled components by components, of each member who is in a denominator. To all digits: the score alone is rounded.
fn shares(standings: &[Standing<'_>]) -> BTreeMap<Member, Amount> {
    let mut counts: BTreeMap<&Member, (u32, u32)> = BTreeMap::new();
    for standing in standings {
        for member in &standing.eligible {
            let (fulfilled, eligible) = counts.entry(member).or_default();
            *fulfilled += u32::from(standing.fulfilled.contains(member));
            *eligible += 1;
        }
    }
    let share = |(fulfilled, eligible): (u32, u32)| Decimal::from(fulfilled).checked_div(Decimal::from(eligible));
    counts.into_iter().filter_map(|(member, counts)| Some((member.clone(), share(counts)?.into()))).collect()
}

/// Whether each one fulfils everything, whatever the blanks say of each component: every way is tried in which they may stand together.
fn wholes_to_come(standings: &[Standing<'_>]) -> BTreeMap<Member, Outlook> {
    let members: BTreeSet<&Member> = standings.iter().flat_map(|standing| standing.outlooks.keys()).collect();
    let of = |member: &Member| {
        let ways = standings.iter().fold(BTreeSet::from([0_u8]), |ways, standing| {
            let stands = standing.stands(member);
            let stands: &[u8] = if stands.is_empty() { &[0] } else { &stands };
            ways.iter().flat_map(|way| stands.iter().map(move |stand| way | stand)).collect()
        });
        Outlook::of(ways.into_iter().map(|way| {
            let has = |stand| way & stand != 0;
            match (has(FULFILLED), has(FAILED)) {
                _ if has(EXCLUDED) => None,
                (fulfilled, false) => fulfilled.then_some(true),
                (_, true) => (!has(EXCEPTED)).then_some(false),
            }
        }))
    };
    members.into_iter().filter_map(|member| Some((member.clone(), of(member)?))).collect()
}

/// Between what each one's share lies, whatever the blanks say of each component.
fn shares_to_come(standings: &[Standing<'_>]) -> BTreeMap<Member, Outlook> {
    let members: BTreeSet<&Member> = standings.iter().flat_map(|standing| standing.outlooks.keys()).collect();
    let of = |member: &Member| {
        let mut parts: BTreeMap<Outlook, u64> = BTreeMap::new();
        for outlook in standings.iter().filter_map(|standing| standing.outlooks.get(member)) {
            *parts.entry(*outlook).or_default() += 1;
        }
        let share = |side| population::extreme(&parts, side).and_then(|(sum, count)| sum.checked_div(count));
        Some(Outlook { least: share(Side::Lowest)?, most: share(Side::Highest)?, may_be_out: parts.keys().all(|part| part.may_be_out) })
    };
    members.into_iter().filter_map(|member| Some((member.clone(), of(member)?))).collect()
}

/// The score of a composite group or stratum.
pub fn score(shape: &GroupShape, tallies: &Tallies) -> Score {
    let Some(composite) = &shape.composite else { return Score::default() };
    let tally = |code| shape.slots.iter().position(|slot| slot.code == code).and_then(|at| tallies.slots.get(at));
    let scored = |code| tally(code).map_or(Decimal::ZERO, |found| Decimal::from(found.scored));
    match composite.method {
        CompositeScoring::Opportunity | CompositeScoring::AllOrNothing => Score::fraction(scored(PopulationCode::Numerator), scored(PopulationCode::Denominator)),
        CompositeScoring::Linear => {
            let observed = tally(PopulationCode::MeasureObservation).map(|found| &found.observations);
            let of = |method| observed.and_then(|observed| observed.aggregate(method));
            Score { denominator: of(Aggregate::Count), value: of(Aggregate::Average), ..Score::default() }
        }
        CompositeScoring::Weighted => {
            let parts = composite.components.iter().zip(component_scores(composite, tallies));
            let whole = weighed(parts.filter(|(component, _)| !component.weight.is_zero()).map(|(component, score)| Some((score?, component.weight))));
            Score { value: whole.and_then(|(sum, weight)| population::divide(sum, weight)), ..Score::default() }
        }
    }
}

/// The score of each component of a weighted composite as it counts: multiplied by its rate, turned round where its improvement is.
pub fn component_scores(composite: &Composite, tallies: &Tallies) -> Vec<Option<Decimal>> {
    let score = |(component, own): (&Component, Tallies)| {
        let value = population::score(&component.shape, &own).scaled(component.multiplier)?;
        if component.reversed { Decimal::ONE.checked_sub(value) } else { Some(value) }
    };
    composite.components.iter().zip(of_components(composite, tallies)).map(score).collect()
}

/// The sums of each component of a weighted composite.
fn of_components(composite: &Composite, tallies: &Tallies) -> Vec<Tallies> {
    let mut rest = tallies.slots.as_slice();
    let mut own = |component: &Component| {
        let (own, more) = rest.split_at(component.shape.slots.len().min(rest.len()));
        rest = more;
        Tallies { slots: own.to_vec(), ..Tallies::default() }
    };
    composite.components.iter().map(&mut own).collect()
}

/// The sum of scores by weight, and of the weights; `None` where one has no score: an average of the others is the score of another composite.
fn weighed(mut parts: impl Iterator<Item = Option<(Decimal, Decimal)>>) -> Option<(Decimal, Decimal)> {
    parts.try_fold((Decimal::ZERO, Decimal::ZERO), |(sum, weights), part| {
        let (score, weight) = part?;
        Some((sum.checked_add(score.checked_mul(weight)?)?, weights.checked_add(weight)?))
    })
}

/// The lowest or highest sum of the scores of a weighted composite's components by weight, with their weights; `None` where one has no
/// score whatever turns out, or is in doubt and has no bounds.
pub(super) fn weighted_extreme(composite: &Composite, tallies: &Tallies, side: Side) -> Option<(Decimal, Decimal)> {
    let scores = component_scores(composite, tallies);
    let parts = composite.components.iter().zip(of_components(composite, tallies)).zip(scores);
    let part = |((component, own), score): ((&Component, Tallies), Option<Decimal>)| {
        let value = match population::bounds(&component.shape, &own) {
            Some((low, high)) => {
                let value = if (side == Side::Lowest) == component.reversed { high } else { low };
                if component.reversed { Decimal::ONE.checked_sub(value)? } else { value }
            }
            None if own.slots.iter().any(|slot| slot.cannot_tell() > 0) => return None,
            None => score?,
        };
        Some((value, component.weight))
    };
    weighed(parts.filter(|((component, _), _)| !component.weight.is_zero()).map(part))
}

#[cfg(test)]
mod tests;
