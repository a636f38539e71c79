//! HL7's FHIRPath cases, as CQL: each case's expression over its resource, with the lists that CQL can be asked to read
//! as FHIRPath's collections. FHIRPath's null literal, `{}`, is CQL's `null`.
//!
//! What each case's library is as ELM means the same. A case is left out when it calls a function or names a constant of `fhirpath_excluded.txt`; the rest must be as
//! expected, but for `fhirpath_listed.txt`. `WATERSHED_ONLY=name` shows the cases whose name holds it.

use std::collections::BTreeMap;
use std::path::Path;

use watershed::cql::operators::{Call, operator};
use watershed::cql::value::Value;
use watershed::cql::{Environment, Libraries, Models, Program, Session, compile, show};
use watershed::diagnostic::SourceFile;
use watershed::fhir::record::{Record, Shape};

use crate::cql_suite::environment;
use crate::shared::yardstick;

/// What CQL has no form for: `word cases: the specification's reason`.
const EXCLUDED: &str = include_str!("fhirpath_excluded.txt");
/// Cases that CQL answers in another way: `group/name: the specification's reason`.
const LISTED: &str = include_str!("fhirpath_listed.txt");

struct Case {
    name: String,
    resource: Option<String>,
    expression: String,
    invalid: bool,
    /// The outputs count as one: whether there is any.
    predicate: bool,
    unordered: bool,
    outputs: Vec<(String, String)>,
}

fn cases(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("tests-fhir-r4.xml")).expect("a text");
    let xml = roxmltree::Document::parse(&text).expect("XML");
    let mut cases: Vec<Case> = Vec::new();
    for group in xml.descendants().filter(|node| node.has_tag_name("group")) {
        for test in group.children().filter(|node| node.has_tag_name("test")) {
            let is = |name: &str, value: &str| test.attribute(name) == Some(value);
            let expression = test.children().find(|node| node.has_tag_name("expression")).expect("an expression");
            let output = |node: roxmltree::Node| (node.attribute("type").unwrap_or_default().to_owned(), node.text().unwrap_or_default().to_owned());
            let mut name = format!("{}/{}", group.attribute("name").unwrap_or("?"), test.attribute("name").unwrap_or("?"));
            while cases.iter().any(|case| case.name == name) {
                name.push('b');
            }
            cases.push(Case {
                name,
                resource: test.attribute("inputfile").map(|file| file.replace(".xml", ".json")).filter(|file| !file.is_empty()),
                expression: expression.text().unwrap_or_default().replace("{}", "null"),
                invalid: expression.attribute("invalid").is_some(),
                predicate: is("predicate", "true"),
                unordered: is("ordered", "false"),
                outputs: test.children().filter(|node| node.has_tag_name("output")).map(output).collect(),
            });
        }
    }
    cases
}

/// The rows of a list: what is listed, and the reason.
fn rows(list: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    list.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(": ").expect("`what: reason`"))
}

/// Whether the expression calls the function `word`, or has the form that it names.
fn uses(expression: &str, word: &str) -> bool {
    match word {
        "%" => return expression.contains('%'),
        "precedence" => return union_beside_comparison(expression),
        _ => {}
    }
    expression.match_indices(&format!("{word}(")).any(|(at, _)| !expression[..at].ends_with(char::is_alphanumeric))
}

/// Whether `|` and a comparison stand in one pair of parentheses.
fn union_beside_comparison(expression: &str) -> bool {
    let mut open: Vec<(bool, bool)> = vec![(false, false)];
    for word in expression.replace('(', " ( ").replace(')', " ) ").replace('|', " | ").replace(',', " , ").split_whitespace() {
        match word {
            "(" => open.push((false, false)),
            ")" => drop(open.pop()),
            "," => *open.last_mut().expect("balanced") = (false, false),
            "|" => open.last_mut().expect("balanced").0 = true,
            "=" | "!=" | "~" | "!~" | "is" | "in" => open.last_mut().expect("balanced").1 = true,
            _ => continue,
        }
        if open.last() == Some(&(true, true)) {
            return true;
        }
    }
    false
}

fn literal(kind: &str, text: &str) -> String {
    match kind {
        "string" | "code" | "id" => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        "decimal" if !text.contains('.') => format!("{text}.0"),
        _ => text.to_owned(),
    }
}

/// The head of a library over one resource.
fn head(resource: Option<&str>) -> String {
    let text = "library T version '1'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1'\ncontext Patient\n".to_owned();
    match resource {
        None | Some("Patient") => text,
        Some(resource) => format!("{text}define \"{resource}\": singleton from [{resource}]\n"),
    }
}

/// The case as a define: one value, a list or nothing.
fn define(case: &Case, resource: Option<&str>, name: &str) -> String {
    let exists = if case.predicate { ".exists()" } else { "" };
    match resource {
        Some(resource) => format!("define \"{name}\": {resource}.select((\n{}\n){exists})\n", case.expression),
        None => format!("define \"{name}\": (\n{}\n){exists}\n", case.expression),
    }
}

/// The case as a library, with what is expected.
fn library(case: &Case, resource: Option<&str>) -> String {
    let mut text = head(resource) + &define(case, resource, "Found");
    for (index, (kind, output)) in case.outputs.iter().enumerate() {
        text.push_str(&format!("define \"Expected {index}\": {}\n", literal(kind, output)));
    }
    text
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::List(items) => items.to_vec(),
        one => vec![one],
    }
}

/// What is wrong with a case's values, if anything.
fn difference(session: &mut Session<'_>, record: &Record, case: &Case, mut found: Vec<Value>, expected: Vec<Value>) -> Option<String> {
    let shown = |values: &[Value]| values.iter().map(|value| show::text(value, record)).collect::<Vec<_>>().join(", ");
    let message = format!("found [{}], expected [{}]", shown(&found), shown(&expected));
    if found.len() != expected.len() {
        return Some(message);
    }
    for expected in expected {
        let same = |own: &Value, session: &mut Session<'_>| match own {
            // A FHIR primitive: the JSON of its value.
            Value::Node(..) => show::json(own, record) == show::json(&expected, record),
            _ => {
                let operands = [own.clone(), expected.clone()];
                let kinds = std::mem::discriminant(own) == std::mem::discriminant(&expected);
                let call = Call { operands: &operands, precision: None, context: session.context() };
                kinds && operator("Equal").expect("a row").apply(&call).is_ok_and(|same| same.truth() == Some(true))
            }
        };
        let at = if case.unordered { found.iter().position(|own| same(own, session)) } else { Some(0).filter(|_| same(&found[0], session)) };
        match at {
            Some(at) => drop(found.remove(at)),
            None => return Some(message),
        }
    }
    None
}

fn value_of(program: &Program, session: &mut Session<'_>, name: &str) -> Result<Value, String> {
    let define = program.define("T", name).ok_or("no such define")?;
    session.evaluate(define).map_err(|fault| format!("evaluate: {}", fault.message))
}

/// The resource that cases run on, as JSON.
fn resource(folder: &Path, file: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join(file)).expect("a resource")).expect("JSON")
}

fn run(case: &Case, folder: &Path, environment: &Environment) -> Result<(), String> {
    let parsed = case.resource.as_ref().map(|file| resource(folder, file));
    let resource = parsed.as_ref().map(|resource| resource["resourceType"].as_str().expect("a type"));
    let text = library(case, resource);
    let libraries = Libraries::default().with_singletons();
    let (program, findings) = compile(&[SourceFile::new("t.cql", text)], &libraries, &Models::default());
    let Some(program) = program else {
        let first = findings.iter().find(|finding| finding.is_error()).map(|finding| finding.message.clone());
        return if case.invalid { Ok(()) } else { Err(format!("compile: {}", first.unwrap_or_default())) };
    };
    let lines: Vec<Vec<u8>> = parsed.iter().map(|resource| resource.to_string().into_bytes()).collect();
    let (record, _) = Record::read(&Shape::everything(), lines.iter().map(Vec::as_slice));
    let mut session = Session::new(&program, environment, &record);
    let mut evaluate = |name: &str| value_of(&program, &mut session, name);
    let found = evaluate("Found");
    let found = match (found, case.invalid) {
        (Err(_), true) => return Ok(()),
        (Ok(found), true) => return Err(format!("should have failed, found {}", show::text(&found, &record))),
        (found, false) => items(found?),
    };
    let expected = (0..case.outputs.len()).map(|index| evaluate(&format!("Expected {index}"))).collect::<Result<Vec<Value>, String>>()?;
    difference(&mut session, &record, case, found, expected).map_or(Ok(()), Err)
}

#[test]
fn the_fhirpath_cases_that_cql_shares_are_as_expected() {
    let Some(folder) = yardstick("fhirpath") else { return };
    let environment = environment();
    let only = std::env::var("WATERSHED_ONLY").ok();
    let listed: BTreeMap<&str, &str> = rows(LISTED).collect();
    let words: Vec<(&str, &str)> = rows(EXCLUDED).map(|(what, _)| what.rsplit_once(' ').expect("`word cases`")).collect();
    let (mut shared, mut right, mut excluded) = (0, 0, BTreeMap::<&str, usize>::new());
    let mut faults = Vec::new();
    let mut sound: BTreeMap<Option<String>, Vec<Case>> = BTreeMap::new();
    for case in cases(&folder) {
        let text = strip_texts(&case.expression);
        if let Some((word, _)) = words.iter().find(|(word, _)| uses(&text, word)) {
            *excluded.entry(word).or_default() += 1;
            continue;
        }
        shared += 1;
        let outcome = run(&case, &folder, &environment);
        if only.as_ref().is_some_and(|only| case.name.contains(only)) {
            println!("{}: {}: {outcome:?}", case.name, case.expression);
        }
        match (outcome, listed.contains_key(&*case.name)) {
            (Ok(()), false) => {
                right += 1;
                if !case.invalid {
                    sound.entry(case.resource.clone()).or_default().push(case);
                }
            }
            (Ok(()), true) => faults.push(format!("{} is listed, and is as expected", case.name)),
            (Err(_), true) => {}
            (Err(reason), false) => faults.push(format!("{}: {}: {reason}", case.name, case.expression.split_whitespace().collect::<Vec<_>>().join(" "))),
        }
    }
    let out: usize = excluded.values().sum();
    crate::figures::say(&format!("{right} of {shared} FHIRPath cases as expected, {} listed, {out} excluded", listed.len()));
    for (word, count) in words {
        let found = excluded.get(word).copied().unwrap_or_default();
        if count != found.to_string() {
            faults.push(format!("`{word}` excludes {found} cases, not {count}"));
        }
    }
    for (file, cases) in sound {
        let parsed = file.map(|file| resource(&folder, &file));
        faults.extend(round_trip(parsed.as_ref(), &cases, &environment));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What the cases of one resource mean in another way when their library was written as ELM and read again.
fn round_trip(parsed: Option<&serde_json::Value>, cases: &[Case], environment: &Environment) -> Vec<String> {
    let resource = parsed.map(|resource| resource["resourceType"].as_str().expect("a type"));
    let text = cases.iter().fold(head(resource), |text, case| text + &define(case, resource, &case.name));
    let (program, findings) = compile(&[SourceFile::new("t.cql", text)], &Libraries::default().with_singletons(), &Models::default());
    let program = program.unwrap_or_else(|| panic!("{}", watershed::diagnostic::render_human(&findings, false)));
    let again = match crate::elm::round_trip(&program) {
        Ok(again) => again,
        Err(findings) => return vec![findings],
    };
    let lines: Vec<Vec<u8>> = parsed.iter().map(|resource| resource.to_string().into_bytes()).collect();
    let (record, _) = Record::read(&Shape::everything(), lines.iter().map(Vec::as_slice));
    let (mut session, mut read) = (Session::new(&program, environment, &record), Session::new(&again, environment, &record));
    let shown = |value: Result<Value, String>| value.map(|value| show::json(&value, &record));
    let outcome = |case: &Case| {
        let (own, read) = (shown(value_of(&program, &mut session, &case.name)), shown(value_of(&again, &mut read, &case.name)));
        (own != read).then(|| format!("{}: {own:?}, and read from ELM {read:?}", case.name))
    };
    cases.iter().filter_map(outcome).collect()
}

/// The expression without what stands in its texts and comments.
fn strip_texts(expression: &str) -> String {
    let mut parts = expression.split('\'');
    let mut text = parts.next().unwrap_or_default().to_owned();
    while let (Some(_), Some(rest)) = (parts.next(), parts.next()) {
        text.push_str("''");
        text.push_str(rest);
    }
    text
}
