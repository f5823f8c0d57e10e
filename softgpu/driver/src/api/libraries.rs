//! Libraries and their kernels.

use core::ffi::{c_char, c_void};

use harp_cuda_abi::types::*;

use crate::call::{call, out, set_if_wanted, text, Outcome};
use crate::context::Context;
use crate::function::{self, Function};
use crate::handles::handle_of;
use crate::image::code_at;
use crate::jit_options::JitOptions;
use crate::library::{Library, LIBRARIES};
use crate::module;

use super::modules::read_file;

unsafe fn load(library: *mut CUlibrary, image: *const c_void, options: JitOptions) -> Outcome {
    let library = out(library)?;
    if image.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    match unsafe { code_at(image) } {
        Ok(code) => {
            options.report("");
            library.set(Library::publish(code));
            Ok(())
        }
        Err(refusal) => {
            options.report(&refusal.words);
            Err(refusal.tell())
        }
    }
}

/// The image is read at once, so it need not be preserved whatever the library options say.
pub unsafe fn cuLibraryLoadData(
    library: *mut CUlibrary,
    image: *const c_void,
    jit_options: *mut CUjit_option,
    jit_values: *mut *mut c_void,
    num_jit_options: u32,
    _options: *mut CUlibraryOption,
    _values: *mut *mut c_void,
    _num_options: u32,
) -> CUresult {
    call(|| unsafe {
        load(
            library,
            image,
            JitOptions::new(num_jit_options, jit_options, jit_values),
        )
    })
}

pub unsafe fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    path: *const c_char,
    jit_options: *mut CUjit_option,
    jit_values: *mut *mut c_void,
    num_jit_options: u32,
    _options: *mut CUlibraryOption,
    _values: *mut *mut c_void,
    _num_options: u32,
) -> CUresult {
    call(|| unsafe {
        let image = read_file(text(path)?)?;
        let options = JitOptions::new(num_jit_options, jit_options, jit_values);
        load(library, image.as_ptr().cast(), options)
    })
}

pub unsafe fn cuLibraryUnload(handle: CUlibrary) -> CUresult {
    call(|| {
        LIBRARIES
            .remove(handle)
            .ok_or(CUDA_ERROR_INVALID_HANDLE)?
            .end();
        Ok(())
    })
}

fn library(handle: CUlibrary) -> Outcome<std::sync::Arc<Library>> {
    Library::get(handle)
}

pub unsafe fn cuLibraryGetKernel(
    kernel: *mut CUkernel,
    handle: CUlibrary,
    name: *const c_char,
) -> CUresult {
    call(|| {
        let kernel = out(kernel)?;
        kernel.set(library(handle)?.kernel(unsafe { text(name)? })?);
        Ok(())
    })
}

pub unsafe fn cuLibraryGetKernelCount(count: *mut u32, handle: CUlibrary) -> CUresult {
    call(|| {
        let count = out(count)?;
        count.set(library(handle)?.kernel_names().len() as u32);
        Ok(())
    })
}

pub unsafe fn cuLibraryEnumerateKernels(
    kernels: *mut CUkernel,
    count: u32,
    handle: CUlibrary,
) -> CUresult {
    call(|| {
        out(kernels)?;
        let library = library(handle)?;
        for (index, name) in library
            .kernel_names()
            .into_iter()
            .take(count as usize)
            .enumerate()
        {
            unsafe { *kernels.add(index) = library.kernel(name)? };
        }
        Ok(())
    })
}

pub unsafe fn cuLibraryGetModule(module: *mut CUmodule, handle: CUlibrary) -> CUresult {
    call(|| {
        let module = out(module)?;
        let loaded = library(handle)?.module_in(&Context::current()?)?;
        module.set(module::handle(&loaded));
        Ok(())
    })
}

pub unsafe fn cuLibraryGetGlobal(
    address: *mut CUdeviceptr,
    size: *mut usize,
    handle: CUlibrary,
    name: *const c_char,
) -> CUresult {
    call(|| {
        let name = unsafe { text(name)? };
        let module = library(handle)?.module_in(&Context::current()?)?;
        let global = module.global(name).ok_or(CUDA_ERROR_NOT_FOUND)?;
        set_if_wanted(address, global.address);
        set_if_wanted(size, global.size as usize);
        Ok(())
    })
}

/// Memory can be managed, variables cannot.
pub unsafe fn cuLibraryGetManaged(
    _address: *mut CUdeviceptr,
    _size: *mut usize,
    handle: CUlibrary,
    _name: *const c_char,
) -> CUresult {
    call(|| library(handle).and(Err(CUDA_ERROR_NOT_FOUND)))
}

pub unsafe fn cuLibraryGetUnifiedFunction(
    _function: *mut *mut c_void,
    handle: CUlibrary,
    _symbol: *const c_char,
) -> CUresult {
    call(|| library(handle).and(Err(CUDA_ERROR_NOT_FOUND)))
}

/// The kernel's function in the current context.
fn function_of(kernel: CUkernel) -> Outcome<std::sync::Arc<Function>> {
    function::kernel(kernel)?.function_in(&Context::current()?)
}

pub unsafe fn cuKernelGetFunction(function: *mut CUfunction, kernel: CUkernel) -> CUresult {
    call(|| {
        let function = out(function)?;
        let found = function_of(kernel)?;
        function.set(found.handle());
        Ok(())
    })
}

pub unsafe fn cuKernelGetLibrary(handle: *mut CUlibrary, kernel: CUkernel) -> CUresult {
    call(|| {
        let handle = out(handle)?;
        handle.set(handle_of(&function::kernel(kernel)?.library()?));
        Ok(())
    })
}

/// The name lives as long as the kernel.
pub unsafe fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) -> CUresult {
    call(|| {
        let name = out(name)?;
        name.set(function::kernel(kernel)?.name.as_ptr());
        Ok(())
    })
}

/// The kernel's function on a device: in the current context if that is its, else in its primary
/// context.
fn function_on(kernel: CUkernel, dev: CUdevice) -> Outcome<std::sync::Arc<Function>> {
    let device = crate::device::device(dev)?;
    let kernel = function::kernel(kernel)?;
    match Context::current() {
        Ok(context) if context.device.ordinal == dev => kernel.function_in(&context),
        _ => kernel.function_in(device.primary()),
    }
}

pub unsafe fn cuKernelGetAttribute(
    value: *mut i32,
    attribute: CUfunction_attribute,
    kernel: CUkernel,
    dev: CUdevice,
) -> CUresult {
    call(|| {
        let value = out(value)?;
        value.set(function_on(kernel, dev)?.attribute(attribute)?);
        Ok(())
    })
}

pub unsafe fn cuKernelSetAttribute(
    attribute: CUfunction_attribute,
    value: i32,
    kernel: CUkernel,
    dev: CUdevice,
) -> CUresult {
    call(|| function_on(kernel, dev)?.set_attribute(attribute, value))
}

pub unsafe fn cuKernelSetCacheConfig(
    kernel: CUkernel,
    config: CUfunc_cache,
    dev: CUdevice,
) -> CUresult {
    call(|| {
        crate::device::device(dev)?;
        function::kernel(kernel)?;
        if config > CU_FUNC_CACHE_PREFER_EQUAL {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Ok(())
    })
}

pub unsafe fn cuKernelGetParamInfo(
    kernel: CUkernel,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    call(|| super::functions::param_info(&function::kernel(kernel)?.signature, index, offset, size))
}

pub unsafe fn cuKernelGetParamCount(kernel: CUkernel, count: *mut usize) -> CUresult {
    call(|| {
        let count = out(count)?;
        count.set(function::kernel(kernel)?.signature.params.len());
        Ok(())
    })
}
