//! A cache of keys or values with new rows written into it, at a place of its own for each batch entry.
//!
//! Inputs: optional past [batch, heads, capacity, size], new rows [batch, heads, length, size] or [batch, length,
//! heads * size], starts (i32 or i64, [batch] or one for all), total (one integer, host). The output is [batch, heads, max(capacity,
//! total), size]: past rows before the start, then the new ones, then zeros. New rows that lie outside are dropped. It
//! may be written over the past: each row before the start keeps its place.

mod cuda;

use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{
    CpuArgs, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, TensorDesc,
    fresh_dim,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct CacheUpdate {
        /// Heads of new rows of rank 3; not looked at otherwise.
        pub heads: i64,
    }
}

op_home!(CacheUpdate, "CacheUpdate", &[]);

/// A problem at concrete sizes; rows are counted in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub batch: usize,
    pub heads: usize,
    /// Rows of the past, of the new part and of the output.
    pub past: usize,
    pub new: usize,
    pub out: usize,
    /// Bytes of a row.
    pub row: usize,
    /// Rows of the new part between batch entries, heads and places.
    pub strides: [usize; 3],
    /// One start for all batch entries.
    pub one_start: bool,
}

/// What a row of the output is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    Past(usize),
    New(usize),
    Zero,
}

impl Geometry {
    pub fn new(op: &CacheUpdate, inputs: &[Option<TensorDesc>], out: &TensorDesc) -> Result<Geometry> {
        let get = |i: usize| inputs.get(i).and_then(|d| d.as_ref());
        let (past, Some(new), Some(starts)) = (get(0), get(1), get(2)) else {
            return Err(err!(InvalidArgument, "a cache update needs new rows and starts"));
        };
        let [batch, heads, n_out, size] = out.dims[..] else {
            return Err(err!(InvalidArgument, "expected an output of rank 4, got {out}"));
        };
        let (length, strides) = match new.dims[..] {
            [_, h, s, _] => (s, [h * s, s, 1]),
            [_, s, _] => (s, [s * heads, 1, heads]),
            _ => return Err(err!(InvalidArgument, "new rows: expected rank 3 or 4, got {new}")),
        };
        ensure!(op.heads == heads as i64 || new.dims.len() == 4, InvalidArgument, "{heads} heads, not {}", op.heads);
        ensure!(new.numel() == batch * heads * length * size, InvalidArgument, "new rows {new} do not fit {out}");
        let past = past.map_or(0, |p| p.dims.get(2).copied().unwrap_or(0));
        ensure!(past <= n_out, InvalidArgument, "a past of {past} rows does not fit {out}");
        let row = size * out.dtype.size();
        let one_start = starts.numel() == 1;
        ensure!(one_start || starts.numel() == batch, InvalidArgument, "starts {starts} for a batch of {batch}");
        Ok(Geometry { batch, heads, past, new: length, out: n_out, row, strides, one_start })
    }

    /// Which start belongs to unit `u` (batch entry and head).
    fn start_of(&self, u: usize) -> usize {
        if self.one_start { 0 } else { u / self.heads }
    }

    pub fn source(&self, start: i64, t: usize) -> Source {
        let at = (t as i64).saturating_sub(start);
        if at < 0 {
            return if t < self.past { Source::Past(t) } else { Source::Zero };
        }
        if (at as usize) < self.new { Source::New(at as usize) } else { Source::Zero }
    }

    /// Writes the rows of unit `u` (batch entry and head).
    fn fill(&self, u: usize, start: i64, past: &[u8], new: &[u8], out: &mut [u8]) {
        let (b, h) = (u / self.heads, u % self.heads);
        for (t, to) in out.chunks_exact_mut(self.row).enumerate() {
            let (from, at) = match self.source(start, t) {
                Source::Past(i) => (past, u * self.past + i),
                Source::New(i) => (new, b * self.strides[0] + h * self.strides[1] + i * self.strides[2]),
                Source::Zero => {
                    to.fill(0);
                    continue;
                }
            };
            to.copy_from_slice(&from[at * self.row..(at + 1) * self.row]);
        }
    }
}

impl OpDef for CacheUpdate {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        ensure!(cx.n_inputs() == 4, InvalidArgument, "expected 4 inputs, got {}", cx.n_inputs());
        let (new, starts, total) = (cx.input(1)?, cx.input(2)?, cx.input(3)?);
        let past = cx.opt(0);
        let [b, h, size] = match &new.shape.0[..] {
            [b, h, _, d] => [b.clone(), h.clone(), d.clone()],
            [b, _, hidden] => {
                ensure!(self.heads > 0, InvalidArgument, "new rows of rank 3 need the number of their heads");
                let size = hidden.floor_div(&Dim::from(self.heads));
                let size = size.ok_or_else(|| err!(InvalidArgument, "there are no heads"))?;
                let fits = hidden.as_const().is_none_or(|v| v % self.heads == 0);
                ensure!(fits, InvalidArgument, "{hidden} elements do not divide into {} heads", self.heads);
                [b.clone(), Dim::from(self.heads), size]
            }
            _ => return Err(err!(InvalidArgument, "new rows: expected rank 3 or 4, got {}", new.shape)),
        };
        let differ = |x: &Dim, y: &Dim| matches!((x.as_const(), y.as_const()), (Some(x), Some(y)) if x != y);
        let n_starts = starts.shape.numel();
        let fits = matches!(starts.dtype, DType::I32 | DType::I64)
            && (n_starts.is(1) || (starts.rank() == 1 && !differ(&n_starts, &b)));
        ensure!(fits, InvalidArgument, "starts: expected {b} or one of i32 or i64, got {starts}");
        ensure!(
            total.dtype.is_int() && total.shape.numel().as_const().is_none_or(|n| n == 1),
            InvalidArgument,
            "total: expected one integer, got {total}"
        );
        let mut length = match cx.dims(3)?.as_deref() {
            Some([n]) => n.clone(),
            _ => fresh_dim("cache"),
        };
        if let Some(n) = length.as_const() {
            ensure!(n >= 0, InvalidArgument, "a total of {n} rows");
        }
        if let Some(p) = past {
            ensure!(p.dtype == new.dtype && p.rank() == 4, InvalidArgument, "past: expected {} of rank 4, got {p}", new.dtype);
            let same = [(0, &b), (1, &h), (3, &size)].into_iter().all(|(i, d)| !differ(&p.shape[i], d));
            ensure!(same, InvalidArgument, "past of shape {} does not fit new rows of shape {}", p.shape, new.shape);
            length = p.shape[2].max_of(&length);
        }
        Ok(vec![Fact::new(new.dtype, vec![b, h, length, size])])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let desc = |t: &Tensor| TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() };
        let (past, new, starts) = (cx.opt(0), cx.input(1)?, cx.ints(2)?);
        let mut out = cx.output(0)?;
        let descs: Vec<Option<TensorDesc>> = (0..3).map(|i| cx.opt(i).map(desc)).collect();
        let g = Geometry::new(self, &descs, &desc(&out))?;
        let part = g.out * g.row;
        if part > 0 {
            for (u, out) in out.bytes_mut().chunks_exact_mut(part).enumerate() {
                g.fill(u, starts[g.start_of(u)], past.map_or(&[], |p| p.bytes()), new.bytes(), out);
            }
        }
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![3]
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        let g = Geometry::new(self, &p.inputs, &p.outputs[0])?;
        let wide = p.input(2).is_some_and(|d| d.dtype == DType::I64);
        Ok(Some(Box::new(UpdateStep { g, wide })))
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }
}

struct UpdateStep {
    g: Geometry,
    /// Starts are i64.
    wide: bool,
}

/// # Safety
/// Input 2 holds `n` elements of `T` for as long as the slice lives.
unsafe fn ints<'a, T>(args: &CpuArgs<'a>, n: usize) -> &'a [T] {
    // SAFETY: the caller's promise; an empty tensor may have any address.
    if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(args.inputs[2].cast::<T>(), n) } }
}

impl CpuStep for UpdateStep {
    fn name(&self) -> String {
        "cache_update".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        let (units, part) = (g.batch * g.heads, g.out * g.row);
        if units * part == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for; an absent or empty one is not read.
        let bytes = |i: usize, rows: usize| match rows {
            0 => &[][..],
            n => unsafe { std::slice::from_raw_parts(args.inputs[i], n * g.row) },
        };
        let (past, new) = (bytes(0, units * g.past), bytes(1, units * g.new));
        // SAFETY: there is a start for each batch entry, of one of the two types.
        let (narrow, wide) = unsafe {
            let n = |wide: bool| if self.wide != wide { 0 } else if g.one_start { 1 } else { g.batch };
            (ints::<i32>(args, n(false)), ints::<i64>(args, n(true)))
        };
        let start = |b: usize| narrow.get(b).map(|v| *v as i64).or(wide.get(b).copied()).unwrap_or(0);
        let out = SharedMut(args.outputs[0], units * part);
        for_each_task(units, |u| {
            // SAFETY: each unit has a part of its own.
            g.fill(u, start(g.start_of(u)), past, new, unsafe { out.slice(u * part, part) });
        });
    }
}
