//! An authenticated peer that misbehaves, for the tests.
//!
//! ```text
//! harp-rogue relay --server HOST:PORT --user DIR --cert FILE --key FILE [--record FILE]
//!                  [--mutate PER_MILLE --seed N]
//! harp-rogue storm --server HOST:PORT --user DIR --frames N --seed N [--threads N] STREAM...
//! ```
//!
//! `relay` stands between a program and its server, with a server's certificate of its own: it
//! records the frames of calls that pass, and mutates frames of replies. It prints its address, serves
//! until its standard input ends, and then says in one line of JSON what it has done.
//!
//! `storm` is a client that sends mutations of recorded frames, in as many sessions as it takes, since
//! a server ends each with its first violation. It prints one line of JSON about how they ended.

mod answers;
mod arguments;
mod calls;
mod relay;
mod storm;
mod streams;

use std::process::ExitCode;

use arguments::Arguments;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let done = Arguments::parse(words).and_then(|arguments| match mode.as_str() {
        "relay" => relay::run(&arguments),
        "storm" => storm::run(&arguments),
        _ => Err("harp-rogue relay|storm, with the options that its source describes".to_owned()),
    });
    match done {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(cause) => {
            eprintln!("harp-rogue: {cause}");
            ExitCode::FAILURE
        }
    }
}
