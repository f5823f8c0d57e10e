//! Lines for the person at the terminal.

use std::io::Write;
use std::sync::OnceLock;

/// Whether `HARP_LOG=quiet` asks for silence.
pub fn quiet() -> bool {
    static QUIET: OnceLock<bool> = OnceLock::new();
    *QUIET.get_or_init(|| std::env::var_os("HARP_LOG").is_some_and(|level| level == "quiet"))
}

/// Writes one line `harp: text` to stderr, unless `HARP_LOG=quiet`. Never fails: a closed stderr
/// is the program's own choice.
pub fn notice(text: &str) {
    if !quiet() {
        let line = format!("harp: {text}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
