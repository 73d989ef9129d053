//! Rotary embedding: pairs of elements of each head turned by an angle that grows with the position.
//!
//! Inputs: x [batch, heads, length, size] or [batch, length, heads * size], cos and sin, optional positions (i32 or
//! i64). With positions, cos and sin are [n_positions, dim / 2] and positions are [batch, length], or [1]: the position
//! of the first element. Without, they are [batch, length, dim / 2]. Elements of a head from `dim` on stay. A position
//! out of range is an error on the host; devices clamp it, since they cannot report.

mod cpu;
mod cuda;
mod onnx;

use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::ops::{
    CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, TensorDesc,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct Rotary {
        /// Pairs are neighbours, not elements half of `dim` apart.
        pub interleaved: bool,
        /// Heads of x of rank 3; not looked at otherwise.
        pub heads: i64,
        /// Elements of a head that are turned, even; 0 is all.
        pub dim: i64,
    }
}

op_home!(Rotary, "Rotary", onnx::TABLE);

/// Where cos and sin of an element come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Angles {
    /// A row for each batch entry and place.
    Rows,
    /// A row of the table for each position.
    Positions,
    /// Positions count up from one number.
    From,
}

/// A problem at concrete sizes: element (b, s, h, c) stands at `b * strides[0] + s * strides[1] + h * strides[2] + c`.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub batch: usize,
    pub length: usize,
    pub heads: usize,
    pub size: usize,
    pub strides: [usize; 3],
    /// Elements that are turned.
    pub dim: usize,
    /// Rows of the table.
    pub rows: usize,
    pub angles: Angles,
}

impl Rotary {
    pub fn geometry(&self, inputs: &[Option<TensorDesc>]) -> Result<Geometry> {
        let get = |i: usize| inputs.get(i).and_then(|d| d.as_ref());
        let (Some(x), Some(cos), Some(sin)) = (get(0), get(1), get(2)) else {
            return Err(err!(InvalidArgument, "rotary embedding needs x, cos and sin"));
        };
        let (batch, heads, length, size, strides) = match x.dims[..] {
            [b, h, s, d] => (b, h, s, d, [h * s * d, d, s * d]),
            [b, s, hidden] => {
                let h = usize::try_from(self.heads).unwrap_or(0);
                ensure!(h > 0 && hidden % h == 0, InvalidArgument, "{hidden} elements do not divide into {h} heads");
                (b, h, s, hidden / h, [s * hidden, hidden, hidden / h])
            }
            _ => return Err(err!(InvalidArgument, "x: expected rank 3 or 4, got {x}")),
        };
        let dim = if self.dim == 0 { size } else { usize::try_from(self.dim).unwrap_or(usize::MAX) };
        ensure!(dim <= size && dim % 2 == 0, InvalidArgument, "{dim} of {size} elements of a head cannot be turned");
        let half = dim / 2;
        ensure!(cos.dims == sin.dims, InvalidArgument, "cos {cos} and sin {sin} differ in shape");
        let (angles, rows) = match (get(3), &cos.dims[..]) {
            (None, [b, s, w]) if [*b, *s, *w] == [batch, length, half] => (Angles::Rows, batch * length),
            (Some(p), [n, w]) if *w == half && p.dims[..] == [batch, length] => (Angles::Positions, *n),
            (Some(p), [n, w]) if *w == half && p.numel() == 1 => (Angles::From, *n),
            (p, _) => {
                let p = p.map_or("no positions".to_string(), |p| format!("positions {p}"));
                return Err(err!(InvalidArgument, "cos {cos} and {p} do not fit x {x} with {dim} elements turned"));
            }
        };
        Ok(Geometry { batch, length, heads, size, strides, dim, rows, angles })
    }
}

impl OpDef for Rotary {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 4)?;
        let dtype = cx.float(0)?;
        let x = cx.input(0)?;
        for i in 1..3 {
            let f = cx.input(i)?;
            ensure!(f.dtype == dtype, InvalidArgument, "input {i}: expected {dtype} as x is, got {f}");
        }
        if let Some(p) = cx.opt(3) {
            let fine = matches!(p.dtype, DType::I32 | DType::I64) && (p.rank() == 2 || p.shape.numel().is(1));
            ensure!(fine, InvalidArgument, "positions: expected one or a matrix of i32 or i64, got {p}");
        }
        let rank = if cx.opt(3).is_some() { 2 } else { 3 };
        cx.rank(1, rank)?;
        cx.rank(2, rank)?;
        ensure!(matches!(x.rank(), 3 | 4), InvalidArgument, "x: expected rank 3 or 4, got {}", x.shape);
        ensure!(
            x.rank() == 4 || self.heads > 0,
            InvalidArgument,
            "x of rank 3 needs the number of its heads, got {}",
            self.heads
        );
        // With all sizes as numbers they are checked in one place.
        let desc = |i: usize| match cx.opt(i) {
            None => Some(None),
            Some(f) => f.shape.concrete().map(|dims| Some(TensorDesc { dtype: f.dtype, dims })),
        };
        if let Some(inputs) = (0..4).map(desc).collect::<Option<Vec<_>>>() {
            self.geometry(&inputs)?;
        }
        ensure!(self.dim >= 0, InvalidArgument, "{} elements of a head cannot be turned", self.dim);
        Ok(vec![Fact::new(dtype, x.shape.clone())])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let descs: Vec<Option<TensorDesc>> = (0..4)
            .map(|i| cx.opt(i).map(|t| TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() }))
            .collect();
        let g = self.geometry(&descs)?;
        let (x, cos, sin) = (cx.input(0)?.to_f64s(), cx.input(1)?.to_f64s(), cx.input(2)?.to_f64s());
        let positions = cx.opt(3).map(|t| t.to_i64s());
        let mut y = x.clone();
        let half = g.dim / 2;
        for b in 0..g.batch {
            for s in 0..g.length {
                let row = g.row(b, s, |i| positions.as_ref().map_or(0, |p| p[i]));
                ensure!(
                    g.heads * half == 0 || (0..g.rows as i64).contains(&row),
                    InvalidArgument,
                    "position {row} is outside of a table of {} rows",
                    g.rows
                );
                for h in 0..g.heads {
                    let at = b * g.strides[0] + s * g.strides[1] + h * g.strides[2];
                    for i in 0..half {
                        let (re, im) = if self.interleaved { (at + 2 * i, at + 2 * i + 1) } else { (at + i, at + half + i) };
                        let (c, s) = (cos[row as usize * half + i], sin[row as usize * half + i]);
                        y[re] = c * x[re] - s * x[im];
                        y[im] = s * x[re] + c * x[im];
                    }
                }
            }
        }
        let t = cx.input(0)?;
        Ok(vec![Tensor::from_slice(t.shape(), &y).cast(t.dtype())])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        3.0 * p.outputs[0].numel() as f64
    }
}

impl Geometry {
    /// The row of cos and sin for a place; `position` reads the operand.
    pub fn row(&self, b: usize, s: usize, position: impl Fn(usize) -> i64) -> i64 {
        match self.angles {
            Angles::Rows => (b * self.length + s) as i64,
            Angles::Positions => position(b * self.length + s),
            Angles::From => position(0).saturating_add(s as i64),
        }
    }
}
