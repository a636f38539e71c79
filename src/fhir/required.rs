//! Codes to which FHIR R4 binds elements without exception: whatever else stands there means nothing that anybody agreed on.
//!
//! By the names that the data model gives to the types of such elements. From the value sets of FHIR R4 (4.0.1) with a required
//! binding, <https://hl7.org/fhir/R4/terminologies-valuesets.html>; those of elements that measures read.

use crate::diagnostic::nearest;

const EVENT: &[&str] = &["preparation", "in-progress", "not-done", "on-hold", "stopped", "completed", "entered-in-error", "unknown"];
const REQUEST: &[&str] = &["draft", "active", "on-hold", "revoked", "completed", "entered-in-error", "unknown"];
const FINANCIAL: &[&str] = &["active", "cancelled", "draft", "entered-in-error"];
const INTENT: &[&str] = &["proposal", "plan", "directive", "order", "original-order", "reflex-order", "filler-order", "instance-order", "option"];
const PRIORITY: &[&str] = &["routine", "urgent", "asap", "stat"];

/// The types of elements, sorted, with their codes.
const BOUND: [(&str, &[&str]); 51] = [
    ("AdministrativeGender", &["male", "female", "other", "unknown"]),
    ("AllergyIntoleranceCategory", &["food", "medication", "environment", "biologic"]),
    ("AllergyIntoleranceCriticality", &["low", "high", "unable-to-assess"]),
    ("AllergyIntoleranceType", &["allergy", "intolerance"]),
    ("AppointmentStatus", &["proposed", "pending", "booked", "arrived", "fulfilled", "cancelled", "noshow", "entered-in-error", "checked-in", "waitlist"]),
    ("CarePlanIntent", &["proposal", "plan", "order", "option"]),
    ("CarePlanStatus", REQUEST),
    ("CareTeamStatus", &["proposed", "active", "suspended", "inactive", "entered-in-error"]),
    ("ChargeItemStatus", &["planned", "billable", "not-billable", "aborted", "billed", "entered-in-error", "unknown"]),
    ("ClaimStatus", FINANCIAL),
    ("CommunicationPriority", PRIORITY),
    ("CommunicationRequestStatus", REQUEST),
    ("CommunicationStatus", EVENT),
    ("ConsentState", &["draft", "proposed", "active", "rejected", "inactive", "entered-in-error"]),
    ("CoverageStatus", FINANCIAL),
    ("DeviceRequestStatus", REQUEST),
    ("DeviceUseStatementStatus", &["active", "completed", "entered-in-error", "intended", "stopped", "on-hold"]),
    ("DiagnosticReportStatus", &["registered", "partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled", "entered-in-error", "unknown"]),
    ("DocumentReferenceStatus", &["current", "superseded", "entered-in-error"]),
    ("EncounterLocationStatus", &["planned", "active", "reserved", "completed"]),
    ("EncounterStatus", &["planned", "arrived", "triaged", "in-progress", "onleave", "finished", "cancelled", "entered-in-error", "unknown"]),
    ("EpisodeOfCareStatus", &["planned", "waitlist", "active", "onhold", "finished", "cancelled", "entered-in-error"]),
    ("ExplanationOfBenefitStatus", FINANCIAL),
    ("FHIRDeviceStatus", &["active", "inactive", "entered-in-error", "unknown"]),
    ("FamilyHistoryStatus", &["partial", "completed", "entered-in-error", "health-unknown"]),
    ("FlagStatus", &["active", "inactive", "entered-in-error"]),
    ("GoalLifecycleStatus", &["proposed", "planned", "accepted", "active", "on-hold", "completed", "cancelled", "entered-in-error", "rejected"]),
    ("ImagingStudyStatus", &["registered", "available", "cancelled", "entered-in-error", "unknown"]),
    ("ImmunizationEvaluationStatus", &["completed", "entered-in-error"]),
    ("ImmunizationStatus", &["completed", "entered-in-error", "not-done"]),
    ("LocationMode", &["instance", "kind"]),
    ("LocationStatus", &["active", "suspended", "inactive"]),
    ("MedicationAdministrationStatus", &["in-progress", "not-done", "on-hold", "completed", "entered-in-error", "stopped", "unknown"]),
    ("MedicationDispenseStatus", &["preparation", "in-progress", "cancelled", "on-hold", "completed", "entered-in-error", "stopped", "declined", "unknown"]),
    ("MedicationRequestIntent", &["proposal", "plan", "order", "original-order", "reflex-order", "filler-order", "instance-order", "option"]),
    ("MedicationRequestPriority", PRIORITY),
    ("MedicationRequestStatus", &["active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown"]),
    ("MedicationStatementStatus", &["active", "completed", "entered-in-error", "intended", "stopped", "on-hold", "unknown", "not-taken"]),
    ("MedicationStatus", &["active", "inactive", "entered-in-error"]),
    ("NutritionOrderStatus", REQUEST),
    ("ObservationStatus", &["registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"]),
    ("ProcedureStatus", EVENT),
    ("QuantityComparator", &["<", "<=", ">=", ">"]),
    ("QuestionnaireResponseStatus", &["in-progress", "completed", "amended", "entered-in-error", "stopped"]),
    ("ReferredDocumentStatus", &["preliminary", "final", "amended", "entered-in-error"]),
    ("RequestIntent", INTENT),
    ("RequestPriority", PRIORITY),
    ("ServiceRequestIntent", INTENT),
    ("ServiceRequestPriority", PRIORITY),
    ("ServiceRequestStatus", REQUEST),
    ("SpecimenStatus", &["available", "unavailable", "unsatisfactory", "entered-in-error"]),
];

/// Clinical types of which FHIR demands a `status` (R4, `status` 1..1).
const WITH_STATUS: [&str; 33] = [
    "Appointment",
    "CarePlan",
    "ChargeItem",
    "Claim",
    "ClinicalImpression",
    "Communication",
    "CommunicationRequest",
    "Composition",
    "Consent",
    "Coverage",
    "DetectedIssue",
    "DeviceUseStatement",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "EpisodeOfCare",
    "ExplanationOfBenefit",
    "FamilyMemberHistory",
    "Flag",
    "ImagingStudy",
    "Immunization",
    "List",
    "Media",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "NutritionOrder",
    "Observation",
    "Procedure",
    "QuestionnaireResponse",
    "RiskAssessment",
    "ServiceRequest",
];

/// Whether FHIR demands a `status` of a resource type.
pub fn has_status(resource_type: &str) -> bool {
    WITH_STATUS.binary_search(&resource_type).is_ok()
}

/// The codes of an element of a type, as `FHIR.EncounterStatus`; none where the type is not bound, or not known here.
pub fn codes(class: &str) -> Option<&'static [&'static str]> {
    let name = class.strip_prefix("FHIR.")?;
    let at = BOUND.binary_search_by(|(bound, _)| (*bound).cmp(name)).ok()?;
    BOUND.get(at).map(|(_, codes)| *codes)
}

/// The code that was probably meant by another text.
pub fn meant(codes: &'static [&'static str], text: &str) -> Option<&'static str> {
    let words = text.to_ascii_lowercase().replace([' ', '_'], "-");
    codes.iter().copied().find(|code| **code == *words).or_else(|| nearest(&words, codes.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::model::Models;

    #[test]
    fn every_type_is_one_of_the_model_and_found() {
        assert!(BOUND.is_sorted_by(|one, next| one.0 < next.0));
        let models = Models::default();
        assert!(WITH_STATUS.is_sorted());
        for name in WITH_STATUS {
            assert!(models.fhir().element_of(&format!("FHIR.{name}"), "status").is_some(), "{name}");
        }
        for (name, known) in BOUND {
            let class = format!("FHIR.{name}");
            assert!(models.fhir().element_of(&class, "value").is_some(), "{name}");
            assert_eq!(codes(&class), Some(known));
        }
        assert_eq!((codes("FHIR.CodeableConcept"), codes("EncounterStatus")), (None, None));
    }

    #[test]
    fn what_was_probably_meant() {
        let of = |class: &str, text: &str| meant(codes(class).unwrap(), text);
        assert_eq!(of("FHIR.EncounterStatus", "Finished"), Some("finished"));
        assert_eq!(of("FHIR.EncounterStatus", "IN PROGRESS"), Some("in-progress"));
        assert_eq!(of("FHIR.ObservationStatus", "finall"), Some("final"));
        assert_eq!(of("FHIR.ObservationStatus", "F"), None);
    }
}
