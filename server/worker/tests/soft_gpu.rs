//! The built worker on the soft GPU: real code, executed behind the jail.

mod support;

use std::path::PathBuf;

use harp_cuda_abi::types::CUDA_ERROR_INVALID_DEVICE;
use harp_transport::Hello;
use harp_wire::calls::*;
use harp_wire::{windows, CallId, HandleKind};
use serde_json::Value;
use support::{copy_out, Client, Worker, USER};

/// `scale` multiplies each of n floats by one of its own; `forever` does not end.
const CODE: &[u8] = b"
.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(.param .u64 data, .param .f32 by, .param .u32 n)
{
    .reg .pred %p;
    .reg .b32 %r<6>;
    .reg .b64 %d<4>;
    .reg .f32 %f<4>;
    ld.param.u64 %d1, [data];
    ld.param.f32 %f1, [by];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    mul.wide.u32 %d2, %r5, 4;
    add.s64 %d3, %d1, %d2;
    ld.global.f32 %f2, [%d3];
    mul.f32 %f3, %f2, %f1;
    st.global.f32 [%d3], %f3;
DONE:
    ret;
}
.visible .entry forever()
{
LOOP:
    bra.uni LOOP;
}
";

/// The soft GPU's library, which cargo builds for these tests.
fn library() -> PathBuf {
    let folder = std::env::current_exe().unwrap();
    folder.parent().unwrap().join("libharp_softgpu.so")
}

fn start() -> Worker {
    Worker::start_with(&library(), &["--prepare"])
}

fn retain(client: &mut Client, serial: u64, device: i32) -> u32 {
    let context = HandleKind::Context.handle(serial);
    let retained = client.ask(1, CallId::cuDevicePrimaryCtxRetain, &|e| {
        encode_cuDevicePrimaryCtxRetain(e, context, device);
    });
    client.tell(1, CallId::harp_set_current, &|e| {
        encode_harp_set_current(e, context)
    });
    retained.status
}

/// The first addresses of the devices that a session was welcomed with, in windows.
fn windows_of(client: &Client) -> Vec<u64> {
    let snapshot: Value = serde_json::from_slice(&client.welcome.snapshot).unwrap();
    let devices = snapshot["devices"].as_array().unwrap();
    let base = |device: &Value| device["window"][0].as_u64().unwrap();
    devices
        .iter()
        .map(|device| base(device) / windows::SIZE)
        .collect()
}

#[test]
fn a_session_has_the_devices_of_its_assignment_at_the_addresses_of_its_hello() {
    let mut worker = Worker::start_in(&library(), &["--prepare"], &[("HARP_SOFT_DEVICES", "4")]);
    worker.devices = Some(vec![2, 0]);
    let mut hello = Hello::current();
    let first = windows::REGION.start / windows::SIZE + 1;
    let wish = (first * windows::SIZE).to_string();
    hello.options.insert(windows::OPTION.to_owned(), wish);
    let mut client = worker.connect(USER, hello).unwrap();
    assert_eq!(windows_of(&client), [first + 2, first]);
    for (device, window) in [(0, first + 2), (1, first)] {
        assert_eq!(retain(&mut client, device + 1, device as i32), 0);
        assert_eq!(client.allocate(1, 4096) / windows::SIZE, window);
    }
    for device in [2, -1, i32::MAX] {
        let context = HandleKind::Context.handle(9);
        let refused = client.ask(1, CallId::cuDevicePrimaryCtxRetain, &|e| {
            encode_cuDevicePrimaryCtxRetain(e, context, device);
        });
        assert_eq!(refused.status, CUDA_ERROR_INVALID_DEVICE, "{device}");
    }
}

#[test]
fn addresses_that_a_client_must_not_wish_for_are_not_given() {
    let end = windows::REGION.end / windows::SIZE;
    let usual = windows::REGION.start / windows::SIZE;
    for wish in ["", "-1", "4096", &u64::MAX.to_string()] {
        let worker = start();
        let mut hello = Hello::current();
        hello
            .options
            .insert(windows::OPTION.to_owned(), wish.to_owned());
        assert_eq!(windows_of(&worker.connect(USER, hello).unwrap()), [usual]);
    }
    for (wish, given) in [(end - 1, end - 1), (end, usual), (0, usual)] {
        let worker = start();
        let mut hello = Hello::current();
        let wish = (wish * windows::SIZE).to_string();
        hello.options.insert(windows::OPTION.to_owned(), wish);
        assert_eq!(windows_of(&worker.connect(USER, hello).unwrap()), [given]);
    }
}

#[test]
fn an_assignment_of_a_device_that_is_not_there_ends_the_worker() {
    let mut worker = start();
    worker.devices = Some(vec![0, 1]);
    assert!(worker.connect(USER, Hello::current()).is_err());
    let cause = worker.end()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("there is no device 1"), "{cause}");
}

fn load(client: &mut Client) -> u64 {
    assert_eq!(retain(client, 1, 0), 0);
    client.tell(1, CallId::harp_blob_append, &|e| {
        encode_harp_blob_append(e, 5);
        e.bytes(CODE);
    });
    let module = HandleKind::Module.handle(1);
    let loaded = client.ask(1, CallId::cuModuleLoadData, &|e| {
        encode_cuModuleLoadData(e, module, 5, &[], &[], 0);
    });
    assert_eq!(loaded.status, 0);
    module
}

fn function(
    client: &mut Client,
    module: u64,
    serial: u64,
    name: &std::ffi::CStr,
) -> (u64, Vec<u8>) {
    let function = HandleKind::Function.handle(serial);
    let found = client.ask(1, CallId::cuModuleGetFunction, &|e| {
        encode_cuModuleGetFunction(e, function, module, name);
    });
    assert_eq!(found.status, 0);
    (function, found.body)
}

#[test]
fn a_kernel_computes_on_the_soft_gpu() {
    let worker = start();
    assert_eq!(worker.ready["soft"], true);
    let mut client = worker.session();
    let snapshot: Value = serde_json::from_slice(&client.welcome.snapshot).unwrap();
    let window = &snapshot["devices"][0]["window"];
    let (base, size) = (window[0].as_u64().unwrap(), window[1].as_u64().unwrap());

    let module = load(&mut client);
    let (scale, info) = function(&mut client, module, 1, c"scale");
    // Three parameters at 0, 8 and 12.
    let words: Vec<u32> = info
        .chunks_exact(4)
        .take(7)
        .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
        .collect();
    assert_eq!(words, [3, 0, 8, 8, 4, 12, 4]);

    let n = 1000u32;
    let address = client.allocate(1, u64::from(n) * 4);
    assert!(
        (base..base + size).contains(&address),
        "{address:#x} lies in the window"
    );
    let data: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
    client.tell(1, CallId::cuMemcpyHtoD_v2, &|e| {
        encode_cuMemcpyHtoD_v2(e, address, u64::MAX);
        e.bytes(&data);
    });
    let mut params = address.to_le_bytes().to_vec();
    params.extend(2.5f32.to_le_bytes());
    params.extend(n.to_le_bytes());
    client.tell(1, CallId::cuLaunchKernel, &|e| {
        encode_cuLaunchKernel(e, scale, [4, 1, 1], [256, 1, 1], 0, 0, 0, &params);
    });
    let reply = client.ask(
        1,
        CallId::cuMemcpyDtoH_v2,
        &copy_out(address, u64::from(n) * 4),
    );
    assert_eq!((reply.status, reply.deferred), (0, 0));
    for (i, value) in reply.body[8..].chunks_exact(4).enumerate() {
        assert_eq!(
            f32::from_le_bytes(value.try_into().unwrap()),
            i as f32 * 2.5
        );
    }
}

#[test]
fn a_client_that_vanishes_takes_its_endless_kernel_with_it() {
    let mut worker = start();
    let mut client = worker.session();
    let module = load(&mut client);
    let (forever, _) = function(&mut client, module, 1, c"forever");
    client.launch(1, forever, 0, &[]);
    client.post(1, CallId::cuCtxSynchronize, &encode_cuCtxSynchronize);
    drop(client);
    let cause = worker.end()["cause"].as_str().unwrap().to_owned();
    assert!(cause.starts_with("the connection was lost"), "{cause}");
}
