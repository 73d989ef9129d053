//! The files that cases start from: small models that use many operators, and engines built from them.

use bytes::Bytes;
use prost::Message;
use sinter::base::{Tensor, knobs};
use sinter::builder::{BuilderConfig, build};
use sinter::device::{DeviceKind, DeviceRef};
use sinter::onnx::importer::import_bytes;
use sinter::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use sinter::onnx::proto::*;
use sinter::onnx::tensor::{onnx_code_of, tensor_proto};

/// A model under construction.
struct Model {
    graph: GraphProto,
    opset: i64,
    n: u32,
}

enum A<'a> {
    I(i64),
    F(f32),
    S(&'a str),
    Is(&'a [i64]),
    T(Tensor),
    G(Model),
}
use A::*;

fn value(name: &str, elem: i32, dims: &str) -> ValueInfoProto {
    let dim = dims.split(',').filter(|d| !d.is_empty()).map(|d| {
        let value = match d.parse() {
            Ok(v) => dimension::Value::DimValue(v),
            Err(_) => dimension::Value::DimParam(d.to_string()),
        };
        Dimension { value: Some(value), ..Default::default() }
    });
    let tensor = type_proto::Tensor { elem_type: Some(elem), shape: Some(TensorShapeProto { dim: dim.collect() }) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { value, ..Default::default() }), ..Default::default() }
}

impl Model {
    fn new(opset: i64) -> Model {
        Model { graph: GraphProto { name: Some("fuzz".into()), ..Default::default() }, opset, n: 0 }
    }

    fn input(&mut self, name: &str, elem: i32, dims: &str) -> String {
        self.graph.input.push(value(name, elem, dims));
        name.into()
    }

    fn c(&mut self, t: Tensor) -> String {
        self.n += 1;
        let name = format!("c{}", self.n);
        self.graph.initializer.push(tensor_proto(&t, &name));
        name
    }

    fn ints(&mut self, v: &[i64]) -> String {
        self.c(Tensor::from_slice(&[v.len()], v))
    }

    fn w(&mut self, shape: &[usize]) -> String {
        let n: usize = shape.iter().product();
        let data: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        self.c(Tensor::from_slice(shape, &data))
    }

    /// A node with one output; `""` is an absent operand.
    fn node(&mut self, op: &str, inputs: &[&str], attrs: &[(&str, A)]) -> String {
        self.many(op, inputs, attrs, 1).remove(0)
    }

    fn many(&mut self, op: &str, inputs: &[&str], attrs: &[(&str, A)], n_out: usize) -> Vec<String> {
        let out: Vec<String> = (0..n_out)
            .map(|_| {
                self.n += 1;
                format!("v{}", self.n)
            })
            .collect();
        let attribute = attrs.iter().map(|(name, a)| {
            let mut p = AttributeProto { name: Some(name.to_string()), ..Default::default() };
            use attribute_proto::AttributeType as T;
            let t = match a {
                I(v) => (p.i = Some(*v), T::Int).1,
                F(v) => (p.f = Some(*v), T::Float).1,
                S(v) => (p.s = Some(v.as_bytes().to_vec()), T::String).1,
                Is(v) => (p.ints = v.to_vec(), T::Ints).1,
                A::T(v) => (p.t = Some(Box::new(tensor_proto(v, ""))), T::Tensor).1,
                G(v) => (p.g = Some(Box::new(v.graph.clone())), T::Graph).1,
            };
            p.r#type = Some(t as i32);
            p
        });
        self.graph.node.push(NodeProto {
            op_type: Some(op.into()),
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: out.clone(),
            attribute: attribute.collect(),
            ..Default::default()
        });
        out
    }

    /// A graph for a node's attribute; names of nodes inside start at `first`.
    fn body(first: u32, inputs: &[&str]) -> Model {
        let mut m = Model { n: first, ..Model::new(0) };
        let untyped = |n: &&str| ValueInfoProto { name: Some(n.to_string()), ..Default::default() };
        m.graph.input = inputs.iter().map(untyped).collect();
        m
    }

    fn outputs(mut self, outputs: &[&str]) -> Model {
        for o in outputs {
            self.graph.output.push(ValueInfoProto { name: Some(o.to_string()), ..Default::default() });
        }
        self
    }

    fn finish(mut self, outputs: &[String]) -> Vec<u8> {
        for o in outputs {
            self.graph.output.push(ValueInfoProto { name: Some(o.clone()), ..Default::default() });
        }
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(self.opset) };
        let m = ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(self.graph), ..Default::default() };
        m.encode_to_vec()
    }
}

fn conv_net() -> Vec<u8> {
    let mut m = Model::new(17);
    let x = m.input("x", 1, "n,3,14,14");
    let (w, b) = (m.w(&[8, 3, 3, 3]), m.w(&[8]));
    let pads: A = Is(&[1, 1, 1, 1]);
    let v = m.node("Conv", &[&x, &w, &b], &[("pads", pads), ("strides", Is(&[2, 2])), ("dilations", Is(&[1, 1])), ("kernel_shape", Is(&[3, 3])), ("group", I(1))]);
    let v = m.node("Relu", &[&v], &[]);
    let bn: Vec<String> = (0..4).map(|_| m.w(&[8])).collect();
    let v = m.node("BatchNormalization", &[&v, &bn[0], &bn[1], &bn[2], &bn[3]], &[("epsilon", F(1e-3))]);
    let w = m.w(&[8, 1, 3, 3]);
    let d = m.node("Conv", &[&v, &w], &[("group", I(8)), ("auto_pad", S("SAME_UPPER")), ("dilations", Is(&[2, 2]))]);
    let v = m.node("Add", &[&v, &d], &[]);
    let v = m.node("MaxPool", &[&v], &[("kernel_shape", Is(&[3, 3])), ("strides", Is(&[2, 2])), ("pads", Is(&[1, 1, 1, 1])), ("ceil_mode", I(1))]);
    let v = m.node("AveragePool", &[&v], &[("kernel_shape", Is(&[2, 2])), ("count_include_pad", I(1)), ("pads", Is(&[0, 0, 1, 1]))]);
    let g = m.node("GlobalAveragePool", &[&v], &[]);
    let f = m.node("Flatten", &[&g], &[("axis", I(1))]);
    let (w, b) = (m.w(&[8, 5]), m.w(&[5]));
    let y = m.node("Gemm", &[&f, &w, &b], &[("alpha", F(0.5)), ("beta", F(2.0)), ("transA", I(0)), ("transB", I(0))]);
    let y = m.node("Softmax", &[&y], &[("axis", I(-1))]);
    m.finish(&[y, v])
}

fn deconv_net() -> Vec<u8> {
    let mut m = Model::new(13);
    let x = m.input("x", 1, "1,4,6,6");
    let (w, b) = (m.w(&[4, 3, 3, 3]), m.w(&[6]));
    let v = m.node("ConvTranspose", &[&x, &w, &b], &[("group", I(2)), ("strides", Is(&[2, 2])), ("pads", Is(&[1, 1, 1, 1])), ("output_padding", Is(&[1, 1])), ("dilations", Is(&[1, 1]))]);
    let v = m.node("LeakyRelu", &[&v], &[("alpha", F(0.1))]);
    let w = m.w(&[2, 6, 3]);
    let s = m.ints(&[1, 6, -1]);
    let v = m.node("Reshape", &[&v, &s], &[]);
    let v = m.node("Conv", &[&v, &w], &[("strides", Is(&[3])), ("pads", Is(&[2, 0]))]);
    let p = m.node("LpPool", &[&v], &[("kernel_shape", Is(&[2])), ("p", I(2))]);
    let q = m.node("GlobalMaxPool", &[&v], &[]);
    let w = m.w(&[4, 2, 3, 3]);
    let u = m.node("ConvTranspose", &[&x, &w], &[("group", I(2)), ("output_shape", Is(&[12, 12])), ("strides", Is(&[2, 2])), ("auto_pad", S("SAME_LOWER"))]);
    m.finish(&[p, q, u])
}

fn shape_net() -> Vec<u8> {
    let mut m = Model::new(15);
    let x = m.input("x", 1, "batch,seq,8");
    let s = m.node("Shape", &[&x], &[]);
    let tail = m.node("Shape", &[&x], &[("start", I(-1)), ("end", I(3))]);
    let (i0, i1, ax) = (m.c(Tensor::scalar(0i64)), m.c(Tensor::scalar(1i64)), m.ints(&[0]));
    let b = m.node("Gather", &[&s, &i0], &[("axis", I(0))]);
    let t = m.node("Gather", &[&s, &i1], &[("axis", I(0))]);
    let two = m.node("Constant", &[], &[("value", A::T(Tensor::scalar(2i64)))]);
    let bt = m.node("Mul", &[&b, &t], &[]);
    let half = m.node("Div", &[&bt, &two], &[]);
    let more = m.node("Add", &[&half, &two], &[]);
    let bu = m.node("Unsqueeze", &[&bt, &ax], &[]);
    let mu = m.node("Unsqueeze", &[&more, &ax], &[]);
    let to = m.node("Concat", &[&bu, &tail], &[("axis", I(0))]);
    let y = m.node("Reshape", &[&x, &to], &[("allowzero", I(0))]);
    let f = m.node("ConstantOfShape", &[&mu], &[("value", A::T(Tensor::from_slice(&[1], &[3i64])))]);
    let lim = m.node("Min", &[&bt, &more], &[]);
    let r = m.node("Range", &[&i0, &lim, &i1], &[]);
    let (st, en) = (m.ints(&[1]), m.ints(&[3]));
    let sl = m.node("Slice", &[&s, &st, &en], &[]);
    let one = m.ints(&[4, 1, 1]);
    let x0 = m.node("Expand", &[&x, &one], &[]);
    let n = m.node("Size", &[&x0], &[]);
    let rc = m.node("Cast", &[&r], &[("to", I(1))]);
    let sum = m.node("ReduceSum", &[&sl], &[("keepdims", I(1))]);
    m.finish(&[y, f, rc, n, sum])
}

fn mover_net() -> Vec<u8> {
    let mut m = Model::new(13);
    let x = m.input("x", 1, "2,8,h,6");
    let t = m.node("Transpose", &[&x], &[("perm", Is(&[0, 2, 3, 1]))]);
    let (st, en, ax, sp) = (m.ints(&[5, 0]), m.ints(&[0, i64::MAX]), m.ints(&[2, -1]), m.ints(&[-2, 3]));
    let s = m.node("Slice", &[&t, &st, &en, &ax, &sp], &[]);
    let c = m.node("Concat", &[&s, &s, &s], &[("axis", I(-2))]);
    let rep = m.ints(&[1, 1, 2, 3]);
    let tile = m.node("Tile", &[&c, &rep], &[]);
    let sizes = m.ints(&[3, 5]);
    let parts = m.many("Split", &[&x, &sizes], &[("axis", I(1))], 2);
    let idx = m.c(Tensor::from_slice(&[2, 2], &[0i64, -1, 1, 2]));
    let g = m.node("Gather", &[&parts[0], &idx], &[("axis", I(1))]);
    let (pads, v) = (m.ints(&[0, 1, 0, 2, 0, 1, 0, -1]), m.c(Tensor::scalar(1.5f32)));
    let p = m.node("Pad", &[&parts[1], &pads, &v], &[("mode", S("constant"))]);
    let pads = m.ints(&[0, 1, 0, 2, 0, 1, 0, 2]);
    let e = m.node("Pad", &[&p, &pads], &[("mode", S("edge"))]);
    let q = m.node("Pad", &[&x, &pads], &[("mode", S("reflect"))]);
    let d = m.node("DepthToSpace", &[&x], &[("blocksize", I(2)), ("mode", S("CRD"))]);
    let u = m.node("SpaceToDepth", &[&d], &[("blocksize", I(2))]);
    let axes = m.ints(&[0, 3]);
    let un = m.node("Unsqueeze", &[&u, &axes], &[]);
    let sq = m.node("Squeeze", &[&un, &axes], &[]);
    let f = m.node("Flatten", &[&sq], &[("axis", I(2))]);
    let id = m.node("Identity", &[&f], &[]);
    m.finish(&[tile, g, e, q, id])
}

fn reduce_net() -> Vec<u8> {
    let mut m = Model::new(18);
    let x = m.input("x", 1, "n,4,5,6");
    let ax = m.ints(&[-1, 1]);
    let mut out = vec![];
    for op in ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"] {
        out.push(m.node(op, &[&x, &ax], &[("keepdims", I(0)), ("noop_with_empty_axes", I(0))]));
    }
    out.push(m.node("ArgMax", &[&x], &[("axis", I(2)), ("keepdims", I(1)), ("select_last_index", I(1))]));
    let mean = m.node("ReduceMean", &[&x, &ax], &[("keepdims", I(1))]);
    let d = m.node("Sub", &[&x, &mean], &[]);
    let two = m.c(Tensor::scalar(2.0f32));
    let sq = m.node("Pow", &[&d, &two], &[]);
    let var = m.node("ReduceMean", &[&sq, &ax], &[]);
    let eps = m.c(Tensor::scalar(1e-5f32));
    let var = m.node("Add", &[&var, &eps], &[]);
    let sd = m.node("Sqrt", &[&var], &[]);
    out.push(m.node("Div", &[&d, &sd], &[]));
    out.push(m.node("LogSoftmax", &[&x], &[("axis", I(1))]));
    m.finish(&out)
}

fn resize_net() -> Vec<u8> {
    let mut m = Model::new(13);
    let x = m.input("x", 1, "1,2,h,w");
    let sc = m.c(Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 1.5]));
    let a = m.node("Resize", &[&x, "", &sc], &[("mode", S("nearest")), ("nearest_mode", S("floor")), ("coordinate_transformation_mode", S("asymmetric"))]);
    let sz = m.ints(&[1, 2, 9, 4]);
    let b = m.node("Resize", &[&x, "", "", &sz], &[("mode", S("linear")), ("coordinate_transformation_mode", S("align_corners"))]);
    let c = m.node("Resize", &[&b, "", &sc], &[("mode", S("cubic")), ("cubic_coeff_a", F(-0.5)), ("exclude_outside", I(1))]);
    let s = m.node("Shape", &[&x], &[]);
    let (st, en) = (m.ints(&[2]), m.ints(&[4]));
    let hw = m.node("Slice", &[&s, &st, &en], &[]);
    let two = m.ints(&[2]);
    let hw = m.node("Mul", &[&hw, &two], &[]);
    let nc = m.ints(&[1, 2]);
    let to = m.node("Concat", &[&nc, &hw], &[("axis", I(0))]);
    let d = m.node("Resize", &[&x, "", "", &to], &[("mode", S("linear"))]);
    let e = m.node("Add", &[&a, &a], &[]);
    m.finish(&[e, c, d])
}

fn point_net() -> Vec<u8> {
    let mut m = Model::new(20);
    let (x, i, b) = (m.input("x", 1, "n,3,4"), m.input("i", 7, "3,1"), m.input("b", 9, "n,1,4"));
    let mut v = x.clone();
    for op in ["Sigmoid", "Tanh", "Erf", "Exp", "Softplus", "HardSwish", "Mish", "Abs", "Sqrt", "Floor", "Neg", "Sin"] {
        v = m.node(op, &[&v], &[]);
    }
    let (lo, hi) = (m.c(Tensor::scalar(-1.0f32)), m.c(Tensor::scalar(6.0f32)));
    let v = m.node("Clip", &[&v, &lo, &hi], &[]);
    let v = m.node("Elu", &[&v], &[("alpha", F(0.5))]);
    let v = m.node("Gelu", &[&v], &[("approximate", S("tanh"))]);
    let sl = m.w(&[3, 1]);
    let v = m.node("PRelu", &[&v, &sl], &[]);
    let w = m.node("Where", &[&b, &v, &x], &[]);
    let k = m.ints(&[2]);
    let j = m.node("Div", &[&i, &k], &[]);
    let j = m.node("Mod", &[&j, &k], &[("fmod", I(0))]);
    let j = m.node("Pow", &[&j, &k], &[]);
    let f = m.node("Cast", &[&j], &[("to", I(10))]);
    let f = m.node("Cast", &[&f], &[("to", I(1))]);
    let y = m.node("Max", &[&w, &f, &x], &[]);
    let e = m.node("Equal", &[&x, &y], &[]);
    let n = m.node("Not", &[&e], &[]);
    let o = m.node("Or", &[&n, &b], &[]);
    let u = m.node("Cast", &[&i], &[("to", I(12))]);
    let three = m.c(Tensor::from_slice(&[1], &[3u32]));
    let u = m.node("BitShift", &[&u, &three], &[("direction", S("LEFT"))]);
    m.finish(&[y, o, u, j])
}

fn attention_net() -> Vec<u8> {
    let mut m = Model::new(17);
    let x = m.input("x", 1, "b,t,12");
    let shape = m.ints(&[0, -1, 3, 4]);
    let mut heads = vec![];
    for perm in [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]] {
        let (w, c) = (m.w(&[12, 12]), m.w(&[12]));
        let p = m.node("MatMul", &[&x, &w], &[]);
        let p = m.node("Add", &[&p, &c], &[]);
        let p = m.node("Reshape", &[&p, &shape], &[]);
        heads.push(m.node("Transpose", &[&p], &[("perm", Is(&perm))]));
    }
    let s = m.node("MatMul", &[&heads[0], &heads[1]], &[]);
    let k = m.c(Tensor::scalar(0.5f32));
    let s = m.node("Mul", &[&s, &k], &[]);
    let s = m.node("Softmax", &[&s], &[("axis", I(3))]);
    let y = m.node("MatMul", &[&s, &heads[2]], &[]);
    let y = m.node("Transpose", &[&y], &[("perm", Is(&[0, 2, 1, 3]))]);
    let back = m.ints(&[0, 0, 12]);
    let y = m.node("Reshape", &[&y, &back], &[]);
    let y = m.node("Add", &[&y, &x], &[]);
    m.finish(&[y])
}

/// Shapes come from the data of inputs.
fn host_net() -> Vec<u8> {
    let mut m = Model::new(13);
    let (x, s, r, l) = (m.input("x", 1, "4,n"), m.input("s", 7, "2"), m.input("r", 7, "2"), m.input("l", 7, ""));
    let y = m.node("Reshape", &[&x, &s], &[]);
    let t = m.node("Tile", &[&x, &r], &[]);
    let e = m.node("Expand", &[&x, &r], &[]);
    let (z, one) = (m.c(Tensor::scalar(0i64)), m.c(Tensor::scalar(1i64)));
    let g = m.node("Range", &[&z, &l, &one], &[]);
    let f = m.node("ConstantOfShape", &[&r], &[]);
    let f = m.node("Exp", &[&f], &[]);
    m.finish(&[y, t, e, g, f])
}

/// Branches, loops, scans, sequences and shapes that follow from data.
fn control_net() -> Vec<u8> {
    let mut m = Model::new(17);
    let (x, c) = (m.input("x", 1, "n,4"), m.input("c", 9, ""));
    let mut a = Model::body(100, &[]);
    let y = a.node("Exp", &[&x], &[]);
    let mut b = Model::body(200, &[]);
    let k = b.w(&[4]);
    let z = b.node("Add", &[&x, &k], &[]);
    let v = m.node("If", &[&c], &[("then_branch", G(a.outputs(&[&y]))), ("else_branch", G(b.outputs(&[&z])))]);
    let mut l = Model::body(300, &["turn", "go", "s"]);
    let t = l.node("Concat", &["s", &x], &[("axis", I(0))]);
    let f = l.node("Cast", &["turn"], &[("to", I(1))]);
    let e = l.node("Add", &[&f, &f], &[]);
    let go = l.node("Identity", &["go"], &[]);
    let body = l.outputs(&[&go, &t, &e]);
    let (trips, yes) = (m.c(Tensor::scalar(3i64)), m.c(Tensor::scalar(true)));
    let looped = m.many("Loop", &[&trips, &yes, &v], &[("body", G(body))], 2);
    let mut s = Model::body(400, &["h", "row"]);
    let h = s.node("Mul", &["h", "row"], &[]);
    let g = s.node("Tanh", &[&h], &[]);
    let start = m.w(&[4]);
    let body = s.outputs(&[&h, &g]);
    let scan = [("body", G(body)), ("num_scan_inputs", I(1)), ("scan_input_directions", Is(&[1])), ("scan_output_axes", Is(&[1]))];
    let scanned = m.many("Scan", &[&start, &looped[0]], &scan, 2);
    let seq = m.node("SequenceConstruct", &[&x, &v], &[]);
    let at = m.c(Tensor::scalar(-1i64));
    let seq = m.node("SequenceInsert", &[&seq, &v, &at], &[]);
    let one = m.node("SequenceAt", &[&seq, &at], &[]);
    let all = m.node("ConcatFromSequence", &[&seq], &[("axis", I(0)), ("new_axis", I(0))]);
    let at = m.node("NonZero", &[&all], &[]);
    let at = m.node("Transpose", &[&at], &[("perm", Is(&[1, 0]))]);
    let picked = m.node("GatherND", &[&all, &at], &[]);
    let keep = m.node("Greater", &[&picked, &picked], &[]);
    let kept = m.node("Compress", &[&picked, &keep], &[]);
    let u = m.many("Unique", &[&picked], &[("sorted", I(1))], 4);
    m.finish(&[scanned[0].clone(), scanned[1].clone(), looped[1].clone(), one, kept, u[0].clone(), u[3].clone()])
}

/// Constants all the way: what folding computes.
fn folded_net() -> Vec<u8> {
    let mut m = Model::new(13);
    let x = m.input("x", 1, "2,3,4,4");
    let s = m.ints(&[4, 3, 3, 3]);
    let w = m.node("ConstantOfShape", &[&s], &[("value", A::T(Tensor::from_slice(&[1], &[0.25f32])))]);
    let v = m.node("Conv", &[&x, &w], &[]);
    let e = m.ints(&[1, 4, 1, 1]);
    let c = m.w(&[4, 1, 1]);
    let c = m.node("Expand", &[&c, &e], &[]);
    let rep = m.ints(&[1, 1, 2, 2]);
    let c = m.node("Tile", &[&c, &rep], &[]);
    let v = m.node("Mul", &[&v, &c], &[]);
    let (z, n, d) = (m.c(Tensor::scalar(0.0f32)), m.c(Tensor::scalar(8.0f32)), m.c(Tensor::scalar(2.0f32)));
    let r = m.node("Range", &[&z, &n, &d], &[]);
    let to = m.ints(&[4, 1, 1]);
    let r = m.node("Reshape", &[&r, &to], &[]);
    let pads = m.ints(&[0, 0, 0, 0, 1, 1]);
    let r = m.node("Pad", &[&r, &pads], &[]);
    let v = m.node("Add", &[&v, &r], &[]);
    let sc = m.c(Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 2.0]));
    let k = m.w(&[1, 4, 1, 1]);
    let k = m.node("Resize", &[&k, "", &sc], &[("mode", S("nearest"))]);
    let y = m.node("Sub", &[&v, &k], &[]);
    m.finish(&[y])
}

/// Half precision, and constants in typed fields.
fn half_net() -> Vec<u8> {
    let mut m = Model::new(11);
    let x = m.input("x", onnx_code_of(sinter::base::DType::F16), "n,4");
    let w = TensorProto {
        dims: vec![4, 3],
        data_type: Some(10),
        name: Some("w".into()),
        int32_data: (0..12).map(|i| 0x3c00 + i).collect(),
        ..Default::default()
    };
    m.graph.initializer.push(w);
    let q = TensorProto {
        dims: vec![3],
        data_type: Some(3),
        name: Some("q".into()),
        raw_data: Some(Bytes::from_static(&[1, 2, 0xff])),
        ..Default::default()
    };
    m.graph.initializer.push(q);
    let y = m.node("MatMul", &[&x, "w"], &[]);
    let q = m.node("Cast", &["q"], &[("to", I(10))]);
    let y = m.node("Mul", &[&y, &q], &[]);
    let v = m.node("Unsqueeze", &[&y], &[("axes", Is(&[0]))]);
    let v = m.node("ReduceSum", &[&v], &[("axes", Is(&[-1])), ("keepdims", I(0))]);
    let s = m.many("Split", &[&y], &[("axis", I(1)), ("split", Is(&[1, 2]))], 2);
    let c = m.node("Clip", &[&s[1]], &[]);
    m.finish(&[v, c, s[0].clone()])
}

/// Models of one long chain each, by what it strains.
pub fn chains() -> Vec<(&'static str, Vec<u8>)> {
    let mut out = Vec::new();
    for (name, op) in [("quotients", "Div"), ("products", "Mul"), ("maxima", "Max"), ("sums", "Add")] {
        let mut m = Model::new(17);
        let x = m.input("x", 1, "n,m");
        let s = m.node("Shape", &[&x], &[]);
        let (three, seven) = (m.ints(&[3, 3]), m.ints(&[7, 5]));
        let mut v = s.clone();
        for i in 0..400 {
            v = match op {
                "Mul" | "Add" => m.node(op, &[&v, if i % 2 == 0 { &v } else { &s }], &[]),
                _ => {
                    let d = m.node("Div", &[&v, if op == "Div" { &three } else { &s }], &[]);
                    let v = if op == "Max" { m.node("Max", &[&v, &d], &[]) } else { d };
                    m.node("Add", &[&v, &seven], &[])
                }
            };
        }
        let y = m.node("ConstantOfShape", &[&v], &[]);
        out.push((name, m.finish(&[y])));
    }
    let mut m = Model::new(13);
    let x = m.input("x", 1, "1");
    let (mut c, rep) = (m.w(&[2]), m.ints(&[2]));
    for _ in 0..30 {
        c = m.node("Tile", &[&c, &rep], &[]);
    }
    let y = m.node("Add", &[&x, &c], &[]);
    out.push(("constants", m.finish(&[y])));
    let mut m = Model::new(13);
    let mut v = m.input("x", 1, "n,2");
    for _ in 0..60 {
        v = m.node("Concat", &[&v, &v], &[("axis", I(1))]);
    }
    out.push(("concatenations", m.finish(&[v])));
    let mut m = Model::new(13);
    let x = m.input("x", 1, "n");
    let names: Vec<String> = (0..20_000).map(|i| m.input(&format!("in{i}"), 1, "n")).collect();
    let y = m.node("Add", &[&x, &names[0]], &[]);
    out.push(("inputs", m.finish(&[y])));
    out
}

/// All base models.
pub fn models() -> Vec<Vec<u8>> {
    let mut list = vec![
        conv_net(), deconv_net(), shape_net(), mover_net(), reduce_net(), resize_net(), point_net(), attention_net(), host_net(),
        folded_net(), control_net(), half_net(),
    ];
    list.push(std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/examples_c/models/digits.onnx")).expect("the example's model"));
    if let Some(dir) = knobs::TEST_MODELS.get() {
        let mut files: Vec<Vec<u8>> = std::fs::read_dir(&dir)
            .expect("the folder of models")
            .filter_map(|e| std::fs::read(e.ok()?.path().join("model.onnx")).ok())
            .filter(|b| b.len() < 32 << 10 && import_bytes(b.clone(), None).is_ok())
            .collect();
        files.sort();
        list.extend(files);
    }
    list
}

/// An engine of each model for the CPU, and one with a plan where the null device can be planned for.
pub fn engines(models: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    let mut n_plans = 0;
    for m in models {
        let g = import_bytes(m.clone(), None).expect("bases import");
        for kind in [DeviceKind::Cpu, DeviceKind::Null] {
            let device = DeviceRef::open(kind).expect("always there");
            match build(&g, &BuilderConfig::default(), &device, &mut |_, _| true) {
                Ok(image) => {
                    n_plans += image.plan.is_some() as usize;
                    list.push(image.to_bytes().expect("an engine that was built can be written"));
                }
                Err(e) => assert!(kind == DeviceKind::Null, "a base is not built for the CPU: {e}"),
            }
        }
    }
    assert!(n_plans > 3, "only {n_plans} engines have a plan");
    list
}
