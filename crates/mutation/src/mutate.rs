//! Changes that formats trip over: numbers at their limits, lengths that lie, pieces that are gone,
//! doubled, moved, or come from elsewhere.

use crate::Random;

/// Numbers at the limits of types and of common sense.
pub fn interesting(random: &mut Random) -> u64 {
    const EDGES: [u64; 14] = [
        0,
        1,
        2,
        7,
        0x7f,
        0xff,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
        1 << 47,
        i64::MAX as u64,
        u64::MAX,
    ];
    match random.below(4) {
        0 => 1 << random.below(64),
        1 => random.number() >> random.below(64),
        _ => random
            .pick(&EDGES)
            .wrapping_add(random.below(5) as u64)
            .wrapping_sub(2),
    }
}

/// Changes `bytes` in one to four places; pieces of `others` may get in. The result has at most
/// `most` bytes.
pub fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], most: usize, random: &mut Random) {
    for _ in 0..1 + random.length(3) {
        change(bytes, others, random);
    }
    bytes.truncate(most);
}

fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(12) {
        0 => flip(bytes, at, random),
        1 => overwrite(bytes, at, 1, random.number(), random),
        2..=4 => {
            let width = *random.pick(&[1, 2, 4, 4, 8, 8]);
            let value = interesting(random);
            overwrite(bytes, at, width, value, random);
        }
        5 => nudge(bytes, at, random),
        6 => {
            let end = (at + 1 + random.length(64)).min(bytes.len());
            if at < end {
                bytes.drain(at..end);
            }
        }
        7 => {
            let count = 1 + random.length(16);
            let noise = random.bytes(count);
            bytes.splice(at..at, noise);
        }
        8 => copy_within(bytes, at, random),
        9 => splice_other(bytes, at, others, random),
        10 if random.once_in(4) => bytes.truncate(at),
        _ => digits(bytes, at, random),
    }
}

fn flip(bytes: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Writes a number of `width` bytes; most formats have their numbers at multiples of their size.
fn overwrite(bytes: &mut [u8], at: usize, width: usize, value: u64, random: &mut Random) {
    let at = if random.once_in(4) {
        at
    } else {
        at - at % width
    };
    for (place, byte) in bytes
        .iter_mut()
        .skip(at)
        .zip(value.to_le_bytes())
        .take(width)
    {
        *place = byte;
    }
}

/// Moves a number by a little.
fn nudge(bytes: &mut [u8], at: usize, random: &mut Random) {
    let at = at & !3;
    if let Some(word) = bytes.get_mut(at..at + 4) {
        let number = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let by = random.below(33) as u32;
        word.copy_from_slice(&number.wrapping_add(by).wrapping_sub(16).to_le_bytes());
    }
}

/// Puts a piece of the bytes in once more, elsewhere.
fn copy_within(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let from = random.below(bytes.len());
    let piece: Vec<u8> = bytes[from.min(bytes.len())..]
        .iter()
        .take(1 + random.length(128))
        .copied()
        .collect();
    if random.once_in(2) {
        bytes.splice(at..at, piece);
    } else {
        for (place, byte) in bytes.iter_mut().skip(at).zip(piece) {
            *place = byte;
        }
    }
}

fn splice_other(bytes: &mut Vec<u8>, at: usize, others: &[Vec<u8>], random: &mut Random) {
    if others.is_empty() {
        return;
    }
    let other = random.pick(others);
    let from = random.below(other.len());
    let count = (1 + random.length(256)).min(other.len() - from.min(other.len()));
    let end = if random.once_in(2) {
        at
    } else {
        (at + count).min(bytes.len())
    };
    bytes.splice(at..end, other[from..from + count].iter().copied());
}

/// Puts another number in the place of the next one in a text.
fn digits(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = bytes[at.min(bytes.len())..]
        .iter()
        .position(u8::is_ascii_digit)
    else {
        return flip(bytes, at, random);
    };
    let start = at + start;
    let count = bytes[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let number = if random.once_in(2) {
        random.below(12) as u64
    } else {
        interesting(random)
    };
    bytes.splice(start..start + count, number.to_string().into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_make_equal_bytes_within_their_bound() {
        let others = vec![b"12345 other bytes".to_vec(), Vec::new()];
        let made = |seed| {
            let mut random = Random::new(seed);
            let mut bytes = b"mov.u32 %r1, 17;".to_vec();
            for _ in 0..500 {
                mutate(&mut bytes, &others, 64, &mut random);
                assert!(bytes.len() <= 64);
            }
            bytes
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }

    #[test]
    fn nothing_can_be_mutated() {
        let mut random = Random::new(3);
        for _ in 0..2000 {
            mutate(&mut Vec::new(), &[Vec::new()], 9, &mut random);
        }
    }
}
