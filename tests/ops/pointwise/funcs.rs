//! Each function of the reference against a formula of its own, over edge values.

use super::eval;
use sinter::base::{DType, Tensor};
use sinter::ops::pointwise::{Func, Program};

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

fn float(func: Func, args: &[&[f32]]) -> Vec<f32> {
    let p = Program::single(func, &vec![DType::F32; args.len()]).unwrap();
    let tensors: Vec<Tensor> = args.iter().map(|a| Tensor::from_slice(&[a.len()], a)).collect();
    eval(&p, &tensors.iter().collect::<Vec<_>>())[0].to_f32s()
}

fn ints(func: Func, dtype: DType, args: &[&[i64]]) -> Vec<i64> {
    let p = Program::single(func, &vec![dtype; args.len()]).unwrap();
    let tensors: Vec<Tensor> = args.iter().map(|a| Tensor::from_slice(&[a.len()], a).cast(dtype)).collect();
    eval(&p, &tensors.iter().collect::<Vec<_>>())[0].to_i64s()
}

/// Equal within a relative error of 2e-7 (about 2 ulp), NaN where NaN is expected.
fn assert_close(func: Func, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let fine = (g.is_nan() && w.is_nan()) || g == w || (g - w).abs() <= 2e-7 * w.abs();
        assert!(fine, "{} element {i}: expected {w}, got {g}", func.name());
    }
}

#[test]
fn arithmetic() {
    let (a, b): (&[f32], &[f32]) = (&[1.5, -2.0, INF, 0.0], &[0.25, 3.0, INF, 0.0]);
    assert_close(Func::Add, &float(Func::Add, &[a, b]), &[1.75, 1.0, INF, 0.0]);
    assert_close(Func::Sub, &float(Func::Sub, &[a, b]), &[1.25, -5.0, NAN, 0.0]);
    assert_close(Func::Mul, &float(Func::Mul, &[a, b]), &[0.375, -6.0, INF, 0.0]);
    assert_close(Func::Div, &float(Func::Div, &[a, b]), &[6.0, -2.0 / 3.0, NAN, NAN]);
    assert_close(Func::Pow, &float(Func::Pow, &[&[2.0, -2.0, 9.0, -1.0, 0.0], &[10.0, 3.0, 0.5, 0.5, 0.0]]), &[
        1024.0, -8.0, 3.0, NAN, 1.0,
    ]);
    assert_close(Func::Mod, &float(Func::Mod, &[&[5.5, -5.5, 5.5], &[2.0, 2.0, -2.0]]), &[1.5, 0.5, -0.5]);
    assert_close(Func::Fmod, &float(Func::Fmod, &[&[5.5, -5.5, 5.5], &[2.0, 2.0, -2.0]]), &[1.5, -1.5, 1.5]);
    // One rounding: the f32 sum, not the f64 one.
    assert_eq!(float(Func::Add, &[&[16_777_216.0], &[1.0]]), [16_777_216.0]);
}

#[test]
fn comparing_functions_hand_nan_on() {
    let (a, b): (&[f32], &[f32]) = (&[1.0, NAN, 1.0, -INF], &[2.0, 1.0, NAN, INF]);
    assert_close(Func::Max, &float(Func::Max, &[a, b]), &[2.0, NAN, NAN, INF]);
    assert_close(Func::Min, &float(Func::Min, &[a, b]), &[1.0, NAN, NAN, -INF]);
    assert_close(Func::Relu, &float(Func::Relu, &[&[-1.0, 2.0, NAN]]), &[0.0, 2.0, NAN]);
    assert_close(Func::Clip, &float(Func::Clip, &[&[-3.0, 0.5, 9.0, NAN], &[-1.0], &[1.0]]), &[-1.0, 0.5, 1.0, NAN]);
    // Bounds that cross give the upper one.
    assert_close(Func::Clip, &float(Func::Clip, &[&[-3.0, 0.5, 9.0], &[1.0], &[-1.0]]), &[-1.0; 3]);
    assert_eq!(float(Func::Equal, &[a, a]), [1.0, 0.0, 1.0, 1.0]);
    assert_eq!(float(Func::Less, &[a, b]), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(float(Func::LessEqual, &[&[1.0, 2.0], &[1.0, 1.0]]), [1.0, 0.0]);
    assert_eq!(float(Func::Greater, &[&[1.0, 2.0], &[1.0, 1.0]]), [0.0, 1.0]);
    assert_eq!(float(Func::GreaterEqual, &[&[1.0, 2.0, 0.0], &[1.0, 1.0, 1.0]]), [1.0, 1.0, 0.0]);
    assert_eq!(float(Func::IsNan, &[&[NAN, INF, 0.0]]), [1.0, 0.0, 0.0]);
    let x: &[f32] = &[INF, -INF, NAN, 1.0];
    assert_eq!(float(Func::IsInf, &[x, &[1.0], &[1.0]]), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(float(Func::IsInf, &[x, &[1.0], &[0.0]]), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(float(Func::IsInf, &[x, &[0.0], &[1.0]]), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn rounding_and_signs() {
    let x: &[f32] = &[0.5, 1.5, 2.5, -0.5, -1.5, -2.7, 2.3];
    assert_eq!(float(Func::Round, &[x]), [0.0, 2.0, 2.0, 0.0, -2.0, -3.0, 2.0]);
    assert_eq!(float(Func::Floor, &[x]), [0.0, 1.0, 2.0, -1.0, -2.0, -3.0, 2.0]);
    assert_eq!(float(Func::Ceil, &[x]), [1.0, 2.0, 3.0, 0.0, -1.0, -2.0, 3.0]);
    assert_eq!(float(Func::Neg, &[x])[5], 2.7);
    assert_eq!(float(Func::Abs, &[x])[5], 2.7);
    assert_close(Func::Sign, &float(Func::Sign, &[&[-7.0, 0.0, 7.0, NAN]]), &[-1.0, 0.0, 1.0, NAN]);
    assert_close(Func::Reciprocal, &float(Func::Reciprocal, &[&[4.0, 0.0, -INF]]), &[0.25, INF, 0.0]);
    assert_close(Func::Sqrt, &float(Func::Sqrt, &[&[2.0, 0.0, -1.0]]), &[1.414_213_5, 0.0, NAN]);
}

#[test]
fn error_function_matches_published_values() {
    // Abramowitz and Stegun, table 7.1.
    let x: &[f32] = &[0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, -1.0, INF, -INF, NAN];
    let want = [
        0.0, 0.112_462_916, 0.520_499_88, 0.842_700_8, 0.966_105_15, 0.995_322_3, 0.999_977_9, 1.0, -0.842_700_8, 1.0, -1.0, NAN,
    ];
    // The arguments 0.1 and 0.5 are rounded to f32 first, which moves the results by less than the tolerance.
    assert_close(Func::Erf, &float(Func::Erf, &[x]), &want);
}

#[test]
fn activations() {
    let x: &[f32] = &[-20.0, -3.0, -0.75, 0.0, 1e-3, 0.75, 3.0, 20.0, NAN];
    let check = |func: Func, extra: &[f32], f: &dyn Fn(f64) -> f64| {
        let mut args: Vec<&[f32]> = vec![x];
        args.extend(extra.chunks(1));
        let want: Vec<f32> = x.iter().map(|v| f(*v as f64) as f32).collect();
        assert_close(func, &float(func, &args), &want);
    };
    let logistic = |v: f64| v.exp() / (1.0 + v.exp());
    check(Func::LeakyRelu, &[0.125], &|v| if v < 0.0 { v / 8.0 } else { v });
    check(Func::Sigmoid, &[], &logistic);
    check(Func::Tanh, &[], &|v| (v.exp() - (-v).exp()) / (v.exp() + (-v).exp()));
    check(Func::Exp, &[], &f64::exp);
    check(Func::Log, &[], &|v| if v == 0.0 { f64::NEG_INFINITY } else { v.log2() * std::f64::consts::LN_2 });
    check(Func::Silu, &[], &|v| v * logistic(v));
    check(Func::HardSigmoid, &[0.25, 0.5], &|v| if v.is_nan() { v } else { (v / 4.0 + 0.5).clamp(0.0, 1.0) });
    check(Func::HardSwish, &[], &|v| if v.is_nan() { v } else { v * ((v + 3.0) / 6.0).clamp(0.0, 1.0) });
    check(Func::Elu, &[0.5], &|v| if v < 0.0 { 0.5 * v.exp_m1() } else { v });
    check(Func::Celu, &[2.0], &|v| if v < 0.0 { 2.0 * (v / 2.0).exp_m1() } else { v });
    check(Func::Selu, &[1.5, 2.0], &|v| if v < 0.0 { 3.0 * v.exp_m1() } else { 2.0 * v });
    check(Func::Softplus, &[], &|v| v.exp().ln_1p());
    check(Func::Softsign, &[], &|v| v / (1.0 + v.abs()));
    check(Func::Mish, &[], &|v| v * ((1.0 + v.exp()).powi(2) - 1.0) / ((1.0 + v.exp()).powi(2) + 1.0));
    check(Func::ThresholdedRelu, &[0.75], &|v| if v > 0.75 { v } else { 0.0 });
    check(Func::Shrink, &[0.75, 0.25], &|v| {
        if v < -0.75 {
            v + 0.25
        } else if v > 0.75 {
            v - 0.25
        } else {
            0.0
        }
    });
}

#[test]
fn gelus() {
    // Values of x Phi(x) from tables of the normal distribution.
    assert_close(Func::GeluErf, &float(Func::GeluErf, &[&[-1.0, 0.0, 1.0, 2.0]]), &[-0.158_655_26, 0.0, 0.841_344_7, 1.954_499_7]);
    let tail = float(Func::GeluErf, &[&[-5.0]])[0];
    assert!((tail - -5.0 * 2.866_515_7e-7).abs() < 1e-12, "x Phi(x) far below zero, got {tail}");
    let tanh = |v: f64| 0.5 * v * (1.0 + (0.797_884_560_802_865_4 * (v + 0.044715 * v.powi(3))).tanh());
    let x = [-2.0, -0.5, 0.0, 0.5, 2.0f32];
    let want: Vec<f32> = x.iter().map(|v| tanh(*v as f64) as f32).collect();
    assert_close(Func::GeluTanh, &float(Func::GeluTanh, &[&x]), &want);
}

#[test]
fn trigonometry_inverts() {
    let x: &[f32] = &[-0.9, -0.1, 0.0, 0.3, 0.8];
    let pairs = [
        (Func::Sin, Func::Asin), (Func::Tan, Func::Atan), (Func::Sinh, Func::Asinh), (Func::Tanh, Func::Atanh),
    ];
    for (f, inverse) in pairs {
        let back = float(inverse, &[&float(f, &[x])]);
        for (a, b) in back.iter().zip(x) {
            assert!((a - b).abs() < 2e-7, "{}({}({b})) is {a}", inverse.name(), f.name());
        }
    }
    let up: &[f32] = &[0.3, 0.5, 0.8];
    for (f, inverse) in [(Func::Cos, Func::Acos), (Func::Cosh, Func::Acosh)] {
        for (a, b) in float(inverse, &[&float(f, &[up])]).iter().zip(up) {
            assert!((a - b).abs() < 1e-6, "{}({}({b})) is {a}", inverse.name(), f.name());
        }
    }
    assert_close(Func::Sin, &float(Func::Sin, &[&[std::f32::consts::FRAC_PI_6]]), &[0.5]);
    assert_close(Func::Cos, &float(Func::Cos, &[&[std::f32::consts::FRAC_PI_3]]), &[0.5]);
    assert_close(Func::Tan, &float(Func::Tan, &[&[std::f32::consts::FRAC_PI_4]]), &[1.0]);
    assert_close(Func::Asin, &float(Func::Asin, &[&[2.0]]), &[NAN]);
}

#[test]
fn integers_wrap_truncate_and_never_fault() {
    use DType::{I8, I32, I64, U8, U64};
    assert_eq!(ints(Func::Add, I8, &[&[127, -128], &[1, -1]]), [-128, 127]);
    assert_eq!(ints(Func::Mul, U8, &[&[16, 200], &[16, 3]]), [0, 88]);
    assert_eq!(ints(Func::Add, I64, &[&[i64::MAX], &[1]]), [i64::MIN]);
    assert_eq!(ints(Func::Mul, I64, &[&[i64::MAX], &[3]]), [i64::MAX.wrapping_mul(3)]);
    assert_eq!(ints(Func::Sub, U64, &[&[0], &[1]]), [-1]); // 2^64 - 1, printed as i64
    assert_eq!(ints(Func::Div, I32, &[&[7, -7, 7, -7, 5], &[2, 2, -2, -2, 0]]), [3, -3, -3, 3, 0]);
    assert_eq!(ints(Func::Div, I64, &[&[i64::MIN], &[-1]]), [i64::MIN]);
    assert_eq!(ints(Func::Mod, I32, &[&[7, -7, 7, -7, 5], &[3, 3, -3, -3, 0]]), [1, 2, -2, -1, 0]);
    assert_eq!(ints(Func::Fmod, I32, &[&[7, -7, 7, -7, 5], &[3, 3, -3, -3, 0]]), [1, -1, 1, -1, 0]);
    assert_eq!(ints(Func::Pow, I32, &[&[3, -2, 2, 5, -1, 0], &[4, 3, 40, -1, -3, -1]]), [81, -8, 0, 0, -1, 0]);
    assert_eq!(ints(Func::Neg, I8, &[&[5, -128]]), [-5, -128]);
    assert_eq!(ints(Func::Abs, I8, &[&[-5, -128]]), [5, -128]);
    assert_eq!(ints(Func::Sign, I32, &[&[-9, 0, 4]]), [-1, 0, 1]);
    assert_eq!(ints(Func::Relu, I32, &[&[-9, 4]]), [0, 4]);
    assert_eq!(ints(Func::LeakyRelu, I32, &[&[-9, 4], &[2]]), [-18, 4]);
    assert_eq!(ints(Func::Clip, I32, &[&[-9, 4, 9], &[-1], &[5]]), [-1, 4, 5]);
    assert_eq!(ints(Func::Shrink, I32, &[&[-9, 1, 9], &[3], &[2]]), [-7, 0, 7]);
    assert_eq!(ints(Func::Max, U64, &[&[-1], &[1]]), [-1]); // the largest u64 is larger than 1
    assert_eq!(ints(Func::Min, I64, &[&[-1], &[1]]), [-1]);
    assert_eq!(ints(Func::BitAnd, U8, &[&[12], &[10]]), [8]);
    assert_eq!(ints(Func::BitOr, U8, &[&[12], &[10]]), [14]);
    assert_eq!(ints(Func::BitXor, U8, &[&[12], &[10]]), [6]);
    assert_eq!(ints(Func::BitNot, U8, &[&[12]]), [243]);
    assert_eq!(ints(Func::ShiftLeft, U8, &[&[3, 3], &[7, 8]]), [128, 0]);
    assert_eq!(ints(Func::ShiftRight, U8, &[&[128, 128], &[7, 8]]), [1, 0]);
    assert_eq!(ints(Func::Greater, U64, &[&[-1], &[1]]), [1]);
}

#[test]
fn logic_and_selection() {
    let (a, b) = (Tensor::from_slice(&[4], &[false, false, true, true]), Tensor::from_slice(&[4], &[false, true, false, true]));
    for (func, want) in [
        (Func::And, [false, false, false, true]),
        (Func::Or, [false, true, true, true]),
        (Func::Xor, [false, true, true, false]),
        (Func::Equal, [true, false, false, true]),
    ] {
        let p = Program::single(func, &[DType::Bool; 2]).unwrap();
        assert_eq!(eval(&p, &[&a, &b])[0].slice::<bool>(), want, "{}", func.name());
    }
    let not = Program::single(Func::Not, &[DType::Bool]).unwrap();
    assert_eq!(eval(&not, &[&a])[0].slice::<bool>(), [true, true, false, false]);
    let p = Program::single(Func::Select, &[DType::Bool, DType::I64, DType::I64]).unwrap();
    let (x, y) = (Tensor::from_slice(&[1], &[i64::MAX]), Tensor::from_slice(&[4], &[1i64, 2, 3, 4]));
    assert_eq!(eval(&p, &[&a, &x, &y])[0].slice::<i64>(), [1, 2, i64::MAX, i64::MAX]);
}

#[test]
fn casts_truncate_saturate_and_wrap() {
    let cast = |t: &Tensor, to: DType| {
        let mut p = Program { inputs: vec![t.dtype()], instrs: vec![], outputs: vec![] };
        let r = p.push_cast(0, to).unwrap();
        p.outputs = vec![r];
        eval(&p, &[t]).remove(0)
    };
    let x = Tensor::from_slice(&[6], &[1.9f32, -1.9, 300.0, -1e20, NAN, 0.0]);
    assert_eq!(cast(&x, DType::I32).slice::<i32>(), [1, -1, 300, i32::MIN, 0, 0]);
    assert_eq!(cast(&x, DType::U8).slice::<u8>(), [1, 0, 255, 0, 0, 0]);
    assert_eq!(cast(&x, DType::Bool).slice::<bool>(), [true, true, true, true, true, false]);
    let i = Tensor::from_slice(&[3], &[257i64, -1, i64::MAX]);
    assert_eq!(cast(&i, DType::U8).slice::<u8>(), [1, 255, 255]);
    assert_eq!(cast(&i, DType::U64).slice::<u64>(), [257, u64::MAX, i64::MAX as u64]);
    assert_eq!(cast(&i, DType::F64).slice::<f64>()[1], -1.0);
    let h = cast(&Tensor::from_slice(&[3], &[1e6f32, 1.0 + 1.0 / 4096.0, 2049.0]), DType::F16);
    assert_eq!(h.to_f32s(), [INF, 1.0, 2048.0]);
}

#[test]
fn each_instruction_rounds_to_its_type() {
    // 2048 + 1 is no f16; if the sum were kept wide, subtracting 2048 would give 1.
    let p = Program::parse("f16,f16;add(0,1):f16;sub(2,0):f16;>3").unwrap();
    let t = |v: f32| Tensor::scalar(v).cast(DType::F16);
    assert_eq!(eval(&p, &[&t(2048.0), &t(1.0)])[0].to_f32s(), [0.0]);
}
