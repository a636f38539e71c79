//! UCUM's own functional tests: which units are valid, and what conversions come to.

use std::path::PathBuf;

use rust_decimal::Decimal;
use watershed::terminology::units::Units;

/// The file with the tests; `None` (said aloud) when the yardsticks are not there.
fn functional_tests() -> Option<String> {
    let shared = std::env::var_os("WATERSHED_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let path = shared.join("conformance/ucum/UcumFunctionalTests.xml");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(_) => {
            crate::figures::say(&format!("skipped: {} absent", path.display()));
            None
        }
    }
}

#[test]
fn validity() {
    let Some(text) = functional_tests() else { return };
    let document = roxmltree::Document::parse(&text).unwrap();
    let units = Units::new();
    let cases = document.descendants().filter(|node| node.has_tag_name("case") && node.has_attribute("valid"));
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases {
        count += 1;
        let unit = case.attribute("unit").unwrap();
        let expected = case.attribute("valid") == Some("true");
        if units.is_valid(unit) != expected {
            wrong.push(format!("{} `{unit}` expected valid: {expected}", case.attribute("id").unwrap()));
        }
    }
    assert!(count > 500, "only {count} cases read");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn conversion() {
    let Some(text) = functional_tests() else { return };
    let document = roxmltree::Document::parse(&text).unwrap();
    let units = Units::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in document.descendants().filter(|node| node.has_attribute("srcUnit")) {
        count += 1;
        let read = |name: &str| case.attribute(name).and_then(|text| text.parse::<Decimal>().ok());
        let (from, to) = (case.attribute("srcUnit").unwrap(), case.attribute("dstUnit").unwrap());
        let (Some(value), Some(outcome)) = (read("value"), read("outcome")) else {
            println!("not a decimal: {}", case.attribute("id").unwrap());
            continue;
        };
        // An outcome is written to as many digits as it is meant to be exact.
        let found = units.convert(value, from, to).map(|found| found.round_dp(outcome.scale()));
        if found != Some(outcome) {
            wrong.push(format!("{value} `{from}` in `{to}`: expected {outcome}, found {found:?}"));
        }
    }
    assert!(count >= 30, "only {count} cases read");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
