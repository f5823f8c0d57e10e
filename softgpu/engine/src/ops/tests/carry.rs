//! Carry chains against 128-bit integers.

use super::harness::{run_case, Random};
use crate::exec::lanes::WARPS;

fn check(name: &str, expected: impl Fn(&[u64; 4], bool) -> (u64, Option<bool>)) {
    let mut random = Random::new(11);
    let mut rows: Vec<[u64; 4]> = (0..512)
        .map(|_| [random.integer(), random.integer(), random.integer(), 0])
        .collect();
    let ends = [0, 1, u64::MAX, 1 << 63, 1 << 31, u32::MAX as u64];
    rows.extend(ends.iter().flat_map(|&a| ends.map(|b| [a, b, u64::MAX, 0])));
    let carry_in: u32 = 0x9669_5aa5;
    let outcome = run_case(name, &rows, |case| case.carry = [carry_in; WARPS]);
    for (lane, row) in rows.iter().enumerate() {
        let before = carry_in >> (lane % 32) & 1 != 0;
        let (value, carry) = expected(row, before);
        assert_eq!(outcome.d[lane], value, "{name} {row:x?} {before}");
        assert_eq!(
            outcome.carry[lane] != 0,
            carry.unwrap_or(before),
            "{name} {row:x?} {before}"
        );
    }
}

#[test]
fn sums_carry() {
    for (suffix, width) in [("u32", 32), ("s32", 32), ("u64", 64), ("s64", 64)] {
        let ones = (1u128 << width) - 1;
        let low = |row: &[u64; 4]| row.map(|x| x as u128 & ones);
        let whole = |sum: u128| ((sum & ones) as u64, Some(sum >> width & 1 != 0));
        let quiet = |sum: u128| ((sum & ones) as u64, None);
        check(&format!("add.cc.{suffix}"), |row, _| {
            whole(low(row)[0] + low(row)[1])
        });
        check(&format!("addc.cc.{suffix}"), |row, c| {
            whole(low(row)[0] + low(row)[1] + c as u128)
        });
        check(&format!("addc.{suffix}"), |row, c| {
            quiet(low(row)[0] + low(row)[1] + c as u128)
        });
        check(&format!("sub.cc.{suffix}"), |row, _| {
            whole(low(row)[0].wrapping_sub(low(row)[1]))
        });
        let subc = |row: &[u64; 4], c: bool| low(row)[0].wrapping_sub(low(row)[1] + c as u128);
        check(&format!("subc.cc.{suffix}"), |row, c| whole(subc(row, c)));
        check(&format!("subc.{suffix}"), |row, c| quiet(subc(row, c)));
    }
}

#[test]
fn products_carry() {
    for (suffix, width, signed) in [
        ("u32", 32, false),
        ("s32", 32, true),
        ("u64", 64, false),
        ("s64", 64, true),
    ] {
        let ones = (1u128 << width) - 1;
        let part = |row: &[u64; 4], high: bool| {
            let product = match (width, signed) {
                (32, true) => (row[0] as i32 as i128 * row[1] as i32 as i128) as u128,
                (32, false) => row[0] as u32 as u128 * row[1] as u32 as u128,
                (_, true) => (row[0] as i64 as i128 * row[1] as i64 as i128) as u128,
                (_, false) => row[0] as u128 * row[1] as u128,
            };
            (if high { product >> width } else { product }) & ones
        };
        let whole = |sum: u128| ((sum & ones) as u64, Some(sum >> width & 1 != 0));
        for (half, high) in [("lo", false), ("hi", true)] {
            let sum =
                |row: &[u64; 4], c: bool| part(row, high) + (row[2] as u128 & ones) + c as u128;
            check(&format!("mad.{half}.cc.{suffix}"), |row, _| {
                whole(sum(row, false))
            });
            check(&format!("madc.{half}.cc.{suffix}"), |row, c| {
                whole(sum(row, c))
            });
            check(&format!("madc.{half}.{suffix}"), |row, c| {
                ((sum(row, c) & ones) as u64, None)
            });
        }
    }
}
