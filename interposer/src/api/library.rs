//! Libraries: modules that belong to no context; a kernel handle is good in all of them.

use std::ffi::{c_char, c_uint, c_void};
use std::sync::Mutex;

use harp_cuda_abi::types::*;
use harp_wire::calls;
use harp_wire::{CallId, HandleKind};

use super::context::current_life;
use super::image::{self, Refusal, Uploaded};
use super::jit_options::JitOptions;
use super::module::{look_up, name_argument, put_variable};
use super::outputs::put;
use crate::generated::forward;
use crate::session::{handles, request, session};

/// What the client knows of a library.
#[derive(Default)]
struct Library {
    /// The module it has in each life of a context that asked for one.
    modules: Mutex<Vec<((u64, u32), u64)>>,
}

/// Loads an image and reports to the log buffers among the options.
unsafe fn load_at(
    library: *mut CUlibrary,
    upload: impl FnOnce() -> Result<Uploaded, Refusal>,
    options: &JitOptions,
) -> CUresult {
    if library.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let loaded = session()
        .map_err(Refusal::from)
        .and_then(|_| upload())
        .and_then(|image| load(image, options));
    match loaded {
        Ok(handle) => unsafe { put(library, handle) },
        Err(refusal) => options.refuse(&refusal),
    }
}

fn load(image: Uploaded, options: &JitOptions) -> Result<CUlibrary, Refusal> {
    let handle = handles::create(HandleKind::Library);
    handles::attach(handle, Library::default());
    let status = request(
        CallId::cuLibraryLoadData,
        |encoder| {
            let (names, values) = (&options.names, &options.values);
            let log_bytes = options.log_bytes();
            calls::encode_cuLibraryLoadData(encoder, handle, image.blob, names, values, log_bytes);
        },
        |_| (),
    );
    options.report();
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Library, handle as CUlibrary);
        return Err(status.into());
    }
    Ok(handle as CUlibrary)
}

pub unsafe fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
    count: c_uint,
    library_options: *mut CUlibraryOption,
    library_values: *mut *mut c_void,
    library_count: c_uint,
) -> CUresult {
    // How the image is kept (CU_LIBRARY_BINARY_IS_PRESERVED, host functions) is the program's side.
    let _ = (library_options, library_values, library_count);
    // SAFETY: the program passes arrays of `count` elements, and an image.
    unsafe {
        let options = JitOptions::new(count, options, values);
        load_at(library, || image::upload_at(code), &options)
    }
}

pub unsafe fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    path: *const c_char,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
    count: c_uint,
    library_options: *mut CUlibraryOption,
    library_values: *mut *mut c_void,
    library_count: c_uint,
) -> CUresult {
    let _ = (library_options, library_values, library_count);
    let upload = || image::upload_image(unsafe { image::read_file(path) }?);
    // SAFETY: the program passes arrays of `count` elements.
    unsafe {
        let options = JitOptions::new(count, options, values);
        load_at(library, upload, &options)
    }
}

pub unsafe fn cuLibraryUnload(library: CUlibrary) -> CUresult {
    let status = unsafe { forward::cuLibraryUnload(library) };
    handles::destroy(HandleKind::Library, library);
    status
}

pub unsafe fn cuLibraryGetKernel(
    kernel: *mut CUkernel,
    library: CUlibrary,
    name: *const c_char,
) -> CUresult {
    if kernel.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let found = session()
        .and_then(|_| handles::live(HandleKind::Library, library))
        .and_then(|owner| {
            // SAFETY: the caller passes a C string.
            let name = unsafe { name_argument(name) }?;
            look_up(
                CallId::cuLibraryGetKernel,
                HandleKind::Kernel,
                owner,
                name,
                |encoder, handle, name| {
                    calls::encode_cuLibraryGetKernel(encoder, handle, owner, name)
                },
            )
        });
    match found {
        Ok(handle) => unsafe { put(kernel, handle as CUkernel) },
        Err(code) => code,
    }
}

pub unsafe fn cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) -> CUresult {
    if module.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let life = match session().and_then(|_| current_life()) {
        Ok(life) => life,
        Err(code) => return code,
    };
    let owner = match handles::live(HandleKind::Library, library) {
        Ok(owner) => owner,
        Err(code) => return code,
    };
    // SAFETY: every library handle is given a Library when it is made.
    let Some(known) = (unsafe { handles::attached::<Library>(owner) }) else {
        return CUDA_ERROR_INVALID_HANDLE;
    };
    let mut modules = known
        .modules
        .lock()
        .unwrap_or_else(|poison| poison.into_inner());
    if let Some((_, module_id)) = modules.iter().find(|(made_in, _)| *made_in == life) {
        return unsafe { put(module, *module_id as CUmodule) };
    }
    let made = handles::create(HandleKind::Module);
    let status = unsafe { forward::cuLibraryGetModule(made as CUmodule, library) };
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Module, made as CUmodule);
        return status;
    }
    modules.push((life, made));
    unsafe { put(module, made as CUmodule) }
}

pub unsafe fn cuLibraryGetGlobal(
    pointer: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> CUresult {
    let (mut address, mut size) = (0, 0);
    let status = unsafe { forward::cuLibraryGetGlobal(&mut address, &mut size, library, name) };
    let found = if status == CUDA_SUCCESS {
        Ok((address, size))
    } else {
        Err(status)
    };
    unsafe { put_variable(pointer, bytes, found) }
}

pub unsafe fn cuLibraryGetManaged(
    pointer: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> CUresult {
    // Memory can be managed, variables cannot.
    let _ = (pointer, bytes);
    // SAFETY: the caller passes a C string.
    match session().and_then(|_| unsafe { name_argument(name) }) {
        Ok(_) => match handles::live(HandleKind::Library, library) {
            Ok(_) => CUDA_ERROR_NOT_FOUND,
            Err(code) => code,
        },
        Err(code) => code,
    }
}
