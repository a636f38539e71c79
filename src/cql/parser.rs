//! Recursive descent over CQL 1.5's grammar (<https://cql.hl7.org/grammar.html>): reports every faulty statement, keeps the rest.
//!
//! This file has the token cursor, declarations and types; `parser/expression.rs` the operators by precedence,
//! `parser/term.rs` what an operand can be, `parser/query.rs` retrieves and queries, `parser/timing.rs` the timing phrases.

use std::sync::Arc;

use super::ast;
use super::lexer::{Lexed, Token, TokenKind, lex};
use super::typed::{Access, EvaluationContext};
use super::value::Precision;
use crate::diagnostic::{Diagnostic, Location, SourceFile, Span, nearest};

mod expression;
mod query;
mod term;
mod timing;
mod words;

use self::words::{KEYWORDS, MEMBERS, PRECISIONS, RESERVED, STATEMENTS};

/// Deepest nesting of expressions and types.
pub const NESTING_MAX: u32 = 200;
/// Greatest height of an expression's tree, chains of operators included: later stages recurse over it.
pub const DEPTH_MAX: u32 = 400;
/// After this many faults the rest of the text is not read.
const FAULTS_MAX: usize = 100;

/// Reported already; the statement is given up.
#[derive(Debug)]
struct Reported;

type Parsed<T> = Result<T, Reported>;

/// The syntax tree of a library and every fault of its text. Faulty statements are missing from the tree.
pub fn parse(source: &Arc<SourceFile>) -> (ast::Library, Vec<Diagnostic>) {
    let mut parser = Parser::new(source);
    let library = parser.library();
    (library, parser.faults)
}

/// One expression alone, as the test suites write them.
pub fn parse_expression(source: &Arc<SourceFile>) -> (Option<ast::Expression>, Vec<Diagnostic>) {
    let mut parser = Parser::new(source);
    let expression = parser.expression().and_then(|e| parser.end_of_text().map(|()| e)).ok();
    let expression = if parser.faults.is_empty() { expression } else { None };
    (expression, parser.faults)
}

struct Parser<'a> {
    source: &'a Arc<SourceFile>,
    tokens: Vec<Token>,
    at: usize,
    faults: Vec<Diagnostic>,
    nesting: u32,
    /// Greatest height of the expressions finished since the enclosing one began.
    child_depth: u32,
    is_cut: bool,
    /// Where the query that ended last ended, with the clauses that it has.
    ended_query: Option<(usize, Vec<&'static str>)>,
}

// The cursor.
impl<'a> Parser<'a> {
    fn new(source: &'a Arc<SourceFile>) -> Parser<'a> {
        let Lexed { tokens, faults, is_cut } = lex(source);
        Parser { source, tokens, at: 0, faults, nesting: 0, child_depth: 0, is_cut, ended_query: None }
    }

    fn peek(&self) -> &Token {
        self.ahead(0)
    }

    fn ahead(&self, count: usize) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + count).min(last)]
    }

    fn bump(&mut self) -> Token {
        let token = self.peek().clone();
        if token.kind != TokenKind::End {
            self.at += 1;
        }
        token
    }

    fn previous_end(&self) -> u32 {
        self.at.checked_sub(1).map_or(0, |i| self.tokens[i].at.end)
    }

    fn since(&self, start: Span) -> Span {
        Span::new(start.start, self.previous_end())
    }

    fn is_word_ahead(&self, count: usize, word: &str) -> bool {
        let token = self.ahead(count);
        token.kind == TokenKind::Word && &*token.text == word
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_ahead(0, word)
    }

    fn are_words(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.is_word_ahead(i, word))
    }

    fn is_symbol_ahead(&self, count: usize, symbol: &str) -> bool {
        let token = self.ahead(count);
        token.kind == TokenKind::Symbol && &*token.text == symbol
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        self.is_symbol_ahead(0, symbol)
    }

    /// Takes these words if they come next, all or none.
    fn eat_words(&mut self, words: &[&str]) -> bool {
        let there = self.are_words(words);
        if there {
            self.at += words.len();
        }
        there
    }

    fn eat_word(&mut self, word: &str) -> bool {
        self.eat_words(&[word])
    }

    fn eat_symbol(&mut self, symbol: &str) -> bool {
        let there = self.is_symbol(symbol);
        if there {
            self.at += 1;
        }
        there
    }

    fn expect_word(&mut self, word: &str, purpose: &str) -> Parsed<()> {
        if self.eat_word(word) { Ok(()) } else { self.unexpected(&format!("`{word}`{}", after(purpose))) }
    }

    fn expect_symbol(&mut self, symbol: &str, purpose: &str) -> Parsed<()> {
        if self.eat_symbol(symbol) { Ok(()) } else { self.unexpected(&format!("`{symbol}`{}", after(purpose))) }
    }

    fn describe(token: &Token) -> String {
        match token.kind {
            TokenKind::End => "the end of the text".to_string(),
            TokenKind::String => "a text in single quotes".to_string(),
            TokenKind::Quoted => format!("the name \"{}\"", token.text),
            TokenKind::Word | TokenKind::Symbol => format!("`{}`", token.text),
            _ => format!("the literal `{}`", token.text),
        }
    }

    fn unexpected<T>(&mut self, expected: &str) -> Parsed<T> {
        let token = self.peek().clone();
        if self.is_cut && token.kind == TokenKind::End {
            return Err(Reported);
        }
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).cloned();
        if let Some(before) = before.filter(|before| before.kind == TokenKind::Word && self.is_word("of") && Self::is_identifier(before)) {
            return self.fault(before.at, format!("`{}` is no precision", before.text), near_word(&before.text, &PRECISIONS));
        }
        if let Some((message, help)) = self.misplaced_clause(&token) {
            return self.fault(token.at, message, Some(help));
        }
        let help = self.help_for(&token, expected);
        let message = format!("expected {expected}, found {}", Self::describe(&token));
        self.fault(token.at, message, help)
    }

    fn help_for(&self, token: &Token, expected: &str) -> Option<String> {
        let is_name = expected.contains("name");
        match token.kind {
            TokenKind::Quoted if expected.ends_with("in single quotes") => Some("names are in double quotes, texts in single quotes".to_string()),
            TokenKind::Word if expected.ends_with("in single quotes") => Some("put it in single quotes: `'…'`".to_string()),
            _ if Self::is_identifier(token) && expected == "`]` after the retrieve" => {
                Some(format!("the alias stands behind the retrieve: `[…] {}`, and what follows it too", token.text))
            }
            TokenKind::String if is_name => Some("names are in double quotes, texts in single quotes".to_string()),
            TokenKind::Word if is_name && KEYWORDS.contains(&&*token.text) => {
                Some(format!("`{}` is a word of the language; in double quotes it is a name: \"{}\"", token.text, token.text))
            }
            TokenKind::Word => {
                let near = nearest(&token.text, KEYWORDS.iter().copied().filter(|k| expected.contains(&format!("`{k}`"))));
                near.map(|near| format!("did you mean `{near}`?"))
            }
            TokenKind::Symbol if matches!(&*token.text, "=") && expected.contains("`:`") => Some("a definition's body follows `:`".to_string()),
            _ => None,
        }
    }

    fn fault<T>(&mut self, at: Span, message: String, help: Option<String>) -> Parsed<T> {
        let mut fault = Diagnostic::error(message).at(Location::new(self.source, at));
        fault.help = help;
        self.faults.push(fault);
        Err(Reported)
    }

    fn end_of_text(&mut self) -> Parsed<()> {
        if self.peek().kind == TokenKind::End { Ok(()) } else { self.unexpected("the end of the expression or an operator") }
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= NESTING_MAX {
            let at = self.peek().at;
            return self.fault(at, format!("nested more than {NESTING_MAX} deep"), Some("name a part of it with a `define`".to_string()));
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }
}

fn near_word(word: &str, among: &[&str]) -> Option<String> {
    nearest(word, among.iter().copied()).map(|near| format!("did you mean `{near}`?"))
}

fn after(purpose: &str) -> String {
    if purpose.is_empty() { String::new() } else { format!(" {purpose}") }
}

// Names, texts, types.
impl Parser<'_> {
    fn is_identifier(token: &Token) -> bool {
        token.kind == TokenKind::Quoted || (token.kind == TokenKind::Word && !KEYWORDS.contains(&&*token.text))
    }

    /// An identifier or a word of the language that may also name something (`date`, `code`, `start` …).
    fn is_name(token: &Token) -> bool {
        token.kind == TokenKind::Quoted || (token.kind == TokenKind::Word && !RESERVED.contains(&&*token.text))
    }

    fn name(&mut self, what: &str) -> Parsed<ast::Name> {
        if Self::is_name(self.peek()) {
            let token = self.bump();
            return Ok(ast::Name { text: token.text, at: token.at });
        }
        self.unexpected(&format!("the name of {what}"))
    }

    /// A name that is no word of the language: what declares something, and aliases.
    fn identifier(&mut self, what: &str) -> Parsed<ast::Name> {
        if Self::is_identifier(self.peek()) {
            let token = self.bump();
            return Ok(ast::Name { text: token.text, at: token.at });
        }
        self.unexpected(&format!("the name of {what}"))
    }

    /// Every word of the language can be a function's name, and some name an element after a point.
    fn member_name(&mut self, what: &str) -> Parsed<ast::Name> {
        let is_word = self.peek().kind == TokenKind::Word;
        let may_name = self.is_symbol_ahead(1, "(") || MEMBERS.contains(&&*self.peek().text);
        if (is_word && may_name) || Self::is_name(self.peek()) {
            let token = self.bump();
            return Ok(ast::Name { text: token.text, at: token.at });
        }
        self.unexpected(&format!("the name of {what}"))
    }

    fn path(&mut self, what: &str) -> Parsed<ast::Path> {
        let first = self.name(what)?;
        let start = first.at;
        let mut parts = vec![first];
        while self.eat_symbol(".") {
            parts.push(self.member_name("what is meant after `.`")?);
        }
        Ok(ast::Path { parts, at: self.since(start) })
    }

    fn text(&mut self, what: &str) -> Parsed<ast::Text> {
        if self.peek().kind == TokenKind::String {
            let token = self.bump();
            return Ok(ast::Text { text: token.text, at: token.at });
        }
        self.unexpected(&format!("{what} in single quotes"))
    }

    fn optional_text(&mut self, word: &str) -> Parsed<Option<ast::Text>> {
        if self.eat_word(word) { self.text(&format!("the {word}")).map(Some) } else { Ok(None) }
    }

    fn type_specifier(&mut self) -> Parsed<ast::TypeSpecifier> {
        self.nested(Self::type_inner)
    }

    fn type_inner(&mut self) -> Parsed<ast::TypeSpecifier> {
        let start = self.peek().at;
        let generic = self.is_symbol_ahead(1, "<");
        let kind = if generic && self.eat_word("List") {
            ast::TypeKind::List(Box::new(self.type_argument()?))
        } else if generic && self.eat_word("Interval") {
            ast::TypeKind::Interval(Box::new(self.type_argument()?))
        } else if generic && self.eat_word("Choice") {
            self.expect_symbol("<", "")?;
            let mut types = vec![self.type_specifier()?];
            while self.eat_symbol(",") {
                types.push(self.type_specifier()?);
            }
            self.expect_symbol(">", "after the types")?;
            ast::TypeKind::Choice(types)
        } else if self.is_symbol_ahead(1, "{") && self.eat_word("Tuple") {
            self.expect_symbol("{", "")?;
            let mut elements = Vec::new();
            loop {
                let name = self.name("a tuple element")?;
                elements.push((name, self.type_specifier()?));
                if !self.eat_symbol(",") {
                    break;
                }
            }
            self.expect_symbol("}", "after the tuple's elements")?;
            ast::TypeKind::Tuple(elements)
        } else {
            ast::TypeKind::Named(self.path("a type")?)
        };
        Ok(ast::TypeSpecifier { kind, at: self.since(start) })
    }

    fn type_argument(&mut self) -> Parsed<ast::TypeSpecifier> {
        self.expect_symbol("<", "")?;
        let inner = self.type_specifier()?;
        self.expect_symbol(">", "after the type")?;
        Ok(inner)
    }

    /// Nothing but a unit can follow a number.
    pub(super) fn unknown_unit<T>(&mut self) -> Parsed<T> {
        let token = self.peek().clone();
        let help = near_word(&token.text, &PRECISIONS).unwrap_or_else(|| format!("units of measure are in single quotes, as `5 '{}'`", token.text));
        self.fault(token.at, format!("`{}` is no unit of time", token.text), Some(help))
    }

    /// `day`, `days`: singular and plural forms both, as authors mix them.
    fn precision_word(word: &str) -> Option<Precision> {
        Some(match word {
            "year" | "years" => Precision::Year,
            "month" | "months" => Precision::Month,
            "week" | "weeks" => Precision::Week,
            "day" | "days" => Precision::Day,
            "hour" | "hours" => Precision::Hour,
            "minute" | "minutes" => Precision::Minute,
            "second" | "seconds" => Precision::Second,
            "millisecond" | "milliseconds" => Precision::Millisecond,
            _ => return None,
        })
    }

    fn precision_ahead(&self, count: usize) -> Option<Precision> {
        let token = self.ahead(count);
        if token.kind == TokenKind::Word { Self::precision_word(&token.text) } else { None }
    }

    fn precision(&mut self) -> Parsed<Precision> {
        match self.precision_ahead(0) {
            Some(precision) => {
                self.at += 1;
                Ok(precision)
            }
            None => self.unexpected("a precision such as `day`, `days`, `month` or `years`"),
        }
    }
}

// Statements.
impl Parser<'_> {
    fn library(&mut self) -> ast::Library {
        let mut library = ast::Library { is_cut: self.is_cut, ..ast::Library::default() };
        // Of a library that names none (CQL, "Context").
        let mut context = EvaluationContext::Unfiltered;
        while self.peek().kind != TokenKind::End && self.faults.len() < FAULTS_MAX {
            let before = self.at;
            if self.statement(&mut library, &mut context).is_err() {
                library.broken.extend(self.slipped_name());
                library.broken.extend(self.declared_at(before));
                self.recover(before);
            }
        }
        library
    }

    /// What a statement with a slip in its first word would have declared.
    fn slipped_name(&self) -> Option<ast::Name> {
        let (word, _) = self.slipped_statement()?;
        let at = self.tokens.iter().position(|token| token.at == word.at)?;
        self.declared_at(at + 1)
    }

    /// The name that a statement declares, by its first words alone.
    fn declared_at(&self, start: usize) -> Option<ast::Name> {
        let words = ["define", "public", "private", "fluent", "function", "parameter", "codesystem", "valueset", "code", "concept", "include"];
        let mut tokens = self.tokens.get(start..)?.iter().skip_while(|token| token.kind == TokenKind::Word && words.contains(&&*token.text));
        tokens.next().filter(|token| Self::is_name(token)).map(|token| ast::Name { text: token.text.clone(), at: token.at })
    }

    /// Skips to the next word that begins a statement at the start of a line.
    fn recover(&mut self, before: usize) {
        if self.at == before {
            self.at += 1;
        }
        while self.peek().kind != TokenKind::End {
            let token = self.peek();
            let begins = token.kind == TokenKind::Word && STATEMENTS.contains(&&*token.text);
            if begins && (token.first_on_line || &*token.text == "define") && !self.is_symbol_ahead(1, ".") {
                return;
            }
            self.at += 1;
        }
    }

    fn statement(&mut self, library: &mut ast::Library, context: &mut EvaluationContext) -> Parsed<()> {
        let start = self.peek().at;
        if self.eat_word("define") {
            return self.define(library, *context, start);
        }
        let access = self.access();
        let word = if self.peek().kind == TokenKind::Word { self.bump().text } else { Arc::from("") };
        match &*word {
            "library" => {
                self.check_first(library, start);
                self.library_name(library)
            }
            "using" => self.using(library),
            "include" => self.include(library),
            "codesystem" => self.code_system(library, access, start),
            "valueset" => self.value_set(library, access, start),
            "code" => self.code(library, access, start),
            "concept" => self.concept(library, access, start),
            "parameter" => self.parameter(library, access, start),
            "context" => {
                let mut name = self.name("a context")?;
                if self.eat_symbol(".") {
                    name = self.name("a context")?;
                }
                *context = match &*name.text {
                    "Unfiltered" | "Population" => EvaluationContext::Unfiltered,
                    _ => EvaluationContext::Patient,
                };
                library.contexts.push((name, *context));
                Ok(())
            }
            found => self.not_a_statement(found, start),
        }
    }

    /// Declarations may come late, as published libraries have them; what names the library may not.
    fn check_first(&mut self, library: &ast::Library, start: Span) {
        let declares = !(library.usings.is_empty() && library.includes.is_empty() && library.parameters.is_empty() && library.code_systems.is_empty());
        let defines = !(library.defines.is_empty() && library.functions.is_empty() && library.contexts.is_empty());
        if declares || defines {
            let _ = self.fault::<()>(start, "`library` is the first word of its text".to_owned(), Some("move this `library` to the top".to_owned()));
        }
    }

    fn not_a_statement(&mut self, found: &str, start: Span) -> Parsed<()> {
        let near = near_word(found, STATEMENTS);
        let found = if found.is_empty() { Self::describe(self.peek()) } else { format!("`{found}`") };
        let message = format!("expected a statement such as `define`, `parameter` or `valueset`, found {found}");
        self.fault(start, message, near)
    }

    fn access(&mut self) -> Access {
        if self.eat_word("private") {
            return Access::Private;
        }
        self.eat_word("public");
        Access::Public
    }

    fn library_name(&mut self, library: &mut ast::Library) -> Parsed<()> {
        let name = self.path("the library")?;
        let version = self.optional_text("version")?;
        if library.name.is_some() {
            return self.fault(name.at, "the library is named twice".to_string(), None);
        }
        library.name = Some((name, version));
        Ok(())
    }

    fn using(&mut self, library: &mut ast::Library) -> Parsed<()> {
        let mut name = self.name("a model")?;
        while self.eat_symbol(".") {
            name = self.name("a model")?;
        }
        let version = self.optional_text("version")?;
        let alias = if self.eat_word("called") { Some(self.identifier("the model here")?) } else { None };
        library.usings.push(ast::Using { name, version, alias });
        Ok(())
    }

    fn include(&mut self, library: &mut ast::Library) -> Parsed<()> {
        let name = self.path("a library")?;
        let version = self.optional_text("version")?;
        let alias = if self.eat_word("called") { Some(self.identifier("the library here")?) } else { None };
        library.includes.push(ast::Include { name, version, alias });
        Ok(())
    }

    fn code_system(&mut self, library: &mut ast::Library, access: Access, start: Span) -> Parsed<()> {
        let name = self.identifier("the code system")?;
        self.expect_symbol(":", "after the code system's name")?;
        let id = self.text("the code system's URI")?;
        let version = self.optional_text("version")?;
        library.code_systems.push(ast::CodeSystem { access, name, id, version, at: self.since(start) });
        Ok(())
    }

    fn value_set(&mut self, library: &mut ast::Library, access: Access, start: Span) -> Parsed<()> {
        let name = self.identifier("the value set")?;
        self.expect_symbol(":", "after the value set's name")?;
        let id = self.text("the value set's URL")?;
        let version = self.optional_text("version")?;
        let code_systems = if self.eat_word("codesystems") { self.path_list("a code system")? } else { Vec::new() };
        library.value_sets.push(ast::ValueSet { access, name, id, version, code_systems, at: self.since(start) });
        Ok(())
    }

    fn path_list(&mut self, what: &str) -> Parsed<Vec<ast::Path>> {
        self.expect_symbol("{", "")?;
        let mut paths = vec![self.path(what)?];
        while self.eat_symbol(",") {
            paths.push(self.path(what)?);
        }
        self.expect_symbol("}", "after the names")?;
        Ok(paths)
    }

    fn code(&mut self, library: &mut ast::Library, access: Access, start: Span) -> Parsed<()> {
        let name = self.identifier("the code")?;
        self.expect_symbol(":", "after the code's name")?;
        let code = self.text("the code")?;
        self.expect_word("from", "and the code system")?;
        let system = self.path("the code system")?;
        let display = self.optional_text("display")?;
        library.codes.push(ast::Code { access, name, code, system, display, at: self.since(start) });
        Ok(())
    }

    fn concept(&mut self, library: &mut ast::Library, access: Access, start: Span) -> Parsed<()> {
        let name = self.identifier("the concept")?;
        self.expect_symbol(":", "after the concept's name")?;
        let codes = self.path_list("a code")?;
        let display = self.optional_text("display")?;
        library.concepts.push(ast::Concept { access, name, codes, display, at: self.since(start) });
        Ok(())
    }

    fn parameter(&mut self, library: &mut ast::Library, access: Access, start: Span) -> Parsed<()> {
        let name = self.identifier("the parameter")?;
        let begins_another = self.peek().first_on_line && STATEMENTS.iter().any(|word| self.is_word(word));
        let is_generic = ["List", "Interval", "Choice", "Tuple"].iter().any(|word| self.is_word(word));
        let typed = (Self::is_name(self.peek()) || is_generic) && !self.is_word("default") && !begins_another;
        let ty = if typed { Some(self.type_specifier()?) } else { None };
        let default = if self.eat_word("default") { Some(self.expression()?) } else { None };
        if ty.is_none() && default.is_none() {
            return self.unexpected("the parameter's type or `default`");
        }
        library.parameters.push(ast::Parameter { access, name, ty, default, at: self.since(start) });
        Ok(())
    }

    fn define(&mut self, library: &mut ast::Library, context: EvaluationContext, start: Span) -> Parsed<()> {
        let access = self.access();
        let fluent = self.are_words(&["fluent", "function"]) && self.eat_word("fluent");
        if self.is_word("function") && !self.is_symbol_ahead(1, ":") {
            self.at += 1;
            return self.function(library, access, fluent, start);
        }
        let name = self.identifier("the definition")?;
        if self.is_symbol("(") {
            let help = format!("write `define function \"{}\"(…)`", name.text);
            return self.fault(self.peek().at, "expected `:` after the definition's name, found `(`".to_string(), Some(help));
        }
        self.expect_symbol(":", "after the definition's name")?;
        let body = self.expression()?;
        library.defines.push(ast::Define { access, context, name, body, at: self.since(start) });
        self.end_of_statement()
    }

    fn function(&mut self, library: &mut ast::Library, access: Access, fluent: bool, start: Span) -> Parsed<()> {
        let name = self.member_name("the function")?;
        self.expect_symbol("(", "after the function's name")?;
        let mut operands = Vec::new();
        if !self.is_symbol(")") {
            loop {
                let operand = self.name("an operand")?;
                operands.push((operand, self.type_specifier()?));
                if !self.eat_symbol(",") {
                    break;
                }
            }
        }
        self.expect_symbol(")", "after the operands")?;
        let returns = if self.eat_word("returns") { Some(self.type_specifier()?) } else { None };
        self.expect_symbol(":", "and the function's body")?;
        let body = if self.eat_word("external") { None } else { Some(self.expression()?) };
        library.functions.push(ast::Function { access, fluent, name, operands, returns, body, at: self.since(start) });
        self.end_of_statement()
    }

    /// What follows a body must begin a statement, otherwise the fault lies here and not in the next line.
    fn end_of_statement(&mut self) -> Parsed<()> {
        let token = self.peek();
        let begins = token.kind == TokenKind::Word && (STATEMENTS.contains(&&*token.text) || &*token.text == "private");
        if begins || token.kind == TokenKind::End {
            return Ok(());
        }
        match self.slipped_statement() {
            Some((word, near)) => self.fault(word.at, format!("no statement begins with `{}`", word.text), Some(format!("did you mean `{near}`?"))),
            None => self.unexpected("an operator or the next statement"),
        }
    }

    /// The first word of a line that nearly begins a statement: `defin "X":`. Before the name it has been read as an alias.
    fn slipped_statement(&self) -> Option<(Token, &'static str)> {
        let begins = |token: &&Token| token.kind == TokenKind::Word && token.first_on_line && !STATEMENTS.contains(&&*token.text);
        let token = [self.at.checked_sub(1), Some(self.at)].into_iter().flatten().filter_map(|at| self.tokens.get(at)).find(begins)?;
        nearest(&token.text, STATEMENTS.iter().copied()).map(|near| (token.clone(), near))
    }
}

#[cfg(test)]
mod tests;
