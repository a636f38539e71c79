//! The `watershed` binary: parse arguments, call the command, exit with its code.

fn main() -> std::process::ExitCode {
    watershed::cli::main()
}
