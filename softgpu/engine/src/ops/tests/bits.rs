//! Bit manipulation and shifts against loops over single bits.

use super::harness::{one, run, run_case, Random};

fn rows(seed: u64) -> Vec<[u64; 4]> {
    let mut random = Random::new(seed);
    let mut rows = vec![];
    for position in [0, 1, 5, 31, 32, 33, 63, 64, 65, 127, 255, 256, 1 << 31] {
        for length in [0, 1, 8, 31, 32, 33, 63, 64, 65, 255, 256 + 4] {
            rows.push([random.bits(), random.bits(), position, length]);
            rows.push([random.bits() | 1 << 63 | 1 << 31, 0, position, length]);
        }
    }
    rows
}

fn check(name: &str, rows: &[[u64; 4]], expected: impl Fn(&[u64; 4]) -> u64) {
    for (row, found) in rows.iter().zip(run(name, rows)) {
        assert_eq!(found, expected(row), "{name} {row:x?}");
    }
}

fn bit(word: u64, index: u64) -> bool {
    word >> index & 1 != 0
}

#[test]
fn extracted_fields_follow_the_manual() {
    let rows: Vec<_> = rows(1).iter().map(|r| [r[0], r[2], r[3], 0]).collect();
    for (name, width, signed) in [
        ("bfe.u32", 32, false),
        ("bfe.s32", 32, true),
        ("bfe.u64", 64, false),
        ("bfe.s64", 64, true),
    ] {
        check(name, &rows, |row| {
            let (pos, len) = (row[1] & 0xff, row[2] & 0xff);
            let sign = signed && len != 0 && bit(row[0], (pos + len - 1).min(width - 1));
            (0..width).fold(0, |d, i| {
                let inside = i < len && pos + i < width;
                d | u64::from(if inside { bit(row[0], pos + i) } else { sign }) << i
            })
        });
    }
}

#[test]
fn inserted_fields_follow_the_manual() {
    for (name, width) in [("bfi.b32", 32), ("bfi.b64", 64)] {
        check(name, &rows(2), |row| {
            let (pos, len) = (row[2] & 0xff, row[3] & 0xff);
            (0..width).fold(0, |d, i| {
                let inside = i >= pos && i < pos + len;
                d | u64::from(if inside {
                    bit(row[0], i - pos)
                } else {
                    bit(row[1], i)
                }) << i
            })
        });
    }
}

#[test]
fn the_highest_bit_is_found_beneath_the_sign() {
    let mut random = Random::new(5);
    let mut rows: Vec<[u64; 4]> = (0..300).map(|_| [random.integer(), 0, 0, 0]).collect();
    rows.extend([0, 1, u64::MAX, 1 << 63, 1 << 31, 0xffff_ffff].map(|a| [a, 0, 0, 0]));
    for (ty, width, signed) in [
        ("u32", 32, false),
        ("s32", 32, true),
        ("u64", 64, false),
        ("s64", 64, true),
    ] {
        let top = |a: u64| {
            let sign = signed && bit(a, width - 1);
            (0..width).rev().find(|&i| bit(a, i) != sign)
        };
        check(&format!("bfind.{ty}"), &rows, |row| {
            top(row[0]).unwrap_or(0xffff_ffff)
        });
        check(&format!("bfind.shiftamt.{ty}"), &rows, |row| {
            top(row[0]).map_or(0xffff_ffff, |i| width - 1 - i)
        });
    }
    for (ty, width) in [("b32", 32), ("b64", 64)] {
        check(&format!("popc.{ty}"), &rows, |r| {
            (0..width).filter(|&i| bit(r[0], i)).count() as u64
        });
        check(&format!("clz.{ty}"), &rows, |r| {
            (0..width).rev().take_while(|&i| !bit(r[0], i)).count() as u64
        });
        check(&format!("brev.{ty}"), &rows, |r| {
            (0..width).fold(0, |d, i| d | u64::from(bit(r[0], i)) << (width - 1 - i))
        });
    }
}

#[test]
fn the_nth_bit_is_searched_both_ways() {
    let mut random = Random::new(6);
    let mut rows = vec![];
    for mask in [0, 1, 0x8000_0000, 0xffff_ffff, random.bits(), random.bits()] {
        for base in [0, 1, 13, 31, 32] {
            rows.extend((-34i32..=34).map(|n| [mask, base, n as u32 as u64, 0]));
        }
    }
    check("fns.b32", &rows, |row| {
        let (mask, base, n) = (row[0], row[1] as i64, row[2] as i32);
        if n == 0 {
            return if base < 32 && bit(mask, base as u64) {
                base as u64
            } else {
                0xffff_ffff
            };
        }
        let (mut position, mut left) = (base, n.unsigned_abs());
        while (0..32).contains(&position) {
            left -= u32::from(bit(mask, position as u64));
            if left == 0 {
                return position as u64;
            }
            position += i64::from(n.signum());
        }
        0xffff_ffff
    });
}

#[test]
fn masks_and_extensions_clamp_or_wrap() {
    let rows: Vec<_> = rows(4).iter().map(|r| [r[2], r[3], 0, 0]).collect();
    check("bmsk.clamp.b32", &rows, |row| {
        (0..32).fold(0, |d, i| {
            d | u64::from(i >= row[0] && i - row[0] < row[1]) << i
        })
    });
    check("bmsk.wrap.b32", &rows, |row| {
        let (start, count) = (row[0] & 31, row[1] & 31);
        (0..32).fold(0, |d, i| {
            d | u64::from(i >= start && i < start + count) << i
        })
    });
    let rows: Vec<_> = self::rows(8).iter().map(|r| [r[0], r[3], 0, 0]).collect();
    for (signed, ty) in [(true, "s32"), (false, "u32")] {
        let extended = |a: u64, count: u64| {
            let sign = signed && count != 0 && bit(a, count - 1);
            (0..32).fold(0, |d, i| {
                d | u64::from(if i < count { bit(a, i) } else { sign }) << i
            })
        };
        check(&format!("szext.clamp.{ty}"), &rows, |r| {
            extended(r[0], r[1].min(32))
        });
        check(&format!("szext.wrap.{ty}"), &rows, |r| {
            extended(r[0], r[1] & 31)
        });
    }
}

#[test]
fn bytes_are_permuted() {
    let (a, b) = (0x8342_c180, 0x07f6_4504);
    let bytes: Vec<u64> = (0..8)
        .map(|i| {
            (if i < 4 {
                a >> (8 * i)
            } else {
                b >> (8 * i - 32)
            }) & 0xff
        })
        .collect();
    let join = |chosen: [u64; 4]| chosen.iter().rev().fold(0, |word, byte| word << 8 | byte);
    let mut random = Random::new(9);
    let rows: Vec<_> = (0..256).map(|_| [a, b, random.bits(), 0]).collect();
    check("prmt.b32", &rows, |row| {
        join([0, 4, 8, 12].map(|shift| {
            let selector = row[2] >> shift & 15;
            let byte = bytes[(selector & 7) as usize];
            match selector & 8 {
                0 => byte,
                _ => (byte >> 7) * 0xff,
            }
        }))
    });
    // The manual's table: which byte goes where, the lowest first, for `c` 0 to 3.
    let modes: [(&str, [[usize; 4]; 4]); 6] = [
        (
            "f4e",
            [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]],
        ),
        (
            "b4e",
            [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]],
        ),
        (
            "rc8",
            [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]],
        ),
        (
            "ecl",
            [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]],
        ),
        (
            "ecr",
            [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]],
        ),
        (
            "rc16",
            [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]],
        ),
    ];
    for (mode, table) in modes {
        for (c, order) in table.iter().enumerate() {
            let expected = join(order.map(|i| bytes[i]));
            assert_eq!(
                one(&format!("prmt.b32.{mode}"), &[a, b, c as u64 | 0xf0]),
                expected,
                "{mode} {c}"
            );
        }
    }
}

#[test]
fn shifts_clamp_their_amount() {
    let mut rows = vec![];
    for a in [0x8123_4567_89ab_cdef, 0x7fff_ffff_8000_8001, 1] {
        for amount in [
            0,
            1,
            8,
            15,
            16,
            17,
            31,
            32,
            33,
            47,
            63,
            64,
            65,
            255,
            256,
            0x8000_0000,
        ] {
            rows.push([a, amount, 0, 0]);
        }
    }
    for width in [16, 32, 64] {
        let ones = u64::MAX >> (64 - width);
        check(&format!("shl.b{width}"), &rows, |r| {
            if r[1] < width {
                r[0] << r[1] & ones
            } else {
                0
            }
        });
        for kind in ["b", "u"] {
            check(&format!("shr.{kind}{width}"), &rows, |r| {
                if r[1] < width {
                    (r[0] & ones) >> r[1]
                } else {
                    0
                }
            });
        }
        check(&format!("shr.s{width}"), &rows, |r| {
            let signed = (r[0] << (64 - width)) as i64 >> (64 - width);
            (signed >> r[1].min(63)) as u64 & ones
        });
    }
}

#[test]
fn funnel_shifts_take_a_word_of_a_pair() {
    let mut random = Random::new(12);
    let rows: Vec<_> = (0..80)
        .map(|n| [random.bits(), random.bits(), n, 0])
        .collect();
    let pair = |row: &[u64; 4]| (row[1] as u32 as u128) << 32 | row[0] as u32 as u128;
    let low = |x: u128| x as u32 as u64;
    check("shf.l.wrap.b32", &rows, |r| {
        low(pair(r) << (r[2] & 31) >> 32)
    });
    check("shf.l.clamp.b32", &rows, |r| {
        low(pair(r) << r[2].min(32) >> 32)
    });
    check("shf.r.wrap.b32", &rows, |r| low(pair(r) >> (r[2] & 31)));
    check("shf.r.clamp.b32", &rows, |r| low(pair(r) >> r[2].min(32)));
}

#[test]
fn logic_is_bitwise_for_words_and_predicates() {
    let mut random = Random::new(13);
    let rows: Vec<_> = (0..64)
        .map(|_| [random.bits(), random.bits(), 0, 0])
        .collect();
    for (suffix, ones) in [
        ("b16", 0xffff),
        ("b32", 0xffff_ffff),
        ("b64", u64::MAX),
        ("pred", 1),
    ] {
        check(&format!("and.{suffix}"), &rows, |r| r[0] & r[1] & ones);
        check(&format!("or.{suffix}"), &rows, |r| (r[0] | r[1]) & ones);
        check(&format!("xor.{suffix}"), &rows, |r| (r[0] ^ r[1]) & ones);
        check(&format!("not.{suffix}"), &rows, |r| !r[0] & ones);
    }
    check("mov.pred", &rows, |r| r[0] & 1);
    assert_eq!(one("cnot.b16", &[0x1_0000]), 1);
    assert_eq!(one("cnot.b64", &[1 << 40]), 0);
}

#[test]
fn lop3_looks_its_table_up() {
    for table in 0..256 {
        // The operands that spell the table: bit `4a + 2b + c`.
        let outcome = run_case("lop3.b32", &[[0xf0, 0xcc, 0xaa, 0]], |case| {
            case.imm = table
        });
        assert_eq!(outcome.d[0] & 0xff, table as u64);
    }
}
