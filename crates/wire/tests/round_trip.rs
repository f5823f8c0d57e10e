//! What one side writes, the other reads; and nothing that was not written is believed.

use harp_wire::calls::*;
use harp_wire::record::{records, Record};
use harp_wire::reply::{replies, ReplyHead, REPLY_HEAD_BYTES};
use harp_wire::{
    CallId, DecodeError, Decoder, Encoder, FunctionInfo, HandleKind, Parameter, PARAMETER_BYTES_MAX,
};

fn launch(e: &mut Encoder) {
    let function = HandleKind::Kernel.handle(5);
    encode_cuLaunchKernel(e, function, [1, 2, 3], [32, 1, 1], 48, 0, 1, b"parameters");
}

fn encoded(write: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut e = Encoder::new();
    write(&mut e);
    e.into_bytes()
}

#[test]
fn a_launch_arrives_as_it_was_sent() {
    let bytes = encoded(launch);
    let args = CuLaunchKernelArgs::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!(args.function, HandleKind::Kernel.handle(5));
    assert_eq!((args.grid, args.block), ([1, 2, 3], [32, 1, 1]));
    assert_eq!(
        (args.shared_bytes, args.stream, args.cooperative),
        (48, 0, 1)
    );
    assert_eq!(args.params, b"parameters");
}

#[test]
fn texts_and_infos_arrive_as_they_were_sent() {
    let info = FunctionInfo {
        params: vec![
            Parameter { offset: 0, size: 8 },
            Parameter {
                offset: 16,
                size: 300,
            },
        ],
        attributes: core::array::from_fn(|i| i as i32 - 8),
    };
    let bytes = encoded(|e| encode_cuModuleGetFunction_reply(e, &info));
    let reply = CuModuleGetFunctionReply::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!(reply.info, info);
    assert_eq!(info.param_bytes(), 316);

    let names = [c"first", c""];
    let bytes = encoded(|e| encode_harp_module_functions_reply(e, &names));
    let reply = HarpModuleFunctionsReply::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!(reply.names, names);
}

#[test]
fn parameters_that_no_kernel_has_are_refused() {
    let read = |params: &[(u32, u32)]| {
        let param = |&(offset, size)| Parameter { offset, size };
        let info = FunctionInfo {
            params: params.iter().map(param).collect(),
            ..FunctionInfo::default()
        };
        let bytes = encoded(|e| encode_cuLibraryGetKernel_reply(e, &info));
        CuLibraryGetKernelReply::decode(&mut Decoder::new(&bytes))
            .map(|reply| reply.info.params.len())
    };
    assert_eq!(read(&[(0, 4), (8, 0), (8, PARAMETER_BYTES_MAX - 8)]), Ok(3));
    for params in [
        &[(0, PARAMETER_BYTES_MAX + 1)][..],
        &[(PARAMETER_BYTES_MAX, 1)],
        &[(8, u32::MAX)],
        &[(u32::MAX, u32::MAX)],
        &[(0, 8), (4, 4)],
        &[(8, 8), (0, 4)],
    ] {
        let refused = Err(DecodeError::ImpossibleParameters);
        assert_eq!(read(params), refused, "{params:?}");
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let mut bytes = encoded(launch);
    for len in 0..bytes.len() {
        let cut = CuLaunchKernelArgs::decode(&mut Decoder::new(&bytes[..len]));
        assert_eq!(cut, Err(DecodeError::Truncated), "at {len}");
    }
    bytes.push(0);
    let long = CuLaunchKernelArgs::decode(&mut Decoder::new(&bytes));
    assert_eq!(long, Err(DecodeError::TrailingBytes));
}

#[test]
fn a_length_beyond_what_is_there_is_refused_without_setting_memory_aside() {
    for length in [11, u64::from(u32::MAX), u64::MAX - 7, u64::MAX] {
        let bytes = encoded(|e| e.u64(length));
        let mut d = Decoder::new(&bytes);
        assert_eq!(d.bytes(), b"");
        assert_eq!(d.finish(), Err(DecodeError::Truncated));
    }
    // Four thousand million names in no bytes.
    let bytes = encoded(|e| e.u32(u32::MAX));
    let reply = HarpModuleFunctionsReply::decode(&mut Decoder::new(&bytes));
    assert_eq!(reply, Err(DecodeError::Truncated));
}

#[test]
fn a_handle_of_another_kind_is_refused() {
    let event = HandleKind::Event.handle(9);
    let bytes = encoded(|e| encode_cuStreamDestroy_v2(e, event));
    let args = CuStreamDestroy_v2Args::decode(&mut Decoder::new(&bytes));
    assert_eq!(
        args,
        Err(DecodeError::WrongHandle {
            kind: HandleKind::Stream,
            id: event
        })
    );
    for id in [0, 77, 0xff << 56 | 1] {
        assert_eq!(
            Decoder::new(&u64::to_le_bytes(id)).handle(HandleKind::Event),
            0
        );
    }
}

#[test]
fn default_streams_pass_where_a_stream_is_wanted() {
    for id in [0_u64, 1, 2, HandleKind::Stream.handle(3)] {
        let bytes = id.to_le_bytes();
        let mut d = Decoder::new(&bytes);
        assert_eq!((d.stream(), d.finish()), (id, Ok(())));
    }
    let synchronous = u64::MAX.to_le_bytes();
    assert_eq!(Decoder::new(&synchronous).copy_stream(), u64::MAX);
    let mut d = Decoder::new(&synchronous);
    d.stream();
    assert!(d.finish().is_err());
    let mut d = Decoder::new(&[0; 8]);
    assert_eq!(
        (d.handle_or_none(HandleKind::Context), d.finish()),
        (0, Ok(()))
    );
}

#[test]
fn a_string_ends_with_its_only_nul() {
    for bytes in [&b"ab"[..], b"a\0b\0", b""] {
        let encoded = encoded(|e| {
            e.u32(bytes.len() as u32);
            bytes.iter().for_each(|byte| e.u8(*byte));
        });
        let mut d = Decoder::new(&encoded);
        assert_eq!(
            (d.text(), d.finish()),
            (c"", Err(DecodeError::MalformedText))
        );
    }
}

#[test]
fn after_an_error_everything_reads_as_zero() {
    let mut d = Decoder::new(&[1, 2, 3]);
    assert_eq!(d.u32(), 0);
    assert_eq!(
        (d.u8(), d.u64(), d.f64(), d.bytes(), d.text()),
        (0, 0, 0.0, &b""[..], c"")
    );
    assert!(d.list(1, |d| d.u8()).is_empty());
    assert_eq!(d.finish(), Err(DecodeError::Truncated));
}

fn two_records() -> Vec<u8> {
    encoded(|e| {
        let start = e.begin_record(CallId::cuLaunchKernel, None, 7);
        launch(e);
        e.end_record(start);
        let start = e.begin_record(CallId::cuMemcpyHtoD_v2, Some(3), 8);
        encode_cuMemcpyHtoD_v2(e, 0x2000, u64::MAX);
        e.u64(4);
        e.end_record_with(start, 4);
        b"data".iter().for_each(|byte| e.u8(*byte));
    })
}

#[test]
fn records_follow_one_another() {
    let frame = two_records();
    let found: Vec<Record> = records(&frame).collect::<Result<_, _>>().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].call, found[0].ticket, found[0].thread),
        (CallId::cuLaunchKernel, None, 7)
    );
    assert_eq!((found[1].ticket, found[1].thread), (Some(3), 8));
    let copy = CuMemcpyHtoD_v2Args::decode(&mut Decoder::new(found[1].arguments)).unwrap();
    assert_eq!(
        (copy.dst, copy.stream, copy.data),
        (0x2000, u64::MAX, &b"data"[..])
    );
}

#[test]
fn a_frame_that_ends_inside_a_record_is_refused() {
    let frame = two_records();
    let first = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize + 4;
    for len in 0..frame.len() {
        let outcome: Result<Vec<Record>, _> = records(&frame[..len]).collect();
        assert_eq!(outcome.is_ok(), len == 0 || len == first, "at {len}");
    }
}

#[test]
fn impossible_heads_are_refused() {
    let good = encoded(|e| {
        let start = e.begin_record(CallId::cuProfilerStart, Some(1), 1);
        e.end_record(start);
    });
    assert!(records(&good).all(|record| record.is_ok()));
    // (offset, value): a length below the head's or beyond the cap, unknown flags, a reserved
    // byte, a ticket without the flag, the flag without a ticket.
    for (offset, value) in [(0, 11), (3, 0x80), (6, 3), (7, 1), (6, 0), (12, 0)] {
        let mut bad = good.clone();
        bad[offset] = value;
        assert!(records(&bad).next().unwrap().is_err(), "{offset} = {value}");
    }
}

#[test]
fn replies_carry_outputs_only_of_what_succeeded() {
    let frame = encoded(|e| {
        for status in [0, 2] {
            let start = e.begin_reply();
            encode_cuMemAlloc_v2_reply(e, 0xabcd);
            e.end_reply(start, 9, status, 700);
        }
    });
    let found: Vec<(ReplyHead, &[u8])> = replies(&frame).collect::<Result<_, _>>().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].0.ticket, found[0].0.status, found[0].0.deferred),
        (9, 0, 700)
    );
    let reply = CuMemAlloc_v2Reply::decode(&mut Decoder::new(found[0].1)).unwrap();
    assert_eq!(reply.dptr, 0xabcd);
    assert_eq!((found[1].0.status, found[1].1), (2, &b""[..]));
    for len in 1..REPLY_HEAD_BYTES {
        assert!(replies(&frame[..len]).next().unwrap().is_err());
    }
}

#[test]
fn call_numbers_are_unique_and_named() {
    let all = CallId::ALL;
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for (call, name) in all {
        assert_eq!(call.name(), Some(*name));
    }
    assert_eq!(CallId(0).name(), None);
    let unknown = describe_arguments(CallId(0xfff0), &mut Decoder::new(&[]));
    assert_eq!(unknown, Err(DecodeError::UnknownCall(0xfff0)));
}

/// A generator of bytes that is the same in every run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn no_bytes_upset_any_decoder() {
    let mut noise = Noise(1);
    let mut accepted = 0;
    for _ in 0..300 {
        for (call, _) in CallId::ALL {
            let len = noise.next() as usize % 120;
            // Small values, so that lengths and handle tags are often plausible.
            let mask = if noise.next().is_multiple_of(2) {
                0xff
            } else {
                0x07
            };
            let bytes: Vec<u8> = (0..len).map(|_| noise.next() as u8 & mask).collect();
            accepted += usize::from(describe_arguments(*call, &mut Decoder::new(&bytes)).is_ok());
            accepted += usize::from(describe_outputs(*call, &mut Decoder::new(&bytes)).is_ok());
            let _ = records(&bytes).count() + replies(&bytes).count();
        }
    }
    assert!(accepted > 0, "the noise never reached the end of a decoder");
}

#[test]
fn changed_bytes_of_real_calls_never_upset_the_decoder() {
    let frame = two_records();
    let mut noise = Noise(2);
    for _ in 0..20_000 {
        let mut changed = frame.clone();
        for _ in 0..1 + noise.next() % 3 {
            let at = noise.next() as usize % changed.len();
            changed[at] = noise.next() as u8;
        }
        for record in records(&changed).map_while(Result::ok) {
            let _ = describe_arguments(record.call, &mut Decoder::new(record.arguments));
        }
    }
}
