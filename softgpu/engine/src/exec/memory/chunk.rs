//! How the addresses of eight neighbouring lanes relate, decided in a few vector instructions:
//! most accesses are to consecutive or equal addresses and need one load or store.

/// Lanes that are looked at together.
pub const CHUNK: usize = 8;

/// The addresses of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern<W> {
    /// Each lane's address is one element after the one before it; the first is given.
    Consecutive(W),
    /// All lanes have this address.
    Equal(W),
    Other,
}

/// A way to look at chunks: what the machine can do.
pub trait Level {
    /// Classifies eight 32-bit addresses of elements of `step` bytes.
    ///
    /// # Safety
    /// `at` must point to eight words, and the machine must have what the level is named for.
    unsafe fn narrow(at: *const u32, step: u32) -> Pattern<u32>;
    /// Classifies eight 64-bit addresses.
    ///
    /// # Safety
    /// As for `narrow`.
    unsafe fn wide(at: *const u64, step: u64) -> Pattern<u64>;
    /// Writes `value` to eight words.
    ///
    /// # Safety
    /// As for `narrow`.
    unsafe fn repeat_word(to: *mut u32, value: u32);
    /// Writes `value` to eight double words.
    ///
    /// # Safety
    /// As for `narrow`.
    unsafe fn repeat_double(to: *mut u64, value: u64);
}

/// Any machine.
pub struct Baseline;

macro_rules! classify {
    ($at:ident, $step:ident: $ty:ty) => {{
        // SAFETY: the caller's promise.
        let at = unsafe { $at.cast::<[$ty; CHUNK]>().read() };
        let (mut consecutive, mut equal, mut next) = (true, true, at[0]);
        for address in at {
            consecutive &= address == next;
            equal &= address == at[0];
            next = next.wrapping_add($step);
        }
        match (consecutive, equal) {
            (true, _) => Pattern::Consecutive(at[0]),
            (_, true) => Pattern::Equal(at[0]),
            _ => Pattern::Other,
        }
    }};
}

impl Level for Baseline {
    unsafe fn narrow(at: *const u32, step: u32) -> Pattern<u32> {
        classify!(at, step: u32)
    }

    unsafe fn wide(at: *const u64, step: u64) -> Pattern<u64> {
        classify!(at, step: u64)
    }

    #[inline(always)]
    unsafe fn repeat_word(to: *mut u32, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u32; CHUNK]>().write([value; CHUNK]) }
    }

    #[inline(always)]
    unsafe fn repeat_double(to: *mut u64, value: u64) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u64; CHUNK]>().write([value; CHUNK]) }
    }
}

/// x86-64 with AVX2.
#[cfg(target_arch = "x86_64")]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Level for Avx2 {
    #[inline(always)]
    unsafe fn narrow(at: *const u32, step: u32) -> Pattern<u32> {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe {
            let first = at.read();
            let (at, same) = (
                _mm256_loadu_si256(at.cast()),
                _mm256_set1_epi32(first as i32),
            );
            let shift = _mm_cvtsi32_si128(step.trailing_zeros() as i32);
            let steps = _mm256_sll_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), shift);
            if are_equal(at, _mm256_add_epi32(same, steps)) {
                Pattern::Consecutive(first)
            } else if are_equal(at, same) {
                Pattern::Equal(first)
            } else {
                Pattern::Other
            }
        }
    }

    #[inline(always)]
    unsafe fn wide(at: *const u64, step: u64) -> Pattern<u64> {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe {
            let first = at.read();
            let same = _mm256_set1_epi64x(first as i64);
            let low = _mm256_loadu_si256(at.cast());
            let high = _mm256_loadu_si256(at.add(4).cast());
            let shift = _mm_cvtsi32_si128(step.trailing_zeros() as i32);
            let after = |a, b, c, d| {
                _mm256_add_epi64(
                    same,
                    _mm256_sll_epi64(_mm256_setr_epi64x(a, b, c, d), shift),
                )
            };
            if are_equal(low, after(0, 1, 2, 3)) && are_equal(high, after(4, 5, 6, 7)) {
                Pattern::Consecutive(first)
            } else if are_equal(low, same) && are_equal(high, same) {
                Pattern::Equal(first)
            } else {
                Pattern::Other
            }
        }
    }

    // Whole vectors, because what reads the register next reads whole vectors.
    #[inline(always)]
    unsafe fn repeat_word(to: *mut u32, value: u32) {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), _mm256_set1_epi32(value as i32)) }
    }

    #[inline(always)]
    unsafe fn repeat_double(to: *mut u64, value: u64) {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe {
            let values = _mm256_set1_epi64x(value as i64);
            _mm256_storeu_si256(to.cast(), values);
            _mm256_storeu_si256(to.add(4).cast(), values);
        }
    }
}

/// Whether two vectors are the same.
///
/// # Safety
/// The machine must have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn are_equal(a: std::arch::x86_64::__m256i, b: std::arch::x86_64::__m256i) -> bool {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise.
    unsafe { _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b))) == 0xff }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Classifies by every level and width, and checks that they agree.
    fn classify(at: [u32; 8]) -> Pattern<u32> {
        let wide_at = at.map(u64::from);
        // SAFETY: the arrays have eight elements; the second level is used where it exists.
        unsafe {
            let narrow = Baseline::narrow(at.as_ptr(), 4);
            let wide = match narrow {
                Pattern::Consecutive(first) => Pattern::Consecutive(first.into()),
                Pattern::Equal(first) => Pattern::Equal(first.into()),
                Pattern::Other => Pattern::Other,
            };
            assert_eq!(Baseline::wide(wide_at.as_ptr(), 4), wide);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                assert_eq!(Avx2::narrow(at.as_ptr(), 4), narrow);
                assert_eq!(Avx2::wide(wide_at.as_ptr(), 4), wide);
            }
            narrow
        }
    }

    #[test]
    fn patterns() {
        let from = |first: u32, step: u32| std::array::from_fn(|lane| first + lane as u32 * step);
        assert_eq!(classify(from(64, 4)), Pattern::Consecutive(64));
        assert_eq!(classify(from(63, 4)), Pattern::Consecutive(63));
        assert_eq!(classify(from(64, 0)), Pattern::Equal(64));
        assert_eq!(classify(from(64, 8)), Pattern::Other);
        for lane in 0..8 {
            let mut at = from(64, 4);
            at[lane] ^= 128;
            assert_eq!(classify(at), Pattern::Other, "lane {lane}");
            let mut at = from(64, 0);
            at[lane] ^= 128;
            assert_eq!(classify(at), Pattern::Other, "lane {lane}");
        }
    }
}
