//! A pediatric inflammatory bowel disease clinic.

use jiff::civil::Date;

use super::demographics::{Person, term};
use super::dialect::{Dialect, harbor, system};
use super::dice::Dice;
use super::draft::{Coding, Decimal, Draft, When, coding};
use super::entry::{ConditionForm, Context, EncounterForm, Finding, ObservationForm, ProcedureForm, ResultForm, prescription};
use super::moment::{Calendar, Moment, add_days, add_months, age_on, days_between, weekday};
use super::truth::{IBD_REMISSION, Tally};

/// Months before the end of the period in which a visit keeps a patient active.
const ACTIVE_WINDOW_MONTHS: i32 = 13;
/// Age from which a patient is no longer of this clinic's network, years.
const AGE_LIMIT: i64 = 21;
/// Visits planned for one patient at most.
const VISITS_MAX: u32 = 60;

const CROHN: Coding = coding(system::SNOMED, "34000006", "Crohn's disease");
const COLITIS: Coding = coding(system::SNOMED, "64766004", "Ulcerative colitis");
const ICD_CROHN: [Coding; 4] = [
    coding(system::ICD10CM, "K50.00", "Crohn's disease of small intestine without complications"),
    coding(system::ICD10CM, "K50.10", "Crohn's disease of large intestine without complications"),
    coding(system::ICD10CM, "K50.80", "Crohn's disease of both small and large intestine without complications"),
    coding(system::ICD10CM, "K50.90", "Crohn's disease, unspecified, without complications"),
];
const ICD_COLITIS: [Coding; 2] = [
    coding(system::ICD10CM, "K51.00", "Ulcerative (chronic) pancolitis without complications"),
    coding(system::ICD10CM, "K51.90", "Ulcerative colitis, unspecified, without complications"),
];
const ICD_INDETERMINATE: Coding = coding(system::ICD10CM, "K52.3", "Indeterminate colitis");
const ABDOMINAL_PAIN: Coding = coding(system::ICD10CM, "R10.84", "Generalized abdominal pain");
const GASTROENTEROLOGY: Coding = coding(system::SNOMED, "394584008", "Gastroenterology");
const GENERAL_PRACTICE: Coding = coding(system::SNOMED, "394814009", "General practice");
const LOCAL_GASTROENTEROLOGY: Coding = coding(harbor::DEPARTMENT, harbor::DEPARTMENT_GI, "Peds GI Clinic");
const LOCAL_GENERAL_PRACTICE: Coding = coding(harbor::DEPARTMENT, "PEDS-PRIMARY", "Peds Primary Care");
const OFFICE_VISIT: Coding = coding(system::SNOMED, "185349003", "Encounter for check up");
const COLECTOMY: Coding = coding(system::SNOMED, "26390003", "Total colectomy");
const PGA: Coding = coding(system::IBD, "pga", "Physician global assessment of IBD activity");
const LOCAL_PGA: Coding = coding(harbor::SDE, harbor::SDE_PGA, "PEDS GI PHYSICIAN GLOBAL ASSESSMENT");

const INFLIXIMAB: Coding = coding(system::RXNORM, "191831", "infliximab");
const ADALIMUMAB: Coding = coding(system::RXNORM, "327361", "adalimumab");
const AZATHIOPRINE: Coding = coding(system::RXNORM, "1256", "azathioprine");
const MERCAPTOPURINE: Coding = coding(system::RXNORM, "103", "mercaptopurine");
const MESALAMINE: Coding = coding(system::RXNORM, "52582", "mesalamine");
const PREDNISONE: Coding = coding(system::RXNORM, "8640", "prednisone");

/// The physician global assessment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Quiescent,
    Mild,
    Moderate,
    Severe,
}

impl Activity {
    fn finding(self, dialect: Dialect, text_only: bool) -> Finding {
        let (network, local) = match self {
            Activity::Quiescent => (coding(system::IBD, "quiescent", "Quiescent"), coding(harbor::PGA_ANSWER, "1", "Inactive")),
            Activity::Mild => (coding(system::IBD, "mild", "Mild"), coding(harbor::PGA_ANSWER, "2", "Mild")),
            Activity::Moderate => (coding(system::IBD, "moderate", "Moderate"), coding(harbor::PGA_ANSWER, "3", "Moderate")),
            Activity::Severe => (coding(system::IBD, "severe", "Severe"), coding(harbor::PGA_ANSWER, "4", "Severe")),
        };
        match dialect {
            Dialect::Standard => Finding::Concept(network, network.display),
            Dialect::Harbor if text_only => Finding::Text(local.display),
            Dialect::Harbor => Finding::Concept(local, local.display),
        }
    }
}

/// One assessment at a visit.
#[derive(Debug, Clone)]
pub(super) struct Assessment {
    pub(super) activity: Activity,
    pub(super) status: &'static str,
    /// Minutes after the start of the visit.
    minute: i64,
    /// Where answers are local, some come without their code.
    text_only: bool,
}

impl Assessment {
    /// Whether it may be used at all.
    pub(super) fn counts(&self) -> bool {
        matches!(self.status, "final" | "amended")
    }
}

/// One visit.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    number: u32,
    pub(super) start: Moment,
    status: &'static str,
    class: Coding,
    gastroenterology: bool,
    pub(super) assessments: Vec<Assessment>,
    height_mm: i64,
    weight_hg: i64,
    labs: Option<Labs>,
    calprotectin: Option<i64>,
    drug: Option<Coding>,
}

/// Results of one visit, in tenths.
#[derive(Debug, Clone)]
struct Labs {
    crp: i64,
    sedimentation: i64,
    albumin: i64,
    hemoglobin: i64,
}

impl Visit {
    /// A completed outpatient GI visit.
    pub(super) fn counts(&self) -> bool {
        self.gastroenterology && self.status == "finished" && self.class == term::AMBULATORY
    }

    /// The activity that the visit documents: the latest usable assessment's.
    pub(super) fn activity(&self) -> Option<Activity> {
        self.assessments.iter().filter(|one| one.counts()).max_by_key(|one| one.minute).map(|one| one.activity)
    }
}

/// A patient of the clinic.
#[derive(Debug, Clone)]
pub(super) struct IbdPatient {
    pub(super) person: Person,
    codes: Vec<Coding>,
    verification: Option<Coding>,
    disease: bool,
    onset: Option<Date>,
    recorded: Moment,
    pub(super) visits: Vec<Visit>,
    colectomy: Option<(Moment, &'static str)>,
}

impl IbdPatient {
    /// Plans one patient.
    pub(super) fn draw(dice: &mut Dice, calendar: &Calendar, number: u32, remission: i64) -> IbdPatient {
        let age = dice.weighted(&[(30, (6, 11)), (55, (12, 19)), (15, (20, 22))]);
        let age_days = dice.between(age.0 * 365, age.1 * 365 + 364);
        let birth = add_days(calendar.as_of, -age_days);
        // First seen between the age of five and half a year ago, but not much before the data begin.
        let oldest = days_between(add_months(calendar.start(), -26), calendar.as_of);
        let since = dice.between(190, (age_days - 5 * 365).clamp(200, oldest));
        let seen = weekday(add_days(calendar.as_of, -since));
        let recorded = calendar.moment(seen, dice.between(8 * 60, 16 * 60));
        let female = dice.chance(47);
        let person = Person::draw(dice, format!("ibd-{number:04}"), number, birth, female, recorded);
        let kind = dice.weighted(&[(52, 0), (26, 1), (9, 2), (13, 3)]);
        let codes = match kind {
            0 => dice.weighted(&[(55, 0), (35, 1), (10, 2)]).to_coding(dice, &ICD_CROHN, CROHN),
            1 => dice.weighted(&[(55, 0), (35, 1), (10, 2)]).to_coding(dice, &ICD_COLITIS, COLITIS),
            2 => vec![ICD_INDETERMINATE],
            _ => vec![ABDOMINAL_PAIN],
        };
        let verification = dice.weighted(&[(90, Some(term::CONFIRMED)), (4, Some(term::REFUTED)), (2, Some(term::ENTERED_IN_ERROR)), (4, None)]);
        let onset = dice.chance(80).then(|| add_days(seen, -dice.between(0, 120)));
        let mut patient = IbdPatient { person, codes, verification, disease: kind != 3, onset, recorded, visits: Vec::new(), colectomy: None };
        patient.plan_visits(dice, calendar, seen, remission);
        patient.plan_colectomy(dice, calendar, since);
        patient
    }

    fn plan_visits(&mut self, dice: &mut Dice, calendar: &Calendar, seen: Date, remission: i64) {
        let lost = dice.chance(12);
        let last = if lost { add_days(calendar.as_of, -dice.between(120, 700)) } else { calendar.as_of };
        let begin = add_months(calendar.start(), -14);
        let drug = dice.pick(&[INFLIXIMAB, ADALIMUMAB, AZATHIOPRINE, MERCAPTOPURINE, MESALAMINE]);
        let mut day = if seen < begin { weekday(add_days(begin, dice.between(0, 100))) } else { seen };
        let mut height_mm = 1000 + 55 * age_on(self.person.birth, day).min(14);
        let mut number = 1;
        while day < last && number <= VISITS_MAX {
            height_mm += if age_on(self.person.birth, day) < 16 { dice.between(0, 22) } else { 0 };
            let elapsed = days_between(calendar.start(), day).max(0);
            let better = remission + elapsed * 18 / 730;
            let drug = (number % 4 == 1).then_some(drug);
            self.visits.push(Visit::draw(dice, calendar, number, day, height_mm, better, drug));
            number += 1;
            day = weekday(add_days(day, dice.between(55, 130)));
        }
        if !lost && dice.chance(30) {
            let day = weekday(add_days(calendar.as_of, dice.between(7, 80)));
            let mut booked = Visit::draw(dice, calendar, number, day, height_mm, remission, None);
            booked.status = "planned";
            booked.assessments.clear();
            booked.labs = None;
            self.visits.push(booked);
        }
    }

    fn plan_colectomy(&mut self, dice: &mut Dice, calendar: &Calendar, since: i64) {
        if !self.disease || !dice.chance(5) {
            return;
        }
        let day = weekday(add_days(calendar.as_of, -dice.between(20, since.clamp(21, 900))));
        if self.visits.iter().any(|visit| visit.start.date() == day) {
            return;
        }
        let status = dice.weighted(&[(85, "completed"), (15, "not-done")]);
        self.colectomy = Some((calendar.moment(day, dice.between(7 * 60, 12 * 60)), status));
    }

    /// Adds a visit documented late, the day after another counting one; gives whether there was one.
    pub(super) fn add_late_visit(&mut self, dice: &mut Dice, calendar: &Calendar, month: Date, activity: Activity) -> bool {
        let day = weekday(add_days(month, dice.between(2, 24)));
        let known = self.visits.iter().any(|visit| visit.start.date() == day);
        let Some(template) = self.visits.iter().rev().find(|visit| visit.counts()).cloned() else { return false };
        if known || !self.disease {
            return false;
        }
        let number = self.visits.iter().map(|visit| visit.number).max().unwrap_or(0) + 1;
        self.visits.push(Visit {
            number,
            start: calendar.moment(day, dice.between(8 * 60, 16 * 60)),
            assessments: vec![Assessment { activity, status: "final", minute: 20, text_only: false }],
            labs: None,
            calprotectin: None,
            drug: None,
            ..template
        });
        true
    }

    /// Writes the record.
    pub(super) fn write(&self, context: &Context, out: &mut Vec<Draft>) {
        let patient = self.person.id.as_str();
        self.person.write(context.calendar, out);
        out.push(
            ConditionForm {
                id: format!("{patient}-diagnosis"),
                patient,
                encounter: None,
                verification: self.verification,
                codes: &self.codes,
                onset: self.onset.map(When::Day),
                recorded: self.recorded,
            }
            .write(context),
        );
        for visit in &self.visits {
            visit.write(patient, context, out);
        }
        if let Some((at, status)) = self.colectomy {
            let id = format!("{patient}-colectomy");
            out.push(ProcedureForm { id, patient, encounter: None, status, code: COLECTOMY, start: at, end: None }.write(context));
        }
    }

    /// Counts the patient into the truth.
    pub(super) fn count(&self, calendar: &Calendar, tally: &mut Tally) {
        let excluded_diagnosis = matches!(self.verification, Some(term::REFUTED | term::ENTERED_IN_ERROR));
        for month in calendar.truth_months() {
            let next = add_months(month, 1);
            let from = add_months(next, -ACTIVE_WINDOW_MONTHS);
            let in_window = |visit: &&Visit| visit.counts() && visit.start.date() >= from && visit.start.date() < next;
            let known_since = self.onset.unwrap_or_else(|| self.recorded.date());
            let index = self.visits.iter().filter(in_window).max_by_key(|visit| visit.start);
            let young = age_on(self.person.birth, add_days(next, -1)) < AGE_LIMIT;
            let Some(index) = index.filter(|_| self.disease && !excluded_diagnosis && young && known_since < next) else {
                continue;
            };
            let colectomy = self.colectomy.is_some_and(|(at, status)| status == "completed" && at < index.start);
            let assessed = self.visits.iter().filter(in_window).filter(|visit| visit.activity().is_some());
            let latest = assessed.max_by_key(|visit| visit.start).and_then(Visit::activity);
            tally.member(IBD_REMISSION, month, colectomy, latest == Some(Activity::Quiescent));
        }
    }
}

/// How a diagnosis is coded: ICD only, both, SNOMED only.
trait ToCoding {
    fn to_coding(self, dice: &mut Dice, icd: &[Coding], snomed: Coding) -> Vec<Coding>;
}

impl ToCoding for i32 {
    fn to_coding(self, dice: &mut Dice, icd: &[Coding], snomed: Coding) -> Vec<Coding> {
        match self {
            0 => vec![dice.pick(icd)],
            1 => vec![snomed, dice.pick(icd)],
            _ => vec![snomed],
        }
    }
}

impl Visit {
    fn draw(dice: &mut Dice, calendar: &Calendar, number: u32, day: Date, height_mm: i64, remission: i64, drug: Option<Coding>) -> Visit {
        let gastroenterology = dice.chance(93);
        let activity = draw_activity(dice, remission);
        let assessed = gastroenterology && dice.chance(86);
        let mut assessments = Vec::new();
        if assessed {
            let status = dice.weighted(&[(93, "final"), (3, "amended"), (2, "preliminary"), (2, "entered-in-error")]);
            assessments.push(Assessment { activity, status, minute: 20, text_only: dice.chance(10) });
            if dice.chance(4) {
                assessments.push(Assessment { activity: draw_activity(dice, remission), status: "final", minute: 45, text_only: false });
            }
        }
        let ill = i64::from(activity != Activity::Quiescent) + i64::from(activity == Activity::Severe);
        let labs = dice.chance(55).then(|| Labs {
            crp: dice.between(2, 40) + ill * dice.between(30, 250),
            sedimentation: dice.between(2, 18) + ill * dice.between(5, 30),
            albumin: dice.between(38, 48) - ill * dice.between(2, 8),
            hemoglobin: dice.between(118, 148) - ill * dice.between(3, 18),
        });
        let body_mass_index = dice.between(150, 240);
        Visit {
            number,
            start: calendar.moment(day, dice.between(8 * 60, 16 * 60)),
            status: dice.weighted(&[(94, "finished"), (6, "cancelled")]),
            class: dice.weighted(&[(92, term::AMBULATORY), (8, term::VIRTUAL)]),
            gastroenterology,
            assessments,
            height_mm,
            weight_hg: body_mass_index * height_mm / 1000 * height_mm / 1000,
            labs,
            calprotectin: dice.chance(14).then(|| dice.between(15, 150) + ill * dice.between(100, 900)),
            drug: drug.or_else(|| (ill > 0 && dice.chance(12)).then_some(PREDNISONE)),
        }
        .without_findings_if_cancelled()
    }

    fn without_findings_if_cancelled(mut self) -> Visit {
        if self.status == "cancelled" {
            self.assessments.clear();
            self.labs = None;
            self.calprotectin = None;
            self.drug = None;
        }
        self
    }

    fn write(&self, patient: &str, context: &Context, out: &mut Vec<Draft>) {
        let id = format!("{patient}-v{:02}", self.number);
        let local = context.dialect == Dialect::Harbor;
        let service = match (self.gastroenterology, local) {
            (true, false) => GASTROENTEROLOGY,
            (true, true) => LOCAL_GASTROENTEROLOGY,
            (false, false) => GENERAL_PRACTICE,
            (false, true) => LOCAL_GENERAL_PRACTICE,
        };
        out.push(
            EncounterForm {
                id: id.clone(),
                patient,
                status: self.status,
                class: self.class,
                kind: OFFICE_VISIT,
                service: Some(service),
                start: self.start,
                end: Some(context.calendar.later(self.start, 60)),
                locations: Vec::new(),
            }
            .write(context),
        );
        for (index, assessment) in self.assessments.iter().enumerate() {
            out.push(
                ObservationForm {
                    id: format!("{id}-pga{}", index + 1),
                    profile: "",
                    patient,
                    encounter: Some(&id),
                    status: assessment.status,
                    category: term::SURVEY,
                    code: if local { LOCAL_PGA } else { PGA },
                    at: context.calendar.later(self.start, assessment.minute),
                    value: assessment.activity.finding(context.dialect, assessment.text_only),
                }
                .write(context),
            );
        }
        if matches!(self.status, "finished") && self.class == term::AMBULATORY {
            self.write_results(patient, &id, context, out);
        }
        if let Some(drug) = self.drug {
            let at = context.calendar.later(self.start, 50);
            out.push(prescription(format!("{id}-rx"), patient, &id, "active", drug, at));
        }
    }

    fn write_results(&self, patient: &str, encounter: &str, context: &Context, out: &mut Vec<Draft>) {
        let mut write = |name: &str, laboratory: bool, code: &'static str, display: &'static str, value: Decimal, unit: &'static str| {
            out.push(
                ResultForm {
                    id: format!("{encounter}-{name}"),
                    patient,
                    encounter,
                    laboratory,
                    code: coding(system::LOINC, code, display),
                    at: context.calendar.later(self.start, if laboratory { 55 } else { 5 }),
                    value,
                    unit,
                }
                .write(context),
            );
        };
        // Tenths of kg by square metres are tenths of the index.
        let index = self.weight_hg * 1_000_000 / (self.height_mm * self.height_mm).max(1);
        write("ht", false, "8302-2", "Body height", Decimal(self.height_mm, 1), "cm");
        write("wt", false, "29463-7", "Body weight", Decimal(self.weight_hg, 1), "kg");
        write("bmi", false, "39156-5", "Body mass index", Decimal(index, 1), "kg/m2");
        if let Some(labs) = &self.labs {
            write("crp", true, "1988-5", "C reactive protein", Decimal(labs.crp, 1), "mg/L");
            write("esr", true, "30341-2", "Erythrocyte sedimentation rate", Decimal(labs.sedimentation, 0), "mm/h");
            write("alb", true, "1751-7", "Albumin", Decimal(labs.albumin, 1), "g/dL");
            write("hgb", true, "718-7", "Hemoglobin", Decimal(labs.hemoglobin, 1), "g/dL");
        }
        if let Some(calprotectin) = self.calprotectin {
            write("cal", true, "38445-3", "Calprotectin in stool", Decimal(calprotectin, 0), "ug/g");
        }
    }
}

fn draw_activity(dice: &mut Dice, remission: i64) -> Activity {
    let active = (100 - remission).max(6);
    dice.weighted(&[(remission, Activity::Quiescent), (active * 55 / 100, Activity::Mild), (active * 35 / 100, Activity::Moderate), (active * 10 / 100, Activity::Severe)])
}
