//! What an engine is made of, as JSON: layers in order with their kernels, tensors and shapes.

use super::Engine;
use crate::base::Result;
use crate::plan::{Plan, StepKind};
use std::fmt::Write;

/// A string in JSON quotes.
pub fn json_str(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 32 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Engine {
    /// `{"Layers": [...], "Bindings": [...], ...}`, one layer an object with name, type, tactic, inputs and outputs.
    pub fn inspect_json(&self) -> Result<String> {
        let mut layers = Vec::new();
        self.plan.visit(&mut |plan| layers.extend(layers_of(plan)));
        let io: Vec<String> = self.io_tensors().iter().map(|t| json_str(&t.name)).collect();
        Ok(format!(
            "{{\n  \"Name\": {},\n  \"Device\": {},\n  \"WeightBytes\": {},\n  \"Layers\": [\n{}\n  ],\n  \"Bindings\": [{}]\n}}\n",
            json_str(&self.image.name),
            json_str(&self.device.props().name),
            self.weight_bytes(),
            layers.join(",\n"),
            io.join(", ")
        ))
    }
}

/// The steps of one plan; graphs inside of nodes have plans of their own.
fn layers_of(plan: &Plan) -> Vec<String> {
    let g = &plan.graph;
    let mut layers = Vec::new();
    for s in &plan.steps {
        let node = g.node(s.node);
        let (kind, tactic) = match &s.kind {
            StepKind::Host => ("host", "shape arithmetic".to_string()),
            StepKind::View => ("view", "no copy".to_string()),
            StepKind::Device(None) => ("cpu", "cpu".to_string()),
            StepKind::Device(Some(t)) | StepKind::Counted(Some(t)) => (t.source.name(), t.name.clone()),
            StepKind::Counted(None) => ("cpu", "cpu, shape from data".to_string()),
            StepKind::Control(_) => ("control", "control flow".to_string()),
        };
        let tensor = |v: crate::network::ValueId| {
            let f = g.fact(v);
            format!(
                "{{\"Name\": {}, \"Dimensions\": {}, \"Type\": \"{}\"}}",
                json_str(&g.value(v).name),
                json_str(&f.shape.to_string()),
                f.dtype
            )
        };
        let ins: Vec<String> = node.inputs.iter().flatten().map(|v| tensor(*v)).collect();
        let outs: Vec<String> = node.outputs.iter().map(|v| tensor(*v)).collect();
        layers.push(format!(
            "    {{\"Name\": {}, \"LayerType\": \"{}\", \"Source\": \"{kind}\", \"Tactic\": {}, \"Attributes\": {}, \
             \"Inputs\": [{}], \"Outputs\": [{}]}}",
            json_str(&node.name),
            node.op.name(),
            json_str(&tactic),
            json_str(&node.op.attrs().to_string()),
            ins.join(", "),
            outs.join(", ")
        ));
    }
    layers
}
