//! `watershed key`: the private keys with which an adapter proves who it is, and their public halves.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Context, Ending, Failure, Format, print, print_json};
use crate::smart::assertion::{Algorithm, SigningKey};

/// Make a private key, or show the public half of one
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
    /// Print the public half of a private key (a JWK Set), to register it with an EHR or a registry
    Public {
        /// The private key (PEM or JWK)
        file: PathBuf,
    },
}

/// Runs the command. The public half goes to stdout, so that it can be kept in a file.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    let key = match &args.what {
        What::New { file, algorithm } => new(file, algorithm)?,
        What::Public { file } => {
            let text = std::fs::read_to_string(file).map_err(|error| Failure::configuration(format!("cannot read `{}`: {error}", file.display())))?;
            SigningKey::from_text(&text).map_err(|error| Failure::configuration(format!("`{}`: {error}", file.display())))?
        }
    };
    let set = serde_json::to_value(key.public_jwks()).map_err(|error| Failure::bug(error.to_string()))?;
    match context.format {
        Format::Json => print_json(&set),
        Format::Human => print(&serde_json::to_string_pretty(&set).map_err(|error| Failure::bug(error.to_string()))?),
    }
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
