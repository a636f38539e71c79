//! What the registry holds after the night, beside the truth the hospitals know.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::SiteNight;
use super::house::House;
use crate::cli::Failure;
use crate::diagnostic::counted;
use crate::registry::{MeasureCard, Unit};

/// One hospital, measure and month.
struct Row {
    site: String,
    measure: String,
    month: String,
    truth: (u64, u64),
    /// As the registry gives them; none when it has no such number.
    delivered: Option<(String, String, Option<f64>)>,
}

impl Row {
    fn agrees(&self) -> bool {
        let (numerator, denominator) = self.truth;
        self.delivered.as_ref().is_some_and(|(n, d, _)| *n == numerator.to_string() && *d == denominator.to_string())
    }
}

/// The whole comparison.
pub struct Outcome {
    rows: Vec<Row>,
    measures: Vec<MeasureCard>,
    sites: Vec<(String, String)>,
}

impl Outcome {
    /// Asks the registry for every series and sets it beside the truth.
    pub async fn read_back(house: &House, nights: &[SiteNight]) -> Result<Outcome, Failure> {
        let mut rows = Vec::new();
        for measure in &house.measures {
            let delivered = series(house, &measure.id).await?;
            for night in nights {
                for truth in night.truth.rows.iter().filter(|row| row.measure_id == measure.id) {
                    let month = truth.month.to_string();
                    rows.push(Row {
                        site: night.site.name.clone(),
                        measure: measure.id.clone(),
                        truth: (truth.numerator, truth.denominator),
                        delivered: delivered.get(&(night.site.name.clone(), month.clone())).cloned(),
                        month,
                    });
                }
            }
        }
        let sites = nights.iter().map(|night| (night.site.name.clone(), told(night))).collect();
        Ok(Outcome { rows, measures: house.measures.clone(), sites })
    }

    /// Whether every number equals the truth, and there is one.
    pub fn agrees(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::agrees)
    }

    /// For programs.
    pub fn as_json(&self) -> Value {
        let row = |row: &Row| {
            let (numerator, denominator, score) = row.delivered.clone().map_or((None, None, None), |(n, d, score)| (Some(n), Some(d), score));
            json!({
                "site": row.site, "measure": row.measure, "month": row.month,
                "numerator": numerator, "denominator": denominator, "score": score,
                "truth": { "numerator": row.truth.0, "denominator": row.truth.1 }, "agrees": row.agrees(),
            })
        };
        json!({ "agrees": self.agrees(), "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }

    /// For people: a table a measure, a row a month, two columns a hospital.
    pub fn as_text(&self, took: Duration) -> String {
        let mut text = String::new();
        for measure in &self.measures {
            text.push_str(&format!("\n{}\n{}\n", measure.title, self.table(measure)));
        }
        text.push('\n');
        for (site, told) in &self.sites {
            text.push_str(&format!("{site:>14}  {told}\n"));
        }
        let agreeing = self.rows.iter().filter(|row| row.agrees()).count();
        let verdict = if self.agrees() { "every number agrees with the truth" } else { "NOT every number agrees with the truth" };
        text.push_str(&format!("\n{agreeing} of {} agree: {verdict} ({:.1} s)\n", counted(self.rows.len(), "number"), took.as_secs_f64()));
        text
    }

    fn table(&self, measure: &MeasureCard) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        let mut header = vec!["Month".to_owned()];
        for (site, _) in &self.sites {
            header.extend([site.clone(), "truth".to_owned(), String::new()]);
        }
        table.set_header(header);
        let mut months: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.measure == measure.id) {
            months.entry(&row.month).or_default().push(row);
        }
        for (month, rows) in months {
            let mut cells = vec![month.get(..7).unwrap_or(month).to_owned()];
            for (site, _) in &self.sites {
                match rows.iter().find(|row| row.site == *site) {
                    Some(row) => cells.extend([delivered(row, &measure.unit), format!("{}/{}", row.truth.0, row.truth.1), if row.agrees() { "✓" } else { "✗" }.to_owned()]),
                    None => cells.extend([String::new(), String::new(), String::new()]),
                }
            }
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn delivered(row: &Row, unit: &Unit) -> String {
    match (&row.delivered, unit) {
        (None, _) => "nothing".to_owned(),
        (Some((n, d, None)), _) => format!("{n}/{d}  -"),
        (Some((n, d, Some(value))), Unit::Percent) => format!("{n}/{d}  {:.1} %", value),
        (Some((n, d, Some(value))), Unit::Rate { .. }) => format!("{n}/{d}  {value:.2}"),
        (Some((.., Some(value))), Unit::Number) => format!("{value:.2}"),
        (Some((n, ..)), Unit::Count) => n.to_string(),
    }
}

fn told(night: &SiteNight) -> String {
    let run = &night.night.run;
    let complete = if run.is_complete() == Some(true) { "complete" } else { "PARTIAL" };
    format!("{complete}, {} measured, {} held, {:.1} s", counted(run.patients, "patient"), counted(night.night.held, "report"), night.took.as_secs_f64())
}

type Series = BTreeMap<(String, String), (String, String, Option<f64>)>;

/// The registry's series of a measure: (site, first day) to numerator, denominator and value.
async fn series(house: &House, measure: &str) -> Result<Series, Failure> {
    let url = format!("{}/v1/measures/{measure}/series?format=json", house.registry_url);
    let failed = |error: reqwest::Error| Failure::unreachable(format!("the registry's series: {error}"));
    // On this machine, without TLS: no certificate is looked for.
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().map_err(failed)?;
    let answer: Value = client.get(&url).send().await.map_err(failed)?.json().await.map_err(failed)?;
    let text = |point: &Value, name: &str| point.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let points = answer.get("points").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(points
        .iter()
        .map(|point| {
            let key = (text(point, "site"), text(point, "periodStart"));
            (key, (text(point, "numerator"), text(point, "denominator"), point.get("value").and_then(Value::as_f64)))
        })
        .collect())
}
