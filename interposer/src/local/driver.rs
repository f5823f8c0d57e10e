//! The driver of local mode: a libcuda beside this one, in the same process.

use core::ffi::{c_void, CStr};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::entry::number_of;
use crate::generated::exports::{ADDRESSES, COUNT, NAMES};

/// The driver's own functions by number; null where it has none.
static FUNCTIONS: [AtomicPtr<c_void>; COUNT] = [const { AtomicPtr::new(null_mut()) }; COUNT];

/// The driver's function of this number, if it has one.
#[inline]
pub fn function(number: usize) -> Option<*mut c_void> {
    let function = FUNCTIONS[number].load(Ordering::Acquire);
    (!function.is_null()).then_some(function)
}

static IS_SOFT: AtomicBool = AtomicBool::new(false);

/// Whether it is a soft GPU, which itself names the calls that fail.
pub fn is_soft() -> bool {
    IS_SOFT.load(Ordering::Acquire)
}

/// Loads the driver, which stays loaded, and finds its functions; again is harmless.
///
/// # Errors
/// A clause that says what is wrong with the file.
pub fn load(path: &Path) -> Result<(), String> {
    let shown = path.display();
    // A name alone is that of a library that is there already, which would be this one.
    if !path.is_absolute() {
        return Err(format!("HARP_LIBCUDA={shown} is no absolute path"));
    }
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| "a path with NUL")?;
    // SAFETY: a C string; loading runs the library's constructors, which is what is asked for.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return Err(format!("cannot load {shown}: {}", last_error()));
    }
    // SAFETY: an open library and a C string.
    let mark = unsafe { libc::dlsym(library, c"harp_soft_move_windows".as_ptr()) };
    IS_SOFT.store(!mark.is_null(), Ordering::Release);
    for (number, name) in NAMES.iter().enumerate() {
        // SAFETY: an open library and a C string.
        let found = unsafe { libc::dlsym(library, name.as_ptr()) };
        if found == ADDRESSES.0[number].cast_mut() {
            return Err(format!("{shown} is HARP's own interposer and no driver"));
        }
        FUNCTIONS[number].store(found, Ordering::Release);
    }
    match number_of(b"cuInit").and_then(function) {
        Some(_) => Ok(()),
        None => Err(format!("{shown} is no CUDA driver: it has no cuInit")),
    }
}

fn last_error() -> String {
    // SAFETY: dlerror returns null or a C string that is good until this thread's next dl call.
    let error = unsafe { libc::dlerror() };
    if error.is_null() {
        return "unknown error".to_owned();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(error) }
        .to_string_lossy()
        .into_owned()
}
