//! Counters of calls, each written by one thread alone: no call waits for another's cache line.
//!
//! A thread that ends leaves its counters to the next one that begins, so there are never more than
//! threads at a time.

use core::cell::Cell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::generated::exports::COUNT;

/// Times are told apart to one part in so many of a power of two, for the median.
const PARTS: u64 = 8;
/// Buckets of times: the last holds everything from 2⁴² ticks on.
const BUCKETS: usize = 40 * PARTS as usize;

/// Calls of one symbol by one thread, in ticks.
struct Counters {
    count: AtomicU64,
    total: AtomicU64,
    least: AtomicU64,
    most: AtomicU64,
    /// Of their squares, as the bits of a float.
    squares: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
}

/// Of one thread at a time: the counters of each symbol that it has called.
struct Table([AtomicPtr<Counters>; COUNT]);

/// All tables there are, and those that no thread has.
#[derive(Default)]
struct Tables {
    all: Vec<&'static Table>,
    unused: Vec<&'static Table>,
}

static TABLES: Mutex<Tables> = Mutex::new(Tables {
    all: Vec::new(),
    unused: Vec::new(),
});

thread_local! {
    static OWN: Cell<Option<&'static Table>> = const { Cell::new(None) };
    static FAREWELL: Farewell = const { Farewell };
}

/// Leaves a thread's table to another.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(table) = OWN.take() {
            tables().unused.push(table);
        }
    }
}

fn tables() -> MutexGuard<'static, Tables> {
    TABLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a call of this thread's that took so many ticks.
#[inline]
pub fn note(number: usize, spent: u64) {
    let table = OWN.get().unwrap_or_else(take_table);
    let place = &table.0[number];
    // SAFETY: null, or counters that are never freed.
    let counters = unsafe { place.load(Relaxed).as_ref() };
    counters.unwrap_or_else(|| begin(place)).note(spent);
}

/// Gives this thread a table.
#[cold]
fn take_table() -> &'static Table {
    let mut tables = tables();
    let table = tables.unused.pop().unwrap_or_else(|| {
        let new: &Table = Box::leak(Box::new(Table(
            [const { AtomicPtr::new(null_mut()) }; COUNT],
        )));
        tables.all.push(new);
        new
    });
    drop(tables);
    OWN.set(Some(table));
    // A call in a thread's last moments finds the farewell over, and its table with this thread for good.
    let _ = FAREWELL.try_with(|_| ());
    table
}

#[cold]
fn begin(place: &AtomicPtr<Counters>) -> &'static Counters {
    let new = Box::leak(Box::new(Counters {
        count: AtomicU64::new(0),
        total: AtomicU64::new(0),
        least: AtomicU64::new(u64::MAX),
        most: AtomicU64::new(0),
        squares: AtomicU64::new(0),
        buckets: [const { AtomicU32::new(0) }; BUCKETS],
    }));
    place.store(new, core::sync::atomic::Ordering::Release);
    new
}

impl Counters {
    /// Only one thread writes, so nothing need be indivisible.
    #[inline]
    fn note(&self, spent: u64) {
        let add =
            |to: &AtomicU64, more: u64| to.store(to.load(Relaxed).wrapping_add(more), Relaxed);
        add(&self.count, 1);
        add(&self.total, spent);
        if spent < self.least.load(Relaxed) {
            self.least.store(spent, Relaxed);
        }
        if spent > self.most.load(Relaxed) {
            self.most.store(spent, Relaxed);
        }
        let squares = f64::from_bits(self.squares.load(Relaxed)) + spent as f64 * spent as f64;
        self.squares.store(squares.to_bits(), Relaxed);
        let bucket = &self.buckets[bucket_of(spent)];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Where a time belongs: by its power of two, and the three bits after its highest.
#[inline]
fn bucket_of(spent: u64) -> usize {
    if spent < PARTS {
        return spent as usize;
    }
    let power = u64::from(63 - spent.leading_zeros()); // 3 or more
    let part = (spent >> (power - 3)) & (PARTS - 1);
    (((power - 2) * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The middle of a bucket's times.
fn middle_of(bucket: usize) -> f64 {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    match power {
        0 => part as f64,
        _ => {
            (PARTS + part) as f64 * f64::powi(2.0, power as i32 - 1)
                + f64::powi(2.0, power as i32 - 2)
        }
    }
}

/// Calls of one symbol by all threads, in ticks.
#[derive(Clone, Debug)]
pub struct Measured {
    pub count: u64,
    pub total: u64,
    pub least: u64,
    pub most: u64,
    /// To a sixteenth of itself.
    pub median: f64,
    pub deviation: f64,
}

/// What was measured of a symbol's calls; none where there were none.
pub fn of(number: usize) -> Option<Measured> {
    let tables = tables();
    let counters = tables.all.iter().filter_map(|table| {
        // SAFETY: as in `note`; acquired, so that what was written at its beginning is seen.
        unsafe {
            table.0[number]
                .load(core::sync::atomic::Ordering::Acquire)
                .as_ref()
        }
    });
    let counters: Vec<_> = counters.collect();
    let sum = |of: fn(&Counters) -> &AtomicU64| {
        counters
            .iter()
            .map(|each| of(each).load(Relaxed))
            .sum::<u64>()
    };
    let (count, total) = (sum(|each| &each.count), sum(|each| &each.total));
    if count == 0 {
        return None;
    }
    let squares = counters
        .iter()
        .map(|each| f64::from_bits(each.squares.load(Relaxed)));
    let squares: f64 = squares.sum();
    let (calls, average) = (count as f64, total as f64 / count as f64);
    // Of a sample, as nsys has it.
    let variance = (squares - calls * average * average) / (calls - 1.0).max(1.0);
    let buckets: Vec<u64> = (0..BUCKETS)
        .map(|at| {
            counters
                .iter()
                .map(|each| u64::from(each.buckets[at].load(Relaxed)))
                .sum()
        })
        .collect();
    let least = counters.iter().map(|each| each.least.load(Relaxed)).min()?;
    let most = counters.iter().map(|each| each.most.load(Relaxed)).max()?;
    Some(Measured {
        count,
        total,
        least,
        most,
        median: median(&buckets).clamp(least as f64, most as f64),
        deviation: variance.max(0.0).sqrt(),
    })
}

fn median(buckets: &[u64]) -> f64 {
    let all: u64 = buckets.iter().sum();
    // Of an even number of calls there are two in the middle.
    let [low, high] = [all.div_ceil(2), all / 2 + 1].map(|rank| {
        let mut before = 0;
        let reached = buckets.iter().position(|count| {
            before += count;
            before >= rank
        });
        middle_of(reached.unwrap_or(0))
    });
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_in_a_bucket_whose_middle_is_near() {
        let mut last = 0;
        for spent in (0..64).chain([100, 1000, 4095, 4096, 1 << 30, (1 << 40) + 12345]) {
            let bucket = bucket_of(spent);
            assert!(bucket >= last, "{spent}");
            last = bucket;
            let off = (middle_of(bucket) - spent as f64).abs();
            assert!(off <= spent as f64 / 16.0, "{spent}: {}", middle_of(bucket));
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn calls_of_all_threads_are_summed_and_tables_used_again() {
        const NUMBER: usize = COUNT - 1;
        let times = [100, 200, 300, 400, 1000];
        for spent in times {
            std::thread::spawn(move || note(NUMBER, spent))
                .join()
                .unwrap();
        }
        let found = of(NUMBER).unwrap();
        assert_eq!((found.count, found.total), (5, 2000));
        assert_eq!((found.least, found.most), (100, 1000));
        assert!((found.median - 300.0).abs() <= 300.0 / 16.0, "{found:?}");
        assert!((found.deviation - 353.55).abs() < 0.1, "{found:?}");
        note(NUMBER, 500);
        let found = of(NUMBER).unwrap();
        assert!((found.median - 350.0).abs() <= 350.0 / 16.0, "{found:?}");
        assert!(tables().all.len() < times.len());
        assert!(of(NUMBER - 1).is_none());
    }
}
