//! Reads the parameters of a kernel out of its cubin, so that the arguments of launches are checked without a GPU.

use sinter::ops::{Arg, TensorMap};

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

/// Contents of a section of a 64-bit ELF file.
fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    assert!(elf.starts_with(b"\x7fELF\x02\x01"), "not a little-endian ELF file of 64 bits");
    let (table, size) = (number::<8>(elf, 0x28) as usize, number::<2>(elf, 0x3a) as usize);
    let (n, names) = (number::<2>(elf, 0x3c) as usize, number::<2>(elf, 0x3e) as usize);
    let header = |i: usize| &elf[table + i * size..];
    let contents = |i: usize| {
        let at = number::<8>(header(i), 0x18) as usize;
        &elf[at..at + number::<8>(header(i), 0x20) as usize]
    };
    let text = contents(names);
    let is_named = |i: &usize| text[number::<4>(header(*i), 0) as usize..].split(|b| *b == 0).next() == Some(name.as_bytes());
    (0..n).find(is_named).map(contents)
}

/// Bytes of each parameter of a kernel, in order.
pub fn parameter_bytes(elf: &[u8], entry: &str) -> Vec<usize> {
    /// One parameter: index, ordinal, offset, packed properties.
    const KPARAM_INFO: u8 = 0x17;
    /// The same with a size of 32 bits.
    const KPARAM_INFO_V2: u8 = 0x45;
    /// The attribute's value follows with its length.
    const SIZED: u8 = 4;
    let info = section(elf, &format!(".nv.info.{entry}")).unwrap_or_else(|| panic!("{entry} has no attributes"));
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at + 4 <= info.len() {
        let value = &info[at + 4..];
        let length = if info[at] == SIZED { number::<2>(info, at + 2) as usize } else { 0 };
        if info[at] == SIZED && [KPARAM_INFO, KPARAM_INFO_V2].contains(&info[at + 1]) {
            let bytes = match info[at + 1] {
                KPARAM_INFO => number::<4>(value, 8) as usize >> 18,
                _ => number::<4>(value, 12) as usize,
            };
            found.push((number::<2>(value, 4) as usize, bytes));
        }
        at += 4 + length;
    }
    found.sort_unstable();
    found.into_iter().map(|(_, bytes)| bytes).collect()
}

/// Bytes that an argument hands over.
pub fn argument_bytes(a: &Arg) -> usize {
    match a {
        Arg::In(_) | Arg::Out(_) | Arg::Work(_) | Arg::Count(_) | Arg::Null | Arg::I64(_) | Arg::F64(_) => 8,
        Arg::I32(_) | Arg::F32(_) => 4,
        Arg::Bytes(b) => b.len(),
        Arg::TensorMap(_) => TensorMap::BYTES,
    }
}
