//! Kernel launches: a plain one, and the prepared form that the enqueue path replays.
//!
//! A [`PreparedLaunch`] packs the arguments of a [`Launch`] once. Between runs only its address slots change. Running it
//! neither allocates, locks nor logs; it assumes that the device's context is current ([`CudaDevice::enter`], once around
//! many launches).

use super::driver::check;
use super::{CudaDevice, Function, RawStream, Start, tensor_map};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ensure;
use crate::ops::tactic::{Arg, Launch, TensorMap};
use cudarc::driver::sys;
use std::ffi::c_void;
use std::fmt;

/// Launches a kernel on a stream. The device's context must be current.
///
/// `params` holds the address of each argument. Does not allocate.
///
/// # Safety
/// The arguments have the number, sizes and order that the kernel declares, every device address in them is valid until
/// the kernel has run, and the module of `function` is loaded.
pub unsafe fn launch(
    device: &CudaDevice,
    function: Function,
    grid: [u32; 3],
    block: [u32; 3],
    smem: u32,
    params: &mut [*mut c_void],
    stream: RawStream,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let status = unsafe {
        (device.driver.cuLaunchKernel)(
            function.raw,
            grid[0],
            grid[1],
            grid[2],
            block[0],
            block[1],
            block[2],
            smem,
            stream.cast(),
            params.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    };
    check(device.driver, status, || describe(function, grid, block, smem))
}

#[cold]
fn describe(function: Function, grid: [u32; 3], block: [u32; 3], smem: u32) -> String {
    format!("launching kernel {} (grid {grid:?}, block {block:?}, {smem} bytes of shared memory)", function.name())
}

/// Bytes of arguments, at the alignment that a tensor map needs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Unit([u8; 64]);

/// An argument that follows from an address.
#[derive(Clone)]
struct Slot {
    /// Index of the argument.
    arg: u32,
    /// The address that it stands for, or that its tensor map starts at.
    address: Arg,
    /// The map to encode, and the address that it is encoded for (0: none yet).
    map: Option<(TensorMap, u64)>,
}

/// Arguments in the form that the driver takes them: bytes, and the address of each argument in them.
struct PackedArgs {
    /// The bytes. Every argument starts at a multiple of 16, tensor maps at a multiple of 64.
    bytes: Box<[Unit]>,
    /// Where each argument starts, in bytes.
    offsets: Box<[u32]>,
    /// Points into `bytes`, which is never moved or resized.
    pointers: Box<[*mut c_void]>,
    slots: Box<[Slot]>,
}

impl PackedArgs {
    fn new(args: &[Arg]) -> PackedArgs {
        let mut bytes: Vec<u8> = Vec::new();
        let mut offsets = Vec::with_capacity(args.len());
        let mut slots = Vec::new();
        for (i, arg) in args.iter().enumerate() {
            let align = if matches!(arg, Arg::TensorMap(_)) { size_of::<Unit>() } else { 16 };
            bytes.resize(bytes.len().next_multiple_of(align), 0);
            offsets.push(bytes.len() as u32);
            match arg {
                Arg::In(_) | Arg::Out(_) | Arg::Work(_) | Arg::Count(_) => {
                    slots.push(Slot { arg: i as u32, address: arg.clone(), map: None });
                    bytes.extend(0u64.to_ne_bytes());
                }
                Arg::TensorMap(map) => {
                    slots.push(Slot { arg: i as u32, address: map.base.clone(), map: Some(((**map).clone(), 0)) });
                    bytes.extend([0; TensorMap::BYTES]);
                }
                Arg::Null => bytes.extend(0u64.to_ne_bytes()),
                Arg::I32(v) => bytes.extend(v.to_ne_bytes()),
                Arg::I64(v) => bytes.extend(v.to_ne_bytes()),
                Arg::F32(v) => bytes.extend(v.to_ne_bytes()),
                Arg::F64(v) => bytes.extend(v.to_ne_bytes()),
                Arg::Bytes(v) => bytes.extend(v),
            }
        }
        let mut units = vec![Unit([0; 64]); bytes.len().div_ceil(size_of::<Unit>())].into_boxed_slice();
        for (unit, part) in units.iter_mut().zip(bytes.chunks(size_of::<Unit>())) {
            unit.0[..part.len()].copy_from_slice(part);
        }
        Self::from_parts(units, offsets.into(), slots.into())
    }

    fn from_parts(mut bytes: Box<[Unit]>, offsets: Box<[u32]>, slots: Box<[Slot]>) -> PackedArgs {
        let base: *mut u8 = bytes.as_mut_ptr().cast();
        // An empty `Arg::Bytes` at the very end may start one past the last byte, which `wrapping_add` allows.
        let pointers = offsets.iter().map(|o| base.wrapping_add(*o as usize).cast()).collect();
        PackedArgs { bytes, offsets, pointers, slots }
    }

    /// Writes an address, or the map that `encode` makes for it when it is another one than before.
    #[inline]
    fn set_address(
        &mut self,
        slot_idx: usize,
        address: u64,
        encode: impl FnOnce(&TensorMap, u64) -> Result<[u8; TensorMap::BYTES]>,
    ) -> Result<()> {
        let slot = &mut self.slots[slot_idx];
        let at = self.offsets[slot.arg as usize] as usize;
        let unit = at / size_of::<Unit>();
        match &mut slot.map {
            // 8 bytes at a multiple of 16 lie in one unit.
            None => self.bytes[unit].0[at % size_of::<Unit>()..][..8].copy_from_slice(&address.to_ne_bytes()),
            Some((_, encoded)) if *encoded == address && address != 0 => {}
            Some((map, encoded)) => {
                // A map that fails to encode must not be taken for the one that is there.
                *encoded = 0;
                let bytes = encode(map, address)?;
                for (to, part) in self.bytes[unit..].iter_mut().zip(bytes.chunks(size_of::<Unit>())) {
                    to.0.copy_from_slice(part);
                }
                *encoded = address;
            }
        }
        Ok(())
    }
}

impl Clone for PackedArgs {
    fn clone(&self) -> Self {
        Self::from_parts(self.bytes.clone(), self.offsets.clone(), self.slots.clone())
    }
}

/// A launch with packed arguments, ready to run many times.
#[derive(Clone)]
pub struct PreparedLaunch {
    function: Function,
    grid: [u32; 3],
    block: [u32; 3],
    smem: u32,
    args: PackedArgs,
    start: Start,
}

// SAFETY: the pointers lie in the value's own allocation; the handles may be used from any thread.
unsafe impl Send for PreparedLaunch {}
// SAFETY: as above; nothing is changed through `&self`.
unsafe impl Sync for PreparedLaunch {}

impl PreparedLaunch {
    /// Packs the arguments and raises the function's shared-memory bound to what the launch needs.
    ///
    /// All address slots start as null.
    pub fn new(function: Function, launch: &Launch) -> Result<PreparedLaunch> {
        let threads = launch.block.iter().map(|b| *b as u64).product::<u64>();
        ensure!(
            launch.grid.iter().all(|g| *g > 0) && (1..=1024).contains(&threads),
            InvalidArgument,
            "kernel {} cannot be launched with grid {:?} and block {:?}: grids start at 1, blocks have 1 to 1024 threads",
            function.name(),
            launch.grid,
            launch.block
        );
        function.set_max_smem(launch.smem)?;
        Ok(PreparedLaunch {
            function,
            grid: launch.grid,
            block: launch.block,
            smem: launch.smem,
            args: PackedArgs::new(&launch.args),
            start: function.start(),
        })
    }

    /// What each address slot stands for (`In`, `Out` or `Work`), in the order of the arguments. A tensor map is a slot
    /// of the address that it starts at.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = &Arg> {
        self.args.slots.iter().map(|s| &s.address)
    }

    /// Number of address slots.
    pub fn n_slots(&self) -> usize {
        self.args.slots.len()
    }

    /// Overwrites an address slot, and encodes the tensor map there when the address is another one than before. Panics
    /// when there is no such slot; fails where a map cannot start at the address.
    #[inline]
    pub fn set_address(&mut self, slot_idx: usize, address: u64) -> Result<()> {
        let driver = self.function.driver;
        self.args.set_address(slot_idx, address, |map, address| tensor_map::encode(driver, map, address))
    }

    /// When the kernel may start: what [`Function::start`] said, or something else from now on.
    pub fn set_start(&mut self, start: Start) {
        self.start = start;
    }

    /// When the kernel may start.
    pub fn start(&self) -> Start {
        self.start
    }

    /// The launch as the parameters of a graph's node; they point into this value.
    pub(super) fn node_params(&mut self) -> sys::CUDA_KERNEL_NODE_PARAMS {
        // SAFETY: all zeros is a valid value: null handles and pointers.
        let mut p: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
        p.func = self.function.raw;
        [p.gridDimX, p.gridDimY, p.gridDimZ] = self.grid;
        [p.blockDimX, p.blockDimY, p.blockDimZ] = self.block;
        p.sharedMemBytes = self.smem;
        p.kernelParams = self.args.pointers.as_mut_ptr();
        p
    }

    /// How often its blocks fill the device, of which a multiprocessor is full with two blocks or with all threads.
    pub fn fill(&self, props: &DeviceProps) -> f32 {
        let blocks: f32 = self.grid.iter().map(|g| *g as f32).product();
        let threads: f32 = self.block.iter().map(|b| *b as f32).product();
        let each = (threads / 2048.0).max(self.smem as f32 / props.max_smem_per_block.max(1) as f32).max(0.25);
        blocks * each / props.n_sm.max(1) as f32
    }

    /// The kernel that is launched.
    pub fn function(&self) -> Function {
        self.function
    }

    /// Puts the kernel on the stream. The device's context must be current. Does not allocate, lock or log.
    ///
    /// # Safety
    /// Every slot holds an address that is valid for the kernel until it has run, the arguments are what the kernel
    /// declares, and the module is loaded.
    #[inline]
    pub unsafe fn run(&mut self, stream: RawStream) -> Result<()> {
        let driver = self.function.driver;
        let pointers = self.args.pointers.as_mut_ptr();
        let status = if self.start != Start::AfterAll {
            // SAFETY: all zeros is a valid attribute (the value is a union of integers and handles).
            let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
            attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attribute.value.programmaticStreamSerializationAllowed = 1;
            let config = sys::CUlaunchConfig {
                gridDimX: self.grid[0],
                gridDimY: self.grid[1],
                gridDimZ: self.grid[2],
                blockDimX: self.block[0],
                blockDimY: self.block[1],
                blockDimZ: self.block[2],
                sharedMemBytes: self.smem,
                hStream: stream.cast(),
                attrs: &mut attribute,
                numAttrs: 1,
            };
            // SAFETY: the caller's promise; the configuration and the pointers live until the call returns.
            unsafe { (driver.cuLaunchKernelEx)(&config, self.function.raw, pointers, std::ptr::null_mut()) }
        } else {
            let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
            // SAFETY: the caller's promise; the driver copies the arguments before it returns.
            unsafe {
                (driver.cuLaunchKernel)(
                    self.function.raw,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    self.smem,
                    stream.cast(),
                    pointers,
                    std::ptr::null_mut(),
                )
            }
        };
        check(driver, status, || describe(self.function, self.grid, self.block, self.smem))
    }
}

impl fmt::Debug for PreparedLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreparedLaunch({:?}, grid {:?}, block {:?}, smem {})", self.function, self.grid, self.block, self.smem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;
    use crate::ops::tactic::{Swizzle, i32_struct};

    fn args() -> Vec<Arg> {
        vec![
            Arg::In(0),
            Arg::I32(-7),
            Arg::F32(1.5),
            i32_struct([1, 2, 3, 4, 5]),
            Arg::Out(1),
            Arg::Null,
            Arg::I64(1 << 40),
            Arg::F64(-0.25),
            Arg::Work(256),
        ]
    }

    fn no_map(map: &TensorMap, _: u64) -> Result<[u8; TensorMap::BYTES]> {
        panic!("{map:?} is no argument here")
    }

    /// Reads argument `i` as the driver does: `size` bytes at its pointer.
    fn read<const N: usize>(packed: &PackedArgs, i: usize) -> [u8; N] {
        // SAFETY: every argument of the tests has at least N bytes behind it in the packed buffer.
        unsafe { packed.pointers[i].cast::<[u8; N]>().read_unaligned() }
    }

    #[test]
    fn arguments_are_packed_as_the_driver_reads_them() {
        let packed = PackedArgs::new(&args());
        assert_eq!(i32::from_ne_bytes(read(&packed, 1)), -7);
        assert_eq!(f32::from_ne_bytes(read(&packed, 2)), 1.5);
        let ints: [u8; 20] = read(&packed, 3);
        assert_eq!(ints.chunks(4).map(|c| i32::from_ne_bytes(c.try_into().unwrap())).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(u64::from_ne_bytes(read(&packed, 5)), 0);
        assert_eq!(i64::from_ne_bytes(read(&packed, 6)), 1 << 40);
        assert_eq!(f64::from_ne_bytes(read(&packed, 7)), -0.25);
        assert!(packed.pointers.iter().all(|p| *p as usize % 16 == 0));
    }

    #[test]
    fn addresses_change_and_nothing_else_does() {
        let mut packed = PackedArgs::new(&args());
        let slots: Vec<_> = packed.slots.iter().map(|s| (s.arg, s.address.clone())).collect();
        assert_eq!(slots, [(0, Arg::In(0)), (4, Arg::Out(1)), (8, Arg::Work(256))]);
        packed.set_address(0, 0x1111_2222_3333_4444, no_map).unwrap();
        packed.set_address(2, u64::MAX, no_map).unwrap();
        assert_eq!(u64::from_ne_bytes(read(&packed, 0)), 0x1111_2222_3333_4444);
        assert_eq!(u64::from_ne_bytes(read(&packed, 4)), 0);
        assert_eq!(u64::from_ne_bytes(read(&packed, 8)), u64::MAX);
        assert_eq!(i32::from_ne_bytes(read(&packed, 1)), -7);
    }

    #[test]
    fn a_clone_has_its_own_arguments() {
        let mut one = PackedArgs::new(&args());
        one.set_address(1, 64, no_map).unwrap();
        let mut two = one.clone();
        two.set_address(1, 128, no_map).unwrap();
        assert_eq!(u64::from_ne_bytes(read(&one, 4)), 64);
        assert_eq!(u64::from_ne_bytes(read(&two, 4)), 128);
    }

    #[test]
    fn tensor_maps_are_aligned_and_encoded_for_new_addresses_only() {
        let map = |base| TensorMap::matrix(base, DType::F16, 3, 8, [64, 64], Swizzle::Bytes128);
        let mut packed = PackedArgs::new(&[Arg::I32(5), map(Arg::In(0)), Arg::I32(-7), map(Arg::Work(16)), Arg::Out(0)]);
        assert!([1, 3].iter().all(|i| packed.pointers[*i] as usize % 64 == 0));
        let slots: Vec<_> = packed.slots.iter().map(|s| s.address.clone()).collect();
        assert_eq!(slots, [Arg::In(0), Arg::Work(16), Arg::Out(0)]);
        let encoded = std::cell::Cell::new(0);
        let encode = |_: &TensorMap, address: u64| {
            encoded.set(encoded.get() + 1);
            crate::ensure!(address % 16 == 0, InvalidArgument, "not aligned");
            Ok(std::array::from_fn(|i| (address / 16) as u8 ^ i as u8))
        };
        for address in [32, 32, 48, 48] {
            packed.set_address(0, address, encode).unwrap();
        }
        assert_eq!(encoded.get(), 2);
        let bytes: [u8; 128] = read(&packed, 1);
        assert!(bytes.iter().enumerate().all(|(i, b)| *b == 3 ^ i as u8));
        assert_eq!((i32::from_ne_bytes(read(&packed, 0)), i32::from_ne_bytes(read(&packed, 2))), (5, -7));
        assert_eq!(read::<128>(&packed, 3), [0; 128]);
        // After a failure the same address as before is encoded again.
        packed.set_address(0, 8, encode).unwrap_err();
        packed.set_address(0, 48, encode).unwrap();
        assert_eq!(encoded.get(), 4);
    }

    #[test]
    fn no_arguments_at_all_are_fine() {
        let packed = PackedArgs::new(&[]);
        assert!(packed.pointers.is_empty() && packed.slots.is_empty());
    }
}
