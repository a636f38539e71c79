//! Ordinary disasters by the real binary: a data directory that is lost, or restored from an old copy; a damaged snapshot; a lost
//! key. What is said, what is refused, and the one command that ends it.

use std::path::Path;

use serde_json::Value;

use crate::bed::{Bed, MONTHS, Wanted, output};

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    fn all(&self) -> String {
        format!("exit {}\n{}{}", self.code, self.out, self.err)
    }
}

async fn bed() -> Bed {
    Bed::make(Wanted { mode: "search", limit: u64::MAX, patients: 24, ..Wanted::default() }).await
}

async fn say_with(bed: &Bed, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = bed.command(arguments);
    command.envs(variables.iter().copied());
    let output = output(command).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

async fn say(bed: &Bed, arguments: &[&str]) -> Said {
    say_with(bed, arguments, &[]).await
}

const NIGHT: [&str; 4] = ["run", "--once", "--as-of", crate::bed::AS_OF];

/// A night that reports one month more than the last one.
async fn later_night(bed: &Bed) -> Said {
    say_with(bed, &NIGHT, &[("WATERSHED__MEASURES__MONTHS", &(MONTHS + 1).to_string())]).await
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { assert!(std::fs::copy(entry.path(), &to).is_ok()) }
    }
}

/// The files of a snapshot whose names end so, in order.
fn segments(bed: &Bed, end: &str) -> Vec<std::path::PathBuf> {
    fn walk(folder: &Path, end: &str, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, end, found);
            } else if path.display().to_string().ends_with(end) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&bed.folder.path().join("data/snapshot"), end, &mut found);
    found.sort();
    found
}

/// A file system of a few pages, in a name space of its own, which needs no right of root's where the machine allows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_as_one_and_what_to_do() {
    let bed = bed().await;
    let data = bed.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // Room for nothing, for an empty state, and for a part of what comes.
    for size in ["16k", "256k", "512k"] {
        let mut command = std::process::Command::new("unshare");
        let script = format!("mount -t tmpfs -o size={size} tmpfs data || exit 99; exec \"$0\" \"$@\"");
        command.args(["-Urm", "sh", "-c", &script, env!("CARGO_BIN_EXE_watershed")]).args(NIGHT).current_dir(bed.folder.path());
        let said = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let Some(output) = said
            .ok()
            .filter(|output| output.status.code() != Some(99) && !String::from_utf8_lossy(&output.stderr).starts_with("unshare:"))
        else {
            return crate::figures::say("skipped: this machine gives nobody but root a file system of his own, so no disk is full");
        };
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{size}: {err}");
        assert!(err.contains("help: the disk is full: make room, or move the data directory"), "{size}: {err}");
    }
    assert_eq!(say(&bed, &NIGHT).await.code, 0, "with room, it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_lost_its_data_directory_goes_on_from_what_the_registry_holds() {
    let bed = bed().await;
    assert_eq!(say(&bed, &NIGHT).await.code, 0);
    assert_eq!(later_night(&bed).await.code, 0);
    let before = bed.registry();
    let head = say(&bed, &["outbox", "list", "--format", "json"]).await.json()["feeds"][0]["feed"].as_str().unwrap().to_owned();
    assert_eq!(say(&bed, &["outbox", "adopt"]).await.code, 0, "there is nothing to adopt while all is well");
    let other = say_with(&bed, &["check"], &[("WATERSHED__SITE__ID", "hillcrest")]).await;
    assert!(other.code == 3 && other.out.contains("the registry knows client `lakeside-etl` as site `lakeside`, the configuration says `hillcrest`"), "{}", other.all());
    std::fs::rename(bed.folder.path().join("data"), bed.folder.path().join("lost")).unwrap();

    // First the epoch is stale, then the chain does not fit; each says what is held, and names the command.
    for (reason, minute) in [("epoch 1 is stale, 2 was seen", "31"), ("the feed follows none", "32")] {
        let night = say(&bed, &["run", "--once", "--as-of", &format!("2026-03-02T06:{minute}:00Z")]).await;
        let listed = say(&bed, &["outbox", "list"]).await;
        let status = say(&bed, &["status"]).await;
        assert_eq!((night.code, listed.code, status.code), (5, 1, 1), "{}{}{}", night.all(), listed.all(), status.all());
        for said in [&night.err, &listed.out, &status.out] {
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in [reason, &format!("the registry holds feed `{}` of `lakeside`, received 20", &head[..12]), "15 reports", "`watershed outbox adopt` shows"] {
                assert!(said.contains(part), "`{part}` is missing in\n{said}");
            }
        }
    }
    assert_eq!(bed.registry(), before, "nothing was changed by the refused ones");

    let check = say(&bed, &["check"]).await;
    assert!(check.code == 1 && check.out.contains("this outbox knows another standing: `watershed outbox adopt` shows both"), "{}", check.all());
    let shown = say(&bed, &["outbox", "adopt"]).await;
    assert_eq!(shown.code, 1, "{}", shown.all());
    for part in [
        &format!("feed {} of 20", &head[..12]),
        "15 reports, data complete",
        "15 current reports",
        "in epoch 2",
        "no feed of its own",
        &format!("`watershed outbox adopt {}`", &head[..12]),
        "make sure that none is at work",
    ] {
        assert!(shown.out.contains(part), "`{part}` is missing in\n{}", shown.out);
    }
    let json = say(&bed, &["outbox", "adopt", "--format", "json"]).await;
    assert_eq!((&json.json()["registry"]["feed"], &json.json()["agree"], &json.json()["adopted"]), (&head.as_str().into(), &false.into(), &false.into()));
    for wrong in ["none", "ffff", ""] {
        let said = say(&bed, &["outbox", "adopt", wrong]).await;
        assert!(said.code == 2 && said.err.contains(&format!("holds feed `{}`, not `{wrong}`", &head[..12])), "{}", said.all());
    }
    let adopted = say(&bed, &["outbox", "adopt", &head[..12]]).await;
    assert!(adopted.code == 0 && adopted.out.contains(&format!("the next feed of `lakeside` follows feed `{}`", &head[..12])), "{}", adopted.all());
    assert_eq!(bed.registry(), before, "the registry is asked, and not changed");
    assert_eq!(say(&bed, &["outbox", "adopt"]).await.code, 0, "they agree");

    let night = later_night(&bed).await;
    assert!(night.code == 0 && night.out.contains("nothing changed, which the registry was told"), "equal numbers are no new reports: {}", night.all());
    assert_eq!(bed.registry(), before);

    // The copy that was lost and is found again is fenced, from the first word of the one that took its place.
    let folder = bed.folder.path();
    let exchange = |aside: &str, back: &str| {
        std::fs::rename(folder.join("data"), folder.join(aside))
            .and_then(|()| std::fs::rename(folder.join(back), folder.join("data")))
            .unwrap()
    };
    exchange("living", "lost");
    let stale = say_with(&bed, &NIGHT, &[("WATERSHED__MEASURES__MONTHS", &(MONTHS + 3).to_string())]).await;
    assert!(stale.code == 5 && stale.err.contains("is stale"), "{}", stale.all());
    exchange("lost", "living");
    let night = say_with(&bed, &NIGHT, &[("WATERSHED__MEASURES__MONTHS", &(MONTHS + 2).to_string())]).await;
    assert_eq!((night.code, bed.registry().feeds), (0, before.feeds + 1), "{}", night.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_restored_from_an_old_copy_confirms_nothing_and_overwrites_nothing() {
    let bed = bed().await;
    let data = bed.folder.path().join("data");
    assert_eq!(say(&bed, &NIGHT).await.code, 0);
    copy(&data, &bed.folder.path().join("backup"));
    assert_eq!(later_night(&bed).await.code, 0);
    let before = bed.registry();
    let lost = jiff::Timestamp::now().to_string();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&bed.folder.path().join("backup"), &data);

    // Its numbers are those of the copy: the registry holds a later feed, so that to confirm them would be untrue.
    let night = say(&bed, &NIGHT).await;
    assert!(night.code == 5 && night.err.contains("has taken a later feed of this site") && night.err.contains("`watershed outbox adopt`"), "{}", night.all());
    let status = say(&bed, &["status", "--format", "json"]).await;
    assert_eq!((status.code, &status.json()["outbox"][0]["state"]), (1, &"contradicted".into()), "{}", status.all());
    assert!(status.json()["outbox"][0]["reason"].as_str().unwrap().contains("outbox adopt"), "{}", status.all());
    let listed = say(&bed, &["outbox", "list"]).await;
    assert!(listed.code == 1 && listed.out.contains("has taken a later feed"), "{}", listed.all());
    assert_eq!(bed.registry(), before);

    let json = say(&bed, &["outbox", "adopt", "--format", "json"]).await.json();
    let head = json["registry"]["feed"].as_str().unwrap().to_owned();
    assert_ne!(json["outbox"]["feed"], head.as_str());
    assert_eq!(say(&bed, &["outbox", "adopt", &head]).await.code, 0);
    let night = later_night(&bed).await;
    assert!(night.code == 0 && night.out.contains("nothing changed"), "{}", night.all());
    assert_eq!(bed.registry(), before);
    assert_eq!(say(&bed, &["status"]).await.code, 0);
    let known = say(&bed, &["known", "--on", &lost]).await;
    assert!(known.err.contains("warning: nothing is known here of what changed between") && known.err.contains("nights were lost with a data directory"), "{}", known.all());
    assert!(!say(&bed, &["known"]).await.err.contains("were lost with a data directory, for"), "of today all is known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_database_that_is_none_says_what_to_do() {
    let bed = bed().await;
    std::fs::create_dir(bed.folder.path().join("data")).unwrap();
    std::fs::write(bed.folder.path().join("data/state.sqlite"), "rubbish ".repeat(1000)).unwrap();
    for arguments in [&["status"][..], &["pull"], &["outbox", "list"], &NIGHT] {
        let said = say(&bed, arguments).await;
        assert!(
            said.code == 4 && said.err.contains("file is not a database") && said.err.contains("move it away") && said.err.contains("`watershed outbox adopt`"),
            "{arguments:?}: {}",
            said.all()
        );
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_segment_is_named_reported_from_by_nobody_and_replaced() {
    let bed = bed().await;
    assert_eq!(say(&bed, &NIGHT).await.code, 0);
    let before = bed.registry();
    // As long as it was: seen when the numbers are to be made.
    let damaged = segments(&bed, ".ndjson.zst").into_iter().find(|path| !path.display().to_string().contains("common")).unwrap();
    flip(&damaged);
    let night = say(&bed, &NIGHT).await;
    for part in [damaged.to_str().unwrap(), "is damaged or missing", "no number is made of it", "everything is read again"] {
        assert!(night.err.contains(part), "`{part}` is missing in\n{}", night.all());
    }
    assert!(night.code == 0 && night.out.contains("24 patients, data complete"), "mended in the same night: {}", night.all());
    assert_eq!(bed.registry(), before, "the same numbers");
    assert!(say(&bed, &NIGHT).await.err.is_empty(), "nothing is left to mend");

    // Gone, or cut: seen by the next pull.
    let others = |end: &str| segments(&bed, end).into_iter().filter(|path| path.parent() != damaged.parent()).collect::<Vec<_>>();
    std::fs::remove_file(&others(".index.zst")[0]).unwrap();
    std::fs::write(&others(".ndjson.zst")[1], "").unwrap();
    let pull = say(&bed, &["pull"]).await;
    assert!(pull.code == 0 && pull.out.contains("(everything)") && pull.out.contains("replaced by what was read: 2 segments"), "{}", pull.all());
    let night = say(&bed, &NIGHT).await;
    assert!(night.code == 0 && night.out.contains("24 patients, data complete") && night.err.is_empty(), "{}", night.all());
    assert_eq!(bed.registry(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_wrong_key_is_said_and_the_snapshot_begun_again_when_a_person_says_so() {
    let bed = bed().await;
    assert_eq!(say(&bed, &NIGHT).await.code, 0);
    let (before, stored) = (bed.registry(), segments(&bed, ".zst"));
    let key = bed.folder.path().join("data/snapshot.key");
    let kept = std::fs::read_to_string(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    for arguments in [&NIGHT[..], &["pull"]] {
        let said = say(&bed, arguments).await;
        assert!(said.code == 3 && said.err.contains("data/snapshot.key is missing, the key of the snapshot") && said.err.contains("`watershed pull --anew`"), "{}", said.all());
        assert!(!key.exists(), "no other key takes its place");
    }
    for (text, part) in [("0".repeat(64), "the snapshot was sealed with key `"), ("rubbish".to_owned(), "snapshot key is neither 32 bytes in base64")] {
        std::fs::write(&key, text).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let said = say(&bed, &NIGHT).await;
        assert!(said.code == 3 && said.err.contains(part) && said.err.contains("`watershed pull --anew`"), "{}", said.all());
    }
    std::fs::write(&key, &kept).unwrap();
    assert_eq!(say(&bed, &NIGHT).await.code, 0, "the right one again");

    std::fs::remove_file(&key).unwrap();
    let pull = say(&bed, &["pull", "--anew"]).await;
    assert!(pull.code == 0 && pull.err.contains("its files stay where they are") && pull.out.contains("(everything): "), "{}", pull.all());
    assert!(stored.iter().all(|path| path.exists()));
    assert_ne!(std::fs::read_to_string(&key).unwrap(), kept);
    let night = say(&bed, &NIGHT).await;
    assert!(night.code == 0 && night.out.contains("24 patients, data complete") && night.err.is_empty(), "{}", night.all());
    assert_eq!(bed.registry(), before, "the same numbers");
}
