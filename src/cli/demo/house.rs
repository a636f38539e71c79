//! The demo's folder: measures, a registry, and a site folder for each hospital, as an engineer would lay them out.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_embed::Embed;

use super::Args;
use crate::cli::{Failure, registry};
use crate::registry::quota::Quota;
use crate::registry::store::{Keys, NewSite};
use crate::registry::{MeasureCard, Options};
use crate::sandbox::{self, Client, Hospital, Profile};
use crate::smart::assertion::{Algorithm, SigningKey};

/// The packs, libraries, value sets and site mappings that come with the program.
#[derive(Embed)]
#[folder = "mappings/"]
struct Packs;

/// The measures of the demo, by folder.
pub const MEASURES: [&str; 3] = ["ibd/remission", "hac/clabsi", "perinatal/early-elective-delivery"];

/// Everything the demo has made, and where it listens.
pub struct House {
    /// The hospitals.
    pub sites: Vec<Site>,
    /// Address of the registry and its dashboard.
    pub registry_url: String,
    /// The measures, as the registry knows them.
    pub measures: Vec<MeasureCard>,
    registry_listener: TcpListener,
    registry_data: PathBuf,
}

/// One hospital of the demo.
#[derive(Clone)]
pub struct Site {
    /// From 0.
    pub number: u64,
    /// Its name with the network.
    pub name: String,
    /// Its character.
    pub profile: &'static Profile,
    /// Its adapter's configuration.
    pub config: PathBuf,
    listener: Arc<TcpListener>,
    ehr_client: Client,
}

impl Site {
    /// The zone of its days and months.
    pub fn zone(&self) -> Result<TimeZone, Failure> {
        TimeZone::get(self.profile.time_zone).map_err(|error| Failure::bug(error.to_string()))
    }
}

fn refused(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::unreachable(format!("`{}`: {error}", path.display()))
}

impl House {
    /// Writes what a network would have on disk. A folder laid out before keeps its keys and ports.
    pub fn lay_out(folder: &Path, args: &Args) -> Result<House, Failure> {
        unpack(&folder.join("mappings"))?;
        let measures = MEASURES
            .iter()
            .map(|measure| registry::card(&folder.join("mappings/measures").join(measure)).map_err(|findings| Failure::diagnostics(&findings)))
            .collect::<Result<Vec<_>, _>>()?;
        let registry_folder = folder.join("registry");
        make(&registry_folder)?;
        let registry_listener = listen(&registry_folder, args.port)?;
        let registry_url = format!("http://{}", registry_listener.local_addr().map_err(refused(&registry_folder))?);
        let registry_data = registry_folder.join("data");
        let store = crate::registry::open_store(&registry_data).map_err(|error| Failure::unreachable(error.to_string()))?;
        let known: Vec<String> = store.sites().map_err(|error| Failure::unreachable(error.to_string()))?.into_iter().map(|site| site.name).collect();
        let mut sites = Vec::new();
        for number in 0..args.sites {
            let (site, new) = site(folder, number, &registry_url, args)?;
            if !known.contains(&new.name) {
                store.add_site(&new, Timestamp::now()).map_err(|error| Failure::unreachable(error.to_string()))?;
            }
            sites.push(site);
        }
        let shown = registry_url.trim_start_matches("http://");
        let list: Vec<String> = MEASURES.iter().map(|measure| format!("\"../mappings/measures/{measure}\"")).collect();
        let text = format!("listen = \"{shown}\"\ndata = \"data\"\nnetwork = \"Demonstration Network\"\nmeasures = [{}]\n", list.join(", "));
        write(&registry_folder.join("registry.toml"), &text)?;
        Ok(House { sites, registry_url, measures, registry_listener, registry_data })
    }

    /// Serves the registry in a task of its own, once everything that it needs is open.
    pub async fn start_registry(&self) -> Result<(), Failure> {
        let listener = self.registry_listener.try_clone().map_err(refused(&self.registry_data))?;
        let options = Options {
            data: self.registry_data.clone(),
            public_url: self.registry_url.clone(),
            network: "Demonstration Network".to_owned(),
            measures: self.measures.clone(),
            tls: None,
            behind_proxy: false,
            late_after_hours: 36,
            reader_token: None,
            quota: Quota::default(),
            new_receipt_key: false,
            clock: Arc::new(Timestamp::now),
        };
        let server = crate::registry::Server::open(options, listener).await;
        let server = server.map_err(|error| Failure::unreachable(format!("the demo's registry cannot start: {error}")).hint("another `--data` begins with new files"))?;
        tokio::spawn(async move {
            if let Err(error) = server.run(std::future::pending()).await {
                tracing::error!(%error, "the registry ended");
            }
        });
        Ok(())
    }

    /// Serves a hospital in a task of its own.
    pub fn start_hospital(&self, site: &Site, hospital: Hospital) -> Result<(), Failure> {
        let listener = site.listener.try_clone().map_err(refused(&site.config))?;
        listener.set_nonblocking(true).map_err(refused(&site.config))?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(refused(&site.config))?;
        let options = sandbox::Options { clients: vec![site.ehr_client.clone()], ..sandbox::Options::default() };
        let name = site.name.clone();
        tokio::spawn(async move {
            if let Err(error) = sandbox::serve(hospital, options, listener, std::future::pending()).await {
                tracing::error!(%error, site = name, "the simulated hospital ended");
            }
        });
        Ok(())
    }
}

/// One site's folder: configuration and keys; and what the registry is told of it.
fn site(folder: &Path, number: u8, registry_url: &str, args: &Args) -> Result<(Site, NewSite), Failure> {
    let profiles = Profile::all();
    let profile = profiles.get(usize::from(number) % profiles.len()).ok_or_else(|| Failure::bug("there are no profiles"))?;
    let round = usize::from(number) / profiles.len();
    let name = if round == 0 { profile.name.to_owned() } else { format!("{}-{}", profile.name, round + 1) };
    let home = folder.join(&name);
    make(&home)?;
    let listener = listen(&home, 0)?;
    let address = listener.local_addr().map_err(refused(&home))?;
    let algorithm = if number.is_multiple_of(2) { Algorithm::Es384 } else { Algorithm::Rs384 };
    let ehr_key = key(&home.join("ehr-key.pem"), algorithm)?;
    let registry_key = key(&home.join("registry-key.pem"), Algorithm::Es384)?;
    let client_id = format!("watershed-{name}");
    let jwks = |key: &SigningKey| serde_json::to_value(key.public_jwks()).map_err(|error| Failure::bug(error.to_string()));
    let mapping = if profile.name == "harbor" { "../mappings/sites/harbor.yaml" } else { "" };
    let list: Vec<String> = MEASURES.iter().map(|measure| format!("\"../mappings/measures/{measure}\"")).collect();
    let text = format!(
        "# Made by `watershed demo`: one site's adapter.\n[site]\nid = \"{name}\"\ntitle = \"{}\"\ntime_zone = \"{}\"\ndata = \"data\"\n\n\
         [source]\nurl = \"http://{address}/fhir\"\nclient_id = \"{client_id}\"\nkey_file = \"ehr-key.pem\"\n\n\
         [mapping]\nfile = \"{mapping}\"\n\n[measures]\nfolders = [{}]\nmonths = {}\n\n\
         [registry]\nurl = \"{registry_url}\"\nclient_id = \"{client_id}\"\nkey_file = \"registry-key.pem\"\n",
        profile.title,
        profile.time_zone,
        list.join(", "),
        args.months,
    );
    let config = home.join("site.toml");
    write(&config, &text)?;
    let ehr_client = Client::reader(client_id.clone(), jwks(&ehr_key)?);
    let keys = Keys::Set(jwks(&registry_key)?.to_string());
    let new = NewSite { name: name.clone(), organization: profile.title.to_owned(), client_id, keys };
    Ok((Site { number: u64::from(number), name, profile, config, listener: Arc::new(listener), ehr_client }, new))
}

/// Listens on the port asked for, else on the one of an earlier demo in this folder, else on a free one.
fn listen(home: &Path, asked: u16) -> Result<TcpListener, Failure> {
    let file = home.join("port");
    let earlier = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u16>().ok()).unwrap_or(0);
    let wanted = if asked != 0 { asked } else { earlier };
    let listener = match TcpListener::bind(("127.0.0.1", wanted)) {
        Ok(listener) => listener,
        Err(error) if asked != 0 => {
            return Err(Failure::unreachable(format!("cannot listen on port {asked}: {error}")).hint("leave `--port` out to take a free one"));
        }
        Err(_) => TcpListener::bind(("127.0.0.1", 0)).map_err(refused(home))?,
    };
    let port = listener.local_addr().map_err(refused(home))?.port();
    write(&file, &format!("{port}\n"))?;
    Ok(listener)
}

/// The key in a file, made on first use and readable by its owner only.
fn key(path: &Path, algorithm: Algorithm) -> Result<SigningKey, Failure> {
    if let Ok(text) = std::fs::read_to_string(path) {
        return SigningKey::from_text(&text).map_err(|error| Failure::configuration(format!("`{}`: {error}", path.display())));
    }
    let key = SigningKey::generate(algorithm).map_err(|error| Failure::bug(error.to_string()))?;
    write(path, key.to_pem())?;
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(refused(path))?;
    Ok(key)
}

fn make(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(refused(folder))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(refused(path))
}

/// Writes the packs that come with the program.
fn unpack(folder: &Path) -> Result<(), Failure> {
    for name in Packs::iter() {
        let path = folder.join(&*name);
        let Some(file) = Packs::get(&name) else { continue };
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        std::fs::write(&path, &file.data).map_err(refused(&path))?;
    }
    Ok(())
}
