//! Arithmetic on halves against exact results rounded in integers.

use super::harness::{run, Random};
use crate::ops::exact::{Exact, Format, BFLOAT, HALF};
use crate::ops::form::Rounding;

/// A half format: its exact format, its exponent mask, and its codes as doubles.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    format: Format,
    infinity: u64,
    value: fn(u64) -> f64,
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "f16",
        format: HALF,
        infinity: 0x7c00,
        value: |code| half::f16::from_bits(code as u16).to_f64(),
    },
    Kind {
        name: "bf16",
        format: BFLOAT,
        infinity: 0x7f80,
        value: |code| half::bf16::from_bits(code as u16).to_f64(),
    },
];

impl Kind {
    fn random(self, random: &mut Random) -> u64 {
        let (bits, how) = (random.bits() & 0xffff, random.bits());
        // The least normal number: the lowest bit of the exponent.
        let lowest = self.infinity & self.infinity.wrapping_neg();
        match how & 7 {
            0 | 1 => bits,
            2 => bits & (0x8000 | (lowest - 1)), // subnormal
            3 => [
                0,
                0x8000,
                self.infinity,
                self.infinity | 0x8000,
                0x7fff,
                self.infinity - 1,
                1,
                lowest,
            ][(how >> 8) as usize & 7],
            _ => {
                let exponent = self.infinity / 2 / lowest - 4 + (how >> 8) % 9;
                (bits & (0x8000 | (lowest - 1))) | (exponent * lowest)
            }
        }
    }

    fn flushed(self, code: u64) -> u64 {
        if code & self.infinity == 0 {
            code & 0x8000
        } else {
            code
        }
    }

    /// The code of `a * b + c`, rounded once.
    fn fused(self, a: u64, b: u64, c: u64) -> u64 {
        let [x, y, z] = [a, b, c].map(self.value);
        let machine = x.mul_add(y, z);
        if machine.is_nan() {
            return 0x7fff;
        } else if machine.is_infinite() {
            return self.infinity | u64::from(machine < 0.0) << 15;
        }
        let product = Exact::double(x).times(Exact::double(y));
        let sum = product.plus(Exact::double(z), Rounding::Nearest);
        u64::from(sum.negative) << 15 | sum.round(self.format, Rounding::Nearest)
    }

    fn saturated(self, code: u64) -> u64 {
        let one = (self.infinity / 2) & self.infinity;
        match (self.value)(code) {
            x if x >= 1.0 => one,
            x if x > 0.0 => code,
            _ => 0,
        }
    }
}

/// Checks a form on single halves and on pairs, which hold one row's halves and the next's.
fn check(kind: Kind, name: &str, rows: &[[u64; 4]], expected: impl Fn([u64; 3]) -> u64) {
    let expected: Vec<u64> = rows.iter().map(|r| expected([r[0], r[1], r[2]])).collect();
    let single = format!("{name}.{}", kind.name);
    for (lane, found) in run(&single, rows).iter().enumerate() {
        assert_eq!(*found, expected[lane], "{single} {:x?}", rows[lane]);
    }
    let pair = format!("{single}x2");
    let pairs: Vec<[u64; 4]> = rows
        .chunks_exact(2)
        .map(|two| [0, 1, 2, 3].map(|i| two[0][i] & 0xffff | two[1][i] << 16 & 0xffff_0000))
        .collect();
    for (lane, found) in run(&pair, &pairs).iter().enumerate() {
        assert_eq!(
            found & 0xffff,
            expected[2 * lane],
            "{pair} {:x?}",
            rows[2 * lane]
        );
        assert_eq!(
            found >> 16,
            expected[2 * lane + 1],
            "{pair} {:x?}",
            rows[2 * lane + 1]
        );
    }
}

fn rows(kind: Kind, seed: u64) -> Vec<[u64; 4]> {
    let mut random = Random::new(seed);
    let mut rows: Vec<[u64; 4]> = (0..8000)
        .map(|_| {
            [
                kind.random(&mut random),
                kind.random(&mut random),
                kind.random(&mut random),
                0,
            ]
        })
        .collect();
    // Products near a tie, with a sum far below it that decides.
    for _ in 0..4000 {
        let tiny = random.bits() & 0x8007;
        rows.push([kind.random(&mut random), kind.random(&mut random), tiny, 0]);
    }
    rows
}

#[test]
fn half_arithmetic_rounds_once() {
    for kind in KINDS {
        let rows = rows(kind, 51);
        let (one, minus_zero) = ((kind.infinity / 2) & kind.infinity, 0x8000);
        check(kind, "add", &rows, |[a, b, _]| kind.fused(a, one, b));
        check(kind, "sub", &rows, |[a, b, _]| {
            kind.fused(b ^ 0x8000, one, a)
        });
        check(kind, "mul.rn", &rows, |[a, b, _]| {
            // -0 is the neutral term of sums.
            kind.fused(a, b, minus_zero)
        });
        check(kind, "fma.rn", &rows, |[a, b, c]| kind.fused(a, b, c));
        let relu = |code: u64| if code >> 15 != 0 { 0 } else { code };
        check(kind, "fma.rn.relu", &rows, |[a, b, c]| {
            relu(kind.fused(a, b, c))
        });
        check(kind, "neg", &rows, |[a, ..]| a & 0xffff ^ 0x8000);
        check(kind, "abs", &rows, |[a, ..]| a & 0x7fff);
    }
}

#[test]
fn half_results_flush_and_saturate() {
    let kind = KINDS[0];
    let rows = rows(kind, 52);
    let one = 0x3c00;
    let flush = |code| kind.flushed(code);
    check(kind, "add.ftz", &rows, |[a, b, _]| {
        flush(kind.fused(flush(a), one, flush(b)))
    });
    check(kind, "mul.sat", &rows, |[a, b, _]| {
        kind.saturated(kind.fused(a, b, 0x8000))
    });
    check(kind, "sub.ftz.sat", &rows, |[a, b, _]| {
        kind.saturated(flush(kind.fused(flush(b) ^ 0x8000, one, flush(a))))
    });
    check(kind, "fma.rn.ftz.sat", &rows, |[a, b, c]| {
        kind.saturated(flush(kind.fused(flush(a), flush(b), flush(c))))
    });
    check(kind, "neg.ftz", &rows, |[a, ..]| flush(a & 0xffff) ^ 0x8000);
}

#[test]
fn half_extrema_order_zeros_and_lose_nan() {
    for kind in KINDS {
        let rows = rows(kind, 53);
        // Codes of one sign are in order, and all negative ones lie below.
        let rank = |code: u64| {
            if code >> 15 != 0 {
                !code as i64 | !0xffff
            } else {
                code as i64
            }
        };
        let nan = |code: u64| code & 0x7fff > kind.infinity;
        let extremum = |a: u64, b: u64, greatest: bool| match (nan(a), nan(b)) {
            (true, true) => 0x7fff,
            (true, _) => b,
            (_, true) => a,
            _ => {
                if (rank(a) < rank(b)) != greatest {
                    a
                } else {
                    b
                }
            }
        };
        check(kind, "min", &rows, |[a, b, _]| extremum(a, b, false));
        check(kind, "max", &rows, |[a, b, _]| extremum(a, b, true));
        check(kind, "max.NaN", &rows, |[a, b, _]| {
            if nan(a) || nan(b) {
                0x7fff
            } else {
                extremum(a, b, true)
            }
        });
        check(kind, "min.xorsign.abs", &rows, |[a, b, _]| {
            match extremum(a & 0x7fff, b & 0x7fff, false) {
                0x7fff => 0x7fff,
                code => code | (a ^ b) & 0x8000,
            }
        });
    }
}
