//! Synthetic patients as servers send them: holes, partial dates, odd units, escaped texts, `_field` companions, elements of
//! the wrong kind.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value as Json, json};
use watershed::terminology::{ValueSet, ValueSets};

const DATES: [&str; 9] = ["1950", "1980-07", "2012", "2012-02", "2012-02-29", "2012-03-01", "2013-12-31", "2012-02-30", "soon"];
const MOMENTS: [&str; 13] = [
    "2012",
    "2012-02",
    "2012-02-29",
    "2012-02-29T10:30:00Z",
    "2012-02-29T10:30:00.000Z",
    "2012-02-29T10:30:00.125-05:00",
    "2012-02-29T23:59:59+14:00",
    "2012-03-01T00:00:00-12:00",
    "2012-03-11T02:30:00-05:00",
    "2013-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "2012-02-29T10:30Z",
    "never",
];
const UNITS: [&str; 9] = ["mg/dL", "g", "mg", "[degF]", "Cel", "a", "mo", "furlong", "1"];
const NUMBERS: [&str; 9] = ["5", "5.0", "-1.50", "1e2", "0.00000001", "126", "98.6", "123456789012345678901234567890", "0"];
const CODES: [(&str, &str); 7] = [
    ("http://loinc.org", "2339-0"),
    ("http://loinc.org", "1558-6"),
    ("http://loinc.org", "8480-6"),
    ("http://snomed.info/sct", "44054006"),
    ("http://snomed.info/sct", "390906007"),
    ("http://www.nlm.nih.gov/research/umls/rxnorm", "860975"),
    ("http://watershed.example/local", "2339-0"),
];
const TEXTS: [&str; 6] = ["a", "", "two words", "quote \" and \\ and /", "é𝛿\u{202e}", "line\nbreak"];

/// The value sets of the generated libraries.
pub(super) fn value_sets() -> ValueSets {
    let mut sets = ValueSets::new();
    for (name, codes) in [("labs", &CODES[..2]), ("visits", &CODES[4..5]), ("drugs", &CODES[5..6])] {
        let mut set = ValueSet::new(&format!("http://watershed.example/{name}"));
        codes.iter().for_each(|(system, code)| set.insert(system, code, None));
        sets.add(set);
    }
    sets
}

/// The lines of one patient.
pub(super) fn lines(random: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut scribe = Scribe { random };
    let mut lines = vec![scribe.patient()];
    for kind in ["Observation", "Encounter", "Condition", "MedicationRequest", "Medication"] {
        for number in 0..scribe.random.random_range(0..4) {
            let mut resource = Map::from_iter([("resourceType".to_owned(), json!(kind)), ("id".to_owned(), json!(format!("{}{number}", kind.to_lowercase())))]);
            resource.extend(match kind {
                "Observation" => scribe.observation(),
                "Encounter" => scribe.encounter(),
                "Condition" => scribe.condition(),
                "MedicationRequest" => scribe.request(),
                _ => scribe.medication(),
            });
            lines.push(scribe.line(resource));
        }
    }
    lines.shuffle(random);
    lines
}

struct Scribe<'r> {
    random: &'r mut ChaCha8Rng,
}

impl Scribe<'_> {
    fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    fn pick<'t>(&mut self, among: &[&'t str]) -> &'t str {
        among.choose(self.random).expect("one")
    }

    /// The fields that are there, some with a companion, some of the wrong kind.
    fn fields(&mut self, fields: Vec<(&str, Json)>) -> Map<String, Json> {
        let mut object = Map::new();
        for (name, value) in fields {
            let absent = json!({ "extension": [{ "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown" }] });
            match self.random.random_range(0..20) {
                0..3 => {}
                3 => drop(object.insert(format!("_{name}"), absent)),
                4 => {
                    object.insert(name.to_owned(), value);
                    object.insert(format!("_{name}"), absent);
                }
                5 if self.chance(0.3) => drop(object.insert(name.to_owned(), json!(["odd", null, 5]))),
                6 if self.chance(0.3) => drop(object.insert(name.to_owned(), Json::Null)),
                _ => drop(object.insert(name.to_owned(), value)),
            }
        }
        if self.chance(0.2) {
            object.insert("unheardOf".to_owned(), json!({ "deep": [1, { "code": "2339-0" }] }));
        }
        object
    }

    /// A choice element under one of its names.
    fn one_of(&mut self, fields: Vec<(&'static str, Json)>) -> (&'static str, Json) {
        fields.choose(self.random).expect("one").clone()
    }

    /// One line of JSON; a character of a code may be hidden behind an escape.
    fn line(&mut self, resource: Map<String, Json>) -> Vec<u8> {
        let mut text = Json::Object(resource).to_string();
        if self.chance(0.2) {
            text = text.replace("\"2339-0\"", "\"\\u0032339-0\"");
        }
        if self.chance(0.2) {
            text = text.replace('/', "\\/");
        }
        text.into_bytes()
    }

    fn date(&mut self) -> Json {
        json!(self.pick(&DATES))
    }

    fn moment(&mut self) -> Json {
        json!(self.pick(&MOMENTS))
    }

    fn text(&mut self) -> Json {
        json!(self.pick(&TEXTS))
    }

    fn period(&mut self) -> Json {
        let fields = vec![("start", self.moment()), ("end", self.moment())];
        Json::Object(self.fields(fields))
    }

    fn quantity(&mut self) -> Json {
        let number: Json = serde_json::from_str(self.pick(&NUMBERS)).expect("a number");
        let unit = self.pick(&UNITS);
        let mut fields = vec![("value", number), ("unit", json!(unit)), ("system", json!("http://unitsofmeasure.org")), ("code", json!(unit))];
        if self.chance(0.05) {
            fields.push(("comparator", json!(self.pick(&["<", ">="]))));
        }
        Json::Object(self.fields(fields))
    }

    fn coding(&mut self) -> Json {
        let (system, code) = *CODES.choose(self.random).expect("a code");
        let fields = vec![("system", json!(system)), ("code", json!(code)), ("display", self.text())];
        Json::Object(self.fields(fields))
    }

    fn concept(&mut self) -> Json {
        let codings: Vec<Json> = (0..self.random.random_range(0..3)).map(|_| self.coding()).collect();
        let fields = vec![("coding", json!(codings)), ("text", self.text())];
        Json::Object(self.fields(fields))
    }

    fn concepts(&mut self) -> Json {
        (0..self.random.random_range(0..3)).map(|_| self.concept()).collect()
    }

    fn patient(&mut self) -> Vec<u8> {
        let names = json!([{ "given": ["Synthetic", null, "Example"], "_given": [null, { "id": "x" }, null], "family": "Watershed" }]);
        let fields = vec![("birthDate", self.date()), ("gender", json!(self.pick(&["female", "male", "unknown"]))), ("active", json!(true)), ("name", names)];
        let mut resource = Map::from_iter([("resourceType".to_owned(), json!("Patient")), ("id".to_owned(), json!("p"))]);
        resource.extend(self.fields(fields));
        self.line(resource)
    }

    fn observation(&mut self) -> Map<String, Json> {
        let effective = vec![("effectiveDateTime", self.moment()), ("effectivePeriod", self.period()), ("effectiveInstant", self.moment())];
        let values = vec![
            ("valueQuantity", self.quantity()),
            ("valueCodeableConcept", self.concept()),
            ("valueString", self.text()),
            ("valueBoolean", json!(self.chance(0.5))),
            ("valueInteger", json!(7)),
            ("valueDateTime", self.moment()),
        ];
        let component = json!([{ "code": self.concept(), "valueQuantity": self.quantity() }, { "code": self.concept() }]);
        let fields = vec![
            ("status", json!(self.pick(&["final", "amended", "preliminary"]))),
            ("category", self.concepts()),
            ("code", self.concept()),
            self.one_of(effective),
            ("issued", self.moment()),
            self.one_of(values),
            ("component", component),
        ];
        self.fields(fields)
    }

    fn encounter(&mut self) -> Map<String, Json> {
        let fields = vec![("status", json!("finished")), ("class", self.coding()), ("type", self.concepts()), ("period", self.period())];
        self.fields(fields)
    }

    fn condition(&mut self) -> Map<String, Json> {
        let onset = vec![("onsetDateTime", self.moment()), ("onsetAge", self.quantity()), ("onsetPeriod", self.period()), ("onsetString", self.text())];
        let active = json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active" }] });
        let fields = vec![("clinicalStatus", active), ("code", self.concept()), self.one_of(onset)];
        self.fields(fields)
    }

    fn request(&mut self) -> Map<String, Json> {
        let contained = json!([{ "resourceType": "Medication", "id": "inside", "code": self.concept() }]);
        let reference = json!({ "reference": self.pick(&["Medication/medication0", "http://ehr.example/Medication/medication1", "#inside", "Medication/gone"]) });
        let medication = vec![("medicationCodeableConcept", self.concept()), ("medicationReference", reference)];
        let fields = vec![("contained", contained), ("status", json!("active")), self.one_of(medication), ("authoredOn", self.moment())];
        self.fields(fields)
    }

    fn medication(&mut self) -> Map<String, Json> {
        let fields = vec![("code", self.concept())];
        self.fields(fields)
    }
}
