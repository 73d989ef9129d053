//! Products of complex numbers, broadcast. Inputs: a, b [.., 2] of one floating-point type, real and imaginary part side
//! by side; with `conjugate` b's imaginary part counts negative. The result has the broadcast shape.

use crate::base::{DType, Fact, Result, Shape, Tensor};
use crate::base::tensor::strides_of;
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, OnnxOp, OpDef, Problem, StepProgram, Tactic, TacticOptions, i64_struct,
    per_output,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Products of complex numbers. Inputs: a, b [.., 2].
    pub struct ComplexMul {
        pub conjugate: bool,
    }
}

op_home!(
    ComplexMul,
    "ComplexMul",
    &[
        OnnxOp { domain: "com.microsoft", name: "ComplexMul", since: 1, import },
        OnnxOp { domain: "com.microsoft", name: "ComplexMulConj", since: 1, import },
    ]
);

/// Axes that the kernel takes.
const MAX_AXES: usize = 8;

/// Strides, in numbers, of an operand over the result's axes in front of the last; 0 where it is broadcast.
fn strides(dims: &[usize], out: &[usize]) -> Vec<usize> {
    let own = strides_of(dims);
    let missing = out.len() - dims.len();
    let at = |k: usize| match k.checked_sub(missing) {
        Some(i) if dims[i] != 1 => own[i] / 2,
        _ => 0,
    };
    (0..out.len() - 1).map(at).collect()
}

impl OpDef for ComplexMul {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        cx.float(0)?;
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        ensure!(a.dtype == b.dtype, InvalidArgument, "{} times {}: the types differ", a.dtype, b.dtype);
        for x in [a, b] {
            let pairs = x.shape.last().is_some_and(|d| d.as_const().is_none_or(|d| d == 2));
            ensure!(pairs, InvalidArgument, "expected pairs of real and imaginary part in the last axis, got {x}");
        }
        let (lead_a, lead_b) = (&a.shape[..a.rank() - 1], &b.shape[..b.rank() - 1]);
        let mut shape = Shape(lead_a.to_vec()).broadcast(&Shape(lead_b.to_vec()))?;
        ensure!(shape.rank() <= MAX_AXES, Unsupported, "{shape} has more than {MAX_AXES} axes");
        shape.0.push(2.into());
        Ok(vec![Fact::new(a.dtype, shape)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (a, b, out) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
        for x in [a, b] {
            ensure!(x.shape().last() == Some(&2), InvalidArgument, "a last axis of {:?} holds no pairs", x.shape().last());
        }
        let (dims, sign) = (out.shape(), if self.conjugate { -1.0 } else { 1.0 });
        let (sa, sb) = (strides(a.shape(), dims), strides(b.shape(), dims));
        let (a, b) = (a.to_f64s(), b.to_f64s());
        let mut y = vec![0.0; out.numel()];
        for (n, pair) in y.chunks_exact_mut(2).enumerate() {
            let (mut rest, mut i, mut j) = (n, 0, 0);
            for k in (0..dims.len() - 1).rev() {
                let c = rest % dims[k];
                rest /= dims[k];
                i += c * sa[k];
                j += c * sb[k];
            }
            let (p, q, r, s) = (a[2 * i], a[2 * i + 1], b[2 * j], sign * b[2 * j + 1]);
            pair.copy_from_slice(&[p * r - q * s, p * s + q * r]);
        }
        Ok(vec![Tensor::from_slice(dims, &y).cast(out.dtype())])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let dtype = p.input(0).map_or(DType::F32, |x| x.dtype);
        let spec = KernelSpec::new("complex_mul.cu").define_type("T_DATA", dtype).define("CONJUGATE", self.conjugate as i32);
        per_output::tactic(format!("complex_mul/{dtype}"), spec)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(a), Some(b)) = (p.input(0), p.input(1)) else { return Err(err!(InvalidArgument, "two operands")) };
        let dims = &p.outputs[0].dims;
        let axes = dims.len() - 1;
        let pad = |v: &[usize]| (0..MAX_AXES).map(|k| v.get(k).copied().unwrap_or(1) as i64).collect::<Vec<_>>();
        let numbers = [&dims[..axes], &strides(&a.dims, dims), &strides(&b.dims, dims)];
        let shape = i64_struct(numbers.iter().flat_map(|v| pad(v)));
        let n = p.outputs[0].numel() / 2;
        let args = vec![Arg::In(0), Arg::In(1), Arg::Out(0), Arg::I64(n as i64), Arg::I32(axes as i32), shape];
        Ok(per_output::program(n, args, dev))
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let conjugate = cx.op_type == "ComplexMulConj";
    Ok(vec![cx.add(ComplexMul { conjugate }, &[a, b])?])
}
