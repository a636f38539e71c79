//! Function calls: functions of this and of included libraries, fluent calls, the specification's functions.

use super::method::{self, is_method};
use super::{Checker, Progress, overload};
use crate::cql::ast;
use crate::cql::operators::{operator, operators};
use crate::cql::typed::{Access, Expression, FunctionId, Kind, LibraryId};
use crate::cql::types::Type;
use crate::cql::value::Precision;
use crate::diagnostic::{Diagnostic, Span, nearest};

/// Functions of the specification whose ELM node has another name or takes a precision.
const AGES: [(&str, Precision); 7] = [
    ("Years", Precision::Year),
    ("Months", Precision::Month),
    ("Weeks", Precision::Week),
    ("Days", Precision::Day),
    ("Hours", Precision::Hour),
    ("Minutes", Precision::Minute),
    ("Seconds", Precision::Second),
];

/// Rows of the operator table that take a type or a precision, which no call can give: how authors write them.
const SYNTAX_ONLY: [(&str, &str); 5] = [
    ("MinValue", "minimum Integer"),
    ("MaxValue", "maximum Integer"),
    ("DateTimeComponentFrom", "year from X"),
    ("DifferenceBetween", "difference in days between X and Y"),
    ("DurationBetween", "days between X and Y"),
];

impl Checker<'_> {
    /// `name(…)`, `Library.name(…)`, `value.name(…)`.
    pub(super) fn call(&mut self, target: Option<&ast::Expression>, name: &ast::Name, operands: &[ast::Expression], at: Span) -> Expression {
        match target {
            None => {
                if self.functions_in(self.library, &name.text, false).is_empty()
                    && let Some(call) = self.targetless(name, operands, at)
                {
                    return call;
                }
                let operands: Vec<Expression> = operands.iter().map(|operand| self.expression(operand)).collect();
                self.plain_call(name, operands, at)
            }
            Some(target) => match self.library_named(target) {
                Some(None) => self.unknown(at),
                Some(Some(library)) => {
                    let operands: Vec<Expression> = operands.iter().map(|operand| self.expression(operand)).collect();
                    let candidates = self.functions_in(library, &name.text, false);
                    self.resolved(name, &candidates, operands, at)
                }
                None => {
                    let candidates = self.fluent_functions(&name.text);
                    let told = self.diagnostics.len();
                    let target = self.expression(target);
                    let is_told = target.ty == Type::Any && self.diagnostics.len() > told;
                    if candidates.is_empty() && is_method(&name.text) {
                        return self.method(target, name, operands, at);
                    }
                    let mut all = vec![target];
                    all.extend(operands.iter().map(|operand| self.expression(operand)));
                    // Of what is not known itself no function is missing as well.
                    if (is_told || self.is_incomplete()) && self.fit(&candidates, &all).is_none() {
                        return self.unknown(at);
                    }
                    self.resolved(name, &candidates, all, at)
                }
            },
        }
    }

    fn plain_call(&mut self, name: &ast::Name, operands: Vec<Expression>, at: Span) -> Expression {
        let own = self.functions_in(self.library, &name.text, false);
        if !own.is_empty() && (self.fit(&own, &operands).is_some() || !is_system(&name.text)) {
            return self.resolved(name, &own, operands, at);
        }
        if let Some((_, form)) = SYNTAX_ONLY.iter().find(|(own, _)| **own == *name.text) {
            self.error_with_help(name.at, format!("`{}` is not called as a function", name.text), Some(format!("write `{form}`")));
            return self.unknown(at);
        }
        match self.system_call(&name.text, operands, at) {
            Ok(call) => call,
            Err(_) => {
                self.no_function(name);
                self.unknown(at)
            }
        }
    }

    /// Functions of a library by name; of another library only its public ones.
    pub(super) fn functions_in(&self, library: LibraryId, name: &str, fluent: bool) -> Vec<FunctionId> {
        let public = |id: &FunctionId| library == self.library || self.tree.functions[id.index()].access == Access::Public;
        let wanted = |id: &FunctionId| !fluent || self.tree.functions[id.index()].fluent;
        self.tree.functions(library, name).filter(public).filter(wanted).collect()
    }

    /// Fluent functions of that name, here and in every included library.
    fn fluent_functions(&self, name: &str) -> Vec<FunctionId> {
        let included = self.includes.iter().filter_map(|(_, library)| *library);
        std::iter::once(self.library).chain(included).flat_map(|library| self.functions_in(library, name, true)).collect()
    }

    pub(super) fn fit(&self, candidates: &[FunctionId], operands: &[Expression]) -> Option<overload::Fit> {
        let types: Vec<Type> = operands.iter().map(|operand| operand.ty.clone()).collect();
        let rows = candidates.iter().enumerate().map(|(index, function)| {
            let function = &self.tree.functions[function.index()];
            (index, function.operands.iter().map(|(_, ty)| ty).collect(), function.result.clone())
        });
        overload::best(&self.conversions, &types, rows)
    }

    pub(super) fn resolved(&mut self, name: &ast::Name, candidates: &[FunctionId], operands: Vec<Expression>, at: Span) -> Expression {
        let Some(fit) = self.fit(candidates, &operands) else {
            self.no_fit(name, candidates, &operands);
            return self.unknown(at);
        };
        let function = candidates[fit.index];
        self.warn_of_external(function, name);
        let result = self.result_of(function, name.at);
        let operands = operands.into_iter().zip(&fit.ways).map(|(operand, way)| self.step(operand, &way.step)).collect();
        Expression::new(Kind::Call { function, operands }, result, at)
    }

    /// A call of what nothing here defines is an error of every run that comes to it.
    fn warn_of_external(&mut self, function: FunctionId, name: &ast::Name) {
        let library = self.tree.functions[function.index()].library;
        let own = self.functions.iter().position(|(own, _)| *own == function).and_then(|position| self.ast.functions.get(position));
        let is_external = own.map_or(library != self.library && self.tree.functions[function.index()].body.is_none(), |own| own.body.is_none());
        if is_external {
            let warning = Diagnostic::warning(format!("function `{}` is external: a run that comes to this call ends with an error", name.text));
            self.report(warning.at(self.at(name.at)).help("define it in CQL"));
        }
    }

    /// A function's result type; its body is checked first if it has not been.
    fn result_of(&mut self, function: FunctionId, at: Span) -> Type {
        if let Some(position) = self.functions.iter().position(|(own, _)| *own == function) {
            self.function_body(position);
            let declared = self.ast.functions.get(position).is_some_and(|function| function.returns.is_some());
            if self.functions[position].1 == Progress::Running && !declared {
                let name = self.tree.functions[function.index()].name.clone();
                let help = Some("say what it returns: `define function … returns T: …`".to_owned());
                self.error_with_help(at, format!("function `{name}` calls itself, so its type cannot be inferred"), help);
            }
        }
        self.tree.functions[function.index()].result.clone()
    }

    fn no_fit(&mut self, name: &ast::Name, candidates: &[FunctionId], operands: &[Expression]) {
        if operands.iter().any(|operand| operand.ty == Type::Any) && !candidates.is_empty() {
            let arity = |id: &FunctionId| self.tree.functions[id.index()].operands.len() == operands.len();
            if candidates.iter().any(arity) && operands.iter().all(|operand| operand.ty == Type::Any) {
                return;
            }
        }
        if candidates.is_empty() {
            self.no_function(name);
            return;
        }
        let types: Vec<Type> = operands.iter().map(|operand| operand.ty.clone()).collect();
        let forms: Vec<String> = candidates
            .iter()
            .map(|id| {
                let types: Vec<Type> = self.tree.functions[id.index()].operands.iter().map(|(_, ty)| ty.clone()).collect();
                overload::written(&types)
            })
            .collect();
        let help = Some(format!("it takes {}", forms.join(" or ")));
        self.error_with_help(name.at, format!("function `{}` does not go with {}", name.text, overload::written(&types)), help);
    }

    fn no_function(&mut self, name: &ast::Name) {
        if self.broken.contains(&name.text) {
            return;
        }
        let own = self.tree.functions.iter().map(|function| function.name.to_string());
        let ages = AGES
            .iter()
            .flat_map(|(unit, _)| ["", "Calculate"].into_iter().flat_map(move |start| ["", "At"].map(|end| format!("{start}AgeIn{unit}{end}"))));
        let known: Vec<String> = own.chain(ages).chain(["Coalesce", "Message"].map(str::to_owned)).chain(method::names().map(str::to_owned)).collect();
        let system = operators().map(|row| row.name);
        let help = nearest(&name.text, known.iter().map(String::as_str).chain(system)).map(|near| format!("did you mean `{near}`?"));
        self.error_with_help(name.at, format!("no function `{}`", name.text), help);
    }

    /// A function of the specification; gives the operands back when there is none of that name.
    fn system_call(&mut self, name: &str, operands: Vec<Expression>, at: Span) -> Result<Expression, Vec<Expression>> {
        if let Some(age) = self.age(name, &operands, at) {
            return Ok(age);
        }
        let operands = match (name, <[Expression; 2]>::try_from(operands)) {
            ("And" | "Or" | "Implies", Ok(pair)) => return Ok(self.logic(name, pair, at)),
            (_, operands) => operands.map_or_else(|all| all, Vec::from),
        };
        match name {
            "Coalesce" => Ok(self.coalesce(operands, at)),
            "Message" if operands.len() == 5 => Ok(self.message(operands, at)),
            "First" | "Last" | "Count" | "Length" | "Exists" if operands.len() == 1 => Ok(self.operation(name, operands, None, at)),
            _ if operator(name).is_some() => Ok(self.operation(name, operands, None, at)),
            _ => Err(operands),
        }
    }

    /// `AgeInYears()`, `AgeInYearsAt(x)`, `CalculateAgeInYears(b)`, `CalculateAgeInYearsAt(b, x)`.
    fn age(&mut self, name: &str, operands: &[Expression], at: Span) -> Option<Expression> {
        let calculated = name.strip_prefix("Calculate");
        let rest = calculated.unwrap_or(name).strip_prefix("AgeIn")?;
        let (unit, is_at) = match rest.strip_suffix("At") {
            Some(unit) => (unit, true),
            None => (rest, false),
        };
        let (_, precision) = AGES.iter().find(|(word, _)| *word == unit)?;
        let mut all = Vec::new();
        if calculated.is_none() {
            all.push(self.birth_date(at));
        }
        all.extend(operands.iter().cloned());
        if let [_, day] = all.as_slice()
            && is_at
            && ![Type::Date, Type::DateTime].iter().any(|ty| self.conversions.way(&day.ty, ty).is_some())
        {
            let message = format!("`{name}` takes a Date or a DateTime, but this is `{}`", day.ty);
            self.error(day.at, message);
            return Some(self.unknown(at));
        }
        Some(self.operation(if is_at { "CalculateAgeAt" } else { "CalculateAge" }, all, Some(*precision), at))
    }

    fn birth_date(&mut self, at: Span) -> Expression {
        let Some((_, model)) = self.models.first().cloned() else {
            return self.unknown(at);
        };
        let mut value = self.bare_name(&"Patient".into(), at);
        for part in model.birth_date.split('.') {
            value = self.property(value, &ast::Name { text: part.into(), at }, at);
        }
        value
    }

    fn coalesce(&mut self, operands: Vec<Expression>, at: Span) -> Expression {
        if let [list] = operands.as_slice()
            && let Some(element) = list.ty.element().cloned()
        {
            return Expression::new(Kind::Coalesce(operands), element, at);
        }
        let ty = operands.iter().fold(Type::Any, |ty, operand| self.conversions.common(&ty, &operand.ty));
        let operands = operands.into_iter().map(|operand| self.widened(operand, &ty)).collect();
        Expression::new(Kind::Coalesce(operands), ty, at)
    }

    pub(super) fn message(&mut self, operands: Vec<Expression>, at: Span) -> Expression {
        let unknown = self.unknown(at);
        let mut parts = operands.into_iter();
        let mut next = || parts.next().unwrap_or_else(|| unknown.clone());
        let (source, condition, code, severity, message) = (next(), next(), next(), next(), next());
        let ty = source.ty.clone();
        let condition = self.converted(condition, &Type::Boolean, "the condition of Message");
        let [code, severity, message] = [code, severity, message].map(|text| self.converted(text, &Type::String, "a text of Message"));
        Expression::new(Kind::Message(Box::new([source, condition, code, severity, message])), ty, at)
    }
}

fn is_system(name: &str) -> bool {
    name == "Coalesce" || name == "Message" || operator(name).is_some()
}
