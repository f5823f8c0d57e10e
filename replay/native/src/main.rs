//! harp-trace: records, reads, checks and repacks traces. People use `harp-run --trace` and
//! `harp-replay`, which start it; what it prints is for programs.
//!
//! ```text
//! harp-trace record --socket FD|PATH --out TRACE [--own-folder] [--payload POLICY] …  what programs do
//! harp-trace events TRACE [--full]          its events as lines of JSON
//! harp-trace assemble LINES --out TRACE [--level N]   such lines as a trace
//! harp-trace verify TRACE                   looks at everything in it
//! harp-trace run TRACE --server HOST:PORT --credentials DIR …   its calls, sent again
//! harp-trace trim TRACE --kernel NAME | --calls A..B --out TRACE …   only these, still replayable
//! harp-trace repack TRACE --out TRACE [--tar | --folder] [--level N]
//! ```
//!
//! What is wrong is said in one line on standard error, with exit status 1; 2 is for a wrong
//! command line, and for a trace that cannot be replayed.

mod arguments;
mod files;
mod record;
mod replay;

use std::fmt::Display;
use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "usage: harp-trace record | events | assemble | verify | repack | run | trim";

/// Why the program does not do what it was asked for.
pub enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// Cause and next step.
    Told(String),
    /// As that, for a trace that cannot be taken.
    Refused(String),
    /// What came out is not what it should be, as standard output says.
    Differs,
}

impl<E: Display + std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Told(error.to_string())
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let arguments = Arguments::new(arguments);
    let done = match command.to_str() {
        Some("record") => record::run(arguments),
        Some("events") => files::events(arguments),
        Some("assemble") => files::assemble(arguments),
        Some("verify") => files::verify(arguments),
        Some("run") => replay::run(arguments),
        Some("trim") => replay::trim::run(arguments),
        Some("repack") => files::repack(arguments),
        Some("--help" | "help") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Err(Failure::Usage(format!(
            "{} is no command",
            command.to_string_lossy()
        ))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told(told)) => {
            eprintln!("harp-trace: {told}");
            ExitCode::FAILURE
        }
        Err(Failure::Refused(told)) => {
            eprintln!("harp-trace: {told}");
            ExitCode::from(2)
        }
        Err(Failure::Differs) => ExitCode::FAILURE,
        Err(Failure::Usage(what)) => {
            eprintln!("harp-trace: {what}; see --help");
            ExitCode::from(2)
        }
    }
}
