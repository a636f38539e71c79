//! Declarations and definitions of a library: ids first, bodies on demand, because they refer to each other in any order.

use std::sync::Arc;

use super::document::{Document, items, text_of};
use super::json::Json;
use crate::cql::check::conversion::Conversions;
use crate::cql::model::{Model, Models};
use crate::cql::typed::{self, Access, CodeId, CodeSystemId, ConceptId, DefineId, EvaluationContext, Expression, FunctionId, LibraryId, ParameterId, Slot, Tree, ValueSetId};
use crate::cql::types::Type;
use crate::diagnostic::{Diagnostic, Location, Span};

/// Defines and functions that may be waiting for one another; deeper chains are refused rather than risk the stack.
const CHAIN_MAX: usize = 200;
/// The namespaces of the models that a library may use: the system's, FHIR's, and those derived from it.
const NAMESPACES: [&str; 4] = ["urn:hl7-org:elm-types:r1", "http://hl7.org/fhir", "http://hl7.org/fhir/us/qicore", "http://hl7.org/fhir/us/core"];

/// Reads one library into the tree; what it includes is there already (`None`: not found, which has been reported).
pub(super) fn read(tree: &mut Tree, document: &Document, includes: Vec<(Arc<str>, Option<LibraryId>)>, models: &Models) -> (LibraryId, Vec<Diagnostic>) {
    let library = LibraryId(id(tree.libraries.len()));
    let fhir = models.fhir().clone();
    if !tree.classes.iter().any(|class| class.name == fhir.patient) {
        tree.classes.extend(fhir.typed_classes(&fhir));
    }
    tree.model.get_or_insert_with(|| fhir.clone());
    let found = includes.iter().filter_map(|(local, library)| Some((local.clone(), (*library)?))).collect();
    let row = typed::Library {
        name: document.name.clone(),
        version: document.version.clone(),
        source: document.source.clone(),
        includes: found,
        usings: Vec::new(),
        form: typed::Form::Elm,
    };
    tree.libraries.push(row);
    let conversions = Conversions { models: vec![fhir.clone()], ..Conversions::default() };
    let mut reader = Reader {
        tree,
        document,
        library,
        includes,
        models,
        fhir,
        conversions,
        defines: Vec::new(),
        functions: Vec::new(),
        frame: Frame::default(),
        chain: 0,
        within: "",
        at: Span::default(),
        locator: None,
        diagnostics: Vec::new(),
    };
    reader.each("usings", Reader::using);
    reader.terminology();
    reader.each("parameters", Reader::parameter_row);
    reader.each("statements", Reader::statement);
    reader.bodies();
    (library, reader.diagnostics)
}

/// What a variable is; references say which they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Alias,
    Let,
    Operand,
}

/// One variable in scope.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub name: Arc<str>,
    pub role: Role,
    pub slot: Slot,
    pub ty: Type,
    /// Where the number of the row is kept, if a node asks for it.
    pub index: Option<Slot>,
}

/// The variables of the body being read.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub variables: Vec<Variable>,
    pub slots: u32,
    /// In `sort by`: bare names are elements of this variable first.
    pub row: Option<Variable>,
}

/// How far a define or function has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Running,
    Done,
}

/// A define or function of this library.
#[derive(Clone, Copy)]
struct Definition<'a, I> {
    id: I,
    json: &'a Json,
    progress: Progress,
}

/// The reading of one library.
pub(super) struct Reader<'a> {
    pub tree: &'a mut Tree,
    document: &'a Document,
    pub library: LibraryId,
    includes: Vec<(Arc<str>, Option<LibraryId>)>,
    pub models: &'a Models,
    pub fhir: Arc<Model>,
    pub conversions: Conversions,
    defines: Vec<Definition<'a, DefineId>>,
    functions: Vec<Definition<'a, FunctionId>>,
    pub frame: Frame,
    chain: usize,
    /// The definition being read, the node of the document, and the place in the CQL text that it was translated from.
    pub within: &'a str,
    pub at: Span,
    pub locator: Option<&'a str>,
    pub diagnostics: Vec<Diagnostic>,
}

fn id(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn access(json: &Json) -> Access {
    if text_of(json, "accessLevel") == Some("Private") { Access::Private } else { Access::Public }
}

/// The position of the declaration that a test finds, as an id's number.
fn position<T>(rows: &[T], test: impl Fn(&T) -> bool) -> Option<u32> {
    rows.iter().position(test).map(id)
}

impl<'a> Reader<'a> {
    /// Reports what is wrong at the node being read.
    pub(super) fn fault(&mut self, message: &str) {
        let version = self.document.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        let mut place = format!("library {}{version}", self.document.name);
        if !self.within.is_empty() {
            place.push_str(&format!(", define `{}`", self.within));
        }
        if let Some(locator) = self.locator {
            place.push_str(&format!(", at {locator} of its CQL text"));
        }
        let at = Location::new(&self.document.source, self.at);
        self.diagnostics.push(Diagnostic::error(format!("{message} ({place})")).at(at));
    }

    /// Whether a library that is included was not found: that has been said, and what it defines is of no known type.
    pub(super) fn is_incomplete(&self) -> bool {
        self.includes.iter().any(|(_, library)| library.is_none())
    }

    /// Reports, and stands in for what could not be read: it fits everywhere, so one mistake is reported once.
    pub(super) fn refused(&mut self, message: &str) -> Expression {
        self.fault(message);
        self.null(Type::Any)
    }

    /// Reads what is at a node: faults are told to be there.
    pub(super) fn at_node<T>(&mut self, node: &'a Json, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = (self.at, self.locator);
        (self.at, self.locator) = (node.at, text_of(node, "locator").or(self.locator));
        let found = read(self);
        (self.at, self.locator) = outer;
        found
    }

    /// Reads each declaration of a section in its turn.
    fn each(&mut self, section: &str, read: impl Fn(&mut Self, &'a Json)) {
        let document = self.document;
        for json in document.definitions(section) {
            self.at_node(json, |reader| read(reader, json));
        }
    }

    fn using(&mut self, json: &'a Json) {
        let (name, uri) = (text_of(json, "localIdentifier").unwrap_or_default(), text_of(json, "uri").unwrap_or_default());
        let version = text_of(json, "version");
        if !NAMESPACES.contains(&uri) {
            self.fault(&format!("no model `{name}` of namespace `{uri}`; FHIR 4.0.1 and what is derived from it are known"));
        } else if uri == &*self.fhir.url && self.models.get(&self.fhir.name, version).is_none() {
            self.fault(&format!("no model `{name}` of version `{}`; FHIR 4.0.1 is known", version.unwrap_or_default()));
        }
        self.tree.libraries[self.library.index()].usings.push((name.into(), version.map(Arc::from)));
    }

    fn terminology(&mut self) {
        self.each("codeSystems", Self::declared_code_system);
        self.each("valueSets", Self::declared_value_set);
        self.each("codes", Self::declared_code_row);
        self.each("concepts", Self::declared_concept);
    }

    fn declared_code_system(&mut self, json: &'a Json) {
        let (library, at, access) = (self.library, self.at, access(json));
        let (name, id, version) = (self.name_of(json), self.required(json, "id"), text_of(json, "version").map(Arc::from));
        self.tree.code_systems.push(typed::CodeSystem { library, name, id, version, access, at });
    }

    fn declared_value_set(&mut self, json: &'a Json) {
        let (library, at, access) = (self.library, self.at, access(json));
        let (name, id) = (self.name_of(json), self.required(json, "id"));
        let (url, inline) = match id.split_once('|') {
            Some((url, version)) => (Arc::from(url), Some(Arc::from(version))),
            None => (id, None),
        };
        let code_systems = items(json, "codeSystem").iter().filter_map(|system| self.code_system(system)).collect();
        let version = text_of(json, "version").map(Arc::from).or(inline);
        self.tree.value_sets.push(typed::ValueSet { library, name, id: url, version, code_systems, access, at });
    }

    fn declared_code_row(&mut self, json: &'a Json) {
        let (library, at, access) = (self.library, self.at, access(json));
        let (name, code) = (self.name_of(json), self.required(json, "id"));
        let Some(system) = json.get("codeSystem").and_then(|system| self.code_system(system)) else {
            return self.fault(&format!("code `{name}` has no code system"));
        };
        let display = text_of(json, "display").map(Arc::from);
        self.tree.codes.push(typed::CodeDefinition { library, name, code, system, display, access, at });
    }

    fn declared_concept(&mut self, json: &'a Json) {
        let (library, at, access) = (self.library, self.at, access(json));
        let codes = items(json, "code").iter().filter_map(|code| self.declared_code(code)).collect();
        let (name, display) = (self.name_of(json), text_of(json, "display").map(Arc::from));
        self.tree.concepts.push(typed::ConceptDefinition { library, name, codes, display, access, at });
    }

    fn name_of(&mut self, json: &Json) -> Arc<str> {
        self.required(json, "name")
    }

    fn required(&mut self, json: &Json, name: &str) -> Arc<str> {
        text_of(json, name).map(Arc::from).unwrap_or_else(|| {
            self.fault(&format!("a declaration has no `{name}`"));
            "".into()
        })
    }

    /// The library that a reference names by `libraryName`; this one when it names none. `None`: not found, and reported.
    pub(super) fn library_of(&mut self, reference: &Json) -> Option<LibraryId> {
        let Some(name) = text_of(reference, "libraryName") else { return Some(self.library) };
        match self.includes.iter().find(|(local, _)| &**local == name) {
            Some((_, library)) => *library,
            None => {
                self.fault(&format!("no included library is called `{name}` here"));
                None
            }
        }
    }

    /// The row that a reference means, in a table of the tree.
    fn row(&mut self, reference: &Json, what: &str, find: impl Fn(&Tree, LibraryId, &str) -> Option<u32>) -> Option<u32> {
        let name = text_of(reference, "name").unwrap_or_default();
        let library = self.library_of(reference)?;
        let found = find(self.tree, library, name);
        if found.is_none() {
            let library = self.tree.libraries[library.index()].name.clone();
            self.fault(&format!("library `{library}` has no {what} `{name}`"));
        }
        found
    }

    pub(super) fn code_system(&mut self, reference: &Json) -> Option<CodeSystemId> {
        self.row(reference, "code system", |tree, library, name| position(&tree.code_systems, |row| row.library == library && &*row.name == name))
            .map(CodeSystemId)
    }

    pub(super) fn value_set(&mut self, reference: &Json) -> Option<ValueSetId> {
        self.row(reference, "value set", |tree, library, name| position(&tree.value_sets, |row| row.library == library && &*row.name == name))
            .map(ValueSetId)
    }

    pub(super) fn declared_code(&mut self, reference: &Json) -> Option<CodeId> {
        self.row(reference, "code", |tree, library, name| position(&tree.codes, |row| row.library == library && &*row.name == name))
            .map(CodeId)
    }

    pub(super) fn concept(&mut self, reference: &Json) -> Option<ConceptId> {
        self.row(reference, "concept", |tree, library, name| position(&tree.concepts, |row| row.library == library && &*row.name == name))
            .map(ConceptId)
    }

    pub(super) fn parameter(&mut self, reference: &Json) -> Option<ParameterId> {
        self.row(reference, "parameter", |tree, library, name| position(&tree.parameters, |row| row.library == library && &*row.name == name))
            .map(ParameterId)
    }

    /// The define that a reference means; its body is read first if it has not been.
    pub(super) fn define(&mut self, reference: &Json) -> Option<DefineId> {
        let find = |tree: &Tree, library: LibraryId, name: &str| tree.define(library, name).map(|define| define.0);
        let define = self.row(reference, "define", find).map(DefineId)?;
        if let Some(own) = self.defines.iter().position(|own| own.id == define) {
            self.define_body(own);
            if self.defines[own].progress == Progress::Running {
                self.fault(&format!("`{}` is defined by way of itself", text_of(reference, "name").unwrap_or_default()));
                return None;
            }
        }
        Some(define)
    }

    fn parameter_row(&mut self, json: &'a Json) {
        let (library, at, access) = (self.library, self.at, access(json));
        let name = self.name_of(json);
        self.within = text_of(json, "name").unwrap_or_default();
        let declared = self.type_of(json, "parameterTypeSpecifier", "parameterType");
        let default = json.get("default").map(|default| self.expression(default));
        let ty = declared.or_else(|| default.as_ref().map(|default| default.ty.clone())).unwrap_or_else(|| {
            self.fault(&format!("parameter `{name}` has neither a type nor a default"));
            Type::Any
        });
        self.within = "";
        self.tree.parameters.push(typed::Parameter { library, name, ty, default, access, at });
    }

    /// Gives a define or function its id.
    fn statement(&mut self, json: &'a Json) {
        let (library, at, access) = (self.library, self.at, access(json));
        let name = self.name_of(json);
        if text_of(json, "type") == Some("FunctionDef") {
            let operands: Vec<(Arc<str>, Type)> = items(json, "operand").iter().map(|operand| self.at_node(operand, |reader| reader.operand(operand))).collect();
            let number = FunctionId(id(self.tree.functions.len()));
            let result = self.type_of(json, "resultTypeSpecifier", "resultTypeName").unwrap_or(Type::Any);
            let fluent = json.get("fluent").and_then(Json::as_bool).unwrap_or(false);
            self.tree.functions.push(typed::Function { library, name, fluent, operands, result, body: None, slots: 0, access, at });
            self.functions.push(Definition { id: number, json, progress: Progress::Waiting });
            return;
        }
        let context = match text_of(json, "context") {
            None | Some("Patient") => EvaluationContext::Patient,
            Some("Unfiltered" | "Population") => EvaluationContext::Unfiltered,
            Some(other) => {
                self.fault(&format!("define `{name}` has the context `{other}`; Patient and Unfiltered are known"));
                EvaluationContext::Patient
            }
        };
        let number = DefineId(id(self.tree.defines.len()));
        let body = self.null(Type::Any);
        self.tree.defines.push(typed::Define { library, name, context, access, body, slots: 0, at });
        self.defines.push(Definition { id: number, json, progress: Progress::Waiting });
    }

    fn operand(&mut self, operand: &'a Json) -> (Arc<str>, Type) {
        let name = self.name_of(operand);
        let ty = self.type_of(operand, "operandTypeSpecifier", "operandType");
        let ty = ty.unwrap_or_else(|| {
            self.fault(&format!("operand `{name}` has no type"));
            Type::Any
        });
        (name, ty)
    }

    fn bodies(&mut self) {
        for own in 0..self.defines.len() {
            self.define_body(own);
        }
        for own in 0..self.functions.len() {
            self.function_body(own);
        }
    }

    /// Reads a define's body, unless that has been done or is being done.
    fn define_body(&mut self, own: usize) {
        let Definition { id, json, progress } = self.defines[own];
        if progress != Progress::Waiting {
            return;
        }
        self.defines[own].progress = Progress::Running;
        let (body, slots) = self.in_frame(json, Frame::default());
        if let (Some(body), Some(define)) = (body, self.tree.defines.get_mut(id.index())) {
            (define.body, define.slots) = (body, slots);
        }
        self.defines[own].progress = Progress::Done;
    }

    fn function_body(&mut self, own: usize) {
        let Definition { id, json, progress } = self.functions[own];
        if progress != Progress::Waiting {
            return;
        }
        self.functions[own].progress = Progress::Running;
        if json.get("external").and_then(Json::as_bool) != Some(true) {
            let operands = self.tree.functions[id.index()].operands.clone();
            let variables: Vec<Variable> = (0u32..)
                .zip(operands)
                .map(|(slot, (name, ty))| Variable { name, role: Role::Operand, slot: Slot(slot), ty, index: None })
                .collect();
            let frame = Frame { slots: self::id(variables.len()), variables, row: None };
            let (body, slots) = self.in_frame(json, frame);
            let function = &mut self.tree.functions[id.index()];
            if let Some(body) = &body {
                function.result = body.ty.clone();
            }
            (function.body, function.slots) = (body, slots);
        }
        self.functions[own].progress = Progress::Done;
    }

    /// The result type of a function; its body is read first if it has not been.
    pub(super) fn result_of(&mut self, function: FunctionId) -> Type {
        if let Some(own) = self.functions.iter().position(|own| own.id == function) {
            self.function_body(own);
        }
        self.tree.functions[function.index()].result.clone()
    }

    /// The body of a definition, read in a frame of its own.
    fn in_frame(&mut self, json: &'a Json, frame: Frame) -> (Option<Expression>, u32) {
        let outer = (std::mem::replace(&mut self.frame, frame), self.within, self.at, self.locator);
        (self.within, self.at, self.locator) = (text_of(json, "name").unwrap_or_default(), json.at, text_of(json, "locator"));
        self.chain += 1;
        let body = match json.get("expression") {
            _ if self.chain > CHAIN_MAX => {
                self.fault("definitions refer to one another too deeply here");
                None
            }
            Some(body) => Some(self.expression(body)),
            None => {
                self.fault("a definition without `expression` that is not external");
                None
            }
        };
        self.chain -= 1;
        let slots = self.frame.slots;
        (self.frame, self.within, self.at, self.locator) = outer;
        (body, slots)
    }

    pub(super) fn slot(&mut self) -> Slot {
        let slot = Slot(self.frame.slots);
        self.frame.slots += 1;
        slot
    }

    /// Adds a variable to the innermost scope.
    pub(super) fn bind(&mut self, name: &str, role: Role, ty: Type) -> Slot {
        let slot = self.slot();
        self.frame.variables.push(Variable { name: name.into(), role, slot, ty, index: None });
        slot
    }

    /// Functions of a library by name; of another library only its public ones.
    pub(super) fn functions_named(&self, library: LibraryId, name: &str) -> Vec<FunctionId> {
        let public = |id: &FunctionId| library == self.library || self.tree.functions[id.index()].access == Access::Public;
        self.tree.functions(library, name).filter(public).collect()
    }
}
