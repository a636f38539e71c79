//! Which measures wait for what is missing: those whose numbers it could change.

use std::collections::{BTreeMap, BTreeSet};

use crate::cql::Program;
use crate::fhir::compartment::patient_required;
use crate::fhir::resource_type;
use crate::source::import;
use crate::store::runs::ANY_TYPE;

/// What is missing of these may be of any type: who is there at all, and answers of which nobody knows what was in them.
const OF_ANY: [&str; 6] = [ANY_TYPE, "Patient", "Group", "Bundle", "OperationOutcome", "Parameters"];

/// The types of which something that is missing could change a measure's numbers.
#[derive(Debug, PartialEq, Eq)]
pub enum Waits {
    /// Any.
    ForAny,
    /// These, and what may be of any type.
    For(BTreeSet<String>),
    /// Rows of this import alone, in which another system has counted; `None` where no import has them.
    ForRows(Option<String>),
}

impl Waits {
    /// Of a measure's programs: its own, and those of what it is composed of. What is reached by reference, as the Medication of a
    /// request, is among what they read. What need not be a patient's is in a record where anything there refers to it: who asks for
    /// it by itself, and not by a reference of what else is read, may miss it whatever type is missing.
    pub fn of<'p>(programs: impl Iterator<Item = &'p Program>) -> Waits {
        let mut types = BTreeSet::new();
        for program in programs {
            if program.shape().everything || !program.retrieved().iter().all(|name| patient_required(name)) {
                return Waits::ForAny;
            }
            types.extend(program.shape().types.keys().cloned());
        }
        Waits::For(types)
    }

    /// Of what is missing, by type, that which could change the numbers.
    pub fn among(&self, missing: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let waits = |name: &str| match self {
            // Of any type may be what nobody knows of what it is.
            Waits::ForRows(own) => own.as_deref() == Some(name) || name == ANY_TYPE,
            _ if import::is_own(name) => false,
            Waits::ForAny => true,
            Waits::For(types) => types.contains(name) || OF_ANY.contains(&name) || !resource_type::is_one(name),
        };
        missing.iter().filter(|(name, _)| waits(name)).map(|(name, count)| (name.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::{Libraries, Models, compile};
    use crate::diagnostic::SourceFile;

    fn waits(define: &str) -> Waits {
        let head = "library A\nusing FHIR version '4.0.1'\ncodesystem \"RxNorm\": 'http://www.nlm.nih.gov/research/umls/rxnorm'\n\
                    code \"Drug\": '1191' from \"RxNorm\"\ncontext Patient\n";
        let (program, found) = compile(&[SourceFile::new("a.cql", format!("{head}define \"A\": {define}\n"))], &Libraries::default(), &Models::default());
        Waits::of(std::iter::once(&program.unwrap_or_else(|| panic!("{found:?}"))))
    }

    #[test]
    fn a_measure_waits_for_what_it_reads_and_for_what_may_be_of_any_type() {
        let missing: BTreeMap<String, u64> =
            ["*", "Condition", "Device", "Encounter", "LabResult", "Location", "Medication", "MedicationRequest", "Observation", "OperationOutcome", "Patient"]
                .map(|name| (name.to_owned(), 1))
                .into();
        let always = ["*", "LabResult", "OperationOutcome", "Patient"];
        for (define, types) in [
            ("exists [Observation]", vec!["Observation"]),
            ("exists [Condition] C where exists [Encounter] E where E.id = C.encounter.reference", vec!["Condition", "Encounter"]),
            // By code, which may stand in the Medication that a request names.
            ("exists [MedicationRequest: \"Drug\"]", vec!["Medication", "MedicationRequest"]),
        ] {
            let mut expected: Vec<&str> = always.into_iter().chain(types).collect();
            expected.sort_unstable();
            assert_eq!(waits(define).among(&missing).into_keys().collect::<Vec<_>>(), expected, "{define}");
        }
        // What another system has counted waits for its own rows, for which no other measure waits.
        let parts: BTreeMap<String, u64> = ["import absences", "import births", "Patient", "Observation", "*"].map(|name| (name.to_owned(), 1)).into();
        let awaited = |waits: Waits| waits.among(&parts).into_keys().collect::<Vec<_>>();
        assert_eq!(awaited(Waits::ForRows(Some("import births".to_owned()))), ["*", "import births"]);
        assert_eq!(awaited(Waits::ForAny), ["*", "Observation", "Patient"]);
        assert_eq!(awaited(waits("exists [Observation]")), ["*", "Observation", "Patient"]);
        // A place is in the record of whoever anything refers to it from.
        for define in ["exists [Encounter] E where exists [Location] L where L.id = E.id", "exists [Device]", "exists [Resource]"] {
            assert_eq!(waits(define), Waits::ForAny, "{define}");
            assert_eq!(waits(define).among(&missing), missing, "{define}");
        }
    }
}
