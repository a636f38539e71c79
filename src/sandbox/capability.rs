//! What the server says of itself: CapabilityStatement and SMART configuration. Both tell the truth.

use serde_json::{Value, json};

use super::search::{EVERY, TYPES, TypeSearch};

/// The CapabilityStatement.
pub(super) fn statement(title: &str, (version, exports): (u8, &[&str]), base: &str, token_url: &str, date: &str) -> Value {
    let resources: Vec<Value> = TYPES.iter().map(|search| resource(search, exports)).collect();
    let mut rest = json!({
        "mode": "server",
        "security": {
            "extension": [{
                "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                "extension": [{"url": "token", "valueUri": token_url}],
            }],
            "service": [{"coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                "code": "SMART-on-FHIR",
            }]}],
            "description": "SMART Backend Services: private_key_jwt with RS384 or ES384",
        },
        "resource": resources,
    });
    let mut instantiates = json!(["http://hl7.org/fhir/us/core/CapabilityStatement/us-core-server"]);
    if !exports.is_empty() {
        if let Some(list) = instantiates.as_array_mut() {
            let version = ["", "|1.0.1", "|2.0.0", "", "|4.0.0-ballot"].get(usize::from(version)).unwrap_or(&"");
            list.push(json!(format!("http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data{version}")));
        }
        if exports.contains(&"system") {
            rest["operation"] = json!([operation("export")]);
        }
    }
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "instantiates": instantiates,
        "software": {"name": "Watershed sandbox", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": format!("{title} (synthetic patients)"), "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [rest],
    })
}

fn resource(search: &TypeSearch, exports: &[&str]) -> Value {
    let parameters: Vec<Value> = EVERY
        .iter()
        .chain(search.parameters)
        .map(|parameter| json!({"name": parameter.name, "type": parameter.kind.name()}))
        .collect();
    let mut resource = json!({
        "type": search.kind,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "versioned",
        "readHistory": false,
        "updateCreate": false,
        "referencePolicy": ["literal", "local"],
        "searchParam": parameters,
    });
    if !search.includes.is_empty() {
        let includes: Vec<String> = search.includes.iter().map(|include| format!("{}:{include}", search.kind)).collect();
        resource["searchInclude"] = json!(includes);
    }
    match search.kind {
        "Patient" if exports.contains(&"patient") => resource["operation"] = json!([operation("patient-export")]),
        "Group" if exports.contains(&"group") => resource["operation"] = json!([operation("group-export")]),
        _ => {}
    }
    resource
}

fn operation(name: &str) -> Value {
    json!({"name": "export", "definition": format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{name}")})
}

/// `.well-known/smart-configuration`.
pub(super) fn smart_configuration(base: &str, token_url: &str) -> Value {
    json!({
        "issuer": base,
        "token_endpoint": token_url,
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": ["system/*.rs", "system/*.read"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    })
}
