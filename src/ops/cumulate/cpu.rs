//! CPU step: the reference's loop on the operands' own memory.

use super::Cumulate;
use crate::base::{DType, Result};
use crate::ops::{CpuArgs, CpuStep, Problem};

struct CumulateStep {
    op: Cumulate,
    extents: [usize; 3],
    dtype: DType,
}

impl CpuStep for CumulateStep {
    fn name(&self) -> String {
        "cumulate".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let n = self.extents.iter().product();
        if n == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        unsafe {
            crate::dispatch!(self.dtype, T => self.op.run::<T>(
                self.extents,
                std::slice::from_raw_parts(args.inputs[0].cast(), n),
                std::slice::from_raw_parts_mut(args.outputs[0].cast(), n),
            ));
        }
    }
}

pub fn step(op: &Cumulate, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(axis)) = (p.input(0), p.known(1)) else { return Ok(None) };
    let Some(axis) = axis.to_i64s().first().copied() else { return Ok(None) };
    Ok(Some(Box::new(CumulateStep { op: op.clone(), extents: Cumulate::extents(&x.dims, axis)?, dtype: x.dtype })))
}
