//! What a steward is told after a slip: sixty and more mistakes, one at a time, in a measure that is well formed.
//!
//! Each row changes one piece of one file; `§` in the new text marks where the finding must point. The snapshot is what the
//! steward reads.

use std::path::Path;
use std::sync::Arc;

use watershed::config::measures::{self, Folder};
use watershed::diagnostic::{Diagnostic, SourceFile, render_human};
use watershed::measure::{Choices, Files, case};

/// File, what stands there, what the steward wrote.
type Mistake = (&'static str, &'static str, &'static str);

const CQL: &[Mistake] = &[
    ("cql", r#"< "Age Limit Years""#, r#"< §"Age Limit Year""#),
    (
        "cql",
        r#"    "IBD Diagnoses" Diagnosis
      where PatientRecord"#,
        r#"    §"IBD Diagnosis" Diagnosis
      where PatientRecord"#,
    ),
    (
        "cql",
        "      and Visit.class ~ \"Ambulatory\"",
        "      and (Visit.class ~ \"Ambulatory\"\n      and Visit.serviceType ~ \"Gastroenterology\"\n\n§define \"More\":\n  1",
    ),
    ("cql", "= 'finished'", "= §'finished"),
    ("cql", "Visit.status.value = 'finished'", "§Visit.status.value = 1"),
    ("cql", "Visit.status.value = 'finished'", "Visit.§statu.value = 'finished'"),
    ("cql", "  [Encounter] Visit", "  [§Encouter] Visit"),
    ("cql", "[Condition: \"Inflammatory Bowel Disease\"]", "[Condition: §\"Inflamatory Bowel Disease\"]"),
    ("cql", "AgeInYearsAt(date from", "§AgeInYearAt(date from"),
    ("cql", "AgeInYearsAt(date from end of \"Measurement Period\")", "AgeInYearsAt(§\"Measurement Period\")"),
    ("cql", "define \"Denominator\":", "define \"Denominator\"\n  §\"Initial Population\"\n\n//"),
    ("cql", "define \"Denominator\":", "define §\"Under Age Limit\":"),
    ("cql", "define \"Denominator\":\n  \"Initial Population\"", "define \"Denominator\":\n  §\"Denominator\" or \"Initial Population\""),
    ("cql", "include PatientRecord version '1.0.0' called", "include §PatientRecords version '1.0.0' called"),
    ("cql", "include PatientRecord version '1.0.0' called", "include §PatientRecord version '2.0.0' called"),
    ("cql", "using FHIR version '4.0.1'", "using §FHIR version '3.0.0'"),
    ("cql", "'394584008' from \"SNOMED CT\"", "'394584008' from §\"SNOMED\""),
    ("cql", "where start of Visit.period >= \"Window Start\"", "where start of §Vist.period >= \"Window Start\""),
    ("cql", "  exists \"Visits In Window\"\n    and \"Under Age Limit\"\n    and \"IBD", "  exists \"Visits In Window\"\n    and §\"Age Limit Years\"\n    and \"IBD"),
    (
        "cql",
        "  \"Exclude Colectomy\" and \"Colectomy Before Index Visit\"",
        "  if \"Exclude Colectomy\" then \"Colectomy Before Index Visit\"\n\n§define \"More\": 1\n",
    ),
    ("cql", "  \"Exclude Colectomy\" and", "  §Interval[1, 'two'] contains 1 and"),
    ("cql", "+ 1 millisecond)", "+ 1 §milisecond)"),
    ("cql", "+ 1 millisecond)", "+ §1 'msec')"),
    ("cql", "define \"Denominator\":\n  \"Initial Population\"", "define \"Denominator\":\n  AgeInYearsAt(§@2025-13-01) > 3"),
    ("cql", "  Max(\"Visits In Window\" Visit return start of Visit.period)", "  §Max(\"Visits In Window\")"),
    ("cql", "  Last(\"Assessed Visits\")", "  §Last(\"Under Age Limit\")"),
    ("cql", "  not exists \"Assessed Visits\"", "  not §exists \"Under Age Limit\""),
    ("cql", "sort by started asc, visit asc", "sort by §start asc, visit asc"),
    ("cql", "  \"Latest Assessment\".answer ~", "  \"Latest Assessment\".§anwser ~"),
    ("cql", "PatientRecord.\"Is Held\"(Diagnosis)", "PatientRecord.§\"Is Held\"(Diagnosis, 1)"),
    ("cql", "PatientRecord.\"Is Held\"(Diagnosis)", "PatientRecord.§\"Is Hold\"(Diagnosis)"),
    ("cql", "\"Age Limit Years\" Integer", "\"Age Limit Years\" §Intger"),
    ("cql", "Integer default 21", "Integer default §'21'"),
    ("cql", "define \"Window Start\":", "§defin \"Window Start\":"),
    ("cql", "context Patient", "context §Pateint"),
    ("cql", "on or before day of end of \"Measurement Period\"\n  )", "on or before §dy of end of \"Measurement Period\"\n  )"),
    ("cql", "Integer default 21", "Integer default §99999999999"),
    ("cql", "valueset \"Total Colectomy\":", "valueset §\"Inflammatory Bowel Disease\":"),
    ("cql", "'http://watershed.example/fhir/ValueSet/total-colectomy'", "'§http://watershed.example/fhir/ValueSet/total-colectomies'"),
    ("cql", "as FHIR.CodeableConcept)", "as §FHIR.CodableConcept)"),
    ("cql", "  \"Exclude Colectomy\" and", "  §/* to be decided\n  \"Exclude Colectomy\" and"),
    ("cql", "< \"Age Limit Years\"", "< §“Age Limit Years”"),
    ("cql", "  \"Exclude Colectomy\" and", "  \"Exclude Colectomy\" §&&"),
    ("cql", "Visit.status.value = 'finished'", "Visit.status.value §== 'finished'"),
    ("cql", "Visit.status.value = 'finished'", "Visit.status.value §<> 'finished'"),
    ("cql", "define \"Window Start\":", "§Define \"Window Start\":"),
    ("cql", "\"Latest Assessment\".answer ~ \"Quiescent\"", "§\"Latest Assessment\".answer = null"),
    ("cql", "start of Visit.period <= end", "§start of Visit.period <= '2025-01-01' and start of Visit.period <= end"),
    ("cql", "sort by started asc, visit asc, assessed asc", "§where true"),
    ("cql", "\"Latest Assessment\".answer ~ \"Quiescent\"", "§\"Latest Assessment\".answer in 'quiescent'"),
    ("cql", "from \"Visits In Window\" Visit, \"Global Assessments\" Assessment", "from \"Visits In Window\" Visit, \"Global Assessments\" §Visit"),
    ("cql", "\"Latest Assessment\".answer ~ \"Quiescent\"", "§\"Latest Assessment\".answer ~ 'quiescent'"),
    ("cql", "library IBDRemission version", "library IBD §Remission version"),
    ("cql", "include FHIRHelpers version '4.0.1'", "include §FHIRHelpers version '9.9.9'"),
    (
        "cql",
        "  \"Exclude Colectomy\" and",
        "  §99999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999 > 1 and",
    ),
];

const YAML: &[Mistake] = &[
    ("measure", "steward: The", "§stewart: The"),
    ("measure", "scoring: proportion", "scoring: §proportional"),
    ("measure", "    define: Denominator\n", "    define: §Denominatr\n"),
    ("measure", "  - code: numerator\n", "  - code: §numerators\n"),
    ("measure", "basis: Patient", "basis: §patient"),
    ("measure", "    define: Numerator\n", "    define: §Latest Assessment\n"),
    ("measure", "basis: Patient", "basis: §Encounter"),
    ("measure", "period: month", "period: §monthly"),
    ("measure", "library: ibd-remission.cql", "library: §ibd-remision.cql"),
    ("measure", "  Age Limit Years:", "  §Age Limit:"),
    ("measure", "    value: 21", "    value: §twenty-one"),
    ("measure", "    value: 21", "    §value:"),
    ("measure", "    value: 21", "    value: §[21]"),
    ("measure", "scoring: proportion", "§scoring:"),
    ("measure", "steward: The network", "steward: §[The network]"),
    ("measure", "basis: Patient", "basis: Patient\n§basis: Encounter"),
    ("measure", "scoring: proportion", "scoring: proportion\n§rate: {multiplier: 1000, unit: per 1000 visits}"),
    ("measure", "supplemental-data:\n  - id: sex", "§groups:\n  - {id: all, populations: []}\nsupplemental-data:\n  - id: sex"),
    ("measure", "  - id: sex\n    define: SDE Sex\n", "  - id: sex\n    define: SDE Sex\n  - id: §sex\n    define: SDE Sex\n"),
    ("measure", "  - code: denominator\n", "  - code: §initial-population\n"),
    ("measure", "improvement: increase", "improvement: §up"),
    ("measure", "    define: SDE Sex", "    define: §SDE Gender"),
    ("measure", "scoring: proportion", " §scoring: proportion"),
    ("measure", "title: IBD in remission", "title: IBD§: in remission"),
    (
        "measure",
        "id: ibd-remission\nurl: http://watershed.example/fhir/Measure/ibd-remission\nversion: 1.0.0\n",
        "§id: ibd-remission\nurl: http://watershed.example/fhir/Measure/ibd-remission\n",
    ),
    ("measure", "  denominator-min: 1", "  denominator-min: §-1"),
    ("measure", "  type: p", "  type: §pie"),
    (
        "case",
        "initial-population: 1, denominator: 1, numerator: 1}\n  - period: \"2026-06\"",
        "initial-population: 1, denominator: 1, §numeratr: 1}\n  - period: \"2026-06\"",
    ),
    ("case", "  - period: \"2025-05\"", "  - period: \"§2025-5\""),
    ("case", "resourceType: Encounter", "resourceType: §Encouter"),
    ("case", "expect:", "§expected:"),
    ("case", "numerator: 1}\n  - period: \"2026-06\"", "numerator: §-1}\n  - period: \"2026-06\""),
    ("value-set", "      \"mild\": \"Mild\"", "      §\"quiescent\": \"Mild\""),
    ("value-set", "  - system: http", "  - §sytem: http"),
    ("value-set", "url: http://watershed.example/fhir/ValueSet/pga-answers\n", "§url:\n"),
    ("value-set", "url: http://watershed.example/fhir/ValueSet/pga-answers\nversion", "§version"),
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/mappings/measures/ibd/remission"))
}

/// The file with the mistake in it, and where the finding must point: line and column.
fn changed(source: &SourceFile, (_, from, to): &Mistake) -> (Arc<SourceFile>, (usize, usize)) {
    assert_eq!(source.text.matches(from).count(), 1, "`{from}` stands once in {}", source.name);
    let marked = source.text.replacen(from, to, 1);
    let at = marked.find('§').expect("a mark");
    let before = &marked[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let place = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
    (SourceFile::new(&source.name, marked.replace('§', "")), place)
}

/// A composite of the network's measures, as a steward would write it.
const COMPOSITE: &str = "\
id: safe-care
scoring: composite
composite-scoring: weighted
basis: Patient
components:
  - measure: ibd-remission
    version: 1.0.0
    weight: 0.5
  - measure: http://watershed.example/fhir/Measure/perinatal-early-elective-delivery
    group: group-1
    weight: 0.25
url: http://watershed.example/fhir/Measure/safe-care
version: 1.2.0
status: draft
title: Safe care
description: How much of what was meant to be done was done. More is better.
steward: The network
improvement: increase
";

/// `safe-care` with the measures it is made of, and one that it is not.
fn composed() -> Vec<Folder> {
    let definition = SourceFile::new("safe-care/measure.yaml", COMPOSITE);
    let files = Files { definition, cql: Vec::new(), libraries: Vec::new(), elm: Vec::new() };
    let composite = Folder { files, value_sets: Vec::new(), cases: Vec::new() };
    let all = root().ancestors().nth(2).unwrap();
    let others = ["ibd/remission", "perinatal/early-elective-delivery", "hac/clabsi"].map(|name| measures::read(&all.join(name)).unwrap());
    std::iter::once(composite).chain(others).collect()
}

const COMPONENTS: &[Mistake] = &[
    ("measure", "measure: ibd-remission", "measure: §ibd-remision"),
    ("measure", "http://watershed.example/fhir/Measure/perinatal-early-elective-delivery", "§http://watershed.example/fhir/Measure/perinatal-elective-delivery"),
    ("measure", "measure: ibd-remission", "measure: §urgent-care"),
    ("measure", "    version: 1.0.0\n", "    version: §1.1.0\n"),
    ("measure", "group: group-1", "group: §group-2"),
    ("measure", "composite-scoring: weighted", "composite-scoring: §weigthed"),
    ("measure", "id: safe-care\nscoring: composite\ncomposite-scoring: weighted\n", "id: §safe-care\nscoring: composite\n"),
    ("measure", "id: safe-care\nscoring: composite\n", "id: §safe-care\nscoring: cohort\n"),
    ("measure", "measure: ibd-remission\n    version: 1.0.0", "measure: §safe-care"),
    ("measure", "measure: ibd-remission", "measure: §hac-clabsi"),
    ("measure", "    weight: 0.5\n", "    weight: 0.5\n  - measure: §ibd-remission\n"),
    (
        "measure",
        "id: safe-care\nscoring: composite\ncomposite-scoring: weighted\nbasis: Patient\ncomponents:\n  - measure: ibd-remission\n    version: 1.0.0\n    weight: 0.5\n",
        "id: §safe-care\nscoring: composite\ncomposite-scoring: weighted\nbasis: Patient\ncomponents:\n",
    ),
    ("measure", "measure: ibd-remission\n    version: 1.0.0\n    weight: 0.5", "measure: §ibd-remission\n    version: 1.0.0\n    weight: -0.5"),
    (
        "measure",
        "id: safe-care\nscoring: composite\ncomposite-scoring: weighted\nbasis: Patient\ncomponents:\n  - measure: ibd-remission\n    version: 1.0.0\n    weight: 0.5\n  - measure: http://watershed.example/fhir/Measure/perinatal-early-elective-delivery\n    group: group-1\n    weight: 0.25\n",
        "id: §safe-care\nscoring: composite\ncomposite-scoring: weighted\nbasis: Patient\ncomponents:\n  - measure: ibd-remission\n    version: 1.0.0\n    weight: 0\n  - measure: http://watershed.example/fhir/Measure/perinatal-early-elective-delivery\n    group: group-1\n    weight: 0\n",
    ),
    (
        "measure",
        "composite-scoring: weighted\nbasis: Patient\ncomponents:\n  - measure: ibd-remission",
        "composite-scoring: linear\nbasis: Encounter\ncomponents:\n  - measure: §ibd-remission",
    ),
    ("measure", "components:\n", "populations:\n  - {code: numerator, define: §Numerator}\ncomponents:\n"),
    ("measure", "id: safe-care\n", "id: §safe-care\nstratifiers:\n  - {id: race, define: Race}\n"),
    ("measure", "    weight: 0.5\n", "    §wieght: 0.5\n"),
];

/// What `watershed measure check` finds.
fn findings(folders: &[Folder]) -> Vec<Diagnostic> {
    let (loaded, mut found) = measures::compile(folders, &[], &Choices::default());
    let measures = loaded.map(|loaded| loaded.measures).unwrap_or_default();
    for (folder, measure) in folders.iter().zip(&measures) {
        found.extend(folder.cases.iter().flat_map(|source| case::parse(source, measure).1));
    }
    found
}

/// Each mistake in the measure at [`root`].
fn told(mistakes: &[Mistake]) -> String {
    told_in(&[measures::read(root()).unwrap()], mistakes)
}

/// Each mistake in the first of the folders.
fn told_in(folders: &[Folder], mistakes: &[Mistake]) -> String {
    let mut text = String::new();
    let mut astray = Vec::new();
    for mistake in mistakes {
        let mut folders = folders.to_vec();
        let files = match mistake.0 {
            "cql" => &mut folders[0].files.cql[0],
            "measure" => &mut folders[0].files.definition,
            "case" => &mut folders[0].cases[0],
            _ => folders[0].value_sets.iter_mut().find(|source| source.name.ends_with("pga-answers.yaml")).unwrap(),
        };
        let (source, place) = changed(files, mistake);
        *files = source;
        let found = findings(&folders);
        let points = |finding: &Diagnostic| finding.at.as_ref().is_some_and(|at| (at.line(), at.column()) == place);
        if !found.iter().any(points) {
            astray.push(format!(
                "{}: {:?}: expected {place:?}, found {:?}",
                mistake.0,
                mistake.2,
                found.iter().map(|one| one.at.as_ref().map(|at| (at.line(), at.column()))).collect::<Vec<_>>()
            ));
        }
        let shown = render_human(&found, false).replace(concat!(env!("CARGO_MANIFEST_DIR"), "/"), "");
        text.push_str(&format!("=== {}\n{}\n", mistake.2.replace('§', ""), shown.trim_end()));
    }
    assert!(astray.is_empty(), "{text}\n{} point elsewhere:\n{}", astray.len(), astray.join("\n"));
    text
}

#[test]
fn mistakes_in_cql_are_named_where_they_are() {
    insta::assert_snapshot!(told(CQL));
}

#[test]
fn mistakes_in_yaml_are_named_where_they_are() {
    insta::assert_snapshot!(told(YAML));
}

#[test]
fn mistakes_in_composites_are_named_where_they_are() {
    assert_eq!(render_human(&findings(&composed()), false), "");
    insta::assert_snapshot!(told_in(&composed(), COMPONENTS));
}
