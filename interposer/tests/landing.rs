//! A server that is lost, or lies, within bytes that land while the program goes on.

mod support;

use std::net::TcpListener;
use std::ptr::null_mut;
use std::sync::mpsc;
use std::thread;

use harp_cuda_abi::types::*;
use harp_interposer::session::{attach_program, sessions};
use harp_wire::{CallId, Encoder};
use support::{credentials, Script, TIMEOUT};

extern "C" {
    fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> CUresult;
    fn cuCtxSetCurrent(context: CUcontext) -> CUresult;
    fn cuCtxSynchronize() -> CUresult;
}

#[test]
fn memory_is_the_programs_again_when_a_server_is_lost_within_what_lands_there() {
    let directory = std::env::temp_dir().join(format!("harp-landing-{}", std::process::id()));
    let config = credentials(&directory);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    std::env::set_var("HARP_SERVER", listener.local_addr().unwrap().to_string());
    std::env::set_var("HARP_CREDENTIALS", &directory);
    let server = thread::spawn(move || {
        let mut script = Script::welcome(&listener, &config, "s1");
        let retained = script.next();
        script.answer(&retained, CUDA_SUCCESS, CUDA_SUCCESS, |_| ());
        assert_eq!(script.next().call, CallId::harp_set_current);
        let copy = script.next();
        assert_eq!(copy.call, CallId::cuMemcpyDtoH_v2);
        assert_eq!(script.next().call, CallId::cuCtxSynchronize);
        // One byte less than were asked for.
        script.answer(&copy, CUDA_SUCCESS, CUDA_SUCCESS, |reply| {
            reply.bytes(b"lands")
        });
    });

    attach_program().unwrap();
    let session = sessions().unwrap().any();
    let mut context = null_mut();
    let mut memory = [0_u8; 6];
    let range = memory.as_ptr_range();
    let range = range.start as usize..range.end as usize;
    // SAFETY: every call is made as cuda.h says; `memory` is settled below.
    unsafe {
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), CUDA_SUCCESS);
        assert_eq!(cuCtxSetCurrent(context), CUDA_SUCCESS);
        let encode = |encoder: &mut Encoder| encoder.u64(6);
        let (at, len) = (memory.as_mut_ptr(), memory.len());
        let brought = session.bring(CallId::cuMemcpyDtoH_v2, encode, at, len, context as u64);
        assert_eq!(brought, Ok(()));
        assert_eq!(cuCtxSynchronize(), CUDA_ERROR_DEVICE_UNAVAILABLE);
    }
    server.join().unwrap();
    let (settled, is_settled) = mpsc::channel();
    thread::spawn(move || {
        session.settle(range);
        settled.send(())
    });
    is_settled
        .recv_timeout(TIMEOUT)
        .expect("the memory is free");
    std::fs::remove_dir_all(&directory).unwrap();
}
