//! The worker's side of memory that kernels share with the program (`harp_wire::twin`).
//!
//! A twin is page-locked memory of this process at the address that the program's memory has, so that pointers mean
//! the same on both sides and kernels reach it as they reach any mapped host memory.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;

use harp_cuda_abi::types::*;
use harp_wire::twin::{collect, is_place, lines, REGION};

use super::Violation;
use crate::address_space::take;
use crate::generated::driver::Driver;

/// Bytes that a session's twins may have together.
const MOST_BYTES: u64 = 4 << 30;
/// Twins that a session may have.
const MOST: usize = 1 << 16;
/// A reply carries about this many bytes of changes; the client asks again for the rest.
const REPLY_BYTES: usize = 1 << 20;

/// The twins of a session by their first address.
#[derive(Default)]
pub struct Twins {
    all: BTreeMap<u64, Twin>,
    bytes: u64,
}

struct Twin {
    memory: Mapping,
    /// The context that it was made in.
    context: CUcontext,
    /// What both sides agreed on last.
    shadow: Vec<u8>,
}

/// Memory mapped at an address of the client's choice.
struct Mapping {
    start: *mut c_void,
    bytes: usize,
}

// SAFETY: the memory is this process's and stays mapped as long as the value.
unsafe impl Send for Mapping {}
// SAFETY: contexts are opaque values for the driver, which takes them on any thread.
unsafe impl Send for Twin {}

impl Mapping {
    /// Maps zeroed memory in the region of twins, of which [`Twins`] knows that nothing is there.
    fn at(base: u64, bytes: u64) -> Option<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (wanted, bytes) = (base as *mut c_void, bytes as usize);
        // SAFETY: replaces addresses that this process has taken for twins (`reserve`) and has no other twin at.
        let start = unsafe { libc::mmap(wanted, bytes, access, FLAGS, -1, 0) };
        (start != libc::MAP_FAILED).then_some(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // The addresses stay taken: the driver may have nothing there.
        // SAFETY: mapped by `at`, and nothing uses it any more.
        unsafe { libc::mmap(self.start, self.bytes, libc::PROT_NONE, FLAGS, -1, 0) };
    }
}

const FLAGS: libc::c_int =
    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;

/// Takes the addresses of twins, so that they are free for them whenever a client wants some.
///
/// # Errors
/// The system's, where there is something in that region or it allows no mapping of that size.
pub fn reserve() -> io::Result<()> {
    take(REGION)
}

impl Twins {
    /// Makes a twin of `bytes` zeros in `context`, which is current.
    pub fn create(
        &mut self,
        driver: &Driver,
        context: CUcontext,
        base: u64,
        bytes: u64,
    ) -> Result<CUresult, Violation> {
        if !is_place(base, bytes) {
            return Err(Violation::new("a twin outside the addresses for twins"));
        }
        if bytes > MOST_BYTES - self.bytes || self.all.len() == MOST {
            return Ok(CUDA_ERROR_OUT_OF_MEMORY);
        }
        if self.has_some_in(base, bytes) {
            return Ok(CUDA_ERROR_OUT_OF_MEMORY);
        }
        let Some(memory) = Mapping::at(base, bytes) else {
            return Ok(CUDA_ERROR_OUT_OF_MEMORY);
        };
        let flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the memory was just mapped and is unregistered before it goes.
        let status = unsafe { (driver.cuMemHostRegister_v2)(memory.start, memory.bytes, flags) };
        if status != CUDA_SUCCESS {
            return Ok(status);
        }
        let mut seen = 0;
        // SAFETY: the driver knows the memory.
        let status = unsafe { (driver.cuMemHostGetDevicePointer_v2)(&mut seen, memory.start, 0) };
        if status != CUDA_SUCCESS || seen != base {
            unregister(driver, &memory);
            return Ok(CUDA_ERROR_NOT_SUPPORTED);
        }
        let shadow = vec![0; memory.bytes];
        let twin = Twin {
            memory,
            context,
            shadow,
        };
        self.all.insert(base, twin);
        self.bytes += bytes;
        Ok(CUDA_SUCCESS)
    }

    fn has_some_in(&self, base: u64, bytes: u64) -> bool {
        let before = self.all.range(..base + bytes).next_back();
        before.is_some_and(|(start, twin)| start + twin.memory.bytes as u64 > base)
    }

    /// Ends a twin, in the context that it was made in, which is the driver's current one afterwards. The client has
    /// waited for the work that may use it.
    pub fn destroy(&mut self, driver: &Driver, base: u64) -> Result<CUresult, Violation> {
        let twin = self
            .all
            .remove(&base)
            .ok_or_else(|| Violation::new("a twin that was never made"))?;
        self.bytes -= twin.memory.bytes as u64;
        // SAFETY: the driver's own, or none; it refuses one that has ended.
        unsafe { (driver.cuCtxSetCurrent)(twin.context) };
        unregister(driver, &twin.memory);
        Ok(CUDA_SUCCESS)
    }

    /// Stores what the program has changed.
    pub fn write(&mut self, changed: &[u8]) -> Result<(), Violation> {
        for line in lines(changed) {
            let line = line.ok_or_else(|| Violation::new("malformed changes of a twin"))?;
            let outside = || Violation::new("changes outside of every twin");
            let found = self.all.range_mut(..=line.address).next_back();
            let (base, twin) = found.ok_or_else(outside)?;
            for (address, byte) in line.bytes() {
                // Addresses of a line wrap around, so that the difference may do so too.
                let offset = address.wrapping_sub(*base) as usize;
                *twin.shadow.get_mut(offset).ok_or_else(outside)? = byte;
                // SAFETY: within the mapping, which is as long as the shadow. Kernels may use it at the same time.
                unsafe {
                    twin.memory
                        .start
                        .cast::<u8>()
                        .add(offset)
                        .write_volatile(byte)
                };
            }
        }
        Ok(())
    }

    /// What the device has changed from address `cursor` on, and where to go on: 0 when that was all.
    pub fn read(&mut self, cursor: u64) -> (u64, Vec<u8>) {
        let mut changed = Vec::new();
        let at_cursor = self.all.range(..=cursor).next_back();
        let first = at_cursor.map_or(cursor, |(base, _)| *base);
        for (base, twin) in self.all.range_mut(first..) {
            let from = (cursor.saturating_sub(*base)).min(twin.memory.bytes as u64) as usize;
            if from == twin.memory.bytes {
                continue;
            }
            let memory = twin.memory.start.cast::<u8>().cast_const();
            // SAFETY: the shadow is as long as the mapping.
            let reached = unsafe {
                collect(
                    memory,
                    *base,
                    &mut twin.shadow,
                    from,
                    REPLY_BYTES,
                    &mut changed,
                )
            };
            if reached < twin.memory.bytes {
                return (base + reached as u64, changed);
            }
        }
        (0, changed)
    }
}

fn unregister(driver: &Driver, memory: &Mapping) {
    // SAFETY: registered by `create`. Where its context has ended, so has the registration.
    unsafe { (driver.cuMemHostUnregister)(memory.start) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use harp_wire::twin::PAGE;

    fn twins(base: u64, bytes: u64) -> Twins {
        let memory = Mapping::at(base, bytes).unwrap();
        let shadow = vec![0; memory.bytes];
        Twins {
            all: [(
                base,
                Twin {
                    memory,
                    context: std::ptr::null_mut(),
                    shadow,
                },
            )]
            .into(),
            bytes,
        }
    }

    fn line(address: u64, byte: u8) -> Vec<u8> {
        let mut changed = address.to_le_bytes().to_vec();
        changed.extend(1u64.to_le_bytes());
        changed.push(byte);
        changed
    }

    #[test]
    fn what_the_program_writes_is_not_told_back_and_what_the_device_writes_is() {
        let base = REGION.start + (1 << 30);
        let mut twins = twins(base, 2 * PAGE);
        twins.write(&line(base + 5, 7)).unwrap();
        assert_eq!(twins.read(0), (0, vec![]));
        let memory = twins.all[&base].memory.start.cast::<u8>();
        // SAFETY: mapped.
        unsafe {
            assert_eq!(*memory.add(5), 7);
            *memory.add(PAGE as usize) = 9;
        }
        assert_eq!(twins.read(0), (0, line(base + PAGE, 9)));
        assert_eq!(twins.read(0), (0, vec![]));
    }

    #[test]
    fn changes_elsewhere_are_violations() {
        let base = REGION.start + (2 << 30);
        let mut twins = twins(base, PAGE);
        for address in [0, base - 1, base + PAGE, u64::MAX] {
            assert!(twins.write(&line(address, 1)).is_err(), "{address:#x}");
        }
        assert!(twins.write(&[0; 5]).is_err());
    }

    #[test]
    fn an_occupied_place_is_not_taken() {
        let base = REGION.start + (3 << 30);
        let twins = twins(base, 2 * PAGE);
        for (start, bytes) in [(base, PAGE), (base - PAGE, 2 * PAGE), (base + PAGE, PAGE)] {
            assert!(twins.has_some_in(start, bytes), "{start:#x}");
        }
        assert!(!twins.has_some_in(base - PAGE, PAGE) && !twins.has_some_in(base + 2 * PAGE, PAGE));
    }
}
