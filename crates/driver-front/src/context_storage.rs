//! Values that a runtime keeps per context (`CONTEXT_LOCAL_STORAGE`).
//!
//! Every copy of the CUDA runtime keeps its own state under a key that is an address inside itself,
//! and looks it up at the start of nearly every call. The destructor given with a value runs when
//! its context is destroyed or reset.

use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use harp_cuda_abi::types::{
    CUcontext, CUresult, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE,
};

use crate::context_stack;

/// Runs when the value's context ends: context, key, value.
pub type Destructor = unsafe extern "C" fn(CUcontext, *mut c_void, *mut c_void);

struct Value {
    pointer: usize,
    destructor: Option<Destructor>,
}

/// Values by (context, key).
static VALUES: LazyLock<RwLock<HashMap<(usize, usize), Value>>> = LazyLock::new(RwLock::default);

/// Null and all-ones mean the current context.
fn resolve(context: CUcontext) -> Result<usize, CUresult> {
    let context = match context as usize {
        0 | usize::MAX => context_stack::current() as usize,
        other => other,
    };
    if context == 0 {
        Err(CUDA_ERROR_INVALID_CONTEXT)
    } else {
        Ok(context)
    }
}

/// Stores `value` under `key`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_CONTEXT` where no context is given and none is current.
pub fn put(
    context: CUcontext,
    key: *mut c_void,
    value: *mut c_void,
    destructor: Option<Destructor>,
) -> Result<(), CUresult> {
    let context = resolve(context)?;
    let value = Value {
        pointer: value as usize,
        destructor,
    };
    VALUES
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert((context, key as usize), value);
    Ok(())
}

/// The value under `key`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` where there is none, `CUDA_ERROR_INVALID_CONTEXT` as for [`put`].
pub fn get(context: CUcontext, key: *mut c_void) -> Result<*mut c_void, CUresult> {
    let context = resolve(context)?;
    let values = VALUES.read().unwrap_or_else(PoisonError::into_inner);
    let value = values
        .get(&(context, key as usize))
        .ok_or(CUDA_ERROR_INVALID_HANDLE)?;
    Ok(value.pointer as *mut c_void)
}

/// Forgets the value under `key` without running its destructor.
///
/// # Errors
/// As for [`get`].
pub fn delete(context: CUcontext, key: *mut c_void) -> Result<(), CUresult> {
    let context = resolve(context)?;
    let mut values = VALUES.write().unwrap_or_else(PoisonError::into_inner);
    values
        .remove(&(context, key as usize))
        .map(|_| ())
        .ok_or(CUDA_ERROR_INVALID_HANDLE)
}

/// Ends every value of a destroyed or reset context. Destructors run without a lock: they call back.
#[allow(clippy::not_unsafe_ptr_arg_deref)] // the handle is handed back, never followed
pub fn context_ended(context: CUcontext) {
    let mut ended = Vec::new();
    VALUES
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|(owner, key), value| {
            if *owner != context as usize {
                return true;
            }
            ended.push((*key, value.pointer, value.destructor));
            false
        });
    for (key, pointer, destructor) in ended {
        if let Some(destructor) = destructor {
            // SAFETY: the runtime registered this function for exactly these arguments.
            unsafe { destructor(context, key as *mut c_void, pointer as *mut c_void) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn count(context: CUcontext, key: *mut c_void, value: *mut c_void) {
        assert_eq!(context as usize, 0x70);
        ENDED.fetch_add(key as usize + value as usize, Ordering::Relaxed);
        assert_eq!(get(context, key), Err(CUDA_ERROR_INVALID_HANDLE));
    }

    #[test]
    fn values_end_with_their_context() {
        let (context, other) = (0x70 as CUcontext, 0x71 as CUcontext);
        let key = |n: usize| n as *mut c_void;
        assert_eq!(
            get(core::ptr::null_mut(), key(1)),
            Err(CUDA_ERROR_INVALID_CONTEXT)
        );
        context_stack::push(context);
        put(core::ptr::null_mut(), key(1), key(10), Some(count)).unwrap();
        put(usize::MAX as CUcontext, key(2), key(20), None).unwrap();
        put(other, key(1), key(30), Some(count)).unwrap();
        assert_eq!(get(context, key(1)), Ok(key(10)));
        assert_eq!(get(core::ptr::null_mut(), key(2)), Ok(key(20)));
        delete(context, key(2)).unwrap();
        assert_eq!(get(context, key(2)), Err(CUDA_ERROR_INVALID_HANDLE));
        context_ended(context);
        assert_eq!(ENDED.load(Ordering::Relaxed), 11);
        assert_eq!(get(other, key(1)), Ok(key(30)));
        context_stack::pop();
    }
}
