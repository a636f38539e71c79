//! The typed tree to ELM JSON, one document per library, as other engines read it.
//!
//! Types of derived models are written as the FHIR classes behind them, which is what the reference translator does and
//! what data are instances of. Conversions stand in the tree already, so nothing is left to the engine.

mod node;
mod query;
mod value;

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::type_specifier::SYSTEM;
use crate::cql::typed::{Access, Class, EvaluationContext, LibraryId, Slot, Tree};
use crate::cql::types::{SYSTEM_TYPES, Type};
use crate::diagnostic::{Diagnostic, Location, Span};

/// The namespace of FHIR's classes.
const FHIR: &str = "http://hl7.org/fhir";
/// Elements of the tuples that numbered rows are written as.
const ITEM: &str = "item";
const NUMBER: &str = "number";

/// A library of the tree as one ELM document. A finding that is an error says what ELM cannot express.
pub fn write(tree: &Tree, library: LibraryId) -> (Json, Vec<Diagnostic>) {
    let mut writer = Writer { tree, library, variables: Vec::new(), diagnostics: Vec::new() };
    let document = json!({ "library": writer.library() });
    (document, writer.diagnostics)
}

/// What a variable is in ELM, which has a node for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Alias,
    Let,
    Operand,
    /// The row of a sort.
    Row,
    /// The item of a numbered row, and its number: elements of the alias that is the name.
    Item,
    Number,
    /// The number of a row of the scope that is the name.
    Iteration,
}

/// One variable in scope, under a name that no other variable in scope has.
#[derive(Debug, Clone)]
struct Variable {
    slot: Slot,
    name: String,
    role: Role,
}

struct Writer<'t> {
    tree: &'t Tree,
    library: LibraryId,
    variables: Vec<Variable>,
    diagnostics: Vec<Diagnostic>,
}

/// A section, unless it is empty.
fn section(library: &mut Map<String, Json>, name: &str, rows: Vec<Json>) {
    if !rows.is_empty() {
        library.insert(name.into(), json!({ "def": rows }));
    }
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Public => "Public",
        Access::Private => "Private",
    }
}

fn context(context: EvaluationContext) -> &'static str {
    match context {
        EvaluationContext::Patient => "Patient",
        EvaluationContext::Unfiltered => "Unfiltered",
    }
}

/// Adds a text under a name, if there is one.
fn optional(row: &mut Json, name: &str, text: Option<&Arc<str>>) {
    if let (Some(text), Json::Object(row)) = (text, row) {
        row.insert(name.into(), Json::from(&**text));
    }
}

impl Writer<'_> {
    fn library(&mut self) -> Json {
        let tree = self.tree;
        let mut library = Map::new();
        let Some(own) = tree.libraries.get(self.library.index()) else { return Json::Object(library) };
        let mut identifier = json!({ "id": &*own.name });
        optional(&mut identifier, "version", own.version.as_ref());
        library.insert("identifier".into(), identifier);
        library.insert("schemaIdentifier".into(), json!({ "id": "urn:hl7-org:elm", "version": "r1" }));
        let mut usings = vec![json!({ "localIdentifier": "System", "uri": SYSTEM })];
        if own.usings.iter().any(|(name, _)| &**name != "System") {
            usings.push(json!({ "localIdentifier": "FHIR", "uri": FHIR, "version": "4.0.1" }));
        }
        section(&mut library, "usings", usings);
        let includes = own.includes.iter().filter_map(|(local, id)| {
            let other = tree.libraries.get(id.index())?;
            let mut row = json!({ "localIdentifier": &**local, "path": &*other.name });
            optional(&mut row, "version", other.version.as_ref());
            Some(row)
        });
        section(&mut library, "includes", includes.collect());
        let parameters = self.parameters();
        section(&mut library, "parameters", parameters);
        self.terminology(&mut library);
        section(&mut library, "contexts", vec![json!({ "name": "Patient" })]);
        let statements = self.statements();
        section(&mut library, "statements", statements);
        Json::Object(library)
    }

    fn parameters(&mut self) -> Vec<Json> {
        let (tree, own) = (self.tree, self.library);
        let mut rows = Vec::new();
        for parameter in tree.parameters.iter().filter(|row| row.library == own) {
            let mut row = json!({ "name": &*parameter.name, "accessLevel": access(parameter.access), "parameterTypeSpecifier": self.specifier(&parameter.ty) });
            if let Some(default) = &parameter.default {
                row["default"] = self.expression(default);
            }
            rows.push(row);
        }
        rows
    }

    fn terminology(&self, library: &mut Map<String, Json>) {
        let tree = self.tree;
        let systems = tree.code_systems.iter().filter(|row| row.library == self.library).map(|system| {
            let mut row = json!({ "name": &*system.name, "id": &*system.id, "accessLevel": access(system.access) });
            optional(&mut row, "version", system.version.as_ref());
            row
        });
        section(library, "codeSystems", systems.collect());
        let sets = tree.value_sets.iter().filter(|row| row.library == self.library).map(|set| {
            let mut row = json!({ "name": &*set.name, "id": &*set.id, "accessLevel": access(set.access) });
            optional(&mut row, "version", set.version.as_ref());
            let systems: Vec<Json> = set
                .code_systems
                .iter()
                .filter_map(|id| tree.code_systems.get(id.index()))
                .map(|system| self.named(&system.name, system.library))
                .collect();
            if !systems.is_empty() {
                row["codeSystem"] = Json::from(systems);
            }
            row
        });
        section(library, "valueSets", sets.collect());
        let codes = tree.codes.iter().filter(|row| row.library == self.library).map(|code| {
            let mut row = json!({ "name": &*code.name, "id": &*code.code, "accessLevel": access(code.access) });
            optional(&mut row, "display", code.display.as_ref());
            if let Some(system) = tree.code_systems.get(code.system.index()) {
                row["codeSystem"] = self.named(&system.name, system.library);
            }
            row
        });
        section(library, "codes", codes.collect());
        let concepts = tree.concepts.iter().filter(|row| row.library == self.library).map(|concept| {
            let codes: Vec<Json> = concept
                .codes
                .iter()
                .filter_map(|id| tree.codes.get(id.index()))
                .map(|code| self.named(&code.name, code.library))
                .collect();
            let mut row = json!({ "name": &*concept.name, "code": codes, "accessLevel": access(concept.access) });
            optional(&mut row, "display", concept.display.as_ref());
            row
        });
        section(library, "concepts", concepts.collect());
    }

    fn statements(&mut self) -> Vec<Json> {
        let (tree, own) = (self.tree, self.library);
        let mut rows = Vec::new();
        for define in tree.defines.iter().filter(|row| row.library == own) {
            self.variables.clear();
            let expression = self.expression(&define.body);
            rows.push(json!({ "name": &*define.name, "context": context(define.context), "accessLevel": access(define.access), "expression": expression }));
        }
        for function in tree.functions.iter().filter(|row| row.library == own) {
            self.variables.clear();
            let mut operands = Vec::new();
            for (slot, (name, ty)) in (0u32..).zip(&function.operands) {
                self.variables.push(Variable { slot: Slot(slot), name: name.to_string(), role: Role::Operand });
                operands.push(json!({ "name": &**name, "operandTypeSpecifier": self.specifier(ty) }));
            }
            let mut row = json!({ "type": "FunctionDef", "name": &*function.name, "context": "Patient", "accessLevel": access(function.access), "operand": operands });
            if function.fluent {
                row["fluent"] = Json::from(true);
            }
            match &function.body {
                Some(body) => row["expression"] = self.expression(body),
                None => {
                    row["external"] = Json::from(true);
                    row["resultTypeSpecifier"] = self.specifier(&function.result);
                }
            }
            rows.push(row);
        }
        rows
    }

    /// A reference by name, qualified if the declaration is another library's.
    fn named(&self, name: &str, library: LibraryId) -> Json {
        let mut row = json!({ "name": name });
        if library != self.library
            && let Some(local) = self.local_name(library)
        {
            row["libraryName"] = Json::from(local);
        }
        row
    }

    /// Under which name this library includes another.
    fn local_name(&self, library: LibraryId) -> Option<String> {
        let own = self.tree.libraries.get(self.library.index())?;
        own.includes.iter().find(|(_, id)| *id == library).map(|(local, _)| local.to_string())
    }

    /// The class of data behind a class: itself, unless it is of a derived model.
    fn class(&self, name: &str) -> String {
        let row: Option<&Class> = self.tree.classes.iter().find(|class| &*class.name == name);
        let behind = row.and_then(|class| class.instance_of.as_deref()).unwrap_or(name);
        format!("{{{FHIR}}}{}", behind.strip_prefix("FHIR.").unwrap_or(behind))
    }

    /// The qualified name of a type that has one.
    fn type_name(&self, ty: &Type) -> Option<String> {
        match ty {
            Type::Class(class) => Some(self.class(class)),
            simple => SYSTEM_TYPES.iter().find(|(_, ty)| ty == simple).map(|(name, _)| format!("{{{SYSTEM}}}{name}")),
        }
    }

    fn specifier(&self, ty: &Type) -> Json {
        match ty {
            Type::List(element) => json!({ "type": "ListTypeSpecifier", "elementType": self.specifier(element) }),
            Type::Interval(point) => json!({ "type": "IntervalTypeSpecifier", "pointType": self.specifier(point) }),
            Type::Choice(types) => {
                let types: Vec<Json> = types.iter().map(|ty| self.specifier(ty)).collect();
                json!({ "type": "ChoiceTypeSpecifier", "choice": types })
            }
            Type::Tuple(elements) => {
                let elements: Vec<Json> = elements.iter().map(|(name, ty)| json!({ "name": &**name, "elementType": self.specifier(ty) })).collect();
                json!({ "type": "TupleTypeSpecifier", "element": elements })
            }
            named => json!({ "type": "NamedTypeSpecifier", "name": self.type_name(named) }),
        }
    }

    /// Reports what ELM cannot express, and stands in for it.
    fn refused(&mut self, message: &str, at: Span) -> Json {
        let source = self.tree.libraries.get(self.library.index()).map(|library| &library.source);
        let finding = Diagnostic::error(format!("{message} cannot be written as ELM"));
        self.diagnostics.push(match source {
            Some(source) => finding.at(Location::new(source, at)),
            None => finding,
        });
        json!({ "type": "Null" })
    }

    /// Adds a variable to the innermost scope, under a name that is not taken there.
    fn bind(&mut self, slot: Slot, name: &str, role: Role) -> String {
        let mut own = name.to_owned();
        let mut number = 1;
        while self.variables.iter().any(|variable| variable.name == own) {
            number += 1;
            own = format!("{name} {number}");
        }
        self.variables.push(Variable { slot, name: own.clone(), role });
        own
    }
}
