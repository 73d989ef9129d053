//! Element-wise programs: functions against formulas written here, import, symbolic shapes, CPU steps against the reference.

mod cpu;
mod cuda;
mod funcs;
mod import;
mod shapes;

use sinter::base::{DType, Fact, Tensor};
use sinter::ops::pointwise::{Pointwise, Program};
use sinter::ops::{EvalCx, InferCx, OpDef};

/// Infers and evaluates a node of this program.
fn eval(program: &Program, inputs: &[&Tensor]) -> Vec<Tensor> {
    let op = Pointwise { program: program.clone() };
    let facts: Vec<Fact> = inputs.iter().map(|t| Fact::new(t.dtype(), t.shape())).collect();
    let facts: Vec<Option<&Fact>> = facts.iter().map(Some).collect();
    let outputs = op.infer(&InferCx::new(&facts)).unwrap();
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|t| Some(*t)).collect();
    op.eval(&EvalCx { inputs: &inputs, outputs: &outputs }).unwrap()
}

/// A generator of test data: same seed, same numbers.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Floats in [-4, 4), integers in [-100, 100) or [0, 200), bools.
    fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let v: Vec<f64> = (0..n)
            .map(|_| match dtype {
                DType::Bool => (self.bits() & 1) as f64,
                d if d.is_float() => (self.bits() >> 40) as f64 / (1u64 << 24) as f64 * 8.0 - 4.0,
                d if d.is_signed() => self.below(200) as f64 - 100.0,
                _ => self.below(200) as f64,
            })
            .collect();
        Tensor::from_slice(shape, &v).cast(dtype)
    }
}

#[test]
fn a_program_survives_its_text_form() {
    use sinter::ops::pointwise::Func;
    let p = Program::single(Func::Clip, &[DType::F16; 3]).unwrap();
    assert_eq!(Program::parse(&p.to_string()).unwrap(), p);
}
