//! How late a thread runs that another one wakes on a core with nothing to do.

use std::io;
use std::mem::size_of;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// `count` times: this thread sleeps for `gap` and wakes one that has slept as long, on another core where there is one.
/// How long it took each time until that ran.
pub fn latencies(gap: Duration, count: usize) -> io::Result<Vec<Duration>> {
    let all = allowed()?;
    let (own, other) = (&all[..1], all[all.len() - 1..].to_vec());
    let (ran, running) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        keep_to(&other)?;
        for _ in 0..count {
            thread::park();
            if ran.send(Instant::now()).is_err() {
                break;
            }
        }
        Ok(())
    });
    keep_to(own)?;
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        thread::sleep(gap);
        let called = Instant::now();
        sleeper.thread().unpark();
        found.push(running.recv().map_err(io::Error::other)? - called);
    }
    keep_to(&all)?;
    sleeper.join().expect("no panic").map(|()| found)
}

/// The cores that this thread may use.
fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: a set of cores is bits, which the call fills.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Err(io::Error::last_os_error());
        }
        set
    };
    // SAFETY: reads a bit of the set, which is within it.
    let is_in = |core: &usize| unsafe { libc::CPU_ISSET(*core, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(is_in).collect())
}

/// Keeps this thread on these cores.
fn keep_to(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a set of cores is bits, all zero at first; the call only reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cores.iter().for_each(|&core| libc::CPU_SET(core, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
