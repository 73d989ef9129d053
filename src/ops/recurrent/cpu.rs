//! CPU step for f32: the core of `device/cpu/recurrent.rs`, with the weights packed once when they are constant.

use super::*;
use crate::device::cpu::recurrent::{Cell, Direction, PackedRecurrent, RecurrentInputs, RecurrentParams, pack_recurrent, recurrent};
use crate::internal;
use crate::ops::{CpuArgs, Packed};
use std::sync::Arc;

struct RecurrentStep {
    params: RecurrentParams,
    kind: RecurrentKind,
    packed: Option<Arc<PackedRecurrent>>,
    /// Elements of each operand and result.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl RecurrentStep {
    /// Operand `i` as elements of `T`, when it is there.
    ///
    /// # Safety
    /// The addresses are valid for the shapes that the step was made for.
    unsafe fn operand<'a, T>(&self, args: &CpuArgs<'a>, i: usize) -> Option<&'a [T]> {
        let n = *self.inputs.get(i)?;
        let at = args.inputs.get(i).copied().filter(|p| !p.is_null())?;
        // SAFETY: the caller's promise; an empty operand is not read.
        Some(if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(at.cast(), n) } })
    }

    /// # Safety
    /// As `operand`.
    unsafe fn result<'a>(&self, args: &CpuArgs<'a>, i: usize) -> &'a mut [f32] {
        match self.outputs.get(i) {
            // SAFETY: the caller's promise.
            Some(n) if *n > 0 => unsafe { std::slice::from_raw_parts_mut(args.outputs[i].cast(), *n) },
            _ => &mut [],
        }
    }
}

impl CpuStep for RecurrentStep {
    fn name(&self) -> String {
        format!("{}_{}", self.kind.name(), self.params.hidden)
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        unsafe {
            let inputs = RecurrentInputs {
                x: self.operand(args, X).unwrap_or(&[]),
                r: self.operand(args, R).unwrap_or(&[]),
                packed: self.packed.as_deref(),
                bias: self.operand(args, BIAS),
                lengths: self.operand(args, LENGTHS),
                h0: self.operand(args, H0),
                c0: self.operand(args, C0),
                peepholes: self.operand(args, PEEPHOLES),
            };
            recurrent(&self.params, &inputs, self.result(args, 0), self.result(args, 1), self.result(args, 2));
        }
    }
}

pub fn step(op: &Recurrent, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
    let s = sizes_of(op, p)?;
    if p.input(X).is_none_or(|x| x.dtype != DType::F32) {
        return Ok(None);
    }
    let functions = op.functions()?;
    let directions = functions.iter().enumerate().map(|(d, f)| Direction { reverse: op.is_reverse(d), activations: f.map(|f| f.core()) });
    let params = RecurrentParams {
        cell: match op.kind {
            RecurrentKind::Rnn => Cell::Rnn,
            RecurrentKind::Gru => Cell::Gru { reset_after: op.reset_after },
            RecurrentKind::Lstm => Cell::Lstm { coupled: op.coupled },
        },
        directions: directions.collect(),
        seq: s.seq,
        batch: s.batch,
        hidden: s.hidden,
        clip: op.clip,
        batch_first: s.batch_first,
    };
    let packed = match p.known(R) {
        Some(r) => {
            let packed = pack.get_or_pack("recurrent_r", &mut || Arc::new(pack_recurrent(&params, r.slice())) as Packed);
            Some(packed.downcast().map_err(|_| internal!("the pack cache mixed up its slots"))?)
        }
        None => None,
    };
    let inputs = p.inputs.iter().map(|d| d.as_ref().map_or(0, |d| d.numel())).collect();
    let outputs = p.outputs.iter().map(|d| d.numel()).collect();
    Ok(Some(Box::new(RecurrentStep { params, kind: op.kind, packed, inputs, outputs })))
}
