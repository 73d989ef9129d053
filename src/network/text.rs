//! Printing graphs: one line a node, readable and stable, for dumps and bug reports.

use super::graph::{Graph, ValueId};
use std::fmt;

impl Graph {
    fn label(&self, v: ValueId) -> String {
        let value = self.value(v);
        match value.fact.as_const() {
            Some(t) if t.numel() == 1 => format!("{}", TensorText(t)),
            Some(t) => format!("const{}{:?}", t.dtype(), t.shape()),
            None => format!("%{}", v.0),
        }
    }
}

struct TensorText<'a>(&'a crate::base::Tensor);

impl fmt::Display for TensorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.dtype().is_float_like() {
            write!(f, "{:?}:{}", self.0.to_f64s()[0], self.0.dtype())
        } else {
            write!(f, "{}:{}", self.0.to_i64s()[0], self.0.dtype())
        }
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {:?} ({} nodes)", self.name, self.n_nodes())?;
        for p in self.inputs() {
            writeln!(f, "  input  %{} {:?}: {}", p.value.0, p.name, self.fact(p.value))?;
        }
        let order = self.order().unwrap_or_else(|_| self.node_ids());
        for n in order {
            let node = self.node(n);
            let outs: Vec<String> =
                node.outputs.iter().map(|v| format!("%{}: {}", v.0, self.fact(*v))).collect();
            let ins: Vec<String> =
                node.inputs.iter().map(|v| v.map_or("-".to_string(), |v| self.label(v))).collect();
            writeln!(
                f,
                "  {} = {}({}) {{{}}}  # {}",
                outs.join(", "),
                node.op.name(),
                ins.join(", "),
                node.op.attrs(),
                node.name
            )?;
        }
        for p in self.outputs() {
            writeln!(f, "  output {} {:?}", self.label(p.value), p.name)?;
        }
        Ok(())
    }
}
