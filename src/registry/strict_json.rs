//! JSON from outside: bounded depth, no key twice. Two readers of one document must never see two things.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Levels of nesting a document may have.
pub const DEPTH_MAX: usize = 64;
/// Keys one object may have.
pub const KEYS_MAX: usize = 10_000;

/// Reads a document; the error says what is wrong and where, without any of its content but a key.
pub fn read(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Check(DEPTH_MAX).deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
struct Check(usize);

impl Check {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom(format!("nested deeper than {DEPTH_MAX} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format!("key `{}` occurs twice", key.escape_debug())));
            }
            if seen.len() >= KEYS_MAX {
                return Err(A::Error::custom(format!("an object with more than {KEYS_MAX} keys")));
            }
            seen.insert(key);
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn only_unambiguous_and_shallow_documents_are_read() {
        assert_eq!(read(br#"{"a":[1,2.50,-3e2,"x",null,true,{"b":1}]}"#).unwrap()["a"][1].to_string(), "2.50");
        for (text, reason) in [
            (r#"{"a":1,"b":{"c":1,"c":2}}"#, "key `c` occurs twice"),
            (r#"{"a":1,"\u0061":2}"#, "key `a` occurs twice"),
            (r#"{"a":1} x"#, "trailing characters"),
            (r#"{"a":"#, "EOF"),
            ("", "EOF"),
            ("\u{feff}{}", "expected value"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(read("[".repeat(100_000).as_bytes()).unwrap_err().contains("nested deeper"));
        assert!(read(format!("{}1{}", "[".repeat(60), "]".repeat(60)).as_bytes()).is_ok());
        assert!(read(b"\xff").is_err());
    }
}
