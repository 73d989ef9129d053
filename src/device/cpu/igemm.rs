//! Integer matrix products: sums of products of bytes, signed or not, exact in i32 (wrapping as i32 does).
//!
//! The left operand is kept as signed bytes and the right one as unsigned bytes, which is what the dot-product
//! instruction takes; an operand of the other signedness has its top bit flipped ([`flip_a`], [`flip_b`]), which moves
//! its values (and its zero point) by 128. Several elements along k make a *word* of 32 bits: four bytes where the
//! machine multiplies bytes (VNNI), two 16-bit numbers elsewhere, where a product of pairs cannot saturate. A is packed as
//! rows of words, B as panels of [`ByteDot::nr`] columns, word by word. Both kinds of packing give the sums of what they
//! packed, from which a caller takes zero points into account:
//! `sum (a - az)(b - bz) = sum a b - az sum b - bz sum a + k az bz`.
//!
//! It knows neither zero points nor requantization; a tile's sums go to a buffer of the caller.

mod tiles;

use super::Isa;
use super::multiversion::multiversion;
use once_cell::sync::Lazy;

/// Rows and columns of the largest tile.
pub(crate) const MAX_MR: usize = 8;
pub(crate) const MAX_NR: usize = 32;

/// `(words of k, rows of A, words from one row to the next, panel of B, sums [rows, nr])`.
type TileFn = unsafe fn(usize, *const i32, usize, *const i32, *mut i32);

/// One way to compute: an instruction set, its tile and how many elements a word holds.
#[derive(Clone, Copy)]
pub(crate) struct ByteDot {
    isa: Isa,
    /// Elements along k in a word: 4 or 2.
    pub per_word: usize,
    pub mr: usize,
    pub nr: usize,
    /// By number of rows - 1.
    table: &'static [TileFn],
}

macro_rules! table {
    ($f:ident: $($rows:literal)*) => { &[$(tiles::$f::<$rows>),*] };
}

const BASELINE: ByteDot =
    ByteDot { isa: Isa::Baseline, per_word: 2, mr: 4, nr: 16, table: table!(baseline: 1 2 3 4) };
#[cfg(target_arch = "x86_64")]
const AVX2: ByteDot = ByteDot { isa: Isa::Avx2, per_word: 2, mr: 4, nr: 16, table: table!(avx2: 1 2 3 4) };
#[cfg(target_arch = "x86_64")]
const AVX512: ByteDot =
    ByteDot { isa: Isa::Avx512, per_word: 2, mr: 8, nr: 32, table: table!(avx512: 1 2 3 4 5 6 7 8) };
#[cfg(target_arch = "x86_64")]
const VNNI: ByteDot = ByteDot { isa: Isa::Avx512, per_word: 4, mr: 8, nr: 32, table: table!(vnni: 1 2 3 4 5 6 7 8) };

impl ByteDot {
    /// All that this machine can run, worst first.
    pub(crate) fn available() -> Vec<ByteDot> {
        #[allow(unused_mut)]
        let mut all = vec![BASELINE];
        #[cfg(target_arch = "x86_64")]
        {
            if Isa::detect() >= Isa::Avx2 {
                all.push(AVX2);
            }
            if Isa::detect() >= Isa::Avx512 {
                all.push(AVX512);
                if is_x86_feature_detected!("avx512vnni") {
                    all.push(VNNI);
                }
            }
        }
        all
    }

    /// The best one of this machine.
    pub(crate) fn detect() -> ByteDot {
        static BEST: Lazy<ByteDot> = Lazy::new(|| *ByteDot::available().last().unwrap_or(&BASELINE));
        *BEST
    }

    /// Words of one row of A, and of one column of B.
    pub(crate) fn words(&self, k: usize) -> usize {
        k.div_ceil(self.per_word)
    }

    /// Panels of `n` columns of B.
    pub(crate) fn panels(&self, n: usize) -> usize {
        n.div_ceil(self.nr)
    }

    /// Packs one row of A: `k` bytes from `src`, `stride` apart. Gives the sum of its (signed) values.
    pub(crate) fn pack_row(&self, src: &[u8], stride: usize, k: usize, flip: u8, out: &mut [i32]) -> i32 {
        if stride == 1 && self.per_word == 4 {
            let whole = k / 4;
            let sum = signed_words(self.isa, &src[..4 * whole], flip, &mut out[..whole]);
            let tail = &src[4 * whole..k];
            return if tail.is_empty() { sum } else { sum.wrapping_add(self.pack_strided(tail, 1, k % 4, flip, &mut out[whole..])) };
        }
        self.pack_strided(src, stride, k, flip, out)
    }

    fn pack_strided(&self, src: &[u8], stride: usize, k: usize, flip: u8, out: &mut [i32]) -> i32 {
        let mut sum = 0i32;
        for (w, out) in out[..self.words(k)].iter_mut().enumerate() {
            let first = w * self.per_word;
            let n = self.per_word.min(k - first);
            let mut v = [0i8; 4];
            for (l, v) in v[..n].iter_mut().enumerate() {
                *v = (src[(first + l) * stride] ^ flip) as i8;
                sum = sum.wrapping_add(*v as i32);
            }
            *out = if self.per_word == 4 {
                i32::from_le_bytes(v.map(|v| v as u8))
            } else {
                (v[0] as i16 as u16 as u32 | (v[1] as i16 as u16 as u32) << 16) as i32
            };
        }
        sum
    }

    /// Packs one panel of B from bytes `rows` [words * per_word, nr]; rows past the last of k may hold anything, for A has
    /// zeros there. `sums` [nr] gets the sums of the first `k` rows.
    pub(crate) fn pack_panel(&self, rows: &[u8], k: usize, flip: u8, out: &mut [i32], sums: &mut [i32]) {
        let words = self.words(k);
        assert!(rows.len() >= words * self.per_word * self.nr && out.len() >= words * self.nr && sums.len() >= self.nr);
        interleave(self.isa, rows, self.per_word, self.nr, k, flip, &mut out[..words * self.nr], &mut sums[..self.nr]);
    }

    /// Sums of `rows` rows of A with one panel of B, into `out` [rows, nr].
    pub(crate) fn tile(&self, rows: usize, words: usize, a: &[i32], a_stride: usize, b: &[i32], out: &mut [i32]) {
        assert!(rows >= 1 && rows <= self.mr && out.len() >= rows * self.nr && b.len() >= words * self.nr);
        assert!(words == 0 || a.len() >= (rows - 1) * a_stride + words);
        // SAFETY: the lengths were checked just above, and this machine has the instructions (see `available`).
        unsafe { self.table[rows - 1](words, a.as_ptr(), a_stride, b.as_ptr(), out.as_mut_ptr()) }
    }
}

/// What the top bits of A's bytes are flipped by: nothing for signed ones.
pub(crate) fn flip_a(signed: bool) -> u8 {
    if signed { 0 } else { 0x80 }
}

/// What the top bits of B's bytes are flipped by: nothing for unsigned ones.
pub(crate) fn flip_b(signed: bool) -> u8 {
    if signed { 0x80 } else { 0 }
}

/// A zero point as it stands among the packed values of A.
pub(crate) fn zero_in_a(zero: u8, signed: bool) -> i32 {
    (zero ^ flip_a(signed)) as i8 as i32
}

/// A zero point as it stands among the packed values of B.
pub(crate) fn zero_in_b(zero: u8, signed: bool) -> i32 {
    (zero ^ flip_b(signed)) as i32
}

multiversion! {
    /// Whole words of four signed bytes; gives their sum.
    fn signed_words = signed_words_body(src: &[u8], flip: u8, out: &mut [i32]) -> i32;
    fn interleave = interleave_body(
        rows: &[u8], per_word: usize, nr: usize, k: usize, flip: u8, out: &mut [i32], sums: &mut [i32],
    );
    /// `values[j] += add - az sums[j] + t bz[j]`: the zero points of a row of sums.
    pub(crate) fn correct = correct_body(values: &mut [i32], add: i32, az: i32, sums: &[i32], t: i32, bz: &[i32]);
    /// `out[j] = clamp(round(values[j] scale[j] + 0), low - zero, high - zero) + zero`, halves to even.
    pub(crate) fn requantize = requantize_body(values: &[i32], scale: &[f32], range: QuantRange, out: &mut [u8]);
    /// The same with one scale.
    pub(crate) fn requantize_by = requantize_by_body(values: &[i32], scale: f32, range: QuantRange, out: &mut [u8]);
}

const LANES: usize = 16;

#[inline(always)]
fn signed_words_body<const FMA: bool>(src: &[u8], flip: u8, out: &mut [i32]) -> i32 {
    let flips = u32::from_ne_bytes([flip; 4]);
    for (out, b) in out.iter_mut().zip(src.chunks_exact(4)) {
        *out = (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) ^ flips) as i32;
    }
    src.iter().fold(0i32, |sum, b| sum.wrapping_add((b ^ flip) as i8 as i32))
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn interleave_body<const FMA: bool>(
    rows: &[u8],
    per_word: usize,
    nr: usize,
    k: usize,
    flip: u8,
    out: &mut [i32],
    sums: &mut [i32],
) {
    for lane in (0..nr).step_by(LANES) {
        let mut total = [0i32; LANES];
        for (w, out) in out.chunks_exact_mut(nr).enumerate() {
            let out: &mut [i32; LANES] = (&mut out[lane..lane + LANES]).try_into().expect("a slice of LANES");
            let first = w * per_word;
            let row = |l: usize| -> &[u8; LANES] {
                let at = (first + l) * nr + lane;
                rows[at..at + LANES].try_into().expect("a slice of LANES")
            };
            if per_word == 4 {
                let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
                let flips = flip as u32 * 0x0101_0101;
                for j in 0..LANES {
                    let v = r0[j] as u32 | (r1[j] as u32) << 8 | (r2[j] as u32) << 16 | (r3[j] as u32) << 24;
                    out[j] = (v ^ flips) as i32;
                }
            } else {
                let (r0, r1) = (row(0), row(1));
                let flips = flip as u32 * 0x0001_0001;
                for j in 0..LANES {
                    out[j] = ((r0[j] as u32 | (r1[j] as u32) << 16) ^ flips) as i32;
                }
            }
            for l in 0..per_word.min(k - first) {
                let r = row(l);
                for j in 0..LANES {
                    total[j] = total[j].wrapping_add((r[j] ^ flip) as i32);
                }
            }
        }
        sums[lane..lane + LANES].copy_from_slice(&total);
    }
}

#[inline(always)]
fn correct_body<const FMA: bool>(values: &mut [i32], add: i32, az: i32, sums: &[i32], t: i32, bz: &[i32]) {
    let n = values.len();
    match (az != 0, !bz.is_empty()) {
        (false, false) => values.iter_mut().for_each(|v| *v = v.wrapping_add(add)),
        (true, false) => {
            let sums = &sums[..n];
            for j in 0..n {
                values[j] = values[j].wrapping_add(add).wrapping_sub(az.wrapping_mul(sums[j]));
            }
        }
        (_, true) => {
            let (sums, bz) = (&sums[..n], &bz[..n]);
            for j in 0..n {
                let v = values[j].wrapping_add(add).wrapping_sub(az.wrapping_mul(sums[j]));
                values[j] = v.wrapping_add(t.wrapping_mul(bz[j]));
            }
        }
    }
}

/// The numbers of an 8-bit type around a zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QuantRange {
    low: f32,
    high: f32,
    zero: i32,
}

impl QuantRange {
    /// `zero` is the byte of the zero point.
    pub(crate) fn new(zero: u8, signed: bool) -> QuantRange {
        let zero = if signed { zero as i8 as i32 } else { zero as i32 };
        let (low, high) = if signed { (-128, 127) } else { (0, 255) };
        QuantRange { low: (low - zero) as f32, high: (high - zero) as f32, zero }
    }

    /// One value, rounded half to even.
    #[inline(always)]
    pub(crate) fn quantize(self, v: f32) -> u8 {
        // A number of this size has no bits below one: adding it rounds, and the sum's low bits are the integer.
        const MAGIC: f32 = 12_582_912.0;
        let v = if v > self.low { v } else { self.low };
        let v = if v < self.high { v } else { self.high };
        ((v + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(self.zero) as u8
    }
}

#[inline(always)]
fn requantize_body<const FMA: bool>(values: &[i32], scale: &[f32], range: QuantRange, out: &mut [u8]) {
    for ((v, s), out) in values.iter().zip(scale).zip(out) {
        *out = range.quantize(*v as f32 * s);
    }
}

#[inline(always)]
fn requantize_by_body<const FMA: bool>(values: &[i32], scale: f32, range: QuantRange, out: &mut [u8]) {
    for (v, out) in values.iter().zip(out) {
        *out = range.quantize(*v as f32 * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_exact_sums() {
        let mut state = 7u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Extremes are as likely as anything, so that a saturating product would show.
            if state >> 31 == 0 { (state >> 16) as u8 } else { [0u8, 255, 127, 128][(state >> 20) as usize % 4] }
        };
        for (dot, k) in ByteDot::available().into_iter().flat_map(|d| [1, 2, 3, 5, 8, 33].map(|k| (d, k))) {
            for (a_signed, b_signed) in [(false, false), (false, true), (true, false), (true, true)] {
                let value = |v: u8, signed: bool| if signed { v as i8 as i32 } else { v as i32 };
                let a: Vec<u8> = (0..dot.mr * k).map(|_| byte()).collect();
                let b: Vec<u8> = (0..dot.words(k) * dot.per_word * dot.nr).map(|_| byte()).collect();
                let words = dot.words(k);
                let mut packed_a = vec![0; dot.mr * words];
                let mut row_sums = vec![0; dot.mr];
                for i in 0..dot.mr {
                    row_sums[i] = dot.pack_row(&a[i * k..], 1, k, flip_a(a_signed), &mut packed_a[i * words..]);
                }
                let (mut packed_b, mut sums) = (vec![0; words * dot.nr], vec![0; dot.nr]);
                dot.pack_panel(&b, k, flip_b(b_signed), &mut packed_b, &mut sums);
                let (za, zb) = (byte(), byte());
                let (az, bz) = (zero_in_a(za, a_signed), zero_in_b(zb, b_signed));
                for rows in 1..=dot.mr {
                    let mut out = vec![0; rows * dot.nr];
                    dot.tile(rows, words, &packed_a, words, &packed_b, &mut out);
                    for i in 0..rows {
                        let values = &mut out[i * dot.nr..][..dot.nr];
                        let t = k as i32 * az - row_sums[i];
                        correct(dot.isa, values, bz * t, az, &sums, 0, &[]);
                        for (j, v) in values.iter().enumerate() {
                            let want: i32 = (0..k)
                                .map(|l| {
                                    (value(a[i * k + l], a_signed) - value(za, a_signed))
                                        * (value(b[l * dot.nr + j], b_signed) - value(zb, b_signed))
                                })
                                .sum();
                            assert_eq!(*v, want, "k {k} row {i} of {rows} column {j}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn quantization_rounds_halves_to_even_and_saturates() {
        let range = QuantRange::new(3, false);
        let got: Vec<u8> = [0.5, 1.5, 2.5, -0.5, -2.5, -9.0, 252.4, 252.6, 1e9].map(|v| range.quantize(v)).to_vec();
        assert_eq!(got, [3, 5, 5, 3, 1, 0, 255, 255, 255]);
        let range = QuantRange::new(-5i8 as u8, true);
        let got: Vec<i8> = [0.0, -123.0, -1e9, 132.0, f32::INFINITY].map(|v| range.quantize(v) as i8).to_vec();
        assert_eq!(got, [-5, -128, -128, 127, 127]);
    }
}
