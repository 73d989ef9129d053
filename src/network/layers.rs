//! The network as a user describes it by hand: typed layers over the operators' own importers.
//!
//! A layer is written once, as the ONNX operator of the newest known opset, and goes through the importer that the ONNX
//! path uses too; so a layer by hand and the same node in a model give the same graph, and an operator that is added to
//! the library can be used by hand at once ([`Network::add_operator`]).
//!
//! A layer that is refused leaves the network as it was.

use super::graph::{Graph, ValueId};
use crate::base::error::ResultExt;
use crate::base::{AttrValue, Attrs, DType, Result, Tensor};
use crate::ops::{AttrSource, ImportCx, find_onnx, onnx_table};
use crate::{ensure, err};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Opset of the standard domain that layers by hand are understood as.
pub const OPSET: i64 = 25;

/// A network under construction.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub graph: Graph,
    n_added: usize,
}

/// Attributes given by a caller, with a record of which were asked for.
struct Given<'a> {
    attrs: &'a Attrs,
    read: RefCell<BTreeSet<String>>,
}

impl Given<'_> {
    fn find<T>(&self, name: &str, kind: &str, as_kind: impl Fn(&AttrValue) -> Option<T>) -> Result<Option<T>> {
        let Some(v) = self.attrs.0.get(name) else { return Ok(None) };
        self.read.borrow_mut().insert(name.to_string());
        match as_kind(v) {
            Some(v) => Ok(Some(v)),
            None => Err(err!(InvalidArgument, "attribute {name:?}: expected {kind}, got {v}")),
        }
    }

    fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        let left: Vec<String> = self.attrs.0.keys().filter(|k| !read.contains(*k)).map(|k| format!("{k:?}")).collect();
        ensure!(left.is_empty(), Unsupported, "attributes that are not supported: {}", left.join(", "));
        Ok(())
    }
}

macro_rules! given {
    ($($f:ident $t:ty, $kind:literal, $variant:ident;)*) => { $(
        fn $f(&self, name: &str) -> Result<Option<$t>> {
            self.find(name, $kind, |v| match v { AttrValue::$variant(v) => Some(v.clone()), _ => None })
        }
    )* };
}

impl AttrSource for Given<'_> {
    given! {
        int i64, "an integer", Int;
        float f32, "a number", Float;
        string String, "a string", Str;
        ints Vec<i64>, "a list of integers", Ints;
        floats Vec<f32>, "a list of numbers", Floats;
        strings Vec<String>, "a list of strings", Strs;
        tensor Arc<Tensor>, "a tensor", Tensor;
    }
}

impl Network {
    pub fn new(name: &str) -> Network {
        Network { graph: Graph::new(name), n_added: 0 }
    }

    /// A network that goes on from a graph, for example an imported one.
    pub fn from_graph(graph: Graph) -> Network {
        Network { graph, n_added: 0 }
    }

    /// Adds an ONNX operator by name and returns the first `n_outputs` outputs (fewer when it has fewer).
    ///
    /// `op_type` may carry a domain in front (`com.microsoft.FusedConv`). `None` operands are optional ones left out.
    /// An empty `name` gets one made from the operator's.
    pub fn add_operator(
        &mut self,
        name: &str,
        op_type: &str,
        inputs: &[Option<ValueId>],
        attrs: &Attrs,
        n_outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let (domain, op) = match op_type.rfind('.') {
            Some(at) => (&op_type[..at], &op_type[at + 1..]),
            None => ("", op_type),
        };
        let opset = if domain.is_empty() { OPSET } else { 1 };
        let name = self.layer_name(name, op);
        let layer = || format!("layer {name:?} ({op_type})");
        let entry = find_onnx(domain, op, opset).ok_or_else(|| {
            let known = onnx_table().any(|o| o.name == op);
            let hint = if known { "it exists in another domain only" } else { "it is not known" };
            err!(Unsupported, "there is no operator {op_type:?} at opset {opset}: {hint}")
        });
        let entry = entry.with_context(layer)?;
        let n_values = self.graph.n_values();
        for (i, v) in inputs.iter().enumerate() {
            if let Some(v) = v {
                ensure!(
                    v.idx() < n_values,
                    InvalidArgument,
                    "{}: input {i}: there is no tensor with id {}",
                    layer(),
                    v.0
                );
            }
        }
        let n_nodes = self.graph.nodes.len();
        let given = Given { attrs, read: RefCell::default() };
        let mut cx = ImportCx {
            graph: &mut self.graph,
            name: &name,
            op_type: op,
            opset,
            inputs: inputs.to_vec(),
            n_outputs,
            attrs: &given,
            n_added: 0,
            values: Vec::new(),
            subgraphs: None,
        };
        let made = (entry.import)(&mut cx).and_then(|out| given.finish().map(|()| out)).with_context(layer);
        let mut out = match made {
            Ok(out) => out,
            Err(e) => {
                self.roll_back(n_nodes, n_values);
                return Err(e);
            }
        };
        out.truncate(n_outputs);
        Ok(out)
    }

    /// Adds an operator and returns its first output.
    pub fn add(&mut self, name: &str, op_type: &str, inputs: &[Option<ValueId>], attrs: &Attrs) -> Result<ValueId> {
        let out = self.add_operator(name, op_type, inputs, attrs, 1)?;
        out.first().copied().ok_or_else(|| crate::internal!("{op_type} has no outputs"))
    }

    /// Adds a constant; an empty name gets a made one.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let name = self.layer_name(name, "Constant");
        self.graph.add_const(&name, Arc::new(tensor))
    }

    /// A constant list of integers, as shapes, axes and paddings are given to operators.
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant("", Tensor::from_slice(&[values.len()], values))
    }

    /// A constant scalar of a type.
    pub fn scalar(&mut self, value: f64, dtype: DType) -> ValueId {
        self.constant("", Tensor::scalar(value).cast(dtype))
    }

    fn layer_name(&mut self, given: &str, op: &str) -> String {
        self.n_added += 1;
        if given.is_empty() { format!("{}_{}", op.to_lowercase(), self.n_added) } else { given.to_string() }
    }

    /// Where the network stands, to go back to when a layer of several operators fails half-way.
    pub fn mark(&self) -> Mark {
        Mark { n_nodes: self.graph.nodes.len(), n_values: self.graph.n_values() }
    }

    /// Takes away everything that was added since the mark. Inputs and outputs added since are taken away too.
    pub fn undo(&mut self, mark: Mark) {
        self.roll_back(mark.n_nodes, mark.n_values);
    }

    fn roll_back(&mut self, n_nodes: usize, n_values: usize) {
        let g = &mut self.graph;
        g.nodes.truncate(n_nodes);
        g.values.truncate(n_values);
        for v in &mut g.values {
            v.consumers.retain(|c| c.idx() < n_nodes);
        }
        g.inputs.retain(|p| p.value.idx() < n_values);
        g.outputs.retain(|p| p.value.idx() < n_values);
    }
}

/// A place to go back to; see [`Network::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    n_nodes: usize,
    n_values: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Fact;

    fn input(net: &mut Network) -> ValueId {
        net.graph.add_input("x", Fact::new(DType::F32, [2, 3])).unwrap()
    }

    #[test]
    fn a_layer_goes_through_the_importer() {
        let mut net = Network::new("n");
        let x = input(&mut net);
        let y = net.add("act", "Relu", &[Some(x)], &Attrs::new()).unwrap();
        assert_eq!(net.graph.fact(y).to_string(), "f32[2,3]");
        assert_eq!(net.graph.producer(y).unwrap().1.name, "act");
    }

    #[test]
    fn a_refused_layer_leaves_the_network_as_it_was() {
        let mut net = Network::new("n");
        let x = input(&mut net);
        let mut attrs = Attrs::new();
        attrs.set("no_such_attribute", &1i64);
        let before = (net.graph.n_values(), net.graph.n_nodes());
        let e = net.add("act", "Relu", &[Some(x)], &attrs).unwrap_err();
        assert!(e.to_string().contains("no_such_attribute"), "{e}");
        assert_eq!(before, (net.graph.n_values(), net.graph.n_nodes()));
        assert!(net.graph.value(x).consumers.is_empty());
        let e = net.add("", "NoSuchOperator", &[Some(x)], &Attrs::new()).unwrap_err();
        assert!(e.to_string().contains("NoSuchOperator"), "{e}");
        let e = net.add("", "Relu", &[Some(ValueId(99))], &Attrs::new()).unwrap_err();
        assert!(e.to_string().contains("99"), "{e}");
    }
}
