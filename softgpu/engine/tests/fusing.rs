//! Products and sums that round once.

mod device;

use device::{params, Device};

const A: f64 = 255.600_000_000_000_02;
const B: f64 = 213.0;
const C: f64 = 1.2;

/// Runs `body`, which leaves a double in `%fd9`, with A, B and C in `%fd1` to `%fd3`.
fn run(body: &str) -> f64 {
    let text = format!(
        ".version 8.0 .target sm_80 .address_size 64
        .visible .entry f(.param .u64 p) {{
            .reg .f64 %fd<10>; .reg .pred %q; .reg .b64 %rd<2>;
            ld.param.u64 %rd1, [p];
            ld.global.f64 %fd1, [%rd1]; ld.global.f64 %fd2, [%rd1+8]; ld.global.f64 %fd3, [%rd1+16];
            {body}
            st.global.f64 [%rd1], %fd9;
            ret;
        }}"
    );
    let device = Device::new(1);
    let memory = device.upload(&[A, B, C]);
    device
        .launch(&text, "f", [1; 3], [1; 3], params().u64(memory))
        .unwrap();
    device.download::<f64>(memory, 1)[0]
}

#[test]
fn a_product_without_rounding_joins_its_sum() {
    let once = (-B).mul_add(C, A);
    assert_ne!(once, A - B * C);
    assert_eq!(
        run("mul.f64 %fd4, %fd2, %fd3; sub.f64 %fd9, %fd1, %fd4;"),
        once
    );
    assert_eq!(
        run("mul.f64 %fd4, %fd2, %fd3; sub.f64 %fd9, %fd4, %fd1;"),
        -once
    );
    let sum = B.mul_add(C, A);
    assert_eq!(
        run("mul.f64 %fd4, %fd2, %fd3; add.f64 %fd9, %fd4, %fd1;"),
        sum
    );
    assert_eq!(
        run("mul.f64 %fd4, %fd2, %fd3; add.f64 %fd9, %fd1, %fd4;"),
        sum
    );
    // Labels after the product that is gone stand where they stood.
    let jump = "mul.f64 %fd4, %fd2, %fd3; sub.f64 %fd9, %fd1, %fd4;
        setp.lt.f64 %q, %fd1, %fd2; @!%q bra L; mov.f64 %fd9, 0d0000000000000000; L:";
    assert_eq!(run(jump), once);
}

#[test]
fn what_must_round_twice_does() {
    let twice = A - B * C;
    for body in [
        "mul.rn.f64 %fd4, %fd2, %fd3; sub.f64 %fd9, %fd1, %fd4;",
        "mul.f64 %fd4, %fd2, %fd3; sub.rn.f64 %fd9, %fd1, %fd4;",
        // The product is wanted for itself too.
        "mul.f64 %fd4, %fd2, %fd3; sub.f64 %fd9, %fd1, %fd4; st.global.f64 [%rd1+8], %fd4;",
        // Its factors are no longer there.
        "mul.f64 %fd4, %fd2, %fd3; mov.f64 %fd2, %fd1; sub.f64 %fd9, %fd1, %fd4;",
        // It comes from elsewhere.
        "mul.f64 %fd4, %fd2, %fd3; bra L; L: sub.f64 %fd9, %fd1, %fd4;",
    ] {
        assert_eq!(run(body), twice, "{body}");
    }
}
