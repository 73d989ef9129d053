//! What an engine file holds, in memory: the portable graph, the build's settings, and the plan for one device.

use super::codec::{AttrSource, AttrTable, Reader, Writer};
use crate::autotune::Choice;
use super::format::{Section, Sections, WEIGHT_ALIGN, assemble};
use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::device::cuda::source;
use crate::network::{Graph, ValueId};
use crate::ops::{KernelSpec, Op, Tactic, TacticOptions, TacticSource};
use crate::plan::{Profile, Range};
use crate::{ensure, err, internal};
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Settings that a re-plan on another device needs.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildOptions {
    /// f16 may be used for a network in f32.
    pub fp16: bool,
    /// f32 products may use TF32.
    pub tf32: bool,
    /// Tactic sources that are left out, by name.
    pub excluded_sources: Vec<String>,
    /// Optimization level, 0 to 5 (see [`TacticOptions::level`]).
    pub level: u8,
    /// Most bytes of scratch that one step may ask for.
    pub workspace: u64,
}

impl Default for BuildOptions {
    fn default() -> Self {
        BuildOptions {
            fp16: false,
            tf32: false,
            excluded_sources: Vec::new(),
            level: TacticOptions::DEFAULT_LEVEL,
            workspace: u64::MAX,
        }
    }
}

/// A compiled kernel.
#[derive(Clone, Debug)]
pub struct KernelImage {
    pub spec: KernelSpec,
    /// Name of the entry point.
    pub entry: String,
    pub cubin: Arc<Vec<u8>>,
    /// It waits for the kernels before it, so that it may be launched while they still run.
    pub waits: bool,
}

impl KernelImage {
    /// The kernel that was compiled from this library's own sources.
    pub fn new(spec: &KernelSpec, entry: &str, cubin: Vec<u8>) -> KernelImage {
        KernelImage { spec: spec.clone(), entry: entry.into(), cubin: Arc::new(cubin), waits: source::waits(&spec.file) }
    }
}

/// The plan for one kind of CUDA device.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Compute capability that the kernels were compiled for.
    pub sm: u32,
    pub device_name: String,
    pub graph: Graph,
    /// Tactic of each node in the order of `Graph::visit`; `None` for nodes that the host computes, views and control flow.
    pub tactics: Vec<Option<Tactic>>,
    pub kernels: Vec<KernelImage>,
    /// Choices that rest on times, for inspection.
    pub choices: Vec<Choice>,
}

impl DevicePlan {
    /// Cubins run on the same major compute capability with a minor one at least as high; `a` forms on the very same.
    pub fn runs_on(&self, props: &DeviceProps) -> bool {
        self.sm == props.sm
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct EngineImage {
    pub name: String,
    pub options: BuildOptions,
    pub profiles: Vec<Profile>,
    /// Name of the device that it was built on.
    pub built_on: String,
    pub graph: Graph,
    pub plan: Option<DevicePlan>,
}

/// Weights while writing: equal tensors are stored once.
#[derive(Default)]
struct WeightTable {
    tensors: Vec<Arc<Tensor>>,
    by_hash: HashMap<(u128, crate::base::DType, Vec<usize>), u32>,
}

impl WeightTable {
    fn add(&mut self, t: &Arc<Tensor>) -> u32 {
        let key = (xxh3_128(t.bytes()), t.dtype(), t.shape().to_vec());
        *self.by_hash.entry(key).or_insert_with(|| {
            self.tensors.push(t.clone());
            self.tensors.len() as u32 - 1
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.len(self.tensors.len());
        let entry = |t: &Tensor| 1 + 4 + 8 * t.rank() + 16;
        let head: usize = 4 + self.tensors.iter().map(|t| entry(t)).sum::<usize>();
        let mut at = head.next_multiple_of(WEIGHT_ALIGN);
        for t in &self.tensors {
            w.u8(t.dtype() as u8);
            w.i64s(&t.shape().iter().map(|d| *d as i64).collect::<Vec<_>>());
            w.u64(at as u64);
            w.u64(t.bytes().len() as u64);
            at = (at + t.bytes().len()).next_multiple_of(WEIGHT_ALIGN);
        }
        let mut bytes = w.bytes;
        bytes.reserve(at - bytes.len());
        for t in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(WEIGHT_ALIGN), 0);
            bytes.extend(t.bytes());
        }
        bytes
    }
}

impl AttrTable for WeightTable {
    fn weight(&mut self, t: &Arc<Tensor>) -> u32 {
        self.add(t)
    }

    fn graph(&mut self, g: &Arc<dyn Any + Send + Sync>) -> Result<Vec<u8>> {
        let g: Arc<Graph> = g.clone().downcast().map_err(|_| internal!("an attribute is no graph"))?;
        write_graph(&g, self)
    }
}

/// How deep graphs may lie in graphs.
const MAX_NESTING: usize = 64;

/// Weights, and how deep in graphs the reader is.
struct Stored<'a> {
    weights: &'a [Arc<Tensor>],
    depth: usize,
}

impl AttrSource for Stored<'_> {
    fn weight(&self, i: usize) -> Option<&Arc<Tensor>> {
        self.weights.get(i)
    }

    fn graph(&self, bytes: &[u8]) -> Result<Arc<dyn Any + Send + Sync>> {
        ensure!(self.depth < MAX_NESTING, CorruptData, "section graph: nested more than {MAX_NESTING} deep");
        let mut r = Reader::new(bytes, "graph");
        let g = read_nested(&mut r, &Stored { weights: self.weights, depth: self.depth + 1 })?;
        r.end()?;
        Ok(Arc::new(g))
    }
}

impl EngineImage {
    /// The engine file. The same image gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut weights = WeightTable::default();
        let mut meta = Writer::default();
        meta.str(&self.name);
        meta.u8(self.options.fp16 as u8);
        meta.u8(self.options.tf32 as u8);
        meta.len(self.options.excluded_sources.len());
        self.options.excluded_sources.iter().for_each(|s| meta.str(s));
        meta.u8(self.options.level);
        meta.u64(self.options.workspace);
        meta.str(&self.built_on);
        meta.len(self.profiles.len());
        for p in &self.profiles {
            meta.len(p.inputs.len());
            for (name, r) in &p.inputs {
                meta.str(name);
                meta.i64s(&r.min);
                meta.i64s(&r.opt);
                meta.i64s(&r.max);
            }
        }
        let graph = write_graph(&self.graph, &mut weights)?;
        let mut sections = vec![(Section::Meta, meta.bytes), (Section::Graph, graph)];
        if let Some(p) = &self.plan {
            let (plan, kernels) = write_plan(p, &mut weights)?;
            sections.push((Section::Plan, plan));
            sections.push((Section::Kernels, kernels));
        }
        sections.push((Section::Weights, weights.bytes()));
        Ok(assemble(&sections))
    }

    /// Reads an engine file. Weights stay where they are: `owner` keeps `bytes` alive.
    ///
    /// # Safety
    /// `bytes` stay valid and unchanged while `owner` lives.
    pub unsafe fn from_bytes(bytes: &[u8], owner: Arc<dyn Any + Send + Sync>) -> Result<EngineImage> {
        let sections = Sections::parse(bytes)?;
        // SAFETY: the caller's promise.
        let weights = unsafe { read_weights(sections.require(Section::Weights)?, owner)? };
        let mut r = Reader::new(sections.require(Section::Meta)?, "meta");
        let name = r.str()?;
        let (fp16, tf32) = (r.bool()?, r.bool()?);
        let excluded_sources = (0..r.len(4)?).map(|_| r.str()).collect::<Result<_>>()?;
        let (level, workspace) = (r.u8()?, r.u64()?);
        let built_on = r.str()?;
        let mut raw_profiles = Vec::new();
        for _ in 0..r.len(4)? {
            let mut p = Profile::default();
            for _ in 0..r.len(16)? {
                let name = r.str()?;
                p.inputs.insert(name, Range { min: r.i64s()?, opt: r.i64s()?, max: r.i64s()? });
            }
            raw_profiles.push(p);
        }
        r.end()?;
        let graph = read_graph(&mut Reader::new(sections.require(Section::Graph)?, "graph"), &weights)?;
        let profiles: Vec<Profile> =
            raw_profiles.iter().map(|p| p.complete(&graph).map(|p| p.0)).collect::<Result<_>>()?;
        ensure!(!profiles.is_empty(), CorruptData, "section meta: there is no profile");
        let plan = match (sections.get(Section::Plan), sections.get(Section::Kernels)) {
            (Some(p), Some(k)) => Some(read_plan(p, k, &weights)?),
            (None, None) => None,
            _ => return Err(err!(CorruptData, "damaged engine: a plan without kernels, or kernels without a plan")),
        };
        let options = BuildOptions { fp16, tf32, excluded_sources, level, workspace };
        Ok(EngineImage { name, options, profiles, built_on, graph, plan })
    }
}

/// # Safety
/// As `EngineImage::from_bytes`.
unsafe fn read_weights(section: &[u8], owner: Arc<dyn Any + Send + Sync>) -> Result<Vec<Arc<Tensor>>> {
    let mut r = Reader::new(section, "weights");
    let mut out = Vec::new();
    for i in 0..r.len(21)? {
        let dtype = r.dtype()?;
        let shape: Vec<usize> = r
            .i64s()?
            .into_iter()
            .map(|d| usize::try_from(d).map_err(|_| err!(CorruptData, "section weights: dimension {d}")))
            .collect::<Result<_>>()?;
        let (at, len) = (r.u64()? as usize, r.u64()? as usize);
        let body = at.checked_add(len).and_then(|end| section.get(at..end));
        let body = body.ok_or_else(|| err!(CorruptData, "section weights: tensor {i} lies outside"))?;
        // SAFETY: the caller's promise; `body` lies inside `section`.
        out.push(Arc::new(unsafe { Tensor::from_owner(dtype, &shape, body, owner.clone())? }));
    }
    Ok(out)
}

const ABSENT: u32 = u32::MAX;

fn write_graph(g: &Graph, weights: &mut WeightTable) -> Result<Vec<u8>> {
    let mut w = Writer::default();
    let mut index: HashMap<ValueId, u32> = HashMap::new();
    w.str(&g.name);
    w.len(g.inputs().len());
    for p in g.inputs() {
        let f = g.fact(p.value);
        w.str(&p.name);
        w.u8(f.dtype as u8);
        w.len(f.rank());
        for d in f.shape.iter() {
            match (d.as_const(), d.as_sym()) {
                (Some(v), _) => (w.u8(0), w.i64(v)).1,
                (_, Some(s)) => (w.u8(1), w.str(s)).1,
                _ => return Err(internal!("input {:?} has the dimension {d}", p.name)),
            }
        }
        index.insert(p.value, index.len() as u32);
    }
    let order = g.order()?;
    let mut consts: Vec<ValueId> = order
        .iter()
        .flat_map(|n| g.node(*n).inputs.iter().flatten().copied())
        .chain(g.outputs().iter().map(|p| p.value))
        .filter(|v| g.value(*v).producer.is_none() && g.as_const(*v).is_some())
        .collect();
    consts.sort_unstable();
    consts.dedup();
    w.len(consts.len());
    for v in consts {
        let t = g.as_const(v).ok_or_else(|| internal!("a constant lost its elements"))?;
        w.str(&g.value(v).name);
        w.u32(weights.add(t));
        index.insert(v, index.len() as u32);
    }
    w.len(order.len());
    for n in order {
        let node = g.node(n);
        w.str(&node.name);
        w.u16(node.op.id());
        w.attrs(&node.op.attrs(), weights)?;
        w.len(node.inputs.len());
        for v in &node.inputs {
            let at = match v {
                None => ABSENT,
                Some(v) => *index.get(v).ok_or_else(|| internal!("value {} is read before it is made", v.0))?,
            };
            w.u32(at);
        }
        w.len(node.outputs.len());
        for v in &node.outputs {
            w.str(&g.value(*v).name);
            index.insert(*v, index.len() as u32);
        }
    }
    w.len(g.outputs().len());
    for p in g.outputs() {
        w.str(&p.name);
        w.u32(*index.get(&p.value).ok_or_else(|| internal!("output {:?} is not computed", p.name))?);
    }
    Ok(w.bytes)
}

fn read_graph(r: &mut Reader<'_>, weights: &[Arc<Tensor>]) -> Result<Graph> {
    read_nested(r, &Stored { weights, depth: 0 })
}

fn read_nested(r: &mut Reader<'_>, stored: &Stored<'_>) -> Result<Graph> {
    let weights = stored.weights;
    let bad = |what: String| err!(CorruptData, "section graph: {what}");
    let mut g = Graph::new(&r.str()?);
    let mut values: Vec<ValueId> = Vec::new();
    for _ in 0..r.len(9)? {
        let name = r.str()?;
        let dtype = r.dtype()?;
        let dims: Vec<Dim> = (0..r.len(5)?)
            .map(|_| match r.u8()? {
                0 => r.i64().and_then(|v| if v >= 0 { Ok(Dim::from(v)) } else { Err(bad(format!("dimension {v}"))) }),
                1 => Ok(Dim::sym(&r.str()?)),
                t => Err(bad(format!("{t} is no kind of dimension"))),
            })
            .collect::<Result<_>>()?;
        values.push(g.add_input(&name, Fact::new(dtype, Shape(dims)))?);
    }
    for _ in 0..r.len(8)? {
        let name = r.str()?;
        let at = r.u32()? as usize;
        let t = weights.get(at).ok_or_else(|| bad(format!("there is no weight {at}")))?;
        values.push(g.add_const(&name, t.clone()));
    }
    for _ in 0..r.len(18)? {
        let name = r.str()?;
        let id = r.u16()?;
        let attrs = r.attrs(stored)?;
        let op = Op::from_attrs(id, &attrs).map_err(|e| e.context(format!("node {name:?}")))?;
        let mut inputs = Vec::new();
        for _ in 0..r.len(4)? {
            inputs.push(match r.u32()? {
                ABSENT => None,
                at => Some(*values.get(at as usize).ok_or_else(|| bad(format!("{name:?} reads value {at}")))?),
            });
        }
        let n_out = r.len(4)?;
        let out = g.add_node(&name, op, &inputs)?;
        ensure!(out.len() == n_out, CorruptData, "section graph: {name:?} has {n_out} outputs, not {}", out.len());
        for v in &out {
            let value_name = r.str()?;
            g.rename_value(*v, &value_name);
        }
        values.extend(out);
    }
    for _ in 0..r.len(8)? {
        let name = r.str()?;
        let at = r.u32()? as usize;
        let v = *values.get(at).ok_or_else(|| bad(format!("output {name:?} is value {at}")))?;
        g.add_output(&name, v)?;
    }
    ensure!(!g.outputs().is_empty(), CorruptData, "section graph: there is no output");
    Ok(g)
}

fn write_spec(w: &mut Writer, s: &KernelSpec) {
    w.str(&s.file);
    w.len(s.defines.len());
    for (k, v) in &s.defines {
        w.str(k);
        w.str(v);
    }
    w.str(&s.generated);
}

fn read_spec(r: &mut Reader<'_>) -> Result<KernelSpec> {
    let file = r.str()?;
    let defines = (0..r.len(8)?).map(|_| Ok((r.str()?, r.str()?))).collect::<Result<_>>()?;
    Ok(KernelSpec { file, defines, generated: r.str()? })
}

fn write_plan(p: &DevicePlan, weights: &mut WeightTable) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut k = Writer::default();
    k.len(p.kernels.len());
    let mut index: HashMap<&KernelSpec, u32> = HashMap::new();
    for (i, kernel) in p.kernels.iter().enumerate() {
        write_spec(&mut k, &kernel.spec);
        k.str(&kernel.entry);
        k.u8(kernel.waits as u8);
        k.blob(&kernel.cubin);
        index.insert(&kernel.spec, i as u32);
    }
    let mut w = Writer::default();
    w.u32(p.sm);
    w.str(&p.device_name);
    w.blob(&write_graph(&p.graph, weights)?);
    w.len(p.tactics.len());
    for t in &p.tactics {
        w.u8(t.is_some() as u8);
        let Some(t) = t else { continue };
        w.str(&t.name);
        w.str(t.source.name());
        w.i64s(&t.params);
        w.len(t.kernels.len());
        for s in &t.kernels {
            w.u32(*index.get(s).ok_or_else(|| internal!("tactic {} has a kernel that was not compiled", t.name))?);
        }
    }
    w.len(p.choices.len());
    for c in &p.choices {
        w.len(c.nodes.len());
        c.nodes.iter().for_each(|n| w.u32(*n));
        w.len(c.timed.len());
        for (name, ms) in &c.timed {
            w.str(name);
            w.u32(ms.to_bits());
        }
    }
    Ok((w.bytes, k.bytes))
}

fn read_plan(plan: &[u8], kernels: &[u8], weights: &[Arc<Tensor>]) -> Result<DevicePlan> {
    let mut r = Reader::new(kernels, "kernels");
    let mut images = Vec::new();
    for _ in 0..r.len(20)? {
        let spec = read_spec(&mut r)?;
        let entry = r.str()?;
        let waits = r.bool()?;
        images.push(KernelImage { spec, entry, cubin: Arc::new(r.blob()?.to_vec()), waits });
    }
    r.end()?;
    let mut r = Reader::new(plan, "plan");
    let sm = r.u32()?;
    let device_name = r.str()?;
    let mut gr = Reader::new(r.blob()?, "plan");
    let graph = read_graph(&mut gr, weights)?;
    gr.end()?;
    let n: usize = r.len(1)?;
    let mut n_nodes = 0;
    graph.visit(&mut |_, _| {
        n_nodes += 1;
        Ok(())
    })?;
    ensure!(n == n_nodes, CorruptData, "section plan: {n} tactics for {n_nodes} nodes");
    let mut tactics = Vec::new();
    for _ in 0..n {
        if !r.bool()? {
            tactics.push(None);
            continue;
        }
        let name = r.str()?;
        let source = r.str()?;
        let source = TacticSource::from_name(&source)
            .ok_or_else(|| err!(VersionMismatch, "tactic source {source:?} is not known to this version"))?;
        let params = r.i64s()?;
        let kernels = (0..r.len(4)?)
            .map(|_| {
                let i = r.u32()? as usize;
                let k: &KernelImage =
                    images.get(i).ok_or_else(|| err!(CorruptData, "section plan: there is no kernel {i}"))?;
                Ok(k.spec.clone())
            })
            .collect::<Result<_>>()?;
        tactics.push(Some(Tactic { name, source, kernels, params }));
    }
    let mut choices = Vec::new();
    for _ in 0..r.len(8)? {
        let nodes = (0..r.len(4)?).map(|_| r.u32()).collect::<Result<_>>()?;
        let timed = (0..r.len(8)?).map(|_| Ok((r.str()?, f32::from_bits(r.u32()?)))).collect::<Result<_>>()?;
        choices.push(Choice { nodes, timed });
    }
    r.end()?;
    Ok(DevicePlan { sm, device_name, graph, tactics, kernels: images, choices })
}
