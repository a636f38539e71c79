//! Names of well-known code systems, and which of them was meant by a name that nobody else uses.
//!
//! FHIR R4 says how each is named ("Using Code Systems", hl7.org/fhir/R4/terminologies-systems.html). A code under another spelling of
//! the same name equals none that a server sends, and nothing is wrong with it to the eye.

use crate::diagnostic::Diagnostic;

/// The name that FHIR gives to a system, its OID, and what else it is called.
type Known = (&'static str, &'static [&'static str]);

const KNOWN: &[Known] = &[
    (
        "http://snomed.info/sct",
        &["2.16.840.1.113883.6.96", "SNOMED", "SNOMED CT", "snomed.info", "snomed.org/sct", "hl7.org/fhir/sid/snomed", "hl7.org/fhir/sid/snomed-ct"],
    ),
    ("http://loinc.org", &["2.16.840.1.113883.6.1", "LOINC", "loinc.com", "hl7.org/fhir/sid/loinc"]),
    ("http://unitsofmeasure.org", &["2.16.840.1.113883.6.8", "UCUM", "ucum.org", "hl7.org/fhir/sid/ucum"]),
    ("http://www.nlm.nih.gov/research/umls/rxnorm", &["2.16.840.1.113883.6.88", "RxNorm", "rxnorm.info", "hl7.org/fhir/sid/rxnorm"]),
    ("http://hl7.org/fhir/sid/icd-10-cm", &["2.16.840.1.113883.6.90", "ICD-10-CM", "hl7.org/fhir/sid/icd-10-us"]),
    ("http://hl7.org/fhir/sid/icd-10", &["2.16.840.1.113883.6.3", "ICD-10"]),
    ("http://hl7.org/fhir/sid/icd-9-cm", &["2.16.840.1.113883.6.103", "2.16.840.1.113883.6.104", "ICD-9-CM"]),
    ("http://www.cms.gov/Medicare/Coding/ICD10", &["2.16.840.1.113883.6.4", "ICD-10-PCS", "hl7.org/fhir/sid/icd-10-pcs"]),
    ("http://www.ama-assn.org/go/cpt", &["2.16.840.1.113883.6.12", "CPT", "ama-assn.org/cpt", "hl7.org/fhir/sid/cpt"]),
    ("http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets", &["2.16.840.1.113883.6.285", "HCPCS", "hl7.org/fhir/sid/hcpcs"]),
    ("http://hl7.org/fhir/sid/cvx", &["2.16.840.1.113883.12.292", "CVX"]),
    ("http://hl7.org/fhir/sid/mvx", &["2.16.840.1.113883.12.227", "MVX"]),
    ("http://hl7.org/fhir/sid/ndc", &["2.16.840.1.113883.6.69", "NDC"]),
    ("http://fdasis.nlm.nih.gov", &["2.16.840.1.113883.4.9", "UNII"]),
    ("http://va.gov/terminology/medrt", &["2.16.840.1.113883.6.345", "MED-RT"]),
    ("http://ncimeta.nci.nih.gov", &["2.16.840.1.113883.3.26.1.2"]),
    ("http://nucc.org/provider-taxonomy", &["2.16.840.1.113883.6.101"]),
    ("http://www.ada.org/cdt", &["2.16.840.1.113883.6.13", "CDT"]),
    ("http://www.whocc.no/atc", &["2.16.840.1.113883.6.73", "ATC"]),
    ("http://www.genenames.org", &["2.16.840.1.113883.6.281", "HGNC"]),
    ("http://dicom.nema.org/resources/ontology/DCM", &["1.2.840.10008.2.16.4"]),
    ("urn:oid:2.16.840.1.113883.6.238", &["CDCREC"]),
];

/// ICD-10 and its revision for the United States, whose codes have a point after the third character.
const ICD_10: [&str; 2] = ["http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-10"];

/// Whether FHIR names a system so.
pub fn is_known(system: &str) -> bool {
    KNOWN.iter().any(|(name, _)| *name == system)
}

/// What is to be said of the name of a code system that is probably a misspelling.
pub fn misspelled(system: &str) -> Option<Diagnostic> {
    let meant = meant(system)?;
    let finding = Diagnostic::warning(format!("`{system}` is not how FHIR names this code system, and codes under two names are never equal"));
    Some(finding.help(format!("did you mean `{meant}`?")))
}

/// What is to be said of a code that begins or ends with a blank, which no code of FHIR does.
pub fn padded(code: &str) -> Option<Diagnostic> {
    let is_padded = code.trim() != code;
    is_padded.then(|| Diagnostic::error(format!("the code `{code}` has blanks around it: no record has such a code")).help(format!("write `{}`", code.trim())))
}

/// What is to be said of a code that cannot be one of its system as it is written: empty, or of ICD-10 without its point.
pub fn malformed(system: &str, code: &str) -> Option<Diagnostic> {
    if code.is_empty() {
        return Some(Diagnostic::warning(format!("a code of `{system}` is empty: no record has it")).help("write the code, or leave the entry out"));
    }
    let meant = meant(system);
    let is_icd_10 = ICD_10.contains(&meant.as_deref().unwrap_or(system));
    // A letter, a digit, and one more; then a point, and one to four.
    let is_joined = (4..=7).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_category = matches!(code.as_bytes(), [b'A'..=b'Z', b'0'..=b'9', ..]);
    let (category, rest) = code.split_at_checked(3).filter(|_| is_icd_10 && is_joined && is_category)?;
    let finding = Diagnostic::warning(format!("the code `{code}` of ICD-10 has no point: no record that is coded as FHIR asks for it has it"));
    Some(finding.help(format!("write `{category}.{rest}`")))
}

/// How a system of FHIR is named that is meant by this name; `None` for a name that is right, or of which nothing is known.
///
/// ```
/// use watershed::terminology::systems::meant;
///
/// assert_eq!(meant("http://hl7.org/fhir/sid/icd10cm").as_deref(), Some("http://hl7.org/fhir/sid/icd-10-cm"));
/// assert_eq!(meant("http://hl7.org/fhir/sid/icd-10-cm"), None);
/// assert_eq!(meant("http://hospital.example/codes"), None);
/// ```
pub fn meant(system: &str) -> Option<String> {
    if is_known(system) {
        return None;
    }
    // SNOMED CT's editions are versions, and no systems.
    let whole = system.trim();
    let base = if letters(whole).starts_with("snomedinfosct") { KNOWN.first().map_or(whole, |(name, _)| name) } else { whole };
    let own = letters(base);
    let known = KNOWN.iter().find(|(name, others)| letters(name) == own || others.iter().any(|other| letters(other) == own));
    known.map(|(name, _)| (*name).to_owned()).or_else(|| of_version_3(whole)).or_else(|| {
        let oid = whole.strip_prefix("http://").unwrap_or(whole);
        let oid = oid.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("urn:oid:")).and_then(|_| oid.get(8..)).unwrap_or(whole);
        let right = if is_oid(oid) { format!("urn:oid:{oid}") } else { whole.to_owned() };
        (right != system).then_some(right)
    })
}

/// Whether two names are spellings of one: with and without a scheme, a stroke at the end or `urn:oid:`, in other letters.
pub fn alike(one: &str, other: &str) -> bool {
    letters(one.trim()) == letters(other.trim())
}

/// The letters and digits of a name, without how it is to be fetched: what two spellings of it have in common.
fn letters(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let name = ["https://", "http://urn:oid:", "http://", "urn:oid:"]
        .iter()
        .find_map(|scheme| name.strip_prefix(scheme))
        .unwrap_or(&name);
    let name = name.strip_prefix("www.").unwrap_or(name);
    // An OID is its dots.
    if is_oid(name) { name.to_owned() } else { name.chars().filter(char::is_ascii_alphanumeric).collect() }
}

fn is_oid(name: &str) -> bool {
    name.matches('.').count() >= 3 && name.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// HL7's tables, which lived elsewhere until R4: `http://hl7.org/fhir/v3/ActCode`, `http://hl7.org/fhir/v2/0203`.
fn of_version_3(system: &str) -> Option<String> {
    let rest = ["http://hl7.org/fhir/", "https://hl7.org/fhir/", "https://terminology.hl7.org/CodeSystem/", "http://terminology.hl7.org/CodeSystem/"]
        .iter()
        .find_map(|base| system.strip_prefix(base))?
        .trim_end_matches('/');
    let (version, table) = rest.split_at_checked(3)?;
    let is_table = matches!(version, "v2/" | "v3/" | "v2-" | "v3-") && !table.is_empty() && !table.contains('/');
    let right = format!("http://terminology.hl7.org/CodeSystem/{}-{table}", version.get(..2)?);
    (is_table && right != system).then_some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_are_none_of_their_system_are_told_with_the_right_form() {
        let of = |system: &str, code: &str| malformed(system, code).and_then(|finding| finding.help);
        let icd = "http://hl7.org/fhir/sid/icd-10-cm";
        assert_eq!(of(icd, "D5700").as_deref(), Some("write `D57.00`"));
        assert_eq!(of("urn:oid:2.16.840.1.113883.6.90", "S72001A").as_deref(), Some("write `S72.001A`"));
        assert_eq!(of("http://loinc.org", "").as_deref(), Some("write the code, or leave the entry out"));
        for (system, code) in [(icd, "D57.00"), (icd, "I10"), ("http://www.cms.gov/Medicare/Coding/ICD10", "0DB64Z3"), ("http://local", "D5700")] {
            assert_eq!(of(system, code), None, "{code}");
        }
    }

    #[test]
    fn misspelled_names_are_told_and_right_ones_are_not() {
        let icd = Some("http://hl7.org/fhir/sid/icd-10-cm");
        let table = [
            ("http://hl7.org/fhir/sid/icd10cm", icd),
            ("http://hl7.org/fhir/sid/ICD-10-CM/", icd),
            ("2.16.840.1.113883.6.90", icd),
            ("urn:oid:2.16.840.1.113883.6.90", icd),
            ("ICD-10-CM", icd),
            ("http://snomed.info/sct/", Some("http://snomed.info/sct")),
            ("http://snomed.info/sct/731000124108", Some("http://snomed.info/sct")),
            ("https://snomed.info/sct", Some("http://snomed.info/sct")),
            ("http://loinc.org/", Some("http://loinc.org")),
            ("http://www.loinc.org", Some("http://loinc.org")),
            (" http://loinc.org", Some("http://loinc.org")),
            ("http://hl7.org/fhir/v3/ActCode", Some("http://terminology.hl7.org/CodeSystem/v3-ActCode")),
            ("https://terminology.hl7.org/CodeSystem/v2-0203", Some("http://terminology.hl7.org/CodeSystem/v2-0203")),
            ("1.2.840.114350.1.13.861.1.7.2.727688", Some("urn:oid:1.2.840.114350.1.13.861.1.7.2.727688")),
            ("http://hospital.example/codes ", Some("http://hospital.example/codes")),
            ("urn:OID:1.2.840.114350.1.13.861", Some("urn:oid:1.2.840.114350.1.13.861")),
            ("urn:OID:2.16.840.1.113883.6.1", Some("http://loinc.org")),
            ("http://urn:oid:2.16.840.1.113883.6.96", Some("http://snomed.info/sct")),
            ("http://urn:oid:1.2.840.114350.1.13.861", Some("urn:oid:1.2.840.114350.1.13.861")),
            // Another one each: nothing is known of them.
            ("http://hl7.org/fhir/sid/icd-10-gm", None),
            ("http://hl7.org/fhir/sid/icd-10", None),
            ("urn:oid:2.16.840.1.113883.6.238", None),
            ("urn:oid:1.2.840.114350.1.13.861.1.7.2.727688", None),
            ("http://terminology.hl7.org/CodeSystem/v3-ActCode", None),
            ("http://hospital.example/codes", None),
            ("https://nahdo.org/sopt", None),
        ];
        for (system, expected) in table {
            assert_eq!(meant(system).as_deref(), expected, "{system}");
        }
        for (name, _) in KNOWN {
            assert_eq!(meant(name), None, "{name}");
        }
    }
}
