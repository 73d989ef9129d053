//! Tensor maps: what the driver makes of a [`TensorMap`] and an address.

use super::driver::{Driver, check};
use crate::base::{DType, Result};
use crate::ops::tactic::{Im2col, Swizzle, TensorMap};
use crate::{bail, ensure, err};
use cudarc::driver::sys;

/// Dimensions of a map at most.
const MAX_RANK: usize = 5;

/// Encodes a map for an address. Does not allocate.
pub(super) fn encode(driver: &Driver, map: &TensorMap, address: u64) -> Result<[u8; TensorMap::BYTES]> {
    use sys::CUtensorMapDataType as T;
    let rank = map.dims.len();
    let n_tile = if map.im2col.is_some() { 2 } else { rank };
    ensure!(
        (1..=MAX_RANK).contains(&rank) && map.strides_bytes.len() + 1 == rank && map.tile.len() == n_tile,
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
    let missing = |name| err!(Unsupported, "the CUDA driver has no {name}, which this kernel needs");
    let mut out = sys::CUtensorMap { opaque: [0; 16] };
    let mut elements = [1; MAX_RANK];
    let interleave = sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE;
    let promotion = sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
    let fill = sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
    let status = if let Some(im2col) = &map.im2col {
        let function = driver.cuTensorMapEncodeIm2col.ok_or_else(|| missing("cuTensorMapEncodeIm2col"))?;
        check_im2col(im2col, rank)?;
        elements[1..rank - 1].copy_from_slice(&im2col.strides);
        // SAFETY: the arrays hold as many numbers as the rank says (one stride less, two corners less), and the call
        // writes one map, which is aligned by its type. The address is only written into the map.
        unsafe {
            function(
                &mut out,
                dtype,
                rank as u32,
                address as *mut std::ffi::c_void,
                map.dims.as_ptr(),
                map.strides_bytes.as_ptr(),
                im2col.lower.as_ptr(),
                im2col.upper.as_ptr(),
                map.tile[0],
                map.tile[1],
                elements.as_ptr(),
                interleave,
                swizzle,
                promotion,
                fill,
            )
        }
    } else {
        let function = driver.cuTensorMapEncodeTiled.ok_or_else(|| missing("cuTensorMapEncodeTiled"))?;
        // SAFETY: the arrays hold as many numbers as the rank says (one stride less), and the call writes one map, which
        // is aligned by its type. The address is only written into the map.
        unsafe {
            function(
                &mut out,
                dtype,
                rank as u32,
                address as *mut std::ffi::c_void,
                map.dims.as_ptr(),
                map.strides_bytes.as_ptr(),
                map.tile.as_ptr(),
                elements.as_ptr(),
                interleave,
                swizzle,
                promotion,
                fill,
            )
        }
    };
    check(driver, status, || format!("encoding the tensor map {map:?} at {address:#x}"))?;
    let mut bytes = [0; TensorMap::BYTES];
    for (to, word) in bytes.chunks_exact_mut(8).zip(out.opaque) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(bytes)
}

/// Fails when the numbers are not those of `rank - 2` spatial axes, or beyond what a map holds.
fn check_im2col(im2col: &Im2col, rank: usize) -> Result<()> {
    let n = rank.saturating_sub(2);
    let counts = [im2col.lower.len(), im2col.upper.len(), im2col.strides.len()];
    ensure!(
        (1..=3).contains(&n) && counts == [n; 3],
        Internal,
        "an im2col map of {rank} dimensions has corners and strides of {counts:?} axes"
    );
    let corners = Im2col::corners(n);
    let strides = 1..=Im2col::MAX_STRIDE as u32;
    ensure!(
        im2col.lower.iter().chain(&im2col.upper).all(|v| corners.contains(&(*v as i64)))
            && im2col.strides.iter().all(|v| strides.contains(v)),
        Unsupported,
        "an im2col map holds corners in {corners:?} and strides in {strides:?}, got {im2col:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn im2col_maps_beyond_the_format_are_refused() {
        let fits = |lower: &[i32], upper: &[i32], strides: &[u32], rank| {
            check_im2col(&Im2col { lower: lower.into(), upper: upper.into(), strides: strides.into() }, rank).is_ok()
        };
        assert!(fits(&[-128, 0], &[127, 0], &[8, 1], 4));
        assert!(!fits(&[-129, 0], &[127, 0], &[8, 1], 4));
        assert!(!fits(&[0, 0], &[0, 128], &[8, 1], 4));
        assert!(!fits(&[0, 0], &[0, 0], &[9, 1], 4) && !fits(&[0, 0], &[0, 0], &[0, 1], 4));
        assert!(fits(&[-300], &[0], &[1], 3) && !fits(&[-17; 3], &[0; 3], &[1; 3], 5));
        assert!(!fits(&[0], &[0, 0], &[1, 1], 4) && !fits(&[], &[], &[], 2) && !fits(&[], &[], &[], 1));
    }
}
