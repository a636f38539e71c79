//! Queries and retrieves as nodes.

use serde_json::{Value as Json, json};

use super::value::text;
use super::{FHIR, ITEM, NUMBER, Role, Variable, Writer};
use crate::cql::typed::{CodeFilter, Comparator, Element, Kind, Query, Relationship, Repeat, Retrieve, Slot, Sort, Source};
use crate::cql::types::Type;

impl Writer<'_> {
    pub(super) fn query(&mut self, query: &Query) -> Json {
        let depth = self.variables.len();
        let sources: Vec<Json> = query.sources.iter().map(|source| self.source(source)).collect();
        let mut lets = Vec::new();
        for variable in &query.lets {
            let expression = self.expression(&variable.expression);
            lets.push(json!({ "identifier": self.bind(variable.slot, &variable.name, Role::Let), "expression": expression }));
        }
        let relationships: Vec<Json> = query.relationships.iter().map(|relationship| self.relationship(relationship)).collect();
        let mut node = json!({ "type": "Query", "source": sources, "let": lets, "relationship": relationships });
        if let Some(condition) = &query.condition {
            node["where"] = self.expression(condition);
        }
        if let Some(returning) = &query.returning {
            node["return"] = json!({ "distinct": returning.distinct, "expression": self.expression(&returning.expression) });
        }
        if let ([Source { index: Some(_), slot, expression, .. }], None, None) = (query.sources.as_slice(), &query.returning, &query.aggregate) {
            node["return"] = json!({ "distinct": false, "expression": self.variable(*slot, expression.at) });
        }
        if let Some(aggregate) = &query.aggregate {
            let starting = self.expression(&aggregate.starting);
            let identifier = self.bind(aggregate.slot, "total", Role::Let);
            let expression = self.expression(&aggregate.expression);
            node["aggregate"] = json!({ "identifier": identifier, "distinct": aggregate.distinct, "starting": starting, "expression": expression });
        }
        if let Some(sort) = &query.sort {
            node["sort"] = json!({ "by": self.sort(sort) });
        }
        self.variables.truncate(depth);
        node
    }

    fn source(&mut self, source: &Source) -> Json {
        let expression = self.expression(&source.expression);
        if let Some(index) = source.index {
            return self.numbered(source, index, expression);
        }
        json!({ "alias": self.bind(source.slot, &source.name, Role::Alias), "expression": expression })
    }

    /// Rows with their numbers, which a query does not have: tuples that a `ForEach` makes of the items.
    fn numbered(&mut self, source: &Source, index: Slot, items: Json) -> Json {
        let element = |name: &str, node: &str| json!({ "name": name, "value": { "type": node, "scope": "$item" } });
        let row = json!({ "type": "Tuple", "element": [element(ITEM, "Current"), element(NUMBER, "Iteration")] });
        let alias = self.bind(source.slot, "$row", Role::Item);
        self.variables.push(Variable { slot: index, name: alias.clone(), role: Role::Number });
        json!({ "alias": alias, "expression": { "type": "ForEach", "source": items, "scope": "$item", "element": row } })
    }

    pub(super) fn repeat(&mut self, repeat: &Repeat) -> Json {
        let depth = self.variables.len();
        let source = self.expression(&repeat.source.expression);
        let scope = self.bind(repeat.source.slot, &repeat.source.name, Role::Alias);
        self.variables.extend(repeat.source.index.map(|slot| Variable { slot, name: scope.clone(), role: Role::Iteration }));
        let element = self.expression(&repeat.element);
        self.variables.truncate(depth);
        json!({ "type": "Repeat", "source": source, "scope": scope, "element": element })
    }

    fn relationship(&mut self, relationship: &Relationship) -> Json {
        let depth = self.variables.len();
        let mut node = self.source(&relationship.source);
        node["type"] = Json::from(if relationship.without { "Without" } else { "With" });
        node["suchThat"] = self.expression(&relationship.such_that);
        self.variables.truncate(depth);
        node
    }

    fn sort(&mut self, sort: &Sort) -> Vec<Json> {
        let depth = self.variables.len();
        self.bind(sort.slot, "$this", Role::Row);
        let keys = sort.keys.iter().map(|key| {
            let direction = if key.descending { "desc" } else { "asc" };
            match &key.expression.kind {
                Kind::Slot(slot) if *slot == sort.slot => json!({ "type": "ByDirection", "direction": direction }),
                Kind::Property { source, element } if matches!(source.kind, Kind::Slot(slot) if slot == sort.slot) => {
                    json!({ "type": "ByColumn", "direction": direction, "path": &*element.name })
                }
                _ => json!({ "type": "ByExpression", "direction": direction, "expression": self.expression(&key.expression) }),
            }
        });
        let keys = keys.collect();
        self.variables.truncate(depth);
        keys
    }

    /// A retrieve; by a code that may stand behind a reference, the union of both ways to say it.
    pub(super) fn retrieve(&mut self, retrieve: &Retrieve) -> Json {
        let plain = self.plain_retrieve(retrieve, retrieve.code.as_ref());
        let Some(filter) = retrieve.code.as_ref().filter(|filter| filter.through_reference) else { return plain };
        match filter.path.as_slice() {
            [element] if refers(element) => match self.by_reference(retrieve, filter, element) {
                Some(referring) => json!({ "type": "Union", "operand": [plain, referring] }),
                None => plain,
            },
            _ => plain,
        }
    }

    fn plain_retrieve(&mut self, retrieve: &Retrieve, filter: Option<&CodeFilter>) -> Json {
        let base = || format!("{FHIR}/StructureDefinition/{}", retrieve.resource_type);
        let profile = retrieve.fixed.first().map(|fixed| fixed.profile.to_string()).filter(|profile| !profile.is_empty());
        let mut node = json!({ "type": "Retrieve", "dataType": self.class(&retrieve.class), "templateId": profile.unwrap_or_else(base) });
        if let Some(filter) = filter {
            let (comparator, codes) = self.codes(filter);
            node["codeProperty"] = Json::from(dotted(&filter.path));
            node["codeComparator"] = Json::from(comparator);
            node["codes"] = codes;
        }
        if let Some(filter) = &retrieve.date {
            node["dateProperty"] = Json::from(dotted(&filter.path));
            node["dateRange"] = self.expression(&filter.range);
        }
        node
    }

    /// The comparator, and the codes as a value set or a list.
    fn codes(&mut self, filter: &CodeFilter) -> (&'static str, Json) {
        let written = self.expression(&filter.codes);
        match filter.codes.ty {
            // Not one of the set, but the set itself: what was not done may be said of it as a whole.
            Type::ValueSet if filter.comparator == Comparator::Equivalent => ("~", written),
            Type::Code => ("~", json!({ "type": "ToList", "operand": written })),
            Type::Concept => ("~", json!({ "type": "Property", "path": "codes", "source": written })),
            Type::List(_) => ("~", written),
            _ => ("in", written),
        }
    }

    /// Those whose element refers to a Medication with such a code, be it contained or a resource of its own.
    fn by_reference(&mut self, retrieve: &Retrieve, filter: &CodeFilter, element: &Element) -> Option<Json> {
        let code = self.helped("ToConcept", json!({ "type": "Property", "path": "code", "scope": "M" }));
        let such_code = match (&filter.codes.kind, &filter.codes.ty) {
            (Kind::ValueSet(_), _) => json!({ "type": "InValueSet", "code": code, "valueset": self.reference(&filter.codes.kind) }),
            (_, Type::Code) => json!({ "type": "Equivalent", "operand": [code, { "type": "ToConcept", "operand": self.expression(&filter.codes) }] }),
            (_, Type::Concept) => json!({ "type": "Equivalent", "operand": [code, self.expression(&filter.codes)] }),
            _ => return None,
        };
        let reference = json!({ "type": "Property", "path": format!("{}.reference.value", element.name), "scope": "MR" });
        let last = json!({ "type": "Last", "source": { "type": "Split", "stringToSplit": reference, "separator": Self::separator() } });
        let id = json!({ "type": "Property", "path": "id.value", "scope": "M" });
        let local = json!({ "type": "Concatenate", "operand": [text("#"), id] });
        let is_last = |id: &Json| json!({ "type": "Equal", "operand": [id, last] });
        let same = json!({ "type": "Or", "operand": [is_last(&id), is_last(&local)] });
        let medication = format!("{{{FHIR}}}Medication");
        let own = json!({ "type": "Retrieve", "dataType": medication, "templateId": format!("{FHIR}/StructureDefinition/Medication") });
        let one = json!({ "type": "AliasRef", "name": "C" });
        let contained = json!({
            "type": "Query",
            "source": [{ "alias": "C", "expression": { "type": "Property", "path": "contained", "scope": "MR" } }],
            "let": [],
            "relationship": [],
            "where": { "type": "Is", "operand": one, "isType": medication },
            "return": { "distinct": false, "expression": { "type": "As", "operand": one, "asType": medication } },
        });
        let medications = json!({ "type": "Union", "operand": [own, contained] });
        let source = self.plain_retrieve(retrieve, None);
        Some(json!({
            "type": "Query",
            "source": [{ "alias": "MR", "expression": source }],
            "let": [],
            "relationship": [{ "type": "With", "alias": "M", "expression": medications, "suchThat": { "type": "And", "operand": [same, such_code] } }],
        }))
    }
}

/// Whether an element may be a reference.
fn refers(element: &Element) -> bool {
    element.alternatives.iter().any(|alternative| alternative.ty == Type::class("FHIR.Reference"))
}

fn dotted(path: &[Element]) -> String {
    path.iter().map(|element| &*element.name).collect::<Vec<_>>().join(".")
}
