//! The session against a scripted server: batching, concurrent waits, errors that come later, and
//! a server that goes away. A session belongs to its process, so this is one story told in order.

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
    fn cuMemFree_v2(pointer: CUdeviceptr) -> CUresult;
    fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> CUresult;
    fn cuMemAllocManaged(address: *mut CUdeviceptr, bytes: usize, flags: u32) -> CUresult;
}

const ADDRESS: u64 = 0x7000_0000_0000;

fn nothing(_: &mut Encoder) {}

#[test]
fn a_session_from_the_first_call_to_the_servers_end() {
    let directory = std::env::temp_dir().join(format!("harp-session-{}", std::process::id()));
    let config = credentials(&directory);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    std::env::set_var("HARP_SERVER", listener.local_addr().unwrap().to_string());
    std::env::set_var("HARP_CREDENTIALS", &directory);
    let (go, wait_for_go) = mpsc::channel::<()>();

    let server = thread::spawn(move || {
        let mut script = Script::welcome(&listener, &config, "s1");

        // 1. A thousand one-way calls arrive whole, in order, in far fewer frames, and unasked.
        for number in 0..1000_u64 {
            let seen = script.next();
            assert_eq!((seen.call, seen.ticket), (CallId::cuEventRecord, None));
            assert_eq!(seen.arguments, number.to_le_bytes());
        }
        assert!(script.frames < 500, "{} frames", script.frames);
        go_on(&wait_for_go);

        // 2. Two threads wait; the one that asked last is answered first.
        let (first, second) = (script.next(), script.next());
        for seen in [second, first] {
            let value = seen.arguments.clone();
            script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |reply| {
                reply.u64(u64::from_le_bytes(value[..8].try_into().unwrap()));
            });
        }

        // 3. What an earlier call failed with comes once, beside a success; a failure keeps its code.
        let seen = script.next();
        script.answer(&seen, CUDA_SUCCESS, CUDA_ERROR_ILLEGAL_ADDRESS, nothing);
        let seen = script.next();
        script.answer(&seen, CUDA_ERROR_NOT_READY, CUDA_SUCCESS, nothing);

        // 4. Bytes land where they were asked to.
        let seen = script.next();
        script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |reply| {
            reply.bytes(b"landed")
        });

        // 5. What was made beside an earlier call's error is given back.
        let retained = script.next();
        script.answer(&retained, CUDA_SUCCESS, CUDA_SUCCESS, nothing);
        assert_eq!(script.next().call, CallId::harp_set_current);
        let seen = script.next();
        script.answer(&seen, CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE, |reply| {
            reply.u64(ADDRESS);
        });
        let seen = script.next();
        assert_eq!(seen.call, CallId::cuMemFree_v2);
        assert_eq!(seen.arguments, ADDRESS.to_le_bytes());
        script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, nothing);
        let created = script.next();
        assert_eq!(created.call, CallId::harp_twin_create);
        script.answer(&created, CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE, nothing);
        let ended = script.next();
        assert_eq!(ended.call, CallId::harp_twin_destroy);
        assert_eq!(ended.arguments, created.arguments[..8]);

        // 6. Memory goes also where the device, which it waits for, has failed at something.
        let allocated = script.next();
        assert_eq!(allocated.call, CallId::cuMemAlloc_v2);
        script.answer(&allocated, CUDA_SUCCESS, CUDA_SUCCESS, |reply| {
            reply.u64(ADDRESS);
        });
        let waited = script.next();
        assert_eq!(waited.call, CallId::cuCtxSynchronize);
        script.answer(&waited, CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE, nothing);
        let freed = script.next();
        assert_eq!(freed.call, CallId::cuMemFree_v2);
        script.answer(&freed, CUDA_SUCCESS, CUDA_SUCCESS, nothing);

        // 7. The server goes away while a call waits.
        script.next();
    });

    assert_eq!(
        sessions().err(),
        Some(CUDA_ERROR_NOT_INITIALIZED),
        "cuInit comes first"
    );
    assert_eq!(attach_program().unwrap().devices[0].name, "Scripted");
    let session = sessions().unwrap().any();

    for number in 0..1000_u64 {
        let status = session.one_way(CallId::cuEventRecord, |encoder| encoder.u64(number));
        assert_eq!(status, CUDA_SUCCESS);
    }
    go.send(()).unwrap();

    let askers: Vec<_> = [10_u64, 20]
        .map(|value| {
            thread::spawn(move || {
                let mut answer = 0;
                let encode = |encoder: &mut Encoder| encoder.u64(value);
                let status = session.request(CallId::cuMemGetInfo_v2, encode, |reply| {
                    answer = reply.u64()
                });
                (status, answer == value)
            })
        })
        .into_iter()
        .collect();
    for asker in askers {
        assert_eq!(asker.join().unwrap(), (CUDA_SUCCESS, true));
    }

    let synchronize = || session.request(CallId::cuCtxSynchronize, |_| (), |_| ());
    assert_eq!(synchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(synchronize(), CUDA_ERROR_NOT_READY);

    let mut landing = [0_u8; 6];
    // SAFETY: `landing` outlives the wait right below.
    let ticket = unsafe {
        let encode = |encoder: &mut Encoder| encoder.u64(6);
        let (at, len) = (landing.as_mut_ptr(), landing.len());
        session.ask_bytes(CallId::cuMemcpyDtoH_v2, encode, at, len)
    };
    assert_eq!(session.finish_bytes(ticket.unwrap()), CUDA_SUCCESS);
    assert_eq!(&landing, b"landed");

    let (mut context, mut memory) = (null_mut(), 0);
    // SAFETY: every call is made as cuda.h says.
    unsafe {
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), CUDA_SUCCESS);
        assert_eq!(cuCtxSetCurrent(context), CUDA_SUCCESS);
        let status = cuMemAlloc_v2(&mut memory, 4096);
        assert_eq!(status, CUDA_ERROR_INVALID_VALUE);
        let status = cuMemAllocManaged(&mut memory, 4096, CU_MEM_ATTACH_GLOBAL);
        assert_eq!(status, CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemAlloc_v2(&mut memory, 4096), CUDA_SUCCESS);
        assert_eq!(cuMemFree_v2(memory), CUDA_ERROR_INVALID_VALUE);
    }

    assert_eq!(synchronize(), CUDA_ERROR_DEVICE_UNAVAILABLE);
    server.join().unwrap();
    assert_eq!(
        session.one_way(CallId::cuEventRecord, |encoder| encoder.u64(0)),
        CUDA_ERROR_DEVICE_UNAVAILABLE
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

fn go_on(signal: &mpsc::Receiver<()>) {
    signal.recv_timeout(TIMEOUT).expect("the client is stuck");
}
