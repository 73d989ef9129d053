//! Passes: each alone on small graphs (structure and numbers), refusals, and all of them on random graphs.

mod activations;
mod attention;
mod channels_last;
mod driver;
mod fusion;
mod norms;
mod pads;
mod precision;
mod random;
mod shapes;
mod transposes;
mod weights;

use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::network::{Graph, ValueId};
use sinter::ops::Op;
use sinter::ops::conv::Conv;
use sinter::ops::matmul::MatMul;
use sinter::ops::pointwise::{Func, Pointwise, Program};
use sinter::ops::window::AutoPad;
use sinter::passes::{Pass, PassOptions, Report, Target, run_list};
use std::collections::HashMap;
use std::sync::Arc;

/// Folding and fusing change the order of f32 roundings: a few units in the last place of sums of some hundred terms.
pub const F32_ROUNDING: f64 = 2e-5;
/// One or two roundings to f16 at each step.
pub const F16_ROUNDING: f64 = 2e-2;

/// A small generator, so that every run tests the same.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| self.unit()).collect();
        Tensor::from_slice(shape, &data)
    }
}

/// A graph under construction.
pub struct Build {
    pub g: Graph,
    pub rng: Rng,
}

impl Build {
    pub fn new() -> Build {
        Build { g: Graph::new("test"), rng: Rng(7) }
    }

    pub fn input(&mut self, name: &str, shape: &[Dim]) -> ValueId {
        self.g.add_input(name, Fact::new(DType::F32, Shape(shape.to_vec()))).unwrap()
    }

    pub fn x(&mut self, shape: &[usize]) -> ValueId {
        let dims: Vec<Dim> = shape.iter().map(|d| Dim::from(*d)).collect();
        let name = format!("x{}", self.g.inputs().len());
        self.input(&name, &dims)
    }

    /// A constant of random elements.
    pub fn c(&mut self, shape: &[usize]) -> ValueId {
        let t = self.rng.tensor(shape);
        self.k(t)
    }

    pub fn k(&mut self, t: Tensor) -> ValueId {
        let name = format!("c{}", self.g.n_values());
        self.g.add_const(&name, Arc::new(t))
    }

    pub fn num(&mut self, v: f32) -> ValueId {
        self.k(Tensor::scalar(v))
    }

    pub fn ints(&mut self, v: &[i64]) -> ValueId {
        self.k(Tensor::from_slice(&[v.len()], v))
    }

    pub fn node(&mut self, name: &str, op: impl Into<Op>, ins: &[ValueId]) -> ValueId {
        let ins: Vec<_> = ins.iter().map(|v| Some(*v)).collect();
        self.g.add_node(name, op.into(), &ins).unwrap()[0]
    }

    pub fn pw(&mut self, name: &str, f: Func, ins: &[ValueId]) -> ValueId {
        let types: Vec<DType> = ins.iter().map(|v| self.g.fact(*v).dtype).collect();
        self.node(name, Pointwise { program: Program::single(f, &types).unwrap() }, ins)
    }

    pub fn cast(&mut self, name: &str, to: DType, x: ValueId) -> ValueId {
        let from = self.g.fact(x).dtype;
        let p = Program::parse(&format!("{from};cast(0):{to};>1")).unwrap();
        self.node(name, Pointwise { program: p }, &[x])
    }

    /// A convolution of [n, c, h, w] with random weights and no bias.
    pub fn conv(&mut self, name: &str, x: ValueId, m: usize, k: usize, op: Conv) -> ValueId {
        let c = self.g.fact(x).shape[1].as_const().unwrap() as usize;
        let w = self.c(&[m, c / op.group as usize, k, k]);
        self.node(name, op, &[x, w])
    }

    pub fn out(mut self, v: ValueId) -> Graph {
        self.g.add_output("y", v).unwrap();
        self.g.verify().unwrap();
        self.g
    }
}

pub fn conv2d(pad: i64) -> Conv {
    Conv {
        strides: vec![1, 1],
        pads: vec![pad; 4],
        dilations: vec![1, 1],
        group: 1,
        auto_pad: AutoPad::NotSet,
        order: Default::default(),
        epilogue: None,
    }
}

pub fn matmul() -> MatMul {
    MatMul { trans_a: false, trans_b: false, alpha: 1.0, epilogue: None }
}

/// Number of nodes of an operator.
pub fn count(g: &Graph, op: &str) -> usize {
    g.node_ids().iter().filter(|n| g.node(**n).op.name() == op).count()
}

/// Names of all nodes, in order.
pub fn names(g: &Graph) -> Vec<String> {
    g.order().unwrap().iter().map(|n| g.node(*n).name.clone()).collect()
}

/// The only node of an operator.
pub fn the<'a>(g: &'a Graph, op: &str) -> &'a sinter::network::Node {
    let mut found = g.node_ids().into_iter().filter(|n| g.node(*n).op.name() == op);
    let first = found.next().unwrap_or_else(|| panic!("there is no {op} in\n{g}"));
    assert!(found.next().is_none(), "there is more than one {op} in\n{g}");
    g.node(first)
}

/// Runs passes in order on a copy, and checks that numbers stay.
pub fn run(g: &Graph, passes: Vec<Box<dyn Pass>>) -> (Graph, Report) {
    let mut after = g.clone();
    let report = run_list(&mut after, &passes, &PassOptions::new(Target::Portable), 4).unwrap();
    after.verify().unwrap();
    assert_same(g, &after, F32_ROUNDING);
    (after, report)
}

/// Runs one pass on a copy; see [`run`].
pub fn run1(g: &Graph, pass: impl Pass + 'static) -> Graph {
    run(g, vec![Box::new(pass)]).0
}

/// The pass changes nothing and gives a reason that contains `why`.
pub fn refused(g: &Graph, pass: impl Pass + 'static, why: &str) {
    let (after, report) = run(g, vec![Box::new(pass)]);
    assert_eq!(g.to_string(), after.to_string());
    assert!(report.refusals.iter().any(|r| r.contains(why)), "no refusal with {why:?} in {:?}", report.refusals);
}

/// Random inputs by name; symbols become small sizes, the same for the same symbol.
pub fn random_inputs(g: &Graph, rng: &mut Rng) -> HashMap<String, Arc<Tensor>> {
    let mut sizes: HashMap<String, usize> = HashMap::new();
    let mut inputs = HashMap::new();
    for p in g.inputs() {
        let f = g.fact(p.value);
        let shape: Vec<usize> = f
            .shape
            .iter()
            .map(|d| match d.as_const() {
                Some(v) => v as usize,
                None => *sizes.entry(d.to_string()).or_insert_with(|| 1 + rng.below(3)),
            })
            .collect();
        let t = rng.tensor(&shape).cast(f.dtype);
        inputs.insert(p.name.clone(), Arc::new(t));
    }
    inputs
}

/// Both graphs give the same outputs on random inputs: |a - b| <= tolerance * (1 + largest magnitude).
pub fn assert_same(a: &Graph, b: &Graph, tolerance: f64) {
    for seed in 0..2 {
        let inputs = random_inputs(a, &mut Rng(seed));
        let (x, y) = (a.eval(&inputs).unwrap(), b.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{b}")));
        assert_eq!(x.len(), y.len());
        for (port, (x, y)) in a.outputs().iter().zip(x.iter().zip(&y)) {
            assert_eq!((x.dtype(), x.shape()), (y.dtype(), y.shape()), "output {:?}", port.name);
            let (x, y) = (x.to_f64s(), y.to_f64s());
            let scale = 1.0 + x.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
            for (i, (p, q)) in x.iter().zip(&y).enumerate() {
                let near = p == q || (p.is_nan() && q.is_nan()) || (p - q).abs() <= tolerance * scale;
                assert!(near, "output {:?}[{i}]: {p} before, {q} after\n{a}\n{b}", port.name);
            }
        }
    }
}
