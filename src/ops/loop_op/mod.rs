//! Runs a graph again and again, with values carried from one turn to the next.
//!
//! Inputs: trip count (i64, optional), condition (bool, optional), `n_state` initial values, what the body reads from
//! outside. Body: (turn, condition, state..., captures...) to (condition, state..., scanned...). Outputs: the final
//! state, then every scanned value with the turns as its first axis. The runtime drives the turns; state stays where it
//! is computed.

mod onnx;

pub(crate) use onnx::settle;

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::network::Graph;
use crate::ops::branch::condition_of;
use crate::ops::{EvalCx, InferCx, Op, OpDef, StructuralOp, fresh_dim, structural};
use crate::{ensure, op_home, op_struct};
use std::sync::Arc;

op_struct! {
    /// A loop. Inputs: trip count, condition, state, captures.
    pub struct Loop {
        pub body: Arc<Graph>,
        pub n_state: usize,
    }
}

op_home!(Loop, "Loop", &[]);

pub const STRUCTURAL: &[StructuralOp] = &[structural("Loop", 1, onnx::import)];

/// Prefix of symbols that differ from turn to turn.
pub(super) const TURN: &str = "turn";

/// A dimension as seen from outside of a body: what differs from turn to turn is a symbol of its own there.
pub(crate) fn outside(d: &Dim) -> Dim {
    let mut varies = false;
    d.symbols(&mut |s| varies |= s.starts_with('?'));
    if varies { fresh_dim("loop") } else { d.clone() }
}

/// Facts of carried values after the loop: what the body takes as its state.
pub(crate) fn state_facts(body: &Graph, first: usize, n: usize) -> Vec<Fact> {
    let ports = body.inputs().iter().skip(first).take(n);
    ports.map(|p| body.fact(p.value)).map(|f| Fact::new(f.dtype, Shape(f.shape.iter().map(outside).collect()))).collect()
}

/// Facts of scanned values: the turns in front of what one turn gives.
pub(crate) fn scanned_facts(body: &Graph, first: usize, turns: &Dim) -> Vec<Fact> {
    let ports = body.outputs().iter().skip(first);
    let fact = |f: &Fact| {
        let dims = std::iter::once(turns.clone()).chain(f.shape.iter().map(outside));
        Fact::new(f.dtype, Shape(dims.collect()))
    };
    ports.map(|p| fact(body.fact(p.value))).collect()
}

/// Operands have the types and ranks of the body's inputs from `first` on.
pub(crate) fn check_operands(cx: &InferCx<'_>, body: &Graph, first_input: usize, first_operand: usize) -> Result<()> {
    for (i, p) in body.inputs().iter().skip(first_input).enumerate() {
        let (f, x) = (body.fact(p.value), cx.input(first_operand + i)?);
        let at = first_operand + i;
        ensure!(x.dtype == f.dtype && x.rank() == f.rank(), InvalidArgument, "operand {at}: expected {f}, got {x}");
    }
    Ok(())
}

/// Stacks the values of all turns; `like` gives type and shape when there was no turn.
pub(crate) fn stack(turns: &[Arc<Tensor>], like: &Fact) -> Result<Tensor> {
    let one: Vec<usize> = match turns.first() {
        Some(t) => t.shape().to_vec(),
        None => like.shape.iter().skip(1).map(|d| d.as_const().unwrap_or(0).max(0) as usize).collect(),
    };
    let mut shape = vec![turns.len()];
    shape.extend(&one);
    crate::base::tensor::checked_bytes(like.dtype, &shape)?;
    let mut out = Tensor::zeros(like.dtype, &shape);
    let bytes = out.bytes().len() / turns.len().max(1);
    for (t, to) in turns.iter().zip(out.bytes_mut().chunks_exact_mut(bytes.max(1))) {
        ensure!(t.shape() == one, InvalidArgument, "a scanned value is {:?} in one turn and {one:?} in another", t.shape());
        to.copy_from_slice(t.bytes());
    }
    Ok(out)
}

impl Loop {
    /// Number of scanned outputs.
    pub fn n_scanned(&self) -> usize {
        self.body.outputs().len() - 1 - self.n_state
    }

    /// The body never ends the loop: its condition is constant true, or the one it was given.
    pub fn goes_on(&self) -> bool {
        let v = self.body.outputs()[0].value;
        match self.body.as_const(v) {
            Some(t) => condition_of(t).unwrap_or(false),
            None => self.body.inputs().get(1).is_some_and(|p| p.value == v),
        }
    }
}

impl OpDef for Loop {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let b = &self.body;
        let n_body = b.inputs().len();
        ensure!(
            n_body >= 2 + self.n_state && b.outputs().len() > self.n_state && cx.n_inputs() == n_body,
            InvalidArgument,
            "a body of {n_body} inputs and {} outputs does not fit {} operands",
            b.outputs().len(),
            cx.n_inputs()
        );
        if let Some(m) = cx.opt(0) {
            ensure!(m.dtype == DType::I64, InvalidArgument, "the trip count is {m}, not i64");
        }
        for f in cx.opt(1).into_iter().chain([b.fact(b.outputs()[0].value)]) {
            ensure!(f.dtype == DType::Bool, InvalidArgument, "the condition is {f}, not bool");
        }
        check_operands(cx, b, 2, 2)?;
        for i in 0..self.n_state {
            let (f, g) = (b.fact(b.inputs()[2 + i].value), b.fact(b.outputs()[1 + i].value));
            ensure!(f.dtype == g.dtype && f.rank() == g.rank(), Unsupported, "state {i} changes from {f} to {g}");
        }
        let trips = match cx.opt(0).and_then(|f| f.as_dims()) {
            Some(d) if d.len() == 1 && self.goes_on() && cx.opt(1).is_none_or(always) => d[0].max_of(&Dim::ZERO),
            _ => fresh_dim("trips"),
        };
        let mut out = state_facts(b, 2, self.n_state);
        out.extend(scanned_facts(b, 1 + self.n_state, &trips));
        Ok(out)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let arc = |i: usize| cx.input(i).map(|t| Arc::new(t.clone()));
        let trips = match cx.opt(0) {
            Some(m) => m.to_i64s().first().copied().unwrap_or(0),
            None => i64::MAX,
        };
        let mut go = cx.opt(1).map_or(Ok(true), condition_of)?;
        let mut state: Vec<Arc<Tensor>> = (0..self.n_state).map(|i| arc(2 + i)).collect::<Result<_>>()?;
        let captures: Vec<Arc<Tensor>> = (2 + self.n_state..cx.inputs.len()).map(arc).collect::<Result<_>>()?;
        let mut scanned: Vec<Vec<Arc<Tensor>>> = vec![Vec::new(); self.n_scanned()];
        let mut turn = 0i64;
        while go && turn < trips {
            let mut inputs = vec![Arc::new(Tensor::scalar(turn)), Arc::new(Tensor::scalar(go))];
            inputs.extend(state.iter().chain(&captures).cloned());
            let mut out = self.body.eval_list(&inputs)?.into_iter();
            let condition = out.next().ok_or_else(|| crate::internal!("a body without outputs"))?;
            go = condition_of(&condition)?;
            state = out.by_ref().take(self.n_state).collect();
            scanned.iter_mut().zip(out).for_each(|(s, t)| s.push(t));
            turn += 1;
        }
        let mut out: Vec<Tensor> = state.into_iter().map(Arc::unwrap_or_clone).collect();
        for (s, like) in scanned.iter().zip(&cx.outputs[self.n_state..]) {
            out.push(stack(s, like)?);
        }
        Ok(out)
    }

    fn bodies(&self) -> Vec<&Arc<Graph>> {
        vec![&self.body]
    }

    fn with_bodies(&self, bodies: Vec<Arc<Graph>>) -> Option<Op> {
        let [body] = bodies.try_into().ok()?;
        Some(Loop { body, n_state: self.n_state }.into())
    }
}

/// The condition is known to be true.
fn always(f: &Fact) -> bool {
    f.as_const().is_some_and(|t| condition_of(t).unwrap_or(false))
}
