//! Syntax tree to typed tree: names, overloads, implicit conversions; every error collected.
//!
//! Libraries are checked in the order of their includes into one [`Tree`]. Within a library, defines and functions get
//! their ids first and their bodies on demand, because they may refer to each other in any order.

mod call;
pub(super) mod conversion;
mod expression;
mod method;
mod name;
mod operation;
pub(super) mod overload;
mod query;
mod type_name;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::conversion::{Conversions, Step, apply};
use super::ast;
use super::model::{Conversion, Model, Models};
use super::typed::{self, Access, CodeId, CodeSystemId, ConceptId, DefineId, EvaluationContext, Expression, FunctionId, Kind, LibraryId, ParameterId, Slot, Tree, ValueSetId};
use super::types::{PARTS_MAX, Type};
use super::value::Value;
use crate::diagnostic::{Diagnostic, Location, SourceFile, Span, has_errors, nearest};
use crate::terminology::systems;

/// Defines and functions that may be waiting for one another; deeper chains are refused rather than risk the stack.
const CHAIN_MAX: usize = 400;

/// Checks one library against those already in the tree and adds it. `includes` are its includes in the order of the
/// text, `None` for one that was not found (and already reported). With `singletons` a list of one and its item convert
/// into each other.
pub fn check(tree: &mut Tree, source: &Arc<SourceFile>, library: &ast::Library, includes: &[Option<LibraryId>], models: &Models, singletons: bool) -> Vec<Diagnostic> {
    let mut checker = Checker::new(tree, source, library);
    checker.conversions.singletons = singletons;
    checker.usings(models);
    // Without its model nothing of a library makes sense: one fault, not one for every name.
    if has_errors(&checker.diagnostics) {
        return checker.diagnostics;
    }
    checker.includes(includes);
    checker.contexts();
    checker.terminology();
    checker.declare();
    // Of a text that is cut off most names are missing: its fault is told, and what follows from it is not.
    if !library.is_cut {
        checker.bodies();
    }
    checker.diagnostics
}

/// One variable in scope.
#[derive(Debug, Clone)]
struct Variable {
    name: Arc<str>,
    slot: Slot,
    ty: Type,
}

/// The variables of the body being checked.
#[derive(Debug, Default)]
struct Frame {
    variables: Vec<Variable>,
    slots: u32,
    /// In `sort by`: bare names are elements of this variable first.
    row: Option<Variable>,
    /// Aliases and lets of the query whose sources and `starting` are being checked, which these do not see.
    beside: Vec<Arc<str>>,
    /// Variables that are `$index` and are asked for.
    indexes: BTreeSet<Slot>,
}

/// How far a define or function has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Running,
    Done,
}

/// What a bare name of the library means.
#[derive(Debug, Clone, Copy)]
enum Declared {
    Define(DefineId),
    Parameter(ParameterId),
    CodeSystem(CodeSystemId),
    ValueSet(ValueSetId),
    Code(CodeId),
    Concept(ConceptId),
}

struct Checker<'a> {
    tree: &'a mut Tree,
    source: &'a Arc<SourceFile>,
    ast: &'a ast::Library,
    library: LibraryId,
    /// Models by local name; the first is the default for unqualified types.
    models: Vec<(Arc<str>, Arc<Model>)>,
    includes: Vec<(Arc<str>, Option<LibraryId>)>,
    conversions: Conversions,
    names: BTreeMap<Arc<str>, Declared>,
    /// Names whose declaration has a fault of its own.
    broken: BTreeSet<Arc<str>>,
    /// By position in the syntax tree.
    defines: Vec<(DefineId, Progress)>,
    /// Those whose bodies are being checked, outermost first.
    running: Vec<DefineId>,
    functions: Vec<(FunctionId, Progress)>,
    frame: Frame,
    chain: usize,
    /// Aggregates that have been checked for the second time.
    rechecked: usize,
    diagnostics: Vec<Diagnostic>,
}

/// What to write where a class of the model, or an element of one, hides a system type of its name.
fn system_twin(ty: &Type) -> Option<String> {
    let Type::Class(class) = ty else { return None };
    let (model, name) = class.rsplit_once('.')?;
    let capital: String = name.chars().take(1).flat_map(char::to_uppercase).chain(name.chars().skip(1)).collect();
    Type::system(&capital)?;
    Some(if capital == name { format!("`{name}` alone is {model}'s here: write `System.{name}`") } else { format!("`{class} {{ value: … }}` makes one") })
}

fn id(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl<'a> Checker<'a> {
    fn new(tree: &'a mut Tree, source: &'a Arc<SourceFile>, ast: &'a ast::Library) -> Self {
        let library = LibraryId(id(tree.libraries.len()));
        let name = ast.name.as_ref().map_or_else(|| Arc::from(""), |(path, _)| Arc::from(path.text()));
        let version = ast.name.as_ref().and_then(|(_, version)| version.as_ref()).map(|version| version.text.clone());
        tree.libraries
            .push(typed::Library { name, version, source: source.clone(), includes: Vec::new(), usings: Vec::new(), form: typed::Form::Cql });
        Checker {
            tree,
            source,
            ast,
            library,
            models: Vec::new(),
            includes: Vec::new(),
            conversions: Conversions::default(),
            names: BTreeMap::new(),
            broken: ast.broken.iter().map(|name| name.text.clone()).collect(),
            defines: Vec::new(),
            running: Vec::new(),
            functions: Vec::new(),
            frame: Frame::default(),
            chain: 0,
            rechecked: 0,
            diagnostics: Vec::new(),
        }
    }

    fn at(&self, span: Span) -> Location {
        Location::new(self.source, span)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn error(&mut self, span: Span, message: impl Into<String>) {
        let diagnostic = Diagnostic::error(message).at(self.at(span));
        self.report(diagnostic);
    }

    fn error_with_help(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        let mut diagnostic = Diagnostic::error(message).at(self.at(span));
        if let Some(help) = help {
            diagnostic = diagnostic.help(help);
        }
        self.report(diagnostic);
    }

    /// The expression that stands for one with an error: it fits everywhere, so one mistake is reported once.
    fn unknown(&self, at: Span) -> Expression {
        Expression::null(Type::Any, at)
    }

    fn usings(&mut self, models: &Models) {
        for using in &self.ast.usings {
            let version = using.version.as_ref().map(|version| &*version.text);
            self.tree.libraries[self.library.index()].usings.push((using.name.text.clone(), version.map(Arc::from)));
            if &*using.name.text == "System" {
                continue;
            }
            match models.get(&using.name.text, version) {
                Some(model) => {
                    let local = using.alias.as_ref().unwrap_or(&using.name).text.clone();
                    if model.derived {
                        self.know(models.fhir(), models);
                    }
                    self.know(model, models);
                    self.models.push((local, model.clone()));
                }
                None => {
                    let wanted = format!("{} {}", using.name.text, version.unwrap_or_default());
                    let known: Vec<String> = models.names().collect();
                    let help = format!("the models here are {}", known.join(", "));
                    self.error_with_help(using.name.at, format!("no model `{}`", wanted.trim()), Some(help));
                }
            }
        }
    }

    /// Makes a model's classes known to the program and to this library's conversions.
    fn know(&mut self, model: &Arc<Model>, models: &Models) {
        if !self.tree.classes.iter().any(|class| class.name == model.patient) {
            self.tree.classes.extend(model.typed_classes(models.fhir()));
        }
        self.tree.model.get_or_insert_with(|| models.fhir().clone());
        if !self.conversions.models.iter().any(|known| Arc::ptr_eq(known, model)) {
            self.conversions.models.push(model.clone());
        }
    }

    fn includes(&mut self, found: &[Option<LibraryId>]) {
        for (include, library) in self.ast.includes.iter().zip(found) {
            let Some(name) = include.alias.as_ref().or(include.name.last()) else {
                continue;
            };
            if self.includes.iter().any(|(own, _)| *own == name.text) {
                self.error(name.at, format!("`{}` is included twice under one name", name.text));
            }
            self.includes.push((name.text.clone(), *library));
            if let Some(library) = library {
                self.tree.libraries[self.library.index()].includes.push((name.text.clone(), *library));
            }
        }
        self.helpers();
    }

    /// The conversion that a class of the model has, where the library of its function is not here.
    fn lacking(&self, types: &[Type]) -> Option<&Conversion> {
        let of_class = |ty: &Type| match ty {
            Type::Class(class) if self.conversions.class_conversions(class).next().is_none() => self.conversions.model_of(class)?.conversions(class).first(),
            _ => None,
        };
        let lacking = types.iter().find_map(of_class)?;
        let included = self
            .includes
            .iter()
            .filter_map(|(_, own)| *own)
            .any(|own| self.tree.libraries[own.index()].name.ends_with(&*lacking.library));
        (!included).then_some(lacking)
    }

    /// What to include for that conversion.
    fn lacks_helpers(&self, types: &[Type]) -> Option<String> {
        self.lacking(types).map(|lacking| format!("`include {} version '…'` converts it to `{}`", lacking.library, lacking.to))
    }

    /// Whether the conversion is of a library that is included but was not found: that has been said.
    fn expects_helpers(&self, types: &[Type]) -> bool {
        let missing = |library: &str| {
            self.ast
                .includes
                .iter()
                .zip(&self.includes)
                .any(|(written, (_, found))| found.is_none() && written.name.last().is_some_and(|name| *name.text == *library))
        };
        self.lacking(types).is_some_and(|lacking| missing(&lacking.library))
    }

    /// Whether a library that is included was not found: that has been said, and what it defines is not known.
    fn is_incomplete(&self) -> bool {
        self.includes.iter().any(|(_, library)| library.is_none())
    }

    /// The conversion functions that the models name, where this library includes their library.
    fn helpers(&mut self) {
        let mut helpers: BTreeMap<Arc<str>, Vec<(Type, FunctionId)>> = BTreeMap::new();
        for (_, library) in &self.includes {
            let Some(library) = library else { continue };
            let name: Arc<str> = self.tree.libraries[library.index()].name.rsplit('.').next().unwrap_or_default().into();
            for (number, function) in (0u32..).zip(&self.tree.functions) {
                let [(_, Type::Class(class))] = function.operands.as_slice() else {
                    continue;
                };
                if function.library != *library {
                    continue;
                }
                let model = self.conversions.models.iter().find(|model| model.class(class).is_some());
                let declared = model.into_iter().flat_map(|model| model.conversions(class));
                let fits = |c: &&super::model::Conversion| c.library == name && c.function == function.name;
                if let Some(conversion) = declared.filter(fits).find(|conversion| conversion.to == function.result) {
                    helpers.entry(class.clone()).or_default().push((conversion.to.clone(), FunctionId(number)));
                }
            }
        }
        self.conversions.helpers = helpers;
    }

    fn terminology(&mut self) {
        self.declare_code_systems();
        self.declare_value_sets();
        self.declare_codes();
        self.declare_concepts();
    }

    fn declare_code_systems(&mut self) {
        let ast = self.ast;
        for system in &ast.code_systems {
            let (library, access, at) = (self.library, system.access, system.at);
            let number = CodeSystemId(id(self.tree.code_systems.len()));
            let version = system.version.as_ref().map(|version| version.text.clone());
            let name = system.name.text.clone();
            if let Some(finding) = systems::misspelled(&system.id.text) {
                self.report(finding.at(self.at(system.id.at)));
            }
            self.tree.code_systems.push(typed::CodeSystem { library, name, id: system.id.text.clone(), version, access, at });
            self.name(&system.name, Declared::CodeSystem(number));
        }
    }

    fn declare_value_sets(&mut self) {
        let ast = self.ast;
        for set in &ast.value_sets {
            let number = ValueSetId(id(self.tree.value_sets.len()));
            let code_systems = set.code_systems.iter().filter_map(|path| self.code_system(path)).collect();
            let (url, inline) = match set.id.text.split_once('|') {
                Some((url, version)) => (Arc::from(url), Some(Arc::from(version))),
                None => (set.id.text.clone(), None),
            };
            let version = set.version.as_ref().map(|version| version.text.clone()).or(inline);
            let (library, access, at) = (self.library, set.access, set.at);
            let name = set.name.text.clone();
            self.tree.value_sets.push(typed::ValueSet { library, name, id: url, version, code_systems, access, at });
            self.name(&set.name, Declared::ValueSet(number));
        }
    }

    fn declare_codes(&mut self) {
        let ast = self.ast;
        for code in &ast.codes {
            let Some(system) = self.code_system(&code.system) else {
                self.broken.insert(code.name.text.clone());
                continue;
            };
            let number = CodeId(id(self.tree.codes.len()));
            self.padded_code(&code.code);
            let display = code.display.as_ref().map(|display| display.text.clone());
            let (library, access, at) = (self.library, code.access, code.at);
            let name = code.name.text.clone();
            self.tree.codes.push(typed::CodeDefinition { library, name, code: code.code.text.clone(), system, display, access, at });
            self.name(&code.name, Declared::Code(number));
        }
    }

    fn padded_code(&mut self, code: &ast::Text) {
        if let Some(finding) = systems::padded(&code.text) {
            self.report(finding.at(self.at(code.at)));
        }
    }

    fn declare_concepts(&mut self) {
        let ast = self.ast;
        for concept in &ast.concepts {
            let codes = concept.codes.iter().filter_map(|path| self.code(path)).collect();
            let number = ConceptId(id(self.tree.concepts.len()));
            let display = concept.display.as_ref().map(|display| display.text.clone());
            let (library, access, at) = (self.library, concept.access, concept.at);
            let name = concept.name.text.clone();
            self.tree.concepts.push(typed::ConceptDefinition { library, name, codes, display, access, at });
            self.name(&concept.name, Declared::Concept(number));
        }
    }

    fn name(&mut self, name: &ast::Name, declared: Declared) {
        if let Some(first) = self.names.get(&name.text) {
            let first = self.place(*first).first(&name.text);
            let fault = Diagnostic::error(format!("`{}` is declared twice", name.text)).at(self.at(name.at)).label(first, "the first one");
            return self.report(fault.help("give one of them another name"));
        }
        self.names.insert(name.text.clone(), declared);
    }

    /// Where a declaration of this library stands.
    fn place(&self, declared: Declared) -> Location {
        let tree = &self.tree;
        let at = match declared {
            Declared::Define(n) => tree.defines.get(n.index()).map(|row| row.at),
            Declared::Parameter(n) => tree.parameters.get(n.index()).map(|row| row.at),
            Declared::CodeSystem(n) => tree.code_systems.get(n.index()).map(|row| row.at),
            Declared::ValueSet(n) => tree.value_sets.get(n.index()).map(|row| row.at),
            Declared::Code(n) => tree.codes.get(n.index()).map(|row| row.at),
            Declared::Concept(n) => tree.concepts.get(n.index()).map(|row| row.at),
        };
        self.at(at.unwrap_or_default())
    }

    /// `context X`: a patient, or all data.
    fn contexts(&mut self) {
        const KNOWN: [&str; 3] = ["Patient", "Unfiltered", "Population"];
        let ast = self.ast;
        for (name, _) in &ast.contexts {
            let text = &*name.text;
            if KNOWN.contains(&text) {
                continue;
            }
            let message = match self.model_class(text) {
                Some(_) => format!("the context `{text}` is not supported: what is evaluated is one patient's data"),
                None => format!("no context `{text}`"),
            };
            let near = nearest(text, KNOWN.into_iter()).map_or_else(|| "write `context Patient`".to_owned(), |near| format!("did you mean `{near}`?"));
            self.error_with_help(name.at, message, Some(near));
            self.broken.extend(["Patient".into(), name.text.clone()]);
        }
    }

    /// Gives every parameter, define and function its id.
    fn declare(&mut self) {
        let ast = self.ast;
        for parameter in &ast.parameters {
            self.parameter(parameter);
        }
        self.patient();
        for define in &ast.defines {
            let number = DefineId(id(self.tree.defines.len()));
            let body = self.unknown(define.body.at);
            let (library, access, at) = (self.library, define.access, define.at);
            let (name, context) = (define.name.text.clone(), define.context);
            self.tree.defines.push(typed::Define { library, name, context, access, body, slots: 0, at });
            self.defines.push((number, Progress::Waiting));
            self.name(&define.name, Declared::Define(number));
        }
        self.declare_functions();
    }

    fn declare_functions(&mut self) {
        let ast = self.ast;
        for function in &ast.functions {
            let number = FunctionId(id(self.tree.functions.len()));
            let operands: Vec<(Arc<str>, Type)> = function.operands.iter().map(|(name, ty)| (name.text.clone(), self.type_of(ty))).collect();
            let result = function.returns.as_ref().map_or(Type::Any, |ty| self.type_of(ty));
            let same = |other: &typed::Function| other.name == function.name.text && other.operands.iter().map(|(_, ty)| ty).eq(operands.iter().map(|(_, ty)| ty));
            if function.body.is_none() && function.returns.is_none() {
                let help = Some("write `returns` and a type before the colon".to_owned());
                self.error_with_help(function.name.at, format!("function `{}` is external and does not say what it returns", function.name.text), help);
            }
            let library = self.library;
            if self.tree.functions.iter().any(|other| other.library == library && same(other)) {
                let types: Vec<Type> = operands.iter().map(|(_, ty)| ty.clone()).collect();
                let message = format!("function `{}{}` is defined twice", function.name.text, overload::written(&types));
                self.error(function.name.at, message);
            }
            let (access, at, fluent) = (function.access, function.at, function.fluent);
            let name = function.name.text.clone();
            let declared = typed::Function { library, name, fluent, operands, result, body: None, slots: 0, access, at };
            self.tree.functions.push(declared);
            self.functions.push((number, Progress::Waiting));
        }
    }

    fn parameter(&mut self, parameter: &ast::Parameter) {
        let declared = parameter.ty.as_ref().map(|ty| self.type_of(ty));
        let default = parameter.default.as_ref().map(|default| self.expression(default));
        let (ty, default) = match (declared, default) {
            (Some(ty), Some(default)) => (ty.clone(), Some(self.converted(default, &ty, "the parameter's default"))),
            (Some(ty), None) => (ty, None),
            (None, Some(default)) => (default.ty.clone(), Some(default)),
            (None, None) => {
                self.error(parameter.name.at, format!("parameter `{}` has neither a type nor a default", parameter.name.text));
                (Type::Any, None)
            }
        };
        let number = ParameterId(id(self.tree.parameters.len()));
        let (library, access, at) = (self.library, parameter.access, parameter.at);
        let name = parameter.name.text.clone();
        self.tree.parameters.push(typed::Parameter { library, name, ty, default, access, at });
        self.name(&parameter.name, Declared::Parameter(number));
    }

    /// The `Patient` that `context Patient` implies.
    fn patient(&mut self) {
        let Some((name, _)) = self.ast.contexts.iter().find(|(name, _)| &*name.text == "Patient") else {
            return;
        };
        let Some((_, model)) = self.models.first().cloned() else {
            return;
        };
        let class = Type::Class(model.patient.clone());
        let resource_type = self.conversions.resource_type(&model.patient);
        let retrieve = typed::Retrieve { class: model.patient.clone(), resource_type, fixed: Vec::new(), code: None, date: None };
        let all = Expression::new(Kind::Retrieve(Box::new(retrieve)), Type::list(class), name.at);
        let body = self.operation("SingletonFrom", vec![all], None, name.at);
        let number = DefineId(id(self.tree.defines.len()));
        let (library, at) = (self.library, name.at);
        let context = EvaluationContext::Patient;
        let access = Access::Private;
        self.tree.defines.push(typed::Define { library, name: "Patient".into(), context, access, body, slots: 0, at });
        self.names.insert("Patient".into(), Declared::Define(number));
    }

    fn bodies(&mut self) {
        for position in 0..self.ast.defines.len() {
            self.define_body(position);
        }
        for position in 0..self.ast.functions.len() {
            self.function_body(position);
        }
    }

    /// Checks a define's body, unless that has been done or is being done.
    fn define_body(&mut self, position: usize) {
        let ast = self.ast;
        let (Some((number, progress)), Some(define)) = (self.defines.get(position).copied(), ast.defines.get(position)) else {
            return;
        };
        if progress != Progress::Waiting {
            return;
        }
        self.defines[position].1 = Progress::Running;
        self.running.push(number);
        let (mut body, slots) = self.in_frame(Frame::default(), |checker| checker.expression(&define.body));
        if body.ty.is_too_large() {
            let message = format!("the type of `{}` has more than {PARTS_MAX} parts", define.name.text);
            self.error_with_help(define.name.at, message, Some("does every definition hold the one before twice? Keep what is needed of it".to_owned()));
            body = self.unknown(define.body.at);
        }
        let declared = &mut self.tree.defines[number.index()];
        (declared.body, declared.slots) = (body, slots);
        self.defines[position].1 = Progress::Done;
        self.running.pop();
    }

    fn function_body(&mut self, position: usize) {
        let ast = self.ast;
        let (Some((number, progress)), Some(function)) = (self.functions.get(position).copied(), ast.functions.get(position)) else {
            return;
        };
        if progress != Progress::Waiting {
            return;
        }
        self.functions[position].1 = Progress::Running;
        let operands = self.tree.functions[number.index()].operands.clone();
        let variables = (0u32..).zip(operands).map(|(slot, (name, ty))| Variable { name, slot: Slot(slot), ty }).collect::<Vec<_>>();
        let frame = Frame { slots: id(variables.len()), variables, ..Frame::default() };
        let returns = function.returns.as_ref().map(|_| self.tree.functions[number.index()].result.clone());
        let Some(text) = &function.body else {
            self.functions[position].1 = Progress::Done;
            return;
        };
        let (body, slots) = self.in_frame(frame, |checker| {
            let body = checker.expression(text);
            match &returns {
                Some(ty) => checker.converted(body, ty, "the function's result"),
                None => body,
            }
        });
        let declared = &mut self.tree.functions[number.index()];
        declared.result = body.ty.clone();
        (declared.body, declared.slots) = (Some(body), slots);
        self.functions[position].1 = Progress::Done;
    }

    fn in_frame(&mut self, frame: Frame, check: impl FnOnce(&mut Self) -> Expression) -> (Expression, u32) {
        let outer = std::mem::replace(&mut self.frame, frame);
        self.chain += 1;
        let body = check(self);
        self.chain -= 1;
        let inner = std::mem::replace(&mut self.frame, outer);
        (body, inner.slots)
    }

    fn slot(&mut self) -> Slot {
        let slot = Slot(self.frame.slots);
        self.frame.slots += 1;
        slot
    }

    /// Adds a variable to the innermost scope.
    fn bind(&mut self, name: &ast::Name, ty: Type) -> Slot {
        if self.frame.variables.iter().any(|variable| variable.name == name.text) {
            self.error(name.at, format!("`{}` is already the name of something here", name.text));
        }
        let slot = self.slot();
        self.frame.variables.push(Variable { name: name.text.clone(), slot, ty });
        slot
    }

    fn step(&mut self, expression: Expression, step: &Step) -> Expression {
        let frame = &mut self.frame;
        apply(expression, step, &mut || {
            let slot = Slot(frame.slots);
            frame.slots += 1;
            slot
        })
    }

    /// The expression as a value of this type, or an error that says what it was needed for.
    fn converted(&mut self, expression: Expression, to: &Type, what: &str) -> Expression {
        match self.conversions.way(&expression.ty, to) {
            Some(way) => self.step(expression, &way.step),
            None => {
                let at = expression.at;
                let own = std::slice::from_ref(&expression.ty);
                if !self.expects_helpers(own) {
                    let help = self.lacks_helpers(own).or_else(|| system_twin(to));
                    self.error_with_help(at, format!("{what} must be of type `{to}`, but this is `{}`", expression.ty), help);
                }
                Expression::null(to.clone(), at)
            }
        }
    }

    /// A code system by its name here or in an included library.
    fn code_system(&mut self, path: &ast::Path) -> Option<CodeSystemId> {
        match self.declared(path)? {
            Declared::CodeSystem(number) => Some(number),
            _ => {
                self.error(path.at, format!("`{}` is not a code system", path.text()));
                None
            }
        }
    }

    fn code(&mut self, path: &ast::Path) -> Option<CodeId> {
        match self.declared(path)? {
            Declared::Code(number) => Some(number),
            _ => {
                self.error(path.at, format!("`{}` is not a code", path.text()));
                None
            }
        }
    }

    /// What a possibly qualified name declares; an error when nothing.
    fn declared(&mut self, path: &ast::Path) -> Option<Declared> {
        let found = match path.parts.as_slice() {
            [name] => self.names.get(&name.text).copied(),
            [library, name] => self.included(&library.text).flatten().and_then(|library| self.declared_in(library, &name.text)),
            _ => None,
        };
        if found.is_none() && !path.last().is_some_and(|name| self.broken.contains(&name.text)) {
            let help = path
                .last()
                .and_then(|name| nearest(&name.text, self.names.keys().map(|key| &**key)))
                .map(|near| format!("did you mean `{near}`?"));
            self.error_with_help(path.at, format!("nothing here is named `{}`", path.text()), help);
        }
        found
    }

    /// The included library of that local name: `Some(None)` if it was included but not found.
    fn included(&self, name: &str) -> Option<Option<LibraryId>> {
        self.includes.iter().find(|(own, _)| &**own == name).map(|(_, library)| *library)
    }

    /// What a name declares in another library, if it is public there.
    fn declared_in(&self, library: LibraryId, name: &str) -> Option<Declared> {
        fn find<T>(items: &[T], test: impl Fn(&T) -> bool) -> Option<u32> {
            items.iter().position(test).map(id)
        }
        let tree = &self.tree;
        let public = |own: LibraryId, text: &Arc<str>, access: Access| own == library && **text == *name && access == Access::Public;
        find(&tree.defines, |d| public(d.library, &d.name, d.access))
            .map(|n| Declared::Define(DefineId(n)))
            .or_else(|| find(&tree.parameters, |p| public(p.library, &p.name, p.access)).map(|n| Declared::Parameter(ParameterId(n))))
            .or_else(|| find(&tree.value_sets, |v| public(v.library, &v.name, v.access)).map(|n| Declared::ValueSet(ValueSetId(n))))
            .or_else(|| find(&tree.codes, |c| public(c.library, &c.name, c.access)).map(|n| Declared::Code(CodeId(n))))
            .or_else(|| find(&tree.concepts, |c| public(c.library, &c.name, c.access)).map(|n| Declared::Concept(ConceptId(n))))
            .or_else(|| find(&tree.code_systems, |c| public(c.library, &c.name, c.access)).map(|n| Declared::CodeSystem(CodeSystemId(n))))
    }

    /// The names that an included library offers, for suggestions.
    fn names_in(&self, library: LibraryId) -> Vec<Arc<str>> {
        let tree = &self.tree;
        let defines = tree.defines.iter().filter(|d| d.library == library && d.access == Access::Public).map(|d| d.name.clone());
        let functions = tree.functions.iter().filter(|f| f.library == library).map(|f| f.name.clone());
        let sets = tree.value_sets.iter().filter(|v| v.library == library).map(|v| v.name.clone());
        let codes = tree.codes.iter().filter(|c| c.library == library).map(|c| c.name.clone());
        defines.chain(functions).chain(sets).chain(codes).collect()
    }

    fn literal(&self, value: Value, ty: Type, at: Span) -> Expression {
        Expression::new(Kind::Literal(value), ty, at)
    }
}

#[cfg(test)]
mod tests;
