//! Loaded kernels: a [`Module`] is one cubin in one context, a [`Function`] one entry point of it.
//!
//! The driver is given no length with an image, so the ELF structure of the cubin is checked against the length first:
//! bytes from an engine file never make the driver read past them.

use super::driver::{Driver, check, code};
use super::{CudaDevice, ContextGuard};
use crate::base::Result;
use crate::{bail, ensure, err, log_warn};
use cudarc::driver::sys;
use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

/// A loaded cubin. Its functions may be launched as long as it lives.
pub struct Module {
    device: Arc<CudaDevice>,
    raw: sys::CUmodule,
}

// SAFETY: a module handle may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above; the module is not changed after it is loaded.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin into the device's context. Takes device memory for its code; not for the enqueue path.
    pub fn load(device: &Arc<CudaDevice>, cubin: &[u8]) -> Result<Module> {
        check_elf(cubin)?;
        let _context = device.enter()?;
        // The driver reads the ELF structures in place; bytes out of a file may lie at any address.
        let copy: Vec<u128>;
        let image = if cubin.as_ptr() as usize % 16 == 0 {
            cubin.as_ptr()
        } else {
            let mut aligned = vec![0u128; cubin.len().div_ceil(16)];
            // SAFETY: the target holds at least as many bytes and does not overlap the source.
            unsafe { std::ptr::copy_nonoverlapping(cubin.as_ptr(), aligned.as_mut_ptr().cast(), cubin.len()) };
            copy = aligned;
            copy.as_ptr().cast()
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: the image is a complete ELF file, as checked above; the driver copies what it needs.
        let status = unsafe { (device.driver.cuModuleLoadData)(&mut raw, image.cast()) };
        if status == code::NO_BINARY_FOR_GPU {
            let props = &device.props;
            bail!(Cuda, "a cubin of {} bytes was not compiled for this device ({}, compute capability {})", cubin.len(), props.name, props.sm);
        }
        check(device.driver, status, || format!("loading a cubin of {} bytes", cubin.len()))?;
        Ok(Module { device: device.clone(), raw })
    }

    /// The kernel with this name.
    pub fn function(&self, name: &str) -> Result<Function> {
        let c_name = CString::new(name).map_err(|_| err!(InvalidArgument, "kernel name {name:?} contains a NUL"))?;
        let _context = self.device.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module is loaded; the name is NUL-terminated.
        let status = unsafe { (self.device.driver.cuModuleGetFunction)(&mut raw, self.raw, c_name.as_ptr()) };
        if status == code::NOT_FOUND {
            bail!(NotFound, "the cubin has no kernel named {name:?}");
        }
        check(self.device.driver, status, || format!("looking up kernel {name:?}"))?;
        Ok(Function { driver: self.device.driver, context: self.device.context, raw, start: Start::AfterAll })
    }

    /// The device that the module was loaded on.
    pub fn device(&self) -> &Arc<CudaDevice> {
        &self.device
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let unload = || -> Result<()> {
            let _context = self.device.enter()?;
            // SAFETY: loaded once in `load`.
            let status = unsafe { (self.device.driver.cuModuleUnload)(self.raw) };
            super::check_unless_exiting(self.device.driver, status, || "unloading a cubin".into())
        };
        if let Err(e) = unload() {
            log_warn!("{e}");
        }
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({:p} on {:?})", self.raw, self.device)
    }
}

/// A kernel of a loaded module. A plain handle: valid while somebody holds the [`Module`].
#[derive(Clone, Copy)]
pub struct Function {
    pub(super) driver: &'static Driver,
    context: sys::CUcontext,
    pub(super) raw: sys::CUfunction,
    start: Start,
}

/// When a kernel may be launched, as seen from the kernel before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It has ended.
    AfterAll,
    /// Each of its blocks has allowed it (`griddepcontrol.launch_dependents`), or has ended.
    WhenAllowed,
    /// Each of its blocks has begun; in graphs, elsewhere as above.
    WhenBegun,
}

// SAFETY: a function handle may be used from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// Says when the kernel may be launched. Only one that waits by itself (`kernels/common/ptx.cuh`) may be early: another
    /// gives wrong numbers.
    pub fn starting(self, start: Start) -> Function {
        Function { start, ..self }
    }

    /// When the kernel may be launched; at first, after all.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Lets launches use this much dynamic shared memory. Never lowers the bound: launches of other sizes share it.
    pub fn set_max_smem(&self, bytes: u32) -> Result<()> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        if bytes == 0 || bytes <= self.attribute(attribute)? {
            return Ok(());
        }
        let _context = ContextGuard::new(self.driver, self.context)?;
        // SAFETY: the module is loaded, by the type's contract.
        let status = unsafe { (self.driver.cuFuncSetAttribute)(self.raw, attribute, bytes.min(i32::MAX as u32) as i32) };
        check(self.driver, status, || format!("allowing kernel {} {bytes} bytes of dynamic shared memory", self.name()))
    }

    /// Registers of a thread.
    pub fn n_registers(&self) -> Result<u32> {
        self.attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)
    }

    /// Local memory of a thread in bytes: spills and local arrays.
    pub fn local_bytes(&self) -> Result<u32> {
        self.attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
    }

    /// Blocks of this shape that fit on one multiprocessor at a time.
    pub fn blocks_per_sm(&self, threads: u32, smem: u32) -> Result<u32> {
        let _context = ContextGuard::new(self.driver, self.context)?;
        let mut n = 0;
        let f = self.driver.cuOccupancyMaxActiveBlocksPerMultiprocessor;
        // SAFETY: the module is loaded; writes one integer.
        let status = unsafe { f(&mut n, self.raw, threads as i32, smem as usize) };
        check(self.driver, status, || format!("reading the occupancy of kernel {}", self.name()))?;
        Ok(n.max(0) as u32)
    }

    /// The kernel's name as the driver knows it; `?` when the driver is too old to say.
    pub fn name(&self) -> String {
        let Some(get) = self.driver.cuFuncGetName else { return "?".into() };
        let mut name = std::ptr::null();
        // SAFETY: the module is loaded; the driver's string lives as long as the module.
        unsafe {
            if get(&mut name, self.raw) != code::SUCCESS || name.is_null() {
                return "?".into();
            }
            std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }

    fn attribute(&self, attribute: sys::CUfunction_attribute) -> Result<u32> {
        let _context = ContextGuard::new(self.driver, self.context)?;
        let mut value = 0;
        // SAFETY: the module is loaded; writes one integer.
        let status = unsafe { (self.driver.cuFuncGetAttribute)(&mut value, attribute, self.raw) };
        check(self.driver, status, || format!("reading {attribute:?} of kernel {}", self.name()))?;
        Ok(value.max(0) as u32)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Function({:p})", self.raw)
    }
}

/// Checks that every header and section of a 64-bit little-endian ELF file lies inside its bytes.
pub(super) fn check_elf(bytes: &[u8]) -> Result<()> {
    let n = bytes.len() as u64;
    ensure!(
        n >= 64 && bytes[..6] == [0x7f, b'E', b'L', b'F', 2, 1],
        CorruptData,
        "a kernel image of {n} bytes is not a cubin (64-bit ELF expected)"
    );
    let read = |at: u64, width: usize| -> u64 {
        let at = at as usize;
        bytes[at..at + width].iter().rev().fold(0, |v, b| v << 8 | *b as u64)
    };
    let inside = |what: &str, offset: u64, size: u64| -> Result<()> {
        let end = offset.checked_add(size);
        ensure!(
            end.is_some_and(|e| e <= n),
            CorruptData,
            "a cubin is cut short or damaged: its {what} ({size} bytes at {offset}) ends after its {n} bytes"
        );
        Ok(())
    };
    let (ph_offset, sh_offset) = (read(32, 8), read(40, 8));
    let (ph_size, n_ph, sh_size, n_sh) = (read(54, 2), read(56, 2), read(58, 2), read(60, 2));
    inside("program header table", ph_offset, ph_size * n_ph)?;
    inside("section header table", sh_offset, sh_size * n_sh)?;
    ensure!(n_ph == 0 || ph_size >= 56, CorruptData, "a cubin is damaged: its program headers have {ph_size} bytes");
    ensure!(n_sh > 0 && sh_size >= 64, CorruptData, "a cubin is damaged: {n_sh} section headers of {sh_size} bytes");
    for i in 0..n_ph {
        let at = ph_offset + i * ph_size;
        inside("segment", read(at + 8, 8), read(at + 32, 8))?;
    }
    const NO_BITS: u64 = 8;
    for i in 0..n_sh {
        let at = sh_offset + i * sh_size;
        if read(at + 4, 4) != NO_BITS {
            inside("section", read(at + 24, 8), read(at + 32, 8))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ELF that passes: one section header that is all zeros.
    fn tiny_elf() -> Vec<u8> {
        let mut b = vec![0u8; 128];
        b[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        b[40] = 64; // section headers at 64
        b[58] = 64; // bytes of one
        b[60] = 1; // how many
        b
    }

    #[test]
    fn only_complete_elf_images_pass() {
        check_elf(&tiny_elf()).unwrap();
        assert!(check_elf(b"").is_err());
        assert!(check_elf(b".version 8.0\n.target sm_90a\n").is_err(), "PTX is not loaded");
        for cut in [0, 5, 63, 64, 127] {
            assert!(check_elf(&tiny_elf()[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_section_that_points_outside_is_refused() {
        let mut b = tiny_elf();
        b[64 + 32] = 200; // a section of 200 bytes
        let e = check_elf(&b).unwrap_err();
        assert_eq!(e.code, crate::base::ErrorCode::CorruptData);
        b[64 + 24..64 + 32].copy_from_slice(&u64::MAX.to_le_bytes()); // offset + size overflows
        assert!(check_elf(&b).is_err());
    }

    #[test]
    fn no_flipped_byte_panics() {
        let good = tiny_elf();
        for i in 0..good.len() {
            for bit in [0x01, 0x80, 0xff] {
                let mut b = good.clone();
                b[i] ^= bit;
                let _: Result<()> = check_elf(&b);
            }
        }
    }
}
