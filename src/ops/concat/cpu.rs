//! CPU step: the rows of each input go to their place in the rows of the output.

use super::Concat;
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::ops::transpose::cpu::Rows;
use crate::ops::{CpuArgs, CpuStep, Problem};

struct ConcatStep {
    /// Copy of each input, and the byte where its first row goes.
    parts: Vec<(Rows, usize)>,
}

impl CpuStep for ConcatStep {
    fn name(&self) -> String {
        "concat".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        for (i, (rows, at)) in self.parts.iter().enumerate() {
            if rows.len > 0 && rows.rows > 0 {
                // SAFETY: the parts lie side by side in the output that the step was made for.
                unsafe { rows.copy(args.inputs[i], args.outputs[0].add(*at)) };
            }
        }
    }
}

pub fn step(op: &Concat, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let out = &p.outputs[0];
    let axis = normalize_axis(op.axis, out.dims.len())?;
    let rows = out.dims[..axis].iter().product();
    let pitch = out.dims[axis..].iter().product::<usize>() * out.dtype.size();
    let mut parts = Vec::new();
    let mut at = 0;
    for x in &p.inputs {
        let Some(x) = x else { return Ok(None) };
        let len = x.dims[axis..].iter().product::<usize>() * x.dtype.size();
        parts.push((Rows { rows, len, from_pitch: len, to_pitch: pitch }, at));
        at += len;
    }
    Ok(Some(Box::new(ConcatStep { parts })))
}
