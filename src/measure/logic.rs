//! Whether two programs compute the same: a digest of the logic, in which neither comments nor layout count.

use super::compile::{self, Files};
use super::{definition, published};
use crate::cql::lexer::{self, TokenKind};
use crate::cql::typed::{Form, Library};
use crate::cql::{Models, Program};

/// The digest of a program and all that it includes, as `cql:…` or `elm:…`: the two forms of one logic have nothing in common.
/// `None` where there is none, as of a composite.
pub fn digest(program: &Program) -> Option<String> {
    let libraries = &program.tree().libraries;
    let form = if libraries.iter().any(|library| library.form == Form::Elm) { "elm" } else { "cql" };
    let mut texts: Vec<String> = libraries.iter().map(text).collect();
    texts.sort_unstable();
    (!texts.is_empty()).then(|| format!("{form}:{}", compile::digest_of(texts.iter().map(String::as_str))))
}

/// The same of a measure that is only known, not evaluated; `None` also where its logic is not here or wrong.
pub fn of(files: &Files) -> Option<String> {
    let definition = if published::is_published(&files.definition) { published::definition(&files.definition).0 } else { definition::parse(&files.definition).0 };
    digest(&compile::program(files, &definition?, compile::Logic::default(), &Models::default(), &mut Vec::new())?)
}

/// The words of a library, without what is between them.
fn text(library: &Library) -> String {
    if library.form == Form::Elm {
        return library.source.text.to_string();
    }
    let mut text = String::new();
    for token in lexer::lex(&library.source).tokens {
        let mark = match token.kind {
            TokenKind::String => "'",
            TokenKind::Quoted => "\"",
            TokenKind::Date | TokenKind::DateTime | TokenKind::Time => "@",
            _ => "",
        };
        [mark, &token.text, "\u{1f}"].iter().for_each(|part| text.push_str(part));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::{self, Libraries};
    use crate::diagnostic::SourceFile;

    #[test]
    fn comments_and_layout_are_no_logic_and_every_word_is() {
        let of = |text: &str| {
            let (program, found) = cql::compile(&[SourceFile::new("a.cql", text)], &Libraries::default(), &Models::default());
            digest(&program.unwrap_or_else(|| panic!("{found:?}"))).unwrap()
        };
        let first = of("library A version '1'\ndefine X: 1 + 2\n");
        assert!(first.starts_with("cql:") && first.len() == 68, "{first}");
        assert_eq!(first, of("// What is counted.\r\nlibrary A version '1'\r\n\r\ndefine X:\r\n  1 + 2 /* three */"));
        for other in ["library A version '1' define X: 1 + 3", "library A version '1' define X: '1' + '2'", "library A version '2' define X: 1 + 2"] {
            assert_ne!(first, of(other), "{other}");
        }
    }
}
