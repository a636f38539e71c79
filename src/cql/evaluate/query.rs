//! Queries: sources, lets, relationships, where, return, aggregate, sort; streamed, so that `exists`, `First` and
//! `Count` build no list.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Frame, Outcome, Session};
use crate::cql::operators::{self, comparison};
use crate::cql::typed::{Expression, Kind, Query, Relationship, Slot, Sort};
use crate::cql::types::Type;
use crate::cql::value::{ClassId, Value};
use crate::fhir::record::NodeId;

/// What takes a query's rows, one by one.
type Sink<'s, 'a> = &'s mut dyn FnMut(&mut Session<'a>, &mut Frame) -> Outcome<ControlFlow<()>>;

pub(super) fn set(frame: &mut Frame, slot: Slot, value: Value) {
    if let Some(place) = frame.get_mut(slot.index()) {
        *place = value;
    }
}

/// Rows of a source: the items of a list, one value otherwise, none for null.
pub(super) enum Rows {
    None,
    One(Value),
    Many(Arc<Vec<Value>>),
}

impl Rows {
    pub(super) fn of(value: Value, ty: &Type) -> Rows {
        match value {
            Value::Null => Rows::None,
            Value::List(items) if !matches!(ty, Type::Any) || !items.is_empty() => Rows::Many(items),
            Value::List(_) => Rows::None,
            value => Rows::One(value),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Value> {
        match self {
            Rows::None => None,
            Rows::One(value) => (index == 0).then(|| value.clone()),
            Rows::Many(items) => items.get(index).cloned(),
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn query(&mut self, expression: &'a Expression, query: &'a Query, frame: &mut Frame) -> Outcome {
        if let Some(aggregate) = &query.aggregate {
            return self.aggregate(query, aggregate, frame);
        }
        let mut results = Vec::new();
        // A list that is null has no rows, and the query over it is null.
        let mut sink = |session: &mut Session<'a>, frame: &mut Frame| {
            results.push(session.result(query, frame)?);
            Ok(ControlFlow::Continue(()))
        };
        let known = self.rows(query, frame, &mut sink)?;
        if query.singular {
            return Ok(results.into_iter().next().unwrap_or_default());
        }
        if !known {
            return Ok(Value::Null);
        }
        if query.returning.as_ref().is_some_and(|returning| returning.distinct) {
            results = self.distinct(expression, results)?;
        }
        if let Some(sort) = &query.sort {
            results = self.sorted(sort, results, frame)?;
        }
        Ok(Value::list(results))
    }

    /// `exists`, `First`, `Count` of a query without its list; `None` when the list is needed.
    pub(super) fn without_list(&mut self, operator: &str, query: &'a Query, frame: &mut Frame) -> Option<Outcome> {
        if query.aggregate.is_some() || query.singular {
            return None;
        }
        let distinct = query.returning.as_ref().is_some_and(|returning| returning.distinct);
        match operator {
            "Exists" => Some(self.exists(query, frame)),
            "First" if query.sort.is_none() => Some(self.first(query, frame)),
            "Count" if !distinct => Some(self.count(query, frame)),
            _ => None,
        }
    }

    fn exists(&mut self, query: &'a Query, frame: &mut Frame) -> Outcome {
        let mut found = false;
        let before = self.doubtful();
        self.rows(query, frame, &mut |session, frame| {
            let before_row = session.doubtful_before_row;
            found = !session.result(query, frame)?.is_null();
            if found && session.doubtful() == before_row {
                // Whatever the other rows are.
                session.doubtful.set(before);
            }
            Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(Value::Boolean(found))
    }

    fn first(&mut self, query: &'a Query, frame: &mut Frame) -> Outcome {
        let mut first = Value::Null;
        self.rows(query, frame, &mut |session, frame| {
            first = session.result(query, frame)?;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }

    fn count(&mut self, query: &'a Query, frame: &mut Frame) -> Outcome {
        let mut count = 0_i32;
        self.rows(query, frame, &mut |session, frame| {
            let counts = !session.result(query, frame)?.is_null();
            count = count.saturating_add(i32::from(counts));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Value::Integer(count))
    }

    /// The result of the row that the frame holds.
    fn result(&mut self, query: &'a Query, frame: &mut Frame) -> Outcome {
        match (&query.returning, query.sources.as_slice()) {
            (Some(returning), _) => self.expression(&returning.expression, frame),
            (None, [only]) => Ok(frame.get(only.slot.index()).cloned().unwrap_or_default()),
            (None, sources) => {
                let row = |frame: &Frame, slot: Slot| frame.get(slot.index()).cloned().unwrap_or_default();
                Ok(Value::tuple(sources.iter().map(|source| (source.name.clone(), row(frame, source.slot))).collect()))
            }
        }
    }

    /// Feeds every row that passes `with`, `without` and `where` to the sink. False when a list source is null.
    fn rows(&mut self, query: &'a Query, frame: &mut Frame, sink: Sink<'_, 'a>) -> Outcome<bool> {
        let mut sources = Vec::with_capacity(query.sources.len());
        let mut known = true;
        for source in &query.sources {
            let value = self.expression(&source.expression, frame)?;
            known &= !(value.is_null() && source.expression.ty.is_list());
            sources.push((source, Rows::of(value, &source.expression.ty)));
        }
        let mut related: Vec<Related> = query
            .relationships
            .iter()
            .map(|relationship| Related { is_fixed: is_fixed(&relationship.source.expression), value: None })
            .collect();
        let mut positions = vec![0_usize; sources.len()];
        let mut level = 0;
        // An odometer over the sources, the last one turning fastest.
        while let (Some(position), Some((source, rows))) = (positions.get_mut(level), sources.get(level)) {
            let Some(value) = rows.get(*position) else {
                *position = 0;
                if level == 0 {
                    break;
                }
                level -= 1;
                continue;
            };
            if let Some(index) = source.index {
                set(frame, index, Value::Integer(i32::try_from(*position).unwrap_or(i32::MAX)));
            }
            *position += 1;
            set(frame, source.slot, value);
            if level + 1 < sources.len() {
                level += 1;
                continue;
            }
            if self.row(query, &mut related, frame, sink)?.is_break() {
                break;
            }
        }
        Ok(known)
    }

    fn row(&mut self, query: &'a Query, related: &mut [Related], frame: &mut Frame, sink: Sink<'_, 'a>) -> Outcome<ControlFlow<()>> {
        let before = self.doubtful();
        for variable in &query.lets {
            let value = self.expression(&variable.expression, frame)?;
            set(frame, variable.slot, value);
        }
        for (relationship, related) in query.relationships.iter().zip(related) {
            if self.is_related(relationship, related, frame)? == relationship.without {
                return Ok(ControlFlow::Continue(()));
            }
        }
        if let Some(condition) = &query.condition
            && self.truth(condition, frame)? != Some(true)
        {
            return Ok(ControlFlow::Continue(()));
        }
        self.doubtful_before_row = before;
        sink(self, frame)
    }

    /// Whether some related row satisfies `such that`.
    fn is_related(&mut self, relationship: &'a Relationship, related: &mut Related, frame: &mut Frame) -> Outcome<bool> {
        let source = &relationship.source;
        let value = match &related.value {
            Some(value) => value.clone(),
            None => self.expression(&source.expression, frame)?,
        };
        if related.is_fixed && related.value.is_none() {
            related.value = Some(value.clone());
        }
        let rows = Rows::of(value, &source.expression.ty);
        let mut index = 0;
        while let Some(value) = rows.get(index) {
            set(frame, source.slot, value);
            if self.truth(&relationship.such_that, frame)? == Some(true) {
                return Ok(true);
            }
            index += 1;
        }
        Ok(false)
    }

    fn aggregate(&mut self, query: &'a Query, aggregate: &'a crate::cql::typed::Aggregate, frame: &mut Frame) -> Outcome {
        let start = self.expression(&aggregate.starting, frame)?;
        let mut total = start;
        let mut seen: Vec<Value> = Vec::new();
        self.rows(query, frame, &mut |session, frame| {
            if aggregate.distinct {
                let row = session.result(query, frame)?;
                if seen.iter().any(|own| comparison::equal(own, &row, &session.context) == Some(true)) {
                    return Ok(ControlFlow::Continue(()));
                }
                seen.push(row);
            }
            set(frame, aggregate.slot, total.clone());
            total = session.expression(&aggregate.expression, frame)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(total)
    }

    fn distinct(&self, expression: &Expression, results: Vec<Value>) -> Outcome<Vec<Value>> {
        if results.len() < 2 {
            return Ok(results);
        }
        if let Some(nodes) = self.only_resources(&results) {
            // Resources are distinct by identity.
            let mut seen = std::collections::BTreeSet::new();
            return Ok(nodes.into_iter().filter(|(node, _)| seen.insert(*node)).map(|(node, class)| Value::Node(node, class)).collect());
        }
        let Some(operator) = operators::operator("Distinct") else {
            return Err(self.fault_at(expression, "operator `Distinct` is missing"));
        };
        let list = Value::list(results);
        match self.apply(operator, &[list], None).map_err(|fault| self.fault_at(expression, fault.message))? {
            Value::List(items) => Ok(Arc::unwrap_or_clone(items)),
            _ => Ok(Vec::new()),
        }
    }

    /// The nodes, if every value is a resource of the record.
    fn only_resources(&self, values: &[Value]) -> Option<Vec<(NodeId, ClassId)>> {
        let resource = |value: &Value| match value {
            Value::Node(node, class) => self.context.record.resource_id(*node).map(|_| (*node, *class)),
            _ => None,
        };
        let is_resource = |(node, _): &(NodeId, ClassId)| self.context.record.resource_type(*node).is_some();
        values.iter().map(resource).collect::<Option<Vec<_>>>().filter(|nodes| nodes.iter().all(is_resource))
    }

    fn sorted(&mut self, sort: &'a Sort, results: Vec<Value>, frame: &mut Frame) -> Outcome<Vec<Value>> {
        let mut rows = Vec::with_capacity(results.len());
        for result in results {
            set(frame, sort.slot, result.clone());
            let mut keys = Vec::with_capacity(sort.keys.len());
            for key in &sort.keys {
                keys.push(self.expression(&key.expression, frame)?);
            }
            rows.push((keys, result));
        }
        let context = &self.context;
        rows.sort_by(|(left, _), (right, _)| {
            let orders = left.iter().zip(right).zip(&sort.keys).map(|((left, right), key)| {
                let order = comparison::sort_order(left, right, context);
                if key.descending { order.reverse() } else { order }
            });
            orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        Ok(rows.into_iter().map(|(_, result)| result).collect())
    }
}

/// What a relationship looks among: asked for with the first row that needs it, and once where it cannot depend on the row.
struct Related {
    is_fixed: bool,
    value: Option<Value>,
}

/// Whether a source cannot depend on the row: plain references and retrieves of them.
fn is_fixed(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::Literal(_) | Kind::Define(_) | Kind::Parameter(_) => true,
        Kind::Retrieve(retrieve) => retrieve.code.as_ref().is_none_or(|filter| is_constant(&filter.codes)) && retrieve.date.is_none(),
        Kind::Operator { operands, .. } => operands.iter().all(is_fixed),
        Kind::As { operand, .. } => is_fixed(operand),
        _ => false,
    }
}

fn is_constant(expression: &Expression) -> bool {
    match &expression.kind {
        Kind::ValueSet(_) | Kind::Code(_) | Kind::Concept(_) | Kind::CodeSystem(_) | Kind::Literal(_) => true,
        Kind::Operator { operands, .. } | Kind::List(operands) => operands.iter().all(is_constant),
        Kind::Property { source, .. } => is_constant(source),
        _ => false,
    }
}
