//! Nodes that count their results on a CUDA device: one program counts, the host reads the numbers, memory is taken, and
//! a second program writes the results.

use super::dynamic::{Runner, Var};
use super::exec::{CudaStep, StepAddresses};
use crate::base::Result;
use crate::device::{Device, DeviceRef};
use crate::network::Node;
use crate::ops::{Arg, DeviceOp, InferCx, Problem, StepProgram, Tactic, TensorDesc};
use crate::base::Fact;
use crate::{ensure, internal};

/// The numbers as outputs behind the node's own.
fn as_outputs(mut program: StepProgram, n_outputs: usize) -> StepProgram {
    let fix = |a: &mut Arg| {
        let a = a.address_mut();
        if let Arg::Count(k) = a {
            *a = Arg::Out(n_outputs + *k);
        }
    };
    for op in &mut program.ops {
        match op {
            DeviceOp::Launch(l) => l.args.iter_mut().for_each(fix),
            DeviceOp::Copy { dst, src, .. } => [dst, src].into_iter().for_each(fix),
            DeviceOp::Fill { dst, .. } => fix(dst),
            DeviceOp::Gemm(_) => {}
        }
    }
    program
}

pub(super) fn run(r: &mut Runner<'_>, node: &Node, tactic: &Tactic, ins: &mut [Option<Var>]) -> Result<Vec<Var>> {
    let DeviceRef::Cuda(cuda) = r.engine.device.clone() else { return Err(internal!("counting needs a CUDA device")) };
    let def = node.op.def();
    let host = def.host_inputs();
    let (mut addresses, mut facts, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for (i, v) in ins.iter_mut().enumerate() {
        let Some(v) = v else {
            addresses.push(0);
            facts.push(None);
            known.push(None);
            continue;
        };
        let elements = if host.contains(&i) { Some(r.to_host(v)?) } else { None };
        addresses.push(r.materialize(v)?);
        facts.push(Some(match &elements {
            Some(t) => Fact::of_const(t.clone()),
            None => Fact::new(v.desc.dtype, v.desc.dims.as_slice()),
        }));
        known.push(elements);
    }
    let refs: Vec<Option<&Fact>> = facts.iter().map(|f| f.as_ref()).collect();
    let out = def.infer(&InferCx::new(&refs))?;
    let mut problem = Problem {
        inputs: ins.iter().map(|v| v.as_ref().map(|v| v.desc.clone())).collect(),
        outputs: out
            .iter()
            .map(|f| TensorDesc {
                dtype: f.dtype,
                dims: f.shape.iter().map(|d| d.as_const().unwrap_or(0).max(0) as usize).collect(),
            })
            .collect(),
        known,
    };
    let n_out = problem.outputs.len();
    let program = as_outputs(def.count_program(tactic, &problem, cuda.props())?, n_out);
    let mut count = CudaStep::new(&cuda, program, tactic, &r.engine.kernels)?;
    let n_counts = def.n_counts();
    let mut counts = r.fresh(TensorDesc { dtype: crate::base::DType::I64, dims: vec![n_counts] })?;
    let counts_at = r.materialize(&mut counts)?;
    let bytes = |n: usize| TensorDesc { dtype: crate::base::DType::U8, dims: vec![n.max(1)] };
    let mut work = r.fresh(bytes(count.work_bytes))?;
    let work_at = r.materialize(&mut work)?;
    let mut outputs = vec![0u64; n_out];
    outputs.extend((0..n_counts).map(|k| counts_at + 8 * k as u64));
    {
        let _current = cuda.enter()?;
        // SAFETY: operands, numbers and scratch have the sizes that the problem says.
        unsafe { count.run(&StepAddresses { inputs: &addresses, outputs: &outputs, work: work_at }, r.stream)? };
    }
    let numbers = r.to_host(&mut counts)?.to_i64s();
    let shapes = def.counted_shapes(&problem, &numbers)?;
    ensure!(shapes.len() == n_out, Internal, "{} shapes for {n_out} outputs", shapes.len());
    let mut vars = Vec::new();
    for (d, shape) in problem.outputs.iter_mut().zip(shapes) {
        d.dims = shape;
        vars.push(r.fresh(d.clone())?);
    }
    if problem.outputs.iter().all(|d| d.numel() == 0) {
        return Ok(vars);
    }
    let program = def.cuda_program(tactic, &problem, cuda.props())?;
    let mut write = CudaStep::new(&cuda, program, tactic, &r.engine.kernels)?;
    ensure!(write.work_bytes <= count.work_bytes, Internal, "writing needs more scratch than counting");
    let outputs: Vec<u64> = vars.iter().map(|v| v.address.unwrap_or(0)).collect();
    let _current = cuda.enter()?;
    // SAFETY: as above, and the outputs were just taken.
    unsafe { write.run(&StepAddresses { inputs: &addresses, outputs: &outputs, work: work_at }, r.stream)? };
    Ok(vars)
}
