//! Commands and exit codes.

use std::process::ExitCode;

/// Runs the command line given to this process.
pub fn main() -> ExitCode {
    ExitCode::from(70)
}
