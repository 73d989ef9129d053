//! Branches and loops, driven by the host. State stays on the device; a condition that the data decides is read back.

use super::dynamic::{Inner, Runner, Var};
use crate::base::{Fact, Result, Tensor};
use crate::network::Node;
use crate::ops::branch::condition_of;
use crate::ops::loop_op::Loop;
use crate::ops::scan::Scan;
use crate::ops::{Op, TensorDesc};
use crate::plan::Plan;
use crate::{ensure, err, internal};
use std::sync::Arc;

/// Runs a node that has graphs; gives its outputs.
pub(super) fn run(r: &mut Runner<'_>, node: &Node, plans: &[Plan], ins: Vec<Option<Var>>) -> Result<Vec<Var>> {
    match (&node.op, plans) {
        (Op::If(_), [then_plan, else_plan]) => {
            let mut ins: Vec<Var> = required(ins)?;
            let n_then = then_plan.graph.inputs().len();
            let condition = condition_of(&*r.to_host(&mut ins[0])?)?;
            let rest = ins.split_off(1 + n_then);
            let (plan, args) = if condition { (then_plan, ins.split_off(1)) } else { (else_plan, rest) };
            r.plan(plan, args, &mut Inner)
        }
        (Op::Loop(op), [body]) => run_loop(r, op, body, ins),
        (Op::Scan(op), [body]) => run_scan(r, op, body, required(ins)?),
        _ => Err(internal!("{} is no control flow", node.op.name())),
    }
}

fn required(ins: Vec<Option<Var>>) -> Result<Vec<Var>> {
    ins.into_iter().collect::<Option<_>>().ok_or_else(|| err!(InvalidArgument, "an operand is missing"))
}

/// The values of all turns, one behind the other.
struct Stack {
    /// Known number of turns: values go to their place at once.
    turns: Option<usize>,
    whole: Option<Var>,
    parts: Vec<Var>,
    n: usize,
    reverse: bool,
}

impl Stack {
    fn new(turns: Option<usize>, reverse: bool) -> Stack {
        Stack { turns, whole: None, parts: Vec::new(), n: 0, reverse }
    }

    fn push(&mut self, r: &mut Runner<'_>, mut v: Var) -> Result<()> {
        let Some(turns) = self.turns else {
            self.parts.push(v);
            return Ok(());
        };
        if self.whole.is_none() {
            let mut dims = vec![turns];
            dims.extend(&v.desc.dims);
            self.whole = Some(r.fresh(TensorDesc { dtype: v.desc.dtype, dims })?);
        }
        let whole = self.whole.as_mut().ok_or_else(|| internal!("no memory for scanned values"))?;
        ensure!(
            v.desc.dims == whole.desc.dims[1..] && self.n < turns,
            InvalidArgument,
            "a scanned value is {} in one turn and {:?} in another",
            v.desc,
            &whole.desc.dims[1..]
        );
        let at = if self.reverse { turns - 1 - self.n } else { self.n };
        let bytes = v.desc.bytes();
        let to = r.materialize(whole)? + (at * bytes) as u64;
        let from = r.materialize(&mut v)?;
        self.n += 1;
        r.copy(to, from, bytes)
    }

    /// The whole; `like` gives type and shape when there was no turn.
    fn finish(mut self, r: &mut Runner<'_>, like: &Fact) -> Result<Var> {
        if self.turns.is_none() {
            let parts = std::mem::take(&mut self.parts);
            self.turns = Some(parts.len());
            for v in parts {
                self.push(r, v)?;
            }
        }
        match self.whole {
            Some(v) => Ok(v),
            None => {
                let mut dims = vec![0];
                dims.extend(like.shape.iter().map(|d| d.as_const().unwrap_or(0).max(0) as usize));
                r.fresh(TensorDesc { dtype: like.dtype, dims })
            }
        }
    }
}

fn scanned_fact(body: &Plan, output: usize) -> &Fact {
    body.graph.fact(body.graph.outputs()[output].value)
}

fn run_loop(r: &mut Runner<'_>, op: &Loop, body: &Plan, mut ins: Vec<Option<Var>>) -> Result<Vec<Var>> {
    let trips = match &mut ins[0] {
        None => i64::MAX,
        Some(v) => r.to_host(v)?.to_i64s().first().copied().unwrap_or(0).max(0),
    };
    let mut go = match &mut ins[1] {
        None => true,
        Some(v) => condition_of(&*r.to_host(v)?)?,
    };
    let mut state = required(ins.split_off(2))?;
    let captures = state.split_off(op.n_state);
    let goes_on = op.goes_on();
    let turns = (goes_on && go && trips < i64::MAX).then_some(trips as usize);
    let mut stacks: Vec<Stack> = (0..op.n_scanned()).map(|_| Stack::new(turns, false)).collect();
    let mut turn = 0i64;
    while go && turn < trips {
        let mut args = vec![Var::of_host(Arc::new(Tensor::scalar(turn))), Var::of_host(Arc::new(Tensor::scalar(go)))];
        args.append(&mut state);
        args.extend(captures.iter().cloned());
        let mut out = r.plan(body, args, &mut Inner)?;
        if !goes_on {
            go = condition_of(&*r.to_host(&mut out[0])?)?;
        }
        let scanned = out.split_off(1 + op.n_state);
        state = out.split_off(1);
        for (s, v) in stacks.iter_mut().zip(scanned) {
            s.push(r, v)?;
        }
        turn += 1;
    }
    for (k, s) in stacks.into_iter().enumerate() {
        let v = s.finish(r, scanned_fact(body, 1 + op.n_state + k))?;
        state.push(v);
    }
    Ok(state)
}

fn run_scan(r: &mut Runner<'_>, op: &Scan, body: &Plan, mut ins: Vec<Var>) -> Result<Vec<Var>> {
    let n_scan = op.reverse_in.len();
    let captures = ins.split_off(op.n_state + n_scan);
    let mut scanned = ins.split_off(op.n_state);
    let mut state = ins;
    let turns = op.turns(&scanned.iter().map(|v| v.desc.dims[0]).collect::<Vec<_>>())?;
    for v in &mut scanned {
        r.materialize(v)?;
    }
    let mut stacks: Vec<Stack> = op.reverse_out.iter().map(|d| Stack::new(Some(turns), *d != 0)).collect();
    for turn in 0..turns {
        let mut args = std::mem::take(&mut state);
        for (k, v) in scanned.iter().enumerate() {
            args.push(slice(r, v, op.slice_of(k, turn, turns))?);
        }
        args.extend(captures.iter().cloned());
        let mut out = r.plan(body, args, &mut Inner)?;
        let results = out.split_off(op.n_state);
        state = out;
        for (s, v) in stacks.iter_mut().zip(results) {
            s.push(r, v)?;
        }
    }
    for (k, s) in stacks.into_iter().enumerate() {
        let v = s.finish(r, scanned_fact(body, op.n_state + k))?;
        state.push(v);
    }
    Ok(state)
}

/// Element `i` of a value's first axis: in place where its address suits every kernel, a copy otherwise.
fn slice(r: &mut Runner<'_>, v: &Var, i: usize) -> Result<Var> {
    let desc = TensorDesc { dtype: v.desc.dtype, dims: v.desc.dims[1..].to_vec() };
    let bytes = desc.bytes();
    let from = v.address.ok_or_else(|| internal!("a scanned value has no memory"))? + (i * bytes) as u64;
    if from % 64 == 0 {
        return Ok(Var { desc, address: Some(from), host: None, keep: v.keep.clone() });
    }
    let mut out = r.fresh(desc)?;
    let to = r.materialize(&mut out)?;
    r.copy(to, from, bytes)?;
    Ok(out)
}
