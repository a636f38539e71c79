//! A list of the site's own that names the patients whose data are taken, one a line. Nothing that it holds is ever told: lines are.

use crate::fhir::compartment::{is_id, reference_target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest file, in bytes.
const BYTES_MAX: u64 = 64 << 20;
/// Lines that are told.
const LINES_SHOWN: usize = 5;

/// Where the list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The file, from where its path starts.
    pub path: PathBuf,
    /// The system of the identifiers that it holds; empty: it holds ids.
    pub system: String,
}

/// Whom a list names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// By the EHR's ids.
    pub ids: BTreeSet<String>,
    /// By system and value, each with its line.
    pub identifiers: BTreeMap<(String, String), usize>,
}

impl Listed {
    /// How many it names.
    pub fn len(&self) -> usize {
        self.ids.len() + self.identifiers.len()
    }

    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl List {
    /// Reads the list, as it is now.
    ///
    /// # Errors
    /// What is wrong with it, by the numbers of its lines.
    pub fn read(&self) -> Result<Listed, String> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let read = |path: &Path| match std::fs::metadata(path)?.len() {
            0..=BYTES_MAX => std::fs::read_to_string(path),
            _ => Err(std::io::Error::other("it has more than 64 MB")),
        };
        let shown = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::InvalidData => "it is no UTF-8; have it saved as UTF-8".to_owned(),
            _ => error.to_string(),
        };
        let text = read(&self.path).map_err(|error| format!("`{name}`, the list of patients, cannot be read: {}", shown(error)))?;
        let listed = parse(&text, &self.system).map_err(|wrong| {
            let (are, expected) = (if wrong.len() == 1 { "is" } else { "are" }, if self.system.is_empty() { "the id of a patient" } else { "a patient's identifier" });
            let help = if self.system.is_empty() { "; where these are record numbers, `source.patients_system` names their system" } else { "" };
            format!("{} of `{name}` {are} not {expected} alone, without quotes, commas or further columns{help}", lines(&wrong))
        })?;
        if listed.is_empty() {
            return Err(format!("`{name}` names no patient: one a line is expected"));
        }
        Ok(listed)
    }
}

/// Lines by their numbers, in words.
pub fn lines(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(LINES_SHOWN).map(usize::to_string).collect();
    let more = numbers.len().saturating_sub(LINES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{more}", if numbers.len() == 1 { "line" } else { "lines" }, shown.join(", "))
}

/// Whom a text names: ids, `Patient/[id]`, `system|value`, or values of `system`. Blank lines and those that begin with `#` name nobody.
///
/// # Errors
/// The numbers of the lines that are none of these.
fn parse(text: &str, system: &str) -> Result<Listed, Vec<usize>> {
    let (mut listed, mut wrong) = (Listed::default(), Vec::new());
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let is_one = !line.contains([',', ';', '\t', '"']);
        let identifier = line.split_once('|').or_else(|| (!system.is_empty()).then_some((system, line)));
        let id = match reference_target(line) {
            Some((Some("Patient"), id)) => id,
            _ => line,
        };
        match identifier {
            Some((system, value)) if is_one && !system.is_empty() && !value.trim().is_empty() => {
                listed.identifiers.entry((system.to_owned(), value.trim().to_owned())).or_insert(number);
            }
            None if is_id(id) => drop(listed.ids.insert(id.to_owned())),
            _ => wrong.push(number),
        }
    }
    if wrong.is_empty() { Ok(listed) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_patients_by_ids_references_and_identifiers() {
        let shown = |text: &str, system: &str| {
            parse(text, system).map(|listed| {
                let identifiers = listed.identifiers.into_iter().map(|((system, value), line)| format!("{system}|{value}@{line}"));
                listed.ids.into_iter().chain(identifiers).collect::<Vec<_>>().join(" ")
            })
        };
        let cases = [
            ("p-1\nPatient/p.2\r\n\n# left in May\n  p-1  ", "", Ok("p-1 p.2")),
            ("\u{feff}urn:mrn|0042\np3", "", Ok("p3 urn:mrn|0042@1")),
            ("0042\n\n7 A\nurn:b|9", "urn:mrn", Ok("urn:b|9@4 urn:mrn|0042@1 urn:mrn|7 A@3")),
            ("p-1\nMRN,name\np_2\nGroup/1", "", Err(vec![2, 3, 4])),
            ("0042;x\n\"43\"\n|44\nurn:mrn|", "urn:mrn", Err(vec![1, 2, 3, 4])),
            ("", "", Ok("")),
        ];
        for (text, system, expected) in cases {
            assert_eq!(shown(text, system), expected.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_lines_and_nothing_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let list = |system: &str| List { path: folder.path().join("clinic.txt"), system: system.to_owned() };
        for (text, system, expected) in [
            (
                "12 345\n",
                "",
                "line 1 of `clinic.txt` is not the id of a patient alone, without quotes, commas or further columns; where these are record numbers, `source.patients_system` names their system",
            ),
            (&"a,b\n".repeat(7), "urn:mrn", "lines 1, 2, 3, 4, 5 and 2 more of `clinic.txt` are not a patient's identifier alone, without quotes, commas or further columns"),
            ("# nobody\n", "", "`clinic.txt` names no patient: one a line is expected"),
        ] {
            std::fs::write(&list("").path, text).unwrap();
            assert_eq!(list(system).read().unwrap_err(), expected);
        }
        std::fs::remove_file(&list("").path).unwrap();
        assert!(list("").read().unwrap_err().starts_with("`clinic.txt`, the list of patients, cannot be read: "));
    }
}
