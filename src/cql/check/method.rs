//! FHIRPath's functions, called as methods: what each means in CQL (CQL, "Appendix I - FHIRPath Translation",
//! <https://cql.hl7.org/16-i-fhirpathtranslation.html>).

use super::{Checker, Variable};
use crate::cql::ast::{self, Kind as Written};
use crate::cql::typed::{Expression, Kind, Let, Query, Repeat, Return, Slot, Source};
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::diagnostic::{Span, counted};

/// Types that the results of a `repeat` may have, one after the other.
const REPEATED_TYPES_MAX: usize = 8;

/// Methods that are an operator over the target and the operands, in that order.
const OPERATORS: [(&str, &str); 61] = [
    ("abs", "Abs"),
    ("allTrue", "AllTrue"),
    ("anyTrue", "AnyTrue"),
    ("ceiling", "Ceiling"),
    ("convertsToBoolean", "ConvertsToBoolean"),
    ("convertsToDate", "ConvertsToDate"),
    ("convertsToDateTime", "ConvertsToDateTime"),
    ("convertsToDecimal", "ConvertsToDecimal"),
    ("convertsToInteger", "ConvertsToInteger"),
    ("convertsToLong", "ConvertsToLong"),
    ("convertsToQuantity", "ConvertsToQuantity"),
    ("convertsToString", "ConvertsToString"),
    ("convertsToTime", "ConvertsToTime"),
    ("count", "Count"),
    ("distinct", "Distinct"),
    ("endsWith", "EndsWith"),
    ("exclude", "Except"),
    ("exp", "Exp"),
    ("first", "First"),
    ("floor", "Floor"),
    ("intersect", "Intersect"),
    ("join", "Combine"),
    ("last", "Last"),
    ("length", "Length"),
    ("ln", "Ln"),
    ("log", "Log"),
    ("lower", "Lower"),
    ("matches", "Matches"),
    ("not", "Not"),
    ("power", "Power"),
    ("precision", "Precision"),
    ("replace", "Replace"),
    ("replaceMatches", "ReplaceMatches"),
    ("round", "Round"),
    ("single", "SingletonFrom"),
    ("skip", "Skip"),
    ("split", "Split"),
    ("startsWith", "StartsWith"),
    ("subsetOf", "IncludedIn"),
    ("substring", "Substring"),
    ("supersetOf", "Includes"),
    ("tail", "Tail"),
    ("take", "Take"),
    ("toBoolean", "ToBoolean"),
    ("toChars", "ToChars"),
    ("toConcept", "ToConcept"),
    ("toDate", "ToDate"),
    ("toDateTime", "ToDateTime"),
    ("toDecimal", "ToDecimal"),
    ("toInteger", "ToInteger"),
    ("toLong", "ToLong"),
    ("toQuantity", "ToQuantity"),
    ("toRatio", "ToRatio"),
    ("toString", "ToString"),
    ("toTime", "ToTime"),
    ("truncate", "Truncate"),
    ("union", "Union"),
    ("upper", "Upper"),
    ("now", "Now"),
    ("today", "Today"),
    ("timeOfDay", "TimeOfDay"),
];

/// Methods with a form of their own.
const FORMS: [&str; 22] = [
    "aggregate",
    "all",
    "allFalse",
    "anyFalse",
    "as",
    "children",
    "combine",
    "contains",
    "descendants",
    "empty",
    "exists",
    "iif",
    "indexOf",
    "is",
    "isDistinct",
    "lastIndexOf",
    "ofType",
    "repeat",
    "select",
    "sqrt",
    "trace",
    "where",
];

/// Whether FHIRPath has a function of that name that CQL translates.
pub(super) fn is_method(name: &str) -> bool {
    FORMS.contains(&name) || OPERATORS.iter().any(|(method, _)| *method == name)
}

/// The names of all methods, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|(method, _)| *method).chain(FORMS)
}

impl Checker<'_> {
    /// `name(…)` without a target: inside `where(…)` and its kin a method of `$this`; `iif`, `now()` and `today()` anywhere.
    pub(super) fn targetless(&mut self, name: &ast::Name, operands: &[ast::Expression], at: Span) -> Option<Expression> {
        match (&*name.text, operands) {
            ("now" | "today" | "timeOfDay", []) => {
                let operator = OPERATORS.iter().find(|(method, _)| *method == &*name.text)?.1;
                Some(self.operation(operator, Vec::new(), None, at))
            }
            ("iif", [condition, then]) => Some(self.iif(None, condition, then, None, at)),
            ("iif", [condition, then, otherwise]) => Some(self.iif(None, condition, then, Some(otherwise), at)),
            (method, _) if is_method(method) => {
                let this = self.frame.row.clone()?;
                let target = Expression::new(Kind::Slot(this.slot), this.ty, at);
                Some(self.method(target, name, operands, at))
            }
            _ => None,
        }
    }

    /// `target.name(…)` for a FHIRPath function.
    pub(super) fn method(&mut self, target: Expression, name: &ast::Name, operands: &[ast::Expression], at: Span) -> Expression {
        match (&*name.text, operands) {
            ("where", [criterion]) => self.where_this(target, criterion, at),
            ("exists", [criterion]) => {
                let found = self.where_this(target, criterion, at);
                self.operation("Exists", vec![found], None, at)
            }
            ("exists", []) => self.operation("Exists", vec![target], None, at),
            ("empty", []) => {
                let any = self.operation("Exists", vec![target], None, at);
                self.operation("Not", vec![any], None, at)
            }
            ("all", [criterion]) => self.all_of(target, criterion, at),
            ("allFalse", []) => self.of_negated("AllTrue", target, at),
            ("anyFalse", []) => self.of_negated("AnyTrue", target, at),
            // The projection only says what a trace would show.
            ("trace", [label, projection]) => {
                self.for_this(target.clone(), |checker| checker.expression(projection));
                let label = self.expression(label);
                self.plain_method(name, vec![target, label], at)
            }
            ("select", [projection]) => self.selected(target, projection, at),
            ("repeat", [projection]) => self.repeated(target, projection, at),
            ("children", []) => self.operation("Children", vec![target], None, at),
            ("descendants", []) => self.operation("Descendents", vec![target], None, at),
            ("aggregate", [next]) => self.aggregated(target, next, None, at),
            ("aggregate", [next, starting]) => self.aggregated(target, next, Some(starting), at),
            ("is" | "as" | "ofType", [ty]) => self.typed_method(target, name, ty, at),
            ("iif", [then]) => self.conditional_method(target, then, None, at),
            ("iif", [then, otherwise]) => self.conditional_method(target, then, Some(otherwise), at),
            ("iif", [condition, then, otherwise]) => self.iif(Some(target), condition, then, Some(otherwise), at),
            _ => {
                let mut all = vec![target];
                all.extend(operands.iter().map(|operand| self.expression(operand)));
                self.plain_method(name, all, at)
            }
        }
    }

    /// Methods whose operands are values.
    fn plain_method(&mut self, name: &ast::Name, operands: Vec<Expression>, at: Span) -> Expression {
        match (&*name.text, operands.as_slice()) {
            ("indexOf", [target, part]) => self.operation("PositionOf", vec![part.clone(), target.clone()], None, at),
            ("lastIndexOf", [target, part]) => self.operation("LastPositionOf", vec![part.clone(), target.clone()], None, at),
            ("contains", [target, part]) => {
                let position = self.operation("PositionOf", vec![part.clone(), target.clone()], None, at);
                let zero = self.literal(Value::Integer(0), Type::Integer, at);
                self.operation("GreaterOrEqual", vec![position, zero], None, at)
            }
            ("isDistinct", [target]) => self.is_distinct(target.clone(), at),
            ("sqrt", [target]) => {
                let half = self.literal(Value::Decimal(rust_decimal::Decimal::new(5, 1)), Type::Decimal, at);
                self.operation("Power", vec![target.clone(), half], None, at)
            }
            ("combine", [_, _]) => self.combined(operands, at),
            ("trace", [target, label]) => {
                let condition = self.literal(Value::Boolean(true), Type::Boolean, at);
                let [code, severity] = ["TRACE", "Trace"].map(|text| self.literal(Value::string(text), Type::String, at));
                self.message(vec![target.clone(), condition, code, severity, label.clone()], at)
            }
            (method, _) => match OPERATORS.iter().find(|(own, _)| *own == method) {
                Some((_, operator)) => self.operation(operator, operands, None, at),
                None => {
                    let help = Some("count the operands; FHIRPath says which it takes".to_owned());
                    self.error_with_help(name.at, format!("`{method}` does not take {}", counted(operands.len().saturating_sub(1), "operand")), help);
                    self.unknown(at)
                }
            },
        }
    }

    /// What is said of each item: names in it are elements of the item, `$this`, before anything else; `$index` is its
    /// number. With the target as the source of a query over it.
    fn for_this<T>(&mut self, target: Expression, check: impl FnOnce(&mut Self) -> T) -> (Source, T) {
        let item = target.ty.element().cloned().unwrap_or_else(|| target.ty.clone());
        let (slot, index) = (self.slot(), self.slot());
        let this = Variable { name: "$this".into(), slot, ty: item };
        let outer = self.frame.row.replace(this.clone());
        let depth = self.frame.variables.len();
        self.frame.variables.extend([this, Variable { name: "$index".into(), slot: index, ty: Type::Integer }]);
        let checked = check(self);
        self.frame.variables.truncate(depth);
        self.frame.row = outer;
        let index = self.frame.indexes.remove(&index).then_some(index);
        (Source { index, ..Source::new(slot, "$this".into(), target) }, checked)
    }

    fn where_this(&mut self, target: Expression, criterion: &ast::Expression, at: Span) -> Expression {
        let ty = target.ty.clone();
        let (source, condition) = self.for_this(target, |checker| {
            let condition = checker.expression(criterion);
            checker.converted(condition, &Type::Boolean, "a criterion")
        });
        query_of(source, Vec::new(), Some(condition), None, ty, at)
    }

    /// For each item what holds of it, and that what is not known does not hold.
    fn all_of(&mut self, target: Expression, criterion: &ast::Expression, at: Span) -> Expression {
        let ty = if target.ty.is_list() { Type::list(Type::Boolean) } else { Type::Boolean };
        let (source, holds) = self.for_this(target, |checker| {
            let condition = checker.expression(criterion);
            let condition = checker.converted(condition, &Type::Boolean, "a criterion");
            checker.operation("IsTrue", vec![condition], None, at)
        });
        let each = query_of(source, Vec::new(), None, Some(holds), ty, at);
        self.operation("AllTrue", vec![each], None, at)
    }

    /// As many items as distinct items; the list is evaluated once, as the one row of a query.
    fn is_distinct(&mut self, target: Expression, at: Span) -> Expression {
        let slot = self.slot();
        let items = Expression::new(Kind::Slot(slot), target.ty.clone(), at);
        let all = self.operation("Count", vec![items.clone()], None, at);
        let distinct = self.operation("Distinct", vec![items], None, at);
        let distinct = self.operation("Count", vec![distinct], None, at);
        let same = self.operation("Equal", vec![all, distinct], None, at);
        self.over_one(target, slot, same, at)
    }

    /// What a result is of one value, which it may name more than once: the query over a list of that value.
    fn over_one(&mut self, target: Expression, slot: Slot, result: Expression, at: Span) -> Expression {
        let (row, ty) = (Type::list(target.ty.clone()), Type::list(result.ty.clone()));
        let source = Expression::new(Kind::List(vec![target]), row, at);
        let list = query_of(Source::new(slot, "$this".into(), source), Vec::new(), None, Some(result), ty, at);
        self.operation("First", vec![list], None, at)
    }

    /// `X.allFalse() === AllTrue(X A return not A)`
    fn of_negated(&mut self, operator: &str, target: Expression, at: Span) -> Expression {
        let slot = self.slot();
        let item = Expression::new(Kind::Slot(slot), target.ty.element().cloned().unwrap_or_else(|| target.ty.clone()), at);
        let negated = self.operation("Not", vec![item], None, at);
        let ty = if target.ty.is_list() { Type::list(Type::Boolean) } else { Type::Boolean };
        let each = query_of(Source::new(slot, "$this".into(), target), Vec::new(), None, Some(negated), ty, at);
        self.operation(operator, vec![each], None, at)
    }

    /// `X.select(e) === X $this let $a: e where $a is not null return all $a`, lists joined.
    fn selected(&mut self, target: Expression, projection: &ast::Expression, at: Span) -> Expression {
        let (of_list, result) = (target.ty.is_list(), self.slot());
        let (source, value) = self.for_this(target, |checker| checker.expression(projection));
        let each = Expression::new(Kind::Slot(result), value.ty.clone(), at);
        let absent = self.operation("IsNull", vec![each.clone()], None, at);
        let present = self.operation("Not", vec![absent], None, at);
        let nested = value.ty.is_list();
        let ty = if of_list { Type::list(value.ty.clone()) } else { value.ty.clone() };
        let lets = vec![Let { slot: result, name: "$a".into(), expression: value }];
        let list = query_of(source, lets, Some(present), Some(each), ty, at);
        if of_list && nested { self.operation("Flatten", vec![list], None, at) } else { list }
    }

    /// `X.repeat(e)`: what e makes of the items of X, of those results, and so on. What its items are is known when e makes
    /// nothing of them that is of another type.
    fn repeated(&mut self, target: Expression, projection: &ast::Expression, at: Span) -> Expression {
        let item = |ty: &Type| ty.element().unwrap_or(ty).clone();
        let mut target = target;
        let first = item(&target.ty);
        let mut all = first.clone();
        for _ in 0..REPEATED_TYPES_MAX {
            target.ty = if target.ty.is_list() { Type::list(all.clone()) } else { all.clone() };
            let (found, slots) = (self.diagnostics.len(), self.frame.slots);
            let (source, element) = self.for_this(target.clone(), |checker| checker.expression(projection));
            let result = item(&element.ty);
            if self.conversions.is_subtype(&result, &all) || self.diagnostics.len() > found {
                let repeat = Repeat { source, element };
                return Expression::new(Kind::Repeat(Box::new(repeat)), Type::list(result), at);
            }
            self.frame.slots = slots;
            all = Type::choice([all, result]);
        }
        self.error(at, "`repeat` makes values of ever new types".to_owned());
        self.unknown(at)
    }

    fn aggregated(&mut self, target: Expression, next: &ast::Expression, starting: Option<&ast::Expression>, at: Span) -> Expression {
        let name = ast::Name { text: "$total".into(), at };
        let written = ast::Aggregate { distinct: false, name, starting: starting.cloned(), expression: next.clone() };
        let starting = starting.map(|starting| self.expression(starting));
        let (source, aggregate) = self.for_this(target, |checker| checker.aggregate(&written, starting));
        let ty = aggregate.expression.ty.clone();
        let singular = !source.expression.ty.is_list();
        let query = Query {
            sources: vec![source],
            lets: Vec::new(),
            relationships: Vec::new(),
            condition: None,
            returning: None,
            aggregate: Some(aggregate),
            sort: None,
            singular,
        };
        Expression::new(Kind::Query(Box::new(query)), ty, at)
    }

    /// `X.is(T)`, `X.as(T)`, `X.ofType(T)`; T is a type's name, bare or as a text.
    fn typed_method(&mut self, target: Expression, name: &ast::Name, ty: &ast::Expression, at: Span) -> Expression {
        let Some(path) = path_of(ty) else {
            self.error(ty.at, format!("`{}` takes the name of a type", name.text));
            return self.unknown(at);
        };
        let wanted = self.named_type(&path);
        match &*name.text {
            "is" => Expression::new(Kind::Is { operand: Box::new(target), target: wanted }, Type::Boolean, at),
            "as" => self.cast(target, wanted, false, at),
            _ => {
                let slot = self.slot();
                let item = target.ty.element().cloned().unwrap_or_else(|| target.ty.clone());
                let this = Expression::new(Kind::Slot(slot), item, at);
                let test = Expression::new(Kind::Is { operand: Box::new(this.clone()), target: wanted.clone() }, Type::Boolean, at);
                let held = Expression::new(Kind::As { operand: Box::new(this), target: wanted.clone(), strict: false }, wanted.clone(), at);
                let ty = if target.ty.is_list() { Type::list(wanted) } else { wanted };
                query_of(Source::new(slot, "$this".into(), target), Vec::new(), Some(test), Some(held), ty, at)
            }
        }
    }

    /// `X.iif(Y, Z) === if X then Y else Z`
    fn conditional_method(&mut self, target: Expression, then: &ast::Expression, otherwise: Option<&ast::Expression>, at: Span) -> Expression {
        let condition = if target.ty.is_list() { self.operation("SingletonFrom", vec![target], None, at) } else { target };
        let then = self.expression(then);
        let otherwise = match otherwise {
            Some(otherwise) => self.expression(otherwise),
            None => self.unknown(at),
        };
        self.choose(condition, then, otherwise, at)
    }

    /// FHIRPath's own form, `iif(condition, then, otherwise)`, over one target if it has one.
    fn iif(&mut self, target: Option<Expression>, condition: &ast::Expression, then: &ast::Expression, otherwise: Option<&ast::Expression>, at: Span) -> Expression {
        let parts = |checker: &mut Self| {
            let (condition, then) = (checker.expression(condition), checker.expression(then));
            let otherwise = match otherwise {
                Some(otherwise) => checker.expression(otherwise),
                None => checker.unknown(at),
            };
            checker.choose(condition, then, otherwise, at)
        };
        let Some(mut target) = target else { return parts(self) };
        if target.ty.is_list() {
            target = self.operation("SingletonFrom", vec![target], None, at);
        }
        let (source, chosen) = self.for_this(target, parts);
        // A list of one: a query over null itself would have no row, and the condition need not speak of `$this`.
        self.over_one(source.expression, source.slot, chosen, at)
    }

    fn choose(&mut self, condition: Expression, then: Expression, otherwise: Expression, at: Span) -> Expression {
        let condition = self.converted(condition, &Type::Boolean, "the condition of `iif`");
        let ty = self.conversions.common(&then.ty, &otherwise.ty);
        let (then, otherwise) = (self.widened(then, &ty), self.widened(otherwise, &ty));
        Expression::new(Kind::If(Box::new([condition, then, otherwise])), ty, at)
    }

    /// `X.combine(Y) === Flatten({ X, Y })`
    fn combined(&mut self, operands: Vec<Expression>, at: Span) -> Expression {
        let item = |ty: &Type| ty.element().cloned().unwrap_or_else(|| ty.clone());
        let ty = operands.iter().fold(Type::Any, |ty, operand| self.conversions.common(&ty, &item(&operand.ty)));
        let list = Type::list(ty);
        let operands = operands.into_iter().map(|operand| self.converted(operand, &list, "an operand of `combine`")).collect();
        let both = Expression::new(Kind::List(operands), Type::list(list), at);
        self.operation("Flatten", vec![both], None, at)
    }
}

/// A query over one source, without duplicates being removed.
fn query_of(source: Source, lets: Vec<Let>, condition: Option<Expression>, result: Option<Expression>, ty: Type, at: Span) -> Expression {
    let singular = !source.expression.ty.is_list();
    let sources = vec![source];
    let returning = result.map(|expression| Return { expression, distinct: false });
    let query = Query { sources, lets, relationships: Vec::new(), condition, returning, aggregate: None, sort: None, singular };
    Expression::new(Kind::Query(Box::new(query)), ty, at)
}

/// The name of a type, written as a path or as a text.
fn path_of(written: &ast::Expression) -> Option<ast::Path> {
    let at = written.at;
    match &written.kind {
        Written::Name(text) | Written::String(text) => Some(ast::Path { parts: vec![ast::Name { text: text.clone(), at }], at }),
        Written::Member(source, name) => {
            let mut path = path_of(source)?;
            path.parts.push(name.clone());
            path.at = at;
            Some(path)
        }
        _ => None,
    }
}
