//! Operator nodes: their operands, wherever ELM keeps them, and the signature that these fit.

use super::definition::Reader;
use super::document::text_of;
use super::json::Json;
use crate::cql::check::overload;
use crate::cql::operators::{self, operator};
use crate::cql::typed::{Expression, FunctionId, Kind};
use crate::cql::types::Type;
use crate::cql::value::{Precision, Value};

/// Operators whose operands have names of their own.
pub(super) const NAMED: [(&str, &[&str]); 28] = [
    ("First", &["source"]),
    ("Last", &["source"]),
    ("AllTrue", &["source"]),
    ("AnyTrue", &["source"]),
    ("Avg", &["source"]),
    ("Count", &["source"]),
    ("GeometricMean", &["source"]),
    ("Product", &["source"]),
    ("Max", &["source"]),
    ("Median", &["source"]),
    ("Min", &["source"]),
    ("Mode", &["source"]),
    ("PopulationStdDev", &["source"]),
    ("PopulationVariance", &["source"]),
    ("StdDev", &["source"]),
    ("Sum", &["source"]),
    ("Variance", &["source"]),
    ("Children", &["source"]),
    ("Descendents", &["source"]),
    ("IndexOf", &["source", "element"]),
    ("Slice", &["source", "startIndex", "endIndex"]),
    ("Combine", &["source", "separator"]),
    ("Split", &["stringToSplit", "separator"]),
    ("SplitOnMatches", &["stringToSplit", "separatorPattern"]),
    ("PositionOf", &["pattern", "string"]),
    ("LastPositionOf", &["pattern", "string"]),
    ("Substring", &["stringToSub", "startIndex", "length"]),
    ("Round", &["operand", "precision"]),
];

/// Selectors of points in time: their components in order.
pub(super) const COMPONENTS: [(&str, &[&str]); 3] = [
    ("Date", &["year", "month", "day"]),
    ("DateTime", &["year", "month", "day", "hour", "minute", "second", "millisecond", "timezoneOffset"]),
    ("Time", &["hour", "minute", "second", "millisecond"]),
];

/// Membership of vocabularies: the codes, the reference, the expression in its place, the node that the reference is.
pub(super) const MEMBERSHIP: [(&str, &str, &str, &str); 4] = [
    ("InValueSet", "code", "valueset", "valuesetExpression"),
    ("AnyInValueSet", "codes", "valueset", "valuesetExpression"),
    ("InCodeSystem", "code", "codesystem", "codesystemExpression"),
    ("AnyInCodeSystem", "codes", "codesystem", "codesystemExpression"),
];

/// Operators that ELM gives any number of operands.
const NARY: [&str; 4] = ["Concatenate", "Union", "Intersect", "Except"];

/// What an interval form means when one of its operands is a point.
const POINT_FORMS: [(&str, &str); 4] = [("IncludedIn", "In"), ("Includes", "Contains"), ("ProperIncludedIn", "ProperIn"), ("ProperIncludes", "ProperContains")];

pub(super) const PRECISIONS: [(&str, Precision); 8] = [
    ("Year", Precision::Year),
    ("Month", Precision::Month),
    ("Week", Precision::Week),
    ("Day", Precision::Day),
    ("Hour", Precision::Hour),
    ("Minute", Precision::Minute),
    ("Second", Precision::Second),
    ("Millisecond", Precision::Millisecond),
];

impl<'a> Reader<'a> {
    pub(super) fn operator_node(&mut self, name: &str, node: &'a Json) -> Expression {
        if let Some(row) = MEMBERSHIP.iter().find(|(own, ..)| *own == name) {
            return self.membership(row, node);
        }
        if let Some((_, components)) = COMPONENTS.iter().find(|(own, _)| *own == name) {
            return self.point_in_time(name, components, node);
        }
        match name {
            "MinValue" | "MaxValue" => self.extreme(name, node),
            "Convert" | "CanConvert" => self.convert(name, node),
            "And" | "Or" | "Implies" => self.logic(name, node),
            _ => self.table(name, node),
        }
    }

    fn logic(&mut self, name: &str, node: &'a Json) -> Expression {
        self.only_fields(name, node, &["operand"]);
        let operands = self.operands(node, "operand");
        let truths: Vec<Expression> = operands.into_iter().map(|operand| self.as_truth(operand)).collect();
        let Ok(pair) = <[Expression; 2]>::try_from(truths) else {
            return self.refused(&format!("`{name}` takes two operands"));
        };
        let pair = Box::new(pair);
        let kind = match name {
            "And" => Kind::And(pair),
            "Or" => Kind::Or(pair),
            _ => Kind::Implies(pair),
        };
        self.made(kind, Type::Boolean)
    }

    /// Operators of the tables.
    fn table(&mut self, written: &str, node: &'a Json) -> Expression {
        let name = if written == "TimezoneFrom" { "TimezoneOffsetFrom" } else { written };
        if operator(name).is_none() {
            return self.refused(&format!("node `{written}` is not supported"));
        }
        let named = NAMED.iter().find(|(own, _)| *own == name).map(|(_, fields)| *fields);
        let fields = named.unwrap_or(&["operand"]);
        let mut known = fields.to_vec();
        let takes_precision = operator(name).is_some_and(|row| row.takes_precision);
        if takes_precision {
            known.push("precision");
        }
        self.only_fields(name, node, &known);
        let precision = if takes_precision { self.precision(node) } else { None };
        let mut operands: Vec<Expression> = Vec::new();
        for field in fields {
            operands.extend(self.operands(node, field));
        }
        if NARY.contains(&name) && operands.len() > 2 {
            let mut rest = operands.into_iter();
            let first = rest.next().unwrap_or_else(|| self.null(Type::Any));
            return rest.fold(first, |left, right| self.operation(name, vec![left, right], None));
        }
        self.operation(name, operands, precision)
    }

    /// What is under a field: one expression, several, or none.
    fn operands(&mut self, node: &'a Json, field: &str) -> Vec<Expression> {
        match node.get(field) {
            Some(field) => match field.as_array() {
                Some(several) => several.iter().map(|operand| self.expression(operand)).collect(),
                None => vec![self.expression(field)],
            },
            None => Vec::new(),
        }
    }

    fn precision(&mut self, node: &Json) -> Option<Precision> {
        let written = text_of(node, "precision")?;
        let found = PRECISIONS.iter().find(|(name, _)| *name == written).map(|(_, precision)| *precision);
        if found.is_none() {
            self.fault(&format!("precision `{written}` is not known"));
        }
        found
    }

    /// An operator over these operands, by the signature that they fit best.
    pub(super) fn operation(&mut self, name: &str, operands: Vec<Expression>, precision: Option<Precision>) -> Expression {
        let operands = match self.fitted(name, operands, precision) {
            Ok(typed) => return typed,
            Err(operands) => operands,
        };
        let types: Vec<Type> = operands.iter().map(|operand| operand.ty.clone()).collect();
        let system: Vec<Expression> = operands.into_iter().map(|operand| self.as_system(operand)).collect();
        match self.fitted(name, system, precision) {
            Ok(typed) => typed,
            Err(_) => self.refused(&format!("`{name}` does not go with {}", overload::written(&types))),
        }
    }

    fn fitted(&mut self, name: &str, operands: Vec<Expression>, precision: Option<Precision>) -> Result<Expression, Vec<Expression>> {
        let types: Vec<Type> = operands.iter().map(|operand| operand.ty.clone()).collect();
        let point_form = POINT_FORMS.iter().find(|(interval, _)| *interval == name).map(|(_, point)| *point);
        for name in [Some(name), point_form].into_iter().flatten() {
            let Some(row) = operators::typed(name, &types) else { continue };
            if let Some(ty) = self.set_type(name, &types) {
                return Ok(self.made(Kind::Operator { operator: row, operands, precision }, ty));
            }
            let Some(fit) = overload::signature(&self.conversions, &types, row.signatures) else { continue };
            let operands = self.converted(operands, &fit);
            let ty = match (name, types.as_slice()) {
                ("Children" | "Descendents", [whole]) => Type::list(self.conversions.parts(whole, name == "Descendents")),
                _ => fit.result,
            };
            return Ok(self.made(Kind::Operator { operator: row, operands, precision }, ty));
        }
        Err(operands)
    }

    /// `Union` and its kin over lists of different types make a list of what they have in common; a difference or an
    /// intersection is of the first one's type. Equality over lists needs no common type.
    fn set_type(&self, name: &str, types: &[Type]) -> Option<Type> {
        match (name, types) {
            ("Union", [a, b]) if a.is_list() && b.is_list() => Some(self.joined(a, b)),
            ("Intersect" | "Except", [a, b]) if a.is_list() && b.is_list() => Some(a.clone()),
            _ => None,
        }
    }

    fn membership(&mut self, (name, codes, reference, expression): &(&str, &str, &str, &str), node: &'a Json) -> Expression {
        self.only_fields(name, node, &[codes, reference, expression]);
        let codes = self.part(node, codes);
        let vocabulary = match (node.get(expression), node.get(reference)) {
            (Some(vocabulary), _) => self.expression(vocabulary),
            (None, Some(named)) if *reference == "valueset" => match self.value_set(named) {
                Some(set) => self.made(Kind::ValueSet(set), Type::ValueSet),
                None => return self.null(Type::Any),
            },
            (None, Some(named)) => match self.code_system(named) {
                Some(system) => self.made(Kind::CodeSystem(system), Type::CodeSystem),
                None => return self.null(Type::Any),
            },
            (None, None) => return self.refused(&format!("`{name}` without `{reference}`")),
        };
        self.operation(name, vec![codes, vocabulary], None)
    }

    /// A FHIR primitive as its value; another FHIR class by the function that the model names for it, where a library
    /// that has it is linked. Translators leave this out where they rewrite references and lists of codes.
    fn as_system(&mut self, operand: Expression) -> Expression {
        let Type::Class(class) = &operand.ty else { return operand };
        if self.fhir.is_primitive(class) {
            return self.unwrapped(operand);
        }
        let conversions = self.fhir.conversions(class);
        let found = conversions.iter().find_map(|conversion| {
            let library = self.tree.library(&conversion.library)?;
            let takes = |id: &FunctionId| matches!(self.tree.functions[id.index()].operands.as_slice(), [(_, ty)] if *ty == operand.ty);
            self.tree.functions(library, &conversion.function).find(takes)
        });
        match found {
            Some(function) => {
                let ty = self.result_of(function);
                self.made(Kind::Call { function, operands: vec![operand] }, ty)
            }
            None => operand,
        }
    }

    /// Components up to the first that is not there. An offset needs the ones before it, which are then null.
    fn point_in_time(&mut self, name: &str, components: &[&str], node: &'a Json) -> Expression {
        self.only_fields(name, node, components);
        let last = components.iter().rposition(|component| node.get(component).is_some());
        let Some(last) = last else { return self.refused(&format!("`{name}` without `{}`", components[0])) };
        let mut operands = Vec::new();
        for component in &components[..=last] {
            operands.push(match node.get(component) {
                Some(part) => self.expression(part),
                None => self.null(Type::Integer),
            });
        }
        let values: Vec<Value> = operands.iter().filter_map(constant).collect();
        let typed = self.operation(name, operands, None);
        // Of components that are written the point is a constant, as it is in CQL.
        match operators::date_time::selected(name, &values).filter(|_| values.len() == last + 1) {
            Some(point) => self.made(Kind::Literal(point), typed.ty),
            None => typed,
        }
    }

    fn extreme(&mut self, name: &str, node: &'a Json) -> Expression {
        self.only_fields(name, node, &["valueType"]);
        let ty = self.named_type(text_of(node, "valueType").unwrap_or_default());
        let of = self.made(Kind::Literal(Value::string(&ty.to_string())), Type::String);
        self.applied(name, vec![of], ty)
    }

    /// `convert x to T`, which newer translators write as `ToT`.
    fn convert(&mut self, name: &str, node: &'a Json) -> Expression {
        self.only_fields(name, node, &["operand", "toType", "toTypeSpecifier"]);
        let operand = self.part(node, "operand");
        let Some(target) = self.type_of(node, "toTypeSpecifier", "toType") else {
            return self.refused(&format!("`{name}` without a type"));
        };
        if name == "Convert" && operand.ty == target {
            return operand;
        }
        let name = if name == "Convert" { format!("To{target}") } else { format!("ConvertsTo{target}") };
        match operator(&name) {
            Some(_) => self.operation(&name, vec![operand], None),
            None => self.refused(&format!("a conversion to `{target}` is not supported")),
        }
    }
}

fn constant(expression: &Expression) -> Option<Value> {
    match &expression.kind {
        Kind::Literal(value) => Some(value.clone()),
        _ => None,
    }
}
