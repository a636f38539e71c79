//! One expression: each form of the syntax tree to its typed form.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::{CHAIN_MAX, Checker};
use crate::cql::ast::{self, Kind as Written};
use crate::cql::typed::{Expression, IntervalSelector, Kind};
use crate::cql::types::Type;
use crate::cql::value::{self, Date, DateTime, Time, Value};
use crate::diagnostic::{Diagnostic, Span};
use crate::terminology::units::Units;

impl Checker<'_> {
    /// The typed form. After an error it is a null of any type, so that one mistake is reported once.
    pub(super) fn expression(&mut self, written: &ast::Expression) -> Expression {
        if self.chain > CHAIN_MAX {
            self.error(written.at, "definitions refer to one another too deeply here");
            return self.unknown(written.at);
        }
        let at = written.at;
        match &written.kind {
            Written::Null => Expression::null(Type::Any, at),
            Written::Boolean(truth) => self.literal(Value::Boolean(*truth), Type::Boolean, at),
            Written::Integer(digits) => self.integer(digits, at),
            Written::Long(digits) => self.number(digits.parse().ok().map(Value::Long), Type::Long, digits, at),
            Written::Decimal(digits) => self.number(decimal(digits).map(Value::Decimal), Type::Decimal, digits, at),
            Written::String(text) => self.literal(Value::String(text.clone()), Type::String, at),
            Written::Date(text) => self.number(Date::parse(bare(text)).map(Value::Date), Type::Date, text, at),
            Written::DateTime(text) => self.number(DateTime::parse_cql(bare(text)).map(Value::DateTime), Type::DateTime, text, at),
            Written::Time(text) => self.number(Time::parse(bare(text)).map(Value::Time), Type::Time, text, at),
            Written::Quantity(quantity) => match self.quantity(quantity) {
                Some(quantity) => self.literal(Value::Quantity(Arc::new(quantity)), Type::Quantity, at),
                None => self.unknown(at),
            },
            Written::Ratio(numerator, denominator) => match (self.quantity(numerator), self.quantity(denominator)) {
                (Some(numerator), Some(denominator)) => self.literal(Value::Ratio(Arc::new(value::Ratio { numerator, denominator })), Type::Ratio, at),
                _ => self.unknown(at),
            },
            Written::Name(name) => self.bare_name(name, at),
            Written::External(name) => {
                self.error(at, format!("external constant `%{name}` is not defined: declare a parameter and use its name"));
                self.unknown(at)
            }
            Written::Member(source, name) => self.member(source, name, at),
            Written::Call { target, name, operands } => self.call(target.as_deref(), name, operands, at),
            Written::Code(_) | Written::Concept(..) => self.selected_codes(written),
            Written::Retrieve(retrieve) => self.retrieve(retrieve, at),
            Written::Query(query) => self.query(query, at),
            Written::If(parts) => self.conditional(parts, at),
            Written::Case { comparand, items, otherwise } => self.case(comparand.as_deref(), items, otherwise, at),
            Written::Tuple(elements) => self.tuple(elements, at),
            Written::Instance(class, elements) => self.instance(class, elements, at),
            Written::List(ty, items) => self.list(ty.as_ref(), items, at),
            Written::Interval { low_closed, low, high, high_closed } => self.interval((low, *low_closed), (high, *high_closed), at),
            Written::Is(operand, ty) => {
                let operand = Box::new(self.expression(operand));
                let target = self.type_of(ty);
                Expression::new(Kind::Is { operand, target }, Type::Boolean, at)
            }
            Written::As(operand, ty, strict) => {
                let operand = self.expression(operand);
                let target = self.type_of(ty);
                self.cast(operand, target, *strict, at)
            }
            _ => self.operator_form(written),
        }
    }

    fn integer(&mut self, digits: &str, at: Span) -> Expression {
        match digits.parse::<i32>() {
            Ok(number) => self.literal(Value::Integer(number), Type::Integer, at),
            Err(_) => {
                let help = digits.parse::<i64>().is_ok().then(|| format!("`{digits}L` is a Long"));
                self.error_with_help(at, format!("`{digits}` is not an Integer: it must be at most 2147483647"), help);
                self.unknown(at)
            }
        }
    }

    fn number(&mut self, value: Option<Value>, ty: Type, text: &str, at: Span) -> Expression {
        match value {
            Some(value) => self.literal(value, ty, at),
            None => {
                self.error(at, format!("`{text}` is not a {ty} that can be represented"));
                self.unknown(at)
            }
        }
    }

    /// The value of a quantity literal; an error when the number is out of range.
    pub(super) fn quantity(&mut self, quantity: &ast::Quantity) -> Option<value::Quantity> {
        let Some(value) = decimal(&quantity.value) else {
            self.error(quantity.at, format!("`{}` is not a Decimal that can be represented", quantity.value));
            return None;
        };
        let unit = quantity.unit.clone().unwrap_or_else(|| "1".into());
        if !Units::new().is_valid(&unit) {
            let help = "units are UCUM's, as `mg/dL`, `mm[Hg]` or `{score}`, or a word of time as `days`: with another no quantity compares";
            let warning = Diagnostic::warning(format!("`{unit}` is no unit of measure")).at(self.at(quantity.at));
            self.report(warning.help(help));
        }
        Some(value::Quantity { value, unit })
    }

    fn conditional(&mut self, parts: &[ast::Expression; 3], at: Span) -> Expression {
        let [condition, then, otherwise] = parts;
        let condition = self.expression(condition);
        let condition = self.converted(condition, &Type::Boolean, "the condition of `if`");
        let (then, otherwise) = (self.expression(then), self.expression(otherwise));
        let ty = self.conversions.common(&then.ty, &otherwise.ty);
        let then = self.widened(then, &ty);
        let otherwise = self.widened(otherwise, &ty);
        Expression::new(Kind::If(Box::new([condition, then, otherwise])), ty, at)
    }

    fn case(&mut self, comparand: Option<&ast::Expression>, items: &[(ast::Expression, ast::Expression)], otherwise: &ast::Expression, at: Span) -> Expression {
        let mut comparand = comparand.map(|comparand| self.expression(comparand));
        let mut typed: Vec<(Expression, Expression)> = items.iter().map(|(when, then)| (self.expression(when), self.expression(then))).collect();
        let otherwise = self.expression(otherwise);
        let ty = typed.iter().fold(otherwise.ty.clone(), |ty, (_, then)| self.conversions.common(&ty, &then.ty));
        let compared = match &comparand {
            None => Type::Boolean,
            Some(comparand) => typed.iter().fold(comparand.ty.clone(), |ty, (when, _)| self.conversions.common(&ty, &when.ty)),
        };
        typed = typed
            .into_iter()
            .map(|(when, then)| (self.converted(when, &compared, "the condition of `when`"), self.widened(then, &ty)))
            .collect();
        comparand = comparand.map(|comparand| self.widened(comparand, &compared));
        let otherwise = Box::new(self.widened(otherwise, &ty));
        Expression::new(Kind::Case { comparand: comparand.map(Box::new), items: typed, otherwise }, ty, at)
    }

    /// To a common type that is known to be reachable.
    pub(super) fn widened(&mut self, expression: Expression, ty: &Type) -> Expression {
        match self.conversions.way(&expression.ty, ty) {
            Some(way) => self.step(expression, &way.step),
            None => expression,
        }
    }

    fn tuple(&mut self, elements: &[(ast::Name, ast::Expression)], at: Span) -> Expression {
        let mut typed: Vec<(Arc<str>, Expression)> = Vec::with_capacity(elements.len());
        for (name, element) in elements {
            let element = self.expression(element);
            // Published measures do this; in the reference engine the last one counts.
            if let Some((_, earlier)) = typed.iter_mut().find(|(own, _)| *own == name.text) {
                *earlier = element;
                let warning = Diagnostic::warning(format!("the tuple has two elements named `{}`; the last one counts", name.text));
                let warning = warning.at(self.at(name.at)).help("remove one, or give it another name");
                self.report(warning);
                continue;
            }
            typed.push((name.text.clone(), element));
        }
        let ty = Type::tuple(typed.iter().map(|(name, element)| (name.clone(), element.ty.clone())).collect());
        Expression::new(Kind::Tuple(typed), ty, at)
    }

    fn instance(&mut self, class: &ast::Path, elements: &[(ast::Name, ast::Expression)], at: Span) -> Expression {
        let ty = self.named_type(class);
        let mut typed = Vec::with_capacity(elements.len());
        for (name, element) in elements {
            let element = self.expression(element);
            match self.element_type(&ty, &name.text) {
                Some(wanted) => {
                    let what = format!("element `{}` of `{ty}`", name.text);
                    typed.push((name.text.clone(), self.converted(element, &wanted, &what)));
                }
                None if ty == Type::Any => {}
                None => self.no_element(&ty, name),
            }
        }
        let class: Arc<str> = match &ty {
            Type::Class(name) => name.clone(),
            system => format!("System.{system}").into(),
        };
        Expression::new(Kind::Instance { class, elements: typed }, ty, at)
    }

    fn list(&mut self, ty: Option<&ast::TypeSpecifier>, items: &[ast::Expression], at: Span) -> Expression {
        let items: Vec<Expression> = items.iter().map(|item| self.expression(item)).collect();
        let element = match ty {
            Some(ty) => self.type_of(ty),
            None => items.iter().fold(Type::Any, |ty, item| self.conversions.common(&ty, &item.ty)),
        };
        let items = items.into_iter().map(|item| self.converted(item, &element, "an element of this list")).collect();
        Expression::new(Kind::List(items), Type::list(element), at)
    }

    fn interval(&mut self, low: (&ast::Expression, bool), high: (&ast::Expression, bool), at: Span) -> Expression {
        let (first, second) = (self.expression(low.0), self.expression(high.0));
        let point = self.conversions.common_point(&self.system_form(&first.ty), &self.system_form(&second.ty));
        // Bounds of one choice, as the low and high of an element that may be of several intervals, are decided per value.
        let of_one_choice = first.ty == point && second.ty == point;
        if matches!(point, Type::Choice(_)) && !of_one_choice {
            let message = "both bounds of an interval must have one type".to_owned();
            let diagnostic = crate::diagnostic::Diagnostic::error(message)
                .at(self.at(at))
                .label(self.at(first.at), format!("this is `{}`", first.ty))
                .label(self.at(second.at), format!("this is `{}`", second.ty));
            self.report(diagnostic);
            return self.unknown(at);
        }
        let (first, second) = (self.widened(first, &point), self.widened(second, &point));
        let selector = IntervalSelector {
            low_closed: self.literal(Value::Boolean(low.1), Type::Boolean, first.at),
            high_closed: self.literal(Value::Boolean(high.1), Type::Boolean, second.at),
            low: first,
            high: second,
        };
        Expression::new(Kind::Interval(Box::new(selector)), Type::interval(point), at)
    }

    /// What a model's class converts to, where it converts to one system type; else the type itself.
    pub(super) fn system_form(&self, ty: &Type) -> Type {
        match ty {
            Type::Class(class) => self.conversions.class_conversions(class).next().map_or_else(|| ty.clone(), |(to, _)| to.clone()),
            _ => ty.clone(),
        }
    }

    /// `x as T`: legal when some value of x's type can be a T.
    pub(super) fn cast(&mut self, operand: Expression, target: Type, strict: bool, at: Span) -> Expression {
        let possible = operand.ty == Type::Any
            || target == Type::Any
            || self.conversions.is_subtype(&operand.ty, &target)
            || self.conversions.is_subtype(&target, &operand.ty)
            || matches!(&operand.ty, Type::Choice(types) if types.iter().any(|ty| self.conversions.is_subtype(ty, &target) || self.conversions.is_subtype(&target, ty)))
            || matches!((&operand.ty, &target), (Type::List(_), Type::List(_)));
        if !possible && let Some(way) = self.conversions.way(&operand.ty, &target) {
            return self.step(operand, &way.step);
        }
        if !possible {
            self.error(at, format!("a value of type `{}` is never a `{target}`", operand.ty));
        }
        Expression::new(Kind::As { operand: Box::new(operand), target: target.clone(), strict }, target, at)
    }

    fn selected_codes(&mut self, written: &ast::Expression) -> Expression {
        let at = written.at;
        match &written.kind {
            Written::Code(selector) => match self.selected_code(selector) {
                Some(code) => self.literal(Value::Code(Arc::new(code)), Type::Code, at),
                None => self.unknown(at),
            },
            Written::Concept(selectors, display) => {
                let codes = selectors.iter().filter_map(|selector| self.selected_code(selector)).collect();
                let display = display.as_ref().map(|display| display.text.clone());
                self.literal(Value::Concept(Arc::new(value::Concept { codes, display })), Type::Concept, at)
            }
            _ => self.unknown(at),
        }
    }

    fn selected_code(&mut self, selector: &ast::CodeSelector) -> Option<value::Code> {
        let system = self.code_system(&selector.system)?;
        self.padded_code(&selector.code);
        let system = &self.tree.code_systems[system.index()];
        Some(value::Code {
            code: selector.code.text.clone(),
            system: Some(system.id.clone()),
            version: system.version.clone(),
            display: selector.display.as_ref().map(|display| display.text.clone()),
        })
    }
}

/// At most 28 digits in all with at most 8 after the point; never rounded.
fn decimal(digits: &str) -> Option<Decimal> {
    let limit = Decimal::from_i128_with_scale(10_i128.pow(28), 0);
    let exact = Decimal::from_str_exact(digits).or_else(|_| Decimal::from_str_exact(digits.trim_end_matches('0').trim_end_matches('.')));
    exact.ok().filter(|number| number.scale() <= 8 && *number < limit)
}

fn bare(text: &str) -> &str {
    text.strip_prefix('@').unwrap_or(text)
}
