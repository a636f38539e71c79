//! What the facts about a server mean, and who must do what about them. Pure.

use super::{Fact, Found, LINKS, LIST, OF_PATIENT_TOO, REQUIRED, SERVER, SINCE, is_sought};
use crate::source::cohort::Cohort;
use crate::source::duty::Who;
use crate::source::{Mode, Options};
use serde::Serialize;

/// Something that somebody must do, or know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Who.
    pub who: Who,
    /// The type or [`SERVER`].
    pub about: String,
    /// What is found, and what to do.
    pub says: String,
}

/// What is to be done, by whom. A fact that only costs time is none.
pub fn findings(facts: &[Fact], options: &Options) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts
        .iter()
        .filter_map(|fact| {
            let (who, says) = if fact.about == SERVER { of_server(fact, options) } else { of_type(fact, options) }?;
            Some(Finding { who, about: fact.about.clone(), says })
        })
        .collect();
    findings.sort();
    findings
}

fn of_type(fact: &Fact, options: &Options) -> Option<(Who, String)> {
    let Fact { about, what, found, detail, .. } = fact;
    match (what.as_str(), found) {
        ("search", _) => of_search(fact, options),
        (parameter, Found::Ignored | Found::IgnoredAndSaid) if about == "Patient" && is_sought(options, parameter) => {
            let says =
                format!("`{parameter}` of `source.patients_search` is not heeded, so that others would be taken too: nights take nobody new by it; ask by what the server heeds");
            Some((Who::SiteEngineer, says))
        }
        (parameter, Found::Untold | Found::Absent | Found::Wrong) if about == "Patient" && is_sought(options, parameter) => Some((
            Who::EhrTeam,
            format!("whether `{parameter}` of `source.patients_search` is heeded cannot be told ({detail}): nights take nobody new by it; let searches be counted"),
        )),
        (parameter, Found::Refused) if about == "Patient" && is_sought(options, parameter) => {
            Some((Who::SiteEngineer, format!("`{parameter}` of `source.patients_search` is refused ({detail}); ask by what the server takes")))
        }
        ("paging", Found::Wrong) if detail.contains("`source.internal_origins`") => Some((Who::SiteEngineer, detail.clone())),
        ("paging", Found::Wrong) => Some((Who::EhrTeam, format!("{detail}; searches that need a second page are read in parts, or stay incomplete"))),
        ("_lastUpdated", Found::Ignored | Found::IgnoredAndSaid) => {
            Some((Who::EhrTeam, "asked for changes, the server answers with everything; every night costs it as much as the first until it honours `_lastUpdated`".to_owned()))
        }
        ("_lastUpdated", Found::Refused) if fact.declared == Some(true) => {
            Some((Who::EhrTeam, format!("`_lastUpdated` is declared and refused ({detail}); all of the type is read every night until it works")))
        }
        ("_summary=count", _) => None,
        (parameter, Found::Ignored) => {
            let here = if Cohort::of(options).is_everybody() { "codes are compared here" } else { "what is not the group's is left out here" };
            Some((Who::EhrTeam, format!("`{parameter}` is ignored without a word, so that more leaves the EHR than is asked for; {here}; let the server honour it, or refuse it")))
        }
        (parameter, Found::Refused) if fact.declared == Some(true) => {
            Some((Who::EhrTeam, format!("`{parameter}` is declared and refused ({detail}): allow it, or declare it no longer")))
        }
        (list, Found::Wrong) if list.ends_with(LIST) => {
            let parameter = list.trim_end_matches(LIST);
            Some((Who::EhrTeam, format!("a list of values of `{parameter}` is not heeded: {detail}; each is asked for by itself, which takes many more requests")))
        }
        (parameter, Found::Wrong) => Some((Who::EhrTeam, format!("a search of {about} with `{parameter}` is answered wrongly: {detail}"))),
        _ => None,
    }
}

fn of_search(fact: &Fact, options: &Options) -> Option<(Who, String)> {
    let Fact { about, found, detail, .. } = fact;
    match found {
        // The members of a group are read by their ids.
        Found::Refused if about == "Patient" && !detail.contains("403") => {
            let says = format!("patients are not searched for ({detail}): name a Group in `source.group`, or a list in `source.patients_file`, whose patients are read one by one");
            Cohort::of(options).is_everybody().then_some((Who::SiteEngineer, says))
        }
        // A night asks so too: what parameters there are to name, only who runs the server knows.
        Found::Refused if detail.starts_with(OF_PATIENT_TOO) => {
            let says =
                format!("searches are refused, {detail}: let this client search it of a patient, or say which parameters it wants, which the site names in `source.parameters`");
            Some((Who::EhrTeam, says))
        }
        Found::Refused if detail.contains("`source.scopes`") => Some((Who::SiteEngineer, detail.clone())),
        Found::Refused if detail.contains(REQUIRED) => {
            let of_patients = if Cohort::of(options).is_everybody() {
                "; if it wants a patient, name a Group in `source.group`, or a list in `source.patients_file`, of whose patients it is then asked for"
            } else {
                ""
            };
            let says =
                format!("the server searches it with further parameters only ({detail}); name them in `source.parameters`, for example {about} = [\"category=…\"]{of_patients}");
            Some((Who::SiteEngineer, says))
        }
        Found::Refused => Some((Who::EhrTeam, format!("searches are refused ({detail}): let this client read and search it, scope `system/{about}.rs`"))),
        Found::Absent if fact.declared == Some(true) => Some((Who::EhrTeam, format!("it is declared, and searches for it are not answered ({detail})"))),
        Found::Absent => Some((Who::Network, format!("the server does not serve it ({detail}); what measures ask of it stays unknown at this site"))),
        Found::Wrong => Some((Who::EhrTeam, format!("searches are not answered with a Bundle ({detail}); is something else in front of the server"))),
        _ => None,
    }
}

fn of_server(fact: &Fact, options: &Options) -> Option<(Who, String)> {
    let Fact { what, found, detail, declared, .. } = fact;
    match (what.as_str(), found) {
        ("a parameter that does not exist", Found::Ignored) => {
            Some((Who::SiteEngineer, "a misspelt parameter brings everything, without a word: check `source.parameters` and `source.search_parameters` by hand".to_owned()))
        }
        ("page size", Found::Refused) => {
            Some((Who::SiteEngineer, format!("a page of {} is refused ({detail}); nights ask for smaller ones: lower `source.page_size`", options.page_size)))
        }
        ("search by POST", Found::Refused | Found::Absent | Found::Wrong) if !Cohort::of(options).is_everybody() => {
            Some((Who::EhrTeam, format!("searches by POST do not work ({detail}), so that patients' ids stand in addresses, and in the logs of whatever is on the way")))
        }
        ("_total=accurate", Found::Wrong) => Some((Who::EhrTeam, format!("`_total`: {detail}; it is not used"))),
        (LINKS, Found::Wrong) => Some((
            Who::EhrTeam,
            "a night found that links to further pages of long lists are forgotten before they are followed; nights go on from where they are, by times of change: keep the results of searches longer".to_owned(),
        )),
        (SINCE, Found::Ignored) => {
            Some((Who::EhrTeam, "a night found that an export of changes brings everything; every night costs the server as much as the first until exports heed `_since`".to_owned()))
        }
        ("scopes granted", Found::Is) => may_write(detail).map(|scope| (Who::EhrTeam, format!("`{scope}` lets this client change data; it only reads: grant `.rs`, or `.read`"))),
        (level, Found::Absent | Found::Refused) if level.ends_with("export") && *declared == Some(true) && options.mode != Mode::Search => {
            let meanwhile = match options.mode {
                Mode::Bulk => "nothing comes until then: `source.mode = \"bulk\"` allows no search in its place, `\"auto\"` does",
                _ => "until then nights search instead, as they would with `source.mode = \"search\"`",
            };
            Some((Who::EhrTeam, format!("the {level} is declared, and not to be had ({detail}): let this client export; {meanwhile}")))
        }
        (level, Found::Works) if level.ends_with("export") && *declared == Some(false) => {
            Some((Who::SiteEngineer, format!("the {level} is not declared, and answers: `source.mode = \"bulk\"` may spare the server many searches")))
        }
        _ => None,
    }
}

/// The first scope that grants more than reading.
fn may_write(scopes: &str) -> Option<&str> {
    scopes.split(' ').find(|scope| {
        let rights = scope.strip_prefix("system/").and_then(|rest| rest.split_once('.')).map(|(_, rights)| rights).unwrap_or_default();
        let rights = rights.split('?').next().unwrap_or_default();
        matches!(rights, "write" | "*") || (rights != "read" && rights.contains(['c', 'u', 'd']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(about: &str, what: &str, declared: Option<bool>, found: Found, detail: &str) -> Fact {
        Fact { about: about.to_owned(), what: what.to_owned(), declared, found, detail: detail.to_owned() }
    }

    #[test]
    fn who_must_do_what() {
        let none = |fact: &Fact| findings(std::slice::from_ref(fact), &Options::default()).is_empty();
        let cases = [
            (fact("Condition", "search", Some(true), Found::Refused, "status 403 (forbidden)"), "EHR team", "scope `system/Condition.rs`"),
            (fact("Observation", "search", Some(true), Found::Refused, "status 400 (required)"), "site engineer", "Observation = [\"category=…\"]"),
            (fact("Patient", "search", Some(true), Found::Refused, "status 400 (required)"), "site engineer", "name a Group in `source.group`"),
            (fact("AdverseEvent", "search", Some(false), Found::Absent, "status 404"), "network", "stays unknown at this site"),
            (fact("Patient", "paging", None, Found::Wrong, "it is at another origin; name it in `source.internal_origins`"), "site engineer", "`source.internal_origins`"),
            (fact("Observation", "code", Some(true), Found::Ignored, ""), "EHR team", "`code` is ignored without a word"),
            (fact("Encounter", "_lastUpdated", Some(true), Found::IgnoredAndSaid, ""), "EHR team", "answers with everything"),
            (fact(SERVER, "patient export", Some(true), Found::Absent, "status 404"), "EHR team", "the patient export is declared, and not to be had"),
            (fact(SERVER, "patient export", Some(false), Found::Works, ""), "site engineer", "`source.mode = \"bulk\"`"),
            (
                fact(SERVER, "scopes granted", None, Found::Is, "system/Patient.read system/Observation.cruds"),
                "EHR team",
                "`system/Observation.cruds` lets this client change data",
            ),
        ];
        for (fact, who, part) in cases {
            let found = findings(std::slice::from_ref(&fact), &Options::default());
            let [finding] = found.as_slice() else { panic!("{fact:?}: {found:?}") };
            assert!(finding.who.to_string() == who && finding.says.contains(part), "{finding:?}");
        }
        assert!(none(&fact("Patient", "_summary=count", None, Found::Wrong, "it brings no number")), "it only costs time");
        assert!(none(&fact(SERVER, "search by POST", None, Found::Refused, "status 405")), "no group: nobody is named");
        assert!(none(&fact(SERVER, "scopes granted", None, Found::Is, "system/*.rs system/Patient.read")));
        assert!(none(&fact(SERVER, "group export", Some(false), Found::Absent, "status 404")));
    }
}
