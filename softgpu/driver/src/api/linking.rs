//! The linker.

use core::ffi::{c_char, c_void};

use harp_cuda_abi::types::*;

use crate::call::{call, out, text, Outcome};
use crate::context::Context;
use crate::jit_options::JitOptions;
use crate::link::{Link, LINKS};

use super::modules::read_file;

/// The log buffers are the whole operation's: the words of a failure go there, and to stderr.
pub unsafe fn cuLinkCreate_v2(
    num_options: u32,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
    state: *mut CUlinkState,
) -> CUresult {
    call(|| {
        let state = out(state)?;
        Context::current()?;
        let options = unsafe { JitOptions::new(num_options, options, values) };
        options.report("");
        state.set(Link::create(options));
        Ok(())
    })
}

fn add(state: CUlinkState, kind: CUjitInputType, input: &[u8]) -> Outcome {
    Context::current()?;
    let link = Link::get(state)?;
    match kind {
        CU_JIT_INPUT_PTX
        | CU_JIT_INPUT_FATBINARY
        | CU_JIT_INPUT_CUBIN
        | CU_JIT_INPUT_OBJECT
        | CU_JIT_INPUT_LIBRARY => link.add(input).map_err(|refusal| link.refuse(refusal)),
        CU_JIT_INPUT_NVVM => Err(CUDA_ERROR_NOT_SUPPORTED),
        _ => Err(CUDA_ERROR_INVALID_VALUE),
    }
}

pub unsafe fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    data: *mut c_void,
    size: usize,
    _name: *const c_char,
    _num_options: u32,
    _options: *mut CUjit_option,
    _values: *mut *mut c_void,
) -> CUresult {
    call(|| {
        out(data)?;
        add(state, kind, unsafe {
            core::slice::from_raw_parts(data.cast::<u8>(), size)
        })
    })
}

pub unsafe fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    path: *const c_char,
    _num_options: u32,
    _options: *mut CUjit_option,
    _values: *mut *mut c_void,
) -> CUresult {
    call(|| add(state, kind, &read_file(unsafe { text(path)? })?))
}

pub unsafe fn cuLinkComplete(
    state: CUlinkState,
    image: *mut *mut c_void,
    size: *mut usize,
) -> CUresult {
    call(|| {
        let (image, size) = (out(image)?, out(size)?);
        Context::current()?;
        let link = Link::get(state)?;
        let (start, length) = link.complete().map_err(|refusal| link.refuse(refusal))?;
        image.set(start.cast_mut().cast());
        size.set(length);
        Ok(())
    })
}

pub unsafe fn cuLinkDestroy(state: CUlinkState) -> CUresult {
    call(|| {
        LINKS
            .remove(state)
            .map(drop)
            .ok_or(CUDA_ERROR_INVALID_HANDLE)
    })
}
