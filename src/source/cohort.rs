//! Whose data are taken: everybody's, or those of the patients whom a Group, a list or a search names. Pure.

use super::Options;
use std::fmt;

/// Parameters that say how an answer looks, and of nobody whether he is found.
const OF_ANSWERS: &[&str] =
    &["_contained", "_containedType", "_count", "_elements", "_format", "_include", "_maxresults", "_pretty", "_revinclude", "_score", "_sort", "_summary", "_total"];
/// Parameters that name a person, and belong into no address: who is named is on a list.
const OF_PERSONS: &[&str] = &["_id", "address", "email", "family", "given", "identifier", "name", "phone", "phonetic", "telecom"];
/// Modifiers by which alternatives are none: who is not `a` may be `b`.
const OF_NONE: [&str; 2] = [":not", ":not-in"];
/// Days on which nobody is born, and of which nothing is said.
const LONG_AGO: &str = "1800-01-01";
const NEVER: &str = "2200-01-01";
/// Searches into which one with alternatives is taken apart.
const SEARCHES_MAX: usize = 50;

/// How a search for patients begins.
const BEGINNING: &str = "it begins with `Patient?`: `Patient?organization=Organization/7`";

/// Whose data are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cohort {
    /// Every patient's.
    #[default]
    Everybody,
    /// Those of the members of the Group with this id.
    Group(String),
    /// Those of the patients whom a list of the site's own names.
    List,
    /// Those of the patients whom a search of the site's own finds.
    Search(String),
}

impl Cohort {
    /// Whom the configuration names.
    pub fn of(options: &Options) -> Cohort {
        match options.group.as_str() {
            _ if options.tuning.patients.is_some() => Cohort::List,
            _ if !options.patients_search.is_empty() => Cohort::Search(options.patients_search.clone()),
            "" => Cohort::Everybody,
            group => Cohort::Group(group.to_owned()),
        }
    }

    /// Whether nobody is left out.
    pub fn is_everybody(&self) -> bool {
        *self == Cohort::Everybody
    }

    /// The searches that find the patients, where searches do.
    pub fn searches(&self) -> Vec<Parameters> {
        if let Cohort::Search(written) = self { searches(written).unwrap_or_default() } else { Vec::new() }
    }
}

impl fmt::Display for Cohort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cohort::Everybody => f.write_str("all patients"),
            Cohort::Group(id) => write!(f, "the patients of Group/{id}"),
            Cohort::List => f.write_str("the patients of the list"),
            Cohort::Search(search) => write!(f, "the patients of {search}"),
        }
    }
}

/// Names and values of a search's parameters.
pub type Parameters = Vec<(String, String)>;

/// The searches that are meant by one for patients, as a person writes it (`Patient?organization=Organization/7`). Alternatives (`a,b`) are
/// searches of their own, for some servers heed the first one only, and say nothing.
///
/// # Errors
/// What is wrong with it, and how it is written.
pub fn searches(written: &str) -> Result<Vec<Parameters>, String> {
    let Some(query) = written.strip_prefix("Patient?") else {
        return Err(match written.split_once('?') {
            Some((other, _)) if !other.is_empty() && !other.eq_ignore_ascii_case("Patient") && other.bytes().all(|letter| letter.is_ascii_alphabetic()) => {
                format!("patients are found by a search of Patient: what is of {other} stands in it as `Patient?_has:{other}:patient:code=…`")
            }
            _ => BEGINNING.to_owned(),
        });
    };
    let mut searches: Vec<Parameters> = vec![Vec::new()];
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let alternatives = alternatives(&value);
        let plain = name.split(':').next().unwrap_or_default();
        if name.is_empty() || alternatives.is_empty() {
            return Err("each of its parameters has a name and a value (`organization=Organization/7`), and `&` stands between them".to_owned());
        }
        if OF_ANSWERS.contains(&plain) {
            return Err(format!("`{name}` says how answers look, and nothing of patients: leave it out"));
        }
        // All who have an identifier of a system are many.
        if OF_PERSONS.contains(&plain) && !(plain == "identifier" && alternatives.iter().all(|one| one.ends_with('|'))) {
            return Err(format!("`{name}` names persons, who stand in no address: have them on a list, `source.patients_file`"));
        }
        if alternatives.len() > 1 && OF_NONE.iter().any(|modifier| name.ends_with(modifier)) {
            return Err(format!("servers read `{name}=a,b` in two ways: write `{name}=a&{name}=b`"));
        }
        let with = |value: &String| {
            searches
                .iter()
                .map(|search| search.iter().cloned().chain([(name.to_string(), value.clone())]).collect())
                .collect::<Vec<_>>()
        };
        searches = alternatives.iter().flat_map(with).collect();
        if searches.len() > SEARCHES_MAX {
            return Err(format!(
                "with its alternatives it is more than {SEARCHES_MAX} searches: have the EHR team make a Group of these patients, or keep a list of them, `source.patients_file`"
            ));
        }
    }
    if searches == [Vec::new()] {
        return Err("it asks for every patient: leave it out, or add parameters".to_owned());
    }
    Ok(searches)
}

/// What is asked to find out whether a search heeds one of its parameters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trial {
    /// The search with a value that nobody has in the place of the one that is meant, or with the opposite of it beside it: it finds nobody. A
    /// server that passes over a value that it cannot read finds more than the search.
    Nobody(Parameters),
    /// The search without the parameter: it finds more. Of what others say of a patient, one may say so and another the opposite.
    More(Parameters),
}

impl Trial {
    /// What is asked.
    pub fn asked(&self) -> &Parameters {
        let (Trial::Nobody(asked) | Trial::More(asked)) = self;
        asked
    }
}

/// The trials of a search, each with the parameter that it is about.
pub fn trials(search: &Parameters) -> Vec<(&str, Trial)> {
    search.iter().enumerate().map(|(place, (name, value))| (name.as_str(), trial(search, place, name, value))).collect()
}

fn trial(search: &Parameters, place: usize, name: &str, value: &str) -> Trial {
    let with = |one: Option<String>| {
        let mut search = search.clone();
        match (one, search.get_mut(place)) {
            (Some(value), Some(own)) => own.1 = value,
            _ => drop(search.remove(place)),
        }
        search
    };
    let opposite = match (name.strip_suffix(":not"), value) {
        (Some(bare), _) => (bare, value),
        (None, "true") => (name, "false"),
        (None, "false") => (name, "true"),
        (None, _) => return Trial::Nobody(with(Some(of_nobody(value)))),
    };
    if name.starts_with("_has:") || name.contains('.') {
        return Trial::More(with(None));
    }
    let beside = search.iter().cloned().chain([(opposite.0.to_owned(), opposite.1.to_owned())]);
    Trial::Nobody(beside.collect())
}

/// A value in the place of another that nobody has, and that looks like it: what looks otherwise some servers pass over.
fn of_nobody(value: &str) -> String {
    const NOBODY: &str = "watershed-probe";
    let (prefix, day) = match value.get(..2) {
        Some(prefix) if ["ap", "eb", "eq", "ge", "gt", "le", "lt", "ne", "sa"].contains(&prefix) => value.split_at(2),
        _ => ("", value),
    };
    let is_day = day.len() >= 4 && day.bytes().take(4).all(|digit| digit.is_ascii_digit()) && matches!(day.as_bytes().get(4), None | Some(b'-'));
    match (prefix, value.rsplit_once('|'), value.rsplit_once('/')) {
        ("ge" | "gt" | "sa", ..) if is_day => format!("{prefix}{NEVER}"),
        ("le" | "lt" | "eb", ..) if is_day => format!("{prefix}{LONG_AGO}"),
        _ if is_day => LONG_AGO.to_owned(),
        (_, Some((_, "")), _) => format!("{NOBODY}|"),
        (_, Some((system, _)), _) => format!("{system}|{NOBODY}"),
        (_, None, Some((before, _))) => format!("{before}/{NOBODY}"),
        (_, None, None) => NOBODY.to_owned(),
    }
}

/// The values between commas that are not escaped.
fn alternatives(value: &str) -> Vec<String> {
    let (mut all, mut escaped) = (vec![String::new()], false);
    for letter in value.chars() {
        match all.last_mut() {
            Some(_) if letter == ',' && !escaped => all.push(String::new()),
            Some(last) => last.push(letter),
            None => {}
        }
        escaped = letter == '\\' && !escaped;
    }
    all.retain(|one| !one.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_searches_of_their_own() {
        let shown = |written: &str| {
            let searches = searches(written).unwrap();
            let one = |search: Parameters| search.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
            searches.into_iter().map(one).collect::<Vec<_>>()
        };
        for (written, expected) in [
            ("Patient?organization=Organization/7", &["organization=Organization/7"][..]),
            ("Patient?gender=female&birthdate=ge2008-01-01&birthdate=lt2026", &["gender=female&birthdate=ge2008-01-01&birthdate=lt2026"]),
            ("Patient?_has:Condition:patient:code=http%3A%2F%2Fsnomed.info%2Fsct%7C34000006", &["_has:Condition:patient:code=http://snomed.info/sct|34000006"]),
            ("Patient?organization=a,b&active=true", &["organization=a&active=true", "organization=b&active=true"]),
            (
                "Patient?organization=a,b&gender=male,female",
                &["organization=a&gender=male", "organization=b&gender=male", "organization=a&gender=female", "organization=b&gender=female"],
            ),
            (r"Patient?address-city=Bath\, ME\\,Bath,", &[r"address-city=Bath\, ME\\", "address-city=Bath"]),
            ("Patient?identifier=urn:mrn|&organization:not=a&organization:not=b", &["identifier=urn:mrn|&organization:not=a&organization:not=b"]),
        ] {
            assert_eq!(shown(written), expected, "{written}");
        }
    }

    #[test]
    fn what_is_no_search_for_some_patients_is_told() {
        for (written, expected) in [
            ("organization=7", "it begins with `Patient?`"),
            ("https://ehr.example/fhir/Patient?active=true", "it begins with `Patient?`"),
            ("Condition?code=K50", "`Patient?_has:Condition:patient:code=…`"),
            ("Patient?", "it asks for every patient"),
            ("Patient?organization=", "each of its parameters has a name and a value"),
            ("Patient?organization=,", "each of its parameters has a name and a value"),
            ("patient?organization=7", "it begins with `Patient?`"),
            ("Patient?identifier=urn:mrn|7", "`identifier` names persons"),
            ("Patient?name:exact=Roe", "`name:exact` names persons"),
            ("Patient?organization:not=a,b", "write `organization:not=a&organization:not=b`"),
            ("Patient?organization", "each of its parameters has a name and a value"),
            ("Patient?active=true&_count=50", "`_count` says how answers look"),
            ("Patient?active=true&_revinclude:iterate=Group:member", "`_revinclude:iterate` says how answers look"),
        ] {
            let told = searches(written).unwrap_err();
            assert!(told.contains(expected), "{written}: {told}");
        }
        let many: Vec<String> = (0..51).map(|number| number.to_string()).collect();
        assert!(searches(&format!("Patient?organization={}", many.join(","))).unwrap_err().contains("more than 50 searches"));
    }

    #[test]
    fn a_parameter_is_tried_beside_the_others_by_a_value_that_nobody_has_or_by_its_opposite() {
        let shown = |search: &Parameters| search.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let tried = |written: &str| {
            let searches = searches(written).unwrap();
            let each = trials(&searches[0]).into_iter().map(|(_, trial)| match &trial {
                Trial::Nobody(search) => format!("nobody: {}", shown(search)),
                Trial::More(search) => format!("more: {}", shown(search)),
            });
            each.collect::<Vec<_>>()
        };
        for (written, expected) in [
            ("Patient?organization=7&gender=female", &["nobody: organization=watershed-probe&gender=female", "nobody: organization=7&gender=watershed-probe"][..]),
            ("Patient?birthdate=ge2008-01-01&birthdate=lt2026", &["nobody: birthdate=ge2200-01-01&birthdate=lt2026", "nobody: birthdate=ge2008-01-01&birthdate=lt1800-01-01"]),
            ("Patient?birthdate=2008-01", &["nobody: birthdate=1800-01-01"]),
            ("Patient?address-postalcode=45229", &["nobody: address-postalcode=watershed-probe"]),
            ("Patient?general-practitioner=Practitioner/7", &["nobody: general-practitioner=Practitioner/watershed-probe"]),
            ("Patient?identifier=urn:mrn|", &["nobody: identifier=watershed-probe|"]),
            ("Patient?_tag=http://x/tags|a", &["nobody: _tag=http://x/tags|watershed-probe"]),
            ("Patient?organization:not=7", &["nobody: organization:not=7&organization=7"]),
            ("Patient?deceased:missing=true", &["nobody: deceased:missing=true&deceased:missing=false"]),
            ("Patient?active=true", &["nobody: active=true&active=false"]),
            ("Patient?_has:Condition:patient:code=K50", &["nobody: _has:Condition:patient:code=watershed-probe"]),
            (
                "Patient?_has:Condition:patient:abatement-date:missing=true&gender=male",
                &["more: gender=male", "nobody: _has:Condition:patient:abatement-date:missing=true&gender=watershed-probe"],
            ),
        ] {
            assert_eq!(tried(written), expected, "{written}");
        }
    }
}
