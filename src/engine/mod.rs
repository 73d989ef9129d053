//! The engine: an immutable plan with its weights on a device, shared by contexts.
//!
//! An [`EngineImage`] is what a file holds; an [`Engine`] is an image made ready on one device. When the image carries
//! no plan for that device, loading plans again from the portable graph (or refuses, as the policy says).

mod codec;
pub mod format;
pub mod image;
pub mod inspect;

pub use image::{BuildOptions, DevicePlan, EngineImage, KernelImage};

use crate::base::{DType, Result, Shape};
use crate::builder;
use crate::device::{Buffer, DeviceKind, DeviceRef};
use crate::network::{Graph, NodeId, ValueId};
use crate::ops::{KernelSpec, PackCache, Packed, Tactic};
use crate::plan::{Plan, Profile, StepKind};
use crate::runtime::kernels::LoadedKernels;
use crate::{ensure, internal, log_info};
use parking_lot::Mutex;
use std::any::Any;
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
    consts: HashMap<ValueId, u64>,
    /// Device memory behind `consts`; `None` on the CPU, where tensors are used in place.
    weights: Option<Buffer>,
    packs: Mutex<HashMap<(NodeId, String), Packed>>,
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
                image.plan = Some(builder::plan_for_device(&image, device, &mut |_, _| true)?);
            }
            let dp = image.plan.as_ref().ok_or_else(|| internal!("no device plan"))?;
            plan_of(dp, &opt)?
        } else {
            Plan::new(builder::lower(&image.graph, &image.options, props, &opt)?, &opt, |_, _| Ok(None))?
        };
        let kernels = LoadedKernels::load(device, image.plan.as_ref().filter(|_| props.is_cuda()))?;
        let (consts, weights) = place_weights(&plan, device)?;
        Ok(Arc::new(Engine {
            image,
            device: device.clone(),
            plan,
            kernels,
            consts,
            weights,
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
        match &self.weights {
            Some(b) => b.bytes(),
            None => self.consts.keys().filter_map(|v| self.plan.graph.as_const(*v)).map(|t| t.bytes().len()).sum(),
        }
    }

    /// Address of a weight.
    pub(crate) fn const_address(&self, v: ValueId) -> Result<u64> {
        self.consts.get(&v).copied().ok_or_else(|| internal!("weight {} is not on the device", v.0))
    }

    /// The cache of packed weights of one node.
    pub(crate) fn pack_cache(&self, node: NodeId) -> impl PackCache + '_ {
        NodePacks { engine: self, node }
    }
}

struct NodePacks<'a> {
    engine: &'a Engine,
    node: NodeId,
}

impl PackCache for NodePacks<'_> {
    fn get_or_pack(&self, slot: &str, make: &mut dyn FnMut() -> Packed) -> Packed {
        let key = (self.node, slot.to_string());
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
    let order = dp.graph.order()?;
    let by_node: HashMap<NodeId, &Option<Tactic>> = order.iter().copied().zip(&dp.tactics).collect();
    Plan::new(dp.graph.clone(), opt, |g, n| match by_node.get(&n) {
        Some(Some(t)) => Ok(Some(t.clone())),
        _ => Err(internal!("node {:?} has no tactic in the stored plan", g.node(n).name)),
    })
}

/// Copies the constants that device steps read to the device.
fn place_weights(plan: &Plan, device: &DeviceRef) -> Result<(HashMap<ValueId, u64>, Option<Buffer>)> {
    let g = &plan.graph;
    let mut wanted: HashSet<ValueId> = HashSet::new();
    for s in &plan.steps {
        if matches!(s.kind, StepKind::Device(_) | StepKind::View) {
            wanted.extend(g.node(s.node).inputs.iter().flatten().filter(|v| g.as_const(**v).is_some()));
        }
    }
    wanted.extend(g.outputs().iter().map(|p| p.value).filter(|v| g.as_const(*v).is_some()));
    let mut list: Vec<ValueId> = wanted.into_iter().collect();
    list.sort_unstable();
    let tensor = |v: ValueId| g.as_const(v).expect("filtered above");
    if device.kind() == DeviceKind::Cpu {
        return Ok((list.iter().map(|v| (*v, tensor(*v).bytes().as_ptr() as u64)).collect(), None));
    }
    let mut at = 0usize;
    let mut offsets = HashMap::new();
    for v in &list {
        offsets.insert(*v, at as u64);
        at += tensor(*v).bytes().len().next_multiple_of(256);
    }
    let buffer = Buffer::new(device, at)?;
    // SAFETY: the targets lie in the buffer, which was sized for them.
    unsafe { device.upload(list.iter().map(|v| (buffer.ptr() + offsets[v], tensor(*v).bytes())))? };
    let base = buffer.ptr();
    Ok((offsets.into_iter().map(|(v, o)| (v, base + o)).collect(), Some(buffer)))
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
