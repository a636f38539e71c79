//! CQL as authors of measures write it, beyond what the published ones use: what it means over one patient, the same when
//! it was written as ELM and read again, and what is refused with which words.

use std::collections::BTreeMap;
use std::sync::Arc;

use watershed::cql::value::DateTime;
use watershed::cql::{Environment, Libraries, Models, Program, Session, compile, elm, show};
use watershed::diagnostic::{SourceFile, has_errors, render_human};
use watershed::fhir::record::Record;
use watershed::terminology::{ValueSets, read};

const HEAD: &str = "library T version '1.0.0'
using FHIR version '4.0.1'
include FHIRHelpers version '4.0.1' called FHIRHelpers
include Org.Shared.Common version '1.10.0' called Common
codesystem \"SNOMED\": 'http://snomed.info/sct' version '2024-03'
codesystem \"LOINC\": 'http://loinc.org'
valueset \"Diabetes\": 'http://example.org/vs/diabetes' version '1' codesystems { \"SNOMED\" }
code \"A1c\": '4548-4' from \"LOINC\" display 'Hemoglobin A1c'
code \"T2\": '44054006' from \"SNOMED\"
concept \"Type 2\": { \"T2\" } display 'type 2'
parameter \"Measurement Period\"
  Interval<DateTime>
  default Interval[@2024-01-01T00:00:00.0, @2024-12-31T23:59:59.999]
parameter Ratio System.Ratio default 1:128
parameter Dose System.Quantity default 5 'mg'
parameter At Time default @T10:30
parameter Row Tuple { a Integer, b String } default Tuple { a: 1, b: 'x' }
parameter Either Choice<Integer, String> default 'q'
parameter Inferred default { 1, 2 }
context Patient
define function Sum2(a Integer, b Integer): a + b
define function Sum2(a Decimal, b Decimal): a + b
define function Sum2(a String, b String): a & b
define function Factorial(n Integer) returns Integer: if n <= 1 then 1 else n * Factorial(n - 1)
define fluent function isFinished(visit Encounter): visit.status = 'finished'
define fluent function toRange(at Choice<FHIR.dateTime, FHIR.Period>):
  case
    when at is FHIR.dateTime then Interval[at as FHIR.dateTime, at as FHIR.dateTime]
    else FHIRHelpers.ToInterval(at as FHIR.Period)
  end
";

/// An older and a newer version, as a package has them: without the namespace that others name them by.
const COMMON: [&str; 2] = [
    "library Common version '1.9.0'\ndefine Version: 'old'\n",
    "library Common version '1.10.0'\ndefine Version: 'new'\ndefine private Hidden: 1\ndefine fluent function twice(n Integer): n * 2\ndefine fluent function twice(n Decimal): n * 2.0\n",
];

const PATIENT: [&str; 10] = [
    r#"{"resourceType":"Patient","id":"p","gender":"female","birthDate":"1980-05-17","name":[{"use":"official","family":"Test","given":["Ann","B"]},{"use":"nickname","given":["Annie"]}]}"#,
    r#"{"resourceType":"Encounter","id":"e1","status":"finished","class":{"code":"IMP"},"subject":{"reference":"Patient/p"},"period":{"start":"2024-02-10T08:00:00Z","end":"2024-02-14T12:00:00Z"},"location":[{"location":{"reference":"Location/l1"}},{"location":{"reference":"Location/l2"}}]}"#,
    r#"{"resourceType":"Encounter","id":"e2","status":"planned","class":{"code":"AMB"},"subject":{"reference":"Patient/p"},"period":{"start":"2024-03-01T10:00:00-05:00","end":"2024-03-01T11:00:00-05:00"}}"#,
    r#"{"resourceType":"Observation","id":"o1","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"4548-4"}]},"subject":{"reference":"Patient/p"},"effectiveDateTime":"2024-02-10T09:30:00Z","valueQuantity":{"value":8.2,"unit":"%","system":"http://unitsofmeasure.org","code":"%"}}"#,
    r#"{"resourceType":"Observation","id":"o2","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"30522-7"}]},"subject":{"reference":"Patient/p"},"effectivePeriod":{"start":"2024-03-01","end":"2024-03-02"},"valueInteger":5}"#,
    r#"{"resourceType":"Condition","id":"c1","code":{"coding":[{"system":"http://snomed.info/sct","code":"44054006"}]},"subject":{"reference":"Patient/p"},"onsetDateTime":"2015-03-01"}"#,
    r#"{"resourceType":"MedicationRequest","id":"m1","status":"active","intent":"order","medicationReference":{"reference":"Medication/d"},"subject":{"reference":"Patient/p"},"authoredOn":"2024-02-14T11:00:00Z","dosageInstruction":[{"doseAndRate":[{"doseQuantity":{"value":500,"code":"mg","system":"http://unitsofmeasure.org"},"rateQuantity":{"value":2,"code":"mL/h","system":"http://unitsofmeasure.org"}}]}]}"#,
    r#"{"resourceType":"Medication","id":"d","code":{"text":"metformin"}}"#,
    r#"{"resourceType":"Questionnaire","id":"q","item":[{"linkId":"1","item":[{"linkId":"1.1","code":[{"code":"x"}],"item":[{"linkId":"1.1.1"}]},{"linkId":"1.2"}]},{"linkId":"2"}]}"#,
    r#"{"resourceType":"ValueSet","id":"v","contained":[{"resourceType":"Organization","id":"in","alias":["inner"]}]}"#,
];

/// A definition and its value as CQL shows it.
const MEANS: &[(&str, &str)] = &[
    // Timing phrases.
    ("Interval[@2024-01-10, @2024-01-20] starts 5 days before start Interval[@2024-01-15, @2024-02-01]", "true"),
    ("Interval[@2024-01-10, @2024-01-20] ends more than 4 days after start Interval[@2024-01-15, @2024-02-01]", "true"),
    ("Interval[@2024-01-10, @2024-01-20] starts properly within 5 days of start Interval[@2024-01-15, @2024-02-01]", "false"),
    ("Interval[@2024-01-10, @2024-01-20] starts same month as start Interval[@2024-01-15, @2024-02-01]", "true"),
    ("@2024-01-10 2 weeks or less on or before @2024-01-10", "true"),
    ("@2024-01-10 2 weeks or less before @2024-01-10", "false"),
    ("@2024-01-10T10:00:00.0 1 day before day of @2024-01-11T23:00:00.0", "true"),
    ("[Encounter] E where E.period starts 1 year or less before end of \"Measurement Period\" return E.id.value", "{'e1', 'e2'}"),
    ("[Encounter] E return duration in hours of E.period", "{100, 1}"),
    ("difference in months between @2024-01-31T00:00:00.0-05:00 and @2024-02-01T02:00:00.0Z", "1"),
    ("timezoneoffset from @2024-01-01T00:00:00.0-05:00", "-5.0"),
    // Queries: aggregates, several sources, lets, sorts.
    ("({1, 2, 3, 4}) N aggregate R starting 1: R * N", "24"),
    ("({1, 2, 2}) N aggregate distinct R starting 0: R + N", "3"),
    ("({1, 2}) N aggregate R: Coalesce(R, 0) + N", "3"),
    ("[Encounter] E aggregate R starting 0: R + 1", "2"),
    ("from ({1, 2}) A, ({10, 20}) B aggregate R starting 0: R + A * B", "90"),
    ("from ({1, 2}) A, ({1, 2}) B let s: A + B where s > 2 return all s", "{3, 3, 4}"),
    ("({1, 2}) A let x: A * 2, y: x + 1, w: {x, y} return Sum(w)", "{5, 9}"),
    ("({1, 2}) A with ({2, 3}) B such that A = B without ({5}) C such that C < A return A", "{2}"),
    ("[Encounter] E with E.location L such that L.location.reference = 'Location/l2' return E.id.value", "{'e1'}"),
    (
        "({Tuple{a: 1, b: 'x'}, Tuple{a: 1, b: 'a'}, Tuple{a: 0, b: 'z'}}) T sort by a desc, b",
        "{Tuple { a: 1, b: 'a' }, Tuple { a: 1, b: 'x' }, Tuple { a: 0, b: 'z' }}",
    ),
    ("({'bbb', 'a', 'CC'}) X sort by Length($this) descending", "{'bbb', 'CC', 'a'}"),
    ("First([Encounter] E sort by start of period desc).id.value", "'e2'"),
    ("({3, 1, 2}) X let d: -X return Tuple { d: X } sort by d", "{Tuple { d: 1 }, Tuple { d: 2 }, Tuple { d: 3 }}"),
    ("from ({1, 2}) A, ({3, 4}) B let s: A + B return all s sort desc", "{6, 5, 5, 4}"),
    ("({Tuple { X: 2 }, Tuple { X: 1 }}) X sort by X", "{Tuple { X: 1 }, Tuple { X: 2 }}"),
    // Lists and intervals.
    ("Skip({1, 2, 3}, -1)", "{}"),
    ("Take({1, 2, 3}, -1)", "{}"),
    ("({-1, 0, 1}) N return Count(Skip({1, 2, 3}, N)) + 10 * Count(Take({1, 2, 3}, N))", "{0, 3, 12}"),
    ("Slice({1, 2, 3}, -2, -1)", "{2}"),
    ("(null as Choice<Integer, String>) in { 1, 'a', null }", "true"),
    ("({1}) N return start of Interval(N, N + 1)", "{null}"),
    ("Interval(maximum Integer, null as Integer]", "null"),
    ("Interval(2147483647, null as Integer]", "null"),
    ("Interval[@2024-01-01T00:00:00.0, @9999-12-31T23:59:59.999-05:00] included in Interval[@2024-01-01T00:00:00.0, null]", "true"),
    ("Or(true, singleton from {true, false})", "true"),
    ("And(false, singleton from {true, false})", "false"),
    ("Implies(false, singleton from {true, false})", "true"),
    ("collapse { Interval[@2024-01-01, @2024-01-04], Interval[@2024-01-06, @2024-01-09] } per 2 days", "{Interval[@2024-01-01, @2024-01-09]}"),
    ("expand Interval[1, 10] per 3", "{1, 4, 7}"),
    ("expand { Interval[@T10:00, @T11:30] } per hour", "{Interval[@T10, @T10], Interval[@T11, @T11]}"),
    ("point from Interval[5, 5]", "5"),
    ("successor of 1.0", "1.00000001"),
    ("minimum Integer", "-2147483648"),
    ("Interval[1, null) contains 100", "null"),
    ("width of Interval[1, 5]", "4"),
    // Open bounds exclude: of `day of` the whole day (19 "In").
    ("@2024-01-10T10:00:00.0 2 days or less after day of @2024-01-10T08:00:00.0", "false"),
    ("@2024-01-10T10:00:00.0 2 days or less on or after day of @2024-01-10T11:00:00.0", "true"),
    ("@2024-01-10T10:00:00.0 in day of Interval[@2024-01-08T00:00:00.0, @2024-01-10T12:00:00.0)", "false"),
    ("@2024-01-10T10:00:00.0 in Interval[@2024-01-08T00:00:00.0, @2024-01-10T12:00:00.0)", "true"),
    ("@2024-01-10 in Interval(@2024-01, @2024-02]", "null"),
    // A null interval stays null, whatever its points are converted to.
    ("(null as Interval<Date>) overlaps day of Interval[@2024-01-01T08:00:00.0, @2024-01-02T08:00:00.0]", "null"),
    // Counts of which only bounds are known: 12 to 35 months.
    ("(months between @2012 and @2014) in Interval[0, 100]", "true"),
    ("(months between @2012 and @2014) in Interval[36, 100]", "false"),
    ("Interval[20, 30] contains (months between @2012 and @2014)", "null"),
    ("collapse { Interval[1, 5], Interval[3, null) }", "{Interval[1, null)}"),
    ("collapse { Interval[1, 5], Interval[8, null), Interval(null, -3] }", "{Interval(null, -3], Interval[1, 5], Interval[8, null)}"),
    ("collapse { Interval[6, 7], Interval[3, null), Interval[1, 5] }", "{Interval[1, null)}"),
    ("collapse { Interval[1, null) }", "{Interval[1, null)}"),
    ("collapse { Interval[1, null], Interval[0, 3] }", "{Interval[0, null]}"),
    ("collapse { Interval[@2024-03-20, @2024-03-31], Interval[@2024-01, @2024-03], null }", "{Interval[@2024-01, @2024-03-31]}"),
    ("expand { Interval[1, 2], Interval[3, null) }", "{Interval[1, 1], Interval[2, 2]}"),
    // Counts of which only bounds are known (5.6.2 "Uncertainty"): 12 to 35 months, 1 to 14.
    ("(months between @2012 and @2014) = (months between @2012 and @2014)", "null"),
    ("(months between @2012 and @2014) != (months between @2012-01-31 and @2014-12-31)", "null"),
    ("(months between @2012 and @2014) = 36", "false"),
    ("-(months between @2012 and @2014) < -11", "true"),
    ("-(months between @2012 and @2014)", "Interval[-35, -12]"),
    ("Abs(-(months between @2012 and @2014)) >= 12", "true"),
    ("Abs((months between @2012 and @2014) - 20)", "Interval[0, 15]"),
    ("(months between @2012 and @2014) / 12 >= 1", "true"),
    ("Floor((months between @2012 and @2014) / 12)", "Interval[1, 2]"),
    ("Round((months between @2012 and @2014) / 36)", "Interval[0.0, 1.0]"),
    ("((months between @2012 and @2014) div 12) >= 1", "true"),
    ("((months between @2012 and @2014) div 12) >= 2", "null"),
    ("12 div (months between @2012 and @2013)", "error: `div` cannot divide with a count that is uncertain because of a partial date"),
    ("(months between @2012 and @2014) mod 12", "error: `mod` cannot divide with a count that is uncertain because of a partial date"),
    ("1 / ((months between @2012 and @2014) - 20)", "null"),
    ("0 * (months between @2012 and @2014)", "0"),
    ("successor of (months between @2012 and @2014) > 12", "true"),
    ("Max({ (months between @2012 and @2014), 20 }) >= 20", "true"),
    ("Max({ (months between @2012 and @2014), 40 })", "40"),
    ("Min({ (months between @2012 and @2014), 20 })", "Interval[12, 20]"),
    ("Avg({ (months between @2012 and @2014), 20 }) > 15", "true"),
    // The greatest and the least by `<` and `>` (21 "Max", "Min"): which one it is, or nobody can tell.
    ("Max({ @2012, @2012-03, @2013-01-01 })", "@2013-01-01"),
    ("Max({ @2012, @2012-03 })", "null"),
    ("Min({ @2012-03, @2012, @2011 })", "@2011"),
    ("Min({ @2012-03, @2012, null })", "null"),
    ("Max({ @T10:30:00, @T10:30:00.5, @T10:30:00.0 })", "@T10:30:00.500"),
    ("Max({ 1 'g', 2 'm' })", "null"),
    ("Max({ 1 'g', 2 'kg' })", "2 'kg'"),
    ("Median({ 1 'g', 2 'm', 3 'g' })", "null"),
    // What differs surely is unequal wherever it stands (12.1 "Equal").
    ("{ @2012, @2013 } = { @2012-01, @2014 }", "false"),
    ("{ @2013, @2012 } = { @2014, @2012-01 }", "false"),
    ("{ @2012, @2013 } = { @2012-01, @2013 }", "null"),
    ("Tuple { a: null as Integer, b: 1 } = Tuple { a: 1, b: 2 }", "false"),
    ("Tuple { a: null as Integer, b: 1 } = Tuple { a: 1, b: 1 }", "null"),
    // Years to days are compared as they are written, whatever the offsets; hours and finer on one clock (18 "Same As").
    ("@2022-02-22T00:00:00.000-05:00 same day as @2022-02-22T04:59:00.000Z", "true"),
    ("@2024-01-01T00:30:00.0+02:00 during day of \"Measurement Period\"", "true"),
    ("@2024-01-01T00:30:00.0+02:00 during \"Measurement Period\"", "false"),
    ("@2023-12-31T23:30:00.0-05:00 during day of \"Measurement Period\"", "false"),
    ("@2024-01-01T00:30:00.0+02:00 same hour as @2023-12-31T22:45:00.0Z", "true"),
    ("difference in days between @2023-12-31T23:30:00.0-05:00 and @2024-01-01T06:00:00.0Z", "1"),
    ("days between @2023-12-31T23:30:00.0-05:00 and @2024-01-01T06:00:00.0Z", "0"),
    ("time from @2024-01-01T00:30:00.0+02:00", "@T22:30:00.000"),
    // Elements of the model are compared as what they convert to.
    ("Max([Encounter] E return E.period.start)", "@2024-03-01T10:00:00.000-05:00"),
    ("Min([Observation] O return O.value as FHIR.Quantity)", "8.2 '%'"),
    ("({1}) N without (singleton from { { 1 }, { 2 } }) M such that false where N = 2 return N", "error: `singleton from` found 2 elements, it expects at most one"),
    ("({} as List<Integer>) N with (singleton from { { 1 }, { 2 } }) M such that true return N", "{}"),
    // A null in place of a time.
    ("@2012-01-01 within 1 day of null", "false"),
    ("@2012-01-01 3 days before null", "null"),
    ("Interval[@2012-01-01, @2012-01-02] starts 1 day or less after null", "false"),
    // Values of every type, and parameters with defaults.
    ("Ratio", "1 '1':128 '1'"),
    ("Dose * 2", "10 'mg'"),
    ("At", "@T10:30"),
    ("Row.b & Either", "'xq'"),
    ("Inferred", "{1, 2}"),
    ("Concept { Code '44054006' from \"SNOMED\", Code 'E11.9' from \"LOINC\" } display 'DM' ~ \"T2\"", "true"),
    ("FHIR.Period { start: FHIR.dateTime { value: @2024-01-01 } }.start.value", "@2024-01-01T"),
    ("Tuple { \"Some Name\": 1, `other`: 2 }.\"Some Name\"", "1"),
    ("@2024-02-29T10:30:15.1-05:00", "@2024-02-29T10:30:15.100-05:00"),
    ("@2024-01-31 + 1 month", "@2024-02-29"),
    ("'it\\'s \\u0041'", "'it\\'s A'"),
    ("convert 5 'g' to 'mg'", "5000 'mg'"),
    ("case ToInteger('3') when 1 + 2 then 'three' else 'no' end", "'three'"),
    ("\"T2\" in \"Diabetes\"", "true"),
    ("Count(\"Diabetes\" V where V.code = '44054006')", "1"),
    // Nothing.
    ("null ~ null", "true"),
    ("1 between null and 0", "false"),
    ("null in { 1, null }", "true"),
    ("(null as List<Integer>) union { 1 }", "{1}"),
    ("Sum({ null as Integer })", "null"),
    ("Message(1, false, '100', 'Error', 'never')", "1"),
    // Functions: overloads, recursion, fluent ones of other libraries, the newest version of a library.
    ("Sum2(1, 2) + 0", "3"),
    ("Sum2('a', 'b')", "'ab'"),
    ("Factorial(5)", "120"),
    ("3.twice()", "6"),
    ("3.5.twice()", "7.00"),
    ("Common.Version", "'new'"),
    ("[Encounter] E where E.isFinished() return E.id.value", "{'e1'}"),
    ("[Observation] O return O.effective.toRange()", "{Interval[@2024-02-10T09:30:00.000Z, @2024-02-10T09:30:00.000Z], Interval[@2024-03-01T, @2024-03-02T]}"),
    // FHIR: choices. A number is no quantity where there is one; SimpleQuantity is Quantity in JSON.
    ("[Observation] O where O.value > 8 '%' return O.id.value", "{'o1'}"),
    ("[Observation] O where O.value as FHIR.integer > 3 return O.id.value", "{'o2'}"),
    ("[MedicationRequest] M return (M.dosageInstruction[0].doseAndRate[0].dose as FHIR.Quantity).value.value", "{500.0}"),
    ("[MedicationRequest] M return M.dosageInstruction[0].doseAndRate[0].rate as FHIR.SimpleQuantity > 1 'mL/h'", "{true}"),
    ("[Condition: \"Type 2\"] C return C.id.value", "{'c1'}"),
    // A distance to or from a choice of point and interval is one to the point, as the reference translator has it; a cast says that the
    // interval is meant.
    ("[Observation] O where @2024-02-10T09:00:00.0 12 hours or less before O.effective return O.id.value", "{'o1'}"),
    ("[Observation] O where @2024-02-27T00:00:00.0 3 days or less before day of O.effective return O.id.value", "{}"),
    ("[Observation] O where @2024-03-03T00:00:00.0 1 day after day of (O.effective as FHIR.Period) return O.id.value", "{'o2'}"),
    ("[Observation] O where O.effective 1 day or less before day of @2024-02-11T00:00:00.0 return O.id.value", "{'o1'}"),
    ("[Observation] O where @2024-02-10T10:00:00.0 within 1 hour of O.effective return O.id.value", "{'o1'}"),
    // What equals a closed bound is within, whatever is known of the other one.
    ("@2024-03-01T10:00:00.0 in Interval[@2024-03-01T10:00:00.0, @2024-03-01T]", "true"),
    ("@2024-03-01T11:00:00.0 in Interval[@2024-03-01T10:00:00.0, @2024-03-01T]", "null"),
    ("@2024-03-01T10:00:00.0 in day of Interval[@2024-03-01T10:00:00.0, @2024-03T]", "true"),
    ("@2024-03-01T11:00:00.0 in day of Interval[@2024-03-01T10:00:00.0, @2024-03T]", "null"),
    // Written so, all of the type; of data of which neither end is known, nothing.
    ("@2024-03-01 in Interval[null as Date, null as Date]", "true"),
    ("[Condition] C return all Interval[start of (C.abatement as FHIR.Period), end of (C.abatement as FHIR.Period)] starts before @2024-01-01T00:00:00.0", "{null}"),
    ("[Condition] C return all Interval[start of (C.abatement as FHIR.Period), @2024-01-01T00:00:00.0] starts before @2024-01-01T00:00:00.0", "{true}"),
    // Without a distance it is the point, if it can be one, on either side.
    ("[Observation] O where @2024-12-31T00:00:00.0 after O.effective return O.id.value", "{'o1'}"),
    ("[Observation] O where O.effective before @2024-12-31T00:00:00.0 return O.id.value", "{'o1'}"),
    ("[Observation] O where O.effective same month or after @2024-01-31T00:00:00.0 return O.id.value", "{'o1'}"),
    ("[Observation] O where O.effective during \"Measurement Period\" return O.id.value", "{'o1', 'o2'}"),
    // FHIRPath's methods.
    ("{ 5, 6, 7 }.where($index > 0)", "{6, 7}"),
    ("{ 5, 6, 7 }.select($this * $index)", "{0, 6, 14}"),
    ("{ 5, 6, 7 }.all($index < 3)", "true"),
    ("{ 5, 6, 7 }.exists($index = 2 and $this = 7)", "true"),
    ("{ 5, 6, 7 }.aggregate($total + $index, 0)", "3"),
    ("{ 1, 2 }.repeat(iif($this < 5, $this + 2, null))", "{3, 4, 5, 6}"),
    ("(singleton from [Questionnaire]).repeat(item).linkId.value", "{'1', '2', '1.1', '1.2', '1.1.1'}"),
    ("[Questionnaire].repeat(item).code.code.value", "{'x'}"),
    ("(singleton from [Questionnaire]).descendants().linkId.value", "{'1', '1.1', '1.1.1', '1.2', '2'}"),
    ("(singleton from [Questionnaire]).descendants().ofType(FHIR.Coding).code.value", "{'x'}"),
    ("Patient.children().ofType(FHIR.HumanName).family.value", "{'Test'}"),
    ("Patient.name.children().ofType(FHIR.string).value", "{'Test', 'Ann', 'B', 'Annie'}"),
    ("[ValueSet].children().alias.value", "{'inner'}"),
    ("Descendents(Tuple { a: { 1, null }, b: Interval[2, 3] })", "{1, Interval[2, 3], 2, 3}"),
];

fn libraries() -> Libraries {
    let mut libraries = Libraries::default();
    COMMON.iter().for_each(|text| libraries.add(&SourceFile::new("common.cql", *text)));
    libraries
}

fn environment() -> Environment {
    let zone = jiff::tz::TimeZone::UTC;
    let set = r#"{"resourceType":"ValueSet","url":"http://example.org/vs/diabetes","version":"1","status":"active","expansion":{"timestamp":"2024-01-01","contains":[{"system":"http://snomed.info/sct","code":"44054006"}]}}"#;
    let mut value_sets = ValueSets::new();
    value_sets.add(read::value_set(&SourceFile::new("diabetes.json", set)).0.expect("a value set"));
    let now = DateTime::from_timestamp("2026-03-01T06:30:00Z".parse().expect("an instant"), &zone);
    Environment { parameters: BTreeMap::new(), now, zone, value_sets: Arc::new(value_sets), units: Arc::default() }
}

fn compiled(text: String) -> Program {
    let (program, found) = compile(&[SourceFile::new("t.cql", text)], &libraries(), &Models::default());
    program.unwrap_or_else(|| panic!("{}", render_human(&found, false)))
}

/// The value of a definition over the patient, of whose resources only what the program asks for is read.
fn value(program: &Program, environment: &Environment, name: &str) -> String {
    let (record, bad) = Record::read(program.shape(), PATIENT.iter().map(|line| line.as_bytes()));
    assert_eq!(bad, []);
    let define = program.define("T", name).expect("a define");
    match Session::new(program, environment, &record).evaluate(define) {
        Ok(value) => show::text(&value, &record),
        Err(fault) => format!("error: {}", fault.message),
    }
}

#[test]
fn what_authors_write_means_what_the_specification_says() {
    let environment = environment();
    let defines: String = MEANS.iter().enumerate().map(|(row, (text, _))| format!("define \"{row}\": {text}\n")).collect();
    let program = compiled(format!("{HEAD}{defines}"));
    let again = crate::elm::round_trip(&program).unwrap_or_else(|faults| panic!("{faults}"));
    let mut wrong = Vec::new();
    for (row, (text, expected)) in MEANS.iter().enumerate() {
        let name = row.to_string();
        let (own, read) = (value(&program, &environment, &name), value(&again, &environment, &name));
        if own != *expected || read != *expected {
            wrong.push(format!("{text}\n   expected {expected}\n   is       {own}\n   from ELM {read}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is added to a library, and what its author is told: place, message, help; nothing else.
const REFUSED: &[(&str, &str)] = &[
    // Order and names, as the grammar has them.
    ("define date: 1", "1:8 expected the name of the definition, found `date` / `date` is a word of the language; in double quotes it is a name: \"date\""),
    ("define Größe: 1", "1:8 `Größe` has letters that no plain name has / write \"Größe\", in double quotes"),
    ("define A: @2012-01-01 within 1 day of null", "1:39 nothing is at a distance from null: this is never true / write the date or the interval that is meant"),
    (
        "define A: Tuple { hours: 1 }",
        "1:19 expected the name of an element, found `hours` / `hours` is a word of the language; in double quotes it is a name: \"hours\"",
    ),
    (
        "define function F(day Date): day",
        "1:19 expected the name of an operand, found `day` / `day` is a word of the language; in double quotes it is a name: \"day\"",
    ),
    (
        "define A: [Encounter] E return E.when",
        "1:34 expected the name of an element or function after `.`, found `when` / `when` is a word of the language; in double quotes it is a name: \"when\"",
    ),
    ("define A: ({1}) N aggregate R starting Tuple { a: 1 }: R", "1:40 expected a number, a text or an expression in parentheses after `starting`, found `Tuple`"),
    ("define A: Tuple { a: 1, }", "1:25 expected the name of an element, found `}`"),
    ("define A: {1, 2} N return N", "1:11 a query is over a retrieve, over what has a name, or over something in parentheses / put what is queried in parentheses"),
    (
        "define A: [Observation] O sort by O.issued",
        "1:35 nothing here is named `O` / a key of `sort by` sees only the elements of what is sorted: write `issued`, not `O.issued`, and return what else is to decide",
    ),
    (
        "define A: First([Encounter]) E return E.id",
        "1:11 a query is over a retrieve, over what has a name, or over something in parentheses / put what is queried in parentheses",
    ),
    (
        "define A: from [Encounter] E, E.location L return L",
        "1:31 nothing here is named `E` / sources and `starting` see no row of their query: put what depends on one into a `with`, a `let` or a query inside",
    ),
    (
        "define A: ({1, 2}) N let M: N + 1 aggregate R starting (M): R + N",
        "1:56 nothing here is named `M` / sources and `starting` see no row of their query: put what depends on one into a `with`, a `let` or a query inside",
    ),
    // Contexts.
    (
        "context Unfiltered\ndefine A: [Encounter]",
        "2:11 `A` is in the context Unfiltered, where a retrieve finds the data of all patients; what is evaluated is one patient's data / write `context Patient` above it",
    ),
    (
        "define function F(): [Encounter]\ncontext Population\ndefine A: F()",
        "1:22 `A` is in the context Population, where a retrieve finds the data of all patients; what is evaluated is one patient's data / write `context Patient` above it",
    ),
    (
        "context Unfiltered\ndefine A: AgeInYears()",
        "2:11 `A` is in the context Unfiltered, where `Patient`, of the context Patient, is a list of its results over all patients; what is evaluated is one patient's data / write `context Patient` above it",
    ),
    ("context Practitioner\ndefine A: 1", "1:9 the context `Practitioner` is not supported: what is evaluated is one patient's data / write `context Patient`"),
    ("context Pateint\ndefine A: 1", "1:9 no context `Pateint` / did you mean `Patient`?"),
    (
        "define Mother: singleton from [RelatedPerson]\ndefine A: [\"Mother\" -> Observation: \"A1c\"]",
        "2:12 `[Mother -> …]` asks for the data of somebody else: what is evaluated is one patient's record, which holds nobody else's",
    ),
    // Numbers, dates, types.
    ("define A: @2024-01-01 + 5", "1:11 a number without a unit of time is added to a Date: the result is null / write the unit, as `+ 5 days`"),
    (
        "define A: First([Encounter]).period.start - 1",
        "1:11 a number without a unit of time is subtracted from a DateTime: the result is null / write the unit, as `- 5 days`",
    ),
    ("define A: @2024-2-3", "1:16 a date runs into `-2-3` / months and days have two digits, as in `@2012-02-29`"),
    ("define A: width of Interval[@2024-01-01, @2024-02-01]", "1:11 an interval of Date has no width / ask for the `duration in days of` it, or another unit"),
    ("define A: minimum Quantity", "1:19 `FHIR.Quantity` has no least and no greatest value / `Quantity` alone is FHIR's here: write `System.Quantity`"),
    (
        "define A: Quantity { value: 5.0 }",
        "1:29 element `value` of `FHIR.Quantity` must be of type `FHIR.decimal`, but this is `Decimal` / `FHIR.decimal { value: … }` makes one",
    ),
    (
        "define A: [Observation: status = 'final']",
        "1:34 a retrieve compares with a value set, a code or codes, but this is `String` / compare other elements in a `where`",
    ),
    // Functions.
    ("define function F(a Integer): external", "1:17 function `F` is external and does not say what it returns / write `returns` and a type before the colon"),
    (
        "define function F(a Integer) returns Integer: external\ndefine A: F(1)",
        "2:11 function `F` is external: a run that comes to this call ends with an error / define it in CQL",
    ),
    ("define A: Common.Hidden", "1:18 library `Common` has nothing public named `Hidden`"),
];

#[test]
fn what_the_specification_refuses_is_refused_with_its_place() {
    let mut wrong = Vec::new();
    let before = HEAD.lines().count();
    for (text, expected) in REFUSED {
        let (program, found) = compile(&[SourceFile::new("t.cql", format!("{HEAD}{text}\n"))], &libraries(), &Models::default());
        assert_eq!(program.is_none(), has_errors(&found), "{text}");
        let told: Vec<String> = found
            .iter()
            .map(|finding| {
                let place = finding.at.as_ref().map(|at| format!("{}:{}", at.line() - before, at.column())).unwrap_or_default();
                let help = finding.help.as_ref().map(|help| format!(" / {help}")).unwrap_or_default();
                format!("{place} {}{help}", finding.message)
            })
            .collect();
        if told != [*expected] {
            wrong.push(format!("{text}\n   expected {expected}\n   is       {}", told.join("\n            ")));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whole libraries: what they use and include.
#[test]
fn models_and_libraries_that_are_not_here_are_refused_and_those_that_are_need_no_more() {
    let told = |text: &str| {
        let (_, found) = compile(&[SourceFile::new("t.cql", text)], &libraries(), &Models::default());
        let line = |finding: &watershed::diagnostic::Diagnostic| format!("{} / {}", finding.message, finding.help.clone().unwrap_or_default());
        found.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let models = "the models here are FHIR 4.0.1, QICore 4.1.1, QICore 6.0.0, USCore 3.1.1, USCore 6.1.0, USCore 7.0.0";
    assert_eq!(told("library T\nusing QUICK version '3.0.0'\ncontext Patient\ndefine A: [Encounter]\n"), format!("no model `QUICK 3.0.0` / {models}"));
    assert_eq!(
        told("library T\nusing FHIR version '4.0.1'\ncontext Patient\ndefine A: Patient.gender = 'female'\n"),
        "`=` does not go with (FHIR.AdministrativeGender, String) / `include FHIRHelpers version '…'` converts it to `String`"
    );
    assert_eq!(told("library T\nusing FHIR version '4.0.1'\nusing FHIR version '4.0.1'\n"), "");
    assert_eq!(told("using FHIR version '4.0.1'\nlibrary T\n"), "`library` is the first word of its text / move this `library` to the top");
    assert_eq!(told("library T\ninclude Org.Shared.Common version '2.0.0'\n"), "no library `Org.Shared.Common` of version `2.0.0` / it is here in version 1.9.0, 1.10.0");
    // The helpers that are always here serve the derived models, too; `Patient` is a context whatever its class is called.
    for (model, observation) in
        [("QICore version '4.1.1'", "Observation"), ("QICore version '6.0.0'", "LaboratoryResultObservation"), ("USCore version '6.1.0'", "LaboratoryResultObservationProfile")]
    {
        let text = format!(
            "library T\nusing {model}\ninclude FHIRHelpers version '4.0.1'\ncontext Patient\ndefine A: [{observation}] O where O.value as Quantity > 8 '%' and AgeInYears() > 3\n"
        );
        assert_eq!(told(&text), "", "{model}");
    }
}

/// What a translator of another language would do with it, nobody here can know: an error where it is called, not where it is declared.
#[test]
fn a_call_of_an_external_function_is_an_error_with_its_place() {
    let program = compiled(format!("{HEAD}define function F(a Integer) returns Integer: external\ndefine A: F(1)\n"));
    let record = Record::default();
    let environment = environment();
    let fault = Session::new(&program, &environment, &record)
        .evaluate(program.define("T", "A").expect("a define"))
        .expect_err("no body");
    let line = HEAD.lines().count() + 2;
    assert_eq!(fault.message, "function `F` is external and has no definition here");
    assert_eq!(fault.at.as_ref().map(ToString::to_string), Some(format!("t.cql:{line}:11")));
}

/// A fault of a run points into the ELM that is run.
#[test]
fn a_fault_of_a_run_points_to_its_node_in_the_elm() {
    let text = r#"{ "library": { "identifier": { "id": "T" }, "statements": { "def": [
  { "name": "A", "context": "Patient", "expression":
    { "type": "SingletonFrom", "operand": { "type": "List", "element": [ { "type": "Now" }, { "type": "Now" } ] } } }
] } } }"#;
    let (program, found) = elm::compile(&SourceFile::new("t.json", text), &[], &Models::default());
    let program = program.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
    let record = Record::default();
    let environment = environment();
    let fault = Session::new(&program, &environment, &record)
        .evaluate(program.define("T", "A").expect("a define"))
        .expect_err("two items");
    assert_eq!(fault.at.as_ref().map(ToString::to_string), Some("t.json:3:5".to_owned()));
}
