//! Functions of modules and kernels of libraries: what the server said of them at look-up answers
//! their attributes and lays out their parameters. A kernel belongs to no context; what is launched, and
//! what has attributes, is its function in one.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, CString};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard};

use harp_cuda_abi::types::*;
use harp_wire::{calls, CallId, FunctionInfo, HandleKind};

use super::context::{current_device, current_life};
use super::device::device;
use super::foretold;
use super::library::look_up_kernel;
use super::module::look_up;
use super::outputs::{put, put_if_wanted};
use crate::generated::forward;
use crate::session::handles::session_of;
use crate::session::snapshot::Device;
use crate::session::{checks, handles, sessions, Session};

/// `CUfunction_attribute` values that a server reports.
const ATTRIBUTES: usize = 16;
/// The value that stands for an attribute the driver refused.
const MISSING: i32 = i32::MIN;

/// What occupancy depends on beside the function: threads of a block, its dynamic shared bytes, flags.
pub type Configuration = (i32, usize, u32);

/// So many are remembered of a function.
const MOST_CONFIGURATIONS: usize = 64;

/// What the client knows of a function or a kernel.
pub struct Function {
    /// Its handle.
    pub id: u64,
    pub name: CString,
    /// The module or library it came from.
    pub owner: u64,
    pub info: FunctionInfo,
    /// The server has loaded it.
    loaded: AtomicBool,
    /// Of a kernel: what is known of its function in one context.
    foretold: Option<foretold::Kernel>,
    /// Its first launch has succeeded: what can go wrong at a launch is known from here on.
    pub launched: AtomicBool,
    /// As reported, and changed by `cuFuncSetAttribute`.
    attributes: [AtomicI32; ATTRIBUTES],
    /// Resident blocks that the server has told of, until an attribute changes: a driver computes them of
    /// what the function and its device are.
    occupancy: Mutex<HashMap<Configuration, i32>>,
    /// Of a kernel: the function it has in each life of a context that asked for one.
    functions: Mutex<Vec<((u64, u32), u64)>>,
    /// Of a kernel: its handles with other servers than the one that its own handle is of.
    elsewhere: Mutex<Vec<u64>>,
}

impl Function {
    fn new(id: u64, name: CString, owner: u64, info: FunctionInfo, loaded: bool) -> Function {
        let attributes = std::array::from_fn(|index| {
            AtomicI32::new(info.attributes.get(index).copied().unwrap_or(MISSING))
        });
        Function {
            id,
            name,
            owner,
            info,
            loaded: AtomicBool::new(loaded),
            foretold: None,
            launched: AtomicBool::new(false),
            attributes,
            occupancy: Mutex::default(),
            functions: Mutex::default(),
            elsewhere: Mutex::default(),
        }
    }

    /// Whether what a launch can fail with, beside the launch itself, is known: nothing.
    pub fn is_ready(&self) -> bool {
        self.loaded.load(Ordering::Relaxed) || self.launched.load(Ordering::Relaxed)
    }

    /// An attribute's value, if the driver has it.
    pub fn attribute(&self, number: CUfunction_attribute) -> Option<i32> {
        let value = self
            .attributes
            .get(number as usize)?
            .load(Ordering::Relaxed);
        (value != MISSING).then_some(value)
    }

    /// The resident blocks of a multiprocessor, or what `ask` finds them to be.
    pub fn resident_blocks(
        &self,
        configuration: Configuration,
        ask: impl FnOnce() -> Result<i32, CUresult>,
    ) -> Result<i32, CUresult> {
        if let Some(known) = lock(&self.occupancy).get(&configuration) {
            return Ok(*known);
        }
        let found = ask()?;
        let mut known = lock(&self.occupancy);
        if known.len() == MOST_CONFIGURATIONS {
            known.clear();
        }
        known.insert(configuration, found);
        Ok(found)
    }

    /// Keeps an attribute that the server has taken.
    fn keep(&self, number: CUfunction_attribute, value: i32) {
        lock(&self.occupancy).clear();
        if let Some(slot) = self.attributes.get(number as usize) {
            slot.store(value, Ordering::Relaxed);
        }
    }
}

/// What a launch takes: a function or, as the driver allows there, a kernel, which stands for its
/// function in the current context.
pub fn launchable(raw: CUfunction) -> Result<&'static Function, CUresult> {
    function(raw).or_else(|_| in_context(kernel(raw.cast())?))
}

/// A kernel's function in the current context, which the server is asked for once in each life of it.
fn in_context(kernel: &Function) -> Result<&'static Function, CUresult> {
    let life = current_life()?;
    let mut functions = lock(&kernel.functions);
    if let Some((_, id)) = functions.iter().find(|(made_in, _)| *made_in == life) {
        return described(*id);
    }
    let session = checks::context()?;
    let own = with_server(kernel, session)?;
    let foretold = kernel.foretold.as_ref();
    let known = foretold.filter(|known| known.is_current() && own == kernel.id);
    if let Some(known) = known {
        let id = handles::create(HandleKind::Function, session.number)?;
        let status = session.one_way(CallId::cuKernelGetFunction, |encoder| {
            calls::encode_cuKernelGetFunction(encoder, id, own);
        });
        if status != CUDA_SUCCESS {
            handles::destroy(HandleKind::Function, id as CUfunction);
            return Err(status);
        }
        let (name, info) = (kernel.name.clone(), known.info.clone());
        attach(id, name, kernel.owner, info, known.loaded);
        functions.push((life, id));
        return described(id);
    }
    let id = look_up(
        session,
        CallId::cuKernelGetFunction,
        HandleKind::Function,
        kernel.owner,
        kernel.name.clone(),
        |encoder, function, _| calls::encode_cuKernelGetFunction(encoder, function, own),
    )?;
    functions.push((life, id));
    described(id)
}

/// A kernel's handle with a server: its own, or one for the same kernel of the library there.
fn with_server(kernel: &Function, session: &Session) -> Result<u64, CUresult> {
    if session_of(kernel.id) == session.number {
        return Ok(kernel.id);
    }
    let mut elsewhere = lock(&kernel.elsewhere);
    let known = elsewhere
        .iter()
        .find(|id| session_of(**id) == session.number);
    if let Some(id) = known {
        return Ok(*id);
    }
    let id = look_up_kernel(session, kernel.owner, kernel.name.clone())?;
    elsewhere.push(id);
    Ok(id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// A function handle's.
fn function(raw: CUfunction) -> Result<&'static Function, CUresult> {
    described(handles::live(HandleKind::Function, raw)?)
}

/// A kernel handle's.
fn kernel(raw: CUkernel) -> Result<&'static Function, CUresult> {
    described(handles::live(HandleKind::Kernel, raw)?)
}

fn described(id: u64) -> Result<&'static Function, CUresult> {
    // SAFETY: handles of both kinds are given a Function when they are made.
    unsafe { handles::attached::<Function>(id) }.ok_or(CUDA_ERROR_INVALID_HANDLE)
}

/// Gives a fresh handle what the server said of it; `loaded`: it has loaded it.
pub fn attach(id: u64, name: CString, owner: u64, info: FunctionInfo, loaded: bool) {
    handles::attach(id, Function::new(id, name, owner, info, loaded));
}

/// Gives a fresh kernel's handle what the server said of its function in one context.
pub fn attach_kernel(id: u64, name: CString, owner: u64, foretold: foretold::Kernel) {
    // A kernel by itself has parameters, and no attributes.
    let info = FunctionInfo {
        params: foretold.info.params.clone(),
        attributes: [MISSING; ATTRIBUTES],
    };
    let kernel = Function {
        foretold: Some(foretold),
        ..Function::new(id, name, owner, info, false)
    };
    handles::attach(id, kernel);
}

/// Answers a question about a function or a kernel.
fn with(
    found: Result<&'static Function, CUresult>,
    answer: impl FnOnce(&'static Function) -> CUresult,
) -> CUresult {
    match sessions().and(found) {
        Ok(function) => answer(function),
        Err(code) => code,
    }
}

/// As [`with`], for calls about a kernel on a device.
fn with_kernel(
    raw: CUkernel,
    number: CUdevice,
    answer: impl FnOnce(&'static Function, &'static Device) -> CUresult,
) -> CUresult {
    let found = kernel(raw).and_then(|kernel| Ok((kernel, device(sessions()?, number)?)));
    match found {
        Ok((kernel, device)) => answer(kernel, device),
        Err(code) => code,
    }
}

/// How a device's server knows a kernel and the device.
fn there(kernel: &Function, device: &Device) -> Result<(CUkernel, CUdevice), CUresult> {
    let own = with_server(kernel, sessions()?.of_device(device))?;
    Ok((own as CUkernel, device.ordinal))
}

/// An attribute that is known, or what the server answers by `ask`: why there is none only the driver
/// knows.
fn attribute_or(known: Option<i32>, value: *mut c_int, ask: impl FnOnce() -> CUresult) -> CUresult {
    match known {
        // SAFETY: `value` is the caller's, checked for NULL.
        Some(known) => unsafe { put(value, known) },
        None => ask(),
    }
}

fn parameter_of(known: &Function, index: usize, offset: *mut usize, size: *mut usize) -> CUresult {
    match known.info.params.get(index) {
        // SAFETY: both are the caller's, checked for NULL.
        Some(param) => unsafe {
            put_if_wanted(size, param.size as usize);
            put(offset, param.offset as usize)
        },
        None => CUDA_ERROR_INVALID_VALUE,
    }
}

pub unsafe fn cuFuncGetAttribute(
    value: *mut c_int,
    attribute: CUfunction_attribute,
    raw: CUfunction,
) -> CUresult {
    with(function(raw), |known| {
        attribute_or(known.attribute(attribute), value, || unsafe {
            forward::cuFuncGetAttribute(value, attribute, raw)
        })
    })
}

pub unsafe fn cuFuncSetAttribute(
    raw: CUfunction,
    attribute: CUfunction_attribute,
    value: c_int,
) -> CUresult {
    with(function(raw), |known| {
        let status = unsafe { forward::cuFuncSetAttribute(raw, attribute, value) };
        if status == CUDA_SUCCESS {
            known.keep(attribute, value);
        }
        status
    })
}

pub unsafe fn cuKernelGetAttribute(
    value: *mut c_int,
    attribute: CUfunction_attribute,
    raw: CUkernel,
    dev: CUdevice,
) -> CUresult {
    with_kernel(raw, dev, |known, device| {
        // The current context's function tells the same of its own device.
        let here = current_device().is_ok_and(|current| current == dev);
        let function = here.then(|| in_context(known).ok()).flatten();
        let answer = function.and_then(|function| function.attribute(attribute));
        attribute_or(answer, value, || match there(known, device) {
            Ok((own, ordinal)) => unsafe {
                forward::cuKernelGetAttribute(value, attribute, own, ordinal)
            },
            Err(code) => code,
        })
    })
}

pub unsafe fn cuKernelSetAttribute(
    attribute: CUfunction_attribute,
    value: c_int,
    raw: CUkernel,
    dev: CUdevice,
) -> CUresult {
    with_kernel(raw, dev, |known, device| {
        let (own, ordinal) = match there(known, device) {
            Ok(both) => both,
            Err(code) => return code,
        };
        let status = unsafe { forward::cuKernelSetAttribute(attribute, value, own, ordinal) };
        if status == CUDA_SUCCESS {
            let functions = lock(&known.functions);
            let there = functions
                .iter()
                .filter(|(_, id)| session_of(*id) == device.session);
            for function in there.flat_map(|(_, id)| described(*id)) {
                function.keep(attribute, value);
            }
        }
        status
    })
}

pub unsafe fn cuFuncSetCacheConfig(raw: CUfunction, config: CUfunc_cache) -> CUresult {
    // A preference that no program can observe.
    let _ = config;
    with(function(raw), |_| CUDA_SUCCESS)
}

pub unsafe fn cuKernelSetCacheConfig(
    raw: CUkernel,
    config: CUfunc_cache,
    dev: CUdevice,
) -> CUresult {
    let _ = config;
    with_kernel(raw, dev, |_, _| CUDA_SUCCESS)
}

pub unsafe fn cuFuncSetSharedMemConfig(raw: CUfunction, config: CUsharedconfig) -> CUresult {
    let _ = config;
    with(function(raw), |_| CUDA_SUCCESS)
}

pub unsafe fn cuFuncGetParamInfo(
    raw: CUfunction,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    with(function(raw), |known| {
        parameter_of(known, index, offset, size)
    })
}

pub unsafe fn cuKernelGetParamInfo(
    raw: CUkernel,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    with(kernel(raw), |known| {
        parameter_of(known, index, offset, size)
    })
}

pub unsafe fn cuFuncGetParamCount(raw: CUfunction, count: *mut usize) -> CUresult {
    with(function(raw), |known| unsafe {
        put(count, known.info.params.len())
    })
}

pub unsafe fn cuKernelGetParamCount(raw: CUkernel, count: *mut usize) -> CUresult {
    with(kernel(raw), |known| unsafe {
        put(count, known.info.params.len())
    })
}

pub unsafe fn cuFuncGetName(name: *mut *const c_char, raw: CUfunction) -> CUresult {
    with(function(raw), |known| unsafe {
        put(name, known.name.as_ptr())
    })
}

pub unsafe fn cuKernelGetName(name: *mut *const c_char, raw: CUkernel) -> CUresult {
    with(kernel(raw), |known| unsafe {
        put(name, known.name.as_ptr())
    })
}

pub unsafe fn cuFuncGetModule(module: *mut CUmodule, raw: CUfunction) -> CUresult {
    with(function(raw), |known| {
        let owner = known.owner as *mut std::ffi::c_void;
        match handles::live(HandleKind::Module, owner) {
            Ok(id) => unsafe { put(module, id as CUmodule) },
            Err(_) => unsafe { crate::api::cuLibraryGetModule(module, owner.cast()) },
        }
    })
}

pub unsafe fn cuKernelGetLibrary(library: *mut CUlibrary, raw: CUkernel) -> CUresult {
    with(kernel(raw), |known| unsafe {
        put(library, known.owner as CUlibrary)
    })
}

pub unsafe fn cuKernelGetFunction(function: *mut CUfunction, raw: CUkernel) -> CUresult {
    match sessions().and(kernel(raw)).and_then(in_context) {
        Ok(found) => unsafe { put(function, found.id as CUfunction) },
        Err(code) => code,
    }
}

pub unsafe fn cuFuncIsLoaded(state: *mut CUfunctionLoadingState, raw: CUfunction) -> CUresult {
    with(function(raw), |known| {
        let known_state = match known.is_ready() {
            true => CU_FUNCTION_LOADING_STATE_LOADED,
            false => CU_FUNCTION_LOADING_STATE_UNLOADED,
        };
        unsafe { put(state, known_state) }
    })
}

pub unsafe fn cuFuncLoad(raw: CUfunction) -> CUresult {
    match sessions().and_then(|sessions| Ok((sessions, function(raw)?))) {
        // A server that does not know the call loads it with its first launch.
        Ok((sessions, known)) if !known.is_ready() && sessions.of(known.id).loads_functions => {
            let status = unsafe { forward::cuFuncLoad(raw) };
            if status == CUDA_SUCCESS {
                known.loaded.store(true, Ordering::Relaxed);
            }
            status
        }
        Ok(_) => CUDA_SUCCESS,
        Err(code) => code,
    }
}
