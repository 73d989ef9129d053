//! Matrix products on CUDA: how a node's operands become a [`DeviceGemm`].
//!
//! Neighbouring batch dimensions are joined where every operand allows it; a batch that shares its right operand is
//! joined with the rows. Kernels take three batch dimensions; where more are left, operands are repeated into scratch
//! (`repeat.rs`). When only the epilogue's operands stand in the way, the
//! epilogue runs as a kernel of its own.

use super::gemm::DeviceGemm;
use super::{FIRST_EXTRA, MatMul, MatMulGeometry};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::err;
use crate::ops::epilogue::cuda::{CudaEpilogue, ExtraStrides, strides_in};
use crate::ops::{Arg, Problem, StepProgram, Tactic, TacticOptions, TacticSource};

pub(super) fn tactics(op: &MatMul, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let e = epilogue(op);
    let Some(geometry) = op.problem(p) else { return Vec::new() };
    let may_repeat = super::repeat::may_repeat(&geometry);
    let g = device_gemm(op, p, &e, !may_repeat).or_else(|| {
        let base = base(op, p, &geometry)?;
        super::repeat::is_possible(&geometry, &base).then(|| super::repeat::dense(&geometry, base))
    });
    let Some(g) = g else { return Vec::new() };
    // What is written out into scratch first is no constant of the engine.
    let unknown = may_repeat.then(|| Problem { known: Vec::new(), ..p.clone() });
    let mut list = g.tactics(&e, unknown.as_ref().unwrap_or(p), dev, opt);
    // A batch dimension of 1 may be broadcast by one operand only once it grows, which one stride cannot say.
    let ambiguous = geometry.batch.len() > 1 && geometry.batch.contains(&1);
    if opt.dynamic && (ambiguous || may_repeat) {
        list.retain(|t| t.source != TacticSource::CublasLt);
    }
    if may_repeat {
        list = list.into_iter().map(|t| super::repeat::with_copy(t, g.dtype)).collect();
    }
    list
}

pub(super) fn program(op: &MatMul, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let e = epilogue(op);
    let geometry = op.problem(p).ok_or_else(|| err!(InvalidArgument, "an operand is missing"))?;
    if super::repeat::may_repeat(&geometry) {
        let (inner, copy) = super::repeat::split(tactic)?;
        if let Some(g) = device_gemm(op, p, &e, false) {
            return g.program(&inner, &e, p, dev);
        }
        let base = base(op, p, &geometry).ok_or_else(|| err!(InvalidArgument, "an operand is missing"))?;
        let n_kernels = inner.kernels.len();
        let step = super::repeat::dense(&geometry, base.clone()).program(&inner, &e, p, dev)?;
        return super::repeat::program(&geometry, &base, step, &copy, n_kernels, dev);
    }
    // After the library the epilogue is a kernel of its own: its operands do not restrict how the batch joins.
    let in_kernel = tactic.source != TacticSource::CublasLt;
    let g = device_gemm(op, p, &e, in_kernel)
        .ok_or_else(|| err!(Unsupported, "the batch of this product has more than three dimensions that do not join"))?;
    g.program(tactic, &e, p, dev)
}

fn epilogue(op: &MatMul) -> CudaEpilogue<'_> {
    CudaEpilogue { program: op.epilogue.as_ref(), first: FIRST_EXTRA, bias_dims: &[] }
}

/// Batch dimensions (and, at the end, rows) with what each operand steps by; elements.
struct Batch {
    size: i64,
    a: i64,
    b: i64,
    c: i64,
    extra: Vec<i64>,
}

impl Batch {
    /// `self` stands outside of `inner`, and both count as one dimension.
    fn joins(&self, inner: &Batch) -> bool {
        let steps = |outer: i64, step: i64| outer == step * inner.size;
        steps(self.a, inner.a)
            && steps(self.b, inner.b)
            && steps(self.c, inner.c)
            && self.extra.iter().zip(&inner.extra).all(|(o, s)| steps(*o, *s))
    }
}

/// The product without its batch.
fn base(op: &MatMul, p: &Problem, g: &MatMulGeometry) -> Option<DeviceGemm> {
    Some(DeviceGemm {
        dtype: p.input(0)?.dtype,
        m: g.m as i64,
        n: g.n as i64,
        k: g.k as i64,
        trans_a: op.trans_a,
        trans_b: op.trans_b,
        batch: [1; 3],
        stride_a: [0; 3],
        stride_b: [0; 3],
        alpha: op.alpha,
        a: Arg::In(0),
        b: Arg::In(1),
        bias: p.input(2).map(|_| Arg::In(2)),
        bias_rows: false,
        extra: None,
    })
}

/// `in_kernel`: the product's kernel reads the epilogue's operands, so they take part in the layout.
fn device_gemm(op: &MatMul, p: &Problem, e: &CudaEpilogue<'_>, in_kernel: bool) -> Option<DeviceGemm> {
    let g = op.problem(p)?;
    let out = &p.outputs.first()?.dims;
    let extra: Vec<Vec<i64>> = e.shapes(p)?.iter().map(|s| strides_in(s, out)).collect();
    let base = base(op, p, &g)?;
    let with_extra = if in_kernel { layout(&g, base.clone(), &extra) } else { None };
    with_extra.or_else(|| Some(DeviceGemm { extra: None, ..layout(&g, base, &[])? }))
}

/// Places the batch, with operands of the epilogue by their strides over the output's dimensions.
fn layout(g: &MatMulGeometry, mut d: DeviceGemm, extra: &[Vec<i64>]) -> Option<DeviceGemm> {
    let rank = g.batch.len();
    let (rows, columns) = (rank, rank + 1);
    let (a, b, c) = (d.m * d.k, d.k * d.n, d.m * d.n);
    let mut step = c;
    let mut dims: Vec<Batch> = Vec::new();
    for i in (0..rank).rev() {
        let size = g.batch[i] as i64;
        if size != 1 {
            let outer = Batch {
                size,
                a: g.a_steps[i] as i64 * a,
                b: g.b_steps[i] as i64 * b,
                c: step,
                extra: extra.iter().map(|s| s[i]).collect(),
            };
            match dims.last_mut() {
                Some(inner) if outer.joins(inner) => inner.size *= size,
                _ => dims.push(outer),
            }
        }
        step *= size;
    }
    // `dims` runs from the innermost dimension outward.
    let row = Batch { size: d.m, a: d.k, b: 0, c: d.n, extra: extra.iter().map(|s| s[rows]).collect() };
    let mut row_strides: Vec<i64> = row.extra.clone();
    if !d.trans_a && dims.first().is_some_and(|first| first.joins(&row) || d.m == 1 && first.b == 0 && first.a == d.k) {
        let first = dims.remove(0);
        if d.m == 1 {
            row_strides = first.extra;
        }
        d.m *= first.size;
    }
    if dims.len() > 3 {
        return None;
    }
    for (i, dim) in dims.iter().enumerate() {
        (d.batch[2 - i], d.stride_a[2 - i], d.stride_b[2 - i]) = (dim.size, dim.a, dim.b);
    }
    let strides: ExtraStrides = extra
        .iter()
        .enumerate()
        .map(|(j, s)| {
            let batch = |i: usize| dims.get(i).map_or(0, |d| d.extra[j]);
            [batch(2), batch(1), batch(0), row_strides[j], s[columns]]
        })
        .collect();
    d.extra = Some(strides);
    Some(d)
}
