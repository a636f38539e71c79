//! Reads value sets and concept maps: FHIR JSON with an expansion, or the short YAML list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{CODES_MAX, Coding, ConceptMap, Extent, ValueSet, systems};
use crate::diagnostic::{Diagnostic, Location, SourceFile, Span, from_json, yaml};

/// Deepest nesting of an expansion that is followed.
const DEPTH_MAX: usize = 32;
/// So many wrong names of one value set are told one by one.
const MISNAMED_MAX: usize = 5;

/// The short list a person writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Short {
    url: String,
    version: Option<String>,
    title: Option<String>,
    #[serde(rename = "status")]
    _status: Option<String>,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    codes: Vec<Entry>,
}

/// One code, or the codes of one system with their text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    system: String,
    code: Option<String>,
    display: Option<String>,
    codes: Option<BTreeMap<String, Option<String>>>,
}

fn start_of(source: &Arc<SourceFile>) -> Location {
    Location::new(source, Span::new(0, 0))
}

/// Reads a value set from FHIR JSON (with its expansion, or with codes listed one by one) or from the
/// short YAML list. A set without codes is an error that names it.
///
/// ```
/// use watershed::diagnostic::SourceFile;
/// use watershed::terminology::{ValueSets, read::value_set};
///
/// let text = "url: http://example.org/ValueSet/visits\nversion: 1.0.0\ncodes:\n  - {system: http://snomed.info/sct, code: \"185349003\"}\n";
/// let mut sets = ValueSets::new();
/// sets.add(value_set(&SourceFile::new("visits.yaml", text)).0.unwrap());
/// let set = sets.get("http://example.org/ValueSet/visits|1.0.0").unwrap();
/// assert!(set.contains("http://snomed.info/sct", "185349003"));
///
/// let (none, findings) = value_set(&SourceFile::new("empty.yaml", "url: http://example.org/ValueSet/empty\ncodes: []\n"));
/// assert!(none.is_none() && findings[0].is_error(), "a set without codes would silently find nobody");
/// ```
pub fn value_set(source: &Arc<SourceFile>) -> (Option<ValueSet>, Vec<Diagnostic>) {
    let text = source.text.trim_start_matches('\u{feff}').trim_start();
    let read = if text.starts_with('{') {
        serde_json::from_str::<Json>(text)
            .map_err(|fault| from_json(source, &fault))
            .and_then(|json| fhir_value_set(&json).map_err(|reason| Diagnostic::error(reason).at(start_of(source))))
    } else {
        short_list(source)
    };
    match read {
        Ok(set) => {
            let findings = misnamed(source, &set);
            (Some(set), findings)
        }
        Err(finding) => (None, vec![finding]),
    }
}

/// Systems and codes that no record has: the first few, each at its first place in the text, and how many more there are.
fn misnamed(source: &Arc<SourceFile>, set: &ValueSet) -> Vec<Diagnostic> {
    let mut systems: Vec<&str> = set.members().map(|member| &**member.system).collect();
    systems.dedup();
    let systems = systems.into_iter().filter_map(|system| Some((system, systems::misspelled(system)?)));
    let codes = set.members().filter_map(|member| Some((&**member.code, systems::padded(member.code)?)));
    let malformed = set.members().filter_map(|member| Some((&**member.code, systems::malformed(member.system, member.code)?)));
    // What is an error first, so that none is among those that are only counted.
    let mut all = codes.chain(systems).chain(malformed);
    let of_set = |finding: Diagnostic| Diagnostic { message: format!("in value set `{}`: {}", set.url, finding.message), ..finding };
    let mut found: Vec<Diagnostic> = all.by_ref().take(MISNAMED_MAX).map(|(written, finding)| of_set(finding).at(written_at(source, written))).collect();
    let more = all.count();
    found.extend((more > 0).then(|| of_set(Diagnostic::warning(format!("{more} more of its systems and codes are in no record as they are written"))).at(start_of(source))));
    found
}

/// The first place of a whole text, in quotes or bare.
fn written_at(source: &Arc<SourceFile>, written: &str) -> Location {
    if written.is_empty() {
        return [r#""""#, "''"]
            .iter()
            .find_map(|empty| source.text.find(empty))
            .map_or_else(|| start_of(source), |at| Location::new(source, Span::new(at as u32, at as u32 + 2)));
    }
    let is_end = |next: Option<char>| next.is_none_or(|next| next.is_whitespace() || "\"':,{}[]".contains(next));
    let is_whole = |at: &usize| {
        let (before, after) = (source.text.get(..*at).unwrap_or_default(), source.text.get(at + written.len()..).unwrap_or_default());
        let (before, after) = (before.chars().next_back(), after.chars().next());
        // Only in quotes a text has blanks around it.
        let is_quoted = before == after && matches!(before, Some('"' | '\''));
        is_quoted || (written.trim() == written && is_end(before) && is_end(after))
    };
    let at = source.text.match_indices(written).map(|(at, _)| at).find(is_whole);
    let byte = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    at.map_or_else(|| start_of(source), |at| Location::new(source, Span::new(byte(at), byte(at + written.len()))))
}

fn short_list(source: &Arc<SourceFile>) -> Result<ValueSet, Diagnostic> {
    let short: Short = yaml::read(source)?;
    let mut set = ValueSet::new(&short.url);
    set.version = short.version.as_deref().map(Arc::from).or(set.version);
    set.title = short.title.as_deref().map(Arc::from);
    for entry in &short.codes {
        if entry.code.is_none() && entry.codes.is_none() {
            let message = format!("an entry of system `{}` has neither `code` nor `codes`", entry.system);
            return Err(Diagnostic::error(message).at(start_of(source)).help("give it one `code`, or `codes` by name"));
        }
        if let Some(code) = &entry.code {
            set.insert(&entry.system, code, entry.display.as_deref());
        }
        for (code, display) in entry.codes.iter().flatten() {
            set.insert(&entry.system, code, display.as_deref());
        }
    }
    checked(set).map_err(|reason| Diagnostic::error(reason).at(start_of(source)))
}

fn checked(set: ValueSet) -> Result<ValueSet, String> {
    if set.url.is_empty() {
        return Err("a value set has no `url`".to_owned());
    }
    if set.is_empty() {
        return Err(format!("value set `{}` has no codes: a measure that uses it would silently find nobody", set.url));
    }
    Ok(set)
}

fn field<'j>(json: &'j Json, name: &str) -> Option<&'j str> {
    json.get(name).and_then(Json::as_str)
}

/// A FHIR ValueSet as an expanded set: from `expansion.contains`, else from `compose.include[].concept` when nothing
/// in it needs a server. The error names the set and says what is missing.
///
/// Nested entries are members, abstract ones are headings and none (R4, "contains.abstract": not selectable). An
/// inactive code is a member: whoever expanded the set left it in, and a record may bear it from before.
pub fn fhir_value_set(json: &Json) -> Result<ValueSet, String> {
    let kind = field(json, "resourceType").unwrap_or("nothing");
    if kind != "ValueSet" {
        return Err(format!("expected a FHIR ValueSet, found `{kind}`"));
    }
    let url = field(json, "url").unwrap_or("");
    let mut set = ValueSet::new(url);
    set.version = field(json, "version").map(Arc::from).or(set.version);
    set.title = field(json, "title").or_else(|| field(json, "name")).map(Arc::from);
    if let Some((expansion, contains)) = json.get("expansion").and_then(|expansion| Some((expansion, expansion.get("contains")?.as_array()?))) {
        let concepts = add_expansion(&mut set, contains, DEPTH_MAX)?;
        if set.is_empty() && contains.iter().any(is_bare) {
            return Err(bare(&set));
        }
        set.extent = Some(extent(expansion, concepts));
    } else {
        add_composition(&mut set, json)?;
    }
    checked(set)
}

/// What an expansion that holds so many concepts says of its size (R4, ValueSet.expansion.total, offset and parameter).
fn extent(expansion: &Json, concepts: u64) -> Extent {
    const OPEN: [&str; 2] = ["http://hl7.org/fhir/StructureDefinition/valueset-unclosed", "http://hl7.org/fhir/StructureDefinition/valueset-toocostly"];
    let entries = |name: &str| expansion.get(name).and_then(Json::as_array).into_iter().flatten();
    let parameter = |name: &str| entries("parameter").find(|one| field(one, "name") == Some(name)).and_then(|one| one.get("valueInteger")?.as_u64());
    let offset = expansion.get("offset").and_then(Json::as_u64).or_else(|| parameter("offset")).unwrap_or(0);
    let is_open = |one: &Json| field(one, "url").is_some_and(|url| OPEN.contains(&url)) && one.get("valueBoolean").and_then(Json::as_bool) != Some(false);
    Extent {
        total: expansion.get("total").and_then(Json::as_u64),
        pages: BTreeMap::from([(offset, concepts)]),
        page_size: parameter("count"),
        is_open: entries("extension").any(is_open),
    }
}

/// Adds the codes; gives how many concepts stand there, headings included.
fn add_expansion(set: &mut ValueSet, contains: &[Json], depth: usize) -> Result<u64, String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("the expansion of value set `{}` is nested deeper than {DEPTH_MAX} levels", set.url));
    };
    if contains.len() > CODES_MAX {
        return Err(format!("value set `{}` has more than {CODES_MAX} codes", set.url));
    }
    let mut concepts = 0;
    for entry in contains {
        concepts += 1;
        let is_heading = entry.get("abstract").and_then(Json::as_bool) == Some(true);
        if let (Some(system), Some(code), false) = (field(entry, "system"), field(entry, "code"), is_heading) {
            set.insert(system, code, field(entry, "display"));
        }
        if let Some(inner) = entry.get("contains").and_then(Json::as_array) {
            concepts += add_expansion(set, inner, depth)?;
        }
    }
    Ok(concepts)
}

/// Whether an entry of an expansion, or one within it, has a code and no system.
fn is_bare(entry: &Json) -> bool {
    let within = || entry.get("contains").and_then(Json::as_array).is_some_and(|inner| inner.iter().any(is_bare));
    (field(entry, "code").is_some() && field(entry, "system").is_none()) || within()
}

fn bare(set: &ValueSet) -> String {
    format!("value set `{}` has codes without a `system`, and a code alone equals none that a record has: give each its system", set.url)
}

/// The codes that a part of a composition lists one by one, with its system; `None` where it says otherwise which are meant.
fn listed(part: &Json) -> Option<(&str, &Vec<Json>)> {
    let is_plain = part.get("filter").is_none() && part.get("valueSet").is_none();
    Some((field(part, "system")?, part.get("concept").filter(|_| is_plain)?.as_array()?))
}

/// What is included less what is excluded (R4, ValueSet.compose), as far as both are listed. Of another version of a code system nobody
/// knows here whether it is the same code.
fn add_composition(set: &mut ValueSet, json: &Json) -> Result<(), String> {
    let parts = |name: &str| json.pointer(&format!("/compose/{name}")).and_then(Json::as_array).into_iter().flatten();
    let is_of_one_version = |exclude: &Json| {
        let same_system = |include: &&Json| field(include, "system") == field(exclude, "system");
        parts("include").filter(same_system).all(|include| field(include, "version") == field(exclude, "version"))
    };
    let unlisted = parts("include").chain(parts("exclude")).find(|part| listed(part).is_none());
    if unlisted.is_some() || !parts("exclude").all(is_of_one_version) {
        return Err(unlisted.map_or_else(|| needs_expansion(set, "excludes codes of another version of their system"), |part| undescribed(set, part)));
    }
    let codes = |name: &'static str| {
        let parts = parts(name).filter_map(listed);
        parts.flat_map(|(system, concepts)| concepts.iter().filter_map(move |concept| Some((system, field(concept, "code")?, field(concept, "display")))))
    };
    let excluded: BTreeSet<(&str, &str)> = codes("exclude").map(|(system, code, _)| (system, code)).collect();
    for (system, code, display) in codes("include").filter(|(system, code, _)| !excluded.contains(&(*system, *code))) {
        set.insert(system, code, display);
    }
    Ok(())
}

/// Why the codes of a part of a composition cannot be known from it.
fn undescribed(set: &ValueSet, part: &Json) -> String {
    match (part.get("valueSet"), part.get("filter"), part.get("concept"), field(part, "system")) {
        (Some(_), ..) => needs_expansion(set, "is made of other value sets"),
        (_, Some(_), ..) => needs_expansion(set, "describes its codes by a filter"),
        (_, _, Some(_), None) => bare(set),
        (.., Some(system)) => needs_expansion(set, &format!("means all codes of `{system}`")),
        _ => needs_expansion(set, "does not say of which codes it is"),
    }
}

fn needs_expansion(set: &ValueSet, how: &str) -> String {
    format!("value set `{}` {how} and has no expansion: expand it with a terminology server and keep the result", set.url)
}

/// The canonical URL of a ValueSet, and its version, whatever else is wrong with it.
pub fn identity(source: &SourceFile) -> Option<(String, Option<String>)> {
    let json: Json = serde_json::from_str(&source.text).ok()?;
    let named = ValueSet::new(field(&json, "url")?);
    Some((named.url.to_string(), field(&json, "version").or(named.version.as_deref()).map(str::to_owned)))
}

/// A FHIR ConceptMap (R4): every element with a target that is equal, equivalent or wider.
pub fn fhir_concept_map(json: &Json) -> Result<ConceptMap, String> {
    let kind = field(json, "resourceType").unwrap_or("nothing");
    if kind != "ConceptMap" {
        return Err(format!("expected a FHIR ConceptMap, found `{kind}`"));
    }
    let mut map = ConceptMap::default();
    let list = |json: &Json, name: &str| json.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
    for group in list(json, "group") {
        let (Some(from), Some(to)) = (field(&group, "source"), field(&group, "target")) else { continue };
        for element in list(&group, "element") {
            let Some(code) = field(&element, "code") else { continue };
            for target in list(&element, "target") {
                let relation = field(&target, "equivalence").unwrap_or("relatedto");
                let usable = matches!(relation, "equal" | "equivalent" | "wider" | "subsumes");
                if let (Some(target_code), true) = (field(&target, "code"), usable) {
                    let display = field(&target, "display").map(Arc::from);
                    let coding = Coding { system: Arc::from(to), code: Arc::from(target_code), display };
                    map.insert(from, code, coding);
                }
            }
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_list_in_both_forms() {
        let source = SourceFile::new("a.yaml", "url: http://x/vs\nversion: '1'\ntitle: T\ncodes:\n  - {system: s, code: a, display: A}\n  - system: t\n    codes: {b: B, 'c': }\n");
        let (set, findings) = value_set(&source);
        assert!(findings.is_empty(), "{findings:?}");
        let set = set.unwrap();
        assert_eq!(set.len(), 3);
        assert!(set.contains("s", "a") && set.contains("t", "b") && set.contains("t", "c"));
        assert!(!set.contains("t", "a"));
    }

    #[test]
    fn without_a_version_the_greatest_counts_by_its_numbers() {
        let mut sets = super::super::ValueSets::new();
        for (version, code) in [("2.0.0", "a"), ("10.0.0", "b"), ("9", "c")] {
            let source = SourceFile::new("a.yaml", format!("url: http://x/vs\nversion: '{version}'\ntitle: T\ncodes:\n  - {{system: s, code: {code}}}\n"));
            sets.add(value_set(&source).0.unwrap());
        }
        let found = |canonical: &str| sets.get(canonical).and_then(|set| set.version.as_deref());
        assert_eq!((found("http://x/vs"), found("http://x/vs|9"), found("http://x/vs|8")), (Some("10.0.0"), Some("9"), None));
    }

    #[test]
    fn sets_that_would_find_nobody_are_refused_by_name() {
        let cases = [
            (r#"{"resourceType":"ValueSet","url":"http://x/empty"}"#, "http://x/empty", "has no codes"),
            (r#"{"resourceType":"ValueSet","url":"http://x/e","expansion":{"contains":[]}}"#, "http://x/e", "has no codes"),
            (r#"{"resourceType":"ValueSet","url":"http://x/f","compose":{"include":[{"system":"s","filter":[]}]}}"#, "http://x/f", "no expansion"),
            (
                r#"{"resourceType":"ValueSet","url":"http://x/g","compose":{"include":[{"valueSet":["http://x/f"]}]}}"#,
                "http://x/g",
                "is made of other value sets and has no expansion",
            ),
            (r#"{"resourceType":"ValueSet","url":"http://x/h","compose":{"include":[{"system":"s"}]}}"#, "http://x/h", "means all codes of `s` and has no expansion"),
            (r#"{"resourceType":"ValueSet","url":"http://x/i","compose":{"include":[{"concept":[{"code":"a"}]}]}}"#, "http://x/i", "has codes without a `system`"),
            (r#"{"resourceType":"ValueSet","url":"http://x/j","expansion":{"contains":[{"code":"a"}]}}"#, "http://x/j", "has codes without a `system`"),
            (r#"{"resourceType":"Patient"}"#, "Patient", "expected a FHIR ValueSet"),
        ];
        for (text, name, reason) in cases {
            let (set, findings) = value_set(&SourceFile::new("v.json", text));
            assert!(set.is_none());
            let message = findings.first().map(|finding| finding.message.clone()).unwrap_or_default();
            assert!(message.contains(name) && message.contains(reason), "{message}");
        }
    }

    #[test]
    fn codes_that_are_listed_less_those_that_are_excluded_are_the_set() {
        let of = |exclude: &str| {
            let text = format!(
                r#"{{"resourceType":"ValueSet","url":"http://x/v","compose":{{"include":[{{"system":"s","concept":[{{"code":"a"}},{{"code":"b"}}]}},{{"system":"t","concept":[{{"code":"a"}}]}}],"exclude":[{exclude}]}}}}"#
            );
            let set = value_set(&SourceFile::new("v.json", text)).0?;
            Some(set.members().map(|member| format!("{}|{}", member.system, member.code)).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("").as_deref(), Some("s|a s|b t|a"));
        assert_eq!(of(r#"{"system":"s","concept":[{"code":"a"},{"code":"z"}]}"#).as_deref(), Some("s|b t|a"));
        for unknown in [
            r#"{"system":"s","filter":[{"property":"concept","op":"is-a","value":"a"}]}"#,
            r#"{"valueSet":["http://x/w"]}"#,
            r#"{"system":"s","version":"2","concept":[{"code":"a"}]}"#,
        ] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn codes_that_no_record_has_are_told_where_they_stand() {
        let text = "url: http://x/v\ncodes:\n  - {system: http://hl7.org/fhir/sid/icd-10-cm, code: D5700}\n  - {system: http://loinc.org, code: ''}\n  - {system: \"http://urn:oid:2.16.840.1.113883.6.96\", code: '1'}\n";
        let (set, findings) = value_set(&SourceFile::new("v.yaml", text));
        let told: Vec<String> = findings.iter().map(|finding| format!("{finding}; {}", finding.help.as_deref().unwrap_or_default())).collect();
        assert_eq!(set.map(|set| set.len()), Some(3));
        assert_eq!(
            told,
            [
                "warning: in value set `http://x/v`: `http://urn:oid:2.16.840.1.113883.6.96` is not how FHIR names this code system, and codes under two names are never equal (v.yaml:5:15); did you mean `http://snomed.info/sct`?",
                "warning: in value set `http://x/v`: the code `D5700` of ICD-10 has no point: no record that is coded as FHIR asks for it has it (v.yaml:3:55); write `D57.00`",
                "warning: in value set `http://x/v`: a code of `http://loinc.org` is empty: no record has it (v.yaml:4:38); write the code, or leave the entry out",
            ]
        );
    }

    #[test]
    fn of_many_wrong_codes_the_first_are_told_and_how_many_more_there_are() {
        let codes: String = (0..1000).map(|code| format!("  - {{system: http://hl7.org/fhir/sid/icd-10-cm, code: E11{code:03}}}\n")).collect();
        let (_, findings) = value_set(&SourceFile::new("v.yaml", format!("url: http://x/v\ncodes:\n{codes}")));
        let last = "warning: in value set `http://x/v`: 995 more of its systems and codes are in no record as they are written (v.yaml:1:1)";
        assert_eq!((findings.len(), findings.last().map(ToString::to_string).as_deref()), (6, Some(last)));
    }

    #[test]
    fn an_expansion_is_read_whole() {
        let text = r#"{"resourceType":"ValueSet","url":"http://x/v|2","expansion":{"contains":[
            {"system":"s","code":"a","contains":[{"system":"s","code":"b"}]},
            {"system":"s","code":"h","abstract":true,"contains":[{"system":"s","code":"c"}]}]}}"#;
        let (set, _) = value_set(&SourceFile::new("v.json", text));
        let set = set.unwrap();
        assert_eq!((&*set.url, set.version.as_deref()), ("http://x/v", Some("2")));
        let codes: Vec<&str> = set.members().map(|member| &**member.code).collect();
        assert_eq!(codes, ["a", "b", "c"]);
    }

    fn expanded(more: &str, codes: &[&str]) -> ValueSet {
        let contains = codes.iter().map(|code| format!(r#"{{"system":"s","code":"{code}","inactive":true}}"#)).collect::<Vec<_>>().join(",");
        let text = format!(r#"{{"resourceType":"ValueSet","url":"http://x/v","version":"1","expansion":{{{more}"contains":[{contains}]}}}}"#);
        value_set(&SourceFile::new("v.json", text)).0.unwrap()
    }

    #[test]
    fn an_expansion_that_is_a_part_says_so() {
        let count = |size: u64| format!(r#""parameter":[{{"name":"count","valueInteger":{size}}}],"#);
        let unclosed = r#""extension":[{"url":"http://hl7.org/fhir/StructureDefinition/valueset-unclosed","valueBoolean":true}],"#;
        let holds = |total: u64| Some(format!("value set `http://x/v|1` holds 2 of {total} codes: who has one of the others is not found"));
        let may_have = Some("value set `http://x/v|1` holds 2 codes and may have more, which would not be found".to_owned());
        for (more, expected) in [
            (String::new(), None),
            (r#""total":2,"#.to_owned(), None),
            (r#""total":1,"#.to_owned(), None), // some servers count otherwise
            (r#""total":3453,"#.to_owned(), holds(3453)),
            (format!(r#""total":3453,{}"#, count(2)), holds(3453)),
            (format!(r#""total":2,{}"#, count(2)), None),
            (count(2), may_have.clone()), // exactly as many as were asked for
            (count(3), None),
            (r#""offset":2,"total":4,"#.to_owned(), holds(4)),
            (r#""offset":2,"#.to_owned(), may_have.clone()),
            (unclosed.to_owned(), may_have.clone()),
            (format!(r#""total":2,{unclosed}"#), may_have),
            (unclosed.replace("true", "false"), None),
        ] {
            assert_eq!(expanded(&more, &["a", "b"]).shortfall().map(|short| short.words()), expected, "{more}");
        }
    }

    #[test]
    fn pages_of_one_expansion_are_one_set() {
        let (mut set, second) = (expanded(r#""total":3,"offset":0,"#, &["a", "b"]), expanded(r#""total":3,"offset":2,"#, &["c"]));
        assert!(set.shortfall().is_some() && second.shortfall().is_some());
        assert!(set.join(second).is_none());
        assert_eq!((set.len(), set.shortfall()), (3, None));
        let again = expanded(r#""total":3,"offset":2,"#, &["d"]);
        assert!(set.join(again).is_some(), "the same page again, or another one in its place");
        assert!(set.join(expanded(r#""total":4,"offset":3,"#, &["d"])).is_some(), "a page of another expansion");
    }
}
