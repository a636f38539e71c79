//! The forms that every clinic fills in: encounters, conditions, observations, procedures.

use super::demographics::term;
use super::dialect::{Dialect, system};
use super::draft::{Coding, Decimal, Draft, When};
use super::moment::{Calendar, Moment};

/// Practitioners of a hospital.
pub(super) const PRACTITIONERS: u32 = 6;

/// What clinics need to know to write.
pub(super) struct Context<'a> {
    pub(super) calendar: &'a Calendar,
    pub(super) dialect: Dialect,
}

/// An Encounter.
pub(super) struct EncounterForm<'a> {
    pub(super) id: String,
    pub(super) patient: &'a str,
    pub(super) status: &'static str,
    pub(super) class: Coding,
    pub(super) kind: Coding,
    pub(super) service: Option<Coding>,
    pub(super) start: Moment,
    pub(super) end: Option<Moment>,
    /// Units with the time spent there.
    pub(super) locations: Vec<(String, Moment, Option<Moment>)>,
}

impl EncounterForm<'_> {
    pub(super) fn write(&self, context: &Context) -> Draft {
        // Documented at its end, or kept up to date while it lasts.
        let known = self.end.unwrap_or_else(|| context.calendar.end()).at;
        let mut draft = Draft::new("Encounter", self.id.clone(), "us-core-encounter", known);
        draft.code("status", "status", self.status);
        draft.coding("class", "class", self.class);
        draft.concepts("type", "type", &[self.kind]);
        if let Some(service) = self.service {
            draft.json().concept("serviceType", &[service], service.display);
        }
        draft.subject("subject", self.patient);
        let practitioner = practitioner(&self.id);
        draft.json().list("participant", |json| json.object("", |json| json.reference("individual", &practitioner)));
        draft.period("period", "date", When::Moment(self.start), self.end.map(When::Moment), context.calendar);
        if !self.locations.is_empty() {
            draft.json().list("location", |json| {
                for (unit, start, end) in &self.locations {
                    json.object("", |json| {
                        json.reference("location", &format!("Location/{unit}"));
                        json.text("status", if end.is_some() { "completed" } else { "active" });
                        json.period("period", When::Moment(*start), end.map(When::Moment));
                    });
                }
            });
            for (unit, _, _) in &self.locations {
                draft.reference_key("location", &format!("Location/{unit}"));
            }
        }
        draft.json().reference("serviceProvider", "Organization/hospital");
        draft
    }
}

/// The practitioner who signs a document: any, but always the same one.
pub(super) fn practitioner(id: &str) -> String {
    let sum: u32 = id.bytes().map(u32::from).sum();
    format!("Practitioner/practitioner-{}", 1 + sum % PRACTITIONERS)
}

/// The encounter reference of clinical documents.
pub(super) fn encounter_link(draft: &mut Draft, encounter: &str) {
    draft.reference("encounter", "encounter", &format!("Encounter/{encounter}"));
}

/// What an observation found.
pub(super) enum Finding {
    Concept(Coding, &'static str),
    /// A concept that has no code.
    Text(&'static str),
    Quantity(Decimal, &'static str, &'static str),
    When(When),
}

/// An Observation.
pub(super) struct ObservationForm<'a> {
    pub(super) id: String,
    pub(super) profile: &'static str,
    pub(super) patient: &'a str,
    pub(super) encounter: Option<&'a str>,
    pub(super) status: &'static str,
    pub(super) category: Coding,
    pub(super) code: Coding,
    pub(super) at: Moment,
    pub(super) value: Finding,
}

impl ObservationForm<'_> {
    pub(super) fn write(self, context: &Context) -> Draft {
        let mut draft = Draft::new("Observation", self.id, self.profile, self.at.at);
        draft.code("status", "status", self.status);
        draft.concepts("category", "category", &[self.category]);
        draft.concept("code", "code", &[self.code], self.code.display);
        draft.subject("subject", self.patient);
        if let Some(encounter) = self.encounter {
            encounter_link(&mut draft, encounter);
        }
        draft.moment("effectiveDateTime", "date", self.at);
        match self.value {
            Finding::Concept(coding, text) => draft.concept("valueCodeableConcept", "value-concept", &[coding], text),
            Finding::Text(text) => draft.concept("valueCodeableConcept", "", &[], text),
            Finding::Quantity(value, unit, code) => draft.json().quantity("valueQuantity", value, unit, code),
            Finding::When(when) => draft.when("valueDateTime", "", when, context.calendar),
        }
        draft
    }
}

/// A Condition.
pub(super) struct ConditionForm<'a> {
    pub(super) id: String,
    pub(super) patient: &'a str,
    pub(super) encounter: Option<&'a str>,
    pub(super) verification: Option<Coding>,
    pub(super) codes: &'a [Coding],
    pub(super) onset: Option<When>,
    pub(super) recorded: Moment,
}

impl ConditionForm<'_> {
    pub(super) fn write(self, context: &Context) -> Draft {
        let (category, profile) = match self.encounter {
            Some(_) => (term::ENCOUNTER_DIAGNOSIS, "us-core-condition-encounter-diagnosis"),
            None => (term::PROBLEM, "us-core-condition-problems-health-concerns"),
        };
        let mut draft = Draft::new("Condition", self.id, profile, self.recorded.at);
        // con-5: nothing may be said of a condition that was entered in error.
        if self.verification != Some(term::ENTERED_IN_ERROR) {
            draft.concept("clinicalStatus", "clinical-status", &[term::ACTIVE], "");
        }
        if let Some(verification) = self.verification {
            draft.concept("verificationStatus", "verification-status", &[verification], "");
        }
        draft.concepts("category", "category", &[category]);
        draft.concept("code", "code", self.codes, self.codes.first().map_or("", |code| code.display));
        draft.subject("subject", self.patient);
        if let Some(encounter) = self.encounter {
            encounter_link(&mut draft, encounter);
        }
        if let Some(onset) = self.onset {
            draft.when("onsetDateTime", "onset-date", onset, context.calendar);
        }
        draft.moment("recordedDate", "recorded-date", self.recorded);
        draft
    }
}

/// A Procedure.
pub(super) struct ProcedureForm<'a> {
    pub(super) id: String,
    pub(super) patient: &'a str,
    pub(super) encounter: Option<&'a str>,
    pub(super) status: &'static str,
    pub(super) code: Coding,
    pub(super) start: Moment,
    /// With an end it is written as a period.
    pub(super) end: Option<Moment>,
}

impl ProcedureForm<'_> {
    pub(super) fn write(self, context: &Context) -> Draft {
        let mut draft = Draft::new("Procedure", self.id, "us-core-procedure", self.end.unwrap_or(self.start).at);
        draft.code("status", "status", self.status);
        draft.concept("code", "code", &[self.code], self.code.display);
        draft.subject("subject", self.patient);
        if let Some(encounter) = self.encounter {
            encounter_link(&mut draft, encounter);
        }
        match self.end {
            Some(end) => draft.period("performedPeriod", "date", When::Moment(self.start), Some(When::Moment(end)), context.calendar),
            None => draft.moment("performedDateTime", "date", self.start),
        }
        draft
    }
}

/// A vital sign or laboratory result.
pub(super) struct ResultForm<'a> {
    pub(super) id: String,
    pub(super) patient: &'a str,
    pub(super) encounter: &'a str,
    pub(super) laboratory: bool,
    pub(super) code: Coding,
    pub(super) at: Moment,
    pub(super) value: Decimal,
    pub(super) unit: &'static str,
}

impl ResultForm<'_> {
    pub(super) fn write(self, context: &Context) -> Draft {
        let (category, profile) = if self.laboratory { (term::LABORATORY, "us-core-observation-lab") } else { (term::VITAL_SIGNS, "us-core-vital-signs") };
        ObservationForm {
            id: self.id,
            profile,
            patient: self.patient,
            encounter: Some(self.encounter),
            status: "final",
            category,
            code: self.code,
            at: self.at,
            value: Finding::Quantity(self.value, self.unit, self.unit),
        }
        .write(context)
    }
}

/// A prescription.
pub(super) fn prescription(id: String, patient: &str, encounter: &str, status: &'static str, drug: Coding, at: Moment) -> Draft {
    debug_assert_eq!(drug.system, system::RXNORM);
    let signer = practitioner(&id);
    let mut draft = Draft::new("MedicationRequest", id, "us-core-medicationrequest", at.at);
    draft.code("status", "status", status);
    draft.code("intent", "intent", "order");
    draft.concept("medicationCodeableConcept", "code", &[drug], drug.display);
    draft.subject("subject", patient);
    encounter_link(&mut draft, encounter);
    draft.moment("authoredOn", "authoredon", at);
    draft.reference("requester", "", &signer);
    draft
}
