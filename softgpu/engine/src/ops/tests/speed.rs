//! What operations cost: `cargo test --release -p harp-softgpu-engine speed -- --ignored --nocapture`.

use super::harness::Case;
use crate::exec::lanes::WARPS;
use std::time::Instant;

#[test]
#[ignore = "prints timings and asserts nothing"]
fn print_nanoseconds_for_256_lanes() {
    for name in [
        "add.s32",
        "add.f32",
        "add.ftz.f32",
        "fma.rn.f32",
        "fma.rn.ftz.f32",
        "fma.rn.f64",
        "fma.rm.ftz.f32",
        "mul.lo.s64",
        "mul.wide.s32",
        "mad.lo.s32",
        "shl.b64",
        "setp.lt.s32",
        "setp.lt.f32",
        "setp.lt.f64",
        "setp.lt.and.s32",
        "setp.lt.f16",
        "selp.b32",
        "div.u32",
        "rem.s32",
        "div.s64",
        "div.rn.f32",
        "sqrt.rn.f64",
        "max.f32",
        "cvt.f32.f16",
        "cvt.rn.f16.f32",
        "cvt.rn.f32.s32",
        "cvt.rzi.s32.f32",
        "cvt.rzi.s64.f64",
        "cvt.u64.u32",
        "cvt.s64.s32",
        "add.f16",
        "fma.rn.f16x2",
        "ex2.approx.f32",
        "lg2.approx.f32",
        "sin.approx.f32",
        "rsqrt.approx.f32",
        "tanh.approx.f32",
        "lop3.b32",
        "prmt.b32",
        "bfe.u32",
        "addc.cc.u32",
        "popc.b32",
        "clz.b32",
        "add.rp.f64",
    ] {
        let case = Case::new(name);
        let full = case.time([u32::MAX; WARPS]);
        let one = case.time([1; WARPS]);
        println!("{name:20} {full:8.1} ns, one lane in each warp {one:8.1} ns");
    }
}

impl Case {
    /// Nanoseconds for one run over eight warps, the best of many.
    fn time(&self, exec: [u32; WARPS]) -> f64 {
        const TIMES: u32 = 50;
        let mut best = f64::INFINITY;
        let mut prepared = self.prepare(&[[0x3f80_3c03, 0x3f80_4001, 0x4007, 3]; 256], exec);
        for _ in 0..300 {
            let start = Instant::now();
            prepared.repeat(TIMES);
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(TIMES));
        }
        best
    }
}
