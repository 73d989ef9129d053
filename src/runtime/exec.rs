//! Steps made ready to run: what a context keeps for each set of shapes.

use super::kernels::LoadedKernels;
use crate::base::{Result, Tensor};
use crate::device::cuda::cublaslt::GemmPlan;
use crate::device::cuda::graph::{GraphBuilder, GraphExec, Node as GraphNode};
use crate::device::cuda::{CudaDevice, PreparedLaunch};
use crate::device::{CopyKind, Device, DeviceProps, DeviceRef, RawStream};
use crate::internal;
use crate::network::Node;
use crate::ops::{Arg, CpuArgs, CpuStep, DeviceOp, EvalCx, Problem, StepProgram, Tactic, TacticSource};
use std::sync::Arc;

/// Scratch that a cuBLASLt product may ask for.
pub const GEMM_WORKSPACE: usize = 32 << 20;

/// A step at concrete shapes, ready to run.
pub enum StepExec {
    Cpu(Box<dyn CpuStep>),
    /// The reference eval, on the CPU device.
    Reference(Node, Problem),
    Cuda(CudaStep),
    /// The reference eval on the host, in the middle of a CUDA stream.
    OnHost(HostStep),
    /// The null device.
    Nothing,
}

/// Addresses of one step's operands.
pub struct StepAddresses<'a> {
    pub inputs: &'a [u64],
    pub outputs: &'a [u64],
    pub work: u64,
}

impl StepAddresses<'_> {
    #[inline]
    fn resolve(&self, a: &Arg) -> u64 {
        match a {
            Arg::In(i) => self.inputs[*i],
            Arg::Out(i) => self.outputs[*i],
            Arg::Work(at) => self.work + *at as u64,
            _ => 0,
        }
    }
}

enum CudaOp {
    Launch { launch: PreparedLaunch, slots: Vec<Arg> },
    /// `tiles`: about the blocks that it has.
    Gemm { plan: GemmPlan, a: Arg, b: Arg, d: Arg, bias: Arg, work: usize, work_bytes: usize, tiles: i64 },
    Copy { dst: Arg, src: Arg, bytes: usize },
    Fill { dst: Arg, value: u8, bytes: usize },
}

/// The nodes of a step in a graph.
pub struct StepNodes {
    /// One for each part; none for nothing, and for what a library launches.
    nodes: Vec<Option<GraphNode>>,
    can_change: bool,
}

impl StepNodes {
    /// Whether the nodes can be given other addresses.
    pub fn can_change(&self) -> bool {
        self.can_change
    }
}

/// The launches of one step.
pub struct CudaStep {
    device: Arc<CudaDevice>,
    ops: Vec<CudaOp>,
    pub work_bytes: usize,
}

impl CudaStep {
    pub fn new(
        device: &Arc<CudaDevice>,
        program: StepProgram,
        tactic: &Tactic,
        kernels: &LoadedKernels,
    ) -> Result<CudaStep> {
        let mut work_bytes = program.workspace;
        let mut ops = Vec::new();
        for op in program.ops {
            ops.push(match op {
                DeviceOp::Launch(l) => {
                    let launch = PreparedLaunch::new(kernels.function(tactic, l.kernel)?, &l)?;
                    let slots = launch.slots().cloned().collect();
                    CudaOp::Launch { launch, slots }
                }
                DeviceOp::Gemm(g) => {
                    let plan = GemmPlan::new(device, &g, GEMM_WORKSPACE)?;
                    // The library's scratch lies behind the program's own.
                    let work = program.workspace.next_multiple_of(256);
                    let want = plan.workspace_bytes();
                    work_bytes = work_bytes.max(work + want);
                    let bias = g.bias.clone().unwrap_or(Arg::Null);
                    let tiles = g.batch.saturating_mul(g.m.div_euclid(128) + 1).saturating_mul(g.n.div_euclid(128) + 1);
                    CudaOp::Gemm { plan, a: g.a, b: g.b, d: g.d, bias, work, work_bytes: want, tiles }
                }
                DeviceOp::Copy { dst, src, bytes } => CudaOp::Copy { dst, src, bytes },
                DeviceOp::Fill { dst, value, bytes } => CudaOp::Fill { dst, value, bytes },
            });
        }
        Ok(CudaStep { device: device.clone(), ops, work_bytes })
    }

    fn fill(&self, props: &DeviceProps) -> f32 {
        let of = |op: &CudaOp| match op {
            CudaOp::Launch { launch, .. } => launch.fill(props),
            CudaOp::Gemm { tiles, .. } => *tiles as f32 / props.n_sm.max(1) as f32,
            CudaOp::Copy { bytes, .. } | CudaOp::Fill { bytes, .. } => *bytes as f32 / (4 << 20) as f32,
        };
        self.ops.iter().map(of).sum()
    }

    /// Every part can be a node of a graph without help of the driver: no library launches anything.
    pub fn is_own(&self) -> bool {
        !self.ops.iter().any(|op| matches!(op, CudaOp::Gemm { .. }))
    }

    /// Adds the step to a graph, behind the nodes in `after`, which then holds the step's last ones.
    ///
    /// # Safety
    /// As for [`Self::run`], whenever the graph runs.
    pub unsafe fn record(
        &mut self,
        at: &StepAddresses<'_>,
        graph: &mut GraphBuilder,
        after: &mut Vec<GraphNode>,
    ) -> Result<StepNodes> {
        let mut nodes = Vec::with_capacity(self.ops.len());
        for op in &mut self.ops {
            let node = match op {
                CudaOp::Launch { launch, slots } => {
                    for (i, s) in slots.iter().enumerate() {
                        launch.set_address(i, at.resolve(s))?;
                    }
                    // SAFETY: the caller's promise.
                    Some(unsafe { graph.kernel(launch, after)? })
                }
                // SAFETY: the caller's promise.
                CudaOp::Copy { dst, src, bytes } => unsafe { graph.copy(at.resolve(dst), at.resolve(src), *bytes, after)? },
                // SAFETY: the caller's promise.
                CudaOp::Fill { dst, value, bytes } => unsafe { graph.fill(at.resolve(dst), *value, *bytes, after)? },
                CudaOp::Gemm { plan, a, b, d, bias, work, work_bytes, .. } => {
                    let (a, b, d, bias) = (at.resolve(a), at.resolve(b), at.resolve(d), at.resolve(bias));
                    let work = at.work + *work as u64;
                    // SAFETY: the caller's promise.
                    let last = unsafe { graph.library(after, |stream| plan.run(a, b, d, bias, work, *work_bytes, stream))? };
                    if !last.is_empty() {
                        *after = last;
                    }
                    None
                }
            };
            nodes.push(node);
            if let Some(node) = node {
                after.clear();
                after.push(node);
            }
        }
        Ok(StepNodes { nodes, can_change: self.is_own() })
    }

    /// Puts other addresses into the nodes that `record` gave.
    ///
    /// # Safety
    /// As for [`Self::record`]; the graph that the nodes are of is alive.
    pub unsafe fn change(&mut self, at: &StepAddresses<'_>, graph: &mut GraphExec, nodes: &StepNodes) -> Result<()> {
        for (op, node) in self.ops.iter_mut().zip(&nodes.nodes) {
            let Some(node) = *node else { continue };
            match op {
                CudaOp::Launch { launch, slots } => {
                    for (i, s) in slots.iter().enumerate() {
                        launch.set_address(i, at.resolve(s))?;
                    }
                    // SAFETY: the caller's promise.
                    unsafe { graph.set_kernel(node, launch)? };
                }
                CudaOp::Copy { dst, src, bytes } => {
                    // SAFETY: the caller's promise.
                    unsafe { graph.set_copy(node, at.resolve(dst), at.resolve(src), *bytes)? };
                }
                CudaOp::Fill { dst, value, bytes } => {
                    // SAFETY: the caller's promise.
                    unsafe { graph.set_fill(node, at.resolve(dst), *value, *bytes)? };
                }
                CudaOp::Gemm { .. } => return Err(internal!("a library's launch in a graph cannot be changed")),
            }
        }
        Ok(())
    }

    /// Puts the step on the stream. The device's context is current.
    ///
    /// # Safety
    /// The addresses are valid for the shapes that the step was made for, until the stream has passed it.
    pub unsafe fn run(&mut self, at: &StepAddresses<'_>, stream: RawStream) -> Result<()> {
        for op in &mut self.ops {
            match op {
                CudaOp::Launch { launch, slots } => {
                    for (i, s) in slots.iter().enumerate() {
                        launch.set_address(i, at.resolve(s))?;
                    }
                    // SAFETY: the caller's promise.
                    unsafe { launch.run(stream)? };
                }
                CudaOp::Gemm { plan, a, b, d, bias, work, work_bytes, .. } => {
                    let (a, b, d, bias) = (at.resolve(a), at.resolve(b), at.resolve(d), at.resolve(bias));
                    // SAFETY: the caller's promise.
                    unsafe { plan.run(a, b, d, bias, at.work + *work as u64, *work_bytes, stream)? };
                }
                CudaOp::Copy { dst, src, bytes } => {
                    let (dst, src) = (at.resolve(dst), at.resolve(src));
                    // SAFETY: the caller's promise.
                    unsafe { self.device.copy(dst, src, *bytes, CopyKind::DeviceToDevice, stream)? };
                }
                CudaOp::Fill { dst, value, bytes } => {
                    // SAFETY: the caller's promise.
                    unsafe { self.device.fill(at.resolve(dst), *value, *bytes, stream)? };
                }
            }
        }
        Ok(())
    }
}

/// Runs the reference eval on host memory; allocates, which is why operators have CPU steps.
///
/// # Safety
/// The addresses are valid for the problem's shapes.
pub unsafe fn run_reference(node: &Node, p: &Problem, args: &CpuArgs<'_>) -> Result<()> {
    let mut tensors = Vec::new();
    for (d, ptr) in p.inputs.iter().zip(args.inputs) {
        tensors.push(match d {
            None => None,
            Some(d) => {
                // SAFETY: the caller's promise; an empty tensor may come with any address.
                let bytes = if d.bytes() == 0 { &[] } else { unsafe { std::slice::from_raw_parts(*ptr, d.bytes()) } };
                Some(Tensor::from_bytes(d.dtype, &d.dims, bytes)?)
            }
        });
    }
    let facts: Vec<_> = p.outputs.iter().map(|d| crate::base::Fact::new(d.dtype, d.dims.as_slice())).collect();
    let refs: Vec<Option<&Tensor>> = tensors.iter().map(|t| t.as_ref()).collect();
    let out = node.op.def().eval(&EvalCx { inputs: &refs, outputs: &facts })?;
    for ((t, d), ptr) in out.iter().zip(&p.outputs).zip(args.outputs) {
        if t.bytes().len() != d.bytes() {
            return Err(internal!("{:?}: eval gave {} bytes instead of {}", node.name, t.bytes().len(), d.bytes()));
        }
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(t.bytes().as_ptr(), *ptr, d.bytes()) };
    }
    Ok(())
}

/// A step of a CUDA plan that the host computes: operands are copied to the host, results back.
pub struct HostStep {
    device: DeviceRef,
    node: Node,
    problem: Problem,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
}

impl HostStep {
    fn new(device: &DeviceRef, node: &Node, p: &Problem) -> HostStep {
        let inputs = p.inputs.iter().map(|d| vec![0; d.as_ref().map_or(0, |d| d.bytes())]).collect();
        let outputs = p.outputs.iter().map(|d| vec![0; d.bytes()]).collect();
        HostStep { device: device.clone(), node: node.clone(), problem: p.clone(), inputs, outputs }
    }

    /// Waits for the stream, computes, and puts the results on the stream.
    ///
    /// # Safety
    /// The addresses are valid for the shapes that the step was made for, until the stream has passed it.
    pub unsafe fn run(&mut self, at: &StepAddresses<'_>, stream: RawStream) -> Result<()> {
        for (to, from) in self.inputs.iter_mut().zip(at.inputs).filter(|(to, _)| !to.is_empty()) {
            // SAFETY: the caller's promise; the host side is as large.
            unsafe { self.device.copy(to.as_mut_ptr() as u64, *from, to.len(), CopyKind::DeviceToHost, stream)? };
        }
        // SAFETY: the caller's stream. It also ends the copies back of an earlier run.
        unsafe { self.device.stream_synchronize(stream)? };
        let ins: Vec<*const u8> = self.inputs.iter().map(|b| b.as_ptr()).collect();
        let outs: Vec<*mut u8> = self.outputs.iter_mut().map(|b| b.as_mut_ptr()).collect();
        let args = CpuArgs { inputs: &ins, outputs: &outs, work: std::ptr::null_mut() };
        // SAFETY: our own memory of the problem's sizes.
        unsafe { run_reference(&self.node, &self.problem, &args)? };
        for (from, to) in self.outputs.iter().zip(at.outputs).filter(|(from, _)| !from.is_empty()) {
            // SAFETY: as above.
            unsafe { self.device.copy(*to, from.as_ptr() as u64, from.len(), CopyKind::HostToDevice, stream)? };
        }
        // SAFETY: the caller's stream; pageable memory must not be written again before the copy is done.
        unsafe { self.device.stream_synchronize(stream) }
    }
}

impl StepExec {
    /// Makes a step ready for its shapes on a device.
    pub fn new(
        device: &DeviceRef,
        node: &Node,
        tactic: Option<&Tactic>,
        problem: &Problem,
        kernels: &LoadedKernels,
        packs: &dyn crate::ops::PackCache,
    ) -> Result<StepExec> {
        Ok(match (device, tactic) {
            (DeviceRef::Cpu(_), _) => match node.op.def().cpu(problem, packs)? {
                Some(s) => StepExec::Cpu(s),
                None => StepExec::Reference(node.clone(), problem.clone()),
            },
            (DeviceRef::Cuda(_), Some(t)) if t.source == TacticSource::Reference => {
                StepExec::OnHost(HostStep::new(device, node, problem))
            }
            (DeviceRef::Null(_), Some(t)) if t.source == TacticSource::Reference => StepExec::Nothing,
            (DeviceRef::Cuda(cuda), Some(t)) => {
                // Empty results need no launch, and kernels are never launched on nothing.
                if problem.outputs.iter().all(|o| o.numel() == 0) {
                    StepExec::Nothing
                } else {
                    let program = node.op.def().cuda_program(t, problem, cuda.props())?;
                    StepExec::Cuda(CudaStep::new(cuda, program, t, kernels)?)
                }
            }
            (DeviceRef::Null(null), Some(t)) => {
                node.op.def().cuda_program(t, problem, null.props())?;
                StepExec::Nothing
            }
            (_, None) => return Err(internal!("{:?} has no tactic", node.name)),
        })
    }

    /// Puts a step of a CUDA plan on the stream.
    ///
    /// # Safety
    /// The addresses are valid for the shapes that the step was made for, until the stream has passed it.
    pub unsafe fn run_on_stream(&mut self, at: &StepAddresses<'_>, stream: RawStream) -> Result<()> {
        match self {
            // SAFETY: the caller's promise.
            StepExec::Cuda(step) => unsafe { step.run(at, stream) },
            // SAFETY: the caller's promise.
            StepExec::OnHost(step) => unsafe { step.run(at, stream) },
            StepExec::Nothing => Ok(()),
            StepExec::Cpu(_) | StepExec::Reference(..) => Err(internal!("a CPU step on a CUDA stream")),
        }
    }

    /// How much of a GPU the step fills, roughly: 1 when its blocks fill it once. Nothing on other devices.
    pub fn fill(&self, props: &DeviceProps) -> Option<f32> {
        match self {
            StepExec::Cuda(s) => Some(s.fill(props)),
            StepExec::Nothing => Some(0.0),
            _ => None,
        }
    }

    pub fn workspace(&self) -> usize {
        match self {
            StepExec::Cpu(s) => s.workspace(),
            StepExec::Cuda(c) => c.work_bytes,
            StepExec::Reference(..) | StepExec::OnHost(_) | StepExec::Nothing => 0,
        }
    }
}
