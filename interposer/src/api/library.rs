//! Libraries: modules that belong to no context; a kernel handle is good in all of them.

use std::ffi::{c_char, c_uint, c_void, CString};
use std::sync::{Mutex, MutexGuard};

use harp_cuda_abi::types::*;
use harp_wire::calls;
use harp_wire::{CallId, HandleKind};

use super::context::{current_context, current_life, wait_for_functions_in};
use super::foretold::Foretold;
use super::function;
use super::image::{self, Refusal};
use super::jit_options::JitOptions;
use super::module::{look_up, name_argument, put_variable, Module, Named};
use super::outputs::put;
use crate::generated::forward;
use crate::session::handles::session_of;
use crate::session::{checks, handles, sessions, Session};

/// What the client knows of a library.
struct Library {
    /// The module it has in each life of a context that asked for one.
    modules: Mutex<Vec<((u64, u32), u64)>>,
    /// For other servers than the one that its handle is of: there it is loaded when it is first used.
    source: Option<Source>,
    /// Its handles with those that have loaded it.
    elsewhere: Mutex<Vec<u64>>,
    /// What the server of its handle said of its kernels.
    foretold: Foretold,
    kernels: Named,
}

/// What a library is loaded from.
struct Source {
    image: Vec<u8>,
    names: Vec<u32>,
    values: Vec<u64>,
}

impl Library {
    fn known(id: u64) -> Result<&'static Library, CUresult> {
        // SAFETY: every library handle that a program has is given a Library when it is made.
        unsafe { handles::attached::<Library>(id) }.ok_or(CUDA_ERROR_INVALID_HANDLE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// A library's handle with a server, which has loaded it when this returns.
fn with_server(owner: u64, session: &Session) -> Result<u64, CUresult> {
    if session_of(owner) == session.number {
        return Ok(owner);
    }
    let library = Library::known(owner)?;
    let mut elsewhere = lock(&library.elsewhere);
    let known = elsewhere
        .iter()
        .find(|id| session_of(**id) == session.number);
    if let Some(id) = known {
        return Ok(*id);
    }
    let source = library.source.as_ref().ok_or(CUDA_ERROR_INVALID_HANDLE)?;
    let image = image::needed(session, source.image.clone()).map_err(|refusal| refusal.code)?;
    let (id, _) = load_there(session, &image, &source.names, &source.values, 0)?;
    elsewhere.push(id);
    Ok(id)
}

/// Loads what a session's devices need of a library, as that is.
fn load_there(
    session: &Session,
    image: &[u8],
    names: &[u32],
    values: &[u64],
    log_bytes: u32,
) -> Result<(u64, Foretold), CUresult> {
    let handle = handles::create(HandleKind::Library, session.number)?;
    let mut foretold = Foretold::default();
    let status = image::load(session, image, |blob| {
        foretold.load(session, handle, CallId::cuLibraryLoadData, |encoder| {
            calls::encode_cuLibraryLoadData(encoder, handle, blob, names, values, log_bytes);
        })
    });
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Library, handle as CUlibrary);
        return Err(status);
    }
    Ok((handle, foretold))
}

/// Loads an image and reports to the log buffers among the options.
unsafe fn load_at(
    library: *mut CUlibrary,
    image: impl FnOnce() -> Result<Vec<u8>, Refusal>,
    options: &JitOptions,
) -> CUresult {
    if library.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    match image().and_then(|image| load(image, options)) {
        Ok(handle) => unsafe { put(library, handle) },
        Err(refusal) => options.refuse(&refusal),
    }
}

fn load(image: Vec<u8>, options: &JitOptions) -> Result<CUlibrary, Refusal> {
    let sessions = sessions()?;
    let session = sessions.any();
    let same_devices = |other: &Session| other.soft_architecture == session.soft_architecture;
    let (mut kept, mut needed) = (None, image);
    if sessions.several() && !sessions.iter().all(same_devices) {
        kept = Some(needed.clone());
    }
    needed = image::needed(session, needed)?;
    let (names, values) = (&options.names, &options.values);
    let loaded = load_there(session, &needed, names, values, options.log_bytes());
    options.report(session);
    let (handle, foretold) = loaded?;
    let source = sessions.several().then(|| Source {
        image: kept.unwrap_or(needed),
        names: names.clone(),
        values: values.clone(),
    });
    let library = Library {
        modules: Mutex::default(),
        source,
        elsewhere: Mutex::default(),
        foretold,
        kernels: Named::default(),
    };
    handles::attach(handle, library);
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
        load_at(library, || image::image_at(code), &options)
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
    // SAFETY: the program passes arrays of `count` elements.
    unsafe {
        let options = JitOptions::new(count, options, values);
        load_at(library, || Ok(image::read_file(path)?), &options)
    }
}

pub unsafe fn cuLibraryUnload(library: CUlibrary) -> CUresult {
    if let Ok(context) = current_context() {
        wait_for_functions_in(context);
    }
    let status = unsafe { forward::cuLibraryUnload(library) };
    if let Ok(known) = Library::known(library as u64) {
        for other in std::mem::take(&mut *lock(&known.elsewhere)) {
            // SAFETY: a live handle. A server that is lost has nothing to unload.
            unsafe { forward::cuLibraryUnload(other as CUlibrary) };
            handles::destroy(HandleKind::Library, other as CUlibrary);
        }
    }
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
    let found = || {
        let sessions = sessions()?;
        let owner = handles::live(HandleKind::Library, library)?;
        // SAFETY: the caller passes a C string.
        let name = unsafe { name_argument(name) }?;
        // The server that is current is the one that will be asked for the kernel's function.
        let session = match sessions.several() {
            true => sessions.any(),
            false => sessions.of(owner),
        };
        let look_up = |name| look_up_kernel(session, owner, name);
        Library::known(owner)?.kernels.get(session, name, look_up)
    };
    match found() {
        Ok(handle) => unsafe { put(kernel, handle as CUkernel) },
        Err(code) => code,
    }
}

/// Looks a kernel of a library up with a server.
pub fn look_up_kernel(session: &Session, owner: u64, name: CString) -> Result<u64, CUresult> {
    let library = with_server(owner, session)?;
    let foretold = &Library::known(owner)?.foretold;
    if let Some(kernel) = foretold.kernel(&name).filter(|_| library == owner) {
        let handle = handles::create(HandleKind::Kernel, session.number)?;
        let status = session.one_way(CallId::cuLibraryGetKernel, |encoder| {
            calls::encode_cuLibraryGetKernel(encoder, handle, library, &name);
        });
        if status != CUDA_SUCCESS {
            handles::destroy(HandleKind::Kernel, handle as CUkernel);
            return Err(status);
        }
        function::attach_kernel(handle, name, owner, kernel.clone());
        return Ok(handle);
    }
    look_up(
        session,
        CallId::cuLibraryGetKernel,
        HandleKind::Kernel,
        owner,
        name,
        |encoder, handle, name| calls::encode_cuLibraryGetKernel(encoder, handle, library, name),
    )
}

pub unsafe fn cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) -> CUresult {
    if module.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let found = || {
        let session = checks::context()?;
        let life = current_life()?;
        let owner = handles::live(HandleKind::Library, library)?;
        Ok((
            session,
            life,
            Library::known(owner)?,
            with_server(owner, session)?,
        ))
    };
    let (session, life, known, own) = match found() {
        Ok(found) => found,
        Err(code) => return code,
    };
    let mut modules = lock(&known.modules);
    if let Some((_, module_id)) = modules.iter().find(|(made_in, _)| *made_in == life) {
        return unsafe { put(module, *module_id as CUmodule) };
    }
    let loaded = known.foretold.is_loaded() && session_of(library as u64) == session.number;
    let foretold = match loaded {
        true => known.foretold.clone(),
        false => Foretold::default(),
    };
    let context = life.0;
    let made = Module::new(context, foretold).and_then(|data| {
        let made = handles::create(HandleKind::Module, session.number)?;
        handles::attach(made, data);
        Ok(made)
    });
    let made = match made {
        Ok(made) => made,
        Err(code) => return code,
    };
    let status = match loaded {
        // It cannot fail any more.
        true => session.one_way(CallId::cuLibraryGetModule, |encoder| {
            calls::encode_cuLibraryGetModule(encoder, made, own);
        }),
        false => unsafe { forward::cuLibraryGetModule(made as CUmodule, own as CUlibrary) },
    };
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
    let found = || {
        let context = current_context()? as u64;
        let session = checks::context()?;
        let own = with_server(handles::live(HandleKind::Library, library)?, session)?;
        let (mut address, mut size) = (0, 0);
        // SAFETY: local storage, and the program's name.
        let status =
            unsafe { forward::cuLibraryGetGlobal(&mut address, &mut size, own as CUlibrary, name) };
        match status {
            CUDA_SUCCESS => Ok((context, (address, size))),
            code => Err(code),
        }
    };
    match found() {
        // SAFETY: the program's pointers.
        Ok((context, found)) => unsafe { put_variable(pointer, bytes, context, Ok(found)) },
        Err(code) => code,
    }
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
    match sessions().and_then(|_| unsafe { name_argument(name) }) {
        Ok(_) => match handles::live(HandleKind::Library, library) {
            Ok(_) => CUDA_ERROR_NOT_FOUND,
            Err(code) => code,
        },
        Err(code) => code,
    }
}
