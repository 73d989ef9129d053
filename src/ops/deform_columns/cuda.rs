//! CUDA: `deform_columns.cu`, a thread a tap of a group of channels at an output position.

use super::DeformColumns;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::conv::cuda::check_nd;
use crate::ops::per_output::{program as per_output, tactic};
use crate::ops::{Arg, KernelSpec, Problem, StepProgram, Tactic, cuda_type, i64_struct};
use crate::internal;

pub fn tactics(op: &DeformColumns, p: &Problem) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let mask = p.input(2).is_some();
    let r = op.kernel.len();
    let spec = KernelSpec::new("deform_columns.cu")
        .define_type("T_IN", x.dtype)
        .define("RANK", r)
        .define("HAS_MASK", mask as i64);
    let text = if mask { "_mask" } else { "" };
    tactic(format!("deform_columns/{r}d{text}_{}", cuda_type(x.dtype)), spec)
}

pub fn program(op: &DeformColumns, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else {
        return Err(internal!("columns without operands"));
    };
    let w = op.window(&x.dims, &y.dims)?;
    check_nd(x.dims[0], x.dims[1], &w)?;
    let lists = [w.input, w.output, w.kernel, w.stride, w.pad_begin, w.dilation];
    let head = [x.dims[0], x.dims[1], op.groups as usize];
    let params = head.into_iter().chain(lists.into_iter().flatten()).map(|v| v as i64);
    let mask = if p.input(2).is_some() { Arg::In(2) } else { Arg::Null };
    let args = vec![Arg::In(0), Arg::In(1), mask, Arg::Out(0), i64_struct(params)];
    Ok(per_output(y.numel(), args, dev))
}
