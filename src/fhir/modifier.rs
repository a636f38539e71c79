//! Modifier extensions: they may turn the meaning of what they stand in round. FHIR R4, section 2.4.1: who does not understand one
//! must not use the element that has it.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::Value;

/// Why a resource with one is left out, for people.
pub const REASON: &str = "a modifier that is not known here";

/// The name of their list. In a text the quotation marks would be escaped.
static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""modifierExtension""#));

/// What HL7's modifiers are called that say of something that it is not to be done, or was not, in lower case: in QI-Core, as published
/// test cases misspell it, and as FHIR R5 has it in R4.
const KNOWN: [&str; 4] = ["qicore-donotperform", "qicore-donotpeform", "qicore-notdone", "extension-devicerequest.donotperform"];
const HL7: &str = "http://hl7.org/fhir/";

/// Whether something in a resource is turned round, or may be: by a modifier that is not known here, or by one that is and stands
/// within. One that says so of the whole resource is left to the models of the measures, which tell what is not to be done from what is.
///
/// ```
/// use watershed::fhir::modifier::turns_round;
///
/// let with = |url: &str, value: bool| format!(r#"{{"resourceType":"DeviceRequest","modifierExtension":[{{"url":"{url}","valueBoolean":{value}}}]}}"#);
/// let not_to_be_done = "http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform";
/// assert!(turns_round(with("urn:x", false).as_bytes()));
/// assert!(!turns_round(with(not_to_be_done, true).as_bytes()) && !turns_round(br#"{"resourceType":"DeviceRequest"}"#));
/// let within = format!(r#"{{"resourceType":"CarePlan","activity":[{}]}}"#, with(not_to_be_done, true));
/// assert!(turns_round(within.as_bytes()));
/// ```
pub fn turns_round(json: &[u8]) -> bool {
    NAME.find(json).is_some() && serde_json::from_slice(json).map_or(true, |resource| has_any(&resource))
}

fn has_any(resource: &Value) -> bool {
    let mut waiting = vec![(resource, true)];
    while let Some((value, is_whole)) = waiting.pop() {
        let modifiers = value.get("modifierExtension").and_then(Value::as_array);
        if !modifiers.into_iter().flatten().all(|modifier| is_harmless(modifier, is_whole)) {
            return true;
        }
        match value {
            Value::Array(items) => waiting.extend(items.iter().map(|item| (item, false))),
            Value::Object(members) => waiting.extend(members.values().map(|member| (member, false))),
            _ => {}
        }
    }
    false
}

fn is_harmless(modifier: &Value, is_of_the_whole: bool) -> bool {
    let name = modifier.get("url").and_then(Value::as_str).map(str::to_ascii_lowercase);
    let name = name.as_deref().and_then(|url| url.strip_prefix(HL7)?.rsplit('/').next());
    let value = modifier.get("valueBoolean").and_then(Value::as_bool);
    name.is_some_and(|name| KNOWN.contains(&name)) && value.is_some_and(|value| is_of_the_whole || !value)
}
