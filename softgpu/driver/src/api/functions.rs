//! Functions: attributes, names, parameters.

use core::ffi::c_char;
use std::sync::Arc;

use harp_cuda_abi::types::*;
use harp_softgpu_engine::Signature;

use crate::call::{call, out, set_if_wanted, Outcome};
use crate::context::Context;
use crate::function::{get_in, proper, Function};
use crate::module;

fn function(handle: CUfunction) -> Outcome<Arc<Function>> {
    get_in(handle, &Context::current()?)
}

/// A function that is no kernel.
fn proper_function(handle: CUfunction) -> Outcome<Arc<Function>> {
    Context::current()?;
    proper(handle)
}

pub unsafe fn cuFuncGetAttribute(
    value: *mut i32,
    attribute: CUfunction_attribute,
    handle: CUfunction,
) -> CUresult {
    call(|| {
        let value = out(value)?;
        value.set(proper_function(handle)?.attribute(attribute)?);
        Ok(())
    })
}

pub unsafe fn cuFuncSetAttribute(
    handle: CUfunction,
    attribute: CUfunction_attribute,
    value: i32,
) -> CUresult {
    call(|| proper_function(handle)?.set_attribute(attribute, value))
}

/// A hint of no effect here.
pub unsafe fn cuFuncSetCacheConfig(handle: CUfunction, config: CUfunc_cache) -> CUresult {
    call(|| {
        function(handle)?;
        if config > CU_FUNC_CACHE_PREFER_EQUAL {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Ok(())
    })
}

/// A hint of no effect here.
pub unsafe fn cuFuncSetSharedMemConfig(handle: CUfunction, config: CUsharedconfig) -> CUresult {
    call(|| {
        function(handle)?;
        if config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Ok(())
    })
}

pub unsafe fn cuFuncGetModule(handle: *mut CUmodule, of: CUfunction) -> CUresult {
    call(|| {
        let handle = out(handle)?;
        handle.set(module::handle(&proper_function(of)?.module()?));
        Ok(())
    })
}

/// The name lives as long as the function.
pub unsafe fn cuFuncGetName(name: *mut *const c_char, handle: CUfunction) -> CUresult {
    call(|| {
        let name = out(name)?;
        name.set(proper_function(handle)?.name.as_ptr());
        Ok(())
    })
}

/// Stores where parameter `index` lies.
pub(super) fn param_info(
    signature: &Signature,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> Outcome {
    let offset = out(offset)?;
    let param = signature
        .params
        .get(index)
        .ok_or(CUDA_ERROR_INVALID_VALUE)?;
    offset.set(param.offset as usize);
    set_if_wanted(size, param.size as usize);
    Ok(())
}

pub unsafe fn cuFuncGetParamInfo(
    handle: CUfunction,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    call(|| param_info(proper_function(handle)?.signature(), index, offset, size))
}

pub unsafe fn cuFuncGetParamCount(handle: CUfunction, count: *mut usize) -> CUresult {
    call(|| {
        let count = out(count)?;
        count.set(proper_function(handle)?.signature().params.len());
        Ok(())
    })
}

pub unsafe fn cuFuncIsLoaded(state: *mut CUfunctionLoadingState, handle: CUfunction) -> CUresult {
    call(|| {
        let state = out(state)?;
        let loaded = function(handle)?.is_loaded();
        state.set(if loaded {
            CU_FUNCTION_LOADING_STATE_LOADED
        } else {
            CU_FUNCTION_LOADING_STATE_UNLOADED
        });
        Ok(())
    })
}

pub unsafe fn cuFuncLoad(handle: CUfunction) -> CUresult {
    // What is wrong with a kernel is said when it is launched.
    call(|| {
        let decoded = function(handle)?.decode_now();
        decoded.map_err(|refusal| refusal.code)
    })
}
