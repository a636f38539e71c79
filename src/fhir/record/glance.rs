//! What a line is, told from its first bytes and from the codes that stand in it, without parsing it.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use jiter::{Jiter, JiterError, Peek};
use rustc_hash::{FxBuildHasher, FxHasher};

use crate::fhir::compartment::misspelt;
use crate::fhir::resource_type;

use super::{Keep, Outlook, Shape, Sieve};

/// Longest name of a resource type.
const TYPE_BYTES_MAX: usize = 64;
/// What the compact form of every server starts with.
const PREFIX: &[u8] = b"{\"resourceType\":\"";

/// What a shape wants of a resource type.
#[derive(Clone, Debug)]
pub struct Kind<'s> {
    /// The resource type.
    pub name: Arc<str>,
    /// What is kept of it; none for a type that is not wanted.
    pub keep: Option<&'s Keep>,
    /// Why it is no type of FHIR's, if it is none.
    pub fault: Option<&'static str>,
    sieve: Option<&'s Sieve>,
    /// Bytes up to the quote after the type, where lines begin with it.
    beginning: usize,
    /// The type as a number.
    seed: u64,
}

/// Type and id as one number; that two have the same costs time and nothing else.
pub type Key = u64;

impl<'s> Kind<'s> {
    /// Whether lines of the type are passed over where no code stands in them.
    pub fn is_sieved(&self) -> bool {
        self.sieve.is_some()
    }

    /// Of a line that is passed over, type and id as one number. No escape stands in it that could hide a character of an
    /// id, so the id is taken as it is written.
    #[inline]
    pub fn key(&self, line: &[u8]) -> Option<Key> {
        match raw_id_after(line, self.beginning) {
            Some(id) => Some(self.key_of(id)),
            None => id(line).map(|id| self.key_of(id.as_bytes())),
        }
    }

    /// The type and this id as one number.
    #[inline]
    pub fn key_of(&self, id: &[u8]) -> Key {
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.seed);
        hasher.write(id);
        hasher.finish()
    }

    /// The id of a line of the type: at once where every server writes it, right after the type, or else searched for.
    #[inline]
    pub fn id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>> {
        id_after(line, self.beginning).or_else(|| id(line))
    }

    /// Whether a line of the type may hold what is asked for.
    pub fn may_matter(&self, line: &[u8]) -> bool {
        self.keep.is_some() && self.sieve.is_none_or(|sieve| sieve.may_hold(line))
    }

    /// The same of a line in a stream: `at` is its first byte, `ahead` the line and what is known of the stream after it.
    pub fn may_matter_in(&self, outlook: &mut Outlook<'s>, line: &[u8], at: u64, ahead: &[u8]) -> bool {
        self.keep.is_some() && self.sieve.is_none_or(|sieve| outlook.may_hold(sieve, line, at, ahead))
    }
}

/// The kinds of lines under a shape: most lines are of the type of the line before.
pub struct Kinds<'s> {
    shape: &'s Shape,
    /// The beginning of the last line, up to the quote after its type; empty before the first.
    beginning: Vec<u8>,
    last: Kind<'s>,
    sifts: bool,
}

impl<'s> Kinds<'s> {
    /// Of lines that a shape reads.
    pub fn new(shape: &'s Shape) -> Kinds<'s> {
        let last = Kind { name: Arc::from(""), keep: None, fault: None, sieve: None, beginning: 0, seed: 0 };
        Kinds { shape, beginning: Vec::new(), last, sifts: true }
    }

    /// Of lines among which those that cannot matter were left out already.
    pub fn sifted(shape: &'s Shape) -> Kinds<'s> {
        Kinds { sifts: false, ..Kinds::new(shape) }
    }

    /// Whether lines in which none of the codes stands are still to be passed over.
    pub(super) fn sifts(&self) -> bool {
        self.sifts
    }

    /// The shape by which lines are read.
    pub(super) fn shape(&self) -> &'s Shape {
        self.shape
    }

    /// Whether the shape keeps anything of a type.
    pub fn wants(&self, name: &str) -> bool {
        self.shape.of(name).is_some()
    }

    /// The kind of a line, which begins with what is no white space. The error says why it is none, without its content.
    #[inline]
    pub fn of(&mut self, line: &[u8]) -> Result<&Kind<'s>, String> {
        if self.beginning.is_empty() || !line.starts_with(&self.beginning) {
            let name = resource_type(line)?;
            self.beginning.clear();
            if matches!(name, Cow::Borrowed(_)) {
                self.beginning.extend_from_slice(line.get(..=PREFIX.len() + name.len()).unwrap_or_default());
            }
            let beginning = self.beginning.len();
            let keep = self.shape.of(&name);
            let wanted = self.shape.types.keys().map(String::as_str).chain(["Patient"]);
            let fault = match keep {
                Some(_) => None,
                None if misspelt(&name, wanted).is_some() => Some("FHIR has no such resourceType, and it is nearly one that the measures need"),
                None if resource_type::is_one(&name) => None,
                None => Some("FHIR has no such resourceType"),
            };
            let (sieve, seed) = (self.shape.sieves.get(&*name), FxBuildHasher.hash_one(&*name));
            self.last = Kind { name: Arc::from(&*name), keep, fault, sieve, beginning, seed };
        }
        Ok(&self.last)
    }
}

/// The resource type, from the first bytes if they have it.
fn resource_type(line: &[u8]) -> Result<Cow<'_, str>, String> {
    let name = match line.strip_prefix(PREFIX).and_then(|rest| Some(rest.split_at_checked(memchr::memchr(b'"', rest)?)?.0)) {
        Some(name) if !name.contains(&b'\\') => String::from_utf8_lossy(name),
        _ => Cow::Owned(top_level(line, "resourceType")?.ok_or("the object has no `resourceType`")?),
    };
    let plausible = !name.is_empty() && name.len() <= TYPE_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plausible { Ok(name) } else { Err("`resourceType` is no name of a resource type".to_owned()) }
}

/// The id of a line; `None` where there is none.
pub fn id(line: &[u8]) -> Option<Cow<'_, str>> {
    let after = line.strip_prefix(PREFIX).and_then(|rest| Some(PREFIX.len() + memchr::memchr(b'"', rest)? + 1));
    after.and_then(|after| id_after(line, after)).or_else(|| Some(Cow::Owned(top_level(line, "id").ok()??)))
}

/// The id where it stands right after the type, whose quote ends before the byte `at`.
fn id_after(line: &[u8], at: usize) -> Option<Cow<'_, str>> {
    let id = raw_id_after(line, at)?;
    std::str::from_utf8(id).ok().filter(|id| !id.contains('\\')).map(Cow::Borrowed)
}

/// The same, up to the next quote, whatever it is.
fn raw_id_after(line: &[u8], at: usize) -> Option<&[u8]> {
    let rest = line.get(at..)?.strip_prefix(b",\"id\":\"")?;
    rest.get(..memchr::memchr(b'"', rest)?)
}

/// Type and id of a line; `None` where it has not both.
pub fn identity(line: &[u8]) -> Option<(String, String)> {
    let line = line.trim_ascii_start();
    Some((resource_type(line).ok()?.into_owned(), id(line)?.into_owned()))
}

/// The text of a field of the object itself, wherever it stands.
fn top_level(line: &[u8], field: &str) -> Result<Option<String>, String> {
    let mut json = Jiter::new(line);
    let peek = json.peek().map_err(|fault| reason(&fault))?;
    if peek != Peek::Object {
        return Err("the line is no JSON object".to_owned());
    }
    let mut key = json.known_object().map_err(|fault| reason(&fault))?.map(str::to_owned);
    while let Some(name) = key {
        if name == field {
            return json.next_str().map(|text| Some(text.to_owned())).map_err(|fault| reason(&fault));
        }
        json.next_skip().map_err(|fault| reason(&fault))?;
        key = json.next_key().map_err(|fault| reason(&fault))?.map(str::to_owned);
    }
    Ok(None)
}

/// What is wrong with the JSON and where, never the text itself.
pub(super) fn reason(fault: &JiterError) -> String {
    format!("invalid JSON at byte {}: {}", fault.index, fault.error_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_id_are_found_wherever_they_stand() {
        let shape = Shape::everything();
        let mut kinds = Kinds::new(&shape);
        for line in [
            r#"{"resourceType":"Patient","id":"p1","active":true}"#,
            r#"{"id":"p1","resourceType":"Patient"}"#,
            r#"{"active":true,"contained":[{"resourceType":"Basic","id":"b"}],"resourceType":"Patient","id":"p\u0031"}"#,
            r#"{"resourceType":"Patient","meta":{"versionId":"2"},"id":"p1"}"#,
            r#"{"resourceType":"P\u0061tient","id":"p1"}"#,
        ] {
            let kind = kinds.of(line.as_bytes()).unwrap();
            assert_eq!((&*kind.name, id(line.as_bytes()).as_deref()), ("Patient", Some("p1")), "{line}");
        }
        assert_eq!(id(br#"{"resourceType":"Patient"}"#), None);
        assert_eq!(kinds.of(b"[1]").unwrap_err(), "the line is no JSON object");
        assert_eq!(kinds.of(b"{}").unwrap_err(), "the object has no `resourceType`");
        assert_eq!(kinds.of(br#"{"resourceType":"../x"}"#).unwrap_err(), "`resourceType` is no name of a resource type");
        assert_eq!(&*kinds.of(br#"{"resourceType":"Basic"}"#).unwrap().name, "Basic", "after a fault");
    }
}
