//! CPU step for f32: the core of `device/cpu/attention.rs`. Other types and scores as an output take the reference.

use super::eval::lowest;
use super::{Attention, Causal, Geometry, LENGTHS, MASK, OFFSETS, SINKS, Scores};
use crate::base::{DType, Result};
use crate::device::cpu::attention::{Row, RowMask, Shape, attention_f32};
use crate::ops::{CpuArgs, CpuStep, Problem, TensorDesc};

struct AttentionStep {
    op: Attention,
    g: Geometry,
    shape: Shape,
    /// Sizes in elements of the operands and of the output.
    inputs: Vec<Option<TensorDesc>>,
    n_y: usize,
}

/// # Safety
/// The address holds `n` elements of `T` for as long as the slice lives.
unsafe fn slice<'a, T>(args: &CpuArgs<'a>, i: usize, n: usize) -> &'a [T] {
    let p = args.inputs.get(i).copied().unwrap_or(std::ptr::null());
    // SAFETY: the caller's promise; an empty tensor may have any address.
    if n == 0 || p.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(p.cast::<T>(), n) } }
}

/// A vector of i32 or i64, read when the step runs.
#[derive(Clone, Copy)]
enum Ints<'a> {
    None,
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl Ints<'_> {
    fn get(&self, i: usize) -> Option<i64> {
        match self {
            Ints::None => None,
            Ints::I32(v) => v.get(i).map(|v| *v as i64),
            Ints::I64(v) => v.get(i).copied(),
        }
    }
}

impl AttentionStep {
    fn desc(&self, i: usize) -> Option<&TensorDesc> {
        self.inputs.get(i).and_then(|d| d.as_ref())
    }

    /// # Safety
    /// The addresses are those of the step.
    unsafe fn ints<'a>(&self, args: &CpuArgs<'a>, i: usize) -> Ints<'a> {
        // SAFETY: the caller's promise; the types are those of the problem.
        unsafe {
            match self.desc(i) {
                Some(d) if d.dtype == DType::I32 => Ints::I32(slice(args, i, d.numel())),
                Some(d) => Ints::I64(slice(args, i, d.numel())),
                None => Ints::None,
            }
        }
    }
}

impl CpuStep for AttentionStep {
    fn name(&self) -> String {
        "attention".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.n_y == 0 {
            return;
        }
        let g = &self.g;
        let n = |i: usize| self.desc(i).map_or(0, TensorDesc::numel);
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let data: [&[f32]; 3] = unsafe { [slice(args, 0, n(0)), slice(args, 1, n(1)), slice(args, 2, n(2))] };
        let [q, k, v] = [0, 1, 2].map(|i| data[g.sources[i]].get(g.firsts[i]..).unwrap_or(&[]));
        // SAFETY: as above.
        let (lengths, offsets) = unsafe { (self.ints(args, LENGTHS), self.ints(args, OFFSETS)) };
        // SAFETY: as above.
        let sinks: &[f32] = unsafe { slice(args, SINKS, n(SINKS)) };
        let is_bool = g.mask.is_some_and(|m| m.is_bool);
        // SAFETY: as above; one of the two is empty.
        let (floats, bools): (&[f32], &[u8]) = unsafe {
            (slice(args, MASK, if is_bool { 0 } else { n(MASK) }), slice(args, MASK, if is_bool { n(MASK) } else { 0 }))
        };
        // SAFETY: as above.
        let y = unsafe { std::slice::from_raw_parts_mut(args.outputs[0].cast::<f32>(), self.n_y) };
        let least = lowest(DType::F32) as f32;
        let row = |b: usize, h: usize, i: usize| {
            let offset = offsets.get(if g.shared_offset { 0 } else { b }).unwrap_or(0);
            let mask = match g.mask {
                None => RowMask::None,
                Some(m) => {
                    let at = b * m.strides[0] + h * m.strides[1] + i * m.strides[2];
                    let (stride, n) = (m.strides[3], m.n_keys);
                    match is_bool {
                        true => RowMask::Bool { values: &bools[at..], stride, n },
                        false => RowMask::Float { values: &floats[at..], stride, n },
                    }
                }
            };
            let later = offset.saturating_add(i as i64 + 1).clamp(0, g.kv_len as i64) as usize;
            Row {
                keys: g.keys(&self.op, i, lengths.get(b), offset),
                mask,
                later: (self.op.causal == Causal::Lowest).then_some((later, least)),
                sink: sinks.get(h).copied().or(self.op.smooth.then_some(0.0)),
            }
        };
        attention_f32(&self.shape, q, k, v, &row, y);
    }
}

pub fn step(op: &Attention, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let g = Geometry::new(op, p)?;
    if g.dtype != DType::F32 || op.scores != Scores::None {
        return Ok(None);
    }
    let shape = Shape {
        batch: g.batch,
        q_heads: g.q_heads,
        group: g.group(),
        q_len: g.q_len,
        kv_len: g.kv_len,
        size: g.size,
        v_size: g.v_size,
        q: g.q,
        k: g.k,
        v: g.v,
        y: g.y,
        scale: op.scale_for(g.size) as f32,
        softcap: op.softcap,
    };
    let (inputs, n_y) = (p.inputs.clone(), p.outputs[0].numel());
    Ok(Some(Box::new(AttentionStep { op: op.clone(), g, shape, inputs, n_y })))
}
