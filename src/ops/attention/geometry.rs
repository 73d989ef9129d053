//! An attention problem at concrete sizes, with the strides of every operand.

use super::{Attention, Causal, MASK, OFFSETS, Packed};
use crate::base::{DType, Result};
use crate::ops::{Problem, TensorDesc};
use crate::{ensure, err};

/// Elements between neighbours along batch, heads and length; the size of a head is dense.
pub type Strides = [usize; 3];

/// See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    pub dtype: DType,
    pub batch: usize,
    pub q_heads: usize,
    pub kv_heads: usize,
    pub q_len: usize,
    pub kv_len: usize,
    /// Elements of a head of q and k.
    pub size: usize,
    /// Elements of a head of v.
    pub v_size: usize,
    /// Inputs that q, k and v lie in, and their first elements there.
    pub sources: [usize; 3],
    pub firsts: [usize; 3],
    pub q: Strides,
    pub k: Strides,
    pub v: Strides,
    pub y: Strides,
    pub mask: Option<MaskGeometry>,
    /// One offset for all batch entries.
    pub shared_offset: bool,
}

/// A mask seen as [batch, heads, q_len, n_keys]; a stride of 0 broadcasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskGeometry {
    pub strides: [usize; 4],
    /// Keys from here on are excluded.
    pub n_keys: usize,
    pub is_bool: bool,
}

/// [batch, heads, length, size] and strides of an operand in either form.
fn operand(t: &TensorDesc, heads: i64) -> Result<([usize; 4], Strides)> {
    match t.dims[..] {
        [b, h, s, d] => Ok(([b, h, s, d], [h * s * d, s * d, d])),
        [b, s, hidden] => {
            let h = usize::try_from(heads).unwrap_or(0);
            ensure!(h > 0 && hidden % h == 0, InvalidArgument, "{hidden} elements do not divide into {heads} heads");
            let d = hidden / h;
            Ok(([b, h, s, d], [s * hidden, d, hidden]))
        }
        _ => Err(err!(InvalidArgument, "expected rank 3 or 4, got {t}")),
    }
}

/// The same of operands that lie side by side, and their first elements.
fn side_by_side<const N: usize>(t: &TensorDesc, heads: [i64; N]) -> Result<[([usize; 4], Strides, usize); N]> {
    let all = heads.iter().try_fold(0i64, |a, h| a.checked_add(*h)).filter(|_| heads.iter().all(|h| *h > 0));
    let all = all.filter(|_| t.dims.len() == 3).ok_or_else(|| err!(InvalidArgument, "{t} does not hold {heads:?} heads"))?;
    let ([b, _, s, d], strides) = operand(t, all)?;
    let mut first = 0;
    Ok(heads.map(|h| {
        let part = ([b, h as usize, s, d], strides, first);
        first += h as usize * d;
        part
    }))
}

impl Geometry {
    pub fn new(op: &Attention, p: &Problem) -> Result<Geometry> {
        let input = |i: usize| p.input(i).ok_or_else(|| err!(InvalidArgument, "input {i} is missing"));
        let q = input(0)?;
        let alone = |i: usize, heads: i64| operand(input(i)?, heads).map(|(dims, strides)| (dims, strides, 0));
        let (parts, sources) = match op.packed {
            Packed::Qkv => (side_by_side(q, [op.q_heads, op.kv_heads, op.kv_heads])?, [0, 0, 0]),
            Packed::Kv => {
                let [k, v] = side_by_side(input(1)?, [op.kv_heads; 2])?;
                ([alone(0, op.q_heads)?, k, v], [0, 1, 1])
            }
            Packed::No => ([alone(0, op.q_heads)?, alone(1, op.kv_heads)?, alone(2, op.kv_heads)?], [0, 1, 2]),
        };
        let [([batch, q_heads, q_len, size], qs, q_at), k_part, v_part] = parts;
        let ([kb, kv_heads, kv_len, ks], k_strides, k_at) = k_part;
        let ([vb, v_heads, v_len, v_size], v_strides, v_at) = v_part;
        ensure!(
            [kb, vb] == [batch; 2] && ks == size && v_heads == kv_heads && v_len == kv_len,
            InvalidArgument,
            "q {:?}, k {:?} and v {:?} do not fit together",
            parts[0].0,
            k_part.0,
            v_part.0
        );
        ensure!(kv_heads > 0 && q_heads % kv_heads == 0, InvalidArgument, "{q_heads} heads share {kv_heads}");
        let y = match op.gives_rows(q.dims.len()) {
            true => [q_len * q_heads * v_size, v_size, q_heads * v_size],
            false => [q_heads * q_len * v_size, q_len * v_size, v_size],
        };
        let full = [batch, q_heads, q_len, kv_len];
        let mask = p.input(MASK).map(|m| mask(op, m, full)).transpose()?;
        let shared_offset = p.input(OFFSETS).is_some_and(|o| o.numel() == 1);
        let dtype = q.dtype;
        Ok(Geometry {
            dtype,
            batch,
            q_heads,
            kv_heads,
            q_len,
            kv_len,
            size,
            v_size,
            sources,
            firsts: [q_at, k_at, v_at],
            q: qs,
            k: k_strides,
            v: v_strides,
            y,
            mask,
            shared_offset,
        })
    }

    /// Heads of q that share one of k and v.
    pub fn group(&self) -> usize {
        self.q_heads / self.kv_heads
    }

    /// The keys that query `row` may see, with this many keys and this position of the first query.
    pub fn keys(&self, op: &Attention, row: usize, length: Option<i64>, offset: i64) -> std::ops::Range<usize> {
        let mut end = length.map_or(self.kv_len, |n| n.clamp(0, self.kv_len as i64) as usize);
        let at = offset.saturating_add(row as i64);
        if op.causal == Causal::Exclude {
            end = end.min(at.saturating_add(1).clamp(0, self.kv_len as i64) as usize);
        }
        let mut start = 0;
        if op.window > 0 {
            start = at.saturating_sub(op.window - 1).clamp(0, self.kv_len as i64) as usize;
        }
        start.min(end)..end
    }
}

fn mask(op: &Attention, m: &TensorDesc, full: [usize; 4]) -> Result<MaskGeometry> {
    let rank = m.dims.len();
    ensure!(rank <= 4, InvalidArgument, "mask {m} has a rank above 4");
    let mut strides = [0; 4];
    let mut step = 1;
    let mut n_keys = full[3];
    for i in (0..rank).rev() {
        let (at, d) = (4 - rank + i, m.dims[i]);
        let pads = at == 3 && op.pad_mask && d <= full[3];
        ensure!(d == full[at] || d == 1 || pads, InvalidArgument, "mask {m} does not fit scores of shape {full:?}");
        if pads {
            n_keys = d;
        }
        strides[at] = if d == 1 { 0 } else { step };
        step *= d;
    }
    Ok(MaskGeometry { strides, n_keys, is_bool: m.dtype == DType::Bool })
}
