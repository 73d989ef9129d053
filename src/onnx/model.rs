//! An opened ONNX model: the decoded messages, its opsets and its constants.
//!
//! The file is mapped, and every `raw_data` stays a slice of the mapping, so a model of many gigabytes opens without
//! reading its weights. Tensors made from a model stay valid after it is gone: each keeps what it points into alive.
//! A model is immutable and may be used from several threads.
//!
//! This module does not look at nodes: the order, the names and the meaning of a graph are the importer's business.

use crate::base::error::ResultExt;
use crate::base::{DType, Dim, Result, Shape, Tensor};
use crate::onnx::external::{ExternalFiles, map_file};
use crate::onnx::proto::tensor_shape_proto::dimension;
use crate::onnx::proto::{GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto, type_proto};
use crate::onnx::tensor::{dtype_of, tensor_of};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The newest IR version whose rules this reader knows.
pub const NEWEST_IR_VERSION: i64 = 13;

/// A decoded model with the files beside it.
pub struct OnnxModel {
    pub proto: ModelProto,
    /// Version by domain; the default domain is "".
    opsets: BTreeMap<String, i64>,
    external: ExternalFiles,
}

impl OnnxModel {
    /// Maps and decodes a model file. External data is looked for in the file's folder.
    pub fn from_file(path: impl AsRef<Path>) -> Result<OnnxModel> {
        let path = path.as_ref();
        let at = || format!("model file {}", path.display());
        Self::from_bytes(map_file(path)?, path.parent()).with_context(at)
    }

    /// Decodes a model in memory. `base_dir` is the folder for external data; without it, external data is an error.
    pub fn from_bytes(bytes: impl Into<Bytes>, base_dir: Option<&Path>) -> Result<OnnxModel> {
        let bytes = bytes.into();
        crate::ensure!(!bytes.is_empty(), Parse, "the model is empty (0 bytes)");
        let proto = ModelProto::decode(bytes).map_err(|e| crate::err!(Parse, "not an ONNX model: {e}"))?;
        crate::ensure!(proto.graph.is_some(), Parse, "not an ONNX model: it has no graph");
        let mut opsets = BTreeMap::new();
        for import in &proto.opset_import {
            let (domain, version) = (default_domain(import.domain()), import.version());
            if let Some(other) = opsets.insert(domain.to_string(), version) {
                crate::ensure!(
                    other == version,
                    Parse,
                    "the model imports domain {domain:?} twice, with versions {other} and {version}"
                );
            }
        }
        if proto.ir_version() > NEWEST_IR_VERSION {
            let got = proto.ir_version();
            crate::log_warn!("the model's IR version {got} is newer than {NEWEST_IR_VERSION}, the newest known here");
        }
        Ok(OnnxModel { proto, opsets, external: ExternalFiles::new(base_dir) })
    }

    /// The main graph.
    pub fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("checked when the model was decoded")
    }

    /// The imported version of a domain; "" and "ai.onnx" are the same one.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.get(default_domain(domain)).copied()
    }

    /// All imported domains with their versions.
    pub fn opsets(&self) -> impl Iterator<Item = (&str, i64)> {
        self.opsets.iter().map(|(d, v)| (d.as_str(), *v))
    }

    pub fn ir_version(&self) -> i64 {
        self.proto.ir_version()
    }

    /// Name and version of the program that wrote the model, as it calls itself; may be empty.
    pub fn producer(&self) -> String {
        format!("{} {}", self.proto.producer_name(), self.proto.producer_version()).trim().to_string()
    }

    /// The folder in which external data is looked for.
    pub fn base_dir(&self) -> Option<&Path> {
        self.external.base_dir()
    }

    /// Converts an initializer, or any other tensor of this model, resolving external data.
    pub fn tensor(&self, t: &TensorProto) -> Result<Arc<Tensor>> {
        tensor_of(t, Some(&self.external)).map(Arc::new)
    }
}

/// "" for the default ONNX domain, which is also written "ai.onnx".
pub fn default_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Element type and shape that the model declares for a value; the shape is `None` when not even the rank is given.
///
/// A named dimension becomes a symbol of that name. A dimension without a number or a name (or -1, as some exporters
/// write) becomes the symbol `<value>.<axis>`, which no other value shares.
///
/// A value without a type is an error; inputs and outputs of subgraphs may lack one, so look at `v.r#type` first there.
pub fn value_info(v: &ValueInfoProto) -> Result<(DType, Option<Shape>)> {
    let name = v.name();
    type_info(name, v.r#type.as_ref()).map_err(|e| e.context(format!("value {name:?}")))
}

fn type_info(name: &str, ty: Option<&TypeProto>) -> Result<(DType, Option<Shape>)> {
    use type_proto::Value;
    let other = match ty.and_then(|t| t.value.as_ref()) {
        Some(Value::TensorType(t)) => {
            let dtype = dtype_of(t.elem_type.unwrap_or(0))?;
            let Some(shape) = &t.shape else { return Ok((dtype, None)) };
            let dims = shape.dim.iter().enumerate().map(|(axis, d)| dim_of(name, axis, d.value.as_ref()));
            return Ok((dtype, Some(Shape(dims.collect::<Result<_>>()?))));
        }
        Some(Value::SequenceType(_)) => "a sequence",
        Some(Value::MapType(_)) => "a map",
        Some(Value::OptionalType(_)) => "an optional",
        Some(Value::SparseTensorType(_)) => "a sparse tensor",
        Some(Value::OpaqueType(_)) => "an opaque type",
        None => crate::bail!(InvalidArgument, "its type is not given"),
    };
    Err(crate::err!(Unsupported, "its type is {other}, only dense tensors are supported"))
}

fn dim_of(name: &str, axis: usize, dim: Option<&dimension::Value>) -> Result<Dim> {
    use dimension::Value;
    match dim {
        Some(Value::DimValue(v)) if *v >= 0 => Ok(Dim::Const(*v)),
        Some(Value::DimValue(v)) if *v < -1 => Err(crate::err!(InvalidArgument, "axis {axis} has the dimension {v}")),
        Some(Value::DimParam(s)) if !s.is_empty() => Ok(Dim::sym(s)),
        _ => Ok(Dim::sym(&format!("{name}.{axis}"))),
    }
}
