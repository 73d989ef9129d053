//! Elementary functions against f64 on dense grids, for each instruction set; edges and NaN by hand.

use super::*;

/// Distance in units of the last place of the f32 nearest to `want`.
fn ulps(got: f32, want: f64) -> f64 {
    let nearest = want as f32;
    if nearest.is_nan() || got.is_nan() {
        return if nearest.is_nan() == got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if nearest.is_infinite() || got.is_infinite() {
        return if nearest == got { 0.0 } else { f64::INFINITY };
    }
    let exponent = ((nearest.abs().to_bits() >> 23) as i32).max(1) - 127;
    (got as f64 - want).abs() / 2f64.powi(exponent - 23)
}

/// Every 8009th float of both signs (some 500 000), with the special ones.
fn grid() -> Vec<f32> {
    let mut x: Vec<f32> = (0..u32::MAX / 8009).map(|i| f32::from_bits(i * 8009)).filter(|v| !v.is_nan()).collect();
    x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, 1.0, -1.0]);
    x.extend((-4000..4000).map(|i| i as f32 * 0.0273));
    x.extend((0..4000).map(|i| 1.0 + (i - 2000) as f32 * f32::EPSILON));
    x
}

fn check(op: Unary, max_ulp: f64, reference: impl Fn(f64) -> f64) {
    let x = grid();
    for isa in Isa::available() {
        let mut y = x.clone();
        map_isa(isa, op, &mut y);
        let mut worst = (0.0, 0.0, 0.0);
        for (x, y) in x.iter().zip(&y) {
            let e = ulps(*y, reference(*x as f64));
            if e > worst.0 || e.is_nan() {
                worst = (e, *x, *y);
            }
        }
        assert!(worst.0 <= max_ulp, "{op:?} {isa:?}: {} ulp at {:e}, got {:e}, expected {:e}", worst.0, worst.1, worst.2, reference(worst.1 as f64));
    }
}

/// erf in f64: Taylor series near 0, continued fraction of erfc beyond.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return a;
    }
    if a > 6.5 {
        return 1f64.copysign(x);
    }
    let value = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..100 {
            term *= -a * a / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..120).rev().fold(a, |f, k| a + k as f64 / 2.0 / f);
        1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}

#[test]
fn exponential_is_within_its_bound() {
    check(Unary::Exp, math::MAX_ULP, f64::exp);
}

#[test]
fn logarithm_is_within_its_bound() {
    check(Unary::Log, math::MAX_ULP, f64::ln);
}

#[test]
fn hyperbolic_tangent_is_within_its_bound() {
    check(Unary::Tanh, math::MAX_ULP, f64::tanh);
}

#[test]
fn sigmoid_is_within_its_bound() {
    check(Unary::Sigmoid, math::MAX_ULP, |x| 1.0 / (1.0 + (-x).exp()));
}

#[test]
fn error_function_is_within_its_bound() {
    check(Unary::Erf, math::MAX_ULP, erf);
}

#[test]
fn exact_functions_are_exact() {
    check(Unary::Sqrt, 0.5, f64::sqrt);
    check(Unary::Reciprocal, 0.5, |x| 1.0 / x);
    check(Unary::Abs, 0.0, f64::abs);
    check(Unary::Neg, 0.0, |x| -x);
    check(Unary::Floor, 0.0, f64::floor);
    check(Unary::Ceil, 0.0, f64::ceil);
    check(Unary::Round, 0.0, f64::round_ties_even);
    check(Unary::Relu, 0.0, |x| if x < 0.0 { 0.0 } else { x });
    check(Unary::Clip(-1.5, 6.0), 0.0, |x| if x.is_nan() { x } else { x.clamp(-1.5, 6.0) });
    check(Unary::LeakyRelu(0.25), 0.5, |x| if x < 0.0 { 0.25 * x } else { x });
    check(Unary::Sign, 0.0, |x| if x.is_nan() { x } else if x == 0.0 { 0.0 } else { x.signum() });
    check(Unary::Pow(2.0), 0.5, |x| x * x);
    check(Unary::Pow(0.5), 0.5, |x| x.powf(0.5));
    check(Unary::Pow(2.5), 1.0, |x| x.powf(2.5));
}

/// Functions that cancel are held to an error relative to their input's scale.
#[test]
fn activations_are_within_absolute_bounds() {
    const SCALED_TOLERANCE: f64 = 4e-7;
    let x: Vec<f32> = (-20000..20000).map(|i| i as f32 * 0.00173).collect();
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    type Case<'a> = (Unary, &'a dyn Fn(f64) -> f64);
    let cases: [Case; 10] = [
        (Unary::Silu, &|x| x / (1.0 + (-x).exp())),
        (Unary::HardSwish, &|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        (Unary::HardSigmoid(0.2, 0.5), &|x| (0.2f32 as f64 * x + 0.5).clamp(0.0, 1.0)),
        (Unary::Gelu, &|x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))),
        (Unary::GeluTanh, &|x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())),
        (Unary::Softplus, &softplus),
        (Unary::Mish, &|x| x * softplus(x).tanh()),
        (Unary::Elu(0.7), &|x| if x < 0.0 { 0.7f32 as f64 * (x.exp() - 1.0) } else { x }),
        (Unary::Softsign, &|x| x / (1.0 + x.abs())),
        (Unary::Affine(1.5, -0.25), &|x| 1.5 * x - 0.25),
    ];
    for (op, reference) in cases {
        for isa in Isa::available() {
            let mut y = x.clone();
            map_isa(isa, op, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let want = reference(*x as f64);
                let error = (*y as f64 - want).abs() / (1.0 + x.abs() as f64);
                assert!(error <= SCALED_TOLERANCE, "{op:?} {isa:?} at {x}: expected {want}, got {y}");
            }
        }
    }
    let mut special = [f32::NAN, f32::INFINITY];
    map_in_place(Unary::Softplus, &mut special);
    assert!(special[0].is_nan() && special[1] == f32::INFINITY);
    let mut special = [f32::NEG_INFINITY];
    map_in_place(Unary::Softplus, &mut special);
    assert_eq!(special, [0.0]);
}

#[test]
fn two_operands_agree_with_plain_loops_in_every_form() {
    let n = 77;
    let mut a: Vec<f32> = (0..n).map(|i| (i as f32 - 30.0) * 0.37).collect();
    let mut b: Vec<f32> = (0..n).map(|i| (i as f32 * 1.7) % 5.0 - 2.0).collect();
    (a[3], b[5]) = (f32::NAN, f32::NAN);
    let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
    let reference = |op: Binary, x: f32, y: f32| match op {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        _ if x.is_nan() || y.is_nan() => f32::NAN,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
    };
    for op in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min] {
        for isa in Isa::available() {
            let (mut y, mut left, mut right) = (vec![0.0; n], a.clone(), b.clone());
            zip_isa(isa, op, &a, &b, &mut y);
            zip_in_place_isa(isa, op, &mut left, &b);
            zip_into_right_isa(isa, op, &a, &mut right);
            for i in 0..n {
                let want = reference(op, a[i], b[i]);
                assert!(same(y[i], want) && same(left[i], want) && same(right[i], want), "{op:?} {isa:?} at {i}");
            }
            let (mut in_place, mut in_place_left, mut y_left) = (a.clone(), a.clone(), vec![0.0; n]);
            scalar_isa(isa, op, &a, 1.25, &mut y);
            scalar_left_isa(isa, op, 1.25, &a, &mut y_left);
            scalar_in_place_isa(isa, op, &mut in_place, 1.25);
            scalar_left_in_place_isa(isa, op, 1.25, &mut in_place_left);
            for i in 0..n {
                let (want, want_left) = (reference(op, a[i], 1.25), reference(op, 1.25, a[i]));
                assert!(same(y[i], want) && same(in_place[i], want), "{op:?} {isa:?} scalar at {i}");
                assert!(same(y_left[i], want_left) && same(in_place_left[i], want_left), "{op:?} {isa:?} left at {i}");
            }
        }
    }
    let mut y = vec![1.0; 3];
    mul_add(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], &mut y);
    add_scaled(&[1.0, 1.0, 1.0], 2.0, &mut y);
    assert_eq!(y, [7.0, 13.0, 21.0]);
    let mut z = vec![0.0; 3];
    map(Unary::Neg, &y, &mut z);
    assert_eq!(z, [-7.0, -13.0, -21.0]);
}

#[test]
fn half_precision_converts_both_ways() {
    let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    let mut wide = vec![0.0; all.len()];
    bf16_to_f32(&all, &mut wide);
    let mut back = vec![bf16::ZERO; all.len()];
    f32_to_bf16(&wide, &mut back);
    for ((a, w), b) in all.iter().zip(&wide).zip(&back) {
        assert!(w.is_nan() && b.is_nan() || a.to_bits() == b.to_bits() && *w == a.to_f32(), "{a:?}");
    }
    let x = grid();
    let mut narrow = vec![bf16::ZERO; x.len()];
    f32_to_bf16(&x, &mut narrow);
    for (x, n) in x.iter().zip(&narrow) {
        let want = bf16::from_f32(*x);
        assert!(want.is_nan() && n.is_nan() || want.to_bits() == n.to_bits(), "{x}: expected {want}, got {n}");
    }
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|h| !h.is_nan()).collect();
    let mut wide = vec![0.0; halves.len()];
    f16_to_f32(&halves, &mut wide);
    let mut back = vec![f16::ZERO; halves.len()];
    f32_to_f16(&wide, &mut back);
    assert!(halves.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn chunks_cover_everything_once() {
    let mut y = vec![0.0f32; 100_001];
    for_each_chunk(&mut y, |start, piece| piece.iter_mut().enumerate().for_each(|(i, v)| *v += (start + i) as f32));
    assert!(y.iter().enumerate().all(|(i, v)| *v == i as f32));
}
