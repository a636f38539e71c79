//! From what the measures need and what the server can do to the queries of a pull. Pure, and printable.

use super::capability::Capability;
use super::{Mode, Options, TypeFilter};
use crate::fhir::compartment::{in_compartment, search_parameters};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Codes in one query, above which the type is asked for whole: addresses must stay below 2 kB.
const CODES_MAX: usize = 40;

/// A resource type that measures need, and the codes that would do (tokens `system|code`; none: any).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// FHIR resource type.
    pub resource_type: String,
    /// `code` values that would do, including a site's local ones; empty: any.
    pub codes: BTreeSet<String>,
}

impl Need {
    /// A whole type.
    pub fn all(resource_type: &str) -> Need {
        Need { resource_type: resource_type.to_owned(), codes: BTreeSet::new() }
    }
}

/// One query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its name in ledgers and messages.
    pub name: String,
    /// The type it asks for.
    pub resource_type: String,
    /// Its parameters beside page size, patients and time.
    pub parameters: Vec<(String, String)>,
    /// The parameter that takes patients, when it is asked for some patients at a time.
    pub by_patient: Option<String>,
    /// Whether `_lastUpdated` may be added.
    pub incremental: bool,
}

/// A Bulk Data export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Below the base: `Group/1/$export`, `Patient/$export`, or `$export` of a server that offers nothing less.
    pub path: String,
    /// `_type`.
    pub types: BTreeSet<String>,
    /// `_typeFilter`: what has one of these codes is enough of a type. What else comes is set aside as it arrives, so that it
    /// makes no difference whether the server heeds it.
    pub codes: BTreeMap<String, BTreeSet<String>>,
}

impl Export {
    /// The search that finds what is exported of a type.
    pub fn parameters(&self, resource_type: &str) -> Vec<(String, String)> {
        self.codes.get(resource_type).map(code_parameter).into_iter().collect()
    }
}

/// What a pull will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The Group whose patients are taken; empty: every patient.
    pub group: String,
    /// Types that may be stored.
    pub types: BTreeSet<String>,
    /// The export, in bulk mode.
    pub export: Option<Export>,
    /// The queries, in search mode; Patient first.
    pub queries: Vec<Query>,
    /// Parameters of every search.
    pub everywhere: Vec<(String, String)>,
    /// Types of no patient: fetched when something refers to them.
    pub referenced: BTreeSet<String>,
    /// Codes that would do, of the types of which the measures ask for some only, few or many. Not a part of what is asked.
    pub codes: BTreeMap<String, BTreeSet<String>>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

impl Plan {
    /// A digest: cursors and interrupted pulls of another plan are not continued.
    pub fn digest(&self) -> String {
        crate::store::sha256_hex(self.to_string().as_bytes())
    }

    /// Whether a type is asked for by code.
    pub fn is_narrowed(&self, resource_type: &str) -> bool {
        let by_code = |query: &Query| query.resource_type == resource_type && query.parameters.iter().any(|(name, _)| name == "code");
        self.export.as_ref().is_some_and(|export| export.codes.contains_key(resource_type)) || self.queries.iter().any(by_code)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |types: &BTreeSet<String>| types.iter().cloned().collect::<Vec<_>>().join(",");
        match self.group.as_str() {
            "" => writeln!(f, "patients: all")?,
            group => writeln!(f, "patients: Group/{group}")?,
        }
        for (name, value) in &self.everywhere {
            writeln!(f, "with every search: {name}={value}")?;
        }
        if let Some(export) = &self.export {
            writeln!(f, "export: {}?_type={}", export.path, list(&export.types))?;
            for (name, codes) in &export.codes {
                writeln!(f, "of it only: {name}?code={}", list(codes))?;
            }
        }
        for query in &self.queries {
            let parameters: Vec<String> = query.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            write!(f, "query: {}?{}", query.resource_type, parameters.join("&"))?;
            if let Some(parameter) = &query.by_patient {
                write!(f, " by {parameter}")?;
            }
            writeln!(f, "{}", if query.incremental { " since the last pull" } else { "" })?;
        }
        if !self.referenced.is_empty() {
            writeln!(f, "when referred to: {}", list(&self.referenced))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

/// Makes the plan. Patient is always part of it.
pub fn plan(needs: &[Need], capability: &Capability, options: &Options) -> Plan {
    let mut codes: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
    codes.insert("Patient".to_owned(), None);
    for need in needs {
        let known = codes.entry(need.resource_type.clone()).or_insert_with(|| Some(BTreeSet::new()));
        match known {
            Some(known) if !need.codes.is_empty() => known.extend(need.codes.iter().cloned()),
            known => *known = None,
        }
    }
    let everywhere = options.search_parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut plan = Plan { group: options.group.clone(), types: codes.keys().cloned().collect(), everywhere, ..Plan::default() };
    let of_patients: BTreeSet<String> = plan.types.iter().filter(|name| in_compartment(name) && *name != "Device").cloned().collect();
    plan.referenced = plan.types.difference(&of_patients).cloned().collect();
    plan.codes = of_patients
        .iter()
        .filter_map(|name| Some((name.clone(), codes.get(name)?.clone().filter(|codes| !codes.is_empty())?)))
        .collect();
    if use_bulk(&mut plan, capability, options) {
        let path = match options.group.as_str() {
            "" if capability.export_system && !capability.export_patient => "$export".to_owned(),
            "" => "Patient/$export".to_owned(),
            group => format!("Group/{group}/$export"),
        };
        let is_narrowed = |name: &&String| options.type_filter != TypeFilter::Off && capability.declares(name, "code") != Some(false);
        let codes = of_patients.iter().filter(is_narrowed).filter_map(|name| Some((name.clone(), few(&codes, name)?))).collect();
        plan.export = Some(Export { path, types: of_patients, codes });
        return plan;
    }
    for name in std::iter::once("Patient").chain(of_patients.iter().map(String::as_str).filter(|name| *name != "Patient")) {
        add_queries(&mut plan, name, few(&codes, name), capability, options);
    }
    plan
}

/// The codes that are enough of a type, if they are few enough to be asked for.
fn few(codes: &BTreeMap<String, Option<BTreeSet<String>>>, name: &str) -> Option<BTreeSet<String>> {
    codes.get(name)?.clone().filter(|codes| !codes.is_empty() && codes.len() <= CODES_MAX)
}

/// A search by any of some codes.
fn code_parameter(codes: &BTreeSet<String>) -> (String, String) {
    ("code".to_owned(), codes.iter().cloned().collect::<Vec<_>>().join(","))
}

fn use_bulk(plan: &mut Plan, capability: &Capability, options: &Options) -> bool {
    let declared = if options.group.is_empty() { capability.export_patient || capability.export_system } else { capability.export_group };
    match options.mode {
        Mode::Search => false,
        Mode::Auto => declared,
        Mode::Bulk => {
            if !declared {
                plan.notes.push("bulk is configured, though the server does not declare it".to_owned());
            }
            true
        }
    }
}

fn add_queries(plan: &mut Plan, name: &str, codes: Option<BTreeSet<String>>, capability: &Capability, options: &Options) {
    let incremental = capability.declares(name, "_lastUpdated") == Some(true);
    if !incremental {
        plan.notes.push(format!("{name} is read in full each time: the server does not declare _lastUpdated for it"));
    }
    let by_patient = match name {
        "Patient" if options.group.is_empty() => None,
        "Patient" => Some("_id".to_owned()),
        _ if options.group.is_empty() => None,
        _ => search_parameters(name)
            .iter()
            .find(|parameter| capability.declares(name, parameter) != Some(false))
            .map(|parameter| (*parameter).to_owned()),
    };
    if by_patient.is_none() && !options.group.is_empty() {
        plan.notes.push(format!("{name} is read of all patients: the server does not declare a patient parameter"));
    }
    let mut parameters = Vec::new();
    if let Some(codes) = codes.filter(|_| capability.declares(name, "code") == Some(true)) {
        parameters.push(code_parameter(&codes));
    }
    let variants = options.parameters.get(name).cloned().unwrap_or_else(|| vec![String::new()]);
    for (number, variant) in variants.iter().enumerate() {
        let mut parameters = parameters.clone();
        parameters.extend(url::form_urlencoded::parse(variant.as_bytes()).into_owned());
        plan.queries.push(Query {
            name: if variants.len() == 1 { name.to_owned() } else { format!("{name} {}", number + 1) },
            resource_type: name.to_owned(),
            parameters,
            by_patient: by_patient.clone(),
            incremental,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn capability() -> Capability {
        Capability::from_statement(&serde_json::json!({
            "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1",
            "rest": [{"mode": "server", "searchParam": [{"name": "_lastUpdated"}],
                "resource": [
                    {"type": "Patient", "operation": [{"name": "export"}]},
                    {"type": "Observation", "searchParam": [{"name": "patient"}, {"name": "code"}]},
                    {"type": "Encounter", "searchParam": [{"name": "subject"}]},
                    {"type": "Group", "operation": [{"name": "$export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/group-export"}]}]}]}))
    }

    fn needs() -> Vec<Need> {
        let mut observations = Need::all("Observation");
        observations.codes.insert("http://loinc.org|11778-8".to_owned());
        vec![observations, Need::all("Encounter"), Need::all("Location"), Need::all("Device")]
    }

    #[test]
    fn search_of_all_patients() {
        let options = Options { mode: Mode::Search, ..Options::default() };
        assert_snapshot!(plan(&needs(), &capability(), &options), @r"
        patients: all
        query: Patient? since the last pull
        query: Encounter? since the last pull
        query: Observation?code=http://loinc.org|11778-8 since the last pull
        when referred to: Device,Location
        ");
    }

    #[test]
    fn search_of_a_group_on_a_server_that_says_little() {
        let options = Options { mode: Mode::Search, group: "g1".to_owned(), ..Options::default() };
        assert_snapshot!(plan(&needs(), &Capability::default(), &options), @r"
        patients: Group/g1
        query: Patient? by _id
        query: Encounter? by patient
        query: Observation? by patient
        when referred to: Device,Location
        note: Patient is read in full each time: the server does not declare _lastUpdated for it
        note: Encounter is read in full each time: the server does not declare _lastUpdated for it
        note: Observation is read in full each time: the server does not declare _lastUpdated for it
        ");
    }

    #[test]
    fn bulk_where_it_is_declared() {
        let options = Options { group: "g1".to_owned(), ..Options::default() };
        assert_snapshot!(plan(&needs(), &capability(), &options), @r"
        patients: Group/g1
        export: Group/g1/$export?_type=Encounter,Observation,Patient
        when referred to: Device,Location
        ");
        assert_eq!(plan(&needs(), &Capability::default(), &options).export, None);
        let narrowed = plan(&needs(), &capability(), &Options { type_filter: TypeFilter::Encoded, ..options });
        assert_snapshot!(narrowed, @r"
        patients: Group/g1
        export: Group/g1/$export?_type=Encounter,Observation,Patient
        of it only: Observation?code=http://loinc.org|11778-8
        when referred to: Device,Location
        ");
    }
}
