//! Newline-delimited JSON: a bounded splitter that forgives what servers send and names what it cannot take.

use std::io::{self, BufRead};

/// Longest line that is kept, in bytes. Real resources of this size exist; larger ones are quarantined.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// So much of a buffer is looked at ahead, in bytes: what the processor still has at hand when the lines are split.
const AHEAD_BYTES_MAX: usize = 16 << 10;

/// One step of [`Lines`].
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line's content, without its end and without a byte order mark; never blank.
    Text {
        /// 1-based line number.
        number: u64,
        /// The content.
        bytes: &'a [u8],
        /// False for a last line without its newline: complete JSON, or a file cut short.
        terminated: bool,
        /// Where in the input the content begins, in bytes.
        at: u64,
        /// The content and some of what follows it in memory: to search many lines at once.
        ahead: &'a [u8],
    },
    /// A line above the limit; its content was skipped.
    TooLong {
        /// 1-based line number.
        number: u64,
        /// Its length, in bytes.
        length: u64,
    },
}

/// Splits a stream into lines: LF or CRLF, a byte order mark at the start, blank lines anywhere, and a missing last
/// newline are all accepted. Memory is bounded by the limit.
///
/// ```
/// use watershed::fhir::ndjson::{Line, Lines};
///
/// let mut lines = Lines::with_limit(&b"{\"id\":1}\r\n\n{\"id\":\"much too long\"}\n"[..], 12);
/// assert!(matches!(lines.next_line()?, Some(Line::Text { number: 1, bytes: b"{\"id\":1}", terminated: true, .. })));
/// assert_eq!(lines.next_line()?, Some(Line::TooLong { number: 3, length: 22 }));
/// assert_eq!(lines.next_line()?, None);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Lines<R> {
    input: R,
    limit: usize,
    number: u64,
    /// Bytes before the next line, and where lines begin no more.
    offset: u64,
    end: u64,
    /// Bytes of the input that the last line, handed out from its buffer, still holds.
    lent: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Splits `input`, with [`LINE_BYTES_MAX`] as the limit.
    pub fn new(input: R) -> Lines<R> {
        Lines::with_limit(input, LINE_BYTES_MAX)
    }

    /// Splits `input` with another limit, in bytes.
    pub fn with_limit(input: R, limit: usize) -> Lines<R> {
        Lines { input, limit, number: 0, offset: 0, end: u64::MAX, lent: 0, line: Vec::new() }
    }

    /// Splits only lines that begin before the byte `end` of `input`; the last of them may reach beyond it.
    pub fn beginning_before(self, end: u64) -> Lines<R> {
        Lines { end, ..self }
    }

    /// How many lines were met, blank ones included.
    pub fn met(&self) -> u64 {
        self.number
    }

    /// The next line that is not blank; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.input.consume(std::mem::take(&mut self.lent));
            if self.offset >= self.end {
                return Ok(None);
            }
            // A line that lies in the input's buffer is not copied.
            if let Some(length) = self.buffered()? {
                self.number += 1;
                self.offset += length as u64 + 1;
                self.lent = length + 1;
                let number = self.number;
                let buffer = self.input.fill_buf()?.get(..length).unwrap_or_default();
                let (start, end) = content(buffer, number == 1);
                if end - start > self.limit || length > self.limit + 4 {
                    return Ok(Some(Line::TooLong { number, length: length as u64 }));
                }
                if start == end {
                    continue;
                }
                // The buffer is asked for again because a slice that may be returned cannot be looked at before.
                let ahead = self.input.fill_buf()?.get(start..).unwrap_or_default();
                let (bytes, ahead) = (ahead.get(..end - start).unwrap_or_default(), ahead.get(..AHEAD_BYTES_MAX.max(end - start)).unwrap_or(ahead));
                return Ok(Some(Line::Text { number, bytes, terminated: true, at: self.offset - (length - start + 1) as u64, ahead }));
            }
            self.line.clear();
            let mut length: u64 = 0;
            let terminated = loop {
                let buffer = match self.input.fill_buf() {
                    Ok(buffer) => buffer,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                if buffer.is_empty() {
                    break false;
                }
                let (taken, ended) = match memchr::memchr(b'\n', buffer) {
                    Some(end) => (end, true),
                    None => (buffer.len(), false),
                };
                length = length.saturating_add(taken as u64);
                self.offset = self.offset.saturating_add(taken as u64 + u64::from(ended));
                // Two bytes of room: a carriage return or part of a byte order mark do not make a line too long.
                let room = (self.limit + 4).saturating_sub(self.line.len()).min(taken);
                self.line.extend_from_slice(buffer.get(..room).unwrap_or(buffer));
                self.input.consume(taken + usize::from(ended));
                if ended {
                    break true;
                }
            };
            if !terminated && length == 0 {
                return Ok(None);
            }
            self.number += 1;
            let number = self.number;
            if length > self.limit as u64 + 4 {
                return Ok(Some(Line::TooLong { number, length }));
            }
            let (start, end) = content(&self.line, number == 1);
            if start == end {
                continue;
            }
            if end - start > self.limit {
                return Ok(Some(Line::TooLong { number, length }));
            }
            let bytes = self.line.get(start..end).unwrap_or_default();
            let at = self.offset - length - u64::from(terminated) + start as u64;
            return Ok(Some(Line::Text { number, bytes, terminated, at, ahead: bytes }));
        }
    }

    /// The length of the next line, if it lies in the input's buffer with its end.
    fn buffered(&mut self) -> io::Result<Option<usize>> {
        loop {
            match self.input.fill_buf() {
                Ok(buffer) => return Ok(memchr::memchr(b'\n', buffer)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One line from [`Pushed`].
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A line's content; never blank.
    Text {
        /// 1-based line number.
        number: u64,
        /// The content.
        bytes: &'a [u8],
    },
    /// A line above the limit.
    TooLong {
        /// 1-based line number.
        number: u64,
        /// Its length, in bytes.
        length: u64,
        /// Its first bytes.
        start: &'a [u8],
    },
}

/// The same splitter for data that arrives in pieces, as a download does.
#[derive(Debug, Default)]
pub struct Pushed {
    line: Vec<u8>,
    length: u64,
    number: u64,
}

impl Pushed {
    /// Takes a piece; calls `each` for every line that ends in it.
    pub fn push<E>(&mut self, mut piece: &[u8], mut each: impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (head, tail) = piece.split_at(end);
            self.keep(head);
            self.emit(&mut each)?;
            piece = tail.get(1..).unwrap_or_default();
        }
        self.keep(piece);
        Ok(())
    }

    /// Ends the data: a last line without its newline counts.
    pub fn finish<E>(mut self, mut each: impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.length > 0 { self.emit(&mut each) } else { Ok(()) }
    }

    fn keep(&mut self, piece: &[u8]) {
        self.length = self.length.saturating_add(piece.len() as u64);
        let room = (LINE_BYTES_MAX + 4).saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(piece.get(..room).unwrap_or_default());
    }

    fn emit<E>(&mut self, each: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        self.number += 1;
        let length = std::mem::take(&mut self.length);
        let (start, end) = content(&self.line, self.number == 1);
        let bytes = self.line.get(start..end).unwrap_or_default();
        let outcome = if length > LINE_BYTES_MAX as u64 + 4 || bytes.len() > LINE_BYTES_MAX {
            each(Event::TooLong { number: self.number, length, start: bytes })
        } else if bytes.is_empty() {
            Ok(())
        } else {
            each(Event::Text { number: self.number, bytes })
        };
        self.line.clear();
        outcome
    }
}

/// Where a line's content starts and ends: without byte order mark and without JSON's white space at both ends.
fn content(line: &[u8], first: bool) -> (usize, usize) {
    let mark = if first && line.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let rest = line.get(mark..).unwrap_or_default();
    let Some(start) = rest.iter().position(|byte| !blank(byte)) else { return (mark, mark) };
    let end = rest.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    (mark + start, mark + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(input: &[u8], limit: usize, chunk: usize) -> Vec<Result<Vec<u8>, u64>> {
        let mut lines = Lines::with_limit(io::BufReader::with_capacity(chunk, input), limit);
        let mut out = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            out.push(match line {
                Line::Text { bytes, .. } => Ok(bytes.to_vec()),
                Line::TooLong { length, .. } => Err(length),
            });
        }
        out
    }

    #[test]
    fn framing_that_servers_really_send() {
        let cases: &[(&[u8], &[&str])] = &[
            (b"", &[]),
            (b"\n\n", &[]),
            (b"{}", &["{}"]),
            (b"{}\n{}\n", &["{}", "{}"]),
            (b"{}\r\n{}\r\n", &["{}", "{}"]),
            (b"\xEF\xBB\xBF{}\n", &["{}"]),
            (b"\xEF\xBB\xBF\n{}", &["{}"]),
            (b"\n\r\n  \t\n{}\n\n", &["{}"]),
            (b"  {} \n", &["{}"]),
        ];
        for (input, expected) in cases {
            for chunk in [1, 2, 3, 8192] {
                let found: Vec<String> = split(input, 100, chunk).into_iter().map(|line| String::from_utf8(line.unwrap()).unwrap()).collect();
                assert_eq!(&found, expected, "{input:?} by {chunk}");
            }
        }
    }

    #[test]
    fn a_long_line_is_named_and_the_next_one_still_comes() {
        assert_eq!(split(b"0123456789abcdef\n{}\n", 10, 4), vec![Err(16), Ok(b"{}".to_vec())]);
        assert_eq!(split(b"0123456789\r\n", 10, 4), vec![Ok(b"0123456789".to_vec())]);
        assert_eq!(split(b"01234567891\n", 10, 4), vec![Err(11)]);
    }

    #[test]
    fn a_missing_last_newline_is_told() {
        let mut lines = Lines::new(&b"{}\n{}"[..]);
        assert!(matches!(lines.next_line().unwrap(), Some(Line::Text { number: 1, terminated: true, .. })));
        assert!(matches!(lines.next_line().unwrap(), Some(Line::Text { number: 2, terminated: false, .. })));
        assert!(lines.next_line().unwrap().is_none());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_invented_or_dependent_on_buffering(input in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), Just(b'a'), Just(b'{'), any::<u8>()], 0..200),
            limit in 1usize..40, chunk in 1usize..16)
        {
            let found = split(&input, limit, chunk);
            prop_assert_eq!(&found, &split(&input, limit, 4096));
            // A blank line beyond the limit cannot be known to be blank: it is told as too long.
            let expected: Vec<Vec<u8>> = input.split(|byte| *byte == b'\n').enumerate()
                .map(|(index, line)| (line.len() > limit + 4, line.strip_prefix(b"\xEF\xBB\xBF").filter(|_| index == 0).unwrap_or(line)))
                .map(|(long, line)| (long, line.trim_ascii_start_and_end()))
                .filter(|(long, line)| *long || !line.is_empty()).map(|(_, line)| line).collect();
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                match found {
                    Ok(bytes) => { prop_assert_eq!(bytes, expected); prop_assert!(bytes.len() <= limit); }
                    Err(length) => prop_assert!(*length as usize >= expected.len() && *length as usize > limit),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_of_a_file_hold_each_line_once(input in proptest::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n')], 0..120),
            piece in 1usize..40, chunk in 1usize..16)
        {
            let whole = split(&input, 1000, 4096);
            let mut found = Vec::new();
            let mut met = 0;
            for start in (0..input.len()).step_by(piece) {
                // As a reader does that begins in the middle: from the first line that begins here or later.
                let from = if start == 0 { 0 } else { input[start - 1..].iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| start + at) };
                let end = ((start + piece).min(input.len())).saturating_sub(from) as u64;
                let mut lines = Lines::with_limit(io::BufReader::with_capacity(chunk, &input[from..]), 1000).beginning_before(end);
                while let Some(Line::Text { bytes, .. }) = lines.next_line().unwrap() {
                    found.push(Ok(bytes.to_vec()));
                }
                met += lines.met();
            }
            prop_assert_eq!(found, whole);
            let ends = input.iter().filter(|byte| **byte == b'\n').count() as u64;
            prop_assert_eq!(met, ends + u64::from(input.last().is_some_and(|byte| *byte != b'\n')));
        }
    }

    trait Trim {
        fn trim_ascii_start_and_end(&self) -> Vec<u8>;
    }

    impl Trim for [u8] {
        fn trim_ascii_start_and_end(&self) -> Vec<u8> {
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
            let start = self.iter().position(|byte| !blank(byte)).unwrap_or(self.len());
            let end = self.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
            self[start..end].to_vec()
        }
    }
}
