//! Typed reading of a node's attributes, with a record of what was read.
//!
//! An importer asks for each attribute that it knows, by name and type, and calls [`AttrReader::finish`] at the end: an
//! attribute that nobody asked for is an error, because passing over it would mean computing something else than the
//! model says. An attribute of another type than asked for is an error too; nothing is converted.

use crate::base::error::ResultExt;
use crate::base::{DType, Result, Tensor};
use crate::onnx::model::OnnxModel;
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto};
use crate::onnx::tensor::dtype_of;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The attributes of one node. Getters give `default` or `None` when the attribute is absent.
pub struct AttrReader<'a> {
    model: &'a OnnxModel,
    attrs: BTreeMap<&'a str, Entry<'a>>,
}

/// Attributes of a call of a function, by name.
pub type FunctionAttrs<'a> = BTreeMap<&'a str, &'a AttributeProto>;

struct Entry<'a> {
    proto: &'a AttributeProto,
    read: Cell<bool>,
}

impl<'a> AttrReader<'a> {
    /// Fails when two attributes have the same name.
    pub fn new(model: &'a OnnxModel, node: &'a NodeProto) -> Result<Self> {
        Self::inside(model, node, None)
    }

    /// As [`Self::new`] for a node of a function: what refers to an attribute of the function has its value, or is absent
    /// when that is.
    pub fn inside(model: &'a OnnxModel, node: &'a NodeProto, function: Option<&FunctionAttrs<'a>>) -> Result<Self> {
        let mut attrs = BTreeMap::new();
        for proto in &node.attribute {
            let value = match (function, proto.ref_attr_name()) {
                (Some(f), name) if !name.is_empty() => match f.get(name) {
                    Some(value) => *value,
                    None => continue,
                },
                _ => proto,
            };
            let twice = attrs.insert(proto.name(), Entry { proto: value, read: Cell::new(false) }).is_some();
            crate::ensure!(!twice, InvalidArgument, "attribute {:?} is given twice", proto.name());
        }
        Ok(AttrReader { model, attrs })
    }

    /// The message behind an attribute.
    pub fn proto(&self, name: &str) -> Option<&'a AttributeProto> {
        self.attrs.get(name).map(|e| e.proto)
    }

    /// Whether the attribute is there. Does not count as reading it.
    pub fn has(&self, name: &str) -> bool {
        self.attrs.contains_key(name)
    }

    /// Marks an attribute as read whatever it holds: for those that do not change the result.
    pub fn ignore(&self, name: &str) {
        if let Some(e) = self.attrs.get(name) {
            e.read.set(true);
        }
    }

    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.int_opt(name)?.unwrap_or(default))
    }

    // A number that is zero may be left out by writers that follow proto3, so a missing field reads as its default.
    pub fn int_opt(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.find(name, AttributeType::Int)?.map(|a| a.i()))
    }

    /// An integer that must be there.
    pub fn int_required(&self, name: &str) -> Result<i64> {
        required(name, self.int_opt(name)?)
    }

    /// An integer used as a flag: 0 or 1.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.int(name, default as i64)? {
            0 => Ok(false),
            1 => Ok(true),
            v => Err(crate::err!(InvalidArgument, "attribute {name:?}: expected 0 or 1, got {v}")),
        }
    }

    /// An integer that is an element type number, as in `Cast.to`.
    pub fn dtype_opt(&self, name: &str) -> Result<Option<DType>> {
        let Some(code) = self.int_opt(name)? else { return Ok(None) };
        let code = i32::try_from(code).map_err(|_| crate::err!(Unsupported, "element type number {code} is not known"));
        code.and_then(dtype_of).map(Some).with_context(|| format!("attribute {name:?}"))
    }

    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.float_opt(name)?.unwrap_or(default))
    }

    pub fn float_opt(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.find(name, AttributeType::Float)?.map(|a| a.f()))
    }

    pub fn string(&self, name: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.string_opt(name)?.unwrap_or(default))
    }

    pub fn string_opt(&self, name: &str) -> Result<Option<&'a str>> {
        self.find(name, AttributeType::String)?.map(|a| utf8(name, a.s())).transpose()
    }

    /// Empty when absent; use [`Self::ints_opt`] where absent and empty differ.
    pub fn ints(&self, name: &str) -> Result<&'a [i64]> {
        Ok(self.ints_opt(name)?.unwrap_or(&[]))
    }

    pub fn ints_opt(&self, name: &str) -> Result<Option<&'a [i64]>> {
        Ok(self.find(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    /// Empty when absent; use [`Self::floats_opt`] where absent and empty differ.
    pub fn floats(&self, name: &str) -> Result<&'a [f32]> {
        Ok(self.floats_opt(name)?.unwrap_or(&[]))
    }

    pub fn floats_opt(&self, name: &str) -> Result<Option<&'a [f32]>> {
        Ok(self.find(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    /// Empty when absent.
    pub fn strings(&self, name: &str) -> Result<Vec<&'a str>> {
        let Some(a) = self.find(name, AttributeType::Strings)? else { return Ok(Vec::new()) };
        a.strings.iter().map(|s| utf8(name, s)).collect()
    }

    /// A constant, with external data resolved.
    pub fn tensor(&self, name: &str) -> Result<Option<Arc<Tensor>>> {
        let Some(a) = self.find(name, AttributeType::Tensor)? else { return Ok(None) };
        let t = a.t.as_deref().ok_or_else(|| empty(name))?;
        self.model.tensor(t).map(Some).with_context(|| format!("attribute {name:?}"))
    }

    /// A subgraph that must be there.
    pub fn graph(&self, name: &str) -> Result<&'a GraphProto> {
        required(name, self.graph_opt(name)?)
    }

    pub fn graph_opt(&self, name: &str) -> Result<Option<&'a GraphProto>> {
        let Some(a) = self.find(name, AttributeType::Graph)? else { return Ok(None) };
        a.g.as_deref().ok_or_else(|| empty(name)).map(Some)
    }

    /// Fails when an attribute was never asked for, naming all of them.
    pub fn finish(self) -> Result<()> {
        let left: Vec<String> =
            self.attrs.iter().filter(|(_, e)| !e.read.get()).map(|(name, _)| format!("{name:?}")).collect();
        crate::ensure!(left.is_empty(), Unsupported, "attributes that are not supported: {}", left.join(", "));
        Ok(())
    }

    fn find(&self, name: &str, expected: AttributeType) -> Result<Option<&'a AttributeProto>> {
        let Some(entry) = self.attrs.get(name) else { return Ok(None) };
        entry.read.set(true);
        let a = entry.proto;
        crate::ensure!(
            a.ref_attr_name().is_empty(),
            InvalidArgument,
            "attribute {name:?} refers to {:?} of a function, outside of any function",
            a.ref_attr_name()
        );
        let code = a.r#type.unwrap_or(0);
        let got = AttributeType::try_from(code);
        if got == Ok(expected) {
            return Ok(Some(a));
        }
        let got = got.map_or(format!("type number {code}"), |t| t.as_str_name().to_string());
        Err(crate::err!(InvalidArgument, "attribute {name:?}: expected {}, got {got}", expected.as_str_name()))
    }
}

fn required<T>(name: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| crate::err!(InvalidArgument, "attribute {name:?} is missing"))
}

fn empty(name: &str) -> crate::base::Error {
    crate::err!(CorruptData, "attribute {name:?} has no value")
}

fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| crate::err!(InvalidArgument, "attribute {name:?} is not UTF-8"))
}
