//! `selp`, `slct` and `testp`.

use super::harness::{one, run, F32_EDGES, F64_EDGES};

#[test]
fn selp_follows_its_predicate() {
    for (suffix, ones) in [
        ("b16", 0xffff),
        ("u16", 0xffff),
        ("s16", 0xffff),
        ("b32", 0xffff_ffff),
        ("u32", 0xffff_ffff),
        ("s32", 0xffff_ffff),
        ("f32", 0xffff_ffff),
        ("b64", u64::MAX),
        ("u64", u64::MAX),
        ("s64", u64::MAX),
        ("f64", u64::MAX),
    ] {
        let (a, b) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        let rows: Vec<_> = (0..64u64)
            .map(|lane| [a + lane, b + lane, (lane / 3) & 1, 0])
            .collect();
        for (row, found) in rows.iter().zip(run(&format!("selp.{suffix}"), &rows)) {
            assert_eq!(
                found,
                (if row[2] == 1 { row[0] } else { row[1] }) & ones,
                "{suffix}"
            );
        }
    }
}

#[test]
fn slct_takes_minus_zero_for_positive_and_nan_for_negative() {
    let f = |x: f32| x.to_bits() as u64;
    for (c, first) in [
        (0.0, true),
        (-0.0, true),
        (1.0, true),
        (-1.0, false),
        (f32::NAN, false),
    ] {
        assert_eq!(
            one("slct.u64.f32", &[1 << 40, 2, f(c)]),
            if first { 1 << 40 } else { 2 },
            "{c}"
        );
    }
    assert_eq!(one("slct.b16.f32", &[1, 2, 0x8000_0001]), 2);
    assert_eq!(one("slct.ftz.b32.f32", &[1, 2, 0x8000_0001]), 1);
    assert_eq!(one("slct.f32.s32", &[1, 2, 0]), 1);
    assert_eq!(one("slct.f32.s32", &[1, 2, 0xffff_ffff]), 2);
}

#[test]
fn testp_knows_the_kinds_of_floats() {
    let kinds = |exponent: u64, most: u64, fraction: u64| {
        let nan = exponent == most && fraction != 0;
        let infinite = exponent == most && fraction == 0;
        [
            ("finite", exponent != most),
            ("infinite", infinite),
            ("number", !nan),
            ("notanumber", nan),
            ("normal", exponent != 0 && exponent != most),
            ("subnormal", exponent == 0 && fraction != 0),
        ]
    };
    for &code in F32_EDGES {
        let code = u64::from(code);
        for (kind, expected) in kinds(code >> 23 & 0xff, 0xff, code & 0x7f_ffff) {
            assert_eq!(
                one(&format!("testp.{kind}.f32"), &[code]) != 0,
                expected,
                "{kind} {code:x}"
            );
        }
    }
    for &code in F64_EDGES {
        for (kind, expected) in kinds(code >> 52 & 0x7ff, 0x7ff, code & ((1 << 52) - 1)) {
            assert_eq!(
                one(&format!("testp.{kind}.f64"), &[code]) != 0,
                expected,
                "{kind} {code:x}"
            );
        }
    }
}
