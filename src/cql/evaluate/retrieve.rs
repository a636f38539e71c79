//! Retrieves: the resources of a type, by code and by date, straight from the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Frame, Outcome, Session};
use crate::cql::interval::{Interval, Point};
use crate::cql::operators::{self, Fault};
use crate::cql::plan::Vital;
use crate::cql::typed::{CodeFilter, Comparator, DateFilter, Element, Expression, FixedCodes, FixedRule, Retrieve};
use crate::cql::types::Type;
use crate::cql::value::{Code, Value};
use crate::fhir::record::{CodeRow, NodeId, NodeKind, Record};
use crate::terminology::ValueSet;

/// What a code filter compares with, resolved once per retrieve.
enum Wanted {
    /// Members of a value set.
    Set(Arc<ValueSet>),
    /// Any code of a system.
    System(Arc<str>),
    /// One of these.
    Codes(Vec<Code>),
    /// The value set itself, named instead of a code: what was not done may be said of all of it (QI-Core, "Negation").
    Named(Arc<str>),
}

impl Wanted {
    fn has(&self, (system, code, bare): Coded<'_>) -> bool {
        match self {
            Wanted::Codes(codes) => codes.iter().any(|own| *own.code == *code && (bare || own.system.as_deref() == system)),
            Wanted::System(own) => system == Some(own),
            Wanted::Named(_) => false,
            Wanted::Set(set) => match system {
                Some(system) => set.contains(system, code),
                // A `code` element names no system: its binding does.
                None => bare && set.systems_with(code) > 0,
            },
        }
    }
}

/// System and code, and whether it is a `code` element rather than a Coding.
type Coded<'r> = (Option<&'r str>, &'r str, bool);

/// Stands for what is no code though a code should be there: a text without fields. No code of FHIR's is empty.
const UNREADABLE: Coded<'static> = (None, "", true);

/// So few resources of a type are looked at one by one: an index of their codes costs more.
const FEW: usize = 8;

impl<'a> Session<'a> {
    pub(super) fn retrieve(&mut self, expression: &'a Expression, retrieve: &'a Retrieve, frame: &mut Frame) -> Outcome {
        let Some(class) = self.program.class_id(&retrieve.class) else {
            return Err(self.fault_at(expression, format!("the model has no class `{}`", retrieve.class)));
        };
        let record = self.context.record;
        let mut wanted = None;
        if let Some(filter) = &retrieve.code {
            let codes = self.expression(&filter.codes, frame)?;
            wanted = Some((filter, self.wanted(filter, codes)?));
        }
        let range = match &retrieve.date {
            Some(filter) => Some((filter, self.expression(&filter.range, frame)?)),
            None => None,
        };
        let resources = match &wanted {
            Some((filter, wanted)) => self.with_codes(&retrieve.resource_type, filter, wanted),
            None => record.resources(&retrieve.resource_type).to_vec(),
        };
        let mut found = Vec::with_capacity(resources.len());
        for resource in &resources {
            if !retrieve.fixed.iter().all(|fixed| has_fixed(record, *resource, fixed)) {
                continue;
            }
            if let Some((filter, range)) = &range
                && !self.is_during(*resource, filter, range).map_err(|fault| self.fault_at(expression, fault.message))?
            {
                continue;
            }
            found.push(Value::Node(*resource, class));
        }
        Ok(Value::list(found))
    }

    fn wanted(&self, filter: &CodeFilter, codes: Value) -> Outcome<Wanted> {
        let at = &filter.codes;
        let mut list = Vec::new();
        match codes {
            Value::ValueSet(reference) if filter.comparator == Comparator::Equivalent => return Ok(Wanted::Named(reference.id.clone())),
            Value::ValueSet(reference) => {
                let set = self.context.value_sets.find(&reference.id, reference.version.as_deref());
                let missing = || self.fault_at(at, format!("value set `{}` is not known to this run", reference.id));
                return Ok(Wanted::Set(set.ok_or_else(missing)?.clone()));
            }
            Value::CodeSystem(system) => return Ok(Wanted::System(system.id.clone())),
            Value::List(items) => {
                for item in items.iter() {
                    add_codes(&mut list, item);
                }
            }
            Value::Null => {}
            Value::Code(_) | Value::Concept(_) | Value::String(_) => add_codes(&mut list, &codes),
            other => {
                let found = other.type_name();
                return Err(self.fault_at(at, format!("expected codes or a value set, found a value of type `{found}`")));
            }
        }
        Ok(Wanted::Codes(list))
    }

    /// The resources of a type that have one of the codes, in their order. Each code that the record has is looked at
    /// once, however many resources have it.
    fn with_codes(&self, resource_type: &str, filter: &CodeFilter, wanted: &Wanted) -> Vec<NodeId> {
        let record = self.context.record;
        let resources = record.resources(resource_type);
        if resources.is_empty() {
            return Vec::new();
        }
        if let Wanted::Named(url) = wanted {
            let names = |resource: &&NodeId| follow(record, **resource, &filter.path).into_iter().any(|node| names_value_set(record, node, url));
            return resources.iter().filter(names).copied().collect();
        }
        let has_fields = self.has_fields(filter);
        if resources.len() <= FEW {
            let wants = |resource: &&NodeId| {
                any_code(record, **resource, filter, has_fields, &mut |code| if code == UNREADABLE { self.note_codes(**resource, filter) } else { wanted.has(code) })
            };
            return resources.iter().filter(wants).copied().collect();
        }
        let mut key = format!("{resource_type}|{}", filter.through_reference);
        filter.path.iter().for_each(|element| key.extend([".", &*element.name]));
        let rows = record.codes(key, || code_rows(record, resources, filter, has_fields));
        let unreadable = rows.iter().filter(|row| (row.system.as_deref(), row.code.as_str(), row.bare) == UNREADABLE);
        for place in unreadable.flat_map(|row| &row.places) {
            resources.get(*place as usize).map(|resource| self.note_codes(*resource, filter));
        }
        let mut places: Vec<u32> = rows
            .iter()
            .filter(|row| wanted.has((row.system.as_deref(), &row.code, row.bare)))
            .flat_map(|row| row.places.iter().copied())
            .collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| resources.get(place as usize).copied()).collect()
    }

    /// Whether the element of a filter has fields in FHIR, as a Coding has.
    fn has_fields(&self, filter: &CodeFilter) -> bool {
        let is_one =
            |ty: &Type| matches!(ty, Type::Class(class) if self.program.class_id(class).is_some_and(|class| matches!(self.program.vital(class), Vital::Fields | Vital::Coding)));
        filter.path.last().is_some_and(|element| element.alternatives.iter().all(|alternative| is_one(&alternative.ty)))
    }

    /// Notes what stands in a resource where codes should: nothing that is looked for.
    fn note_codes(&self, resource: NodeId, filter: &CodeFilter) -> bool {
        let record = self.context.record;
        let nodes = follow(record, resource, &filter.path).into_iter();
        nodes.filter(|node| is_without_fields(record, *node)).for_each(|node| self.note_unreadable(node, None));
        false
    }

    fn is_during(&self, resource: NodeId, filter: &DateFilter, range: &Value) -> Result<bool, Fault> {
        let record = self.context.record;
        let Some((last, before)) = filter.path.split_last() else { return Ok(false) };
        for parent in follow(record, resource, before) {
            for alternative in &last.alternatives {
                let Some(node) = record.get(parent, &alternative.field) else { continue };
                let (value, name) = match record.kind(node) {
                    NodeKind::Object => (self.period(node), "IncludedIn"),
                    _ => (self.primitive(node, &Type::DateTime), "In"),
                };
                let operator = operators::operator(name).ok_or_else(|| Fault::new(format!("operator `{name}` is missing")))?;
                if self.apply(operator, &[value, range.clone()], None)?.truth() == Some(true) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// A Period as an interval of DateTime; null with a bound that cannot be read.
    fn period(&self, node: NodeId) -> Value {
        let found = |name| self.context.record.get(node, name);
        let bound = |name| found(name).map_or(Value::Null, |node| self.primitive(node, &Type::DateTime));
        let (low, high) = (bound("start"), bound("end"));
        if [(&low, "start"), (&high, "end")].into_iter().any(|(bound, name)| bound.is_null() && found(name).is_some()) {
            return Value::Null;
        }
        Value::Interval(Arc::new(Interval { low, low_closed: true, high, high_closed: true, point: Some(Point::DateTime) }))
    }
}

fn add_codes(list: &mut Vec<Code>, value: &Value) {
    match value {
        Value::Code(code) => list.push((**code).clone()),
        Value::Concept(concept) => list.extend(concept.codes.iter().cloned()),
        Value::String(code) => list.push(Code { code: code.clone(), ..Code::default() }),
        _ => {}
    }
}

/// The nodes at a path, lists flattened.
fn follow(record: &Record, from: NodeId, path: &[Element]) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    any_node(record, from, path, &mut |node| {
        nodes.push(node);
        false
    });
    nodes
}

/// Whether one of the nodes at a path is what is looked for.
fn any_node(record: &Record, from: NodeId, path: &[Element], is_it: &mut dyn FnMut(NodeId) -> bool) -> bool {
    let Some((element, rest)) = path.split_first() else { return is_it(from) };
    let mut fields = element.alternatives.iter().filter_map(|row| record.get(from, &row.field));
    fields.any(|field| record.items(field).any(|node| any_node(record, node, rest, is_it)))
}

/// Whether an element has, instead of a code, the extension that names a value set none of whose codes was done.
fn names_value_set(record: &Record, node: NodeId, url: &str) -> bool {
    let text = |node: NodeId, name: &str| record.get(node, name).and_then(|field| record.text(field));
    let extensions = record.get(node, "extension").into_iter().flat_map(|list| record.items(list));
    let named = extensions.filter(|extension| text(*extension, "url").is_some_and(|own| own.ends_with("notDoneValueSet")));
    named
        .filter_map(|extension| text(extension, "valueCanonical").or_else(|| text(extension, "valueUri")))
        .any(|own| own.split('|').next() == Some(url))
}

/// Every code of the resources at the filter's element, each once, with the places of its resources.
fn code_rows(record: &Record, resources: &[NodeId], filter: &CodeFilter, has_fields: bool) -> Vec<CodeRow> {
    let mut rows: BTreeMap<Coded<'_>, Vec<u32>> = BTreeMap::new();
    for (place, resource) in (0u32..).zip(resources) {
        for code in codes_of(record, *resource, filter, has_fields) {
            rows.entry(code).or_default().push(place);
        }
    }
    let row = |((system, code, bare), places): (Coded<'_>, _)| CodeRow { system: system.map(str::to_owned), code: code.to_owned(), bare, places };
    rows.into_iter().map(row).collect()
}

/// The codes of a resource at the filter's element.
fn codes_of<'r>(record: &'r Record, resource: NodeId, filter: &CodeFilter, has_fields: bool) -> Vec<Coded<'r>> {
    let mut codes = Vec::new();
    any_code(record, resource, filter, has_fields, &mut |code| {
        codes.push(code);
        false
    });
    codes
}

fn is_without_fields(record: &Record, node: NodeId) -> bool {
    !matches!(record.kind(node), NodeKind::Object | NodeKind::Null)
}

/// Whether one of these codes is what is looked for. Where the element `has_fields`, what has none is [`UNREADABLE`].
fn any_code<'r>(record: &'r Record, resource: NodeId, filter: &CodeFilter, has_fields: bool, is_it: &mut dyn FnMut(Coded<'r>) -> bool) -> bool {
    any_node(record, resource, &filter.path, &mut |node| {
        let mut of_element = |node| {
            if has_fields && is_without_fields(record, node) {
                return is_it(UNREADABLE);
            }
            let bare = record.kind(node) == NodeKind::Text;
            any_coding(record, node, &mut |system, code| is_it((system, code, bare)))
        };
        if filter.through_reference { coded(record, resource, node).is_some_and(&mut of_element) } else { of_element(node) }
    })
}

/// The element itself, or the `code` of the Medication that it refers to: `medication[x]` says it either way, and a
/// retrieve by code means both.
fn coded(record: &Record, resource: NodeId, node: NodeId) -> Option<NodeId> {
    let reference = record.get(node, "reference").and_then(|reference| record.text(reference));
    let Some(target) = reference.and_then(|reference| record.resolve(resource, reference)) else { return Some(node) };
    record.get(target, "code").filter(|_| record.resource_type(target) == Some("Medication"))
}

/// Whether the (system, code) that is looked for is one of a CodeableConcept, a Coding, a `code`, or the truth of a Boolean or of an
/// extension, which a profile may fix.
fn any_coding<'r>(record: &'r Record, node: NodeId, is_it: &mut dyn FnMut(Option<&'r str>, &'r str) -> bool) -> bool {
    let text = |node: NodeId, name: &str| record.get(node, name).and_then(|field| record.text(field));
    let mut of_coding = |node: NodeId| match (text(node, "code"), record.get(node, "valueBoolean")) {
        (Some(code), _) => is_it(text(node, "system"), code),
        (None, Some(truth)) => record.literal(truth).is_some_and(|truth| is_it(text(node, "url"), truth)),
        (None, None) => false,
    };
    match record.kind(node) {
        NodeKind::Object => match record.get(node, "coding") {
            Some(list) => record.items(list).any(of_coding),
            None => of_coding(node),
        },
        NodeKind::Text | NodeKind::Boolean => record.literal(node).is_some_and(|code| is_it(None, code)),
        _ => false,
    }
}

/// Whether a resource is of a profile: as it claims, if it claims the profile or one that says the opposite; else by its codes.
fn has_fixed(record: &Record, resource: NodeId, fixed: &FixedCodes) -> bool {
    let claims = record.get(resource, "meta").and_then(|meta| record.get(meta, "profile"));
    let claims = claims.into_iter().flat_map(|list| record.items(list)).filter_map(|claim| record.text(claim));
    let claims: Vec<&str> = claims.map(|claim| claim.split('|').next().unwrap_or(claim)).collect();
    if claims.contains(&&*fixed.profile) {
        return true;
    }
    if fixed.rivals.iter().any(|rival| claims.contains(&&**rival)) {
        return false;
    }
    let nodes = follow(record, resource, &fixed.path);
    let is_one = |system: Option<&str>, code: &str| {
        let is_own = |own: &str| own.is_empty() || system.is_none() || system == Some(own);
        fixed.any_of.iter().any(|(own_system, own_code)| &**own_code == code && is_own(own_system))
    };
    let found = nodes.iter().any(|node| any_coding(record, *node, &mut |system, code| is_one(system, code)));
    match fixed.rule {
        FixedRule::One => found,
        FixedRule::OneIfPresent => found || nodes.is_empty(),
        FixedRule::None => !found,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::cql::value::DateTime;
    use crate::cql::{Environment, Libraries, Models, Session, compile, show};
    use crate::diagnostic::SourceFile;
    use crate::fhir::record::Record;

    /// How many of one resource, of the subject of the record, a retrieve of a QI-Core class finds.
    fn found(class: &str, resource: &str) -> String {
        let text = format!("library T\nusing QICore version '6.0.0'\ncontext Patient\ndefine N: Count([{class}])");
        let (program, problems) = compile(&[SourceFile::new("t.cql", text)], &Libraries::default(), &Models::default());
        let program = program.unwrap_or_else(|| panic!("{problems:?}"));
        let lines = [r#"{"resourceType":"Patient","id":"p"}"#, resource];
        let environment = Environment {
            parameters: BTreeMap::new(),
            now: DateTime::parse_fhir("2026-06-30T12:00:00Z").unwrap(),
            zone: jiff::tz::TimeZone::UTC,
            value_sets: std::sync::Arc::default(),
            units: std::sync::Arc::default(),
        };
        let (record, _) = Record::read(&program.sifted_shape(&environment.value_sets), lines.iter().map(|line| line.as_bytes()));
        let value = Session::new(&program, &environment, &record).evaluate(program.define("T", "N").unwrap()).unwrap();
        show::text(&value, &record)
    }

    #[test]
    fn a_diagnosis_is_of_its_category_unless_it_claims_a_profile() {
        let category = |code: &str| format!(r#","category":[{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/condition-category","code":"{code}"}}]}}]"#);
        let claim = |name: &str| format!(r#","meta":{{"profile":["http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-condition{name}"]}}"#);
        let concern = r#","category":[{"coding":[{"system":"http://hl7.org/fhir/us/core/CodeSystem/condition-category","code":"health-concern"}]}]"#.to_owned();
        let table = [
            // What the Condition says, whether it is an encounter diagnosis, whether a problem or health concern.
            (category("encounter-diagnosis"), "1", "0"),
            (category("problem-list-item"), "0", "1"),
            (concern, "0", "1"),
            (format!(r#"{},"stage":[]"#, category("encounter-diagnosis")), "1", "0"),
            // No category: it may be either.
            (String::new(), "1", "1"),
            (claim(""), "1", "1"),
            // A claim counts more than the category.
            (claim("-encounter-diagnosis") + &category("problem-list-item"), "1", "0"),
            (claim("-problems-health-concerns") + &category("encounter-diagnosis"), "0", "1"),
            (claim("") + &category("problem-list-item"), "0", "1"),
        ];
        for (says, diagnosis, problem) in table {
            let resource = format!(r#"{{"resourceType":"Condition","id":"c","subject":{{"reference":"Patient/p"}}{says}}}"#);
            assert_eq!((&*found("ConditionEncounterDiagnosis", &resource), &*found("ConditionProblemsHealthConcerns", &resource)), (diagnosis, problem), "{resource}");
        }
    }

    /// A claim decides, as where profiles are trusted; without one what the resource says, as far as a profile fixes it.
    #[test]
    fn what_was_not_done_is_told_from_what_was_by_claim_and_else_by_code() {
        let no = r#","modifierExtension":[{"url":"http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform","valueBoolean":true}]"#;
        let (not_done, done) = (r#","status":"not-done""#, r#","status":"completed""#);
        let table = [
            // Class and its negation; what the resource says, the end of the profile that it claims; found by the one, and by the other.
            ("DeviceRequest", "DeviceNotRequested", "", "", "1", "0"),
            ("DeviceRequest", "DeviceNotRequested", no, "", "0", "1"),
            ("DeviceRequest", "DeviceNotRequested", no, "devicerequest", "1", "0"),
            ("DeviceRequest", "DeviceNotRequested", "", "devicenotrequested", "0", "1"),
            ("Procedure", "ProcedureNotDone", not_done, "", "1", "1"),
            ("Procedure", "ProcedureNotDone", done, "", "1", "0"),
            ("Procedure", "ProcedureNotDone", not_done, "procedure", "1", "0"),
            ("Procedure", "ProcedureNotDone", done, "procedurenotdone", "0", "1"),
            ("Communication", "CommunicationNotDone", not_done, "communicationnotdone", "0", "1"),
            // The profiles of another version say as much.
            ("MedicationRequest", "MedicationNotRequested", "", "mednotrequested", "0", "0"),
        ];
        for (class, negation, says, claim, positive, negative) in table {
            let claim =
                if claim.is_empty() { String::new() } else { format!(r#","meta":{{"profile":["http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-{claim}|6.0.0"]}}"#) };
            let resource = format!(r#"{{"resourceType":"{class}","id":"c","subject":{{"reference":"Patient/p"}}{claim}{says}}}"#);
            assert_eq!((&*found(class, &resource), &*found(negation, &resource)), (positive, negative), "{resource}");
        }
        let bmi = |claim: &str| {
            let claim = format!(r#","meta":{{"profile":["http://hl7.org/fhir/us/core/StructureDefinition/{claim}"]}}"#);
            found(
                "USCoreBMIProfile",
                &format!(r#"{{"resourceType":"Observation","id":"o","subject":{{"reference":"Patient/p"}},"category":[{{"coding":[{{"code":"exam"}}]}}]{claim}}}"#),
            )
        };
        assert_eq!((&*bmi("us-core-bmi"), &*bmi("us-core-vital-signs")), ("1", "0"));
    }

    /// Simple observations, clinical results and assessments have no code that tells them apart.
    #[test]
    fn an_observation_that_claims_to_be_of_one_kind_is_of_no_other() {
        let observed = |claim: &str| {
            let claim = if claim.is_empty() { String::new() } else { format!(r#","meta":{{"profile":["http://hl7.org/fhir/us/{claim}"]}}"#) };
            let resource = format!(r#"{{"resourceType":"Observation","id":"o","subject":{{"reference":"Patient/p"}},"status":"final"{claim}}}"#);
            ["SimpleObservation", "ObservationClinicalResult", "LaboratoryResultObservation"]
                .map(|class| found(class, &resource))
                .join(" ")
        };
        assert_eq!(observed(""), "1 1 1", "nothing is said");
        assert_eq!(observed("qicore/StructureDefinition/qicore-simple-observation"), "1 0 0");
        assert_eq!(observed("qicore/StructureDefinition/qicore-observation-lab|6.0.0"), "0 0 1");
        assert_eq!(observed("core/StructureDefinition/us-core-smokingstatus"), "0 0 0");
        assert_eq!(observed("qicore/StructureDefinition/qicore-observation"), "1 1 1", "any observation, as QI-Core 4 calls it");
        assert_eq!(observed("core/StructureDefinition/us-core-simple-observation"), "1 1 1", "no profile of the model");
    }
}
