//! Expressions as nodes.

use serde_json::{Value as Json, json};

use super::value::{integer, text};
use super::{ITEM, NUMBER, Role, Writer};
use crate::cql::elm::operator::{COMPONENTS, MEMBERSHIP, NAMED, PRECISIONS};
use crate::cql::elm::type_specifier::SYSTEM;
use crate::cql::typed::{Element, Expression, FunctionId, IntervalSelector, Kind, Slot};
use crate::cql::types::Type;
use crate::cql::value::{Precision, Value};
use crate::diagnostic::Span;

/// Operators whose operands ELM keeps in an array, however many there are.
const ARRAYS: [&str; 6] = ["Collapse", "Expand", "Concatenate", "Union", "Intersect", "Except"];

impl Writer<'_> {
    pub(super) fn expression(&mut self, expression: &Expression) -> Json {
        match &expression.kind {
            Kind::Literal(value) => self.value(value, &expression.ty, expression.at),
            Kind::Slot(slot) => self.variable(*slot, expression.at),
            Kind::Parameter(_) | Kind::Define(_) | Kind::CodeSystem(_) | Kind::ValueSet(_) | Kind::Code(_) | Kind::Concept(_) => self.declared(&expression.kind),
            Kind::Operator { operator, operands, precision } => self.operator(operator.name, operands, *precision, &expression.ty),
            Kind::Call { function, operands } => self.call(*function, operands),
            Kind::And(pair) => json!({ "type": "And", "operand": self.all(pair.as_slice()) }),
            Kind::Or(pair) => json!({ "type": "Or", "operand": self.all(pair.as_slice()) }),
            Kind::Implies(pair) => json!({ "type": "Implies", "operand": self.all(pair.as_slice()) }),
            Kind::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                json!({ "type": "If", "condition": self.expression(condition), "then": self.expression(then), "else": self.expression(otherwise) })
            }
            Kind::Case { comparand, items, otherwise } => {
                if let (None, Some(node)) = (comparand, self.of_choice(items, otherwise, &expression.ty)) {
                    return node;
                }
                let items: Vec<Json> = items.iter().map(|(when, then)| json!({ "when": self.expression(when), "then": self.expression(then) })).collect();
                let mut node = json!({ "type": "Case", "caseItem": items, "else": self.expression(otherwise) });
                if let Some(comparand) = comparand {
                    node["comparand"] = self.expression(comparand);
                }
                node
            }
            Kind::Coalesce(operands) => json!({ "type": "Coalesce", "operand": self.all(operands) }),
            Kind::As { operand, target, strict } => {
                json!({ "type": "As", "operand": self.expression(operand), "asTypeSpecifier": self.specifier(target), "strict": strict })
            }
            Kind::Is { operand, target } => json!({ "type": "Is", "operand": self.expression(operand), "isTypeSpecifier": self.specifier(target) }),
            Kind::Tuple(elements) => json!({ "type": "Tuple", "element": self.elements(elements) }),
            Kind::Instance { elements, .. } => json!({ "type": "Instance", "classType": self.type_name(&expression.ty), "element": self.elements(elements) }),
            Kind::List(items) => {
                let mut node = json!({ "type": "List", "element": self.all(items) });
                if let (true, Some(element)) = (items.is_empty(), expression.ty.element()) {
                    node["typeSpecifier"] = self.specifier(element);
                }
                node
            }
            Kind::Interval(parts) => self.interval(parts),
            Kind::Property { source, element } => self.property(source, element),
            Kind::Retrieve(retrieve) => self.retrieve(retrieve),
            Kind::Query(query) => self.query(query),
            Kind::Repeat(repeat) => self.repeat(repeat),
            Kind::Message(parts) => {
                let [source, condition, code, severity, message] = &**parts;
                json!({
                    "type": "Message",
                    "source": self.expression(source),
                    "condition": self.expression(condition),
                    "code": self.expression(code),
                    "severity": self.expression(severity),
                    "message": self.expression(message),
                })
            }
        }
    }

    /// What is the same of every alternative of a choice - an element, a function of it, the value itself - as one node
    /// over the choice, as the reference translator writes it: engines look at the value.
    fn of_choice(&mut self, items: &[(Expression, Expression)], otherwise: &Expression, ty: &Type) -> Option<Json> {
        let null = |value: &Expression| matches!(&value.kind, Kind::Literal(value) if value.is_null());
        if !null(otherwise) || !items.iter().all(|(_, then)| matches!(then.kind, Kind::Property { .. } | Kind::Call { .. } | Kind::As { .. })) {
            return None;
        }
        let mut one: Option<(Json, Json)> = None;
        for (when, then) in items {
            let Kind::Is { operand, target } = &when.kind else { return None };
            let choice = self.expression(operand);
            let held = json!({ "type": "As", "operand": choice, "asTypeSpecifier": self.specifier(target), "strict": false });
            let mut written = self.expression(then);
            if !replace(&mut written, &held, &choice) {
                return None;
            }
            let next = (written, choice);
            match &one {
                Some(first) if *first != next => return None,
                Some(_) => {}
                None => one = Some(next),
            }
        }
        let (written, choice) = one?;
        let covered = |ty: &Type| items.iter().any(|(when, _)| matches!(&when.kind, Kind::Is { target, .. } if target == ty));
        if written == choice && !matches!(ty, Type::Choice(types) if types.iter().all(covered)) {
            return None;
        }
        Some(if written == choice { json!({ "type": "As", "operand": choice, "asTypeSpecifier": self.specifier(ty), "strict": false }) } else { written })
    }

    pub(super) fn all(&mut self, expressions: &[Expression]) -> Vec<Json> {
        expressions.iter().map(|expression| self.expression(expression)).collect()
    }

    fn elements(&mut self, elements: &[(std::sync::Arc<str>, Expression)]) -> Vec<Json> {
        elements.iter().map(|(name, value)| json!({ "name": &**name, "value": self.expression(value) })).collect()
    }

    pub(super) fn variable(&mut self, slot: Slot, at: Span) -> Json {
        match self
            .variables
            .iter()
            .rev()
            .find(|variable| variable.slot == slot)
            .map(|variable| (variable.role, variable.name.clone()))
        {
            Some((Role::Alias, name)) => json!({ "type": "AliasRef", "name": name }),
            Some((Role::Let, name)) => json!({ "type": "QueryLetRef", "name": name }),
            Some((Role::Operand, name)) => json!({ "type": "OperandRef", "name": name }),
            Some((Role::Item, row)) => json!({ "type": "Property", "path": ITEM, "scope": row }),
            Some((Role::Number, row)) => json!({ "type": "Property", "path": NUMBER, "scope": row }),
            Some((Role::Iteration, scope)) => json!({ "type": "Iteration", "scope": scope }),
            Some((Role::Row, _)) => json!({ "type": "IdentifierRef", "name": "$this" }),
            None => self.refused("a variable out of its scope", at),
        }
    }

    fn declared(&self, kind: &Kind) -> Json {
        let tree = self.tree;
        let (node, row) = match kind {
            Kind::Parameter(id) => ("ParameterRef", tree.parameters.get(id.index()).map(|row| (&row.name, row.library))),
            Kind::Define(id) => ("ExpressionRef", tree.defines.get(id.index()).map(|row| (&row.name, row.library))),
            Kind::CodeSystem(id) => ("CodeSystemRef", tree.code_systems.get(id.index()).map(|row| (&row.name, row.library))),
            Kind::ValueSet(id) => ("ValueSetRef", tree.value_sets.get(id.index()).map(|row| (&row.name, row.library))),
            Kind::Code(id) => ("CodeRef", tree.codes.get(id.index()).map(|row| (&row.name, row.library))),
            Kind::Concept(id) => ("ConceptRef", tree.concepts.get(id.index()).map(|row| (&row.name, row.library))),
            _ => ("Null", None),
        };
        let mut reference = row.map_or_else(|| json!({}), |(name, library)| self.named(name, library));
        reference["type"] = Json::from(node);
        if node == "ValueSetRef" {
            reference["preserve"] = Json::from(true);
        }
        reference
    }

    fn call(&mut self, function: FunctionId, operands: &[Expression]) -> Json {
        let tree = self.tree;
        let Some(row) = tree.functions.get(function.index()) else { return json!({ "type": "Null" }) };
        let operands: Vec<Json> = operands
            .iter()
            .zip(&row.operands)
            .map(|(operand, (_, ty))| {
                let written = self.expression(operand);
                let wider = matches!(ty, Type::Choice(_)) && !matches!(operand.ty, Type::Choice(_) | Type::Any);
                if wider { json!({ "type": "As", "operand": written, "asTypeSpecifier": self.specifier(ty), "strict": false }) } else { written }
            })
            .collect();
        let mut node = self.named(&row.name, row.library);
        node["type"] = Json::from("FunctionRef");
        node["signature"] = row.operands.iter().map(|(_, ty)| self.specifier(ty)).collect();
        node["operand"] = Json::from(operands);
        node
    }

    fn interval(&mut self, parts: &IntervalSelector) -> Json {
        let mut node = json!({ "type": "Interval", "low": self.expression(&parts.low), "high": self.expression(&parts.high) });
        for (closed, flag, field) in [(&parts.low_closed, "lowClosed", "lowClosedExpression"), (&parts.high_closed, "highClosed", "highClosedExpression")] {
            match &closed.kind {
                Kind::Literal(Value::Boolean(closed)) => node[flag] = Json::from(*closed),
                _ => node[field] = self.expression(closed),
            }
        }
        node
    }

    /// A property: of a query's source in its scope; of the row of a sort, the name alone, which engines look up in the row.
    fn property(&mut self, source: &Expression, element: &Element) -> Json {
        if let Kind::Slot(slot) = &source.kind
            && let Some(variable) = self.variables.iter().rev().find(|variable| variable.slot == *slot)
        {
            match variable.role {
                Role::Row => return json!({ "type": "IdentifierRef", "name": &*element.name }),
                Role::Alias if !variable.name.starts_with("$this") => return json!({ "type": "Property", "path": &*element.name, "scope": variable.name }),
                _ => {}
            }
        }
        json!({ "type": "Property", "path": &*element.name, "source": self.expression(source) })
    }

    fn operator(&mut self, name: &str, operands: &[Expression], precision: Option<Precision>, ty: &Type) -> Json {
        if let Some(row) = MEMBERSHIP.iter().find(|(own, ..)| *own == name) {
            return self.membership(row, operands);
        }
        if let Some(node) = self.without_node(name, operands, ty) {
            return node;
        }
        let mut node = json!({ "type": name });
        if let Some((precision, _)) = PRECISIONS.iter().find(|(_, own)| Some(*own) == precision) {
            node["precision"] = Json::from(*precision);
        }
        let named = NAMED.iter().chain(&COMPONENTS).find(|(own, _)| *own == name).map(|(_, fields)| *fields);
        let mut written = match name {
            "Union" | "Intersect" | "Except" => operands.iter().map(|operand| self.member(operand, ty)).collect(),
            "Equivalent" => self.codes_as_concepts(operands),
            _ => self.all(operands),
        };
        match named {
            Some(fields) => {
                for (field, operand) in fields.iter().zip(written) {
                    node[*field] = operand;
                }
            }
            None if written.is_empty() => {}
            None if written.len() == 1 && !ARRAYS.contains(&name) => node["operand"] = written.remove(0),
            None => {
                // An interval list is collapsed and expanded per the default of its points.
                if written.len() == 1 {
                    written.push(self.null(&Type::Quantity));
                }
                node["operand"] = Json::from(written);
            }
        }
        node
    }

    /// An operand of a set operation, seen as what the operation makes.
    fn member(&mut self, operand: &Expression, ty: &Type) -> Json {
        let written = self.expression(operand);
        match (&operand.ty, ty) {
            (Type::List(own), Type::List(all)) if own != all && matches!(**all, Type::Choice(_)) => {
                json!({ "type": "As", "operand": written, "asTypeSpecifier": self.specifier(ty) })
            }
            _ => written,
        }
    }

    /// The operands of an equivalence; a code beside a concept is made one.
    fn codes_as_concepts(&mut self, operands: &[Expression]) -> Vec<Json> {
        let mixed = operands.iter().any(|operand| operand.ty == Type::Concept);
        operands
            .iter()
            .map(|operand| {
                let written = self.expression(operand);
                if mixed && operand.ty == Type::Code { json!({ "type": "ToConcept", "operand": written }) } else { written }
            })
            .collect()
    }

    /// Operators that ELM says in another way.
    fn without_node(&mut self, name: &str, operands: &[Expression], ty: &Type) -> Option<Json> {
        let slice = |writer: &mut Self, start: Json, end: Json| {
            let source = operands.first().map(|source| writer.expression(source));
            json!({ "type": "Slice", "source": source, "startIndex": start, "endIndex": end })
        };
        let null = || json!({ "type": "Null" });
        // What a negative bound of Slice means differs between versions of CQL, so none is written.
        let count = |writer: &mut Self, instead: i32| {
            let count = operands.get(1).map(|count| writer.expression(count)).unwrap_or_default();
            if operands.get(1).is_some_and(|count| matches!(count.kind, Kind::Literal(Value::Integer(0..)))) {
                return count;
            }
            let negative = json!({ "type": "Less", "operand": [count, integer(0)] });
            json!({ "type": "If", "condition": negative, "then": integer(instead), "else": count })
        };
        Some(match name {
            "MinValue" | "MaxValue" => json!({ "type": name, "valueType": self.type_name(ty).unwrap_or_else(|| format!("{{{SYSTEM}}}Any")) }),
            "NotEquivalent" => {
                let operands = self.codes_as_concepts(operands);
                json!({ "type": "Not", "operand": { "type": "Equivalent", "operand": operands } })
            }
            "NotEqual" => {
                let operands = self.all(operands);
                json!({ "type": "Not", "operand": { "type": "Equal", "operand": operands } })
            }
            "TimezoneOffsetFrom" => json!({ "type": name, "operand": operands.first().map(|operand| self.expression(operand)) }),
            "Expand" if operands.first().is_some_and(|first| matches!(first.ty, Type::Interval(_))) => self.points(operands),
            "Tail" => slice(self, integer(1), null()),
            "Skip" => {
                let start = count(self, i32::MAX);
                slice(self, start, null())
            }
            "Take" => {
                let end = count(self, 0);
                let end = json!({ "type": "Coalesce", "operand": [end, integer(0)] });
                slice(self, integer(0), end)
            }
            _ => return None,
        })
    }

    /// `expand` of one interval gives points. Engines differ over that, so: the start of each of the intervals that
    /// `expand` gives of the list of the one; null for null, because a query over nothing is nothing.
    fn points(&mut self, operands: &[Expression]) -> Json {
        let mut written = self.all(operands).into_iter();
        let (whole, per) = (written.next(), written.next().unwrap_or_else(|| self.null(&Type::Quantity)));
        let alias = |name: &str| json!({ "type": "AliasRef", "name": name });
        let expanded = json!({ "type": "Expand", "operand": [{ "type": "List", "element": [alias("$whole")] }, per] });
        let starts = json!({
            "type": "Query",
            "source": [{ "alias": "$part", "expression": expanded }],
            "let": [],
            "relationship": [],
            "return": { "distinct": false, "expression": { "type": "Start", "operand": alias("$part") } },
        });
        let source = json!([{ "alias": "$whole", "expression": whole }]);
        json!({ "type": "Query", "source": source, "let": [], "relationship": [], "return": { "distinct": false, "expression": starts } })
    }

    /// The vocabulary of a membership: a field of that type, not a node.
    pub(super) fn reference(&self, kind: &Kind) -> Json {
        let mut named = self.declared(kind);
        if let Json::Object(named) = &mut named {
            named.remove("type");
        }
        named
    }

    fn membership(&mut self, (name, codes, reference, expression): &(&str, &str, &str, &str), operands: &[Expression]) -> Json {
        let [members, vocabulary] = operands else { return json!({ "type": name }) };
        let mut node = json!({ "type": name });
        node[*codes] = self.expression(members);
        match vocabulary.kind {
            Kind::ValueSet(_) | Kind::CodeSystem(_) => node[*reference] = self.reference(&vocabulary.kind),
            _ => node[*expression] = self.expression(vocabulary),
        }
        node
    }

    /// A call of FHIRHelpers with one operand; the operand itself where the library does not include it.
    pub(super) fn helped(&self, function: &str, operand: Json) -> Json {
        let own = self.tree.libraries.get(self.library.index());
        let helpers = own.and_then(|own| {
            own.includes
                .iter()
                .find(|(_, id)| self.tree.libraries.get(id.index()).is_some_and(|library| library.name.rsplit('.').next() == Some("FHIRHelpers")))
        });
        match helpers {
            Some((local, _)) => json!({ "type": "FunctionRef", "libraryName": &**local, "name": function, "operand": [operand] }),
            None => operand,
        }
    }

    /// A text constant, for the queries that are written for references.
    pub(super) fn separator() -> Json {
        text("/")
    }
}

/// Replaces a node wherever it stands; whether it stood anywhere.
fn replace(within: &mut Json, node: &Json, by: &Json) -> bool {
    if within == node {
        *within = by.clone();
        return true;
    }
    let mut replaced = false;
    match within {
        Json::Object(fields) => {
            for value in fields.values_mut() {
                replaced |= replace(value, node, by);
            }
            // A property of a query's source is written in its scope.
            let source = fields.get("source").filter(|source| source["type"] == "AliasRef").and_then(|source| source["name"].as_str());
            if let (true, Some("Property"), Some(name)) = (replaced, fields.get("type").and_then(Json::as_str), source.map(str::to_owned))
                && !name.starts_with("$this")
            {
                fields.remove("source");
                fields.insert("scope".into(), Json::from(name));
            }
        }
        Json::Array(items) => {
            for item in items {
                replaced |= replace(item, node, by);
            }
        }
        _ => {}
    }
    replaced
}
