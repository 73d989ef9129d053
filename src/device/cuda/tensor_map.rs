//! Tensor maps: what the driver makes of a [`TensorMap`] and an address.

use super::driver::{Driver, check};
use crate::base::{DType, Result};
use crate::ops::tactic::{Swizzle, TensorMap};
use crate::{bail, ensure, err};
use cudarc::driver::sys;

/// Dimensions of a map at most.
const MAX_RANK: usize = 5;

/// Encodes a map for an address. Does not allocate.
pub(super) fn encode(driver: &Driver, map: &TensorMap, address: u64) -> Result<[u8; TensorMap::BYTES]> {
    use sys::CUtensorMapDataType as T;
    let rank = map.dims.len();
    ensure!(
        (1..=MAX_RANK).contains(&rank) && map.strides_bytes.len() + 1 == rank && map.tile.len() == rank,
        Internal,
        "a tensor map of {rank} dimensions has {} strides and a box of {} dimensions",
        map.strides_bytes.len(),
        map.tile.len()
    );
    ensure!(
        address % 16 == 0 && address != 0,
        InvalidArgument,
        "a tensor at address {address:#x} cannot be reached by a tensor map: expected a multiple of 16"
    );
    let dtype = match map.dtype {
        DType::F16 => T::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::BF16 => T::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        DType::F32 => T::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        DType::U8 | DType::I8 => T::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        other => bail!(Internal, "a tensor map of {other}"),
    };
    let swizzle = match map.swizzle {
        Swizzle::None => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::Bytes32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::Bytes64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::Bytes128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let function = driver
        .cuTensorMapEncodeTiled
        .ok_or_else(|| err!(Unsupported, "the CUDA driver has no cuTensorMapEncodeTiled, which this kernel needs"))?;
    let mut out = sys::CUtensorMap { opaque: [0; 16] };
    let elements = [1; MAX_RANK];
    // SAFETY: the arrays hold as many numbers as the rank says (one stride less), and the call writes one map, which is
    // aligned by its type. The address is only written into the map.
    let status = unsafe {
        function(
            &mut out,
            dtype,
            rank as u32,
            address as *mut std::ffi::c_void,
            map.dims.as_ptr(),
            map.strides_bytes.as_ptr(),
            map.tile.as_ptr(),
            elements.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    check(driver, status, || format!("encoding the tensor map {map:?} at {address:#x}"))?;
    let mut bytes = [0; TensorMap::BYTES];
    for (to, word) in bytes.chunks_exact_mut(8).zip(out.opaque) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(bytes)
}
