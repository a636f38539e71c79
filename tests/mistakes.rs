//! What a steward is told after a slip: sixty and more mistakes, one at a time, in a measure that is well formed.
//!
//! Each row changes one piece of one file; `§` in the new text marks where the finding must point. The snapshot is what the
//! steward reads.

use std::path::Path;
use std::sync::Arc;

use watershed::config::measures::{self, Folder};
use watershed::diagnostic::{Diagnostic, SourceFile, render_human};
use watershed::measure::{Choices, Files, case};

use crate::command_line;

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
    ("cql", "include PatientRecord version '1.0.0' called", "include §Unheard version '1.0.0' called"),
    ("cql", "    where start of Visit.period", "    where true\n    §let limit: 1\n    where start of Visit.period"),
    ("cql", "sort by started asc, visit asc, assessed asc", "sort by started asc, visit asc, assessed asc\n    §where true"),
    ("cql", "sort by started asc, visit asc, assessed asc", "sort by started asc, visit asc, assessed asc\n    §return 1"),
    ("cql", "sort by started asc, visit asc, assessed asc", "§aggregate Sum: 1"),
    ("cql", "sort by started asc, visit asc, assessed asc", "§order by started"),
    ("cql", "sort by started asc, visit asc, assessed asc", "§let limit: 1"),
    ("cql", "start of Visit.period <= end", "start of Visit.period <= end of \"Measurement Period\"\n    §where start of Visit.period <= end"),
    ("cql", "start of Visit.period <= end", "start of Visit.period §≤ end"),
    ("cql", "Integer default 21", "Integer default 22 §– 1"),
    ("cql", "[Condition: \"Inflammatory Bowel Disease\"]", "[Condition §C where C.code in \"Inflammatory Bowel Disease\"]"),
    ("cql", "'http://snomed.info/sct'", "§'http://snomed.info/sct/'"),
    ("cql", "'http://watershed.example/fhir/CodeSystem/ibd'", "§'2.16.840.1.113883.6.96'"),
    ("cql", "'394584008' from", "§'394584008 ' from"),
    (
        "cql",
        "define \"Denominator\":\n  \"Initial Population\"",
        "define \"Denominator\":\n  Sum(\"Visits In Window\" Visit return §duration in days of Visit.period) > 3",
    ),
    ("cql", "'http://watershed.example/fhir/ValueSet/total-colectomy'", "§http://watershed.example/fhir/ValueSet/total-colectomy"),
    (
        "cql",
        "define \"Denominator\":\n  \"Initial Population\"",
        "define \"Denominator\":\n  \"Members\"\n\ndefine \"Members\":\n  §\"Denominator\" or \"Initial Population\"",
    ),
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
    ("measure", "  type: run", "  type: §pie"),
    ("measure", "  type: run", "  type: §t"),
    ("measure", "  type: run", "  type: run\n  §rules: ihi-shewhart"),
    ("measure", "  type: run", "  type: run\n  §goal: 80"),
    ("measure", "  denominator-min: 1", "  §score-min: 0.9\n  score-max: 0.2"),
    (
        "case",
        "initial-population: 1, denominator: 1, numerator: 1}\n  - period: \"2026-06\"",
        "initial-population: 1, denominator: 1, §numeratr: 1}\n  - period: \"2026-06\"",
    ),
    ("case", "  - period: \"2025-05\"", "  - period: \"§2025-5\""),
    ("case", "resourceType: Encounter", "resourceType: §Encouter"),
    ("case", "expect:", "§expected:"),
    ("case", "numerator: 1}\n  - period: \"2026-06\"", "numerator: §-1}\n  - period: \"2026-06\""),
    ("measure", "scoring: proportion", "scoring: proportion\n§null: 5"),
    ("measure", "    value: 21", "    value: §1e400"),
    ("measure", "  denominator-min: 1", "  denominator-min: §one"),
    ("measure", "period: month", "period: §[month]"),
    ("measure", "title: IBD in remission", "title: 'IBD in the child'§s remission'"),
    ("measure", "  - code: numerator\n", "§\t- code: numerator\n"),
    ("case", "resources:", "parameters: {§Age Limit: 5}\nresources:"),
    ("case", "resources:", "parameters: {Age Limit Years: §five}\nresources:"),
    ("case", "resources:", "parameters: {Age Limit Years: §[5]}\nresources:"),
    ("case", "  - period: \"2025-05\"\n", "  - period: \"2025-05\"\n    group: §group-2\n"),
    ("case", "  - period: \"2025-05\"\n", "  - period: \"2025-05\"\n    strata: {§race: [white]}\n"),
    ("case", "  - period: \"2025-05\"\n    populations: {}", "  - period: \"2025-05\"\n    populations: {numerator: §many}"),
    ("case", "gender: female", "§gendr: female"),
    ("case", "gender: female", "gender: §5"),
    ("case", "gender: female", "active: \"§yes\""),
    ("case", "birthDate: \"2012-05-01\"", "birthDate: \"§2012-02-30\""),
    ("case", "birthDate: \"2012-05-01\"", "birthDate: §2012"),
    ("case", "birthDate: \"2012-05-01\"", "birthDate: §null"),
    ("case", "onsetDateTime: \"2022-02-01\"", "§onset: \"2022-02-01\""),
    ("case", "onsetDateTime: \"2022-02-01\"", "onsetDateTime: \"§2022-02-01 10:00\""),
    ("case", "period: {start: \"2025-06-15T10:00:00-04:00\",", "period: {§begin: \"2025-06-15T10:00:00-04:00\","),
    ("case", "encounter: {reference: Encounter/v1}", "encounter: {reference: §Encounter/v2}"),
    ("case", "encounter: {reference: Encounter/v1}", "encounter: {reference: §Encounter/elsewhere}"),
    ("case", "encounter: {reference: Encounter/v1}", "encounter: §Encounter/v1"),
    (
        "case",
        "serviceType: {coding: [{system: http://snomed.info/sct, code: \"394584008\"}]}",
        "serviceType: {coding: §{system: http://snomed.info/sct, code: \"394584008\"}}",
    ),
    ("case", "status: finished", "status: §Finished"),
    ("case", "    id: v1\n", "    id: §v 1\n"),
    ("case", "  - resourceType: Observation\n", "  - {resourceType: Encounter, id: §v1}\n  - resourceType: Observation\n"),
    ("case", "  - resourceType: Observation\n", "  - §type: Observation\n"),
    ("measure", "scoring: proportion", "scoring: ratio\nrate: {multiplier: 1000, unit: §per 100 visits}"),
    ("measure", "scoring: proportion", "scoring: ratio\nrate: {multiplier: 1000, unit: §visits}"),
    ("value-set", "      \"mild\": \"Mild\"", "      §\"quiescent\": \"Mild\""),
    ("value-set", "\"mild\": \"Mild\"", "\"§ mild\": \"Mild\""),
    ("value-set", "system: http://watershed.example/fhir/CodeSystem/ibd", "system: §http://hl7.org/fhir/sid/icd10cm"),
    ("value-set", "system: http://watershed.example/fhir/CodeSystem/ibd", "system: '§2.16.840.1.113883.6.90'"),
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
    // What is said of their test patients is no matter of the composite.
    let others = others.into_iter().map(|other| Folder { cases: Vec::new(), ..other });
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

/// What is wrong with the files of a measure: what was done to them, and what is said.
type Misfile = (fn(&Path), &'static [&'static str]);

const MEASURE: &str = "mappings/measures/ibd/remission";

/// The bytes of a file with others in their place.
fn rewrite(path: &Path, change: impl Fn(&str) -> Vec<u8>) {
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, change(&text)).unwrap();
}

const MISFILED: &[Misfile] = &[
    (
        |root| std::fs::rename(root.join(MEASURE).join("measure.yaml"), root.join(MEASURE).join("measure.yml")).unwrap(),
        &["error: there is no `measure.yaml` at or below", "remission/measure.yml`: name it `measure.yaml`"],
    ),
    (
        |root| std::fs::rename(root.join(MEASURE).join("cases"), root.join(MEASURE).join("case")).unwrap(),
        &["remission/case` is not read", "help: did you mean `cases`?", "note: `ibd-remission` has no test patients"],
    ),
    (|root| std::fs::write(root.join(MEASURE).join("cases/20.json"), "{}").unwrap(), &["cases/20.json` is not read", "help: a test patient is a `.yaml` file"]),
    (|root| std::fs::write(root.join(MEASURE).join("cases/20.yaml"), "").unwrap(), &["error: nothing is in the file but comments or space", "cases/20.yaml:1:1"]),
    (
        |root| command_line::copy(&root.join(MEASURE), &root.join("mappings/measures/ibd/again")),
        &["error: two measures have the id `ibd-remission` and one version", "help: give one of them another `id`, or another `version`"],
    ),
    (
        |root| {
            let sets = root.join("mappings/value-sets");
            std::fs::copy(sets.join("pga-answers.yaml"), sets.join("again.yaml")).unwrap();
            command_line::spoil(&sets.join("again.yaml"), "\"mild\"", "\"light\"");
        },
        &["is here twice with different codes", "pga-answers.yaml, which counts"],
    ),
    (
        |root| rewrite(&root.join("mappings/value-sets/pga-answers.yaml"), |text| text.replace("Mild", "M\u{e9}").bytes().filter(|byte| *byte != 0xc3).collect()),
        &["error: a byte that is no UTF-8 (0xA9) stands here", "pga-answers.yaml:", "help: save the file as UTF-8: it is Latin-1, Windows-1252 or the like"],
    ),
    (
        |root| rewrite(&root.join(MEASURE).join("ibd-remission.cql"), |text| [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()),
        &["ibd-remission.cql` is UTF-16, expected UTF-8", "help: save it as UTF-8"],
    ),
    (
        |root| {
            std::fs::remove_file(root.join("mappings/value-sets/pga-answers.yaml")).unwrap();
            std::fs::write(root.join("mappings/value-sets/pga-answers.json"), "{\"resourceType\": \"ValueSet\",\n").unwrap();
        },
        &["error: the JSON ends before it is complete", "pga-answers.json:2:1", "help: was the file cut short"],
    ),
    (
        |root| std::fs::write(root.join(MEASURE).join("ibd-remission.cql"), "").unwrap(),
        &["error: the CQL has no parameter `Age Limit Years`", "has no definition `Numerator`"],
    ),
];

#[test]
fn files_under_wrong_names_twice_or_in_other_encodings_are_told() {
    let check = |root: &Path| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"))
            .current_dir(root)
            .args(["measure", "check", "mappings/measures/ibd"])
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        // Without the renderer's line ends within a message.
        (output.status.code().unwrap(), said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" "))
    };
    for (spoil, parts) in MISFILED {
        let scratch = tempfile::tempdir().unwrap();
        command_line::copy_mappings(scratch.path());
        spoil(scratch.path());
        let (code, said) = check(scratch.path());
        assert!(matches!(code, 0 | 1 | 3), "{code}: {said}");
        for part in *parts {
            assert!(said.contains(part), "`{part}` is missing in\n{said}");
        }
    }
    // Byte order marks and line ends of other systems are no fault.
    let scratch = tempfile::tempdir().unwrap();
    command_line::copy_mappings(scratch.path());
    for file in ["measure.yaml", "ibd-remission.cql", "cases/01-quiescent.yaml"] {
        rewrite(&scratch.path().join(MEASURE).join(file), |text| format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes());
    }
    let (code, said) = check(scratch.path());
    assert!(code == 0 && said.contains("1 measure is well formed"), "{said}");
}

#[test]
fn the_nearest_of_texts_with_one_name_and_version_counts() {
    let scratch = tempfile::tempdir().unwrap();
    command_line::copy_mappings(scratch.path());
    let (far, near) = (scratch.path().join("mappings"), scratch.path().join(MEASURE));
    for folder in ["libraries", "value-sets"] {
        std::fs::create_dir(near.join(folder)).unwrap();
    }
    std::fs::copy(far.join("libraries/PatientRecord-1.0.0.cql"), near.join("libraries/PatientRecord-1.0.0.cql")).unwrap();
    std::fs::copy(far.join("value-sets/pga-answers.yaml"), near.join("value-sets/pga-answers.yaml")).unwrap();
    rewrite(&near.join("libraries/PatientRecord-1.0.0.cql"), |text| format!("{text}\ndefine \"Nearer\": true\n").into_bytes());
    command_line::spoil(&near.join("value-sets/pga-answers.yaml"), "\"mild\"", "\"nearer\"");
    let (loaded, found) = measures::load(&[near], &[], &Choices::default());
    let loaded = loaded.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
    assert!(loaded.measures[0].program().define("PatientRecord", "Nearer").is_some());
    let set = loaded.value_sets.find("http://watershed.example/fhir/ValueSet/pga-answers", None).unwrap();
    assert!(set.contains("http://watershed.example/fhir/CodeSystem/ibd", "nearer"));
    assert!(found.iter().any(|finding| finding.message.contains("is here twice with different codes")));
}
