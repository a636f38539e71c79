//! Files that count themselves: a number that is missing between others is a file that is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::listing::{Dropped, is_counter, pieces};

/// So many missing numbers are named.
const SHOWN_MAX: usize = 3;
/// Series begin with 0 or 1; what begins later counts something else: years, wards.
const FIRST_MAX: u32 = 1;

/// Where a file stands in a series: its folder and its name with the number left out, and the number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    folder: PathBuf,
    name: String,
}

/// The form and the number of a name that has one number. Of several, one may be a date.
fn counted(path: &Path) -> Option<(Form, u32)> {
    let name = path.file_name()?.to_str()?;
    let mut counters = pieces(name).filter(|piece| is_counter(piece));
    let (Some(counter), None) = (counters.next(), counters.next()) else { return None };
    let mut around = name.match_indices(counter).filter_map(|(at, _)| Some((name.get(..at)?, name.get(at + counter.len()..)?)));
    let is_piece = |(before, after): &(&str, &str)| pieces(before).chain([counter]).chain(pieces(after)).eq(pieces(name));
    let (before, after) = around.find(is_piece)?;
    let form = format!("{before}#{after}");
    Some((Form { folder: path.parent()?.to_owned(), name: form }, counter.parse().ok()?))
}

/// What is missing from series, by type: the name of a file that is there, and what to do. Where no number is that of two types,
/// the numbers count the files of all types together, and those of types that nobody asks for may not be here.
pub(super) fn holes<'f>(files: impl Iterator<Item = &'f Dropped>) -> Vec<(String, String, String)> {
    let mut series: BTreeMap<Form, (&Dropped, BTreeSet<u32>)> = BTreeMap::new();
    let mut together: BTreeMap<Form, Vec<u32>> = BTreeMap::new();
    for file in files {
        let (Some(named), Some((form, number))) = (&file.resource_type, counted(&file.path)) else { continue };
        let all = Form { folder: form.folder.clone(), name: form.name.replace(named.as_str(), "?") };
        together.entry(all).or_default().push(number);
        series.entry(form).or_insert_with(|| (file, BTreeSet::new())).1.insert(number);
    }
    let mut holes = Vec::new();
    for (form, (file, numbers)) in series {
        let (Some(named), Some(first), Some(last)) = (&file.resource_type, numbers.first(), numbers.last()) else { continue };
        let all = together.get(&Form { name: form.name.replace(named.as_str(), "?"), ..form });
        let is_of_all = all.is_some_and(|all| all.len() > numbers.len() && all.iter().collect::<BTreeSet<_>>().len() == all.len());
        let missing: Vec<String> = (*first..=*last).filter(|number| !numbers.contains(number)).map(|number| number.to_string()).collect();
        if missing.is_empty() || *first > FIRST_MAX || is_of_all {
            continue;
        }
        let more = if missing.len() > SHOWN_MAX { format!(" and {} more", missing.len() - SHOWN_MAX) } else { String::new() };
        let shown = missing.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
        let reason = format!("of its series, {first} to {last}, number {shown}{more} is not here; where there is nothing to it, an empty file of that number says so");
        holes.push((named.clone(), file.name.clone(), reason));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_count() {
        let of = |name: &str| counted(Path::new(name)).map(|(form, number)| (form.name, number));
        assert_eq!(of("d/Observation.004.ndjson.gz"), Some(("Observation.#.ndjson.gz".to_owned(), 4)));
        assert_eq!(of("d/1.Observation.ndjson"), Some(("#.Observation.ndjson".to_owned(), 1)));
        assert_eq!(of("d/Observation_x1_1.ndjson"), Some(("Observation_x1_#.ndjson".to_owned(), 1)));
        assert_eq!([of("d/Observation.ndjson"), of("d/Observation.2026-03-02.ndjson"), of("d/Observation.4711815.ndjson")], [None, None, None]);
    }
}
