//! A small trace with a block of every type, of calls in today's encoding.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use harp_trace::block::{
    loss, Block, Kind, Kinds, Lost, Message, Payload, Policy, RawBlock, FLAG_PAYLOAD,
};
use harp_trace::container::{pack, Manifest, Trace, Writer};
use harp_trace::event::Lines;
use harp_wire::calls::*;
use harp_wire::push::{OutputStream, Push};
use harp_wire::{CallId, Encoder, FunctionInfo, HandleKind, Parameter};

pub const ADDRESS: u64 = 0x7f00_0000_0000;
pub const BYTES: usize = 4096;

/// What a `Define` block holds.
pub fn define() -> Vec<u8> {
    let schema = include_str!("../../../../proto/trace/schema.json");
    let mut schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    schema["symbols"] = serde_json::json!(["cuInit", "cuMemAlloc_v2", "cuLaunchKernel"]);
    schema["reasons"] = serde_json::json!(["data", "synchronise"]);
    serde_json::to_vec(&schema).unwrap()
}

/// The same for the calls of the sample alone.
pub fn small_define() -> Vec<u8> {
    const CALLS: [&str; 14] = [
        "harp_set_current",
        "harp_blob_append",
        "cuDevicePrimaryCtxRetain",
        "cuModuleLoadData",
        "cuLibraryLoadData",
        "cuLibraryGetKernel",
        "cuKernelGetFunction",
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemcpyHtoD_v2",
        "cuMemcpyDtoH_v2",
        "cuEventElapsedTime_v2",
        "cuLaunchKernel",
        "harp_describe",
    ];
    let mut schema: serde_json::Value = serde_json::from_slice(&define()).unwrap();
    let calls = schema["calls"].as_array_mut().unwrap();
    calls.retain(|call| CALLS.contains(&call["name"].as_str().unwrap()));
    assert_eq!(calls.len(), CALLS.len());
    serde_json::to_vec(&schema).unwrap()
}

/// A call's record, without the last `cut` bytes that belong to it.
pub fn record(
    call: CallId,
    ticket: Option<u32>,
    encode: impl FnOnce(&mut Encoder),
    cut: usize,
) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let start = encoder.begin_record(call, ticket, 1);
    encode(&mut encoder);
    encoder.end_record_with(start, cut);
    encoder.into_bytes()
}

pub fn reply(ticket: u32, status: u32, encode: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let start = encoder.begin_reply();
    encode(&mut encoder);
    encoder.end_reply(start, ticket, status, 0);
    encoder.into_bytes()
}

pub struct Sample {
    pub writer: Writer,
    time: u64,
    /// Every block's body, as written.
    pub bodies: Vec<Vec<u8>>,
}

impl Sample {
    pub fn new(folder: &Path) -> Sample {
        let mut manifest = Manifest::new("vector_add", "images=full,uploads=full,downloads=hash");
        manifest.started = "2026-11-26T15:00:00.000Z".to_owned();
        Sample {
            writer: Writer::create(folder, manifest, 3).unwrap(),
            time: 0,
            bodies: Vec::new(),
        }
    }

    pub fn put(&mut self, block: &Block) {
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        self.bodies.push(bytes);
        self.writer.write_block(block).unwrap();
    }

    fn now(&mut self) -> u64 {
        self.time += 1000;
        self.time
    }

    fn message<'a>(&mut self, bytes: &'a [u8], payload: Option<Payload>) -> Message<'a> {
        Message {
            time: self.now(),
            session: 0,
            bytes,
            payload,
        }
    }

    pub fn call(&mut self, call: CallId, ticket: Option<u32>, encode: impl FnOnce(&mut Encoder)) {
        let record = record(call, ticket, encode, 0);
        let message = self.message(&record, None);
        self.put(&Block::Call(message));
    }

    pub fn call_with(
        &mut self,
        call: CallId,
        policy: Policy,
        content: &[u8],
        encode: impl FnOnce(&mut Encoder),
    ) {
        let whole = |encoder: &mut Encoder| {
            encode(encoder);
            encoder.u64(content.len() as u64);
        };
        let record = record(call, None, whole, content.len());
        let payload = self.payload(policy, content);
        let message = self.message(&record, Some(payload));
        self.put(&Block::Call(message));
    }

    pub fn payload(&mut self, policy: Policy, content: &[u8]) -> Payload {
        let mut payload = Payload::unnamed(policy, content.len());
        if policy.has_hash() {
            let mut blob = self.writer.blob(policy == Policy::Full);
            blob.write(content);
            let kept = blob.finish();
            payload.hash = kept.hash;
            if policy == Policy::Full {
                self.writer.kept(&kept);
            }
        }
        payload
    }

    pub fn reply(&mut self, ticket: u32, status: u32, encode: impl FnOnce(&mut Encoder)) {
        let reply = reply(ticket, status, encode);
        let message = self.message(&reply, None);
        self.put(&Block::Reply(message));
    }

    pub fn enter(&mut self, symbol: u16) {
        let time = self.now();
        self.put(&Block::Enter {
            time,
            thread: 1,
            symbol,
        });
    }

    pub fn leave(&mut self, result: u32) {
        let time = self.now();
        self.put(&Block::Leave {
            time,
            thread: 1,
            result,
        });
    }

    pub fn finish(self) -> Vec<Vec<u8>> {
        let ended = BTreeMap::from([("reason".to_owned(), "exit".into())]);
        self.writer.finish(ended).unwrap();
        self.bodies
    }
}

/// Writes the sample to `folder`; the bytes of its blocks.
pub fn write_sample(folder: &Path) -> Vec<Vec<u8>> {
    write_sample_with(folder, &define())
}

/// The same with another schema.
pub fn write_sample_with(folder: &Path, define: &[u8]) -> Vec<Vec<u8>> {
    let mut sample = Sample::new(folder);
    let s = &mut sample;
    let context = HandleKind::Context.handle(1);
    let module = HandleKind::Module.handle(1);
    let library = HandleKind::Library.handle(1);
    let (kernel, function) = (HandleKind::Kernel.handle(1), HandleKind::Function.handle(2));
    s.put(&Block::Define(define));
    s.put(&Block::Process(
        br#"{"harp":"0.1.0","payload":"images=full","pid":4711,"program":"vector_add"}"#,
    ));
    s.put(&Block::Session(
        br#"{"driver_version":13000,"number":0,"round_trip_ns":120000,"server":"gpu1:7443"}"#,
    ));
    s.put(&Block::Thread {
        thread: 1,
        tid: 4711,
        name: b"main",
    });
    s.enter(0);
    s.leave(0);
    s.enter(1);
    s.call(CallId::cuDevicePrimaryCtxRetain, Some(1), |e| {
        encode_cuDevicePrimaryCtxRetain(e, context, 0);
    });
    s.reply(1, 0, |_| ());
    s.call(CallId::harp_set_current, None, |e| {
        encode_harp_set_current(e, context);
    });
    let image: Vec<u8> = (0..3000u32).map(|n| (n / 3) as u8).collect();
    for policy in [Policy::Full, Policy::Hash] {
        s.call_with(CallId::harp_blob_append, policy, &image, |e| {
            encode_harp_blob_append(e, 1);
        });
    }
    s.call(CallId::cuModuleLoadData, Some(2), |e| {
        encode_cuModuleLoadData(e, module, 1, &[4, 9], &[1, 1 << 40], 0);
    });
    s.reply(2, 209, |_| ());
    s.call(CallId::cuLibraryLoadData, Some(3), |e| {
        encode_cuLibraryLoadData(e, library, 1, &[], &[], 512);
    });
    s.reply(3, 0, |_| ());
    s.call(CallId::cuLibraryGetKernel, None, |e| {
        encode_cuLibraryGetKernel(e, kernel, library, c"vector_add");
    });
    s.call(CallId::cuKernelGetFunction, Some(4), |e| {
        encode_cuKernelGetFunction(e, function, kernel);
    });
    let info = FunctionInfo {
        params: vec![
            Parameter { offset: 0, size: 8 },
            Parameter { offset: 8, size: 4 },
        ],
        attributes: std::array::from_fn(|n| -(n as i32)),
    };
    s.reply(4, 0, |e| encode_cuKernelGetFunction_reply(e, &info));
    s.call(CallId::cuMemAlloc_v2, Some(5), |e| {
        encode_cuMemAlloc_v2(e, BYTES as u64);
    });
    s.reply(5, 0, |e| encode_cuMemAlloc_v2_reply(e, ADDRESS));
    s.put(&Block::Allocation {
        time: 20_000,
        session: 0,
        device: 0,
        address: ADDRESS,
        bytes: BYTES as u64,
    });
    s.leave(0);
    let data: Vec<u8> = (0..BYTES).map(|n| n as u8).collect();
    for policy in [Policy::Full, Policy::Full, Policy::Shape, Policy::Lost] {
        s.call_with(CallId::cuMemcpyHtoD_v2, policy, &data, |e| {
            encode_cuMemcpyHtoD_v2(e, ADDRESS, u64::MAX);
        });
    }
    s.enter(2);
    let mut params = ADDRESS.to_le_bytes().to_vec();
    params.extend_from_slice(&1024u32.to_le_bytes());
    s.call(CallId::cuLaunchKernel, None, |e| {
        encode_cuLaunchKernel(e, function, [4, 1, 1], [256, 1, 1], 0, 2, 0, &params);
    });
    s.leave(0);
    s.call(CallId::cuMemcpyDtoH_v2, Some(6), |e| {
        encode_cuMemcpyDtoH_v2(e, ADDRESS + 16, 200, HandleKind::Stream.handle(3));
    });
    let content = &data[..200];
    let cut = {
        let mut whole = reply(6, 0, |e| encode_cuMemcpyDtoH_v2_reply(e, content));
        whole.truncate(whole.len() - content.len());
        whole
    };
    let payload = s.payload(Policy::Full, content);
    let message = s.message(&cut, Some(payload));
    s.put(&Block::Reply(message));
    s.put(&Block::Wait {
        began: 21_000,
        ended: 22_000,
        thread: 1,
        session: 0,
        ticket: 6,
        reason: 0,
        call: CallId::cuMemcpyDtoH_v2.0,
    });
    let events = [HandleKind::Event.handle(1), HandleKind::Event.handle(2)];
    for (ticket, milliseconds) in [(7, 0.1f32), (8, f32::NAN), (9, -0.0)] {
        s.call(CallId::cuEventElapsedTime_v2, Some(ticket), |e| {
            encode_cuEventElapsedTime_v2(e, events[0], events[1]);
        });
        s.reply(ticket, 0, |e| {
            encode_cuEventElapsedTime_v2_reply(e, milliseconds)
        });
    }
    for push in [
        Push::Callback {
            callback: 7,
            status: 0,
        },
        Push::Output {
            stream: OutputStream::Stdout,
            text: b"hello from thread 0\n".to_vec(),
        },
        Push::Event {
            number: 3,
            over: true,
        },
    ] {
        let mut encoder = Encoder::new();
        push.encode(&mut encoder);
        let body = encoder.into_bytes();
        let message = s.message(&body, None);
        s.put(&Block::Push(message));
    }
    s.put(&Block::Loss {
        time: 60_000,
        lost: Lost {
            reasons: loss::NO_ROOM | 1 << 40,
            blocks: 3,
            bytes: 100,
            kinds: Kinds(1 << Kind::Leave as u16 | 1 << Kind::Wait as u16 | 1 << 63),
        },
    });
    s.put(&Block::DeviceTime {
        session: 0,
        call: 14,
        began: 5,
        ended: 9,
    });
    let payload = s.payload(Policy::Full, &data);
    s.put(&Block::Snapshot {
        session: 0,
        device: 0,
        address: ADDRESS,
        bytes: BYTES as u64,
        payload,
    });
    s.call(CallId::cuMemFree_v2, Some(10), |e| {
        encode_cuMemFree_v2(e, ADDRESS)
    });
    s.reply(10, 0, |_| ());
    s.put(&Block::Free {
        time: 70_000,
        session: 0,
        address: ADDRESS,
    });
    s.put(&Block::Annotation(
        b"{ \"z\": 1, \"a\": \"spaces and order\" }",
    ));
    s.put(&Block::Annotation(b"no JSON"));
    // A call that the schema does not have, and one whose bytes are not what it says.
    s.call(CallId(0x7777), None, |e| e.u64(1));
    s.call(CallId::cuMemFree_v2, None, |e| e.u32(1));
    s.put(&Block::Other(RawBlock {
        number: 0x8001,
        flags: 4,
        body: b"an experiment",
    }));
    s.put(&Block::Other(RawBlock {
        number: 77,
        flags: FLAG_PAYLOAD,
        body: &[&b"a later version"[..], &payload.encode()].concat(),
    }));
    s.put(&Block::End(b"{\"reason\":\"exit\"}"));
    sample.finish()
}

/// The sample in a new folder, with a small schema: its packed form, the content of its calls, its lines.
pub fn small_sample(folder: &Path) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let path = folder.join("sample.htrace");
    write_sample_with(&path, &small_define());
    let trace = Trace::open(&path).unwrap();
    let packed = folder.join("sample.tar");
    pack(&trace, &packed).unwrap();
    let calls = std::fs::read(path.join("calls.zst")).unwrap();
    let mut lines = Lines::new(&trace, true).unwrap();
    let mut text = String::new();
    while let Some(line) = lines.next_line().unwrap() {
        text += &(line + "\n");
    }
    text += &lines.last_line(None);
    (
        std::fs::read(packed).unwrap(),
        zstd::stream::decode_all(&calls[..]).unwrap(),
        text.into_bytes(),
    )
}
