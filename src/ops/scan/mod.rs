//! Runs a graph for each slice of its scanned inputs. Inputs: `n_state` initial values, scanned values (slices along
//! axis 0; other axes are transposed while importing), captures. Body: (state..., slices..., captures...) to
//! (state..., scanned...). Outputs: the final state, then scanned values with the turns as first axis.

mod onnx;

use crate::base::{Dim, Fact, Result, Tensor};
use crate::network::Graph;
use crate::ops::loop_op::{check_operands, scanned_facts, stack, state_facts};
use crate::ops::{EvalCx, InferCx, Op, OpDef, StructuralOp, structural};
use crate::{ensure, op_home, op_struct};
use std::sync::Arc;

op_struct! {
    /// A loop over slices. Inputs: state, scanned values, captures. Lists hold 0 (forward) or 1 (from the end).
    pub struct Scan {
        pub body: Arc<Graph>,
        pub n_state: usize,
        pub reverse_in: Vec<i64>,
        pub reverse_out: Vec<i64>,
    }
}

op_home!(Scan, "Scan", &[]);

pub const STRUCTURAL: &[StructuralOp] = &[structural("Scan", 8, onnx::import_8), structural("Scan", 9, onnx::import_9)];

impl Scan {
    /// Number of turns for the scanned inputs' first dimensions.
    pub fn turns(&self, lengths: &[usize]) -> Result<usize> {
        let first = lengths.first().copied().unwrap_or(0);
        ensure!(lengths.iter().all(|n| *n == first), InvalidArgument, "scanned inputs have {lengths:?} slices, not equally many");
        Ok(first)
    }

    /// The slice that a scanned input gives to a turn.
    pub fn slice_of(&self, input: usize, turn: usize, turns: usize) -> usize {
        if self.reverse_in[input] != 0 { turns - 1 - turn } else { turn }
    }
}

impl OpDef for Scan {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let (b, n_scan) = (&self.body, self.reverse_in.len());
        ensure!(
            n_scan > 0
                && b.inputs().len() == cx.n_inputs()
                && b.inputs().len() >= self.n_state + n_scan
                && b.outputs().len() == self.n_state + self.reverse_out.len(),
            InvalidArgument,
            "a body of {} inputs and {} outputs does not fit {} operands",
            b.inputs().len(),
            b.outputs().len(),
            cx.n_inputs()
        );
        for (i, p) in b.inputs().iter().enumerate().take(self.n_state + n_scan) {
            let (f, x) = (b.fact(p.value), cx.input(i)?);
            let rank = f.rank() + (i >= self.n_state) as usize;
            ensure!(x.dtype == f.dtype && x.rank() == rank, InvalidArgument, "operand {i}: expected slices {f}, got {x}");
        }
        check_operands(cx, b, self.n_state + n_scan, self.n_state + n_scan)?;
        for i in 0..self.n_state {
            let (f, g) = (b.fact(b.inputs()[i].value), b.fact(b.outputs()[i].value));
            ensure!(f.dtype == g.dtype && f.rank() == g.rank(), Unsupported, "state {i} changes from {f} to {g}");
        }
        let turns: Dim = cx.input(self.n_state)?.shape[0].clone();
        let mut out = state_facts(b, 0, self.n_state);
        out.extend(scanned_facts(b, self.n_state, &turns));
        Ok(out)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (n, n_scan) = (self.n_state, self.reverse_in.len());
        let arc = |i: usize| cx.input(i).map(|t| Arc::new(t.clone()));
        let mut state: Vec<Arc<Tensor>> = (0..n).map(arc).collect::<Result<_>>()?;
        let scanned: Vec<&Tensor> = (n..n + n_scan).map(|i| cx.input(i)).collect::<Result<_>>()?;
        let captures: Vec<Arc<Tensor>> = (n + n_scan..cx.inputs.len()).map(arc).collect::<Result<_>>()?;
        let turns = self.turns(&scanned.iter().map(|t| t.shape()[0]).collect::<Vec<_>>())?;
        let mut results: Vec<Vec<Arc<Tensor>>> = vec![Vec::new(); self.reverse_out.len()];
        for turn in 0..turns {
            let mut inputs = state;
            for (k, t) in scanned.iter().enumerate() {
                let bytes = t.bytes().len() / turns;
                let at = self.slice_of(k, turn, turns) * bytes;
                inputs.push(Arc::new(Tensor::from_bytes(t.dtype(), &t.shape()[1..], &t.bytes()[at..at + bytes])?));
            }
            inputs.extend(captures.iter().cloned());
            let mut out = self.body.eval_list(&inputs)?.into_iter();
            state = out.by_ref().take(n).collect();
            results.iter_mut().zip(out).for_each(|(r, t)| r.push(t));
        }
        let mut out: Vec<Tensor> = state.into_iter().map(Arc::unwrap_or_clone).collect();
        for (k, r) in results.iter_mut().enumerate() {
            if self.reverse_out[k] != 0 {
                r.reverse();
            }
            out.push(stack(r, &cx.outputs[n + k])?);
        }
        Ok(out)
    }

    fn bodies(&self) -> Vec<&Arc<Graph>> {
        vec![&self.body]
    }

    fn with_bodies(&self, bodies: Vec<Arc<Graph>>) -> Option<Op> {
        let [body] = bodies.try_into().ok()?;
        Some(Scan { body, ..self.clone() }.into())
    }
}
