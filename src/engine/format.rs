//! The engine file: this text is its specification.
//!
//! All numbers are little-endian. The file is a header, a table of sections, and the sections, each starting at a
//! multiple of [`SECTION_ALIGN`] bytes with zeros between.
//!
//! | offset | size | what |
//! |---:|---:|---|
//! | 0 | 8 | magic `SINTERNG` |
//! | 8 | 4 | format version ([`FORMAT_VERSION`]); a reader refuses a newer one |
//! | 12 | 4 | packed version of the library that wrote it |
//! | 16 | 8 | size of the file in bytes |
//! | 24 | 4 | number of sections |
//! | 28 | 4 | zero |
//! | 32 | 8 | XXH3-64 of bytes 0 to 31 followed by the section table |
//! | 40 | 40 each | section table: kind u32, zero u32, offset u64, size u64, XXH3-64 of the section u64, zero u64 |
//!
//! Sections, each at most once:
//! * 1 `meta`: graph name, build options, profiles, what it was built on. Required.
//! * 2 `graph`: the portable graph. Required.
//! * 3 `plan`: the graph lowered for one device, the tactic of each node, and the times that choices rest on.
//! * 4 `kernels`: compiled kernels (cubins) that the tactics launch, and whether each waits for the kernels before it.
//! * 5 `weights`: a table of tensors (type, shape, offset) and their bytes, each at a multiple of [`WEIGHT_ALIGN`] from
//!   the section's start. Both graphs refer to it by index; equal tensors are stored once. Required.
//!
//! A graph is: name; inputs (name, type, dimensions as number or symbol name); constants (name, weight index); nodes in
//! topological order (name, operator id, attributes, operands by value index with 0xffffffff for an absent one, names of
//! the outputs); outputs (name, value index). Value indices count inputs, constants, then node outputs. Shapes of node
//! outputs are not stored: reading infers them again, so a graph that was read is a graph that was checked.

use crate::base::Result;
use crate::{bail, ensure, err};
use xxhash_rust::xxh3::xxh3_64;

pub const MAGIC: &[u8; 8] = b"SINTERNG";
pub const FORMAT_VERSION: u32 = 2;
pub const SECTION_ALIGN: usize = 4096;
pub const WEIGHT_ALIGN: usize = 256;
const HEADER: usize = 40;
const ENTRY: usize = 40;

/// Kinds of sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Section {
    Meta = 1,
    Graph = 2,
    Plan = 3,
    Kernels = 4,
    Weights = 5,
}

impl Section {
    const ALL: [Section; 5] = [Section::Meta, Section::Graph, Section::Plan, Section::Kernels, Section::Weights];

    pub fn name(self) -> &'static str {
        match self {
            Section::Meta => "meta",
            Section::Graph => "graph",
            Section::Plan => "plan",
            Section::Kernels => "kernels",
            Section::Weights => "weights",
        }
    }
}

/// Puts sections together into a file.
pub fn assemble(sections: &[(Section, Vec<u8>)]) -> Vec<u8> {
    let mut at = (HEADER + ENTRY * sections.len()).next_multiple_of(SECTION_ALIGN);
    let mut table = Vec::new();
    for (kind, bytes) in sections {
        table.extend((*kind as u32).to_le_bytes());
        table.extend(0u32.to_le_bytes());
        table.extend((at as u64).to_le_bytes());
        table.extend((bytes.len() as u64).to_le_bytes());
        table.extend(xxh3_64(bytes).to_le_bytes());
        table.extend(0u64.to_le_bytes());
        at = (at + bytes.len()).next_multiple_of(SECTION_ALIGN);
    }
    let mut head = Vec::with_capacity(at);
    head.extend(MAGIC);
    head.extend(FORMAT_VERSION.to_le_bytes());
    head.extend(crate::VERSION_PACKED.to_le_bytes());
    head.extend((at as u64).to_le_bytes());
    head.extend((sections.len() as u32).to_le_bytes());
    head.extend(0u32.to_le_bytes());
    let sum = xxh3_64(&[head.as_slice(), &table].concat());
    head.extend(sum.to_le_bytes());
    head.extend(table);
    for (_, bytes) in sections {
        head.resize(head.len().next_multiple_of(SECTION_ALIGN), 0);
        head.extend(bytes);
    }
    head.resize(at, 0);
    head
}

/// The sections of a file, with every checksum verified.
#[derive(Debug)]
pub struct Sections<'a> {
    found: Vec<(Section, &'a [u8])>,
    /// Packed version of the library that wrote it.
    pub written_by: u32,
}

impl<'a> Sections<'a> {
    /// Splits a file; the error says whether it is foreign, newer, truncated or damaged, and where.
    pub fn parse(bytes: &'a [u8]) -> Result<Sections<'a>> {
        let u32_at = |i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().expect("four bytes"));
        let u64_at = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().expect("eight bytes"));
        if bytes.len() >= 8 && &bytes[..8] != MAGIC {
            bail!(Parse, "not a Sinter engine: the file starts with {:02x?} instead of \"SINTERNG\"", &bytes[..8]);
        }
        ensure!(bytes.len() >= HEADER, CorruptData, "truncated engine: {} bytes, the header has {HEADER}", bytes.len());
        let version = u32_at(8);
        let written_by = u32_at(12);
        ensure!(
            version <= FORMAT_VERSION,
            VersionMismatch,
            "the engine has format version {version} (written by Sinter {}), this library reads up to {FORMAT_VERSION}",
            crate::version_text(written_by)
        );
        ensure!(version == FORMAT_VERSION, VersionMismatch, "engine format version {version} is not readable");
        let size = u64_at(16);
        ensure!(
            size == bytes.len() as u64,
            CorruptData,
            "truncated engine: the header says {size} bytes, there are {}",
            bytes.len()
        );
        let n = u32_at(24) as usize;
        let table_end = n.checked_mul(ENTRY).and_then(|t| t.checked_add(HEADER)).filter(|e| *e <= bytes.len());
        let table_end = table_end.ok_or_else(|| err!(CorruptData, "damaged engine: {n} sections do not fit"))?;
        let sum = xxh3_64(&[&bytes[..32], &bytes[HEADER..table_end]].concat());
        ensure!(sum == u64_at(32), CorruptData, "damaged engine: the checksum of the header is wrong");
        let mut found = Vec::new();
        for e in (HEADER..table_end).step_by(ENTRY) {
            let (kind, at, len) = (u32_at(e), u64_at(e + 8) as usize, u64_at(e + 16) as usize);
            let body = at.checked_add(len).and_then(|end| bytes.get(at..end));
            let body = body.ok_or_else(|| err!(CorruptData, "damaged engine: section {kind} lies outside the file"))?;
            // A kind that a later minor version added may be skipped: the format version guards what must be known.
            let Some(kind) = Section::ALL.into_iter().find(|s| *s as u32 == kind) else { continue };
            let fine = xxh3_64(body) == u64_at(e + 24);
            ensure!(fine, CorruptData, "damaged engine: the checksum of section {} is wrong", kind.name());
            ensure!(found.iter().all(|(k, _)| *k != kind), CorruptData, "section {} appears twice", kind.name());
            found.push((kind, body));
        }
        Ok(Sections { found, written_by })
    }

    pub fn get(&self, kind: Section) -> Option<&'a [u8]> {
        self.found.iter().find(|(k, _)| *k == kind).map(|(_, b)| *b)
    }

    pub fn require(&self, kind: Section) -> Result<&'a [u8]> {
        self.get(kind).ok_or_else(|| err!(CorruptData, "damaged engine: section {} is missing", kind.name()))
    }
}
