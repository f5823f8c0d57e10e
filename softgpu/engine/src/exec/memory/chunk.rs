//! How the addresses of eight neighbouring lanes relate, decided in a few vector instructions:
//! most accesses are to consecutive or equal addresses and need one load or store.

/// Lanes that are looked at together.
pub const CHUNK: usize = 8;

/// The addresses of a chunk. All but `Other` are aligned and in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern<W> {
    /// Each lane's address is one element after the one before it; the first is given.
    Consecutive(W),
    /// All lanes have this address.
    Equal(W),
    /// In range, in no order.
    Scattered,
    /// Not all are aligned and in range.
    Other,
}

/// What addresses are checked against.
#[derive(Clone, Copy)]
pub struct Limits<W> {
    /// Added to every address.
    pub add: W,
    /// The first allowed address, and how far above it the last one lies.
    pub start: W,
    pub room: W,
    /// Bytes of an element, a power of two.
    pub step: W,
}

/// A way to classify chunks: what the machine can do.
pub trait Level {
    /// Classifies eight 32-bit addresses; `start` is taken to be 0.
    ///
    /// # Safety
    /// `at` must point to eight words, and the machine must have what the level is named for.
    unsafe fn narrow(at: *const u32, limits: Limits<u32>) -> Pattern<u32>;
    /// Classifies eight 64-bit addresses.
    ///
    /// # Safety
    /// As for `narrow`.
    unsafe fn wide(at: *const u64, limits: Limits<u64>) -> Pattern<u64>;
}

/// Any machine.
pub struct Baseline;

macro_rules! classify {
    ($at:ident, $limits:ident) => {{
        let Limits {
            add,
            start,
            room,
            step,
        } = $limits;
        // SAFETY: the caller's promise.
        let at = unsafe { $at.cast::<[_; CHUNK]>().read() };
        let first = add.wrapping_add(at[0]);
        let (mut misaligned, mut outside, mut consecutive, mut equal) = (0, false, true, true);
        let mut next = first;
        for address in at {
            let address = add.wrapping_add(address);
            misaligned |= address & (step - 1);
            outside |= address.wrapping_sub(start) > room;
            consecutive &= address == next;
            equal &= address == first;
            next = next.wrapping_add(step);
        }
        match () {
            () if outside || misaligned != 0 => Pattern::Other,
            () if consecutive => Pattern::Consecutive(first),
            () if equal => Pattern::Equal(first),
            () => Pattern::Scattered,
        }
    }};
}

impl Level for Baseline {
    unsafe fn narrow(at: *const u32, limits: Limits<u32>) -> Pattern<u32> {
        classify!(at, limits)
    }

    unsafe fn wide(at: *const u64, limits: Limits<u64>) -> Pattern<u64> {
        classify!(at, limits)
    }
}

/// x86-64 with AVX2.
#[cfg(target_arch = "x86_64")]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Level for Avx2 {
    #[inline(always)]
    unsafe fn narrow(at: *const u32, limits: Limits<u32>) -> Pattern<u32> {
        use std::arch::x86_64::*;
        let Limits {
            add, room, step, ..
        } = limits;
        // SAFETY: the caller's promise.
        unsafe {
            let raw = _mm256_loadu_si256(at.cast());
            let value = at.read().wrapping_add(add);
            let aligned = value & (step - 1) == 0;
            let same = _mm256_broadcastd_epi32(_mm256_castsi256_si128(raw));
            let from_first = _mm256_sub_epi32(raw, same);
            let count = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let steps = _mm256_sll_epi32(count, _mm_cvtsi32_si128(step.trailing_zeros() as i32));
            let differ = _mm256_xor_si256(from_first, steps);
            if _mm256_testz_si256(differ, differ) == 1 {
                let inside = value <= room && room - value >= 7 * step;
                return if inside && aligned {
                    Pattern::Consecutive(value)
                } else {
                    Pattern::Other
                };
            }
            if _mm256_testz_si256(from_first, from_first) == 1 {
                let inside = value <= room;
                return if inside && aligned {
                    Pattern::Equal(value)
                } else {
                    Pattern::Other
                };
            }
            let moved = _mm256_add_epi32(raw, _mm256_set1_epi32(add as i32));
            let highest = _mm256_set1_epi32(room as i32);
            let beyond = _mm256_xor_si256(_mm256_max_epu32(moved, highest), highest);
            let low_bits = _mm256_set1_epi32(step as i32 - 1);
            let fits =
                _mm256_testz_si256(beyond, beyond) == 1 && _mm256_testz_si256(moved, low_bits) == 1;
            if fits {
                Pattern::Scattered
            } else {
                Pattern::Other
            }
        }
    }

    #[inline(always)]
    unsafe fn wide(at: *const u64, limits: Limits<u64>) -> Pattern<u64> {
        use std::arch::x86_64::*;
        let Limits {
            add,
            start,
            room,
            step,
        } = limits;
        // SAFETY: the caller's promise.
        unsafe {
            let raw = (
                _mm256_loadu_si256(at.cast()),
                _mm256_loadu_si256(at.add(4).cast()),
            );
            let first = at.read();
            let value = first.wrapping_add(add);
            let same = _mm256_set1_epi64x(first as i64);
            let shift = _mm_cvtsi32_si128(step.trailing_zeros() as i32);
            let steps = |a, b, c, d| _mm256_sll_epi64(_mm256_setr_epi64x(a, b, c, d), shift);
            let differ = |low: __m256i, high: __m256i| {
                let differ =
                    _mm256_or_si256(_mm256_xor_si256(raw.0, low), _mm256_xor_si256(raw.1, high));
                _mm256_testz_si256(differ, differ) == 0
            };
            let next = (
                _mm256_add_epi64(same, steps(0, 1, 2, 3)),
                _mm256_add_epi64(same, steps(4, 5, 6, 7)),
            );
            let above = value.wrapping_sub(start);
            let aligned = value & (step - 1) == 0;
            if !differ(next.0, next.1) {
                let inside = above <= room && room - above >= 7 * step;
                return if inside && aligned {
                    Pattern::Consecutive(value)
                } else {
                    Pattern::Other
                };
            }
            if !differ(same, same) {
                return if above <= room && aligned {
                    Pattern::Equal(value)
                } else {
                    Pattern::Other
                };
            }
            // Unsigned comparison by flipping the sign bits.
            let sign = _mm256_set1_epi64x(i64::MIN);
            let offset = _mm256_set1_epi64x(add.wrapping_sub(start) as i64);
            let room = _mm256_xor_si256(_mm256_set1_epi64x(room as i64), sign);
            let beyond =
                |at| _mm256_cmpgt_epi64(_mm256_xor_si256(_mm256_add_epi64(at, offset), sign), room);
            let outside = _mm256_or_si256(beyond(raw.0), beyond(raw.1));
            let moved = |at| _mm256_add_epi64(at, _mm256_set1_epi64x(add as i64));
            let bits = _mm256_or_si256(moved(raw.0), moved(raw.1));
            let low_bits = _mm256_set1_epi64x(step as i64 - 1);
            let fits = _mm256_testz_si256(outside, outside) == 1
                && _mm256_testz_si256(bits, low_bits) == 1;
            if fits {
                Pattern::Scattered
            } else {
                Pattern::Other
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Classifies by both levels and checks that they agree.
    fn classify(at: [u64; 8], limits: Limits<u64>) -> Pattern<u64> {
        // SAFETY: the arrays have eight elements; the second level is used where it exists.
        unsafe {
            let wide = Baseline::wide(at.as_ptr(), limits);
            let small = at.map(|address| address as u32);
            let Limits {
                add,
                start,
                room,
                step,
            } = limits;
            let narrow_limits = Limits {
                add: (add.wrapping_sub(start)) as u32,
                start: 0,
                room: room as u32,
                step: step as u32,
            };
            let narrow = Baseline::narrow(small.as_ptr(), narrow_limits);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                assert_eq!(Avx2::wide(at.as_ptr(), limits), wide);
                assert_eq!(Avx2::narrow(small.as_ptr(), narrow_limits), narrow);
            }
            assert_eq!(
                std::mem::discriminant(&wide),
                std::mem::discriminant(&match narrow {
                    Pattern::Consecutive(_) => Pattern::Consecutive(0),
                    Pattern::Equal(_) => Pattern::Equal(0),
                    Pattern::Scattered => Pattern::Scattered,
                    Pattern::Other => Pattern::Other,
                })
            );
            wide
        }
    }

    #[test]
    fn patterns_and_limits() {
        let limits = Limits {
            add: 16,
            start: 4096,
            room: 60,
            step: 4,
        };
        let from = |first: u64, step: u64| std::array::from_fn(|lane| first + lane as u64 * step);
        assert_eq!(classify(from(4080, 4), limits), Pattern::Consecutive(4096));
        assert_eq!(classify(from(4112, 4), limits), Pattern::Consecutive(4128));
        assert_eq!(classify(from(4116, 4), limits), Pattern::Other);
        assert_eq!(classify(from(4140, 0), limits), Pattern::Equal(4156));
        assert_eq!(classify(from(4144, 0), limits), Pattern::Other);
        assert_eq!(classify(from(4076, 0), limits), Pattern::Other);
        assert_eq!(classify(from(4082, 4), limits), Pattern::Other);
        assert_eq!(classify(from(4080, 8), limits), Pattern::Scattered);
        assert_eq!(classify(from(4088, 8), limits), Pattern::Other);
        let mut holes = from(4080, 4);
        holes[5] = 4140;
        assert_eq!(classify(holes, limits), Pattern::Scattered);
        holes[6] = 4143;
        assert_eq!(classify(holes, limits), Pattern::Other);
    }
}
