//! Two scripted servers: each hears what is about its own device and nothing else, and memory that both
//! say to have at the same addresses is not given to the program.

mod support;

use std::net::TcpListener;
use std::ptr::null_mut;
use std::thread;

use harp_cuda_abi::types::*;
use harp_interposer::session::handles::session_of;
use harp_interposer::session::sessions;
use harp_wire::CallId;
use support::{credentials, Script};

extern "C" {
    fn cuInit(flags: u32) -> CUresult;
    fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> CUresult;
    fn cuCtxSetCurrent(context: CUcontext) -> CUresult;
    fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> CUresult;
    fn cuMemFree_v2(address: CUdeviceptr) -> CUresult;
    fn cuStreamCreate(stream: *mut CUstream, flags: u32) -> CUresult;
    fn cuStreamSynchronize(stream: CUstream) -> CUresult;
    fn cuEventCreate(event: *mut CUevent, flags: u32) -> CUresult;
    fn cuEventRecord(event: CUevent, stream: CUstream) -> CUresult;
    fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: u32) -> CUresult;
    fn cuCtxEnablePeerAccess(peer: CUcontext, flags: u32) -> CUresult;
}

const ADDRESS: u64 = 0x7000_0000_0000;

/// Hears so many calls and returns them. Allocations are answered with addresses from a list, all else
/// with success.
fn serve(mut script: Script, calls: usize, mut addresses: Vec<u64>) -> Vec<CallId> {
    let mut heard = Vec::new();
    while heard.len() < calls {
        let seen = script.next();
        heard.push(seen.call);
        if seen.ticket.is_some() {
            script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |reply| {
                if seen.call == CallId::cuMemAlloc_v2 {
                    reply.u64(addresses.remove(0));
                }
            });
        }
    }
    heard
}

#[test]
fn each_server_hears_what_is_its_own() {
    let directory = std::env::temp_dir().join(format!("harp-two-{}", std::process::id()));
    let config = credentials(&directory);
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = listeners
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().to_string());
    std::env::set_var("HARP_SERVER", addresses.join(","));
    std::env::set_var("HARP_CREDENTIALS", &directory);
    let given = [
        (10, vec![ADDRESS]),
        (8, vec![ADDRESS + 4096, ADDRESS + (1 << 20)]),
    ];
    let mut servers = Vec::new();
    for (listener, (calls, given)) in listeners.into_iter().zip(given) {
        let config = config.clone();
        servers.push(thread::spawn(move || {
            serve(Script::welcome(&listener, &config, "s"), calls, given)
        }));
    }

    let mut contexts = [null_mut(); 2];
    let (mut streams, mut events) = ([null_mut(); 2], [null_mut(); 2]);
    let mut memory = [0; 2];
    // SAFETY: every call is made as cuda.h says.
    unsafe {
        assert_eq!(cuInit(0), CUDA_SUCCESS);
        assert_eq!(sessions().unwrap().devices.len(), 2);
        for device in 0..2 {
            assert_eq!(
                cuDevicePrimaryCtxRetain(&mut contexts[device], device as i32),
                CUDA_SUCCESS
            );
            assert_eq!(session_of(contexts[device] as u64), device);
            assert_eq!(cuCtxSetCurrent(contexts[device]), CUDA_SUCCESS);
            assert_eq!(cuStreamCreate(&mut streams[device], 0), CUDA_SUCCESS);
            assert_eq!(cuEventCreate(&mut events[device], 0), CUDA_SUCCESS);
            assert_eq!(cuEventRecord(events[device], streams[device]), CUDA_SUCCESS);
        }
        // With the second device's context current.
        assert_eq!(cuStreamSynchronize(streams[0]), CUDA_SUCCESS);
        assert_eq!(
            cuEventRecord(events[0], streams[1]),
            CUDA_ERROR_INVALID_HANDLE
        );
        assert_eq!(
            cuStreamWaitEvent(streams[1], events[0], 0),
            CUDA_SUCCESS,
            "the program waits by itself"
        );
        assert_eq!(
            cuCtxEnablePeerAccess(contexts[0], 0),
            CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
        );
        // The first server's 64 KiB reach over what the second one says to have.
        cuCtxSetCurrent(contexts[0]);
        assert_eq!(cuMemAlloc_v2(&mut memory[0], 64 << 10), CUDA_SUCCESS);
        cuCtxSetCurrent(contexts[1]);
        assert_eq!(
            cuMemAlloc_v2(&mut memory[1], 4096),
            CUDA_ERROR_OUT_OF_MEMORY
        );
        assert_eq!(cuMemAlloc_v2(&mut memory[1], 4096), CUDA_SUCCESS);
        assert_eq!(memory, [ADDRESS, ADDRESS + (1 << 20)]);
        assert_eq!(cuMemFree_v2(memory[0]), CUDA_SUCCESS);
    }

    let heard: Vec<_> = servers
        .into_iter()
        .map(|server| server.join().unwrap())
        .collect();
    let begun = [
        CallId::cuDevicePrimaryCtxRetain,
        CallId::harp_set_current,
        CallId::cuStreamCreateWithPriority,
        CallId::cuEventCreate,
        CallId::cuEventRecord,
    ];
    assert_eq!(heard[0][..5], begun);
    assert_eq!(heard[1][..5], begun);
    // Told of its own again, since another has begun, this server keeps it while the other's is current.
    assert_eq!(
        heard[0][5..],
        [
            CallId::harp_set_current,
            CallId::cuStreamSynchronize,
            CallId::cuEventSynchronize,
            CallId::cuMemAlloc_v2,
            CallId::cuMemFree_v2,
        ]
    );
    // What cannot be used is given back.
    assert_eq!(
        heard[1][5..],
        [
            CallId::cuMemAlloc_v2,
            CallId::cuMemFree_v2,
            CallId::cuMemAlloc_v2,
        ]
    );
    std::fs::remove_dir_all(&directory).unwrap();
}
