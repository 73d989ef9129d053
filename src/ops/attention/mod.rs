//! Scaled dot-product attention: `y = softmax(cap(scale q kᵀ) + mask) v`, one head at a time, and optionally its scores.
//!
//! Inputs: q, k, v; optional mask (bool: true takes part; f32 or of q's type: added), optional lengths (keys of each batch
//! entry), optional offsets (position of the first query among the keys, one for all or one a batch entry), optional
//! sinks (one a head: a score that takes its share of the softmax and has no value). q, k and v each are
//! [batch, heads, length, size] or [batch, length, heads * size]; k and v have the whole past in them. Several heads
//! of q may share one of k and v, in order. A query that no key is left for gives zeros. Operands of rank 3 may lie side
//! by side in one: all three in operand 0, or k and v in operand 1; the places of the others are then empty.
//!
//! `onnx.rs` imports Attention, `contrib.rs` the forms of com.microsoft, `gqa.rs` its GroupQueryAttention.

mod contrib;
mod cpu;
mod cuda;
mod eval;
mod flex;
mod geometry;
mod gqa;
mod mma;
mod onnx;
mod parts;
mod wgmma;

pub use geometry::Geometry;

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::{
    CpuStep, EvalCx, HalfRole, InferCx, OnnxOp, OpDef, OpHome, PackCache, Problem, StepProgram, Tactic, TacticOptions,
};
use crate::{attr_enum, bail, ensure, err, op_struct};

attr_enum! {
    /// What becomes of keys that lie behind the query's position.
    pub enum Causal {
        /// They take part.
        No = "no",
        /// They do not.
        Exclude = "exclude",
        /// The least finite number of f32 (of f64 for operands of f64) is added to their score in place of the mask; so a query all of whose
        /// keys are masked by as large a number still weighs them evenly.
        Lowest = "lowest",
    }
}

attr_enum! {
    /// Which scores are the second output.
    pub enum Scores {
        None = "none",
        /// Scaled products.
        Raw = "raw",
        /// After the cap.
        Capped = "capped",
        /// With the mask; -inf for keys that do not take part.
        Masked = "masked",
        /// The weights.
        Softmax = "softmax",
    }
}

attr_enum! {
    /// Operands that lie side by side, heads of q before those of k before those of v.
    pub enum Packed {
        No = "no",
        /// Operand 0 is [batch, length, (heads of q + 2 * heads of k) * size]; 1 and 2 are absent.
        Qkv = "qkv",
        /// Operand 1 is [batch, length, 2 * heads of k * size]; 2 is absent.
        Kv = "kv",
    }
}

attr_enum! {
    /// The form of the output.
    pub enum Output {
        /// That of q.
        Like = "like",
        /// [batch, heads, length, size].
        Heads = "heads",
        /// [batch, length, heads * size].
        Rows = "rows",
    }
}

op_struct! {
    /// See the module's text.
    pub struct Attention {
        /// Heads of q and of k and v, where they are of rank 3; not looked at otherwise.
        pub q_heads: i64,
        pub kv_heads: i64,
        /// `None` is 1 / sqrt(size of a head of q).
        pub scale: Option<f32>,
        /// `cap tanh(x / cap)` for the scores; 0 is none.
        pub softcap: f32,
        pub causal: Causal,
        /// Keys that a query sees at most, up to its own position; 0 is no limit.
        pub window: i64,
        /// A mask whose last axis is shorter than the keys excludes the rest; otherwise it must be 1 or as long.
        pub pad_mask: bool,
        /// A sink of score 0 for all heads, where there is no operand for it.
        pub smooth: bool,
        pub scores: Scores,
        pub packed: Packed,
        pub output: Output,
    }
}

impl OpHome for Attention {
    const NAME: &'static str = "Attention";
    const ONNX: &'static [OnnxOp] = &[
        crate::ops::onnx("Attention", 23, onnx::attention),
        OnnxOp { domain: "ai.onnx.preview", name: "FlexAttention", since: 1, import: flex::flex_attention },
        OnnxOp { domain: "com.microsoft", name: "Attention", since: 1, import: contrib::attention },
        OnnxOp { domain: "com.microsoft", name: "MultiHeadAttention", since: 1, import: contrib::multi_head },
        OnnxOp {
            domain: "com.microsoft",
            name: "DecoderMaskedMultiHeadAttention",
            since: 1,
            import: contrib::decoder_masked,
        },
        OnnxOp { domain: "com.microsoft", name: "GroupQueryAttention", since: 1, import: gqa::group_query },
    ];
    fn attrs(&self) -> crate::base::Attrs {
        self.to_attrs()
    }
    fn from_attrs(attrs: &crate::base::Attrs) -> Result<Self> {
        Attention::from_attrs(attrs)
    }
}

/// Operands by position.
pub(super) const MASK: usize = 3;
pub(super) const LENGTHS: usize = 4;
pub(super) const OFFSETS: usize = 5;
pub(super) const SINKS: usize = 6;

impl Attention {
    /// Plain attention over operands of rank 4.
    pub fn plain() -> Attention {
        Attention {
            q_heads: 0,
            kv_heads: 0,
            scale: None,
            softcap: 0.0,
            causal: Causal::No,
            window: 0,
            pad_mask: false,
            smooth: false,
            scores: Scores::None,
            packed: Packed::No,
            output: Output::Like,
        }
    }

    /// The output is [batch, length, heads * size], for a q of this rank.
    pub fn gives_rows(&self, q_rank: usize) -> bool {
        match self.output {
            Output::Like => q_rank == 3,
            Output::Heads => false,
            Output::Rows => true,
        }
    }

    /// The factor of the scores for heads of this size.
    pub fn scale_for(&self, size: usize) -> f64 {
        match self.scale {
            Some(s) => s as f64,
            None => 1.0 / (size.max(1) as f64).sqrt(),
        }
    }
}

/// [batch, heads, length, size] of an operand in either form.
fn as_heads(what: &str, shape: &Shape, heads: i64) -> Result<[Dim; 4]> {
    match &shape.0[..] {
        [b, h, s, d] => Ok([b.clone(), h.clone(), s.clone(), d.clone()]),
        [b, s, hidden] => {
            ensure!(heads > 0, InvalidArgument, "{what} of shape {shape} needs the number of its heads, got {heads}");
            let n = Dim::from(heads);
            let size = match hidden.as_const() {
                Some(v) => {
                    ensure!(v % heads == 0, InvalidArgument, "{what}: {v} elements do not divide into {heads} heads");
                    Dim::from(v / heads)
                }
                None => hidden.floor_div(&n).ok_or_else(|| err!(InvalidArgument, "{what} has no heads"))?,
            };
            Ok([b.clone(), n, s.clone(), size])
        }
        _ => Err(err!(InvalidArgument, "{what}: expected rank 3 or 4, got {shape}")),
    }
}

/// [batch, heads, length, size] of each of the `heads` that lie side by side in an operand of rank 3.
fn side_by_side<const N: usize>(what: &str, shape: &Shape, heads: [i64; N]) -> Result<[[Dim; 4]; N]> {
    ensure!(shape.rank() == 3, InvalidArgument, "{what}: expected rank 3, got {shape}");
    let all = heads.iter().try_fold(0i64, |a, h| a.checked_add(*h)).filter(|_| heads.iter().all(|h| *h > 0));
    let all = all.ok_or_else(|| err!(InvalidArgument, "{what} of shape {shape} needs the numbers of its heads, got {heads:?}"))?;
    let [b, _, s, size] = as_heads(what, shape, all)?;
    Ok(heads.map(|h| [b.clone(), Dim::from(h), s.clone(), size.clone()]))
}

/// Fails when both are numbers and differ.
fn same(what: &str, a: &Dim, b: &Dim) -> Result<()> {
    let differ = matches!((a.as_const(), b.as_const()), (Some(a), Some(b)) if a != b);
    ensure!(!differ, InvalidArgument, "{what} differ: {a} and {b}");
    Ok(())
}

impl OpDef for Attention {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let n = cx.n_inputs();
        ensure!((1..=7).contains(&n), InvalidArgument, "expected 1 to 7 inputs, got {n}");
        let dtype = cx.float(0)?;
        let n_read = match self.packed {
            Packed::Qkv => 1,
            Packed::Kv => 2,
            Packed::No => 3,
        };
        for i in 0..3 {
            match (i < n_read, cx.opt(i)) {
                (true, _) => {
                    let f = cx.input(i)?;
                    ensure!(f.dtype == dtype, InvalidArgument, "input {i}: expected {dtype} as q is, got {f}");
                }
                (false, Some(f)) => bail!(InvalidArgument, "input {i}: {f} is given, and is packed with another"),
                (false, None) => {}
            }
        }
        let q = cx.input(0)?;
        let (nq, nkv) = (self.q_heads, self.kv_heads);
        let [[b, q_heads, q_len, size], [kb, kv_heads, kv_len, k_size], [vb, v_heads, v_len, v_size]] = match self.packed {
            Packed::Qkv => side_by_side("q, k and v", &q.shape, [nq, nkv, nkv])?,
            Packed::Kv => {
                let [k, v] = side_by_side("k and v", &cx.input(1)?.shape, [nkv, nkv])?;
                [as_heads("q", &q.shape, nq)?, k, v]
            }
            Packed::No => [
                as_heads("q", &q.shape, nq)?,
                as_heads("k", &cx.input(1)?.shape, nkv)?,
                as_heads("v", &cx.input(2)?.shape, nkv)?,
            ],
        };
        same("batch sizes of q and k", &b, &kb)?;
        same("batch sizes of q and v", &b, &vb)?;
        same("head sizes of q and k", &size, &k_size)?;
        same("heads of k and v", &kv_heads, &v_heads)?;
        same("lengths of k and v", &kv_len, &v_len)?;
        if let (Some(q), Some(kv)) = (q_heads.as_const(), kv_heads.as_const()) {
            ensure!(kv > 0 && q % kv == 0, InvalidArgument, "{q} heads of q cannot share {kv} heads of k and v");
        }
        ensure!(self.window >= 0, InvalidArgument, "a window of {} keys", self.window);
        ensure!(
            !(self.pad_mask && self.causal == Causal::Lowest),
            Unsupported,
            "a mask that may be short excludes keys, so later ones cannot count by the least number"
        );
        ensure!(self.softcap >= 0.0, InvalidArgument, "softcap {} is negative", self.softcap);
        if let Some(m) = cx.opt(MASK) {
            ensure!(
                matches!(m.dtype, DType::Bool | DType::F32) || m.dtype == dtype,
                InvalidArgument,
                "mask: expected bool, f32 or {dtype}, got {m}"
            );
            let full = [&b, &q_heads, &q_len, &kv_len];
            ensure!(m.rank() <= 4, InvalidArgument, "mask: expected rank 4 or less, got {}", m.shape);
            for (i, d) in m.shape.iter().enumerate() {
                let at = 4 - m.rank() + i;
                let (Some(have), Some(want)) = (d.as_const(), full[at].as_const()) else { continue };
                let fits = if at == 3 && self.pad_mask { have <= want } else { have == 1 || have == want };
                ensure!(
                    fits,
                    InvalidArgument,
                    "mask of shape {} does not fit scores of shape [{b},{q_heads},{q_len},{kv_len}]",
                    m.shape
                );
            }
        }
        for (i, what) in [(LENGTHS, "lengths"), (OFFSETS, "offsets")] {
            let Some(f) = cx.opt(i) else { continue };
            ensure!(
                matches!(f.dtype, DType::I32 | DType::I64) && f.rank() <= 1,
                InvalidArgument,
                "{what}: expected a vector of i32 or i64, got {f}"
            );
            let n = f.shape.numel();
            if i == LENGTHS || !n.is(1) {
                same(&format!("the number of {what} and the batch size"), &n, &b)?;
            }
        }
        if let Some(f) = cx.opt(SINKS) {
            ensure!(f.dtype == dtype && f.rank() == 1, InvalidArgument, "sinks: expected {dtype} of rank 1, got {f}");
            same("the number of sinks and the heads of q", &f.shape[0], &q_heads)?;
        }
        let y = match self.gives_rows(q.rank()) {
            true => vec![b.clone(), q_len.clone(), &q_heads * &v_size],
            false => vec![b.clone(), q_heads.clone(), q_len.clone(), v_size],
        };
        let mut out = vec![Fact::new(dtype, y)];
        if self.scores != Scores::None {
            out.push(Fact::new(dtype, vec![b, q_heads, q_len, kv_len]));
        }
        Ok(out)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        eval::eval(self, cx)
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, dev, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }

    /// Scores and their sums are in f32, and so is a mask; the sinks are of the operands' type.
    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Product, vec![0, 1, 2, SINKS]))
    }

    fn flops(&self, p: &Problem) -> f64 {
        Geometry::new(self, p).map_or(0.0, |g| {
            2.0 * (g.batch * g.q_heads * g.q_len) as f64 * g.kv_len as f64 * (g.size + g.v_size) as f64
        })
    }
}
