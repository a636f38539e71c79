//! A list of the site's own that names the patients whose data are taken, one a line. Nothing that it holds is ever told: lines are.

use crate::fhir::compartment::{is_id, reference_target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest file, in bytes.
const BYTES_MAX: u64 = 64 << 20;
/// Lines that are told.
const LINES_SHOWN: usize = 5;

/// What stands above a column of patients, in small letters and without what is between words.
const HEADINGS: [&str; 18] = [
    "empi",
    "fhirid",
    "id",
    "identifier",
    "medicalrecordnumber",
    "mrn",
    "mrnumber",
    "name",
    "patid",
    "patient",
    "patientid",
    "patientidentifier",
    "patientmrn",
    "patientname",
    "patientnumber",
    "pid",
    "recordnumber",
    "subjectid",
];

/// Where the list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The file, from where its path starts.
    pub path: PathBuf,
    /// The system of the identifiers that it holds; empty: it holds ids.
    pub system: String,
}

/// What of a list names nobody, by the numbers of lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrong {
    /// The first one, which is no patient's but stands above them.
    heading: Option<usize>,
    lines: Vec<usize>,
    /// Something stands in quotes.
    is_quoted: bool,
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
        let listed = parse(&text, &self.system).map_err(|wrong| self.told(&name, &wrong))?;
        if listed.is_empty() {
            return Err(format!("`{name}` names no patient: one a line is expected"));
        }
        Ok(listed)
    }

    /// What is wrong with it, and how it is written instead.
    fn told(&self, name: &str, wrong: &Wrong) -> String {
        let heading = wrong.heading.map(|line| format!("line {line} of `{name}` looks like a heading: take it out, or let it begin with `#`"));
        let (are, expected) = (if wrong.lines.len() == 1 { "is" } else { "are" }, if self.system.is_empty() { "the id of a patient" } else { "a patient's identifier" });
        let quotes = if wrong.is_quoted { "; values stand in quotes: write each without them" } else { "" };
        let system = if self.system.is_empty() { "; where these are record numbers, `source.patients_system` names their system" } else { "" };
        let others = || format!("{} of `{name}` {are} not {expected} alone, without quotes, commas or further columns{quotes}{system}", lines(&wrong.lines));
        heading.into_iter().chain((!wrong.lines.is_empty()).then(others)).collect::<Vec<_>>().join("; ")
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
/// The lines that are none of these.
fn parse(text: &str, system: &str) -> Result<Listed, Wrong> {
    let (mut listed, mut wrong) = (Listed::default(), Wrong::default());
    let all = text.trim_start_matches('\u{feff}').lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    for (place, (number, line)) in all.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).enumerate() {
        if place == 0 && is_heading(line) {
            wrong.heading = Some(number);
            continue;
        }
        let is_quoted = line.contains('"') || line.starts_with(['\'', '\u{2018}', '\u{201c}', '\u{201e}']);
        let is_one = !is_quoted && !line.contains([',', ';', '\t']);
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
            _ => {
                wrong.lines.push(number);
                wrong.is_quoted |= is_quoted;
            }
        }
    }
    if wrong == Wrong::default() { Ok(listed) } else { Err(wrong) }
}

/// Whether a line is what stands above a column of patients.
fn is_heading(line: &str) -> bool {
    let letters = |cell: &str| cell.chars().filter(|one| one.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    line.split([',', ';', '\t']).any(|cell| HEADINGS.contains(&letters(cell).as_str()))
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
            ("p-1\nMRN,name\np_2\nGroup/1", "", Err((None, vec![2, 3, 4], false))),
            ("0042;x\n\"43\"\n|44\nurn:mrn|", "urn:mrn", Err((None, vec![1, 2, 3, 4], true))),
            ("'43'\n44", "urn:mrn", Err((None, vec![1], true))),
            ("# of May\n\nMRN\n0042", "urn:mrn", Err((Some(3), vec![], false))),
            ("\u{feff}\"Patient ID\";\"Name\"\np-1", "", Err((Some(1), vec![], false))),
            ("patient_id\n7,A", "", Err((Some(1), vec![2], false))),
            ("", "", Ok("")),
        ];
        for (text, system, expected) in cases {
            let expected = expected.map(str::to_owned).map_err(|(heading, lines, is_quoted)| Wrong { heading, lines, is_quoted });
            assert_eq!(shown(text, system), expected, "{text:?}");
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
            (
                "id,name\n12,A\n",
                "urn:mrn",
                "line 1 of `clinic.txt` looks like a heading: take it out, or let it begin with `#`; line 2 of `clinic.txt` is not a patient's identifier alone, without quotes, commas or further columns",
            ),
            (
                "\"12\"\n",
                "urn:mrn",
                "line 1 of `clinic.txt` is not a patient's identifier alone, without quotes, commas or further columns; values stand in quotes: write each without them",
            ),
            ("# nobody\n", "", "`clinic.txt` names no patient: one a line is expected"),
        ] {
            std::fs::write(&list("").path, text).unwrap();
            assert_eq!(list(system).read().unwrap_err(), expected);
        }
        std::fs::remove_file(&list("").path).unwrap();
        assert!(list("").read().unwrap_err().starts_with("`clinic.txt`, the list of patients, cannot be read: "));
    }
}
