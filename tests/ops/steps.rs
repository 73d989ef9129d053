//! Runs one operator by its reference and by its CPU step on the same random data and compares.

use sinter::base::{DType, Fact, Result, Tensor};
use sinter::ops::{CpuArgs, EvalCx, InferCx, Op, PackCache, Packed, Problem, TensorDesc};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Numbers in [-1, 1) that depend on the seed only.
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub fn random(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let n = shape.iter().product();
    let t = Tensor::from_slice(shape, &values(n, seed));
    if dtype.is_float() {
        return t.cast(dtype);
    }
    let scaled: Vec<f32> = t.slice::<f32>().iter().map(|v| v * 100.0).collect();
    Tensor::from_slice(shape, &scaled).cast(dtype)
}

/// Facts of the outputs for these inputs.
pub fn infer(op: &Op, inputs: &[Option<Tensor>]) -> Result<Vec<Fact>> {
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.clone().map(|t| Fact::of_const(Arc::new(t)))).collect();
    let refs: Vec<Option<&Fact>> = facts.iter().map(|f| f.as_ref()).collect();
    op.def().infer(&InferCx::new(&refs))
}

/// The reference's outputs.
pub fn eval(op: &Op, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>> {
    let out = infer(op, inputs)?;
    let refs: Vec<Option<&Tensor>> = inputs.iter().map(|t| t.as_ref()).collect();
    op.def().eval(&EvalCx { inputs: &refs, outputs: &out })
}

/// Packs by slot and counts.
#[derive(Default)]
pub struct Packs {
    slots: RefCell<HashMap<String, Packed>>,
    pub n_made: RefCell<usize>,
}

impl PackCache for Packs {
    fn get_or_pack(&self, slot: &str, make: &mut dyn FnMut() -> Packed) -> Packed {
        let mut slots = self.slots.borrow_mut();
        slots
            .entry(slot.to_string())
            .or_insert_with(|| {
                *self.n_made.borrow_mut() += 1;
                make()
            })
            .clone()
    }
}

/// The problem of these inputs; those in `known` count as constants.
pub fn problem(op: &Op, inputs: &[Option<Tensor>], known: &[usize]) -> Result<Problem> {
    let desc = |dtype, dims: &[usize]| TensorDesc { dtype, dims: dims.to_vec() };
    let outputs = infer(op, inputs)?;
    Ok(Problem {
        inputs: inputs.iter().map(|t| t.as_ref().map(|t| desc(t.dtype(), t.shape()))).collect(),
        outputs: outputs.iter().map(|f| desc(f.dtype, &f.shape.concrete().expect("inputs are concrete"))).collect(),
        known: inputs.iter().enumerate().map(|(i, t)| t.clone().filter(|_| known.contains(&i)).map(Arc::new)).collect(),
    })
}

/// The problem of these inputs, operands of the host known, with the shapes of these outputs.
pub fn problem_of_outputs(c: &super::cases::Case, outputs: &[Tensor]) -> Problem {
    let desc = |t: &Tensor| TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() };
    let known = c.known();
    Problem {
        inputs: c.inputs.iter().map(|t| t.as_ref().map(desc)).collect(),
        outputs: outputs.iter().map(desc).collect(),
        known: c.inputs.iter().enumerate().map(|(i, t)| t.clone().filter(|_| known.contains(&i)).map(Arc::new)).collect(),
    }
}

/// The CPU step's outputs, or `None` when the operator leaves this problem to the reference. The memory around each
/// output is checked to be untouched.
pub fn cpu(op: &Op, inputs: &[Option<Tensor>], known: &[usize], packs: &Packs) -> Result<Option<Vec<Tensor>>> {
    const GUARD: usize = 64;
    let p = problem(op, inputs, known)?;
    let Some(step) = op.def().cpu(&p, packs)? else { return Ok(None) };
    let buffer = |bytes: usize| Tensor::from_slice(&[bytes + 2 * GUARD], &vec![0xA5u8; bytes + 2 * GUARD]);
    let mut outputs: Vec<Tensor> = p.outputs.iter().map(|d| buffer(d.bytes())).collect();
    let mut work = buffer(step.workspace());
    let at = |t: &mut Tensor| t.bytes_mut()[GUARD..].as_mut_ptr();
    let addresses: Vec<*mut u8> = outputs.iter_mut().map(at).collect();
    let sources: Vec<*const u8> =
        inputs.iter().map(|t| t.as_ref().map_or(std::ptr::null(), |t| t.bytes().as_ptr())).collect();
    // SAFETY: all addresses hold what the problem says, and live through the call.
    unsafe { step.run(&CpuArgs { inputs: &sources, outputs: &addresses, work: at(&mut work) }) };
    let mut result = Vec::new();
    for (t, d) in outputs.iter().zip(&p.outputs) {
        let bytes = t.bytes();
        let (body, end) = bytes[GUARD..].split_at(d.bytes());
        assert!(bytes[..GUARD].iter().chain(end).all(|b| *b == 0xA5), "the step wrote outside of an output");
        result.push(Tensor::from_bytes(d.dtype, &d.dims, body)?);
    }
    Ok(Some(result))
}

/// Largest difference, relative to the larger of 1 and the expected value; integers must be equal.
pub fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{what}: type or shape");
    if !got.dtype().is_float_like() {
        assert_eq!(got.to_i64s(), want.to_i64s(), "{what}");
        return;
    }
    for (i, (g, w)) in got.to_f64s().iter().zip(want.to_f64s()).enumerate() {
        let same = *g == w || (g.is_nan() && w.is_nan());
        let error = (g - w).abs() / w.abs().max(1.0);
        assert!(same || error <= tolerance, "{what}: element {i}: expected {w}, got {g} (error {error:e})");
    }
}

/// The CPU step gives what the reference gives, with the operands in `known` constant and again with none. Returns
/// whether there was a step.
pub fn check_cpu(what: &str, op: &Op, inputs: &[Option<Tensor>], known: &[usize], tolerance: f64) -> bool {
    let want = eval(op, inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut had = true;
    for known in [known, &[]] {
        let got = cpu(op, inputs, known, &Packs::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
        match got {
            Some(got) => {
                assert_eq!(got.len(), want.len(), "{what}: outputs");
                for (g, w) in got.iter().zip(&want) {
                    assert_close(what, g, w, tolerance);
                }
            }
            None => had = false,
        }
    }
    had
}
