//! `watershed sandbox`: a simulated hospital to pull from, or its data as files.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use jiff::Zoned;
use jiff::civil::Date;

use super::{Context, Ending, Failure, Format, asked_to_stop, block_on, print, print_json};
use crate::diagnostic::nearest;
use crate::listen::Certificate;
use crate::sandbox::population::{MONTHS_DEFAULT, PATIENTS_DEFAULT};
use crate::sandbox::quirk::SERVERS;
use crate::sandbox::{Client, Fault, Hospital, Options, Profile, Scenario, serve};

/// Bytes of a client's key file.
const KEYS_BYTES_MAX: u64 = 1024 * 1024;

/// A simulated hospital.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Serve a simulated hospital's EHR: FHIR REST, Bulk Data, SMART Backend Services
    Serve(Serve),
    /// Write a simulated hospital's data as Bulk Data NDJSON, with the truth about the measures
    Generate(Generate),
    /// List the quirks of real servers that it can take on
    Quirks,
}

/// Which hospital.
#[derive(Debug, clap::Args)]
struct Which {
    /// lakeside (Bulk Data and search), hillcrest (search only), harbor (search only, local codes)
    #[arg(long, default_value = "lakeside")]
    profile: String,
    /// The same seed gives the same patients on every machine
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Patients in its three clinics
    #[arg(long, default_value_t = PATIENTS_DEFAULT)]
    patients: u32,
    /// Complete months before the end of the data for which the truth is known
    #[arg(long, default_value_t = MONTHS_DEFAULT)]
    months: u32,
    /// Day at whose start the data end [default: today]
    #[arg(long, value_name = "DATE")]
    as_of: Option<Date>,
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    which: Which,
    /// Port on the loopback address; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Public keys of a client (JWK Set); the client's id is the file's name without its ending
    #[arg(long, value_name = "FILE")]
    client_jwks: Vec<PathBuf>,
    /// A quirk of real servers to take on (`watershed sandbox quirks` lists them); repeatable
    #[arg(long, value_name = "NAME")]
    quirk: Vec<String>,
    /// The quirks of a kind of server: epic, oracle, athena, hapi, strict
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Inject faults at every endpoint: refusals, resets, stalls, broken answers, a clock that is off
    #[arg(long, value_name = "SEED")]
    faults: Option<u64>,
    /// Certificate chain (PEM) to serve https with; plain http otherwise
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Authority (PEM) of whose certificates every client must show one (mutual TLS)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_client_authority: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Generate {
    #[command(flatten)]
    which: Which,
    /// Folder to write `TYPE.ndjson` to; it is made, and must be empty. The truth stands beside it, as `DIR.truth.json`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    match args.action {
        Action::Serve(args) => run_serve(&args, context),
        Action::Generate(args) => run_generate(&args, context),
        Action::Quirks => {
            list_quirks(context);
            Ok(Ending::Fine)
        }
    }
}

fn hospital(which: &Which) -> Result<Hospital, Failure> {
    let names = || Profile::all().iter().map(|profile| profile.name);
    let Some(profile) = Profile::named(&which.profile) else {
        let failure = Failure::usage(format!("there is no sandbox profile `{}`", which.profile));
        return Err(match nearest(&which.profile, names()) {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint(format!("profiles are {}", names().collect::<Vec<_>>().join(", "))),
        });
    };
    let as_of = which.as_of.unwrap_or_else(|| Zoned::now().date());
    Ok(Hospital::generate(profile, which.seed, which.patients, as_of, which.months))
}

/// The quirks of a server and those asked for beside, each once.
fn quirks(args: &Serve) -> Result<Vec<&'static Scenario>, Failure> {
    let unknown = |what: &str, name: &str, names: Vec<&'static str>| {
        let failure = Failure::usage(format!("there is no {what} `{name}`"));
        match nearest(name, names.iter().copied()) {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint(format!("there are {}", names.join(", "))),
        }
    };
    let of_server = |name: &String| Scenario::of_server(name).ok_or_else(|| unknown("kind of server", name, SERVERS.iter().map(|(name, _)| *name).collect()));
    let mut quirks = args.server.as_ref().map(of_server).transpose()?.unwrap_or_default();
    for name in &args.quirk {
        let quirk = Scenario::named(name).ok_or_else(|| unknown("quirk", name, Scenario::all().map(|quirk| quirk.name).collect()))?;
        if !quirks.iter().any(|known| known.name == quirk.name) {
            quirks.push(quirk);
        }
    }
    Ok(quirks)
}

fn list_quirks(context: &Context) {
    if context.format == Format::Json {
        let quirks: Vec<_> = Scenario::all().map(|quirk| serde_json::json!({"name": quirk.name, "says": quirk.says})).collect();
        let servers: serde_json::Map<_, _> = SERVERS.iter().map(|(name, quirks)| ((*name).to_owned(), serde_json::json!(quirks))).collect();
        return print_json(&serde_json::json!({"quirks": quirks, "servers": servers}));
    }
    let quirks = Scenario::all().map(|quirk| format!("{}  {}", quirk.name, quirk.says));
    let servers = SERVERS.iter().map(|(name, quirks)| format!("--server {name:<8} {}", quirks.join(" ")));
    print(&quirks.chain(servers).collect::<Vec<_>>().join("\n"));
}

fn run_serve(args: &Serve, context: &Context) -> Result<Ending, Failure> {
    let clients = args.client_jwks.iter().map(|file| client(file)).collect::<Result<Vec<_>, _>>()?;
    let quirks = quirks(args)?;
    let faults = args.faults.map(|seed| Fault::Chance { seed }).into_iter().collect();
    let hospital = hospital(&args.which)?;
    block_on(async {
        let listener = tokio::net::TcpListener::bind((args.address, args.port))
            .await
            .map_err(|error| Failure::unreachable(format!("cannot listen on {} port {}: {error}", args.address, args.port)))?;
        let address = listener.local_addr().map_err(|error| Failure::unreachable(error.to_string()))?;
        let certificate = args.tls_certificate.clone().zip(args.tls_key.clone());
        let tls = certificate.map(|(chain, key)| Certificate { client_authority: args.tls_client_authority.clone(), ..Certificate::new(chain, key) });
        let scheme = if tls.is_some() { "https" } else { "http" };
        announce(&hospital, &clients, &format!("{scheme}://{address}"), context);
        let options = Options { clients, tls, quirks, faults, ..Options::default() };
        serve(hospital, options, listener, asked_to_stop()).await.map_err(|error| Failure::configuration(error.to_string()))?;
        Ok(Ending::Fine)
    })
}

/// Says where the hospital is and how to get in.
fn announce(hospital: &Hospital, clients: &[Client], origin: &str, context: &Context) {
    let ids: Vec<&str> = clients.iter().map(|client| client.id.as_str()).collect();
    let profile = hospital.profile();
    if context.format == Format::Json {
        print_json(&serde_json::json!({
            "profile": profile.name,
            "fhir": format!("{origin}/fhir"),
            "token": format!("{origin}/token"),
            "clients": ids,
            "patients": hospital.patients().len(),
        }));
        return;
    }
    let mut text = format!("{} ({}), {} synthetic patients\n", profile.title, profile.name, hospital.patients().len());
    text.push_str(&format!("  FHIR base       {origin}/fhir\n  token endpoint  {origin}/token\n"));
    if ids.is_empty() {
        text.push_str("  no client may sign in: register one by its public keys, --client-jwks my-client.jwks.json\n");
        text.push_str("  (a JWK Set; the client id is the file's name up to its first dot, here my-client; scopes system/*.rs)");
    } else {
        text.push_str(&format!("  clients         {} (scopes system/*.rs)", ids.join(", ")));
    }
    print(&text);
}

/// A client from the file of its public keys.
fn client(file: &Path) -> Result<Client, Failure> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| Failure::configuration(format!("cannot read `{shown}`: {error}"));
    if fs::metadata(file).map_err(unreadable)?.len() > KEYS_BYTES_MAX {
        return Err(Failure::configuration(format!("`{shown}` is too long for a JWK Set")));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    if text.contains("PRIVATE KEY") {
        return Err(Failure::configuration(format!("`{shown}` is a private key; register its public half")).hint(format!("`watershed key public {shown}` prints it")));
    }
    let jwks: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Failure::configuration(format!("`{shown}` is not JSON: {error}")).hint("write a JWK Set: {\"keys\": [ … ]}"))?;
    if jwks.to_string().contains("\"d\":") {
        let failure = Failure::configuration(format!("`{shown}` holds a private key"));
        return Err(failure.hint("register the public keys only, and keep the private one with the client"));
    }
    let id = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next()).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Failure::usage(format!("`{shown}` has no name to take the client's id from")))?;
    Ok(Client::reader(id, jwks))
}

/// Beside the folder, because every JSON file in it is data.
fn truth_file(out: &Path) -> Result<PathBuf, Failure> {
    let mut name = out.file_name().ok_or_else(|| Failure::usage(format!("`{}` is no name of a folder", out.display())))?.to_owned();
    name.push(".truth.json");
    Ok(out.with_file_name(name))
}

fn run_generate(args: &Generate, context: &Context) -> Result<Ending, Failure> {
    let hospital = hospital(&args.which)?;
    let out = &args.out;
    let refused = |error: std::io::Error| Failure::unreachable(format!("cannot write to `{}`: {error}", out.display()));
    fs::create_dir_all(out).map_err(refused)?;
    if fs::read_dir(out).map_err(refused)?.next().is_some() {
        return Err(Failure::usage(format!("`{}` is not empty", out.display())).hint("name a new folder"));
    }
    let mut written: Vec<(String, u64)> = Vec::new();
    let mut file: Option<std::io::BufWriter<fs::File>> = None;
    for (kind, _, json) in hospital.resources() {
        if written.last().is_none_or(|(last, _)| *last != kind) {
            if let Some(mut done) = file.take() {
                done.flush().map_err(refused)?;
            }
            file = Some(std::io::BufWriter::new(fs::File::create(out.join(format!("{kind}.ndjson"))).map_err(refused)?));
            written.push((kind, 0));
        }
        if let (Some(file), Some((_, count))) = (&mut file, written.last_mut()) {
            file.write_all(json.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(refused)?;
            *count += 1;
        }
    }
    if let Some(mut done) = file {
        done.flush().map_err(refused)?;
    }
    let truth = hospital.truth();
    let text = serde_json::to_string_pretty(&truth).map_err(|error| Failure::bug(error.to_string()))?;
    let file = truth_file(out)?;
    fs::write(&file, text + "\n").map_err(refused)?;
    match context.format {
        Format::Json => print_json(&serde_json::json!({"out": out, "truth": file, "resources": written.iter().cloned().collect::<std::collections::BTreeMap<_, _>>()})),
        Format::Human => {
            let lines: Vec<String> = written.iter().map(|(kind, count)| format!("{count:>8}  {kind}.ndjson")).collect();
            print(&format!("{}\n{:>8}  rows of truth in {}", lines.join("\n"), truth.rows.len(), file.display()));
        }
    }
    Ok(Ending::Fine)
}
