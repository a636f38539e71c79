//! The kick-off of an export, written as each version of the guide and each server wants it. Pure.

use crate::http::Request;
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
}

impl Order<'_> {
    /// What to ask for, one after the other while the server refuses: everything; the same, leniently; and without the
    /// parameters that not every server knows. What comes unasked then is set aside as it arrives.
    pub fn asks(&self) -> Vec<Ask> {
        let all = Ask { lenient: false, format: true, since: true, types: true };
        let lenient = Ask { lenient: true, ..all };
        let mut asks = vec![all, lenient, Ask { format: false, ..lenient }];
        if self.since.is_some() {
            asks.push(Ask { format: false, since: false, ..lenient });
            asks.push(Ask { format: false, types: false, ..lenient });
        }
        asks.push(Ask { lenient: true, format: false, since: false, types: false });
        asks
    }

    /// The request.
    pub fn request(&self, mut address: Url, form: Form, ask: Ask) -> Request {
        let prefer = if ask.lenient { "respond-async, handling=lenient" } else { "respond-async" };
        let format = FORMATS.get(self.variant % FORMATS.len()).copied().filter(|_| ask.format);
        let since = self.since.filter(|_| ask.since).map(|since| since.to_string());
        let first = self.variant / FORMATS.len() % self.types.len().max(1);
        let types = self.types.iter().skip(first).chain(self.types.iter().take(first)).filter(|_| ask.types);
        let request = match form {
            Form::Query => {
                let types = types.map(String::as_str).collect::<Vec<_>>().join(",");
                let parameters = [("_outputFormat", format), ("_type", Some(types.as_str()).filter(|types| !types.is_empty())), ("_since", since.as_deref())];
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
        let order = Order { types: &types, since: Some("2026-01-02T03:04:05Z".parse().unwrap()), patients: &[], variant: 0 };
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
    fn as_parameters_with_patients_and_in_other_words() {
        let types: BTreeSet<String> = ["Observation", "Patient"].map(str::to_owned).into();
        let order = Order { types: &types, since: None, patients: &["p1".to_owned()], variant: 4 };
        let asks = order.asks();
        insta::assert_snapshot!(written(&order, Form::Parameters, asks[0]), @r#"POST https://ehr.example/fhir/Group/g1/$export [respond-async] {"resourceType":"Parameters","parameter":[{"name":"_outputFormat","valueString":"application/ndjson"},{"name":"_type","valueString":"Patient"},{"name":"_type","valueString":"Observation"},{"name":"patient","valueReference":{"reference":"Patient/p1"}}]}"#);
        assert_eq!(asks.len(), 4, "what changes nothing is not tried");
    }
}
