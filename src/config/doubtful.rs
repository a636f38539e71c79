//! What passes in a site's configuration and is hardly meant: keys that change nothing beside others, hours and zones that are read in
//! another way than they look. `watershed check` tells of it; nothing else does.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{Loaded, Site};
use crate::diagnostic::{Diagnostic, Severity, counted};
use crate::measure::Measure;
use crate::pipeline::schedule::Schedule;
use crate::snapshot::is_open_to_others;
use crate::source::{Mode, TypeFilter};

/// Keys of `[source]` that also apply to a folder of files; what `url` and `group` say beside one is an error.
const OF_FOLDERS: [&str; 5] = ["folder", "unstable_ids", "snapshot_key_file", "url", "group"];
/// Keys that say how a token is asked for.
const OF_TOKENS: [&str; 3] = ["key_file", "token_url", "scopes"];
/// Nights that are no longer apart than so many seconds.
const OFTEN: i64 = 3_600;
/// When the cron expression is tried, so that the answer is the same every day.
const TRIED_ON: Timestamp = Timestamp::UNIX_EPOCH;

/// All that is doubtful; notes where a default is at work that nobody wrote.
pub fn keys(site: &Loaded<Site>, measures: &[Measure]) -> Vec<Diagnostic> {
    let mut found = Found { site, found: Vec::new() };
    found.zone();
    found.nights();
    found.source();
    found.names();
    found.periods(measures);
    found.found.extend(open_keys(site));
    found.found
}

/// Private keys that others on this computer may read, which a night says when it starts, too.
pub fn open_keys(site: &Loaded<Site>) -> Vec<Diagnostic> {
    let Site { source, registry, .. } = &site.value;
    let keys = [("source.key_file", &source.key_file), ("source.client_certificate_key_file", &source.client_certificate_key_file), ("registry.key_file", &registry.key_file)];
    let is_open = |written: &str| !written.is_empty() && is_open_to_others(&site.path(written)).unwrap_or(false);
    let warn = |(key, written): (&str, &String)| {
        let finding = site.places.error(key, format!("the private key `{written}` may be read by others than its owner"));
        let help = format!("`chmod 600 {written}`, and let its owner be who Watershed runs as; if others may have read it, make a new one");
        Diagnostic { severity: Severity::Warning, ..finding.help(help) }
    };
    keys.into_iter().filter(|(_, written)| is_open(written)).map(warn).collect()
}

struct Found<'a> {
    site: &'a Loaded<Site>,
    found: Vec<Diagnostic>,
}

impl Found<'_> {
    fn warn(&mut self, key: &str, message: String, help: &str) {
        self.say(Severity::Warning, key, message, help);
    }

    fn say(&mut self, severity: Severity, key: &str, message: String, help: &str) {
        self.found.push(Diagnostic { severity, ..self.site.places.error(key, message).help(help) });
    }

    fn zone(&mut self) {
        let (key, zone) = ("site.time_zone", &self.site.value.site.time_zone);
        let help = "write the hospital's zone, for example `time_zone = \"America/New_York\"`";
        if !self.site.places.is_written(key) {
            self.say(Severity::Note, key, format!("`{key}` is not written: days, months and nights are meant in {zone}"), help);
        } else if ["EST", "MST", "HST"].contains(&zone.as_str()) || zone.strip_prefix("Etc/GMT").is_some_and(|hours| hours.starts_with(['+', '-'])) {
            self.warn(key, format!("`{zone}` is one offset the whole year: it knows no summer time"), help);
        }
    }

    fn nights(&mut self) {
        let (key, cron) = ("schedule.cron", &self.site.value.schedule.cron);
        let help = "write five: minute, hour, day, month, weekday; `30 1 * * *` is every night at half past one";
        match cron.split_whitespace().count() {
            6 => return self.warn(key, format!("`{cron}` has six fields: the first is seconds, the next minutes"), help),
            7 => return self.warn(key, format!("`{cron}` has seven fields: the first is seconds, the last years"), help),
            _ => {}
        }
        let Ok(schedule) = Schedule::parse(cron, TimeZone::UTC) else { return };
        let Some((first, second)) = schedule.next(TRIED_ON).and_then(|first| Some((first, schedule.next(first)?))) else { return };
        let apart = second.as_second() - first.as_second();
        if apart <= OFTEN {
            self.warn(key, format!("`{cron}` begins a night every {}", counted(apart / 60, "minute")), help);
        }
    }

    fn source(&mut self) {
        let source = &self.site.value.source;
        if !source.folder.is_empty() {
            for name in self.changed().into_iter().filter(|name| !OF_FOLDERS.contains(&name.as_str())) {
                self.warn(
                    &format!("source.{name}"),
                    format!("`source.{name}` changes nothing beside `source.folder`"),
                    "files are read as they are, and nobody is asked: take it out",
                );
            }
            return;
        }
        if source.client_id.is_empty() {
            for name in self.changed().into_iter().filter(|name| OF_TOKENS.contains(&name.as_str())) {
                let message = format!("`source.{name}` changes nothing without `source.client_id`: no token is asked for");
                self.warn(&format!("source.{name}"), message, "write the client id that the EHR gave, or take it out");
            }
        }
        if source.mode == Mode::Search && source.type_filter != TypeFilter::Off {
            self.warn(
                "source.type_filter",
                "`source.type_filter` changes nothing with `mode = \"search\"`: it narrows exports".to_owned(),
                "take it out, or let `mode` be \"auto\"",
            );
        }
        let address = |url: &str| url.trim_end_matches('/').to_owned();
        if !source.url.is_empty() && address(&source.url) == address(&self.site.value.registry.url) {
            self.warn("registry.url", "`registry.url` is the address of the EHR".to_owned(), "write that of the network's registry");
        }
    }

    /// Keys of `[source]` that are not as by default.
    fn changed(&self) -> Vec<String> {
        let members = |options: &crate::source::Options| match serde_json::to_value(options) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        let default = members(&crate::source::Options::default());
        members(&self.site.value.source)
            .into_iter()
            .filter(|(name, value)| default.get(name) != Some(value))
            .map(|(name, _)| name)
            .collect()
    }

    fn names(&mut self) {
        let Site { source, registry, .. } = &self.site.value;
        for (key, name) in [("source.client_id", &source.client_id), ("registry.client_id", &registry.client_id)] {
            if name.trim() != name {
                self.warn(key, format!("`{name}` has blanks around it, which are sent too"), &format!("write `{}`", name.trim()));
            }
        }
    }

    /// Measures of periods that are not over within the months of a night for most of the time.
    fn periods(&mut self, measures: &[Measure]) {
        let months = self.site.value.measures.months;
        for definition in measures.iter().map(|measure| &measure.definition).filter(|one| i64::from(months) < i64::from(one.period.months())) {
            let word = definition.period.word();
            let message = format!(
                "measure `{}` is of {word}s, and a night reports what was over within {}: a {word} is reported then, and corrected no more later",
                definition.id.value,
                counted(months, "month")
            );
            self.warn("measures.months", message, "write as many months as are to be reported and corrected; 24 is the default");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SITE_EXAMPLE, inspect_site};

    fn told(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        std::fs::write(&path, text).unwrap();
        let (site, _) = inspect_site(&path);
        keys(&site.unwrap(), &[]).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn private_keys_that_others_may_read_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        std::fs::write(&path, "[source]\nkey_file = 'ehr.pem'\nclient_certificate_key_file = 'tls.pem'\n[registry]\nkey_file = 'registry.jwks'\n").unwrap();
        for (name, mode) in [("ehr.pem", 0o640), ("tls.pem", 0o600), ("registry.jwks", 0o644)] {
            std::fs::write(folder.path().join(name), "").unwrap();
            std::fs::set_permissions(folder.path().join(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let found = open_keys(&inspect_site(&path).0.unwrap());
        let told: Vec<String> = found.iter().map(|one| format!("{one}; {}", one.help.as_deref().unwrap_or_default())).collect();
        let expected = |name: &str, place: &str| {
            format!(
                "warning: the private key `{name}` may be read by others than its owner ({place}); `chmod 600 {name}`, and let its owner be who Watershed runs as; \
                 if others may have read it, make a new one"
            )
        };
        let shown = path.display();
        assert_eq!(told, [expected("ehr.pem", &format!("{shown}:2:12")), expected("registry.jwks", &format!("{shown}:5:12"))]);
    }

    #[test]
    fn what_changes_nothing_and_what_is_hardly_meant_is_told() {
        let server = "[site]\ntime_zone = 'EST'\n[source]\nurl = 'https://x.example/fhir/'\nkey_file = 'ehr.pem'\nmode = 'search'\ntype_filter = 'encoded'\n\
             [schedule]\ncron = '*/10 * * * *'\n[registry]\nurl = 'https://x.example/fhir'\nclient_id = 'north '\n";
        assert_eq!(
            told(server),
            [
                "`EST` is one offset the whole year: it knows no summer time",
                "`*/10 * * * *` begins a night every 10 minutes",
                "`source.key_file` changes nothing without `source.client_id`: no token is asked for",
                "`source.type_filter` changes nothing with `mode = \"search\"`: it narrows exports",
                "`registry.url` is the address of the EHR",
                "`north ` has blanks around it, which are sent too",
            ]
        );
        let files = "[site]\ntime_zone = 'America/New_York'\n[source]\nfolder = 'drop'\nunstable_ids = ['Device']\noff_hours = '20:00-06:00'\nclient_id = 'etl'\nmode = 'auto'\n";
        assert_eq!(told(files), ["client_id", "off_hours"].map(|key| format!("`source.{key}` changes nothing beside `source.folder`")));
        assert_eq!(told(SITE_EXAMPLE), Vec::<String>::new(), "every key as by default");
    }
}
