//! CUDA graphs: recording what a stream is given, and replaying it.
//!
//! Recording uses the relaxed mode, so that other threads, and lazy loading of kernels inside the driver, go on as usual
//! while one thread records.

use super::driver::{check, code};
use super::{CudaDevice, PreparedLaunch, RawStream};
use crate::base::Result;
use crate::{bail, log_warn};
use cudarc::driver::sys;
use std::fmt;
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

/// A graph made node by node, one after the other. Unlike recording a stream it gets in nobody's way.
pub struct GraphBuilder {
    graph: Graph,
    last: sys::CUgraphNode,
}

impl GraphBuilder {
    pub fn new(device: &Arc<CudaDevice>) -> Result<GraphBuilder> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (device.driver.cuGraphCreate)(&mut raw, 0) };
        check(device.driver, status, || "creating a CUDA graph".into())?;
        Ok(GraphBuilder { graph: Graph { device: device.clone(), raw }, last: std::ptr::null_mut() })
    }

    /// Adds a node behind the last one.
    fn add(
        &mut self,
        what: &str,
        f: impl FnOnce(&CudaDevice, *mut sys::CUgraphNode, sys::CUgraph, *const sys::CUgraphNode, usize) -> i32,
    ) -> Result<()> {
        let mut node = std::ptr::null_mut();
        let status = f(&self.graph.device, &mut node, self.graph.raw, &self.last, !self.last.is_null() as usize);
        check(self.graph.device.driver, status, || format!("adding {what} to a CUDA graph"))?;
        self.last = node;
        Ok(())
    }

    /// Adds a kernel with the addresses that the launch holds now.
    ///
    /// # Safety
    /// As for running the launch, whenever the graph runs.
    pub unsafe fn kernel(&mut self, launch: &mut PreparedLaunch) -> Result<()> {
        let params = launch.node_params();
        // SAFETY: the parameters point to memory of `launch`, which the driver copies.
        self.add("a kernel", |d, node, g, deps, n| unsafe { (d.driver.cuGraphAddKernelNode_v2)(node, g, deps, n, &params) })
    }

    /// Adds a copy inside of the device.
    ///
    /// # Safety
    /// Both ranges are valid whenever the graph runs.
    pub unsafe fn copy(&mut self, dst: u64, src: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let p = sys::CUDA_MEMCPY3D {
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
        };
        // SAFETY: the driver copies the parameters; the context is the device's.
        self.add("a copy", |d, node, g, deps, n| unsafe { (d.driver.cuGraphAddMemcpyNode)(node, g, deps, n, &p, d.context) })
    }

    /// Adds a fill with one byte.
    ///
    /// # Safety
    /// The range is valid whenever the graph runs.
    pub unsafe fn fill(&mut self, dst: u64, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let p = sys::CUDA_MEMSET_NODE_PARAMS { dst, pitch: 0, value: value as u32, elementSize: 1, width: bytes, height: 1 };
        // SAFETY: as for a copy.
        self.add("a fill", |d, node, g, deps, n| unsafe { (d.driver.cuGraphAddMemsetNode)(node, g, deps, n, &p, d.context) })
    }

    pub fn finish(self) -> Graph {
        self.graph
    }
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
