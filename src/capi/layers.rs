//! Layers of a network by hand. Each becomes the ONNX operator that its comment names, of opset 25.

use super::attributes::SinterAttributes;
use super::guard::guard;
use super::handle::{self, Versioned};
use super::network::{SinterDataType, SinterNetwork, SinterTensorId, id, network, value, value_opt};
use super::status::SinterStatus;
use crate::base::{AttrValue, Attrs, DType, Result};
use crate::network::{Network, ValueId};
use crate::{bail, ensure, err};
use std::ffi::c_char;

/// Most spatial dimensions of a convolution or pooling.
pub const SINTER_MAX_SPATIAL: usize = 3;

/// How a convolution or pooling moves over its input. Zeros stand for the defaults: step 1, no padding, one group. Set
/// struct_size to sizeof(SinterWindow).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SinterWindow {
    /// Bytes of this struct as the application knows it.
    pub struct_size: usize,
    /// Step in each spatial dimension; 0 is 1.
    pub stride: [i64; 3],
    /// Distance of the window's elements; 0 is 1.
    pub dilation: [i64; 3],
    /// Elements added before the input in each spatial dimension.
    pub pad_begin: [i64; 3],
    /// Elements added behind it.
    pub pad_end: [i64; 3],
    /// Elements added to a deconvolution's output behind its end.
    pub output_padding: [i64; 3],
    /// Groups of channels; 0 is 1.
    pub groups: i64,
    /// 1: the output size is rounded up (pooling).
    pub ceil_mode: i32,
    /// 1: padding counts in an average (pooling).
    pub count_include_pad: i32,
}

// SAFETY: repr(C), begins with its size, plain numbers.
unsafe impl Versioned for SinterWindow {}

/// Kinds of pooling.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterPooling(pub i32);

impl SinterPooling {
    pub const MAX: Self = Self(0);
    pub const AVERAGE: Self = Self(1);
}

/// Activation functions; alpha and beta are used where the comment says so.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterActivation(pub i32);

impl SinterActivation {
    /// max(x, 0)
    pub const RELU: Self = Self(0);
    pub const SIGMOID: Self = Self(1);
    pub const TANH: Self = Self(2);
    /// x below zero times alpha.
    pub const LEAKY_RELU: Self = Self(3);
    /// alpha (exp x - 1) below zero.
    pub const ELU: Self = Self(4);
    /// beta (max(0, x) + min(0, alpha (exp x - 1))).
    pub const SELU: Self = Self(5);
    /// max(0, x) + min(0, alpha (exp(x / alpha) - 1)).
    pub const CELU: Self = Self(6);
    /// min(max(x, alpha), beta).
    pub const CLIP: Self = Self(7);
    /// log(1 + exp x)
    pub const SOFTPLUS: Self = Self(8);
    /// x / (1 + |x|)
    pub const SOFTSIGN: Self = Self(9);
    /// clip(alpha x + beta, 0, 1)
    pub const HARD_SIGMOID: Self = Self(10);
    /// x clip(x / 6 + 1/2, 0, 1)
    pub const HARD_SWISH: Self = Self(11);
    /// x above alpha, otherwise 0.
    pub const THRESHOLDED_RELU: Self = Self(12);
    /// x/2 (1 + erf(x / sqrt 2))
    pub const GELU_ERF: Self = Self(13);
    /// The approximation of GELU by tanh.
    pub const GELU_TANH: Self = Self(14);
    /// x sigmoid(x)
    pub const SILU: Self = Self(15);
    /// x tanh(softplus x)
    pub const MISH: Self = Self(16);
    /// x + beta below -alpha, x - beta above alpha, otherwise 0.
    pub const SHRINK: Self = Self(17);
}

/// Functions of two tensors, element by element, with numpy's broadcasting.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterBinary(pub i32);

impl SinterBinary {
    pub const ADD: Self = Self(0);
    pub const SUB: Self = Self(1);
    pub const MUL: Self = Self(2);
    pub const DIV: Self = Self(3);
    pub const POW: Self = Self(4);
    pub const MIN: Self = Self(5);
    pub const MAX: Self = Self(6);
    /// Remainder with the sign of the divisor; integers only.
    pub const MOD: Self = Self(7);
    /// To bool, as the next four.
    pub const EQUAL: Self = Self(8);
    pub const LESS: Self = Self(9);
    pub const LESS_EQUAL: Self = Self(10);
    pub const GREATER: Self = Self(11);
    pub const GREATER_EQUAL: Self = Self(12);
    /// Of bools, as the next two.
    pub const AND: Self = Self(13);
    pub const OR: Self = Self(14);
    pub const XOR: Self = Self(15);
}

/// Functions of one tensor, element by element.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterUnary(pub i32);

impl SinterUnary {
    pub const NEG: Self = Self(0);
    pub const ABS: Self = Self(1);
    pub const SIGN: Self = Self(2);
    pub const EXP: Self = Self(3);
    pub const LOG: Self = Self(4);
    pub const SQRT: Self = Self(5);
    pub const RECIPROCAL: Self = Self(6);
    pub const FLOOR: Self = Self(7);
    pub const CEIL: Self = Self(8);
    /// Half to even.
    pub const ROUND: Self = Self(9);
    pub const ERF: Self = Self(10);
    pub const SIN: Self = Self(11);
    pub const COS: Self = Self(12);
    pub const TAN: Self = Self(13);
    pub const ASIN: Self = Self(14);
    pub const ACOS: Self = Self(15);
    pub const ATAN: Self = Self(16);
    pub const SINH: Self = Self(17);
    pub const COSH: Self = Self(18);
    pub const ASINH: Self = Self(19);
    pub const ACOSH: Self = Self(20);
    pub const ATANH: Self = Self(21);
    /// Of bools.
    pub const NOT: Self = Self(22);
    /// To bool, as the next.
    pub const IS_NAN: Self = Self(23);
    pub const IS_INF: Self = Self(24);
}

/// What a reduction makes of the elements along its axes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterReduction(pub i32);

impl SinterReduction {
    pub const SUM: Self = Self(0);
    pub const MEAN: Self = Self(1);
    pub const MAX: Self = Self(2);
    pub const MIN: Self = Self(3);
    pub const PROD: Self = Self(4);
    /// Sum of absolute values.
    pub const L1: Self = Self(5);
    /// Root of the sum of squares.
    pub const L2: Self = Self(6);
}

/// How a resize makes new elements.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterResize(pub i32);

impl SinterResize {
    /// The element at floor(x / scale).
    pub const NEAREST: Self = Self(0);
    /// Linear between neighbours, with half-pixel centres.
    pub const LINEAR: Self = Self(1);
    /// Linear, with the corner elements kept.
    pub const LINEAR_ALIGN_CORNERS: Self = Self(2);
}

/// What padding is filled with.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterPadding(pub i32);

impl SinterPadding {
    /// A value.
    pub const CONSTANT: Self = Self(0);
    /// The mirror image, without the element at the edge.
    pub const REFLECT: Self = Self(1);
    /// The element at the edge.
    pub const EDGE: Self = Self(2);
}

/// What the adding functions work with: the network, the layer's name, and undoing when a step fails.
fn add(
    p: *mut SinterNetwork,
    name: *const c_char,
    tensor_out: *mut SinterTensorId,
    make: impl FnOnce(&mut Network, &str) -> Result<ValueId>,
) -> Result<()> {
    let out = handle::out(tensor_out, "tensor_out")?;
    let mut net = network(p)?;
    let name = handle::text_or_empty(name, "name")?;
    let mark = net.mark();
    match make(&mut net, name) {
        Ok(v) => out.set(id(v)),
        Err(e) => {
            net.undo(mark);
            return Err(e);
        }
    }
    Ok(())
}

/// Attributes from pairs.
fn attrs<const N: usize>(list: [(&str, AttrValue); N]) -> Attrs {
    Attrs(list.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
}

/// Name of a kind in a table whose index is the kind's number.
fn kind_of(table: &[&'static str], kind: i32, what: &str) -> Result<&'static str> {
    let name = usize::try_from(kind).ok().and_then(|k| table.get(k).copied());
    name.ok_or_else(|| err!(InvalidArgument, "{what} {kind} is none of 0 to {}", table.len() - 1))
}

fn flag(value: i32, what: &str) -> Result<i64> {
    ensure!(value == 0 || value == 1, InvalidArgument, "{what} is {value}, expected 0 or 1");
    Ok(value as i64)
}

/// The window's attributes for `n` spatial dimensions.
fn window_attrs(w: &SinterWindow, n: usize) -> Result<Attrs> {
    ensure!((1..=3).contains(&n), Unsupported, "{n} spatial dimensions; from 1 to 3 are supported");
    let or_one = |v: &[i64; 3]| v[..n].iter().map(|d| if *d == 0 { 1 } else { *d }).collect::<Vec<i64>>();
    let pads = [&w.pad_begin[..n], &w.pad_end[..n]].concat();
    Ok(attrs([
        ("strides", AttrValue::Ints(or_one(&w.stride))),
        ("dilations", AttrValue::Ints(or_one(&w.dilation))),
        ("pads", AttrValue::Ints(pads)),
    ]))
}

fn spatial_rank(net: &Network, v: ValueId) -> usize {
    net.graph.fact(v).rank().saturating_sub(2)
}

fn dtype_of(net: &Network, v: ValueId) -> DType {
    net.graph.fact(v).dtype
}

/// ONNX's number of an element type.
fn onnx_dtype(d: DType) -> i64 {
    match d {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
    }
}

/// Adds a convolution (Conv). Input [n, c, spatial...], weights [k, c / groups, window...], bias [k].
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input, weights (in); bias (in) or
/// SINTER_NO_TENSOR; window (in) or NULL for the defaults; tensor_out (out) [n, k, spatial...].
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for what no device can do.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_convolution(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    weights: SinterTensorId,
    bias: SinterTensorId,
    window: *const SinterWindow,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_convolution", || {
        add(network, name, tensor_out, |net, name| {
            let (x, w, b) = (value(net, input, "input")?, value(net, weights, "weights")?, value_opt(net, bias, "bias")?);
            let win = handle::options(window, "window")?;
            let mut a = window_attrs(&win, spatial_rank(net, x))?;
            a.set("group", &win.groups.max(1));
            net.add(name, "Conv", &[Some(x), Some(w), b], &a)
        })
    })
}

/// Adds a deconvolution (ConvTranspose). Input [n, c, spatial...], weights [c, k / groups, window...], bias [k].
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input, weights (in); bias (in) or
/// SINTER_NO_TENSOR; window (in) or NULL for the defaults; tensor_out (out) [n, k, spatial...].
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for what no device can do.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_deconvolution(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    weights: SinterTensorId,
    bias: SinterTensorId,
    window: *const SinterWindow,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_deconvolution", || {
        add(network, name, tensor_out, |net, name| {
            let (x, w, b) = (value(net, input, "input")?, value(net, weights, "weights")?, value_opt(net, bias, "bias")?);
            let win = handle::options(window, "window")?;
            let n = spatial_rank(net, x);
            let mut a = window_attrs(&win, n)?;
            a.set("group", &win.groups.max(1));
            if win.output_padding != [0; 3] {
                a.set("output_padding", &win.output_padding[..n].to_vec());
            }
            net.add(name, "ConvTranspose", &[Some(x), Some(w), b], &a)
        })
    })
}

/// Adds a pooling (MaxPool, AveragePool) over windows of [n, c, spatial...].
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); size (in) of the
/// window, n_size elements, one for each spatial dimension; n_size (in); window (in) or NULL for the defaults; tensor_out
/// (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for what no device can do.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_pooling(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterPooling,
    input: SinterTensorId,
    size: *const i64,
    n_size: usize,
    window: *const SinterWindow,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_pooling", || {
        add(network, name, tensor_out, |net, name| {
            let op = kind_of(&["MaxPool", "AveragePool"], kind.0, "pooling")?;
            let x = value(net, input, "input")?;
            let n = spatial_rank(net, x);
            let size = handle::slice(size, n_size, "size")?;
            ensure!(n == n_size, InvalidArgument, "the window has {n_size} sizes, the input {n} spatial dimensions");
            let win = handle::options(window, "window")?;
            ensure!(win.groups <= 1, InvalidArgument, "a pooling has no groups");
            let mut a = window_attrs(&win, n)?;
            a.set("kernel_shape", &size.to_vec());
            a.set("ceil_mode", &flag(win.ceil_mode, "ceil_mode")?);
            if kind == SinterPooling::AVERAGE {
                a.set("count_include_pad", &flag(win.count_include_pad, "count_include_pad")?);
            }
            net.add(name, op, &[Some(x)], &a)
        })
    })
}

/// Adds a pooling over all spatial elements (GlobalMaxPool, GlobalAveragePool): [n, c, spatial...] to [n, c, 1...].
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_global_pooling(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterPooling,
    input: SinterTensorId,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_global_pooling", || {
        add(network, name, tensor_out, |net, name| {
            let op = kind_of(&["GlobalMaxPool", "GlobalAveragePool"], kind.0, "pooling")?;
            let x = value(net, input, "input")?;
            net.add(name, op, &[Some(x)], &Attrs::new())
        })
    })
}

/// Adds a matrix product (MatMul) of the last two dimensions; the others are broadcast.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; a, b (in); transpose_a, transpose_b (in) 1
/// to exchange the last two dimensions first, else 0; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_matrix_multiply(
    network: *mut SinterNetwork,
    name: *const c_char,
    a: SinterTensorId,
    transpose_a: i32,
    b: SinterTensorId,
    transpose_b: i32,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_matrix_multiply", || {
        add(network, name, tensor_out, |net, name| {
            let (mut x, mut y) = (value(net, a, "a")?, value(net, b, "b")?);
            for (v, transposed, arg) in [(&mut x, transpose_a, "transpose_a"), (&mut y, transpose_b, "transpose_b")] {
                if flag(transposed, arg)? == 1 {
                    let rank = net.graph.fact(*v).rank();
                    ensure!(rank >= 2, InvalidArgument, "{arg}: a tensor of rank {rank} has no two dimensions to exchange");
                    let mut perm: Vec<i64> = (0..rank as i64).collect();
                    perm.swap(rank - 1, rank - 2);
                    *v = net.add("", "Transpose", &[Some(*v)], &attrs([("perm", AttrValue::Ints(perm))]))?;
                }
            }
            net.add(name, "MatMul", &[Some(x), Some(y)], &Attrs::new())
        })
    })
}

/// Adds a fully connected layer: input [n, ...] is flattened to [n, k], the output is input * weights^T + bias.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); weights (in) [outputs, k];
/// bias (in) [outputs] or SINTER_NO_TENSOR; tensor_out (out) [n, outputs].
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_fully_connected(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    weights: SinterTensorId,
    bias: SinterTensorId,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_fully_connected", || {
        add(network, name, tensor_out, |net, name| {
            let (mut x, w, b) =
                (value(net, input, "input")?, value(net, weights, "weights")?, value_opt(net, bias, "bias")?);
            if net.graph.fact(x).rank() != 2 {
                x = net.add("", "Flatten", &[Some(x)], &attrs([("axis", AttrValue::Int(1))]))?;
            }
            net.add(name, "Gemm", &[Some(x), Some(w), b], &attrs([("transB", AttrValue::Int(1))]))
        })
    })
}

/// Adds an activation function.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); alpha, beta (in)
/// taken as they are by kinds that use them; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_activation(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterActivation,
    input: SinterTensorId,
    alpha: f32,
    beta: f32,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_activation", || {
        add(network, name, tensor_out, |net, name| {
            let ops = [
                "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Celu", "Clip", "Softplus", "Softsign",
                "HardSigmoid", "HardSwish", "ThresholdedRelu", "Gelu", "Gelu", "Swish", "Mish", "Shrink",
            ];
            let op = kind_of(&ops, kind.0, "activation")?;
            let x = value(net, input, "input")?;
            let (a, b) = (AttrValue::Float(alpha), AttrValue::Float(beta));
            let attrs = match kind {
                SinterActivation::LEAKY_RELU
                | SinterActivation::ELU
                | SinterActivation::CELU
                | SinterActivation::THRESHOLDED_RELU => attrs([("alpha", a)]),
                SinterActivation::SELU => attrs([("alpha", a), ("gamma", b)]),
                SinterActivation::HARD_SIGMOID => attrs([("alpha", a), ("beta", b)]),
                SinterActivation::SHRINK => attrs([("lambd", a), ("bias", b)]),
                SinterActivation::GELU_TANH => attrs([("approximate", AttrValue::Str("tanh".into()))]),
                _ => Attrs::new(),
            };
            if kind == SinterActivation::CLIP {
                ensure!(alpha <= beta, InvalidArgument, "clip from {alpha} to {beta}: the bounds are the wrong way round");
                let t = dtype_of(net, x);
                let (low, high) = (net.scalar(alpha as f64, t), net.scalar(beta as f64, t));
                return net.add(name, op, &[Some(x), Some(low), Some(high)], &attrs);
            }
            net.add(name, op, &[Some(x)], &attrs)
        })
    })
}

/// Adds a function of two tensors, element by element.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); a, b (in) of one element type and
/// of shapes that broadcast; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for an element type that the function does not take.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_binary(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterBinary,
    a: SinterTensorId,
    b: SinterTensorId,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_binary", || {
        add(network, name, tensor_out, |net, name| {
            let ops = [
                "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mod", "Equal", "Less", "LessOrEqual", "Greater",
                "GreaterOrEqual", "And", "Or", "Xor",
            ];
            let op = kind_of(&ops, kind.0, "binary function")?;
            let (x, y) = (value(net, a, "a")?, value(net, b, "b")?);
            net.add(name, op, &[Some(x), Some(y)], &Attrs::new())
        })
    })
}

/// Adds a function of one tensor, element by element.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for an element type that the function does not take.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_unary(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterUnary,
    input: SinterTensorId,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_unary", || {
        add(network, name, tensor_out, |net, name| {
            let ops = [
                "Neg", "Abs", "Sign", "Exp", "Log", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Erf", "Sin", "Cos",
                "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Not", "IsNaN", "IsInf",
            ];
            let op = kind_of(&ops, kind.0, "unary function")?;
            let x = value(net, input, "input")?;
            net.add(name, op, &[Some(x)], &Attrs::new())
        })
    })
}

/// Adds a scale and shift for each channel: output = input * scale[c] + shift[c], where c is the index along an axis.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); scale, shift (in) of rank 1 with
/// as many elements as the axis, or of 1 element; either may be SINTER_NO_TENSOR; axis (in) from the end when negative;
/// tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_scale(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    scale: SinterTensorId,
    shift: SinterTensorId,
    axis: i64,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_scale", || {
        add(network, name, tensor_out, |net, name| {
            let x = value(net, input, "input")?;
            let axis = net.graph.fact(x).shape.axis(axis)?;
            let n_behind = net.graph.fact(x).rank() - axis - 1;
            let mut shape = vec![-1i64];
            shape.resize(1 + n_behind, 1);
            let mut v = x;
            let steps = [("Mul", value_opt(net, scale, "scale")?, "scale"), ("Add", value_opt(net, shift, "shift")?, "shift")];
            let n_steps = steps.iter().filter(|s| s.1.is_some()).count();
            ensure!(n_steps > 0, InvalidArgument, "neither scale nor shift is given");
            let mut left = n_steps;
            for (op, w, arg) in steps {
                let Some(mut w) = w else { continue };
                let rank = net.graph.fact(w).rank();
                ensure!(rank == 1, InvalidArgument, "{arg}: expected rank 1, got {}", net.graph.fact(w));
                if n_behind > 0 {
                    let to = net.ints(&shape);
                    w = net.add("", "Reshape", &[Some(w), Some(to)], &Attrs::new())?;
                }
                left -= 1;
                v = net.add(if left == 0 { name } else { "" }, op, &[Some(v), Some(w)], &Attrs::new())?;
            }
            Ok(v)
        })
    })
}

/// Adds a reduction over axes (ReduceSum and its kin).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); axes (in) n_axes
/// elements, from the end when negative; n_axes (in) 0 for all axes; keep_dims (in) 1 to keep the axes with size 1, else 0;
/// tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for an element type that the reduction does not take.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_reduce(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterReduction,
    input: SinterTensorId,
    axes: *const i64,
    n_axes: usize,
    keep_dims: i32,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_reduce", || {
        add(network, name, tensor_out, |net, name| {
            let ops =
                ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"];
            let op = kind_of(&ops, kind.0, "reduction")?;
            let x = value(net, input, "input")?;
            let axes = handle::slice(axes, n_axes, "axes")?;
            let a = attrs([("keepdims", AttrValue::Int(flag(keep_dims, "keep_dims")?))]);
            let mut inputs = vec![Some(x)];
            if n_axes > 0 {
                inputs.push(Some(net.ints(axes)));
            }
            net.add(name, op, &inputs, &a)
        })
    })
}

/// Adds a softmax along an axis.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in) floating point; axis (in) from the
/// end when negative; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_softmax(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    axis: i64,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_softmax", || {
        add(network, name, tensor_out, |net, name| {
            let x = value(net, input, "input")?;
            net.add(name, "Softmax", &[Some(x)], &attrs([("axis", AttrValue::Int(axis))]))
        })
    })
}

/// Adds a transposition, a new shape, or both in this order (Transpose, Reshape).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); permutation (in) n_permutation
/// elements: axis i of the result is the input's axis permutation[i]; NULL for none; n_permutation (in); shape (in) n_shape
/// elements: 0 keeps the size at its place, one -1 takes what is left; NULL for none; n_shape (in); tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_shuffle(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    permutation: *const i64,
    n_permutation: usize,
    shape: *const i64,
    n_shape: usize,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_shuffle", || {
        add(network, name, tensor_out, |net, name| {
            let mut v = value(net, input, "input")?;
            let perm = handle::slice(permutation, n_permutation, "permutation")?;
            let to = handle::slice(shape, n_shape, "shape")?;
            ensure!(n_permutation > 0 || !shape.is_null(), InvalidArgument, "neither a permutation nor a shape is given");
            if n_permutation > 0 {
                let name = if shape.is_null() { name } else { "" };
                v = net.add(name, "Transpose", &[Some(v)], &attrs([("perm", AttrValue::Ints(perm.to_vec()))]))?;
            }
            if !shape.is_null() {
                let to = net.ints(to);
                v = net.add(name, "Reshape", &[Some(v), Some(to)], &Attrs::new())?;
            }
            Ok(v)
        })
    })
}

/// Adds a concatenation along an axis (Concat).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; inputs (in) n_inputs tensors of one element
/// type, equal but along the axis; n_inputs (in) at least 1; axis (in) from the end when negative; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_concat(
    network: *mut SinterNetwork,
    name: *const c_char,
    inputs: *const SinterTensorId,
    n_inputs: usize,
    axis: i64,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_concat", || {
        add(network, name, tensor_out, |net, name| {
            let list = handle::slice(inputs, n_inputs, "inputs")?;
            ensure!(!list.is_empty(), InvalidArgument, "there is nothing to concatenate");
            let list = list.iter().enumerate().map(|(i, t)| Ok(Some(value(net, *t, &format!("inputs[{i}]"))?)));
            let list = list.collect::<Result<Vec<_>>>()?;
            net.add(name, "Concat", &list, &attrs([("axis", AttrValue::Int(axis))]))
        })
    })
}

/// Adds a slice (Slice): elements start, start + step, ... before end along each of the first n axes.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); start, end, step (in) n elements
/// each; from the end when start or end is negative; out of range is cut; step NULL is 1 everywhere, negative goes backwards;
/// n (in) at most the rank; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_slice(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    start: *const i64,
    end: *const i64,
    step: *const i64,
    n: usize,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_slice", || {
        add(network, name, tensor_out, |net, name| {
            let x = value(net, input, "input")?;
            let (start, end) = (handle::slice(start, n, "start")?, handle::slice(end, n, "end")?);
            let ones = vec![1i64; n];
            let step = if step.is_null() { &ones } else { handle::slice(step, n, "step")? };
            let axes: Vec<i64> = (0..n as i64).collect();
            let lists = [start, end, &axes, step].map(|l| Some(net.ints(l)));
            net.add(name, "Slice", &[Some(x), lists[0], lists[1], lists[2], lists[3]], &Attrs::new())
        })
    })
}

/// Adds a gather along an axis (Gather): the slices of data that the indices name.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; data (in); indices (in) int32 or int64, from
/// the end when negative; axis (in) of data, from the end when negative; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_gather(
    network: *mut SinterNetwork,
    name: *const c_char,
    data: SinterTensorId,
    indices: SinterTensorId,
    axis: i64,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_gather", || {
        add(network, name, tensor_out, |net, name| {
            let (x, i) = (value(net, data, "data")?, value(net, indices, "indices")?);
            net.add(name, "Gather", &[Some(x), Some(i)], &attrs([("axis", AttrValue::Int(axis))]))
        })
    })
}

/// Adds a resize (Resize), to sizes or by scales.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); sizes (in) n elements
/// or NULL; scales (in) n elements or NULL: exactly one of the two is given; n (in) rank of the input; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for what no device can do.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_resize(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterResize,
    input: SinterTensorId,
    sizes: *const i64,
    scales: *const f32,
    n: usize,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_resize", || {
        add(network, name, tensor_out, |net, name| {
            let mode = kind_of(&["nearest", "linear", "linear"], kind.0, "resize")?;
            let x = value(net, input, "input")?;
            ensure!(sizes.is_null() != scales.is_null(), InvalidArgument, "give either sizes or scales");
            let centres = match kind {
                SinterResize::NEAREST => "asymmetric",
                SinterResize::LINEAR => "half_pixel",
                _ => "align_corners",
            };
            let text = |s: &str| AttrValue::Str(s.into());
            let mut a = attrs([("mode", text(mode)), ("coordinate_transformation_mode", text(centres))]);
            if kind == SinterResize::NEAREST {
                a.set("nearest_mode", &"floor".to_string());
            }
            let inputs = if scales.is_null() {
                let sizes = net.ints(handle::slice(sizes, n, "sizes")?);
                vec![Some(x), None, None, Some(sizes)]
            } else {
                let scales = handle::slice(scales, n, "scales")?;
                let scales = net.constant("", crate::base::Tensor::from_slice(&[n], scales));
                vec![Some(x), None, Some(scales)]
            };
            net.add(name, "Resize", &inputs, &a)
        })
    })
}

/// Adds padding around a tensor (Pad).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); before, after (in) n
/// elements each, negative ones crop; n (in) rank of the input; value (in) that CONSTANT fills with; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_padding(
    network: *mut SinterNetwork,
    name: *const c_char,
    kind: SinterPadding,
    input: SinterTensorId,
    before: *const i64,
    after: *const i64,
    n: usize,
    value: f32,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_padding", || {
        add(network, name, tensor_out, |net, name| {
            let mode = kind_of(&["constant", "reflect", "edge"], kind.0, "padding")?;
            let x = self::value(net, input, "input")?;
            let pads = [handle::slice(before, n, "before")?, handle::slice(after, n, "after")?].concat();
            let pads = net.ints(&pads);
            let mut inputs = vec![Some(x), Some(pads)];
            if kind == SinterPadding::CONSTANT && value != 0.0 {
                let t = dtype_of(net, x);
                inputs.push(Some(net.scalar(value as f64, t)));
            }
            net.add(name, "Pad", &inputs, &attrs([("mode", AttrValue::Str(mode.into()))]))
        })
    })
}

/// Adds a layer that passes its input on under another name (Identity).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); tensor_out (out) may be the
/// input's own id.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_identity(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_identity", || {
        add(network, name, tensor_out, |net, name| {
            let x = value(net, input, "input")?;
            net.add(name, "Identity", &[Some(x)], &Attrs::new())
        })
    })
}

/// Adds a conversion of the element type (Cast).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); dtype (in) to convert to;
/// tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_cast(
    network: *mut SinterNetwork,
    name: *const c_char,
    input: SinterTensorId,
    dtype: SinterDataType,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_cast", || {
        add(network, name, tensor_out, |net, name| {
            let x = value(net, input, "input")?;
            net.add(name, "Cast", &[Some(x)], &attrs([("to", AttrValue::Int(onnx_dtype(dtype.rust()?)))]))
        })
    })
}

/// Adds a choice between two tensors, element by element (Where).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; condition (in) bool; then_value, else_value
/// (in) of one element type; all three broadcast; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_select(
    network: *mut SinterNetwork,
    name: *const c_char,
    condition: SinterTensorId,
    then_value: SinterTensorId,
    else_value: SinterTensorId,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_select", || {
        add(network, name, tensor_out, |net, name| {
            let c = value(net, condition, "condition")?;
            let (a, b) = (value(net, then_value, "then_value")?, value(net, else_value, "else_value")?);
            net.add(name, "Where", &[Some(c), Some(a), Some(b)], &Attrs::new())
        })
    })
}

/// Adds any operator of ONNX that the library knows, with the meaning of opset 25.
///
/// Params: network (in/out); name (in) of the layer and its first output, may be NULL; op_type (in) for example "Conv", with
/// a domain in front when it is not the standard one ("com.microsoft.FusedMatMul"); inputs (in) n_inputs tensors,
/// SINTER_NO_TENSOR for one that is left out; n_inputs (in); attributes (in) or NULL for none; outputs_out (out) n_outputs
/// tensors; n_outputs (in) how many are wanted.
/// Owns: nothing changes hands; attributes are copied.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; UNSUPPORTED for an operator, attribute or type that is not known.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_node(
    network: *mut SinterNetwork,
    name: *const c_char,
    op_type: *const c_char,
    inputs: *const SinterTensorId,
    n_inputs: usize,
    attributes: *const SinterAttributes,
    outputs_out: *mut SinterTensorId,
    n_outputs: usize,
) -> SinterStatus {
    guard("sinter_network_add_node", || {
        let mut net = super::network::network(network)?;
        let op = handle::text(op_type, "op_type")?;
        let name = handle::text_or_empty(name, "name")?;
        let list = handle::slice(inputs, n_inputs, "inputs")?.iter().enumerate();
        let list = list.map(|(i, t)| value_opt(&net, *t, &format!("inputs[{i}]"))).collect::<Result<Vec<_>>>()?;
        let given = handle::shared_opt(attributes, "attributes")?;
        let none = Attrs::new();
        ensure!(n_outputs > 0, InvalidArgument, "n_outputs is 0; a layer without a wanted output computes nothing");
        ensure!(!outputs_out.is_null(), InvalidArgument, "outputs_out is NULL");
        let mark = net.mark();
        let out = net.add_operator(name, op, &list, given.as_deref().unwrap_or(&none), n_outputs)?;
        if out.len() < n_outputs {
            net.undo(mark);
            bail!(InvalidArgument, "{op} has {} outputs, {n_outputs} are wanted", out.len());
        }
        let ids: Vec<SinterTensorId> = out.iter().map(|v| id(*v)).collect();
        handle::write_list(outputs_out, n_outputs, std::ptr::null_mut(), &ids, "outputs_out")
    })
}
