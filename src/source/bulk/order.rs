//! The kick-off of an export, written as each version of the guide and each server wants it. Pure.

use crate::http::Request;
use crate::source::TypeFilter;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use url::Url;

/// Names of the one format there is. A server that answers with an old export is asked under another name.
const FORMATS: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "ndjson"];

/// What is to be exported.
#[derive(Clone, Debug)]
pub(super) struct Order<'a> {
    /// `_type`.
    pub types: &'a BTreeSet<String>,
    /// `_since`.
    pub since: Option<Timestamp>,
    /// `patient`: these patients only; empty: all.
    pub patients: &'a [String],
    /// `_typeFilter`, one for each type that is narrowed.
    pub filters: &'a [String],
    /// The same in other words: a server that has answered with an old export is asked differently. 0: as usual.
    pub variant: usize,
}

/// How parameters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the query: to version 3.
    Query,
    /// In a Parameters resource: the only form of version 4, and the only one that can name patients.
    Parameters,
}

/// How much is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// What it does not know it may ignore.
    pub lenient: bool,
    format: bool,
    since: bool,
    types: bool,
    /// Filters are best effort: what comes without them is set aside as it arrives.
    pub filters: bool,
}

/// The filter of a type by codes, with commas between them as the server reads them.
pub(super) fn filter(resource_type: &str, codes: &BTreeSet<String>, spelling: TypeFilter) -> String {
    let encoded: Vec<String> = codes.iter().map(|code| code.chars().map(in_query).collect()).collect();
    format!("{resource_type}?code={}", encoded.join(if spelling == TypeFilter::Escaped { "\\," } else { "%2C" }))
}

/// A character of a code within a filter: only what would end or change the value is encoded, since some servers decode
/// a filter once only.
fn in_query(character: char) -> String {
    match character {
        '%' | '&' | '#' | '+' | ' ' => format!("%{:02X}", u32::from(character)),
        other => other.to_string(),
    }
}

impl Order<'_> {
    /// What to ask for, one after the other while the server refuses: everything; the same, leniently; and without the
    /// parameters that not every server knows. What comes unasked then is set aside as it arrives.
    pub fn asks(&self) -> Vec<Ask> {
        let all = Ask { lenient: false, format: true, since: true, types: true, filters: false };
        let lenient = Ask { lenient: true, ..all };
        let mut asks = vec![all, lenient, Ask { format: false, ..lenient }];
        if !self.filters.is_empty() {
            asks.splice(0..0, [Ask { filters: true, ..all }, Ask { filters: true, ..lenient }]);
        }
        if self.since.is_some() {
            asks.push(Ask { format: false, since: false, ..lenient });
            asks.push(Ask { format: false, types: false, ..lenient });
        }
        asks.push(Ask { format: false, since: false, types: false, ..lenient });
        asks
    }

    /// The request.
    pub fn request(&self, mut address: Url, form: Form, ask: Ask) -> Request {
        let prefer = if ask.lenient { "respond-async, handling=lenient" } else { "respond-async" };
        let format = FORMATS.get(self.variant % FORMATS.len()).copied().filter(|_| ask.format);
        let since = self.since.filter(|_| ask.since).map(|since| since.to_string());
        let first = self.variant / FORMATS.len() % self.types.len().max(1);
        let types = self.types.iter().skip(first).chain(self.types.iter().take(first)).filter(|_| ask.types);
        let filters = self.filters.iter().map(String::as_str).filter(|_| ask.filters);
        let request = match form {
            Form::Query => {
                // Lists with commas: Oracle knows no repeated `_type`.
                let filters = filters.collect::<Vec<_>>().join(",");
                let types = types.map(String::as_str).collect::<Vec<_>>().join(",");
                let list = |text| Some(text).filter(|text: &&str| !text.is_empty());
                let parameters = [("_outputFormat", format), ("_type", list(types.as_str())), ("_typeFilter", list(filters.as_str())), ("_since", since.as_deref())];
                let known: Vec<(&str, &str)> = parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                if !known.is_empty() {
                    address.query_pairs_mut().extend_pairs(known);
                }
                Request::new(Method::GET, address)
            }
            Form::Parameters => {
                let mut parameters: Vec<Value> = format.map(|format| json!({"name": "_outputFormat", "valueString": format})).into_iter().collect();
                // Repeated: version 4 has no lists with commas.
                parameters.extend(types.map(|name| json!({"name": "_type", "valueString": name})));
                parameters.extend(filters.map(|filter| json!({"name": "_typeFilter", "valueString": filter})));
                parameters.extend(since.map(|since| json!({"name": "_since", "valueInstant": since})));
                parameters.extend(self.patients.iter().map(|id| json!({"name": "patient", "valueReference": {"reference": format!("Patient/{id}")}})));
                let body = json!({"resourceType": "Parameters", "parameter": parameters}).to_string().into_bytes();
                Request::new(Method::POST, address).body("application/fhir+json", body)
            }
        };
        // Some servers hand out an earlier export of the same request unless they are told not to.
        request.header("accept", "application/fhir+json").header("prefer", prefer).header("cache-control", "no-cache").once()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(order: &Order<'_>, form: Form, ask: Ask) -> String {
        let request = order.request("https://ehr.example/fhir/Group/g1/$export".parse().unwrap(), form, ask);
        let prefer = request.headers.iter().find(|(name, _)| name == "prefer").unwrap();
        let body = String::from_utf8(request.body.unwrap_or_default()).unwrap();
        format!("{} {} [{}] {body}", request.method, request.url, prefer.1).trim_end().to_owned()
    }

    #[test]
    fn from_everything_to_nothing_but_the_address() {
        let types: BTreeSet<String> = ["Observation", "Patient"].map(str::to_owned).into();
        let order = Order { types: &types, since: Some("2026-01-02T03:04:05Z".parse().unwrap()), patients: &[], filters: &[], variant: 0 };
        let lines: Vec<String> = order.asks().into_iter().map(|ask| written(&order, Form::Query, ask)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        GET https://ehr.example/fhir/Group/g1/$export?_outputFormat=application%2Ffhir%2Bndjson&_type=Observation%2CPatient&_since=2026-01-02T03%3A04%3A05Z [respond-async]
        GET https://ehr.example/fhir/Group/g1/$export?_outputFormat=application%2Ffhir%2Bndjson&_type=Observation%2CPatient&_since=2026-01-02T03%3A04%3A05Z [respond-async, handling=lenient]
        GET https://ehr.example/fhir/Group/g1/$export?_type=Observation%2CPatient&_since=2026-01-02T03%3A04%3A05Z [respond-async, handling=lenient]
        GET https://ehr.example/fhir/Group/g1/$export?_type=Observation%2CPatient [respond-async, handling=lenient]
        GET https://ehr.example/fhir/Group/g1/$export?_since=2026-01-02T03%3A04%3A05Z [respond-async, handling=lenient]
        GET https://ehr.example/fhir/Group/g1/$export [respond-async, handling=lenient]
        ");
    }

    #[test]
    fn filters_as_each_server_reads_them_and_then_without() {
        let types: BTreeSet<String> = ["Condition", "Observation"].map(str::to_owned).into();
        let (many, one) = (["http://loinc.org|1-2".to_owned(), "urn:x|a b".to_owned()].into(), ["urn:y|c".to_owned()].into());
        let spelled = |spelling| [filter("Condition", &one, spelling), filter("Observation", &many, spelling)];
        let mut lines = Vec::new();
        for filters in [spelled(TypeFilter::Encoded), spelled(TypeFilter::Escaped)] {
            let order = Order { types: &types, since: None, patients: &[], filters: &filters, variant: 0 };
            let asks = order.asks();
            assert_eq!(asks.iter().map(|ask| (ask.filters, ask.lenient)).take(4).collect::<Vec<_>>(), [(true, false), (true, true), (false, false), (false, true)]);
            lines.extend([Form::Query, Form::Parameters].map(|form| written(&order, form, asks[0])));
        }
        insta::assert_snapshot!(lines.join("\n"), @r#"
        GET https://ehr.example/fhir/Group/g1/$export?_outputFormat=application%2Ffhir%2Bndjson&_type=Condition%2CObservation&_typeFilter=Condition%3Fcode%3Durn%3Ay%7Cc%2CObservation%3Fcode%3Dhttp%3A%2F%2Floinc.org%7C1-2%252Curn%3Ax%7Ca%2520b [respond-async]
        POST https://ehr.example/fhir/Group/g1/$export [respond-async] {"resourceType":"Parameters","parameter":[{"name":"_outputFormat","valueString":"application/fhir+ndjson"},{"name":"_type","valueString":"Condition"},{"name":"_type","valueString":"Observation"},{"name":"_typeFilter","valueString":"Condition?code=urn:y|c"},{"name":"_typeFilter","valueString":"Observation?code=http://loinc.org|1-2%2Curn:x|a%20b"}]}
        GET https://ehr.example/fhir/Group/g1/$export?_outputFormat=application%2Ffhir%2Bndjson&_type=Condition%2CObservation&_typeFilter=Condition%3Fcode%3Durn%3Ay%7Cc%2CObservation%3Fcode%3Dhttp%3A%2F%2Floinc.org%7C1-2%5C%2Curn%3Ax%7Ca%2520b [respond-async]
        POST https://ehr.example/fhir/Group/g1/$export [respond-async] {"resourceType":"Parameters","parameter":[{"name":"_outputFormat","valueString":"application/fhir+ndjson"},{"name":"_type","valueString":"Condition"},{"name":"_type","valueString":"Observation"},{"name":"_typeFilter","valueString":"Condition?code=urn:y|c"},{"name":"_typeFilter","valueString":"Observation?code=http://loinc.org|1-2\\,urn:x|a%20b"}]}
        "#);
    }

    #[test]
    fn as_parameters_with_patients_and_in_other_words() {
        let types: BTreeSet<String> = ["Observation", "Patient"].map(str::to_owned).into();
        let order = Order { types: &types, since: None, patients: &["p1".to_owned()], filters: &[], variant: 4 };
        let asks = order.asks();
        insta::assert_snapshot!(written(&order, Form::Parameters, asks[0]), @r#"POST https://ehr.example/fhir/Group/g1/$export [respond-async] {"resourceType":"Parameters","parameter":[{"name":"_outputFormat","valueString":"application/ndjson"},{"name":"_type","valueString":"Patient"},{"name":"_type","valueString":"Observation"},{"name":"patient","valueReference":{"reference":"Patient/p1"}}]}"#);
        assert_eq!(asks.len(), 4, "what changes nothing is not tried");
    }
}
