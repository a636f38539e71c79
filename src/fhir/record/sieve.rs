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

/// Where in a stream of lines the next thing stands that may matter, so that one search passes over many lines.
#[derive(Debug, Default)]
pub struct Outlook<'s> {
    sieve: Option<&'s Sieve>,
    /// Before these bytes stands no escape, and nothing that a search looks for; one for each search.
    escape: u64,
    codes: Vec<u64>,
}

impl<'s> Outlook<'s> {
    /// Whether the line that begins at the byte `at` may hold one of the codes. `ahead` is the line and what is known of the
    /// stream after it.
    #[inline]
    pub fn may_hold(&mut self, sieve: &'s Sieve, line: &[u8], at: u64, ahead: &[u8]) -> bool {
        if !self.sieve.is_some_and(|own| std::ptr::eq(own, sieve)) {
            *self = Outlook { sieve: Some(sieve), escape: 0, codes: vec![0; sieve.search.count()] };
        }
        let end = at + line.len() as u64;
        let codes = self.codes.iter_mut().enumerate();
        codes.into_iter().any(|(index, next)| is_near(next, at, end, ahead, |bytes| sieve.search.find(index, bytes)))
            || (is_near(&mut self.escape, at, end, ahead, |bytes| memchr(b'\\', bytes)) && memmem::find(line, ESCAPE).is_some())
    }
}

/// Whether something stands before `end`; only a line of which that is not known is searched, with all that lies ahead.
fn is_near(next: &mut u64, at: u64, end: u64, ahead: &[u8], find: impl Fn(&[u8]) -> Option<usize>) -> bool {
    if *next < end {
        *next = at + find(ahead).unwrap_or(ahead.len()) as u64;
    }
    *next < end
}

impl Search {
    fn new(texts: &[String]) -> Option<Search> {
        if texts.len() <= FEW {
            return Some(Search::Few(texts.iter().map(|text| Finder::new(text).into_owned()).collect()));
        }
        let packed = if texts.len() <= PACKED_MAX { packed::Config::new().builder().extend(texts).build() } else { None };
        packed.map_or_else(|| AhoCorasick::new(texts).ok().map(Search::Many), |packed| Some(Search::Packed(packed)))
    }

    /// How many searches it takes.
    fn count(&self) -> usize {
        if let Search::Few(finders) = self { finders.len() } else { 1 }
    }

    /// Where what one search looks for stands first.
    fn find(&self, index: usize, bytes: &[u8]) -> Option<usize> {
        match self {
            Search::Few(finders) => finders.get(index)?.find(bytes),
            Search::Packed(searcher) => searcher.find(bytes).map(|found| found.start()),
            Search::Many(automaton) => automaton.find(bytes).map(|found| found.start()),
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
        (0..self.search.count()).any(|index| self.search.find(index, line).is_some())
            || memchr(b'\\', line).is_some_and(|at| line.get(at..).is_some_and(|rest| memmem::find(rest, ESCAPE).is_some()))
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
    use proptest::prelude::*;

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

    proptest! {
        /// However much of the stream lies ahead, as if each line was looked at alone.
        #[test]
        fn looking_ahead_passes_over_the_same_lines(
            lines in proptest::collection::vec(prop_oneof!["[a-c\"]{0,9}", Just(r#""ab""#.to_owned()), Just(r"\u0061".to_owned()), Just(r"x\/".to_owned())], 0..30),
            codes in proptest::collection::btree_set("[a-c]{1,2}", 1..7),
            buffer in 1usize..60,
        ) {
            let sieve = Sieve::new(codes).unwrap();
            let stream = lines.join("\n");
            let mut outlook = Outlook::default();
            let mut at = 0;
            for line in &lines {
                // A line that the buffer cuts is read whole, and nothing after it.
                let known = (at / buffer + 1) * buffer;
                let end = if at + line.len() > known { at + line.len() } else { known.min(stream.len()) };
                let found = outlook.may_hold(&sieve, line.as_bytes(), at as u64, &stream.as_bytes()[at..end]);
                prop_assert_eq!(found, sieve.may_hold(line.as_bytes()), "{} in {}", line, stream);
                at += line.len() + 1;
            }
        }
    }

    #[test]
    fn codes_that_json_may_write_in_several_ways_make_no_sieve() {
        assert!(sieve(&["a/b"]).is_none() && sieve(&["é"]).is_none() && sieve(&["a b"]).is_none() && sieve(&["true"]).is_none());
        assert!(!sieve(&[]).unwrap().may_hold(b"{\"code\":\"x\"}"), "an empty value set lets nothing through");
    }
}
