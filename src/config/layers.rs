//! Defaults, a TOML file and the environment laid over each other; every problem found at once, with its place.
//!
//! The known keys are the keys of the serialised default, so a section's `Options` is written down once. Each value is tried by
//! itself in the default's place, so that every wrong one is found, and said of where it was written: in the file, or in a
//! variable of the environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Location, SourceFile, Span, nearest};

/// Environment variables that set a key begin so: `WATERSHED__SECTION__KEY`.
pub const ENVIRONMENT_PREFIX: &str = "WATERSHED__";
/// Bytes of a configuration file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Depth of tables in a configuration.
const DEPTH_MAX: usize = 8;

/// Where each key was written.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Location>);

impl Places {
    /// The place of a dotted key; of the section when the key itself was left to its default.
    pub fn of(&self, key: &str) -> Option<Location> {
        let mut key = key;
        loop {
            if let Some(place) = self.0.get(key) {
                return Some(place.clone());
            }
            key = key.rsplit_once('.')?.0;
        }
    }

    /// Whether the key was written, and is not left to its default.
    pub fn is_written(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// An error about a key, at its place.
    pub fn error(&self, key: &str, message: impl Into<String>) -> Diagnostic {
        let finding = Diagnostic::error(message);
        match self.of(key) {
            Some(place) => finding.at(place),
            None => finding,
        }
    }
}

/// Lays `file` over the defaults of `T` and `environment` (all variables of the process) over both: the value and where
/// its keys were written. A key that is wrong keeps its default; `None` only if the file cannot be read at all.
pub fn lay<T>(file: Option<&Arc<SourceFile>>, environment: &BTreeMap<String, String>) -> (Option<(T, Places)>, Vec<Diagnostic>)
where
    T: Serialize + DeserializeOwned + Default,
{
    let defaults = serde_json::to_value(T::default()).unwrap_or(Value::Null);
    let try_out = |path: &[String], value: &Value| {
        let mut whole = defaults.clone();
        put(&mut whole, path, Some(value.clone()));
        serde_json::from_value::<T>(whole).map(drop).map_err(|error| error.to_string())
    };
    let mut found = Found { defaults: &defaults, try_out: &try_out, places: Places::default(), findings: Vec::new(), wrong: Vec::new() };
    if let Some(source) = file {
        found.check_file(source);
    }
    let overrides = found.check_environment(environment);
    let Found { places, mut findings, wrong, .. } = found;
    let built = build::<T>(file, overrides, &defaults);
    let value = if findings.is_empty() { built.and_then(config::Config::try_deserialize) } else { built.and_then(|built| forgiven(built, &defaults, &wrong)) };
    match value {
        Ok(value) => (Some((value, places)), findings),
        Err(error) => {
            // What was found already says why.
            if findings.is_empty() {
                findings.push(located(&error, &places));
            }
            (None, findings)
        }
    }
}

/// Puts a value, or nothing, at a path of names.
fn put(whole: &mut Value, path: &[String], value: Option<Value>) {
    let (Some((name, rest)), Value::Object(members)) = (path.split_first(), whole) else { return };
    match (rest.is_empty(), value) {
        (true, Some(value)) => drop(members.insert(name.clone(), value)),
        (true, None) => drop(members.remove(name)),
        (false, value) => put(members.entry(name.clone()).or_insert_with(|| Value::Object(serde_json::Map::new())), rest, value),
    }
}

fn at<'a>(whole: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(whole, |here, name| here.get(name))
}

/// The value without what was found wrong in it.
fn forgiven<T: DeserializeOwned>(built: config::Config, defaults: &Value, wrong: &[Vec<String>]) -> Result<T, config::ConfigError> {
    let mut value: Value = built.try_deserialize()?;
    keep_known(&mut value, defaults, 0);
    wrong.iter().for_each(|path| put(&mut value, path, at(defaults, path).cloned()));
    serde_json::from_value(value).map_err(|error| config::ConfigError::Message(error.to_string()))
}

/// Puts the default in the place of every value of another kind, and drops the keys that nobody knows.
fn keep_known(value: &mut Value, defaults: &Value, depth: usize) {
    if std::mem::discriminant(value) != std::mem::discriminant(defaults) && !defaults.is_null() {
        *value = defaults.clone();
    }
    if let (Value::Object(members), Value::Object(known)) = (value, defaults)
        && !known.is_empty()
        && depth < DEPTH_MAX
    {
        members.retain(|name, _| known.contains_key(name));
        for (name, inner) in members {
            keep_known(inner, known.get(name).unwrap_or(&Value::Null), depth + 1);
        }
    }
}

fn build<T>(file: Option<&Arc<SourceFile>>, environment: BTreeMap<String, String>, defaults: &Value) -> Result<config::Config, config::ConfigError>
where
    T: Serialize + Default,
{
    let mut builder = config::Config::builder().add_source(config::Config::try_from(&T::default())?);
    if let Some(source) = file {
        builder = builder.add_source(config::File::from_str(&source.text, config::FileFormat::Toml));
    }
    let mut variables = config::Environment::with_prefix("WATERSHED")
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .source(Some(environment.into_iter().collect()));
    for list in lists(defaults, "", 0) {
        variables = variables.with_list_parse_key(&list);
    }
    builder.add_source(variables).build()
}

/// Keys whose default is a list: only these are split at commas in the environment.
fn lists(defaults: &Value, key: &str, depth: usize) -> Vec<String> {
    match defaults {
        Value::Array(_) => vec![key.to_owned()],
        Value::Object(members) if depth < DEPTH_MAX => members.iter().flat_map(|(name, inner)| lists(inner, &dotted(key, name), depth + 1)).collect(),
        _ => Vec::new(),
    }
}

fn dotted(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

fn place(source: &Arc<SourceFile>, range: std::ops::Range<usize>) -> Location {
    let byte = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Location::new(source, Span::new(byte(range.start), byte(range.end)))
}

/// Whether a value is one that the key at a path takes; else why not, in serde's words.
type TryOut<'a> = &'a dyn Fn(&[String], &Value) -> Result<(), String>;

/// What was found, beside the defaults.
struct Found<'a> {
    defaults: &'a Value,
    try_out: TryOut<'a>,
    places: Places,
    findings: Vec<Diagnostic>,
    /// Paths whose values are wrong.
    wrong: Vec<Vec<String>>,
}

impl Found<'_> {
    fn check_file(&mut self, source: &Arc<SourceFile>) {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let finding = Diagnostic::error(format!("this is not TOML: {}", error.message().to_lowercase().replace('\n', "; ")));
            self.findings.push(match error.span() {
                Some(range) => finding.at(place(source, range)),
                None => finding,
            });
        }
        self.table(source, table.get_ref(), self.defaults, &[]);
    }

    fn table(&mut self, source: &Arc<SourceFile>, table: &DeTable<'_>, defaults: &Value, above: &[String]) {
        let Value::Object(known) = defaults else { return };
        for (name, value) in table.iter() {
            let path = [above, &[name.get_ref().to_string()]].concat();
            let here = place(source, value.span());
            self.places.0.insert(path.join("."), here.clone());
            match known.get(name.get_ref().as_ref()) {
                Some(default) if path.len() <= DEPTH_MAX => self.value(source, value, default, &path),
                _ if known.is_empty() => self.judge(&path, &plain(value.get_ref(), 0), here), // a map whose names are the user's
                _ => {
                    let finding = Diagnostic::error(format!("unknown key `{}`", path.join("."))).at(place(source, name.span()));
                    self.findings.push(finding.help(suggestion(name.get_ref(), known.keys())));
                }
            }
        }
    }

    fn value(&mut self, source: &Arc<SourceFile>, value: &Spanned<DeValue<'_>>, default: &Value, path: &[String]) {
        let fits = match (value.get_ref(), default) {
            (DeValue::Table(table), Value::Object(_)) => return self.table(source, table, default, path),
            (_, Value::Null) | (DeValue::String(_), Value::String(_)) | (DeValue::Boolean(_), Value::Bool(_)) | (DeValue::Array(_), Value::Array(_)) => true,
            (DeValue::Integer(_), Value::Number(_)) => true,
            (DeValue::Float(_), Value::Number(number)) => !(number.is_i64() || number.is_u64()),
            _ => false,
        };
        let here = place(source, value.span());
        if fits {
            return self.judge(path, &plain(value.get_ref(), 0), here);
        }
        self.unfit(path, default, value.get_ref().type_str(), here);
    }

    fn unfit(&mut self, path: &[String], default: &Value, found: &str, here: Location) {
        let finding = Diagnostic::error(format!("`{}` must be {}, found {found}", path.join("."), kind(default)));
        self.findings.push(finding.at(here).help(format!("its default is `{default}`")));
        self.wrong.push(path.to_vec());
    }

    /// Whether a value of the right kind is one that its key takes.
    fn judge(&mut self, path: &[String], value: &Value, here: Location) {
        let Err(error) = (self.try_out)(path, value) else { return };
        let (key, default) = (path.join("."), at(self.defaults, path));
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let expected = error.split("expected ").nth(1).unwrap_or_default();
        let choices: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let (message, help) = match choices.as_slice() {
            [_, ..] if error.starts_with("unknown variant") => {
                let quoted = choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
                let near = nearest(&shown, choices.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                (format!("`{key}` is `{shown}`"), format!("it is one of {quoted}{near}"))
            }
            _ if value.is_number() && default.is_some_and(Value::is_number) => {
                let kind = if shown.starts_with('-') { "not a negative one" } else { "a smaller one" };
                (format!("`{key}` is {shown}"), format!("a whole number, {kind}; its default is `{}`", default.map(Value::to_string).unwrap_or_default()))
            }
            _ => (format!("`{key}`: {error}"), default.map_or_else(String::new, |default| format!("its default is `{default}`"))),
        };
        let finding = Diagnostic::error(message).at(here);
        self.findings.push(if help.is_empty() { finding } else { finding.help(help) });
        self.wrong.push(path.to_vec());
    }

    /// The variables that set a key rightly; an error for each that names none, or holds what its key does not take.
    fn check_environment(&mut self, environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut overrides = BTreeMap::new();
        for (name, text) in environment {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let path: Vec<String> = key.to_lowercase().split("__").map(str::to_owned).collect();
            let before = self.findings.len();
            match self.default_of(name, &path) {
                Some(default) => {
                    let source = SourceFile::new(format!("environment variable {name}"), text.as_str());
                    let here = place(&source, 0..text.len());
                    self.places.0.insert(path.join("."), here.clone());
                    match read(text, &default) {
                        Some(value) => self.judge(&path, &value, here),
                        None => self.unfit(&path, &default, "text", here),
                    }
                }
                None => continue,
            }
            if self.findings.len() == before {
                // It takes the place of what the file says, be that right or wrong.
                self.wrong.retain(|wrong| *wrong != path);
                overrides.insert(name.clone(), text.clone());
            }
        }
        overrides
    }

    /// The default of the key that a variable names.
    fn default_of(&mut self, variable: &str, path: &[String]) -> Option<Value> {
        let mut here = self.defaults;
        for part in path {
            match here {
                Value::Object(members) if members.is_empty() => return Some(Value::Null),
                Value::Object(members) => match members.get(part) {
                    Some(inner) => here = inner,
                    None => {
                        let help = suggestion(part, members.keys());
                        self.findings.push(Diagnostic::error(format!("environment variable `{variable}` sets no known key")).help(help));
                        return None;
                    }
                },
                _ => {
                    self.findings.push(Diagnostic::error(format!("environment variable `{variable}` sets no known key")));
                    return None;
                }
            }
        }
        match here {
            Value::Object(members) => {
                let help = suggestion("", members.keys());
                self.findings
                    .push(Diagnostic::error(format!("environment variable `{variable}` names a section, and no key of it")).help(help));
                None
            }
            default => Some(default.clone()),
        }
    }
}

/// A variable's text as its key is meant; `None` if it cannot be that.
fn read(text: &str, default: &Value) -> Option<Value> {
    match default {
        Value::Bool(_) => text.trim().to_lowercase().parse::<bool>().ok().map(Value::from),
        Value::Number(number) if number.is_f64() => text.trim().parse::<f64>().ok().map(Value::from),
        Value::Number(_) => text.trim().parse::<i64>().ok().map(Value::from),
        Value::Array(_) => Some(text.split(',').map(Value::from).collect()),
        _ => Some(Value::from(text)),
    }
}

/// A value of TOML as JSON has it.
fn plain(value: &DeValue<'_>, depth: usize) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| Value::from(number.to_string()), Value::from),
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or_else(|_| Value::from(number.as_str()), Value::from),
        DeValue::Boolean(is) => Value::from(*is),
        DeValue::Datetime(at) => Value::from(at.to_string()),
        DeValue::Array(_) | DeValue::Table(_) if depth >= DEPTH_MAX => Value::Null,
        DeValue::Array(items) => items.iter().map(|item| plain(item.get_ref(), depth + 1)).collect(),
        DeValue::Table(table) => Value::Object(table.iter().map(|(name, value)| (name.get_ref().to_string(), plain(value.get_ref(), depth + 1))).collect()),
    }
}

fn kind(default: &Value) -> &'static str {
    match default {
        Value::String(_) => "text in quotes",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_i64() || number.is_u64() => "a whole number",
        Value::Number(_) => "a number",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
        Value::Null => "anything",
    }
}

fn suggestion<'a>(wanted: &str, known: impl Iterator<Item = &'a String> + Clone) -> String {
    match nearest(wanted, known.clone().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

/// What `config` says, at the place of the key it names.
fn located(error: &config::ConfigError, places: &Places) -> Diagnostic {
    let message = error.to_string();
    let key = message.split("for key `").nth(1).and_then(|rest| rest.split('`').next()).unwrap_or_default().to_owned();
    places.error(&key, message.replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        name: String,
        limits: Limits,
        free: BTreeMap<String, String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Limits {
        months: u32,
        share: f64,
        folders: Vec<String>,
        kind: Kind,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        Fast,
        Slow,
    }

    impl Default for Limits {
        fn default() -> Self {
            Limits { months: 24, share: 0.5, folders: Vec::new(), kind: Kind::Fast }
        }
    }

    fn check(text: &str, variables: &[(&str, &str)]) -> Result<Example, String> {
        let source = SourceFile::new("site.toml", text);
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match lay::<Example>(Some(&source), &environment) {
            (Some((value, _)), findings) if findings.is_empty() => Ok(value),
            (_, findings) => Err(crate::diagnostic::render_human(&findings, false)),
        }
    }

    #[test]
    fn the_file_lies_over_the_defaults_and_the_environment_over_the_file() {
        let example = check("name = 'a'\n[limits]\nmonths = 3\n", &[("WATERSHED__LIMITS__MONTHS", "5"), ("WATERSHED__LIMITS__FOLDERS", "x,y"), ("PATH", "/")]).unwrap();
        assert_eq!(example.name, "a");
        assert_eq!(example.limits, Limits { months: 5, folders: vec!["x".into(), "y".into()], ..Limits::default() });
    }

    #[test]
    fn what_a_variable_sets_is_said_of_the_variable_and_not_of_a_line_of_the_file() {
        let report = check("[limits]\nmonths = 3\n", &[("WATERSHED__LIMITS__MONTHS", "two"), ("WATERSHED__LIMITS__KIND", "slov"), ("WATERSHED__LIMITS", "x")]).unwrap_err();
        for expected in [
            "`limits.months` must be a whole number, found text",
            "environment variable WATERSHED__LIMITS__MONTHS:1:1",
            "`limits.kind` is `slov`",
            "environment variable WATERSHED__LIMITS__KIND:1:1",
            "did you mean `slow`?",
            "`WATERSHED__LIMITS` names a section",
        ] {
            assert!(report.contains(expected), "`{expected}` is missing in\n{report}");
        }
        assert!(!report.contains("site.toml"), "{report}");
        let source = SourceFile::new("site.toml", "name = 'a'\n[limits]\nkind = 'fast'\n");
        let environment = BTreeMap::from([("WATERSHED__NAME".to_owned(), "b".to_owned())]);
        let (_, places) = lay::<Example>(Some(&source), &environment).0.unwrap();
        assert_eq!(
            (places.of("name").unwrap().source.name.as_str(), places.of("limits.kind").unwrap().source.name.as_str()),
            ("environment variable WATERSHED__NAME", "site.toml")
        );
    }

    #[test]
    fn a_value_that_its_key_does_not_take_is_told_with_those_that_it_takes() {
        let report = check("[limits]\nmonths = -3\nkind = 'fasst'\nfolders = [1]\n[free]\nx = 3\n", &[]).unwrap_err();
        for expected in [
            "`limits.months` is -3",
            "a whole number, not a negative one; its default is `24`",
            "`limits.kind` is `fasst`",
            "it is one of `fast`, `slow`; did you mean `fast`?",
            "`limits.folders`: invalid type: number, expected a string",
            "`free.x`: invalid type: number, expected a string",
            "site.toml:2:10",
        ] {
            assert!(report.contains(expected), "`{expected}` is missing in\n{report}");
        }
        // What else is right is read all the same, so that it can be checked too.
        let source = SourceFile::new("site.toml", "name = 'a'\n[limits]\nmonths = -3\nkind = 'fasst'\n");
        let (value, _) = lay::<Example>(Some(&source), &BTreeMap::new()).0.unwrap();
        assert_eq!((value.name.as_str(), value.limits), ("a", Limits::default()));
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_place_and_the_nearest_key() {
        let report = check("name = 3\n[limits]\nmonth = 3\nshare = 'much'\n", &[("WATERSHED__LIMITS__MONHTS", "5")]).unwrap_err();
        for expected in [
            "`name` must be text in quotes, found integer",
            "site.toml:1:8",
            "unknown key `limits.month`",
            "did you mean `months`?",
            "site.toml:3:1",
            "`limits.share` must be a number",
            "`WATERSHED__LIMITS__MONHTS` sets no known key",
        ] {
            assert!(report.contains(expected), "`{expected}` is missing in\n{report}");
        }
    }

    #[test]
    fn broken_toml_is_reported_and_never_panics() {
        for text in ["a = ", "[", "a = 1\na = 2", "\u{feff}", "name = \"", "x = [1, 2"] {
            let _ = check(text, &[]);
        }
    }

    #[test]
    fn names_of_a_free_map_are_the_users() {
        assert_eq!(check("[free]\nanything = 'goes'", &[]).unwrap().free["anything"], "goes");
    }
}
