//! Timing phrases: `starts 3 days or less before day of`, `during`, `overlaps`, `same month or after`, `within 2 days of`.

use super::expression::take;
use super::{Parsed, Parser};
use crate::cql::ast::{Bound, Expression, Kind, Offset, Quantity};
use crate::cql::lexer::TokenKind;
use crate::cql::value::Precision;
use crate::diagnostic::Span;

/// A phrase between two operands.
pub(super) struct Phrase {
    relation: Relation,
    /// `starts`, `ends`: the left bound that is meant.
    left: Option<&'static str>,
    /// `start`, `end` after the phrase: the right bound that is meant.
    right: Option<&'static str>,
    words: Span,
}

enum Relation {
    Operator(&'static str, Option<Precision>),
    Offset { before: bool, inclusive: bool, bound: Bound, distance: Quantity, precision: Option<Precision> },
    Within { proper: bool, distance: Quantity },
}

impl Parser<'_> {
    /// The phrase that comes next, if one does.
    pub(super) fn timing_phrase(&mut self) -> Parsed<Option<Phrase>> {
        let start = self.peek().at;
        let left = match &*self.peek().text {
            "starts" if self.phrase_ahead(1) => Some("Start"),
            "ends" if self.phrase_ahead(1) => Some("End"),
            "occurs" => None,
            _ if self.phrase_ahead(0) => None,
            "starts" | "ends" | "meets" | "overlaps" => return self.interval_relation(start).map(Some),
            "includes" => return self.includes(false, start).map(Some),
            "properly" if self.is_word_ahead(1, "includes") => {
                self.at += 1;
                return self.includes(true, start).map(Some);
            }
            _ => return Ok(None),
        };
        if left.is_some() || self.is_word("occurs") {
            self.at += 1;
        }
        let relation = self.relation()?;
        let right = match &relation {
            Relation::Operator("IncludedIn" | "ProperIncludedIn", _) => None,
            _ => self.boundary(),
        };
        Ok(Some(Phrase { relation, left, right, words: self.since(start) }))
    }

    /// Whether at that place a phrase begins that `starts`, `ends` and `occurs` may precede.
    fn phrase_ahead(&self, count: usize) -> bool {
        let token = self.ahead(count);
        let next = |word: &str| self.is_word_ahead(count + 1, word);
        match token.kind {
            TokenKind::Integer | TokenKind::Decimal => true,
            TokenKind::Word => match &*token.text {
                "same" | "during" | "before" | "after" | "within" => true,
                "included" => next("in"),
                "on" => next("or"),
                "less" | "more" => next("than"),
                "properly" => next("during") || next("within") || next("included"),
                _ => false,
            },
            _ => false,
        }
    }

    fn boundary(&mut self) -> Option<&'static str> {
        let (word, operator) = [("start", "Start"), ("end", "End")].into_iter().find(|(word, _)| self.is_word(word))?;
        if self.is_word_ahead(1, "of") || self.is_symbol_ahead(1, ".") {
            return None;
        }
        self.eat_word(word);
        Some(operator)
    }

    fn relation(&mut self) -> Parsed<Relation> {
        if self.eat_word("same") {
            return self.same();
        }
        let proper = self.eat_word("properly");
        if self.eat_word("during") || self.eat_words(&["included", "in"]) {
            let operator = if proper { "ProperIncludedIn" } else { "IncludedIn" };
            return Ok(Relation::Operator(operator, self.precision_of()?));
        }
        if self.eat_word("within") {
            let distance = self.quantity()?;
            self.expect_word("of", "after the distance")?;
            return Ok(Relation::Within { proper, distance });
        }
        if proper {
            return self.unexpected("`during`, `included in`, `includes`, `within` or `between` after `properly`");
        }
        self.before_or_after()
    }

    fn same(&mut self) -> Parsed<Relation> {
        let precision = if self.precision_ahead(0).is_some() { Some(self.precision()?) } else { None };
        let operator = if self.eat_word("as") {
            "SameAs"
        } else if self.eat_words(&["or", "before"]) {
            "SameOrBefore"
        } else if self.eat_words(&["or", "after"]) {
            "SameOrAfter"
        } else {
            return self.unexpected("`as`, `or before` or `or after` after `same`");
        };
        Ok(Relation::Operator(operator, precision))
    }

    fn before_or_after(&mut self) -> Parsed<Relation> {
        let exclusive = if self.eat_words(&["less", "than"]) {
            Some(Bound::LessThan)
        } else if self.eat_words(&["more", "than"]) {
            Some(Bound::MoreThan)
        } else {
            None
        };
        let counted = matches!(self.peek().kind, TokenKind::Integer | TokenKind::Decimal);
        let distance = if exclusive.is_some() || counted { Some(self.quantity()?) } else { None };
        let bound = match exclusive {
            Some(bound) => bound,
            None if self.eat_words(&["or", "more"]) => Bound::OrMore,
            None if self.eat_words(&["or", "less"]) => Bound::OrLess,
            None => Bound::Exactly,
        };
        let mut inclusive = self.eat_words(&["on", "or"]);
        let before = self.is_word("before");
        if !before && !self.is_word("after") {
            return self.unexpected("`before` or `after`");
        }
        self.at += 1;
        inclusive |= self.eat_words(&["or", "on"]);
        let precision = self.precision_of()?;
        Ok(match distance {
            Some(distance) => Relation::Offset { before, inclusive, bound, distance, precision },
            None => Relation::Operator(
                match (before, inclusive) {
                    (true, false) => "Before",
                    (true, true) => "SameOrBefore",
                    (false, false) => "After",
                    (false, true) => "SameOrAfter",
                },
                precision,
            ),
        })
    }

    fn interval_relation(&mut self, start: Span) -> Parsed<Phrase> {
        let word = self.bump().text;
        let operator = match &*word {
            "starts" => "Starts",
            "ends" => "Ends",
            "meets" if self.eat_word("before") => "MeetsBefore",
            "meets" if self.eat_word("after") => "MeetsAfter",
            "meets" => "Meets",
            _ if self.eat_word("before") => "OverlapsBefore",
            _ if self.eat_word("after") => "OverlapsAfter",
            _ => "Overlaps",
        };
        let precision = self.precision_of()?;
        Ok(Phrase { relation: Relation::Operator(operator, precision), left: None, right: None, words: self.since(start) })
    }

    fn includes(&mut self, proper: bool, start: Span) -> Parsed<Phrase> {
        self.at += 1;
        let precision = self.precision_of()?;
        let operator = if proper { "ProperIncludes" } else { "Includes" };
        let right = self.boundary();
        Ok(Phrase { relation: Relation::Operator(operator, precision), left: None, right, words: self.since(start) })
    }

    /// The phrase between its operands.
    pub(super) fn timed(&mut self, left: &mut Expression, phrase: Phrase, right: Expression) -> Parsed<Expression> {
        let bounded = |side: Expression, operator: Option<&'static str>| match operator {
            Some(operator) => {
                let (at, depth) = (side.at, side.depth + 1);
                Expression { kind: Kind::Unary(operator, Box::new(side)), at, depth }
            }
            None => side,
        };
        let mut left = bounded(take(left), phrase.left);
        let right = bounded(right, phrase.right);
        let (at, depth) = (left.at.to(right.at), left.depth.max(right.depth) + 1);
        match phrase.relation {
            Relation::Operator(operator, precision) => self.binary(operator, precision, &mut left, right, phrase.words),
            Relation::Offset { before, inclusive, bound, distance, precision } => {
                let offset = Offset { before, inclusive, bound, distance, precision, left, right };
                self.grown(Kind::Offset(Box::new(offset)), at, depth)
            }
            Relation::Within { proper, distance } => self.grown(Kind::Within { proper, distance, left: Box::new(left), right: Box::new(right) }, at, depth),
        }
    }
}
