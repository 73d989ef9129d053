//! What every operator provides, and the small contexts that it is given.
//!
//! An operator's file has its sections in this order: attributes struct, `infer`, `eval` (plain reference), `ONNX`
//! (import), `cpu` tactic, `cuda` tactics. `infer` runs over symbolic dimensions while building and over numbers when
//! a context gets its shapes: it is the only shape rule that an operator has.

use super::tactic::{CpuStep, PackCache, Problem, StepProgram, Tactic};
use crate::base::{AttrValue, Attrs, DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::network::{Graph, ValueId};
use crate::ops::Op;
use crate::{bail, ensure, err, internal};
use std::fmt::Debug;
use std::sync::Arc;

/// What a node knows of its inputs when it infers its outputs.
pub struct InferCx<'a> {
    inputs: &'a [Option<&'a Fact>],
}

impl<'a> InferCx<'a> {
    pub fn new(inputs: &'a [Option<&'a Fact>]) -> Self {
        InferCx { inputs }
    }

    pub fn n_inputs(&self) -> usize {
        self.inputs.len()
    }

    /// A required input.
    pub fn input(&self, i: usize) -> Result<&'a Fact> {
        self.opt(i).ok_or_else(|| err!(InvalidArgument, "input {i} is missing"))
    }

    /// An optional input.
    pub fn opt(&self, i: usize) -> Option<&'a Fact> {
        self.inputs.get(i).copied().flatten()
    }

    /// The elements of an integer input, symbolic or not, when they are known.
    pub fn dims(&self, i: usize) -> Result<Option<Vec<Dim>>> {
        Ok(self.input(i)?.as_dims())
    }

    /// The elements of an integer input when all of them are numbers.
    pub fn ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        Ok(self.dims(i)?.and_then(|d| d.iter().map(|d| d.as_const()).collect()))
    }

    /// Fails unless the number of inputs lies in the range.
    pub fn arity(&self, min: usize, max: usize) -> Result<()> {
        let n = self.inputs.len();
        ensure!((min..=max).contains(&n), InvalidArgument, "expected {min} to {max} inputs, got {n}");
        for i in 0..min {
            self.input(i)?;
        }
        Ok(())
    }

    /// Fails unless input `i` has this rank.
    pub fn rank(&self, i: usize, rank: usize) -> Result<()> {
        let f = self.input(i)?;
        ensure!(f.rank() == rank, InvalidArgument, "input {i}: expected rank {rank}, got {}", f.shape);
        Ok(())
    }

    /// Fails unless input `i` is of a floating-point type.
    pub fn float(&self, i: usize) -> Result<DType> {
        let f = self.input(i)?;
        ensure!(f.dtype.is_float(), Unsupported, "input {i}: expected a floating-point type, got {}", f.dtype);
        Ok(f.dtype)
    }
}

/// A dimension that is not known before the data is: a symbol that equals no other.
pub fn fresh_dim(what: &str) -> Dim {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Dim::sym(&format!("?{what}{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// What a node is given to compute its outputs on the host.
pub struct EvalCx<'a> {
    pub inputs: &'a [Option<&'a Tensor>],
    /// Types and shapes of the outputs; a dimension that depends on the data is still a symbol.
    pub outputs: &'a [Fact],
}

impl<'a> EvalCx<'a> {
    pub fn input(&self, i: usize) -> Result<&'a Tensor> {
        self.opt(i).ok_or_else(|| err!(InvalidArgument, "input {i} is missing"))
    }

    pub fn opt(&self, i: usize) -> Option<&'a Tensor> {
        self.inputs.get(i).copied().flatten()
    }

    /// A zeroed tensor of output `i`'s type and shape.
    pub fn output(&self, i: usize) -> Result<Tensor> {
        let f = self.outputs.get(i).ok_or_else(|| internal!("there is no output {i}"))?;
        let shape = f.shape.to_concrete()?;
        crate::base::tensor::checked_bytes(f.dtype, &shape)?;
        Ok(Tensor::zeros(f.dtype, &shape))
    }

    /// Elements of input `i` as integers.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>> {
        Ok(self.input(i)?.to_i64s())
    }
}

/// What the builder allows a tactic to do.
#[derive(Clone, Debug)]
pub struct TacticOptions {
    /// f32 products may use TF32.
    pub tf32: bool,
    /// cuBLASLt was found and is not excluded.
    pub cublaslt: bool,
    /// Shapes may change after the build: the tactic must serve every shape of this rank, whatever the problem shows.
    pub dynamic: bool,
    /// Optimization level, 0 to 5: how much of a build's time may go into the choice. 0 takes the first candidate and
    /// times nothing; up to 3 a short list of the operator's ranking is timed; from 4 on every candidate.
    pub level: u8,
}

impl TacticOptions {
    /// The level when nothing else is said.
    pub const DEFAULT_LEVEL: u8 = 3;

    /// How many candidates the level has compiled and timed at most. An operator lists its candidates best first, and
    /// need not list more than this.
    pub fn max_candidates(&self) -> usize {
        match self.level {
            0 => 1,
            1 => 3,
            2 => 6,
            3 => 12,
            4 => 40,
            _ => usize::MAX,
        }
    }
}

impl Default for TacticOptions {
    fn default() -> Self {
        TacticOptions { tf32: false, cublaslt: false, dynamic: false, level: Self::DEFAULT_LEVEL }
    }
}

/// What an operator does when a network in f32 may be computed in f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfRole {
    /// A product with an f32 accumulator: always worth it.
    Product,
    /// Neither grows nor cancels values: in f16 when all that is computed among its operands is.
    Follows,
}

/// One operator. Methods with a body have a right answer for most operators.
pub trait OpDef: Debug + Send + Sync {
    /// Types and shapes of the outputs. Shape arithmetic also fills `Fact::known`.
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>>;

    /// Plain reference computation, obviously right, for any type that `infer` accepts.
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>>;

    /// Inputs whose elements decide output shapes or are read by the host: the runtime keeps them in host memory.
    fn host_inputs(&self) -> Vec<usize> {
        Vec::new()
    }

    /// True when the output is input 0's memory under another shape.
    fn is_view(&self) -> bool {
        false
    }

    /// Output 0 may be written over input `i` while it is read (same size, element-wise).
    fn in_place(&self, _i: usize) -> bool {
        false
    }

    /// Its part when precision is lowered, and the operands that hold its data; `None` keeps it in f32.
    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        None
    }

    /// Random, so neither folded nor merged.
    fn is_stateful(&self) -> bool {
        false
    }

    /// A fast CPU step for these shapes; `None` falls back to `eval`.
    fn cpu(&self, _p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        Ok(None)
    }

    /// Ways to run on a CUDA device, best guess first. Empty: this type is refused there, and the caller says so.
    fn cuda_tactics(&self, _p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        Vec::new()
    }

    /// What a tactic launches at concrete shapes.
    fn cuda_program(&self, tactic: &Tactic, _p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        Err(internal!("tactic {} has no program", tactic.name))
    }

    /// Output dimensions follow from elements that are no host operands: `infer` gives fresh symbols for them, `eval` the
    /// true shape. On CUDA the counting program runs first and writes [`OpDef::n_counts`] numbers; [`OpDef::counted_shapes`]
    /// makes output shapes of them; then the tactic's program runs with these shapes. The scratch keeps its contents in
    /// between.
    fn is_data_dependent(&self) -> bool {
        false
    }

    /// Numbers (i64) that the counting program writes to `Arg::Count(0..n)`.
    fn n_counts(&self) -> usize {
        1
    }

    /// First of two phases of a data-dependent operator; unknown output dimensions of the problem are 0.
    fn count_program(&self, tactic: &Tactic, _p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        Err(internal!("tactic {} has no counting program", tactic.name))
    }

    /// Shapes of all outputs from the numbers that were counted.
    fn counted_shapes(&self, _p: &Problem, _counts: &[i64]) -> Result<Vec<Vec<usize>>> {
        Err(internal!("the operator counts nothing"))
    }

    /// Graphs that the operator runs: branches, loop bodies.
    fn bodies(&self) -> Vec<&Arc<Graph>> {
        Vec::new()
    }

    /// The operator with other bodies, as many as [`OpDef::bodies`] gives.
    fn with_bodies(&self, _bodies: Vec<Arc<Graph>>) -> Option<Op> {
        None
    }

    /// Floating-point operations at concrete shapes, for reports; 0 when moving data only.
    fn flops(&self, _p: &Problem) -> f64 {
        0.0
    }
}

/// What is known of an operator without an instance; implemented beside [`OpDef`].
pub trait OpHome: OpDef + Sized + 'static {
    /// Name in dumps and engines, UpperCamelCase; never changed.
    const NAME: &'static str;
    /// Importers from ONNX; several operators of ONNX may lead to one of ours.
    const ONNX: &'static [OnnxOp] = &[];
    fn attrs(&self) -> Attrs;
    fn from_attrs(attrs: &Attrs) -> Result<Self>;
}

/// Implements [`OpHome`] for a struct declared with `op_struct!`.
#[macro_export]
macro_rules! op_home {
    ($t:ty, $name:literal, $onnx:expr) => {
        impl $crate::ops::OpHome for $t {
            const NAME: &'static str = $name;
            const ONNX: &'static [$crate::ops::OnnxOp] = $onnx;
            fn attrs(&self) -> $crate::base::Attrs {
                self.to_attrs()
            }
            fn from_attrs(attrs: &$crate::base::Attrs) -> $crate::base::Result<Self> {
                <$t>::from_attrs(attrs)
            }
        }
    };
}

/// How one ONNX operator, from one opset on, becomes nodes of ours.
pub struct OnnxOp {
    /// "" is the standard domain.
    pub domain: &'static str,
    pub name: &'static str,
    /// First opset that this importer is for; the newest entry not above the model's opset is used.
    pub since: i64,
    /// Adds nodes and returns the values of the ONNX node's outputs, in order (trailing unused ones may be left out).
    pub import: fn(&mut ImportCx<'_>) -> Result<Vec<ValueId>>,
}

/// Shorthand for tables of [`OnnxOp`] in the standard domain.
pub const fn onnx(
    name: &'static str,
    since: i64,
    import: fn(&mut ImportCx<'_>) -> Result<Vec<ValueId>>,
) -> OnnxOp {
    OnnxOp { domain: "", name, since, import }
}

/// How an ONNX operator is imported that carries graphs or works on sequences and optionals.
pub struct StructuralOp {
    pub domain: &'static str,
    pub name: &'static str,
    pub since: i64,
    pub import: fn(&mut ImportCx<'_>) -> Result<Vec<ImportValue>>,
}

/// Shorthand for tables of [`StructuralOp`] in the standard domain.
pub const fn structural(
    name: &'static str,
    since: i64,
    import: fn(&mut ImportCx<'_>) -> Result<Vec<ImportValue>>,
) -> StructuralOp {
    StructuralOp { domain: "", name, since, import }
}

/// Attributes of the node that is imported, wherever they come from.
pub trait AttrSource {
    fn int(&self, name: &str) -> Result<Option<i64>>;
    fn float(&self, name: &str) -> Result<Option<f32>>;
    fn string(&self, name: &str) -> Result<Option<String>>;
    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>>;
    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>>;
    fn strings(&self, name: &str) -> Result<Option<Vec<String>>>;
    fn tensor(&self, name: &str) -> Result<Option<Arc<Tensor>>>;
    /// Marks an attribute as seen whatever it holds.
    fn ignore(&self, _name: &str) {}
}

macro_rules! plain_attrs {
    ($($f:ident $t:ty, $variant:ident;)*) => { $(
        fn $f(&self, name: &str) -> Result<Option<$t>> {
            match self.0.get(name) {
                None => Ok(None),
                Some(AttrValue::$variant(v)) => Ok(Some(v.clone())),
                Some(v) => Err(err!(InvalidArgument, "attribute {name:?} is {v}, which is of another type")),
            }
        }
    )* };
}

impl AttrSource for Attrs {
    plain_attrs! {
        int i64, Int;
        float f32, Float;
        string String, Str;
        ints Vec<i64>, Ints;
        floats Vec<f32>, Floats;
        strings Vec<String>, Strs;
        tensor Arc<Tensor>, Tensor;
    }
}

/// What an operand or result of a node is while a model is imported. Sequences and optionals exist only there: their
/// structure is resolved, and what is left are tensors.
#[derive(Clone, Debug)]
pub enum ImportValue {
    Tensor(ValueId),
    Sequence(Vec<ImportValue>),
    Optional(Option<Box<ImportValue>>),
}

/// A subgraph that became a graph of its own.
pub struct Body {
    pub graph: Graph,
    /// Values of the surrounding graph that it reads, in the order of its inputs behind the formal ones.
    pub captures: Vec<ValueId>,
}

/// The importer's side of operators that carry graphs or work on sequences.
pub trait Subgraphs {
    /// Imports attribute `attr` as a graph of its own with these formal inputs.
    fn body(&mut self, graph: &mut Graph, attr: &str, inputs: &[Fact]) -> Result<Body>;
    /// Imports attribute `attr` into the surrounding graph with these operands.
    fn inline(&mut self, graph: &mut Graph, attr: &str, inputs: &[ImportValue]) -> Result<Vec<ImportValue>>;
    /// Number of formal inputs and of outputs of attribute `attr`.
    fn arity(&self, attr: &str) -> Result<(usize, usize)>;
}

/// What an importer is given: the node's operands and attributes, and the graph to add to.
pub struct ImportCx<'a> {
    pub graph: &'a mut Graph,
    /// Name of the ONNX node; nodes that are added carry it.
    pub name: &'a str,
    /// ONNX operator name, for importers that serve several.
    pub op_type: &'a str,
    pub opset: i64,
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs that the model names; an importer may skip what lies beyond.
    pub n_outputs: usize,
    pub attrs: &'a dyn AttrSource,
    pub n_added: usize,
    /// All operands, with those that are no tensors; empty when all are tensors.
    pub values: Vec<Option<ImportValue>>,
    /// Graph attributes; absent where a node is made without a model.
    pub subgraphs: Option<&'a mut dyn Subgraphs>,
}

impl ImportCx<'_> {
    /// A required operand.
    pub fn input(&self, i: usize) -> Result<ValueId> {
        self.opt(i).ok_or_else(|| err!(InvalidArgument, "input {i} is missing"))
    }

    pub fn opt(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    pub fn fact(&self, v: ValueId) -> Fact {
        self.graph.fact(v).clone()
    }

    pub fn shape(&self, v: ValueId) -> Shape {
        self.graph.fact(v).shape.clone()
    }

    /// The constant behind a value, when it is one.
    pub fn as_const(&self, v: ValueId) -> Option<Arc<Tensor>> {
        self.graph.as_const(v).cloned()
    }

    /// The integers of operand `i` when they are known now; an error names the operand otherwise.
    pub fn const_ints(&self, i: usize) -> Result<Vec<i64>> {
        let v = self.input(i)?;
        match self.graph.fact(v).as_dims().and_then(|d| d.iter().map(|d| d.as_const()).collect()) {
            Some(v) => Ok(v),
            None => Err(err!(Unsupported, "input {i} must be a constant here")),
        }
    }

    /// Adds a node with any number of outputs. The first gets the ONNX node's name, later ones a suffix.
    pub fn add_multi(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Result<Vec<ValueId>> {
        let op = op.into();
        let name = match self.n_added {
            0 => self.name.to_string(),
            n => format!("{}/{}_{n}", self.name, op.name().to_lowercase()),
        };
        self.n_added += 1;
        self.graph.add_node(&name, op, inputs)
    }

    /// Adds a node with one output.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let inputs: Vec<_> = inputs.iter().map(|v| Some(*v)).collect();
        self.add_opt(op, &inputs)
    }

    /// Adds a node with one output and optional operands.
    pub fn add_opt(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Result<ValueId> {
        let out = self.add_multi(op, inputs)?;
        match out.as_slice() {
            [v] => Ok(*v),
            _ => Err(internal!("{} has {} outputs, not one", self.op_type, out.len())),
        }
    }

    /// Adds what another ONNX operator stands for: how a function is expanded from its definition. `op_type` may carry a
    /// domain in front (`com.microsoft.FusedMatMul`).
    pub fn call(
        &mut self,
        op_type: &str,
        opset: i64,
        attrs: &Attrs,
        inputs: &[Option<ValueId>],
        n_outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let (domain, op) = op_type.rsplit_once('.').unwrap_or(("", op_type));
        let entry = crate::ops::find_onnx(domain, op, opset)
            .ok_or_else(|| err!(Unsupported, "{}: there is no operator {op_type} at opset {opset}", self.op_type))?;
        let name = format!("{}/{}_{}", self.name, op.to_lowercase(), self.n_added);
        self.n_added += 1;
        let mut cx = ImportCx {
            graph: self.graph,
            name: &name,
            op_type: op,
            opset,
            inputs: inputs.to_vec(),
            n_outputs,
            attrs,
            n_added: 0,
            values: Vec::new(),
            subgraphs: None,
        };
        (entry.import)(&mut cx).map_err(|e| e.context(format!("as part of {}", self.op_type)))
    }

    /// Imports a graph attribute as a graph of its own; see [`Subgraphs::body`].
    pub fn body(&mut self, attr: &str, inputs: &[Fact]) -> Result<Body> {
        match self.subgraphs.as_deref_mut() {
            Some(s) => s.body(self.graph, attr, inputs),
            None => Err(err!(Unsupported, "{} can only come from a model", self.op_type)),
        }
    }

    /// Imports a graph attribute into the graph itself; see [`Subgraphs::inline`].
    pub fn inline(&mut self, attr: &str, inputs: &[ImportValue]) -> Result<Vec<ImportValue>> {
        match self.subgraphs.as_deref_mut() {
            Some(s) => s.inline(self.graph, attr, inputs),
            None => Err(err!(Unsupported, "{} can only come from a model", self.op_type)),
        }
    }

    /// Numbers of formal inputs and of outputs of a graph attribute.
    pub fn body_arity(&self, attr: &str) -> Result<(usize, usize)> {
        match &self.subgraphs {
            Some(s) => s.arity(attr),
            None => Err(err!(Unsupported, "{} can only come from a model", self.op_type)),
        }
    }

    /// Operand `i`, whatever it is.
    pub fn value(&self, i: usize) -> Option<ImportValue> {
        match self.values.get(i) {
            Some(v) => v.clone(),
            None => self.opt(i).map(ImportValue::Tensor),
        }
    }

    /// [`Self::call`] for operators with one output.
    pub fn call1(&mut self, op_type: &str, opset: i64, attrs: &Attrs, inputs: &[ValueId]) -> Result<ValueId> {
        let inputs: Vec<_> = inputs.iter().map(|v| Some(*v)).collect();
        let out = self.call(op_type, opset, attrs, &inputs, 1)?;
        out.first().copied().ok_or_else(|| internal!("{op_type} has no output"))
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("{}/const", self.name);
        self.graph.add_const(&name, Arc::new(tensor))
    }

    // ---- attributes -------------------------------------------------------------------------------------------

    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.attrs.int(name)?.unwrap_or(default))
    }

    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.int(name, default as i64)? {
            0 => Ok(false),
            1 => Ok(true),
            v => bail!(InvalidArgument, "attribute {name}: expected 0 or 1, got {v}"),
        }
    }

    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.attrs.float(name)?.unwrap_or(default))
    }

    pub fn string(&self, name: &str, default: &str) -> Result<String> {
        Ok(self.attrs.string(name)?.unwrap_or_else(|| default.to_string()))
    }

    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        self.attrs.ints(name)
    }
}
