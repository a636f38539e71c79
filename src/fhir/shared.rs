//! Resources of no patient - Medication, Location, Organization, … - found by who refers to them.
//!
//! A patient's record is the patient's own resources and what these refer to, directly or through others. So a result does not
//! depend on whose data lie beside, and a hospital's ten thousand medications are not read again for each patient.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use memchr::memmem::Finder;

use super::compartment::reference_target;
use super::record::glance;

/// The element that every reference by address has.
const REFERENCE: &[u8] = b"\"reference\"";

/// Lines of resources of no patient.
pub struct Shared<'a> {
    /// By id; then by type, for `urn:uuid:…` names none.
    lines: HashMap<String, BTreeMap<String, Vec<&'a [u8]>>>,
    finder: Finder<'static>,
}

impl<'a> Shared<'a> {
    /// Of lines, each one resource; of several versions all are kept.
    pub fn new(lines: impl Iterator<Item = &'a [u8]>) -> Shared<'a> {
        let mut by_id: HashMap<String, BTreeMap<String, Vec<&'a [u8]>>> = HashMap::new();
        for line in lines {
            if let Some((resource_type, id)) = glance::identity(line) {
                by_id.entry(id).or_default().entry(resource_type).or_default().push(line);
            }
        }
        Shared { lines: by_id, finder: Finder::new(REFERENCE) }
    }

    /// What these lines refer to, directly or through other resources of no patient; by id and type.
    pub fn referred_to<'p>(&self, lines: impl Iterator<Item = &'p [u8]>) -> Vec<&'a [u8]> {
        if self.lines.is_empty() {
            return Vec::new();
        }
        let mut found = BTreeMap::new();
        let mut new = Vec::new();
        lines.for_each(|line| self.targets(line, &mut new));
        while let Some((key, versions)) = new.pop() {
            if found.insert(key, versions).is_none() {
                versions.iter().for_each(|line| self.targets(line, &mut new));
            }
        }
        found.values().flat_map(|versions| versions.iter().copied()).collect()
    }

    /// What a line refers to, as far as it is here.
    fn targets<'s>(&'s self, line: &[u8], to: &mut Vec<Target<'s, 'a>>) {
        for at in self.finder.find_iter(line) {
            let Some(reference) = line.get(at + REFERENCE.len()..).and_then(string_value) else { continue };
            let Some((named, id)) = reference_target(&reference) else { continue };
            let Some((id, types)) = self.lines.get_key_value(id) else { continue };
            let fitting = types.iter().filter(|(resource_type, _)| named.is_none_or(|named| named == *resource_type));
            to.extend(fitting.map(|(resource_type, versions)| ((id.as_str(), resource_type.as_str()), versions.as_slice())));
        }
    }
}

/// Id and type of a resource, and its versions.
type Target<'s, 'a> = ((&'s str, &'s str), &'s [&'a [u8]]);

/// The string behind a key of an object, whatever is written by escapes: a colon, a string, white space between.
pub fn string_value(rest: &[u8]) -> Option<Cow<'_, str>> {
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let inner = rest.strip_prefix(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', inner)?;
    if inner.get(end) == Some(&b'"') {
        return std::str::from_utf8(inner.get(..end)?).ok().map(Cow::Borrowed);
    }
    let mut texts = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
    texts.next()?.ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 5] = [
        r#"{"resourceType":"Location","id":"bed","partOf":{"reference":"Location/ward"}}"#,
        r#"{"id":"ward","resourceType":"Location","managingOrganization" : { "reference" : "https:\/\/ehr.example\/fhir\/Organization\/o1\/_history\/2" }}"#,
        r#"{"resourceType":"Organization","id":"o1","partOf":{"reference":"Organization/o1"}}"#,
        r#"{"resourceType":"Organization","id":"o1","meta":{"versionId":"2"}}"#,
        r#"{"resourceType":"Medication","id":"m1"}"#,
    ];

    #[test]
    fn what_is_referred_to_comes_with_all_versions_and_what_it_refers_to_itself() {
        let shared = Shared::new(LINES.iter().map(|line| line.as_bytes()));
        let of = |line: &str| -> Vec<usize> {
            let found = shared.referred_to(std::iter::once(line.as_bytes()));
            found.iter().map(|line| LINES.iter().position(|one| one.as_bytes() == *line).unwrap()).collect()
        };
        let visit = |reference: &str| format!(r#"{{"resourceType":"Encounter","id":"e","location":[{{"location":{{"reference":"{reference}"}}}}]}}"#);
        assert_eq!(of(&visit("Location/bed")), [0, 2, 3, 1]);
        assert_eq!(of(&visit("urn:uuid:m1")), [4]);
        assert_eq!(of(&visit("https://ehr.example/fhir/Medication/m1")), [4]);
        for elsewhere in ["Location/none", "#bed", "bed", "", "Location/bed\\"] {
            assert_eq!(of(&visit(elsewhere)), [0; 0], "{elsewhere}");
        }
    }
}
