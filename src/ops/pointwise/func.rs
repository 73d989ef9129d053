//! The scalar functions that programs are made of: one table of names, arities and type rules.
//!
//! How each is computed on the host is in `eval.rs`, on CUDA in `kernels/common/math.cuh` under the same name.

use crate::base::{DType, Result};
use crate::ensure;

/// Which element types a function takes and what it gives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Floating point to the same type.
    Float,
    /// Any number to the same type.
    Number,
    /// Integers (or bool, for the logical use) to the same type.
    Int,
    /// Bools to bool.
    Logic,
    /// Two numbers or bools to bool.
    Compare,
    /// Floating point to bool.
    Test,
    /// (bool, T, T) to T.
    Select,
    /// No rule of its own: the instruction carries the type.
    Given,
}

macro_rules! funcs {
    ($($(#[$m:meta])* $v:ident = $name:literal $n:literal $rule:ident;)*) => {
        /// A scalar function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Func { $($(#[$m])* $v),* }
        impl Func {
            pub const ALL: &'static [Func] = &[$(Func::$v),*];
            /// Name in program text and of the device function.
            pub fn name(self) -> &'static str { match self { $(Func::$v => $name),* } }
            pub fn from_name(s: &str) -> Option<Func> { match s { $($name => Some(Func::$v),)* _ => None } }
            /// Number of arguments.
            pub fn arity(self) -> usize { match self { $(Func::$v => $n),* } }
            fn rule(self) -> Rule { match self { $(Func::$v => Rule::$rule),* } }
        }
    };
}

funcs! {
    /// A constant; its value stands in the instruction.
    Const = "const" 0 Given;
    /// Conversion to the instruction's type.
    Cast = "cast" 1 Given;
    /// Conversion as the instruction's value says: the code of a `CastMode` other than the default.
    CastMode = "cast_mode" 1 Given;
    /// (condition, then, else).
    Select = "select" 3 Select;
    Add = "add" 2 Number;
    Sub = "sub" 2 Number;
    Mul = "mul" 2 Number;
    /// Integer division truncates toward zero; by zero it gives 0.
    Div = "div" 2 Number;
    Pow = "pow" 2 Number;
    /// Remainder with the sign of the divisor.
    Mod = "mod" 2 Number;
    /// Remainder with the sign of the dividend, as C's fmod.
    Fmod = "fmod" 2 Number;
    /// NaN when either is NaN.
    Max = "max" 2 Number;
    Min = "min" 2 Number;
    Neg = "neg" 1 Number;
    Abs = "abs" 1 Number;
    Sign = "sign" 1 Number;
    Relu = "relu" 1 Number;
    /// (x, alpha): x below zero times alpha.
    LeakyRelu = "leaky_relu" 2 Number;
    /// (x, low, high): min(max(x, low), high).
    Clip = "clip" 3 Number;
    Sigmoid = "sigmoid" 1 Float;
    Tanh = "tanh" 1 Float;
    Exp = "exp" 1 Float;
    Log = "log" 1 Float;
    Sqrt = "sqrt" 1 Float;
    Reciprocal = "reciprocal" 1 Float;
    Floor = "floor" 1 Float;
    Ceil = "ceil" 1 Float;
    /// Half to even.
    Round = "round" 1 Float;
    Erf = "erf" 1 Float;
    /// x/2 * (1 + erf(x/sqrt 2)).
    GeluErf = "gelu_erf" 1 Float;
    /// x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    GeluTanh = "gelu_tanh" 1 Float;
    /// x * sigmoid(x).
    Silu = "silu" 1 Float;
    /// (x, alpha, beta): clip(alpha x + beta, 0, 1).
    HardSigmoid = "hard_sigmoid" 3 Float;
    /// x * clip(x/6 + 1/2, 0, 1).
    HardSwish = "hard_swish" 1 Float;
    /// (x, alpha): alpha (exp x - 1) below zero.
    Elu = "elu" 2 Float;
    /// (x, alpha): max(0,x) + min(0, alpha (exp(x/alpha) - 1)).
    Celu = "celu" 2 Float;
    /// (x, alpha, gamma).
    Selu = "selu" 3 Float;
    Softplus = "softplus" 1 Float;
    Softsign = "softsign" 1 Float;
    /// x * tanh(softplus x).
    Mish = "mish" 1 Float;
    /// (x, alpha): x above alpha, else 0.
    ThresholdedRelu = "thresholded_relu" 2 Float;
    /// (x, lambda, bias).
    Shrink = "shrink" 3 Number;
    Sin = "sin" 1 Float;
    Cos = "cos" 1 Float;
    Tan = "tan" 1 Float;
    Asin = "asin" 1 Float;
    Acos = "acos" 1 Float;
    Atan = "atan" 1 Float;
    Sinh = "sinh" 1 Float;
    Cosh = "cosh" 1 Float;
    Asinh = "asinh" 1 Float;
    Acosh = "acosh" 1 Float;
    Atanh = "atanh" 1 Float;
    And = "and" 2 Logic;
    Or = "or" 2 Logic;
    Xor = "xor" 2 Logic;
    Not = "not" 1 Logic;
    BitAnd = "bit_and" 2 Int;
    BitOr = "bit_or" 2 Int;
    BitXor = "bit_xor" 2 Int;
    BitNot = "bit_not" 1 Int;
    ShiftLeft = "shift_left" 2 Int;
    ShiftRight = "shift_right" 2 Int;
    Equal = "equal" 2 Compare;
    Less = "less" 2 Compare;
    LessEqual = "less_equal" 2 Compare;
    Greater = "greater" 2 Compare;
    GreaterEqual = "greater_equal" 2 Compare;
    IsNan = "is_nan" 1 Test;
    /// (x, detect_negative, detect_positive) as numbers of x's type.
    IsInf = "is_inf" 3 Test;
}

impl Func {
    /// Element type of the result, or why the arguments are refused.
    pub fn result(self, args: &[DType]) -> Result<DType> {
        let name = self.name();
        ensure!(args.len() == self.arity(), InvalidArgument, "{name}: {} arguments instead of {}", args.len(), self.arity());
        if self.rule() == Rule::Given {
            return Err(crate::internal!("{name} has no type rule"));
        }
        let operands = if self.rule() == Rule::Select { &args[1..] } else { args };
        let t = operands[0];
        ensure!(operands.iter().all(|d| *d == t), InvalidArgument, "{name}: element types differ: {args:?}");
        let fine = match self.rule() {
            Rule::Float | Rule::Test => t.is_float(),
            Rule::Number => t.is_float() || t.is_int(),
            Rule::Int => t.is_int(),
            Rule::Logic => t == DType::Bool,
            Rule::Select => args[0] == DType::Bool,
            Rule::Compare => !t.is_small(),
            Rule::Given => true,
        };
        ensure!(fine, Unsupported, "{name} does not take {t}");
        Ok(if matches!(self.rule(), Rule::Compare | Rule::Test) { DType::Bool } else { t })
    }
}
