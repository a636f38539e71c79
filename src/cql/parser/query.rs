//! Retrieves and queries with all their clauses.

use super::{Parsed, Parser};
use crate::cql::ast::{Aggregate, Expression, Kind, Query, Relationship, Retrieve, Sort, Source};
use crate::cql::lexer::{Token, TokenKind};
use crate::diagnostic::Span;

/// The clauses of a query in the order of the grammar; those of one place exclude each other, but for the first two.
const CLAUSES: [(&str, u8); 7] = [("let", 0), ("with", 1), ("without", 1), ("where", 2), ("return", 3), ("aggregate", 3), ("sort", 4)];
/// Words that begin no clause, mostly of SQL, with what says the same here.
const OF_SQL: [(&str, &str); 7] = [
    ("such", "write `where`, or before it `with` and another source"),
    ("order", "write `sort by`"),
    ("group", "write `aggregate`, or `return` and a function of lists"),
    ("having", "write `where`"),
    ("join", "write `with … such that`, or several sources after `from`"),
    ("inner", "write `with … such that`, or several sources after `from`"),
    ("left", "write `with … such that`, or several sources after `from`"),
];

impl Parser<'_> {
    /// A clause behind a query in which it has no place: what is wrong, and what to do.
    pub(super) fn misplaced_clause(&self, token: &Token) -> Option<(String, String)> {
        let (_, written) = self.ended_query.as_ref().filter(|(at, _)| *at == self.at && token.kind == TokenKind::Word)?;
        let word = &*token.text;
        if let Some((_, help)) = OF_SQL.iter().find(|(foreign, _)| *foreign == word) {
            return Some((format!("a query has no `{word}`"), (*help).to_owned()));
        }
        let place = |word: &str| CLAUSES.iter().find(|(name, _)| *name == word).map(|(_, place)| *place);
        let own = place(word)?;
        if written.contains(&word) && own != 1 {
            let help = match word {
                "where" => "join the two conditions with `and`",
                "let" | "sort" => "part what they hold with a comma",
                _ => "make one of the two",
            };
            return Some((format!("a query has one `{word}`, and this is a second"), help.to_owned()));
        }
        if let Some(other) = written.iter().find(|other| place(other) == Some(own) && own != 1) {
            return Some((format!("a query has either `{other}` or `{word}`"), format!("put the query that ends with `{other}` in parentheses, and name it anew")));
        }
        let later = written.iter().find(|other| place(other) > Some(own))?;
        let order = "a query's clauses come in this order: `let`, `with` or `without`, `where`, `return` or `aggregate`, `sort`";
        Some((format!("`{word}` stands after `{later}`"), format!("move it before `{later}`: {order}")))
    }

    /// An alias after a term begins a query: nothing else puts a bare identifier there.
    pub(super) fn begins_query(&self) -> bool {
        let token = self.peek();
        Self::is_identifier(token) && !(token.first_on_line && self.is_symbol_ahead(1, ":"))
    }

    /// `[Observation: code in "X"]`
    pub(super) fn retrieve(&mut self) -> Parsed<Kind> {
        self.expect_symbol("[", "")?;
        let mut class = self.path("a class of the model")?;
        let mut context = None;
        if self.eat_symbol("->") {
            context = Some(class);
            class = self.path("a class of the model")?;
        }
        let mut retrieve = Retrieve { context, class, code_path: None, comparator: None, codes: None };
        if self.eat_symbol(":") {
            self.code_path(&mut retrieve);
            retrieve.codes = Some(self.expression()?);
        }
        self.expect_symbol("]", "after the retrieve")?;
        Ok(Kind::Retrieve(Box::new(retrieve)))
    }

    /// `code in`, `code ~`, when written; otherwise nothing is taken.
    fn code_path(&mut self, retrieve: &mut Retrieve) {
        let (at, faults) = (self.at, self.faults.len());
        let path = self.path("the code's path");
        let comparator = [("in", "In"), ("~", "Equivalent"), ("=", "Equal")];
        let found = comparator.into_iter().find(|(text, _)| self.is_word(text) || self.is_symbol(text));
        match (path, found) {
            (Ok(path), Some((_, comparator))) => {
                self.at += 1;
                retrieve.code_path = Some(path);
                retrieve.comparator = Some(comparator);
            }
            _ => {
                self.at = at;
                self.faults.truncate(faults);
            }
        }
    }

    /// `from A a, B b …`
    pub(super) fn query_after_from(&mut self) -> Parsed<Kind> {
        let start = self.peek().at;
        self.at += 1;
        let mut sources = vec![self.source()?];
        while self.eat_symbol(",") {
            sources.push(self.source()?);
        }
        let query = self.clauses(sources, start)?;
        Ok(query.kind)
    }

    /// A query over one source, whose alias comes next.
    pub(super) fn query(&mut self, source: Expression, start: Span) -> Parsed<Expression> {
        self.child_depth = self.child_depth.max(source.depth);
        let alias = self.identifier("an alias")?;
        self.clauses(vec![Source { expression: source, alias }], start)
    }

    /// A source and its alias.
    fn source(&mut self) -> Parsed<Source> {
        let from = self.at;
        let expression = self.nested(Self::operand)?;
        self.check_source(&expression, from)?;
        let alias = self.identifier("an alias")?;
        Ok(Source { expression, alias })
    }

    /// The grammar's `querySource`: a retrieve, a name, or anything in parentheses.
    pub(super) fn is_source(&self, source: &Expression, from: usize) -> bool {
        is_path(source) || matches!(source.kind, Kind::Retrieve(_)) || self.encloses(from)
    }

    pub(super) fn check_source(&mut self, source: &Expression, from: usize) -> Parsed<()> {
        if self.is_source(source, from) {
            return Ok(());
        }
        let help = "put what is queried in parentheses";
        self.fault(source.at, "a query is over a retrieve, over what has a name, or over something in parentheses".to_owned(), Some(help.to_owned()))
    }

    /// Whether the tokens since then are one pair of parentheses with what is in it. An interval may close with another
    /// bracket than it opens with.
    fn encloses(&self, from: usize) -> bool {
        if !self.tokens.get(from).is_some_and(|token| token.kind == TokenKind::Symbol && &*token.text == "(") {
            return false;
        }
        let mut open = 0_usize;
        for (at, token) in self.tokens.iter().enumerate().take(self.at).skip(from) {
            match (token.kind, &*token.text) {
                (TokenKind::Symbol, "(" | "[") => open += 1,
                (TokenKind::Symbol, ")" | "]") => open = open.saturating_sub(1),
                _ => {}
            }
            if open == 0 {
                return at + 1 == self.at;
            }
        }
        false
    }

    fn clauses(&mut self, sources: Vec<Source>, start: Span) -> Parsed<Expression> {
        let mut query = Query { sources, lets: Vec::new(), relationships: Vec::new(), condition: None, returning: None, aggregate: None, sort: None };
        self.let_clause(&mut query)?;
        while self.is_word("with") || self.is_word("without") {
            query.relationships.push(self.relationship()?);
        }
        if self.eat_word("where") {
            query.condition = Some(self.expression()?);
        }
        if self.eat_word("return") {
            let distinct = !self.eat_word("all");
            self.eat_word("distinct");
            query.returning = Some((distinct, self.expression()?));
        } else if self.eat_word("aggregate") {
            query.aggregate = Some(self.aggregate()?);
        }
        if self.eat_word("sort") {
            query.sort = Some(self.sort()?);
        }
        self.ended_query = Some((self.at, written(&query)));
        let (at, depth) = (self.since(start), self.child_depth + 1);
        self.grown(Kind::Query(Box::new(query)), at, depth)
    }

    fn let_clause(&mut self, query: &mut Query) -> Parsed<()> {
        if !self.eat_word("let") {
            return Ok(());
        }
        loop {
            let name = self.identifier("a `let`")?;
            self.expect_symbol(":", "after the name")?;
            query.lets.push((name, self.expression()?));
            if !self.eat_symbol(",") {
                return Ok(());
            }
        }
    }

    fn relationship(&mut self) -> Parsed<Relationship> {
        let without = &*self.bump().text == "without";
        let source = self.source()?;
        if !self.eat_words(&["such", "that"]) {
            return self.unexpected("`such that` and a condition");
        }
        Ok(Relationship { without, source, such_that: self.expression()? })
    }

    /// `starting` is a literal or in parentheses, so that the colon after it is not read as a ratio's.
    fn aggregate(&mut self) -> Parsed<Aggregate> {
        let distinct = self.eat_word("distinct");
        self.eat_word("all");
        let name = self.identifier("the accumulator")?;
        let starting = if self.eat_word("starting") {
            let start = self.peek().at;
            let kind = if matches!(self.peek().kind, TokenKind::Integer | TokenKind::Decimal) {
                let token = self.peek().clone();
                let quantity = self.quantity()?;
                match (quantity.unit.is_some(), token.kind) {
                    (true, _) => Kind::Quantity(quantity),
                    (false, TokenKind::Integer) => Kind::Integer(token.text),
                    _ => Kind::Decimal(token.text),
                }
            } else if self.is_symbol("(") || self.peek().kind == TokenKind::String {
                let term = self.nested(Self::term)?;
                term.kind
            } else {
                return self.unexpected("a number, a text or an expression in parentheses after `starting`");
            };
            Some(Expression { kind, at: self.since(start), depth: self.child_depth + 1 })
        } else {
            None
        };
        self.expect_symbol(":", "after the accumulator")?;
        Ok(Aggregate { distinct, name, starting, expression: self.expression()? })
    }

    fn sort(&mut self) -> Parsed<Sort> {
        if !self.eat_word("by") {
            return match self.direction() {
                Some(descending) => Ok(Sort::Direction(descending)),
                None => self.unexpected("`by`, `asc` or `desc` after `sort`"),
            };
        }
        let mut keys = Vec::new();
        loop {
            let key = self.term_expression(0)?;
            keys.push((key, self.direction().unwrap_or(false)));
            if !self.eat_symbol(",") {
                return Ok(Sort::By(keys));
            }
        }
    }

    fn direction(&mut self) -> Option<bool> {
        let word = &*self.peek().text;
        let descending = match word {
            "asc" | "ascending" => false,
            "desc" | "descending" => true,
            _ => return None,
        };
        self.at += 1;
        Some(descending)
    }
}

/// The words of a query's clauses.
fn written(query: &Query) -> Vec<&'static str> {
    let with = |without: bool| query.relationships.iter().any(|one| one.without == without);
    let is_there = [!query.lets.is_empty(), with(false), with(true), query.condition.is_some(), query.returning.is_some(), query.aggregate.is_some(), query.sort.is_some()];
    CLAUSES.iter().zip(is_there).filter(|(_, is_there)| *is_there).map(|((word, _), _)| *word).collect()
}

/// `Name`, `Library."Name"`, `Patient.name`.
fn is_path(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::Name(_) => true,
        Kind::Member(source, _) => is_path(source),
        _ => false,
    }
}
