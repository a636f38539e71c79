//! From the typed tree to what evaluation needs: what is reachable, constants resolved, class ancestry, and the data
//! requirements with the shape in which records are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::typed::{CodeId, CodeSystemId, ConceptId, Define, DefineId, Function, FunctionId, LibraryId, Parameter, Tree, ValueSetId};
use super::types::Type;
use super::value::{ClassId, Code, Concept, Value, Vocabulary};
use crate::fhir::record::Shape;
use crate::fhir::required;
use crate::terminology::ValueSets;
use crate::terminology::spelling::usual_slip;

mod flow;

/// Stack of the thread that analyses a program; only what is used of it is ever touched. Bytes.
const STACK_BYTES: usize = 256 << 20;

/// What a program needs of one resource type by one filter: a query to a server, a row of the readiness report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// FHIR resource type.
    pub resource_type: String,
    /// The element that the codes are of: `code`, `medication`.
    pub code_path: Option<String>,
    /// Which codes.
    pub codes: Codes,
    /// The element that a date filter is of.
    pub date_path: Option<String>,
    /// JSON paths used of this type, dotted; the last element with all below it; `*` for the whole resource.
    pub paths: BTreeSet<String>,
}

/// What is asked of the resources of one filter, whatever others of their type are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// The filter, with the paths that are used of its resources.
    pub requirement: Requirement,
    /// Where these are compared with texts, and in no other way: with which; `status` with `final` and `amended`.
    pub texts: BTreeMap<String, BTreeSet<String>>,
}

/// A part of a program.
#[derive(Debug, Clone, Copy)]
pub struct Only<'a> {
    /// These definitions, with all that they use.
    pub defines: &'a [DefineId],
    /// These functions, called with whatever they take.
    pub functions: &'a [FunctionId],
}

/// The codes of a requirement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codes {
    /// No restriction, or one that is known at run time only.
    Any,
    /// Members of a value set, by canonical URL (`url|version` when pinned).
    ValueSet(String),
    /// These: (system, code).
    Direct(Vec<(String, String)>),
}

/// What of an instance must be readable, if it is there, for the instance to mean anything.
///
/// FHIR says what each element looks like; hospitals write `2026-04-28 18:12`, `n/a` or `00000000` all the same, `"12 g/dL"` where a
/// Quantity has fields, `"AMB"` where a Coding has, `Final` where the code is `final`. The resource is
/// kept: most of it is sound, and a denominator must not shrink for a value that most measures never ask for. Nor is the value
/// guessed: a day and a month in the wrong order would read just as well. What cannot be read is not known, so the element counts
/// as absent, and the evaluation notes it, by which reports are partial. That is not enough where an absent element
/// has a meaning of its own: a Period without an end goes on until today, one without a start since ever. Who wrote an end that
/// nobody can read, or that is before the start, did not say so. Hence of a Period or Range with such a bound nothing is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Vital {
    /// Nothing: it may be of any kind.
    Nothing,
    /// A scalar of this type.
    Scalar(Type),
    /// A text.
    Text,
    /// One of these codes: FHIR binds the element to them, and to no other.
    Code(&'static [&'static str]),
    /// Fields, whatever they are: what is missing of them has no meaning.
    Fields,
    /// Fields, but not those of a CodeableConcept, which later versions of FHIR have in the place of some Codings.
    Coding,
    /// Fields, and among them its bounds: what lies at these, of this type.
    Bounds([&'static [&'static str]; 2], Type),
}

impl Vital {
    fn of(class: &super::typed::Class) -> Vital {
        match (&*class.name, &class.primitive) {
            (_, Some(ty @ (Type::Boolean | Type::Integer | Type::Long | Type::Decimal | Type::Date | Type::DateTime | Type::Time))) => Vital::Scalar(ty.clone()),
            (name, Some(_)) => required::codes(name).map_or(Vital::Text, Vital::Code),
            ("FHIR.Period", _) => Vital::Bounds([&["start"], &["end"]], Type::DateTime),
            ("FHIR.Range", _) => Vital::Bounds([&["low", "value"], &["high", "value"]], Type::Decimal),
            ("FHIR.Coding", _) => Vital::Coding,
            // What is any of its subclasses may be a scalar.
            ("FHIR.Element" | "FHIR.Resource" | "FHIR.DomainResource", _) => Vital::Nothing,
            (name, _) if name.starts_with("FHIR.") => Vital::Fields,
            _ => Vital::Nothing,
        }
    }
}

/// A compiled program: typed libraries and their plan. Immutable, shared between threads.
#[derive(Debug, Clone)]
pub struct Program {
    tree: Tree,
    roots: Vec<LibraryId>,
    classes: FxHashMap<Arc<str>, ClassId>,
    parents: Vec<Option<ClassId>>,
    /// What is read of an instance before it is believed, by class.
    vital: Vec<Vital>,
    code_systems: Vec<Value>,
    value_sets: Vec<Value>,
    codes: Vec<Value>,
    concepts: Vec<Value>,
    requirements: Vec<Requirement>,
    shape: Shape,
    sought: BTreeMap<String, BTreeSet<Codes>>,
    retrieved: BTreeSet<String>,
    live: BTreeSet<DefineId>,
}

impl Program {
    /// Plans a checked tree. `roots` are the libraries whose public defines and functions are asked for; what they do
    /// not reach is dead and takes no part in requirements and shape.
    pub fn new(tree: Tree, roots: Vec<LibraryId>) -> Program {
        let mut classes: FxHashMap<Arc<str>, ClassId> = (0u32..).zip(&tree.classes).map(|(index, class)| (class.name.clone(), ClassId(index))).collect();
        // A class of a derived model is another name for the class that its instances are of.
        for class in &tree.classes {
            if let Some(id) = class.instance_of.as_ref().and_then(|own| classes.get(own).copied()) {
                classes.insert(class.name.clone(), id);
            }
        }
        let parents = tree.classes.iter().map(|class| class.base.as_ref().and_then(|base| classes.get(base).copied())).collect();
        let codes: Vec<Code> = tree.codes.iter().map(|row| code_of(&tree, row)).collect();
        let concepts = tree
            .concepts
            .iter()
            .map(|row| Concept { codes: row.codes.iter().filter_map(|id| codes.get(id.index()).cloned()).collect(), display: row.display.clone() });
        let code_systems = tree.code_systems.iter().map(|row| vocabulary(&row.id, &row.version, &row.name));
        let value_sets = tree.value_sets.iter().map(|row| vocabulary(&row.id, &row.version, &row.name));
        let mut program = Program {
            code_systems: code_systems.map(Value::CodeSystem).collect(),
            value_sets: value_sets.map(Value::ValueSet).collect(),
            concepts: concepts.map(|concept| Value::Concept(Arc::new(concept))).collect(),
            codes: codes.into_iter().map(|code| Value::Code(Arc::new(code))).collect(),
            vital: tree.classes.iter().map(Vital::of).collect(),
            classes,
            parents,
            requirements: Vec::new(),
            shape: Shape::default(),
            sought: BTreeMap::new(),
            retrieved: BTreeSet::new(),
            live: BTreeSet::new(),
            tree,
            roots,
        };
        let needs = needs_of(&program, None);
        program.requirements = needs.requirements;
        program.shape = needs.shape;
        program.sought = needs.sought;
        program.retrieved = needs.retrieved;
        program.live = needs.live;
        program
    }

    /// The typed libraries.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The libraries asked for.
    pub fn roots(&self) -> &[LibraryId] {
        &self.roots
    }

    /// A define by library and name.
    pub fn define(&self, library: &str, name: &str) -> Option<DefineId> {
        self.tree.define(self.tree.library(library)?, name)
    }

    /// The functions of a library with their names: all overloads, in the order of its text.
    pub fn functions(&self, library: &str) -> Vec<(FunctionId, &str)> {
        let own = Tree::library(&self.tree, library);
        let rows = (0u32..).zip(&self.tree.functions).filter(|(_, Function { library, .. })| Some(*library) == own);
        rows.map(|(index, row)| (FunctionId(index), &*row.name)).collect()
    }

    /// The types that a function takes.
    pub fn operands(&self, function: FunctionId) -> Vec<Type> {
        let row = self.tree.functions.get(function.index());
        row.map(|row| row.operands.iter().map(|(_, ty)| ty.clone()).collect()).unwrap_or_default()
    }

    /// The type that a function gives; `Any` for an id of another program.
    pub fn result(&self, function: FunctionId) -> &Type {
        self.tree.functions.get(function.index()).map_or(&Type::Any, |row| &row.result)
    }

    /// The type of a define; `Any` for an id of another program.
    pub fn define_type(&self, define: DefineId) -> &Type {
        self.tree.defines.get(define.index()).map_or(&Type::Any, |row| &row.body.ty)
    }

    /// The name of a define.
    pub fn define_name(&self, define: DefineId) -> &str {
        self.tree.defines.get(define.index()).map_or("", |row| &row.name)
    }

    /// The defines of a library, in the order of its text.
    pub fn defines(&self, library: &str) -> Vec<(DefineId, &str)> {
        let Some(library) = self.tree.library(library) else { return Vec::new() };
        let rows = (0u32..).zip(&self.tree.defines).filter(|(_, row)| row.library == library);
        rows.map(|(index, row)| (DefineId(index), &*row.name)).collect()
    }

    /// The defines of a library that the roots reach.
    pub fn defines_of(&self, library: LibraryId) -> impl Iterator<Item = &Define> {
        let rows = (0u32..).zip(&self.tree.defines).filter(move |(_, row)| row.library == library);
        rows.filter(|(index, _)| self.is_live(DefineId(*index))).map(|(_, row)| row)
    }

    /// Every define that the roots reach, with its name.
    pub fn live_defines(&self) -> impl Iterator<Item = (DefineId, &str)> {
        let rows = (0u32..).zip(&self.tree.defines).map(|(index, row)| (DefineId(index), &*row.name));
        rows.filter(|(define, _)| self.is_live(*define))
    }

    /// All parameters: library, name, type, default.
    pub fn parameters(&self) -> &[Parameter] {
        &self.tree.parameters
    }

    /// Whether a define is reached from the roots.
    pub fn is_live(&self, define: DefineId) -> bool {
        self.live.contains(&define)
    }

    /// What data the program needs, by resource type and filter; sorted, each once.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The same by each filter, with what is asked of the resources of that one.
    pub fn askings(&self) -> Vec<Asking> {
        on_deep_stack(|| flow::askings(self)).unwrap_or_default()
    }

    /// The resource types that some definitions need; `None` if that cannot be told.
    pub fn types_of(&self, defines: &[DefineId]) -> Option<BTreeSet<String>> {
        let shape = self.shape_of(Only { defines, functions: &[] });
        (!shape.everything).then(|| shape.types.into_keys().collect())
    }

    /// What some definitions and functions read.
    pub fn shape_of(&self, only: Only<'_>) -> Shape {
        needs_of(self, Some(only)).shape
    }

    /// What to keep of each resource while reading.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The resource types that it asks for by themselves; what of others it reads, as a Medication, is reached by reference.
    pub fn retrieved(&self) -> &BTreeSet<String> {
        &self.retrieved
    }

    /// The same with sieves: of types that are only asked for by code, lines without any of the codes are not read. Not for
    /// data whose codes are yet to be translated.
    pub fn sifted_shape(&self, value_sets: &ValueSets) -> Shape {
        let mut shape = self.shape.clone();
        for (resource_type, sought) in &self.sought {
            let texts = sought.iter().map(|codes| match codes {
                Codes::Any => None,
                Codes::Direct(codes) => Some(codes.iter().map(|(_, code)| code.clone()).collect::<Vec<_>>()),
                Codes::ValueSet(url) => Some(value_sets.get(url)?.members().map(|member| member.code.to_string()).collect()),
            });
            if let Some(texts) = texts.collect::<Option<Vec<_>>>() {
                let codes: BTreeSet<String> = texts.into_iter().flatten().collect();
                // What is meant and written otherwise is read too, and told.
                let slips: Vec<String> = codes.iter().filter_map(|code| usual_slip(code)).collect();
                shape.sift(resource_type, codes.into_iter().chain(slips).collect());
            }
        }
        shape
    }

    pub(super) fn code_system(&self, id: CodeSystemId) -> Value {
        self.code_systems.get(id.index()).cloned().unwrap_or_default()
    }

    pub(super) fn value_set(&self, id: ValueSetId) -> Value {
        self.value_sets.get(id.index()).cloned().unwrap_or_default()
    }

    pub(super) fn code(&self, id: CodeId) -> Value {
        self.codes.get(id.index()).cloned().unwrap_or_default()
    }

    pub(super) fn concept(&self, id: ConceptId) -> Value {
        self.concepts.get(id.index()).cloned().unwrap_or_default()
    }

    /// The id of a class by its qualified name.
    pub fn class_id(&self, name: &str) -> Option<ClassId> {
        self.classes.get(name).copied()
    }

    /// What of an instance of a class must be readable.
    pub(super) fn vital(&self, class: ClassId) -> &Vital {
        self.vital.get(class.0 as usize).unwrap_or(&Vital::Nothing)
    }

    /// The qualified name of a class.
    pub fn class_name(&self, class: ClassId) -> Option<&str> {
        self.tree.classes.get(class.0 as usize).map(|class| &*class.name)
    }

    /// The resource types of the model, as `Encounter`; none for a program without a model.
    pub fn resource_types(&self) -> impl Iterator<Item = &str> {
        const ROOTS: [&str; 2] = ["FHIR.DomainResource", "FHIR.Resource"];
        let resources = self.tree.classes.iter().filter(|class| class.base.as_deref().is_some_and(|base| ROOTS.contains(&base)));
        resources.filter_map(|class| class.name.strip_prefix("FHIR."))
    }

    /// Whether a class is `name` or one of its subclasses.
    pub fn is_subclass(&self, class: ClassId, name: &str) -> bool {
        let Some(wanted) = self.class_id(name) else { return false };
        let mut current = Some(class);
        // A cycle in a model description must not hang: no chain is longer than the table.
        for _ in 0..=self.parents.len() {
            let Some(class) = current else { return false };
            if class == wanted {
                return true;
            }
            current = self.parents.get(class.0 as usize).copied().flatten();
        }
        false
    }
}

/// What a program needs. Without a thread to find it the answer is the safe one: everything is read.
fn needs_of(program: &Program, only: Option<Only<'_>>) -> flow::Needs {
    on_deep_stack(|| flow::needs(program, only)).unwrap_or_else(|| flow::Needs {
        requirements: Vec::new(),
        shape: Shape::everything(),
        sought: BTreeMap::new(),
        retrieved: BTreeSet::new(),
        live: (0u32..).zip(&program.tree.defines).map(|(index, _)| DefineId(index)).collect(),
    })
}

/// Follows the data flow on a thread whose stack fits the deepest chain of calls through the deepest bodies; `None` without a thread.
fn on_deep_stack<T: Send>(follow: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, follow).ok().and_then(|thread| thread.join().ok())
    })
}

fn vocabulary(id: &Arc<str>, version: &Option<Arc<str>>, name: &Arc<str>) -> Arc<Vocabulary> {
    Arc::new(Vocabulary { id: id.clone(), version: version.clone(), name: Some(name.clone()) })
}

fn code_of(tree: &Tree, row: &super::typed::CodeDefinition) -> Code {
    let system = tree.code_systems.get(row.system.index());
    Code {
        code: row.code.clone(),
        system: system.map(|system| system.id.clone()),
        version: system.and_then(|system| system.version.clone()),
        display: row.display.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Libraries, Models, compile};
    use crate::diagnostic::SourceFile;

    /// With which texts the status of observations is compared, by the code that is asked for.
    fn asked(definitions: &str) -> Vec<String> {
        let text = format!(
            "library T version '1'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1'\ncodesystem \"L\": 'http://loinc.org'\n\
             code \"A\": 'a' from \"L\"\ncode \"B\": 'b' from \"L\"\ncontext Patient\n\
             define private function \"Is Final\"(one FHIR.Observation): one.status = 'final'\n{definitions}\n"
        );
        let (program, found) = compile(&[SourceFile::new("t.cql", text)], &Libraries::default(), &Models::default());
        let askings = program.unwrap_or_else(|| panic!("{found:?}")).askings();
        let line = |asking: &super::Asking| format!("{:?} {:?}", asking.requirement.codes, asking.texts.get("status"));
        askings
            .iter()
            .filter(|asking| asking.requirement.resource_type == "Observation")
            .map(line)
            .map(|line| line.replace("Direct([(\"http://loinc.org\", ", "").replace(")])", ""))
            .collect()
    }

    #[test]
    fn texts_that_are_asked_of_the_resources_of_one_filter_are_known_apart_from_others() {
        for (condition, expected) in [
            ("O.status.value = 'final'", "Some({\"final\"})"),
            ("O.status in { 'final', 'amended' } and O.value is not null", "Some({\"amended\", \"final\"})"),
            ("(O.status = 'final' or O.status ~ 'amended')", "Some({\"amended\", \"final\"})"),
            ("\"Is Final\"(O)", "Some({\"final\"})"),
            ("not \"Is Final\"(O)", "None"),
            ("O.status != 'entered-in-error'", "None"),
            ("not (O.status = 'entered-in-error')", "None"),
            ("(if O.status = 'preliminary' then false else true)", "None"),
            ("O.status is not null", "None"),
        ] {
            let found = asked(&format!("define D: not exists ([Observation: \"A\"] O where {condition})\ndefine E: exists [Observation: \"B\"]"));
            assert_eq!(found, [format!("\"a\" {expected}"), "\"b\" None".to_owned()], "{condition}");
        }
    }
}
