//! Shared cases of products and windows: reference, CPU, CUDA without a device and on one.

use super::steps::random;

pub mod conv {
    use super::random;
    use sinter::base::{DType, Tensor};
    use sinter::ops::conv::Conv;
    use sinter::ops::pointwise::{Func, Program};
    use sinter::ops::window::{AutoPad, ChannelOrder};

    #[derive(Clone, Debug)]
    pub struct Case {
        pub name: &'static str,
        pub x: Vec<usize>,
        pub w: Vec<usize>,
        pub op: Conv,
    }

    pub fn case(name: &'static str, x: &[usize], w: &[usize], f: impl FnOnce(&mut Conv)) -> Case {
        let mut op =
            Conv { strides: vec![], pads: vec![], dilations: vec![], group: 1, auto_pad: AutoPad::NotSet, order: Default::default(), epilogue: None };
        f(&mut op);
        Case { name, x: x.to_vec(), w: w.to_vec(), op }
    }

    pub fn cases() -> Vec<Case> {
        vec![
            case("plain 3x3", &[1, 3, 11, 13], &[5, 3, 3, 3], |_| {}),
            case("1x1", &[2, 17, 7, 5], &[19, 17, 1, 1], |_| {}),
            case("1x1 stride 2", &[1, 8, 9, 7], &[6, 8, 1, 1], |c| c.strides = vec![2, 2]),
            case("asymmetric pads", &[1, 3, 8, 9], &[4, 3, 3, 2], |c| c.pads = vec![2, 0, 1, 3]),
            case("dilation and stride", &[2, 3, 15, 17], &[7, 3, 3, 3], |c| {
                c.dilations = vec![2, 3];
                c.strides = vec![3, 2];
                c.pads = vec![1, 2, 2, 1];
            }),
            case("groups", &[1, 12, 9, 10], &[20, 3, 3, 3], |c| (c.group, c.pads) = (4, vec![1, 1, 1, 1])),
            case("depthwise", &[2, 13, 11, 9], &[13, 1, 3, 3], |c| (c.group, c.pads) = (13, vec![1; 4])),
            case("depthwise multiplier 2, 5x5", &[1, 6, 12, 11], &[12, 1, 5, 5], |c| {
                (c.group, c.pads, c.strides) = (6, vec![2; 4], vec![2, 1]);
            }),
            case("depthwise multiplier 3", &[1, 4, 7, 7], &[12, 1, 3, 2], |c| c.group = 4),
            case("one spatial axis", &[2, 5, 31], &[7, 5, 4], |c| (c.strides, c.pads) = (vec![2], vec![3, 1])),
            case("three spatial axes", &[1, 4, 5, 6, 7], &[6, 2, 2, 3, 3], |c| {
                (c.group, c.pads, c.strides, c.dilations) = (2, vec![1, 0, 2, 0, 1, 1], vec![1, 2, 2], vec![2, 1, 1]);
            }),
            case("SAME_UPPER, stride 2, even kernel", &[1, 3, 9, 10], &[4, 3, 4, 2], |c| {
                (c.auto_pad, c.strides) = (AutoPad::SameUpper, vec![2, 2]);
            }),
            case("SAME_LOWER", &[1, 3, 9, 10], &[4, 3, 4, 2], |c| c.auto_pad = AutoPad::SameLower),
            case("VALID", &[1, 3, 9, 10], &[4, 3, 3, 3], |c| (c.auto_pad, c.pads) = (AutoPad::Valid, vec![9; 4])),
            case("no images", &[0, 3, 9, 10], &[4, 3, 3, 3], |_| {}),
            case("kernel as large as the image", &[3, 4, 6, 5], &[9, 4, 6, 5], |_| {}),
            case("kernel beyond the image, in padding", &[1, 2, 2, 2], &[3, 2, 5, 5], |c| c.pads = vec![2; 4]),
            case("many channels", &[1, 70, 6, 6], &[65, 70, 3, 3], |c| c.pads = vec![1; 4]),
            last("channels last, 3x3", &[2, 9, 10, 16], &[24, 3, 3, 16], |c| c.pads = vec![1; 4]),
            last("channels last, odd channels", &[1, 7, 9, 5], &[7, 3, 2, 5], |c| (c.pads, c.strides) = (vec![2, 0, 1, 3], vec![2, 1])),
            last("channels last, 1x1", &[2, 7, 5, 24], &[40, 1, 1, 24], |_| {}),
            last("channels last, 1x1, odd channels", &[3, 4, 3, 17], &[19, 1, 1, 17], |_| {}),
            last("channels last, 1x1 stride 2", &[1, 9, 7, 8], &[16, 1, 1, 8], |c| c.strides = vec![2, 2]),
            last("channels last, groups", &[1, 9, 10, 12], &[20, 3, 3, 3], |c| (c.group, c.pads, c.dilations) = (4, vec![1; 4], vec![2, 1])),
            last("channels last, depthwise", &[2, 11, 9, 16], &[16, 3, 3, 1], |c| (c.group, c.pads) = (16, vec![1; 4])),
            last("channels last, depthwise 5x5 stride 2", &[1, 12, 11, 24], &[24, 5, 5, 1], |c| {
                (c.group, c.pads, c.strides) = (24, vec![2; 4], vec![2, 2]);
            }),
            last("channels last, depthwise multiplier 2", &[1, 6, 7, 6], &[12, 3, 3, 1], |c| c.group = 6),
            last("channels last, one spatial axis", &[2, 31, 5], &[7, 4, 5], |c| (c.strides, c.pads) = (vec![2], vec![3, 1])),
            last("channels last, three spatial axes", &[1, 5, 6, 7, 4], &[6, 2, 3, 3, 2], |c| {
                (c.group, c.pads, c.strides, c.dilations) = (2, vec![1, 0, 2, 0, 1, 1], vec![1, 2, 2], vec![2, 1, 1]);
            }),
            last("channels last, SAME_UPPER", &[1, 9, 10, 8], &[8, 4, 2, 8], |c| {
                (c.auto_pad, c.strides) = (AutoPad::SameUpper, vec![2, 2]);
            }),
            last("channels last, no images", &[0, 9, 10, 8], &[8, 3, 3, 8], |_| {}),
            case("to channels last, 7x7 stride 2", &[2, 3, 15, 17], &[16, 3, 7, 7], |c| {
                (c.order, c.pads, c.strides) = (ChannelOrder::FirstToLast, vec![3; 4], vec![2, 2]);
            }),
            case("to channels last, patches", &[2, 3, 17, 32], &[24, 3, 8, 16], |c| {
                (c.order, c.strides) = (ChannelOrder::FirstToLast, vec![8, 16]);
            }),
            case("to channels last, odd", &[1, 2, 9, 8], &[5, 2, 3, 2], |c| c.order = ChannelOrder::FirstToLast),
            case("to channels last, groups", &[1, 4, 9, 8], &[6, 2, 3, 2], |c| (c.order, c.group) = (ChannelOrder::FirstToLast, 2)),
            case("to channels last, one spatial axis", &[2, 3, 20], &[8, 3, 4], |c| c.order = ChannelOrder::FirstToLast),
        ]
    }

    /// Sizes are given as they lie: x [n, spatial.., c], w [m, kernel.., c/group].
    pub fn last(name: &'static str, x: &[usize], w: &[usize], f: impl FnOnce(&mut Conv)) -> Case {
        case(name, x, w, |c| {
            c.order = ChannelOrder::Last;
            f(c);
        })
    }

    /// An epilogue and the shapes of its further operands, for an output shape.
    pub fn epilogues(out: &[usize]) -> Vec<(&'static str, Program, Vec<Vec<usize>>)> {
        let f32 = DType::F32;
        let add = |n: usize| {
            let mut p = Program { inputs: vec![f32; n + 1], instrs: vec![], outputs: vec![0] };
            let mut r = 0;
            for i in 1..=n {
                r = p.push(Func::Add, &[r, i as u16]).unwrap();
            }
            p.outputs = vec![p.push(Func::Relu, &[r]).unwrap()];
            p
        };
        let rank = out.len();
        let only = |axis: usize| (0..rank).map(|i| if i == axis { out[i] } else { 1 }).collect::<Vec<_>>();
        let mut compare = Program::identity(f32);
        let zero = compare.push_const(0.0, f32).unwrap();
        compare.outputs = vec![compare.push(Func::Greater, &[0, zero]).unwrap()];
        let mut to_f16 = Program::identity(f32);
        let s = to_f16.push(Func::Sigmoid, &[0]).unwrap();
        to_f16.outputs = vec![to_f16.push_cast(s, DType::F16).unwrap()];
        vec![
            ("relu", Program::single(Func::Relu, &[f32]).unwrap(), vec![]),
            ("residual", add(1), vec![out.to_vec()]),
            ("scalar", add(1), vec![vec![]]),
            ("per channel", add(1), vec![only(1)]),
            ("per column", add(1), vec![vec![out[rank - 1]]]),
            ("per image and row", add(1), vec![(0..rank).map(|i| if i == 0 || i + 2 == rank { out[i] } else { 1 }).collect()]),
            ("four operands", add(4), vec![only(1), out.to_vec(), vec![1], only(rank - 1)]),
            ("to bool", compare, vec![]),
            ("to f16", to_f16, vec![]),
        ]
    }

    pub fn operands(c: &Case, with_bias: bool) -> Vec<Option<Tensor>> {
        let bias = with_bias.then(|| random(DType::F32, &[c.w[0]], 3));
        vec![Some(random(DType::F32, &c.x, 1)), Some(random(DType::F32, &c.w, 2)), bias]
    }
}

pub mod conv_transpose {
    use super::random;
    use sinter::base::{DType, Tensor};
    use sinter::ops::conv_transpose::ConvTranspose;
    use sinter::ops::window::AutoPad;

    #[derive(Clone, Debug)]
    pub struct Case {
        pub name: &'static str,
        pub x: Vec<usize>,
        pub w: Vec<usize>,
        pub op: ConvTranspose,
    }

    pub fn case(name: &'static str, x: &[usize], w: &[usize], f: impl FnOnce(&mut ConvTranspose)) -> Case {
        let mut op = ConvTranspose {
            strides: vec![],
            pads: vec![],
            dilations: vec![],
            group: 1,
            auto_pad: AutoPad::NotSet,
            output_padding: vec![],
            output_shape: None,
            epilogue: None,
        };
        f(&mut op);
        Case { name, x: x.to_vec(), w: w.to_vec(), op }
    }

    pub fn cases() -> Vec<Case> {
        vec![
            case("plain", &[1, 3, 5, 4], &[3, 6, 3, 3], |_| {}),
            case("doubling", &[2, 8, 6, 7], &[8, 5, 2, 2], |c| c.strides = vec![2, 2]),
            case("stride 2, kernel 4, pad 1", &[1, 4, 5, 6], &[4, 3, 4, 4], |c| (c.strides, c.pads) = (vec![2, 2], vec![1; 4])),
            case("output padding", &[1, 4, 5, 6], &[4, 3, 3, 3], |c| {
                (c.strides, c.pads, c.output_padding) = (vec![2, 3], vec![1, 0, 1, 2], vec![1, 2]);
            }),
            case("groups", &[2, 6, 5, 5], &[6, 4, 3, 2], |c| (c.group, c.strides) = (3, vec![1, 2])),
            case("depthwise", &[1, 5, 6, 6], &[5, 1, 3, 3], |c| (c.group, c.strides, c.pads) = (5, vec![2, 2], vec![1; 4])),
            case("dilation", &[1, 3, 5, 4], &[3, 2, 3, 3], |c| (c.dilations, c.strides) = (vec![2, 3], vec![1, 2])),
            case("one spatial axis", &[2, 3, 9], &[3, 4, 5], |c| (c.strides, c.pads) = (vec![3], vec![1, 2])),
            case("three spatial axes", &[1, 2, 3, 4, 3], &[2, 3, 2, 3, 2], |c| (c.strides, c.pads) = (vec![2, 1, 2], vec![0, 1, 0, 1, 1, 0])),
            case("SAME_UPPER", &[1, 2, 5, 4], &[2, 3, 3, 4], |c| (c.auto_pad, c.strides) = (AutoPad::SameUpper, vec![2, 3])),
            case("SAME_LOWER", &[1, 2, 5, 4], &[2, 3, 3, 4], |c| (c.auto_pad, c.strides) = (AutoPad::SameLower, vec![2, 1])),
            case("output shape", &[1, 2, 5, 4], &[2, 3, 3, 3], |c| (c.output_shape, c.strides) = (Some(vec![10, 8]), vec![2, 2])),
            case("output larger than what is reached", &[1, 2, 3, 3], &[2, 1, 2, 2], |c| c.output_shape = Some(vec![7, 6])),
            case("no images", &[0, 3, 5, 4], &[3, 6, 3, 3], |_| {}),
        ]
    }

    pub fn operands(c: &Case, with_bias: bool) -> Vec<Option<Tensor>> {
        let bias = with_bias.then(|| random(DType::F32, &[c.w[1] * c.op.group as usize], 3));
        vec![Some(random(DType::F32, &c.x, 1)), Some(random(DType::F32, &c.w, 2)), bias]
    }
}

pub mod matmul {
    use super::random;
    use sinter::base::{DType, Tensor};
    use sinter::ops::matmul::MatMul;

    #[derive(Clone, Debug)]
    pub struct Case {
        pub name: &'static str,
        pub a: Vec<usize>,
        pub b: Vec<usize>,
        pub op: MatMul,
    }

    pub fn case(name: &'static str, a: &[usize], b: &[usize], trans_a: bool, trans_b: bool, alpha: f32) -> Case {
        Case { name, a: a.to_vec(), b: b.to_vec(), op: MatMul { trans_a, trans_b, alpha, epilogue: None } }
    }

    pub fn cases() -> Vec<Case> {
        vec![
            case("plain", &[13, 17], &[17, 19], false, false, 1.0),
            case("one row", &[1, 512], &[512, 257], false, false, 1.0),
            case("one row, b transposed", &[1, 67], &[33, 67], false, true, 0.5),
            case("one column", &[37, 23], &[23, 1], false, false, 1.0),
            case("both transposed, scaled", &[17, 13], &[19, 17], true, true, -0.25),
            case("a transposed", &[17, 13], &[17, 19], true, false, 1.0),
            case("b transposed", &[64, 100], &[65, 100], false, true, 2.0),
            case("same batch", &[3, 2, 5, 7], &[3, 2, 7, 11], false, false, 1.0),
            case("b shared by the batch", &[3, 2, 5, 7], &[7, 11], false, false, 1.0),
            case("b shared, a transposed", &[3, 7, 5], &[7, 11], true, false, 1.0),
            case("a shared by the batch", &[5, 7], &[4, 7, 11], false, false, 1.0),
            case("both broadcast", &[3, 1, 5, 7], &[1, 2, 7, 11], false, false, 1.0),
            case("inner broadcast", &[3, 1, 5, 7], &[3, 2, 7, 11], false, false, 1.0),
            case("one row a batch", &[6, 1, 20], &[6, 20, 33], false, false, 1.0),
            case("one row a batch, b transposed", &[6, 1, 40], &[6, 33, 40], false, true, 3.0),
            case("one row, shared b", &[6, 1, 40], &[40, 9], false, false, 1.0),
            case("four batch dimensions", &[2, 1, 3, 1, 4, 5], &[1, 2, 1, 2, 5, 3], false, false, 1.0),
            case("nothing to sum", &[4, 0], &[0, 3], false, false, 1.0),
            case("no rows", &[0, 4], &[4, 3], false, false, 1.0),
            case("no batch", &[0, 4, 4], &[4, 3], false, false, 1.0),
            case("long sums", &[9, 1100], &[1100, 70], false, false, 1.0),
            // Rows of whole 16-byte pieces, which tensor maps take, with edges inside of tiles.
            case("one row of whole pieces", &[1, 768], &[128, 768], false, true, 1.0),
            case("seven rows of whole pieces", &[7, 72], &[72, 72], false, true, 0.5),
            case("64 rows of whole pieces", &[64, 128], &[768, 128], false, true, 1.0),
            case("197 rows of whole pieces", &[197, 768], &[72, 768], false, true, 1.0),
            case("384 rows of whole pieces", &[384, 72], &[128, 72], false, true, 1.0),
            case("batch into rows of whole pieces", &[3, 65, 72], &[136, 72], false, true, 1.0),
            case("whole pieces along n", &[197, 72], &[72, 136], false, false, 1.0),
            case("one row of whole pieces along n", &[1, 200], &[200, 768], false, false, 1.0),
            case("384 rows of whole pieces along n", &[384, 136], &[136, 72], false, false, -0.5),
            case("batch of whole pieces", &[3, 2, 65, 72], &[3, 2, 136, 72], false, true, 1.0),
            case("whole pieces shared by the batch", &[70, 72], &[4, 72, 64], false, false, 0.5),
            case("whole pieces, both broadcast", &[3, 1, 40, 72], &[1, 2, 72, 128], false, false, 1.0),
            case("whole pieces along m", &[72, 136], &[72, 64], true, false, 1.0),
            case("whole pieces along m and k", &[3, 72, 136], &[3, 64, 72], true, true, 1.0),
            case("eight rows of whole pieces", &[8, 512], &[1000, 512], false, true, 1.0),
            case("sixteen rows of whole pieces along n", &[16, 264], &[264, 72], false, false, 1.0),
            case("thirty rows", &[2, 30, 50], &[2, 50, 33], false, false, 1.0),
        ]
    }

    pub fn operands(c: &Case, with_bias: bool) -> Vec<Option<Tensor>> {
        let n = if c.op.trans_b { c.b[c.b.len() - 2] } else { c.b[c.b.len() - 1] };
        let bias = with_bias.then(|| random(DType::F32, &[n], 3));
        vec![Some(random(DType::F32, &c.a, 1)), Some(random(DType::F32, &c.b, 2)), bias]
    }
}

pub mod pool {
    use sinter::ops::pool::{Pool, PoolKind};
    use sinter::ops::window::{AutoPad, ChannelOrder};

    #[derive(Clone, Debug)]
    pub struct Case {
        pub name: &'static str,
        pub x: Vec<usize>,
        pub op: Pool,
    }

    pub fn case(name: &'static str, kind: PoolKind, x: &[usize], kernel: &[i64], f: impl FnOnce(&mut Pool)) -> Case {
        let mut op = Pool {
            kind,
            kernel: kernel.to_vec(),
            strides: vec![],
            pads: vec![],
            dilations: vec![],
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            count_include_pad: false,
            p: 2,
            indices: false,
            storage_order: 0,
            order: Default::default(),
        };
        f(&mut op);
        Case { name, x: x.to_vec(), op }
    }

    /// Sizes are given as they lie: x [n, spatial.., c].
    pub fn last(name: &'static str, kind: PoolKind, x: &[usize], kernel: &[i64], f: impl FnOnce(&mut Pool)) -> Case {
        case(name, kind, x, kernel, |p| {
            p.order = ChannelOrder::Last;
            f(p);
        })
    }

    pub fn cases() -> Vec<Case> {
        use PoolKind::*;
        vec![
            case("max 3x3 stride 2 pad 1", Max, &[2, 5, 11, 13], &[3, 3], |p| (p.strides, p.pads) = (vec![2, 2], vec![1; 4])),
            case("max 2x2 stride 2", Max, &[1, 4, 8, 10], &[2, 2], |p| p.strides = vec![2, 2]),
            case("max rounding up", Max, &[1, 3, 9, 10], &[2, 3], |p| (p.strides, p.ceil_mode) = (vec![2, 2], true)),
            case("max rounding up, window in the end padding", Max, &[1, 2, 3, 5], &[2, 2], |p| {
                (p.strides, p.ceil_mode, p.pads) = (vec![2, 3], true, vec![0, 0, 1, 1]);
            }),
            case("max dilated", Max, &[1, 2, 12, 11], &[3, 2], |p| (p.dilations, p.pads) = (vec![2, 3], vec![1, 0, 2, 1])),
            case("max indices", Max, &[2, 3, 7, 6], &[3, 2], |p| (p.indices, p.strides) = (true, vec![2, 1])),
            case("max indices by columns", Max, &[2, 3, 7, 6], &[2, 2], |p| (p.indices, p.storage_order) = (true, 1)),
            case("max indices in three axes", Max, &[1, 2, 4, 5, 3], &[2, 2, 2], |p| (p.indices, p.storage_order) = (true, 1)),
            case("average", Average, &[1, 3, 9, 8], &[3, 3], |p| p.pads = vec![1, 0, 1, 2]),
            case("average counting padding", Average, &[1, 3, 9, 8], &[3, 3], |p| {
                (p.pads, p.count_include_pad) = (vec![1, 0, 1, 2], true);
            }),
            case("average counting padding, rounding up", Average, &[1, 2, 8, 7], &[3, 4], |p| {
                (p.pads, p.count_include_pad, p.ceil_mode, p.strides) = (vec![1, 1, 1, 0], true, true, vec![3, 2]);
            }),
            case("average dilated", Average, &[1, 2, 10, 9], &[2, 3], |p| (p.dilations, p.strides) = (vec![3, 2], vec![2, 1])),
            case("average SAME_UPPER", Average, &[1, 2, 7, 6], &[3, 2], |p| (p.auto_pad, p.strides) = (AutoPad::SameUpper, vec![2, 2])),
            case("average in one axis", Average, &[2, 3, 17], &[5], |p| p.strides = vec![3]),
            case("average in three axes", Average, &[1, 2, 5, 4, 6], &[2, 2, 3], |p| p.pads = vec![1, 0, 0, 0, 1, 1]),
            case("Lp 2", Lp, &[1, 3, 7, 8], &[2, 3], |p| p.pads = vec![1, 1, 0, 0]),
            case("Lp 3", Lp, &[1, 3, 7, 8], &[2, 3], |p| p.p = 3),
            case("Lp 1", Lp, &[1, 3, 7, 8], &[2, 2], |p| p.p = 1),
            case("no images", Max, &[0, 3, 7, 8], &[2, 2], |_| {}),
            last("channels last, max 3x3 stride 2", Max, &[2, 11, 13, 16], &[3, 3], |p| (p.strides, p.pads) = (vec![2, 2], vec![1; 4])),
            last("channels last, max rounding up, odd channels", Max, &[1, 9, 10, 3], &[2, 3], |p| (p.strides, p.ceil_mode) = (vec![2, 2], true)),
            last("channels last, max dilated", Max, &[1, 12, 11, 10], &[3, 2], |p| (p.dilations, p.pads) = (vec![2, 3], vec![1, 0, 2, 1])),
            last("channels last, max 13x13", Max, &[1, 15, 14, 8], &[13, 13], |p| p.pads = vec![6; 4]),
            last("channels last, average", Average, &[2, 9, 8, 24], &[3, 3], |p| p.pads = vec![1, 0, 1, 2]),
            last("channels last, average counting padding, rounding up", Average, &[1, 8, 7, 12], &[3, 4], |p| {
                (p.pads, p.count_include_pad, p.ceil_mode, p.strides) = (vec![1, 1, 1, 0], true, true, vec![3, 2]);
            }),
            last("channels last, average SAME_UPPER", Average, &[1, 7, 6, 8], &[3, 2], |p| (p.auto_pad, p.strides) = (AutoPad::SameUpper, vec![2, 2])),
            last("channels last, average in one axis", Average, &[2, 17, 6], &[5], |p| p.strides = vec![3]),
            last("channels last, average in three axes", Average, &[1, 5, 4, 6, 2], &[2, 2, 3], |p| p.pads = vec![1, 0, 0, 0, 1, 1]),
            last("channels last, Lp 3", Lp, &[1, 7, 8, 3], &[2, 3], |p| p.p = 3),
            last("channels last, no images", Max, &[0, 7, 8, 8], &[2, 2], |_| {}),
        ]
    }
}
