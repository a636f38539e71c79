//! The gate: each received resource is accepted with what must be known of it, or refused with a reason.

use crate::fhir::compartment::{Head, Naming, is_id, misspelt, patient_required};
use crate::fhir::modifier;
use crate::fhir::ndjson::LINE_BYTES_MAX;
use crate::fhir::resource_type;
use crate::snapshot::{Header, Incoming};
use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Deepest nesting of objects and arrays; real resources stay below 20.
const DEPTH_MAX: usize = 64;

/// Why a resource was refused; the text is stored and shown, and holds nothing of the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Not one JSON object in UTF-8, or an element given twice.
    NotJson,
    /// Longer than the limit.
    TooLong,
    /// Nested deeper than the limit.
    TooDeep,
    /// No `resourceType`, or none that FHIR has.
    NoType,
    /// No `id`, or not an id by FHIR's rules.
    BadId,
    /// No `id`, of what may hold resources that have one.
    Holder,
    /// A type that was not asked for.
    Unrequested,
    /// A type that FHIR does not have, and that is nearly one that was asked for.
    Misspelt,
    /// No reference to a patient, where the type cannot do without.
    NoPatient,
    /// In its place an identifier that no patient has who is known here.
    Identifier,
    /// One that several have.
    SeveralIdentified,
    /// One without system or value.
    PartOfIdentifier,
    /// A contained resource.
    Contained,
    /// A search.
    Search,
    /// A Bundle entry without a resource.
    NoResource,
    /// A line of deletions that names something else.
    NotDeletion,
    /// A modifier extension, which may turn the meaning of what it stands in round; none is known here.
    Modified,
}

impl Reason {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Reason::NotJson => "not one JSON object in UTF-8",
            Reason::TooLong => "longer than 16 MiB",
            Reason::TooDeep => "nested deeper than 64 levels",
            Reason::NoType => "no resourceType, or none of FHIR's",
            Reason::BadId => "no id, or not an id by FHIR's rules",
            Reason::Holder => "a Parameters resource, which may hold others: have each written as a line of its own",
            Reason::Unrequested => "a type that was not asked for",
            Reason::Misspelt => "FHIR has no such resourceType, and this type's name is near",
            Reason::NoPatient => "no reference to a patient",
            Reason::Identifier => "its patient is named by an identifier that no patient here has: let the source write `Patient/id`, or send the patient with it",
            Reason::SeveralIdentified => "its patient is named by an identifier that several patients here have: let the source write `Patient/id`",
            Reason::PartOfIdentifier => "its patient is named by an identifier without a system or a value: let the source write `Patient/id`",
            Reason::Contained => "its patient is named by a contained resource, which bears no id: let the source write `Patient/id`",
            Reason::Search => "its patient is named by a search (`Patient?…`): let the source write `Patient/id`",
            Reason::NoResource => "an entry without a resource",
            Reason::NotDeletion => "not a Bundle of deletions by type and id",
            Reason::Modified => modifier::REASON,
        }
    }
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(rename = "versionId")]
    version: Option<serde_json::Value>,
    #[serde(rename = "lastUpdated")]
    updated: Option<serde_json::Value>,
}

/// Whether a resource names its patient by an identifier only.
pub fn is_identified(incoming: &Incoming) -> bool {
    let naming = || Some(Head::read(&incoming.json)?.naming(&incoming.header.resource_type));
    incoming.header.patient.is_empty() && matches!(naming(), Some(Naming::Identifier(..)))
}

/// Why it cannot be told whose a resource is; none where an identifier may tell it.
pub fn unnamed(naming: &Naming) -> Option<Reason> {
    match naming {
        Naming::Identifier(..) => None,
        Naming::None => Some(Reason::NoPatient),
        Naming::PartOfIdentifier => Some(Reason::PartOfIdentifier),
        Naming::Contained => Some(Reason::Contained),
        Naming::Search => Some(Reason::Search),
    }
}

/// Judges one resource. `types` are those that may be stored. Whose one is that names its patient by an identifier is seen later.
/// The refusal carries the type where it could be read, or which was probably meant.
pub fn judge(json: &[u8], types: &BTreeSet<String>) -> Result<Incoming, (Reason, Option<String>)> {
    if json.len() > LINE_BYTES_MAX {
        return Err((Reason::TooLong, None));
    }
    let compact = compact(json).ok_or((Reason::TooDeep, None))?;
    let head = Head::read(&compact).ok_or((Reason::NotJson, None))?;
    let named = Head::text(head.resource_type).filter(|name| !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let resource_type = named.ok_or((Reason::NoType, None))?;
    let refuse = |reason| Err((reason, Some(resource_type.clone())));
    let Some(id) = Head::text(head.id).filter(|id| is_id(id)) else {
        return refuse(if resource_type == "Parameters" { Reason::Holder } else { Reason::BadId });
    };
    if !types.contains(&resource_type) {
        let meant = misspelt(&resource_type, types.iter().map(String::as_str));
        return match meant {
            Some(meant) => Err((Reason::Misspelt, Some(meant.to_owned()))),
            None if resource_type::is_one(&resource_type) => refuse(Reason::Unrequested),
            None => Err((Reason::NoType, None)),
        };
    }
    if modifier::turns_round(&compact) {
        return refuse(Reason::Modified);
    }
    let patient = head.patient(&resource_type);
    if patient.is_none()
        && patient_required(&resource_type)
        && !head.names_somebody(&resource_type)
        && let Some(reason) = unnamed(&head.naming(&resource_type))
    {
        return refuse(reason);
    }
    let meta: Meta = head.meta.and_then(|meta| serde_json::from_str(meta.get()).ok()).unwrap_or_default();
    let text = |value: &Option<serde_json::Value>| value.as_ref().and_then(|value| value.as_str().map(str::to_owned));
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest::digest(&digest::SHA256, &compact).as_ref()).for_each(|(to, from)| *to = *from);
    let header = Header {
        id,
        patient: patient.unwrap_or_default(),
        version: text(&meta.version).and_then(|version| version.parse().ok()),
        updated: text(&meta.updated).and_then(|updated| updated.parse::<Timestamp>().ok()).map(Timestamp::as_microsecond),
        hash,
        removed: false,
        import: String::new(),
        resource_type,
    };
    Ok(Incoming { header, json: compact })
}

/// Names a resource by its content, where the server makes up an id at each request: what stays equal stays the same
/// resource.
pub fn by_content(incoming: &mut Incoming) {
    let Ok(mut resource) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&incoming.json) else { return };
    ["id", "meta"].iter().for_each(|name| drop(resource.shift_remove(*name)));
    let content = serde_json::Value::Object(resource).to_string();
    let hash = digest::digest(&digest::SHA256, content.as_bytes());
    incoming.header.hash.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    incoming.header.id = crate::store::sha256_hex(content.as_bytes());
}

/// A tombstone.
pub fn tombstone(resource_type: &str, id: &str) -> Incoming {
    let header = Header {
        resource_type: resource_type.to_owned(),
        id: id.to_owned(),
        patient: String::new(),
        version: None,
        updated: None,
        hash: [0; 32],
        removed: true,
        import: String::new(),
    };
    Incoming { header, json: Vec::new() }
}

/// JSON without white space between its tokens, so that equal resources are equal bytes however a server prints them.
/// `None` when nested too deep. Validity is not judged here.
fn compact(json: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0usize);
    for &byte in json {
        if in_string {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return None;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        out.push(byte);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn types() -> BTreeSet<String> {
        ["Patient", "Observation", "Location"].map(str::to_owned).into()
    }

    #[test]
    fn what_is_refused_and_why() {
        let deep = format!(r#"{{"resourceType":"Patient","id":"a","x":{}{}}}"#, "[".repeat(80), "]".repeat(80));
        let cases: Vec<(&str, Option<Reason>)> = vec![
            (r#"{"resourceType":"Patient","id":"a"}"#, None),
            (r#"{ "id" : "a" , "resourceType" : "Patient" }"#, None),
            (r#"{"resourceType":"Observation","id":"a","subject":{"reference":"Patient/p"}}"#, None),
            (r#"{"resourceType":"Observation","id":"a","subject":{"reference":"Location/l"}}"#, None),
            (r#"{"resourceType":"Location","id":"a"}"#, None),
            ("", Some(Reason::NotJson)),
            ("null", Some(Reason::NotJson)),
            ("[]", Some(Reason::NotJson)),
            (r#"{"resourceType":"Patient","id":"a""#, Some(Reason::NotJson)),
            (r#"{"resourceType":"Patient","id":"a"}}"#, Some(Reason::NotJson)),
            (r#"{"resourceType":"Patient","id":"a"} {"x":1}"#, Some(Reason::NotJson)),
            (r#"{"resourceType":"Patient","id":"a","id":"b"}"#, Some(Reason::NotJson)),
            (r#"{"resourceType":"Patient","id":"a","x":.5}"#, Some(Reason::NotJson)),
            (&deep, Some(Reason::TooDeep)),
            (r#"{"id":"a"}"#, Some(Reason::NoType)),
            (r#"{"resourceType":7,"id":"a"}"#, Some(Reason::NoType)),
            (r#"{"resourceType":"../etc","id":"a"}"#, Some(Reason::NoType)),
            (r#"{"resourceType":"Patient"}"#, Some(Reason::BadId)),
            (r#"{"resourceType":"Parameters","parameter":[]}"#, Some(Reason::Holder)),
            (r#"{"resourceType":"Patient","id":""}"#, Some(Reason::BadId)),
            (r#"{"resourceType":"Patient","id":"a b"}"#, Some(Reason::BadId)),
            (r#"{"resourceType":"Patient","id":7}"#, Some(Reason::BadId)),
            (r#"{"resourceType":"Condition","id":"a"}"#, Some(Reason::Unrequested)),
            (r#"{"resourceType":"Observaton","id":"a","subject":{"reference":"Patient/p"}}"#, Some(Reason::Misspelt)),
            (r#"{"resourceType":"observation","id":"a","subject":{"reference":"Patient/p"}}"#, Some(Reason::Misspelt)),
            (r#"{"resourceType":"ObservationDefinition","id":"a"}"#, Some(Reason::Unrequested)),
            (r#"{"resourceType":"Transport","id":"a"}"#, Some(Reason::Unrequested)),
            (r#"{"resourceType":"Observation","id":"a"}"#, Some(Reason::NoPatient)),
            (r#"{"resourceType":"Patient","id":"a","modifierExtension":[{"url":"x:y"}]}"#, Some(Reason::Modified)),
            (
                r#"{"resourceType":"Patient","id":"a","modifierExtension":[{"url":"http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform","valueBoolean":false}]}"#,
                None,
            ),
            (
                r#"{"resourceType":"Patient","id":"a","modifierExtension":[{"url":"http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform","valueBoolean":true}]}"#,
                None,
            ),
            (r#"{"resourceType":"Patient","id":"a","modifierExtension":[{"url":"x:y","valueBoolean":false}]}"#, Some(Reason::Modified)),
            (r#"{"resourceType":"Patient","id":"a","contact":[{"modifierExtension" : [{"url":"x:y"}]}]}"#, Some(Reason::Modified)),
            (r#"{"resourceType":"Patient","id":"a","x":"\"modifierExtension\":[","modifierExtensions":[1]}"#, None),
            (r#"{"resourceType":"Observation","id":"a","subject":{"display":"x"}}"#, Some(Reason::NoPatient)),
            (r#"{"resourceType":"Observation","id":"a","subject":{"identifier":{"system":"s","value":"1"}}}"#, None),
            (r#"{"resourceType":"Observation","id":"a","subject":{"identifier":{"value":"1"}}}"#, Some(Reason::PartOfIdentifier)),
            (r#"{"resourceType":"Observation","id":"a","subject":{"type":"Group","identifier":{"system":"s","value":"1"}}}"#, Some(Reason::NoPatient)),
            (r##"{"resourceType":"Observation","id":"a","subject":{"reference":"#p"}}"##, Some(Reason::Contained)),
            (r#"{"resourceType":"Observation","id":"a","subject":{"reference":"Patient?identifier=s|1"}}"#, Some(Reason::Search)),
        ];
        for (json, expected) in cases {
            assert_eq!(judge(json.as_bytes(), &types()).err().map(|(reason, _)| reason), expected, "{json:.80}");
        }
    }

    #[test]
    fn printing_does_not_matter_and_numbers_stay_as_written() {
        let pretty = "{\n  \"resourceType\" : \"Patient\",\r\n \"id\":\"a\", \"x\": [ 1.0, 1.00, \"a  \\\" b\" ]\t}";
        let plain = r#"{"resourceType":"Patient","id":"a","x":[1.0,1.00,"a  \" b"]}"#;
        let (one, two) = (judge(pretty.as_bytes(), &types()).ok().unwrap(), judge(plain.as_bytes(), &types()).ok().unwrap());
        assert_eq!(one.json, plain.as_bytes());
        assert_eq!(one.header, two.header);
    }

    #[test]
    fn versions_and_times_as_far_as_they_are_usable() {
        let meta = |meta: &str| {
            let json = format!(r#"{{"resourceType":"Patient","id":"a","meta":{meta}}}"#);
            let header = judge(json.as_bytes(), &types()).ok().unwrap().header;
            (header.version, header.updated_at().map(|at| at.to_string()))
        };
        assert_eq!(meta(r#"{"versionId":"3","lastUpdated":"2026-01-02T03:04:05.123+05:30"}"#), (Some(3), Some("2026-01-01T21:34:05.123Z".to_owned())));
        assert_eq!(meta(r#"{"versionId":"a7f","lastUpdated":"yesterday"}"#), (None, None));
        assert_eq!(meta(r#"{"versionId":3,"lastUpdated":{}}"#), (None, None));
        assert_eq!(meta("[]"), (None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = judge(&bytes, &types());
        }

        #[test]
        fn a_cut_resource_is_never_accepted(cut in 0usize..90) {
            let whole = r#"{"resourceType":"Observation","id":"o","subject":{"reference":"Patient/p"},"v":[1.50,{"a":"}"}]}"#;
            prop_assert!(judge(&whole.as_bytes()[..cut.min(whole.len() - 1)], &types()).is_err());
        }
    }
}
