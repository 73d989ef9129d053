//! Recurrent layers (simple, GRU, LSTM): the loop over time, given the input projections of all steps.
//!
//! Inputs: x [seq, batch, directions * gates * hidden] ([batch, seq, ..] when `batch_first`), the products of the inputs
//! with W and all biases that can be added to them; r [directions, hidden, gates * hidden], the recurrent weights
//! transposed; then optionally the recurrent bias of the hidden gate [directions, hidden] (a GRU with `reset_after`), the
//! lengths [batch] (i32), initial h and c [directions, batch, hidden] ([batch, directions, hidden]), and the peephole
//! weights of i, o, f [directions, 3 * hidden] (LSTM).
//!
//! Outputs: y [seq, directions, batch, hidden] ([batch, seq, directions, hidden]), the last h, and for an LSTM the last c.
//! Behind the end of a sequence y is 0. The last states of a sequence without steps are 0. The order of gates is ONNX's:
//! z, r, h and i, o, f, c.

mod activation;
mod cpu;
mod cuda;
mod eval;
mod onnx;

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::{CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{attr_enum, ensure, err, op_home, op_struct};
use activation::Activation;

attr_enum! {
    /// Which equations.
    pub enum RecurrentKind {
        Rnn = "rnn",
        Gru = "gru",
        Lstm = "lstm",
    }
}

attr_enum! {
    /// Which way through time.
    pub enum RecurrentDirection {
        Forward = "forward",
        Reverse = "reverse",
        Both = "bidirectional",
    }
}

op_struct! {
    /// See the module's text.
    pub struct Recurrent {
        pub kind: RecurrentKind,
        pub direction: RecurrentDirection,
        pub batch_first: bool,
        /// f (RNN), f g (GRU) or f g h (LSTM) of each direction, by ONNX's names in lower case, with their numbers.
        pub activations: Vec<String>,
        pub alpha: Vec<f32>,
        pub beta: Vec<f32>,
        /// Inputs of the gates' activations are kept in [-clip, clip]; the cell's is not.
        pub clip: Option<f32>,
        /// LSTM: f = 1 - i.
        pub coupled: bool,
        /// GRU: the reset gate scales the product with h instead of h.
        pub reset_after: bool,
    }
}

op_home!(Recurrent, "Recurrent", onnx::TABLE);

const X: usize = 0;
const R: usize = 1;
const BIAS: usize = 2;
const LENGTHS: usize = 3;
const H0: usize = 4;
const C0: usize = 5;
const PEEPHOLES: usize = 6;

impl RecurrentKind {
    pub fn gates(self) -> usize {
        match self {
            RecurrentKind::Rnn => 1,
            RecurrentKind::Gru => 3,
            RecurrentKind::Lstm => 4,
        }
    }

    /// Activations of one direction.
    pub fn n_activations(self) -> usize {
        match self {
            RecurrentKind::Rnn => 1,
            RecurrentKind::Gru => 2,
            RecurrentKind::Lstm => 3,
        }
    }
}

/// A problem at concrete sizes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    seq: usize,
    batch: usize,
    hidden: usize,
    dirs: usize,
    gates: usize,
    batch_first: bool,
}

impl Sizes {
    /// Columns of one direction.
    fn columns(&self) -> usize {
        self.gates * self.hidden
    }

    /// Elements between neighbours in time and in the batch of x.
    fn x_strides(&self) -> [usize; 2] {
        let row = self.dirs * self.columns();
        if self.batch_first { [row, self.seq * row] } else { [self.batch * row, row] }
    }

    /// Elements between neighbours in time, in the batch and in the directions of y.
    fn y_strides(&self) -> [usize; 3] {
        let h = self.hidden;
        match self.batch_first {
            true => [self.dirs * h, self.seq * self.dirs * h, h],
            false => [self.dirs * self.batch * h, h, self.batch * h],
        }
    }

    /// Elements between neighbours in the batch and in the directions of a state.
    fn state_strides(&self) -> [usize; 2] {
        if self.batch_first { [self.dirs * self.hidden, self.hidden] } else { [self.hidden, self.batch * self.hidden] }
    }
}

impl Recurrent {
    pub fn n_directions(&self) -> usize {
        if self.direction == RecurrentDirection::Both { 2 } else { 1 }
    }

    /// Whether direction `d` runs from the end.
    fn is_reverse(&self, d: usize) -> bool {
        self.direction == RecurrentDirection::Reverse || d == 1
    }

    fn sizes(&self, x: &[usize], r: &[usize]) -> Sizes {
        let (seq, batch) = if self.batch_first { (x[1], x[0]) } else { (x[0], x[1]) };
        Sizes {
            seq,
            batch,
            hidden: r[1],
            dirs: self.n_directions(),
            gates: self.kind.gates(),
            batch_first: self.batch_first,
        }
    }

    fn problem(&self, p: &Problem) -> Option<Sizes> {
        Some(self.sizes(&p.input(X)?.dims, &p.input(R)?.dims))
    }

    /// f, g, h of each direction; those that the kind has not are `tanh`.
    fn functions(&self) -> Result<Vec<[Activation; 3]>> {
        let per = self.kind.n_activations();
        let want = per * self.n_directions();
        let lens = [self.activations.len(), self.alpha.len(), self.beta.len()];
        ensure!(lens == [want; 3], InvalidArgument, "expected {want} activations with alpha and beta, got {lens:?}");
        let parse = |i: usize| Activation::new(&self.activations[i], self.alpha[i], self.beta[i]);
        (0..self.n_directions())
            .map(|d| {
                let mut f = [Activation::tanh(); 3];
                for (k, f) in f[..per].iter_mut().enumerate() {
                    *f = parse(d * per + k)?;
                }
                Ok(f)
            })
            .collect()
    }
}

/// Two dimensions may be the same one.
fn agree(a: &Dim, b: &Dim) -> bool {
    a == b || a.as_const().is_none() || b.as_const().is_none()
}

fn expect(cx: &InferCx<'_>, i: usize, what: &str, dtype: DType, shape: &[&Dim]) -> Result<()> {
    let Some(f) = cx.opt(i) else { return Ok(()) };
    ensure!(f.dtype == dtype, InvalidArgument, "{what}: expected {dtype}, got {}", f.dtype);
    let fits = f.rank() == shape.len() && f.shape.iter().zip(shape).all(|(a, b)| agree(a, b));
    let want = Shape(shape.iter().map(|d| (*d).clone()).collect());
    ensure!(fits, InvalidArgument, "{what}: expected shape {want}, got {}", f.shape);
    Ok(())
}

impl OpDef for Recurrent {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 7)?;
        self.functions()?;
        if let Some(clip) = self.clip {
            ensure!(clip > 0.0, InvalidArgument, "clip must be positive, got {clip}");
        }
        let dtype = cx.float(X)?;
        cx.rank(X, 3)?;
        cx.rank(R, 3)?;
        let (x, r) = (cx.input(X)?, cx.input(R)?);
        let is_lstm = self.kind == RecurrentKind::Lstm;
        ensure!(is_lstm || (cx.opt(C0).is_none() && cx.opt(PEEPHOLES).is_none()), InvalidArgument, "only an LSTM has a cell");
        let resets = self.kind == RecurrentKind::Gru && self.reset_after;
        ensure!(resets || cx.opt(BIAS).is_none(), InvalidArgument, "only a GRU with reset_after has a recurrent bias");
        let (dirs, gates) = (self.n_directions() as i64, self.kind.gates() as i64);
        let hidden = &r.shape[1];
        let columns = hidden * gates;
        let (seq, batch) = if self.batch_first { (&x.shape[1], &x.shape[0]) } else { (&x.shape[0], &x.shape[1]) };
        let dirs = &Dim::from(dirs);
        let width = &columns * dirs;
        let [first, second] = [&x.shape[0], &x.shape[1]];
        expect(cx, X, "x", dtype, &[first, second, &width])?;
        expect(cx, R, "the recurrent weights", dtype, &[dirs, hidden, &columns])?;
        expect(cx, BIAS, "the recurrent bias", dtype, &[dirs, hidden])?;
        expect(cx, LENGTHS, "the lengths", DType::I32, &[batch])?;
        let state = if self.batch_first { [batch, dirs, hidden] } else { [dirs, batch, hidden] };
        expect(cx, H0, "the initial h", dtype, &state)?;
        expect(cx, C0, "the initial c", dtype, &state)?;
        expect(cx, PEEPHOLES, "the peephole weights", dtype, &[dirs, &(hidden * 3)])?;
        let y = if self.batch_first { [batch, seq, dirs, hidden] } else { [seq, dirs, batch, hidden] };
        let fact = |dims: &[&Dim]| Fact::new(dtype, dims.iter().map(|d| (*d).clone()).collect::<Vec<Dim>>());
        let mut out = vec![fact(&y), fact(&state)];
        if is_lstm {
            out.push(fact(&state));
        }
        Ok(out)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        eval::eval(self, cx)
    }

    fn cpu(&self, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p, pack)
    }

    fn cuda_tactics(&self, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, dev, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        let Some(s) = self.problem(p) else { return 0.0 };
        2.0 * (s.seq * s.batch * s.dirs) as f64 * s.columns() as f64 * (s.hidden + 8) as f64
    }
}

/// The sizes of a problem, or an error that says what is missing.
fn sizes_of(op: &Recurrent, p: &Problem) -> Result<Sizes> {
    op.problem(p).ok_or_else(|| err!(InvalidArgument, "a recurrent layer needs x and r"))
}
