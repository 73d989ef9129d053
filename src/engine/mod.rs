//! The engine: an immutable plan with its weights on a device, shared by contexts.
//!
//! An [`EngineImage`] is what a file holds; an [`Engine`] is an image made ready on one device. When the image carries
//! no plan for that device, loading plans again from the portable graph (or refuses, as the policy says).

pub(crate) mod codec;
pub mod format;
pub mod image;
pub mod inspect;

pub use image::{BuildOptions, DevicePlan, EngineImage, KernelImage};

use crate::base::{DType, Result, Shape, Tensor};
use crate::autotune::Tuning;
use crate::builder;
use crate::device::{Buffer, DeviceKind, DeviceRef};
use crate::network::{Graph, NodeId, ValueId};
use crate::ops::{KernelSpec, PackCache, Packed, Tactic};
use crate::plan::{Plan, Profile, StepKind};
use crate::runtime::kernels::LoadedKernels;
use crate::{ensure, internal, log_info};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// What to do when an engine has no plan for the device that it is loaded on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OtherDevice {
    /// Plan again from the portable graph (needs NVRTC for a CUDA device).
    #[default]
    Replan,
    /// Fail.
    Error,
}

/// A tensor that the application binds.
#[derive(Clone, Debug)]
pub struct IoTensor {
    pub name: String,
    pub is_input: bool,
    pub dtype: DType,
    /// Symbolic where it depends on the inputs' shapes.
    pub shape: Shape,
    /// The host reads its elements to know shapes.
    pub host: bool,
}

/// See the module's text.
pub struct Engine {
    pub image: EngineImage,
    pub device: DeviceRef,
    pub plan: Plan,
    pub(crate) kernels: LoadedKernels,
    /// Address of each weight, by its number in the plan.
    consts: Vec<u64>,
    weight_bytes: usize,
    /// Device memory behind `consts`; `None` on the CPU, where tensors are used in place.
    _weights: Option<Buffer>,
    packs: Mutex<HashMap<(u32, NodeId, String), Packed>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine {:?} on {}", self.image.name, self.device.kind())
    }
}

impl Engine {
    /// Makes an image ready on a device.
    pub fn load(mut image: EngineImage, device: &DeviceRef, policy: OtherDevice) -> Result<Arc<Engine>> {
        let props = device.props();
        let bindings = image.profiles.first().ok_or_else(|| internal!("an image without a profile"))?;
        let opt = bindings.bindings(&image.graph, 1)?;
        let plan = if props.is_cuda() {
            let fits = image.plan.as_ref().is_some_and(|p| p.runs_on(props));
            if !fits {
                let had = image.plan.as_ref().map_or("the CPU only".into(), |p| format!("sm_{}", p.sm));
                ensure!(
                    policy == OtherDevice::Replan,
                    VersionMismatch,
                    "the engine was planned for {had}, this device is sm_{}; loading with the policy `replan` plans it again",
                    props.sm
                );
                log_info!("engine {:?} was planned for {had}; planning again for {}", image.name, props.name);
                image.plan = Some(builder::plan_for_device(&image, &Tuning::default(), device, &mut |_, _| true)?);
            }
            let dp = image.plan.as_ref().ok_or_else(|| internal!("no device plan"))?;
            plan_of(dp, &opt)?
        } else {
            Plan::new(builder::lower(&image.graph, &image.options, props, &opt)?, &opt, &mut std::iter::empty())?
        };
        let kernels = LoadedKernels::load(device, image.plan.as_ref().filter(|_| props.is_cuda()))?;
        let (consts, weight_bytes, weights) = place_weights(&plan, device)?;
        Ok(Arc::new(Engine {
            image,
            device: device.clone(),
            plan,
            kernels,
            consts,
            weight_bytes,
            _weights: weights,
            packs: Mutex::new(HashMap::new()),
        }))
    }

    /// Reads an engine from bytes, which are copied.
    pub fn from_bytes(bytes: &[u8], device: &DeviceRef, policy: OtherDevice) -> Result<Arc<Engine>> {
        // A copy in aligned, shared memory lets weights be used in place.
        let own: Arc<crate::base::Tensor> =
            Arc::new(crate::base::Tensor::from_bytes(DType::U8, &[bytes.len()], bytes)?);
        // SAFETY: `own` keeps the bytes, which nothing changes.
        let image = unsafe { EngineImage::from_bytes(own.bytes(), own.clone())? };
        Self::load(image, device, policy)
    }

    /// Maps an engine file; weights are copied from the map straight to the device.
    pub fn from_file(path: &Path, device: &DeviceRef, policy: OtherDevice) -> Result<Arc<Engine>> {
        Self::load(Self::image_from_file(path)?, device, policy)
    }

    /// Maps an engine file without making it ready on a device.
    pub fn image_from_file(path: &Path) -> Result<EngineImage> {
        let at = |e: std::io::Error| crate::base::Error::from(e).context(format!("engine file {path:?}"));
        let file = std::fs::File::open(path).map_err(at)?;
        // SAFETY: a file that is changed while it is mapped is the caller's mistake, as the documentation says.
        let map = Arc::new(unsafe { memmap2::Mmap::map(&file).map_err(at)? });
        let owner: Arc<dyn Any + Send + Sync> = map.clone();
        // SAFETY: `owner` keeps the mapping.
        unsafe { EngineImage::from_bytes(&map, owner) }
    }

    /// The engine file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.image.to_bytes()
    }

    /// The portable graph: names and declared types of inputs and outputs.
    pub fn graph(&self) -> &Graph {
        &self.image.graph
    }

    pub fn profiles(&self) -> &[Profile] {
        &self.image.profiles
    }

    /// Inputs, then outputs, in the network's order.
    pub fn io_tensors(&self) -> Vec<IoTensor> {
        let g = self.graph();
        let tensor = |name: &str, v: ValueId, is_input: bool, host: bool| {
            let f = g.fact(v);
            IoTensor { name: name.into(), is_input, dtype: f.dtype, shape: f.shape.clone(), host }
        };
        let ins = g.inputs().iter().enumerate();
        let ins = ins.map(|(i, p)| tensor(&p.name, p.value, true, self.plan.host_inputs.contains(&i)));
        let outs = g.outputs().iter().map(|p| tensor(&p.name, p.value, false, false));
        ins.chain(outs).collect()
    }

    /// Bytes of device memory that the weights take.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Address of the weight with this number.
    #[inline]
    pub(crate) fn const_address(&self, number: u32) -> u64 {
        self.consts[number as usize]
    }

    /// The cache of packed weights of one node.
    pub(crate) fn pack_cache(&self, plan: &Plan, node: NodeId) -> impl PackCache + '_ {
        NodePacks { engine: self, plan: plan.uid, node }
    }
}

struct NodePacks<'a> {
    engine: &'a Engine,
    plan: u32,
    node: NodeId,
}

impl PackCache for NodePacks<'_> {
    fn get_or_pack(&self, slot: &str, make: &mut dyn FnMut() -> Packed) -> Packed {
        let key = (self.plan, self.node, slot.to_string());
        if let Some(p) = self.engine.packs.lock().get(&key) {
            return p.clone();
        }
        // Packed outside of the lock; a second thread may pack the same and lose, which costs time only.
        let made = make();
        self.engine.packs.lock().entry(key).or_insert(made).clone()
    }
}

/// The plan with the tactics that an image stores.
fn plan_of(dp: &DevicePlan, opt: &crate::base::dims::Bindings) -> Result<Plan> {
    let plan = Plan::new(dp.graph.clone(), opt, &mut dp.tactics.iter().cloned())?;
    let mut missing = None;
    plan.visit(&mut |p| {
        for s in &p.steps {
            if matches!(s.kind, StepKind::Device(None) | StepKind::Counted(None)) {
                missing.get_or_insert_with(|| p.graph.node(s.node).name.clone());
            }
        }
    });
    match missing {
        None => Ok(plan),
        Some(name) => Err(internal!("node {name:?} has no tactic in the stored plan")),
    }
}

/// Copies the constants that device steps read to the device; gives their addresses by number and their size.
fn place_weights(plan: &Plan, device: &DeviceRef) -> Result<(Vec<u64>, usize, Option<Buffer>)> {
    let mut list: Vec<(u32, Arc<Tensor>)> = Vec::new();
    plan.visit(&mut |p| list.extend(p.consts.iter().filter_map(|(v, n)| Some((*n, p.graph.as_const(*v)?.clone())))));
    list.sort_unstable_by_key(|(n, _)| *n);
    // One tensor may be a weight of several plans.
    let mut at = 0usize;
    let mut offsets: HashMap<*const Tensor, u64> = HashMap::new();
    let mut distinct = Vec::new();
    for (_, t) in &list {
        if let Entry::Vacant(e) = offsets.entry(Arc::as_ptr(t)) {
            e.insert(at as u64);
            distinct.push((at as u64, t));
            at += t.bytes().len().next_multiple_of(256);
        }
    }
    if device.kind() == DeviceKind::Cpu {
        let bytes = distinct.iter().map(|(_, t)| t.bytes().len()).sum();
        return Ok((list.iter().map(|(_, t)| t.bytes().as_ptr() as u64).collect(), bytes, None));
    }
    let buffer = Buffer::new(device, at)?;
    // SAFETY: the targets lie in the buffer, which was sized for them.
    unsafe { device.upload(distinct.iter().map(|(o, t)| (buffer.ptr() + o, t.bytes())))? };
    let base = buffer.ptr();
    Ok((list.iter().map(|(_, t)| base + offsets[&Arc::as_ptr(t)]).collect(), buffer.bytes(), Some(buffer)))
}

/// Kernels of a list of tactics, each once, in order of first use.
pub fn distinct_kernels<'a>(tactics: impl IntoIterator<Item = &'a Tactic>) -> Vec<KernelSpec> {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for k in tactics.into_iter().flat_map(|t| &t.kernels) {
        if seen.insert(k) {
            out.push(k.clone());
        }
    }
    out
}
