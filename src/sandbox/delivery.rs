//! A delivery service: mothers, births, gestational age in three places or in none.

use jiff::civil::Date;

use super::demographics::{Person, term};
use super::dialect::{Dialect, harbor, system};
use super::dice::Dice;
use super::draft::{Coding, Decimal, Draft, When, coding};
use super::entry::{ConditionForm, Context, EncounterForm, Finding, ObservationForm, ProcedureForm, ResultForm};
use super::moment::{Calendar, Moment, add_days, age_on, days_between, weekday};
use super::truth::{EARLY_ELECTIVE_DELIVERY, Tally};

/// Completed weeks from which a delivery is in the denominator.
const WEEKS_MIN: i64 = 37;
/// Completed weeks from which it no longer is.
const WEEKS_END: i64 = 39;
/// Days of a pregnancy from its reckoned beginning to the due date.
const TERM_DAYS: i64 = 280;
/// Days before delivery in which a due date is believed (42 weeks).
const DUE_DATE_DAYS: i64 = 294;
/// Longest stay that counts, days.
const STAY_DAYS_MAX: i64 = 120;

const ADMISSION: Coding = coding(system::SNOMED, "32485007", "Hospital admission");
const PRENATAL_VISIT: Coding = coding(system::SNOMED, "424619006", "Prenatal visit");
const WEIGHT: Coding = coding(system::LOINC, "29463-7", "Body weight");
const HEART_RATE: Coding = coding(system::LOINC, "8867-4", "Heart rate");
const BIRTH_TIME: Coding = coding(system::LOINC, "93857-1", "Date and time of obstetric delivery");
const DUE_DATE: Coding = coding(system::LOINC, "11778-8", "Delivery date Estimated");
const GESTATION: Coding = coding(system::LOINC, "11884-4", "Gestational age Estimated");
const LABOR: Coding = coding(system::PERINATAL, "labor-onset", "Onset of labor");
const INDUCTION_PCS: Coding = coding(system::ICD10PCS, "3E033VJ", "Introduction of Other Hormone into Peripheral Vein, Percutaneous Approach");
const INDUCTION: Coding = coding(system::SNOMED, "236958009", "Induction of labor");
const CESAREANS: [Coding; 4] = [
    coding(system::ICD10PCS, "10D00Z0", "Extraction of Products of Conception, High, Open Approach"),
    coding(system::ICD10PCS, "10D00Z1", "Extraction of Products of Conception, Low, Open Approach"),
    coding(system::ICD10PCS, "10D00Z2", "Extraction of Products of Conception, Extraperitoneal, Open Approach"),
    coding(system::SNOMED, "11466000", "Cesarean section"),
];
const JUSTIFICATIONS: [Coding; 3] = [
    coding(system::ICD10CM, "O14.13", "Severe pre-eclampsia, third trimester"),
    coding(system::ICD10CM, "O42.02", "Full-term premature rupture of membranes, onset of labor within 24 hours of rupture"),
    coding(system::ICD10CM, "O44.13", "Complete placenta previa with hemorrhage, third trimester"),
];
const UNJUSTIFYING: Coding = coding(system::ICD10CM, "O26.893", "Other specified pregnancy related conditions, third trimester");
const STILLBIRTH: Coding = coding(system::ICD10CM, "Z87.59", "Personal history of other complications of pregnancy, childbirth and the puerperium");
const SCARS: [Coding; 3] = [
    coding(system::ICD10CM, "O34.211", "Maternal care for low transverse scar from previous cesarean delivery"),
    coding(system::ICD10CM, "O34.219", "Maternal care for unspecified type scar from previous cesarean delivery"),
    coding(system::ICD10CM, "O34.29", "Maternal care due to uterine scar from other previous surgery"),
];
const LIVEBORN: Coding = coding(system::ICD10CM, "Z38.00", "Single liveborn infant, delivered vaginally");
const ANTEPARTUM: Coding = coding(system::ICD10CM, "O60.03", "Preterm labor without delivery, third trimester");
/// Weeks of gestation as ICD-10-CM, from week 30.
const WEEKS: [Coding; 13] = [
    coding(system::ICD10CM, "Z3A.30", "30 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.31", "31 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.32", "32 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.33", "33 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.34", "34 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.35", "35 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.36", "36 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.37", "37 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.38", "38 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.39", "39 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.40", "40 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.41", "41 weeks gestation of pregnancy"),
    coding(system::ICD10CM, "Z3A.42", "42 weeks gestation of pregnancy"),
];

/// An estimated gestational age.
#[derive(Debug, Clone)]
struct Estimate {
    at: Moment,
    days: i64,
    /// Written in days, not in weeks with one decimal.
    in_days: bool,
}

impl Estimate {
    /// Tenths of weeks, never rounded up.
    fn tenths(&self) -> i64 {
        self.days * 10 / 7
    }

    fn weeks(&self) -> i64 {
        self.days / 7
    }
}

/// One birth and its admission.
#[derive(Debug, Clone)]
pub(super) struct Birth {
    number: u32,
    admission: Moment,
    pub(super) delivery: Moment,
    discharge: Moment,
    /// Whether the delivery time names the encounter.
    linked: bool,
    /// When each due date was recorded, and the due date.
    pub(super) due_dates: Vec<(Moment, Date)>,
    estimate: Option<Estimate>,
    /// Weeks as coded for billing.
    coded_weeks: Option<i64>,
    labor: Option<Moment>,
    induction: Option<(Moment, &'static str, Coding)>,
    cesarean: Option<(Moment, Coding)>,
    pub(super) conditions: Vec<Coding>,
    /// Weight when first seen, tenths of kg.
    weight: i64,
    /// Prenatal visits here; some mothers come for the birth only.
    prenatal: i64,
}

/// A mother.
#[derive(Debug, Clone)]
pub(super) struct Mother {
    pub(super) person: Person,
    pub(super) births: Vec<Birth>,
    newborn: Option<Person>,
    /// An admission before birth that ended without one.
    antepartum: Option<(Moment, Moment)>,
}

/// How a birth came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Spontaneous,
    CesareanInLabor,
    AugmentationCodedAsInduction,
    Induction,
    FailedInduction,
    ScheduledCesarean,
}

impl Mother {
    /// Plans one mother; `newborn` gives her first child a record too. `elective` is the share of
    /// births that are scheduled.
    pub(super) fn draw(dice: &mut Dice, calendar: &Calendar, number: u32, newborn: Option<u32>, elective: i64) -> Mother {
        let begin = add_days(calendar.start(), -20);
        let since = dice.between(4, days_between(begin, calendar.as_of));
        let day = add_days(calendar.as_of, -since);
        let age = dice.between(17 * 365, 43 * 365);
        let registered = calendar.moment(add_days(day, -230), 10 * 60);
        let person = Person::draw(dice, format!("mom-{number:04}"), number, add_days(day, -age), true, registered);
        let mut mother = Mother { person, births: Vec::new(), newborn: None, antepartum: None };
        let first = Birth::draw(dice, calendar, 1, day, elective);
        let newborn = newborn.map(|number| {
            let female = dice.chance(49);
            let id = format!("nb-{number:04}");
            Person::draw(dice, id, number, first.delivery.date(), female, first.delivery)
        });
        let again = add_days(day, dice.between(330, 600));
        if dice.chance(6) && again < add_days(calendar.as_of, -8) && first.conditions.iter().all(|code| !SCARS.contains(code) && *code != STILLBIRTH) {
            let second = Birth::draw(dice, calendar, 2, again, elective);
            // Histories belong to both births or to none.
            let mut second = second;
            second.conditions.retain(|code| !SCARS.contains(code) && *code != STILLBIRTH);
            mother.births.push(second);
        } else if dice.chance(12) {
            let start = calendar.moment(add_days(first.delivery.date(), -dice.between(15, 40)), dice.between(0, 1_380));
            mother.antepartum = Some((start, calendar.later(start, dice.between(600, 5_000))));
        }
        mother.births.insert(0, first);
        mother.newborn = newborn;
        mother
    }

    /// Counts the mother's stays into the truth.
    pub(super) fn count(&self, calendar: &Calendar, tally: &mut Tally) {
        let months = calendar.truth_months();
        for birth in &self.births {
            let month = birth.discharge.date().first_of_month();
            let age = age_on(self.person.birth, birth.admission.date());
            let stay = days_between(birth.admission.date(), birth.discharge.date());
            if !months.contains(&month) || !(8..65).contains(&age) || stay > STAY_DAYS_MAX {
                continue;
            }
            tally.initial(EARLY_ELECTIVE_DELIVERY, month);
            let Some(weeks) = self.weeks(birth).filter(|weeks| (WEEKS_MIN..WEEKS_END).contains(weeks)) else { continue };
            debug_assert!(weeks >= WEEKS_MIN);
            let excluded = birth.conditions.iter().any(|code| JUSTIFICATIONS.contains(code) || *code == STILLBIRTH);
            tally.counted(EARLY_ELECTIVE_DELIVERY, month, excluded, birth.is_elective());
        }
    }

    /// Completed weeks at birth by the best source there is. Due dates are the patient's, whatever
    /// the pregnancy they were recorded in.
    fn weeks(&self, birth: &Birth) -> Option<i64> {
        let day = birth.delivery.date();
        let due_dates = self.births.iter().flat_map(|birth| &birth.due_dates);
        let believed = due_dates.filter(|(recorded, _)| *recorded <= birth.delivery && days_between(recorded.date(), day) <= DUE_DATE_DAYS);
        let due = believed.max_by_key(|(recorded, _)| *recorded).map(|(_, due)| (TERM_DAYS - days_between(day, *due)).div_euclid(7));
        due.or_else(|| birth.estimate.as_ref().map(Estimate::weeks)).or(birth.coded_weeks)
    }

    /// Writes the records of mother and child.
    pub(super) fn write(&self, context: &Context, out: &mut Vec<Draft>) {
        let patient = self.person.id.as_str();
        self.person.write(context.calendar, out);
        for birth in &self.births {
            birth.write(patient, context, out);
        }
        if let Some((start, end)) = self.antepartum {
            let id = format!("{patient}-a1");
            out.push(admission(id.clone(), patient, start, end).write(context));
            out.push(condition(format!("{id}-dx"), patient, &id, ANTEPARTUM, start).write(context));
        }
        if let (Some(newborn), Some(birth)) = (&self.newborn, self.births.first()) {
            let child = newborn.id.as_str();
            newborn.write(context.calendar, out);
            let id = format!("{child}-e1");
            out.push(admission(id.clone(), child, birth.delivery, birth.discharge).write(context));
            out.push(condition(format!("{id}-dx"), child, &id, LIVEBORN, birth.delivery).write(context));
        }
    }

    /// Ids of the patients whose records this plan writes.
    pub(super) fn patients(&self) -> Vec<String> {
        let newborn = self.newborn.iter().map(|newborn| newborn.id.clone());
        std::iter::once(self.person.id.clone()).chain(newborn).collect()
    }
}

impl Birth {
    fn draw(dice: &mut Dice, calendar: &Calendar, number: u32, day: Date, elective: i64) -> Birth {
        let weeks = dice.weighted(&[(2, 32), (3, 34), (3, 35), (6, 36), (19, 37), (29, 38), (26, 39), (10, 40), (2, 41)]);
        let gestation = weeks * 7 + dice.between(0, 6);
        let course = dice.weighted(&[
            (80 - elective, Course::Spontaneous),
            (8, Course::CesareanInLabor),
            (6, Course::AugmentationCodedAsInduction),
            (elective * 5 / 10, Course::Induction),
            (elective * 2 / 10 + 2, Course::FailedInduction),
            (elective * 3 / 10 + 4, Course::ScheduledCesarean),
        ]);
        let delivery = calendar.moment(day, dice.between(30, 23 * 60));
        let admission = calendar.later(delivery, -dice.between(240, 1_600));
        let long = dice.chance(1);
        let admission = if long { calendar.later(admission, -125 * 24 * 60) } else { admission };
        let discharge = calendar.moment(add_days(day, dice.between(1, 4)), dice.between(10 * 60, 15 * 60));
        let mut birth = Birth {
            number,
            admission,
            delivery,
            discharge,
            linked: dice.chance(88),
            due_dates: Vec::new(),
            estimate: None,
            coded_weeks: None,
            labor: None,
            induction: None,
            cesarean: None,
            conditions: Vec::new(),
            weight: dice.between(520, 980),
            prenatal: dice.weighted(&[(20, 0), (30, 4), (50, 8)]),
        };
        birth.plan_course(dice, calendar, course);
        birth.plan_gestation(dice, calendar, gestation);
        birth.plan_conditions(dice, course);
        birth
    }

    fn plan_course(&mut self, dice: &mut Dice, calendar: &Calendar, course: Course) {
        let before = |minutes: i64| calendar.later(self.delivery, -minutes);
        let cesarean = before(20);
        let (labor, induction, cesarean) = match course {
            Course::Spontaneous => (Some(before(230)), None, None),
            Course::CesareanInLabor => (Some(before(230)), None, Some(cesarean)),
            Course::AugmentationCodedAsInduction => (Some(before(220)), Some(before(120)), None),
            Course::Induction => (Some(before(90)), Some(before(210)), None),
            Course::FailedInduction => (Some(before(90)), Some(before(210)), Some(cesarean)),
            Course::ScheduledCesarean => (None, None, Some(cesarean)),
        };
        // The onset of labor is what charts forget.
        self.labor = labor.filter(|_| dice.chance(92));
        let status = dice.weighted(&[(95, "completed"), (5, "not-done")]);
        let code = dice.weighted(&[(70, INDUCTION_PCS), (30, INDUCTION)]);
        self.induction = induction.map(|at| (at, status, code));
        self.cesarean = cesarean.map(|at| (at, dice.pick(&CESAREANS)));
    }

    fn plan_gestation(&mut self, dice: &mut Dice, calendar: &Calendar, gestation: i64) {
        let day = self.delivery.date();
        let due = add_days(day, TERM_DAYS - gestation);
        if dice.chance(5) {
            return; // Documented nowhere.
        }
        if dice.chance(72) {
            let visit = |days: i64| calendar.moment(add_days(day, days - gestation), 11 * 60);
            let at = dice.between(55, 80);
            if dice.chance(20) {
                // Reckoned by the last period first, then corrected by ultrasound.
                self.due_dates.push((visit(at), add_days(due, dice.between(-12, 12))));
                self.due_dates.push((visit(at + dice.between(10, 60)), due));
            } else {
                self.due_dates.push((visit(at), due));
            }
        }
        if dice.chance(60) {
            let minutes = dice.between(-1_000, 1_000);
            let days = gestation + dice.weighted(&[(90, 0), (5, 1), (5, -1)]);
            self.estimate = Some(Estimate { at: calendar.later(self.delivery, minutes), days, in_days: dice.chance(25) });
        }
        self.coded_weeks = dice.chance(85).then_some(gestation / 7);
    }

    fn plan_conditions(&mut self, dice: &mut Dice, course: Course) {
        let scheduled = matches!(course, Course::Induction | Course::FailedInduction | Course::ScheduledCesarean);
        if dice.chance(if scheduled { 38 } else { 10 }) {
            self.conditions.push(dice.pick(&JUSTIFICATIONS));
        } else if dice.chance(20) {
            self.conditions.push(UNJUSTIFYING);
        }
        if dice.chance(if course == Course::ScheduledCesarean { 55 } else { 5 }) {
            self.conditions.push(dice.pick(&SCARS));
        }
        if dice.chance(3) {
            self.conditions.push(STILLBIRTH);
        }
    }

    /// Whether labor was known to have begun before something was done.
    fn in_labor_before(&self, at: Moment) -> bool {
        self.labor.is_some_and(|labor| labor < at)
    }

    fn is_elective(&self) -> bool {
        let induced = self.induction.is_some_and(|(at, status, _)| status == "completed" && !self.in_labor_before(at));
        let scar = self.conditions.iter().any(|code| SCARS.contains(code));
        let cesarean = self.cesarean.is_some_and(|(at, _)| !self.in_labor_before(at) && !scar);
        induced || cesarean
    }

    fn write(&self, patient: &str, context: &Context, out: &mut Vec<Draft>) {
        let id = format!("{patient}-b{}", self.number);
        out.push(admission(id.clone(), patient, self.admission, self.discharge).write(context));
        let link = Some(id.as_str());
        let observation = |name: &str, encounter, category, code, at, value| {
            let id = format!("{id}-{name}");
            ObservationForm { id, profile: "", patient, encounter, status: "final", category, code, at, value }.write(context)
        };
        let born = Finding::When(When::Moment(self.delivery));
        out.push(observation("birth", link.filter(|_| self.linked), term::EXAM, BIRTH_TIME, self.delivery, born));
        for (index, (recorded, due)) in self.due_dates.iter().enumerate() {
            let value = Finding::When(When::Day(*due));
            out.push(observation(&format!("edd{}", index + 1), None, term::EXAM, DUE_DATE, *recorded, value));
        }
        if let Some(estimate) = &self.estimate {
            let (code, value) = match (context.dialect, estimate.in_days) {
                (Dialect::Harbor, _) => {
                    let code = coding(harbor::LAB, harbor::LAB_GESTATION, "EGA at delivery (days)");
                    (code, Finding::Quantity(Decimal(estimate.days, 0), "d", "d"))
                }
                (Dialect::Standard, true) => (GESTATION, Finding::Quantity(Decimal(estimate.days, 0), "d", "d")),
                (Dialect::Standard, false) => (GESTATION, Finding::Quantity(Decimal(estimate.tenths(), 1), "wk", "wk")),
            };
            out.push(observation("ega", link, term::EXAM, code, estimate.at, value));
        }
        if let Some(labor) = self.labor {
            let code = match context.dialect {
                Dialect::Standard => LABOR,
                Dialect::Harbor => coding(harbor::FLOWSHEET, harbor::FLOWSHEET_LABOR, "Labor onset date/time"),
            };
            out.push(observation("labor", link, term::EXAM, code, labor, Finding::When(When::Moment(labor))));
        }
        self.write_procedures(patient, &id, context, out);
        self.write_prenatal(patient, &id, context, out);
        let weeks = self.coded_weeks.and_then(|weeks| WEEKS.get(usize::try_from(weeks - 30).ok()?)).copied();
        for (index, code) in self.conditions.iter().copied().chain(weeks).enumerate() {
            out.push(condition(format!("{id}-dx{}", index + 1), patient, &id, code, self.admission).write(context));
        }
    }

    fn write_prenatal(&self, patient: &str, birth: &str, context: &Context, out: &mut Vec<Draft>) {
        for visit in 1..=self.prenatal {
            let day = weekday(add_days(self.delivery.date(), -25 * visit));
            let start = context.calendar.moment(day, 9 * 60 + 20 * visit);
            let encounter = format!("{birth}-p{visit}");
            let form = EncounterForm {
                id: encounter.clone(),
                patient,
                status: "finished",
                class: term::AMBULATORY,
                kind: PRENATAL_VISIT,
                service: None,
                start,
                end: Some(context.calendar.later(start, 30)),
                locations: Vec::new(),
            };
            out.push(form.write(context));
            let mut result = |name: &str, code: Coding, value: Decimal, unit: &'static str| {
                let id = format!("{encounter}-{name}");
                let at = context.calendar.later(start, 5);
                let form = ResultForm { id, patient, encounter: &encounter, laboratory: false, code, at, value, unit };
                out.push(form.write(context));
            };
            result("wt", WEIGHT, Decimal(self.weight + 14 * (10 - visit), 1), "kg");
            result("hr", HEART_RATE, Decimal(70 + (self.weight + 7 * visit) % 25, 0), "/min");
        }
    }

    fn write_procedures(&self, patient: &str, encounter: &str, context: &Context, out: &mut Vec<Draft>) {
        if let Some((at, status, code)) = self.induction {
            let id = format!("{encounter}-induction");
            let end = (status == "completed").then(|| context.calendar.later(at, 60));
            out.push(ProcedureForm { id, patient, encounter: Some(encounter), status, code, start: at, end }.write(context));
        }
        if let Some((at, code)) = self.cesarean {
            let id = format!("{encounter}-cesarean");
            let form = ProcedureForm { id, patient, encounter: Some(encounter), status: "completed", code, start: at, end: None };
            out.push(form.write(context));
        }
    }
}

fn admission(id: String, patient: &str, start: Moment, end: Moment) -> EncounterForm<'_> {
    EncounterForm {
        id,
        patient,
        status: "finished",
        class: term::INPATIENT,
        kind: ADMISSION,
        service: None,
        start,
        end: Some(end),
        locations: vec![("unit-birth".to_owned(), start, Some(end))],
    }
}

fn condition<'a>(id: String, patient: &'a str, encounter: &'a str, code: Coding, at: Moment) -> OneCondition<'a> {
    OneCondition { id, patient, encounter, code, at }
}

/// A confirmed diagnosis of one stay.
struct OneCondition<'a> {
    id: String,
    patient: &'a str,
    encounter: &'a str,
    code: Coding,
    at: Moment,
}

impl OneCondition<'_> {
    fn write(self, context: &Context) -> Draft {
        ConditionForm {
            id: self.id,
            patient: self.patient,
            encounter: Some(self.encounter),
            verification: Some(term::CONFIRMED),
            codes: &[self.code],
            onset: None,
            recorded: self.at,
        }
        .write(context)
    }
}
