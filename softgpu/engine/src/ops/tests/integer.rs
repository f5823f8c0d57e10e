//! Integer arithmetic against 128-bit integers.

use super::harness::{one, run, Random};

/// An integer type of PTX.
#[derive(Clone, Copy)]
struct Int {
    width: u32,
    signed: bool,
}

impl Int {
    fn name(self) -> String {
        format!("{}{}", if self.signed { 's' } else { 'u' }, self.width)
    }

    fn number(self, bits: u64) -> i128 {
        let above = 128 - self.width;
        if self.signed {
            (bits as i128) << above >> above
        } else {
            ((bits as u128) << above >> above) as i128
        }
    }

    fn least(self) -> i128 {
        if self.signed {
            -(1 << (self.width - 1))
        } else {
            0
        }
    }

    fn most(self) -> i128 {
        self.least() + ((1 << self.width) - 1)
    }
}

fn wrapped(number: i128, width: u32) -> u64 {
    (number as u128 & ((1 << width) - 1)) as u64
}

const ALL: [Int; 6] = [
    Int {
        width: 16,
        signed: false,
    },
    Int {
        width: 16,
        signed: true,
    },
    Int {
        width: 32,
        signed: false,
    },
    Int {
        width: 32,
        signed: true,
    },
    Int {
        width: 64,
        signed: false,
    },
    Int {
        width: 64,
        signed: true,
    },
];

/// Rows of three integers, edges of the type among them.
fn rows(ty: Int, seed: u64) -> Vec<[u64; 4]> {
    let edges = [
        0,
        1,
        2,
        -1,
        ty.least(),
        ty.least() + 1,
        ty.most(),
        ty.most() - 1,
    ]
    .map(|n| wrapped(n, ty.width));
    let mut rows = vec![];
    for a in edges {
        for b in edges {
            rows.extend([[a, b, edges[3], 0], [a, b, edges[5], 0], [a, b, 0, 0]]);
        }
    }
    let mut random = Random::new(seed);
    for _ in 0..600 {
        rows.push([random.integer(), random.integer(), random.integer(), 0]);
    }
    rows
}

fn check(ty: Int, opcode: &str, wide: bool, expected: impl Fn(i128, i128, i128) -> i128) {
    let rows = rows(ty, 7);
    let name = format!("{opcode}.{}", ty.name());
    let width = if wide { ty.width * 2 } else { ty.width };
    for (row, found) in rows.iter().zip(run(&name, &rows)) {
        let third = if wide { Int { width, ..ty } } else { ty };
        let (a, b, c) = (ty.number(row[0]), ty.number(row[1]), third.number(row[2]));
        let expected = wrapped(expected(a, b, c), width);
        assert_eq!(found, expected, "{name} {a} {b} {c}");
    }
}

/// The upper half of a product, rounded down as a shift does.
fn high(ty: Int, a: i128, b: i128) -> i128 {
    if ty.width == 64 && !ty.signed {
        ((a as u128 * b as u128) >> 64) as i128
    } else {
        (a * b) >> ty.width
    }
}

#[test]
fn arithmetic_wraps() {
    for ty in ALL {
        check(ty, "add", false, |a, b, _| a + b);
        check(ty, "sub", false, |a, b, _| a - b);
        check(ty, "mul.lo", false, |a, b, _| a.wrapping_mul(b));
        check(ty, "mul.hi", false, |a, b, _| high(ty, a, b));
        check(ty, "mad.lo", false, |a, b, c| {
            a.wrapping_mul(b).wrapping_add(c)
        });
        check(ty, "mad.hi", false, |a, b, c| high(ty, a, b) + c);
        check(ty, "min", false, |a, b, _| a.min(b));
        check(ty, "max", false, |a, b, _| a.max(b));
        check(ty, "sad", false, |a, b, c| (a - b).abs() + c);
        if ty.width < 64 {
            check(ty, "mul.wide", true, |a, b, _| a * b);
            check(ty, "mad.wide", true, |a, b, c| a * b + c);
        }
        if ty.signed {
            check(ty, "abs", false, |a, _, _| a.abs());
            check(ty, "neg", false, |a, _, _| -a);
        }
    }
}

#[test]
fn division_truncates_and_never_traps() {
    for ty in ALL {
        check(ty, "div", false, |a, b, _| if b == 0 { -1 } else { a / b });
        check(ty, "rem", false, |a, b, _| if b == 0 { -1 } else { a % b });
    }
}

#[test]
fn quotients_near_integers_are_exact() {
    let mut random = Random::new(3);
    let mut rows = vec![];
    for _ in 0..20_000 {
        let b = random.bits() as u32 >> (random.bits() & 31);
        let q = random.bits() as u32 >> (random.bits() & 31);
        let product = b.wrapping_mul(q);
        for a in [product.wrapping_sub(1), product, product.wrapping_add(1)] {
            rows.push([a.into(), b.into(), 0, 0]);
        }
    }
    for (row, found) in rows.iter().zip(run("div.u32", &rows)) {
        assert_eq!(
            found,
            row[0].checked_div(row[1]).unwrap_or(0xffff_ffff),
            "{row:?}"
        );
    }
}

#[test]
fn saturating_sums_stop_at_the_ends() {
    let ty = Int {
        width: 32,
        signed: true,
    };
    let clamp = |n: i128| n.clamp(ty.least(), ty.most());
    check(ty, "add.sat", false, |a, b, _| clamp(a + b));
    check(ty, "sub.sat", false, |a, b, _| clamp(a - b));
    check(ty, "mad.hi.sat", false, |a, b, c| {
        clamp(((a * b) >> 32) + c)
    });
    check(ty, "min.relu", false, |a, b, _| a.min(b).max(0));
    check(ty, "max.relu", false, |a, b, _| a.max(b).max(0));
}

#[test]
fn products_of_24_bits() {
    for signed in [false, true] {
        let ty = Int { width: 32, signed };
        let low = |n: i128| if signed { (n as i32) << 8 >> 8 } else { n as i32 & 0xff_ffff } as i128;
        check(ty, "mul24.lo", false, |a, b, _| low(a) * low(b));
        check(ty, "mul24.hi", false, |a, b, _| (low(a) * low(b)) >> 16);
        check(ty, "mad24.lo", false, |a, b, c| low(a) * low(b) + c);
        check(ty, "mad24.hi", false, |a, b, c| {
            ((low(a) * low(b)) >> 16) + c
        });
    }
    let (a, c) = (0x7f_ffff, 0x7fff_ffff);
    assert_eq!(one("mad24.hi.sat.s32", &[a, a, c]), 0x7fff_ffff);
}

#[test]
fn pairs_compute_half_by_half() {
    assert_eq!(one("add.u16x2", &[0x0001_ffff, 0x0001_0001]), 0x0002_0000);
    assert_eq!(one("max.s16x2", &[0x8000_0005, 0x0001_fffb]), 0x0001_0005);
    assert_eq!(one("max.u16x2", &[0x8000_0005, 0x0001_fffb]), 0x8000_fffb);
    assert_eq!(one("min.s16x2", &[0x8000_0005, 0x0001_fffb]), 0x8000_fffb);
    assert_eq!(
        one("min.relu.s16x2", &[0x8000_0005, 0x0001_0004]),
        0x0000_0004
    );
}

#[test]
fn dot_products_extend_by_sign() {
    let (a, b) = (0x80ff_0102, 0x7f02_fe03);
    let bytes = |word: u64, signed: bool| {
        [0, 8, 16, 24].map(|s| {
            if signed {
                (word >> s) as i8 as i64
            } else {
                (word >> s) as u8 as i64
            }
        })
    };
    for (a_signed, a_name) in [(true, "s32"), (false, "u32")] {
        for (b_signed, b_name) in [(true, "s32"), (false, "u32")] {
            let pairs = bytes(a, a_signed).into_iter().zip(bytes(b, b_signed));
            let products = pairs.map(|(a, b)| a * b);
            let expected = (products.sum::<i64>() + 5) as u32 as u64;
            assert_eq!(
                one(&format!("dp4a.{a_name}.{b_name}"), &[a, b, 5]),
                expected
            );

            let halves =
                [a & 0xffff, a >> 16].map(|h| if a_signed { h as i16 as i64 } else { h as i64 });
            let small = bytes(b, b_signed);
            let low = halves[0] * small[0] + halves[1] * small[1] + 5;
            let high = halves[0] * small[2] + halves[1] * small[3] + 5;
            assert_eq!(
                one(&format!("dp2a.lo.{a_name}.{b_name}"), &[a, b, 5]),
                low as u32 as u64
            );
            assert_eq!(
                one(&format!("dp2a.hi.{a_name}.{b_name}"), &[a, b, 5]),
                high as u32 as u64
            );
        }
    }
}
