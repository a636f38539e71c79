//! The yardsticks of others: `../shared`, or where `WATERSHED_SHARED` says.

use std::path::{Path, PathBuf};

/// A folder of the yardsticks, or `None` (said aloud) where it is absent.
pub(crate) fn yardstick(name: &str) -> Option<PathBuf> {
    let shared = std::env::var("WATERSHED_SHARED").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").to_owned());
    let folder = Path::new(&shared).join("conformance").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    crate::figures::say(&format!("skipped: {} absent", folder.display()));
    None
}
