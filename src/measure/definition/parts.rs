//! Whether the groups of a measure, however it is written, hold what their scoring needs, and each part has an id of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Definition, Group, Population, StratifierKind, Text, key, word};
use crate::diagnostic::yaml::locate;
use crate::diagnostic::{self, Diagnostic, Location, SourceFile};
use crate::measure::population::{PopulationCode, Scoring};

/// Most groups, populations of a group, stratifiers of a group and supplemental data of a measure.
const PARTS_MAX: usize = 64;

/// Says of an id that another part of its kind has it already; `seen` are those before it.
pub(super) fn unique(source: &Arc<SourceFile>, kind: &str, id: &Text, seen: &mut BTreeMap<String, Location>, found: &mut Vec<Diagnostic>) {
    let place = locate(source, id);
    if let Some(first) = seen.insert(id.value.clone(), place.clone()) {
        found.push(Diagnostic::error(format!("two {kind} have the id `{}`", id.value)).at(place).label(first, "the first one"));
    }
}

pub(super) fn check_groups(source: &Arc<SourceFile>, definition: &Definition, found: &mut Vec<Diagnostic>) {
    let at = || locate(source, &definition.id);
    let alone = [("populations", definition.populations.is_empty()), ("stratifiers", definition.stratifiers.is_empty()), ("components", definition.components.is_empty())];
    if let (Some((name, _)), false) = (alone.iter().find(|(_, absent)| !absent), definition.groups.is_empty()) {
        let mut places = [key(source, "groups"), key(source, name)];
        places.sort_by_key(|place| place.span);
        let [first, second] = places;
        let message = format!("both `groups` and `{name}` are given: `{}` stands in line {} already", first.text(), first.line());
        found.push(Diagnostic::error(message).at(second).help(format!("move `{name}` into a group")));
    }
    let groups = definition.all_groups();
    let sizes = groups.iter().flat_map(|group| [group.populations.len(), group.stratifiers.len()]);
    if groups.len() > PARTS_MAX || sizes.max().unwrap_or(0) > PARTS_MAX || definition.supplemental_data.len() > PARTS_MAX {
        found.push(Diagnostic::error(format!("more than {PARTS_MAX} groups, populations, stratifiers or supplemental data")).at(at()));
        return;
    }
    let mut ids = BTreeMap::new();
    for group in &definition.groups {
        unique(source, "groups", &group.id, &mut ids, found);
    }
    for group in &groups {
        let at = match definition.groups.is_empty() {
            true if !definition.populations.is_empty() => key(source, "populations"),
            true => at(),
            false => locate(source, &group.id),
        };
        let form = if definition.is_counted_elsewhere() { Form::Elsewhere } else { Form::Yaml };
        check_group(source, form, at, definition.scoring_of(group), group, found);
    }
}

/// How a measure is written, for the names of its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::measure) enum Form {
    Yaml,
    /// The same, of a measure that another system counts.
    Elsewhere,
    Fhir,
}

impl Form {
    /// What says which population another one is of.
    fn of(self) -> &'static str {
        if self == Form::Fhir { "of, by `cqfm-criteriaReference`" } else { "`of`" }
    }

    /// What says how observations become one number.
    fn aggregate(self) -> &'static str {
        if self == Form::Fhir { "cqfm-aggregateMethod" } else { "aggregate" }
    }

    fn to_observe(self) -> &'static str {
        if self == Form::Fhir { "`cqfm-criteriaReference`: the id of the population whose members are observed" } else { "`of`: the population whose members are observed" }
    }

    fn sides(self) -> &'static str {
        if self == Form::Fhir { "let one name the numerator and the other the denominator" } else { "let one be `of: numerator` and the other `of: denominator`" }
    }

    fn to_add(self, code: PopulationCode) -> String {
        match self {
            Form::Yaml => format!("add it to `populations`: `- code: {}` and its `define`", code.code()),
            Form::Elsewhere => format!("add it to `populations`: `- code: {}`", code.code()),
            Form::Fhir => "add a `population` with that code and its `criteria.expression`".to_owned(),
        }
    }

    /// How many of a population there are at least: of what another system counted the initial population is seldom told.
    fn least(self, code: PopulationCode, scoring: Scoring, least: usize) -> usize {
        let is_free = self == Form::Elsewhere && code == PopulationCode::InitialPopulation && scoring != Scoring::Cohort;
        if is_free { 0 } else { least }
    }

    /// Where a population is written.
    fn place(self, source: &Arc<SourceFile>, population: &Population) -> Location {
        match self {
            Form::Yaml | Form::Elsewhere if population.define.value.is_empty() => key(source, "populations").first(&format!("code: {}", population.code.code())),
            _ => locate(source, &population.define),
        }
    }
}

/// What a scoring needs: (code, at least, at most).
fn needs(scoring: Scoring) -> &'static [(PopulationCode, usize, usize)] {
    use PopulationCode::*;
    match scoring {
        Scoring::Proportion => {
            &[(InitialPopulation, 1, 1), (Denominator, 1, 1), (DenominatorExclusion, 0, 1), (DenominatorException, 0, 1), (Numerator, 1, 1), (NumeratorExclusion, 0, 1)]
        }
        Scoring::Ratio => {
            &[(InitialPopulation, 1, 2), (Denominator, 1, 1), (DenominatorExclusion, 0, 1), (Numerator, 1, 1), (NumeratorExclusion, 0, 1), (MeasureObservation, 0, 2)]
        }
        Scoring::ContinuousVariable => &[(InitialPopulation, 1, 1), (MeasurePopulation, 1, 1), (MeasurePopulationExclusion, 0, 1), (MeasureObservation, 1, 1)],
        Scoring::Cohort => &[(InitialPopulation, 1, 1)],
        Scoring::Composite => &[],
    }
}

/// Whether a group, which stands `at` a place, is what its scoring needs.
pub(in crate::measure) fn check_group(source: &Arc<SourceFile>, form: Form, at: Location, scoring: Scoring, group: &Group, found: &mut Vec<Diagnostic>) {
    let needed = needs(scoring);
    for (code, least, most) in needed {
        let count = group.populations.iter().filter(|population| population.code == *code).count();
        if count < form.least(*code, scoring, *least) {
            let missing = Diagnostic::error(format!("a {} needs the population `{}`", word(scoring), code.code()));
            found.push(missing.at(at.clone()).help(form.to_add(*code)));
        } else if let Some(surplus) = group.populations.iter().filter(|population| population.code == *code).nth(*most) {
            let place = form.place(source, surplus).last_before(code.code());
            found.push(Diagnostic::error(format!("`{}` is given {count} times, at most {most} fit", code.code())).at(place));
        }
    }
    if scoring != Scoring::Composite && (group.composite_scoring.is_some() || !group.components.is_empty()) {
        let message = format!("a {} has no `components` and no `composite-scoring`", word(scoring));
        found.push(Diagnostic::error(message).at(at).help("write `scoring: composite`, or remove them"));
    }
    let mut ids = BTreeMap::new();
    for population in &group.populations {
        let place = form.place(source, population);
        if form == Form::Yaml && population.define.value.is_empty() {
            let message = format!("the population `{}` has no `define`", population.id());
            found.push(Diagnostic::error(message).at(place.clone()).help("name the CQL definition that decides who is in it"));
        }
        if !needed.iter().any(|(code, ..)| *code == population.code) {
            found.push(Diagnostic::error(format!("a {} has no population `{}`", word(scoring), population.code.code())).at(place.clone()));
        }
        if let Some(first) = ids.insert(population.id().to_owned(), place.clone()) {
            found.push(
                Diagnostic::error(format!("two populations have the id `{}`", population.id()))
                    .at(place.clone())
                    .label(first, "the first one")
                    .help("give each an `id`"),
            );
        }
        check_dependence(source, form, group, population, found);
    }
    check_observed(source, form, scoring, group, found);
    let mut strata = BTreeMap::new();
    for stratifier in &group.stratifiers {
        let place = locate(source, &stratifier.id);
        unique(source, "stratifiers", &stratifier.id, &mut strata, found);
        if stratifier.define.is_some() != stratifier.components.is_empty() {
            found.push(Diagnostic::error("a stratifier has either `define` or `components`").at(place));
        } else if stratifier.kind == StratifierKind::Criteria && !stratifier.components.is_empty() {
            found.push(Diagnostic::error("components are values, not criteria").at(place));
        }
    }
}

/// Of a ratio one observation is the numerator, one the denominator: two of one side leave nothing to divide by.
fn check_observed(source: &Arc<SourceFile>, form: Form, scoring: Scoring, group: &Group, found: &mut Vec<Diagnostic>) {
    let mut observed: BTreeMap<&str, Location> = BTreeMap::new();
    for of in group
        .populations
        .iter()
        .filter(|population| population.aggregate.is_some())
        .filter_map(|population| population.of.as_ref())
    {
        let place = locate(source, of);
        if let Some(first) = observed.insert(&of.value, place.clone()) {
            let message = format!("two observations are of `{}`: a {} observes each population once", of.value, word(scoring));
            found.push(Diagnostic::error(message).at(place).label(first, "the first one").help(form.sides()));
        }
    }
}

fn check_dependence(source: &Arc<SourceFile>, form: Form, group: &Group, population: &Population, found: &mut Vec<Diagnostic>) {
    let observation = population.code == PopulationCode::MeasureObservation;
    let place = form.place(source, population);
    if observation && population.of.is_none() {
        found.push(Diagnostic::error(format!("an observation needs {}", form.to_observe())).at(place.clone()));
    }
    if observation != population.aggregate.is_some() {
        let text = if observation { "an observation needs" } else { "only an observation has an" };
        let text = format!("{text} `{}`", form.aggregate());
        found.push(Diagnostic::error(text).at(place.clone()).help("one of sum, count, average, median, minimum, maximum"));
    }
    let initial = group.populations.iter().filter(|other| other.code == PopulationCode::InitialPopulation).count();
    let sided = matches!(population.code, PopulationCode::Denominator | PopulationCode::Numerator);
    if initial > 1 && sided && population.of.is_none() {
        found.push(Diagnostic::error(format!("with two initial populations `{}` must say which one it is {}", population.id(), form.of())).at(place));
    }
    let Some(of) = &population.of else { return };
    let target = group.populations.iter().find(|other| other.id() == of.value);
    let allowed = |code: PopulationCode| match population.code {
        PopulationCode::MeasureObservation => {
            matches!(code, PopulationCode::Numerator | PopulationCode::Denominator | PopulationCode::MeasurePopulation)
        }
        _ => code == PopulationCode::InitialPopulation,
    };
    match target {
        None => {
            let mut finding = Diagnostic::error(format!("no population has the id `{}`", of.value)).at(locate(source, of));
            if let Some(near) = diagnostic::nearest(&of.value, group.populations.iter().map(Population::id)) {
                finding = finding.help(format!("did you mean `{near}`?"));
            }
            found.push(finding);
        }
        Some(target) if !allowed(target.code) => found.push(Diagnostic::error(format!("`{}` cannot be of `{}`", population.code.code(), of.value)).at(locate(source, of))),
        Some(_) => {}
    }
}
