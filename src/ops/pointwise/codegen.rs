//! Programs as CUDA C: the text of `generated.cuh`, for `kernels/pointwise.cu` and for epilogues.
//!
//! The text depends on the program alone, byte for byte, since it is a part of the key that compiled kernels are cached
//! by. Functions are called by their names in `kernels/common/math.cuh` (namespace `op`). Half registers are `float`; only
//! a cast to a half type whose result is computed with rounds, because a model wrote it on purpose.

use super::func::Func;
use super::program::{Instr, Program, Reg};
use crate::base::DType;
use crate::base::tensor::{Number, Scalar};
use crate::dispatch;
use crate::ops::tactic::cuda_type;
use std::fmt::Write;

/// Operands that `kernels/pointwise.cu` can have.
pub const MAX_INPUTS: usize = 12;
pub const MAX_OUTPUTS: usize = 4;
/// Further operands that an epilogue can have.
pub const MAX_EXTRAS: usize = 4;

/// The text that `kernels/pointwise.cu` includes; `None` when the program has too many operands for it.
pub fn body(p: &Program) -> Option<String> {
    if p.n_inputs() > MAX_INPUTS || p.outputs.len() > MAX_OUTPUTS {
        return None;
    }
    let mut s = String::new();
    let _ = writeln!(s, "// {}", p.label());
    let _ = writeln!(s, "#define N_IN {}\n#define N_OUT {}", p.n_inputs(), p.outputs.len());
    for (i, d) in p.inputs.iter().enumerate() {
        let _ = writeln!(s, "#define T_IN{i} {}", cuda_type(*d));
    }
    for k in 0..p.outputs.len() {
        let _ = writeln!(s, "#define T_OUT{k} {}", cuda_type(p.output_dtype(k)));
    }
    let mut params: Vec<String> =
        p.inputs.iter().enumerate().map(|(i, d)| format!("{} v{i}", compute_type(*d))).collect();
    params.extend((0..p.outputs.len()).map(|k| format!("{}& r{k}", compute_type(p.output_dtype(k)))));
    let _ = writeln!(s, "DEVICE void body({})\n{{", params.join(", "));
    statements(p, &mut s);
    for (k, r) in p.outputs.iter().enumerate() {
        let _ = writeln!(s, "    r{k} = v{r};");
    }
    s.push_str("}\n");
    Some(s)
}

/// The text that product and convolution kernels include (`kernels/common/epilogue.cuh`): input 0 is the accumulated
/// value, inputs 1.. are the further operands in order, `acc` is the kernel's accumulator type. `None` when the program
/// cannot be applied there: more than four further operands, more than one output, or a type that the accumulator does
/// not hold exactly.
pub fn epilogue(p: &Program, acc: DType) -> Option<String> {
    let exact = |d: DType| match d {
        DType::F64 => acc == DType::F64,
        DType::F32 | DType::F16 | DType::BF16 | DType::Bool => true,
        d if d.is_small() => false,
        d => d.size() <= 2 || (acc == DType::F64 && d.size() == 4),
    };
    let fits = acc.is_float()
        && (1..=1 + MAX_EXTRAS).contains(&p.n_inputs())
        && p.outputs.len() == 1
        && p.inputs.iter().all(|d| exact(*d))
        && exact(p.output_dtype(0));
    if !fits {
        return None;
    }
    let mut s = String::new();
    let n_extra = p.n_inputs() - 1;
    let _ = writeln!(s, "// {}\n#define N_EXTRA {n_extra}", p.label());
    for (j, d) in p.inputs[1..].iter().enumerate() {
        let _ = writeln!(s, "#define T_EXTRA{j} {}", cuda_type(*d));
    }
    let params: Vec<String> = (0..p.n_inputs()).map(|i| format!("ACC e{i}")).collect();
    let _ = writeln!(s, "DEVICE ACC epilogue({})\n{{", params.join(", "));
    for (i, d) in p.inputs.iter().enumerate() {
        let _ = writeln!(s, "    const {0} v{i} = ({0})e{i};", compute_type(*d));
    }
    statements(p, &mut s);
    let _ = writeln!(s, "    return (ACC)v{};\n}}", p.outputs[0]);
    Some(s)
}

/// Type of a register.
fn compute_type(d: DType) -> &'static str {
    match d {
        DType::F16 | DType::BF16 => "float",
        d => cuda_type(d),
    }
}

/// One declaration per instruction.
fn statements(p: &Program, s: &mut String) {
    for (i, ins) in p.instrs.iter().enumerate() {
        let reg = (p.n_inputs() + i) as Reg;
        let is_read = p.instrs.iter().any(|i| i.args.contains(&reg));
        let _ = writeln!(s, "    const {} v{reg} = {};", compute_type(ins.dtype), expression(p, ins, is_read));
    }
}

fn expression(p: &Program, ins: &Instr, is_read: bool) -> String {
    let a: Vec<String> = ins.args.iter().map(|r| format!("v{r}")).collect();
    let name = match ins.func {
        Func::Const => return literal(ins.value, ins.dtype),
        Func::Cast => return cast(&a[0], p.dtype(ins.args[0]), ins.dtype, is_read),
        Func::CastMode => {
            return format!("op::cast_mode<{}, {}>({})", compute_type(ins.dtype), ins.value as u8, a[0]);
        }
        // The header takes (x, bias, lambda).
        Func::Shrink => return format!("op::shrink({}, {}, {})", a[0], a[2], a[1]),
        Func::IsInf => return format!("op::is_inf({}, {} != 0, {} != 0)", a[0], a[1], a[2]),
        Func::Select => "where",
        Func::Round => "round_even",
        Func::And => "logical_and",
        Func::Or => "logical_or",
        Func::Xor => "logical_xor",
        Func::Not => "logical_not",
        Func::Equal => "eq",
        Func::Less => "lt",
        Func::LessEqual => "le",
        Func::Greater => "gt",
        Func::GreaterEqual => "ge",
        f => f.name(),
    };
    let half = if is_half(ins.dtype) && has_half_form(ins.func) { "half_" } else { "" };
    format!("op::{half}{name}({})", a.join(", "))
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Functions that `kernels/common/half_math.cuh` has in a form that is as exact as a half type can show.
fn has_half_form(f: Func) -> bool {
    use Func::*;
    matches!(f, Exp | Div | Reciprocal | Sigmoid | Silu | Tanh | GeluErf | GeluTanh | Mish)
}

fn cast(x: &str, from: DType, to: DType, is_read: bool) -> String {
    let (a, b) = (compute_type(from), compute_type(to));
    let is_half = matches!(to, DType::F16 | DType::BF16);
    let converted = match a == b {
        true => x.to_string(),
        // The half is rounded later, here or when it is stored: rounding to odd keeps what decides.
        false if is_half && (from == DType::F64 || from.is_int() && from.size() >= 4) => format!("op::cast_odd({x})"),
        false => format!("op::cast<{b}>({x})"),
    };
    match to {
        DType::F16 if is_read => format!("op::round_f16({converted})"),
        DType::BF16 if is_read => format!("op::round_bf16({converted})"),
        _ => converted,
    }
}

/// The constant by its bits, so that no digit is lost.
fn literal(value: f64, dtype: DType) -> String {
    match super::eval::round_to(Number::Float(value), dtype) {
        v if dtype.is_small() => {
            // Structs of one byte in device code.
            let byte = dispatch!(dtype, T => crate::base::Tensor::scalar(super::eval::kept::<T>(v))).bytes()[0];
            format!("{}{{({})0x{byte:x}}}", cuda_type(dtype), if dtype.is_small_int() && dtype.is_signed() { "i8" } else { "u8" })
        }
        Number::Float(v) if dtype == DType::F64 => format!("__longlong_as_double(0x{:x}ll)", v.to_bits()),
        Number::Float(v) => format!("__int_as_float(0x{:x})", (v as f32).to_bits()),
        v if dtype == DType::Bool => bool::from_number(v).to_string(),
        Number::Int(v) => format!("({})0x{:x}ull", cuda_type(dtype), v),
        Number::Uint(v) => format!("({})0x{v:x}ull", cuda_type(dtype)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_small_program() {
        let half = 0.5f64.to_bits();
        let p = Program::parse(&format!("f16,f32;cast(0):f32;const({half:x}):f32;mul(2,3):f32;add(4,1):f32;>5")).unwrap();
        let want = "// cast+mul+add\n#define N_IN 2\n#define N_OUT 1\n#define T_IN0 f16\n#define T_IN1 float\n#define T_OUT0 float\n\
            DEVICE void body(float v0, float v1, float& r0)\n{\n    const float v2 = v0;\n    \
            const float v3 = __int_as_float(0x3f000000);\n    const float v4 = op::mul(v2, v3);\n    \
            const float v5 = op::add(v4, v1);\n    r0 = v5;\n}\n";
        assert_eq!(body(&p).unwrap(), want);
    }

    #[test]
    fn half_registers_take_the_short_functions() {
        let text = body(&Program::parse("f16;gelu_erf(0):f16;cast(1):f32;tanh(2):f32;>3").unwrap()).unwrap();
        assert!(text.contains("op::half_gelu_erf(v0)") && text.contains("= op::tanh(v2)"), "{text}");
    }

    #[test]
    fn an_epilogue_takes_only_what_its_accumulator_holds() {
        let p = Program::parse("f16,bool,f16;select(1,0,2):f16;>3").unwrap();
        let text = epilogue(&p, DType::F32).unwrap();
        assert!(text.contains("#define N_EXTRA 2\n#define T_EXTRA0 bool\n#define T_EXTRA1 f16\n"), "{text}");
        assert!(text.contains("const bool v1 = (bool)e1;"), "{text}");
        assert_eq!(epilogue(&Program::parse("f32,i64;cast(1):f32;add(0,2):f32;>3").unwrap(), DType::F32), None);
        assert_eq!(epilogue(&Program::parse("f32,f32,f32,f32,f32,f32;add(0,5):f32;>6").unwrap(), DType::F32), None);
    }

    #[test]
    fn literals_keep_every_bit() {
        assert_eq!(literal(-1.0, DType::I64), "(i64)0xffffffffffffffffull");
        assert_eq!(literal(f64::NEG_INFINITY, DType::F32), "__int_as_float(0xff800000)");
        assert_eq!(literal(0.1, DType::F16), format!("__int_as_float(0x{:x})", half::f16::from_f32(0.1).to_f32().to_bits()));
        assert_eq!(literal(1.0, DType::Bool), "true");
    }
}
