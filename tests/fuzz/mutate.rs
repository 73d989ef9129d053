//! Mutations: of bytes, of messages, and of engine files with their checksums repaired.

use prost::Message;
use sinter::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use sinter::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, type_proto};
use sinter::base::{DType, Tensor};
use sinter::engine::EngineImage;
use sinter::onnx::importer::import_bytes;
use sinter::ops::TacticSource;
use xxhash_rust::xxh3::xxh3_64;

/// A small generator (SplitMix64): a case follows from its seed alone.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64, stream: u64) -> Rng {
        let mut r = Rng(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        r.next();
        r
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which may be 0 (then 0).
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// An integer that likes to break things.
    pub fn int(&mut self) -> i64 {
        const EDGES: [i64; 28] = [
            0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 31, 63, 64, 65, 255, 256, 1000, 65_536, 1 << 24, 1 << 30, i32::MAX as i64,
            i32::MIN as i64, 1 << 32, 1 << 40, 1 << 62, i64::MAX, i64::MIN, i64::MIN + 1,
        ];
        match self.below(16) {
            0..=6 => self.below(12) as i64 - 4,
            7 => self.next() as i64,
            8 => self.below(200) as i64,
            _ => *self.pick(&EDGES),
        }
    }

    fn float(&mut self) -> f32 {
        *self.pick(&[0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3.7, 1e9])
    }
}

/// A case from one of the models.
pub fn model(r: &mut Rng, bases: &[Vec<u8>]) -> Vec<u8> {
    let base = r.pick(bases);
    // Most keep the container whole: those come far. Half go on from what is still accepted, and come farthest.
    let whole = r.below(4) > 0;
    if whole && r.one_in(2) {
        return climbed(r, base);
    }
    let mut bytes = if whole {
        let mut m = ModelProto::decode(base.as_slice()).expect("bases are whole");
        for _ in 0..*r.pick(&[1, 1, 1, 2, 3]) {
            message(r, &mut m);
        }
        m.encode_to_vec()
    } else {
        base.clone()
    };
    if !whole || r.one_in(16) {
        for _ in 0..1 + r.below(4) {
            raw(r, &mut bytes, bases);
        }
    }
    bytes
}

/// Several mutations, each from a model that is imported; the last may not be.
fn climbed(r: &mut Rng, base: &[u8]) -> Vec<u8> {
    let mut good = ModelProto::decode(base).expect("bases are whole");
    let mut bytes = base.to_vec();
    for _ in 0..2 + r.below(8) {
        let mut next = good.clone();
        message(r, &mut next);
        bytes = next.encode_to_vec();
        if import_bytes(bytes.clone(), None).is_ok() {
            good = next;
        }
    }
    if r.one_in(8) { bytes } else { good.encode_to_vec() }
}

/// A case from one of the engines; every second one has right checksums.
pub fn engine(r: &mut Rng, bases: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = r.pick(bases).clone();
    if r.one_in(2) {
        for _ in 0..1 + r.below(3) {
            raw(r, &mut bytes, bases);
        }
        if r.one_in(4) {
            repair(&mut bytes);
        }
        return bytes;
    }
    if r.one_in(3)
        && let Some(b) = plan(r, &bytes)
    {
        return b;
    }
    // Inside of a section, where the parser is; the weights' bytes are the least interesting.
    let n = u32::from_le_bytes(bytes[24..28].try_into().expect("four bytes")) as usize;
    for _ in 0..1 + r.below(4) {
        let at = 40 + 40 * r.below(n);
        let field = |i: usize| u64::from_le_bytes(bytes[at + i..at + i + 8].try_into().expect("eight bytes")) as usize;
        let (from, len) = (field(8), field(16));
        if len == 0 {
            continue;
        }
        let span = if r.one_in(8) { len } else { len.min(2000) };
        let pos = from + r.below(span);
        let end = from + len;
        match r.below(5) {
            0 => bytes[pos] ^= 1 << r.below(8),
            1 => bytes[pos] = *r.pick(&[0, 1, 2, 3, 4, 8, 9, 0x7f, 0x80, 0xff]),
            2 => put(&mut bytes, pos, end, &(r.int() as u32).to_le_bytes()),
            3 => put(&mut bytes, pos, end, &r.int().to_le_bytes()),
            // Small numbers in place of a number: indices and counts.
            _ => {
                let v = r.below(40) as u32;
                put(&mut bytes, pos, end, &v.to_le_bytes());
            }
        }
    }
    repair(&mut bytes);
    bytes
}

/// Another plan, or other profiles, in a file that is right otherwise; `None` where there is no plan.
fn plan(r: &mut Rng, bytes: &[u8]) -> Option<Vec<u8>> {
    let own = std::sync::Arc::new(Tensor::from_bytes(DType::U8, &[bytes.len()], bytes).expect("the same size"));
    // SAFETY: `own` keeps the bytes, which nothing changes.
    let mut image = unsafe { EngineImage::from_bytes(own.bytes(), own.clone()).expect("bases are whole") };
    if r.one_in(6) {
        let profile = image.profiles.first_mut()?;
        for range in profile.inputs.values_mut() {
            let at = r.below(range.min.len());
            let list = [&mut range.min, &mut range.opt, &mut range.max];
            for l in list {
                if let Some(d) = l.get_mut(at) {
                    *d = r.int();
                }
            }
        }
        return image.to_bytes().ok();
    }
    let p = image.plan.as_mut()?;
    let n = p.tactics.len();
    for _ in 0..1 + r.below(3) {
        let other = p.tactics[r.below(n)].clone();
        let i = r.below(n);
        let Some(t) = &mut p.tactics[i] else { continue };
        let at = r.below(t.params.len());
        match r.below(8) {
            0 => p.tactics[i] = other,
            1 => t.params.insert(at, r.int()),
            2 if !t.params.is_empty() => drop(t.params.remove(at)),
            3 => t.kernels.truncate(at),
            4 => t.source = *r.pick(&[TacticSource::CublasLt, TacticSource::Kernels]),
            _ if !t.params.is_empty() => t.params[at] = r.int(),
            _ => p.sm = r.below(120) as u32,
        }
    }
    image.to_bytes().ok()
}

fn put(bytes: &mut [u8], at: usize, end: usize, with: &[u8]) {
    let n = with.len().min(end - at);
    bytes[at..at + n].copy_from_slice(&with[..n]);
}

/// Makes an engine's size and checksums right wherever its table makes sense.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < 40 {
        return;
    }
    let size = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&size.to_le_bytes());
    let n = u32::from_le_bytes(bytes[24..28].try_into().expect("four bytes")) as usize;
    let Some(end) = n.checked_mul(40).map(|t| t + 40).filter(|e| *e <= bytes.len()) else { return };
    for e in (40..end).step_by(40) {
        let field = |i: usize| u64::from_le_bytes(bytes[e + i..e + i + 8].try_into().expect("eight bytes")) as usize;
        let (at, len) = (field(8), field(16));
        if let Some(body) = at.checked_add(len).and_then(|end| bytes.get(at..end)) {
            let sum = xxh3_64(body);
            bytes[e + 24..e + 32].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let sum = xxh3_64(&[&bytes[..32], &bytes[40..end]].concat());
    bytes[32..40].copy_from_slice(&sum.to_le_bytes());
}

/// One mutation that knows nothing of the format.
fn raw(r: &mut Rng, bytes: &mut Vec<u8>, bases: &[Vec<u8>]) {
    let n = bytes.len();
    if n == 0 {
        bytes.push(r.next() as u8);
        return;
    }
    // Headers and shapes stand early in a file, weights late.
    let at = if r.one_in(2) { r.below(n.min(1024)) } else { r.below(n) };
    let len = (1 + r.below(64)).min(n - at);
    match r.below(9) {
        0 => bytes[at] ^= 1 << r.below(8),
        1 => bytes[at] = r.next() as u8,
        2 => bytes[at] = *r.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        3 => put(bytes, at, n, &r.int().to_le_bytes()),
        4 => put(bytes, at, n, &(r.int() as i32).to_le_bytes()),
        5 => {
            // A varint in place of one byte.
            let mut v = r.int() as u64;
            let mut code = Vec::new();
            while v >= 0x80 {
                code.push(v as u8 | 0x80);
                v >>= 7;
            }
            code.push(v as u8);
            bytes.splice(at..at + 1, code);
        }
        6 => match r.below(4) {
            0 => bytes.truncate(at),
            _ => drop(bytes.drain(at..at + len)),
        },
        7 => {
            let part = bytes[at..at + len].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let other = r.pick(bases);
            let from = r.below(other.len());
            let len = if r.one_in(4) { other.len() } else { r.below(256) };
            let part = other[from..(from + len).min(other.len())].to_vec();
            let end = (at + part.len()).min(n);
            bytes.splice(at..end, part);
        }
    }
}

/// One mutation of a decoded model.
fn message(r: &mut Rng, m: &mut ModelProto) {
    if r.one_in(24) {
        let v = r.int();
        for o in &mut m.opset_import {
            o.version = Some(if r.one_in(3) { v } else { 1 + r.below(25) as i64 });
        }
        return;
    }
    let Some(g) = m.graph.as_mut() else { return };
    match r.below(10) {
        0..=3 => {
            let i = r.below(g.node.len());
            if let Some(n) = g.node.get_mut(i)
                && !n.attribute.is_empty()
            {
                let a = r.below(n.attribute.len());
                return attribute(r, &mut n.attribute[a]);
            }
            wiring(r, g);
        }
        4 | 5 => {
            let i = r.below(g.initializer.len());
            if let Some(t) = g.initializer.get_mut(i) {
                tensor(r, t);
            }
        }
        6 | 7 => {
            let n_in = g.input.len();
            let i = r.below(n_in + g.output.len());
            let v = if i < n_in { g.input.get_mut(i) } else { g.output.get_mut(i - n_in) };
            if let Some(t) = v.and_then(|v| v.r#type.as_mut()) {
                type_of(r, t);
            }
        }
        _ => wiring(r, g),
    }
}

fn type_of(r: &mut Rng, t: &mut TypeProto) {
    let Some(type_proto::Value::TensorType(t)) = &mut t.value else { return };
    if r.one_in(6) {
        t.elem_type = Some(r.below(20) as i32);
        return;
    }
    let Some(shape) = &mut t.shape else { return };
    let at = r.below(shape.dim.len());
    let value = match r.below(4) {
        0 => Some(dimension::Value::DimParam(r.pick(&["n", "batch", "h", "w", ""]).to_string())),
        1 => None,
        _ => Some(dimension::Value::DimValue(r.int())),
    };
    let dim = Dimension { value, ..Default::default() };
    match r.below(6) {
        0 => shape.dim.insert(at, dim),
        1 if !shape.dim.is_empty() => drop(shape.dim.remove(at)),
        _ if !shape.dim.is_empty() => shape.dim[at] = dim,
        _ => shape.dim.push(dim),
    }
}

fn tensor(r: &mut Rng, t: &mut TensorProto) {
    // Elements of integer constants are shapes, axes and indices.
    if t.data_type == Some(7) && !r.one_in(4) {
        if let Some(raw) = &t.raw_data
            && raw.len() >= 8
        {
            let mut b = raw.to_vec();
            let at = 8 * r.below(b.len() / 8);
            b[at..at + 8].copy_from_slice(&r.int().to_le_bytes());
            t.raw_data = Some(b.into());
            return;
        }
    }
    match r.below(6) {
        0 => t.data_type = Some(r.below(20) as i32),
        1 => {
            let at = r.below(t.dims.len());
            if let Some(d) = t.dims.get_mut(at) {
                *d = r.int();
            }
        }
        2 => t.dims.push(*r.pick(&[0, 1, 1, 2, -1, i64::MAX])),
        3 => drop(t.dims.pop()),
        4 => {
            // Another shape that fits the same data.
            let n = t.dims.iter().fold(1i64, |a, b| a.wrapping_mul(*b));
            t.dims = vec![vec![n], vec![1, n], vec![n, 1, 1], vec![1; 60].into_iter().chain([n]).collect()][r.below(4)].clone();
        }
        _ => {
            // No elements, and any other dimension.
            let at = r.below(t.dims.len());
            t.dims.iter_mut().enumerate().for_each(|(i, d)| *d = if i == at { 0 } else { r.int().saturating_abs() });
            t.raw_data = None;
        }
    }
}

fn attribute(r: &mut Rng, a: &mut AttributeProto) {
    let v = r.int();
    if a.i.is_some() {
        a.i = Some(v);
    } else if a.f.is_some() {
        a.f = Some(r.float());
    } else if !a.ints.is_empty() {
        let at = r.below(a.ints.len());
        match r.below(8) {
            0 => a.ints.insert(at, v),
            1 => drop(a.ints.remove(at)),
            2 => a.ints.iter_mut().for_each(|i| *i = v),
            _ => a.ints[at] = v,
        }
    } else if !a.floats.is_empty() {
        let at = r.below(a.floats.len());
        a.floats[at] = r.float();
    } else if a.s.is_some() {
        const WORDS: [&str; 22] = [
            "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "constant", "edge", "reflect", "wrap", "nearest", "linear", "cubic",
            "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_crop_and_resize", "floor", "ceil",
            "round_prefer_ceil", "CRD", "DCR", "",
        ];
        a.s = Some(r.pick(&WORDS).as_bytes().to_vec());
    } else if let Some(t) = &mut a.t {
        tensor(r, t);
    }
}

/// Changes which node reads what.
fn wiring(r: &mut Rng, g: &mut GraphProto) {
    let names: Vec<String> = g
        .initializer
        .iter()
        .map(|t| t.name().to_string())
        .chain(g.input.iter().map(|v| v.name().to_string()))
        .chain(g.node.iter().flat_map(|n| n.output.clone()))
        .collect();
    let i = r.below(g.node.len());
    if g.node.is_empty() || names.is_empty() {
        return;
    }
    let others: Vec<(String, Vec<AttributeProto>)> =
        g.node.iter().map(|n| (n.op_type().to_string(), n.attribute.clone())).collect();
    let n: &mut NodeProto = &mut g.node[i];
    let k = r.below(n.input.len());
    match r.below(10) {
        0..=2 if !n.input.is_empty() => n.input[k] = r.pick(&names).clone(),
        3 if !n.input.is_empty() => n.input.swap(0, k),
        4 => n.input.push(r.pick(&names).clone()),
        5 if !n.input.is_empty() => drop(n.input.remove(k)),
        6 => {
            let (op, attrs) = r.pick(&others).clone();
            n.op_type = Some(op);
            if r.one_in(2) {
                n.attribute = attrs;
            }
        }
        7 if !n.attribute.is_empty() => drop(n.attribute.remove(0)),
        8 => drop(g.node.remove(i)),
        9 => {
            // Another graph output.
            if let Some(o) = g.output.first_mut() {
                o.name = Some(r.pick(&names).clone());
            }
        }
        _ => {}
    }
}
