//! Operators by precedence, as the grammar orders them: `is` binds tightest of the words, `union` loosest.

use super::{DEPTH_MAX, Parsed, Parser};
use crate::cql::ast::{Expression, Kind};
use crate::cql::lexer::TokenKind;
use crate::cql::value::Precision;
use crate::diagnostic::Span;

/// How tight an operator binds; greater is tighter.
type Tightness = u8;
const UNION: Tightness = 1;
const IMPLIES: Tightness = 2;
const OR: Tightness = 3;
const AND: Tightness = 4;
const MEMBERSHIP: Tightness = 5;
const EQUALITY: Tightness = 6;
pub(super) const TIMING: Tightness = 7;
const ORDER: Tightness = 8;
const BETWEEN: Tightness = 9;
const PREFIX: Tightness = 10;
const TYPE: Tightness = 11;

/// Operators that are one symbol or word: text, ELM name, tightness.
const PLAIN: [(&str, &str, Tightness); 18] = [
    ("|", "Union", UNION),
    ("union", "Union", UNION),
    ("intersect", "Intersect", UNION),
    ("except", "Except", UNION),
    ("implies", "Implies", IMPLIES),
    ("or", "Or", OR),
    ("xor", "Xor", OR),
    ("and", "And", AND),
    ("in", "In", MEMBERSHIP),
    ("contains", "Contains", MEMBERSHIP),
    ("=", "Equal", EQUALITY),
    ("!=", "NotEqual", EQUALITY),
    ("~", "Equivalent", EQUALITY),
    ("!~", "NotEquivalent", EQUALITY),
    ("<", "Less", ORDER),
    ("<=", "LessOrEqual", ORDER),
    (">", "Greater", ORDER),
    (">=", "GreaterOrEqual", ORDER),
];

/// Operators between terms.
const ARITHMETIC: [(&str, &str, Tightness); 8] = [
    ("+", "Add", 1),
    ("-", "Subtract", 1),
    ("&", "ConcatenateNull", 1),
    ("*", "Multiply", 2),
    ("/", "Divide", 2),
    ("div", "TruncatedDivide", 2),
    ("mod", "Modulo", 2),
    ("^", "Power", 3),
];

impl Parser<'_> {
    /// A whole expression.
    pub(super) fn expression(&mut self) -> Parsed<Expression> {
        self.expression_at(UNION)
    }

    /// An expression of operators at least as tight.
    pub(super) fn expression_at(&mut self, least: Tightness) -> Parsed<Expression> {
        self.nested(|parser| {
            let mut left = parser.prefixed()?;
            while let Some(next) = parser.operator_applied(&mut left, least)? {
                left = next;
            }
            parser.child_depth = parser.child_depth.max(left.depth);
            Ok(left)
        })
    }

    /// The expression with one more operator around it, or `None` when no operator as tight follows.
    fn operator_applied(&mut self, left: &mut Expression, least: Tightness) -> Parsed<Option<Expression>> {
        if !matches!(self.peek().kind, TokenKind::Word | TokenKind::Symbol | TokenKind::Integer | TokenKind::Decimal) {
            return Ok(None);
        }
        if TYPE >= least && (self.is_word("is") || self.is_word("as")) {
            return self.type_operator(left).map(Some);
        }
        let between = self.is_word("between") || self.are_words(&["properly", "between"]);
        if BETWEEN >= least && between {
            return self.between(left).map(Some);
        }
        if TIMING >= least
            && let Some(phrase) = self.timing_phrase()?
        {
            let right = self.expression_at(TIMING + 1)?;
            return self.timed(left, phrase, right).map(Some);
        }
        let Some((operator, tightness)) = plain(&self.peek().text, &PLAIN) else { return Ok(None) };
        if tightness < least {
            return Ok(None);
        }
        let words = self.bump().at;
        let precision = if tightness == MEMBERSHIP { self.precision_of()? } else { None };
        let right = self.expression_at(tightness + 1)?;
        self.binary(operator, precision, left, right, words).map(Some)
    }

    /// `day of`, when a precision and `of` follow.
    pub(super) fn precision_of(&mut self) -> Parsed<Option<Precision>> {
        let there = self.precision_ahead(0).is_some() && self.is_word_ahead(1, "of");
        if !there {
            return Ok(None);
        }
        let precision = self.precision()?;
        self.at += 1;
        Ok(Some(precision))
    }

    pub(super) fn binary(&mut self, operator: &'static str, precision: Option<Precision>, left: &mut Expression, right: Expression, words: Span) -> Parsed<Expression> {
        let depth = left.depth.max(right.depth) + 1;
        let left = take(left);
        let at = left.at.to(right.at);
        self.grown(Kind::Binary { operator, precision, left: Box::new(left), right: Box::new(right), words }, at, depth)
    }

    /// An expression of this height, or a fault when it is too high for the stages that follow.
    pub(super) fn grown(&mut self, kind: Kind, at: Span, depth: u32) -> Parsed<Expression> {
        if depth > DEPTH_MAX {
            let help = Some("name a part of it with a `define`".to_string());
            return self.fault(at, format!("this expression chains more than {DEPTH_MAX} operators"), help);
        }
        Ok(Expression { kind, at, depth })
    }

    fn type_operator(&mut self, left: &mut Expression) -> Parsed<Expression> {
        let is = self.eat_word("is");
        if !is {
            self.at += 1;
        }
        let depth = left.depth + 1;
        let start = left.at;
        let kind = if is {
            let negated = self.eat_word("not");
            let operator = [("null", "IsNull"), ("true", "IsTrue"), ("false", "IsFalse")];
            match operator.into_iter().find(|(word, _)| self.is_word(word)) {
                Some((_, operator)) => {
                    self.at += 1;
                    Kind::IsLiteral(operator, negated, Box::new(take(left)))
                }
                None if negated => return self.unexpected("`null`, `true` or `false` after `is not`"),
                None => Kind::Is(Box::new(take(left)), self.type_specifier()?),
            }
        } else {
            Kind::As(Box::new(take(left)), self.type_specifier()?, false)
        };
        let at = self.since(start);
        self.grown(kind, at, depth)
    }

    fn between(&mut self, left: &mut Expression) -> Parsed<Expression> {
        let proper = self.eat_word("properly");
        self.at += 1;
        let low = self.term_expression(0)?;
        self.expect_word("and", "between the bounds")?;
        let high = self.term_expression(0)?;
        let depth = left.depth.max(low.depth).max(high.depth) + 1;
        let left = take(left);
        let at = left.at.to(high.at);
        self.grown(Kind::Between(Box::new([left, low, high]), proper), at, depth)
    }

    /// Operators that are words in front of an expression.
    fn prefixed(&mut self) -> Parsed<Expression> {
        let start = self.peek().at;
        for (word, operator) in [("not", "Not"), ("exists", "Exists")] {
            if self.eat_word(word) {
                let operand = self.expression_at(PREFIX)?;
                let (at, depth) = (self.since(start), operand.depth + 1);
                return self.grown(Kind::Unary(operator, Box::new(operand)), at, depth);
            }
        }
        if self.is_word("cast") && !self.is_symbol_ahead(1, ".") {
            self.at += 1;
            let operand = self.term_expression(0)?;
            self.expect_word("as", "after what is cast")?;
            let target = self.type_specifier()?;
            let (at, depth) = (self.since(start), operand.depth + 1);
            return self.grown(Kind::As(Box::new(operand), target, true), at, depth);
        }
        if let Some(expression) = self.date_span(start)? {
            return Ok(expression);
        }
        self.term_expression(0)
    }

    /// `days between a and b`, `duration in days between …`, `difference in days between …`.
    fn date_span(&mut self, start: Span) -> Parsed<Option<Expression>> {
        let spelled = self.precision_ahead(2).is_some() && self.is_word_ahead(3, "between");
        let operator = if spelled && self.eat_words(&["difference", "in"]) {
            "DifferenceBetween"
        } else if (spelled && self.eat_words(&["duration", "in"])) || (self.precision_ahead(0).is_some() && self.is_word_ahead(1, "between")) {
            "DurationBetween"
        } else {
            return Ok(None);
        };
        let precision = self.precision()?;
        self.expect_word("between", "")?;
        let first = self.term_expression(0)?;
        self.expect_word("and", "between the two")?;
        let second = self.term_expression(0)?;
        let depth = first.depth.max(second.depth) + 1;
        let at = self.since(start);
        self.grown(Kind::DateSpan(operator, precision, Box::new([first, second])), at, depth).map(Some)
    }

    /// Terms with arithmetic between them.
    pub(super) fn term_expression(&mut self, least: Tightness) -> Parsed<Expression> {
        let mut left = self.nested(Self::term)?;
        while self.peek().kind != TokenKind::Quoted && self.peek().kind != TokenKind::String {
            let Some((operator, tightness)) = plain(&self.peek().text, &ARITHMETIC) else { break };
            if tightness < least {
                break;
            }
            let words = self.bump().at;
            let right = self.term_expression(tightness + 1)?;
            left = self.binary(operator, None, &mut left, right, words)?;
        }
        self.child_depth = self.child_depth.max(left.depth);
        Ok(left)
    }
}

fn plain(text: &str, table: &[(&str, &'static str, Tightness)]) -> Option<(&'static str, Tightness)> {
    table.iter().find(|(word, ..)| *word == text).map(|(_, operator, tightness)| (*operator, *tightness))
}

/// Moves the expression out; its place is filled by what is built around it.
pub(super) fn take(expression: &mut Expression) -> Expression {
    let at = expression.at;
    std::mem::replace(expression, Expression { kind: Kind::Null, at, depth: 0 })
}
