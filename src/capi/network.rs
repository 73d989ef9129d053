//! Networks: tensors by integer id, inputs, outputs and what can be asked about them.

use super::guard::guard;
use super::handle::{self, Exclusive, Handle};
use super::status::SinterStatus;
use crate::base::tensor::checked_bytes;
use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::network::{Network, NodeId, ValueId};
use crate::{ensure, err};
use std::ffi::{c_char, c_void};

/// What is to be computed: tensors and the layers between them.
pub struct SinterNetwork {
    _opaque: (),
}

impl Handle for SinterNetwork {
    const MAGIC: &'static [u8; 8] = b"SntrNetw";
    type Content = Network;
}

/// A tensor of a network: an integer that the functions that add tensors give. It belongs to its network.
pub type SinterTensorId = i32;

/// Stands for an optional tensor that is left out.
pub const SINTER_NO_TENSOR: SinterTensorId = -1;

/// Type of a tensor's elements.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterDataType(pub i32);

impl SinterDataType {
    pub const FLOAT32: Self = Self(1);
    /// IEEE half precision.
    pub const FLOAT16: Self = Self(2);
    /// The upper half of a float32.
    pub const BFLOAT16: Self = Self(3);
    pub const FLOAT64: Self = Self(4);
    pub const INT8: Self = Self(5);
    pub const UINT8: Self = Self(6);
    pub const INT16: Self = Self(7);
    pub const UINT16: Self = Self(8);
    pub const INT32: Self = Self(9);
    pub const UINT32: Self = Self(10);
    pub const INT64: Self = Self(11);
    pub const UINT64: Self = Self(12);
    /// One byte, 0 or 1.
    pub const BOOL: Self = Self(13);
    /// -8 to 7, one sign-extended byte for each element; as the next three.
    pub const INT4: Self = Self(14);
    pub const UINT4: Self = Self(15);
    pub const INT2: Self = Self(16);
    pub const UINT2: Self = Self(17);
    pub const FLOAT8E4M3FN: Self = Self(18);
    pub const FLOAT8E4M3FNUZ: Self = Self(19);
    pub const FLOAT8E5M2: Self = Self(20);
    pub const FLOAT8E5M2FNUZ: Self = Self(21);
    /// The code of an element in the low four bits of a byte.
    pub const FLOAT4E2M1: Self = Self(22);
    /// A power of two: its exponent plus 127.
    pub const FLOAT8E8M0: Self = Self(23);

    pub(super) fn rust(self) -> Result<DType> {
        let known = u8::try_from(self.0).ok().and_then(DType::from_code);
        known.ok_or_else(|| err!(InvalidArgument, "data type {} is none of 1 to {}", self.0, DType::ALL.len()))
    }
}

/// The tensor behind an id.
pub(super) fn value(net: &Network, id: SinterTensorId, arg: &str) -> Result<ValueId> {
    let n = net.graph.n_values();
    let known = usize::try_from(id).is_ok_and(|i| i < n);
    ensure!(known, InvalidArgument, "{arg}: there is no tensor with id {id}; the network has {n}");
    Ok(ValueId(id as u32))
}

/// As [`value`]; `SINTER_NO_TENSOR` is none.
pub(super) fn value_opt(net: &Network, id: SinterTensorId, arg: &str) -> Result<Option<ValueId>> {
    if id == SINTER_NO_TENSOR { Ok(None) } else { value(net, id, arg).map(Some) }
}

/// The id that C sees.
pub(super) fn id(v: ValueId) -> SinterTensorId {
    v.0 as SinterTensorId
}

/// A tensor from an array of C.
pub(super) fn tensor_of(
    dtype: SinterDataType,
    dims: *const i64,
    n_dims: usize,
    data: *const c_void,
    data_bytes: usize,
) -> Result<Tensor> {
    let dtype = dtype.rust()?;
    let dims = sizes(handle::slice(dims, n_dims, "dims")?)?;
    let want = checked_bytes(dtype, &dims)?;
    ensure!(data_bytes == want, InvalidArgument, "data_bytes is {data_bytes}; {dtype}{dims:?} has {want} bytes");
    Tensor::from_bytes(dtype, &dims, handle::slice(data.cast::<u8>(), data_bytes, "data")?)
}

fn sizes(dims: &[i64]) -> Result<Vec<usize>> {
    let size = |(i, d): (usize, &i64)| usize::try_from(*d).map_err(|_| err!(InvalidArgument, "dims[{i}] is {d}"));
    dims.iter().enumerate().map(size).collect()
}

pub(super) fn network<'a>(p: *mut SinterNetwork) -> Result<Exclusive<'a, SinterNetwork>> {
    handle::exclusive(p, "network")
}

/// Makes an empty network.
///
/// Params: name (in) for reports, may be NULL; network_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_create(
    name: *const c_char,
    network_out: *mut *mut SinterNetwork,
) -> SinterStatus {
    guard("sinter_network_create", || {
        let out = handle::out_handle(network_out, "network_out")?;
        out.give(Network::new(handle::text_or_empty(name, "name")?));
        Ok(())
    })
}

/// Destroys a network.
///
/// Params: network (in) or NULL, which does nothing.
/// Owns: the handle is gone; engines that were built from it have what they need.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_destroy(network: *mut SinterNetwork) -> SinterStatus {
    guard("sinter_network_destroy", || handle::destroy(network, "network"))
}

/// Adds an input of the network.
///
/// Params: network (in/out); name (in) unique among inputs; dtype (in); dims (in) n_dims elements, -1 where the size
/// is known at run time only; n_dims (in); symbols (in) NULL, or n_dims names or NULLs for the sizes that are -1:
/// equal names are equal sizes, also across inputs; tensor_out (out).
/// Owns: nothing changes hands; the id is a plain number.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_input(
    network: *mut SinterNetwork,
    name: *const c_char,
    dtype: SinterDataType,
    dims: *const i64,
    n_dims: usize,
    symbols: *const *const c_char,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_input", || {
        let out = handle::out(tensor_out, "tensor_out")?;
        let mut net = self::network(network)?;
        let name = handle::text(name, "name")?;
        let dtype = dtype.rust()?;
        let dims = handle::slice(dims, n_dims, "dims")?;
        let symbols = if symbols.is_null() { &[] } else { handle::slice(symbols, n_dims, "symbols")? };
        let mut shape = Vec::with_capacity(n_dims);
        for (i, d) in dims.iter().enumerate() {
            ensure!(*d >= -1, InvalidArgument, "dims[{i}] is {d}; expected a size, or -1 for one known at run time");
            let given = symbols.get(i).copied().unwrap_or(std::ptr::null());
            shape.push(match (*d, handle::text_or_empty(given, "a symbol")?) {
                (-1, "") => Dim::sym(&format!("{name}_{i}")),
                (-1, symbol) => Dim::sym(symbol),
                (d, _) => Dim::from(d),
            });
        }
        out.set(id(net.graph.add_input(name, Fact::new(dtype, Shape::from(shape)))?));
        Ok(())
    })
}

/// Adds a constant tensor, such as weights. The elements are copied.
///
/// Params: network (in/out); name (in) may be NULL; dtype (in); dims (in) n_dims elements; n_dims (in) 0 for a
/// scalar; data (in) row-major elements; data_bytes (in) their bytes; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; OUT_OF_MEMORY for a shape that no memory holds.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_add_constant(
    network: *mut SinterNetwork,
    name: *const c_char,
    dtype: SinterDataType,
    dims: *const i64,
    n_dims: usize,
    data: *const c_void,
    data_bytes: usize,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_add_constant", || {
        let out = handle::out(tensor_out, "tensor_out")?;
        let mut net = self::network(network)?;
        let name = handle::text_or_empty(name, "name")?;
        let tensor = tensor_of(dtype, dims, n_dims, data, data_bytes)?;
        out.set(id(net.constant(name, tensor)));
        Ok(())
    })
}

/// Marks a tensor as an output of the network. A tensor may be several outputs.
///
/// Params: network (in/out); tensor (in); name (in) unique among outputs.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_mark_output(
    network: *mut SinterNetwork,
    tensor: SinterTensorId,
    name: *const c_char,
) -> SinterStatus {
    guard("sinter_network_mark_output", || {
        let mut net = self::network(network)?;
        let v = value(&net, tensor, "tensor")?;
        net.graph.add_output(handle::text(name, "name")?, v)
    })
}

/// Takes every output mark of a tensor away.
///
/// Params: network (in/out); tensor (in).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; INVALID_STATE when it is no output.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_unmark_output(
    network: *mut SinterNetwork,
    tensor: SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_unmark_output", || {
        let mut net = self::network(network)?;
        let v = value(&net, tensor, "tensor")?;
        ensure!(net.graph.is_output(v), InvalidState, "tensor {tensor} ({:?}) is no output", net.graph.value(v).name);
        net.graph.remove_output(v);
        Ok(())
    })
}

/// Renames a tensor; an input or output gets the new name too.
///
/// Params: network (in/out); tensor (in); name (in) not empty; unique when the tensor is an input or output.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_set_tensor_name(
    network: *mut SinterNetwork,
    tensor: SinterTensorId,
    name: *const c_char,
) -> SinterStatus {
    guard("sinter_network_set_tensor_name", || {
        let mut net = self::network(network)?;
        let v = value(&net, tensor, "tensor")?;
        let name = handle::text(name, "name")?;
        ensure!(!name.is_empty(), InvalidArgument, "the name is empty");
        let g = &net.graph;
        let taken = |ports: &[crate::network::Port]| ports.iter().any(|p| p.name == name && p.value != v);
        let clash = (g.is_input(v) && taken(g.inputs())) || (g.is_output(v) && taken(g.outputs()));
        ensure!(!clash, InvalidArgument, "there is already an input or output named {name:?}");
        net.graph.rename_value(v, name);
        Ok(())
    })
}

/// Number of tensors; ids go from 0 to one less.
///
/// Params: network (in); count_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_tensor_count(
    network: *const SinterNetwork,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_tensor_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(handle::shared(network, "network")?.graph.n_values());
        Ok(())
    })
}

/// Name of a tensor.
///
/// Params: network (in); tensor (in); buffer (out) capacity bytes, NULL to ask for the length; capacity (in) with the
/// final NUL; length_out (out) bytes without it, may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_tensor_name(
    network: *const SinterNetwork,
    tensor: SinterTensorId,
    buffer: *mut c_char,
    capacity: usize,
    length_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_tensor_name", || {
        let net = handle::shared(network, "network")?;
        let v = value(&net, tensor, "tensor")?;
        handle::write_text(buffer, capacity, length_out, &net.graph.value(v).name, "buffer")
    })
}

/// Element type of a tensor.
///
/// Params: network (in); tensor (in); dtype_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_tensor_dtype(
    network: *const SinterNetwork,
    tensor: SinterTensorId,
    dtype_out: *mut SinterDataType,
) -> SinterStatus {
    guard("sinter_network_get_tensor_dtype", || {
        let out = handle::out(dtype_out, "dtype_out")?;
        let net = handle::shared(network, "network")?;
        let v = value(&net, tensor, "tensor")?;
        out.set(SinterDataType(net.graph.fact(v).dtype as i32));
        Ok(())
    })
}

/// Shape of a tensor, as inferred.
///
/// Params: network (in); tensor (in); dims_out (out) capacity elements, -1 where the size is known at run time only,
/// NULL to ask for the rank; capacity (in); n_dims_out (out) rank, may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_tensor_shape(
    network: *const SinterNetwork,
    tensor: SinterTensorId,
    dims_out: *mut i64,
    capacity: usize,
    n_dims_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_tensor_shape", || {
        let net = handle::shared(network, "network")?;
        let v = value(&net, tensor, "tensor")?;
        handle::write_list(dims_out, capacity, n_dims_out, &plain_dims(&net.graph.fact(v).shape), "dims_out")
    })
}

/// Dimensions with -1 for those that are not numbers.
pub(super) fn plain_dims(shape: &Shape) -> Vec<i64> {
    shape.iter().map(|d| d.as_const().unwrap_or(-1)).collect()
}

/// Number of inputs.
///
/// Params: network (in); count_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_input_count(
    network: *const SinterNetwork,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_input_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(handle::shared(network, "network")?.graph.inputs().len());
        Ok(())
    })
}

/// The tensor of an input.
///
/// Params: network (in); index (in) in the order in which inputs were added; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_input(
    network: *const SinterNetwork,
    index: usize,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_get_input", || {
        let out = handle::out(tensor_out, "tensor_out")?;
        let net = handle::shared(network, "network")?;
        let ports = net.graph.inputs();
        let p = ports
            .get(index)
            .ok_or_else(|| err!(InvalidArgument, "there is no input {index}; there are {}", ports.len()))?;
        out.set(id(p.value));
        Ok(())
    })
}

/// Number of outputs.
///
/// Params: network (in); count_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_output_count(
    network: *const SinterNetwork,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_output_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(handle::shared(network, "network")?.graph.outputs().len());
        Ok(())
    })
}

/// The tensor of an output.
///
/// Params: network (in); index (in) in the order in which outputs were marked; tensor_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_output(
    network: *const SinterNetwork,
    index: usize,
    tensor_out: *mut SinterTensorId,
) -> SinterStatus {
    guard("sinter_network_get_output", || {
        let out = handle::out(tensor_out, "tensor_out")?;
        let net = handle::shared(network, "network")?;
        let ports = net.graph.outputs();
        let p = ports
            .get(index)
            .ok_or_else(|| err!(InvalidArgument, "there is no output {index}; there are {}", ports.len()))?;
        out.set(id(p.value));
        Ok(())
    })
}

/// Number of layers. A function that adds a layer may add several.
///
/// Params: network (in); count_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_layer_count(
    network: *const SinterNetwork,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_layer_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(handle::shared(network, "network")?.graph.n_nodes());
        Ok(())
    })
}

fn layer(net: &Network, index: usize) -> Result<NodeId> {
    let ids = net.graph.node_ids();
    ids.get(index).copied().ok_or_else(|| err!(InvalidArgument, "there is no layer {index}; there are {}", ids.len()))
}

/// Name of a layer.
///
/// Params: network (in); index (in) in the order in which layers were added; buffer (out) capacity bytes, NULL to ask
/// for the length; capacity (in) with the final NUL; length_out (out) bytes without it, may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_layer_name(
    network: *const SinterNetwork,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    length_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_layer_name", || {
        let net = handle::shared(network, "network")?;
        let n = layer(&net, index)?;
        handle::write_text(buffer, capacity, length_out, &net.graph.node(n).name, "buffer")
    })
}

/// Operator of a layer, by the library's own name, for example "Conv".
///
/// Params: network (in); index (in); buffer (out) capacity bytes, NULL to ask for the length; capacity (in) with the
/// final NUL; length_out (out) bytes without it, may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_get_layer_type(
    network: *const SinterNetwork,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    length_out: *mut usize,
) -> SinterStatus {
    guard("sinter_network_get_layer_type", || {
        let net = handle::shared(network, "network")?;
        let n = layer(&net, index)?;
        handle::write_text(buffer, capacity, length_out, net.graph.node(n).op.name(), "buffer")
    })
}

/// The whole network as text, one layer a line, for bug reports and curiosity.
///
/// Params: network (in); text_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_query_text(
    network: *const SinterNetwork,
    text_out: *mut *mut super::memory::SinterHostMemory,
) -> SinterStatus {
    guard("sinter_network_query_text", || {
        let out = handle::out_handle(text_out, "text_out")?;
        let net = handle::shared(network, "network")?;
        out.give(super::memory::Bytes::new(net.graph.to_string().into_bytes()));
        Ok(())
    })
}
