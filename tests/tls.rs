//! Over TLS, with an authority of one's own: a hospital's EHR, a registry and the site between them, as real processes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

/// A system without any certificates, as a bare container is.
const BARE: [(&str, &str); 2] = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];

/// A server; killed when the test ends.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watershed(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// Exit code and everything said.
fn say(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = watershed(folder, arguments).output().unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Starts a server, on a system without any certificates, and reads the line of JSON in which it says where it is.
fn serve(folder: &Path, arguments: &[&str]) -> (Serving, Value) {
    let mut child = watershed(folder, arguments).args(["--format", "json"]).envs(BARE).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Serving(child), serde_json::from_str(&line).unwrap())
}

/// An authority and a certificate of it for this machine: `authority.pem`, `server.pem`, `server-key.pem`.
fn certificates(folder: &Path) {
    let (authority_key, server_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join("authority.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    std::fs::write(folder.join("server.pem"), server.pem()).unwrap();
    std::fs::write(folder.join("server-key.pem"), server_key.serialize_pem()).unwrap();
}

#[test]
fn a_site_pulls_and_delivers_over_tls_trusting_its_own_authority_and_nobody_else() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    certificates(folder);
    for (key, jwks) in [("ehr-key.pem", "etl.json"), ("registry-key.pem", "registry-jwks.json")] {
        let made = watershed(folder, &["key", "new", key]).output().unwrap();
        std::fs::write(folder.join(jwks), made.stdout).unwrap();
    }
    let measure = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/ibd/remission").display().to_string();
    std::fs::write(
        folder.join("registry.toml"),
        format!("listen = \"127.0.0.1:0\"\nmeasures = [\"{measure}\"]\ntls_certificate_file = \"server.pem\"\ntls_key_file = \"server-key.pem\"\n"),
    )
    .unwrap();
    let (code, said) = say(folder, &["registry", "site", "add", "lakeside", "--client-id", "lakeside", "--jwks", "registry-jwks.json", "--organization", "Lakeside"]);
    assert_eq!(code, Some(0), "{said}");
    let (_registry, at) = serve(folder, &["registry", "serve"]);
    let registry = at["registry"].as_str().unwrap().to_owned();
    let tls = ["--tls-certificate", "server.pem", "--tls-key", "server-key.pem"];
    let (_ehr, at) = serve(folder, &[&["sandbox", "serve", "--patients", "20", "--months", "2", "--client-jwks", "etl.json"], &tls[..]].concat());
    let ehr = at["fhir"].as_str().unwrap().to_owned();
    assert!(registry.starts_with("https://127.0.0.1:") && ehr.starts_with("https://127.0.0.1:"), "{registry} {ehr}");

    let site = |authority: &str| {
        let text = format!(
            "[site]\nid = \"lakeside\"\n[source]\nurl = \"{ehr}\"\nclient_id = \"etl\"\nkey_file = \"ehr-key.pem\"\n{authority}\n\
             [measures]\nfolders = [\"{measure}\"]\nmonths = 2\n\
             [registry]\nurl = \"{registry}\"\nclient_id = \"lakeside\"\nkey_file = \"registry-key.pem\"\n{authority}\n"
        );
        std::fs::write(folder.join("site.toml"), text).unwrap();
    };
    site("");
    let (code, said) = say(folder, &["check"]);
    assert_eq!(code, Some(4), "{said}");
    assert_eq!(said.matches("its TLS certificate is not trusted").count(), 2, "neither is trusted by chance: {said}");
    site("ca_file = \"server-key.pem\"");
    let (code, said) = say(folder, &["check"]);
    assert!(code == Some(3) && said.matches("`server-key.pem` holds no certificate in PEM form").count() == 2, "{said}");

    site("ca_file = \"authority.pem\"");
    let (code, said) = say(folder, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = say(folder, &["run", "--once"]);
    assert!(code == Some(0) && said.contains("20 patients, data complete") && said.contains("feed delivered"), "{code:?} {said}");
    let mut bare = watershed(folder, &["check"]);
    bare.envs(BARE);
    let bare = bare.output().unwrap();
    assert_eq!(bare.status.code(), Some(0), "a system without certificates trusts ours: {}", String::from_utf8_lossy(&bare.stdout));
    let (_, verified) = say(folder, &["registry", "site", "list", "--format", "json"]);
    assert!(serde_json::from_str::<Value>(&verified).unwrap()["sites"][0]["heardAt"].is_string(), "{verified}");
}
