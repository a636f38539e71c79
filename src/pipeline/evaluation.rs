//! Snapshot to reports: partitions on threads, each patient read, mapped and measured once; sums merge in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use serde_json::Value;

use super::elsewhere::{self, Origin};
use super::waits::Waits;
use super::{Adapter, NightError, Setup, Stop, needs, remarks};
use crate::cql::date_time::DateTime;
use crate::diagnostic::counted;
use crate::feed::{Completeness, ReportKey, Withdrawal};
use crate::fhir::compartment::patient_required;
use crate::fhir::record::glance::{Kinds, identity};
use crate::fhir::record::{BadLine, Keep, Place, Record, Shape};
use crate::fhir::shared::Shared;
use crate::mapping::{Asked, Finding, Mapping, Problem, Seen, Watch, is_told};
use crate::measure::period::Period;
use crate::measure::report::{self, Facts};
use crate::measure::result::Partial;
use crate::measure::{self, Measure, Setting};
use crate::outbox;
use crate::snapshot::{Partition, PatientLines, People, Snapshot};
use crate::source::{Chooser, Progress};
use crate::store::runs::{ANY_TYPE, NOT_SHOWN, ReportFindings, Run, Unmapped};
use crate::terminology::units::Units;
use crate::validate;

/// The sums of a night.
#[derive(Default)]
pub struct Sums {
    /// By measure, then by period.
    partials: Vec<Vec<Partial>>,
    /// Of measures that are counted elsewhere the rows that have the numbers, by measure and period.
    origins: BTreeMap<(usize, usize), Origin>,
    /// What the mapping does not know, by how many patients have it.
    findings: BTreeMap<Finding, u64>,
    /// What the data have of the mapping's rules, and of codes by other names.
    seen: Seen,
    /// Patients evaluated.
    pub patients: u64,
    /// Stored lines that could not be read again.
    unreadable: u64,
    /// Patients that were merged into others who are not stored.
    unfollowed: u64,
    /// People of whom there are data, but no Patient: they are not measured.
    absent: u64,
}

impl Sums {
    /// Of measures with so many periods each.
    fn new(periods: &[usize]) -> Sums {
        Sums { partials: periods.iter().map(|count| vec![Partial::default(); *count]).collect(), ..Sums::default() }
    }

    fn merge(&mut self, other: Sums) {
        for (mine, others) in self.partials.iter_mut().zip(&other.partials) {
            for (mine, other) in mine.iter_mut().zip(others) {
                mine.merge(other);
            }
        }
        for (finding, patients) in other.findings {
            *self.findings.entry(finding).or_default() += patients;
        }
        self.seen.merge(other.seen);
        self.patients += other.patients;
        self.unreadable += other.unreadable;
        self.unfollowed += other.unfollowed;
        self.absent += other.absent;
    }

    /// Patients who did not come, as far as the data tell.
    pub fn missing_people(&self) -> u64 {
        self.unfollowed + self.absent
    }

    /// The findings, as they are stored: a code of the data's own where it looks like one and several patients have it. What else
    /// stands in its place may be anything, and is counted.
    pub fn unmapped(&self) -> Vec<Unmapped> {
        let mut untold: BTreeMap<Finding, (u64, u64)> = BTreeMap::new();
        let mut rows = Vec::new();
        for (finding, patients) in &self.findings {
            if finding.problem != Problem::UnmappedCode || is_told(&finding.code, *patients) {
                rows.push(row(finding, *patients));
            } else {
                let (texts, of) = untold.entry(Finding { code: String::new(), ..finding.clone() }).or_default();
                *texts += 1;
                *of += patients;
            }
        }
        rows.extend(untold.into_iter().map(|(finding, (texts, of))| {
            let code = format!("({} {NOT_SHOWN})", counted(texts, "text"));
            row(&Finding { code, ..finding }, of)
        }));
        rows
    }
}

/// A finding as it is stored and told.
pub fn row(finding: &Finding, patients: u64) -> Unmapped {
    let problem = serde_json::to_value(finding.problem).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let Finding { element, system, code, found, expected, .. } = finding.clone();
    Unmapped { problem, element, system, code, found, expected, patients }
}

/// The months of a night, as fixed when it began.
fn months(run: &Run) -> Result<Vec<Period>, NightError> {
    run.periods.iter().map(|text| Period::parse(text).map_err(NightError::Broken)).collect()
}

/// Each measure over its own periods, which may be longer than months; over none, if no patient's record says anything of it.
fn over<'a>(setup: &'a Setup, months: &[Period], setting: &Setting) -> Vec<measure::Run<'a>> {
    let periods = |measure: &Measure| if measure.definition.is_counted_elsewhere() { Vec::new() } else { measure.definition.period.periods(months) };
    setup.measures.iter().map(|measure| measure.over(&periods(measure), setting)).collect()
}

/// Measures every patient of the snapshot as of the night's pull.
pub fn evaluate(setup: &Setup, snapshot: &Snapshot, run: &Run, stop: &Stop, progress: &dyn Progress) -> Result<Sums, NightError> {
    let shape = shape(setup);
    let months = months(run)?;
    let measures = over(setup, &months, &setting(setup, run.started_at)?);
    let periods = setup.measures.iter().map(|measure| measure.definition.period.periods(&months).len()).collect();
    let shared = snapshot.shared(Adapter::as_of(run))?;
    let people = snapshot.people(Adapter::as_of(run))?;
    let asked = needs::asked(&setup.measures, &setup.value_sets);
    let watch = watch(&setup.mapping, &asked, &setup.measures);
    let work = Work { setup, people: &people, watch: &watch, measures, periods, shape, shared: Shared::new(shared.iter().map(Vec::as_slice)), stop, progress };
    let partitions = snapshot.partitions();
    progress.stage("evaluating", Some(partitions.len() as u64));
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Sums::new(&work.periods));
    let threads = setup.threads.clamp(1, partitions.len().max(1));
    let ended: Result<(), NightError> = std::thread::scope(|scope| {
        let worker = || -> Result<(), NightError> {
            while let Some(partition) = partitions.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sums = work.partition(*partition)?;
                total.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).merge(sums);
                progress.advance(1);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(NightError::Broken("a thread that evaluates panicked".to_owned()))))
    });
    ended?;
    let mut sums = total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    for ((measure, period), (partial, origin)) in elsewhere::sums(setup, &months, &shared) {
        if let Some(own) = sums.partials.get_mut(measure).and_then(|partials| partials.get_mut(period)) {
            *own = partial;
            sums.origins.insert((measure, period), origin);
        }
    }
    if sums.patients > 0 {
        let found = watch.findings(&sums.seen);
        sums.findings.extend(found);
    }
    sums.unfollowed = people.unfollowed();
    if sums.unfollowed > 0 {
        sums.findings
            .insert(Finding { problem: Problem::AbsentReplacement, ..unreadable_value("Patient.link") }, sums.unfollowed);
        tracing::warn!(patients = sums.unfollowed, "patients were merged into others who did not come: they are counted themselves, and the reports are partial");
    }
    if sums.absent > 0 {
        sums.findings.insert(Finding { problem: Problem::AbsentPatient, ..unreadable_value("Patient") }, sums.absent);
        tracing::warn!(patients = sums.absent, "data name patients who did not come: they are not counted, and the reports are partial");
    }
    Ok(sums)
}

/// One patient's record as a night measures it, mapped, as of the latest pull; `None` where nothing is stored.
pub fn record_of(setup: &Setup, snapshot: &Snapshot, patient: &str) -> Result<Option<Record>, NightError> {
    let Some(found) = snapshot.people(None)?.one(patient)? else { return Ok(None) };
    let shared = snapshot.shared(None)?;
    let shared = Shared::new(shared.iter().map(Vec::as_slice));
    let own = || found.lines.iter().map(Vec::as_slice);
    let (mut record, _) = Record::read(&shape(setup), own().chain(shared.referred_to(own())));
    setup.mapping.apply(&mut record);
    Ok(Some(record))
}

/// What of the data is held against a mapping's rules and against what measures ask for.
pub fn watch<'a>(mapping: &'a Mapping, asked: &'a Asked, measures: &[Measure]) -> Watch<'a> {
    Watch::new(mapping, asked, measures.iter().flat_map(|measure| measure.program().requirements()))
}

/// What is read of each record.
fn shape(setup: &Setup) -> Shape {
    let people = Shape { types: [("Patient".to_owned(), Keep::default())].into(), ..Shape::default() };
    let shapes: Vec<Shape> = setup.measures.iter().map(|measure| measure.program().sifted_shape(measure.value_sets(&setup.value_sets))).collect();
    needs::shape(shapes.iter().chain([&people]), &setup.mapping)
}

/// Who may be counted by a site's measures in some months, by what is known so far.
pub struct Choice<'a> {
    setup: &'a Setup,
    measures: Vec<measure::Run<'a>>,
    shape: Shape,
}

impl<'a> Choice<'a> {
    /// As of an instant.
    pub fn new(setup: &'a Setup, months: &[Period], now: Timestamp) -> Result<Choice<'a>, NightError> {
        Ok(Choice { setup, measures: over(setup, months, &setting(setup, now)?), shape: shape(setup) })
    }
}

impl Chooser for Choice<'_> {
    fn may_count(&self, patients: &[PatientLines], shared: &[Vec<u8>]) -> BTreeSet<String> {
        let shared = Shared::new(shared.iter().map(Vec::as_slice));
        let mut record = Record::default();
        let mut kinds = Kinds::new(&self.shape);
        let mut may_count = |patient: &&PatientLines| {
            let own = || patient.lines.iter().map(Vec::as_slice);
            record.reread(&mut kinds, own().chain(shared.referred_to(own())));
            self.setup.mapping.apply(&mut record);
            // Who cannot be evaluated yet may be with the rest of the data.
            let is_out = |result: &measure::calculate::Evaluated| result.as_ref().is_ok_and(|result| !result.is_counted());
            !measure::evaluate(&self.measures, &record).iter().flatten().all(is_out)
        };
        patients.iter().filter(|patient| may_count(patient)).map(|patient| patient.patient_id.clone()).collect()
    }
}

/// What the threads share.
struct Work<'a> {
    setup: &'a Setup,
    people: &'a People<'a>,
    watch: &'a Watch<'a>,
    measures: Vec<measure::Run<'a>>,
    /// How many each measure has.
    periods: Vec<usize>,
    shape: Shape,
    shared: Shared<'a>,
    stop: &'a Stop,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    fn partition(&self, partition: Partition) -> Result<Sums, NightError> {
        let mut sums = Sums::new(&self.periods);
        let mut record = Record::default();
        let mut kinds = Kinds::new(&self.shape);
        for patient in self.people.of(partition)? {
            if *self.stop.borrow() {
                return Err(NightError::Stopped);
            }
            let own = || patient.lines.iter().map(Vec::as_slice);
            let lines = own().chain(self.shared.referred_to(own()));
            let bad = record.reread(&mut kinds, lines);
            sums.unreadable += bad.len() as u64;
            let line_of = |bad: &BadLine| own().chain(self.shared.referred_to(own())).nth(bad.index);
            let unread: BTreeSet<String> = bad
                .iter()
                .filter_map(line_of)
                .map(|line| identity(line).map_or_else(|| "a resource".to_owned(), |(name, _)| name))
                .collect();
            for name in &unread {
                *sums.findings.entry(unreadable_value(name)).or_default() += 1;
            }
            if record.patient_id().is_none() {
                // What merely may belong to somebody, as a Device, is kept when its patient goes.
                sums.absent += u64::from(record.resource_types().any(patient_required));
                continue;
            }
            sums.patients += 1;
            self.watch.see(&record, &mut sums.seen);
            let mapped = self.setup.mapping.apply(&mut record);
            let results = measure::evaluate(&self.measures, &record);
            // What the mapping could not read either is told by its rule, with the observation.
            let is_told = |found: &Finding| mapped.iter().any(|told| told.problem == found.problem && told.element == found.element);
            let of_measures = unreadable(&results).into_iter().filter(|found| !is_told(found)).chain(doubted(&results));
            for finding in of_measures.chain(mapped.iter().cloned()) {
                *sums.findings.entry(finding).or_default() += 1;
            }
            for (results, partials) in results.iter().zip(&mut sums.partials) {
                for (result, partial) in results.iter().zip(partials) {
                    match result {
                        Ok(result) => partial.add(result),
                        Err(error) => partial.add_fault(&error.summary()),
                    }
                }
            }
        }
        self.progress.received(sums.patients);
        Ok(sums)
    }
}

/// The elements of which a patient has a value that a measure asked for and that is none of its type, with the code of FHIR's that
/// was probably meant.
fn unreadable(results: &[Vec<measure::calculate::Evaluated>]) -> BTreeSet<Finding> {
    let places = results.iter().flatten().flatten().flat_map(|result| &result.unreadable);
    places
        .map(|place: &Place| Finding { code: place.meant.unwrap_or_default().to_owned(), ..unreadable_value(&place.element) })
        .collect()
}

/// What of a patient's values a measure asked for and could not use as it stands.
fn doubted(results: &[Vec<measure::calculate::Evaluated>]) -> BTreeSet<Finding> {
    let doubts = results.iter().flatten().flatten().flat_map(|result| &result.doubts);
    doubts.map(|doubt| Finding::from(doubt.clone())).collect()
}

/// What stands at an element does not tell what it should.
fn unreadable_value(element: &str) -> Finding {
    Finding { element: element.to_owned(), ..Finding::of(Problem::UnreadableValue) }
}

/// The reports of a night: those to send, and those that failed their check.
pub struct Made {
    /// To send.
    pub reports: Vec<outbox::Report>,
    /// Waiting for a person.
    pub held: Vec<ReportFindings>,
    /// What a person should look at in those to send.
    pub remarks: Vec<ReportFindings>,
    /// What must no longer count, where it was sent.
    pub withdrawals: Vec<Withdrawal>,
}

/// What the night received, for the manifest.
pub fn completeness(run: &Run, sums: &Sums) -> Completeness {
    let run = Run { absent: sums.missing_people(), ..run.clone() };
    Completeness { complete: run.is_complete() == Some(true), gaps: run.gap_count(), quarantined: run.quarantined() }
}

/// Writes and checks one report per measure and period.
pub fn reports(setup: &Setup, run: &Run, sums: &Sums) -> Result<Made, NightError> {
    let mut made = Made { reports: Vec::new(), held: Vec::new(), remarks: Vec::new(), withdrawals: Vec::new() };
    let months = months(run)?;
    for (place, (measure, partials)) in setup.measures.iter().zip(&sums.partials).enumerate() {
        let definition = &measure.definition;
        let of_measure = facts(setup, run, sums, measure);
        let (mut earlier, mut without) = (Vec::new(), Vec::new());
        let (supplements, stratifiers) = measure.varying();
        for (at, (period, partial)) in definition.period.periods(&months).into_iter().zip(partials).enumerate() {
            let origin = sums.origins.get(&(place, at));
            if definition.is_counted_elsewhere() && origin.is_none() {
                without.push(period);
                continue;
            }
            let facts = origin.map_or_else(|| of_measure.clone(), |origin| made_from(origin, &of_measure));
            let reporter = measure.reporter(period, &facts);
            let mut report = reporter.summary(partial);
            let left_out = validate::leave_out(&mut report, &supplements, &stratifiers);
            let key = key(&definition.url.value, &definition.version.value, &report)?;
            let reasons = reasons_to_hold(partial, &report);
            if reasons.is_empty() {
                let found = remarks::of(measure, &reporter, partial, &report, &earlier);
                let lines: Vec<String> = left_out.iter().chain(&found).map(remarks::line).collect();
                if !lines.is_empty() {
                    made.remarks.push(of_report(key.clone(), &lines));
                }
                let complete = reporter.is_complete(partial);
                let body = serde_json::to_vec(&report).map_err(|error| NightError::Broken(error.to_string()))?;
                made.reports.push(outbox::Report { key, body, complete });
                earlier.push(report);
            } else {
                tracing::warn!(report.measure = key.measure, report.period = key.period_start, "a report failed its check and is held");
                made.held.push(of_report(key, &reasons));
            }
        }
        made.remarks.extend(elsewhere::without_numbers(measure, &without));
        // Of a table that did not come whole it is not known what is gone.
        if of_measure.completeness.is_complete() {
            made.withdrawals.extend(without.iter().map(|period| elsewhere::withdrawal(measure, period)));
        }
    }
    Ok(made)
}

fn of_report(key: ReportKey, findings: &[String]) -> ReportFindings {
    let ReportKey { measure, version, period_start, period_end } = key;
    ReportFindings { measure, version, period_start, period_end, findings: findings.join("\n") }
}

/// Why a report must wait for a person: patients whose evaluation failed, or a blocking finding of its check.
fn reasons_to_hold(partial: &Partial, report: &Value) -> Vec<String> {
    let faults = partial
        .faults
        .iter()
        .map(|(reason, patients)| format!("{} could not be evaluated: {reason}", counted(*patients, "patient")));
    let findings = validate::check(report);
    let blocking = findings.iter().filter(|finding| finding.weight == validate::Weight::Block);
    faults.chain(blocking.map(|finding| format!("{} at `{}`: {}", finding.rule, finding.at, finding.message))).collect()
}

/// What the measures may know beside the record: the night's "now", the zone, the value sets.
pub fn setting(setup: &Setup, now: Timestamp) -> Result<Setting, NightError> {
    let text = now.to_zoned(setup.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
    let now = DateTime::parse_fhir(&text).ok_or_else(|| NightError::Broken(format!("`{text}` is no dateTime")))?;
    Ok(Setting { now, zone: setup.zone.clone(), value_sets: setup.value_sets.clone(), units: Units::new().into() })
}

/// What is missing of what a measure reads.
fn missing(setup: &Setup, measure: &Measure, run: &Run, sums: &Sums) -> report::Completeness {
    let run = Run { absent: sums.missing_people(), ..run.clone() };
    let is_elsewhere = measure.definition.is_counted_elsewhere();
    let waits = if is_elsewhere { elsewhere::waits(setup, measure) } else { Waits::of(measure.programs()) };
    let mut gaps = run.all_gaps();
    if run.complete != Some(true) && gaps.is_empty() && run.aside.is_empty() {
        // It is not known of what.
        gaps.insert(ANY_TYPE.to_owned(), 1);
    }
    let quarantined = waits.among(&run.aside).values().sum::<u64>() + if is_elsewhere { 0 } else { sums.unreadable };
    report::Completeness { gaps: waits.among(&gaps), quarantined, ..report::Completeness::default() }
}

fn facts(setup: &Setup, run: &Run, sums: &Sums, measure: &Measure) -> Facts {
    let (name, version) = setup.mapping.name_and_version();
    let (_, rules) = setup.lineage.mapping_rules();
    let rules = rules.map(|rules| ("mapping-rules".to_owned(), name.to_owned(), rules.to_owned()));
    Facts {
        reporter: setup.site.clone(),
        reporter_name: setup.title.clone(),
        date: run.started_at.to_zoned(setup.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        software: ("Watershed".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        zone: setup.zone_name.clone(),
        lineage: [
            ("mapping".to_owned(), name.to_owned(), version.to_owned()),
            ("race-ethnicity".to_owned(), "policy".to_owned(), setup.mapping.race_ethnicity_policy().to_owned()),
            ("terminology".to_owned(), "value-sets".to_owned(), setup.lineage.terminology.clone()),
        ]
        .into_iter()
        .chain(rules)
        .collect(),
        completeness: missing(setup, measure, run, sums),
    }
}

/// No mapping and no value set has made these numbers, but the row of a table.
fn made_from(origin: &Origin, facts: &Facts) -> Facts {
    Facts { lineage: vec![("import".to_owned(), origin.import.clone(), origin.file.clone())], ..facts.clone() }
}

fn key(measure: &str, version: &str, report: &Value) -> Result<ReportKey, NightError> {
    let edge = |name: &str| report.pointer(&format!("/period/{name}")).and_then(Value::as_str).map(str::to_owned);
    let (Some(period_start), Some(period_end)) = (edge("start"), edge("end")) else {
        return Err(NightError::Broken(format!("a report of `{measure}` has no period")));
    };
    Ok(ReportKey { measure: measure.to_owned(), version: version.to_owned(), period_start, period_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_that_are_codes_and_not_one_patients() {
        let of = |code: &str| Finding { element: "Observation.code".into(), system: "urn:local".into(), code: code.into(), ..Finding::of(Problem::UnmappedCode) };
        let findings = [(of("GLU"), 3), (of("HB "), 2), (of("PLT"), 1), (of("Mueller Anna 1971-03-04"), 4)];
        let found = Sums { findings: findings.into(), ..Sums::default() }.unmapped();
        let told: Vec<(&str, u64)> = found.iter().map(|one| (one.code.as_str(), one.patients)).collect();
        assert_eq!(told, [("GLU", 3), ("HB ", 2), ("(2 texts not shown: no code, or of one patient only)", 5)]);
    }
}
