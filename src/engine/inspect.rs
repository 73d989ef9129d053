//! What an engine is made of, as JSON: layers in order with their kernels, tensors and shapes.

use super::Engine;
use crate::autotune::Choice;
use crate::base::Result;
use crate::plan::{Plan, StepKind};
use std::collections::HashMap;
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
    /// `{"Layers": [...], "Bindings": [...], ...}`, one layer an object with name, type, tactic, inputs and outputs. Where
    /// the choice rests on times it has `TimeUs`, and `Candidates` with the time of each, the chosen one first.
    pub fn inspect_json(&self) -> Result<String> {
        let mut layers = Vec::new();
        let device_plan = self.image.plan.as_ref().filter(|_| self.device.props().is_cuda());
        let choices = device_plan.map_or(&[][..], |p| &p.choices);
        let by_number = choices.iter().flat_map(|c| c.nodes.iter().map(move |n| (*n, c))).collect();
        layers_of(&self.plan, &by_number, &mut 0, &mut layers);
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

/// The steps of one plan, and those of the plans of graphs inside of its nodes. Steps are numbered as `Graph::visit` numbers
/// nodes.
fn layers_of(plan: &Plan, choices: &HashMap<u32, &Choice>, number: &mut u32, layers: &mut Vec<String>) {
    let g = &plan.graph;
    for s in &plan.steps {
        let node = g.node(s.node);
        let choice = choices.get(number);
        *number += 1;
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
        let times = choice.map_or(String::new(), |c| times_of(c));
        layers.push(format!(
            "    {{\"Name\": {}, \"LayerType\": \"{}\", \"Source\": \"{kind}\", \"Tactic\": {}, {times}\"Attributes\": {}, \
             \"Inputs\": [{}], \"Outputs\": [{}]}}",
            json_str(&node.name),
            node.op.name(),
            json_str(&tactic),
            json_str(&node.op.attrs().to_string()),
            ins.join(", "),
            outs.join(", ")
        ));
        if let StepKind::Control(plans) = &s.kind {
            plans.iter().for_each(|p| layers_of(p, choices, number, layers));
        }
    }
}

/// `"TimeUs": 3.2, "Candidates": [...], `, or nothing without times. An engine from a file may hold any numbers.
fn times_of(c: &Choice) -> String {
    let finite = |ms: f32| if ms.is_finite() { ms * 1e3 } else { 0.0 };
    let one = |(name, ms): &(String, f32)| format!("{{\"Tactic\": {}, \"TimeUs\": {:.3}}}", json_str(name), finite(*ms));
    let Some((_, first)) = c.timed.first() else { return String::new() };
    let all: Vec<String> = c.timed.iter().map(one).collect();
    format!("\"TimeUs\": {:.3}, \"Candidates\": [{}], ", finite(*first), all.join(", "))
}
