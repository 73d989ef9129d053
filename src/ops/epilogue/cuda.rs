//! Epilogues on CUDA: inside the kernel where its coordinates can say which element an operand reads, otherwise as a
//! generated pointwise kernel that follows in the same step.
//!
//! A kernel numbers its results by five coordinates and reads operand j at `sum of coordinate * stride`
//! (`kernels/common/epilogue.cuh`). Which of the two ways is taken is decided when tactics are enumerated and is part of
//! the tactic's parameters, so that a launch at other shapes does the same or fails.

use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::pointwise::{Func, Pointwise, Program, codegen};
use crate::ops::{
    Arg, DeviceOp, KernelSpec, Launch, OpDef, Problem, StepProgram, Tactic, TacticOptions, TensorDesc, i64_struct,
};
use crate::{ensure, err, internal};

/// Operands that an epilogue inside a kernel can have.
pub const MAX_EXTRA: usize = 4;

/// Strides of each operand along the five coordinates of a kernel, in elements.
pub type ExtraStrides = Vec<[i64; 5]>;

/// How a node's epilogue is run.
#[derive(Clone, Debug)]
pub enum Fusion {
    /// There is none.
    None,
    /// Inside the kernel: the text of its `generated.cuh`.
    Inside(String),
    /// By this tactic of a pointwise node, whose input 0 is the result.
    After(Box<Tactic>),
}

/// One node's epilogue: its program, and where its operands stand.
#[derive(Clone, Copy, Debug)]
pub struct CudaEpilogue<'a> {
    pub program: Option<&'a Program>,
    /// First operand of the program among the node's inputs.
    pub first: usize,
    /// Shape under which the bias (input 2) broadcasts to the output.
    pub bias_dims: &'a [usize],
}

impl CudaEpilogue<'_> {
    /// Number of further operands.
    pub fn n_extra(&self) -> usize {
        self.program.map_or(0, |p| p.n_inputs().saturating_sub(1))
    }

    /// Shapes of the further operands, in order.
    pub fn shapes<'p>(&self, p: &'p Problem) -> Option<Vec<&'p [usize]>> {
        (0..self.n_extra()).map(|i| p.input(self.first + i).map(|d| d.dims.as_slice())).collect()
    }

    /// The way for this problem. `inside` says that the kernel's coordinates reach every operand, and that the kernel can
    /// run an epilogue. `None`: no way on this device.
    pub fn plan(&self, p: &Problem, inside: bool, dev: &DeviceProps, opt: &TacticOptions) -> Option<Fusion> {
        let Some(program) = self.program else { return Some(Fusion::None) };
        if inside && self.n_extra() <= MAX_EXTRA {
            if let Some(text) = codegen::epilogue(program, accumulator(result_type(p))) {
                return Some(Fusion::Inside(text));
            }
        }
        self.after(p, false, dev, opt)
    }

    /// The way that leaves the epilogue, and the bias when `with_bias`, to a pointwise kernel.
    pub fn after(&self, p: &Problem, with_bias: bool, dev: &DeviceProps, opt: &TacticOptions) -> Option<Fusion> {
        let (op, sub) = self.pointwise(p, with_bias)?;
        let Some(op) = op else { return Some(Fusion::None) };
        let tactic = op.cuda_tactics(&sub, dev, opt).into_iter().next()?;
        Some(Fusion::After(Box::new(tactic)))
    }

    /// The pointwise node that follows, when there is anything to do, and its problem.
    fn pointwise(&self, p: &Problem, with_bias: bool) -> Option<(Option<Pointwise>, Problem)> {
        let out = p.outputs.first()?.clone();
        let dtype = result_type(p);
        let bias = p.input(2).filter(|_| with_bias);
        let mut inputs = vec![Some(TensorDesc { dtype, dims: out.dims.clone() })];
        let mut known = vec![None];
        let mut program = self.program.cloned();
        if bias.is_some() {
            inputs.push(Some(TensorDesc { dtype, dims: self.bias_dims.to_vec() }));
            known.push(None);
            let add = Program::single(Func::Add, &[dtype, dtype]).ok()?;
            program = Some(match program {
                Some(p) => p.inline(0, &add, 0).ok()?,
                None => add,
            });
        }
        for i in 0..self.n_extra() {
            inputs.push(Some(p.input(self.first + i)?.clone()));
            known.push(None);
        }
        Some((program.map(|program| Pointwise { program }), Problem { inputs, outputs: vec![out], known }))
    }

    /// Appends the launches of `tactic` (of [`Fusion::After`]) to a step whose result lies at `result`.
    pub fn append_after(
        &self,
        step: &mut StepProgram,
        tactic: &Tactic,
        first_kernel: usize,
        result: &Arg,
        with_bias: bool,
        p: &Problem,
        dev: &DeviceProps,
    ) -> Result<()> {
        let Some((Some(op), sub)) = self.pointwise(p, with_bias) else {
            return Err(internal!("tactic {} follows an epilogue that is not there", tactic.name));
        };
        let inner = op.cuda_program(tactic, &sub, dev)?;
        let base = step.workspace.next_multiple_of(256);
        let with_bias = with_bias && p.input(2).is_some();
        let place = |a: &Arg| match a {
            Arg::In(0) => result.clone(),
            Arg::In(1) if with_bias => Arg::In(2),
            Arg::In(i) => Arg::In(self.first + i - 1 - with_bias as usize),
            Arg::Work(at) => Arg::Work(base + at),
            other => other.clone(),
        };
        for op in inner.ops {
            step.ops.push(match op {
                DeviceOp::Launch(l) => DeviceOp::Launch(Launch {
                    kernel: first_kernel + l.kernel,
                    args: l.args.iter().map(place).collect(),
                    ..l
                }),
                DeviceOp::Copy { dst, src, bytes } => DeviceOp::Copy { dst: place(&dst), src: place(&src), bytes },
                DeviceOp::Fill { dst, value, bytes } => DeviceOp::Fill { dst: place(&dst), value, bytes },
                DeviceOp::Gemm(_) => return Err(internal!("a pointwise node launches a matrix product")),
            });
        }
        step.workspace = base + inner.workspace;
        Ok(())
    }

    /// The last five arguments of a kernel: the operands' addresses and their strides.
    pub fn args(&self, strides: &[[i64; 5]]) -> Vec<Arg> {
        let mut args: Vec<Arg> = (0..MAX_EXTRA)
            .map(|j| if j < strides.len() { Arg::In(self.first + j) } else { Arg::Null })
            .collect();
        let zero = [0; 5];
        args.push(i64_struct((0..MAX_EXTRA).flat_map(|j| *strides.get(j).unwrap_or(&zero))));
        args
    }
}

impl Fusion {
    /// Number stored in tactic parameters.
    pub fn code(&self) -> i64 {
        match self {
            Fusion::None => 0,
            Fusion::Inside(_) => 1,
            Fusion::After(_) => 2,
        }
    }

    /// Ending of a tactic's name.
    pub fn text(&self) -> &'static str {
        match self {
            Fusion::None => "",
            Fusion::Inside(_) => "_epilogue",
            Fusion::After(_) => "_then",
        }
    }

    /// Defines EPILOGUE, and the generated text.
    pub fn define(&self, spec: KernelSpec) -> KernelSpec {
        match self {
            Fusion::Inside(text) => KernelSpec { generated: text.clone(), ..spec.define("EPILOGUE", 1) },
            _ => spec.define("EPILOGUE", 0),
        }
    }

    /// Completes a tactic of an operator: its own parameters and kernels come first, those of a following pointwise
    /// kernel after them. `params` ends with the code of the way and the number of own kernels.
    pub fn complete(&self, mut tactic: Tactic) -> Tactic {
        tactic.params.push(self.code());
        tactic.params.push(tactic.kernels.len() as i64);
        if let Fusion::After(after) = self {
            tactic.kernels.extend(after.kernels.iter().cloned());
            tactic.params.extend(&after.params);
        }
        tactic
    }
}

/// The parts of a tactic that [`Fusion::complete`] made.
#[derive(Clone, Debug)]
pub struct Parts {
    /// See [`Fusion::code`].
    pub code: i64,
    /// Own kernels.
    pub n_kernels: usize,
    /// The following pointwise kernel.
    pub after: Option<Tactic>,
}

impl Parts {
    /// Index of the last own kernel, which follows at least one other.
    pub fn last_kernel(&self, tactic: &Tactic) -> Result<usize> {
        ensure!(self.n_kernels >= 2, CorruptData, "tactic {} has not the kernels that it needs", tactic.name);
        Ok(self.n_kernels - 1)
    }
}

/// Takes a tactic apart that has `n_params` parameters of its own.
pub fn parts(tactic: &Tactic, n_params: usize) -> Result<Parts> {
    let bad = || err!(CorruptData, "tactic {} has not the parameters that it needs", tactic.name);
    let (code, n_kernels) = match tactic.params.get(n_params..) {
        Some([code, n, ..]) => (*code, usize::try_from(*n).map_err(|_| bad())?),
        _ => return Err(bad()),
    };
    ensure!((0..=2).contains(&code) && n_kernels <= tactic.kernels.len(), CorruptData, "{}", bad().message);
    let after = (code == 2).then(|| Tactic {
        name: tactic.name.clone(),
        source: tactic.source,
        kernels: tactic.kernels[n_kernels..].to_vec(),
        params: tactic.params[n_params + 2..].to_vec(),
    });
    Ok(Parts { code, n_kernels, after })
}

/// Element type of the result before the epilogue.
pub fn result_type(p: &Problem) -> DType {
    p.input(0).map_or(DType::F32, |d| d.dtype)
}

/// What sums of a type are kept in.
pub fn accumulator(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Strides of a dense operand inside the output's dimensions, in elements; 0 where it is repeated.
pub fn strides_in(dims: &[usize], out: &[usize]) -> Vec<i64> {
    let mut strides = vec![0; out.len()];
    let mut step = 1i64;
    for (i, d) in dims.iter().enumerate().rev() {
        if *d != 1 {
            strides[out.len() - dims.len() + i] = step;
        }
        step *= *d as i64;
    }
    strides
}

/// The one stride of neighbouring dimensions taken as a single flat one, when there is one.
pub fn joint_stride(dims: &[usize], strides: &[i64]) -> Option<i64> {
    let mut real = dims.iter().zip(strides).filter(|(d, _)| **d != 1).rev();
    let Some((d, first)) = real.next() else { return Some(0) };
    let mut want = first * *d as i64;
    for (d, s) in real {
        if *s != want {
            return None;
        }
        want *= *d as i64;
    }
    Some(*first)
}

/// `magic` and `shift` of `kernels/common/index.cuh` for division by `d` (at least 1, below 2^31).
pub fn magic(d: usize) -> (i32, i32) {
    let d = (d as u64).max(1);
    let shift = 64 - (d - 1).leading_zeros();
    let magic = ((((1u64 << shift) - d) << 32) / d + 1) as u32;
    (magic as i32, shift as i32)
}
