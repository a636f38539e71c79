//! Records of one person: whose data count as whose where Patients were merged into others (`Patient.link`, `replaced-by`).
//!
//! FHIR R4, `link-type`: what says `replaced-by` "must no longer be used", and the other "must be used in lieu of" it. So whatever
//! is written of either is one record, of the Patient at the end of the links, and no other Patient is in it. Where the end is
//! not among the data, the nearest Patient to it stands for the person; where links go in a circle, the least id in it does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::compartment::reference_target;

/// By the id of a Patient that was replaced: the ids of those it names in its place; none where it names them in no way that can
/// be followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<String, BTreeSet<String>>);

impl Links {
    /// Those of one line.
    pub fn of(line: &[u8]) -> Links {
        let mut links = Links::default();
        links.take(line);
        links
    }

    /// Takes the links of a line, if it is a Patient that another one has replaced; says whether it is.
    pub fn take(&mut self, line: &[u8]) -> bool {
        if memchr::memmem::find(line, b"\"replaced-by\"").is_none() {
            return false;
        }
        let Ok(patient) = serde_json::from_slice::<Value>(line) else { return false };
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some("Patient"), Some(id)) = (patient.get("resourceType").and_then(Value::as_str), text(&patient, "id")) else { return false };
        let links = patient.get("link").and_then(Value::as_array).into_iter().flatten();
        let replacing: Vec<&Value> = links.filter(|link| text(link, "type").as_deref() == Some("replaced-by")).collect();
        let other = |link: &&Value| match reference_target(link.pointer("/other/reference")?.as_str()?)? {
            (None | Some("Patient"), other) => Some(other.to_owned()),
            _ => None,
        };
        // Nobody takes their own place.
        let others = replacing.iter().filter_map(other).filter(|other| *other != id);
        if !replacing.is_empty() {
            self.0.entry(id.clone()).or_default().extend(others);
        }
        !replacing.is_empty()
    }

    /// All of these too.
    pub fn merge(&mut self, other: Links) {
        for (id, others) in other.0 {
            self.0.entry(id).or_default().extend(others);
        }
    }

    /// Everybody who is named, as replaced or as who replaces.
    pub fn everybody(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(id, others)| std::iter::once(id).chain(others)).map(String::as_str)
    }
}

/// Who counts as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// By bare id: the Patient whose record it belongs to; nothing for who is nobody else.
    survivors: BTreeMap<String, String>,
    /// Patients who stand for a person though they say that another does who is not here.
    unfollowed: BTreeSet<String>,
}

impl Merged {
    /// Follows the links; `is_here` tells of whom there is a Patient. Of several who take one's place the first that is here counts.
    pub fn follow(links: &Links, is_here: impl Fn(&str) -> bool) -> Merged {
        let to = |others: &'_ BTreeSet<String>| others.iter().find(|other| is_here(other)).or(others.first()).cloned();
        let next: BTreeMap<String, String> = links.0.iter().filter_map(|(id, others)| Some((id.clone(), to(others)?))).collect();
        let ends = ends(&next);
        let mut nearest: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for (id, (end, steps)) in &ends {
            let own = if is_here(end) { (0, *end) } else { (*steps, *id) };
            let best = nearest.entry(end).or_insert(own);
            *best = own.min(*best);
        }
        let mut merged = Merged::default();
        for (id, (end, _)) in &ends {
            let Some((_, survivor)) = nearest.get(end) else { continue };
            merged
                .survivors
                .extend([*id, *end].into_iter().filter(|own| own != survivor).map(|own| (own.to_owned(), (*survivor).to_owned())));
            merged.unfollowed.extend((survivor != end).then(|| (*survivor).to_owned()));
        }
        merged.unfollowed.extend(links.0.iter().filter(|(_, others)| others.is_empty()).map(|(id, _)| id.clone()));
        merged
    }

    /// The Patient whose record the data of a patient belong to.
    pub fn survivor<'m>(&'m self, patient: &'m str) -> &'m str {
        self.survivors.get(patient).map_or(patient, String::as_str)
    }

    /// Ids whose data belong to another's record, each with that one.
    pub fn moved(&self) -> impl Iterator<Item = (&str, &str)> {
        self.survivors.iter().map(|(id, survivor)| (id.as_str(), survivor.as_str()))
    }

    /// Whether a Patient stands for a person though it says that another does, who is not among the data.
    pub fn is_unfollowed(&self, patient: &str) -> bool {
        self.unfollowed.contains(patient)
    }

    /// How many these are.
    pub fn unfollowed(&self) -> u64 {
        self.unfollowed.len() as u64
    }
}

/// Where the links of each lead, and in how many steps: to who is replaced by nobody, or to the least of a circle.
fn ends(next: &BTreeMap<String, String>) -> BTreeMap<&str, (&str, usize)> {
    let mut ends: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    for start in next.keys() {
        let (mut path, mut places) = (Vec::new(), BTreeMap::new());
        let mut at = start.as_str();
        let (end, mut steps) = loop {
            if let Some(known) = ends.get(at) {
                break *known;
            }
            if let Some(first) = places.insert(at, path.len()) {
                break (path.iter().skip(first).min().copied().unwrap_or(at), 0);
            }
            path.push(at);
            match next.get(at) {
                Some(further) => at = further,
                None => {
                    path.pop();
                    break (at, 0);
                }
            }
        };
        for id in path.into_iter().rev() {
            steps += 1;
            ends.insert(id, (end, steps));
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a>b` for a Patient that b replaces, `a` for one that nobody does.
    fn follow(patients: &[&str]) -> (String, String) {
        let mut links = Links::default();
        let here: BTreeSet<&str> = patients.iter().filter_map(|patient| patient.split('>').next()).collect();
        for patient in patients {
            let mut ids = patient.split('>');
            let id = ids.next().unwrap();
            let others: Vec<String> = ids.map(|other| format!(r#"{{"other":{{"reference":"Patient/{other}"}},"type":"replaced-by"}}"#)).collect();
            let line = format!(r#"{{"resourceType":"Patient","id":"{id}","link":[{}]}}"#, others.join(","));
            assert_eq!(links.take(line.as_bytes()), !others.is_empty());
        }
        let merged = Merged::follow(&links, |id| here.contains(id));
        let moved: Vec<String> = merged.moved().map(|(id, survivor)| format!("{id}={survivor}")).collect();
        (moved.join(" "), merged.unfollowed.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn links_are_followed_to_their_end_in_any_order() {
        let cases: [(&[&str], &str, &str); 10] = [
            (&["a", "b"], "", ""),
            (&["a>b", "b"], "a=b", ""),
            (&["b", "a>b", "c>b"], "a=b c=b", ""),
            (&["a>b", "b>c", "c"], "a=c b=c", ""),
            (&["a>x"], "x=a", "a"),            // what is written of the absent one is this person's too
            (&["a>b", "b>x"], "a=b x=b", "b"), // the nearest stands for the person
            (&["a>x", "b>x"], "b=a x=a", "a"), // and of two the least
            (&["b>c", "c>a", "a>b"], "b=a c=a", ""),
            (&["z>b", "b>a", "a>b"], "b=a z=a", ""),
            (&["a>x>c", "c"], "a=c", ""),
        ];
        for (patients, moved, unfollowed) in cases {
            let expected = (moved.to_owned(), unfollowed.to_owned());
            assert_eq!(follow(patients), expected, "{patients:?}");
            assert_eq!(follow(&patients.iter().rev().copied().collect::<Vec<_>>()), expected, "{patients:?} backwards");
        }
    }

    #[test]
    fn a_long_chain_is_followed_once() {
        let patients: Vec<String> = (0..20_000).map(|at| format!("{at:05}>{:05}", at + 1)).collect();
        let (moved, unfollowed) = follow(&patients.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(moved.starts_with("00000=19999 ") && moved.ends_with(" 20000=19999"));
        assert_eq!(unfollowed, "19999");
    }

    #[test]
    fn links_in_all_spellings() {
        let take = |link: &str| {
            let mut links = Links::default();
            let is_replaced = links.take(format!(r#"{{"resourceType":"Patient","id":"a","link":[{link}]}}"#).as_bytes());
            (is_replaced, links.everybody().skip(1).collect::<Vec<_>>().join(" "))
        };
        let reference = |reference: &str| format!(r#"{{"type":"replaced-by","other":{{"reference":"{reference}"}}}}"#);
        let cases = [
            (reference("https://ehr.example/fhir/Patient/b/_history/2"), true, "b"),
            (reference("urn:uuid:b"), true, "b"),
            (reference("RelatedPerson/b"), true, ""),
            (reference("Patient/a"), true, ""),
            (r#"{"type":"replaced-by","other":{"identifier":{"value":"1"}}}"#.to_owned(), true, ""),
            (r#"{"type":"replaces","other":{"reference":"Patient/b","display":"replaced-by"}}"#.to_owned(), false, ""),
            (r#"{"type":"seealso","other":{"reference":"Patient/b"}}"#.to_owned(), false, ""),
        ];
        for (link, is_replaced, others) in cases {
            assert_eq!(take(&link), (is_replaced, others.to_owned()), "{link}");
        }
        assert!(!Links::default().take(br#"{"resourceType":"Person","id":"a","link":[{"type":"replaced-by"}]}"#));
        let mut own = Links::default();
        own.take(br#"{"resourceType":"Patient","id":"a","link":[{"type":"replaced-by","other":{"display":"b"}}]}"#);
        assert!(Merged::follow(&own, |_| true).is_unfollowed("a"));
    }
}
