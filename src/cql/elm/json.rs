//! JSON that knows where it stands: every value with the bytes of the document that it is, so that a fault can point there.

use jiter::{Jiter, JiterError, Peek};

use crate::diagnostic::Span;

/// Deepest nesting of brackets in a document; published ones have less than 200.
pub(super) const NESTING_MAX: usize = 1_500;

/// A value and its place.
#[derive(Debug)]
pub(super) struct Json {
    /// From its first byte to its last; of a quoted text with the quotes.
    pub at: Span,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Null,
    Boolean(bool),
    /// As written.
    Number(Box<str>),
    Text(Box<str>),
    Array(Vec<Json>),
    /// In their order; of two fields of one name the last one counts.
    Object(Vec<(Box<str>, Json)>),
}

/// Why a text is no JSON, and at which byte.
#[derive(Debug)]
pub(super) struct Fault {
    pub message: String,
    pub at: usize,
}

impl Json {
    /// Parses a whole text, which may begin with a byte order mark.
    pub fn parse(text: &str) -> Result<Json, Fault> {
        let bare = text.trim_start_matches('\u{feff}');
        let mut parser = Parser { json: Jiter::new(bare.as_bytes()), skipped: text.len() - bare.len() };
        let read = parser.json.peek().map_err(Fault::from).and_then(|peek| parser.value(peek, 0));
        let whole = read.and_then(|value| parser.json.finish().map(|()| value).map_err(Fault::from));
        whole.map_err(|fault| Fault { at: fault.at + parser.skipped, ..fault })
    }

    /// The field of that name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.fields().iter().rfind(|(own, _)| **own == *name).map(|(_, value)| value)
    }

    /// The field of that name, without the rest.
    pub fn into_field(self, name: &str) -> Option<Json> {
        match self.content {
            Content::Object(fields) => fields.into_iter().rfind(|(own, _)| **own == *name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The fields of an object; none of anything else.
    pub fn fields(&self) -> &[(Box<str>, Json)] {
        match &self.content {
            Content::Object(fields) => fields,
            _ => &[],
        }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Json]> {
        match &self.content {
            Content::Array(items) => Some(items),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self.content {
            Content::Boolean(truth) => Some(truth),
            _ => None,
        }
    }

    /// A text, or a number or Boolean as it is written.
    pub fn scalar(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) | Content::Number(text) => Some(text),
            Content::Boolean(truth) => Some(if *truth { "true" } else { "false" }),
            _ => None,
        }
    }

    /// Whether it says nothing: null, or an array without items.
    pub fn is_empty(&self) -> bool {
        matches!(self.content, Content::Null) || self.as_array().is_some_and(<[Json]>::is_empty)
    }
}

impl From<JiterError> for Fault {
    fn from(fault: JiterError) -> Fault {
        Fault { message: format!("this is not JSON: {}", fault.error_type), at: fault.index }
    }
}

struct Parser<'j> {
    json: Jiter<'j>,
    /// Bytes before what the parser sees.
    skipped: usize,
}

impl Parser<'_> {
    /// One value, inside of `depth` brackets.
    fn value(&mut self, peek: Peek, depth: usize) -> Result<Json, Fault> {
        let start = self.json.current_index();
        if depth > NESTING_MAX {
            return Err(Fault { message: format!("this ELM is nested deeper than {NESTING_MAX} brackets"), at: start });
        }
        let content = match peek {
            Peek::Null => self.json.known_null().map(|()| Content::Null)?,
            Peek::True | Peek::False => Content::Boolean(self.json.known_bool(peek)?),
            Peek::String => Content::Text(self.json.known_str()?.into()),
            Peek::Array => self.array(depth)?,
            Peek::Object => self.object(depth)?,
            _ => Content::Number(String::from_utf8_lossy(self.json.known_number_bytes(peek)?).into()),
        };
        let place = |at: usize| u32::try_from(at + self.skipped).unwrap_or(u32::MAX);
        Ok(Json { at: Span::new(place(start), place(self.json.current_index())), content })
    }

    fn array(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut items = Vec::new();
        let mut next = self.json.known_array()?;
        while let Some(peek) = next {
            items.push(self.value(peek, depth + 1)?);
            next = self.json.array_step()?;
        }
        Ok(Content::Array(items))
    }

    fn object(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut fields = Vec::new();
        let mut next: Option<Box<str>> = self.json.known_object()?.map(Box::from);
        while let Some(name) = next {
            let peek = self.json.peek()?;
            fields.push((name, self.value(peek, depth + 1)?));
            next = self.json.next_key()?.map(Box::from);
        }
        Ok(Content::Object(fields))
    }
}
