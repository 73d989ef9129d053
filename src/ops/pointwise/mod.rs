//! Element-wise computation with numpy broadcasting: every element-wise operator of ONNX, alone or fused.
//!
//! A [`Pointwise`] node applies one [`Program`] to each element of its broadcast inputs. Types are exact: an operand's
//! type is the one that the program states, and every conversion is an instruction. The CPU step interprets the program
//! over blocks; CUDA compiles it into one kernel. Shape arithmetic is this same operator: small integer results that follow
//! from known operands are known symbolically (`known.rs`), so that it costs nothing at run time.

mod batch_norm;
mod cast;
pub mod codegen;
mod contrib;
mod cpu;
mod cuda;
mod eval;
mod func;
pub mod half;
mod known;
mod layout;
mod onnx;
mod program;
mod quantize;

pub use cpu::{RowOperand, RowProgram};
pub(crate) use cast::numbered_type;
pub use func::Func;
pub use program::{Instr, Program, Reg};

use crate::base::error::ResultExt;
use crate::base::{Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::{HalfRole, 
    CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions,
};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// One program applied to each element of its broadcast inputs; as many outputs as the program has.
    pub struct Pointwise {
        pub program: Program,
    }
}

op_home!(Pointwise, "Pointwise", onnx::TABLE);

impl OpDef for Pointwise {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let p = &self.program;
        p.check()?;
        ensure!(
            cx.n_inputs() == p.n_inputs(),
            InvalidArgument,
            "{}: expected {} inputs, got {}",
            p.label(),
            p.n_inputs(),
            cx.n_inputs()
        );
        let mut shape = Shape::default();
        let mut inputs = Vec::with_capacity(p.n_inputs());
        for (i, dtype) in p.inputs.iter().enumerate() {
            let f = cx.input(i)?;
            ensure!(f.dtype == *dtype, InvalidArgument, "{} input {i}: expected {dtype}, got {f}", p.label());
            shape = shape.broadcast(&f.shape).with_context(|| format!("{} input {i}", p.label()))?;
            inputs.push(f);
        }
        let mut outputs: Vec<Fact> =
            (0..p.outputs.len()).map(|i| Fact::new(p.output_dtype(i), shape.clone())).collect();
        known::fill(p, &inputs, &mut outputs);
        Ok(outputs)
    }

    fn half(&self, n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        (half::is_safe(&self.program)).then(|| (HalfRole::Follows, (0..n_inputs).collect()))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let inputs: Vec<&Tensor> = (0..self.program.n_inputs()).map(|i| cx.input(i)).collect::<Result<_>>()?;
        eval::eval(&self.program, &inputs, &cx.outputs[0].shape.to_concrete()?)
    }

    /// Any input of output 0's size: an element is read before the same element is written.
    fn in_place(&self, i: usize) -> bool {
        self.program.inputs.get(i).is_some_and(|d| d.size() == self.program.output_dtype(0).size())
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        Ok(cpu::step(&self.program, p))
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(&self.program, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::launches(&self.program, tactic, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        let n_calls = self.program.instrs.iter().filter(|i| !matches!(i.func, Func::Const | Func::Cast | Func::CastMode)).count();
        (n_calls * p.outputs[0].numel()) as f64
    }
}
