//! FHIR search and HTTP: R-01 to R-19.

use super::bench::{Bench, Difference, What};
use super::quirk_search::{of_group, patient_of};
use std::collections::BTreeSet;
use watershed::sandbox::Fault;
use watershed::sandbox::server::Options as Serving;
use watershed::source::duty::{Code, Who};
use watershed::source::{Mode, account};

fn always(path: &str, status: u16) -> Fault {
    Fault::Status { path: path.to_owned(), status, retry_after: None, times: u32::MAX }
}

#[tokio::test]
async fn r_01_links_are_sent_byte_for_byte_as_they_were_given() {
    let mut bench = Bench::new(&["r_01"]).await;
    bench.options.page_size = 10;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.count("&_state=a+b%2Bc==d|e%7Cf%c3%a9:/?~%C3%BCxxx") > 20);
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_02_relative_links_count_from_the_address_that_answered() {
    let pulled = Bench::new(&["q_17"]).await.pull(Mode::Search).await;
    assert!(pulled.count("_page=") > 0);
    assert!(pulled.requests.iter().all(|seen| seen.status != 404), "a link was resolved against something else");
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_03_what_the_self_link_leaves_out_is_filtered_here() {
    let mut bench = of_group(&["r_03"], Serving::default()).await;
    bench.options.group = "inpatient".to_owned();
    let observations = bench.needs.iter_mut().find(|need| need.resource_type == "Observation").unwrap();
    observations.codes.insert("http://loinc.org|8310-5".to_owned());
    bench.keeps = |resource| {
        let is_asked = resource["resourceType"] != "Observation" || resource["code"]["coding"][0]["code"] == "8310-5";
        is_asked && patient_of(resource).is_none_or(|id| id.starts_with("inp-"))
    };
    bench.pull(Mode::Search).await.is_the_truth();
    let again = bench.pull(Mode::Search).await;
    assert!(!again.outcome.full && again.outcome.new_versions == 0);
    again.is_the_truth();
    let counts = bench.snapshot().counts().unwrap();
    assert!((3..9).contains(&counts["Location"]), "{counts:?}: all nine were sent, those referred to were asked for");
}

#[tokio::test]
async fn r_04_strict_handling_is_asked_for_and_a_server_that_cannot_is_coped_with() {
    let mut bench = Bench::new(&[]).await;
    let pulled = bench.pull(Mode::Search).await;
    let begun = pulled.requests.iter().filter(|seen| seen.target.contains("_count="));
    assert!(begun.clone().count() > 5 && begun.clone().all(|seen| seen.header("prefer") == Some("handling=strict")));
    pulled.is_the_truth();
    // A parameter that this server does not know.
    bench.options.parameters.insert("Observation".to_owned(), vec!["_sort=_id".to_owned()]);
    let pulled = bench.pull(Mode::Search).await;
    let sorted: Vec<(u16, &str)> = pulled
        .requests
        .iter()
        .filter(|seen| seen.target.contains("_sort=") && !seen.target.contains("_summary="))
        .map(|seen| (seen.status, seen.header("prefer").unwrap()))
        .collect();
    assert_eq!(sorted, [(400, "handling=strict"), (200, "handling=lenient")]);
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_05_outcome_entries_are_not_data_and_an_error_among_them_makes_the_page_incomplete() {
    let pulled = Bench::new(&["r_05"]).await.pull(Mode::Search).await;
    for resource_type in ["Condition", "Procedure"] {
        assert!(pulled.has_gap(&format!("{resource_type}: the server reports an error (processing)")), "{:?}", pulled.outcome.gaps);
    }
    assert_eq!(pulled.gaps(), ["Condition", "Procedure"].into(), "a warning and an information are none");
    assert!(pulled.held.is_empty(), "an outcome was taken for data");
    assert_eq!(pulled.differing(), ["Condition", "Procedure"].into());
}

#[tokio::test]
async fn r_06_a_total_is_a_reason_for_alarm_and_never_to_stop_or_go_on() {
    let mut bench = Bench::new(&["r_06"]).await;
    bench.options.page_size = 10;
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!(pulled.differences, []);
    assert_eq!(pulled.gaps(), ["Observation"].into());
    assert!(pulled.has_gap("the server announced 5000 and sent 242"), "{:?}", pulled.outcome.gaps);
}

#[tokio::test]
async fn r_07_pages_may_be_short_or_empty_and_still_have_a_next_one() {
    let pulled = Bench::serving(&["q_27"], Serving { page_max: 7, ..Serving::default() }).await.pull(Mode::Search).await;
    assert!(pulled.count("/Observation?_page=") > 60);
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_08_what_shifts_between_pages_is_neither_counted_twice_nor_lost() {
    let pulled = Bench::new(&["r_08"]).await.pull(Mode::Search).await;
    assert!(pulled.begun("Encounter") > 1 && pulled.begun("Observation") > 1);
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_09_search_by_post_keeps_patients_out_of_addresses() {
    let mut bench = of_group(&[], Serving::default()).await;
    bench.options.page_size = 10;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.requests.iter().any(|seen| seen.method == "POST" && seen.body.contains("patient=ibd-")));
    assert!(pulled.requests.iter().any(|seen| seen.method == "GET" && seen.target.contains("_page=")));
    assert_eq!(pulled.count("ibd-"), 0, "a patient stands in an address");
    pulled.is_the_truth();
    // Where searching by POST is not possible, an address it is.
    let bench = of_group(&[], Serving { faults: vec![always("/_search", 405)], ..Serving::default() }).await;
    let pulled = bench.pull(Mode::Search).await;
    let refused = pulled.requests.iter().filter(|seen| seen.status == 405).count();
    assert!((1..=4).contains(&refused), "{refused} searches by POST");
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_10_counts_are_asked_for_as_a_separate_probe_only_and_seldom() {
    let counting = |part: &str| part.contains("_total=") || part.contains("_summary=");
    let bench = Bench::new(&[]).await;
    let all = bench.pull(Mode::Search).await;
    assert_eq!(
        all.requests.iter().filter(|seen| counting(&seen.target)).count(),
        2 * 6,
        "what is there unchanged and what has changed meanwhile, once a type where everything is read"
    );
    let changes = bench.pull(Mode::Search).await;
    let counted = changes.requests.iter().filter(|seen| counting(&seen.target)).count();
    assert_eq!((changes.outcome.full, counted), (false, 6 + 3), "and where changes were, with samples by times; those by ids are read");
    let pulled = Bench::new(&["q_22"]).await.pull(Mode::Search).await;
    let targets = pulled.requests.iter().map(|seen| seen.target.as_str());
    let probes: Vec<&str> = targets.filter(|target| counting(target) && !target.contains("_lastUpdated=lt")).collect();
    assert!(!probes.is_empty() && probes.len() * 4 < pulled.requests.len(), "{probes:?}");
    assert!(probes.iter().all(|target| target.ends_with("_summary=count") && !target.contains("_count=")), "{probes:?}");
}

#[tokio::test]
async fn r_11_included_resources_may_repeat_or_be_absent() {
    let mut bench = Bench::new(&["r_11"]).await;
    bench.options.page_size = 10;
    bench.options.parameters.insert("Encounter".to_owned(), vec!["_include=Encounter:location".to_owned()]);
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.outcome.received["Encounter"] > 71, "nothing was included: {:?}", pulled.outcome.received);
    let is_read = |target: &str| target.contains("/Location?_id=") && target.contains("unit-oncology");
    assert!(pulled.requests.iter().any(|seen| is_read(&seen.target)), "what is absent is read");
    assert_eq!(pulled.begun("Encounter"), 1, "what is included twice is no sign of shifting pages");
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_12_times_in_searches_are_read_as_the_same_instant_by_any_server() {
    let bench = Bench::new(&["r_12"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    bench.hospital.amend(3);
    let pulled = bench.pull(Mode::Search).await;
    assert!(!pulled.outcome.full && pulled.count("_lastUpdated=ge") > 5);
    // Of what only was referred to and is gone, that is asked by id.
    let refused: Vec<_> = pulled
        .requests
        .iter()
        .filter(|seen| seen.status != 200 && !(seen.status == 410 && seen.target.contains("/Device/")))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(pulled.requests.iter().all(|seen| !seen.target.contains('+')));
}

#[tokio::test]
async fn r_13_gone_is_a_deletion_not_found_is_absence_and_forbidden_is_a_gap_of_the_type() {
    let faults = vec![always("/Patient/ibd-0002", 410), always("/Patient/ibd-0006", 404), always("/Condition", 403)];
    let mut bench = of_group(&["q_13"], Serving { faults, ..Serving::default() }).await;
    bench.pull(Mode::Bulk).await.is_the_truth();
    (bench.options.tuning.patients_per_query, bench.options.requests_at_once) = (1, 1);
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.has_gap("Patient: 1 of the members of the Group are not there"), "{:?}", pulled.outcome.gaps);
    let patient = Difference { resource_type: "Patient".to_owned(), id: "ibd-0002".to_owned(), what: What::Missing };
    assert_eq!(pulled.differences, [patient], "one that is gone goes, one that is not found is kept until a reading is whole");
    assert!(pulled.has_gap("Condition: the server answered 403"), "{:?}", pulled.outcome.gaps);
    assert_eq!(pulled.count("/Condition"), 2, "by POST and by GET, once for all patients");
    let bench = of_group(&["q_02"], Serving::default()).await;
    let pulled = bench.pull(Mode::Search).await;
    assert!(pulled.requests.iter().any(|seen| seen.status == 401) && pulled.count("/token") > 1, "a new token");
    pulled.is_the_truth();
}

#[tokio::test]
async fn r_14_a_query_whose_paging_expires_begins_again_twice_at_most() {
    let mut bench = Bench::serving(&["q_28"], Serving { page_max: 5, ..Serving::default() }).await;
    bench.options.tuning.retry_attempts = 3;
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!(["Encounter", "Patient", "Observation", "Condition"].map(|name| pulled.begun(name)), [2, 3, 3, 2]);
    assert_eq!(pulled.gaps(), ["Observation"].into());
    pulled.is_the_truth_or_says_what_is_not();
}

#[tokio::test]
async fn r_15_where_a_server_gives_no_versions_the_content_is_the_version() {
    let mut bench = Bench::new(&["r_15"]).await;
    bench.options.tuning.full_every_days = 0;
    bench.pull(Mode::Search).await.is_the_truth();
    let again = bench.pull(Mode::Search).await;
    assert_eq!((again.outcome.new_versions, again.outcome.removed), (0, 0));
    bench.hospital.amend(3);
    let amended = bench.pull(Mode::Search).await;
    assert!(amended.outcome.new_versions > 0);
    amended.is_the_truth();
}

#[tokio::test]
async fn r_16_deletions_need_no_resource_as_in_a_history_which_is_not_asked_for() {
    let bench = Bench::new(&["r_16"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    let pulled = bench.pull(Mode::Search).await;
    assert!(!pulled.outcome.full && pulled.outcome.complete && pulled.held.is_empty(), "{:?}", pulled.outcome);
    // The one that is still served stays, and the server is told of; the one that never was there is not asked for.
    pulled.is_the_truth();
    assert_eq!((pulled.outcome.removed, pulled.count("_history"), pulled.count("/fhir/Condition/")), (0, 0, 1));
    let notes: Vec<_> = pulled.outcome.notes.iter().map(|note| (note.resource_type.as_str(), note.code, note.reason.as_str())).collect();
    assert_eq!(notes, [("Condition", Code::Undeleted, "the search names 1 resource as deleted that the server still has; it is kept")]);
    let account = bench.store.with(|connection| account::last(connection)).unwrap().unwrap();
    let due = account.rows.iter().find_map(|row| row.note.clone()).unwrap();
    assert_eq!((due.who, due.code), (Who::EhrTeam, Code::Undeleted));
}

#[tokio::test]
async fn what_is_named_as_deleted_is_removed_if_it_cannot_be_read_and_kept_if_that_cannot_be_told() {
    let bench = Bench::new(&["q_63"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    bench.hospital.amend(11);
    let pulled = bench.pull(Mode::Search).await;
    let asked = pulled.requests.iter().filter(|seen| matches!(seen.status, 404 | 410)).count() as u64;
    assert!(!pulled.outcome.full && pulled.outcome.removed > 0 && pulled.outcome.complete, "{:?}", pulled.outcome);
    // A Device that only was referred to is seen to be gone when it is looked at again, and by its id.
    let seen = pulled
        .outcome
        .notes
        .iter()
        .filter(|note| note.code == Code::Vanished && note.resource_type == "Device" && note.reason.starts_with("1 resource"))
        .count() as u64;
    assert_eq!((asked, seen), (pulled.outcome.removed, 1), "each was asked for once");
    assert_eq!(bench.pull(Mode::Search).await.requests.iter().filter(|seen| matches!(seen.status, 404 | 410)).count(), 0, "what is gone is not asked for again");

    let unread = Fault::Status { path: "/Condition/".to_owned(), status: 403, retry_after: None, times: 1_000_000 };
    let bench = Bench::serving(&["r_16"], Serving { faults: vec![unread], ..Serving::default() }).await;
    bench.pull(Mode::Search).await.is_the_truth();
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!((pulled.outcome.removed, pulled.outcome.complete, pulled.differences.len()), (0, false, 0));
    assert!(pulled.has_gap("1 resource named as deleted, and whether the server still has it could not be asked"), "{:?}", pulled.outcome.gaps);
}

#[tokio::test]
async fn r_17_references_are_understood_in_all_their_spellings() {
    let (plain, bench) = (Bench::new(&[]).await, Bench::new(&["r_17"]).await);
    plain.pull(Mode::Search).await.is_the_truth();
    let pulled = bench.pull(Mode::Search).await;
    assert_eq!((pulled.gaps(), pulled.held.len()), (BTreeSet::new(), 0));
    assert_eq!(pulled.differing(), ["DeviceUseStatement"].into(), "those whose patient has another name on the page");
    assert_eq!(bench.snapshot().counts().unwrap(), plain.snapshot().counts().unwrap(), "what was referred to in any spelling came too");
    let shapes = |bench: &Bench| -> BTreeSet<(String, usize)> {
        let snapshot = bench.snapshot();
        let patients = snapshot.partitions().into_iter().flat_map(|partition| snapshot.patients(partition, None).unwrap()).collect::<Vec<_>>();
        patients.into_iter().map(|patient| (patient.patient_id, patient.lines.len())).collect()
    };
    assert_eq!(shapes(&bench), shapes(&plain), "each resource belongs to the same patient");
}

#[tokio::test]
async fn r_18_json_is_kept_as_it_was_written() {
    let bench = Bench::new(&["r_18"]).await;
    bench.pull(Mode::Search).await.is_the_truth();
    let snapshot = bench.snapshot();
    let lines = snapshot
        .partitions()
        .into_iter()
        .flat_map(|partition| snapshot.patients(partition, None).unwrap())
        .flat_map(|patient| patient.lines);
    let odd: Vec<String> = lines
        .map(|line| String::from_utf8(line).unwrap())
        .filter(|line| line.ends_with(r#","resourceType":"Procedure"}"#))
        .collect();
    assert_eq!(odd.len(), 3);
    for kept in [r#""valueDecimal":1.00}"#, r#""valueDecimal":12345678901234567890.10}"#, r#""_status":{"id":"s"}"#, r#""x-list":["a",null],"_x-list":[null,{"id":"b"}]"#] {
        assert!(odd.iter().all(|line| line.contains(kept)), "{kept} in {odd:?}");
    }
}

#[tokio::test]
async fn r_19_ids_are_case_sensitive_data_and_never_parts_of_file_names_or_statements() {
    let bench = Bench::new(&["r_19"]).await;
    let pulled = bench.pull(Mode::Search).await;
    let extra = |id: &str| Difference { resource_type: "Condition".to_owned(), id: id.to_owned(), what: What::Extra };
    assert_eq!(pulled.differences.iter().cloned().collect::<BTreeSet<_>>(), ["..", "TWIN", "twin"].map(extra).into());
    let held: Vec<&str> = pulled.held.iter().map(|item| item.reason.as_str()).collect();
    assert_eq!(held, ["no id, or not an id by FHIR's rules"; 3]);
    for file in bench.files_in("") {
        let file = file.display().to_string().to_lowercase();
        assert!(!["twin", "drop", "%2e", "ibd-"].iter().any(|part| file.contains(part)), "{file}");
    }
}
