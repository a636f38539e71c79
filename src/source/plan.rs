//! From what the measures need and what the server can do to the queries of a pull. Pure, and printable.

use super::capability::Capability;
use super::cohort::{Cohort, Parameters};
use super::duty::Code;
use super::{Mode, Options, TypeFilter};
use crate::fhir::compartment::{in_compartment, search_parameters};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Parameters that leave no resource out of a search.
const LEAVES_NOTHING_OUT: [&str; 8] = ["_contained", "_count", "_format", "_include", "_pretty", "_revinclude", "_sort", "_total"];
/// Codes in one query, above which the type is asked for whole: addresses must stay below 2 kB.
const CODES_MAX: usize = 40;

/// A resource type that measures need, and the codes that would do (tokens `system|code`; none: any).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// FHIR resource type.
    pub resource_type: String,
    /// `code` values that would do, including a site's local ones; empty: any.
    pub codes: BTreeSet<String>,
    /// The same at whichever element the measures look at, where a search by `code` would not find it.
    pub elsewhere: BTreeSet<String>,
    /// It decides about nobody's place in an initial population: who is in none can do without it.
    pub is_later: bool,
}

impl Need {
    /// A whole type.
    pub fn all(resource_type: &str) -> Need {
        Need { resource_type: resource_type.to_owned(), codes: BTreeSet::new(), elsewhere: BTreeSet::new(), is_later: false }
    }
}

/// What a configuration leaves out of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowing {
    /// The parameters that leave something out, for people.
    pub shown: String,
    /// The search without them.
    pub whole: Vec<(String, String)>,
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
    /// Patients are read one by one: the server does not search for them by their ids.
    pub one_by_one: bool,
    /// It is asked for after the others, of those patients only who may be in an initial population, by this parameter, where
    /// that takes fewer requests.
    pub later: Option<String>,
}

impl Query {
    /// The codes of which it asks for any, where they are several.
    pub(super) fn list_of_codes(&self) -> Option<Vec<String>> {
        let (_, codes) = self.parameters.iter().find(|(name, value)| name == "code" && value.contains(','))?;
        Some(codes.split(',').map(str::to_owned).collect())
    }
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
    /// Whose data are taken.
    pub cohort: Cohort,
    /// Types that may be stored.
    pub types: BTreeSet<String>,
    /// All is read of a folder of files.
    pub of_files: bool,
    /// The export, in bulk mode.
    pub export: Option<Export>,
    /// The queries, in search mode; Patient first.
    pub queries: Vec<Query>,
    /// Parameters of every search.
    pub everywhere: Vec<(String, String)>,
    /// Types of no patient: fetched when something refers to them.
    pub referenced: BTreeSet<String>,
    /// Codes that would do, of the types of which the measures ask for some only, few or many, at any element. Not a part of what
    /// is asked.
    pub codes: BTreeMap<String, BTreeSet<String>>,
    /// Types that the server searches by time of change. Not a part of what is asked.
    pub by_time: BTreeSet<String>,
    /// Types that it searches by id. Not a part of what is asked.
    pub by_id: BTreeSet<String>,
    /// The measures that read each type. Not a part of what is asked.
    pub readers: BTreeMap<String, BTreeSet<String>>,
    /// Types of which the configuration asks for a part only.
    pub narrowed: BTreeMap<String, Narrowing>,
    /// The searches in the place of an export that is not to be had, where they are allowed.
    pub instead: Option<Box<Plan>>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

impl Plan {
    /// A digest: cursors and interrupted pulls of another plan are not continued.
    pub fn digest(&self) -> String {
        crate::store::sha256_hex(self.to_string().as_bytes())
    }

    /// What it is called, and of whom, where somebody who is named does not come.
    pub(super) fn absent(&self) -> (Code, &'static str) {
        match self.cohort {
            Cohort::List => (Code::Listed, "patients of the list"),
            Cohort::Search(_) => (Code::Members, "patients whom `source.patients_search` finds"),
            Cohort::Group(_) | Cohort::Everybody => (Code::Members, "members of the Group"),
        }
    }

    /// The same plan for these measures, by the types that they read.
    #[must_use]
    pub fn read_by(mut self, readers: &BTreeMap<String, BTreeSet<String>>) -> Plan {
        self.readers.clone_from(readers);
        self.instead = self.instead.map(|instead| Box::new(instead.read_by(readers)));
        self
    }

    /// Whether a type is asked for by code.
    pub fn is_narrowed(&self, resource_type: &str) -> bool {
        let by_code = |query: &Query| query.resource_type == resource_type && query.parameters.iter().any(|(name, _)| name == "code");
        self.export.as_ref().is_some_and(|export| export.codes.contains_key(resource_type)) || self.queries.iter().any(by_code)
    }

    /// Whether a query finds the patients whose data are taken.
    pub fn finds_patients(&self, query: &Query) -> bool {
        matches!(self.cohort, Cohort::Search(_)) && query.resource_type == "Patient" && query.by_patient.is_none()
    }

    /// Whether each night reads a type whole: it is not searched by times of change, or says whose data are taken.
    pub fn is_untimed(&self, resource_type: &str) -> bool {
        let is_whole = |query: &Query| !query.incremental || self.finds_patients(query);
        self.queries.iter().any(|query| query.resource_type == resource_type && is_whole(query))
    }

    /// The types of which that is so.
    pub fn untimed(&self) -> BTreeSet<String> {
        self.types.iter().filter(|name| self.is_untimed(name)).cloned().collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |types: &BTreeSet<String>| types.iter().cloned().collect::<Vec<_>>().join(",");
        match &self.cohort {
            Cohort::Everybody => writeln!(f, "patients: all")?,
            Cohort::Group(group) => writeln!(f, "patients: Group/{group}")?,
            Cohort::List => writeln!(f, "patients: those of the list")?,
            Cohort::Search(search) => writeln!(f, "patients: those of {search}")?,
        }
        for (name, value) in &self.everywhere {
            writeln!(f, "with every search: {name}={value}")?;
        }
        if self.of_files {
            writeln!(f, "files of: {}", list(&self.types))?;
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
                write!(f, " by {parameter}{}", if query.one_by_one { ", one by one" } else { "" })?;
            }
            let later = if query.later.is_some() { ", then, of patients who may be in an initial population" } else { "" };
            let is_of_changes = !self.is_untimed(&query.resource_type) && !query.one_by_one;
            writeln!(f, "{}{later}", if is_of_changes { " since the last pull" } else { "" })?;
        }
        if !self.referenced.is_empty() {
            writeln!(f, "when referred to: {}", list(&self.referenced))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

/// Whether a type is asked for as a whole, and not only where something refers to it. Of Devices only those in use matter.
pub fn is_asked_for(resource_type: &str) -> bool {
    in_compartment(resource_type) && resource_type != "Device"
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
    let mut plan = Plan { cohort: Cohort::of(options), types: codes.keys().cloned().collect(), everywhere, ..Plan::default() };
    let of_patients: BTreeSet<String> = plan.types.iter().filter(|name| is_asked_for(name)).cloned().collect();
    plan.referenced = plan.types.difference(&of_patients).cloned().collect();
    plan.codes = codes_anywhere(needs);
    let searched_by = |parameter: &str| plan.types.iter().filter(|name| capability.declares(name, parameter) == Some(true)).cloned().collect();
    (plan.by_time, plan.by_id) = (searched_by("_lastUpdated"), searched_by("_id"));
    if options.tuning.folder.is_some() {
        plan.of_files = true;
        return plan;
    }
    if use_bulk(&mut plan, capability, options) {
        let path = match &plan.cohort {
            Cohort::Group(group) => format!("Group/{group}/$export"),
            _ if capability.export_system && !capability.export_patient => "$export".to_owned(),
            _ => "Patient/$export".to_owned(),
        };
        let is_narrowed = |name: &&String| options.type_filter != TypeFilter::Off && capability.declares(name, "code") != Some(false);
        let codes = of_patients.iter().filter(is_narrowed).filter_map(|name| Some((name.clone(), few(&codes, name)?))).collect();
        plan.export = Some(Export { path, types: of_patients, codes });
        let searches = Options { mode: Mode::Search, ..options.clone() };
        plan.instead = (options.mode == Mode::Auto).then(|| Box::new(self::plan(needs, capability, &searches)));
        return plan;
    }
    let is_later = |name: &str| needs.iter().any(|need| need.resource_type == name && need.is_later);
    let found = plan.cohort.searches();
    let first = std::iter::once("Patient").filter(|_| found.is_empty());
    if !found.is_empty() {
        add_cohort(&mut plan, found.clone(), capability);
    }
    for name in first.chain(of_patients.iter().map(String::as_str).filter(|name| *name != "Patient")) {
        let later = later_parameter(name, capability).filter(|_| name != "Patient" && is_later(name));
        add_queries(&mut plan, name, few(&codes, name), later, capability, options);
    }
    plan
}

/// The codes that would do of each type, unless some measure asks for any.
fn codes_anywhere(needs: &[Need]) -> BTreeMap<String, BTreeSet<String>> {
    let mut codes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for need in needs {
        codes.entry(need.resource_type.clone()).or_default().extend(need.codes.union(&need.elsewhere).cloned());
    }
    let takes_any = |name: &str| needs.iter().any(|need| need.resource_type == name && need.codes.is_empty() && need.elsewhere.is_empty());
    codes.retain(|name, _| !takes_any(name));
    codes
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
    let declared = match plan.cohort {
        Cohort::Everybody => capability.export_patient || capability.export_system,
        Cohort::Group(_) => capability.export_group,
        Cohort::List | Cohort::Search(_) => false,
    };
    match options.mode {
        // An export is of everybody, or of a Group that the EHR has.
        _ if matches!(plan.cohort, Cohort::List | Cohort::Search(_)) => false,
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

/// The parameter by which a type is asked for of some patients; a note says so if there is none.
fn patient_parameter(plan: &mut Plan, name: &str, capability: &Capability) -> Option<String> {
    if name == "Patient" {
        return Some("_id".to_owned());
    }
    let parameters = search_parameters(name);
    let usable = parameters.iter().find(|parameter| capability.declares(name, parameter) != Some(false));
    if usable.is_none() {
        let found = parameters.iter().find(|parameter| capability.found(name, parameter).is_some());
        let why = found.map_or_else(|| "the server does not declare a patient parameter".to_owned(), |parameter| capability.why_not(name, parameter));
        plan.notes.push(format!("{name} is read of all patients: {why}"));
    }
    usable.map(|parameter| (*parameter).to_owned())
}

/// The parameter by which a type can be asked for of patients who were found meanwhile.
fn later_parameter(name: &str, capability: &Capability) -> Option<String> {
    let declared = search_parameters(name).iter().find(|parameter| capability.declares(name, parameter) == Some(true));
    declared.map(|parameter| (*parameter).to_owned())
}

fn add_queries(plan: &mut Plan, name: &str, codes: Option<BTreeSet<String>>, later: Option<String>, capability: &Capability, options: &Options) {
    let incremental = capability.declares(name, "_lastUpdated") == Some(true);
    if !incremental {
        plan.notes.push(format!("{name} is read in full each time: {}", capability.why_not(name, "_lastUpdated")));
    }
    let by_patient = if plan.cohort.is_everybody() { None } else { patient_parameter(plan, name, capability) };
    let one_by_one = by_patient.as_deref() == Some("_id") && capability.found(name, "_id").is_some();
    if one_by_one {
        plan.notes.push(format!("{name} is read one by one: {}", capability.why_not(name, "_id")));
    }
    let mut parameters = Vec::new();
    if let Some(codes) = codes {
        if capability.declares(name, "code") == Some(true) {
            parameters.push(code_parameter(&codes));
        } else if capability.found(name, "code").is_some() {
            plan.notes.push(format!("{name} is read whole, not by code: {}", capability.why_not(name, "code")));
        }
    }
    let variants = options.parameters.get(name).cloned().unwrap_or_else(|| vec![String::new()]);
    narrow(plan, name, &variants, &parameters);
    let of_variant = |variant: &String| parameters.iter().cloned().chain(url::form_urlencoded::parse(variant.as_bytes()).into_owned()).collect();
    let query = Query { name: String::new(), resource_type: name.to_owned(), parameters: Vec::new(), by_patient, incremental, one_by_one, later };
    add_each(plan, &query, variants.iter().map(of_variant).collect());
}

/// The searches that find the patients whose data are taken.
fn add_cohort(plan: &mut Plan, searches: Vec<Parameters>, capability: &Capability) {
    plan.notes.push("Patient is read in full each time: a search says whose data are taken".to_owned());
    let incremental = capability.declares("Patient", "_lastUpdated") == Some(true);
    let query = Query {
        name: String::new(),
        resource_type: "Patient".to_owned(),
        parameters: Vec::new(),
        by_patient: None,
        incremental,
        one_by_one: false,
        later: None,
    };
    add_each(plan, &query, searches);
}

/// The same query with the parameters of each search.
fn add_each(plan: &mut Plan, query: &Query, searches: Vec<Parameters>) {
    let count = searches.len();
    for (number, parameters) in searches.into_iter().enumerate() {
        let name = if count == 1 { query.resource_type.clone() } else { format!("{} {}", query.resource_type, number + 1) };
        plan.queries.push(Query { name, parameters, ..query.clone() });
    }
}

/// Notes what the variants of a type's search leave out of it: nothing, if one of them asks for everything.
fn narrow(plan: &mut Plan, name: &str, variants: &[String], whole: &[(String, String)]) {
    let narrowing = |variant: &String| {
        let parameters = url::form_urlencoded::parse(variant.as_bytes()).into_owned();
        let left = parameters.filter(|(name, _)| !LEAVES_NOTHING_OUT.contains(&name.split(':').next().unwrap_or(name)));
        left.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    };
    let narrowed: Vec<String> = variants.iter().map(narrowing).collect();
    if narrowed.iter().any(String::is_empty) {
        return;
    }
    let shown = format!("`{}`", narrowed.join("`, `"));
    plan.notes.push(format!(
        "`source.parameters` narrows {name} to {shown}: reports that need it are partial if there is more, until a person accepts that (`watershed pull --accept-loss`)"
    ));
    plan.narrowed.insert(name.to_owned(), Narrowing { shown, whole: whole.to_vec() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::probe::{Fact, Found, SERVER};
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
        let mut observations = Need { is_later: true, ..Need::all("Observation") };
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
        query: Observation?code=http://loinc.org|11778-8 since the last pull, then, of patients who may be in an initial population
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
    fn what_a_probe_found_not_to_work_is_not_relied_upon() {
        let fact = |about: &str, what: &str, declared, found| Fact { about: about.to_owned(), what: what.to_owned(), declared, found, detail: String::new() };
        let facts = [
            fact("Patient", "_id", Some(false), Found::Ignored),
            fact("Observation", "code", Some(true), Found::IgnoredAndSaid),
            fact("Observation", "patient", Some(true), Found::Ignored),
            fact("Observation", "subject", Some(false), Found::Untold),
            fact("Observation", "paging", None, Found::Wrong),
            fact("Encounter", "_lastUpdated", Some(true), Found::Refused),
            // It is declared now.
            fact("Encounter", "subject", Some(false), Found::Absent),
            fact(SERVER, "search by POST", None, Found::Refused),
        ];
        let mut capability = capability();
        capability.learn(&facts);
        let options = Options { mode: Mode::Search, group: "g1".to_owned(), ..Options::default() };
        assert_snapshot!(plan(&needs(), &capability, &options), @r"
        patients: Group/g1
        query: Patient? by _id, one by one
        query: Encounter? by subject
        query: Observation? since the last pull
        when referred to: Device,Location
        note: Patient is read one by one: `watershed check` found `_id` ignored without a word
        note: Encounter is read in full each time: `watershed check` found `_lastUpdated` refused
        note: Observation is read of all patients: `watershed check` found `patient` ignored without a word
        note: Observation is read whole, not by code: `watershed check` found `code` ignored, and said so
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
