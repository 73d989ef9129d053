//! The innermost loops of integer products: one tile of sums over all words of k, in registers.
//!
//! Each function takes (words, rows of A, words between two rows, a panel of B, the sums as rows of NR numbers). Words
//! hold four bytes for `vnni` and two 16-bit numbers for the others.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

const BASELINE_NR: usize = 16;

/// # Safety
/// `a` has R rows of `words` words, `b` words * 16 and `out` R * 16.
pub(super) unsafe fn baseline<const R: usize>(words: usize, a: *const i32, a_stride: usize, b: *const i32, out: *mut i32) {
    let mut acc = [[0i32; BASELINE_NR]; R];
    for w in 0..words {
        // SAFETY: the caller's promise.
        let panel = unsafe { &*b.add(w * BASELINE_NR).cast::<[i32; BASELINE_NR]>() };
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let x = unsafe { *a.add(i * a_stride + w) };
            let (x0, x1) = (x as i16 as i32, x >> 16);
            for j in 0..BASELINE_NR {
                // Each product of 9-bit numbers fits, and so does a pair; the sum wraps as i32 does.
                let pair = x0 * (panel[j] as i16 as i32) + x1 * (panel[j] >> 16);
                acc[j] = acc[j].wrapping_add(pair);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { *out.add(i * BASELINE_NR).cast::<[i32; BASELINE_NR]>() = *acc };
    }
}

/// # Safety
/// As [`baseline`]; the machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2<const R: usize>(words: usize, a: *const i32, a_stride: usize, b: *const i32, out: *mut i32) {
    // SAFETY: the caller's promise on all addresses.
    unsafe {
        let mut acc = [[_mm256_setzero_si256(); 2]; R];
        for w in 0..words {
            let panel = b.add(w * 16).cast::<__m256i>();
            let (b0, b1) = (_mm256_loadu_si256(panel), _mm256_loadu_si256(panel.add(1)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(*a.add(i * a_stride + w));
                acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(x, b0));
                acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(x, b1));
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            let row = out.add(i * 16).cast::<__m256i>();
            _mm256_storeu_si256(row, acc[0]);
            _mm256_storeu_si256(row.add(1), acc[1]);
        }
    }
}

macro_rules! avx512_tile {
    ($(#[$m:meta])* $name:ident, $features:literal, |$acc:ident, $x:ident, $b:ident| $step:expr) => {
        $(#[$m])*
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name<const R: usize>(words: usize, a: *const i32, a_stride: usize, b: *const i32, out: *mut i32) {
            // SAFETY: the caller's promise on all addresses.
            unsafe {
                let mut acc = [[_mm512_setzero_si512(); 2]; R];
                for w in 0..words {
                    let panel = b.add(w * 32).cast::<__m512i>();
                    let panels = [_mm512_loadu_si512(panel), _mm512_loadu_si512(panel.add(1))];
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let $x = _mm512_set1_epi32(*a.add(i * a_stride + w));
                        for (acc, $b) in acc.iter_mut().zip(panels) {
                            let $acc = *acc;
                            *acc = $step;
                        }
                    }
                }
                for (i, acc) in acc.iter().enumerate() {
                    let row = out.add(i * 32).cast::<__m512i>();
                    _mm512_storeu_si512(row, acc[0]);
                    _mm512_storeu_si512(row.add(1), acc[1]);
                }
            }
        }
    };
}

avx512_tile! {
    /// # Safety
    /// As [`baseline`] with 32 columns; the machine has AVX-512 BW.
    avx512, "avx512f,avx512bw", |acc, x, b| _mm512_add_epi32(acc, _mm512_madd_epi16(x, b))
}

avx512_tile! {
    /// # Safety
    /// As [`baseline`] with 32 columns and words of four bytes; the machine has AVX-512 VNNI.
    vnni, "avx512f,avx512vnni", |acc, x, b| _mm512_dpbusd_epi32(acc, b, x)
}
