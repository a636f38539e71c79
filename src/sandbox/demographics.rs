//! People: names that are plainly synthetic, race, ethnicity, language, payer, and their gaps.

use jiff::civil::Date;

use super::dialect::system;
use super::dice::Dice;
use super::draft::{Coding, Draft, When, coding};
use super::moment::{Calendar, Moment};
use super::truth::{STRATUM_MULTIRACIAL, STRATUM_UNKNOWN};

const GIVEN: [&str; 24] = [
    "Alder", "Ash", "Aspen", "Beech", "Birch", "Cedar", "Cypress", "Elm", "Fern", "Fir", "Hazel", "Holly", "Juniper", "Larch", "Laurel", "Linden", "Maple", "Myrtle", "Oak",
    "Olive", "Poplar", "Rowan", "Willow", "Yew",
];
const FAMILY: [&str; 24] = [
    "Allegheny",
    "Brazos",
    "Chattahoochee",
    "Cumberland",
    "Delaware",
    "Gila",
    "Hocking",
    "Hudson",
    "Kanawha",
    "Klamath",
    "Licking",
    "Maumee",
    "Merrimack",
    "Miami",
    "Monongahela",
    "Muskingum",
    "Ohio",
    "Olentangy",
    "Potomac",
    "Scioto",
    "Susquehanna",
    "Tuscarawas",
    "Wabash",
    "Willamette",
];

const OMB: &str = "urn:oid:2.16.840.1.113883.6.238";
const NULL_FLAVOR: &str = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor";
const AMERICAN_INDIAN: Coding = coding(OMB, "1002-5", "American Indian or Alaska Native");
const ASIAN: Coding = coding(OMB, "2028-9", "Asian");
const BLACK: Coding = coding(OMB, "2054-5", "Black or African American");
const PACIFIC: Coding = coding(OMB, "2076-8", "Native Hawaiian or Other Pacific Islander");
const WHITE: Coding = coding(OMB, "2106-3", "White");
const HISPANIC: Coding = coding(OMB, "2135-2", "Hispanic or Latino");
const NOT_HISPANIC: Coding = coding(OMB, "2186-5", "Not Hispanic or Latino");
const ASKED_UNKNOWN: Coding = coding(NULL_FLAVOR, "ASKU", "Asked but no answer");
const UNKNOWN: Coding = coding(NULL_FLAVOR, "UNK", "Unknown");

/// What registration knows of a person's race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Race {
    /// One OMB category, or one null flavor.
    One(Coding),
    /// Two OMB categories.
    Two(Coding, Coding),
    /// Nothing.
    Missing,
}

const RACES: [(i64, Race); 10] = [
    (55, Race::One(WHITE)),
    (20, Race::One(BLACK)),
    (6, Race::One(ASIAN)),
    (1, Race::One(AMERICAN_INDIAN)),
    (1, Race::One(PACIFIC)),
    (4, Race::Two(BLACK, WHITE)),
    (2, Race::Two(ASIAN, WHITE)),
    (2, Race::One(UNKNOWN)),
    (2, Race::One(ASKED_UNKNOWN)),
    (7, Race::Missing),
];
const ETHNICITIES: [(i64, Option<Coding>); 5] = [(72, Some(NOT_HISPANIC)), (15, Some(HISPANIC)), (2, Some(UNKNOWN)), (2, Some(ASKED_UNKNOWN)), (9, None)];
const LANGUAGES: [(i64, Option<Coding>); 6] = [
    (78, Some(coding("urn:ietf:bcp:47", "en", "English"))),
    (10, Some(coding("urn:ietf:bcp:47", "es", "Spanish"))),
    (2, Some(coding("urn:ietf:bcp:47", "so", "Somali"))),
    (1, Some(coding("urn:ietf:bcp:47", "ne", "Nepali"))),
    (1, Some(coding("urn:ietf:bcp:47", "ar", "Arabic"))),
    (8, None),
];
const SOURCE_OF_PAYMENT: &str = "https://nahdo.org/sopt";
const PAYERS: [(i64, Payer); 5] = [
    (48, Payer { kind: Some(coding(SOURCE_OF_PAYMENT, "5", "PRIVATE HEALTH INSURANCE")), organization: "payer-river" }),
    (36, Payer { kind: Some(coding(SOURCE_OF_PAYMENT, "2", "MEDICAID")), organization: "payer-state" }),
    (4, Payer { kind: Some(coding(SOURCE_OF_PAYMENT, "1", "MEDICARE")), organization: "payer-federal" }),
    (6, Payer { kind: Some(coding(SOURCE_OF_PAYMENT, "81", "Self-pay")), organization: "payer-self" }),
    (6, Payer { kind: None, organization: "payer-river" }),
];

/// Organizations that pay, as (id, name).
pub(super) const PAYER_ORGANIZATIONS: [(&str, &str); 4] =
    [("payer-river", "River Mutual (synthetic)"), ("payer-state", "State Medicaid (synthetic)"), ("payer-federal", "Federal Plan (synthetic)"), ("payer-self", "Self-pay")];

/// Who pays. The type is missing for some, as plans often come as bare text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payer {
    kind: Option<Coding>,
    organization: &'static str,
}

/// A person.
#[derive(Debug, Clone)]
pub(super) struct Person {
    /// Logical id of the Patient.
    pub(super) id: String,
    pub(super) birth: Date,
    pub(super) female: bool,
    pub(super) race: Race,
    ethnicity: Option<Coding>,
    language: Option<Coding>,
    payer: Option<Payer>,
    name: (&'static str, &'static str),
    number: u32,
    registered: Moment,
}

impl Person {
    /// Draws a person; `registered` is when the hospital first met them.
    pub(super) fn draw(dice: &mut Dice, id: String, number: u32, birth: Date, female: bool, registered: Moment) -> Person {
        Person {
            id,
            birth,
            female,
            race: dice.weighted(&RACES),
            ethnicity: dice.weighted(&ETHNICITIES),
            language: dice.weighted(&LANGUAGES),
            payer: dice.chance(94).then(|| dice.weighted(&PAYERS)),
            name: (dice.pick(&GIVEN), dice.pick(&FAMILY)),
            number,
            registered,
        }
    }

    /// The race stratum: one OMB code, `multiracial` or `unknown`.
    pub(super) fn race_stratum(&self) -> &'static str {
        match self.race {
            Race::One(coding) if coding.system == OMB => coding.code,
            Race::Two(..) => STRATUM_MULTIRACIAL,
            Race::One(_) | Race::Missing => STRATUM_UNKNOWN,
        }
    }

    /// The ethnicity stratum: one OMB code or `unknown`.
    pub(super) fn ethnicity_stratum(&self) -> &'static str {
        self.ethnicity.filter(|coding| coding.system == OMB).map_or(STRATUM_UNKNOWN, |coding| coding.code)
    }

    /// Whether registration has Black or African American among the races, for the gap in care that
    /// the simulated inpatient units have.
    pub(super) fn is_black(&self) -> bool {
        matches!(self.race, Race::One(coding) | Race::Two(coding, _) if coding == BLACK)
    }

    /// Writes the Patient and, if known, the Coverage.
    pub(super) fn write(&self, calendar: &Calendar, out: &mut Vec<Draft>) {
        out.push(self.patient(calendar));
        out.extend(self.payer.map(|payer| self.coverage(payer, calendar)));
    }

    fn patient(&self, calendar: &Calendar) -> Draft {
        let mut draft = Draft::new("Patient", self.id.clone(), "us-core-patient", self.registered.at);
        draft.patient = Some(self.id.clone());
        let races: &[Coding] = match &self.race {
            Race::One(one) => std::slice::from_ref(one),
            Race::Two(first, second) => &[*first, *second],
            Race::Missing => &[],
        };
        let sex = if self.female { "F" } else { "M" };
        draft.json().list("extension", |json| {
            category_extension(json, "us-core-race", races);
            category_extension(json, "us-core-ethnicity", self.ethnicity.as_slice());
            json.object("", |json| {
                json.text("url", "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex");
                json.text("valueCode", sex);
            });
        });
        let record_number = format!("SYN{:06}", self.number);
        draft.json().list("identifier", |json| {
            json.object("", |json| {
                json.text("use", "usual");
                json.concept("type", &[coding("http://terminology.hl7.org/CodeSystem/v2-0203", "MR", "Medical record number")], "");
                json.text("system", "http://hospital.example/mrn");
                json.text("value", &record_number);
            })
        });
        draft.token_key("identifier", "http://hospital.example/mrn", record_number);
        draft.json().boolean("active", true);
        let given = format!("{}{:03}", self.name.0, self.number % 1000);
        draft.json().list("name", |json| {
            json.object("", |json| {
                json.text("use", "official");
                json.text("family", self.name.1);
                json.list("given", |json| json.text("", &given));
            })
        });
        draft.text_key("family", self.name.1);
        draft.text_key("given", &given);
        draft.code("gender", "gender", if self.female { "female" } else { "male" });
        draft.when("birthDate", "birthdate", When::Day(self.birth), calendar);
        if let Some(language) = self.language {
            draft.json().list("communication", |json| {
                json.object("", |json| {
                    json.concept("language", &[language], language.display);
                    json.boolean("preferred", true);
                })
            });
            draft.token_key("language", language.system, language.code);
        }
        draft
    }

    fn coverage(&self, payer: Payer, calendar: &Calendar) -> Draft {
        let mut draft = Draft::new("Coverage", format!("{}-coverage", self.id), "us-core-coverage", self.registered.at);
        draft.code("status", "status", "active");
        if let Some(kind) = payer.kind {
            draft.concept("type", "type", &[kind], kind.display);
        }
        draft.json().text("subscriberId", &format!("SUB{:07}", self.number));
        draft.subject("beneficiary", &self.id);
        let relationship = coding("http://terminology.hl7.org/CodeSystem/subscriber-relationship", "self", "Self");
        draft.json().concept("relationship", &[relationship], "");
        draft.period("period", "", When::Day(self.registered.date()), None, calendar);
        let organization = format!("Organization/{}", payer.organization);
        draft.json().list("payor", |json| json.reference("", &organization));
        draft.reference_key("payor", &organization);
        draft
    }
}

/// `us-core-race` or `us-core-ethnicity`; nothing at all if nothing is known.
fn category_extension(json: &mut super::draft::Json, name: &str, categories: &[Coding]) {
    if categories.is_empty() {
        return;
    }
    let text = categories.iter().map(|coding| coding.display).collect::<Vec<_>>().join(", ");
    json.object("", |json| {
        json.list("extension", |json| {
            for category in categories {
                json.object("", |json| {
                    json.text("url", "ombCategory");
                    json.coding("valueCoding", *category);
                });
            }
            json.object("", |json| {
                json.text("url", "text");
                json.text("valueString", &text);
            });
        });
        json.text("url", &format!("http://hl7.org/fhir/us/core/StructureDefinition/{name}"));
    });
}

/// Terms used by every clinic.
pub(super) mod term {
    use super::{Coding, coding, system};

    pub(in crate::sandbox) const AMBULATORY: Coding = coding(system::ACT_CODE, "AMB", "ambulatory");
    pub(in crate::sandbox) const VIRTUAL: Coding = coding(system::ACT_CODE, "VR", "virtual");
    pub(in crate::sandbox) const INPATIENT: Coding = coding(system::ACT_CODE, "IMP", "inpatient encounter");
    pub(in crate::sandbox) const OBSERVATION: Coding = coding(system::ACT_CODE, "OBSENC", "observation encounter");
    pub(in crate::sandbox) const EMERGENCY: Coding = coding(system::ACT_CODE, "EMER", "emergency");
    const CLINICAL: &str = "http://terminology.hl7.org/CodeSystem/condition-clinical";
    const VERIFICATION: &str = "http://terminology.hl7.org/CodeSystem/condition-ver-status";
    const OBSERVATION_CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
    const CONDITION_CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/condition-category";
    pub(in crate::sandbox) const ACTIVE: Coding = coding(CLINICAL, "active", "Active");
    pub(in crate::sandbox) const CONFIRMED: Coding = coding(VERIFICATION, "confirmed", "Confirmed");
    pub(in crate::sandbox) const REFUTED: Coding = coding(VERIFICATION, "refuted", "Refuted");
    pub(in crate::sandbox) const ENTERED_IN_ERROR: Coding = coding(VERIFICATION, "entered-in-error", "Entered in Error");
    pub(in crate::sandbox) const LABORATORY: Coding = coding(OBSERVATION_CATEGORY, "laboratory", "Laboratory");
    pub(in crate::sandbox) const VITAL_SIGNS: Coding = coding(OBSERVATION_CATEGORY, "vital-signs", "Vital Signs");
    pub(in crate::sandbox) const SURVEY: Coding = coding(OBSERVATION_CATEGORY, "survey", "Survey");
    pub(in crate::sandbox) const EXAM: Coding = coding(OBSERVATION_CATEGORY, "exam", "Exam");
    pub(in crate::sandbox) const PROBLEM: Coding = coding(CONDITION_CATEGORY, "problem-list-item", "Problem List Item");
    pub(in crate::sandbox) const ENCOUNTER_DIAGNOSIS: Coding = coding(CONDITION_CATEGORY, "encounter-diagnosis", "Encounter Diagnosis");
}
