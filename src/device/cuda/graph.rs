//! CUDA graphs: recording what a stream is given, and replaying it.
//!
//! Recording uses the relaxed mode, so that other threads, and lazy loading of kernels inside the driver, go on as usual
//! while one thread records.
//!
//! A graph of our own is made node by node ([`GraphBuilder`]), with edges that let a kernel start early where it waits by
//! itself, and with what libraries launch recorded in between. Addresses of single nodes change in place
//! ([`GraphExec::set_kernel`]).

use super::driver::{check, code};
use super::{CudaDevice, PreparedLaunch, RawStream, Start};
use crate::device::Device;
use crate::base::Result;
use crate::{bail, log_warn};
use cudarc::driver::sys;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;

impl CudaDevice {
    /// True when the stream is being recorded, by us or by the application. The default stream (NULL) is not.
    ///
    /// # Safety
    /// The stream is alive.
    pub unsafe fn is_capturing(&self, stream: RawStream) -> Result<bool> {
        if stream.is_null() {
            return Ok(false); // The legacy default stream cannot be recorded, and asking about it can be an error.
        }
        let mut state = 0;
        // SAFETY: the caller's promise; writes one integer.
        let status = unsafe { (self.driver.cuStreamIsCapturing)(stream.cast(), &mut state) };
        check(self.driver, status, || "asking whether a CUDA stream is being captured".into())?;
        Ok(state != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE as i32)
    }

    /// Starts to record what the stream is given instead of running it.
    ///
    /// # Safety
    /// The stream is alive, not the default stream, and nobody else uses it until `end_capture`.
    pub unsafe fn begin_capture(&self, stream: RawStream) -> Result<()> {
        if stream.is_null() {
            bail!(InvalidArgument, "the default stream (NULL) cannot be captured");
        }
        let _context = self.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuStreamBeginCapture_v2)(stream.cast(), mode) };
        check(self.driver, status, || "starting to capture a CUDA stream".into())
    }

    /// Ends the recording. After an error in between, the stream is usable again and the error is returned here.
    ///
    /// # Safety
    /// `begin_capture` was called for this stream.
    pub unsafe fn end_capture(self: &Arc<Self>, stream: RawStream) -> Result<Graph> {
        let _context = self.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the caller's promise; writes one pointer.
        let status = unsafe { (self.driver.cuStreamEndCapture)(stream.cast(), &mut raw) };
        check(self.driver, status, || "ending the capture of a CUDA stream".into())?;
        Ok(Graph { device: self.clone(), raw })
    }
}

/// A node of a graph; a handle that lives as long as the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    raw: sys::CUgraphNode,
    is_kernel: bool,
}

// SAFETY: a plain handle.
unsafe impl Send for Node {}

/// `CUgraphEdgeData` of an edge to a kernel that waits by itself.
const EARLY: sys::CUgraphEdgeData = sys::CUgraphEdgeData { from_port: 1, to_port: 0, type_: 1, reserved: [0; 5] };
/// The one before has ended.
const FULL: sys::CUgraphEdgeData = sys::CUgraphEdgeData { from_port: 0, to_port: 0, type_: 0, reserved: [0; 5] };

/// A graph made node by node, each behind those that it depends on. Unlike recording a stream it gets in nobody's way.
pub struct GraphBuilder {
    graph: Graph,
    /// For the calls of libraries, once there is one.
    stream: RawStream,
}

impl GraphBuilder {
    pub fn new(device: &Arc<CudaDevice>) -> Result<GraphBuilder> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (device.driver.cuGraphCreate)(&mut raw, 0) };
        check(device.driver, status, || "creating a CUDA graph".into())?;
        Ok(GraphBuilder { graph: Graph { device: device.clone(), raw }, stream: std::ptr::null_mut() })
    }

    /// Whether calls of libraries can be part of a graph: the driver records a stream into one since CUDA 12.3.
    pub fn takes_libraries(device: &CudaDevice) -> bool {
        let d = device.driver;
        d.cuStreamBeginCaptureToGraph.is_some() && d.cuStreamGetCaptureInfo_v3.is_some()
    }

    /// Adds a node behind others.
    fn add(
        &mut self,
        what: &str,
        after: &[Node],
        f: impl FnOnce(&CudaDevice, *mut sys::CUgraphNode, sys::CUgraph, *const sys::CUgraphNode, usize) -> i32,
    ) -> Result<sys::CUgraphNode> {
        let mut node = std::ptr::null_mut();
        let deps: Vec<sys::CUgraphNode> = after.iter().map(|n| n.raw).collect();
        let status = f(&self.graph.device, &mut node, self.graph.raw, deps.as_ptr(), deps.len());
        check(self.graph.device.driver, status, || format!("adding {what} to a CUDA graph"))?;
        Ok(node)
    }

    /// Adds a kernel with the addresses that the launch holds now. One that waits by itself need not be started when the
    /// kernels before it have ended: it is while they still run.
    ///
    /// # Safety
    /// As for running the launch, whenever the graph runs.
    pub unsafe fn kernel(&mut self, launch: &mut PreparedLaunch, after: &[Node]) -> Result<Node> {
        let params = launch.node_params();
        let port = match launch.start() {
            Start::AfterAll => None,
            Start::WhenAllowed => Some(1),
            Start::WhenBegun => Some(2),
        };
        let early = port.filter(|_| after.iter().any(|n| n.is_kernel)).map(|from_port| sys::CUgraphEdgeData { from_port, ..EARLY });
        let edges = self.graph.device.driver.cuGraphAddDependencies_v2.zip(early);
        let behind = if edges.is_some() { &[] } else { after };
        // SAFETY: the parameters point to memory of `launch`, which the driver copies.
        let raw = self.add("a kernel", behind, |d, node, g, deps, n| unsafe {
            (d.driver.cuGraphAddKernelNode_v2)(node, g, deps, n, &params)
        })?;
        if let Some((add, early)) = edges {
            let from: Vec<sys::CUgraphNode> = after.iter().map(|n| n.raw).collect();
            let to = vec![raw; after.len()];
            let mut kind: Vec<_> = after.iter().map(|n| if n.is_kernel { early } else { FULL }).collect();
            // SAFETY: nodes of this graph; three lists of one length.
            let mut status = unsafe { add(self.graph.raw, from.as_ptr(), to.as_ptr(), kind.as_ptr(), from.len()) };
            if status != code::SUCCESS {
                kind.fill(FULL); // A driver may refuse early starts behind some nodes.
                // SAFETY: as above.
                status = unsafe { add(self.graph.raw, from.as_ptr(), to.as_ptr(), kind.as_ptr(), from.len()) };
            }
            check(self.graph.device.driver, status, || "adding edges to a CUDA graph".into())?;
        }
        Ok(Node { raw, is_kernel: true })
    }

    /// Adds a copy inside of the device; nothing when it is of nothing.
    ///
    /// # Safety
    /// Both ranges are valid whenever the graph runs.
    pub unsafe fn copy(&mut self, dst: u64, src: u64, bytes: usize, after: &[Node]) -> Result<Option<Node>> {
        if bytes == 0 {
            return Ok(None);
        }
        let p = copy_params(dst, src, bytes);
        // SAFETY: the driver copies the parameters; the context is the device's.
        let raw = self.add("a copy", after, |d, node, g, deps, n| unsafe {
            (d.driver.cuGraphAddMemcpyNode)(node, g, deps, n, &p, d.context)
        })?;
        Ok(Some(Node { raw, is_kernel: false }))
    }

    /// Adds a fill with one byte; nothing when it is of nothing.
    ///
    /// # Safety
    /// The range is valid whenever the graph runs.
    pub unsafe fn fill(&mut self, dst: u64, value: u8, bytes: usize, after: &[Node]) -> Result<Option<Node>> {
        if bytes == 0 {
            return Ok(None);
        }
        let p = fill_params(dst, value, bytes);
        // SAFETY: as for a copy.
        let raw = self.add("a fill", after, |d, node, g, deps, n| unsafe {
            (d.driver.cuGraphAddMemsetNode)(node, g, deps, n, &p, d.context)
        })?;
        Ok(Some(Node { raw, is_kernel: false }))
    }

    /// Adds what a library puts on a stream: `call` is given one that is recorded into this graph. Gives the nodes that
    /// stand for its end. After a failure the graph is of no use.
    ///
    /// # Safety
    /// As for the call, whenever the graph runs.
    pub unsafe fn library(&mut self, after: &[Node], call: impl FnOnce(RawStream) -> Result<()>) -> Result<Vec<Node>> {
        let device = self.graph.device.clone();
        let driver = device.driver;
        let (Some(begin), Some(info)) = (driver.cuStreamBeginCaptureToGraph, driver.cuStreamGetCaptureInfo_v3) else {
            bail!(Unsupported, "the CUDA driver cannot record a stream into a graph");
        };
        if self.stream.is_null() {
            self.stream = device.stream_create()?;
        }
        let stream = self.stream.cast();
        let deps: Vec<sys::CUgraphNode> = after.iter().map(|n| n.raw).collect();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: our own stream; nodes of this graph, all edges full.
        let status = unsafe { begin(stream, self.graph.raw, deps.as_ptr(), std::ptr::null(), deps.len(), mode) };
        check(driver, status, || "recording a library's call into a CUDA graph".into())?;
        let called = call(self.stream);
        let (mut state, mut id, mut graph) = (MaybeUninit::uninit(), 0, std::ptr::null_mut());
        let (mut nodes, mut edges, mut n) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: writes what it is given pointers to; the lists are valid until the stream is used again.
        let status = unsafe { info(stream, state.as_mut_ptr(), &mut id, &mut graph, &mut nodes, &mut edges, &mut n) };
        let last: Vec<sys::CUgraphNode> = match status {
            // SAFETY: the driver's list of this length.
            code::SUCCESS if n > 0 => unsafe { std::slice::from_raw_parts(nodes, n) }.to_vec(),
            _ => Vec::new(),
        };
        let mut same = std::ptr::null_mut();
        // SAFETY: recording was begun above.
        let ended = unsafe { (driver.cuStreamEndCapture)(stream, &mut same) };
        called?;
        check(driver, status, || "asking what a library recorded".into())?;
        check(driver, ended, || "ending the recording of a library's call".into())?;
        let node = |raw: sys::CUgraphNode| {
            let mut of = -1;
            // SAFETY: a node of this graph; writes one integer.
            let status = unsafe { (driver.cuGraphNodeGetType)(raw, &mut of) };
            check(driver, status, || "reading the type of a CUDA graph's node".into())?;
            Ok(Node { raw, is_kernel: of == sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL as i32 })
        };
        last.into_iter().map(node).collect()
    }

    pub fn finish(self) -> Graph {
        Graph { device: self.graph.device.clone(), raw: self.into_raw() }
    }

    fn into_raw(mut self) -> sys::CUgraph {
        std::mem::replace(&mut self.graph.raw, std::ptr::null_mut())
    }
}

impl Drop for GraphBuilder {
    fn drop(&mut self) {
        if !self.stream.is_null() {
            // SAFETY: our own stream; nothing was ever run on it.
            if let Err(e) = unsafe { self.graph.device.stream_destroy(self.stream) } {
                log_warn!("{e}");
            }
        }
    }
}

fn copy_params(dst: u64, src: u64, bytes: usize) -> sys::CUDA_MEMCPY3D {
    sys::CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: std::ptr::null(),
        srcDevice: src,
        srcArray: std::ptr::null_mut(),
        reserved0: std::ptr::null_mut(),
        srcPitch: 0,
        srcHeight: 0,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: dst,
        dstArray: std::ptr::null_mut(),
        reserved1: std::ptr::null_mut(),
        dstPitch: 0,
        dstHeight: 0,
        WidthInBytes: bytes,
        Height: 1,
        Depth: 1,
    }
}

fn fill_params(dst: u64, value: u8, bytes: usize) -> sys::CUDA_MEMSET_NODE_PARAMS {
    sys::CUDA_MEMSET_NODE_PARAMS { dst, pitch: 0, value: value as u32, elementSize: 1, width: bytes, height: 1 }
}

/// A recorded graph.
pub struct Graph {
    device: Arc<CudaDevice>,
    raw: sys::CUgraph,
}

// SAFETY: a graph handle may move between threads; it is used by one at a time (`&mut` where it changes).
unsafe impl Send for Graph {}

impl Graph {
    /// Number of nodes: kernels, copies, fills.
    pub fn n_nodes(&self) -> Result<usize> {
        let mut n = 0;
        // SAFETY: with a null array the driver writes the count alone.
        let status = unsafe { (self.device.driver.cuGraphGetNodes)(self.raw, std::ptr::null_mut(), &mut n) };
        check(self.device.driver, status, || "counting the nodes of a CUDA graph".into())?;
        Ok(n)
    }

    /// Makes the graph ready to run. Takes some device memory inside the driver.
    pub fn instantiate(&self) -> Result<GraphExec> {
        let _context = self.device.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the graph is alive; writes one pointer.
        let status = unsafe { (self.device.driver.cuGraphInstantiateWithFlags)(&mut raw, self.raw, 0) };
        check(self.device.driver, status, || "instantiating a CUDA graph".into())?;
        Ok(GraphExec { device: self.device.clone(), raw })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return; // Handed on by a builder.
        }
        // SAFETY: owned by this value.
        let status = unsafe { (self.device.driver.cuGraphDestroy)(self.raw) };
        if let Err(e) = super::check_unless_exiting(self.device.driver, status, || "destroying a CUDA graph".into()) {
            log_warn!("{e}");
        }
    }
}

/// A graph that can be run.
pub struct GraphExec {
    device: Arc<CudaDevice>,
    raw: sys::CUgraphExec,
}

// SAFETY: as for `Graph`.
unsafe impl Send for GraphExec {}

/// `CUgraphExecUpdateResultInfo` with the result as an integer: a newer driver may know more of them.
#[repr(C)]
struct UpdateResult {
    result: i32,
    error_node: sys::CUgraphNode,
    error_from_node: sys::CUgraphNode,
}
const _: () = assert!(size_of::<UpdateResult>() == size_of::<sys::CUgraphExecUpdateResultInfo>());

impl GraphExec {
    /// Takes over the parameters (addresses, launch shapes) of a newly recorded graph. False when its structure differs,
    /// so that it must be instantiated anew.
    pub fn update(&mut self, graph: &Graph) -> Result<bool> {
        let _context = self.device.enter()?;
        let mut info = UpdateResult { result: 0, error_node: std::ptr::null_mut(), error_from_node: std::ptr::null_mut() };
        let f = self.device.driver.cuGraphExecUpdate_v2;
        // SAFETY: both graphs are alive; the struct has the layout that the driver fills.
        let status = unsafe { f(self.raw, graph.raw, (&raw mut info).cast()) };
        if status == code::GRAPH_EXEC_UPDATE_FAILURE {
            return Ok(false);
        }
        check(self.device.driver, status, || format!("updating a CUDA graph (result {})", info.result))?;
        Ok(true)
    }

    /// Gives a kernel's node the addresses that the launch holds now, from the next launch on.
    ///
    /// # Safety
    /// The node is of the graph that this was made from, which is alive, and was added for this launch.
    pub unsafe fn set_kernel(&mut self, node: Node, launch: &mut PreparedLaunch) -> Result<()> {
        let params = launch.node_params();
        // SAFETY: the caller's promise; the driver copies the parameters.
        let status = unsafe { (self.device.driver.cuGraphExecKernelNodeSetParams_v2)(self.raw, node.raw, &params) };
        check(self.device.driver, status, || "changing the addresses of a kernel in a CUDA graph".into())
    }

    /// Gives a copy's node other addresses, from the next launch on.
    ///
    /// # Safety
    /// The node is of the graph that this was made from, which is alive, and copies as many bytes.
    pub unsafe fn set_copy(&mut self, node: Node, dst: u64, src: u64, bytes: usize) -> Result<()> {
        let p = copy_params(dst, src, bytes);
        let d = &self.device;
        // SAFETY: the caller's promise; the driver copies the parameters.
        let status = unsafe { (d.driver.cuGraphExecMemcpyNodeSetParams)(self.raw, node.raw, &p, d.context) };
        check(d.driver, status, || "changing the addresses of a copy in a CUDA graph".into())
    }

    /// Gives a fill's node another address, from the next launch on.
    ///
    /// # Safety
    /// As for [`Self::set_copy`].
    pub unsafe fn set_fill(&mut self, node: Node, dst: u64, value: u8, bytes: usize) -> Result<()> {
        let p = fill_params(dst, value, bytes);
        let d = &self.device;
        // SAFETY: the caller's promise; the driver copies the parameters.
        let status = unsafe { (d.driver.cuGraphExecMemsetNodeSetParams)(self.raw, node.raw, &p, d.context) };
        check(d.driver, status, || "changing the address of a fill in a CUDA graph".into())
    }

    /// Sends the graph to the device ahead of its first launch.
    ///
    /// # Safety
    /// The stream is alive.
    pub unsafe fn upload(&mut self, stream: RawStream) -> Result<()> {
        let _context = self.device.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.device.driver.cuGraphUpload)(self.raw, stream.cast()) };
        check(self.device.driver, status, || "uploading a CUDA graph".into())
    }

    /// Runs the graph on the stream. The device's context must be current. Does not allocate, lock or log.
    ///
    /// # Safety
    /// Every address that the graph uses is valid until it has run.
    #[inline]
    pub unsafe fn launch(&mut self, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        let status = unsafe { (self.device.driver.cuGraphLaunch)(self.raw, stream.cast()) };
        check(self.device.driver, status, || "launching a CUDA graph".into())
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        // SAFETY: owned by this value; the driver keeps what a running launch still needs.
        let status = unsafe { (self.device.driver.cuGraphExecDestroy)(self.raw) };
        if let Err(e) = super::check_unless_exiting(self.device.driver, status, || "destroying a CUDA graph".into()) {
            log_warn!("{e}");
        }
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({:p})", self.raw)
    }
}

impl fmt::Debug for GraphExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GraphExec({:p})", self.raw)
    }
}
