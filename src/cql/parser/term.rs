//! Operands: literals, selectors, names, calls, and the operators that are words in front of a term.

use std::sync::Arc;

use super::{Parsed, Parser};
use crate::cql::ast::{CodeSelector, Expression, Kind, Name, Path, Quantity};
use crate::cql::lexer::TokenKind;
use crate::diagnostic::Span;

/// Two words in front of a term, and the ELM name.
const PREFIXES: [(&[&str], &str); 9] = [
    (&["start", "of"], "Start"),
    (&["end", "of"], "End"),
    (&["width", "of"], "Width"),
    (&["successor", "of"], "Successor"),
    (&["predecessor", "of"], "Predecessor"),
    (&["singleton", "from"], "SingletonFrom"),
    (&["point", "from"], "PointFrom"),
    (&["date", "from"], "DateFrom"),
    (&["time", "from"], "TimeFrom"),
];

impl Parser<'_> {
    /// One term with everything that binds to it directly: a query over it, `.name`, `[index]`.
    pub(super) fn term(&mut self) -> Parsed<Expression> {
        let start = self.peek().at;
        let (saved, from) = (self.child_depth, self.at);
        let mut term = self.operand()?;
        // A word at the start of a line, after what cannot be queried, is no alias but the next statement with a slip in it.
        let is_queried = self.begins_query() && (!self.peek().first_on_line || self.is_source(&term, from));
        if is_queried {
            self.check_source(&term, from)?;
            term = self.query(term, start)?;
            term = self.postfixed(term, start)?;
        }
        self.child_depth = saved.max(term.depth);
        Ok(term)
    }

    /// One term without a query over it.
    pub(super) fn operand(&mut self) -> Parsed<Expression> {
        let start = self.peek().at;
        let saved = std::mem::take(&mut self.child_depth);
        let kind = self.term_kind()?;
        let (at, depth) = (self.since(start), self.child_depth + 1);
        let mut term = self.grown(kind, at, depth)?;
        // Parentheses come back as the expression inside them: no node of their own.
        if let Kind::Unary("", inner) = term.kind {
            term = *inner;
        }
        term = self.postfixed(term, start)?;
        self.child_depth = saved.max(term.depth);
        Ok(term)
    }

    fn postfixed(&mut self, mut term: Expression, start: Span) -> Parsed<Expression> {
        loop {
            let depth = term.depth + 1;
            let kind = if self.is_symbol(".") {
                self.at += 1;
                let name = self.member_name("an element or function after `.`")?;
                if self.is_symbol("(") {
                    let operands = self.operands()?;
                    Kind::Call { target: Some(Box::new(term)), name, operands }
                } else {
                    Kind::Member(Box::new(term), name)
                }
            } else if self.is_symbol("[") && !self.peek().first_on_line {
                self.at += 1;
                let index = self.expression()?;
                self.expect_symbol("]", "after the index")?;
                Kind::Indexer(Box::new(term), Box::new(index))
            } else if self.is_symbol("{")
                && let Some(class) = self.class_of(&term)
            {
                Kind::Instance(class, self.element_list()?)
            } else {
                return Ok(term);
            };
            let at = self.since(start);
            term = self.grown(kind, at, depth.max(self.child_depth + 1))?;
        }
    }

    /// The class that `Name {` or `Model.Name {` selects.
    fn class_of(&self, term: &Expression) -> Option<Path> {
        match &term.kind {
            Kind::Name(text) => Some(Path { parts: vec![Name { text: Arc::clone(text), at: term.at }], at: term.at }),
            Kind::Member(source, name) => {
                let mut path = self.class_of(source)?;
                path.parts.push(name.clone());
                path.at = term.at;
                Some(path)
            }
            _ => None,
        }
    }

    fn operands(&mut self) -> Parsed<Vec<Expression>> {
        self.expect_symbol("(", "")?;
        let operands = self.list_until(")", "after the operands")?;
        Ok(operands)
    }

    fn list_until(&mut self, close: &str, purpose: &str) -> Parsed<Vec<Expression>> {
        let mut items = Vec::new();
        if !self.is_symbol(close) {
            items.push(self.expression()?);
            while self.eat_symbol(",") {
                items.push(self.expression()?);
            }
        }
        self.expect_symbol(close, purpose)?;
        Ok(items)
    }

    fn term_kind(&mut self) -> Parsed<Kind> {
        let token = self.peek().clone();
        match token.kind {
            TokenKind::Integer | TokenKind::Decimal => self.number(),
            TokenKind::Long => Ok(Kind::Long(self.bump().text.trim_end_matches('L').into())),
            TokenKind::String => Ok(Kind::String(self.bump().text)),
            TokenKind::Date => Ok(Kind::Date(self.bump().text)),
            TokenKind::DateTime => Ok(Kind::DateTime(self.bump().text)),
            TokenKind::Time => Ok(Kind::Time(self.bump().text)),
            TokenKind::Quoted => self.named(),
            TokenKind::Symbol => self.symbol_term(&token.text),
            TokenKind::Word => self.word_term(&token.text),
            TokenKind::End => self.unexpected("an expression"),
        }
    }

    fn symbol_term(&mut self, symbol: &str) -> Parsed<Kind> {
        match symbol {
            "(" => {
                self.at += 1;
                let inner = self.expression()?;
                self.expect_symbol(")", "after the expression")?;
                Ok(Kind::Unary("", Box::new(inner)))
            }
            "{" if self.is_symbol_ahead(1, ":") || (self.ahead(1).kind != TokenKind::String && self.is_symbol_ahead(2, ":") && Self::is_name(self.ahead(1))) => {
                Ok(Kind::Tuple(self.element_list()?))
            }
            "{" => {
                self.at += 1;
                Ok(Kind::List(None, self.list_until("}", "after the list")?))
            }
            "[" => self.retrieve(),
            "+" | "-" => {
                self.at += 1;
                let operand = self.nested(Self::term)?;
                Ok(Kind::Unary(if symbol == "-" { "Negate" } else { "Positive" }, Box::new(operand)))
            }
            "$this" | "$index" | "$total" => Ok(Kind::Name(self.bump().text)),
            "%" => {
                self.at += 1;
                let token = self.peek().clone();
                if matches!(token.kind, TokenKind::Word | TokenKind::Quoted | TokenKind::String) {
                    self.at += 1;
                    return Ok(Kind::External(token.text));
                }
                self.unexpected("the name of an external constant after `%`")
            }
            _ => self.unexpected("an expression"),
        }
    }

    fn number(&mut self) -> Parsed<Kind> {
        let token = self.peek().clone();
        let quantity = self.quantity()?;
        let ratio = self.is_symbol(":") && matches!(self.ahead(1).kind, TokenKind::Integer | TokenKind::Decimal);
        if ratio {
            self.at += 1;
            let denominator = self.quantity()?;
            return Ok(Kind::Ratio(quantity, denominator));
        }
        Ok(match (quantity.unit.is_some(), token.kind) {
            (true, _) => Kind::Quantity(quantity),
            (false, TokenKind::Integer) => Kind::Integer(token.text),
            (false, _) => Kind::Decimal(token.text),
        })
    }

    /// A number and, when one follows, its unit.
    pub(super) fn quantity(&mut self) -> Parsed<Quantity> {
        if !matches!(self.peek().kind, TokenKind::Integer | TokenKind::Decimal) {
            return self.unexpected("a quantity such as `3 days` or `5 'mg'`");
        }
        let number = self.bump();
        let next = self.peek().clone();
        let calendar = self.precision_ahead(0).is_some() && !self.is_word_ahead(1, "between");
        let unit = if next.kind == TokenKind::String || calendar {
            self.at += 1;
            Some(next.text)
        } else if next.kind == TokenKind::Word && !next.first_on_line && Self::is_identifier(&next) {
            return self.unknown_unit();
        } else {
            None
        };
        Ok(Quantity { value: number.text, unit, calendar, at: self.since(number.at) })
    }

    fn word_term(&mut self, word: &str) -> Parsed<Kind> {
        if let Some((words, operator)) = PREFIXES.into_iter().find(|(words, _)| self.are_words(words)) {
            self.at += words.len();
            return Ok(Kind::Unary(operator, Box::new(self.nested(Self::term)?)));
        }
        // `timezone from` is how CQL wrote it before 1.4.
        if self.eat_words(&["timezoneoffset", "from"]) || self.eat_words(&["timezone", "from"]) {
            return Ok(Kind::Unary("TimezoneOffsetFrom", Box::new(self.nested(Self::term)?)));
        }
        if let Some(precision) = self.precision_ahead(0)
            && self.is_word_ahead(1, "from")
        {
            self.at += 2;
            return Ok(Kind::Component(precision, Box::new(self.nested(Self::term)?)));
        }
        if let Some(kind) = self.span_of()? {
            return Ok(kind);
        }
        if let Some(kind) = self.selector(word)? {
            return Ok(kind);
        }
        match word {
            "null" | "true" | "false" => {
                self.at += 1;
                Ok(if word == "null" { Kind::Null } else { Kind::Boolean(word == "true") })
            }
            "if" => self.conditional(),
            "case" => self.case(),
            "convert" => self.convert(),
            "distinct" | "flatten" => {
                self.at += 1;
                let operand = self.expression()?;
                Ok(Kind::Unary(if word == "distinct" { "Distinct" } else { "Flatten" }, Box::new(operand)))
            }
            "expand" | "collapse" => self.per_unit(word),
            "minimum" | "maximum" if self.ahead(1).kind == TokenKind::Word => {
                self.at += 1;
                let operator = if word == "minimum" { "MinValue" } else { "MaxValue" };
                Ok(Kind::Extreme(operator, self.path("a type")?))
            }
            "from" => self.query_after_from(),
            // Prefix operators may stand where the grammar wants a term in parentheses; accepted when unambiguous.
            "exists" | "not" | "cast" => self.expression_at(super::expression::TIMING + 1).map(|e| Kind::Unary("", Box::new(e))),
            _ => self.named(),
        }
    }

    /// `duration in days of x`, `difference in days of x`.
    fn span_of(&mut self) -> Parsed<Option<Kind>> {
        let there = self.precision_ahead(2).is_some() && self.is_word_ahead(3, "of") && self.is_word_ahead(1, "in");
        let operator = match &*self.peek().text {
            "duration" if there => "DurationBetween",
            "difference" if there => "DifferenceBetween",
            _ => return Ok(None),
        };
        self.at += 2;
        let precision = self.precision()?;
        self.at += 1;
        Ok(Some(Kind::SpanOf(operator, precision, Box::new(self.nested(Self::term)?))))
    }

    /// `Interval[…]`, `Tuple {…}`, `List<…>{…}`, `Code '…' from …`, `Concept {…}`.
    fn selector(&mut self, word: &str) -> Parsed<Option<Kind>> {
        let kind = match word {
            "Interval" if self.is_symbol_ahead(1, "[") || self.is_symbol_ahead(1, "(") => self.interval()?,
            "Tuple" if self.is_symbol_ahead(1, "{") => {
                self.at += 1;
                Kind::Tuple(self.element_list()?)
            }
            "List" if self.is_symbol_ahead(1, "{") || self.is_symbol_ahead(1, "<") => {
                self.at += 1;
                let element = if self.eat_symbol("<") {
                    let element = self.type_specifier()?;
                    self.expect_symbol(">", "after the element type")?;
                    Some(element)
                } else {
                    None
                };
                self.expect_symbol("{", "and the elements of the list")?;
                Kind::List(element, self.list_until("}", "after the list")?)
            }
            "Code" if self.ahead(1).kind == TokenKind::String => Kind::Code(self.code_selector()?),
            "Concept" if self.is_symbol_ahead(1, "{") && self.is_word_ahead(2, "Code") && self.ahead(3).kind == TokenKind::String => {
                self.at += 2;
                let mut codes = vec![self.code_selector()?];
                while self.eat_symbol(",") {
                    codes.push(self.code_selector()?);
                }
                self.expect_symbol("}", "after the codes")?;
                Kind::Concept(codes, self.optional_text("display")?)
            }
            _ => return Ok(None),
        };
        Ok(Some(kind))
    }

    fn code_selector(&mut self) -> Parsed<CodeSelector> {
        self.expect_word("Code", "")?;
        let code = self.text("the code")?;
        self.expect_word("from", "and the code system")?;
        let system = self.path("the code system")?;
        let display = self.optional_text("display")?;
        Ok(CodeSelector { code, system, display })
    }

    fn interval(&mut self) -> Parsed<Kind> {
        self.at += 1;
        let low_closed = &*self.bump().text == "[";
        let low = Box::new(self.expression()?);
        self.expect_symbol(",", "between the bounds of the interval")?;
        let high = Box::new(self.expression()?);
        if !self.is_symbol("]") && !self.is_symbol(")") {
            return self.unexpected("`]` (bound included) or `)` (bound excluded)");
        }
        let high_closed = &*self.bump().text == "]";
        Ok(Kind::Interval { low_closed, low, high, high_closed })
    }

    /// `{ name: value, … }` or `{ : }`.
    fn element_list(&mut self) -> Parsed<Vec<(Name, Expression)>> {
        self.expect_symbol("{", "")?;
        let mut elements = Vec::new();
        if self.eat_symbol(":") {
            self.expect_symbol("}", "")?;
            return Ok(elements);
        }
        loop {
            let name = self.name("an element")?;
            self.expect_symbol(":", "after the element's name")?;
            elements.push((name, self.expression()?));
            if !self.eat_symbol(",") {
                break;
            }
        }
        self.expect_symbol("}", "after the elements")?;
        Ok(elements)
    }

    fn conditional(&mut self) -> Parsed<Kind> {
        self.at += 1;
        let condition = self.expression()?;
        self.expect_word("then", "after the condition")?;
        let then = self.expression()?;
        self.expect_word("else", "(an `if` always has one)")?;
        let otherwise = self.expression()?;
        Ok(Kind::If(Box::new([condition, then, otherwise])))
    }

    fn case(&mut self) -> Parsed<Kind> {
        self.at += 1;
        let comparand = if self.is_word("when") { None } else { Some(Box::new(self.expression()?)) };
        let mut items = Vec::new();
        while self.eat_word("when") {
            let when = self.expression()?;
            self.expect_word("then", "after the condition")?;
            items.push((when, self.expression()?));
        }
        if items.is_empty() {
            return self.unexpected("`when` in a `case`");
        }
        self.expect_word("else", "(a `case` always has one)")?;
        let otherwise = Box::new(self.expression()?);
        self.expect_word("end", "after the `case`")?;
        Ok(Kind::Case { comparand, items, otherwise })
    }

    fn convert(&mut self) -> Parsed<Kind> {
        self.at += 1;
        let operand = Box::new(self.expression()?);
        self.expect_word("to", "after what is converted")?;
        let token = self.peek().clone();
        if token.kind == TokenKind::String || self.precision_ahead(0).is_some() {
            self.at += 1;
            return Ok(Kind::ConvertUnit(operand, token.text));
        }
        Ok(Kind::ConvertType(operand, self.type_specifier()?))
    }

    fn per_unit(&mut self, word: &str) -> Parsed<Kind> {
        self.at += 1;
        let operand = Box::new(self.expression()?);
        let per = if self.eat_word("per") { Some(Box::new(self.per_quantity()?)) } else { None };
        Ok(Kind::PerUnit(if word == "expand" { "Expand" } else { "Collapse" }, operand, per))
    }

    /// `per day` means one day.
    fn per_quantity(&mut self) -> Parsed<Expression> {
        let token = self.peek().clone();
        if self.precision_ahead(0).is_some() {
            self.at += 1;
            let quantity = Quantity { value: Arc::from("1"), unit: Some(token.text), calendar: true, at: token.at };
            return Ok(Expression { kind: Kind::Quantity(quantity), at: token.at, depth: 1 });
        }
        self.expression()
    }

    /// A name, or a function's call.
    fn named(&mut self) -> Parsed<Kind> {
        let token = self.peek().clone();
        let call = self.is_symbol_ahead(1, "(");
        if !Self::is_name(&token) {
            return self.unexpected("an expression");
        }
        self.at += 1;
        if call {
            let name = Name { text: token.text, at: token.at };
            let operands = self.operands()?;
            return Ok(Kind::Call { target: None, name, operands });
        }
        Ok(Kind::Name(token.text))
    }
}
