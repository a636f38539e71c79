//! What whole nights delivered, beside what the hospital knows.

use crate::bed::Bed;
use std::collections::BTreeMap;
use watershed::sandbox::Truth;

/// Numerator and denominator by measure and first day of the month.
pub type Months = BTreeMap<(String, String), (u64, u64)>;

/// The truth of the months that nights report.
pub fn by_month(truth: &Truth) -> Months {
    truth
        .rows
        .iter()
        .map(|row| ((row.measure_id.clone(), row.month.to_string()), (row.numerator, row.denominator)))
        .collect()
}

/// What the registry says of the one site.
pub async fn reports(bed: &Bed) -> Months {
    let mut found = Months::new();
    for measure in ["ibd-remission", "hac-clabsi", "perinatal-early-elective-delivery"] {
        let address = format!("{}/v1/measures/{measure}/series?format=json", bed.registry_url);
        let series: serde_json::Value = reqwest::get(address).await.unwrap().json().await.unwrap();
        for point in series["points"].as_array().unwrap() {
            let number = |name: &str| point[name].as_str().unwrap_or("0").parse::<u64>().unwrap();
            let month = point["periodStart"].as_str().unwrap()[..10].to_owned();
            let earlier = found.insert((measure.to_owned(), month.clone()), (number("numerator"), number("denominator")));
            assert_eq!(earlier, None, "{measure} {month} is there twice");
        }
    }
    found
}
