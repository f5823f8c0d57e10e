//! Whole kernels as nvcc writes them.

mod device;

use device::{params, Device};

const SAXPY: &str = r"
.version 8.0
.target sm_80
.address_size 64
	// .globl	saxpy
.visible .entry saxpy(
	.param .u64 saxpy_param_0,
	.param .u64 saxpy_param_1,
	.param .f32 saxpy_param_2,
	.param .u32 saxpy_param_3
)
{
	.reg .pred 	%p<2>;
	.reg .f32 	%f<5>;
	.reg .b32 	%r<6>;
	.reg .b64 	%rd<8>;

	ld.param.u64 	%rd1, [saxpy_param_0];
	ld.param.u64 	%rd2, [saxpy_param_1];
	ld.param.f32 	%f1, [saxpy_param_2];
	ld.param.u32 	%r2, [saxpy_param_3];
	mov.u32 	%r3, %ctaid.x;
	mov.u32 	%r4, %ntid.x;
	mov.u32 	%r5, %tid.x;
	mad.lo.s32 	%r1, %r3, %r4, %r5;
	setp.ge.s32 	%p1, %r1, %r2;
	@%p1 bra 	$L__BB0_2;

	cvta.to.global.u64 	%rd3, %rd1;
	mul.wide.s32 	%rd4, %r1, 4;
	add.s64 	%rd5, %rd3, %rd4;
	ld.global.f32 	%f2, [%rd5];
	cvta.to.global.u64 	%rd6, %rd2;
	add.s64 	%rd7, %rd6, %rd4;
	ld.global.f32 	%f3, [%rd7];
	fma.rn.f32 	%f4, %f2, %f1, %f3;
	st.global.f32 	[%rd7], %f4;

$L__BB0_2:
	ret;
}
";

#[test]
fn saxpy_over_a_length_that_no_block_divides() {
    for threads in [1, 2] {
        let device = Device::new(threads);
        let n = 10_007;
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let y = vec![1f32; n];
        let (dx, dy) = (device.upload(&x), device.upload(&y));
        let arguments = params().u64(dx).u64(dy).f32(2.0).u32(n as u32);
        device
            .launch(SAXPY, "saxpy", [40, 1, 1], [256, 1, 1], arguments)
            .unwrap();
        let expected: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0).collect();
        assert_eq!(device.download::<f32>(dy, n), expected);
    }
}

/// A sum over a block by a tree in shared memory, with a barrier at each step.
const REDUCE: &str = r"
.version 8.0
.target sm_80
.address_size 64
.visible .entry reduce(
	.param .u64 in,
	.param .u64 out,
	.param .u32 n
)
{
	.reg .pred 	%p<5>;
	.reg .f32 	%f<8>;
	.reg .b32 	%r<14>;
	.reg .b64 	%rd<9>;
	.shared .align 4 .b8 tile[1024];

	ld.param.u64 	%rd1, [in];
	ld.param.u64 	%rd2, [out];
	ld.param.u32 	%r1, [n];
	mov.u32 	%r2, %ctaid.x;
	mov.u32 	%r3, %ntid.x;
	mov.u32 	%r4, %tid.x;
	mad.lo.s32 	%r5, %r2, %r3, %r4;
	mov.f32 	%f7, 0f00000000;
	setp.ge.u32 	%p1, %r5, %r1;
	@%p1 bra 	$LOADED;
	cvta.to.global.u64 	%rd3, %rd1;
	mul.wide.u32 	%rd4, %r5, 4;
	add.s64 	%rd5, %rd3, %rd4;
	ld.global.f32 	%f7, [%rd5];
$LOADED:
	shl.b32 	%r6, %r4, 2;
	mov.u32 	%r7, tile;
	add.s32 	%r8, %r7, %r6;
	st.shared.f32 	[%r8], %f7;
	bar.sync 	0;
	shr.u32 	%r13, %r3, 1;
	setp.eq.s32 	%p2, %r13, 0;
	@%p2 bra 	$DONE;
$LOOP:
	mov.u32 	%r9, %r13;
	setp.ge.u32 	%p3, %r4, %r9;
	@%p3 bra 	$NEXT;
	shl.b32 	%r10, %r9, 2;
	add.s32 	%r11, %r8, %r10;
	ld.shared.f32 	%f3, [%r8];
	ld.shared.f32 	%f4, [%r11];
	add.f32 	%f5, %f3, %f4;
	st.shared.f32 	[%r8], %f5;
$NEXT:
	bar.sync 	0;
	shr.u32 	%r13, %r9, 1;
	setp.gt.u32 	%p4, %r9, 1;
	@%p4 bra 	$LOOP;
$DONE:
	setp.ne.s32 	%p4, %r4, 0;
	@%p4 bra 	$END;
	ld.shared.f32 	%f6, [tile];
	cvta.to.global.u64 	%rd6, %rd2;
	mul.wide.u32 	%rd7, %r2, 4;
	add.s64 	%rd8, %rd6, %rd7;
	st.global.f32 	[%rd8], %f6;
$END:
	ret;
}
";

#[test]
fn a_sum_by_a_tree_with_barriers() {
    let device = Device::new(2);
    for block in [32u32, 64, 256, 1024] {
        let ptx = REDUCE.replace("tile[1024]", "tile[4096]");
        let (blocks, n) = (7u32, 7 * block - 5);
        let values: Vec<f32> = (0..n).map(|i| (i % 11) as f32).collect();
        let (input, output) = (
            device.upload(&values),
            device.upload(&vec![0f32; blocks as usize]),
        );
        let arguments = params().u64(input).u64(output).u32(n);
        device
            .launch(&ptx, "reduce", [blocks, 1, 1], [block, 1, 1], arguments)
            .unwrap();
        let expected: Vec<f32> = values
            .chunks(block as usize)
            .map(|c| c.iter().sum())
            .collect();
        assert_eq!(
            device.download::<f32>(output, blocks as usize),
            expected,
            "block {block}"
        );
    }
}

/// C = A * B with 16x16 tiles in shared memory; the inner loop is written out as nvcc does.
pub fn matmul() -> String {
    let mut inner = String::new();
    for k in 0..16 {
        inner += &format!(
            "\tld.shared.f32 %f{a}, [%r20+{}];\n\tld.shared.f32 %f{b}, [%r21+{}];\n\
             \tfma.rn.f32 %f50, %f{a}, %f{b}, %f50;\n",
            4 * k,
            64 * k,
            a = 10 + 2 * k,
            b = 11 + 2 * k,
        );
    }
    format!(
        r"
.version 8.0
.target sm_80
.address_size 64
.visible .entry matmul(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u32 pn)
{{
	.reg .pred %p<3>;
	.reg .f32 %f<60>;
	.reg .b32 %r<40>;
	.reg .b64 %rd<20>;
	.shared .align 4 .b8 ta[1024];
	.shared .align 4 .b8 tb[1024];

	ld.param.u64 %rd1, [pa];
	ld.param.u64 %rd2, [pb];
	ld.param.u64 %rd3, [pc];
	ld.param.u32 %r1, [pn];
	cvta.to.global.u64 %rd4, %rd1;
	cvta.to.global.u64 %rd5, %rd2;
	mov.u32 %r2, %tid.x;
	mov.u32 %r3, %tid.y;
	mov.u32 %r4, %ctaid.x;
	mov.u32 %r5, %ctaid.y;
	shl.b32 %r6, %r5, 4;
	add.s32 %r7, %r6, %r3;
	shl.b32 %r8, %r4, 4;
	add.s32 %r9, %r8, %r2;
	mad.lo.s32 %r10, %r7, %r1, %r2;
	mad.lo.s32 %r11, %r3, %r1, %r9;
	shl.b32 %r12, %r1, 4;
	shl.b32 %r13, %r3, 6;
	shl.b32 %r14, %r2, 2;
	mov.u32 %r15, ta;
	mov.u32 %r16, tb;
	add.s32 %r20, %r15, %r13;
	add.s32 %r17, %r20, %r14;
	add.s32 %r21, %r16, %r14;
	add.s32 %r18, %r21, %r13;
	mov.f32 %f50, 0f00000000;
	mov.u32 %r30, 0;
$LOOP:
	mul.wide.s32 %rd6, %r10, 4;
	add.s64 %rd7, %rd4, %rd6;
	ld.global.f32 %f1, [%rd7];
	st.shared.f32 [%r17], %f1;
	mul.wide.s32 %rd8, %r11, 4;
	add.s64 %rd9, %rd5, %rd8;
	ld.global.f32 %f2, [%rd9];
	st.shared.f32 [%r18], %f2;
	bar.sync 0;
{inner}
	bar.sync 0;
	add.s32 %r10, %r10, 16;
	add.s32 %r11, %r11, %r12;
	add.s32 %r30, %r30, 16;
	setp.lt.s32 %p1, %r30, %r1;
	@%p1 bra $LOOP;
	cvta.to.global.u64 %rd10, %rd3;
	mad.lo.s32 %r31, %r7, %r1, %r9;
	mul.wide.s32 %rd11, %r31, 4;
	add.s64 %rd12, %rd10, %rd11;
	st.global.f32 [%rd12], %f50;
	ret;
}}
"
    )
}

#[test]
fn a_tiled_matrix_product() {
    let device = Device::new(2);
    let n = 96usize;
    let a: Vec<f32> = (0..n * n).map(|i| ((i * 7) % 13) as f32).collect();
    let b: Vec<f32> = (0..n * n).map(|i| ((i * 5) % 11) as f32).collect();
    let c = device.upload(&vec![0f32; n * n]);
    let arguments = params()
        .u64(device.upload(&a))
        .u64(device.upload(&b))
        .u64(c)
        .u32(n as u32);
    device
        .launch(&matmul(), "matmul", [6, 6, 1], [16, 16, 1], arguments)
        .unwrap();
    let c = device.download::<f32>(c, n * n);
    for (index, value) in c.iter().enumerate() {
        let (row, column) = (index / n, index % n);
        let expected: f32 = (0..n).map(|k| a[row * n + k] * b[k * n + column]).sum();
        assert_eq!(*value, expected, "row {row}, column {column}");
    }
}
