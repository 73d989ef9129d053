//! One generic body, compiled for each instruction set and chosen once per call.
//!
//! The body is an ordinary `#[inline(always)]` function with a `const FMA: bool` parameter; inlined into a function
//! with target features it is vectorized for them. `FMA` says whether a fused multiply-add is one instruction: without
//! it `mul_add` would be a call into the C library.

/// `a * b + c`, fused where the machine can.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `multiversion! { fn name = body(a: A, b: B); }` makes `fn name(isa: Isa, a: A, b: B)`.
macro_rules! multiversion {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident = $body:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)*) => {$(
        $(#[$meta])*
        $vis fn $name(isa: $crate::device::cpu::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match isa {
                    // SAFETY: an `Isa` is only made for what the machine was found to have.
                    $crate::device::cpu::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::device::cpu::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::device::cpu::Isa::Baseline => {}
                }
            }
            let _ = isa;
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    )*};
}
pub(crate) use multiversion;
