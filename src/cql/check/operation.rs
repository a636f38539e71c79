//! Operators: which row of the table a written form means, and with which operands.

use super::{Checker, overload};
use crate::cql::ast::{self, Bound, Kind as Written};
use crate::cql::operators::{self, operator};
use crate::cql::typed::{Expression, IntervalSelector, Kind};
use crate::cql::types::Type;
use crate::cql::value::{Precision, Value};
use crate::diagnostic::{Diagnostic, Span, counted};

/// What an interval phrase means when its left or right operand is one point.
const POINT_FORMS: [(&str, &str); 4] = [("IncludedIn", "In"), ("Includes", "Contains"), ("ProperIncludedIn", "ProperIn"), ("ProperIncludes", "ProperContains")];

/// Relations whose left operand may be a choice of point and interval, decided per value. In the others it is the point, if it
/// can be one (CQL, "Conversion Precedence": simple types first): an onset that is a period is before nothing.
const TIMING: [&str; 4] = ["IncludedIn", "ProperIncludedIn", "Overlaps", "In"];

/// The types that `minimum` and `maximum` know.
const EXTREMES: [Type; 7] = [Type::Integer, Type::Long, Type::Decimal, Type::Quantity, Type::Date, Type::DateTime, Type::Time];

/// Aggregates of which equal items change the result.
const COUNTING: [&str; 11] = ["Avg", "Count", "GeometricMean", "Median", "Mode", "PopulationStdDev", "PopulationVariance", "Product", "StdDev", "Sum", "Variance"];

/// How authors write an operator, where that is not its ELM name.
fn symbol(name: &str) -> Option<&'static str> {
    Some(match name {
        "Add" => "+",
        "Subtract" | "Negate" => "-",
        "Multiply" => "*",
        "Divide" => "/",
        "TruncatedDivide" => "div",
        "Modulo" => "mod",
        "Power" => "^",
        "Equal" => "=",
        "NotEqual" => "!=",
        "Equivalent" => "~",
        "NotEquivalent" => "!~",
        "Less" => "<",
        "LessOrEqual" => "<=",
        "Greater" => ">",
        "GreaterOrEqual" => ">=",
        "Not" => "not",
        "Exists" => "exists",
        "In" => "in",
        "IncludedIn" => "during",
        "Includes" => "includes",
        "Before" => "before",
        "After" => "after",
        "SameAs" => "same as",
        "SameOrBefore" => "on or before",
        "SameOrAfter" => "on or after",
        "Overlaps" => "overlaps",
        "Union" => "union",
        "Start" => "start of",
        "End" => "end of",
        "DateFrom" => "date from",
        _ => return None,
    })
}

impl Checker<'_> {
    /// The operator forms of the syntax tree.
    pub(super) fn operator_form(&mut self, written: &ast::Expression) -> Expression {
        let at = written.at;
        match &written.kind {
            Written::Unary(name, operand) => self.unary(name, operand, at),
            Written::Binary { operator, precision, left, right, .. } => {
                if [left, right].iter().any(|side| matches!(side.kind, Written::Null)) {
                    self.compared_with_null(operator, at);
                }
                let (left, right) = (self.expression(left), self.expression(right));
                self.binary(operator, left, right, *precision, at)
            }
            Written::Indexer(source, index) => self.apply_to("Indexer", &[source, index], None, at),
            Written::IsLiteral(name, negated, operand) => {
                let test = self.apply_to(name, &[operand], None, at);
                if *negated { self.operation("Not", vec![test], None, at) } else { test }
            }
            Written::ConvertUnit(operand, unit) => {
                let operand = self.expression(operand);
                let unit = self.literal(Value::String(unit.clone()), Type::String, at);
                self.operation("ConvertQuantity", vec![operand, unit], None, at)
            }
            Written::ConvertType(operand, ty) => {
                let operand = self.expression(operand);
                let target = self.type_of(ty);
                self.convert(operand, &target, at)
            }
            Written::Between(parts, proper) => self.between(parts, *proper, at),
            Written::DateSpan(name, precision, ends) => {
                let [low, high] = &**ends;
                self.apply_to(name, &[low, high], Some(*precision), at)
            }
            Written::SpanOf(name, precision, operand) => {
                let operand = self.expression(operand);
                let start = self.operation("Start", vec![operand.clone()], None, at);
                let end = self.operation("End", vec![operand], None, at);
                self.operation(name, vec![start, end], Some(*precision), at)
            }
            Written::Component(precision, operand) => self.apply_to("DateTimeComponentFrom", &[operand], Some(*precision), at),
            Written::Extreme(name, path) => {
                let ty = self.named_type(path);
                if !EXTREMES.contains(&ty) && ty != Type::Any {
                    let known = "Integer, Long, Decimal, Quantity, Date, DateTime and Time have one".to_owned();
                    let help = super::system_twin(&ty).unwrap_or(known);
                    self.error_with_help(path.at, format!("`{ty}` has no least and no greatest value"), Some(help));
                    return self.unknown(at);
                }
                let text = self.literal(Value::string(&ty.to_string()), Type::String, path.at);
                let mut extreme = self.operation(name, vec![text], None, at);
                extreme.ty = ty;
                extreme
            }
            Written::PerUnit(name, operand, per) => {
                let mut operands = vec![self.expression(operand)];
                operands.extend(per.as_ref().map(|per| self.expression(per)));
                self.operation(name, operands, None, at)
            }
            Written::Offset(offset) => {
                self.far_from_null(&offset.right);
                self.offset(offset, at)
            }
            Written::Within { proper, distance, left, right } => {
                self.far_from_null(right);
                let (left, right) = (self.expression(left), self.expression(right));
                self.within(*proper, distance, left, right, at)
            }
            _ => self.unknown(at),
        }
    }

    fn apply_to(&mut self, name: &str, operands: &[&ast::Expression], precision: Option<Precision>, at: Span) -> Expression {
        let operands = operands.iter().map(|operand| self.expression(operand)).collect();
        self.operation(name, operands, precision, at)
    }

    fn unary(&mut self, name: &str, operand: &ast::Expression, at: Span) -> Expression {
        // The least Integer has no positive counterpart to negate.
        if let ("Negate", Written::Integer(digits)) = (name, &operand.kind)
            && let Ok(number) = format!("-{digits}").parse::<i32>()
        {
            return self.literal(Value::Integer(number), Type::Integer, at);
        }
        if let ("Negate", Written::Long(digits)) = (name, &operand.kind)
            && let Ok(number) = format!("-{digits}").parse::<i64>()
        {
            return self.literal(Value::Long(number), Type::Long, at);
        }
        let operand = self.expression(operand);
        if name == "Positive" {
            return operand;
        }
        self.operation(name, vec![operand], None, at)
    }

    /// A binary form: logic, terminology membership, timing phrases, then the table.
    fn binary(&mut self, name: &str, left: Expression, right: Expression, precision: Option<Precision>, at: Span) -> Expression {
        match name {
            "And" | "Or" | "Implies" => self.logic(name, [left, right], at),
            "ConcatenateNull" => {
                let operands = [left, right].map(|operand| self.text_or_empty(operand)).into();
                self.operation("Concatenate", operands, None, at)
            }
            "In" if matches!(right.ty, Type::ValueSet | Type::CodeSystem) => self.membership(left, right, at),
            "Contains" if matches!(left.ty, Type::ValueSet | Type::CodeSystem) => self.membership(right, left, at),
            "Add" if self.is_text(&left.ty) && self.is_text(&right.ty) && !(left.ty == Type::Any && right.ty == Type::Any) => {
                self.operation("Concatenate", vec![left, right], None, at)
            }
            "NotEqual" | "NotEquivalent" => self.operation(name, vec![left, right], None, at),
            // One of a list of such choices is asked for as it is: null too may be among them.
            "In" if right.ty.element() == Some(&left.ty) => self.operation(name, vec![left, right], precision, at),
            _ if TIMING.contains(&name) && matches!(left.ty, Type::Choice(_)) => self.timing_choice(name, left, right, precision, at),
            _ => self.operation(name, vec![left, right], precision, at),
        }
    }

    /// An operand of `&`: null is the empty text.
    fn text_or_empty(&mut self, operand: Expression) -> Expression {
        let at = operand.at;
        let text = self.converted(operand, &Type::String, "an operand of `&`");
        let empty = self.literal(Value::string(""), Type::String, at);
        Expression::new(Kind::Coalesce(vec![text, empty]), Type::String, at)
    }

    fn is_text(&self, ty: &Type) -> bool {
        *ty == Type::String || *ty == Type::Any || matches!(ty, Type::Class(_)) && self.conversions.way(ty, &Type::String).is_some()
    }

    /// A timing relation over a choice such as `Observation.effective`: by the alternative that the value is.
    fn timing_choice(&mut self, name: &str, left: Expression, right: Expression, precision: Option<Precision>, at: Span) -> Expression {
        let Type::Choice(types) = left.ty.clone() else {
            return self.operation(name, vec![left, right], precision, at);
        };
        let mut items = Vec::new();
        for ty in types.iter() {
            let fits = [Some(name), point_form(name)]
                .into_iter()
                .flatten()
                .any(|name| operator(name).is_some_and(|row| overload::signature(&self.conversions, &[ty.clone(), right.ty.clone()], row.signatures).is_some()));
            if !fits {
                continue;
            }
            let (test, held) = alternative(&left, ty);
            let related = self.operation(name, vec![held, right.clone()], precision, at);
            items.push((test, related));
        }
        if items.is_empty() {
            return self.operation(name, vec![left, right], precision, at);
        }
        let otherwise = Box::new(Expression::null(Type::Boolean, at));
        Expression::new(Kind::Case { comparand: None, items, otherwise }, Type::Boolean, at)
    }

    /// `code in "Value Set"`: of one code or of any of a list.
    pub(super) fn membership(&mut self, codes: Expression, vocabulary: Expression, at: Span) -> Expression {
        let one = if vocabulary.ty == Type::ValueSet { "InValueSet" } else { "InCodeSystem" };
        let any = if vocabulary.ty == Type::ValueSet { "AnyInValueSet" } else { "AnyInCodeSystem" };
        let name = if codes.ty.is_list() { any } else { one };
        self.operation(name, vec![codes, vocabulary], None, at)
    }

    /// Logic, which evaluates its right side only where the left one leaves the answer open; written as a word or as a call.
    pub(super) fn logic(&mut self, name: &str, operands: [Expression; 2], at: Span) -> Expression {
        let operands = Box::new(operands.map(|operand| self.converted(operand, &Type::Boolean, "an operand of a logical operator")));
        let kind = match name {
            "And" => Kind::And(operands),
            "Or" => Kind::Or(operands),
            _ => Kind::Implies(operands),
        };
        Expression::new(kind, Type::Boolean, at)
    }

    /// An operator of the table over these operands, converted to its best signature.
    pub(super) fn operation(&mut self, name: &str, operands: Vec<Expression>, precision: Option<Precision>, at: Span) -> Expression {
        let operands = if matches!(name, "Max" | "Min") { operands.into_iter().map(|operand| self.in_system_form(operand)).collect() } else { operands };
        let types: Vec<Type> = operands.iter().map(|operand| operand.ty.clone()).collect();
        if COUNTING.contains(&name) {
            self.warn_of_equal_items(name, &operands);
        }
        for name in [Some(name), point_form(name)].into_iter().flatten() {
            let Some(row) = operators::typed(name, &types) else { continue };
            let fit = overload::signature(&self.conversions, &types, row.signatures);
            let Some(fit) = fit.or_else(|| self.mixed_lists(name, &types)) else {
                continue;
            };
            if self.lacks_order(name, &types, at) || self.lacks_width(name, &types, at) {
                return self.unknown(at);
            }
            let operands = operands.into_iter().zip(&fit.ways).map(|(operand, way)| self.step(operand, &way.step)).collect();
            let ty = match (name, types.as_slice()) {
                ("Children" | "Descendents", [whole]) => Type::list(self.conversions.parts(whole, name == "Descendents")),
                _ => fit.result,
            };
            return Expression::new(Kind::Operator { operator: row, operands, precision }, ty, at);
        }
        self.no_overload(name, &types, at);
        self.unknown(at)
    }

    /// `return` leaves one of equal results, as CQL has it: of two equal amounts a sum has one.
    fn warn_of_equal_items(&mut self, name: &str, operands: &[Expression]) {
        let [Expression { kind: Kind::Query(query), at, .. }] = operands else { return };
        let Some(returning) = query.returning.as_ref().filter(|returning| returning.distinct) else { return };
        let item = &returning.expression;
        let before = self.source.text.get(at.start as usize..item.at.start as usize).unwrap_or_default();
        let is_number = matches!(self.system_form(&item.ty), Type::Integer | Type::Long | Type::Decimal | Type::Quantity);
        if is_number && !before.trim_end().ends_with("distinct") {
            let warning = Diagnostic::warning(format!("`return` leaves one of equal numbers, so `{name}` has each of them once")).at(self.at(item.at));
            self.report(warning.help("write `return all` to keep them all, or `return distinct` to say that once is meant"));
        }
    }

    /// A list of elements of the model, which have no order, as a list of what they convert to.
    fn in_system_form(&mut self, operand: Expression) -> Expression {
        match &operand.ty {
            Type::List(element) => {
                let system = Type::list(self.system_form(element));
                self.widened(operand, &system)
            }
            _ => operand,
        }
    }

    /// `union` and its kin over lists of different types make a list of their choice.
    fn mixed_lists(&self, name: &str, types: &[Type]) -> Option<overload::Fit> {
        let ("Union" | "Intersect" | "Except", [a, b]) = (name, types) else {
            return None;
        };
        let mixed = Type::list(Type::choice([a.element()?.clone(), b.element()?.clone()]));
        overload::best(&self.conversions, types, std::iter::once((0, vec![&mixed, &mixed], mixed.clone())))
    }

    /// Nothing equals null, not even null: the author means `is null`.
    fn compared_with_null(&mut self, operator: &str, at: Span) {
        let instead = match operator {
            "Equal" => "is null",
            "NotEqual" => "is not null",
            _ => return,
        };
        let warning = Diagnostic::warning("a comparison with null is null, whatever stands on the other side").at(self.at(at));
        self.report(warning.help(format!("write `{instead}`")));
    }

    fn far_from_null(&mut self, from: &ast::Expression) {
        if matches!(from.kind, Written::Null) {
            let warning = Diagnostic::warning("nothing is at a distance from null: this is never true").at(self.at(from.at));
            self.report(warning.help("write the date or the interval that is meant"));
        }
    }

    /// Dates have no width: their interval has a duration.
    fn lacks_width(&mut self, name: &str, types: &[Type], at: Span) -> bool {
        let ([Type::Interval(point)], "Width" | "Size") = (types, name) else { return false };
        let lacks = is_time(&self.system_form(point));
        if lacks {
            let help = "ask for the `duration in days of` it, or another unit".to_owned();
            self.error_with_help(at, format!("an interval of {point} has no width"), Some(help));
        }
        lacks
    }

    /// The least or greatest of what has no order would be an error of every run.
    fn lacks_order(&mut self, name: &str, types: &[Type], at: Span) -> bool {
        let ([Type::List(item)], "Max" | "Min") = (types, name) else { return false };
        let lacks = match &**item {
            Type::Boolean | Type::Code | Type::Concept | Type::Tuple(_) | Type::List(_) | Type::Interval(_) | Type::Ratio => true,
            class @ Type::Class(_) => self.system_form(class) == *class,
            _ => false,
        };
        if lacks {
            let help = format!("give `{name}` what is to be compared, as `{name}(X x return x.when)`");
            self.error_with_help(at, format!("values of type `{item}` have no order: `{name}` cannot tell which comes first"), Some(help));
        }
        lacks
    }

    fn no_overload(&mut self, name: &str, types: &[Type], at: Span) {
        let Some(row) = operator(name) else {
            self.error(at, format!("the operator `{name}` is not known"));
            return;
        };
        if self.expects_helpers(types) {
            return;
        }
        let mut forms: Vec<String> = row
            .signatures
            .iter()
            .filter(|signature| signature.operands.len() == types.len())
            .map(|signature| {
                let types: Vec<Type> = signature.operands.iter().map(|pattern| overload::instantiate(pattern, &Type::class("T"))).collect();
                overload::written(&types)
            })
            .collect();
        forms.dedup();
        let help = match forms.as_slice() {
            [] => format!("it takes {}", counted(row.signatures.first().map_or(0, |signature| signature.operands.len()), "operand")),
            _ if types.contains(&Type::String) && types.iter().any(|ty| matches!(ty, Type::Date | Type::DateTime)) => {
                "a date is written `@2025-01-01`, a date and time `@2025-01-01T10:30:00.0`, without quotes".to_owned()
            }
            _ if matches!(name, "Equal" | "NotEqual" | "Equivalent" | "NotEquivalent") => "both sides must have one type, or convert to one".to_owned(),
            forms => format!("it takes {}", forms.join(" or ")),
        };
        let help = match types {
            [Type::Class(_) | Type::Choice(_)] if name == "Exists" => "`exists` asks about a list; for one value write `is not null`".to_owned(),
            _ if name == "Not" && self.is_compared(at) => "`not` takes what stands next to it alone: put what it denies into parentheses, as `not (A ~ B)`".to_owned(),
            _ => help,
        };
        let help = self.lacks_helpers(types).unwrap_or(help);
        let written = symbol(name).unwrap_or(name);
        self.error_with_help(at, format!("`{written}` does not go with {}", overload::written(types)), Some(help));
    }

    /// Whether a comparison follows that, unlike `not`, the author thinks of first.
    fn is_compared(&self, at: Span) -> bool {
        let rest = self.source.text.get(at.end as usize..).unwrap_or_default().trim_start();
        ["~", "=", "!", "<", ">", "in ", "during ", "before ", "after "].iter().any(|sign| rest.starts_with(sign))
    }

    fn convert(&mut self, operand: Expression, target: &Type, at: Span) -> Expression {
        if let Some(way) = self.conversions.way(&operand.ty, target) {
            return self.step(operand, &way.step);
        }
        let name = format!("To{target}");
        match operator(&name) {
            Some(_) => self.operation(&name, vec![operand], None, at),
            None => self.converted(operand, target, "the result of this conversion"),
        }
    }

    fn between(&mut self, parts: &[ast::Expression; 3], proper: bool, at: Span) -> Expression {
        let [operand, low, high] = parts;
        let (operand, low, high) = (self.expression(operand), self.expression(low), self.expression(high));
        let (above, below) = if proper { ("Greater", "Less") } else { ("GreaterOrEqual", "LessOrEqual") };
        let above = self.operation(above, vec![operand.clone(), low], None, at);
        let below = self.operation(below, vec![operand, high], None, at);
        self.binary("And", above, below, None, at)
    }

    /// `A 3 days or less before B`: A against an interval that ends at B (CQL, "Timing and Interval Operators").
    fn offset(&mut self, offset: &ast::Offset, at: Span) -> Expression {
        let (left, right) = (self.expression(&offset.left), self.expression(&offset.right));
        let Some(distance) = self.quantity(&offset.distance) else {
            return self.unknown(at);
        };
        let right = self.timed(right, &left.ty);
        let distance = self.literal(Value::Quantity(std::sync::Arc::new(distance)), Type::Quantity, offset.distance.at);
        let (near, far) = if offset.before { ("End", "Start") } else { ("Start", "End") };
        let left = self.end_of(left, near);
        let right = self.end_of(right, far);
        let shift = if offset.before { "Subtract" } else { "Add" };
        let moved = self.operation(shift, vec![right.clone(), distance], None, at);
        let precision = offset.precision;
        match offset.bound {
            Bound::Exactly => self.operation("SameAs", vec![left, moved], precision, at),
            Bound::OrMore => self.operation(if offset.before { "SameOrBefore" } else { "SameOrAfter" }, vec![left, moved], precision, at),
            Bound::MoreThan => self.operation(if offset.before { "Before" } else { "After" }, vec![left, moved], precision, at),
            Bound::OrLess | Bound::LessThan => {
                let far_closed = offset.bound == Bound::OrLess;
                let (low, high) = if offset.before { ((moved, far_closed), (right.clone(), offset.inclusive)) } else { ((right.clone(), offset.inclusive), (moved, far_closed)) };
                let inside = self.in_range(left, low, high, precision, at);
                // An open bound at null must not make the range unbounded.
                let known = self.operation("IsNull", vec![right], None, at);
                let known = self.operation("Not", vec![known], None, at);
                self.binary("And", inside, known, None, at)
            }
        }
    }

    /// A null in place of a time is one of the type that it is related to: what is added to it is a time, not a quantity.
    fn timed(&mut self, operand: Expression, other: &Type) -> Expression {
        let other = self.system_form(other);
        let point = other.point().unwrap_or(&other);
        if operand.ty == Type::Any && is_time(point) { self.widened(operand, point) } else { operand }
    }

    /// `A within 3 days of B`.
    fn within(&mut self, proper: bool, distance: &ast::Quantity, left: Expression, right: Expression, at: Span) -> Expression {
        let Some(quantity) = self.quantity(distance) else {
            return self.unknown(at);
        };
        let right = self.timed(right, &left.ty);
        let distance = self.literal(Value::Quantity(std::sync::Arc::new(quantity)), Type::Quantity, distance.at);
        let (first, last) = (self.end_of(right.clone(), "Start"), self.end_of(right.clone(), "End"));
        let low = self.operation("Subtract", vec![first, distance.clone()], None, at);
        let high = self.operation("Add", vec![last, distance], None, at);
        let inside = self.in_range(left, (low, !proper), (high, !proper), None, at);
        let known = self.operation("IsNull", vec![right], None, at);
        let known = self.operation("Not", vec![known], None, at);
        self.binary("And", inside, known, None, at)
    }

    fn in_range(&mut self, point: Expression, low: (Expression, bool), high: (Expression, bool), precision: Option<Precision>, at: Span) -> Expression {
        let ty = self.conversions.common(&low.0.ty, &high.0.ty);
        let selector = IntervalSelector {
            low: self.widened(low.0, &ty),
            low_closed: self.literal(Value::Boolean(low.1), Type::Boolean, at),
            high: self.widened(high.0, &ty),
            high_closed: self.literal(Value::Boolean(high.1), Type::Boolean, at),
        };
        let range = Expression::new(Kind::Interval(Box::new(selector)), Type::interval(ty), at);
        self.operation("IncludedIn", vec![point, range], precision, at)
    }

    /// The start or end of an interval; a point is its own. A choice of both, such as `Observation.effective`, is a point, as without a
    /// distance (CQL, "Conversion Precedence"); one of intervals only is the interval that the value is.
    fn end_of(&mut self, operand: Expression, name: &str) -> Expression {
        let Type::Choice(types) = operand.ty.clone() else { return self.end_of_one(operand, name) };
        let points: Vec<&Type> = types.iter().filter(|ty| is_time(&self.system_form(ty))).collect();
        let meant = if points.is_empty() { types.iter().collect() } else { points };
        let mut items = Vec::new();
        for ty in meant {
            let (test, held) = alternative(&operand, ty);
            let end = self.end_of_one(held, name);
            let time = self.system_form(&end.ty);
            if is_time(&time) {
                items.push((test, self.widened(end, &time)));
            }
        }
        let Some(ty) = items.iter().map(|(_, end)| end.ty.clone()).reduce(|a, b| self.conversions.common(&a, &b)) else {
            return self.end_of_one(operand, name);
        };
        let items = items.into_iter().map(|(test, end)| (test, self.widened(end, &ty))).collect();
        let otherwise = Box::new(Expression::null(ty.clone(), operand.at));
        Expression::new(Kind::Case { comparand: None, items, otherwise }, ty, operand.at)
    }

    fn end_of_one(&mut self, operand: Expression, name: &str) -> Expression {
        let row = operator(name).map_or(&[][..], |row| row.signatures);
        if operand.ty != Type::Any && overload::signature(&self.conversions, std::slice::from_ref(&operand.ty), row).is_some() {
            let at = operand.at;
            return self.operation(name, vec![operand], None, at);
        }
        operand
    }
}

/// Whether a choice holds this alternative, and its value seen as that.
fn alternative(choice: &Expression, ty: &Type) -> (Expression, Expression) {
    let at = choice.at;
    let test = Kind::Is { operand: Box::new(choice.clone()), target: ty.clone() };
    let held = Kind::As { operand: Box::new(choice.clone()), target: ty.clone(), strict: false };
    (Expression::new(test, Type::Boolean, at), Expression::new(held, ty.clone(), at))
}

fn is_time(ty: &Type) -> bool {
    matches!(ty, Type::Date | Type::DateTime | Type::Time)
}

fn point_form(name: &str) -> Option<&'static str> {
    POINT_FORMS.iter().find(|(interval, _)| *interval == name).map(|(_, point)| *point)
}
