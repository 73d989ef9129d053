//! Host memory that the library made for the application: serialized engines, reports.

use super::guard::guard;
use super::handle::{self, Handle};
use super::status::SinterStatus;
use crate::base::Result;
use crate::base::error::ResultExt;
use std::ffi::{c_char, c_void};
use std::path::Path;

/// Bytes in host memory, owned by the handle and never changed. One zero byte follows them, so that text is a C string.
pub struct SinterHostMemory {
    _opaque: (),
}

/// Bytes with a zero behind them.
pub(super) struct Bytes(Vec<u8>);

impl Bytes {
    pub(super) fn new(mut bytes: Vec<u8>) -> Bytes {
        bytes.push(0);
        Bytes(bytes)
    }

    fn as_slice(&self) -> &[u8] {
        &self.0[..self.0.len() - 1]
    }
}

impl Handle for SinterHostMemory {
    const MAGIC: &'static [u8; 8] = b"SntrMemo";
    type Content = Bytes;
}

/// Destroys host memory.
///
/// Params: memory (in) or NULL, which does nothing.
/// Owns: the handle is gone, and with it the bytes.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_host_memory_destroy(memory: *mut SinterHostMemory) -> SinterStatus {
    guard("sinter_host_memory_destroy", || handle::destroy(memory, "memory"))
}

/// Address and number of the bytes.
///
/// Params: memory (in); data_out (out) or NULL; size_out (out) in bytes, without the zero behind them, or NULL.
/// Owns: the bytes are borrowed and stay until the memory is destroyed.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_host_memory_get_data(
    memory: *const SinterHostMemory,
    data_out: *mut *const c_void,
    size_out: *mut usize,
) -> SinterStatus {
    guard("sinter_host_memory_get_data", || {
        let m = handle::shared(memory, "memory")?;
        let bytes = m.as_slice();
        let size_out = if size_out.is_null() { None } else { Some(handle::out(size_out, "size_out")?) };
        if !data_out.is_null() {
            handle::out(data_out, "data_out")?.set(bytes.as_ptr().cast());
        }
        if let Some(out) = size_out {
            out.set(bytes.len());
        }
        Ok(())
    })
}

/// Writes the bytes to a file: to a new one beside it first, which then takes its name, so that no half file is seen.
///
/// Params: memory (in); path (in) UTF-8.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure the file is as it was.
/// Status: OK, the errors of handles and arguments; NOT_FOUND when the folder does not exist; IO when the operating
/// system refuses.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_host_memory_write_file(
    memory: *const SinterHostMemory,
    path: *const c_char,
) -> SinterStatus {
    guard("sinter_host_memory_write_file", || {
        let m = handle::shared(memory, "memory")?;
        write_file(Path::new(handle::text(path, "path")?), m.as_slice())
    })
}

/// Writes a file under a passing name and renames it.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut passing = path.as_os_str().to_owned();
    passing.push(format!(".{}.part", std::process::id()));
    let passing = Path::new(&passing);
    let done = std::fs::write(passing, bytes).and_then(|()| std::fs::rename(passing, path));
    if done.is_err() {
        let _ = std::fs::remove_file(passing);
    }
    done.with_context(|| format!("writing {path:?}"))
}
