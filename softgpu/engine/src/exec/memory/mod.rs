//! Memory as instructions see it: areas, range checks, loads, stores, atomics.
//!
//! Unsafe by nature: device addresses are addresses of this process. What makes it sound is that
//! no address is used before [`place`] found it inside an allocation of the device, the block's
//! shared memory, or the thread's own local memory. Several OS threads run blocks of one grid, so
//! that a kernel with a data race has one here too: such accesses are plain machine loads and
//! stores of single elements, and no reference to device memory is ever made.

mod atomic;
mod chunk;
mod copy;
mod known;
mod place;
mod transfer;

use std::sync::atomic::{fence as memory_fence, Ordering};

use super::inst::{BlockFn, Inst};
use super::machine::Machine;

pub use atomic::{atomic, AtomicOp, AtomicType};
pub use copy::copy_async;
pub use known::Known;
pub use place::{copy_out, lanes_of, text_at, CachedRange};

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Global and constant memory: addresses of this process.
    Global,
    /// Offsets in the block's shared memory.
    Shared,
    /// Offsets in the thread's local memory.
    Local,
    /// Addresses of any of these, and of the kernel's parameters.
    Generic,
}

/// One element of an access: its size in memory, and how it fills a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    bytes: u8,
    signed: bool,
    wide: bool,
}

impl Element {
    /// 32 bits in a 32-bit register.
    pub const WORD: Element = Element {
        bytes: 4,
        signed: false,
        wide: false,
    };
    /// 64 bits in a 64-bit register.
    pub const DOUBLE: Element = Element {
        bytes: 8,
        signed: false,
        wide: true,
    };

    /// An element of `bytes` in a register of 64 bits (`wide`) or 32; `None` if it does not fit.
    pub fn new(bytes: u32, signed: bool, wide: bool) -> Option<Element> {
        match (bytes, wide) {
            (1 | 2, _) | (4, true) => Some(Element {
                bytes: bytes as u8,
                signed,
                wide,
            }),
            (4, false) => Some(Element::WORD),
            (8, true) => Some(Element::DOUBLE),
            _ => None,
        }
    }
}

/// The operation that loads `count` (1, 2 or 4) elements to operands `d`, `b`, `c`, `e`.
pub fn load(area: Area, element: Element, count: usize) -> BlockFn {
    transfer::select(area, element, count, transfer::Direction::Load)
}

/// The operation that stores `count` (1, 2 or 4) elements from operands `d`, `b`, `c`, `e`.
pub fn store(area: Area, element: Element, count: usize) -> BlockFn {
    let element = Element {
        signed: false,
        ..element
    };
    transfer::select(area, element, count, transfer::Direction::Store)
}

/// `membar`, `fence`: everything before is visible to other OS threads before what follows.
///
/// # Safety
/// As for [`BlockFn`].
pub unsafe fn fence(_: &mut Machine<'_>, _: &Inst) -> bool {
    memory_fence(Ordering::SeqCst);
    true
}
