//! Loads, stores and atomics in every space, and what happens when an address is wrong.

mod device;

use device::{kernel, params, Device};
use harp_softgpu_engine::{Fault, Launch, Module};

/// Runs one thread block of `threads` over `body`, with `%rd1` the address of `data` and `%r1`
/// the thread; the data afterwards.
fn run<T: Copy + Default>(threads: u32, data: &[T], body: &str) -> Result<Vec<T>, Fault> {
    let device = Device::new(1);
    let address = device.upload(data);
    let ptx = kernel(
        ".param .u64 data",
        &format!(
            "ld.param.u64 %rd1, [data];\nmov.u32 %r1, %tid.x;\n\
             mul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd2, %rd1, %rd2;\n{body}\nret;"
        ),
    );
    device.launch(&ptx, "k", [1, 1, 1], [threads, 1, 1], params().u64(address))?;
    Ok(device.download(address, data.len()))
}

#[test]
fn narrow_loads_extend_by_type_and_stores_truncate() {
    let bytes = [0x80u8, 0xff, 0x7f, 0x01, 0, 0, 0, 0];
    let load = |text: &str| {
        let words = run(1, &[0xff7f_ff80u32, 0, 0], text).unwrap();
        (words[1], words[2])
    };
    assert_eq!(
        load("ld.global.u8 %r2, [%rd1];\nst.global.u32 [%rd1+4], %r2;").0,
        0x80
    );
    assert_eq!(
        load("ld.global.s8 %r2, [%rd1];\nst.global.u32 [%rd1+4], %r2;").0,
        0xffff_ff80
    );
    assert_eq!(
        load("ld.global.s16 %r2, [%rd1];\nst.global.u32 [%rd1+4], %r2;").0,
        0xffff_ff80
    );
    assert_eq!(
        load("ld.global.b16 %rs2, [%rd1];\ncvt.u32.u16 %r2, %rs2;\nst.global.u32 [%rd1+4], %r2;").0,
        0xff80
    );
    assert_eq!(
        load("ld.global.s32 %rd5, [%rd1];\nshr.u64 %rd6, %rd5, 32;\nst.global.u32 [%rd1+4], %rd5;\nst.global.u32 [%rd1+8], %rd6;"),
        (0xff7f_ff80, 0xffff_ffff)
    );
    assert_eq!(
        load("ld.global.u32 %rd5, [%rd1];\nshr.u64 %rd6, %rd5, 32;\nst.global.u32 [%rd1+8], %rd6;")
            .1,
        0
    );
    let stored = run(
        1,
        &bytes,
        "mov.u32 %r2, 0x12345678;\nst.global.u8 [%rd1+5], %r2;\nst.global.u16 [%rd1+6], %r2;",
    );
    assert_eq!(stored.unwrap()[4..], [0, 0x78, 0x78, 0x56]);
}

#[test]
fn vectors_move_as_one() {
    let data: Vec<u32> = (0..64).collect();
    let seen = run(
        8,
        &data,
        "mul.wide.u32 %rd3, %r1, 16;\nadd.s64 %rd3, %rd1, %rd3;\n\
         ld.global.v4.u32 {%r2, %r3, _, %r5}, [%rd3];\nadd.u32 %r2, %r2, 100;\n\
         st.global.v2.u32 [%rd3+128], {%r5, %r2};\nst.global.v2.u16 [%rd3+136], {%rs1, %rs1};",
    )
    .unwrap();
    for lane in 0..8 {
        assert_eq!(seen[32 + 4 * lane], 4 * lane as u32 + 3);
        assert_eq!(seen[33 + 4 * lane], 4 * lane as u32 + 100);
    }
    let seen = run(
        1,
        &[1.5f64, 2.5, 0.0, 0.0],
        "ld.global.nc.v2.f64 {%fd1, %fd2}, [%rd1];\nst.global.v2.f64 [%rd1+16], {%fd2, %fd1};",
    );
    assert_eq!(seen.unwrap(), [1.5, 2.5, 2.5, 1.5]);
}

#[test]
fn gathers_broadcasts_and_reversals() {
    let data: Vec<u32> = (0..512).map(|i| i * 3).collect();
    for (index, source) in [
        (
            "sub.u32 %r2, 255, %r1;",
            (|t| 255 - t) as fn(usize) -> usize,
        ),
        ("shr.u32 %r2, %r1, 3;", |t| t / 8),
        ("shr.u32 %r2, %r1, 4;", |t| t / 16),
        ("mul.lo.u32 %r2, %r1, 37;\nand.b32 %r2, %r2, 255;", |t| {
            t * 37 % 256
        }),
        ("mov.u32 %r2, 9;", |_| 9),
        ("xor.b32 %r2, %r1, 8;", |t| t ^ 8),
    ] {
        let body = format!(
            "{index}\nmul.wide.u32 %rd3, %r2, 4;\nadd.s64 %rd3, %rd1, %rd3;\n\
             ld.global.u32 %r3, [%rd3];\nst.global.u32 [%rd2+1024], %r3;"
        );
        let seen = run(256, &data, &body).unwrap();
        let expected: Vec<u32> = (0..256).map(|t| data[source(t)]).collect();
        assert_eq!(seen[256..], expected, "{index}");
    }
}

#[test]
fn shared_memory_static_dynamic_and_generic() {
    let device = Device::new(1);
    let out = device.upload(&[0u32; 64]);
    let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n\
        .extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 module_scope[12];\n\
        .visible .entry k(.param .u64 out)\n{\n.reg .b32 %r<20>;\n.reg .b64 %rd<20>;\n\
        .shared .align 4 .u32 counter;\n\
        ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n\
        add.s64 %rd1, %rd1, %rd2;\n\
        mov.u32 %r2, dynamic;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r4, %r2, %r3;\n\
        mul.lo.u32 %r5, %r1, 3;\nst.shared.u32 [%r4], %r5;\nst.shared.u32 [counter], 1000;\n\
        st.shared.u32 [module_scope+8], 5;\nbar.sync 0;\n\
        mov.u64 %rd3, dynamic;\ncvta.shared.u64 %rd4, %rd3;\nadd.s64 %rd5, %rd4, 4;\n\
        sub.s64 %rd6, %rd5, 0;\nmul.wide.u32 %rd7, %r1, 4;\nadd.s64 %rd8, %rd6, %rd7;\n\
        ld.u32 %r6, [%rd8+-4];\ncvta.to.shared.u64 %rd9, %rd8;\nld.shared.u32 %r7, [%rd9+-4];\n\
        ld.shared.u32 %r8, [counter];\nadd.u32 %r6, %r6, %r7;\nadd.u32 %r6, %r6, %r8;\n\
        ld.shared.u32 %r9, [module_scope+8];\nadd.u32 %r6, %r6, %r9;\n\
        mov.u32 %r10, %dynamic_smem_size;\nadd.u32 %r6, %r6, %r10;\n\
        st.u32 [%rd1], %r6;\nret;\n}\n";
    let launch = Launch {
        grid: [1, 1, 1],
        block: [64, 1, 1],
        dynamic_shared: 256,
        ..Launch::default()
    };
    device
        .launch_with(ptx, "k", launch.clone(), params().u64(out))
        .unwrap();
    let expected: Vec<u32> = (0..64).map(|t| 6 * t + 1000 + 5 + 256).collect();
    assert_eq!(device.download::<u32>(out, 64), expected);
    // One word less of dynamic memory, and the last thread is outside.
    let short = Launch {
        dynamic_shared: 252,
        ..launch
    };
    match device.launch_with(ptx, "k", short, params().u64(out)) {
        Err(Fault::IllegalAddress { place, .. }) => assert_eq!(place.thread, [63, 0, 0]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn local_memory_is_each_threads_own() {
    let seen = run(
        100,
        &[0u32; 100],
        ".local .align 8 .b8 depot[64];\n.reg .b64 %SP;\n.reg .b64 %SPL;\n\
         mov.u64 %SPL, depot;\ncvta.local.u64 %SP, %SPL;\nadd.u64 %rd5, %SP, 8;\n\
         st.u32 [%rd5], %r1;\nst.local.u32 [%SPL+12], 7;\nand.b32 %r3, %r1, 7;\n\
         mul.wide.u32 %rd6, %r3, 4;\nadd.s64 %rd7, %SPL, %rd6;\nst.local.u32 [%rd7+32], %r1;\n\
         ld.local.u32 %r4, [depot+8];\nld.v2.u32 {%r5, %r6}, [%rd5];\nadd.u32 %r4, %r4, %r5;\n\
         add.u32 %r4, %r4, %r6;\nld.local.u32 %r7, [%rd7+32];\nadd.u32 %r4, %r4, %r7;\n\
         st.global.u32 [%rd2], %r4;",
    )
    .unwrap();
    assert_eq!(seen, (0..100).map(|t| 3 * t + 7).collect::<Vec<u32>>());
}

#[test]
fn parameters_by_value_and_by_address() {
    let device = Device::new(1);
    let out = device.upload(&[0u32; 4]);
    let ptx = kernel(
        ".param .u64 out, .param .align 4 .b8 big[40]",
        "ld.param.u64 %rd1, [out];\nld.param.u32 %r2, [big+8];\nld.param.v2.u32 {%r3, %r4}, [big+16];\n\
         mov.b64 %rd2, big;\nmov.u32 %r5, 7;\nmul.wide.u32 %rd3, %r5, 4;\nadd.s64 %rd4, %rd2, %rd3;\n\
         ld.param.u32 %r6, [%rd4];\nld.u32 %r7, [%rd4+4];\nadd.u32 %r7, %r7, %r2;\n\
         st.global.v4.u32 [%rd1], {%r3, %r4, %r6, %r7};\nret;",
    );
    let mut arguments = params().u64(out);
    for word in 0..10 {
        arguments = arguments.u32(word * 11);
    }
    device
        .launch(&ptx, "k", [1, 1, 1], [1, 1, 1], arguments)
        .unwrap();
    assert_eq!(device.download::<u32>(out, 4), [44, 55, 77, 88 + 22]);
}

#[test]
fn module_variables_at_the_addresses_that_the_driver_gives() {
    let ptx = b".version 8.0\n.target sm_80\n.address_size 64\n\
        .const .align 4 .b32 table[4] = {10, 20, 30, 40};\n\
        .visible .global .align 8 .u64 pointer = generic(table)+8;\n\
        .visible .entry k(.param .u64 out)\n{\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n\
        ld.param.u64 %rd1, [out];\nld.const.u32 %r1, [table+4];\nmov.u64 %rd2, table;\n\
        ld.const.u32 %r2, [%rd2+12];\nld.global.u64 %rd3, [pointer];\nld.u32 %r3, [%rd3];\n\
        st.global.u32 [%rd1], %r1;\nst.global.u32 [%rd1+4], %r2;\nst.global.u32 [%rd1+8], %r3;\nret;\n}\n";
    let module = Module::parse(ptx.to_vec()).unwrap();
    let device = Device::new(1);
    let mut addresses = vec![];
    for variable in module.variables() {
        let known = addresses.clone();
        let find = move |name: &str| {
            known
                .iter()
                .find(|(n, _)| n == name)
                .map(|&(_, address): &(String, u64)| address)
        };
        let mut image = variable.image(&find).unwrap();
        image.resize(variable.size as usize, 0);
        addresses.push((variable.name.clone(), device.upload(&image)));
    }
    let find = |name: &str| addresses.iter().find(|(n, _)| n == name).map(|(_, a)| *a);
    let kernel = module.kernel("k", &find).unwrap();
    assert_eq!(kernel.const_bytes(), 16);
    let out = device.upload(&[0u32; 3]);
    let launch = Launch {
        params: out.to_le_bytes().to_vec(),
        ..Launch::default()
    };
    device.run(&kernel, launch).unwrap();
    assert_eq!(device.download::<u32>(out, 3), [20, 40, 30]);
}

#[test]
fn atomics_return_the_old_value_and_lose_nothing() {
    let count = |text: &str, start: u32| run(96, &[start, 0, 0, 0], text).unwrap()[0];
    assert_eq!(
        count("atom.global.add.u32 %r2, [%rd1], %r1;", 5),
        5 + 95 * 48
    );
    assert_eq!(count("red.global.add.u32 [%rd1], 1;", 0), 96);
    assert_eq!(
        count("atom.relaxed.gpu.global.max.s32 %r2, [%rd1], %r1;", 0),
        95
    );
    assert_eq!(count("atom.global.min.u32 %r2, [%rd1], %r1;", 50), 0);
    assert_eq!(count("atom.add.u32 %r2, [%rd1], 2;", 0), 192);
    assert_eq!(count("atom.global.inc.u32 %r2, [%rd1], 9;", 0), 6);
    assert_eq!(count("atom.global.dec.u32 %r2, [%rd1], 9;", 0), 4);
    assert_eq!(count("atom.global.xor.b32 %r2, [%rd1], %r1;", 0), 0);
    assert_eq!(count("atom.global.or.b32 %r2, [%rd1], %r1;", 0), 127);
    assert_eq!(count("atom.global.exch.b32 %r2, [%rd1], %r1;", 0), 95);
    assert_eq!(count("atom.global.cas.b32 %r2, [%rd1], %r1, 96;", 0), 96);
    let halves = |text: &str| run(3, &[0x3c00u16, 0, 0, 0], text).unwrap()[0];
    assert_eq!(
        halves("mov.b16 %rs1, 0x3c00;\natom.global.add.noftz.f16 %rs2, [%rd1], %rs1;"),
        0x4400
    );
    assert_eq!(halves("mov.b16 %rs1, 0x3c00;\nmov.b16 %rs3, 7;\natom.global.cas.b16 %rs2, [%rd1], %rs1, %rs3;"), 7);
    assert_eq!(
        run(
            64,
            &[0f32, 0.0],
            "mov.f32 %f1, 0f3F000000;\natom.global.add.f32 %f2, [%rd1], %f1;"
        )
        .unwrap()[0],
        32.0
    );
    assert_eq!(
        run(
            64,
            &[0f64],
            "red.global.add.f64 [%rd1], 0d3FE0000000000000;"
        )
        .unwrap()[0],
        32.0
    );
    // Every lane saw a different old value.
    let seen = run(
        64,
        &[0u32; 65],
        "atom.global.add.u32 %r2, [%rd1+256], 1;\nst.global.u32 [%rd2], %r2;",
    )
    .unwrap();
    let mut old = seen[..64].to_vec();
    old.sort_unstable();
    assert_eq!(old, (0..64).collect::<Vec<u32>>());
}

#[test]
fn atomics_of_threads_on_different_cores() {
    let ptx = kernel(
        ".param .u64 p",
        "ld.param.u64 %rd1, [p];\nred.global.add.u32 [%rd1], 1;\nmov.f32 %f1, 0f3F800000;\n\
         atom.global.add.f32 %f2, [%rd1+4], %f1;\nret;",
    );
    let device = Device::new(4);
    let out = device.upload(&[0u32, 0]);
    device
        .launch(&ptx, "k", [500, 1, 1], [128, 1, 1], params().u64(out))
        .unwrap();
    assert_eq!(device.download::<u32>(out, 1), [64_000]);
    assert_eq!(device.download::<f32>(out + 4, 1), [64_000.0]);
}

#[test]
fn shared_atomics_and_a_histogram() {
    let seen = run(
        256,
        &[0u32; 16],
        ".shared .align 4 .b8 bins[64];\nmov.u32 %r2, bins;\nand.b32 %r3, %r1, 15;\n\
         shl.b32 %r4, %r3, 2;\nadd.u32 %r5, %r2, %r4;\nsetp.gt.u32 %p1, %r1, 15;\n\
         @!%p1 st.shared.u32 [%r5], 0;\nbar.sync 0;\natom.shared.add.u32 %r6, [%r5], 1;\n\
         bar.sync 0;\n@%p1 bra $END;\nld.shared.u32 %r7, [%r5];\nst.global.u32 [%rd2], %r7;\n$END:",
    );
    assert_eq!(seen.unwrap(), [16; 16]);
}

#[test]
fn asynchronous_copies() {
    let data: Vec<u32> = (0..64).collect();
    let seen = run(
        4,
        &data,
        ".shared .align 16 .b8 tile[64];\nmov.u32 %r2, tile;\nshl.b32 %r3, %r1, 4;\n\
         add.u32 %r4, %r2, %r3;\nmul.wide.u32 %rd3, %r1, 16;\nadd.s64 %rd4, %rd1, %rd3;\n\
         cp.async.cg.shared.global [%r4], [%rd4], 16;\ncp.async.commit_group;\n\
         cp.async.wait_group 0;\nbar.sync 0;\nld.shared.v4.u32 {%r5,%r6,%r7,%r8}, [%r4];\n\
         st.global.v4.u32 [%rd4+64], {%r8,%r7,%r6,%r5};\nmov.u32 %r9, 4;\n\
         cp.async.ca.shared.global [%r4], [%rd4], 8, %r9;\nld.shared.v2.u32 {%r5,%r6}, [%r4];\n\
         st.global.v2.u32 [%rd4+128], {%r5,%r6};",
    )
    .unwrap();
    assert_eq!(seen[16..20], [3, 2, 1, 0]);
    assert_eq!(seen[28..32], [15, 14, 13, 12]);
    assert_eq!(seen[32..34], [0, 0]);
    assert_eq!(seen[36..38], [4, 0]);
}

#[test]
fn predicates_of_address_spaces() {
    let seen = run(
        1,
        &[0u32; 4],
        ".shared .align 4 .b32 s;\n.local .align 4 .b8 l[4];\nmov.u64 %rd5, s;\ncvta.shared.u64 %rd5, %rd5;\n\
         mov.u64 %rd6, l;\ncvta.local.u64 %rd6, %rd6;\nisspacep.shared %p1, %rd5;\n\
         isspacep.shared %p2, %rd6;\nisspacep.local %p3, %rd6;\nisspacep.global %p4, %rd1;\n\
         selp.u32 %r2, 1, 0, %p1;\nselp.u32 %r3, 1, 0, %p2;\nselp.u32 %r4, 1, 0, %p3;\n\
         selp.u32 %r5, 1, 0, %p4;\nst.global.v4.u32 [%rd1], {%r2, %r3, %r4, %r5};",
    );
    assert_eq!(seen.unwrap(), [1, 0, 1, 1]);
}

#[test]
fn wrong_addresses_are_faults_that_name_the_thread_and_line() {
    match run(70, &[0u32; 64], "st.global.u32 [%rd2], %r1;") {
        Err(Fault::IllegalAddress {
            place, bytes: 4, ..
        }) => {
            assert_eq!((place.thread, place.line), ([64, 0, 0], 16));
        }
        other => panic!("{other:?}"),
    }
    for (text, misaligned) in [
        ("ld.global.u32 %r2, [%rd1+2];", true),
        ("ld.global.v4.u32 {%r2,%r3,%r4,%r5}, [%rd1+8];", true),
        ("ld.global.u64 %rd3, [%rd1+4];", true),
        ("atom.global.add.u32 %r2, [%rd1+1], 1;", true),
        ("ld.global.u32 %r2, [0];", false),
        ("ld.global.u32 %r2, [%rd1+-4];", false),
        ("ld.global.v4.u32 {%r2,%r3,%r4,%r5}, [%rd1+256];", false),
        ("mov.u64 %rd3, -4;\nld.u32 %r2, [%rd3];", false),
        ("mov.u32 %r3, 64;\nld.shared.u32 %r2, [%r3];", false),
        (".shared .align 4 .b32 x;\nld.shared.u32 %r2, [x+4];", false),
        (".shared .align 4 .b32 x;\nld.shared.u32 %r2, [x+-4];", false),
        (".local .align 4 .b8 y[16];\nld.local.u32 %r2, [y+16];", false),
        (".local .align 4 .b8 y[16];\nmov.u64 %rd3, y;\ncvta.local.u64 %rd3, %rd3;\nld.u32 %r2, [%rd3+16];", false),
        ("cp.async.ca.shared.global [0], [%rd1], 4;", false),
    ] {
        match run(1, &[0u32; 64], text) {
            Err(Fault::MisalignedAddress { .. }) if misaligned => {}
            Err(Fault::IllegalAddress { .. }) if !misaligned => {}
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_fault_ends_every_block() {
    let ptx = kernel(
        ".param .u64 p",
        "ld.param.u64 %rd1, [p];\nmov.u32 %r1, %ctaid.x;\nsetp.eq.u32 %p1, %r1, 1;\n\
         @%p1 bra $BAD;\n$FOREVER:\nbra $FOREVER;\n$BAD:\nld.global.u32 %r2, [0];\nret;",
    );
    let device = Device::new(2);
    let out = device.upload(&[0u32]);
    let outcome = device.launch(&ptx, "k", [4, 1, 1], [32, 1, 1], params().u64(out));
    assert!(
        matches!(outcome, Err(Fault::IllegalAddress { .. })),
        "{outcome:?}"
    );
}
