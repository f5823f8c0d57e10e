//! What the person at the terminal is told about the network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use harp_transport::{Observed, Observer};

use super::settings::{say, LogLevel};

/// Hears what happens to a session's connection, and tells it with the server's `name` if it has one.
pub fn observer(name: Option<&str>) -> Observer {
    // A line has said that the program waits: another one says when it goes on.
    let waits = AtomicBool::new(false);
    let prefix = name.map_or_else(String::new, |name| format!("{name}: "));
    Arc::new(move |what| {
        if super::life::is_over() {
            return;
        }
        if let Some((level, line)) = line(what, &waits) {
            say(level, &format!("{prefix}{line}"));
        }
    })
}

fn line(what: &Observed<'_>, waits: &AtomicBool) -> Option<(LogLevel, String)> {
    match what {
        Observed::Silent(time) => {
            waits.store(true, Ordering::Relaxed);
            let text = format!(
                "no sign of the pool server for {} s: the network or the server stands still; the \
                 program waits",
                time.as_secs()
            );
            Some((LogLevel::Normal, text))
        }
        Observed::Heard => waits.swap(false, Ordering::Relaxed).then(|| {
            (
                LogLevel::Normal,
                "the pool server is there again".to_owned(),
            )
        }),
        Observed::Interrupted(cause) => {
            let text = format!("the connection to the pool server is interrupted: {cause}");
            Some((LogLevel::Debug, text))
        }
        Observed::Waiting { since, left, cause } => {
            waits.store(true, Ordering::Relaxed);
            let text = format!(
                "no connection to the pool server for {} s ({cause}); the program waits up to {} s \
                 more for it",
                since.as_secs(),
                rounded_up(*left)
            );
            Some((LogLevel::Normal, text))
        }
        Observed::Resumed(after) => {
            let level = if waits.swap(false, Ordering::Relaxed) {
                LogLevel::Normal
            } else {
                LogLevel::Debug
            };
            let text = format!("session resumed after {:.3} s", after.as_secs_f64());
            Some((level, text))
        }
    }
}

fn rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_break_is_not_worth_a_line_and_a_long_one_two() {
        let waits = AtomicBool::new(false);
        let resumed = Observed::Resumed(Duration::from_millis(1500));
        assert_eq!(line(&resumed, &waits).unwrap().0, LogLevel::Debug);
        let waiting = Observed::Waiting {
            since: Duration::from_millis(5010),
            left: Duration::from_millis(24_990),
            cause: "nothing listens there",
        };
        let (level, text) = line(&waiting, &waits).unwrap();
        assert_eq!(level, LogLevel::Normal);
        assert!(text.contains("5 s") && text.contains("25 s more"), "{text}");
        let (level, text) = line(&resumed, &waits).unwrap();
        assert_eq!(level, LogLevel::Normal);
        assert_eq!(text, "session resumed after 1.500 s");
        assert!(line(&Observed::Heard, &waits).is_none());
    }
}
