//! Where the C symbols lead. Each jumps through its place in [`ENTRIES`], which is bound at the
//! first call of any: to the functions of the pool, or in local mode to those of a driver in this
//! process. What stands between a program and its function is this one jump.

use core::arch::naked_asm;
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use harp_driver_front::threads::Uncancelled;

use crate::generated::exports::{COUNT, NAMES};
use crate::generated::remote;
use crate::session::settings::settings;
use crate::{hooks, local, profile, recording};

/// The function that each symbol leads to, by the symbol's number.
pub static ENTRIES: [AtomicPtr<c_void>; COUNT] =
    [const { AtomicPtr::new(first as *mut c_void) }; COUNT];

/// What each symbol leads to where no hooks are in between; null where it leads to nothing that has its types.
static BOUND: [AtomicPtr<c_void>; COUNT] = [const { AtomicPtr::new(null_mut()) }; COUNT];

/// The function that a symbol leads to, past the hooks; only of symbols that were bound.
#[inline]
pub fn bound(number: usize) -> *mut c_void {
    BOUND[number].load(Ordering::Acquire)
}

/// The number of a symbol.
pub fn number_of(name: &[u8]) -> Option<usize> {
    NAMES
        .binary_search_by(|other| other.to_bytes().cmp(name))
        .ok()
}

/// Has a symbol lead to a function of its types.
///
/// Each place is written once with what it is to hold: threads that bind at the same time write the same.
pub fn lead(number: usize, function: *mut c_void) {
    BOUND[number].store(function, Ordering::Release);
    ENTRIES[number].store(function, Ordering::Release);
}

/// Where all symbols lead until they are bound: binds them and goes on to the function, with the
/// arguments as they came.
#[unsafe(naked)]
unsafe extern "C" fn first() {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push rax", // the number of vector registers that a call with variable arguments uses
        "push r11",
        "sub rsp, 128",
        "movups [rsp], xmm0",
        "movups [rsp + 16], xmm1",
        "movups [rsp + 32], xmm2",
        "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4",
        "movups [rsp + 80], xmm5",
        "movups [rsp + 96], xmm6",
        "movups [rsp + 112], xmm7",
        "mov rdi, r11",
        "call {bind}",
        "mov r10, rax",
        "movups xmm0, [rsp]",
        "movups xmm1, [rsp + 16]",
        "movups xmm2, [rsp + 32]",
        "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]",
        "movups xmm5, [rsp + 80]",
        "movups xmm6, [rsp + 96]",
        "movups xmm7, [rsp + 112]",
        "add rsp, 128",
        "pop r11",
        "pop rax",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "jmp r10",
        ".cfi_endproc",
        bind = sym bind,
    )
}

/// Binds every symbol, and returns what the one of this number leads to. Threads that come at once
/// each do it, with the same outcome: a lock would be lost in a child that is forked meanwhile.
extern "C" fn bind(number: usize) -> *mut c_void {
    let _uncancelled = Uncancelled::new();
    match &settings().libcuda {
        None => {
            for (number, function) in remote::FUNCTIONS.0.iter().enumerate() {
                lead(number, function.cast_mut());
            }
            if settings().print_profile {
                profile::begin();
            }
            if settings().trace_socket.is_some() {
                hooks::attach(&recording::HOOKS);
            }
        }
        Some(path) => local::bind(path),
    }
    ENTRIES[number].load(Ordering::Acquire)
}
