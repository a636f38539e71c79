//! Whose data are taken: everybody's, or those of the patients whom a Group, a list or a search names. Pure.

use super::Options;
use std::fmt;

/// Parameters that say how an answer looks, and of nobody whether he is found.
const OF_ANSWERS: &[&str] =
    &["_contained", "_containedType", "_count", "_elements", "_format", "_include", "_maxresults", "_pretty", "_revinclude", "_score", "_sort", "_summary", "_total"];
/// Searches into which one with alternatives is taken apart.
const SEARCHES_MAX: usize = 50;

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
            Some((other, _)) if !other.is_empty() && other.bytes().all(|letter| letter.is_ascii_alphabetic()) => {
                format!("patients are found by a search of Patient: what is of {other} stands in it as `Patient?_has:{other}:patient:code=…`")
            }
            _ => "it begins with `Patient?`: `Patient?organization=Organization/7`".to_owned(),
        });
    };
    let mut searches: Vec<Parameters> = vec![Vec::new()];
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name.is_empty() || value.is_empty() {
            return Err("each of its parameters has a name and a value (`organization=Organization/7`), and `&` stands between them".to_owned());
        }
        if OF_ANSWERS.contains(&name.split(':').next().unwrap_or_default()) {
            return Err(format!("`{name}` says how answers look, and nothing of patients: leave it out"));
        }
        let with = |value: &String| {
            searches
                .iter()
                .map(|search| search.iter().cloned().chain([(name.to_string(), value.clone())]).collect())
                .collect::<Vec<_>>()
        };
        searches = alternatives(&value).iter().flat_map(with).collect();
        if searches.len() > SEARCHES_MAX {
            return Err(format!("with its alternatives it is more than {SEARCHES_MAX} searches: have the EHR team make a Group of these patients"));
        }
    }
    if searches == [Vec::new()] {
        return Err("it asks for every patient: leave it out, or add parameters".to_owned());
    }
    Ok(searches)
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
            (r"Patient?family=O\,Hara\\,Roe,", &[r"family=O\,Hara\\", "family=Roe"]),
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
}
