//! Layers of a network by hand that compute. Each becomes the ONNX operator that its comment names, of opset 25.
//!
//! The file is long for its comments; the bodies are a few lines each.

use super::guard::guard;
use super::handle::{self, Versioned};
use super::layer_kinds::{SinterActivation, SinterBinary, SinterPooling, SinterReduction, SinterUnary};
use super::network::{SinterNetwork, SinterTensorId, id, network, value, value_opt};
use super::status::SinterStatus;
use crate::base::{AttrValue, Attrs, DType, Result};
use crate::network::{Network, ValueId};
use crate::{ensure, err};
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
    pub stride: [i64; SINTER_MAX_SPATIAL],
    /// Distance of the window's elements; 0 is 1.
    pub dilation: [i64; SINTER_MAX_SPATIAL],
    /// Elements added before the input in each spatial dimension.
    pub pad_begin: [i64; SINTER_MAX_SPATIAL],
    /// Elements added behind it.
    pub pad_end: [i64; SINTER_MAX_SPATIAL],
    /// Elements added to a deconvolution's output behind its end.
    pub output_padding: [i64; SINTER_MAX_SPATIAL],
    /// Groups of channels; 0 is 1.
    pub groups: i64,
    /// 1: the output size is rounded up (pooling).
    pub ceil_mode: i32,
    /// 1: padding counts in an average (pooling).
    pub count_include_pad: i32,
}

// SAFETY: repr(C), begins with its size, plain numbers.
unsafe impl Versioned for SinterWindow {}

/// What the adding functions work with: the network, the layer's name, and undoing when a step fails.
pub(super) fn add(
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
pub(super) fn attrs<const N: usize>(list: [(&str, AttrValue); N]) -> Attrs {
    Attrs(list.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
}

/// Name of a kind in a table whose index is the kind's number.
pub(super) fn kind_of(table: &[&'static str], kind: i32, what: &str) -> Result<&'static str> {
    let name = usize::try_from(kind).ok().and_then(|k| table.get(k).copied());
    name.ok_or_else(|| err!(InvalidArgument, "{what} {kind} is none of 0 to {}", table.len() - 1))
}

fn flag(value: i32, what: &str) -> Result<i64> {
    ensure!(value == 0 || value == 1, InvalidArgument, "{what} is {value}, expected 0 or 1");
    Ok(value as i64)
}

/// The window's attributes for `n` spatial dimensions.
fn window_attrs(w: &SinterWindow, n: usize) -> Result<Attrs> {
    ensure!(
        (1..=SINTER_MAX_SPATIAL).contains(&n),
        Unsupported,
        "{n} spatial dimensions; 1 to {SINTER_MAX_SPATIAL} are supported"
    );
    let or_one =
        |v: &[i64; SINTER_MAX_SPATIAL]| v[..n].iter().map(|d| if *d == 0 { 1 } else { *d }).collect::<Vec<i64>>();
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

pub(super) fn dtype_of(net: &Network, v: ValueId) -> DType {
    net.graph.fact(v).dtype
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
            let (x, w, b) =
                (value(net, input, "input")?, value(net, weights, "weights")?, value_opt(net, bias, "bias")?);
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
            let (x, w, b) =
                (value(net, input, "input")?, value(net, weights, "weights")?, value_opt(net, bias, "bias")?);
            let win = handle::options(window, "window")?;
            let n = spatial_rank(net, x);
            let mut a = window_attrs(&win, n)?;
            a.set("group", &win.groups.max(1));
            if win.output_padding != [0; SINTER_MAX_SPATIAL] {
                a.set("output_padding", &win.output_padding[..n].to_vec());
            }
            net.add(name, "ConvTranspose", &[Some(x), Some(w), b], &a)
        })
    })
}

/// Adds a pooling (MaxPool, AveragePool) over windows of [n, c, spatial...].
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); size (in) of
/// the window, n_size elements, one for each spatial dimension; n_size (in); window (in) or NULL for the defaults;
/// tensor_out (out).
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); tensor_out
/// (out).
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; a, b (in); transpose_a, transpose_b
/// (in) 1 to exchange the last two dimensions first, else 0; tensor_out (out).
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
                    ensure!(
                        rank >= 2,
                        InvalidArgument,
                        "{arg}: a tensor of rank {rank} has no two dimensions to exchange"
                    );
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); alpha, beta
/// (in) taken as they are by kinds that use them; tensor_out (out).
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
                "Relu",
                "Sigmoid",
                "Tanh",
                "LeakyRelu",
                "Elu",
                "Selu",
                "Celu",
                "Clip",
                "Softplus",
                "Softsign",
                "HardSigmoid",
                "HardSwish",
                "ThresholdedRelu",
                "Gelu",
                "Gelu",
                "Swish",
                "Mish",
                "Shrink",
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
                ensure!(
                    alpha <= beta,
                    InvalidArgument,
                    "clip from {alpha} to {beta}: the bounds are the wrong way round"
                );
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); a, b (in) of one element
/// type and of shapes that broadcast; tensor_out (out).
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
                "Add",
                "Sub",
                "Mul",
                "Div",
                "Pow",
                "Min",
                "Max",
                "Mod",
                "Equal",
                "Less",
                "LessOrEqual",
                "Greater",
                "GreaterOrEqual",
                "And",
                "Or",
                "Xor",
            ];
            let op = kind_of(&ops, kind.0, "binary function")?;
            let (x, y) = (value(net, a, "a")?, value(net, b, "b")?);
            net.add(name, op, &[Some(x), Some(y)], &Attrs::new())
        })
    })
}

/// Adds a function of one tensor, element by element.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); tensor_out
/// (out).
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
                "Neg",
                "Abs",
                "Sign",
                "Exp",
                "Log",
                "Sqrt",
                "Reciprocal",
                "Floor",
                "Ceil",
                "Round",
                "Erf",
                "Sin",
                "Cos",
                "Tan",
                "Asin",
                "Acos",
                "Atan",
                "Sinh",
                "Cosh",
                "Asinh",
                "Acosh",
                "Atanh",
                "Not",
                "IsNaN",
                "IsInf",
            ];
            let op = kind_of(&ops, kind.0, "unary function")?;
            let x = value(net, input, "input")?;
            net.add(name, op, &[Some(x)], &Attrs::new())
        })
    })
}

/// Adds a scale and shift for each channel: output = input * scale[c] + shift[c], where c is the index along an axis.
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); scale, shift (in) of
/// rank 1 with as many elements as the axis, or of 1 element; either may be SINTER_NO_TENSOR; axis (in) from the end
/// when negative; tensor_out (out).
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
            let steps =
                [("Mul", value_opt(net, scale, "scale")?, "scale"), ("Add", value_opt(net, shift, "shift")?, "shift")];
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); axes (in)
/// n_axes elements, from the end when negative; n_axes (in) 0 for all axes; keep_dims (in) 1 to keep the axes with
/// size 1, else 0; tensor_out (out).
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
            let ops = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"];
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in) floating point; axis (in)
/// from the end when negative; tensor_out (out).
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
