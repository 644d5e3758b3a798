//! Parses the command line, runs one verb and turns its outcome into an exit code.

fn main() -> std::process::ExitCode {
    cutover::cli::run(std::env::args_os())
}
