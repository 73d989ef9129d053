//! Memory for timing: a node's operands, in as many copies as it takes to find them where they would be in the network.
//!
//! The rule, by what happens between two executions of a layer:
//! * Activations were written by the layer before: they are in the L2 cache if they fit into half of it, and one copy,
//!   used again by each run, is there too. Larger ones are partly gone by then: copies take turns.
//! * Weights were last read one inference ago. When everything that an inference touches fits into half of the L2 cache
//!   they are still there (one copy). Otherwise each run in a row has a copy of its own, as far as memory allows, and the
//!   cache is filled with something else before the row.

use crate::base::{DType, Result};
use crate::device::{Buffer, CopyKind, DeviceRef, RawStream};
use crate::ops::{Problem, TensorDesc};

/// Most bytes for copies of one operand.
const COPIES_BYTES: usize = 1 << 30;

/// One operand: copies that take turns, one behind the other. Nothing for an absent one.
struct Rotating {
    memory: Option<Buffer>,
    stride: usize,
    n: usize,
}

impl Rotating {
    fn new(device: &DeviceRef, bytes: usize, copies: usize) -> Result<Rotating> {
        let n = copies.min(COPIES_BYTES / bytes.max(1)).max(1);
        let stride = bytes.next_multiple_of(256);
        Ok(Rotating { memory: Some(Buffer::new(device, stride * n)?), stride, n })
    }

    fn at(&self, turn: usize) -> u64 {
        self.memory.as_ref().map_or(0, |b| b.ptr() + (turn % self.n * self.stride) as u64)
    }
}

/// Operands of one problem.
pub struct Operands {
    inputs: Vec<Rotating>,
    outputs: Vec<Rotating>,
    /// The copies of weights fit into the cache: it is to be filled with something else before each row.
    pub flush: bool,
}

impl Operands {
    /// `runs`: how many runs stand in a row at most. `cold`: weights are not in the cache when a layer starts.
    pub fn new(device: &DeviceRef, stream: RawStream, p: &Problem, cold: bool, runs: usize) -> Result<Operands> {
        let l2 = device.props().l2_bytes.max(1 << 20);
        let moving: usize = (0..p.inputs.len())
            .filter(|i| p.known(*i).is_none())
            .filter_map(|i| p.input(i))
            .chain(&p.outputs)
            .map(|d| d.bytes())
            .sum();
        let activation_copies = if moving * 2 <= l2 { 1 } else { (2 * l2).div_ceil(moving.max(1)).clamp(2, 4) };
        let mut o = Operands { inputs: Vec::new(), outputs: Vec::new(), flush: false };
        for i in 0..p.inputs.len() {
            let Some(d) = p.input(i) else {
                o.inputs.push(Rotating { memory: None, stride: 0, n: 1 });
                continue;
            };
            let is_weight = p.known(i).is_some();
            let wanted = match (is_weight, cold) {
                (true, true) => (2 * l2).div_ceil(d.bytes().max(1)).min(runs),
                (true, false) => 1,
                (false, _) => activation_copies,
            };
            let r = Rotating::new(device, d.bytes(), wanted)?;
            o.flush |= is_weight && cold && d.bytes() >= 4096 && r.n * d.bytes() < 2 * l2;
            fill(device, &r, p, i, d, stream)?;
            o.inputs.push(r);
        }
        for d in &p.outputs {
            o.outputs.push(Rotating::new(device, d.bytes(), activation_copies)?);
        }
        // SAFETY: the caller's stream.
        unsafe { device.stream_synchronize(stream)? };
        Ok(o)
    }

    /// Addresses of the run with this number.
    pub fn turn(&self, turn: usize) -> (Vec<u64>, Vec<u64>) {
        let at = |list: &[Rotating]| list.iter().map(|r| r.at(turn)).collect();
        (at(&self.inputs), at(&self.outputs))
    }
}

/// Fills an operand: with its value if that is known, else with random elements; a block repeats until all is full.
fn fill(device: &DeviceRef, r: &Rotating, p: &Problem, i: usize, d: &TensorDesc, stream: RawStream) -> Result<()> {
    const BLOCK: usize = 8 << 20;
    let block = match p.known(i) {
        Some(t) => t.bytes()[..t.bytes().len().min(d.bytes()).min(BLOCK)].to_vec(),
        None => random_bytes(d),
    };
    if block.is_empty() {
        return Ok(());
    }
    let n = block.len().min(d.bytes());
    // SAFETY: inside the buffer.
    unsafe { device.upload([(r.at(0), &block[..n])])? };
    // What is there is doubled: first up to one copy, then up to all of them.
    for (mut have, whole) in [(n, d.bytes()), (r.stride, r.stride * r.n)] {
        while have < whole {
            let n = have.min(whole - have);
            // SAFETY: both ranges lie inside the buffer and do not overlap.
            unsafe { device.copy(r.at(0) + have as u64, r.at(0), n, CopyKind::DeviceToDevice, stream)? };
            have += n;
        }
    }
    Ok(())
}

/// Up to 1 MiB of random elements: floats in [-1, 1), integers 0 and 1 (legal as indices into any axis longer than 1).
fn random_bytes(d: &TensorDesc) -> Vec<u8> {
    let n = d.numel().min((1 << 20) / d.dtype.size());
    let mut x = 0x9e3779b97f4a7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut out = Vec::with_capacity(n * d.dtype.size());
    for _ in 0..n {
        let r = next();
        let f = (r >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        match d.dtype {
            DType::F32 => out.extend(f.to_le_bytes()),
            DType::F64 => out.extend((f as f64).to_le_bytes()),
            DType::F16 => out.extend(half::f16::from_f32(f).to_le_bytes()),
            DType::BF16 => out.extend(half::bf16::from_f32(f).to_le_bytes()),
            t => {
                let mut bytes = [0u8; 8];
                bytes[0] = (r & 1) as u8;
                out.extend(&bytes[..t.size()]);
            }
        }
    }
    out
}
