//! The innermost loop of matrix products and convolutions: one tile of C, at most MR rows by NR columns, over all of k.
//!
//! A is read one value at a time (broadcast), from packed panels of MR rows or straight from a strided matrix. B is read
//! as NR consecutive floats for each k; where those start is either a constant stride (packed panels) or a table of
//! offsets (a convolution reading its padded image in place: the virtual im2col). The tile's sums stay in registers.
//!
//! Reading: NR floats are read for each k even when fewer columns are stored, so B needs NR - 1 readable floats behind
//! its last column. Only the columns asked for are written.

use super::Isa;

/// Where the sums start.
#[derive(Clone, Copy)]
pub(crate) enum Init {
    Zero,
    /// At zero, and one value for each row is added last: the sums stay small while they are summed, which keeps their
    /// rounding small beside a large bias.
    Rows(*const f32),
    /// At zero, and the present contents of C are added last.
    AddC,
}

/// One tile. Strides count floats.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub k: usize,
    pub a: *const f32,
    /// Row stride of a strided A; 0 for a packed panel, whose rows are adjacent and whose k-step is MR.
    pub a_row_stride: usize,
    pub a_col_stride: usize,
    pub b: *const f32,
    pub b_row_stride: usize,
    /// Offset of each k's row from `b`; NULL to use `b_row_stride`.
    pub b_offsets: *const u32,
    pub c: *mut f32,
    pub c_row_stride: usize,
    /// Columns to store, 1 ..= NR.
    pub n: usize,
    pub init: Init,
}

type TileFn = unsafe fn(&Tile);

/// The tile functions of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Microkernel {
    pub mr: usize,
    pub nr: usize,
    /// By number of rows - 1, then by (A strided, B by table).
    table: &'static [[TileFn; 4]],
}

/// The largest tile of all instruction sets, in floats.
pub(crate) const MAX_TILE: usize = 8 * 32;
/// The largest NR: how many readable floats to leave behind B.
pub(crate) const MAX_NR: usize = 32;

/// Products that are summed up in one go.
const MAX_SUM: usize = 128;

macro_rules! table {
    ($f:ident: $($rows:literal)*) => {
        &[$([$f::<$rows, false, false>, $f::<$rows, false, true>, $f::<$rows, true, false>, $f::<$rows, true, true>]),*]
    };
}

impl Microkernel {
    pub(crate) fn of(isa: Isa) -> Microkernel {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Microkernel { mr: 8, nr: 32, table: table!(tile_avx512: 1 2 3 4 5 6 7 8) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Microkernel { mr: 4, nr: 24, table: table!(tile_avx2: 1 2 3 4) },
            _ => Microkernel { mr: 4, nr: 16, table: table!(tile_baseline: 1 2 3 4) },
        }
    }

    /// Computes one tile of `rows` rows.
    /// # Safety
    /// All pointers are valid for what the tile says (see the module's text for B), C is this caller's alone, and the
    /// machine has the instruction set that this microkernel was made for.
    #[inline]
    pub(crate) unsafe fn run(&self, rows: usize, t: &Tile) {
        debug_assert!(rows >= 1 && rows <= self.mr && t.n >= 1 && t.n <= self.nr);
        let variant = usize::from(t.a_row_stride != 0) * 2 + usize::from(!t.b_offsets.is_null());
        let tile = self.table[rows - 1][variant];
        // Long sums are added up from shorter ones: their rounding grows with the length of the parts and their number,
        // not with the product of both.
        let a_step = if t.a_row_stride != 0 { t.a_col_stride } else { self.mr };
        let mut part = Tile { k: t.k.min(MAX_SUM), ..*t };
        // SAFETY: the caller's promise; each part lies inside of what it says.
        unsafe {
            tile(&part);
            let mut done = part.k;
            while done < t.k {
                part.a = t.a.wrapping_add(done * a_step);
                if t.b_offsets.is_null() {
                    part.b = t.b.wrapping_add(done * t.b_row_stride);
                } else {
                    part.b_offsets = t.b_offsets.add(done);
                }
                part.k = (t.k - done).min(MAX_SUM);
                part.init = Init::AddC;
                tile(&part);
                done += part.k;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// # Safety
/// See [`Microkernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<const R: usize, const STRIDED_A: bool, const TABLE_B: bool>(t: &Tile) {
    // SAFETY: the caller's promise on the pointers of the tile; masks keep C's accesses inside of its columns.
    unsafe {
        let bits = if t.n >= 32 { u32::MAX } else { (1u32 << t.n) - 1 };
        let (mask0, mask1) = (bits as u16, (bits >> 16) as u16);
        let mut acc = [[_mm512_setzero_ps(); 2]; R];
        let (mut a, mut b) = (t.a, t.b);
        for k in 0..t.k {
            let row = if TABLE_B { t.b.add(*t.b_offsets.add(k) as usize) } else { b };
            let (b0, b1) = (_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*a.add(if STRIDED_A { i * t.a_row_stride } else { i }));
                acc[0] = _mm512_fmadd_ps(value, b0, acc[0]);
                acc[1] = _mm512_fmadd_ps(value, b1, acc[1]);
            }
            a = a.wrapping_add(if STRIDED_A { t.a_col_stride } else { 8 });
            b = b.wrapping_add(t.b_row_stride);
        }
        if let Init::Rows(bias) = t.init {
            for (i, acc) in acc.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*bias.add(i));
                *acc = [_mm512_add_ps(acc[0], value), _mm512_add_ps(acc[1], value)];
            }
        }
        if let Init::AddC = t.init {
            for (i, acc) in acc.iter_mut().enumerate() {
                let c = t.c.add(i * t.c_row_stride);
                acc[0] = _mm512_add_ps(acc[0], _mm512_maskz_loadu_ps(mask0, c));
                acc[1] = _mm512_add_ps(acc[1], _mm512_maskz_loadu_ps(mask1, c.wrapping_add(16)));
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            let c = t.c.add(i * t.c_row_stride);
            _mm512_mask_storeu_ps(c, mask0, acc[0]);
            _mm512_mask_storeu_ps(c.wrapping_add(16), mask1, acc[1]);
        }
    }
}

/// # Safety
/// See [`Microkernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<const R: usize, const STRIDED_A: bool, const TABLE_B: bool>(t: &Tile) {
    // SAFETY: the caller's promise on the pointers of the tile; narrow tiles go through a buffer of full width.
    unsafe {
        let mut buffer = [0f32; 4 * 24];
        let is_full = t.n == 24;
        let (c, c_row_stride) = if is_full { (t.c, t.c_row_stride) } else { (buffer.as_mut_ptr(), 24) };
        let mut acc = [[_mm256_setzero_ps(); 3]; R];
        let (mut a, mut b) = (t.a, t.b);
        for k in 0..t.k {
            let row = if TABLE_B { t.b.add(*t.b_offsets.add(k) as usize) } else { b };
            let b = {
                let values = [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8)), _mm256_loadu_ps(row.add(16))];
                b = b.wrapping_add(t.b_row_stride);
                values
            };
            for (i, acc) in acc.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*a.add(if STRIDED_A { i * t.a_row_stride } else { i }));
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc = _mm256_fmadd_ps(value, b, *acc);
                }
            }
            a = a.wrapping_add(if STRIDED_A { t.a_col_stride } else { 4 });
        }
        if let Init::Rows(bias) = t.init {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = acc.map(|sum| _mm256_add_ps(sum, _mm256_set1_ps(*bias.add(i))));
            }
        }
        if let Init::AddC = t.init {
            for (i, acc) in acc.iter_mut().enumerate() {
                if !is_full {
                    std::ptr::copy_nonoverlapping(t.c.add(i * t.c_row_stride), c.add(i * 24), t.n);
                }
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = _mm256_add_ps(*acc, _mm256_loadu_ps(c.add(i * c_row_stride + v * 8)));
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                _mm256_storeu_ps(c.add(i * c_row_stride + v * 8), *acc);
            }
            if !is_full {
                std::ptr::copy_nonoverlapping(c.add(i * 24), t.c.add(i * t.c_row_stride), t.n);
            }
        }
    }
}

/// Plain loops over arrays, which the compiler turns into the target's vectors.
/// # Safety
/// See [`Microkernel::run`].
unsafe fn tile_baseline<const R: usize, const STRIDED_A: bool, const TABLE_B: bool>(t: &Tile) {
    const NR: usize = 16;
    // SAFETY: the caller's promise on the pointers of the tile; C is touched in `n` columns only.
    unsafe {
        let mut acc = [[0f32; NR]; R];
        for k in 0..t.k {
            let offset = if TABLE_B { *t.b_offsets.add(k) as usize } else { k * t.b_row_stride };
            let b = &*t.b.add(offset).cast::<[f32; NR]>();
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = if STRIDED_A { i * t.a_row_stride + k * t.a_col_stride } else { k * 4 + i };
                let value = *t.a.add(a);
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc += value * *b;
                }
            }
        }
        if let Init::Rows(bias) = t.init {
            for (i, acc) in acc.iter_mut().enumerate() {
                acc.iter_mut().for_each(|sum| *sum += *bias.add(i));
            }
        }
        if let Init::AddC = t.init {
            for (i, acc) in acc.iter_mut().enumerate() {
                let c = std::slice::from_raw_parts(t.c.add(i * t.c_row_stride), t.n);
                acc.iter_mut().zip(c).for_each(|(sum, c)| *sum += c);
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            std::slice::from_raw_parts_mut(t.c.add(i * t.c_row_stride), t.n).copy_from_slice(&acc[..t.n]);
        }
    }
}
