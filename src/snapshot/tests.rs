//! Newest wins, nothing is written twice, crashes leave nothing visible.

use super::*;
use rusqlite::params;

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    key: Key,
}

impl Bench {
    fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap(), store: Arc::new(Store::open_in_memory().unwrap()), key: Key::generate().unwrap() }
    }

    fn open(&self) -> Snapshot {
        Snapshot::open(self.folder.path(), Arc::clone(&self.store), self.key.clone(), 4).unwrap()
    }

    fn begin(&self) -> PullId {
        self.store
            .transaction(|transaction| {
                transaction.execute("INSERT INTO pull (source, state, full, plan, started_at) VALUES ('s', 'open', 1, 'p', 't')", [])?;
                Ok(PullId(transaction.last_insert_rowid()))
            })
            .unwrap()
    }

    fn pull(&self, snapshot: &Snapshot, units: &[&[Incoming]], reconcile: &Reconcile) -> (PullId, u64, u64) {
        let pull = self.begin();
        let files = stage_all(snapshot, pull, units);
        let prepared = snapshot.prepare(pull, &files, reconcile).unwrap();
        self.store.transaction(|transaction| snapshot.publish(transaction, &prepared)).unwrap();
        snapshot.discard_staging(pull).unwrap();
        (pull, prepared.new_versions, prepared.removed)
    }
}

fn stage_all(snapshot: &Snapshot, pull: PullId, units: &[&[Incoming]]) -> Vec<String> {
    let stage = |(number, unit): (usize, &&[Incoming])| {
        let mut stage = snapshot.stage(pull, &format!("unit {number}")).unwrap();
        unit.iter().for_each(|incoming| stage.push(incoming).unwrap());
        stage.finish().unwrap().0
    };
    units.iter().enumerate().map(stage).collect()
}

fn resource(resource_type: &str, id: &str, patient: &str, version: Option<u64>, content: &str) -> Incoming {
    let json = format!(r#"{{"resourceType":"{resource_type}","id":"{id}","note":"{content}"}}"#).into_bytes();
    let mut hash = [0; 32];
    hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &json).as_ref());
    let header = Header {
        resource_type: resource_type.to_owned(),
        id: id.to_owned(),
        patient: patient.to_owned(),
        version,
        updated: None,
        hash,
        removed: false,
        import: String::new(),
    };
    Incoming { header, json }
}

fn all(snapshot: &Snapshot, as_of: Option<PullId>) -> Vec<String> {
    let mut lines: Vec<String> = snapshot
        .partitions()
        .into_iter()
        .flat_map(|partition| snapshot.patients(partition, as_of).unwrap())
        .flat_map(|patient| patient.lines)
        .map(|line| String::from_utf8(line).unwrap())
        .collect();
    lines.sort();
    lines
}

fn full(types: &[&str]) -> Reconcile {
    Reconcile { full_types: types.iter().map(|name| (*name).to_owned()).collect(), present_wins: true, ..Reconcile::default() }
}

#[test]
fn newest_version_wins_whatever_the_order_and_the_files() {
    let copies = [
        resource("Observation", "o", "p1", Some(9), "nine"),
        resource("Observation", "o", "p1", Some(10), "ten"),
        resource("Observation", "o", "p1", None, "none"),
        resource("Patient", "p1", "p1", Some(1), "x"),
        resource("Location", "l", "", None, "ward"),
    ];
    let mut digests = Vec::new();
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 4, 2, 3]] {
        let bench = Bench::new();
        let snapshot = bench.open();
        let shuffled: Vec<Incoming> = order.iter().map(|at| copies[*at].clone()).collect();
        let (first, second) = shuffled.split_at(2);
        assert_eq!(bench.pull(&snapshot, &[first, second, first], &Reconcile::default()).1, 3);
        assert!(all(&snapshot, None).iter().any(|line| line.contains("ten")));
        assert_eq!(snapshot.shared(None).unwrap().len(), 1);
        digests.push(snapshot.digest().unwrap());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[test]
fn a_second_pull_writes_only_what_changed_and_the_first_stays_readable() {
    let bench = Bench::new();
    let snapshot = bench.open();
    let first = [resource("Patient", "p1", "p1", Some(1), "a"), resource("Patient", "p2", "p2", Some(1), "a"), resource("Observation", "o1", "p1", Some(1), "a")];
    let (one, ..) = bench.pull(&snapshot, &[&first], &full(&["Patient", "Observation"]));
    let before = (all(&snapshot, None), snapshot.digest().unwrap());
    assert_eq!(bench.pull(&snapshot, &[&first], &full(&["Patient", "Observation"])), (PullId(2), 0, 0));
    assert_eq!((all(&snapshot, None), snapshot.digest().unwrap()), before);

    let changed = [resource("Patient", "p1", "p1", Some(2), "b"), first[1].clone()];
    assert_eq!(bench.pull(&snapshot, &[&changed], &full(&["Patient", "Observation"])), (PullId(3), 1, 1));
    assert_eq!(all(&snapshot, None).len(), 2);
    assert_eq!(all(&snapshot, Some(one)), before.0);
    assert_eq!(snapshot.counts().unwrap(), BTreeMap::from([("Patient".to_owned(), 2)]));

    // An older copy from a stale replica changes nothing in an incremental pull.
    assert_eq!(bench.pull(&snapshot, &[&first[..1]], &Reconcile::default()).1, 0);
    // A gap in a type keeps what is stored.
    assert_eq!(bench.pull(&snapshot, &[&[]], &full(&["Observation"])).2, 0);
}

#[test]
fn a_resource_that_moves_to_another_patient_is_counted_once() {
    for reconcile in [Reconcile::default(), full(&["Observation"])] {
        let bench = Bench::new();
        let snapshot = bench.open();
        bench.pull(&snapshot, &[&[resource("Observation", "o1", "p1", Some(1), "a")]], &Reconcile::default());
        for patient in ["p2", "p3", "p4", "p5", "p6"] {
            bench.pull(&snapshot, &[&[resource("Observation", "o1", patient, Some(2), patient)]], &reconcile);
            assert_eq!(all(&snapshot, None).len(), 1);
            assert!(all(&snapshot, None)[0].contains(patient));
        }
    }
}

#[test]
fn of_who_is_no_member_nothing_is_stored_and_what_becomes_theirs_is_gone() {
    let members = Reconcile { members: Some(["p1".to_owned()].into()), ..Reconcile::default() };
    let came = [
        resource("Patient", "p1", "p1", Some(1), "a"),
        resource("Patient", "p2", "p2", Some(1), "a"),
        resource("Observation", "o", "p1", Some(1), "a"),
        resource("Location", "l", "", None, "ward"),
    ];
    // In the member's partition, and in each other one.
    for stranger in ["p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"] {
        let bench = Bench::new();
        let snapshot = bench.open();
        for written in [3, 0] {
            let (_, new, removed) = bench.pull(&snapshot, &[&came], &members);
            assert_eq!((new, removed, all(&snapshot, None).len(), snapshot.shared(None).unwrap().len()), (written, 0, 2, 1));
        }
        let (_, new, removed) = bench.pull(&snapshot, &[&[resource("Observation", "o", stranger, Some(2), "b")]], &members);
        assert_eq!((new, removed, all(&snapshot, None).len()), (0, 1, 1), "{stranger}");
    }
}

#[test]
fn deletions_find_their_resource_without_its_patient() {
    let bench = Bench::new();
    let snapshot = bench.open();
    let kept = resource("Patient", "p1", "p1", None, "a");
    let gone = resource("Observation", "o1", "p1", None, "a");
    bench.pull(&snapshot, &[&[kept, gone.clone()]], &Reconcile::default());
    let mut tombstone = gone;
    tombstone.header.removed = true;
    tombstone.header.patient.clear();
    tombstone.json.clear();
    assert_eq!(bench.pull(&snapshot, &[&[tombstone]], &Reconcile::default()).2, 1);
    assert_eq!(all(&snapshot, None).len(), 1);
    assert_eq!(snapshot.patient_ids().unwrap(), ["p1"]);
}

#[test]
fn a_killed_pull_is_invisible_and_its_rubbish_is_removed_while_staged_units_stay() {
    let bench = Bench::new();
    let snapshot = bench.open();
    bench.pull(&snapshot, &[&[resource("Patient", "p1", "p1", None, "a")]], &Reconcile::default());
    let before = (all(&snapshot, None), snapshot.digest().unwrap());

    let pull = bench.begin();
    let files = stage_all(&snapshot, pull, &[&[resource("Patient", "p2", "p2", None, "b")]]);
    drop(snapshot.stage(pull, "half").unwrap());
    snapshot.prepare(pull, &files, &Reconcile::default()).unwrap();
    std::fs::write(bench.folder.path().join("2/p000.part"), b"half a file").unwrap();
    drop(snapshot);

    let snapshot = bench.open();
    assert_eq!((all(&snapshot, None), snapshot.digest().unwrap()), before);
    assert!(!bench.folder.path().join("2").exists());
    let prepared = snapshot.prepare(pull, &files, &Reconcile::default()).unwrap();
    bench.store.transaction(|transaction| snapshot.publish(transaction, &prepared)).unwrap();
    assert_eq!(all(&snapshot, None).len(), 2);
    drop(snapshot);
    bench.open();
    assert!(!bench.folder.path().join("staging/2").exists());
}

#[test]
fn stored_bytes_are_unreadable_without_the_key_and_damage_is_told() {
    let bench = Bench::new();
    let snapshot = bench.open();
    bench.pull(&snapshot, &[&[resource("Patient", "p1", "p1", None, "Kowalski")]], &Reconcile::default());
    let partition = snapshot.partition_of("p1");
    let path = bench.folder.path().join("1").join(partition.name()).join("000.ndjson.zst");
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("Kowalski"));
    assert!(zstd::decode_all(bytes.as_slice()).is_err());
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(snapshot.patients(partition, None), Err(SnapshotError::Damaged { .. })));
    let other = Snapshot::open(bench.folder.path(), Arc::clone(&bench.store), Key::generate().unwrap(), 4);
    assert!(matches!(other, Err(SnapshotError::WrongKey { .. })));
    let other = Snapshot::open(bench.folder.path(), Arc::clone(&bench.store), bench.key.clone(), 8).unwrap();
    assert_eq!(other.partitions(), snapshot.partitions(), "it keeps the number with which it was begun");
    let rows: i64 = bench
        .store
        .with(|connection| Ok(connection.query_row("SELECT count(*) FROM segment WHERE pull_id = ?1", params![1], |row| row.get(0))?))
        .unwrap();
    assert_eq!(rows, 1);
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_damaged_is_not_read_until_a_pull_of_everything_stands_in_for_it() {
    let bench = Bench::new();
    let snapshot = bench.open();
    let first = [resource("Patient", "p1", "p1", Some(1), "a"), resource("Observation", "o1", "p1", Some(1), "a"), resource("Patient", "p2", "p2", Some(1), "a")];
    bench.pull(&snapshot, &[&first], &full(&["Patient", "Observation"]));
    let changed = resource("Observation", "o1", "p1", Some(2), "b");
    let (second, ..) = bench.pull(&snapshot, &[std::slice::from_ref(&changed)], &Reconcile::default());
    assert_eq!(snapshot.look_over().unwrap(), 0);
    let partition = snapshot.partition_of("p1");
    let (whole, folder) = (all(&snapshot, None), bench.folder.path());
    for (pull, kind) in [(2, "ndjson"), (2, "index")] {
        flip(&folder.join(pull.to_string()).join(partition.name()).join(format!("000.{kind}.zst")));
    }
    // A change of the length is seen without reading; of what is as long as it was, when it is read.
    assert_eq!(snapshot.look_over().unwrap(), 0);
    let Err(SnapshotError::Damaged { path, .. }) = snapshot.patients(partition, None) else { panic!("damage is told") };
    assert!(path.ends_with(format!("2/{}/000.index.zst", partition.name())), "{}", path.display());
    assert_eq!(snapshot.look_over().unwrap(), 1, "and remembered");
    std::fs::remove_file(folder.join("1").join(partition.name()).join("000.index.zst")).unwrap();
    assert_eq!(snapshot.look_over().unwrap(), 2);
    assert!(matches!(snapshot.patients(partition, None), Err(SnapshotError::Damaged { .. })));

    let again = [first[0].clone(), changed, first[2].clone()];
    let (third, reconcile) = (bench.begin(), full(&["Patient", "Observation"]));
    let files = stage_all(&snapshot, third, &[&again]);
    let foreseen = snapshot.foresee(third, &files, &reconcile).unwrap();
    assert!(
        foreseen.patients(partition).unwrap().iter().any(|patient| patient.patient_id == "p1" && patient.lines.len() == 2),
        "the pull that mends it goes on from the rest"
    );
    let prepared = snapshot.prepare(third, &files, &reconcile).unwrap();
    assert_eq!(prepared.replaced, 2);
    bench.store.transaction(|transaction| snapshot.publish(transaction, &prepared)).unwrap();
    assert_eq!((all(&snapshot, None), snapshot.look_over().unwrap()), (whole, 0));
    assert_eq!(snapshot.counts().unwrap(), BTreeMap::from([("Observation".to_owned(), 1), ("Patient".to_owned(), 2)]));
    assert!(matches!(snapshot.patients(partition, Some(second)), Err(SnapshotError::Damaged { .. })), "what the earlier pull had is gone, and not a part of it");
    assert!(snapshot.patients(partition, Some(third)).is_ok());
    assert!(folder.join("1").join(partition.name()).join("000.ndjson.zst").exists(), "no file is removed");
}

#[test]
fn a_staged_file_that_is_damaged_is_fetched_again() {
    let bench = Bench::new();
    let snapshot = bench.open();
    let pull = bench.begin();
    let files = stage_all(&snapshot, pull, &[&[resource("Patient", "p1", "p1", None, "a")]]);
    let row = "INSERT INTO unit (pull_id, name, resource_type, query, state, received, quarantined, undated, file) VALUES (?1, 'u', 'Patient', 'q', 'done', 1, 0, 0, ?2)";
    bench.store.with(|connection| Ok(connection.execute(row, params![pull.0, files[0]])?)).unwrap();
    flip(&bench.folder.path().join("staging/1").join(&files[0]));
    let prepared = snapshot.prepare(pull, &files, &Reconcile::default());
    assert!(matches!(prepared.err(), Some(SnapshotError::Damaged { .. })));
    let units: i64 = bench.store.with(|connection| Ok(connection.query_row("SELECT count(*) FROM unit", [], |row| row.get(0))?)).unwrap();
    assert_eq!(units, 0);
}

#[test]
fn a_snapshot_is_begun_again_under_another_key() {
    let mut bench = Bench::new();
    let patient = [resource("Patient", "p1", "p1", Some(1), "a")];
    bench.pull(&bench.open(), &[&patient], &full(&["Patient"]));
    bench.key = Key::generate().unwrap();
    assert_eq!(begin_anew(&bench.store, &bench.key).unwrap(), 1);
    let snapshot = bench.open();
    assert!(matches!(snapshot.patients(snapshot.partition_of("p1"), None), Err(SnapshotError::Damaged { .. })), "nothing is reported before everything was read");
    bench.pull(&snapshot, &[&patient], &full(&["Patient"]));
    assert_eq!(all(&snapshot, None).len(), 1);
    // Where nothing is stored yet, no key is the right one.
    let empty = Bench::new();
    drop(empty.open());
    assert!(Snapshot::open(empty.folder.path(), Arc::clone(&empty.store), Key::generate().unwrap(), 4).is_ok());
}

/// Two who were found to be one lie in different partitions: their resources are one record, and the older Patient is in none.
#[test]
fn who_was_merged_into_another_is_one_person_with_them() {
    let bench = Bench::new();
    let snapshot = bench.open();
    let of = |resource_type: &str, id: &str, patient: &str, more: &str| {
        let mut made = resource(resource_type, id, patient, None, "");
        made.json = format!(r#"{{"resourceType":"{resource_type}","id":"{id}"{more}}}"#).into_bytes();
        made
    };
    let elsewhere = |id: &&str| snapshot.partition_of(id) != snapshot.partition_of("a");
    let b = ["b", "bb", "bbb", "bbbb"].into_iter().find(elsewhere).unwrap();
    let link = |other: &str| format!(r#","link":[{{"other":{{"reference":"Patient/{other}"}},"type":"replaced-by"}}]"#);
    let units = [
        of("Patient", "a", "a", &link(b)),
        of("Patient", b, b, ""),
        of("Patient", "c", "c", &link("gone")),
        of("Encounter", "e1", "a", ""),
        of("Encounter", "e2", b, ""),
        of("Encounter", "e3", "gone", ""),
    ];
    bench.pull(&snapshot, &[&units], &full(&["Patient", "Encounter"]));
    let people = snapshot.people(None).unwrap();
    let all: Vec<_> = snapshot.partitions().into_iter().flat_map(|partition| people.of(partition).unwrap()).collect();
    let mut shown: Vec<String> = all
        .iter()
        .map(|person| {
            let ids = person.lines.iter().map(|line| crate::fhir::record::glance::identity(line).unwrap().1);
            format!("{}: {}", person.patient_id, ids.collect::<Vec<_>>().join(" "))
        })
        .collect();
    shown.sort();
    assert_eq!(shown, [format!("{b}: e2 {b} e1"), "c: c e3".to_owned()]);
    assert_eq!(people.unfollowed(), 1);
}
