//! Nodes of ELM to expressions: selectors, conditionals, casts; the rest is in the files beside.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::definition::{Reader, Role};
use super::document::{items, text_of};
use super::json::Json;
use crate::cql::operators::operator;
use crate::cql::typed::{Expression, IntervalSelector, Kind};
use crate::cql::types::Type;
use crate::cql::value::{self, Date, DateTime, Time, Value};

/// Fields that say nothing about the value. `signature` is read where it does.
const COMMON: [&str; 7] = ["type", "localId", "locator", "annotation", "resultTypeName", "resultTypeSpecifier", "signature"];

impl<'a> Reader<'a> {
    /// An expression at the node being read.
    pub(super) fn made(&self, kind: Kind, ty: Type) -> Expression {
        Expression::new(kind, ty, self.at)
    }

    /// The null of a type, at the node being read.
    pub(super) fn null(&self, ty: Type) -> Expression {
        Expression::null(ty, self.at)
    }

    /// The typed form of a node. After an error it is a null of any type.
    pub(super) fn expression(&mut self, node: &'a Json) -> Expression {
        self.at_node(node, |reader| match text_of(node, "type") {
            Some(name) => reader.node(name, node),
            None => reader.refused("an expression without `type`"),
        })
    }

    fn node(&mut self, name: &str, node: &'a Json) -> Expression {
        self.only(name, node);
        match name {
            "Null" => self.null(Type::Any),
            "Literal" => self.literal(node),
            "Quantity" => match self.quantity(node) {
                Some(quantity) => self.made(Kind::Literal(Value::Quantity(Arc::new(quantity))), Type::Quantity),
                None => self.refused("a quantity without a decimal `value`"),
            },
            "Ratio" => self.ratio(node),
            "Code" => self.code_selector(node),
            "Concept" => self.concept_selector(node),
            "Tuple" => self.tuple(node),
            "Instance" => self.instance(node),
            "List" => self.list(node),
            "Interval" => self.interval(node),
            "If" => self.conditional(node),
            "Case" => self.case(node),
            "Coalesce" => self.coalesce(node),
            "As" => self.cast(node),
            "Is" => self.test(node),
            "Message" => self.message(node),
            "Property" => self.property_node(node),
            "Retrieve" => self.retrieve(node),
            "Query" => self.query(node),
            "Filter" | "ForEach" | "Sort" => self.list_form(name, node),
            "Repeat" => self.repeat(node),
            "Iteration" => self.iteration(node),
            "FunctionRef" => self.call(node),
            _ if name.ends_with("Ref") || name == "Current" => self.reference(name, node),
            _ => self.operator_node(name, node),
        }
    }

    /// Refuses fields that the node's form does not have, unless they are empty.
    fn only(&mut self, name: &str, node: &'a Json) {
        let known: &[&str] = match name {
            "Null" => &["valueType"],
            "Literal" => &["valueType", "value"],
            "Quantity" => &["value", "unit"],
            "Ratio" => &["numerator", "denominator"],
            "Code" => &["code", "system", "display"],
            "Concept" => &["code", "display"],
            "Tuple" => &["element"],
            "Instance" => &["classType", "element"],
            "List" => &["element", "typeSpecifier"],
            "Interval" => &["low", "high", "lowClosed", "highClosed", "lowClosedExpression", "highClosedExpression"],
            "If" => &["condition", "then", "else"],
            "Case" => &["comparand", "caseItem", "else"],
            "Coalesce" => &["operand"],
            "As" => &["operand", "asType", "asTypeSpecifier", "strict"],
            "Is" => &["operand", "isType", "isTypeSpecifier"],
            "Message" => &["source", "condition", "code", "severity", "message"],
            "Property" => &["path", "scope", "source"],
            "Retrieve" => {
                &["dataType", "templateId", "codeProperty", "codeComparator", "codes", "dateProperty", "dateRange", "dateLowProperty", "dateHighProperty", "context", "preserve"]
            }
            "Query" => &["source", "let", "relationship", "where", "return", "aggregate", "sort"],
            "Filter" => &["source", "condition", "scope"],
            "ForEach" | "Repeat" => &["source", "element", "scope"],
            "Sort" => &["source", "by"],
            "FunctionRef" => &["name", "libraryName", "operand"],
            "Current" | "Iteration" => &["scope"],
            _ if name.ends_with("Ref") => &["name", "libraryName", "preserve"],
            _ => return,
        };
        self.only_fields(name, node, known);
    }

    pub(super) fn only_fields(&mut self, name: &str, node: &'a Json, known: &[&str]) {
        let strange = node
            .fields()
            .iter()
            .find(|(field, value)| !known.contains(&&**field) && !COMMON.contains(&&**field) && !value.is_empty());
        if let Some((field, value)) = strange {
            self.at_node(value, |reader| reader.fault(&format!("`{name}` with `{field}` is not supported")));
        }
    }

    /// The expression under a name, which must be there.
    pub(super) fn part(&mut self, node: &'a Json, name: &str) -> Expression {
        match node.get(name) {
            Some(part) => self.expression(part),
            None => self.refused(&format!("`{}` without `{name}`", text_of(node, "type").unwrap_or("an element"))),
        }
    }

    fn literal(&mut self, node: &'a Json) -> Expression {
        let ty = self.named_type(text_of(node, "valueType").unwrap_or_default());
        let text = node.get("value").and_then(Json::scalar).unwrap_or_default();
        let value = match ty {
            Type::Boolean => text.parse().ok().map(Value::Boolean),
            Type::Integer => text.parse().ok().map(Value::Integer),
            Type::Long => text.trim_end_matches('L').parse().ok().map(Value::Long),
            Type::Decimal => decimal(text).map(Value::Decimal),
            Type::String => Some(Value::string(text)),
            Type::Date => Date::parse(text.trim_start_matches('@')).map(Value::Date),
            Type::DateTime => DateTime::parse_cql(text.trim_start_matches('@')).map(Value::DateTime),
            Type::Time => Time::parse(text.trim_start_matches("@T").trim_start_matches('T')).map(Value::Time),
            _ => None,
        };
        match value {
            Some(value) => self.made(Kind::Literal(value), ty),
            None => self.refused(&format!("literal `{text}` is no {ty} that can be represented")),
        }
    }

    fn quantity(&mut self, node: &Json) -> Option<value::Quantity> {
        let value = decimal(node.get("value").and_then(Json::scalar)?)?;
        Some(value::Quantity { value, unit: text_of(node, "unit").filter(|unit| !unit.is_empty()).unwrap_or("1").into() })
    }

    fn ratio(&mut self, node: &'a Json) -> Expression {
        let mut side = |name: &str| node.get(name).and_then(|side| self.quantity(side));
        match (side("numerator"), side("denominator")) {
            (Some(numerator), Some(denominator)) => self.made(Kind::Literal(Value::Ratio(Arc::new(value::Ratio { numerator, denominator }))), Type::Ratio),
            _ => self.refused("a ratio needs a `numerator` and a `denominator`"),
        }
    }

    fn selected_code(&mut self, node: &Json) -> Option<value::Code> {
        let system = node.get("system").and_then(|system| self.code_system(system))?;
        let system = &self.tree.code_systems[system.index()];
        let (id, version) = (system.id.clone(), system.version.clone());
        Some(value::Code { code: text_of(node, "code")?.into(), system: Some(id), version, display: text_of(node, "display").map(Arc::from) })
    }

    fn code_selector(&mut self, node: &'a Json) -> Expression {
        match self.selected_code(node) {
            Some(code) => self.made(Kind::Literal(Value::Code(Arc::new(code))), Type::Code),
            None => self.refused("a code needs a `code` and a `system`"),
        }
    }

    fn concept_selector(&mut self, node: &'a Json) -> Expression {
        let codes: Option<Vec<value::Code>> = items(node, "code").iter().map(|code| self.selected_code(code)).collect();
        match codes {
            Some(codes) => self.made(Kind::Literal(Value::Concept(Arc::new(value::Concept { codes, display: text_of(node, "display").map(Arc::from) }))), Type::Concept),
            None => self.refused("a code of a concept needs a `code` and a `system`"),
        }
    }

    /// Elements of a tuple or an instance; of two with one name the last one counts, as in the reference engine.
    fn elements(&mut self, node: &'a Json) -> Vec<(Arc<str>, Expression)> {
        let mut elements: Vec<(Arc<str>, Expression)> = Vec::new();
        for element in items(node, "element") {
            let name = text_of(element, "name").unwrap_or_default();
            let value = self.part(element, "value");
            match elements.iter_mut().find(|(own, _)| &**own == name) {
                Some((_, earlier)) => *earlier = value,
                None => elements.push((name.into(), value)),
            }
        }
        elements
    }

    fn tuple(&mut self, node: &'a Json) -> Expression {
        let elements = self.elements(node);
        let ty = Type::tuple(elements.iter().map(|(name, element)| (name.clone(), element.ty.clone())).collect());
        self.made(Kind::Tuple(elements), ty)
    }

    fn instance(&mut self, node: &'a Json) -> Expression {
        let ty = self.named_type(text_of(node, "classType").unwrap_or_default());
        let elements = self.elements(node);
        for (name, _) in &elements {
            if ty != Type::Any && self.element_type(&ty, name).is_none() {
                self.fault(&format!("`{ty}` has no element `{name}`"));
            }
        }
        let class: Arc<str> = match &ty {
            Type::Class(name) => name.clone(),
            system => format!("System.{system}").into(),
        };
        self.made(Kind::Instance { class, elements }, ty)
    }

    fn list(&mut self, node: &'a Json) -> Expression {
        let items: Vec<Expression> = items(node, "element").iter().map(|item| self.expression(item)).collect();
        let element = match node.get("typeSpecifier") {
            Some(specifier) => self.specified(specifier),
            None => items.iter().fold(Type::Any, |ty, item| self.joined(&ty, &item.ty)),
        };
        self.made(Kind::List(items), Type::list(element))
    }

    fn interval(&mut self, node: &'a Json) -> Expression {
        let bound = |reader: &mut Self, name: &str| match node.get(name) {
            Some(bound) => reader.expression(bound),
            None => reader.null(Type::Any),
        };
        let closed = |reader: &mut Self, flag: &str, expression: &str| match node.get(expression) {
            Some(closed) => reader.expression(closed),
            None => reader.made(Kind::Literal(Value::Boolean(node.get(flag).and_then(Json::as_bool).unwrap_or(true))), Type::Boolean),
        };
        let (low, high) = (bound(self, "low"), bound(self, "high"));
        let (low, high) = (self.unwrapped(low), self.unwrapped(high));
        let low_closed = closed(self, "lowClosed", "lowClosedExpression");
        let high_closed = closed(self, "highClosed", "highClosedExpression");
        let point = self.conversions.common_point(&low.ty, &high.ty);
        self.made(Kind::Interval(Box::new(IntervalSelector { low, low_closed, high, high_closed })), Type::interval(point))
    }

    fn conditional(&mut self, node: &'a Json) -> Expression {
        let (condition, then, otherwise) = (self.part(node, "condition"), self.part(node, "then"), self.part(node, "else"));
        let condition = self.as_truth(condition);
        let ty = self.joined(&then.ty, &otherwise.ty);
        self.made(Kind::If(Box::new([condition, then, otherwise])), ty)
    }

    fn case(&mut self, node: &'a Json) -> Expression {
        let comparand = node.get("comparand").map(|comparand| self.expression(comparand)).map(|comparand| self.unwrapped(comparand));
        let mut typed = Vec::new();
        for item in items(node, "caseItem") {
            let (when, then) = (self.part(item, "when"), self.part(item, "then"));
            let when = if comparand.is_none() { self.as_truth(when) } else { self.unwrapped(when) };
            typed.push((when, then));
        }
        let otherwise = self.part(node, "else");
        let ty = typed.iter().fold(Type::Any, |ty, (_, then)| self.joined(&ty, &then.ty));
        let ty = self.joined(&ty, &otherwise.ty);
        self.made(Kind::Case { comparand: comparand.map(Box::new), items: typed, otherwise: Box::new(otherwise) }, ty)
    }

    fn coalesce(&mut self, node: &'a Json) -> Expression {
        let operands: Vec<Expression> = items(node, "operand").iter().map(|operand| self.expression(operand)).collect();
        let ty = match operands.as_slice() {
            [list] if list.ty.is_list() => list.ty.element().cloned().unwrap_or(Type::Any),
            several => several.iter().fold(Type::Any, |ty, operand| self.joined(&ty, &operand.ty)),
        };
        self.made(Kind::Coalesce(operands), ty)
    }

    fn cast(&mut self, node: &'a Json) -> Expression {
        let operand = self.part(node, "operand");
        let Some(target) = self.type_of(node, "asTypeSpecifier", "asType") else {
            return self.refused("`As` without a type");
        };
        if matches!(&operand.kind, Kind::Literal(value) if value.is_null()) {
            return self.null(target);
        }
        let strict = node.get("strict").and_then(Json::as_bool).unwrap_or(false);
        self.made(Kind::As { operand: Box::new(operand), target: target.clone(), strict }, target)
    }

    fn test(&mut self, node: &'a Json) -> Expression {
        let operand = Box::new(self.part(node, "operand"));
        match self.type_of(node, "isTypeSpecifier", "isType") {
            Some(target) => self.made(Kind::Is { operand, target }, Type::Boolean),
            None => self.refused("`Is` without a type"),
        }
    }

    fn message(&mut self, node: &'a Json) -> Expression {
        let source = self.part(node, "source");
        let mut optional = |name: &str| match node.get(name) {
            Some(part) => self.expression(part),
            None => self.null(Type::Any),
        };
        let [condition, code, severity, message] = ["condition", "code", "severity", "message"].map(&mut optional);
        let ty = source.ty.clone();
        let condition = self.as_truth(condition);
        self.made(Kind::Message(Box::new([source, condition, code, severity, message])), ty)
    }

    /// A FHIR primitive as its System value; anything else as it is. Translators leave this out in places.
    pub(super) fn unwrapped(&mut self, expression: Expression) -> Expression {
        match &expression.ty {
            Type::Class(class) if self.fhir.is_primitive(class) => self.property(expression, "value"),
            _ => expression,
        }
    }

    pub(super) fn as_truth(&mut self, condition: Expression) -> Expression {
        let condition = self.unwrapped(condition);
        let fits = matches!(condition.ty, Type::Boolean | Type::Any) || matches!(&condition.ty, Type::Choice(types) if types.contains(&Type::Boolean));
        if fits { condition } else { self.refused(&format!("a condition of type `{}` instead of Boolean", condition.ty)) }
    }

    /// The least type that values of both have, without any conversion: ELM has them written out.
    pub(super) fn joined(&self, a: &Type, b: &Type) -> Type {
        match (a, b) {
            _ if a == b => a.clone(),
            (Type::Any, other) | (other, Type::Any) => other.clone(),
            (Type::List(a), Type::List(b)) => Type::list(self.joined(a, b)),
            (Type::Interval(x), Type::Interval(y)) => match self.joined(x, y) {
                Type::Choice(_) => Type::choice([a.clone(), b.clone()]),
                point => Type::interval(point),
            },
            (Type::Tuple(x), Type::Tuple(y)) if x.len() == y.len() && x.iter().zip(y.iter()).all(|(x, y)| x.0 == y.0) => {
                Type::tuple(x.iter().zip(y.iter()).map(|(x, y)| (x.0.clone(), self.joined(&x.1, &y.1))).collect())
            }
            _ if self.conversions.is_subtype(a, b) => b.clone(),
            _ if self.conversions.is_subtype(b, a) => a.clone(),
            _ => Type::choice([a.clone(), b.clone()]),
        }
    }

    /// An operator of the tables over operands that are known to fit.
    pub(super) fn applied(&mut self, name: &str, operands: Vec<Expression>, ty: Type) -> Expression {
        match operator(name) {
            Some(operator) => self.made(Kind::Operator { operator, operands, precision: None }, ty),
            None => self.refused(&format!("the operator `{name}` is not known")),
        }
    }

    /// The variable that a reference means: the innermost of that name and role.
    pub(super) fn variable(&self, name: &str, roles: &[Role]) -> Option<Expression> {
        let found = self.frame.variables.iter().rev().find(|variable| &*variable.name == name && roles.contains(&variable.role))?;
        Some(self.made(Kind::Slot(found.slot), found.ty.clone()))
    }
}

/// A decimal as JSON or ELM writes it: `10`, `10.0`, `1E2`.
fn decimal(text: &str) -> Option<Decimal> {
    text.parse().ok().or_else(|| Decimal::from_scientific(text).ok())
}
