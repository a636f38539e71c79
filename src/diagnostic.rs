//! Findings for the person who can act: where, what was found, what was expected, what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};

pub mod yaml;

/// At most this many findings are rendered; the rest are counted.
const RENDERED_MAX: usize = 200;
/// Places that are named of findings of one kind, beside the one that is shown.
const PLACES_SHOWN: usize = 5;
/// Wider lines are wrapped, at blanks only: a name that was broken at its hyphens could not be copied. What the renderer puts before a
/// line of the message - before the first one also the word of the severity - and of the help.
const RENDER_WIDTH: usize = 120;
const MESSAGE_MARGIN: usize = 6;
const SEVERITY_MARGIN: usize = 6;
const HELP_MARGIN: usize = 10;
/// A source line longer than this many bytes is not quoted.
const QUOTED_LINE_BYTES_MAX: usize = 2_000;
/// The user's text is quoted whole up to so many characters, and so many of either end of a longer one.
const QUOTED_TEXT_MAX: usize = 200;
const QUOTED_END: usize = 40;

/// A text a user wrote, with the name by which they know it.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// File name or other title, shown with every finding.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// Where its lines begin, once that was asked for.
    lines: OnceLock<Vec<usize>>,
}

impl PartialEq for SourceFile {
    fn eq(&self, other: &SourceFile) -> bool {
        (&self.name, &self.text) == (&other.name, &other.text)
    }
}

impl Eq for SourceFile {}

impl SourceFile {
    /// A shared source file.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<SourceFile> {
        Arc::new(SourceFile { name: name.into(), text: text.into(), lines: OnceLock::new() })
    }

    /// The byte offset of a 1-based line and column (columns count characters); the end of the line or text when beyond it.
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let lines = self.lines.get_or_init(|| std::iter::once(0).chain(self.text.match_indices('\n').map(|(end, _)| end + 1)).collect());
        let Some(start) = lines.get(line.saturating_sub(1)).copied() else { return self.text.len() };
        let rest = self.text.get(start..).unwrap_or("");
        let line_text = rest.split('\n').next().unwrap_or("");
        let within = line_text.char_indices().nth(column.saturating_sub(1)).map_or(line_text.len(), |(i, _)| i);
        start + within
    }
}

/// A range of bytes in a source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span from `start` up to `end`.
    pub fn new(start: u32, end: u32) -> Span {
        Span { start, end: end.max(start) }
    }

    /// From the start of this span to the end of the other.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A span of one source.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// The text.
    pub source: Arc<SourceFile>,
    /// The bytes in it.
    pub span: Span,
}

impl Location {
    /// This span of this source.
    pub fn new(source: &Arc<SourceFile>, span: Span) -> Location {
        Location { source: Arc::clone(source), span }
    }

    /// The 1-based line of the start.
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The 1-based column of the start, in characters.
    pub fn column(&self) -> usize {
        self.before().rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1
    }

    /// The text of the span.
    pub fn text(&self) -> &str {
        let (start, end) = self.bytes();
        self.source.text.get(start..end).unwrap_or("")
    }

    /// The first place of a word at or after the start of this one; this place where the text has none.
    pub fn first(&self, word: &str) -> Location {
        let start = self.bytes().0;
        let found = self.source.text.get(start..).and_then(|rest| rest.find(word)).map(|at| start + at);
        self.of_word(found, word)
    }

    /// The last place of a word before this one; this place where there is none.
    pub fn last_before(&self, word: &str) -> Location {
        self.of_word(self.before().rfind(word), word)
    }

    fn of_word(&self, start: Option<usize>, word: &str) -> Location {
        let span = start.map(|start| Span::new(start as u32, (start + word.len()) as u32));
        Location { source: self.source.clone(), span: span.unwrap_or(self.span) }
    }

    fn before(&self) -> &str {
        self.source.text.get(..self.bytes().0).unwrap_or("")
    }

    /// The span, moved inwards to character boundaries of the text.
    fn bytes(&self) -> (usize, usize) {
        let text = &self.source.text;
        let floor = |at: u32| {
            let mut at = (at as usize).min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(self.span.start);
        (start, floor(self.span.end).max(start))
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Location {
    /// `name:line:column`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.name, self.line(), self.column())
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can go on.
    Error,
    /// Likely wrong, but it can go on.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One finding. Messages start in lower case, quote user text in back-ticks, end without a full stop and hold no patient's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What was found and what was expected.
    pub message: String,
    /// Where it is.
    pub at: Option<Location>,
    /// Other places that explain it, with what is to be seen there.
    pub labels: Vec<(Location, String)>,
    /// What to do next.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A finding that stops the work.
    pub fn error(message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Error, message.into())
    }

    /// A finding that does not stop the work.
    pub fn warning(message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Warning, message.into())
    }

    /// A remark.
    pub fn note(message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Note, message.into())
    }

    fn new(severity: Severity, message: String) -> Diagnostic {
        Diagnostic { severity, message: shortened(message), at: None, labels: Vec::new(), help: None }
    }

    /// The same finding, at this place.
    pub fn at(mut self, location: Location) -> Diagnostic {
        self.at = Some(location);
        self
    }

    /// The same finding with another place that explains it.
    pub fn label(mut self, location: Location, text: impl Into<String>) -> Diagnostic {
        self.labels.push((location, text.into()));
        self
    }

    /// The same finding with what to do next.
    pub fn help(mut self, text: impl Into<String>) -> Diagnostic {
        self.help = Some(shortened(text.into()));
        self
    }

    /// Whether this stops the work.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `error: message (name:line:column)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.word(), self.message)?;
        match &self.at {
            Some(at) => write!(f, " ({at})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// A message whose quoted texts are short enough to read: of a longer one the two ends.
fn shortened(message: String) -> String {
    if message.len() <= QUOTED_TEXT_MAX {
        return message;
    }
    let parts = message.split('`').enumerate().map(|(place, part)| {
        let letters: Vec<char> = part.chars().collect();
        let ends = letters.first_chunk::<QUOTED_END>().zip(letters.last_chunk::<QUOTED_END>());
        match ends {
            Some((first, last)) if place % 2 == 1 && letters.len() > QUOTED_TEXT_MAX => format!("{}…{}", String::from_iter(first), String::from_iter(last)),
            _ => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join("`")
}

/// A count and what is counted, in the singular or plural: `1 measure`, `2 measures`, `3 queries`, `4 branches`.
pub fn counted<N: fmt::Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let of_y = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
    match of_y {
        _ if count == N::from(1) => format!("{count} {noun}"),
        Some(stem) => format!("{count} {stem}ies"),
        None if noun.ends_with("ch") || noun.ends_with('s') => format!("{count} {noun}es"),
        None => format!("{count} {noun}s"),
    }
}

/// A file's text; the error points to the first byte that is no UTF-8.
pub fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Diagnostic> {
    let fault = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(fault) => fault,
    };
    let start = fault.utf8_error().valid_up_to();
    let byte = fault.as_bytes().get(start).copied().unwrap_or_default();
    let is_utf16 = matches!(fault.as_bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    let source = SourceFile::new(name, String::from_utf8_lossy(fault.as_bytes()));
    let at = Location::new(&source, Span::new(start as u32, (start + char::REPLACEMENT_CHARACTER.len_utf8()) as u32));
    let (message, help) = match is_utf16 {
        true => (format!("`{name}` is UTF-16, expected UTF-8"), "save it as UTF-8"),
        false => (format!("a byte that is no UTF-8 (0x{byte:02X}) stands here"), "save the file as UTF-8: it is Latin-1, Windows-1252 or the like"),
    };
    let finding = Diagnostic::error(message).help(help);
    Err(if is_utf16 { finding } else { finding.at(at) })
}

/// A fault of JSON as a finding with its line and column.
pub fn from_json(source: &Arc<SourceFile>, fault: &serde_json::Error) -> Diagnostic {
    let start = source.offset(fault.line(), fault.column()) as u32;
    let reason = fault.to_string();
    let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
    let finding = match fault.classify() {
        serde_json::error::Category::Eof => Diagnostic::error("the JSON ends before it is complete").help("was the file cut short, or is a bracket or quote left open?"),
        _ => Diagnostic::error(format!("this is not JSON: {reason}")),
    };
    finding.at(Location::new(source, Span::new(start, start)))
}

/// Whether any finding stops the work.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

/// The findings in the order they are shown: by source name, place, severity and message; without duplicates.
pub fn sorted(diagnostics: &[Diagnostic]) -> Vec<&Diagnostic> {
    let key = |d: &Diagnostic| {
        let place = d.at.as_ref().map(|at| (at.source.name.clone(), at.span));
        (place, d.severity, d.message.clone())
    };
    let mut all: Vec<&Diagnostic> = diagnostics.iter().collect();
    all.sort_by_cached_key(|d| key(d));
    all.dedup_by(|a, b| a == b);
    all
}

/// The findings for a person: each with its source line and a caret, sorted, then a count. Empty text when there are none.
///
/// ```
/// use watershed::diagnostic::{Diagnostic, Location, SourceFile, Span, render_human};
///
/// let source = SourceFile::new("site.toml", "time_zone = \"Europe/Pari\"\n");
/// let found = Diagnostic::error("no time zone is named `Europe/Pari`").at(Location::new(&source, Span::new(12, 25)));
/// let text = render_human(&[found.help("write an IANA name")], false);
/// assert!(text.contains("site.toml:1:13") && text.contains("help: write an IANA name"), "{text}");
/// ```
pub fn render_human(diagnostics: &[Diagnostic], colour: bool) -> String {
    let all = sorted(diagnostics);
    let each: Vec<Kind<'_>> = all.iter().map(|first| Kind { first, more: Vec::new() }).collect();
    render(&all, &each, colour)
}

/// The same where many may be alike, as in measures that somebody else wrote: of what is no error one of each kind is shown, and how
/// many more of it there are and where; two are shown both.
pub fn render_folded(diagnostics: &[Diagnostic], colour: bool) -> String {
    let all = sorted(diagnostics);
    render(&all, &kinds(&all), colour)
}

/// The same for a person who asked for something else: a line for each kind, with how many there are and where, and one
/// with what to do.
pub fn render_brief(diagnostics: &[Diagnostic]) -> String {
    let all = sorted(diagnostics);
    let line = |Kind { first, more }: &Kind<'_>| {
        let at = first.at.as_ref().map(Location::to_string);
        let place = match (more.len(), at) {
            (0, None) => String::new(),
            (0, Some(at)) => format!(" ({at})"),
            (others, None) => format!(" ({} times)", others + 1),
            (others, Some(at)) => format!(" ({} times, first at {at})", others + 1),
        };
        let help = first.help.as_ref().map_or_else(String::new, |help| format!("  help: {help}\n"));
        format!("{}: {}{place}\n{help}", first.severity.word(), first.message)
    };
    kinds(&all).iter().take(RENDERED_MAX).map(line).collect()
}

/// The findings by what they say, in their order; each error is a kind of its own.
fn kinds<'a>(all: &[&'a Diagnostic]) -> Vec<Kind<'a>> {
    let mut kinds: Vec<Kind<'a>> = Vec::new();
    let mut known: BTreeMap<(Severity, String), usize> = BTreeMap::new();
    for one in all {
        let place = if one.is_error() { kinds.len() } else { *known.entry((one.severity, kind(&one.message))).or_insert(kinds.len()) };
        match kinds.get_mut(place) {
            Some(kind) => kind.more.push(one),
            None => kinds.push(Kind { first: one, more: Vec::new() }),
        }
    }
    kinds
}

/// Findings that say the same of different things.
struct Kind<'a> {
    first: &'a Diagnostic,
    more: Vec<&'a Diagnostic>,
}

/// A message without what it quotes and counts.
fn kind(message: &str) -> String {
    message
        .split('`')
        .step_by(2)
        .map(|part| part.replace(|letter: char| letter.is_ascii_digit(), ""))
        .collect::<Vec<_>>()
        .join("`")
}

fn render(all: &[&Diagnostic], kinds: &[Kind<'_>], colour: bool) -> String {
    let mut out = String::new();
    for Kind { first, more } in kinds.iter().take(RENDERED_MAX) {
        out.push_str(&render_one(first, colour));
        if let [second] = more.as_slice() {
            out.push_str(&format!("\n{}", render_one(second, colour)));
        } else if !more.is_empty() {
            let places: Vec<String> = more.iter().filter_map(|one| one.at.as_ref()).take(PLACES_SHOWN).map(Location::to_string).collect();
            let rest = if more.len() > PLACES_SHOWN { ", …" } else { "" };
            let places = if places.is_empty() { String::new() } else { format!(": {}{rest}", places.join(", ")) };
            out.push_str(&format!("{} more like it{places}\n", more.len()));
        }
        out.push('\n');
    }
    if kinds.len() > RENDERED_MAX {
        out.push_str(&format!("… and {} more\n", kinds.len() - RENDERED_MAX));
    }
    if !all.is_empty() {
        out.push_str(&count_line(all));
        out.push('\n');
    }
    out
}

fn count_line(all: &[&Diagnostic]) -> String {
    let words = [Severity::Error, Severity::Warning, Severity::Note].into_iter().filter_map(|severity| {
        let n = all.iter().filter(|d| d.severity == severity).count();
        (n > 0).then(|| counted(n, severity.word()))
    });
    words.collect::<Vec<_>>().join(", ")
}

fn render_one(diagnostic: &Diagnostic, colour: bool) -> String {
    let quotable = |at: &Location| {
        let (start, end) = at.bytes();
        let text = &at.source.text;
        let from = text.get(..start).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        let to = text.get(end..).and_then(|t| t.find('\n')).map_or(text.len(), |i| end + i);
        to - from <= QUOTED_LINE_BYTES_MAX
    };
    let beside_word = RENDER_WIDTH - SEVERITY_MARGIN - diagnostic.severity.word().len();
    let message = wrapped(&diagnostic.message, beside_word, RENDER_WIDTH - MESSAGE_MARGIN);
    let mut report = MietteDiagnostic::new(message).with_severity(match diagnostic.severity {
        Severity::Error => miette::Severity::Error,
        Severity::Warning => miette::Severity::Warning,
        Severity::Note => miette::Severity::Advice,
    });
    if let Some(help) = &diagnostic.help {
        report = report.with_help(wrapped(help, RENDER_WIDTH - HELP_MARGIN, RENDER_WIDTH - HELP_MARGIN));
    }
    let Some(at) = diagnostic.at.as_ref().filter(|at| quotable(at)) else {
        let place = diagnostic.at.as_ref().map(|at| format!("  at {at}\n")).unwrap_or_default();
        return format!("{}{place}", draw(&report.into(), colour));
    };
    let mut elsewhere = String::new();
    let mut labels = vec![LabeledSpan::new_primary_with_span(None, source_span(at))];
    for (location, text) in &diagnostic.labels {
        if Arc::ptr_eq(&location.source, &at.source) && quotable(location) {
            labels.push(LabeledSpan::new_with_span(Some(text.clone()), source_span(location)));
        } else {
            elsewhere.push_str(&format!("  {location}: {text}\n"));
        }
    }
    let source = NamedSource::new(&at.source.name, at.source.text.clone());
    let report = miette::Report::new(report.with_labels(labels)).with_source_code(source);
    format!("{}{elsewhere}", draw(&report, colour))
}

/// The bytes for the renderer; an empty place takes the character there so that a caret shows.
fn source_span(at: &Location) -> miette::SourceSpan {
    let (start, end) = at.bytes();
    (start, end - start).into()
}

fn draw(report: &miette::Report, colour: bool) -> String {
    let mut theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    theme.characters.error = "error:".to_string();
    theme.characters.warning = "warning:".to_string();
    theme.characters.advice = "note:".to_string();
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(RENDER_WIDTH)
        .with_links(false)
        .with_context_lines(1)
        .with_wrap_lines(false);
    let mut out = String::new();
    match handler.render_report(&mut out, report.as_ref()) {
        Ok(()) => flush_left(&out),
        Err(_) => format!("{report}\n"),
    }
}

/// A text in lines of at most so many letters, the first and the others, where its words are not longer.
fn wrapped(text: &str, first: usize, others: usize) -> String {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut words = paragraph.split(' ');
        let mut line = words.next().unwrap_or_default().to_owned();
        for word in words {
            let limit = if lines.is_empty() { first } else { others };
            if line.chars().count() + 1 + word.chars().count() > limit {
                lines.push(std::mem::replace(&mut line, word.to_owned()));
            } else {
                line.push(' ');
                line.push_str(word);
            }
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// Message and help begin in the first column; within the excerpt the renderer's columns stand below each other.
fn flush_left(rendered: &str) -> String {
    let mut is_excerpt = false;
    let lines = rendered.lines().map(|line| {
        is_excerpt |= line.trim_start().starts_with("╭─");
        let line_is_excerpt = is_excerpt;
        is_excerpt &= !line.trim_start().starts_with("╰─");
        format!("{}\n", if line_is_excerpt { line } else { line.strip_prefix("  ").unwrap_or(line) }.trim_end())
    });
    lines.collect()
}

/// The findings for a program: an array of objects with severity, message, and where known file, line, column, labels and help; sorted.
pub fn render_json(diagnostics: &[Diagnostic]) -> serde_json::Value {
    let place = |at: &Location| {
        let end = Location { source: Arc::clone(&at.source), span: Span::new(at.span.end, at.span.end) };
        serde_json::json!({
            "file": at.source.name, "line": at.line(), "column": at.column(),
            "endLine": end.line(), "endColumn": end.column(),
        })
    };
    let object = |d: &Diagnostic| {
        let mut object = serde_json::json!({ "severity": d.severity.word(), "message": d.message });
        if let Some(at) = &d.at {
            object["at"] = place(at);
        }
        if !d.labels.is_empty() {
            let label = |(at, text): &(Location, String)| serde_json::json!({ "at": place(at), "text": text });
            object["labels"] = d.labels.iter().map(label).collect();
        }
        if let Some(help) = &d.help {
            object["help"] = serde_json::Value::from(help.as_str());
        }
        object
    };
    sorted(diagnostics).into_iter().map(object).collect()
}

/// Letters with which a name must begin to be taken for the beginning of another.
const BEGINNING_MIN: usize = 4;

/// The name most like the wanted one, if any is near enough to be a slip: case apart, a third of its letters changed, or
/// its end left out.
pub fn nearest<'a>(wanted: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wanted.to_lowercase();
    let scored = among.filter(|name| *name != wanted).filter_map(|name| {
        let other = name.to_lowercase();
        let (own, other) = after_common_path(&lower, &other);
        let limit = match own.chars().count() {
            // Any letter is one change from any other.
            1 => 0,
            letters => (letters / 3).max(1),
        };
        let begins = own.len().min(other.len()) >= BEGINNING_MIN && (own.starts_with(other) || other.starts_with(own));
        let distance = strsim::damerau_levenshtein(own, other);
        (distance <= limit || begins).then_some((distance, name))
    });
    scored.min().map(|(_, name)| name)
}

/// Of two URLs only what differs counts: else every value set of a publisher is like every other.
fn after_common_path<'a>(left: &'a str, right: &'a str) -> (&'a str, &'a str) {
    let common = left.bytes().zip(right.bytes()).take_while(|(one, other)| one == other).count();
    let cut = left.as_bytes().get(..common).and_then(|same| same.iter().rposition(|byte| *byte == b'/')).map_or(0, |slash| slash + 1);
    (left.get(cut..).unwrap_or(left), right.get(cut..).unwrap_or(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<SourceFile> {
        SourceFile::new("remission.cql", "library R\ndefine \"A\":\n  exists \"B\"\n")
    }

    #[test]
    fn a_location_counts_lines_and_characters_from_one() {
        let source = SourceFile::new("x", "é1\n2é3");
        let at = Location::new(&source, Span::new(7, 8));
        assert_eq!((at.line(), at.column(), at.text()), (2, 3, "3"));
        assert_eq!(source.offset(2, 3), 7);
        assert_eq!(source.offset(9, 9), source.text.len());
        assert_eq!(Location::new(&source, Span::new(90, 99)).text(), "");
    }

    #[test]
    fn a_finding_shows_its_line_a_caret_and_what_to_do() {
        let at = Location::new(&file(), Span::new(30, 33));
        let finding = Diagnostic::error("no definition is named `B`").at(at).help("did you mean `A`?");
        insta::assert_snapshot!(render_human(&[finding], false));
    }

    #[test]
    fn a_name_is_not_broken_at_its_hyphens() {
        let reason = "its address is that of another guide, and ".repeat(2);
        let finding = Diagnostic::error(format!("{reason}the extension is `cqfm-criteriaReference`")).help(format!("{reason}expected is the one of `urn:x/cqfm-aggregate-Method`"));
        let expected = "error: its address is that of another guide, and its address is that of another guide, and the extension is
│ `cqfm-criteriaReference`
help: its address is that of another guide, and its address is that of another guide, and expected is the one of
      `urn:x/cqfm-aggregate-Method`
1 error
";
        let lines: Vec<&str> = expected.lines().collect();
        let found = render_human(&[finding], false);
        assert_eq!(found.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(), lines, "{found}");
    }

    #[test]
    fn a_text_too_long_to_read_is_quoted_by_its_ends() {
        let long = "9".repeat(100_000);
        let message = Diagnostic::error(format!("`{long}` is no `Integer`")).message;
        assert_eq!(message, format!("`{0}…{0}` is no `Integer`", "9".repeat(40)));
        let message = format!("`{}` is short, and {long} stands outside", "é".repeat(200));
        assert_eq!(Diagnostic::error(message.clone()).message, message);
    }

    #[test]
    fn one_of_a_kind_is_not_many() {
        let counts = [(1, "gap", "1 gap"), (0, "gap", "0 gaps"), (2, "query", "2 queries"), (2, "day", "2 days"), (3, "branch", "3 branches")];
        for (count, noun, expected) in counts {
            assert_eq!(counted(count, noun), expected);
        }
    }

    #[test]
    fn findings_are_sorted_deduplicated_and_counted() {
        let source = file();
        let late = Diagnostic::error("late").at(Location::new(&source, Span::new(30, 33)));
        let early = Diagnostic::warning("early").at(Location::new(&source, Span::new(8, 9)));
        let text = render_human(&[late.clone(), early, late], false);
        assert!(text.find("early") < text.find("late"), "{text}");
        assert!(text.ends_with("1 error, 1 warning\n"), "{text}");
        assert_eq!(render_human(&[], false), "");
    }

    #[test]
    fn what_is_alike_is_shown_once_with_how_many_there_are_and_where() {
        let source = SourceFile::new("measure.json", "one\ntwo\nthree\nfour\n");
        let warning =
            |name: &str, start: u32| Diagnostic::warning(format!("`{name}` is always null: everybody is `unknown` by it")).at(Location::new(&source, Span::new(start, start + 1)));
        let error = |name: &str| Diagnostic::error(format!("no definition is named `{name}`"));
        let all = [
            warning("a", 0),
            warning("b", 4),
            warning("c", 8),
            error("d"),
            error("e"),
            Diagnostic::warning("value set `x` holds 9 of 10 codes"),
            Diagnostic::warning("value set `y` holds 1 of 2 codes"),
        ];
        let told = render_folded(&all, false);
        assert!(told.contains("`a` is always null") && told.contains("\n2 more like it: measure.json:2:1, measure.json:3:1\n") && !told.contains("`b` is"), "{told}");
        assert!(told.contains("`d`") && told.contains("`e`") && told.contains("`x` holds 9 of 10") && told.contains("`y` holds 1 of 2"), "{told}");
        let brief = "warning: value set `x` holds 9 of 10 codes (2 times)\nwarning: `a` is always null: everybody is `unknown` by it (3 times, first at measure.json:1:1)\n";
        assert_eq!(render_brief(&all.into_iter().filter(|one| !one.is_error()).collect::<Vec<_>>()), brief);
        assert!(told.ends_with("2 errors, 5 warnings\n"), "{told}");
    }

    #[test]
    fn json_says_file_line_and_column() {
        let at = Location::new(&file(), Span::new(30, 33));
        let json = render_json(&[Diagnostic::error("m").at(at).help("h")]);
        let expected = serde_json::json!([{ "severity": "error", "message": "m", "help": "h",
            "at": { "file": "remission.cql", "line": 3, "column": 9, "endLine": 3, "endColumn": 12 } }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn the_nearest_name_is_a_slip_away_or_none() {
        let names = ["Encounter", "Condition", "Observation"];
        assert_eq!(nearest("Observaton", names.into_iter()), Some("Observation"));
        assert_eq!(nearest("encounter", names.into_iter()), Some("Encounter"));
        assert_eq!(nearest("Medication", names.into_iter()), None);
        assert_eq!(nearest("", names.into_iter()), None);
    }
}
