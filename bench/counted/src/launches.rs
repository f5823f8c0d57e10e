//! Empty launches from the frames of a client to a driver that does nothing, by the loop of a session. The worker's own
//! modules are built into this program: there is no jail, so that a run can be watched from outside.

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::ptr::without_provenance_mut;
use std::sync::Arc;

use harp_cuda_abi::types::{CUcontext, CUfunction, CUresult, CUstream, CUDA_ERROR_INVALID_VALUE};
use harp_wire::calls::{encode_cuLaunchKernel, encode_harp_set_current};
use harp_wire::{CallId, Encoder, HandleKind};

use crate::control::Control;
use crate::generated::driver::Driver;
use crate::linked::linked;
use crate::output::Output;
use crate::session::{lead, Cache, Ending, Engine, Intake, Relay, Replies, Session, Shared};

/// Launches of a frame: as the interposer sends them in a row.
const BATCH: usize = 200;
const THREAD: u32 = 1;

pub fn execute(folder: &Path, launches: usize) -> ! {
    let function = HandleKind::Function.handle(1);
    let context = HandleKind::Context.handle(1);
    let ((mut client, _), (sender, receiver)) = linked(folder);
    let mut frame = Encoder::new();
    let start = frame.begin_record(CallId::harp_set_current, None, THREAD);
    encode_harp_set_current(&mut frame, context);
    frame.end_record(start);
    for sent in 1..=launches {
        let start = frame.begin_record(CallId::cuLaunchKernel, None, THREAD);
        encode_cuLaunchKernel(&mut frame, function, [1; 3], [32, 1, 1], 0, 0, 0, &[0; 12]);
        frame.end_record(start);
        if sent % BATCH == 0 || sent == launches {
            client.send(&[frame.as_slice()]).unwrap();
            frame.clear();
        }
    }
    client.bye().unwrap();

    let driver: &'static Driver = Box::leak(Box::new(idle_driver()));
    let keeper = sender.keeper();
    let replies = Arc::new(Replies::new(sender, Output::capture().unwrap(), driver));
    let mut session = Session::new(driver, vec![0], replies.clone(), Cache::default());
    let mut know = |kind, handle| {
        let object = without_provenance_mut::<c_void>(64);
        session.handles.created(kind, handle, object, 0).unwrap();
    };
    know(HandleKind::Context, context);
    know(HandleKind::Function, function);
    let (control, _agent) = UnixDatagram::pair().unwrap();
    let shared = Arc::new(Shared {
        driver,
        replies,
        relay: Relay::default(),
        ending: Arc::new(Ending::new(Control::new(OwnedFd::from(control)))),
        keeper,
    });
    lead(Box::new(Engine::new(
        shared,
        session,
        Intake::new(receiver),
    )))
}

/// A driver whose kernels have a pointer and a number as parameters, and do nothing.
fn idle_driver() -> Driver {
    unsafe extern "C" fn set_current(_: CUcontext) -> CUresult {
        0
    }
    unsafe extern "C" fn parameter(
        _: CUfunction,
        index: usize,
        offset: *mut usize,
        size: *mut usize,
    ) -> CUresult {
        let Some((at, bytes)) = [(0, 8), (8, 4)].get(index) else {
            return CUDA_ERROR_INVALID_VALUE;
        };
        // SAFETY: the caller gives room for both.
        unsafe {
            *offset = *at;
            *size = *bytes;
        }
        0
    }
    #[rustfmt::skip]
    unsafe extern "C" fn launch(
        _: CUfunction, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: CUstream,
        _: *mut *mut c_void, _: *mut *mut c_void,
    ) -> CUresult {
        0
    }
    // A library that has none of a driver's functions: they answer that they are not there.
    let mut driver = Driver::load(c"libc.so.6").unwrap();
    driver.cuCtxSetCurrent = set_current;
    driver.cuFuncGetParamInfo = parameter;
    driver.cuLaunchKernel = launch;
    driver
}
