//! The private function tables.
//!
//! A table is an array of 8-byte words. Word 0 is the table's size in bytes (the context storage
//! table has none), functions follow. Slots that nobody was seen to call hold a function that
//! refuses: callers jump through slots without looking. Unknown tables are refused with
//! `CUDA_ERROR_INVALID_VALUE`; every client observed then takes another path.
//!
//! This file is unsafe by nature: its functions are called through untyped slots by code that
//! passes what it believes the slot takes.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;

use harp_cuda_abi::types::{
    CUcontext, CUdevice, CUfunction, CUmodule, CUresult, CUuuid, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_NOT_SUPPORTED, CUDA_SUCCESS,
};

use super::integrity::{answer, Circumstances};
use crate::context_storage::{self, Destructor};
use crate::front_driver::driver;
use crate::{context_stack, guard, lifecycle};

#[repr(transparent)]
struct Table<const WORDS: usize>([*const c_void; WORDS]);

// SAFETY: the words are sizes and addresses of functions, all constant.
unsafe impl<const WORDS: usize> Sync for Table<WORDS> {}

/// The address of a function as a table word.
macro_rules! slot {
    ($function:path) => {
        $function as *const c_void
    };
}

impl<const WORDS: usize> Table<WORDS> {
    /// A table with its size word whose slots all refuse, except those given.
    const fn new(functions: &[(usize, *const c_void)]) -> Self {
        let mut words = [slot!(refuse); WORDS];
        words[0] = ptr::without_provenance(WORDS * size_of::<*const c_void>());
        let mut next = 0;
        while next < functions.len() {
            words[functions[next].0] = functions[next].1;
            next += 1;
        }
        Self(words)
    }
}

static RUNTIME_INTERFACE: Table<13> = Table::new(&[
    (1, slot!(load_wrapper)),
    (2, slot!(primary_context)),
    (6, slot!(load_wrapper)),
    (7, slot!(nothing)),
    (8, slot!(load_fatbin)),
    (12, slot!(nothing)),
]);

static RUNTIME_CALLBACK_HOOKS: Table<7> = Table::new(&[
    (1, slot!(nothing)),
    (2, slot!(api_callback_flags)),
    (3, slot!(nothing)),
    (5, slot!(nothing)),
    (6, slot!(resource_callback_flags)),
]);

static TOOLS_THREAD: Table<4> = Table::new(&[
    (1, slot!(nothing)),
    (2, slot!(current_context)),
    (3, slot!(nothing)),
]);

/// No size word: three functions and a null.
static CONTEXT_STORAGE: Table<4> = Table([
    slot!(storage_put),
    slot!(storage_delete),
    slot!(storage_get),
    ptr::null(),
]);

static CONTEXT_CHECKS: Table<17> = Table::new(&[(2, slot!(context_check)), (3, slot!(nothing))]);

static INTEGRITY: Table<3> = Table::new(&[(1, slot!(integrity_check)), (2, slot!(nothing))]);

static TOOLS_CONTEXT: Table<95> = Table::new(&[
    (4, slot!(context_id)),
    (39, slot!(zero_third_argument)),
    (51, slot!(find_object)),
]);

static TOOLS_MODULE: Table<104> = Table::new(&[(7, slot!(each_function))]);

/// Table ids as the 16 bytes lie in memory, with the table's address.
static TABLES: [(u128, &(dyn TableAddress + Sync)); 8] = [
    (0x6bd5fb6c_5bf4e74a_8987d939_12fd9df9, &RUNTIME_INTERFACE),
    (
        0xa094798c_2e742e74_93f20800_200c0a66,
        &RUNTIME_CALLBACK_HOOKS,
    ),
    (0x42d85a81_23f6cb47_8298f6e7_8a3aecdc, &TOOLS_THREAD),
    (0xc693336e_1121df11_a8c368f3_55d89593, &CONTEXT_STORAGE),
    (0x263e8860_7cd26143_92f6bbd5_006dfa7e, &CONTEXT_CHECKS),
    (0xd4082055_bde6704b_8d34ba12_3c66e1f2, &INTEGRITY),
    (0x21318c60_97143248_8ca641ff_7324c8f2, &TOOLS_CONTEXT),
    (0x6e163fbe_b958444d_835ce182_aff1991e, &TOOLS_MODULE),
];

trait TableAddress {
    fn address(&self) -> *const c_void;
}

impl<const WORDS: usize> TableAddress for Table<WORDS> {
    fn address(&self) -> *const c_void {
        self.0.as_ptr().cast()
    }
}

/// `cuGetExportTable`: the table with this id.
///
/// # Safety
/// `table` is null or writable, `id` is null or readable.
pub unsafe fn export_table(table: *mut *const c_void, id: *const CUuuid) -> CUresult {
    if table.is_null() || id.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller's promise; an id is 16 bytes.
    let wanted = u128::from_be_bytes(unsafe { ptr::read_unaligned(id.cast::<[u8; 16]>()) });
    let found = TABLES.iter().find(|(id, _)| *id == wanted);
    // SAFETY: the caller's promise.
    unsafe { *table = found.map_or(ptr::null(), |(_, words)| words.address()) };
    if found.is_some() {
        CUDA_SUCCESS
    } else {
        CUDA_ERROR_INVALID_VALUE
    }
}

fn code(result: Result<(), CUresult>) -> CUresult {
    result.err().unwrap_or(CUDA_SUCCESS)
}

extern "C" fn refuse() -> CUresult {
    CUDA_ERROR_NOT_SUPPORTED
}

extern "C" fn nothing() -> CUresult {
    CUDA_SUCCESS
}

unsafe extern "C" fn load_wrapper(module: *mut CUmodule, wrapper: *const c_void) -> CUresult {
    guard("module load by table", || {
        if module.is_null() || wrapper.is_null() {
            return CUDA_ERROR_INVALID_VALUE;
        }
        let Some(driver) = driver() else {
            return CUDA_ERROR_NOT_INITIALIZED;
        };
        // SAFETY: the slot's first argument is an out pointer.
        code(
            driver
                .load_image(wrapper)
                .map(|loaded| unsafe { *module = loaded }),
        )
    })
}

unsafe extern "C" fn load_fatbin(fatbin: *const c_void, module: *mut CUmodule) -> CUresult {
    // SAFETY: the same arguments in the other order.
    unsafe { load_wrapper(module, fatbin) }
}

unsafe extern "C" fn primary_context(context: *mut CUcontext, device: CUdevice) -> CUresult {
    guard("primary context by table", || {
        let Some(driver) = driver() else {
            return CUDA_ERROR_NOT_INITIALIZED;
        };
        // SAFETY: the slot's first argument is an out pointer.
        code(
            driver
                .primary_context(device)
                .map(|handle| unsafe { *context = handle }),
        )
    })
}

/// Flags that a profiler would set to get API callbacks; the runtime keeps the address.
#[repr(transparent)]
struct Flags<const N: usize>(UnsafeCell<[u32; N]>);

// SAFETY: only foreign code touches the words, by its own rules.
unsafe impl<const N: usize> Sync for Flags<N> {}

static API_CALLBACK_FLAGS: Flags<1024> = Flags(UnsafeCell::new([0; 1024]));
static RESOURCE_CALLBACK_FLAGS: Flags<14> = Flags(UnsafeCell::new([0; 14]));

unsafe extern "C" fn api_callback_flags(flags: *mut *mut c_void, count: *mut usize) {
    // SAFETY: both arguments are out pointers.
    unsafe { hand_out(&API_CALLBACK_FLAGS, flags, count) };
}

unsafe extern "C" fn resource_callback_flags(flags: *mut *mut c_void, count: *mut usize) {
    // SAFETY: both arguments are out pointers.
    unsafe { hand_out(&RESOURCE_CALLBACK_FLAGS, flags, count) };
}

unsafe fn hand_out<const N: usize>(
    from: &'static Flags<N>,
    flags: *mut *mut c_void,
    count: *mut usize,
) {
    // SAFETY: the caller's out pointers.
    unsafe {
        *flags = from.0.get().cast();
        *count = N;
    }
}

unsafe extern "C" fn current_context(context: *mut CUcontext) -> CUresult {
    // SAFETY: the slot's argument is an out pointer.
    unsafe { *context = context_stack::current() };
    CUDA_SUCCESS
}

unsafe extern "C" fn storage_put(
    context: CUcontext,
    key: *mut c_void,
    value: *mut c_void,
    destructor: Option<Destructor>,
) -> CUresult {
    code(lifecycle::check().and_then(|()| context_storage::put(context, key, value, destructor)))
}

unsafe extern "C" fn storage_delete(context: CUcontext, key: *mut c_void) -> CUresult {
    code(lifecycle::check().and_then(|()| context_storage::delete(context, key)))
}

unsafe extern "C" fn storage_get(
    value: *mut *mut c_void,
    context: CUcontext,
    key: *mut c_void,
) -> CUresult {
    let found = lifecycle::check().and_then(|()| context_storage::get(context, key));
    // SAFETY: the slot's first argument is an out pointer.
    code(found.map(|found| unsafe { *value = found }))
}

unsafe extern "C" fn context_check(
    _context: CUcontext,
    flags: *mut u32,
    _detail: *mut *const c_void,
) -> CUresult {
    // SAFETY: the slot's second argument is an out pointer; the third stays untouched.
    unsafe { *flags = 0 };
    CUDA_SUCCESS
}

unsafe extern "C" fn integrity_check(
    version: u32,
    unix_seconds: u64,
    out: *mut [u64; 2],
) -> CUresult {
    guard("self-test", || {
        let Some(driver) = driver() else {
            return CUDA_ERROR_NOT_INITIALIZED;
        };
        let of = Circumstances {
            driver_version: driver.driver_version() as u32,
            process: std::process::id(),
            // SAFETY: has no preconditions.
            thread: unsafe { libc::pthread_self() } as u32,
            runtime_table: RUNTIME_INTERFACE.address() as u64,
            integrity_table: INTEGRITY.address() as u64,
            integrity_function: INTEGRITY.0[1] as u64,
            devices: &driver.devices(),
        };
        // SAFETY: the slot's third argument is an out pointer to 16 bytes.
        unsafe { *out = answer(version, unix_seconds, &of) };
        CUDA_SUCCESS
    })
}

unsafe extern "C" fn context_id(context: CUcontext, id: *mut u64) -> CUresult {
    guard("context id by table", || {
        let Some(driver) = driver() else {
            return CUDA_ERROR_NOT_INITIALIZED;
        };
        let context = if context.is_null() {
            context_stack::current()
        } else {
            context
        };
        // SAFETY: the slot's second argument is an out pointer.
        code(
            driver
                .context_id(context)
                .map(|number| unsafe { *id = number }),
        )
    })
}

unsafe extern "C" fn zero_third_argument(
    _: *const c_void,
    _: *const c_void,
    out: *mut u64,
) -> CUresult {
    if !out.is_null() {
        // SAFETY: the slot's third argument is an out pointer.
        unsafe { *out = 0 };
    }
    CUDA_SUCCESS
}

/// Looks an object up by key: there is none under any key, and all-ones is refused.
unsafe extern "C" fn find_object(_: *const c_void, key: usize, _: *mut *mut c_void) -> CUresult {
    if key == usize::MAX {
        return harp_cuda_abi::types::CUDA_ERROR_INVALID_HANDLE;
    }
    CUDA_SUCCESS
}

/// Calls `visit` for each function of a module and returns how many there are (not a code).
unsafe extern "C" fn each_function(
    _context: CUcontext,
    module: CUmodule,
    visit: Option<unsafe extern "C" fn(*mut c_void, CUfunction, u64)>,
    user: *mut c_void,
) -> u64 {
    let mut visited = 0;
    guard("functions of a module by table", || {
        let (Some(driver), Some(visit)) = (driver(), visit) else {
            return CUDA_ERROR_NOT_INITIALIZED;
        };
        code(driver.module_functions(module).map(|functions| {
            for function in functions {
                // SAFETY: the caller's own function with the caller's own argument.
                unsafe { visit(user, function, 0) };
                visited += 1;
            }
        }))
    });
    visited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(id: u128) -> Option<*const usize> {
        let bytes = id.to_be_bytes();
        let mut table = ptr::dangling();
        // SAFETY: both arguments are valid for the call.
        let result = unsafe { export_table(&mut table, bytes.as_ptr().cast()) };
        assert_eq!(result == CUDA_SUCCESS, !table.is_null());
        (result == CUDA_SUCCESS).then_some(table.cast())
    }

    #[test]
    fn every_table_says_its_size_and_has_no_empty_slot() {
        for (id, words) in [(TABLES[0].0, 13), (TABLES[4].0, 17), (TABLES[6].0, 95)] {
            let table = words_of(id).unwrap();
            // SAFETY: the table has as many words as its first one says.
            let all = unsafe { std::slice::from_raw_parts(table, words) };
            assert_eq!(all[0], 8 * words);
            assert!(all.iter().all(|word| *word != 0));
        }
    }

    #[test]
    fn context_storage_has_no_size_word_and_ends_with_null() {
        let table = words_of(TABLES[3].0).unwrap();
        // SAFETY: the table has four words.
        let all = unsafe { std::slice::from_raw_parts(table, 4) };
        assert_eq!(all[0], storage_put as *const () as usize);
        assert_eq!(all[3], 0);
    }

    #[test]
    fn unknown_tables_are_refused_with_null() {
        assert!(words_of(0xf8cff951_21468b4e_b9e2fb46_9e7c0dd9).is_none());
        assert!(words_of(0).is_none());
    }
}
