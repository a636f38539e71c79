//! The names of FHIR's resource types.

/// Those of R4 (<https://hl7.org/fhir/R4/resourcelist.html>), and those that R4B and R5 have beside them: what a server sends of these is
/// no mistake.
const NAMES: [&str; 2] = [
    "\
Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse AuditEvent Basic Binary BiologicallyDerivedProduct \
BodyStructure Bundle CapabilityStatement CarePlan CareTeam CatalogEntry ChargeItem ChargeItemDefinition Claim ClaimResponse ClinicalImpression \
CodeSystem Communication CommunicationRequest CompartmentDefinition Composition ConceptMap Condition Consent Contract Coverage \
CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue Device DeviceDefinition DeviceMetric DeviceRequest DeviceUseStatement \
DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis Encounter Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare \
EventDefinition Evidence EvidenceVariable ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag Goal GraphDefinition Group \
GuidanceResponse HealthcareService ImagingStudy Immunization ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan \
Invoice Library Linkage List Location Measure MeasureReport Media Medication MedicationAdministration MedicationDispense MedicationKnowledge \
MedicationRequest MedicationStatement MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication \
MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured MedicinalProductPackaged MedicinalProductPharmaceutical \
MedicinalProductUndesirableEffect MessageDefinition MessageHeader MolecularSequence NamingSystem NutritionOrder Observation ObservationDefinition \
OperationDefinition OperationOutcome Organization OrganizationAffiliation Parameters Patient PaymentNotice PaymentReconciliation Person \
PlanDefinition Practitioner PractitionerRole Procedure Provenance Questionnaire QuestionnaireResponse RelatedPerson RequestGroup \
ResearchDefinition ResearchElementDefinition ResearchStudy ResearchSubject RiskAssessment RiskEvidenceSynthesis Schedule SearchParameter \
ServiceRequest Slot Specimen SpecimenDefinition StructureDefinition StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer \
SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification SupplyDelivery SupplyRequest Task \
TerminologyCapabilities TestReport TestScript ValueSet VerificationResult VisionPrescription",
    "\
ActorDefinition AdministrableProductDefinition ArtifactAssessment BiologicallyDerivedProductDispense Citation ClinicalUseDefinition \
ConditionDefinition DeviceAssociation DeviceDispense DeviceUsage EncounterHistory EvidenceReport FormularyItem GenomicStudy ImagingSelection \
Ingredient InventoryItem InventoryReport ManufacturedItemDefinition MedicinalProductDefinition NutritionIntake NutritionProduct \
PackagedProductDefinition Permission RegulatedAuthorization RequestOrchestration Requirements SubscriptionStatus SubscriptionTopic \
SubstanceDefinition TestPlan Transport",
];

/// Whether FHIR has a resource type of this name.
///
/// ```
/// use watershed::fhir::resource_type::is_one;
///
/// assert!(is_one("Observation") && is_one("DeviceUsage"));
/// assert!(!is_one("LabResult") && !is_one("observation") && !is_one(""));
/// ```
pub fn is_one(name: &str) -> bool {
    NAMES.iter().any(|names| names.split(' ').any(|own| own == name))
}
