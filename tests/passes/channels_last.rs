//! `channels_last`: small networks of every shape that it is for keep no transpose between convolutions, and their
//! numbers.

use super::*;
use sinter::ops::concat::Concat;
use sinter::ops::conv_transpose::ConvTranspose;
use sinter::ops::depth_to_space::{DepthMode, DepthToSpace};
use sinter::ops::gather::Gather;
use sinter::ops::normalize::Normalize;
use sinter::ops::pad::{Pad, PadMode};
use sinter::ops::pool::{Pool, PoolKind};
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::reshape::Reshape;
use sinter::ops::resize::{CoordinateMode, NearestMode, Resize, ResizeMode};
use sinter::ops::shape::Shape as ShapeOf;
use sinter::ops::slice::Slice;
use sinter::ops::softmax::Softmax;
use sinter::ops::transpose::Transpose;
use sinter::ops::window::ChannelOrder;
use sinter::passes::{ChannelsLast, FoldConstants, LowerPrecision, run_target};

const CUDA: PassOptions =
    PassOptions { target: Target::Cuda { sm: 90 }, fp16: true, skip: vec![], stop_after: None, verify: true };

impl Build {
    fn conv_of(&mut self, x: ValueId, m: usize, k: usize, f: impl FnOnce(&mut Conv)) -> ValueId {
        let mut op = conv2d(k as i64 / 2);
        f(&mut op);
        let name = format!("conv{}", self.g.n_nodes());
        let y = self.conv(&name, x, m, k, op);
        // Sums stay near one.
        let scale = self.num(1.0 / (k as f32));
        self.pw(&format!("scale{}", self.g.n_nodes()), Func::Mul, &[y, scale])
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        self.pw(&format!("relu{}", self.g.n_nodes()), Func::Relu, &[x])
    }

    fn silu(&mut self, x: ValueId) -> ValueId {
        let s = self.pw(&format!("sigmoid{}", self.g.n_nodes()), Func::Sigmoid, &[x]);
        self.pw(&format!("mul{}", self.g.n_nodes()), Func::Mul, &[s, x])
    }

    fn plus(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.pw(&format!("add{}", self.g.n_nodes()), Func::Add, &[a, b])
    }

    fn concat(&mut self, xs: &[ValueId]) -> ValueId {
        self.node(&format!("concat{}", self.g.n_nodes()), Concat { axis: 1 }, xs)
    }

    fn pool(&mut self, x: ValueId, kind: PoolKind, k: i64, stride: i64) -> ValueId {
        let op = Pool {
            kind,
            kernel: vec![k, k],
            strides: vec![stride; 2],
            pads: vec![if k == 2 { 0 } else { k / 2 }; 4],
            dilations: vec![],
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            count_include_pad: false,
            p: 2,
            indices: false,
            storage_order: 0,
            order: ChannelOrder::First,
        };
        self.node(&format!("pool{}", self.g.n_nodes()), op, &[x])
    }

    fn global_mean(&mut self, x: ValueId, keepdims: bool) -> ValueId {
        let op = Reduce::over(ReduceKind::Mean, vec![2, 3], keepdims);
        self.node(&format!("mean{}", self.g.n_nodes()), op, &[x])
    }

    fn resize(&mut self, x: ValueId, mode: ResizeMode, scale: f32) -> ValueId {
        let op = Resize {
            mode,
            coordinates: CoordinateMode::HalfPixel,
            nearest: NearestMode::RoundPreferFloor,
            cubic_coeff_a: -0.75,
            exclude_outside: false,
            extrapolation_value: 0.0,
            axes: None,
            keep_aspect_ratio: "stretch".into(),
            antialias: false,
        };
        let scales = self.k(Tensor::from_slice(&[4], &[1.0, 1.0, scale, scale]));
        let name = format!("resize{}", self.g.n_nodes());
        self.g.add_node(&name, op.into(), &[Some(x), None, Some(scales)]).unwrap()[0]
    }

    fn slice(&mut self, x: ValueId, axis: i64, start: i64, end: i64) -> ValueId {
        let (s, e, a) = (self.ints(&[start]), self.ints(&[end]), self.ints(&[axis]));
        self.node(&format!("slice{}", self.g.n_nodes()), Slice {}, &[x, s, e, a])
    }

    fn reshape(&mut self, x: ValueId, spec: &[i64]) -> ValueId {
        let op = Reshape { spec: Some(spec.to_vec()), allow_zero: false, ..Reshape::to_shape(vec![]) };
        self.node(&format!("reshape{}", self.g.n_nodes()), op, &[x])
    }

    fn transpose(&mut self, x: ValueId, perm: &[i64]) -> ValueId {
        self.node(&format!("transpose{}", self.g.n_nodes()), Transpose { perm: perm.to_vec() }, &[x])
    }

    fn image(&mut self, c: i64, size: i64) -> ValueId {
        self.input("x", &["n".into(), c.into(), size.into(), size.into()])
    }

    /// Squeeze and excitation.
    fn excite(&mut self, x: ValueId, c: usize) -> ValueId {
        let s = self.global_mean(x, true);
        let s = self.conv_of(s, c / 2, 1, |_| {});
        let s = self.relu(s);
        let s = self.conv_of(s, c, 1, |_| {});
        let (a, b) = (self.num(1.0 / 6.0), self.num(0.5));
        let s = self.node(
            "hard",
            Pointwise { program: Program::single(Func::HardSigmoid, &[DType::F32; 3]).unwrap() },
            &[s, a, b],
        );
        self.pw(&format!("excite{}", self.g.n_nodes()), Func::Mul, &[x, s])
    }
}

fn orders(g: &Graph) -> Vec<ChannelOrder> {
    let nodes = g.order().unwrap();
    nodes.iter().filter_map(|n| if let Op::Conv(c) = &g.node(*n).op { Some(c.order) } else { None }).collect()
}

/// Optimizes for CUDA and checks numbers; every convolution but the last `first` reads or gives channels last.
fn optimized(before: &Graph, transposes: usize) -> Graph {
    let mut g = before.clone();
    run_target(&mut g, &CUDA).unwrap();
    g.verify().unwrap();
    assert_same(before, &g, F16_ROUNDING);
    assert_eq!(count(&g, "Transpose"), transposes, "{g}");
    assert!(orders(&g).iter().all(|o| *o != ChannelOrder::First), "{g}");
    g
}

#[test]
fn a_residual_network_has_no_transposes() {
    let mut b = Build::new();
    let x = b.image(3, 16);
    let c = b.conv_of(x, 8, 7, |c| c.strides = vec![2, 2]);
    let r = b.relu(c);
    let mut v = b.pool(r, PoolKind::Max, 3, 2);
    for stride in [1, 2] {
        let a = b.conv_of(v, 4, 1, |_| {});
        let a = b.relu(a);
        let a = b.conv_of(a, 4, 3, |c| c.strides = vec![stride; 2]);
        let a = b.relu(a);
        let a = b.conv_of(a, 16, 1, |_| {});
        let down = b.conv_of(v, 16, 1, |c| c.strides = vec![stride; 2]);
        let s = b.plus(a, down);
        v = b.relu(s);
    }
    let m = b.global_mean(v, true);
    let f = b.reshape(m, &[0, -1]);
    let w = b.c(&[16, 5]);
    let y = b.node("fc", matmul(), &[f, w]);
    let g = optimized(&b.out(y), 0);
    assert_eq!(orders(&g)[0], ChannelOrder::FirstToLast, "{g}");
    assert!(orders(&g)[1..].iter().all(|o| *o == ChannelOrder::Last), "{g}");
    // Epilogues are fused as before: nothing element-wise is left but the conversion in and what follows the mean.
    assert!(count(&g, "Pointwise") <= 2, "{g}");
    let Op::Pool(p) = &the(&g, "Pool").op else { unreachable!() };
    assert_eq!(p.order, ChannelOrder::Last);
}

#[test]
fn squeeze_and_excitation_stays_in_order() {
    let mut b = Build::new();
    let x = b.image(3, 12);
    let c = b.conv_of(x, 8, 3, |c| c.strides = vec![2, 2]);
    let mut v = b.silu(c);
    for _ in 0..2 {
        let e = b.conv_of(v, 16, 1, |_| {});
        let e = b.silu(e);
        let d = b.conv_of(e, 16, 5, |c| c.group = 16);
        let d = b.silu(d);
        let s = b.excite(d, 16);
        let p = b.conv_of(s, 8, 1, |_| {});
        v = b.plus(p, v);
    }
    let m = b.global_mean(v, false);
    let w = b.c(&[8, 5]);
    let y = b.node("fc", matmul(), &[m, w]);
    optimized(&b.out(y), 0);
}

#[test]
fn a_segmentation_network_has_one_at_its_end() {
    let mut b = Build::new();
    let x = b.input("x", &[1.into(), 3.into(), 16.into(), 16.into()]);
    let c = b.conv_of(x, 8, 3, |c| c.strides = vec![2, 2]);
    let v = b.relu(c);
    let mut branches = vec![b.conv_of(v, 8, 1, |_| {})];
    for d in [2, 3] {
        branches.push(b.conv_of(v, 8, 3, |c| (c.dilations, c.pads) = (vec![d, d], vec![d; 4])));
    }
    let m = b.global_mean(v, true);
    let m = b.conv_of(m, 8, 1, |_| {});
    branches.push(b.resize(m, ResizeMode::Linear, 8.0));
    let j = b.concat(&branches);
    let c = b.conv_of(j, 8, 1, |_| {});
    let r = b.relu(c);
    let c = b.conv_of(r, 5, 1, |_| {});
    let up = b.resize(c, ResizeMode::Linear, 2.0);
    let g = optimized(&b.out(up), 1);
    // The classes of each pixel need none.
    let mut b2 = Build { g: Graph::new("classes"), rng: Rng(7) };
    let x = b2.input("x", &[1.into(), 3.into(), 8.into(), 8.into()]);
    let c = b2.conv_of(x, 8, 3, |_| {});
    let r = b2.relu(c);
    let c = b2.conv_of(r, 5, 1, |_| {});
    let best = b2.node("best", Reduce::over(ReduceKind::ArgMax, vec![1], false), &[c]);
    optimized(&b2.out(best), 0);
    drop(g);
}

#[test]
fn a_detector_has_none() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 3.into(), 16.into(), 16.into()]);
    let c = b.conv_of(x, 8, 3, |c| c.strides = vec![2, 2]);
    let v = b.silu(c);
    let c = b.conv_of(v, 8, 1, |_| {});
    let s = b.silu(c);
    let (left, right) = (b.slice(s, 1, 0, 4), b.slice(s, 1, 4, 8));
    let c = b.conv_of(right, 4, 3, |_| {});
    let c = b.silu(c);
    let k = b.plus(c, right);
    let j = b.concat(&[left, right, k]);
    let c = b.conv_of(j, 8, 1, |_| {});
    let v = b.silu(c);
    let p1 = b.pool(v, PoolKind::Max, 5, 1);
    let p2 = b.pool(p1, PoolKind::Max, 5, 1);
    let j = b.concat(&[v, p1, p2]);
    let small = b.pool(j, PoolKind::Max, 2, 2);
    let up = b.resize(small, ResizeMode::Nearest, 2.0);
    let j = b.concat(&[up, v]);
    let fine = b.conv_of(j, 6, 3, |_| {});
    let coarse = b.conv_of(small, 6, 3, |_| {});
    let (f, c) = (b.reshape(fine, &[0, 6, -1]), b.reshape(coarse, &[0, 6, -1]));
    let all = b.node("all", Concat { axis: 2 }, &[f, c]);
    let scores = b.pw("scores", Func::Sigmoid, &[all]);
    let y = b.transpose(scores, &[0, 2, 1]);
    optimized(&b.out(y), 0);
}

#[test]
fn dense_blocks_join_along_the_last_axis() {
    let mut b = Build::new();
    let x = b.image(3, 12);
    let mut v = b.conv_of(x, 8, 3, |_| {});
    for i in 0..3 {
        let c = 8 + 4 * i;
        let (s, t) = (b.c(&[c, 1, 1]), b.c(&[1, c, 1, 1]));
        let a = b.pw(&format!("s{i}"), Func::Mul, &[v, s]);
        let a = b.plus(a, t);
        let a = b.relu(a);
        let a = b.conv_of(a, 4, 3, |_| {});
        v = b.concat(&[v, a]);
    }
    let v = b.pool(v, PoolKind::Average, 2, 2);
    let c = b.conv_of(v, 8, 1, |_| {});
    let m = b.global_mean(c, true);
    let y = b.reshape(m, &[0, 8]);
    optimized(&b.out(y), 0);
}

#[test]
fn transposes_of_a_network_vanish_in_the_order_of_its_convolutions() {
    // ConvNeXt: the normalization and the products of each block have the channels last.
    let mut b = Build::new();
    let x = b.image(3, 16);
    let mut v = b.conv_of(x, 8, 4, |c| (c.strides, c.pads) = (vec![4, 4], vec![0; 4]));
    for i in 0..2 {
        let d = b.conv_of(v, 8, 7, |c| c.group = 8);
        let t = b.transpose(d, &[0, 2, 3, 1]);
        let (scale, shift) = (b.c(&[8]), b.c(&[8]));
        let l = b.node(&format!("norm{i}"), Normalize::rows(-1, true, 1e-5), &[t, scale, shift]);
        let (w1, w2) = (b.c(&[8, 16]), b.c(&[16, 8]));
        let h = b.node(&format!("up{i}"), matmul(), &[l, w1]);
        let h = b.relu(h);
        let h = b.node(&format!("down{i}"), matmul(), &[h, w2]);
        let h = b.transpose(h, &[0, 3, 1, 2]);
        v = b.plus(h, v);
    }
    let m = b.global_mean(v, false);
    optimized(&b.out(m), 0);
    // A patch embedding is a product of rows.
    let mut b = Build::new();
    let x = b.image(3, 8);
    let c = b.conv_of(x, 8, 4, |c| (c.strides, c.pads) = (vec![4, 4], vec![0; 4]));
    let f = b.reshape(c, &[0, 8, 4]);
    let t = b.transpose(f, &[0, 2, 1]);
    let y = b.node("softmax", Softmax { axis: -1, log: false, flatten: false }, &[t]);
    optimized(&b.out(y), 0);
    // A network that has its channels last already: input, output and all.
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 8.into(), 8.into(), 8.into()]);
    let t = b.transpose(x, &[0, 3, 1, 2]);
    let c = b.conv_of(t, 8, 3, |_| {});
    let r = b.relu(c);
    let y = b.transpose(r, &[0, 2, 3, 1]);
    let g = optimized(&b.out(y), 0);
    assert_eq!(orders(&g), [ChannelOrder::Last]);
}

#[test]
fn convolutions_along_one_axis_follow() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 6.into(), 20.into()]);
    let op = |pad| Conv { strides: vec![1], pads: vec![pad; 2], dilations: vec![1], ..conv2d(0) };
    let (w1, w2) = (b.c(&[8, 6, 3]), b.c(&[8, 8, 3]));
    let a = b.node("conv1", op(1), &[x, w1]);
    let a = b.relu(a);
    let a = b.node("conv2", op(0), &[a, w2]);
    let y = b.transpose(a, &[0, 2, 1]);
    // Six channels are brought last once, where they come in.
    optimized(&b.out(y), 1);
}

#[test]
fn other_operators_between_convolutions_follow() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 3.into(), 12.into(), 12.into()]);
    let c = b.conv_of(x, 16, 3, |_| {});
    // A factor for each place, from the channels.
    let place = b.node("place", Reduce::over(ReduceKind::Max, vec![1], true), &[c]);
    let c = b.pw("attend", Func::Mul, &[c, place]);
    // A factor for each column, which has fewer axes.
    let columns = b.node("columns", Reduce::over(ReduceKind::Mean, vec![0, 1, 2], false), &[c]);
    let c = b.pw("by_column", Func::Add, &[c, columns]);
    let s = b.node("softmax", Softmax { axis: 1, log: false, flatten: false }, &[c]);
    let pads = b.ints(&[0, 0, 1, 2, 0, 0, 0, 1]);
    let p = b.node("pad", Pad { mode: PadMode::Constant }, &[s, pads]);
    let index = b.ints(&[3, 1, 2, 0, 7, 6, 5, 4]);
    let p = b.node("shuffle", Gather { axis: 1 }, &[p, index]);
    let c = b.conv_of(p, 16, 3, |_| {});
    let d = b.node("depth", DepthToSpace { block: 2, mode: DepthMode::Crd, inverse: false }, &[c]);
    let c = b.conv_of(d, 8, 3, |_| {});
    let d = b.slice(c, 2, 0, 12);
    let d = b.slice(d, 3, 0, 14);
    let d = b.node("space", DepthToSpace { block: 2, mode: DepthMode::Dcr, inverse: true }, &[d]);
    let c = b.conv_of(d, 16, 1, |_| {});
    let d = b.node("depth2", DepthToSpace { block: 2, mode: DepthMode::Dcr, inverse: false }, &[c]);
    let d = b.node("space2", DepthToSpace { block: 2, mode: DepthMode::Crd, inverse: true }, &[d]);
    let c = b.conv_of(d, 8, 1, |_| {});
    let y = b.global_mean(c, false);
    // Those that move blocks are transposes, as they were copies before.
    optimized(&b.out(y), 4);
}

#[test]
fn an_upsampling_by_a_transposed_convolution_keeps_its_own_order() {
    let mut b = Build::new();
    let x = b.input("x", &[1.into(), 3.into(), 16.into(), 16.into()]);
    let c = b.conv_of(x, 8, 3, |_| {});
    let skip = b.relu(c);
    let p = b.pool(skip, PoolKind::Max, 2, 2);
    let c = b.conv_of(p, 8, 3, |_| {});
    let low = b.relu(c);
    let w = b.c(&[8, 8, 2, 2]);
    let op = ConvTranspose {
        strides: vec![2, 2],
        pads: vec![0; 4],
        dilations: vec![1, 1],
        group: 1,
        auto_pad: AutoPad::NotSet,
        output_padding: vec![],
        output_shape: None,
        epilogue: None,
    };
    let up = b.node("up", op, &[low, w]);
    let j = b.concat(&[up, skip]);
    let c = b.conv_of(j, 8, 3, |_| {});
    let y = b.relu(c);
    // Around the transposed convolution and at the output.
    optimized(&b.out(y), 3);
}

#[test]
fn a_lone_small_convolution_keeps_its_order() {
    let mut b = Build::new();
    let x = b.input("x", &[1.into(), 8.into(), 8.into(), 8.into()]);
    let c = b.conv_of(x, 8, 1, |_| {});
    let y = b.node("flat", Reshape::to_shape(vec![1, 512]), &[c]);
    let before = b.out(y);
    let mut g = before.clone();
    let report = run_target(&mut g, &CUDA).unwrap();
    assert_same(&before, &g, F16_ROUNDING);
    assert_eq!((orders(&g), count(&g, "Transpose")), (vec![ChannelOrder::First], 0), "{g}");
    assert!(report.refusals.iter().any(|r| r.contains("would cost more than channels last save")), "{:?}", report.refusals);
    // Weights that are computed are not transposed at each run.
    let mut b = Build::new();
    let (x, w) = (b.input("x", &[1.into(), 8.into(), 8.into(), 8.into()]), b.input("w", &[8.into(), 8.into(), 3.into(), 3.into()]));
    let c = b.node("conv", conv2d(1), &[x, w]);
    let mut g = b.out(c);
    let report = run_target(&mut g, &CUDA).unwrap();
    assert!(report.refusals.iter().any(|r| r.contains("weights are no constant")), "{:?}", report.refusals);
}

#[test]
fn only_devices_with_kernels_for_it_are_asked() {
    let mut b = Build::new();
    let x = b.image(3, 8);
    let c = b.conv_of(x, 8, 3, |_| {});
    let m = b.global_mean(c, false);
    let before = b.out(m);
    let options = [
        PassOptions::new(Target::Cpu),
        PassOptions { fp16: true, ..PassOptions::new(Target::Cuda { sm: 75 }) },
        PassOptions { fp16: false, ..CUDA },
        PassOptions { skip: vec!["channels_last".into()], ..CUDA },
    ];
    for o in options {
        let mut g = before.clone();
        run_target(&mut g, &o).unwrap();
        assert_eq!(orders(&g), [ChannelOrder::First], "{o:?}");
    }
}

#[test]
fn sizes_that_are_asked_for_need_no_copy() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 3.into(), "h".into(), "w".into()]);
    let c = b.conv_of(x, 8, 3, |c| c.strides = vec![2, 2]);
    let c = b.relu(c);
    let shape = b.node("shape", ShapeOf { start: 2, end: None, size: false }, &[c]);
    let count_of = b.node("size", ShapeOf { start: 0, end: None, size: true }, &[c]);
    let m = b.global_mean(c, false);
    b.g.add_output("shape", shape).unwrap();
    b.g.add_output("size", count_of).unwrap();
    optimized(&b.out(m), 0);
}

#[test]
fn outputs_in_both_orders_each_have_a_node() {
    let mut b = Build::new();
    let x = b.image(4, 6);
    let c = b.conv_of(x, 8, 3, |_| {});
    let c = b.relu(c);
    let first = b.transpose(c, &[0, 2, 3, 1]);
    let second = b.transpose(c, &[0, 2, 3, 1]);
    let other = b.transpose(c, &[0, 3, 1, 2]);
    for (name, v) in [("first", first), ("second", second), ("other", other)] {
        b.g.add_output(name, v).unwrap();
    }
    let before = b.out(c);
    let mut g = before.clone();
    run_target(&mut g, &CUDA).unwrap();
    assert_same(&before, &g, F16_ROUNDING);
}

/// The pass alone changes the order of sums and nothing else.
#[test]
fn random_networks_keep_their_numbers() {
    let (mut n_last, mut n_left) = (0, 0);
    for seed in 0..60 {
        let before = super::random::random_graph(seed, 14);
        let lists = |with: bool| -> Graph {
            let mut list: Vec<Box<dyn Pass>> = vec![Box::new(LowerPrecision), Box::new(FoldConstants)];
            if with {
                list.push(Box::new(ChannelsLast));
            }
            let mut g = before.clone();
            run_list(&mut g, &list, &CUDA, 1).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{before}"));
            g.verify().unwrap();
            g
        };
        let (a, b) = (lists(false), lists(true));
        assert_same(&a, &b, 4e-3);
        n_last += orders(&b).iter().filter(|o| **o != ChannelOrder::First).count();
        n_left += orders(&b).iter().filter(|o| **o == ChannelOrder::First).count();
    }
    assert!(n_last > 30, "{n_last} of {} convolutions", n_last + n_left);
}
