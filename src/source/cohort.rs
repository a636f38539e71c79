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
const LONG_AGO: &str = "1000-01-01";
const NEVER: &str = "2999-01-01";
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

/// What is asked to find out whether a search heeds one of its parameters: the same search with a value in its place that nobody has, or
/// with the opposite of what it says, of whom nobody is who is found by the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Nobody is to be found.
    Nobody(Parameters),
    /// Nobody is to be found twice, by the search and by its opposite; the last is the search without the parameter.
    Opposite(Parameters, Parameters),
}

impl Trial {
    /// What is asked.
    pub fn asked(&self) -> &Parameters {
        match self {
            Trial::Nobody(asked) | Trial::Opposite(asked, _) => asked,
        }
    }

    /// What is asked beside it, where somebody is found.
    pub fn without(&self) -> Option<&Parameters> {
        if let Trial::Opposite(_, without) = self { Some(without) } else { None }
    }

    /// Whether the parameter is heeded, where somebody is found by the trial: by how many the search finds, the trial, and the search without
    /// the parameter. `None` where numbers are missing.
    pub fn told(&self, own: Option<u64>, other: Option<u64>, without: Option<u64>) -> Option<bool> {
        match (own?, self) {
            (0, _) => Some(true),
            // A value that a server passes over finds more.
            (own, Trial::Nobody(_)) => Some(own < other?),
            (own, Trial::Opposite(..)) => Some(own.saturating_add(other?) <= without?),
        }
    }
}

/// The trial of a search's parameter at a place.
pub fn trial(search: &Parameters, place: usize) -> Option<Trial> {
    let (name, value) = search.get(place)?;
    let with = |one: Option<(String, String)>| {
        let before = search.iter().take(place).cloned();
        before.chain(one).chain(search.iter().skip(place + 1).cloned()).collect::<Parameters>()
    };
    let flipped = match value.as_str() {
        "true" => Some("false"),
        "false" => Some("true"),
        _ => None,
    };
    let opposite = match (name.strip_suffix(":not"), flipped) {
        (Some(bare), _) => Some((bare.to_owned(), value.clone())),
        (None, Some(flipped)) => Some((name.clone(), flipped.to_owned())),
        (None, None) => None,
    };
    Some(match opposite {
        Some(opposite) => Trial::Opposite(with(Some(opposite)), with(None)),
        None => Trial::Nobody(with(Some((name.clone(), of_nobody(value))))),
    })
}

/// A value in the place of another that nobody has. Of days it is one: what is no day some servers pass over.
fn of_nobody(value: &str) -> String {
    let (prefix, day) = match value.get(..2) {
        Some(prefix) if ["ap", "eb", "eq", "ge", "gt", "le", "lt", "ne", "sa"].contains(&prefix) => value.split_at(2),
        _ => ("", value),
    };
    let is_day = day.len() >= 4 && day.bytes().take(4).all(|digit| digit.is_ascii_digit()) && matches!(day.as_bytes().get(4), None | Some(b'-'));
    match prefix {
        _ if !is_day => "watershed-probe".to_owned(),
        "ge" | "gt" | "sa" => format!("{prefix}{NEVER}"),
        "le" | "lt" | "eb" => format!("{prefix}{LONG_AGO}"),
        _ => LONG_AGO.to_owned(),
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
        let tried = |written: &str, place: usize| match trial(&searches(written).unwrap()[0], place).unwrap() {
            Trial::Nobody(search) => shown(&search),
            Trial::Opposite(opposite, without) => format!("{} | {}", shown(&opposite), shown(&without)),
        };
        for (written, place, expected) in [
            ("Patient?organization=7&gender=female", 0, "organization=watershed-probe&gender=female"),
            ("Patient?organization=7&gender=female", 1, "organization=7&gender=watershed-probe"),
            ("Patient?birthdate=ge2008-01-01&birthdate=lt2026", 0, "birthdate=ge2999-01-01&birthdate=lt2026"),
            ("Patient?birthdate=ge2008-01-01&birthdate=lt2026", 1, "birthdate=ge2008-01-01&birthdate=lt1000-01-01"),
            ("Patient?birthdate=2008-01", 0, "birthdate=1000-01-01"),
            ("Patient?address-postalcode=45229", 0, "address-postalcode=watershed-probe"),
            ("Patient?gender=male&organization:not=7", 1, "gender=male&organization=7 | gender=male"),
            ("Patient?deceased:missing=true&active=true", 0, "deceased:missing=false&active=true | active=true"),
            ("Patient?active=true", 0, "active=false | "),
            ("Patient?_has:Condition:patient:code=K50", 0, "_has:Condition:patient:code=watershed-probe"),
        ] {
            assert_eq!(tried(written, place), expected, "{written}");
        }
    }
}
