//! The naive road: the same program with everything that is optimised written out in the tree, so that the evaluator can
//! save nothing.
//!
//! - A define is a function: evaluated at each reference, remembered nowhere.
//! - A constant is a parameter, known at run time only.
//! - `exists`, `First` and `Count` see a list, never a query; `with` and `without` ask `exists` in the `where`, of a source that
//!   is evaluated in each row; duplicates of `return` are removed by `distinct`; a `let` is what it stands for.
//! - Logic evaluates both sides.

use std::collections::BTreeMap;

use watershed::cql::Program;
use watershed::cql::operators::operator;
use watershed::cql::typed::{Access, Define, Expression, Function, FunctionId, Kind, LibraryId, Parameter, ParameterId, Query, Return, Slot, Source};
use watershed::cql::types::Type;
use watershed::cql::value::Value;
use watershed::diagnostic::Span;

/// The plain program of the first root, and the values of its parameters.
pub(super) fn plain(program: &Program) -> (Program, BTreeMap<String, Value>) {
    let mut tree = program.tree().clone();
    let library = program.roots()[0];
    let functions = tree.functions.len();
    let as_function = |define: &Define| Function {
        library: define.library,
        name: define.name.clone(),
        fluent: false,
        operands: Vec::new(),
        result: define.body.ty.clone(),
        body: Some(define.body.clone()),
        slots: define.slots,
        access: Access::Private,
        at: define.at,
    };
    let defines: Vec<Function> = tree.defines.iter().map(as_function).collect();
    tree.functions.extend(defines);
    let mut writer = Writer { library, functions, parameters: tree.parameters.len(), constants: Vec::new(), slots: 0 };
    for function in tree.functions.iter_mut().filter(|function| function.library == library) {
        if let Some(body) = &mut function.body {
            writer.slots = function.slots;
            writer.rewrite(body);
            function.slots = writer.slots;
        }
    }
    for define in tree.defines.iter_mut().filter(|define| define.library == library) {
        writer.slots = define.slots;
        writer.rewrite(&mut define.body);
        define.slots = writer.slots;
    }
    let name = &tree.libraries[library.index()].name;
    let given = writer.constants.iter().map(|(row, value)| (format!("{name}.{}", row.name), value.clone())).collect();
    tree.parameters.extend(writer.constants.into_iter().map(|(row, _)| row));
    (Program::new(tree, program.roots().to_vec()), given)
}

struct Writer {
    library: LibraryId,
    /// Where the functions begin that stand for defines.
    functions: usize,
    /// How many parameters the libraries declare themselves.
    parameters: usize,
    constants: Vec<(Parameter, Value)>,
    slots: u32,
}

impl Writer {
    fn slot(&mut self) -> Slot {
        self.slots += 1;
        Slot(self.slots - 1)
    }

    fn rewrite(&mut self, expression: &mut Expression) {
        if let Kind::Query(query) = &mut expression.kind {
            expand_lets(query);
        }
        let is_written = |part: &Expression| matches!(part.kind, Kind::Literal(_));
        match &mut expression.kind {
            // Whether bounds in the wrong order were written so decides between an error and null.
            Kind::Interval(parts) => [&mut parts.low, &mut parts.high].into_iter().filter(|part| !is_written(part)).for_each(|part| self.rewrite(part)),
            // The code of a message is told when it was written so.
            Kind::Message(parts) => parts.iter_mut().take(2).for_each(|part| self.rewrite(part)),
            _ => children(expression).into_iter().for_each(|child| self.rewrite(child)),
        }
        let at = expression.at;
        match &mut expression.kind {
            Kind::Literal(value) => {
                let id = ParameterId(u32::try_from(self.parameters + self.constants.len()).expect("a few"));
                let name = format!("constant {}", self.constants.len()).into();
                let row = Parameter { library: self.library, name, ty: expression.ty.clone(), default: None, access: Access::Private, at };
                self.constants.push((row, std::mem::take(value)));
                expression.kind = Kind::Parameter(id);
            }
            Kind::Define(id) => {
                let function = FunctionId(u32::try_from(self.functions + id.index()).expect("a few"));
                expression.kind = Kind::Call { function, operands: Vec::new() };
            }
            Kind::And(pair) => expression.kind = applied("And", pair.to_vec()),
            Kind::Or(pair) => expression.kind = applied("Or", pair.to_vec()),
            Kind::Implies(pair) => expression.kind = applied("Implies", pair.to_vec()),
            Kind::Coalesce(operands) if operands.len() > 1 || operands[0].ty.is_list() => expression.kind = applied("Coalesce", std::mem::take(operands)),
            Kind::Operator { operands, .. } => {
                for operand in operands.iter_mut().filter(|operand| matches!(operand.kind, Kind::Query(_))) {
                    *operand = hidden(operand.clone());
                }
            }
            Kind::Query(query) => {
                ask_relationships(query);
                let query = (**query).clone();
                *expression = self.distinct(query, expression.clone());
            }
            _ => {}
        }
    }

    /// `return distinct` as `distinct (… return all …)`, sorted after.
    fn distinct(&mut self, mut query: Query, whole: Expression) -> Expression {
        let Some(returning) = query.returning.as_mut().filter(|returning| returning.distinct && !query.singular) else {
            return Expression::new(Kind::Query(Box::new(query)), whole.ty, whole.at);
        };
        returning.distinct = false;
        let (sort, ty, at) = (query.sort.take(), whole.ty, whole.at);
        let rows = hidden(Expression::new(Kind::Query(Box::new(query)), ty.clone(), at));
        let rows = Expression::new(applied("Distinct", vec![rows]), ty.clone(), at);
        if sort.is_none() {
            return rows;
        }
        let source = Source { slot: self.slot(), name: "$this".into(), expression: rows, index: None };
        Expression::new(Kind::Query(Box::new(Query { sort, ..over(source) })), ty, at)
    }
}

/// An expression of the operator table.
fn applied(name: &str, operands: Vec<Expression>) -> Kind {
    Kind::Operator { operator: operator(name).expect("a row"), operands, precision: None }
}

fn truth(at: Span) -> Expression {
    Expression::new(Kind::Literal(Value::Boolean(true)), Type::Boolean, at)
}

/// The same value from an expression of another form.
fn hidden(expression: Expression) -> Expression {
    let (ty, at) = (expression.ty.clone(), expression.at);
    let parts = [truth(at), expression, Expression::null(ty.clone(), at)];
    Expression::new(Kind::If(Box::new(parts)), ty, at)
}

/// A query over one source and nothing else.
fn over(source: Source) -> Query {
    let singular = !source.expression.ty.is_list();
    Query { sources: vec![source], lets: Vec::new(), relationships: Vec::new(), condition: None, returning: None, aggregate: None, sort: None, singular }
}

/// `with B b such that c` as `where exists (B b where c return all true)`.
fn ask_relationships(query: &mut Query) {
    for relationship in std::mem::take(&mut query.relationships) {
        let at = relationship.such_that.at;
        let related = over(relationship.source);
        let (singular, ty) = (related.singular, if related.singular { Type::Boolean } else { Type::list(Type::Boolean) });
        let returning = Some(Return { expression: truth(at), distinct: false });
        let related = Query { condition: Some(relationship.such_that), returning, ..related };
        let related = hidden(Expression::new(Kind::Query(Box::new(related)), ty, at));
        let mut asked = Expression::new(applied(if singular { "IsTrue" } else { "Exists" }, vec![related]), Type::Boolean, at);
        if relationship.without {
            asked = Expression::new(applied("Not", vec![asked]), Type::Boolean, at);
        }
        query.condition = Some(match query.condition.take() {
            Some(condition) => Expression::new(applied("And", vec![asked, condition]), Type::Boolean, at),
            None => asked,
        });
    }
}

/// Puts what each `let` stands for in the places of its name. The clause stays: every row evaluates it, and may fail there.
fn expand_lets(query: &mut Query) {
    let mut known: BTreeMap<Slot, Expression> = BTreeMap::new();
    for variable in &mut query.lets {
        replace(&mut variable.expression, &known);
        known.insert(variable.slot, variable.expression.clone());
    }
    clauses(query).into_iter().for_each(|clause| replace(clause, &known));
}

fn replace(expression: &mut Expression, known: &BTreeMap<Slot, Expression>) {
    match &expression.kind {
        Kind::Slot(slot) => {
            if let Some(meaning) = known.get(slot) {
                *expression = meaning.clone();
            }
        }
        _ => children(expression).into_iter().for_each(|child| replace(child, known)),
    }
}

fn clauses(query: &mut Query) -> Vec<&mut Expression> {
    let sources = query.sources.iter_mut().map(|source| &mut source.expression);
    let lets = query.lets.iter_mut().map(|one| &mut one.expression);
    let related = query.relationships.iter_mut().flat_map(|related| [&mut related.source.expression, &mut related.such_that]);
    let returning = query.returning.iter_mut().map(|returning| &mut returning.expression);
    let aggregate = query.aggregate.iter_mut().flat_map(|aggregate| [&mut aggregate.starting, &mut aggregate.expression]);
    let keys = query.sort.iter_mut().flat_map(|sort| &mut sort.keys).map(|key| &mut key.expression);
    sources.chain(lets).chain(related).chain(&mut query.condition).chain(returning).chain(aggregate).chain(keys).collect()
}

fn children(expression: &mut Expression) -> Vec<&mut Expression> {
    match &mut expression.kind {
        Kind::Operator { operands, .. } | Kind::Call { operands, .. } | Kind::Coalesce(operands) | Kind::List(operands) => operands.iter_mut().collect(),
        Kind::And(pair) | Kind::Or(pair) | Kind::Implies(pair) => pair.iter_mut().collect(),
        Kind::If(parts) => parts.iter_mut().collect(),
        Kind::Case { comparand, items, otherwise } => {
            let items = items.iter_mut().flat_map(|(when, then)| [when, then]);
            comparand.iter_mut().map(|comparand| &mut **comparand).chain(items).chain([&mut **otherwise]).collect()
        }
        Kind::As { operand, .. } | Kind::Is { operand, .. } => vec![operand],
        Kind::Tuple(elements) | Kind::Instance { elements, .. } => elements.iter_mut().map(|(_, element)| element).collect(),
        Kind::Interval(parts) => vec![&mut parts.low, &mut parts.low_closed, &mut parts.high, &mut parts.high_closed],
        Kind::Property { source, .. } => vec![source],
        Kind::Retrieve(retrieve) => {
            let (code, date) = (retrieve.code.iter_mut().map(|filter| &mut filter.codes), retrieve.date.iter_mut().map(|filter| &mut filter.range));
            code.chain(date).collect()
        }
        Kind::Query(query) => clauses(query),
        Kind::Repeat(repeat) => vec![&mut repeat.source.expression, &mut repeat.element],
        Kind::Message(parts) => parts.iter_mut().collect(),
        Kind::Literal(_) | Kind::Parameter(_) | Kind::Slot(_) | Kind::Define(_) | Kind::CodeSystem(_) | Kind::ValueSet(_) | Kind::Code(_) | Kind::Concept(_) => Vec::new(),
    }
}
