//! What is recorded of a session, as the recorder finds it in the ring: a scripted server, a few calls,
//! and a reader that comes when they have been made, so that nothing but the ring holds them.

mod support;

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::thread;

use harp_cuda_abi::types::*;
use harp_interposer as _; // its symbols
use harp_trace::block::{Block, Kind, Policy};
use harp_trace::greeting;
use harp_trace::ring::Consumer;
use harp_wire::record::{RecordHead, RECORD_HEAD_BYTES};
use harp_wire::CallId;
use support::{credentials, Script};

extern "C" {
    fn cuInit(flags: u32) -> CUresult;
    fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> CUresult;
    fn cuCtxSetCurrent(context: CUcontext) -> CUresult;
    fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> CUresult;
    fn cuMemFree_v2(address: CUdeviceptr) -> CUresult;
    fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const u8, bytes: usize) -> CUresult;
    fn cuMemcpyDtoH_v2(to: *mut u8, from: CUdeviceptr, bytes: usize) -> CUresult;
}

const ADDRESS: u64 = 0x7000_0000_0000;
const SMALL: usize = 100;
/// Sent from where it lies.
const LARGE: usize = 300 << 10;

fn accept(listener: &OwnedFd) -> OwnedFd {
    use std::os::fd::AsRawFd;
    // SAFETY: a descriptor that is held, and a new one.
    unsafe {
        let socket = libc::accept(listener.as_raw_fd(), null_mut(), null_mut());
        assert!(socket >= 0);
        OwnedFd::from_raw_fd(socket)
    }
}

/// A block, shortened to what is compared.
#[derive(Debug, PartialEq)]
enum Told {
    Json(Kind),
    Thread,
    Enter(String),
    Leave(CUresult),
    /// The call, the bytes of its record, and its payload's policy and length.
    Call(CallId, usize, Option<(Policy, u64)>),
    Reply(Option<(Policy, u64)>),
    Wait(&'static str, bool),
    Allocation(u64, u64),
    Free(u64),
    /// Data, as it came through the ring.
    Part(Vec<u8>),
}

fn told(block: &Block, names: &[String], reasons: &[&'static str]) -> Option<Told> {
    let payload = |payload: &Option<harp_trace::block::Payload>| {
        payload.map(|payload| (payload.policy, payload.length))
    };
    Some(match block {
        Block::Define(_) => Told::Json(Kind::Define),
        Block::Process(_) => Told::Json(Kind::Process),
        Block::Session(_) => Told::Json(Kind::Session),
        Block::Thread { name, .. } => {
            assert!(!name.is_empty());
            Told::Thread
        }
        Block::Enter { symbol, .. } => Told::Enter(names[usize::from(*symbol)].clone()),
        Block::Leave { result, .. } => Told::Leave(*result),
        Block::Call(message) => {
            let head = message.bytes.first_chunk::<RECORD_HEAD_BYTES>().unwrap();
            let head = RecordHead::decode(head).unwrap();
            let cut = message.payload.map_or(0, |payload| payload.length as usize);
            let whole = RECORD_HEAD_BYTES + head.argument_bytes;
            assert_eq!(message.bytes.len() + cut, whole, "{}", head.call.0);
            Told::Call(head.call, whole, payload(&message.payload))
        }
        Block::Reply(message) => Told::Reply(payload(&message.payload)),
        Block::Wait {
            reason,
            ticket,
            began,
            ended,
            ..
        } => {
            assert!(began <= ended);
            Told::Wait(reasons[usize::from(*reason)], *ticket != 0)
        }
        Block::Allocation { address, bytes, .. } => Told::Allocation(*address, *bytes),
        Block::Free { address, .. } => Told::Free(*address),
        Block::Part { bytes, keep, .. } => {
            assert!(keep);
            Told::Part(bytes.to_vec())
        }
        _ => return None,
    })
}

#[test]
fn a_session_is_recorded_in_the_order_of_its_stream() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let config = credentials(directory);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let recorder = greeting::listen(&directory.join("recorder")).unwrap();
    std::env::set_var("HARP_SERVER", listener.local_addr().unwrap().to_string());
    std::env::set_var("HARP_CREDENTIALS", directory);
    std::env::set_var("HARP_TRACE_SOCKET", directory.join("recorder"));
    std::env::set_var("HARP_TRACE_PAYLOAD", "full");

    let downloaded: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    let answer = downloaded.clone();
    let server = thread::spawn(move || {
        let mut script = Script::welcome(&listener, &config, "s1");
        let retained = script.next();
        script.answer(&retained, CUDA_SUCCESS, CUDA_SUCCESS, |_| ());
        loop {
            let seen = script.next();
            match seen.call {
                CallId::cuMemAlloc_v2 => {
                    script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |e| e.u64(ADDRESS));
                }
                CallId::cuMemcpyDtoH_v2 => {
                    script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |e| e.bytes(&answer));
                }
                CallId::cuCtxSynchronize => {
                    script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |_| ());
                }
                CallId::cuMemFree_v2 => return assert_eq!(seen.ticket, None),
                _ => assert_eq!(seen.ticket, None),
            }
        }
    });

    let uploaded: Vec<u8> = (0..LARGE).map(|at| (at % 241) as u8).collect();
    let (mut context, mut address) = (null_mut(), 0);
    let mut landed = vec![0; LARGE];
    // SAFETY: places for what is returned; the memory holds as many bytes as are copied.
    unsafe {
        assert_eq!(cuInit(0), CUDA_SUCCESS);
        assert_eq!(cuInit(1), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), CUDA_SUCCESS);
        assert_eq!(cuCtxSetCurrent(context), CUDA_SUCCESS);
        assert_eq!(cuMemAlloc_v2(&mut address, LARGE), CUDA_SUCCESS);
        let to_device = |bytes| cuMemcpyHtoD_v2(address, uploaded.as_ptr(), bytes);
        assert_eq!([8, SMALL, LARGE].map(to_device), [CUDA_SUCCESS; 3]);
        assert_eq!(
            cuMemcpyDtoH_v2(landed.as_mut_ptr(), address, LARGE),
            CUDA_SUCCESS
        );
        assert_eq!(cuMemFree_v2(address), CUDA_SUCCESS);
    }
    assert_eq!(landed, downloaded);
    server.join().unwrap();

    let greeting = greeting::receive(&accept(&recorder), 1000).unwrap();
    assert_eq!(greeting.pid, std::process::id() as i32);
    let mut ring = Consumer::attach(greeting.ring).unwrap();
    let (mut names, mut found) = (Vec::new(), Vec::new());
    let reasons = harp_wire::Because::ALL.map(|because| because.name());
    let mut last = 0;
    while let Some(raw) = ring.next().unwrap() {
        let block = Block::decode(raw).unwrap();
        if let Block::Define(json) = block {
            let value: serde_json::Value = serde_json::from_slice(json).unwrap();
            let all = value["symbols"].as_array().unwrap().iter();
            names = all.map(|name| name.as_str().unwrap().to_owned()).collect();
            assert_eq!(value["reasons"].as_array().unwrap().len(), reasons.len());
        }
        if let Block::Enter { time, .. } | Block::Leave { time, .. } = block {
            assert!(time >= last, "one thread's calls are in order");
            last = time;
        }
        found.extend(told(&block, &names, &reasons));
    }
    let enter = |name: &str| Told::Enter(name.to_owned());
    let call = |call, bytes| Told::Call(call, bytes, None);
    let with = |call, bytes, payload: usize| {
        let payload = (Policy::Full, payload as u64);
        Told::Call(call, bytes + payload.1 as usize, Some(payload))
    };
    let part = |bytes: &[u8]| Told::Part(bytes.to_vec());
    const PART: usize = harp_trace::block::PART_MAX;
    const COPY: usize = RECORD_HEAD_BYTES + 8 + 8 + 8;
    let expected = [
        Told::Json(Kind::Define),
        Told::Json(Kind::Process),
        Told::Thread,
        enter("cuInit"),
        Told::Json(Kind::Session),
        Told::Wait("start_up", false),
        Told::Leave(CUDA_SUCCESS),
        enter("cuInit"),
        Told::Leave(CUDA_ERROR_INVALID_VALUE),
        enter("cuDevicePrimaryCtxRetain"),
        call(CallId::cuDevicePrimaryCtxRetain, RECORD_HEAD_BYTES + 12),
        Told::Reply(None),
        Told::Wait("life", true),
        Told::Leave(CUDA_SUCCESS),
        enter("cuCtxSetCurrent"),
        Told::Leave(CUDA_SUCCESS),
        enter("cuMemAlloc_v2"),
        call(CallId::harp_set_current, RECORD_HEAD_BYTES + 8),
        call(CallId::cuMemAlloc_v2, RECORD_HEAD_BYTES + 8),
        Told::Reply(None),
        Told::Wait("allocation", true),
        Told::Allocation(ADDRESS, LARGE as u64),
        Told::Leave(CUDA_SUCCESS),
        enter("cuMemcpyHtoD_v2"),
        call(CallId::cuMemcpyHtoD_v2, COPY + 8),
        Told::Leave(CUDA_SUCCESS),
        enter("cuMemcpyHtoD_v2"),
        part(&uploaded[..SMALL]),
        with(CallId::cuMemcpyHtoD_v2, COPY, SMALL),
        Told::Leave(CUDA_SUCCESS),
        enter("cuMemcpyHtoD_v2"),
        part(&uploaded[..PART]),
        part(&uploaded[PART..]),
        with(CallId::cuMemcpyHtoD_v2, COPY, LARGE),
        Told::Leave(CUDA_SUCCESS),
        enter("cuMemcpyDtoH_v2"),
        call(CallId::cuMemcpyDtoH_v2, COPY),
        part(&downloaded[..PART]),
        part(&downloaded[PART..]),
        Told::Reply(Some((Policy::Full, LARGE as u64))),
        Told::Wait("data", true),
        Told::Leave(CUDA_SUCCESS),
        enter("cuMemFree_v2"),
        Told::Free(ADDRESS),
        call(CallId::cuCtxSynchronize, RECORD_HEAD_BYTES),
        Told::Reply(None),
        Told::Wait("free", true),
        call(CallId::cuMemFree_v2, RECORD_HEAD_BYTES + 8),
        Told::Leave(CUDA_SUCCESS),
    ];
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "block {at}");
    }
    assert_eq!(found.len(), expected.len());
}
