//! What the tests measured, for people: printed, and kept beside the build so that one run is enough to show it all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

/// The lines of each test of this run.
static SAID: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Says a figure, or that something is skipped: aloud, and in `target/tmp/figures/`, a file a test.
pub(crate) fn say(line: &str) {
    println!("{line}");
    let test = std::thread::current().name().unwrap_or("main").replace("::", ".");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    let mut said = SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let lines = said.entry(test.clone()).or_default();
    lines.push_str(line);
    lines.push('\n');
    // A figure that cannot be kept has been printed all the same.
    let _ = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(test + ".txt"), &*lines));
}
