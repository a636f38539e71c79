//! YAML files: how they are read, and their faults in the words of those who write them: what was found, what was expected, where,
//! what to do.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_saphyr::{Error as Fault, Options, Spanned};

use super::{Diagnostic, Location, SourceFile, Span, nearest};

pub mod node;

/// No file nests deeper: a resource of FHIR does not come near, and each level takes its room on the stack.
const DEPTH_MAX: usize = 32;

/// Reads a file; `yes` and `no` are true and false where that is what stands there.
pub fn read<T: DeserializeOwned>(source: &Arc<SourceFile>) -> Result<T, Diagnostic> {
    read_with(source, Options::default())
}

/// Reads a file in which `yes`, `no` and `n` are texts.
pub fn read_strictly<T: DeserializeOwned>(source: &Arc<SourceFile>) -> Result<T, Diagnostic> {
    read_with(source, serde_saphyr::options! { strict_booleans: true })
}

fn read_with<T: DeserializeOwned>(source: &Arc<SourceFile>, mut options: Options) -> Result<T, Diagnostic> {
    options.budget = serde_saphyr::budget! { max_depth: DEPTH_MAX };
    serde_saphyr::from_str_with_options(&source.text, options).map_err(|fault| from_fault(source, &fault))
}

/// The place of so many bytes of a value; of a quoted text what is in the quotes.
pub fn place<T>(source: &Arc<SourceFile>, written: &Spanned<T>, length: usize) -> Location {
    let number = |value: u64| usize::try_from(value).unwrap_or(1);
    let start = source.offset(number(written.referenced.line()), number(written.referenced.column()));
    let quote = usize::from(matches!(source.text.as_bytes().get(start), Some(b'"' | b'\'')));
    let byte = |at: usize| u32::try_from(at.min(source.text.len())).unwrap_or(u32::MAX);
    Location::new(source, Span::new(byte(start + quote), byte(start + quote + length)))
}

/// The place of a text.
pub fn locate(source: &Arc<SourceFile>, text: &Spanned<String>) -> Location {
    place(source, text, text.value.len())
}

/// A fault as a finding with its line and column.
fn from_fault(source: &Arc<SourceFile>, fault: &Fault) -> Diagnostic {
    let fault = fault.without_snippet();
    let at = fault
        .location()
        .map_or_else(|| Location::new(source, Span::default()), |place| word_at(source, place.line() as usize, place.column() as usize));
    if let Some(tab) = tab_before(&at) {
        return Diagnostic::error("a tab indents this line").at(tab).help("YAML is indented by spaces only: put spaces in its place");
    }
    if let Fault::SerdeMissingField { field, .. } = fault {
        return missing(field, &at);
    }
    let Words { message, expected, help } = words(fault, &at);
    if let Some(key) = empty_key(&at) {
        let of_message = || message.as_ref().and_then(|message| Some(message.split_once("expected ")?.1.to_owned()));
        let expected = expected.or_else(of_message).map(|expected| format!(", expected {expected}")).unwrap_or_default();
        return Diagnostic::error(format!("`{}` is left empty{expected}", key.text())).at(key).help("write its value after the colon");
    }
    let mut diagnostic = Diagnostic::error(match (&message, expected) {
        (None, Some(expected)) => format!("expected {expected}{}", found(&at).map(|found| format!(", found {found}")).unwrap_or_default()),
        (message, _) => message.clone().unwrap_or_default(),
    });
    diagnostic.help = help;
    diagnostic.at(at)
}

/// What is said of a fault: in words of its own, or what was expected in place of what stands there.
#[derive(Default)]
struct Words {
    message: Option<String>,
    expected: Option<String>,
    help: Option<String>,
}

impl Words {
    fn expected(expected: impl Into<String>) -> Words {
        Words { expected: Some(expected.into()), ..Words::default() }
    }

    fn message(message: impl Into<String>) -> Words {
        Words { message: Some(message.into()), ..Words::default() }
    }

    fn help(self, help: impl Into<String>) -> Words {
        Words { help: Some(help.into()), ..self }
    }

    fn did_you_mean(self, wrong: &str, known: &[&str]) -> Words {
        if let Some(unseen) = wrong
            .chars()
            .find(|c| *c != ' ' && (c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}')))
        {
            return self.help(format!("a character that cannot be seen (U+{:04X}) stands in it: type it anew", u32::from(unseen)));
        }
        let help = nearest(wrong, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        Words { help, ..self }
    }
}

fn words(fault: &Fault, at: &Location) -> Words {
    match fault {
        Fault::SerdeUnknownField { field, expected, .. } => {
            Words::message(format!("unknown field `{field}`, expected one of {}", expected.join(", "))).did_you_mean(field, expected)
        }
        Fault::SerdeUnknownVariant { variant, expected, .. } => {
            Words::message(format!("`{variant}` is not known here, expected one of {}", expected.join(", "))).did_you_mean(variant, expected)
        }
        Fault::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or(at.text());
            Words::message(format!("the key `{key}` is given twice")).help("leave one of them out")
        }
        Fault::InvalidScalar { ty, .. } => Words::expected(kind(ty)),
        Fault::SerdeInvalidType { expected, .. } | Fault::SerdeInvalidValue { expected, .. } => Words::expected(kind(expected)),
        Fault::SerdeInvalidLength { expected, .. } => Words::expected(kind(expected)),
        Fault::Unexpected { expected, .. } => of_kind(kind(expected)),
        Fault::InvalidBooleanStrict { .. } => Words::expected(kind("boolean")),
        Fault::NonFiniteFloat { value, .. } => {
            Words::message(format!("`{value}` is no number that can be reckoned with")).help("write a finite number, or quotes around it where a text is meant")
        }
        Fault::NullIntoString { .. } if at.source.text.get(at.bytes().1..).is_some_and(|rest| rest.starts_with(':')) => {
            Words::message(format!("`{}` stands for nothing in YAML and names no field", at.text())).help("in quotes it would be a name")
        }
        Fault::NullIntoString { .. } => Words::expected("a text"),
        Fault::ExternallyTaggedEnumExpectedScalarOrMapping { .. } | Fault::ExpectedStringKeyForExternallyTaggedEnum { .. } => Words::expected("one word"),
        Fault::UnexpectedValueForUnitEnumVariant { .. } => Words::message("expected one word, found fields"),
        Fault::UnknownAnchor { .. } => Words::message(format!("`{}` refers to what nothing before it is called", at.text())).help("a text that begins with `*` goes in quotes"),
        Fault::UnsupportedTag { tag, .. } => Words::message(format!("`{tag}` is no tag that is known here")).help("a text that begins with `!` goes in quotes"),
        Fault::Eof { .. } => Words::message("nothing is in the file but comments or space").help("write its fields, each as `name: value`"),
        Fault::MultipleDocuments { .. } => Words::message("a second document begins here, and a file holds one").help("remove the line `---`"),
        Fault::Budget { .. } => Words::message("the file is larger, or nested deeper, than anything of its kind"),
        Fault::AliasError { error, .. } => words(error, at),
        Fault::ExternalMessage { msg, .. } => of_syntax(msg, at),
        // What a type of ours says of itself; `expected …` is of what stands there.
        Fault::Message { msg, .. } => match msg.strip_prefix("expected ") {
            Some(expected) => Words::expected(expected),
            None => of_syntax(msg, at),
        },
        other => Words::message(format!("this cannot be read as YAML: {}", first_line(&other.to_string()))),
    }
}

/// What a reader's name for a kind of value means to people.
fn kind(name: &str) -> &str {
    match name {
        "string scalar" | "a string" | "string" | "a borrowed string" => "a text",
        "mapping start" | "a map" | "map" => "fields, each as `name: value`",
        "sequence start" | "a sequence" | "sequence" => "a list, each item behind a `-`",
        "boolean" | "a boolean" | "bool" => "`true` or `false`",
        "floating point" | "floating point number" | "f64" | "f32" => "a number",
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number that is not negative",
        "i64" | "i32" | "i16" | "i8" | "isize" => "a whole number",
        "a value or a span-aware map with value/referenced/defined fields" | "a span-aware newtype wrapper" => "a value",
        other if other.starts_with("struct ") => "fields, each as `name: value`",
        other => other.trim_start_matches("expected "),
    }
}

fn of_kind(expected: &str) -> Words {
    let words = Words::expected(expected);
    if expected == "a text" { words.help("a text that begins with a bracket or another sign of YAML's goes in quotes") } else { words }
}

/// What the parser below the reader says of the text itself: a part of it, what it means, what to do.
const OF_SYNTAX: [(&str, &str, &str); 19] = [
    ("mapping values are not allowed", "a colon cannot stand here", "put a text that holds `: ` in quotes"),
    ("illegal placement of ':'", "a colon cannot stand here", "close the bracket or the quote that is open above it"),
    ("did not find expected key", "this line is indented unlike those it belongs to", "keys of one level begin in one column"),
    ("invalid indentation", "this line is indented unlike those it belongs to", "keys of one level begin in one column"),
    ("after single-quoted scalar", "the text in single quotes ends before this", "an apostrophe within single quotes is written twice: `''`"),
    ("after double-quoted scalar", "the text in double quotes ends before this", "a quote within double quotes is written `\\\"`"),
    ("EOF while parsing a flow mapping", "a `{` is never closed", "close it with `}`"),
    ("EOF while parsing an implicit flow mapping", "a `[` is never closed", "close it with `]`"),
    ("EOF while parsing a flow sequence", "a `[` is never closed", "close it with `]`"),
    ("did not find expected ',' or '}'", "expected `,` or `}`", "part the fields with `,` and close them with `}`"),
    ("expected ',' or ']'", "expected `,` or `]`", "part the items with `,` and close them with `]`"),
    ("simple key expected", "a name without its colon", "write `name: value`, with a space after the colon"),
    ("tabs disallowed", "a tab cannot stand here", "put spaces in its place"),
    ("while scanning a quoted scalar", "a text in quotes is never closed", "close it with the quote that it begins with"),
    ("unclosed quote", "a text in quotes is never closed", "close it with the quote that it begins with"),
    ("unknown escape character", "a `\\` in double quotes begins an escape that YAML does not know", "write it twice, or put the text in single quotes"),
    ("expected <document start>", "a line that begins with `%` is no field", "remove it, or put a text that begins so in quotes"),
    ("recursion limit", "the file is nested deeper than anything of its kind", "are brackets left open?"),
    ("did not find expected node content", "no value can begin like this", "a text that begins with a sign of YAML's goes in quotes"),
];

fn of_syntax(message: &str, at: &Location) -> Words {
    if let Some((_, words, help)) = OF_SYNTAX.iter().find(|(part, ..)| message.contains(part)) {
        return Words::message(*words).help(*help);
    }
    if !message.starts_with("unexpected character") {
        return Words::message(strip_place(first_line(message)));
    }
    let line = at.source.text.get(at.bytes().0..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    match line.chars().find(|sign| sign.is_control()) {
        Some(sign) => Words::message(format!("a character that cannot be seen (U+{:04X}) stands in this line", u32::from(sign))).help("remove it"),
        None => Words::message(format!("`{}` cannot begin a value", line.chars().next().unwrap_or(' '))).help("a text that begins with a sign of YAML's goes in quotes"),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The reader says the place within its message too; we show it in one way only.
fn strip_place(message: &str) -> String {
    let cut = [" at line ", " (line ", " at byte "].iter().filter_map(|mark| message.find(mark)).min();
    message.get(..cut.unwrap_or(message.len())).unwrap_or(message).trim_end_matches([':', ' ', ',']).to_owned()
}

/// The word that begins there.
fn word_at(source: &Arc<SourceFile>, line: usize, column: usize) -> Location {
    let start = source.offset(line, column);
    let rest = source.text.get(start..).unwrap_or("");
    let word = rest.find(|c: char| c.is_whitespace() || c == ':').unwrap_or(rest.len());
    Location::new(source, Span::new(start as u32, (start + word) as u32))
}

/// What stands there, as far as one line of it shows.
fn found(at: &Location) -> Option<String> {
    let line = at.source.text.get(at.bytes().0..)?.lines().next()?.trim_end();
    let is_key = line.split_once(':').is_some_and(|(key, rest)| !key.contains([' ', ',']) && (rest.is_empty() || rest.starts_with(' ')));
    let scalar = match line.chars().next()? {
        '[' => return Some("a list".to_owned()),
        '-' if line == "-" || line.starts_with("- ") => return Some("a list".to_owned()),
        '{' => return Some("fields".to_owned()),
        quote @ ('"' | '\'') => line.get(1..).and_then(|rest| Some(rest.split_once(quote)?.0)).unwrap_or(line),
        _ if is_key => return Some("fields".to_owned()),
        _ => line.split(" #").next().unwrap_or(line).split([',', '}', ']']).next().unwrap_or(line).trim_end(),
    };
    (!scalar.is_empty()).then(|| format!("`{scalar}`"))
}

/// The place of a tab in the indentation of a line up to the one after this: the reader may have stopped before it.
fn tab_before(at: &Location) -> Option<Location> {
    let mut start = 0;
    for line in at.source.text.split_inclusive('\n').take(at.line() + 1) {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        let tab = line.get(..indent).and_then(|blank| blank.find('\t'));
        if let Some(tab) = tab.filter(|_| !line.trim().is_empty()) {
            let place = (start + tab) as u32;
            return Some(Location::new(&at.source, Span::new(place, place + 1)));
        }
        start += line.len();
    }
    None
}

/// The key of a line that ends where its value should be.
fn empty_key(at: &Location) -> Option<Location> {
    let (start, _) = at.bytes();
    let text = &at.source.text;
    let line_start = text.get(..start)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(line_start..)?.lines().next()?.trim_end();
    let key = line.strip_suffix(':')?;
    let indent = key.len() - key.trim_start_matches([' ', '-']).len();
    let is_there = start + 1 >= line_start + line.len();
    is_there.then(|| Location::new(&at.source, Span::new((line_start + indent) as u32, (line_start + key.len()) as u32)))
}

/// A field that must be there and is not; what has it below a line `---` is another document.
fn missing(field: &str, at: &Location) -> Diagnostic {
    let at = start_of_mapping(at);
    let is_cut = at.source.text.lines().skip(1).any(|line| line.trim_end() == "---");
    let finding = Diagnostic::error(format!("the field `{field}` is missing")).at(at);
    if is_cut { finding.help("the file is read up to its line `---`: remove that line") } else { finding }
}

/// The first line of the mapping in whose last line the reader noticed that something is missing.
fn start_of_mapping(at: &Location) -> Location {
    let column = at.column() - 1;
    let lines: Vec<&str> = at.source.text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let mut first = at.line();
    let is_first = lines.get(first - 1).is_some_and(|own| indent(own) == column && own.trim_start().starts_with('-'));
    for number in (1..at.line()).rev().take_while(|_| !is_first) {
        let line = lines.get(number - 1).copied().unwrap_or_default();
        if !blank(line) && indent(line) < column {
            break;
        }
        if !blank(line) && indent(line) == column {
            first = number;
            if line.trim_start().starts_with('-') {
                break;
            }
        }
    }
    let start = at.source.offset(first, column + 1);
    let word = at.source.text.get(start..).and_then(|rest| rest.find([':', '\n'])).unwrap_or(0);
    Location::new(&at.source, Span::new(start as u32, (start + word) as u32))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::diagnostic::Severity;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct File {
        id: String,
        count: Option<u64>,
        share: Option<f64>,
        sure: Option<bool>,
        kind: Option<Kind>,
        items: Option<Vec<String>>,
        parts: Option<BTreeMap<String, u64>>,
        any: Option<Any>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Run,
        Funnel,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged, expecting = "expected `true` or a text")]
    #[allow(dead_code)]
    enum Any {
        Yes(bool),
        Text(String),
    }

    /// `line:column message (help)`.
    fn told(text: &str) -> String {
        let source = SourceFile::new("x.yaml", text);
        let fault = serde_saphyr::from_str::<File>(text).expect_err("a fault");
        let finding = from_fault(&source, &fault);
        assert_eq!(finding.severity, Severity::Error);
        let at = finding.at.expect("a place");
        let help = finding.help.map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{} {}{help}", at.line(), at.column(), finding.message)
    }

    #[test]
    fn every_fault_says_what_was_found_what_was_expected_and_what_to_do() {
        let cases = [
            ("id: a\ntitel: b\n", "2:1 unknown field `titel`, expected one of id, count, share, sure, kind, items, parts, any"),
            ("id: a\ncuont: 1\n", "2:1 unknown field `cuont`, expected one of id, count, share, sure, kind, items, parts, any (did you mean `count`?)"),
            ("count: 1\n", "1:1 the field `id` is missing"),
            ("count: 1\n---\nid: a\n", "1:1 the field `id` is missing (the file is read up to its line `---`: remove that line)"),
            ("id: a\nid: b\n", "2:1 the key `id` is given twice (leave one of them out)"),
            ("id: a\nnull: 5\n", "2:1 `null` stands for nothing in YAML and names no field (in quotes it would be a name)"),
            ("id: a\ncount: -1\n", "2:8 expected a whole number that is not negative, found `-1`"),
            ("id: a\ncount: 1e400\n", "2:8 expected a whole number that is not negative, found `1e400`"),
            ("id: a\nshare: high # of all\n", "2:8 expected a number, found `high`"),
            ("id: a\nsure: maybe\n", "2:7 expected `true` or `false`, found `maybe`"),
            ("id: a\nkind: rum\n", "2:7 `rum` is not known here, expected one of run, funnel (did you mean `run`?)"),
            ("id: a\nkind: [run]\n", "2:7 expected one word, found a list"),
            ("id: [a]\n", "1:5 expected a text, found a list (a text that begins with a bracket or another sign of YAML's goes in quotes)"),
            ("id: null\n", "1:5 expected a text, found `null`"),
            ("id:\n", "1:1 `id` is left empty (write its value after the colon)"),
            ("id: a\nitems: none\n", "2:8 expected a list, each item behind a `-`, found `none`"),
            ("id: a\nitems:\n  a: b\n", "3:3 expected a list, each item behind a `-`, found fields"),
            ("id: a\nparts: [1]\n", "2:8 expected fields, each as `name: value`, found a list"),
            ("id: a\nany: [1]\n", "2:6 expected `true` or a text, found a list"),
            ("id: a\nany: 1e400\n", "2:6 `1e400` is no number that can be reckoned with (write a finite number, or quotes around it where a text is meant)"),
            ("id: *x\n", "1:5 `*x` refers to what nothing before it is called (a text that begins with `*` goes in quotes)"),
            ("id: a: b\n", "1:6 a colon cannot stand here (put a text that holds `: ` in quotes)"),
            ("id: 'it's'\n", "1:9 the text in single quotes ends before this (an apostrophe within single quotes is written twice: `''`)"),
            ("id: b\n\tcount: 1\n", "2:1 a tab indents this line (YAML is indented by spaces only: put spaces in its place)"),
            ("id: @a\n", "1:5 `@` cannot begin a value (a text that begins with a sign of YAML's goes in quotes)"),
            ("id: {a\n", "1:5 expected a text, found fields (a text that begins with a bracket or another sign of YAML's goes in quotes)"),
            ("id: [a\n", "1:5 expected a text, found a list (a text that begins with a bracket or another sign of YAML's goes in quotes)"),
            ("id: \"a\n", "1:5 a text in quotes is never closed (close it with the quote that it begins with)"),
            ("id: a\n  count: 1\n", "2:8 a colon cannot stand here (put a text that holds `: ` in quotes)"),
            ("id:a\n", "1:1 expected fields, each as `name: value`, found `id:a`"),
            ("", "1:1 nothing is in the file but comments or space (write its fields, each as `name: value`)"),
            ("# only\n", "2:1 nothing is in the file but comments or space (write its fields, each as `name: value`)"),
            ("- id: a\n", "1:1 expected fields, each as `name: value`, found a list"),
            ("5\n", "1:1 expected fields, each as `name: value`, found `5`"),
            ("id: a\n? [b]\n: c\n", "2:3 expected a text, found a list (a text that begins with a bracket or another sign of YAML's goes in quotes)"),
        ];
        let wrong: Vec<String> = cases
            .iter()
            .filter(|(text, expected)| told(text) != *expected)
            .map(|(text, expected)| format!("{text:?}\n  {expected}\n  {}", told(text)))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
