//! The codes a hospital writes: the agreed ones, or its own that a site mapping translates.
//!
//! `harbor` speaks its own dialect. The constants below are what its site mapping
//! (`mappings/sites/`) has to translate, and nothing else differs.

/// Systems of standard and network codes.
pub mod system {
    /// SNOMED CT.
    pub const SNOMED: &str = "http://snomed.info/sct";
    /// LOINC.
    pub const LOINC: &str = "http://loinc.org";
    /// ICD-10-CM.
    pub const ICD10CM: &str = "http://hl7.org/fhir/sid/icd-10-cm";
    /// ICD-10-PCS.
    pub const ICD10PCS: &str = "http://www.cms.gov/Medicare/Coding/ICD10";
    /// RxNorm.
    pub const RXNORM: &str = "http://www.nlm.nih.gov/research/umls/rxnorm";
    /// UCUM units.
    pub const UCUM: &str = "http://unitsofmeasure.org";
    /// HL7 v3 ActCode, classes of encounters.
    pub const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
    /// The network's IBD codes.
    pub const IBD: &str = "http://watershed.example/fhir/CodeSystem/ibd";
    /// The network's codes of hospital-acquired conditions.
    pub const HAC: &str = "http://watershed.example/fhir/CodeSystem/hac";
    /// The network's perinatal codes.
    pub const PERINATAL: &str = "http://watershed.example/fhir/CodeSystem/perinatal";
}

/// Local codes of `harbor`.
pub mod harbor {
    /// System of the SmartData element that holds the physician global assessment.
    pub const SDE: &str = "urn:oid:1.2.840.114350.1.13.861.1.7.2.727688";
    /// The physician global assessment, as `Observation.code`.
    pub const SDE_PGA: &str = "EPIC#16411";
    /// System of its answers: `1` Inactive, `2` Mild, `3` Moderate, `4` Severe, each also as
    /// `valueCodeableConcept.text`.
    pub const PGA_ANSWER: &str = "http://harbor.example/fhir/CodeSystem/pga-answer";
    /// System of departments, as `Encounter.serviceType`.
    pub const DEPARTMENT: &str = "http://harbor.example/fhir/CodeSystem/department";
    /// The pediatric GI clinic (394584008 Gastroenterology).
    pub const DEPARTMENT_GI: &str = "PEDS-GI";
    /// System of lines, drains and airways, as `Device.type`.
    pub const LDA: &str = "http://harbor.example/fhir/CodeSystem/lda";
    /// Tunneled or non-tunneled central venous catheter (52124006).
    pub const LDA_CVC: &str = "CVC";
    /// Peripherally inserted central catheter (52124006).
    pub const LDA_PICC: &str = "PICC";
    /// Implanted port (52124006).
    pub const LDA_PORT: &str = "PORT";
    /// Peripheral intravenous line: not a central line, not to be mapped to one.
    pub const LDA_PIV: &str = "PIV";
    /// System of infection prevention reviews.
    pub const INFECTION: &str = "http://harbor.example/fhir/CodeSystem/infection-review";
    /// The review of a bloodstream infection, as `Observation.code` (`clabsi-determination`).
    pub const INFECTION_REVIEW: &str = "BSI-REVIEW";
    /// Outcome of the review, as value: `clabsi`.
    pub const INFECTION_CLABSI: &str = "BSI-CLABSI";
    /// Outcome of the review, as value: `not-clabsi`.
    pub const INFECTION_NOT: &str = "BSI-SECONDARY";
    /// Outcome of the review, as value: `mbi-lcbi`.
    pub const INFECTION_MBI: &str = "BSI-MBI";
    /// System of flowsheet rows.
    pub const FLOWSHEET: &str = "http://harbor.example/fhir/CodeSystem/flowsheet";
    /// Onset of labor, as `Observation.code` (perinatal#labor-onset).
    pub const FLOWSHEET_LABOR: &str = "LABOR-ONSET";
    /// System of laboratory and ultrasound results.
    pub const LAB: &str = "http://harbor.example/fhir/CodeSystem/lab";
    /// Estimated gestational age in days, unit `d` (LOINC 11884-4).
    pub const LAB_GESTATION: &str = "EGA-DAYS";
}

/// Which codes a hospital writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Standard and network codes.
    Standard,
    /// The local codes in [`harbor`] where the network has one of its own or the EHR keeps its own.
    Harbor,
}
