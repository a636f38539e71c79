//! Defaults, a TOML file and the environment laid over each other; every problem found at once, with its place.
//!
//! The known keys are the keys of the serialised default, so a section's `Options` is written down once.

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
    let mut places = Places::default();
    let mut findings = Vec::new();
    if let Some(source) = file {
        check_file(source, &defaults, &mut places, &mut findings);
    }
    let overrides = check_environment(environment, &defaults, &mut findings);
    let built = build::<T>(file, overrides, &defaults);
    let value = if findings.is_empty() { built.and_then(config::Config::try_deserialize) } else { built.and_then(|built| forgiven(built, &defaults)) };
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

/// The value without what was found wrong in it.
fn forgiven<T: DeserializeOwned>(built: config::Config, defaults: &Value) -> Result<T, config::ConfigError> {
    let mut value: Value = built.try_deserialize()?;
    keep_known(&mut value, defaults, 0);
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

fn check_file(source: &Arc<SourceFile>, defaults: &Value, places: &mut Places, findings: &mut Vec<Diagnostic>) {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    for error in errors {
        let finding = Diagnostic::error(format!("this is not TOML: {}", error.message().to_lowercase().replace('\n', "; ")));
        findings.push(match error.span() {
            Some(range) => finding.at(place(source, range)),
            None => finding,
        });
    }
    Walk { source, places, findings }.table(table.get_ref(), defaults, "", 0);
}

/// One walk over a file, beside the defaults.
struct Walk<'a> {
    source: &'a Arc<SourceFile>,
    places: &'a mut Places,
    findings: &'a mut Vec<Diagnostic>,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, defaults: &Value, key: &str, depth: usize) {
        let Value::Object(known) = defaults else { return };
        for (name, value) in table.iter() {
            let path = dotted(key, name.get_ref());
            self.places.0.insert(path.clone(), place(self.source, value.span()));
            match known.get(name.get_ref().as_ref()) {
                Some(default) if depth < DEPTH_MAX => self.value(value, default, &path, depth + 1),
                _ if known.is_empty() => {} // a map whose names are the user's
                _ => {
                    let finding = Diagnostic::error(format!("unknown key `{path}`")).at(place(self.source, name.span()));
                    self.findings.push(finding.help(suggestion(name.get_ref(), known.keys())));
                }
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, default: &Value, path: &str, depth: usize) {
        let fits = match (value.get_ref(), default) {
            (DeValue::Table(table), Value::Object(_)) => return self.table(table, default, path, depth),
            (_, Value::Null) | (DeValue::String(_), Value::String(_)) | (DeValue::Boolean(_), Value::Bool(_)) | (DeValue::Array(_), Value::Array(_)) => true,
            (DeValue::Integer(_), Value::Number(_)) => true,
            (DeValue::Float(_), Value::Number(number)) => !(number.is_i64() || number.is_u64()),
            _ => false,
        };
        if !fits {
            let found = value.get_ref().type_str();
            let finding = Diagnostic::error(format!("`{path}` must be {}, found {found}", kind(default)));
            self.findings.push(finding.at(place(self.source, value.span())).help(format!("its default is `{default}`")));
        }
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

/// The variables that set a key; an error for each that names none.
fn check_environment(environment: &BTreeMap<String, String>, defaults: &Value, findings: &mut Vec<Diagnostic>) -> BTreeMap<String, String> {
    let mut overrides = BTreeMap::new();
    for (name, value) in environment {
        let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let (mut here, mut known) = (defaults, true);
        for part in key.to_lowercase().split("__") {
            match here {
                Value::Object(members) if members.is_empty() => break,
                Value::Object(members) => match members.get(part) {
                    Some(inner) => here = inner,
                    None => {
                        let help = suggestion(part, members.keys());
                        findings.push(Diagnostic::error(format!("environment variable `{name}` sets no known key")).help(help));
                        known = false;
                        break;
                    }
                },
                _ => known = false,
            }
        }
        if known {
            overrides.insert(name.clone(), value.clone());
        }
    }
    overrides
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
    }

    impl Default for Limits {
        fn default() -> Self {
            Limits { months: 24, share: 0.5, folders: Vec::new() }
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
        assert_eq!(example.limits, Limits { months: 5, share: 0.5, folders: vec!["x".into(), "y".into()] });
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
