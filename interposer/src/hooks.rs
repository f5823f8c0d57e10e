//! What is told of every driver call: when it begins, and how it has ended.
//!
//! Without hooks every symbol leads straight to its function. [`attach`] has the symbols lead to
//! `generated::hooked` instead, where each call passes the hooks; those whose types are not known
//! (graphics) stay as they are.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use harp_cuda_abi::types::{CUresult, CUDA_SUCCESS};
use harp_driver_front::tell_failure;

use crate::clock::ticks;
use crate::entry::{bound, ENTRIES};
use crate::generated::exports::NAMES;
use crate::generated::hooked;

/// A driver call, by the number of its symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(pub u16);

impl Call {
    /// The name of the symbol that was called.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)].to_str().unwrap_or("?")
    }
}

/// When a call began and ended, in ticks of the [clock](crate::clock).
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub entered: u64,
    pub left: u64,
}

/// Two functions around every call, in the thread that makes it.
pub struct Hooks {
    /// Before the function is called, with the ticks at that moment.
    pub enter: fn(Call, u64),
    /// After it has answered.
    pub leave: fn(Call, Span, CUresult),
}

/// `HARP_LOG=debug` in local mode: every call that does not succeed is named.
pub static FAILURES: Hooks = Hooks {
    enter: |_, _| (),
    leave: |call, _, code| {
        if code != CUDA_SUCCESS {
            tell_failure(call.name(), code);
        }
    },
};

/// Most that may be attached.
const MOST: usize = 4;

static ATTACHED: [AtomicPtr<Hooks>; MOST] = [const { AtomicPtr::new(null_mut()) }; MOST];

/// Tells `hooks` of every call from now on; again is harmless. To be called once the symbols are bound.
pub fn attach(hooks: &'static Hooks) {
    let hooks: *mut Hooks = core::ptr::from_ref(hooks).cast_mut();
    for place in &ATTACHED {
        match place.compare_exchange(null_mut(), hooks, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(other) if other == hooks => break,
            Err(_) => {}
        }
    }
    for &(number, hooked) in &hooked::FUNCTIONS.0 {
        if !bound(number).is_null() {
            ENTRIES[number].store(hooked.cast_mut(), Ordering::Release);
        }
    }
}

/// Makes one call between the hooks.
#[inline]
pub fn around(call: Call, make: impl FnOnce() -> CUresult) -> CUresult {
    let entered = ticks();
    for hooks in attached() {
        (hooks.enter)(call, entered);
    }
    let code = make();
    let span = Span {
        entered,
        left: ticks(),
    };
    for hooks in attached() {
        (hooks.leave)(call, span, code);
    }
    code
}

#[inline]
fn attached() -> impl Iterator<Item = &'static Hooks> {
    // SAFETY: null or what `attach` got, which lives for ever.
    let hooks = |place: &AtomicPtr<Hooks>| unsafe { place.load(Ordering::Acquire).as_ref() };
    ATTACHED.iter().map_while(hooks)
}

/// Functions in ascending order of their symbols' numbers.
pub struct Numbered<const N: usize>(pub [(usize, *const c_void); N]);

// SAFETY: addresses of functions of this library, which are never written through.
unsafe impl<const N: usize> Sync for Numbered<N> {}

impl<const N: usize> Numbered<N> {
    /// The function of a symbol, if there is one here.
    pub fn of(&self, number: usize) -> Option<*const c_void> {
        let place = self.0.binary_search_by_key(&number, |(other, _)| *other);
        Some(self.0[place.ok()?].1)
    }
}
