//! SIMD video instructions against arithmetic on single pieces.

use super::harness::{one, Random};

#[test]
fn pieces_compute_one_by_one() {
    let mut random = Random::new(17);
    type Operation = fn(i64, i64) -> i64;
    let operations: [(&str, Operation); 5] = [
        ("vadd", |a, b| a + b),
        ("vsub", |a, b| a - b),
        ("vabsdiff", |a, b| (a - b).abs()),
        ("vmin", |a, b| a.min(b)),
        ("vmax", |a, b| a.max(b)),
    ];
    for (name, operation) in operations {
        for count in [2, 4] {
            let width = 32 / count;
            for kind in 0..8 {
                let signs = [kind & 1 != 0, kind & 2 != 0, kind & 4 != 0];
                let [d, a, b] = signs.map(|s| if s { "s32" } else { "u32" });
                let words = [random.bits(), random.bits(), random.bits()];
                let piece = |word: u64, index: u32, signed: bool| {
                    let bits = (word >> (index * width) & ((1 << width) - 1)) as i64;
                    if signed && bits >> (width - 1) != 0 {
                        bits - (1 << width)
                    } else {
                        bits
                    }
                };
                let results: Vec<i64> = (0..count)
                    .map(|i| operation(piece(words[0], i, signs[1]), piece(words[1], i, signs[2])))
                    .collect();
                let join = |values: &[i64]| {
                    values.iter().rev().fold(0, |word, &value| {
                        word << width | value as u64 & ((1 << width) - 1)
                    })
                };
                let base = format!("{name}{count}.{d}.{a}.{b}");
                assert_eq!(one(&base, &words), join(&results), "{base}");
                let (least, most) = if signs[0] {
                    (-(1 << (width - 1)), (1 << (width - 1)) - 1)
                } else {
                    (0, (1 << width) - 1)
                };
                let clamped: Vec<i64> = results.iter().map(|&v| v.clamp(least, most)).collect();
                assert_eq!(
                    one(&format!("{base}.sat"), &words),
                    join(&clamped),
                    "{base}.sat"
                );
                let sum = words[2].wrapping_add(results.iter().sum::<i64>() as u64) as u32;
                assert_eq!(
                    one(&format!("{base}.add"), &words),
                    sum.into(),
                    "{base}.add"
                );
            }
        }
    }
}
