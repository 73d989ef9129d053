//! Little-endian encoding of plain values, and a reader that trusts nothing.
//!
//! A count is checked against the bytes that are left before anything is allocated, so decoding never takes more than
//! a small multiple of the input's size.

use crate::base::{AttrValue, Attrs, DType, Result, Tensor};
use crate::{bail, ensure, err};
use std::any::Any;
use std::sync::Arc;

/// Appends encoded values to bytes.
#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }
    pub fn u16(&mut self, v: u16) {
        self.bytes.extend(v.to_le_bytes());
    }
    pub fn u32(&mut self, v: u32) {
        self.bytes.extend(v.to_le_bytes());
    }
    pub fn u64(&mut self, v: u64) {
        self.bytes.extend(v.to_le_bytes());
    }
    pub fn i64(&mut self, v: i64) {
        self.bytes.extend(v.to_le_bytes());
    }
    pub fn len(&mut self, v: usize) {
        self.u32(u32::try_from(v).expect("counts in an engine fit 32 bits"));
    }
    pub fn str(&mut self, v: &str) {
        self.len(v.len());
        self.bytes.extend(v.as_bytes());
    }
    pub fn blob(&mut self, v: &[u8]) {
        self.u64(v.len() as u64);
        self.bytes.extend(v);
    }
    pub fn i64s(&mut self, v: &[i64]) {
        self.len(v.len());
        v.iter().for_each(|v| self.i64(*v));
    }

    pub fn attrs(&mut self, a: &Attrs, table: &mut dyn AttrTable) -> Result<()> {
        self.len(a.0.len());
        for (k, v) in &a.0 {
            self.str(k);
            match v {
                AttrValue::Int(v) => (self.u8(1), self.i64(*v)).1,
                AttrValue::Float(v) => (self.u8(2), self.u32(v.to_bits())).1,
                AttrValue::Bool(v) => (self.u8(3), self.u8(*v as u8)).1,
                AttrValue::Str(v) => (self.u8(4), self.str(v)).1,
                AttrValue::Ints(v) => (self.u8(5), self.i64s(v)).1,
                AttrValue::Floats(v) => {
                    self.u8(6);
                    self.len(v.len());
                    v.iter().for_each(|v| self.u32(v.to_bits()));
                }
                AttrValue::Strs(v) => {
                    self.u8(7);
                    self.len(v.len());
                    v.iter().for_each(|v| self.str(v));
                }
                AttrValue::DType(v) => (self.u8(8), self.u8(*v as u8)).1,
                AttrValue::Tensor(v) => {
                    let at = table.weight(v);
                    self.u8(9);
                    self.u32(at);
                }
                AttrValue::Graph(v) => {
                    let bytes = table.graph(v)?;
                    self.u8(10);
                    self.blob(&bytes);
                }
            }
        }
        Ok(())
    }
}

/// Where attributes go that are stored apart.
pub trait AttrTable {
    /// Number of a weight.
    fn weight(&mut self, t: &Arc<Tensor>) -> u32;
    /// Bytes of a graph.
    fn graph(&mut self, g: &Arc<dyn Any + Send + Sync>) -> Result<Vec<u8>>;
}

/// Where they come from.
pub trait AttrSource {
    fn weight(&self, i: usize) -> Option<&Arc<Tensor>>;
    fn graph(&self, bytes: &[u8]) -> Result<Arc<dyn Any + Send + Sync>>;
}

/// Reads encoded values; every error is [`crate::base::ErrorCode::CorruptData`].
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the section in messages.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { bytes, what }
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let what = self.what;
        let (head, rest) = self
            .bytes
            .split_at_checked(n)
            .ok_or_else(|| err!(CorruptData, "section {what}: {n} bytes expected, {} left", self.bytes.len()))?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as asked"))
    }
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            v => bail!(CorruptData, "section {}: {v} is no bool", self.what),
        }
    }
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `min_bytes` each.
    pub fn len(&mut self, min_bytes: usize) -> Result<usize> {
        let n = self.u32()? as usize;
        let fits = n.checked_mul(min_bytes.max(1)).is_some_and(|b| b <= self.bytes.len());
        ensure!(fits, CorruptData, "section {}: a count of {n} does not fit {} bytes", self.what, self.bytes.len());
        Ok(n)
    }

    pub fn str(&mut self) -> Result<String> {
        let n = self.len(1)?;
        let what = self.what;
        String::from_utf8(self.take(n)?.to_vec()).map_err(|_| err!(CorruptData, "section {what}: a name is not UTF-8"))
    }

    pub fn blob(&mut self) -> Result<&'a [u8]> {
        let n = usize::try_from(self.u64()?).map_err(|_| err!(CorruptData, "section {}: a size overflows", self.what))?;
        self.take(n)
    }

    pub fn i64s(&mut self) -> Result<Vec<i64>> {
        (0..self.len(8)?).map(|_| self.i64()).collect()
    }

    pub fn dtype(&mut self) -> Result<DType> {
        let c = self.u8()?;
        DType::from_code(c).ok_or_else(|| err!(CorruptData, "section {}: {c} is no element type", self.what))
    }

    pub fn attrs(&mut self, source: &dyn AttrSource) -> Result<Attrs> {
        let mut a = Attrs::new();
        for _ in 0..self.len(6)? {
            let k = self.str()?;
            let v = match self.u8()? {
                1 => AttrValue::Int(self.i64()?),
                2 => AttrValue::Float(f32::from_bits(self.u32()?)),
                3 => AttrValue::Bool(self.bool()?),
                4 => AttrValue::Str(self.str()?),
                5 => AttrValue::Ints(self.i64s()?),
                6 => {
                    let n = self.len(4)?;
                    AttrValue::Floats((0..n).map(|_| Ok(f32::from_bits(self.u32()?))).collect::<Result<_>>()?)
                }
                7 => {
                    let n = self.len(4)?;
                    AttrValue::Strs((0..n).map(|_| self.str()).collect::<Result<_>>()?)
                }
                8 => AttrValue::DType(self.dtype()?),
                9 => {
                    let i = self.u32()? as usize;
                    let t = source.weight(i);
                    AttrValue::Tensor(
                        t.ok_or_else(|| err!(CorruptData, "section {}: there is no weight {i}", self.what))?.clone(),
                    )
                }
                10 => AttrValue::Graph(source.graph(self.blob()?)?),
                t => bail!(CorruptData, "section {}: {t} is no kind of attribute", self.what),
            };
            a.0.insert(k, v);
        }
        Ok(a)
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<()> {
        ensure!(self.bytes.is_empty(), CorruptData, "section {}: {} bytes too many", self.what, self.bytes.len());
        Ok(())
    }
}
