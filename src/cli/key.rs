//! `watershed key`: the private keys with which an adapter proves who it is, and their public halves.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Context, Ending, Failure, Format, print, print_json};
use crate::diagnostic::counted;
use crate::listen::Certificate;
use crate::smart::assertion::{Algorithm, SigningKey};
use crate::smart::key_set;

/// Make a private key, show or serve the public half of one
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a private key in a file that only its owner can read, and print its public half (a JWK Set)
    New {
        /// The file to make; it must not exist
        file: PathBuf,
        /// ES384 or RS384; a server need only accept one of them
        #[arg(long, default_value = "ES384", value_parser = ["ES384", "RS384"])]
        algorithm: String,
    },
    /// Print the public halves of private keys (one JWK Set), to register them with an EHR or a registry
    Public {
        /// The private keys (PEM or JWK); two while one takes the place of the other
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Serve the public halves at an address that an EHR or a registry reads, so that keys change without asking anybody
    Serve(Serve),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// The private keys (PEM or JWK); read anew for each answer
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Address and port to listen on; 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Certificate chain (PEM) to serve https with
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// A reverse proxy in front speaks TLS, so plain http beyond this host is intended
    #[arg(long)]
    behind_proxy: bool,
}

/// Runs the command. The public half goes to stdout, so that it can be kept in a file.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    let keys = match &args.what {
        What::New { file, algorithm } => new(file, algorithm)?.public_jwks(),
        What::Public { files } => key_set::of_files(files).map_err(Failure::configuration)?,
        What::Serve(args) => return serve(args, context),
    };
    let set = serde_json::to_value(keys).map_err(|error| Failure::bug(error.to_string()))?;
    match context.format {
        Format::Json => print_json(&set),
        Format::Human => print(&serde_json::to_string_pretty(&set).map_err(|error| Failure::bug(error.to_string()))?),
    }
    Ok(Ending::Fine)
}

fn serve(args: &Serve, context: &Context) -> Result<Ending, Failure> {
    let keys = key_set::of_files(&args.files).map_err(Failure::configuration)?;
    let tls = args.tls_certificate.clone().zip(args.tls_key.clone()).map(|(chain, key)| Certificate::new(chain, key));
    if tls.is_none() && !args.behind_proxy && !args.listen.ip().is_loopback() {
        let failure = Failure::usage(format!("`{}` is not this host alone: keys that anyone could replace on the way prove nothing", args.listen));
        return Err(failure.hint("give `--tls-certificate` and `--tls-key`, or say `--behind-proxy`"));
    }
    let refused = |error: std::io::Error| Failure::unreachable(format!("cannot listen on `{}`: {error}", args.listen));
    let listener = TcpListener::bind(args.listen).map_err(refused)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = format!("{scheme}://{}{}", listener.local_addr().map_err(refused)?, key_set::PATH);
    match context.format {
        Format::Json => print_json(&json!({ "jwks": address, "keys": keys.keys.len() })),
        Format::Human => print(&format!("{} at {address}", counted(keys.keys.len(), "key"))),
    }
    let served = key_set::serve(args.files.clone(), listener, tls, super::asked_to_stop());
    super::block_on(async { served.await.map_err(|error| Failure::configuration(error.to_string())) })?;
    Ok(Ending::Fine)
}

fn new(file: &Path, algorithm: &str) -> Result<SigningKey, Failure> {
    let algorithm = if algorithm == "RS384" { Algorithm::Rs384 } else { Algorithm::Es384 };
    let key = SigningKey::generate(algorithm).map_err(|error| Failure::bug(error.to_string()))?;
    let refused = |error: std::io::Error| {
        let failure = Failure::usage(format!("cannot make `{}`: {error}", file.display()));
        if error.kind() == std::io::ErrorKind::AlreadyExists { failure.hint("a key is never overwritten: choose another name") } else { failure }
    };
    let mut made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(refused)?;
    made.write_all(key.to_pem().as_bytes()).and_then(|()| made.sync_all()).map_err(refused)?;
    Ok(key)
}
