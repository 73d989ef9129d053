//! Product with a weight of 2, 4 or 8 bits, quantized in blocks along k: `y = a dequantize(b)^T + bias`.
//!
//! Inputs: a [.., k] (f32, f16 or bf16), b u8 [n, blocks, block_size * bits / 8], scales [n, blocks] of a's type, optional
//! zero points (u8, packed as b is, each row of blocks in whole bytes; or of a's type [n, blocks]; absent: half of the range), optional
//! bias [n]. Parameters may have any shape with that many elements. Low bits of a byte come first; sums are in f32.

mod cpu;
mod cuda;

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::{
    CpuStep, EvalCx, ImportCx, InferCx, OnnxOp, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, epilogue,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct MatMulNBits {
        pub n: i64,
        pub k: i64,
        pub bits: i64,
        pub block_size: i64,
    }
}

const ONNX: &[OnnxOp] = &[OnnxOp { domain: "com.microsoft", name: "MatMulNBits", since: 1, import }];

op_home!(MatMulNBits, "MatMulNBits", ONNX);

const A: usize = 0;
const B: usize = 1;
const SCALES: usize = 2;
const ZEROS: usize = 3;
const BIAS: usize = 4;

/// Larger extents are refused: products of two stay within 64 bits.
const MAX_EXTENT: i64 = 1 << 31;

/// Sizes of the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    n: usize,
    k: usize,
    bits: usize,
    block: usize,
    blocks: usize,
    /// Bytes of a block, and of the zero points of a row of blocks.
    blob: usize,
    zero_bytes: usize,
}

impl Layout {
    /// Element `i` of packed bytes.
    fn unpack(&self, bytes: &[u8], i: usize) -> u8 {
        let bit = i * self.bits;
        (bytes[bit / 8] >> (bit % 8)) & (((1u32 << self.bits) - 1) as u8)
    }

    fn row_bytes(&self) -> usize {
        self.blocks * self.blob
    }

    fn default_zero(&self) -> f32 {
        (1u32 << (self.bits - 1)) as f32
    }
}

impl MatMulNBits {
    fn layout(&self) -> Result<Layout> {
        ensure!(matches!(self.bits, 2 | 4 | 8), Unsupported, "bits: expected 2, 4 or 8, got {}", self.bits);
        let fine = (16..=MAX_EXTENT).contains(&self.block_size) && self.block_size & (self.block_size - 1) == 0;
        ensure!(fine, Unsupported, "block_size: expected a power of two from 16, got {}", self.block_size);
        for (name, v) in [("N", self.n), ("K", self.k)] {
            ensure!((1..MAX_EXTENT).contains(&v), InvalidArgument, "{name} = {v} is out of range");
        }
        let blocks = (self.k + self.block_size - 1) / self.block_size;
        Ok(Layout {
            n: self.n as usize,
            k: self.k as usize,
            bits: self.bits as usize,
            block: self.block_size as usize,
            blocks: blocks as usize,
            blob: (self.block_size * self.bits / 8) as usize,
            zero_bytes: ((blocks * self.bits + 7) / 8) as usize,
        })
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let need = |name: &str, v: Option<i64>| v.ok_or_else(|| err!(InvalidArgument, "attribute {name} is missing"));
    // How far a may be rounded: computing in f32 is as exact as any level asks for.
    cx.int("accuracy_level", 0)?;
    ensure!(cx.int("weight_prepacked", 0)? == 0, Unsupported, "weight_prepacked: the packing of another engine is not known");
    ensure!(cx.opt(4).is_none(), Unsupported, "input 4: g_idx (groups in another order) is not supported");
    let op = MatMulNBits {
        n: need("N", cx.attrs.int("N")?)?,
        k: need("K", cx.attrs.int("K")?)?,
        bits: cx.int("bits", 4)?,
        block_size: need("block_size", cx.attrs.int("block_size")?)?,
    };
    let inputs = [Some(cx.input(0)?), Some(cx.input(1)?), Some(cx.input(2)?), cx.opt(3), cx.opt(5)];
    let n = inputs.iter().rposition(|v| v.is_some()).map_or(0, |i| i + 1);
    Ok(vec![cx.add_opt(op, &inputs[..n])?])
}

impl OpDef for MatMulNBits {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 5)?;
        let l = self.layout()?;
        let a = cx.input(A)?;
        let fine = matches!(a.dtype, DType::F32 | DType::F16 | DType::BF16);
        ensure!(fine, Unsupported, "input {A}: expected f32, f16 or bf16, got {}", a.dtype);
        ensure!(a.rank() >= 1, InvalidArgument, "input {A}: expected a matrix, got a scalar");
        let k = &a.shape[a.rank() - 1];
        ensure!(k.as_const().is_none_or(|k| k == self.k), InvalidArgument, "input {A}: expected K = {}, got {k}", self.k);
        let packed_zeros = cx.opt(ZEROS).is_some_and(|z| z.dtype == DType::U8);
        let want = [
            (B, DType::U8, l.row_bytes()),
            (SCALES, a.dtype, l.blocks),
            (ZEROS, if packed_zeros { DType::U8 } else { a.dtype }, if packed_zeros { l.zero_bytes } else { l.blocks }),
            (BIAS, a.dtype, 1),
        ];
        for (i, dtype, each) in want {
            let Some(f) = cx.opt(i) else { continue };
            ensure!(f.dtype == dtype, InvalidArgument, "input {i}: expected {dtype}, got {}", f.dtype);
            let size = l.n.checked_mul(each).and_then(|v| i64::try_from(v).ok());
            let size = size.ok_or_else(|| err!(InvalidArgument, "N and K are too large"))?;
            let fits = f.shape.numel().as_const().is_none_or(|v| v == size);
            ensure!(fits, InvalidArgument, "input {i}: expected {size} elements, got {}", f.shape);
        }
        let mut shape: Vec<Dim> = a.shape[..a.rank() - 1].to_vec();
        shape.push(self.n.into());
        Ok(vec![Fact::new(a.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let l = self.layout()?;
        let (a, b, scales) = (cx.input(A)?, cx.input(B)?, cx.input(SCALES)?.to_f64s());
        let shape = cx.outputs[0].shape.to_concrete()?;
        crate::base::tensor::checked_bytes(DType::F64, &shape)?;
        let (a_values, bias) = (a.to_f64s(), cx.opt(BIAS).map(|b| b.to_f64s()));
        let zeros = cx.opt(ZEROS).map(|z| (z, z.to_f64s()));
        let rows = a_values.len() / l.k;
        let mut out = vec![0.0; rows * l.n];
        for j in 0..l.n {
            let packed = &b.bytes()[j * l.row_bytes()..][..l.row_bytes()];
            let weight = |i: usize| {
                let block = i / l.block;
                let zero = match &zeros {
                    None => l.default_zero() as f64,
                    Some((t, _)) if t.dtype() == DType::U8 => {
                        l.unpack(&t.bytes()[j * l.zero_bytes..][..l.zero_bytes], block) as f64
                    }
                    Some((_, v)) => v[j * l.blocks + block],
                };
                (l.unpack(packed, i) as f64 - zero) * scales[j * l.blocks + block]
            };
            let w: Vec<f64> = (0..l.k).map(weight).collect();
            for (i, row) in a_values.chunks_exact(l.k).enumerate() {
                let sum: f64 = row.iter().zip(&w).map(|(a, w)| a * w).sum();
                out[i * l.n + j] = sum + bias.as_ref().map_or(0.0, |b| b[j]);
            }
        }
        Ok(vec![epilogue::round_to(a.dtype(), &shape, &out)])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::cpu(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p)
    }

    fn flops(&self, p: &Problem) -> f64 {
        p.outputs.first().map_or(0.0, |y| 2.0 * y.numel() as f64 * self.k as f64)
    }
}
