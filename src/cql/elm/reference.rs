//! References: to variables, to declarations, to functions.

use super::definition::{Reader, Role, Variable};
use super::document::{items, text_of};
use super::json::Json;
use crate::cql::check::conversion::Step;
use crate::cql::check::conversion::apply;
use crate::cql::check::overload;
use crate::cql::typed::{Expression, FunctionId, Kind, Slot};
use crate::cql::types::Type;

impl<'a> Reader<'a> {
    pub(super) fn reference(&mut self, node_name: &str, node: &'a Json) -> Expression {
        let name = text_of(node, "name").or_else(|| text_of(node, "scope")).unwrap_or("$this");
        let of = |reader: &Self, role: Role| reader.variable(name, &[role]);
        let found = match node_name {
            "AliasRef" => of(self, Role::Alias),
            "QueryLetRef" => of(self, Role::Let),
            "OperandRef" => of(self, Role::Operand),
            "Current" => of(self, Role::Alias),
            "IdentifierRef" => return self.identifier(name, node),
            _ => return self.declared(node_name, node),
        };
        found.unwrap_or_else(|| self.refused(&format!("`{node_name}` to `{name}`, which is nothing here")))
    }

    /// `Iteration`: the number of the row of its scope, from 0.
    pub(super) fn iteration(&mut self, node: &'a Json) -> Expression {
        let scope = text_of(node, "scope").unwrap_or("$this");
        let of_scope = |variable: &Variable| variable.role == Role::Alias && &*variable.name == scope;
        let Some(position) = self.frame.variables.iter().rposition(of_scope) else {
            return self.refused(&format!("`Iteration` of `{scope}`, which is nothing here"));
        };
        let fresh = self.slot();
        let slot = *self.frame.variables[position].index.get_or_insert(fresh);
        self.made(Kind::Slot(slot), Type::Integer)
    }

    /// A name that the translator has left to the engine: in `sort by`, an element of the row.
    fn identifier(&mut self, name: &str, node: &'a Json) -> Expression {
        if let Some(row) = self.frame.row.clone() {
            let this = self.made(Kind::Slot(row.slot), row.ty.clone());
            if name == "$this" {
                return this;
            }
            if self.element_type(&row.ty, name).is_some() {
                return self.property(this, name);
            }
        }
        if let Some(variable) = self.variable(name, &[Role::Alias, Role::Let, Role::Operand]) {
            return variable;
        }
        let found = match self.library_of(node).and_then(|library| self.tree.define(library, name)) {
            Some(_) => self.define(node),
            None => None,
        };
        match found {
            Some(define) => self.made(Kind::Define(define), self.tree.defines[define.index()].body.ty.clone()),
            None if self.is_incomplete() => self.null(Type::Any),
            None => self.refused(&format!("`{name}` is nothing here")),
        }
    }

    fn declared(&mut self, node_name: &str, node: &'a Json) -> Expression {
        let found = match node_name {
            "ExpressionRef" => self.define(node).map(|define| (Kind::Define(define), self.tree.defines[define.index()].body.ty.clone())),
            "ParameterRef" => self.parameter(node).map(|parameter| (Kind::Parameter(parameter), self.tree.parameters[parameter.index()].ty.clone())),
            "CodeSystemRef" => self.code_system(node).map(|system| (Kind::CodeSystem(system), Type::CodeSystem)),
            "ValueSetRef" => self.value_set(node).map(|set| (Kind::ValueSet(set), Type::ValueSet)),
            "CodeRef" => self.declared_code(node).map(|code| (Kind::Code(code), Type::Code)),
            "ConceptRef" => self.concept(node).map(|concept| (Kind::Concept(concept), Type::Concept)),
            _ => return self.refused(&format!("`{node_name}` is not supported")),
        };
        match found {
            Some((kind, ty)) => self.made(kind, ty),
            // Reported already.
            None => self.null(Type::Any),
        }
    }

    /// A call: the overload that the signature names, else the one that the operands fit best.
    pub(super) fn call(&mut self, node: &'a Json) -> Expression {
        let name = text_of(node, "name").unwrap_or_default();
        let operands: Vec<Expression> = items(node, "operand").iter().map(|operand| self.expression(operand)).collect();
        let Some(library) = self.library_of(node) else {
            return self.null(Type::Any);
        };
        let candidates = self.functions_named(library, name);
        let signature: Vec<Type> = items(node, "signature").iter().map(|ty| self.specified(ty)).collect();
        let is_signed = |function: &&FunctionId| {
            let declared = self.tree.functions[function.index()].operands.iter().map(|(_, ty)| ty);
            !signature.is_empty() && declared.eq(signature.iter())
        };
        if let Some(function) = candidates.iter().find(is_signed).copied() {
            return self.called(function, operands);
        }
        let (function, operands) = match self.best(&candidates, operands) {
            Ok(found) => found,
            Err(operands) => return self.no_fit(name, &candidates, &operands),
        };
        self.called(function, operands)
    }

    fn called(&mut self, function: FunctionId, operands: Vec<Expression>) -> Expression {
        let result = self.result_of(function);
        self.made(Kind::Call { function, operands }, result)
    }

    fn best(&mut self, candidates: &[FunctionId], operands: Vec<Expression>) -> Result<(FunctionId, Vec<Expression>), Vec<Expression>> {
        if let Some(fit) = self.fit(candidates, &operands) {
            let operands = self.converted(operands, &fit);
            return Ok((candidates[fit.index], operands));
        }
        let unwrapped: Vec<Expression> = operands.iter().cloned().map(|operand| self.unwrapped(operand)).collect();
        if let Some(fit) = self.fit(candidates, &unwrapped) {
            let operands = self.converted(unwrapped, &fit);
            return Ok((candidates[fit.index], operands));
        }
        Err(operands)
    }

    fn fit(&self, candidates: &[FunctionId], operands: &[Expression]) -> Option<overload::Fit> {
        let types: Vec<Type> = operands.iter().map(|operand| operand.ty.clone()).collect();
        let rows = candidates.iter().enumerate().map(|(index, function)| {
            let function = &self.tree.functions[function.index()];
            (index, function.operands.iter().map(|(_, ty)| ty).collect(), function.result.clone())
        });
        overload::best(&self.conversions, &types, rows)
    }

    /// Operands on their way to the signature. From choice to choice nothing is done: values say what they are.
    pub(super) fn converted(&mut self, operands: Vec<Expression>, fit: &overload::Fit) -> Vec<Expression> {
        let frame = &mut self.frame;
        let mut slot = || {
            let slot = Slot(frame.slots);
            frame.slots += 1;
            slot
        };
        let convert = |(operand, way): (Expression, &crate::cql::check::conversion::Way)| match (&operand.ty, &way.step) {
            (Type::Choice(_), Step::Alternatives(_, Type::Choice(_))) => operand,
            _ => apply(operand, &way.step, &mut slot),
        };
        operands.into_iter().zip(&fit.ways).map(convert).collect()
    }

    fn no_fit(&mut self, name: &str, candidates: &[FunctionId], operands: &[Expression]) -> Expression {
        let types: Vec<Type> = operands.iter().map(|operand| operand.ty.clone()).collect();
        let forms: Vec<String> = candidates
            .iter()
            .map(|id| overload::written(&self.tree.functions[id.index()].operands.iter().map(|(_, ty)| ty.clone()).collect::<Vec<_>>()))
            .collect();
        match forms.as_slice() {
            [] => self.refused(&format!("no function `{name}`")),
            forms => self.refused(&format!("function `{name}` does not go with {}; it takes {}", overload::written(&types), forms.join(" or "))),
        }
    }
}
