//! Inpatient units: stays with their location history, central lines, infections and their review.

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::demographics::{Person, term};
use super::dialect::{Dialect, harbor, system};
use super::dice::Dice;
use super::draft::{Coding, Decimal, Draft, When, coding};
use super::entry::{ConditionForm, Context, EncounterForm, Finding, ObservationForm, ResultForm};
use super::moment::{Calendar, Moment, add_days, add_months, days_between};
use super::truth::{HAC_CLABSI, Tally};

/// Units of the hospital, as (id of the Location, name).
pub(super) const UNITS: [(&str, &str); 6] = [
    ("unit-picu", "Pediatric intensive care unit"),
    ("unit-nicu", "Neonatal intensive care unit"),
    ("unit-cicu", "Cardiac intensive care unit"),
    ("unit-oncology", "Oncology ward"),
    ("unit-ward", "Medical-surgical ward"),
    ("unit-or", "Operating room"),
];
const WARDS: [usize; 2] = [3, 4];
const INTENSIVE: [usize; 3] = [0, 1, 2];
const OPERATING_ROOM: usize = 5;

const ADMISSION: Coding = coding(system::SNOMED, "32485007", "Hospital admission");
const EMERGENCY_VISIT: Coding = coding(system::SNOMED, "50849002", "Emergency room admission");
const CENTRAL_LINE: Coding = coding(system::SNOMED, "52124006", "Central venous catheter");
const PERIPHERAL_LINE: Coding = coding(system::SNOMED, "82449006", "Peripheral intravenous catheter");
const TEMPERATURE: Coding = coding(system::LOINC, "8310-5", "Body temperature");
const WHITE_CELLS: Coding = coding(system::LOINC, "6690-2", "Leukocytes [#/volume] in Blood by Automated count");
/// Days of a stay with daily results.
const RESULT_DAYS: i64 = 4;
const REVIEW: Coding = coding(system::HAC, "clabsi-determination", "Determination of a central line-associated bloodstream infection");
const DIAGNOSES: [Coding; 5] = [
    coding(system::ICD10CM, "J96.00", "Acute respiratory failure, unspecified whether with hypoxia or hypercapnia"),
    coding(system::ICD10CM, "C91.00", "Acute lymphoblastic leukemia not having achieved remission"),
    coding(system::ICD10CM, "Q21.3", "Tetralogy of Fallot"),
    coding(system::ICD10CM, "A41.9", "Sepsis, unspecified organism"),
    coding(system::ICD10CM, "K91.2", "Postsurgical malabsorption, not elsewhere classified"),
];

/// The infection preventionist's word on a bloodstream infection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Clabsi,
    NotClabsi,
    MucosalBarrier,
}

impl Outcome {
    fn coding(self, dialect: Dialect) -> Coding {
        match (self, dialect) {
            (Outcome::Clabsi, Dialect::Standard) => coding(system::HAC, "clabsi", "CLABSI"),
            (Outcome::NotClabsi, Dialect::Standard) => coding(system::HAC, "not-clabsi", "Not CLABSI"),
            (Outcome::MucosalBarrier, Dialect::Standard) => coding(system::HAC, "mbi-lcbi", "Mucosal barrier injury LCBI"),
            (Outcome::Clabsi, Dialect::Harbor) => coding(harbor::INFECTION, harbor::INFECTION_CLABSI, "BSI: central line associated"),
            (Outcome::NotClabsi, Dialect::Harbor) => coding(harbor::INFECTION, harbor::INFECTION_NOT, "BSI: secondary"),
            (Outcome::MucosalBarrier, Dialect::Harbor) => coding(harbor::INFECTION, harbor::INFECTION_MBI, "BSI: mucosal barrier"),
        }
    }
}

/// Time in one unit.
#[derive(Debug, Clone)]
struct Move {
    unit: usize,
    start: Moment,
    end: Option<Moment>,
}

/// One encounter with the hospital.
#[derive(Debug, Clone)]
struct Stay {
    number: u32,
    class: Coding,
    status: &'static str,
    start: Moment,
    end: Option<Moment>,
    /// Empty where the EHR kept no history.
    moves: Vec<Move>,
    diagnosis: Coding,
    /// How ill, tenths of a degree above 36.5 on arrival.
    fever: i64,
}

/// One line in a vessel.
#[derive(Debug, Clone)]
pub(super) struct Line {
    number: u32,
    central: bool,
    local: &'static str,
    pub(super) status: &'static str,
    start: When,
    pub(super) end: Option<When>,
}

/// One reviewed bloodstream infection.
#[derive(Debug, Clone)]
pub(super) struct Review {
    number: u32,
    stay: u32,
    at: Moment,
    pub(super) outcome: Outcome,
    pub(super) status: &'static str,
}

/// A patient of the inpatient units.
#[derive(Debug, Clone)]
pub(super) struct InpatientPatient {
    pub(super) person: Person,
    stays: Vec<Stay>,
    pub(super) lines: Vec<Line>,
    pub(super) reviews: Vec<Review>,
}

impl Stay {
    /// An inpatient or observation stay that happens or happened.
    fn counts(&self) -> bool {
        matches!(self.status, "finished" | "in-progress") && [term::INPATIENT, term::OBSERVATION].contains(&self.class)
    }

    /// The days on which the patient was in a unit for any time, before `until`.
    fn days(&self, until: Date) -> BTreeSet<Date> {
        let whole = [(self.start, self.end)];
        let moves: Vec<(Moment, Option<Moment>)> = self.moves.iter().map(|one| (one.start, one.end)).collect();
        let spans: &[(Moment, Option<Moment>)] = if moves.is_empty() { &whole } else { &moves };
        spans.iter().flat_map(|(start, end)| days(start.date(), end.map(|end| end.date()), until)).collect()
    }
}

impl Line {
    /// A central line that was in place at all.
    pub(super) fn counts(&self) -> bool {
        self.central && self.status != "entered-in-error"
    }

    /// The day it was placed.
    pub(super) fn placed_on(&self) -> Date {
        self.start.date()
    }

    /// Documents its removal.
    pub(super) fn remove_on(&mut self, day: Date, calendar: &Calendar) {
        let at = calendar.moment(day, 12 * 60);
        self.end = Some(match self.start {
            When::Moment(start) => When::Moment(at.max(start)),
            When::Day(_) => When::Day(day),
        });
        self.status = "completed";
    }
}

impl Review {
    /// A final determination of a CLABSI.
    pub(super) fn counts(&self) -> bool {
        self.status == "final" && self.outcome == Outcome::Clabsi
    }
}

/// The days from one to another, both included; an open end lasts until the day before `until`.
fn days(start: Date, end: Option<Date>, until: Date) -> impl Iterator<Item = Date> {
    let last = end.unwrap_or(until).min(add_days(until, -1));
    let count = days_between(start, last).clamp(-1, 4_000);
    (0..=count).map(move |offset| add_days(start, offset))
}

impl InpatientPatient {
    /// Plans one patient. `infections` is the risk of a bloodstream infection per thousand days.
    pub(super) fn draw(dice: &mut Dice, calendar: &Calendar, number: u32, infections: i64) -> InpatientPatient {
        let begin = add_months(calendar.start(), -2);
        let since = dice.between(1, days_between(begin, calendar.as_of));
        let first = add_days(calendar.as_of, -since);
        let birth = add_days(first, -dice.weighted(&[(30, 2), (30, 400), (40, 4000)]) * dice.between(50, 150) / 100);
        let registered = calendar.moment(first, 60);
        let female = dice.chance(48);
        let person = Person::draw(dice, format!("inp-{number:04}"), number, birth, female, registered);
        let mut patient = InpatientPatient { person, stays: Vec::new(), lines: Vec::new(), reviews: Vec::new() };
        let mut arrival = calendar.moment(first, dice.between(0, 20 * 60));
        for _ in 0..4 {
            let Some(departure) = patient.plan_stay(dice, calendar, arrival) else { break };
            let again = dice.weighted(&[(55, None), (5, Some(0)), (40, Some(1))]);
            arrival = match again {
                None => break,
                // The same day: home in the morning, back at night.
                Some(0) => calendar.moment(departure.date(), 21 * 60 + dice.between(0, 120)),
                Some(_) => calendar.moment(add_days(departure.date(), dice.between(2, 90)), dice.between(0, 20 * 60)),
            };
            if arrival >= calendar.end() {
                break;
            }
        }
        patient.plan_lines(dice, calendar);
        patient.plan_reviews(dice, calendar, infections);
        patient
    }

    /// Plans one stay and perhaps an emergency or observation encounter before it; gives its end.
    fn plan_stay(&mut self, dice: &mut Dice, calendar: &Calendar, arrival: Moment) -> Option<Moment> {
        let before = dice.weighted(&[(60, None), (28, Some(term::EMERGENCY)), (12, Some(term::OBSERVATION))]);
        let diagnosis = dice.pick(&DIAGNOSES);
        let mut start = arrival;
        if let Some(class) = before {
            let end = calendar.later(arrival, dice.between(90, if class == term::OBSERVATION { 1_400 } else { 400 }));
            if end >= calendar.end() {
                return None;
            }
            self.add_stay(class, "finished", arrival, Some(end), Vec::new(), (diagnosis, dice.between(0, 30)));
            start = end;
        }
        let nights = dice.weighted(&[(40, (1, 4)), (35, (4, 14)), (18, (14, 40)), (7, (40, 110))]);
        let nights = dice.between(nights.0, nights.1);
        let leaves = calendar.moment(add_days(start.date(), nights), dice.between(9 * 60, 17 * 60));
        let end = (leaves < calendar.end()).then_some(leaves);
        let class = dice.weighted(&[(92, term::INPATIENT), (8, term::OBSERVATION)]);
        let status = match (end, dice.chance(2)) {
            (Some(_), true) => "entered-in-error",
            (Some(_), false) => "finished",
            (None, _) => "in-progress",
        };
        let moves = if dice.chance(9) { Vec::new() } else { plan_moves(dice, calendar, start, leaves) };
        self.add_stay(class, status, start, end, moves, (diagnosis, dice.between(0, 30)));
        end
    }

    fn add_stay(&mut self, class: Coding, status: &'static str, start: Moment, end: Option<Moment>, moves: Vec<Move>, illness: (Coding, i64)) {
        let number = u32::try_from(self.stays.len()).unwrap_or(0) + 1;
        let (diagnosis, fever) = illness;
        self.stays.push(Stay { number, class, status, start, end, moves, diagnosis, fever });
    }

    fn plan_lines(&mut self, dice: &mut Dice, calendar: &Calendar) {
        let stays: Vec<(Moment, Option<Moment>, bool)> = self.stays.iter().map(|stay| (stay.start, stay.end, stay.class == term::EMERGENCY)).collect();
        let mut at_home = false;
        for (start, end, emergency) in stays {
            if emergency {
                continue;
            }
            let stop = end.unwrap_or_else(|| calendar.end());
            if dice.chance(35) {
                let until = calendar.later(start, dice.between(600, 4_000)).min(stop);
                self.add_line(false, harbor::LDA_PIV, When::Moment(calendar.later(start, 15)), Some(When::Moment(until)), "completed");
            }
            if at_home || !dice.chance(68) {
                continue;
            }
            let lines = dice.weighted(&[(78, 1), (22, 2)]);
            for _ in 0..lines {
                at_home |= self.plan_central_line(dice, calendar, start, end);
            }
        }
    }

    /// Plans one central line of a stay; says whether the patient goes home with it.
    fn plan_central_line(&mut self, dice: &mut Dice, calendar: &Calendar, start: Moment, end: Option<Moment>) -> bool {
        let stop = end.unwrap_or_else(|| calendar.end());
        let placed = calendar.later(start, dice.between(30, 2_600));
        let removed = calendar.later(placed, dice.between(1_500, 40_000));
        if placed >= stop {
            return false;
        }
        let local = dice.pick(&[harbor::LDA_CVC, harbor::LDA_PICC, harbor::LDA_PORT]);
        let home = end.is_some() && dice.chance(18);
        let (end, status) = match (home, removed < stop, end) {
            (true, ..) if dice.chance(50) => (None, "active"),
            (true, ..) => {
                let later = calendar.later(stop, dice.between(3_000, 150_000));
                if later < calendar.end() { (Some(later), "completed") } else { (None, "active") }
            }
            (false, true, _) => (Some(removed), "completed"),
            // Removed on leaving, unless the removal was never documented.
            (false, false, Some(_)) if dice.chance(8) => (None, "active"),
            (false, false, Some(discharge)) => (Some(calendar.later(discharge, -30)), "completed"),
            (false, false, None) => (None, "active"),
        };
        // A line cannot be out before it was in.
        let end = end.map(|end| end.max(placed));
        let status = if dice.chance(3) { "entered-in-error" } else { status };
        let to_the_day = dice.chance(12);
        let written = |moment: Moment| if to_the_day { When::Day(moment.date()) } else { When::Moment(moment) };
        self.add_line(true, local, written(placed), end.map(written), status);
        home
    }

    fn add_line(&mut self, central: bool, local: &'static str, start: When, end: Option<When>, status: &'static str) {
        let number = u32::try_from(self.lines.len()).unwrap_or(0) + 1;
        self.lines.push(Line { number, central, local, status, start, end });
    }

    fn plan_reviews(&mut self, dice: &mut Dice, calendar: &Calendar, infections: i64) {
        let risk = if self.person.is_black() { infections * 17 / 10 } else { infections };
        let mut reviews = Vec::new();
        for (number, days) in self.line_days(calendar) {
            // From the third line day on, never on the days of arrival and departure.
            let inner = days.len().saturating_sub(1);
            for (index, day) in days.into_iter().enumerate() {
                if index < 2 || index >= inner || !dice.chance_permille(risk) {
                    continue;
                }
                reviews.push(Review {
                    number: u32::try_from(reviews.len()).unwrap_or(0) + 1,
                    stay: number,
                    at: calendar.moment(day, dice.between(60, 22 * 60)),
                    outcome: dice.weighted(&[(62, Outcome::Clabsi), (24, Outcome::NotClabsi), (14, Outcome::MucosalBarrier)]),
                    status: dice.weighted(&[(92, "final"), (5, "preliminary"), (3, "entered-in-error")]),
                });
                break;
            }
        }
        self.reviews = reviews;
    }

    /// The line days of each counting stay, a day given to the stay that started first.
    fn line_days(&self, calendar: &Calendar) -> Vec<(u32, BTreeSet<Date>)> {
        let mut line_days = BTreeSet::new();
        for line in self.lines.iter().filter(|line| line.counts()) {
            line_days.extend(days(line.start.date(), line.end.map(When::date), calendar.as_of));
        }
        let mut stays: Vec<&Stay> = self.stays.iter().filter(|stay| stay.counts()).collect();
        stays.sort_by_key(|stay| stay.start);
        let mut taken = BTreeSet::new();
        let mut found = Vec::new();
        for stay in stays {
            let days: BTreeSet<Date> = stay.days(calendar.as_of).into_iter().filter(|day| line_days.contains(day) && !taken.contains(day)).collect();
            taken.extend(days.iter().copied());
            found.push((stay.number, days));
        }
        found
    }

    /// Counts the patient's encounters into the truth.
    pub(super) fn count(&self, calendar: &Calendar, tally: &mut Tally) {
        let strata = [("race", self.person.race_stratum()), ("ethnicity", self.person.ethnicity_stratum())];
        for (number, days) in self.line_days(calendar) {
            for month in calendar.truth_months() {
                let next = add_months(month, 1);
                let line_days = days.range(month..next).count();
                if line_days == 0 {
                    continue;
                }
                let events = self.reviews.iter().filter(|review| review.stay == number && review.counts());
                let events = events.filter(|review| review.at.date() >= month && review.at.date() < next).count();
                tally.observed(HAC_CLABSI, month, line_days, events, &strata);
            }
        }
    }

    /// Writes the record.
    pub(super) fn write(&self, context: &Context, out: &mut Vec<Draft>) {
        let patient = self.person.id.as_str();
        self.person.write(context.calendar, out);
        for stay in &self.stays {
            stay.write(patient, context, out);
        }
        for line in &self.lines {
            line.write(patient, context, out);
        }
        for review in &self.reviews {
            let code = match context.dialect {
                Dialect::Standard => REVIEW,
                Dialect::Harbor => coding(harbor::INFECTION, harbor::INFECTION_REVIEW, "Bloodstream infection review"),
            };
            let outcome = review.outcome.coding(context.dialect);
            let form = ObservationForm {
                id: format!("{patient}-review{}", review.number),
                profile: "",
                patient,
                encounter: Some(&stay_id(patient, review.stay)),
                status: review.status,
                category: term::EXAM,
                code,
                at: review.at,
                value: Finding::Concept(outcome, outcome.display),
            };
            let mut draft = form.write(context);
            // Reviewed some days after the event.
            draft.recorded = context.calendar.later(review.at, 5 * 24 * 60).at;
            out.push(draft);
        }
    }
}

fn stay_id(patient: &str, number: u32) -> String {
    format!("{patient}-e{number}")
}

/// The way through the units: perhaps the operating room, perhaps a leave of some days.
fn plan_moves(dice: &mut Dice, calendar: &Calendar, start: Moment, leaves: Moment) -> Vec<Move> {
    let intensive = dice.chance(55);
    let mut unit = if intensive { dice.pick(&INTENSIVE) } else { dice.pick(&WARDS) };
    let mut moves = Vec::new();
    let mut from = start;
    let mut step = |unit: usize, from: &mut Moment, minutes: i64, gap: i64| {
        let to = calendar.later(*from, minutes);
        if to < calendar.later(leaves, -gap - 60) {
            moves.push(Move { unit, start: *from, end: Some(to) });
            *from = calendar.later(to, gap);
        }
    };
    if dice.chance(30) {
        step(unit, &mut from, dice.between(300, 1_900), 0);
        step(OPERATING_ROOM, &mut from, dice.between(100, 420), 0);
    }
    if intensive {
        step(unit, &mut from, dice.between(1_500, 12_000), 0);
        unit = dice.pick(&WARDS);
    }
    if dice.chance(12) {
        step(unit, &mut from, dice.between(2_000, 9_000), dice.between(2_900, 5_000));
    }
    moves.push(Move { unit, start: from, end: Some(leaves) });
    // What lies beyond the end of the data has not happened yet.
    moves.retain(|one| one.start < calendar.end());
    for one in &mut moves {
        one.end = one.end.filter(|end| *end < calendar.end());
    }
    moves
}

impl Stay {
    fn write(&self, patient: &str, context: &Context, out: &mut Vec<Draft>) {
        let id = stay_id(patient, self.number);
        let location = |one: &Move| (UNITS.get(one.unit).map_or("unit-ward", |unit| unit.0).to_owned(), one.start, one.end);
        out.push(
            EncounterForm {
                id: id.clone(),
                patient,
                status: self.status,
                class: self.class,
                kind: if self.class == term::EMERGENCY { EMERGENCY_VISIT } else { ADMISSION },
                service: None,
                start: self.start,
                end: self.end,
                locations: self.moves.iter().map(location).collect(),
            }
            .write(context),
        );
        out.push(
            ConditionForm {
                id: format!("{id}-dx"),
                patient,
                encounter: Some(&id),
                verification: Some(term::CONFIRMED),
                codes: &[self.diagnosis],
                onset: None,
                recorded: self.start,
            }
            .write(context),
        );
        self.write_results(patient, &id, context, out);
    }

    /// Temperature and white cells of the first days.
    fn write_results(&self, patient: &str, encounter: &str, context: &Context, out: &mut Vec<Draft>) {
        let until = self.end.unwrap_or_else(|| context.calendar.end());
        for day in 0..RESULT_DAYS {
            let at = context.calendar.later(self.start, 90 + day * 24 * 60);
            if at >= until {
                break;
            }
            let mut result = |name: &str, laboratory: bool, code: Coding, value: Decimal, unit: &'static str| {
                let id = format!("{encounter}-{name}{}", day + 1);
                out.push(ResultForm { id, patient, encounter, laboratory, code, at, value, unit }.write(context));
            };
            let fever = self.fever * (RESULT_DAYS - day) / RESULT_DAYS;
            result("temp", false, TEMPERATURE, Decimal(365 + fever, 1), "Cel");
            result("wbc", true, WHITE_CELLS, Decimal(55 + 4 * fever + day, 1), "10*3/uL");
        }
    }
}

impl Line {
    fn write(&self, patient: &str, context: &Context, out: &mut Vec<Draft>) {
        let id = format!("{patient}-line{}", self.number);
        let at = match self.start {
            When::Moment(moment) => moment,
            When::Day(date) => context.calendar.moment(date, 12 * 60),
        };
        let kind = match (context.dialect, self.central) {
            (Dialect::Harbor, _) => coding(harbor::LDA, self.local, "LDA"),
            (Dialect::Standard, true) => CENTRAL_LINE,
            (Dialect::Standard, false) => PERIPHERAL_LINE,
        };
        let mut device = Draft::new("Device", id.clone(), "", at.at);
        device.code("status", "status", "active");
        device.concept("type", "type", &[kind], kind.display);
        device.subject("patient", patient);
        out.push(device);
        let documented = match self.end {
            Some(When::Moment(moment)) => moment,
            _ => at,
        };
        let mut draft = Draft::new("DeviceUseStatement", format!("{id}-use"), "", documented.at);
        draft.code("status", "status", self.status);
        draft.subject("subject", patient);
        draft.period("timingPeriod", "", self.start, self.end, context.calendar);
        draft.moment("recordedOn", "", documented);
        draft.reference("device", "device", &format!("Device/{id}"));
        out.push(draft);
    }
}
