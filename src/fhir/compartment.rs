//! Whose resource it is: the R4 patient compartment, and references in all their spellings.
//!
//! Element names follow R4's CompartmentDefinition "patient"; where it names several elements, the one that holds the
//! subject of care counts, so that a resource has one patient. Device and Task have no place in R4's compartment but carry
//! `patient` and `for`, and are taken as that patient's.

use std::borrow::Cow;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest id FHIR allows, in characters (R4 datatypes, `id`).
pub const ID_BYTES_MAX: usize = 64;

#[derive(Clone, Copy)]
enum Rule {
    /// The resource is the patient.
    Itself,
    /// The reference, or the first patient among references, at this element.
    At(&'static str),
    /// Inside each item of a list: list element, then reference element.
    Within(&'static str, &'static str),
}

/// Types with a patient, in alphabetical order: type, where its patient stands, whether one must stand there.
const RULES: &[(&str, Rule, bool)] = &[
    ("Account", Rule::At("subject"), false),
    ("AdverseEvent", Rule::At("subject"), true),
    ("AllergyIntolerance", Rule::At("patient"), true),
    ("Appointment", Rule::Within("participant", "actor"), false),
    ("AppointmentResponse", Rule::At("actor"), false),
    ("Basic", Rule::At("subject"), false),
    ("BodyStructure", Rule::At("patient"), true),
    ("CarePlan", Rule::At("subject"), true),
    ("CareTeam", Rule::At("subject"), false),
    ("ChargeItem", Rule::At("subject"), true),
    ("Claim", Rule::At("patient"), true),
    ("ClaimResponse", Rule::At("patient"), true),
    ("ClinicalImpression", Rule::At("subject"), true),
    ("Communication", Rule::At("subject"), false),
    ("CommunicationRequest", Rule::At("subject"), false),
    ("Composition", Rule::At("subject"), false),
    ("Condition", Rule::At("subject"), true),
    ("Consent", Rule::At("patient"), false),
    ("Coverage", Rule::At("beneficiary"), true),
    ("CoverageEligibilityRequest", Rule::At("patient"), true),
    ("CoverageEligibilityResponse", Rule::At("patient"), true),
    ("DetectedIssue", Rule::At("patient"), false),
    ("Device", Rule::At("patient"), false),
    ("DeviceRequest", Rule::At("subject"), true),
    ("DeviceUseStatement", Rule::At("subject"), true),
    ("DiagnosticReport", Rule::At("subject"), false),
    ("DocumentManifest", Rule::At("subject"), false),
    ("DocumentReference", Rule::At("subject"), false),
    ("Encounter", Rule::At("subject"), true),
    ("EnrollmentRequest", Rule::At("candidate"), false),
    ("EpisodeOfCare", Rule::At("patient"), true),
    ("ExplanationOfBenefit", Rule::At("patient"), true),
    ("FamilyMemberHistory", Rule::At("patient"), true),
    ("Flag", Rule::At("subject"), false),
    ("Goal", Rule::At("subject"), true),
    ("ImagingStudy", Rule::At("subject"), true),
    ("Immunization", Rule::At("patient"), true),
    ("ImmunizationEvaluation", Rule::At("patient"), true),
    ("ImmunizationRecommendation", Rule::At("patient"), true),
    ("Invoice", Rule::At("subject"), false),
    ("List", Rule::At("subject"), false),
    ("MeasureReport", Rule::At("subject"), false),
    ("Media", Rule::At("subject"), false),
    ("MedicationAdministration", Rule::At("subject"), true),
    ("MedicationDispense", Rule::At("subject"), true),
    ("MedicationRequest", Rule::At("subject"), true),
    ("MedicationStatement", Rule::At("subject"), true),
    ("MolecularSequence", Rule::At("patient"), false),
    ("NutritionOrder", Rule::At("patient"), true),
    ("Observation", Rule::At("subject"), true),
    ("Patient", Rule::Itself, true),
    ("Procedure", Rule::At("subject"), true),
    ("QuestionnaireResponse", Rule::At("subject"), false),
    ("RelatedPerson", Rule::At("patient"), true),
    ("RequestGroup", Rule::At("subject"), false),
    ("ResearchSubject", Rule::At("individual"), true),
    ("RiskAssessment", Rule::At("subject"), true),
    ("ServiceRequest", Rule::At("subject"), true),
    ("Specimen", Rule::At("subject"), false),
    ("SupplyDelivery", Rule::At("patient"), false),
    ("Task", Rule::At("for"), false),
    ("VisionPrescription", Rule::At("patient"), true),
];

fn rule(resource_type: &str) -> Option<(Rule, bool)> {
    let at = RULES.binary_search_by(|(name, _, _)| (*name).cmp(resource_type)).ok()?;
    RULES.get(at).map(|(_, rule, required)| (*rule, *required))
}

/// True for types that belong to a patient (each or most of their resources).
pub fn in_compartment(resource_type: &str) -> bool {
    rule(resource_type).is_some()
}

/// True for types whose every resource must name its subject; one that names nobody is not usable.
pub fn patient_required(resource_type: &str) -> bool {
    rule(resource_type).is_some_and(|(_, required)| required)
}

/// Letters by which a name may differ from a type's that was meant: no two types of FHIR's, of any version that is in use, are as
/// near as that to each other, but for some that have a rule here.
const SLIPS_MAX: usize = 2;

/// Which of some types was probably meant by a name that is no type's, as `observation` and `Observaton`.
///
/// ```
/// use watershed::fhir::compartment::misspelt;
///
/// let types = ["Condition", "Observation"];
/// assert_eq!(misspelt("observaton", types), Some("Observation"));
/// assert_eq!(misspelt("Observation", types), None, "it is one");
/// assert_eq!(misspelt("ObservationDefinition", types), None, "another type");
/// ```
pub fn misspelt<'t>(name: &str, types: impl IntoIterator<Item = &'t str>) -> Option<&'t str> {
    let lower = name.to_ascii_lowercase();
    let slips = |other: &str| match other.len().abs_diff(name.len()) {
        0..=SLIPS_MAX => strsim::damerau_levenshtein(&lower, &other.to_ascii_lowercase()),
        longer => longer,
    };
    let nearest = types.into_iter().map(|other| (slips(other), other)).min()?.1;
    (rule(name).is_none() && nearest != name && slips(nearest) <= SLIPS_MAX).then_some(nearest)
}

/// The search parameter that selects a type's resources by patient: `patient` nearly everywhere, `_id` for Patient.
pub fn search_parameters(resource_type: &str) -> &'static [&'static str] {
    match (resource_type, rule(resource_type)) {
        ("Patient", _) => &["_id"],
        (_, Some((Rule::At("beneficiary"), _))) => &["beneficiary", "patient"],
        (_, Some((Rule::At("individual"), _))) => &["individual", "patient"],
        (_, Some(_)) => &["patient", "subject"],
        _ => &[],
    }
}

/// True for an id that FHIR allows: 1 to 64 of letters, digits, `-` and `.`.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// A reference taken apart: the type if it is named, and the bare id. Understands `Type/id`, absolute addresses,
/// `/_history/n`, and `urn:uuid:`; `None` for contained, logical and malformed ones.
pub fn reference_target(reference: &str) -> Option<(Option<&str>, &str)> {
    if let Some(id) = reference.strip_prefix("urn:uuid:").or_else(|| reference.strip_prefix("urn:oid:")) {
        return is_id(id).then_some((None, id));
    }
    if reference.starts_with('#') {
        return None;
    }
    let path = reference.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("/_history/").map_or(path, |(path, _)| path);
    let mut parts = path.trim_end_matches('/').rsplit('/');
    let id = parts.next().filter(|id| is_id(id))?;
    let resource_type = parts.next()?;
    let named = !resource_type.is_empty() && resource_type.starts_with(|first: char| first.is_ascii_uppercase()) && resource_type.bytes().all(|byte| byte.is_ascii_alphabetic());
    named.then_some((Some(resource_type), id))
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow)]
    reference: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    named_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    identifier: Option<&'a RawValue>,
}

/// An identifier, which may be anybody's.
#[derive(Deserialize)]
struct Identifier {
    system: Option<String>,
    value: Option<String>,
}

/// How a resource names its patient where it does so by no `Patient/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Not at all.
    None,
    /// By system and value of an identifier: a logical reference (R4, section 2.3.0.2).
    Identifier(String, String),
    /// By an identifier that lacks its system or value.
    PartOfIdentifier,
    /// By a resource within this one, which bears no id of its own.
    Contained,
    /// By a search, `Patient?identifier=…`.
    Search,
}

impl Naming {
    fn of(reference: &Reference<'_>) -> Naming {
        match (reference.reference.as_deref(), reference.identifier) {
            (Some(text), _) if text.starts_with('#') => Naming::Contained,
            (Some(text), _) if text.contains('?') => Naming::Search,
            (None, Some(_)) if reference.named_type.as_deref().is_some_and(|named| named != "Patient") => Naming::None,
            (None, Some(identifier)) => match serde_json::from_str(identifier.get()) {
                Ok(Identifier { system: Some(system), value: Some(value) }) => Naming::Identifier(system, value.trim().to_owned()),
                _ => Naming::PartOfIdentifier,
            },
            _ => Naming::None,
        }
    }
}

impl Reference<'_> {
    fn patient(&self) -> Option<String> {
        let (named, id) = reference_target(self.reference.as_deref()?)?;
        let is_patient = match (named, self.named_type.as_deref()) {
            (Some(named), _) => named == "Patient",
            (None, Some(named)) => named == "Patient",
            (None, None) => true,
        };
        is_patient.then(|| id.to_owned())
    }
}

/// The elements that rules and the pull read; everything else of a resource is skipped, not parsed.
/// Text that is not JSON, or repeats one of these elements, does not deserialise.
#[derive(Deserialize)]
pub(crate) struct Head<'a> {
    #[serde(borrow, rename = "resourceType")]
    pub resource_type: Option<&'a RawValue>,
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub meta: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow)]
    patient: Option<&'a RawValue>,
    #[serde(borrow)]
    beneficiary: Option<&'a RawValue>,
    #[serde(borrow)]
    candidate: Option<&'a RawValue>,
    #[serde(borrow, rename = "for")]
    for_whom: Option<&'a RawValue>,
    #[serde(borrow)]
    individual: Option<&'a RawValue>,
    #[serde(borrow)]
    actor: Option<&'a RawValue>,
    #[serde(borrow)]
    participant: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    /// Reads the head of a resource; `None` when the text is not one JSON object.
    pub fn read(json: &'a [u8]) -> Option<Head<'a>> {
        let text = std::str::from_utf8(json).ok()?;
        if !text.trim_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// A string element, decoded.
    pub fn text(value: Option<&RawValue>) -> Option<String> {
        serde_json::from_str(value?.get()).ok()
    }

    fn element(&self, name: &str) -> Option<&'a RawValue> {
        match name {
            "subject" => self.subject,
            "patient" => self.patient,
            "beneficiary" => self.beneficiary,
            "candidate" => self.candidate,
            "for" => self.for_whom,
            "individual" => self.individual,
            "actor" => self.actor,
            "participant" => self.participant,
            _ => None,
        }
    }

    /// The patient, by the rule of `resource_type`.
    pub fn patient(&self, resource_type: &str) -> Option<String> {
        match rule(resource_type)?.0 {
            Rule::Itself => Head::text(self.id).filter(|id| is_id(id)),
            Rule::At(name) => first_patient(self.element(name)?.get()),
            Rule::Within(list, name) => {
                let items: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(self.element(list)?.get()).ok()?;
                items.into_iter().filter_map(|item| item.get(name).map(ToString::to_string)).find_map(|text| first_patient(&text))
            }
        }
    }

    /// How the rule's element names the patient where it does not by `Patient/id`; of several references the first that says anything.
    pub fn naming(&self, resource_type: &str) -> Naming {
        let Some((Rule::At(name), _)) = rule(resource_type) else { return Naming::None };
        let found = self.element(name).and_then(|value| references(value.get())).unwrap_or_default();
        found.iter().map(Naming::of).find(|naming| *naming != Naming::None).unwrap_or(Naming::None)
    }

    /// True for a type that belongs to a patient when the rule's element is not there at all.
    pub fn names_nobody(&self, resource_type: &str) -> bool {
        match rule(resource_type) {
            Some((Rule::At(name) | Rule::Within(name, _), _)) => self.element(name).is_none(),
            _ => false,
        }
    }

    /// True when the rule's element is present at all, whoever it names.
    pub fn names_somebody(&self, resource_type: &str) -> bool {
        match rule(resource_type) {
            Some((Rule::Itself, _)) => true,
            Some((Rule::At(name) | Rule::Within(name, _), _)) => self
                .element(name)
                .and_then(|value| references(value.get()))
                .is_some_and(|found| found.iter().any(|one| one.reference.as_deref().and_then(reference_target).is_some())),
            None => false,
        }
    }
}

/// A resource that names its patient by an identifier, with the reference to him beside that.
pub fn refer(json: &[u8], patient: &str) -> Option<Vec<u8>> {
    use serde_json::{Map, Value};
    let mut resource: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let Rule::At(name) = rule(resource.get("resourceType")?.as_str()?)?.0 else { return None };
    let element = match resource.get_mut(name)? {
        Value::Array(items) => items.iter_mut().find(|item| item.get("identifier").is_some() && item.get("reference").is_none())?,
        element => element,
    };
    element.as_object_mut()?.insert("reference".to_owned(), Value::from(format!("Patient/{patient}")));
    Some(Value::Object(resource).to_string().into_bytes())
}

/// One reference, or a list of them.
fn references(json: &str) -> Option<Vec<Reference<'_>>> {
    if json.trim_start().starts_with('[') { serde_json::from_str(json).ok() } else { serde_json::from_str(json).ok().map(|one| vec![one]) }
}

fn first_patient(json: &str) -> Option<String> {
    references(json)?.iter().find_map(Reference::patient)
}

/// Where resources of a type name their patient, to be found in line after line without reading them.
#[derive(Clone, Debug)]
pub(crate) struct PatientElement {
    name: &'static str,
    key: Finder<'static>,
    contained: Finder<'static>,
}

impl PatientElement {
    /// Of a type whose patient stands at one element of its own.
    pub fn of(resource_type: &str) -> Option<PatientElement> {
        let Rule::At(name) = rule(resource_type)?.0 else { return None };
        Some(PatientElement { name, key: Finder::new(&format!("\"{name}\":")).into_owned(), contained: Finder::new("\"contained\"") })
    }

    /// The patient of a resource, with no look at what follows; `None` where it cannot be had so.
    pub fn patient<'j>(&self, json: &'j [u8]) -> Option<Cow<'j, str>> {
        if let Some(id) = self.only_mention(json).and_then(plain_patient) {
            return Some(Cow::Borrowed(id));
        }
        first_patient(std::str::from_utf8(field(json, self.name.as_bytes())?).ok()?).map(Cow::Owned)
    }

    /// What follows the element's name where that stands only once, so that it is the resource's own: none of R4's types has
    /// another element of this name, but a contained resource may. (In a text its quotes would be escaped.)
    fn only_mention<'j>(&self, json: &'j [u8]) -> Option<&'j [u8]> {
        let value = json.get(self.key.find(json)? + self.key.needle().len()..)?;
        (self.key.find(value).is_none() && self.contained.find(json).is_none()).then_some(value)
    }
}

/// The id in a reference as nearly every server writes it.
fn plain_patient(value: &[u8]) -> Option<&str> {
    let rest = value.strip_prefix(b"{\"reference\":\"Patient/")?;
    std::str::from_utf8(rest.get(..memchr::memchr(b'"', rest)?)?).ok().filter(|id| is_id(id))
}

/// The text of a field's value in an object; `None` where it is not found. What is passed over is not checked: whoever reads
/// the line as a whole does.
fn field<'j>(object: &'j [u8], name: &[u8]) -> Option<&'j [u8]> {
    let mut rest = object.strip_prefix(b"{")?.trim_ascii_start();
    loop {
        let (key, after) = rest.split_at_checked(string_length(rest)?)?;
        let value = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let (value, after) = value.split_at_checked(value_length(value)?)?;
        if key.get(1..key.len() - 1) == Some(name) {
            return Some(value);
        }
        rest = after.trim_ascii_start().strip_prefix(b",")?.trim_ascii_start();
    }
}

/// How long the string is that text begins with, its quotes included.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = text.first().filter(|byte| **byte == b'"').map(|_| 1)?;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)? + 1;
        if text.get(at - 1) == Some(&b'"') {
            return Some(at);
        }
        at += 1;
    }
}

/// How long the value is that text begins with.
fn value_length(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at += string_length(text.get(at..)?)? - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 && (matches!(text.get(at - 1)?, b'"' | b'}' | b']') || matches!(text.get(at), Some(b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))) {
            return Some(at);
        }
    }
}

/// The bare id of the patient a resource belongs to; `None` when it belongs to none, or cannot be read.
///
/// ```
/// use watershed::fhir::compartment::patient_of;
///
/// let visit = br#"{"resourceType":"Encounter","id":"e1","subject":{"reference":"https://ehr.example.org/fhir/Patient/p1/_history/2"}}"#;
/// assert_eq!(patient_of("Encounter", visit).as_deref(), Some("p1"));
/// ```
pub fn patient_of(resource_type: &str, json: &[u8]) -> Option<String> {
    Head::read(json)?.patient(resource_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_sorted_for_the_search() {
        assert!(RULES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_quick_look_finds_the_patient_that_the_rule_names() {
        let cases = [
            (r#"{"resourceType":"Encounter","id":"e","subject":{"reference":"Patient/p1"}}"#, Some("p1")),
            (r#"{"subject":{"reference":"Patient\/p1","display":"x"},"resourceType":"Encounter""#, Some("p1")),
            (r#"{"contained":[{"subject":{"reference":"Patient/other"}}], "subject" : [{"reference":"Group/g"},{"reference":"Patient/p1"}]}"#, Some("p1")),
            (r#"{"resourceType":"Encounter","id":"e"}"#, None),
            (r#"{"subject":{"reference":"Group/g"}}"#, None),
            (r#"{"subject":{"reference":"Patient/p1"#, None),
            (r#"{"contained":[{"resourceType":"Basic","subject":{"reference":"Patient/other"}}],"id":"e"}"#, None),
            (r#"{"text":{"div":"\"subject\":{\"reference\":\"Patient/other\"}"},"subject":{"reference":"Patient/p1","type":"Patient"}}"#, Some("p1")),
            (r#"{"subject":{"reference":"Patient/"}}"#, None),
            ("[]", None),
        ];
        for (json, expected) in cases {
            assert_eq!(PatientElement::of("Encounter").unwrap().patient(json.as_bytes()).as_deref(), expected, "{json}");
        }
        assert!(PatientElement::of("Patient").is_none(), "the id decides");
    }

    #[test]
    fn references_in_all_spellings() {
        let cases = [
            ("Patient/p1", Some((Some("Patient"), "p1"))),
            ("https://ehr.example/fhir/Patient/p1", Some((Some("Patient"), "p1"))),
            ("Patient/p1/_history/3", Some((Some("Patient"), "p1"))),
            ("https://ehr.example/fhir/Patient/p1/_history/3", Some((Some("Patient"), "p1"))),
            ("urn:uuid:6e2f1a6c-0000-4000-8000-000000000001", Some((None, "6e2f1a6c-0000-4000-8000-000000000001"))),
            ("#p1", None),
            ("p1", None),
            ("", None),
            ("Patient/", None),
            ("Patient/a b", None),
            ("Patient?identifier=x|1", None),
            ("patient/p1", None),
        ];
        for (reference, expected) in cases {
            assert_eq!(reference_target(reference), expected, "{reference}");
        }
    }

    #[test]
    fn whose_resource_it_is() {
        let cases = [
            ("Patient", r#"{"resourceType":"Patient","id":"p1"}"#, Some("p1")),
            ("Observation", r#"{"subject":{"reference":"Patient/p1"}}"#, Some("p1")),
            ("Observation", r#"{"subject":{"reference":"urn:uuid:p1"}}"#, Some("p1")),
            ("Observation", r#"{"subject":{"reference":"Location/l1"}}"#, None),
            ("Observation", r#"{"patient":{"reference":"Patient/p1"}}"#, None),
            ("Coverage", r#"{"beneficiary":{"reference":"https://h/Patient/p1/_history/2"}}"#, Some("p1")),
            ("Device", r#"{"patient":{"reference":"Patient/p1"}}"#, Some("p1")),
            ("Task", r#"{"for":{"reference":"Patient/p1"},"focus":{"reference":"Patient/p2"}}"#, Some("p1")),
            ("Task", r#"{"focus":{"reference":"ServiceRequest/s1"}}"#, None),
            ("Account", r#"{"subject":[{"reference":"Device/d"},{"reference":"Patient/p1"}]}"#, Some("p1")),
            ("Appointment", r#"{"participant":[{"actor":{"reference":"Location/l"}},{"actor":{"reference":"Patient/p1"}}]}"#, Some("p1")),
            ("Location", r#"{"id":"l1"}"#, None),
            ("Observation", r#"{"subject":{"display":"only"}}"#, None),
            ("Observation", r#"{"subject":{"reference":"Patient/p1"},"subject":{"reference":"Patient/p2"}}"#, None),
            ("Observation", r#"[]"#, None),
            ("Observation", "\u{feff}", None),
        ];
        for (resource_type, json, expected) in cases {
            assert_eq!(patient_of(resource_type, json.as_bytes()).as_deref(), expected, "{json}");
        }
    }
}
