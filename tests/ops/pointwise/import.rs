//! ONNX import: each element-wise operator against results written by hand.

use sinter::base::{DType, Fact, Result, Shape, Tensor};
use sinter::network::Graph;
use sinter::ops::{AttrSource, ImportCx, Op, find_onnx};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[derive(Clone)]
enum A {
    I(i64),
    F(f32),
    S(&'static str),
}
use A::{F, I, S};

/// Attributes of a node, with a record of what was read: the importer refuses a model with an attribute left over.
#[derive(Default)]
struct Attrs {
    values: HashMap<&'static str, A>,
    read: RefCell<HashSet<String>>,
}

impl Attrs {
    fn get(&self, name: &str) -> Option<&A> {
        self.read.borrow_mut().insert(name.into());
        self.values.get(name)
    }
}

impl AttrSource for Attrs {
    fn int(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.get(name).map(|a| if let I(v) = a { *v } else { panic!("{name} is no integer") }))
    }
    fn float(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.get(name).map(|a| if let F(v) = a { *v } else { panic!("{name} is no float") }))
    }
    fn string(&self, name: &str) -> Result<Option<String>> {
        Ok(self.get(name).map(|a| if let S(v) = a { v.to_string() } else { panic!("{name} is no string") }))
    }
    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        assert!(self.get(name).is_none(), "{name} is no list");
        Ok(None)
    }
    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        assert!(self.get(name).is_none(), "{name} is no list");
        Ok(None)
    }
    fn strings(&self, name: &str) -> Result<Option<Vec<String>>> {
        assert!(self.get(name).is_none(), "{name} is no list");
        Ok(None)
    }
    fn tensor(&self, name: &str) -> Result<Option<Arc<Tensor>>> {
        assert!(self.get(name).is_none(), "{name} is no tensor");
        Ok(None)
    }
}

struct Case {
    domain: &'static str,
    op: &'static str,
    opset: i64,
    attrs: Vec<(&'static str, A)>,
    inputs: Vec<Option<Tensor>>,
    n_outputs: usize,
}

fn case(op: &'static str, opset: i64, inputs: &[&Tensor]) -> Case {
    let inputs = inputs.iter().map(|t| Some((*t).clone())).collect();
    Case { domain: "", op, opset, attrs: vec![], inputs, n_outputs: 1 }
}

impl Case {
    fn attr(mut self, name: &'static str, value: A) -> Case {
        self.attrs.push((name, value));
        self
    }

    fn microsoft(mut self) -> Case {
        self.domain = "com.microsoft";
        self
    }

    fn build(&self, constants: bool) -> Result<Graph> {
        let entry = find_onnx(self.domain, self.op, self.opset)
            .unwrap_or_else(|| panic!("no importer for {} at opset {}", self.op, self.opset));
        let mut g = Graph::new("test");
        let mut inputs = Vec::new();
        for (i, t) in self.inputs.iter().enumerate() {
            inputs.push(match t {
                None => None,
                Some(t) if constants && i > 0 => Some(g.add_const(&format!("c{i}"), Arc::new(t.clone()))),
                Some(t) => Some(g.add_input(&format!("x{i}"), Fact::new(t.dtype(), Shape::from(t.shape())))?),
            });
        }
        let attrs = Attrs { values: self.attrs.iter().cloned().collect(), ..Attrs::default() };
        let mut cx = ImportCx {
            graph: &mut g,
            name: "node",
            op_type: self.op,
            opset: self.opset,
            inputs,
            n_outputs: self.n_outputs,
            attrs: &attrs,
            n_added: 0,
            values: Vec::new(),
            subgraphs: None,
        };
        let out = (entry.import)(&mut cx)?;
        for (name, _) in &self.attrs {
            assert!(attrs.read.borrow().contains(*name), "{}: attribute {name} is never read", self.op);
        }
        g.add_output("y", out[0])?;
        g.verify()?;
        Ok(g)
    }

    /// The result with all operands computed, checked to be the same with the later ones constant.
    fn run(&self) -> Tensor {
        let mut results = Vec::new();
        for constants in [false, true] {
            let g = self.build(constants).unwrap_or_else(|e| panic!("{}: {e}", self.op));
            let feed: HashMap<String, Arc<Tensor>> = self
                .inputs
                .iter()
                .enumerate()
                .filter_map(|(i, t)| Some((format!("x{i}"), Arc::new(t.clone()?))))
                .collect();
            results.push(g.eval(&feed).unwrap_or_else(|e| panic!("{}: {e}", self.op)).remove(0));
        }
        let (a, b) = (results.remove(0), results.remove(0));
        assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{}", self.op);
        close(&a.to_f64s(), &b.to_f64s(), self.op);
        (*a).clone()
    }

    fn floats(&self) -> Vec<f64> {
        self.run().to_f64s()
    }

    fn ints(&self) -> Vec<i64> {
        self.run().to_i64s()
    }

    fn error(&self) -> String {
        self.build(false).unwrap_err().to_string()
    }
}

fn close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let fine = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= 1e-6 * w.abs().max(1e-3);
        assert!(fine, "{what} element {i}: expected {w}, got {g}");
    }
}

fn f(v: &[f32]) -> Tensor {
    Tensor::from_slice(&[v.len()], v)
}

fn i(v: &[i64]) -> Tensor {
    Tensor::from_slice(&[v.len()], v)
}

fn b(v: &[bool]) -> Tensor {
    Tensor::from_slice(&[v.len()], v)
}

#[test]
fn binary_operators() {
    let (x, y) = (f(&[1.0, -2.0, 3.0]), f(&[2.0, 2.0, -1.5]));
    close(&case("Add", 14, &[&x, &y]).floats(), &[3.0, 0.0, 1.5], "Add");
    close(&case("Sub", 14, &[&x, &y]).floats(), &[-1.0, -4.0, 4.5], "Sub");
    close(&case("Mul", 14, &[&x, &y]).floats(), &[2.0, -4.0, -4.5], "Mul");
    close(&case("Div", 14, &[&x, &y]).floats(), &[0.5, -1.0, -2.0], "Div");
    close(&case("Add", 14, &[&x, &Tensor::scalar(1f32)]).floats(), &[2.0, -1.0, 4.0], "Add scalar");
    assert_eq!(case("Equal", 13, &[&x, &f(&[1.0, 0.0, 3.0])]).ints(), [1, 0, 1]);
    assert_eq!(case("Less", 13, &[&x, &y]).ints(), [1, 1, 0]);
    assert_eq!(case("LessOrEqual", 16, &[&x, &x]).ints(), [1, 1, 1]);
    assert_eq!(case("Greater", 13, &[&x, &y]).ints(), [0, 0, 1]);
    assert_eq!(case("GreaterOrEqual", 16, &[&x, &y]).ints(), [0, 0, 1]);
    assert_eq!(case("Div", 14, &[&i(&[7, -7]), &i(&[2, 2])]).ints(), [3, -3]);
    let (p, q) = (b(&[true, true, false]), b(&[true, false, false]));
    assert_eq!(case("And", 7, &[&p, &q]).ints(), [1, 0, 0]);
    assert_eq!(case("Or", 7, &[&p, &q]).ints(), [1, 1, 0]);
    assert_eq!(case("Xor", 7, &[&p, &q]).ints(), [0, 1, 0]);
    assert_eq!(case("BitwiseAnd", 18, &[&i(&[6]), &i(&[3])]).ints(), [2]);
    assert_eq!(case("BitwiseOr", 18, &[&i(&[6]), &i(&[3])]).ints(), [7]);
    assert_eq!(case("BitwiseXor", 18, &[&i(&[6]), &i(&[3])]).ints(), [5]);
    let (u, s) = (i(&[1, 16]).cast(DType::U8), i(&[3, 2]).cast(DType::U8));
    assert_eq!(case("BitShift", 11, &[&u, &s]).attr("direction", S("LEFT")).ints(), [8, 64]);
    assert_eq!(case("BitShift", 11, &[&u, &s]).attr("direction", S("RIGHT")).ints(), [0, 4]);
    assert!(case("BitShift", 11, &[&u, &s]).error().contains("direction"));
    assert!(case("Add", 14, &[&p, &q]).error().contains("bool"));
}

#[test]
fn operands_of_opset_6_are_aligned_by_axis() {
    let x = Tensor::from_slice(&[1, 2, 3], &[0f32; 6]);
    let y = f(&[1.0, 2.0]);
    let got = case("Add", 6, &[&x, &y]).attr("broadcast", I(1)).attr("axis", I(1));
    let g = got.build(true).unwrap();
    let feed = HashMap::from([("x0".to_string(), Arc::new(x.clone()))]);
    assert_eq!(g.eval(&feed).unwrap()[0].to_f32s(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    let tail = case("Mul", 6, &[&Tensor::from_slice(&[2, 2], &[1f32; 4]), &y]).attr("broadcast", I(1));
    close(&tail.floats(), &[1.0, 2.0, 1.0, 2.0], "Mul");
    assert!(case("Add", 6, &[&y, &x]).attr("broadcast", I(1)).attr("axis", I(0)).error().contains("does not fit"));
}

#[test]
fn powers_and_remainders() {
    let x = f(&[2.0, 3.0, -1.0]);
    close(&case("Pow", 15, &[&x, &f(&[3.0])]).floats(), &[8.0, 27.0, -1.0], "Pow");
    close(&case("Pow", 15, &[&x, &Tensor::scalar(2f32)]).floats(), &[4.0, 9.0, 1.0], "square");
    close(&case("Pow", 15, &[&x, &i(&[3])]).floats(), &[8.0, 27.0, -1.0], "Pow by i64");
    let roots = case("Pow", 15, &[&i(&[16, 9]), &f(&[0.5, 1.5])]).run();
    assert_eq!((roots.dtype(), roots.to_i64s()), (DType::I64, vec![4, 27]));
    assert_eq!(case("Mod", 13, &[&i(&[7, -7]), &i(&[3, 3])]).ints(), [1, 2]);
    assert_eq!(case("Mod", 13, &[&i(&[7, -7]), &i(&[3, 3])]).attr("fmod", I(1)).ints(), [1, -1]);
    close(&case("Mod", 13, &[&f(&[-5.5]), &f(&[2.0])]).attr("fmod", I(1)).floats(), &[-1.5], "Mod");
    assert!(case("Mod", 13, &[&x, &x]).error().contains("fmod"));
}

#[test]
fn variadic_operators() {
    let (x, y, z) = (f(&[1.0, 5.0]), f(&[4.0, 2.0]), Tensor::scalar(3f32));
    close(&case("Max", 13, &[&x, &y, &z]).floats(), &[4.0, 5.0], "Max");
    close(&case("Min", 13, &[&x, &y, &z]).floats(), &[1.0, 2.0], "Min");
    close(&case("Sum", 13, &[&x, &y, &z]).floats(), &[8.0, 10.0], "Sum");
    close(&case("Mean", 13, &[&x, &y, &z]).floats(), &[8.0 / 3.0, 10.0 / 3.0], "Mean");
    close(&case("Mean", 13, &[&x]).floats(), &[1.0, 5.0], "Mean of one");
    let many: Vec<Tensor> = (0..20).map(|v| f(&[v as f32, 1.0])).collect();
    close(&case("Sum", 13, &many.iter().collect::<Vec<_>>()).floats(), &[190.0, 20.0], "Sum of 20");
    close(&case("Mean", 13, &many.iter().collect::<Vec<_>>()).floats(), &[9.5, 1.0], "Mean of 20");
}

#[test]
fn unary_operators() {
    let x = f(&[-1.5, 0.0, 0.5, 2.5]);
    let check = |op: &'static str, opset: i64, want: [f64; 4]| close(&case(op, opset, &[&x]).floats(), &want, op);
    check("Neg", 13, [1.5, 0.0, -0.5, -2.5]);
    check("Abs", 13, [1.5, 0.0, 0.5, 2.5]);
    check("Sign", 13, [-1.0, 0.0, 1.0, 1.0]);
    check("Relu", 14, [0.0, 0.0, 0.5, 2.5]);
    check("Floor", 13, [-2.0, 0.0, 0.0, 2.0]);
    check("Ceil", 13, [-1.0, 0.0, 1.0, 3.0]);
    check("Round", 22, [-2.0, 0.0, 0.0, 2.0]);
    check("Sqrt", 13, [f64::NAN, 0.0, 0.707_106_781, 1.581_138_83]);
    check("Reciprocal", 13, [-0.666_666_667, f64::INFINITY, 2.0, 0.4]);
    check("Exp", 13, [0.223_130_16, 1.0, 1.648_721_271, 12.182_493_96]);
    check("Log", 13, [f64::NAN, f64::NEG_INFINITY, -0.693_147_181, 0.916_290_732]);
    check("Sigmoid", 13, [0.182_425_524, 0.5, 0.622_459_331, 0.924_141_82]);
    check("Tanh", 13, [-0.905_148_254, 0.0, 0.462_117_157, 0.986_614_298]);
    check("Erf", 13, [-0.966_105_146, 0.0, 0.520_499_878, 0.999_593_048]);
    check("Softplus", 22, [0.201_413_278, 0.693_147_181, 0.974_076_984, 2.578_889_734]);
    check("Softsign", 22, [-0.6, 0.0, 1.0 / 3.0, 5.0 / 7.0]);
    check("HardSwish", 22, [-0.375, 0.0, 0.291_666_667, 2.291_666_667]);
    check("Mish", 22, [-0.298_099_742, 0.0, 0.375_245_211, 2.471_392_305]);
    check("Sin", 22, [-0.997_494_987, 0.0, 0.479_425_539, 0.598_472_144]);
    check("Cos", 22, [0.070_737_202, 1.0, 0.877_582_562, -0.801_143_616]);
    check("Tan", 22, [-14.101_419_95, 0.0, 0.546_302_49, -0.747_022_297]);
    check("Asin", 22, [f64::NAN, 0.0, 0.523_598_776, f64::NAN]);
    check("Acos", 22, [f64::NAN, 1.570_796_327, 1.047_197_551, f64::NAN]);
    check("Atan", 22, [-0.982_793_723, 0.0, 0.463_647_609, 1.190_289_95]);
    check("Sinh", 22, [-2.129_279_455, 0.0, 0.521_095_305, 6.050_204_481]);
    check("Cosh", 22, [2.352_409_615, 1.0, 1.127_625_965, 6.132_289_48]);
    check("Asinh", 22, [-1.194_763_217, 0.0, 0.481_211_825, 1.647_231_146]);
    check("Acosh", 22, [f64::NAN, f64::NAN, f64::NAN, 1.566_799_237]);
    check("Atanh", 22, [f64::NAN, 0.0, 0.549_306_144, f64::NAN]);
    assert_eq!(case("Not", 1, &[&b(&[true, false])]).ints(), [0, 1]);
    assert_eq!(case("BitwiseNot", 18, &[&i(&[0, 5])]).ints(), [-1, -6]);
    assert_eq!(case("IsNaN", 20, &[&f(&[f32::NAN, 1.0])]).ints(), [1, 0]);
    assert!(case("Exp", 13, &[&i(&[1])]).error().contains("exp does not take i64"));
}

#[test]
fn operators_with_attributes() {
    let x = f(&[-2.0, 0.25, 3.0]);
    close(&case("LeakyRelu", 16, &[&x]).floats(), &[-0.02, 0.25, 3.0], "LeakyRelu");
    close(&case("LeakyRelu", 16, &[&x]).attr("alpha", F(0.5)).floats(), &[-1.0, 0.25, 3.0], "LeakyRelu 0.5");
    close(&case("Elu", 22, &[&x]).attr("alpha", F(2.0)).floats(), &[-1.729_329_433, 0.25, 3.0], "Elu");
    close(&case("Celu", 12, &[&x]).attr("alpha", F(2.0)).floats(), &[-1.264_241_118, 0.25, 3.0], "Celu");
    close(&case("Selu", 22, &[&x]).floats(), &[-1.520_166_473, 0.262_675_256, 3.152_103_066], "Selu");
    close(&case("ThresholdedRelu", 22, &[&x]).floats(), &[0.0, 0.0, 3.0], "ThresholdedRelu");
    close(&case("Shrink", 9, &[&x]).attr("lambd", F(1.0)).attr("bias", F(0.5)).floats(), &[-1.5, 0.0, 2.5], "Shrink");
    close(&case("HardSigmoid", 22, &[&x]).floats(), &[0.1, 0.55, 1.0], "HardSigmoid");
    close(&case("HardSigmoid", 22, &[&x]).attr("alpha", F(0.5)).attr("beta", F(0.25)).floats(), &[0.0, 0.375, 1.0], "HardSigmoid");
    let y = f(&[f32::INFINITY, f32::NEG_INFINITY, 1.0]);
    assert_eq!(case("IsInf", 20, &[&y]).ints(), [1, 1, 0]);
    assert_eq!(case("IsInf", 20, &[&y]).attr("detect_negative", I(0)).ints(), [1, 0, 0]);
    assert_eq!(case("IsInf", 20, &[&y]).attr("detect_positive", I(0)).ints(), [0, 1, 0]);
    close(&case("Gelu", 20, &[&x]).floats(), &[-0.045_500_264, 0.149_676_581, 2.995_950_306], "Gelu");
    close(&case("Gelu", 20, &[&x]).attr("approximate", S("tanh")).floats(), &[-0.045_402_306, 0.149_675_351, 2.996_362_608], "Gelu tanh");
    close(&case("Swish", 24, &[&x]).floats(), &[-0.238_405_844, 0.140_544_125, 2.857_722_38], "Swish");
    close(&case("Swish", 24, &[&x]).attr("alpha", F(2.0)).floats(), &[-0.035_972_42, 0.155_614_833, 2.992_582_131], "Swish 2");
    assert!(case("Gelu", 20, &[&x]).attr("approximate", S("cubic")).error().contains("cubic"));
}

#[test]
fn clip_in_all_its_forms() {
    let x = f(&[-3.0, 0.5, 7.0]);
    let (lo, hi) = (Tensor::scalar(-1f32), Tensor::scalar(1f32));
    close(&case("Clip", 6, &[&x]).attr("min", F(-1.0)).attr("max", F(1.0)).floats(), &[-1.0, 0.5, 1.0], "Clip 6");
    close(&case("Clip", 6, &[&x]).attr("min", F(0.0)).floats(), &[0.0, 0.5, 7.0], "Clip 6 min");
    close(&case("Clip", 6, &[&x]).attr("min", F(f32::MIN)).attr("max", F(f32::MAX)).floats(), &[-3.0, 0.5, 7.0], "Clip 6 open");
    close(&case("Clip", 13, &[&x, &lo, &hi]).floats(), &[-1.0, 0.5, 1.0], "Clip 13");
    close(&case("Clip", 13, &[&x, &lo]).floats(), &[-1.0, 0.5, 7.0], "Clip 13 min");
    let mut high = case("Clip", 13, &[&x]);
    high.inputs.extend([None, Some(hi.clone())]);
    close(&high.floats(), &[-3.0, 0.5, 1.0], "Clip 13 max");
    close(&case("Clip", 13, &[&x]).floats(), &[-3.0, 0.5, 7.0], "Clip 13 open");
    assert_eq!(case("Clip", 13, &[&i(&[-3, 9]), &Tensor::scalar(0i64), &Tensor::scalar(5i64)]).ints(), [0, 5]);
    assert!(case("Clip", 13, &[&x, &f(&[1.0, 2.0])]).error().contains("one element"));
}

#[test]
fn slopes_broadcast_to_x_alone() {
    let x = Tensor::from_slice(&[1, 2, 2], &[-1f32, 2.0, -3.0, -4.0]);
    let slope = Tensor::from_slice(&[2, 1], &[0.5f32, 0.1]);
    close(&case("PRelu", 16, &[&x, &slope]).floats(), &[-0.5, 2.0, -0.3, -0.4], "PRelu");
    let old = case("PRelu", 6, &[&x, &f(&[0.5, 0.1])]).build(true).unwrap();
    let feed = HashMap::from([("x0".to_string(), Arc::new(x.clone()))]);
    close(&old.eval(&feed).unwrap()[0].to_f64s(), &[-0.5, 2.0, -0.3, -0.4], "PRelu 6");
    assert!(case("PRelu", 16, &[&slope, &x]).error().contains("slope"));
}

#[test]
fn selection_and_casts() {
    let c = b(&[true, false]);
    assert_eq!(case("Where", 16, &[&c, &i(&[1, 2]), &Tensor::scalar(9i64)]).ints(), [1, 9]);
    let x = f(&[1.9, -1.9]);
    assert_eq!(case("Cast", 19, &[&x]).attr("to", I(6)).attr("saturate", I(1)).run().slice::<i32>(), [1, -1]);
    assert_eq!(case("Cast", 4, &[&x]).attr("to", S("INT64")).run().slice::<i64>(), [1, -1]);
    assert_eq!(case("Cast", 13, &[&x]).attr("to", I(1)).run().to_f32s(), [1.9, -1.9]);
    assert_eq!(case("CastLike", 19, &[&x, &c]).run().slice::<bool>(), [true, true]);
    assert!(case("Cast", 13, &[&x]).attr("to", I(8)).error().contains("STRING"));
    assert!(case("Cast", 19, &[&x]).attr("to", I(14)).error().contains("COMPLEX64"));
}

#[test]
fn batch_normalization() {
    let x = Tensor::from_slice(&[1, 2, 2], &[1f32, 2.0, 3.0, 4.0]);
    let (scale, bias, mean, var) = (f(&[2.0, 1.0]), f(&[0.5, -1.0]), f(&[1.0, 3.0]), f(&[4.0, 1.0]));
    let c = |opset| case("BatchNormalization", opset, &[&x, &scale, &bias, &mean, &var]).attr("epsilon", F(0.0));
    let want = [0.5, 1.5, -1.0, 0.0];
    close(&c(15).attr("training_mode", I(0)).attr("momentum", F(0.9)).floats(), &want, "BatchNormalization");
    close(&c(7).attr("spatial", I(1)).floats(), &want, "BatchNormalization 7");
    close(&c(6).attr("is_test", I(1)).floats(), &want, "BatchNormalization 6");
    // With the default epsilon: (1 - 1) * .. + 0.5, (2 - 1) * 2 / sqrt(4.00001) + 0.5.
    let default = case("BatchNormalization", 15, &[&x, &scale, &bias, &mean, &var]).floats();
    close(&default[..2], &[0.5, 1.499_998_75], "default epsilon");
    let mut more = c(15);
    more.n_outputs = 3;
    assert!(more.error().contains("outputs"));
    let g = c(15).build(true).unwrap();
    assert_eq!(g.n_nodes(), 1, "constants are folded into one node");
    assert!(case("BatchNormalization", 15, &[&x, &f(&[1.0]), &bias, &mean, &var]).error().contains("scale"));
}

#[test]
fn microsoft_gelus() {
    let (x, bias) = (f(&[-2.0, 0.25, 3.0]), f(&[0.0, 0.0, 0.0]));
    let exact = [-0.045_500_264, 0.149_676_581, 2.995_950_306];
    let tanh = [-0.045_402_306, 0.149_675_351, 2.996_362_608];
    close(&case("Gelu", 1, &[&x]).microsoft().floats(), &exact, "Gelu");
    close(&case("BiasGelu", 1, &[&x, &bias]).microsoft().floats(), &exact, "BiasGelu");
    close(&case("FastGelu", 1, &[&x]).microsoft().floats(), &tanh, "FastGelu");
    close(&case("FastGelu", 1, &[&x, &bias]).microsoft().floats(), &tanh, "FastGelu with bias");
    close(&case("QuickGelu", 1, &[&x]).microsoft().floats(), &[-0.064_341_377, 0.151_199_65, 2.981_928_69], "QuickGelu");
}

#[test]
fn scalar_constants_become_part_of_the_program() {
    let program = |g: &Graph| match &g.node(g.node_ids()[0]).op {
        Op::Pointwise(p) => p.program.to_string(),
        op => panic!("{op:?}"),
    };
    let x = Tensor::from_slice(&[2, 2], &[1f32; 4]);
    let bound = case("Add", 14, &[&x, &Tensor::from_slice(&[1, 1], &[1f32])]).build(true).unwrap();
    assert_eq!(program(&bound), "f32;const(3ff0000000000000):f32;add(0,1):f32;>2");
    // A constant that gives the result its rank stays an operand, and so does an integer that f64 does not hold.
    let ranked = case("Add", 14, &[&f(&[1.0]), &Tensor::from_slice(&[1, 1], &[1f32])]).build(true).unwrap();
    assert_eq!(program(&ranked), "f32,f32;add(0,1):f32;>2");
    let large = case("Add", 14, &[&i(&[1]), &Tensor::scalar((1i64 << 53) + 1)]).build(true).unwrap();
    assert_eq!(program(&large), "i64,i64;add(0,1):i64;>2");
}

#[test]
fn quantization() {
    let u8s = |v: &[i64]| i(v).cast(DType::U8);
    let x = f(&[0.0, 1.5, 2.5, -300.0]).reshaped(&[2, 2]).unwrap();
    let y = case("QuantizeLinear", 13, &[&x, &f(&[1.0, 2.0]), &u8s(&[10, 1])]).attr("axis", I(-2)).run();
    assert_eq!((y.dtype(), y.to_i64s()), (DType::U8, vec![10, 12, 2, 0]));
    // Blocks of two along a row of five; halves go to even.
    let x = f(&[1.5, 2.5, 3.0, 5.0, -40.0]).reshaped(&[1, 5]).unwrap();
    let scale = f(&[1.0, 2.0, 4.0]).reshaped(&[1, 3]).unwrap();
    let blocked = case("QuantizeLinear", 21, &[&x, &scale]).attr("block_size", I(2)).attr("output_dtype", I(22));
    let y = blocked.run();
    assert_eq!((y.dtype(), y.to_i64s()), (DType::I4, vec![2, 2, 2, 2, -8]));
    let wrong = case("QuantizeLinear", 21, &[&x, &scale]).attr("block_size", I(4));
    assert!(wrong.error().contains("2 blocks of 4, not 3"), "{}", wrong.error());
    // The quotient is 2.5006, which is 2.5 in half precision.
    let (x, scale) = (f(&[0.25]).cast(DType::F16), f(&[0.1]).cast(DType::F16));
    let y = case("QuantizeLinear", 21, &[&x, &scale]).attr("output_dtype", I(5)).run();
    assert_eq!((y.dtype(), y.to_i64s()), (DType::I16, vec![2]));
    let y = case("QuantizeLinear", 23, &[&x, &scale]).attr("output_dtype", I(5)).attr("precision", I(1)).run();
    assert_eq!(y.to_i64s(), [3]);
    let zero = Tensor::zeros(DType::F8E5M2, &[]);
    let open = case("QuantizeLinear", 19, &[&f(&[1e6, -0.0]), &Tensor::scalar(1f32), &zero]).attr("saturate", I(0)).run();
    assert_eq!((open.dtype(), open.bytes()), (DType::F8E5M2, &[0x7c, 0x80][..]));

    let x = i(&[1, 15, 0]).cast(DType::U4);
    let half = Tensor::scalar(0.5f32).cast(DType::F16);
    let y = case("DequantizeLinear", 21, &[&x, &half, &Tensor::scalar(1i64).cast(DType::U4)]).run();
    assert_eq!((y.dtype(), y.to_f32s()), (DType::F16, vec![0.0, 7.0, -0.5]));
    let y = case("DequantizeLinear", 1, &[&i(&[-4]).cast(DType::I8), &Tensor::scalar(0.25f32)]).microsoft().run();
    assert_eq!(y.to_f32s(), [-1.0]);
    assert!(case("DequantizeLinear", 21, &[&f(&[1.0]), &Tensor::scalar(1f32)]).error().contains("f32"));

    let x = f(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]);
    assert_eq!(case("DynamicQuantizeLinear", 11, &[&x]).run().to_i64s(), [153, 255, 0, 26, 221, 179]);
}

#[test]
fn bits_and_small_types() {
    let y = case("BitCast", 26, &[&f(&[1.0, -2.0])]).attr("to", I(6)).run();
    assert_eq!((y.dtype(), y.to_i64s()), (DType::I32, vec![0x3f80_0000, -0x4000_0000]));
    let y = case("BitCast", 26, &[&i(&[-1, 7]).cast(DType::I4)]).attr("to", I(21)).run();
    assert_eq!((y.dtype(), y.to_i64s()), (DType::U4, vec![15, 7]));
    let y = case("BitCast", 26, &[&i(&[-1, 3]).cast(DType::I4)]).attr("to", I(23)).run();
    assert_eq!((y.dtype(), y.to_f32s()), (DType::F4E2M1, vec![-6.0, 1.5]));
    assert!(case("BitCast", 26, &[&f(&[1.0])]).attr("to", I(7)).error().contains("32 bits"));

    let open = Tensor::from_bytes(DType::F8E5M2, &[3], &[0x7c, 0x7e, 0x3c]).unwrap();
    assert_eq!(case("IsNaN", 20, &[&open]).run().slice::<bool>(), [false, true, false]);
    assert_eq!(case("IsInf", 20, &[&open]).run().slice::<bool>(), [true, false, false]);
    let c = b(&[true, false, true]);
    assert_eq!(case("Where", 16, &[&c, &open, &Tensor::zeros(DType::F8E5M2, &[])]).run().bytes(), [0x7c, 0, 0x3c]);
    assert!(case("Add", 14, &[&open, &open]).error().contains("f8e5m2"));
    let eye = case("EyeLike", 22, &[&Tensor::zeros(DType::I32, &[2, 3])]).attr("k", I(1)).attr("dtype", I(9)).run();
    assert_eq!((eye.shape(), eye.slice::<bool>()), (&[2, 3][..], &[false, true, false, false, false, true][..]));
}
