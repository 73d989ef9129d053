//! CPU step: rows in parallel, each selected and sorted in memory that its thread keeps.

use super::TopK;
use crate::base::dims::normalize_axis;
use crate::base::{DType, Result};
use crate::ops::{CpuArgs, CpuStep, Problem};

struct TopKStep {
    op: TopK,
    dims: Vec<usize>,
    dtype: DType,
    k: usize,
    n_out: usize,
}

impl CpuStep for TopKStep {
    fn name(&self) -> String {
        "topk".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.n_out == 0 {
            return;
        }
        let n: usize = self.dims.iter().product();
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        unsafe {
            let at = std::slice::from_raw_parts_mut(args.outputs[1].cast::<i64>(), self.n_out);
            crate::dispatch!(self.dtype, T => self.op.run::<T>(
                &self.dims,
                self.k,
                std::slice::from_raw_parts(args.inputs[0].cast(), n),
                std::slice::from_raw_parts_mut(args.outputs[0].cast(), self.n_out),
                at,
            ))
            .expect("the step was made for a k that fits");
        }
    }
}

pub fn step(op: &TopK, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(x) = p.input(0) else { return Ok(None) };
    let axis = normalize_axis(op.axis, x.dims.len())?;
    let k = p.outputs[0].dims[axis];
    crate::ensure!(k <= x.dims[axis], InvalidArgument, "the best {k} of {} elements", x.dims[axis]);
    let n_out = p.outputs[0].numel();
    Ok(Some(Box::new(TopKStep { op: op.clone(), dims: x.dims.clone(), dtype: x.dtype, k, n_out })))
}
