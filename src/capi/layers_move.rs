//! Layers of a network by hand that move, choose or convert elements, and any operator by its ONNX name.

use super::attributes::SinterAttributes;
use super::guard::guard;
use super::handle;
use super::layer_kinds::{SinterPadding, SinterResize};
use super::layers::{add, attrs, dtype_of, kind_of};
use super::network::{SinterDataType, SinterNetwork, SinterTensorId, id, value, value_opt};
use super::status::SinterStatus;
use crate::base::{AttrValue, Attrs, Result};
use crate::onnx::tensor::onnx_code_of;
use crate::{bail, ensure};
use std::ffi::c_char;

/// Adds a transposition, a new shape, or both in this order (Transpose, Reshape).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); permutation (in)
/// n_permutation elements: axis i of the result is the input's axis permutation[i]; NULL for none; n_permutation
/// (in); shape (in) n_shape elements: 0 keeps the size at its place, one -1 takes what is left; NULL for none;
/// n_shape (in); tensor_out (out).
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
            ensure!(
                n_permutation > 0 || !shape.is_null(),
                InvalidArgument,
                "neither a permutation nor a shape is given"
            );
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; inputs (in) n_inputs tensors of one
/// element type, equal but along the axis; n_inputs (in) at least 1; axis (in) from the end when negative; tensor_out
/// (out).
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); start, end, step (in) n
/// elements each; from the end when start or end is negative; out of range is cut; step NULL is 1 everywhere,
/// negative goes backwards; n (in) at most the rank; tensor_out (out).
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; data (in); indices (in) int32 or
/// int64, from the end when negative; axis (in) of data, from the end when negative; tensor_out (out).
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); sizes (in) n
/// elements or NULL; scales (in) n elements or NULL: exactly one of the two is given; n (in) rank of the input;
/// tensor_out (out).
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; kind (in); input (in); before, after
/// (in) n elements each, negative ones crop; n (in) rank of the input; value (in) that CONSTANT fills with;
/// tensor_out (out).
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
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; input (in); tensor_out (out) may be
/// the input's own id.
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
            net.add(name, "Cast", &[Some(x)], &attrs([("to", AttrValue::Int(onnx_code_of(dtype.rust()?) as i64))]))
        })
    })
}

/// Adds a choice between two tensors, element by element (Where).
///
/// Params: network (in/out); name (in) of the layer and its output, may be NULL; condition (in) bool; then_value,
/// else_value (in) of one element type; all three broadcast; tensor_out (out).
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
/// Params: network (in/out); name (in) of the layer and its first output, may be NULL; op_type (in) for example
/// "Conv", with a domain in front when it is not the standard one ("com.microsoft.FusedMatMul"); inputs (in) n_inputs
/// tensors, SINTER_NO_TENSOR for one that is left out; n_inputs (in); attributes (in) or NULL for none; outputs_out
/// (out) n_outputs tensors; n_outputs (in) how many are wanted.
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
