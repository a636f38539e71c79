//! Search: which parameters each type knows, how they are read, what they match.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp};

use super::chart::Version;
use super::draft::KeyValue;
use super::moment::Calendar;

/// Parameters in one search.
pub(super) const PARAMETERS_MAX: usize = 64;
/// Alternatives in one parameter's value.
pub(super) const ALTERNATIVES_MAX: usize = 1_000;

/// How a parameter's value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    Token,
    Reference(&'static [&'static str]),
    Date,
    Text,
    LastUpdated,
}

impl Kind {
    /// The type's name in a CapabilityStatement.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Id | Kind::Token => "token",
            Kind::Reference(_) => "reference",
            Kind::Date | Kind::LastUpdated => "date",
            Kind::Text => "string",
        }
    }
}

/// One search parameter of a type.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    /// Its name in FHIR R4.
    pub(super) name: &'static str,
    /// The name under which drafts remember the value.
    key: &'static str,
    pub(super) kind: Kind,
}

const fn parameter(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, key: name, kind }
}

const PATIENT: Kind = Kind::Reference(&["Patient"]);
const ENCOUNTER: Kind = Kind::Reference(&["Encounter"]);
const BY_PATIENT: [Parameter; 2] = [parameter("patient", PATIENT), Parameter { name: "subject", key: "patient", kind: PATIENT }];

/// What every type knows.
pub(super) static EVERY: [Parameter; 2] = [parameter("_id", Kind::Id), parameter("_lastUpdated", Kind::LastUpdated)];

/// What one type knows beside [`EVERY`].
pub(super) struct TypeSearch {
    pub(super) kind: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// References that `_include` can follow, as their parameters.
    pub(super) includes: &'static [&'static str],
}

static CONDITION: [Parameter; 9] = [
    BY_PATIENT[0],
    BY_PATIENT[1],
    parameter("encounter", ENCOUNTER),
    parameter("code", Kind::Token),
    parameter("category", Kind::Token),
    parameter("clinical-status", Kind::Token),
    parameter("verification-status", Kind::Token),
    parameter("onset-date", Kind::Date),
    parameter("recorded-date", Kind::Date),
];
static COVERAGE: [Parameter; 5] = [
    BY_PATIENT[0],
    Parameter { name: "beneficiary", key: "patient", kind: PATIENT },
    parameter("payor", Kind::Reference(&["Organization", "Patient", "RelatedPerson"])),
    parameter("status", Kind::Token),
    parameter("type", Kind::Token),
];
static DEVICE: [Parameter; 3] = [BY_PATIENT[0], parameter("status", Kind::Token), parameter("type", Kind::Token)];
static DEVICE_USE: [Parameter; 3] = [BY_PATIENT[0], BY_PATIENT[1], parameter("device", Kind::Reference(&["Device"]))];
static ENCOUNTER_SEARCH: [Parameter; 7] = [
    BY_PATIENT[0],
    BY_PATIENT[1],
    parameter("class", Kind::Token),
    parameter("date", Kind::Date),
    parameter("location", Kind::Reference(&["Location"])),
    parameter("status", Kind::Token),
    parameter("type", Kind::Token),
];
static GROUP: [Parameter; 1] = [parameter("type", Kind::Token)];
static LOCATION: [Parameter; 3] = [parameter("name", Kind::Text), parameter("partof", Kind::Reference(&["Location"])), parameter("status", Kind::Token)];
static MEDICATION_REQUEST: [Parameter; 7] = [
    BY_PATIENT[0],
    BY_PATIENT[1],
    parameter("authoredon", Kind::Date),
    parameter("code", Kind::Token),
    parameter("encounter", ENCOUNTER),
    parameter("intent", Kind::Token),
    parameter("status", Kind::Token),
];
static OBSERVATION: [Parameter; 8] = [
    BY_PATIENT[0],
    BY_PATIENT[1],
    parameter("category", Kind::Token),
    parameter("code", Kind::Token),
    parameter("date", Kind::Date),
    parameter("encounter", ENCOUNTER),
    parameter("status", Kind::Token),
    parameter("value-concept", Kind::Token),
];
static ORGANIZATION: [Parameter; 1] = [parameter("name", Kind::Text)];
static PATIENT_SEARCH: [Parameter; 6] = [
    parameter("birthdate", Kind::Date),
    parameter("family", Kind::Text),
    parameter("gender", Kind::Token),
    parameter("given", Kind::Text),
    parameter("identifier", Kind::Token),
    parameter("language", Kind::Token),
];
static PRACTITIONER: [Parameter; 1] = [parameter("identifier", Kind::Token)];
static PROCEDURE: [Parameter; 6] =
    [BY_PATIENT[0], BY_PATIENT[1], parameter("code", Kind::Token), parameter("date", Kind::Date), parameter("encounter", ENCOUNTER), parameter("status", Kind::Token)];

/// Every type that the hospital has.
pub(super) static TYPES: [TypeSearch; 13] = [
    TypeSearch { kind: "Condition", parameters: &CONDITION, includes: &["encounter", "patient"] },
    TypeSearch { kind: "Coverage", parameters: &COVERAGE, includes: &["patient", "payor"] },
    TypeSearch { kind: "Device", parameters: &DEVICE, includes: &["patient"] },
    TypeSearch { kind: "DeviceUseStatement", parameters: &DEVICE_USE, includes: &["device", "patient"] },
    TypeSearch { kind: "Encounter", parameters: &ENCOUNTER_SEARCH, includes: &["location", "patient"] },
    TypeSearch { kind: "Group", parameters: &GROUP, includes: &[] },
    TypeSearch { kind: "Location", parameters: &LOCATION, includes: &["partof"] },
    TypeSearch { kind: "MedicationRequest", parameters: &MEDICATION_REQUEST, includes: &["encounter", "patient"] },
    TypeSearch { kind: "Observation", parameters: &OBSERVATION, includes: &["encounter", "patient"] },
    TypeSearch { kind: "Organization", parameters: &ORGANIZATION, includes: &[] },
    TypeSearch { kind: "Patient", parameters: &PATIENT_SEARCH, includes: &[] },
    TypeSearch { kind: "Practitioner", parameters: &PRACTITIONER, includes: &[] },
    TypeSearch { kind: "Procedure", parameters: &PROCEDURE, includes: &["encounter", "patient"] },
];

/// The searches of a type, if the hospital has it.
pub(super) fn type_search(kind: &str) -> Option<&'static TypeSearch> {
    TYPES.iter().find(|one| one.kind == kind)
}

/// A request that cannot be understood: the code of an OperationOutcome issue, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into() }
    }
}

/// One condition: any of the alternatives.
#[derive(Debug, Clone)]
struct Condition {
    key: &'static str,
    tests: Vec<Test>,
}

#[derive(Debug, Clone)]
enum Test {
    Id(String),
    /// `None` matches any system, an empty one only codes without a system.
    Token {
        system: Option<String>,
        code: Option<String>,
    },
    /// `Type/id` in any of these forms.
    Reference(Vec<String>),
    Span {
        prefix: Prefix,
        from: i64,
        to: i64,
    },
    Text(String),
    Updated {
        prefix: Prefix,
        from: Timestamp,
        to: Timestamp,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    StartsAfter,
    EndsBefore,
}

/// A search that has been understood.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    conditions: Vec<Condition>,
    /// The one patient whose resources can match, if the search names exactly one.
    pub(super) patient: Option<String>,
    /// `_count`.
    pub(super) count: Option<u32>,
    /// `_total=accurate`.
    pub(super) total: bool,
    /// `_summary=count`.
    pub(super) only_count: bool,
    /// `_sort=_lastUpdated`.
    pub(super) by_time: bool,
    /// Parameters whose references `_include` follows.
    pub(super) includes: BTreeSet<&'static str>,
    /// What was understood, as sent, for the self link.
    pub(super) understood: Vec<(String, String)>,
    /// What was ignored because the client asked for lenient handling.
    pub(super) ignored: Vec<String>,
}

impl Query {
    /// Reads a search. Nothing is ignored silently: what is not understood is refused, or listed in
    /// `ignored` if the client asked for lenient handling.
    pub(super) fn parse(search: &TypeSearch, parameters: &[(String, String)], lenient: bool, calendar: &Calendar) -> Result<Query, Refusal> {
        if parameters.len() > PARAMETERS_MAX {
            return Err(Refusal::new("too-costly", format!("a search has at most {PARAMETERS_MAX} parameters")));
        }
        let mut query = Query::default();
        for (name, value) in parameters {
            match query.add(search, name, value, calendar) {
                Ok(()) => query.understood.push((name.clone(), value.clone())),
                Err(refusal) if lenient && refusal.code == "not-supported" => query.ignored.push(name.clone()),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(query)
    }

    fn add(&mut self, search: &TypeSearch, name: &str, value: &str, calendar: &Calendar) -> Result<(), Refusal> {
        match name {
            "_count" => {
                let count = value.parse().map_err(|_| Refusal::new("value", "`_count` must be a whole number"))?;
                self.count = Some(count);
                return Ok(());
            }
            "_format" => return check_format(value),
            "_total" => {
                self.total = match value {
                    "accurate" => true,
                    "none" => false,
                    _ => return Err(Refusal::new("not-supported", "`_total` is `none` or `accurate` here")),
                };
                return Ok(());
            }
            "_summary" if value == "count" => {
                self.only_count = true;
                return Ok(());
            }
            "_sort" if value == "_lastUpdated" => {
                self.by_time = true;
                return Ok(());
            }
            "_include" => return self.add_include(search, value),
            _ => {}
        }
        if let Some((base, modifier)) = name.split_once(':') {
            return Err(Refusal::new("not-supported", format!("modifier `:{modifier}` of `{base}` is not supported")));
        }
        let known = EVERY.iter().chain(search.parameters).find(|parameter| parameter.name == name);
        let Some(parameter) = known else {
            let names: Vec<&str> = EVERY.iter().chain(search.parameters).map(|parameter| parameter.name).collect();
            return Err(Refusal::new("not-supported", format!("`{name}` is not a search parameter of {} here; there are {}", search.kind, names.join(", "))));
        };
        let alternatives = split_escaped(value);
        if alternatives.len() > ALTERNATIVES_MAX {
            return Err(Refusal::new("too-costly", format!("`{name}` has more than {ALTERNATIVES_MAX} alternatives")));
        }
        let tests = alternatives.iter().map(|one| read_test(parameter, one, calendar)).collect::<Result<Vec<_>, _>>()?;
        if let ("patient", [Test::Reference(targets)]) = (parameter.key, tests.as_slice()) {
            self.patient = targets.first().and_then(|target| target.strip_prefix("Patient/")).map(str::to_owned);
        }
        self.conditions.push(Condition { key: parameter.key, tests });
        Ok(())
    }

    fn add_include(&mut self, search: &TypeSearch, value: &str) -> Result<(), Refusal> {
        let mut parts = value.split(':');
        let (kind, parameter) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let known = search.includes.iter().find(|include| **include == parameter);
        match known {
            Some(include) if kind == search.kind => {
                self.includes.insert(include);
                Ok(())
            }
            _ => Err(Refusal::new("not-supported", format!("`_include={value}` is not supported"))),
        }
    }

    /// Ids, if the search asks for single resources.
    pub(super) fn ids(&self) -> Option<Vec<&str>> {
        let condition = self.conditions.iter().find(|condition| condition.key == "_id")?;
        Some(condition.tests.iter().filter_map(|test| if let Test::Id(id) = test { Some(id.as_str()) } else { None }).collect())
    }

    /// Whether a resource matches every condition.
    pub(super) fn matches(&self, version: &Version) -> bool {
        let Some(content) = &version.content else { return false };
        self.conditions.iter().all(|condition| {
            condition.tests.iter().any(|test| match test {
                Test::Id(id) => *version.id == **id,
                Test::Updated { prefix, from, to } => {
                    compare(*prefix, (version.updated.as_nanosecond(), version.updated.as_nanosecond() + 1), (from.as_nanosecond(), to.as_nanosecond()))
                }
                other => {
                    let mut values = content.keys.iter().filter(|key| key.name == condition.key);
                    values.any(|key| test_value(other, &key.value))
                }
            })
        })
    }
}

fn check_format(value: &str) -> Result<(), Refusal> {
    match value {
        "json" | "application/json" | "application/fhir+json" | "text/json" => Ok(()),
        _ => Err(Refusal::new("not-supported", "`_format` is json here")),
    }
}

fn read_test(parameter: &Parameter, value: &str, calendar: &Calendar) -> Result<Test, Refusal> {
    if value.is_empty() {
        return Err(Refusal::new("value", format!("`{}` has an empty value", parameter.name)));
    }
    Ok(match parameter.kind {
        Kind::Id => Test::Id(value.to_owned()),
        Kind::Token => match value.split_once('|') {
            None => Test::Token { system: None, code: Some(unescape(value)) },
            Some((system, "")) => Test::Token { system: Some(unescape(system)), code: None },
            Some((system, code)) => Test::Token { system: Some(unescape(system)), code: Some(unescape(code)) },
        },
        Kind::Reference(types) => Test::Reference(read_reference(types, value)),
        Kind::Text => Test::Text(unescape(value).to_lowercase()),
        Kind::Date => {
            let (prefix, from, to) = read_date(parameter.name, value, calendar)?;
            Test::Span { prefix, from: from.as_second(), to: to.as_second().max(from.as_second() + 1) }
        }
        Kind::LastUpdated => {
            let (prefix, from, to) = read_date(parameter.name, value, calendar)?;
            Test::Updated { prefix, from, to }
        }
    })
}

/// The forms under which the referenced resource can be stored: `Type/id`.
fn read_reference(types: &[&str], value: &str) -> Vec<String> {
    let mut tail = value.rsplit('/');
    match (tail.next(), tail.next()) {
        (Some(id), Some(kind)) => vec![format!("{kind}/{id}")],
        _ => types.iter().map(|kind| format!("{kind}/{value}")).collect(),
    }
}

/// Reads a date with its prefix as the instants it covers: from, and the one after the last.
fn read_date(name: &str, value: &str, calendar: &Calendar) -> Result<(Prefix, Timestamp, Timestamp), Refusal> {
    let (prefix, text) = match value.get(..2) {
        Some("eq") => (Prefix::Equal, &value[2..]),
        Some("ne") => (Prefix::NotEqual, &value[2..]),
        Some("gt") => (Prefix::Greater, &value[2..]),
        Some("lt") => (Prefix::Less, &value[2..]),
        Some("ge") => (Prefix::GreaterEqual, &value[2..]),
        Some("le") => (Prefix::LessEqual, &value[2..]),
        Some("sa") => (Prefix::StartsAfter, &value[2..]),
        Some("eb") => (Prefix::EndsBefore, &value[2..]),
        _ => (Prefix::Equal, value),
    };
    let (from, to) =
        read_span(text, calendar).ok_or_else(|| Refusal::new("value", format!("`{name}` must be a date or dateTime, with a prefix or without, such as `ge2026-01-01`")))?;
    Ok((prefix, from, to))
}

/// The instants that a FHIR date or dateTime covers; without an offset it is the hospital's time.
pub(super) fn read_span(text: &str, calendar: &Calendar) -> Option<(Timestamp, Timestamp)> {
    let day = |date: Date| calendar.moment(date, 0).at;
    match text.len() {
        4 => {
            let first = Date::new(text.parse().ok()?, 1, 1).ok()?;
            Some((day(first), day(first.checked_add(Span::new().years(1)).ok()?)))
        }
        7 => {
            let (year, month) = text.split_once('-')?;
            let first = Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?;
            Some((day(first), day(first.checked_add(Span::new().months(1)).ok()?)))
        }
        10 => {
            let date: Date = text.parse().ok()?;
            Some((day(date), day(date.tomorrow().ok()?)))
        }
        16.. => {
            let from = if text.ends_with('Z') || text.get(16..)?.contains(['+', '-']) {
                text.parse::<Timestamp>().ok()?
            } else {
                let local: DateTime = text.parse().ok()?;
                let minute = i64::from(local.hour()) * 60 + i64::from(local.minute());
                calendar.moment(local.date(), minute).at.checked_add(Span::new().seconds(local.second())).ok()?
            };
            let step = match text.get(19..20) {
                Some(".") => Span::new().milliseconds(1),
                _ if text.get(16..17) == Some(":") => Span::new().seconds(1),
                _ => Span::new().minutes(1),
            };
            Some((from, from.checked_add(step).ok()?))
        }
        _ => None,
    }
}

/// FHIR's comparison of two spans: the resource's and the parameter's.
fn compare<T: Ord + Copy>(prefix: Prefix, resource: (T, T), asked: (T, T)) -> bool {
    let inside = resource.0 >= asked.0 && resource.1 <= asked.1;
    match prefix {
        Prefix::Equal => inside,
        Prefix::NotEqual => !inside,
        Prefix::Greater => resource.1 > asked.1,
        Prefix::Less => resource.0 < asked.0,
        Prefix::GreaterEqual => inside || resource.1 > asked.1,
        Prefix::LessEqual => inside || resource.0 < asked.0,
        Prefix::StartsAfter => resource.0 >= asked.1,
        Prefix::EndsBefore => resource.1 <= asked.0,
    }
}

fn test_value(test: &Test, value: &KeyValue) -> bool {
    match (test, value) {
        (Test::Token { system, code }, KeyValue::Token { system: own_system, code: own_code }) => {
            system.as_deref().is_none_or(|system| system == own_system) && code.as_deref().is_none_or(|code| code == own_code)
        }
        (Test::Reference(targets), KeyValue::Reference(own)) => targets.contains(own),
        (Test::Span { prefix, from, to }, KeyValue::Span(own_from, own_to)) => compare(*prefix, (*own_from, *own_to), (*from, *to)),
        (Test::Text(start), KeyValue::Text(own)) => own.starts_with(start.as_str()),
        _ => false,
    }
}

/// Splits at commas that are not escaped.
fn split_escaped(value: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            ',' => parts.push(String::new()),
            other => {
                let Some(part) = parts.last_mut() else { continue };
                part.push(other);
                if other == '\\' {
                    part.extend(characters.next());
                }
            }
        }
    }
    parts
}

/// Takes the escapes of `\,`, `\|`, `\$` and `\\` off.
fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(characters.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    fn calendar() -> Calendar {
        Calendar::new(TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap(), date(2026, 7, 15), 24)
    }

    #[test]
    fn dates_cover_what_they_say() {
        for (text, from, to) in [
            ("2026", "2026-01-01T05:00:00Z", "2027-01-01T05:00:00Z"),
            ("2026-07", "2026-07-01T04:00:00Z", "2026-08-01T04:00:00Z"),
            ("2026-07-04", "2026-07-04T04:00:00Z", "2026-07-05T04:00:00Z"),
            ("2026-07-04T10:00:00Z", "2026-07-04T10:00:00Z", "2026-07-04T10:00:01Z"),
            ("2026-07-04T10:00:00.5+02:00", "2026-07-04T08:00:00.5Z", "2026-07-04T08:00:00.501Z"),
            ("2026-07-04T10:00", "2026-07-04T14:00:00Z", "2026-07-04T14:01:00Z"),
        ] {
            let found = read_span(text, &calendar()).unwrap();
            assert_eq!(found, (from.parse().unwrap(), to.parse().unwrap()), "{text}");
        }
        for text in ["", "26", "2026-13", "2026-02-30", "yesterday", "2026-07-04T25:00:00Z", "2026-07-04T10", "ééé"] {
            assert_eq!(read_span(text, &calendar()), None, "{text}");
        }
    }

    #[test]
    fn prefixes_compare_spans() {
        let asked = (10, 20);
        let cases = [((10, 20), "eq ge le"), ((12, 13), "eq ge le"), ((20, 21), "ne gt ge sa"), ((9, 10), "ne lt le eb"), ((5, 25), "ne gt lt ge le")];
        for (resource, holds) in cases {
            let found: Vec<&str> = [
                ("eq", Prefix::Equal),
                ("ne", Prefix::NotEqual),
                ("gt", Prefix::Greater),
                ("lt", Prefix::Less),
                ("ge", Prefix::GreaterEqual),
                ("le", Prefix::LessEqual),
                ("sa", Prefix::StartsAfter),
                ("eb", Prefix::EndsBefore),
            ]
            .into_iter()
            .filter(|(_, prefix)| compare(*prefix, resource, asked))
            .map(|(name, _)| name)
            .collect();
            assert_eq!(found.join(" "), holds, "{resource:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let search = type_search("Observation").unwrap();
        let parse = |name: &str, value: &str, lenient| Query::parse(search, &[(name.to_owned(), value.to_owned())], lenient, &calendar());
        for (name, value, code) in [
            ("colour", "blue", "not-supported"),
            ("code:in", "x", "not-supported"),
            ("_sort", "date", "not-supported"),
            ("_include", "Observation:device", "not-supported"),
            ("_revinclude", "x", "not-supported"),
            ("patient.name", "x", "not-supported"),
            ("_format", "xml", "not-supported"),
            ("date", "last week", "value"),
            ("_lastUpdated", "gt", "value"),
            ("_count", "many", "value"),
            ("code", "", "value"),
        ] {
            assert_eq!(parse(name, value, false).unwrap_err().code, code, "{name}={value}");
        }
        assert_eq!(parse("colour", "blue", true).unwrap().ignored, ["colour"]);
        assert!(parse("date", "last week", true).is_err());
        assert!(parse("code", "a\\,b,c", false).is_ok());
        assert_eq!(split_escaped("a\\,b,c"), ["a\\,b", "c"]);
        assert_eq!(unescape("a\\,b\\|c"), "a,b|c");
    }
}
