//! Words, literals and symbols of CQL text, each with its exact place.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, SourceFile, Span};

/// Longest text that is read; spans hold 32 bits, and no library of people's comes near.
pub const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A bare word: identifier or keyword.
    Word,
    /// `"…"` or `` `…` ``.
    Quoted,
    /// `'…'`.
    String,
    /// Digits.
    Integer,
    /// Digits and `L`.
    Long,
    /// Digits, point, digits.
    Decimal,
    /// `@2012-02-29`.
    Date,
    /// `@2012-02-29T10:00`.
    DateTime,
    /// `@T10:00`.
    Time,
    /// Punctuation or operator.
    Symbol,
    /// The end of the text.
    End,
}

/// One token.
#[derive(Debug, Clone)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// The text; of strings and quoted names the content with escapes resolved.
    pub text: Arc<str>,
    /// Where it stands.
    pub at: Span,
    /// Whether it is the first token of its line: where recovery may start again.
    pub first_on_line: bool,
}

const SYMBOLS: [&str; 32] = [
    "->", "<=", ">=", "!=", "!~", "(", ")", "[", "]", "{", "}", "<", ">", "=", "~", "+", "-", "*", "/", "^", "&", "|", ",", ".", ":", ";", "%", "$this", "$index", "$total", "?",
    "#",
];

/// Operators of other languages and of word processors, with what CQL writes in their place.
const FOREIGN: [(&str, TokenKind, &str); 12] = [
    ("&&", TokenKind::Word, "and"),
    ("||", TokenKind::Word, "or"),
    ("==", TokenKind::Symbol, "="),
    ("<>", TokenKind::Symbol, "!="),
    ("\u{2013}", TokenKind::Symbol, "-"),
    ("\u{2014}", TokenKind::Symbol, "-"),
    ("\u{2212}", TokenKind::Symbol, "-"),
    ("\u{d7}", TokenKind::Symbol, "*"),
    ("\u{f7}", TokenKind::Symbol, "/"),
    ("\u{2264}", TokenKind::Symbol, "<="),
    ("\u{2265}", TokenKind::Symbol, ">="),
    ("\u{2260}", TokenKind::Symbol, "!="),
];

/// A text as tokens.
#[derive(Debug)]
pub struct Lexed {
    /// All tokens, the last one `End`.
    pub tokens: Vec<Token>,
    /// What could not be read.
    pub faults: Vec<Diagnostic>,
    /// Whether a text or comment that is never closed swallowed what follows it.
    pub is_cut: bool,
}

/// Reads a text to its end, whatever stands in it.
pub fn lex(source: &Arc<SourceFile>) -> Lexed {
    let mut lexer = Lexer { source, text: &source.text, at: 0, tokens: Vec::new(), faults: Vec::new(), fresh_line: true, is_cut: false };
    if source.text.len() > TEXT_BYTES_MAX {
        lexer.fault(0, 0, format!("the text has {} bytes; at most {TEXT_BYTES_MAX} are read", source.text.len()), None);
        lexer.at = source.text.len();
    }
    while lexer.at < lexer.text.len() {
        lexer.step();
    }
    lexer.push(TokenKind::End, Arc::from(""), lexer.at);
    Lexed { tokens: lexer.tokens, faults: lexer.faults, is_cut: lexer.is_cut }
}

struct Lexer<'a> {
    source: &'a Arc<SourceFile>,
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
    faults: Vec<Diagnostic>,
    fresh_line: bool,
    is_cut: bool,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn push(&mut self, kind: TokenKind, text: Arc<str>, start: usize) {
        let at = Span::new(start as u32, self.at as u32);
        self.tokens.push(Token { kind, text, at, first_on_line: self.fresh_line });
        self.fresh_line = false;
    }

    fn fault(&mut self, start: usize, end: usize, message: String, help: Option<&str>) {
        let at = Location::new(self.source, Span::new(start as u32, end as u32));
        let mut fault = Diagnostic::error(message).at(at);
        fault.help = help.map(str::to_string);
        self.faults.push(fault);
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return };
        match first {
            '\n' => {
                self.at += 1;
                self.fresh_line = true;
            }
            c if c.is_whitespace() || c == '\u{feff}' => self.at += c.len_utf8(),
            '/' if rest.starts_with("//") => self.at += rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => self.block_comment(rest),
            '\'' | '"' | '`' => self.quoted(first),
            '@' => self.date_or_time(rest),
            '0'..='9' => self.number(rest),
            c if c.is_alphabetic() || c == '_' => self.word(rest),
            '\u{2018}' | '\u{201c}' => self.curly(first, rest),
            other => self.symbol(rest, other),
        }
    }

    /// A word; with letters that only a quoted name may have, the name that it is meant to be.
    fn word(&mut self, rest: &str) {
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or("");
        if word.is_ascii() {
            return self.take(TokenKind::Word, length);
        }
        let message = format!("`{word}` has letters that no plain name has");
        self.fault(self.at, self.at + length, message, Some(&format!("write \"{word}\", in double quotes")));
        self.take(TokenKind::Quoted, length);
    }

    fn take(&mut self, kind: TokenKind, length: usize) {
        let start = self.at;
        self.at += length;
        let text = self.text.get(start..self.at).unwrap_or("");
        self.push(kind, Arc::from(text), start);
    }

    fn symbol(&mut self, rest: &str, first: char) {
        if let Some((foreign, kind, ours)) = FOREIGN.iter().find(|(foreign, ..)| rest.starts_with(foreign)) {
            let start = self.at;
            self.at += foreign.len();
            self.fault(start, self.at, format!("`{foreign}` is no operator of CQL"), Some(&format!("write `{ours}`")));
            return self.push(*kind, Arc::from(*ours), start);
        }
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => self.take(TokenKind::Symbol, symbol.len()),
            None => {
                let end = self.at + first.len_utf8();
                let help = match first {
                    '\u{2018}'..='\u{201f}' => Some("write straight quotes: ' around text, \" around names"),
                    '!' => Some("not equal is `!=`, not equivalent is `!~`, negation is `not`"),
                    _ => None,
                };
                self.fault(self.at, end, format!("`{}` means nothing in CQL", first.escape_debug()), help);
                self.at = end;
            }
        }
    }

    /// Quotes of a word processor: said once, and read as what they stand for.
    fn curly(&mut self, open: char, rest: &str) {
        let (close, kind, plain) = if open == '\u{201c}' { ('\u{201d}', TokenKind::Quoted, '"') } else { ('\u{2019}', TokenKind::String, '\'') };
        let start = self.at;
        let line = rest.split('\n').next().unwrap_or(rest);
        let inner = line.get(open.len_utf8()..).unwrap_or("");
        let length = inner.find(close).or_else(|| inner.find(plain)).unwrap_or(inner.len());
        let text = inner.get(..length).unwrap_or("");
        self.at += open.len_utf8() + length + inner.get(length..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        self.fault(start, self.at, format!("`{open}` is a quote of a word processor"), Some(&format!("write {plain}{text}{plain}, with straight quotes")));
        self.push(kind, Arc::from(text), start);
    }

    fn block_comment(&mut self, rest: &str) {
        let end = rest.get(2..).and_then(|inner| inner.find("*/"));
        match end {
            Some(end) => {
                self.fresh_line |= rest.get(..end + 2).is_some_and(|comment| comment.contains('\n'));
                self.at += end + 4;
            }
            None => {
                self.is_cut = true;
                self.fault(self.at, self.at + 2, "this comment is never closed".to_string(), Some("close it with `*/`"));
                self.at = self.text.len();
            }
        }
    }

    fn quoted(&mut self, quote: char) {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                let (what, close) = if quote == '\'' { ("text", "`'`") } else { ("name", "the same quote") };
                self.is_cut = true;
                let start = self.first_open(quote).unwrap_or(start);
                let line_end = self.text.get(start..).and_then(|t| t.find('\n')).map_or(self.text.len(), |i| start + i);
                self.fault(start, line_end, format!("this {what} is never closed"), Some(&format!("close it with {close}")));
                return;
            };
            self.at += c.len_utf8();
            match c {
                '\\' => self.escape(&mut value),
                c if c == quote => break,
                c => value.push(c),
            }
        }
        let kind = if quote == '\'' { TokenKind::String } else { TokenKind::Quoted };
        self.push(kind, Arc::from(value), start);
    }

    /// Where a quote was forgotten, when the last of the text finds no partner: most likely at the first that runs over the
    /// end of its line. What was read from there on is given up.
    fn first_open(&mut self, quote: char) -> Option<usize> {
        let runs_on = |token: &Token| {
            let written = self.text.get(token.at.start as usize..token.at.end as usize).unwrap_or("");
            written.starts_with(quote) && written.contains('\n')
        };
        let at = self.tokens.iter().position(runs_on)?;
        let start = self.tokens.get(at)?.at.start as usize;
        self.tokens.truncate(at);
        self.faults.retain(|fault| fault.at.as_ref().is_none_or(|at| (at.span.start as usize) < start));
        Some(start)
    }

    /// After a backslash. What is no escape of CQL stays as written, backslash included.
    fn escape(&mut self, value: &mut String) {
        let Some(c) = self.rest().chars().next() else { return };
        let plain = match c {
            '\'' | '"' | '`' | '\\' | '/' => Some(c),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' => {
                let digits = self.rest().get(1..5).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                match digits.and_then(char::from_u32) {
                    Some(unicode) => {
                        self.at += 4;
                        Some(unicode)
                    }
                    None => {
                        self.fault(self.at - 1, self.at + 1, "`\\u` needs four hexadecimal digits of a character".to_string(), None);
                        Some('\u{fffd}')
                    }
                }
            }
            _ => None,
        };
        match plain {
            Some(plain) => {
                self.at += c.len_utf8();
                value.push(plain);
            }
            None => value.push('\\'),
        }
    }

    fn number(&mut self, rest: &str) {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        let after = rest.get(whole..).unwrap_or("");
        let fraction = after.strip_prefix('.').map_or(0, digits);
        if fraction > 0 {
            self.take(TokenKind::Decimal, whole + 1 + fraction);
        } else if after.starts_with('L') {
            self.take(TokenKind::Long, whole + 1);
        } else {
            self.take(TokenKind::Integer, whole);
        }
        self.ends_here("a number");
    }

    /// A literal that runs into letters is a slip, and would otherwise read as a query with an alias.
    fn ends_here(&mut self, what: &str) {
        let rest = self.rest();
        // `@2024-2-3` would otherwise read as a year less two less three.
        let is_cut_date = what == "a date" && matches!(rest.as_bytes(), [b'-', digit, ..] if digit.is_ascii_digit());
        let run = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || is_cut_date && c == '-')).unwrap_or(rest.len());
        if run == 0 {
            return;
        }
        let help = match what {
            "a time" => "a time of day has no offset",
            _ if is_cut_date => "months and days have two digits, as in `@2012-02-29`",
            "a number" => "a unit is in single quotes, as `5 'mg'`, or a word of its own, as `3 days`",
            _ => "write `@2012-02-29` or `@2012-02-29T10:30:00.0+01:00`",
        };
        let found = rest.get(..run).unwrap_or("").to_string();
        self.fault(self.at, self.at + run, format!("{what} runs into `{found}`"), Some(help));
        self.at += run;
    }

    fn date_or_time(&mut self, rest: &str) {
        let body = rest.get(1..).unwrap_or("");
        let (kind, length) = if let Some(time) = body.strip_prefix('T') {
            (TokenKind::Time, 1 + time_length(time))
        } else {
            let date = date_length(body);
            match body.get(date..).and_then(|after| after.strip_prefix('T')) {
                Some(time) if date > 0 => {
                    let clock = time_length(time);
                    let offset = if clock > 0 { offset_length(time.get(clock..).unwrap_or("")) } else { 0 };
                    (TokenKind::DateTime, date + 1 + clock + offset)
                }
                _ => (TokenKind::Date, date),
            }
        };
        let bad = length == 0 || (kind == TokenKind::Time && length == 1);
        if bad {
            let end = self.at + 1 + body.find(char::is_whitespace).unwrap_or(body.len());
            let help = "write `@2012-02-29`, `@2012-02-29T10:30:00.0` or `@T10:30`";
            self.fault(self.at, end, "this is no date, date and time, or time".to_string(), Some(help));
            self.at = end;
            return;
        }
        self.take(kind, 1 + length);
        self.ends_here(if kind == TokenKind::Time { "a time" } else { "a date" });
    }
}

/// Length of `dd` at the start, if both are digits.
fn two(text: &str) -> bool {
    matches!(text.as_bytes(), [a, b, ..] if a.is_ascii_digit() && b.is_ascii_digit())
}

/// `YYYY(-MM(-DD)?)?`
fn date_length(text: &str) -> usize {
    if !(two(text) && two(text.get(2..).unwrap_or(""))) {
        return 0;
    }
    let mut length = 4;
    for _ in 0..2 {
        match text.get(length..).and_then(|rest| rest.strip_prefix('-')) {
            Some(rest) if two(rest) => length += 3,
            _ => break,
        }
    }
    length
}

/// `hh(:mm(:ss(.f+)?)?)?`
fn time_length(text: &str) -> usize {
    if !two(text) {
        return 0;
    }
    let mut length = 2;
    for _ in 0..2 {
        match text.get(length..).and_then(|rest| rest.strip_prefix(':')) {
            Some(rest) if two(rest) => length += 3,
            _ => return length,
        }
    }
    let fraction = text.get(length..).and_then(|rest| rest.strip_prefix('.'));
    match fraction.map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count()) {
        Some(digits) if digits > 0 => length + 1 + digits,
        _ => length,
    }
}

/// `Z` or `+hh:mm`
fn offset_length(text: &str) -> usize {
    match text.as_bytes() {
        [b'Z', ..] => 1,
        [b'+' | b'-', ..] if two(text.get(1..).unwrap_or("")) && text.as_bytes().get(3) == Some(&b':') && two(text.get(4..).unwrap_or("")) => 6,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(TokenKind, String)> {
        let Lexed { tokens, faults, .. } = lex(&SourceFile::new("t", text));
        assert_eq!(faults, vec![], "{text}");
        tokens.into_iter().filter(|t| t.kind != TokenKind::End).map(|t| (t.kind, t.text.to_string())).collect()
    }

    #[test]
    fn every_kind_of_token_is_read() {
        use TokenKind::*;
        let cases = [
            ("\"a \\\" b\"", Quoted, "a \" b"),
            ("`a b`", Quoted, "a b"),
            ("'it\\'s \\u00e9'", String, "it's é"),
            ("12", Integer, "12"),
            ("12L", Long, "12L"),
            ("1.50", Decimal, "1.50"),
            ("@2012", Date, "@2012"),
            ("@2012-02-29", Date, "@2012-02-29"),
            ("@2012-02T", DateTime, "@2012-02T"),
            ("@2012-02-29T10:30:00.123-07:00", DateTime, "@2012-02-29T10:30:00.123-07:00"),
            ("@2012-02-29T10Z", DateTime, "@2012-02-29T10Z"),
            ("@T10:30", Time, "@T10:30"),
            ("_x1", Word, "_x1"),
            ("$this", Symbol, "$this"),
            ("!~", Symbol, "!~"),
        ];
        for (text, kind, value) in cases {
            assert_eq!(kinds(text), vec![(kind, value.to_string())], "{text}");
        }
        assert_eq!(kinds("1 // one\n/* two\n */ .5").len(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_reported_once_and_skipped() {
        for text in ["a § b", "@T06Z", "5mg", "@2012-02-29x", "'open", "/* open", "@x", "'\\uZZZZ'", "“x”"] {
            let Lexed { tokens, faults, .. } = lex(&SourceFile::new("t", text));
            assert!(!faults.is_empty(), "{text}");
            assert_eq!(tokens.last().map(|t| t.kind), Some(TokenKind::End), "{text}");
        }
    }
}
