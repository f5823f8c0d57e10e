//! What device code gets from the driver: printf, assert, the heap; and traps and cancelling.

mod device;

use std::sync::Arc;

use device::{decode, kernel, params, Device};
use harp_softgpu_engine::{Console, DeviceMemory, Fault, Grid, Launch, Scratch, Text};

fn module(functions: &str, body: &str) -> String {
    kernel(".param .u64 p", body).replacen(".visible", &format!("{functions}\n.visible"), 1)
}

const PRINTF: &str = ".extern .func (.param .b32 func_retval0) vprintf(.param .b64 vprintf_param_0, .param .b64 vprintf_param_1);";

/// A kernel that prints `format` with the arguments that `stores` puts at `%SPL`.
fn printing(stores: &str) -> String {
    module(
        PRINTF,
        &format!(
            ".local .align 8 .b8 __local_depot0[48];\n.reg .b64 %SP;\n.reg .b64 %SPL;\n\
             mov.u64 %SPL, __local_depot0;\ncvta.local.u64 %SP, %SPL;\nld.param.u64 %rd1, [p];\n\
             mov.u32 %r1, %tid.x;\nadd.u64 %rd2, %SP, 0;\n{stores}\n\
             {{ // callseq 0, 0\n.param .b64 param0;\nst.param.b64 [param0+0], %rd1;\n\
             .param .b64 param1;\nst.param.b64 [param1+0], %rd2;\n.param .b32 retval0;\n\
             call.uni (retval0),\nvprintf,\n(\nparam0,\nparam1\n);\nld.param.b32 %r9, [retval0+0];\n\
             }} // callseq 0\nret;"
        ),
    )
}

fn print(format: &str, stores: &str, threads: u32) -> String {
    let device = Device::new(1);
    let text = device.upload(&[format.as_bytes(), b"\0world\0"].concat());
    let stores = stores.replace("WORLD", &(text + format.len() as u64 + 1).to_string());
    let arguments = params().u64(text);
    device
        .launch(
            &printing(&stores),
            "k",
            [1, 1, 1],
            [threads, 1, 1],
            arguments,
        )
        .unwrap();
    device.printed()
}

#[test]
fn printf_formats_as_c_does() {
    assert_eq!(
        print("thread %d of %u\n", "st.local.v2.u32 [%SPL], {%r1, 3};", 3),
        "thread 0 of 3\nthread 1 of 3\nthread 2 of 3\n"
    );
    assert_eq!(
        print("%5d|%-5d|%05d|%+d|%x|%#X|%o%%\n", "mov.u32 %r2, -42;\nst.local.v2.u32 [%SPL], {%r2, %r2};\nst.local.v2.u32 [%SPL+8], {%r2, 42};\nst.local.v2.u32 [%SPL+16], {255, 255};\nst.local.u32 [%SPL+24], 8;", 1),
        "  -42|-42  |-0042|+42|ff|0XFF|10%\n"
    );
    assert_eq!(
        print("%s %c %f %.2e %lld %p", "mov.u64 %rd3, WORLD;\nst.local.u64 [%SPL], %rd3;\nst.local.u32 [%SPL+8], 65;\nst.local.f64 [%SPL+16], 0d3FF8000000000000;\nst.local.f64 [%SPL+24], 0d40C81CD6E631F8A1;\nmov.u64 %rd4, -5;\nst.local.u64 [%SPL+32], %rd4;\nst.local.u64 [%SPL+40], 4096;", 1),
        "world A 1.500000 1.23e+04 -5 0x1000"
    );
    assert_eq!(print("no conversion\n", "", 1), "no conversion\n");
}

#[test]
fn printf_with_a_wild_string_is_a_fault() {
    let device = Device::new(1);
    let text = device.upload(b"%s\0");
    let stores = "st.local.u64 [%SPL], 64;";
    let outcome = device.launch(
        &printing(stores),
        "k",
        [1, 1, 1],
        [1, 1, 1],
        params().u64(text),
    );
    assert!(
        matches!(outcome, Err(Fault::IllegalAddress { .. })),
        "{outcome:?}"
    );
}

#[test]
fn a_failed_assertion_names_itself() {
    let ptx = module(
        ".extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e) .noreturn;",
        "ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nsetp.ne.u32 %p1, %r1, 5;\n@%p1 ret;\n\
         { .param .b64 param0; st.param.b64 [param0], %rd1; .param .b64 param1; add.u64 %rd2, %rd1, 8;\n\
         st.param.b64 [param1], %rd2; .param .b32 param2; mov.u32 %r2, 12; st.param.b32 [param2], %r2;\n\
         .param .b64 param3; add.u64 %rd3, %rd1, 16; st.param.b64 [param3], %rd3;\n\
         .param .b64 param4; mov.u64 %rd4, 1; st.param.b64 [param4], %rd4;\n\
         call.uni __assertfail, (param0, param1, param2, param3, param4); }\ntrap;\nret;",
    );
    let device = Device::new(1);
    let text = device.upload(b"x > 1\0\0\0file.cu\0main\0\0\0\0");
    let outcome = device.launch(&ptx, "k", [1, 1, 1], [32, 1, 1], params().u64(text));
    match outcome {
        Err(Fault::Assert { place, message }) => {
            assert_eq!((message.as_str(), place.thread), ("x > 1", [5, 0, 0]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        device.printed(),
        "file.cu:12: main: block: [0,0,0], thread: [5,0,0] Assertion `x > 1` failed.\n"
    );
}

#[test]
fn the_device_heap() {
    let ptx = module(
        ".extern .func (.param .b64 r) malloc(.param .b64 a);\n.extern .func free(.param .b64 a);",
        "ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd1, %rd1, %rd2;\n\
         { .param .b64 param0; mov.u64 %rd3, 16; st.param.b64 [param0], %rd3; .param .b64 retval0;\n\
         call.uni (retval0), malloc, (param0); ld.param.b64 %rd4, [retval0]; }\n\
         mul.lo.u32 %r2, %r1, 5;\nst.u32 [%rd4+12], %r2;\nbar.sync 0;\nld.u32 %r3, [%rd4+12];\n\
         st.global.u32 [%rd1], %r3;\n\
         { .param .b64 param0; st.param.b64 [param0], %rd4; call.uni free, (param0); }\nWILD\nret;",
    );
    let device = Device::new(1);
    let out = device.upload(&[0u32; 64]);
    let ok = ptx.replace("WILD", "");
    device
        .launch(&ok, "k", [1, 1, 1], [64, 1, 1], params().u64(out))
        .unwrap();
    assert_eq!(
        device.download::<u32>(out, 64),
        (0..64).map(|t| t * 5).collect::<Vec<u32>>()
    );
    let wild = ptx.replace("WILD", "st.u32 [%rd4], %r1;");
    let outcome = device.launch(&wild, "k", [1, 1, 1], [64, 1, 1], params().u64(out));
    assert!(
        matches!(outcome, Err(Fault::IllegalAddress { .. })),
        "{outcome:?}"
    );
}

#[test]
fn a_trap_ends_the_launch() {
    let ptx = kernel(
        "",
        "mov.u32 %r1, %tid.x;\nsetp.eq.u32 %p1, %r1, 7;\n@%p1 trap;\nret;",
    );
    let outcome = Device::new(1).launch(&ptx, "k", [1, 1, 1], [32, 1, 1], params());
    match outcome {
        Err(Fault::Trap { place }) => assert_eq!(place.thread, [7, 0, 0]),
        other => panic!("{other:?}"),
    }
}

struct Nothing;

impl DeviceMemory for Nothing {
    fn range_of(&self, _: u64) -> Option<std::ops::Range<u64>> {
        None
    }
}

impl Console for Nothing {
    fn print(&self, _: Vec<Text>) {}
    fn complain(&self, _: &[u8]) {}
}

#[test]
fn an_endless_kernel_can_be_cancelled() {
    let kernel = decode(&kernel("", "$FOREVER:\nbra $FOREVER;"), "k").unwrap();
    let launch = Launch {
        grid: [8, 1, 1],
        block: [64, 1, 1],
        ..Launch::default()
    };
    let grid = Grid::new(kernel, launch, Arc::new(Nothing), Arc::new(Nothing));
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| grid.work(&mut Scratch::new()));
        assert!(!grid.is_finished());
        grid.cancel();
        worker.join().unwrap();
    });
    assert_eq!(grid.fault(), Some(Fault::Cancelled));
}

#[test]
fn a_scratch_serves_launches_of_different_kernels_and_shapes() {
    let store = |value: &str| {
        kernel(
            ".param .u64 p, .param .u32 n",
            &format!(
                "ld.param.u64 %rd1, [p];\nld.param.u32 %r2, [n];\nmov.u32 %r1, %tid.x;\n\
                 mov.u32 %r3, %ntid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd1, %rd1, %rd2;\n\
                 {value}\nst.global.u32 [%rd1], %r4;\nret;"
            ),
        )
    };
    let first = decode(&store("mad.lo.u32 %r4, %r1, 7, %r2;"), "k").unwrap();
    let second = decode(&store("mad.lo.u32 %r4, %r3, 100, %r2;"), "k").unwrap();
    let device = Device::new(1);
    let out = device.upload(&[0u32; 600]);
    let memory: Arc<dyn DeviceMemory> = device.memory();
    let mut scratch = Scratch::new();
    for (turn, threads) in [600u32, 32, 1, 300, 300, 40].into_iter().enumerate() {
        for (kernel, expected) in [
            (&first, (|t, _, n| 7 * t + n) as fn(u32, u32, u32) -> u32),
            (&second, |_, s, n| 100 * s + n),
        ] {
            let n = turn as u32 + 5;
            let mut bytes = out.to_le_bytes().to_vec();
            bytes.extend(n.to_le_bytes());
            let launch = Launch {
                grid: [2, 1, 1],
                block: [threads, 1, 1],
                params: bytes,
                ..Launch::default()
            };
            let grid = Grid::new(kernel.clone(), launch, memory.clone(), Arc::new(Nothing));
            grid.work(&mut scratch);
            assert_eq!((grid.is_finished(), grid.fault()), (true, None));
            let seen = device.download::<u32>(out, threads as usize);
            let expected: Vec<u32> = (0..threads).map(|t| expected(t, threads, n)).collect();
            assert_eq!(seen, expected);
        }
    }
}
