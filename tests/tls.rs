//! Over TLS, with an authority of one's own: a hospital's EHR, a registry and the site between them, as real processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use watershed::http::{Client, Identity, Origin, Settings};

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

/// An authority, `NAME.pem`, which signs further certificates.
fn authority(folder: &Path, name: &str) -> Issuer<'static, KeyPair> {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join(format!("{name}.pem")), authority.self_signed(&key).unwrap().pem()).unwrap();
    Issuer::new(authority, key)
}

/// A certificate for this machine, good until a year, `NAME.pem` with its key `NAME-key.pem`.
fn certificate(folder: &Path, name: &str, authority: &Issuer<'_, KeyPair>, until: i32) {
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (wanted.not_before, wanted.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(until, 1, 1));
    std::fs::write(folder.join(format!("{name}.pem")), wanted.signed_by(&key, authority).unwrap().pem()).unwrap();
    std::fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
}

#[test]
fn a_site_pulls_and_delivers_over_tls_trusting_its_own_authority_and_nobody_else() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    certificate(folder, "server", &authority(folder, "authority"), 2120);
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

#[test]
fn a_site_shows_an_ehr_that_asks_for_it_its_client_certificate() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let (ours, others) = (authority(folder, "authority"), authority(folder, "others"));
    for (name, authority) in [("server", &ours), ("site", &ours), ("stranger", &others)] {
        certificate(folder, name, authority, 2120);
    }
    let made = watershed(folder, &["key", "new", "ehr-key.pem"]).output().unwrap();
    std::fs::write(folder.join("etl.json"), made.stdout).unwrap();
    let whole = std::fs::read_to_string(folder.join("site.pem")).unwrap();
    std::fs::write(folder.join("cut.pem"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.join("locked-key.pem"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n").unwrap();
    let tls = ["--tls-certificate", "server.pem", "--tls-key", "server-key.pem", "--tls-client-authority", "authority.pem"];
    let (_ehr, at) = serve(folder, &[&["sandbox", "serve", "--patients", "20", "--months", "2", "--client-jwks", "etl.json"], &tls[..]].concat());
    let ehr = at["fhir"].as_str().unwrap().to_owned();
    let measure = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/ibd/remission").display().to_string();
    let site = |shown: &[(&str, &str)]| {
        let shown: String = shown.iter().map(|(key, file)| format!("client_certificate_{key} = \"{file}\"\n")).collect();
        let text = format!(
            "[site]\nid = \"lakeside\"\n[source]\nurl = \"{ehr}\"\nclient_id = \"etl\"\nkey_file = \"ehr-key.pem\"\nca_file = \"authority.pem\"\n{shown}\
             [measures]\nfolders = [\"{measure}\"]\nmonths = 2\n\
             [registry]\nurl = \"https://127.0.0.1:9\"\nclient_id = \"lakeside\"\nkey_file = \"ehr-key.pem\"\n"
        );
        std::fs::write(folder.join("site.toml"), text).unwrap();
    };
    // Over HTTP/2 the server's words are lost or come, as it happens.
    let closed = "`source.client_certificate_file`";
    for (certificate, key, code, expected) in [
        ("", "", 4, closed),
        ("stranger.pem", "stranger-key.pem", 4, closed),
        ("site.pem", "", 3, "`source.client_certificate_key_file` is empty"),
        ("nowhere.pem", "site-key.pem", 3, "`nowhere.pem` does not exist"),
        ("cut.pem", "site-key.pem", 3, "`cut.pem` holds no certificate in PEM form, or not all of it"),
        ("site-key.pem", "site-key.pem", 3, "`site-key.pem` holds no certificate in PEM form"),
        ("site.pem", "stranger.pem", 3, "`stranger.pem` holds no private key in PEM form"),
        ("site.pem", "locked-key.pem", 3, "the key in `locked-key.pem` is encrypted"),
        ("site.pem", "stranger-key.pem", 3, "the private key in `stranger-key.pem` is not that of the certificate in `site.pem`"),
    ] {
        site(&[("file", certificate), ("key_file", key)]);
        let (found, said) = say(folder, &["check"]);
        assert!(found == Some(code) && said.contains(expected), "{certificate} {key}: {found:?} {said}");
        assert!(!said.contains("-----BEGIN") && !said.contains("MIIB"), "{said}");
    }
    site(&[("file", "site.pem"), ("key_file", "site-key.pem")]);
    let (code, said) = say(folder, &["pull"]);
    assert!(code == Some(0) && said.contains("pull 1 (everything): ") && said.contains(" 0 in quarantine"), "{code:?} {said}");
}

/// A server that asks for certificates, and takes those who show none too unless it is strict; whether each request came with one.
fn asking(folder: &Path, is_strict: bool, answer: String) -> (String, Arc<Mutex<Vec<bool>>>) {
    let read = |name: &str| CertificateDer::from_pem_file(folder.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(read("authority.pem")).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
    let verifier = if is_strict { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server-key.pem")).unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![read("server.pem")], key).unwrap();
    let (listener, config, shown) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config), Arc::new(Mutex::new(Vec::new())));
    let (url, noted) = (format!("https://{}/fhir", listener.local_addr().unwrap()), Arc::clone(&shown));
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            if stream.read(&mut [0; 4096]).is_ok() {
                noted.lock().unwrap().push(stream.conn.peer_certificates().is_some());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            stream.conn.send_close_notify();
            let _ = stream.flush();
            // What is still on its way is read, lest the last words be lost.
            let _ = stream.sock.shutdown(std::net::Shutdown::Write);
            let _ = stream.sock.read_to_end(&mut Vec::new());
        }
    });
    (url, shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_of_our_certificate_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let (ours, others) = (authority(folder, "authority"), authority(folder, "others"));
    for (name, authority, until) in [("server", &ours, 2120), ("site", &ours, 2120), ("old", &ours, 2021), ("stranger", &others, 2120)] {
        certificate(folder, name, authority, until);
    }
    let (url, _) = asking(folder, true, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned());
    for (shown, expected) in [
        (None, Some("it asks for a client certificate (`source.client_certificate_file`")),
        (Some("stranger"), Some("it does not accept our client certificate")),
        (Some("old"), Some("it says that our client certificate has expired")),
        (Some("site"), None),
    ] {
        let identity = shown.map(|name| Identity { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}-key.pem")) });
        let root_certificates = vec![std::fs::read(folder.join("authority.pem")).unwrap()];
        let trusted_origins = Origin::of(&url.parse().unwrap()).into_iter().collect();
        let client = Client::new(Settings { root_certificates, identity, trusted_origins, ..Settings::default() }).unwrap();
        let answer = client.get(url.parse().unwrap(), "*/*").await;
        match expected {
            Some(words) => assert!(answer.as_ref().unwrap_err().to_string().contains(words), "{shown:?}: {answer:?}"),
            None => assert_eq!(answer.unwrap().status, 200),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_peer_is_shown_who_asks() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let ours = authority(folder, "authority");
    certificate(folder, "server", &ours, 2120);
    certificate(folder, "site", &ours, 2120);
    let answered = |head: &str| format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let (elsewhere, shown_elsewhere) = asking(folder, false, answered("200 OK"));
    let (home, shown_at_home) = asking(folder, false, answered(&format!("302 Found\r\nlocation: {elsewhere}")));
    let settings = Settings {
        root_certificates: vec![std::fs::read(folder.join("authority.pem")).unwrap()],
        identity: Some(Identity { certificate: folder.join("site.pem"), key: folder.join("site-key.pem") }),
        trusted_origins: Origin::of(&home.parse().unwrap()).into_iter().collect(),
        ..Settings::default()
    };
    let client = Client::new(settings).unwrap();
    assert_eq!(client.get(home.parse().unwrap(), "*/*").await.unwrap().status, 200, "by a redirect");
    assert_eq!(client.get(elsewhere.parse().unwrap(), "*/*").await.unwrap().status, 200, "by a link");
    assert_eq!((shown_at_home.lock().unwrap().clone(), shown_elsewhere.lock().unwrap().clone()), (vec![true], vec![false, false]));
}
