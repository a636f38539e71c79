//! Joins a definition to its CQL: every name resolved, every type right, every value set there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::calculate::{Binding, GroupBinding, MEASUREMENT_PERIOD, Measure, Part, StratifierBinding};
use super::composite::resolve::{self, Candidate, Place};
use super::definition::{self, Definition, Group, Population, StratifierKind, Text};
use super::logic::Fingerprint;
use super::population::{PopulationCode, Scoring};
use super::published;
use crate::cql::model::Models;
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::cql::{self, Libraries, Program, given, typed};
use crate::diagnostic::yaml::locate;
use crate::diagnostic::{self, Diagnostic, Location, Severity, SourceFile, Span};
use crate::terminology::{Shortfall, ValueSets, split_canonical};

mod fit;
mod identity;

use fit::Counted;

/// The texts of one measure.
#[derive(Clone, Debug)]
pub struct Files {
    /// `measure.yaml`.
    pub definition: Arc<SourceFile>,
    /// The CQL beside it.
    pub cql: Vec<Arc<SourceFile>>,
    /// Libraries that it may include.
    pub libraries: Vec<Arc<SourceFile>>,
    /// The same logic as ELM JSON, the measure's own library first; of published measures only.
    pub elm: Vec<Arc<SourceFile>>,
}

/// What to do about a value set that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingValueSets {
    /// The measure cannot be used: it would silently find nobody.
    #[default]
    Error,
    /// Say it and go on.
    Warn,
}

/// Which form of the logic to run, where a Library holds both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logic {
    /// CQL text: what the authors wrote.
    #[default]
    Cql,
    /// ELM, as it was translated for the publication.
    Elm,
}

/// What the caller decides about a measure.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Values of parameters by name, in place of those of the definition; as text.
    pub parameters: BTreeMap<String, String>,
    /// About value sets that are not there.
    pub missing_value_sets: MissingValueSets,
    /// Which form of the logic to run.
    pub logic: Logic,
}

/// Compiles measures that are loaded together, so that one can be composed of others. One for each, `None` when anything is
/// wrong with it that would change a number. Where value sets stand beside a measure that are not those of all, `own_sets` has them.
pub fn compile(all: &[&Files], value_sets: &ValueSets, own_sets: &[Arc<ValueSets>], choices: &Choices, models: &Models) -> (Vec<Option<Measure>>, Vec<Diagnostic>) {
    let read = |files: &&Files| if published::is_published(&files.definition) { published::definition(&files.definition) } else { definition::parse(&files.definition) };
    let (definitions, mut findings): (Vec<Option<Definition>>, Vec<Vec<Diagnostic>>) = all.iter().map(read).unzip();
    let candidates: Vec<Option<Candidate<'_>>> = definitions.iter().map(|definition| definition.as_ref().map(Candidate::of)).collect();
    let mut compiled = Vec::new();
    let mut composed = Vec::new();
    for (index, ((files, definition), found)) in all.iter().zip(&definitions).zip(&mut findings).enumerate() {
        let mut groups = candidates.get(index).and_then(Option::as_ref).map(|own| own.groups.clone()).unwrap_or_default();
        let (places, more) = resolve::resolve(&files.definition, index, &candidates, &mut groups);
        found.extend(more);
        let own_sets = own_sets.get(index);
        let value_sets = own_sets.map_or(value_sets, |own| own);
        let measure = definition.clone().and_then(|definition| one(files, definition, groups, value_sets, choices, models, found));
        compiled.push(measure.map(|measure| Measure { own_sets: own_sets.cloned(), ..measure }));
        composed.push(places);
    }
    let mut found: Vec<Diagnostic> = findings.into_iter().flatten().collect();
    found.extend(unknown_choices(choices, &compiled));
    (compose(compiled, &composed), found)
}

/// One measure without the components of its composite groups.
fn one(files: &Files, mut definition: Definition, groups: Vec<Group>, value_sets: &ValueSets, choices: &Choices, models: &Models, found: &mut Vec<Diagnostic>) -> Option<Measure> {
    let program = program(files, &definition, choices.logic, models, found)?;
    let fingerprint = Fingerprint::new(&definition, &program, value_sets);
    let library = program.roots().first().and_then(|id| program.tree().libraries.get(id.index())).map(|library| library.name.to_string());
    let library = library.unwrap_or_default();
    let before = std::mem::take(found);
    let mut linker = Linker {
        source: &files.definition,
        definition: &definition,
        program: &program,
        root: &library,
        found: before,
        mismatched: Vec::new(),
        varying: BTreeSet::new(),
    };
    let incomplete_sets = linker.value_sets(value_sets, choices.missing_value_sets);
    let (parameters, shown_parameters) = linker.parameters(choices);
    let bindings: Vec<Option<GroupBinding>> = groups.iter().map(|group| linker.group(group)).collect();
    let supplements: Vec<_> = linker.supplements();
    let varying = linker.varying;
    *found = linker.found;
    if diagnostic::has_errors(found) {
        return None;
    }
    let mut kept = supplements.iter().map(Option::is_some);
    definition.supplemental_data.retain(|_| kept.next().unwrap_or(false));
    let supplements = supplements.into_iter().flatten().filter_map(|binding| match binding {
        Binding::Define(define) => Some(define),
        Binding::Function(_) => None,
    });
    Some(Measure {
        groups,
        bindings: bindings.into_iter().flatten().collect(),
        supplements: supplements.collect(),
        program: Arc::new(program),
        parameters,
        shown_parameters,
        digest: digest(files),
        fingerprint,
        definition,
        varying,
        incomplete_sets,
        own_sets: None,
        components: Vec::new(),
        inherited: Vec::new(),
    })
}

/// Gives composites the measures that they are made of; places are by measure and group. A composite of a measure that is
/// wrong is wrong too, and the reason has been said.
fn compose(compiled: Vec<Option<Measure>>, places: &[Vec<Vec<Place>>]) -> Vec<Option<Measure>> {
    let attach = |(own, places): (usize, &Vec<Vec<Place>>)| {
        let mut measure = compiled.get(own)?.clone()?;
        let mut distinct: Vec<usize> = places.iter().flatten().map(|place| place.measure).filter(|index| *index != own).collect();
        distinct.sort_unstable();
        distinct.dedup();
        for (binding, places) in measure.bindings.iter_mut().zip(places) {
            let part = |place: &Place| Part { measure: distinct.iter().position(|index| *index == place.measure), group: place.group };
            binding.parts = places.iter().map(part).collect();
        }
        let components = distinct.iter().map(|index| compiled.get(*index)?.clone()).collect::<Option<Vec<_>>>()?;
        inherit(&mut measure, &components);
        let digests: Vec<&str> = components.iter().map(|component| component.digest.as_str()).collect();
        if !digests.is_empty() {
            measure.digest = digest_of(std::iter::once(measure.digest.as_str()).chain(digests));
        }
        let parts = components.iter().map(|component| (component.definition.canonical(), &component.fingerprint)).collect();
        measure.fingerprint = measure.fingerprint.with_parts(parts);
        measure.varying.extend(components.iter().flat_map(|component| component.varying.iter().cloned()));
        measure.incomplete_sets.extend(components.iter().flat_map(|component| component.incomplete_sets.iter().cloned()));
        measure.components = components;
        Some(measure)
    };
    places.iter().enumerate().map(attach).collect()
}

/// A composite has the supplemental data of its components beside its own, each once (Conformance Requirement 5.9).
fn inherit(measure: &mut Measure, components: &[Measure]) {
    let own = measure.definition.supplemental_data.len();
    for (place, component) in components.iter().enumerate() {
        for (index, datum) in component.definition.supplemental_data.iter().enumerate() {
            match measure.definition.supplemental_data.iter().position(|known| known.id.value == datum.id.value) {
                Some(known) => {
                    let sources = known.checked_sub(own).and_then(|known| measure.inherited.get_mut(known));
                    sources.into_iter().for_each(|sources| sources.push((place, index)));
                }
                None => {
                    measure.definition.supplemental_data.push(datum.clone());
                    measure.inherited.push(vec![(place, index)]);
                }
            }
        }
    }
}

/// Values that the caller chose for parameters that no measure has; nothing where a measure could not be compiled.
fn unknown_choices(choices: &Choices, compiled: &[Option<Measure>]) -> Vec<Diagnostic> {
    let Some(measures) = compiled.iter().map(Option::as_ref).collect::<Option<Vec<_>>>() else { return Vec::new() };
    let names = || measures.iter().flat_map(|measure| measure.program.parameters()).map(|parameter| &*parameter.name);
    let unknown = choices.parameters.keys().filter(|name| !names().any(|known| known == name.as_str()));
    unknown.map(|name| unknown_parameter(name, names())).collect()
}

pub(super) fn unknown_parameter<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Diagnostic {
    let finding = Diagnostic::error(format!("the CQL has no parameter `{name}`"));
    match diagnostic::nearest(name, known) {
        Some(near) => finding.help(format!("did you mean `{near}`?")),
        None => finding,
    }
}

fn digest(files: &Files) -> String {
    let mut texts: Vec<&str> = files.cql.iter().chain(&files.libraries).chain(&files.elm).map(|file| file.text.as_str()).collect();
    texts.sort_unstable();
    digest_of(std::iter::once(files.definition.text.as_str()).chain(texts))
}

pub(super) fn digest_of<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The logic, from CQL text or from ELM.
pub(super) fn program(files: &Files, definition: &Definition, logic: Logic, models: &Models, found: &mut Vec<Diagnostic>) -> Option<Program> {
    // Where a Library has no CQL text the ELM of all is run: one form cannot include the other.
    let incomplete = files.cql.len() + files.libraries.len() < files.elm.len();
    if let (true, [root, shared @ ..]) = (logic == Logic::Elm || incomplete, files.elm.as_slice()) {
        let (program, more) = cql::elm::compile(root, shared, models);
        found.extend(more);
        return program;
    }
    if let (true, Some(file)) = (definition.is_counted_elsewhere(), files.cql.first()) {
        let message = format!("`{}` is not read: the measure is counted elsewhere", file.name);
        found.push(Diagnostic::warning(message).at(definition::key(&files.definition, "counted")).help("remove it"));
    }
    if definition.is_counted_elsewhere() || files.cql.is_empty() && !definition.has_logic() {
        return cql::compile(&[], &Libraries::default(), models).0;
    }
    let root = root(files, definition, found)?;
    let mut shared: Vec<Arc<SourceFile>> = files.libraries.clone();
    shared.extend(files.cql.iter().filter(|file| !Arc::ptr_eq(file, &root)).cloned());
    let remedy = match published::is_published(&files.definition) {
        true => "add the Library resource that holds it",
        false => "put its `.cql` file beside the measure, or into a folder `libraries` there or above it",
    };
    let mut libraries = Libraries::default().with_remedy(remedy);
    shared.iter().for_each(|source| libraries.add(source));
    let (program, more) = cql::compile(&[with_expressions(root, definition, found)?], &libraries, models);
    found.extend(more);
    program
}

/// The measure's own library and, in its words, criteria that are expressions: each is a definition named by its text.
fn with_expressions(root: Arc<SourceFile>, definition: &Definition, found: &mut Vec<Diagnostic>) -> Option<Arc<SourceFile>> {
    if definition.expressions.is_empty() {
        return Some(root);
    }
    let (library, _) = cql::parser::parse(&root);
    let functions = library.functions.iter().map(|function| &*function.name.text);
    let names: BTreeSet<&str> = library.defines.iter().map(|define| &*define.name.text).chain(functions).collect();
    let is_word = |text: &str| text.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    let mut whole = root.text.clone();
    let before = found.len();
    for (text, certain) in definition.expressions.iter().filter(|(text, _)| !names.contains(text.as_str())) {
        let (_, faults) = cql::parser::parse_expression(&SourceFile::new(format!("criteria of {}", definition.id.value), text.as_str()));
        match certain {
            true if !faults.is_empty() => found.extend(faults),
            // What may be a name, and does not read as an expression, is a name that was mistyped: it is told as one.
            false if is_word(text) || !faults.is_empty() => {}
            _ => whole.push_str(&format!("\ncontext Patient\ndefine {}:\n{text}\n", cql::show::identifier(text))),
        }
    }
    (found.len() == before).then(|| SourceFile::new(root.name.as_str(), whole))
}

/// The CQL that the definition names, or the only one there is.
fn root(files: &Files, definition: &Definition, found: &mut Vec<Diagnostic>) -> Option<Arc<SourceFile>> {
    let name_of = |file: &Arc<SourceFile>| file.name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    let at = |text: &Text| locate(&files.definition, text);
    let Some(wanted) = &definition.library else {
        if let [only] = files.cql.as_slice() {
            return Some(only.clone());
        }
        let finding = match files.cql.len() {
            0 => Diagnostic::error("no CQL file stands beside the measure").help("put the file there whose definitions it names"),
            many => Diagnostic::error(format!("{many} CQL files stand beside the measure, and `library` does not say which")).help("add `library: NAME.cql`"),
        };
        found.push(finding.at(at(&definition.id)));
        return None;
    };
    if let Some(file) = files.cql.iter().find(|file| name_of(file) == wanted.value) {
        return Some(file.clone());
    }
    let names: Vec<String> = files.cql.iter().map(name_of).collect();
    let mut finding = Diagnostic::error(format!("there is no `{}` beside the measure", wanted.value)).at(at(wanted));
    if let Some(near) = diagnostic::nearest(&wanted.value, names.iter().map(String::as_str)) {
        finding = finding.help(format!("did you mean `{near}`?"));
    }
    found.push(finding);
    None
}

/// What to do about a value set that is not here: in that version, or at all.
fn missing_help(canonical: &str, known: &ValueSets) -> String {
    let (url, _) = split_canonical(canonical);
    // `urn:oid:X` and `http://cts.nlm.nih.gov/fhir/ValueSet/X` are one set under two names.
    let own_id = |url: &str| url.rsplit(['/', ':']).next().unwrap_or_default().to_owned();
    let is_oid = own_id(url).split('.').count() > 3;
    let same = known.urls().find(|other| is_oid && own_id(other) == own_id(url));
    let near = same.or_else(|| diagnostic::nearest(url, known.urls()));
    match (known.versions(url).as_slice(), near.filter(|near| *near != url && known.refusal(url, None).is_none())) {
        ([], Some(near)) => format!("did you mean `{near}`?"),
        ([], None) => "put its expansion into a `value-sets` folder, or name it with --valuesets".to_owned(),
        (versions, _) => format!("it is here in version {}: name that one, or add the one that is meant", versions.join(", ")),
    }
}

/// That the newest of several versions is taken where the logic names none.
fn newest_taken(url: &str, versions: &[&str]) -> Option<Diagnostic> {
    let (newest, _) = versions.split_last().filter(|(_, older)| !older.is_empty())?;
    let name = |version: &&str| if version.is_empty() { "none".to_owned() } else { format!("`{version}`") };
    let all: Vec<String> = versions.iter().map(name).collect();
    let message = format!("value set `{url}` is here in the versions {}, and no version is named: {} is taken", all.join(", "), name(newest));
    Some(Diagnostic::warning(message).help(format!("name one, as `version '{newest}'` after the URL, or take the others away")))
}

/// Where a definition has a text: in JSON the first place where it stands as one.
pub(super) fn written_at(source: &Arc<SourceFile>, text: &Text) -> Location {
    if published::is_published(source) {
        let quoted = serde_json::Value::from(text.value.as_str()).to_string();
        return Location::new(source, Span::default()).first(quoted.trim_end_matches('"'));
    }
    locate(source, text)
}

struct Linker<'a> {
    source: &'a Arc<SourceFile>,
    definition: &'a Definition,
    program: &'a Program,
    /// The name of the measure's own library.
    root: &'a str,
    found: Vec<Diagnostic>,
    /// Criteria of the group in hand that are not of the type that its basis asks for.
    mismatched: Vec<(Diagnostic, Type)>,
    /// Definitions, shown in reports, whose value may be another one for everybody.
    varying: BTreeSet<String>,
}

impl Linker<'_> {
    /// The value sets that are missing or known not to be whole; each is said where the logic names it.
    fn value_sets(&mut self, known: &ValueSets, missing: MissingValueSets) -> BTreeSet<Shortfall> {
        let tree = self.program.tree();
        let mut short: Vec<(Shortfall, Location)> = Vec::new();
        let place = |typed::ValueSet { library, at, id, .. }: &typed::ValueSet| {
            let source = tree.location(*library, *at).map_or_else(|| self.source.clone(), |place| place.source);
            Location::new(&source, *at).first(id)
        };
        for row in &tree.value_sets {
            let found = known.find(&row.id, row.version.as_deref()).filter(|set| !set.is_empty());
            let canonical = || row.version.as_ref().map_or_else(|| row.id.to_string(), |version| format!("{}|{version}", row.id));
            let shortfall = found.map_or_else(|| Some(Shortfall { canonical: canonical(), held: 0, total: None }), |set| set.shortfall());
            short.extend(shortfall.map(|shortfall| (shortfall, place(row))));
        }
        let unpinned = tree.value_sets.iter().filter(|row| row.version.is_none());
        let chosen: Vec<Diagnostic> = unpinned.filter_map(|row| Some(newest_taken(&row.id, &known.versions(&row.id))?.at(place(row)))).collect();
        self.found.extend(chosen);
        for (shortfall, at) in &short {
            let (url, version) = split_canonical(&shortfall.canonical);
            let refusal = known.refusal(url, version).filter(|_| shortfall.held == 0);
            let message = refusal.map_or_else(|| shortfall.words(), str::to_owned);
            let finding = match (shortfall.held, missing) {
                (0, MissingValueSets::Error) => Diagnostic::error(message),
                _ => Diagnostic::warning(message),
            };
            let help = match shortfall.held {
                0 => missing_help(&shortfall.canonical, known),
                _ => "ask the terminology server for the rest (`$expand` with `offset` and `count`) and keep every page beside this one: pages are joined".to_owned(),
            };
            self.found.push(finding.at(at.clone()).help(help));
        }
        short.into_iter().map(|(shortfall, _)| shortfall).collect()
    }

    /// Values of the parameters, and the same as text for reports.
    fn parameters(&mut self, choices: &Choices) -> (BTreeMap<String, Value>, BTreeMap<String, String>) {
        let names: Vec<(String, Type)> = self.program.parameters().iter().map(|one| (one.name.to_string(), one.ty.clone())).collect();
        let mut values = BTreeMap::new();
        let mut shown = BTreeMap::new();
        let here = Location::new(self.source, Span::new(0, 0));
        let of_file = self.definition.parameters.iter().map(|(name, parameter)| {
            let place = &parameter.value.referenced;
            let start = self.source.offset(place.line() as usize, place.column() as usize) as u32;
            (name.clone(), parameter.value.value.text(), Some(Location::new(self.source, Span::new(start, start))))
        });
        // Of what is chosen for several measures together each takes what it knows.
        let chosen = choices.parameters.iter().filter(|(name, _)| names.iter().any(|(known, _)| known == *name));
        let chosen = chosen.map(|(name, text)| (name.clone(), text.clone(), None));
        for (name, text, at) in of_file.chain(chosen).collect::<Vec<_>>() {
            let Some((_, ty)) = names.iter().find(|(known, _)| *known == name) else {
                let finding = unknown_parameter(&name, names.iter().map(|(known, _)| known.as_str()));
                self.found.push(Diagnostic { at: at.map(|at| at.last_before(&name)), ..finding });
                continue;
            };
            match given::value(&text, ty) {
                Some(value) => {
                    values.insert(name.clone(), value);
                    shown.insert(name, text);
                }
                None => self.found.push(Diagnostic { at: at.map(|at| at.first(&text)), ..no_value(&name, &text, ty) }),
            }
        }
        if !self.program.roots().is_empty() && !names.iter().any(|(name, _)| name == MEASUREMENT_PERIOD) {
            let text = format!("the CQL has no parameter `{MEASUREMENT_PERIOD}`: every period would give the same numbers");
            self.found.push(Diagnostic::warning(text).at(here));
        }
        (values, shown)
    }

    fn group(&mut self, group: &Group) -> Option<GroupBinding> {
        let written = group.basis.as_ref().unwrap_or(&self.definition.basis);
        if !self.is_counted(written) {
            return None;
        }
        // What stratifies a composite is the patient, whatever is counted.
        let is_composite = self.definition.scoring_of(group) == Scoring::Composite;
        let basis = if is_composite { definition::PATIENT } else { written.value.as_str() };
        let is_bound = !is_composite && !self.definition.is_counted_elsewhere();
        let measured = group.populations.iter().filter(|_| is_bound);
        let counted = Counted { basis, members: self.members(group) };
        let mut populations = Vec::new();
        let mut unknown = Vec::new();
        for population in measured {
            populations.push(self.population(population, &counted));
            let mut doubts = Vec::new();
            for doubt in &population.cannot_tell {
                if let Some(binding) = self.define(&doubt.define) {
                    self.membership_type(&doubt.define, binding, basis);
                    doubts.push((binding, doubt.reason.code()));
                }
            }
            unknown.push(doubts);
        }
        let stratifiers = group.stratifiers.iter().map(|stratifier| {
            let names: Vec<&Text> = stratifier.define.iter().chain(stratifier.components.iter().map(|one| &one.define)).collect();
            let mut components: Vec<Option<Binding>> = names.iter().map(|name| self.define_or_function(name, &counted)).collect();
            let kind = self.stratifier_kind(stratifier.kind, &components);
            match (kind, names.first(), components.first()) {
                (StratifierKind::Criteria, Some(name), Some(Some(binding))) => self.membership_type(name, *binding, basis),
                _ => components = names.iter().zip(components).map(|(name, binding)| self.shown(name, binding?)).collect(),
            }
            Some(StratifierBinding { kind, components: components.into_iter().collect::<Option<Vec<_>>>()? })
        });
        let stratifiers: Vec<Option<StratifierBinding>> = stratifiers.collect();
        self.mismatches(group, written);
        Some(GroupBinding {
            shape: group.shape(self.definition.scoring),
            counts_patients: basis == definition::PATIENT,
            populations: populations.into_iter().collect::<Option<Vec<_>>>()?,
            unknown,
            stratifiers: stratifiers.into_iter().collect::<Option<Vec<_>>>()?,
            parts: Vec::new(),
        })
    }

    fn stratifier_kind(&self, kind: StratifierKind, components: &[Option<Binding>]) -> StratifierKind {
        let is_list = matches!(components, [Some(Binding::Define(define))] if self.program.define_type(*define).is_list());
        match kind {
            StratifierKind::ByType if is_list => StratifierKind::Criteria,
            StratifierKind::ByType => StratifierKind::Value,
            said => said,
        }
    }

    /// The types of the events that the populations of a group hold.
    fn members(&self, group: &Group) -> Vec<Type> {
        let defines = group.populations.iter().filter_map(|population| self.program.define(self.root, &population.define.value));
        defines.filter_map(|define| self.program.define_type(define).element().cloned()).collect()
    }

    fn population(&mut self, population: &Population, counted: &Counted<'_>) -> Option<Binding> {
        if population.code == PopulationCode::MeasureObservation {
            return self.observation(&population.define, counted);
        }
        let binding = self.define(&population.define)?;
        self.membership_type(&population.define, binding, counted.basis);
        Some(binding)
    }

    /// Whether there is such a thing to count: patients, a resource type, or - in published measures - a type of CQL.
    fn is_counted(&mut self, basis: &Text) -> bool {
        let types = || self.program.resource_types().chain([definition::PATIENT]);
        if types().nth(1).is_none() || types().any(|name| name == basis.value) || published::is_published(self.source) {
            return true;
        }
        let mut finding = Diagnostic::error(format!("`{}` is nothing that a measure counts", basis.value)).at(locate(self.source, basis));
        let near = diagnostic::nearest(&basis.value, types()).map(|near| format!("did you mean `{near}`?"));
        finding.help = near.or_else(|| Some("name a FHIR resource type, as `Patient` or `Encounter`".to_owned()));
        self.found.push(finding);
        false
    }

    /// The supplemental data. One that a publication names and does not define cannot change a population: said, and left out.
    fn supplements(&mut self) -> Vec<Option<Binding>> {
        let (definition, before) = (self.definition, self.found.len());
        let found = definition
            .supplemental_data
            .iter()
            .map(|one| self.define(&one.define).and_then(|binding| self.shown(&one.define, binding)))
            .collect();
        if published::is_published(self.source) {
            self.found.iter_mut().skip(before).for_each(|finding| finding.severity = Severity::Warning);
        }
        found
    }

    fn define(&mut self, name: &Text) -> Option<Binding> {
        if let Some(define) = self.program.define(self.root, &name.value) {
            return Some(Binding::Define(define));
        }
        self.unknown_name(name, false);
        None
    }

    fn unknown_name(&mut self, name: &Text, functions: bool) {
        let kind = if functions { "definition or function" } else { "definition" };
        let mut finding = Diagnostic::error(format!("library `{}` has no {kind} `{}`", self.root, name.value)).at(self.place(name));
        let tree = self.program.tree();
        let defines = self.program.defines(self.root).into_iter().map(|(_, name)| name);
        let functions = tree.functions.iter().filter(|_| functions).map(|row| &*row.name);
        if let Some(near) = diagnostic::nearest(&name.value, defines.chain(functions)) {
            finding = finding.help(format!("did you mean `{near}`?"));
        }
        if self.definition.expressions.get(&name.value) == Some(&true) {
            finding = finding.help("an expression is read with the Library's CQL text; its ELM holds definitions only");
        }
        self.found.push(finding);
    }

    /// Whether instances of a type are of the resource type that is counted.
    fn is_of_basis(&self, ty: &Type, basis: &str) -> bool {
        match ty {
            Type::Class(class) => {
                let instance = self.program.class_id(class).and_then(|id| self.program.class_name(id)).unwrap_or(class);
                instance.rsplit('.').next() == Some(basis)
            }
            Type::Choice(types) => types.iter().all(|ty| self.is_of_basis(ty, basis)),
            Type::Any => true,
            other => other.to_string() == basis,
        }
    }

    /// A criterion gives Boolean for patients, a list of the basis for events.
    fn membership_type(&mut self, name: &Text, binding: Binding, basis: &str) {
        let Binding::Define(define) = binding else { return };
        let ty = self.program.define_type(define).clone();
        let (fits, expected) = if basis == definition::PATIENT {
            (matches!(ty, Type::Boolean | Type::Any), "Boolean".to_owned())
        } else {
            (matches!(&ty, Type::List(item) if self.is_of_basis(item, basis)), format!("List<{basis}>"))
        };
        if !fits {
            let message = format!("`{}` gives {ty}, a measure that counts `{basis}` expects {expected}", name.value);
            let finding = Diagnostic::error(message).at(self.place(name)).help("change the definition, or the `basis` of the measure");
            self.mismatched.push((finding, ty));
        }
    }

    /// Criteria of another type than the basis asks for. When all are of one type, the basis is what is wrong.
    fn mismatches(&mut self, group: &Group, basis: &Text) {
        let mut mismatched = std::mem::take(&mut self.mismatched);
        let criteria = group.populations.iter().filter(|one| one.code != PopulationCode::MeasureObservation).count();
        match mismatched.first() {
            Some((_, ty)) if criteria > 1 && mismatched.len() >= criteria && mismatched.iter().all(|(_, other)| other == ty) => {
                let message = format!("the measure counts `{}`, but its populations give {ty}", basis.value);
                let help = match ty {
                    Type::Boolean => "write `basis: Patient`, or let the definitions give what is counted".to_owned(),
                    Type::List(item) => format!("name as `basis` what the lists hold: {item}"),
                    _ => "let the definitions give Boolean for patients, or lists of what is counted".to_owned(),
                };
                self.found.push(Diagnostic::error(message).at(locate(self.source, basis)).help(help));
            }
            _ => self.found.extend(mismatched.drain(..).map(|(finding, _)| finding)),
        }
    }
}

/// What is said of a text that is no value of a parameter's type.
pub(super) fn no_value(name: &str, text: &str, ty: &Type) -> Diagnostic {
    Diagnostic::error(format!("`{text}` is no {ty}, the type of the parameter `{name}`")).help(given::help(ty))
}
