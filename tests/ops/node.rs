//! Imports one ONNX node by hand: attributes from a list, operands as constants or as graph inputs.

use sinter::base::{AttrValue, Fact, Result, Tensor};
use sinter::network::{Graph, ValueId};
use sinter::ops::{AttrSource, ImportCx, find_onnx};
use std::collections::HashMap;
use std::sync::Arc;

/// One node to import.
#[derive(Clone)]
pub struct Node {
    pub op: &'static str,
    pub opset: i64,
    pub attrs: Vec<(&'static str, AttrValue)>,
    pub n_outputs: usize,
}

pub fn node(op: &'static str, opset: i64) -> Node {
    Node { op, opset, attrs: vec![], n_outputs: 1 }
}

impl Node {
    pub fn int(mut self, name: &'static str, v: i64) -> Node {
        self.attrs.push((name, AttrValue::Int(v)));
        self
    }
    pub fn float(mut self, name: &'static str, v: f32) -> Node {
        self.attrs.push((name, AttrValue::Float(v)));
        self
    }
    pub fn string(mut self, name: &'static str, v: &str) -> Node {
        self.attrs.push((name, AttrValue::Str(v.into())));
        self
    }
    pub fn ints(mut self, name: &'static str, v: &[i64]) -> Node {
        self.attrs.push((name, AttrValue::Ints(v.to_vec())));
        self
    }
    pub fn floats(mut self, name: &'static str, v: &[f32]) -> Node {
        self.attrs.push((name, AttrValue::Floats(v.to_vec())));
        self
    }
    pub fn tensor(mut self, name: &'static str, v: Tensor) -> Node {
        self.attrs.push((name, AttrValue::Tensor(Arc::new(v))));
        self
    }
    pub fn outputs(mut self, n: usize) -> Node {
        self.n_outputs = n;
        self
    }

    /// Adds the node to a graph.
    pub fn import(&self, graph: &mut Graph, inputs: &[Option<ValueId>]) -> Result<Vec<ValueId>> {
        let importer = find_onnx("", self.op, self.opset).unwrap_or_else(|| panic!("{} is not imported", self.op));
        let mut cx = ImportCx {
            graph,
            name: "node",
            op_type: self.op,
            opset: self.opset,
            inputs: inputs.to_vec(),
            n_outputs: self.n_outputs,
            attrs: self,
            n_added: 0,
            values: Vec::new(),
            subgraphs: None,
        };
        (importer.import)(&mut cx)
    }

    /// Runs the node: operand 0 is a graph input, the others are constants.
    pub fn run(&self, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>> {
        let mut g = Graph::new("one node");
        let mut fed = HashMap::new();
        let mut values = Vec::new();
        for (i, t) in inputs.iter().enumerate() {
            let t = t.clone().map(Arc::new);
            values.push(match t {
                None => None,
                Some(t) if i == 0 => {
                    let v = g.add_input("x", Fact::new(t.dtype(), t.shape()))?;
                    fed.insert("x".to_string(), t);
                    Some(v)
                }
                Some(t) => Some(g.add_const("c", t)),
            });
        }
        let out = self.import(&mut g, &values)?;
        for (i, v) in out.iter().enumerate() {
            g.add_output(&format!("y{i}"), *v)?;
        }
        g.verify()?;
        Ok(g.eval(&fed)?.iter().map(|t| (**t).clone()).collect())
    }

    /// Runs a node with one output on one f32 operand and integer vectors.
    pub fn f32(&self, shape: &[usize], x: &[f32], ints: &[&[i64]]) -> Tensor {
        let mut inputs = vec![Some(Tensor::from_slice(shape, x))];
        inputs.extend(ints.iter().map(|v| Some(Tensor::from_slice(&[v.len()], v))));
        self.run(&inputs).unwrap_or_else(|e| panic!("{}: {e}", self.op)).remove(0)
    }
}

impl AttrSource for Node {
    fn int(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.find(name).map(|v| match v {
            AttrValue::Int(v) => *v,
            v => panic!("{name} is {v}"),
        }))
    }
    fn float(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.find(name).map(|v| match v {
            AttrValue::Float(v) => *v,
            v => panic!("{name} is {v}"),
        }))
    }
    fn string(&self, name: &str) -> Result<Option<String>> {
        Ok(self.find(name).map(|v| match v {
            AttrValue::Str(v) => v.clone(),
            v => panic!("{name} is {v}"),
        }))
    }
    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        Ok(self.find(name).map(|v| match v {
            AttrValue::Ints(v) => v.clone(),
            v => panic!("{name} is {v}"),
        }))
    }
    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        Ok(self.find(name).map(|v| match v {
            AttrValue::Floats(v) => v.clone(),
            v => panic!("{name} is {v}"),
        }))
    }
    fn strings(&self, _name: &str) -> Result<Option<Vec<String>>> {
        Ok(None)
    }
    fn tensor(&self, name: &str) -> Result<Option<Arc<Tensor>>> {
        Ok(self.find(name).map(|v| match v {
            AttrValue::Tensor(v) => v.clone(),
            v => panic!("{name} is {v}"),
        }))
    }
}

impl Node {
    fn find(&self, name: &str) -> Option<&AttrValue> {
        self.attrs.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

/// Counts up from `first` in steps of 1.
pub fn counting(n: usize, first: f32) -> Vec<f32> {
    (0..n).map(|i| first + i as f32).collect()
}

/// Shape and elements are as expected; `tolerance` is relative to the larger of 1 and the expected value.
#[track_caller]
pub fn expect(got: &Tensor, shape: &[usize], want: &[f32], tolerance: f32) {
    assert_eq!(got.shape(), shape, "shape of {got:?}");
    for (i, (g, w)) in got.to_f32s().iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan());
        assert!(same || (g - w).abs() <= tolerance * w.abs().max(1.0), "element {i}: expected {w}, got {g}");
    }
}
