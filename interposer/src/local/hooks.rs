//! What is told of every call in local mode: when it begins, and how it has ended.
//!
//! Without hooks every symbol leads straight to its function. [`attach`] has the symbols lead to
//! `generated::hooked` instead, where each call passes the hooks; those whose types are not known
//! (graphics) stay as they are.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use harp_cuda_abi::types::{CUresult, CUDA_SUCCESS};
use harp_driver_front::tell_failure;

use crate::entry::ENTRIES;
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

/// Two functions around every call, in the thread that makes it.
pub struct Hooks {
    /// Before the driver is called; what it returns is given to `leave`.
    pub enter: fn(Call) -> u64,
    /// After it has answered.
    pub leave: fn(Call, u64, CUresult),
}

/// `HARP_LOG=debug`: every call that does not succeed is named.
pub static FAILURES: Hooks = Hooks {
    enter: |_| 0,
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
        if super::driver::function(number).is_some() {
            ENTRIES[number].store(hooked.cast_mut(), Ordering::Release);
        }
    }
}

/// Makes one call between the hooks.
#[inline]
pub fn around(call: Call, make: impl FnOnce() -> CUresult) -> CUresult {
    let mut tokens = [0; MOST];
    for (place, token) in ATTACHED.iter().zip(&mut tokens) {
        match attached(place) {
            Some(hooks) => *token = (hooks.enter)(call),
            None => break,
        }
    }
    let code = make();
    for (place, token) in ATTACHED.iter().zip(tokens) {
        match attached(place) {
            Some(hooks) => (hooks.leave)(call, token, code),
            None => break,
        }
    }
    code
}

#[inline]
fn attached(place: &AtomicPtr<Hooks>) -> Option<&'static Hooks> {
    // SAFETY: null or what `attach` got, which lives for ever.
    unsafe { place.load(Ordering::Acquire).as_ref() }
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
