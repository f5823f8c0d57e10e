//! Functions of modules and kernels of libraries: what the server said of them at look-up answers
//! their attributes and lays out their parameters.

use std::ffi::{c_char, c_int, CString};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use harp_cuda_abi::types::*;
use harp_driver_front::runtime_codes::no_function;
use harp_wire::{FunctionInfo, HandleKind, Parameter};

use super::outputs::{put, put_if_wanted};
use crate::generated::forward;
use crate::session::{handles, session};

/// `CUfunction_attribute` values that a server reports.
const ATTRIBUTES: usize = 16;
/// The value that stands for an attribute the driver refused.
const MISSING: i32 = i32::MIN;

/// What the client knows of a function or a kernel.
pub struct Function {
    pub name: CString,
    /// The module or library it came from.
    pub owner: u64,
    /// Its image is the CUDA runtime's, which has codes of its own for some mistakes.
    pub of_runtime: bool,
    pub info: FunctionInfo,
    /// Its first launch has succeeded: what can go wrong at a launch is known from here on.
    pub launched: AtomicBool,
    /// As reported, and changed by `cuFuncSetAttribute`.
    attributes: [AtomicI32; ATTRIBUTES],
}

impl Function {
    fn new(name: CString, owner: u64, of_runtime: bool, info: FunctionInfo) -> Function {
        let attributes = std::array::from_fn(|index| {
            AtomicI32::new(info.attributes.get(index).copied().unwrap_or(MISSING))
        });
        Function {
            name,
            owner,
            of_runtime,
            info,
            launched: AtomicBool::new(false),
            attributes,
        }
    }

    /// An attribute's value, if the driver has it.
    pub fn attribute(&self, number: CUfunction_attribute) -> Option<i32> {
        let value = self
            .attributes
            .get(number as usize)?
            .load(Ordering::Relaxed);
        (value != MISSING).then_some(value)
    }

    /// The bytes that its parameters take, laid out.
    pub fn param_bytes(&self) -> usize {
        let end = |param: &Parameter| param.offset as usize + param.size as usize;
        self.info.params.iter().map(end).max().unwrap_or(0)
    }
}

/// A function or kernel handle, and what is known of it.
pub fn known(raw: CUfunction) -> Result<(u64, &'static Function), CUresult> {
    let id = handles::live_function(raw)?;
    // SAFETY: handles of both kinds are given a Function when they are made.
    let function = unsafe { handles::attached::<Function>(id) };
    function
        .map(|function| (id, function))
        .ok_or(CUDA_ERROR_INVALID_HANDLE)
}

/// Gives a fresh handle what the server said of it.
pub fn attach(id: u64, name: CString, owner: u64, of_runtime: bool, info: FunctionInfo) {
    handles::attach(id, Function::new(name, owner, of_runtime, info));
}

fn with(raw: CUfunction, act: impl FnOnce(u64, &'static Function) -> CUresult) -> CUresult {
    match session().and_then(|_| known(raw)) {
        Ok((id, function)) => act(id, function),
        Err(code) => code,
    }
}

pub unsafe fn cuFuncGetAttribute(
    value: *mut c_int,
    attribute: CUfunction_attribute,
    function: CUfunction,
) -> CUresult {
    with(function, |_, function| {
        match function.attribute(attribute) {
            Some(known) => unsafe { put(value, known) },
            None => CUDA_ERROR_INVALID_VALUE,
        }
    })
}

pub unsafe fn cuFuncSetAttribute(
    function: CUfunction,
    attribute: CUfunction_attribute,
    value: c_int,
) -> CUresult {
    with(function, |_, known| {
        let status = unsafe { forward::cuFuncSetAttribute(function, attribute, value) };
        if status == CUDA_SUCCESS {
            if let Some(slot) = known.attributes.get(attribute as usize) {
                slot.store(value, Ordering::Relaxed);
            }
        }
        status
    })
}

pub unsafe fn cuKernelGetAttribute(
    value: *mut c_int,
    attribute: CUfunction_attribute,
    kernel: CUkernel,
    dev: CUdevice,
) -> CUresult {
    let _ = dev;
    unsafe { cuFuncGetAttribute(value, attribute, kernel.cast()) }
}

pub unsafe fn cuKernelSetAttribute(
    attribute: CUfunction_attribute,
    value: c_int,
    kernel: CUkernel,
    dev: CUdevice,
) -> CUresult {
    let _ = dev;
    unsafe { cuFuncSetAttribute(kernel.cast(), attribute, value) }
}

pub unsafe fn cuFuncSetCacheConfig(function: CUfunction, config: CUfunc_cache) -> CUresult {
    // A preference that no program can observe.
    let _ = config;
    with(function, |_, _| CUDA_SUCCESS)
}

pub unsafe fn cuKernelSetCacheConfig(
    kernel: CUkernel,
    config: CUfunc_cache,
    dev: CUdevice,
) -> CUresult {
    let _ = dev;
    unsafe { cuFuncSetCacheConfig(kernel.cast(), config) }
}

pub unsafe fn cuFuncSetSharedMemConfig(function: CUfunction, config: CUsharedconfig) -> CUresult {
    let _ = config;
    with(function, |_, _| CUDA_SUCCESS)
}

pub unsafe fn cuFuncGetParamInfo(
    function: CUfunction,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    with(function, |_, function| {
        match function.info.params.get(index) {
            Some(param) => unsafe {
                put_if_wanted(size, param.size as usize);
                put(offset, param.offset as usize)
            },
            None => CUDA_ERROR_INVALID_VALUE,
        }
    })
}

pub unsafe fn cuKernelGetParamInfo(
    kernel: CUkernel,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    unsafe { cuFuncGetParamInfo(kernel.cast(), index, offset, size) }
}

pub unsafe fn cuFuncGetParamCount(function: CUfunction, count: *mut usize) -> CUresult {
    with(function, |_, function| unsafe {
        put(count, function.info.params.len())
    })
}

pub unsafe fn cuKernelGetParamCount(kernel: CUkernel, count: *mut usize) -> CUresult {
    unsafe { cuFuncGetParamCount(kernel.cast(), count) }
}

pub unsafe fn cuFuncGetName(name: *mut *const c_char, function: CUfunction) -> CUresult {
    with(function, |_, function| unsafe {
        put(name, function.name.as_ptr())
    })
}

pub unsafe fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) -> CUresult {
    unsafe { cuFuncGetName(name, kernel.cast()) }
}

pub unsafe fn cuFuncGetModule(module: *mut CUmodule, function: CUfunction) -> CUresult {
    with(function, |_, function| {
        let owner = function.owner as *mut std::ffi::c_void;
        match handles::live(HandleKind::Module, owner) {
            Ok(id) => unsafe { put(module, id as CUmodule) },
            Err(_) => unsafe { crate::api::cuLibraryGetModule(module, owner.cast()) },
        }
    })
}

pub unsafe fn cuKernelGetLibrary(library: *mut CUlibrary, kernel: CUkernel) -> CUresult {
    with(kernel.cast(), |_, function| unsafe {
        put(library, function.owner as CUlibrary)
    })
}

pub unsafe fn cuKernelGetFunction(function: *mut CUfunction, kernel: CUkernel) -> CUresult {
    // The kernel's own handle serves as its function in the current context: programs that pass a
    // CUkernel for a CUfunction rely on that already.
    match session().and_then(|_| known(kernel.cast())) {
        Ok((id, _)) => unsafe { put(function, id as CUfunction) },
        Err(CUDA_ERROR_INVALID_HANDLE) => no_function(kernel as usize),
        Err(code) => code,
    }
}

pub unsafe fn cuFuncIsLoaded(state: *mut CUfunctionLoadingState, function: CUfunction) -> CUresult {
    with(function, |_, function| {
        let loaded = function.launched.load(Ordering::Relaxed);
        unsafe {
            put(
                state,
                if loaded {
                    CU_FUNCTION_LOADING_STATE_LOADED
                } else {
                    CU_FUNCTION_LOADING_STATE_UNLOADED
                },
            )
        }
    })
}

pub unsafe fn cuFuncLoad(function: CUfunction) -> CUresult {
    // The server loaded it when it was looked up.
    with(function, |_, _| CUDA_SUCCESS)
}
