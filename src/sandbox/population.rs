//! Hospitals: a profile, patients planned from a seed, their records and the truth about them.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::chart::Chart;
use super::delivery::Mother;
use super::demographics::PAYER_ORGANIZATIONS;
use super::dialect::Dialect;
use super::dice::Dice;
use super::draft::{Draft, coding};
use super::entry::{Context, PRACTITIONERS};
use super::ibd::IbdPatient;
use super::inpatient::{InpatientPatient, UNITS};
use super::moment::{Calendar, add_months};
use super::truth::{Tally, Truth};

/// Patients of a hospital when nothing else is said.
pub const PATIENTS_DEFAULT: u32 = 500;
/// Complete months of truth when nothing else is said.
pub const MONTHS_DEFAULT: u32 = 24;
/// Most patients of one simulated hospital; their ids have room for no more.
pub const PATIENTS_MAX: u32 = 100_000;
/// Most months of truth.
pub const MONTHS_MAX: u32 = 240;

/// The character of a simulated hospital.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Name on the command line: `lakeside`, `hillcrest`, `harbor`.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// IANA time zone in which its days and months are meant.
    pub time_zone: &'static str,
    /// Whether it offers Bulk Data `$export`.
    pub bulk: bool,
    /// Which codes it writes.
    pub dialect: Dialect,
    /// The zone's rule, spelled out so that no machine's own time zone database is asked.
    rule: &'static str,
    /// Per cent of visits without disease activity when the data begin.
    remission: i64,
    /// Bloodstream infections per thousand line days.
    infections: i64,
    /// Per cent of births that are scheduled.
    elective: i64,
}

/// The hospitals there are.
static PROFILES: [Profile; 3] = [
    Profile {
        name: "lakeside",
        title: "Lakeside Children's Hospital",
        time_zone: "America/New_York",
        bulk: true,
        dialect: Dialect::Standard,
        rule: "EST5EDT,M3.2.0,M11.1.0",
        remission: 62,
        infections: 34,
        elective: 42,
    },
    Profile {
        name: "hillcrest",
        title: "Hillcrest Medical Center",
        time_zone: "America/Chicago",
        bulk: false,
        dialect: Dialect::Standard,
        rule: "CST6CDT,M3.2.0,M11.1.0",
        remission: 54,
        infections: 46,
        elective: 54,
    },
    Profile {
        name: "harbor",
        title: "Harbor Women's and Children's",
        time_zone: "America/Los_Angeles",
        bulk: false,
        dialect: Dialect::Harbor,
        rule: "PST8PDT,M3.2.0,M11.1.0",
        remission: 66,
        infections: 28,
        elective: 36,
    },
];

impl Profile {
    /// The profile of that name.
    pub fn named(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// Every profile, in the order of the demo.
    pub fn all() -> &'static [Profile] {
        &PROFILES
    }
}

/// What the generator knows of one person (or of a mother and her child).
pub(super) enum Plan {
    Ibd(IbdPatient),
    Inpatient(InpatientPatient),
    Mother(Box<Mother>),
}

impl Plan {
    fn write(&self, context: &Context, out: &mut Vec<Draft>) {
        match self {
            Plan::Ibd(patient) => patient.write(context, out),
            Plan::Inpatient(patient) => patient.write(context, out),
            Plan::Mother(mother) => mother.write(context, out),
        }
    }

    fn count(&self, calendar: &Calendar, tally: &mut Tally) {
        match self {
            Plan::Ibd(patient) => patient.count(calendar, tally),
            Plan::Inpatient(patient) => patient.count(calendar, tally),
            Plan::Mother(mother) => mother.count(calendar, tally),
        }
    }

    fn patients(&self) -> Vec<String> {
        match self {
            Plan::Ibd(patient) => vec![patient.person.id.clone()],
            Plan::Inpatient(patient) => vec![patient.person.id.clone()],
            Plan::Mother(mother) => mother.patients(),
        }
    }
}

/// Plans and records of one hospital.
pub(super) struct State {
    pub(super) profile: &'static Profile,
    pub(super) calendar: Calendar,
    pub(super) plans: Vec<Plan>,
    pub(super) chart: Chart,
    /// Groups as (id, name, members).
    pub(super) groups: Vec<(&'static str, &'static str, Vec<String>)>,
}

/// A simulated hospital. Cloning it gives another handle on the same data, so that a test can amend
/// what a server is serving.
#[derive(Clone)]
pub struct Hospital {
    state: Arc<RwLock<State>>,
}

impl Hospital {
    /// Makes a hospital: `patients` people in three lines of care (newborns counted), with data up
    /// to the start of `as_of`, and truth for the last `months` complete months before it. The same
    /// arguments give the same bytes on every machine.
    pub fn generate(profile: &Profile, seed: u64, patients: u32, as_of: Date, months: u32) -> Hospital {
        let profile = Profile::named(profile.name).unwrap_or(&PROFILES[0]);
        let zone = TimeZone::posix(profile.rule).unwrap_or(TimeZone::UTC);
        let calendar = Calendar::new(zone, as_of, months.min(MONTHS_MAX));
        let plans = plan(profile, seed, patients.min(PATIENTS_MAX), &calendar);
        let mut state = State { profile, calendar, plans, chart: Chart::default(), groups: Vec::new() };
        state.write_all();
        Hospital { state: Arc::new(RwLock::new(state)) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The truth about the data as they stand.
    pub fn truth(&self) -> Truth {
        self.read().truth()
    }

    /// Late data and corrections, chosen by `seed`: changed assessments and determinations, a visit
    /// documented late, deletions. Returns the new truth.
    pub fn amend(&self, seed: u64) -> Truth {
        self.amend_at(seed, Timestamp::now())
    }

    /// The same, entered into the records at a given time (or just after the newest entry, if that
    /// is later).
    pub fn amend_at(&self, seed: u64, now: Timestamp) -> Truth {
        let mut state = self.write();
        super::amend::amend(&mut state, seed, now);
        state.truth()
    }

    /// Merges the record of one patient into another's, as when a hospital finds that both are one person.
    pub fn merge(&self, survivor: &str, merged: &str) {
        super::amend::merge(&mut self.write(), survivor, merged, Timestamp::now());
    }

    /// The members of a group; nothing when there is none of that name.
    pub fn members(&self, group: &str) -> Option<Vec<String>> {
        self.read().groups.iter().find(|(id, _, _)| *id == group).map(|(_, _, members)| members.clone())
    }

    /// Gives a group other members, at a given time.
    pub fn regroup(&self, group: &str, members: &[String], now: Timestamp) {
        let mut state = self.write();
        state.groups.iter_mut().filter(|(id, _, _)| *id == group).for_each(|(_, _, own)| *own = members.to_vec());
        let drafts = state.group_drafts();
        for mut draft in drafts.into_iter().filter(|draft| &*draft.id == group) {
            draft.recorded = now;
            state.chart.put(draft, Some(now));
        }
    }

    /// Its character.
    pub fn profile(&self) -> &'static Profile {
        self.read().profile
    }

    /// Ids of all patients, in a stable order.
    pub fn patients(&self) -> Vec<String> {
        self.read().plans.iter().flat_map(Plan::patients).collect()
    }

    /// Every current resource as (type, id, JSON), sorted by type and id.
    pub fn resources(&self) -> Vec<(String, String, String)> {
        let state = self.read();
        let mut found = Vec::new();
        for kind in state.chart.kinds() {
            for version in state.chart.all(kind) {
                if let Some(content) = &version.content {
                    found.push((kind.to_owned(), version.id.to_string(), content.json.clone()));
                }
            }
        }
        found.sort();
        found
    }
}

/// Draws every plan; each has its own stream of choices.
fn plan(profile: &Profile, seed: u64, patients: u32, calendar: &Calendar) -> Vec<Plan> {
    let chronic = patients * 30 / 100;
    let inpatient = patients * 25 / 100;
    let mut plans = Vec::new();
    for number in 1..=chronic {
        let mut dice = Dice::new(seed, profile.name, 1_000_000 + u64::from(number));
        plans.push(Plan::Ibd(IbdPatient::draw(&mut dice, calendar, number, profile.remission)));
    }
    for number in 1..=inpatient {
        let mut dice = Dice::new(seed, profile.name, 2_000_000 + u64::from(number));
        let number = chronic + number;
        plans.push(Plan::Inpatient(InpatientPatient::draw(&mut dice, calendar, number, profile.infections)));
    }
    let mut number = chronic + inpatient;
    let mut stream = 3_000_000;
    while number < patients {
        let mut dice = Dice::new(seed, profile.name, stream);
        // Every other mother's child has a record here.
        let newborn = (stream % 2 == 1 && number + 2 <= patients).then_some(number + 2);
        let mother = Mother::draw(&mut dice, calendar, number + 1, newborn, profile.elective);
        plans.push(Plan::Mother(Box::new(mother)));
        number += if newborn.is_some() { 2 } else { 1 };
        stream += 1;
    }
    plans
}

impl State {
    /// The truth, counted from the plans.
    pub(super) fn truth(&self) -> Truth {
        let mut tally = Tally::new(&self.calendar.truth_months());
        for plan in &self.plans {
            plan.count(&self.calendar, &mut tally);
        }
        tally.finish(self.profile.time_zone)
    }

    /// Writes every record for the first time.
    fn write_all(&mut self) {
        let context = Context { calendar: &self.calendar, dialect: self.profile.dialect };
        let end = self.calendar.end().at;
        let mut drafts = self.institution();
        for plan in &self.plans {
            plan.write(&context, &mut drafts);
        }
        self.groups = self.group_members();
        drafts.extend(self.group_drafts());
        for mut draft in drafts {
            // Nothing is entered before it happens, nor after the data end.
            draft.recorded = draft.recorded.min(end);
            self.chart.put(draft, None);
        }
    }

    /// Writes one plan's records again after a change at `at`.
    pub(super) fn rewrite(&mut self, index: usize, at: Timestamp) {
        let Some(plan) = self.plans.get(index) else { return };
        let context = Context { calendar: &self.calendar, dialect: self.profile.dialect };
        let mut drafts = Vec::new();
        plan.write(&context, &mut drafts);
        for patient in plan.patients() {
            let (own, others) = drafts.into_iter().partition(|draft: &Draft| draft.patient.as_deref() == Some(&patient));
            drafts = others;
            self.chart.rewrite_patient(&patient, own, at);
        }
    }

    fn group_members(&self) -> Vec<(&'static str, &'static str, Vec<String>)> {
        let members = |keep: fn(&Plan) -> bool| -> Vec<String> { self.plans.iter().filter(|plan| keep(plan)).flat_map(Plan::patients).collect() };
        vec![
            ("all", "All patients of the network's measures", members(|_| true)),
            ("ibd", "Inflammatory bowel disease clinic", members(|plan| matches!(plan, Plan::Ibd(_)))),
            ("inpatient", "Inpatient units", members(|plan| matches!(plan, Plan::Inpatient(_)))),
            ("perinatal", "Delivery service", members(|plan| matches!(plan, Plan::Mother(_)))),
        ]
    }

    /// Writes the groups again after their members changed.
    pub(super) fn rewrite_groups(&mut self, at: Timestamp) {
        for draft in self.group_drafts() {
            self.chart.put(draft, Some(at));
        }
    }

    fn opened(&self) -> Timestamp {
        self.calendar.moment(add_months(self.calendar.start(), -60), 0).at
    }

    fn group_drafts(&self) -> Vec<Draft> {
        let write = |(id, name, members): &(&'static str, &'static str, Vec<String>)| {
            let mut draft = Draft::new("Group", *id, "", self.opened());
            draft.json().boolean("active", true);
            draft.code("type", "type", "person");
            draft.json().boolean("actual", true);
            draft.json().text("name", name);
            draft.json().list("member", |json| {
                for member in members {
                    json.object("", |json| json.reference("entity", &format!("Patient/{member}")));
                }
            });
            draft
        };
        self.groups.iter().map(write).collect()
    }

    /// The hospital itself: organizations, locations, practitioners.
    fn institution(&self) -> Vec<Draft> {
        let mut drafts = vec![self.organization("hospital", self.profile.title)];
        drafts.extend(PAYER_ORGANIZATIONS.iter().map(|(id, name)| self.organization(id, name)));
        drafts.push(self.location("site", self.profile.title, None, "si"));
        drafts.push(self.location("building-main", "Main building", Some("site"), "bu"));
        drafts.push(self.location("unit-birth", "Labor and delivery", Some("building-main"), "wa"));
        drafts.extend(UNITS.iter().map(|(id, name)| self.location(id, name, Some("building-main"), "wa")));
        drafts.extend((1..=PRACTITIONERS).map(|number| self.practitioner(number)));
        drafts
    }

    fn organization(&self, id: &str, name: &str) -> Draft {
        let mut draft = Draft::new("Organization", id, "us-core-organization", self.opened());
        draft.json().boolean("active", true);
        draft.json().text("name", name);
        draft.text_key("name", name);
        draft
    }

    fn location(&self, id: &str, name: &str, part_of: Option<&str>, form: &'static str) -> Draft {
        let mut draft = Draft::new("Location", id, "us-core-location", self.opened());
        draft.code("status", "status", "active");
        draft.json().text("name", name);
        draft.text_key("name", name);
        draft.code("mode", "", "instance");
        let form = coding("http://terminology.hl7.org/CodeSystem/location-physical-type", form, "");
        draft.json().concept("physicalType", &[form], "");
        draft.json().reference("managingOrganization", "Organization/hospital");
        if let Some(parent) = part_of {
            draft.reference("partOf", "partof", &format!("Location/{parent}"));
        }
        draft
    }

    fn practitioner(&self, number: u32) -> Draft {
        let mut draft = Draft::new("Practitioner", format!("practitioner-{number}"), "us-core-practitioner", self.opened());
        // Ten digits that no real provider has: the check digit is wrong on purpose.
        let npi = format!("999999999{number}");
        draft.json().list("identifier", |json| {
            json.object("", |json| {
                json.text("system", "http://hl7.org/fhir/sid/us-npi");
                json.text("value", &npi);
            })
        });
        draft.token_key("identifier", "http://hl7.org/fhir/sid/us-npi", npi);
        draft.json().list("name", |json| {
            json.object("", |json| {
                json.text("family", "Clinician");
                json.list("given", |json| json.text("", &format!("Synthetic{number}")));
            })
        });
        draft
    }
}

#[cfg(test)]
mod tests;
