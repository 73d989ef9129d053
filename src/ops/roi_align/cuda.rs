//! CUDA: `roi_align.cu`, a thread an output element.

use super::{MAX_SAMPLES, RoiAlign, RoiMode};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::internal;
use crate::ops::per_output::{program as per_output, tactic, zeros};
use crate::ops::{Arg, KernelSpec, Problem, StepProgram, Tactic, cuda_type, i64_struct};

pub fn tactics(op: &RoiAlign, p: &Problem) -> Vec<Tactic> {
    let (Some(x), Some(batch)) = (p.input(0), p.input(2)) else { return vec![] };
    let spec = KernelSpec::new("roi_align.cu")
        .define_type("T_IN", x.dtype)
        .define_type("T_INDEX", batch.dtype)
        .define("IS_MAX", (op.mode == RoiMode::Max) as i64)
        .define("HALF_PIXEL", op.half_pixel as i64);
    let half = if op.half_pixel { "_half_pixel" } else { "" };
    let types = format!("{}_{}", cuda_type(x.dtype), cuda_type(batch.dtype));
    tactic(format!("roi_align/{}{half}_{types}", op.mode.name()), spec)
}

pub fn program(op: &RoiAlign, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else {
        return Err(internal!("a region pooling without operands"));
    };
    if x.numel() == 0 && y.numel() > 0 {
        return Ok(zeros(y.bytes()));
    }
    let params = x.dims.iter().chain(&y.dims[2..]).map(|v| *v as i64);
    let params = params.chain([y.dims[0] as i64, op.sampling_ratio, MAX_SAMPLES]);
    let args =
        vec![Arg::In(0), Arg::In(1), Arg::In(2), Arg::Out(0), i64_struct(params), Arg::F32(op.spatial_scale)];
    Ok(per_output(y.numel(), args, dev))
}
