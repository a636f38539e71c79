//! Passing over lines that cannot matter: when all that a program asks of a resource type is asked by code, a line in which
//! none of the codes stands is not parsed at all.

use std::collections::BTreeSet;
use std::fmt;

use aho_corasick::{AhoCorasick, packed};
use memchr::memchr;
use memchr::memmem::{self, Finder};

/// Most codes that are looked for; with more, reading the line is as fast.
pub const CODES_MAX: usize = 4_000;
/// So few are looked for one by one.
const FEW: usize = 4;
/// So many are looked for by vector instructions, where the machine has them.
const PACKED_MAX: usize = 64;
/// How JSON may hide a plain character.
const ESCAPE: &[u8] = b"\\u00";

/// The codes one of which a line must hold to be read.
#[derive(Clone)]
pub struct Sieve {
    codes: BTreeSet<String>,
    search: Search,
}

#[derive(Clone)]
enum Search {
    Few(Vec<Finder<'static>>),
    Packed(packed::Searcher),
    Many(AhoCorasick),
}

impl Search {
    fn new(texts: &[String]) -> Option<Search> {
        if texts.len() <= FEW {
            return Some(Search::Few(texts.iter().map(|text| Finder::new(text).into_owned()).collect()));
        }
        let packed = if texts.len() <= PACKED_MAX { packed::Config::new().builder().extend(texts).build() } else { None };
        packed.map_or_else(|| AhoCorasick::new(texts).ok().map(Search::Many), |packed| Some(Search::Packed(packed)))
    }

    fn finds(&self, line: &[u8]) -> bool {
        match self {
            Search::Few(finders) => finders.iter().any(|finder| finder.find(line).is_some()),
            Search::Packed(searcher) => searcher.find(line).is_some(),
            Search::Many(automaton) => automaton.is_match(line),
        }
    }
}

impl Sieve {
    /// A sieve for these codes; `None` when they are too many, or may be written in JSON in more than one way.
    pub fn new(codes: BTreeSet<String>) -> Option<Sieve> {
        let is_plain = |code: &String| code.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\/".contains(&byte)) && !matches!(&**code, "true" | "false");
        if codes.len() > CODES_MAX || !codes.iter().all(is_plain) {
            return None;
        }
        let quoted: Vec<String> = codes.iter().map(|code| format!("\"{code}\"")).collect();
        Some(Sieve { search: Search::new(&quoted)?, codes })
    }

    /// Whether the line may hold one of the codes: as a string, or behind an escape.
    pub fn may_hold(&self, line: &[u8]) -> bool {
        self.search.finds(line) || memchr(b'\\', line).is_some_and(|at| line.get(at..).is_some_and(|rest| memmem::find(rest, ESCAPE).is_some()))
    }

    /// The sieve that lets through what either lets through.
    pub fn merge(&self, other: &Sieve) -> Option<Sieve> {
        if self == other { Some(self.clone()) } else { Sieve::new(self.codes.union(&other.codes).cloned().collect()) }
    }
}

impl PartialEq for Sieve {
    fn eq(&self, other: &Sieve) -> bool {
        self.codes == other.codes
    }
}

impl Eq for Sieve {}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sieve({} codes)", self.codes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieve(codes: &[&str]) -> Option<Sieve> {
        Sieve::new(codes.iter().map(|code| (*code).to_owned()).collect())
    }

    #[test]
    fn a_line_passes_with_a_code_as_a_string_or_with_an_escape_that_may_hide_one() {
        let sieve = sieve(&["1988-5", "pga"]).unwrap();
        let passes = |line: &str| sieve.may_hold(line.as_bytes());
        assert!(passes(r#"{"code":{"coding":[{"code":"1988-5"}]}}"#));
        assert!(passes(r#"{"code":{"coding":[{"code":"p\u0067a"}]}}"#));
        assert!(!passes(r#"{"code":{"coding":[{"code":"21988-5"}]},"note":"pga 1988-5"}"#));
    }

    #[test]
    fn codes_that_json_may_write_in_several_ways_make_no_sieve() {
        assert!(sieve(&["a/b"]).is_none() && sieve(&["é"]).is_none() && sieve(&["a b"]).is_none() && sieve(&["true"]).is_none());
        assert!(!sieve(&[]).unwrap().may_hold(b"{\"code\":\"x\"}"), "an empty value set lets nothing through");
    }
}
