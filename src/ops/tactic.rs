//! What an operator offers to a device, as data: the problem it has, the kernels that solve it, and the launches that
//! one solution needs at concrete shapes. Nothing here touches a driver, so all of it is tested without a GPU.

use crate::base::{AttrValue, DType, Tensor};
use std::fmt;
use std::sync::Arc;

/// A tensor of a problem: type and concrete, dense row-major shape.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorDesc {
    pub dtype: DType,
    pub dims: Vec<usize>,
}

impl TensorDesc {
    pub fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn bytes(&self) -> usize {
        self.numel() * self.dtype.size()
    }
}

impl fmt::Display for TensorDesc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.dims)
    }
}

/// One node at concrete shapes. An absent optional input is `None`.
#[derive(Clone, Debug)]
pub struct Problem {
    pub inputs: Vec<Option<TensorDesc>>,
    pub outputs: Vec<TensorDesc>,
    /// Host values of inputs that are known: constants and shape operands.
    pub known: Vec<Option<Arc<Tensor>>>,
}

impl Problem {
    pub fn input(&self, i: usize) -> Option<&TensorDesc> {
        self.inputs.get(i).and_then(|d| d.as_ref())
    }

    pub fn known(&self, i: usize) -> Option<&Arc<Tensor>> {
        self.known.get(i).and_then(|d| d.as_ref())
    }
}

/// Where a tactic's code comes from. The config can exclude a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TacticSource {
    /// Our kernels, compiled by NVRTC.
    Kernels,
    CublasLt,
    /// Our CPU cores.
    Cpu,
    /// The reference eval on the host.
    Reference,
}

impl TacticSource {
    pub const ALL: [TacticSource; 4] =
        [TacticSource::Kernels, TacticSource::CublasLt, TacticSource::Cpu, TacticSource::Reference];

    pub fn name(self) -> &'static str {
        match self {
            TacticSource::Kernels => "kernels",
            TacticSource::CublasLt => "cublaslt",
            TacticSource::Cpu => "cpu",
            TacticSource::Reference => "reference",
        }
    }

    pub fn from_name(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == s)
    }
}

/// One compile unit: a file of `kernels/`, its defines, and generated code for `#include "generated.cuh"`.
///
/// The entry point's name is passed as the define `KERNEL_NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// Path below `kernels/`, such as `softmax.cu`.
    pub file: String,
    /// Name and value of each define, in a fixed order.
    pub defines: Vec<(String, String)>,
    /// Text of `generated.cuh`; empty when the file includes none.
    pub generated: String,
}

impl KernelSpec {
    pub fn new(file: &str) -> Self {
        KernelSpec { file: file.into(), defines: Vec::new(), generated: String::new() }
    }

    pub fn define(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.defines.push((name.into(), value.to_string()));
        self
    }

    /// Defines `T_xx` as the device type of an element type.
    pub fn define_type(self, name: &str, dtype: DType) -> Self {
        self.define(name, cuda_type(dtype))
    }
}

/// Name of an element type in `kernels/common/types.cuh`.
pub fn cuda_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::F64 => "double",
        DType::I8 => "i8",
        DType::U8 => "u8",
        DType::I16 => "i16",
        DType::U16 => "u16",
        DType::I32 => "i32",
        DType::U32 => "u32",
        DType::I64 => "i64",
        DType::U64 => "u64",
        DType::Bool => "bool",
        DType::I4 => "i4",
        DType::U4 => "u4",
        DType::I2 => "i2",
        DType::U2 => "u2",
        DType::F8E4M3FN => "f8e4m3fn",
        DType::F8E4M3FNUZ => "f8e4m3fnuz",
        DType::F8E5M2 => "f8e5m2",
        DType::F8E5M2FNUZ => "f8e5m2fnuz",
        DType::F4E2M1 => "f4e2m1",
        DType::F8E8M0 => "f8e8m0",
    }
}

/// One way to run a node on a CUDA device, for every shape of its profile.
#[derive(Clone, Debug)]
pub struct Tactic {
    /// Stable name: what logs, the timing cache and the engine store.
    pub name: String,
    pub source: TacticSource,
    /// Kernels that its launches may name, by index.
    pub kernels: Vec<KernelSpec>,
    /// Parameters that `cuda_launches` reads back, in the order that the operator defines.
    pub params: Vec<i64>,
}

impl Tactic {
    /// The operator's reference on the host, with copies there and back: for what has no kernel.
    pub fn on_host() -> Tactic {
        Tactic { name: "host".into(), source: TacticSource::Reference, kernels: vec![], params: vec![] }
    }
}

/// An argument of a launch. Addresses are resolved when the step runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// Address of input i of the node.
    In(usize),
    /// Address of output i of the node.
    Out(usize),
    /// Address inside the step's workspace, at this byte offset.
    Work(usize),
    /// Address of the number k that a counting program writes.
    Count(usize),
    /// A null pointer (an absent optional operand).
    Null,
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// A struct passed by value; the kernel declares the same layout.
    Bytes(Vec<u8>),
    /// A tensor map passed by value; the driver encodes it when the address is known.
    TensorMap(Box<TensorMap>),
}

impl Arg {
    /// The address that the argument is made from: itself, or the base of a tensor map.
    pub fn address(&self) -> &Arg {
        match self {
            Arg::TensorMap(map) => &map.base,
            other => other,
        }
    }

    pub fn address_mut(&mut self) -> &mut Arg {
        match self {
            Arg::TensorMap(map) => &mut map.base,
            other => other,
        }
    }
}

/// How rows of a tile are permuted in shared memory (16-byte pieces within 8 rows of this many bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    None,
    Bytes32,
    Bytes64,
    Bytes128,
}

/// A tensor map (TMA): a tensor in memory, and the box that one instruction moves. Loads past an edge give zeros, stores
/// past an edge write nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorMap {
    /// Address of the first element, a multiple of 16.
    pub base: Arg,
    pub dtype: DType,
    /// Sizes in elements, innermost first, up to five.
    pub dims: Vec<u64>,
    /// Bytes between neighbours of each dimension but the first; multiples of 16.
    pub strides_bytes: Vec<u64>,
    /// Elements of a box along each dimension, up to 256; with `im2col` channels and pixels.
    pub tile: Vec<u32>,
    pub swizzle: Swizzle,
    /// Loads gather the pixels of windows instead of a box.
    pub im2col: Option<Im2col>,
}

/// How a tensor map walks over [n, spatial.., c], whose dimensions are innermost first: channels, then from the last
/// spatial axis to the first one, then images. A load takes pixels in that order from a box of spatial positions, and goes
/// on in the next image at the end of the box; each is shifted by an offset of the instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Im2col {
    /// First position of the box along each spatial axis, in the order of `dims`.
    pub lower: Vec<i32>,
    /// Last position of the box, counted from the tensor's last element.
    pub upper: Vec<i32>,
    /// Distance of two pixels along each spatial axis, up to 8.
    pub strides: Vec<u32>,
}

impl Im2col {
    /// Smallest and largest corner that a map over this many spatial axes holds.
    pub fn corners(n_spatial: usize) -> std::ops::RangeInclusive<i64> {
        match n_spatial {
            1 => -32768..=32767,
            2 => -128..=127,
            _ => -16..=15,
        }
    }

    /// Largest offset of an instruction over this many spatial axes.
    pub fn max_offset(n_spatial: usize) -> i64 {
        match n_spatial {
            1 => 65535,
            2 => 255,
            _ => 31,
        }
    }

    /// Largest distance of two pixels.
    pub const MAX_STRIDE: usize = 8;
}

impl TensorMap {
    /// Bytes of an encoded map; it lies at a multiple of 64 among the arguments.
    pub const BYTES: usize = 128;

    /// A dense row-major matrix.
    pub fn matrix(base: Arg, dtype: DType, rows: u64, columns: u64, tile: [u32; 2], swizzle: Swizzle) -> Arg {
        Arg::TensorMap(Box::new(TensorMap {
            base,
            dtype,
            dims: vec![columns, rows],
            strides_bytes: vec![columns * dtype.size() as u64],
            tile: vec![tile[1], tile[0]],
            swizzle,
            im2col: None,
        }))
    }
}

/// Packs 32-bit integers as a by-value struct argument.
pub fn i32_struct(values: impl IntoIterator<Item = i32>) -> Arg {
    Arg::Bytes(values.into_iter().flat_map(|v| v.to_ne_bytes()).collect())
}

/// Packs 64-bit integers as a by-value struct argument.
pub fn i64_struct(values: impl IntoIterator<Item = i64>) -> Arg {
    Arg::Bytes(values.into_iter().flat_map(|v| v.to_ne_bytes()).collect())
}

/// One kernel launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Index into the tactic's kernels.
    pub kernel: usize,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub smem: u32,
    pub args: Vec<Arg>,
}

/// A matrix product for cuBLASLt in row-major terms (its scratch is the algorithm's, known when it is made ready): `d[b,m,n] = alpha * op(a)[b,m,k] * op(b)[b,k,n] (+ bias) (+ d)`.
#[derive(Clone, Debug, PartialEq)]
pub struct LibraryGemm {
    pub batch: i64,
    pub m: i64,
    pub n: i64,
    pub k: i64,
    /// Stored as [k, m] instead of [m, k].
    pub trans_a: bool,
    /// Stored as [n, k] instead of [k, n].
    pub trans_b: bool,
    /// Elements between two matrices of the batch; 0 broadcasts.
    pub stride_a: i64,
    pub stride_b: i64,
    pub stride_d: i64,
    pub dtype: DType,
    pub alpha: f32,
    pub a: Arg,
    pub b: Arg,
    pub d: Arg,
    /// A row vector [n] added to each row, of the same type.
    pub bias: Option<Arg>,
    /// Apply ReLU last.
    pub relu: bool,
    /// Allow TF32 for f32.
    pub tf32: bool,
    /// Which of the heuristic's algorithms (0 is the first).
    pub algo_rank: i64,
}

/// One thing that a step does on a CUDA stream.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceOp {
    Launch(Launch),
    Gemm(LibraryGemm),
    Copy { dst: Arg, src: Arg, bytes: usize },
    Fill { dst: Arg, value: u8, bytes: usize },
}

/// What a step does at concrete shapes, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepProgram {
    pub ops: Vec<DeviceOp>,
    /// Scratch bytes that `Arg::Work` offsets lie in.
    pub workspace: usize,
}

impl StepProgram {
    pub fn one(launch: Launch) -> Self {
        StepProgram { ops: vec![DeviceOp::Launch(launch)], workspace: 0 }
    }
}

/// `ceil(a / b)` as a launch dimension.
pub fn blocks(a: usize, b: usize) -> u32 {
    a.div_ceil(b).max(1).min(i32::MAX as usize) as u32
}

/// The address operands and scratch of a CPU step.
pub struct CpuArgs<'a> {
    /// Host address of each input; null for an absent one.
    pub inputs: &'a [*const u8],
    pub outputs: &'a [*mut u8],
    pub work: *mut u8,
}

/// A CPU tactic bound to concrete shapes.
pub trait CpuStep: Send + Sync {
    /// Name as printed in profiles.
    fn name(&self) -> String;
    /// Scratch bytes needed by `run`.
    fn workspace(&self) -> usize {
        0
    }
    /// Computes the outputs. Runs inside the device's thread pool and must not allocate.
    ///
    /// # Safety
    /// The addresses are valid for the shapes that the step was made for, and outputs do not overlap inputs unless
    /// the operator allowed it.
    unsafe fn run(&self, args: &CpuArgs<'_>);
}

/// Weights in the order that a CPU kernel reads, made once per engine and shared by shapes and contexts.
pub type Packed = Arc<dyn std::any::Any + Send + Sync>;

/// Keeps packed weights by (node, slot).
pub trait PackCache {
    fn get_or_pack(&self, slot: &str, make: &mut dyn FnMut() -> Packed) -> Packed;
}

/// Prints parameters for tactic names and dumps.
pub fn params_text(attrs: &[(&str, AttrValue)]) -> String {
    attrs.iter().map(|(k, v)| format!("{k}{v}")).collect::<Vec<_>>().join("_")
}
