//! Optimization profiles: the ranges of shapes that an engine is built for.

use super::guard::guard;
use super::handle::{self, Handle};
use super::status::SinterStatus;
use crate::ensure;
use crate::plan::{Profile, Range};
use std::ffi::c_char;

/// Ranges of the inputs' shapes, for sinter_builder_config_add_profile.
pub struct SinterProfile {
    _opaque: (),
}

impl Handle for SinterProfile {
    const MAGIC: &'static [u8; 8] = b"SntrProf";
    type Content = Profile;
}

/// Makes a profile without ranges.
///
/// Params: profile_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK; INVALID_ARGUMENT for NULL.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_profile_create(profile_out: *mut *mut SinterProfile) -> SinterStatus {
    guard("sinter_profile_create", || {
        handle::out_handle(profile_out, "profile_out")?.give(Profile::default());
        Ok(())
    })
}

/// Destroys a profile.
///
/// Params: profile (in) or NULL, which does nothing.
/// Owns: the handle is gone; configs that it was added to have a copy.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_profile_destroy(profile: *mut SinterProfile) -> SinterStatus {
    guard("sinter_profile_destroy", || handle::destroy(profile, "profile"))
}

/// Sets the range of one input's shape, in place of one that was set before. The builder times kernels at opt.
///
/// Params: profile (in/out); input (in) name; min, opt, max (in) n_dims elements each; n_dims (in) rank of the input.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; INVALID_CONFIG unless 0 <= min <= opt <= max in each dimension.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_profile_set_range(
    profile: *mut SinterProfile,
    input: *const c_char,
    min: *const i64,
    opt: *const i64,
    max: *const i64,
    n_dims: usize,
) -> SinterStatus {
    guard("sinter_profile_set_range", || {
        let mut p = handle::exclusive(profile, "profile")?;
        let input = handle::text(input, "input")?;
        let dims = |p, name| handle::slice(p, n_dims, name).map(<[i64]>::to_vec);
        let range = Range { min: dims(min, "min")?, opt: dims(opt, "opt")?, max: dims(max, "max")? };
        for (i, ((a, b), c)) in range.min.iter().zip(&range.opt).zip(&range.max).enumerate() {
            ensure!(
                0 <= *a && a <= b && b <= c,
                InvalidConfig,
                "input {input:?}: dimension {i} has min {a}, opt {b}, max {c}; expected 0 <= min <= opt <= max"
            );
        }
        p.inputs.insert(input.to_string(), range);
        Ok(())
    })
}
