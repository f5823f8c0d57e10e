//! Streams: made with handles of the client's choosing; what they were made with is known here.

use std::ffi::{c_int, c_uint, c_ulonglong};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::OnceLock;

use harp_cuda_abi::types::*;
use harp_wire::HandleKind;

use super::context::{current_context, current_device};
use super::outputs::{put, put_if_wanted};
use crate::generated::forward;
use crate::session::handles::{session_of, Renewed};
use crate::session::{handles, sessions};

/// What a stream was made with.
struct Stream {
    flags: c_uint,
    priority: c_int,
    context: u64,
    device: CUdevice,
}

/// The same, of a stream that was created.
struct Created {
    flags: AtomicU32,
    priority: AtomicI32,
    context: AtomicU64,
    device: AtomicI32,
}

impl Created {
    fn new(stream: Stream) -> Created {
        Created {
            flags: AtomicU32::new(stream.flags),
            priority: AtomicI32::new(stream.priority),
            context: AtomicU64::new(stream.context),
            device: AtomicI32::new(stream.device),
        }
    }

    fn context(&self) -> u64 {
        self.context.load(Ordering::Relaxed)
    }

    fn stream(&self) -> Stream {
        Stream {
            flags: self.flags.load(Ordering::Relaxed),
            priority: self.priority.load(Ordering::Relaxed),
            context: self.context(),
            device: self.device.load(Ordering::Relaxed),
        }
    }
}

impl Renewed for Created {
    fn renew(&self, new: Created) {
        let new = new.stream();
        self.flags.store(new.flags, Ordering::Relaxed);
        self.priority.store(new.priority, Ordering::Relaxed);
        self.context.store(new.context, Ordering::Relaxed);
        self.device.store(new.device, Ordering::Relaxed);
    }
}

/// A priority within the range of the current device, which is of that session, as its driver clamps it.
fn clamped(priority: c_int, session: usize) -> c_int {
    /// By session: a driver has one range for all devices.
    static RANGES: [OnceLock<(c_int, c_int)>; handles::MOST_SESSIONS] =
        [const { OnceLock::new() }; handles::MOST_SESSIONS];
    if priority == 0 {
        return 0;
    }
    let (least, greatest) = *RANGES[session].get_or_init(|| {
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: local storage. A failure leaves the one priority that every device has.
        unsafe { forward::cuCtxGetStreamPriorityRange(&mut least, &mut greatest) };
        (least, greatest)
    });
    priority.clamp(greatest.min(least), least)
}

/// What is known of a stream argument; the default streams belong to the current context.
fn known(stream: CUstream) -> Result<Stream, CUresult> {
    sessions()?;
    let id = handles::live_stream(stream)?;
    if id <= handles::STREAM_PER_THREAD {
        let context = current_context()? as u64;
        return Ok(Stream {
            flags: 0,
            priority: 0,
            context,
            device: current_device()?,
        });
    }
    made(id).map(Created::stream)
}

/// The context that a stream argument belongs to.
pub fn context_of(stream: CUstream) -> Result<u64, CUresult> {
    match handles::live_stream(stream)? {
        id if id <= handles::STREAM_PER_THREAD => current_context().map(|context| context as u64),
        id => made(id).map(Created::context),
    }
}

/// What is known of a created stream.
fn made(id: u64) -> Result<&'static Created, CUresult> {
    // SAFETY: every stream handle is given one when it is made.
    unsafe { handles::attached::<Created>(id) }.ok_or(CUDA_ERROR_INVALID_HANDLE)
}

fn with(stream: CUstream, act: impl FnOnce(Stream) -> CUresult) -> CUresult {
    match known(stream) {
        Ok(stream) => act(stream),
        Err(code) => code,
    }
}

pub unsafe fn cuStreamCreate(stream: *mut CUstream, flags: c_uint) -> CUresult {
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

pub unsafe fn cuStreamCreateWithPriority(
    stream: *mut CUstream,
    flags: c_uint,
    priority: c_int,
) -> CUresult {
    if stream.is_null() || flags & !CU_STREAM_NON_BLOCKING != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let (context, device) =
        match sessions().and_then(|_| Ok((current_context()? as u64, current_device()?))) {
            Ok(both) => both,
            Err(code) => return code,
        };
    let session = session_of(context);
    let priority = clamped(priority, session);
    let made = match handles::create(HandleKind::Stream, session) {
        Ok(made) => made,
        Err(code) => return code,
    };
    let known = Created::new(Stream {
        flags,
        priority,
        context,
        device,
    });
    // SAFETY: as every stream handle is given.
    unsafe { handles::attach_again(made, known) };
    let status = unsafe { forward::cuStreamCreateWithPriority(made as CUstream, flags, priority) };
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Stream, made as CUstream);
        return status;
    }
    unsafe { put(stream, made as CUstream) }
}

pub unsafe fn cuStreamGetFlags(stream: CUstream, flags: *mut c_uint) -> CUresult {
    with(stream, |stream| unsafe { put(flags, stream.flags) })
}

pub unsafe fn cuStreamGetPriority(stream: CUstream, priority: *mut c_int) -> CUresult {
    with(stream, |stream| unsafe { put(priority, stream.priority) })
}

pub unsafe fn cuStreamGetCtx(stream: CUstream, context: *mut CUcontext) -> CUresult {
    with(stream, |stream| unsafe {
        put(context, stream.context as CUcontext)
    })
}

pub unsafe fn cuStreamGetCtx_v2(
    stream: CUstream,
    context: *mut CUcontext,
    green: *mut CUgreenCtx,
) -> CUresult {
    unsafe { put_if_wanted(green, std::ptr::null_mut()) };
    unsafe { cuStreamGetCtx(stream, context) }
}

pub unsafe fn cuStreamGetDevice(stream: CUstream, device: *mut CUdevice) -> CUresult {
    with(stream, |stream| unsafe { put(device, stream.device) })
}

pub unsafe fn cuStreamGetId(stream: CUstream, id: *mut c_ulonglong) -> CUresult {
    with(stream, |known| {
        // A default stream is another one in each context.
        let number = match stream as u64 {
            value if value <= handles::STREAM_PER_THREAD => known.context << 2 | value,
            handle => handle,
        };
        unsafe { put(id, number) }
    })
}

pub unsafe fn cuStreamIsCapturing(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
) -> CUresult {
    // Capture cannot begin here (cuStreamBeginCapture is not supported).
    with(stream, |_| unsafe {
        put(status, CU_STREAM_CAPTURE_STATUS_NONE)
    })
}

pub unsafe fn cuStreamGetCaptureInfo_v2(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    count: *mut usize,
) -> CUresult {
    with(stream, |_| unsafe {
        put_if_wanted(id, 0);
        put_if_wanted(graph, std::ptr::null_mut());
        put_if_wanted(dependencies, std::ptr::null());
        put_if_wanted(count, 0);
        put(status, CU_STREAM_CAPTURE_STATUS_NONE)
    })
}

pub unsafe fn cuStreamGetCaptureInfo_v3(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const CUgraphEdgeData,
    count: *mut usize,
) -> CUresult {
    unsafe {
        put_if_wanted(edges, std::ptr::null());
        cuStreamGetCaptureInfo_v2(stream, status, id, graph, dependencies, count)
    }
}

pub unsafe fn cuStreamGetCaptureInfo(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
) -> CUresult {
    unsafe {
        cuStreamGetCaptureInfo_v2(
            stream,
            status,
            id,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    }
}
