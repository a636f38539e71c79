//! Files that were named in the place of others: keys, patients' data, tables. Nothing of what stands in them is shown.

use crate::diagnostic::Diagnostic;
use crate::fhir::compartment::patient_required;

/// What a file should be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Keys and values: YAML or TOML.
    Keys,
    /// Definitions of FHIR, or CQL.
    Definition,
    /// Codes in lines.
    Table,
}

/// How a key or a certificate begins.
const PEM: &str = "-----BEGIN ";
/// Ends of names under which nobody writes a table.
const OF_TEXTS: [&str; 7] = [".yaml", ".yml", ".toml", ".json", ".cql", ".gz", ".zst"];
/// Characters of a file that are looked at.
const LOOKED_AT: usize = 1 << 16;

/// What is wrong with a file as a whole; nothing if it may be what it should.
pub fn foreign(shown: &str, bytes: &[u8], expected: Expected) -> Option<Diagnostic> {
    let head = String::from_utf8_lossy(bytes.get(..LOOKED_AT).unwrap_or(bytes));
    let text = head.trim_start_matches('\u{feff}').trim_start();
    let what = if text.lines().any(|line| line.starts_with(PEM)) {
        "holds a key or a certificate"
    } else if text.starts_with(['{', '[']) && resource_types(text).next().is_some_and(|first| expected == Expected::Keys || is_of_patient(first)) {
        "holds a resource of FHIR"
    } else if expected != Expected::Table && !OF_TEXTS.iter().any(|end| shown.ends_with(end)) && is_table(text) {
        "is a table"
    } else {
        return None;
    };
    let wanted = match expected {
        Expected::Keys => "a file of keys and values",
        Expected::Definition => "a definition",
        Expected::Table => "a table",
    };
    let help = "name the file that declares it; what stands in this one is not shown, as it may be a secret or tell of patients";
    Some(Diagnostic::error(format!("`{shown}` {what}, expected {wanted}")).help(help))
}

fn is_of_patient(resource_type: &str) -> bool {
    resource_type == "Patient" || patient_required(resource_type)
}

/// The values of `resourceType`, as they stand in the text.
fn resource_types(text: &str) -> impl Iterator<Item = &str> {
    text.split("\"resourceType\"").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        rest.split('"').next()
    })
}

/// Whether the first line that says something is none of keys and values, or of a list.
fn is_table(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', '%']) && *line != "---");
    let is_key = |line: &str| line.contains(": ") || line.ends_with(':') || line.contains('=') || line.starts_with(['-', '[']);
    first.is_some_and(|line| !is_key(line) && line.contains([',', ';', '\t', '|']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_data_and_tables_are_told_by_what_they_are() {
        let told = |name: &str, text: &str, expected| foreign(name, text.as_bytes(), expected).map(|finding| finding.message);
        let patient = r#"{"resourceType" : "Patient","name":[{"family":"Mayer"}]}"#;
        let table = [
            ("a.pem", "# ours\n-----BEGIN PRIVATE KEY-----\nMC4", Expected::Definition, Some("`a.pem` holds a key or a certificate, expected a definition")),
            ("a.ndjson", patient, Expected::Keys, Some("`a.ndjson` holds a resource of FHIR, expected a file of keys and values")),
            ("a.json", patient, Expected::Definition, Some("`a.json` holds a resource of FHIR, expected a definition")),
            ("a.csv", "\u{feff}MRN;Date\n1;2", Expected::Keys, Some("`a.csv` is a table, expected a file of keys and values")),
            ("a.csv", "local,standard\n", Expected::Table, None),
            ("a.json", r#"{"resourceType":"Measure","contained":[{"resourceType":"Patient"}]}"#, Expected::Definition, None),
            ("a.txt", "Mayer;4711\n", Expected::Definition, Some("`a.txt` is a table, expected a definition")),
            ("a.yaml", "# a\n---\nname: a, b\n", Expected::Keys, None),
            ("a.yaml", "name a, b\n", Expected::Keys, None),
            ("site", "[site]\nid = 'a,b'\n", Expected::Keys, None),
        ];
        for (name, text, expected, said) in table {
            assert_eq!(told(name, text, expected).as_deref(), said, "{name} {text}");
        }
    }
}
