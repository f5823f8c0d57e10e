//! Which addresses of this process are left to NVIDIA's driver.
//!
//! A program that uses the devices of several servers needs different addresses from each, and no driver can be told
//! where to put memory. But device memory has its addresses in the process's own space (unified virtual addressing),
//! where the driver takes what is free. So whatever is free outside of a window is mapped, inaccessible and without
//! memory behind it: device, page-locked, managed and pool memory then all lie in the window. The driver reserves 4 GiB
//! at 0x2_0000_0000 for its own use when it is initialised, so this comes after that (seen with driver 580.159.04).

use std::io;
use std::ops::Range;

/// Where a process may have mappings: 47 bits of addresses, without the lowest ones, which the kernel denies.
const ALL: Range<u64> = GRAIN..0x7fff_fff0_0000;
/// Free space is looked for in pieces of this many bytes. Device memory comes in pieces of twice as many, so what
/// stays free beside other mappings holds none.
const GRAIN: u64 = 1 << 20;
/// Left free below the stack, which grows: more than its usual limit.
const STACK_BYTES: u64 = 64 << 20;

/// The addresses that are left to the driver; all others are taken.
#[derive(Debug)]
pub struct AddressSpace {
    left: Range<u64>,
}

impl AddressSpace {
    /// Takes all free addresses but those of `left`. To be called on the main thread, whose stack may still grow.
    ///
    /// # Errors
    /// The system's, where it does not allow mappings of that size. Nothing is taken then.
    pub fn keep_to(left: Range<u64>) -> io::Result<Self> {
        let here = 0u8;
        let stack = (&raw const here).addr() as u64 / GRAIN * GRAIN;
        let parts = [
            ALL.start..left.start,
            left.end..stack - STACK_BYTES,
            stack..ALL.end,
        ];
        let mut taken = Vec::new();
        for part in parts {
            if let Err(error) = take_free(part, &mut taken) {
                taken.into_iter().for_each(give);
                return Err(error);
            }
        }
        Ok(Self { left })
    }

    /// Leaves `left` to the driver instead of what was left before. What lies there already stays. Both are of
    /// [`windows::REGION`](harp_wire::windows::REGION), where only this process's own has addresses.
    ///
    /// # Errors
    /// As [`AddressSpace::keep_to`].
    pub fn move_to(&mut self, left: Range<u64>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.left, left.clone());
        // First what is new, and apart from what is left as it is.
        for fresh in without(&left, &before) {
            give(fresh);
        }
        for old in without(&before, &left) {
            take_free(old, &mut Vec::new())?;
        }
        Ok(())
    }
}

/// `range` without what it has in common with `other`.
fn without(range: &Range<u64>, other: &Range<u64>) -> [Range<u64>; 2] {
    [
        range.start..range.end.min(other.start).max(range.start),
        range.start.max(other.end).min(range.end)..range.end,
    ]
}

/// Maps what is free of a range, and adds it to `taken`.
fn take_free(range: Range<u64>, taken: &mut Vec<Range<u64>>) -> io::Result<()> {
    let mut untried = vec![range];
    while let Some(range) = untried.pop() {
        if range.is_empty() {
            continue;
        }
        match take(range.clone()) {
            Ok(()) => taken.push(range),
            // Something is there: on with the halves.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                if is_mapped(&range) {
                    continue;
                }
                let half = (range.end - range.start) / 2 / GRAIN * GRAIN;
                if half > 0 {
                    untried.push(range.start..range.start + half);
                    untried.push(range.start + half..range.end);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the whole range is mapped.
fn is_mapped(range: &Range<u64>) -> bool {
    let bytes = (range.end - range.start) as usize;
    // SAFETY: with MS_ASYNC nothing is done but to see whether all of it is mapped (ENOMEM where it is not).
    unsafe { libc::msync(range.start as *mut libc::c_void, bytes, libc::MS_ASYNC) == 0 }
}

/// Maps a range where nothing is, inaccessible.
///
/// # Errors
/// `EEXIST` where something is; otherwise the system's.
pub fn take(range: Range<u64>) -> io::Result<()> {
    let wanted = range.start as *mut libc::c_void;
    let flags =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let bytes = (range.end - range.start) as usize;
    // SAFETY: MAP_FIXED_NOREPLACE touches no other mapping.
    let start = unsafe { libc::mmap(wanted, bytes, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if start != wanted {
        // A kernel that does not know the flag takes the address as a hint.
        // SAFETY: just mapped.
        unsafe { libc::munmap(start, bytes) };
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    Ok(())
}

/// Gives a range back that [`take`] has taken.
fn give(range: Range<u64>) {
    if !range.is_empty() {
        // SAFETY: inaccessible memory, which nothing can be using.
        unsafe {
            libc::munmap(
                range.start as *mut libc::c_void,
                (range.end - range.start) as usize,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harp_wire::windows::{REGION, SIZE};

    fn slot(number: u64) -> Range<u64> {
        REGION.start + number * SIZE..REGION.start + (number + 1) * SIZE
    }

    /// The address that the system gives to a mapping, which stays.
    fn mapped() -> u64 {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                64 << 20,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        start as u64
    }

    /// In a process of its own: nobody wants to run other tests with so few addresses.
    #[test]
    fn what_is_mapped_later_lies_in_the_window_and_then_in_the_next() {
        // SAFETY: the child makes system calls and allocates; no other thread of this process holds a lock of the
        // allocator's at a fork (glibc sees to that).
        let child = unsafe { libc::fork() };
        if child == 0 {
            let done = std::panic::catch_unwind(|| {
                let mut space = AddressSpace::keep_to(slot(3)).unwrap();
                assert!((0..20).all(|_| slot(3).contains(&mapped())));
                space.move_to(slot(5)).unwrap();
                assert!((0..20).all(|_| slot(5).contains(&mapped())));
                space.move_to(slot(5).start..slot(6).end).unwrap();
                space.move_to(slot(6)).unwrap();
                assert!((0..20).all(|_| slot(6).contains(&mapped())));
            });
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(done.is_err())) };
        }
        let mut status = 0;
        // SAFETY: waits for the child.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let range = slot(9);
        let middle = range.start + SIZE / 2 + GRAIN..range.start + SIZE / 2 + 2 * GRAIN;
        take(middle.clone()).unwrap();
        assert!(is_mapped(&middle) && !is_mapped(&range));
        let mut taken = Vec::new();
        take_free(range.clone(), &mut taken).unwrap();
        assert!(taken
            .iter()
            .all(|part| part.end <= middle.start || part.start >= middle.end));
        let bytes: u64 = taken.iter().map(|part| part.end - part.start).sum();
        assert_eq!(bytes, SIZE - GRAIN);
    }

    #[test]
    fn differences() {
        let parts = |a: Range<u64>, b: Range<u64>| {
            let parts = without(&a, &b).into_iter().filter(|part| !part.is_empty());
            parts.map(|part| (part.start, part.end)).collect::<Vec<_>>()
        };
        assert_eq!(parts(2..4, 6..8), [(2, 4)]);
        assert_eq!(parts(6..8, 2..4), [(6, 8)]);
        assert_eq!(parts(2..8, 4..6), [(2, 4), (6, 8)]);
        assert_eq!(parts(4..6, 2..8), []);
        assert_eq!(parts(2..6, 4..8), [(2, 4)]);
    }
}
