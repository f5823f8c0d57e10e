//! Contexts: which exist and which is current is the client's knowledge; the server hears of a
//! context when it is made and of a thread's current one when it matters (DESIGN D4).

use std::ffi::{c_int, c_uint, c_ulonglong};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::Mutex;

use harp_cuda_abi::types::*;
use harp_driver_front::context_stack as stack;
use harp_wire::calls::encode_cuDevicePrimaryCtxRetain;
use harp_wire::{Because, CallId, HandleKind};

use super::device::device;
use super::outputs::{put, put_if_wanted};
use crate::generated::forward;
use crate::session::addresses::Owner;
use crate::session::credit::Credit;
use crate::session::handles::session_of;
use crate::session::settings::settings;
use crate::session::snapshot::Device;
use crate::session::{self, because, handles, sessions, Sessions};

/// What the client knows of a context.
pub struct Context {
    device: CUdevice,
    /// `cuCtxGetId`.
    id: u64,
    /// How often it has ended: a primary context begins anew behind the same handle.
    lives: AtomicU32,
    flags: AtomicU32,
    /// Of a primary context.
    primary: Option<Retains>,
}

impl Context {
    /// Whether it exists on the server.
    fn is_active(&self) -> bool {
        let retains = self.primary.as_ref();
        retains.is_none_or(|retains| retains.active.load(Ordering::Relaxed))
    }
}

/// Whether a primary context is there.
#[derive(Default)]
struct Retains {
    /// Held while it begins or ends, for which its server is waited for. A call's own record asks whether
    /// the current context lives, so that question must not need this lock.
    transition: Mutex<()>,
    count: AtomicU32,
    /// It exists on the server: from its first retain, and after a reset from the next.
    active: AtomicBool,
}

/// The version that `cuCtxGetApiVersion` answers: 3020 since CUDA 3.2.
const API_VERSION: c_uint = 3020;
/// The flags that `cuCtxCreate` and `cuDevicePrimaryCtxSetFlags` know.
const KNOWN_FLAGS: c_uint = CU_CTX_FLAGS_MASK as c_uint;

static LAST_ID: AtomicU64 = AtomicU64::new(0);
/// Primary contexts by device, made at first mention; their handles never change.
static PRIMARY: Mutex<Vec<(CUdevice, u64)>> = Mutex::new(Vec::new());

/// A handle of a context on a device, which `session` has.
fn new_context(
    device: CUdevice,
    session: usize,
    flags: c_uint,
    primary: bool,
) -> Result<u64, CUresult> {
    let handle = handles::create(HandleKind::Context, session)?;
    let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
    let primary = primary.then(Retains::default);
    handles::attach(
        handle,
        Context {
            device,
            id,
            lives: AtomicU32::default(),
            flags: AtomicU32::new(flags),
            primary,
        },
    );
    Ok(handle)
}

/// What is known of a live context handle.
pub fn known(context: CUcontext) -> Result<&'static Context, CUresult> {
    let handle = handles::live(HandleKind::Context, context)?;
    // SAFETY: every context handle is given a Context when it is made.
    unsafe { handles::attached::<Context>(handle) }.ok_or(CUDA_ERROR_INVALID_CONTEXT)
}

/// As [`known`], of a handle that may not be null.
fn named(context: CUcontext) -> Result<&'static Context, CUresult> {
    if context.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    known(context)
}

/// Whether a context is there: neither destroyed, nor a primary one that nobody has retained.
pub fn is_alive(context: u64) -> bool {
    known(context as CUcontext).is_ok_and(Context::is_active)
}

/// The device of a context handle, 0 when it is none.
pub fn device_of(context: u64) -> CUdevice {
    known(context as CUcontext).map_or(0, |context| context.device)
}

/// `cuCtxGetId`'s answer.
pub fn id_of(context: CUcontext) -> Result<u64, CUresult> {
    let context = if context.is_null() {
        current_context()?
    } else {
        context
    };
    known(context).map(|context| context.id)
}

/// The calling thread's current context, which calls that need one must have and which must exist.
pub fn current_context() -> Result<CUcontext, CUresult> {
    let current = stack::current();
    if current.is_null() {
        return Err(CUDA_ERROR_INVALID_CONTEXT);
    }
    match known(current)?.is_active() {
        true => Ok(current),
        false => Err(CUDA_ERROR_CONTEXT_IS_DESTROYED),
    }
}

/// The device of the calling thread's current context.
pub fn current_device() -> Result<CUdevice, CUresult> {
    known(current_context()?).map(|context| context.device)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// The handle of a device's primary context, without retaining it.
pub fn primary_context(number: CUdevice) -> Result<CUcontext, CUresult> {
    let session = device(sessions()?, number)?.session;
    let mut primary = lock(&PRIMARY);
    if let Some((_, handle)) = primary.iter().find(|(device, _)| *device == number) {
        return Ok(*handle as CUcontext);
    }
    let handle = new_context(number, session, 0, true)?;
    primary.push((number, handle));
    Ok(handle as CUcontext)
}

/// A primary context, and the server's number of its device.
struct Primary {
    handle: CUcontext,
    context: &'static Context,
    retains: &'static Retains,
    device: &'static Device,
    ordinal: CUdevice,
}

fn primary(number: CUdevice) -> Result<Primary, CUresult> {
    let handle = primary_context(number)?;
    let context = known(handle)?;
    let retains = context.primary.as_ref().ok_or(CUDA_ERROR_INVALID_CONTEXT)?;
    let device = device(sessions()?, number)?;
    Ok(Primary {
        handle,
        context,
        retains,
        device,
        ordinal: device.ordinal,
    })
}

/// The current context and how often it has ended: a name for this life of it.
pub fn current_life() -> Result<(u64, u32), CUresult> {
    let current = current_context()? as u64;
    Ok((current, lives_of(current)?))
}

/// How often a context has ended.
pub fn lives_of(context: u64) -> Result<u32, CUresult> {
    Ok(known(context as CUcontext)?.lives.load(Ordering::Relaxed))
}

/// Makes a context current for as long as this lives.
pub struct Visit(());

impl Visit {
    /// Of a live context.
    pub fn of(context: u64) -> Visit {
        stack::push(context as CUcontext);
        Visit(())
    }

    /// Of the context whose device memory an address is, where the current one is another server's: a
    /// call goes to the memory's server, and would find no context there.
    pub fn to_memory(sessions: &Sessions, address: CUdeviceptr) -> Option<Visit> {
        if !sessions.several() {
            return None;
        }
        let current = current_context().ok()?;
        match sessions.addresses.find(address)?.owner {
            Owner::Device { context, .. } if session_of(current as u64) != session_of(context) => {
                Some(Visit::of(context))
            }
            _ => None,
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        stack::pop();
    }
}

/// Memory that the server has given ahead in a context, to be cut up here. Where every call waits, the
/// server is asked for all of it.
pub fn credit_of(context: u64) -> Option<&'static Credit> {
    let known = known(context as CUcontext).ok()?;
    known
        .primary
        .as_ref()
        .filter(|_| !settings().every_call_waits)?;
    Some(&device(sessions().ok()?, known.device).ok()?.credit)
}

/// Before a call for which the server's driver waits for all of a context: while a host function of the program may still
/// run there, the server could not hear that it has returned.
pub fn wait_for_functions_in(context: CUcontext) {
    let any = sessions().is_ok_and(|all| all.of(context as u64).callbacks.any());
    if any {
        let _visit = Visit::of(context as u64);
        // What has failed is told by what comes next.
        // SAFETY: no arguments.
        because(Because::Order, || unsafe { forward::cuCtxSynchronize() });
    }
}

/// Before a context ends. Its server waits for all copies then, which may use buffers of whichever context, and while it
/// does could not hear that a function has returned for which one of them waits.
fn wait_for_all_functions(context: CUcontext) {
    let contexts = sessions().map(|all| all.of(context as u64).callbacks.contexts());
    contexts
        .into_iter()
        .flatten()
        .for_each(|context| wait_for_functions_in(context as CUcontext));
}

/// What the client forgets when a context ends.
fn ended(context: CUcontext) {
    if let Some(credit) = credit_of(context as u64) {
        credit.end();
    }
    if let Ok(known) = known(context) {
        known.lives.fetch_add(1, Ordering::Relaxed);
    }
    harp_driver_front::context_storage::context_ended(context);
    if let Ok(sessions) = sessions() {
        sessions.addresses.remove_context(context as u64);
        for session in sessions.iter() {
            session.end_twins_of(context as u64);
        }
    }
    session::context_changed();
}

pub unsafe fn cuDevicePrimaryCtxRetain(pctx: *mut CUcontext, dev: CUdevice) -> CUresult {
    let primary = match primary(dev) {
        Ok(primary) => primary,
        Err(code) => return code,
    };
    let Retains { count, active, .. } = primary.retains;
    let _transition = lock(&primary.retains.transition);
    if !active.load(Ordering::Relaxed) {
        let status = retain(&primary);
        if status != CUDA_SUCCESS {
            return status;
        }
        active.store(true, Ordering::Relaxed);
        session::context_begun(primary.handle as u64, true);
    }
    count.fetch_add(1, Ordering::Relaxed);
    unsafe { put(pctx, primary.handle) }
}

/// Has the server retain a primary context, without waiting for that where it is there already.
fn retain(primary: &Primary) -> CUresult {
    let Primary {
        handle, ordinal, ..
    } = *primary;
    if !primary.device.context_ready.swap(false, Ordering::Relaxed) {
        // SAFETY: plain values.
        return unsafe { forward::cuDevicePrimaryCtxRetain(handle, ordinal) };
    }
    match sessions() {
        Ok(sessions) => {
            let session = sessions.of(handle as u64);
            session.one_way(CallId::cuDevicePrimaryCtxRetain, |encoder| {
                encode_cuDevicePrimaryCtxRetain(encoder, handle as u64, ordinal);
            })
        }
        Err(code) => code,
    }
}

pub unsafe fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) -> CUresult {
    let primary = match primary(dev) {
        Ok(primary) => primary,
        Err(code) => return code,
    };
    let Retains { count, active, .. } = primary.retains;
    let _transition = lock(&primary.retains.transition);
    match count.load(Ordering::Relaxed) {
        0 => CUDA_ERROR_INVALID_CONTEXT,
        1 if active.load(Ordering::Relaxed) => {
            wait_for_all_functions(primary.handle);
            active.store(false, Ordering::Relaxed);
            count.store(0, Ordering::Relaxed);
            ended(primary.handle);
            // The handle stays live: it is the same primary context's when retained again.
            unsafe { forward::cuDevicePrimaryCtxRelease_v2(primary.handle, primary.ordinal) }
        }
        _ => {
            count.fetch_sub(1, Ordering::Relaxed);
            CUDA_SUCCESS
        }
    }
}

/// Ends everything in the primary context. Its retains count on, and nothing can be done in it before
/// the next one.
pub unsafe fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) -> CUresult {
    let primary = match primary(dev) {
        Ok(primary) => primary,
        Err(code) => return code,
    };
    let _transition = lock(&primary.retains.transition);
    if !primary.retains.active.load(Ordering::Relaxed) {
        return CUDA_SUCCESS;
    }
    wait_for_all_functions(primary.handle);
    primary.retains.active.store(false, Ordering::Relaxed);
    ended(primary.handle);
    unsafe { forward::cuDevicePrimaryCtxReset_v2(primary.handle, primary.ordinal) }
}

pub unsafe fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint) -> CUresult {
    if flags & !KNOWN_FLAGS != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    match primary(dev) {
        Ok(primary) => {
            // How a thread waits is decided here, not on the server.
            primary.context.flags.store(flags, Ordering::Relaxed);
            CUDA_SUCCESS
        }
        Err(code) => code,
    }
}

pub unsafe fn cuDevicePrimaryCtxGetState(
    dev: CUdevice,
    flags: *mut c_uint,
    active: *mut c_int,
) -> CUresult {
    match primary(dev) {
        Ok(primary) => unsafe {
            put_if_wanted(
                active,
                c_int::from(primary.retains.active.load(Ordering::Relaxed)),
            );
            put(flags, primary.context.flags.load(Ordering::Relaxed))
        },
        Err(code) => code,
    }
}

pub unsafe fn cuCtxCreate_v2(pctx: *mut CUcontext, flags: c_uint, dev: CUdevice) -> CUresult {
    if pctx.is_null() || flags & !KNOWN_FLAGS != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let made = sessions().and_then(|sessions| {
        let device = device(sessions, dev)?;
        Ok((
            device.ordinal,
            new_context(dev, device.session, flags, false)?,
        ))
    });
    let (ordinal, handle) = match made {
        Ok((ordinal, handle)) => (ordinal, handle as CUcontext),
        Err(code) => return code,
    };
    let status = unsafe { forward::cuCtxCreate_v2(handle, flags, ordinal) };
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Context, handle);
        return status;
    }
    session::context_begun(handle as u64, false);
    stack::push(handle);
    unsafe { put(pctx, handle) }
}

pub unsafe fn cuCtxCreate_v3(
    pctx: *mut CUcontext,
    affinity: *mut CUexecAffinityParam,
    count: c_int,
    flags: c_uint,
    dev: CUdevice,
) -> CUresult {
    if count != 0 || !affinity.is_null() {
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    }
    unsafe { cuCtxCreate_v2(pctx, flags, dev) }
}

pub unsafe fn cuCtxCreate_v4(
    pctx: *mut CUcontext,
    params: *mut CUctxCreateParams,
    flags: c_uint,
    dev: CUdevice,
) -> CUresult {
    if !params.is_null() {
        // SAFETY: the caller passes a CUctxCreateParams.
        let params = unsafe { &*params };
        if params.numExecAffinityParams != 0 || !params.cigParams.is_null() {
            return CUDA_ERROR_NOT_SUPPORTED;
        }
    }
    unsafe { cuCtxCreate_v2(pctx, flags, dev) }
}

pub unsafe fn cuCtxDestroy_v2(ctx: CUcontext) -> CUresult {
    match named(ctx) {
        Ok(context) if context.primary.is_some() => return CUDA_ERROR_INVALID_CONTEXT,
        Ok(_) => (),
        Err(code) => return code,
    }
    wait_for_all_functions(ctx);
    if stack::current() == ctx {
        stack::pop();
    }
    ended(ctx);
    let status = unsafe { forward::cuCtxDestroy_v2(ctx) };
    handles::destroy(HandleKind::Context, ctx);
    status
}

pub unsafe fn cuCtxPushCurrent_v2(ctx: CUcontext) -> CUresult {
    match sessions().and_then(|_| named(ctx)) {
        Ok(_) => {
            stack::push(ctx);
            CUDA_SUCCESS
        }
        Err(code) => code,
    }
}

pub unsafe fn cuCtxPopCurrent_v2(pctx: *mut CUcontext) -> CUresult {
    if let Err(code) = sessions() {
        return code;
    }
    match stack::pop() {
        Some(context) => {
            unsafe { put_if_wanted(pctx, context) };
            CUDA_SUCCESS
        }
        None => CUDA_ERROR_INVALID_CONTEXT,
    }
}

pub unsafe fn cuCtxSetCurrent(ctx: CUcontext) -> CUresult {
    let checked = sessions().and_then(|_| {
        if ctx.is_null() {
            Ok(())
        } else {
            known(ctx).map(drop)
        }
    });
    match checked {
        Ok(()) => {
            stack::set_current(ctx);
            CUDA_SUCCESS
        }
        Err(code) => code,
    }
}

pub unsafe fn cuCtxGetCurrent(pctx: *mut CUcontext) -> CUresult {
    match sessions() {
        Ok(_) => unsafe { put(pctx, stack::current()) },
        Err(code) => code,
    }
}

pub unsafe fn cuCtxGetDevice(dev: *mut CUdevice) -> CUresult {
    // An un-retained primary context has a device too.
    match sessions().and_then(|_| known(stack::current())) {
        Ok(context) => unsafe { put(dev, context.device) },
        Err(code) => code,
    }
}

pub unsafe fn cuCtxGetDevice_v2(dev: *mut CUdevice, ctx: CUcontext) -> CUresult {
    let context = if ctx.is_null() { stack::current() } else { ctx };
    match sessions().and_then(|_| known(context)) {
        Ok(context) => unsafe { put(dev, context.device) },
        Err(code) => code,
    }
}

pub unsafe fn cuCtxGetApiVersion(ctx: CUcontext, version: *mut c_uint) -> CUresult {
    let context = if ctx.is_null() { stack::current() } else { ctx };
    match sessions().and_then(|_| known(context)) {
        Ok(_) => unsafe { put(version, API_VERSION) },
        Err(code) => code,
    }
}

pub unsafe fn cuCtxGetFlags(flags: *mut c_uint) -> CUresult {
    match sessions().and_then(|_| known(current_context()?)) {
        Ok(context) => unsafe { put(flags, context.flags.load(Ordering::Relaxed)) },
        Err(code) => code,
    }
}

pub unsafe fn cuCtxSetFlags(flags: c_uint) -> CUresult {
    match sessions().and_then(|_| known(current_context()?)) {
        Ok(context) => {
            context.flags.store(flags, Ordering::Relaxed);
            CUDA_SUCCESS
        }
        Err(code) => code,
    }
}

pub unsafe fn cuCtxGetId(ctx: CUcontext, id: *mut c_ulonglong) -> CUresult {
    match sessions().and_then(|_| id_of(ctx)) {
        Ok(known) => unsafe { put(id, known) },
        Err(code) => code,
    }
}

pub unsafe fn cuCtxSynchronize() -> CUresult {
    match sessions().and_then(|sessions| Ok((sessions, current_context()? as u64))) {
        Ok((sessions, context)) => sessions.of(context).wait_until_idle(context),
        Err(code) => code,
    }
}

pub unsafe fn cuCtxSynchronize_v2(ctx: CUcontext) -> CUresult {
    if ctx.is_null() || ctx == stack::current() {
        return unsafe { cuCtxSynchronize() };
    }
    if let Err(code) = sessions().and_then(|_| known(ctx)) {
        return code;
    }
    let _visit = Visit::of(ctx as u64);
    unsafe { cuCtxSynchronize() }
}

/// Devices of two servers do not reach each other's memory.
pub unsafe fn cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint) -> CUresult {
    match reaches(peer) {
        Ok(true) => unsafe { forward::cuCtxEnablePeerAccess(peer, flags) },
        Ok(false) => CUDA_ERROR_PEER_ACCESS_UNSUPPORTED,
        Err(code) => code,
    }
}

pub unsafe fn cuCtxDisablePeerAccess(peer: CUcontext) -> CUresult {
    match reaches(peer) {
        Ok(true) => unsafe { forward::cuCtxDisablePeerAccess(peer) },
        Ok(false) => CUDA_ERROR_PEER_ACCESS_NOT_ENABLED,
        Err(code) => code,
    }
}

/// Whether a context is of the current one's server.
fn reaches(peer: CUcontext) -> Result<bool, CUresult> {
    sessions()?;
    let current = current_context()? as u64;
    known(peer)?;
    Ok(session_of(current) == session_of(peer as u64))
}
