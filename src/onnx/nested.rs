//! Graphs inside of nodes, and functions of the model: a graph becomes one of its own or is put in place, a function is
//! always put in place.

use super::attrs::{AttrReader, FunctionAttrs};
use super::importer::Importer;
use super::model::default_domain;
use super::proto::attribute_proto::AttributeType;
use super::proto::{FunctionProto, GraphProto, NodeProto};
use super::scope::{Frame, Scope, as_input};
use crate::base::error::ResultExt;
use crate::base::{Fact, Result};
use crate::network::Graph;
use crate::ops::{Body, ImportValue, Subgraphs};
use crate::{ensure, err};

/// The graphs of one node, for its importer.
pub(super) struct Nested<'i, 'a> {
    pub importer: &'i mut Importer<'a>,
    pub attrs: &'i AttrReader<'a>,
    pub name: &'i str,
}

impl<'a> Nested<'_, 'a> {
    fn proto(&self, attr: &str) -> Result<&'a GraphProto> {
        let a = self.attrs.proto(attr).ok_or_else(|| err!(InvalidArgument, "attribute {attr:?} is missing"))?;
        ensure!(a.r#type() == AttributeType::Graph, InvalidArgument, "attribute {attr:?} is not a graph");
        a.g.as_deref().ok_or_else(|| err!(CorruptData, "attribute {attr:?} has no value"))
    }
}

impl Subgraphs for Nested<'_, '_> {
    fn body(&mut self, graph: &mut Graph, attr: &str, inputs: &[Fact]) -> Result<Body> {
        let proto = self.proto(attr)?;
        std::mem::swap(graph, self.importer.graph());
        let body = self.importer.body(proto, inputs, &format!("{}/", self.name));
        std::mem::swap(graph, self.importer.graph());
        body.with_context(|| format!("graph {attr:?}"))
    }

    fn inline(&mut self, graph: &mut Graph, attr: &str, inputs: &[ImportValue]) -> Result<Vec<ImportValue>> {
        let proto = self.proto(attr)?;
        std::mem::swap(graph, self.importer.graph());
        let out = self.importer.inline(proto, inputs, &format!("{}/", self.name));
        std::mem::swap(graph, self.importer.graph());
        out.with_context(|| format!("graph {attr:?}"))
    }

    fn arity(&self, attr: &str) -> Result<(usize, usize)> {
        let proto = self.proto(attr)?;
        Ok((proto.input.len(), proto.output.len()))
    }
}

impl<'a> Importer<'a> {
    /// A graph of its own with these formal inputs.
    fn body(&mut self, proto: &'a GraphProto, inputs: &[Fact], prefix: &str) -> Result<Body> {
        let n = proto.input.len();
        ensure!(inputs.len() == n, InvalidArgument, "it has {n} inputs, {} are given", inputs.len());
        let mut frame = Frame::new(proto.name());
        for (p, f) in proto.input.iter().zip(inputs) {
            let v = frame.graph.add_input(p.name(), as_input(f))?;
            frame.scopes[0].values.insert(p.name(), ImportValue::Tensor(v));
        }
        frame.scopes[0].prefix = prefix.to_string();
        self.deeper()?;
        self.frames.push(frame);
        let done = self.contents(proto).and_then(|out| {
            for (p, v) in proto.output.iter().zip(out) {
                let ImportValue::Tensor(v) = v else {
                    return Err(err!(
                        Unsupported,
                        "output {:?} is a sequence or an optional, whose structure would depend on the data",
                        p.name()
                    ));
                };
                self.graph().add_output(p.name(), v)?;
            }
            Ok(())
        });
        self.depth -= 1;
        let frame = self.frames.pop().ok_or_else(|| crate::internal!("the importer lost a graph"))?;
        done.map(|()| Body { graph: frame.graph, captures: frame.captures })
    }

    /// The graph's nodes in the innermost graph, with these operands.
    fn inline(&mut self, proto: &'a GraphProto, inputs: &[ImportValue], prefix: &str) -> Result<Vec<ImportValue>> {
        let n = proto.input.len();
        ensure!(inputs.len() == n, InvalidArgument, "it has {n} inputs, {} are given", inputs.len());
        let values = proto.input.iter().map(|p| p.name()).zip(inputs.iter().cloned()).collect();
        self.deeper()?;
        self.frame().scopes.push(Scope { values, prefix: prefix.to_string(), ..Scope::default() });
        let out = self.contents(proto);
        self.frame().scopes.pop();
        self.depth -= 1;
        out
    }

    /// Initializers and nodes in the innermost scope; gives the values of the outputs.
    fn contents(&mut self, proto: &'a GraphProto) -> Result<Vec<ImportValue>> {
        let outside = std::mem::take(&mut self.problems);
        let done = self.initializers(proto).and_then(|()| {
            self.nodes(&proto.node);
            self.report()
        });
        self.problems = outside;
        done?;
        // What failed outside has been reported there.
        let lost = proto.output.iter().find(|p| self.has_failed(p.name()));
        ensure!(lost.is_none(), Unsupported, "it depends on parts of the model that cannot be imported");
        proto.output.iter().map(|p| self.find(p.name()).with_context(|| format!("output {:?}", p.name()))).collect()
    }

    /// The function of the model that a node calls.
    pub(super) fn function(&self, node: &NodeProto) -> Option<&'a FunctionProto> {
        self.model.proto.functions.iter().find(|f| {
            default_domain(f.domain()) == default_domain(node.domain())
                && f.name() == node.op_type()
                && f.overload() == node.overload()
        })
    }

    /// Puts a function's nodes in place of a call.
    pub(super) fn call_function(
        &mut self,
        name: &str,
        node: &'a NodeProto,
        f: &'a FunctionProto,
        values: Vec<Option<ImportValue>>,
        attrs: AttrReader<'a>,
    ) -> Result<()> {
        ensure!(values.len() <= f.input.len(), InvalidArgument, "the function has {} inputs", f.input.len());
        let mut given: FunctionAttrs<'a> = f.attribute_proto.iter().map(|a| (a.name(), a)).collect();
        for name in f.attribute.iter().map(|a| a.as_str()).chain(f.attribute_proto.iter().map(|a| a.name())) {
            given.extend(attrs.proto(name).map(|a| (name, a)));
        }
        let mut scope = Scope { prefix: format!("{name}/"), function: Some(given), ..Scope::default() };
        scope.opsets = f.opset_import.iter().map(|o| (default_domain(o.domain()).to_string(), o.version())).collect();
        for (name, v) in f.input.iter().zip(values) {
            // An operand that is left out stays unknown: its readers see an absent one.
            scope.values.insert(name, v.unwrap_or(ImportValue::Optional(None)));
        }
        self.deeper()?;
        self.frame().scopes.push(scope);
        let outside = std::mem::take(&mut self.problems);
        self.nodes(&f.node);
        let done = self.report();
        self.problems = outside;
        let out = done.and_then(|()| f.output.iter().map(|o| self.find(o)).collect::<Result<Vec<_>>>());
        self.frame().scopes.pop();
        self.depth -= 1;
        self.bind_outputs(node, out.with_context(|| format!("function {:?}", f.name()))?)
    }
}
