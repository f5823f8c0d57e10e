//! Modules: an image goes up once, its functions and variables are looked up by name.

use std::collections::HashMap;
use std::ffi::{c_char, c_uint, c_void, CStr, CString};
use std::sync::{Mutex, PoisonError};

use harp_cuda_abi::types::*;
use harp_wire::{calls, CallId, Encoder, FunctionInfo, HandleKind};

use super::context::{current_context, lives_of, wait_for_functions_in};
use super::foretold::{self, Foretold};
use super::function;
use super::image::{self, Refusal};
use super::jit_options::JitOptions;
use super::memory::remember;
use super::outputs::{put, put_if_wanted};
use crate::generated::forward;
use crate::session::addresses::{Owner, Range};
use crate::session::{checks, handles, sessions, Session};

/// A C string argument.
///
/// # Safety
/// `text` is NULL or a C string.
pub unsafe fn name_argument(text: *const c_char) -> Result<CString, CUresult> {
    if text.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_owned())
}

/// What the client knows of a module.
pub struct Module {
    /// The context that it was loaded in.
    pub context: u64,
    /// How often that had ended before.
    lives: u32,
    /// What the server said of its kernels.
    foretold: Foretold,
    functions: Named,
}

impl Module {
    /// One of a context as that is now.
    pub fn new(context: u64, foretold: Foretold) -> Result<Module, CUresult> {
        Ok(Module {
            context,
            lives: lives_of(context)?,
            foretold,
            functions: Named::default(),
        })
    }

    fn is_loaded(&self) -> bool {
        lives_of(self.context) == Ok(self.lives)
    }
}

/// The handles that have been given out for names: whoever asks again gets the same.
#[derive(Default)]
pub struct Named(Mutex<HashMap<CString, u64>>);

impl Named {
    /// The handle for a name, which is looked up where nobody has asked for it yet.
    pub fn get(
        &self,
        session: &Session,
        name: CString,
        look_up: impl FnOnce(CString) -> Result<u64, CUresult>,
    ) -> Result<u64, CUresult> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(&name).copied();
        if let Some(handle) = found {
            return session.check_fault().map(|()| handle);
        }
        let handle = look_up(name.clone())?;
        Ok(*known().entry(name).or_insert(handle))
    }
}

/// Loads an image with the server of the current context.
fn load(session: &Session, image: &[u8], options: &JitOptions) -> Result<CUmodule, Refusal> {
    let context = current_context()? as u64;
    let mut module = Module::new(context, Foretold::default())?;
    let handle = handles::create(HandleKind::Module, session.number)?;
    let status = image::load(session, image, |blob| {
        let foretold = &mut module.foretold;
        foretold.load(session, handle, CallId::cuModuleLoadData, |encoder| {
            let (names, values) = (&options.names, &options.values);
            let log_bytes = options.log_bytes();
            calls::encode_cuModuleLoadData(encoder, handle, blob, names, values, log_bytes);
        })
    });
    options.report(session);
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Module, handle as CUmodule);
        return Err(status.into());
    }
    handles::attach(handle, module);
    Ok(handle as CUmodule)
}

/// Loads an image and reports to the log buffers among the options.
unsafe fn load_at(
    module: *mut CUmodule,
    image: impl FnOnce() -> Result<Vec<u8>, Refusal>,
    options: &JitOptions,
) -> CUresult {
    if module.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let loaded = || {
        let session = checks::context()?;
        let image = image::needed(session, image()?)?;
        load(session, &image, options)
    };
    match loaded() {
        Ok(handle) => unsafe { put(module, handle) },
        Err(refusal) => options.refuse(&refusal),
    }
}

pub unsafe fn cuModuleLoadData(module: *mut CUmodule, pointer: *const c_void) -> CUresult {
    let none = JitOptions::default();
    unsafe { load_at(module, || image::image_at(pointer), &none) }
}

pub unsafe fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    pointer: *const c_void,
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
) -> CUresult {
    // SAFETY: the program passes arrays of `count` elements, and an image.
    unsafe {
        let options = JitOptions::new(count, options, values);
        load_at(module, || image::image_at(pointer), &options)
    }
}

pub unsafe fn cuModuleLoadFatBinary(module: *mut CUmodule, pointer: *const c_void) -> CUresult {
    unsafe { cuModuleLoadData(module, pointer) }
}

pub unsafe fn cuModuleLoad(module: *mut CUmodule, path: *const c_char) -> CUresult {
    let none = JitOptions::default();
    unsafe { load_at(module, || Ok(image::read_file(path)?), &none) }
}

pub unsafe fn cuModuleUnload(module: CUmodule) -> CUresult {
    if let Ok(context) = current_context() {
        wait_for_functions_in(context);
    }
    let status = unsafe { forward::cuModuleUnload(module) };
    handles::destroy(HandleKind::Module, module);
    status
}

/// Looks a function or kernel up by name in its owner; the server's reply describes it.
pub fn look_up(
    session: &Session,
    call: CallId,
    kind: HandleKind,
    owner: u64,
    name: CString,
    encode: impl FnOnce(&mut Encoder, u64, &CStr),
) -> Result<u64, CUresult> {
    let handle = handles::create(kind, session.number)?;
    let mut info = FunctionInfo::default();
    let status = session.request(
        call,
        |encoder| encode(encoder, handle, &name),
        |decoder| info = FunctionInfo::read(decoder),
    );
    if status != CUDA_SUCCESS {
        handles::destroy(kind, handle as *mut c_void);
        return Err(status);
    }
    function::attach(handle, name, owner, info, false);
    Ok(handle)
}

/// A function that the server has told of: it is looked up without waiting for that.
fn look_up_foretold(
    session: &Session,
    owner: u64,
    name: &CStr,
    kernel: &foretold::Kernel,
) -> Result<u64, CUresult> {
    let handle = handles::create(HandleKind::Function, session.number)?;
    let status = session.one_way(CallId::cuModuleGetFunction, |encoder| {
        calls::encode_cuModuleGetFunction(encoder, handle, owner, name);
    });
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Function, handle as *mut c_void);
        return Err(status);
    }
    function::attach(
        handle,
        name.to_owned(),
        owner,
        kernel.info.clone(),
        kernel.loaded,
    );
    Ok(handle)
}

pub unsafe fn cuModuleGetFunction(
    function: *mut CUfunction,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    if function.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let found = checks::live(HandleKind::Module, module).and_then(|(session, owner)| {
        // SAFETY: the caller passes a C string.
        let name = unsafe { name_argument(name) }?;
        // SAFETY: module handles are given a Module when they are made.
        let known = unsafe { handles::attached::<Module>(owner) };
        let known = known.ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        let look_up = |name: CString| {
            if let Some(kernel) = known.foretold.kernel(&name) {
                return look_up_foretold(session, owner, &name, kernel);
            }
            let encode = |encoder: &mut Encoder, handle, name: &CStr| {
                calls::encode_cuModuleGetFunction(encoder, handle, owner, name);
            };
            let kind = HandleKind::Function;
            look_up(
                session,
                CallId::cuModuleGetFunction,
                kind,
                owner,
                name,
                encode,
            )
        };
        match known.is_loaded() {
            true => known.functions.get(session, name, look_up),
            false => look_up(name),
        }
    });
    match found {
        Ok(handle) => unsafe { put(function, handle as CUfunction) },
        Err(code) => code,
    }
}

/// Stores where a variable is, and remembers it as device memory of a context.
///
/// # Safety
/// Both pointers are NULL or writable.
pub unsafe fn put_variable(
    pointer: *mut CUdeviceptr,
    bytes: *mut usize,
    context: u64,
    found: Result<(CUdeviceptr, usize), CUresult>,
) -> CUresult {
    let remembered = || {
        let (address, size) = found?;
        let sessions = sessions()?;
        let known = sessions.addresses.find_device_span(address, size as u64);
        let is_own = |range: &Range| matches!(range.owner, Owner::Device { context: own, .. } if own == context);
        if !known.is_some_and(|range| is_own(&range)) {
            remember(sessions, context, address, size)?;
        }
        Ok((address, size))
    };
    let (address, size) = match remembered() {
        Ok(found) => found,
        Err(code) => return code,
    };
    unsafe {
        put_if_wanted(pointer, address);
        put_if_wanted(bytes, size);
    }
    CUDA_SUCCESS
}

pub unsafe fn cuModuleGetGlobal_v2(
    pointer: *mut CUdeviceptr,
    bytes: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    let (mut address, mut size) = (0, 0);
    let status = unsafe { forward::cuModuleGetGlobal_v2(&mut address, &mut size, module, name) };
    let found = if status == CUDA_SUCCESS {
        Ok((address, size))
    } else {
        Err(status)
    };
    // SAFETY: every module handle is given a Module when it is made.
    let known = unsafe { handles::attached::<Module>(module as u64) };
    let context = known.map_or(0, |module| module.context);
    unsafe { put_variable(pointer, bytes, context, found) }
}

/// The functions of a module, in the server's order.
pub fn functions(module: CUmodule) -> Result<Vec<CUfunction>, CUresult> {
    names(module)?
        .iter()
        .map(|name| {
            let mut found = std::ptr::null_mut();
            // SAFETY: local storage and a C string.
            match unsafe { cuModuleGetFunction(&mut found, module, name.as_ptr()) } {
                CUDA_SUCCESS => Ok(found),
                code => Err(code),
            }
        })
        .collect()
}

fn names(module: CUmodule) -> Result<Vec<CString>, CUresult> {
    let (session, owner) = checks::live(HandleKind::Module, module)?;
    let mut names = Vec::new();
    let status = session.request(
        CallId::harp_module_functions,
        |encoder| calls::encode_harp_module_functions(encoder, owner),
        |decoder| {
            let reply = calls::HarpModuleFunctionsReply::read(decoder);
            names = reply.names.iter().map(|name| (*name).to_owned()).collect();
        },
    );
    match status {
        CUDA_SUCCESS => Ok(names),
        code => Err(code),
    }
}

pub unsafe fn cuModuleGetFunctionCount(count: *mut c_uint, module: CUmodule) -> CUresult {
    match names(module) {
        Ok(names) => unsafe { put(count, names.len() as c_uint) },
        Err(code) => code,
    }
}

pub unsafe fn cuModuleEnumerateFunctions(
    into: *mut CUfunction,
    room: c_uint,
    module: CUmodule,
) -> CUresult {
    if into.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    match functions(module) {
        Ok(found) => {
            for (index, function) in found.iter().take(room as usize).enumerate() {
                // SAFETY: the caller has room for `room` handles.
                unsafe { into.add(index).write(*function) };
            }
            CUDA_SUCCESS
        }
        Err(code) => code,
    }
}
