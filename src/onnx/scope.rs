//! Names while a model is imported: graphs under construction, the scopes in them, and values that an inner graph reads
//! from an outer one.

use super::attrs::FunctionAttrs;
use super::importer::Importer;
use crate::base::{Dim, Fact, Result, Shape};
use crate::err;
use crate::network::{Graph, ValueId};
use crate::ops::ImportValue;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Names of one graph or function.
#[derive(Default)]
pub(super) struct Scope<'a> {
    pub values: HashMap<&'a str, ImportValue>,
    /// Names of values whose node failed, or that depend on one.
    pub failed: HashSet<&'a str>,
    /// Stands in front of node names.
    pub prefix: String,
    /// Set in a function, which sees no names of its caller: the attributes of the call.
    pub function: Option<FunctionAttrs<'a>>,
    /// Opsets of a function.
    pub opsets: BTreeMap<String, i64>,
}

/// A graph under construction.
pub(super) struct Frame<'a> {
    pub graph: Graph,
    pub scopes: Vec<Scope<'a>>,
    /// Values of the frame outside that are known here, by their ids there.
    known: HashMap<ValueId, ValueId>,
    /// Values of the frame outside that became inputs, in order.
    pub captures: Vec<ValueId>,
}

impl Frame<'_> {
    pub fn new(name: &str) -> Self {
        Frame { graph: Graph::new(name), scopes: vec![Scope::default()], known: HashMap::new(), captures: Vec::new() }
    }
}

/// The fact of a value seen through a graph's input: dimensions are numbers or symbols, equal where they were.
pub(super) fn as_input(f: &Fact) -> Fact {
    let dim = |d: &Dim| match (d.as_const(), d.as_sym()) {
        (None, None) => Dim::sym(&format!("({d})")),
        _ => d.clone(),
    };
    Fact::new(f.dtype, Shape(f.shape.iter().map(dim).collect()))
}

impl<'a> Importer<'a> {
    pub(super) fn frame(&mut self) -> &mut Frame<'a> {
        self.frames.last_mut().expect("there is a frame from start to end")
    }

    /// The innermost graph.
    pub(super) fn graph(&mut self) -> &mut Graph {
        &mut self.frame().graph
    }

    /// The innermost scope.
    pub(super) fn scope(&mut self) -> &mut Scope<'a> {
        self.frame().scopes.last_mut().expect("a frame has a scope")
    }

    /// The opset of a domain: the function's own, then the model's.
    pub(super) fn opset(&self, domain: &str) -> Option<i64> {
        let scopes = self.frames.iter().rev().flat_map(|f| f.scopes.iter().rev());
        let function = scopes.into_iter().find(|s| s.function.is_some());
        match function {
            Some(s) => s.opsets.get(domain).copied().or_else(|| self.model.opset(domain)),
            None => self.model.opset(domain),
        }
    }

    /// Whether the name is of a value that could not be imported.
    pub(super) fn has_failed(&self, name: &str) -> bool {
        for scope in self.frames.iter().rev().flat_map(|f| f.scopes.iter().rev()) {
            if scope.failed.contains(name) {
                return true;
            }
            if scope.values.contains_key(name) || scope.function.is_some() {
                return false;
            }
        }
        false
    }

    /// The value of a name, brought into the innermost graph.
    pub(super) fn find(&mut self, name: &str) -> Result<ImportValue> {
        for k in (0..self.frames.len()).rev() {
            for scope in self.frames[k].scopes.iter().rev() {
                if let Some(v) = scope.values.get(name) {
                    let v = v.clone();
                    return self.bring(v, k);
                }
                if scope.function.is_some() {
                    return Err(err!(Parse, "it reads {name:?}, which nothing in the function computes before"));
                }
            }
        }
        Err(err!(Parse, "it reads {name:?}, which no earlier node computes"))
    }

    /// Makes a value of frame `k` known in the innermost frame.
    fn bring(&mut self, v: ImportValue, k: usize) -> Result<ImportValue> {
        Ok(match v {
            ImportValue::Tensor(mut v) => {
                for inner in k + 1..self.frames.len() {
                    v = self.capture(v, inner)?;
                }
                ImportValue::Tensor(v)
            }
            ImportValue::Sequence(s) => {
                ImportValue::Sequence(s.into_iter().map(|v| self.bring(v, k)).collect::<Result<_>>()?)
            }
            ImportValue::Optional(o) => ImportValue::Optional(match o {
                None => None,
                Some(v) => Some(Box::new(self.bring(*v, k)?)),
            }),
        })
    }

    /// A value of frame `inner - 1` in frame `inner`: a constant is shared, anything else becomes an input.
    fn capture(&mut self, v: ValueId, inner: usize) -> Result<ValueId> {
        if let Some(known) = self.frames[inner].known.get(&v) {
            return Ok(*known);
        }
        let value = self.frames[inner - 1].graph.value(v).clone();
        let frame = &mut self.frames[inner];
        let id = match value.fact.as_const() {
            Some(t) => frame.graph.add_const(&value.name, t.clone()),
            None => {
                let name = format!("{}@{}", value.name, frame.captures.len());
                frame.captures.push(v);
                frame.graph.add_input(&name, as_input(&value.fact))?
            }
        };
        frame.known.insert(v, id);
        Ok(id)
    }
}
