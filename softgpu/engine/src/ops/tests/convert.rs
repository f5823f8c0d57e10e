//! `cvt`: all pairs of types, all roundings.

use super::harness::{one, run, Random, F32_EDGES, F64_EDGES};
use crate::ops::exact::{code_of_integer, Exact, Format, BFLOAT, DOUBLE, HALF, SINGLE};
use crate::ops::form::Rounding;

const INTEGERS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

const DIRECTIONS: [(&str, Rounding); 4] = [
    ("rn", Rounding::Nearest),
    ("rz", Rounding::Zero),
    ("rm", Rounding::Down),
    ("rp", Rounding::Up),
];

fn number(bits: u64, width: u32, signed: bool) -> i128 {
    let above = 128 - width;
    if signed {
        (bits as i128) << above >> above
    } else {
        ((bits as u128) << above >> above) as i128
    }
}

/// The range of an integer type.
fn range(width: u32, signed: bool) -> (i128, i128) {
    if signed {
        (-(1 << (width - 1)), (1 << (width - 1)) - 1)
    } else {
        (0, (1 << width) - 1)
    }
}

/// The number in a destination's lane: bytes are extended to the 16 bits that the test reads.
fn lane(number: i128, width: u32) -> u64 {
    let shown = width.max(16);
    (number as u128 & ((1 << shown) - 1)) as u64
}

fn integer_rows() -> Vec<[u64; 4]> {
    let mut random = Random::new(61);
    let mut rows: Vec<[u64; 4]> = (0..400).map(|_| [random.integer(), 0, 0, 0]).collect();
    for shift in [0, 7, 8, 15, 16, 23, 24, 31, 32, 52, 53, 62, 63] {
        for near in [-2i64, -1, 0, 1] {
            let edge = (1u64 << shift).wrapping_add(near as u64);
            rows.extend([[edge, 0, 0, 0], [edge.wrapping_neg(), 0, 0, 0]]);
        }
    }
    rows
}

#[test]
fn integers_truncate_or_saturate() {
    let rows = integer_rows();
    for (to, to_width, to_signed) in INTEGERS {
        for (from, from_width, from_signed) in INTEGERS {
            let (least, most) = range(to_width, to_signed);
            let plain = run(&format!("cvt.{to}.{from}"), &rows);
            let clamped = run(&format!("cvt.sat.{to}.{from}"), &rows);
            for (lane_index, row) in rows.iter().enumerate() {
                let value = number(row[0], from_width, from_signed);
                let wrapped = number(value as u64, to_width, to_signed);
                assert_eq!(
                    plain[lane_index],
                    lane(wrapped, to_width),
                    "{to} {from} {value}"
                );
                let nearest = value.clamp(least, most);
                assert_eq!(
                    clamped[lane_index],
                    lane(nearest, to_width),
                    "sat {to} {from} {value}"
                );
            }
        }
    }
}

fn float_rows() -> Vec<[u64; 4]> {
    let mut random = Random::new(62);
    let mut values: Vec<f64> = vec![];
    for edge in [
        0.0, 0.5, 1.5, 2.5, 127.5, 128.0, 255.5, 256.0, 32767.5, 65535.5, 65536.0,
    ] {
        values.extend([edge, -edge, edge + 0.25, -edge - 0.25]);
    }
    for exponent in [31, 32, 63, 64] {
        let power = 2f64.powi(exponent);
        values.extend([
            power,
            -power,
            power - 1.0,
            -power - 1.0,
            power * (1.0 - 1e-7),
        ]);
    }
    let mut rows: Vec<[u64; 4]> = values.iter().map(|x| [x.to_bits(), 0, 0, 0]).collect();
    rows.extend(F64_EDGES.iter().map(|&x| [x, 0, 0, 0]));
    rows.extend((0..800).map(|_| {
        let exponent = 1000 + random.bits() % 100;
        [
            random.bits() & 0x800f_ffff_ffff_ffff | exponent << 52,
            0,
            0,
            0,
        ]
    }));
    rows
}

/// Rows of doubles as another type, and back.
fn as_type(rows: &[[u64; 4]], ty: &str) -> Vec<([u64; 4], f64)> {
    rows.iter()
        .map(|row| {
            let x = f64::from_bits(row[0]);
            let (code, value) = match ty {
                "f16" => (
                    half::f16::from_f64(x).to_bits().into(),
                    half::f16::from_f64(x).to_f64(),
                ),
                "bf16" => (
                    half::bf16::from_f64(x).to_bits().into(),
                    half::bf16::from_f64(x).to_f64(),
                ),
                "f32" => ((x as f32).to_bits().into(), (x as f32).into()),
                _ => (row[0], x),
            };
            ([code, 0, 0, 0], value)
        })
        .collect()
}

#[test]
fn floats_become_integers_of_their_range() {
    let rows = float_rows();
    for from in ["f16", "bf16", "f32", "f64"] {
        let typed = as_type(&rows, from);
        let inputs: Vec<_> = typed.iter().map(|(row, _)| *row).collect();
        for (to, width, signed) in INTEGERS {
            for mode in ["rni", "rzi", "rmi", "rpi"] {
                let name = format!("cvt.{mode}.{to}.{from}");
                for (found, (_, value)) in run(&name, &inputs).into_iter().zip(&typed) {
                    let whole = match mode {
                        "rni" => value.round_ties_even(),
                        "rzi" => value.trunc(),
                        "rmi" => value.floor(),
                        _ => value.ceil(),
                    };
                    let (least, most) = range(width, signed);
                    let expected = if value.is_nan() {
                        if from == "f64" || width == 64 {
                            1 << (width - 1)
                        } else {
                            0
                        }
                    } else {
                        lane((whole as i128).clamp(least, most), width)
                    };
                    assert_eq!(found, expected, "{name} {value:e}");
                }
            }
        }
    }
    assert_eq!(one("cvt.rpi.s32.f32", &[1]), 1);
    assert_eq!(one("cvt.rpi.ftz.s32.f32", &[1]), 0);
}

#[test]
fn integers_become_floats_rounded_every_way() {
    let rows = integer_rows();
    let formats: [(&str, Format); 4] = [
        ("f16", HALF),
        ("bf16", BFLOAT),
        ("f32", SINGLE),
        ("f64", DOUBLE),
    ];
    for (to, format) in formats {
        for (from, width, signed) in INTEGERS {
            for (rounding, mode) in DIRECTIONS {
                let name = format!("cvt.{rounding}.{to}.{from}");
                for (row, found) in rows.iter().zip(run(&name, &rows)) {
                    let value = number(row[0], width, signed);
                    assert_eq!(
                        found,
                        code_of_integer(value, format, mode),
                        "{name} {value}"
                    );
                }
            }
        }
    }
    assert_eq!(one("cvt.rn.sat.f32.s32", &[7]), 0x3f80_0000);
    assert_eq!(one("cvt.rn.sat.f16.s64", &[u64::MAX]), 0);
}

/// `x` in a format, its code with the sign.
fn code(x: f64, format: Format, sign_bit: u32, mode: Rounding) -> u64 {
    u64::from(x.is_sign_negative()) << sign_bit | Exact::double(x).round(format, mode)
}

#[test]
fn doubles_narrow_without_rounding_twice() {
    let mut random = Random::new(63);
    let mut rows = float_rows();
    for _ in 0..2000 {
        // A tie of the narrow format with something far below it, either way.
        let exponent = 970 + random.bits() % 80;
        let kept = random.bits() & 0x800f_fc00_0000_0000;
        let tie = [
            0x200_0000_0000,
            0x10_0000_0000,
            0x1000_0000,
            0x1000_0000_0000,
        ][random.bits() as usize & 3];
        let below = [0u64, 1, u64::MAX][random.bits() as usize % 3];
        rows.push([(kept | exponent << 52 | tie).wrapping_add(below), 0, 0, 0]);
    }
    for (to, format, sign_bit, infinity, nan) in [
        ("f16", HALF, 15, 0x7c00, 0x7fff),
        ("bf16", BFLOAT, 15, 0x7f80, 0x7fff),
        ("f32", SINGLE, 31, 0x7f80_0000, 0x7fff_ffff),
    ] {
        for (rounding, mode) in DIRECTIONS {
            let name = format!("cvt.{rounding}.{to}.f64");
            for (row, found) in rows.iter().zip(run(&name, &rows)) {
                let x = f64::from_bits(row[0]);
                let expected = match x {
                    x if x.is_nan() => nan,
                    x if x.is_infinite() => infinity | u64::from(x < 0.0) << sign_bit,
                    x => code(x, format, sign_bit, mode),
                };
                assert_eq!(found, expected, "{name} {x:e} {:x}", row[0]);
            }
        }
    }
}

#[test]
fn singles_narrow_every_way() {
    let mut random = Random::new(64);
    let mut rows: Vec<[u64; 4]> = F32_EDGES.iter().map(|&x| [x.into(), 0, 0, 0]).collect();
    rows.extend((0..20_000).map(|_| {
        let exponent = 96 + random.bits() % 52;
        [random.bits() & 0x807f_ffff | exponent << 23, 0, 0, 0]
    }));
    rows.extend((0..4000).map(|_| [random.f32().into(), 0, 0, 0]));
    for (to, format, infinity) in [("f16", HALF, 0x7c00), ("bf16", BFLOAT, 0x7f80)] {
        for (rounding, mode) in DIRECTIONS {
            let name = format!("cvt.{rounding}.{to}.f32");
            for (row, found) in rows.iter().zip(run(&name, &rows)) {
                let x = f32::from_bits(row[0] as u32);
                let expected = match x {
                    x if x.is_nan() => 0x7fff,
                    x if x.is_infinite() => infinity | u64::from(x < 0.0) << 15,
                    x => code(x.into(), format, 15, mode),
                };
                assert_eq!(found, expected, "{name} {x:e}");
            }
        }
    }
}

#[test]
fn all_halves_widen_exactly_and_come_back() {
    let rows: Vec<[u64; 4]> = (0..0x1_0000).map(|code| [code, 0, 0, 0]).collect();
    let quiet = |x: f32| if x.is_nan() { 0x7fff_ffff } else { x.to_bits() } as u64;
    for (row, found) in rows.iter().zip(run("cvt.f32.f16", &rows)) {
        assert_eq!(
            found,
            quiet(half::f16::from_bits(row[0] as u16).to_f32()),
            "{:x}",
            row[0]
        );
    }
    for (row, found) in rows.iter().zip(run("cvt.f32.bf16", &rows)) {
        assert_eq!(
            found,
            quiet(half::bf16::from_bits(row[0] as u16).to_f32()),
            "{:x}",
            row[0]
        );
    }
    for ty in ["f16", "bf16"] {
        let nan = if ty == "f16" { 0x7c00 } else { 0x7f80 };
        for wide in ["f32", "f64"] {
            let widened: Vec<[u64; 4]> = run(&format!("cvt.{wide}.{ty}"), &rows)
                .iter()
                .map(|&x| [x, 0, 0, 0])
                .collect();
            for (row, found) in rows
                .iter()
                .zip(run(&format!("cvt.rz.{ty}.{wide}"), &widened))
            {
                let expected = if row[0] & 0x7fff > nan {
                    0x7fff
                } else {
                    row[0]
                };
                assert_eq!(found, expected, "{ty} {wide}");
            }
        }
    }
}

#[test]
fn floats_round_to_integral_values() {
    let rows = float_rows();
    for ty in ["f16", "bf16", "f32", "f64"] {
        let typed = as_type(&rows, ty);
        let inputs: Vec<_> = typed.iter().map(|(row, _)| *row).collect();
        for mode in ["rni", "rzi", "rmi", "rpi"] {
            let name = format!("cvt.{mode}.{ty}.{ty}");
            for (found, (_, value)) in run(&name, &inputs).into_iter().zip(&typed) {
                let whole = match mode {
                    "rni" => value.round_ties_even(),
                    "rzi" => value.trunc(),
                    "rmi" => value.floor(),
                    _ => value.ceil(),
                };
                let found = match ty {
                    "f16" => half::f16::from_bits(found as u16).to_f64(),
                    "bf16" => half::bf16::from_bits(found as u16).to_f64(),
                    "f32" => f32::from_bits(found as u32).into(),
                    _ => f64::from_bits(found),
                };
                let same = found.to_bits() == whole.to_bits() || found.is_nan() && whole.is_nan();
                assert!(same, "{name} {value:e}: {found:e}");
            }
        }
    }
}

#[test]
fn conversions_flush_and_saturate() {
    let f = |x: f32| u64::from(x.to_bits());
    assert_eq!(one("cvt.ftz.f64.f32", &[0x8000_0001]), (-0.0f64).to_bits());
    assert_eq!(
        one("cvt.f64.f32", &[1]),
        (f32::from_bits(1) as f64).to_bits()
    );
    assert_eq!(one("cvt.rn.ftz.f32.f64", &[1e-40f64.to_bits()]), 0);
    assert_eq!(
        one("cvt.rn.ftz.f32.f64", &[(-1e-40f64).to_bits()]),
        0x8000_0000
    );
    assert_eq!(one("cvt.sat.f32.f32", &[f(1.5)]), f(1.0));
    assert_eq!(one("cvt.sat.f32.f32", &[f(-0.0)]), 0);
    assert_eq!(one("cvt.sat.f32.f32", &[f(f32::NAN)]), 0);
    assert_eq!(one("cvt.ftz.sat.f32.f32", &[1]), 0);
    assert_eq!(
        one("cvt.sat.f64.f64", &[0.25f64.to_bits()]),
        0.25f64.to_bits()
    );
    assert_eq!(one("cvt.rn.sat.f16.f32", &[f(3.0)]), 0x3c00);
    assert_eq!(one("cvt.rn.bf16.f16", &[0x3c01]), 0x3f80);
    assert_eq!(one("cvt.rp.bf16.f16", &[0x3c01]), 0x3f81);
    assert_eq!(one("cvt.rn.f16.bf16", &[0x7f00]), 0x7c00);
}
