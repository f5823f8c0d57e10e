//! Control flow: divergence, loops, calls, barriers, and progress of threads that wait.

mod device;

use device::{decode, kernel, params, Device};
use harp_softgpu_engine::{Fault, Launch};

/// Runs one block of `threads` over a module whose kernel `k(out, n)` is given.
fn run(ptx: &str, threads: u32, n: u32, results: usize) -> Result<Vec<u32>, Fault> {
    let device = Device::new(1);
    let out = device.upload(&vec![0u32; results]);
    device.launch(
        ptx,
        "k",
        [1, 1, 1],
        [threads, 1, 1],
        params().u64(out).u32(n),
    )?;
    Ok(device.download(out, results))
}

const OUT: &str = ".param .u64 out, .param .u32 n";
const HEAD: &str = "ld.param.u64 %rd1, [out];\nld.param.u32 %r59, [n];\nmov.u32 %r1, %tid.x;\n\
                    mul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd1, %rd1, %rd2;\n";

#[test]
fn loops_of_different_lengths_end_together() {
    // Collatz steps of tid + 1.
    let body = format!(
        "{HEAD}add.u32 %r2, %r1, 1;\nmov.u32 %r3, 0;\n\
         $LOOP:\nsetp.eq.u32 %p1, %r2, 1;\n@%p1 bra $DONE;\nand.b32 %r4, %r2, 1;\n\
         setp.eq.u32 %p2, %r4, 0;\n@%p2 bra $EVEN;\nmad.lo.u32 %r2, %r2, 3, 1;\nbra $NEXT;\n\
         $EVEN:\nshr.u32 %r2, %r2, 1;\n$NEXT:\nadd.u32 %r3, %r3, 1;\nbra $LOOP;\n\
         $DONE:\nst.global.u32 [%rd1], %r3;\nret;"
    );
    let seen = run(&kernel(OUT, &body), 300, 0, 300).unwrap();
    for (index, steps) in seen.iter().enumerate() {
        let (mut value, mut expected) = (index as u64 + 1, 0);
        while value != 1 {
            value = if value % 2 == 0 {
                value / 2
            } else {
                3 * value + 1
            };
            expected += 1;
        }
        assert_eq!(*steps, expected, "of {}", index + 1);
    }
}

#[test]
fn a_branch_table() {
    let body = format!(
        "{HEAD}and.b32 %r2, %r1, 3;\nts: .branchtargets $A, $B, $C, $B;\nbrx.idx %r2, ts;\n\
         $A:\nmov.u32 %r3, 10;\nbra $END;\n$B:\nmov.u32 %r3, 20;\nbra $END;\n\
         $C:\nmov.u32 %r3, 30;\n$END:\nst.global.u32 [%rd1], %r3;\nret;"
    );
    let seen = run(&kernel(OUT, &body), 64, 0, 64).unwrap();
    let expected: Vec<u32> = (0..64).map(|t| [10, 20, 30, 20][t % 4]).collect();
    assert_eq!(seen, expected);
}

#[test]
fn labels_belong_to_their_scope() {
    let part = |n: u32| {
        format!(
            "{{ .reg .pred %q; .reg .b32 %t;\nadd.u32 %t, %r2, {n};\nsetp.gt.u32 %q, %t, 20;\n\
             @%q bra SKIP;\nadd.u32 %r2, %r2, {n};\nSKIP:\n}}\n"
        )
    };
    let body = format!(
        "{HEAD}mov.u32 %r2, %r1;\n{}{}st.global.u32 [%rd1], %r2;\nret;",
        part(5),
        part(7)
    );
    let seen = run(&kernel(OUT, &body), 32, 0, 32).unwrap();
    let add = |x: u32, n: u32| if x + n > 20 { x } else { x + n };
    let expected: Vec<u32> = (0..32).map(|t| add(add(t, 5), 7)).collect();
    assert_eq!(seen, expected);
}

const FUNCTIONS: &str = r"
.version 8.0
.target sm_80
.address_size 64
.func (.param .b32 func_retval0) fib(.param .b32 fib_param_0);
.func (.param .b32 func_retval0) twice(.param .b32 twice_param_0)
{
	.reg .b32 %r<4>;
	ld.param.u32 %r1, [twice_param_0];
	add.s32 %r2, %r1, %r1;
	st.param.b32 [func_retval0+0], %r2;
	ret;
}
.func (.param .b32 func_retval0) fib(.param .b32 fib_param_0)
{
	.reg .pred %p<2>;
	.reg .b32 %r<10>;
	ld.param.u32 %r1, [fib_param_0];
	setp.lt.u32 %p1, %r1, 2;
	mov.u32 %r8, %r1;
	@%p1 bra $DONE;
	add.s32 %r2, %r1, -1;
	{ .param .b32 param0; st.param.b32 [param0+0], %r2; .param .b32 retval0;
	call.uni (retval0), fib, (param0);
	ld.param.b32 %r3, [retval0+0]; }
	add.s32 %r4, %r1, -2;
	{ .param .b32 param0; st.param.b32 [param0+0], %r4; .param .b32 retval0;
	call.uni (retval0), fib, (param0);
	ld.param.b32 %r5, [retval0+0]; }
	add.s32 %r8, %r3, %r5;
$DONE:
	st.param.b32 [func_retval0+0], %r8;
	ret;
}
.visible .entry k(.param .u64 out, .param .u32 n)
{
	.reg .pred %p<3>;
	.reg .b32 %r<20>;
	.reg .b64 %rd<10>;
	ld.param.u64 %rd1, [out];
	mov.u32 %r1, %tid.x;
	rem.u32 %r2, %r1, 11;
	mov.u32 %r9, 0;
	and.b32 %r3, %r1, 1;
	setp.eq.u32 %p1, %r3, 1;
	@%p1 bra $SKIP;
	{ .param .b32 param0; st.param.b32 [param0+0], %r2; .param .b32 retval0;
	call.uni (retval0), fib, (param0);
	ld.param.b32 %r9, [retval0+0]; }
$SKIP:
	{ .param .b32 param0; st.param.b32 [param0+0], %r9; .param .b32 retval0;
	call.uni (retval0), twice, (param0);
	ld.param.b32 %r10, [retval0+0]; }
	mul.wide.u32 %rd2, %r1, 4;
	add.s64 %rd3, %rd1, %rd2;
	st.global.u32 [%rd3], %r10;
	ret;
}
";

#[test]
fn direct_recursive_and_divergent_calls() {
    let seen = run(FUNCTIONS, 100, 0, 100).unwrap();
    let fib = [0u32, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55];
    let expected: Vec<u32> = (0..100)
        .map(|t| if t % 2 == 1 { 0 } else { 2 * fib[t % 11] })
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn endless_recursion_is_a_fault() {
    let ptx = FUNCTIONS.replace("setp.lt.u32 %p1, %r1, 2;", "setp.lt.u32 %p1, %r1, 0;");
    match run(&ptx, 32, 0, 32) {
        Err(Fault::StackOverflow { place }) => assert_eq!(place.function.as_deref(), Some("fib")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_through_pointers() {
    let function = |name: &str, text: &str| {
        format!(
            ".func (.param .b32 func_retval0) {name}(.param .b32 p0)\n{{\n.reg .b32 %r<4>;\n\
             ld.param.u32 %r1, [p0];\n{text}\nst.param.b32 [func_retval0+0], %r2;\nret;\n}}\n"
        )
    };
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n{}{}{}\
         .visible .entry k({OUT})\n{{\n.reg .pred %p<4>;\n.reg .b32 %r<60>;\n.reg .b64 %rd<20>;\n{HEAD}\
         mov.u64 %rd5, plus;\nmov.u64 %rd6, times;\nand.b32 %r2, %r1, 1;\n\
         setp.eq.u32 %p1, %r2, 0;\nselp.b64 %rd7, %rd5, %rd6, %p1;\n\
         {{ .param .b32 param0; st.param.b32 [param0+0], %r1; .param .b32 retval0;\n\
         prototype_0 : .callprototype (.param .b32 _) _ (.param .b32 _);\n\
         call (retval0), %rd7, (param0), prototype_0;\nld.param.b32 %r3, [retval0+0]; }}\n\
         st.global.u32 [%rd1], %r3;\nret;\n}}\n",
        function("plus", "add.u32 %r2, %r1, 100;"),
        function("times", "mul.lo.u32 %r2, %r1, 7;"),
        // Fits the prototype and cannot be decoded: no harm unless it is called.
        function("strange", "frobnicate.u32 %r2, %r1;"),
    );
    let seen = run(&ptx, 64, 0, 64).unwrap();
    let expected: Vec<u32> = (0..64)
        .map(|t| if t % 2 == 0 { t + 100 } else { t * 7 })
        .collect();
    assert_eq!(seen, expected);
    let wild = ptx.replace("mov.u64 %rd6, times;", "mov.u64 %rd6, 4096;");
    assert!(matches!(
        run(&wild, 64, 0, 64),
        Err(Fault::IllegalInstruction { .. })
    ));
    let illegal = ptx.replace("mov.u64 %rd6, times;", "mov.u64 %rd6, strange;");
    assert!(matches!(
        run(&illegal, 64, 0, 64),
        Err(Fault::IllegalInstruction { .. })
    ));
}

#[test]
fn named_barriers_with_counts() {
    // Producers (first warp) arrive, consumers (second warp) wait, a third warp is not involved.
    let body = format!(
        ".shared .align 4 .b32 flag;\n{HEAD}shr.u32 %r2, %r1, 5;\nmov.u32 %r5, 0;\n\
         setp.eq.u32 %p1, %r2, 0;\nsetp.eq.u32 %p2, %r2, 1;\n@!%p1 bra $NOT0;\n\
         st.shared.u32 [flag], 42;\nbar.arrive 3, 64;\n$NOT0:\n@!%p2 bra $END;\n\
         bar.sync 3, 64;\nld.shared.u32 %r5, [flag];\n$END:\nst.global.u32 [%rd1], %r5;\nret;"
    );
    let seen = run(&kernel(OUT, &body), 96, 0, 96).unwrap();
    assert_eq!((seen[0], seen[40], seen[80]), (0, 42, 0));
}

#[test]
fn barriers_that_reduce() {
    let body = format!(
        "{HEAD}setp.lt.u32 %p1, %r1, 70;\nbar.red.popc.u32 %r2, 0, %p1;\n\
         bar.red.and.pred %p2, 0, %p1;\nbar.red.or.pred %p3, 0, !%p1;\n\
         selp.u32 %r3, 1000, 0, %p2;\nselp.u32 %r4, 500, 0, %p3;\nadd.u32 %r2, %r2, %r3;\n\
         add.u32 %r2, %r2, %r4;\nst.global.u32 [%rd1], %r2;\nret;"
    );
    assert_eq!(run(&kernel(OUT, &body), 600, 0, 600).unwrap(), [570; 600]);
}

#[test]
fn exited_threads_leave_a_barrier() {
    for threads in [64, 300, 1024] {
        let body = format!(
            "{HEAD}setp.ge.u32 %p1, %r1, 40;\n@%p1 ret;\nbar.sync 0;\nmov.u32 %r2, 1;\n\
             st.global.u32 [%rd1], %r2;\nret;"
        );
        let seen = run(&kernel(OUT, &body), threads, 0, 64).unwrap();
        assert_eq!(seen.iter().sum::<u32>(), 40);
    }
}

#[test]
fn a_barrier_that_some_threads_never_reach_is_reported() {
    let body = format!(
        "{HEAD}setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $A;\nbar.sync 1;\nret;\n$A:\nbar.sync 2;\nret;"
    );
    match run(&kernel(OUT, &body), 64, 0, 1) {
        Err(Fault::Deadlock { place, waiting }) => {
            assert_eq!(place.kernel, "k");
            assert!(waiting.contains("32 threads at barrier 1"), "{waiting}");
            assert!(waiting.contains("32 threads at barrier 2"), "{waiting}");
        }
        other => panic!("{other:?}"),
    }
    let body = format!("{HEAD}setp.lt.u32 %p1, %r1, 3;\n@%p1 bra $A;\nvote.sync.any.pred %p2, %p1, -1;\n$A:\nbar.sync 0;\nret;");
    match run(&kernel(OUT, &body), 32, 0, 1) {
        Err(Fault::Deadlock { waiting, .. }) => {
            assert!(waiting.contains("for members 0xffffffff"), "{waiting}");
        }
        other => panic!("{other:?}"),
    }
}

/// Every thread takes a lock in global memory, one after the other, within one warp too.
#[test]
fn a_spin_lock_that_lanes_of_a_warp_contend_for() {
    let ptx = kernel(
        ".param .u64 lock, .param .u64 count",
        "ld.param.u64 %rd1, [lock];\nld.param.u64 %rd2, [count];\n\
         $SPIN:\natom.global.cas.b32 %r1, [%rd1], 0, 1;\nsetp.ne.s32 %p1, %r1, 0;\n@%p1 bra $SPIN;\n\
         membar.gl;\nld.volatile.global.u32 %r2, [%rd2];\nadd.u32 %r2, %r2, 1;\n\
         st.volatile.global.u32 [%rd2], %r2;\nmembar.gl;\natom.global.exch.b32 %r3, [%rd1], 0;\nret;",
    );
    for threads in [1, 2] {
        let device = Device::new(threads);
        let (lock, count) = (device.upload(&[0u32]), device.upload(&[0u32]));
        let arguments = params().u64(lock).u64(count);
        device
            .launch(&ptx, "k", [4, 1, 1], [96, 1, 1], arguments)
            .unwrap();
        assert_eq!(device.download::<u32>(count, 1), [384]);
    }
}

#[test]
fn blocks_that_look_back_at_earlier_ones() {
    // Block b waits for block b - 1's flag, then sets its own: a chain through the whole grid.
    let ptx = kernel(
        ".param .u64 flags",
        "ld.param.u64 %rd1, [flags];\nmov.u32 %r1, %ctaid.x;\nmul.wide.u32 %rd2, %r1, 4;\n\
         add.s64 %rd3, %rd1, %rd2;\nmov.u32 %r3, 0;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra $SET;\n\
         $WAIT:\nld.acquire.gpu.u32 %r3, [%rd3+-4];\nsetp.eq.u32 %p2, %r3, 0;\n@%p2 bra $WAIT;\n\
         $SET:\nadd.u32 %r3, %r3, 1;\nst.release.gpu.u32 [%rd3], %r3;\nret;",
    );
    for threads in [1, 2] {
        let device = Device::new(threads);
        let flags = device.upload(&[0u32; 200]);
        device
            .launch(&ptx, "k", [200, 1, 1], [1, 1, 1], params().u64(flags))
            .unwrap();
        assert_eq!(
            device.download::<u32>(flags, 200),
            (1..=200).collect::<Vec<u32>>()
        );
    }
}

/// All blocks of a cooperative launch meet, the way cooperative groups do it: a counter to which
/// every block adds, and a wait for its last.
#[test]
fn the_blocks_of_a_cooperative_launch_meet() {
    let ptx = kernel(
        ".param .u64 counter, .param .u64 out",
        "ld.param.u64 %rd1, [counter];\nld.param.u64 %rd2, [out];\nmov.u32 %r1, %tid.x;\n\
         mov.u32 %r2, %nctaid.x;\nbar.sync 0;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra $MET;\n\
         atom.global.add.u32 %r3, [%rd1], 1;\n\
         $WAIT:\nld.volatile.global.u32 %r4, [%rd1];\nsetp.lt.u32 %p2, %r4, %r2;\n@%p2 bra $WAIT;\n\
         $MET:\nbar.sync 0;\nld.volatile.global.u32 %r5, [%rd1];\nmov.u32 %r6, %ctaid.x;\n\
         mad.lo.u32 %r7, %r6, 64, %r1;\nmul.wide.u32 %rd3, %r7, 4;\nadd.s64 %rd4, %rd2, %rd3;\n\
         st.global.u32 [%rd4], %r5;\nret;",
    );
    for threads in [1, 2] {
        let device = Device::new(threads);
        let (counter, out) = (device.upload(&[0u32]), device.upload(&[0u32; 64 * 50]));
        let launch = Launch {
            grid: [50, 1, 1],
            block: [64, 1, 1],
            cooperative: true,
            ..Launch::default()
        };
        device
            .launch_with(&ptx, "k", launch, params().u64(counter).u64(out))
            .unwrap();
        assert_eq!(device.download::<u32>(out, 64 * 50), vec![50; 64 * 50]);
    }
}

#[test]
fn a_wait_for_a_later_block_ends_too() {
    // Not promised by CUDA without a cooperative launch, but it works where the grid fits.
    let ptx = kernel(
        ".param .u64 flag",
        "ld.param.u64 %rd1, [flag];\nmov.u32 %r1, %ctaid.x;\nsetp.eq.u32 %p1, %r1, 3;\n\
         @%p1 bra $SET;\n$WAIT:\nnanosleep.u32 20;\nld.relaxed.gpu.u32 %r2, [%rd1];\n\
         setp.eq.u32 %p2, %r2, 0;\n@%p2 bra $WAIT;\nret;\n$SET:\nst.relaxed.gpu.u32 [%rd1], 1;\nret;",
    );
    let device = Device::new(1);
    let flag = device.upload(&[0u32]);
    device
        .launch(&ptx, "k", [4, 1, 1], [32, 1, 1], params().u64(flag))
        .unwrap();
}

#[test]
fn coordinates_in_three_dimensions() {
    let axis = |name: &str| {
        format!(
            "mov.u32 %r10, %{name}.z;\nmov.u32 %r11, %{name}.y;\nmov.u32 %r12, %{name}.x;\n\
             mad.lo.u32 %r13, %r10, 10, %r11;\nmad.lo.u32 %r13, %r13, 10, %r12;\n"
        )
    };
    let ptx = kernel(
        ".param .u64 out",
        &format!(
            "ld.param.u64 %rd1, [out];\n{}mov.u32 %r20, %r13;\n{}mad.lo.u32 %r20, %r20, 1000, %r13;\n\
             mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ctaid.y;\nmov.u32 %r3, %ctaid.z;\n\
             mad.lo.u32 %r4, %r3, 3, %r2;\nmad.lo.u32 %r4, %r4, 2, %r1;\n\
             mov.u32 %r5, %tid.x;\nmov.u32 %r6, %tid.y;\nmov.u32 %r7, %tid.z;\n\
             mad.lo.u32 %r8, %r7, 5, %r6;\nmad.lo.u32 %r8, %r8, 4, %r5;\nmad.lo.u32 %r8, %r4, 60, %r8;\n\
             mul.wide.u32 %rd2, %r8, 4;\nadd.s64 %rd3, %rd1, %rd2;\nst.global.u32 [%rd3], %r20;\nret;",
            axis("ctaid"),
            axis("tid")
        ),
    );
    let device = Device::new(2);
    let out = device.upload(&[0u32; 720]);
    device
        .launch(&ptx, "k", [2, 3, 2], [4, 5, 3], params().u64(out))
        .unwrap();
    for (index, seen) in device.download::<u32>(out, 720).into_iter().enumerate() {
        let (thread, block) = (index % 60, index / 60);
        let digits = |n: usize, x: usize, y: usize| n / x / y * 100 + n / x % y * 10 + n % x;
        assert_eq!(
            seen as usize,
            digits(block, 2, 3) * 1000 + digits(thread, 4, 5)
        );
    }
}

#[test]
fn what_cannot_run_is_refused_by_name_and_line() {
    for (text, named) in [
        ("frobnicate.u32 %r1, %r2;", "frobnicate.u32"),
        (
            "tex.2d.v4.f32.f32 {%f1,%f2,%f3,%f4}, [%rd1, {%f5,%f6}];",
            "expected",
        ),
        (
            "wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1}, [%rd1], %r2;",
            "wmma.load.a",
        ),
        ("add.u32 %r1, %rd1, 1;", "%rd1"),
        ("add.f32 %f1, %f2, 1;", "integer where a float"),
        ("mov.u32 %r1, %nowhere;", "%nowhere"),
        ("bra $NOWHERE;", "$NOWHERE"),
        ("st.shared.u32 [%r99], 1;", "%r99"),
        ("ld.param.u32 %r1, [nothing];", "nothing"),
        ("call.uni nothing, ();", "nothing"),
        (
            "shfl.sync.sideways.b32 %r1, %r2, 1, 31, -1;",
            "shfl.sync.sideways.b32",
        ),
        ("atom.global.mul.u32 %r1, [%rd1], 1;", "atom.global.mul.u32"),
        ("mov.b128 %rd1, {%rd2, %rd3};", "mov.b128"),
    ] {
        let error = decode(&kernel("", &format!("\n{text}\nret;")), "k").unwrap_err();
        assert!(error.to_string().contains(named), "{text}: {error}");
        assert_eq!(error.line, 13, "{text}: {error}");
    }
}
