//! Weights outside the model file.
//!
//! A `TensorProto` may name a file beside the model with an offset and a length. The name comes from the model, so it
//! is not trusted: it must be relative, have no `..`, and end, after all links are followed, at a regular file inside
//! the model's folder. Each file is mapped once and stays mapped as long as something refers to it; nothing is read or
//! copied here, and there is no limit on the size.
//!
//! This module does not verify the optional SHA-1 `checksum`.

use crate::base::Result;
use crate::base::error::ResultExt;
use crate::onnx::proto::StringStringEntryProto;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// The files beside one model. May be shared between threads.
pub struct ExternalFiles {
    base_dir: Option<PathBuf>,
    /// Mapped files by their path with all links followed.
    mapped: Mutex<HashMap<PathBuf, Bytes>>,
}

/// What the `external_data` entries of a tensor say.
struct Place<'a> {
    location: &'a str,
    offset: usize,
    length: Option<usize>,
}

impl ExternalFiles {
    /// `base_dir`: the model's folder; `None` when the model came as bytes, so that external data is an error.
    pub fn new(base_dir: Option<&Path>) -> Self {
        // A bare file name has the parent "", which means the current folder.
        let base_dir = base_dir.map(|d| if d.as_os_str().is_empty() { PathBuf::from(".") } else { d.to_path_buf() });
        ExternalFiles { base_dir, mapped: Mutex::new(HashMap::new()) }
    }

    pub fn base_dir(&self) -> Option<&Path> {
        self.base_dir.as_deref()
    }

    /// The bytes that `entries` (a tensor's `external_data`) name, as a slice of the mapped file, which it keeps alive.
    /// `want` is the number of bytes that the tensor's type and shape need.
    pub fn read(&self, entries: &[StringStringEntryProto], want: usize) -> Result<Bytes> {
        let place = parse(entries)?;
        let (location, offset) = (place.location, place.offset);
        if let Some(length) = place.length {
            crate::ensure!(
                length == want,
                CorruptData,
                "external data {location:?}: the tensor's shape needs {want} bytes, but its length says {length}"
            );
        }
        let file = self.map(location)?;
        let end = offset.checked_add(want).filter(|end| *end <= file.len());
        let end = end.ok_or_else(|| {
            let have = file.len();
            crate::err!(
                CorruptData,
                "external data {location:?}: {want} bytes at offset {offset} do not fit in the file of {have} bytes"
            )
        })?;
        Ok(file.slice(offset..end))
    }

    fn map(&self, location: &str) -> Result<Bytes> {
        let path = self.resolve(location)?;
        // The lock is held while mapping, so that two threads do not map the same file.
        let mut mapped = self.mapped.lock();
        if let Some(bytes) = mapped.get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = map_file(&path).with_context(|| format!("external data {location:?}"))?;
        mapped.insert(path, bytes.clone());
        Ok(bytes)
    }

    /// The path of `location` with all links followed, once it is known to lie inside the folder.
    fn resolve(&self, location: &str) -> Result<PathBuf> {
        let Some(base) = &self.base_dir else {
            crate::bail!(
                InvalidArgument,
                "external data {location:?} cannot be found: the model was given as bytes without a folder"
            );
        };
        let mut parts = Path::new(location).components().peekable();
        crate::ensure!(parts.peek().is_some(), CorruptData, "external data has an empty location");
        for part in parts {
            match part {
                Component::Normal(_) | Component::CurDir => {}
                Component::ParentDir => crate::bail!(
                    InvalidArgument,
                    "external data {location:?} is refused: its path must not contain '..'"
                ),
                Component::RootDir | Component::Prefix(_) => crate::bail!(
                    InvalidArgument,
                    "external data {location:?} is refused: its path must be relative to the model's folder"
                ),
            }
        }
        let joined = base.join(location);
        let real = joined.canonicalize().with_context(|| format!("external data {}", joined.display()))?;
        let base_real = base.canonicalize().with_context(|| format!("folder {}", base.display()))?;
        crate::ensure!(
            real.starts_with(&base_real),
            InvalidArgument,
            "external data {location:?} is refused: it is a link to {}, outside the model's folder {}",
            real.display(),
            base_real.display()
        );
        Ok(real)
    }
}

fn parse(entries: &[StringStringEntryProto]) -> Result<Place<'_>> {
    let number = |key: &str, value: &str| -> Result<usize> {
        let parsed = value.trim().parse::<usize>().ok();
        parsed.ok_or_else(|| crate::err!(CorruptData, "external data: {key} is {value:?}, expected a byte count"))
    };
    let (mut location, mut offset, mut length) = (None, None, None);
    for entry in entries {
        let (key, value) = (entry.key(), entry.value());
        let again = match key {
            "location" => location.replace(value).is_some(),
            "offset" => offset.replace(number(key, value)?).is_some(),
            "length" => length.replace(number(key, value)?).is_some(),
            "checksum" => false,
            // Writers add keys of their own (ONNX Runtime: packed copies); they do not change where the data is.
            _ => {
                crate::log_verbose!("external data: key {key:?} is not known and is passed over");
                false
            }
        };
        crate::ensure!(!again, CorruptData, "external data: {key} is given twice");
    }
    let location = location.ok_or_else(|| crate::err!(CorruptData, "external data has no location"))?;
    Ok(Place { location, offset: offset.unwrap_or(0), length })
}

/// Maps a regular file for reading. The bytes keep the mapping alive.
pub(crate) fn map_file(path: &Path) -> Result<Bytes> {
    let at = || path.display().to_string();
    // Asked before opening: opening a pipe would wait for a writer.
    let meta = std::fs::metadata(path).with_context(at)?;
    crate::ensure!(meta.is_file(), InvalidArgument, "{} is not a regular file", path.display());
    let file = File::open(path).with_context(at)?;
    if meta.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private to this process and only read. What another program does to the file is outside
    // our control; the module doc of `onnx` says so.
    let map = unsafe { memmap2::Mmap::map(&file) }.with_context(at)?;
    Ok(Bytes::from_owner(map))
}
