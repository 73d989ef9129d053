//! A CPU step of f32 for operands of f16 and bf16: they are converted into scratch memory, and results back. Constants
//! are converted once.

use super::pointwise::Program;
use super::tactic::{CpuArgs, CpuStep, PackCache, Packed, Problem, TensorDesc};
use crate::base::{DType, Result, Tensor};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::internal;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::sync::Arc;

/// Operands of one step at most.
const MAX_OPERANDS: usize = 80;
/// Elements of one task.
const PART: usize = 32 << 10;
/// Alignment of scratch buffers.
const ALIGN: usize = 256;

pub fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// The program with its half registers in f32; `None` when it has registers of other types than bool.
pub fn program(p: &Program) -> Option<Program> {
    let mut p = p.clone();
    let types = p.inputs.iter_mut().chain(p.instrs.iter_mut().map(|i| &mut i.dtype));
    for d in types {
        match *d {
            DType::F16 | DType::BF16 => *d = DType::F32,
            DType::Bool => {}
            _ => return None,
        }
    }
    Some(p)
}

/// A half tensor that lies as f32 in scratch memory.
#[derive(Clone, Copy)]
struct Buffer {
    dtype: DType,
    n: usize,
    offset: usize,
}

enum Source {
    AsItIs,
    Known(Arc<Tensor>),
    Converted(Buffer),
}

struct InF32 {
    inner: Box<dyn CpuStep>,
    inputs: Vec<Source>,
    outputs: Vec<Option<Buffer>>,
    /// Where the inner step's scratch memory begins.
    work: usize,
}

/// Runs `make` on the problem in f32. `None` when it makes none.
pub fn step(
    p: &Problem,
    pack: &dyn PackCache,
    make: impl FnOnce(&Problem) -> Result<Option<Box<dyn CpuStep>>>,
) -> Result<Option<Box<dyn CpuStep>>> {
    if p.inputs.len() > MAX_OPERANDS || p.outputs.len() > MAX_OPERANDS {
        return Ok(None);
    }
    let mut offset = 0usize;
    let mut buffer = |d: &TensorDesc| {
        let at = offset;
        offset += (d.numel() * size_of::<f32>()).next_multiple_of(ALIGN);
        Buffer { dtype: d.dtype, n: d.numel(), offset: at }
    };
    let mut full = p.clone();
    let mut inputs = Vec::new();
    for (i, d) in full.inputs.iter_mut().enumerate() {
        let Some(d) = d.as_mut().filter(|d| is_half(d.dtype)) else {
            inputs.push(Source::AsItIs);
            continue;
        };
        match p.known(i) {
            Some(t) => {
                let make = &mut || Arc::new(t.cast(DType::F32)) as Packed;
                let packed = pack.get_or_pack(&format!("f32_input{i}"), make);
                let t = packed.downcast::<Tensor>().map_err(|_| internal!("the pack cache mixed up its slots"))?;
                full.known[i] = Some(t.clone());
                inputs.push(Source::Known(t));
            }
            None => inputs.push(Source::Converted(buffer(d))),
        }
        d.dtype = DType::F32;
    }
    let mut outputs = Vec::new();
    for d in &mut full.outputs {
        outputs.push(is_half(d.dtype).then(|| buffer(d)));
        if is_half(d.dtype) {
            d.dtype = DType::F32;
        }
    }
    let Some(inner) = make(&full)? else { return Ok(None) };
    Ok(Some(Box::new(InF32 { inner, inputs, outputs, work: offset })))
}

/// # Safety
/// Both addresses hold the buffer's elements and do not overlap.
unsafe fn widen(b: &Buffer, from: *const u8, to: *mut u8) {
    // SAFETY: the caller's promise; read only.
    let from = SharedMut(from as *mut u16, b.n);
    let to = SharedMut(to.cast::<f32>(), b.n);
    for_each_task(b.n.div_ceil(PART), |task| {
        let (at, n) = (task * PART, PART.min(b.n - task * PART));
        // SAFETY: each task has a part of its own; f16 and bf16 are 16 bits.
        unsafe {
            let from = from.slice(at, n).as_ptr();
            match b.dtype {
                DType::F16 => std::slice::from_raw_parts(from.cast::<f16>(), n).convert_to_f32_slice(to.slice(at, n)),
                _ => std::slice::from_raw_parts(from.cast::<bf16>(), n).convert_to_f32_slice(to.slice(at, n)),
            }
        }
    });
}

/// # Safety
/// As [`widen`], the other way.
unsafe fn narrow(b: &Buffer, from: *const u8, to: *mut u8) {
    let from = SharedMut(from as *mut f32, b.n);
    let to = SharedMut(to.cast::<u16>(), b.n);
    for_each_task(b.n.div_ceil(PART), |task| {
        let (at, n) = (task * PART, PART.min(b.n - task * PART));
        // SAFETY: each task has a part of its own; f16 and bf16 are 16 bits.
        unsafe {
            let to = to.slice(at, n).as_mut_ptr();
            match b.dtype {
                DType::F16 => std::slice::from_raw_parts_mut(to.cast::<f16>(), n).convert_from_f32_slice(from.slice(at, n)),
                _ => std::slice::from_raw_parts_mut(to.cast::<bf16>(), n).convert_from_f32_slice(from.slice(at, n)),
            }
        }
    });
}

impl CpuStep for InF32 {
    fn name(&self) -> String {
        format!("{}_in_f32", self.inner.name())
    }

    fn workspace(&self) -> usize {
        self.work + self.inner.workspace()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let mut inputs = [std::ptr::null::<u8>(); MAX_OPERANDS];
        let mut outputs = [std::ptr::null_mut::<u8>(); MAX_OPERANDS];
        // SAFETY: scratch memory holds every buffer behind the other, and then the inner step's; addresses are those of
        // the tensors that the step was made for.
        unsafe {
            for (i, source) in self.inputs.iter().enumerate() {
                inputs[i] = match source {
                    Source::AsItIs => args.inputs[i],
                    Source::Known(t) => t.bytes().as_ptr(),
                    Source::Converted(b) => {
                        let to = args.work.add(b.offset);
                        widen(b, args.inputs[i], to);
                        to
                    }
                };
            }
            for (i, b) in self.outputs.iter().enumerate() {
                outputs[i] = b.map_or(args.outputs[i], |b| args.work.add(b.offset));
            }
            let inner = CpuArgs {
                inputs: &inputs[..self.inputs.len()],
                outputs: &outputs[..self.outputs.len()],
                work: args.work.add(self.work),
            };
            self.inner.run(&inner);
            for (i, b) in self.outputs.iter().enumerate() {
                if let Some(b) = b {
                    narrow(b, outputs[i], args.outputs[i]);
                }
            }
        }
    }
}
