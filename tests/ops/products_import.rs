//! ONNX import of products and windows: what the importers make of attributes and operands, run by the reference.

use sinter::base::{DType, Fact, Result, Tensor};
use sinter::network::{Graph, ValueId};
use sinter::ops::{AttrSource, ImportCx, find_onnx};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum A {
    Int(i64),
    Float(f32),
    Str(&'static str),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
}

struct Attrs(HashMap<&'static str, A>);

macro_rules! read {
    ($self:ident, $name:ident, $v:ident, $x:ident => $e:expr) => {
        Ok($self.0.get($name).map(|a| match a {
            A::$v($x) => $e,
            other => panic!("attribute {} is {other:?}", $name),
        }))
    };
}

impl AttrSource for Attrs {
    fn int(&self, name: &str) -> Result<Option<i64>> {
        read!(self, name, Int, v => *v)
    }
    fn float(&self, name: &str) -> Result<Option<f32>> {
        read!(self, name, Float, v => *v)
    }
    fn string(&self, name: &str) -> Result<Option<String>> {
        read!(self, name, Str, v => v.to_string())
    }
    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        read!(self, name, Ints, v => v.clone())
    }
    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        read!(self, name, Floats, v => v.clone())
    }
    fn strings(&self, _name: &str) -> Result<Option<Vec<String>>> {
        Ok(None)
    }
    fn tensor(&self, _name: &str) -> Result<Option<Arc<Tensor>>> {
        Ok(None)
    }
}

/// An imported node: its graph and its outputs.
struct Imported {
    graph: Graph,
    outputs: Vec<ValueId>,
    inputs: HashMap<String, Arc<Tensor>>,
}

/// Operands that are constants, or absent, or inputs of the graph.
enum X {
    In(Tensor),
    Const(Tensor),
    None,
}

fn import(domain: &str, op: &str, opset: i64, operands: Vec<X>, attrs: &[(&'static str, A)]) -> Result<Imported> {
    let mut graph = Graph::new("test");
    let mut inputs = HashMap::new();
    let mut ids = Vec::new();
    for (i, x) in operands.into_iter().enumerate() {
        ids.push(match x {
            X::None => None,
            X::Const(t) => Some(graph.add_const("c", Arc::new(t))),
            X::In(t) => {
                let name = format!("x{i}");
                let id = graph.add_input(&name, Fact::new(t.dtype(), t.shape()))?;
                inputs.insert(name, Arc::new(t));
                Some(id)
            }
        });
    }
    let attrs = Attrs(attrs.iter().cloned().collect());
    let entry = find_onnx(domain, op, opset).unwrap_or_else(|| panic!("{op} is not imported"));
    let outputs = (entry.import)(&mut ImportCx {
        graph: &mut graph,
        name: "node",
        op_type: op,
        opset,
        inputs: ids,
        n_outputs: 1,
        attrs: &attrs,
        n_added: 0,
        values: Vec::new(),
        subgraphs: None,
    })?;
    graph.add_output("y", outputs[0])?;
    Ok(Imported { graph, outputs, inputs })
}

impl Imported {
    fn run(&self) -> Arc<Tensor> {
        self.graph.eval(&self.inputs).unwrap().remove(0)
    }

    fn ops(&self) -> Vec<&'static str> {
        self.graph.node_ids().iter().map(|n| self.graph.node(*n).op.name()).collect()
    }
}

fn t(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values)
}

fn count(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    t(shape, &(0..n).map(|v| v as f32).collect::<Vec<_>>())
}

#[test]
fn gemm_folds_a_constant_row_into_the_bias() {
    let ab = || (X::In(t(&[1, 2], &[1., 2.])), X::In(t(&[2, 2], &[1., 2., 3., 4.])));
    let run = |c: X, beta: f32| {
        let (a, b) = ab();
        let i = import("", "Gemm", 13, vec![a, b, c], &[("beta", A::Float(beta)), ("alpha", A::Float(2.0))]).unwrap();
        (i.ops().len(), i.run().to_f32s())
    };
    assert_eq!(run(X::Const(t(&[2], &[10., 20.])), 0.5), (1, vec![19., 30.]));
    assert_eq!(run(X::Const(t(&[1, 2], &[10., 20.])), 1.0), (1, vec![24., 40.]));
    assert_eq!(run(X::Const(t(&[], &[10.])), 1.0), (1, vec![24., 30.]));
    assert_eq!(run(X::In(t(&[2], &[10., 20.])), 1.0), (1, vec![24., 40.]));
    // What is no row, or must be scaled while running, is added by a node of its own.
    assert_eq!(run(X::In(t(&[2], &[10., 20.])), 0.5), (2, vec![19., 30.]));
    assert_eq!(run(X::Const(t(&[1, 1], &[10.])), 1.0), (1, vec![24., 30.]));
    assert_eq!(run(X::Const(t(&[2], &[10., 20.])), 0.0), (1, vec![14., 20.]));
    assert_eq!(run(X::None, 1.0), (1, vec![14., 20.]));
}

#[test]
fn gemm_adds_a_constant_column() {
    let operands = vec![X::In(count(&[2, 2])), X::In(count(&[2, 2])), X::Const(t(&[2, 1], &[10., 20.]))];
    let i = import("", "Gemm", 6, operands, &[("broadcast", A::Int(1)), ("transB", A::Int(1))]).unwrap();
    assert_eq!(i.run().to_f32s(), [11., 13., 23., 33.]);
}

#[test]
fn vectors_are_rows_on_the_left_and_columns_on_the_right() {
    let shape = |a: &[usize], b: &[usize], domain: &str, op: &str| {
        let i = import(domain, op, 13, vec![X::In(count(a)), X::In(count(b))], &[]).unwrap();
        i.graph.fact(i.outputs[0]).shape.to_string()
    };
    for (domain, op) in [("", "MatMul"), ("com.microsoft", "FusedMatMul")] {
        assert_eq!(shape(&[3], &[3, 4], domain, op), "[4]");
        assert_eq!(shape(&[2, 4, 3], &[3], domain, op), "[2,4]");
        assert_eq!(shape(&[3], &[5, 3, 4], domain, op), "[5,4]");
        assert_eq!(shape(&[3], &[3], domain, op), "[]");
    }
}

#[test]
fn fused_convolution_adds_before_it_activates() {
    let attrs = [("activation", A::Str("LeakyRelu")), ("activation_params", A::Floats(vec![0.5]))];
    let x = X::In(t(&[1, 1, 2], &[1., -4.]));
    let (w, b, z) = (X::Const(t(&[1, 1, 1], &[2.])), X::Const(t(&[1], &[1.])), X::In(t(&[1, 1, 2], &[-5., 3.])));
    let i = import("com.microsoft", "FusedConv", 1, vec![x, w, b, z], &attrs).unwrap();
    assert_eq!((i.ops(), i.run().to_f32s()), (vec!["Conv"], vec![-1., -2.]));
}

#[test]
fn auto_pad_becomes_numbers_where_sizes_allow() {
    let attrs = [("auto_pad", A::Str("SAME_UPPER")), ("strides", A::Ints(vec![2])), ("kernel_shape", A::Ints(vec![3]))];
    let i = import("", "Conv", 11, vec![X::In(count(&[1, 1, 6])), X::Const(t(&[1, 1, 3], &[1., 1., 1.]))], &attrs).unwrap();
    let text = i.graph.to_string();
    assert!(text.contains("auto_pad=\"NOTSET\"") && text.contains("pads=[0, 1]"), "{text}");
    assert_eq!(i.run().to_f32s(), [3., 9., 9.]);
}

#[test]
fn global_pools_are_reductions() {
    for (op, want) in [("GlobalAveragePool", 2.5), ("GlobalMaxPool", 5.0), ("GlobalLpPool", 55f32.sqrt())] {
        let i = import("", op, 13, vec![X::In(count(&[1, 1, 2, 3]))], &[]).unwrap();
        assert_eq!(i.ops(), ["Reduce"]);
        let y = i.run();
        assert!(y.shape() == [1, 1, 1, 1] && (y.to_f32s()[0] - want).abs() < 1e-6, "{op}: {y:?}");
    }
}

#[test]
fn messages_name_the_attribute() {
    let fails = |op: &str, operands: Vec<X>, attrs: &[(&'static str, A)]| match import("", op, 13, operands, attrs) {
        Ok(_) => panic!("{op} was taken"),
        Err(e) => e.to_string(),
    };
    let text = fails("MaxPool", vec![X::In(count(&[1, 1, 4, 4]))], &[]);
    assert!(text.contains("attribute kernel_shape is missing"), "{text}");
    let operands = vec![X::In(count(&[1, 1, 4, 4])), X::Const(count(&[1, 1, 3, 3]))];
    let text = fails("Conv", operands, &[("kernel_shape", A::Ints(vec![2, 2]))]);
    assert!(text.contains("attribute kernel_shape is [2, 2] but the weight's kernel is [3, 3]"), "{text}");
}

#[test]
fn integers_are_scaled_as_fractions_and_truncated() {
    let int = |v: &[f32]| X::In(t(&[2, 2], v).cast(DType::I32));
    let operands = vec![int(&[1., 2., 3., 4.]), int(&[1., 0., 1., 1.]), int(&[1., 1., -9., 0.])];
    let i = import("", "Gemm", 13, operands, &[("alpha", A::Float(0.5)), ("beta", A::Float(0.5))]).unwrap();
    // a b = [3, 2, 7, 4]
    assert_eq!(i.run().to_i64s(), [2, 1, -1, 2]);
}
