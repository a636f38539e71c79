//! `watershed demo`: simulated hospitals, an adapter for each and a registry, one whole night in one process.
//!
//! The demo lays out a folder as a network would have it - a registry's and each site's configuration, keys, measures -
//! and then runs the ordinary commands' own code over it. What it prints is read back from the registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use tokio::sync::watch;

use self::house::{House, Site};
use self::outcome::Outcome;
use super::{Context, Ending, Failure, Format, print};
use crate::pipeline::{Asked, Night};
use crate::sandbox::{Hospital, Truth};
use crate::source::Progress;

mod house;
mod outcome;

/// Hospitals of one demo.
const SITES_MAX: u8 = 12;

/// Run simulated hospitals, their adapters and a registry for one night, and compare with the truth
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit after the night instead of serving the dashboard
    #[arg(long)]
    pub once: bool,
    /// Port of the registry and its dashboard; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// How many hospitals
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(SITES_MAX)))]
    pub sites: u8,
    /// Patients of each hospital
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub patients: u32,
    /// Complete months that are reported
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub months: u32,
    /// Seed of the patients
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for everything the demo makes; kept. Without it a temporary one is removed at the end
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Runs the demo.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let started = Instant::now();
    let folder = Folder::open(args.data.as_deref())?;
    let house = House::lay_out(&folder.path, args)?;
    let outcome = super::block_on(async {
        let night = night(&house, args, context).await?;
        let outcome = Outcome::read_back(&house, &night).await?;
        match context.format {
            Format::Json => super::print_json(&outcome.as_json()),
            Format::Human => print(&outcome.as_text(started.elapsed())),
        }
        if !args.once {
            if context.format == Format::Human {
                print(&format!("Dashboard: {}   (Ctrl-C ends)", house.registry_url));
            }
            super::asked_to_stop().await;
        }
        Ok(outcome)
    })?;
    Ok(if outcome.agrees() { Ending::Fine } else { Ending::Findings })
}

/// What the demo remembers of one hospital's night.
pub(super) struct SiteNight {
    site: Site,
    truth: Truth,
    night: Night,
    took: Duration,
}

/// Starts the registry and the hospitals, and runs every adapter's night.
async fn night(house: &House, args: &Args, context: &Context) -> Result<Vec<SiteNight>, Failure> {
    let bars = MultiProgress::new();
    if context.format == Format::Json {
        bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    house.start_registry().await?;
    let now = Timestamp::now();
    let mut nights = Vec::new();
    for site in house.sites.clone() {
        let bar = Bar::new(&bars, &site.name);
        bar.stage("making patients", None);
        let (patients, months, seed) = (args.patients, args.months, args.seed + site.number);
        let profile = site.profile;
        let as_of = now.to_zoned(site.zone()?).date();
        let hospital = tokio::task::spawn_blocking(move || Hospital::generate(profile, seed, patients, as_of, months))
            .await
            .map_err(|error| Failure::bug(error.to_string()))?;
        let truth = hospital.truth();
        house.start_hospital(&site, hospital)?;
        // A thread of its own: a night also computes.
        let runtime = tokio::runtime::Handle::current();
        nights.push(tokio::task::spawn_blocking(move || runtime.block_on(site_night(site, truth, now, bar))));
    }
    let mut ended = Vec::new();
    for night in nights {
        ended.push(night.await.map_err(|error| Failure::bug(error.to_string()))??);
    }
    Ok(ended)
}

async fn site_night(site: Site, truth: Truth, now: Timestamp, bar: Bar) -> Result<SiteNight, Failure> {
    let started = Instant::now();
    let (_, adapter) = tokio::task::block_in_place(|| super::run::open(&site.config))?;
    let (_asker, stop) = watch::channel(false);
    let night = adapter.night(&Asked { now, scheduled: None }, &stop, &bar).await.map_err(super::run::failure)?;
    bar.done();
    Ok(SiteNight { site, truth, night, took: started.elapsed() })
}

/// The demo's folder: the one asked for, or a temporary one that goes with the demo.
struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    fn open(asked: Option<&Path>) -> Result<Folder, Failure> {
        let path = match asked {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("watershed-demo-{}", uuid::Uuid::new_v4().simple())),
        };
        std::fs::create_dir_all(&path).map_err(|error| Failure::unreachable(format!("cannot make `{}`: {error}", path.display())))?;
        Ok(Folder { path, is_temporary: asked.is_none() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// One hospital's line of progress; silent where stderr is no terminal.
#[derive(Clone)]
pub(super) struct Bar(Arc<ProgressBar>);

impl Bar {
    fn new(bars: &MultiProgress, name: &str) -> Bar {
        let bar = bars.add(ProgressBar::new_spinner());
        bar.set_style(spinner());
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Bar(Arc::new(bar))
    }

    fn done(&self) {
        self.0.set_style(spinner());
        self.0.finish_with_message("delivered");
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>14} {spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn steps() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>14} [{bar:24}] {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Bar {
    fn stage(&self, name: &str, wanted: Option<u64>) {
        self.0.set_style(if wanted.is_some() { steps() } else { spinner() });
        self.0.set_length(wanted.unwrap_or(0));
        self.0.set_position(0);
        self.0.set_message(name.to_owned());
    }

    fn advance(&self, count: u64) {
        self.0.inc(count);
    }

    fn received(&self, _resources: u64) {}
}
