//! Matrix products by cuBLASLt, for the [`LibraryGemm`]s that tactics describe.
//!
//! A row-major product `d[m,n] = a[m,k] b[k,n]` is the column-major product `d' = b' a'` over the same bytes, so the
//! library is given our `b` as its first operand and our `a` as its second; a bias over `n` is then a bias over its rows,
//! which is what its epilogue adds. `Operands` holds that mapping as plain numbers and is tested without a GPU.
//!
//! A [`GemmPlan`] does everything that can be done once: descriptors, and the choice of the algorithm. Running it neither
//! allocates nor waits. Accumulation is in f32. Addresses must be multiples of [`ALIGNMENT`] bytes: the algorithms are
//! chosen for that.

mod operands;
mod table;

use super::{CudaDevice, RawStream};
use crate::base::Result;
use crate::ops::tactic::LibraryGemm;
use crate::{bail, ensure};
use cudarc::cublaslt::sys;
use operands::{Matrix, Operands, text, types};
use parking_lot::Mutex;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use table::{CublasLt, check};

pub(super) use table::Handle;
pub use table::{is_present, version};

/// What the addresses of all operands must be a multiple of.
pub const ALIGNMENT: u64 = 16;

/// `cublasLtMatmulHeuristicResult_t` with the status as an integer: a newer library may know more of them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Candidate {
    algo: sys::cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
    state: i32,
    waves: f32,
    reserved: [c_int; 4],
}
const _: () = assert!(size_of::<Candidate>() == size_of::<sys::cublasLtMatmulHeuristicResult_t>());

/// Calls its destructor when dropped.
struct Owned<T: Copy> {
    raw: T,
    destroy: unsafe extern "C" fn(T) -> i32,
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the matching create function, destroyed once.
        unsafe { (self.destroy)(self.raw) };
    }
}

/// A matrix product, ready to run many times. Shared by threads.
pub struct GemmPlan {
    device: Arc<CudaDevice>,
    library: &'static CublasLt,
    handle: sys::cublasLtHandle_t,
    desc: Owned<sys::cublasLtMatmulDesc_t>,
    first: Owned<sys::cublasLtMatrixLayout_t>,
    second: Owned<sys::cublasLtMatrixLayout_t>,
    d: Owned<sys::cublasLtMatrixLayout_t>,
    alpha: f32,
    algo: sys::cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
    /// The bias address lies in the descriptor. With a bias, the lock is held from setting it to enqueuing; two threads
    /// meet here only when they run the same plan at the same time.
    bias: Option<Mutex<u64>>,
    text: String,
}

// SAFETY: the descriptors are only read after `new`, but for the bias address, which its lock guards.
unsafe impl Send for GemmPlan {}
// SAFETY: as above.
unsafe impl Sync for GemmPlan {}

impl GemmPlan {
    /// Makes descriptors and chooses the algorithm: the `algo_rank`-th that the library's heuristic offers within the
    /// workspace limit.
    ///
    /// Unsupported when the library has no such algorithm.
    pub fn new(device: &Arc<CudaDevice>, gemm: &LibraryGemm, workspace_limit: usize) -> Result<GemmPlan> {
        let rank = usize::try_from(gemm.algo_rank).ok().filter(|r| *r < 1000);
        let Some(rank) = rank else { bail!(InvalidArgument, "cuBLASLt algorithm rank {} is out of range", gemm.algo_rank) };
        let _context = device.enter()?;
        let mut plan = GemmPlan::describe(device, gemm)?;
        let found = plan.candidates(workspace_limit, rank + 1)?;
        let Some(chosen) = found.get(rank) else {
            bail!(
                Unsupported,
                "cuBLASLt has {} algorithm(s) within {workspace_limit} bytes of workspace for {}, so none of rank {rank}",
                found.len(),
                plan.text
            );
        };
        plan.algo = chosen.algo;
        plan.workspace_bytes = chosen.workspace_bytes;
        Ok(plan)
    }

    /// Bytes of workspace that a run needs; at most the limit given to `new`, often 0.
    pub fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }

    /// The device that the plan was made for.
    pub fn device(&self) -> &Arc<CudaDevice> {
        &self.device
    }

    /// Puts the product on the stream. The device's context must be current. Does not allocate.
    ///
    /// `bias` is not looked at when the plan has none; `workspace` may be 0 when none is needed.
    ///
    /// # Safety
    /// The addresses are valid for the shapes of the plan until the product is done, `d` overlaps no operand, and the
    /// workspace holds `workspace_bytes` bytes that nothing else uses meanwhile.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn run(
        &self,
        a: u64,
        b: u64,
        d: u64,
        bias: u64,
        workspace: u64,
        workspace_bytes: usize,
        stream: RawStream,
    ) -> Result<()> {
        let bias = if self.bias.is_some() { bias } else { 0 };
        let aligned = (a | b | d | bias) % ALIGNMENT == 0;
        let complete = a != 0 && b != 0 && d != 0 && (self.bias.is_none() || bias != 0);
        let room = self.workspace_bytes == 0
            || (workspace != 0 && workspace % ALIGNMENT == 0 && workspace_bytes >= self.workspace_bytes);
        if !aligned || !complete || !room {
            return Err(self.refusal([a, b, d, bias, workspace], workspace_bytes));
        }
        let guard = match &self.bias {
            None => None,
            Some(lock) => {
                let mut current = lock.lock();
                if *current != bias {
                    self.set_bias(bias)?;
                    *current = bias;
                }
                Some(current)
            }
        };
        let beta = 0f32;
        // SAFETY: the descriptors are alive and match the shapes that the caller vouches for; scalars are host f32, as
        // the descriptor says. With beta 0, C is not read; D stands in for it.
        let status = unsafe {
            (self.library.cublasLtMatmul)(
                self.handle,
                self.desc.raw,
                (&raw const self.alpha).cast(),
                b as *const c_void,
                self.first.raw,
                a as *const c_void,
                self.second.raw,
                (&raw const beta).cast(),
                d as *const c_void,
                self.d.raw,
                d as *mut c_void,
                self.d.raw,
                &self.algo,
                workspace as *mut c_void,
                self.workspace_bytes,
                stream.cast(),
            )
        };
        drop(guard);
        check(self.library, status, || format!("cuBLASLt {}", self.text))
    }

    #[cold]
    fn refusal(&self, [a, b, d, bias, workspace]: [u64; 5], workspace_bytes: usize) -> crate::base::Error {
        crate::err!(
            InvalidArgument,
            "cuBLASLt {}: expected addresses that are multiples of {ALIGNMENT} and {} bytes of workspace, \
             got a {a:#x}, b {b:#x}, d {d:#x}, bias {bias:#x} and {workspace_bytes} bytes at {workspace:#x}",
            self.text,
            self.workspace_bytes
        )
    }

    fn set_bias(&self, bias: u64) -> Result<()> {
        use sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        set_desc(self.library, self.desc.raw, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)
    }

    /// Descriptors, with no algorithm chosen.
    fn describe(device: &Arc<CudaDevice>, g: &LibraryGemm) -> Result<GemmPlan> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let text = text(g);
        ensure!(
            g.batch > 0 && g.m > 0 && g.n > 0 && g.k > 0,
            InvalidArgument,
            "cuBLASLt {text}: expected sizes of at least 1"
        );
        ensure!(g.batch <= i32::MAX as i64, Unsupported, "cuBLASLt {text}: the batch is too large");
        let (data, compute) = types(g.dtype, g.tf32)?;
        let handle = device.cublaslt()?;
        let lib = handle.library;
        let mut desc = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (lib.cublasLtMatmulDescCreate)(&mut desc, compute, sys::cudaDataType::CUDA_R_32F) };
        check(lib, status, || format!("describing cuBLASLt {text}"))?;
        let desc = Owned { raw: desc, destroy: lib.cublasLtMatmulDescDestroy };

        let operands = Operands::of(g);
        let op = |transpose: bool| transpose as i32; // CUBLAS_OP_N is 0, CUBLAS_OP_T is 1.
        set_desc(lib, desc.raw, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, op(operands.transpose_first))?;
        set_desc(lib, desc.raw, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, op(operands.transpose_second))?;
        use sys::cublasLtEpilogue_t as Epilogue;
        let epilogue = match (g.bias.is_some(), g.relu) {
            (false, false) => Epilogue::CUBLASLT_EPILOGUE_DEFAULT,
            (false, true) => Epilogue::CUBLASLT_EPILOGUE_RELU,
            (true, false) => Epilogue::CUBLASLT_EPILOGUE_BIAS,
            (true, true) => Epilogue::CUBLASLT_EPILOGUE_RELU_BIAS,
        };
        set_desc(lib, desc.raw, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue as u32)?;
        let layout = |m: Matrix| layout(lib, data, m, g.batch as i32, &text);
        let plan = GemmPlan {
            device: device.clone(),
            library: lib,
            handle: handle.raw,
            first: layout(operands.first)?,
            second: layout(operands.second)?,
            d: layout(operands.d)?,
            desc,
            alpha: g.alpha,
            // SAFETY: plain integers; replaced before the first run.
            algo: unsafe { std::mem::zeroed() },
            workspace_bytes: 0,
            bias: g.bias.as_ref().map(|_| Mutex::new(0)),
            text,
        };
        if plan.bias.is_some() {
            // The heuristic looks at the bias address: NULL rules algorithms out. It is replaced at the first run.
            plan.set_bias(256)?;
        }
        Ok(plan)
    }

    /// Up to `max` algorithms, the library's favourite first.
    fn candidates(&self, workspace_limit: usize, max: usize) -> Result<Vec<Candidate>> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let lib = self.library;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (lib.cublasLtMatmulPreferenceCreate)(&mut raw) };
        check(lib, status, || "making a cuBLASLt preference".into())?;
        let preference = Owned { raw, destroy: lib.cublasLtMatmulPreferenceDestroy };
        let set = |attribute: Preference, value: &dyn Bytes| {
            // SAFETY: the preference is alive; the value has the attribute's type.
            let status = unsafe {
                (lib.cublasLtMatmulPreferenceSetAttribute)(preference.raw, attribute, value.address(), value.size())
            };
            check(lib, status, || format!("setting {attribute:?}"))
        };
        set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &(workspace_limit as u64))?;
        // Where a sum is split, its parts meet in f32 in the workspace: the other schemes round them to the output's type.
        const REDUCE_IN_COMPUTE_TYPE: u32 = 2;
        set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &REDUCE_IN_COMPUTE_TYPE)?;
        for attribute in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            set(attribute, &(ALIGNMENT as u32))?;
        }
        let mut found = vec![MaybeUninit::<Candidate>::zeroed(); max];
        let mut n = 0;
        // SAFETY: the descriptors are alive; at most `max` results of the same layout are written.
        let status = unsafe {
            (lib.cublasLtMatmulAlgoGetHeuristic)(
                self.handle,
                self.desc.raw,
                self.first.raw,
                self.second.raw,
                self.d.raw,
                self.d.raw,
                preference.raw,
                max as c_int,
                found.as_mut_ptr().cast(),
                &mut n,
            )
        };
        const NOT_SUPPORTED: i32 = 15;
        if status == NOT_SUPPORTED {
            return Ok(Vec::new());
        }
        check(lib, status, || format!("choosing a cuBLASLt algorithm for {}", self.text))?;
        // SAFETY: zeroed above, and zeros are valid for integers and floats.
        let found = found.into_iter().take(n.max(0) as usize).map(|c| unsafe { c.assume_init() });
        Ok(found.filter(|c| c.state == 0 && c.workspace_bytes <= workspace_limit).collect())
    }
}

impl fmt::Debug for GemmPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GemmPlan({}, {} bytes of workspace)", self.text, self.workspace_bytes)
    }
}

/// How many algorithms, up to `max`, the library offers for this product: the legal values of `algo_rank`.
pub fn n_algos(device: &Arc<CudaDevice>, gemm: &LibraryGemm, workspace_limit: usize, max: usize) -> Result<usize> {
    let _context = device.enter()?;
    Ok(GemmPlan::describe(device, gemm)?.candidates(workspace_limit, max.clamp(1, 1000))?.len())
}

fn layout(
    lib: &'static CublasLt,
    data: sys::cudaDataType,
    m: Matrix,
    batch: i32,
    text: &str,
) -> Result<Owned<sys::cublasLtMatrixLayout_t>> {
    use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
    let mut raw = std::ptr::null_mut();
    // SAFETY: writes one pointer.
    let status = unsafe { (lib.cublasLtMatrixLayoutCreate)(&mut raw, data, m.rows as u64, m.cols as u64, m.ld) };
    check(lib, status, || format!("describing {m:?} of cuBLASLt {text}"))?;
    let owned = Owned { raw, destroy: lib.cublasLtMatrixLayoutDestroy };
    let set = |attribute: Attribute, value: &dyn Bytes| {
        // SAFETY: the layout is alive; the value has the attribute's type.
        let status =
            unsafe { (lib.cublasLtMatrixLayoutSetAttribute)(raw, attribute, value.address(), value.size()) };
        check(lib, status, || format!("setting {attribute:?} of cuBLASLt {text}"))
    };
    if batch > 1 {
        set(Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch)?;
        set(Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m.stride)?;
    }
    Ok(owned)
}

/// A number that is passed as (address, size).
trait Bytes {
    fn address(&self) -> *const c_void;
    fn size(&self) -> usize;
}

macro_rules! bytes {
    ($($t:ty),*) => {$(
        impl Bytes for $t {
            fn address(&self) -> *const c_void { (self as *const $t).cast() }
            fn size(&self) -> usize { size_of::<$t>() }
        }
    )*};
}
bytes!(i32, u32, i64, u64);

fn set_desc<T: Bytes>(
    lib: &CublasLt,
    desc: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: T,
) -> Result<()> {
    // SAFETY: the descriptor is alive; the value has the attribute's type.
    let status = unsafe { (lib.cublasLtMatmulDescSetAttribute)(desc, attribute, value.address(), value.size()) };
    check(lib, status, || format!("setting {attribute:?}"))
}

