//! From an ONNX model to a graph: walks the nodes and calls each operator's own importer.
//!
//! A node that cannot be imported does not end the walk: the error at the end names every such node with its operator,
//! opset and reason, so that a user learns at once what is missing. Nodes that only depend on a failed one are not
//! reported.

use super::attrs::AttrReader;
use super::model::{OnnxModel, default_domain, value_info};
use super::proto::{GraphProto, NodeProto};
use crate::base::error::ResultExt;
use crate::base::{Error, ErrorCode, Fact, Result, Tensor};
use crate::network::{Graph, ValueId};
use crate::ops::{AttrSource, ImportCx, find_onnx, onnx_table};
use crate::{bail, ensure, err, log_verbose, log_warn};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Opsets of the standard domain that importers are written for.
pub const OPSETS: std::ops::RangeInclusive<i64> = 1..=25;

impl AttrSource for AttrReader<'_> {
    fn int(&self, name: &str) -> Result<Option<i64>> {
        self.int_opt(name)
    }
    fn float(&self, name: &str) -> Result<Option<f32>> {
        self.float_opt(name)
    }
    fn string(&self, name: &str) -> Result<Option<String>> {
        Ok(self.string_opt(name)?.map(str::to_string))
    }
    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        Ok(self.ints_opt(name)?.map(<[i64]>::to_vec))
    }
    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        Ok(self.floats_opt(name)?.map(<[f32]>::to_vec))
    }
    fn strings(&self, name: &str) -> Result<Option<Vec<String>>> {
        Ok(self.has(name).then(|| self.strings(name)).transpose()?.map(|v| v.iter().map(|s| s.to_string()).collect()))
    }
    fn tensor(&self, name: &str) -> Result<Option<Arc<Tensor>>> {
        AttrReader::tensor(self, name)
    }
    fn ignore(&self, name: &str) {
        AttrReader::ignore(self, name)
    }
}

/// Reads a model file, with external data beside it.
pub fn import_file(path: &Path) -> Result<Graph> {
    import(&OnnxModel::from_file(path)?).with_context(|| format!("model {}", path.display()))
}

/// Reads a model in memory. `base_dir` is where external data lies.
pub fn import_bytes(bytes: impl Into<bytes::Bytes>, base_dir: Option<&Path>) -> Result<Graph> {
    import(&OnnxModel::from_bytes(bytes, base_dir)?)
}

/// Makes the graph of a decoded model.
pub fn import(model: &OnnxModel) -> Result<Graph> {
    let proto = model.graph();
    let mut imp = Importer {
        model,
        graph: Graph::new(proto.name()),
        values: HashMap::new(),
        failed: HashSet::new(),
        problems: Vec::new(),
    };
    imp.run(proto)?;
    Ok(imp.graph)
}

struct Importer<'a> {
    model: &'a OnnxModel,
    graph: Graph,
    values: HashMap<&'a str, ValueId>,
    /// Names of values whose node failed, or that depend on one.
    failed: HashSet<&'a str>,
    problems: Vec<Error>,
}

impl<'a> Importer<'a> {
    fn run(&mut self, proto: &'a GraphProto) -> Result<()> {
        ensure!(proto.sparse_initializer.is_empty(), Unsupported, "sparse initializers are not supported");
        for t in &proto.initializer {
            let name = t.name();
            let tensor = self.model.tensor(t).with_context(|| format!("initializer {name:?}"));
            match tensor {
                Ok(t) => {
                    let v = self.graph.add_const(name, t);
                    ensure!(self.values.insert(name, v).is_none(), Parse, "two initializers are named {name:?}");
                }
                Err(e) => self.fail([name], e),
            }
        }
        for v in &proto.input {
            // Before IR version 4 initializers are listed among the inputs too.
            if self.values.contains_key(v.name()) || self.failed.contains(v.name()) {
                continue;
            }
            let declared = value_info(v).and_then(|(dtype, shape)| {
                let shape = shape.ok_or_else(|| err!(Unsupported, "the rank is not given"))?;
                self.graph.add_input(v.name(), Fact::new(dtype, shape))
            });
            match declared.with_context(|| format!("input {:?}", v.name())) {
                Ok(id) => drop(self.values.insert(v.name(), id)),
                Err(e) => self.fail([v.name()], e),
            }
        }
        for (i, node) in proto.node.iter().enumerate() {
            self.node(i, node);
        }
        self.report()?;
        for p in &proto.output {
            let v = self.values.get(p.name());
            let v = *v.ok_or_else(|| err!(Parse, "output {:?} is computed by no node", p.name()))?;
            self.check_declared(p, v);
            self.graph.add_output(p.name(), v)?;
        }
        ensure!(!proto.output.is_empty(), Parse, "the graph has no outputs");
        Ok(())
    }

    fn fail(&mut self, outputs: impl IntoIterator<Item = &'a str>, e: Error) {
        self.problems.push(e);
        self.failed.extend(outputs);
    }

    fn node(&mut self, i: usize, node: &'a NodeProto) {
        let outputs = || node.output.iter().map(|o| o.as_str()).filter(|o| !o.is_empty());
        let name = node_name(i, node);
        let domain = default_domain(node.domain());
        let opset = self.model.opset(domain).unwrap_or(if domain.is_empty() { 0 } else { 1 });
        let shown = if domain.is_empty() { node.op_type().to_string() } else { format!("{domain}.{}", node.op_type()) };
        let at = format!("node {name:?} ({shown}, opset {opset})");
        let result = match find_onnx(domain, node.op_type(), opset) {
            None => Err(unknown(domain, node.op_type(), opset, self.model.opset(domain).is_some())),
            Some(_) if node.input.iter().any(|v| self.failed.contains(v.as_str())) => {
                self.failed.extend(outputs());
                return;
            }
            Some(entry) => self.import_node(&name, node, opset, entry),
        };
        if let Err(e) = result {
            self.fail(outputs(), e.context(at));
        }
    }

    fn import_node(
        &mut self,
        name: &str,
        node: &'a NodeProto,
        opset: i64,
        entry: &'static crate::ops::OnnxOp,
    ) -> Result<()> {
        let inputs = node
            .input
            .iter()
            .map(|v| match v.as_str() {
                "" => Ok(None),
                v => match self.values.get(v) {
                    Some(id) => Ok(Some(*id)),
                    None => Err(err!(Parse, "it reads {v:?}, which no earlier node computes")),
                },
            })
            .collect::<Result<Vec<_>>>()?;
        let attrs = AttrReader::new(self.model, node)?;
        let mut cx = ImportCx {
            graph: &mut self.graph,
            name,
            op_type: node.op_type(),
            opset,
            inputs,
            n_outputs: node.output.len(),
            attrs: &attrs,
            n_added: 0,
            values: Vec::new(),
            subgraphs: None,
        };
        let out = (entry.import)(&mut cx)?;
        attrs.finish()?;
        for (i, o) in node.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
            let v = *out.get(i).ok_or_else(|| err!(Unsupported, "output {i} ({o:?}) is not supported"))?;
            ensure!(!self.values.contains_key(o.as_str()), Parse, "two nodes compute {o:?}");
            if self.graph.value(v).producer.is_some() && !self.graph.is_input(v) {
                self.graph.rename_value(v, o);
            }
            self.values.insert(o, v);
        }
        Ok(())
    }

    /// A declared output type that contradicts what was inferred is worth a warning, not an error: exporters leave
    /// stale shapes behind.
    fn check_declared(&self, p: &super::proto::ValueInfoProto, v: ValueId) {
        let f = self.graph.fact(v);
        if let Ok((dtype, Some(shape))) = value_info(p) {
            let clash = dtype != f.dtype
                || (shape.rank() != f.rank() && shape.rank() > 0)
                || shape.iter().zip(f.shape.iter()).any(|(a, b)| {
                    matches!((a.as_const(), b.as_const()), (Some(a), Some(b)) if a != b)
                });
            if clash {
                log_warn!("output {:?} is declared as {dtype}{shape}, but it is {f}; the latter holds", p.name());
            }
        }
        log_verbose!("output {:?}: {f}", p.name());
    }

    fn report(&mut self) -> Result<()> {
        match self.problems.len() {
            0 => Ok(()),
            1 => Err(self.problems.remove(0)),
            n => {
                let code = self.problems.iter().find(|e| e.code != ErrorCode::Unsupported).map_or(ErrorCode::Unsupported, |e| e.code);
                let lines: Vec<String> = self.problems.iter().take(200).map(|e| format!("\n  {e}")).collect();
                let rest = n.saturating_sub(lines.len());
                let more = if rest > 0 { format!("\n  and {rest} more") } else { String::new() };
                Err(Error::new(code, format!("{n} parts of the model cannot be imported:{}{more}", lines.concat())))
            }
        }
    }
}

fn node_name(i: usize, node: &NodeProto) -> String {
    match node.name() {
        "" => match node.output.iter().find(|o| !o.is_empty()) {
            Some(o) => format!("{}_{i}_{o}", node.op_type()),
            None => format!("{}_{i}", node.op_type()),
        },
        name => name.to_string(),
    }
}

fn unknown(domain: &str, op: &str, opset: i64, imported: bool) -> Error {
    let known: Vec<i64> = onnx_table().filter(|o| o.domain == domain && o.name == op).map(|o| o.since).collect();
    match known.iter().min() {
        Some(first) => err!(Unsupported, "this operator is supported from opset {first} on"),
        None if !imported => err!(Unsupported, "domain {domain:?} is not imported by the model, and the operator is not known"),
        None if domain.is_empty() && !OPSETS.contains(&opset) => {
            err!(Unsupported, "the operator is not known; opsets {} to {} are", OPSETS.start(), OPSETS.end())
        }
        None => err!(Unsupported, "the operator is not supported"),
    }
}

/// Checks the model's opset of the standard domain.
pub fn check_opset(model: &OnnxModel) -> Result<()> {
    match model.opset("") {
        Some(v) if v > *OPSETS.end() => {
            bail!(Unsupported, "the model uses opset {v}; this library knows opsets up to {}", OPSETS.end())
        }
        _ => Ok(()),
    }
}
