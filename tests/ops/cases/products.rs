//! Matrix products in every type, layout and batch.

use super::Case;
use crate::ops::steps::random;
use sinter::base::DType;
use sinter::ops::matmul::MatMul;
use sinter::ops::pointwise::{Func, Program};

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let shapes: [(&[usize], &[usize]); 11] = [
        (&[1, 1], &[1, 1]),
        (&[3, 5], &[5, 7]),
        (&[70, 130], &[130, 65]),
        (&[2, 3, 0], &[0, 4]),
        (&[2, 0, 3], &[2, 3, 4]),
        (&[3, 1, 4, 5], &[2, 5, 6]),
        (&[1, 33, 3], &[4, 3, 17]),
        // Batches with more dimensions than one stride each describes.
        (&[2, 1, 3, 1, 2, 4, 5], &[1, 2, 1, 2, 2, 5, 3]),
        (&[2, 1, 2, 1, 2, 1, 3, 4], &[1, 2, 1, 3, 1, 2, 4, 5]),
        (&[2, 1, 2, 1, 3, 4], &[4, 5]),
        (&[3, 4], &[2, 1, 2, 1, 4, 5]),
    ];
    for d in [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I32, DType::U32, DType::I64, DType::U64] {
        let tolerance = match d {
            DType::F32 => 1e-4,
            DType::F16 => 5e-3,
            DType::BF16 => 3e-2,
            DType::F64 => 1e-12,
            _ => 0.0,
        };
        for (k, (a, b)) in shapes.into_iter().enumerate() {
            let (trans_a, trans_b) = (k % 2 == 1, k % 3 == 1);
            let flip = |s: &[usize], trans: bool| {
                let mut s = s.to_vec();
                let r = s.len();
                if trans {
                    s.swap(r - 2, r - 1);
                }
                s
            };
            let alpha = if d.is_float() && k % 4 == 2 { 0.5 } else { 1.0 };
            let n = b[b.len() - 1];
            let (a, b) = (flip(a, trans_a), flip(b, trans_b));
            let bias = (k % 2 == 0).then(|| random(d, &[n], 3));
            let mut inputs = vec![Some(random(d, &a, 1)), Some(random(d, &b, 2)), bias];
            let mut epilogue = None;
            if k % 3 == 2 {
                let mut p = Program { inputs: vec![d, d], instrs: vec![], outputs: vec![] };
                let s = p.push(Func::Mul, &[0, 1]).expect("a product of two numbers");
                p.outputs = vec![p.push(Func::Relu, &[s]).expect("a number")];
                epilogue = Some(p);
                inputs.push(Some(random(d, &[n], 4)));
            }
            let op = MatMul { trans_a, trans_b, alpha, epilogue };
            out.push(Case::new(format!("{d}{a:?} x {b:?}"), op, inputs).within(tolerance));
        }
    }
    out
}
