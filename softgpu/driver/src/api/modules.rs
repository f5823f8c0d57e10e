//! Modules.

use core::ffi::{c_char, c_void};

use harp_cuda_abi::types::*;

use crate::call::{call, call_and_show, out, set_if_wanted, text, Outcome};
use crate::context::Context;
use crate::jit_options::JitOptions;
use crate::module::{self, Module, MODULES};

/// Reads a file of device code; text gets the NUL that ends it in memory.
pub(super) fn read_file(path: &str) -> Outcome<Vec<u8>> {
    let mut image = std::fs::read(path).map_err(|_| CUDA_ERROR_FILE_NOT_FOUND)?;
    image.push(0);
    Ok(image)
}

pub unsafe fn cuModuleLoad(module: *mut CUmodule, path: *const c_char) -> CUresult {
    call_and_show(|| {
        let module = out(module)?;
        let image = read_file(unsafe { text(path)? })?;
        module.set(unsafe { module::load_in_memory(image.as_ptr().cast())? });
        Ok(())
    })
}

pub unsafe fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> CUresult {
    unsafe {
        cuModuleLoadDataEx(
            module,
            image,
            0,
            core::ptr::null_mut(),
            core::ptr::null_mut(),
        )
    }
}

pub unsafe fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    num_options: u32,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
) -> CUresult {
    call_and_show(|| {
        let module = out(module)?;
        if image.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let options = unsafe { JitOptions::new(num_options, options, values) };
        match unsafe { module::try_load_in_memory(image)? } {
            Ok(loaded) => {
                options.report("");
                module.set(loaded);
                Ok(())
            }
            Err(refusal) => {
                options.report(&refusal.words);
                Err(refusal.tell())
            }
        }
    })
}

pub unsafe fn cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void) -> CUresult {
    unsafe { cuModuleLoadData(module, image) }
}

pub unsafe fn cuModuleUnload(handle: CUmodule) -> CUresult {
    call_and_show(|| {
        Context::current()?;
        MODULES
            .remove(handle)
            .ok_or(CUDA_ERROR_INVALID_HANDLE)?
            .end();
        Ok(())
    })
}

/// Kernels are decoded when they are first needed, whatever `CUDA_MODULE_LOADING` says.
pub unsafe fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode) -> CUresult {
    call(|| {
        out(mode)?.set(CU_MODULE_LAZY_LOADING);
        Ok(())
    })
}

pub unsafe fn cuModuleGetFunction(
    function: *mut CUfunction,
    handle: CUmodule,
    name: *const c_char,
) -> CUresult {
    call(|| {
        let function = out(function)?;
        let module = module_for(handle)?;
        function.set(module.function(unsafe { text(name)? })?.handle());
        Ok(())
    })
}

fn module_for(handle: CUmodule) -> Outcome<std::sync::Arc<Module>> {
    Context::current()?;
    module::get(handle)
}

pub unsafe fn cuModuleGetFunctionCount(count: *mut u32, handle: CUmodule) -> CUresult {
    call(|| {
        let count = out(count)?;
        count.set(module_for(handle)?.kernel_names().len() as u32);
        Ok(())
    })
}

pub unsafe fn cuModuleEnumerateFunctions(
    functions: *mut CUfunction,
    count: u32,
    handle: CUmodule,
) -> CUresult {
    call(|| {
        out(functions)?;
        Context::current()?;
        let found = module::functions_of(handle)?;
        for (index, function) in found.into_iter().take(count as usize).enumerate() {
            unsafe { *functions.add(index) = function };
        }
        Ok(())
    })
}

pub unsafe fn cuModuleGetGlobal_v2(
    address: *mut CUdeviceptr,
    size: *mut usize,
    handle: CUmodule,
    name: *const c_char,
) -> CUresult {
    call(|| {
        let module = module_for(handle)?;
        let name = unsafe { text(name)? };
        let global = module.global(name).ok_or_else(|| {
            if module.kernel_names().contains(&name) {
                CUDA_ERROR_INVALID_VALUE
            } else {
                CUDA_ERROR_NOT_FOUND
            }
        })?;
        set_if_wanted(address, global.address);
        set_if_wanted(size, global.size as usize);
        Ok(())
    })
}

/// Texture and surface references went out of use with CUDA 12; no module here has one.
pub unsafe fn cuModuleGetTexRef(
    _reference: *mut CUtexref,
    handle: CUmodule,
    _name: *const c_char,
) -> CUresult {
    call(|| module_for(handle).and(Err(CUDA_ERROR_NOT_FOUND)))
}

pub unsafe fn cuModuleGetSurfRef(
    _reference: *mut CUsurfref,
    handle: CUmodule,
    _name: *const c_char,
) -> CUresult {
    call(|| module_for(handle).and(Err(CUDA_ERROR_NOT_FOUND)))
}
