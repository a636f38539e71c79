//! What a FHIR server says it can do: `/metadata` and its SMART configuration, read with distrust.

use super::SourceError;
use super::probe::{AT_ONCE, Fact, Found, LINKS, LIST, SERVER, SINCE};
use crate::fhir::compartment::search_parameters;
use crate::http::{Client, Request, one_line};
use crate::smart::client::{SmartConfiguration, below, discover};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use url::Url;

/// Characters of what a server calls itself, and of the version of FHIR that it names.
const SOFTWARE_CHARS_MAX: usize = 100;
const VERSION_CHARS_MAX: usize = 20;
/// What a probe finds of a type beside its parameters.
const SEARCH_ITSELF: [&str; 3] = ["search", "paging", "_summary=count"];

/// What a server declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capability {
    /// `fhirVersion`.
    pub fhir_version: String,
    /// Name and version of the software, for people.
    pub software: String,
    /// Declared types and their search parameters.
    pub types: BTreeMap<String, BTreeSet<String>>,
    /// Search parameters for every type.
    pub all_types: BTreeSet<String>,
    /// `/$export`.
    pub export_system: bool,
    /// `/Patient/$export`.
    pub export_patient: bool,
    /// `/Group/[id]/$export`.
    pub export_group: bool,
    /// It declares version 4 of the Bulk Data guide, which knows no kick-off by GET.
    pub export_by_post: bool,
    /// Its SMART configuration, or what `/metadata` says instead.
    pub smart: Option<SmartConfiguration>,
    /// The server's clock when it said so.
    pub answered_at: Option<Timestamp>,
    /// Parameters of types that a probe found not to work, whatever is declared, and what becomes of them.
    pub unreliable: BTreeMap<(String, String), Found>,
    /// A probe found that searches by POST are answered with nothing.
    pub no_post: bool,
    /// A night found that links to further pages of long lists are forgotten.
    pub forgets_links: bool,
    /// A night found that exports of changes bring everything.
    pub exports_whole: bool,
    /// Parameters of types of which a probe found that a list of values is not heeded.
    pub lists_unreliable: BTreeSet<(String, String)>,
    /// Parameters of types of which a night found that a question may name so many values, and no more.
    pub at_once: BTreeMap<(String, String), usize>,
}

impl Capability {
    /// Whether a type may be searched with a parameter: what is declared, unless it was found not to work. `None` when the
    /// server does not describe the type.
    pub fn declares(&self, resource_type: &str, parameter: &str) -> Option<bool> {
        if self.found(resource_type, parameter).is_some() {
            return Some(false);
        }
        if self.all_types.contains(parameter) {
            return Some(true);
        }
        Some(self.types.get(resource_type)?.contains(parameter))
    }

    /// The parameter by which a type is asked for of some patients: one that is declared, if there is one.
    pub fn patient_parameter(&self, resource_type: &str) -> Option<&'static str> {
        let parameters = search_parameters(resource_type);
        let declared = parameters.iter().find(|parameter| self.declares(resource_type, parameter) != Some(false));
        declared.or(parameters.first()).copied()
    }

    /// What becomes of a parameter that was found not to work.
    pub fn found(&self, resource_type: &str, parameter: &str) -> Option<Found> {
        self.unreliable.get(&(resource_type.to_owned(), parameter.to_owned())).copied()
    }

    /// Whether a probe found that a list of values of a parameter is not heeded.
    pub fn is_list_unreliable(&self, resource_type: &str, parameter: &str) -> bool {
        self.lists_unreliable.contains(&(resource_type.to_owned(), parameter.to_owned()))
    }

    /// Why a search does not use a parameter, for people.
    pub fn why_not(&self, resource_type: &str, parameter: &str) -> String {
        match self.found(resource_type, parameter) {
            Some(found) => format!("`watershed check` found `{parameter}` {}", found.word()),
            None => format!("the server does not declare {parameter} for it"),
        }
    }

    /// Takes what a probe found into account, as far as the server still declares what it did then.
    pub fn learn(&mut self, facts: &[Fact]) {
        let fails = |fact: &&Fact| matches!(fact.found, Found::Ignored | Found::IgnoredAndSaid | Found::Refused | Found::Absent | Found::Wrong);
        let of_parameters = facts.iter().filter(|fact| fact.about != SERVER && !SEARCH_ITSELF.contains(&fact.what.as_str()));
        let known = of_parameters.filter(fails).filter(|fact| self.declares(&fact.about, &fact.what) == fact.declared);
        let known: Vec<_> = known.map(|fact| ((fact.about.clone(), fact.what.clone()), fact.found)).collect();
        self.unreliable.extend(known);
        let lists = facts
            .iter()
            .filter(|fact| fact.found == Found::Wrong)
            .filter_map(|fact| Some((fact.about.clone(), fact.what.strip_suffix(LIST)?.to_owned())));
        self.lists_unreliable.extend(lists);
        let of_parameter = |fact: &Fact| Some(((fact.about.clone(), fact.what.strip_suffix(AT_ONCE)?.to_owned()), fact.detail.parse().ok()?));
        self.at_once.extend(facts.iter().filter_map(of_parameter));
        let is_so = |what: &str, found: Found| facts.iter().any(|fact| fact.about == SERVER && fact.what == what && fact.found == found);
        self.forgets_links |= is_so(LINKS, Found::Wrong);
        self.exports_whole |= is_so(SINCE, Found::Ignored);
        self.no_post |= facts.iter().any(|fact| fact.about == SERVER && fact.what == "search by POST" && fact.found == Found::Wrong);
    }

    /// Reads a CapabilityStatement.
    pub fn from_statement(statement: &Value) -> Capability {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let software = statement.get("software");
        let mut capability = Capability {
            fhir_version: one_line(&text(statement.get("fhirVersion")), VERSION_CHARS_MAX),
            software: one_line(
                &format!("{} {}", text(software.and_then(|software| software.get("name"))), text(software.and_then(|software| software.get("version")))),
                SOFTWARE_CHARS_MAX,
            ),
            ..Capability::default()
        };
        let guides = ["instantiates", "implementationGuide"]
            .into_iter()
            .flat_map(|name| items(statement.get(name)))
            .filter_map(Value::as_str);
        capability.export_by_post = guides
            .filter_map(|guide| guide.split_once('|'))
            .any(|(guide, version)| guide.contains("bulkdata") && version.starts_with("4."));
        for rest in items(statement.get("rest")) {
            capability.all_types.extend(names(rest.get("searchParam")));
            capability.read_operations(None, rest.get("operation"));
            for resource in items(rest.get("resource")) {
                let Some(name) = resource.get("type").and_then(Value::as_str) else { continue };
                capability.types.entry(name.to_owned()).or_default().extend(names(resource.get("searchParam")));
                capability.read_operations(Some(name), resource.get("operation"));
            }
            let endpoint = oauth_token_address(rest).and_then(|text| Url::parse(text).ok());
            if endpoint.is_some() {
                capability.smart = Some(SmartConfiguration { token_endpoint: endpoint, ..SmartConfiguration::default() });
            }
        }
        capability
    }

    fn read_operations(&mut self, resource_type: Option<&str>, operations: Option<&Value>) {
        for operation in items(operations) {
            let name = operation.get("name").and_then(Value::as_str).unwrap_or_default().trim_start_matches('$');
            let definition = operation.get("definition").and_then(Value::as_str).unwrap_or_default();
            let definition = definition.split('|').next().unwrap_or_default();
            match (resource_type, name) {
                _ if definition.ends_with("/group-export") => self.export_group = true,
                _ if definition.ends_with("/patient-export") => self.export_patient = true,
                (_, "group-export") | (Some("Group"), "export") => self.export_group = true,
                (_, "patient-export") | (Some("Patient"), "export") => self.export_patient = true,
                (None, "export") => self.export_system = true,
                _ => {}
            }
        }
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn names(value: Option<&Value>) -> impl Iterator<Item = String> + '_ {
    items(value).iter().filter_map(|item| Some(item.get("name")?.as_str()?.to_owned()))
}

fn oauth_token_address(rest: &Value) -> Option<&str> {
    items(rest.get("security")?.get("extension"))
        .iter()
        .find(|extension| extension.get("url").and_then(Value::as_str).is_some_and(|url| url.ends_with("/oauth-uris")))
        .and_then(|extension| items(extension.get("extension")).iter().find(|part| part.get("url").and_then(Value::as_str) == Some("token")))
        .and_then(|part| part.get("valueUri")?.as_str())
}

/// Asks the server. The SMART configuration is asked for without a token, `/metadata` too.
pub async fn probe(client: &Client, base: &Url) -> Result<Capability, SourceError> {
    let address = below(base, "metadata")?;
    let request = Request::new(Method::GET, address).header("accept", "application/fhir+json").without_token();
    let answer = client.send(request).await?;
    let statement = answer.json::<Value>().filter(|value| value.get("resourceType").and_then(Value::as_str) == Some("CapabilityStatement"));
    let Some(statement) = statement.filter(|_| answer.is_success()) else {
        return Err(SourceError::NotFhir { status: answer.status, said: answer.said() });
    };
    let mut capability = Capability { answered_at: answer.date(), ..Capability::from_statement(&statement) };
    match discover(client, base).await {
        Ok(Some(smart)) if smart.token_endpoint.is_some() => capability.smart = Some(smart),
        Ok(_) => {}
        // What it does not say at its well-known place, /metadata may have said.
        Err(error) => tracing::warn!(%error, "SMART configuration cannot be read"),
    }
    Ok(capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patients_are_named_by_a_parameter_that_is_declared() {
        let declaring = |parameters: &[&str]| {
            let types = BTreeMap::from([("Coverage".to_owned(), parameters.iter().map(|name| (*name).to_owned()).collect())]);
            Capability { types, ..Capability::default() }.patient_parameter("Coverage")
        };
        assert_eq!([declaring(&["patient"]), declaring(&["beneficiary", "patient"]), declaring(&[])], [Some("patient"), Some("beneficiary"), Some("beneficiary")]);
    }
}
