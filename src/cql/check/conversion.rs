//! How a value of one type becomes a value of another: subtypes, casts of choices, implicit conversions.
//!
//! Costs order the ways an overload can be met, least first: exact, subtype, null, cast, conversion to a simple type,
//! conversion to a structured type, list demotion, list promotion (CQL, "Conversion Precedence", <https://cql.hl7.org/03-developersguide.html#conversion-precedence>).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cql::model::Model;
use crate::cql::operators::operator;
use crate::cql::typed::{Element, Expression, FunctionId, Kind, Query, Return, Slot, Source};
use crate::cql::types::Type;

/// Nested types deeper than this are not compared.
const DEPTH_MAX: usize = 24;

/// Where these stand in a model, data have any resource.
const ROOTS: [&str; 2] = ["FHIR.Resource", "FHIR.DomainResource"];

const SUBTYPE: u32 = 1;
const COMPATIBLE: u32 = 2;
const CAST: u32 = 3;
const SIMPLE: u32 = 4;
const STRUCTURED: u32 = 6;
const DEMOTION: u32 = 16;
const PROMOTION: u32 = 20;

/// One way from a type to another.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cql) struct Way {
    pub cost: u32,
    pub step: Step,
}

/// What has to be done to a value on the way.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cql) enum Step {
    /// The value is one already.
    Nothing,
    /// A null, or a choice known to hold the type: seen as this type.
    As(Type),
    /// An operator of the tables, to this type.
    Operator(&'static str, Type),
    /// A conversion function of the model's helper library.
    Call(FunctionId, Type),
    /// First this, then that.
    Then(Box<Step>, Box<Step>),
    /// Each element of a list, to a list of this element type.
    Each(Box<Step>, Type),
    /// Both bounds of an interval, to an interval of this point type.
    Bounds(Box<Step>, Type),
    /// By the alternative that a choice holds: (alternative, step from it), to this type.
    Alternatives(Vec<(Type, Step)>, Type),
}

impl Step {
    fn then(self, next: Step) -> Step {
        match (self, next) {
            (Step::Nothing, one) | (one, Step::Nothing) => one,
            (first, second) => Step::Then(Box::new(first), Box::new(second)),
        }
    }
}

/// An element as the checker sees it.
#[derive(Debug, Clone)]
pub(in crate::cql) enum Member {
    /// A field of the data, of this type.
    Field(Element, Type),
    /// Made of the data as the derived model says.
    View {
        /// The field of the same name, with the type of the data; none for what data keep in an extension.
        field: Option<(Element, Type)>,
        /// The type that the derived model gives it.
        ty: Type,
        /// `FHIRHelpers.ToConcept(%value)`, `%parent.extension[url='…'].value.value`.
        target: Arc<str>,
    },
}

/// What the conversions of one library know: its models, and the helper functions it includes.
#[derive(Debug, Default)]
pub(in crate::cql) struct Conversions {
    pub models: Vec<Arc<Model>>,
    /// By class: (target, function).
    pub helpers: BTreeMap<Arc<str>, Vec<(Type, FunctionId)>>,
    /// List demotion and promotion, which CQL leaves to be asked for: a list of one and its item convert into each other.
    pub singletons: bool,
}

impl Conversions {
    /// The class's description, whichever model has it.
    pub fn model_of(&self, class: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.class(class).is_some())
    }

    /// FHIR itself, when it is known here.
    pub fn fhir(&self) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| !model.derived)
    }

    /// Whether a class is another or derives from it, across models: US Core 7 derives from FHIR's classes.
    fn is_a(&self, sub: &str, base: &str) -> bool {
        let Some(model) = self.model_of(sub) else { return false };
        if model.is_a(sub, base) {
            return true;
        }
        let above = model.lineage(sub).last().and_then(|class| match &class.base {
            Type::Class(above) if model.class(above).is_none() => Some(above),
            _ => None,
        });
        above.is_some_and(|above| self.fhir().is_some_and(|fhir| fhir.is_a(above, base)))
    }

    /// The FHIR class that instances of a class are of.
    pub fn instance_class(&self, class: &str) -> Arc<str> {
        match (self.model_of(class), self.fhir()) {
            (Some(model), Some(fhir)) => model.instance_class(class, fhir),
            _ => class.into(),
        }
    }

    /// The FHIR resource type that a retrieve of the class reads.
    pub fn resource_type(&self, class: &str) -> Arc<str> {
        self.instance_class(class).rsplit('.').next().unwrap_or_default().into()
    }

    /// The field that an element of a class is, in the data, with the type that the data have.
    pub fn field(&self, class: &str, name: &str) -> Option<(Element, Type)> {
        let instance = self.instance_class(class);
        self.model_of(&instance)?.resolve(&instance, name)
    }

    /// An element of a class: its type, and for a class of a derived model how it is made of the data.
    pub fn member(&self, class: &str, name: &str) -> Option<Member> {
        let model = self.model_of(class)?;
        let field = self.field(class, name);
        match model.element_of(class, name) {
            Some(element) if model.derived => match (&element.target, field) {
                (Some(target), field) => Some(Member::View { field, ty: element.ty.clone(), target: target.clone() }),
                (None, Some((field, _))) => Some(Member::Field(field, element.ty.clone())),
                (None, None) => None,
            },
            _ => field.map(|(element, ty)| Member::Field(element, ty)),
        }
    }

    /// Whether every value of `sub` is a value of `base`.
    pub fn is_subtype(&self, sub: &Type, base: &Type) -> bool {
        self.subtype_within(sub, base, 0)
    }

    fn subtype_within(&self, sub: &Type, base: &Type, depth: usize) -> bool {
        let deeper = |a: &Type, b: &Type| depth < DEPTH_MAX && self.subtype_within(a, b, depth + 1);
        match (sub, base) {
            _ if sub == base => true,
            (_, Type::Any) => true,
            (Type::ValueSet | Type::CodeSystem, Type::Vocabulary) => true,
            (Type::Class(a), Type::Class(b)) => self.is_a(a, b),
            (Type::List(a), Type::List(b)) | (Type::Interval(a), Type::Interval(b)) => deeper(a, b),
            (Type::Tuple(a), Type::Tuple(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && deeper(&a.1, &b.1)),
            (Type::Choice(types), _) => types.iter().all(|ty| deeper(ty, base)),
            (_, Type::Choice(types)) => types.iter().any(|ty| deeper(sub, ty)),
            _ => false,
        }
    }

    /// The cheapest way from one type to another, if there is one without a written conversion.
    pub fn way(&self, from: &Type, to: &Type) -> Option<Way> {
        self.way_within(from, to, 0)
    }

    fn way_within(&self, from: &Type, to: &Type, depth: usize) -> Option<Way> {
        if depth > DEPTH_MAX {
            return None;
        }
        if from == to {
            return Some(Way { cost: 0, step: Step::Nothing });
        }
        if *from == Type::Any {
            return Some(Way { cost: COMPATIBLE, step: Step::As(to.clone()) });
        }
        if self.is_subtype(from, to) {
            return Some(Way { cost: SUBTYPE, step: Step::Nothing });
        }
        match (from, to) {
            (Type::Choice(types), _) => self.way_from_choice(types, to, depth),
            (_, Type::Choice(types)) => types.iter().filter_map(|ty| self.way_within(from, ty, depth + 1)).min_by_key(|way| way.cost),
            (Type::List(a), Type::List(b)) => {
                let inner = self.way_within(a, b, depth + 1)?;
                Some(Way { cost: inner.cost, step: Step::Each(Box::new(inner.step), (**b).clone()) })
            }
            (Type::Interval(a), Type::Interval(b)) => {
                let inner = self.way_within(a, b, depth + 1)?;
                Some(Way { cost: inner.cost, step: Step::Bounds(Box::new(inner.step), (**b).clone()) })
            }
            (Type::Tuple(a), Type::Tuple(b)) => {
                let same = a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0);
                let each = a.iter().zip(b.iter()).all(|(a, b)| a.1 == Type::Any || self.is_subtype(&a.1, &b.1));
                (same && each).then(|| Way { cost: COMPATIBLE, step: Step::As(to.clone()) })
            }
            (Type::List(_), _) => self.way_from_list(from, to, depth),
            (Type::Class(class), _) => self.way_from_class(class, to, depth),
            _ => system_conversion(from, to),
        }
        .or_else(|| self.way_to_list(from, to, depth))
    }

    /// List demotion: the one item of a list, converted further.
    fn way_from_list(&self, from: &Type, to: &Type, depth: usize) -> Option<Way> {
        let item = from.element().filter(|_| self.singletons)?;
        let rest = self.way_within(item, to, depth + 1)?;
        let single = Step::Operator("SingletonFrom", item.clone());
        Some(Way { cost: DEMOTION + rest.cost, step: single.then(rest.step) })
    }

    /// List promotion: the value as the one item of a list; a null makes an empty list.
    fn way_to_list(&self, from: &Type, to: &Type, depth: usize) -> Option<Way> {
        let item = to.element().filter(|_| self.singletons && !from.is_list())?;
        let first = self.way_within(from, item, depth + 1)?;
        Some(Way { cost: PROMOTION + first.cost, step: first.step.then(Step::Operator("ToList", to.clone())) })
    }

    fn way_from_choice(&self, types: &[Type], to: &Type, depth: usize) -> Option<Way> {
        let mut ways: Vec<(Type, Way)> = types.iter().filter_map(|ty| Some((ty.clone(), self.way_within(ty, to, depth + 1)?))).collect();
        // Where the choice has a quantity, a number beside it is none: 5 is not 500 %.
        let is_quantity = |ty: &Type| *ty == Type::Quantity || matches!(ty, Type::Class(class) if self.class_conversions(class).any(|(own, _)| *own == Type::Quantity));
        if *to == Type::Quantity && types.iter().any(is_quantity) {
            ways.retain(|(ty, _)| is_quantity(ty));
        }
        let cost = CAST + ways.iter().map(|(_, way)| way.cost).min()?;
        let step = match ways.as_slice() {
            [(ty, Way { step: Step::Nothing, .. })] => Step::As(ty.clone()),
            [(ty, way)] => Step::Then(Box::new(Step::As(ty.clone())), Box::new(way.step.clone())),
            several => Step::Alternatives(several.iter().map(|(ty, way)| (ty.clone(), way.step.clone())).collect(), to.clone()),
        };
        Some(Way { cost, step })
    }

    fn way_from_class(&self, class: &str, to: &Type, depth: usize) -> Option<Way> {
        self.class_conversions(class)
            .filter_map(|(target, function)| {
                let own = if is_simple(target) { SIMPLE } else { STRUCTURED };
                let call = Step::Call(*function, target.clone());
                if target == to {
                    return Some(Way { cost: own, step: call });
                }
                let rest = self.way_within(target, to, depth + 1)?;
                let step = if rest.step == Step::Nothing { call } else { Step::Then(Box::new(call), Box::new(rest.step)) };
                Some(Way { cost: own + rest.cost + SIMPLE, step })
            })
            .min_by_key(|way| way.cost)
    }

    /// The implicit conversions of a class: (target, function).
    pub fn class_conversions(&self, class: &str) -> impl Iterator<Item = &(Type, FunctionId)> {
        let model = self.model_of(class);
        let found = model.and_then(|model| model.lineage(class).find_map(|class| self.helpers.get(&class.name)));
        found.into_iter().flatten()
    }

    /// What the parts of a value may be, one level down or all below: what `Children` and `Descendents` list.
    pub fn parts(&self, ty: &Type, all: bool) -> Type {
        let mut found: Vec<Type> = Vec::new();
        let mut pending = vec![ty.clone()];
        while let Some(whole) = pending.pop() {
            for part in self.parts_of(&whole) {
                if !found.contains(&part) {
                    found.push(part.clone());
                    pending.extend(all.then_some(part));
                }
            }
        }
        Type::choice(found)
    }

    fn parts_of(&self, ty: &Type) -> Vec<Type> {
        let item = |ty: &Type| ty.element().unwrap_or(ty).clone();
        let each = |ty: Type| match ty {
            Type::Choice(types) => types.to_vec(),
            Type::Class(class) if ROOTS.contains(&&*class) => self.derived_from(&class),
            one => vec![one],
        };
        let direct: Vec<Type> = match ty {
            Type::List(element) => return self.parts_of(element),
            Type::Choice(types) => return types.iter().flat_map(|ty| self.parts_of(ty)).collect(),
            Type::Class(class) => {
                let class = self.instance_class(class);
                let elements = self.model_of(&class).into_iter().flat_map(|model| model.lineage(&class)).flat_map(|class| &class.elements);
                elements.map(|element| item(&element.ty)).collect()
            }
            Type::Tuple(elements) => elements.iter().map(|(_, ty)| item(ty)).collect(),
            Type::Interval(point) => vec![(**point).clone()],
            Type::Quantity => vec![Type::Decimal, Type::String],
            Type::Ratio => vec![Type::Quantity],
            Type::Code => vec![Type::String],
            Type::Concept => vec![Type::Code, Type::String],
            _ => Vec::new(),
        };
        direct.into_iter().flat_map(each).collect()
    }

    /// The classes that derive from one: what stands where any resource may.
    fn derived_from(&self, base: &str) -> Vec<Type> {
        let model = self.model_of(base);
        let names = model.into_iter().flat_map(|model| model.class_names().map(|name| format!("{}.{name}", model.name)));
        names.filter(|name| self.is_a(name, base)).map(|name| Type::class(&name)).collect()
    }

    /// The least point type of two bounds: of a choice and one of its types that type, because a bound of another type
    /// would make no interval.
    pub fn common_point(&self, a: &Type, b: &Type) -> Type {
        match (a, b) {
            (Type::Choice(types), one) | (one, Type::Choice(types)) if types.contains(one) => one.clone(),
            _ => self.common(a, b),
        }
    }

    /// The least type that both are, or become: for the branches of `if`, the elements of a list.
    pub fn common(&self, a: &Type, b: &Type) -> Type {
        if let (Type::Interval(a), Type::Interval(b)) = (a, b)
            && matches!((&**a, &**b), (Type::Choice(_), _) | (_, Type::Choice(_)))
        {
            return Type::interval(self.common_point(a, b));
        }
        if *b == Type::Any || *a != Type::Any && self.is_subtype(b, a) {
            return a.clone();
        }
        if *a == Type::Any || self.is_subtype(a, b) {
            return b.clone();
        }
        let lossless = |from: &Type, to: &Type| self.way(from, to).filter(|_| !matches!(from, Type::Choice(_)) && !matches!(to, Type::Choice(_)));
        match (lossless(a, b), lossless(b, a)) {
            (Some(to_b), Some(to_a)) if to_a.cost < to_b.cost => a.clone(),
            (Some(_), _) => b.clone(),
            (None, Some(_)) => a.clone(),
            (None, None) => Type::choice([a.clone(), b.clone()]),
        }
    }
}

/// Simple types are preferred over structured ones when several conversions fit.
fn is_simple(ty: &Type) -> bool {
    matches!(ty, Type::Boolean | Type::Integer | Type::Long | Type::Decimal | Type::String | Type::Date | Type::DateTime | Type::Time)
}

/// The implicit conversions between system types (CQL, "Implicit Conversions").
fn system_conversion(from: &Type, to: &Type) -> Option<Way> {
    let (name, cost) = match (from, to) {
        (Type::Integer, Type::Long) => ("ToLong", SIMPLE),
        (Type::Integer | Type::Long, Type::Decimal) => ("ToDecimal", SIMPLE + 1),
        (Type::Date, Type::DateTime) => ("ToDateTime", SIMPLE),
        (Type::Integer | Type::Long | Type::Decimal, Type::Quantity) => ("ToQuantity", STRUCTURED),
        (Type::Code, Type::Concept) => ("ToConcept", STRUCTURED),
        (Type::ValueSet, Type::List(element)) if **element == Type::Code => ("ExpandValueSet", STRUCTURED),
        _ => return None,
    };
    Some(Way { cost, step: Step::Operator(name, to.clone()) })
}

/// Applies a step to an expression. `slot` makes a new variable of the body, for conversions of lists.
pub(in crate::cql) fn apply(expression: Expression, step: &Step, slot: &mut impl FnMut() -> Slot) -> Expression {
    let at = expression.at;
    match step {
        Step::Nothing => expression,
        Step::As(ty) => match expression.kind {
            Kind::Literal(ref value) if value.is_null() => Expression::null(ty.clone(), at),
            _ => Expression::new(Kind::As { operand: Box::new(expression), target: ty.clone(), strict: false }, ty.clone(), at),
        },
        Step::Operator(name, ty) => {
            let row = operator(name).expect("INVARIANT: conversions name rows of the table (tested)");
            Expression::new(Kind::Operator { operator: row, operands: vec![expression], precision: None }, ty.clone(), at)
        }
        Step::Call(function, ty) => Expression::new(Kind::Call { function: *function, operands: vec![expression] }, ty.clone(), at),
        Step::Then(first, second) => {
            let between = apply(expression, first, slot);
            apply(between, second, slot)
        }
        Step::Each(_, _) | Step::Bounds(_, _) => structured(expression, step, slot),
        Step::Alternatives(ways, ty) => {
            let items = ways
                .iter()
                .map(|(alternative, step)| {
                    let test = Kind::Is { operand: Box::new(expression.clone()), target: alternative.clone() };
                    let held = apply(expression.clone(), &Step::As(alternative.clone()), slot);
                    (Expression::new(test, Type::Boolean, at), apply(held, step, slot))
                })
                .collect();
            let otherwise = Box::new(Expression::null(ty.clone(), at));
            Expression::new(Kind::Case { comparand: None, items, otherwise }, ty.clone(), at)
        }
    }
}

fn structured(expression: Expression, step: &Step, slot: &mut impl FnMut() -> Slot) -> Expression {
    let at = expression.at;
    let variable = slot();
    match step {
        Step::Each(inner, ty) => {
            let element = expression.ty.element().cloned().unwrap_or(Type::Any);
            let each = apply(Expression::new(Kind::Slot(variable), element, at), inner, slot);
            for_each(expression, variable, each, Type::list(ty.clone()), false)
        }
        Step::Bounds(inner, ty) => {
            let point = expression.ty.point().cloned().unwrap_or(Type::Any);
            let whole = Expression::new(Kind::Slot(variable), expression.ty.clone(), at);
            let part = |name: &str, ty: Type| {
                let element = crate::cql::typed::Element { name: name.into(), alternatives: Vec::new(), list: false };
                Expression::new(Kind::Property { source: Box::new(whole.clone()), element }, ty, at)
            };
            let (low, high) = (part("low", point.clone()), part("high", point));
            let (low_closed, high_closed) = (part("lowClosed", Type::Boolean), part("highClosed", Type::Boolean));
            let selector = crate::cql::typed::IntervalSelector { low: apply(low, inner, slot), low_closed, high: apply(high, inner, slot), high_closed };
            let ty = Type::interval(ty.clone());
            let interval = Expression::new(Kind::Interval(Box::new(selector)), ty.clone(), at);
            // A query over the one interval: null stays null, and the operand is evaluated once.
            for_each(expression, variable, interval, ty, true)
        }
        _ => expression,
    }
}

fn for_each(source: Expression, slot: Slot, result: Expression, ty: Type, singular: bool) -> Expression {
    let at = source.at;
    let query = Query {
        sources: vec![Source::new(slot, "$this".into(), source)],
        lets: Vec::new(),
        relationships: Vec::new(),
        condition: None,
        returning: Some(Return { expression: result, distinct: false }),
        aggregate: None,
        sort: None,
        singular,
    };
    Expression::new(Kind::Query(Box::new(query)), ty, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::model::Models;

    fn conversions() -> Conversions {
        let fhir = Models::default().get("FHIR", None).expect("embedded").clone();
        let helper = |class: &str, to: Type, id: u32| (Arc::from(class), vec![(to, FunctionId(id))]);
        let helpers = BTreeMap::from([
            helper("FHIR.CodeableConcept", Type::Concept, 1),
            helper("FHIR.Period", Type::interval(Type::DateTime), 2),
            helper("FHIR.EncounterStatus", Type::String, 3),
            helper("FHIR.date", Type::Date, 4),
            helper("FHIR.dateTime", Type::DateTime, 5),
        ]);
        Conversions { models: vec![fhir], helpers, singletons: false }
    }

    #[test]
    fn costs_follow_the_precedence_of_the_specification() {
        let c = conversions();
        let cost = |from: &Type, to: &Type| c.way(from, to).map(|way| way.cost);
        let observation = Type::class("FHIR.Observation");
        assert_eq!(cost(&Type::Integer, &Type::Integer), Some(0));
        assert_eq!(cost(&observation, &Type::class("FHIR.DomainResource")), Some(1));
        assert_eq!(cost(&Type::Any, &Type::Integer), Some(2));
        assert_eq!(cost(&Type::choice([Type::Integer, Type::String]), &Type::String), Some(3));
        assert_eq!(cost(&Type::class("FHIR.EncounterStatus"), &Type::String), Some(4));
        assert_eq!(cost(&Type::class("FHIR.CodeableConcept"), &Type::Concept), Some(6));
        assert!(cost(&Type::Integer, &Type::Decimal) < cost(&Type::Integer, &Type::Quantity));
        assert!(cost(&Type::class("FHIR.date"), &Type::DateTime).is_some(), "by way of Date");
        assert_eq!(cost(&Type::String, &Type::Integer), None);
        assert_eq!(cost(&observation, &Type::class("FHIR.Patient")), None);
    }

    #[test]
    fn lists_and_intervals_convert_what_they_hold() {
        let c = conversions();
        assert!(c.way(&Type::list(Type::class("FHIR.CodeableConcept")), &Type::list(Type::Concept)).is_some());
        assert!(c.way(&Type::interval(Type::Integer), &Type::interval(Type::Decimal)).is_some());
        assert!(c.way(&Type::interval(Type::Integer), &Type::interval(Type::String)).is_none());
    }

    #[test]
    fn branches_meet_in_their_common_type() {
        let c = conversions();
        assert_eq!(c.common(&Type::Any, &Type::String), Type::String);
        assert_eq!(c.common(&Type::Integer, &Type::Decimal), Type::Decimal);
        assert_eq!(c.common(&Type::Integer, &Type::String), Type::choice([Type::Integer, Type::String]));
    }

    #[test]
    fn every_conversion_is_a_row_of_the_table() {
        for name in ["SingletonFrom", "ToList", "ToLong", "ToDecimal", "ToDateTime", "ToQuantity", "ToConcept", "ExpandValueSet"] {
            assert!(operator(name).is_some(), "{name}");
        }
    }
}
