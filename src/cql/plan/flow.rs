//! Which paths of which resources a program uses: abstract evaluation over *where a value can come from*.
//!
//! Every expression yields a [`Flow`]: the places of the records its value may be taken from. A property moves to a
//! field of those places; an operator that looks inside its operands keeps them whole; whatever the analysis does not
//! follow keeps the element whole. So the shape is never too small.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Asking, Codes, Only, Program, Requirement, Vital};
use crate::cql::typed::{Access, Alternative, CodeFilter, Comparator, DefineId, Element, Expression, Function, FunctionId, Kind, Query, Repeat, Retrieve, Slot, Source};
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::fhir::record::{Keep, Shape};

/// Deepest chain of calls that is followed; beyond it operands are kept whole.
const CALLS_MAX: usize = 24;
/// Deepest path into a resource; beyond it the element is kept whole (recursive elements such as `item.item`).
const PATH_MAX: usize = 12;
/// Most bodies analysed; beyond it operands are kept whole.
const BODIES_MAX: usize = 20_000;

/// Operators that hand on (elements of) their operands without looking inside.
const PASSING: &[&str] = &["First", "Last", "SingletonFrom", "Flatten", "ToList", "Indexer", "Skip", "Tail", "Take", "Slice", "Start", "End", "PointFrom"];
/// Operators that need no more than whether something is there.
const PRESENCE: &[&str] = &["Exists", "Count", "IsNull", "Length"];
/// Operators that hand on elements and compare them for equality: resources by id, others whole.
const SETS: &[&str] = &["Union", "Intersect", "Except", "Distinct"];
/// Operators by which a text is one of those that are asked for.
const ASKING: &[&str] = &["Equal", "Equivalent", "In", "Contains"];
/// Operators that compare for equality only.
const EQUALITY: &[&str] = &["Equal", "NotEqual", "In", "Contains", "IncludedIn", "Includes", "IndexOf"];

/// A place in the records: resource type and path of JSON fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    resource_type: Arc<str>,
    path: Vec<Arc<str>>,
}

impl Place {
    /// The shape's entry, made if missing: presence is kept.
    fn kept<'s>(&self, shape: &'s mut Shape) -> &'s mut Keep {
        let mut keep = shape.types.entry(self.resource_type.to_string()).or_default();
        for name in &self.path {
            match keep {
                Keep::All => return keep,
                Keep::Fields(fields) => keep = fields.get_or_insert(name),
            }
        }
        keep
    }

    fn below(&self, name: &str) -> Place {
        Place { path: self.path.iter().cloned().chain([name.into()]).collect(), ..self.clone() }
    }
}

/// Where a value may come from; for tuples and instances by element.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    places: BTreeSet<Place>,
    elements: BTreeMap<Arc<str>, Flow>,
}

impl Flow {
    fn merge(mut self, other: Flow) -> Flow {
        self.places.extend(other.places);
        for (name, flow) in other.elements {
            let own = self.elements.remove(&name).unwrap_or_default();
            self.elements.insert(name, own.merge(flow));
        }
        self
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.elements.is_empty()
    }
}

/// The analysis' result.
pub(super) struct Needs {
    pub requirements: Vec<Requirement>,
    pub shape: Shape,
    pub live: BTreeSet<DefineId>,
    /// Types of which every retrieve asks for codes that are known without a patient, with these.
    pub sought: BTreeMap<String, BTreeSet<Codes>>,
    /// Types that retrieves ask for.
    pub retrieved: BTreeSet<String>,
}

/// What the roots need, or only some definitions and functions.
pub(super) fn needs(program: &Program, only: Option<Only<'_>>) -> Needs {
    let mut analysis = Analysis::new(program, None);
    match only {
        None => analysis.roots(),
        Some(only) => analysis.some(only),
    }
    let live = analysis.defines.keys().copied().collect();
    let mut shape = analysis.shape;
    let requirements = analysis.filters.into_iter().map(|filter| {
        let mut paths = BTreeSet::new();
        if let Some(keep) = shape.types.get(&filter.resource_type) {
            list_paths(keep, "", &mut paths);
        }
        Requirement { paths, ..filter }
    });
    let requirements = requirements.collect();
    for place in &analysis.odd {
        place.kept(&mut shape);
    }
    let sought = analysis.sought.into_iter().filter_map(|(name, codes)| Some((name, codes?))).collect();
    Needs { requirements, shape, live, sought, retrieved: analysis.retrieved }
}

/// What is asked of the resources of each filter, apart from others of the same type.
pub(super) fn askings(program: &Program) -> Vec<Asking> {
    let mut analysis = Analysis::new(program, Some(Apart::default()));
    analysis.roots();
    let (shape, apart) = (analysis.shape, analysis.apart.unwrap_or_default());
    let asking = |(number, filter): (usize, &Requirement)| {
        let name = Apart::name(number, filter);
        let mut paths = BTreeSet::new();
        shape.types.get(&*name).into_iter().for_each(|keep| list_paths(keep, "", &mut paths));
        let is_loose = |place: &Place| apart.loose.iter().any(|loose| loose.resource_type == place.resource_type && place.path.starts_with(&loose.path));
        let own = apart.texts.iter().filter(|(place, _)| place.resource_type == name && !is_loose(place));
        let texts = own.map(|(place, texts)| (place.path.join("."), texts.clone())).collect();
        Asking { requirement: Requirement { paths, ..filter.clone() }, texts }
    };
    apart.filters.iter().enumerate().map(asking).collect()
}

fn list_paths(keep: &Keep, before: &str, paths: &mut BTreeSet<String>) {
    match keep {
        Keep::All => {
            paths.insert(if before.is_empty() { "*".to_owned() } else { before.to_owned() });
        }
        Keep::Fields(fields) if fields.is_empty() => {
            if !before.is_empty() {
                paths.insert(before.to_owned());
            }
        }
        Keep::Fields(fields) => {
            for (name, keep) in fields.iter() {
                let path = if before.is_empty() { name.to_owned() } else { format!("{before}.{name}") };
                list_paths(keep, &path, paths);
            }
        }
    }
}

struct Analysis<'a> {
    program: &'a Program,
    shape: Shape,
    filters: BTreeSet<Requirement>,
    sought: BTreeMap<String, Option<BTreeSet<Codes>>>,
    retrieved: BTreeSet<String>,
    defines: BTreeMap<DefineId, Flow>,
    calls: BTreeMap<(FunctionId, Vec<Flow>), Flow>,
    /// What other versions of FHIR have in the place of what is used: read so that it is noticed, and never asked for.
    odd: BTreeSet<Place>,
    depth: usize,
    bodies: usize,
    /// Where each filter's resources are looked at apart.
    apart: Option<Apart>,
}

/// What is asked of each filter's resources.
#[derive(Default)]
struct Apart {
    /// The filters, in the order in which they were met; the places of each are under a name of its own.
    filters: Vec<Requirement>,
    /// Where a value is compared with texts: with which.
    texts: BTreeMap<Place, BTreeSet<String>>,
    /// Where it, or anything below, is asked for in another way too.
    loose: BTreeSet<Place>,
    /// Whether what is asked for is denied, or decides between two.
    is_denied: bool,
}

impl Apart {
    fn name(number: usize, filter: &Requirement) -> Arc<str> {
        format!("{}#{number}", filter.resource_type).into()
    }

    fn name_of(&mut self, filter: &Requirement) -> Arc<str> {
        let number = self.filters.iter().position(|known| known == filter).unwrap_or(self.filters.len());
        if number == self.filters.len() {
            self.filters.push(filter.clone());
        }
        Apart::name(number, filter)
    }
}

type Slots = BTreeMap<Slot, Flow>;

impl<'a> Analysis<'a> {
    fn new(program: &'a Program, apart: Option<Apart>) -> Analysis<'a> {
        Analysis {
            program,
            shape: Shape::default(),
            filters: BTreeSet::new(),
            sought: BTreeMap::new(),
            retrieved: BTreeSet::new(),
            defines: BTreeMap::new(),
            calls: BTreeMap::new(),
            odd: BTreeSet::new(),
            depth: 0,
            bodies: 0,
            apart,
        }
    }

    /// Follows something of which it is denied, or not, that it must be so.
    fn denied<T>(&mut self, is_denied: bool, follow: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.apart.as_mut().map(|apart| std::mem::replace(&mut apart.is_denied, is_denied));
        let found = follow(self);
        self.apart.iter_mut().zip(before).for_each(|(apart, before)| apart.is_denied = before);
        found
    }

    /// Two sides that are compared: with which texts values of the record are.
    fn compared(&mut self, name: &str, operands: &'a [Expression], flows: &[Flow]) {
        let ([left, right], [of_left, of_right], Some(_)) = (operands, flows, &self.apart) else { return };
        for (flow, other) in [(of_left, right), (of_right, left)] {
            let texts = self.texts(other);
            let Some(apart) = self.apart.as_mut() else { return };
            match texts.filter(|_| ASKING.contains(&name) && !apart.is_denied) {
                Some(texts) => flow.places.iter().for_each(|place| apart.texts.entry(place.clone()).or_default().extend(texts.clone())),
                None => apart.loose.extend(flow.places.iter().cloned()),
            }
        }
    }

    /// The texts that an expression is, or a list of them.
    fn texts(&self, expression: &Expression) -> Option<BTreeSet<String>> {
        match &expression.kind {
            Kind::Literal(Value::String(text)) => Some(BTreeSet::from([text.to_string()])),
            Kind::List(items) => items.iter().map(|item| self.texts(item)).collect::<Option<Vec<_>>>().map(|all| all.into_iter().flatten().collect()),
            Kind::As { operand, .. } => self.texts(operand),
            Kind::Define(id) => self.program.tree().defines.get(id.index()).and_then(|define| self.texts(&define.body)),
            _ => None,
        }
    }

    fn roots(&mut self) {
        let tree = self.program.tree();
        for (index, define) in (0u32..).zip(&tree.defines) {
            if self.program.roots.contains(&define.library) {
                let flow = self.define(DefineId(index));
                self.identify(&flow);
            }
        }
        let is_public = |Function { library, access, .. }: &&Function| self.program.roots.contains(library) && *access != Access::Private;
        for function in tree.functions.iter().filter(is_public) {
            self.call_from_outside(function);
        }
        self.parameters();
    }

    fn some(&mut self, only: Only<'_>) {
        for define in only.defines {
            let flow = self.define(*define);
            self.identify(&flow);
        }
        let functions = &self.program.tree().functions;
        only.functions.iter().filter_map(|id| functions.get(id.index())).for_each(|function| self.call_from_outside(function));
        self.parameters();
    }

    /// A function called from outside with resources of its operand types.
    fn call_from_outside(&mut self, function: &'a Function) {
        let Some(body) = &function.body else { return };
        let slots = (0u32..).zip(&function.operands).map(|(slot, (_, ty))| (Slot(slot), self.any_of(ty)));
        let mut slots: Slots = slots.collect();
        let flow = self.flow(body, &mut slots);
        self.keep(&flow);
    }

    fn parameters(&mut self) {
        for parameter in &self.program.tree().parameters {
            if let Some(default) = &parameter.default {
                self.flow(default, &mut Slots::new());
            }
        }
    }

    /// Any resource of a declared type.
    fn any_of(&self, ty: &Type) -> Flow {
        match ty {
            Type::List(item) => self.any_of(item),
            Type::Choice(types) => types.iter().map(|ty| self.any_of(ty)).fold(Flow::default(), Flow::merge),
            Type::Class(class) => {
                let instance = self.program.class_id(class).and_then(|id| self.program.class_name(id)).unwrap_or(class);
                let name = instance.rsplit('.').next().unwrap_or_default();
                // Resource types are known by the retrieves of the program and by the model's classes.
                let is_resource = self.program.class_id(class).is_some_and(|id| {
                    ["Resource", "DomainResource"].iter().any(|base| {
                        let model = instance.split('.').next().unwrap_or_default();
                        self.program.is_subclass(id, &format!("{model}.{base}"))
                    })
                });
                let mut flow = Flow::default();
                if is_resource {
                    flow.places.insert(Place { resource_type: name.into(), path: Vec::new() });
                }
                flow
            }
            _ => Flow::default(),
        }
    }

    fn define(&mut self, id: DefineId) -> Flow {
        if let Some(flow) = self.defines.get(&id) {
            return flow.clone();
        }
        self.defines.insert(id, Flow::default());
        let Some(row) = self.program.tree().defines.get(id.index()) else { return Flow::default() };
        let flow = self.denied(false, |analysis| analysis.flow(&row.body, &mut Slots::new()));
        self.defines.insert(id, flow.clone());
        flow
    }

    fn is_denied(&self) -> bool {
        self.apart.as_ref().is_some_and(|apart| apart.is_denied)
    }

    fn call(&mut self, function: FunctionId, operands: Vec<Flow>) -> Flow {
        if let Some(apart) = self.apart.as_mut().filter(|apart| apart.is_denied) {
            apart.loose.extend(operands.iter().flat_map(|flow| flow.places.iter().cloned()));
        }
        if let Some(flow) = self.calls.get(&(function, operands.clone())) {
            return flow.clone();
        }
        let Some(row) = self.program.tree().functions.get(function.index()) else { return Flow::default() };
        let too_deep = self.depth >= CALLS_MAX || self.bodies >= BODIES_MAX;
        let (Some(body), false) = (&row.body, too_deep) else {
            for operand in &operands {
                self.keep(operand);
            }
            return operands.into_iter().fold(Flow::default(), Flow::merge);
        };
        let mut slots: Slots = (0u32..).map(Slot).zip(operands.iter().cloned()).collect();
        self.depth += 1;
        self.bodies += 1;
        let flow = self.flow(body, &mut slots);
        self.depth -= 1;
        self.calls.insert((function, operands), flow.clone());
        flow
    }

    /// Keeps everything at these places.
    fn keep(&mut self, flow: &Flow) {
        for place in &flow.places {
            *self.place(place) = Keep::All;
        }
        for element in flow.elements.values() {
            self.keep(element);
        }
    }

    /// Keeps enough to tell resources apart (their id is always kept), and anything else whole.
    fn identify(&mut self, flow: &Flow) {
        for place in &flow.places {
            let keep = self.place(place);
            if !place.path.is_empty() {
                *keep = Keep::All;
            }
        }
        for element in flow.elements.values() {
            self.identify(element);
        }
    }

    fn place(&mut self, place: &Place) -> &mut Keep {
        place.kept(&mut self.shape)
    }

    fn property(&mut self, source: Flow, element: &Element) -> Flow {
        let mut result = source.elements.get(&element.name).cloned().unwrap_or_default();
        for place in source.places {
            let rows: Vec<(&Arc<str>, Option<&Type>)> = match element.alternatives.as_slice() {
                [] => vec![(&element.name, None)],
                rows => rows.iter().map(|row| (&row.field, Some(&row.ty))).collect(),
            };
            self.odd.extend(element.choice().map(|name| place.below(name)));
            for (field, ty) in rows {
                let mut next = place.clone();
                if !field.is_empty() {
                    next.path.push(field.clone());
                }
                let scalar = field.is_empty();
                let keep = self.place(&next);
                if scalar || next.path.len() >= PATH_MAX {
                    *keep = Keep::All;
                }
                self.believe(&next, ty);
                // The scalar of an element is what is compared.
                if !scalar || self.apart.is_some() {
                    result.places.insert(next);
                }
            }
        }
        result
    }

    /// Keeps what must be readable of an element, whatever is asked of it.
    fn believe(&mut self, place: &Place, ty: Option<&Type>) {
        let Some(class) = ty.and_then(|ty| if let Type::Class(class) = ty { self.program.class_id(class) } else { None }) else { return };
        let bounds = match self.program.vital(class) {
            Vital::Bounds(bounds, _) => bounds,
            Vital::Coding => {
                self.odd.insert(place.below("coding"));
                return;
            }
            _ => return,
        };
        for bound in bounds {
            let path = place.path.iter().cloned().chain(bound.iter().map(|name| Arc::from(*name))).collect();
            self.place(&Place { path, ..place.clone() });
        }
    }

    fn all(&mut self, expressions: &'a [Expression], slots: &mut Slots) -> Vec<Flow> {
        expressions.iter().map(|expression| self.flow(expression, slots)).collect()
    }

    fn merged(&mut self, expressions: &'a [Expression], slots: &mut Slots) -> Flow {
        self.all(expressions, slots).into_iter().fold(Flow::default(), Flow::merge)
    }

    fn flow(&mut self, expression: &'a Expression, slots: &mut Slots) -> Flow {
        match &expression.kind {
            Kind::Literal(_) | Kind::Parameter(_) | Kind::CodeSystem(_) | Kind::ValueSet(_) | Kind::Code(_) | Kind::Concept(_) => Flow::default(),
            Kind::Slot(slot) => slots.get(slot).cloned().unwrap_or_default(),
            Kind::Define(id) => self.define(*id),
            Kind::Operator { operator, operands, .. } => self.operator(operator.name, operands, slots),
            Kind::Call { function, operands } => {
                let operands = self.all(operands, slots);
                self.call(*function, operands)
            }
            Kind::And(pair) | Kind::Or(pair) | Kind::Implies(pair) => {
                let may_deny = matches!(expression.kind, Kind::Implies(_)) || self.is_denied();
                let flow = self.denied(may_deny, |analysis| analysis.merged(pair.as_slice(), slots));
                self.keep(&flow);
                Flow::default()
            }
            Kind::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                let condition = self.denied(true, |analysis| analysis.flow(condition, slots));
                self.keep(&condition);
                self.flow(then, slots).merge(self.flow(otherwise, slots))
            }
            Kind::Case { comparand, items, otherwise } => self.case(comparand.as_deref(), items, otherwise, slots),
            Kind::Coalesce(operands) | Kind::List(operands) => self.merged(operands, slots),
            Kind::As { operand, .. } => self.flow(operand, slots),
            Kind::Is { operand, .. } => {
                self.flow(operand, slots);
                Flow::default()
            }
            Kind::Tuple(elements) | Kind::Instance { elements, .. } => {
                let mut result = Flow::default();
                for (name, expression) in elements {
                    let flow = self.flow(expression, slots);
                    if !flow.is_empty() {
                        result.elements.insert(name.clone(), flow);
                    }
                }
                result
            }
            Kind::Interval(parts) => {
                for part in [&parts.low, &parts.low_closed, &parts.high, &parts.high_closed] {
                    let flow = self.flow(part, slots);
                    self.keep(&flow);
                }
                Flow::default()
            }
            Kind::Property { source, element } => {
                let source = self.flow(source, slots);
                self.property(source, element)
            }
            Kind::Retrieve(retrieve) => self.retrieve(retrieve, slots),
            Kind::Query(query) => self.query(query, slots),
            Kind::Repeat(repeat) => self.repeat(repeat, slots),
            Kind::Message(parts) => {
                let [source, rest @ ..] = &**parts;
                for part in rest {
                    let flow = self.flow(part, slots);
                    self.keep(&flow);
                }
                self.flow(source, slots)
            }
        }
    }

    fn operator(&mut self, name: &str, operands: &'a [Expression], slots: &mut Slots) -> Flow {
        let may_deny = name == "Not" || self.is_denied();
        let flows = self.denied(may_deny, |analysis| analysis.all(operands, slots));
        if ASKING.contains(&name) || ["NotEqual", "NotEquivalent"].contains(&name) {
            self.compared(name, operands, &flows);
        }
        let merged = flows.into_iter().fold(Flow::default(), Flow::merge);
        if PASSING.contains(&name) {
            return merged;
        }
        if PRESENCE.contains(&name) {
            return Flow::default();
        }
        if SETS.contains(&name) {
            self.identify(&merged);
            return merged;
        }
        if EQUALITY.contains(&name) {
            self.identify(&merged);
            return Flow::default();
        }
        // Looks inside; and what it returns may be part of an operand, which is whole now.
        self.keep(&merged);
        merged
    }

    fn case(&mut self, comparand: Option<&'a Expression>, items: &'a [(Expression, Expression)], otherwise: &'a Expression, slots: &mut Slots) -> Flow {
        for condition in comparand.into_iter().chain(items.iter().map(|(when, _)| when)) {
            let flow = self.denied(true, |analysis| analysis.flow(condition, slots));
            self.keep(&flow);
        }
        let results = items.iter().map(|(_, then)| then).chain([otherwise]);
        results.fold(Flow::default(), |all, result| all.merge(self.flow(result, slots)))
    }

    fn source(&mut self, source: &'a Source, slots: &mut Slots) -> Flow {
        let flow = self.flow(&source.expression, slots);
        slots.insert(source.slot, flow.clone());
        flow
    }

    /// That there is no row is another thing than that a row is none.
    fn query(&mut self, query: &'a Query, slots: &mut Slots) -> Flow {
        self.denied(false, |analysis| analysis.clauses(query, slots))
    }

    fn clauses(&mut self, query: &'a Query, slots: &mut Slots) -> Flow {
        let mut rows = Vec::new();
        for source in &query.sources {
            rows.push((source.name.clone(), self.source(source, slots)));
        }
        for variable in &query.lets {
            let flow = self.flow(&variable.expression, slots);
            slots.insert(variable.slot, flow);
        }
        for relationship in &query.relationships {
            self.source(&relationship.source, slots);
            let flow = self.flow(&relationship.such_that, slots);
            self.keep(&flow);
        }
        if let Some(condition) = &query.condition {
            let flow = self.flow(condition, slots);
            self.keep(&flow);
        }
        if let Some(aggregate) = &query.aggregate {
            let start = self.flow(&aggregate.starting, slots);
            slots.insert(aggregate.slot, start.clone());
            let next = self.flow(&aggregate.expression, slots).merge(start);
            // The next row sees what this row made.
            slots.insert(aggregate.slot, next.clone());
            self.keep(&next);
            return self.flow(&aggregate.expression, slots).merge(next);
        }
        let result = match (&query.returning, rows.len()) {
            (Some(returning), _) => {
                let flow = self.flow(&returning.expression, slots);
                if returning.distinct {
                    self.identify(&flow);
                }
                flow
            }
            (None, 1) => rows.into_iter().map(|(_, flow)| flow).fold(Flow::default(), Flow::merge),
            (None, _) => Flow { places: BTreeSet::new(), elements: rows.into_iter().collect() },
        };
        if let Some(sort) = &query.sort {
            slots.insert(sort.slot, result.clone());
            for key in &sort.keys {
                let flow = self.flow(&key.expression, slots);
                self.keep(&flow);
            }
        }
        result
    }

    /// What the element expression makes of the results, again until that adds no place; as deep as paths are followed.
    fn repeat(&mut self, repeat: &'a Repeat, slots: &mut Slots) -> Flow {
        let mut all = self.source(&repeat.source, slots);
        let mut found = Flow::default();
        for _ in 0..=PATH_MAX {
            slots.insert(repeat.source.slot, all.clone());
            found = self.flow(&repeat.element, slots);
            let next = all.clone().merge(found.clone());
            if next == all {
                break;
            }
            all = next;
        }
        self.identify(&found);
        found
    }

    fn retrieve(&mut self, retrieve: &'a Retrieve, slots: &mut Slots) -> Flow {
        // Whose code is a value set as such - none of it was done - has none of its codes.
        let is_named = |filter: &CodeFilter| filter.comparator == Comparator::Equivalent && filter.codes.ty == Type::ValueSet;
        let codes = retrieve.code.as_ref().filter(|filter| !is_named(filter)).map_or(Codes::Any, |filter| self.codes(&filter.codes));
        let asked = Requirement {
            resource_type: retrieve.resource_type.to_string(),
            code_path: retrieve.code.as_ref().map(|CodeFilter { path, .. }| dotted(path)),
            codes: codes.clone(),
            date_path: retrieve.date.as_ref().map(|filter| dotted(&filter.path)),
            paths: BTreeSet::new(),
        };
        let name = self.apart.as_mut().map_or_else(|| retrieve.resource_type.clone(), |apart| apart.name_of(&asked));
        let root = Place { resource_type: name, path: Vec::new() };
        let mut flow = Flow::default();
        flow.places.insert(root.clone());
        self.place(&root);
        self.retrieved.insert(retrieve.resource_type.to_string());
        for fixed in &retrieve.fixed {
            if !fixed.path.is_empty() {
                self.keep_path(&flow, &fixed.path);
            }
            let claim = Place { path: vec!["meta".into(), "profile".into()], ..root.clone() };
            *self.place(&claim) = Keep::All;
        }
        if let Some(filter) = &retrieve.code {
            self.keep_path(&flow, &filter.path);
            let inner = self.flow(&filter.codes, slots);
            self.keep(&inner);
            if filter.through_reference {
                self.medications(&retrieve.resource_type, &filter.path, &codes);
            }
        }
        if let Some(filter) = &retrieve.date {
            self.keep_path(&flow, &filter.path);
            let inner = self.flow(&filter.range, slots);
            self.keep(&inner);
        }
        let refers = |row: &Alternative| row.field.ends_with("Reference") || matches!(&row.ty, Type::Class(class) if class.ends_with(".Reference"));
        let is_direct = retrieve.code.as_ref().is_some_and(|filter| !filter.path.iter().flat_map(|element| &element.alternatives).any(refers));
        self.seek(&retrieve.resource_type, (is_direct && codes != Codes::Any).then_some(codes));
        self.filters.insert(asked);
        flow
    }

    /// Notes the codes by which a retrieve asks for a type; `None` when others matter too.
    fn seek(&mut self, resource_type: &str, codes: Option<Codes>) {
        let sought = self.sought.entry(resource_type.to_owned()).or_insert_with(|| Some(BTreeSet::new()));
        match (sought.as_mut(), codes) {
            (Some(sought), Some(codes)) => {
                sought.insert(codes);
            }
            _ => *sought = None,
        }
    }

    /// `medication[x]` may refer to a Medication, contained or not, whose code then counts.
    fn medications(&mut self, resource_type: &Arc<str>, path: &[Element], codes: &Codes) {
        let [element] = path else { return };
        if !element.alternatives.iter().any(|row| &*row.field == "medicationReference") {
            return;
        }
        let contained = Place { resource_type: resource_type.clone(), path: vec!["contained".into()] };
        let code = Place { resource_type: "Medication".into(), path: vec!["code".into()] };
        *self.place(&contained) = Keep::All;
        *self.place(&code) = Keep::All;
        self.seek("Medication", None);
        let paths = BTreeSet::new();
        self.filters
            .insert(Requirement { resource_type: "Medication".into(), code_path: Some("code".into()), codes: codes.clone(), date_path: None, paths });
    }

    fn keep_path(&mut self, from: &Flow, path: &[Element]) {
        let end = path.iter().fold(from.clone(), |flow, element| self.property(flow, element));
        self.keep(&end);
    }

    /// The codes of a filter, as far as they are known without a patient.
    fn codes(&self, expression: &Expression) -> Codes {
        let mut direct = Vec::new();
        match &expression.kind {
            Kind::ValueSet(id) => match self.program.tree().value_sets.get(id.index()) {
                Some(row) => {
                    let version = row.version.as_ref().map(|version| format!("|{version}")).unwrap_or_default();
                    Codes::ValueSet(format!("{}{version}", row.id))
                }
                None => Codes::Any,
            },
            _ if self.direct(expression, &mut direct) => {
                direct.sort();
                direct.dedup();
                Codes::Direct(direct)
            }
            _ => Codes::Any,
        }
    }

    fn direct(&self, expression: &Expression, codes: &mut Vec<(String, String)>) -> bool {
        let mut add = |value: &Value| match value {
            Value::Code(code) => {
                codes.push((code.system.as_deref().unwrap_or_default().to_owned(), code.code.to_string()));
                true
            }
            Value::Concept(concept) => {
                codes.extend(concept.codes.iter().map(|code| (code.system.as_deref().unwrap_or_default().to_owned(), code.code.to_string())));
                true
            }
            _ => false,
        };
        match &expression.kind {
            Kind::Code(id) => add(&self.program.code(*id)),
            Kind::Concept(id) => add(&self.program.concept(*id)),
            Kind::Literal(value) => add(value),
            Kind::List(items) => items.iter().all(|item| self.direct(item, codes)),
            Kind::Operator { operator, operands, .. } if ["ToList", "ToConcept"].contains(&operator.name) => operands.iter().all(|item| self.direct(item, codes)),
            Kind::Property { source, element } if &*element.name == "codes" => self.direct(source, codes),
            Kind::As { operand, .. } => self.direct(operand, codes),
            _ => false,
        }
    }
}

fn dotted(path: &[Element]) -> String {
    path.iter().map(|element| &*element.name).collect::<Vec<_>>().join(".")
}
