//! From an ONNX model to a graph: walks the nodes and calls each operator's own importer.
//!
//! A node that cannot be imported does not end the walk: the error at the end names every such node with its operator,
//! opset and reason, so that a user learns at once what is missing. Nodes that only depend on a failed one are not
//! reported.

use super::attrs::AttrReader;
use super::model::{OnnxModel, default_domain, value_info};
use super::nested::Nested;
use super::scope::Frame;
use super::proto::{GraphProto, NodeProto};
use crate::base::error::ResultExt;
use crate::base::{Error, ErrorCode, Fact, Result, Tensor};
use crate::network::{Graph, ValueId};
use crate::ops::{AttrSource, ImportCx, ImportValue, find_onnx, find_structural, onnx_table};
use crate::{bail, ensure, err, log_verbose, log_warn};
use std::path::Path;
use std::sync::Arc;

/// Opsets of the standard domain that importers are written for.
pub const OPSETS: std::ops::RangeInclusive<i64> = 1..=27;

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
    let mut imp = Importer { model, frames: vec![Frame::new(proto.name())], problems: Vec::new(), depth: 0 };
    imp.run(proto)?;
    let frame = imp.frames.pop().ok_or_else(|| crate::internal!("the importer lost its graph"))?;
    Ok(frame.graph)
}

/// Elements of integer constants that are computed while importing.
const MAX_FOLDED: usize = 1024;

/// How deep graphs and functions may be nested: the walk recurses.
const MAX_NESTING: usize = 64;

/// The walk; see the module's text. Names and captures are in `scope.rs`, nested graphs and functions in `nested.rs`.
pub(super) struct Importer<'a> {
    pub(super) model: &'a OnnxModel,
    /// Graphs under construction, innermost last.
    pub(super) frames: Vec<Frame<'a>>,
    pub(super) problems: Vec<Error>,
    pub(super) depth: usize,
}

impl<'a> Importer<'a> {
    fn run(&mut self, proto: &'a GraphProto) -> Result<()> {
        self.initializers(proto)?;
        for v in &proto.input {
            // Before IR version 4 initializers are listed among the inputs too.
            if self.scope().values.contains_key(v.name()) || self.scope().failed.contains(v.name()) {
                continue;
            }
            let declared = value_info(v).and_then(|(dtype, shape)| {
                let shape = shape.ok_or_else(|| err!(Unsupported, "the rank is not given"))?;
                self.graph().add_input(v.name(), Fact::new(dtype, shape))
            });
            match declared.with_context(|| format!("input {:?}", v.name())) {
                Ok(id) => drop(self.scope().values.insert(v.name(), ImportValue::Tensor(id))),
                Err(e) => self.fail([v.name()], e),
            }
        }
        self.nodes(&proto.node);
        self.report()?;
        for p in &proto.output {
            let v = match self.find(p.name())? {
                ImportValue::Tensor(v) => v,
                _ => bail!(Unsupported, "output {:?} is a sequence or an optional; only tensors leave a network", p.name()),
            };
            self.check_declared(p, v);
            self.graph().add_output(p.name(), v)?;
        }
        ensure!(!proto.output.is_empty(), Parse, "the graph has no outputs");
        Ok(())
    }

    /// Adds the constants that a graph carries to the innermost scope.
    pub(super) fn initializers(&mut self, proto: &'a GraphProto) -> Result<()> {
        ensure!(proto.sparse_initializer.is_empty(), Unsupported, "sparse initializers are not supported");
        for t in &proto.initializer {
            let name = t.name();
            let tensor = self.model.tensor(t).with_context(|| format!("initializer {name:?}"));
            match tensor {
                Ok(t) => {
                    let v = ImportValue::Tensor(self.graph().add_const(name, t));
                    ensure!(self.scope().values.insert(name, v).is_none(), Parse, "two initializers are named {name:?}");
                }
                Err(e) => self.fail([name], e),
            }
        }
        Ok(())
    }

    /// Imports nodes in order; what fails is collected.
    pub(super) fn nodes(&mut self, nodes: &'a [NodeProto]) {
        for (i, node) in nodes.iter().enumerate() {
            self.node(i, node);
        }
    }

    pub(super) fn fail(&mut self, outputs: impl IntoIterator<Item = &'a str>, e: Error) {
        self.problems.push(e);
        self.scope().failed.extend(outputs);
    }

    fn node(&mut self, i: usize, node: &'a NodeProto) {
        let outputs = || node.output.iter().map(|o| o.as_str()).filter(|o| !o.is_empty());
        if node.input.iter().any(|v| self.has_failed(v)) {
            self.scope().failed.extend(outputs());
            return;
        }
        let name = format!("{}{}", self.scope().prefix, node_name(i, node));
        let domain = default_domain(node.domain());
        let imported = self.opset(domain);
        let opset = imported.unwrap_or(if domain.is_empty() { 0 } else { 1 });
        let shown = if domain.is_empty() { node.op_type().to_string() } else { format!("{domain}.{}", node.op_type()) };
        let at = format!("node {name:?} ({shown}, opset {opset})");
        if let Err(e) = self.import_node(&name, node, domain, opset, imported.is_some()) {
            self.fail(outputs(), e.context(at));
        }
    }

    fn import_node(
        &mut self,
        name: &str,
        node: &'a NodeProto,
        domain: &str,
        opset: i64,
        imported: bool,
    ) -> Result<()> {
        let mut values = Vec::new();
        for v in &node.input {
            values.push(if v.is_empty() { None } else { Some(self.find(v)?) });
        }
        let attrs = AttrReader::inside(self.model, node, self.scope().function.as_ref())?;
        let out = match find_structural(domain, node.op_type(), opset) {
            Some(op) => self.call(name, node, opset, values, &attrs, &op.import)?,
            None if is_alias(node.op_type(), &values) => vec![values[0].clone().expect("the alias is of a value")],
            None => match find_onnx(domain, node.op_type(), opset) {
                Some(op) => self.call(name, node, opset, values, &attrs, &|cx| {
                    for (i, v) in cx.values.iter().enumerate() {
                        let tensor = matches!(v, None | Some(ImportValue::Tensor(_) | ImportValue::Optional(None)));
                        ensure!(tensor, Unsupported, "input {i} is a sequence or an optional, a tensor is expected");
                    }
                    Ok((op.import)(cx)?.into_iter().map(ImportValue::Tensor).collect())
                })?,
                None => match self.function(node) {
                    Some(f) => return self.call_function(name, node, f, values, attrs),
                    None => return Err(unknown(domain, node.op_type(), opset, imported)),
                },
            },
        };
        attrs.finish()?;
        self.bind_outputs(node, out)
    }

    /// Runs an importer on the innermost graph.
    fn call(
        &mut self,
        name: &str,
        node: &'a NodeProto,
        opset: i64,
        values: Vec<Option<ImportValue>>,
        attrs: &AttrReader<'a>,
        import: &dyn Fn(&mut ImportCx<'_>) -> Result<Vec<ImportValue>>,
    ) -> Result<Vec<ImportValue>> {
        let inputs = values.iter().map(|v| if let Some(ImportValue::Tensor(v)) = v { Some(*v) } else { None }).collect();
        // The graph is out of its frame while an importer has it.
        let mut graph = std::mem::take(self.graph());
        let mut nested = Nested { importer: self, attrs, name };
        let mut cx = ImportCx {
            graph: &mut graph,
            name,
            op_type: node.op_type(),
            opset,
            inputs,
            n_outputs: node.output.len(),
            attrs,
            n_added: 0,
            values,
            subgraphs: Some(&mut nested),
        };
        let out = import(&mut cx);
        *self.graph() = graph;
        out
    }

    /// Gives the results of a node their names.
    pub(super) fn bind_outputs(&mut self, node: &'a NodeProto, out: Vec<ImportValue>) -> Result<()> {
        for (i, o) in node.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
            let v = out.get(i).ok_or_else(|| err!(Unsupported, "output {i} ({o:?}) is not supported"))?.clone();
            ensure!(!self.scope().values.contains_key(o.as_str()), Parse, "two nodes compute {o:?}");
            let v = match v {
                ImportValue::Tensor(v) => ImportValue::Tensor(self.name_value(v, o)),
                v => v,
            };
            self.scope().values.insert(o, v);
        }
        Ok(())
    }

    /// Gives a value its name in the model. Integers that follow from constants become one at once: they may be shapes,
    /// which later nodes want to know.
    fn name_value(&mut self, v: ValueId, name: &str) -> ValueId {
        let graph = self.graph();
        if graph.value(v).producer.is_none() || graph.is_input(v) {
            return v;
        }
        let f = graph.fact(v);
        let small = f.shape.concrete().is_some_and(|s| s.iter().product::<usize>() <= MAX_FOLDED);
        if f.known.is_none() && small && !f.dtype.is_float_like() {
            if let Some(t) = graph.const_value(v) {
                return graph.add_const(name, t);
            }
        }
        graph.rename_value(v, name);
        v
    }

    /// Goes one level down; fails beyond [`MAX_NESTING`].
    pub(super) fn deeper(&mut self) -> Result<()> {
        ensure!(self.depth < MAX_NESTING, Unsupported, "graphs or functions are nested more than {MAX_NESTING} deep");
        self.depth += 1;
        Ok(())
    }

    /// A declared output type that contradicts what was inferred is worth a warning, not an error: exporters leave
    /// stale shapes behind.
    fn check_declared(&mut self, p: &super::proto::ValueInfoProto, v: ValueId) {
        let f = self.graph().fact(v).clone();
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

    pub(super) fn report(&mut self) -> Result<()> {
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

/// Identity passes on sequences and optionals too.
fn is_alias(op_type: &str, values: &[Option<ImportValue>]) -> bool {
    op_type == "Identity" && matches!(values, [Some(ImportValue::Sequence(_) | ImportValue::Optional(_))])
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
