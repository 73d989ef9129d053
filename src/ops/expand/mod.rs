//! Broadcasts to a shape, both ways (numpy rules): the result may be larger than the operand. Inputs: x, shape (host).

use crate::base::{Fact, Result, Tensor};
use crate::base::tensor::strides_of;
use crate::network::ValueId;
use crate::ops::fill::shape_from_operand;
use crate::ops::shape::{MAX_KNOWN, with_known};
use crate::ops::transpose::cpu::ViewStep;
use crate::ops::transpose::cuda;
use crate::ops::transpose::strided::View;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx};
use crate::{op_home, op_struct};

op_struct! {
    /// Broadcasts to a shape. Inputs: x, shape (host).
    pub struct Expand {
    }
}

op_home!(Expand, "Expand", &[onnx("Expand", 8, import)]);

impl Expand {
    /// The copy from an input of these dimensions to an output that it broadcasts to.
    pub fn view(input: &[usize], output: &[usize]) -> View {
        let strides = strides_of(input);
        let missing = output.len() - input.len();
        let stride = |k: usize| match k.checked_sub(missing) {
            Some(i) if input[i] == output[k] => strides[i] as i64,
            _ => 0,
        };
        View { dims: output.to_vec(), strides: (0..output.len()).map(stride).collect(), offset: 0 }
    }
}

impl OpDef for Expand {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let x = cx.input(0)?;
        let shape = x.shape.broadcast(&shape_from_operand(cx, 1, "Expand")?)?;
        let known = match (x.as_dims(), shape.numel().as_const()) {
            (Some(d), Some(n)) if d.len() as i64 == n => Some(d),
            (Some(d), Some(n)) if d.len() == 1 && (0..=MAX_KNOWN as i64).contains(&n) => {
                Some(vec![d[0].clone(); n as usize])
            }
            _ => None,
        };
        Ok(vec![with_known(Fact::new(x.dtype, shape), known)])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        Expand::view(x.shape(), out.shape()).copy(x, &mut out);
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        let Some(x) = p.input(0) else { return Ok(None) };
        Ok(ViewStep::boxed("expand", p, &Expand::view(&x.dims, &p.outputs[0].dims)))
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).map(|x| Expand::view(&x.dims, &p.outputs[0].dims))) else { return vec![] };
        cuda::tactics(&view, x.dtype.size(), opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).map(|x| Expand::view(&x.dims, &p.outputs[0].dims))) else {
            return Err(crate::err!(InvalidState, "an operand of a expand is not known"));
        };
        cuda::program(tactic, &view, x.dtype.size(), dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, shape) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.add(Expand {}, &[x, shape])?])
}
