//! Networks whose shapes follow from data, and those with graphs inside: one context runs many sets of data, growing and
//! shrinking, and must give what the reference executor gives each time. `cpu.rs` and `gpu.rs` run this on their devices.

use sinter::base::{AttrValue, Attrs, DType, Dim, ErrorCode, Fact, Tensor};
use sinter::builder::{BuilderConfig, build};
use sinter::device::{Buffer, CopyKind, DeviceRef};
use sinter::engine::{Engine, OtherDevice};
use sinter::network::layers::Network;
use sinter::network::{Graph, ValueId};
use sinter::ops::branch::If;
use sinter::ops::loop_op::Loop;
use sinter::ops::scan::Scan;
use sinter::runtime::{Context, GrowingOutput};
use std::sync::Arc;

fn attrs<const N: usize>(list: [(&str, AttrValue); N]) -> Attrs {
    Attrs(list.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
}

fn net(inputs: &[(&str, DType, Vec<Dim>)]) -> (Network, Vec<ValueId>) {
    let mut n = Network::new("n");
    let ids = inputs.iter().map(|(name, d, s)| n.graph.add_input(name, Fact::new(*d, s.clone())).unwrap()).collect();
    (n, ids)
}

fn add(n: &mut Network, op: &str, inputs: &[ValueId], a: Attrs) -> ValueId {
    let inputs: Vec<_> = inputs.iter().map(|v| Some(*v)).collect();
    n.add("", op, &inputs, &a).unwrap_or_else(|e| panic!("{op}: {e}"))
}

fn finish(mut n: Network, outputs: &[(&str, ValueId)]) -> Graph {
    outputs.iter().for_each(|(name, v)| n.graph.add_output(name, *v).unwrap());
    n.graph.verify().unwrap();
    n.graph
}

fn engine(g: &Graph, device: &DeviceRef) -> Arc<Engine> {
    let image = build(g, &BuilderConfig::default(), device, &mut |_, _| true).unwrap();
    // Through a file: graphs inside of nodes must survive it.
    Engine::from_bytes(&image.to_bytes().unwrap(), device, OtherDevice::Error).unwrap()
}

fn put(device: &DeviceRef, t: &Tensor) -> Buffer {
    let b = Buffer::new(device, t.bytes().len().max(1)).unwrap();
    // SAFETY: the buffer has room for the bytes.
    unsafe { device.upload([(b.ptr(), t.bytes())]).unwrap() };
    b
}

/// Runs every set of inputs on one context, and again in the reverse order, against the reference.
fn check(what: &str, g: &Graph, device: &DeviceRef, sets: &[Vec<Tensor>]) {
    let engine = engine(g, device);
    let mut cx = Context::new(&engine).unwrap();
    let names: Vec<String> = g.outputs().iter().map(|p| p.name.clone()).collect();
    let memory: Vec<Arc<GrowingOutput>> = names.iter().map(|_| Arc::new(GrowingOutput::new(device))).collect();
    for (n, m) in names.iter().zip(&memory) {
        cx.set_output_allocator(n, Some(m.clone())).unwrap();
    }
    for (k, set) in sets.iter().chain(sets.iter().rev()).enumerate() {
        let buffers: Vec<Buffer> = set.iter().map(|t| put(device, t)).collect();
        for ((p, t), b) in g.inputs().iter().zip(set).zip(&buffers) {
            cx.set_input_shape(&p.name, &t.shape().iter().map(|d| *d as i64).collect::<Vec<_>>()).unwrap();
            cx.bind(&p.name, b.ptr()).unwrap();
        }
        let want = g.eval_list(&set.iter().map(|t| Arc::new(t.clone())).collect::<Vec<_>>()).unwrap();
        // Twice: what the first run kept must not change the second.
        for run in 0..2 {
            cx.execute().unwrap_or_else(|e| panic!("{what}, set {k}, run {run}: {e}"));
            for ((name, m), w) in names.iter().zip(&memory).zip(&want) {
                // SAFETY: the device's NULL stream.
                let got = unsafe { m.to_host(w.dtype(), std::ptr::null_mut()).unwrap() };
                assert_eq!(got.shape(), w.shape(), "{what}, set {k}, run {run}: shape of {name}");
                let asked: Vec<usize> = cx.tensor_shape(name).unwrap().iter().map(|d| *d as usize).collect();
                assert_eq!(asked, w.shape(), "{what}, set {k}, run {run}: queried shape of {name}");
                for (i, (a, b)) in got.to_f64s().iter().zip(w.to_f64s()).enumerate() {
                    assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}, set {k}, run {run}: {name}[{i}] is {a}, not {b}");
                }
            }
        }
    }
}

fn f32s(shape: &[usize], v: impl Fn(usize) -> f32) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_slice(shape, &(0..n).map(v).collect::<Vec<_>>())
}

/// What is positive, doubled, with its positions: sizes differ from set to set, down to nothing.
fn selection(device: &DeviceRef) {
    let (mut n, ids) = net(&[("x", DType::F32, vec!["rows".into(), 3.into()])]);
    let zero = n.scalar(0.0, DType::F32);
    let positive = add(&mut n, "Greater", &[ids[0], zero], Attrs::new());
    let at = add(&mut n, "NonZero", &[positive], Attrs::new());
    let at = add(&mut n, "Transpose", &[at], attrs([("perm", AttrValue::Ints(vec![1, 0]))]));
    let picked = add(&mut n, "GatherND", &[ids[0], at], Attrs::new());
    let doubled = add(&mut n, "Add", &[picked, picked], Attrs::new());
    let shape = add(&mut n, "Shape", &[doubled], Attrs::new());
    let g = finish(n, &[("at", at), ("doubled", doubled), ("count", shape)]);
    let sets: Vec<Vec<Tensor>> = [4, 9, 1, 30, 2, 0]
        .iter()
        .map(|r| vec![f32s(&[*r, 3], |i| if (i * 7 + r) % 5 < 2 { i as f32 + 0.5 } else { -1.0 })])
        .chain([vec![f32s(&[5, 3], |_| -1.0)]])
        .collect();
    check("selection", &g, device, &sets);

    // An output of unknown size needs room that is told.
    let e = engine(&g, device);
    let mut cx = Context::new(&e).unwrap();
    let b = put(device, &sets[0][0]);
    cx.set_input_shape("x", &[4, 3]).unwrap();
    cx.bind("x", b.ptr()).unwrap();
    let refused = cx.tensor_shape("doubled").unwrap_err();
    assert!(refused.to_string().contains("depends on the data"), "{refused}");
    let out = Buffer::new(device, 4096).unwrap();
    ["at", "doubled", "count"].iter().for_each(|n| cx.bind(n, out.ptr()).unwrap());
    let refused = cx.execute().unwrap_err();
    assert!(refused.code == ErrorCode::InvalidState && refused.to_string().contains("allocator"), "{refused}");
    cx.bind_output("at", out.ptr(), 8).unwrap();
    let refused = cx.execute().unwrap_err();
    assert!(refused.to_string().contains("8 are bound"), "{refused}");
}

/// A length that the device computes: the host reads it back.
fn read_back(device: &DeviceRef) {
    let (mut n, ids) = net(&[("x", DType::F32, vec!["n".into()]), ("y", DType::F32, vec!["m".into()])]);
    // Large enough that the host does not compute it by itself.
    let wide = n.ints(&[8192, 1]);
    let rows = add(&mut n, "Expand", &[ids[0], wide], Attrs::new());
    let top = add(&mut n, "ReduceMax", &[rows], attrs([("keepdims", AttrValue::Int(0))]));
    let limit = add(&mut n, "Cast", &[top], attrs([("to", AttrValue::Int(7))]));
    let (zero, one) = (n.scalar(0.0, DType::I64), n.scalar(1.0, DType::I64));
    let steps = add(&mut n, "Range", &[zero, limit, one], Attrs::new());
    let axis = n.ints(&[0]);
    let end = add(&mut n, "Unsqueeze", &[limit, axis], Attrs::new());
    let start = n.ints(&[0]);
    let head = add(&mut n, "Slice", &[ids[1], start, end], Attrs::new());
    let twice = add(&mut n, "Mul", &[head, head], Attrs::new());
    let g = finish(n, &[("steps", steps), ("twice", twice)]);
    let set = |top: f32, m: usize| vec![f32s(&[3], |i| top - i as f32), f32s(&[m], |i| i as f32)];
    check("read back", &g, device, &[set(3.0, 5), set(0.0, 5), set(17.0, 40), set(2.0, 1)]);
}

/// Adds up until a limit; the condition follows from the data, the state grows, an inner branch decides the step.
fn growing_loop(device: &DeviceRef) {
    let (mut t, ids) = net(&[("v", DType::F32, vec![1.into()])]);
    let step = t.scalar(3.0, DType::F32);
    let y = add(&mut t, "Add", &[ids[0], step], Attrs::new());
    let then_body = finish(t, &[("y", y)]);
    let (mut e, ids) = net(&[("v", DType::F32, vec![1.into()]), ("s", DType::F32, vec![])]);
    let y = add(&mut e, "Mul", &[ids[0], ids[1]], Attrs::new());
    let else_body = finish(e, &[("y", y)]);

    let (mut b, ids) = net(&[
        ("turn", DType::I64, vec![]),
        ("go", DType::Bool, vec![]),
        ("all", DType::F32, vec!["?turn0".into()]),
        ("last", DType::F32, vec![1.into()]),
        ("scale", DType::F32, vec![]),
        ("limit", DType::F32, vec![]),
    ]);
    let five = b.scalar(5.0, DType::F32);
    let flat = b.ints(&[]);
    let scalar = add(&mut b, "Reshape", &[ids[3], flat], Attrs::new());
    let small = add(&mut b, "Less", &[scalar, five], Attrs::new());
    let op = If { then_body: Arc::new(then_body), else_body: Arc::new(else_body), n_then: 1 };
    let next = b.graph.add_node("step", op.into(), &[Some(small), Some(ids[3]), Some(ids[3]), Some(ids[4])]).unwrap()[0];
    let all = add(&mut b, "Concat", &[ids[2], next], attrs([("axis", AttrValue::Int(0))]));
    let next_scalar = add(&mut b, "Reshape", &[next, flat], Attrs::new());
    let go = add(&mut b, "Less", &[next_scalar, ids[5]], Attrs::new());
    let body = finish(b, &[("go", go), ("all", all), ("last", next), ("each", next)]);

    let (mut n, ids) = net(&[
        ("trips", DType::I64, vec![]),
        ("all", DType::F32, vec!["n".into()]),
        ("last", DType::F32, vec![1.into()]),
        ("scale", DType::F32, vec![]),
        ("limit", DType::F32, vec![]),
    ]);
    let op = Loop { body: Arc::new(body), n_state: 2 };
    let inputs = [Some(ids[0]), None, Some(ids[1]), Some(ids[2]), Some(ids[3]), Some(ids[4])];
    let out = n.graph.add_node("loop", op.into(), &inputs).unwrap();
    let sum = add(&mut n, "ReduceSum", &[out[0]], attrs([("keepdims", AttrValue::Int(0))]));
    let g = finish(n, &[("all_out", out[0]), ("last_out", out[1]), ("each", out[2]), ("sum", sum)]);
    let set = |trips: i64, n: usize, last: f32, scale: f32, limit: f32| {
        let scalar = |v: f32| Tensor::scalar(v);
        vec![Tensor::scalar(trips), f32s(&[n], |i| i as f32), f32s(&[1], |_| last), scalar(scale), scalar(limit)]
    };
    let sets = [
        set(100, 2, 1.0, 1.5, 50.0),
        set(3, 7, 1.0, 1.5, 50.0),
        set(0, 4, 1.0, 1.5, 50.0),
        set(100, 0, 1.0, 2.0, 1e5),
        set(100, 1, 100.0, 2.0, 5.0),
    ];
    check("growing loop", &g, device, &sets);
}

/// A running sum over rows, forwards and backwards.
fn scans(device: &DeviceRef) {
    let (mut b, ids) = net(&[
        ("sum", DType::F32, vec![3.into()]),
        ("row", DType::F32, vec![3.into()]),
        ("factor", DType::F32, vec![]),
    ]);
    let scaled = add(&mut b, "Mul", &[ids[1], ids[2]], Attrs::new());
    let sum = add(&mut b, "Add", &[ids[0], scaled], Attrs::new());
    let square = add(&mut b, "Mul", &[sum, sum], Attrs::new());
    let body = Arc::new(finish(b, &[("sum", sum), ("square", square)]));
    for (r_in, r_out) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let (mut n, ids) = net(&[
            ("first", DType::F32, vec![3.into()]),
            ("rows", DType::F32, vec!["n".into(), 3.into()]),
            ("factor", DType::F32, vec![]),
        ]);
        let op = Scan { body: body.clone(), n_state: 1, reverse_in: vec![r_in], reverse_out: vec![r_out] };
        let out = n.graph.add_node("scan", op.into(), &[Some(ids[0]), Some(ids[1]), Some(ids[2])]).unwrap();
        let g = finish(n, &[("sum", out[0]), ("squares", out[1])]);
        let set = |rows: usize| {
            vec![f32s(&[3], |i| i as f32), f32s(&[rows, 3], |i| (i % 7) as f32 - 3.0), Tensor::scalar(0.5f32)]
        };
        check(&format!("scan {r_in} {r_out}"), &g, device, &[set(4), set(1), set(9), set(0)]);
    }
}

/// A stream of the device, with everything put on it before anything is waited for.
fn on_a_stream(device: &DeviceRef) {
    let (mut n, ids) = net(&[("x", DType::F32, vec!["n".into()])]);
    let at = add(&mut n, "NonZero", &[ids[0]], Attrs::new());
    let g = finish(n, &[("at", at)]);
    let e = engine(&g, device);
    let mut cx = Context::new(&e).unwrap();
    let x = f32s(&[1000], |i| (i % 3 == 0) as u8 as f32);
    let b = put(device, &x);
    let out = Buffer::new(device, 8 * 1000).unwrap();
    cx.set_input_shape("x", &[1000]).unwrap();
    cx.bind("x", b.ptr()).unwrap();
    cx.bind_output("at", out.ptr(), out.bytes()).unwrap();
    let stream = device.stream_create().unwrap();
    for _ in 0..3 {
        cx.enqueue(stream, std::ptr::null_mut()).unwrap();
    }
    // SAFETY: our stream; the tensor has the bytes that are copied.
    unsafe {
        device.stream_synchronize(stream).unwrap();
        assert_eq!(cx.tensor_shape("at").unwrap(), [1, 334]);
        let mut t = Tensor::zeros(DType::I64, &[334]);
        let n = t.bytes().len();
        device.copy(t.bytes_mut().as_mut_ptr() as u64, out.ptr(), n, CopyKind::DeviceToHost, stream).unwrap();
        device.stream_synchronize(stream).unwrap();
        device.stream_destroy(stream).unwrap();
        assert!(t.to_i64s().iter().enumerate().all(|(i, v)| *v == 3 * i as i64));
    }
}

/// All of the above.
pub fn check_all(device: &DeviceRef) {
    selection(device);
    read_back(device);
    growing_loop(device);
    scans(device);
    on_a_stream(device);
}
