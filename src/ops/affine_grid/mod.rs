//! The positions that an affine transformation of a regular grid gives. Inputs: theta [n, r, r+1], size [r+2] (integers,
//! host: n, c and the spatial sizes). Output: [n, spatial.., r], innermost axis first, for r = 2 or 3.

use crate::base::real::{Real, reals, tensor_of};
use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::per_output::{program, tactic};
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, OpDef, Problem, StepProgram, Tactic, TacticOptions, cuda_type, fresh_dim,
    i64_struct, onnx,
};
use crate::{dispatch_real, ensure, internal, op_home, op_struct};

op_struct! {
    /// The positions that an affine transformation of a regular grid gives. Inputs: theta, size (host).
    pub struct AffineGrid {
        /// -1 and 1 are the centers of the outermost elements instead of their outer edges.
        pub align_corners: bool,
    }
}

op_home!(AffineGrid, "AffineGrid", &[onnx("AffineGrid", 20, import)]);

impl AffineGrid {
    /// Where element `i` of `n` lies between -1 and 1.
    fn position<R: Real>(&self, i: usize, n: usize) -> R {
        let (one, two) = (R::of(1.0), R::of(2.0));
        let (i, n) = (R::of(i as f64), R::of(n as f64));
        match self.align_corners {
            true if n > one => two * i / (n - one) - one,
            true => -one,
            false => (two * i + one) / n - one,
        }
    }

    fn positions<R: Real>(&self, theta: &[R], y: &[usize]) -> Vec<R> {
        let r = y.len() - 2;
        let mut out = Vec::with_capacity(y.iter().product());
        for image in 0..y[0] {
            let theta = &theta[image * r * (r + 1)..][..r * (r + 1)];
            crate::ops::transpose::strided::for_each_index(&y[1..=r], |_, at| {
                for row in theta.chunks_exact(r + 1) {
                    let mut sum = row[r];
                    for (k, t) in row[..r].iter().enumerate() {
                        // Innermost axis first.
                        let d = r - 1 - k;
                        sum += *t * self.position::<R>(at[d], y[1 + d]);
                    }
                    out.push(sum);
                }
            });
        }
        out
    }
}

impl OpDef for AffineGrid {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let (theta, size) = (cx.input(0)?, cx.input(1)?);
        cx.float(0)?;
        cx.rank(0, 3)?;
        ensure!(
            size.dtype.is_int() && size.rank() == 1,
            InvalidArgument,
            "input 1: expected a vector of integers, got {size}"
        );
        let r = theta.shape[1].as_const().or(size.shape[0].as_const().map(|n| n - 2));
        let r = match r {
            Some(r @ 2..=3) => r,
            _ => return Err(crate::err!(Unsupported, "input 0: expected [n, 2, 3] or [n, 3, 4], got {}", theta.shape)),
        };
        let fits = |d: &Dim, want: i64| d.as_const().is_none_or(|d| d == want);
        ensure!(
            fits(&theta.shape[1], r) && fits(&theta.shape[2], r + 1) && fits(&size.shape[0], r + 2),
            InvalidArgument,
            "theta {} does not go with {} sizes",
            theta.shape,
            size.shape
        );
        let mut shape = vec![theta.shape[0].clone()];
        match cx.dims(1)? {
            Some(d) => {
                let n = (theta.shape[0].as_const(), d[0].as_const());
                if let (Some(a), Some(b)) = n {
                    ensure!(a == b, InvalidArgument, "{a} matrices for a batch of {b}");
                }
                ensure!(
                    d[2..].iter().all(|d| d.as_const().is_none_or(|d| (0..=i32::MAX as i64).contains(&d))),
                    InvalidArgument,
                    "a size in {size} is out of range"
                );
                shape.extend_from_slice(&d[2..]);
            }
            None => shape.extend((0..r).map(|_| fresh_dim("affine_grid"))),
        }
        shape.push(Dim::from(r));
        Ok(vec![Fact::new(theta.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let theta = cx.input(0)?;
        let shape = cx.output(0)?.shape().to_vec();
        Ok(vec![dispatch_real!(theta.dtype(), R => {
            tensor_of(theta.dtype(), &shape, &self.positions::<R>(&reals::<R>(theta), &shape))
        })])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(theta) = p.input(0) else { return vec![] };
        let r = p.outputs[0].dims.len() - 2;
        let spec = KernelSpec::new("affine_grid.cu")
            .define_type("T_IN", theta.dtype)
            .define("RANK", r)
            .define("ALIGN_CORNERS", self.align_corners as i64);
        let align = if self.align_corners { "_align" } else { "" };
        tactic(format!("affine_grid/{r}d{align}_{}", cuda_type(theta.dtype)), spec)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let y = p.outputs.first().ok_or_else(|| internal!("an affine grid without a result"))?;
        let r = y.dims.len() - 2;
        let mut out = [1usize; 3];
        out[3 - r..].copy_from_slice(&y.dims[1..=r]);
        let params = std::iter::once(y.dims[0]).chain(out).map(|v| v as i64);
        Ok(program(y.numel() / r, vec![Arg::In(0), Arg::Out(0), i64_struct(params)], dev))
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let align_corners = cx.flag("align_corners", false)?;
    Ok(vec![cx.add(AffineGrid { align_corners }, &inputs)?])
}
