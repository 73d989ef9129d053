//! Why a case does not pass.

use sinter::onnx::OnnxModel;
use sinter::onnx::proto::type_proto::Value;
use sinter::onnx::proto::{GraphProto, ValueInfoProto};

pub const PASS: &str = "pass";
/// Not imported, or not built: a gap.
pub const UNSUPPORTED: &str = "unsupported";
/// An error while running.
pub const FAILED: &str = "failed";
pub const WRONG: &str = "wrong";
pub const PANIC: &str = "panic";

/// Classes of what is left out on purpose, and what they say. A case of one of them may pass all the same.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("string", "tensors of strings are no data of an engine"),
    ("training", "operators of training"),
    ("image files", "ImageDecoder reads compressed image files"),
    ("random", "results depend on the generator of random numbers"),
    ("boundary", "a sequence or an optional is an input or output; inside a network both are resolved by the import"),
    ("preview", "operators of a preview domain, which may still change"),
];

/// ONNX's number of the type string.
const STRING: i32 = 8;
const RANDOM: &[&str] = &["Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"];
/// Dropout with the operand that switches it on.
const TRAINING_DROPOUT: &str = "Dropout in training";
const STRINGS: &[&str] = &["StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch"];

fn left_out(class: &str, detail: impl Into<String>) -> Option<(&'static str, String)> {
    let (class, text) = LEFT_OUT.iter().find(|(c, _)| *c == class)?;
    Some((class, format!("{text} ({})", detail.into())))
}

/// The type of an input or output at the boundary, when it is no plain tensor.
fn boundary(v: &ValueInfoProto) -> Option<(&'static str, String)> {
    match v.r#type.as_ref()?.value.as_ref()? {
        Value::TensorType(t) if t.elem_type() == STRING => left_out("string", v.name()),
        Value::TensorType(_) => None,
        Value::SequenceType(s) => {
            let strings = matches!(s.elem_type.as_ref().and_then(|t| t.value.as_ref()), Some(Value::TensorType(t)) if t.elem_type() == STRING);
            left_out(if strings { "string" } else { "boundary" }, format!("sequence {}", v.name()))
        }
        Value::OptionalType(_) => left_out("boundary", format!("optional {}", v.name())),
        Value::MapType(_) => left_out("boundary", format!("map {}", v.name())),
        Value::SparseTensorType(_) => left_out("boundary", format!("sparse tensor {}", v.name())),
        Value::OpaqueType(_) => left_out("boundary", format!("opaque {}", v.name())),
    }
}

fn nodes(graph: &GraphProto, see: &mut dyn FnMut(&str, &str)) {
    for n in &graph.node {
        let trains = n.op_type() == "Dropout" && n.input.get(2).is_some_and(|i| !i.is_empty());
        see(n.domain(), if trains { TRAINING_DROPOUT } else { n.op_type() });
        for g in n.attribute.iter().filter_map(|a| a.g.as_ref()) {
            nodes(g, see);
        }
    }
}

/// Why the model may be left out, if it may.
pub fn of_model(model: &OnnxModel) -> Option<(&'static str, String)> {
    let graph = model.graph();
    let mut found = None;
    nodes(graph, &mut |domain, op| {
        let class = match (domain, op) {
            ("ai.onnx.preview.training", _) | ("", "Gradient") => "training",
            ("", "ImageDecoder") => "image files",
            ("", op) if RANDOM.contains(&op) || op == TRAINING_DROPOUT => "random",
            ("", op) if STRINGS.contains(&op) => "string",
            ("ai.onnx.preview", _) => "preview",
            _ => return,
        };
        found = found.take().or_else(|| left_out(class, op));
    });
    found.or_else(|| graph.input.iter().chain(&graph.output).find_map(boundary))
}
