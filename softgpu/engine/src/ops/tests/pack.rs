//! Packed conversions: brute force over the codes of narrow formats.

use super::harness::{one, run, Random, F32_EDGES};

fn f(x: f32) -> u64 {
    x.to_bits().into()
}

/// A float of 8 bits or fewer: exponent bits, mantissa bits, the code of its largest number, and
/// whether it has infinity or NaN above.
#[derive(Clone, Copy)]
struct Small {
    name: &'static str,
    exponent: u32,
    mantissa: u32,
    largest: u64,
}

const SMALL: [Small; 5] = [
    Small {
        name: "e4m3x2",
        exponent: 4,
        mantissa: 3,
        largest: 0x7e,
    },
    Small {
        name: "e5m2x2",
        exponent: 5,
        mantissa: 2,
        largest: 0x7b,
    },
    Small {
        name: "e2m3x2",
        exponent: 2,
        mantissa: 3,
        largest: 0x1f,
    },
    Small {
        name: "e3m2x2",
        exponent: 3,
        mantissa: 2,
        largest: 0x1f,
    },
    Small {
        name: "e2m1x2",
        exponent: 2,
        mantissa: 1,
        largest: 0x7,
    },
];

impl Small {
    fn width(self) -> u32 {
        1 + self.exponent + self.mantissa
    }

    fn upper(self) -> u32 {
        if self.width() == 4 {
            4
        } else {
            8
        }
    }

    /// The magnitude of a code, by the definition of the format.
    fn magnitude(self, code: u64) -> f64 {
        let bias = (1 << (self.exponent - 1)) - 1;
        let field = (code >> self.mantissa) as i32;
        let fraction = (code & ((1 << self.mantissa) - 1)) as f64 / f64::from(1 << self.mantissa);
        match field {
            0 => fraction * 2f64.powi(1 - bias),
            _ => (1.0 + fraction) * 2f64.powi(field - bias),
        }
    }

    /// The nearest code by trying all, ties to the even one.
    fn nearest(self, x: f64) -> u64 {
        let sign = u64::from(x.is_sign_negative()) << (self.width() - 1);
        if x.is_nan() {
            return if self.width() == 8 {
                0x7f
            } else {
                self.largest
            };
        } else if x.abs() > self.magnitude(self.largest) {
            return sign | self.largest;
        }
        let distance = |code: &u64| (self.magnitude(*code) - x.abs()).abs();
        let best = (0..=self.largest).min_by(|a, b| {
            distance(a)
                .total_cmp(&distance(b))
                .then((a & 1).cmp(&(b & 1)))
        });
        sign | best.unwrap()
    }
}

#[test]
fn narrow_floats_are_the_nearest_of_all_codes() {
    let halves: Vec<[u64; 4]> = (0..0x1_0000)
        .map(|code| [code | (0xffff - code) << 16, 0, 0, 0])
        .collect();
    let value = |code: u64| half::f16::from_bits(code as u16).to_f64();
    for small in SMALL {
        let name = format!("cvt.rn.satfinite.{}.f16x2", small.name);
        let expected: Vec<u64> = (0..0x1_0000)
            .map(|code| small.nearest(value(code)))
            .collect();
        for (code, found) in run(&name, &halves).into_iter().enumerate() {
            let both = expected[code] | expected[0xffff - code] << small.upper();
            assert_eq!(found, both, "{name} {code:x}");
        }
        let mut random = Random::new(71);
        let mut rows: Vec<[u64; 4]> = F32_EDGES
            .iter()
            .map(|&x| [x.into(), f(0.3), 0, 0])
            .collect();
        rows.extend((0..3000).map(|_| [random.f32().into(), random.f32().into(), 0, 0]));
        let single = |x: u64| f64::from(f32::from_bits(x as u32));
        let name = format!("cvt.rn.satfinite.{}.f32", small.name);
        for (row, found) in rows.iter().zip(run(&name, &rows)) {
            let both =
                small.nearest(single(row[1])) | small.nearest(single(row[0])) << small.upper();
            assert_eq!(found, both, "{name} {row:x?}");
        }
    }
}

#[test]
fn narrow_floats_widen_exactly() {
    for small in SMALL {
        let codes = 1u64 << small.width();
        let rows: Vec<[u64; 4]> = (0..codes)
            .map(|code| [code | 1 << small.upper(), 0, 0, 0])
            .collect();
        for (code, found) in run(&format!("cvt.rn.f16x2.{}", small.name), &rows)
            .into_iter()
            .enumerate()
        {
            let magnitude = code as u64 & (codes / 2 - 1);
            let low = half::f16::from_bits(found as u16);
            let negative = code as u64 >= codes / 2;
            match (small.name, magnitude) {
                ("e4m3x2", 0x7f) | ("e5m2x2", 0x7d..) => assert_eq!(low.to_bits(), 0x7fff),
                ("e5m2x2", 0x7c) => assert_eq!(low.to_bits() & 0x7fff, 0x7c00),
                _ => {
                    let expected = small.magnitude(magnitude);
                    assert_eq!(low.to_f64(), if negative { -expected } else { expected });
                    assert_eq!(low.is_sign_negative(), negative);
                }
            }
            assert_eq!(
                half::f16::from_bits((found >> 16) as u16).to_f64(),
                small.magnitude(1)
            );
        }
    }
    assert_eq!(one("cvt.rn.relu.f16x2.e4m3x2", &[0xb838]), 0x0000_3c00);
}

#[test]
fn the_first_source_goes_up() {
    assert_eq!(one("cvt.rn.f16x2.f32", &[f(1.0), f(2.0)]), 0x3c00_4000);
    assert_eq!(one("cvt.rn.bf16x2.f32", &[f(1.0), f(-2.0)]), 0x3f80_c000);
    assert_eq!(one("cvt.rz.f16x2.f32", &[f(65535.0), f(1e9)]), 0x7bff_7bff);
    assert_eq!(
        one("cvt.rn.relu.f16x2.f32", &[f(-1.0), f(f32::NAN)]),
        0x0000_7fff
    );
    assert_eq!(
        one(
            "cvt.rn.satfinite.f16x2.f32",
            &[f(1e9), f(f32::NEG_INFINITY)]
        ),
        0x7bff_fbff
    );
    assert_eq!(one("cvt.rn.relu.bf16.f32", &[f(-3.0)]), 0);
    assert_eq!(one("cvt.rn.satfinite.f16.f32", &[f(7e4)]), 0x7bff);
    assert_eq!(
        one("cvt.rn.satfinite.relu.e5m2x2.f32", &[f(-1.0), f(1e9)]),
        0x007b
    );
}

#[test]
fn tf32_keeps_ten_bits() {
    for (form, x, expected) in [
        ("rna", 0x3f80_1000, 0x3f80_2000),
        ("rna", 0x3f80_0fff, 0x3f80_0000),
        ("rna", 0xbf80_1000, 0xbf80_2000),
        ("rn", 0x3f80_1000, 0x3f80_0000),
        ("rn", 0x3f80_3000, 0x3f80_4000),
        ("rz", 0x3f80_1fff, 0x3f80_0000),
        ("rna", 0x7f7f_ffff, 0x7f80_0000),
        ("rna.satfinite", 0x7f7f_ffff, 0x7f7f_e000),
        ("rn.relu", 0xbf80_0000, 0),
        ("rna", 0x7f80_0000, 0x7f80_0000),
    ] {
        assert_eq!(
            one(&format!("cvt.{form}.tf32.f32"), &[x]),
            expected,
            "{form} {x:x}"
        );
    }
    assert!(f32::from_bits(one("cvt.rna.tf32.f32", &[0x7fc0_0000]) as u32).is_nan());
}

#[test]
fn integers_are_packed_from_the_low_end() {
    let (a, b) = (-40_000i32 as u32 as u64, 300);
    assert_eq!(one("cvt.pack.sat.s16.s32", &[a, b]), 0x8000_012c);
    assert_eq!(one("cvt.pack.sat.u16.s32", &[a, b]), 0x0000_012c);
    assert_eq!(
        one("cvt.pack.sat.s8.s32.b32", &[a, b, 0x1234_5678]),
        0x5678_807f
    );
    assert_eq!(
        one("cvt.pack.sat.u8.s32.b32", &[a, b, 0x1234_5678]),
        0x5678_00ff
    );
    assert_eq!(
        one("cvt.pack.sat.s4.s32.b32", &[a, b, 0x1234_5678]),
        0x3456_7887
    );
    assert_eq!(
        one("cvt.pack.sat.u2.s32.b32", &[a, b, 0x1234_5678]),
        0x2345_6783
    );
}
