//! Modifier extensions: they may turn the meaning of what they stand in round. FHIR R4, section 2.4.1: who does not understand one
//! must not use the element that has it.

use serde_json::Value;

/// Why a resource with one is left out, for people.
pub const REASON: &str = "a modifier that is not known here";

/// The name of their list. In a text the quotation marks would be escaped.
const NAME: &[u8] = br#""modifierExtension""#;

/// Modifiers that say of something that it is not to be done: in QI-Core 4.1.1 and 6.0.0, and as FHIR R5 has it in R4.
const KNOWN: [&str; 2] =
    ["http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform", "http://hl7.org/fhir/5.0/StructureDefinition/extension-DeviceRequest.doNotPerform"];

/// Whether something in a resource is turned round, or may be: by a modifier that is not known here, or by one that is and is not
/// false.
///
/// ```
/// use watershed::fhir::modifier::turns_round;
///
/// let with = |url: &str, value: bool| format!(r#"{{"resourceType":"DeviceRequest","modifierExtension":[{{"url":"{url}","valueBoolean":{value}}}]}}"#);
/// let not_to_be_done = "http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform";
/// assert!(turns_round(with("urn:x", false).as_bytes()) && turns_round(with(not_to_be_done, true).as_bytes()));
/// assert!(!turns_round(with(not_to_be_done, false).as_bytes()) && !turns_round(br#"{"resourceType":"DeviceRequest"}"#));
/// ```
pub fn turns_round(json: &[u8]) -> bool {
    memchr::memmem::find(json, NAME).is_some() && serde_json::from_slice(json).map_or(true, |resource| has_any(&resource))
}

fn has_any(resource: &Value) -> bool {
    let mut waiting = vec![resource];
    while let Some(value) = waiting.pop() {
        let modifiers = value.get("modifierExtension").and_then(Value::as_array);
        if !modifiers.into_iter().flatten().all(is_harmless) {
            return true;
        }
        match value {
            Value::Array(items) => waiting.extend(items),
            Value::Object(members) => waiting.extend(members.values()),
            _ => {}
        }
    }
    false
}

fn is_harmless(modifier: &Value) -> bool {
    let is_known = modifier.get("url").and_then(Value::as_str).is_some_and(|url| KNOWN.contains(&url));
    is_known && modifier.get("valueBoolean") == Some(&Value::Bool(false))
}
