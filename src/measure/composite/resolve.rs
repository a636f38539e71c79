//! Finds what composites are made of among the measures that are loaded together.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::{Component, Composite, CompositeScoring};
use crate::diagnostic::{Diagnostic, SourceFile, has_errors, nearest};
use crate::measure::compile::written_at;
use crate::measure::definition::{ComponentMeasure, Definition, Group, Improvement, PATIENT, Population, Text, unwritten, word};
use crate::measure::population::{Aggregate, PopulationCode, Scoring};

/// Fewest components of a composite (Conformance Requirement 5.10), and most.
const COMPONENTS_MIN: usize = 2;
const COMPONENTS_MAX: usize = 64;

/// A measure that a composite can be made of.
#[derive(Debug)]
pub(in crate::measure) struct Candidate<'a> {
    pub(in crate::measure) definition: &'a Definition,
    /// Its groups, as they are written.
    pub(in crate::measure) groups: Vec<Group>,
}

impl<'a> Candidate<'a> {
    pub(in crate::measure) fn of(definition: &'a Definition) -> Candidate<'a> {
        Candidate { definition, groups: definition.all_groups() }
    }
}

/// A group that a composite is made of, by the places of its measure among the candidates and of the group in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::measure) struct Place {
    pub(in crate::measure) measure: usize,
    pub(in crate::measure) group: usize,
}

/// Gives every composite group of a measure its components and populations. The places of the components, group by group,
/// and everything that is wrong with them. A candidate is absent where its definition could not be read.
pub(in crate::measure) fn resolve(source: &Arc<SourceFile>, own: usize, all: &[Option<Candidate<'_>>], groups: &mut [Group]) -> (Vec<Vec<Place>>, Vec<Diagnostic>) {
    let Some(definition) = all.get(own).and_then(|own| own.as_ref()).map(|own| own.definition) else { return (Vec::new(), Vec::new()) };
    let mut resolver = Resolver { source, definition, own, all, found: Vec::new() };
    let places = groups.iter_mut().enumerate().map(|(index, group)| resolver.group(index, group)).collect();
    (places, resolver.found)
}

struct Resolver<'a> {
    source: &'a Arc<SourceFile>,
    definition: &'a Definition,
    own: usize,
    all: &'a [Option<Candidate<'a>>],
    found: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn error(&mut self, message: String, at: &Text, help: impl Into<String>) {
        self.found.push(Diagnostic::error(message).at(written_at(self.source, at)).help(help));
    }

    fn group(&mut self, index: usize, group: &mut Group) -> Vec<Place> {
        let own = if self.definition.groups.is_empty() { &self.definition.id } else { &group.id };
        if self.definition.scoring_of(group) != Scoring::Composite {
            return Vec::new();
        }
        let methods = CompositeScoring::ALL.map(CompositeScoring::code).join(", ");
        let Some(method) = group.composite_scoring else {
            self.error("a composite needs a `composite-scoring`: how its components become one score".to_owned(), own, format!("name one of {methods}"));
            return Vec::new();
        };
        let count = group.components.len();
        if !(COMPONENTS_MIN..=COMPONENTS_MAX).contains(&count) {
            let message = format!("a composite has {COMPONENTS_MIN} to {COMPONENTS_MAX} components, found {count}");
            self.error(message, own, "list them under `components`, in FHIR as `relatedArtifact` of type `composed-of`");
            return Vec::new();
        }
        let (mut places, mut components, before) = (Vec::new(), Vec::new(), self.found.len());
        for written in &group.components {
            let Some((place, component)) = self.component(written, method, index, group) else { continue };
            if places.contains(&place) {
                self.error(format!("the component `{}` is given twice", written.measure.value), &written.measure, "remove one, or name another `group` of it");
            }
            places.push(place);
            components.push(component);
        }
        if method == CompositeScoring::Weighted && components.len() == count {
            if components.iter().all(|one| one.weight.is_zero()) {
                self.error("the weights of the components sum to 0".to_owned(), own, "give at least one of them a `weight` above 0");
            }
            if !has_errors(self.found.get(before..).unwrap_or_default()) {
                self.one_scale(&group.components, &places);
            }
        }
        let composite = Composite { method, components };
        group.populations = composite.populations().into_iter().map(|(code, observed)| population(code, observed)).collect();
        group.composite = Some(composite);
        places
    }

    fn component(&mut self, written: &ComponentMeasure, method: CompositeScoring, index: usize, composite: &Group) -> Option<(Place, Component)> {
        let measure = self.measure(written)?;
        let all = self.all;
        let candidate = all.get(measure)?.as_ref()?;
        let group = self.group_of(written, candidate)?;
        let (definition, found) = (candidate.definition, candidate.groups.get(group)?);
        if definition.is_counted_elsewhere() {
            let message = format!("`{}` is counted elsewhere: who is in its populations is not known here", written.measure.value);
            self.error(message, &written.measure, "leave it out, and report it beside the composite");
            return None;
        }
        let scoring = definition.scoring_of(found);
        let directions = [definition.improvement_of(found), self.definition.improvement_of(composite)];
        let is_told = !directions.contains(&Improvement::NotTold);
        let reversed = is_told && directions[0] != directions[1];
        let (basis, own_basis) = (definition.basis_of(found), self.definition.basis_of(composite));
        let name = &written.measure;
        if !is_told && directions[0] != directions[1] {
            let finding = Diagnostic::warning(format!("nothing says which direction is better for `{}` or for the composite: it is taken as the same", name.value));
            self.found.push(finding.at(written_at(self.source, name)).help("give both an `improvementNotation`"));
        }
        if scoring == Scoring::Composite {
            let itself = measure == self.own && group == index;
            let message =
                if itself { "a composite cannot be a component of itself".to_owned() } else { format!("`{}` is a composite itself, and no composite takes one", name.value) };
            self.error(message, name, "name what it is made of in its place");
        } else if !method.takes(scoring) {
            let taken = if method == CompositeScoring::Weighted { "proportions, ratios and continuous variables" } else { "proportions and ratios" };
            let message = format!("`{}` is a {}, but a composite by `{}` takes {taken}", name.value, word(scoring), method.code());
            self.error(message, name, "name another measure or `group`, or change the `composite-scoring`");
        } else if method != CompositeScoring::Weighted && found.populations.iter().any(|population| population.code == PopulationCode::MeasureObservation) {
            let message = format!("`{}` is a ratio of what is observed of its members: who is in its numerator, as `{}` asks, has fulfilled nothing", name.value, method.code());
            self.error(message, name, "leave it out, and report it beside the composite");
        } else if method == CompositeScoring::Weighted && reversed && scoring != Scoring::Proportion {
            let message = format!("`{}` improves the other way than the composite, and only the score of a proportion can be turned round", name.value);
            self.error(message, name, "leave it out, or let the composite improve the same way");
        } else if method != CompositeScoring::Weighted && own_basis != PATIENT && own_basis != basis {
            let message = format!("`{}` counts `{basis}`, the composite `{own_basis}`", name.value);
            self.error(message, name, "write `basis: Patient` in the composite: of a component that counts events one is then enough");
        }
        let component = Component {
            measure: definition.canonical(),
            group: found.id.value.clone(),
            shape: found.shape(definition.scoring),
            weight: self.weight(written, method)?,
            multiplier: definition.rate.as_ref().map_or(1, |rate| rate.multiplier),
            reversed,
            exists: own_basis == PATIENT && basis != PATIENT,
        };
        Some((Place { measure, group }, component))
    }

    /// Scores of which an average is made are of one kind: a share of all, and so many per 1,000, have none.
    fn one_scale(&mut self, written: &[ComponentMeasure], places: &[Place]) {
        let all = self.all;
        let scale = |place: &Place| {
            let candidate = all.get(place.measure)?.as_ref()?;
            let of = candidate.definition;
            Some(match (of.scoring_of(candidate.groups.get(place.group)?), &of.rate) {
                (Scoring::Ratio, Some(rate)) => format!("a ratio, {}", rate.unit.value),
                (scoring, _) => format!("a {}", word(scoring)),
            })
        };
        let mut scales = written.iter().zip(places).filter_map(|(written, place)| Some((&written.measure, scale(place)?)));
        let Some((first, own)) = scales.next() else { return };
        for (name, other) in scales.filter(|(_, other)| *other != own) {
            let message = format!("`{}` is {other}, and `{}` is {own}: an average of their scores means nothing", name.value, first.value);
            self.error(message, name, "weigh scores of one kind, as proportions only, and report the others beside the composite");
        }
    }

    /// The measure of that name, and version if one is given; else the newest.
    fn measure(&mut self, written: &ComponentMeasure) -> Option<usize> {
        let name = &written.measure.value;
        let known = || self.all.iter().enumerate().filter_map(|(index, one)| Some((index, one.as_ref()?.definition)));
        let named = || known().filter(|(_, one)| one.url.value == *name || one.id.value == *name);
        let fits = |one: &Definition| written.version.as_ref().is_none_or(|wanted| wanted.value == one.version.value);
        if let Some((index, _)) = named().filter(|(_, one)| fits(one)).max_by_key(|(_, one)| age(&one.version.value)) {
            return Some(index);
        }
        if let (Some(wanted), Some(_)) = (&written.version, named().next()) {
            let versions: Vec<&str> = named().map(|(_, one)| one.version.value.as_str()).collect();
            let message = format!("component `{name}` is here in version `{}`, not in `{}`", versions.join("`, `"), wanted.value);
            self.error(message, wanted, "load that version too, or name the one that is here");
        } else if self.all.iter().all(Option::is_some) {
            let near = nearest(name, known().flat_map(|(_, one)| [one.id.value.as_str(), one.url.value.as_str()]));
            let help = near.map_or_else(|| "load it together with this one: its folder or Bundle beside it".to_owned(), |near| format!("did you mean `{near}`?"));
            self.error(format!("there is no measure `{name}`, of which this one is composed"), &written.measure, help);
        }
        None
    }

    fn group_of(&mut self, written: &ComponentMeasure, candidate: &Candidate<'_>) -> Option<usize> {
        let (name, ids) = (&written.measure.value, || candidate.groups.iter().map(|group| group.id.value.as_str()));
        let list = || ids().collect::<Vec<_>>().join("`, `");
        let Some(wanted) = &written.group else {
            if candidate.groups.len() != 1 {
                let message = format!("component `{name}` has {} groups, and nothing says which is meant", candidate.groups.len());
                self.error(message, &written.measure, format!("add `group`, in FHIR cqfm-groupId: one of `{}`", list()));
            }
            return (candidate.groups.len() == 1).then_some(0);
        };
        let place = ids().position(|id| id == wanted.value);
        if place.is_none() {
            let help = nearest(&wanted.value, ids()).map_or_else(|| format!("it has `{}`", list()), |near| format!("did you mean `{near}`?"));
            self.error(format!("component `{name}` has no group `{}`", wanted.value), wanted, help);
        }
        place
    }

    fn weight(&mut self, written: &ComponentMeasure, method: CompositeScoring) -> Option<Decimal> {
        let Some(weight) = written.weight else { return Some(Decimal::ONE) };
        if method != CompositeScoring::Weighted {
            let finding = Diagnostic::warning(format!("the weight of `{}` changes nothing: the composite is scored by `{}`", written.measure.value, method.code()));
            self.found.push(finding.at(written_at(self.source, &written.measure)));
        }
        let exact = weight.to_string().parse().ok().filter(|weight| *weight >= Decimal::ZERO);
        if exact.is_none() {
            self.error(format!("the weight {weight} of `{}` is no number from 0 on", written.measure.value), &written.measure, "write a decimal, as `0.25`");
        }
        exact
    }
}

/// A version by which the newest can be told: its numbers.
fn age(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// A population of the composite, which no CQL decides.
fn population(code: PopulationCode, observed: Option<(PopulationCode, Aggregate)>) -> Population {
    Population {
        code,
        id: None,
        define: unwritten(""),
        text: None,
        of: observed.map(|(of, _)| unwritten(of.code())),
        aggregate: observed.map(|(_, aggregate)| aggregate),
        cannot_tell: Vec::new(),
    }
}
