//! Linking: the server's driver links; the linked image comes back, since the program owns it
//! until it destroys the link.

use std::ffi::{c_char, c_uint, c_void};
use std::sync::OnceLock;

use harp_cuda_abi::types::*;
use harp_wire::{calls, CallId, HandleKind};

use super::copy::{check, result};
use super::image;
use super::jit_options::JitOptions;
use super::module::name_argument;
use super::outputs::put;
use crate::generated::forward;
use crate::session::{checks, handles, Session};

/// What the client keeps for a link.
struct Link {
    /// The program keeps what they name until it destroys the link.
    options: JitOptions,
    image: OnceLock<Vec<u8>>,
}

fn known(state: CUlinkState) -> Result<(&'static Session, u64, &'static Link), CUresult> {
    let (session, id) = checks::live(HandleKind::Link, state)?;
    // SAFETY: every link handle is given a Link when it is made.
    let link = unsafe { handles::attached::<Link>(id) };
    link.map(|link| (session, id, link))
        .ok_or(CUDA_ERROR_INVALID_HANDLE)
}

pub unsafe fn cuLinkCreate_v2(
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
    state: *mut CUlinkState,
) -> CUresult {
    if state.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let made = checks::context()
        .and_then(|session| Ok((session, handles::create(HandleKind::Link, session.number)?)));
    let (session, handle) = match made {
        Ok(made) => made,
        Err(code) => return code,
    };
    let link = Link {
        // SAFETY: the program passes arrays of `count` elements.
        options: unsafe { JitOptions::new(count, options, values) },
        image: OnceLock::new(),
    };
    let Link { options, .. } = handles::attach(handle, link);
    let status = session.request(
        CallId::cuLinkCreate_v2,
        |encoder| {
            let (names, values) = (&options.names, &options.values);
            calls::encode_cuLinkCreate_v2(encoder, handle, names, values, options.log_bytes());
        },
        |_| (),
    );
    options.report(session);
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Link, handle as CUlinkState);
        return status;
    }
    unsafe { put(state, handle as CUlinkState) }
}

fn add(
    state: CUlinkState,
    kind: CUjitInputType,
    data: &[u8],
    name: *const c_char,
    options: &JitOptions,
) -> Result<(), CUresult> {
    let (session, id, link) = known(state)?;
    // SAFETY: the program passes a C string or NULL.
    let name = unsafe { name_argument(name) }.unwrap_or_default();
    let status = image::load(session, data, |blob| {
        session.request(
            CallId::cuLinkAddData_v2,
            |encoder| {
                let (names, values) = (&options.names, &options.values);
                calls::encode_cuLinkAddData_v2(encoder, id, kind, blob, &name, names, values);
            },
            |_| (),
        )
    });
    link.options.report(session);
    check(status)
}

pub unsafe fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    data: *mut c_void,
    size: usize,
    name: *const c_char,
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
) -> CUresult {
    if data.is_null() || size == 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the program says that `size` bytes are there.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
    // SAFETY: the program passes arrays of `count` elements.
    let options = unsafe { JitOptions::new(count, options, values) };
    result(add(state, kind, data, name, &options))
}

pub unsafe fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    path: *const c_char,
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
) -> CUresult {
    // SAFETY: the program passes a path.
    let data = unsafe { image::read_file(path) };
    // SAFETY: the program passes arrays of `count` elements.
    let options = unsafe { JitOptions::new(count, options, values) };
    result(data.and_then(|data| add(state, kind, &data, path, &options)))
}

pub unsafe fn cuLinkComplete(
    state: CUlinkState,
    image: *mut *mut c_void,
    size: *mut usize,
) -> CUresult {
    let (session, id, link) = match known(state) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let mut linked = Vec::new();
    let status = session.request(
        CallId::cuLinkComplete,
        |encoder| calls::encode_cuLinkComplete(encoder, id),
        |decoder| linked = calls::CuLinkCompleteReply::read(decoder).image.to_vec(),
    );
    link.options.report(session);
    if status != CUDA_SUCCESS {
        return status;
    }
    let kept = link.image.get_or_init(|| linked);
    unsafe {
        super::outputs::put_if_wanted(size, kept.len());
        put(image, kept.as_ptr().cast_mut().cast())
    }
}

pub unsafe fn cuLinkDestroy(state: CUlinkState) -> CUresult {
    match known(state) {
        Ok(_) => {
            let status = unsafe { forward::cuLinkDestroy(state) };
            handles::destroy(HandleKind::Link, state);
            status
        }
        Err(code) => code,
    }
}
