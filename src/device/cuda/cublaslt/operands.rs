//! A [`LibraryGemm`] in the library's terms, as plain numbers: column-major operands, data types, and a text for messages.

use crate::bail;
use crate::base::{DType, Result};
use crate::ops::tactic::LibraryGemm;
use cudarc::cublaslt::sys;

/// One matrix in the library's terms: column-major, `rows` x `cols`, columns `ld` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub rows: i64,
    pub cols: i64,
    pub ld: i64,
    /// Elements between two matrices of the batch.
    pub stride: i64,
}

/// A [`LibraryGemm`] in the library's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operands {
    /// Our `b`.
    pub first: Matrix,
    pub transpose_first: bool,
    /// Our `a`.
    pub second: Matrix,
    pub transpose_second: bool,
    pub d: Matrix,
}

impl Operands {
    pub fn of(g: &LibraryGemm) -> Operands {
        // A row-major [rows, cols] matrix is a column-major [cols, rows] one with the same bytes.
        let flipped = |rows: i64, cols: i64, stride: i64| Matrix { rows: cols, cols: rows, ld: cols, stride };
        let (b_rows, b_cols) = if g.trans_b { (g.n, g.k) } else { (g.k, g.n) };
        let (a_rows, a_cols) = if g.trans_a { (g.k, g.m) } else { (g.m, g.k) };
        Operands {
            first: flipped(b_rows, b_cols, g.stride_b),
            transpose_first: g.trans_b,
            second: flipped(a_rows, a_cols, g.stride_a),
            transpose_second: g.trans_a,
            d: flipped(g.m, g.n, g.stride_d),
        }
    }
}

/// Data and compute types.
pub(super) fn types(dtype: DType, tf32: bool) -> Result<(sys::cudaDataType, sys::cublasComputeType_t)> {
    use sys::{cublasComputeType_t as Compute, cudaDataType_t as Data};
    Ok(match dtype {
        DType::F32 if tf32 => (Data::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F_FAST_TF32),
        DType::F32 => (Data::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F),
        DType::F16 => (Data::CUDA_R_16F, Compute::CUBLAS_COMPUTE_32F),
        DType::BF16 => (Data::CUDA_R_16BF, Compute::CUBLAS_COMPUTE_32F),
        other => bail!(Unsupported, "cuBLASLt products are offered for f32, f16 and bf16, not for {other}"),
    })
}

/// `gemm f16 [4x] 128x256x64 nt bias relu`, for messages.
pub(super) fn text(g: &LibraryGemm) -> String {
    let letter = |t: bool| if t { 't' } else { 'n' };
    let mut s = format!("gemm {}", g.dtype);
    if g.batch != 1 {
        s += &format!(" {}x", g.batch);
    }
    s += &format!(" {}x{}x{} {}{}", g.m, g.n, g.k, letter(g.trans_a), letter(g.trans_b));
    for (on, word) in [(g.bias.is_some(), " bias"), (g.relu, " relu"), (g.tf32, " tf32")] {
        if on {
            s += word;
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tactic::Arg;

    fn gemm(batch: i64, m: i64, n: i64, k: i64, trans_a: bool, trans_b: bool) -> LibraryGemm {
        LibraryGemm {
            batch,
            m,
            n,
            k,
            trans_a,
            trans_b,
            stride_a: m * k,
            stride_b: k * n,
            stride_d: m * n,
            dtype: DType::F32,
            alpha: 1.0,
            a: Arg::In(0),
            b: Arg::In(1),
            d: Arg::Out(0),
            bias: None,
            relu: false,
            tf32: false,
            algo_rank: 0,
        }
    }

    /// What the library computes with these operands: column-major, first times second.
    fn column_major(o: &Operands, first: &[f32], second: &[f32], d: &mut [f32], batch: i64) {
        let at = |m: &Matrix, t: bool, i: i64, j: i64| if t { j + i * m.ld } else { i + j * m.ld };
        let k = if o.transpose_first { o.first.rows } else { o.first.cols };
        let k_second = if o.transpose_second { o.second.cols } else { o.second.rows };
        assert_eq!(k, k_second, "inner sizes agree");
        for p in 0..batch {
            for i in 0..o.d.rows {
                for j in 0..o.d.cols {
                    let sum = (0..k).map(|l| {
                        first[(p * o.first.stride + at(&o.first, o.transpose_first, i, l)) as usize]
                            * second[(p * o.second.stride + at(&o.second, o.transpose_second, l, j)) as usize]
                    });
                    d[(p * o.d.stride + i + j * o.d.ld) as usize] = sum.sum();
                }
            }
        }
    }

    #[test]
    fn the_swapped_operands_give_the_row_major_product() {
        let (batch, m, n, k) = (2, 3, 5, 7);
        let a: Vec<f32> = (0..batch * m * k).map(|i| (i % 11) as f32 - 4.0).collect();
        let b: Vec<f32> = (0..batch * k * n).map(|i| (i % 13) as f32 - 6.0).collect();
        for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let g = gemm(batch, m, n, k, trans_a, trans_b);
            let mut want = vec![0f32; (batch * m * n) as usize];
            for p in 0..batch {
                for i in 0..m {
                    for j in 0..n {
                        for l in 0..k {
                            let a_at = p * m * k + if trans_a { l * m + i } else { i * k + l };
                            let b_at = p * k * n + if trans_b { j * k + l } else { l * n + j };
                            want[(p * m * n + i * n + j) as usize] += a[a_at as usize] * b[b_at as usize];
                        }
                    }
                }
            }
            let operands = Operands::of(&g);
            for matrix in [operands.first, operands.second, operands.d] {
                assert!(matrix.ld >= matrix.rows, "{matrix:?}");
            }
            let mut got = vec![0f32; want.len()];
            column_major(&operands, &b, &a, &mut got, batch);
            assert_eq!(got, want, "trans_a {trans_a}, trans_b {trans_b}");
        }
    }

    #[test]
    fn a_bias_over_n_is_a_bias_over_the_library_s_rows() {
        assert_eq!(Operands::of(&gemm(1, 3, 5, 7, false, false)).d, Matrix { rows: 5, cols: 3, ld: 5, stride: 15 });
    }

    #[test]
    fn messages_say_what_the_product_was() {
        let mut g = gemm(4, 128, 256, 64, false, true);
        g.dtype = DType::F16;
        g.bias = Some(Arg::In(2));
        g.relu = true;
        assert_eq!(text(&g), "gemm f16 4x 128x256x64 nt bias relu");
    }

    #[test]
    fn other_types_are_refused() {
        assert!(types(DType::I8, false).unwrap_err().message.contains("i8"));
        assert_eq!(types(DType::F32, true).unwrap().1, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32);
    }
}
