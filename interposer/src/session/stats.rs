//! What a session did, and why its calls waited: for what `HARP_STATS=1` prints.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use harp_wire::{Because, CallId};

use crate::clock::Moment;
use crate::recording::recorder;

thread_local! {
    /// Why the calls that this thread makes now are waited for, where that is not their own reason.
    static BECAUSE: Cell<Option<Because>> = const { Cell::new(None) };
}

/// Makes calls that are waited for because of something other than what they are.
pub fn because<T>(reason: Because, act: impl FnOnce() -> T) -> T {
    let before = BECAUSE.replace(Some(reason));
    let outcome = act();
    BECAUSE.set(before);
    outcome
}

/// Why this thread waits for a call that it makes now.
pub fn reason_for(call: CallId) -> Because {
    BECAUSE.get().unwrap_or_else(|| call.because())
}

/// How often, and how long altogether.
#[derive(Default)]
struct Waited {
    count: u64,
    time: Duration,
}

/// Waits by their reason and by what was waited for.
type Profile = BTreeMap<(Because, &'static str), Waited>;

pub struct Stats {
    /// The number of the session.
    session: usize,
    begun: Instant,
    calls: AtomicU64,
    waits: AtomicU64,
    /// Kept where it will be printed.
    profile: Option<Mutex<Profile>>,
}

impl Stats {
    /// Of the session of that number, which begins. `profiled`: it keeps why calls wait.
    pub fn new(session: usize, profiled: bool) -> Stats {
        Stats {
            session,
            begun: Instant::now(),
            calls: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            profile: profiled.then(Mutex::default),
        }
    }

    pub fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for a call's reply, or with ticket 0 for something else that it needs.
    pub fn waiting<T>(
        &self,
        call: CallId,
        ticket: u32,
        because: Because,
        wait: impl FnOnce() -> T,
    ) -> T {
        self.waits.fetch_add(1, Ordering::Relaxed);
        let started = self.now();
        let outcome = wait();
        self.note_since(started, ticket, because, call);
        outcome
    }

    /// Sends a call that nobody waits for; `send` says since when it had to wait for the network, if it had to.
    #[inline]
    pub fn sending<E>(
        &self,
        call: CallId,
        send: impl FnOnce() -> Result<Option<Moment>, E>,
    ) -> Result<(), E> {
        if let Some(since) = send()? {
            self.note_since(Some(since), 0, Because::Network, call);
        }
        Ok(())
    }

    /// Where somebody wants to know how long things last.
    fn now(&self) -> Option<Moment> {
        (self.profile.is_some() || recorder().is_some()).then(Moment::now)
    }

    fn note_since(&self, since: Option<Moment>, ticket: u32, because: Because, call: CallId) {
        let Some(since) = since else { return };
        self.note(because, name(call), since.time.elapsed());
        if let Some(recorder) = recorder() {
            recorder.wait(self.session, since.ticks, ticket, because, call);
        }
    }

    /// Notes that something was waited for.
    pub fn note(&self, because: Because, what: &'static str, time: Duration) {
        if let Some(profile) = &self.profile {
            let mut profile = profile.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = profile.entry((because, what)).or_default();
            waited.count += 1;
            waited.time += time;
        }
    }

    /// One line: calls, waits, bytes each way, time.
    pub fn line(&self, sent: u64, received: u64) -> String {
        format!(
            "{} calls sent, {} waited; {} sent, {} received; {:.2} s",
            self.calls.load(Ordering::Relaxed),
            self.waits.load(Ordering::Relaxed),
            readable_bytes(sent),
            readable_bytes(received),
            self.begun.elapsed().as_secs_f64(),
        )
    }

    /// Why calls waited, a line for each reason and call: first those that the program did not ask for.
    pub fn profile(&self) -> Vec<String> {
        match &self.profile {
            Some(profile) => table(&profile.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Vec::new(),
        }
    }
}

fn name(call: CallId) -> &'static str {
    call.name().unwrap_or("?")
}

fn table(profile: &Profile) -> Vec<String> {
    let mut rows: Vec<_> = profile.iter().collect();
    rows.sort_by_key(|((because, _), waited)| {
        (because.is_asked(), *because, u64::MAX - waited.count)
    });
    let unasked = rows.iter().filter(|((because, _), _)| !because.is_asked());
    let unasked: u64 = unasked.map(|(_, waited)| waited.count).sum();
    let all: u64 = profile.values().map(|waited| waited.count).sum();
    let head = format!("waits: {unasked} that the program did not ask for, of {all}");
    let line = |((because, what), Waited { count, time }): &(&(Because, &str), &Waited)| {
        let asked = if because.is_asked() { "asked" } else { "" };
        let (ms, text) = (time.as_secs_f64() * 1e3, because.text());
        format!("{count:>10} x {ms:>10.2} ms  {asked:5}  {what:30} {text}")
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

/// A number of bytes with its unit.
pub fn readable_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_what_was_not_asked_for_first() {
        let stats = Stats::new(0, true);
        let wait = |call: CallId| stats.waiting(call, 1, reason_for(call), || ());
        wait(CallId::cuMemcpyDtoH_v2);
        wait(CallId::cuMemAlloc_v2);
        because(Because::Order, || wait(CallId::cuStreamSynchronize));
        wait(CallId::cuStreamSynchronize);
        wait(CallId::cuStreamSynchronize);
        let words = |line: &String| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            [words[0].clone(), words[4..].join(" ")]
        };
        let lines = stats.profile();
        assert_eq!(lines[0], "waits: 2 that the program did not ask for, of 5");
        let rows: Vec<_> = lines[1..].iter().map(words).collect();
        let expected = [
            ["1", "cuMemAlloc_v2 memory is allocated"],
            [
                "1",
                "cuStreamSynchronize queued work may change what is copied",
            ],
            ["1", "asked cuMemcpyDtoH_v2 the program asked for data"],
            ["2", "asked cuStreamSynchronize the program synchronised"],
        ];
        assert_eq!(rows, expected);
        assert!(Stats::new(0, false).profile().is_empty());
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(readable_bytes(1023), "1023 B");
        assert_eq!(readable_bytes(1536), "1.5 KiB");
        assert_eq!(readable_bytes(3 << 40), "3072.0 GiB");
    }
}
