//! Host functions in streams: they run in this process, the stream waits for them on the server.

use std::ffi::{c_uint, c_void};

use harp_cuda_abi::types::*;
use harp_wire::calls::encode_cuLaunchHostFunc;
use harp_wire::CallId;

use super::stream::context_of;
use crate::session::callbacks::HostFunction;
use crate::session::checks;

fn launch(stream: CUstream, function: HostFunction) -> CUresult {
    let queued = checks::stream(stream).and_then(|(session, id)| {
        let number = session.queue_host_function(function, context_of(stream)?)?;
        Ok((session, id, number))
    });
    let (session, stream, number) = match queued {
        Ok(queued) => queued,
        Err(code) => return code,
    };
    let status = session.one_way(CallId::cuLaunchHostFunc, |encoder| {
        encode_cuLaunchHostFunc(encoder, stream, number);
    });
    if status != CUDA_SUCCESS {
        session.callbacks.forget(number);
    }
    status
}

pub unsafe fn cuLaunchHostFunc(
    stream: CUstream,
    function: CUhostFn,
    data: *mut c_void,
) -> CUresult {
    match function {
        Some(function) => launch(
            stream,
            HostFunction::Plain {
                function,
                data: data as usize,
            },
        ),
        None => CUDA_ERROR_INVALID_VALUE,
    }
}

pub unsafe fn cuStreamAddCallback(
    stream: CUstream,
    function: CUstreamCallback,
    data: *mut c_void,
    flags: c_uint,
) -> CUresult {
    match function {
        Some(function) if flags == 0 => {
            let (stream_value, data) = (stream as usize, data as usize);
            launch(
                stream,
                HostFunction::WithStatus {
                    function,
                    stream: stream_value,
                    data,
                },
            )
        }
        _ => CUDA_ERROR_INVALID_VALUE,
    }
}
