//! The memory of a ring, and the system calls around it.
//!
//! The bytes are mapped twice, one copy behind the other, so that a block that wraps around lies in
//! one piece.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;

/// The words before the bytes; a page, so that the bytes can be mapped by themselves.
const CONTROL_BYTES: usize = 4096;

const MAGIC_AT: usize = 0;
const HEAD_AT: usize = 64;
const TAIL_AT: usize = 128;
const WAKE_AT: usize = 192;
const LOST_BLOCKS_AT: usize = 256;
const LOST_BYTES_AT: usize = 264;
const LOST_KINDS_AT: usize = 272;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Memory for a ring of `capacity` bytes, all of it taken, which nobody can make smaller any more.
pub fn create_memory(capacity: usize) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a name of static life; the descriptor is new and nobody else's.
    let memory = unsafe {
        let descriptor = checked(libc::memfd_create(c"harp-trace".as_ptr(), flags))?;
        OwnedFd::from_raw_fd(descriptor)
    };
    let bytes = (CONTROL_BYTES + capacity) as libc::off_t;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: system calls on a descriptor that is held.
    unsafe {
        checked(libc::fallocate(memory.as_raw_fd(), 0, 0, bytes))?;
        checked(libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, seals))?;
    }
    Ok(memory)
}

/// The capacity of memory that somebody else has made, of whatever size.
///
/// # Errors
/// `InvalidData` if it could still be made smaller: reading what is gone would be a signal.
pub fn sealed_capacity(memory: BorrowedFd) -> io::Result<usize> {
    // SAFETY: a query on a descriptor that is held.
    let seals = checked(unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_GET_SEALS) });
    if seals.map_or(true, |seals| seals & libc::F_SEAL_SHRINK == 0) {
        let what = "the shared memory is not sealed";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    // SAFETY: `stat` is plain data, which the kernel fills in.
    let size = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        checked(libc::fstat(memory.as_raw_fd(), &mut stat))?;
        stat.st_size
    };
    Ok(usize::try_from(size)
        .unwrap_or(0)
        .saturating_sub(CONTROL_BYTES))
}

pub fn create_wake() -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new and nobody else's.
    unsafe {
        let descriptor = checked(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Whatever `file` is: reading it returns at once.
pub fn never_block(file: BorrowedFd) -> io::Result<()> {
    // SAFETY: system calls on a descriptor that is held.
    unsafe {
        let flags = checked(libc::fcntl(file.as_raw_fd(), libc::F_GETFL))?;
        let flags = flags | libc::O_NONBLOCK;
        checked(libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags))?;
    }
    Ok(())
}

pub fn signal(wake: BorrowedFd) {
    let one = 1u64.to_ne_bytes();
    // Not by `libc::write`, where a thread may be cancelled: the program's has locks of ours.
    // SAFETY: eight bytes that live. If it fails the reader is awake, or comes by itself.
    let _ = unsafe { libc::syscall(libc::SYS_write, wake.as_raw_fd(), one.as_ptr(), one.len()) };
}

pub fn clear(wake: BorrowedFd) {
    let mut count = [0u8; 8];
    // SAFETY: eight bytes that live. If it fails there was nothing to clear.
    let _ = unsafe { libc::read(wake.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// A ring's memory in this process.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    capacity: usize,
}

// SAFETY: the memory belongs to the mapping; its control words are atomics, and its bytes are written
// and read by whoever holds `Producer` or `Consumer`, one thread at a time.
unsafe impl Send for Mapping {}
// SAFETY: as above: shared references reach the control words only, or read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `memory`, which has the control words and `capacity` bytes, a power of two.
    pub fn new(memory: BorrowedFd, capacity: usize) -> io::Result<Mapping> {
        let whole = CONTROL_BYTES + 2 * capacity;
        let map = |at: *mut libc::c_void, bytes, protection, flags, file, offset| {
            // SAFETY: without MAP_FIXED a mapping takes no memory of anybody; with it, that which has
            // been reserved below.
            let mapped = unsafe { libc::mmap(at, bytes, protection, flags, file, offset) };
            match mapped == libc::MAP_FAILED {
                true => Err(io::Error::last_os_error()),
                false => Ok(mapped),
            }
        };
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let start = map(ptr::null_mut(), whole, libc::PROT_NONE, reserve, -1, 0)?;
        // From here on the reservation is given back by `drop`.
        let mapping = Mapping {
            start: start.cast(),
            capacity,
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let shared = libc::MAP_SHARED | libc::MAP_FIXED;
        let file = memory.as_raw_fd();
        map(start, CONTROL_BYTES + capacity, access, shared, file, 0)?;
        let second = mapping
            .start
            .wrapping_add(CONTROL_BYTES + capacity)
            .cast::<libc::c_void>();
        let offset = CONTROL_BYTES as libc::off_t;
        map(second, capacity, access, shared, file, offset)?;
        Ok(mapping)
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Has every page of the bytes at hand, rather than one after the other when it is first written.
    pub fn populate(&self) {
        let (start, bytes) = (self.at(0), self.capacity);
        // SAFETY: pages of this mapping, which stay as they are. A system that cannot do it does it later.
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_POPULATE_WRITE) };
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= CONTROL_BYTES);
        // SAFETY: an aligned word of the control page, which is mapped as long as `self` lives and is
        // reached by atomics only.
        unsafe { AtomicU64::from_ptr(self.start.add(at).cast()) }
    }

    pub fn magic(&self) -> &AtomicU64 {
        self.word(MAGIC_AT)
    }

    #[inline]
    pub fn head(&self) -> &AtomicU64 {
        self.word(HEAD_AT)
    }

    #[inline]
    pub fn tail(&self) -> &AtomicU64 {
        self.word(TAIL_AT)
    }

    #[inline]
    pub fn wake_at(&self) -> &AtomicU64 {
        self.word(WAKE_AT)
    }

    #[inline]
    pub fn lost_blocks(&self) -> &AtomicU64 {
        self.word(LOST_BLOCKS_AT)
    }

    pub fn lost_bytes(&self) -> &AtomicU64 {
        self.word(LOST_BYTES_AT)
    }

    pub fn lost_kinds(&self) -> &AtomicU64 {
        self.word(LOST_KINDS_AT)
    }

    /// Where byte `number` lies; at least `capacity` bytes from there on are mapped.
    #[inline]
    fn at(&self, number: u64) -> *mut u8 {
        let offset = number as usize & (self.capacity - 1);
        self.start.wrapping_add(CONTROL_BYTES + offset)
    }

    /// Has `bytes` from byte `number` on come near, to be written.
    #[inline]
    pub fn prefetch(&self, number: u64, bytes: usize) {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_ET0};
        const LINE: usize = 64;
        for at in (0..bytes.min(4 * LINE)).step_by(LINE) {
            // SAFETY: a hint, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(self.at(number + at as u64).cast()) };
        }
    }

    /// Copies `bytes` into the ring from byte `number` on.
    #[inline]
    pub fn write(&self, number: u64, bytes: &[u8]) {
        assert!(bytes.len() <= self.capacity);
        // SAFETY: `at` has room for `capacity` bytes, and these lie elsewhere. The reader does not
        // read what has not been published.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(number), bytes.len()) }
    }

    /// Copies bytes from byte `number` on out of the ring.
    #[inline]
    pub fn read(&self, number: u64, bytes: &mut [u8]) {
        assert!(bytes.len() <= self.capacity);
        // SAFETY: `at` has `capacity` bytes, which cannot be unmapped by the other side; `bytes` lie
        // elsewhere. A writer that changes them meanwhile makes the copy wrong, which is looked at
        // as any bytes.
        unsafe { ptr::copy_nonoverlapping(self.at(number), bytes.as_mut_ptr(), bytes.len()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody reaches any more.
        unsafe { libc::munmap(self.start.cast(), CONTROL_BYTES + 2 * self.capacity) };
    }
}
