//! A measure compiled: its definition joined to its CQL, and one patient's record to populations.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::Decimal;

use super::composite;
use super::definition::{Definition, Group, NOT_COUNTED, PATIENT, Stratifier, StratifierKind, Text, UNDETERMINED};
use super::logic::Fingerprint;
use super::period::Period;
use super::population::{self, Amount, Criteria, GroupShape, Member, Membership, PopulationCode};
use super::report::{Facts, Reporter};
use super::result::{GroupResult, Label, PatientResult, Strata, Stratum};
use crate::cql::date_time::{Date, DateTime, Time};
use crate::cql::evaluate::observe::Observed;
use crate::cql::interval::{Interval, Point};
use crate::cql::value::Value;
use crate::cql::{DefineId, Environment, EvaluationError, FunctionId, Program, Session};
use crate::fhir::record::{NodeId, Record, Shape};
use crate::terminology::units::Units;
use crate::terminology::{Shortfall, ValueSets};

/// Name of the CQL parameter that holds the reporting period.
pub const MEASUREMENT_PERIOD: &str = "Measurement Period";
/// Stratum of a member whose value is null.
pub const UNKNOWN: &str = "unknown";
/// Most events of one population of one patient.
const EVENTS_MAX: usize = 100_000;
/// A number of no more digits may be an age or a count and by chance an id.
const SHORT_NUMBER_DIGITS: usize = 4;
/// Deepest nesting of a value that names an event or stratum.
const RENDER_DEPTH_MAX: usize = 8;

/// A measure ready to be evaluated; immutable, shared between threads.
#[derive(Clone, Debug)]
pub struct Measure {
    /// What `measure.yaml` says.
    pub definition: Definition,
    /// Its groups.
    pub groups: Vec<Group>,
    pub(super) program: Arc<Program>,
    pub(super) bindings: Vec<GroupBinding>,
    pub(super) supplements: Vec<DefineId>,
    pub(super) parameters: BTreeMap<String, Value>,
    /// Effective values of the parameters that the measure names, for reports.
    pub shown_parameters: BTreeMap<String, String>,
    /// SHA-256 over the texts it was made from, as hex.
    pub digest: String,
    /// What it computes.
    pub(super) fingerprint: Fingerprint,
    /// Value sets that it uses, or a measure that it is composed of, and that are not whole.
    pub incomplete_sets: BTreeSet<Shortfall>,
    /// The value sets that stand beside it, where other measures have others of the same URL.
    pub(super) own_sets: Option<Arc<ValueSets>>,
    /// Definitions, shown in its reports, whose value may be another one for everybody: a number, a day, a free text.
    pub(super) varying: BTreeSet<String>,
    /// The measures that its composites are made of; without the components of theirs.
    pub(super) components: Vec<Measure>,
    /// Of the supplemental data after its own: the components that have it, and its place there.
    pub(super) inherited: Vec<Vec<(usize, usize)>>,
}

/// The CQL behind a name of the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// A definition of the patient.
    Define(DefineId),
    /// A function of one event.
    Function(FunctionId),
}

/// One group with its CQL.
#[derive(Clone, Debug)]
pub(super) struct GroupBinding {
    pub(super) shape: GroupShape,
    /// The patient is what is counted, not events.
    pub(super) counts_patients: bool,
    pub(super) populations: Vec<Binding>,
    /// Per population: definition and reason of those for whom the record cannot tell.
    pub(super) unknown: Vec<Vec<(Binding, &'static str)>>,
    pub(super) stratifiers: Vec<StratifierBinding>,
    /// What a composite is made of, as its shape lists the components.
    pub(super) parts: Vec<Part>,
}

/// A group that a composite is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Index of its measure among the components; `None` for another group of the same measure.
    pub(super) measure: Option<usize>,
    pub(super) group: usize,
}

impl GroupBinding {
    fn is_composite(&self) -> bool {
        self.shape.composite.is_some()
    }

    /// The CQL of its initial populations, with what says that the record cannot tell.
    fn initial(&self) -> impl Iterator<Item = Binding> + '_ {
        let slots = self.shape.slots.iter().enumerate().filter(|(_, slot)| slot.code == PopulationCode::InitialPopulation);
        slots.flat_map(|(index, _)| {
            let doubts = self.unknown.get(index).into_iter().flatten().map(|(doubt, _)| *doubt);
            self.populations.get(index).copied().into_iter().chain(doubts)
        })
    }

    /// The memberships of one patient in the groups that a composite is made of.
    pub(super) fn of_parts<'r>(&self, own: &'r PatientResult, components: &[&'r PatientResult]) -> Vec<&'r [Membership]> {
        let found = |part: &Part| part.measure.map_or(Some(own), |at| components.get(at).copied())?.groups.get(part.group);
        self.parts.iter().map(|part| found(part).map_or(&[][..], |group| group.memberships.as_slice())).collect()
    }
}

/// One stratifier with its CQL.
#[derive(Clone, Debug)]
pub(super) struct StratifierBinding {
    pub(super) kind: StratifierKind,
    pub(super) components: Vec<Binding>,
}

/// Everything that a result depends on beside measure, record and period.
#[derive(Clone, Debug)]
pub struct Setting {
    /// `Now()` and `Today()`.
    pub now: DateTime,
    /// The zone in which days are meant.
    pub zone: jiff::tz::TimeZone,
    /// Expanded value sets.
    pub value_sets: Arc<ValueSets>,
    /// Units of measure.
    pub units: Arc<Units>,
}

/// A measure over certain periods, prepared once for all patients.
#[derive(Clone, Debug)]
pub struct Run<'m> {
    /// The measure.
    pub measure: &'m Measure,
    environments: Vec<(Period, Environment)>,
    components: Vec<Run<'m>>,
}

/// What a measure found in one patient. An error names the place in the CQL and nothing of the patient.
pub type Evaluated = Result<PatientResult, EvaluationError>;

/// One patient over all measures, and of each over its own periods, in the same setting. What a composite shares with a measure that is
/// asked for itself over the same periods is evaluated once.
pub fn evaluate(runs: &[Run<'_>], record: &Record) -> Vec<Vec<Evaluated>> {
    let mut all: Vec<Vec<Evaluated>> = runs.iter().map(|run| run.own(record)).collect();
    let mut composed = Vec::new();
    for (index, run) in runs.iter().enumerate().filter(|(_, run)| run.measure.bindings.iter().any(GroupBinding::is_composite)) {
        let found = |component: &Run<'_>| {
            let same = runs.iter().position(|run| run.measure.digest == component.measure.digest && run.periods().eq(component.periods()));
            same.and_then(|at| all.get(at))
                .map_or_else(|| Cow::Owned(component.own(record)), |found| Cow::Borrowed(found.as_slice()))
        };
        let components: Vec<Cow<'_, [Evaluated]>> = run.components.iter().map(found).collect();
        let periods = run.environments.iter().zip(all.get(index).into_iter().flatten()).enumerate();
        let results = periods.map(|(period, ((_, environment), own))| run.compose(record, environment, own, components.iter().filter_map(|found| found.get(period))));
        composed.push((index, results.collect()));
    }
    for (index, results) in composed {
        if let Some(place) = all.get_mut(index) {
            *place = results;
        }
    }
    all
}

impl Measure {
    /// Its own compiled CQL: data requirements and shape of the scan.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its own CQL, and that of the measures that it is composed of.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        std::iter::once(&*self.program).chain(self.components.iter().map(|component| &*component.program))
    }

    /// The resource types that decide whether a patient is in an initial population, in any group of this measure or of those that
    /// it is composed of; `None` if that cannot be told. Who is in none is not looked at further.
    pub fn types_of_initial_populations(&self) -> Option<BTreeSet<String>> {
        let mut types = BTreeSet::new();
        for measure in std::iter::once(self).chain(&self.components) {
            let initial = measure.bindings.iter().filter(|binding| !binding.is_composite()).flat_map(GroupBinding::initial);
            let defines = initial.map(|binding| if let Binding::Define(define) = binding { Some(define) } else { None });
            types.extend(measure.program.types_of(&defines.collect::<Option<Vec<_>>>()?)?);
        }
        Some(types)
    }

    /// The ids of supplemental data, and the stratifiers by group and place, whose values may be others for everybody.
    pub fn varying(&self) -> (Vec<&str>, Vec<(usize, usize)>) {
        let varies = |define: &Text| self.varying.contains(&define.value);
        let data = self.definition.supplemental_data.iter().filter(|datum| varies(&datum.define));
        let each = |(at, group): (usize, &Group)| {
            let of = |stratifier: &Stratifier| stratifier.define.iter().chain(stratifier.components.iter().map(|one| &one.define)).any(varies);
            let places: Vec<_> = (0..).zip(&group.stratifiers).filter(|(_, stratifier)| of(stratifier)).map(|(place, _)| (at, place)).collect();
            places
        };
        (data.map(|datum| datum.id.value.as_str()).collect(), self.groups.iter().enumerate().flat_map(each).collect())
    }

    /// What to keep of each resource for any of these.
    pub fn shape(&self) -> Shape {
        let mut shape = Shape::default();
        self.programs().for_each(|program| shape.merge(program.shape()));
        shape
    }

    /// What makes its reports of a period.
    pub fn reporter<'a>(&'a self, period: Period, facts: &'a Facts) -> Reporter<'a> {
        Reporter {
            definition: &self.definition,
            groups: &self.groups,
            parameters: &self.shown_parameters,
            period,
            incomplete_sets: &self.incomplete_sets,
            fingerprint: &self.fingerprint,
            facts,
        }
    }

    /// The value sets that it uses, where these are those of all.
    pub fn value_sets<'a>(&'a self, of_all: &'a ValueSets) -> &'a ValueSets {
        self.own_sets().unwrap_or(of_all)
    }

    /// The value sets that stand beside it, where other measures have others of the same URL.
    pub fn own_sets(&self) -> Option<&ValueSets> {
        self.own_sets.as_deref()
    }

    /// The same, to be added to.
    pub fn own_sets_mut(&mut self) -> Option<&mut ValueSets> {
        self.own_sets.as_mut().map(Arc::make_mut)
    }

    /// Prepares the measure for these periods.
    pub fn over(&self, periods: &[Period], setting: &Setting) -> Run<'_> {
        let environment = |period: &Period| {
            let mut parameters = self.parameters.clone();
            parameters.insert(MEASUREMENT_PERIOD.to_owned(), interval(period));
            Environment {
                parameters,
                now: setting.now,
                zone: setting.zone.clone(),
                value_sets: self.own_sets.as_ref().unwrap_or(&setting.value_sets).clone(),
                units: setting.units.clone(),
            }
        };
        let environments = periods.iter().map(|period| (*period, environment(period))).collect();
        Run { measure: self, environments, components: self.components.iter().map(|component| component.over(periods, setting)).collect() }
    }
}

/// The period as CQL sees it: from the first to the last millisecond, in the zone of the evaluation.
fn interval(period: &Period) -> Value {
    let moment = |day: jiff::civil::Date, time: Time| {
        let date = Date::new(day.year().into(), Some(day.month().into()), Some(day.day().into()))?;
        DateTime::new(date, Some(time), None)
    };
    let bound = |found: Option<DateTime>| found.map_or(Value::Null, Value::DateTime);
    Value::Interval(Arc::new(Interval {
        low: bound(moment(period.start, Time::MIN)),
        low_closed: true,
        high: bound(moment(period.end, Time::MAX)),
        high_closed: true,
        point: Some(Point::DateTime),
    }))
}

impl Run<'_> {
    /// The periods, in the order of the results.
    pub fn periods(&self) -> impl Iterator<Item = Period> + '_ {
        self.environments.iter().map(|(period, _)| *period)
    }

    /// One patient over all periods.
    pub fn evaluate(&self, record: &Record) -> Vec<Evaluated> {
        evaluate(std::slice::from_ref(self), record).pop().unwrap_or_default()
    }

    /// The same without its composites.
    fn own(&self, record: &Record) -> Vec<Evaluated> {
        self.environments.iter().map(|(_, environment)| self.one(record, environment)).collect()
    }

    /// What the components of a composite, in their order, found in one patient over one period; `None` when there is no such period.
    pub(super) fn of_components(&self, record: &Record, period: usize) -> Option<Result<Vec<PatientResult>, EvaluationError>> {
        let one = |run: &Run<'_>| run.environments.get(period).map(|(_, environment)| run.one(record, environment));
        self.components.iter().map(one).collect::<Option<Vec<_>>>().map(|found| found.into_iter().collect())
    }

    /// A session over one period, to ask single definitions; `None` when there is no such period.
    pub fn session<'s>(&'s self, record: &'s Record, period: usize) -> Option<Session<'s>> {
        let (_, environment) = self.environments.get(period)?;
        Some(Session::new(&self.measure.program, environment, record))
    }

    /// What each clause comes to for one patient and period, in the populations and in every definition beside them;
    /// `None` when there is no such period. What fails is not seen: its error is the evaluation's to tell.
    pub fn observe(&self, record: &Record, period: usize) -> Option<Observed> {
        let session = self.session(record, period)?.observing();
        let mut patient = Patient::new(self.measure, session);
        for binding in &self.measure.bindings {
            let _ = patient.group(binding);
        }
        for (define, _) in self.measure.program.live_defines() {
            let _ = patient.session.evaluate(define);
        }
        Some(patient.session.observed().clone())
    }

    fn one(&self, record: &Record, environment: &Environment) -> Evaluated {
        let mut patient = Patient::new(self.measure, Session::new(&self.measure.program, environment, record));
        let groups = self.measure.bindings.iter().map(|binding| patient.group(binding)).collect::<Result<_, _>>()?;
        let mut result = PatientResult { groups, ..PatientResult::default() };
        result.supplements = patient.supplements(result.is_counted())?;
        result.messages.clone_from(patient.session.messages());
        result.unreadable.extend(patient.session.unreadable());
        result.doubts = patient.session.doubts();
        Ok(result)
    }

    /// Adds the composites to what was found without them.
    fn compose<'r>(&self, record: &Record, environment: &Environment, own: &Evaluated, components: impl Iterator<Item = &'r Evaluated>) -> Evaluated {
        let own = own.as_ref().map_err(EvaluationError::clone)?;
        let components = components.map(Result::as_ref).collect::<Result<Vec<&PatientResult>, _>>().map_err(EvaluationError::clone)?;
        let mut patient = Patient::new(self.measure, Session::new(&self.measure.program, environment, record));
        let mut result = own.clone();
        for (binding, group) in self.measure.bindings.iter().zip(&mut result.groups).filter(|(binding, _)| binding.is_composite()) {
            let memberships = composite::memberships(&binding.shape, &binding.of_parts(own, &components));
            *group = GroupResult { strata: patient.strata(binding, &memberships)?, memberships };
        }
        if result.is_counted() && !own.is_counted() {
            result.supplements = patient.supplements(true)?;
        }
        let value = |(component, index): &(usize, usize)| components.get(*component)?.supplements.get(*index)?.clone();
        result.supplements.extend(self.measure.inherited.iter().map(|sources| sources.iter().find_map(value)));
        result.messages.extend(components.iter().flat_map(|found| &found.messages).chain(patient.session.messages()).cloned());
        result
            .unreadable
            .extend(components.iter().flat_map(|found| found.unreadable.iter().cloned()).chain(patient.session.unreadable()));
        result.doubts.extend(components.iter().flat_map(|found| found.doubts.iter().cloned()).chain(patient.session.doubts()));
        Ok(result)
    }
}

/// Whom a value is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// For telling members apart, within one patient.
    Telling,
    /// For reports, in which nothing names a resource.
    People,
}

/// One patient while a measure is evaluated over one period.
struct Patient<'a> {
    measure: &'a Measure,
    session: Session<'a>,
    /// The events met so far, by key.
    events: BTreeMap<Member, Value>,
}

impl<'a> Patient<'a> {
    fn new(measure: &'a Measure, session: Session<'a>) -> Patient<'a> {
        Patient { measure, session: session.collecting_messages(), events: BTreeMap::new() }
    }

    /// The supplemental data of a patient who is counted.
    fn supplements(&mut self, counted: bool) -> Result<Vec<Option<String>>, EvaluationError> {
        let mut found = Vec::new();
        for define in &self.measure.supplements {
            let value = if counted { self.session.evaluate(*define)? } else { Value::Null };
            found.push(self.render(&value, For::People, 0).filter(|text| !text.is_empty()));
        }
        Ok(found)
    }

    /// A group; nothing yet for a composite.
    fn group(&mut self, binding: &GroupBinding) -> Result<GroupResult, EvaluationError> {
        if binding.is_composite() {
            return Ok(GroupResult::default());
        }
        let slots = &binding.shape.slots;
        let mut criteria = Criteria::none(slots.len());
        let initial = |slot: &population::Slot| slot.code == PopulationCode::InitialPopulation;
        for first in [true, false] {
            for (index, slot) in slots.iter().enumerate() {
                if slot.code != PopulationCode::MeasureObservation && initial(slot) == first {
                    self.criterion(binding, index, &mut criteria)?;
                }
            }
            let nobody = criteria.holds.iter().all(BTreeSet::is_empty) && criteria.unknown.iter().all(BTreeMap::is_empty);
            if first && nobody {
                let memberships = population::memberships(&binding.shape, &criteria);
                return Ok(GroupResult { memberships, strata: vec![BTreeMap::new(); binding.stratifiers.len()] });
            }
        }
        self.observe(binding, &mut criteria)?;
        let memberships = population::memberships(&binding.shape, &criteria);
        let strata = self.strata(binding, &memberships)?;
        Ok(GroupResult { memberships, strata })
    }

    fn criterion(&mut self, binding: &GroupBinding, index: usize, criteria: &mut Criteria) -> Result<(), EvaluationError> {
        let Some(own) = binding.populations.get(index) else { return Ok(()) };
        let before = self.session.doubtful();
        let (holds, undetermined) = self.members(*own, binding.counts_patients)?;
        let is_doubtful = self.session.doubtful() != before;
        let mut unknown = BTreeMap::new();
        for (doubt, reason) in binding.unknown.get(index).into_iter().flatten() {
            for member in self.members(*doubt, binding.counts_patients)?.0 {
                unknown.entry(member).or_insert_with(|| (*reason).to_owned());
            }
        }
        if is_doubtful {
            // What was looked at and could not be used may be what decides: of those who are in, and of those who could be.
            let initial = binding.shape.slots.iter().position(|slot| slot.code == PopulationCode::InitialPopulation).filter(|at| *at != index);
            let could_be = initial.and_then(|at| criteria.holds.get(at)).into_iter().flatten().cloned();
            for member in could_be.chain(binding.counts_patients.then(Member::new)).filter(|member| !holds.contains(member)) {
                unknown.entry(member).or_insert_with(|| NOT_COUNTED.to_owned());
            }
            if let Some(doubtful) = criteria.doubtful.get_mut(index) {
                doubtful.clone_from(&holds);
            }
        }
        if undetermined {
            unknown.entry(Member::new()).or_insert_with(|| UNDETERMINED.to_owned());
        }
        if let (Some(place), Some(doubts)) = (criteria.holds.get_mut(index), criteria.unknown.get_mut(index)) {
            *place = holds;
            *doubts = unknown;
        }
        Ok(())
    }

    /// The members that a definition gives, and whether it is a Boolean that gave null.
    fn members(&mut self, binding: Binding, counts_patients: bool) -> Result<(BTreeSet<Member>, bool), EvaluationError> {
        let Binding::Define(define) = binding else { return Ok((BTreeSet::new(), false)) };
        let value = self.session.evaluate(define)?;
        match value {
            Value::Boolean(true) => Ok((BTreeSet::from([Member::new()]), false)),
            Value::Boolean(false) => Ok((BTreeSet::new(), false)),
            Value::Null => Ok((BTreeSet::new(), counts_patients)),
            Value::List(items) => {
                let mut members = BTreeSet::new();
                for item in items.iter().filter(|item| !item.is_null()).take(EVENTS_MAX) {
                    let Some(key) = self.render(item, For::Telling, 0) else { continue };
                    self.events.entry(key.clone()).or_insert_with(|| item.clone());
                    members.insert(key);
                }
                Ok((members, false))
            }
            other => {
                let message = format!("a population gave {}, expected Boolean or a list", other.type_name());
                Err(EvaluationError::new(message, vec![self.measure.program.define_name(define).to_owned()]))
            }
        }
    }

    fn observe(&mut self, binding: &GroupBinding, criteria: &mut Criteria) -> Result<(), EvaluationError> {
        if !binding.shape.slots.iter().any(|slot| slot.code == PopulationCode::MeasureObservation) {
            return Ok(());
        }
        let members = population::memberships(&binding.shape, criteria);
        for (index, slot) in binding.shape.slots.iter().enumerate() {
            let (PopulationCode::MeasureObservation, Some(observed)) = (slot.code, slot.of) else { continue };
            let scored = members.get(observed).map(|found| found.scored.clone()).unwrap_or_default();
            for member in scored {
                let Some(own) = binding.populations.get(index) else { continue };
                let value = self.of_member(*own, &member)?;
                if let (Some(amount), Some(place)) = (self.amount(&value), criteria.observed.get_mut(index)) {
                    place.insert(member, amount);
                }
            }
        }
        Ok(())
    }

    /// What an observation came to: a number of the System's types, or an element of the record as it stands there.
    fn amount(&self, value: &Value) -> Option<Amount> {
        match value {
            Value::Integer(number) => Some(Decimal::from(*number).into()),
            Value::Long(number) => Some(Decimal::from(*number).into()),
            Value::Decimal(number) => Some((*number).into()),
            Value::Quantity(quantity) => Some(Amount::of(quantity.value, &quantity.unit)),
            Value::Node(node, _) => {
                let number = self.session.record().number(*node);
                number.map(Amount::from).or_else(|| self.amount_of_fields(*node))
            }
            _ => None,
        }
    }

    /// A FHIR Quantity: its unit is a code, or else a text. Or Money.
    fn amount_of_fields(&self, node: NodeId) -> Option<Amount> {
        let record = self.session.record();
        let text = |name: &str| record.get(node, name).and_then(|field| record.text(field));
        let number = record.number(record.get(node, "value")?)?;
        Some(Amount::of(number, text("code").or_else(|| text("unit")).or_else(|| text("currency")).unwrap_or_default()))
    }

    /// The value of a definition, or of a function for one event.
    fn of_member(&mut self, binding: Binding, member: &Member) -> Result<Value, EvaluationError> {
        match binding {
            Binding::Define(define) => self.session.evaluate(define),
            Binding::Function(function) if member.is_empty() => self.session.call(function, Vec::new()),
            Binding::Function(function) => match self.events.get(member).cloned() {
                Some(event) => self.session.call(function, vec![event]),
                None => Ok(Value::Null),
            },
        }
    }

    fn strata(&mut self, binding: &GroupBinding, memberships: &[Membership]) -> Result<Vec<Strata>, EvaluationError> {
        let everyone: BTreeSet<Member> = memberships.iter().flat_map(|one| one.members.iter().chain(one.unknown.keys())).cloned().collect();
        let mut all = Vec::new();
        for stratifier in &binding.stratifiers {
            let mut strata = Strata::new();
            let of_patient = stratifier.components.iter().all(|one| matches!(one, Binding::Define(_)));
            if everyone.is_empty() {
                // Nobody to divide.
            } else if stratifier.kind == StratifierKind::Criteria {
                if let Some(criterion) = stratifier.components.first() {
                    let members = self.members(*criterion, binding.counts_patients)?.0;
                    if !binding.is_composite() || !members.is_empty() {
                        strata.insert(vec!["true".into()], Some(members).filter(|_| !binding.is_composite()));
                    }
                }
            } else if of_patient {
                strata.insert(self.stratum(stratifier, &Member::new())?, None);
            } else {
                for member in &everyone {
                    let name = self.stratum(stratifier, member)?;
                    strata.entry(name).or_default().get_or_insert_default().insert(member.clone());
                }
            }
            all.push(strata);
        }
        Ok(all)
    }

    fn stratum(&mut self, stratifier: &StratifierBinding, member: &Member) -> Result<Stratum, EvaluationError> {
        let mut name = Stratum::new();
        for component in &stratifier.components {
            let value = self.of_member(*component, member)?;
            let text = self.render(&value, For::People, 0).filter(|text| !text.is_empty());
            // That nothing is known is the same in every system.
            let known = text.filter(|text| text != UNKNOWN).map(|text| Label { text, system: self.system(&value) });
            name.push(known.unwrap_or_else(|| UNKNOWN.into()));
        }
        Ok(name)
    }

    /// The system of a code: of a concept that of its first one, as is its text, and of a list that of its only item.
    fn system(&self, value: &Value) -> Option<String> {
        let system = match value {
            Value::Code(code) => code.system.as_deref(),
            Value::Concept(concept) => concept.codes.first()?.system.as_deref(),
            Value::List(items) => return items.first().filter(|_| items.len() == 1).and_then(|only| self.system(only)),
            Value::Node(node, _) if self.amount_of_fields(*node).is_none() => {
                let record = self.session.record();
                let coding = match record.get(*node, "coding") {
                    Some(codings) => record.items(codings).find(|coding| record.get(*coding, "code").is_some())?,
                    None => *node,
                };
                record.get(coding, "code").and_then(|_| record.text(record.get(coding, "system")?))
            }
            _ => None,
        };
        system.filter(|system| !system.is_empty()).map(str::to_owned)
    }

    /// A value as a text that is the same for equal values: the key of an event, the name of a stratum.
    fn render(&self, value: &Value, whom: For, depth: usize) -> Option<String> {
        if depth > RENDER_DEPTH_MAX {
            return None;
        }
        match value {
            Value::Node(node, _) => self.render_node(*node, whom),
            Value::List(items) => {
                let mut texts: Vec<String> = items.iter().filter_map(|item| self.render(item, whom, depth + 1)).collect();
                texts.sort();
                texts.dedup();
                Some(texts.join(","))
            }
            Value::Interval(interval) => {
                let [low, high] = [&interval.low, &interval.high].map(|bound| self.render(bound, whom, depth + 1).unwrap_or_default());
                Some(format!("{}{low},{high}{}", if interval.low_closed { '[' } else { '(' }, if interval.high_closed { ']' } else { ')' }))
            }
            Value::Tuple(tuple) => Some(self.render_elements(&tuple.elements, whom, depth)),
            Value::Instance(instance) => Some(self.render_elements(&instance.elements, whom, depth)),
            Value::String(text) => Some(self.render_text(text, whom)),
            plain => render_plain(plain),
        }
    }

    fn render_elements(&self, elements: &[(Arc<str>, Value)], whom: For, depth: usize) -> String {
        // Beside a code, as of a payer, stands when it was so: to people that is nobody's.
        let shown = elements.iter().filter(|(_, value)| whom == For::Telling || !self.is_day(value));
        let mut parts: Vec<String> = shown.filter_map(|(name, value)| Some(format!("{name}={}", self.render(value, whom, depth + 1)?))).collect();
        parts.sort();
        parts.join(";")
    }

    fn is_day(&self, value: &Value) -> bool {
        match value {
            Value::Date(_) | Value::DateTime(_) => true,
            Value::Interval(interval) => self.is_day(&interval.low) || self.is_day(&interval.high),
            Value::Node(node, _) => ["start", "end"].iter().any(|bound| self.session.record().get(*node, bound).is_some()),
            _ => false,
        }
    }

    /// A text; where it is the patient's own id, as the reference that it is, so that no report leaves with it. So short a number may
    /// be an age.
    fn render_text(&self, text: &str, whom: For) -> String {
        let is_short_number = text.len() <= SHORT_NUMBER_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_own_id = whom == For::People && !is_short_number && self.session.record().patient_id() == Some(text);
        if is_own_id { format!("{PATIENT}/{text}") } else { text.to_owned() }
    }

    fn render_node(&self, node: NodeId, whom: For) -> Option<String> {
        let record = self.session.record();
        if let (Some(kind), Some(id)) = (record.resource_type(node), record.resource_id(node)) {
            return (whom == For::Telling).then(|| format!("{kind}/{id}"));
        }
        if let Some(text) = record.text(node) {
            return Some(self.render_text(text, whom));
        }
        let number = record.number(node).map(|number| number.normalize().to_string());
        let scalar = number.or_else(|| record.boolean(node).map(|truth| truth.to_string()));
        scalar.or_else(|| if whom == For::Telling { Some(format!("#{}", node.0)) } else { self.render_fields(node) })
    }

    /// What has fields, as the System's type of the same meaning: a quantity, a concept by its first code, a code, a period.
    fn render_fields(&self, node: NodeId) -> Option<String> {
        let record = self.session.record();
        let text = |node: NodeId, name: &str| record.get(node, name).and_then(|field| record.text(field)).map(str::to_owned);
        if let Some(amount) = self.amount_of_fields(node) {
            return Some(format!("{} {}", amount.value.normalize(), amount.unit.as_deref().unwrap_or("1")));
        }
        if let Some(codings) = record.get(node, "coding") {
            return record.items(codings).find_map(|coding| text(coding, "code"));
        }
        let bounds = [text(node, "start"), text(node, "end")];
        let is_period = bounds.iter().any(Option::is_some);
        text(node, "code").or_else(|| is_period.then(|| format!("[{}]", bounds.map(Option::unwrap_or_default).join(","))))
    }
}

fn render_plain(value: &Value) -> Option<String> {
    match value {
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Long(number) => Some(number.to_string()),
        Value::Decimal(number) => Some(number.normalize().to_string()),
        Value::Date(date) => Some(date.to_string()),
        Value::DateTime(moment) => Some(moment.to_string()),
        Value::Time(time) => Some(time.to_string()),
        Value::Quantity(quantity) => Some(format!("{} {}", quantity.value.normalize(), quantity.unit)),
        Value::Code(code) => Some(code.code.to_string()),
        Value::Concept(concept) => concept.codes.first().map(|code| code.code.to_string()),
        _ => None,
    }
}
