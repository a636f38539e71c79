//! Writes well-typed CQL from dice: expressions of a wanted type, grown from the forms of [`super::form`], literals, variables,
//! queries, calls of functions and references to defines.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use watershed::cql::types::Type;

use super::form::{self, Bound, FORMS, Form, POINTS, Part};

/// What every library begins with. The parameters are given at run time.
const HEAD: &str = include_str!("head.cql");

/// The parameters of the head.
const PARAMETERS: [(&str, Type); 5] =
    [("Given Integer", Type::Integer), ("Given Decimal", Type::Decimal), ("Given String", Type::String), ("Given Date", Type::Date), ("Given Boolean", Type::Boolean)];

/// Most expressions in a define.
const EXPRESSIONS_MAX: usize = 120;
/// Most evaluations that one reference may cost where nothing is remembered.
const COST_MAX: usize = 8;
/// Most items of a list that is written out.
const ITEMS_MAX: usize = 4;

/// Literals of a type, those with an order in it. Few, so that they meet again; at the edges of the type.
fn literals(ty: &Type) -> &'static [&'static str] {
    match ty {
        Type::Boolean => &["true", "false"],
        Type::Integer => &["-2147483648", "-1", "0", "1", "2", "3", "7", "12", "2012", "2147483647"],
        Type::Long => &["-9223372036854775808L", "-1L", "0L", "1L", "2L", "5L", "5000000000L", "9223372036854775807L"],
        Type::Decimal => &["-99999999999999999999.99999999", "-1.5", "-0.5", "0.0", "0.00000001", "0.1", "1.0", "1.50", "2.5", "100.00", "99999999999999999999.99999999"],
        Type::String => &[
            "''",
            "'('",
            "'$1'",
            "'-12'",
            "'1'",
            "'1.50'",
            "'1:128'",
            "'2012-02-29'",
            "'5 \\'mg\\''",
            "'A'",
            "'Integer'",
            "'T10:30'",
            "'[a-c]+'",
            "' b  c'",
            "'a'",
            "'a,b'",
            "'abc'",
            "'g'",
            "'true'",
            "'é𝛿'",
        ],
        Type::Date => &["@0001-01-01", "@1899-12-31", "@2012", "@2012-02", "@2012-02-29", "@2012-03-01", "@2012-03", "@2013", "@2023-02-28", "@9999-12-31"],
        Type::DateTime => &[
            "@0001-01-01T00:00:00.000",
            "@2011-12-31T23:30:00.000-02:00",
            "@2012T",
            "@2012-02T",
            "@2012-02-29T",
            "@2012-02-29T10",
            "@2012-02-29T10:30:00.000Z",
            "@2012-02-29T10:30",
            "@2012-02-29T10:30:00",
            "@2012-02-29T23:59:59.999",
            "@2012-03-01T00:00:00.000+14:00",
            "@2012-03-11T02:30:00.000",
            "@2013T",
            "@9999-12-31T23:59:59.999",
        ],
        Type::Time => &["@T00:00:00.000", "@T00", "@T10", "@T10:30", "@T10:30:00", "@T10:30:00.000", "@T10:30:00.001", "@T23:59", "@T23:59:59.999"],
        Type::Quantity => &[
            "-1.5 'g'",
            "0 'g'",
            "0.5 'g'",
            "5 'mg'",
            "10 'mg'",
            "1 'g'",
            "1.0 'g'",
            "1 'kg'",
            "1 'cm'",
            "1 '1'",
            "50 '%'",
            "98.6 '[degF]'",
            "37 'Cel'",
            "1 day",
            "2 days",
            "1 'd'",
            "1 month",
            "1 year",
            "3 weeks",
            "36 hours",
            "90 minutes",
            "5 'mg/dL'",
            "3 '{score}'",
            "99999999999999999999.99999999 'g'",
        ],
        Type::Ratio => &["1:128", "1:256", "2:256", "5 'mg':2 'mL'", "1:0"],
        Type::Code => &["\"Glucose\"", "\"Diabetes\"", "Code '2339-0' from \"LOINC\" display 'Glucose'", "Code { code: '2339-0' }"],
        Type::Concept => &["\"Sugar\"", "Concept { Code '2339-0' from \"LOINC\", Code 'x' from \"SNOMED\" } display 'one'"],
        Type::ValueSet => &["\"Labs\"", "\"Visits\"", "\"Drugs\""],
        Type::CodeSystem => &["\"LOINC\"", "\"SNOMED\""],
        _ => &[],
    }
}

/// A type that turns into another by itself.
fn convertible(ty: &Type) -> Option<Type> {
    Some(match ty {
        Type::Long => Type::Integer,
        Type::Decimal => Type::Long,
        Type::Quantity => Type::Decimal,
        Type::DateTime => Type::Date,
        Type::Concept => Type::Code,
        Type::List(item) => Type::list(convertible(item)?),
        Type::Interval(point) if **point != Type::Quantity => Type::interval(convertible(point)?),
        _ => return None,
    })
}

struct Function {
    name: String,
    operands: Vec<Type>,
    result: Type,
    fluent: bool,
}

/// One library in the making.
pub(super) struct Author<'r> {
    random: &'r mut ChaCha8Rng,
    text: String,
    /// Name, type, and what a reference costs where nothing is remembered.
    defines: Vec<(String, Type, usize)>,
    functions: Vec<Function>,
    /// Variables in scope.
    scope: Vec<(String, Type)>,
    variables: usize,
    /// What stands in the named gaps of the last form.
    named: BTreeMap<char, String>,
    left: usize,
    cost: usize,
    /// Whether operands are written out, so that what is made of them is seldom null.
    sure: bool,
}

impl<'r> Author<'r> {
    pub(super) fn new(random: &'r mut ChaCha8Rng) -> Self {
        Author {
            random,
            text: HEAD.to_owned(),
            defines: Vec::new(),
            functions: Vec::new(),
            scope: Vec::new(),
            variables: 0,
            named: BTreeMap::new(),
            left: 0,
            cost: 0,
            sure: false,
        }
    }

    /// The library's text, and the types that its defines should have.
    pub(super) fn finished(self) -> (String, Vec<(String, Type)>) {
        (self.text, self.defines.into_iter().map(|(name, ty, _)| (name, ty)).collect())
    }

    /// Adds a function of one or two operands; of one name there may be several.
    pub(super) fn function(&mut self) {
        let operands: Vec<Type> = (0..self.random.random_range(1..=2)).map(|_| self.some_type(1)).collect();
        let fluent = self.chance(0.5);
        let name = format!("{}{}", if fluent { "fluent" } else { "plain" }, self.random.random_range(0..2));
        if self
            .functions
            .iter()
            .any(|own| own.name == name && own.operands.len() == operands.len() && (own.operands == operands || operands.iter().any(|ty| !is_apart(ty))))
        {
            return;
        }
        let result = self.some_type(1);
        self.scope = operands.iter().enumerate().map(|(index, ty)| (format!("o{index}"), ty.clone())).collect();
        let written: Vec<String> = self.scope.iter().map(|(name, ty)| format!("{name} {}", form::name(ty))).collect();
        let body = self.body(|author| author.expression(&result, 2));
        self.scope.clear();
        // What it refers to is paid at every call.
        if self.cost <= COST_MAX {
            self.text
                .push_str(&format!("define {}function {name}({}):\n  {body}\n", if fluent { "fluent " } else { "" }, written.join(", ")));
            self.functions.push(Function { name, operands, result, fluent });
        }
    }

    /// Adds a law as a define, and gives a statement of it in which its operands are defines of their own.
    pub(super) fn law(&mut self, law: &Form, depth: usize) -> String {
        self.define(law, depth);
        let start = self.text.rfind(":\n  ").map_or(0, |at| at + 4);
        let mut body = self.text[start..].trim_end().to_owned();
        let mut statement = String::new();
        for (name, operand) in &self.named {
            body = body.replace(operand, &name.to_string());
            statement.push_str(&format!("define {name}:\n  {operand}\n"));
        }
        format!("{statement}define Law:\n  {body}\n")
    }

    /// Adds a define with this form at its root; what is of depth 1 is over literals and the record only.
    pub(super) fn define(&mut self, form: &Form, depth: usize) {
        let mut bound = Bound::new();
        let ty = self.result_of(form, &mut bound);
        self.sure = depth == 1;
        let body = self.body(|author| author.filled(form, &mut bound, depth));
        self.sure = false;
        let name = format!("D{}", self.defines.len());
        self.text.push_str(&format!("define {name}:\n  {body}\n"));
        self.defines.push((name, ty, self.cost + 1));
    }

    fn body(&mut self, write: impl FnOnce(&mut Self) -> String) -> String {
        (self.left, self.cost) = (EXPRESSIONS_MAX, 0);
        write(self)
    }

    /// What a form makes, its variables decided.
    fn result_of(&mut self, form: &Form, bound: &mut Bound) -> Type {
        for letter in form::variables(&form.result) {
            self.decide(letter, bound);
        }
        form::instance(&form.result, bound)
    }

    fn decide(&mut self, letter: char, bound: &mut Bound) {
        if let Entry::Vacant(place) = bound.entry(letter) {
            place.insert(match form::stands_for(letter) {
                Some(types) => types.choose(self.random).expect("a type").clone(),
                None => self.some_type(1),
            });
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    fn pick<'t>(&mut self, among: &[&'t str]) -> &'t str {
        among.choose(self.random).expect("one")
    }

    fn some_type(&mut self, depth: usize) -> Type {
        const SIMPLE: [Type; 12] =
            [Type::Boolean, Type::Integer, Type::Long, Type::Decimal, Type::String, Type::Date, Type::DateTime, Type::Time, Type::Quantity, Type::Ratio, Type::Code, Type::Concept];
        match self.random.random_range(0..10) {
            0 | 1 if depth > 0 => Type::list(self.some_type(depth - 1)),
            2 if depth > 0 => {
                let elements = ["a", "b", "c"].iter().take(self.random.random_range(1..=3));
                Type::tuple(elements.map(|name| ((*name).into(), self.some_type(depth - 1))).collect())
            }
            3 => Type::interval(POINTS.choose(self.random).expect("a type").clone()),
            4 => Type::class(self.pick(&["FHIR.Observation", "FHIR.Encounter", "FHIR.Condition", "FHIR.Quantity", "FHIR.CodeableConcept", "FHIR.Period"])),
            5 if depth > 0 => Type::choice([Type::Integer, Type::String]),
            _ => SIMPLE.choose(self.random).expect("a type").clone(),
        }
    }

    /// An expression of the type, in parentheses.
    pub(super) fn expression(&mut self, ty: &Type, depth: usize) -> String {
        self.left = self.left.saturating_sub(1);
        let depth = if self.left == 0 { 0 } else { depth };
        let text = match self.random.random_range(0..100) {
            _ if depth == 0 => self.leaf(ty),
            0..12 => self.leaf(ty),
            12..22 => self.structure(ty, depth),
            22..34 => self.query(ty, depth),
            34..42 => self.call(ty, depth).unwrap_or_else(|| self.query(ty, depth)),
            _ => self.formed(ty, depth).unwrap_or_else(|| self.structure(ty, depth)),
        };
        format!("({text})")
    }

    /// What needs no other expression: a variable, a define, a parameter, a literal, null.
    fn leaf(&mut self, ty: &Type) -> String {
        let variables: Vec<String> = self.scope.iter().filter(|(_, own)| own == ty).map(|(name, _)| name.clone()).collect();
        let defines: Vec<(String, usize)> = self
            .defines
            .iter()
            .filter(|(_, own, cost)| own == ty && *cost <= COST_MAX)
            .map(|(name, _, cost)| (name.clone(), *cost))
            .collect();
        let literals = literals(ty);
        match self.random.random_range(0..10) {
            _ if self.sure && literals.is_empty() => self.structure(ty, 0),
            _ if self.sure => self.pick(literals).to_owned(),
            0..4 if !variables.is_empty() => variables.choose(self.random).expect("one").clone(),
            4..6 if !defines.is_empty() && self.cost < COST_MAX => {
                let (name, cost) = defines.choose(self.random).expect("one").clone();
                self.cost += cost;
                name
            }
            6 => match PARAMETERS.iter().find(|(_, own)| own == ty) {
                Some((name, _)) => format!("\"{name}\""),
                None => self.structure(ty, 0),
            },
            7 => format!("null as {}", form::name(ty)),
            _ if !literals.is_empty() => self.pick(literals).to_owned(),
            _ => self.structure(ty, 0),
        }
    }

    /// Written out: a list, a tuple, an interval; of a simple type a literal.
    fn structure(&mut self, ty: &Type, depth: usize) -> String {
        let below = depth.saturating_sub(1);
        match ty {
            Type::List(item) if matches!(&**item, Type::Class(_)) && self.chance(0.7) => self.formed(ty, 0).unwrap_or_else(|| format!("List<{}>{{}}", form::name(item))),
            Type::List(item) => {
                let items: Vec<String> = (0..self.random.random_range(usize::from(self.sure)..=ITEMS_MAX)).map(|_| self.expression(item, below)).collect();
                if items.is_empty() { format!("List<{}>{{}}", form::name(item)) } else { format!("{{{}}}", items.join(", ")) }
            }
            Type::Tuple(elements) => {
                let elements: Vec<String> = elements.iter().map(|(name, ty)| format!("{name}: {}", self.expression(ty, below))).collect();
                format!("Tuple {{ {} }}", elements.join(", "))
            }
            Type::Interval(point) => self.interval(point, below),
            Type::Class(_) if depth == 0 => self.formed(ty, 0).filter(|text| text.len() < 60).unwrap_or_else(|| format!("null as {}", form::name(ty))),
            Type::Class(_) => self.formed(ty, depth).unwrap_or_else(|| format!("null as {}", form::name(ty))),
            Type::Choice(types) => {
                let types = types.to_vec();
                let (then, otherwise) = (self.expression(&types[0], below), self.expression(&types[1], below));
                format!("if {} then {then} else {otherwise}", self.expression(&Type::Boolean, below))
            }
            _ => match literals(ty) {
                [] => format!("null as {}", form::name(ty)),
                literals => self.pick(literals).to_owned(),
            },
        }
    }

    /// Mostly an interval in which there is something.
    fn interval(&mut self, point: &Type, depth: usize) -> String {
        let literals = literals(point);
        let low = self.random.random_range(0..literals.len());
        let high = self.random.random_range(low..literals.len());
        let (mut low, mut high) = (literals[low].to_owned(), literals[high].to_owned());
        if self.sure {
            return format!("Interval[{low}, {high}]");
        }
        match self.random.random_range(0..8) {
            0 => low = format!("null as {}", form::name(point)),
            1 => high = format!("null as {}", form::name(point)),
            2 => low = self.expression(point, depth),
            3 => high = self.expression(point, depth),
            _ => {}
        }
        let (open, close) = (self.pick(&["[", "[", "("]), self.pick(&["]", "]", ")"]));
        format!("Interval{open}{low}, {high}{close}")
    }

    /// A form that makes the type.
    fn formed(&mut self, ty: &Type, depth: usize) -> Option<String> {
        let fits = |form: &&Form| form::makes(&form.result, ty, &mut Bound::new());
        let fitting: Vec<&Form> = FORMS
            .iter()
            .filter(fits)
            .filter(|form| depth > 0 || form.parts.iter().all(|part| matches!(part, Part::Text(_))))
            .collect();
        let form = fitting.choose(self.random)?;
        let mut bound = Bound::new();
        form::makes(&form.result, ty, &mut bound);
        Some(self.filled(form, &mut bound, depth))
    }

    /// The form with its gaps filled.
    pub(super) fn filled(&mut self, form: &Form, bound: &mut Bound, depth: usize) -> String {
        let gaps: Vec<(usize, &Type)> = form
            .parts
            .iter()
            .enumerate()
            .filter_map(|(at, part)| if let Part::Gap(None, ty) = part { Some((at, ty)) } else { None })
            .collect();
        for letter in gaps.iter().flat_map(|(_, ty)| form::variables(ty)).chain(form.parts.iter().flat_map(named)) {
            self.decide(letter, bound);
        }
        // Of two operands of one type, one may be null without a type, or of a type that converts.
        let twin = gaps.iter().position(|(_, ty)| gaps.iter().filter(|(_, other)| other == ty).count() > 1 && form.result != **ty);
        let loose = twin.filter(|_| !self.sure && self.chance(0.15)).map(|gap| gaps[gap].0);
        let mut names: BTreeMap<char, String> = BTreeMap::new();
        let precision = form.parts.iter().any(|part| matches!(part, Part::Precision(_))).then(|| self.precision(bound));
        let mut text = String::new();
        for (at, part) in form.parts.iter().enumerate() {
            match part {
                Part::Text(own) => text.push_str(own),
                Part::Name(ty) => text.push_str(&form::name(&form::instance(ty, bound))),
                Part::Precision(plural) => text.push_str(&format!("{}{plural}", precision.unwrap_or_default())),
                Part::Gap(None, ty) => {
                    let ty = form::instance(ty, bound);
                    let ty = if loose == Some(at) { self.loosened(ty) } else { Some(ty) };
                    text.push_str(&ty.map_or_else(|| "null".to_owned(), |ty| self.expression(&ty, depth.saturating_sub(1))));
                }
                Part::Gap(Some(name), ty) => {
                    if !names.contains_key(name) {
                        let ty = form::instance(ty, bound);
                        let filled = if ty.is_list() && self.chance(0.5) { format!("({})", self.query(&ty, depth)) } else { self.expression(&ty, depth) };
                        names.insert(*name, filled);
                    }
                    text.push_str(&names[name]);
                }
            }
        }
        self.named = names;
        text
    }

    /// A type that converts to this one, or none for a bare null.
    fn loosened(&mut self, ty: Type) -> Option<Type> {
        match convertible(&ty) {
            Some(from) if self.chance(0.7) => Some(from),
            _ => None,
        }
    }

    /// A precision that the dates or times of a form have.
    fn precision(&mut self, bound: &Bound) -> &'static str {
        let ty = bound.get(&'C').or_else(|| bound.get(&'D')).expect("a type of dates or times");
        match ty {
            Type::Date => self.pick(&["year", "month", "day"]),
            Type::Time => self.pick(&["hour", "minute", "second", "millisecond"]),
            _ => self.pick(&["year", "month", "day", "hour", "minute", "second", "millisecond"]),
        }
    }

    /// A call of a function of the library.
    fn call(&mut self, ty: &Type, depth: usize) -> Option<String> {
        let fitting: Vec<usize> = self.functions.iter().enumerate().filter(|(_, own)| own.result == *ty).map(|(index, _)| index).collect();
        let index = *fitting.choose(self.random)?;
        let Function { name, operands, fluent, .. } = &self.functions[index];
        let (name, operands, fluent) = (name.clone(), operands.clone(), *fluent);
        let operands: Vec<String> = operands.iter().map(|ty| self.expression(ty, depth - 1)).collect();
        Some(match operands.split_first() {
            Some((first, rest)) if fluent => format!("{first}.{name}({})", rest.join(", ")),
            _ => format!("{name}({})", operands.join(", ")),
        })
    }

    fn bind(&mut self, ty: &Type) -> String {
        self.variables += 1;
        let name = format!("x{}", self.variables);
        self.scope.push((name.clone(), ty.clone()));
        name
    }

    /// A query that makes the type: a list from lists, one value by `aggregate` or from one value.
    fn query(&mut self, ty: &Type, depth: usize) -> String {
        let outer = self.scope.len();
        let text = match ty {
            Type::List(item) if self.chance(0.8) => self.list_query(item, depth),
            _ if self.chance(0.5) => self.aggregate(ty, depth),
            _ => {
                let row = self.some_type(0);
                let source = self.expression(&row, depth.saturating_sub(1));
                let name = self.bind(&row);
                let condition = self.expression(&Type::Boolean, depth.saturating_sub(1));
                format!("{source} {name} where {condition} return {}", self.expression(ty, depth.saturating_sub(1)))
            }
        };
        self.scope.truncate(outer);
        text
    }

    fn list_query(&mut self, item: &Type, depth: usize) -> String {
        let below = depth.saturating_sub(1);
        let (mut text, returns) = if self.chance(0.25) {
            let rows = [self.some_type(0), self.some_type(0)];
            let sources = rows.map(|row| {
                let source = self.expression(&Type::list(row.clone()), below);
                (source, row)
            });
            let named: Vec<String> = sources.iter().map(|(source, row)| format!("{source} {}", self.bind(row))).collect();
            (format!("from {}", named.join(", ")), true)
        } else {
            let returns = self.chance(0.5);
            let row = if returns { self.some_type(0) } else { item.clone() };
            let source = self.expression(&Type::list(row.clone()), below);
            (format!("{source} {}", self.bind(&row)), returns)
        };
        text.push_str(&self.clauses(below));
        if returns {
            let kind = self.pick(&["", "all ", "distinct "]);
            text.push_str(&format!(" return {kind}{}", self.expression(item, below)));
        }
        text + &self.sort(item)
    }

    /// `let`, `with`, `without`, `where`.
    fn clauses(&mut self, depth: usize) -> String {
        let mut text = String::new();
        if self.chance(0.2) {
            let ty = self.some_type(0);
            let value = self.expression(&ty, depth);
            text.push_str(&format!(" let {}: {value}", self.bind(&ty)));
        }
        while self.chance(0.25) {
            let row = self.some_type(0);
            let source = self.expression(&Type::list(row.clone()), depth);
            let kind = self.pick(&["with", "without"]);
            let scope = self.scope.len();
            text.push_str(&format!(" {kind} {source} {}", self.bind(&row)));
            text.push_str(&format!(" such that {}", self.expression(&Type::Boolean, depth)));
            self.scope.truncate(scope);
        }
        if self.chance(0.6) {
            text.push_str(&format!(" where {}", self.expression(&Type::Boolean, depth)));
        }
        text
    }

    fn sort(&mut self, item: &Type) -> String {
        let direction = self.pick(&["asc", "desc", "ascending", "descending"]);
        let ordered = |ty: &Type| form::stands_for('O').is_some_and(|types| types.contains(ty));
        match item {
            _ if self.chance(0.5) => String::new(),
            ty if ordered(ty) => format!(" sort {direction}"),
            Type::Tuple(elements) => {
                let keys: Vec<String> = elements.iter().filter(|(_, ty)| ordered(ty)).map(|(name, _)| format!("{name} {direction}")).collect();
                if keys.is_empty() { String::new() } else { format!(" sort by {}", keys.join(", ")) }
            }
            Type::Class(class) => match &**class {
                "FHIR.Observation" => format!(" sort by status.value {direction}, id.value"),
                "FHIR.Encounter" => format!(" sort by start of period {direction}"),
                _ => String::new(),
            },
            _ => String::new(),
        }
    }

    fn aggregate(&mut self, ty: &Type, depth: usize) -> String {
        let below = depth.saturating_sub(1);
        let row = self.some_type(0);
        let source = self.expression(&Type::list(row.clone()), below);
        let start = self.expression(ty, below);
        let name = self.bind(&row);
        let clauses = self.clauses(below.min(1));
        let kind = self.pick(&["", "all ", "distinct "]);
        let total = self.bind(ty);
        format!("{source} {name}{clauses} aggregate {kind}{total} starting {start}: {}", self.expression(ty, below))
    }
}

/// The variables that only a name or a named gap speaks of.
fn named(part: &Part) -> Vec<char> {
    match part {
        Part::Name(ty) | Part::Gap(Some(_), ty) => form::variables(ty),
        _ => Vec::new(),
    }
}

/// Whether no other type converts to the type or from it, so that overloads stay apart.
fn is_apart(ty: &Type) -> bool {
    matches!(ty, Type::Boolean | Type::String | Type::Time | Type::Ratio)
}
