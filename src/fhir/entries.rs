//! What a Bundle calls its entries by: references that mean something in this Bundle only, put as what they mean everywhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use memchr::memmem;

use super::compartment::{Head, is_id};

/// The key of a reference's target.
const REFERENCE: &[u8] = b"\"reference\"";

/// The entries that are called by a `urn:uuid:` or `urn:oid:`, each with its `Type/id`. What another `fullUrl` says must be the entry's
/// `Type/id` (R4, `Bundle.entry.fullUrl`), and needs no other words.
#[derive(Debug, Default)]
pub struct Entries {
    targets: BTreeMap<String, String>,
}

impl Entries {
    /// Of each entry's `fullUrl` and resource.
    pub fn of<'e>(entries: impl Iterator<Item = (Cow<'e, str>, &'e str)>) -> Entries {
        let target = |json: &str| {
            let head = Head::read(json.as_bytes())?;
            let named = Head::text(head.resource_type).filter(|name| name.bytes().all(|byte| byte.is_ascii_alphabetic()))?;
            Some(format!("{named}/{}", Head::text(head.id).filter(|id| is_id(id))?))
        };
        let called = entries.filter(|(url, _)| url.starts_with("urn:"));
        Entries { targets: called.filter_map(|(url, json)| Some((url.into_owned(), target(json)?))).collect() }
    }

    /// A resource of the Bundle whose references to entries are `Type/id`. One without any is left as it is, byte by byte.
    pub fn resolve<'j>(&self, json: &'j [u8]) -> Cow<'j, [u8]> {
        if self.targets.is_empty() {
            return Cow::Borrowed(json);
        }
        let (mut resolved, mut done) = (Vec::new(), 0);
        for at in memmem::find_iter(json, REFERENCE) {
            let Some((place, target)) = self.target(json, at) else { continue };
            resolved.extend_from_slice(json.get(done..place.start).unwrap_or_default());
            resolved.extend_from_slice(format!("\"{target}\"").as_bytes());
            done = place.end;
        }
        if done == 0 {
            return Cow::Borrowed(json);
        }
        resolved.extend_from_slice(json.get(done..).unwrap_or_default());
        Cow::Owned(resolved)
    }

    /// Where the value of the key at a place stands, and which entry it names.
    fn target(&self, json: &[u8], key: usize) -> Option<(Range<usize>, &str)> {
        // The end of a text whose last word is quoted is no key.
        if key.checked_sub(1).and_then(|before| json.get(before)) == Some(&b'\\') {
            return None;
        }
        let value = json.get(key + REFERENCE.len()..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let start = json.len() - value.len();
        let mut values = serde_json::Deserializer::from_slice(value).into_iter::<String>();
        let named = values.next()?.ok()?;
        Some((start..start + values.byte_offset(), self.targets.get(&named)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_to_an_entry_says_which_it_is_and_nothing_else_changes() {
        let entries = [
            ("urn:uuid:a", r#"{"resourceType":"Patient","id":"p1"}"#),
            ("urn:oid:1.2", r#"{"id":"l1","resourceType":"Location"}"#),
            ("urn:uuid:nameless", r#"{"resourceType":"Encounter"}"#),
            ("http://ehr/Encounter/e1", r#"{"resourceType":"Encounter","id":"e1"}"#),
        ];
        let entries = Entries::of(entries.iter().map(|(url, json)| (Cow::Borrowed(*url), *json)));
        let cases = [
            (r#"{"subject":{"reference":"urn:uuid:a"}}"#, r#"{"subject":{"reference":"Patient/p1"}}"#),
            (
                r#"{"s": {"reference" : "urn:uuid:\u0061" , "display":"x"},"location":[{"location":{"reference":"urn:oid:1.2"}}]}"#,
                r#"{"s": {"reference" : "Patient/p1" , "display":"x"},"location":[{"location":{"reference":"Location/l1"}}]}"#,
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(String::from_utf8(entries.resolve(json.as_bytes()).into_owned()).unwrap(), expected);
        }
        let same = [
            r#"{"reference":"urn:uuid:b"}"#,
            r#"{"reference":"urn:uuid:nameless"}"#,
            r#"{"reference":"http://ehr/Encounter/e1"}"#,
            r#"{"text":"urn:uuid:a","reference":{"reference":7}}"#,
            r#"{"text":"a \"reference","b":"\"reference\": \"urn:uuid:a\""}"#,
            r#"{"reference":"urn:uuid:a"#,
        ];
        for json in same {
            assert!(matches!(entries.resolve(json.as_bytes()), Cow::Borrowed(_)), "{json}");
        }
    }
}
