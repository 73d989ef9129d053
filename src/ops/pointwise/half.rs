//! Which programs may run in f16.

use super::func::Func;
use super::program::{Program, Reg};

/// The largest finite f16.
pub const F16_MAX: f64 = 65504.0;
/// Constants below the smallest normal f16 lose bits; an epsilon would become zero.
pub const F16_MIN: f64 = 6.1e-5;

fn is_number(p: &Program, r: Reg) -> bool {
    (r as usize).checked_sub(p.n_inputs()).is_some_and(|i| p.instrs[i].func == Func::Const && p.instrs[i].value != 0.0)
}

/// Functions that keep f16 values in range and do not cancel; constants that f16 holds; no squares.
pub fn is_safe(p: &Program) -> bool {
    use Func::*;
    p.instrs.iter().all(|ins| match ins.func {
        Const => ins.value.is_infinite() || ins.value == 0.0 || (F16_MIN..=F16_MAX).contains(&ins.value.abs()),
        Mul => ins.args[0] != ins.args[1],
        // By a number: its range was checked where it stands.
        Div => is_number(p, ins.args[1]),
        // From f32 to f32 there is nothing to convert; anything else keeps its meaning in f32 only.
        Add | Sub | Neg | Abs | Max | Min | Select | Relu | LeakyRelu | Clip | Sigmoid | Tanh | Silu | HardSigmoid
        | HardSwish | GeluErf | GeluTanh | Elu | Mish | Softsign | Not | And | Or => true,
        _ => false,
    })
}
