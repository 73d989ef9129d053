//! Networks from ONNX models.

use super::guard::guard;
use super::handle;
use super::network::SinterNetwork;
use super::status::SinterStatus;
use crate::network::Network;
use crate::onnx::importer;
use crate::{ensure, ops};
use std::ffi::{c_char, c_void};
use std::path::Path;

/// Reads an ONNX model from a file; weights in files beside it are found there.
///
/// Params: path (in) UTF-8; network_out (out).
/// Owns: on success the caller owns the network; it may map the files, which must not be changed in place while it
/// lives.
/// Result: OK and the handle; on failure it is NULL, and the sentence lists every node that cannot be imported, with
/// name, operator, opset and reason, one a line.
/// Status: OK, the errors of handles and arguments; NOT_FOUND or IO for the file; PARSE or CORRUPT_DATA for its
/// bytes; UNSUPPORTED for nodes.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_create_from_onnx_file(
    path: *const c_char,
    network_out: *mut *mut SinterNetwork,
) -> SinterStatus {
    guard("sinter_network_create_from_onnx_file", || {
        let out = handle::out_handle(network_out, "network_out")?;
        let path = handle::text(path, "path")?;
        out.give(Network::from_graph(importer::import_file(Path::new(path))?));
        Ok(())
    })
}

/// Reads an ONNX model from memory.
///
/// Params: data (in) the bytes of the file; size (in) their number; folder (in) where weights in files of their own
/// lie, may be NULL when there are none; network_out (out).
/// Owns: on success the caller owns the network; the bytes are copied.
/// Result: OK and the handle; on failure it is NULL, and the sentence lists every node that cannot be imported, with
/// name, operator, opset and reason, one a line.
/// Status: OK, the errors of handles and arguments; PARSE or CORRUPT_DATA for the bytes; UNSUPPORTED for nodes.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_network_create_from_onnx_memory(
    data: *const c_void,
    size: usize,
    folder: *const c_char,
    network_out: *mut *mut SinterNetwork,
) -> SinterStatus {
    guard("sinter_network_create_from_onnx_memory", || {
        let out = handle::out_handle(network_out, "network_out")?;
        ensure!(!data.is_null(), InvalidArgument, "data is NULL");
        let bytes = handle::slice(data.cast::<u8>(), size, "data")?.to_vec();
        let folder = handle::text_or_empty(folder, "folder")?;
        let folder = (!folder.is_empty()).then(|| Path::new(folder));
        out.give(Network::from_graph(importer::import_bytes(bytes, folder)?));
        Ok(())
    })
}

/// Asks whether an ONNX operator can be imported.
///
/// Params: domain (in) NULL or "" for the standard one; op_type (in); opset (in) the model's opset of that domain;
/// supported_out (out) 1 or 0.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK; INVALID_ARGUMENT for NULL or bytes that are not UTF-8.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_onnx_query_operator(
    domain: *const c_char,
    op_type: *const c_char,
    opset: i64,
    supported_out: *mut i32,
) -> SinterStatus {
    guard("sinter_onnx_query_operator", || {
        let out = handle::out(supported_out, "supported_out")?;
        let domain = match handle::text_or_empty(domain, "domain")? {
            "ai.onnx" => "",
            d => d,
        };
        out.set(ops::find_onnx(domain, handle::text(op_type, "op_type")?, opset).is_some() as i32);
        Ok(())
    })
}
