//! What texts that were compiled apart need from each other and from the driver.

mod device;

use device::{decode, kernel, params, Device};
use harp_softgpu_engine::{Launch, Module};

/// The device runtime's way to let a grid meet: its own calls stand for `libcudadevrt`.
fn meeting(flags: u32, guard: &str) -> String {
    let declared = ".version 8.0\n.target sm_80\n.address_size 64\n\
        .extern .func (.param .b64 h) __cuda_syscall_CGS_get_intrinsic_handle(.param .b32 s);\n\
        .extern .func (.param .b32 e) __cuda_syscall_CGS_sync(.param .b64 h, .param .b32 f);\n";
    let body = format!(
        "ld.param.u64 %rd1, [counter];\nld.param.u64 %rd2, [out];\nmov.u32 %r1, %tid.x;\n\
         {{\n.param .b32 s;\n.param .b64 h;\nst.param.b32 [s], 1;\n\
         call.uni (h), __cuda_syscall_CGS_get_intrinsic_handle, (s);\nld.param.b64 %rd3, [h];\n}}\n\
         mov.u32 %r9, 0;\n\
         $ROUND:\natom.global.add.u32 %r2, [%rd1], 1;\nbar.sync 0;\n{guard}\
         {{\n.param .b64 h;\n.param .b32 f;\n.param .b32 e;\n\
         st.param.b64 [h], %rd3;\nst.param.b32 [f], {flags};\n\
         call (e), __cuda_syscall_CGS_sync, (h, f);\nld.param.b32 %r3, [e];\n}}\n\
         $MET:\nbar.sync 0;\nld.volatile.global.u32 %r4, [%rd1];\n\
         mov.u32 %r5, %ctaid.x;\nmad.lo.u32 %r5, %r5, 64, %r1;\nmad.lo.u32 %r5, %r9, 640, %r5;\n\
         mul.wide.u32 %rd4, %r5, 4;\nadd.s64 %rd4, %rd2, %rd4;\nst.global.u32 [%rd4], %r4;\n\
         {{\n.param .b64 h;\n.param .b32 f;\n.param .b32 e;\n\
         st.param.b64 [h], %rd3;\nst.param.b32 [f], 0;\n\
         call (e), __cuda_syscall_CGS_sync, (h, f);\n}}\n\
         add.u32 %r9, %r9, 1;\nsetp.lt.u32 %p3, %r9, 3;\n@%p3 bra $ROUND;\nret;"
    );
    let whole = kernel(".param .u64 counter, .param .u64 out", &body);
    declared.to_string() + whole.split_once("64\n").unwrap().1
}

#[test]
fn the_device_runtime_lets_a_grid_meet() {
    let alone = "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra $MET;\n";
    for (flags, guard) in [(0, ""), (1, alone)] {
        for threads in [1, 2] {
            let device = Device::new(threads);
            let counter = device.upload(&[0u32]);
            let out = device.upload(&[0u32; 3 * 640]);
            let launch = Launch {
                grid: [5, 2, 1],
                block: [64, 1, 1],
                cooperative: true,
                ..Launch::default()
            };
            // Blocks of the second row write where those of the first do, the same.
            device
                .launch_with(
                    &meeting(flags, guard),
                    "k",
                    launch,
                    params().u64(counter).u64(out),
                )
                .unwrap();
            let seen = device.download::<u32>(out, 3 * 640);
            for round in 0..3u32 {
                let after = seen[640 * round as usize..][..320].iter();
                assert!(after.clone().all(|count| *count == 640 * (round + 1)));
            }
        }
    }
}

#[test]
fn without_a_cooperative_launch_there_is_no_handle() {
    let text = meeting(0, "setp.eq.u64 %p1, %rd3, 0;\n@%p1 bra $MET;\n");
    let text = text.replace(
        "call (e), __cuda_syscall_CGS_sync, (h, f);\n}\nadd",
        "}\nadd",
    );
    let device = Device::new(1);
    let (counter, out) = (device.upload(&[0u32]), device.upload(&[0u32; 3 * 640]));
    device
        .launch(
            &text,
            "k",
            [1, 1, 1],
            [64, 1, 1],
            params().u64(counter).u64(out),
        )
        .unwrap();
    assert_eq!(device.download::<u32>(counter, 1), [3 * 64]);
}

#[test]
fn a_result_that_the_function_does_not_have_is_not_looked_for() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n\
        .extern .func (.param .b64 r) consume(.param .b32 x);\n.visible .global .u32 seen;\n\
        .visible .entry k(.param .u64 out)\n{\n.reg .b64 %rd<3>;\n.reg .b32 %r<3>;\n\
        {\n.param .b32 x;\n.param .b64 r;\nst.param.b32 [x], 7;\ncall.uni (r), consume, (x);\n\
        ld.param.b64 %rd2, [r];\n}\nld.param.u64 %rd1, [out];\nst.global.u32 [%rd1], 5;\nret;\n}\n\
        .visible .func consume(.param .b32 x)\n{\nret;\n}\n";
    let device = Device::new(1);
    let out = device.upload(&[0u32]);
    device
        .launch(text, "k", [1, 1, 1], [1, 1, 1], params().u64(out))
        .unwrap();
    assert_eq!(device.download::<u32>(out, 1), [5]);
    let other = text.replace("consume(.param .b32 x)\n{", "consume(.param .b64 x)\n{");
    assert!(decode(&other, "k").is_err());
}

#[test]
fn a_limit_on_registers_is_written_into_every_kernel_without_one() {
    let sums: String = (2..50)
        .map(|n| format!("ld.global.u32 %r{n}, [%rd1 + {}];\n", 4 * n))
        .chain((2..50).map(|n| format!("add.u32 %r1, %r1, %r{n};\n")))
        .collect();
    let body = format!(
        "ld.param.u64 %rd1, [out];\nmov.u32 %r1, 0;\n{sums}st.global.u32 [%rd1], %r1;\nret;"
    );
    let text = kernel(".param .u64 out", &body);
    assert!(decode(&text, "k").unwrap().registers() > 40);
    let module = Module::parse(text.clone().into_bytes()).unwrap();
    let limited = String::from_utf8(module.with_max_registers(40)).unwrap();
    assert_eq!(decode(&limited, "k").unwrap().registers(), 40);
    // A kernel's own limit stays.
    let module = Module::parse(limited.clone().into_bytes()).unwrap();
    assert_eq!(module.with_max_registers(32), limited.as_bytes());
    let own = text.replace(")\n{", ") .maxntid 64, 1, 1 .maxnreg 24\n{");
    assert_eq!(decode(&own, "k").unwrap().registers(), 24);
}

#[test]
fn directives_may_stand_without_a_space_between() {
    let body = "ld.param.u64 %rd1, [out];\n{\n.reg.b16 half;\n.reg.f32 single;\n\
                mov.b16 half, 0x3c00;\ncvt.f32.f16 single, half;\nst.global.f32 [%rd1], single;\n}\nret;";
    let device = Device::new(1);
    let out = device.upload(&[0f32]);
    device
        .launch(
            &kernel(".param .u64 out", body),
            "k",
            [1, 1, 1],
            [1, 1, 1],
            params().u64(out),
        )
        .unwrap();
    assert_eq!(device.download::<f32>(out, 1), [1.0]);
}
